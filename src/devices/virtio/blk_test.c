/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-blk-pci and the PCI transport from the driver's side. */
#include "base/scratch.h"
#include "devices/virtio/driver_testing.h"
#include "image/image.h"
#include "image/node.h"
#include "machine/backends.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/virtio_blk.h>
#include <string.h>
#include <unistd.h>

#define DISK (1u << 20)
#define HEADER DRIVER_DATA
#define STATUS (DRIVER_DATA + 0x100)
#define DATA (DRIVER_DATA + 0x1000)

struct fixture {
    struct driver *d;
    struct device *dev;
    struct context *ctx;
    struct graph *graph;
    struct image *image;
    char *path;
};

static void setup_with(struct fixture *f, const char *prop, const char *value)
{
    f->path = g_build_filename(g_get_tmp_dir(), "ruche-blk-XXXXXX", NULL);
    int fd = g_mkstemp(f->path);
    g_assert_cmpint(ftruncate(fd, DISK), ==, 0);
    close(fd);
    GError *error = NULL;
    f->ctx = context_new(&error);
    f->graph = graph_new(f->ctx);
    g_autoptr(JsonNode) extra = json_from_string("{\"discard\": \"unmap\"}", NULL);
    struct node *n = node_open_name(f->graph, f->path, "raw", json_node_get_object(extra), NODE_RW, &error);
    g_assert_no_error(error);
    f->image = image_new("disk0", n, &error);
    g_assert_no_error(error);
    node_unref(n);
    f->d = driver_new();
    g_assert_true(backend_add(&f->d->t->m, BACKEND_IMAGE, "disk0", f->image));
    f->dev = test_device(f->d->t, "virtio-blk-pci", "drive", "disk0", "serial", "bee-1", prop,
                         value, NULL);
    driver_bring_up(f->d, f->dev);
}

static void setup(struct fixture *f, gconstpointer data)
{
    setup_with(f, "num-queues", "2");
}

static void teardown(struct fixture *f, gconstpointer data)
{
    driver_free(f->d);
    image_close(f->image);
    graph_free(f->graph);
    context_free(f->ctx);
    g_unlink(f->path);
    g_free(f->path);
}

static void put_header(struct fixture *f, uint32_t type, uint64_t sector)
{
    struct virtio_blk_outhdr h = { .type = type, .sector = sector };
    memcpy(driver_mem(f->d, HEADER), &h, sizeof(h));
    *driver_mem(f->d, STATUS) = 0xee;
}

/* One request with its data in one buffer; the status. */
static uint8_t request(struct fixture *f, uint32_t type, uint64_t sector, uint32_t len, bool write)
{
    struct driver_buf b[] = { { HEADER, 16, false }, { DATA, len, write }, { STATUS, 1, true } };
    put_header(f, type, sector);
    if (len)
        driver_offer(f->d, 0, b, 3);
    else
        driver_offer(f->d, 0, (struct driver_buf[]){ b[0], b[2] }, 2);
    driver_kick(f->d, 0);
    g_assert_true(driver_wait(f->d, 0, NULL, NULL));
    return *driver_mem(f->d, STATUS);
}

