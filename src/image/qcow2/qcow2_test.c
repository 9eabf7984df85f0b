/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qcow2 beside qemu-img: what it makes is read, what we write it checks and reads; every option
 * that changes the layout, with and without a backing file. Skipped, with the reason, where
 * qemu-img is not installed.
 *
 * Thread    The test's.
 */
#include "base/scratch.h"
#include "image/qcow2/internal.h"

#include "image/secret.h"

#include <glib/gstdio.h>
#include <string.h>

#define DISK_BYTES (6 * MIB)

static char *folder;

struct layout {
    const char *label, *options;
    bool backing, compress, peer_compress; /* peer: qemu-io can, too */
    bool quick;
};

static const struct layout layouts[] = {
    {"default", "", false, true, true, true},
    {"backing", "", true, true, true, false},
    {"v2", "compat=0.10", false, true, true, false},
    {"v2-backing", "compat=0.10", true, true, true, false},
    {"512", "cluster_size=512", false, true, true, false},
    {"512-width1", "cluster_size=512,refcount_bits=1", true, true, true, true},
    {"4k-width64", "cluster_size=4k,refcount_bits=64", true, true, true, false},
    {"4k-width2", "cluster_size=4k,refcount_bits=2", false, true, true, false},
    {"2m", "cluster_size=2M", true, true, false, false},
    {"subclusters", "extended_l2=on", false, true, true, false},
    {"subclusters-backing", "extended_l2=on,cluster_size=16k", true, true, true, true},
    {"zstd", "compression_type=zstd", true, true, true, true},
    {"lazy", "lazy_refcounts=on", true, true, true, false},
    {"metadata", "preallocation=metadata", false, true, false, false},
    {"data-file", "data_file=%s.data", false, false, false, false},
    {"data-file-raw", "data_file=%s.data,data_file_raw=on", false, false, false, false},
};

static void run_peer(const char *expect_clean, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void run_peer(const char *expect_clean, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *line = g_strdup_vprintf(format, args);
    va_end(args);
    g_autofree char *out = NULL, *err = NULL;
    int status;
    /* It measures how fast it derives keys, and gives up by chance where processor time is counted coarsely. */
    for (unsigned tries = 0; tries < 50; tries++) {
        g_clear_pointer(&out, g_free);
        g_clear_pointer(&err, g_free);
        GError *error = NULL;
        g_spawn_command_line_sync(line, &out, &err, &status, &error);
        g_assert_no_error(error);
        if (!strstr(err, "Unable to get accurate CPU usage"))
            break;
    }
    if (status)
        g_test_message("%s: %s%s", line, out, err);
    g_assert_cmpint(status, ==, 0);
    if (expect_clean)
        g_assert_nonnull(strstr(out, expect_clean));
}

static char *path_of(const struct layout *l, const char *suffix)
{
    return g_strdup_printf("%s/%s%s", folder, l->label, suffix);
}

/* ---- our side ---- */

struct session {
    struct context *ctx;
    struct graph *graph;
    struct node *node;
    uint8_t *shadow;
    GRand *rand;
    const struct layout *layout;
    int result;
};

static void session_open(struct session *s, const char *path, unsigned flags, const char *options)
{
    GError *error = NULL;
    s->ctx = context_new(&error);
    g_assert_no_error(error);
    s->graph = graph_new(s->ctx);
    JsonObject *extra = json_object_new();
    json_object_set_string_member(extra, "discard", "unmap");
    if (options) {
        g_autoptr(JsonNode) n = json_from_string(options, &error);
        g_assert_no_error(error);
        JsonObject *o = json_node_get_object(n);
        g_autoptr(GList) names = json_object_get_members(o);
        for (GList *m = names; m; m = m->next)
            json_object_set_member(extra, m->data, json_object_dup_member(o, m->data));
    }
    s->node = node_open_name(s->graph, path, "qcow2", extra, flags, &error);
    json_object_unref(extra);
    g_assert_no_error(error);
    g_assert_nonnull(s->node);
}

static void session_close(struct session *s)
{
    node_unref(s->node);
    graph_free(s->graph);
    context_free(s->ctx);
}

static int compare_all(void *opaque)
{
    struct session *s = opaque;
    uint8_t *buf = g_malloc(DISK_BYTES);
    for (uint64_t at = 0; at < DISK_BYTES;) {
        uint64_t n = min_u64(DISK_BYTES - at, 1 + g_rand_int_range(s->rand, 0, 300000));
        int r = node_pread(s->node, at, buf + at, n);
        g_assert_cmpint(r, ==, 0);
        at += n;
    }
    for (uint64_t at = 0; at < DISK_BYTES; at += 512)
        if (memcmp(buf + at, s->shadow + at, 512))
            g_error("%s: contents differ at %" G_GUINT64_FORMAT, s->layout->label, at);
    g_free(buf);
    return 0;
}

static void fill(GRand *rand, uint8_t *to, size_t len)
{
    uint8_t byte = (uint8_t)g_rand_int_range(rand, 1, 256);
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)(byte + i / 512);
}

