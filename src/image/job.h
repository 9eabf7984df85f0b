/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Jobs: long work on nodes while guests go on: stream, commit, mirror, backup, create, amend.
 *
 * Spec      QEMU's job states and block-job commands.
 * Owner     A job_set (the machine's, or the tool's) owns its jobs until they are dismissed.
 * Thread    Commands: the main thread, outside of fibers. The work: a fiber of the node's context.
 *           Listeners are called on the main thread.
 * Errors    Sentences; an I/O error meets the job's on-error policy.
 */
#pragma once

#include "image/dirty.h"
#include "image/node.h"

struct job;
struct job_set;

enum job_kind { JOB_STREAM, JOB_COMMIT, JOB_MIRROR, JOB_BACKUP, JOB_CREATE, JOB_AMEND, JOB_KINDS };
enum job_status {
    JOB_UNDEFINED, JOB_CREATED, JOB_RUNNING, JOB_PAUSED, JOB_READY, JOB_STANDBY, JOB_WAITING,
    JOB_PENDING, JOB_ABORTING, JOB_CONCLUDED, JOB_NULL, JOB_STATUSES
};
extern const char *const job_kind_words[];   /* "stream", "commit", ... */
extern const char *const job_status_words[]; /* "undefined", "created", ... */

enum job_verb {
    JOB_VERB_CANCEL, JOB_VERB_PAUSE, JOB_VERB_RESUME, JOB_VERB_SET_SPEED, JOB_VERB_COMPLETE,
    JOB_VERB_FINALIZE, JOB_VERB_DISMISS, JOB_VERBS
};
enum job_on_error { JOB_ERROR_REPORT, JOB_ERROR_IGNORE, JOB_ERROR_ENOSPC, JOB_ERROR_STOP };

struct job_info {
    const char *id;
    enum job_kind kind;
    enum job_status status;
    uint64_t done, total;        /* bytes of progress; total may grow */
    uint64_t speed;              /* bytes a second, 0: no limit */
    bool paused, busy, ready, auto_finalize, auto_dismiss, failed_io, no_space;
    bool cancelled;              /* its end is a cancellation, not a failure */
    const char *error;           /* NULL: none */
};

struct job_listener {
    void (*status)(struct job *j, void *opaque);   /* JOB_STATUS_CHANGE and what follows from it */
    void (*io_error)(struct job *j, bool write, enum job_on_error action, void *opaque);
    void *opaque;
};

/* main: the loop on which listeners are called and jobs go on; NULL: only in job_wait(). l may
 * be NULL. */
struct job_set *job_set_new(struct loop *main, const struct job_listener *l);
void job_set_free(struct job_set *s); /* cancels and waits */
struct job *job_find(const struct job_set *s, const char *id);
struct job *job_next(const struct job_set *s, const struct job *after);
void job_get_info(const struct job *j, struct job_info *ret);
/* False: a sentence with the job's status. force: cancel a ready mirror without completing it. */
bool job_do(struct job *j, enum job_verb v, uint64_t speed, bool force, GError **error);
/* Main thread: serves the contexts until the job has concluded; false with its error. */
bool job_wait(struct job *j, GError **error);

struct job_common {
    const char *id;              /* NULL: refused */
    uint64_t speed;
    enum job_on_error on_error_source, on_error_target;
    bool auto_finalize, auto_dismiss;
    struct job_transaction *txn; /* NULL: alone */
    bool hold;                   /* made, but not begun: job_start() or job_drop() follows */
};
void job_start(struct job *j);
void job_drop(struct job *j);    /* undoes what was made; of a job that was not started */
/* Jobs that succeed or fail together. */
struct job_transaction;
struct job_transaction *job_transaction_new(void);
void job_transaction_put(struct job_transaction *t);

/* Copies what lies below `n` up to `base` (exclusive; NULL: all) into n, then makes base its
 * backing file. bottom: the last node that is copied, instead of base. filter_name: of the filter over n
 * meanwhile; NULL: made up. */
struct job *job_stream(struct job_set *s, const struct job_common *c, struct node *n,
                       struct node *base, struct node *bottom, const char *backing_file,
                       const char *filter_name, GError **error);
/* Copies the nodes from top (inclusive) down to base (exclusive) into base and takes them out of
 * the chain of `n`. top == n: the active layer; ready, then job_complete. filter_name: of a filter over
 * top meanwhile; NULL: one only over the active layer, its name made up. */
struct job *job_commit(struct job_set *s, const struct job_common *c, struct node *n,
                       struct node *top, struct node *base, const char *backing_file,
                       const char *filter_name, GError **error);

enum sync_mode { SYNC_FULL, SYNC_TOP, SYNC_NONE, SYNC_INCREMENTAL, SYNC_BITMAP };
enum bitmap_mode { BITMAP_ON_SUCCESS, BITMAP_NEVER, BITMAP_ALWAYS };
struct job_copy {
    struct node *source, *target;
    enum sync_mode sync;
    struct dirty_bitmap *bitmap; /* incremental, bitmap */
    enum bitmap_mode bitmap_mode;
    const char *replaces;        /* mirror: node-name whose place the target takes; NULL: source */
    bool write_blocking;         /* mirror: copy-mode */
    bool compress, unmap;
    uint32_t granularity;        /* mirror, 0: cluster of the target */
    uint64_t buf_bytes;          /* mirror, 0: default */
    unsigned max_workers;        /* backup, 0: 64 */
    uint64_t max_chunk;
    bool target_is_new_zero;     /* a fresh target reads as zeroes */
    const char *filter_name;     /* node-name of the filter over the source; NULL: made up */
};
struct job *job_mirror(struct job_set *s, const struct job_common *c, const struct job_copy *w,
                       GError **error);
struct job *job_backup(struct job_set *s, const struct job_common *c, const struct job_copy *w,
                       GError **error);
/* options: {"driver", "file" or "filename", "size", ...}, as blockdev-create has them. */
struct job *job_create(struct job_set *s, const struct job_common *c, struct graph *g,
                       JsonObject *options, GError **error);
struct job *job_amend(struct job_set *s, const struct job_common *c, struct node *n,
                      JsonObject *given, bool force, GError **error);

/* Everything of `n` moves to c, with users that allow it; nothing happens when it is there
 * already. Main thread, whose context is the graph's, outside of fibers. For targets and overlays, which go
 * where their source is. */
bool node_move(struct node *n, struct context *c, GError **error);

const char *job_id(const struct job *j);
struct node *job_node(const struct job *j); /* the one it works on; NULL after conclusion */
bool job_is_block_job(const struct job *j); /* has query-block-jobs' form */
