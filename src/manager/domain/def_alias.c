/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Aliases: the names of a running machine's devices, as libvirt gives them; a user's own ("ua-...")
 * stay. */
#include "manager/domain/def_internal.h"

static char *disk_alias(const struct xml_node *d)
{
    const char *bus = xml_get_or(d, "target@bus", "");
    if (xml_is(d, "address@type", "drive") && !strcmp(bus, "scsi"))
        return g_strdup_printf("scsi%s-%s-%s-%s", xml_get(d, "address@controller"),
                               xml_get(d, "address@bus"), xml_get(d, "address@target"),
                               xml_get(d, "address@unit"));
    if (xml_is(d, "address@type", "drive"))
        return g_strdup_printf("%s%s-%s-%s", bus, xml_get(d, "address@controller"),
                               xml_get(d, "address@bus"), xml_get(d, "address@unit"));
    return g_strdup_printf("%s-disk%d", bus,
                           MAX(def_disk_index(xml_get_or(d, "target@dev", "")), 0));
}

static char *controller_alias(const struct xml_node *domain, const struct xml_node *c)
{
    const char *type = xml_get_or(c, "@type", ""), *index = xml_get_or(c, "@index", "0");
    bool first = !strcmp(index, "0"), pcie = def_board(domain) == BOARD_PCIE;
    if (!strcmp(type, "pci"))
        return g_strdup_printf("%s.%s", first && xml_is(c, "@model", "pcie-root") ? "pcie" : "pci",
                               index);
    if (first && (!strcmp(type, "usb") || (!strcmp(type, "ide") && !pcie)))
        return g_strdup(type);
    if (first && !strcmp(type, "sata") && pcie)
        return g_strdup("ide");
    return g_strdup_printf("%s%s", type, index);
}

static char *numbered_alias(GHashTable *taken, const struct xml_node *n)
{
    static const char *const prefixes[][2] = {
        {"interface", "net"},  {"filesystem", "fs"}, {"memballoon", "balloon"},
        {"redirdev", "redir"}, {"memory", "dimm"},
    };
    static const char *const by_number[] = {"sound",   "video",     "serial", "parallel", "console",
                                            "channel", "smartcard", "input",  "tpm",      "hostdev",
                                            "hub",     "watchdog",  "rng",    "panic",    "shmem",
                                            "vsock",   "iommu",     "crypto", NULL};
    const char *prefix = g_strv_contains(by_number, n->name) ? n->name : NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(prefixes); i++)
        if (is_named(n, prefixes[i][0]))
            prefix = prefixes[i][1];
    if (is_named(n, "memory") && !xml_is(n, "@model", "dimm"))
        prefix = xml_get(n, "@model");
    if (!prefix)
        return NULL;
    for (unsigned number = 0;; number++) { /* the first that no device has */
        g_autofree char *alias = g_strdup_printf("%s%u", prefix, number);
        if (!g_hash_table_contains(taken, alias))
            return g_steal_pointer(&alias);
    }
}

void def_aliases(struct xml_node *domain)
{
    struct xml_node *devices = devices_of(domain);
    g_autoptr(GHashTable) taken = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    FOREACH_ELEMENT (n, devices)
        if (xml_get(n, "alias@name"))
            g_hash_table_add(taken, g_strdup(xml_get(n, "alias@name")));
    FOREACH_ELEMENT (n, devices) {
        if (xml_get(n, "alias@name"))
            continue;
        g_autofree char *alias = is_named(n, "disk")         ? disk_alias(n)
                                 : is_named(n, "controller") ? controller_alias(domain, n)
                                 : is_named(n, "audio")
                                     ? g_strdup_printf("audio%s", xml_get(n, "@id"))
                                     : numbered_alias(taken, n);
        if (!alias)
            continue;
        xml_set(n, "alias@name", alias);
        g_hash_table_add(taken, g_steal_pointer(&alias));
    }
    struct xml_node *console = xml_find(devices, "console"), *serial = xml_find(devices, "serial");
    if (console && serial &&
        xml_is(console, "target@type", "serial")) /* one device with two names */
        xml_set(console, "alias@name", xml_get_or(serial, "alias@name", "serial0"));
}
