/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine's block layer for its commands: how they name nodes and disks, what they answer, and
 * the actions that `transaction` can group.
 *
 * Thread    The main thread. A node's own functions run in fibers of its context, which may be
 *           another thread's, while the main thread waits: block_run().
 * Errors    Sentences; RUCHE_ERR_NOT_FOUND is QEMU's class DeviceNotFound.
 */
#pragma once

#include "image/image.h"
#include "image/job.h"
#include "image/throttle.h"
#include "vmm/qmp_util.h"

/* ---- arguments; the types were checked by the command's table ---- */

static inline const char *arg_string(JsonObject *args, const char *name)
{
    JsonNode *n = json_object_get_member(args, name);
    return n && JSON_NODE_HOLDS_VALUE(n) ? json_node_get_string(n) : NULL;
}

static inline bool arg_bool(JsonObject *args, const char *name, bool def)
{
    return json_object_get_boolean_member_with_default(args, name, def);
}

/* Absent: *ret stays. False when it is negative or above max. */
bool arg_u64(JsonObject *args, const char *name, uint64_t max, uint64_t *ret, GError **error);
/* One of `words` (NULL-ended); absent: *ret stays. */
bool arg_word(JsonObject *args, const char *name, const char *const *words, int *ret,
              GError **error);
extern const char *const on_error_words[]; /* by enum image_on_error; then "auto" */

/* ---- nodes and disks ---- */

/* A disk by its drive id, its device's id or path, or NULL with *error. */
struct vm_drive *block_drive(struct vmm *v, const char *device, GError **error);
/* The node at the top of a disk, or one by name; either may be NULL, not both. */
struct node *block_node(struct vmm *v, const char *device, const char *node_name, GError **error);
/* The image whose device uses n, directly or through filters; NULL: none. */
struct vm_drive *block_drive_of(struct vmm *v, struct node *n);
/* The node of a disk that is shown as its own: below filters that nobody gave a name, as those of jobs. NULL: none. */
struct node *block_shown_node(const struct vm_drive *d);
/* QMP's "device" of events: the drive's id, or "". */
const char *block_device_name(struct vmm *v, struct node *n);
/* Where an I/O thread serves nodes; borrowed; NULL with *error. */
struct context *block_iothread(struct vmm *v, const char *id, GError **error);
/* Runs fn in a fiber of the node's context. */
int block_run(struct node *n, int (*fn)(void *opaque), void *opaque);
/* Opens for the user, who owns it by its node-name from then on. */
struct node *block_add_node(struct vmm *v, JsonObject *options, GError **error);
/* node_open() for a disk. While the machine is still to come in, an image that cannot be had now is opened inactive
 * (NODE_INACTIVE): migrate_disks_activate() opens it again. */
struct node *block_open_node(struct vmm *v, JsonObject *options, unsigned flags, GError **error);
/* No guest's request is in flight on any disk until block_drain_all_end(). */
GPtrArray *block_drain_all(struct vmm *v);
void block_drain_all_end(GPtrArray *drained);

/* qmp_block_copy.c: makes an image of the size of `like`; opens it where `like` is served, with
 * its cache mode. backing: NULL: none, whatever its header says. The caller's reference. */
bool block_create_file(struct vmm *v, const char *filename, const char *format, struct node *like,
                       struct node *backing, GError **error);
struct node *block_open_file(struct vmm *v, const char *filename, const char *format,
                             const char *node_name, struct node *like, struct node *backing,
                             GError **error);

/* ---- drives.c: -drive ---- */

bool drive_open(struct vmm *v, struct kv_list *l, unsigned index, GError **error);
/* The limits that -drive and block_set_io_throttle name. */
struct throttle_name {
    const char *qmp;    /* "bps_rd" */
    const char *option; /* "bps-read" */
    enum throttle_kind kind;
};
extern const struct throttle_name throttle_names[]; /* ends with a row without a name */

/* ---- answers ---- */

JsonObject *describe_image(struct node *n, unsigned depth);          /* ImageInfo */
JsonObject *describe_node(struct vmm *v, struct node *n, bool flat); /* BlockDeviceInfo */
JsonArray *describe_bitmaps(struct node *n);
/* "device" and "qdev" of a disk. */
void block_set_backend_names(JsonObject *o, const struct vm_drive *d);

/* ---- actions ---- */

struct block_action {
    const struct block_action_type *type;
    struct vmm *vmm;
    struct job_transaction *txn; /* jobs of the transaction that are to end together; NULL: alone */
    bool hold;                   /* jobs begin at commit */
    JsonNode *result;            /* of a command that is one action; NULL: {} */
};
struct block_action_type {
    const char *name; /* in `transaction` */
    size_t size;      /* of the struct that begins with struct block_action */
    const struct qmp_arg *args;
    bool (*prepare)(struct block_action *a, JsonObject *data, GError **error);
    void (*commit)(struct block_action *a); /* all were prepared; may be NULL */
    void (*abort)(struct block_action *a);  /* undoes prepare(), also a failed one; may be NULL */
    void (*clean)(struct block_action *a);  /* last, in both cases; may be NULL */
};
LINKSET_DECLARE(block_actions);
#define BLOCK_ACTION(a) LINKSET_ENTRY(block_actions, a)
/* A command that is one action. */
JsonNode *block_action_run(struct vmm *v, const struct block_action_type *t, JsonObject *data,
                           GError **error);

/* ---- jobs ---- */

extern const struct job_listener block_job_listener; /* opaque is set by the caller */
/* job-id, speed, on-error... as every job's command has them. */
bool block_job_common(struct vmm *v, JsonObject *args, struct node *n, struct job_common *ret,
                      GError **error);
void block_events_init(struct vmm *v);
void block_events_done(void);
void block_exports_done(struct vmm *v);
/* block-set-write-threshold; 0: none. */
uint64_t block_write_threshold(struct node *n);
