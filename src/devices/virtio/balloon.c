/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `virtio-balloon-pci`: memory that the guest gives back to the host, for a while (balloon) or
 * until it touches it again (free page reporting); and what the guest says of its memory.
 *
 * Spec      VIRTIO 1.2, section 5.5.
 * Thread    The main loop, with the device's lock.
 * Trust     Page numbers are the guest's: only its own RAM is given back, which hurts nobody but
 * it. One chain has at most CHAIN_PAGES pages; each notification looks at as many chains as the
 * queue has.
 */
#include "devices/virtio/balloon.h"

#include "devices/virtio/virtio.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define QUEUE_SIZE  128
#define ROOM        256
#define PAGE        4096u
#define CHAIN_PAGES 4096u
#define STAT_BYTES  10u /* tag and value, packed */
#define MAX_STATS   64u

enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUE_STATS, QUEUES = 4 };
enum { F_MUST_TELL_HOST = 0, F_STATS = 1, F_DEFLATE_ON_OOM = 2, F_REPORTING = 5 };
enum { CONFIG_TARGET = 0, CONFIG_ACTUAL = 4, CONFIG_BYTES = 8 };

const char *const balloon_stat_names[BALLOON_STATS] = {
    "stat-swap-in",      "stat-swap-out",     "stat-major-faults",     "stat-minor-faults",
    "stat-free-memory",  "stat-total-memory", "stat-available-memory", "stat-disk-caches",
    "stat-htlb-pgalloc", "stat-htlb-pgfail",
};

struct vballoon {
    VIRTIO_BASE;
    bool deflate_on_oom, reporting;
    struct clock_timer poll;
    bool timer_ready;
    uint32_t poll_s;
    bool asked;                /* the driver's buffer for statistics is here: `stats_elem` */
    struct vq_elem stats_elem; /* without its buffers, which were read */
    struct balloon_stats stats;
    uint64_t inflated, deflated, reported; /* pages */
};

static uint32_t get_config(const struct vballoon *s, unsigned off)
{
    uint32_t v;
    memcpy(&v, s->v.config + off, sizeof(v));
    return v;
}

static uint64_t all_pages(const struct vballoon *s)
{
    return s->pci.dev.machine->config.ram_bytes / PAGE;
}

/* ---- giving memory back ---- */

/* The host takes the pages; what the guest reads there next is zeroes. */
static void give_back(struct vballoon *s, uint64_t gpa, uint64_t len)
{
    struct mem_space *mem = s->pci.dev.machine->memory;
    while (len >= PAGE) {
        uint64_t here = 0;
        void *p = mem_ram(mem, gpa, len, true, &here);
        here -= here % PAGE;
        if (!p || !here)
            return;
        if (madvise(p, here, MADV_REMOVE) && errno == EINVAL)
            madvise(p, here, MADV_DONTNEED); /* not shared memory */
        mem_written(mem, gpa, here);
        gpa += here;
        len -= here;
    }
}

static bool take_pages(struct vballoon *s, const struct vq_elem *e, bool inflate)
{
    uint32_t pages[64];
    if (e->out_bytes % sizeof(uint32_t) || e->out_bytes / sizeof(uint32_t) > CHAIN_PAGES)
        return false;
    for (size_t at = 0; at < e->out_bytes;) {
        size_t n = vq_copy_out(e, at, pages, sizeof(pages));
        for (size_t i = 0; inflate && i < n / sizeof(uint32_t); i++)
            give_back(s, (uint64_t)pages[i] * PAGE, PAGE);
        at += n;
        *(inflate ? &s->inflated : &s->deflated) += n / sizeof(uint32_t);
    }
    return true;
}

static void serve_pages(struct vballoon *s, unsigned queue)
{
    struct iovec iov[ROOM];
    uint64_t gpa[ROOM];
    struct vq_elem e = {.iov = iov, .gpa = gpa, .room = ROOM};
    for (unsigned budget = s->v.queue[queue].size; budget && virtio_pop(&s->v, queue, &e);
         budget--) {
        if (!take_pages(s, &e, queue == QUEUE_INFLATE)) {
            virtio_broken(&s->v, "a list of pages that is too long, or not of whole numbers");
            break;
        }
        vq_push(&s->v.queue[queue], &e, 0);
    }
    virtio_publish(&s->v, queue);
    virtio_rearm(&s->v, queue);
}

/* Buffers are the free memory itself. */
static void serve_reports(struct vballoon *s, unsigned queue)
{
    struct iovec iov[ROOM];
    uint64_t gpa[ROOM];
    struct vq_elem e = {.iov = iov, .gpa = gpa, .room = ROOM};
    for (unsigned budget = s->v.queue[queue].size; budget && virtio_pop(&s->v, queue, &e);
         budget--) {
        for (unsigned i = e.out_count; i < (unsigned)e.out_count + e.in_count; i++) {
            uint64_t begin = align_up(gpa[i], PAGE),
                     end = align_down(gpa[i] + iov[i].iov_len, PAGE);
            if (end > begin)
                give_back(s, begin, end - begin);
            s->reported += end > begin ? (end - begin) / PAGE : 0;
        }
        vq_push(&s->v.queue[queue], &e, 0);
    }
    virtio_publish(&s->v, queue);
    virtio_rearm(&s->v, queue);
}

