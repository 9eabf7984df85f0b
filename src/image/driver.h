/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a protocol, format or filter driver is made of. One const row in a linker set per driver.
 *
 * Owner     struct node begins the driver's own struct of `size` bytes, zeroed before open().
 * Fiber     All operations run in a fiber of the node's context, except describe(), probe() and
 *           detach()/attach(). The node layer calls them with ranges inside the node's size, aligned to
 *           what the driver asked for, at most IMAGE_REQUEST_MAX bytes; several at a time.
 * Trust     Image contents are hostile: bounded memory and time in open() and everywhere else, errors as a
 *           sentence with file, field and value. An image found corrupt at run time: node_corrupt().
 */
#pragma once

#include "base/linkset.h"
#include "image/node.h"
#include "image/stats.h"

enum driver_kind { DRIVER_PROTOCOL, DRIVER_FORMAT, DRIVER_FILTER };

enum child_role {
    CHILD_FILE,      /* "file": where a format's bytes are; what a filter passes on */
    CHILD_BACKING,   /* "backing" */
    CHILD_DATA,      /* "data-file" and extents: holds only guest data */
    CHILD_OTHER,
};
#define NODE_CHILD_MAX 256

struct node_child {
    char *name;                 /* "file", "backing", "extents.0" */
    enum child_role role;
    struct node *node;          /* referenced */
    unsigned perms, shared;
};

/* One request in flight, on its fiber's stack. */
struct node_request {
    uint64_t begin, end;        /* what it touches, with the rounding of a read-modify-write */
    bool is_write, serialising, waiting;
    struct fiber_queue waiters;
    struct node_request *prev, *next;
};

struct node {
    const struct image_driver *driver;
    struct graph *graph;        /* borrowed */
    struct context *ctx;        /* borrowed */
    char *name;                 /* node-name; "#block123" when the user gave none */
    char *filename;
    unsigned refs;
    bool user_ref;              /* blockdev-add holds one of them */

    /* set by the driver in open(); may change in resize() */
    uint64_t size_bytes;
    uint32_t request_align;     /* power of two; 1 unless the driver says so */
    uint32_t mem_align;         /* of buffers; 1 likewise */
    uint32_t zero_align, discard_align; /* 0: request_align; smaller ends are written, or skipped */
    uint32_t cluster_bytes;     /* allocation unit, 0: none */
    uint32_t block_bytes;       /* logical sector the medium wants, 0: 512 */
    uint32_t physical_block_bytes;
    unsigned write_flags;       /* NODE_FUA when the driver does it itself, else a flush follows */
    unsigned zero_flags;        /* of NODE_FUA | NODE_MAY_UNMAP | NODE_NO_FALLBACK: honoured natively */
    bool zero_init;             /* a new image reads as zeroes */
    bool grows;                 /* a file: writes past the end make it longer, reads there give zeroes */
    uint32_t serialise_align;   /* not 0: reads hold up overlapping requests, rounded so (copy-on-read) */

    /* from the options */
    bool read_only, wanted_rw;
    bool inactive;              /* would be opened for writing, were it not for NODE_INACTIVE */
    bool auto_read_only;        /* what cannot be opened for writing may be opened for reading */
    bool direct, no_flush, discard, force_share;
    unsigned detect_zeroes;     /* 0 off, 1 on, 2 unmap */
    unsigned open_flags;
    JsonObject *options;        /* as opened, owned */
    char *backing_file, *backing_format; /* as the header says; NULL: none. Owned */
    bool backing_overridden;    /* the child is another one than the header says */
    bool corrupt;               /* see node_corrupt() */
    bool encrypted;
    bool unclean;               /* was not closed cleanly: refcounts are behind, a log waits */
    bool probed;

    struct node_child *children[NODE_CHILD_MAX];
    unsigned child_count;
    struct node_user *users;
    const char *blocked_by;

