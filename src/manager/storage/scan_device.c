/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Block devices as volumes: the table that a backend fills, and what is seen on each of them.
 *
 * Thread    A worker looks at copies; the loop thread takes what it saw.
 * Faults    A device that does not answer costs REACH_MS.
 */
#include "base/fd.h"
#include "manager/storage/storage_priv.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

static void look_at_device(struct volume *v)
{
    struct stat st;
    uint64_t bytes = 0;
    autofd fd = open(v->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISBLK(st.st_mode))
        return;
    volume_take_stat(v, &st);
    if (ioctl(fd, BLKGETSIZE64, &bytes) == 0)
        v->capacity = v->allocation = v->physical = bytes;
    volume_read_head(v, fd);
    if (!strcmp(v->format, "iso"))
        memcpy(v->format, "raw", 4);
}

static void look_at_devices(void *opaque)
{
    GPtrArray *volumes = opaque;
    for (unsigned i = 0; i < volumes->len; i++)
        look_at_device(volumes->pdata[i]);
}

static void free_devices(void *opaque)
{
    g_ptr_array_unref(opaque);
}

static void take_device(struct volume *v, struct volume *seen)
{
    v->type = VOLUME_BLOCK;
    v->perms = seen->perms;
    v->atime = seen->atime;
    v->mtime = seen->mtime;
    v->ctime = seen->ctime;
    v->device = seen->device;
    v->inode = seen->inode;
    v->physical = seen->physical;
    if (seen->capacity)
        v->capacity = seen->capacity;
    if (v->allocation == UINT64_MAX)
        v->allocation = v->capacity;
    g_free(v->format);
    v->format = seen->format ? g_steal_pointer(&seen->format) : g_strdup("raw");
    if (!v->backing)
        v->backing = g_steal_pointer(&seen->backing);
    if (!v->backing_format)
        v->backing_format = g_steal_pointer(&seen->backing_format);
    v->cluster_size = seen->cluster_size;
    v->compat = g_steal_pointer(&seen->compat);
    v->encrypted = seen->encrypted;
}

bool device_volumes_look(struct pool *p, GHashTable *volumes, const char *what, GError **error)
{
    g_autoptr(GPtrArray) ours = g_ptr_array_new();
    GPtrArray *copies = g_ptr_array_new_with_free_func((GDestroyNotify)volume_free);
    GHashTableIter it;
    struct volume *v;
    g_hash_table_iter_init(&it, volumes);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&v)) {
        struct volume *copy = g_new0(struct volume, 1);
        copy->path = g_strdup(v->path);
        copy->perms = NO_PERMS;
        g_ptr_array_add(ours, v);
        g_ptr_array_add(copies, copy);
    }
    if (!storage_work(p, look_at_devices, copies, free_devices, REACH_MS, what, error))
        return false;
    for (unsigned i = 0; i < ours->len; i++)
        take_device(ours->pdata[i], copies->pdata[i]);
    g_ptr_array_unref(copies);
    return true;
}

struct volume *device_volume_new(GHashTable *volumes, const char *name, const char *path)
{
    if (g_hash_table_size(volumes) >= VOLUMES_MAX || !*name || strchr(name, '/') ||
        !volume_name_can_be_told(name) || !volume_name_can_be_told(path))
        return NULL;
    struct volume *v = g_new0(struct volume, 1);
    v->name = g_strdup(name);
    v->path = g_strdup(path);
    v->type = VOLUME_BLOCK;
    v->format = g_strdup("raw");
    v->allocation = UINT64_MAX;
    v->perms = NO_PERMS;
    g_hash_table_replace(volumes, v->name, v);
    return v;
}
