/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img create: a new, empty image; and the creation that convert and dd begin with (create.h).
 */
#include "img/create.h"

#include "base/units.h"

#include <stdio.h>
#include <string.h>

struct create_options {
    struct img_common common;
    GPtrArray *options;
    const char *backing, *backing_format;
    bool unchecked;
};

/* The order in which qemu-img shows a new image's options, and what it shows of those that were not
 * given. */
static const struct {
    const char *format;
    const char *const *shown;
} shown_formats[] = {
    {"qcow2", (const char *const[]){"encryption",
                                    "encrypt.format",
                                    "encrypt.key-secret",
                                    "encrypt.cipher-alg",
                                    "encrypt.cipher-mode",
                                    "encrypt.ivgen-alg",
                                    "encrypt.ivgen-hash-alg",
                                    "encrypt.hash-alg",
                                    "encrypt.iter-time",
                                    "cluster_size=65536",
                                    "extended_l2=off",
                                    "preallocation",
                                    "compression_type=zlib",
                                    "size",
                                    "compat",
                                    "backing_file",
                                    "backing_fmt",
                                    "data_file",
                                    "data_file_raw",
                                    "lazy_refcounts=off",
                                    "refcount_bits=16",
                                    NULL}},
    {"raw", (const char *const[]){"size", "preallocation", NULL}},
    {"vmdk", (const char *const[]){"size", "adapter_type", "backing_file", "backing_fmt",
                                   "compat6=off", "hwversion=undefined", "toolsversion",
                                   "subformat", "zeroed_grain", NULL}},
    {"vdi", (const char *const[]){"size", "static=off", "preallocation", NULL}},
    {"vpc", (const char *const[]){"size", "subformat", "force_size", NULL}},
    {"vhdx", (const char *const[]){"size", "log_size=1048576", "block_size=0", "subformat",
                                   "block_state_zero", NULL}},
    {"luks", (const char *const[]){"size", "key-secret", "cipher-alg", "cipher-mode", "ivgen-alg",
                                   "ivgen-hash-alg", "hash-alg", "iter-time", NULL}},
};

static const char *const *shown_options(const char *format)
{
    static const char *const usual[] = {"size", "backing_file", "backing_fmt", NULL};
    for (unsigned i = 0; i < ARRAY_COUNT(shown_formats); i++) {
        if (!strcmp(shown_formats[i].format, format))
            return shown_formats[i].shown;
    }
    return usual;
}

/* "encrypt.format" in {"encrypt": {"format": ...}}, or under its whole name. */
static JsonNode *find_member(JsonObject *o, const char *name)
{
    JsonNode *v = json_object_get_member(o, name);
    const char *dot = strchr(name, '.');
    if (v || !dot)
        return v;
    g_autofree char *head = g_strndup(name, (gsize)(dot - name));
    v = json_object_get_member(o, head);
    return v && JSON_NODE_HOLDS_OBJECT(v) ? find_member(json_node_get_object(v), dot + 1) : NULL;
}

/* Commas doubled, sizes as numbers. */
static char *shown_value(const struct image_driver *d, const char *name, const char *text)
{
    uint64_t bytes;
    for (const struct image_option *row = d->create_options; row->name; row++) {
        if (!strcmp(row->name, name) && row->kind == OPTION_SIZE &&
            units_parse_size(text, 1, &bytes))
            return g_strdup_printf("%" PRIu64, bytes);
    }
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);
    return g_strjoinv(",,", parts);
}

static void print_options_line(const struct creation *c)
{
    printf("Formatting '%s', fmt=%s", c->filename, c->driver->name);
    for (const char *const *row = shown_options(c->driver->name); *row; row++) {
        size_t len = strcspn(*row, "=");
        g_autofree char *name = g_strndup(*row, len);
        const char *fallback = (*row)[len] ? *row + len + 1 : NULL;
        JsonNode *given = c->options ? find_member(c->options, name) : NULL;
        const char *value = given ? json_node_get_string(given) : fallback;
        g_autofree char *size = g_strdup_printf("%" PRIu64, c->size_bytes);
        if (!strcmp(name, "size"))
            value = size;
        else if (!strcmp(name, "backing_file"))
            value = c->backing;
        else if (!strcmp(name, "backing_fmt"))
            value = c->backing_format;
        g_autofree char *shown = value ? shown_value(c->driver, name, value) : NULL;
        if (shown)
            printf(" %s=%s", name, shown);
    }
    puts("");
}

/* ---- what convert and dd share ---- */

void creation_clear(struct creation *c)
{
    g_clear_pointer(&c->options, json_object_unref);
    g_clear_pointer(&c->backing, g_free);
    g_clear_pointer(&c->backing_format, g_free);
}

/* Takes a text option out of the object. */
static bool take_text(struct creation *c, const char *name, char **to, GError **error)
{
    JsonNode *v = json_object_get_member(c->options, name);
    if (!v)
        return true;
    if (*to)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s' is given twice: as an option of its own and as -o %s=...",
                           c->filename, name);
    *to = g_strdup(json_node_get_string(v));
    json_object_remove_member(c->options, name);
    return true;
}