    /* requests */
    struct node_request *requests; /* list */
    unsigned in_flight, serialising;
    struct fiber_queue idle_waiters;  /* who drains */
    uint64_t write_threshold;   /* 0: none; see node_on_write_threshold(). Set by any thread */
    uint64_t writes, flushed;   /* generation counters: a flush with nothing new is free */
    struct fiber_mutex flush_lock;
    struct image_stats stats;
    struct dirty_bitmap *bitmaps; /* image/dirty.h */
    struct node *next, *prev;   /* of the graph */
};

struct snapshot_info {
    char *id, *name;
    uint64_t vm_state_bytes, size_bytes;
    uint64_t date_sec, vm_clock_ns, icount;
    uint32_t date_nsec;
};

enum check_fix { CHECK_FIX_LEAKS = 1, CHECK_FIX_ERRORS = 2 };
struct image_check {
    uint64_t check_errors, corruptions, leaks, corruptions_fixed, leaks_fixed;
    uint64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
    uint64_t image_end_offset;  /* 0: the format has none */
    /* A finding in one sentence, for the tool to print; at most CHECK_REPORT_MAX are made. */
    void (*report)(const char *sentence, void *opaque);
    void *opaque;
};
#define CHECK_REPORT_MAX 1000

struct image_progress {
    void (*fn)(uint64_t done, uint64_t total, void *opaque);
    void *opaque;
};

/* A new image. `file` is the empty, writable, growing node that it is put into. */
struct image_create {
    const struct image_driver *driver;
    struct graph *graph;
    const char *filename;       /* final name: for messages and for the names of extents */
    struct image_files *files;  /* borrowed: to add further files to */
    struct node *file;          /* NULL for protocols and DRIVER_MULTIFILE, which make their own */
    uint64_t size_bytes;
    const char *backing_file, *backing_format; /* NULL: none; checked to exist by the caller */
    void *options;              /* create_size bytes, parsed by create_options */
    bool only_holes;            /* set by create(): nothing was written that a power cut could take */
};

struct image_measure {
    uint64_t required, fully_allocated, bitmaps; /* bytes; bitmaps UINT64_MAX: not applicable */
};

struct image_driver {
    const char *name, *summary, *spec;
    enum driver_kind kind;
    unsigned flags;             /* DRIVER_* below */
    size_t size;                /* of the driver's struct */
    const char *const *schemes; /* protocols: "nbd", "nbd+unix"; NULL-terminated */
    const struct image_option *open_options;   /* into the driver's struct; NULL: none */
    const struct image_option *create_options; /* into create_size bytes; NULL: cannot be created */
    const char *const *amendable;  /* create options that amend() takes, and maybe "size"; NULL-terminated */
    const struct image_option *amend_options; /* more that it takes, their names behind amend_prefix; NULL: none */
    const char *amend_prefix;
    size_t create_size;

    /* 0 (no) to 100 (its magic is there). Formats. */
    int (*probe)(const uint8_t *head, size_t len, const char *filename);
    /* Protocols: puts the name's parts into options ("nbd://host/x" to server, export). */
    bool (*parse_name)(const char *filename, JsonObject *options, GError **error);
    /* CHILD_FILE is open, options are parsed. Sets size_bytes and limits; opens the other children. */
    bool (*open)(struct node *n, GError **error);
    /* Stores what is to be stored; errors are reported by log. Also called after a failed open(). */
    void (*close)(struct node *n);

    int (*read)(struct node *n, uint64_t off, struct vec v, unsigned flags);
    int (*write)(struct node *n, uint64_t off, struct vec v, unsigned flags);
    int (*zero)(struct node *n, uint64_t off, uint64_t len, unsigned flags); /* NULL or -ENOTSUP: written */
    /* node_copy_range() into n; NULL: -ENOTSUP. */
    int (*copy_range)(struct node *n, uint64_t off, struct node *from, uint64_t from_off, uint64_t len,
                      bool share_only);
    int (*discard)(struct node *n, uint64_t off, uint64_t len); /* NULL or -ENOTSUP: nothing happens */
    /* Writes the driver's own caches down in their order, then syncs; NULL: children are flushed. */
    int (*flush)(struct node *n);
    /* NULL: all data, passed to CHILD_FILE at the same offset for filters. */
    int (*map)(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret);
    bool (*resize)(struct node *n, uint64_t size, enum image_prealloc p, GError **error);
    int64_t (*allocated_bytes)(struct node *n);

