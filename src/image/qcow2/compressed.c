/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compressed clusters: packed one behind the other, byte by byte, inflated a cluster at a time.
 *
 * The last clusters inflated stay in memory: small sequential reads inflate each once. Compression
 * and large inflation run on the context's pool, so that several go on at a time.
 *
 * Spec      qcow2, "Compressed Clusters Descriptor".
 * Thread    The node's home thread, and the pool's for the buffers of a job.
 * Trust     Descriptors are bounded by their width; output never exceeds a cluster.
 */
#include "image/qcow2/internal.h"

#include "image/compress.h"

#include <errno.h>
#include <string.h>

enum {
    KEPT_MAX = 16,
    KEPT_BYTES = 4 << 20,
    OFFLOAD_BYTES = 16 << 10, /* of a cluster: from here on another thread inflates it */
    WRITERS_MAX = 16,
    PACKED_SECTOR_BYTES = 512,
};

struct kept {
    uint64_t entry; /* the descriptor; 0: nothing */
    uint8_t *data;
    bool loading;
    uint64_t used;
    struct fiber_queue waiters;
};

struct qcow2_unpacked {
    struct kept kept[KEPT_MAX];
    unsigned count;
    uint64_t clock;
};

static enum compression how_of(const struct qcow2 *s)
{
    return s->header.compression == QCOW2_COMPRESSION_ZSTD ? COMPRESS_ZSTD : COMPRESS_DEFLATE;
}

/* ---- reading ---- */

struct inflate {
    enum compression how;
    const uint8_t *from;
    size_t from_len;
    uint8_t *to;
    size_t to_len;
};

static int inflate_run(void *opaque)
{
    const struct inflate *i = opaque;
    return decompress_buffer(i->how, i->from, i->from_len, i->to, i->to_len);
}

/* The cluster of that descriptor to `to`. */
static int unpack(struct qcow2 *s, uint64_t entry, uint8_t *to)
{
    uint64_t off;
    uint32_t len;
    qcow2_packed_place(s, entry, &off, &len);
    uint8_t *from = g_try_malloc(len);
    if (!from)
        return -ENOMEM;
    int r = qcow2_meta_read(s, off, from, len);
    struct inflate job = {
        .how = how_of(s), .from = from, .from_len = len, .to = to, .to_len = s->cluster_bytes};
    if (!r)
        r = s->cluster_bytes >= OFFLOAD_BYTES ? context_offload(s->node.ctx, inflate_run, &job)
                                              : inflate_run(&job);
    g_free(from);
    return r;
}

static struct qcow2_unpacked *unpacked_of(struct qcow2 *s)
{
    if (!s->unpacked) {
        s->unpacked = g_try_new0(struct qcow2_unpacked, 1);
        if (s->unpacked)
            s->unpacked->count =
                (unsigned)max_u64(2, min_u64(KEPT_MAX, KEPT_BYTES / s->cluster_bytes));
    }
    return s->unpacked;
}

static struct kept *kept_find(struct qcow2_unpacked *u, uint64_t entry)
{
    for (unsigned i = 0; i < u->count; i++)
        if (u->kept[i].entry == entry)
            return &u->kept[i];
    return NULL;
}

/* The one not used for longest, with memory; NULL: all are loading, or no memory. */
static struct kept *kept_oldest(struct qcow2 *s, struct qcow2_unpacked *u)
{
    struct kept *oldest = NULL;
    for (unsigned i = 0; i < u->count; i++) {
        struct kept *k = &u->kept[i];
        if (!k->loading && (!oldest || k->used < oldest->used))
            oldest = k;
    }
    if (oldest && !oldest->data)
        oldest->data = g_try_malloc(s->cluster_bytes);
    return oldest && oldest->data ? oldest : NULL;
}

static int kept_load(struct qcow2 *s, struct kept *k, uint64_t entry)
{
    k->entry = entry;
    k->loading = true;
    int r = unpack(s, entry, k->data);
    k->loading = false;
    if (r)
        k->entry = 0;
    fiber_queue_wake_all(&k->waiters);
    return r;
}

/* Nothing to keep it in: through a buffer of its own. */
static int read_unkept(struct qcow2 *s, uint64_t entry, uint32_t skip, struct vec v)
{
    uint8_t *cluster = g_try_malloc(s->cluster_bytes);
    int r = cluster ? unpack(s, entry, cluster) : -ENOMEM;
    if (!r)
        vec_write(v, cluster + skip);
    g_free(cluster);
    return r;
}

int qcow2_packed_read(struct qcow2 *s, uint64_t entry, uint32_t skip, struct vec v)
{
    struct qcow2_unpacked *u = unpacked_of(s);
    if (!u)
        return -ENOMEM;
    for (;;) {
        struct kept *k = kept_find(u, entry);
        if (k && k->loading) {
            fiber_queue_wait(&k->waiters);
            continue;
        }
        if (!k) {
            k = kept_oldest(s, u);
            if (!k)
                return read_unkept(s, entry, skip, v);
            int r = kept_load(s, k, entry);
            if (r)
                return r;
        }
        k->used = ++u->clock;
        vec_write(v, k->data + skip);
        return 0;
    }
}

