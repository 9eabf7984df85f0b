/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img snapshot: lists, makes, applies and deletes snapshots inside an image. */
#include "img/img.h"

#include <stdio.h>
#include <string.h>

struct snapshot_options {
    struct img_common common;
    GArray *actions;
};

static bool unsupported(struct node *n, GError **error)
{
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "images of format '%s' have no snapshots inside", node_format(n));
}

static bool list(struct node *n, const char *unused, GError **error)
{
    struct snapshot_info *all = NULL;
    unsigned count = 0;
    int r = n->driver->snapshot_list ? n->driver->snapshot_list(n, &all, &count) : 0;
    if (r < 0)
        return ruche_error_errno(error, -r, "'%s': the snapshots cannot be read", node_filename(n));
    img_print_snapshots(all, count);
    img_free_snapshots(all, count);
    return true;
}

static bool create(struct node *n, const char *name, GError **error)
{
    if (!n->driver->snapshot_create)
        return unsupported(n, error);
    int64_t now_us = g_get_real_time();
    struct snapshot_info s = {
        .name = (char *)name,
        .size_bytes = node_size(n),
        .date_sec = (uint64_t)(now_us / G_USEC_PER_SEC),
        .date_nsec = (uint32_t)(now_us % G_USEC_PER_SEC * 1000),
    };
    return n->driver->snapshot_create(n, &s, error);
}

static bool apply(struct node *n, const char *name, GError **error)
{
    return n->driver->snapshot_apply ? n->driver->snapshot_apply(n, name, error)
                                     : unsupported(n, error);
}

static bool delete (struct node *n, const char *name, GError **error)
{
    return n->driver->snapshot_delete ? n->driver->snapshot_delete(n, name, error)
                                      : unsupported(n, error);
}

static const struct action {
    char letter;
    bool writes;
    bool (*fn)(struct node *n, const char *name, GError **error);
} actions[] = {
    {'l', false, list},
    {'c', true, create},
    {'a', true, apply},
    {'d', true, delete},
};

static const struct action *find_action(char letter)
{
    for (unsigned i = 0; i < ARRAY_COUNT(actions); i++) {
        if (actions[i].letter == letter)
            return &actions[i];
    }
    return &actions[0];
}

static int snapshot_run(struct img *img, void *options, char **operands, unsigned count)
{
    const struct snapshot_options *o = options;
    GError *error = NULL;
    if (o->actions && o->actions->len > 1) {
        ruche_error(&error, RUCHE_ERR_INVALID,
                    "snapshot: only one of -l, -c, -a and -d can be done at a time");
        return img_fail(error, 1);
    }
    const struct arg_action *asked =
        o->actions ? &g_array_index(o->actions, struct arg_action, 0) : NULL;
    const struct action *a = asked ? find_action(asked->arg->letter) : NULL;
    unsigned flags = NODE_NO_BACKING | (a && a->writes ? NODE_RW : 0);
    struct node *n = img_open(img, &o->common, operands[0], o->common.format, NULL, flags, &error);
    if (!n)
        return img_fail(error, 1);
    bool good = !a || a->fn(n, asked->value, &error);
    node_unref(n);
    return good ? 0 : img_fail(error, 1);
}

#define ACTION(l, m, text) ARG_ROW(l, NULL, m, ARG_ACTION, struct snapshot_options, actions, text)
static const struct arg snapshot_args[] = {
    ACTION('l', NULL, "List the snapshots"),
    ACTION('c', "NAME", "Make a snapshot"),
    ACTION('a', "NAME", "Put the image back to what the snapshot (name or id) holds"),
    ACTION('d', "NAME", "Delete the snapshot (name or id)"),
    ARG_FORMAT,
    ARG_QUIET,
    ARG_SHARE,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    {0},
};

static const struct verb snapshot_verb = {
    .name = "snapshot",
    .summary = "List, make, apply and delete snapshots inside an image",
    .operands = "FILE",
    .args = snapshot_args,
    .size = sizeof(struct snapshot_options),
    .min_operands = 1,
    .max_operands = 1,
    .run = snapshot_run,
};
IMG_VERB(snapshot_verb);
