/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A binding's description, and the file in the runtime folder that it is in.
 *
 * Spec      libvirt's nwfilterbinding.rng at 9.0.0.
 * Thread    The loop thread.
 */
#include "manager/filter/filter_priv.h"
#include "manager/markup.h"
#include "manager/store.h"
#include "manager/uuid.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <net/if.h>
#include <string.h>

char *filter_binding_xml(const struct caller *who, const struct filter_binding *b, unsigned flags,
                         GError **error)
{
    if (!access_check(who, RIGHT_READ, "read a filter binding", error))
        return NULL;
    if (!flags)
        return xml_format(b->doc, 0);
    ruche_error(error, MANAGER_ERR_ARGUMENT,
                "describe filter binding: flags 0x%x are not supported", flags);
    return NULL;
}

struct filter_binding *filter_binding_parse(const char *xml, GError **error)
{
    auto_xml *root = xml_parse(xml, strlen(xml), "filterbinding", error);
    g_autoptr(GHashTable) params = filter_params_new();
    uint8_t uuid[16], mac[6];
    if (!root)
        return NULL;
    const char *owner = xml_get_or(root, "owner/uuid", ""),
               *ifname = xml_get_or(root, "portdev@name", ""),
               *address = xml_get_or(root, "mac@address", ""),
               *filter = xml_get_or(root, "filterref@filter", "");
    if (!uuid_parse(owner, uuid) || !*xml_get_or(root, "owner/name", "")) {
        ruche_error(error, RUCHE_ERR_XML, "filterbinding: owner needs a name and a UUID");
        return NULL;
    }
    if (!*ifname || strlen(ifname) >= IFNAMSIZ || strchr(ifname, '/') || *ifname == '.') {
        ruche_error(error, RUCHE_ERR_XML,
                    "filterbinding: portdev '%.80s': names of interfaces have 1 to %d bytes",
                    ifname, IFNAMSIZ - 1);
        return NULL;
    }
    if (!filter_mac_parse(address, mac)) {
        ruche_error(error, RUCHE_ERR_XML, "filterbinding: '%.80s' is not a MAC address", address);
        return NULL;
    }
    if (!filter_name_check(filter, error) ||
        !filter_params_parse(params, xml_find(root, "filterref"), error))
        return NULL;
    struct filter_binding *b = g_new0(struct filter_binding, 1);
    b->refs = 1;
    b->ifname = g_strdup(ifname);
    b->filter = g_strdup(filter);
    b->mac = g_ascii_strdown(address, -1);
    b->owner_name = g_strdup(xml_get(root, "owner/name"));
    uuid_format(uuid, b->owner);
    b->doc = g_steal_pointer(&root);
    return b;
}

char *filter_bindings_folder(void)
{
    return g_build_filename(manager.runtime_dir, "nwfilters", NULL);
}

static char *note_path(const char *ifname)
{
    return g_strdup_printf("%s/nwfilters/%s.xml", manager.runtime_dir, ifname);
}

bool filter_binding_note(const struct filter_binding *b, GError **error)
{
    g_autofree char *dir = filter_bindings_folder(), *path = note_path(b->ifname),
                    *text = xml_format(b->doc, 0);
    if (g_mkdir_with_parents(dir, 0700) < 0)
        return ruche_error_errno(error, errno, "cannot make folder '%s'", dir);
    return store_write_volatile(path, text, 0600, error);
}

void filter_binding_forget(const char *ifname)
{
    g_autofree char *path = note_path(ifname);
    g_unlink(path);
}
