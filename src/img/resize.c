/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img resize: grows an image, or shrinks it when told that this is meant. */
#include "img/img.h"

#include <stdio.h>

struct resize_options {
    struct img_common common;
    int prealloc;
    bool shrink;
};

/* "10G", "+1G" or "-1G", from `now`. */
static bool new_size(const char *text, uint64_t now, uint64_t *ret, GError **error)
{
    char sign = *text == '+' || *text == '-' ? *text : 0;
    uint64_t v;
    if (!args_size("size", text + (sign != 0), &v, error))
        return false;
    if (sign == '-' && v >= now)
        return ruche_error(error, RUCHE_ERR_INVALID, "size: %s leaves nothing of %" PRIu64 " bytes",
                           text, now);
    if (sign == '+' && v > IMAGE_SIZE_MAX - now)
        return ruche_error(error, RUCHE_ERR_INVALID, "size: %s is over the limit of 4 EiB", text);
    v = sign == '-' ? now - v : sign == '+' ? now + v : v;
    if (!v || v > IMAGE_SIZE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "size: %s is not between 1 byte and 4 EiB",
                           text);
    *ret = align_up(v, 512);
    return true;
}

static bool resize_node(struct node *n, const struct resize_options *o, const char *text,
                        GError **error)
{
    uint64_t now = node_size(n), size = 0;
    if (!new_size(text, now, &size, error))
        return false;
    if (size < now && !o->shrink)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s' has %" PRIu64 " bytes, %" PRIu64
                           " are asked for: what lies beyond would be lost; "
                           "--shrink says that this is meant",
                           node_filename(n), now, size);
    if (size < now && o->prealloc != PREALLOC_OFF)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "--preallocation is for growing, not for shrinking");
    return node_resize(n, size, (enum image_prealloc)o->prealloc, error);
}

static int resize_run(struct img *img, void *options, char **operands, unsigned count)
{
    const struct resize_options *o = options;
    GError *error = NULL;
    struct node *n =
        img_open(img, &o->common, operands[0], o->common.format, NULL, NODE_RW, &error);
    if (!n)
        return img_fail(error, 1);
    bool good = resize_node(n, o, operands[1], &error);
    node_unref(n);
    if (!good)
        return img_fail(error, 1);
    if (!o->common.quiet)
        puts("Image resized.");
    return 0;
}

static const struct arg resize_args[] = {
    ARG_FORMAT,
    ARG_QUIET,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    ARG_ROW(0, "shrink", NULL, ARG_FLAG, struct resize_options, shrink,
            "Allow the image to lose its end"),
    {.name = "preallocation",
     .metavar = "MODE",
     .kind = ARG_WORD,
     .words = image_prealloc_words,
     .offset = offsetof(struct resize_options, prealloc),
     .help = "For the new part: off, metadata, falloc or full"},
    {0},
};

static const struct verb resize_verb = {
    .name = "resize",
    .summary = "Change the size of an image",
    .operands = "FILE [+|-]SIZE",
    .args = resize_args,
    .size = sizeof(struct resize_options),
    .min_operands = 2,
    .max_operands = 2,
    .bare_last = true,
    .run = resize_run,
};
IMG_VERB(resize_verb);
