/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is done to interfaces, as clients ask for it.
 *
 * Spec      libvirt's virInterface* at 9.0.0.
 * Thread    The loop thread; what changes something in a task.
 */
#include "manager/interface/interface_priv.h"
#include "manager/network/network.h"

#include <net/if.h>
#include <string.h>

static struct fiber_mutex lock;

bool interface_operation(const struct caller *who, const char *name, const char *operation,
                         interface_fn *fn, void *opaque, GError **error)
{
    g_autofree char *what = name ? g_strdup_printf("%s interface '%s'", operation, name)
                                 : g_strdup_printf("%s interfaces", operation);
    g_autoptr(GError) inner = NULL;
    if (!access_check(who, RIGHT_HOST, what, error))
        return false;
    fiber_mutex_lock(&lock);
    fn(name, opaque, &inner);
    fiber_mutex_unlock(&lock);
    if (who != &caller_self || inner)
        audit(who, operation, name ? name : "interfaces", inner);
    if (!inner)
        return true;
    g_propagate_error(error, g_steal_pointer(&inner));
    return false;
}

static bool check_flags(const char *operation, unsigned flags, unsigned known, GError **error)
{
    return !(flags & ~known) ||
           ruche_error(error, MANAGER_ERR_ARGUMENT, "%s: flags 0x%x are not supported", operation,
                       flags & ~known);
}

/* ---- looking ---- */

void interface_free(struct interface *i)
{
    if (!i)
        return;
    g_free(i->name);
    g_free(i->mac);
    g_free(i->owner);
    g_free(i);
}

static void describe_definition(struct interface *i, const char *text)
{
    auto_interface_def d = {0};
    if (!interface_def_parse(&d, text, 0, NULL))
        return;
    i->defined = true;
    i->onboot = xml_get(d.root, "start@mode") && !xml_is(d.root, "start@mode", "none");
    if (i->there)
        return;
    i->type = d.type;
    i->mtu = (unsigned)xml_get_u64(d.root, "mtu@size", 0);
    g_free(i->mac);
    i->mac = g_strdup(xml_get_or(d.root, "mac@address", ""));
}

static struct interface *describe(const char *name, const struct host_link *l)
{
    const struct interface_entry *e = interface_entry(name, false);
    struct interface *i = g_new0(struct interface, 1);
    i->name = g_strdup(name);
    i->mac = g_strdup(l ? l->mac : "");
    if (l) {
        i->there = true;
        i->active = host_is_up(l);
        i->type = host_type(l);
        i->mtu = l->mtu;
    }
    if (e && e->text)
        describe_definition(i, e->text);
    if (!i->defined)
        i->owner = interface_owner(name, l ? l->index : 0);
    return i;
}

static int by_name(gconstpointer a, gconstpointer b)
{
    return strcmp((*(struct interface *const *)a)->name, (*(struct interface *const *)b)->name);
}

GPtrArray *interface_list(const struct caller *who, unsigned list_flags)
{
    GPtrArray *all = g_ptr_array_new_with_free_func((GDestroyNotify)interface_free);
    if (!access_check(who, RIGHT_READ, "list interfaces", NULL))
        return all;
    auto_host *h = host_read();
    GHashTableIter it;
    const struct interface_entry *e;
    FOREACH_OF(host_link, l, h->links)
    if (!host_is_tap(l))
        g_ptr_array_add(all, describe(l->name, l));
    g_hash_table_iter_init(&it, interface_entries());
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&e))
        if (e->text && !host_find(h, e->name))
            g_ptr_array_add(all, describe(e->name, NULL));
    unsigned wanted = list_flags & (INTERFACE_LIST_ACTIVE | INTERFACE_LIST_INACTIVE);
    for (unsigned i = all->len; i-- && wanted;) {
        bool active = ((struct interface *)all->pdata[i])->active;
        if (!(wanted & (active ? INTERFACE_LIST_ACTIVE : INTERFACE_LIST_INACTIVE)))
            g_ptr_array_remove_index(all, i);
    }
    g_ptr_array_sort(all, by_name);
    return all;
}

static bool none(const char *name, GError **error)
{
    return ruche_error(error, MANAGER_ERR_NO_INTERFACE, "no interface with matching name '%.64s'",
                       name);
}

struct interface *interface_find(const struct caller *who, const char *name, GError **error)
{
    g_autoptr(GPtrArray) all = interface_list(who, 0);
    for (unsigned i = 0; i < all->len; i++)
        if (!strcmp(((struct interface *)all->pdata[i])->name, name))
            return g_ptr_array_steal_index(all, i);
    none(name, error);
    return NULL;
}

struct interface *interface_find_mac(const struct caller *who, const char *mac, GError **error)
{
    g_autoptr(GPtrArray) all = interface_list(who, 0);
    struct interface *found = NULL;
    for (unsigned i = 0; i < all->len; i++) {
        struct interface *one = all->pdata[i];
        if (!*one->mac || g_ascii_strcasecmp(one->mac, mac) != 0)
            continue;
        if (found) {
            ruche_error(error, RUCHE_ERR_INVALID,
                        "interfaces '%s' and '%s' both have MAC address '%s'; ask by name",
                        found->name, one->name, mac);
            return NULL;
        }
        found = one;
    }
    if (!found) {
        ruche_error(error, MANAGER_ERR_NO_INTERFACE,
                    "no interface with matching MAC address '%.64s'", mac);
        return NULL;
    }
    g_ptr_array_set_free_func(all, NULL);
    for (unsigned i = 0; i < all->len; i++)
        if (all->pdata[i] != found)
            interface_free(all->pdata[i]);
    return found;
}

