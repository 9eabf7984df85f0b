/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `i8254`: the programmable interval timer, with port 0x61, which gates its channel 2 and shows its
 * output.
 *
 * Spec      Intel 8254 datasheet; ICH9 datasheet, sections 13.3 (timer) and 13.7.1 (NMI status and
 *           control).
 * Thread    Registers: any vCPU. Interrupts: the main loop. Both with the device's lock.
 * Trust     Registers are the guest's. Channel 0 interrupts at most every MIN_PERIOD_NS, and what
 *           was missed is not made up for.
 *
 * Counters are never counted: what a counter holds and how its output stands follows from when it
 * was loaded.
 */
#include "machine/machine.h"

#define PIT_HZ 1193182
#define MIN_PERIOD_NS (100 * NS_PER_US)
#define REFRESH_NS 15085 /* half a period of the refresh bit */
#define CHANNELS 3

enum { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };
enum pit_mode { TERMINAL_COUNT, ONE_SHOT, RATE, SQUARE_WAVE, SOFT_STROBE, HARD_STROBE };

struct pit_channel {
    uint32_t count;        /* what it was loaded with: 1 to 0x10000 (10000 in BCD) */
    int64_t load_ns;       /* when counting began */
    int64_t paused_ns;     /* gate low in modes 0 and 4: how long it had counted; -1: it counts */
    uint16_t latch;
    uint8_t status;
    uint8_t latched;       /* bytes of the latch to read yet */
    uint8_t status_latched;
    uint8_t write_low, write_half, read_half;
    uint8_t access, mode, bcd;
    uint8_t gate;
    uint8_t loaded;        /* a count was written since the control word, and a trigger came if the mode needs one */
    uint8_t null_count;
};

struct i8254 {
    struct device dev;
    struct mem_region ports, port61;
    struct clock_timer timer;
    struct pit_channel channel[CHANNELS];
    uint8_t control61;     /* bits 0 to 3 as written */
    uint64_t interrupts;
};

static int64_t now_ns(struct i8254 *s)
{
    return clock_now_ns(&s->dev.machine->clock);
}

static uint64_t to_ticks(int64_t ns)
{
    return (uint64_t)((unsigned __int128)(ns > 0 ? ns : 0) * PIT_HZ / NS_PER_SEC);
}

static int64_t to_ns(uint64_t ticks)
{
    return (int64_t)(((unsigned __int128)ticks * NS_PER_SEC + PIT_HZ - 1) / PIT_HZ);
}

static uint64_t elapsed(const struct pit_channel *c, int64_t now)
{
    return to_ticks(c->paused_ns >= 0 ? c->paused_ns : now - c->load_ns);
}

static bool is_periodic(const struct pit_channel *c)
{
    return c->mode == RATE || c->mode == SQUARE_WAVE;
}

/* --- what a channel shows --- */

static uint16_t to_bcd(unsigned v)
{
    return v % 10 | (v / 10 % 10) << 4 | (v / 100 % 10) << 8 | (v / 1000 % 10) << 12;
}

static unsigned from_bcd(uint16_t v)
{
    return (v & 0xf) + (v >> 4 & 0xf) * 10 + (v >> 8 & 0xf) * 100 + (v >> 12) * 1000;
}

static uint16_t counter_value(const struct pit_channel *c, int64_t now)
{
    unsigned wrap = c->bcd ? 10000 : 0x10000;
    uint64_t value = c->count;
    if (c->loaded) {
        uint64_t ticks = elapsed(c, now);
        if (c->mode == RATE)
            value = c->count - ticks % c->count;
        else if (c->mode == SQUARE_WAVE)
            value = c->count - 2 * ticks % c->count;
        else
            value = c->count + wrap - ticks % wrap;
    }
    value %= wrap;
    return c->bcd ? to_bcd((unsigned)value) : (uint16_t)value;
}

static bool output(const struct pit_channel *c, int64_t now)
{
    if (!c->loaded)
        return c->mode != TERMINAL_COUNT;
    uint64_t ticks = elapsed(c, now);
    switch ((enum pit_mode)c->mode) {
    case TERMINAL_COUNT:
    case ONE_SHOT:
        return ticks >= c->count;
    case RATE:
        return !c->gate || ticks % c->count != c->count - 1;
    case SQUARE_WAVE:
        return !c->gate || ticks % c->count < (c->count + 1) / 2;
    default:
        return ticks != c->count;
    }
}

/* --- channel 0's interrupt --- */

static void arm(struct i8254 *s)
{
    struct pit_channel *c = &s->channel[0];
    int64_t now = now_ns(s);
    bool strobes = c->mode == TERMINAL_COUNT || c->mode == SOFT_STROBE;
    uint64_t ticks = elapsed(c, now);
    if (!c->loaded || !(is_periodic(c) || (strobes && ticks < c->count))) {
        clock_timer_cancel(&s->timer);
        return;
    }
    uint64_t at = c->count;
    if (is_periodic(c)) {
        /* The next end of a period that is not too near. */
        uint64_t min_ticks = to_ticks(MIN_PERIOD_NS), periods = ticks / c->count + 1;
        if (c->count < min_ticks)
            periods = (ticks + min_ticks) / c->count;
        at = periods * c->count;
    }
    clock_timer_arm(&s->timer, c->load_ns + to_ns(at));
}

