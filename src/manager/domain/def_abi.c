/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Is one description the same machine to its guest as another? A saved state can be continued only
 * by one that is.
 *
 * What the guest sees is a table: parts of the domain that are compared as they are printed, and of
 * each device the parts that are. Files, host names, passwords, limits may differ. Thread: any.
 */
#include "manager/domain/def.h"
#include "manager/error.h"

#include <glib.h>
#include <string.h>

static const char *const domain_parts[] = {
    "name",    "uuid",     "memory", "maxMemory", "vcpu",      "os/type",     "os/smbios",
    "os/bios", "features", "cpu",    "sysinfo",   "iothreads", "clock/timer",
};

static const struct {
    const char *element;
    const char *parts[10]; /* elements or attributes */
} devices[] = {
    {"disk",
     {"@device", "target@dev", "target@bus", "address", "serial", "wwn", "vendor", "product",
      "readonly", "blockio"}},
    {"interface", {"mac@address", "model@type", "address"}},
    {"controller",
     {"@type", "@index", "@model", "@ports", "@vectors", "model", "target", "address"}},
    {"filesystem", {"@type", "target@dir", "address"}},
    {"hostdev", {"@mode", "@type", "source/address", "address"}},
    {"input", {"@type", "@bus", "address"}},
    {"sound", {"@model", "address"}},
    {"video", {"model@type", "model@vram", "model@ram", "model@heads", "address"}},
    {"serial", {"target", "address"}},
    {"parallel", {"target", "address"}},
    {"console", {"target", "address"}},
    {"channel", {"target@type", "target@name", "target@address", "target@port", "address"}},
    {"smartcard", {"@mode", "address"}},
    {"watchdog", {"@model", "address"}},
    {"memballoon", {"@model", "address"}},
    {"rng", {"@model", "address"}},
    {"nvram", {"address"}},
    {"panic", {"@model", "address"}},
    {"shmem", {"@name", "model@type", "size", "address"}},
    {"memory", {"@model", "target/size", "target/node", "address"}},
    {"tpm", {"@model", "backend@version", "address"}},
    {"vsock", {"@model", "address"}},
    {"iommu", {"@model", "address"}},
    {"redirdev", {"@bus", "address"}},
};

/* As text; NULL: not there. */
static char *part(const struct xml_node *n, const char *path)
{
    if (strchr(path, '@'))
        return g_strdup(xml_get(n, path));
    const struct xml_node *sub = xml_find(n, path);
    return sub ? xml_format(sub, 0) : NULL;
}

static bool differs(const char *where, const char *path, const char *was, const char *is,
                    GError **error)
{
    g_autofree char *a = was ? g_strchomp(g_strdup(was)) : NULL,
                    *b = is ? g_strchomp(g_strdup(is)) : NULL;
    return ruche_error(
        error, MANAGER_ERR_CONFIG,
        "%s: '%s' is %s and was %s when the guest was saved: its guest would see another machine",
        where, path, b ? b : "missing", a ? a : "missing");
}

static bool same_part(const char *where, const struct xml_node *old, const struct xml_node *new,
                      const char *path, GError **error)
{
    g_autofree char *was = part(old, path), *is = part(new, path);
    return !g_strcmp0(was, is) || differs(where, path, was, is, error);
}

static bool same_devices(const struct xml_node *old, const struct xml_node *new, size_t kind,
                         GError **error)
{
    const struct xml_node *a = xml_find(old, devices[kind].element),
                          *b = xml_find(new, devices[kind].element);
    for (unsigned i = 1; a || b; i++, a = xml_next(a), b = xml_next(b)) {
        g_autofree char *where = g_strdup_printf("<%s> %u", devices[kind].element, i);
        if (!a || !b)
            return ruche_error(
                error, MANAGER_ERR_CONFIG,
                "%s is %s when the guest was saved: its guest would see another machine", where,
                a ? "missing, and was there" : "there, and was missing");
        for (unsigned p = 0; p < G_N_ELEMENTS(devices[kind].parts) && devices[kind].parts[p]; p++)
            if (!same_part(where, a, b, devices[kind].parts[p], error))
                return false;
    }
    return true;
}

bool domain_def_same_guest(struct domain_def *old, struct domain_def *new, GError **error)
{
    const struct xml_node *a = domain_def_tree(old), *b = domain_def_tree(new);
    bool same = true;
    for (size_t i = 0; same && i < G_N_ELEMENTS(domain_parts); i++)
        same = same_part("the domain", a, b, domain_parts[i], error);
    for (size_t i = 0; same && i < G_N_ELEMENTS(devices); i++)
        same = same_devices(xml_find(a, "devices"), xml_find(b, "devices"), i, error);
    domain_def_shrink(old);
    domain_def_shrink(new);
    return same;
}
