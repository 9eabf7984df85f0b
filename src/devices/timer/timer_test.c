/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Timers and the clock, at the speed of the test's own time. */
#include "devices/testing.h"
#include "devices/timer/rtc_time.h"

#include <string.h>

#define PIT_NS(ticks) ((ticks) * NS_PER_SEC / 1193182 + 1)
#define HPET 0xfed00000u

/* --- PIT --- */

static uint16_t read_counter(struct test_machine *t, unsigned n)
{
    test_outb(t, 0x43, (uint8_t)(n << 6));
    uint16_t low = test_inb(t, 0x40 + n);
    return low | test_inb(t, 0x40 + n) << 8;
}

static void set_counter(struct test_machine *t, unsigned n, uint8_t mode, uint16_t val)
{
    test_outb(t, 0x43, (uint8_t)(n << 6 | 0x30 | mode << 1));
    test_outb(t, 0x40 + n, val & 0xff);
    test_outb(t, 0x40 + n, val >> 8);
}

static void test_pit_periodic(void)
{
    struct test_machine *t = test_machine_new(1);
    test_device(t, "i8254", NULL);
    for (unsigned mode = 2; mode <= 3; mode++) {
        t->gsi_rises[0] = 0;
        set_counter(t, 0, (uint8_t)mode, 11932); /* 100 Hz */
        test_advance_ns(t, 2 * NS_PER_MS); /* 2386 ticks, and mode 3 counts by two */
        g_assert_cmpint(read_counter(t, 0), ==, 11932 - 2386 * (int)(mode - 1));
        test_advance_ns(t, 999 * NS_PER_MS);
        g_assert_cmpint(t->gsi_rises[0], ==, 100);
    }
    /* As fast as it goes: 1.2 million a second are asked for, ten thousand at most come. */
    t->gsi_rises[0] = 0;
    set_counter(t, 0, 2, 1);
    test_advance_ns(t, NS_PER_SEC / 10);
    g_assert_cmpint(t->gsi_rises[0], <=, 1004);
    g_assert_cmpint(t->gsi_rises[0], >, 900);
    test_machine_free(t);
}

static void test_pit_once(void)
{
    struct test_machine *t = test_machine_new(1);
    test_device(t, "i8254", NULL);
    set_counter(t, 0, 0, 1000);
    test_advance_ns(t, PIT_NS(999) - 1000);
    g_assert_cmpint(t->gsi_rises[0], ==, 0);
    test_advance_ns(t, NS_PER_SEC);
    g_assert_cmpint(t->gsi_rises[0], ==, 1);
    set_counter(t, 0, 4, 1000);
    test_advance_ns(t, NS_PER_SEC);
    g_assert_cmpint(t->gsi_rises[0], ==, 2);
    set_counter(t, 0, 0, 1000);
    test_outb(t, 0x43, 0x30); /* the control word stops it */
    test_advance_ns(t, NS_PER_SEC);
    g_assert_cmpint(t->gsi_rises[0], ==, 2);
    test_machine_free(t);
}

static void test_pit_readback(void)
{
    struct test_machine *t = test_machine_new(1);
    test_device(t, "i8254", NULL);
    set_counter(t, 0, 2, 5000);
    test_advance_ns(t, PIT_NS(1000));
    test_outb(t, 0x43, 0xc2); /* count and status of channel 0 */
    test_advance_ns(t, PIT_NS(100));
    g_assert_cmphex(test_inb(t, 0x40), ==, 0xb4); /* output high, low then high byte, mode 2 */
    uint16_t low = test_inb(t, 0x40);
    g_assert_cmpint(low | test_inb(t, 0x40) << 8, ==, 4000);
    uint16_t now = test_inb(t, 0x40);
    g_assert_cmpint(now | test_inb(t, 0x40) << 8, ==, 3900);
    /* BCD: 1000 counts down to 900 in a hundred ticks. */
    test_outb(t, 0x43, 0x31);
    test_outb(t, 0x40, 0x00);
    test_outb(t, 0x40, 0x10);
    test_advance_ns(t, PIT_NS(100));
    g_assert_cmphex(read_counter(t, 0), ==, 0x0900);
    test_machine_free(t);
}

