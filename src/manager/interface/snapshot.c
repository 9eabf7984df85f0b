/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel's state of interfaces, as a document that it can be made again from.
 *
 * Form      <snapshot boot=''><link name='' index='' kind='' master='' mtu='' mac='' up='' .../>
 *           <address link='' raw=''/><route link='' raw=''/><replaced link='' raw=''/></snapshot>;
 *           raw: the kernel's own message in hexadecimal digits; replaced: a default route of others
 *           that gives way. Written and read by the manager alone.
 * Thread    Taking: any. Restoring: workers.
 */
#include "base/log.h"
#include "manager/interface/interface_priv.h"
#include "manager/netlink.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>

enum { RAW_MAX = 16384 };

static const char *const settings[] = {"accept_ra", "autoconf", "disable_ipv6"};

char *snapshot_boot(void)
{
    char *text = NULL;
    if (g_file_get_contents("/proc/sys/kernel/random/boot_id", &text, NULL, NULL))
        return g_strchomp(text);
    return g_strdup("");
}

/* ---- taking ---- */

static bool has_name(const GPtrArray *names, const char *name)
{
    for (unsigned i = 0; i < names->len; i++)
        if (!strcmp(names->pdata[i], name))
            return true;
    return false;
}

static void add_raw(struct xml_node *root, const char *what, const char *link, GBytes *raw)
{
    gsize len = 0;
    const uint8_t *data = g_bytes_get_data(raw, &len);
    g_autoptr(GString) hex = g_string_sized_new(2 * len);
    for (gsize i = 0; i < len; i++)
        g_string_append_printf(hex, "%02x", data[i]);
    struct xml_node *n = xml_add(root, what);
    xml_set(n, "@link", link);
    xml_set(n, "@raw", hex->str);
}

static void add_link(struct xml_node *root, const struct host *h, const struct host_link *l)
{
    struct xml_node *n = xml_add(root, "link");
    const struct host_link *master = host_at(h, l->master);
    xml_set(n, "@name", l->name);
    xml_set_f(n, "@index", "%d", l->index);
    xml_set(n, "@kind", l->kind);
    if (master)
        xml_set(n, "@master", master->name);
    xml_set_f(n, "@mtu", "%u", l->mtu);
    xml_set(n, "@mac", l->mac);
    xml_set(n, "@up", host_is_up(l) ? "yes" : "no");
    for (unsigned i = 0; i < G_N_ELEMENTS(settings); i++) {
        g_autofree char *path =
                            g_strdup_printf("/proc/sys/net/ipv6/conf/%s/%s", l->name, settings[i]),
                        *value = NULL, *attr = g_strconcat("@", settings[i], NULL);
        if (g_file_get_contents(path, &value, NULL, NULL))
            xml_set(n, attr, g_strchomp(value));
    }
}

/* The kernel has one route to a place: a gateway of the description takes that of others. */
static void add_replaced(struct xml_node *root, const struct host *h, const GPtrArray *names,
                         const struct xml_node *def)
{
    GBytes *last = NULL;
    FOREACH_OF(host_path, p, h->paths)
    {
        const struct host_link *l = host_at(h, p->index);
        const struct xml_node *protocol = interface_protocol(def, p->to.addr.v6);
        if (p->to.prefix || !l || has_name(names, l->name) || !protocol ||
            !xml_find(protocol, "route") || p->raw == last)
            continue;
        add_raw(root, "replaced", l->name, p->raw);
        last = p->raw;
    }
}

struct xml_node *snapshot_take(GPtrArray *names, const struct xml_node *def)
{
    auto_host *h = host_read();
    struct xml_node *root = xml_new("snapshot");
    g_autofree char *boot = snapshot_boot();
    xml_set(root, "@boot", boot);
    FOREACH_OF(host_link, l, h->links)
    {
        if (names ? !has_name(names, l->name) : host_is_tap(l))
            continue;
        add_link(root, h, l);
        FOREACH_OF(host_address, a, h->addresses)
        if (a->index == l->index)
            add_raw(root, "address", l->name, a->raw);
        GBytes *last = NULL; /* of two next hops by the same interface one says it all */
        FOREACH_OF(host_path, p, h->paths)
        if (p->index == l->index && p->protocol != RTPROT_KERNEL && p->raw != last) {
            add_raw(root, "route", l->name, p->raw);
            last = p->raw;
        }
    }
    if (def)
        add_replaced(root, h, names, def);
    return root;
}

