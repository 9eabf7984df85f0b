/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every fuzz target of an image format does. See the header. */
#include "fuzz_image.h"

#include "base/cursor.h"
#include "image/testbed.h"

#include <stdlib.h>

enum { BUFFER = 128 * 1024, MAP_STEPS = 200 };

struct attempt {
    struct bed *bed;
    struct memory_file *file;
    const char *format;
    uint8_t *buf;
};

static bool deny(const struct node *parent, const char *filename, void *opaque, GError **error)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "no further files");
}

static struct attempt *attempt(void)
{
    static struct attempt *a;
    if (!a) {
        a = g_new0(struct attempt, 1);
        a->bed = bed_new();
        graph_set_policy(a->bed->graph, deny, NULL);
        a->file = memory_file_new("fuzz", 0);
        memory_file_limit(a->file, 64 * MIB);
        a->buf = g_malloc0(BUFFER);
    }
    return a;
}

static struct node *open_it(struct attempt *a, unsigned flags)
{
    struct bed_format f = {.label = a->format, .driver = a->format};
    g_autoptr(GError) error = NULL;
    struct node *n = bed_open(a->bed, &f, "fuzz", NULL, flags | NODE_NO_BACKING, &error);
    if (!n && !error)
        abort(); /* a refusal says why */
    return n;
}

static void read_some(struct attempt *a, struct node *n)
{
    uint64_t size = node_size(n), len = MIN(size, BUFFER);
    node_pread(n, 0, a->buf, len);
    node_pread(n, (size - len) / 2, a->buf, len);
    node_pread(n, size - len, a->buf, len);
    for (uint64_t at = 0, steps = 0; at < size && steps < MAP_STEPS; steps++) {
        struct image_extent e;
        if (node_map(n, at, MIN(size - at, IMAGE_REQUEST_MAX), &e))
            break;
        if (!e.len || e.len > size - at)
            abort();
        if (e.flags & EXTENT_DATA)
            node_pread(n, at, a->buf, MIN(e.len, 4096));
        at += e.len;
    }
}

static void list_snapshots(struct node *n)
{
    struct snapshot_info *list = NULL;
    unsigned count = 0;
    if (!n->driver->snapshot_list || n->driver->snapshot_list(n, &list, &count))
        return;
    for (unsigned i = 0; i < count; i++) {
        g_free(list[i].id);
        g_free(list[i].name);
    }
    g_free(list);
}

static void check_it(struct node *n, unsigned fix)
{
    g_autoptr(GError) error = NULL;
    struct image_check c = {0};
    if (n->driver->check && !n->driver->check(n, fix, &c, &error) && !error)
        abort();
}

static void look_at_it(struct attempt *a)
{
    struct node *n = open_it(a, NODE_CHECK);
    if (!n)
        return;
    check_it(n, 0);
    list_snapshots(n);
    JsonObject *told = n->driver->describe ? n->driver->describe(n) : NULL;
    g_clear_pointer(&told, json_object_unref);
    read_some(a, n);
    node_unref(n);
}

static void use_it(struct attempt *a)
{
    struct node *n = open_it(a, NODE_RW);
    if (!n)
        return;
    uint64_t size = node_size(n), len = MIN(size, 70000);
    read_some(a, n);
    node_pwrite(n, 0, a->buf, len, 0);
    node_pwrite(n, size - len, a->buf, len, 0);
    node_zero(n, size / 2, MIN(size - size / 2, 70000), NODE_MAY_UNMAP);
    node_discard(n, 0, len);
    node_flush(n);
    read_some(a, n);
    node_unref(n);
}

static void repair_it(struct attempt *a)
{
    struct node *n = open_it(a, NODE_RW | NODE_CHECK);
    if (!n)
        return;
    check_it(n, CHECK_FIX_LEAKS | CHECK_FIX_ERRORS);
    read_some(a, n);
    node_unref(n);
}

static int try_all(void *opaque)
{
    struct attempt *a = opaque;
    look_at_it(a);
    use_it(a);
    repair_it(a);
    return 0;
}

int fuzz_image(const char *format, const uint8_t *data, size_t size)
{
    struct attempt *a = attempt();
    a->format = format;
    memory_file_set(a->file, data, size);
    return bed_run(a->bed, try_all, a);
}

int fuzz_image_pieces(const char *format, const uint8_t *data, size_t size,
                      void (*fix)(struct memory_file *f))
{
    struct attempt *a = attempt();
    a->format = format;
    memory_file_set(a->file, "", 0);
    struct cur c = cur_of(data, size);
    while (c.left && !c.bad) {
        uint64_t off = cur_le32(&c) * 512ULL;
        size_t len = cur_le16(&c);
        len = MIN(len, c.left);
        const uint8_t *piece = cur_take(&c, len);
        if (piece)
            memory_file_write(a->file, off, piece, len);
    }
    if (fix)
        fix(a->file);
    return bed_run(a->bed, try_all, a);
}
