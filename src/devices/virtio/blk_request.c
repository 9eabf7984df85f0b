/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests of virtio-blk: from a queue to the image, and their end.
 *
 * Data goes straight between the image and guest memory. Requests that one notification brought
 * reach the kernel together, and those that ended together make one interrupt.
 *
 * Spec      VIRTIO 1.2, section 5.2.6.
 * Thread    The home loop, with the device's lock but where noted.
 * Trust     Headers, sectors, lengths and framing are the guest's: a request that makes no sense
 *           ends with an error status; one without room for a status breaks the device.
 * Memory    Requests are made when first needed, at most one for each slot of the queues, and kept.
 */
#include "devices/virtio/blk.h"

#include <errno.h>
#include <string.h>

#define ID_BYTES 20

_Static_assert(VBLK_MAX_QUEUES <= 64, "touched has a bit for each queue");

/* --- requests --- */

struct vblk_request *vblk_request_get(struct vblk *s)
{
    struct vblk_request *r = s->free_list;
    if (r) {
        s->free_list = r->next;
        return r;
    }
    if (s->request_count >= s->request_max)
        return NULL;
    r = g_try_new(struct vblk_request, 1);
    if (!r)
        return NULL;
    s->request_count++;
    r->s = s;
    r->e = (struct vq_elem){ .iov = r->iov, .gpa = r->gpa, .room = VBLK_ROOM };
    return r;
}

void vblk_request_put(struct vblk *s, struct vblk_request *r)
{
    r->next = s->free_list;
    s->free_list = r;
}

/* Takes the status byte off the end of the writable part; finish() gives it back. */
static bool take_status(struct vblk_request *r)
{
    struct vq_elem *e = &r->e;
    if (!e->in_count)
        return false;
    struct iovec *last = &vq_in(e)[e->in_count - 1];
    r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    last->iov_len--;
    return true;
}

/* The chain goes back to the driver. */
static void finish(struct vblk *s, struct vblk_request *r, uint8_t status)
{
    struct vq *q = &s->v.queue[r->queue];
    if (r->generation == q->generation) {
        struct iovec *last = &vq_in(&r->e)[r->e.in_count - 1];
        last->iov_len++;
        *r->status = status;
        s->errors += status != VIRTIO_BLK_S_OK;
        vq_push(q, &r->e, (uint32_t)min_u64(r->e.in_bytes, UINT32_MAX));
        s->touched |= 1ULL << r->queue;
    }
    vblk_request_put(s, r);
}

