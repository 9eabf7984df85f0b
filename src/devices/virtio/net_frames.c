/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Frames of virtio-net: from the backend into the guest's buffers, and back.
 *
 * The header before each frame is the backend's own format, so that frames pass with their offloads
 * as they are.
 *
 * Spec      VIRTIO 1.2, sections 5.1.6.2 to 5.1.6.4.
 * Thread    The main loop, with the device's lock; the lock is let go around calls of the backend,
 *           which may hand us a frame from inside them.
 * Trust     Chains are the guest's, frames the network's.
 */
#include "devices/virtio/net.h"

#include <errno.h>
#include <string.h>

#define HDR NETDEV_VNET_HDR_LEN
#define FRAME_MIN 14
#define TX_IOVS 256 /* of one sent frame */
#define NUM_BUFFERS_AT offsetof(struct virtio_net_hdr_v1, num_buffers)

/* --- to the guest --- */

/* Pops chains until `total` bytes fit. The count, 0: not now, or -errno. */
static int gather(struct vnet *s, unsigned queue, size_t total)
{
    unsigned used = 0, n = 0;
    bool mergeable = virtio_has(&s->v, VIRTIO_NET_F_MRG_RXBUF);
    struct vq *q = &s->v.queue[queue];
    int err = 0;
    for (size_t room = 0; room < total;) {
        struct vq_elem *e = &s->elem[n];
        if (n == VNET_BUFFERS || used == VNET_IOVS || (n && !mergeable)) {
            err = -EMSGSIZE;
            break;
        }
        *e = (struct vq_elem){ .iov = s->iov + used,
                               .gpa = s->gpa + used,
                               .room = (uint16_t)(VNET_IOVS - used) };
        if (!virtio_pop(&s->v, queue, e))
            goto undo;
        n++;
        if (e->in_bytes < (n == 1 ? HDR : 1)) {
            virtio_broken(&s->v, "a receive buffer without room for the header");
            return -EIO;
        }
        used += e->out_count + e->in_count;
        room += e->in_bytes;
    }
    if (!err)
        return (int)n;
undo:
    while (n)
        vq_unpop(q, &s->elem[--n]);
    return err;
}

/* Copies `iov` over the chains, behind a header when the frame has none of its own. */
static void scatter(struct vnet *s, unsigned queue, unsigned count, const struct iovec *iov,
                    unsigned iov_count)
{
    static const uint8_t no_header[HDR];
    struct vq *q = &s->v.queue[queue];
    const struct iovec head = { (void *)(uintptr_t)no_header, HDR };
    bool own = s->vnet_hdr;
    unsigned from = own ? 0 : UINT32_MAX, at = 0;
    size_t skip = 0;
    uint32_t lens[VNET_BUFFERS] = { 0 };
    while (at < count) {
        const struct iovec *v = from == UINT32_MAX ? &head : from < iov_count ? &iov[from] : NULL;
        if (!v)
            break;
        size_t n = vq_copy_in(&s->elem[at], lens[at], (const uint8_t *)v->iov_base + skip,
                              v->iov_len - skip);
        lens[at] += (uint32_t)n;
        skip += n;
        if (skip == v->iov_len) {
            from++;
            skip = 0;
        } else {
            at++;
        }
    }
    uint16_t buffers = (uint16_t)count;
    vq_copy_in(&s->elem[0], NUM_BUFFERS_AT, &buffers, sizeof(buffers));
    for (unsigned i = 0; i < count; i++)
        vq_push(q, &s->elem[i], lens[i]);
    virtio_publish(&s->v, queue);
}

static bool wanted(const struct vnet *s, const struct iovec *iov, unsigned iov_count)
{
    uint8_t head[FRAME_MIN + 4];
    size_t skip = s->vnet_hdr ? HDR : 0, len = 0;
    for (unsigned i = 0; i < iov_count && len < sizeof(head); i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t n = min_u64(sizeof(head) - len, iov[i].iov_len - skip);
        memcpy(head + len, (const uint8_t *)iov[i].iov_base + skip, n);
        len += n;
        skip = 0;
    }
    return len >= FRAME_MIN && vnet_filter_passes(s, head, len);
}

