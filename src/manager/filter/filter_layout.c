/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of an interface: its chains, and where frames come to them. See filter_work.h.
 *
 * Frames of a machine come in by "prerouting", those for it leave by "postrouting" of the bridge.
 * At each there are two chains of the kernel, one behind the other, as libvirt has ebtables and
 * iptables: who accepts in the first has not accepted for the second. A filter's chain is a chain
 * of ours, to which "root" jumps at the chain's priority; all filters of the same chain share it.
 * Frames for the bridge's own group of addresses do not pass "prerouting" where the bridge takes
 * them in itself: they are looked at in "input".
 *
 * Frames for the machine that are to be answered are looked at where they come in, too: its rules
 * once more, for those of its bridge and its MAC address. What the host itself sends does not come
 * in anywhere, and is dropped.
 */
#include "manager/filter/filter_work.h"
#include "manager/network/nft.h"

#include <string.h>

static gint by_place(gconstpointer a, gconstpointer b)
{
    const struct filter_line *x = *(struct filter_line *const *)a,
                             *y = *(struct filter_line *const *)b;
    int chain = strcmp(x->chain, y->chain);
    if (chain)
        return chain;
    if (x->priority != y->priority)
        return x->priority < y->priority ? -1 : 1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* What frames a chain is for; its name begins with it. */
static const char *match_of(const char *chain)
{
    static const char *const rows[][2] = {{"stp", "ether daddr 01:80:c2:00:00:00 "},
                                          {"vlan", "ether type vlan "},
                                          {"ipv4", "ether type ip "},
                                          {"ipv6", "ether type ip6 "},
                                          {"arp", "ether type arp "},
                                          {"rarp", "ether type 0x8035 "}};
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        if (g_str_has_prefix(chain, rows[i][0]))
            return rows[i][1];
    return "";
}

static char *chain_name(bool to, const char *chain)
{
    return !strcmp(chain, filter_ip_chain) ? g_strdup(to ? "to_ip" : "from_ip")
                                           : nft_table_name(to ? "to_l2_" : "from_l2_", chain);
}

static bool has_chain(const struct filter_work *w, bool to, const char *chain)
{
    for (unsigned i = 0; i < w->lines->len; i++) {
        const struct filter_line *l = w->lines->pdata[i];
        if (l->to == to && !strcmp(l->chain, chain))
            return true;
    }
    return false;
}

static bool add_jumps(struct filter_work *w, bool to, GError **error)
{
    g_autoptr(GList) names = g_list_sort(g_hash_table_get_keys(w->chains), (GCompareFunc)strcmp);
    for (GList *n = names; n; n = n->next) {
        const struct filter_chain *c = g_hash_table_lookup(w->chains, n->data);
        if (!has_chain(w, to, n->data))
            continue;
        g_autofree char *target = chain_name(to, n->data);
        char *text = g_strdup_printf("%sjump %s", match_of(n->data), target);
        if (!filter_add_line(w, "root", to, c->priority, text, NULL, error))
            return false;
    }
    return true;
}

static void write_lines(GString *s, const struct filter_work *w, bool to)
{
    const char *open = NULL;
    for (unsigned i = 0; i < w->lines->len; i++) {
        const struct filter_line *l = w->lines->pdata[i];
        if (l->to != to)
            continue;
        if (!open || strcmp(open, l->chain) != 0) {
            g_autofree char *name = chain_name(to, l->chain);
            g_string_append_printf(s, "%s\tchain %s {\n", open ? "\t}\n" : "", name);
            open = l->chain;
        }
        g_string_append_printf(s, "\t\t%s\n", l->text + strspn(l->text, " "));
    }
    if (open)
        g_string_append(s, "\t}\n");
}

/* The same lines as to_ip's, with their answers. */
static bool write_early_lines(GString *s, const struct filter_work *w)
{
    bool any = false;
    for (unsigned i = 0; i < w->lines->len; i++) {
        const struct filter_line *l = w->lines->pdata[i];
        any |= l->early != NULL;
    }
    if (!any || !w->bridge)
        return false;
    g_string_append(s, "\tchain to_ip_early {\n");
    for (unsigned i = 0; i < w->lines->len; i++) {
        const struct filter_line *l = w->lines->pdata[i];
        if (l->to && !strcmp(l->chain, filter_ip_chain))
            g_string_append_printf(s, "\t\t%s\n", l->early ? l->early : l->text);
    }
    g_string_append(s, "\t}\n");
    return true;
}

static void hook(GString *s, const char *name, const char *where, int priority, const char *match,
                 const char *ifname, const char *more, const char *target)
{
    g_string_append_printf(s,
                           "\tchain %s {\n\t\ttype filter hook %s priority %d; policy accept;\n"
                           "\t\t%s \"%s\" %sjump %s\n\t}\n",
                           name, where, priority, match, ifname, more, target);
}

static void write_hooks(GString *s, const struct filter_work *w, bool from, bool to)
{
    const char *group = "ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 ",
               *ifname = w->t->ifname;
    if (from) {
        hook(s, "from", "prerouting", -300, "iifname", ifname, "", "from_l2_root");
        hook(s, "from_group", "input", -300, "iifname", ifname, group, "from_l2_root");
    }
    if (to)
        hook(s, "to", "postrouting", -300, "oifname", ifname, "", "to_l2_root");
    if (has_chain(w, false, filter_ip_chain)) /* behind connection tracking */
        hook(s, "from_2", "prerouting", -150, "iifname", ifname, "", "from_ip");
    if (has_chain(w, true, filter_ip_chain))
        hook(s, "to_2", "postrouting", -150, "oifname", ifname, "", "to_ip");
}

static void write_early_hooks(GString *s, const struct filter_work *w)
{
    const char *ifname = w->t->ifname;
    g_autofree char *ours =
        g_strdup_printf("meta ibrname \"%s\" ether daddr %s ", w->bridge, w->t->mac);
    if (has_chain(w, true, "root"))
        hook(s, "to_early", "prerouting", -140, "iifname !=", ifname, ours, "to_l2_root");
    hook(s, "to_early_2", "prerouting", -130, "iifname !=", ifname, ours, "to_ip_early");
}

/* Only DHCP by its own address, until it has one of IPv4. */
static void write_waiting(GString *s, const struct filter_work *w)
{
    uint8_t m[6] = {0};
    const GPtrArray *servers = g_hash_table_lookup(w->t->params, "DHCPSERVER");
    g_autofree char *server = servers ? filter_value_check(FK_IPV4, servers->pdata[0], NULL) : NULL;
    filter_mac_parse(w->t->mac, m);
    g_string_append_printf(
        s,
        "\tchain from_l2_root {\n"
        "\t\tether saddr %s ether type ip ip protocol 17 udp sport 68 udp dport 67 @th,288,48 "
        "0x%02x%02x%02x%02x%02x%02x accept\n\t\tdrop\n\t}\n",
        w->t->mac, m[0], m[1], m[2], m[3], m[4], m[5]);
    g_string_append_printf(
        s,
        "\tchain to_l2_root {\n"
        "\t\tether type ip %s%s%sip protocol 17 udp sport 67 udp dport 68 accept\n\t\tdrop\n\t}\n",
        server ? "ip saddr " : "", server ? server : "", server ? " " : "");
    g_ptr_array_set_size(w->lines, 0);
    write_hooks(s, w, true, true);
}

char *filter_layout(struct filter_work *w, GError **error)
{
    g_autoptr(GString) s = g_string_new(NULL);
    g_autofree char *table = filter_table_name(w->t->ifname);
    g_string_append_printf(s, "add table bridge %s\ndelete table bridge %s\ntable bridge %s {\n",
                           table, table, table);
    if (w->p->waits_for_ip) {
        w->p->needs_ct = w->p->rejects = false;
        write_waiting(s, w);
    } else {
        if (!add_jumps(w, false, error) || !add_jumps(w, true, error))
            return NULL;
        g_ptr_array_sort(w->lines, by_place);
        write_lines(s, w, false);
        write_lines(s, w, true);
        bool early = write_early_lines(s, w);
        write_hooks(s, w, has_chain(w, false, "root"), has_chain(w, true, "root"));
        if (early)
            write_early_hooks(s, w);
    }
    g_string_append(s, "}\n");
    return g_strdup(s->str);
}
