/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Virtqueues driven from the driver's side, in both formats: the normal life, and every way to
 * break them. */
#include "devices/virtio/vq_internal.h"

#include <glib.h>
#include <string.h>

#define RAM_BYTES (1u << 20)
#define MMIO_BASE (2u << 20)
#define DESC_AT 0x1000
#define DRIVER_AT 0x6000
#define DEVICE_AT 0x8000
#define INDIRECT_AT 0x10000
#define DATA_AT 0x40000
#define SIZE 8
#define ROOM 16

struct packed_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t id, flags;
};

struct fixture {
    struct mem_space *mem;
    struct mem_region ram, io;
    uint8_t *hva;
    struct vq q;
    struct vq_elem e;
    struct iovec iov[ROOM];
    uint64_t gpa[ROOM];
    bool packed;
    /* The driver's state. */
    uint16_t avail, used, slot, used_slot;
    bool avail_wrap, used_wrap;
};

static uint64_t io_read(void *opaque, uint64_t off, unsigned size)
{
    return 0;
}

static void io_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
}

static const struct mem_ops io_ops = { .read = io_read, .write = io_write };

static void enable(struct fixture *f, bool event_idx, uint16_t size)
{
    vq_reset(&f->q);
    memset(f->hva, 0, DATA_AT);
    f->q.size = size;
    f->q.desc_gpa = DESC_AT;
    f->q.driver_gpa = DRIVER_AT;
    f->q.device_gpa = DEVICE_AT;
    f->q.packed = f->packed;
    f->q.indirect = true;
    f->q.event_idx = event_idx;
    f->avail = f->used = f->slot = f->used_slot = 0;
    f->avail_wrap = f->used_wrap = true;
    g_assert_cmpint(vq_enable(&f->q), ==, 0);
}

static void setup(struct fixture *f, gconstpointer data)
{
    f->packed = data != NULL;
    f->mem = mem_space_new("test", 1ULL << 40);
    f->hva = g_malloc0(RAM_BYTES);
    mem_region_init_ram(&f->ram, "ram", MEM_RAM, f->hva, RAM_BYTES, -1, 0);
    mem_region_init_io(&f->io, "io", &io_ops, NULL, 0x1000, NULL);
    g_assert_cmpint(mem_region_add(f->mem, &f->ram, 0, 0), ==, 0);
    g_assert_cmpint(mem_region_add(f->mem, &f->io, MMIO_BASE, 0), ==, 0);
    vq_init(&f->q, f->mem, 256);
    f->e = (struct vq_elem){ .iov = f->iov, .gpa = f->gpa, .room = ROOM };
    enable(f, false, SIZE);
}

static void teardown(struct fixture *f, gconstpointer data)
{
    mem_region_remove(&f->ram);
    mem_region_remove(&f->io);
    mem_space_free(f->mem);
    g_free(f->hva);
}

/* --- the driver --- */

struct buf {
    uint64_t addr;
    uint32_t len;
    bool write;
};

static uint16_t *word(struct fixture *f, uint64_t at)
{
    return (uint16_t *)(void *)(f->hva + at);
}

static struct vq_desc *desc(struct fixture *f, unsigned n)
{
    return (struct vq_desc *)(void *)(f->hva + DESC_AT) + n;
}

static struct packed_desc *pdesc(struct fixture *f, unsigned n)
{
    return (struct packed_desc *)(void *)(f->hva + DESC_AT) + n;
}

static void offer_head(struct fixture *f, uint16_t head)
{
    *word(f, DRIVER_AT + 4 + 2 * (f->avail % f->q.size)) = head;
    __atomic_store_n(word(f, DRIVER_AT + 2), ++f->avail, __ATOMIC_RELEASE);
}

