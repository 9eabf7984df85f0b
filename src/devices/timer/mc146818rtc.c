/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `mc146818rtc`: the real-time clock and its battery-backed RAM.
 *
 * Spec      Motorola MC146818A; ICH9 datasheet, section 13.6. The RAM's use is that of PC firmware.
 * Thread    Registers: any vCPU. Interrupts: the main loop. Both with the device's lock.
 * Trust     Registers are the guest's: impossible dates are normalised, impossible alarms never
 *           come. Interrupts come at most every 122 us, the hardware's own shortest period; what
 *           was missed is not made up for.
 *
 * Nothing ticks: the time is the host's plus an offset, and flags are found out when they are read.
 * Timers run only for interrupts that the guest has enabled.
 */
#include "devices/timer/rtc_time.h"
#include "machine/machine.h"

#include <time.h>

#define CMOS_BYTES 256 /* two banks; the clock is in the first */
#define BANK_BYTES 128
#define UIP_NS (244 * NS_PER_US)
#define RTC_HZ 32768
/* Nanoseconds since 1970 fit for the years 1970 to 2242; a guest that sets another one gets the
 * nearest. */
#define MAX_TIME_S (1LL << 33)
#define MAX_SLEEP_NS (60 * NS_PER_SEC) /* the host's clock may be set meanwhile */

enum { REG_A = 10, REG_B = 11, REG_C = 12, REG_D = 13, REG_SHUTDOWN = 15 };
enum { A_UIP = 0x80, A_DIVIDER = 0x70, A_RATE = 0x0f, A_DIVIDER_RUNS = 0x20, A_DIVIDER_RESET = 0x60 };
enum { B_24H = RTC_24H, B_BINARY = RTC_BINARY, B_UPDATE = 0x10, B_ALARM = 0x20, B_PERIODIC = 0x40,
       B_SET = 0x80 };
enum { C_UPDATE = 0x10, C_ALARM = 0x20, C_PERIODIC = 0x40, C_IRQ = 0x80 };

struct rtc {
    struct device dev;
    struct mem_region ports;
    struct clock_timer second_timer, periodic_timer;
    int clock_kind;
    uint8_t index, index2;     /* selected byte of each bank */
    uint8_t cmos[CMOS_BYTES]; /* time registers hold what was set last, or the time when it was frozen */
    int64_t offset_ns;        /* guest's time - the clock's */
    int64_t base_ns;          /* clock=vm: wall time at virtual time 0 */
    int64_t seen_s;           /* the last second whose update and alarm are in register C */
    int64_t seen_period;      /* the last periodic tick that is */
    uint64_t interrupts;
};

enum { CLOCK_HOST, CLOCK_VM };
static const char *const clock_words[] = { "host", "vm", NULL };

static int64_t wall_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static int64_t source_ns(struct rtc *s)
{
    return s->clock_kind == CLOCK_VM ? s->base_ns + clock_now_ns(&s->dev.machine->clock) : wall_ns();
}

static int64_t rtc_now_ns(struct rtc *s)
{
    return source_ns(s) + s->offset_ns;
}

static int64_t floor_s(int64_t ns)
{
    return ns / NS_PER_SEC - (ns % NS_PER_SEC < 0);
}

/* The clock stands while SET is on or the divider is not at its one useful setting. */
static bool is_running(const struct rtc *s)
{
    return !(s->cmos[REG_B] & B_SET) && (s->cmos[REG_A] & A_DIVIDER) == A_DIVIDER_RUNS;
}

/* --- interrupts --- */

static void update_irq(struct rtc *s)
{
    /* The enable bits of B and the flags of C are at the same places. */
    bool active = s->cmos[REG_B] & s->cmos[REG_C] & (C_UPDATE | C_ALARM | C_PERIODIC);
    bool was = s->cmos[REG_C] & C_IRQ;
    s->cmos[REG_C] = active ? s->cmos[REG_C] | C_IRQ : s->cmos[REG_C] & ~C_IRQ;
    s->interrupts += active && !was;
    irq_set(&s->dev.machine->gsi[8], active);
}

/* Nanoseconds of one periodic tick, 0: off. */
static int64_t tick_ns(const struct rtc *s)
{
    unsigned rate = s->cmos[REG_A] & A_RATE;
    if (!rate || (s->cmos[REG_A] & A_DIVIDER) != A_DIVIDER_RUNS)
        return 0;
    if (rate <= 2)
        rate += 7;
    return NS_PER_SEC * (1LL << (rate - 1)) / RTC_HZ;
}

static struct rtc_alarm alarm_of(const struct rtc *s)
{
    return rtc_alarm_decode(s->cmos, s->cmos[REG_B]);
}

