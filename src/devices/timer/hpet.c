/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `hpet`: the high precision event timers, at 100 MHz.
 *
 * Spec      IA-PC HPET specification 1.0a.
 * Thread    Registers: any vCPU. Expiry: the main loop. Both with the device's lock.
 * Trust     Registers are the guest's. A periodic timer fires at most every MIN_PERIOD_NS, and what
 *           was missed is not made up for.
 * Wiring    In legacy replacement timers 0 and 1 take over ISA IRQs 0 and 8: the device stands in
 *           these GSIs before the interrupt controllers and then lets nobody else through. Other
 *           routes are GSIs 20 to 23, which no PCI interrupt uses, or messages.
 */
#include "machine/machine.h"

#define HPET_BASE 0xfed00000u
#define HPET_BYTES 0x400
#define PERIOD_FS 10000000u
#define TICK_NS 10
#define MIN_TIMERS 3
#define MAX_TIMERS 32
#define MIN_PERIOD_NS (100 * NS_PER_US)
#define MAX_DELAY_TICKS (1ULL << 56)
#define ROUTES 0x00f00000u

enum { REG_CAP = 0x00, REG_CONFIG = 0x10, REG_STATUS = 0x20, REG_COUNTER = 0xf0, REG_TIMERS = 0x100 };
enum { T_CONFIG = 0x00, T_COMPARATOR = 0x08, T_ROUTE = 0x10 };
enum { CONFIG_ENABLE = 1, CONFIG_LEGACY = 2 };
#define TN_LEVEL 0x02u
#define TN_ENABLE 0x04u
#define TN_PERIODIC 0x08u
#define TN_CAN_PERIODIC 0x10u
#define TN_CAN_64 0x20u
#define TN_SET_VALUE 0x40u
#define TN_32 0x100u
#define TN_MSI 0x4000u
#define TN_CAN_MSI 0x8000u
#define TN_WRITABLE 0x7f4eu

struct hpet_timer {
    struct hpet *hpet;
    unsigned index;
    struct clock_timer timer;
    bool made;
};

struct hpet {
    struct device dev;
    struct mem_region mmio;
    struct irq_line next[2];            /* GSI 0 and 8 as they were before */
    uint32_t timers;                    /* property: how many */
    uint64_t config, status;
    uint64_t counter;                   /* while halted: its value; while running: value at virtual time 0 */
    uint64_t tn_config[MAX_TIMERS], comparator[MAX_TIMERS], period[MAX_TIMERS], route[MAX_TIMERS];
    struct hpet_timer timer[MAX_TIMERS];
    uint64_t interrupts;
};

static bool is_running(const struct hpet *s)
{
    return s->config & CONFIG_ENABLE;
}

static uint64_t count_now(struct hpet *s)
{
    if (!is_running(s))
        return s->counter;
    return s->counter + (uint64_t)(clock_now_ns(&s->dev.machine->clock) / TICK_NS);
}

static bool is_periodic(const struct hpet *s, unsigned n)
{
    return (s->tn_config[n] & TN_PERIODIC) && s->period[n];
}

/* --- interrupts --- */

/* Where timer n's line ends, NULL: nowhere. */
static const struct irq_line *timer_line(struct hpet *s, unsigned n)
{
    unsigned gsi = s->tn_config[n] >> 9 & 0x1f;
    if ((s->config & CONFIG_LEGACY) && n < 2)
        return &s->next[n];
    return gsi < 32 && (ROUTES >> gsi & 1) ? &s->dev.machine->gsi[gsi] : NULL;
}

static void raise_irq(struct hpet *s, unsigned n)
{
    uint64_t config = s->tn_config[n];
    if (config & TN_LEVEL)
        s->status |= 1ULL << n;
    if (!(config & TN_ENABLE))
        return;
    s->interrupts++;
    if (config & TN_MSI) {
        machine_msi(s->dev.machine, s->route[n] >> 32, (uint32_t)s->route[n]);
        return;
    }
    const struct irq_line *line = timer_line(s, n);
    if (!line)
        return;
    if (config & TN_LEVEL)
        irq_set(line, 1);
    else
        irq_pulse(line);
}

