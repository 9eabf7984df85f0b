/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `virtio-rng-pci`: random numbers from the host's kernel, at a bounded rate.
 *
 * Spec      VIRTIO 1.2, section 5.4.
 * Thread    The main loop, with the device's lock.
 * Trust     Chains are the guest's. A period's bytes are counted before they are given.
 */
#include "devices/virtio/virtio.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define QUEUE_SIZE 8
#define ROOM 64
#define CHUNK 256              /* getrandom() gives that much without interruption */
#define CHAIN_MAX (64 * KIB)   /* for one chain; the driver asks again */

struct vrng {
    VIRTIO_BASE;
    char *rng;                 /* -object rng-*: accepted; the kernel is the source */
    uint64_t max_bytes;
    uint32_t period_ms;
    struct clock_timer refill;
    bool timer_ready;
    uint64_t left;             /* of this period */
    uint64_t bytes, throttled;
};

static size_t fill(struct vrng *s, const struct vq_elem *e, size_t want)
{
    uint8_t chunk[CHUNK];
    size_t done = 0;
    while (done < want) {
        ssize_t n = getrandom(chunk, min_u64(want - done, CHUNK), GRND_NONBLOCK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += vq_copy_in(e, done, chunk, (size_t)n);
    }
    explicit_bzero(chunk, sizeof(chunk));
    return done;
}

static void serve(struct vrng *s)
{
    struct vq *q = &s->v.queue[0];
    struct iovec iov[ROOM];
    uint64_t gpa[ROOM];
    struct vq_elem e = { .iov = iov, .gpa = gpa, .room = ROOM };
    for (unsigned budget = q->size; budget && s->left && virtio_pop(&s->v, 0, &e); budget--) {
        if (!e.in_bytes) {
            virtio_broken(&s->v, "a request for random numbers without room for them");
            break;
        }
        size_t n = fill(s, &e, min_u64(min_u64(e.in_bytes, s->left), CHAIN_MAX));
        s->left -= s->max_bytes == INT64_MAX ? 0 : n;
        s->bytes += n;
        vq_push(q, &e, (uint32_t)n);
    }
    virtio_publish(&s->v, 0);
    if (s->left)
        virtio_rearm(&s->v, 0);
    else
        s->throttled++; /* refill() comes back */
}

static void vrng_handle(struct virtio *v, unsigned queue)
{
    serve(container_of(v, struct vrng, v));
}

static void refill(void *opaque)
{
    struct vrng *s = opaque;
    pthread_mutex_lock(&s->pci.dev.lock);
    s->left = s->max_bytes;
    if (virtio_running(&s->v) && s->v.queue[0].enabled)
        serve(s);
    pthread_mutex_unlock(&s->pci.dev.lock);
    clock_timer_arm(&s->refill,
                    clock_now_ns(&s->pci.dev.machine->clock) + s->period_ms * NS_PER_MS);
}

static void vrng_reset(struct virtio *v)
{
    struct vrng *s = container_of(v, struct vrng, v);
    s->left = s->max_bytes;
}

static const struct virtio_ops vrng_ops = {
    .id = VIRTIO_ID_RNG,
    .class_code = 0x00,
    .subclass = 0xff,
    .handle = vrng_handle,
    .reset = vrng_reset,
};

static bool vrng_realize(struct device *d, GError **error)
{
    struct vrng *s = container_of(d, struct vrng, pci.dev);
    if (!s->max_bytes || s->max_bytes > INT64_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "virtio-rng-pci: max-bytes=%" G_GUINT64_FORMAT
                           ": from 1 to 2^63-1 are possible", s->max_bytes);
    s->left = s->max_bytes;
    const uint16_t size = QUEUE_SIZE;
    if (!virtio_init(&s->v, &vrng_ops, 0, 1, &size, 0, error))
        return false;
    clock_timer_init(&d->machine->clock, d->loop, &s->refill, refill, s);
    s->timer_ready = true;
    if (s->max_bytes != INT64_MAX)
        clock_timer_arm(&s->refill, s->period_ms * NS_PER_MS);
    return true;
}

static bool vrng_loaded(struct device *d, GError **error)
{
    struct vrng *s = container_of(d, struct vrng, pci.dev);
    s->left = min_u64(s->left, s->max_bytes);
    clock_timer_loaded(&s->refill);
    return true;
}

static void vrng_unrealize(struct device *d)
{
    struct vrng *s = container_of(d, struct vrng, pci.dev);
    virtio_done(&s->v);
    if (s->timer_ready)
        clock_timer_done(&s->refill);
    s->timer_ready = false;
}

static const struct prop vrng_props[] = {
    PROP_STRING("rng", struct vrng, rng,
                .help = "Accepted: the host kernel's generator is always the source"),
    PROP_U64("max-bytes", struct vrng, max_bytes, .def = INT64_MAX, .help = "Bytes in a period"),
    PROP_U32("period", struct vrng, period_ms, .def = 65536, .min = 1, .max = UINT32_MAX,
             .help = "Milliseconds of a period"),
    VIRTIO_PROPS(struct vrng),
    { 0 },
};

static const struct state_field vrng_state[] = { STATE(struct vrng, left),
                                                 STATE(struct vrng, refill.deadline_ns),
                                                 { 0 } };

static const struct device_counter vrng_counters[] = {
    COUNTER(struct vrng, bytes, "Random bytes given"),
    COUNTER(struct vrng, throttled, "Times the period's bytes were used up"),
    VIRTIO_COUNTERS(struct vrng),
    { 0 },
};

static const char *const vrng_aliases[] = { "virtio-rng", NULL };

static const struct device_type vrng_type = {
    .name = "virtio-rng-pci",
    .aliases = vrng_aliases,
    .summary = "Random numbers",
    .spec = "VIRTIO 1.2, section 5.4",
    .bus = BUS_PCI,
    .size = sizeof(struct vrng),
    .props = vrng_props,
    .state = vrng_state,
    .counters = vrng_counters,
    .realize = vrng_realize,
    .reset = virtio_reset,
    .load_after = vrng_loaded,
    .unrealize = vrng_unrealize,
};
DEVICE_TYPE(vrng_type);
