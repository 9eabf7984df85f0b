/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The life of a virtio device: features, status, queues, reset, being broken. No bus in here.
 *
 * Spec      VIRTIO 1.2, chapters 2 and 3.
 * Thread    Registers: any vCPU; queues: the home loop; always with the device's lock.
 * Trust     See virtio.h.
 */
#include "devices/virtio/virtio.h"

#include "base/fd.h"

enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };

/* --- queues --- */

bool virtio_running(const struct virtio *v)
{
    return (v->status & (VIRTIO_DRIVER_OK | VIRTIO_NEEDS_RESET)) == VIRTIO_DRIVER_OK &&
           !v->frozen && !v->pci.dev.broken && pci_bus_master(&v->pci);
}

void virtio_publish(struct virtio *v, unsigned queue)
{
    struct vq *q = &v->queue[queue];
    if (vq_publish(q))
        virtio_raise(v, ISR_QUEUE, q->vector);
}

void virtio_config_changed(struct virtio *v)
{
    v->generation++;
    if (v->status & VIRTIO_DRIVER_OK)
        virtio_raise(v, ISR_CONFIG, v->config_vector);
}

void virtio_broken(struct virtio *v, const char *why)
{
    if (v->pci.dev.broken)
        return;
    device_broken(&v->pci.dev, why);
    v->broken_count++;
    v->status |= VIRTIO_NEEDS_RESET;
    virtio_config_changed(v);
}

int virtio_pop(struct virtio *v, unsigned queue, struct vq_elem *e)
{
    struct vq *q = &v->queue[queue];
    int r = vq_pop(q, e);
    if (r >= 0)
        return r;
    virtio_broken(v, q->why);
    return 0;
}

void virtio_kick(struct virtio *v, unsigned queue)
{
    eventfd_signal(v->watch[queue].fd);
}

void virtio_rearm(struct virtio *v, unsigned queue)
{
    if (vq_notify_enable(&v->queue[queue]))
        virtio_kick(v, queue);
}

void virtio_kick_all(struct virtio *v)
{
    for (unsigned n = 0; n < v->queue_count; n++) {
        if (v->queue[n].enabled)
            virtio_kick(v, n);
    }
}

static void notified(void *opaque, uint32_t events)
{
    struct virtio_queue_watch *w = opaque;
    struct virtio *v = w->v;
    unsigned n = (unsigned)(w - v->watch);
    eventfd_drain(w->fd);
    pthread_mutex_lock(&v->pci.dev.lock);
    v->notifications++;
    v->queue[n].kicks++;
    if (virtio_running(v) && v->queue[n].enabled)
        v->ops->handle(v, n);
    pthread_mutex_unlock(&v->pci.dev.lock);
}

void virtio_lend_queue(struct virtio *v, unsigned queue, bool lent)
{
    loop_fd_modify(&v->watch[queue].watch, lent ? 0 : EPOLLIN);
}

int virtio_notify_fd(const struct virtio *v, unsigned queue)
{
    return v->watch[queue].fd;
}

int virtio_interrupt_fd(const struct virtio *v, unsigned queue)
{
    uint16_t vector = v->queue[queue].vector;
    return pci_msix_enabled(&v->pci) && v->vector && vector < v->vectors && v->vector[vector].route >= 0
               ? v->vector[vector].fd
               : -1;
}

void virtio_interrupt_queue(struct virtio *v, unsigned queue)
{
    virtio_raise(v, ISR_QUEUE, v->queue[queue].vector);
}

void virtio_enable_queue(struct virtio *v, unsigned queue)
{
    struct vq *q = &v->queue[queue];
    if (q->enabled || !(v->status & VIRTIO_FEATURES_OK) || v->queue_reset_pending[queue])
        return;
    q->packed = virtio_has(v, VIRTIO_F_PACKED);
    q->event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX);
    q->indirect = virtio_has(v, VIRTIO_F_INDIRECT);
    if (vq_enable(q) < 0)
        virtio_broken(v, q->why);
    else if (v->status & VIRTIO_DRIVER_OK)
        virtio_kick(v, queue);
}

