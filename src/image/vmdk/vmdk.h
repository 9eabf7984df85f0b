/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMDK: what the files of this folder share: descriptor, extents, the open image.
 *
 * Spec      VMware "Virtual Disk Format 5.0" (hosted sparse, stream-optimized, flat) and 1.1 (ESX
 *           Server sparse).
 * Owner     The node; made by vmdk_open(), freed by vmdk_close().
 * Thread    The node's home thread. Memory is changed between waits only; who waits looks up
 *           again.
 * Trust     Descriptor, headers and tables are hostile: sizes are capped, table entries are
 *           checked when used.
 * Order     A crash at any instant leaves at most space that nothing refers to: 1. Grains are
 *           given out behind the end of the file, where it reads as zeroes. Their data is written
 *           first. 2. The grain table entry is set in memory when the write is done. 3. A flush
 *           syncs the data, writes the changed grain tables (redundant copy first), syncs again.
 *           The redundant copy may so be ahead of the other one; both are good. Stream-optimized
 *           extents whose directory stands at the end are their own journal: when the footer is
 *           missing, the grains' markers are read from the front (stream_recover()).
 */
#pragma once

#include "image/driver.h"
#include "image/mapcache.h"

#include "base/error.h"

#define VMDK_SECTOR              512u
#define VMDK_DESCRIPTOR_MAX      (256 * KIB)
#define VMDK_EXTENTS_MAX         (NODE_CHILD_MAX - 2)
#define VMDK_GRAIN_BYTES         (64 * KIB) /* of new images */
#define VMDK_GRAIN_BYTES_MAX     (16 * MIB)
#define VMDK_TABLE_ENTRIES       512u
#define VMDK_COWD_TABLE_ENTRIES  4096u
#define VMDK_DIRECTORY_BYTES_MAX (64 * MIB) /* all directories of an image, in memory */
#define VMDK_NO_PARENT           0xffffffffu
#define VMDK_GD_AT_END           UINT64_MAX
#define VMDK_BUFFERS_KEPT        8
#define VMDK_CHUNK_BYTES         (2 * MIB) /* compressed or read in one go */
#define VMDK_RECOVER_BYTES_MAX                                                                     \
    (64 * MIB) /* of tables that a missing footer makes us hold in memory */

enum vmdk_flags {
    VMDK_FLAG_NEWLINES = 1 << 0,
    VMDK_FLAG_REDUNDANT = 1 << 1,
    VMDK_FLAG_ZERO_GRAINS = 1 << 2,
    VMDK_FLAG_COMPRESSED = 1 << 16,
    VMDK_FLAG_MARKERS = 1 << 17,
};
enum vmdk_marker { VMDK_MARKER_EOS, VMDK_MARKER_GT, VMDK_MARKER_GD, VMDK_MARKER_FOOTER };
enum vmdk_gte { VMDK_GTE_UNALLOCATED = 0, VMDK_GTE_ZERO = 1 };

/* ---- descriptor.c ---- */

enum vmdk_extent_kind { VMDK_FLAT, VMDK_ZERO, VMDK_SPARSE, VMDK_COWD };

struct vmdk_extent_line {
    enum vmdk_extent_kind kind;
    bool writable;
    uint64_t sectors, offset_sectors;
    char *type;     /* "SPARSE", "FLAT", ..., as written */
    char *filename; /* NULL: VMDK_ZERO */
};

struct vmdk_descriptor {
    uint32_t cid, parent_cid;
    char *create_type, *parent_hint; /* hint NULL: none */
    GArray *extents;                 /* of struct vmdk_extent_line */
};

/* text need not end in a NUL. False with *error: `name` is the file. */
bool vmdk_descriptor_parse(const char *text, size_t len, const char *name,
                           struct vmdk_descriptor *ret, GError **error);
void vmdk_descriptor_clear(struct vmdk_descriptor *d);
bool vmdk_descriptor_probe(const uint8_t *head, size_t len);
/* The text with the value of `key` replaced, set before the extents, or (value NULL) removed.
 * Caller frees. */
char *vmdk_descriptor_set(const char *text, const char *key, const char *value);
/* The text with the size of the extent of that number replaced. */
char *vmdk_descriptor_set_extent(const char *text, unsigned index, uint64_t sectors);

/* ---- the open image ---- */

/* A range of grains being allocated, on its fiber's stack. */
struct vmdk_allocation {
    uint64_t first, count;
    struct vmdk_allocation *next;
};

