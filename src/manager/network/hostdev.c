/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pools of PCI functions: which there are, and one that nobody has.
 *
 * Spec      libvirt's formatnetwork, forward mode 'hostdev'; Linux
 *           Documentation/PCI/pci-iov-howto.rst (virtfnN).
 * Thread    The loop thread: a few links of /sys are read.
 * Root      NODE_SYSFS, as manager/node/sysfs.h has it.
 */
#include "manager/network/network_priv.h"
#include "manager/node/sysfs.h"

#include <stdio.h>
#include <string.h>

#define FUNCTIONS_MAX 4096

/* "0000:05:10.1" of an <address>. */
static char *name_of_address(const struct xml_node *a)
{
    return g_strdup_printf("%04x:%02x:%02x.%x", (unsigned)xml_get_u64(a, "@domain", 0),
                           (unsigned)xml_get_u64(a, "@bus", 0),
                           (unsigned)xml_get_u64(a, "@slot", 0),
                           (unsigned)xml_get_u64(a, "@function", 0));
}

static bool is_address(const char *name)
{
    unsigned d, b, s, f;
    char end;
    return sscanf(name, "%4x:%2x:%2x.%1x%c", &d, &b, &s, &f, &end) == 4;
}

/* Functions of a physical function's interface, in the order of their numbers. */
static void add_virtual(GPtrArray *all, const char *dev)
{
    g_autofree char *folder = g_strdup_printf("/sys/class/net/%s/device", dev);
    g_autoptr(GArray) numbers = sysfs_numbers(folder, "virtfn");
    for (unsigned i = 0; i < MIN(numbers->len, FUNCTIONS_MAX); i++) {
        g_autofree char *link =
            g_strdup_printf("%s/virtfn%u", folder, g_array_index(numbers, unsigned, i));
        g_autofree char *path = sysfs_path(link), *to = g_file_read_link(path, NULL);
        char *name = to ? g_path_get_basename(to) : NULL;
        if (name && is_address(name))
            g_ptr_array_add(all, name);
        else
            g_free(name);
    }
}

GPtrArray *network_virtual_interfaces(const char *pf)
{
    GPtrArray *all = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *folder = g_strdup_printf("/sys/class/net/%s/device", pf);
    g_autoptr(GArray) numbers = sysfs_numbers(folder, "virtfn");
    for (unsigned i = 0; i < MIN(numbers->len, FUNCTIONS_MAX); i++) {
        g_autofree char *net =
            g_strdup_printf("%s/virtfn%u/net", folder, g_array_index(numbers, unsigned, i));
        g_autofree char *path = sysfs_path(net);
        g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
        const char *name = dir ? g_dir_read_name(dir) : NULL;
        if (name)
            g_ptr_array_add(all, g_strdup(name));
    }
    return all;
}

/* Names; never NULL. */
static GPtrArray *functions_of(const struct xml_node *root)
{
    GPtrArray *all = g_ptr_array_new_with_free_func(g_free);
    FOREACH_NAMED (a, root, "forward/address")
        g_ptr_array_add(all, name_of_address(a));
    if (xml_get(root, "forward/pf@dev"))
        add_virtual(all, xml_get(root, "forward/pf@dev"));
    return all;
}

static char *function_of(const struct network_port *p)
{
    const struct xml_node *a = xml_find(p->doc, "plug/address");
    return a ? name_of_address(a) : NULL;
}

/* By any network's port: two pools can have one function. */
static bool is_taken(const char *name)
{
    g_autoptr(GPtrArray) all = network_all();
    for (unsigned i = 0; i < all->len; i++) {
        GHashTableIter it;
        struct network_port *p;
        g_hash_table_iter_init(&it, ((struct network *)all->pdata[i])->ports);
        while (g_hash_table_iter_next(&it, NULL, (gpointer *)&p)) {
            g_autofree char *theirs = function_of(p);
            if (!g_strcmp0(theirs, name))
                return true;
        }
    }
    return false;
}

static void set_plug(struct xml_node *port, const struct xml_node *root, const char *name)
{
    unsigned domain, bus, slot, function;
    sscanf(name, "%4x:%2x:%2x.%1x", &domain, &bus, &slot, &function);
    xml_set(port, "plug@type", "hostdev-pci");
    xml_set(port, "plug@managed", xml_is(root, "forward@managed", "yes") ? "yes" : "no");
    xml_set(port, "plug/driver@name", xml_get_or(root, "forward/driver@name", "vfio"));
    xml_set_f(port, "plug/address@domain", "0x%04x", domain);
    xml_set_f(port, "plug/address@bus", "0x%02x", bus);
    xml_set_f(port, "plug/address@slot", "0x%02x", slot);
    xml_set_f(port, "plug/address@function", "0x%x", function);
}

bool network_hostdev_choose(const struct network *n, const struct xml_node *root,
                            struct xml_node *port, GError **error)
{
    g_autoptr(GPtrArray) all = functions_of(root);
    const char *pf = xml_get(root, "forward/pf@dev");
    for (unsigned i = 0; i < all->len; i++)
        if (!is_taken(all->pdata[i])) {
            set_plug(port, root, all->pdata[i]);
            return true;
        }
    if (all->len)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "network '%s': all its %u PCI functions are taken", n->name, all->len);
    return pf ? ruche_error(error, MANAGER_ERR_CONFIG,
                            "network '%s': interface '%s' has no virtual functions; write how many "
                            "into /sys/class/net/%s/device/sriov_numvfs",
                            n->name, pf, pf)
              : ruche_error(error, MANAGER_ERR_CONFIG, "network '%s' has no PCI function to give",
                            n->name);
}

void network_hostdev_count(const struct network *n, struct xml_node *root)
{
    GHashTableIter it;
    struct network_port *p;
    unsigned all = 0;
    g_hash_table_iter_init(&it, n->ports);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&p)) {
        g_autofree char *theirs = function_of(p);
        all += theirs || p->dev;
        FOREACH_NAMED (a, root, "forward/address") {
            g_autofree char *name = name_of_address(a);
            if (!g_strcmp0(theirs, name))
                xml_set(a, "@connections", "1");
        }
    }
    if (all && xml_find(root, "forward/pf"))
        xml_set_f(root, "forward/pf@connections", "%u", all);
}