void virtio_hold(struct virtio *v, unsigned queue)
{
    v->queue[queue].held++;
}

static unsigned held(const struct virtio *v)
{
    unsigned n = 0;
    for (unsigned i = 0; i < v->queue_count; i++)
        n += v->queue[i].held;
    return n;
}

void virtio_unhold(struct virtio *v, unsigned queue)
{
    if (--v->queue[queue].held)
        return;
    v->queue_reset_pending[queue] = false;
    if (v->reset_pending && !held(v)) {
        v->reset_pending = false;
        v->status = v->status_after;
    }
}

/* --- status --- */

static void forget_queue(struct virtio *v, unsigned n)
{
    if (v->ops->queue_reset)
        v->ops->queue_reset(v, n);
    vq_reset(&v->queue[n]);
}

void virtio_reset_queue(struct virtio *v, unsigned queue)
{
    if (!virtio_has(v, VIRTIO_F_RESET) || !v->queue[queue].enabled)
        return;
    forget_queue(v, queue);
    v->queue_reset_pending[queue] = v->queue[queue].held > 0;
}

/* The guest may use its memory again when the status reads 0: not while requests still write into
 * it. */
static void reset_locked(struct virtio *v)
{
    v->status_before = v->status ? v->status : v->status_before;
    for (unsigned n = 0; n < v->queue_count; n++) {
        forget_queue(v, n);
        v->queue_reset_pending[n] = false;
    }
    if (v->ops->reset)
        v->ops->reset(v);
    v->accepted = 0;
    v->offered_select = v->accepted_select = 0;
    v->queue_select = 0;
    v->config_vector = VQ_NO_VECTOR;
    v->status = v->status_after = 0;
    v->isr = 0;
    v->pci.dev.broken = false;
    v->reset_pending = held(v) > 0;
    pci_irq_set(&v->pci, 0);
}

uint8_t virtio_get_status(const struct virtio *v)
{
    return v->reset_pending ? v->status_before | VIRTIO_ACKNOWLEDGE : v->status;
}

static bool features_fit(const struct virtio *v)
{
    return !(v->accepted & ~v->offered) && virtio_has(v, VIRTIO_F_VERSION_1);
}