/* ---- what the guest says ---- */

static void read_stats(struct vballoon *s, const struct vq_elem *e)
{
    uint8_t row[STAT_BYTES];
    for (size_t at = 0; at + STAT_BYTES <= e->out_bytes && at < MAX_STATS * STAT_BYTES;
         at += STAT_BYTES) {
        uint16_t tag;
        uint64_t value;
        vq_copy_out(e, at, row, sizeof(row));
        memcpy(&tag, row, sizeof(tag));
        memcpy(&value, row + sizeof(tag), sizeof(value));
        if (tag < BALLOON_STATS)
            s->stats.value[tag] = value > INT64_MAX ? -1 : (int64_t)value;
    }
    s->stats.updated_s = time(NULL);
}

/* The driver's one buffer stays with us until we want to hear again. */
static void serve_stats(struct vballoon *s)
{
    struct iovec iov[ROOM];
    uint64_t gpa[ROOM];
    struct vq_elem e = {.iov = iov, .gpa = gpa, .room = ROOM};
    if (s->asked || !virtio_pop(&s->v, QUEUE_STATS, &e))
        return;
    read_stats(s, &e);
    e.iov = NULL;
    e.gpa = NULL;
    s->stats_elem = e;
    s->asked = true;
    virtio_rearm(&s->v, QUEUE_STATS);
}

static void arm(struct vballoon *s)
{
    if (s->poll_s)
        clock_timer_arm(&s->poll,
                        clock_now_ns(&s->pci.dev.machine->clock) + s->poll_s * NS_PER_SEC);
}

static void ask_again(void *opaque)
{
    struct vballoon *s = opaque;
    pthread_mutex_lock(&s->pci.dev.lock);
    if (s->asked && virtio_running(&s->v) && s->v.queue[QUEUE_STATS].enabled) {
        s->asked = false;
        vq_push(&s->v.queue[QUEUE_STATS], &s->stats_elem, 0);
        virtio_publish(&s->v, QUEUE_STATS);
    }
    arm(s);
    pthread_mutex_unlock(&s->pci.dev.lock);
}

/* ---- the device ---- */

static void vballoon_handle(struct virtio *v, unsigned queue)
{
    struct vballoon *s = container_of(v, struct vballoon, v);
    /* Queues of features that the driver did not take are left out of the count. */
    bool has_stats = virtio_has(v, F_STATS);
    if (queue == QUEUE_STATS && has_stats)
        serve_stats(s);
    else if (queue >= QUEUE_STATS)
        serve_reports(s, queue);
    else
        serve_pages(s, queue);
}

static uint64_t actual_bytes(const struct vballoon *s)
{
    uint64_t given = get_config(s, CONFIG_ACTUAL), all = all_pages(s);
    return (all - min_u64(given, all)) * PAGE;
}

static void vballoon_config_written(struct virtio *v, unsigned off, unsigned len)
{
    struct vballoon *s = container_of(v, struct vballoon, v);
    char text[24];
    const char *const pairs[] = {"actual", text, NULL};
    snprintf(text, sizeof(text), "%" PRIu64, actual_bytes(s));
    machine_event(s->pci.dev.machine, "BALLOON_CHANGE", pairs);
}

static void forget_stats(struct vballoon *s)
{
    for (unsigned i = 0; i < BALLOON_STATS; i++)
        s->stats.value[i] = -1;
    s->stats.updated_s = 0;
    s->asked = false;
}

static void vballoon_queue_reset(struct virtio *v, unsigned queue)
{
    if (queue == QUEUE_STATS)
        container_of(v, struct vballoon, v)->asked = false;
}

/* The target is ours and stays; a new driver begins with an empty balloon. */
static void vballoon_reset(struct virtio *v)
{
    struct vballoon *s = container_of(v, struct vballoon, v);
    VIRTIO_SET(v, CONFIG_ACTUAL, uint32_t, 0);
    forget_stats(s);
}

static const struct virtio_ops vballoon_ops = {
    .id = VIRTIO_ID_BALLOON,
    .class_code = 0x00,
    .subclass = 0xff,
    .handle = vballoon_handle,
    .config_written = vballoon_config_written,
    .queue_reset = vballoon_queue_reset,
    .reset = vballoon_reset,
};

static bool vballoon_realize(struct device *d, GError **error)
{
    struct vballoon *s = container_of(d, struct vballoon, pci.dev);
    const uint16_t size[QUEUES] = {QUEUE_SIZE};
    uint64_t features = VIRTIO_F(F_STATS) | (s->deflate_on_oom ? VIRTIO_F(F_DEFLATE_ON_OOM) : 0) |
                        (s->reporting ? VIRTIO_F(F_REPORTING) : 0);
    struct device *other = balloon_find(d->machine);
    if (other && other != d)
        return ruche_error(error, RUCHE_ERR_INVALID, "virtio-balloon-pci: a machine has only one");
    if (!virtio_init(&s->v, &vballoon_ops, features, s->reporting ? QUEUES : QUEUES - 1, size,
                     CONFIG_BYTES, error))
        return false;
    memset(s->v.config_writable + CONFIG_ACTUAL, 0xff, sizeof(uint32_t));
    forget_stats(s);
    clock_timer_init(&d->machine->clock, d->loop, &s->poll, ask_again, s);
    s->timer_ready = true;
    return true;
}