/* ---- concurrent random changes ---- */

enum { WRITERS = 6, CHANGES = 60 };

struct writer {
    struct session *s;
    uint64_t begin, end; /* its part of the disk: neighbours share clusters at the border */
    uint32_t seed;
    unsigned *running;
};

static void change_one(struct writer *w, GRand *rand)
{
    struct session *s = w->s;
    uint32_t span = (uint32_t)(w->end - w->begin), cluster = s->node->cluster_bytes;
    uint32_t at = (uint32_t)g_rand_int_range(rand, 0, (gint32)span);
    uint32_t len = 1 + (uint32_t)g_rand_int_range(rand, 0, g_rand_boolean(rand) ? 5000 : 200000);
    len = MIN(len, span - at);
    uint64_t off = w->begin + at;
    int kind = g_rand_int_range(rand, 0, 10), r;
    if (kind < 6) {
        fill(rand, s->shadow + off, len);
        r = node_pwrite(s->node, off, s->shadow + off, len, 0);
    } else if (kind < 8) {
        memset(s->shadow + off, 0, len);
        r = node_zero(s->node, off, len, g_rand_boolean(rand) ? NODE_MAY_UNMAP : 0);
    } else if (kind == 8 && s->layout->compress) {
        off = align_up(off, cluster);
        if (off + cluster > w->end)
            return;
        len = (uint32_t)MIN(align_down(w->end - off, cluster), 3 * cluster);
        fill(rand, s->shadow + off, len);
        r = node_write(s->node, off, vec_flat(&(struct iovec){0}, s->shadow + off, len),
                       NODE_COMPRESSED);
    } else {
        r = node_flush(s->node);
    }
    g_assert_cmpint(r, ==, 0);
}

static void run_writer(void *opaque)
{
    struct writer *w = opaque;
    GRand *rand = g_rand_new_with_seed(w->seed);
    for (unsigned i = 0; i < CHANGES; i++)
        change_one(w, rand);
    g_rand_free(rand);
    --*w->running;
}

static int change_all(void *opaque)
{
    struct session *s = opaque;
    struct writer writers[WRITERS];
    unsigned running = WRITERS;
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.s = s, .seed = g_rand_int(s->rand), .running = &running};
        writers[i].begin = align_down(DISK_BYTES / WRITERS * i, 512);
        writers[i].end =
            i + 1 < WRITERS ? align_down(DISK_BYTES / WRITERS * (i + 1), 512) : DISK_BYTES;
        fiber_start(run_writer, &writers[i]);
    }
    while (running)
        context_sleep_ns(s->ctx, 100000);
    return 0;
}

/* ---- tests ---- */

static void make_image(const struct layout *l, const char *path, struct session *s)
{
    g_autofree char *base = path_of(l, ".base"), *options = NULL;
    s->layout = l;
    s->shadow = g_malloc0(DISK_BYTES);
    s->rand = g_rand_new_with_seed(42);
    if (strstr(l->options, "%s")) {
        char **parts = g_strsplit(l->options, "%s", 2);
        options = g_strjoinv(path, parts);
        g_strfreev(parts);
    } else {
        options = g_strdup(l->options);
    }
    g_autofree char *backing = l->backing ? g_strdup_printf("-b %s -F raw", base) : g_strdup("");
    if (l->backing) { /* shorter than the image */
        fill(s->rand, s->shadow, DISK_BYTES / 2 + 1024);
        GError *error = NULL;
        g_file_set_contents(base, (char *)s->shadow, DISK_BYTES / 2 + 1024, &error);
        g_assert_no_error(error);
    }
    run_peer(NULL, "qemu-img create -q -f qcow2 %s%s %s %s %" G_GUINT64_FORMAT,
             *options ? "-o " : "", options, backing, path, (uint64_t)DISK_BYTES);
}

