/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ground for the tests of qcow2's management. See the header. */
#include "image/qcow2/manage_bed.h"

#include "base/error.h"

#include <string.h>

struct bed *bed;

struct body {
    void (*fn)(const void *arg);
    const void *arg;
};

static int body_run(void *opaque)
{
    const struct body *b = opaque;
    b->fn(b->arg);
    return 0;
}

void in_fiber(void (*fn)(const void *arg), const void *arg)
{
    struct body b = {fn, arg};
    bed = bed_new();
    bed_run(bed, body_run, &b);
    bed_free(bed);
}

static JsonObject *json(const char *text)
{
    GError *error = NULL;
    g_autoptr(JsonNode) node = json_from_string(text, &error);
    g_assert_no_error(error);
    return json_object_ref(json_node_get_object(node));
}

bool try_create(const char *name, uint64_t size, const char *options, const char *backing,
                GError **error)
{
    g_autoptr(JsonObject) o = json(options);
    g_autofree char *filename = g_strconcat("memory://", name, NULL);
    g_autofree char *below = backing ? g_strconcat("memory://", backing, NULL) : NULL;
    return image_create(bed->graph, driver_find("qcow2", NULL), filename, size, below,
                        below ? "raw" : NULL, o, error);
}

void create(const char *name, uint64_t size, const char *options)
{
    GError *error = NULL;
    try_create(name, size, options, NULL, &error);
    g_assert_no_error(error);
}

const struct bed_format qcow2_format = {"qcow2", "qcow2", "{}", DISK, 65536, 0};

struct node *open_image(const char *name, unsigned flags)
{
    return bed_must_open(bed, &qcow2_format, name, flags);
}

void check_clean(const char *name)
{
    g_assert_true(bed_check(bed, &qcow2_format, name, 0));
}

void fill(struct node *n, uint64_t off, uint64_t len, uint8_t byte)
{
    g_autofree uint8_t *buf = g_malloc(len);
    memset(buf, byte, len);
    g_assert_cmpint(node_pwrite(n, off, buf, len, 0), ==, 0);
}

void expect(struct node *n, uint64_t off, uint64_t len, uint8_t byte)
{
    g_autofree uint8_t *buf = g_malloc(len);
    g_assert_cmpint(node_pread(n, off, buf, len), ==, 0);
    for (uint64_t i = 0; i < len; i++)
        if (buf[i] != byte)
            g_error("byte %" G_GUINT64_FORMAT " is 0x%02x, not 0x%02x", off + i, buf[i], byte);
}

struct image_check check(const char *name, unsigned fix)
{
    GError *error = NULL;
    struct image_check c = {0};
    struct node *n = open_image(name, NODE_CHECK | (fix ? NODE_RW : 0));
    n->driver->check(n, fix, &c, &error);
    g_assert_no_error(error);
    node_unref(n);
    return c;
}

void snapshot(struct node *n, const char *name, uint64_t vm_state)
{
    GError *error = NULL;
    struct snapshot_info s = {.name = (char *)name, .vm_state_bytes = vm_state, .icount = 77};
    n->driver->snapshot_create(n, &s, &error);
    g_assert_no_error(error);
}

void snapshot_do(bool (*fn)(struct node *n, const char *name, GError **error), struct node *n,
                 const char *name)
{
    GError *error = NULL;
    fn(n, name, &error);
    g_assert_no_error(error);
}

struct dirty_bitmap *new_bitmap(struct node *n, const char *name, uint32_t granularity)
{
    GError *error = NULL;
    n->driver->bitmap_can_store(n, name, granularity, &error);
    g_assert_no_error(error);
    struct dirty_bitmap *b = dirty_new(n, 0, name, granularity, &error);
    g_assert_no_error(error);
    b->persistent = true;
    return b;
}

void amend(struct node *n, const char *options)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = json(options);
    n->driver->amend(n, o, NULL, &error);
    g_assert_no_error(error);
}