static uint8_t status_of(int result)
{
    if (!result)
        return VIRTIO_BLK_S_OK;
    return result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

static void publish(struct vblk *s)
{
    for (uint64_t left = s->touched; left; left &= left - 1)
        virtio_publish(&s->v, __builtin_ctzll(left));
    s->touched = 0;
}

static void submit(struct vblk *s, struct vblk_request *r);
static bool next_range(struct vblk *s, struct vblk_request *r);

/* Home loop, without the lock. */
static void request_done(struct image_request *ir, int result)
{
    struct vblk_request *r = container_of(ir, struct vblk_request, image);
    struct vblk *s = r->s;
    pthread_mutex_lock(&s->pci.dev.lock);
    if (!result && r->generation == s->v.queue[r->queue].generation && next_range(s, r)) {
        submit(s, r);
    } else {
        unsigned queue = r->queue;
        finish(s, r, status_of(result));
        virtio_unhold(&s->v, queue);
    }
    pthread_mutex_unlock(&s->pci.dev.lock);
}

void vblk_batch_done(void *opaque)
{
    struct vblk *s = opaque;
    pthread_mutex_lock(&s->pci.dev.lock);
    publish(s);
    for (; s->hungry; s->hungry &= s->hungry - 1)
        virtio_kick(&s->v, __builtin_ctzll(s->hungry));
    pthread_mutex_unlock(&s->pci.dev.lock);
}

static void submit(struct vblk *s, struct vblk_request *r)
{
    r->image.done = request_done;
    image_submit(s->image, &r->image);
}

/* Is it in the disk? The image says the rest. */
static bool sectors_fit(const struct vblk *s, uint64_t sector, uint64_t bytes)
{
    return sector <= s->info.size_bytes / VBLK_SECTOR &&
           range_fits(sector * VBLK_SECTOR, bytes, s->info.size_bytes) &&
           bytes % s->logical_block_size == 0 && sector * VBLK_SECTOR % s->logical_block_size == 0;
}

/* --- kinds of requests: VIRTIO_BLK_S_OK and submitted, or the status to end with --- */

enum outcome { SUBMITTED = -1 }; /* or a status */

static int start_transfer(struct vblk *s, struct vblk_request *r, uint64_t sector, bool write)
{
    struct vq_elem *e = &r->e;
    const struct iovec *iov = write ? e->iov : vq_in(e);
    unsigned count = write ? e->out_count : e->in_count;
    uint64_t bytes = write ? e->out_bytes : e->in_bytes - 1;
    if (count && !write && !vq_in(e)[count - 1].iov_len)
        count--; /* the status had a buffer of its own */
    while (count && !iov->iov_len) { /* so had the header */
        iov++;
        count--;
    }
    if (!sectors_fit(s, sector, bytes))
        return VIRTIO_BLK_S_IOERR;
    if (write)
        s->writes++;
    else
        s->reads++;
    r->image = (struct image_request){
        .op = write ? IMAGE_WRITE : IMAGE_READ, .offset = sector * VBLK_SECTOR, .len = bytes,
        .iov = iov, .iov_count = count,
        .fua = write && !s->v.config[offsetof(struct virtio_blk_config, wce)],
    };
    submit(s, r);
    return SUBMITTED;
}

static int start_read(struct vblk *s, struct vblk_request *r, uint64_t sector)
{
    return start_transfer(s, r, sector, false);
}

static int start_write(struct vblk *s, struct vblk_request *r, uint64_t sector)
{
    return s->info.read_only ? VIRTIO_BLK_S_IOERR : start_transfer(s, r, sector, true);
}

static int start_flush(struct vblk *s, struct vblk_request *r, uint64_t sector)
{
    s->flushes++;
    r->image = (struct image_request){ .op = IMAGE_FLUSH };
    submit(s, r);
    return SUBMITTED;
}

static int get_id(struct vblk *s, struct vblk_request *r, uint64_t sector)
{
    char id[ID_BYTES] = { 0 };
    if (s->serial)
        memcpy(id, s->serial, min_u64(strlen(s->serial), ID_BYTES));
    s->others++;
    if (r->e.in_bytes < 2)
        return VIRTIO_BLK_S_IOERR;
    vq_copy_in(&r->e, 0, id, min_u64(ID_BYTES, r->e.in_bytes - 1));
    return VIRTIO_BLK_S_OK;
}

/* Prepares the request for the next range of a discard. False: there is none. */
static bool next_range(struct vblk *s, struct vblk_request *r)
{
    while (r->range_at < r->range_count) {
        const struct virtio_blk_discard_write_zeroes *g = &r->range[r->range_at++];
        if (!g->num_sectors)
            continue;
        r->image.offset = g->sector * VBLK_SECTOR;
        r->image.len = (uint64_t)g->num_sectors * VBLK_SECTOR;
        r->image.may_unmap = g->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
        return true;
    }
    return false;
}

static int start_ranges(struct vblk *s, struct vblk_request *r, enum image_op op, uint32_t flags,
                        unsigned feature)
{
    uint64_t bytes = r->e.out_bytes;
    if (!virtio_has(&s->v, feature))
        return VIRTIO_BLK_S_UNSUPP;
    if (!bytes || bytes % sizeof(r->range[0]) || bytes > sizeof(r->range) || s->info.read_only)
        return VIRTIO_BLK_S_IOERR;
    vq_copy_out(&r->e, 0, r->range, bytes);
    unsigned count = (unsigned)(bytes / sizeof(r->range[0]));
    for (unsigned i = 0; i < count; i++) {
        const struct virtio_blk_discard_write_zeroes *g = &r->range[i];
        if (g->flags & ~flags)
            return VIRTIO_BLK_S_UNSUPP;
        if (g->num_sectors > VBLK_MAX_RANGE_SECTORS ||
            !sectors_fit(s, g->sector, (uint64_t)g->num_sectors * VBLK_SECTOR))
            return VIRTIO_BLK_S_IOERR;
    }
    s->discards++;
    r->range_count = (uint16_t)count;
    r->image = (struct image_request){ .op = op };
    if (!next_range(s, r))
        return VIRTIO_BLK_S_OK;
    submit(s, r);
    return SUBMITTED;
}

static int start_discard(struct vblk *s, struct vblk_request *r, uint64_t sector)
{
    return start_ranges(s, r, IMAGE_DISCARD, 0, VIRTIO_BLK_F_DISCARD);
}

static int start_write_zeroes(struct vblk *s, struct vblk_request *r, uint64_t sector)
{
    return start_ranges(s, r, IMAGE_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
                        VIRTIO_BLK_F_WRITE_ZEROES);
}

static const struct {
    uint32_t type;
    int (*start)(struct vblk *s, struct vblk_request *r, uint64_t sector);
} kinds[] = {
    { VIRTIO_BLK_T_IN, start_read },
    { VIRTIO_BLK_T_OUT, start_write },
    { VIRTIO_BLK_T_FLUSH, start_flush },
    { VIRTIO_BLK_T_GET_ID, get_id },
    { VIRTIO_BLK_T_DISCARD, start_discard },
    { VIRTIO_BLK_T_WRITE_ZEROES, start_write_zeroes },
};

/* Cuts the header off the front of the readable part. */
static void drop_header(struct vblk_request *r)
{
    struct vq_elem *e = &r->e;
    size_t len = VBLK_HEADER_BYTES;
    e->out_bytes -= len;
    for (unsigned i = 0; i < e->out_count && len; i++) {
        size_t n = min_u64(len, e->iov[i].iov_len);
        e->iov[i].iov_base = (uint8_t *)e->iov[i].iov_base + n;
        e->iov[i].iov_len -= n;
        r->cut[i] = (uint8_t)n;
        len -= n;
    }
}

static void start(struct vblk *s, struct vblk_request *r)
{
    struct virtio_blk_outhdr h;
    if (!take_status(r)) {
        virtio_broken(&s->v, "a disk request without room for its status");
        vblk_request_put(s, r);
        return;
    }
    int status = VIRTIO_BLK_S_IOERR;
    r->range_count = r->range_at = 0;
    memset(r->cut, 0, sizeof(r->cut));
    if (vq_copy_out(&r->e, 0, &h, sizeof(h)) == sizeof(h)) {
        drop_header(r);
        status = VIRTIO_BLK_S_UNSUPP;
        for (size_t i = 0; i < ARRAY_COUNT(kinds); i++) {
            if (kinds[i].type == h.type)
                status = kinds[i].start(s, r, h.sector);
        }
    }
    if (status == SUBMITTED)
        virtio_hold(&s->v, r->queue);
    else
        finish(s, r, (uint8_t)status);
}

/* What was kept when the state was saved goes before what is new. */
static void start_kept(struct vblk *s)
{
    for (struct vblk_request *r; (r = s->kept);) {
        s->kept = r->next;
        start(s, r);
    }
}

/* One queue's worth of chains at most: others get their turn. */
void vblk_handle(struct virtio *v, unsigned queue)
{
    struct vblk *s = container_of(v, struct vblk, v);
    struct vq *q = &v->queue[queue];
    unsigned budget = q->size;
    image_plug(s->image);
    start_kept(s);
    vq_notify_disable(q);
    do {
        while (budget && virtio_running(v)) {
            struct vblk_request *r = vblk_request_get(s);
            if (!r) {
                s->starved++;
                s->hungry |= 1ULL << queue;
                goto out; /* vblk_batch_done() comes back */
            }
            if (!virtio_pop(v, queue, &r->e)) {
                vblk_request_put(s, r);
                break;
            }
            r->queue = (uint16_t)queue;
            r->generation = q->generation;
            budget--;
            start(s, r);
        }
    } while (budget && virtio_running(v) && vq_notify_enable(q));
    if (!budget)
        virtio_kick(v, queue);
out:
    image_unplug(s->image);
    publish(s);
}

void vblk_drain(struct virtio *v)
{
    struct vblk *s = container_of(v, struct vblk, v);
    if (s->image)
        image_drain(s->image);
    vblk_batch_done(s);
}