static void session_free(struct session *s)
{
    g_free(s->shadow);
    g_rand_free(s->rand);
}

static void peer_compare(const struct layout *l, const char *path, const uint8_t *shadow)
{
    g_autofree char *raw = path_of(l, ".raw"), *got = NULL;
    gsize len;
    GError *error = NULL;
    run_peer("No errors were found", "qemu-img check %s", path);
    run_peer(NULL, "qemu-img convert -O raw %s %s", path, raw);
    g_file_get_contents(raw, &got, &len, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(len, ==, DISK_BYTES);
    for (uint64_t at = 0; at < DISK_BYTES; at += 512)
        if (memcmp(got + at, shadow + at, 512))
            g_error("%s: qemu-img reads other contents at %" G_GUINT64_FORMAT, l->label, at);
    g_unlink(raw);
}

/* What qemu-io wrote, we read. */
static void test_read(const void *opaque)
{
    const struct layout *l = opaque;
    g_autofree char *path = path_of(l, ".qcow2"), *raw = path_of(l, ".raw"), *got = NULL;
    struct session s = {0};
    make_image(l, path, &s);
    run_peer(
        NULL,
        "qemu-io -f qcow2 -c 'write -P 17 0 100k' -c 'write -P 18 200k 1' -c 'write -P 19 1M 512k' "
        "-c 'write -P 21 2097664 3k' -c 'write -P 22 6290944 512' %s",
        path);
    run_peer(NULL, "qemu-io -f qcow2 -c 'write -z 1152k 64k' -c 'write -z -u 1280k 128k' %s", path);
    if (l->peer_compress)
        run_peer(NULL,
                 "qemu-io -f qcow2 -c 'write -c -P 23 4M 64k' -c 'write -c -P 24 4160k 64k' %s",
                 path);
    GError *error = NULL;
    gsize len;
    run_peer(NULL, "qemu-img convert -O raw %s %s", path, raw);
    g_file_get_contents(raw, &got, &len, &error);
    g_assert_no_error(error);
    memcpy(s.shadow, got, DISK_BYTES);
    session_open(&s, path, 0, NULL);
    g_assert_cmpint(context_run(s.ctx, compare_all, &s), ==, 0);
    session_close(&s);
    session_free(&s);
}

static void write_with(const struct layout *l, const char *options)
{
    g_autofree char *path = path_of(l, ".qcow2");
    struct session s = {0};
    make_image(l, path, &s);
    for (unsigned round = 0; round < 2; round++) {
        session_open(&s, path, NODE_RW, options);
        g_assert_cmpint(context_run(s.ctx, change_all, &s), ==, 0);
        g_assert_cmpint(context_run(s.ctx, compare_all, &s), ==, 0);
        session_close(&s);
        peer_compare(l, path, s.shadow);
    }
    session_open(&s, path, 0, NULL);
    g_assert_cmpint(context_run(s.ctx, compare_all, &s), ==, 0);
    session_close(&s);
    session_free(&s);
}

/* What we wrote, with writers at the same time, qemu-img finds clean and reads. */
static void test_write(const void *opaque)
{
    write_with(opaque, NULL);
}

/* The same with caches of a few pieces: everything is written and loaded all the time. */
static void test_small_caches(const void *opaque)
{
    write_with(
        opaque,
        "{\"l2-cache-size\": 2048, \"l2-cache-entry-size\": 512, \"refcount-cache-size\": 2048}");
}

/* ---- resize ---- */

static int resize_steps(void *opaque)
{
    static const uint64_t sizes[] = {DISK_BYTES - 70000 / 512 * 512, MIB + 512, 3 * MIB,
                                     DISK_BYTES};
    struct session *s = opaque;
    GError *error = NULL;
    for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
        uint64_t old = node_size(s->node);
        bool ok = node_resize(s->node, sizes[i], PREALLOC_OFF, &error);
        g_assert_no_error(error);
        g_assert_true(ok);
        g_assert_cmpuint(node_size(s->node), ==, sizes[i]);
        if (sizes[i] < old)
            memset(s->shadow + sizes[i], 0, old - sizes[i]);
    }
    return compare_all(s);
}

