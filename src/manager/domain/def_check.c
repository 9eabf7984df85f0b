/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is wrong with a description only when its parts are looked at together. */
#include "manager/domain/def_internal.h"

static bool check_targets(const struct xml_node *devices, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    FOREACH_NAMED (d, devices, "disk") {
        const char *dev = xml_get(d, "target@dev");
        const struct xml_node *first = g_hash_table_lookup(seen, dev);
        if (first) {
            g_autofree char *a = def_disk_source(first), *b = def_disk_source(d);
            return ruche_error(error, RUCHE_ERR_XML,
                               "target '%s' is given twice, to the disks of '%s' and '%s'", dev,
                               a ? a : "nothing", b ? b : "nothing");
        }
        g_hash_table_insert(seen, (void *)dev, d);
    }
    return true;
}

static bool check_disk(const struct xml_node *d, GError **error)
{
    const char *dev = xml_get(d, "target@dev");
    if (xml_is(d, "@device", "lun") && !xml_is(d, "@type", "block") &&
        !xml_is(d, "@type", "network") && !xml_is(d, "@type", "volume"))
        return ruche_error(
            error, MANAGER_ERR_CONFIG,
            "disk '%s': device 'lun' needs a block device or an iSCSI unit, not type '%s'", dev,
            xml_get(d, "@type"));
    if ((xml_is(d, "@device", "disk") || xml_is(d, "@device", "lun")) && !xml_find(d, "source"))
        return ruche_error(
            error, RUCHE_ERR_XML,
            "disk '%s': it has no source, which only CD-ROMs and floppy disks can do without", dev);
    if (xml_is(d, "@device", "floppy") != xml_is(d, "target@bus", "fdc"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "disk '%s': a floppy disk is on bus 'fdc', and nothing else is", dev);
    if (xml_find(d, "wwn") && !xml_is(d, "target@bus", "scsi") && !xml_is(d, "target@bus", "ide"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "disk '%s': only disks on bus 'scsi' and 'ide' have a wwn", dev);
    if (xml_is(d, "@device", "cdrom") && xml_is(d, "target@bus", "virtio"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "disk '%s': a CD-ROM cannot be on bus 'virtio'; use 'sata' or 'scsi'",
                           dev);
    static const char *const tuned[][2] = {{"total_bytes_sec", "bytes_sec"},
                                           {"total_iops_sec", "iops_sec"},
                                           {"total_bytes_sec_max", "bytes_sec_max"},
                                           {"total_iops_sec_max", "iops_sec_max"}};
    const struct xml_node *iotune = xml_find(d, "iotune");
    for (size_t i = 0; iotune && i < G_N_ELEMENTS(tuned); i++) {
        g_autofree char *r = g_strdup_printf("read_%s", tuned[i][1]),
                        *w = g_strdup_printf("write_%s", tuned[i][1]);
        if (xml_get_u64(iotune, tuned[i][0], 0) &&
            (xml_get_u64(iotune, r, 0) || xml_get_u64(iotune, w, 0)))
            return ruche_error(
                error, RUCHE_ERR_XML,
                "disk '%s': iotune has %s beside %s or %s; give the sum or the parts", dev,
                tuned[i][0], r, w);
    }
    return true;
}

/* Boot order is said once: of devices, or of kinds of devices. */
static bool check_boot(const struct xml_node *domain, const struct xml_node *devices,
                       GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    FOREACH_ELEMENT (c, devices) {
        const char *order = xml_get(c, "boot@order");
        if (order && !g_hash_table_add(seen, (void *)order))
            return ruche_error(error, RUCHE_ERR_XML,
                               "boot order %s is given to more than one device", order);
    }
    if (g_hash_table_size(seen) && xml_find(domain, "os/boot"))
        return ruche_error(error, RUCHE_ERR_XML,
                           "boot is given for devices and in <os>; only one of both can be");
    return true;
}

static bool check_aliases(const struct xml_node *devices, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    FOREACH_ELEMENT (c, devices) {
        const char *alias = xml_get(c, "alias@name");
        if (alias && !is_named(c, "console") && !xml_is(c, "@type", "usb") &&
            !g_hash_table_add(seen, (void *)alias))
            return ruche_error(error, RUCHE_ERR_XML, "alias '%s' is given to more than one device",
                               alias);
    }
    return true;
}

static bool check_topology(const struct xml_node *domain, GError **error)
{
    const struct xml_node *t = xml_find(domain, "cpu/topology");
    if (!t)
        return true;
    uint64_t vcpus = xml_get_u64(domain, "vcpu", 1), product = 1;
    static const char *const parts[] = {"@sockets", "@dies", "@cores", "@threads"};
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++)
        product *= xml_get_u64(t, parts[i], 1); /* each at most 16384 */
    if (product == vcpus)
        return true;
    return ruche_error(error, MANAGER_ERR_CONFIG,
                       "the CPU topology has %" PRIu64 " vCPUs, the domain %" PRIu64, product,
                       vcpus);
}

/* The vCPUs of NUMA cells: each once, all of them there. */
static bool check_cells(const struct xml_node *domain, GError **error)
{
    const struct xml_node *numa = xml_find(domain, "cpu/numa");
    if (!numa)
        return true;
    uint64_t vcpus = xml_get_u64(domain, "vcpu", 1);
    g_autofree uint8_t *seen = g_malloc0(16384);
    FOREACH_NAMED (c, numa, "cell") {
        g_auto(GStrv) parts = g_strsplit(xml_get_or(c, "@cpus", ""), ",", -1);
        for (char **p = parts; *p; p++) {
            char *end;
            uint64_t first = g_ascii_strtoull(*p, &end, 10),
                     last = *end == '-' ? g_ascii_strtoull(end + 1, NULL, 10) : first;
            for (uint64_t i = first; i <= last && i < 16384; i++)
                if (i >= vcpus || seen[i]++)
                    return ruche_error(error, MANAGER_ERR_CONFIG,
                                       "NUMA cell %s: vCPU %" PRIu64
                                       " is in two cells, or beyond the %" PRIu64 " there are",
                                       xml_get(c, "@id"), i, vcpus);
        }
    }
    return true;
}

static bool check_pins(const struct xml_node *domain, GError **error)
{
    const struct xml_node *cputune = xml_find(domain, "cputune"),
                          *vcpus = xml_find(domain, "vcpus");
    uint64_t count = xml_get_u64(domain, "vcpu", 1);
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    if (cputune)
        FOREACH_NAMED (p, cputune, "vcpupin")
            if (!g_hash_table_add(seen, (void *)xml_get(p, "@vcpu")))
                return ruche_error(error, RUCHE_ERR_XML, "vcpupin: vCPU %s is pinned twice",
                                   xml_get(p, "@vcpu"));
    if (vcpus)
        FOREACH_NAMED (v, vcpus, "vcpu")
            if (xml_get_u64(v, "@id", 0) >= count)
                return ruche_error(error, RUCHE_ERR_XML,
                                   "vcpus: vCPU %s is beyond the %" PRIu64 " there are",
                                   xml_get(v, "@id"), count);
    return true;
}

static bool check_memory_devices(const struct xml_node *domain, GError **error)
{
    uint64_t count = 0, slots = xml_get_u64(domain, "maxMemory@slots", 0);
    FOREACH_NAMED (m, devices_of(domain), "memory")
        count += !xml_is(m, "@model", "virtio-mem") && !xml_is(m, "@model", "virtio-pmem") &&
                 !xml_is(m, "@model", "sgx-epc");
    if (count > slots)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "%" PRIu64
                           " memory devices need maxMemory with as many slots; there are %" PRIu64,
                           count, slots);
    return true;
}

static bool check_iothreads(const struct xml_node *domain, GError **error)
{
    const struct xml_node *ids = xml_find(domain, "iothreadids");
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    if (ids)
        FOREACH_NAMED (t, ids, "iothread")
            if (!g_hash_table_add(seen, (void *)xml_get(t, "@id")))
                return ruche_error(error, RUCHE_ERR_XML, "iothread %s is there twice",
                                   xml_get(t, "@id"));
    FOREACH_ELEMENT (d, devices_of(domain)) {
        const char *id = xml_get(d, "driver@iothread");
        if (id && !domain_def_has_iothread(domain, (unsigned)xml_get_u64(d, "driver@iothread", 0)))
            return ruche_error(error, MANAGER_ERR_CONFIG,
                               "%s '%s': iothread %s is not there; the domain has %" PRIu64,
                               d->name, xml_get_or(d, "target@dev", xml_get_or(d, "@index", "?")),
                               id, xml_get_u64(domain, "iothreads", 0));
    }
    return true;
}

/* Who waits to be called cannot call again. */
static bool check_chardevs(const struct xml_node *devices, GError **error)
{
    FOREACH_ELEMENT (c, devices) {
        bool chardev = xml_is(c, "@type", "unix") || xml_is(c, "@type", "tcp");
        if (!chardev || !xml_is(c, "source@mode", "bind") || !xml_find(c, "source/reconnect"))
            continue;
        g_autofree char *where = schema_where(c);
        return ruche_error(error, RUCHE_ERR_XML, "%s: source: reconnect needs mode 'connect'",
                           where);
    }
    return true;
}

bool def_check(struct xml_node *domain, GError **error)
{
    const struct xml_node *devices = devices_of(domain);
    FOREACH_NAMED (d, devices, "disk")
        if (!check_disk(d, error))
            return false;
    return check_targets(devices, error) && check_chardevs(devices, error) &&
           check_boot(domain, devices, error) && check_aliases(devices, error) &&
           check_topology(domain, error) && check_cells(domain, error) &&
           check_pins(domain, error) && check_memory_devices(domain, error) &&
           check_iothreads(domain, error);
}
