/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The graph of image nodes: each is one driver at work (a file, a format, a filter), with its children
 * below it. All I/O goes through node_*(), which checks ranges, aligns, orders what overlaps and tracks
 * what is in flight.
 *
 * Owner     A graph owns its named nodes; a node lives while somebody holds it: a parent, an image, a job,
 *           or the user (blockdev-add). node_unref() of the last closes it.
 * Thread    One context serves a whole tree, on its home thread.
 * Fiber     Everything marked (f) only in a fiber of the node's context. The rest: home thread, anywhere.
 * Units     Bytes. I/O of any offset and length: the node reads, modifies and writes where the driver
 *           needs alignment. What passes the end is refused, but for files, which give zeroes and grow.
 * Trust     What drivers read from images is hostile; sizes are capped by IMAGE_SIZE_MAX.
 * Errors    0 or negative errno for I/O: -ENOSPC, -EIO, -EROFS, -EINVAL (range), -ENOTSUP; sentences for
 *           the rest.
 */
#pragma once

#include "image/context.h"
#include "image/option.h"
#include "image/vec.h"

#define IMAGE_SIZE_MAX (1ULL << 62)
#define IMAGE_CHAIN_MAX 200      /* backing files below one another */
#define IMAGE_REQUEST_MAX (1ULL << 30) /* bytes of one call to a driver: longer ones are split */

struct node;
struct graph;
struct image_driver;
struct image_stats;
struct dirty_bitmap;

/* ---- graph: names, policy, defaults ---- */

/* Decides whether an image may bring in a further file that its own contents name. */
typedef bool graph_policy_fn(const struct node *parent, const char *filename, void *opaque,
                             GError **error);

struct graph *graph_new(struct context *c); /* borrows c; new nodes are served by it */
void graph_free(struct graph *g);           /* drops the user's references; no other may be left */
struct context *graph_context(const struct graph *g);
/* New nodes are served by c from now on; who served them before. Nobody else opens any meanwhile. */
struct context *graph_set_context(struct graph *g, struct context *c);
/* NULL: local files and known protocols by absolute or relative name (relative to the parent's folder). */
void graph_set_policy(struct graph *g, graph_policy_fn *fn, void *opaque);
/* How long drivers wait for a server that is gone, unless their own options say; 0, the default: for ever, as the
 * disks of a machine should. */
void graph_set_patience(struct graph *g, unsigned seconds);
unsigned graph_patience_sec(const struct graph *g);
struct node *graph_find(const struct graph *g, const char *node_name); /* borrowed, or NULL */
/* Requests to nodes are timed from now on, which costs two looks at the clock for each. Any thread. */
void graph_time_requests(struct graph *g);
/* Every node, in order of creation; borrowed. Start with NULL. */
struct node *graph_next(const struct graph *g, const struct node *after);

/* ---- opening ---- */

enum node_open_flags {
    NODE_RW = 1 << 0,            /* unless options say read-only */
    NODE_NO_BACKING = 1 << 1,    /* leave the backing file closed */
    NODE_PROBE = 1 << 2,         /* driver may be absent: probed */
    NODE_CHECK = 1 << 3,         /* opened to be checked or repaired: inconsistencies are no error */
    NODE_NO_IO = 1 << 4,         /* information only: keys for decryption are not needed */
    NODE_IMPLICIT = 1 << 5,      /* a name in an image brought it in */
    NODE_NO_LOCK = 1 << 6,       /* force-share: do not refuse other writers */
    NODE_INACTIVE = 1 << 8,      /* with NODE_RW: another process has the image still. It is only looked at, without locks;
                                  * who is to write closes it and opens it again without this flag */
    NODE_ALONE = 1 << 7,         /* its contents may bring in no further file: extents, data files, parents */
};

