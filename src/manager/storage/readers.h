/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What backends read out of programs' answers, each a function from text to values: for the backends, and for tests and
 * fuzzing. All take hostile text. `found` is a table as of backend.h's scan(). */
#pragma once

#include "manager/storage/backend.h"

/* mountinfo: the source that is mounted on `target`; NULL: none. */
char *mount_source(const char *mountinfo, const char *target);
/* lvs, vgs. */
bool logical_read_volumes(struct pool *p, const char *text, GHashTable *found, GError **error);
bool logical_read_group(const char *text, struct pool_figures *ret, GError **error);
/* sfdisk --json. */
typedef struct disk_table disk_table;
disk_table *disk_table_read(const char *text, const char *device, uint64_t device_bytes, GError **error);
uint64_t disk_table_room(const disk_table *t, uint64_t bytes); /* where so many bytes are free; 0: nowhere */
void disk_table_free(disk_table *t);
/* iscsiadm --mode session; iscsi-ls -s: numbers of logical units. */
bool iscsi_find_session(const char *text, const char *target, unsigned *ret);
GArray *iscsi_direct_units(const char *text, const char *target);
/* dmsetup ls; rbd ls, ceph df; zfs list, zpool list. */
void mpath_read(const char *text, const char *folder, GHashTable *found);
bool rbd_read_images(const char *text, const char *pool, GHashTable *found, GError **error);
bool rbd_read_figures(const char *text, const char *pool, struct pool_figures *ret, GError **error);
void zfs_read_volumes(const char *text, const char *zpool, GHashTable *found);
bool zfs_read_figures(const char *text, struct pool_figures *ret, GError **error);
