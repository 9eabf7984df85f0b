/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files in memory, for tests. See the header. A file is a table of chunks, shared with its copies
 * until one of them is written. */
#include "image/memory.h"

#include "image/driver.h"

#include <errno.h>
#include <string.h>

enum { CHUNK = 16 * 1024, SECTOR = 512 };

struct chunk {
    unsigned refs;
    uint8_t data[CHUNK];
};

struct memory_file {
    char *name;
    uint64_t size, limit;
    GHashTable *chunks; /* index as gint64 -> struct chunk */
    GArray *events;     /* NULL: not recorded */
    GRand *delays;      /* NULL: none */
};

static GHashTable *files; /* name -> struct memory_file, borrowed */

static void chunk_unref(gpointer data)
{
    struct chunk *c = data;
    if (!--c->refs)
        g_free(c);
}

static GHashTable *chunks_new(void)
{
    return g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, chunk_unref);
}

struct memory_file *memory_file_new(const char *name, uint64_t size)
{
    struct memory_file *f = g_new0(struct memory_file, 1);
    f->name = g_strdup(name);
    f->size = size;
    f->limit = UINT64_MAX;
    f->chunks = chunks_new();
    if (!files)
        files = g_hash_table_new(g_str_hash, g_str_equal);
    g_hash_table_replace(files, f->name, f);
    return f;
}

struct memory_file *memory_file_find(const char *name)
{
    return files ? g_hash_table_lookup(files, name) : NULL;
}

void memory_file_free(struct memory_file *f)
{
    if (!f)
        return;
    if (memory_file_find(f->name) == f)
        g_hash_table_remove(files, f->name);
    memory_file_record(f, false);
    memory_file_delay(f, 0);
    g_hash_table_unref(f->chunks);
    g_free(f->name);
    g_free(f);
}

static struct chunk *chunk_at(const struct memory_file *f, uint64_t index)
{
    return g_hash_table_lookup(f->chunks, &index);
}

/* For writing: our own alone. NULL: over the limit. */
static struct chunk *chunk_own(struct memory_file *f, uint64_t index)
{
    struct chunk *old = chunk_at(f, index);
    if (old && old->refs == 1)
        return old;
    if (!old && memory_file_allocated(f) + CHUNK > f->limit)
        return NULL;
    struct chunk *c = g_new0(struct chunk, 1);
    c->refs = 1;
    if (old)
        memcpy(c->data, old->data, CHUNK);
    g_hash_table_replace(f->chunks, g_memdup2(&index, sizeof(index)), c);
    return c;
}

void memory_file_assign(struct memory_file *to, const struct memory_file *from)
{
    if (to == from)
        return;
    to->size = from->size;
    g_hash_table_remove_all(to->chunks);
    GHashTableIter it;
    gpointer key, value;
    g_hash_table_iter_init(&it, from->chunks);
    while (g_hash_table_iter_next(&it, &key, &value)) {
        struct chunk *c = value;
        c->refs++;
        g_hash_table_insert(to->chunks, g_memdup2(key, sizeof(uint64_t)), c);
    }
}

uint64_t memory_file_size(const struct memory_file *f)
{
    return f->size;
}

uint64_t memory_file_allocated(const struct memory_file *f)
{
    return (uint64_t)g_hash_table_size(f->chunks) * CHUNK;
}

void memory_file_read(const struct memory_file *f, uint64_t off, void *to, size_t len)
{
    uint8_t *at = to;
    while (len) {
        size_t skip = off % CHUNK, n = MIN(CHUNK - skip, len);
        const struct chunk *c = chunk_at(f, off / CHUNK);
        if (c)
            memcpy(at, c->data + skip, n);
        else
            memset(at, 0, n);
        off += n;
        at += n;
        len -= n;
    }
}

bool memory_file_write(struct memory_file *f, uint64_t off, const void *from, size_t len)
{
    const uint8_t *at = from;
    while (len) {
        size_t skip = off % CHUNK, n = MIN(CHUNK - skip, len);
        struct chunk *c = chunk_own(f, off / CHUNK);
        if (!c)
            return false;
        memcpy(c->data + skip, at, n);
        off += n;
        at += n;
        len -= n;
        f->size = MAX(f->size, off);
    }
    return true;
}

