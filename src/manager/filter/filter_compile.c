/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From a filter, all that it includes and the values of its variables to one table of nftables.
 *
 * Thread    Any.
 * Trust     Filters are hostile: includes may be in circles, and may grow without end; lists
 * multiply. What is made is bounded.
 *
 * Frames of a machine come in by "prerouting", those for it leave by "postrouting" of the bridge.
 * At each there are two chains of the kernel, one behind the other, as libvirt has ebtables and
 * iptables: who accepts in the first has not accepted for the second. A filter's chain is a chain
 * of ours, to which "root" jumps at the chain's priority; all filters of the same chain share it.
 * Frames for the bridge's own group of addresses do not pass "prerouting" where the bridge takes
 * them in itself: they are looked at in "input".
 */
#include "manager/filter/filter_priv.h"
#include "manager/network/nft.h"

#include <string.h>

struct line {
    const char *chain; /* "root", a filter's chain, or ip_chain */
    bool to;           /* the machine; else from it */
    int priority;
    unsigned seq;
    char *text;
};
struct chain {
    int priority;
    const char *filter; /* who said so */
};
struct work {
    const struct filter_target *t;
    struct filter_program *p;
    GPtrArray *lines;
    GHashTable *chains; /* names to struct chain */
    const struct filter_def *path[FILTER_DEPTH_MAX];
    unsigned depth, visits;
};
static const char ip_chain[] = "ip*"; /* no chain of a filter is called so */

char *filter_table_name(const char *ifname)
{
    return nft_table_name("ruche_nwf_", ifname);
}

void filter_program_done(struct filter_program *p)
{
    g_clear_pointer(&p->text, g_free);
    g_clear_pointer(&p->learned, g_free);
    g_clear_pointer(&p->used, g_hash_table_unref);
}

static void free_line(gpointer p)
{
    struct line *l = p;
    g_free(l->text);
    g_free(l);
}

/* ---- one rule, its values known ---- */

/* Which of a connection's packets a rule of libvirt's iptables half means. */
enum state_match { ANY_STATE, NEW_AND_ESTABLISHED, ESTABLISHED };

static const char *const verdicts[] = {
    [FILTER_DROP] = "drop",     [FILTER_ACCEPT] = "accept",
    [FILTER_REJECT] = "drop", /* bridges of many kernels cannot answer */
    [FILTER_RETURN] = "return", [FILTER_CONTINUE] = "continue",
};

static bool add_line(struct work *w, const char *chain, bool to, int priority, char *text,
                     GError **error)
{
    struct line *l = g_new0(struct line, 1);
    *l = (struct line){chain, to, priority, w->lines->len, text};
    g_ptr_array_add(w->lines, l);
    return w->lines->len <= FILTER_RULES_MAX ||
           ruche_error(error, MANAGER_ERR_CONFIG,
                       "filter '%s': interface '%s' would need more than %d rules", w->t->filter,
                       w->t->ifname, FILTER_RULES_MAX);
}

static bool emit(struct work *w, const char *chain, bool to, bool swapped, enum state_match state,
                 const struct filter_rule *r, char *const *values, GError **error)
{
    static const char *const states[] = {"", " ct state new,established", " ct state established"};
    GString *s = g_string_new(r->proto ? r->proto->match : "");
    int comment = -1;
    for (int i = 0; r->proto && r->proto->attrs[i].name; i++) {
        const struct filter_attr *a = &r->proto->attrs[i];
        if (a->kind == FK_COMMENT)
            comment = i;
        else if (values[i] && a->expr)
            filter_match(s, a, swapped, r->negate, values[i],
                         a->partner ? values[filter_attr_index(r->proto, a->partner)] : NULL);
    }
    w->p->needs_ct |= state != ANY_STATE;
    g_string_append_printf(s, "%s %s", states[state], verdicts[r->action]);
    if (comment >= 0 && values[comment])
        filter_match(s, &r->proto->attrs[comment], false, false, values[comment], NULL);
    return add_line(w, chain, to, r->priority, g_string_free(s, FALSE), error);
}

static const char *value(const struct filter_rule *r, char *const *values, const char *name)
{
    int i = filter_attr_index(r->proto, name);
    return i >= 0 ? values[i] : NULL;
}

/* A rule of "in" and one of "inout" is written as frames to the machine look; the other way its
 * ends are swapped. */
