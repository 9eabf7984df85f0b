/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMDK: every type of disk written, closed and read again; parents; streams and their recovery;
 * hostile headers. */
#include "base/scratch.h"
#include "image/sparse_testing.h"
#include "image/vmdk/vmdk.h"

#include "base/util.h"

static const char *const types[] = {"monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse",
                                    "twoGbMaxExtentFlat", "streamOptimized"};

static char *type_options(const char *type)
{
    return g_strdup_printf("{\"subformat\": \"%s\"}", type);
}

/* ---- contents ---- */

static void write_pattern(struct node *n)
{
    ground_write(n, 3 * MIB + 512, 4096, 0x11);      /* inside a grain */
    ground_write(n, 5 * MIB - 100, 200, 0x22);       /* over the edge of two, off sectors */
    ground_write(n, 8 * MIB, MIB, 0x33);             /* whole grains */
    ground_write(n, n->size_bytes - 512, 512, 0x44); /* the last one */
    ground_write(n, 3 * MIB + 1024, 512, 0x55);      /* again */
    ground_write(n, 0, 65536, 0x66);                 /* in front of what is there */
}

static void expect_pattern(struct node *n)
{
    ground_expect(n, 0, 65536, 0x66);
    ground_expect(n, 3 * MIB, 512, 0);
    ground_expect(n, 3 * MIB + 512, 512, 0x11);
    ground_expect(n, 3 * MIB + 1024, 512, 0x55);
    ground_expect(n, 3 * MIB + 1536, 4096 - 1024, 0x11);
    ground_expect(n, 3 * MIB + 4608, 60000, 0);
    ground_expect(n, 5 * MIB - 200, 100, 0);
    ground_expect(n, 5 * MIB - 100, 200, 0x22);
    ground_expect(n, 5 * MIB + 100, 100, 0);
    ground_expect(n, 8 * MIB, MIB, 0x33);
    ground_expect(n, 9 * MIB, MIB, 0);
    ground_expect(n, n->size_bytes - 512, 512, 0x44);
}

static void each_type(struct ground *t)
{
    for (unsigned i = 0; i < ARRAY_COUNT(types); i++) {
        g_autofree char *options = type_options(types[i]);
        ground_create(t, "vmdk", "disk.vmdk", 33 * MIB + 1536, NULL, options);
        struct node *n = ground_open(t, "vmdk", "disk.vmdk", NODE_RW);
        g_assert_cmpuint(node_size(n), ==, 33 * MIB + 1536);
        ground_expect(n, 0, 1000, 0);
        write_pattern(n);
        expect_pattern(n);
        node_unref(n);
        n = ground_open(t, "vmdk", "disk.vmdk", 0);
        expect_pattern(n);
        node_unref(n);
        struct image_check c = ground_check(t, "vmdk", "disk.vmdk", 0);
        g_assert_cmpuint(c.corruptions + c.check_errors, ==, 0);
    }
}

/* Above 2 GiB there is a second extent; the descriptor is read as text. */
static void split(struct ground *t)
{
    ground_create(t, "vmdk", "split.vmdk", 5 * GIB, NULL,
                  "{\"subformat\": \"twoGbMaxExtentSparse\"}");
    struct node *n = ground_open(t, "vmdk", "split.vmdk", NODE_RW);
    ground_write(n, 2 * GIB - 70000, 140000, 0x77);
    ground_write(n, 5 * GIB - 512, 512, 0x78);
    g_autoptr(JsonObject) o = n->driver->describe(n);
    g_assert_cmpuint(json_array_get_length(json_object_get_array_member(o, "extents")), ==, 3);
    node_unref(n);
    n = ground_open(t, "vmdk", "split.vmdk", 0);
    ground_expect(n, 2 * GIB - 70000, 140000, 0x77);
    ground_expect(n, 2 * GIB + 70000, 1000, 0);
    ground_expect(n, 5 * GIB - 512, 512, 0x78);
    node_unref(n);
}