/* How a kernel measures the TSC: channel 2 in mode 0, gated by port 0x61, its output in bit 5. */
static void test_pit_channel2(void)
{
    struct test_machine *t = test_machine_new(1);
    test_device(t, "i8254", NULL);
    test_outb(t, 0x61, 0x01);
    set_counter(t, 2, 0, 0xffff);
    g_assert_cmphex(test_inb(t, 0x61) & 0x23, ==, 0x01);
    test_advance_ns(t, PIT_NS(30000));
    g_assert_cmpint(read_counter(t, 2), ==, 0xffff - 30000);
    test_outb(t, 0x61, 0x00); /* the gate stops it */
    test_advance_ns(t, NS_PER_SEC);
    g_assert_cmpint(read_counter(t, 2), ==, 0xffff - 30000);
    test_outb(t, 0x61, 0x01);
    test_advance_ns(t, PIT_NS(40000));
    g_assert_cmphex(test_inb(t, 0x61) & 0x20, ==, 0x20);
    uint8_t first = test_inb(t, 0x61) & 0x10;
    test_advance_ns(t, 15085);
    g_assert_cmphex(test_inb(t, 0x61) & 0x10, !=, first);
    /* Mode 1 waits for the gate's edge. */
    test_outb(t, 0x61, 0);
    set_counter(t, 2, 1, 1000);
    g_assert_cmphex(test_inb(t, 0x61) & 0x20, ==, 0x20);
    test_outb(t, 0x61, 1);
    g_assert_cmphex(test_inb(t, 0x61) & 0x20, ==, 0);
    test_advance_ns(t, PIT_NS(1001));
    g_assert_cmphex(test_inb(t, 0x61) & 0x20, ==, 0x20);
    test_machine_free(t);
}

/* --- HPET --- */

static uint64_t hpet_read(struct test_machine *t, unsigned reg)
{
    return mem_io_read(t->m.memory, HPET + reg, 8);
}

static void hpet_write(struct test_machine *t, unsigned reg, uint64_t val)
{
    mem_io_write(t->m.memory, HPET + reg, val, 8);
}

static struct test_machine *hpet_machine(void)
{
    struct test_machine *t = test_machine_new(1);
    test_device(t, "i8254", NULL);
    test_device(t, "hpet", NULL);
    return t;
}

static void test_hpet_counter(void)
{
    struct test_machine *t = hpet_machine();
    g_assert_cmphex(hpet_read(t, 0), ==, 0x009896808086a201);
    g_assert_cmphex(test_read32(t, HPET + 4), ==, 10000000);
    test_advance_ns(t, NS_PER_MS);
    g_assert_cmpint(hpet_read(t, 0xf0), ==, 0);
    hpet_write(t, 0x10, 1);
    test_advance_ns(t, NS_PER_MS);
    g_assert_cmpint(hpet_read(t, 0xf0), ==, 100000);
    hpet_write(t, 0x10, 0);
    test_advance_ns(t, NS_PER_MS);
    g_assert_cmpint(hpet_read(t, 0xf0), ==, 100000);
    hpet_write(t, 0xf0, 0x1ffffffff);
    hpet_write(t, 0x10, 1);
    test_advance_ns(t, 10);
    g_assert_cmphex(hpet_read(t, 0xf0), ==, 0x200000000);
    g_assert_cmphex(test_read32(t, HPET + 0xf4), ==, 2);
    test_machine_free(t);
}