static bool emit_stateful(struct work *w, const struct filter_rule *r, char *const *values,
                          GError **error)
{
    bool in = r->direction != FILTER_OUT, both = r->direction == FILTER_INOUT;
    if (value(r, values, "ipset"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "%s: ipset '%s': nftables cannot use sets of ipset", r->proto->name,
                           value(r, values, "ipset"));
    bool own = value(r, values, "state") != NULL;
    w->p->needs_ct |=
        (own && strcmp(value(r, values, "state"), "NONE")) || value(r, values, "connlimit-above");
    if (own)
        return (r->direction == FILTER_IN ||
                emit(w, ip_chain, false, both, ANY_STATE, r, values, error)) &&
               (r->direction == FILTER_OUT ||
                emit(w, ip_chain, true, false, ANY_STATE, r, values, error));
    bool plain = both || r->stateless || r->action != FILTER_ACCEPT;
    enum state_match from = in ? ESTABLISHED : NEW_AND_ESTABLISHED,
                     to = in ? NEW_AND_ESTABLISHED : ESTABLISHED;
    return emit(w, ip_chain, false, in, plain ? ANY_STATE : from, r, values, error) &&
           emit(w, ip_chain, true, !in, plain ? ANY_STATE : to, r, values, error);
}

static bool emit_rule(struct work *w, const struct filter_def *d, const struct filter_rule *r,
                      char *const *values, GError **error)
{
    if (r->proto && r->proto->stateful)
        return emit_stateful(w, r, values, error);
    if (r->proto && !g_strcmp0(value(r, values, "gratuitous"), "yes"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "%s: gratuitous: nftables cannot compare two fields of a frame",
                           r->proto->name);
    return (r->direction == FILTER_IN ||
            emit(w, d->chain, false, r->direction == FILTER_INOUT, ANY_STATE, r, values, error)) &&
           (r->direction == FILTER_OUT ||
            emit(w, d->chain, true, false, ANY_STATE, r, values, error));
}

/* ---- variables ---- */

#define ITERATORS_MAX 8

struct iterator {
    unsigned id, length, at;
    const char *name; /* the list that gave the length */
};
struct reading {
    const GPtrArray *list; /* NULL: no variable */
    struct filter_var var;
    unsigned iterator; /* index */
};
struct readings {
    struct reading of[FILTER_ATTRS_MAX];
    struct iterator its[ITERATORS_MAX];
    unsigned count; /* of its */
    bool waits;
};

/* An address of IPv4 may come later. */
static bool no_value(struct work *w, const struct filter_var *v, bool *ret_waits, GError **error)
{
    const GPtrArray *how = g_hash_table_lookup(w->t->params, "CTRL_IP_LEARNING");
    *ret_waits = !strcmp(v->name, "IP") && !(how && !strcmp(how->pdata[0], "none"));
    return *ret_waits ||
           ruche_error(
               error, MANAGER_ERR_CONFIG,
               "variable '%s' has no value: interface '%s' needs <parameter name='%s' ...> in "
               "its <filterref>",
               v->name, w->t->ifname, v->name);
}

static bool add_iterator(struct readings *r, struct reading *b, GError **error)
{
    for (unsigned i = 0; i < r->count; i++)
        if (r->its[i].id == b->var.iterator) {
            b->iterator = i;
            return r->its[i].length == b->list->len ||
                   ruche_error(
                       error, MANAGER_ERR_CONFIG,
                       "variables '%s' and '%s' are read together, and have %u and %u values",
                       r->its[i].name, b->var.name, r->its[i].length, b->list->len);
        }
    if (r->count == ITERATORS_MAX)
        return ruche_error(error, MANAGER_ERR_CONFIG, "a rule has more than %d iterators",
                           ITERATORS_MAX);
    b->iterator = r->count;
    r->its[r->count++] = (struct iterator){b->var.iterator, b->list->len, 0, b->var.name};
    return true;
}

/* The next of all combinations. */
static bool step(struct readings *r)
{
    for (unsigned i = 0; i < r->count; i++) {
        if (++r->its[i].at < r->its[i].length)
            return true;
        r->its[i].at = 0;
    }
    return false;
}

static bool fill(const struct filter_rule *rule, const struct readings *r, char **values,
                 GError **error)
{
    for (int i = 0; rule->proto && rule->proto->attrs[i].name; i++) {
        const struct reading *b = &r->of[i];
        if (!b->list)
            continue;
        unsigned at = b->var.index >= 0 ? (unsigned)b->var.index : r->its[b->iterator].at;
        g_free(values[i]);
        values[i] = filter_value_check(rule->proto->attrs[i].kind, b->list->pdata[at], error);
        if (!values[i]) {
            g_prefix_error(error, "%s: %s: variable '%s': ", rule->proto->name,
                           rule->proto->attrs[i].name, b->var.name);
            return false;
        }
    }
    return true;
}

static bool read_variables(struct work *w, const struct filter_rule *rule, GHashTable *vars,
                           struct readings *r, GError **error)
{
    for (int i = 0; rule->proto && rule->proto->attrs[i].name; i++) {
        struct reading *b = &r->of[i];
        if (!rule->values[i] || rule->proto->attrs[i].kind == FK_COMMENT ||
            !filter_var_parse(rule->values[i], &b->var))
            continue;
        b->list = g_hash_table_lookup(vars, b->var.name);
        if (!b->list)
            return no_value(w, &b->var, &r->waits, error);
        if (b->var.index >= (int)b->list->len)
            return ruche_error(error, MANAGER_ERR_CONFIG,
                               "variable '%s' has %u values, and none at %d", b->var.name,
                               b->list->len, b->var.index);
        if (b->var.index < 0 && b->list->len == 1)
            b->var.index = 0; /* goes with lists of any length */
        if (b->var.index < 0 && !add_iterator(r, b, error))
            return false;
    }
    return true;
}

static bool expand(struct work *w, const struct filter_def *d, const struct filter_rule *rule,
                   GHashTable *vars, GError **error)
{
    struct readings r = {0};
    char *values[FILTER_ATTRS_MAX] = {0};
    if (!read_variables(w, rule, vars, &r, error))
        return false;
    w->p->waits_for_ip |= r.waits;
    if (r.waits)
        return true;
    for (int i = 0; i < FILTER_ATTRS_MAX; i++)
        values[i] = r.of[i].list ? NULL : g_strdup(rule->values[i]);
    bool ok;
    do
        ok = fill(rule, &r, values, error) && emit_rule(w, d, rule, values, error);
    while (ok && step(&r));
    for (int i = 0; i < FILTER_ATTRS_MAX; i++)
        g_free(values[i]);
    return ok;
}

/* ---- includes ---- */

static void copy_missing(GHashTable *to, GHashTable *from)
{
    GHashTableIter i;
    gpointer name, list;
    g_hash_table_iter_init(&i, from);
    while (g_hash_table_iter_next(&i, &name, &list))
        if (!g_hash_table_contains(to, name))
            g_hash_table_insert(to, g_strdup(name), g_ptr_array_ref(list));
}

static bool enter_chain(struct work *w, const struct filter_def *d, GError **error)
{
    struct chain *c = g_hash_table_lookup(w->chains, d->chain);
    if (!c && strcmp(d->chain, "root") != 0) {
        c = g_new0(struct chain, 1);
        *c = (struct chain){d->priority, d->name};
        g_hash_table_insert(w->chains, d->chain, c);
    }
    return !c || c->priority == d->priority ||
           ruche_error(error, MANAGER_ERR_CONFIG,
                       "filters '%s' and '%s' give chain '%s' two priorities, %d and %d", c->filter,
                       d->name, d->chain, c->priority, d->priority);
}

static bool enter(struct work *w, const char *name, const struct filter_def **ret, GError **error)
{
    const struct filter_def *d = w->t->find(name, w->t->opaque);
    if (!d)
        return ruche_error(error, MANAGER_ERR_NO_FILTER,
                           "no network filter with matching name '%s'", name);
    for (unsigned i = 0; i < w->depth; i++)
        if (w->path[i] == d)
            return ruche_error(error, MANAGER_ERR_CONFIG, "filter '%s' includes itself", name);
    if (w->depth == FILTER_DEPTH_MAX || ++w->visits > FILTER_VISITS_MAX)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "filter '%s': includes are deeper than %d, or more than %d together",
                           w->t->filter, FILTER_DEPTH_MAX, FILTER_VISITS_MAX);
    w->path[w->depth++] = d;
    g_hash_table_add(w->p->used, g_strdup(name));
    *ret = d;
    return enter_chain(w, d, error);
}

static bool collect(struct work *w, const char *name, GHashTable *vars, GError **error)
{
    const struct filter_def *d = NULL;
    if (!enter(w, name, &d, error))
        return false;
    for (unsigned i = 0; i < d->nodes->len; i++) {
        const struct filter_node *n = d->nodes->pdata[i];
        bool ok;
        if (n->ref) { /* who includes knows better */
            g_autoptr(GHashTable) all = filter_params_new();
            copy_missing(all, vars);
            copy_missing(all, n->params);
            ok = collect(w, n->ref, all, error);
        } else {
            ok = expand(w, d, &n->rule, vars, error);
            if (!ok)
                g_prefix_error(error, "filter '%s': ", d->name);
        }
        if (!ok)
            return false;
    }
    w->depth--;
    return true;
}

/* ---- the table ---- */

static gint by_place(gconstpointer a, gconstpointer b)
{
    const struct line *x = *(struct line *const *)a, *y = *(struct line *const *)b;
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
    return !strcmp(chain, ip_chain) ? g_strdup(to ? "to_ip" : "from_ip")
                                    : nft_table_name(to ? "to_l2_" : "from_l2_", chain);
}

static bool has_chain(const struct work *w, bool to, const char *chain)
{
    for (unsigned i = 0; i < w->lines->len; i++) {
        const struct line *l = w->lines->pdata[i];
        if (l->to == to && !strcmp(l->chain, chain))
            return true;
    }
    return false;
}

static bool add_jumps(struct work *w, bool to, GError **error)
{
    g_autoptr(GList) names = g_list_sort(g_hash_table_get_keys(w->chains), (GCompareFunc)strcmp);
    for (GList *n = names; n; n = n->next) {
        const struct chain *c = g_hash_table_lookup(w->chains, n->data);
        if (!has_chain(w, to, n->data))
            continue;
        g_autofree char *target = chain_name(to, n->data);
        char *text = g_strdup_printf("%sjump %s", match_of(n->data), target);
        if (!add_line(w, "root", to, c->priority, text, error))
            return false;
    }
    return true;
}

static void write_lines(GString *s, const struct work *w, bool to)
{
    const char *open = NULL;
    for (unsigned i = 0; i < w->lines->len; i++) {
        const struct line *l = w->lines->pdata[i];
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

static void hook(GString *s, const char *name, const char *where, int priority, const char *match,
                 const char *ifname, const char *more, const char *target)
{
    g_string_append_printf(s,
                           "\tchain %s {\n\t\ttype filter hook %s priority %d; policy accept;\n"
                           "\t\t%s \"%s\" %sjump %s\n\t}\n",
                           name, where, priority, match, ifname, more, target);
}

static void write_hooks(GString *s, const struct work *w, bool from, bool to)
{
    const char *group = "ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 ",
               *ifname = w->t->ifname;
    if (from) {
        hook(s, "from", "prerouting", -300, "iifname", ifname, "", "from_l2_root");
        hook(s, "from_group", "input", -300, "iifname", ifname, group, "from_l2_root");
    }
    if (to)
        hook(s, "to", "postrouting", -300, "oifname", ifname, "", "to_l2_root");
    if (has_chain(w, false, ip_chain)) /* behind connection tracking */
        hook(s, "from_2", "prerouting", -150, "iifname", ifname, "", "from_ip");
    if (has_chain(w, true, ip_chain))
        hook(s, "to_2", "postrouting", -150, "oifname", ifname, "", "to_ip");
}

/* Only DHCP by its own address, until it has one of IPv4. */
static void write_waiting(GString *s, const struct work *w)
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

static char *write_table(struct work *w, GError **error)
{
    g_autoptr(GString) s = g_string_new(NULL);
    g_autofree char *table = filter_table_name(w->t->ifname);
    g_string_append_printf(s, "add table bridge %s\ndelete table bridge %s\ntable bridge %s {\n",
                           table, table, table);
    if (w->p->waits_for_ip) {
        w->p->needs_ct = false;
        write_waiting(s, w);
    } else {
        if (!add_jumps(w, false, error) || !add_jumps(w, true, error))
            return NULL;
        g_ptr_array_sort(w->lines, by_place);
        write_lines(s, w, false);
        write_lines(s, w, true);
        write_hooks(s, w, has_chain(w, false, "root"), has_chain(w, true, "root"));
    }
    g_string_append(s, "}\n");
    return g_strdup(s->str);
}

static bool check_target(const struct filter_target *t, GError **error)
{
    uint8_t mac[6];
    size_t len = strlen(t->ifname);
    bool ok = len > 0 && len < 16;
    for (const char *p = t->ifname; *p; p++)
        ok &= g_ascii_isalnum(*p) || strchr("_.-:@", *p) != NULL;
    if (!ok)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "interface '%.80s': filters are for names of 1 to 15 letters, digits, "
                           "'_', '.', '-', ':' "
                           "and '@'",
                           t->ifname);
    return filter_mac_parse(t->mac, mac) ||
           ruche_error(error, MANAGER_ERR_CONFIG, "interface '%s': '%.80s' is not a MAC address",
                       t->ifname, t->mac);
}

bool filter_compile(const struct filter_target *t, struct filter_program *ret, GError **error)
{
    struct filter_program p = {.used =
                                   g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL)};
    struct work w = {.t = t, .p = &p};
    g_autoptr(GHashTable) vars = filter_params_new();
    w.lines = g_ptr_array_new_with_free_func(free_line);
    w.chains = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free);
    copy_missing(vars, t->params);
    if (!g_hash_table_contains(vars, "MAC"))
        filter_params_add(vars, "MAC", t->mac);
    if (check_target(t, error) && collect(&w, t->filter, vars, error))
        p.text = write_table(&w, error);
    bool ok = p.text != NULL;
    if (ok)
        *ret = p;
    else
        filter_program_done(&p);
    g_ptr_array_unref(w.lines);
    g_hash_table_unref(w.chains);
    return ok;
}
