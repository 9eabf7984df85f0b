/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qcow2: what the files of this folder share: the on-disk structures, the open image, and the functions that
 * one file offers the others.
 *
 * Spec      "qcow2", docs/interop/qcow2.txt of QEMU: versions 2 and 3 with all extensions.
 * Owner     The node; everything in struct qcow2 is made by qcow2_open() and freed by qcow2_close().
 * Thread    The node's home thread. Memory is changed between waits only, so that it needs no lock: whoever
 *           waits (any function marked (f)) looks up again what it found before.
 * Trust     Everything read from the image is hostile. Offsets of tables are checked when they enter memory.
 * Order     A crash at any instant leaves an image whose only possible flaw is a leaked cluster:
 *
 *           1. A cluster's refcount is raised in memory, then its contents are written; then its reference enters
 *              a table in memory. New L2 tables are written (zeroes, or the copy) before L1 knows them.
 *           2. qcow2_commit() writes changed refcount blocks and syncs (that takes data and new tables along);
 *              only then the tables that refer to them: L2 slices and L1. What changes meanwhile waits for the
 *              next commit: it goes to a copy.
 *           3. A reference is removed in memory; the clusters go to a list. After the commit that made the
 *              removal durable and after every request that may still use the old mapping has ended, the refcount
 *              falls, and only then may the clusters be used again.
 *
 *           So refcount blocks may be written at any time, and tables only by a commit. With lazy refcounts, step 2
 *           leaves refcount blocks out while the header says "dirty".
 * Errors    0 or negative errno; sentences where GError is.
 */
#pragma once

#include "image/dirty.h"
#include "image/driver.h"
#include "image/luks.h"
#include "image/node.h"

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_CLUSTER_BITS_MIN 9
#define QCOW2_CLUSTER_BITS_MAX 21
#define QCOW2_L1_BYTES_MAX (32 * MIB)
#define QCOW2_REFTABLE_BYTES_MAX (8 * MIB)
#define QCOW2_SNAPSHOTS_MAX 65536
#define QCOW2_SNAPSHOT_TABLE_BYTES_MAX (64 * MIB)
#define QCOW2_BITMAPS_MAX 65535
#define QCOW2_BITMAP_DIR_BYTES_MAX (64 * MIB)
#define QCOW2_HEADER_SNAPSHOT_COUNT_AT 60
#define QCOW2_HEADER_V2_BYTES 72
#define QCOW2_HEADER_V3_BYTES 104
#define QCOW2_BACKING_NAME_MAX 1023
#define QCOW2_UNKNOWN_EXT_MAX 64

enum qcow2_incompatible {
    QCOW2_INCOMPAT_DIRTY = 1 << 0,
    QCOW2_INCOMPAT_CORRUPT = 1 << 1,
    QCOW2_INCOMPAT_DATA_FILE = 1 << 2,
    QCOW2_INCOMPAT_COMPRESSION = 1 << 3,
    QCOW2_INCOMPAT_EXTL2 = 1 << 4,
    QCOW2_INCOMPAT_KNOWN = 31,
};
enum qcow2_compatible { QCOW2_COMPAT_LAZY_REFCOUNTS = 1 };
enum qcow2_autoclear {
    QCOW2_AUTOCLEAR_BITMAPS = 1 << 0,
    QCOW2_AUTOCLEAR_DATA_FILE_RAW = 1 << 1,
    QCOW2_AUTOCLEAR_KNOWN = 3,
};
enum qcow2_crypt { QCOW2_CRYPT_NONE, QCOW2_CRYPT_AES, QCOW2_CRYPT_LUKS };
enum qcow2_compression { QCOW2_COMPRESSION_ZLIB, QCOW2_COMPRESSION_ZSTD };

enum qcow2_ext {
    QCOW2_EXT_END = 0,
    QCOW2_EXT_BACKING_FORMAT = 0xe2792acau,
    QCOW2_EXT_FEATURES = 0x6803f857u,
    QCOW2_EXT_CRYPTO = 0x0537be77u,
    QCOW2_EXT_BITMAPS = 0x23852875u,
    QCOW2_EXT_DATA_FILE = 0x44415441u,
    QCOW2_EXT_PADDING = 0x52706164u, /* ours, between two writes of a header: to be passed over */
};

