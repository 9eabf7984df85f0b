/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The images behind a disk's image, found out before the machine starts and written into
 * <backingStore>, so that the machine opens nothing by a name that an image has in it.
 *
 * Trust     Images are hostile: manager/image_info.h looks at them, in another process.
 */
#include "manager/domain/vm_internal.h"

#include "manager/domain/def_chain.h"
#include "manager/image_info.h"

#include <string.h>

#define INFO_MS 30000

static bool may_have_backing(const struct xml_node *disk)
{
    static const char *const formats[] = {"qcow2", "qcow", "qed", "vmdk", "vhdx", "vpc", NULL};
    const char *format = xml_get(disk, "driver@type");
    return format && g_strv_contains(formats, format) && xml_get(disk, "source@file") &&
           !xml_find(disk, "backingStore"); /* said by hand, or found before */
}

/* One <backingStore> in another. */
static struct xml_node *add_level(struct xml_node *at, const struct image_info *i)
{
    struct xml_node *b = xml_add(at, "backingStore");
    if (!i->filename)
        return NULL;
    bool device = g_str_has_prefix(i->filename, "/dev/");
    xml_set(b, "@type", device ? "block" : "file");
    xml_set(b, "format@type", i->format);
    xml_set(b, device ? "source@dev" : "source@file", i->filename);
    return b;
}

static bool write_chain(struct xml_node *disk, const struct image_info *chain, GError **error)
{
    const char *target = xml_get_or(disk, "target@dev", "");
    /* The image itself has to be what the description says: else its guest could choose what is
     * opened. */
    if (g_strcmp0(chain->format, xml_get(disk, "driver@type")))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "disk '%s' is described as %s, and its image is %s", target,
                           xml_get_or(disk, "driver@type", ""), chain->format);
    struct xml_node *at = disk;
    for (const struct image_info *i = chain + 1; i->format && at; i++)
        at = add_level(at, i);
    if (at)
        xml_add(at, "backingStore");
    return true;
}

bool vm_find_chains(struct xml_node *domain, GError **error)
{
    for (struct xml_node *d = xml_find(domain, "devices/disk"); d; d = xml_next(d)) {
        if (!may_have_backing(d)) {
            def_chain_count(d);
            continue;
        }
        g_auto(image_info_list) chain = NULL;
        if (!image_info_ask(xml_get(d, "source@file"), xml_get(d, "driver@type"), IMAGE_INFO_CHAIN,
                            INFO_MS, &chain, error)) {
            g_prefix_error(error, "disk '%s': ", xml_get_or(d, "target@dev", ""));
            return false;
        }
        if (!write_chain(d, chain, error))
            return false;
        def_chain_count(d);
    }
    return true;
}
