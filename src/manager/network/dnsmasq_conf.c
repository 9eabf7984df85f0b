/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a network asks of dnsmasq, as its configuration file. Pure: a description in, text out.
 *
 * Spec      dnsmasq(8); libvirt's formatnetwork at 9.0.0 says what the elements mean.
 * Trust     The description was checked: no control characters, names of known characters.
 */
#include "manager/network/network_priv.h"

#include <string.h>

static void put(GString *s, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void put(GString *s, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_string_append_vprintf(s, format, ap);
    va_end(ap);
    g_string_append_c(s, '\n');
}

bool network_dnsmasq_needed(const struct network_def *d)
{
    return network_mode_has_own_bridge(d->mode) && d->subnet_count &&
           (!xml_is(d->root, "dns@enable", "no") || xml_find(d->root, "ip/dhcp"));
}

/* ---- names ---- */

static void put_forwarders(GString *s, const struct xml_node *root)
{
    bool elsewhere = false;
    FOREACH_NAMED (f, root, "dns/forwarder") {
        const char *domain = xml_get(f, "@domain"), *addr = xml_get(f, "@addr");
        if (domain)
            put(s, "server=/%s/%s", domain, addr ? addr : "#");
        else
            put(s, "server=%s", addr);
        elsewhere |= !domain;
    }
    if (elsewhere)
        put(s, "no-resolv");
}

/* Between quotes it reads escapes: "\t" would become a tab, and a last "\" hide the end. */
static void put_txt(GString *s, const struct xml_node *n)
{
    g_auto(GStrv) parts = g_strsplit(xml_get(n, "@value"), "\\", -1);
    g_autofree char *value = g_strjoinv("\\\\", parts);
    put(s, "txt-record=%s,\"%s\"", xml_get(n, "@name"), value);
}

/* A target without a port is no service there. */
static void put_srv(GString *s, const struct xml_node *n)
{
    const char *domain = xml_get(n, "@domain"), *target = xml_get(n, "@target");
    g_string_append_printf(s, "srv-host=_%s._%s", xml_get(n, "@service"), xml_get(n, "@protocol"));
    if (domain)
        g_string_append_printf(s, ".%s", domain);
    if (target)
        g_string_append_printf(s, ",%s,%s,%s,%s", target, xml_get_or(n, "@port", "1"),
                               xml_get_or(n, "@priority", "0"), xml_get_or(n, "@weight", "0"));
    g_string_append_c(s, '\n');
}

static void put_dns(GString *s, const struct network_def *d)
{
    const struct xml_node *root = d->root;
    const char *domain = xml_get(root, "domain@name");
    if (xml_is(root, "dns@enable", "no")) {
        put(s, "port=0");
        return;
    }
    if (xml_is(root, "dns@forwardPlainNames", "no"))
        put(s, "domain-needed\nlocal=//");
    if (domain && xml_is(root, "domain@localOnly", "yes"))
        put(s, "local=/%s/", domain);
    if (d->mode == NETWORK_ISOLATED)
        put(s, "no-resolv");
    put_forwarders(s, root);
    FOREACH_NAMED (t, root, "dns/txt")
        put_txt(s, t);
    FOREACH_NAMED (v, root, "dns/srv")
        put_srv(s, v);
    FOREACH_NAMED (h, root, "dns/host") {
        g_string_append(s, "host-record=");
        FOREACH_NAMED (n, h, "hostname")
            g_string_append_printf(s, "%s,", xml_get(n, ""));
        put(s, "%s", xml_get(h, "@ip"));
    }
}

/* ---- addresses ---- */

static char *lease_time(const struct xml_node *n)
{
    const struct xml_node *l = xml_find(n, "lease");
    if (!l)
        return g_strdup("");
    if (xml_is(l, "@expiry", "0"))
        return g_strdup(",infinite");
    const char *unit = xml_get_or(l, "@unit", "minutes");
    return g_strdup_printf(",%s%s", xml_get(l, "@expiry"),
                           !strcmp(unit, "seconds") ? ""
                           : unit[0] == 'h'         ? "h"
                                                    : "m");
}

/* How many addresses the range has, at most NETWORK_LEASES_MAX. */
static unsigned range_size(const struct xml_node *r)
{
    struct net_addr a, b;
    uint64_t from = 0, to = 0;
    if (!net_addr_parse(xml_get(r, "@start"), &a) || !net_addr_parse(xml_get(r, "@end"), &b))
        return 0;
    unsigned len = net_addr_bits(&a) / 8;
    if (memcmp(a.b, b.b, len - 4))
        return NETWORK_LEASES_MAX;
    for (unsigned i = len - 4; i < len; i++) {
        from = from << 8 | a.b[i];
        to = to << 8 | b.b[i];
    }
    return (unsigned)MIN(to - from + 1, NETWORK_LEASES_MAX);
}

static unsigned put_ranges(GString *s, const struct net_subnet *n, const struct xml_node *dhcp)
{
    unsigned leases = 0;
    char mask[64];
    struct net_addr m = net_prefix_mask(n->addr.v6, n->prefix);
    net_addr_format(&m, mask);
    FOREACH_NAMED (r, dhcp, "range") {
        g_autofree char *time = lease_time(r);
        if (n->addr.v6)
            put(s, "dhcp-range=%s,%s,%u%s", xml_get(r, "@start"), xml_get(r, "@end"),
                MAX(n->prefix, 64), time);
        else
            put(s, "dhcp-range=%s,%s,%s%s", xml_get(r, "@start"), xml_get(r, "@end"), mask, time);
        leases += range_size(r);
    }
    if (!xml_find(dhcp, "range") && xml_find(dhcp, "host")) {
        char first[64];
        struct net_addr a = net_subnet_first(n);
        net_addr_format(&a, first);
        if (n->addr.v6)
            put(s, "dhcp-range=%s,static,%u", first, MAX(n->prefix, 64));
        else
            put(s, "dhcp-range=%s,static", first);
    }
    return leases;
}

static void put_hosts(GString *s, const struct net_subnet *n, const struct xml_node *dhcp)
{
    FOREACH_NAMED (h, dhcp, "host") {
        const char *mac = xml_get(h, "@mac"), *id = xml_get(h, "@id"), *name = xml_get(h, "@name"),
                   *ip = xml_get(h, "@ip");
        g_autofree char *time = lease_time(h);
        g_autoptr(GString) line = g_string_new("dhcp-host=");
        if (id || mac)
            g_string_append_printf(line, "%s%s,", id ? "id:" : "", id ? id : mac);
        if (name)
            g_string_append_printf(line, "%s,", name);
        if (ip)
            g_string_append_printf(line, n->addr.v6 ? "[%s]" : "%s", ip);
        else
            g_string_truncate(line, line->len - 1);
        put(s, "%s%s", line->str, time);
    }
}

static void put_boot(GString *s, const struct xml_node *ip, const struct net_subnet *n)
{
    const char *root = xml_get(ip, "tftp@root"), *file = xml_get(ip, "dhcp/bootp@file"),
               *server = xml_get(ip, "dhcp/bootp@server");
    if (root)
        put(s, "enable-tftp\ntftp-root=%s", root);
    if (file && server)
        put(s, "dhcp-boot=%s%s%s", file, g_ascii_isdigit(*server) ? ",," : ",", server);
    else if (file)
        put(s, "dhcp-boot=%s", file);
}

/* Without a way out no router is told: option 3 and advertisements without a lifetime. */
static void put_dhcp(GString *s, const struct network_def *d)
{
    unsigned leases = 0, i = 0;
    bool v6 = false, served = false;
    uint64_t mtu = xml_get_u64(d->root, "mtu@size", 0);
    FOREACH_NAMED (ip, d->root, "ip") {
        const struct net_subnet *n = &d->subnets[i++];
        const struct xml_node *dhcp = xml_find(ip, "dhcp");
        put_boot(s, ip, n);
        if (n->addr.v6) {
            char first[64];
            struct net_addr a = net_subnet_first(n);
            net_addr_format(&a, first);
            if (!dhcp)
                put(s, "dhcp-range=%s,ra-only", first);
            v6 = true;
        }
        if (!dhcp)
            continue;
        served |= !n->addr.v6;
        leases += put_ranges(s, n, dhcp);
        put_hosts(s, n, dhcp);
    }
    if (v6)
        put(s, "enable-ra");
    if (v6 && d->mode == NETWORK_ISOLATED)
        put(s, "ra-param=*,0,0");
    if (served && d->mode == NETWORK_ISOLATED)
        put(s, "dhcp-option=3");
    if (served && mtu)
        put(s, "dhcp-option=option:mtu,%u", (unsigned)mtu);
    if (leases)
        put(s, "dhcp-no-override\ndhcp-authoritative\ndhcp-lease-max=%u", MIN(leases, NETWORK_LEASES_MAX));
}

/* Reverse names of the subnet are not asked for elsewhere. */
static void put_reverse(GString *s, const struct net_subnet *n)
{
    unsigned step = n->addr.v6 ? 4 : 8;
    g_string_append(s, "local=/");
    for (unsigned digit = n->prefix / step; digit--;)
        if (n->addr.v6)
            g_string_append_printf(s, "%x.", n->addr.b[digit / 2] >> (digit % 2 ? 0 : 4) & 15);
        else
            g_string_append_printf(s, "%u.", n->addr.b[digit]);
    put(s, "%s/", n->addr.v6 ? "ip6.arpa" : "in-addr.arpa");
}

char *network_dnsmasq_conf(const struct network_def *d, const char *pid_path,
                           const char *lease_path, const char *user)
{
    GString *s = g_string_new(
        "# Of Ruche, for the time that the network runs: `ruche network edit` changes it.\n");
    unsigned i = 0;
    put(s, "strict-order\nbind-dynamic\nexcept-interface=lo\ninterface=%s", d->bridge);
    put(s, "pid-file=%s\ndhcp-leasefile=%s", pid_path, lease_path);
    if (user)
        put(s, "user=%s", user);
    if (xml_get(d->root, "domain@name"))
        put(s, "domain=%s\nexpand-hosts", xml_get(d->root, "domain@name"));
    put_dns(s, d);
    FOREACH_NAMED (ip, d->root, "ip") {
        const struct net_subnet *n = &d->subnets[i++];
        if (xml_is(ip, "@localPtr", "yes"))
            put_reverse(s, n);
    }
    put_dhcp(s, d);
    FOREACH_NAMED (o, d->root, "dnsmasq:options/dnsmasq:option")
        put(s, "%s", xml_get(o, "@value"));
    return g_string_free(s, FALSE);
}
