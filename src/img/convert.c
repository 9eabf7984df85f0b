/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img convert: copies one image, or several behind one another, into a new one of any format.
 *
 * The new image appears under its name when it is whole; a run that fails or is interrupted leaves
 * nothing.
 */
#include "img/convert.h"

#include "img/copy.h"
#include "img/source.h"
#include "img/target.h"

#include <stdlib.h>
#include <string.h>

struct convert_options {
    struct img_common common;
    GPtrArray *options;
    const char *target_format, *backing, *backing_format, *snapshot;
    uint64_t sparse, rate, workers;
    const char *sparse_text;
    bool compress, no_create, copy_range, any_order, salvage, target_is_zero, target_image_opts;
    bool bitmaps, skip_broken;
};

#define SPARSE_DEFAULT  4096
#define SPARSE_MAX      (16 * MIB)
#define WORKERS_DEFAULT 8

/* Everything that the run holds. */
struct convert {
    struct img *img;
    const struct convert_options *o;
    struct copy_source *sources;
    unsigned source_count;
    uint64_t total;
    struct creation creation;
    struct target target;
    unsigned write_flags;
};

/* ---- options that do not go together ---- */

static bool check_options(const struct convert_options *o, unsigned operands, GError **error)
{
    const struct {
        bool wrong;
        const char *sentence;
    } rules[] = {
        {o->backing_format && !o->backing, "-F is the format of the backing file that -B names"},
        {o->copy_range && o->compress, "-C cannot copy compressed (-c)"},
        {o->copy_range && o->sparse_text, "-C copies without looking for zeroes (-S)"},
        {o->target_is_zero && !o->no_create, "--target-is-zero is about an image that exists (-n)"},
        {o->target_is_zero && o->backing, "--target-is-zero does not go with a backing file (-B)"},
        {o->target_image_opts && !o->no_create,
         "--target-image-opts names an image that exists (-n)"},
        {o->target_image_opts && o->target_format,
         "--target-image-opts names the format itself, without -O"},
        {o->no_create && o->options, "-o is for a new image, without -n"},
        {o->bitmaps && operands > 2, "--bitmaps takes one source"},
        {o->skip_broken && !o->bitmaps, "--skip-broken-bitmaps needs --bitmaps"},
        {o->backing && operands > 2, "-B takes one source"},
        {o->snapshot && operands > 2, "-l takes one source"},
        {o->sparse % 512 || o->sparse > SPARSE_MAX, "-S takes a multiple of 512 up to 16M"},
    };
    for (unsigned i = 0; i < ARRAY_COUNT(rules); i++) {
        if (rules[i].wrong)
            return ruche_error(error, RUCHE_ERR_INVALID, "convert: %s", rules[i].sentence);
    }
    return true;
}

/* ---- sources ---- */

static bool open_sources(struct convert *c, char **names, unsigned count, GError **error)
{
    const struct img_common *common = &c->o->common;
    c->sources = g_new0(struct copy_source, count);
    for (unsigned i = 0; i < count; i++) {
        struct node *n =
            img_open(c->img, common, names[i], common->format, common->source_cache, 0, error);
        if (!n)
            return false;
        c->sources[c->source_count++].node = n;
        if (c->o->snapshot && !source_show_snapshot(n, c->o->snapshot, error))
            return false;
        struct copy_source *s = &c->sources[i];
        s->start = c->total;
        s->len = align_up(node_size(n), 512);
        if (s->len > IMAGE_SIZE_MAX - c->total)
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "the sources together are over the limit of 4 EiB");
        c->total += s->len;
    }
    return true;
}

/* ---- the target ---- */

static bool check_target(const struct convert *c, GError **error)
{
    const struct node *n = c->target.node;
    if (node_size(n) < c->total)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s' has %" PRIu64 " bytes, the source has %" PRIu64, c->target.name,
                           node_size(n), c->total);
    if (c->o->compress && !(n->driver->flags & DRIVER_COMPRESS))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "images of format '%s' cannot be compressed (-c)", node_format(n));
    if (c->o->bitmaps && !n->driver->bitmap_can_store)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "images of format '%s' keep no bitmaps",
                           node_format(n));
    return true;
}

static bool open_existing(struct convert *c, const char *name, const char *cache, GError **error)
{
    const struct convert_options *o = c->o;
    const char *format = o->target_image_opts ? NULL : o->target_format ? o->target_format : "raw";
    c->target = (struct target){.name = name};
    c->target.node =
        img_open_as(c->img, name, o->target_image_opts, format, cache, false, NODE_RW, error);
    return c->target.node;
}

static bool create_target(struct convert *c, const char *name, const char *cache, GError **error)
{
    const struct convert_options *o = c->o;
    struct creation *n = &c->creation;
    if (!creation_init(n, name, o->target_format ? o->target_format : "raw", o->options, o->backing,
                       o->backing_format, error))
        return false;
    n->size_bytes = c->total; /* whatever -o size says */
    if (o->compress && !(n->driver->flags & DRIVER_COMPRESS))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "images of format '%s' cannot be compressed (-c)", n->driver->name);
    if (n->backing) {
        struct node *b = creation_open_backing(c->img, n, NODE_NO_BACKING, error);
        if (!b)
            return false;
        node_unref(b);
    }
    return target_new(c->img, n, cache, &c->target, error);
}

/* A target that exists may be able to forget everything it has, quickly. */
static bool make_zero(const struct convert *c, bool has_backing)
{
    struct node *n = c->target.node;
    if (c->o->target_is_zero)
        return true;
    if (has_backing)
        return false;
    if (c->target.files && n->zero_init)
        return true;
    return c->total == node_size(n) &&
           node_zero(n, 0, node_size(n), NODE_MAY_UNMAP | NODE_NO_FALLBACK) == 0;
}

