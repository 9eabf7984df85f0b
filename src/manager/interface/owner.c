/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who else configures an interface: by the files that the others leave.
 *
 * Spec      interfaces(5); /run/systemd/netif/links (sd-network); /run/NetworkManager/devices.
 * Thread    Any.
 */
#include "manager/interface/interface_priv.h"
#include "manager/node/sysfs.h"

#include <string.h>

/* "iface NAME ..." in a file of ifupdown. */
static bool names_interface(const char *text, const char *name)
{
    g_auto(GStrv) lines = text ? g_strsplit(text, "\n", -1) : NULL;
    for (char **l = lines; l && *l; l++) {
        g_auto(GStrv) words = g_strsplit_set(g_strstrip(*l), " \t", -1);
        if (!g_strcmp0(words[0], "iface") && !g_strcmp0(words[1], name))
            return true;
    }
    return false;
}

static bool by_ifupdown(const char *name)
{
    g_autofree char *main_file = sysfs_read("/etc/network/interfaces");
    g_autofree char *folder = sysfs_path("/etc/network/interfaces.d");
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    bool found = names_interface(main_file, name);
    for (const char *file; dir && !found && (file = g_dir_read_name(dir));) {
        g_autofree char *text = sysfs_read("/etc/network/interfaces.d/%s", file);
        found = names_interface(text, name);
    }
    return found;
}

/* KEY=VALUE at the beginning of a line. */
static bool says(const char *text, const char *line)
{
    g_auto(GStrv) lines = text ? g_strsplit(text, "\n", -1) : NULL;
    return lines && g_strv_contains((const char *const *)lines, line);
}

static bool by_networkd(int index)
{
    g_autofree char *text = sysfs_read("/run/systemd/netif/links/%d", index);
    return says(text, "ADMIN_STATE=configured") || says(text, "ADMIN_STATE=configuring");
}

static bool by_manager(int index)
{
    g_autofree char *text = sysfs_read("/run/NetworkManager/devices/%d", index);
    return (says(text, "managed=true") || says(text, "managed=1")) &&
           strstr(text, "connection-uuid=") && !says(text, "managed-type=external");
}

char *interface_owner(const char *name, int index)
{
    if (index && by_manager(index))
        return g_strdup("NetworkManager");
    if (index && by_networkd(index))
        return g_strdup("systemd-networkd");
    return by_ifupdown(name) ? g_strdup("ifupdown") : NULL;
}