/* ---- restoring ---- */

static GBytes *raw_of(const struct xml_node *n)
{
    const char *hex = xml_get_or(n, "@raw", "");
    size_t len = strlen(hex) / 2;
    if (!len || len > RAW_MAX)
        return NULL;
    uint8_t *data = g_malloc(len);
    for (size_t i = 0; i < len; i++)
        data[i] =
            (uint8_t)(g_ascii_xdigit_value(hex[2 * i]) << 4 | g_ascii_xdigit_value(hex[2 * i + 1]));
    return g_bytes_new_take(data, len);
}

static struct xml_node *find_link(const struct xml_node *root, const char *name)
{
    struct xml_node *l = xml_find(root, "link");
    while (l && !xml_is(l, "@name", name))
        l = xml_next(l);
    return l;
}

static void drop_made(const struct xml_node *root, const GPtrArray *wanted)
{
    for (unsigned i = 0; i < wanted->len; i++) {
        const char *name = wanted->pdata[i];
        bool ours =
            netlink_is(name, "bridge") || netlink_is(name, "bond") || netlink_is(name, "vlan");
        if (ours && !find_link(root, name))
            netlink_delete(name);
    }
}

/* A port of a bond has its bond's address: its own comes back by itself when it leaves. */
static int restore_link(const struct xml_node *l, const struct host *h)
{
    const char *name = xml_get(l, "@name"), *master = xml_get(l, "@master");
    const struct host_link *now = host_find(h, name);
    uint8_t mac[6];
    unsigned index = if_nametoindex(name), wanted = master ? if_nametoindex(master) : 0;
    int err = 0;
    if (!now || !index)
        return 0;
    if ((unsigned)now->master != wanted && (wanted || now->master)) {
        struct nl_msg *m = netlink_link(RTM_NEWLINK, NLM_F_ACK, NULL, index);
        nla_put_u32(m, IFLA_MASTER, wanted);
        err = netlink_do(m);
    }
    struct nl_msg *m = netlink_link(RTM_NEWLINK, NLM_F_ACK, NULL, index);
    if (netlink_parse_mac(xml_get(l, "@mac"), mac) && strcmp(now->mac, xml_get(l, "@mac")) != 0)
        nla_put(m, IFLA_ADDRESS, sizeof(mac), mac);
    nla_put_u32(m, IFLA_MTU, (uint32_t)xml_get_u64(l, "@mtu", now->mtu));
    int set = netlink_do(m);
    for (unsigned i = 0; i < G_N_ELEMENTS(settings); i++) {
        g_autofree char *attr = g_strconcat("@", settings[i], NULL);
        if (xml_get(l, attr))
            netlink_setting(xml_get(l, attr), "ipv6/conf/%s/%s", name, settings[i]);
    }
    int up = netlink_up(name, xml_is(l, "@up", "yes"));
    return err ? err : set ? set : up;
}

/* Is that message of the kernel among the snapshot's? Addresses by what they are, routes by where
 * they lead. */
static bool keeps_address(const struct xml_node *root, const char *name,
                          const struct host_address *a)
{
    for (const struct xml_node *n = xml_find(root, "address"); n; n = xml_next(n)) {
        g_autoptr(GBytes) raw = xml_is(n, "@link", name) ? raw_of(n) : NULL;
        gsize len = 0;
        const struct ifaddrmsg *i = raw ? g_bytes_get_data(raw, &len) : NULL;
        if (!i || len < sizeof(*i) || i->ifa_prefixlen != a->s.prefix ||
            (i->ifa_family == AF_INET6) != a->s.addr.v6)
            continue;
        struct nlattr *first =
            (struct nlattr *)(void *)((char *)(uintptr_t)i + NLMSG_ALIGN(sizeof(*i)));
        int left = (int)(len - NLMSG_ALIGN(sizeof(*i)));
        struct nlattr *local = nla_find(first, left, IFA_LOCAL);
        if (!local)
            local = nla_find(first, left, IFA_ADDRESS);
        int size = a->s.addr.v6 ? 16 : 4;
        if (local && nla_len(local) >= size && !memcmp(nla_data(local), a->s.addr.b, (size_t)size))
            return true;
    }
    return false;
}

