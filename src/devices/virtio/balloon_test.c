/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-balloon-pci from the driver's side, and from the monitor's. */
#include "devices/virtio/balloon.h"
#include "devices/virtio/driver_testing.h"

#include <string.h>

#define LIST  DRIVER_DATA
#define PAGES (DRIVER_DATA + 0x10000)
enum { INFLATE, DEFLATE, STATS, REPORTS };
enum { F_STATS = 1, F_REPORTING = 5 };

struct fixture {
    struct driver *d;
    struct device *dev;
};

static void setup(struct fixture *f, gconstpointer data)
{
    f->d = driver_new();
    f->dev = test_device(f->d->t, "virtio-balloon-pci", "free-page-reporting", "on", NULL);
    driver_bring_up(f->d, f->dev);
}

static void teardown(struct fixture *f, gconstpointer data)
{
    driver_free(f->d);
}

static void send_list(struct fixture *f, unsigned queue, const uint32_t *pages, unsigned count)
{
    memcpy(driver_mem(f->d, LIST), pages, count * sizeof(*pages));
    driver_offer(f->d, queue, (struct driver_buf[]){{LIST, count * 4, false}}, 1);
    driver_kick(f->d, queue);
}

/* Pages that were given back read as zeroes; their neighbours are as they were. */
static void test_inflate(struct fixture *f, gconstpointer data)
{
    uint32_t pages[] = {PAGES / 4096, PAGES / 4096 + 2};
    driver_start(f->d, 0, 2);
    memset(driver_mem(f->d, PAGES), 0xaa, 3 * 4096);
    send_list(f, INFLATE, pages, 2);
    g_assert_true(driver_wait(f->d, INFLATE, NULL, NULL));
    g_assert_cmphex(*driver_mem(f->d, PAGES), ==, 0);
    g_assert_cmphex(*driver_mem(f->d, PAGES + 4095), ==, 0);
    g_assert_cmphex(*driver_mem(f->d, PAGES + 4096), ==, 0xaa);
    g_assert_cmphex(*driver_mem(f->d, PAGES + 2 * 4096), ==, 0);
    send_list(f, DEFLATE, pages, 2);
    g_assert_true(driver_wait(f->d, DEFLATE, NULL, NULL));
}

/* The monitor sets a target, the driver reads it, and says how far it came. */
static void test_target(struct fixture *f, gconstpointer data)
{
    uint64_t ram = f->d->t->m.config.ram_bytes;
    driver_start(f->d, 0, 2);
    g_assert_true(balloon_find(&f->d->t->m) == f->dev);
    g_assert_cmpuint(balloon_actual(f->dev), ==, ram);
    balloon_set_target(f->dev, ram - 16 * 4096);
    g_assert_cmpuint(driver_config(f->d, 0, 4), ==, 16);
    driver_set_config(f->d, 4, 10, 4);
    g_assert_cmpuint(balloon_actual(f->dev), ==, ram - 10 * 4096);
    driver_set_config(f->d, 0, 99, 4); /* the target is not the driver's */
    g_assert_cmpuint(driver_config(f->d, 0, 4), ==, 16);
    driver_set_config(f->d, 4, UINT32_MAX, 4); /* more than there is */
    g_assert_cmpuint(balloon_actual(f->dev), ==, 0);
    balloon_set_target(f->dev, UINT64_MAX);
    g_assert_cmpuint(driver_config(f->d, 0, 4), ==, 0);
}

static void put_stat(uint8_t *at, uint16_t tag, uint64_t value)
{
    memcpy(at, &tag, 2);
    memcpy(at + 2, &value, 8);
}

static void test_stats(struct fixture *f, gconstpointer data)
{
    struct balloon_stats s;
    driver_start(f->d, VIRTIO_F(F_STATS), 3);
    put_stat(driver_mem(f->d, LIST), 4, 12345);
    put_stat(driver_mem(f->d, LIST) + 10, 999, 1); /* one that we do not know */
    put_stat(driver_mem(f->d, LIST) + 20, 5, UINT64_MAX);
    driver_offer(f->d, STATS, (struct driver_buf[]){{LIST, 30, false}}, 1);
    driver_kick(f->d, STATS);
    driver_turn(f->d, 20);
    g_assert_false(driver_poll(f->d, STATS, NULL, NULL)); /* kept, until somebody wants to know */
    balloon_get_stats(f->dev, &s);
    g_assert_cmpint(s.value[4], ==, 12345);
    g_assert_cmpint(s.value[5], ==, -1);
    g_assert_cmpint(s.value[0], ==, -1);
    g_assert_cmpint(s.updated_s, >, 0);
    driver_set(f->d, 0x14, 0, 1); /* reset: what was kept is forgotten */
    balloon_get_stats(f->dev, &s);
    g_assert_cmpint(s.value[4], ==, -1);
}

static void test_reports(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, VIRTIO_F(F_STATS) | VIRTIO_F(F_REPORTING), 4);
    memset(driver_mem(f->d, PAGES), 0xbb, 3 * 4096);
    driver_offer(f->d, REPORTS, (struct driver_buf[]){{PAGES + 100, 2 * 4096, true}}, 1);
    driver_kick(f->d, REPORTS);
    g_assert_true(driver_wait(f->d, REPORTS, NULL, NULL));
    g_assert_cmphex(*driver_mem(f->d, PAGES + 4095), ==, 0xbb); /* only whole pages */
    g_assert_cmphex(*driver_mem(f->d, PAGES + 4096), ==, 0);
    g_assert_cmphex(*driver_mem(f->d, PAGES + 2 * 4096), ==, 0xbb);
}

/* Pages that are no RAM do nothing; lists that cannot be break the device until it is reset. */
static void test_hostile(struct fixture *f, gconstpointer data)
{
    uint32_t nowhere[] = {UINT32_MAX, 0xfee00, 0x12345678};
    driver_start(f->d, 0, 2);
    send_list(f, INFLATE, nowhere, 3);
    g_assert_true(driver_wait(f->d, INFLATE, NULL, NULL));
    driver_offer(f->d, INFLATE, (struct driver_buf[]){{LIST, 7, false}}, 1);
    driver_kick(f->d, INFLATE);
    driver_turn(f->d, 20);
    g_assert_cmphex(driver_status(f->d) & VIRTIO_NEEDS_RESET, ==, VIRTIO_NEEDS_RESET);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add("/virtio-balloon/inflate", struct fixture, NULL, setup, test_inflate, teardown);
    g_test_add("/virtio-balloon/target", struct fixture, NULL, setup, test_target, teardown);
    g_test_add("/virtio-balloon/stats", struct fixture, NULL, setup, test_stats, teardown);
    g_test_add("/virtio-balloon/reports", struct fixture, NULL, setup, test_reports, teardown);
    g_test_add("/virtio-balloon/hostile", struct fixture, NULL, setup, test_hostile, teardown);
    return g_test_run();
}
