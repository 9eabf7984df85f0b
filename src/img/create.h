/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a new image is to be, from -f, -o, -b and -F; shared by create, convert, dd and measure.
 *
 * Owner     The caller: creation_init() ... creation_clear().
 * Errors    Sentences with the option and the value.
 */
#pragma once

#include "img/img.h"

struct creation {
    const char *filename; /* borrowed */
    const struct image_driver *driver;
    JsonObject *options;            /* of -o, without size, backing_file and backing_fmt */
    char *backing, *backing_format; /* NULL: none */
    uint64_t size_bytes;
    bool size_given; /* by -o size=... */
};

bool creation_init(struct creation *c, const char *filename, const char *format, GPtrArray *list,
                   const char *backing, const char *backing_format, GError **error);
void creation_clear(struct creation *c);
/* The backing file, found from the new image's folder. */
struct node *creation_open_backing(struct img *img, const struct creation *c, unsigned flags,
                                   GError **error);
/* -o help: returns the exit code. */
int creation_print_help(const char *format);