/* Table entries, in host order. */
#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ULL  /* L1, L2 */
#define QCOW2_REFTABLE_MASK 0xfffffffffffffe00ULL
#define QCOW2_COPIED (1ULL << 63)
#define QCOW2_COMPRESSED (1ULL << 62)
#define QCOW2_ZERO 1ULL                          /* L2, version 3, without subclusters */
#define QCOW2_L1_RESERVED 0x7f000000000001ffULL
#define QCOW2_L2_RESERVED 0x3f000000000001feULL
#define QCOW2_SUBCLUSTERS 32u
#define QCOW2_BITMAP_ALLOCATED(i) (1ULL << (i))        /* second word of an extended L2 entry */
#define QCOW2_BITMAP_ZERO(i) (1ULL << (32 + (i)))
#define QCOW2_BITMAP_ALL_ZERO 0xffffffff00000000ULL
#define QCOW2_BITMAP_ALL_ALLOCATED 0x00000000ffffffffULL

/* The fixed header, in host order. Version 2 has the members up to snapshots_offset. */
struct qcow2_header {
    uint32_t version;
    uint64_t backing_name_offset;
    uint32_t backing_name_bytes;
    uint32_t cluster_bits;
    uint64_t size_bytes;
    uint32_t crypt_method;
    uint32_t l1_count;
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t snapshot_count;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order;
    uint32_t header_bytes;
    uint8_t compression;
    uint8_t unknown[160];        /* fields of longer headers, kept */
    uint32_t unknown_bytes;
};

struct qcow2_unknown_ext {
    uint32_t type, len;
    uint8_t *data;               /* owned */
};

/* Header extensions, all optional. */
struct qcow2_exts {
    char *backing_format;        /* NULL: absent. Owned */
    char *data_file;
    uint64_t crypto_offset, crypto_bytes; /* 0: absent */
    bool has_bitmaps;
    uint32_t bitmap_count;
    uint64_t bitmap_dir_bytes, bitmap_dir_offset;
    uint8_t *features;           /* feature name table as found; NULL: absent, ours is written */
    uint32_t features_bytes;
    struct qcow2_unknown_ext unknown[QCOW2_UNKNOWN_EXT_MAX];
    unsigned unknown_count;
};

/* One internal snapshot in memory (snapshot.c). */
struct qcow2_snapshot {
    char *id, *name;             /* owned */
    uint64_t l1_offset;
    uint32_t l1_count;
    uint32_t date_sec, date_nsec;
    uint64_t vm_clock_ns, vm_state_bytes, size_bytes, icount;
    uint8_t *unknown_extra;      /* extra data beyond what we know, kept. Owned */
    uint32_t extra_bytes;        /* as stored */
};

/* A piece of a metadata table in memory: L2 slice or refcount block slice. Valid between two waits; never keep one. */
struct qcow2_table {
    uint64_t offset;             /* host; 0: unused */
    uint8_t *data;               /* big-endian, as on disk */
    uint8_t *writing_data;       /* what a commit writes, when `data` has changed since; else NULL */
    bool loading, dirty, writing, cut, used;
    struct qcow2_table *hash_next;
    struct fiber_queue waiters;  /* loaded, or written */
};

struct qcow2_cache {
    struct qcow2 *image;
    uint32_t entry_bytes;        /* power of two, <= cluster */
    uint32_t limit;              /* tables at most */
    uint32_t count;              /* of `tables`, grows up to limit */
    uint32_t hand;               /* of the clock */
    uint32_t hash_mask;
    uint32_t dirty_count;
    struct qcow2_table **tables, **hash;
    uint64_t next;               /* behind what was loaded last */
    bool in_order;               /* that was where the one before ended */
    uint64_t hits, misses;
};

