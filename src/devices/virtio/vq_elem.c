/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Popped chains in a saved state.
 *
 * Format    16 bits each, little-endian: id, slots, readable buffers, writable buffers; then each
 *           buffer: 64 bits address, 32 bits length. Not the ring's descriptors, which in a packed
 *           ring are gone when an earlier chain has come back over them.
 * Thread    Under the device's lock.
 * Trust     Loaded from a file or a peer: counts, order, lengths and addresses are checked as those
 *           of a guest.
 */
#include "devices/virtio/vq_internal.h"

static void put(GByteArray *out, uint64_t val, unsigned bytes)
{
    g_byte_array_append(out, (const uint8_t *)&val, bytes);
}

void vq_elem_save(const struct vq_elem *e, const uint8_t *front, unsigned fronts, unsigned back,
                  GByteArray *out)
{
    unsigned count = e->out_count + e->in_count;
    put(out, e->id, 2);
    put(out, e->slots, 2);
    put(out, e->out_count, 2);
    put(out, e->in_count, 2);
    for (unsigned i = 0; i < count; i++) {
        put(out, e->gpa[i], 8);
        put(out, e->iov[i].iov_len + (i < fronts ? front[i] : 0) + (i + 1 == count ? back : 0), 4);
    }
}

int vq_elem_load(struct vq *q, struct vq_elem *e, struct cur *c)
{
    e->out_count = e->in_count = 0;
    e->out_bytes = e->in_bytes = 0;
    e->id = cur_le16(c);
    e->slots = cur_le16(c);
    unsigned out = cur_le16(c), count = out + cur_le16(c);
    if (!q->enabled || q->why)
        return vq_fail(q, "a kept chain of a queue that is not in use");
    if (!q->packed && e->id >= q->size)
        return vq_fail(q, "a kept chain's head is out of range");
    if (!e->slots || e->slots > (q->packed ? q->size : 1))
        return vq_fail(q, "a kept chain has an impossible number of slots");
    if (!count || count > e->room)
        return vq_fail(q, "a kept chain with no buffers or too many");
    for (unsigned i = 0; i < count; i++) {
        uint64_t gpa = cur_le64(c);
        uint32_t len = cur_le32(c);
        int err = c->bad ? vq_fail(q, "a kept chain is cut off")
                         : vq_add_buffer(q, e, gpa, len, i >= out);
        if (err < 0)
            return err;
    }
    return 0;
}
