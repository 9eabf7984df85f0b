/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Networks start and stop: the kernel's part, the firewall, dnsmasq; and are repaired.
 *
 * Order     A network that is about to start is noted first (network_save_state), so that whatever
 * moment the manager is killed in, the next one completes it. One that stops is noted last. Thread
 * The loop thread, in a task, with the network's lock; what blocks on workers.
 */
#include "manager/network/network_life.h"
#include "base/log.h"
#include "manager/netlink.h"
#include "manager/network/bridge.h"
#include "manager/network/nft.h"
#include "manager/network/openvswitch.h"

#include <glib/gstdio.h>
#include <net/if.h>
#include <string.h>
#include <unistd.h>

#define ROUTES_MAX 1024

/* ---- what it would clash with ---- */

static bool overlap(const struct network_def *d, const struct net_subnet *other, const char *whose,
                    GError **error)
{
    char a[64], b[64];
    for (unsigned i = 0; i < d->subnet_count; i++)
        if (d->subnets[i].addr.v6 == other->addr.v6 && net_subnets_overlap(&d->subnets[i], other)) {
            net_subnet_format(&d->subnets[i], a);
            net_subnet_format(other, b);
            return ruche_error(error, RUCHE_ERR_EXISTS,
                               "network '%s': its subnet %s overlaps %s, which is %s", d->name, a,
                               b, whose);
        }
    return true;
}

static bool check_networks(const struct network *n, const struct network_def *d, GError **error)
{
    g_autoptr(GPtrArray) all = network_all();
    for (unsigned i = 0; i < all->len; i++) {
        const struct network *o = all->pdata[i];
        auto_network_def other = {0};
        g_autofree char *whose = g_strdup_printf("network '%s'", o->name);
        if (o == n || !o->active ||
            !network_def_parse(&other, network_text(o), NETWORK_DEF_LIVE, NULL))
            continue;
        for (unsigned k = 0; k < other.subnet_count; k++)
            if (!overlap(d, &other.subnets[k], whose, error))
                return false;
    }
    return true;
}

struct kernel_work {
    const struct network_def *d;
    char *fresh_rules; /* tried before the others; may be NULL */
    char *rules, *ruleset;
    bool bridge_filter;
    GError *error;
    bool ok;
};

static bool check_host(const struct network_def *d, GError **error)
{
    g_autofree struct host_route *routes = g_new(struct host_route, ROUTES_MAX);
    unsigned count = network_host_routes(d->bridge, routes, ROUTES_MAX);
    if (if_nametoindex(d->bridge))
        return ruche_error(error, RUCHE_ERR_EXISTS,
                           "network '%s': interface '%s' exists already on this host", d->name,
                           d->bridge);
    for (unsigned i = 0; i < count; i++) {
        g_autofree char *whose =
            g_strdup_printf("reached by this host's interface '%s'", routes[i].ifname);
        if (!overlap(d, &routes[i].to, whose, error))
            return false;
    }
    return true;
}

static void check_work(void *opaque)
{
    struct kernel_work *w = opaque;
    w->ok = check_host(w->d, &w->error);
}

/* ---- the kernel's part ---- */

/* A table that is taken away costs a grace period of the kernel, 10 ms and more, which a start that
 * finds none need not wait for. */
static bool apply_rules(struct kernel_work *w)
{
    return !w->rules || (w->fresh_rules && nft_apply_blocking(w->fresh_rules, NULL)) ||
           nft_apply_blocking(w->rules, &w->error);
}

static bool enter_zone(const struct network_def *d, GError **error)
{
    const char *zone = xml_get(d->root, "bridge@zone");
    if (zone)
        return network_zone_set(d->bridge, zone, error);
    if (d->mode != NETWORK_OPEN)
        network_zone_set_usual(d->bridge, d->mode == NETWORK_ROUTE);
    return true;
}

static void kernel_work(void *opaque)
{
    struct kernel_work *w = opaque;
    w->ok = network_kernel_start(w->d, &w->error) && enter_zone(w->d, &w->error) && apply_rules(w);
    if (w->ok && w->rules)
        w->ruleset = network_surroundings(&w->bridge_filter);
}

struct undo_work {
    const char *bridge, *table;
    bool zone; /* its description names one of firewalld */
};

