/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Type 'dir': a folder; each file in it is a volume. What the folder stands on (a local disk, SMB,
 * NFS) does not matter.
 *
 * Spec      libvirt's formatstorage, "Directory pool".
 */
#include "manager/storage/storage_priv.h"

#include "base/fd.h"

#include <errno.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* What a worker does to a folder; it sees nothing else of the pool. */
struct folder_work {
    char *target;
    struct file_perms perms;
    char *cow; /* <features><cow state=''>; NULL: as it is */
    GError *error;
    bool ok;
};

static void work_free(void *opaque)
{
    struct folder_work *w = opaque;
    g_free(w->target);
    g_free(w->cow);
    g_clear_error(&w->error);
    g_free(w);
}

/* Whether files that are made in the folder are copied on write, where a file system lets one choose: btrfs. */
static bool set_cow(struct folder_work *w)
{
    autofd fd = pool_fs_open_dir(w->target, &w->error);
    int flags;
    if (fd < 0)
        return false;
    bool ok = ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0;
    int wanted = !strcmp(w->cow, "no") ? flags | FS_NOCOW_FL : flags & ~FS_NOCOW_FL;
    ok = ok && (wanted == flags || ioctl(fd, FS_IOC_SETFLAGS, &wanted) == 0);
    return ok || ruche_error_errno(&w->error, errno,
                                   "cow state '%s' of folder '%s' cannot be set; btrfs has one",
                                   w->cow, w->target);
}

static void build_folder(void *opaque)
{
    struct folder_work *w = opaque;
    w->ok = pool_fs_build(w->target, &w->perms, &w->error) && (!w->cow || set_cow(w));
}

static void remove_folder(void *opaque)
{
    struct folder_work *w = opaque;
    w->ok = rmdir(w->target) == 0 ||
            ruche_error_errno(&w->error, errno, "cannot remove folder '%s'", w->target);
}

static bool on_folder(struct pool *p, void (*fn)(void *opaque), GError **error)
{
    struct folder_work *w = g_new0(struct folder_work, 1);
    w->target = g_strdup(p->def->target);
    w->perms = p->def->perms;
    w->cow = g_strdup(pool_get(p, "features/cow@state"));
    if (!storage_work(p, fn, w, work_free, STORAGE_RUN_MS, w->target, error))
        return false;
    bool ok = w->ok;
    if (w->error)
        g_propagate_error(error, g_steal_pointer(&w->error));
    work_free(w);
    return ok;
}

bool folder_pool_build(struct pool *p, unsigned build_flags, GError **error)
{
    return on_folder(p, build_folder, error);
}

bool folder_pool_remove(struct pool *p, GError **error)
{
    return on_folder(p, remove_folder, error);
}

const char *const folder_volume_formats[] = {"raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx", NULL};

static const struct pool_backend dir_backend = {
    .type = "dir",
    .summary = "a folder",
    .list_flag = 1 << 6,
    .can = POOL_CAN_BUILD | POOL_CAN_DELETE | POOL_CAN_RESIZE | POOL_FILES,
    .needs = POOL_NEEDS_TARGET,
    .may = POOL_MAY_ANYTHING,
    .volume_formats = folder_volume_formats,
    .build = folder_pool_build,
    .remove = folder_pool_remove,
    .scan = folder_pool_scan,
};
POOL_BACKEND(dir_backend);
