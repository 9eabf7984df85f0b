/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What of others' firewalls stands in a network's way, and what to do. Pure: text in, text out.
 *
 * Spec      nft(8), as `nft -s list` prints; iptables(8), as `iptables-legacy -S` does.
 * Design    An accept in a table of ours does not help against a drop in another one. A chain that
 * the kernel calls for packets to the host or through it, and that drops what it does not know, is
 * in the way; not so when it, or a chain that it leads to, names the bridge: its owner has decided.
 * Trust     Any text: others write it. Each chain is read once.
 */
#include "manager/network/network_priv.h"

#include <string.h>

enum { FORWARD, INPUT, HOOKS };

struct chain {
    const char *name;
    int hook; /* -1: only others' rules lead to it */
    bool policy_drops;
    GPtrArray *rules;         /* borrowed */
    const struct chain *from; /* the last one that was followed to it */
};

struct table {
    const char *name;  /* "ip filter" */
    GPtrArray *chains; /* struct chain */
    GHashTable *by_name;
};

/* ---- reading ---- */

static void chain_free(gpointer opaque)
{
    struct chain *c = opaque;
    g_ptr_array_unref(c->rules);
    g_free(c);
}

static void table_free(gpointer opaque)
{
    struct table *t = opaque;
    g_hash_table_unref(t->by_name);
    g_ptr_array_unref(t->chains);
    g_free(t);
}

static struct table *table_new(const char *name)
{
    struct table *t = g_new0(struct table, 1);
    t->name = name;
    t->chains = g_ptr_array_new_with_free_func(chain_free);
    t->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    return t;
}

static struct chain *chain_new(struct table *t, const char *name)
{
    struct chain *c = g_new0(struct chain, 1);
    c->name = name;
    c->hook = -1;
    c->rules = g_ptr_array_new();
    g_ptr_array_add(t->chains, c);
    g_hash_table_insert(t->by_name, (gpointer)name, c);
    return c;
}

static void take_line(struct chain *c, const char *text)
{
    if (!g_str_has_prefix(text, "type ")) {
        g_ptr_array_add(c->rules, (gpointer)text);
        return;
    }
    if (g_str_has_prefix(text, "type filter hook forward "))
        c->hook = FORWARD;
    else if (g_str_has_prefix(text, "type filter hook input "))
        c->hook = INPUT;
    c->policy_drops = strstr(text, "policy drop;") != NULL;
}

/* "chain FORWARD {" -> "FORWARD", in its place; NULL: it begins something else. */
static char *block_name(char *text, const char *what)
{
    size_t len = strlen(text);
    if (!g_str_has_prefix(text, what) || !g_str_has_suffix(text, " {"))
        return NULL;
    text[len - 2] = 0;
    return text + strlen(what);
}

/* The lines are changed, and what is returned points into them. */
static GPtrArray *read_tables(char **lines)
{
    GPtrArray *tables = g_ptr_array_new_with_free_func(table_free);
    struct table *t = NULL;
    struct chain *c = NULL;
    for (; *lines; lines++) {
        char *text = g_strstrip(*lines), *name;
        if ((name = block_name(text, "table "))) {
            t = table_new(name);
            g_ptr_array_add(tables, t);
            c = NULL;
        } else if (t && (name = block_name(text, "chain "))) {
            c = chain_new(t, name);
        } else if (!strcmp(text, "}")) {
            c = NULL;
        } else if (c) {
            take_line(c, text);
        }
    }
    return tables;
}

static struct chain *find_chain(const struct table *t, const char *name)
{
    return g_hash_table_lookup(t->by_name, name);
}

/* Its chains see frames on their way between machines of a bridge. */
static bool is_of_bridges(const struct table *t)
{
    return g_str_has_prefix(t->name, "bridge ");
}

/* Is it another's, and does the kernel call it for packets to the host, or through it? */
static bool is_of_interest(const struct table *t, const struct chain *c)
{
    return c->hook >= 0 && !strstr(t->name, " ruche_") && !(c->hook == INPUT && is_of_bridges(t));
}

