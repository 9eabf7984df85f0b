/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is wrong with a network's description only when its parts are looked at together.
 *
 * Spec      libvirt's formatnetwork at 9.0.0. What a forward mode takes: network_check_mode.c.
 */
#include "manager/network/network_priv.h"

#include <string.h>

#define REFUSE NETWORK_REFUSE

/* ---- names of interfaces ---- */

static bool check_ifname(const struct network_def *d, const char *what, const char *name,
                         GError **error)
{
    if (!name)
        return true;
    if (!*name || strlen(name) > NETWORK_IFNAME_MAX)
        return REFUSE(d, error, "%s '%.64s' has %zu bytes; names of interfaces have 1 to %d", what,
                      name, strlen(name), NETWORK_IFNAME_MAX);
    if (strpbrk(name, "/ \\:") || !strcmp(name, ".") || !strcmp(name, ".."))
        return REFUSE(d, error, "%s '%s' cannot be the name of an interface", what, name);
    return true;
}

static bool check_names(const struct network_def *d, GError **error)
{
    if (!check_ifname(d, "bridge", d->bridge, error) ||
        !check_ifname(d, "forward dev", xml_get(d->root, "forward@dev"), error))
        return false;
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    FOREACH_NAMED (i, d->root, "forward/interface") {
        if (!check_ifname(d, "interface", xml_get(i, "@dev"), error))
            return false;
        if (!g_hash_table_add(seen, (void *)xml_get(i, "@dev")))
            return REFUSE(d, error, "interface '%s' is there twice", xml_get(i, "@dev"));
    }
    return true;
}

/* ---- addresses ---- */

struct range {
    struct net_addr start, end;
};

static bool check_in_subnet(const struct network_def *d, const struct net_subnet *s,
                            const char *what, const char *text, struct net_addr *ret,
                            GError **error)
{
    char subnet[64];
    net_subnet_format(s, subnet);
    if (!net_addr_parse(text, ret) || ret->v6 != s->addr.v6 || !net_subnet_has(s, ret))
        return REFUSE(d, error, "%s '%s' is not in %s", what, text, subnet);
    struct net_addr first = net_subnet_first(s), last = net_subnet_last(s);
    bool edges = !s->addr.v6 && s->prefix < 31;
    if (edges && (!net_addr_cmp(ret, &first) || !net_addr_cmp(ret, &last)))
        return REFUSE(d, error, "%s '%s' is the %s address of %s", what, text,
                      net_addr_cmp(ret, &first) ? "broadcast" : "network", subnet);
    return true;
}

static bool check_lease(const struct network_def *d, const struct xml_node *n, GError **error)
{
    const struct xml_node *l = xml_find(n, "lease");
    uint64_t unit = !l || xml_is(l, "@unit", "seconds") ? 1
                    : xml_is(l, "@unit", "hours")       ? 3600
                                                        : 60;
    uint64_t seconds = l ? xml_get_u64(l, "@expiry", 0) * unit : 0;
    return !seconds || (seconds >= 120 && seconds <= UINT32_MAX) ||
           REFUSE(d, error,
                  "a lease of %s %s is not from 2 minutes to 4294967295 seconds; 0 is for ever",
                  xml_get(l, "@expiry"), xml_get_or(l, "@unit", "minutes"));
}

static bool check_range(const struct network_def *d, const struct net_subnet *s,
                        const struct xml_node *n, GArray *ranges, GError **error)
{
    struct range r;
    const char *start = xml_get(n, "@start"), *end = xml_get(n, "@end");
    if (!check_in_subnet(d, s, "the start of DHCP range", start, &r.start, error) ||
        !check_in_subnet(d, s, "the end of DHCP range", end, &r.end, error))
        return false;
    if (net_addr_cmp(&r.start, &r.end) > 0)
        return REFUSE(d, error, "DHCP range ends (%s) before it starts (%s)", end, start);
    for (unsigned i = 0; i < ranges->len; i++) {
        const struct range *o = &g_array_index(ranges, struct range, i);
        if (net_addr_cmp(&r.start, &o->end) <= 0 && net_addr_cmp(&o->start, &r.end) <= 0)
            return REFUSE(d, error, "DHCP range %s - %s overlaps another", start, end);
    }
    g_array_append_val(ranges, r);
    return check_lease(d, n, error);
}

struct host_check {
    const struct network_def *d;
    const struct net_subnet *subnet;
    GHashTable *seen; /* "mac 52:54:00:..." */
};

static bool once(struct host_check *c, const struct xml_node *host, const char *attr,
                 GError **error)
{
    const char *v = xml_get(host, attr);
    if (!v)
        return true;
    return g_hash_table_add(c->seen, g_strdup_printf("%s %s", attr, v)) ||
           REFUSE(c->d, error, "two DHCP hosts have %s '%s'", attr + 1, v);
}

static bool check_host(struct host_check *c, const struct xml_node *host, GError **error)
{
    static const char *const unique[] = {"@mac", "@id", "@ip", "@name"};
    const char *mac = xml_get(host, "@mac"), *id = xml_get(host, "@id"),
               *name = xml_get(host, "@name"), *ip = xml_get(host, "@ip");
    bool v6 = c->subnet->addr.v6;
    struct net_addr a;
    if (v6 && mac)
        return REFUSE(c->d, error,
                      "DHCP host '%s': DHCPv6 knows hosts by id or name, not by MAC address", mac);
    if (!v6 && id)
        return REFUSE(c->d, error, "DHCP host '%s': id is for DHCPv6; use mac", id);
    if (!mac && !id && !name)
        return REFUSE(c->d, error, "a DHCP host has neither %s nor a name",
                      v6 ? "an id" : "a MAC address");
    if (!ip && (v6 || !mac || !name))
        return REFUSE(c->d, error, "DHCP host '%s' has no ip", mac ? mac : id ? id : name);
    if (ip && !check_in_subnet(c->d, c->subnet, "DHCP host", ip, &a, error))
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(unique); i++)
        if (!once(c, host, unique[i], error))
            return false;
    return check_lease(c->d, host, error);
}

