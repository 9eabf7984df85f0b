/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A new volume while it is made: volume_create.c leads, volume_image.c has ruche-img do what only that can.
 *
 * Owner     The call of volume_create.c's create(), on its stack.
 * Thread    The loop thread and the workers that it waits for.
 */
#pragma once

#include "manager/storage/storage_priv.h"

enum { PREALLOC_METADATA = 1, REFLINK = 2, VALIDATE = 4 }; /* virStorageVolCreateFlags */
enum { DEFAULT_MODE = 0600 };
#define LUKS_ROOM (2u << 20) /* of a header */
#define LUKS_MS   800        /* what it costs to open, of a processor's time */

/* The volume that the new one is made from; strings of our own, as its pool may change meanwhile.
 */
struct origin {
    struct pool *pool; /* NULL: there is none */
    char *name, *path, *format, *target;
    uint64_t capacity;
    bool is_file, encrypted;
    GBytes *key; /* of an encrypted one */
};

struct maker {
    struct volume_def def;
    struct origin from;
    unsigned flags;
    struct job *job;     /* of a copy; else NULL */
    char *target, *path; /* of the pool; of the image in its stage, or of the device */
    struct stage stage;
    struct secret_file key, from_key; /* for ruche-img */
    struct secret_file pool_key, from_pool_key;
    char *pool_object, *from_pool_object; /* --object of those */
    struct look look;
    GError *error;
    bool ok, done; /* done: all of it, at once */
};

/* Is it a copy of the other's bytes, for which no program is needed? */
bool maker_copies_bytes(const struct maker *m);
/* Options of its format: "a=b,c=d". */
char *maker_format_options(const struct maker *m);
/* The image m->path, new; or what is copied into it, which is `there` already as a device. (waits) */
bool maker_run_create(struct maker *m, const char *options, GError **error);
bool maker_run_convert(struct maker *m, const char *options, bool there, GError **error);
/* All that a file needs of ruche-img; nothing, for a plain one. (waits) */
bool maker_run_tool(struct maker *m, GError **error);