static void lower_irq(struct hpet *s, unsigned n)
{
    const struct irq_line *line = timer_line(s, n);
    if (line && (s->tn_config[n] & (TN_LEVEL | TN_MSI)) == TN_LEVEL)
        irq_set(line, 0);
}

/* Ticks until the comparator matches. */
static uint64_t ticks_left(struct hpet *s, unsigned n)
{
    uint64_t diff = s->comparator[n] - count_now(s);
    return s->tn_config[n] & TN_32 ? (uint32_t)diff : diff;
}

static void arm(struct hpet *s, unsigned n)
{
    struct clock_timer *t = &s->timer[n].timer;
    if (!is_running(s)) {
        clock_timer_cancel(t);
        return;
    }
    uint64_t ticks = ticks_left(s, n);
    if (ticks > MAX_DELAY_TICKS) {
        clock_timer_cancel(t);
        return;
    }
    clock_timer_arm(t, (clock_now_ns(&s->dev.machine->clock) / TICK_NS + (int64_t)ticks) * TICK_NS);
}

/* Puts a periodic comparator behind the counter, as much as MIN_PERIOD_NS asks for. */
static void next_period(struct hpet *s, unsigned n)
{
    uint64_t mask = s->tn_config[n] & TN_32 ? UINT32_MAX : UINT64_MAX;
    uint64_t late = (count_now(s) - s->comparator[n]) & mask;
    uint64_t least = s->period[n] * TICK_NS < MIN_PERIOD_NS ? MIN_PERIOD_NS / TICK_NS : 0;
    uint64_t periods = (late + least) / s->period[n] + 1;
    s->comparator[n] = (s->comparator[n] + periods * s->period[n]) & mask;
}

static void expired(void *opaque)
{
    struct hpet_timer *t = opaque;
    struct hpet *s = t->hpet;
    unsigned n = t->index;
    pthread_mutex_lock(&s->dev.lock);
    /* Matched, when the comparator is no longer ahead; a moved one has been armed anew. */
    uint64_t left = ticks_left(s, n), half = s->tn_config[n] & TN_32 ? 1ULL << 31 : 1ULL << 63;
    if (is_running(s) && (!left || left >= half)) {
        raise_irq(s, n);
        if (is_periodic(s, n)) {
            next_period(s, n);
            arm(s, n);
        } else if (s->tn_config[n] & TN_32) {
            /* It matches again when 32 bits have wrapped. */
            int64_t now = clock_now_ns(&s->dev.machine->clock);
            clock_timer_arm(&t->timer, now + (1LL << 32) * TICK_NS);
        }
    } else if (is_running(s)) {
        arm(s, n);
    }
    pthread_mutex_unlock(&s->dev.lock);
}

/* PIT and RTC come through here on their way to the interrupt controllers. */
static void pass_on(void *opaque, int n, int level)
{
    struct hpet *s = opaque;
    if (!(__atomic_load_n(&s->config, __ATOMIC_RELAXED) & CONFIG_LEGACY))
        irq_set(&s->next[n], level);
}

/* --- registers --- */

static uint64_t capabilities(const struct hpet *s)
{
    return (uint64_t)PERIOD_FS << 32 | 0x8086u << 16 | 1u << 15 | 1u << 13 | (s->timers - 1) << 8 | 1;
}

static void config_written(struct hpet *s, uint64_t val)
{
    uint64_t now = (uint64_t)(clock_now_ns(&s->dev.machine->clock) / TICK_NS);
    uint64_t old = s->config, changed = (val ^ old) & (CONFIG_ENABLE | CONFIG_LEGACY);
    if (changed & CONFIG_LEGACY) {
        irq_set(&s->next[0], 0);
        irq_set(&s->next[1], 0);
    }
    if (changed & CONFIG_ENABLE)
        s->counter += val & CONFIG_ENABLE ? -now : now;
    __atomic_store_n(&s->config, old ^ changed, __ATOMIC_RELAXED);
    if (!(changed & CONFIG_ENABLE))
        return;
    for (unsigned n = 0; n < s->timers; n++)
        arm(s, n);
}

static void status_written(struct hpet *s, uint64_t val)
{
    for (unsigned n = 0; n < s->timers; n++) {
        if (val & s->status & 1ULL << n)
            lower_irq(s, n);
    }
    s->status &= ~val;
}

