/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The networks there are: finding and listing them, their locks, events and audit lines. Thread:
 * the loop thread. */
#include "manager/network/network_priv.h"
#include "manager/uuid.h"

#include <string.h>

/* virConnectListAllNetworksFlags */
enum {
    LIST_INACTIVE = 1 << 0,
    LIST_ACTIVE = 1 << 1,
    LIST_PERSISTENT = 1 << 2,
    LIST_TRANSIENT = 1 << 3,
    LIST_AUTOSTART = 1 << 4,
    LIST_NO_AUTOSTART = 1 << 5,
};

static GPtrArray *networks; /* sorted by name */

struct network *network_new(const struct network_def *d)
{
    struct network *n = g_new0(struct network, 1);
    n->refs = 1;
    memcpy(n->uuid, d->uuid, sizeof(n->uuid));
    n->name = g_strdup(d->name);
    n->bridge = g_strdup(d->bridge);
    n->mode = d->mode;
    n->text = network_def_format(d);
    n->ports =
        g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)network_port_free);
    n->warnings = g_ptr_array_new_with_free_func(g_free);
    return n;
}

struct network *network_ref(struct network *n)
{
    n->refs++;
    return n;
}

void network_unref(struct network *n)
{
    if (!n || --n->refs)
        return;
    network_daemon_forget(n);
    g_hash_table_unref(n->ports);
    g_ptr_array_unref(n->warnings);
    g_free(n->name);
    g_free(n->bridge);
    g_free(n->text);
    g_free(n->live_text);
    g_free(n);
}

static int by_name(gconstpointer a, gconstpointer b)
{
    return strcmp((*(struct network *const *)a)->name, (*(struct network *const *)b)->name);
}

static GPtrArray *table(void)
{
    if (!networks)
        networks = g_ptr_array_new();
    return networks;
}

void network_insert(struct network *n)
{
    g_ptr_array_add(table(), network_ref(n));
    g_ptr_array_sort(networks, by_name);
}

void network_remove(struct network *n)
{
    n->removed = true;
    if (g_ptr_array_remove(table(), n))
        network_unref(n);
}

GPtrArray *network_all(void)
{
    GPtrArray *all = g_ptr_array_new_with_free_func((GDestroyNotify)network_unref);
    for (unsigned i = 0; i < table()->len; i++)
        g_ptr_array_add(all, network_ref(networks->pdata[i]));
    return all;
}

struct network *network_find_name(const char *name, GError **error)
{
    for (unsigned i = 0; i < table()->len; i++) {
        struct network *n = networks->pdata[i];
        if (!strcmp(n->name, name))
            return network_ref(n);
    }
    ruche_error(error, MANAGER_ERR_NO_NETWORK, "no network with matching name '%s'", name);
    return NULL;
}

struct network *network_find_uuid(const uint8_t *uuid, GError **error)
{
    char text[UUID_TEXT_BYTES];
    for (unsigned i = 0; i < table()->len; i++) {
        struct network *n = networks->pdata[i];
        if (!memcmp(n->uuid, uuid, sizeof(n->uuid)))
            return network_ref(n);
    }
    uuid_format(uuid, text);
    ruche_error(error, MANAGER_ERR_NO_NETWORK, "no network with matching uuid '%s'", text);
    return NULL;
}

/* Of a pair of flags, none or both filter nothing. */
static bool passes(unsigned flags, unsigned yes, unsigned no, bool is)
{
    return !(flags & (yes | no)) || flags & (is ? yes : no);
}

GPtrArray *network_list(const struct caller *who, unsigned list_flags)
{
    GPtrArray *found = g_ptr_array_new_with_free_func((GDestroyNotify)network_unref);
    if (!access_check(who, RIGHT_READ, "list networks", NULL))
        return found;
    for (unsigned i = 0; i < table()->len; i++) {
        struct network *n = networks->pdata[i];
        if (passes(list_flags, LIST_ACTIVE, LIST_INACTIVE, n->active) &&
            passes(list_flags, LIST_PERSISTENT, LIST_TRANSIENT, n->persistent) &&
            passes(list_flags, LIST_AUTOSTART, LIST_NO_AUTOSTART, n->autostart))
            g_ptr_array_add(found, network_ref(n));
    }
    return found;
}

void network_emit(const struct network *n, int event)
{
    struct event e = {
        .class = EVENT_NETWORK, .name = n->name, .uuid = n->uuid, .object_id = -1, .event = event};
    event_emit(&e);
}

bool network_check_active(const struct network *n, GError **error)
{
    return n->active || ruche_error(error, RUCHE_ERR_STATE, "network '%s' is not active", n->name);
}

bool network_operation(const struct caller *who, struct network *n, enum right right,
                       const char *operation, network_fn *fn, void *opaque, GError **error)
{
    g_autofree char *what = g_strdup_printf("%s network '%s'", operation, n->name);
    g_autoptr(GError) e = NULL;
    if (!access_check(who, right, what, error))
        return false;
    network_ref(n);
    fiber_mutex_lock(&n->lock);
    bool ok = n->removed ? ruche_error(&e, MANAGER_ERR_NO_NETWORK,
                                       "network '%s' is no longer there", n->name)
                         : fn(n, opaque, &e);
    fiber_mutex_unlock(&n->lock);
    if (right != RIGHT_READ)
        audit(who, operation, n->name, e);
    network_unref(n);
    if (!ok)
        g_propagate_error(error, g_steal_pointer(&e));
    return ok;
}