void virtio_set_status(struct virtio *v, uint8_t status)
{
    if (!status) {
        v->resets++;
        reset_locked(v);
        return;
    }
    /* a driver that does not wait: its first steps count when the reset is done */
    if (v->reset_pending) {
        v->status_after = status & (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
        return;
    }
    uint8_t added = status & ~v->status;
    if ((added & VIRTIO_FEATURES_OK) && !features_fit(v))
        status &= ~VIRTIO_FEATURES_OK;
    if ((status & VIRTIO_DRIVER_OK) && !(status & VIRTIO_FEATURES_OK))
        status &= ~VIRTIO_DRIVER_OK;
    v->status = status | (v->status & VIRTIO_NEEDS_RESET);
    if ((added & VIRTIO_FEATURES_OK & v->status) && v->ops->features_set)
        v->ops->features_set(v);
    if (added & VIRTIO_DRIVER_OK & v->status) {
        if (v->ops->driver_ok)
            v->ops->driver_ok(v);
        virtio_kick_all(v);
    }
}

void virtio_config_write(struct virtio *v, unsigned off, uint64_t val, unsigned len)
{
    for (unsigned i = 0; i < len && off + i < v->config_bytes; i++) {
        uint8_t mask = v->config_writable[off + i], byte = val >> (8 * i);
        v->config[off + i] = (v->config[off + i] & ~mask) | (byte & mask);
    }
    if (v->ops->config_written)
        v->ops->config_written(v, off, len);
}

/* --- life --- */

static void home_drain(void *opaque)
{
    struct virtio *v = opaque;
    v->ops->drain(v);
}

void virtio_drain(struct virtio *v)
{
    if (v->ops->drain)
        loop_call(v->pci.dev.loop, home_drain, v);
}

void virtio_reset(struct device *d)
{
    struct virtio *v = virtio_of(d);
    virtio_drain(v);
    pthread_mutex_lock(&d->lock);
    reset_locked(v);
    v->generation = 0;
    pthread_mutex_unlock(&d->lock);
    pci_device_reset(&v->pci);
}

static void home_watch(void *opaque)
{
    struct virtio *v = opaque;
    for (unsigned n = 0; n < v->queue_count; n++)
        loop_fd_add(v->pci.dev.loop, &v->watch[n].watch, v->watch[n].fd, EPOLLIN, notified,
                    &v->watch[n]);
}

static void home_unwatch(void *opaque)
{
    struct virtio *v = opaque;
    for (unsigned n = 0; n < v->queue_count; n++)
        loop_fd_remove(&v->watch[n].watch);
}

static bool check_props(struct virtio *v, GError **error)
{
    const char *name = v->pci.dev.type->name;
    if (v->disable_modern)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "%s: disable-modern=on: there is no legacy interface", name);
    if (v->prop_iommu)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "%s: iommu_platform=on: the machine has no IOMMU", name);
    if (v->romfile && *v->romfile)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "%s: romfile=%s: option ROMs are not supported; say romfile=", name,
                           v->romfile);
    return true;
}

static uint64_t common_features(const struct virtio *v)
{
    return VIRTIO_F(VIRTIO_F_VERSION_1) | (v->prop_indirect ? VIRTIO_F(VIRTIO_F_INDIRECT) : 0) |
           (v->prop_event_idx ? VIRTIO_F(VIRTIO_F_EVENT_IDX) : 0) |
           (v->prop_packed ? VIRTIO_F(VIRTIO_F_PACKED) : 0) |
           (v->prop_queue_reset ? VIRTIO_F(VIRTIO_F_RESET) : 0);
}

bool virtio_init(struct virtio *v, const struct virtio_ops *ops, uint64_t features,
                 unsigned queue_count, const uint16_t *queue_sizes, unsigned config_bytes,
                 GError **error)
{
    v->ops = ops;
    v->queue_count = queue_count;
    v->config_bytes = config_bytes;
    v->config_vector = VQ_NO_VECTOR;
    for (unsigned n = 0; n < queue_count; n++) {
        v->watch[n] = (struct virtio_queue_watch){ .v = v, .fd = -1 };
        uint16_t size = queue_sizes[n] || !n ? queue_sizes[n] : v->queue[n - 1].max_size;
        vq_init(&v->queue[n], v->pci.dev.machine->memory, size);
    }
    if (!check_props(v, error))
        return false;
    v->offered = features | common_features(v);
    for (unsigned n = 0; n < queue_count; n++) {
        v->watch[n].fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (v->watch[n].fd < 0)
            return ruche_error_errno(error, errno, "%s: no descriptor for queue %u",
                                     v->pci.dev.type->name, n);
    }
    if (!virtio_pci_init(v, v->vectors == VIRTIO_AUTO_VECTORS ? queue_count + 1 : v->vectors,
                         error))
        return false;
    v->pci.dev.base = &virtio_base;
    loop_call(v->pci.dev.loop, home_watch, v);
    v->ready = true;
    return true;
}

void virtio_done(struct virtio *v)
{
    if (v->ready) {
        virtio_drain(v);
        loop_call(v->pci.dev.loop, home_unwatch, v);
    }
    virtio_pci_done(v);
    for (unsigned n = 0; v->ops && n < v->queue_count; n++)
        fd_close_keep_errno(v->watch[n].fd);
    v->queue_count = 0;
    v->ready = false;
}
