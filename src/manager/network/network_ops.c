/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is done to networks, as clients ask for it.
 *
 * Spec      libvirt's virNetwork* at 9.0.0.
 * Thread    The loop thread, in a task.
 */
#include "base/log.h"
#include "manager/network/network_life.h"
#include "manager/store.h"
#include "manager/uuid.h"

#include <net/if.h>
#include <string.h>

enum { AFFECT_LIVE = 1, AFFECT_CONFIG = 2 };

static bool check_flags(const char *operation, unsigned flags, unsigned known, GError **error)
{
    return !(flags & ~known) ||
           ruche_error(error, MANAGER_ERR_ARGUMENT, "%s: flags 0x%x are not supported", operation,
                       flags & ~known);
}

/* ---- define ---- */

static bool bridge_taken(const char *name)
{
    g_autoptr(GPtrArray) all = network_all();
    for (unsigned i = 0; i < all->len; i++)
        if (!g_strcmp0(((struct network *)all->pdata[i])->bridge, name))
            return true;
    return if_nametoindex(name) > 0;
}

/* Is there a network that the description would clash with? *ret_same: the one that it describes.
 */
static bool check_clash(const struct network_def *d, struct network **ret_same, GError **error)
{
    g_autoptr(GPtrArray) all = network_all();
    char text[UUID_TEXT_BYTES];
    for (unsigned i = 0; i < all->len; i++) {
        struct network *n = all->pdata[i];
        bool name = !strcmp(n->name, d->name), uuid = !memcmp(n->uuid, d->uuid, sizeof(n->uuid));
        uuid_format(n->uuid, text);
        if (name && !uuid && d->has_uuid)
            return ruche_error(error, RUCHE_ERR_EXISTS,
                               "network '%s' is already defined with UUID %s", n->name, text);
        if (!name && uuid)
            return ruche_error(error, RUCHE_ERR_EXISTS, "network '%s' already has UUID %s", n->name,
                               text);
        if (!name && d->bridge && !g_strcmp0(n->bridge, d->bridge) &&
            network_mode_has_own_bridge(d->mode) && network_mode_has_own_bridge(n->mode))
            return ruche_error(error, RUCHE_ERR_EXISTS,
                               "network '%s': bridge '%s' is already that of network '%s'", d->name,
                               d->bridge, n->name);
        if (name)
            *ret_same = n;
    }
    return true;
}

/* What is not said stays as it was. */
static void keep_identity(struct network_def *d, const struct network *same)
{
    char text[UUID_TEXT_BYTES];
    if (same && !d->has_uuid) {
        memcpy(d->uuid, same->uuid, sizeof(d->uuid));
        uuid_format(d->uuid, text);
        xml_set(d->root, "uuid", text);
    }
    if (same && !d->bridge && same->bridge && network_mode_has_own_bridge(d->mode) &&
        network_mode_has_own_bridge(same->mode)) {
        d->bridge = g_strdup(same->bridge);
        xml_set(d->root, "bridge@name", d->bridge);
    }
    network_def_name_bridge(d, bridge_taken);
}

static void take_live_figures(struct network *n, const struct network_def *d)
{
    g_free(n->bridge);
    n->bridge = g_strdup(d->bridge);
    n->mode = d->mode;
}

static bool redefine(struct network *n, const struct network_def *d, GError **error)
{
    g_autofree char *old = n->text;
    bool was = n->persistent;
    n->text = network_def_format(d);
    n->persistent = true;
    if (!network_save(n, error)) {
        g_free(n->text);
        n->text = g_steal_pointer(&old);
        n->persistent = was;
        return false;
    }
    if (!n->active)
        take_live_figures(n, d);
    network_emit(n, NETWORK_EVENT_DEFINED);
    return true;
}

/* Runs by this description; what is stored stays. */
static bool create(struct network *n, const struct network_def *d, GError **error)
{
    if (n->active)
        return ruche_error(error, RUCHE_ERR_STATE, "network '%s' is already active", n->name);
    take_live_figures(n, d);
    n->live_text = network_def_format(d);
    return network_do_start(n, NULL, error);
}

struct redefine {
    const struct network_def *d;
    bool (*fn)(struct network *n, const struct network_def *d, GError **error);
};

/* Others may have come while the lock was waited for. One that nothing became of is gone before
 * anybody else has the lock. */
static bool do_redefine(struct network *n, void *opaque, GError **error)
{
    const struct redefine *r = opaque;
    struct network *same = NULL;
    bool ok = check_clash(r->d, &same, error) && r->fn(n, r->d, error);
    if (!ok && !n->persistent && !n->active)
        network_remove(n);
    return ok;
}

/* The network that the description is of: a known one, which takes it, or a new one in the table.
 */
