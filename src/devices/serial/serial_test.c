/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The serial port and the debug console as a driver uses them, over a backend that the test plays. */
#include "chardev/chardev.h"
#include "devices/testing.h"
#include "machine/backends.h"

#include <string.h>

struct chardev {
    struct chardev_frontend frontend;
    bool attached;
    char out[64];
    size_t out_len, room;
    unsigned accepts;
};

bool chardev_attach(struct chardev *c, const struct chardev_frontend *f, GError **error)
{
    if (c->attached)
        return ruche_error(error, RUCHE_ERR_BUSY, "in use");
    c->frontend = *f;
    c->attached = true;
    return true;
}

void chardev_detach(struct chardev *c, void *frontend_opaque)
{
    c->attached = false;
}

size_t chardev_write(struct chardev *c, const void *data, size_t len)
{
    size_t n = len < c->room ? len : c->room;
    memcpy(c->out + c->out_len, data, n);
    c->out_len += n;
    c->room -= n;
    return n;
}

void chardev_accept_input(struct chardev *c)
{
    c->accepts++;
}

/* What a backend does: only as much as the port can take. */
static size_t push(struct chardev *c, const char *text)
{
    size_t room = c->frontend.can_receive(c->frontend.opaque), len = strlen(text);
    size_t n = len < room ? len : room;
    if (n)
        c->frontend.receive(c->frontend.opaque, (const uint8_t *)text, n);
    return n;
}

#define COM1 0x3f8

static struct test_machine *setup(struct chardev *c)
{
    struct test_machine *t = test_machine_new(1);
    *c = (struct chardev){ .room = sizeof(c->out) };
    backend_add(&t->m, BACKEND_CHARDEV, "c0", c);
    test_device(t, "isa-serial", "chardev", "c0", NULL);
    return t;
}

static void done(struct test_machine *t)
{
    test_machine_free(t);
}

static void test_probe(void)
{
    struct chardev c;
    struct test_machine *t = setup(&c);
    test_outb(t, COM1 + 1, 0xff);
    g_assert_cmphex(test_inb(t, COM1 + 1), ==, 0x0f);
    test_outb(t, COM1 + 1, 0);
    test_outb(t, COM1 + 7, 0xa5);
    g_assert_cmphex(test_inb(t, COM1 + 7), ==, 0xa5);
    test_outb(t, COM1 + 2, 1);
    g_assert_cmphex(test_inb(t, COM1 + 2), ==, 0xc1); /* 16550A */
    test_outb(t, COM1 + 4, 0x1a);                     /* loopback: RTS and OUT2 come back */
    g_assert_cmphex(test_inb(t, COM1 + 6) & 0xf0, ==, 0x90);
    test_outb(t, COM1 + 3, 0x80);
    test_outb(t, COM1, 1);
    test_outb(t, COM1 + 1, 2);
    g_assert_cmphex(test_in(t, COM1, 2), ==, 0x0201);
    test_outb(t, COM1 + 3, 3);
    g_assert_cmphex(test_inb(t, COM1 + 1), ==, 0);
    done(t);
}

static void test_output(void)
{
    struct chardev c;
    struct test_machine *t = setup(&c);
    test_outb(t, COM1 + 2, 1);
    test_outb(t, COM1 + 1, 2);
    g_assert_cmpint(t->gsi_level[4], ==, 1); /* empty already */
    g_assert_cmphex(test_inb(t, COM1 + 2), ==, 0xc2);
    g_assert_cmpint(t->gsi_level[4], ==, 0); /* reading the id was the acknowledgement */
    test_outb(t, COM1, 'h');
    g_assert_cmpint(t->gsi_level[4], ==, 1);
    test_outb(t, COM1, 'i');
    g_assert_cmpmem(c.out, c.out_len, "hi", 2);
    g_assert_cmphex(test_inb(t, COM1 + 5), ==, 0x60);

    /* The backend takes no more: 16 bytes wait, the guest sees it, nothing is lost until then. */
    c.room = 0;
    for (int i = 0; i < 16; i++)
        test_outb(t, COM1, (uint8_t)('a' + i));
    g_assert_cmphex(test_inb(t, COM1 + 5), ==, 0);
    g_assert_cmpint(t->gsi_level[4], ==, 0);
    test_outb(t, COM1, 'X');
    c.room = 100;
    c.frontend.sent(c.frontend.opaque);
    g_assert_cmpmem(c.out, c.out_len, "hiabcdefghijklmnop", 18);
    g_assert_cmphex(test_inb(t, COM1 + 5), ==, 0x60);
    g_assert_cmpint(t->gsi_level[4], ==, 1);
    done(t);
}

