/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disk images as devices see them: asynchronous requests, error policy, limits, events. What is behind
 * an image (image/node.h) a device never knows.
 *
 * Owner     image_new() ... image_close(); a device borrows it (image_attach()).
 * Thread    New and close: main thread. Requests: submitted and completed on the loop that
 *           image_set_loop() named (one at a time; several queues share it).
 * Units     Bytes everywhere; offsets and lengths are multiples of `block_bytes`.
 * Trust     Image contents are hostile; offsets and lengths are checked here against the size.
 * Errors    Requests end with 0 or negative errno: -ENOSPC, -EIO, -EROFS, -EINVAL (out of range),
 *           -ENOMEDIUM.
 */
#pragma once

#include "base/error.h"
#include "base/loop.h"
#include "image/stats.h"

#include <sys/uio.h>

struct image;
struct node;
struct throttle_limits;

/* One request, embedded by the submitter, who keeps it and the vectors alive until `done` is
 * called. */
struct image_request {
    enum image_op op;
    uint64_t offset, len;
    const struct iovec *iov; /* READ, WRITE: guest memory; total length = len */
    unsigned iov_count;
    bool may_unmap;          /* WRITE_ZEROES: deallocation is welcome */
    bool fua;                /* WRITE: durable when done */
    void (*done)(struct image_request *r, int result);
    void *opaque;
    /* private to the image layer while in flight */
    struct image *image;
    struct image_request *next;
    int64_t begin_ns;
    int result;
};

struct image_info {
    uint64_t size_bytes;
    uint32_t block_bytes;    /* logical block, 512 or 4096 */
    uint32_t physical_block_bytes;
    uint32_t discard_granularity;
    bool read_only, can_discard, can_write_zeroes;
    const char *format, *filename, *node_name;
};

enum image_on_error {
    IMAGE_ERROR_REPORT,
    IMAGE_ERROR_IGNORE,
    IMAGE_ERROR_STOP,
    IMAGE_ERROR_ENOSPC       /* stop when the disk is full, report otherwise */
};

/* A device's view of node n (NULL: no medium yet), of which it takes a reference; `name` for messages. Writes
 * are asked for unless n is read-only. NULL with *error: somebody uses n in a way that excludes us. */
struct image *image_new(const char *name, struct node *n, GError **error);
void image_close(struct image *i); /* waits for requests in flight; NULL is fine */
const char *image_name(const struct image *i);
struct node *image_node(const struct image *i); /* borrowed; NULL: no medium */
/* Changes the medium; nothing in flight. */
bool image_set_node(struct image *i, struct node *n, GError **error);
void image_get_info(const struct image *i, struct image_info *ret);
/* Read without a lock. */
const struct image_stats *image_get_stats(const struct image *i);
/* How long requests of that kind take from now on is counted in h, which is the image's then; NULL: not counted.
 * Home loop, or nobody runs it. */
void image_set_histogram(struct image *i, enum image_op op, struct latency_histogram *h);
const struct latency_histogram *image_get_histogram(const struct image *i, enum image_op op);
/* Every write is durable when done. */
void image_set_writethrough(struct image *i, bool on);
bool image_is_writethrough(const struct image *i);
/* What happens to failed requests; the default is REPORT for reads, ENOSPC for writes. */
void image_set_on_error(struct image *i, enum image_on_error read, enum image_on_error write);
void image_get_on_error(const struct image *i, enum image_on_error *ret_read,
                        enum image_on_error *ret_write);
/* Limits, by name of a group or (NULL) for this image alone. Home loop, or nobody runs it. */
void image_set_throttle(struct image *i, const char *group, const struct throttle_limits *l);
bool image_get_throttle(const struct image *i, const char **ret_group, struct throttle_limits *ret);

/* One device at a time: false with -EBUSY's sentence. */
bool image_attach(struct image *i, const char *user, GError **error);
void image_detach(struct image *i);
const char *image_attached_to(const struct image *i); /* NULL: nobody */
/* Where requests run; before the first request, or when none is in flight. 0 or -errno. */
int image_set_loop(struct image *i, struct loop *l);
struct loop *image_loop(const struct image *i); /* NULL: none was named */

/* Home loop. `done` is always called, later, on the loop: never from inside submit. */
void image_submit(struct image *i, struct image_request *r);
/* fn is called on the loop after each round of `done` calls, however many: one interrupt for all.
 * NULL: none. */
void image_on_batch(struct image *i, void (*fn)(void *opaque), void *opaque);
/* Submissions between plug and unplug reach the kernel together. */
void image_plug(struct image *i);
void image_unplug(struct image *i);
/* Returns when nothing is in flight but what an error holds (image_resume()). Home loop, or its thread
 * not running. */
void image_drain(struct image *i);

struct image_events {
    /* The size changed. Home loop. */
    void (*resized)(void *opaque);
    void *opaque;
};
void image_on_event(struct image *i, const struct image_events *e);
/* The medium was opened anew: `resized`, whatever its size. Home loop. */
void image_look_again(struct image *i);
/* The machine: a request failed; `stop`: it is kept, and the machine is to be stopped. Home loop. Process-wide. */
typedef void image_error_fn(const struct image *i, bool write, enum image_on_error policy, bool stop, int err);
void image_on_error_event(image_error_fn *fn);
/* Starts kept requests again, when the machine goes on. Any thread. */
void image_resume(struct image *i);
/* Kept requests, in the order in which they failed. Home loop, nothing in flight. */
void image_foreach_held(const struct image *i, void (*fn)(struct image_request *r, void *opaque), void *opaque);
/* The first kept request, which is the submitter's again without `done`; NULL: there is none. Home loop. */
struct image_request *image_take_held(struct image *i);

/* Synchronous, for loaders and tests; not from a loop that has requests in flight. 0 or -errno. */
int image_read_sync(struct image *i, uint64_t offset, void *buf, uint64_t len);
