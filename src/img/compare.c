/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img compare: do two images read the same.
 *
 * Exit code 0: identical, 1: different, 2: an image cannot be opened, 3: a map cannot be read, 4:
 * data cannot.
 */
#include "img/img.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct compare_options {
    struct img_common common;
    const char *second_format;
    bool strict;
};

#define PIECE    (512 * KIB)
#define SECTOR   512
#define WORKERS  8
#define MAP_STEP (1 * GIB)
enum { EXIT_SAME, EXIT_DIFFERENT, EXIT_OPEN, EXIT_MAP, EXIT_READ };

struct compare {
    struct node *a, *b; /* b NULL: a must be zero */
    bool strict;
    struct fiber_mutex taking;
    uint64_t next, end, known_end, total;
    bool alike;     /* [next, known_end) is zero in both */
    uint64_t first; /* lowest byte that differs so far; UINT64_MAX: none */
    bool by_map;    /* ... and that is the map's difference (strict) */
    int code;
    GError *error;
};

static void fail(struct compare *c, struct node *n, uint64_t at, int err, int code)
{
    if (!c->error)
        ruche_error_errno(&c->error, err, "'%s': reading %s at byte %" PRIu64, node_filename(n),
                          code == EXIT_MAP ? "the map" : "data", at);
    c->code = code;
}

static void differ(struct compare *c, uint64_t at, bool by_map)
{
    if (at >= c->first)
        return;
    c->first = at;
    c->by_map = by_map;
}

static bool map_of(struct compare *c, struct node *n, uint64_t at, struct image_extent *e)
{
    unsigned depth;
    uint64_t len = min_u64(min_u64(c->end, node_size(n)) - at, MAP_STEP);
    int r = node_map_chain(n, NULL, at, len, e, &depth);
    if (r < 0)
        fail(c, n, at, -r, EXIT_MAP);
    return r >= 0;
}

/* What is told apart in strict mode. */
static unsigned strict_flags(unsigned flags)
{
    return flags & (EXTENT_DATA | EXTENT_ZERO | EXTENT_ALLOCATED | EXTENT_OFFSET | EXTENT_EOF);
}

static bool look(struct compare *c)
{
    struct image_extent ea, eb = {.len = UINT64_MAX, .flags = EXTENT_ZERO};
    if (!map_of(c, c->a, c->next, &ea) || (c->b && !map_of(c, c->b, c->next, &eb)))
        return false;
    if (c->strict && c->b && strict_flags(ea.flags) != strict_flags(eb.flags)) {
        differ(c, c->next, true);
        return false;
    }
    c->known_end = c->next + min_u64(ea.len, eb.len);
    c->alike = ea.flags & eb.flags & EXTENT_ZERO;
    return true;
}

/* The next bytes to read; false: nothing is left that matters. */
static bool take(struct compare *c, uint64_t *ret_off, uint64_t *ret_len)
{
    bool found = false;
    fiber_mutex_lock(&c->taking);
    while (!found && !c->error && c->next < c->end && c->first == UINT64_MAX) {
        if (c->next >= c->known_end && !look(c))
            break;
        found = !c->alike;
        *ret_off = c->next;
        *ret_len = found ? min_u64(c->known_end - c->next, PIECE) : c->known_end - c->next;
        c->next += *ret_len;
        progress_set(c->next, c->total);
    }
    fiber_mutex_unlock(&c->taking);
    return found;
}

/* First byte of the first sector that differs; len: none. `b` NULL: from zero. */
static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t len)
{
    if (b ? !memcmp(a, b, len) : bytes_are_zero(a, len))
        return len;
    for (uint64_t at = 0; at < len; at += SECTOR) {
        uint64_t part = min_u64(SECTOR, len - at);
        if (b ? memcmp(a + at, b + at, part) != 0 : !bytes_are_zero(a + at, part))
            return at;
    }
    return len;
}

static void compare_piece(struct compare *c, uint64_t off, uint64_t len, uint8_t *buf)
{
    int r = node_pread(c->a, off, buf, len);
    if (r < 0) {
        fail(c, c->a, off, -r, EXIT_READ);
        return;
    }
    r = c->b ? node_pread(c->b, off, buf + PIECE, len) : 0;
    if (r < 0) {
        fail(c, c->b, off, -r, EXIT_READ);
        return;
    }
    uint64_t at = first_difference(buf, c->b ? buf + PIECE : NULL, len);
    if (at < len)
        differ(c, off + at, false);
}

