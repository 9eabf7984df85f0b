/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Command lines: network interfaces; see vm_args.h. Taps are made and opened by us. */
#include "manager/domain/vm_args.h"

#include "manager/error.h"

#include <string.h>
#include <unistd.h>

static bool tap_backend(struct vm_args *a, struct xml_node *n, GString *s, GError **error)
{
    unsigned queues = (unsigned)CLAMP(xml_get_u64(n, "driver@queues", 1), 1, VM_MAX_QUEUES);
    int fds[VM_MAX_QUEUES];
    g_autofree char *name = NULL;
    if (!a->ops->tap(a->opaque, n, queues, fds, &name, error))
        return false;
    xml_set(n, "target@dev", name);
    g_autoptr(GString) list = g_string_new(NULL);
    for (unsigned i = 0; i < queues; i++)
        g_string_append_printf(list, "%s%u", i ? ":" : "", args_pass(a, fds[i]));
    opt_add(s, queues > 1 ? "fds" : "fd", list->str);
    opt_add(s, "sndbuf", xml_get(n, "tune/sndbuf"));
    return true;
}

static bool user_backend(struct vm_args *a, struct xml_node *n, GString *s, GError **error)
{
    for (struct xml_node *ip = xml_find(n, "ip"); ip; ip = xml_next(ip)) {
        bool six = xml_is(ip, "@family", "ipv6");
        opt_addf(s, six ? "ipv6-net" : "net", "%s/%s", xml_get_or(ip, "@address", ""),
                 xml_get_or(ip, "@prefix", six ? "64" : "24"));
    }
    for (struct xml_node *f = xml_find(n, "portForward"); f; f = xml_next(f)) {
        const char *proto = xml_get_or(f, "@proto", "tcp"),
                   *address = xml_get_or(f, "@address", "");
        for (struct xml_node *r = xml_find(f, "range"); r; r = xml_next(r)) {
            const char *start = xml_get_or(r, "@start", "0");
            opt_addf(s, "hostfwd", "%s:%s:%s-:%s", proto, address, start,
                     xml_get_or(r, "@to", start));
        }
    }
    return true;
}

/* Ethernet frames in UDP or TCP, as QEMU's 'socket'. */
static bool socket_backend(struct vm_args *a, struct xml_node *n, GString *s, GError **error)
{
    static const struct {
        const char *type, *key;
    } kinds[] = {{"mcast", "mcast"}, {"server", "listen"}, {"client", "connect"}, {"udp", "udp"}};
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++)
        if (xml_is(n, "@type", kinds[i].type))
            opt_addf(s, kinds[i].key, "%s:%s", xml_get_or(n, "source@address", ""),
                     xml_get_or(n, "source@port", ""));
    if (xml_is(n, "@type", "udp"))
        opt_addf(s, "localaddr", "%s:%s", xml_get_or(n, "source/local@address", ""),
                 xml_get_or(n, "source/local@port", ""));
    return true;
}

/* The switch at the other end; the machine's memory is shared with it. */
static bool vhostuser_backend(struct vm_args *a, struct xml_node *n, GString *s, GError **error)
{
    g_autofree char *id = g_strconcat("char", args_alias(n), NULL);
    bool server = xml_is(n, "source@mode", "server");
    GString *c = opt_new("socket");
    opt_add(c, "id", id);
    opt_add(c, "path", xml_get(n, "source@path"));
    opt_add(c, "server", server ? "on" : NULL);
    opt_add(c, "wait", server ? "off" : NULL);
    bool comes_again = !server && xml_is(n, "source/reconnect@enabled", "yes");
    opt_add(c, "reconnect", comes_again ? xml_get_or(n, "source/reconnect@timeout", "1") : NULL);
    args_take(a, "-chardev", c);
    opt_add(s, "chardev", id);
    opt_add(s, "queues", xml_get(n, "driver@queues"));
    return true;
}

static const struct {
    const char *type, *backend;
    bool (*fn)(struct vm_args *a, struct xml_node *n, GString *s, GError **error);
} backends[] = {
    {"user", "user", user_backend},       {"bridge", "tap", tap_backend},
    {"network", "tap", tap_backend},      {"ethernet", "tap", tap_backend},
    {"direct", "tap", tap_backend},       {"mcast", "socket", socket_backend},
    {"server", "socket", socket_backend}, {"client", "socket", socket_backend},
    {"udp", "socket", socket_backend},    {"vhostuser", "vhost-user", vhostuser_backend},
};

