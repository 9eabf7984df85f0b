/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Power cuts: a guest works on an image in memory while every write and flush below is recorded.
 * Then the power fails at each moment of the record: all that was flushed is there, and of what
 * came later all of it, a part of it, parts torn into sectors, or parts in another order. What is
 * left must open, check clean (leaks are allowed) and hold everything that the guest had flushed.
 *
 *   powercut_test [--states=N] [--seed=N] [--format=LABEL] [--all]
 */
#include "image/shadow.h"

#include "image/dirty.h"

#include <string.h>

enum { BATCHES = 120, BATCH_MAX = 4, SNAPSHOTS_MAX = 3, BITMAPS_MAX = 5, NAMES = 3 };

/* A change of the backing file's name, between two moments of the record. */
struct renaming {
    unsigned begin, end, name;
};

struct run {
    struct bed *bed;
    const struct bed_format *f;
    struct shadow shadow;
    struct memory_file *disk, *base; /* the guest's */
    struct memory_file *sure, *left; /* what the medium surely has; what a power cut leaves */
    struct node *node;
    unsigned busy; /* of a batch */
    struct fiber_queue batch_done;
    unsigned snapshots, bitmaps, tried;
    char *names[NAMES]; /* all of them are the same backing file */
    struct memory_file *aliases[NAMES];
    GArray *renamings; /* struct renaming */
};

static gint wanted_states = 60, run_seed = 1;

/* ---- the guest ---- */

struct guest_job {
    struct run *run;
    unsigned index; /* of its event */
};

static void guest_fiber(void *opaque)
{
    struct guest_job *j = opaque;
    struct run *t = j->run;
    struct guest_event e = g_array_index(t->shadow.events, struct guest_event, j->index);
    int err = shadow_do(&e, t->node);
    g_assert_cmpint(err, ==, 0);
    shadow_end(&t->shadow, j->index, memory_file_event_count(t->disk), err);
    if (!--t->busy)
        fiber_queue_wake_all(&t->batch_done);
    g_free(j);
}

/* Some operations at a time, each in its own part of the disk, so that no two touch. */
static void guest_batch(struct run *t)
{
    unsigned parts = (unsigned)g_rand_int_range(t->shadow.r, 1, BATCH_MAX + 1);
    while (parts > 1 && t->f->size_bytes / parts % t->f->cluster_bytes)
        parts--;
    t->busy = parts + 1;
    for (unsigned p = 0; p < parts; p++) {
        struct guest_job *j = g_new(struct guest_job, 1);
        j->run = t;
        j->index = shadow_begin(&t->shadow, shadow_pick(&t->shadow, p, parts),
                                memory_file_event_count(t->disk));
        fiber_start(guest_fiber, j);
    }
    if (--t->busy)
        fiber_queue_wait(&t->batch_done);
}

static void guest_flush(struct run *t)
{
    unsigned i =
        shadow_begin(&t->shadow, shadow_pick_flush(&t->shadow), memory_file_event_count(t->disk));
    int err = node_flush(t->node);
    g_assert_cmpint(err, ==, 0);
    shadow_end(&t->shadow, i, memory_file_event_count(t->disk), err);
}

static void guest_snapshot(struct run *t)
{
    GError *error = NULL;
    if (t->snapshots && g_rand_boolean(t->shadow.r)) {
        g_autofree char *name = g_strdup_printf("s%u", t->snapshots--);
        t->node->driver->snapshot_delete(t->node, name, &error);
    } else if (t->snapshots < SNAPSHOTS_MAX) {
        g_autofree char *name = g_strdup_printf("s%u", ++t->snapshots);
        struct snapshot_info s = {.name = name, .size_bytes = node_size(t->node)};
        t->node->driver->snapshot_create(t->node, &s, &error);
    }
    g_assert_no_error(error);
}

/* Bitmaps are stored when the image is closed, which happens in the middle too. */
static void guest_reopens(struct run *t)
{
    GError *error = NULL;
    if (t->f->flags & BED_BITMAPS) {
        g_autofree char *name = g_strdup_printf("b%u", t->bitmaps);
        struct dirty_bitmap *b = dirty_find(t->node, name);
        if (b && g_rand_boolean(t->shadow.r)) {
            g_assert_true(t->node->driver->bitmap_forget(t->node, name, &error));
            dirty_free(b);
        } else if (t->bitmaps < BITMAPS_MAX) {
            g_autofree char *next = g_strdup_printf("b%u", ++t->bitmaps);
            b = dirty_new(t->node, 0, next, 4096, &error);
            g_assert_no_error(error);
            b->enabled = b->persistent = true;
        }
    }
    node_unref(t->node);
    t->node = bed_must_open(t->bed, t->f, "disk", NODE_RW);
}