/* Reading is no reason to write: only a change gives a new content id. */
static void content_id(struct ground *t)
{
    ground_create(t, "vmdk", "id.vmdk", MIB, NULL, "{}");
    struct node *n = ground_open(t, "vmdk", "id.vmdk", NODE_RW);
    uint32_t before = vmdk_of(n)->desc.cid;
    node_unref(n);
    n = ground_open(t, "vmdk", "id.vmdk", NODE_RW);
    g_assert_cmpuint(vmdk_of(n)->desc.cid, ==, before);
    ground_write(n, 0, 512, 1);
    node_unref(n);
    n = ground_open(t, "vmdk", "id.vmdk", 0);
    g_assert_cmpuint(vmdk_of(n)->desc.cid, !=, before);
    node_unref(n);
}

/* ---- parents ---- */

static void parent(struct ground *t)
{
    ground_create(t, "vmdk", "base.vmdk", 4 * MIB, NULL, "{}");
    struct node *n = ground_open(t, "vmdk", "base.vmdk", NODE_RW);
    ground_write(n, 0, 4 * MIB, 0xaa);
    node_unref(n);
    ground_create(t, "vmdk", "top.vmdk", 6 * MIB, "base.vmdk", "{\"zeroed_grain\": true}");
    n = ground_open(t, "vmdk", "top.vmdk", NODE_RW);
    g_assert_cmpstr(n->backing_file, ==, "base.vmdk");
    ground_write(n, MIB + 1000, 1000, 0xbb);
    ground_write(n, 2 * MIB - 512, 200000, 0xcc);
    g_assert_cmpint(node_zero(n, 3 * MIB, MIB, NODE_MAY_UNMAP), ==, 0);
    node_unref(n);
    n = ground_open(t, "vmdk", "top.vmdk", 0);
    ground_expect(n, MIB, 1000, 0xaa);
    ground_expect(n, MIB + 1000, 1000, 0xbb);
    ground_expect(n, MIB + 2000, 100000, 0xaa);
    ground_expect(n, 2 * MIB - 512, 200000, 0xcc);
    ground_expect(n, 2 * MIB - 512 + 200000, 65536, 0xaa);
    ground_expect(n, 3 * MIB, 3 * MIB, 0);
    node_unref(n);
    /* who changes the parent breaks the child, and is told so */
    n = ground_open(t, "vmdk", "base.vmdk", NODE_RW);
    ground_write(n, 0, 512, 1);
    node_unref(n);
    ground_cannot_open(t, "vmdk", "top.vmdk", 0, "was changed after it was made");
}

static void change_parent(struct ground *t)
{
    g_autoptr(GError) error = NULL;
    ground_create(t, "vmdk", "a.vmdk", MIB, NULL, "{}");
    ground_create(t, "vmdk", "b.vmdk", MIB, NULL, "{}");
    ground_create(t, "vmdk", "top.vmdk", MIB, "a.vmdk", "{}");
    struct node *n = ground_open(t, "vmdk", "top.vmdk", NODE_RW | NODE_NO_BACKING);
    node_change_backing(n, "b.vmdk", "vmdk", &error);
    g_assert_no_error(error);
    node_unref(n);
    n = ground_open(t, "vmdk", "top.vmdk", NODE_RW);
    g_assert_true(g_str_has_suffix(node_filename(node_backing(n)), "/b.vmdk"));
    node_change_backing(n, NULL, NULL, &error);
    g_assert_no_error(error);
    node_unref(n);
    n = ground_open(t, "vmdk", "top.vmdk", 0);
    g_assert_null(node_backing(n));
    g_assert_null(n->backing_file);
    node_unref(n);
}

/* A descriptor of several sectors in a file of its own: a new file takes the place of the old one,
 * which stays what it was to who has it open. */