/* Guest clusters being given a place by a write in flight; on the writer's stack. */
struct qcow2_alloc {
    uint64_t begin, end;         /* guest, cluster aligned */
    struct fiber_queue waiters;
    struct qcow2_alloc *prev, *next;
};

/* Metadata that writes must not hit. */
enum qcow2_section {
    QCOW2_SECTION_HEADER = 1 << 0, QCOW2_SECTION_ACTIVE_L1 = 1 << 1, QCOW2_SECTION_ACTIVE_L2 = 1 << 2,
    QCOW2_SECTION_REFBLOCK = 1 << 3, QCOW2_SECTION_REFTABLE = 1 << 4,
    QCOW2_SECTION_SNAPSHOTS = 1 << 5, QCOW2_SECTION_INACTIVE_L1 = 1 << 6,
    QCOW2_SECTION_INACTIVE_L2 = 1 << 7, QCOW2_SECTION_BITMAPS = 1 << 8,
};

enum qcow2_discard { QCOW2_DISCARD_NEVER, QCOW2_DISCARD_REQUEST, QCOW2_DISCARD_SNAPSHOT, QCOW2_DISCARD_OTHER };

struct crypto;
struct luks;
struct bitmap_dir;
struct qcow2_pending;            /* refcount.c: clusters whose references are gone */
struct qcow2_unpacked;           /* compressed.c: decompressed clusters */
struct qcow2_places;             /* overlap.c: set of metadata clusters */

struct qcow2 {
    struct node node;            /* first */

    struct {                     /* as given */
        bool lazy_refcounts;
        bool pass_discard_request, pass_discard_snapshot, pass_discard_other;
        uint64_t cache_bytes, l2_cache_bytes, refcount_cache_bytes, l2_entry_bytes;
        uint64_t cache_clean_sec;
        JsonNode *overlap_check; /* a word, or an object with a template and sections; NULL: not given */
        char *encrypt_format, *encrypt_key;
    } opt;

    struct qcow2_header header;
    struct qcow2_exts ext;
    uint32_t cluster_bytes, cluster_bits;
    bool extended_l2;
    uint32_t subcluster_bytes, subcluster_bits; /* the cluster's, without extended L2 */
    uint32_t l2_entry_bytes;     /* 8, or 16 with extended L2 */
    uint32_t l2_bits;            /* log2 of the entries of one L2 table */
    uint32_t slice_bits;         /* log2 of the entries of one slice of it */
    uint32_t refcount_order, refblock_bits; /* log2: bits of an entry, entries of a block */
    uint64_t refcount_max;

    struct node_child *file_child; /* metadata, and guest data when data_child is the same: qcow2_file() */
    struct node_child *data_child; /* qcow2_data() */
    bool data_external, data_raw;
    unsigned depth;              /* images below, when it was opened */
    struct luks *luks;           /* NULL: plain, or the old way */
    struct crypto *aes;          /* the old way: reading only */

    uint64_t *l1;                /* host order, header.l1_count entries (more may be allocated) */
    uint8_t *l1_dirty;           /* a byte for 64 entries (512 bytes on disk) */
    bool l1_any_dirty;
    uint64_t *reftable;          /* host order */
    uint32_t reftable_count;     /* entries */

    struct qcow2_cache l2_cache, refcount_cache;
    struct fiber_mutex commit_lock, alloc_lock, l2_lock, header_lock, grace_lock, mark_lock;
    uint64_t free_index;         /* no cluster below is free */
    uint64_t fresh_offset;       /* from here on the file was never written: it reads as zero */
    uint64_t packed_offset;      /* next byte for compressed data; 0: none begun */
    struct qcow2_alloc *allocs;  /* in flight */
    struct qcow2_pending *pending;
    struct qcow2_unpacked *unpacked;

    unsigned epoch;              /* requests that hold a mapping, by epoch: see qcow2_enter() */
    unsigned inside[2];
    struct fiber_queue grace;

    unsigned overlap_sections;   /* enum qcow2_section */
    struct qcow2_places *places;

