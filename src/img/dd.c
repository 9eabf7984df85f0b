/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img dd: a part of an image into a new one, in dd(1)'s words. */
#include "base/units.h"
#include "img/copy.h"
#include "img/target.h"

#include <string.h>

struct dd_options {
    struct img_common common;
    const char *target_format;
};

struct words {
    const char *in, *out;
    uint64_t block_bytes, count, skip;
    bool count_given;
};

static bool size_word(const char *name, const char *text, uint64_t lo, uint64_t hi, uint64_t *ret,
                      GError **error)
{
    if (units_parse_size(text, 1, ret) && *ret >= lo && *ret <= hi)
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "dd: %s=%s is not a number from %" PRIu64 " to %" PRIu64, name, text, lo,
                       hi);
}

static bool read_word(char *word, struct words *w, GError **error)
{
    static const char *const names[] = {"bs", "count", "if", "of", "skip", NULL};
    char *value = strchr(word, '=');
    g_autofree char *name = g_strndup(word, value ? (gsize)(value - word) : strlen(word));
    if (!value || !g_strv_contains(names, name))
        return ruche_error(error, RUCHE_ERR_UNKNOWN,
                           "dd: '%s' is none of bs=, count=, if=, of=, skip=%s", word,
                           suggest_phrase(name, names));
    value++;
    if (!strcmp(name, "if"))
        w->in = value;
    else if (!strcmp(name, "of"))
        w->out = value;
    else if (!strcmp(name, "bs"))
        return size_word(name, value, 1, INT32_MAX, &w->block_bytes, error);
    else if (!strcmp(name, "skip"))
        return size_word(name, value, 0, INT64_MAX, &w->skip, error);
    else
        return (w->count_given = size_word(name, value, 0, INT64_MAX, &w->count, error));
    return true;
}

static bool read_words(char **operands, unsigned count, struct words *w, GError **error)
{
    *w = (struct words){.block_bytes = 512};
    for (unsigned i = 0; i < count; i++) {
        if (!read_word(operands[i], w, error))
            return false;
    }
    return (w->in && w->out) ||
           ruche_error(error, RUCHE_ERR_INVALID, "dd: both if= and of= are needed");
}

/* `count` blocks of the source, the first `skip` of which are left out, as qemu-img counts them. */
static void choose_part(const struct words *w, uint64_t size, uint64_t *ret_off, uint64_t *ret_len)
{
    __uint128_t count = (__uint128_t)w->count * w->block_bytes,
                skip = (__uint128_t)w->skip * w->block_bytes;
    uint64_t end = w->count_given && count < size ? (uint64_t)count : size;
    *ret_off = skip < end ? (uint64_t)skip : end;
    *ret_len = end - *ret_off;
}

static bool copy_part(struct img *img, const struct words *w, struct node *source,
                      struct creation *c, GError **error)
{
    struct copy_source s = {.node = source};
    choose_part(w, align_up(node_size(source), 512), &s.offset, &s.len);
    if (!s.len && w->skip)
        img_warn("'%s': nothing is left after %" PRIu64 " blocks of %" PRIu64 " bytes", w->in,
                 w->skip, w->block_bytes);
    c->size_bytes = align_up(s.len, 512);
    struct target t;
    if (!target_new(img, c, "writeback", &t, error))
        return false;
    struct copy copy = {
        .sources = &s,
        .source_count = 1,
        .target = t.node,
        .size_bytes = s.len,
        .reads_zero = t.node->zero_init,
        .one_by_one = c->driver->flags & DRIVER_SEQUENTIAL,
        .min_sparse = 4096,
    };
    return target_finish(&t, copy_run(&copy, error), error);
}

static int dd_run(struct img *img, void *options, char **operands, unsigned count)
{
    const struct dd_options *o = options;
    GError *error = NULL;
    struct words w;
    struct creation c = {0};
    if (!read_words(operands, count, &w, &error))
        return img_fail(error, 1);
    struct node *source = img_open(img, &o->common, w.in, o->common.format, NULL, 0, &error);
    bool good = source &&
                creation_init(&c, w.out, o->target_format ? o->target_format : "raw", NULL, NULL,
                              NULL, &error) &&
                copy_part(img, &w, source, &c, &error);
    creation_clear(&c);
    node_unref(source);
    return good ? 0 : img_fail(error, 1);
}

static const struct arg dd_args[] = {
    ARG_FORMAT,
    ARG_ROW('O', NULL, "FMT", ARG_TEXT, struct dd_options, target_format,
            "Format of the new image (raw)"),
    ARG_SHARE,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    {0},
};

static const struct verb dd_verb = {
    .name = "dd",
    .summary = "Copy a part of an image into a new one",
    .operands = "[bs=BYTES] [count=BLOCKS] [skip=BLOCKS] if=FILE of=NEW",
    .args = dd_args,
    .size = sizeof(struct dd_options),
    .min_operands = 1,
    .max_operands = 64,
    .run = dd_run,
};
IMG_VERB(dd_verb);