GPtrArray *network_foreign_tables(const char *chains)
{
    g_auto(GStrv) lines = g_strsplit(chains, "\n", -1);
    g_autoptr(GPtrArray) tables = read_tables(lines);
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    for (unsigned i = 0; i < tables->len; i++) {
        const struct table *t = tables->pdata[i];
        bool found = false;
        for (unsigned k = 0; k < t->chains->len && !found; k++)
            found = is_of_interest(t, t->chains->pdata[k]);
        if (found)
            g_ptr_array_add(names, g_strdup(t->name));
    }
    return names;
}

/* ---- iptables' own tables ---- */

static void legacy_rule(GString *s, const char *rule)
{
    static const struct {
        const char *target, *verdict;
    } targets[] = {{"ACCEPT", "accept"}, {"DROP", "drop"}, {"REJECT", "reject"}};
    g_auto(GStrv) words = g_strsplit(rule, " ", -1);
    for (char **w = words; w[0] && w[1]; w++) {
        bool name = !strcmp(w[0], "-i") || !strcmp(w[0], "-o");
        if (!strcmp(w[0], "-j") || !strcmp(w[0], "-g")) {
            unsigned i = 0;
            while (i < G_N_ELEMENTS(targets) && strcmp(targets[i].target, w[1]) != 0)
                i++;
            if (i < G_N_ELEMENTS(targets))
                g_string_append(s, targets[i].verdict);
            else
                g_string_append_printf(s, "jump %s", w[1]);
            break;
        }
        size_t len = strlen(w[1]);
        bool many = name && len && w[1][len - 1] == '+';
        if (name)
            g_string_append_printf(s, "\"%.*s%s\" ", (int)(len - many), w[1], many ? "*" : "");
        else if (w[0][0] == '-')
            g_string_append(s, "match ");
    }
    g_string_append_c(s, '\n');
}

static void legacy_chain(GHashTable *chains, GPtrArray *order, const char *name, const char *policy)
{
    GString *s = g_string_new(NULL);
    g_string_printf(s, "chain %s {\n", name);
    if (!strcmp(name, "FORWARD") || !strcmp(name, "INPUT"))
        g_string_append_printf(s, "type filter hook %s priority filter; policy %s;\n",
                               *name == 'F' ? "forward" : "input",
                               strcmp(policy, "DROP") ? "accept" : "drop");
    if (g_hash_table_insert(chains, g_strdup(name), s))
        g_ptr_array_add(order, s);
}

static void string_free(gpointer s)
{
    g_string_free(s, TRUE);
}

char *network_legacy_table(const char *rules)
{
    g_auto(GStrv) lines = g_strsplit(rules, "\n", -1);
    g_autoptr(GHashTable) chains = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GPtrArray) order = g_ptr_array_new_with_free_func(string_free);
    for (char **l = lines; *l; l++) {
        g_auto(GStrv) words = g_strsplit(*l, " ", 3);
        GString *chain = words[0] && words[1] ? g_hash_table_lookup(chains, words[1]) : NULL;
        if (chain && words[2] && !strcmp(words[0], "-A"))
            legacy_rule(chain, words[2]);
        else if (!chain && words[0] && words[1] &&
                 (!strcmp(words[0], "-P") || !strcmp(words[0], "-N")))
            legacy_chain(chains, order, words[1], words[2] ? words[2] : "");
    }
    GString *s = g_string_new("table ip filter (iptables-legacy) {\n");
    for (unsigned i = 0; i < order->len; i++)
        g_string_append_printf(s, "%s}\n", ((GString *)order->pdata[i])->str);
    g_string_append(s, "}\n");
    return g_string_free(s, FALSE);
}

/* ---- what becomes of a packet that nobody names ---- */

