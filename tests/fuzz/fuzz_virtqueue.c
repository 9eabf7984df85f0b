/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fuzz target: guest memory full of anything, read as virtqueues. Chains that come out must lie in
 * RAM and within bounds.
 *
 * Input: one byte of options, one of the queue's size, then rounds: a byte of how much to do, and
 * bytes that are written over the rings' pages.
 */
#include "base/cursor.h"
#include "devices/virtio/virtqueue.h"

#include <stdlib.h>
#include <string.h>

#define RAM_BYTES (64u << 10)
#define RINGS 0x1000 /* descriptors, then 0x400 bytes on the driver's, then the device's area */
#define ROOM 40
#define MAX_ROUNDS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OPT_PACKED = 1, OPT_EVENT_IDX = 2, OPT_INDIRECT = 4, OPT_ODD = 8 };

static uint8_t ram[RAM_BYTES];
static struct mem_space *mem;
static struct mem_region ram_region, io_region;

static uint64_t io_read(void *opaque, uint64_t off, unsigned size)
{
    return 0;
}

static void io_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    abort(); /* DMA must never reach registers */
}

static const struct mem_ops io_ops = { .read = io_read, .write = io_write };

static void make_memory(void)
{
    if (mem)
        return;
    mem = mem_space_new("fuzz", 1ULL << 52);
    mem_region_init_ram(&ram_region, "ram", MEM_RAM, ram, RAM_BYTES, -1, 0);
    mem_region_init_io(&io_region, "io", &io_ops, NULL, 0x1000, NULL);
    if (!mem || mem_region_add(mem, &ram_region, 0, 0) ||
        mem_region_add(mem, &io_region, RAM_BYTES, 0))
        abort();
}

static void check(const struct vq_elem *e)
{
    uint64_t in = 0, out = 0;
    if (e->out_count + e->in_count > ROOM)
        abort();
    for (unsigned i = 0; i < e->out_count + e->in_count; i++) {
        const uint8_t *p = e->iov[i].iov_base;
        if (p < ram || p + e->iov[i].iov_len > ram + RAM_BYTES || p - ram != (ptrdiff_t)e->gpa[i] ||
            !e->iov[i].iov_len)
            abort();
        if (i < e->out_count)
            out += e->iov[i].iov_len;
        else
            in += e->iov[i].iov_len;
    }
    if (in != e->in_bytes || out != e->out_bytes)
        abort();
}

static void enable(struct vq *q, uint8_t options, uint8_t size)
{
    vq_reset(q);
    q->size = options & OPT_ODD ? size : 1u << (size % 6);
    q->desc_gpa = RINGS;
    q->driver_gpa = RINGS + 0x400;
    q->device_gpa = RINGS + 0x800;
    q->packed = options & OPT_PACKED;
    q->event_idx = options & OPT_EVENT_IDX;
    q->indirect = options & OPT_INDIRECT;
    vq_enable(q);
}

static void turn(struct vq *q, uint8_t work)
{
    struct iovec iov[ROOM];
    uint64_t gpa[ROOM];
    struct vq_elem e = { .iov = iov, .gpa = gpa, .room = ROOM };
    vq_notify_disable(q);
    for (unsigned n = work & 15; n && vq_pop(q, &e) > 0; n--) {
        uint8_t buf[64];
        check(&e);
        vq_copy_out(&e, work, buf, sizeof(buf));
        if (work & 16) {
            vq_unpop(q, &e);
            break;
        }
        if (!(work & 32)) { /* else it stays with the device */
            vq_copy_in(&e, work, "0123456789", 10);
            vq_push(q, &e, (uint32_t)e.in_bytes);
        }
    }
    vq_publish(q);
    vq_notify_enable(q);
    if (q->in_flight > q->size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cur c = cur_of(data, size);
    struct vq q;
    make_memory();
    memset(ram, 0, sizeof(ram));
    vq_init(&q, mem, 256);
    uint8_t options = cur_u8(&c), queue_size = cur_u8(&c);
    enable(&q, options, queue_size);
    for (unsigned round = 0; round < MAX_ROUNDS && c.left; round++) {
        uint8_t work = cur_u8(&c);
        uint16_t at = cur_le16(&c) & 0xfff, len = cur_u8(&c);
        const uint8_t *bytes = cur_take(&c, min_u64(len, c.left));
        if (bytes && at + len <= 0x1000)
            memcpy(ram + RINGS + at, bytes, min_u64(len, (uint64_t)(data + size - bytes)));
        turn(&q, work);
        if (q.why && (work & 64))
            enable(&q, options, queue_size);
    }
    return 0;
}
