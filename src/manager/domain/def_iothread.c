/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The numbers of a description's I/O threads, and who uses one.
 *
 * Spec      libvirt's formatdomain, <iothreads> and <iothreadids>: the count may be above the
 * numbers that are written out; the lowest free ones make it up.
 */
#include "manager/domain/def.h"
#include "manager/domain/def_internal.h"

#define IOTHREADS_MAX 1024

GArray *domain_def_iothreads(const struct xml_node *domain)
{
    GArray *list = g_array_new(FALSE, FALSE, sizeof(unsigned));
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    uint64_t count = xml_get_u64(domain, "iothreads", 0);
    for (struct xml_node *t = xml_find(domain, "iothreadids/iothread");
         t && list->len < IOTHREADS_MAX; t = xml_next(t)) {
        unsigned id = (unsigned)xml_get_u64(t, "@id", 0);
        if (id && g_hash_table_add(seen, GUINT_TO_POINTER(id)))
            g_array_append_val(list, id);
    }
    for (unsigned id = 1; list->len < MIN(count, IOTHREADS_MAX); id++)
        if (g_hash_table_add(seen, GUINT_TO_POINTER(id)))
            g_array_append_val(list, id);
    return list;
}

bool domain_def_has_iothread(const struct xml_node *domain, unsigned id)
{
    g_autoptr(GArray) list = domain_def_iothreads(domain);
    for (guint i = 0; i < list->len; i++)
        if (g_array_index(list, unsigned, i) == id)
            return true;
    return false;
}

struct xml_node *domain_def_iothread_user(const struct xml_node *domain, unsigned id)
{
    const struct xml_node *devices = devices_of(domain);
    for (struct xml_node *n = devices ? devices->children : NULL; n; n = n->next)
        if (xml_is_element(n) && xml_get_u64(n, "driver@iothread", 0) == id)
            return n;
    return NULL;
}
