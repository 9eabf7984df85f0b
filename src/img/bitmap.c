/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img bitmap: makes, changes and merges the dirty bitmaps that an image keeps. Actions are
 * done in the order of the command line.
 */
#include "image/dirty.h"
#include "img/img.h"

#include <string.h>

struct bitmap_options {
    struct img_common common;
    GArray *actions;
    const char *source, *source_format;
    uint64_t granularity;
};

/* What an action works on. */
struct job {
    struct node *node, *source; /* source: where --merge looks */
    const char *name, *value;
    uint32_t granularity;
};

static struct dirty_bitmap *find(struct node *n, const char *name, unsigned need, GError **error)
{
    struct dirty_bitmap *b = dirty_find(n, name);
    if (!b)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "'%s' has no bitmap '%s'", node_filename(n), name);
    return b && dirty_usable(b, need, error) ? b : NULL;
}

static bool add(const struct job *j, GError **error)
{
    struct node *n = j->node;
    if (dirty_find(n, j->name))
        return ruche_error(error, RUCHE_ERR_EXISTS, "'%s' has a bitmap '%s' already",
                           node_filename(n), j->name);
    if (!n->driver->bitmap_can_store)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "images of format '%s' keep no bitmaps",
                           node_format(n));
    struct dirty_bitmap *b = dirty_new(n, node_size(n), j->name, j->granularity, error);
    if (!b)
        return false;
    /* Not yet among those to keep while the driver counts them. */
    if (!n->driver->bitmap_can_store(n, j->name, b->granularity, error)) {
        dirty_free(b);
        return false;
    }
    b->persistent = true;
    return true;
}

static bool forget(const struct job *j, GError **error)
{
    struct dirty_bitmap *b = find(j->node, j->name, DIRTY_NEED_IDLE, error);
    if (!b)
        return false;
    if (b->persistent && j->node->driver->bitmap_forget &&
        !j->node->driver->bitmap_forget(j->node, j->name, error))
        return false;
    b = dirty_find(j->node, j->name);
    if (b)
        dirty_free(b);
    return true;
}

#define NEED_ALL (DIRTY_NEED_IDLE | DIRTY_NEED_WRITABLE | DIRTY_NEED_CONSISTENT)

static bool clear(const struct job *j, GError **error)
{
    struct dirty_bitmap *b = find(j->node, j->name, NEED_ALL, error);
    if (b)
        dirty_clear(b);
    return b;
}

static bool set_enabled(const struct job *j, bool on, GError **error)
{
    struct dirty_bitmap *b = find(j->node, j->name, NEED_ALL, error);
    if (b)
        b->enabled = on;
    return b;
}

static bool enable(const struct job *j, GError **error)
{
    return set_enabled(j, true, error);
}

static bool disable(const struct job *j, GError **error)
{
    return set_enabled(j, false, error);
}

static bool merge(const struct job *j, GError **error)
{
    struct dirty_bitmap *to = find(j->node, j->name, NEED_ALL, error);
    struct dirty_bitmap *from = to ? find(j->source, j->value, DIRTY_NEED_CONSISTENT, error) : NULL;
    return from && dirty_merge(to, from, error);
}

static const struct {
    const char *name;
    bool (*fn)(const struct job *j, GError **error);
} actions[] = {
    {"add", add},       {"remove", forget},   {"clear", clear},
    {"enable", enable}, {"disable", disable}, {"merge", merge},
};

static bool do_action(struct job *j, const struct arg_action *a, GError **error)
{
    j->value = a->value;
    for (unsigned i = 0; i < ARRAY_COUNT(actions); i++) {
        if (strcmp(actions[i].name, a->arg->name))
            continue;
        if (actions[i].fn(j, error))
            return true;
        g_prefix_error(error, "--%s of bitmap '%s': ", a->arg->name, j->name);
        return false;
    }
    return false;
}

static bool do_all(struct img *img, const struct bitmap_options *o, char **operands, GError **error)
{
    struct node *n = img_open(img, &o->common, operands[0], o->common.format, NULL, NODE_RW, error);
    if (!n)
        return false;
    struct node *source = n;
    if (o->source)
        source = img_open_as(img, o->source, false, o->source_format, NULL, false, 0, error);
    struct job j = {
        .node = n, .source = source, .name = operands[1], .granularity = (uint32_t)o->granularity};
    bool good = source;
    for (guint i = 0; good && i < o->actions->len; i++)
        good = do_action(&j, &g_array_index(o->actions, struct arg_action, i), error);
    if (source != n)
        node_unref(source);
    node_unref(n); /* stores them */
    return good;
}

/* What the options say that the table cannot. */
static bool check_options(const struct bitmap_options *o, GError **error)
{
    unsigned adds = 0, merges = 0;
    for (guint i = 0; o->actions && i < o->actions->len; i++) {
        const struct arg_action *a = &g_array_index(o->actions, struct arg_action, i);
        adds += !strcmp(a->arg->name, "add");
        merges += !strcmp(a->arg->name, "merge");
    }
    if (!o->actions)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "bitmap: one of --add, --remove, --clear, --enable, --disable, --merge is needed");
    if (o->granularity && !adds)
        return ruche_error(error, RUCHE_ERR_INVALID, "bitmap: -g is only for --add");
    if (o->granularity && !is_power_of_2(o->granularity))
        return ruche_error(error, RUCHE_ERR_INVALID, "bitmap: -g %" PRIu64 " is not a power of two",
                           o->granularity);
    if (o->source && !merges)
        return ruche_error(error, RUCHE_ERR_INVALID, "bitmap: -b is only for --merge");
    if (o->source_format && !o->source)
        return ruche_error(error, RUCHE_ERR_INVALID, "bitmap: -F needs -b");
    return true;
}

static int bitmap_run(struct img *img, void *options, char **operands, unsigned count)
{
    const struct bitmap_options *o = options;
    GError *error = NULL;
    if (!check_options(o, &error) || !do_all(img, o, operands, &error))
        return img_fail(error, 1);
    return 0;
}

#define ACTION(n, m, text) ARG_ROW(0, n, m, ARG_ACTION, struct bitmap_options, actions, text)
static const struct arg bitmap_args[] = {
    ACTION("add", NULL, "Make the bitmap"),
    ACTION("remove", NULL, "Remove it"),
    ACTION("clear", NULL, "Forget what it has recorded"),
    ACTION("enable", NULL, "Record writes from now on"),
    ACTION("disable", NULL, "Record no further writes"),
    ACTION("merge", "SOURCE", "Add what another bitmap has recorded"),
    ARG_ROW('b', "source-file", "FILE", ARG_TEXT, struct bitmap_options, source,
            "The image that --merge takes from"),
    ARG_ROW('F', "source-format", "FMT", ARG_TEXT, struct bitmap_options, source_format,
            "Its format"),
    {.letter = 'g',
     .name = "granularity",
     .metavar = "BYTES",
     .kind = ARG_SIZE,
     .min = 512,
     .max = 2 * GIB,
     .offset = offsetof(struct bitmap_options, granularity),
     .help = "For --add: a power of two"},
    ARG_FORMAT,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    {0},
};

static const struct verb bitmap_verb = {
    .name = "bitmap",
    .summary = "Change the dirty bitmaps of an image",
    .operands = "FILE BITMAP",
    .args = bitmap_args,
    .size = sizeof(struct bitmap_options),
    .min_operands = 2,
    .max_operands = 2,
    .run = bitmap_run,
};
IMG_VERB(bitmap_verb);