struct vmdk_extent {
    struct vmdk *image;
    unsigned index;
    enum vmdk_extent_kind kind;
    bool writable;
    struct node *file;    /* borrowed of a child; NULL: VMDK_ZERO */
    uint64_t begin, size; /* place in the disk */
    uint64_t flat_offset;
    char *type, *filename;
    /* sparse */
    uint32_t version, flags;
    uint64_t capacity_sectors; /* as the header says */
    uint64_t grain_bytes, grain_count, data_begin;
    unsigned table_entries;
    uint32_t directory_count;
    uint32_t *directory, *redundant; /* sector of each grain table; redundant NULL: none */
    uint64_t directory_offset, redundant_offset;
    uint64_t descriptor_offset, descriptor_bytes; /* 0: none */
    uint64_t end;                                 /* where the next grain goes */
    bool zero_grains;                             /* a table may say so */
    bool compressed, markers;
    bool at_end;   /* directory and footer stand at the end and are written last */
    bool finished; /* they are there */
    bool cut;      /* they were cut off, which is not synced yet */
    bool grown;    /* grains were given out */
    struct vmdk_allocation *allocations;
    struct fiber_queue allocation_waiters;
    struct fiber_mutex grow_lock;     /* new grain tables; the end of a stream */
    bool broken;                      /* a hole in the stream, after an error */
    uint64_t ticket_next, ticket_now; /* compressed writes are put down in order of arrival */
    struct fiber_queue ticket_waiters;
};

struct vmdk {
    struct node node;
    uint64_t cache_bytes; /* option */
    struct vmdk_descriptor desc;
    struct node *descriptor_file;                 /* borrowed: CHILD_FILE */
    uint64_t descriptor_offset, descriptor_bytes; /* bytes 0: no descriptor */
    bool descriptor_is_file;                      /* nothing but text in it */
    bool cid_written, opened;
    struct vmdk_extent *extents;
    unsigned extent_count;
    uint64_t directory_bytes; /* of all extents */
    struct map_cache tables;  /* key: extent << 32 | table */
    struct fiber_mutex cid_lock;
    void *buffers[VMDK_BUFFERS_KEPT]; /* of buffer_bytes */
    unsigned buffer_count;
    size_t buffer_bytes;
    /* the grain that was inflated last */
    uint8_t *inflated;
    struct vmdk_extent *inflated_extent;
    uint64_t inflated_grain;
    uint32_t inflated_entry;
};

static inline struct vmdk *vmdk_of(struct node *n)
{
    return container_of(n, struct vmdk, node);
}

/* The extent that holds byte `off`, which is inside the disk. */
struct vmdk_extent *vmdk_extent_at(struct vmdk *v, uint64_t off);
/* Grain buffers for copying; NULL: no memory. */
void *vmdk_buffer_get(struct vmdk *v);
void vmdk_buffer_put(struct vmdk *v, void *buffer);
/* What the backing file shows at `off` of the disk; zeroes without one. (f) */
int vmdk_read_backing(struct vmdk *v, uint64_t off, struct vec to);
bool vmdk_has_backing(const struct vmdk *v);

/* ---- open.c ---- */

bool vmdk_open(struct node *n, GError **error);
void vmdk_close(struct node *n);
JsonObject *vmdk_describe(struct node *n);
bool vmdk_set_read_only(struct node *n, bool read_only, GError **error);
/* The descriptor's text. NULL with *error. (f) */
char *vmdk_descriptor_load(struct vmdk *v, GError **error);
/* The content id of another image. (f) */
bool vmdk_content_id(struct graph *g, const char *filename, uint32_t *ret, GError **error);
/* Before the first change of contents: children of this disk must notice. (f) */
int vmdk_touch(struct vmdk *v);

/* ---- store.c ---- */

/* Puts it in the old one's place: a crash leaves one of both. (f) */
bool vmdk_descriptor_store(struct vmdk *v, const char *text, GError **error);

/* ---- header.c ---- */

struct vmdk_header {
    uint32_t version, flags;
    uint64_t capacity, grain_sectors, desc_offset, desc_sectors;
    uint32_t table_entries;
    uint64_t redundant_offset, directory_offset, overhead;
    bool unclean;
    uint16_t compression;
};
/* Of 512 bytes. False: no such header. */
bool vmdk_header_parse(const uint8_t *sector, struct vmdk_header *ret);
void vmdk_header_build(const struct vmdk_header *h, uint8_t *ret_sector);
/* Reads header and directories of a sparse extent whose `file` is set. sectors 0: as the header
 * says. (f) */
bool vmdk_sparse_open(struct vmdk_extent *e, uint64_t sectors, GError **error);

/* ---- tables.c (f) ---- */

extern const struct map_ops vmdk_map_ops;

/* ---- sparse.c (f) ---- */

