/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The pools there are: finding and listing them, their locks, events and audit lines. Thread: the
 * loop thread. */
#include "manager/storage/storage_priv.h"
#include "manager/uuid.h"

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

static GPtrArray *pools; /* sorted by name */

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
    pool_def_free(p->def);
    pool_def_free(p->stored);
    g_free(p->name);
    g_free(p);
}

static int by_name(gconstpointer a, gconstpointer b)
{
    return strcmp((*(struct pool *const *)a)->name, (*(struct pool *const *)b)->name);
}

static GPtrArray *table(void)
{
    if (!pools)
        pools = g_ptr_array_new();
    return pools;
}

void pool_insert(struct pool *p)
{
    g_ptr_array_add(table(), pool_ref(p));
    g_ptr_array_sort(pools, by_name);
}

void pool_remove(struct pool *p)
{
    p->removed = true;
    if (g_ptr_array_remove(table(), p))
        pool_unref(p);
}

GPtrArray *pool_all(void)
{
    GPtrArray *all = g_ptr_array_new_with_free_func((GDestroyNotify)pool_unref);
    for (unsigned i = 0; i < table()->len; i++)
        g_ptr_array_add(all, pool_ref(pools->pdata[i]));
    return all;
}

struct pool *pool_find_name(const char *name, GError **error)
{
    for (unsigned i = 0; i < table()->len; i++) {
        struct pool *p = pools->pdata[i];
        if (!strcmp(p->name, name))
            return pool_ref(p);
    }
    ruche_error(error, MANAGER_ERR_NO_POOL, "no storage pool with matching name '%s'", name);
    return NULL;
}

struct pool *pool_find_uuid(const uint8_t *uuid, GError **error)
{
    char text[UUID_TEXT_BYTES];
    for (unsigned i = 0; i < table()->len; i++) {
        struct pool *p = pools->pdata[i];
        if (!memcmp(p->uuid, uuid, sizeof(p->uuid)))
            return pool_ref(p);
    }
    uuid_format(uuid, text);
    ruche_error(error, MANAGER_ERR_NO_POOL, "no storage pool with matching uuid '%s'", text);
    return NULL;
}

/* Those that run come before those that could. */
struct pool *pool_find_target(const char *path, GError **error)
{
    g_autofree char *wanted = g_canonicalize_filename(path, "/");
    struct pool *found = NULL;
    for (unsigned i = 0; i < table()->len; i++) {
        struct pool *p = pools->pdata[i];
        if (!g_strcmp0(p->def->target, wanted) &&
            (!found || (found->state == POOL_INACTIVE && p->state != POOL_INACTIVE)))
            found = p;
    }
    if (!found)
        ruche_error(error, MANAGER_ERR_NO_POOL, "no storage pool with matching target path '%s'",
                    path);
    return found ? pool_ref(found) : NULL;
}

/* Of a pair of flags, none or both filter nothing. */
static bool passes(unsigned flags, unsigned yes, unsigned no, bool is)
{
    return !(flags & (yes | no)) || flags & (is ? yes : no);
}

GPtrArray *pool_list(const struct caller *who, unsigned list_flags)
{
    GPtrArray *found = g_ptr_array_new_with_free_func((GDestroyNotify)pool_unref);
    for (unsigned i = 0;
         i < table()->len && access_check(who, RIGHT_READ, "list storage pools", NULL); i++) {
        struct pool *p = pools->pdata[i];
        if (passes(list_flags, LIST_ACTIVE, LIST_INACTIVE, p->state != POOL_INACTIVE) &&
            passes(list_flags, LIST_PERSISTENT, LIST_TRANSIENT, p->persistent) &&
            passes(list_flags, LIST_AUTOSTART, LIST_NO_AUTOSTART, p->autostart) &&
            (!(list_flags & LIST_TYPES) || list_flags & p->backend->list_flag))
            g_ptr_array_add(found, pool_ref(p));
    }
    return found;
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

bool pool_operation(const struct caller *who, struct pool *p, enum right right,
                    const char *operation, bool (*fn)(struct pool *p, void *opaque, GError **error),
                    void *opaque, GError **error)
{
    g_autofree char *what = g_strdup_printf("%s storage pool '%s'", operation, p->name);
    g_autoptr(GError) e = NULL;
    if (!access_check(who, right, what, error))
        return false;
    pool_ref(p);
    fiber_mutex_lock(&p->lock);
    bool ok = p->removed ? ruche_error(&e, MANAGER_ERR_NO_POOL,
                                       "storage pool '%s' is no longer there", p->name)
                         : fn(p, opaque, &e);
    fiber_mutex_unlock(&p->lock);
    if (right != RIGHT_READ)
        audit(who, operation, p->name, e);
    pool_unref(p);
    if (!ok)
        g_propagate_error(error, g_steal_pointer(&e));
    return ok;
}
