/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The keyboard controller as firmware and kernels probe it, and input through it. */
#include "devices/input/i8042.h"
#include "devices/testing.h"

static struct test_machine *setup(void)
{
    struct test_machine *t = test_machine_new(1);
    test_device(t, "i8042", NULL);
    return t;
}

static int get(struct test_machine *t, bool *ret_mouse)
{
    uint8_t status = test_inb(t, 0x64);
    if (!(status & 1))
        return -1;
    if (ret_mouse)
        *ret_mouse = status & 0x20;
    return test_inb(t, 0x60);
}

static void expect(struct test_machine *t, bool mouse, const uint8_t *bytes, unsigned count)
{
    bool from_mouse = false;
    for (unsigned i = 0; i < count; i++) {
        g_assert_cmphex(get(t, &from_mouse), ==, bytes[i]);
        g_assert_cmpint(from_mouse, ==, mouse);
    }
    g_assert_cmpint(get(t, NULL), ==, -1);
}
#define EXPECT(t, mouse, ...) expect(t, mouse, (const uint8_t[]){ __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ }))

static void set_ctr(struct test_machine *t, uint8_t val)
{
    test_outb(t, 0x64, 0x60);
    test_outb(t, 0x60, val);
}

static void to_mouse(struct test_machine *t, uint8_t byte)
{
    test_outb(t, 0x64, 0xd4);
    test_outb(t, 0x60, byte);
}

static void test_controller(void)
{
    struct test_machine *t = setup();
    test_outb(t, 0x64, 0xaa);
    EXPECT(t, false, 0x55);
    test_outb(t, 0x64, 0x20);
    EXPECT(t, false, 0x74);
    set_ctr(t, 0x03);
    test_outb(t, 0x64, 0xab);
    EXPECT(t, false, 0x00);
    unsigned rises = t->gsi_rises[12];
    test_outb(t, 0x64, 0xd3); /* the loop that finds the mouse port and its interrupt */
    test_outb(t, 0x60, 0x5a);
    g_assert_cmpint(t->gsi_rises[12], ==, rises + 1);
    EXPECT(t, true, 0x5a);
    g_assert_cmpint(t->gsi_level[12], ==, 0);
    test_outb(t, 0x64, 0xa7);
    test_outb(t, 0x64, 0x20);
    EXPECT(t, false, 0x23);
    test_outb(t, 0x64, 0xd0);
    EXPECT(t, false, 0x03);
    test_outb(t, 0x64, 0xfe);
    g_assert_cmpint(t->request, ==, MACHINE_REQ_RESET);
    test_machine_free(t);
}

static void test_keyboard(void)
{
    struct test_machine *t = setup();
    set_ctr(t, 0x01);
    test_outb(t, 0x60, 0xff);
    g_assert_cmpint(t->gsi_level[1], ==, 1);
    g_assert_cmpint(t->gsi_level[12], ==, 0);
    EXPECT(t, false, 0xfa, 0xaa);
    g_assert_cmpint(t->gsi_rises[1], ==, 2); /* an edge for each byte */
    test_outb(t, 0x60, 0xf2);
    EXPECT(t, false, 0xfa, 0xab, 0x83);
    test_outb(t, 0x60, 0xed);
    EXPECT(t, false, 0xfa);
    test_outb(t, 0x60, 0x07);
    EXPECT(t, false, 0xfa);
    test_outb(t, 0x60, 0xf0);
    test_outb(t, 0x60, 0x00);
    EXPECT(t, false, 0xfa, 0xfa, 0x02);
    test_outb(t, 0x60, 0xfb); /* not known */
    EXPECT(t, false, 0xfe);
    set_ctr(t, 0x41); /* translated: as set 1 */
    test_outb(t, 0x60, 0xf2);
    EXPECT(t, false, 0xfa, 0xab, 0x41);
    struct device *d = t->m.devices;
    g_assert_true(i8042_key(d, (const uint8_t[]){ 0x1c, 0xf0, 0x1c }, 3));        /* A */
    g_assert_true(i8042_key(d, (const uint8_t[]){ 0xe0, 0x75, 0xe0, 0xf0, 0x75 }, 5)); /* up */
    EXPECT(t, false, 0x1e, 0x9e, 0xe0, 0x48, 0xe0, 0xc8);
    unsigned taken = 0;
    while (i8042_key(d, (const uint8_t[]){ 0x1c }, 1) && taken < 1000)
        taken++;
    g_assert_cmpint(taken, <, 64); /* nobody fetches: bounded */
    test_machine_free(t);
}

static void test_mouse(void)
{
    struct test_machine *t = setup();
    static const uint8_t knocks[2][3] = { { 200, 100, 80 }, { 200, 200, 80 } };
    set_ctr(t, 0x03);
    to_mouse(t, 0xff);
    EXPECT(t, true, 0xfa, 0xaa, 0x00);
    to_mouse(t, 0xf2);
    EXPECT(t, true, 0xfa, 0x00);
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned n = 0; n < 3; n++) {
            to_mouse(t, 0xf3);
            to_mouse(t, knocks[i][n]);
        }
        EXPECT(t, true, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa);
        to_mouse(t, 0xf2);
        EXPECT(t, true, 0xfa, i ? 0x04 : 0x03);
    }
    struct device *d = t->m.devices;
    i8042_move(d, 5, 5, 0, 0); /* not enabled: nothing is sent */
    g_assert_cmpint(get(t, NULL), ==, -1);
    to_mouse(t, 0xf4);
    EXPECT(t, true, 0xfa);
    i8042_move(d, -15, 0, -1, 0x11);
    EXPECT(t, true, 0x19, 0xf6, 0x05, 0x2f);
    i8042_move(d, 300, 0, 0, 0); /* more than one report holds */
    EXPECT(t, true, 0x08, 0xff, 0x00, 0x00, 0x08, 0x2d, 0x00, 0x00);
    to_mouse(t, 0xe9);
    EXPECT(t, true, 0xfa, 0x20, 0x02, 80);
    for (int i = 0; i < 1000; i++)
        i8042_move(d, 1 << 30, -(1 << 30), 1, 0);
    unsigned bytes = 0;
    while (get(t, NULL) >= 0)
        bytes++;
    g_assert_cmpint(bytes, <=, 65);
    test_machine_free(t);
}

static void test_hostile(void)
{
    struct test_machine *t = setup();
    uint32_t x = 99;
    for (unsigned n = 0; n < 300000; n++) {
        x = x * 1664525 + 1013904223;
        if (x >> 30 == 0)
            i8042_move(t->m.devices, (int32_t)x, (int32_t)(x * 3), 1, (uint8_t)(x >> 5));
        else if (x >> 30 == 1)
            test_inb(t, 0x60);
        else
            test_outb(t, x >> 29 & 1 ? 0x60 : 0x64, (uint8_t)(x >> 12));
    }
    test_machine_free(t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/i8042/controller", test_controller);
    g_test_add_func("/i8042/keyboard", test_keyboard);
    g_test_add_func("/i8042/mouse", test_mouse);
    g_test_add_func("/i8042/hostile", test_hostile);
    return g_test_run();
}