static void test_resize(const void *opaque)
{
    const struct layout *l = opaque;
    g_autofree char *path = path_of(l, ".qcow2");
    struct session s = {0};
    make_image(l, path, &s);
    session_open(&s, path, NODE_RW, NULL);
    g_assert_cmpint(context_run(s.ctx, change_all, &s), ==, 0);
    g_assert_cmpint(context_run(s.ctx, resize_steps, &s), ==, 0);
    g_assert_cmpint(context_run(s.ctx, change_all, &s), ==, 0);
    session_close(&s);
    peer_compare(l, path, s.shadow);
    session_free(&s);
}

/* Grown with preallocation: qemu-img finds everything allocated, clean and zero. */
static int grow_metadata(void *opaque)
{
    struct session *s = opaque;
    GError *error = NULL;
    node_resize(s->node, 2 * DISK_BYTES, PREALLOC_METADATA, &error);
    g_assert_no_error(error);
    node_resize(s->node, DISK_BYTES, PREALLOC_OFF, &error);
    g_assert_no_error(error);
    node_resize(s->node, 3 * DISK_BYTES, PREALLOC_FALLOC, &error);
    g_assert_no_error(error);
    struct image_extent e;
    g_assert_cmpint(node_map(s->node, 2 * DISK_BYTES, DISK_BYTES, &e), ==, 0);
    if (!strstr(s->layout->options, "extended_l2")) /* a place, but no subcluster of it */
        g_assert_cmpuint(e.flags & EXTENT_ALLOCATED, ==, EXTENT_ALLOCATED);
    uint8_t *buf = g_malloc(2 * DISK_BYTES);
    g_assert_cmpint(node_pread(s->node, DISK_BYTES, buf, 2 * DISK_BYTES), ==, 0);
    g_assert_true(bytes_are_zero(buf, 2 * DISK_BYTES));
    g_free(buf);
    return 0;
}

static void test_preallocate(const void *opaque)
{
    const struct layout *l = opaque;
    g_autofree char *path = path_of(l, ".qcow2");
    struct session s = {0};
    make_image(l, path, &s);
    session_open(&s, path, NODE_RW, NULL);
    g_assert_cmpint(context_run(s.ctx, change_all, &s), ==, 0);
    g_assert_cmpint(context_run(s.ctx, grow_metadata, &s), ==, 0);
    g_assert_cmpint(context_run(s.ctx, compare_all, &s), ==, 0);
    session_close(&s);
    run_peer("No errors were found", "qemu-img check %s", path);
    session_free(&s);
}

/* ---- LUKS ---- */

#define SECRET    "--object secret,id=key0,data=honey"
#define ENCRYPTED "driver=qcow2,encrypt.format=luks,encrypt.key-secret=key0,file.filename"

static const struct layout encrypted = {"luks", "", false, false, false, true};

/* qemu-img makes it, both write, each reads the other's. */
static void test_luks(void)
{
    g_autofree char *path = path_of(&encrypted, ".qcow2"), *raw = path_of(&encrypted, ".raw"),
                    *got = NULL;
    struct session s = {.layout = &encrypted, .rand = g_rand_new_with_seed(7)};
    GError *error = NULL;
    gsize len;
    s.shadow = g_malloc0(DISK_BYTES);
    run_peer(NULL,
             "qemu-img create -q -f qcow2 " SECRET
             " -o encrypt.format=luks,encrypt.key-secret=key0,encrypt.iter-time=100 %s "
             "%" G_GUINT64_FORMAT,
             path, (uint64_t)DISK_BYTES);
    run_peer(NULL, "qemu-io " SECRET " --image-opts " ENCRYPTED "=%s -c 'write -P 9 100k 300k'",
             path);
    memset(s.shadow + 100 * KIB, 9, 300 * KIB);
    g_autoptr(JsonNode) secret = json_from_string("{\"data\": \"honey\"}", NULL);
    secret_add("key0", json_node_get_object(secret), &error);
    g_assert_no_error(error);
    const char *options = "{\"encrypt\": {\"format\": \"luks\", \"key-secret\": \"key0\"}}";
    session_open(&s, path, NODE_RW, options);
    g_assert_true(s.node->encrypted);
    g_assert_cmpint(context_run(s.ctx, compare_all, &s), ==, 0);
    g_assert_cmpint(context_run(s.ctx, change_all, &s), ==, 0);
    g_assert_cmpint(context_run(s.ctx, compare_all, &s), ==, 0);
    session_close(&s);
    run_peer("No errors were found", "qemu-img check " SECRET " --image-opts " ENCRYPTED "=%s",
             path);
    run_peer(NULL, "qemu-img convert " SECRET " --image-opts -O raw " ENCRYPTED "=%s %s", path,
             raw);
    g_file_get_contents(raw, &got, &len, &error);
    g_assert_no_error(error);
    g_assert_cmpmem(got, len, s.shadow, DISK_BYTES);
    session_free(&s);
    secret_remove("key0", NULL);
}

