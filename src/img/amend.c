/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img amend: changes format options of an image that exists. */
#include "img/img.h"

#include <stdio.h>
#include <string.h>

struct amend_options {
    struct img_common common;
    GPtrArray *options;
    bool force;
};

static void on_progress(uint64_t done, uint64_t total, void *opaque)
{
    progress_set(done, total);
}

static bool amend_node(struct node *n, const struct amend_options *o, GError **error)
{
    g_autofree char *text = args_join(o->options);
    g_autoptr(JsonObject) given = option_parse_text(text, NULL, error);
    if (!given)
        return false;
    if (!n->driver->amend)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "options of format '%s' cannot be changed afterwards", node_format(n));
    if (o->force)
        json_object_set_boolean_member(given, "force", true);
    struct image_progress p = {.fn = on_progress};
    progress_begin(&o->common);
    bool good = n->driver->amend(n, given, &p, error);
    progress_end(good);
    return good;
}

static int print_options(const struct image_driver *d)
{
    GError *error = NULL;
    if (!d)
        return img_fail(NULL, 1);
    if (!d->amend) {
        ruche_error(&error, RUCHE_ERR_UNSUPPORTED,
                    "options of format '%s' cannot be changed afterwards", d->name);
        return img_fail(error, 1);
    }
    g_autofree char *lines =
        option_help_some(d->create_options, d->amendable, d->amend_options, d->amend_prefix);
    bool has_size = g_strv_contains(d->amendable, "size") && !strstr(lines, "  size=");
    printf("Amend options for '%s':\n%s%s", d->name, lines, has_size ? IMG_SIZE_HELP : "");
    return 0;
}

static int amend_run(struct img *img, void *options, char **operands, unsigned count)
{
    const struct amend_options *o = options;
    GError *error = NULL;
    if (!o->options) {
        ruche_error(&error, RUCHE_ERR_INVALID,
                    "amend: the options to change are needed: -o NAME=VALUE");
        return img_fail(error, 1);
    }
    bool help = args_wants_help(o->options);
    if (help && o->common.format) {
        const struct image_driver *d = driver_find(o->common.format, &error);
        return d ? print_options(d) : img_fail(error, 1);
    }
    if (!count) {
        ruche_error(&error, RUCHE_ERR_INVALID, "amend: the image's name is needed");
        return img_fail(error, 1);
    }
    struct node *n =
        img_open(img, &o->common, operands[0], o->common.format, o->common.cache, NODE_RW, &error);
    if (!n)
        return img_fail(error, 1);
    int code = help ? print_options(n->driver) : amend_node(n, o, &error) ? 0 : 1;
    node_unref(n);
    return error ? img_fail(error, 1) : code;
}

static const struct arg amend_args[] = {
    ARG_FORMAT,
    ARG_CACHE,
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    ARG_ROW('o', NULL, "OPTIONS", ARG_LIST, struct amend_options, options,
            "What to change; -o help lists the options"),
    ARG_ROW(0, "force", NULL, ARG_FLAG, struct amend_options, force,
            "Allow changes that may lose data"),
    {0},
};

static const struct verb amend_verb = {
    .name = "amend",
    .summary = "Change format options of an image",
    .operands = "FILE",
    .args = amend_args,
    .size = sizeof(struct amend_options),
    .min_operands = 0,
    .max_operands = 1,
    .run = amend_run,
};
IMG_VERB(amend_verb);