/* Puts a chain at descriptor `at` (split) or at the driver's slot with that id (packed). */
static void offer(struct fixture *f, uint16_t at, const struct buf *b, unsigned count)
{
    if (!f->packed) {
        for (unsigned i = 0; i < count; i++)
            *desc(f, at + i) =
                (struct vq_desc){ b[i].addr, b[i].len,
                                  (i + 1 < count ? DESC_NEXT : 0) | (b[i].write ? DESC_WRITE : 0),
                                  at + i + 1 };
        offer_head(f, at);
        return;
    }
    uint16_t first = f->slot, first_flags = 0;
    for (unsigned i = 0; i < count; i++) {
        uint16_t flags = (i + 1 < count ? DESC_NEXT : 0) | (b[i].write ? DESC_WRITE : 0) |
                         (f->avail_wrap ? 1 << 7 : 1 << 15);
        struct packed_desc *d = pdesc(f, f->slot);
        d->addr = b[i].addr;
        d->len = b[i].len;
        d->id = at;
        if (i)
            d->flags = flags;
        else
            first_flags = flags;
        if (++f->slot == f->q.size) {
            f->slot = 0;
            f->avail_wrap = !f->avail_wrap;
        }
    }
    __atomic_store_n(&pdesc(f, first)->flags, first_flags, __ATOMIC_RELEASE);
}

/* One descriptor that points to a table; `flags` are more of its flags. */
static void offer_indirect(struct fixture *f, uint16_t id, uint64_t table, uint32_t len,
                           uint16_t flags)
{
    flags |= DESC_INDIRECT;
    if (!f->packed) {
        *desc(f, id) = (struct vq_desc){ table, len, flags, 0 };
        offer_head(f, id);
        return;
    }
    *pdesc(f, f->slot) =
        (struct packed_desc){ table, len, id, flags | (f->avail_wrap ? 1 << 7 : 1 << 15) };
    if (++f->slot == f->q.size) {
        f->slot = 0;
        f->avail_wrap = !f->avail_wrap;
    }
}

/* The next used chain: true and its id and length. `slots`: what it took. */
static bool collect(struct fixture *f, unsigned slots, uint32_t *ret_id, uint32_t *ret_len)
{
    if (!f->packed) {
        if (*word(f, DEVICE_AT + 2) == f->used)
            return false;
        uint32_t *entry =
            (uint32_t *)(void *)(f->hva + DEVICE_AT + 4 + 8 * (f->used++ % f->q.size));
        *ret_id = entry[0];
        *ret_len = entry[1];
        return true;
    }
    struct packed_desc *d = pdesc(f, f->used_slot);
    bool avail = d->flags >> 7 & 1, used = d->flags >> 15;
    if (avail != used || used != f->used_wrap)
        return false;
    *ret_id = d->id;
    *ret_len = d->len;
    f->used_slot += slots;
    if (f->used_slot >= f->q.size) {
        f->used_slot -= f->q.size;
        f->used_wrap = !f->used_wrap;
    }
    return true;
}

/* --- the normal life --- */

static void test_chains(struct fixture *f, gconstpointer data)
{
    uint32_t id, len;
    g_assert_cmpint(vq_pop(&f->q, &f->e), ==, 0);
    for (unsigned round = 0; round < 1000; round++) { /* many times around */
        struct buf b[] = { { DATA_AT, 16, false },
                           { DATA_AT + 0x100 + round, 100, true },
                           { DATA_AT + 0x800, 1, true } };
        memset(f->hva + DATA_AT, round, 16);
        offer(f, round % 4, b, 3);
        g_assert_true(vq_has_avail(&f->q));
        g_assert_cmpint(vq_pop(&f->q, &f->e), ==, 1);
        g_assert_cmpuint(f->e.id, ==, round % 4);
        g_assert_cmpuint(f->e.out_count, ==, 1);
        g_assert_cmpuint(f->e.in_count, ==, 2);
        g_assert_cmpuint(f->e.out_bytes, ==, 16);
        g_assert_cmpuint(f->e.in_bytes, ==, 101);
        uint8_t head[32];
        g_assert_cmpuint(vq_copy_out(&f->e, 4, head, sizeof(head)), ==, 12);
        g_assert_cmpuint(head[0], ==, (uint8_t)round);
        memset(head, 0xab, 2);
        g_assert_cmpuint(vq_copy_in(&f->e, 99, head, 2), ==, 2);
        g_assert_cmpuint(f->hva[DATA_AT + 0x800], ==, 0xab);
        if (round % 3 == 0) {
            vq_unpop(&f->q, &f->e);
            g_assert_cmpint(vq_pop(&f->q, &f->e), ==, 1);
        }
        g_assert_cmpint(vq_pop(&f->q, &(struct vq_elem){ .room = 0 }), ==, 0);
        vq_push(&f->q, &f->e, 100);
        g_assert_true(vq_publish(&f->q));
        g_assert_true(collect(f, 3, &id, &len));
        g_assert_cmpuint(id, ==, round % 4);
        g_assert_cmpuint(len, ==, 100);
        g_assert_false(collect(f, 3, &id, &len));
    }
    g_assert_cmpuint(f->q.chains, ==, 1000);
    g_assert_cmpuint(f->q.in_flight, ==, 0);
}

