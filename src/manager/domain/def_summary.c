/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What queries need of a description without its tree. See def.h. */
#include "manager/domain/def_chain.h"
#include "manager/domain/def_internal.h"
#include "manager/uuid.h"

char *def_disk_source(const struct xml_node *disk)
{
    static const char *const paths[] = {"source@file", "source@dev", "source@dir", "source@path"};
    for (size_t i = 0; i < G_N_ELEMENTS(paths); i++)
        if (xml_get(disk, paths[i]))
            return g_strdup(xml_get(disk, paths[i]));
    if (xml_is(disk, "@type", "volume") && xml_get(disk, "source@pool"))
        return g_strdup_printf("%s/%s", xml_get(disk, "source@pool"),
                               xml_get_or(disk, "source@volume", ""));
    if (xml_is(disk, "@type", "network"))
        return g_strdup_printf("%s:%s", xml_get_or(disk, "source@protocol", ""),
                               xml_get_or(disk, "source@name", ""));
    return NULL;
}

static unsigned count_of(const struct xml_node *devices, const char *const *names)
{
    unsigned n = 0;
    FOREACH_ELEMENT (c, devices)
        n += g_strv_contains(names, c->name);
    return n;
}

static void add_disks(struct domain_summary *s, const struct xml_node *devices)
{
    s->disks = g_new0(struct def_disk, count_of(devices, (const char *const[]){"disk", NULL}));
    FOREACH_NAMED (d, devices, "disk")
        s->disks[s->disk_count++] = (struct def_disk){
            .target = g_strdup(xml_get_or(d, "target@dev", "")),
            .source = def_disk_source(d),
            .bus = g_strdup(xml_get_or(d, "target@bus", "")),
            .device = g_strdup(xml_get_or(d, "@device", "disk")),
            .alias = g_strdup(xml_get(d, "alias@name")),
            .node = def_chain_node(d, d),
            .read_only = xml_find(d, "readonly") != NULL,
        };
}

static const char *interface_source(const struct xml_node *i)
{
    static const char *const paths[] = {"source@network", "source@bridge", "source@dev",
                                        "source@path",    "source@name",   "source@address"};
    for (size_t p = 0; p < G_N_ELEMENTS(paths); p++)
        if (xml_get(i, paths[p]))
            return xml_get(i, paths[p]);
    return NULL;
}

static void add_interfaces(struct domain_summary *s, const struct xml_node *devices)
{
    s->interfaces =
        g_new0(struct def_interface, count_of(devices, (const char *const[]){"interface", NULL}));
    FOREACH_NAMED (i, devices, "interface") {
        struct def_interface *row = &s->interfaces[s->interface_count++];
        *row = (struct def_interface){
            .type = g_strdup(xml_get_or(i, "@type", "")),
            .source = g_strdup(interface_source(i)),
            .target = g_strdup(xml_get(i, "target@dev")),
            .model = g_strdup(xml_get(i, "model@type")),
            .alias = g_strdup(xml_get(i, "alias@name")),
        };
        g_strlcpy(row->mac, xml_get_or(i, "mac@address", ""), sizeof(row->mac));
    }
}

static void add_chardevs(struct domain_summary *s, const struct xml_node *devices)
{
    static const char *const kinds[] = {"serial", "parallel", "console", "channel", NULL};
    s->chardevs = g_new0(struct def_chardev, count_of(devices, kinds));
    FOREACH_ELEMENT (c, devices) {
        if (!g_strv_contains(kinds, c->name))
            continue;
        const char *target = xml_get(c, "target@name");
        s->chardevs[s->chardev_count++] = (struct def_chardev){
            .kind = g_strdup(c->name),
            .type = g_strdup(xml_get_or(c, "@type", "")),
            .target = g_strdup(target ? target : xml_get(c, "target@port")),
            .path = g_strdup(xml_get(c, "source@path")),
            .alias = g_strdup(xml_get(c, "alias@name")),
        };
    }
}

void def_summary(struct domain_summary *s, const struct xml_node *domain)
{
    uint64_t vcpus = xml_get_u64(domain, "vcpu", 1);
    *s = (struct domain_summary){
        .name = g_strdup(xml_get_or(domain, "name", "")),
        .title = g_strdup(xml_get(domain, "title")),
        .os_type = g_strdup(xml_get_or(domain, "os/type", "hvm")),
        .type = g_strdup(xml_get_or(domain, "@type", "kvm")),
        .emulator = g_strdup(xml_get(domain, "devices/emulator")),
        .arch = g_strdup(xml_get_or(domain, "os/type@arch", "x86_64")),
        .memory_kib = xml_get_u64(domain, "memory", 0),
        .current_memory_kib = xml_get_u64(domain, "currentMemory", 0),
        .vcpus_max = (unsigned)vcpus,
        .vcpus = (unsigned)xml_get_u64(domain, "vcpu@current", vcpus),
        .iothread_count = (unsigned)xml_get_u64(domain, "iothreads", 0),
        .on_reboot_destroy = xml_is(domain, "on_reboot", "destroy"),
        .is_soft = !xml_is(domain, "@type", "kvm"),
    };
    uuid_parse(xml_get_or(domain, "uuid", ""), s->uuid);
    const struct xml_node *devices = devices_of(domain);
    add_disks(s, devices);
    add_interfaces(s, devices);
    add_chardevs(s, devices);
}

static void chardev_done(struct def_chardev *c)
{
    g_free(c->kind);
    g_free(c->type);
    g_free(c->target);
    g_free(c->path);
    g_free(c->alias);
}

void def_summary_done(struct domain_summary *s)
{
    for (unsigned i = 0; i < s->disk_count; i++) {
        g_free(s->disks[i].target);
        g_free(s->disks[i].source);
        g_free(s->disks[i].bus);
        g_free(s->disks[i].device);
        g_free(s->disks[i].alias);
        g_free(s->disks[i].node);
    }
    for (unsigned i = 0; i < s->interface_count; i++) {
        g_free(s->interfaces[i].type);
        g_free(s->interfaces[i].source);
        g_free(s->interfaces[i].target);
        g_free(s->interfaces[i].model);
        g_free(s->interfaces[i].alias);
    }
    for (unsigned i = 0; i < s->chardev_count; i++)
        chardev_done(&s->chardevs[i]);
    g_free(s->disks);
    g_free(s->interfaces);
    g_free(s->chardevs);
    char **const texts[] = {&s->name, &s->title, &s->os_type, &s->type, &s->emulator, &s->arch};
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        g_free(*texts[i]);
}