    /* Protocols: a new file under the name that the options say; one that is there is emptied, or refused. NULL: only
     * what is there can be written. (f) */
    bool (*make_file)(struct graph *g, JsonObject *options, uint64_t size, GError **error);
    bool (*create)(struct image_create *c, GError **error);
    /* source NULL: an empty image of size_bytes. */
    bool (*measure)(const void *create_options, uint64_t size_bytes, struct node *source,
                    struct image_measure *ret, GError **error);
    bool (*check)(struct node *n, unsigned fix, struct image_check *ret, GError **error);
    bool (*change_backing)(struct node *n, const char *file, const char *format, GError **error);
    /* Drops every cluster, so that the backing file shows through: commit. */
    int (*make_empty)(struct node *n);
    /* options: like create_options, only those given are set in `given` (JSON). */
    bool (*amend)(struct node *n, JsonObject *given, struct image_progress *p, GError **error);
    /* "format-specific" of info: the "data" object; NULL: none. Caller owns. Home thread. */
    JsonObject *(*describe)(struct node *n);

    int (*snapshot_list)(struct node *n, struct snapshot_info **ret, unsigned *ret_count); /* g_malloc */
    bool (*snapshot_create)(struct node *n, const struct snapshot_info *s, GError **error);
    bool (*snapshot_apply)(struct node *n, const char *id_or_name, GError **error);
    bool (*snapshot_delete)(struct node *n, const char *id_or_name, GError **error);
    /* The node, opened read-only, shows the snapshot instead. */
    bool (*snapshot_show)(struct node *n, const char *id_or_name, GError **error);
    /* Machine state, kept in the image beyond the guest's view. */
    int (*vmstate_read)(struct node *n, uint64_t off, struct vec v);
    int (*vmstate_write)(struct node *n, uint64_t off, struct vec v);

    /* Can this one keep a bitmap (name, granularity)? NULL op: the format keeps none. */
    bool (*bitmap_can_store)(struct node *n, const char *name, uint64_t granularity, GError **error);
    bool (*bitmap_forget)(struct node *n, const char *name, GError **error);

    bool (*set_read_only)(struct node *n, bool read_only, GError **error); /* NULL: allowed as is */
    /* Sockets and timers leave the node's context, and enter the new one. NULL: it has none. */
    void (*detach)(struct node *n);
    void (*attach)(struct node *n);
    void (*drain)(struct node *n, bool begin); /* background work of the driver stops; may be NULL */
};
#define DRIVER_MULTIFILE 1   /* create() makes all files itself, in image_create.files */
#define DRIVER_COMPRESS 2    /* takes NODE_COMPRESSED */
#define DRIVER_BACKING 4     /* can have a backing file */
#define DRIVER_NO_FILE 8     /* a format or filter without CHILD_FILE */
#define DRIVER_HIDDEN 16     /* for jobs: not by name */
#define DRIVER_SWAP_FILE 64  /* goes to CHILD_FILE by its link each time, for node_set_file() */
#define DRIVER_SEQUENTIAL 32 /* written once, from the front (streamOptimized) */
#define DRIVER_SPARSE_BLOCKS 128 /* what is not written of a new block stays a hole of the file */

LINKSET_DECLARE(image_drivers);
#define IMAGE_DRIVER(d) LINKSET_ENTRY(image_drivers, d)