static void test_transport(struct fixture *f, gconstpointer data)
{
    struct driver *d = f->d;
    uint8_t devfn = d->v->pci.devfn;
    g_assert_cmphex(pci_bus_config_read(d->bus, 0, devfn, 0, 4), ==, 0x10421af4);
    g_assert_cmpuint(driver_get(d, 0x12, 2), ==, 2);
    uint64_t features = driver_features(d);
    g_assert_true(features & VIRTIO_F(VIRTIO_F_VERSION_1));
    g_assert_true(features & VIRTIO_F(VIRTIO_F_EVENT_IDX));
    g_assert_false(features & VIRTIO_F(VIRTIO_F_PACKED));
    /* A feature that was not offered, and none at all: FEATURES_OK does not stay. */
    driver_set(d, 0x14, 3, 1);
    driver_set(d, 8, 1, 4);
    driver_set(d, 12, 1 | 4, 4);
    driver_set(d, 0x14, 11, 1);
    g_assert_cmphex(driver_status(d), ==, 3);
    driver_set(d, 12, 0, 4);
    driver_set(d, 0x14, 11, 1);
    g_assert_cmphex(driver_status(d), ==, 3);
    driver_set(d, 0x14, 7, 1); /* nor does DRIVER_OK without it */
    g_assert_cmphex(driver_status(d), ==, 3);
    /* A queue that is not there. */
    driver_set(d, 0x16, 2, 2);
    g_assert_cmpuint(driver_get(d, 0x18, 2), ==, 0);
    driver_set(d, 0x1c, 1, 2);
    g_assert_cmpuint(driver_get(d, 0x1c, 2), ==, 0);
    /* Halves of 64-bit fields. */
    driver_set(d, 0x16, 1, 2);
    driver_set(d, 0x24, 0x12345678, 4);
    driver_set(d, 0x20, 0x9abcdef0, 4);
    g_assert_cmphex(driver_get(d, 0x20, 8), ==, 0x123456789abcdef0);
    g_assert_cmphex(driver_get(d, 0x24, 4), ==, 0x12345678);
    /* Vectors: three are there. */
    driver_set(d, 0x10, 2, 2);
    g_assert_cmpuint(driver_get(d, 0x10, 2), ==, 2);
    driver_set(d, 0x10, 3, 2);
    g_assert_cmpuint(driver_get(d, 0x10, 2), ==, 0xffff);
    /* Every offset and width of the BAR, read and written: nothing happens that a test could not
     * survive. */
    for (unsigned off = 0; off < 0x4000; off += 1) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            mem_io_read(d->t->m.memory, DRIVER_BAR + off, size);
            mem_io_write(d->t->m.memory, DRIVER_BAR + off, UINT64_MAX, size);
        }
    }
    driver_set(d, 0x14, 0, 1);
    g_assert_cmphex(driver_status(d), ==, 0);
}

static void test_window(struct fixture *f, gconstpointer data)
{
    struct driver *d = f->d;
    uint8_t devfn = d->v->pci.devfn;
    unsigned w = d->window;
    pci_bus_config_write(d->bus, 0, devfn, w + 4, 1, 4);
    pci_bus_config_write(d->bus, 0, devfn, w + 8, 4, d->device);
    pci_bus_config_write(d->bus, 0, devfn, w + 12, 4, 4);
    g_assert_cmpuint(pci_bus_config_read(d->bus, 0, devfn, w + 16, 4), ==, DISK / 512);
    pci_bus_config_write(d->bus, 0, devfn, w + 8, 4, d->common + 0x14);
    pci_bus_config_write(d->bus, 0, devfn, w + 12, 4, 1);
    pci_bus_config_write(d->bus, 0, devfn, w + 16, 1, 1);
    g_assert_cmpuint(driver_status(d), ==, 1);
    pci_bus_config_write(d->bus, 0, devfn, w + 8, 4, 0xfffffffc);
    pci_bus_config_read(d->bus, 0, devfn, w + 16, 4);
    pci_bus_config_write(d->bus, 0, devfn, w + 12, 4, 0);
    pci_bus_config_read(d->bus, 0, devfn, w + 16, 4);
}

