/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Storage pools and their volumes; here of type 'dir'.
 *
 * Spec      libvirt's storage API at 9.0.0; flags are its numbers.
 * Thread    The loop thread; what touches the file system waits on a worker.
 * Lock      A pool's own, like a domain's job lock.
 * Stored    config_dir/storage/NAME.xml, config_dir/storage/autostart/NAME.xml; which run:
 *           runtime_dir/storage/NAME.xml.
 * Trust     Images are hostile: here only first bytes are read, through a bounded cursor; all else
 *           is ruche-img's, another process. Names of volumes have no '/'; links that leave the
 *           pool are not followed.
 */
#pragma once

#include "manager/manager.h"
#include "manager/xml.h"

#include <time.h>

/* Mode and owners of a folder or file; -1: as the system does it. */
struct file_perms {
    int mode;
    int64_t owner, group;
};
struct volume {
    char *name, *path, *format, *backing, *backing_format;
    char *compat;                   /* "1.1" of qcow2, else NULL */
    int type;                       /* virStorageVolType: 0 file, 2 dir */
    uint64_t capacity, allocation, physical, cluster_size;
    struct file_perms perms;
    struct timespec atime, mtime, ctime;
    uint64_t device, inode;         /* with mtime, ctime and physical: has the file changed since it was looked at? */
    bool encrypted, lazy_refcounts, extended_l2;
    unsigned in_use;                /* uploads, downloads, jobs */
    bool building;
};
enum pool_state { POOL_INACTIVE, POOL_BUILDING, POOL_RUNNING, POOL_DEGRADED, POOL_INACCESSIBLE };
struct pool {
    unsigned refs;
    uint8_t uuid[16];
    char *name, *type, *target, *text; /* canonical XML without figures */
    struct file_perms perms;        /* what the description asks for */
    struct file_perms real_perms;   /* what the folder of a running one has */
    enum pool_state state;
    bool persistent, autostart, removed;
    uint64_t capacity, allocation, available;
    GHashTable *volumes;            /* name to struct volume */
    struct fiber_mutex lock;
};
struct pool *pool_ref(struct pool *p);
void pool_unref(struct pool *p);

struct pool *pool_find_name(const char *name, GError **error);
struct pool *pool_find_uuid(const uint8_t *uuid, GError **error);
struct pool *pool_find_target(const char *path, GError **error);
GPtrArray *pool_list(const struct caller *who, unsigned list_flags);
/* All below (waits). */
struct pool *pool_define(const struct caller *who, const char *xml, unsigned flags, GError **error);
struct pool *pool_create_xml(const struct caller *who, const char *xml, unsigned flags, GError **error);
bool pool_build(const struct caller *who, struct pool *p, unsigned flags, GError **error);
bool pool_start(const struct caller *who, struct pool *p, unsigned flags, GError **error);
bool pool_refresh(const struct caller *who, struct pool *p, unsigned flags, GError **error);
bool pool_destroy(const struct caller *who, struct pool *p, GError **error);
bool pool_delete(const struct caller *who, struct pool *p, unsigned flags, GError **error);
bool pool_undefine(const struct caller *who, struct pool *p, GError **error);
bool pool_set_autostart(const struct caller *who, struct pool *p, bool on, GError **error);
char *pool_xml(const struct caller *who, struct pool *p, unsigned flags, GError **error);
char *pool_capabilities(const struct caller *who, GError **error);

/* Volumes: found by pool and name; by key and path (the same for files) in all pools that run. Borrowed until the next
 * wait. Figures are those of the last look: volume_update() looks again where the file has changed (waits). */
struct volume *volume_find(struct pool *p, const char *name, GError **error);
struct volume *volume_find_path(const char *path, struct pool **ret_pool, GError **error);
struct volume *volume_update(struct pool *p, const char *name, GError **error);
bool volume_create_xml(const struct caller *who, struct pool *p, const char *xml, const char *clone_of_path, unsigned flags,
                       char **ret_name, GError **error);
bool volume_delete(const struct caller *who, struct pool *p, const char *name, unsigned flags, GError **error);
bool volume_resize(const struct caller *who, struct pool *p, const char *name, uint64_t bytes, unsigned flags, GError **error);
bool volume_wipe(const struct caller *who, struct pool *p, const char *name, unsigned algorithm, GError **error);
char *volume_xml(const struct caller *who, struct pool *p, const char *name, GError **error);
/* A descriptor for a stream to or from the volume, positioned; *ret_length: how much may pass (0: to its end). */
int volume_open(const struct caller *who, struct pool *p, const char *name, bool write, uint64_t offset, uint64_t length,
                uint64_t *ret_length, GError **error);
/* In a task: returns when the file is synced and the volume no longer in use. Else that comes later. */
void volume_close(struct pool *p, const char *name, int fd, bool written);

/* Begins tasks for those that run: they know their volumes when these have ended. */
bool pools_load(GError **error);
void pools_autostart(void);
void pools_stop(void);