static void expired(void *opaque)
{
    struct i8254 *s = opaque;
    struct pit_channel *c = &s->channel[0];
    pthread_mutex_lock(&s->dev.lock);
    if (c->loaded && elapsed(c, now_ns(s)) >= c->count) {
        s->interrupts++;
        irq_pulse(&s->dev.machine->gsi[0]);
    }
    arm(s);
    pthread_mutex_unlock(&s->dev.lock);
}

/* --- programming --- */

static void start(struct i8254 *s, struct pit_channel *c)
{
    c->load_ns = now_ns(s);
    c->paused_ns = c->gate || is_periodic(c) ? -1 : 0;
    c->loaded = 1;
    if (c == &s->channel[0])
        arm(s);
}

static void load(struct i8254 *s, struct pit_channel *c, uint16_t val)
{
    unsigned count = c->bcd ? from_bcd(val) : val;
    c->count = count ? count : c->bcd ? 10000 : 0x10000;
    c->null_count = 0;
    /* Modes 1 and 5 start with the gate's rising edge; a running period of modes 2 and 3 is not
     * waited for. */
    if (c->mode != ONE_SHOT && c->mode != HARD_STROBE)
        start(s, c);
}

static void set_gate(struct i8254 *s, struct pit_channel *c, bool gate)
{
    bool rising = gate && !c->gate;
    int64_t now = now_ns(s);
    if (gate == c->gate)
        return;
    c->gate = gate;
    if (c->mode == TERMINAL_COUNT || c->mode == SOFT_STROBE) {
        if (!c->loaded)
            return;
        if (rising && c->paused_ns >= 0) {
            c->load_ns = now - c->paused_ns;
            c->paused_ns = -1;
        } else if (!rising && c->paused_ns < 0) {
            c->paused_ns = now - c->load_ns;
        }
    } else if (rising && !c->null_count) {
        start(s, c);
    }
}

static void latch_count(struct i8254 *s, struct pit_channel *c)
{
    if (c->latched)
        return;
    c->latch = counter_value(c, now_ns(s));
    c->latched = c->access == ACCESS_BOTH ? 2 : 1;
    if (c->access == ACCESS_HIGH)
        c->latch >>= 8;
}

static void latch_status(struct i8254 *s, struct pit_channel *c)
{
    if (c->status_latched)
        return;
    c->status = output(c, now_ns(s)) << 7 | c->null_count << 6 | c->access << 4 | c->mode << 1 | c->bcd;
    c->status_latched = 1;
}

static void control_written(struct i8254 *s, uint8_t val)
{
    unsigned select = val >> 6, access = val >> 4 & 3;
    if (select == 3) { /* read-back: bits 4 and 5 are active low */
        for (unsigned i = 0; i < CHANNELS; i++) {
            if (!(val >> 1 & 1u << i))
                continue;
            if (!(val & 0x20))
                latch_count(s, &s->channel[i]);
            if (!(val & 0x10))
                latch_status(s, &s->channel[i]);
        }
        return;
    }
    struct pit_channel *c = &s->channel[select];
    if (access == ACCESS_LATCH) {
        latch_count(s, c);
        return;
    }
    unsigned mode = val >> 1 & 7;
    c->access = access;
    c->mode = mode > 5 ? mode - 4 : mode;
    c->bcd = val & 1;
    c->loaded = c->latched = c->status_latched = c->write_half = c->read_half = 0;
    c->paused_ns = -1;
    c->null_count = 1;
    if (select == 0)
        arm(s);
}

static void counter_written(struct i8254 *s, struct pit_channel *c, uint8_t val)
{
    switch (c->access) {
    case ACCESS_LOW:
        load(s, c, val);
        break;
    case ACCESS_HIGH:
        load(s, c, (uint16_t)val << 8);
        break;
    default:
        if (!c->write_half) {
            c->write_low = val;
            /* The first byte stops mode 0 until the second comes. */
            if (c->mode == TERMINAL_COUNT)
                c->loaded = 0;
        } else {
            load(s, c, c->write_low | (uint16_t)val << 8);
        }
        c->write_half ^= 1;
        break;
    }
}

static uint8_t counter_read(struct i8254 *s, struct pit_channel *c)
{
    if (c->status_latched) {
        c->status_latched = 0;
        return c->status;
    }
    if (c->latched) {
        uint8_t val = (uint8_t)c->latch;
        c->latch >>= 8;
        c->latched--;
        return val;
    }
    uint16_t value = counter_value(c, now_ns(s));
    bool high = c->access == ACCESS_HIGH || (c->access == ACCESS_BOTH && c->read_half);
    if (c->access == ACCESS_BOTH)
        c->read_half ^= 1;
    return (uint8_t)(high ? value >> 8 : value);
}