static void replace_descriptor(struct ground *t)
{
    GError *error = NULL;
    g_autofree char *long_name = g_strnfill(240, 'p'),
                    *parent = g_strconcat(long_name, ".vmdk", NULL);
    ground_create(t, "vmdk", parent, 5 * GIB, NULL, "{}");
    ground_create(t, "vmdk", "top.vmdk", 5 * GIB, NULL,
                  "{\"subformat\": \"twoGbMaxExtentSparse\"}");
    g_autofree char *before = NULL, *still = NULL, *after = NULL;
    g_assert_true(g_file_get_contents(ground_path(t, "top.vmdk"), &before, NULL, NULL));
    FILE *old = fopen(ground_path(t, "top.vmdk"), "re");
    struct node *n = ground_open(t, "vmdk", "top.vmdk", NODE_RW);
    node_change_backing(n, parent, "vmdk", &error);
    g_assert_no_error(error);
    still = g_malloc0(strlen(before) + 2);
    g_assert_cmpuint(fread(still, 1, strlen(before) + 1, old), ==, strlen(before));
    fclose(old);
    g_assert_cmpstr(still, ==, before);
    ground_write(n, 3 * GIB, 512, 0x21); /* a new content id goes into the new file */
    ground_cannot_open(t, "vmdk", "top.vmdk", NODE_RW, "use");
    g_autofree char *id = g_strdup_printf("CID=%08x\n", vmdk_of(n)->desc.cid);
    node_unref(n);
    g_assert_true(g_file_get_contents(ground_path(t, "top.vmdk"), &after, NULL, NULL));
    g_assert_nonnull(strstr(after, parent));
    g_assert_nonnull(strstr(after, id));
    n = ground_open(t, "vmdk", "top.vmdk", 0);
    ground_expect(n, 3 * GIB, 512, 0x21);
    g_assert_true(g_str_has_suffix(node_filename(node_backing(n)), parent));
    node_unref(n);
}

static void make_empty(struct ground *t)
{
    ground_create(t, "vmdk", "base.vmdk", 4 * MIB, NULL, "{}");
    ground_create(t, "vmdk", "top.vmdk", 4 * MIB, "base.vmdk", "{}");
    struct node *n = ground_open(t, "vmdk", "top.vmdk", NODE_RW);
    ground_write(n, 0, 3 * MIB, 0x12);
    g_assert_cmpint(node_flush(n), ==, 0);
    uint64_t full = ground_size(t, "top.vmdk");
    g_assert_cmpint(n->driver->make_empty(n), ==, 0);
    ground_expect(n, 0, 4 * MIB, 0);
    ground_write(n, 512, 512, 0x13);
    ground_expect(n, 0, 512, 0);
    node_unref(n);
    g_assert_cmpuint(ground_size(t, "top.vmdk"), <, full - 2 * MIB);
    n = ground_open(t, "vmdk", "top.vmdk", 0);
    ground_expect(n, 0, 512, 0);
    ground_expect(n, 512, 512, 0x13);
    node_unref(n);
}

/* ---- size ---- */

static void resize(struct ground *t)
{
    static const char *const can[] = {"monolithicSparse", "monolithicFlat"};
    for (unsigned i = 0; i < ARRAY_COUNT(can); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *options = type_options(can[i]);
        ground_create(t, "vmdk", "r.vmdk", 10 * MIB, NULL, options);
        struct node *n = ground_open(t, "vmdk", "r.vmdk", NODE_RW);
        ground_write(n, 9 * MIB, MIB, 0x21);
        node_resize(n, 300 * MIB, PREALLOC_OFF, &error);
        g_assert_no_error(error);
        ground_expect(n, 10 * MIB, MIB, 0);
        ground_write(n, 299 * MIB, MIB, 0x22);
        node_unref(n);
        n = ground_open(t, "vmdk", "r.vmdk", 0);
        g_assert_cmpuint(node_size(n), ==, 300 * MIB);
        ground_expect(n, 9 * MIB, MIB, 0x21);
        ground_expect(n, 299 * MIB, MIB, 0x22);
        node_unref(n);
        struct image_check c = ground_check(t, "vmdk", "r.vmdk", 0);
        g_assert_cmpuint(c.corruptions, ==, 0);
    }
}

/* ---- zeroes ---- */

