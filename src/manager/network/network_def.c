/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A network's description: read, checked, completed once, put in order.
 *
 * Spec      libvirt's formatnetwork at 9.0.0.
 * Thread    Any.
 * Trust     XML is hostile; manager/xml.h and the schema's rows bound it.
 */
#include "manager/domain/def.h"
#include "manager/network/network_priv.h"
#include "manager/store.h"
#include "manager/uuid.h"

#include <string.h>

#define BRIDGES_MAX 4096

static const char *const mode_words[] = {
    [NETWORK_NAT] = "nat",
    [NETWORK_ROUTE] = "route",
    [NETWORK_OPEN] = "open",
    [NETWORK_ISOLATED] = "none",
    [NETWORK_BRIDGE] = "bridge",
    [NETWORK_PRIVATE] = "private",
    [NETWORK_VEPA] = "vepa",
    [NETWORK_DIRECT] = "bridge",
    [NETWORK_PASSTHROUGH] = "passthrough",
    [NETWORK_HOSTDEV] = "hostdev",
};

const char *network_mode_word(enum network_mode mode)
{
    return mode_words[mode];
}

bool network_mode_has_own_bridge(enum network_mode mode)
{
    return mode <= NETWORK_ISOLATED;
}

bool network_is_ovs(const struct xml_node *root)
{
    return xml_is(root, "virtualport@type", "openvswitch");
}

static enum network_mode mode_of(const struct xml_node *root)
{
    const char *word = xml_get_or(root, "forward@mode", "none");
    bool over_interface = xml_get(root, "forward@dev") || xml_find(root, "forward/interface");
    if (!strcmp(word, "bridge") && over_interface && !xml_get(root, "bridge@name"))
        return NETWORK_DIRECT;
    for (unsigned i = 0; i < G_N_ELEMENTS(mode_words); i++)
        if (!strcmp(mode_words[i], word))
            return (enum network_mode)i;
    return NETWORK_ISOLATED;
}

/* Of an address without any: what its class says, as it was before there were prefixes. */
static unsigned usual_prefix(const struct net_addr *a)
{
    if (a->v6)
        return 64;
    return a->b[0] < 128 ? 8 : a->b[0] < 192 ? 16 : 24;
}

bool network_subnet_parse(const struct xml_node *n, struct net_subnet *ret, GError **error)
{
    const char *text = xml_get_or(n, "@address", ""), *mask = xml_get(n, "@netmask"),
               *prefix = xml_get(n, "@prefix");
    struct net_subnet s = {0};
    struct net_addr m;
    if (!net_addr_parse(text, &s.addr))
        return ruche_error(error, RUCHE_ERR_XML, "'%.64s' is not an IP address", text);
    if (s.addr.v6 != xml_is(n, "@family", "ipv6"))
        return ruche_error(error, RUCHE_ERR_XML, "address '%s' is not of family '%s'", text,
                           xml_get_or(n, "@family", "ipv4"));
    if (mask && prefix)
        return ruche_error(error, RUCHE_ERR_XML,
                           "address '%s' has both a netmask and a prefix; give one", text);
    s.prefix = prefix ? (unsigned)xml_get_u64(n, "@prefix", 0) : usual_prefix(&s.addr);
    if (mask &&
        (!net_addr_parse(mask, &m) || m.v6 != s.addr.v6 || !net_prefix_of_mask(&m, &s.prefix)))
        return ruche_error(error, RUCHE_ERR_XML, "netmask '%s' is not one of address '%s'", mask,
                           text);
    if (s.prefix > net_addr_bits(&s.addr))
        return ruche_error(error, RUCHE_ERR_XML, "prefix %u of address '%s' is larger than %u",
                           s.prefix, text, net_addr_bits(&s.addr));
    *ret = s;
    return true;
}

/* ---- completion ---- */

static void set_missing(struct xml_node *n, const char *path, const char *value)
{
    if (!xml_get(n, path))
        xml_set(n, path, value);
}

static void random_mac(char ret[18])
{
    uint8_t u[16];
    uuid_random(u);
    g_snprintf(ret, 18, "52:54:00:%02x:%02x:%02x", u[0], u[1], u[2]);
}

static void complete_nat(struct xml_node *root)
{
    if (!xml_find(root, "forward/nat/port") && !xml_find(root, "forward/nat/address")) {
        xml_set(root, "forward/nat/port@start", "1024");
        xml_set(root, "forward/nat/port@end", "65535");
    }
}

/* <forward dev=''> and its first <interface> say the same: each is written where the other is. */
static void complete_interfaces(struct xml_node *root)
{
    const char *dev = xml_get(root, "forward@dev"), *first = xml_get(root, "forward/interface@dev");
    if (dev && !first)
        xml_set(root, "forward/interface@dev", dev);
    else if (first && !dev)
        xml_set(root, "forward@dev", first);
}

static void complete(struct network_def *d)
{
    char text[UUID_TEXT_BYTES], mac[18];
    uuid_format(d->uuid, text);
    xml_set(d->root, "uuid", text);
    if (d->mode == NETWORK_NAT)
        complete_nat(d->root);
    complete_interfaces(d->root);
    xml_remove(d->root, "domain@register"); /* 'no'; later than the published schema */
    if (!xml_is(d->root, "@ipv6", "yes"))
        xml_remove(d->root, "@ipv6");
    if (!network_mode_has_own_bridge(d->mode))
        return;
    set_missing(d->root, "bridge@stp", "on");
    set_missing(d->root, "bridge@delay", "0");
    random_mac(mac);
    set_missing(d->root, "mac@address", mac);
}