/* Opens what `options` say: {"driver": ..., "node-name": ..., "read-only": ..., "cache": {"direct",
 * "no-flush"}, "discard": "unmap"|"ignore", "detect-zeroes": ..., "force-share": ..., <children>, <driver's own>}.
 * A child is an object, or the node-name of an existing node. Consumes nothing; options is only read.
 * The caller gets a reference. NULL with *error, everything undone. Home thread, in a fiber or not. */
struct node *node_open(struct graph *g, JsonObject *options, unsigned flags, GError **error);
/* The same from a name a person types: a path, "nbd://...", "json:{...}", "driver:..."; format NULL probes
 * (with NODE_PROBE) . extra: more options, or NULL. */
struct node *node_open_name(struct graph *g, const char *filename, const char *format,
                            JsonObject *extra, unsigned flags, GError **error);
struct node *node_ref(struct node *n);
/* The last one closes it: flushes, stores what the format keeps (bitmaps, clean marks), frees. In a fiber
 * of its context, or outside of fibers on its home thread. NULL is fine. */
void node_unref(struct node *n);

/* ---- I/O (f) ---- */

enum node_io_flags {
    NODE_FUA = 1 << 0,          /* durable when done */
    NODE_MAY_UNMAP = 1 << 1,    /* zero: deallocation is welcome */
    NODE_NO_FALLBACK = 1 << 2,  /* zero: -ENOTSUP rather than writing buffers of zeroes */
    NODE_COMPRESSED = 1 << 3,   /* write: compressed; whole clusters */
    NODE_SERIALISE = 1 << 4,    /* waits for, and holds up, every overlapping request */
    NODE_PREFETCH = 1 << 5,     /* read: only to populate (copy-on-read); no destination */
    NODE_UNCHANGED = 1 << 6,    /* write of what reads the same: dirty bitmaps stay */
    NODE_FRESH = 1 << 7,        /* write: most likely nothing has a place there yet (a hint) */
};

int node_read(struct node *n, uint64_t off, struct vec v, unsigned flags);
int node_write(struct node *n, uint64_t off, struct vec v, unsigned flags);
int node_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags);
int node_discard(struct node *n, uint64_t off, uint64_t len);
int node_flush(struct node *n);
/* Flat buffers, for metadata. */
int node_pread(struct node *n, uint64_t off, void *buf, size_t len);
int node_pwrite(struct node *n, uint64_t off, const void *buf, size_t len, unsigned flags);

/* len bytes of `from`, a protocol node (image_extent.host), to `to` without passing through memory; share_only:
 * only by sharing blocks. -ENOTSUP: not between these two; what was copied until then is the same bytes. */
int node_copy_range(struct node *from, uint64_t from_off, struct node *to, uint64_t off, uint64_t len,
                    bool share_only);

enum extent_flags {
    EXTENT_DATA = 1 << 0,       /* reading may give other than zero */
    EXTENT_ZERO = 1 << 1,       /* reads as zero */
    EXTENT_ALLOCATED = 1 << 2,  /* decided by this node, not by what is below */
    EXTENT_OFFSET = 1 << 3,     /* host and host_offset are valid: plain bytes there */
    EXTENT_COMPRESSED = 1 << 4,
    EXTENT_EOF = 1 << 5,        /* reaches the node's end */
    EXTENT_HOLES = 1 << 6,      /* of drivers, with OFFSET: holes of the host are to be looked for; not seen above */
};
struct image_extent {
    uint64_t len;               /* from the asked offset on; at least 1, at most what was asked */
    unsigned flags;
    struct node *host;          /* borrowed */
    uint64_t host_offset;
};
/* One step of the map: this node alone. */
int node_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret);
/* Down the backing chain until `base` (exclusive; NULL: all): *ret_depth is how many backing links below n the
 * bytes lie; what nobody allocates is EXTENT_ZERO. */
int node_map_chain(struct node *n, struct node *base, uint64_t off, uint64_t len,
                   struct image_extent *ret, unsigned *ret_depth);

enum image_prealloc { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL };
extern const char *const image_prealloc_words[];
/* Grows or shrinks; new bytes read as zero (of a child with a shorter backing file, too), but for LUKS: there they
 * are what deciphering zeroes gives, as with QEMU. */
