/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The pools there are: finding and listing them, their locks, events and audit lines. Thread: the
 * loop thread. */
#include "manager/named.h"
#include "manager/storage/storage_priv.h"

#include <string.h>

/* virConnectListAllStoragePoolsFlags */
enum {
    LIST_INACTIVE = 1 << 0,
    LIST_ACTIVE = 1 << 1,
    LIST_PERSISTENT = 1 << 2,
    LIST_TRANSIENT = 1 << 3,
    LIST_AUTOSTART = 1 << 4,
    LIST_NO_AUTOSTART = 1 << 5,
    LIST_TYPES = ((1 << 20) - 1) & ~((1 << 6) - 1),
};

static struct named_table pools = {
    NAMED_TABLE(struct pool, "storage pool", MANAGER_ERR_NO_POOL, pool_unref),
    NAMED_LOCK(struct pool),
};

void volume_free(struct volume *v)
{
    if (!v)
        return;
    g_free(v->name);
    g_free(v->path);
    g_free(v->format);
    g_free(v->backing);
    g_free(v->backing_format);
    g_free(v->compat);
    g_free(v->secret);
    g_free(v->key);
    g_free(v->source);
    g_free(v);
}

struct pool *pool_new(struct pool_def *d)
{
    struct pool *p = g_new0(struct pool, 1);
    p->refs = 1;
    memcpy(p->uuid, d->uuid, sizeof(p->uuid));
    p->name = g_strdup(d->name);
    p->backend = d->backend;
    p->def = d;
    p->real_perms = NO_PERMS;
    p->volumes = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)volume_free);
    return p;
}

const char *pool_type(const struct pool *p)
{
    return p->backend->type;
}

bool pool_of_files(const struct pool *p)
{
    return p->backend->can & POOL_FILES;
}

const char *pool_target(const struct pool *p)
{
    return p->def->target;
}

struct pool *pool_ref(struct pool *p)
{
    p->refs++;
    return p;
}

void pool_unref(struct pool *p)
{
    if (!p || --p->refs)
        return;
    g_hash_table_unref(p->volumes);
    g_clear_pointer(&p->waited_for, g_hash_table_unref);
    pool_def_free(p->def);
    pool_def_free(p->stored);
    g_free(p->name);
    g_free(p);
}

void pool_insert(struct pool *p)
{
    named_insert(&pools, p);
}

void pool_remove(struct pool *p)
{
    named_remove(&pools, p);
}

GPtrArray *pool_all(void)
{
    return named_list(&pools, NULL, 0);
}

struct pool *pool_find_name(const char *name, GError **error)
{
    return named_find_name(&pools, name, error);
}

struct pool *pool_find_uuid(const uint8_t *uuid, GError **error)
{
    return named_find_uuid(&pools, uuid, error);
}

/* Those that run come before those that could. */
struct pool *pool_find_target(const char *path, GError **error)
{
    g_autofree char *wanted = g_canonicalize_filename(path, "/");
    struct pool *found = NULL;
    for (unsigned i = 0; i < named_count(&pools); i++) {
        struct pool *p = pools.all->pdata[i];
        if (!g_strcmp0(p->def->target, wanted) &&
            (!found || (found->state == POOL_INACTIVE && p->state != POOL_INACTIVE)))
            found = p;
    }
    if (!found)
        ruche_error(error, MANAGER_ERR_NO_POOL, "no storage pool with matching target path '%s'",
                    path);
    return found ? pool_ref(found) : NULL;
}

static bool passes(const void *object, unsigned flags)
{
    const struct pool *p = object;
    return flags_pass(flags, LIST_ACTIVE, LIST_INACTIVE, p->state != POOL_INACTIVE) &&
           flags_pass(flags, LIST_PERSISTENT, LIST_TRANSIENT, p->persistent) &&
           flags_pass(flags, LIST_AUTOSTART, LIST_NO_AUTOSTART, p->autostart) &&
           (!(flags & LIST_TYPES) || flags & p->backend->list_flag);
}

GPtrArray *pool_list(const struct caller *who, unsigned list_flags)
{
    if (!access_check(who, RIGHT_READ, "list storage pools", NULL))
        return g_ptr_array_new();
    return named_list(&pools, passes, list_flags);
}

void pool_emit(const struct pool *p, int id, int event)
{
    struct event e = {.class = EVENT_POOL,
                      .id = id,
                      .name = p->name,
                      .uuid = p->uuid,
                      .object_id = -1,
                      .event = event};
    event_emit(&e);
}

bool pool_check_active(const struct pool *p, GError **error)
{
    return pool_runs(p) ||
           ruche_error(error, RUCHE_ERR_STATE, "storage pool '%s' is not active", p->name);
}

bool flags_check(const char *operation, unsigned flags, unsigned known, GError **error)
{
    return !(flags & ~known) ||
           ruche_error(error, MANAGER_ERR_ARGUMENT, "%s: flags 0x%x are not supported", operation,
                       flags & ~known);
}

struct call {
    bool (*fn)(struct pool *p, void *opaque, GError **error);
    void *opaque;
};

static bool call(void *object, void *opaque, GError **error)
{
    const struct call *c = opaque;
    return c->fn(object, c->opaque, error);
}

bool pool_operation(const struct caller *who, struct pool *p, enum right right,
                    const char *operation, bool (*fn)(struct pool *p, void *opaque, GError **error),
                    void *opaque, GError **error)
{
    struct call c = {fn, opaque};
    return named_operation(&pools, who, p, right, operation, call, &c, error);
}