static void test_out_of_order(struct fixture *f, gconstpointer data)
{
    struct vq_elem e[3];
    struct iovec iov[3][ROOM];
    uint64_t gpa[3][ROOM];
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < 3; i++) {
            struct buf b[] = { { DATA_AT + i * 64, 64, true }, { DATA_AT + 0x1000, 8, true } };
            offer(f, i * 2, b, 2);
            e[i] = (struct vq_elem){ .iov = iov[i], .gpa = gpa[i], .room = ROOM };
            g_assert_cmpint(vq_pop(&f->q, &e[i]), ==, 1);
        }
        static const unsigned order[] = { 2, 0, 1 };
        for (unsigned i = 0; i < 3; i++)
            vq_push(&f->q, &e[order[i]], order[i] + 1);
        g_assert_true(vq_publish(&f->q));
        for (unsigned i = 0; i < 3; i++) {
            uint32_t id, len;
            g_assert_true(collect(f, 2, &id, &len));
            g_assert_cmpuint(id, ==, order[i] * 2);
            g_assert_cmpuint(len, ==, order[i] + 1);
        }
    }
}

static void fill_table(struct fixture *f, unsigned count, uint64_t addr, bool next)
{
    for (unsigned i = 0; i < count; i++) {
        if (f->packed)
            ((struct packed_desc *)(void *)(f->hva + INDIRECT_AT))[i] =
                (struct packed_desc){ addr + i * 16, 16, 0, i == count - 1 ? DESC_WRITE : 0 };
        else
            ((struct vq_desc *)(void *)(f->hva + INDIRECT_AT))[i] = (struct vq_desc){
                addr + i * 16, 16,
                (i == count - 1 ? DESC_WRITE : 0) | (next && i < count - 1 ? DESC_NEXT : 0), i + 1
            };
    }
}

static void test_indirect(struct fixture *f, gconstpointer data)
{
    fill_table(f, 5, DATA_AT, true);
    for (unsigned round = 0; round < 100; round++) {
        uint32_t id, len;
        offer_indirect(f, round % SIZE, INDIRECT_AT, 5 * 16, 0);
        g_assert_cmpint(vq_pop(&f->q, &f->e), ==, 1);
        g_assert_cmpuint(f->e.out_count, ==, 4);
        g_assert_cmpuint(f->e.in_count, ==, 1);
        g_assert_cmpuint(f->e.slots, ==, 1);
        vq_push(&f->q, &f->e, 7);
        vq_publish(&f->q);
        g_assert_true(collect(f, 1, &id, &len));
        g_assert_cmpuint(id, ==, round % SIZE);
    }
    if (!f->packed) {
        /* Section 2.7.5.3.2: direct descriptors may stand before the indirect one. */
        *desc(f, 0) = (struct vq_desc){ DATA_AT + 0x900, 16, DESC_NEXT, 1 };
        *desc(f, 1) = (struct vq_desc){ INDIRECT_AT, 5 * 16, DESC_INDIRECT, 0 };
        offer_head(f, 0);
        g_assert_cmpint(vq_pop(&f->q, &f->e), ==, 1);
        g_assert_cmpuint(f->e.out_count, ==, 5);
    }
}

