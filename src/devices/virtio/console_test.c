/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-serial-pci with its ports, and virtio-rng-pci, from the driver's side. */
#include "devices/virtio/console.h"
#include "base/fd.h"
#include "base/scratch.h"
#include "chardev/chardev.h"
#include "devices/virtio/driver_testing.h"
#include "machine/backends.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <linux/virtio_console.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define IN DRIVER_DATA
#define OUT (DRIVER_DATA + 0x10000)
#define CTRL (DRIVER_DATA + 0x20000)

struct fixture {
    struct driver *d;
    struct device *console, *port;
    struct chardev *chardev;
    char *path;
    int peer; /* the other end of the port's backend */
};

static void make_chardev(struct fixture *f)
{
    f->path = g_build_filename(g_get_tmp_dir(), "console.sock", NULL);
    g_unlink(f->path);
    const struct chardev_option o[] = { { "path", f->path },
                                        { "server", "on" },
                                        { "wait", "off" } };
    const struct chardev_config c = { o, 3 };
    GError *error = NULL;
    f->chardev = chardev_new("socket", "char0", &c, f->d->t->m.main_loop, &error);
    g_assert_no_error(error);
    g_assert_true(backend_add(&f->d->t->m, BACKEND_CHARDEV, "char0", f->chardev));
}

static void dial(struct fixture *f)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    g_strlcpy(a.sun_path, f->path, sizeof(a.sun_path));
    f->peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    g_assert_cmpint(connect(f->peer, (struct sockaddr *)&a, sizeof(a)), ==, 0);
    driver_turn(f->d, 5);
    g_assert_true(chardev_is_open(f->chardev));
}

static void setup(struct fixture *f, gconstpointer data)
{
    f->peer = -1;
    f->d = driver_new();
    make_chardev(f);
    f->console = test_device(f->d->t, "virtio-serial-pci", "max_ports", "4", NULL);
    f->port = test_device(f->d->t, data ? "virtserialport" : "virtconsole", "chardev", "char0",
                          "name", "org.bee", NULL);
    driver_bring_up(f->d, f->console);
}

static void teardown(struct fixture *f, gconstpointer data)
{
    driver_free_devices(f->d);
    chardev_free(f->chardev);
    driver_free(f->d);
    fd_close_keep_errno(f->peer);
    g_unlink(f->path);
    g_free(f->path);
}

static void offer_in(struct fixture *f, unsigned queue, unsigned count, uint32_t len)
{
    for (unsigned i = 0; i < count; i++)
        driver_offer(f->d, queue,
                     &(struct driver_buf){ IN + 0x1000 * queue + (uint64_t)i * len, len, true }, 1);
    driver_kick(f->d, queue);
}

static void write_out(struct fixture *f, unsigned queue, const char *text, size_t len)
{
    memcpy(driver_mem(f->d, OUT), text, len);
    driver_offer(f->d, queue, &(struct driver_buf){ OUT, (uint32_t)len, false }, 1);
    driver_kick(f->d, queue);
    g_assert_true(driver_wait(f->d, queue, NULL, NULL));
}

static void expect_peer(struct fixture *f, const char *text)
{
    char buf[256] = { 0 };
    size_t got = 0;
    for (unsigned i = 0; i < 100 && got < strlen(text); i++) {
        driver_turn(f->d, 1);
        ssize_t n = recv(f->peer, buf + got, sizeof(buf) - 1 - got, 0);
        got += n > 0 ? (size_t)n : 0;
    }
    g_assert_cmpstr(buf, ==, text);
}

/* A driver without multiport: port 0's queues alone. */
static void test_simple(struct fixture *f, gconstpointer data)
{
    dial(f);
    driver_start(f->d, 0, 2);
    write_out(f, 1, "hello ", 6);
    write_out(f, 1, "world", 5);
    expect_peer(f, "hello world");
    /* Input waits for buffers, and is cut to them. */
    g_assert_cmpint(send(f->peer, "0123456789", 10, 0), ==, 10);
    driver_turn(f->d, 5);
    offer_in(f, 0, 1, 4);
    uint32_t len;
    g_assert_true(driver_wait(f->d, 0, NULL, &len));
    g_assert_cmpuint(len, ==, 4);
    g_assert_cmpmem(driver_mem(f->d, IN), 4, "0123", 4);
    offer_in(f, 0, 1, 64);
    g_assert_true(driver_wait(f->d, 0, NULL, &len));
    g_assert_cmpmem(driver_mem(f->d, IN), len, "456789", 6);
    for (unsigned i = 0; i < 20; i++) { /* again and again: notifications are asked for */
        offer_in(f, 0, 1, 64);
        driver_turn(f->d, 2);
        g_assert_cmpint(send(f->peer, "x", 1, 0), ==, 1);
        g_assert_true(driver_wait(f->d, 0, NULL, &len));
        g_assert_cmpuint(len, ==, 1);
    }
    driver_offer(f->d, 0, &(struct driver_buf){ IN, 16, false }, 1);
    driver_kick(f->d, 0);
    driver_turn(f->d, 5);
    g_assert_true(f->console->broken); /* nothing to write into */
}