static void test_hpet_legacy(void)
{
    struct test_machine *t = hpet_machine();
    set_counter(t, 0, 2, 11932);
    test_advance_ns(t, NS_PER_SEC / 10 + NS_PER_MS);
    g_assert_cmpint(t->gsi_rises[0], ==, 10);
    t->gsi_rises[0] = 0;
    hpet_write(t, 0x10, 3); /* the PIT is cut off, timer 0 has its line */
    test_advance_ns(t, NS_PER_SEC / 10);
    g_assert_cmpint(t->gsi_rises[0], ==, 0);
    /* Periodic, as kernels program it: SET_VALUE with the first match, then the period. */
    hpet_write(t, 0x100, 0x14c);
    uint64_t now = hpet_read(t, 0xf0);
    test_write32(t, HPET + 0x108, (uint32_t)now + 400000);
    test_write32(t, HPET + 0x108, 100000); /* 1 ms */
    test_advance_ns(t, 4 * NS_PER_MS - 10);
    g_assert_cmpint(t->gsi_rises[0], ==, 0);
    test_advance_ns(t, 10);
    g_assert_cmpint(t->gsi_rises[0], ==, 1);
    test_advance_ns(t, 10 * NS_PER_MS);
    g_assert_cmpint(t->gsi_rises[0], ==, 11);
    /* A period of one tick does not burn the host. */
    t->gsi_rises[0] = 0;
    test_write32(t, HPET + 0x108, 1);
    test_advance_ns(t, 100 * NS_PER_MS);
    g_assert_cmpint(t->gsi_rises[0], <=, 1002);
    /* One-shot on timer 1 is ISA IRQ 8. */
    hpet_write(t, 0x120, 0x104);
    test_write32(t, HPET + 0x128, (uint32_t)hpet_read(t, 0xf0) + 1000);
    test_advance_ns(t, 20 * NS_PER_US);
    g_assert_cmpint(t->gsi_rises[8], ==, 1);
    test_machine_free(t);
}

static void test_hpet_level(void)
{
    struct test_machine *t = hpet_machine();
    hpet_write(t, 0x10, 1);
    hpet_write(t, 0x140, 20 << 9 | 6); /* level, enabled, GSI 20 */
    hpet_write(t, 0x148, hpet_read(t, 0xf0) + 1000);
    test_advance_ns(t, 20 * NS_PER_US);
    g_assert_cmpint(t->gsi_level[20], ==, 1);
    g_assert_cmphex(hpet_read(t, 0x20), ==, 4);
    hpet_write(t, 0x20, 4);
    g_assert_cmpint(t->gsi_level[20], ==, 0);
    hpet_write(t, 0x140, 3 << 9 | 4); /* a route that is not offered */
    hpet_write(t, 0x148, hpet_read(t, 0xf0) + 1000);
    test_advance_ns(t, 20 * NS_PER_US);
    g_assert_cmpint(t->gsi_rises[3], ==, 0);
    test_machine_free(t);
}

/* --- RTC --- */

static uint8_t cmos(struct test_machine *t, uint8_t reg)
{
    test_outb(t, 0x70, reg);
    return test_inb(t, 0x71);
}

static void set_cmos(struct test_machine *t, uint8_t reg, uint8_t val)
{
    test_outb(t, 0x70, reg);
    test_outb(t, 0x71, val);
}

/* Century, year, month, day, hour, minute, second, as bytes. */
static const uint8_t time_regs[7] = { 0x32, 9, 8, 7, 4, 2, 0 };

static void set_time(struct test_machine *t, const uint8_t v[7])
{
    uint8_t b = cmos(t, 11);
    set_cmos(t, 11, b | 0x80);
    for (unsigned i = 0; i < 7; i++)
        set_cmos(t, time_regs[i], v[i]);
    set_cmos(t, 11, b);
}

static void check_time(struct test_machine *t, const uint8_t want[7])
{
    uint8_t have[7];
    for (unsigned i = 0; i < 7; i++)
        have[i] = cmos(t, time_regs[i]);
    g_assert_cmpmem(have, 7, want, 7);
}

static struct test_machine *rtc_machine(void)
{
    struct test_machine *t = test_machine_new(1);
    test_device(t, "mc146818rtc", "clock", "vm", NULL);
    return t;
}

