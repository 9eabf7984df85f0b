/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img rebase: gives an image another backing file.
 *
 * The safe way first writes into the image what would read differently, and only then changes the
 * name in its header, so that a run that ends early leaves an image that reads as before. -u
 * changes the name alone.
 */
#include "img/copy.h"
#include "img/create.h"

#include <string.h>

struct rebase_options {
    struct img_common common;
    const char *backing, *backing_format;
    bool unsafe;
};

static bool copy_differences(struct node *n, struct node *new_backing,
                             const struct rebase_options *o, unsigned write_flags, GError **error)
{
    struct copy_source s = {.node = n, .len = node_size(n)};
    struct copy c = {
        .sources = &s,
        .source_count = 1,
        .target = n,
        .size_bytes = s.len,
        .layer = true,
        .min_sparse = 4096,
        .rebase = true,
        .old_backing = node_backing(node_skip_filters(n)),
        .new_backing = new_backing,
        .write_flags = write_flags,
    };
    progress_begin(&o->common);
    bool good = copy_run(&c, error);
    progress_end(good);
    int r = good ? node_flush(n) : 0;
    return r < 0 ? ruche_error_errno(error, -r, "'%s': the last writes failed", node_filename(n))
                 : good;
}

static bool rebase_safely(struct img *img, struct node *n, const struct rebase_options *o,
                          GError **error)
{
    unsigned write_flags;
    struct node *b = NULL;
    if (!img_cache_flags(o->common.cache, &write_flags, error))
        return false;
    if (*o->backing) {
        struct creation c = {.filename = node_filename(n),
                             .backing = (char *)o->backing,
                             .backing_format = (char *)o->backing_format};
        b = creation_open_backing(img, &c, 0, error);
        if (!b)
            return false;
    }
    bool good = copy_differences(n, b, o, write_flags, error);
    node_unref(b);
    return good;
}

static bool rebase_node(struct img *img, struct node *n, const struct rebase_options *o,
                        GError **error)
{
    const char *backing = o->backing && *o->backing ? o->backing : NULL;
    if (backing && !o->backing_format)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "the format of backing file '%s' is needed: -F FMT", backing);
    if (!n->driver->change_backing)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "images of format '%s' have no backing file that could change",
                           node_format(n));
    if (!o->unsafe && !rebase_safely(img, n, o, error))
        return false;
    return node_change_backing(n, backing, o->backing_format, error);
}

static int rebase_run(struct img *img, void *options, char **operands, unsigned count)
{
    const struct rebase_options *o = options;
    GError *error = NULL;
    if (!o->backing && !o->unsafe) {
        ruche_error(&error, RUCHE_ERR_INVALID,
                    "rebase: the new backing file (-b FILE; '' for none) is needed, or -u");
        return img_fail(error, 1);
    }
    unsigned flags = NODE_RW | (o->unsafe ? NODE_NO_BACKING : 0);
    struct node *n =
        img_open(img, &o->common, operands[0], o->common.format, o->common.cache, flags, &error);
    bool good = n && rebase_node(img, n, o, &error);
    node_unref(n);
    return good ? 0 : img_fail(error, 1);
}

static const struct arg rebase_args[] = {
    ARG_FORMAT,
    ARG_CACHE,
    ARG_SOURCE_CACHE,
    ARG_SHARE,
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    ARG_ROW('b', "backing", "FILE", ARG_TEXT, struct rebase_options, backing,
            "The new backing file; '' for none"),
    ARG_ROW('F', "backing-format", "FMT", ARG_TEXT, struct rebase_options, backing_format,
            "Its format"),
    ARG_ROW('u', NULL, NULL, ARG_FLAG, struct rebase_options, unsafe, "Change the name only"),
    {0},
};

static const struct verb rebase_verb = {
    .name = "rebase",
    .summary = "Give an image another backing file",
    .operands = "FILE",
    .args = rebase_args,
    .size = sizeof(struct rebase_options),
    .min_operands = 1,
    .max_operands = 1,
    .run = rebase_run,
};
IMG_VERB(rebase_verb);