/* Has every packet that comes to this rule that verdict? */
static bool is_for_all(const char *rule, const char *verdict)
{
    size_t len = strlen(verdict);
    if (g_str_has_prefix(rule, "counter "))
        rule += strlen("counter ");
    return !strncmp(rule, verdict, len) && (!rule[len] || rule[len] == ' ');
}

static bool drops_the_rest(const struct chain *c)
{
    for (unsigned i = 0; i < c->rules->len; i++) {
        const char *rule = c->rules->pdata[i];
        if (is_for_all(rule, "accept"))
            return false;
        if (is_for_all(rule, "drop") || is_for_all(rule, "reject"))
            return true;
    }
    return c->policy_drops;
}

/* "virbr0" or "virbr*" in quotes; comments and what is logged have quotes, too. */
static bool names_bridge(const char *rule, const char *bridge)
{
    const char *end = rule;
    for (const char *at; (at = strchr(end, '"')); end++) {
        end = strchr(at + 1, '"');
        if (!end)
            return false;
        size_t before = (size_t)(at - rule), len = (size_t)(end - at) - 1;
        bool text = (before >= 8 && !strncmp(at - 8, "comment ", 8)) ||
                    (before >= 7 && !strncmp(at - 7, "prefix ", 7));
        bool many = len && end[-1] == '*';
        if (!text && !strncmp(at + 1, bridge, len - many) && (many || !bridge[len]))
            return true;
    }
    return false;
}

/* The chains that a rule leads to: one, or those of a map. */
static void follow(const struct table *t, const char *rule, const struct chain *base,
                   GPtrArray *reached)
{
    static const char *const words[] = {"jump ", "goto "};
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++)
        for (const char *at = rule; (at = strstr(at, words[i]));) {
            at += strlen(words[i]);
            g_autofree char *name = g_strndup(at, strcspn(at, " ,}"));
            struct chain *c = find_chain(t, name);
            if (!c || c->from == base)
                continue;
            c->from = base;
            g_ptr_array_add(reached, c);
        }
}

static bool knows_bridge(const struct table *t, struct chain *base, const char *bridge)
{
    g_autoptr(GPtrArray) reached = g_ptr_array_new();
    base->from = base;
    g_ptr_array_add(reached, base);
    for (unsigned i = 0; i < reached->len; i++) {
        const struct chain *c = reached->pdata[i];
        for (unsigned k = 0; k < c->rules->len; k++) {
            if (names_bridge(c->rules->pdata[k], bridge))
                return true;
            follow(t, c->rules->pdata[k], base, reached);
        }
    }
    return false;
}

/* ---- what to say ---- */

/* Who makes such tables, and what he wants to be told: %s is the bridge, %T the program that speaks
 * to the table, %C the table and its chain. The first one that fits. */
static const struct keeper {
    const char *table, *chain; /* a word in its name; a chain that it has; NULL: any */
    const char *who, *advice[HOOKS];
} keepers[] = {
    {NULL,
     "DOCKER-USER",
     "Docker",
     {"%T -I DOCKER-USER -i %s -j ACCEPT; %T -I DOCKER-USER -o %s -j ACCEPT"}},
    {NULL,
     "ufw-user-forward",
     "ufw",
     {"ufw route allow in on %s; ufw route allow out on %s",
      "ufw allow in on %s to any port 53; ufw allow in on %s to any port 67 proto udp"}},
    {NULL,
     "ufw6-user-forward",
     "ufw",
     {"ufw route allow in on %s; ufw route allow out on %s",
      "ufw allow in on %s to any port 53; ufw allow in on %s to any port 67 proto udp"}},
    {" firewalld",
     NULL,
     "firewalld",
     {"firewall-cmd --permanent --zone=trusted --add-interface=%s; firewall-cmd --reload",
      "firewall-cmd --permanent --zone=trusted --add-interface=%s; firewall-cmd --reload"}},
    {"bridge ", NULL, "another program", {"nft insert rule %C meta ibrname %s accept"}},
    {"iptables-legacy",
     NULL,
     "another program",
     {"iptables-legacy -I FORWARD -i %s -j ACCEPT; iptables-legacy -I FORWARD -o %s -j ACCEPT",
      "iptables-legacy -I INPUT -i %s -p udp -m multiport --dports 53,67 -j ACCEPT"}},
    {NULL,
     NULL,
     "another program",
     {"nft insert rule %C iifname %s accept; nft insert rule %C oifname %s accept",
      "nft insert rule %C iifname %s meta l4proto { tcp, udp } th dport { 53, 67 } accept"}},
};