/* Sets the flags of what has happened since the last look. */
static void latch_flags(struct rtc *s)
{
    if (is_running(s)) {
        int64_t now_s = floor_s(rtc_now_ns(s));
        if (now_s > s->seen_s) {
            int64_t alarm = rtc_alarm_next(alarm_of(s), s->seen_s);
            s->cmos[REG_C] |= C_UPDATE | (alarm >= 0 && alarm <= now_s ? C_ALARM : 0);
        }
        s->seen_s = now_s;
    }
    int64_t tick = tick_ns(s);
    if (tick) {
        int64_t period = clock_now_ns(&s->dev.machine->clock) / tick;
        if (period != s->seen_period)
            s->cmos[REG_C] |= C_PERIODIC;
        s->seen_period = period;
    }
}

static void arm_second(struct rtc *s)
{
    int64_t next_s = INT64_MAX;
    if (is_running(s) && (s->cmos[REG_B] & B_UPDATE))
        next_s = s->seen_s + 1;
    if (is_running(s) && (s->cmos[REG_B] & B_ALARM)) {
        int64_t alarm = rtc_alarm_next(alarm_of(s), s->seen_s);
        if (alarm >= 0 && alarm < next_s)
            next_s = alarm;
    }
    if (next_s == INT64_MAX) {
        clock_timer_cancel(&s->second_timer);
        return;
    }
    int64_t delay = next_s * NS_PER_SEC - rtc_now_ns(s);
    if (delay > MAX_SLEEP_NS)
        delay = MAX_SLEEP_NS;
    if (delay < NS_PER_MS)
        delay = NS_PER_MS;
    clock_timer_arm(&s->second_timer, clock_now_ns(&s->dev.machine->clock) + delay);
}

static void arm_periodic(struct rtc *s)
{
    int64_t tick = tick_ns(s);
    if (tick && (s->cmos[REG_B] & B_PERIODIC))
        clock_timer_arm(&s->periodic_timer, (clock_now_ns(&s->dev.machine->clock) / tick + 1) * tick);
    else
        clock_timer_cancel(&s->periodic_timer);
}

static void second_fired(void *opaque)
{
    struct rtc *s = opaque;
    pthread_mutex_lock(&s->dev.lock);
    latch_flags(s);
    update_irq(s);
    arm_second(s);
    pthread_mutex_unlock(&s->dev.lock);
}

static void periodic_fired(void *opaque)
{
    struct rtc *s = opaque;
    pthread_mutex_lock(&s->dev.lock);
    latch_flags(s);
    update_irq(s);
    arm_periodic(s);
    pthread_mutex_unlock(&s->dev.lock);
}

/* --- time registers --- */

/* Puts the present time into the registers, unless they are frozen. */
static void refresh(struct rtc *s)
{
    if (is_running(s))
        rtc_encode(floor_s(rtc_now_ns(s)), s->cmos, s->cmos[REG_B]);
}

/* Makes the registers the present time; `fraction_ns` of the second are over. */
static void adopt(struct rtc *s, int64_t fraction_ns)
{
    int64_t seconds = rtc_decode(s->cmos, s->cmos[REG_B]);
    if (seconds > MAX_TIME_S)
        seconds = MAX_TIME_S;
    if (seconds < 0)
        seconds = 0;
    s->offset_ns = seconds * NS_PER_SEC + fraction_ns - source_ns(s);
    s->seen_s = seconds;
}

