/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Types 'scsi' and 'mpath': logical units of one adapter of this host (SCSI, Fibre Channel), and
 * those that multipath has put together.
 *
 * Spec      libvirt's formatstorage, "SCSI volume pool", "Multipath pool"; dmsetup(8).
 */
#include "base/units.h"
#include "manager/node/sysfs.h"
#include "manager/storage/readers.h"
#include "manager/storage/scsi_luns.h"
#include "manager/storage/storage_priv.h"

#include <stdio.h>
#include <string.h>

/* ---- scsi ---- */

/* Of the Fibre Channel hosts, the one of these names. */
static bool find_fc_host(const char *wwnn, const char *wwpn, unsigned *ret)
{
    g_autoptr(GArray) hosts = sysfs_numbers("/sys/class/fc_host", "host");
    for (unsigned i = 0; i < hosts->len; i++) {
        unsigned host = g_array_index(hosts, unsigned, i);
        g_autofree char *node = sysfs_read("/sys/class/fc_host/host%u/node_name", host);
        g_autofree char *port = sysfs_read("/sys/class/fc_host/host%u/port_name", host);
        if (node && port &&
            !g_ascii_strcasecmp(node + (g_str_has_prefix(node, "0x") ? 2 : 0), wwnn) &&
            !g_ascii_strcasecmp(port + (g_str_has_prefix(port, "0x") ? 2 : 0), wwpn)) {
            *ret = host;
            return true;
        }
    }
    return false;
}

/* "scsi_host3", "host3". */
static bool host_number(const char *name, unsigned *ret)
{
    uint64_t v;
    const char *digits = name && g_str_has_prefix(name, "scsi_host") ? name + 9
                         : name && g_str_has_prefix(name, "host")    ? name + 4
                                                                     : NULL;
    if (!digits || !units_parse_u64(digits, &v) || v > UINT16_MAX)
        return false;
    *ret = (unsigned)v;
    return true;
}

static bool find_adapter(struct pool *p, unsigned *ret, GError **error)
{
    const char *name = pool_get(p, "source/adapter@name"),
               *wwnn = pool_get(p, "source/adapter@wwnn");
    const char *wwpn = pool_get(p, "source/adapter@wwpn");
    if (wwnn && wwpn)
        return find_fc_host(wwnn, wwpn, ret) ||
               ruche_error(error, RUCHE_ERR_NOT_FOUND,
                           "storage pool '%s': no Fibre Channel host has node name %s and port "
                           "name %s; virtual ones are made "
                           "beforehand (echo PORT:NODE > /sys/class/fc_host/hostN/vport_create)",
                           p->name, wwnn, wwpn);
    if (!host_number(name, ret))
        return ruche_error(error, RUCHE_ERR_XML,
                           "storage pool '%s': adapter '%s' is not called like scsi_host3", p->name,
                           name ? name : "");
    g_autofree char *path = g_strdup_printf("/sys/class/scsi_host/host%u", *ret);
    return sysfs_exists(path) ||
           ruche_error(error, RUCHE_ERR_NOT_FOUND, "storage pool '%s': there is no SCSI host %u",
                       p->name, *ret);
}

static bool scsi_scan(struct pool *p, GHashTable *found, struct pool_figures *ret, GError **error)
{
    unsigned host = 0;
    return find_adapter(p, &host, error) && scsi_luns_scan(p, host, true, found, ret, error);
}

static bool scsi_check(struct xml_node *root, GError **error)
{
    bool fc = xml_is(root, "source/adapter@type", "fc_host"),
         by_name = xml_get(root, "source/adapter@name");
    bool by_place = xml_find(root, "source/adapter/parentaddr"),
         by_wwn = xml_get(root, "source/adapter@wwnn") && xml_get(root, "source/adapter@wwpn");
    if (!fc && by_place)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "pool '%s': adapters are not looked for by PCI address; give the name, "
                           "such as scsi_host3",
                           xml_get_or(root, "name", ""));
    return (fc ? by_wwn : by_name) ||
           ruche_error(error, RUCHE_ERR_XML, "pool '%s': the source adapter lacks %s",
                       xml_get_or(root, "name", ""), fc ? "wwnn and wwpn" : "its name");
}

static void scsi_find(const struct xml_node *spec, GString *into, GError **error)
{
    g_autoptr(GArray) hosts = sysfs_numbers("/sys/class/scsi_host", "host");
    for (unsigned i = 0; i < hosts->len; i++)
        g_string_append_printf(
            into, "  <source>\n    <adapter type='scsi_host' name='scsi_host%u'/>\n  </source>\n",
            g_array_index(hosts, unsigned, i));
}

static const struct pool_backend scsi_backend = {
    .type = "scsi",
    .summary = "an adapter, whose units are made in the storage behind it",
    .list_flag = 1 << 12,
    .needs = POOL_NEEDS_ADAPTER,
    .target = "/dev/disk/by-path",
    .check = scsi_check,
    .find_sources = scsi_find,
    .scan = scsi_scan,
};
POOL_BACKEND(scsi_backend);

/* ---- mpath ---- */

/* Lines "mpatha	(253:0)" or "mpatha	(253, 0)". */
void mpath_read(const char *text, const char *folder, GHashTable *found)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", VOLUMES_MAX);
    for (char **l = lines; *l; l++) {
        unsigned major, minor;
        char *tab = strchr(*l, '\t');
        if (!tab || tab == *l ||
            (sscanf(tab, " (%u:%u)", &major, &minor) != 2 &&
             sscanf(tab, " (%u, %u)", &major, &minor) != 2))
            continue;
        *tab = 0;
        if (strchr(*l, '/') || !strcmp(*l, "..") || !strcmp(*l, "."))
            continue;
        g_autofree char *name = g_strdup_printf("dm-%u", minor),
                        *path = g_build_filename(folder, *l, NULL);
        device_volume_new(found, name, path);
    }
}

static bool mpath_scan(struct pool *p, GHashTable *found, struct pool_figures *ret, GError **error)
{
    g_autofree char *said = NULL;
    if (!storage_run(&said, error, "dmsetup", "ls", "--target", "multipath", NULL))
        return false;
    mpath_read(said, p->def->target, found);
    if (!device_volumes_look(p, found, "multipath devices", error))
        return false;
    GHashTableIter it;
    const struct volume *v;
    g_hash_table_iter_init(&it, found);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&v))
        ret->capacity += v->capacity;
    ret->allocation = ret->capacity;
    return true;
}

static const char *const mpath_programs[] = {"dmsetup", NULL};

static const struct pool_backend mpath_backend = {
    .type = "mpath",
    .summary = "what multipath-tools have put together",
    .list_flag = 1 << 13,
    .target = "/dev/mapper",
    .programs = mpath_programs,
    .scan = mpath_scan,
};
POOL_BACKEND(mpath_backend);
