/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img measure: how large a new image would become. */
#include "img/create.h"
#include "img/source.h"

#include <stdio.h>

struct measure_options {
    struct img_common common;
    GPtrArray *options;
    const char *target_format, *snapshot;
    const char *size;
};

static void print_result(const struct image_measure *m, int output)
{
    bool bitmaps = m->bitmaps != UINT64_MAX;
    if (output == OUTPUT_JSON) {
        JsonObject *o = json_object_new();
        if (bitmaps)
            json_object_set_int_member(o, "bitmaps", (int64_t)m->bitmaps);
        json_object_set_int_member(o, "required", (int64_t)m->required);
        json_object_set_int_member(o, "fully-allocated", (int64_t)m->fully_allocated);
        img_print_json(img_json_object(o));
        return;
    }
    printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", m->required,
           m->fully_allocated);
    if (bitmaps)
        printf("bitmaps size: %" PRIu64 "\n", m->bitmaps);
}

/* The format's own arithmetic. source NULL: an empty image of size_bytes. */
static bool measure_target(const struct creation *c, uint64_t size_bytes, struct node *source,
                           struct image_measure *ret, GError **error)
{
    const struct image_driver *d = c->driver;
    if (!d->measure)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "images of format '%s' cannot be measured beforehand", d->name);
    g_autofree void *values = g_malloc0(d->create_size);
    if (!option_parse(d->create_options, c->options, "-o", values, error))
        return false;
    *ret = (struct image_measure){.bitmaps = UINT64_MAX};
    bool good = option_all_used(c->options, d->create_options, NULL, "-o", error) &&
                d->measure(values, size_bytes, source, ret, error);
    option_clear(d->create_options, values);
    return good;
}

static bool measure_image(struct img *img, const struct measure_options *o, char **operands,
                          unsigned count, struct image_measure *ret, GError **error)
{
    uint64_t size = 0;
    if ((count == 1) == (o->size != NULL))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "measure: either --size or an image's name is needed, not %s",
                           count ? "both" : "neither");
    if (o->size && !args_size("--size", o->size, &size, error))
        return false;
    struct creation c;
    if (!creation_init(&c, "", o->target_format ? o->target_format : "raw", o->options, NULL, NULL,
                       error))
        return false;
    struct node *source = NULL;
    bool good = true;
    if (count) {
        source = img_open(img, &o->common, operands[0], o->common.format, NULL, 0, error);
        good = source && (!o->snapshot || source_show_snapshot(source, o->snapshot, error));
        size = good ? node_size(source) : 0;
    }
    good = good && measure_target(&c, align_up(size, 512), source, ret, error);
    node_unref(source);
    creation_clear(&c);
    return good;
}

static int measure_run(struct img *img, void *options, char **operands, unsigned count)
{
    const struct measure_options *o = options;
    GError *error = NULL;
    struct image_measure m;
    if (args_wants_help(o->options))
        return creation_print_help(o->target_format ? o->target_format : "raw");
    if (!measure_image(img, o, operands, count, &m, &error))
        return img_fail(error, 1);
    print_result(&m, o->common.output);
    return 0;
}

static const struct arg measure_args[] = {
    ARG_ROW('O', NULL, "FMT", ARG_TEXT, struct measure_options, target_format,
            "Format of the new image (raw)"),
    ARG_ROW('o', NULL, "OPTIONS", ARG_LIST, struct measure_options, options,
            "Its options; -o help lists them"),
    ARG_ROW(0, "size", "BYTES", ARG_TEXT, struct measure_options, size,
            "Size of an empty image, in place of FILE"),
    ARG_ROW('l', NULL, "SNAPSHOT", ARG_TEXT, struct measure_options, snapshot,
            "What the snapshot of FILE holds"),
    ARG_FORMAT,
    ARG_OUTPUT,
    ARG_SHARE,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    {0},
};

static const struct verb measure_verb = {
    .name = "measure",
    .summary = "Tell how large a new image would become",
    .operands = "[FILE]",
    .args = measure_args,
    .size = sizeof(struct measure_options),
    .min_operands = 0,
    .max_operands = 1,
    .run = measure_run,
};
IMG_VERB(measure_verb);