static bool keeps_path(const struct xml_node *root, const char *name, const struct host_path *p)
{
    for (const struct xml_node *n = xml_find(root, "route"); n; n = xml_next(n)) {
        g_autoptr(GBytes) raw = xml_is(n, "@link", name) ? raw_of(n) : NULL;
        if (raw && g_bytes_equal(raw, p->raw))
            return true;
    }
    return false;
}

static void drop_new(const struct xml_node *root, const char *name, const struct host *h)
{
    const struct host_link *l = host_find(h, name);
    if (!l)
        return;
    FOREACH_OF(host_path, p, h->paths)
    if (p->index == l->index && p->protocol != RTPROT_KERNEL && !keeps_path(root, name, p))
        interface_replay(RTM_DELROUTE, p->raw, NULL, 0, l->index);
    FOREACH_OF(host_address, a, h->addresses)
    if (a->index == l->index && !keeps_address(root, name, a))
        interface_replay(RTM_DELADDR, a->raw, NULL, 0, l->index);
}

static void replay_all(const struct xml_node *root, const char *what, int type,
                       const GPtrArray *wanted)
{
    for (const struct xml_node *n = xml_find(root, what); n; n = xml_next(n)) {
        const char *name = xml_get_or(n, "@link", "");
        unsigned index = has_name(wanted, name) ? if_nametoindex(name) : 0;
        g_autoptr(GBytes) raw = index ? raw_of(n) : NULL;
        const struct xml_node *link = raw ? find_link(root, name) : NULL;
        int was = link ? (int)xml_get_u64(link, "@index", 0) : 0;
        if (raw)
            interface_replay(type, raw, &was, 1, (int)index);
    }
}

static bool has_default(const struct host *h, bool v6)
{
    FOREACH_OF(host_path, p, h->paths)
    if (!p->to.prefix && p->to.addr.v6 == v6)
        return true;
    return false;
}

/* Unless the host has got another one meanwhile. */
static void put_back(const struct xml_node *root)
{
    auto_host *h = host_read();
    for (const struct xml_node *n = xml_find(root, "replaced"); n; n = xml_next(n)) {
        unsigned index = if_nametoindex(xml_get_or(n, "@link", ""));
        g_autoptr(GBytes) raw = index ? raw_of(n) : NULL;
        const uint8_t *family = raw ? g_bytes_get_data(raw, NULL) : NULL; /* of its rtmsg */
        if (raw && !has_default(h, *family == AF_INET6))
            interface_replay(RTM_NEWROUTE, raw, NULL, 0, (int)index);
    }
}

bool snapshot_restore(const struct xml_node *root, GPtrArray *wanted, GError **error)
{
    int err = 0;
    const char *culprit = NULL;
    drop_made(root, wanted);
    auto_host *h = host_read();
    for (const struct xml_node *l = xml_find(root, "link"); l; l = xml_next(l)) {
        const char *name = xml_get_or(l, "@name", "");
        int now = has_name(wanted, name) ? restore_link(l, h) : 0;
        culprit = now ? name : culprit;
        err = now ? now : err;
    }
    for (unsigned i = 0; i < wanted->len; i++)
        if (find_link(root, wanted->pdata[i]))
            drop_new(root, wanted->pdata[i], h);
    replay_all(root, "address", RTM_NEWADDR, wanted);
    /* A second time for those that stand on a later one. */
    for (int i = 0; i < 2; i++)
        replay_all(root, "route", RTM_NEWROUTE, wanted);
    put_back(root);
    return !err ||
           ruche_error_errno(error, err, "interface '%s' cannot be set back as it was", culprit);
}
