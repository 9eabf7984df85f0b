/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside job/: what a kind of job is made of, and what its work may call.
 *
 * Thread    `type->run` is the work: a fiber of the job's context. It changes no graph. Everything
 *           else is driven from the main thread, which runs the type's other functions in fibers of
 *           the context while it waits, so that the graph never changes under a command.
 */
#pragma once

#include "image/driver.h"
#include "image/job.h"

struct job_type {
    enum job_kind kind;
    bool block;  /* seen by query-block-jobs */
    size_t size; /* of the struct that begins with struct job */
    /* The work. 0, or negative errno, with a sentence by job_fail() when one helps. */
    int (*run)(struct job *j);
    /* Of all jobs of the transaction, before any commit(); the last that may fail. May be NULL. */
    bool (*prepare)(struct job *j, GError **error);
    void (*commit)(struct job *j); /* it succeeded; may be NULL */
    void (*abort)(struct job *j);  /* it did not; may be NULL */
    void (*clean)(struct job *j);  /* in both cases, last: lets go of nodes */
    bool can_complete;             /* has a ready state, left by job-complete */
};

/* What the work tells the main thread. */
enum job_message_kind {
    JOB_SAYS_PAUSED,
    JOB_SAYS_RESUMED,
    JOB_SAYS_READY,
    JOB_SAYS_ERROR,
    JOB_SAYS_DONE
};

struct job {
    const struct job_type *type;
    struct job_set *set;
    struct job_transaction *txn;
    struct job *next, *txn_next;
    char *id;
    struct context *ctx; /* borrowed from the node */
    struct node *node;   /* shown to users; borrowed from the type's own links */
    char *who;           /* "job 'x'", for sentences */

    /* main thread */
    enum job_status status;
    bool auto_finalize, auto_dismiss, user_paused, started, finished, prepared, concluded, awaited;
    int result;
    char *error;                   /* why it failed */
    enum job_on_error on_error[2]; /* source, target */

    /* written by the main thread, read by the work */
    _Atomic unsigned pauses;
    _Atomic bool cancelled; /* end soon, undone */
    _Atomic bool
        stopped; /* end soon, at a consistent point, with success: a ready job was cancelled */
    _Atomic bool completing;
    _Atomic uint64_t speed;

    /* written by the work, read by the main thread */
    _Atomic uint64_t done, total;
    _Atomic bool busy, ready;
    _Atomic int io_error; /* errno of the last failed request; 0: none since it was resumed */

    /* of the work */
    struct fiber_queue wake; /* who sleeps, pauses or waits to be completed */
    struct loop_task begin_task, wake_task;
    int64_t next_ns; /* when the speed allows more */
    int quiet;       /* depth of drained sections: start nothing */
    char *sentence;  /* by job_fail(); read when it has finished */
};

/* ---- job.c: main thread ---- */

/* NULL: the id is bad or taken. Status created. */
struct job *job_new(struct job_set *s, const struct job_type *t, const struct job_common *c,
                    struct node *n, struct context *ctx, GError **error);
/* Undoes job_new(): nothing was announced yet. */
void job_free_new(struct job *j);
/* Announces it, and begins unless the caller holds it. */
void job_born(struct job *j, const struct job_common *c);
void job_set_status(struct job *j, enum job_status s);
void job_wake(struct job *j); /* the work looks at its flags */
void job_dismiss(struct job *j);
/* Runs one of the type's functions in a fiber of the job's context; NULL is fine. */
void job_call(struct job *j, void (*fn)(struct job *j));

/* ---- txn.c: main thread ---- */

void job_txn_join(struct job_transaction *t, struct job *j);
void job_txn_leave(struct job *j);
void job_txn_finished(struct job *j); /* the work of j has ended, with j->result */
void job_txn_finalize(struct job *j); /* all of j's transaction are pending */

/* ---- work.c: in the job's fibers ---- */

void job_tell(struct job *j, enum job_message_kind kind, bool write, enum job_on_error action);
/* True: the work is to end now. */
bool job_is_cancelled(const struct job *j);
/* Waits while paused. The caller has nothing in flight. */
void job_pause_point(struct job *j);
/* Until `ns` have passed, or a flag changed; 0: until one changes. */
void job_sleep(struct job *j, int64_t ns);
/* Waits until the speed allows bytes more. */
void job_pace(struct job *j, uint64_t bytes);
void job_add_done(struct job *j, uint64_t bytes);
void job_set_total(struct job *j, uint64_t bytes);
/* A request failed: what the policy makes of it. 0: try again, or go on; else the error to end
 * with. */