static void test_rtc_calendar(void)
{
    static const struct { uint8_t from[7], to[7]; } steps[] = {
        { { 0x20, 0x23, 0x02, 0x28, 0x23, 0x59, 0x59 }, { 0x20, 0x23, 0x03, 0x01, 0x00, 0x00, 0x00 } },
        { { 0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x59 }, { 0x20, 0x24, 0x02, 0x29, 0x00, 0x00, 0x00 } },
        { { 0x21, 0x00, 0x02, 0x28, 0x23, 0x59, 0x59 }, { 0x21, 0x00, 0x03, 0x01, 0x00, 0x00, 0x00 } },
        { { 0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59 }, { 0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00 } },
        { { 0x20, 0x38, 0x01, 0x19, 0x03, 0x14, 0x07 }, { 0x20, 0x38, 0x01, 0x19, 0x03, 0x14, 0x08 } },
        { { 0x20, 0x21, 0x06, 0x15, 0x12, 0x34, 0x09 }, { 0x20, 0x21, 0x06, 0x15, 0x12, 0x34, 0x10 } },
    };
    struct test_machine *t = rtc_machine();
    for (unsigned i = 0; i < ARRAY_COUNT(steps); i++) {
        set_time(t, steps[i].from);
        check_time(t, steps[i].from);
        test_advance_ns(t, NS_PER_SEC + NS_PER_MS);
        check_time(t, steps[i].to);
    }
    g_assert_cmpint(cmos(t, 6), ==, 3); /* a Tuesday */
    set_cmos(t, 11, 0x06);              /* binary */
    g_assert_cmpint(cmos(t, 2), ==, 34);
    set_cmos(t, 11, 0x00); /* 12 hours: noon is 12 PM */
    g_assert_cmphex(cmos(t, 4), ==, 0x92);
    g_assert_cmphex(cmos(t, 13), ==, 0x80);
    test_machine_free(t);
}

static void test_rtc_uip(void)
{
    static const uint8_t start[7] = { 0x20, 0x21, 0x06, 0x15, 0x12, 0x34, 0x09 };
    struct test_machine *t = rtc_machine();
    set_time(t, start);
    g_assert_cmphex(cmos(t, 10), ==, 0x26);
    test_advance_ns(t, NS_PER_SEC - 200 * NS_PER_US);
    g_assert_cmphex(cmos(t, 10), ==, 0xa6);
    g_assert_cmphex(cmos(t, 0), ==, 0x09);
    test_advance_ns(t, 200 * NS_PER_US);
    g_assert_cmphex(cmos(t, 10), ==, 0x26);
    g_assert_cmphex(cmos(t, 0), ==, 0x10);
    test_machine_free(t);
}

static void test_rtc_interrupts(void)
{
    static const uint8_t start[7] = { 0x20, 0x21, 0x06, 0x15, 0x23, 0x59, 0x50 };
    struct test_machine *t = rtc_machine();
    set_time(t, start);
    cmos(t, 12);
    set_cmos(t, 11, 0x12); /* update-ended */
    test_advance_ns(t, NS_PER_SEC + NS_PER_MS);
    g_assert_cmpint(t->gsi_level[8], ==, 1);
    g_assert_cmphex(cmos(t, 12) & 0xb0, ==, 0x90);
    g_assert_cmpint(t->gsi_level[8], ==, 0);
    g_assert_cmphex(cmos(t, 12) & 0x90, ==, 0);
    /* Alarm at 00:00:05, with the day's change between. */
    set_cmos(t, 1, 0x05);
    set_cmos(t, 3, 0x00);
    set_cmos(t, 5, 0x00);
    set_cmos(t, 11, 0x22);
    t->gsi_rises[8] = 0;
    test_advance_ns(t, 13 * NS_PER_SEC);
    g_assert_cmpint(t->gsi_level[8], ==, 0);
    test_advance_ns(t, 2 * NS_PER_SEC);
    g_assert_cmpint(t->gsi_level[8], ==, 1);
    g_assert_cmphex(cmos(t, 12) & 0xa0, ==, 0xa0);
    test_advance_ns(t, 3600 * NS_PER_SEC);
    g_assert_cmpint(t->gsi_rises[8], ==, 1);
    /* Periodic, 1024 Hz: each wants register C to be read. */
    set_cmos(t, 11, 0x42);
    cmos(t, 12);
    unsigned seen = 0;
    for (int i = 0; i < 1024; i++) {
        test_advance_ns(t, 976563);
        seen += t->gsi_level[8];
        cmos(t, 12);
    }
    g_assert_cmpint(seen, >=, 1023);
    test_machine_free(t);
}