static void test_read_write(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, VIRTIO_F(VIRTIO_BLK_F_FLUSH), 2);
    g_assert_cmpuint(driver_config(f->d, 0, 8), ==, DISK / 512);
    uint8_t *mem = driver_mem(f->d, DATA);
    for (unsigned i = 0; i < 8192; i++)
        mem[i] = (uint8_t)(i * 13 + i / 256);
    g_autofree uint8_t *copy = g_memdup2(mem, 8192);
    unsigned before = f->d->interrupts;
    g_assert_cmpint(request(f, VIRTIO_BLK_T_OUT, 16, 8192, false), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpuint(f->d->interrupts, ==, before + 1);
    g_assert_cmphex(mem_io_read(f->d->t->m.memory, DRIVER_BAR + f->d->isr, 1), ==, 1);
    g_assert_cmpint(f->d->intx, ==, 0);
    memset(mem, 0, 8192);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_IN, 16, 8192, true), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpmem(mem, 8192, copy, 8192);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, false), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_GET_ID, 0, 20, true), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpstr((char *)mem, ==, "bee-1");
    int fd = open(f->path, O_RDONLY | O_CLOEXEC);
    uint8_t back[8192];
    g_assert_cmpint(pread(fd, back, 8192, 16 * 512), ==, 8192);
    g_assert_cmpmem(back, 8192, copy, 8192);
    close(fd);
}

/* Section 2.6.4.2: a driver may cut requests into buffers as it likes. */
static void test_framing(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, 0, 1);
    uint8_t *mem = driver_mem(f->d, DATA);
    struct virtio_blk_outhdr h = { .type = VIRTIO_BLK_T_OUT, .sector = 3 };
    memcpy(mem, &h, sizeof(h));
    memset(mem + 16, 0x77, 1024);
    driver_offer(f->d, 0,
                 (struct driver_buf[]){ { DATA, 5, false },
                                        { DATA + 5, 16, false },
                                        { DATA + 21, 1019, false },
                                        { STATUS, 1, true } },
                 4);
    driver_kick(f->d, 0);
    g_assert_true(driver_wait(f->d, 0, NULL, NULL));
    g_assert_cmpint(*driver_mem(f->d, STATUS), ==, VIRTIO_BLK_S_OK);
    put_header(f, VIRTIO_BLK_T_IN, 3);
    driver_offer(f->d, 0,
                 (struct driver_buf[]){
                     { HEADER, 16, false }, { DATA, 100, true }, { DATA + 100, 925, true } },
                 3);
    driver_kick(f->d, 0);
    uint32_t len;
    g_assert_true(driver_wait(f->d, 0, NULL, &len));
    g_assert_cmpuint(len, ==, 1025);
    g_assert_cmpint(mem[1024], ==, VIRTIO_BLK_S_OK);
    for (unsigned i = 0; i < 1024; i++)
        g_assert_cmphex(mem[i], ==, 0x77);
}

static void test_zeroes(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, VIRTIO_F(VIRTIO_BLK_F_DISCARD) | VIRTIO_F(VIRTIO_BLK_F_WRITE_ZEROES), 1);
    uint8_t *mem = driver_mem(f->d, DATA);
    memset(mem, 0xaa, 4096);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_OUT, 0, 4096, false), ==, VIRTIO_BLK_S_OK);
    struct virtio_blk_discard_write_zeroes r[2] = { { .sector = 1, .num_sectors = 2 },
                                                    { .sector = 5, .num_sectors = 1 } };
    memcpy(mem, r, sizeof(r));
    g_assert_cmpint(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, sizeof(r), false), ==,
                    VIRTIO_BLK_S_OK);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_IN, 0, 4096, true), ==, VIRTIO_BLK_S_OK);
    for (unsigned i = 0; i < 4096; i++) {
        unsigned sector = i / 512;
        g_assert_cmphex(mem[i], ==, sector == 1 || sector == 2 || sector == 5 ? 0 : 0xaa);
    }
    memcpy(mem, r, sizeof(r));
    g_assert_cmpint(request(f, VIRTIO_BLK_T_DISCARD, 0, sizeof(r), false), ==, VIRTIO_BLK_S_OK);
    r[0].flags = 1;
    memcpy(mem, r, sizeof(r));
    g_assert_cmpint(request(f, VIRTIO_BLK_T_DISCARD, 0, sizeof(r), false), ==, VIRTIO_BLK_S_UNSUPP);
    r[0].flags = 2;
    memcpy(mem, r, sizeof(r));
    g_assert_cmpint(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, sizeof(r), false), ==,
                    VIRTIO_BLK_S_UNSUPP);
    r[0] = (struct virtio_blk_discard_write_zeroes){ .sector = UINT64_MAX, .num_sectors = 1 };
    memcpy(mem, r, sizeof(r));
    g_assert_cmpint(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, sizeof(r), false), ==,
                    VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 15, false), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, false), ==, VIRTIO_BLK_S_IOERR);
}

