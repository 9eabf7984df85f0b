/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img map: where the bytes of an image lie, down its chain of backing files.
 *
 * Human form: only what can be found as plain bytes in a file. JSON: everything, one line each, as
 * qemu-img prints it.
 */
#include "img/img.h"

#include <stdio.h>
#include <string.h>

struct map_options {
    struct img_common common;
    uint64_t start, max_length;
};

struct map_entry {
    uint64_t start, len;
    unsigned depth, flags;
    struct node *host;
    uint64_t host_offset;
};

#define MAP_STEP    (1 * GIB)
#define SHOWN_FLAGS (EXTENT_DATA | EXTENT_ZERO | EXTENT_ALLOCATED | EXTENT_OFFSET)

/* The next run of bytes that are alike: the first image of the chain that says what they are. */
static int next_entry(struct node *top, uint64_t off, uint64_t len, struct map_entry *ret)
{
    *ret = (struct map_entry){.start = off};
    struct node *n = node_skip_filters(top);
    for (;; ret->depth++) {
        struct image_extent e;
        int r = node_map(n, off, len, &e);
        if (r < 0)
            return r;
        len = e.len;
        struct node *below = node_backing(n);
        bool known = e.flags & (EXTENT_DATA | EXTENT_ZERO | EXTENT_ALLOCATED);
        bool past = below && off >= node_size(below);
        if (known || !below || past) {
            ret->flags = (e.flags & SHOWN_FLAGS) | (known ? 0 : EXTENT_ZERO);
            ret->host = e.flags & EXTENT_OFFSET ? e.host : NULL;
            ret->host_offset = e.flags & EXTENT_OFFSET ? e.host_offset : 0;
            break;
        }
        len = min_u64(len, node_size(below) - off);
        n = node_skip_filters(below);
    }
    ret->len = len;
    return 0;
}

static bool continues(const struct map_entry *a, const struct map_entry *b)
{
    return a->flags == b->flags && a->depth == b->depth && a->host == b->host &&
           (!(a->flags & EXTENT_OFFSET) || a->host_offset + a->len == b->host_offset);
}

static bool print_human(const struct map_entry *e, GError **error)
{
    if (!(e->flags & EXTENT_DATA) || e->flags & EXTENT_ZERO)
        return true;
    if (!(e->flags & EXTENT_OFFSET))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "bytes from %" PRIu64
                           " on are compressed, encrypted or not in a file; --output=json "
                           "shows them",
                           e->start);
    const char *name = e->host ? node_filename(e->host) : "";
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", e->start, e->len, e->host_offset,
           name);
    return true;
}

static const char *boolean(unsigned on)
{
    return on ? "true" : "false";
}

static void print_json(const struct map_entry *e, bool first)
{
    printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
           ", \"depth\": %u, \"present\": %s, \"zero\": %s, "
           "\"data\": %s",
           first ? "" : ",\n", e->start, e->len, e->depth, boolean(e->flags & EXTENT_ALLOCATED),
           boolean(e->flags & EXTENT_ZERO), boolean(e->flags & EXTENT_DATA));
    if (e->flags & EXTENT_OFFSET)
        printf(", \"offset\": %" PRIu64, e->host_offset);
    fputs("}", stdout);
}

static bool print_entry(const struct map_entry *e, const struct map_options *o, bool *first,
                        GError **error)
{
    if (!e->len)
        return true;
    if (o->common.output == OUTPUT_HUMAN)
        return print_human(e, error);
    print_json(e, *first);
    *first = false;
    return true;
}

static bool map_range(struct node *n, const struct map_options *o, uint64_t off, uint64_t end,
                      GError **error)
{
    struct map_entry pending = {0}, e;
    bool first = true;
    for (; off < end; off += e.len) {
        int r = next_entry(n, off, min_u64(end - off, MAP_STEP), &e);
        if (r < 0)
            return ruche_error_errno(error, -r, "'%s': the map at byte %" PRIu64 " cannot be read",
                                     node_filename(n), off);
        if (pending.len && continues(&pending, &e)) {
            pending.len += e.len;
            continue;
        }
        if (!print_entry(&pending, o, &first, error))
            return false;
        pending = e;
    }
    if (first && !pending.len && o->common.output == OUTPUT_JSON)
        print_json(&(struct map_entry){.start = o->start},
                   true); /* nothing is shown as one empty entry */
    return print_entry(&pending, o, &first, error);
}

static bool map_node(struct node *n, const struct map_options *o, GError **error)
{
    uint64_t size = align_up(node_size(n), 512), real = node_size(n);
    uint64_t start = min_u64(o->start, real);
    uint64_t end = o->max_length && o->max_length < size - start ? start + o->max_length : real;
    bool json = o->common.output == OUTPUT_JSON;
    fputs(json ? "[" : "", stdout);
    if (!json)
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    bool good = map_range(n, o, start, min_u64(end, real), error);
    if (json)
        puts("]");
    return good;
}

static int map_run(struct img *img, void *options, char **operands, unsigned count)
{
    const struct map_options *o = options;
    GError *error = NULL;
    struct node *n = img_open(img, &o->common, operands[0], o->common.format, NULL, 0, &error);
    if (!n)
        return img_fail(error, 1);
    bool good = map_node(n, o, &error);
    node_unref(n);
    return good ? 0 : img_fail(error, 1);
}

static const struct arg map_args[] = {
    ARG_FORMAT,
    ARG_OUTPUT,
    ARG_SHARE,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    {.letter = 's',
     .name = "start-offset",
     .metavar = "BYTES",
     .kind = ARG_SIZE,
     .offset = offsetof(struct map_options, start),
     .help = "Where to begin"},
    {.letter = 'l',
     .name = "max-length",
     .metavar = "BYTES",
     .kind = ARG_SIZE,
     .offset = offsetof(struct map_options, max_length),
     .help = "How much to show"},
    {0},
};

static const struct verb map_verb = {
    .name = "map",
    .summary = "Show where the bytes of an image lie",
    .operands = "FILE",
    .args = map_args,
    .size = sizeof(struct map_options),
    .min_operands = 1,
    .max_operands = 1,
    .run = map_run,
};
IMG_VERB(map_verb);
