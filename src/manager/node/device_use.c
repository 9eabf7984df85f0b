/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the host itself lives by: it is not taken from it.
 *
 * Spec      proc(5): net/route, net/ipv6_route; sysfs-class-net. Disks: block_use.h.
 * Thread    The loop thread; small files only.
 */
#include "manager/node/block_use.h"
#include "manager/node/device.h"
#include "manager/node/sysfs.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEEP_MAX = 8 };

/* Does an entry of a class stand below the device? */
static bool below(const struct node_device *d, const char *folder, const char *entry)
{
    g_autofree char *path = g_strdup_printf("%s/%s", folder, entry), *full = sysfs_path(path);
    g_autofree char *top = sysfs_path(d->path), *real_top = realpath(top, NULL),
                    *real = realpath(full, NULL);
    size_t len = real_top ? strlen(real_top) : 0;
    return real && len && !strncmp(real, real_top, len) && (real[len] == '/' || !real[len]);
}

/* ---- disks ---- */

static bool check_disk(const struct node_device *d, const char *disk, GError **error)
{
    g_autofree char *use = block_device_use(disk);
    return !use || ruche_error(error, RUCHE_ERR_BUSY, "node device '%s': the host uses its %s",
                               d->name, use);
}

/* ---- network ---- */

static bool has_default_route(const char *interface)
{
    g_autofree char *v4 = sysfs_read("/proc/net/route"), *v6 = sysfs_read("/proc/net/ipv6_route");
    g_auto(GStrv) lines = g_strsplit(v4 ? v4 : "", "\n", -1),
                  six = g_strsplit(v6 ? v6 : "", "\n", -1);
    for (char **l = lines; *l; l++) {
        g_auto(GStrv) f = g_strsplit_set(*l, "\t ", -1);
        if (g_strv_length(f) >= 8 && !strcmp(f[0], interface) && !strcmp(f[1], "00000000") &&
            !strcmp(f[7], "00000000"))
            return true;
    }
    for (char **l = six; *l; l++) {
        char to[33], hop[33], name[17];
        unsigned prefix;
        if (sscanf(*l, "%32s %x %*s %*s %32s %*s %*s %*s %*s %16s", to, &prefix, hop, name) == 4 &&
            !strcmp(name, interface) && !prefix && strspn(to, "0") == 32 && strspn(hop, "0") != 32)
            return true;
    }
    return false;
}

/* A port's way out is its bridge's or bond's. */
static bool check_net(const struct node_device *d, const char *interface, GError **error)
{
    g_autofree char *name = g_strdup(interface);
    for (unsigned i = 0; name && i < DEEP_MAX; i++) {
        if (has_default_route(name))
            return ruche_error(error, RUCHE_ERR_BUSY,
                               "node device '%s': the host reaches its gateway by interface '%s'",
                               d->name, name);
        g_autofree char *path = g_strdup_printf("/sys/class/net/%s/master", name),
                        *full = sysfs_path(path), *master = g_file_read_link(full, NULL);
        g_free(name);
        name = master ? g_path_get_basename(master) : NULL;
    }
    return true;
}

bool node_device_check_unused(const struct node_device *d, GError **error)
{
    static const struct {
        const char *folder;
        bool disks;
    } classes[] = {{"/sys/class/block", true}, {"/sys/class/net", false}};
    for (unsigned i = 0; i < G_N_ELEMENTS(classes); i++) {
        g_autofree char *full = sysfs_path(classes[i].folder);
        g_autoptr(GDir) dir = g_dir_open(full, 0, NULL);
        for (const char *e; dir && (e = g_dir_read_name(dir));)
            if (below(d, classes[i].folder, e) &&
                !(classes[i].disks ? check_disk(d, e, error) : check_net(d, e, error)))
                return false;
    }
    return true;
}