static bool check_dhcp(const struct network_def *d, const struct net_subnet *s,
                       const struct xml_node *dhcp, GError **error)
{
    g_autoptr(GArray) ranges = g_array_new(FALSE, FALSE, sizeof(struct range));
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    struct host_check c = {d, s, seen};
    FOREACH_NAMED (r, dhcp, "range")
        if (!check_range(d, s, r, ranges, error))
            return false;
    FOREACH_NAMED (h, dhcp, "host")
        if (!check_host(&c, h, error))
            return false;
    if (s->addr.v6 && xml_find(dhcp, "bootp"))
        return REFUSE(d, error, "bootp is for IPv4");
    return true;
}

static bool check_overlaps(const struct network_def *d, GError **error)
{
    char a[64], b[64];
    for (unsigned i = 0; i < d->subnet_count; i++)
        for (unsigned k = i + 1; k < d->subnet_count; k++)
            if (net_subnets_overlap(&d->subnets[i], &d->subnets[k])) {
                net_subnet_format(&d->subnets[i], a);
                net_subnet_format(&d->subnets[k], b);
                return REFUSE(d, error, "its subnets %s and %s overlap", a, b);
            }
    return true;
}

static bool check_addresses(const struct network_def *d, GError **error)
{
    bool served[2] = {false};
    unsigned i = 0;
    FOREACH_NAMED (ip, d->root, "ip") {
        const struct net_subnet *s = &d->subnets[i++];
        const struct xml_node *dhcp = xml_find(ip, "dhcp");
        struct net_addr self;
        if (!check_in_subnet(d, s, "address", xml_get(ip, "@address"), &self, error))
            return false;
        if (xml_is(ip, "@localPtr", "yes") && s->prefix % (s->addr.v6 ? 4 : 8))
            return REFUSE(d, error, "localPtr needs a prefix that %u divides, not %u",
                          s->addr.v6 ? 4 : 8, s->prefix);
        if (xml_find(ip, "tftp") && s->addr.v6)
            return REFUSE(d, error, "tftp is for IPv4");
        if (!dhcp)
            continue;
        if (served[s->addr.v6])
            return REFUSE(d, error, "two <ip> of family '%s' have <dhcp>; one can",
                          s->addr.v6 ? "ipv6" : "ipv4");
        served[s->addr.v6] = true;
        if (!check_dhcp(d, s, dhcp, error))
            return false;
    }
    return check_overlaps(d, error);
}

static bool check_route(const struct network_def *d, const struct xml_node *n, GError **error)
{
    struct net_subnet to;
    struct net_addr gateway;
    g_autoptr(GError) inner = NULL;
    if (!network_subnet_parse(n, &to, &inner))
        return REFUSE(d, error, "route: %s", inner->message);
    struct net_addr first = net_subnet_first(&to);
    if (net_addr_cmp(&first, &to.addr) != 0)
        return REFUSE(d, error, "route: '%s' is not the first address of a subnet with prefix %u",
                      xml_get(n, "@address"), to.prefix);
    if (!net_addr_parse(xml_get(n, "@gateway"), &gateway) || gateway.v6 != to.addr.v6)
        return REFUSE(d, error, "route: gateway '%s' is of another family", xml_get(n, "@gateway"));
    for (unsigned i = 0; i < d->subnet_count; i++)
        if (net_subnet_has(&d->subnets[i], &gateway))
            return true;
    return REFUSE(d, error, "route: gateway '%s' is in no <ip> of the network",
                  xml_get(n, "@gateway"));
}

/* ---- names ---- */

static bool check_dns(const struct network_def *d, GError **error)
{
    static const char *const of_target[] = {"@port", "@priority", "@weight", NULL};
    const struct xml_node *domain = xml_find(d->root, "domain");
    if (domain && xml_is(domain, "@register", "yes"))
        return REFUSE(d, error,
                      "domain register='yes': names are not told to systemd-resolved; resolvectl "
                      "domain BRIDGE '~%s' does it",
                      xml_get(domain, "@name"));
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    FOREACH_NAMED (f, d->root, "dns/forwarder")
        if (!xml_get(f, "@addr") && !xml_get(f, "@domain"))
            return REFUSE(d, error, "dns/forwarder has neither addr nor domain");
    FOREACH_NAMED (h, d->root, "dns/host")
        if (!g_hash_table_add(seen, (void *)xml_get(h, "@ip")))
            return REFUSE(d, error, "two dns/host have ip '%s'", xml_get(h, "@ip"));
    FOREACH_NAMED (s, d->root, "dns/srv")
        for (const char *const *a = of_target; *a; a++)
            if (xml_get(s, *a) && !xml_get(s, "@target"))
                return REFUSE(d, error, "dns/srv '%s' has a %s but no target",
                              xml_get(s, "@service"), *a + 1);
    FOREACH_NAMED (t, d->root, "dns/txt")
        if (strpbrk(xml_get(t, "@value"), "\""))
            return REFUSE(d, error, "dns/txt '%s': a value cannot have '\"' in it",
                          xml_get(t, "@name"));
    return true;
}

bool network_check(struct network_def *d, GError **error)
{
    if (!check_names(d, error) || !network_check_mode(d, error) || !check_addresses(d, error) ||
        !check_dns(d, error))
        return false;
    FOREACH_NAMED (r, d->root, "route")
        if (!check_route(d, r, error))
            return false;
    return true;
}