/* The shadow knows only what was there before. */
static void guest_grows(struct run *t)
{
    g_autoptr(GError) error = NULL;
    if (!(t->f->flags & BED_RESIZE) || node_size(t->node) > 2 * t->f->size_bytes)
        return;
    uint64_t more = 512 * (uint64_t)g_rand_int_range(t->shadow.r, 1, 1000);
    bool ok = node_resize(t->node, node_size(t->node) + more, PREALLOC_OFF, &error);
    g_assert_true(ok || t->snapshots); /* version 2 cannot with snapshots */
}

static bool is_vmdk(const struct bed_format *f)
{
    return !strcmp(f->driver, "vmdk");
}

/* VMDK begins without a parent, and gets some that are as empty. */
static bool renames(const struct bed_format *f)
{
    return f->flags & BED_BACKING || is_vmdk(f);
}

/* The backing file goes by other names, of which some take several sectors of the header. */
static void guest_renames(struct run *t)
{
    GError *error = NULL;
    struct renaming r = {.begin = memory_file_event_count(t->disk)};
    /* What has clusters of 1 KiB or less has no room for two headers. */
    r.name = (unsigned)g_rand_int_range(t->shadow.r, 0, t->f->cluster_bytes < 4096 ? 1 : NAMES);
    const char *format = g_rand_boolean(t->shadow.r) ? NULL : is_vmdk(t->f) ? "vmdk" : "raw";
    node_change_backing(t->node, t->names[r.name], format, &error);
    g_assert_no_error(error);
    r.end = memory_file_event_count(t->disk);
    g_array_append_val(t->renamings, r);
}

static void guest_works(struct run *t)
{
    memory_file_delay(t->disk, g_rand_int(t->shadow.r) | 1);
    t->node = bed_must_open(t->bed, t->f, "disk", NODE_RW);
    for (unsigned i = 0; i < BATCHES; i++) {
        guest_batch(t);
        if (g_rand_int_range(t->shadow.r, 0, 3) == 0)
            guest_flush(t);
        if (t->f->flags & BED_SNAPSHOTS && g_rand_int_range(t->shadow.r, 0, 25) == 0)
            guest_snapshot(t);
        if (g_rand_int_range(t->shadow.r, 0, 20) == 0)
            guest_reopens(t);
        if (g_rand_int_range(t->shadow.r, 0, 30) == 0)
            guest_grows(t);
        if (renames(t->f) && g_rand_int_range(t->shadow.r, 0, 8) == 0)
            guest_renames(t);
    }
    node_unref(g_steal_pointer(&t->node));
    memory_file_delay(t->disk, 0);
}

/* ---- what a power cut leaves ---- */

/* The last name that it got, or the one that was being written. */
static void check_name(const struct run *t, unsigned moment, const struct node *n)
{
    const char *sure = is_vmdk(t->f) ? NULL : t->names[0], *maybe = sure;
    for (unsigned i = 0; i < t->renamings->len; i++) {
        const struct renaming *r = &g_array_index(t->renamings, struct renaming, i);
        if (r->begin < moment)
            maybe = t->names[r->name];
        if (r->end <= moment)
            sure = maybe;
    }
    if (g_strcmp0(n->backing_file, maybe))
        g_assert_cmpstr(n->backing_file, ==, sure);
}

static void check_state(struct run *t, unsigned moment)
{
    /* Lazy counts and logs are put right by opening; all others must be right as they are. */
    bool repairs = t->f->flags & BED_LAZY || !strcmp(t->f->driver, "vhdx");
    bool write = repairs || t->tried % 8 == 0;
    if (!repairs)
        g_assert_true(bed_check(t->bed, t->f, "left", BED_ALLOW_LEAKS));
    struct node *n = bed_must_open(t->bed, t->f, "left", write ? NODE_RW : 0);
    shadow_check(&t->shadow, moment, n);
    if (renames(t->f))
        check_name(t, moment, n);
    if (write && t->tried % 16 == 0) /* life goes on */
        g_assert_cmpint(shadow_scribble(&t->shadow, n), ==, 0);
    node_unref(n);
    if (write)
        g_assert_true(bed_check(t->bed, t->f, "left", BED_ALLOW_LEAKS));
    t->tried++;
}

/* Of what came after the last flush below: everything, a part, parts torn, a part in another order.
 */
enum loss { LOSS_NONE, LOSS_SOME, LOSS_TORN, LOSS_REORDERED, LOSS_KINDS };

static void shuffle(struct run *t, unsigned *order, unsigned count)
{
    for (unsigned i = count; i > 1; i--) {
        unsigned other = (unsigned)g_rand_int_range(t->shadow.r, 0, (gint32)i), held = order[i - 1];
        order[i - 1] = order[other];
        order[other] = held;
    }
}

