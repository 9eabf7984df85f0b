/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disks that are described as a volume of a pool: what the volume is, is found out when it is needed and
 * written beside that into <source>, as attributes and elements of F_FOUND rows, which no text that leaves us has.
 *
 * Spec      libvirt's formatdomain, "Hard drives", type 'volume', at 9.0.0.
 * Trust     What stood there before is taken away: nobody but us says what a volume is.
 */
#include "manager/domain/vm_internal.h"

#include "manager/domain/def_chain.h"
#include "manager/storage/pool.h"

bool vm_find_volume(struct xml_node *disk, GError **error)
{
    struct xml_node *image = disk;
    for (unsigned depth = 0; image && depth < DEF_CHAIN_MAX; depth++) {
        struct xml_node *source = xml_find(image, "source");
        if (source && xml_is(image, "@type", "volume") && !volume_describe(source, error)) {
            g_prefix_error(error, "disk '%s': ", xml_get_or(disk, "target@dev", ""));
            return false;
        }
        image = def_chain_next(image);
    }
    return true;
}

bool vm_find_volumes(struct xml_node *domain, GError **error)
{
    for (struct xml_node *d = xml_find(domain, "devices/disk"); d; d = xml_next(d))
        if (!vm_find_volume(d, error))
            return false;
    return true;
}
