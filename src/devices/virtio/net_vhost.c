/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-net over a backend that serves the rings of frames itself (netdev/vhost.h). The control queue stays here.
 *
 * One task decides: what is lent is compared with what should be, and the difference made. It is posted whenever
 * something changes that it looks at. A lent queue counts as one with a request in flight (virtio_hold()): a guest
 * that resets its device sees the reset end when the ring is back.
 *
 * Notifications go from the guest's doorbell to the back end's descriptor, interrupts from the back end to the
 * accelerator's; where there is no such (no MSI-X, the software CPU), through an eventfd of ours and the loop.
 *
 *
 * Spec      VIRTIO 1.2, section 5.1.
 * Thread    The home loop, but where noted; the lock is not held around calls of the backend.
 * Trust     The back end says where it stopped in each ring, and may lie: a place that cannot be breaks the device
 *           until the guest resets it. One that is gone told nothing: a split ring goes on behind what the guest was
 *           last given back.
 */
#include "base/fd.h"
#include "base/log.h"
#include "devices/virtio/net.h"

#include <errno.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>

#define RINGS    (2 * VNET_MAX_PAIRS)
#define LOG_PAGE 4096u

/* What the back end has a part in: offered when it has them too. */
#define SERVED                                                                                     \
    (VIRTIO_F(VIRTIO_F_INDIRECT) | VIRTIO_F(VIRTIO_F_EVENT_IDX) | VIRTIO_F(VIRTIO_F_PACKED) |      \
     VIRTIO_F(VIRTIO_F_RESET) | VIRTIO_F(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_F(VIRTIO_NET_F_CSUM) |   \
     VIRTIO_F(VIRTIO_NET_F_HOST_TSO4) | VIRTIO_F(VIRTIO_NET_F_HOST_TSO6) |                         \
     VIRTIO_F(VIRTIO_NET_F_HOST_ECN) | VNET_GUEST_OFFLOADS)

struct lent_ring {
    struct vnet *s;
    bool lent, enabled;
    uint32_t generation; /* of the queue when it was lent */
    int call_fd;         /* what the back end signals: ours, or the accelerator's */
    int own_fd;          /* ours; -1: not made yet */
    struct loop_fd watch;
};

struct vnet_vhost {
    const struct netdev_vhost_ops *ops;
    struct loop_task sync;
    struct lent_ring ring[RINGS];
    bool running, ending, complained, announce;
    uint64_t all; /* features that are offered with a perfect back end */
    int err_fd;
    struct loop_fd err_watch;
    /* RAM, as the address map last had it; `lock` guards these. */
    struct mem_listener listener;
    pthread_mutex_t lock;
    struct vhost_region region[VHOST_MAX_REGIONS];
    unsigned region_count;
    bool regions_changed, regions_left; /* more than fit */
    /* The log of written pages. */
    int log_fd;
    _Atomic uint64_t *log;
    uint64_t log_words;
    bool log_changed;
};

void vnet_vhost_changed(struct vnet *s)
{
    if (!s->vhost->ending)
        loop_post(s->pci.dev.loop, &s->vhost->sync);
}

bool vnet_vhost_ready(const struct vnet *s)
{
    return s->netdev && s->vhost->ops->ready(s->netdev);
}

void vnet_vhost_offer(struct vnet *s)
{
    struct virtio *v = &s->v;
    if (s->vhost->all && s->netdev && !(v->status & VIRTIO_FEATURES_OK))
        v->offered = s->vhost->all & (~SERVED | s->vhost->ops->features(s->netdev));
}

/* --- memory --- */

static bool add_region(struct vnet_vhost *h, const struct mem_range *r)
{
    const struct mem_region *m = r->region;
    uint64_t gpa = r->base - r->off;
    for (unsigned i = 0; i < h->region_count; i++) {
        if (h->region[i].hva == m->hva && h->region[i].gpa == gpa)
            return true;
    }
    if (h->region_count == VHOST_MAX_REGIONS)
        return false;
    h->region[h->region_count++] = (struct vhost_region){
        .gpa = gpa,
        .bytes = m->size,
        .fd_off = m->fd_off,
        .hva = m->hva,
        .fd = m->fd,
    };
    return true;
}

/* Any thread. Holes that other devices cut into RAM are no matter: rings and buffers are looked up where RAM is. */
static void memory_changed(void *opaque, const struct mem_range *ranges, size_t count)
{
    struct vnet *s = opaque;
    struct vnet_vhost *h = s->vhost;
    struct vhost_region before[VHOST_MAX_REGIONS];
    pthread_mutex_lock(&h->lock);
    unsigned before_count = h->region_count;
    memcpy(before, h->region, sizeof(before));
    h->region_count = 0;
    h->regions_left = false;
    for (size_t i = 0; i < count; i++) {
        const struct mem_region *m = ranges[i].region;
        if (m->kind == MEM_RAM && m->fd >= 0)
            h->regions_left |= !add_region(h, &ranges[i]);
    }
    bool changed = before_count != h->region_count ||
                   memcmp(before, h->region, before_count * sizeof(before[0])) != 0;
    h->regions_changed |= changed;
    pthread_mutex_unlock(&h->lock);
    if (changed)
        vnet_vhost_changed(s);
}

/* --- interrupts that go through the loop --- */

static void called(void *opaque, uint32_t events)
{
    struct lent_ring *r = opaque;
    struct vnet *s = r->s;
    eventfd_drain(r->own_fd);
    pthread_mutex_lock(&s->pci.dev.lock);
    if (s->v.status & VIRTIO_DRIVER_OK)
        virtio_interrupt_queue(&s->v, (unsigned)(r - s->vhost->ring));
    pthread_mutex_unlock(&s->pci.dev.lock);
}

static void error_reported(void *opaque, uint32_t events)
{
    struct vnet *s = opaque;
    s->vhost_errors += eventfd_drain(s->vhost->err_fd);
}

/* Lock held. What the back end is to signal for a ring; -1: no descriptor is left. */
static int choose_call(struct vnet *s, unsigned n)
{
    struct lent_ring *r = &s->vhost->ring[n];
    int fd = virtio_interrupt_fd(&s->v, n);
    if (fd >= 0)
        return fd;
    if (r->own_fd < 0) {
        r->own_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (r->own_fd >= 0)
            loop_fd_add(s->pci.dev.loop, &r->watch, r->own_fd, EPOLLIN, called, r);
    }
    return r->own_fd;
}

/* --- lending --- */

static bool pair_in_use(const struct vnet *s, unsigned ring)
{
    return ring / 2 < s->pairs;
}

static unsigned ring_count(const struct vnet *s)
{
    return virtio_has(&s->v, VIRTIO_NET_F_MQ) ? 2 * s->max_pairs : 2;
}

/* Lock held. */
static bool should_run(struct vnet *s)
{
    struct vnet_vhost *h = s->vhost;
    if (h->ending || !virtio_running(&s->v) || !s->netdev || !s->netdev->link_up ||
        !h->ops->ready(s->netdev) || (h->log && !h->ops->can_log(s->netdev)))
        return false;
    uint64_t lacks = s->v.accepted & SERVED & ~h->ops->features(s->netdev);
    if ((lacks || h->regions_left) && !h->complained) {
        h->complained = true;
        log_warn("virtio-net '%s': its vhost-user back end %s (0x%" G_GINT64_MODIFIER
                 "x); the rings stay here, and nothing passes",
                 s->pci.dev.id ? s->pci.dev.id : s->pci.dev.path,
                 lacks ? "lacks features that the guest has taken"
                       : "can map fewer pieces of RAM than there are",
                 lacks);
    }
    if (lacks || h->regions_left)
        return false;
    h->complained = false;
    for (unsigned n = 0; n < ring_count(s); n++) {
        if (s->v.queue[n].enabled && !s->v.queue[n].why)
            return true;
    }
    return false;
}

/* Lock held. The queues that are enabled, held from here on. */
static unsigned lend_rings(struct vnet *s, struct vhost_ring *ret)
{
    struct vnet_vhost *h = s->vhost;
    unsigned count = 0;
    for (unsigned n = 0; n < ring_count(s); n++) {
        const struct vq *q = &s->v.queue[n];
        struct lent_ring *r = &h->ring[n];
        int call = q->enabled && !q->why ? choose_call(s, n) : -1;
        if (call < 0)
            continue;
        virtio_hold(&s->v, n);
        virtio_lend_queue(&s->v, n, true);
        r->lent = true;
        r->enabled = pair_in_use(s, n);
        r->generation = q->generation;
        r->call_fd = call;
        ret[count++] = (struct vhost_ring){
            .index = (uint16_t)n,
            .size = q->size,
            .place = vq_place(q),
            .enabled = r->enabled,
            .desc = q->desc,
            .driver = q->driver,
            .device = q->device,
            .device_gpa = q->device_gpa,
            .kick_fd = virtio_notify_fd(&s->v, n),
            .call_fd = call,
            .err_fd = h->err_fd,
        };
    }
    return count;
}

static void take_back(struct vnet *s, const struct vhost_place *p)
{
    struct lent_ring *r = &s->vhost->ring[p->index];
    struct vq *q = &s->v.queue[p->index];
    pthread_mutex_lock(&s->pci.dev.lock);
    r->lent = false;
    s->vhost_lost += !p->known;
    if (q->generation == r->generation) {
        if (vq_set_place(q, p->known ? &p->place : NULL) < 0)
            virtio_broken(&s->v, q->why);
        else if (s->v.status & VIRTIO_DRIVER_OK)
            virtio_interrupt_queue(&s->v, p->index); /* one may have died before it could */
    }
    virtio_unhold(&s->v, p->index);
    virtio_lend_queue(&s->v, p->index, false);
    pthread_mutex_unlock(&s->pci.dev.lock);
}

static void stop(struct vnet *s)
{
    struct vnet_vhost *h = s->vhost;
    struct vhost_place place[RINGS];
    unsigned count = 0;
    if (!h->running)
        return;
    h->running = false;
    for (unsigned n = 0; n < RINGS; n++) {
        if (h->ring[n].lent)
            place[count++] = (struct vhost_place){.index = (uint16_t)n};
    }
    h->ops->stop(s->netdev, place, count);
    for (unsigned i = 0; i < count; i++)
        take_back(s, &place[i]);
}

static void start(struct vnet *s)
{
    struct vnet_vhost *h = s->vhost;
    struct vhost_ring rings[RINGS];
    struct vhost_region regions[VHOST_MAX_REGIONS];
    pthread_mutex_lock(&h->lock);
    memcpy(regions, h->region, sizeof(regions));
    struct vhost_start how = {.regions = regions,
                              .region_count = h->region_count,
                              .rings = rings,
                              .mtu = s->host_mtu,
                              .log_fd = h->log_fd,
                              .log_bytes = 8 * h->log_words};
    h->regions_changed = false;
    pthread_mutex_unlock(&h->lock);
    pthread_mutex_lock(&s->pci.dev.lock);
    how.ring_count = lend_rings(s, rings);
    how.features = s->v.accepted;
    how.announce = h->announce ? s->filter.mac : NULL;
    pthread_mutex_unlock(&s->pci.dev.lock);
    h->running = true;
    h->log_changed = h->announce = false;
    s->vhost_starts++;
    if (h->ops->start(s->netdev, &how) < 0) {
        stop(s);
        return;
    }
    for (unsigned i = 0; i < how.ring_count; i++) /* what came while nobody had them */
        eventfd_signal(rings[i].kick_fd);
}

/* Lock held. The queues that it has are not those that it should have. */
static bool rings_changed(struct vnet *s)
{
    for (unsigned n = 0; n < RINGS; n++) {
        const struct lent_ring *r = &s->vhost->ring[n];
        const struct vq *q = &s->v.queue[n];
        bool wanted = n < ring_count(s) && q->enabled && !q->why;
        if (wanted != r->lent || (wanted && q->generation != r->generation))
            return true;
    }
    return false;
}

/* What can change while it runs. */
static void adjust(struct vnet *s)
{
    struct vnet_vhost *h = s->vhost;
    for (unsigned n = 0; n < RINGS; n++) {
        struct lent_ring *r = &h->ring[n];
        if (!r->lent)
            continue;
        pthread_mutex_lock(&s->pci.dev.lock);
        bool enabled = pair_in_use(s, n);
        int call = choose_call(s, n);
        pthread_mutex_unlock(&s->pci.dev.lock);
        if (call >= 0 && call != r->call_fd)
            h->ops->set_call(s->netdev, n, r->call_fd = call);
        if (enabled != r->enabled)
            h->ops->enable(s->netdev, n, r->enabled = enabled);
    }
}

static void sync_rings(void *opaque)
{
    struct vnet *s = opaque;
    struct vnet_vhost *h = s->vhost;
    pthread_mutex_lock(&h->lock);
    bool again = h->regions_changed || h->log_changed;
    pthread_mutex_unlock(&h->lock);
    pthread_mutex_lock(&s->pci.dev.lock);
    bool want = should_run(s);
    again |= rings_changed(s);
    pthread_mutex_unlock(&s->pci.dev.lock);
    if (h->running && (!want || again))
        stop(s);
    if (h->running) {
        adjust(s);
        return;
    }
    pthread_mutex_lock(&s->pci.dev.lock);
    want = should_run(s); /* taking the rings back may have broken the device */
    pthread_mutex_unlock(&s->pci.dev.lock);
    if (want)
        start(s);
}

void vnet_vhost_drain(struct virtio *v)
{
    struct vnet *s = container_of(v, struct vnet, v);
    if (s->vhost)
        stop(s);
}

static void home_sync(void *opaque)
{
    sync_rings(opaque);
}

void vnet_vhost_stopped(struct virtio *v, bool stopped)
{
    struct vnet *s = container_of(v, struct vnet, v);
    if (s->vhost && !s->vhost->ending)
        loop_call(v->pci.dev.loop, home_sync, s);
}

void vnet_vhost_announce(struct vnet *s)
{
    s->vhost->announce = true;
    vnet_vhost_changed(s);
}

/* --- the log of written pages --- */

static void drop_log(struct vnet_vhost *h)
{
    if (h->log)
        munmap((void *)h->log, 8 * h->log_words);
    fd_close_keep_errno(h->log_fd);
    h->log = NULL;
    h->log_fd = -1;
    h->log_words = 0;
}

static bool make_log(struct vnet *s, GError **error)
{
    struct vnet_vhost *h = s->vhost;
    uint64_t end = 0;
    pthread_mutex_lock(&h->lock);
    for (unsigned i = 0; i < h->region_count; i++)
        end = max_u64(end, h->region[i].gpa + h->region[i].bytes);
    pthread_mutex_unlock(&h->lock);
    uint64_t words = end / LOG_PAGE / 64 + 1;
    autofd fd = memfd_create("ruche-vhost-log", MFD_CLOEXEC);
    void *map = fd >= 0 && ftruncate(fd, (off_t)(8 * words)) == 0
                    ? mmap(NULL, 8 * words, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                    : MAP_FAILED;
    if (map == MAP_FAILED)
        return ruche_error_errno(
            error, errno, "no memory for the log of pages that a vhost-user back end writes");
    h->log = map;
    h->log_words = words;
    h->log_fd = fd_steal(&fd);
    return true;
}

bool vnet_vhost_log(struct device *d, bool on, GError **error)
{
    struct vnet *s = container_of(d, struct vnet, pci.dev);
    struct vnet_vhost *h = s->vhost;
    if (!h || on == (h->log_fd >= 0))
        return true;
    const char *who = d->id ? d->id : d->path;
    if (on && vnet_vhost_ready(s) && !h->ops->can_log(s->netdev))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "device '%s': the vhost-user back end of netdev '%s' cannot tell which "
                           "pages it writes, "
                           "so the machine cannot be moved while it runs; stop it before",
                           who, s->netdev_id);
    if (on && !make_log(s, error))
        return false;
    h->log_changed = true;
    if (!on) {
        loop_call(d->loop, (void (*)(void *))stop, s);
        drop_log(h);
    }
    loop_call(d->loop, home_sync, s);
    return true;
}

void vnet_vhost_harvest(struct device *d)
{
    struct vnet *s = container_of(d, struct vnet, pci.dev);
    struct vnet_vhost *h = s->vhost;
    for (uint64_t i = 0; h && h->log && i < h->log_words; i++) {
        uint64_t bits = atomic_load_explicit(&h->log[i], memory_order_relaxed)
                            ? atomic_exchange(&h->log[i], 0)
                            : 0;
        for (; bits; bits &= bits - 1)
            mem_written(d->machine->memory, (i * 64 + (unsigned)__builtin_ctzll(bits)) * LOG_PAGE,
                        LOG_PAGE);
    }
}

/* --- life --- */

bool vnet_vhost_new(struct vnet *s, GError **error)
{
    struct vnet_vhost *h = g_new0(struct vnet_vhost, 1);
    s->vhost = h;
    h->ops = s->netdev->ops->vhost;
    h->sync = (struct loop_task){.fn = sync_rings, .opaque = s};
    h->log_fd = -1;
    for (unsigned n = 0; n < RINGS; n++)
        h->ring[n] = (struct lent_ring){.s = s, .call_fd = -1, .own_fd = -1};
    pthread_mutex_init(&h->lock, NULL);
    h->listener = (struct mem_listener){.commit = memory_changed, .opaque = s};
    mem_space_listen(s->pci.dev.machine->memory, &h->listener);
    h->err_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return h->err_fd >= 0 ||
           ruche_error_errno(error, errno, "virtio-net-pci: no descriptor for vhost-user");
}

static void home_begin(void *opaque)
{
    struct vnet *s = opaque;
    loop_fd_add(s->pci.dev.loop, &s->vhost->err_watch, s->vhost->err_fd, EPOLLIN, error_reported,
                s);
}

void vnet_vhost_begin(struct vnet *s)
{
    s->vhost->all = s->v.offered;
    loop_call(s->pci.dev.loop, home_begin, s);
    pthread_mutex_lock(&s->pci.dev.lock);
    vnet_vhost_offer(s);
    pthread_mutex_unlock(&s->pci.dev.lock);
}

static void home_end(void *opaque)
{
    struct vnet *s = opaque;
    struct vnet_vhost *h = s->vhost;
    loop_unpost(s->pci.dev.loop, &h->sync);
    loop_fd_remove(&h->err_watch);
    for (unsigned n = 0; n < RINGS; n++) {
        loop_fd_remove(&h->ring[n].watch);
        fd_close_keep_errno(h->ring[n].own_fd);
    }
}

void vnet_vhost_free(struct vnet *s)
{
    struct vnet_vhost *h = s->vhost;
    if (!h)
        return;
    h->ending = true;
    mem_space_unlisten(s->pci.dev.machine->memory, &h->listener);
    loop_call(s->pci.dev.loop, home_end, s);
    fd_close_keep_errno(h->err_fd);
    drop_log(h);
    pthread_mutex_destroy(&h->lock);
    s->vhost = NULL;
    g_free(h);
}