/* A change of A or B that starts or stops the clock. */
static void mode_written(struct rtc *s, unsigned reg, uint8_t val, uint8_t keep)
{
    bool was_running = is_running(s);
    bool divider_was_reset = (s->cmos[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
    latch_flags(s);
    refresh(s);
    s->cmos[reg] = (s->cmos[reg] & keep) | (val & ~keep);
    /* Out of divider reset the first update comes after half a second. */
    if (!was_running && is_running(s))
        adopt(s, divider_was_reset ? NS_PER_SEC / 2 : 0);
    int64_t tick = tick_ns(s);
    s->seen_period = tick ? clock_now_ns(&s->dev.machine->clock) / tick : 0;
    update_irq(s);
    arm_second(s);
    arm_periodic(s);
}

static void time_written(struct rtc *s, unsigned reg, uint8_t val)
{
    int64_t fraction = rtc_now_ns(s) - floor_s(rtc_now_ns(s)) * NS_PER_SEC;
    refresh(s);
    s->cmos[reg] = val;
    if (is_running(s)) {
        adopt(s, fraction);
        arm_second(s);
    }
}

static void data_written(struct rtc *s, uint8_t val)
{
    switch (s->index) {
    case RTC_SECONDS:
    case RTC_MINUTES:
    case RTC_HOURS:
    case RTC_DAY:
    case RTC_MONTH:
    case RTC_YEAR:
    case RTC_CENTURY:
        time_written(s, s->index, val);
        break;
    case RTC_SECONDS_ALARM:
    case RTC_MINUTES_ALARM:
    case RTC_HOURS_ALARM:
        latch_flags(s);
        s->cmos[s->index] = val;
        arm_second(s);
        break;
    case REG_A:
        mode_written(s, REG_A, val, A_UIP);
        break;
    case REG_B:
        /* SET clears the update interrupt's enable. */
        mode_written(s, REG_B, val & B_SET ? val & ~B_UPDATE : val, 0);
        break;
    case REG_C:
    case REG_D:
        break;
    default:
        s->cmos[s->index] = val;
        break;
    }
}

static uint8_t data_read(struct rtc *s)
{
    uint8_t val;
    switch (s->index) {
    case RTC_SECONDS:
    case RTC_MINUTES:
    case RTC_HOURS:
    case RTC_WEEKDAY:
    case RTC_DAY:
    case RTC_MONTH:
    case RTC_YEAR:
    case RTC_CENTURY:
        refresh(s);
        break;
    case REG_A: {
        int64_t now = rtc_now_ns(s), fraction = now - floor_s(now) * NS_PER_SEC;
        bool updating = is_running(s) && fraction >= NS_PER_SEC - UIP_NS;
        return (s->cmos[REG_A] & ~A_UIP) | (updating ? A_UIP : 0);
    }
    case REG_C:
        latch_flags(s);
        update_irq(s);
        val = s->cmos[REG_C];
        s->cmos[REG_C] = 0;
        irq_set(&s->dev.machine->gsi[8], 0);
        arm_second(s);
        return val;
    default:
        break;
    }
    return s->cmos[s->index];
}

static uint64_t rtc_read(void *opaque, uint64_t off, unsigned size)
{
    struct rtc *s = opaque;
    switch (off) {
    case 1:
        return data_read(s);
    case 3:
        return s->cmos[BANK_BYTES + s->index2];
    default: /* the indexes are write-only */
        return 0xff;
    }
}

static void rtc_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct rtc *s = opaque;
    switch (off) {
    case 0:
        s->index = val & 0x7f; /* bit 7 masks NMIs, which nobody sends */
        break;
    case 1:
        data_written(s, (uint8_t)val);
        break;
    case 2:
        s->index2 = val & 0x7f;
        break;
    default:
        s->cmos[BANK_BYTES + s->index2] = (uint8_t)val;
        break;
    }
}

static const struct mem_ops rtc_ops = { .read = rtc_read, .write = rtc_write, .min_size = 1, .max_size = 1 };

/* --- life --- */

static void put16(struct rtc *s, unsigned low, unsigned high, uint64_t val)
{
    val = min_u64(val, 0xffff);
    s->cmos[low] = val & 0xff;
    s->cmos[high] = val >> 8;
}

/* What firmware reads to learn of the machine. */
static void fill_cmos(struct rtc *s)
{
    const struct machine *m = s->dev.machine;
    uint64_t low = m->ram_below_4g, high_units = m->ram_above_4g / (64 * KIB);
    s->cmos[0x10] = 0;    /* no floppy drives */
    s->cmos[0x14] = 0x06; /* FPU, PS/2 mouse */
    put16(s, 0x15, 0x16, min_u64(low / KIB, 640));
    put16(s, 0x17, 0x18, low > MIB ? min_u64((low - MIB) / KIB, 63 * 1024) : 0);
    put16(s, 0x30, 0x31, low > MIB ? min_u64((low - MIB) / KIB, 63 * 1024) : 0);
    put16(s, 0x34, 0x35, low > 16 * MIB ? (low - 16 * MIB) / (64 * KIB) : 0);
    s->cmos[0x38] = 0x10; /* third boot device; do not check floppies' signatures */
    s->cmos[0x3d] = 0x32; /* boot from disk, then from CD */
    for (unsigned i = 0; i < 3; i++)
        s->cmos[0x5b + i] = (uint8_t)(high_units >> 8 * i);
    unsigned cpus = machine_present_vcpus(m);
    s->cmos[0x5f] = (uint8_t)(cpus ? cpus - 1 : 0);
}

/* Time, RAM and the interrupts' enables are on the battery; a reset only ends the interrupts. */
static void rtc_reset(struct device *d)
{
    struct rtc *s = container_of(d, struct rtc, dev);
    pthread_mutex_lock(&d->lock);
    s->cmos[REG_B] &= ~(B_UPDATE | B_ALARM | B_PERIODIC);
    s->cmos[REG_C] = 0;
    s->index = s->index2 = 0;
    fill_cmos(s);
    irq_set(&d->machine->gsi[8], 0);
    arm_second(s);
    arm_periodic(s);
    pthread_mutex_unlock(&d->lock);
}

static void set_start_time(struct rtc *s)
{
    const struct machine_config *c = &s->dev.machine->config;
    int64_t now = wall_ns();
    s->base_ns = now - clock_now_ns(&s->dev.machine->clock);
    int64_t offset_s = c->rtc_offset_s;
    if (offset_s > MAX_TIME_S - now / NS_PER_SEC || offset_s < -(now / NS_PER_SEC))
        offset_s = 0;
    s->offset_ns = offset_s * NS_PER_SEC;
    if (c->rtc_local) {
        time_t seconds = now / NS_PER_SEC;
        struct tm local;
        if (localtime_r(&seconds, &local))
            s->offset_ns += local.tm_gmtoff * NS_PER_SEC;
    }
}

/* `base_ns` only serves clock=vm, whose time goes on from the saved one. */
static bool rtc_loaded(struct device *d, GError **error)
{
    struct rtc *s = container_of(d, struct rtc, dev);
    int64_t limit = MAX_TIME_S * NS_PER_SEC, now;
    if (s->base_ns < 0 || s->base_ns > limit || __builtin_add_overflow(source_ns(s), s->offset_ns, &now) || now < 0 ||
        now > limit || s->seen_s < 0 || s->seen_s > MAX_TIME_S)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "state of device 'mc146818rtc': its time, %" G_GINT64_FORMAT
                           " ns from the host's, is not from 1970 to 2242", s->offset_ns);
    pthread_mutex_lock(&d->lock);
    if (s->cmos[REG_C] & C_IRQ)
        update_irq(s);
    arm_second(s);
    arm_periodic(s);
    pthread_mutex_unlock(&d->lock);
    return true;
}

