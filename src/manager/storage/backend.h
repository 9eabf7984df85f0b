/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A type of storage pool is a backend: one POOL_BACKEND() row in its own file. What a description of the type must and
 * may say, the capabilities document, searching and the front doors derive from the row.
 *
 * Spec      libvirt's formatstorage at 9.0.0.
 * Thread    The loop thread, in a task that holds the pool's lock; operations wait for programs (storage_run()) and
 *           workers, always with a deadline. Nothing here blocks the loop.
 * Trust     What programs print is checked as it is read; names that go on a command line never begin with '-'.
 */
#pragma once

#include "base/linkset.h"
#include "manager/storage/pool.h"

enum pool_can {
    POOL_CAN_BUILD = 1 << 0,
    POOL_CAN_OVERWRITE = 1 << 1, /* build takes "overwrite" and "no overwrite": it formats something */
    POOL_CAN_DELETE = 1 << 2,
    POOL_CAN_RESIZE = 1 << 3,    /* volumes by volume_resize() */
    POOL_FILES = 1 << 4,         /* volumes are files of the target folder: file operations are used, those below
                                    for volumes are not asked */
    POOL_CAN_SNAPSHOT = 1 << 6,  /* volume_create() takes a backing store */
    POOL_REMOTE = 1 << 5,        /* volumes are not on this host: they have no path that could be opened */
};
/* What a description must say, beside what it may. */
enum pool_needs {
    POOL_NEEDS_TARGET = 1 << 0, /* target/path */
    POOL_NEEDS_HOST = 1 << 1,
    POOL_NEEDS_DEVICE = 1 << 2,
    POOL_NEEDS_DIR = 1 << 3,
    POOL_NEEDS_NAME = 1 << 4,   /* source/name; the pool's own if there is none, and the other way round */
    POOL_NEEDS_ADAPTER = 1 << 5,
    POOL_NEEDS_INITIATOR = 1 << 6,
    POOL_MAY_ANYTHING = ~0u >> 1,
};
enum pool_build_flags { POOL_BUILD_NO_OVERWRITE = 4, POOL_BUILD_OVERWRITE = 8 }; /* virStoragePoolBuildFlags */

struct volume_def;

struct pool_backend {
    const char *type, *summary;
    unsigned list_flag;                /* of virConnectListAllStoragePools */
    unsigned can, needs;
    unsigned may;                      /* of pool_needs: what else the source may say; all other is refused */
    const char *target;                /* target/path when none is given; "%s" is the source's name */
    const char *const *source_formats; /* the first is the default; NULL: has none */
    const char *const *volume_formats; /* of new volumes; the first is the default */
    const char *const *programs;       /* without which it cannot work */
    /* Says more about a description than `needs`; may complete it. */
    bool (*check)(struct xml_node *root, GError **error);
    void (*find_sources)(const struct xml_node *spec, GString *into, GError **error); /* spec may be NULL; appends <source>s */
    bool (*build)(struct pool *p, unsigned build_flags, GError **error);
    bool (*start)(struct pool *p, GError **error);     /* what it needs before a first look; may be NULL */
    bool (*stop)(struct pool *p, GError **error);
    bool (*remove)(struct pool *p, GError **error);
    /* All volumes and the pool's figures as they are now, into *found and `ret_figures`. */
    bool (*scan)(struct pool *p, GHashTable *found, struct pool_figures *ret_figures, GError **error);
    /* Of pools that are not of files. New, raw and of at least d->capacity bytes; *ret_path may be opened. */
    bool (*volume_create)(struct pool *p, const struct volume_def *d, char **ret_path, GError **error);
    /* What ruche-img calls a remote volume; NULL: its path. Of a pool with <auth> it needs the object of
     * pool_secret_object(). */
    char *(*volume_url)(struct pool *p, const char *name);
    bool (*volume_delete)(struct pool *p, const char *name, const char *path, GError **error);
    /* Is it still what the pool tells of it? Asked before its contents or itself go; NULL: names are for good. (waits) */
    bool (*volume_check)(struct pool *p, const char *name, GError **error);
    /* Volumes that have another name once it is deleted, by their names of now, which are borrowed; NULL: there are none. */
    GPtrArray *(*volume_renames)(struct pool *p, const struct volume *v);
    bool (*volume_resize)(struct pool *p, const char *name, const char *path, uint64_t bytes, GError **error);
};
LINKSET_DECLARE(pool_backends);
#define POOL_BACKEND(ident) LINKSET_ENTRY(pool_backends, ident)

const struct pool_backend *pool_backend_find(const char *type); /* NULL: not one of ours */
/* The pool's description by path ("source/device@path"); NULL: it does not say. Until the next wait. */
const char *pool_get(const struct pool *p, const char *path);
const struct xml_node *pool_root(const struct pool *p);
const char *pool_user(const struct pool *p); /* of its <auth>; NULL: it has none */
/* Is each program there? Else the error names the package of this distribution. */
bool storage_programs(const char *const *programs, GError **error);
/* A program with the time-out of storage (STORAGE_RUN_MS), its answer in *ret_out (may be NULL). One that is not there
 * is named with its package. The arguments end with NULL. */
bool storage_run(char **ret_out, GError **error, const char *program, ...) G_GNUC_NULL_TERMINATED;
bool storage_run_argv(const char *const *argv, const char *stdin_text, int timeout_ms, char **ret_out, GError **error);
/* fn(opaque) on a thread of its own, for the pool. False with MANAGER_ERR_TIMEOUT when it has not come back in time: the
 * thread then ends by itself, and frees `opaque` by free_fn. Until it does, what else is asked of the pool fails at once,
 * so that a server that hangs does not keep more and more threads. */
bool storage_work(struct pool *p, void (*fn)(void *opaque), void *opaque, void (*free_fn)(void *opaque), int timeout_ms,
                  const char *what, GError **error);
/* The pool starts or stops: what is left behind by now may be of a mount that is gone. Of all, HUNG_MAX are kept. */
void storage_work_anew(struct pool *p);
