/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Errors from below: the same guest works on an image again and again, and each time the next
 * request to the file fails: with EIO, with ENOSPC, once or from then on, after a part of it was
 * done; or the medium is full. Nothing that was flushed is lost, nothing crashes, and the image
 * checks clean (leaks are allowed).
 *
 *   inject_test [--runs=N] [--seed=N] [--format=LABEL] [--all]
 */
#include "image/shadow.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { GUEST_OPS = 40 };

struct run {
    struct bed *bed;
    const struct bed_format *f;
    struct shadow shadow;
    struct memory_file *fresh, *disk, *base;
    const char *above; /* the filter that makes requests fail, JSON */
    uint64_t room;     /* bytes that the medium has, UINT64_MAX: plenty */
    bool failed;       /* something did, this time */
};

static gint wanted_runs = 30, run_seed = 1;

/* Thousands of warnings that data may be lost would be right, and nothing to read. */
static void hush(bool on)
{
    static int kept = -1;
    if (on) {
        kept = dup(STDERR_FILENO);
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, STDERR_FILENO);
        close(null);
    } else {
        dup2(kept, STDERR_FILENO);
        close(kept);
    }
}

/* A guest that goes on after errors, and flushes now and then. Moments are its operations. */
static unsigned guest_works(struct run *t)
{
    g_autoptr(GError) error = NULL;
    unsigned moment = 0;
    struct node *n = bed_open(t->bed, t->f, "disk", t->above, NODE_RW, &error);
    if (!n) {
        t->failed = true;
        g_assert_nonnull(error);
        return 0;
    }
    for (unsigned i = 0; i < GUEST_OPS; i++) {
        bool flush = g_rand_int_range(t->shadow.r, 0, 5) == 0;
        struct guest_event e =
            flush ? shadow_pick_flush(&t->shadow) : shadow_pick(&t->shadow, 0, 1);
        unsigned index = shadow_begin(&t->shadow, e, moment++);
        int err = shadow_do(&e, n);
        shadow_end(&t->shadow, index, moment++, err);
        t->failed |= err != 0;
        g_assert_cmpint(err, <=, 0);
    }
    node_unref(n);
    return moment;
}

static int run_in_fiber(void *opaque)
{
    struct run *t = opaque;
    memory_file_assign(t->disk, t->fresh);
    memory_file_limit(t->disk, t->room);
    if (t->f->flags & BED_BACKING)
        shadow_fill_base(&t->shadow, t->base);
    hush(true);
    unsigned moment = guest_works(t);
    hush(false);
    memory_file_limit(t->disk, UINT64_MAX);
    if (t->f->flags & BED_LAZY || !strcmp(t->f->driver, "vhdx")) /* opening puts it right */
        node_unref(bed_must_open(t->bed, t->f, "disk", NODE_RW));
    g_assert_true(bed_check(t->bed, t->f, "disk", BED_ALLOW_LEAKS));
    struct node *n = bed_must_open(t->bed, t->f, "disk", NODE_RW);
    shadow_advance(&t->shadow, moment);
    shadow_check(&t->shadow, moment, n);
    g_assert_cmpint(shadow_scribble(&t->shadow, n), ==, 0);
    node_unref(n);
    g_assert_true(bed_check(t->bed, t->f, "disk", BED_ALLOW_LEAKS));
    return 0;
}

/* True when something has failed. */
static bool run_once(struct run *t, const char *above, uint64_t room)
{
    shadow_init(&t->shadow, t->f, (guint32)run_seed);
    t->above = above;
    t->room = room;
    t->failed = false;
    bed_run(t->bed, run_in_fiber, t);
    shadow_done(&t->shadow);
    return t->failed;
}

static const struct {
    const char *label;
    int err;
    bool once;
    unsigned partial;
} ways[] = {
    {"EIO, once", EIO, true, 0},
    {"EIO from then on", EIO, false, 0},
    {"ENOSPC, once", ENOSPC, true, 0},
    {"a part, then EIO", EIO, true, 700},
    {"a part, then ENOSPC from then on", ENOSPC, false, 512},
};

/* Every request at first, then ever fewer, until there are none left to fail. */
static void fail_at_every_request(struct run *t, unsigned way)
{
    unsigned tried = 0, calm = 0;
    for (unsigned skip = 0; calm < 5; skip += tried < (unsigned)wanted_runs ? 1 : 1 + skip / 8) {
        g_autofree char *above = g_strdup_printf(
            "{\"driver\": \"blkdebug\", \"discard\": \"unmap\", \"inject-error\": [{\"errno\": %d, "
            "\"once\": %s, "
            "\"skip\": %u, \"partial\": %u}], \"image\": %%s}",
            ways[way].err, ways[way].once ? "true" : "false", skip, ways[way].partial);
        calm = run_once(t, above, UINT64_MAX) ? 0 : calm + 1;
        tried++;
    }
}

static void fill_the_medium(struct run *t)
{
    uint64_t used = memory_file_allocated(t->fresh),
             step = MAX(t->f->size_bytes / (unsigned)wanted_runs, 16 * KIB);
    for (uint64_t room = used; room < used + 2 * t->f->size_bytes; room += step)
        if (!run_once(t, NULL, room))
            break;
}

static int create_in_fiber(void *opaque)
{
    struct run *t = opaque;
    bed_create(t->bed, t->f, "fresh", t->f->flags & BED_BACKING ? "base" : NULL);
    return 0;
}

static void test_format(gconstpointer data)
{
    struct run t = {.f = data, .bed = bed_new()};
    t.fresh = memory_file_new("fresh", 0);
    t.disk = memory_file_new("disk", 0);
    t.base = memory_file_new("base", t.f->size_bytes);
    bed_run(t.bed, create_in_fiber, &t);
    for (unsigned way = 0; way < ARRAY_COUNT(ways); way++) {
        g_test_message("%s", ways[way].label);
        fail_at_every_request(&t, way);
    }
    g_test_message("full");
    fill_the_medium(&t);
    bed_free(t.bed);
    memory_file_free(t.fresh);
    memory_file_free(t.disk);
    memory_file_free(t.base);
}

int main(int argc, char **argv)
{
    gboolean all = FALSE;
    g_autofree char *only = NULL;
    const GOptionEntry entries[] = {
        {"runs", 0, 0, G_OPTION_ARG_INT, &wanted_runs, "First requests that fail one by one", "N"},
        {"seed", 0, 0, G_OPTION_ARG_INT, &run_seed, "Another guest", "N"},
        {"format", 0, 0, G_OPTION_ARG_STRING, &only, "Only these", "LABEL"},
        {"all", 0, 0, G_OPTION_ARG_NONE, &all, "Every format, not the quick ones", NULL},
        G_OPTION_ENTRY_NULL,
    };
    bed_options(&argc, &argv, entries);
    g_test_init(&argc, &argv, NULL);
    for (const struct bed_format *f = NULL;
         (f = bed_format_next(f, all || only ? 0 : BED_QUICK, only));) {
        g_autofree char *path = g_strconcat("/inject/", f->label, NULL);
        g_test_add_data_func(path, f, test_format);
    }
    return g_test_run();
}
