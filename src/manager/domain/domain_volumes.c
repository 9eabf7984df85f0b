/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which machines have a volume as their disk: those that run with it, and those that are defined with it. */
#include "manager/domain/domain_priv.h"
#include "manager/storage/pool.h"

#include <string.h>

static bool has_disk(const struct domain_def *def, const char *path, const char *in_pool)
{
    for (unsigned i = 0; def && i < def->s.disk_count; i++) {
        const char *source = def->s.disks[i].source;
        if (source && (!strcmp(source, path) || !strcmp(source, in_pool)))
            return true;
    }
    return false;
}

static void machines_with(const char *pool, const struct volume *v, GPtrArray *users)
{
    g_autofree char *in_pool = g_strdup_printf("%s/%s", pool, v->name);
    const GPtrArray *all = domain_table();
    for (unsigned i = 0; i < all->len; i++) {
        const struct domain *d = all->pdata[i];
        if (has_disk(d->live, v->path, in_pool) || has_disk(d->def, v->path, in_pool))
            g_ptr_array_add(users, g_strdup_printf("machine '%s'", d->name));
    }
}
VOLUME_USERS(machines_with);