    struct qcow2_snapshot *snapshots; /* header.snapshot_count of them. Owned */
    uint64_t snapshot_table_bytes;
    struct bitmap_dir *bitmap_dir; /* bitmap.c: as on disk; NULL: not loaded. Owned */
    struct loop_timer clean_timer;
    bool clean_timer_on;
    bool dirty_marked;           /* the header says "dirty" because of us */
    int8_t has_holes;            /* 1: the file has far fewer blocks than clusters, -1: not; 0: not looked yet */
    bool closing;                /* the last commits: lazy refcounts are written after all */
};

static inline struct qcow2 *qcow2_of(struct node *n)
{
    return (struct qcow2 *)n;
}

/* Looked up for each use: node_replace() may put filters there. */
static inline struct node *qcow2_file(const struct qcow2 *s)
{
    return s->file_child->node;
}
static inline struct node *qcow2_data(const struct qcow2 *s)
{
    return s->data_child->node;
}
struct node *qcow2_backing(const struct qcow2 *s); /* the child, filter or not; NULL: none */

/* ---- fan.c: several fibers on behalf of one ---- */

struct qcow2_fan {
    unsigned running;
    int error;                   /* the first one */
    struct fiber *waiter;
};
struct qcow2_task {
    struct qcow2_fan *fan;
    int (*fn)(struct qcow2_task *t);
    bool busy;                   /* its memory is in use */
};
/* Runs t->fn in a fiber of its own. */
void qcow2_fan_start(struct qcow2_fan *f, struct qcow2_task *t, int (*fn)(struct qcow2_task *t));
/* Until one that ran has ended. (f) */
void qcow2_fan_wait(struct qcow2_fan *f);
/* Until all have ended: 0 or the first error. (f) */
int qcow2_fan_join(struct qcow2_fan *f);
/* fn(opaque) in a fiber of its own, waited for: a chain of images is deeper than one stack. (f) */
int qcow2_on_new_stack(int (*fn)(void *opaque), void *opaque);

/* ---- geometry.c ---- */

void qcow2_geometry(struct qcow2 *s);
bool qcow2_caches_open(struct qcow2 *s, GError **error);

/* ---- header.c ---- */

/* Parses and checks; `size` is the file's. Extensions are read from the first cluster. Frees nothing on failure:
 * qcow2_exts_clear(). (f) */
bool qcow2_header_read(struct node *file, const char *name, unsigned open_flags,
                       struct qcow2_header *ret, struct qcow2_exts *ret_ext, char **ret_backing,
                       GError **error);
/* The first cluster as it is to be on disk: header, extensions, backing name (NULL: none). `to` has cluster
 * bytes, is cleared here, and h's backing and length members are set. -ENOSPC: does not fit. */
int qcow2_header_build(struct qcow2_header *h, const struct qcow2_exts *e, const char *backing,
                       uint8_t *to);
/* Only the fixed fields, in one sector: atomic. (f) */
int qcow2_header_write_fields(struct qcow2 *s);
/* All of it, with extensions and node.backing_file. (f) */
int qcow2_header_write(struct qcow2 *s);
void qcow2_exts_clear(struct qcow2_exts *e);
/* Sets or clears incompatible bits on disk, synced. (f) */
int qcow2_header_set_incompatible(struct qcow2 *s, uint64_t set, uint64_t clear);

/* ---- I/O of metadata (meta.c, overlap.c) ---- */

