/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Short transfers: the kernel moves less than it was asked for, at every call, and what was read
 * and written is the same. On real files; the linker puts the functions below in the place of the
 * context's.
 *
 *   short_test [--ops=N] [--format=LABEL]
 */
#include "base/scratch.h"
#include "image/shadow.h"

#include <glib/gstdio.h>
#include <unistd.h>

struct run {
    struct bed *bed;
    const struct bed_format *f;
    struct shadow shadow;
    struct memory_file *disk, *base;
    char *path;
};

static gint wanted_ops = 150;
static GRand *chance; /* NULL: transfers are whole */
static unsigned shortened;

ssize_t __real_context_preadv_cached(struct context *c, int fd, const struct iovec *iov,
                                     unsigned count, uint64_t off);
ssize_t __wrap_context_preadv_cached(struct context *c, int fd, const struct iovec *iov,
                                     unsigned count, uint64_t off);
ssize_t __real_context_pwritev_cached(struct context *c, int fd, const struct iovec *iov,
                                      unsigned count, uint64_t off, int flags, uint64_t reserve);
ssize_t __wrap_context_pwritev_cached(struct context *c, int fd, const struct iovec *iov,
                                      unsigned count, uint64_t off, int flags, uint64_t reserve);

/* A part of the first vector, 1 byte at least. */
static struct iovec part_of(const struct iovec *iov)
{
    struct iovec part = *iov;
    if (part.iov_len > 1)
        part.iov_len = (size_t)g_rand_int_range(chance, 1, (gint32)MIN(part.iov_len, 1 << 20));
    shortened++;
    return part;
}

ssize_t __wrap_context_preadv_cached(struct context *c, int fd, const struct iovec *iov,
                                     unsigned count, uint64_t off)
{
    if (!chance)
        return __real_context_preadv_cached(c, fd, iov, count, off);
    struct iovec part = part_of(iov);
    return __real_context_preadv_cached(c, fd, &part, 1, off);
}

ssize_t __wrap_context_pwritev_cached(struct context *c, int fd, const struct iovec *iov,
                                      unsigned count, uint64_t off, int flags, uint64_t reserve)
{
    if (!chance)
        return __real_context_pwritev_cached(c, fd, iov, count, off, flags, reserve);
    struct iovec part = part_of(iov);
    return __real_context_pwritev_cached(c, fd, &part, 1, off, flags, reserve);
}

/* ---- between memory and the real file ---- */

static void save_file(struct run *t)
{
    uint64_t size = memory_file_size(t->disk);
    g_autofree char *bytes = g_malloc(size);
    memory_file_read(t->disk, 0, bytes, size);
    g_assert_true(g_file_set_contents(t->path, bytes, (gssize)size, NULL));
}

static void load_file(struct run *t)
{
    g_autofree char *bytes = NULL;
    gsize size;
    g_assert_true(g_file_get_contents(t->path, &bytes, &size, NULL));
    memory_file_set(t->disk, bytes, size);
}

/* ---- the run ---- */

static void guest_works(struct run *t, struct node *n)
{
    for (unsigned i = 0; i < (unsigned)wanted_ops; i++) {
        struct guest_event e = shadow_pick(&t->shadow, 0, 1);
        unsigned index = shadow_begin(&t->shadow, e, 2 * i);
        g_assert_cmpint(shadow_do(&e, n), ==, 0);
        shadow_end(&t->shadow, index, 2 * i + 1, 0);
    }
    unsigned index =
        shadow_begin(&t->shadow, shadow_pick_flush(&t->shadow), 2 * (unsigned)wanted_ops);
    g_assert_cmpint(node_flush(n), ==, 0);
    shadow_end(&t->shadow, index, 2 * (unsigned)wanted_ops + 1, 0);
    shadow_advance(&t->shadow, UINT32_MAX);
}

static int run_in_fiber(void *opaque)
{
    struct run *t = opaque;
    GError *error = NULL;
    bool backing = t->f->flags & BED_BACKING;
    if (backing)
        shadow_fill_base(&t->shadow, t->base);
    bed_create(t->bed, t->f, "disk", backing ? "base" : NULL);
    save_file(t);
    g_autofree char *file =
        g_strdup_printf("{\"driver\": \"file\", \"filename\": \"%s\"}", t->path);
    chance = t->shadow.r;
    shortened = 0;
    struct node *n = bed_open(t->bed, t->f, "", file, NODE_RW, &error);
    g_assert_no_error(error);
    guest_works(t, n);
    shadow_check(&t->shadow, UINT32_MAX, n);
    node_unref(n);
    chance = NULL;
    g_assert_cmpuint(shortened, >, (unsigned)wanted_ops);
    load_file(t);
    g_assert_true(bed_check(t->bed, t->f, "disk", 0));
    n = bed_must_open(t->bed, t->f, "disk", 0);
    shadow_check(&t->shadow, UINT32_MAX, n);
    node_unref(n);
    return 0;
}

static void test_format(gconstpointer data)
{
    struct run t = {.f = data, .bed = bed_new()};
    int fd = g_file_open_tmp("ruche-short-XXXXXX", &t.path, NULL);
    close(fd);
    t.disk = memory_file_new("disk", 0);
    t.base = memory_file_new("base", 0);
    shadow_init(&t.shadow, t.f, 1);
    bed_run(t.bed, run_in_fiber, &t);
    shadow_done(&t.shadow);
    bed_free(t.bed);
    memory_file_free(t.disk);
    memory_file_free(t.base);
    g_unlink(t.path);
    g_free(t.path);
}

int main(int argc, char **argv)
{
    g_autofree char *only = NULL;
    const GOptionEntry entries[] = {
        {"ops", 0, 0, G_OPTION_ARG_INT, &wanted_ops, "Operations on each format", "N"},
        {"format", 0, 0, G_OPTION_ARG_STRING, &only, "Only these", "LABEL"},
        G_OPTION_ENTRY_NULL,
    };
    bed_options(&argc, &argv, entries);
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-short");
    for (const struct bed_format *f = NULL; (f = bed_format_next(f, only ? 0 : BED_QUICK, only));) {
        g_autofree char *path = g_strconcat("/short/", f->label, NULL);
        g_test_add_data_func(path, f, test_format);
    }
    return g_test_run();
}