bool network_def_name_bridge(struct network_def *d, bool (*taken)(const char *name))
{
    if (d->bridge || !network_mode_has_own_bridge(d->mode))
        return false;
    for (unsigned i = 0; i < BRIDGES_MAX && !d->bridge; i++) {
        char name[16];
        g_snprintf(name, sizeof(name), "virbr%u", i);
        if (!taken(name))
            d->bridge = g_strdup(name);
    }
    if (!d->bridge)
        return false;
    xml_set(d->root, "bridge@name", d->bridge);
    return schema_apply(d->root, &network_schema, DEF_LIVE, NULL);
}

/* ---- reading ---- */

/* What there can be one of is not taken from the first and forgotten of the second. */
static bool check_twice(const struct xml_node *n, const struct schema_row *rows, GError **error)
{
    for (const struct xml_node *c = n->children; c; c = c->next) {
        const struct schema_row *row = xml_is_element(c) ? schema_row_of(rows, c) : NULL;
        const struct xml_node *first = row && !row->ns ? xml_find(n, row->name) : c;
        if (row && !(row->flags & F_MANY) && first != c)
            return ruche_error(error, RUCHE_ERR_XML, "network: element <%s> of <%s> is there twice",
                               row->name, n->name);
        if (row && row->children && !check_twice(c, row->children, error))
            return false;
    }
    return true;
}

/* More than one tag is a trunk, also where it does not say so. */
static void complete_trunks(struct xml_node *n)
{
    struct xml_node *vlan = xml_find(n, "vlan"), *tag = vlan ? xml_find(vlan, "tag") : NULL;
    if (tag && xml_next(tag))
        set_missing(vlan, "@trunk", "yes");
}

/* Values end up in files of programs, a line each. */
static bool check_controls(const struct xml_node *n, GError **error)
{
    for (const struct xml_attr *a = n->attrs; a; a = a->next) {
        for (const char *p = a->value; *p; p++)
            if ((unsigned char)*p < ' ' || *p == 0x7f)
                return ruche_error(error, RUCHE_ERR_XML,
                                   "network: attribute '%s' of '%s' has a control character in it",
                                   a->name, n->name);
    }
    for (const struct xml_node *c = n->children; c; c = c->next)
        if (xml_is_element(c) && strcmp(c->name, "metadata") != 0 && !check_controls(c, error))
            return false;
    return true;
}

static bool read_names(struct network_def *d, GError **error)
{
    const char *uuid = xml_get(d->root, "uuid"), *bridge = xml_get(d->root, "bridge@name");
    d->name = g_strdup(xml_get_or(d->root, "name", ""));
    if (!store_name_check("network", d->name, error))
        return false;
    d->has_uuid = uuid && *uuid;
    if (d->has_uuid && !uuid_parse(uuid, d->uuid))
        return ruche_error(error, RUCHE_ERR_XML, "network '%s': '%.64s' is not a UUID", d->name,
                           uuid);
    if (!d->has_uuid)
        uuid_random(d->uuid);
    d->mode = mode_of(d->root);
    /* A pattern asks for a name of ours. */
    if (bridge && !strchr(bridge, '%'))
        d->bridge = g_strdup(bridge);
    else
        xml_remove(d->root, "bridge@name");
    return true;
}

static bool read_subnets(struct network_def *d, GError **error)
{
    FOREACH_NAMED (ip, d->root, "ip") {
        if (d->subnet_count == NETWORK_SUBNETS_MAX)
            return ruche_error(error, RUCHE_ERR_XML, "network '%s': there are more than %d <ip>",
                               d->name, NETWORK_SUBNETS_MAX);
        g_autoptr(GError) inner = NULL;
        if (!network_subnet_parse(ip, &d->subnets[d->subnet_count++], &inner))
            return ruche_error(error, inner->code, "network '%s': ip: %s", d->name, inner->message);
    }
    return true;
}

/* Of the tree d->root. */
static bool def_of_tree(struct network_def *d, unsigned flags, GError **error)
{
    unsigned rows = (flags & NETWORK_DEF_VALIDATE ? DEF_VALIDATE : 0) |
                    (flags & NETWORK_DEF_LIVE ? DEF_LIVE : 0);
    complete_trunks(d->root);
    FOREACH_NAMED (group, d->root, "portgroup")
        complete_trunks(group);
    if (!check_twice(d->root, network_schema.children, error) ||
        !schema_apply(d->root, &network_schema, rows, error) || !check_controls(d->root, error) ||
        !read_names(d, error) || !read_subnets(d, error) || !network_check(d, error))
        return false;
    complete(d);
    return schema_apply(d->root, &network_schema, rows, error);
}

bool network_def_parse(struct network_def *d, const char *xml, unsigned flags, GError **error)
{
    *d = (struct network_def){0};
    d->root = xml_parse(xml, strlen(xml), "network", error);
    if (d->root && def_of_tree(d, flags, error))
        return true;
    network_def_done(d);
    return false;
}

void network_def_done(struct network_def *d)
{
    g_clear_pointer(&d->root, xml_free);
    g_clear_pointer(&d->name, g_free);
    g_clear_pointer(&d->bridge, g_free);
}

char *network_def_format(const struct network_def *d)
{
    return xml_format(d->root, 0);
}