/* Reads of the image file; past its end there are zeroes. (f) */
int qcow2_meta_read(struct qcow2 *s, uint64_t off, void *buf, size_t len);
/* Refused (-EIO, node_corrupt()) when it would hit metadata other than `mine` (sections). (f) */
int qcow2_meta_write(struct qcow2 *s, unsigned mine, uint64_t off, const void *buf, size_t len);
/* Sync of the image file alone. (f) */
int qcow2_meta_sync(struct qcow2 *s);
/* 0, or -EIO after node_corrupt(). Never waits unless inactive L2 tables are asked for. */
int qcow2_check_overlap(struct qcow2 *s, unsigned mine, uint64_t off, uint64_t len);
/* (Re)builds the set after tables, snapshots or bitmaps moved. -ENOMEM. */
int qcow2_places_rebuild(struct qcow2 *s);
void qcow2_places_add(struct qcow2 *s, enum qcow2_section section, uint64_t off);
void qcow2_places_remove(struct qcow2 *s, uint64_t off);
void qcow2_places_free(struct qcow2 *s);
/* Marks the image corrupt on disk (fatal) and reports, once. Returns -EIO. (f) when fatal. */
int qcow2_corrupt(struct qcow2 *s, bool fatal, int64_t offset, uint64_t size, const char *format, ...)
    G_GNUC_PRINTF(5, 6);

/* The option's sections. */
bool qcow2_overlap_parse(struct qcow2 *s, GError **error);

/* ---- cache.c, commit.c ---- */

bool qcow2_cache_init(struct qcow2_cache *c, struct qcow2 *s, uint32_t entry_bytes, uint64_t bytes);
void qcow2_cache_done(struct qcow2_cache *c); /* drops what is dirty */
/* The piece at host offset `off` (multiple of entry_bytes), read when it is not there. (f) */
int qcow2_cache_get(struct qcow2_cache *c, uint64_t off, struct qcow2_table **ret);
/* NULL when it is not in memory; never waits. */
struct qcow2_table *qcow2_cache_peek(struct qcow2_cache *c, uint64_t off);
/* To be called before each change of t->data. 0 or -ENOMEM: nothing may be changed. Never waits. */
int qcow2_cache_change(struct qcow2_cache *c, struct qcow2_table *t);
/* Forgets [off, off + len) without writing it: the tables there are gone, or were written past the cache. */
void qcow2_cache_forget(struct qcow2_cache *c, uint64_t off, uint64_t len);
void qcow2_cache_forget_all(struct qcow2_cache *c); /* all of it */
/* Frees the memory of what is clean and was not used since the last call. */
void qcow2_cache_trim(struct qcow2_cache *c);
/* Writes every changed table in the order above; `durable`: and syncs. Afterwards nothing that was changed before
 * the call is in memory only. (f) */
int qcow2_commit(struct qcow2 *s, bool durable);
/* qcow2_commit(durable), then drops the references that it removed for good: refcounts of cleared lists fall. Not
 * between qcow2_enter() and qcow2_leave(). (f) */
int qcow2_commit_and_free(struct qcow2 *s);
/* Everything to disk, lazy refcounts too; then the header says "clean". (f) */
int qcow2_settle(struct qcow2 *s);

/* A request that uses a mapping enters before it waits for the first time after the lookup, and leaves when its
 * I/O is over; clusters it may use are not given to others meanwhile. */
static inline unsigned qcow2_enter(struct qcow2 *s)
{
    unsigned e = s->epoch & 1;
    s->inside[e]++;
    return e;
}
static inline void qcow2_leave(struct qcow2 *s, unsigned e)
{
    if (--s->inside[e] == 0 && unlikely(s->grace.head))
        fiber_queue_wake_all(&s->grace);
}
void qcow2_wait_grace(struct qcow2 *s); /* (f) */

/* ---- refcount.c, reftable.c ---- */

uint64_t qcow2_refcount_read(const void *block, unsigned order, uint64_t index);
void qcow2_refcount_write(void *block, unsigned order, uint64_t index, uint64_t value);
/* Of cluster `index`; what no block covers has 0. (f) */
int qcow2_refcount_get(struct qcow2 *s, uint64_t index, uint64_t *ret);
/* Adds to the count of every cluster that [off, off + len) touches, at once in memory; blocks are made. Lowering is
 * for clusters that nothing on disk refers to any more. Overflow: -EINVAL, underflow: node_corrupt(). (f) */
