/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside the image layer: struct image, the steps a request is made of, and the two engines that
 * run them.
 *
 * Owner     image_open() ... image_close().
 * Thread    The image's home loop, but for the worker threads of pool.c, which touch only the
 *           request that they were given.
 * Errors    A step ends with a byte count, 0 or a negative errno, like the system call behind it.
 */
#pragma once

#include "image/image.h"

#include <liburing.h>
#include <pthread.h>

#define IMAGE_RING_ENTRIES 128        /* requests that the kernel has at a time */
#define IMAGE_POOL_THREADS 4
#define IMAGE_BOUNCE_BYTES (1u << 20)
#define IMAGE_ZERO_BYTES (64u << 10)  /* of the shared zero buffer */
#define IMAGE_ZERO_IOVS 16
#define IMAGE_MAX_IOVS 1024           /* UIO_MAXIOV */

struct request_list {
    struct image_request *head, *tail;
};

static inline void request_list_push(struct request_list *l, struct image_request *r)
{
    r->next = NULL;
    if (l->head)
        l->tail->next = r;
    else
        l->head = r;
    l->tail = r;
}

static inline struct image_request *request_list_pop(struct request_list *l)
{
    struct image_request *r = l->head;
    if (r)
        l->head = r->next;
    return r;
}

/* One system call's worth of a request. */
enum step_kind {
    STEP_READ,
    STEP_WRITE,
    STEP_FALLOCATE,
    STEP_SYNC,
    STEP_BLOCK_DISCARD,
    STEP_NOTHING
};
struct image_step {
    enum step_kind kind;
    uint64_t offset, len;
    const struct iovec *iov;
    unsigned iov_count;
    int flags; /* RWF_* for transfers, FALLOC_FL_* */
};

/* Threads that make blocking calls: for kernels and sandboxes without io_uring, and for what
 * io_uring lacks. */
struct image_pool {
    pthread_t threads[IMAGE_POOL_THREADS];
    unsigned thread_count;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct request_list todo, done; /* under lock */
    bool stop;
    int eventfd;                    /* something is in `done` */
    struct loop_fd watch;
    unsigned in_flight;
};

struct image {
    struct image_info info;
    struct image_stats stats;
    char *filename, *node_name, *attached_to;
    int fd;
    bool block_device, direct, no_flush, writethrough, discard;
    bool can_punch, can_zero_range;        /* until the file system says no */
    uint32_t mem_align, offset_align;      /* of O_DIRECT; 1 otherwise */
    struct loop *loop;
    unsigned plugged;
    unsigned in_flight;                    /* accepted, `done` not yet called */
    bool has_ring;
    struct io_uring ring;
    struct loop_fd ring_watch;
    struct loop_timer retry;               /* the kernel had no memory for a submission */
    unsigned ring_in_flight;
    struct image_pool *pool;               /* NULL until needed */
    struct request_list waiting;           /* for a slot of the ring */
    struct request_list finished;          /* `done` is to be called from the loop */
    struct loop_task finish_task;
    void (*batch_end)(void *opaque);
    void *batch_opaque;
    uint8_t *bounce;                       /* NULL until needed */
    struct image_request *bounce_user;
    struct request_list bounce_waiting;
};

extern struct iovec image_zero_iov[IMAGE_ZERO_IOVS];

/* open.c */
/* 0 or -1 with *error */
int image_file_open(struct image *i, const struct image_options *o, GError **error);
/* lock.c: refuses when others use the file in a way that excludes us. Files that cannot be locked
 * pass. */
bool image_lock(int fd, const char *filename, bool write, bool force_share, GError **error);

/* request.c */
struct image_step image_step_of(struct image *i, struct image_request *r);
/* True: the request has ended with r->result; false: its next step is to be run. */
bool image_step_done(struct image *i, struct image_request *r, int result);
/* The blocking form of a step; any thread. */
int image_step_run(const struct image *i, const struct image_step *s);

/* engine.c */
int image_engine_init(struct image *i); /* 0 or -errno */
void image_engine_done(struct image *i);
int image_engine_set_loop(struct image *i, struct loop *l);
void image_engine_start(struct image *i, struct image_request *r);
void image_engine_flush(struct image *i);             /* hands what is queued to the kernel */
void image_engine_finish(struct image *i, struct image_request *r, int result);
/* until something completes, and handles it */
void image_engine_wait(struct image *i);

/* pool.c */
int image_pool_start(struct image *i);
void image_pool_stop(struct image *i);
void image_pool_push(struct image *i, struct image_request *r);
void image_pool_reap(struct image *i);