/* ---- the run ---- */

static bool copy_all(struct convert *c, GError **error)
{
    const struct convert_options *o = c->o;
    bool has_backing = o->backing || c->creation.backing;
    const struct image_driver *d = c->target.node->driver;
    struct copy copy = {
        .sources = c->sources,
        .source_count = c->source_count,
        .target = c->target.node,
        .size_bytes = c->total,
        .layer = has_backing,
        .reads_zero = make_zero(c, has_backing),
        .compress = o->compress,
        .salvage = o->salvage,
        .any_order = o->any_order,
        .one_by_one = d->flags & DRIVER_SEQUENTIAL,
        .share = !o->sparse_text,
        .offload = o->copy_range,
        .min_sparse = o->sparse,
        .workers = (unsigned)(o->workers ? o->workers : WORKERS_DEFAULT),
        .write_flags = c->write_flags,
        .rate = o->rate,
    };
    progress_begin(&o->common);
    bool good = copy_run(&copy, error);
    progress_end(good);
    return good;
}

static bool convert_to(struct convert *c, const char *name, GError **error)
{
    const char *cache = c->o->common.cache ? c->o->common.cache : "unsafe";
    if (!img_cache_flags(cache, &c->write_flags, error))
        return false;
    if (!(c->o->no_create ? open_existing(c, name, cache, error)
                          : create_target(c, name, cache, error)))
        return false;
    bool good = check_target(c, error) && copy_all(c, error) &&
                (!c->o->bitmaps ||
                 convert_bitmaps(c->sources[0].node, c->target.node, c->o->skip_broken, error));
    return target_finish(&c->target, good, error);
}

static bool sparse_size(struct convert_options *o, GError **error)
{
    o->sparse = SPARSE_DEFAULT;
    return !o->sparse_text || args_size("-S", o->sparse_text, &o->sparse, error);
}

static int convert_run(struct img *img, void *options, char **operands, unsigned count)
{
    struct convert_options *o = options;
    struct convert c = {.img = img, .o = o};
    GError *error = NULL;
    if (args_wants_help(o->options))
        return creation_print_help(o->target_format ? o->target_format : "raw");
    bool good = false;
    if (count < 2)
        ruche_error(&error, RUCHE_ERR_INVALID,
                    "convert: a source and the new image's name are needed");
    else
        good = sparse_size(o, &error) && check_options(o, count, &error) &&
               open_sources(&c, operands, count - 1, &error) &&
               convert_to(&c, operands[count - 1], &error);
    for (unsigned i = 0; i < c.source_count; i++)
        node_unref(c.sources[i].node);
    g_free(c.sources);
    creation_clear(&c.creation);
    return good ? 0 : img_fail(error, 1);
}

#define ROW(l, n, m, k, member, text) ARG_ROW(l, n, m, k, struct convert_options, member, text)
#define NUMBER(l, n, m, k, member, lo, hi, text)                                                   \
    {                                                                                              \
        .letter = l, .name = n, .metavar = m, .kind = k, .min = lo, .max = hi, .help = text,       \
        .offset = offsetof(struct convert_options, member)                                         \
    }
static const struct arg convert_args[] = {
    COMMON('f', "format", "FMT", ARG_TEXT, format, "Format of the sources; probed when absent"),
    ROW('O', NULL, "FMT", ARG_TEXT, target_format, "Format of the new image (raw)"),
    ROW('o', NULL, "OPTIONS", ARG_LIST, options, "Its options; -o help lists them"),
    ROW('B', NULL, "FILE", ARG_TEXT, backing,
        "Its backing file, which holds what the source's own one does"),
    ROW('F', NULL, "FMT", ARG_TEXT, backing_format, "The backing file's format"),
    ROW('c', NULL, NULL, ARG_FLAG, compress, "Compress"),
    ROW('C', NULL, NULL, ARG_FLAG, copy_range,
        "Have the file system copy or share blocks where it can"),
    ROW('l', NULL, "SNAPSHOT", ARG_TEXT, snapshot,
        "Copy what a snapshot holds: its name or id, or snapshot.id=ID"),
    ROW('S', NULL, "BYTES", ARG_TEXT, sparse_text,
        "Zeroes of this many bytes leave holes (4k); 0: none"),
    NUMBER('m', NULL, "N", ARG_NUMBER, workers, 1, 16, "Requests in flight (8)"),
    ROW('W', NULL, NULL, ARG_FLAG, any_order, "Write in any order"),
    NUMBER('r', NULL, "BYTES", ARG_SIZE, rate, 1, 0, "Bytes a second at most"),
    ROW('n', NULL, NULL, ARG_FLAG, no_create, "Write into an image that exists"),
    ROW(0, "target-is-zero", NULL, ARG_FLAG, target_is_zero, "The image that exists reads as zero"),
    ROW(0, "target-image-opts", NULL, ARG_FLAG, target_image_opts,
        "It is named by options: driver=...,file.filename=..."),
    ROW(0, "salvage", NULL, ARG_FLAG, salvage, "Take what cannot be read for zero"),
    ROW(0, "bitmaps", NULL, ARG_FLAG, bitmaps, "Copy the dirty bitmaps too"),
    ROW(0, "skip-broken-bitmaps", NULL, ARG_FLAG, skip_broken,
        "Pass over bitmaps that were left in use"),
    ARG_CACHE,
    ARG_SOURCE_CACHE,
    ARG_SHARE,
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    {0},
};

static const struct verb convert_verb = {
    .name = "convert",
    .summary = "Copy images into a new one",
    .operands = "FILE [FILE ...] NEW",
    .args = convert_args,
    .size = sizeof(struct convert_options),
    .min_operands = 0,
    .max_operands = 4096,
    .run = convert_run,
};
IMG_VERB(convert_verb);