/* Whole chunks go; a chunk that is there needs no room. */
static void file_zero(struct memory_file *f, uint64_t off, uint64_t len)
{
    f->size = MAX(f->size, off + len);
    for (uint64_t end = off + len; off < end;) {
        size_t skip = off % CHUNK, n = MIN(CHUNK - skip, end - off);
        uint64_t index = off / CHUNK;
        if (n == CHUNK)
            g_hash_table_remove(f->chunks, &index);
        else if (chunk_at(f, index))
            memset(chunk_own(f, index)->data + skip, 0, n);
        off += n;
    }
}

static gboolean chunk_is_past(gpointer key, gpointer value, gpointer size)
{
    return *(uint64_t *)key * CHUNK >= *(uint64_t *)size;
}

static void file_resize(struct memory_file *f, uint64_t size)
{
    if (size < f->size) {
        g_hash_table_foreach_remove(f->chunks, chunk_is_past, &size);
        if (size % CHUNK && chunk_at(f, size / CHUNK))
            memset(chunk_own(f, size / CHUNK)->data + size % CHUNK, 0, CHUNK - size % CHUNK);
    }
    f->size = size;
}

void memory_file_set(struct memory_file *f, const void *bytes, size_t len)
{
    file_resize(f, 0);
    memory_file_write(f, 0, bytes, len);
}

void memory_file_limit(struct memory_file *f, uint64_t allocated_bytes)
{
    f->limit = allocated_bytes;
}

void memory_file_delay(struct memory_file *f, guint32 seed)
{
    g_clear_pointer(&f->delays, g_rand_free);
    if (seed)
        f->delays = g_rand_new_with_seed(seed);
}

/* ---- the record ---- */

static void event_clear(gpointer data)
{
    g_free(((struct memory_event *)data)->data);
}

void memory_file_record(struct memory_file *f, bool on)
{
    g_clear_pointer(&f->events, g_array_unref);
    if (on) {
        f->events = g_array_new(FALSE, FALSE, sizeof(struct memory_event));
        g_array_set_clear_func(f->events, event_clear);
    }
}

static void record(struct memory_file *f, enum memory_op op, uint64_t off, uint64_t len,
                   uint8_t *data)
{
    struct memory_event e = {.op = op, .off = off, .len = len, .data = data};
    g_array_append_val(f->events, e);
}

unsigned memory_file_event_count(const struct memory_file *f)
{
    return f->events ? f->events->len : 0;
}

const struct memory_event *memory_file_event(const struct memory_file *f, unsigned i)
{
    return &g_array_index(f->events, struct memory_event, i);
}

void memory_event_apply(struct memory_file *to, const struct memory_event *e)
{
    if (e->op == MEMORY_WRITE)
        memory_file_write(to, e->off, e->data, e->len);
    else if (e->op == MEMORY_ZERO)
        file_zero(to, e->off, e->len);
    else if (e->op == MEMORY_RESIZE)
        file_resize(to, e->off);
}

void memory_event_apply_torn(struct memory_file *to, const struct memory_event *e, GRand *chance)
{
    if (e->op != MEMORY_WRITE) {
        if (g_rand_boolean(chance))
            memory_event_apply(to, e);
        return;
    }
    for (uint64_t at = 0; at < e->len;) {
        uint64_t n = MIN(SECTOR - (e->off + at) % SECTOR, e->len - at);
        if (g_rand_boolean(chance))
            memory_file_write(to, e->off + at, e->data + at, n);
        at += n;
    }
}

/* ---- the driver ---- */

struct memory_node {
    struct node node;
    char *name;
    uint64_t align;           /* of requests, to try what a device with large sectors asks for */
    struct memory_file *file; /* borrowed */
};

static const struct image_option open_options[] = {
    OPT_STRING("name", struct memory_node, name, "Which file"),
    OPT_SIZE("align", struct memory_node, align, 1, 1, 4096, "Alignment of requests"),
    {0},
};
static const struct image_option create_options[] = {{0}};
static const char *const schemes[] = {"memory", NULL};

static struct memory_file *file_of(const struct node *n)
{
    return ((const struct memory_node *)n)->file;
}

static bool memory_parse_name(const char *filename, JsonObject *options, GError **error)
{
    json_object_set_string_member(options, "name", filename + strlen("memory://"));
    return true;
}

