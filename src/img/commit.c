/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img commit: writes what an image holds into its backing file, then empties it.
 *
 * The backing file is whole and on disk before the image loses anything: a run that ends early can
 * be repeated.
 */
#include "img/copy.h"

#include <stdio.h>
#include <string.h>

struct commit_options {
    struct img_common common;
    const char *base;
    uint64_t rate;
    bool keep;
};

/* The image of that name in the chain below n; NULL name: the nearest. */
static struct node *find_base(struct node *n, const char *name, GError **error)
{
    struct node *b = node_backing(node_skip_filters(n));
    if (!b)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "'%s' has no backing file to commit into",
                    node_filename(n));
    if (!name || !b)
        return b;
    for (struct node *above = n; b; above = b, b = node_backing(node_skip_filters(b))) {
        g_autofree char *full = node_resolve_name(n, name);
        const char *said = node_skip_filters(above)->backing_file;
        if (!strcmp(node_filename(b), name) || (full && !strcmp(node_filename(b), full)) ||
            (said && !strcmp(said, name)))
            return b;
    }
    ruche_error(error, RUCHE_ERR_NOT_FOUND, "'%s' is not among the backing files of '%s'", name,
                node_filename(n));
    return NULL;
}

static bool write_down(struct node *n, struct node *base, const struct commit_options *o,
                       unsigned write_flags, GError **error)
{
    if (!node_set_read_only(base, false, error))
        return false;
    base->discard = true; /* zeroes may become holes, as in n */
    if (node_size(base) < node_size(n) && !node_resize(base, node_size(n), PREALLOC_OFF, error))
        return false;
    struct copy_source s = {.node = n, .base = base, .len = node_size(n)};
    struct copy c = {
        .sources = &s,
        .source_count = 1,
        .target = base,
        .size_bytes = s.len,
        .layer = true,
        .min_sparse = 4096,
        .rate = o->rate,
        .write_flags = write_flags,
    };
    progress_begin(&o->common);
    bool good = copy_run(&c, error);
    progress_end(good);
    int r = good ? node_flush(base) : 0;
    if (r < 0)
        good = ruche_error_errno(error, -r, "'%s': the last writes failed", node_filename(base));
    return good;
}

static bool empty(struct node *n, GError **error)
{
    struct node *top = node_skip_filters(n);
    if (!top->driver->make_empty)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "images of format '%s' cannot be emptied; -d leaves them as they are",
                           node_format(top));
    int r = top->driver->make_empty(top);
    if (r >= 0)
        r = node_flush(n);
    return r >= 0 || ruche_error_errno(error, -r, "'%s' cannot be emptied", node_filename(n));
}

static bool commit_node(struct node *n, const struct commit_options *o, GError **error)
{
    unsigned write_flags;
    struct node *base = find_base(n, o->base, error);
    bool keep = o->keep || o->base;
    return base && img_cache_flags(o->common.cache, &write_flags, error) &&
           write_down(n, base, o, write_flags, error) && (keep || empty(n, error));
}

static int commit_run(struct img *img, void *options, char **operands, unsigned count)
{
    const struct commit_options *o = options;
    GError *error = NULL;
    struct node *n =
        img_open(img, &o->common, operands[0], o->common.format, o->common.cache, NODE_RW, &error);
    bool good = n && commit_node(n, o, &error);
    node_unref(n);
    if (!good)
        return img_fail(error, 1);
    if (!o->common.quiet)
        puts("Image committed.");
    return 0;
}

static const struct arg commit_args[] = {
    ARG_FORMAT,
    ARG_CACHE,
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    ARG_ROW('b', NULL, "FILE", ARG_TEXT, struct commit_options, base,
            "Commit down to this image of the chain; implies -d"),
    ARG_ROW('d', NULL, NULL, ARG_FLAG, struct commit_options, keep,
            "Do not empty the image afterwards"),
    {.letter = 'r',
     .metavar = "BYTES",
     .kind = ARG_SIZE,
     .min = 1,
     .help = "Bytes a second at most",
     .offset = offsetof(struct commit_options, rate)},
    {0},
};

static const struct verb commit_verb = {
    .name = "commit",
    .summary = "Write an image down into its backing file",
    .operands = "FILE",
    .args = commit_args,
    .size = sizeof(struct commit_options),
    .min_operands = 1,
    .max_operands = 1,
    .run = commit_run,
};
IMG_VERB(commit_verb);
