/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Split virtqueues: a descriptor table, the driver's ring of heads, the device's ring of used ones.
 *
 * Spec      VIRTIO 1.2, section 2.7.
 * Thread    Under the device's lock.
 * Trust     See virtqueue.h.
 */
#include "devices/virtio/vq_internal.h"
#include "base/fence.h"

enum { AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };

/* The driver area is flags, idx, ring[size], used_event; the device area flags, idx, ring[size] of
 * (id, len), avail_event. */
static inline uint16_t *avail_word(const struct vq *q, unsigned n)
{
    return (uint16_t *)q->driver + n;
}

static inline uint16_t *used_word(const struct vq *q, unsigned n)
{
    return (uint16_t *)q->device + n;
}

static inline uint32_t *used_entry(const struct vq *q, unsigned slot)
{
    return (uint32_t *)((uint8_t *)q->device + 4 + 8 * slot);
}

static inline uint16_t *avail_event(const struct vq *q)
{
    return (uint16_t *)((uint8_t *)q->device + 4 + 8 * q->size);
}

bool vq_split_has_avail(struct vq *q)
{
    return guest_load(avail_word(q, 1)) != q->next_avail;
}

uint16_t vq_split_used(const struct vq *q)
{
    return guest_load(used_word(q, 1));
}

static struct vq_desc load_desc(const struct vq_desc *d)
{
    return (struct vq_desc){ guest_load(&d->addr), guest_load(&d->len), guest_load(&d->flags),
                             guest_load(&d->next) };
}

/* Follows the chain. Every descriptor adds a buffer and there is room for a bounded number of
 * these, except for the one step into an indirect table: a loop ends with "too many buffers". */
static int walk(struct vq *q, struct vq_elem *e, uint16_t head)
{
    const struct vq_desc *table = q->desc;
    uint32_t limit = q->size, at = head;
    for (unsigned n = 0;; n++) {
        struct vq_desc d = load_desc(&table[at]);
        if (n > q->size)
            return vq_fail(q, "a chain that is longer than the queue, or a loop");
        if (d.flags & DESC_INDIRECT) {
            if (!q->indirect || table != q->desc || (d.flags & DESC_NEXT))
                return vq_fail(q, "an indirect descriptor where none may be");
            if (!d.len || d.len % sizeof(d))
                return vq_fail(q, "an indirect table with a broken size");
            limit = d.len / sizeof(d);
            table = vq_map_whole(q, d.addr, d.len, false);
            if (!table || d.addr % sizeof(uint64_t))
                return vq_fail(q, "an indirect table that is not in RAM or not aligned");
            at = 0;
            continue;
        }
        int err = vq_add_buffer(q, e, d.addr, d.len, d.flags & DESC_WRITE);
        if (err < 0 || !(d.flags & DESC_NEXT))
            return err;
        if (d.next >= limit)
            return vq_fail(q, "a descriptor's next index is out of range");
        at = d.next;
    }
}

int vq_split_pop(struct vq *q, struct vq_elem *e)
{
    uint16_t waiting = guest_load_acquire(avail_word(q, 1)) - q->next_avail;
    if (!waiting)
        return 0;
    if (waiting > q->size)
        return vq_fail(q, "the available index jumped by more than the queue's size");
    if (q->in_flight >= q->size)
        return vq_fail(q, "more chains in flight than the queue has slots");
    uint16_t head = guest_load(avail_word(q, 2 + (q->next_avail & (q->size - 1))));
    if (head >= q->size)
        return vq_fail(q, "a head index is out of range");
    int err = walk(q, e, head);
    if (err < 0)
        return err;
    e->id = head;
    e->slots = 1;
    q->next_avail++;
    q->in_flight++;
    return 1;
}

void vq_split_push(struct vq *q, const struct vq_elem *e, uint32_t len)
{
    uint32_t *entry = used_entry(q, q->next_used & (q->size - 1));
    guest_store(&entry[0], e->id);
    guest_store(&entry[1], len);
    q->next_used++;
    q->added++;
}

bool vq_split_publish(struct vq *q)
{
    guest_store_release(used_word(q, 1), q->next_used);
    mem_written(q->mem, q->device_gpa, 6 + 8ULL * q->size);
    /* the index is out before we ask what the driver wants */
    fence_guest();
    if (!q->event_idx)
        return !(guest_load(avail_word(q, 0)) & AVAIL_NO_INTERRUPT);
    uint16_t event = guest_load(avail_word(q, 2 + q->size));
    return vq_passed(event, q->next_used, q->next_used - q->added);
}

void vq_split_notify(struct vq *q, bool on)
{
    if (!q->event_idx) {
        guest_store(used_word(q, 0), on ? 0 : USED_NO_NOTIFY);
        mem_written(q->mem, q->device_gpa, 2);
    } else if (on) {
        guest_store(avail_event(q), q->next_avail);
        mem_written(q->mem, q->device_gpa + 4 + 8ULL * q->size, 2);
    }
}
