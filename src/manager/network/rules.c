/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A network's firewall as text for nftables: what each mode means. Pure: text in, text out.
 *
 * Spec      libvirt's "Firewall and network filtering" and formatnetwork, forward modes, at 9.0.0.
 * Design    One table of the network's own. An accept in it only ends its own chain: whoever else
 * drops a packet still does, which obstacles.c tells.
 */
#include "manager/network/network_priv.h"
#include "manager/network/nft.h"

#include <string.h>

char *network_rules_table(const char *bridge)
{
    return nft_table_name("ruche_net_", bridge);
}

struct text {
    GString *s;
    const struct network_def *d;
    const char *dev; /* forward dev; NULL: any */
};

static void line(struct text *t, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void line(struct text *t, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_string_append(t->s, "    ");
    g_string_append_vprintf(t->s, format, ap);
    g_string_append_c(t->s, '\n');
    va_end(ap);
}

static const char *family_word(const struct net_subnet *s)
{
    return s->addr.v6 ? "ip6" : "ip";
}

static bool is_masqueraded(const struct text *t, const struct net_subnet *s)
{
    return t->d->mode == NETWORK_NAT &&
           (!s->addr.v6 || xml_is(t->d->root, "forward/nat@ipv6", "yes"));
}

/* To the machines, from outside: of NAT only answers, of a route what is for the subnet. */
static void forward_subnet(struct text *t, const struct net_subnet *s)
{
    char net[64];
    g_autofree char *in = t->dev ? g_strdup_printf("iifname \"%s\" ", t->dev) : g_strdup("");
    g_autofree char *out = t->dev ? g_strdup_printf("oifname \"%s\" ", t->dev) : g_strdup("");
    const char *answers = is_masqueraded(t, s) ? " ct state related,established" : "";
    net_subnet_format(s, net);
    line(t, "%soifname \"%s\" %s daddr %s%s accept", in, t->d->bridge, family_word(s), net,
         answers);
    line(t, "iifname \"%s\" %s%s saddr %s accept", t->d->bridge, out, family_word(s), net);
}

static void forward_chain(struct text *t)
{
    g_string_append(t->s, "  chain forward {\n");
    line(t, "type filter hook forward priority filter; policy accept;");
    line(t, "iifname \"%s\" oifname \"%s\" accept", t->d->bridge, t->d->bridge);
    for (unsigned i = 0; t->d->mode != NETWORK_ISOLATED && i < t->d->subnet_count; i++)
        forward_subnet(t, &t->d->subnets[i]);
    for (struct xml_node *r = t->d->mode == NETWORK_ROUTE ? xml_find(t->d->root, "route") : NULL; r;
         r = xml_next(r)) {
        struct net_subnet s;
        if (network_subnet_parse(r, &s, NULL))
            forward_subnet(t, &s);
    }
    line(t, "oifname \"%s\" reject with icmpx port-unreachable", t->d->bridge);
    line(t, "iifname \"%s\" reject with icmpx port-unreachable", t->d->bridge);
    g_string_append(t->s, "  }\n");
}

/* "masquerade to :1024-65535"; with addresses "snat ip to A-B:1024-65535". */
static char *translation(const struct text *t, const struct net_subnet *s, bool ports)
{
    const struct xml_node *nat = xml_find(t->d->root, "forward/nat");
    const char *from = xml_get(nat, "address@start"), *to = xml_get(nat, "address@end");
    g_autofree char *range =
        ports && xml_get(nat, "port@start")
            ? g_strdup_printf(":%s-%s", xml_get(nat, "port@start"), xml_get(nat, "port@end"))
            : g_strdup("");
    if (from && !s->addr.v6 && strcmp(from, to) != 0)
        return g_strdup_printf("snat ip to %s-%s%s", from, to, range);
    if (from && !s->addr.v6)
        return g_strdup_printf("snat ip to %s%s", from, range);
    return *range ? g_strdup_printf("masquerade to %s", range) : g_strdup("masquerade");
}

/* Multicast and broadcast of the link stay what they are: DHCP's answers and such have no other
 * address. */
static void masquerade_subnet(struct text *t, const struct net_subnet *s)
{
    char net[64];
    const char *f = family_word(s);
    net_subnet_format(s, net);
    g_autofree char *out = t->dev ? g_strdup_printf(" oifname \"%s\"", t->dev) : g_strdup("");
    g_autofree char *with_ports = translation(t, s, true), *plain = translation(t, s, false);
    if (s->addr.v6) {
        line(t, "ip6 saddr %s ip6 daddr ff02::/16%s return", net, out);
    } else {
        line(t, "ip saddr %s ip daddr 224.0.0.0/24%s return", net, out);
        line(t, "ip saddr %s ip daddr 255.255.255.255%s return", net, out);
    }
    line(t, "meta l4proto { tcp, udp } %s saddr %s %s daddr != %s%s %s", f, net, f, net, out,
         with_ports);
    line(t, "%s saddr %s %s daddr != %s%s %s", f, net, f, net, out, plain);
}

static void nat_chain(struct text *t)
{
    g_string_append(t->s, "  chain postrouting {\n");
    line(t, "type nat hook postrouting priority srcnat; policy accept;");
    for (unsigned i = 0; i < t->d->subnet_count; i++)
        if (is_masqueraded(t, &t->d->subnets[i]))
            masquerade_subnet(t, &t->d->subnets[i]);
    g_string_append(t->s, "  }\n");
}

char *network_rules(const struct network_def *d, bool fresh)
{
    if (!network_mode_has_own_bridge(d->mode) || d->mode == NETWORK_OPEN)
        return NULL;
    g_autofree char *table = network_rules_table(d->bridge);
    struct text t = {g_string_new(NULL), d, xml_get(d->root, "forward@dev")};
    if (fresh)
        g_string_append_printf(t.s, "create table inet %s\n", table);
    else
        g_string_append_printf(t.s, "add table inet %s\ndelete table inet %s\n", table, table);
    g_string_append_printf(t.s, "table inet %s {\n", table);
    forward_chain(&t);
    if (d->mode == NETWORK_NAT)
        nat_chain(&t);
    g_string_append(t.s, "}\n");
    return g_string_free(t.s, FALSE);
}