static void zero_and_discard(struct ground *t)
{
    ground_create(t, "vmdk", "z.vmdk", 8 * MIB, NULL, "{}");
    struct node *n = ground_open(t, "vmdk", "z.vmdk", NODE_RW);
    ground_write(n, 0, 4 * MIB, 0x31);
    g_assert_cmpint(node_zero(n, 100000, 2 * MIB, NODE_MAY_UNMAP), ==, 0);
    ground_expect(n, 0, 100000, 0x31);
    ground_expect(n, 100000, 2 * MIB, 0);
    ground_expect(n, 100000 + 2 * MIB, 100000, 0x31);
    g_assert_cmpint(node_zero(n, 5 * MIB, MIB, 0), ==, 0);
    struct image_extent x;
    g_assert_cmpint(node_map(n, 5 * MIB, MIB, &x), ==, 0);
    g_assert_false(x.flags & EXTENT_DATA);
    node_unref(n);
}

/* ---- streams ---- */

static void stream_layout(struct ground *t)
{
    ground_create(t, "vmdk", "s.vmdk", 40 * MIB, NULL, "{\"subformat\": \"streamOptimized\"}");
    struct node *n = ground_open(t, "vmdk", "s.vmdk", NODE_RW);
    ground_write(n, 0, 2 * MIB, 0x41);
    ground_write(n, 35 * MIB, 100, 0x42);
    ground_write(n, 4 * MIB, 2 * MIB, 0); /* takes no space */
    g_assert_cmpint(node_flush(n), ==, 0);
    node_unref(n);
    uint64_t size = ground_size(t, "s.vmdk");
    g_assert_cmpuint(size, <, 100000);
    uint8_t tail[1536], head[512];
    struct vmdk_header h, f;
    ground_peek(t, "s.vmdk", 0, head, sizeof(head));
    ground_peek(t, "s.vmdk", size - sizeof(tail), tail, sizeof(tail));
    g_assert_true(vmdk_header_parse(head, &h));
    g_assert_true(vmdk_header_parse(tail + 512, &f));
    g_assert_cmpuint(h.version, ==, 3);
    g_assert_cmphex(h.flags, ==, 0x30001);
    g_assert_cmphex(h.directory_offset, ==, VMDK_GD_AT_END);
    g_assert_cmpuint(f.directory_offset, <, size / 512);
    g_assert_cmpuint(f.capacity, ==, h.capacity);
    g_assert_cmpuint(tail[12], ==, VMDK_MARKER_FOOTER);
    for (unsigned i = 1024; i < sizeof(tail); i++)
        g_assert_cmpuint(tail[i], ==, 0);
}

/* A stream that was cut off is found by its markers; writing goes on where it ended. */
static void stream_recovery(struct ground *t)
{
    ground_create(t, "vmdk", "s.vmdk", 70 * MIB, NULL, "{\"subformat\": \"streamOptimized\"}");
    struct node *n = ground_open(t, "vmdk", "s.vmdk", NODE_RW);
    ground_write(n, 0, MIB, 0x51);
    ground_write(n, 66 * MIB, MIB, 0x52);
    node_unref(n);
    uint64_t size = ground_size(t, "s.vmdk");
    g_assert_cmpint(truncate(ground_path(t, "s.vmdk"), (off_t)size - 512), ==, 0);
    n = ground_open(t, "vmdk", "s.vmdk", 0);
    ground_expect(n, 0, MIB, 0x51);
    ground_expect(n, 66 * MIB, MIB, 0x52);
    node_unref(n);
    g_assert_cmpuint(ground_size(t, "s.vmdk"), ==, size - 512);
    n = ground_open(t, "vmdk", "s.vmdk", NODE_RW);
    ground_write(n, 40 * MIB, MIB, 0x53);
    node_unref(n);
    n = ground_open(t, "vmdk", "s.vmdk", 0);
    g_assert_true(vmdk_of(n)->extents[0].finished);
    ground_expect(n, 0, MIB, 0x51);
    ground_expect(n, 40 * MIB, MIB, 0x53);
    ground_expect(n, 66 * MIB, MIB, 0x52);
    node_unref(n);
}

static void stream_reopened(struct ground *t)
{
    ground_create(t, "vmdk", "s.vmdk", 70 * MIB, NULL, "{\"subformat\": \"streamOptimized\"}");
    for (unsigned i = 0; i < 5; i++) {
        struct node *n = ground_open(t, "vmdk", "s.vmdk", NODE_RW);
        for (unsigned k = 0; k < i; k++)
            ground_expect(n, k * 13 * MIB, 100000, 0x60 + (int)k);
        ground_write(n, i * 13 * MIB, 100000, 0x60 + (int)i);
        g_assert_cmpint(node_flush(n), ==, 0);
        node_unref(n);
    }
    struct image_check c = ground_check(t, "vmdk", "s.vmdk", 0);
    g_assert_cmpuint(c.corruptions, ==, 0);
    g_assert_cmpuint(c.compressed_clusters, ==, 10);
}