static void undo_kernel(void *opaque)
{
    const struct undo_work *w = opaque;
    g_autoptr(GError) error = NULL;
    g_autofree char *commands =
        g_strdup_printf("add table inet %s\ndelete table inet %s\n", w->table, w->table);
    g_autofree char *there = nft_list_blocking("chains", NULL);
    g_autofree char *line = g_strdup_printf("table inet %s {\n", w->table);
    network_zone_leave(w->bridge, w->zone);
    network_bridge_delete(w->bridge);
    if (there && strstr(there, line) && !nft_apply_blocking(commands, &error))
        log_warn("table '%s': %s", w->table, error->message);
}

static void stop_kernel(const char *bridge, bool zone)
{
    g_autofree char *table = network_rules_table(bridge);
    struct undo_work w = {bridge, table, zone};
    task_work(undo_kernel, &w);
}

static bool finish_work(struct kernel_work *w, GError **error)
{
    if (w->error)
        g_propagate_error(error, w->error);
    g_free(w->fresh_rules);
    g_free(w->rules);
    g_free(w->ruleset);
    return w->ok;
}

static bool start_kernel(struct network *n, const struct network_def *d, bool found, GError **error)
{
    struct kernel_work w = {.d = d,
                            .fresh_rules = found ? NULL : network_rules(d, true),
                            .rules = network_rules(d, false)};
    task_work(kernel_work, &w);
    if (w.ok && !manager.session)
        network_zone_watch(networks_refresh);
    if (w.ok && w.ruleset) {
        g_ptr_array_unref(n->warnings);
        n->warnings = network_obstacles(w.ruleset, d, w.bridge_filter);
        for (unsigned i = 0; i < n->warnings->len; i++)
            log_warn("network '%s': %s", n->name, (char *)n->warnings->pdata[i]);
    }
    return finish_work(&w, error);
}

/* ---- start, stop ---- */

/* Taps of machines that were there before the bridge. */
static void join_ports(const struct network *n)
{
    GHashTableIter it;
    struct network_port *p;
    g_hash_table_iter_init(&it, n->ports);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&p)) {
        auto_network_plug plug = {0};
        if (p->ifname && n->bridge && network_port_plug(n, p, &plug))
            network_bridge_join(n->bridge, p->ifname, &plug, p->mac);
    }
}

/* What the network sets at a bridge that is the host's; a portgroup's is set at ports. */
static const struct xml_node *lent_bandwidth(const struct network_def *d)
{
    bool lent = d->bridge && !network_mode_has_own_bridge(d->mode) && !network_is_ovs(d->root);
    return lent ? xml_find(d->root, "bandwidth") : NULL;
}

static bool bring_up(struct network *n, const struct network_def *d, bool found, GError **error)
{
    if (!network_mode_has_own_bridge(d->mode)) {
        const struct xml_node *b = lent_bandwidth(d);
        return !b || network_qos(d->bridge, b, false, error);
    }
    const struct xml_node *bandwidth = xml_find(d->root, "bandwidth");
    if (!start_kernel(n, d, found, error) ||
        (bandwidth && !network_floors_apply(n, bandwidth, error)) ||
        !(found ? network_daemon_find(n, d, error) : network_daemon_start(n, d, error)))
        return false;
    join_ports(n);
    return true;
}

static void take_down(struct network *n)
{
    auto_network_def d = {0};
    bool known = network_def_parse(&d, network_text(n), NETWORK_DEF_LIVE, NULL);
    network_daemon_stop(n);
    if (network_mode_has_own_bridge(n->mode) && n->bridge)
        stop_kernel(n->bridge, known && xml_get(d.root, "bridge@zone"));
    else if (known && lent_bandwidth(&d) && if_nametoindex(d.bridge))
        network_qos(d.bridge, NULL, false, NULL);
    g_ptr_array_set_size(n->warnings, 0);
}

/* What it would have run by is forgotten: it is what its description says. */
static void forget_live(struct network *n)
{
    auto_network_def d = {0};
    g_clear_pointer(&n->live_text, g_free);
    if (n->persistent && network_def_parse(&d, n->text, 0, NULL)) {
        g_free(n->bridge);
        n->bridge = g_strdup(d.bridge);
        n->mode = d.mode;
    }
}

/* Limits of the host's own, or of another network, would be replaced, and go when this one stops. */
static bool check_lent(const struct network_def *d, GError **error)
{
    g_autofree char *there = lent_bandwidth(d) ? network_qos_there(d->bridge) : NULL;
    return !there ||
           ruche_error(
               error, RUCHE_ERR_EXISTS,
               "network '%s': its <bandwidth> would replace the limits that bridge '%s' has "
               "already (a qdisc '%s'; tc qdisc show dev %s)",
               d->name, d->bridge, there, d->bridge);
}