static void test_bad_requests(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, 0, 1);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_IN, DISK / 512, 512, true), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_IN, UINT64_MAX, 512, true), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_IN, UINT64_MAX / 512, 512, true), ==,
                    VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_IN, DISK / 512 - 1, 1024, true), ==,
                    VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_OUT, 0, 100, false), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(request(f, 99, 0, 512, true), ==, VIRTIO_BLK_S_UNSUPP);
    /* not negotiated */
    g_assert_cmpint(request(f, VIRTIO_BLK_T_DISCARD, 0, 16, false), ==, VIRTIO_BLK_S_UNSUPP);
    /* A header that is cut. */
    driver_offer(f->d, 0, (struct driver_buf[]){ { HEADER, 8, false }, { STATUS, 1, true } }, 2);
    driver_kick(f->d, 0);
    g_assert_true(driver_wait(f->d, 0, NULL, NULL));
    g_assert_cmpint(*driver_mem(f->d, STATUS), ==, VIRTIO_BLK_S_IOERR);
    g_assert_false(f->dev->broken);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_IN, 0, 512, true), ==, VIRTIO_BLK_S_OK);
}

static void expect_broken_and_cure(struct fixture *f)
{
    driver_kick(f->d, 0);
    driver_turn(f->d, 3);
    g_assert_true(f->dev->broken);
    g_assert_cmphex(driver_status(f->d) & VIRTIO_NEEDS_RESET, !=, 0);
    g_assert_cmpstr(f->d->t->event, ==, "X_RUCHE_DEVICE_BROKEN");
    driver_start(f->d, 0, 1);
    g_assert_false(f->dev->broken);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_IN, 0, 512, true), ==, VIRTIO_BLK_S_OK);
}

static void test_broken(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, 0, 1);
    put_header(f, VIRTIO_BLK_T_IN, 0);
    driver_offer(f->d, 0, (struct driver_buf[]){ { HEADER, 16, false } }, 1);
    expect_broken_and_cure(f); /* no room for a status */
    driver_offer(f->d, 0,
                 (struct driver_buf[]){
                     { HEADER, 16, false }, { 0xfee00000, 512, true }, { STATUS, 1, true } },
                 3);
    expect_broken_and_cure(f); /* DMA to nothing */
    driver_offer(f->d, 0,
                 (struct driver_buf[]){
                     { HEADER, 16, false }, { DRIVER_BAR, 512, true }, { STATUS, 1, true } },
                 3);
    expect_broken_and_cure(f); /* to registers */
    driver_offer(f->d, 0, (struct driver_buf[]){ { HEADER, 16, false }, { DATA, 512, true } }, 2);
    struct vq_desc *table = (struct vq_desc *)(void *)driver_mem(f->d, f->d->q[0].base);
    table[(f->d->q[0].next_desc - 1) % DRIVER_QUEUE_SIZE].flags |= DESC_NEXT;
    table[(f->d->q[0].next_desc - 1) % DRIVER_QUEUE_SIZE].next =
        (f->d->q[0].next_desc - 1) % DRIVER_QUEUE_SIZE;
    expect_broken_and_cure(f); /* a loop */
    /* The ring itself on registers. */
    driver_set(f->d, 0x14, 0, 1);
    driver_set(f->d, 0x14, 3, 1);
    driver_set(f->d, 8, 1, 4);
    driver_set(f->d, 12, 1, 4);
    driver_set(f->d, 0x14, 11, 1);
    driver_set(f->d, 0x16, 0, 2);
    driver_set(f->d, 0x20, DRIVER_BAR, 8);
    driver_set(f->d, 0x1c, 1, 2);
    g_assert_cmpuint(driver_get(f->d, 0x1c, 2), ==, 0);
    expect_broken_and_cure(f);
}