/* Also looks into the modules that come with a driver of that name; NULL with "did you mean". */
const struct image_driver *driver_find(const char *name, GError **error);
/* "nbd://..." -> nbd; *ret NULL: a path. False: its module cannot be loaded. */
bool driver_of_scheme(const char *filename, const struct image_driver **ret, GError **error);
bool driver_has_scheme(const char *filename); /* loads nothing */
/* The format whose probe is surest; raw when none knows it. */
const struct image_driver *driver_probe(const uint8_t *head, size_t len, const char *filename);

/* ---- for drivers ---- */

/* The child under that name of the options; opened with the flags of n. Optional children: NULL without *error. (f) */
struct node *node_open_child(struct node *n, const char *name, enum child_role role, bool required,
                             GError **error);
/* A further file that the image's contents name (backing, data, extent): policy is asked; the name is
 * relative to n's own; chains are bounded. format NULL: probed, and then it may not name further files. (f) */
struct node *node_open_named_child(struct node *n, const char *name, enum child_role role,
                                   const char *filename, const char *format, GError **error);
struct node_child *node_add_child(struct node *n, const char *name, enum child_role role,
                                  struct node *child); /* takes the reference */
void node_remove_child(struct node *n, struct node_child *c); /* (f) */
/* relative to the file that n is, unless absolute or with a scheme. Caller frees. NULL: the base has no name. */
char *node_resolve_name(const struct node *n, const char *filename);
char *name_beside(const char *base, const char *filename); /* the same, relative to the file `base` */

/* One sentence for the user and BLOCK_IMAGE_CORRUPTED, once; the node is read-only from now on (fatal) .
 * offset -1, size 0: unknown. Returns -EIO. */
int node_corrupt(struct node *n, bool fatal, int64_t offset, uint64_t size, const char *format, ...)
    G_GNUC_PRINTF(5, 6);
/* Who hears of it: the machine's events. Process-wide, set once at start. */
void node_on_corrupt(void (*fn)(const struct node *n, const char *sentence, int64_t offset,
                                uint64_t size, bool fatal, void *opaque),
                     void *opaque);

/* A node was written past its write_threshold, which is 0 afterwards. On its home thread. Process-wide. */
void node_on_write_threshold(void (*fn)(struct node *n, uint64_t exceeded_by));

/* ---- making images (f) ---- */

/* A protocol file of that size at a name; truncated when there is one. Opened for writing. */
struct node *image_create_file(struct graph *g, const char *filename, uint64_t size, GError **error);
/* New files that appear together, when all of them are whole: written under temporary names beside the final ones,
 * then moved. Devices, URLs and files in folders that we may not write in are written in place. */
struct image_files;
struct image_files *image_files_new(void);
/* One more, empty; the first one is the image, which names the others and is moved last. Returns where to write it,
 * borrowed. Refused when somebody uses the file that is there. */
const char *image_files_add(struct image_files *s, const char *filename, GError **error);
/* The same for a file that the caller has open. */
const char *image_files_replace(struct image_files *s, const char *filename, GError **error);
/* Who wrote them has synced them (node_flush()), or does not mind. sync: the new names, too, are on disk. Frees s. */
bool image_files_commit(struct image_files *s, bool sync, GError **error);
/* Removes what was written; frees s. False: something is left half written, in place. */
bool image_files_abort(struct image_files *s);
void image_files_abort_all(void); /* every one that is left, before a program ends by a signal */
/* Until set to NULL: image_create() adds its files here and leaves it to the caller to move them, and the graph's
 * nodes find them under their final names. */
void graph_set_files(struct graph *g, struct image_files *files);
/* Where the file that goes by this name is now; path itself otherwise. Borrowed. */
const char *graph_place(const struct graph *g, const char *path);
/* The whole of `create`: file under a temporary name beside the final one, format, sync, rename. An existing image
 * that is in use is refused; what was there stays until the rename. options NULL: defaults. */
bool image_create(struct graph *g, const struct image_driver *d, const char *filename,
                  uint64_t size_bytes, const char *backing_file, const char *backing_format,
                  JsonObject *options, GError **error);
