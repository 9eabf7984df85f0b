/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An interface's description: read, checked, completed, put in order.
 *
 * Spec      libvirt's formatinterface at 9.0.0.
 * Thread    Any.
 * Trust     XML is hostile; manager/xml.h and the schema's rows bound it.
 */
#include "manager/domain/def.h"
#include "manager/interface/interface_priv.h"

#include <string.h>

enum { PORTS_MAX = 1024, DELAY_MAX_S = 100000 };

static const char *const type_words[] = {
    [INTERFACE_ETHERNET] = "ethernet",
    [INTERFACE_BRIDGE] = "bridge",
    [INTERFACE_BOND] = "bond",
    [INTERFACE_VLAN] = "vlan",
};

const char *interface_type_word(enum interface_type type)
{
    return type_words[type];
}

enum interface_type interface_type_of(const struct xml_node *n)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(type_words); i++)
        if (xml_is(n, "@type", type_words[i]))
            return (enum interface_type)i;
    return INTERFACE_ETHERNET;
}

struct xml_node *interface_protocol(const struct xml_node *root, bool v6)
{
    struct xml_node *p = xml_find(root, "protocol");
    while (p && !xml_is(p, "@family", v6 ? "ipv6" : "ipv4"))
        p = xml_next(p);
    return p;
}

bool interface_wants_dhcp(const struct xml_node *root)
{
    for (struct xml_node *p = xml_find(root, "protocol"); p; p = xml_next(p))
        if (xml_find(p, "dhcp"))
            return true;
    return false;
}

struct xml_node *interface_ports(const struct xml_node *n)
{
    enum interface_type type = interface_type_of(n);
    if (type == INTERFACE_BRIDGE)
        return xml_find(n, "bridge/interface");
    return type == INTERFACE_BOND ? xml_find(n, "bond/interface") : NULL;
}

void interface_names(const struct xml_node *n, bool lowers, GPtrArray *ret)
{
    const char *lower = xml_get(n, "vlan/interface@name");
    g_ptr_array_add(ret, (char *)xml_get_or(n, "@name", ""));
    if (lower && lowers)
        g_ptr_array_add(ret, (char *)lower);
    for (const struct xml_node *p = interface_ports(n); p; p = xml_next(p))
        interface_names(p, lowers, ret);
}

/* ---- checks ---- */

static bool check_name(const char *name, GError **error)
{
    if (!*name || strlen(name) > INTERFACE_NAME_MAX)
        return ruche_error(error, RUCHE_ERR_XML,
                           "interface '%.64s': its name has %zu bytes; names of interfaces have 1 "
                           "to %d",
                           name, strlen(name), INTERFACE_NAME_MAX);
    if (strpbrk(name, "/ \\:") || !strcmp(name, ".") || !strcmp(name, ".."))
        return ruche_error(error, RUCHE_ERR_XML, "interface '%s': the kernel takes no such name",
                           name);
    return true;
}

/* A VLAN's name, where it is not given, is its interface's with the tag. */
static bool complete_name(struct xml_node *n, GError **error)
{
    const char *name = xml_get(n, "@name");
    if (!name && interface_type_of(n) == INTERFACE_VLAN)
        xml_set_f(n, "@name", "%s.%s", xml_get(n, "vlan/interface@name"), xml_get(n, "vlan@tag"));
    else if (!name)
        return ruche_error(error, RUCHE_ERR_XML, "interface: attribute 'name' is missing");
    return check_name(xml_get(n, "@name"), error) &&
           (!xml_find(n, "vlan") || check_name(xml_get(n, "vlan/interface@name"), error));
}

static bool check_bond(const struct xml_node *n, GError **error)
{
    static const char *const no_arp[] = {"802.3ad", "balance-tlb", "balance-alb"};
    const char *name = xml_get(n, "@name");
    if (xml_find(n, "bond/miimon") && xml_find(n, "bond/arpmon"))
        return ruche_error(error, RUCHE_ERR_XML,
                           "interface '%s': a bond has miimon or arpmon, not both", name);
    for (unsigned i = 0; xml_find(n, "bond/arpmon") && i < G_N_ELEMENTS(no_arp); i++)
        if (xml_is(n, "bond@mode", no_arp[i]))
            return ruche_error(error, MANAGER_ERR_CONFIG,
                               "interface '%s': mode '%s' of a bond takes no arpmon", name,
                               no_arp[i]);
    return true;
}