/* Requests in flight while the driver resets: the status is 0 only when none of them can touch
 * memory any more. */
static void test_reset_in_flight(struct fixture *f, gconstpointer data)
{
    for (unsigned round = 0; round < 20; round++) {
        driver_start(f->d, 0, 1);
        put_header(f, VIRTIO_BLK_T_IN, 0);
        for (unsigned i = 0; i < 16; i++)
            driver_offer(f->d, 0,
                         (struct driver_buf[]){
                             { HEADER, 16, false }, { DATA, 0x10000, true }, { STATUS, 1, true } },
                         3);
        driver_kick(f->d, 0);
        loop_once(f->d->t->m.main_loop, 0);
        driver_set(f->d, 0x14, 0, 1);
        for (unsigned i = 0; i < 200 && driver_status(f->d); i++)
            loop_once(f->d->t->m.main_loop, 5);
        g_assert_cmphex(driver_status(f->d), ==, 0);
        g_assert_cmpuint(f->d->v->queue[0].held, ==, 0);
        memset(driver_mem(f->d, DATA), 0x5a, 0x10000);
        driver_turn(f->d, 2);
        g_assert_cmphex(*driver_mem(f->d, DATA + 77), ==, 0x5a);
    }
    /* The machine's reset waits by itself. */
    driver_start(f->d, 0, 1);
    put_header(f, VIRTIO_BLK_T_IN, 0);
    driver_offer(f->d, 0,
                 (struct driver_buf[]){
                     { HEADER, 16, false }, { DATA, 0x10000, true }, { STATUS, 1, true } },
                 3);
    driver_kick(f->d, 0);
    loop_once(f->d->t->m.main_loop, 0);
    device_reset(f->dev);
    g_assert_cmpuint(f->d->v->queue[0].held, ==, 0);
    driver_bring_up(f->d, f->dev);
    driver_start(f->d, 0, 1);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_IN, 0, 512, true), ==, VIRTIO_BLK_S_OK);
}

static void test_queue_reset(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, VIRTIO_F(VIRTIO_F_RESET), 1);
    for (unsigned round = 0; round < 5; round++) {
        g_assert_cmpint(request(f, VIRTIO_BLK_T_IN, 0, 512, true), ==, VIRTIO_BLK_S_OK);
        driver_offer(f->d, 0,
                     (struct driver_buf[]){
                         { HEADER, 16, false }, { DATA, 512, true }, { STATUS, 1, true } },
                     3);
        driver_kick(f->d, 0);
        loop_once(f->d->t->m.main_loop, 0);
        driver_set(f->d, 0x16, 0, 2);
        driver_set(f->d, 0x3a, 1, 2);
        g_assert_cmpuint(driver_get(f->d, 0x1c, 2), ==, 0);
        for (unsigned i = 0; i < 200 && driver_get(f->d, 0x3a, 2); i++)
            loop_once(f->d->t->m.main_loop, 5);
        g_assert_cmpuint(driver_get(f->d, 0x3a, 2), ==, 0);
        driver_setup_queue(f->d, 0, DRIVER_QUEUE_SIZE);
    }
    g_assert_cmpint(request(f, VIRTIO_BLK_T_IN, 0, 512, true), ==, VIRTIO_BLK_S_OK);
}

static void test_write_cache(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, VIRTIO_F(VIRTIO_BLK_F_FLUSH) | VIRTIO_F(VIRTIO_BLK_F_CONFIG_WCE), 1);
    g_assert_cmpuint(driver_config(f->d, offsetof(struct virtio_blk_config, wce), 1), ==, 1);
    driver_set_config(f->d, offsetof(struct virtio_blk_config, wce), 0xfe, 1);
    g_assert_cmpuint(driver_config(f->d, offsetof(struct virtio_blk_config, wce), 1), ==, 0);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_OUT, 0, 512, false), ==, VIRTIO_BLK_S_OK);
    driver_set_config(f->d, 0, 0, 8); /* the capacity is not the driver's */
    g_assert_cmpuint(driver_config(f->d, 0, 8), ==, DISK / 512);
}