char *interface_xml(const struct caller *who, const char *name, unsigned flags, GError **error)
{
    const struct interface_entry *e = interface_entry(name, false);
    auto_interface_def d = {0};
    if (!access_check(who, RIGHT_READ, "read an interface's description", error) ||
        !check_flags("describe interface", flags, INTERFACE_XML_INACTIVE, error))
        return NULL;
    auto_host *h = host_read();
    const struct host_link *l = host_find(h, name);
    if (e && e->text && (flags & INTERFACE_XML_INACTIVE || !l))
        return g_strdup(e->text);
    if (!l || host_is_tap(l)) {
        none(name, error);
        return NULL;
    }
    bool defined = e && e->text && interface_def_parse(&d, e->text, 0, NULL);
    return host_xml(h, l, defined ? xml_get(d.root, "start@mode") : NULL);
}

/* ---- define ---- */

static bool check_owner(const char *name, const struct host *h, GError **error)
{
    const struct host_link *l = host_find(h, name);
    g_autofree char *owner = interface_owner(name, l ? l->index : 0);
    return !owner ||
           ruche_error(error, MANAGER_ERR_CONFIG,
                       "interface '%s' is configured by %s, and is not taken over: change it there",
                       name, owner);
}

static bool check_networks(const char *name, GError **error)
{
    g_autoptr(GPtrArray) networks = network_list(&caller_self, 0);
    const char *owner = NULL;
    for (unsigned i = 0; i < networks->len && !owner; i++) {
        const struct network *n = networks->pdata[i];
        if (!g_strcmp0(n->bridge, name) && n->mode <= NETWORK_ISOLATED)
            owner = n->name;
    }
    return !owner || ruche_error(error, RUCHE_ERR_EXISTS,
                                 "interface '%s' is the bridge of network '%s': change it there",
                                 name, owner);
}

/* A bridge's ports may be anybody's: it gives back what it takes. */
static bool check_define(const struct interface_def *d, GError **error)
{
    auto_host *h = host_read();
    const struct host_link *l = host_find(h, d->name);
    if (manager.session)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "interface '%s': a person's own manager has no right to change the "
                           "host's interfaces",
                           d->name);
    if (l && host_is_tap(l))
        return ruche_error(error, MANAGER_ERR_CONFIG, "interface '%s' is a machine's", d->name);
    if (!check_owner(d->name, h, error) || !check_networks(d->name, error))
        return false;
    for (const struct xml_node *p = interface_ports(d->root); p && d->type == INTERFACE_BOND;
         p = xml_next(p))
        if (!check_owner(xml_get_or(p, "@name", ""), h, error))
            return false;
    return true;
}

static bool do_define(const char *name, void *opaque, GError **error)
{
    const struct interface_def *d = opaque;
    if (!check_define(d, error))
        return false;
    struct interface_entry *e = interface_entry(name, true);
    g_autofree char *old = e->text;
    e->text = interface_def_format(d);
    if (interface_save(e, error))
        return true;
    g_free(e->text);
    e->text = g_steal_pointer(&old);
    interface_drop_empty(e);
    return false;
}

struct interface *interface_define(const struct caller *who, const char *xml, unsigned flags,
                                   GError **error)
{
    auto_interface_def d = {0};
    if (!access_check(who, RIGHT_HOST, "define an interface", error) ||
        !check_flags("define interface", flags, INTERFACE_DEFINE_VALIDATE, error) ||
        !interface_def_parse(&d, xml, flags, error) ||
        !interface_operation(who, d.name, "define", do_define, &d, error))
        return NULL;
    return interface_find(who, d.name, error);
}

/* ---- life ---- */

/* What is ours; others' is refused by their name. */
static struct interface_entry *ours(const char *name, bool defined, GError **error)
{
    struct interface_entry *e = interface_entry(name, false);
    auto_host *h = host_read();
    const struct host_link *l = host_find(h, name);
    if (e && (e->text || !defined))
        return e;
    if (!l)
        none(name, error);
    else if (check_owner(name, h, error))
        ruche_error(error, RUCHE_ERR_STATE,
                    "interface '%s' has no definition here: it is left to whoever brought it up",
                    name);
    return NULL;
}

/* One that is up goes on until it is stopped. */
static bool do_undefine(const char *name, void *opaque, GError **error)
{
    struct interface_entry *e = ours(name, true, error);
    if (!e)
        return false;
    g_autofree char *old = g_steal_pointer(&e->text);
    if (!interface_save(e, error)) {
        e->text = g_steal_pointer(&old);
        return false;
    }
    interface_drop_empty(e);
    return true;
}

bool interface_undefine(const struct caller *who, const char *name, GError **error)
{
    return interface_operation(who, name, "undefine", do_undefine, NULL, error);
}

static bool do_start(const char *name, void *opaque, GError **error)
{
    struct interface_entry *e = ours(name, true, error);
    return e && interface_do_start(e, error);
}

bool interface_start(const struct caller *who, const char *name, GError **error)
{
    return interface_operation(who, name, "start", do_start, NULL, error);
}

static bool do_stop(const char *name, void *opaque, GError **error)
{
    struct interface_entry *e = ours(name, false, error);
    if (!e || !interface_do_stop(e, error))
        return false;
    interface_drop_empty(e);
    return true;
}

bool interface_stop(const struct caller *who, const char *name, GError **error)
{
    return interface_operation(who, name, "stop", do_stop, NULL, error);
}
