/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who would miss what is in a volume: other volumes that stand on it, and who tells of himself by a row of VOLUME_USERS(). */
#include "manager/storage/storage_priv.h"

#include <string.h>

static bool stands_on(const struct volume *v, const char *path)
{
    g_autofree char *clean =
        v->backing && v->backing[0] == '/' ? g_canonicalize_filename(v->backing, "/") : NULL;
    return clean && !strcmp(clean, path);
}

static void add_volumes_above(const char *path, GPtrArray *users)
{
    g_autoptr(GPtrArray) pools = pool_all();
    GHashTableIter it;
    const struct volume *v;
    for (unsigned i = 0; i < pools->len; i++) {
        const struct pool *p = pools->pdata[i];
        g_hash_table_iter_init(&it, p->volumes);
        while (g_hash_table_iter_next(&it, NULL, (gpointer *)&v))
            if (stands_on(v, path))
                g_ptr_array_add(users,
                                g_strdup_printf("volume '%s' of pool '%s'", v->name, p->name));
    }
}

static gint by_text(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

GPtrArray *volume_users(const struct pool *p, const struct volume *v, unsigned kinds)
{
    GPtrArray *users = g_ptr_array_new_with_free_func(g_free);
    if (kinds & VOLUME_USER_ABOVE)
        add_volumes_above(v->path, users);
    if (kinds & VOLUME_USER_MACHINE)
        LINKSET_FOREACH (volume_user_finders, struct volume_user_finder, f)
            f->find(p->name, v, users);
    g_ptr_array_sort(users, by_text);
    return users;
}

bool volume_refuse_used(const struct pool *p, const struct volume *v, unsigned kinds,
                        const char *what, GError **error)
{
    g_autoptr(GPtrArray) users = volume_users(p, v, kinds);
    if (!users->len)
        return true;
    g_autofree char *others =
        users->len > 1 ? g_strdup_printf(" and %u more", users->len - 1) : g_strdup("");
    return ruche_error(error, RUCHE_ERR_BUSY, "volume '%s' is used by %s%s: it is %s only by force",
                       v->name, (const char *)users->pdata[0], others, what);
}
