/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtqueue: what both ring formats share: enabling, mapping buffers, copies. The formats are in
 * vq_split.c and vq_packed.c.
 *
 * Spec      VIRTIO 1.2, section 2.6.
 * Thread    Under the device's lock.
 * Trust     See virtqueue.h.
 */
#include "devices/virtio/vq_internal.h"
#include "base/fence.h"

#include <string.h>

void vq_init(struct vq *q, struct mem_space *mem, uint16_t max_size)
{
    *q = (struct vq){ .mem = mem, .max_size = max_size };
    vq_reset(q);
}

void vq_reset(struct vq *q)
{
    struct vq keep = *q;
    *q = (struct vq){
        .mem = keep.mem,
        .max_size = keep.max_size,
        .size = keep.max_size,
        .vector = VQ_NO_VECTOR,
        .generation = keep.generation + 1,
        .held = keep.held,
        .chains = keep.chains,
        .interrupts = keep.interrupts,
        .suppressed = keep.suppressed,
        .kicks = keep.kicks,
        .avail_wrap = true,
        .used_wrap = true,
    };
}

int vq_fail(struct vq *q, const char *why)
{
    if (!q->why)
        q->why = why;
    return -EBADMSG;
}

void *vq_map_whole(struct vq *q, uint64_t gpa, uint64_t len, bool write)
{
    uint64_t got = 0;
    if (gpa + len < gpa)
        return NULL;
    void *p = mem_ram(q->mem, gpa, len, write, &got);
    return p && got >= len ? p : NULL;
}

int vq_enable(struct vq *q)
{
    bool fits = q->size && q->size <= q->max_size && (q->packed || is_power_of_2(q->size));
    if (!fits)
        return vq_fail(q, "the queue's size is not possible");
    struct {
        uint64_t gpa, len, align;
        void **to;
    } area[] = {
        { q->desc_gpa, 16ULL * q->size, 16, &q->desc },
        { q->driver_gpa, q->packed ? 4 : 6 + 2ULL * q->size, q->packed ? 4 : 2, &q->driver },
        { q->device_gpa, q->packed ? 4 : 6 + 8ULL * q->size, 4, &q->device },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(area); i++) {
        if (area[i].gpa % area[i].align)
            return vq_fail(q, "a part of the ring is not aligned");
        *area[i].to = vq_map_whole(q, area[i].gpa, area[i].len, true);
        if (!*area[i].to)
            return vq_fail(q, "a part of the ring is not in RAM");
    }
    q->enabled = true;
    return 0;
}

void vq_save(struct vq *q)
{
    q->was_enabled = q->enabled;
    q->was_broken = q->why != NULL;
}

int vq_restore(struct vq *q)
{
    bool enabled = q->was_enabled, broken = q->was_broken;
    q->was_enabled = q->was_broken = q->enabled = false;
    q->added = 0;
    q->why = NULL;
    if (!enabled)
        return 0;
    if (q->in_flight > q->size || (q->packed && (q->next_avail >= q->size || q->next_used >= q->size)))
        return vq_fail(q, "its place in the ring is outside of it");
    int err = vq_enable(q);
    if (!err && broken)
        q->why = "it was broken when the state was saved";
    return err;
}

uint32_t vq_place(const struct vq *q)
{
    return q->packed ? vq_packed_place(q) : q->next_avail;
}

int vq_set_place(struct vq *q, const uint32_t *place)
{
    if (q->why || !q->enabled)
        return 0;
    q->added = 0;
    q->notify_off = false;
    if (q->packed)
        return place ? vq_packed_set_place(q, *place) : vq_fail(q, "who had the ring is gone, and its place with it");
    uint16_t used = vq_split_used(q);
    q->next_used = used;
    q->next_avail = place ? (uint16_t)*place : used;
    q->in_flight = (uint16_t)(q->next_avail - used);
    return q->in_flight <= q->size ? 0 : vq_fail(q, "its place in the ring is outside of it");
}