static void worker(void *opaque)
{
    struct compare *c = opaque;
    uint64_t off, len;
    uint8_t *buf;
    if (posix_memalign((void **)&buf, 4096, 2 * PIECE)) {
        fail(c, c->a, 0, ENOMEM, EXIT_READ);
        return;
    }
    while (take(c, &off, &len))
        compare_piece(c, off, len, buf);
    free(buf);
}

/* [begin, end) of both, or of a against zero. */
static int compare_range(struct compare *c, uint64_t begin, uint64_t end, bool quiet)
{
    c->next = c->known_end = begin;
    c->end = end;
    c->first = UINT64_MAX;
    img_parallel(WORKERS, worker, c);
    if (c->error)
        return c->code;
    if (c->first == UINT64_MAX)
        return EXIT_SAME;
    if (!quiet && c->by_map)
        printf("Strict mode: Offset %" PRIu64 " block status mismatch!\n", c->first);
    else if (!quiet)
        printf("Content mismatch at offset %" PRIu64 "!\n", c->first);
    return EXIT_DIFFERENT;
}

static int compare_nodes(struct node *a, struct node *b, const struct compare_options *o,
                         GError **error)
{
    bool quiet = o->common.quiet;
    /* Sizes are seen in sectors, as guests see them. */
    uint64_t size_a = align_up(node_size(a), SECTOR), size_b = align_up(node_size(b), SECTOR);
    uint64_t both = min_u64(node_size(a), node_size(b));
    if (o->strict && size_a != size_b) {
        if (!quiet)
            puts("Strict mode: Image size mismatch!");
        return EXIT_DIFFERENT;
    }
    struct compare c = {
        .a = a, .b = b, .strict = o->strict, .total = max_u64(node_size(a), node_size(b))};
    int code = compare_range(&c, 0, both, quiet);
    struct node *larger = node_size(a) > node_size(b) ? a : b;
    if (code == EXIT_SAME && node_size(larger) > both) {
        if (!quiet && size_a != size_b)
            puts("Warning: Image size mismatch!");
        c.a = larger;
        c.b = NULL;
        code = compare_range(&c, both, node_size(larger), quiet);
    }
    if (c.error)
        g_propagate_error(error, c.error);
    else if (code == EXIT_SAME && !quiet)
        puts("Images are identical.");
    return code;
}

static int compare_run(struct img *img, void *options, char **operands, unsigned count)
{
    const struct compare_options *o = options;
    const struct img_common *common = &o->common;
    GError *error = NULL;
    int code = EXIT_OPEN;
    struct node *a =
        img_open(img, common, operands[0], common->format, common->source_cache, 0, &error);
    struct node *b =
        a ? img_open(img, common, operands[1], o->second_format, common->source_cache, 0, &error)
          : NULL;
    if (b) {
        progress_begin(common);
        code = compare_nodes(a, b, o, &error);
        progress_end(true);
    }
    node_unref(b);
    node_unref(a);
    return error ? img_fail(error, code) : code;
}

static const struct arg compare_args[] = {
    ARG_FORMAT,
    ARG_ROW('F', NULL, "FMT", ARG_TEXT, struct compare_options, second_format,
            "Format of the second image"),
    ARG_ROW('s', NULL, NULL, ARG_FLAG, struct compare_options, strict,
            "Sizes and zeroes must agree too"),
    ARG_SOURCE_CACHE,
    ARG_PROGRESS,
    ARG_QUIET,
    ARG_SHARE,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    {0},
};

static const struct verb compare_verb = {
    .name = "compare",
    .summary = "Compare the contents of two images",
    .operands = "FILE1 FILE2",
    .args = compare_args,
    .size = sizeof(struct compare_options),
    .min_operands = 2,
    .max_operands = 2,
    .notes = "Exit codes: 0 identical, 1 different, 2 an image cannot be opened, 3 a map cannot\n"
             "be read, 4 data cannot be read.\n",
    .run = compare_run,
};
IMG_VERB(compare_verb);