static void one(struct fixture *f)
{
    struct buf b = { DATA_AT, 16, true };
    offer(f, 0, &b, 1);
    g_assert_cmpint(vq_pop(&f->q, &f->e), ==, 1);
    vq_push(&f->q, &f->e, 16);
}

static void test_suppression(struct fixture *f, gconstpointer data)
{
    /* Flags. */
    *word(f, f->packed ? DRIVER_AT + 2 : DRIVER_AT) = 1;
    one(f);
    g_assert_false(vq_publish(&f->q));
    *word(f, f->packed ? DRIVER_AT + 2 : DRIVER_AT) = 0;
    one(f);
    g_assert_true(vq_publish(&f->q));
    g_assert_false(vq_publish(&f->q)); /* nothing new */
    vq_notify_disable(&f->q);
    g_assert_cmpuint(*word(f, f->packed ? DEVICE_AT + 2 : DEVICE_AT), ==, 1);
    struct buf b = { DATA_AT, 16, true };
    offer(f, 0, &b, 1);
    g_assert_true(vq_notify_enable(&f->q)); /* came meanwhile */
    g_assert_cmpuint(*word(f, f->packed ? DEVICE_AT + 2 : DEVICE_AT), ==, 0);
    g_assert_cmpuint(f->q.interrupts, ==, 1);
    g_assert_cmpuint(f->q.suppressed, ==, 1);
}

static void test_event_idx(struct fixture *f, gconstpointer data)
{
    enable(f, true, SIZE);
    if (f->packed)
        *word(f, DRIVER_AT + 2) = 2;
    for (unsigned n = 0; n < 100; n++) {
        /* The driver asks for the interrupt two chains ahead. */
        if (f->packed)
            *word(f, DRIVER_AT) = ((n + 1) % SIZE) | ((n + 1) / SIZE % 2 ? 0 : 1 << 15);
        else
            *word(f, DRIVER_AT + 4 + 2 * SIZE) = n + 1;
        one(f);
        g_assert_false(vq_publish(&f->q));
        n++;
        one(f);
        g_assert_true(vq_publish(&f->q));
        vq_notify_disable(&f->q);
        g_assert_false(vq_notify_enable(&f->q));
        uint16_t event = f->packed ? *word(f, DEVICE_AT) : *word(f, DEVICE_AT + 4 + 8 * SIZE);
        g_assert_cmpuint(event, ==,
                         f->packed ? ((n + 1) % SIZE) | ((n + 1) / SIZE % 2 ? 0 : 1 << 15) : n + 1);
    }
    /* A batch that passes the event, at 102 of 100 to 105. */
    if (f->packed)
        *word(f, DRIVER_AT) = (102 % SIZE) | (102 / SIZE % 2 ? 0 : 1 << 15);
    else
        *word(f, DRIVER_AT + 4 + 2 * SIZE) = 102;
    for (int i = 0; i < 5; i++)
        one(f);
    g_assert_true(vq_publish(&f->q));
}

static void expect_place(struct fixture *f, uint32_t place, unsigned in_flight)
{
    g_assert_cmpuint(vq_place(&f->q), ==, place);
    g_assert_cmpuint(f->q.in_flight, ==, in_flight);
}

/* Somebody else had the ring. */
static void test_place(struct fixture *f, gconstpointer data)
{
    for (unsigned turns = 0; turns < 3 * SIZE; turns++) {
        uint32_t at = turns % SIZE | (turns / SIZE % 2 ? 0 : 0x8000);
        uint32_t whole = f->packed ? at | at << 16 : turns, id, len;
        expect_place(f, whole, 0);
        g_assert_cmpint(vq_set_place(&f->q, &whole), ==, 0);
        expect_place(f, whole, 0);
        g_assert_cmpint(vq_set_place(&f->q, f->packed ? &at : &whole), ==, 0); /* the upper half lacks */
        expect_place(f, whole, 0);
        one(f);
        vq_publish(&f->q);
        g_assert_true(collect(f, 1, &id, &len));
    }
    struct buf b = { DATA_AT, 16, true };
    uint32_t before = vq_place(&f->q), far = f->packed ? SIZE : 3 * SIZE + SIZE + 1;
    offer(f, 0, &b, 1);
    g_assert_cmpint(vq_pop(&f->q, &f->e), ==, 1);
    uint32_t taken = vq_place(&f->q);
    g_assert_cmpuint(taken & 0xffff, ==, (before & 0xffff) + 1);
    g_assert_cmpint(vq_set_place(&f->q, &before), ==, 0);
    g_assert_cmpint(vq_set_place(&f->q, &taken), ==, 0);
    expect_place(f, taken, 1);
    g_assert_cmpint(vq_set_place(&f->q, &far), ==, -EBADMSG);
}

