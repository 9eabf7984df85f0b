/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Packed virtqueues: one ring of descriptors that both sides write, with wrap counters in place of
 * indexes.
 *
 * Spec      VIRTIO 1.2, section 2.8.
 * Thread    Under the device's lock.
 * Trust     See virtqueue.h.
 */
#include "base/fence.h"
#include "devices/virtio/vq_internal.h"

struct packed_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t id, flags;
};

struct packed_event {
    uint16_t off_wrap, flags;
};

enum { DESC_AVAIL = 1 << 7, DESC_USED = 1 << 15 };
enum { EVENT_ENABLE = 0, EVENT_DISABLE = 1, EVENT_DESC = 2 };

static bool is_avail(uint16_t flags, bool wrap)
{
    return !!(flags & DESC_AVAIL) == wrap && !!(flags & DESC_USED) != wrap;
}

bool vq_packed_has_avail(struct vq *q)
{
    const struct packed_desc *ring = q->desc;
    return is_avail(guest_load(&ring[q->next_avail].flags), q->avail_wrap);
}

static int add_indirect(struct vq *q, struct vq_elem *e, uint64_t gpa, uint32_t len, uint16_t flags)
{
    if (!q->indirect || (flags & DESC_NEXT))
        return vq_fail(q, "an indirect descriptor where none may be");
    if (!len || len % sizeof(struct packed_desc))
        return vq_fail(q, "an indirect table with a broken size");
    const struct packed_desc *table = vq_map_whole(q, gpa, len, false);
    if (!table || gpa % sizeof(uint64_t))
        return vq_fail(q, "an indirect table that is not in RAM or not aligned");
    for (uint32_t i = 0; i < len / sizeof(*table); i++) {
        uint16_t f = guest_load(&table[i].flags);
        if (f & DESC_INDIRECT)
            return vq_fail(q, "an indirect descriptor where none may be");
        int err = vq_add_buffer(q, e, guest_load(&table[i].addr), guest_load(&table[i].len),
                                f & DESC_WRITE);
        if (err < 0)
            return err; /* at the latest when the element's room is used up */
    }
    return 0;
}

#define WRAP 0x8000u

uint32_t vq_packed_place(const struct vq *q)
{
    return (q->next_avail | (q->avail_wrap ? WRAP : 0)) |
           (uint32_t)(q->next_used | (q->used_wrap ? WRAP : 0)) << 16;
}

/* The driver was not given the descriptor there back yet. */
static bool may_be_used_next(const struct vq *q, uint16_t at, bool wrap)
{
    const struct packed_desc *ring = q->desc;
    uint16_t flags = guest_load(&ring[at].flags);
    return !!(flags & DESC_AVAIL) != wrap || !!(flags & DESC_USED) != wrap;
}

int vq_packed_set_place(struct vq *q, uint32_t place)
{
    uint16_t avail = place & (WRAP - 1), used = place >> 16 & (WRAP - 1);
    bool avail_wrap = place & WRAP, used_wrap = place >> 16 & WRAP;
    if (avail >= q->size)
        return vq_fail(q, "its place in the ring is outside of it");
    int in_flight = avail - used + (avail_wrap != used_wrap ? q->size : 0);
    if (used >= q->size || in_flight < 0 || in_flight > q->size ||
        !may_be_used_next(q, used, used_wrap)) {
        used = avail; /* it tells only where it takes, and gives back all before */
        used_wrap = avail_wrap;
        in_flight = 0;
    }
    q->avail_wrap = avail_wrap;
    q->used_wrap = used_wrap;
    q->next_avail = avail;
    q->next_used = used;
    q->in_flight = (uint16_t)in_flight;
    return 0;
}

int vq_packed_pop(struct vq *q, struct vq_elem *e)
{
    const struct packed_desc *ring = q->desc;
    uint16_t at = q->next_avail;
    bool wrap = q->avail_wrap;
    uint16_t flags = guest_load_acquire(&ring[at].flags);
    if (!is_avail(flags, wrap))
        return 0;
    for (;;) {
        if (e->slots >= q->size - q->in_flight)
            return vq_fail(q, "a chain that is longer than the free part of the queue");
        uint64_t addr = guest_load(&ring[at].addr);
        uint32_t len = guest_load(&ring[at].len);
        e->id = guest_load(&ring[at].id); /* the last descriptor's counts */
        int err = flags & DESC_INDIRECT ? add_indirect(q, e, addr, len, flags)
                                        : vq_add_buffer(q, e, addr, len, flags & DESC_WRITE);
        if (err < 0)
            return err;
        e->slots++;
        if (++at == q->size) {
            at = 0;
            wrap = !wrap;
        }
        if (!(flags & DESC_NEXT))
            break;
        flags = guest_load(&ring[at].flags);
    }
    q->next_avail = at;
    q->avail_wrap = wrap;
    q->in_flight += e->slots;
    return 1;
}

void vq_packed_push(struct vq *q, const struct vq_elem *e, uint32_t len)
{
    struct packed_desc *d = (struct packed_desc *)q->desc + q->next_used;
    uint16_t flags = (q->used_wrap ? DESC_AVAIL | DESC_USED : 0) | (len ? DESC_WRITE : 0);
    guest_store(&d->id, e->id);
    guest_store(&d->len, len);
    guest_store_release(&d->flags, flags);
    q->next_used += e->slots;
    q->added += e->slots;
    if (q->next_used >= q->size) {
        q->next_used -= q->size;
        q->used_wrap = !q->used_wrap;
    }
}

bool vq_packed_publish(struct vq *q)
{
    mem_written(q->mem, q->desc_gpa, 16ULL * q->size);
    fence_guest();
    const struct packed_event *driver = q->driver;
    uint16_t flags = guest_load_acquire(&driver->flags) & 3;
    if (flags != EVENT_DESC || !q->event_idx)
        return flags != EVENT_DISABLE;
    uint16_t off_wrap = guest_load(&driver->off_wrap);
    uint16_t event = off_wrap & 0x7fff;
    if ((off_wrap >> 15) != q->used_wrap)
        event -= q->size;
    return vq_passed(event, q->next_used, q->next_used - q->added);
}

void vq_packed_notify(struct vq *q, bool on)
{
    struct packed_event *device = q->device;
    if (on && q->event_idx) {
        guest_store(&device->off_wrap, q->next_avail | (q->avail_wrap ? 1 << 15 : 0));
        guest_store_release(&device->flags, EVENT_DESC);
    } else {
        guest_store_release(&device->flags, on ? EVENT_ENABLE : EVENT_DISABLE);
    }
    mem_written(q->mem, q->device_gpa, 4);
}
