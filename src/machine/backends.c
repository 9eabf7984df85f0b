/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Registry of backends by kind and id. */
#include "machine/backends.h"

#include <stdlib.h>
#include <string.h>

static const char *const kind_names[N_BACKEND_KINDS] = {
    [BACKEND_IMAGE] = "drive",
    [BACKEND_NETDEV] = "netdev",
    [BACKEND_CHARDEV] = "chardev",
    [BACKEND_IOTHREAD] = "iothread",
};

void backend_state_set(struct machine *m, enum backend_kind kind, const struct backend_state *ops)
{
    m->backend_state[kind] = ops;
}

const char *backend_kind_name(enum backend_kind kind)
{
    return kind_names[kind];
}

bool backend_add(struct machine *m, enum backend_kind kind, const char *id, void *backend)
{
    if (!m->backends[kind])
        m->backends[kind] = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    if (g_hash_table_contains(m->backends[kind], id))
        return false;
    g_hash_table_insert(m->backends[kind], g_strdup(id), backend);
    return true;
}

void backend_remove(struct machine *m, enum backend_kind kind, const char *id)
{
    if (m->backends[kind])
        g_hash_table_remove(m->backends[kind], id);
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted ids; free with g_free() (the strings are the table's). */
static const char **sorted_ids(struct machine *m, enum backend_kind kind)
{
    guint count = m->backends[kind] ? g_hash_table_size(m->backends[kind]) : 0;
    const char **ids = g_new0(const char *, count + 1);
    GHashTableIter it;
    gpointer key;
    guint n = 0;
    if (count) {
        g_hash_table_iter_init(&it, m->backends[kind]);
        while (g_hash_table_iter_next(&it, &key, NULL))
            ids[n++] = key;
        qsort(ids, n, sizeof(*ids), compare_ids);
    }
    return ids;
}

void *backend_find(struct machine *m, enum backend_kind kind, const char *owner, const char *id,
                   GError **error)
{
    void *found = m->backends[kind] ? g_hash_table_lookup(m->backends[kind], id) : NULL;
    if (!found) {
        g_autofree const char **ids = sorted_ids(m, kind);
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s: there is no %s '%s'%s", owner, kind_names[kind], id,
                    suggest_phrase(id, ids));
    }
    return found;
}

void backend_foreach(struct machine *m, enum backend_kind kind,
                     void (*fn)(const char *id, void *backend, void *opaque), void *opaque)
{
    g_autofree const char **ids = sorted_ids(m, kind);
    for (const char **id = ids; *id; id++)
        fn(*id, g_hash_table_lookup(m->backends[kind], *id), opaque);
}