/* One buffer of a chain. Guest-contiguous memory may be several pieces in the host. */
int vq_add_buffer(struct vq *q, struct vq_elem *e, uint64_t gpa, uint32_t len, bool write)
{
    if (!len)
        return vq_fail(q, "a buffer of length zero");
    if (!write && e->in_count)
        return vq_fail(q, "a readable buffer behind a writable one");
    if (gpa + len < gpa)
        return vq_fail(q, "a buffer wraps around the address space");
    for (uint64_t left = len; left;) {
        unsigned n = e->out_count + e->in_count;
        uint64_t got = 0;
        if (n >= e->room)
            return vq_fail(q, "a chain with too many buffers");
        void *p = mem_ram(q->mem, gpa, left, write, &got);
        if (!p || !got)
            return vq_fail(q, "a buffer is not in RAM");
        got = min_u64(got, left);
        e->iov[n] = (struct iovec){ p, got };
        e->gpa[n] = gpa;
        gpa += got;
        left -= got;
        if (write)
            e->in_count++;
        else
            e->out_count++;
    }
    if (write)
        e->in_bytes += len;
    else
        e->out_bytes += len;
    return 0;
}

int vq_pop(struct vq *q, struct vq_elem *e)
{
    if (q->why)
        return -EBADMSG;
    if (!q->enabled)
        return 0;
    e->out_count = e->in_count = e->slots = 0;
    e->out_bytes = e->in_bytes = 0;
    int r = q->packed ? vq_packed_pop(q, e) : vq_split_pop(q, e);
    if (r > 0)
        q->chains++;
    return r;
}

void vq_unpop(struct vq *q, const struct vq_elem *e)
{
    q->in_flight -= e->slots;
    q->chains--;
    if (!q->packed) {
        q->next_avail--;
        return;
    }
    if (q->next_avail < e->slots) {
        q->next_avail += q->size;
        q->avail_wrap = !q->avail_wrap;
    }
    q->next_avail -= e->slots;
}

void vq_push(struct vq *q, const struct vq_elem *e, uint32_t len)
{
    if (q->why || !q->enabled)
        return;
    uint32_t left = len;
    for (unsigned i = e->out_count; i < e->out_count + e->in_count && left; i++) {
        uint32_t n = min_u64(left, e->iov[i].iov_len);
        mem_written(q->mem, e->gpa[i], n);
        left -= n;
    }
    if (q->packed)
        vq_packed_push(q, e, len);
    else
        vq_split_push(q, e, len);
    q->in_flight -= e->slots;
}

bool vq_publish(struct vq *q)
{
    if (!q->added || q->why || !q->enabled)
        return false;
    bool wanted = q->packed ? vq_packed_publish(q) : vq_split_publish(q);
    q->added = 0;
    if (wanted)
        q->interrupts++;
    else
        q->suppressed++;
    return wanted;
}

bool vq_has_avail(struct vq *q)
{
    if (q->why || !q->enabled)
        return false;
    return q->packed ? vq_packed_has_avail(q) : vq_split_has_avail(q);
}

void vq_notify_disable(struct vq *q)
{
    if (q->why || !q->enabled || q->notify_off)
        return;
    q->notify_off = true;
    if (q->packed)
        vq_packed_notify(q, false);
    else
        vq_split_notify(q, false);
}

bool vq_notify_enable(struct vq *q)
{
    if (q->why || !q->enabled)
        return false;
    q->notify_off = false;
    if (q->packed)
        vq_packed_notify(q, true);
    else
        vq_split_notify(q, true);
    fence_guest(); /* the wish is out before the last look */
    return vq_has_avail(q);
}

static size_t copy(const struct iovec *iov, unsigned count, size_t skip, void *buf, size_t len,
                   bool to_chain)
{
    size_t done = 0;
    for (unsigned i = 0; i < count && done < len; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t n = min_u64(len - done, iov[i].iov_len - skip);
        uint8_t *p = (uint8_t *)iov[i].iov_base + skip;
        if (to_chain)
            memcpy(p, (uint8_t *)buf + done, n);
        else
            memcpy((uint8_t *)buf + done, p, n);
        done += n;
        skip = 0;
    }
    return done;
}

size_t vq_copy_out(const struct vq_elem *e, size_t skip, void *to, size_t len)
{
    return copy(e->iov, e->out_count, skip, to, len, false);
}

size_t vq_copy_in(const struct vq_elem *e, size_t skip, const void *from, size_t len)
{
    return copy(vq_in(e), e->in_count, skip, (void *)(uintptr_t)from, len, true);
}