static bool memory_open(struct node *n, GError **error)
{
    struct memory_node *m = (struct memory_node *)n;
    m->file = m->name ? memory_file_find(m->name) : NULL;
    if (!m->file)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no file '%s' in memory",
                           m->name ?: "");
    g_free(n->filename);
    n->filename = g_strconcat("memory://", m->name, NULL);
    n->size_bytes = m->file->size;
    n->request_align = (uint32_t)m->align;
    n->zero_flags = NODE_MAY_UNMAP | NODE_NO_FALLBACK;
    n->zero_init = true;
    n->grows = true;
    return true;
}

static void memory_close(struct node *n)
{
}

static void delay(struct node *n)
{
    struct memory_file *f = file_of(n);
    if (f->delays && g_rand_boolean(f->delays))
        context_sleep_ns(n->ctx, g_rand_int_range(f->delays, 1, 20) * NS_PER_US);
}

static int memory_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    delay(n);
    while (v.len) {
        struct iovec piece;
        size_t len;
        vec_to_iov(v, &piece, 1, &len);
        memory_file_read(file_of(n), off, piece.iov_base, len);
        off += len;
        v = vec_slice(v, len, v.len - len);
    }
    return 0;
}

static int memory_write(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    struct memory_file *f = file_of(n);
    uint8_t *flat = g_try_malloc(v.len);
    size_t len = v.len;
    if (!flat)
        return -ENOMEM;
    vec_read(v, flat);
    delay(n);
    bool fits = memory_file_write(f, off, flat, len);
    n->size_bytes = f->size;
    if (fits && f->events)
        record(f, MEMORY_WRITE, off, len, flat);
    else
        g_free(flat);
    return fits ? 0 : -ENOSPC;
}

static int memory_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    struct memory_file *f = file_of(n);
    delay(n);
    file_zero(f, off, len);
    n->size_bytes = f->size;
    if (f->events)
        record(f, MEMORY_ZERO, off, len, NULL);
    return 0;
}

static int memory_discard(struct node *n, uint64_t off, uint64_t len)
{
    return memory_zero(n, off, len, 0);
}

static int memory_flush(struct node *n)
{
    struct memory_file *f = file_of(n);
    if (f->events)
        record(f, MEMORY_FLUSH, 0, 0, NULL);
    delay(n);
    return 0;
}

static int memory_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret)
{
    struct memory_file *f = file_of(n);
    bool data = chunk_at(f, off / CHUNK);
    uint64_t at = align_down(off, CHUNK) + CHUNK;
    while (at < off + len && (chunk_at(f, at / CHUNK) != NULL) == data)
        at += CHUNK;
    *ret = (struct image_extent){
        .len = MIN(at - off, len),
        .flags = EXTENT_ALLOCATED | EXTENT_OFFSET | (data ? EXTENT_DATA : EXTENT_ZERO),
        .host = n,
        .host_offset = off,
    };
    return 0;
}

static bool memory_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error)
{
    struct memory_file *f = file_of(n);
    file_resize(f, size);
    n->size_bytes = size;
    if (f->events)
        record(f, MEMORY_RESIZE, size, 0, NULL);
    return true;
}

static int64_t memory_allocated_bytes(struct node *n)
{
    return (int64_t)memory_file_allocated(file_of(n));
}

static bool memory_create(struct image_create *c, GError **error)
{
    const char *name =
        c->filename + (g_str_has_prefix(c->filename, "memory://") ? strlen("memory://") : 0);
    struct memory_file *f = memory_file_find(name);
    if (!f)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no file '%s' in memory", name);
    file_resize(f, 0);
    file_resize(f, c->size_bytes);
    return true;
}

static const struct image_driver memory_driver = {
    .name = "memory",
    .summary = "File in memory, for tests",
    .kind = DRIVER_PROTOCOL,
    .size = sizeof(struct memory_node),
    .schemes = schemes,
    .open_options = open_options,
    .create_options = create_options,
    .parse_name = memory_parse_name,
    .open = memory_open,
    .close = memory_close,
    .read = memory_read,
    .write = memory_write,
    .zero = memory_zero,
    .discard = memory_discard,
    .flush = memory_flush,
    .map = memory_map,
    .resize = memory_resize,
    .allocated_bytes = memory_allocated_bytes,
    .create = memory_create,
};
IMAGE_DRIVER(memory_driver);