int qcow2_refcount_add(struct qcow2 *s, uint64_t off, uint64_t len, int addend);
/* Contiguous clusters for `bytes`, counted once; *ret_offset in the image file. (f) */
int qcow2_alloc_bytes(struct qcow2 *s, uint64_t bytes, uint64_t *ret_offset);
/* 1 to `want` contiguous clusters, as many as there are in one place; *ret_fresh: they read as zero. (f) */
int qcow2_alloc_run(struct qcow2 *s, uint64_t want, uint64_t *ret_offset, uint64_t *ret_count,
                    bool *ret_fresh);
/* `bytes` (less than a cluster) anywhere, behind what was packed last. (f) */
int qcow2_alloc_packed(struct qcow2 *s, uint32_t bytes, uint64_t *ret_offset);
/* References to the clusters that [off, off + len) touches were removed in memory (or on disk): counts fall by 1 after
 * the next durable commit. -ENOMEM cannot be: without memory they leak. */
void qcow2_free_later(struct qcow2 *s, uint64_t off, uint64_t len, enum qcow2_discard how);
/* Never referenced anywhere (an allocation that failed later): counts fall now. (f) */
void qcow2_free_now(struct qcow2 *s, uint64_t off, uint64_t len);
uint64_t qcow2_pending_count(const struct qcow2 *s);
/* For commit.c: the list so far, and a new one begins; its end, or its return. */
struct qcow2_pending *qcow2_pending_take(struct qcow2 *s);
void qcow2_pending_give_back(struct qcow2 *s, struct qcow2_pending *p);
int qcow2_pending_apply(struct qcow2 *s, struct qcow2_pending *p); /* (f) frees p */
void qcow2_pending_free(struct qcow2_pending *p);
/* Reads header.reftable_* into memory; forgets cached blocks. Also after a repair wrote new ones. (f) */
bool qcow2_reftable_load(struct qcow2 *s, GError **error);
int qcow2_refblock_make(struct qcow2 *s, uint64_t table_index); /* for refcount.c (f) */

/* ---- l2.c ---- */

/* What an L2 entry says about one (sub)cluster. */
enum qcow2_kind {
    QCOW2_UNALLOCATED,           /* the backing file decides */
    QCOW2_UNALLOCATED_PLACE,     /* likewise, but the cluster has a place (extended L2) */
    QCOW2_ZERO_PLAIN, QCOW2_ZERO_PLACE, /* zeroes, without and with a place */
    QCOW2_NORMAL, QCOW2_PACKED,  /* data; compressed data */
    QCOW2_INVALID,
};
struct qcow2_mapping {
    enum qcow2_kind kind;
    bool copied;                 /* the place is ours alone: may be written */
    uint64_t len;                /* bytes of the same kind, contiguous in the host where there is a place */
    uint64_t host;               /* of the first byte asked; 0: no place */
    uint64_t entry;              /* L2 entry of the first cluster; PACKED: the descriptor */
};
/* The guest offset where the slice that maps `off` ends. */
static inline uint64_t qcow2_slice_end(const struct qcow2 *s, uint64_t off)
{
    uint64_t bytes = (uint64_t)s->cluster_bytes << s->slice_bits;
    return align_down(off, bytes) + bytes;
}
/* The run that begins at guest offset `off`, at most len bytes; it ends with its slice, but what no L2 table maps
 * may span many. (f) only when the slice is not in memory. */
int qcow2_lookup(struct qcow2 *s, uint64_t off, uint64_t len, struct qcow2_mapping *ret);
/* The slice of guest offset `off`, in a table that is ours alone (made or copied), and the entry's index in it. (f) */
int qcow2_l2_writable(struct qcow2 *s, uint64_t off, struct qcow2_table **ret, unsigned *ret_index);
/* The slice if there is one: *ret NULL otherwise. (f) */
int qcow2_l2_find(struct qcow2 *s, uint64_t off, struct qcow2_table **ret, unsigned *ret_index);
uint64_t qcow2_l2_entry(const struct qcow2 *s, const struct qcow2_table *t, unsigned index);
uint64_t qcow2_l2_bitmap(const struct qcow2 *s, const struct qcow2_table *t, unsigned index);
/* After qcow2_cache_change(). */
void qcow2_l2_set(struct qcow2 *s, struct qcow2_table *t, unsigned index, uint64_t entry,
                  uint64_t bitmap);
