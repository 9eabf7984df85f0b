/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The images behind a disk's image, found out before the machine starts and written into
 * <backingStore>, so that the machine opens nothing by a name that an image has in it.
 *
 * Trust     Images are hostile: ruche-img looks at them, another process. Its answer is read by
 * type; a chain has at most MAX_CHAIN images.
 */
#include "manager/domain/vm_internal.h"

#include <string.h>

#define MAX_CHAIN  200
#define MAX_ANSWER (8u << 20)
#define INFO_MS    30000

static bool may_have_backing(const xmlNode *disk)
{
    static const char *const formats[] = {"qcow2", "qcow", "qed", "vmdk", "vhdx", "vpc", NULL};
    const char *format = xml_get(disk, "driver@type");
    return format && g_strv_contains(formats, format) && xml_get(disk, "source@file") &&
           !xml_find(disk, "backingStore"); /* said by hand, or found before */
}

/* One <backingStore> in another; false: it is the last. */
static xmlNode *add_level(xmlNode *at, JsonObject *info)
{
    const char *file = vm_json_string(info, "filename"), *format = vm_json_string(info, "format");
    xmlNode *b = xmlNewChild(at, NULL, BAD_CAST "backingStore", NULL);
    if (!file || !format)
        return NULL;
    bool device = g_str_has_prefix(file, "/dev/");
    xml_set(b, "@type", device ? "block" : "file");
    xml_set(b, "format@type", format);
    xml_set(b, device ? "source@dev" : "source@file", file);
    return b;
}

static bool read_chain(xmlNode *disk, const char *answer, GError **error)
{
    g_autoptr(JsonNode) n = json_from_string(answer, NULL);
    JsonArray *list = vm_json_array(n);
    const char *target = xml_get_or(disk, "target@dev", "");
    guint count = list ? json_array_get_length(list) : 0;
    if (!count || count > MAX_CHAIN)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "disk '%s': its backing chain has %u images; 1 to %d are possible",
                           target, count, MAX_CHAIN);
    /* The image itself has to be what the description says: else its guest could choose what is
     * opened. */
    const char *format = vm_json_string(vm_json_at(list, 0), "format");
    if (g_strcmp0(format, xml_get(disk, "driver@type")))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "disk '%s' is described as %s, and its image is %s", target,
                           xml_get_or(disk, "driver@type", ""), format ? format : "something else");
    xmlNode *at = disk;
    for (guint i = 1; i < count && at; i++)
        at = add_level(at, vm_json_at(list, i));
    if (at)
        xmlNewChild(at, NULL, BAD_CAST "backingStore", NULL);
    return true;
}

bool vm_find_chains(xmlNode *domain, GError **error)
{
    for (xmlNode *d = xml_find(domain, "devices/disk"); d; d = xml_next(d)) {
        if (!may_have_backing(d))
            continue;
        const char *const argv[] = {manager.img,
                                    "info",
                                    "--backing-chain",
                                    "-U",
                                    "--output=json",
                                    "-f",
                                    xml_get(d, "driver@type"),
                                    xml_get(d, "source@file"),
                                    NULL};
        g_autofree char *answer = NULL;
        if (!task_run_program(argv, NULL, MAX_ANSWER, INFO_MS, &answer, error)) {
            g_prefix_error(error, "disk '%s': ", xml_get_or(d, "target@dev", ""));
            return false;
        }
        if (!read_chain(d, answer, error))
            return false;
    }
    return true;
}