static struct network *define(const struct caller *who, struct network_def *d, bool start,
                              GError **error)
{
    struct network *same = NULL;
    struct redefine r = {d, start ? create : redefine};
    if (!check_clash(d, &same, error))
        return NULL;
    keep_identity(d, same);
    struct network *n = same ? network_ref(same) : network_new(d);
    if (!same)
        network_insert(n);
    if (network_operation(who, n, RIGHT_HOST, start ? "create" : "define", do_redefine, &r, error))
        return n;
    network_unref(n);
    return NULL;
}

struct network *network_define(const struct caller *who, const char *xml, unsigned flags,
                               GError **error)
{
    struct network_def d;
    if (!access_check(who, RIGHT_HOST, "define a network", error) ||
        !check_flags("define network", flags, NETWORK_DEFINE_VALIDATE, error) ||
        !network_def_parse(&d, xml, flags & NETWORK_DEFINE_VALIDATE, error))
        return NULL;
    struct network *n = define(who, &d, false, error);
    network_def_done(&d);
    return n;
}

struct network *network_create_xml(const struct caller *who, const char *xml, unsigned flags,
                                   GError **error)
{
    struct network_def d;
    if (!access_check(who, RIGHT_HOST, "create a network", error) ||
        !check_flags("create network", flags, NETWORK_DEFINE_VALIDATE, error) ||
        !network_def_parse(&d, xml, flags & NETWORK_DEFINE_VALIDATE, error))
        return NULL;
    struct network *n = define(who, &d, true, error);
    network_def_done(&d);
    return n;
}

bool network_start(const struct caller *who, struct network *n, GError **error)
{
    return network_operation(who, n, RIGHT_HOST, "start", network_do_start, NULL, error);
}

bool network_destroy(const struct caller *who, struct network *n, GError **error)
{
    return network_operation(who, n, RIGHT_HOST, "destroy", network_do_destroy, NULL, error);
}

/* One that runs goes on as a transient one. */
static bool do_undefine(struct network *n, void *opaque, GError **error)
{
    bool autostart = n->autostart;
    if (!n->persistent)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "network '%s' is transient: there is no description to take away",
                           n->name);
    n->persistent = n->autostart = false;
    if (!network_save(n, error)) {
        n->persistent = true;
        n->autostart = autostart;
        return false;
    }
    network_emit(n, NETWORK_EVENT_UNDEFINED);
    if (!n->active) {
        network_ports_drop(n);
        network_remove(n);
    }
    return true;
}

bool network_undefine(const struct caller *who, struct network *n, GError **error)
{
    return network_operation(who, n, RIGHT_HOST, "undefine", do_undefine, NULL, error);
}

static bool do_autostart(struct network *n, void *opaque, GError **error)
{
    bool on = *(bool *)opaque, was = n->autostart;
    if (!n->persistent)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "network '%s' is transient and cannot start by itself", n->name);
    n->autostart = on;
    if (on == was || network_save(n, error))
        return true;
    n->autostart = was;
    return false;
}

bool network_set_autostart(const struct caller *who, struct network *n, bool on, GError **error)
{
    return network_operation(who, n, RIGHT_HOST, "autostart", do_autostart, &on, error);
}

/* ---- update ---- */

struct update {
    unsigned command, section, flags;
    int index;
    const char *xml;
};

static char *updated(const struct network *n, const char *text, const struct update *u,
                     struct network_def *d, GError **error)
{
    if (!network_def_parse(d, text, NETWORK_DEF_LIVE, error) ||
        !network_def_update(d, u->command, u->section, u->index, u->xml, error))
        return NULL;
    return network_def_format(d);
}

static bool update_live(struct network *n, const struct update *u, GError **error)
{
    auto_network_def d = {0}, old = {0};
    g_autofree char *text = updated(n, network_text(n), u, &d, error), *before = NULL;
    if (!text)
        return false;
    before = n->live_text;
    n->live_text = g_steal_pointer(&text);
    if (network_save_state(n, true, error) && network_reload(n, &d, error))
        return true;
    g_free(n->live_text);
    n->live_text = g_steal_pointer(&before);
    network_save_state(n, true, NULL);
    if (network_def_parse(&old, n->live_text, NETWORK_DEF_LIVE, NULL))
        network_reload(n, &old, NULL);
    return false;
}

static bool update_config(struct network *n, const struct update *u, GError **error)
{
    auto_network_def d = {0};
    g_autofree char *text = updated(n, n->text, u, &d, error), *before = n->text;
    if (!text) {
        g_steal_pointer(&before);
        return false;
    }
    n->text = g_steal_pointer(&text);
    if (network_save(n, error))
        return true;
    g_free(n->text);
    n->text = g_steal_pointer(&before);
    return false;
}