enum qcow2_kind qcow2_kind_of(const struct qcow2 *s, uint64_t entry, uint64_t bitmap, unsigned sub);
/* Where a compressed descriptor's bytes are. */
void qcow2_packed_place(const struct qcow2 *s, uint64_t entry, uint64_t *ret_off, uint32_t *ret_len);
/* Gives back what an entry that was replaced referred to. */
void qcow2_l2_release(struct qcow2 *s, uint64_t entry, enum qcow2_discard how);
/* Reads header.l1_* into memory, checked. Forgets cached slices. (f) */
bool qcow2_l1_load(struct qcow2 *s, GError **error);
void qcow2_l1_set(struct qcow2 *s, uint64_t index, uint64_t entry); /* marks it for the next commit */
/* L1 grows to `count` entries: new place, header, old one freed. (f) */
int qcow2_l1_grow(struct qcow2 *s, uint64_t count);

/* ---- alloc.c: allocations in flight ---- */

void qcow2_alloc_begin(struct qcow2 *s, struct qcow2_alloc *a, uint64_t begin, uint64_t end);
void qcow2_alloc_end(struct qcow2 *s, struct qcow2_alloc *a);
/* Sets the header's dirty bit before the first change, when refcounts are lazy. (f) */
int qcow2_mark_dirty(struct qcow2 *s);
struct qcow2_alloc *qcow2_alloc_find(struct qcow2 *s, uint64_t begin, uint64_t end); /* the first in guest order */
/* Waits when [off, off + len) meets allocations in flight: true: waited, look up again. (f) */
bool qcow2_alloc_wait(struct qcow2 *s, uint64_t off, uint64_t len);

/* ---- read.c, write.c, zero.c, compressed.c, resize.c ---- */

int qcow2_read(struct node *n, uint64_t off, struct vec v, unsigned flags);
int qcow2_write(struct node *n, uint64_t off, struct vec v, unsigned flags);
int qcow2_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags);
int qcow2_discard(struct node *n, uint64_t off, uint64_t len);
int qcow2_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret);
bool qcow2_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error);
int qcow2_make_empty(struct node *n);
/* Bytes of the data file as they are; past its end zeroes. (f) */
int qcow2_read_host(struct qcow2 *s, uint64_t host, struct vec v);
/* What lies below [off, ...): the backing file, zeroes past its end. (f) */
int qcow2_read_backing(struct qcow2 *s, uint64_t off, struct vec v);
/* The same as read, beyond size_bytes too: machine state. (f) */
int qcow2_read_any(struct qcow2 *s, uint64_t off, struct vec v);
int qcow2_write_any(struct qcow2 *s, uint64_t off, struct vec v);
/* Entries of [off, off + len), whole clusters, become nothing at all (the backing file shows). (f) */
int qcow2_drop_range(struct qcow2 *s, uint64_t off, uint64_t len, enum qcow2_discard how);
/* Zero clusters (version 3), also beyond the size. (f) */
int qcow2_zero_range(struct qcow2 *s, uint64_t begin, uint64_t end);
/* Gives every cluster of the range a place (and zeroes, or the file's room). (f) */
bool qcow2_preallocate(struct qcow2 *s, uint64_t off, uint64_t len, enum image_prealloc p, GError **error);
/* Decompresses the cluster of that descriptor and copies [skip, skip + v.len) of it. (f) */
int qcow2_packed_read(struct qcow2 *s, uint64_t entry, uint32_t skip, struct vec v);
int qcow2_packed_write(struct qcow2 *s, uint64_t off, struct vec v); /* (f) */
void qcow2_unpacked_forget(struct qcow2 *s); /* all of them */
void qcow2_unpacked_free(struct qcow2 *s);
JsonObject *qcow2_describe(struct node *n);

/* ---- crypt.c ---- */