int job_io_failed(struct job *j, bool write, int err);
int job_fail(struct job *j, int err, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* ---- area.c: ranges of bytes that one fiber at a time works on ---- */

struct area {
    uint64_t off, end;
    struct fiber_queue waiters;
    struct area *next;
};
struct area_set {
    struct area *first;
};
/* Waits until nobody has an overlapping one. `a` is the caller's, until area_unlock(). */
void area_lock(struct area_set *s, struct area *a, uint64_t off, uint64_t len);
void area_unlock(struct area_set *s, struct area *a);
bool area_is_locked(const struct area_set *s, uint64_t off, uint64_t len);
/* Waits until somebody unlocks one that overlaps; at once when there is none. */
void area_wait(struct area_set *s, uint64_t off, uint64_t len);

/* ---- sweep.c: works through what is dirty in a bitmap, several chunks at a time ---- */

struct sweep_slot;
struct sweep {
    struct job *job;
    struct node *node; /* that is drained before it changes: chunks in work count as its requests */
    struct dirty_bitmap *todo;
    struct area_set *areas; /* shared with a filter that guards them; NULL: the sweep's own */
    unsigned workers;
    uint64_t chunk;  /* bytes at most at a time; a multiple of the granularity */
    uint64_t enough; /* after a round with no more than this dirty it ends, too */
    /* One chunk, locked and already clean in `todo`; `buf` has `chunk` bytes. 0 or negative errno,
     * then *ret_write says whose. */
    int (*copy)(struct sweep *s, uint64_t off, uint64_t len, void *buf, bool *ret_write);
    void *opaque;

    /* private */
    struct area_set own;
    uint64_t cursor;
    unsigned running;
    struct fiber_queue idle;
    struct sweep_slot *slots; /* `workers` of them */
    int error;
    bool error_write;
};
/* False: no memory. */
bool sweep_init(struct sweep *s);
void sweep_done(struct sweep *s); /* nothing running */
/* Until nothing (or little enough) is dirty and nothing runs (0), or the job is to end, or an
 * error ended it. */
int sweep_run(struct sweep *s);

/* ---- copy.c ---- */

struct copy_how {
    struct node *from, *to;
    struct node *base;     /* only what nodes above it hold; NULL: all */
    unsigned write_flags;  /* NODE_COMPRESSED... */
    bool unmap;            /* zeroes may deallocate */
    bool skip_unallocated; /* leave what no node above base holds */
    bool skip_zero;        /* the target reads as zeroes already */
};
/* Copies a range; zeroes stay zeroes. 0 or negative errno, *ret_write: the target's. */
int copy_range(const struct copy_how *h, uint64_t off, uint64_t len, void *buf, size_t buf_bytes,
               bool *ret_write);
/* A grain for bitmaps that guide the copying to `to`: its cluster, 64 KiB at least, and few
 * enough grains. */
uint32_t copy_granularity(const struct node *from, const struct node *to);
/* Grows `to` to the size of `from` when it is smaller. */
bool copy_make_room(struct node *from, struct node *to, GError **error);

/* ---- graph.c: in fibers, driven by the main thread ---- */

/* Puts a filter over n: options {"driver": driver, "file": n}; NULL with *error. The caller's
 * reference. */
struct node *filter_insert(struct node *n, const char *driver, const char *node_name,
                           JsonObject *more, GError **error);
/* Takes the filter out again: its parents have its child; drops the caller's reference. */
void filter_remove(struct node *filter);
/* The link of a job to a node. */
bool job_use_node(struct job *j, struct node_user *u, struct node *n, unsigned perms,
                  unsigned shared, GError **error);
/* Another backing file for a node, in its header and in the graph; it can be taken back, as long as
 * the node is drained, until it is settled. Zeroed at first; restore and settle of one that is so
 * are fine. */
struct backing_change {
    struct node *node;                 /* borrowed: its header was written; NULL: it was not */
    struct node *former;               /* referenced: what was below it; NULL: nothing */
    char *former_file, *former_format; /* as its header said */
    bool linked;                       /* the graph was changed, too */
};
/* file NULL: none. False: what was changed until then is left for backing_restore(). */
bool backing_change(struct backing_change *c, struct node *n, struct node *backing,
                    const char *file, GError **error);
void backing_restore(struct backing_change *c);
void backing_settle(struct backing_change *c);
/* is `below` a node of the chain under `n`? */
bool node_is_below(struct node *n, const struct node *below);
/* The node of n's chain whose backing file (filters in between) is `below`; NULL: none. */
struct node *node_overlay_of(struct node *n, const struct node *below);

/* ---- filters, for the jobs that use them; in fibers ---- */

/* In open(): what a filter takes over from the node that it passes requests to. */
void filter_inherit(struct node *n);

/* The request of a guest that a filter passes on, perhaps to several nodes. */
enum filter_op_kind { FILTER_WRITE, FILTER_ZERO, FILTER_DISCARD };
struct filter_op {
    enum filter_op_kind kind;
    uint64_t off, len;
    struct vec v; /* FILTER_WRITE */
    unsigned flags;
};
int filter_forward(struct node *to, const struct filter_op *o);

/* copy_on_read.c: populates the node under the filter. */
int copy_on_read_populate(struct node *filter, uint64_t off, uint64_t len, void *buf,
                          size_t buf_bytes, bool *ret_write);
void copy_on_read_set_bottom(struct node *filter,
                             struct node *base); /* nothing from base on is copied */

/* copy_before_write.c: what is dirty in `todo` goes to the target before it is overwritten. */
struct copy_before_write {
    struct node n;
    char *bitmap_node, *bitmap_name; /* options */
    int on_error;                    /* option: CBW_* */
    struct node *target;             /* borrowed: its child */
    struct dirty_bitmap *todo;       /* its own; NULL: nothing is copied */
    struct area_set areas;           /* being copied, by a guest's write or by the job */
    struct copy_how how;
    uint64_t cluster; /* of `todo` */
    int error;        /* the snapshot is broken; negative errno, 0: it is whole */
    struct job *job;  /* told about it; NULL: nobody */
};
enum { CBW_BREAK_GUEST_WRITE, CBW_BREAK_SNAPSHOT };
struct copy_before_write *copy_before_write_of(struct node *filter);

/* mirror_top.c: over the source of a mirror. */
struct mirror_top {
    struct node n;
    struct node *target;        /* borrowed from the job; NULL: requests just pass */
    struct dirty_bitmap *dirty; /* borrowed from the job */
    struct area_set areas;      /* being copied by the job, or written to both */
    bool active;                /* writes go to both */
    unsigned passive;           /* writes in flight that go to the source alone */
    struct job *job;            /* woken when there is work */
};
struct mirror_top *mirror_top_of(struct node *filter);