static void test_reset(struct fixture *f, gconstpointer data)
{
    struct buf b = { MMIO_BASE, 16, true };
    uint32_t generation = f->q.generation;
    offer(f, 0, &b, 1);
    g_assert_cmpint(vq_pop(&f->q, &f->e), ==, -EBADMSG);
    enable(f, false, SIZE);
    g_assert_cmpuint(f->q.generation, ==, generation + 1);
    test_chains(f, data);
}

/* --- broken rings --- */

static void expect_broken(struct fixture *f, const char *why)
{
    g_assert_cmpint(vq_pop(&f->q, &f->e), ==, -EBADMSG);
    if (!strstr(f->q.why, why))
        g_error("'%s' does not say '%s'", f->q.why, why);
    g_assert_cmpint(vq_pop(&f->q, &f->e), ==, -EBADMSG);
    g_assert_false(vq_has_avail(&f->q));
    g_assert_false(vq_publish(&f->q));
    g_assert_false(vq_notify_enable(&f->q));
    enable(f, false, SIZE);
    memset(f->hva + INDIRECT_AT, 0, DATA_AT - INDIRECT_AT);
}

static void test_bad_buffers(struct fixture *f, gconstpointer data)
{
    struct buf b[] = { { DATA_AT, 16, false }, { DATA_AT, 16, true } };
    static const struct {
        struct buf b;
        const char *why;
    } bad[] = {
        { { DATA_AT, 0, false }, "length zero" },
        { { MMIO_BASE, 16, false }, "not in RAM" },
        { { MMIO_BASE, 16, true }, "not in RAM" },
        { { 0x7fffffff000, 16, true }, "not in RAM" },
        { { RAM_BYTES - 8, 16, true }, "not in RAM" },
        { { UINT64_MAX - 7, 16, false }, "wraps" },
        { { DATA_AT, UINT32_MAX, false }, "not in RAM" },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        b[1] = bad[i].b;
        offer(f, 0, b, 2);
        expect_broken(f, bad[i].why);
    }
    struct buf swapped[] = { { DATA_AT, 16, true }, { DATA_AT, 16, false } };
    offer(f, 0, swapped, 2);
    expect_broken(f, "behind a writable one");
}

static void test_bad_indirect(struct fixture *f, gconstpointer data)
{
    offer_indirect(f, 0, INDIRECT_AT, 0, 0);
    expect_broken(f, "broken size");
    offer_indirect(f, 0, INDIRECT_AT, 17, 0);
    expect_broken(f, "broken size");
    offer_indirect(f, 0, MMIO_BASE, 16, 0);
    expect_broken(f, "not in RAM");
    offer_indirect(f, 0, RAM_BYTES - 16, 32, 0);
    expect_broken(f, "not in RAM");
    offer_indirect(f, 0, UINT64_MAX - 15, 32, 0);
    expect_broken(f, "not in RAM");
    offer_indirect(f, 0, INDIRECT_AT + 1, 16, 0);
    expect_broken(f, "not aligned");
    offer_indirect(f, 0, INDIRECT_AT, 16, DESC_NEXT);
    expect_broken(f, "where none may be");
    fill_table(f, 2, DATA_AT, true);
    if (f->packed)
        ((struct packed_desc *)(void *)(f->hva + INDIRECT_AT))->flags = DESC_INDIRECT;
    else
        ((struct vq_desc *)(void *)(f->hva + INDIRECT_AT))->flags = DESC_INDIRECT;
    offer_indirect(f, 0, INDIRECT_AT, 32, 0);
    expect_broken(f, "where none may be");
    fill_table(f, 5000, DATA_AT, true);
    offer_indirect(f, 0, INDIRECT_AT, 5000 * 16, 0);
    expect_broken(f, f->packed ? "too many buffers" : "longer than the queue");
    fill_table(f, 2, DATA_AT, true);
    f->q.indirect = false;
    offer_indirect(f, 0, INDIRECT_AT, 32, 0);
    expect_broken(f, "where none may be");
}

