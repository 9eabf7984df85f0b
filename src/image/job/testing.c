/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/job/testing.h"

#include "image/driver.h"

#include <errno.h>
#include <string.h>

struct layer {
    struct node n;
    uint64_t size; /* option */
    uint8_t *bytes;
    bool *holds; /* by cluster */
    char *header;
    unsigned failing_writes, failing_reads, flushes;
    int write_error, read_error;
    int64_t delay_ns;
    bool header_stays;
};

struct layer *layer_of(struct node *n)
{
    return container_of(node_skip_filters(n), struct layer, n);
}

static const struct image_option layer_options[] = {
    OPT_U64("size", struct layer, size, 0, 0, 1 << 30, "Bytes"),
    { 0 },
};

static bool allocate(struct layer *l, uint64_t size)
{
    uint64_t old = l->n.size_bytes;
    l->bytes = g_realloc(l->bytes, align_up(size, LAYER_CLUSTER) + LAYER_CLUSTER);
    l->holds = g_realloc(l->holds, size / LAYER_CLUSTER + 2);
    uint64_t from = old ? align_up(old, LAYER_CLUSTER) : 0;
    if (from < align_up(size, LAYER_CLUSTER)) {
        memset(l->bytes + from, 0, align_up(size, LAYER_CLUSTER) - from);
        memset(l->holds + from / LAYER_CLUSTER, 0,
               align_up(size, LAYER_CLUSTER) / LAYER_CLUSTER - from / LAYER_CLUSTER);
    }
    l->n.size_bytes = size;
    return true;
}

static bool layer_open(struct node *n, GError **error)
{
    struct layer *l = container_of(n, struct layer, n);
    struct node *backing = node_open_child(n, "backing", CHILD_BACKING, false, error);
    g_free(n->filename);
    n->filename =
        g_strdup_printf("/layers/%s", json_object_get_string_member(n->options, "node-name"));
    if (backing) {
        l->header = g_strdup(node_filename(backing));
        n->backing_file = g_strdup(l->header);
        n->backing_format = g_strdup(node_format(backing));
    }
    n->request_align = 512;
    n->cluster_bytes = LAYER_CLUSTER;
    n->zero_flags = NODE_MAY_UNMAP;
    return allocate(l, l->size);
}

static void layer_close(struct node *n)
{
    struct layer *l = container_of(n, struct layer, n);
    g_free(l->bytes);
    g_free(l->holds);
    g_free(l->header);
}

static int read_below(struct node *n, uint64_t off, struct vec v)
{
    struct node *b = node_backing(n);
    uint64_t inside = b && off < b->size_bytes ? min_u64(v.len, b->size_bytes - off) : 0;
    vec_fill(vec_slice(v, inside, v.len - inside), 0);
    return inside ? node_read(b, off, vec_slice(v, 0, inside), 0) : 0;
}

static int layer_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    struct layer *l = container_of(n, struct layer, n);
    if (l->failing_reads) {
        l->failing_reads--;
        return l->read_error;
    }
    for (size_t done = 0; done < v.len;) {
        uint64_t at = off + done;
        size_t len = min_u64(v.len - done, LAYER_CLUSTER - at % LAYER_CLUSTER);
        struct vec part = vec_slice(v, done, len);
        if (l->holds[at / LAYER_CLUSTER])
            vec_write(part, l->bytes + at);
        int err = l->holds[at / LAYER_CLUSTER] ? 0 : read_below(n, at, part);
        if (err < 0)
            return err;
        done += len;
    }
    return 0;
}

static int take(struct layer *l, uint64_t cluster)
{
    uint64_t at = cluster * LAYER_CLUSTER;
    if (l->holds[cluster])
        return 0;
    struct iovec iov;
    int err = read_below(
        &l->n, at, vec_flat(&iov, l->bytes + at, min_u64(LAYER_CLUSTER, l->n.size_bytes - at)));
    l->holds[cluster] = err >= 0;
    return err;
}

static int layer_write(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    struct layer *l = container_of(n, struct layer, n);
    if (l->delay_ns)
        context_sleep_ns(node_context(n), l->delay_ns);
    if (l->failing_writes) {
        l->failing_writes--;
        return l->write_error;
    }
    for (uint64_t c = off / LAYER_CLUSTER; c * LAYER_CLUSTER < off + v.len; c++) {
        int err = take(l, c);
        if (err < 0)
            return err;
    }
    vec_read(v, l->bytes + off);
    return 0;
}

static int layer_discard(struct node *n, uint64_t off, uint64_t len)
{
    struct layer *l = container_of(n, struct layer, n);
    for (uint64_t c = off / LAYER_CLUSTER; c * LAYER_CLUSTER < off + len; c++) {
        int err = take(l, c);
        if (err < 0)
            return err;
    }
    memset(l->bytes + off, 0, len);
    return 0;
}