static bool rtc_realize(struct device *d, GError **error)
{
    struct rtc *s = container_of(d, struct rtc, dev);
    clock_timer_init(&d->machine->clock, d->loop, &s->second_timer, second_fired, s);
    clock_timer_init(&d->machine->clock, d->loop, &s->periodic_timer, periodic_fired, s);
    s->cmos[REG_A] = A_DIVIDER_RUNS | 6;
    s->cmos[REG_B] = B_24H;
    s->cmos[REG_D] = 0x80; /* the battery is good */
    set_start_time(s);
    s->seen_s = floor_s(rtc_now_ns(s));
    refresh(s);
    rtc_reset(d);
    mem_region_init_io(&s->ports, "mc146818rtc", &rtc_ops, s, 4, &d->lock);
    int r = mem_region_add(d->machine->io, &s->ports, 0x70, 0);
    if (r < 0)
        return ruche_error_errno(error, -r, "mc146818rtc: cannot map its ports");
    return true;
}

static void rtc_unrealize(struct device *d)
{
    struct rtc *s = container_of(d, struct rtc, dev);
    mem_region_remove(&s->ports);
    clock_timer_done(&s->second_timer);
    clock_timer_done(&s->periodic_timer);
}

static const struct prop rtc_props[] = {
    PROP_ENUM("clock", struct rtc, clock_kind, .def = CLOCK_HOST, .words = clock_words,
              .help = "host: goes on while the machine is stopped; vm: stops with it"),
    { 0 },
};

static const struct state_field rtc_state[] = {
    STATE(struct rtc, index, .max = BANK_BYTES - 1),
    STATE(struct rtc, index2, .max = BANK_BYTES - 1),
    STATE_ARRAY(struct rtc, cmos),
    STATE(struct rtc, offset_ns),
    STATE(struct rtc, base_ns),
    STATE(struct rtc, seen_s),
    STATE(struct rtc, seen_period),
    { 0 },
};

static const struct device_counter rtc_counters[] = {
    COUNTER(struct rtc, interrupts, "Interrupts of all three sources"),
    { 0 },
};

static const struct device_type rtc_type = {
    .name = "mc146818rtc", .summary = "Real-time clock and CMOS RAM", .spec = "MC146818A", .bus = BUS_ISA,
    .internal = true, .size = sizeof(struct rtc), .props = rtc_props, .state = rtc_state,
    .counters = rtc_counters, .realize = rtc_realize, .reset = rtc_reset, .load_after = rtc_loaded,
    .unrealize = rtc_unrealize,
};
DEVICE_TYPE(rtc_type);