static void test_bad_split(struct fixture *f, gconstpointer data)
{
    offer_head(f, SIZE);
    expect_broken(f, "head index");
    *word(f, DRIVER_AT + 2) = SIZE + 1;
    expect_broken(f, "jumped");
    *word(f, DRIVER_AT + 2) = 0xffff;
    expect_broken(f, "jumped");
    *desc(f, 0) = (struct vq_desc){ DATA_AT, 16, DESC_NEXT, SIZE };
    offer_head(f, 0);
    expect_broken(f, "out of range");
    *desc(f, 0) = (struct vq_desc){ DATA_AT, 16, DESC_NEXT, 0 };
    offer_head(f, 0);
    expect_broken(f, "loop");
    for (unsigned i = 0; i < SIZE; i++)
        *desc(f, i) = (struct vq_desc){ DATA_AT, 16, DESC_NEXT, (i + 1) % SIZE };
    offer_head(f, 3);
    expect_broken(f, "loop");
    ((struct vq_desc *)(void *)(f->hva + INDIRECT_AT))[0] =
        (struct vq_desc){ DATA_AT, 16, DESC_NEXT, 1 };
    offer_indirect(f, 0, INDIRECT_AT, 16, 0);
    expect_broken(f, "out of range");
    ((struct vq_desc *)(void *)(f->hva + INDIRECT_AT))[0] =
        (struct vq_desc){ DATA_AT, 16, DESC_NEXT, 0 };
    offer_indirect(f, 0, INDIRECT_AT, 16, 0);
    expect_broken(f, "loop");
    /* The same chain offered again and again, never given back. */
    *desc(f, 0) = (struct vq_desc){ DATA_AT, 16, 0, 0 };
    for (unsigned i = 0; i < SIZE; i++) {
        offer_head(f, 0);
        g_assert_cmpint(vq_pop(&f->q, &f->e), ==, 1);
    }
    offer_head(f, 0);
    expect_broken(f, "in flight");
}

static void test_bad_packed(struct fixture *f, gconstpointer data)
{
    for (unsigned i = 0; i < SIZE; i++)
        *pdesc(f, i) = (struct packed_desc){ DATA_AT, 16, 0, DESC_NEXT | 1 << 7 };
    expect_broken(f, "longer than the free part");
    /* All slots taken; the ring's first descriptor is made available again without having been
     * used. */
    struct buf b = { DATA_AT, 16, true };
    for (unsigned i = 0; i < SIZE; i++) {
        offer(f, i, &b, 1);
        g_assert_cmpint(vq_pop(&f->q, &f->e), ==, 1);
    }
    offer(f, 0, &b, 1);
    expect_broken(f, "longer than the free part");
}

static void test_bad_ring(struct fixture *f, gconstpointer data)
{
    static const struct {
        uint64_t desc, driver, device;
        uint16_t size;
        const char *why;
    } bad[] = {
        { MMIO_BASE, DRIVER_AT, DEVICE_AT, 8, "not in RAM" },
        { DESC_AT, MMIO_BASE, DEVICE_AT, 8, "not in RAM" },
        { DESC_AT, DRIVER_AT, RAM_BYTES - 16, 256, "not in RAM" },
        { DESC_AT, DRIVER_AT, UINT64_MAX - 3, 8, "not in RAM" },
        { DESC_AT + 8, DRIVER_AT, DEVICE_AT, 8, "not aligned" },
        { DESC_AT, DRIVER_AT + 1, DEVICE_AT, 8, "not aligned" },
        { DESC_AT, DRIVER_AT, DEVICE_AT + 2, 8, "not aligned" },
        { DESC_AT, DRIVER_AT, DEVICE_AT, 0, "size" },
        { DESC_AT, DRIVER_AT, DEVICE_AT, 257, "size" },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        if (f->packed && i == 2)
            continue; /* four bytes fit there */
        vq_reset(&f->q);
        f->q.packed = f->packed;
        f->q.desc_gpa = bad[i].desc;
        f->q.driver_gpa = bad[i].driver;
        f->q.device_gpa = bad[i].device;
        f->q.size = bad[i].size;
        g_assert_cmpint(vq_enable(&f->q), ==, -EBADMSG);
        expect_broken(f, bad[i].why);
    }
}