static int layer_flush(struct node *n)
{
    container_of(n, struct layer, n)->flushes++;
    return 0;
}

static int layer_map(struct node *n, uint64_t off, uint64_t len, struct image_extent *ret)
{
    struct layer *l = container_of(n, struct layer, n);
    bool holds = l->holds[off / LAYER_CLUSTER];
    uint64_t end = off;
    while (end < off + len && l->holds[end / LAYER_CLUSTER] == holds)
        end = (end / LAYER_CLUSTER + 1) * LAYER_CLUSTER;
    ret->len = min_u64(end - off, len);
    ret->flags = holds ? EXTENT_ALLOCATED | EXTENT_DATA : 0;
    if (holds && ret->len % 512 == 0 && bytes_are_zero(l->bytes + off, ret->len))
        ret->flags = EXTENT_ALLOCATED | EXTENT_ZERO;
    return 0;
}

static bool layer_resize(struct node *n, uint64_t size, enum image_prealloc p, GError **error)
{
    return allocate(container_of(n, struct layer, n), size);
}

static bool layer_change_backing(struct node *n, const char *file, const char *format,
                                 GError **error)
{
    struct layer *l = container_of(n, struct layer, n);
    if (l->delay_ns)
        context_sleep_ns(node_context(n), l->delay_ns);
    if (l->header_stays || node_is_read_only(n))
        return ruche_error(error, RUCHE_ERR_IO, "the header of '%s' cannot be written", n->filename);
    g_free(l->header);
    l->header = g_strdup(file);
    return true;
}

static const struct image_driver layer_driver = {
    .name = "layer",
    .kind = DRIVER_FORMAT,
    .flags = DRIVER_NO_FILE | DRIVER_BACKING | DRIVER_COMPRESS,
    .size = sizeof(struct layer),
    .open_options = layer_options,
    .open = layer_open,
    .close = layer_close,
    .read = layer_read,
    .write = layer_write,
    .discard = layer_discard,
    .flush = layer_flush,
    .map = layer_map,
    .resize = layer_resize,
    .change_backing = layer_change_backing,
};
IMAGE_DRIVER(layer_driver);

struct node *layer_new(struct graph *g, const char *name, uint64_t size, const char *backing,
                       bool writable)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) o = json_object_new();
    json_object_set_string_member(o, "driver", "layer");
    json_object_set_string_member(o, "node-name", name);
    json_object_set_int_member(o, "size", size);
    json_object_set_string_member(o, "discard", "unmap");
    if (backing)
        json_object_set_string_member(o, "backing", backing);
    struct node *n = node_open(g, o, writable ? NODE_RW : 0, &error);
    g_assert_no_error(error);
    n->user_ref = true;
    return n;
}

bool layer_holds(struct node *n, uint64_t off)
{
    return layer_of(n)->holds[off / LAYER_CLUSTER];
}

const char *layer_header(struct node *n)
{
    return layer_of(n)->header;
}

void layer_fail_writes(struct node *n, unsigned count, int err)
{
    layer_of(n)->failing_writes = count;
    layer_of(n)->write_error = err;
}

void layer_fail_reads(struct node *n, unsigned count, int err)
{
    layer_of(n)->failing_reads = count;
    layer_of(n)->read_error = err;
}

void layer_keep_header(struct node *n)
{
    layer_of(n)->header_stays = true;
}

void layer_dawdle(struct node *n, int64_t ns)
{
    layer_of(n)->delay_ns = ns;
}

unsigned layer_flushes(struct node *n)
{
    return layer_of(n)->flushes;
}

void layer_fill(struct node *n, uint64_t off, uint64_t len, uint8_t seed)
{
    struct layer *l = layer_of(n);
    for (uint64_t c = off / LAYER_CLUSTER; c * LAYER_CLUSTER < off + len; c++)
        l->holds[c] = true;
    for (uint64_t i = 0; i < len; i++)
        l->bytes[off + i] = (uint8_t)(seed + (off + i) / 512 * 7);
}

bool layer_equal(struct node *a, struct node *b)
{
    static uint8_t one[LAYER_CLUSTER], two[LAYER_CLUSTER];
    if (node_size(a) != node_size(b))
        return false;
    for (uint64_t at = 0, len; at < node_size(a); at += len) {
        len = min_u64(sizeof(one), node_size(a) - at);
        if (node_pread(a, at, one, len) < 0 || node_pread(b, at, two, len) < 0)
            return false;
        if (memcmp(one, two, len)) {
            g_test_message("different in the cluster at %#" G_GINT64_MODIFIER "x", at);
            return false;
        }
    }
    return true;
}