/* Many requests in one go: one submission, few interrupts. */
static void test_batch(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, 0, 1);
    put_header(f, VIRTIO_BLK_T_IN, 0);
    unsigned done = 0, before = f->d->interrupts;
    for (unsigned i = 0; i < 20; i++)
        driver_offer(f->d, 0,
                     (struct driver_buf[]){ { HEADER, 16, false },
                                            { DATA + 512 * i, 512, true },
                                            { STATUS, 1, true } },
                     3);
    driver_kick(f->d, 0);
    while (driver_wait(f->d, 0, NULL, NULL))
        if (++done == 20)
            break;
    g_assert_cmpuint(done, ==, 20);
    g_assert_cmpuint(f->d->interrupts, <=, before + 2);
}

static void test_bus_master(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, 0, 1);
    uint8_t devfn = f->d->v->pci.devfn;
    pci_bus_config_write(f->d->bus, 0, devfn, 4, 2, 2);
    put_header(f, VIRTIO_BLK_T_IN, 0);
    driver_offer(
        f->d, 0,
        (struct driver_buf[]){ { HEADER, 16, false }, { DATA, 512, true }, { STATUS, 1, true } },
        3);
    driver_kick(f->d, 0);
    driver_turn(f->d, 5);
    g_assert_false(driver_poll(f->d, 0, NULL, NULL)); /* no DMA */
    pci_bus_config_write(f->d->bus, 0, devfn, 4, 2, 6);
    g_assert_true(driver_wait(f->d, 0, NULL, NULL));
}

/* --- MSI-X over an accelerator that sends messages by itself --- */

static struct {
    uint64_t addr;
    uint32_t data;
    int fd;
    unsigned added, updated, removed;
} route;

static int fake_irqfd_add(struct accel *a, uint64_t addr, uint32_t data, int fd)
{
    route.addr = addr;
    route.data = data;
    route.fd = fd;
    route.added++;
    return 5;
}

static int fake_irqfd_update(struct accel *a, int r, uint64_t addr, uint32_t data)
{
    g_assert_cmpint(r, ==, 5);
    route.data = data;
    route.updated++;
    return 0;
}

static void fake_irqfd_remove(struct accel *a, int r, int fd)
{
    g_assert_cmpint(r, ==, 5);
    g_assert_cmpint(fd, ==, route.fd);
    route.removed++;
}

static unsigned messages;

static void fake_msi(struct accel *a, uint64_t addr, uint32_t data)
{
    messages++;
}

static const struct accel_ops fake_ops = {
    .name = "fake", .irqfd_add = fake_irqfd_add, .irqfd_update = fake_irqfd_update,
    .irqfd_remove = fake_irqfd_remove, .msi = fake_msi,
};

#define TABLE 0xe1000000ULL

static unsigned find_msix(struct fixture *f)
{
    uint8_t devfn = f->d->v->pci.devfn;
    unsigned cap = pci_bus_config_read(f->d->bus, 0, devfn, 0x34, 1);
    while (cap && pci_bus_config_read(f->d->bus, 0, devfn, cap, 1) != 0x11)
        cap = pci_bus_config_read(f->d->bus, 0, devfn, cap + 1, 1);
    g_assert_cmpuint(cap, !=, 0);
    return cap;
}

