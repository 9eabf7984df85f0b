/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The saved state of every virtio device, and how it stands still while the machine is stopped.
 *
 * Spec      VIRTIO 1.2, chapters 2 and 3.
 * Thread    Main, the machine stopped. The home loop may run: a frozen device does nothing there.
 * Trust     The rings' addresses and places come from a file or a peer and are checked as the
 *           guest's own. What is in the rings is checked when it is popped, as ever.
 * Stopping  From its stop on, a device takes no chain and no frame; what was in flight ends before
 *           the state is saved, as ops->drain says. When the machine goes on, every queue is
 *           looked at, so that no notification is lost.
 */
#include "devices/virtio/virtio.h"

static void virtio_stopped(struct device *d, bool stopped)
{
    struct virtio *v = virtio_of(d);
    pthread_mutex_lock(&d->lock);
    v->frozen = stopped;
    pthread_mutex_unlock(&d->lock);
    if (v->ops->stopped)
        v->ops->stopped(v, stopped);
    if (!stopped)
        virtio_kick_all(v);
}

static bool virtio_save_before(struct device *d, GError **error)
{
    struct virtio *v = virtio_of(d);
    virtio_drain(v);
    uint32_t held = 0;
    pthread_mutex_lock(&d->lock);
    for (unsigned n = 0; n < v->queue_count; n++) {
        virtio_publish(v, n);
        vq_save(&v->queue[n]);
        held += v->queue[n].held;
    }
    v->saved_queues = (uint16_t)v->queue_count;
    pthread_mutex_unlock(&d->lock);
    return !held || v->ops->keeps_held ||
           ruche_error(error, RUCHE_ERR_STATE,
                       "device '%s' (%s): %u requests wait for the end of an error of their image",
                       d->type->name, d->id ? d->id : d->path, held);
}

static bool refuse(const struct device *d, GError **error, const char *what, uint64_t has,
                   uint64_t limit)
{
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "state of device '%s' (%s): %s is 0x%" G_GINT64_MODIFIER
                       "x, and here it can be 0x%" G_GINT64_MODIFIER "x",
                       d->type->name, d->id ? d->id : d->path, what, has, limit);
}

static bool check_device(const struct virtio *v, GError **error)
{
    const struct device *d = &v->pci.dev;
    bool features_ok = v->status & VIRTIO_FEATURES_OK;
    if (v->saved_queues != v->queue_count)
        return refuse(d, error, "the number of queues", v->saved_queues, v->queue_count);
    if (features_ok && (v->accepted & ~v->offered))
        return refuse(d, error, "the features taken", v->accepted, v->offered);
    if ((v->status & VIRTIO_DRIVER_OK) && !features_ok)
        return refuse(d, error, "the status without FEATURES_OK", v->status,
                      v->status & ~VIRTIO_DRIVER_OK);
    if (v->config_vector >= v->vectors && v->config_vector != VQ_NO_VECTOR)
        return refuse(d, error, "the vector of the configuration", v->config_vector, v->vectors);
    return true;
}

static bool restore_queue(struct virtio *v, unsigned n, GError **error)
{
    const struct device *d = &v->pci.dev;
    struct vq *q = &v->queue[n];
    if (q->vector >= v->vectors && q->vector != VQ_NO_VECTOR)
        return refuse(d, error, "the vector of a queue", q->vector, v->vectors);
    if (q->was_enabled && !(v->status & VIRTIO_FEATURES_OK))
        return refuse(d, error, "the status with an enabled queue", v->status,
                      v->status | VIRTIO_FEATURES_OK);
    q->packed = virtio_has(v, VIRTIO_F_PACKED);
    q->event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX);
    q->indirect = virtio_has(v, VIRTIO_F_INDIRECT);
    return vq_restore(q) == 0 ||
           ruche_error(error, RUCHE_ERR_INVALID, "state of device '%s' (%s): queue %u: %s",
                       d->type->name, d->id ? d->id : d->path, n, q->why);
}

static bool virtio_loaded(struct device *d, GError **error)
{
    struct virtio *v = virtio_of(d);
    pthread_mutex_lock(&d->lock);
    bool ok = check_device(v, error);
    for (unsigned n = 0; ok && n < v->queue_count; n++)
        ok = restore_queue(v, n, error);
    if (!ok)
        v->status = 0;
    pthread_mutex_unlock(&d->lock);
    return ok;
}

#define QUEUE(member, ...) STATE_OF_EACH(struct virtio, queue, member, __VA_ARGS__)

static const struct state_field virtio_state[] = {
    STATE(struct virtio, pci.dev.broken),
    STATE(struct virtio, accepted),
    STATE(struct virtio, accepted_select),
    STATE(struct virtio, offered_select),
    STATE(struct virtio, queue_select),
    STATE(struct virtio, config_vector),
    STATE(struct virtio, status),
    STATE(struct virtio, generation),
    STATE(struct virtio, isr, .max = 3),
    STATE_ARRAY(struct virtio, config),
    STATE(struct virtio, saved_queues),
    QUEUE(desc_gpa),
    QUEUE(driver_gpa),
    QUEUE(device_gpa),
    QUEUE(size),
    QUEUE(vector),
    QUEUE(was_enabled),
    QUEUE(was_broken),
    QUEUE(next_avail),
    QUEUE(next_used),
    QUEUE(avail_wrap),
    QUEUE(used_wrap),
    QUEUE(in_flight),
    QUEUE(notify_off),
    {0},
};

const struct device_base virtio_base = {
    .name = "virtio",
    .below = &pci_device_base,
    .state = virtio_state,
    .save_before = virtio_save_before,
    .load_after = virtio_loaded,
    .stopped = virtio_stopped,
};
