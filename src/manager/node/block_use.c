/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the host does with a block device. See block_use.h. */
#include "manager/node/block_use.h"

#include "manager/node/sysfs.h"

#include <string.h>

enum { DEEP_MAX = 8 };

/* Where a file system of the block device with that number is mounted; NULL: nowhere. */
static char *mounted_at(const char *number)
{
    g_autofree char *text = sysfs_read("/proc/self/mountinfo");
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);
    for (char **l = lines; *l; l++) {
        g_auto(GStrv) f = g_strsplit(*l, " ", 6);
        if (g_strv_length(f) >= 5 && !strcmp(f[2], number))
            return g_strdup(f[4]);
    }
    return NULL;
}

static bool is_swap(const char *disk)
{
    g_autofree char *text = sysfs_read("/proc/swaps"), *line = g_strdup_printf("/dev/%s ", disk);
    return text && strstr(text, line);
}

static GDir *open_folder(const char *disk, const char *below)
{
    g_autofree char *path = g_strdup_printf("/sys/class/block/%s/%s", disk, below),
                    *full = sysfs_path(path);
    return g_dir_open(full, 0, NULL);
}

static bool is_partition(const char *disk, const char *entry)
{
    g_autofree char *path = g_strdup_printf("/sys/class/block/%s/%s/partition", disk, entry);
    return sysfs_exists(path);
}

static char *find_use(const char *disk, unsigned deep)
{
    g_autofree char *number = sysfs_read("/sys/class/block/%s/dev", disk);
    g_autofree char *where = number ? mounted_at(number) : NULL;
    if (where)
        return g_strdup_printf("disk '%s', which is mounted on '%s'", disk, where);
    if (is_swap(disk))
        return g_strdup_printf("disk '%s' as swap", disk);
    if (deep == DEEP_MAX)
        return NULL;
    char *use = NULL;
    g_autoptr(GDir) holders = open_folder(disk, "holders"), parts = open_folder(disk, "");
    for (const char *h; holders && !use && (h = g_dir_read_name(holders));)
        use = find_use(h, deep + 1);
    for (const char *e; parts && !use && (e = g_dir_read_name(parts));)
        if (is_partition(disk, e))
            use = find_use(e, deep + 1);
    return use;
}

char *block_device_use(const char *disk)
{
    return find_use(disk, 0);
}

char *block_device_holder(const char *disk)
{
    g_autoptr(GDir) holders = open_folder(disk, "holders");
    return holders ? g_strdup(g_dir_read_name(holders)) : NULL;
}