static void stream_broken(struct ground *t)
{
    ground_create(t, "vmdk", "s.vmdk", MIB, NULL, "{\"subformat\": \"streamOptimized\"}");
    struct node *n = ground_open(t, "vmdk", "s.vmdk", NODE_RW);
    ground_write(n, 0, 65536, 0x51);
    node_unref(n);
    ground_poke(t, "s.vmdk", 65536 + 20, "broken", 6);
    n = ground_open(t, "vmdk", "s.vmdk", 0);
    uint8_t byte;
    g_assert_cmpint(node_pread(n, 0, &byte, 1), ==, -EIO);
    node_unref(n);
}

/* ---- check ---- */

/* The first grain table's place, primary or redundant. */
static uint64_t first_table(struct ground *t, const char *name, bool redundant)
{
    uint8_t head[512];
    uint32_t sector;
    struct vmdk_header h;
    ground_peek(t, name, 0, head, sizeof(head));
    g_assert_true(vmdk_header_parse(head, &h));
    ground_peek(t, name, (redundant ? h.redundant_offset : h.directory_offset) * 512, &sector,
                sizeof(sector));
    return (uint64_t)sector * 512;
}

static void check_repairs(struct ground *t)
{
    static const uint32_t far = 0x7fffffff;
    ground_create(t, "vmdk", "c.vmdk", 4 * MIB, NULL, "{}");
    struct node *n = ground_open(t, "vmdk", "c.vmdk", NODE_RW);
    ground_write(n, 0, 256 * KIB, 0x71);
    node_unref(n);
    uint64_t table = first_table(t, "c.vmdk", false), spare = first_table(t, "c.vmdk", true);
    uint32_t entries[4], copies[4];
    ground_peek(t, "c.vmdk", table, entries, sizeof(entries));
    ground_peek(t, "c.vmdk", spare, copies, sizeof(copies));
    g_assert_cmpmem(entries, sizeof(entries), copies, sizeof(copies));
    ground_poke(t, "c.vmdk", table, &far, 4);            /* the other copy knows */
    ground_poke(t, "c.vmdk", table + 8, &entries[1], 4); /* so it does here */
    ground_poke(t, "c.vmdk", table + 12, &far, 4);       /* here nobody knows */
    ground_poke(t, "c.vmdk", spare + 12, &far, 4);
    struct image_check c = ground_check(t, "vmdk", "c.vmdk", 0);
    g_assert_cmpuint(c.corruptions, ==, 3);
    g_assert_cmpuint(c.corruptions_fixed, ==, 0);
    c = ground_check(t, "vmdk", "c.vmdk", CHECK_FIX_ERRORS);
    g_assert_cmpuint(c.corruptions_fixed, ==, 3);
    c = ground_check(t, "vmdk", "c.vmdk", 0);
    g_assert_cmpuint(c.corruptions, ==, 0);
    n = ground_open(t, "vmdk", "c.vmdk", 0);
    ground_expect(n, 0, 192 * KIB, 0x71);
    ground_expect(n, 192 * KIB, 64 * KIB, 0);
    node_unref(n);
}

/* A table entry into the metadata: nothing is written there, and the image is read-only from then
 * on. */
static void corrupt_entry(struct ground *t)
{
    static const uint32_t sector_1 = 1;
    ground_create(t, "vmdk", "c.vmdk", 4 * MIB, NULL, "{}");
    ground_poke(t, "c.vmdk", first_table(t, "c.vmdk", false), &sector_1, 4);
    struct node *n = ground_open(t, "vmdk", "c.vmdk", NODE_RW);
    uint8_t byte = 1, text[16];
    g_assert_cmpint(node_pwrite(n, 0, &byte, 1, 0), ==, -EIO);
    g_assert_true(n->corrupt);
    node_unref(n);
    ground_peek(t, "c.vmdk", 512, text, sizeof(text));
    g_assert_cmpmem(text, 11, "# Disk Desc", 11);
}