static ssize_t receive_locked(struct vnet *s, unsigned pair, const struct iovec *iov,
                              unsigned iov_count)
{
    if (pair >= s->pairs)
        pair = 0;
    unsigned queue = 2 * pair;
    struct vq *q = &s->v.queue[queue];
    size_t len = 0;
    for (unsigned i = 0; i < iov_count; i++)
        len += iov[i].iov_len;
    if (s->v.frozen) { /* it comes when the machine goes on */
        s->rx_waiting[pair] = true;
        return 0;
    }
    if (!virtio_running(&s->v) || !q->enabled)
        return -ENETDOWN;
    if (!wanted(s, iov, iov_count)) {
        s->rx_filtered++;
        return (ssize_t)len;
    }
    size_t total = len + (s->vnet_hdr ? 0 : HDR);
    vq_notify_disable(q);
    int n = gather(s, queue, total);
    if (!n && vq_notify_enable(q))
        n = gather(s, queue, total);
    if (n < 0) {
        s->rx_too_long += n == -EMSGSIZE;
        return n;
    }
    if (!n) {
        if (!virtio_running(&s->v))
            return -EIO;
        s->rx_no_buffers++;
        s->rx_waiting[pair] = true;
        return 0;
    }
    scatter(s, queue, (unsigned)n, iov, iov_count);
    s->rx_frames++;
    s->rx_bytes += len;
    return (ssize_t)len;
}

ssize_t vnet_receive(void *opaque, unsigned pair, const struct iovec *iov, unsigned iov_count)
{
    struct vnet *s = opaque;
    pthread_mutex_lock(&s->pci.dev.lock);
    ssize_t r = receive_locked(s, pair, iov, iov_count);
    pthread_mutex_unlock(&s->pci.dev.lock);
    return r;
}

void vnet_handle_rx(struct vnet *s, unsigned pair)
{
    if (!s->rx_waiting[pair] || !s->netdev)
        return;
    s->rx_waiting[pair] = false;
    pthread_mutex_unlock(&s->pci.dev.lock);
    netdev_receive_ready(s->netdev, pair);
    pthread_mutex_lock(&s->pci.dev.lock);
}

/* --- from the guest --- */

/* The frame's vectors without the header that the backend does not want. */
static const struct iovec *without_header(struct vq_elem *e, unsigned *ret_count)
{
    size_t skip = HDR;
    struct iovec *v = e->iov;
    unsigned count = e->out_count;
    while (count && skip >= v->iov_len) {
        skip -= v->iov_len;
        v++;
        count--;
    }
    if (count) {
        v->iov_base = (uint8_t *)v->iov_base + skip;
        v->iov_len -= skip;
    }
    *ret_count = count;
    return v;
}

/* False: the backend has no room, the chain went back into the ring. */
static bool send_one(struct vnet *s, unsigned queue, struct vq_elem *e)
{
    struct vq *q = &s->v.queue[queue];
    uint32_t generation = q->generation;
    ssize_t r = -EINVAL;
    if (e->out_bytes >= HDR + FRAME_MIN && e->out_bytes <= NETDEV_MAX_FRAME && s->netdev) {
        unsigned count = e->out_count;
        const struct iovec *iov = s->vnet_hdr ? e->iov : without_header(e, &count);
        virtio_hold(&s->v, queue);
        pthread_mutex_unlock(&s->pci.dev.lock);
        r = netdev_send(s->netdev, queue / 2, iov, count);
        pthread_mutex_lock(&s->pci.dev.lock);
        virtio_unhold(&s->v, queue);
    }
    if (q->generation != generation)
        return true;
    if (r == 0) {
        s->tx_full++;
        vq_unpop(q, e);
        return false;
    }
    if (r > 0) {
        s->tx_frames++;
        s->tx_bytes += e->out_bytes - HDR;
    } else {
        s->tx_dropped++;
    }
    vq_push(q, e, 0);
    return true;
}

void vnet_handle_tx(struct vnet *s, unsigned queue)
{
    struct vq *q = &s->v.queue[queue];
    unsigned budget = q->size;
    /* A vector pool of its own: frames may arrive while one is sent. */
    struct iovec iov[TX_IOVS];
    uint64_t gpa[TX_IOVS];
    struct vq_elem e = { .iov = iov, .gpa = gpa, .room = ARRAY_COUNT(iov) };
    bool full = false;
    vq_notify_disable(q);
    do {
        while (budget && !full && virtio_running(&s->v) && virtio_pop(&s->v, queue, &e)) {
            full = !send_one(s, queue, &e);
            budget--;
        }
    } while (budget && !full && virtio_running(&s->v) && vq_notify_enable(q));
    virtio_publish(&s->v, queue);
    if (!budget)
        virtio_kick(&s->v, queue);
}

void vnet_send_ready(void *opaque, unsigned pair)
{
    struct vnet *s = opaque;
    virtio_kick(&s->v, 2 * pair + 1);
}
