/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The networks there are: finding and listing them, their locks, events and audit lines. Thread:
 * the loop thread. */
#include "manager/named.h"
#include "manager/network/network_priv.h"

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

static struct named_table networks = {
    NAMED_TABLE(struct network, "network", MANAGER_ERR_NO_NETWORK, network_unref),
    NAMED_LOCK(struct network),
};

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
        g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)network_port_unref);
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
    network_lease_book_free(n->leases);
    g_hash_table_unref(n->ports);
    g_ptr_array_unref(n->warnings);
    g_free(n->name);
    g_free(n->bridge);
    g_free(n->text);
    g_free(n->live_text);
    g_free(n);
}

void network_insert(struct network *n)
{
    named_insert(&networks, n);
}

void network_remove(struct network *n)
{
    named_remove(&networks, n);
}

GPtrArray *network_all(void)
{
    return named_list(&networks, NULL, 0);
}

struct network *network_find_name(const char *name, GError **error)
{
    return named_find_name(&networks, name, error);
}

struct network *network_find_uuid(const uint8_t *uuid, GError **error)
{
    return named_find_uuid(&networks, uuid, error);
}

static bool passes(const void *object, unsigned flags)
{
    const struct network *n = object;
    return flags_pass(flags, LIST_ACTIVE, LIST_INACTIVE, n->active) &&
           flags_pass(flags, LIST_PERSISTENT, LIST_TRANSIENT, n->persistent) &&
           flags_pass(flags, LIST_AUTOSTART, LIST_NO_AUTOSTART, n->autostart);
}

GPtrArray *network_list(const struct caller *who, unsigned list_flags)
{
    if (!access_check(who, RIGHT_READ, "list networks", NULL))
        return g_ptr_array_new();
    return named_list(&networks, passes, list_flags);
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

struct call {
    network_fn *fn;
    void *opaque;
};

static bool call(void *object, void *opaque, GError **error)
{
    const struct call *c = opaque;
    return c->fn(object, c->opaque, error);
}

bool network_operation(const struct caller *who, struct network *n, enum right right,
                       const char *operation, network_fn *fn, void *opaque, GError **error)
{
    struct call c = {fn, opaque};
    return named_operation(&networks, who, n, right, operation, call, &c, error);
}
