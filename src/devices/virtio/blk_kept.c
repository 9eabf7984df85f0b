/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests of virtio-blk that failed and wait for the machine to go on (rerror=stop, werror=stop),
 * in its saved state.
 *
 * Where the state is loaded they begin anew, from their header on, before anything newer: what was
 * half done is done again, as the driver has heard of nothing.
 *
 * Format    One after the other: 16 bits queue, then the chain (vq_elem.c).
 * Thread    Main, the machine stopped; the image's list is read on the home loop.
 * Trust     Loaded bytes are hostile: a queue that is there, each head once, no more slots than the
 *           queue has in flight, and every buffer in RAM.
 */
#include "devices/virtio/blk.h"

/* --- saving --- */

static void save_one(struct vblk *s, const struct vblk_request *r, bool cut)
{
    uint16_t queue = r->queue;
    if (r->generation != s->v.queue[queue].generation)
        return; /* of a life that has ended */
    g_byte_array_append(s->kept_state, (const uint8_t *)&queue, sizeof(queue));
    vq_elem_save(&r->e, r->cut, cut ? VBLK_HEADER_BYTES : 0, cut ? 1 : 0, s->kept_state);
}

static void save_held(struct image_request *ir, void *opaque)
{
    save_one(opaque, container_of(ir, struct vblk_request, image), true);
}

static void home_save(void *opaque)
{
    struct vblk *s = opaque;
    pthread_mutex_lock(&s->pci.dev.lock);
    image_foreach_held(s->image, save_held, s);
    for (const struct vblk_request *r = s->kept; r; r = r->next)
        save_one(s, r, false);
    pthread_mutex_unlock(&s->pci.dev.lock);
}

bool vblk_kept_save(struct device *d, GError **error)
{
    struct vblk *s = container_of(d, struct vblk, pci.dev);
    g_clear_pointer(&s->kept_state, g_byte_array_unref);
    s->kept_state = g_byte_array_new();
    loop_call(d->loop, home_save, s);
    return s->kept_state->len <= VBLK_KEPT_BYTES ||
           ruche_error(error, RUCHE_ERR_STATE,
                       "device '%s' (%s): its failed requests have %u bytes of state, and can have "
                       "at most %u",
                       d->type->name, d->id ? d->id : d->path, s->kept_state->len, VBLK_KEPT_BYTES);
}

/* --- loading --- */

struct load {
    struct vblk *s;
    struct cur c;
    struct vblk_request **tail;
    GHashTable *seen;                  /* queue << 16 | id */
    unsigned slots[VIRTIO_MAX_QUEUES]; /* of each queue */
};

/* NULL, or what is wrong. */
static const char *load_chain(struct load *l, struct vblk_request *r)
{
    struct virtio *v = &l->s->v;
    r->queue = cur_le16(&l->c);
    if (r->queue >= v->queue_count)
        return "a kept chain of a queue that is not there";
    struct vq *q = &v->queue[r->queue];
    r->generation = q->generation;
    if (vq_elem_load(q, &r->e, &l->c) < 0)
        return q->why;
    l->slots[r->queue] += r->e.slots;
    if (l->slots[r->queue] > q->in_flight)
        return "more kept chains than the queue has in flight";
    if (!g_hash_table_add(l->seen, GUINT_TO_POINTER((guint)r->queue << 16 | r->e.id)))
        return "a chain is kept twice";
    return NULL;
}

static const char *load_next(struct load *l)
{
    struct vblk_request *r = vblk_request_get(l->s);
    if (!r)
        return "more kept chains than there are requests";
    const char *why = load_chain(l, r);
    if (why) {
        vblk_request_put(l->s, r);
        return why;
    }
    r->next = NULL;
    *l->tail = r;
    l->tail = &r->next;
    return NULL;
}

bool vblk_kept_load(struct vblk *s, GError **error)
{
    struct device *d = &s->pci.dev;
    g_autoptr(GByteArray) bytes = g_steal_pointer(&s->kept_state);
    g_autoptr(GHashTable) seen = g_hash_table_new(g_direct_hash, g_direct_equal);
    struct load l = {.s = s, .tail = &s->kept, .seen = seen};
    const char *why = NULL;
    if (bytes)
        l.c = cur_of(bytes->data, bytes->len);
    pthread_mutex_lock(&d->lock);
    vblk_kept_forget(s, -1);
    while (!why && l.c.left)
        why = load_next(&l);
    if (why)
        vblk_kept_forget(s, -1);
    pthread_mutex_unlock(&d->lock);
    return !why || ruche_error(error, RUCHE_ERR_INVALID, "state of device '%s' (%s): %s",
                               d->type->name, d->id ? d->id : d->path, why);
}

/* --- forgetting --- */

void vblk_kept_forget(struct vblk *s, int queue)
{
    struct vblk_request **at = &s->kept;
    for (struct vblk_request *r; (r = *at);) {
        if (queue >= 0 && r->queue != queue) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        vblk_request_put(s, r);
    }
}

void vblk_held_forget(void *opaque)
{
    struct vblk *s = opaque;
    pthread_mutex_lock(&s->pci.dev.lock);
    for (struct image_request *ir; (ir = image_take_held(s->image));) {
        struct vblk_request *r = container_of(ir, struct vblk_request, image);
        virtio_unhold(&s->v, r->queue);
        vblk_request_put(s, r);
    }
    pthread_mutex_unlock(&s->pci.dev.lock);
}