static void control(struct fixture *f, uint32_t id, uint16_t event, uint16_t value)
{
    struct virtio_console_control m = { id, event, value };
    memcpy(driver_mem(f->d, CTRL), &m, sizeof(m));
    driver_offer(f->d, 3, &(struct driver_buf){ CTRL, sizeof(m), false }, 1);
    driver_kick(f->d, 3);
    g_assert_true(driver_wait(f->d, 3, NULL, NULL));
}

static uint32_t expect_control(struct fixture *f, uint16_t event, uint16_t value, const char *name)
{
    uint16_t head;
    uint32_t len;
    struct virtio_console_control m;
    g_assert_true(driver_wait(f->d, 2, &head, &len));
    const struct vq_desc *table =
        (const struct vq_desc *)(const void *)driver_mem(f->d, f->d->q[2].base);
    const uint8_t *p = driver_mem(f->d, table[head].addr);
    memcpy(&m, p, sizeof(m));
    g_assert_cmpuint(m.event, ==, event);
    g_assert_cmpuint(m.value, ==, value);
    g_assert_cmpuint(len, ==, sizeof(m) + (name ? strlen(name) : 0));
    if (name)
        g_assert_cmpmem(p + sizeof(m), len - sizeof(m), name, strlen(name));
    offer_in(f, 2, 1, 128);
    return m.id;
}