static bool add_backend(struct vm_args *a, struct xml_node *n, const char *id, GError **error)
{
    const char *type = xml_get_or(n, "@type", "");
    for (size_t i = 0; i < G_N_ELEMENTS(backends); i++) {
        if (strcmp(backends[i].type, type))
            continue;
        g_autoptr(GString) s = opt_new(backends[i].backend);
        if (!backends[i].fn(a, n, s, error))
            return false;
        opt_add(s, "id", id);
        args_add(a, "-netdev", s->str);
        return true;
    }
    return args_word_error(n, "type", type, error);
}

static const struct {
    const char *model, *device;
} models[] = {
    {"virtio", "virtio-net-pci"},
    {"virtio-transitional", "virtio-net-pci-transitional"},
    {"virtio-non-transitional", "virtio-net-pci-non-transitional"},
};

/* Which attributes of <driver> are which properties. */
static const struct {
    const char *path, *property;
    bool qemu; /* ruche-vmm has not got it: vm_check.c */
} driver_words[] = {
    {"driver@rx_queue_size", "rx_queue_size", false},
    {"driver@tx_queue_size", "tx_queue_size", false},
    {"driver@packed", "packed", false},
    {"driver@event_idx", "event_idx", false},
    {"driver@ioeventfd", "ioeventfd", false},
    {"driver@rss", "rss", true},
    {"driver@rss_hash_report", "hash", true},
    {"driver@iommu", "iommu_platform", true},
    {"driver@ats", "ats", true},
    {"driver@page_per_vq", "page-per-vq", true},
    {"driver/host@csum", "csum", false},
    {"driver/host@gso", "gso", false},
    {"driver/host@tso4", "host_tso4", false},
    {"driver/host@tso6", "host_tso6", false},
    {"driver/host@ecn", "host_ecn", false},
    {"driver/host@ufo", "host_ufo", true},
    {"driver/host@mrg_rxbuf", "mrg_rxbuf", false},
    {"driver/guest@csum", "guest_csum", false},
    {"driver/guest@tso4", "guest_tso4", false},
    {"driver/guest@tso6", "guest_tso6", false},
    {"driver/guest@ecn", "guest_ecn", false},
    {"driver/guest@ufo", "guest_ufo", true},
    {"mtu@size", "host_mtu", false},
};

static void add_device(struct vm_args *a, struct xml_node *n, const char *backend)
{
    const char *model = xml_get_or(n, "model@type", "virtio"), *device = model;
    for (size_t i = 0; i < G_N_ELEMENTS(models); i++)
        if (!strcmp(models[i].model, model))
            device = models[i].device;
    bool virtio = g_str_has_prefix(device, "virtio");
    uint64_t queues = xml_get_u64(n, "driver@queues", 1);
    GString *s = opt_new(device);
    if (virtio && queues > 1) {
        opt_add(s, "mq", "on");
        opt_addf(s, "vectors", "%u", (unsigned)queues * 2 + 2);
    }
    opt_add(s, "netdev", backend);
    opt_add(s, "id", args_alias(n));
    opt_add(s, "mac", xml_get(n, "mac@address"));
    for (size_t i = 0; virtio && i < G_N_ELEMENTS(driver_words); i++)
        if (!driver_words[i].qemu || !a->ours)
            opt_add(s, driver_words[i].property, xml_get(n, driver_words[i].path));
    if (virtio && xml_get(n, "driver@txmode"))
        opt_add(s, "tx", xml_is(n, "driver@txmode", "timer") ? "timer" : "bh");
    args_boot_index(a, s, n);
    args_address(a, s, n);
    if (xml_is(n, "rom@enabled", "no"))
        g_string_append(s, ",romfile=");
    args_take_device(a, s);
}

bool args_interfaces(struct vm_args *a, GError **error)
{
    for (struct xml_node *n = xml_find(a->devices, "interface"); n; n = xml_next(n)) {
        g_autofree char *id = g_strconcat("host", args_alias(n), NULL);
        if (!add_backend(a, n, id, error))
            return false;
        add_device(a, n, id);
    }
    return true;
}