/* ---- AES-CBC, the old way ---- */

static const struct layout old_way = {"aes", "", false, false, false, true};

static void test_aes(void)
{
    g_autofree char *path = path_of(&old_way, ".qcow2");
    struct session s = {.layout = &old_way, .rand = g_rand_new_with_seed(8)};
    GError *error = NULL;
    s.shadow = g_malloc0(DISK_BYTES);
    run_peer(NULL,
             "qemu-img create -q -f qcow2 " SECRET
             " -o encrypt.format=aes,encrypt.key-secret=key0 %s %" G_GUINT64_FORMAT,
             path, (uint64_t)DISK_BYTES);
    run_peer(
        NULL,
        "qemu-io " SECRET
        " --image-opts driver=qcow2,encrypt.format=aes,encrypt.key-secret=key0,file.filename=%s "
        "-c 'write -P 9 100k 300k' -c 'write -P 8 3M 1k'",
        path);
    memset(s.shadow + 100 * KIB, 9, 300 * KIB);
    memset(s.shadow + 3 * MIB, 8, KIB);
    g_autoptr(JsonNode) secret = json_from_string("{\"data\": \"honey\"}", NULL);
    secret_add("key0", json_node_get_object(secret), &error);
    g_assert_no_error(error);
    session_open(&s, path, 0, "{\"encrypt\": {\"format\": \"aes\", \"key-secret\": \"key0\"}}");
    g_assert_cmpint(context_run(s.ctx, compare_all, &s), ==, 0);
    g_autoptr(JsonObject) again = json_object_ref(s.node->options);
    g_autoptr(JsonObject) only = json_object_new();
    json_object_set_object_member(only, "encrypt",
                                  json_object_ref(json_object_get_object_member(again, "encrypt")));
    node_unref(s.node);
    s.node = node_open_name(s.graph, path, "qcow2", only, NODE_RW, &error);
    g_assert_null(s.node);
    g_assert_nonnull(strstr(error->message, "it is only read"));
    g_clear_error(&error);
    session_close(&s);
    session_free(&s);
    secret_remove("key0", NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_autofree char *peer = g_find_program_in_path("qemu-io");
    if (!peer) {
        g_print("1..0 # SKIP qemu-io is not installed\n");
        return 0;
    }
    g_test_add_func("/qcow2/luks", test_luks);
    g_test_add_func("/qcow2/aes", test_aes);
    folder = scratch_folder("ruche-qcow2");
    for (unsigned i = 0; i < ARRAY_COUNT(layouts); i++) {
        if (!layouts[i].quick && !g_test_slow())
            continue;
        g_autofree char *read = g_strdup_printf("/qcow2/read/%s", layouts[i].label);
        g_autofree char *write = g_strdup_printf("/qcow2/write/%s", layouts[i].label);
        g_autofree char *small = g_strdup_printf("/qcow2/small-caches/%s", layouts[i].label);
        g_test_add_data_func(read, &layouts[i], test_read);
        g_test_add_data_func(write, &layouts[i], test_write);
        g_autofree char *resize = g_strdup_printf("/qcow2/resize/%s", layouts[i].label);
        g_autofree char *preallocate = g_strdup_printf("/qcow2/preallocate/%s", layouts[i].label);
        g_test_add_data_func(resize, &layouts[i], test_resize);
        g_test_add_data_func(preallocate, &layouts[i], test_preallocate);
        g_test_add_data_func(small, &layouts[i], test_small_caches);
    }
    return g_test_run();
}