static void counter_written(struct hpet *s, uint64_t val)
{
    if (is_running(s))
        val -= (uint64_t)(clock_now_ns(&s->dev.machine->clock) / TICK_NS);
    s->counter = val;
    for (unsigned n = 0; n < s->timers; n++)
        arm(s, n);
}

static void timer_config_written(struct hpet *s, unsigned n, uint64_t val)
{
    uint64_t old = s->tn_config[n];
    val = (old & ~(uint64_t)TN_WRITABLE) | (val & TN_WRITABLE);
    bool was_up = (s->status >> n & 1) && (old & TN_LEVEL);
    if (was_up && (!(val & TN_LEVEL) || !(val & TN_ENABLE)))
        lower_irq(s, n);
    s->tn_config[n] = val;
    if (val & TN_32) {
        s->comparator[n] = (uint32_t)s->comparator[n];
        s->period[n] = (uint32_t)s->period[n];
    }
    arm(s, n);
}

/* In periodic mode the value is the period, unless SET_VALUE announced that the comparator itself
 * is meant; then it is both, until the period follows. `mask`: the half that is written, or all. */
static void comparator_written(struct hpet *s, unsigned n, uint64_t val, uint64_t mask)
{
    bool periodic = s->tn_config[n] & TN_PERIODIC;
    if (s->tn_config[n] & TN_32)
        mask &= UINT32_MAX;
    if (periodic)
        s->period[n] = (s->period[n] & ~mask) | (val & mask);
    if (!periodic || (s->tn_config[n] & TN_SET_VALUE))
        s->comparator[n] = (s->comparator[n] & ~mask) | (val & mask);
    s->tn_config[n] &= ~(uint64_t)TN_SET_VALUE;
    arm(s, n);
}

static uint64_t reg_read(struct hpet *s, unsigned reg)
{
    switch (reg) {
    case REG_CAP:
        return capabilities(s);
    case REG_CONFIG:
        return s->config;
    case REG_STATUS:
        return s->status;
    case REG_COUNTER:
        return count_now(s);
    default:
        break;
    }
    unsigned n = (reg - REG_TIMERS) / 0x20;
    if (reg < REG_TIMERS || n >= s->timers)
        return 0;
    switch (reg & 0x18) {
    case T_CONFIG:
        return s->tn_config[n];
    case T_COMPARATOR:
        return s->comparator[n];
    case T_ROUTE:
        return s->route[n];
    default:
        return 0;
    }
}

static void reg_write(struct hpet *s, unsigned reg, uint64_t val, uint64_t mask)
{
    switch (reg) {
    case REG_CONFIG:
        config_written(s, val);
        return;
    case REG_STATUS:
        status_written(s, val);
        return;
    case REG_COUNTER:
        counter_written(s, val);
        return;
    default:
        break;
    }
    unsigned n = (reg - REG_TIMERS) / 0x20;
    if (reg < REG_TIMERS || n >= s->timers)
        return;
    switch (reg & 0x18) {
    case T_CONFIG:
        timer_config_written(s, n, val);
        break;
    case T_COMPARATOR:
        comparator_written(s, n, val, mask);
        break;
    case T_ROUTE:
        s->route[n] = val;
        break;
    default:
        break;
    }
}

static uint64_t hpet_read(void *opaque, uint64_t off, unsigned size)
{
    uint64_t val = reg_read(opaque, off & ~7u) >> 8 * (off & 4);
    return size == 8 ? val : (uint32_t)val;
}

/* Half a register: the other half keeps what it reads as. Status is cleared by ones, so there it is
 * zero. */
static void hpet_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct hpet *s = opaque;
    unsigned reg = off & ~7u;
    uint64_t mask = UINT64_MAX;
    if (size == 4) {
        mask = (uint64_t)UINT32_MAX << 8 * (off & 4);
        val = val << 8 * (off & 4) & mask;
        if (reg != REG_STATUS)
            val |= reg_read(s, reg) & ~mask;
    }
    reg_write(s, reg, val, mask);
}

static const struct mem_ops hpet_ops = { .read = hpet_read, .write = hpet_write, .min_size = 4, .max_size = 8 };

/* --- life --- */

