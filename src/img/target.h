/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A new image that appears whole: made and filled under temporary names, moved when all is well.
 *
 * Owner     target_new() ... target_finish(); img owns the node meanwhile.
 * Fiber     All of it.
 */
#pragma once

#include "img/create.h"

struct target {
    struct node *node; /* opened for writing */
    struct graph *graph;
    struct image_files *files; /* NULL: an image that existed, kept whatever happens */
    const char *name;          /* the final one */
    bool sync;                 /* on disk before it appears */
};

/* Makes the image and opens it with `cache`. False with *error, nothing left. */
bool target_new(struct img *img, const struct creation *c, const char *cache, struct target *ret,
                GError **error);
/* Closes it and, when good, gives it its name; otherwise removes it. Returns good, or false with
 * *error. */
bool target_finish(struct target *t, bool good, GError **error);