/* ---- many at a time ---- */

struct crowd {
    struct node *n;
    struct fiber *waiter;
    unsigned left;
    uint64_t step;
};

struct worker {
    struct crowd *crowd;
    unsigned number;
};

enum { WORKERS = 16, ROUNDS = 64 };

/* Each writes its own sectors, of grains and tables that all share. */
static void work(void *opaque)
{
    struct worker *w = opaque;
    struct crowd *c = w->crowd;
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned slot = (i * 37 + w->number * 5) % ROUNDS;
        ground_write(c->n, slot * c->step + w->number * 1024, 512, 1 + (int)w->number);
        if (i % 16 == w->number)
            g_assert_cmpint(node_flush(c->n), ==, 0);
    }
    if (--c->left == 0 && c->waiter)
        fiber_wake(c->waiter);
}

static struct node *open_small_cache(struct ground *t, const char *format, const char *name,
                                     unsigned flags)
{
    g_autoptr(JsonObject) extra = json_object_new();
    g_autoptr(GError) error = NULL;
    json_object_set_int_member(extra, "l2-cache-size", 65536);
    struct node *n = node_open_name(t->graph, ground_path(t, name), format, extra, flags, &error);
    g_assert_no_error(error);
    return n;
}

static void crowd_on(struct ground *t, const char *format, const char *options, uint64_t size)
{
    ground_create(t, format, "crowd", size, NULL, options);
    struct worker workers[WORKERS];
    struct crowd c = {
        .n = open_small_cache(t, format, "crowd", NODE_RW), .left = WORKERS, .step = size / ROUNDS};
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){.crowd = &c, .number = i};
        fiber_start(work, &workers[i]);
    }
    c.waiter = fiber_self();
    if (c.left)
        fiber_wait();
    node_unref(c.n);
    c.n = open_small_cache(t, format, "crowd", 0);
    for (unsigned i = 0; i < ROUNDS; i++)
        for (unsigned k = 0; k < WORKERS; k++) {
            ground_expect(c.n, i * c.step + k * 1024, 512, 1 + (int)k);
            ground_expect(c.n, i * c.step + k * 1024 + 512, 512, 0);
        }
    node_unref(c.n);
    struct image_check found = ground_check(t, format, "crowd", 0);
    g_assert_cmpuint(found.corruptions + found.leaks, ==, 0);
    g_assert_cmpuint(found.allocated_clusters, ==, ROUNDS);
}

/* More tables than the cache has pages for. */
static void crowd(struct ground *t)
{
    crowd_on(t, "vmdk", "{}", 4 * GIB);
    crowd_on(t, "vmdk", "{\"subformat\": \"streamOptimized\"}", 4 * GIB);
    crowd_on(t, "vdi", "{}", 60 * GIB);
}

/* ---- ESX Server's sparse extents ---- */

static void cowd(struct ground *t)
{
    uint8_t file[64 * 512] = {0};
    const uint32_t header[] = {0x44574f43, 1, 3, 5000, 1, 4, 2, 0};
    const uint32_t directory[] = {5, 0}, table[] = {0, 40, 41, 0, 46};
    memcpy(file, header, sizeof(header));
    memcpy(file + 4 * 512, directory, sizeof(directory));
    memcpy(file + 5 * 512, table, sizeof(table));
    memset(file + 40 * 512, 0x91, 1024);
    memset(file + 46 * 512, 0x92, 512);
    g_assert_true(
        g_file_set_contents(ground_path(t, "x-delta.vmdk"), (char *)file, sizeof(file), NULL));
    static const char text[] =
        "# Disk DescriptorFile\nversion=1\nCID=5\nparentCID=ffffffff\ncreateType=\"vmfsSparse\"\n"
        "RW 5000 VMFSSPARSE \"x-delta.vmdk\"\n";
    g_assert_true(g_file_set_contents(ground_path(t, "x.vmdk"), text, -1, NULL));
    static const char *const names[] = {"x.vmdk", "x-delta.vmdk"};
    for (unsigned i = 0; i < 2; i++) {
        struct node *n = ground_open(t, "vmdk", names[i], 0);
        g_assert_cmpuint(node_size(n), ==, 5000 * 512);
        ground_expect(n, 0, 512, 0);
        ground_expect(n, 512, 1024, 0x91);
        ground_expect(n, 1536, 512, 0);
        ground_expect(n, 2048, 512, 0x92);
        ground_expect(n, 2560, 4995 * 512, 0);
        node_unref(n);
        ground_cannot_open(t, "vmdk", names[i], NODE_RW, "can only be read");
    }
}