bool qcow2_crypt_open(struct qcow2 *s, GError **error); /* (f) */
void qcow2_crypt_close(struct qcow2 *s);
/* `off`: guest, `host`: in the file. (f) */
int qcow2_crypt_read(struct qcow2 *s, uint64_t off, uint64_t host, struct vec v);
int qcow2_crypt_write(struct qcow2 *s, uint64_t host, struct vec v); /* (f) */
JsonObject *qcow2_crypt_describe(const struct qcow2 *s); /* NULL: not encrypted. Caller owns */

/* ---- the other half: check.c, snapshot.c, bitmap.c, amend.c, create.c ---- */

/* Called by open(): the snapshot table into s->snapshots (header.snapshot_count may shrink under NODE_CHECK). (f) */
bool qcow2_snapshots_load(struct qcow2 *s, GError **error);
void qcow2_snapshots_free(struct qcow2 *s);
/* Load: called by open() after everything else, and by set_read_only() once the node may be written (marks the bitmaps
 * as in use). Store: by close() and set_read_only() before the last commit, while the node may still be written. (f) */
bool qcow2_bitmaps_load(struct qcow2 *s, GError **error);
bool qcow2_bitmaps_store(struct qcow2 *s, GError **error);
void qcow2_bitmaps_free(struct qcow2 *s); /* by close(): what load kept of the directory */
/* Refused when a persistent bitmap could not be stored for a disk of that size. */
bool qcow2_bitmaps_fit(struct qcow2 *s, uint64_t size_bytes, GError **error);
JsonArray *qcow2_bitmaps_describe(struct qcow2 *s); /* "bitmaps" of info; NULL: none */
bool qcow2_check(struct node *n, unsigned fix, struct image_check *ret, GError **error);

/* Internal snapshots and the machine state that they keep. */
int qcow2_snapshot_list(struct node *n, struct snapshot_info **ret, unsigned *ret_count);
bool qcow2_snapshot_create(struct node *n, const struct snapshot_info *info, GError **error);
bool qcow2_snapshot_apply(struct node *n, const char *id_or_name, GError **error);
bool qcow2_snapshot_delete(struct node *n, const char *id_or_name, GError **error);
bool qcow2_snapshot_show(struct node *n, const char *id_or_name, GError **error);
int qcow2_vmstate_read(struct node *n, uint64_t off, struct vec v);
int qcow2_vmstate_write(struct node *n, uint64_t off, struct vec v);

bool qcow2_bitmap_can_store(struct node *n, const char *name, uint64_t granularity, GError **error);
bool qcow2_bitmap_forget(struct node *n, const char *name, GError **error);

extern const char *const qcow2_amendable[];
bool qcow2_amend(struct node *n, JsonObject *given, struct image_progress *p, GError **error);

/* What qcow2_create_options parses into. */
struct qcow2_create_options {
    int compat;                  /* index of the words */
    char *backing_file, *backing_format;
    uint64_t cluster_bytes, refcount_bits, extent_bytes;
    int preallocation;           /* enum image_prealloc */
    bool lazy_refcounts, data_file_raw, extended_l2;
    char *data_file;
    int compression;             /* enum qcow2_compression */
    bool encryption;             /* the old way; refused */
    int encrypt_format;          /* 0: none, enum qcow2_crypt */
    struct luks_create_options luks;
};
extern const struct image_option qcow2_create_options[];
bool qcow2_create(struct image_create *c, GError **error);
bool qcow2_measure(const void *create_options, uint64_t size_bytes, struct node *source,
                   struct image_measure *ret, GError **error);
/* The options that can be judged without a file: powers of two, what version 2 lacks. */
bool qcow2_cluster_options_check(const struct qcow2_create_options *o, GError **error);
/* Clusters of table and blocks that count `others` and themselves; *ret_blocks (or NULL): the blocks among them. */
uint64_t qcow2_refcount_clusters(uint64_t others, uint32_t cluster_bits, unsigned order,
                                 uint64_t *ret_blocks);
