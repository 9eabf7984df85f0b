/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From a filter, all that it includes and the values of its variables to one table of nftables.
 *
 * Thread    Any.
 * Trust     Filters are hostile: includes may be in circles, and may grow without end; lists
 * multiply. What is made is bounded.
 */
#include "manager/filter/filter_work.h"
#include "manager/network/address.h"
#include "manager/network/nft.h"

#include <string.h>

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
    struct filter_line *l = p;
    g_free(l->text);
    g_free(l->early);
    g_free(l);
}

static void copy_missing(GHashTable *to, GHashTable *from)
{
    GHashTableIter i;
    gpointer name, list;
    g_hash_table_iter_init(&i, from);
    while (g_hash_table_iter_next(&i, &name, &list))
        if (!g_hash_table_contains(to, name))
            g_hash_table_insert(to, g_strdup(name), g_ptr_array_ref(list));
}

static bool enter_chain(struct filter_work *w, const struct filter_def *d, GError **error)
{
    struct filter_chain *c = g_hash_table_lookup(w->chains, d->chain);
    if (!c && strcmp(d->chain, "root") != 0) {
        c = g_new0(struct filter_chain, 1);
        *c = (struct filter_chain){d->priority, d->name};
        g_hash_table_insert(w->chains, d->chain, c);
    }
    return !c || c->priority == d->priority ||
           ruche_error(error, MANAGER_ERR_CONFIG,
                       "filters '%s' and '%s' give chain '%s' two priorities, %d and %d", c->filter,
                       d->name, d->chain, c->priority, d->priority);
}

static bool enter(struct filter_work *w, const char *name, const struct filter_def **ret,
                  GError **error)
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

static bool collect(struct filter_work *w, const char *name, GHashTable *vars, GError **error)
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
            ok = filter_expand(w, d, &n->rule, vars, error);
            if (!ok)
                g_prefix_error(error, "filter '%s': ", d->name);
        }
        if (!ok)
            return false;
    }
    w->depth--;
    return true;
}

/* What decides how addresses are found. */
static bool check_learning(const struct filter_target *t, GError **error)
{
    const GPtrArray *how = g_hash_table_lookup(t->params, "CTRL_IP_LEARNING"),
                    *servers = g_hash_table_lookup(t->params, "DHCPSERVER");
    const char *word = how ? how->pdata[0] : "any";
    if (strcmp(word, "any") != 0 && strcmp(word, "dhcp") != 0 && strcmp(word, "none") != 0)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "interface '%s': CTRL_IP_LEARNING '%s' is not any, dhcp or none",
                           t->ifname, word);
    struct net_addr server;
    return !servers || net_addr_parse(servers->pdata[0], &server) ||
           ruche_error(error, MANAGER_ERR_CONFIG,
                       "interface '%s': DHCPSERVER: '%.80s' is not an IP address", t->ifname,
                       (const char *)servers->pdata[0]);
}

/* One that nft reads as a name and as nothing else. */
static bool is_plain(const char *name)
{
    size_t len = strlen(name);
    bool ok = len > 0 && len < 16;
    for (const char *p = name; *p; p++)
        ok &= g_ascii_isalnum(*p) || strchr("_.-:@", *p) != NULL;
    return ok;
}

static bool check_target(const struct filter_target *t, GError **error)
{
    uint8_t mac[6];
    if (!is_plain(t->ifname))
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
    struct filter_work w = {.t = t, .p = &p};
    g_autoptr(GHashTable) vars = filter_params_new();
    w.lines = g_ptr_array_new_with_free_func(free_line);
    w.chains = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free);
    copy_missing(vars, t->params);
    if (!g_hash_table_contains(vars, "MAC"))
        filter_params_add(vars, "MAC", t->mac);
    w.bridge = t->bridge && is_plain(t->bridge) ? t->bridge : NULL;
    if (check_target(t, error) && check_learning(t, error) && collect(&w, t->filter, vars, error))
        p.text = filter_layout(&w, error);
    bool ok = p.text != NULL;
    if (ok)
        *ret = p;
    else
        filter_program_done(&p);
    g_ptr_array_unref(w.lines);
    g_hash_table_unref(w.chains);
    return ok;
}
