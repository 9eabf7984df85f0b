/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What interfaces are promised of their network's inbound rate: <bandwidth><inbound floor=''>.
 *
 * Spec      libvirt's formatnetwork, "Quality of service".
 * Thread    The loop thread.
 */
#include "manager/network/network_priv.h"

static uint64_t floor_of(const struct network_port *p)
{
    return xml_get_u64(p->doc, "bandwidth/inbound@floor", 0);
}

bool network_floor_check(const struct network *n, const struct xml_node *root,
                         const struct xml_node *interface, const struct network_port *instead,
                         GError **error)
{
    uint64_t wanted = xml_get_u64(interface, "bandwidth/inbound@floor", 0), sum = wanted;
    uint64_t average = xml_get_u64(root, "bandwidth/inbound@average", 0);
    uint64_t limit = MAX(xml_get_u64(root, "bandwidth/inbound@peak", 0), average);
    const char *mac = xml_get_or(interface, "mac@address", "");
    GHashTableIter it;
    struct network_port *p;
    if (!wanted)
        return true;
    if (!network_mode_has_own_bridge(n->mode) || !average)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "interface %s is promised a floor, but network '%s' has no "
                           "<bandwidth><inbound average=''> to take it from",
                           mac, n->name);
    g_hash_table_iter_init(&it, n->ports);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&p))
        sum += p == instead ? 0 : floor_of(p);
    return sum <= limit ||
           ruche_error(error, MANAGER_ERR_CONFIG,
                       "network '%s': with interface %s it would promise %" G_GUINT64_FORMAT
                       " KiB/s, more than its inbound %" G_GUINT64_FORMAT,
                       n->name, mac, sum, limit);
}

bool network_floors_apply(const struct network *n, const struct xml_node *bandwidth, GError **error)
{
    g_autoptr(GArray) floors = g_array_new(FALSE, FALSE, sizeof(struct network_floor));
    GHashTableIter it;
    struct network_port *p;
    g_hash_table_iter_init(&it, n->ports);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&p)) {
        struct network_floor f = {.kib = floor_of(p), .mac = p->mac};
        if (f.kib)
            g_array_append_val(floors, f);
    }
    return network_qos_floors(n->bridge, bandwidth, (const struct network_floor *)floors->data,
                              floors->len, error);
}

bool network_floors_follow(const struct network *n, const struct network_port *p, GError **error)
{
    auto_network_def d = {0};
    return !floor_of(p) || !n->active || !network_mode_has_own_bridge(n->mode) ||
           (network_def_parse(&d, network_text(n), NETWORK_DEF_LIVE, error) &&
            xml_find(d.root, "bandwidth") &&
            network_floors_apply(n, xml_find(d.root, "bandwidth"), error));
}