static void test_irqfd(struct fixture *f, gconstpointer data)
{
    f->d->t->accel.ops = &fake_ops;
    device_free(f->dev);
    f->dev = test_device(f->d->t, "virtio-blk-pci", "drive", "disk0", "num-queues", "1", NULL);
    driver_bring_up(f->d, f->dev);
    driver_start(f->d, 0, 1);
    uint8_t devfn = f->d->v->pci.devfn;
    pci_bus_config_write(f->d->bus, 0, devfn, 0x14, 4, (uint32_t)TABLE);
    test_write32(f->d->t, TABLE + 16, 0xfee00000);
    test_write32(f->d->t, TABLE + 24, 0x41);
    test_write32(f->d->t, TABLE + 28, 0);
    g_assert_cmpuint(route.added, ==, 0);
    pci_bus_config_write(f->d->bus, 0, devfn, find_msix(f) + 2, 2, 0x8000);
    g_assert_cmpuint(route.added, ==, 1);
    g_assert_cmphex(route.addr, ==, 0xfee00000);
    g_assert_cmphex(route.data, ==, 0x41);
    driver_set(f->d, 0x16, 0, 2);
    driver_set(f->d, 0x1a, 1, 2);
    g_assert_cmpuint(driver_get(f->d, 0x1a, 2), ==, 1);
    uint64_t n = 0;
    g_assert_cmpint(request(f, VIRTIO_BLK_T_IN, 0, 512, true), ==, VIRTIO_BLK_S_OK);
    driver_turn(f->d, 1);
    g_assert_cmpint(read(route.fd, &n, sizeof(n)), ==, sizeof(n));
    g_assert_cmpuint(messages, ==, 0);
    test_write32(f->d->t, TABLE + 24, 0x42);
    g_assert_cmpuint(route.updated, ==, 1);
    g_assert_cmphex(route.data, ==, 0x42);
    /* Masked: the interrupt waits in its pending bit, and is sent when the mask goes. */
    test_write32(f->d->t, TABLE + 28, 1);
    g_assert_cmpuint(route.removed, ==, 1);
    g_assert_cmpint(request(f, VIRTIO_BLK_T_IN, 0, 512, true), ==, VIRTIO_BLK_S_OK);
    driver_turn(f->d, 1);
    g_assert_cmpuint(messages, ==, 0);
    test_write32(f->d->t, TABLE + 28, 0);
    g_assert_cmpuint(messages, ==, 1);
    g_assert_cmpuint(route.added, ==, 2);
    device_free(f->dev);
    g_assert_cmpuint(route.removed, ==, 2);
}

static void expect_refused(const char *prop, const char *value, const char *part)
{
    struct fixture f = { 0 };
    setup_with(&f, "vectors", "0");
    GError *error = NULL;
    struct device *d = device_new(&f.d->t->m, "virtio-blk", &error);
    g_assert_no_error(error);
    bool ok = device_set(d, prop, value, &error);
    if (ok && !device_realize(d, &error))
        d = NULL;
    g_assert_nonnull(error);
    if (!strstr(error->message, part))
        g_error("'%s' does not say '%s'", error->message, part);
    g_error_free(error);
    if (!ok)
        device_free(d);
    teardown(&f, NULL);
}

static void test_refused(void)
{
    expect_refused("share-rw", "off", "drive= is missing");
    expect_refused("drive", "disk1", "disk0");
    expect_refused("drive", "disk0", "already used by");
    expect_refused("queue-size", "2", "queue-size");
}

#define ADD(name, fn) g_test_add("/virtio/blk/" name, struct fixture, NULL, setup, fn, teardown)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-blk");
    ADD("transport", test_transport);
    ADD("window", test_window);
    ADD("read-write", test_read_write);
    ADD("framing", test_framing);
    ADD("zeroes", test_zeroes);
    ADD("bad-requests", test_bad_requests);
    ADD("broken", test_broken);
    ADD("reset-in-flight", test_reset_in_flight);
    ADD("queue-reset", test_queue_reset);
    ADD("write-cache", test_write_cache);
    ADD("batch", test_batch);
    ADD("bus-master", test_bus_master);
    ADD("irqfd", test_irqfd);
    g_test_add_func("/virtio/blk/refused", test_refused);
    return g_test_run();
}