static void test_rtc_alarm_patterns(void)
{
    const int64_t day = 20000LL * 86400, noon = day + 12 * 3600;
    static const struct { struct rtc_alarm a; int64_t next; } cases[] = {
        { { -1, -1, -1 }, 12 * 3600 + 1 },      { { -1, -1, 0 }, 12 * 3600 + 60 },
        { { -1, 0, -1 }, 12 * 3600 + 1 },       { { -1, 0, 0 }, 13 * 3600 },
        { { 11, 59, 59 }, 86400 + 43199 },      { { 12, -1, 30 }, 12 * 3600 + 30 },
        { { 0, -1, -1 }, 86400 },               { { 23, 59, 59 }, 86399 },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++)
        g_assert_cmpint(rtc_alarm_next(cases[i].a, noon), ==, day + cases[i].next);
    g_assert_cmpint(rtc_alarm_next((struct rtc_alarm){ 24, 0, 0 }, noon), ==, -1);
    g_assert_cmpint(rtc_alarm_next((struct rtc_alarm){ -1, -1, 60 }, noon), ==, -1);
    g_assert_cmpint(rtc_alarm_next((struct rtc_alarm){ -1, -1, -1 }, -2), ==, -1 + 0);
}

static void test_rtc_memory_sizes(void)
{
    struct test_machine *t = test_machine_new(3);
    t->m.ram_below_4g = 2 * GIB;
    t->m.ram_above_4g = 5 * GIB;
    test_device(t, "mc146818rtc", NULL);
    g_assert_cmpint(cmos(t, 0x34) | cmos(t, 0x35) << 8, ==, (2 * GIB - 16 * MIB) / 65536);
    g_assert_cmpint(cmos(t, 0x5b) | cmos(t, 0x5c) << 8 | cmos(t, 0x5d) << 16, ==, 5 * GIB / 65536);
    g_assert_cmpint(cmos(t, 0x15) | cmos(t, 0x16) << 8, ==, 640);
    g_assert_cmpint(cmos(t, 0x5f), ==, 2);
    set_cmos(t, 0x0f, 0x0a);
    device_reset(t->m.devices);
    g_assert_cmphex(cmos(t, 0x0f), ==, 0x0a); /* on the battery */
    test_outb(t, 0x72, 0x0f); /* the second bank is another */
    test_outb(t, 0x73, 0x55);
    g_assert_cmphex(test_inb(t, 0x73), ==, 0x55);
    g_assert_cmphex(cmos(t, 0x0f), ==, 0x0a);
    test_machine_free(t);
}

static void test_hostile(void)
{
    struct test_machine *t = hpet_machine();
    test_device(t, "mc146818rtc", "clock", "vm", NULL);
    uint32_t x = 4711;
    for (unsigned n = 0; n < 200000; n++) {
        x = x * 1664525 + 1013904223;
        uint32_t val = x ^ x >> 15;
        switch (x >> 29) {
        case 0 ... 1:
            test_outb(t, 0x40 + (x >> 9 & 3), (uint8_t)val);
            break;
        case 2:
            test_inb(t, 0x40 + (x >> 9 & 3));
            test_outb(t, 0x61, (uint8_t)val);
            break;
        case 3 ... 4:
            mem_io_write(t->m.memory, HPET + (x >> 9 & 0x1fc), val, x & 64 ? 4 : 8);
            break;
        case 5 ... 6:
            set_cmos(t, x >> 9 & 0x3f, (uint8_t)val);
            cmos(t, x >> 12 & 15);
            break;
        default:
            test_advance_ns(t, x & 0x3ffff);
            break;
        }
    }
    test_machine_free(t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/i8254/periodic", test_pit_periodic);
    g_test_add_func("/i8254/once", test_pit_once);
    g_test_add_func("/i8254/readback", test_pit_readback);
    g_test_add_func("/i8254/channel2", test_pit_channel2);
    g_test_add_func("/hpet/counter", test_hpet_counter);
    g_test_add_func("/hpet/legacy", test_hpet_legacy);
    g_test_add_func("/hpet/level", test_hpet_level);
    g_test_add_func("/rtc/calendar", test_rtc_calendar);
    g_test_add_func("/rtc/uip", test_rtc_uip);
    g_test_add_func("/rtc/interrupts", test_rtc_interrupts);
    g_test_add_func("/rtc/alarm-patterns", test_rtc_alarm_patterns);
    g_test_add_func("/rtc/memory-sizes", test_rtc_memory_sizes);
    g_test_add_func("/timer/hostile", test_hostile);
    return g_test_run();
}
