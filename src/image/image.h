/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disk images as devices and tools see them: open by description, asynchronous requests, events.
 *
 * A device never knows the format or the protocol behind a struct image.
 *
 * Owner     image_open() ... image_close(); a device borrows it (image_attach()).
 * Thread    Open and close: main thread. Requests: submitted and completed on the loop that
 *           image_set_loop() named (one at this time; several queues share it).
 * Units     Bytes everywhere; offsets and lengths are multiples of `block_bytes`.
 * Trust     Image contents are hostile; offsets and lengths are checked here against the size.
 * Errors    Requests end with 0 or negative errno: -ENOSPC, -EIO, -EROFS, -EINVAL (out of range).
 */
#pragma once

#include "base/error.h"
#include "base/loop.h"

#include <sys/uio.h>

struct image;

enum image_op { IMAGE_READ, IMAGE_WRITE, IMAGE_FLUSH, IMAGE_DISCARD, IMAGE_WRITE_ZEROES };

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
    struct image_request *next;
    uint64_t progress;       /* bytes done */
    int64_t begin_ns;
    /* the rest of a vector that a short transfer cut, or the bounce buffer */
    struct iovec piece;
    unsigned iov_index;      /* where `progress` stands in iov */
    size_t iov_done;
    int result;
    uint8_t stage;           /* image/request.c */
    uint8_t retries;         /* steps that the kernel asked to repeat */
    bool bounced;            /* goes through the image's aligned buffer */
};

struct image_info {
    uint64_t size_bytes;
    uint32_t block_bytes;    /* logical block, 512 or 4096 */
    uint32_t physical_block_bytes;
    uint32_t discard_granularity;
    bool read_only, can_discard, can_write_zeroes;
    const char *format, *filename, *node_name;
};

enum image_cache {
    IMAGE_CACHE_WRITEBACK,
    IMAGE_CACHE_NONE,
    IMAGE_CACHE_WRITETHROUGH,
    IMAGE_CACHE_UNSAFE,
    IMAGE_CACHE_DIRECTSYNC
};
enum image_on_error {
    IMAGE_ERROR_REPORT,
    IMAGE_ERROR_IGNORE,
    IMAGE_ERROR_STOP,
    IMAGE_ERROR_ENOSPC
};

/* What -drive and -blockdev say. Strings are borrowed during the call. */
struct image_options {
    const char *filename;
    const char *format;      /* NULL: probed; only raw is known until the image issue */
    const char *node_name;
    bool read_only, auto_read_only, snapshot;
    bool direct, no_flush;   /* cache.direct, cache.no-flush */
    bool writethrough;
    bool discard;            /* discard=unmap */
    bool locking;            /* default true: other openers are refused */
    bool force_share;
    int fd;                  /* an open descriptor to use instead of opening filename, or -1 */
};

/* Cumulative, for query-blockstats; read without a lock. */
struct image_stats {
    uint64_t bytes[5], ops[5], failed[5]; /* by enum image_op */
    uint64_t total_ns[5];
    uint64_t invalid[5];                  /* refused before submission */
    uint64_t wr_highest_offset;
    int64_t idle_since_ns;
};

/* NULL with a sentence: missing, truncated to nothing, is a directory, in use by process N... */
struct image *image_open(const struct image_options *o, GError **error);
void image_close(struct image *i); /* waits for requests in flight; NULL is fine */
void image_get_info(const struct image *i, struct image_info *ret);
const struct image_stats *image_get_stats(const struct image *i);
/* One device at a time: false with -EBUSY's sentence. */
bool image_attach(struct image *i, const char *user, GError **error);
void image_detach(struct image *i);
const char *image_attached_to(const struct image *i); /* NULL: nobody */
/* Where requests run; before the first request, or when none is in flight. 0 or -errno. */
int image_set_loop(struct image *i, struct loop *l);

/* Home loop. `done` is always called, later, on the loop: never from inside submit. */
void image_submit(struct image *i, struct image_request *r);
/* fn is called on the loop after each round of `done` calls, however many: one interrupt for all.
 * NULL: none. */
void image_on_batch(struct image *i, void (*fn)(void *opaque), void *opaque);
/* Submissions between plug and unplug reach the kernel together. */
void image_plug(struct image *i);
void image_unplug(struct image *i);
/* Returns when nothing is in flight. Home loop, or its thread not running. */
void image_drain(struct image *i);
/* Synchronous, for loaders and tests; not from a loop that has requests in flight. 0 or -errno. */
int image_read_sync(struct image *i, uint64_t offset, void *buf, uint64_t len);