bool node_resize(struct node *n, uint64_t size_bytes, enum image_prealloc p, GError **error);

/* ---- what a node is ---- */

const char *node_name(const struct node *n);
const char *node_filename(const struct node *n); /* "" when options cannot be said as a name */
const char *node_format(const struct node *n);   /* the driver's name */
uint64_t node_size(const struct node *n);
bool node_is_read_only(const struct node *n);
struct context *node_context(const struct node *n);
struct graph *node_graph(const struct node *n);
struct node *node_backing(const struct node *n);  /* below filters: the next image of the chain, or NULL */
struct node *node_file(const struct node *n);     /* the protocol or filtered child, or NULL */
struct node *node_skip_filters(struct node *n);
const struct image_stats *node_get_stats(const struct node *n); /* home thread */
/* Bytes that the files below take on disk, backing not counted; negative errno when unknown. (f) */
int64_t node_allocated_bytes(struct node *n);

/* ---- changing the graph (f) ---- */

/* Users of nodes on n's context are told to pause (node_user.drained); when it returns, nothing is in flight at n
 * or above it. Who drains may do I/O. They nest. */
void node_drain_begin(struct node *n);
void node_drain_end(struct node *n);
/* Every parent of `from` now has `to` instead (`to` may be above `from`: that link stays). Refused when it
 * would make a loop, or when a parent or job of one does not allow it. Both drained by the caller. */
bool node_replace(struct node *from, struct node *to, GError **error);
/* Puts another image (or NULL) below as the backing file, in memory only. */
bool node_set_backing(struct node *n, struct node *backing, GError **error);
/* Puts another node below as CHILD_FILE, which must hold the same bytes: for formats other than raw one that leads to
 * the same file as before. n is drained. */
bool node_set_file(struct node *n, struct node *file, GError **error);
/* Also writes the name into the image's header. NULL backing_file: none. */
bool node_change_backing(struct node *n, const char *backing_file, const char *backing_format,
                         GError **error);
/* Reopens for writing or not, children too as far as it takes. */
bool node_set_read_only(struct node *n, bool read_only, GError **error);
/* Everything moves to another context, users that allow it included; nothing in flight. Home thread of both, or
 * neither runs. -EBUSY, and nothing happens, when somebody keeps it where it is. */
int node_set_context(struct node *n, struct context *c);
/* A user of n or of a node below that keeps it on its context; NULL: none. */
const struct node_user *node_kept_by(const struct node *n);
/* A job or export works on it: others that ask get "node 'x' is busy: <why>". NULL ends it. One at a time. */
bool node_block(struct node *n, const char *why, GError **error);
const char *node_blocked_by(const struct node *n);

/* ---- who uses it ---- */

/* A user's link to a node: an image, a job, an export. */
enum node_perm { PERM_READ = 1, PERM_WRITE = 2, PERM_RESIZE = 8, PERM_ALL = 11 };
struct node_user {
    const char *who;            /* borrowed: "device 'disk0'", "job 'backup1'" */
    struct node *node;
    unsigned perms, shared;     /* what we do; what others may do meanwhile */
    bool stays;                 /* node_replace() leaves us where we are */
    void (*moved)(struct node_user *u); /* node_replace() moved us, or NULL */
    /* Make no new requests from `begin` until the end; calls nest. NULL: all our requests are made by whoever
     * drains. */
    void (*drained)(struct node_user *u, bool begin);
    void (*resized)(struct node_user *u); /* or NULL */
    /* May another context serve the node? `to` not NULL: it does from now on. NULL: it may not. */
    bool (*move)(struct node_user *u, struct context *to);
    void *opaque;
    struct node_user *next;
};
/* Takes a reference. False: a sentence that names who does not share what. */
bool node_use(struct node *n, struct node_user *u, GError **error);
void node_leave(struct node_user *u);