bool creation_init(struct creation *c, const char *filename, const char *format, GPtrArray *list,
                   const char *backing, const char *backing_format, GError **error)
{
    *c = (struct creation){.filename = filename, .driver = img_creatable(format, error)};
    if (!c->driver)
        return false;
    g_autofree char *text = args_join(list);
    g_autofree char *size = NULL;
    c->options = text ? option_parse_text(text, NULL, error) : json_object_new();
    c->backing = g_strdup(backing);
    c->backing_format = g_strdup(backing_format);
    bool good = c->options && take_text(c, "backing_file", &c->backing, error) &&
                take_text(c, "backing_fmt", &c->backing_format, error) &&
                take_text(c, "size", &size, error);
    if (good && size) {
        c->size_given = true;
        good = args_size("-o size", size, &c->size_bytes, error);
    }
    if (good && c->backing && !*c->backing)
        g_clear_pointer(&c->backing, g_free);
    if (good && c->backing && !(c->driver->flags & DRIVER_BACKING))
        good = ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "images of format '%s' have no backing file", format);
    if (!good)
        creation_clear(c);
    return good;
}

int creation_print_help(const char *format)
{
    GError *error = NULL;
    const struct image_driver *d = img_creatable(format, &error);
    if (!d)
        return img_fail(error, 1);
    g_autofree char *lines = option_help(d->create_options);
    bool has_size = strstr(lines, "  size=");
    printf("Supported %s options:\n%s%s", d->name, lines, has_size ? "" : IMG_SIZE_HELP);
    return 0;
}

struct node *creation_open_backing(struct img *img, const struct creation *c, unsigned flags,
                                   GError **error)
{
    g_autofree char *folder = g_path_get_dirname(c->filename);
    bool as_is = g_path_is_absolute(c->backing) || strchr(c->backing, ':') || !strcmp(folder, ".");
    g_autofree char *path =
        as_is ? g_strdup(c->backing) : g_build_filename(folder, c->backing, NULL);
    struct node *n =
        img_open_as(img, path, false, c->backing_format, NULL, false, flags | NODE_NO_IO, error);
    if (n && !c->backing_format) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "the format of backing file '%s' is needed: -F FMT (it looks like %s)",
                    c->backing, node_format(n));
        g_clear_pointer(&n, node_unref);
    }
    return n;
}

/* ---- the verb ---- */

static bool find_size(struct img *img, struct creation *c, const char *text, bool unchecked,
                      GError **error)
{
    if (text && !args_size("size", text, &c->size_bytes, error))
        return false;
    bool known = text || c->size_given;
    if (c->backing && (!unchecked || !known)) {
        struct node *n = creation_open_backing(img, c, NODE_NO_BACKING, error);
        if (!n)
            return false;
        if (!known)
            c->size_bytes = align_up(node_size(n), 512);
        node_unref(n);
        known = true;
    }
    if (known && c->size_bytes <= IMAGE_SIZE_MAX)
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID,
                       known ? "'%s': the size is over the limit of 4 EiB"
                             : "'%s': a size is needed, for example 10G",
                       c->filename);
}

static bool create_image(struct img *img, const struct create_options *o, char **operands,
                         unsigned count, GError **error)
{
    struct creation c;
    const char *format = o->common.format ? o->common.format : "raw";
    if (!creation_init(&c, operands[0], format, o->options, o->backing, o->backing_format, error))
        return false;
    bool good = find_size(img, &c, count > 1 ? operands[1] : NULL, o->unchecked, error);
    if (good && !o->common.quiet)
        print_options_line(&c);
    good = good && image_create(img->graph, c.driver, c.filename, align_up(c.size_bytes, 512),
                                c.backing, c.backing_format, c.options, error);
    creation_clear(&c);
    return good;
}

static int create_run(struct img *img, void *options, char **operands, unsigned count)
{
    const struct create_options *o = options;
    GError *error = NULL;
    if (args_wants_help(o->options))
        return creation_print_help(o->common.format ? o->common.format : "raw");
    if (!count)
        ruche_error(&error, RUCHE_ERR_INVALID, "create: the new image's name is needed");
    return count && create_image(img, o, operands, count, &error) ? 0 : img_fail(error, 1);
}

static const struct arg create_args[] = {
    COMMON('f', "format", "FMT", ARG_TEXT, format, "Format of the new image (raw)"),
    ARG_ROW('o', NULL, "OPTIONS", ARG_LIST, struct create_options, options,
            "Options of the format; -o help lists them"),
    ARG_ROW('b', "backing", "FILE", ARG_TEXT, struct create_options, backing,
            "What is not written reads as in this image"),
    ARG_ROW('F', "backing-format", "FMT", ARG_TEXT, struct create_options, backing_format,
            "Format of the backing file"),
    ARG_ROW('u', NULL, NULL, ARG_FLAG, struct create_options, unchecked,
            "Do not look at the backing file"),
    ARG_QUIET,
    ARG_OBJECT,
    {0},
};

static const struct verb create_verb = {
    .name = "create",
    .summary = "Make a new image",
    .operands = "FILE [SIZE]",
    .args = create_args,
    .size = sizeof(struct create_options),
    .min_operands = 0,
    .max_operands = 2,
    .run = create_run,
};
IMG_VERB(create_verb);