static bool check_start(const struct network *n, const struct network_def *d, GError **error)
{
    struct kernel_work w = {.d = d, .ok = true};
    if (!check_networks(n, d, error) || !check_lent(d, error))
        return false;
    if (network_mode_has_own_bridge(d->mode))
        task_work(check_work, &w);
    return finish_work(&w, error);
}

bool network_do_start(struct network *n, void *opaque, GError **error)
{
    auto_network_def d = {0};
    if (n->active)
        return ruche_error(error, RUCHE_ERR_STATE, "network '%s' is already active", n->name);
    if (!network_def_parse(&d, network_text(n), NETWORK_DEF_LIVE, error) ||
        !check_start(n, &d, error)) {
        forget_live(n);
        return false;
    }
    if (!n->live_text)
        n->live_text = g_strdup(n->text);
    bool ok = network_save_state(n, true, error) && bring_up(n, &d, false, error);
    if (!ok) {
        take_down(n);
        forget_live(n);
        network_save_state(n, false, NULL);
        return false;
    }
    n->active = true;
    network_emit(n, NETWORK_EVENT_STARTED);
    return true;
}

/* It runs no longer; a transient one is gone; a persistent one is what its description says now. */
static void set_stopped(struct network *n)
{
    g_autoptr(GError) error = NULL;
    n->active = false;
    if (!network_save_state(n, false, &error))
        log_warn("network '%s': %s", n->name, error->message);
    forget_live(n);
    network_emit(n, NETWORK_EVENT_STOPPED);
    if (!n->persistent) {
        network_ports_drop(n);
        network_remove(n);
    }
}

bool network_do_destroy(struct network *n, void *opaque, GError **error)
{
    if (!network_check_active(n, error))
        return false;
    take_down(n);
    set_stopped(n);
    return true;
}

/* Everything as it should be, whatever was done by hand. */
static bool do_refresh(struct network *n, void *opaque, GError **error)
{
    auto_network_def d = {0};
    return !n->active || (network_def_parse(&d, network_text(n), NETWORK_DEF_LIVE, error) &&
                          bring_up(n, &d, true, error));
}

static void refresh_task(void *opaque)
{
    struct network *n = opaque;
    g_autoptr(GError) error = NULL;
    if (!network_operation(&caller_self, n, RIGHT_HOST, "refresh", do_refresh, NULL, &error))
        log_warn("network '%s' is not as it should be: %s", n->name, error->message);
    network_unref(n);
}

void networks_refresh(void)
{
    ovs_refresh();
    g_autoptr(GPtrArray) all = network_all();
    for (unsigned i = 0; i < all->len; i++)
        task_start(refresh_task, network_ref(all->pdata[i]));
}

bool network_reload(struct network *n, const struct network_def *d, GError **error)
{
    return bring_up(n, d, true, error);
}

/* ---- found again ---- */

static bool do_resume(struct network *n, void *opaque, GError **error)
{
    if (do_refresh(n, NULL, error))
        return true;
    take_down(n);
    set_stopped(n);
    return false;
}

static void resume_task(void *opaque)
{
    struct network *n = opaque;
    g_autoptr(GError) error = NULL;
    if (!network_operation(&caller_self, n, RIGHT_HOST, "resume", do_resume, NULL, &error))
        log_warn("network '%s' does not run any more: %s", n->name, error->message);
    network_unref(n);
}

void network_resume(struct network *n)
{
    if (n->active)
        task_start(resume_task, network_ref(n));
}

void networks_autostart(void)
{
    g_autoptr(GPtrArray) all = network_all();
    for (unsigned i = 0; i < all->len; i++) {
        struct network *n = all->pdata[i];
        g_autoptr(GError) error = NULL;
        if (n->autostart && !n->active &&
            !network_operation(&caller_self, n, RIGHT_HOST, "autostart", network_do_start, NULL,
                               &error))
            log_warn("network '%s' is not started: %s", n->name, error->message);
    }
}

void networks_stop(void)
{
    ovs_stop();
    network_zone_unwatch();
    g_autoptr(GPtrArray) all = network_all();
    for (unsigned i = 0; i < all->len; i++) {
        network_daemon_forget(all->pdata[i]);
        network_remove(all->pdata[i]);
    }
}