enum vmdk_state { VMDK_RUN_UNALLOCATED, VMDK_RUN_ZERO, VMDK_RUN_DATA, VMDK_RUN_COMPRESSED };
/* Bytes of an extent that are in one state, and of data: behind one another in the file. */
struct vmdk_run {
    enum vmdk_state state;
    uint64_t len,
        host; /* COMPRESSED, DATA: host is of the byte asked for, of the grain if compressed */
};
static inline uint64_t vmdk_table_key(const struct vmdk_extent *e, uint64_t table)
{
    return (uint64_t)e->index << 32 | table;
}
/* The run at `off` of the extent, in one grain table. Nothing waits after the table was read. */
int vmdk_lookup(struct vmdk_extent *e, uint64_t off, uint64_t len, struct vmdk_run *ret);
/* Sets `count` entries of one table: first, first + step, ... */
int vmdk_set_entries(struct vmdk_extent *e, uint64_t grain, uint64_t count, uint32_t first,
                     uint32_t step);
int vmdk_sparse_read(struct vmdk_extent *e, uint64_t off, struct vec v);
int vmdk_sparse_write(struct vmdk_extent *e, uint64_t off, struct vec v);
int vmdk_sparse_zero(struct vmdk_extent *e, uint64_t off, uint64_t len, unsigned flags);
int vmdk_sparse_discard(struct vmdk_extent *e, uint64_t off, uint64_t len);

/* ---- stream.c (f) ---- */

#define VMDK_MARKER_BYTES 12u /* in front of a compressed grain: its sector and size */

int vmdk_stream_read(struct vmdk_extent *e, uint64_t off, struct vec v); /* of one run */
int vmdk_stream_write(struct vmdk_extent *e, uint64_t off, struct vec v);
/* What compressing or reading it needs at a time, see vmdk_buffer_get(). */
size_t vmdk_stream_buffer_bytes(const struct vmdk_extent *e);
/* What a grain takes at most, with its marker; worse can only be broken. */
uint64_t vmdk_record_bytes_max(const struct vmdk_extent *e);
/* What a grain of that compressed size takes. */
uint64_t vmdk_record_bytes(uint32_t size);
/* One grain out of its record, into grain_bytes. Any thread. 0 or -EIO. */
int vmdk_record_inflate(const struct vmdk_extent *e, uint64_t grain, const uint8_t *record,
                        size_t len, uint8_t *to);

/* ---- stream_end.c (f) ---- */

/* Cuts off what finish() wrote; grow_lock is held. The cut is durable before anything new stands
 * there. */
int vmdk_stream_reopen(struct vmdk_extent *e);
/* Puts records behind the end. The position is taken before the write, since tables are put there
 * meanwhile. */
int vmdk_stream_append(struct vmdk_extent *e, const void *bytes, uint64_t len, uint64_t *ret_at);
/* Puts a changed table at the end of the stream, with its marker. */
int vmdk_stream_store_table(struct vmdk_extent *e, uint32_t index, const uint32_t *entries);
/* Directory, footer and end mark that belong at e->end. Caller frees; NULL: no memory. */
uint8_t *vmdk_stream_tail(const struct vmdk_extent *e, uint64_t *ret_len);
/* Puts them there, when they are missing. */
int vmdk_stream_finish(struct vmdk_extent *e);
/* Finds the grains by their markers, when there is no footer. The cache has room for all tables. */
bool vmdk_stream_recover(struct vmdk_extent *e, GError **error);

/* ---- io.c (f) ---- */

int vmdk_read(struct node *n, uint64_t off, struct vec v, unsigned flags);
int vmdk_write(struct node *n, uint64_t off, struct vec v, unsigned flags);
int vmdk_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags);
int vmdk_discard(struct node *n, uint64_t off, uint64_t len);
int vmdk_flush(struct node *n);
int vmdk_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret);
int64_t vmdk_allocated_bytes(struct node *n);

/* ---- create.c ---- */

struct vmdk_create_options {
    int subformat, adapter_type, prealloc;
    bool compat6, zeroed_grain, nocow;
    char *hwversion, *toolsversion;
    uint64_t extent_size_hint;
};
enum vmdk_subformat {
    VMDK_MONOLITHIC_SPARSE,
    VMDK_MONOLITHIC_FLAT,
    VMDK_2GB_SPARSE,
    VMDK_2GB_FLAT,
    VMDK_STREAM_OPTIMIZED
};
extern const struct image_option vmdk_create_options[];
bool vmdk_create(struct image_create *c, GError **error);
bool vmdk_measure(const void *create_options, uint64_t size_bytes, struct node *source,
                  struct image_measure *ret, GError **error);
/* Header, directories, empty grain tables, and `descriptor` (NULL: none), into an empty file. (f)
 */
bool vmdk_sparse_create(struct node *file, uint64_t size_bytes, const struct vmdk_create_options *o,
                        const char *descriptor, GError **error);

/* ---- manage.c (f) ---- */

bool vmdk_check(struct node *n, unsigned fix, struct image_check *ret, GError **error);
bool vmdk_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error);
bool vmdk_change_backing(struct node *n, const char *file, const char *format, GError **error);
int vmdk_make_empty(struct node *n);
