/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Can two hosts use a machine's disks one after the other? Thread: the loop thread; looks at files.
 */
#include "manager/domain/domain_migrate_priv.h"

#include <sys/vfs.h>

/* File systems that several hosts see, by the kernel's magic numbers; `coherent`: with one cache.
 */
static const struct {
    unsigned magic;
    bool coherent;
} shared_systems[] = {
    {0x6969, false},                                           /* NFS */
    {0xff534d42, false}, {0xfe534d42, false}, {0x517b, false}, /* SMB */
    {0x5346414f, false},                                       /* AFS */
    {0x01161970, true},                                        /* GFS2 */
    {0x7461636f, true},                                        /* OCFS2 */
    {0x00c36400, true},                                        /* CephFS */
    {0x47504653, true},                                        /* GPFS */
    {0x19830326, true},                                        /* FhGFS */
};

static bool is_shared(const char *path, bool *ret_coherent)
{
    struct statfs s;
    *ret_coherent = false;
    if (statfs(path, &s) < 0)
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(shared_systems); i++)
        if ((unsigned)s.f_type == shared_systems[i].magic) {
            *ret_coherent = shared_systems[i].coherent;
            return true;
        }
    return false;
}

static bool has_no_cache(const struct xml_node *disk)
{
    return xml_is(disk, "driver@cache", "none") || xml_is(disk, "driver@cache", "directsync") ||
           xml_find(disk, "shareable");
}

static bool disk_is_safe(const struct xml_node *disk, GError **error)
{
    const char *file = xml_get(disk, "source@file"), *target = xml_get_or(disk, "target@dev", "?");
    bool coherent = false;
    if (!xml_find(disk, "source") || xml_find(disk, "readonly"))
        return true;
    if (file && !is_shared(file, &coherent))
        return ruche_error(error, MANAGER_ERR_UNSAFE,
                           "Migration without shared storage is unsafe: disk '%s' is '%s'", target,
                           file);
    if (coherent || xml_is(disk, "@type", "network") || has_no_cache(disk))
        return true;
    return ruche_error(
        error, MANAGER_ERR_UNSAFE,
        "Migration may lead to data corruption if disks use cache other than none or "
        "directsync: disk '%s' does",
        target);
}

bool migrate_is_safe(struct domain_def *def, GError **error)
{
    const struct xml_node *devices = xml_find(domain_def_tree(def), "devices");
    bool safe = true;
    for (struct xml_node *n = xml_find(devices, "disk"); n && safe; n = xml_next(n))
        safe = disk_is_safe(n, error);
    domain_def_shrink(def);
    return safe;
}