static bool check_parts(struct xml_node *n, GHashTable *seen, GError **error)
{
    if (!complete_name(n, error))
        return false;
    const char *name = xml_get(n, "@name");
    if (g_hash_table_size(seen) == PORTS_MAX)
        return ruche_error(error, RUCHE_ERR_XML, "interface: it has more than %d parts", PORTS_MAX);
    if (!g_hash_table_add(seen, (gpointer)name))
        return ruche_error(error, RUCHE_ERR_XML, "interface: '%s' is there twice", name);
    if (!strcmp(name, "lo"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "interface 'lo' is the kernel's own and stays as it is");
    if (interface_type_of(n) == INTERFACE_BOND && !check_bond(n, error))
        return false;
    for (struct xml_node *p = interface_ports(n); p; p = xml_next(p))
        if (!check_parts(p, seen, error))
            return false;
    return true;
}

static bool check_address(const char *name, struct xml_node *n, const char *path, bool v6,
                          GError **error)
{
    struct net_addr a;
    const char *text = xml_get(n, path);
    if (!net_addr_parse(text, &a) || a.v6 != v6)
        return ruche_error(error, RUCHE_ERR_XML, "interface '%s': '%.64s' is no %s address", name,
                           text, v6 ? "IPv6" : "IPv4");
    return true;
}

static bool check_protocol(const char *name, struct xml_node *p, GError **error)
{
    bool v6 = xml_is(p, "@family", "ipv6");
    if (xml_find(p, "autoconf") && !v6)
        return ruche_error(error, RUCHE_ERR_XML, "interface '%s': autoconf is for family 'ipv6'",
                           name);
    for (struct xml_node *ip = xml_find(p, "ip"); ip; ip = xml_next(ip)) {
        unsigned most = v6 ? 128 : 32;
        if (!check_address(name, ip, "@address", v6, error))
            return false;
        if (!xml_get(ip, "@prefix"))
            xml_set_f(ip, "@prefix", "%u", most);
        if (xml_get_u64(ip, "@prefix", 0) > most)
            return ruche_error(error, RUCHE_ERR_XML,
                               "interface '%s': prefix %s of address '%s' is larger than %u", name,
                               xml_get(ip, "@prefix"), xml_get(ip, "@address"), most);
    }
    return !xml_find(p, "route") || check_address(name, p, "route@gateway", v6, error);
}

static bool check_protocols(const struct interface_def *d, GError **error)
{
    unsigned seen[2] = {0};
    for (struct xml_node *p = xml_find(d->root, "protocol"); p; p = xml_next(p)) {
        if (seen[xml_is(p, "@family", "ipv6")]++)
            return ruche_error(error, RUCHE_ERR_XML, "interface '%s': protocol '%s' is there twice",
                               d->name, xml_get(p, "@family"));
        if (!check_protocol(d->name, p, error))
            return false;
    }
    return true;
}

static bool check_delay(const struct interface_def *d, GError **error)
{
    const char *delay = xml_get(d->root, "bridge@delay");
    char *end = NULL;
    double s = delay ? g_ascii_strtod(delay, &end) : 0;
    if (delay && (*end || !g_ascii_isdigit(*delay) || s > DELAY_MAX_S))
        return ruche_error(error, RUCHE_ERR_XML,
                           "interface '%s': delay '%s' is not a number of seconds up to %d",
                           d->name, delay, DELAY_MAX_S);
    return true;
}

static bool check(struct interface_def *d, unsigned rows, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    if (!schema_apply(d->root, &interface_schema, rows, error) ||
        !check_parts(d->root, seen, error))
        return false;
    d->name = xml_get(d->root, "@name");
    d->type = interface_type_of(d->root);
    if (!check_protocols(d, error) || !check_delay(d, error))
        return false;
    /* interface.rng knows a MAC address of an Ethernet interface only. */
    if (d->type != INTERFACE_ETHERNET && xml_find(d->root, "mac"))
        xml_remove(d->root, "mac");
    return schema_apply(d->root, &interface_schema, rows, error);
}

bool interface_def_parse(struct interface_def *d, const char *xml, unsigned flags, GError **error)
{
    *d = (struct interface_def){0};
    d->root = xml_parse(xml, strlen(xml), "interface", error);
    if (d->root && check(d, flags & INTERFACE_DEFINE_VALIDATE ? DEF_VALIDATE : 0, error)) {
        d->name = xml_get(d->root, "@name");
        return true;
    }
    interface_def_done(d);
    return false;
}

void interface_def_done(struct interface_def *d)
{
    g_clear_pointer(&d->root, xml_free);
    d->name = NULL;
}

char *interface_def_format(const struct interface_def *d)
{
    return xml_format(d->root, 0);
}
