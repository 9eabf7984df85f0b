/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For the tests of formats: a folder, a graph, and each test in a fiber of its context.
 *
 * Owner     ground_add() makes and frees it around the test.
 * Fiber     Everything that takes a struct ground.
 */
#pragma once

#include "image/driver.h"

#include <glib/gstdio.h>
#include <string.h>

struct ground {
    char *folder;
    struct context *ctx;
    struct graph *graph;
    void (*test)(struct ground *t);
};

static int ground_call(void *opaque)
{
    struct ground *t = opaque;
    t->test(t);
    return 0;
}

static void ground_remove(const char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_unlink(path);
    }
    g_rmdir(folder);
}

static void ground_run(gconstpointer data)
{
    struct ground t = {.test = (void (*)(struct ground *))data,
                       .folder = g_dir_make_tmp("ruche-format-XXXXXX", NULL)};
    t.ctx = context_new(NULL);
    g_assert_nonnull(t.ctx);
    t.graph = graph_new(t.ctx);
    context_run(t.ctx, ground_call, &t);
    graph_free(t.graph);
    context_free(t.ctx);
    ground_remove(t.folder);
    g_free(t.folder);
}

static inline void ground_add(const char *name, void (*test)(struct ground *t))
{
    g_test_add_data_func(name, (gconstpointer)test, ground_run);
}

/* A name in the folder; lives until the test's end. */
static inline const char *ground_path(struct ground *t, const char *name)
{
    g_autofree char *path = g_build_filename(t->folder, name, NULL);
    return g_intern_string(path);
}

/* options: JSON text. */
static inline bool ground_try_create(struct ground *t, const char *format, const char *name,
                                     uint64_t size, const char *backing, const char *options,
                                     GError **error)
{
    g_autoptr(JsonNode) parsed = json_from_string(options, NULL);
    return image_create(t->graph, driver_find(format, NULL), ground_path(t, name), size, backing,
                        backing ? format : NULL, json_node_get_object(parsed), error);
}

static inline void ground_create(struct ground *t, const char *format, const char *name,
                                 uint64_t size, const char *backing, const char *options)
{
    g_autoptr(GError) error = NULL;
    bool ok = ground_try_create(t, format, name, size, backing, options, &error);
    g_assert_no_error(error);
    g_assert_true(ok);
}

static inline struct node *ground_open(struct ground *t, const char *format, const char *name,
                                       unsigned flags)
{
    g_autoptr(GError) error = NULL;
    struct node *n = node_open_name(t->graph, ground_path(t, name), format, NULL, flags, &error);
    g_assert_no_error(error);
    return n;
}

/* Refused, with a sentence that says `why`. */
static inline void ground_cannot_open(struct ground *t, const char *format, const char *name,
                                      unsigned flags, const char *why)
{
    g_autoptr(GError) error = NULL;
    struct node *n = node_open_name(t->graph, ground_path(t, name), format, NULL, flags, &error);
    g_assert_null(n);
    g_assert_nonnull(error);
    if (!strstr(error->message, why))
        g_error("'%s' does not say '%s'", error->message, why);
}

static inline void ground_write(struct node *n, uint64_t off, size_t len, int byte)
{
    g_autofree uint8_t *bytes = g_malloc(len);
    memset(bytes, byte, len);
    g_assert_cmpint(node_pwrite(n, off, bytes, len, 0), ==, 0);
}

static inline void ground_expect(struct node *n, uint64_t off, size_t len, int byte)
{
    g_autofree uint8_t *bytes = g_malloc(len);
    g_assert_cmpint(node_pread(n, off, bytes, len), ==, 0);
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != byte)
            g_error("byte %zu behind %" G_GUINT64_FORMAT " is %02x, not %02x", i, off, bytes[i],
                    byte);
}

static inline void ground_say(const char *sentence, void *opaque)
{
    g_test_message("%s", sentence);
}

static inline struct image_check ground_check(struct ground *t, const char *format,
                                              const char *name, unsigned fix)
{
    g_autoptr(GError) error = NULL;
    struct node *n = ground_open(t, format, name, NODE_CHECK | (fix ? NODE_RW : 0));
    struct image_check c = {.report = ground_say};
    bool ok = n->driver->check(n, fix, &c, &error);
    g_assert_no_error(error);
    g_assert_true(ok);
    node_unref(n);
    return c;
}

/* Bytes of a file, from outside. */
static inline void ground_poke(struct ground *t, const char *name, uint64_t off, const void *bytes,
                               size_t len)
{
    FILE *f = fopen(ground_path(t, name), "r+b");
    g_assert_nonnull(f);
    g_assert_cmpint(fseek(f, (long)off, SEEK_SET), ==, 0);
    g_assert_cmpuint(fwrite(bytes, 1, len, f), ==, len);
    fclose(f);
}

static inline void ground_peek(struct ground *t, const char *name, uint64_t off, void *bytes,
                               size_t len)
{
    FILE *f = fopen(ground_path(t, name), "rb");
    g_assert_nonnull(f);
    g_assert_cmpint(fseek(f, (long)off, SEEK_SET), ==, 0);
    g_assert_cmpuint(fread(bytes, 1, len, f), ==, len);
    fclose(f);
}

static inline uint64_t ground_size(struct ground *t, const char *name)
{
    GStatBuf st;
    g_assert_cmpint(g_stat(ground_path(t, name), &st), ==, 0);
    return (uint64_t)st.st_size;
}