static void test_multiport(struct fixture *f, gconstpointer data)
{
    bool is_console = !data;
    uint32_t nr = is_console ? 0 : 1;
    unsigned in = is_console ? 0 : 4, out = in + 1;
    driver_start(f->d, VIRTIO_F(VIRTIO_CONSOLE_F_MULTIPORT), 6);
    g_assert_cmpuint(driver_config(f->d, 4, 4), ==, 4);
    offer_in(f, 2, 1, 128);
    control(f, 0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    g_assert_cmpuint(expect_control(f, VIRTIO_CONSOLE_PORT_ADD, 1, NULL), ==, nr);
    control(f, nr, VIRTIO_CONSOLE_PORT_READY, 1);
    if (is_console)
        expect_control(f, VIRTIO_CONSOLE_CONSOLE_PORT, 1, NULL);
    expect_control(f, VIRTIO_CONSOLE_PORT_NAME, 1, "org.bee");
    dial(f);
    g_assert_cmpuint(expect_control(f, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL), ==, nr);
    /* Input waits until the guest opens the port. */
    g_assert_cmpint(send(f->peer, "abc", 3, 0), ==, 3);
    offer_in(f, in, 2, 64);
    driver_turn(f->d, 5);
    g_assert_false(driver_poll(f->d, in, NULL, NULL));
    g_assert_cmpint(console_guest_open(&f->d->t->m, f->chardev), ==, is_console ? -1 : 0);
    control(f, nr, VIRTIO_CONSOLE_PORT_OPEN, 1);
    g_assert_cmpint(console_guest_open(&f->d->t->m, f->chardev), ==, is_console ? -1 : 1);
    g_assert_cmpstr(f->d->t->event, ==, is_console ? NULL : "VSERPORT_CHANGE");
    uint32_t len;
    g_assert_true(driver_wait(f->d, in, NULL, &len));
    g_assert_cmpuint(len, ==, 3);
    write_out(f, out, "reply", 5);
    expect_peer(f, "reply");
    /* The peer goes. */
    close(f->peer);
    f->peer = -1;
    expect_control(f, VIRTIO_CONSOLE_PORT_OPEN, 0, NULL);
    write_out(f, out, "lost", 4);
    /* Messages that make no sense. */
    control(f, 77, VIRTIO_CONSOLE_PORT_READY, 1);
    control(f, UINT32_MAX, VIRTIO_CONSOLE_PORT_OPEN, 1);
    control(f, nr, 99, 99);
    for (unsigned i = 0; i < 2000; i++)
        control(f, nr, VIRTIO_CONSOLE_PORT_READY, 1); /* more answers than there is room for */
    g_assert_false(f->console->broken);
    driver_start(f->d, 0, 2);
}

/* A peer that does not read: the guest's chain stays until there is room, nothing is lost. */
static void test_slow_peer(struct fixture *f, gconstpointer data)
{
    enum { TOTAL = 3 << 20, CHUNK = 4096 };
    dial(f);
    driver_start(f->d, 0, 2);
    size_t sent = 0, got = 0;
    unsigned inflight = 0, idle = 0;
    while (got < TOTAL && idle < 2000) {
        if (sent < TOTAL && inflight < 8) {
            uint64_t at = OUT + (sent / CHUNK % 8) * CHUNK;
            memset(driver_mem(f->d, at), (int)(sent / CHUNK), CHUNK);
            driver_offer(f->d, 1, &(struct driver_buf){ at, CHUNK, false }, 1);
            driver_kick(f->d, 1);
            sent += CHUNK;
            inflight++;
        }
        driver_turn(f->d, 1);
        while (driver_poll(f->d, 1, NULL, NULL))
            inflight--;
        if (sent < (2 << 20) && inflight < 8)
            continue; /* fill everything before reading */
        static uint8_t buf[65536];
        ssize_t n = recv(f->peer, buf, sizeof(buf), 0);
        for (ssize_t i = 0; i < n; i++)
            g_assert_cmphex(buf[i], ==, (uint8_t)((got + (size_t)i) / CHUNK));
        got += n > 0 ? (size_t)n : 0;
        idle = n > 0 ? 0 : idle + 1;
    }
    g_assert_cmpuint(got, ==, TOTAL);
}

static void expect_refused(struct fixture *f, const char *type, const char *prop, const char *value,
                           const char *part)
{
    GError *error = NULL;
    struct device *d = device_new(&f->d->t->m, type, NULL);
    g_assert_true(device_set(d, prop, value, NULL));
    g_assert_false(device_realize(d, &error));
    if (!strstr(error->message, part))
        g_error("'%s' does not say '%s'", error->message, part);
    g_error_free(error);
}

static void test_refused(struct fixture *f, gconstpointer data)
{
    expect_refused(f, "virtconsole", "nr", "0", "taken");
    expect_refused(f, "virtserialport", "nr", "0", "virtconsole");
    expect_refused(f, "virtserialport", "nr", "4", "ports 0 to 3");
    expect_refused(f, "virtserialport", "name", "org.bee", "org.bee");
    expect_refused(f, "virtserialport", "chardev", "char1", "char0");
    expect_refused(f, "virtserialport", "chardev", "char0", "in use");
    struct driver *other = driver_new();
    GError *error = NULL;
    struct device *d = device_new(&other->t->m, "virtconsole", NULL);
    g_assert_false(device_realize(d, &error));
    g_assert_nonnull(strstr(error->message, "virtio-serial-pci"));
    g_error_free(error);
    driver_free(other);
}

static void test_rng(void)
{
    struct driver *d = driver_new();
    struct device *dev = test_device(d->t, "virtio-rng", "max-bytes", "1000", "period", "20", NULL);
    clock_start(&d->t->m.clock);
    driver_bring_up(d, dev);
    driver_start(d, 0, 1);
    uint32_t len, total = 0;
    for (unsigned i = 0; i < 5; i++) {
        memset(driver_mem(d, IN), 0, 600);
        driver_offer(d, 0, &(struct driver_buf){ IN, 600, true }, 1);
        driver_kick(d, 0);
        g_assert_true(driver_wait(d, 0, NULL, &len));
        g_assert_cmpuint(len, <=, 600);
        g_assert_cmpuint(len, >, 0);
        total += len;
        unsigned zeroes = 0;
        for (unsigned k = 0; k < len; k++)
            zeroes += *driver_mem(d, IN + k) == 0;
        g_assert_cmpuint(zeroes, <=, len / 8 + 4);
    }
    g_assert_cmpuint(total, >=, 2000); /* over several periods */
    driver_offer(d, 0, &(struct driver_buf){ IN, 600, false }, 1);
    driver_kick(d, 0);
    driver_turn(d, 30);
    g_assert_true(dev->broken);
    clock_stop(&d->t->m.clock);
    driver_free(d);
}

#define ADD(name, fn, data)                                                                        \
    g_test_add("/virtio/console/" name, struct fixture, data, setup, fn, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-console");
    ADD("simple", test_simple, NULL);
    ADD("multiport/console", test_multiport, NULL);
    ADD("multiport/port", test_multiport, "port");
    ADD("slow-peer", test_slow_peer, NULL);
    ADD("refused", test_refused, NULL);
    g_test_add_func("/virtio/rng", test_rng);
    return g_test_run();
}