/* ---- hostile text ---- */

static void refused_text(const char *text, const char *why)
{
    struct vmdk_descriptor d;
    g_autoptr(GError) error = NULL;
    g_assert_false(vmdk_descriptor_parse(text, strlen(text), "x", &d, &error));
    if (!strstr(error->message, why))
        g_error("'%s' does not say '%s'", error->message, why);
}

static void descriptors(struct ground *t)
{
    struct vmdk_descriptor d;
    static const char good[] =
        "# Disk DescriptorFile\r\nversion=1\r\nCID=123\r\nparentCID=fffffffe\r\n"
        "createType = \"custom\"\r\nparentFileNameHint=\"a b.vmdk\"\r\n"
        "RW 100 FLAT \"x y.vmdk\" 7\r\nRDONLY 200 ZERO\r\nRW 300 SPARSE \"z\"\r\n";
    g_assert_true(vmdk_descriptor_probe((const uint8_t *)good, strlen(good)));
    g_assert_true(vmdk_descriptor_parse(good, strlen(good), "x", &d, NULL));
    g_assert_cmphex(d.cid, ==, 0x123);
    g_assert_cmpstr(d.parent_hint, ==, "a b.vmdk");
    g_assert_cmpuint(d.extents->len, ==, 3);
    const struct vmdk_extent_line *l = &g_array_index(d.extents, struct vmdk_extent_line, 0);
    g_assert_cmpstr(l->filename, ==, "x y.vmdk");
    g_assert_cmpuint(l->offset_sectors, ==, 7);
    vmdk_descriptor_clear(&d);
    refused_text("createType=\"x\"\nRW 0 FLAT \"x\" 0\n", "'RW 0 FLAT");
    refused_text("createType=\"x\"\nRW 99999999999999999999 FLAT \"x\" 0\n", "RW 9999");
    refused_text(
        "createType=\"x\"\nRW 9007199254740992 FLAT \"x\" 0\nRW 9007199254740992 FLAT \"x\" 0\n",
        "over");
    refused_text("createType=\"x\"\nRW 1 FLAT \"x\n", "RW 1 FLAT");
    refused_text("createType=\"x\"\nRW 1 SESPARSE \"x\"\n", "SESPARSE");
    refused_text("version=1\n", "createType");
    GString *many = g_string_new("createType=\"x\"\n");
    for (unsigned i = 0; i < 300; i++)
        g_string_append(many, "RW 1 ZERO\n");
    refused_text(many->str, "over 254 extents");
    g_string_free(many, TRUE);
}

static void descriptor_changes(struct ground *t)
{
    static const char text[] =
        "CID=1\nparentCID=2\ncreateType=\"x\"\nRW 5 SPARSE \"a\"\nRW 6 FLAT \"b\" 0\nend\n";
    g_autofree char *a = vmdk_descriptor_set(text, "CID", "9");
    g_assert_cmpstr(
        a, ==, "CID=9\nparentCID=2\ncreateType=\"x\"\nRW 5 SPARSE \"a\"\nRW 6 FLAT \"b\" 0\nend\n");
    g_autofree char *b = vmdk_descriptor_set(text, "parentFileNameHint", "\"p\"");
    g_assert_cmpstr(
        b, ==,
        "CID=1\nparentCID=2\ncreateType=\"x\"\nparentFileNameHint=\"p\"\nRW 5 SPARSE \"a\"\n"
        "RW 6 FLAT \"b\" 0\nend\n");
    g_autofree char *c = vmdk_descriptor_set(b, "parentFileNameHint", NULL);
    g_assert_cmpstr(c, ==, text);
    g_autofree char *d = vmdk_descriptor_set_extent(text, 1, 77);
    g_assert_cmpstr(
        d, ==,
        "CID=1\nparentCID=2\ncreateType=\"x\"\nRW 5 SPARSE \"a\"\nRW 77 FLAT \"b\" 0\nend\n");
}