static bool vballoon_loaded(struct device *d, GError **error)
{
    struct vballoon *s = container_of(d, struct vballoon, pci.dev);
    const struct vq *q = &s->v.queue[QUEUE_STATS];
    s->stats_elem = (struct vq_elem){.id = s->stats_elem.id, .slots = s->stats_elem.slots};
    if (s->asked && (!s->stats_elem.slots || s->stats_elem.slots > q->in_flight ||
                     (!q->packed && s->stats_elem.id >= q->size)))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "state of device 'virtio-balloon-pci': the buffer for statistics is %u, of %u slots, "
                           "in a queue of %u with %u in flight",
                           s->stats_elem.id, s->stats_elem.slots, q->size, q->in_flight);
    clock_timer_loaded(&s->poll);
    return true;
}

static void vballoon_unrealize(struct device *d)
{
    struct vballoon *s = container_of(d, struct vballoon, pci.dev);
    virtio_done(&s->v);
    if (s->timer_ready)
        clock_timer_done(&s->poll);
    s->timer_ready = false;
}

static const struct prop vballoon_props[] = {
    PROP_BOOL("deflate-on-oom", struct vballoon, deflate_on_oom,
              .help = "The guest may take memory back when it runs out"),
    PROP_BOOL("free-page-reporting", struct vballoon, reporting,
              .help = "The guest tells which memory it does not use"),
    VIRTIO_PROPS(struct vballoon),
    {0},
};

static const struct state_field vballoon_state[] = {
    STATE(struct vballoon, poll_s),
    STATE(struct vballoon, poll.deadline_ns),
    STATE(struct vballoon, asked),
    STATE(struct vballoon, stats_elem.id),
    STATE(struct vballoon, stats_elem.slots),
    STATE_ARRAY(struct vballoon, stats.value),
    STATE(struct vballoon, stats.updated_s),
    {0}};

static const struct device_counter vballoon_counters[] = {
    COUNTER(struct vballoon, inflated, "Pages that the guest gave"),
    COUNTER(struct vballoon, deflated, "Pages that it took back"),
    COUNTER(struct vballoon, reported, "Pages that it reported as free"),
    VIRTIO_COUNTERS(struct vballoon),
    {0},
};

static const char *const vballoon_aliases[] = {"virtio-balloon", NULL};

static const struct device_type vballoon_type = {
    .name = "virtio-balloon-pci",
    .aliases = vballoon_aliases,
    .summary = "Memory that the guest gives back",
    .spec = "VIRTIO 1.2, section 5.5",
    .bus = BUS_PCI,
    .size = sizeof(struct vballoon),
    .props = vballoon_props,
    .state = vballoon_state,
    .counters = vballoon_counters,
    .realize = vballoon_realize,
    .reset = virtio_reset,
    .load_after = vballoon_loaded,
    .unrealize = vballoon_unrealize,
};
DEVICE_TYPE(vballoon_type);

/* ---- for the monitor ---- */

struct device *balloon_find(struct machine *m)
{
    for (struct device *d = m->devices; d; d = d->next)
        if (d->type == &vballoon_type && d->realized)
            return d;
    return NULL;
}

void balloon_set_target(struct device *d, uint64_t bytes)
{
    struct vballoon *s = container_of(d, struct vballoon, pci.dev);
    pthread_mutex_lock(&d->lock);
    uint64_t all = all_pages(s);
    VIRTIO_SET(&s->v, CONFIG_TARGET, uint32_t, (uint32_t)(all - min_u64(bytes / PAGE, all)));
    virtio_config_changed(&s->v);
    pthread_mutex_unlock(&d->lock);
}

uint64_t balloon_actual(struct device *d)
{
    struct vballoon *s = container_of(d, struct vballoon, pci.dev);
    pthread_mutex_lock(&d->lock);
    uint64_t bytes = actual_bytes(s);
    pthread_mutex_unlock(&d->lock);
    return bytes;
}

void balloon_get_stats(struct device *d, struct balloon_stats *ret)
{
    struct vballoon *s = container_of(d, struct vballoon, pci.dev);
    pthread_mutex_lock(&d->lock);
    *ret = s->stats;
    pthread_mutex_unlock(&d->lock);
}

unsigned balloon_poll_s(struct device *d)
{
    return container_of(d, struct vballoon, pci.dev)->poll_s;
}

void balloon_set_poll(struct device *d, unsigned seconds)
{
    struct vballoon *s = container_of(d, struct vballoon, pci.dev);
    pthread_mutex_lock(&d->lock);
    s->poll_s = seconds;
    if (seconds)
        arm(s);
    else
        clock_timer_cancel(&s->poll);
    pthread_mutex_unlock(&d->lock);
}