static bool do_update(struct network *n, void *opaque, GError **error)
{
    struct update *u = opaque;
    auto_network_def d = {0};
    if (!(u->flags & (AFFECT_LIVE | AFFECT_CONFIG)))
        u->flags |= n->active ? AFFECT_LIVE : AFFECT_CONFIG;
    if (u->flags & AFFECT_LIVE && !network_check_active(n, error))
        return false;
    if (u->flags & AFFECT_CONFIG && !n->persistent)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "network '%s' is transient: it has no description to change", n->name);
    if (u->flags & AFFECT_CONFIG && u->flags & AFFECT_LIVE) { /* both or none */
        g_autofree char *text = updated(n, n->text, u, &d, error);
        if (!text)
            return false;
    }
    return (!(u->flags & AFFECT_LIVE) || update_live(n, u, error)) &&
           (!(u->flags & AFFECT_CONFIG) || update_config(n, u, error));
}

bool network_update(const struct caller *who, struct network *n, unsigned command, unsigned section,
                    int index, const char *xml, unsigned flags, GError **error)
{
    struct update u = {command, section, flags, index, xml};
    return check_flags("update network", flags, AFFECT_LIVE | AFFECT_CONFIG, error) &&
           network_operation(who, n, RIGHT_HOST, "update", do_update, &u, error);
}

/* ---- documents ---- */

char *network_xml(const struct caller *who, struct network *n, unsigned flags, GError **error)
{
    enum { INACTIVE = 1 };
    auto_network_def d = {0};
    if (!access_check(who, RIGHT_READ, "read a network's description", error) ||
        !check_flags("describe network", flags, INACTIVE, error))
        return NULL;
    if (flags & INACTIVE || !n->active)
        return g_strdup(n->persistent || !n->live_text ? n->text : n->live_text);
    if (!network_def_parse(&d, network_text(n), NETWORK_DEF_LIVE, error))
        return NULL;
    network_count_connections(n, d.root);
    return network_def_format(&d);
}

char *network_bridge_name(const struct caller *who, struct network *n, GError **error)
{
    if (!access_check(who, RIGHT_READ, "read a network's bridge", error))
        return NULL;
    if (!n->bridge) {
        ruche_error(error, RUCHE_ERR_INTERNAL, "network '%s' does not have a bridge name", n->name);
        return NULL;
    }
    return g_strdup(n->bridge);
}

/* ---- subnets ---- */

static void subnet_free(gpointer opaque)
{
    struct network_subnet *s = opaque;
    g_free(s->address);
    g_strfreev(s->ranges);
    g_free(s);
}

static char **ranges_of(const struct xml_node *ip)
{
    GStrvBuilder *b = g_strv_builder_new();
    for (const struct xml_node *dhcp = xml_find(ip, "dhcp"); dhcp; dhcp = NULL)
        FOREACH_NAMED (range, dhcp, "range")
            g_strv_builder_add_many(b, xml_get(range, "@start"), xml_get(range, "@end"), NULL);
    char **ranges = g_strv_builder_end(b);
    g_strv_builder_unref(b);
    return ranges;
}

GPtrArray *network_subnets(const struct network *n)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(subnet_free);
    auto_network_def d = {0};
    unsigned i = 0;
    if (!network_def_parse(&d, network_text(n), NETWORK_DEF_LIVE, NULL))
        return list;
    FOREACH_NAMED (ip, d.root, "ip") {
        struct network_subnet *s = g_new(struct network_subnet, 1);
        char address[64];
        net_addr_format(&d.subnets[i].addr, address);
        s->address = g_strdup_printf("%s/%u", address, d.subnets[i++].prefix);
        s->ranges = ranges_of(ip);
        g_ptr_array_add(list, s);
    }
    return list;
}

/* ---- the first start ---- */

#define DEFAULT_XML                                                                                \
    "<network>\n  <name>default</name>\n  <forward mode='nat'/>\n  <ip address='192.168.%u.1' "    \
    "netmask='255.255.255.0'>\n    <dhcp>\n      <range start='192.168.%u.2' "                     \
    "end='192.168.%u.254'/>\n    </dhcp>\n  "                                                      \
    "</ip>\n</network>\n"

/* 192.168.122.0/24, or the next that the host has no route to. */
static unsigned free_third_byte(void)
{
    g_autofree struct host_route *routes = g_new(struct host_route, 1024);
    unsigned count = network_host_routes(NULL, routes, 1024);
    for (unsigned third = 122; third < 255; third++) {
        struct net_subnet s = {.addr = {.b = {192, 168, (uint8_t)third, 1}}, .prefix = 24};
        bool free = true;
        for (unsigned i = 0; i < count && free; i++)
            free = routes[i].to.addr.v6 || !net_subnets_overlap(&s, &routes[i].to);
        if (free)
            return third;
    }
    return 122;
}

static void define_default(void *opaque)
{
    g_autoptr(GError) error = NULL;
    unsigned third = free_third_byte();
    g_autofree char *xml = g_strdup_printf(DEFAULT_XML, third, third, third);
    struct network *n = network_define(&caller_self, xml, 0, &error);
    if (!n)
        log_warn("network 'default' is not defined: %s", error->message);
    network_unref(n);
}

void network_define_default(void)
{
    task_start(define_default, NULL);
}
