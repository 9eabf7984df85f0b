/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is told of pools: descriptions, capabilities, sources that could be had, and when one fills
 * up.
 *
 * Spec      libvirt's formatstorage, formatstoragecaps at 9.0.0.
 * Thread    The loop thread.
 */
#include "base/log.h"
#include "manager/markup.h"
#include "manager/storage/storage_priv.h"

#include <inttypes.h>
#include <string.h>

char *pool_xml(const struct caller *who, struct pool *p, unsigned flags, GError **error)
{
    enum { INACTIVE = 1 };
    if (!access_check(who, RIGHT_READ, "read a storage pool's description", error) ||
        !flags_check("describe storage pool", flags, INACTIVE, error))
        return NULL;
    return pool_format(p, flags & INACTIVE);
}

static void add_formats(GString *b, const char *element, const char *name,
                        const char *const *formats)
{
    markup_add(b, "    <%s>\n      <defaultFormat type='%s'/>\n      <enum name='%s'>\n", element,
               formats[0], name);
    for (; *formats; formats++)
        markup_add(b, "        <value>%s</value>\n", *formats);
    markup_add(b, "      </enum>\n    </%s>\n", element);
}

static gint by_type(gconstpointer a, gconstpointer b)
{
    return strcmp((*(const struct pool_backend *const *)a)->type,
                  (*(const struct pool_backend *const *)b)->type);
}

char *pool_capabilities(const struct caller *who, GError **error)
{
    static const char *const without[] = {"gluster", "sheepdog", "vstorage"};
    if (!access_check(who, RIGHT_READ, "read storage pool capabilities", error))
        return NULL;
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    LINKSET_FOREACH (pool_backends, struct pool_backend, each)
        g_ptr_array_add(all, (void *)each);
    g_ptr_array_sort(all, by_type);
    GString *b = g_string_new("<storagepoolCapabilities>\n");
    for (unsigned i = 0; i < all->len; i++) {
        const struct pool_backend *row = all->pdata[i];
        markup_add(b, "  <pool type='%s' supported='yes'>\n", row->type);
        if (row->source_formats)
            add_formats(b, "poolOptions", "sourceFormatType", row->source_formats);
        if (row->volume_formats)
            add_formats(b, "volOptions", "targetFormatType", row->volume_formats);
        g_string_append(b, "  </pool>\n");
    }
    for (unsigned i = 0; i < ARRAY_COUNT(without); i++)
        markup_add(b, "  <pool type='%s' supported='no'>\n  </pool>\n", without[i]);
    g_string_append(b, "</storagepoolCapabilities>\n");
    return g_string_free(b, FALSE);
}

char *pool_find_sources(const struct caller *who, const char *type, const char *spec,
                        unsigned flags, GError **error)
{
    const struct pool_backend *b = pool_backend_find(type);
    if (!access_check(who, RIGHT_HOST, "search for storage pool sources", error) ||
        !flags_check("search for storage pool sources", flags, 0, error))
        return NULL;
    if (!b || !b->find_sources) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                    "sources of pools of type '%.32s' cannot be searched for", type);
        return NULL;
    }
    auto_xml *doc = NULL;
    if (spec && *spec && !(doc = xml_parse(spec, strlen(spec), "source", error)))
        return NULL;
    if (!storage_programs(b->programs, error))
        return NULL;
    GError *why = NULL;
    GString *found = g_string_new("<sources>\n");
    b->find_sources(doc, found, &why);
    g_string_append(found, "</sources>\n");
    if (!why)
        return g_string_free(found, FALSE);
    g_string_free(found, TRUE);
    g_propagate_error(error, why);
    return NULL;
}

/* ---- how full ---- */

uint64_t pool_promised(const struct pool *p)
{
    GHashTableIter it;
    struct volume *v;
    uint64_t sum = 0;
    g_hash_table_iter_init(&it, p->volumes);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&v))
        if (__builtin_add_overflow(sum, v->capacity, &sum))
            return UINT64_MAX;
    return sum;
}

void pool_watch(struct pool *p)
{
    bool over = p->warn_percent && p->capacity &&
                p->allocation / 100.0 >= p->capacity / 10000.0 * p->warn_percent;
    if (over == p->warned)
        return;
    p->warned = over;
    if (over)
        log_warn("storage pool '%s': %" PRIu64 " of %" PRIu64
                 " bytes are allocated, over its threshold of %u%%",
                 p->name, p->allocation, p->capacity, p->warn_percent);
    pool_emit(p, POOL_EVENT_FULL, over);
}

static bool do_warning(struct pool *p, void *opaque, GError **error)
{
    unsigned was = p->warn_percent;
    p->warn_percent = *(unsigned *)opaque;
    if (!pool_save_settings(p, error)) {
        p->warn_percent = was;
        return false;
    }
    if (pool_runs(p))
        pool_watch(p);
    return true;
}

bool pool_set_warning(const struct caller *who, struct pool *p, unsigned percent, GError **error)
{
    if (percent > 100)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "storage pool '%s': a threshold of %u%% is over 100%%", p->name,
                           percent);
    return pool_operation(who, p, RIGHT_HOST, "set warning of", do_warning, &percent, error);
}