/* ---- hostile headers ---- */

static void patched(struct ground *t, unsigned at, uint64_t value, unsigned bytes, const char *why)
{
    ground_create(t, "vmdk", "h.vmdk", 4 * MIB, NULL, "{}");
    ground_poke(t, "h.vmdk", at, &value, bytes);
    ground_cannot_open(t, "vmdk", "h.vmdk", 0, why);
}

static void headers(struct ground *t)
{
    patched(t, 4, 9, 4, "version 9");
    patched(t, 12, UINT64_MAX / 2, 8, "capacity");
    patched(t, 12, 1ULL << 52, 8, "grain tables are too many");
    patched(t, 20, 127, 8, "127 sectors");
    patched(t, 20, 1ULL << 40, 8, "sectors is not a power of two");
    patched(t, 44, 0, 4, "tables of 0 entries");
    patched(t, 44, 1u << 30, 4, "entries");
    patched(t, 48, 1ULL << 40, 8, "redundant grain directory");
    patched(t, 56, UINT64_MAX - 1, 8, "not inside the file");
    patched(t, 56, UINT64_MAX, 8, "neither a grain directory nor grain markers");
    patched(t, 28, 1ULL << 30, 8, "descriptor");
    patched(t, 77, 5, 2, "compression algorithm 5");
}

static void refused_creation(struct ground *t, uint64_t size, const char *options, const char *why)
{
    g_autoptr(GError) error = NULL;
    g_assert_false(ground_try_create(t, "vmdk", "x.vmdk", size, NULL, options, &error));
    if (!strstr(error->message, why))
        g_error("'%s' does not say '%s'", error->message, why);
    g_autoptr(GDir) dir = g_dir_open(t->folder, 0, NULL);
    g_assert_cmpstr(g_dir_read_name(dir), ==, NULL);
}

static void creations(struct ground *t)
{
    refused_creation(t, MIB, "{\"subformat\": \"monolithicFlat\", \"zeroed_grain\": true}",
                     "zeroed grains");
    refused_creation(t, MIB, "{\"compat6\": true, \"hwversion\": \"6\"}", "exclude");
    refused_creation(t, MIB, "{\"adapter_type\": \"scsi\"}", "adapter_type");
    refused_creation(t, MIB, "{\"hwversion\": \"4\\\"\"}", "quotes");
    refused_creation(t, 1ULL << 60, "{}", "64 TiB");
    refused_creation(t, 1ULL << 40, "{\"subformat\": \"twoGbMaxExtentFlat\"}", "254 extents");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-vmdk");
    ground_add("/vmdk/each-type", each_type);
    ground_add("/vmdk/split", split);
    ground_add("/vmdk/content-id", content_id);
    ground_add("/vmdk/parent", parent);
    ground_add("/vmdk/change-parent", change_parent);
    ground_add("/vmdk/replace-descriptor", replace_descriptor);
    ground_add("/vmdk/make-empty", make_empty);
    ground_add("/vmdk/resize", resize);
    ground_add("/vmdk/zero-and-discard", zero_and_discard);
    ground_add("/vmdk/stream/layout", stream_layout);
    ground_add("/vmdk/stream/recovery", stream_recovery);
    ground_add("/vmdk/stream/reopened", stream_reopened);
    ground_add("/vmdk/stream/broken", stream_broken);
    ground_add("/vmdk/check-repairs", check_repairs);
    ground_add("/vmdk/corrupt-entry", corrupt_entry);
    ground_add("/vmdk/crowd", crowd);
    ground_add("/vmdk/cowd", cowd);
    ground_add("/vmdk/descriptors", descriptors);
    ground_add("/vmdk/descriptor-changes", descriptor_changes);
    ground_add("/vmdk/headers", headers);
    ground_add("/vmdk/creations", creations);
    return g_test_run();
}
