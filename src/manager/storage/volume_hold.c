/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Volumes and devices that are about to lose their contents: nobody else may use them.
 *
 * Spec      open(2), O_EXCL of block devices; QEMU's image locks (base/image_lock.h).
 * Thread    Workers.
 * Trust     A name may become another file at any time: what counts is what was opened.
 */
#include "base/fd.h"
#include "base/image_lock.h"
#include "manager/node/block_use.h"
#include "manager/node/sysfs.h"
#include "manager/storage/storage_priv.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/sysmacros.h>

/* Programs of udev have a new device for themselves for moments. */
enum { BUSY_TRIES = 10, BUSY_WAIT_US = 50 * 1000 };

static int open_alone(const struct hold *h)
{
    for (unsigned tries = 1;; tries++) {
        int fd = volume_open_at(h->dir, h->name, h->dir < 0 ? O_RDWR | O_EXCL : O_RDWR);
        if (fd >= 0 || errno != EBUSY || tries == BUSY_TRIES)
            return fd;
        g_usleep(BUSY_WAIT_US);
    }
}

/* The kernel's name of a block device; NULL: it is none. */
static char *kernel_name(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISBLK(st.st_mode))
        return NULL;
    g_autofree char *link =
        g_strdup_printf("/sys/dev/block/%u:%u", major(st.st_rdev), minor(st.st_rdev));
    g_autofree char *to = g_file_read_link(link, NULL);
    return to ? g_path_get_basename(to) : NULL;
}

static bool refuse_claimed(const struct hold *h, GError **error)
{
    g_autofree char *disk = kernel_name(h->name), *use = disk ? block_device_use(disk) : NULL;
    if (use)
        return ruche_error(error, RUCHE_ERR_BUSY, "%s '%s' is in use: the host uses %s", h->what,
                           h->name, use);
    g_autofree char *holder = disk ? block_device_holder(disk) : NULL;
    if (holder)
        return ruche_error(error, RUCHE_ERR_BUSY, "%s '%s' is in use: '%s' stands on it", h->what,
                           h->name, holder);
    return ruche_error(error, RUCHE_ERR_BUSY, "%s '%s' is in use: another program has it for itself",
                       h->what, h->name);
}

/* Where the kernel has the device; of what another device-mapper target maps (kpartx), only how large it is. */
static bool kernel_extent(unsigned major, unsigned minor, struct volume_extent *ret)
{
    uint64_t start = ret->start / 512, sectors, number;
    if (!sysfs_read_u64(&sectors, "/sys/dev/block/%u:%u/size", major, minor))
        return false;
    if (sysfs_read_u64(&number, "/sys/dev/block/%u:%u/partition", major, minor) &&
        !sysfs_read_u64(&start, "/sys/dev/block/%u:%u/start", major, minor))
        return false;
    *ret = (struct volume_extent){.start = start * 512, .bytes = sectors * 512};
    return true;
}

bool volume_check_extent(int fd, const char *name, const struct volume_extent *e, GError **error)
{
    struct stat st;
    struct volume_extent is = {.start = e->start};
    if (!e->bytes)
        return true;
    if (fstat(fd, &st) < 0 || !S_ISBLK(st.st_mode) ||
        !kernel_extent(major(st.st_rdev), minor(st.st_rdev), &is))
        return ruche_error(error, RUCHE_ERR_STATE, "volume '%s' is no block device any more", name);
    return (is.start == e->start && is.bytes == e->bytes) ||
           ruche_error(error, RUCHE_ERR_STATE,
                       "volume '%s' has %" PRIu64 " bytes from %" PRIu64
                       " of its disk by the partition table, and %" PRIu64 " from %" PRIu64
                       " by the kernel, which has not read the table since (partprobe)",
                       name, e->bytes, e->start, is.bytes, is.start);
}

bool device_is_at(const char *path, const struct volume_extent *e)
{
    struct stat st;
    struct volume_extent is = {.start = e->start};
    return stat(path, &st) == 0 && S_ISBLK(st.st_mode) &&
           kernel_extent(major(st.st_rdev), minor(st.st_rdev), &is) && is.start == e->start &&
           (e->container || is.bytes == e->bytes);
}

int volume_hold(const struct hold *h, GError **error)
{
    struct stat st;
    g_autofree char *who = NULL;
    if (h->extent.container) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                    "%s '%s' is an extended partition: others lie in it, it has no contents", h->what,
                    h->name);
        return -1;
    }
    autofd fd = open_alone(h);
    if (fd < 0) {
        if (errno == EBUSY && h->dir < 0)
            refuse_claimed(h, error);
        else
            ruche_error_errno(error, errno, "cannot open %s '%s'", h->what, h->name);
        return -1;
    }
    if (fstat(fd, &st) < 0 || !(S_ISREG(st.st_mode) || (S_ISBLK(st.st_mode) && h->dir < 0))) {
        ruche_error(error, RUCHE_ERR_INVALID, "%s '%s' is neither a file nor a block device",
                    h->what, h->name);
        return -1;
    }
    if (!volume_check_extent(fd, h->name, &h->extent, error))
        return -1;
    if (!image_lock_alone(fd, &who)) {
        ruche_error(error, RUCHE_ERR_BUSY, "%s '%s' is in use by %s", h->what, h->name, who);
        return -1;
    }
    return fd_steal(&fd);
}

/* ---- from a task ---- */

struct check {
    char *what, *path;
    struct volume_extent extent;
    GError *error;
};

static void check_free(void *opaque)
{
    struct check *c = opaque;
    g_free(c->what);
    g_free(c->path);
    g_clear_error(&c->error);
    g_free(c);
}

static void check(void *opaque)
{
    struct check *c = opaque;
    const struct hold h = {.what = c->what, .name = c->path, .dir = -1, .extent = c->extent};
    fd_close_keep_errno(volume_hold(&h, &c->error));
}

bool device_check_free(struct pool *p, const char *what, const char *path,
                       const struct volume_extent *extent, GError **error)
{
    struct check *c = g_new0(struct check, 1);
    c->what = g_strdup(what);
    c->path = g_strdup(path);
    c->extent = extent ? *extent : (struct volume_extent){0};
    if (!storage_work(p, check, c, check_free, REACH_MS, path, error))
        return false;
    bool ok = !c->error;
    if (!ok)
        g_propagate_error(error, g_steal_pointer(&c->error));
    check_free(c);
    return ok;
}