static void test_input(void)
{
    struct chardev c;
    struct test_machine *t = setup(&c);
    test_outb(t, COM1 + 2, 0x41); /* FIFO, trigger at 4 */
    test_outb(t, COM1 + 1, 5);
    g_assert_cmpint(push(&c, "abc"), ==, 3);
    g_assert_cmpint(t->gsi_level[4], ==, 0);
    test_advance_ns(t, 4 * NS_PER_MS + NS_PER_MS); /* at 9600 baud four characters are 4.2 ms */
    g_assert_cmpint(t->gsi_level[4], ==, 1);
    g_assert_cmphex(test_inb(t, COM1 + 2), ==, 0xcc); /* timeout */
    g_assert_cmpint(test_inb(t, COM1), ==, 'a');
    g_assert_cmpint(t->gsi_level[4], ==, 0);
    g_assert_cmpint(push(&c, "de"), ==, 2);
    g_assert_cmphex(test_inb(t, COM1 + 2), ==, 0xc4);
    g_assert_cmphex(test_inb(t, COM1 + 5), ==, 0x61);
    for (const char *p = "bcde"; *p; p++)
        g_assert_cmpint(test_inb(t, COM1), ==, *p);
    g_assert_cmphex(test_inb(t, COM1 + 5), ==, 0x60);
    g_assert_cmphex(test_inb(t, COM1 + 2), ==, 0xc1);

    /* Full: the backend must wait, and is called when half of it is read. */
    unsigned accepts = c.accepts;
    g_assert_cmpint(push(&c, "0123456789abcdefXYZ"), ==, 16);
    g_assert_cmpint(push(&c, "XYZ"), ==, 0);
    for (int i = 0; i < 7; i++)
        test_inb(t, COM1);
    g_assert_cmpint(c.accepts, ==, accepts);
    test_inb(t, COM1);
    g_assert_cmpint(c.accepts, ==, accepts + 1);
    test_outb(t, COM1 + 2, 0x43);
    g_assert_cmphex(test_inb(t, COM1 + 5), ==, 0x60);

    c.frontend.send_break(c.frontend.opaque);
    g_assert_cmphex(test_inb(t, COM1 + 2), ==, 0xc6);
    g_assert_cmphex(test_inb(t, COM1 + 5), ==, 0x71);
    g_assert_cmphex(test_inb(t, COM1 + 5), ==, 0x61);
    done(t);
}

static void test_loopback(void)
{
    struct chardev c;
    struct test_machine *t = setup(&c);
    test_outb(t, COM1 + 4, 0x10);
    test_outb(t, COM1, 0x55);
    g_assert_cmpint(c.out_len, ==, 0);
    g_assert_cmpint(push(&c, "x"), ==, 0);
    g_assert_cmphex(test_inb(t, COM1 + 5), ==, 0x61);
    test_outb(t, COM1, 0x56); /* no FIFO: overrun */
    g_assert_cmphex(test_inb(t, COM1 + 5), ==, 0x63);
    g_assert_cmphex(test_inb(t, COM1), ==, 0x55);
    test_inb(t, COM1 + 6);
    test_outb(t, COM1 + 4, 0x11);
    g_assert_cmphex(test_inb(t, COM1 + 6), ==, 0x22); /* DSR and its change */
    g_assert_cmphex(test_inb(t, COM1 + 6), ==, 0x20);
    done(t);
}

static void test_places(void)
{
    struct chardev c;
    struct test_machine *t = setup(&c);
    g_autoptr(GError) error = NULL;
    test_device(t, "isa-serial", NULL);
    test_outb(t, 0x2f8 + 7, 0x11);
    g_assert_cmphex(test_inb(t, 0x2f8 + 7), ==, 0x11);
    g_assert_null(device_make(&t->m, "isa-serial", &error, "index", "1", NULL));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_EXISTS);
    g_clear_error(&error);
    g_assert_null(device_make(&t->m, "isa-serial", &error, "chardev", "c1", NULL));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_NOT_FOUND);
    g_clear_error(&error);
    g_assert_null(device_make(&t->m, "isa-serial", &error, "chardev", "c0", NULL));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_BUSY);
    g_clear_error(&error);
    g_assert_null(device_make(&t->m, "isa-serial", &error, "index", "7", NULL));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_INVALID);
    test_device(t, "isa-serial", "iobase", "0x1000", "irq", "10", "index", "9", NULL);
    test_outb(t, 0x1001, 2);
    g_assert_cmpint(t->gsi_level[10], ==, 1);
    done(t);
}

static void test_debugcon(void)
{
    struct test_machine *t = test_machine_new(1);
    struct chardev c = { .room = sizeof(c.out) };
    backend_add(&t->m, BACKEND_CHARDEV, "c0", &c);
    test_device(t, "isa-debugcon", "chardev", "c0", NULL);
    g_assert_cmphex(test_inb(t, 0xe9), ==, 0xe9);
    test_outb(t, 0xe9, '!');
    g_assert_cmpmem(c.out, c.out_len, "!", 1);
    done(t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/serial/probe", test_probe);
    g_test_add_func("/serial/output", test_output);
    g_test_add_func("/serial/input", test_input);
    g_test_add_func("/serial/loopback", test_loopback);
    g_test_add_func("/serial/places", test_places);
    g_test_add_func("/debugcon", test_debugcon);
    return g_test_run();
}