/* A second thread scribbles over the ring while it is read: chains may be anything, but bounded and
 * in RAM. */
struct scribbler {
    struct fixture *f;
    int stop;
};

static gpointer scribble(gpointer data)
{
    struct scribbler *s = data;
    uint64_t seed = 88172645463325252ULL;
    uint32_t *ring = (uint32_t *)(void *)s->f->hva;
    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        uint32_t r = seed >> 32, value;
        unsigned at = seed >> 8 & 3 ? DESC_AT / 4 + (seed >> 10) % (4 * SIZE)
                                    : DRIVER_AT / 4 + (seed >> 10) % 6;
        if (at >= DRIVER_AT / 4)
            value = at == DRIVER_AT / 4 ? (r % (SIZE + 2)) << 16 : (r & 7) | (r & 0x700) << 8;
        else if (at % 4 == 0)
            value = DATA_AT + r % 4096;
        else if (at % 4 == 1)
            value = 0;
        else if (at % 4 == 2)
            value = r % 1000;
        else /* split: flags, next; packed: id, flags */
            value = s->f->packed ? (r & 7) | (r & 0x8083) << 16 : (r & 3) | (r & 0x70000);
        if (r % 13 == 0)
            value ^= 1u << (r >> 8) % 32;
        __atomic_store_n(&ring[at], value, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void test_rewritten(struct fixture *f, gconstpointer data)
{
    struct scribbler s = { .f = f };
    GThread *t = g_thread_new("scribbler", scribble, &s);
    unsigned popped = 0, broken = 0;
    /* As long as it takes on a busy host, where the other thread may not run for a while. */
    int64_t until = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
    while ((broken < 200 || popped < 200) && g_get_monotonic_time() < until) {
        int r = vq_pop(&f->q, &f->e);
        if (r < 0) {
            broken++;
            vq_reset(&f->q);
            f->q.desc_gpa = DESC_AT;
            f->q.driver_gpa = DRIVER_AT;
            f->q.device_gpa = DEVICE_AT;
            f->q.size = SIZE;
            f->q.packed = f->packed;
            f->q.indirect = f->q.event_idx = true;
            g_assert_cmpint(vq_enable(&f->q), ==, 0);
        } else if (r > 0) {
            popped++;
            unsigned n = f->e.out_count + f->e.in_count;
            g_assert_cmpuint(n, <=, ROOM);
            for (unsigned k = 0; k < n; k++) {
                const uint8_t *p = f->iov[k].iov_base;
                g_assert_true(p >= f->hva && p + f->iov[k].iov_len <= f->hva + RAM_BYTES);
            }
            vq_push(&f->q, &f->e, 1);
            vq_publish(&f->q);
        } else {
            g_thread_yield();
        }
    }
    __atomic_store_n(&s.stop, 1, __ATOMIC_RELAXED);
    g_thread_join(t);
    g_test_message("%u chains, %u times broken", popped, broken);
    g_assert_cmpuint(broken, >, 0);
    g_assert_cmpuint(popped, >, 0);
}

/* The driver in a thread of its own, with event indexes: every chain comes back once, in order, and
 * no wake-up is lost. */
struct driver {
    struct fixture *f;
    int kicks;      /* notifications sent */
    int interrupts; /* received */
};

enum { CHAINS = 20000 };

static uint16_t used_index(struct fixture *f)
{
    return __atomic_load_n(word(f, DEVICE_AT + 2), __ATOMIC_ACQUIRE);
}

static gpointer drive(gpointer data)
{
    struct driver *d = data;
    struct fixture *f = d->f;
    uint16_t done = 0;
    for (unsigned n = 0; n < CHAINS;) {
        uint16_t before = f->avail;
        while ((uint16_t)(f->avail - done) < SIZE && n < CHAINS) {
            struct vq_desc *e = desc(f, f->avail % SIZE);
            __atomic_store_n(&e->addr, DATA_AT, __ATOMIC_RELAXED);
            __atomic_store_n(&e->len, 16, __ATOMIC_RELAXED);
            __atomic_store_n(&e->flags, DESC_WRITE, __ATOMIC_RELAXED);
            __atomic_store_n(word(f, DRIVER_AT + 4 + 2 * (f->avail % SIZE)), f->avail % SIZE,
                             __ATOMIC_RELAXED);
            __atomic_store_n(word(f, DRIVER_AT + 2), ++f->avail, __ATOMIC_RELEASE);
            n++;
        }
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        uint16_t event = __atomic_load_n(word(f, DEVICE_AT + 4 + 8 * SIZE), __ATOMIC_RELAXED);
        if (vq_passed(event, f->avail, before))
            __atomic_fetch_add(&d->kicks, 1, __ATOMIC_SEQ_CST);
        /* Sleep until the next one is used. */
        __atomic_store_n(word(f, DRIVER_AT + 4 + 2 * SIZE), done, __ATOMIC_RELAXED);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        int64_t until = g_get_monotonic_time() + 10 * G_USEC_PER_SEC;
        while (used_index(f) == done && !__atomic_exchange_n(&d->interrupts, 0, __ATOMIC_SEQ_CST)) {
            g_assert_cmpint(g_get_monotonic_time(), <, until);
            g_thread_yield();
        }
        done = used_index(f);
    }
    return NULL;
}

static void test_wakeups(struct fixture *f, gconstpointer data)
{
    enable(f, true, SIZE);
    struct driver d = { .f = f };
    GThread *t = g_thread_new("driver", drive, &d);
    int64_t until = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
    while (f->q.chains < CHAINS) {
        /* Asleep until notified. */
        while (!__atomic_exchange_n(&d.kicks, 0, __ATOMIC_SEQ_CST)) {
            g_assert_cmpint(g_get_monotonic_time(), <, until);
            g_thread_yield();
        }
        do {
            while (vq_pop(&f->q, &f->e) == 1)
                vq_push(&f->q, &f->e, 16);
            if (vq_publish(&f->q))
                __atomic_store_n(&d.interrupts, 1, __ATOMIC_SEQ_CST);
        } while (vq_notify_enable(&f->q));
    }
    g_thread_join(t);
    g_assert_cmpuint(used_index(f), ==, (uint16_t)CHAINS);
}

#define BOTH(name, fn)                                                                             \
    do {                                                                                           \
        g_test_add("/virtqueue/split/" name, struct fixture, NULL, setup, fn, teardown);           \
        g_test_add("/virtqueue/packed/" name, struct fixture, "packed", setup, fn, teardown);      \
    } while (0)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    BOTH("chains", test_chains);
    BOTH("out-of-order", test_out_of_order);
    BOTH("indirect", test_indirect);
    BOTH("suppression", test_suppression);
    BOTH("event-idx", test_event_idx);
    BOTH("place", test_place);
    BOTH("reset", test_reset);
    BOTH("bad-buffers", test_bad_buffers);
    BOTH("bad-indirect", test_bad_indirect);
    BOTH("bad-ring", test_bad_ring);
    BOTH("rewritten", test_rewritten);
    g_test_add("/virtqueue/split/bad", struct fixture, NULL, setup, test_bad_split, teardown);
    g_test_add("/virtqueue/packed/bad", struct fixture, "packed", setup, test_bad_packed, teardown);
    g_test_add("/virtqueue/split/wakeups", struct fixture, NULL, setup, test_wakeups, teardown);
    return g_test_run();
}