static uint64_t pit_read(void *opaque, uint64_t off, unsigned size)
{
    struct i8254 *s = opaque;
    return off < CHANNELS ? counter_read(s, &s->channel[off]) : 0;
}

static void pit_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct i8254 *s = opaque;
    if (off < CHANNELS)
        counter_written(s, &s->channel[off], (uint8_t)val);
    else
        control_written(s, (uint8_t)val);
}

static uint64_t port61_read(void *opaque, uint64_t off, unsigned size)
{
    struct i8254 *s = opaque;
    int64_t now = now_ns(s);
    return s->control61 | (now / REFRESH_NS & 1) << 4 | output(&s->channel[2], now) << 5;
}

static void port61_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct i8254 *s = opaque;
    s->control61 = val & 0x0f;
    set_gate(s, &s->channel[2], val & 1);
}

static const struct mem_ops pit_ops = { .read = pit_read, .write = pit_write, .min_size = 1, .max_size = 1 };
static const struct mem_ops port61_ops = {
    .read = port61_read, .write = port61_write, .min_size = 1, .max_size = 1,
};

/* --- life --- */

static void i8254_reset(struct device *d)
{
    struct i8254 *s = container_of(d, struct i8254, dev);
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < CHANNELS; i++)
        s->channel[i] = (struct pit_channel){
            .count = 0x10000, .mode = SQUARE_WAVE, .access = ACCESS_BOTH, .gate = i != 2, .paused_ns = -1,
            .null_count = 1,
        };
    s->control61 = 0;
    clock_timer_cancel(&s->timer);
    pthread_mutex_unlock(&d->lock);
}

static bool i8254_loaded(struct device *d, GError **error)
{
    struct i8254 *s = container_of(d, struct i8254, dev);
    int64_t now = now_ns(s);
    for (unsigned i = 0; i < CHANNELS; i++) {
        const struct pit_channel *c = &s->channel[i];
        if (!c->count || c->load_ns < 0 || c->load_ns > now || c->paused_ns < -1 || c->paused_ns > now)
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "state of device 'i8254': channel %u counts %u from %" G_GINT64_FORMAT
                               " ns, and the time is %" G_GINT64_FORMAT " ns", i, c->count, c->load_ns, now);
    }
    pthread_mutex_lock(&d->lock);
    arm(s);
    pthread_mutex_unlock(&d->lock);
    return true;
}

static bool i8254_realize(struct device *d, GError **error)
{
    struct i8254 *s = container_of(d, struct i8254, dev);
    clock_timer_init(&d->machine->clock, d->loop, &s->timer, expired, s);
    i8254_reset(d);
    mem_region_init_io(&s->ports, "i8254", &pit_ops, s, 4, &d->lock);
    mem_region_init_io(&s->port61, "port61", &port61_ops, s, 1, &d->lock);
    int r = mem_region_add(d->machine->io, &s->ports, 0x40, 0);
    if (!r)
        r = mem_region_add(d->machine->io, &s->port61, 0x61, 1); /* between the keyboard controller's */
    if (r < 0)
        return ruche_error_errno(error, -r, "i8254: cannot map its ports");
    return true;
}

static void i8254_unrealize(struct device *d)
{
    struct i8254 *s = container_of(d, struct i8254, dev);
    mem_region_remove(&s->ports);
    mem_region_remove(&s->port61);
    clock_timer_done(&s->timer);
}

#define CHANNEL(member, ...) STATE_OF_EACH(struct i8254, channel, member, __VA_ARGS__)

static const struct state_field i8254_state[] = {
    CHANNEL(count, .max = 0x10000),
    CHANNEL(load_ns),
    CHANNEL(paused_ns),
    CHANNEL(latch),
    CHANNEL(status),
    CHANNEL(latched, .max = 2),
    CHANNEL(status_latched, .max = 1),
    CHANNEL(write_low),
    CHANNEL(write_half, .max = 1),
    CHANNEL(read_half, .max = 1),
    CHANNEL(access, .max = 3),
    CHANNEL(mode, .max = HARD_STROBE),
    CHANNEL(bcd, .max = 1),
    CHANNEL(gate, .max = 1),
    CHANNEL(loaded, .max = 1),
    CHANNEL(null_count, .max = 1),
    STATE(struct i8254, control61, .max = 15),
    { 0 },
};

static const struct device_counter i8254_counters[] = {
    COUNTER(struct i8254, interrupts, "Interrupts of channel 0"),
    { 0 },
};

static const struct device_type i8254_type = {
    .name = "i8254", .summary = "Programmable interval timer", .spec = "Intel 8254", .bus = BUS_ISA,
    .internal = true, .size = sizeof(struct i8254), .state = i8254_state, .counters = i8254_counters,
    .realize = i8254_realize, .reset = i8254_reset, .load_after = i8254_loaded,
    .unrealize = i8254_unrealize,
};
DEVICE_TYPE(i8254_type);