static void apply_pending(struct run *t, unsigned from, unsigned to, enum loss how)
{
    unsigned count = to - from;
    g_autofree unsigned *order = g_new(unsigned, count + 1);
    for (unsigned i = 0; i < count; i++)
        order[i] = from + i;
    if (how == LOSS_REORDERED)
        shuffle(t, order, count);
    for (unsigned i = 0; i < count; i++) {
        const struct memory_event *e = memory_file_event(t->disk, order[i]);
        if (how == LOSS_TORN)
            memory_event_apply_torn(t->left, e, t->shadow.r);
        else if (how == LOSS_NONE || g_rand_boolean(t->shadow.r))
            memory_event_apply(t->left, e);
    }
}

/* Walks the record. */
static void cut_everywhere(struct run *t)
{
    unsigned count = memory_file_event_count(t->disk), flushed = 0;
    unsigned moments = MAX((unsigned)wanted_states / LOSS_KINDS, 1), step = MAX(count / moments, 1);
    for (unsigned moment = 0; moment <= count; moment++) {
        if (moment && memory_file_event(t->disk, moment - 1)->op == MEMORY_FLUSH)
            for (; flushed < moment; flushed++)
                memory_event_apply(t->sure, memory_file_event(t->disk, flushed));
        if (step > 1 && moment < count && g_rand_int_range(t->shadow.r, 0, (gint32)step))
            continue;
        shadow_advance(&t->shadow, moment);
        for (enum loss how = LOSS_NONE; how < (flushed < moment ? LOSS_KINDS : LOSS_SOME); how++) {
            memory_file_assign(t->left, t->sure);
            apply_pending(t, flushed, moment, how);
            check_state(t, moment);
        }
    }
}

/* ---- one format ---- */

static int run_in_fiber(void *opaque)
{
    struct run *t = opaque;
    bool backing = t->f->flags & BED_BACKING;
    if (backing)
        shadow_fill_base(&t->shadow, t->base);
    for (unsigned i = 0; i < NAMES; i++) {
        if (backing)
            memory_file_assign(t->aliases[i], t->base);
        else if (is_vmdk(t->f))
            bed_create(t->bed, t->f, strrchr(t->names[i], '/') + 1, NULL);
    }
    bed_create(t->bed, t->f, "disk", backing ? strrchr(t->names[0], '/') + 1 : NULL);
    memory_file_assign(t->sure, t->disk);
    memory_file_record(t->disk, true);
    guest_works(t);
    cut_everywhere(t);
    return 0;
}

static void name_aliases(struct run *t)
{
    static const size_t lengths[NAMES] = {4, 500, 900};
    for (unsigned i = 0; i < NAMES; i++) {
        g_autofree char *name = g_strnfill(lengths[i], (char)('a' + i));
        t->aliases[i] = memory_file_new(name, 0);
        t->names[i] = g_strconcat("memory://", name, NULL);
    }
}

static void test_format(gconstpointer data)
{
    const struct bed_format *f = data;
    guint32 seed = run_seed ? (guint32)run_seed : (guint32)g_test_rand_int();
    struct run t = {.f = f, .bed = bed_new()};
    t.disk = memory_file_new("disk", 0);
    t.base = memory_file_new("base", 0);
    t.sure = memory_file_new("sure", 0);
    t.left = memory_file_new("left", 0);
    t.renamings = g_array_new(FALSE, FALSE, sizeof(struct renaming));
    name_aliases(&t);
    shadow_init(&t.shadow, f, seed);
    g_test_message("--format=%s --seed=%u", f->label, seed);
    bed_run(t.bed, run_in_fiber, &t);
    g_test_message("%u writes and flushes, %u states", memory_file_event_count(t.disk), t.tried);
    bed_free(t.bed);
    memory_file_free(t.disk);
    memory_file_free(t.base);
    memory_file_free(t.sure);
    memory_file_free(t.left);
    for (unsigned i = 0; i < NAMES; i++) {
        memory_file_free(t.aliases[i]);
        g_free(t.names[i]);
    }
    g_array_unref(t.renamings);
    shadow_done(&t.shadow);
}

int main(int argc, char **argv)
{
    gboolean all = FALSE;
    g_autofree char *only = NULL;
    const GOptionEntry entries[] = {
        {"states", 0, 0, G_OPTION_ARG_INT, &wanted_states, "Losses to try for a format, about",
         "N"},
        {"seed", 0, 0, G_OPTION_ARG_INT, &run_seed, "Another run; 0: a random one", "N"},
        {"format", 0, 0, G_OPTION_ARG_STRING, &only, "Only these", "LABEL"},
        {"all", 0, 0, G_OPTION_ARG_NONE, &all, "Every format, not the quick ones", NULL},
        G_OPTION_ENTRY_NULL,
    };
    bed_options(&argc, &argv, entries);
    g_test_init(&argc, &argv, NULL);
    for (const struct bed_format *f = NULL;
         (f = bed_format_next(f, all || only ? 0 : BED_QUICK, only));) {
        g_autofree char *path = g_strconcat("/powercut/", f->label, NULL);
        if (f->flags & BED_ORDERED)
            g_test_add_data_func(path, f, test_format);
    }
    return g_test_run();
}