static const struct keeper *keeper_of(const struct table *t, int hook)
{
    const struct keeper *k = keepers;
    while ((k->table && !strstr(t->name, k->table)) || (k->chain && !find_chain(t, k->chain)) ||
           !k->advice[hook])
        k++;
    return k;
}

static char *advice(const struct keeper *k, const struct table *t, const struct chain *c,
                    const char *bridge)
{
    GString *s = g_string_new(k->advice[c->hook]);
    g_autofree char *place = g_strconcat(t->name, " ", c->name, NULL);
    g_string_replace(s, "%s", bridge, 0);
    g_string_replace(s, "%T", g_str_has_prefix(t->name, "ip6 ") ? "ip6tables" : "iptables", 0);
    g_string_replace(s, "%C", place, 0);
    return g_string_free(s, FALSE);
}

/* Tables of IPv4 and of IPv6 are often one program's: that is said once. */
static void blocked(GPtrArray *list, const struct table *t, const struct chain *c,
                    const char *bridge)
{
    const struct keeper *k = keeper_of(t, c->hook);
    g_autofree char *help = advice(k, t, c, bridge);
    const char *what = is_of_bridges(t)   ? "frames between machines"
                       : c->hook == INPUT ? "packets to the host (DHCP and DNS)"
                                          : "forwarded packets";
    g_autofree char *words =
        g_strdup_printf("' of %s drops %s that it does not know; to let this network's pass: %s",
                        k->who, what, help);
    for (unsigned i = 0; i < list->len; i++)
        if (g_str_has_suffix(list->pdata[i], words))
            return;
    g_ptr_array_add(list, g_strdup_printf("'table %s%s", t->name, words));
}

static bool matters(const struct network_def *d, const struct table *t, const struct chain *c,
                    bool bridge_filter)
{
    bool v6 = false;
    for (unsigned i = 0; i < d->subnet_count; i++)
        v6 |= d->subnets[i].addr.v6;
    if (g_str_has_prefix(t->name, "ip6 ") && !v6)
        return false;
    return c->hook == INPUT ? network_dnsmasq_needed(d)
                            : d->mode != NETWORK_ISOLATED || bridge_filter || is_of_bridges(t);
}

GPtrArray *network_obstacles(const char *ruleset, const struct network_def *d, bool bridge_filter)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(g_free);
    g_auto(GStrv) lines = g_strsplit(ruleset, "\n", -1);
    g_autoptr(GPtrArray) tables = read_tables(lines);
    bool forward = false;
    for (unsigned i = 0; i < tables->len; i++) {
        const struct table *t = tables->pdata[i];
        for (unsigned k = 0; k < t->chains->len; k++) {
            struct chain *c = t->chains->pdata[k];
            if (!is_of_interest(t, c) || !matters(d, t, c, bridge_filter) || !drops_the_rest(c) ||
                knows_bridge(t, c, d->bridge))
                continue;
            blocked(list, t, c, d->bridge);
            forward |= c->hook == FORWARD && !is_of_bridges(t);
        }
    }
    if (forward && bridge_filter)
        g_ptr_array_add(
            list,
            g_strdup_printf("br_netfilter is loaded: packets between machines on '%s' pass the "
                            "same rules; sysctl net.bridge.bridge-nf-call-iptables=0 "
                            "net.bridge.bridge-nf-call-ip6tables=0 lets them pass",
                            d->bridge));
    return list;
}
