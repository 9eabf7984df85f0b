/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A tool's context, which copies on several threads and asks for room beforehand: what is read is what
 * was written, and no file keeps more room than it needs. */
#include "base/scratch.h"
#include "image/node.h"
#include "image/driver.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define AREA   (6 * MIB) /* of one fiber */
#define BUFFER (2 * MIB)
enum { FIBERS = 9, ROUNDS = 12 };

struct run {
    struct context *ctx;
    struct graph *graph;
    const char *format;
    char *folder, *path;
    struct node *node;
    uint8_t *model; /* what the image holds */
    unsigned next, running;
    struct fiber_queue ended;
};

static void fill(uint8_t *p, size_t len, uint32_t seed)
{
    for (size_t i = 0; i < len; i += 4) {
        seed = seed * 1664525 + 1013904223;
        memcpy(p + i, &seed, min_u64(4, len - i));
    }
}

/* Writes pieces of all sizes into its own area, reads others, compares. */
static void work(struct run *t, unsigned number, uint8_t *buf)
{
    uint64_t area = number * AREA;
    g_autoptr(GRand) r = g_rand_new_with_seed(number);
    for (unsigned i = 0; i < ROUNDS; i++) {
        size_t len = (size_t)g_rand_int_range(r, 1, BUFFER / 512) * 512;
        gint32 last = (gint32)((AREA - len) / 512);
        uint64_t at = area + (uint64_t)g_rand_int_range(r, 0, last + 1) * 512;
        fill(t->model + at, len, g_rand_int(r));
        memcpy(buf, t->model + at, len);
        g_assert_cmpint(node_pwrite(t->node, at, buf, len, i & 1 ? NODE_FRESH : 0), ==, 0);
        at = area + (uint64_t)g_rand_int_range(r, 0, (AREA - BUFFER) / 512 + 1) * 512;
        g_assert_cmpint(node_pread(t->node, at, buf, BUFFER), ==, 0);
        g_assert_cmpmem(buf, BUFFER, t->model + at, BUFFER);
    }
}

static void worker(void *opaque)
{
    struct run *t = opaque;
    g_autofree uint8_t *buf = g_malloc(BUFFER);
    work(t, t->next++, buf);
    if (!--t->running)
        fiber_queue_wake_all(&t->ended);
}

static void compare_all(struct run *t)
{
    g_autofree uint8_t *buf = g_malloc(AREA);
    for (unsigned i = 0; i < FIBERS; i++) {
        g_assert_cmpint(node_pread(t->node, i * AREA, buf, AREA), ==, 0);
        g_assert_cmpmem(buf, AREA, t->model + i * AREA, AREA);
    }
}

static void open_again(struct run *t)
{
    GError *error = NULL;
    node_unref(t->node);
    t->node = node_open_name(t->graph, t->path, t->format, NULL, NODE_RW, &error);
    g_assert_no_error(error);
}

static int run_in_fiber(void *opaque)
{
    struct run *t = opaque;
    GError *error = NULL;
    image_create(t->graph, driver_find(t->format, NULL), t->path, FIBERS * AREA, NULL, NULL, NULL,
                 &error);
    g_assert_no_error(error);
    open_again(t);
    t->running = FIBERS;
    for (unsigned i = 0; i < FIBERS; i++)
        fiber_start(worker, t);
    while (t->running)
        fiber_queue_wait(&t->ended);
    compare_all(t);
    open_again(t);
    compare_all(t);
    node_unref(t->node);
    return 0;
}

/* Blocks behind the end would count as the file's. */
static void assert_no_room_kept(const char *path)
{
    struct stat st;
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpuint((uint64_t)st.st_blocks * 512, <=, (uint64_t)st.st_size + 64 * KIB);
}

static void test_format(gconstpointer data)
{
    struct run t = {.format = data, .ctx = context_new(NULL)};
    context_set_patient(t.ctx, true);
    t.graph = graph_new(t.ctx);
    t.folder = g_dir_make_tmp("ruche-patient-XXXXXX", NULL);
    t.path = g_build_filename(t.folder, "disk", NULL);
    t.model = g_malloc0(FIBERS * AREA);
    context_run(t.ctx, run_in_fiber, &t);
    assert_no_room_kept(t.path);
    graph_free(t.graph);
    context_free(t.ctx);
    g_unlink(t.path);
    g_rmdir(t.folder);
    g_free(t.model);
    g_free(t.path);
    g_free(t.folder);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-patient");
    g_test_add_data_func("/patient/raw", "raw", test_format);
    g_test_add_data_func("/patient/qcow2", "qcow2", test_format);
    return g_test_run();
}