void qcow2_unpacked_forget(struct qcow2 *s)
{
    for (unsigned i = 0; s->unpacked && i < s->unpacked->count; i++)
        s->unpacked->kept[i].entry = 0;
}

void qcow2_unpacked_free(struct qcow2 *s)
{
    for (unsigned i = 0; s->unpacked && i < s->unpacked->count; i++)
        g_free(s->unpacked->kept[i].data);
    g_clear_pointer(&s->unpacked, g_free);
}

/* ---- writing ---- */

struct deflate {
    enum compression how;
    const uint8_t *from;
    size_t from_len;
    uint8_t *to;
    size_t to_len;
    ssize_t len;
};

static int deflate_run(void *opaque)
{
    struct deflate *d = opaque;
    d->len = compress_buffer(d->how, 0, d->from, d->from_len, d->to, d->to_len);
    return d->len < 0 ? (int)d->len : 0;
}

struct pack {
    struct qcow2_task task;
    struct qcow2 *s;
    uint64_t off; /* guest */
    struct vec v; /* a cluster, or what is left of the last */
};

/* The bytes are on their way: gives the guest cluster the descriptor. */
static int pack_link(struct qcow2 *s, uint64_t off, uint64_t host, size_t len)
{
    struct qcow2_table *t;
    unsigned index;
    int r = qcow2_l2_writable(s, off, &t, &index);
    if (!r)
        r = qcow2_cache_change(&s->l2_cache, t);
    if (r)
        return r;
    unsigned bits = 62 - (s->cluster_bits - 8);
    uint64_t last = (host + len - 1) / PACKED_SECTOR_BYTES, first = host / PACKED_SECTOR_BYTES;
    uint64_t old = qcow2_l2_entry(s, t, index);
    qcow2_l2_set(s, t, index, QCOW2_COMPRESSED | (last - first) << bits | host, 0);
    qcow2_l2_release(s, old, QCOW2_DISCARD_OTHER);
    qcow2_unpacked_forget(s);
    return 0;
}

static int pack_store(struct qcow2 *s, uint64_t off, const uint8_t *packed, size_t len)
{
    uint64_t host;
    int r = qcow2_mark_dirty(s);
    if (!r)
        r = qcow2_alloc_packed(s, (uint32_t)len, &host);
    if (r)
        return r;
    r = qcow2_meta_write(s, 0, host, packed, len);
    if (!r)
        r = pack_link(s, off, host, len);
    if (r)
        qcow2_free_now(s, host, len);
    return r;
}

/* `cluster` has two of them: what is to be compressed, and room for the result. */
static int pack_cluster(struct pack *p, uint8_t *cluster)
{
    struct qcow2 *s = p->s;
    memset(cluster, 0, s->cluster_bytes);
    vec_read(p->v, cluster);
    struct deflate d = {.how = how_of(s),
                        .from = cluster,
                        .from_len = s->cluster_bytes,
                        .to = cluster + s->cluster_bytes,
                        .to_len = s->cluster_bytes - 1};
    int r = context_offload(s->node.ctx, deflate_run, &d);
    if (r == -ENOSPC)
        return qcow2_write_any(s, p->off, p->v); /* it does not get smaller */
    if (r)
        return r;
    struct qcow2_alloc a;
    while (qcow2_alloc_wait(s, p->off, s->cluster_bytes))
        continue;
    qcow2_alloc_begin(s, &a, p->off, p->off + s->cluster_bytes);
    r = pack_store(s, p->off, d.to, (size_t)d.len);
    qcow2_alloc_end(s, &a);
    return r;
}

static int run_pack(struct qcow2_task *task)
{
    struct pack *p = (struct pack *)task;
    uint8_t *buffers = g_try_malloc((size_t)p->s->cluster_bytes * 2);
    int r = buffers ? pack_cluster(p, buffers) : -ENOMEM;
    g_free(buffers);
    return r;
}

static struct pack *free_pack(struct qcow2_fan *f, struct pack *packs, unsigned count)
{
    for (;;) {
        for (unsigned i = 0; i < count; i++)
            if (!packs[i].task.busy)
                return &packs[i];
        qcow2_fan_wait(f);
    }
}

int qcow2_packed_write(struct qcow2 *s, uint64_t off, struct vec v)
{
    uint64_t end = off + v.len;
    if (s->data_external || s->luks)
        return -ENOTSUP;
    if (off & (s->cluster_bytes - 1) || (end & (s->cluster_bytes - 1) && end != s->node.size_bytes))
        return -EINVAL;
    struct pack packs[WRITERS_MAX] = {0};
    unsigned count = (unsigned)min_u64(WRITERS_MAX, context_threads(s->node.ctx) + 1);
    struct qcow2_fan fan = {0};
    while (v.len && !fan.error) {
        struct pack *p = free_pack(&fan, packs, count);
        size_t len = min_u64(v.len, s->cluster_bytes);
        *p = (struct pack){.s = s, .off = off, .v = vec_slice(v, 0, len)};
        qcow2_fan_start(&fan, &p->task, run_pack);
        off += len;
        v = vec_slice(v, len, v.len - len);
    }
    return qcow2_fan_join(&fan);
}