static void hpet_reset(struct device *d)
{
    struct hpet *s = container_of(d, struct hpet, dev);
    pthread_mutex_lock(&d->lock);
    for (unsigned n = 0; n < s->timers; n++) {
        lower_irq(s, n);
        clock_timer_cancel(&s->timer[n].timer);
        s->tn_config[n] = (uint64_t)ROUTES << 32 | TN_CAN_PERIODIC | TN_CAN_64 | TN_CAN_MSI;
        s->comparator[n] = UINT64_MAX;
        s->period[n] = s->route[n] = 0;
    }
    __atomic_store_n(&s->config, 0, __ATOMIC_RELAXED);
    s->status = s->counter = 0;
    pthread_mutex_unlock(&d->lock);
}

static bool hpet_loaded(struct device *d, GError **error)
{
    struct hpet *s = container_of(d, struct hpet, dev);
    pthread_mutex_lock(&d->lock);
    for (unsigned n = 0; n < s->timers; n++) {
        uint64_t config = s->tn_config[n], up = TN_LEVEL | TN_ENABLE;
        const struct irq_line *line = timer_line(s, n);
        arm(s, n);
        if ((s->status >> n & 1) && (config & (up | TN_MSI)) == up && line)
            irq_set(line, 1);
    }
    pthread_mutex_unlock(&d->lock);
    return true;
}

static bool hpet_realize(struct device *d, GError **error)
{
    struct hpet *s = container_of(d, struct hpet, dev);
    struct machine *m = d->machine;
    for (unsigned n = 0; n < s->timers; n++) {
        struct hpet_timer *t = &s->timer[n];
        *t = (struct hpet_timer){ .hpet = s, .index = n, .made = true };
        clock_timer_init(&m->clock, d->loop, &t->timer, expired, t);
    }
    hpet_reset(d);
    mem_region_init_io(&s->mmio, "hpet", &hpet_ops, s, HPET_BYTES, &d->lock);
    int r = mem_region_add(m->memory, &s->mmio, HPET_BASE, 0);
    if (r < 0)
        return ruche_error_errno(error, -r, "hpet: cannot map 0x%x", HPET_BASE);
    for (int n = 0; n < 2; n++) {
        s->next[n] = m->gsi[8 * n];
        m->gsi[8 * n] = (struct irq_line){ .set = pass_on, .opaque = s, .n = n };
    }
    return true;
}

static void hpet_unrealize(struct device *d)
{
    struct hpet *s = container_of(d, struct hpet, dev);
    for (int n = 0; n < 2; n++) {
        if (d->machine->gsi[8 * n].opaque == s)
            d->machine->gsi[8 * n] = s->next[n];
    }
    mem_region_remove(&s->mmio);
    for (unsigned n = 0; n < MAX_TIMERS; n++) {
        if (s->timer[n].made)
            clock_timer_done(&s->timer[n].timer);
    }
}

static const struct prop hpet_props[] = {
    PROP_U32("timers", struct hpet, timers, .def = MIN_TIMERS, .min = MIN_TIMERS, .max = MAX_TIMERS,
             .help = "Comparators"),
    { 0 },
};

static const struct state_field hpet_state[] = {
    STATE(struct hpet, config, .max = CONFIG_ENABLE | CONFIG_LEGACY),
    STATE(struct hpet, status),
    STATE(struct hpet, counter),
    STATE_ARRAY(struct hpet, tn_config),
    STATE_ARRAY(struct hpet, comparator),
    STATE_ARRAY(struct hpet, period),
    STATE_ARRAY(struct hpet, route),
    { 0 },
};

static const struct device_counter hpet_counters[] = {
    COUNTER(struct hpet, interrupts, "Interrupts of all timers"),
    { 0 },
};

static const struct device_type hpet_type = {
    .name = "hpet", .summary = "High precision event timers", .spec = "IA-PC HPET 1.0a", .bus = BUS_SYSTEM,
    .internal = true, .size = sizeof(struct hpet), .props = hpet_props, .state = hpet_state,
    .counters = hpet_counters, .realize = hpet_realize, .reset = hpet_reset, .load_after = hpet_loaded,
    .unrealize = hpet_unrealize,
};
DEVICE_TYPE(hpet_type);
