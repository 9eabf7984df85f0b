/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One section of a network's description changed: a host, a range, a name, a port group.
 *
 * Spec      virNetworkUpdate at 9.0.0: commands, sections and what of them is possible.
 * Trust     The element is hostile; the changed description is checked as a new one.
 */
#include "manager/network/network_priv.h"

#include <string.h>

enum { MODIFY = 1, DELETE = 2, ADD_LAST = 3, ADD_FIRST = 4 };

static const struct section {
    const char *element;
    const char *parent;  /* path; NULL: the <dhcp> of the <ip> that it belongs to */
    const char *keys[5]; /* what makes two of them the same */
    bool any_key;        /* one of the keys is enough */
    bool modify;
} sections[] = {
    [4] = {"host", NULL, {"@mac", "@id", "@name", "@ip"}, true, true},
    [5] = {"range", NULL, {"@start", "@end"}, false, false},
    [7] = {"interface", "forward", {"@dev"}, false, false},
    [9] = {"portgroup", "", {"@name"}, false, true},
    [10] = {"host", "dns", {"@ip"}, false, false},
    [11] = {"txt", "dns", {"@name"}, false, false},
    [12] = {"srv", "dns", {"@service", "@protocol", "@domain", "@target"}, false, false},
};
static const char *const names[] = {
    "none",         "bridge",        "domain",   "ip",
    "ip-dhcp-host", "ip-dhcp-range", "forward",  "forward-interface",
    "forward-pf",   "portgroup",     "dns-host", "dns-txt",
    "dns-srv"};

struct change {
    struct network_def *d;
    const struct section *s;
    const char *name;
    struct xml_node *element; /* of its own document */
    struct xml_node *parent;
    struct xml_node *match; /* the one that is there; NULL */
    unsigned matches;
};

/* ---- where ---- */

static const char *address_of(const struct xml_node *e)
{
    return xml_get_or(e, "@ip", xml_get_or(e, "@start", ""));
}

/* The <ip> by its number, by the address in it, or the one that has <dhcp>. */
static struct xml_node *find_ip(const struct change *c, int index)
{
    struct net_addr a;
    bool known = net_addr_parse(address_of(c->element), &a);
    int i = 0;
    struct xml_node *served = NULL;
    FOREACH_NAMED (ip, c->d->root, "ip") {
        const struct net_subnet *s = &c->d->subnets[i];
        if (index >= 0 ? i == index : known && net_subnet_has(s, &a))
            return ip;
        if (!served && xml_find(ip, "dhcp"))
            served = ip;
        i++;
    }
    return index < 0 ? served : NULL;
}

static bool find_parent(struct change *c, int index, GError **error)
{
    if (c->s->parent) {
        c->parent = *c->s->parent ? xml_find(c->d->root, c->s->parent) : c->d->root;
        if (!c->parent)
            c->parent = xml_add(c->d->root, c->s->parent);
        return true;
    }
    struct xml_node *ip = find_ip(c, index);
    if (!ip)
        return ruche_error(error, RUCHE_ERR_XML,
                           "network '%s': there is no <ip> that '%s' could be added to", c->d->name,
                           address_of(c->element));
    c->parent = xml_find(ip, "dhcp");
    if (!c->parent)
        c->parent = xml_add(ip, "dhcp");
    return true;
}

/* ---- which ---- */

static bool equal_key(const char *key, const char *a, const char *b)
{
    return !strcmp(key, "@mac") || !strcmp(key, "@id") ? !g_ascii_strcasecmp(a, b) : !strcmp(a, b);
}

/* Keys that the wanted one does not give match everything; of a host, one that agrees is enough to
 * find it, unless it is to be deleted: then nothing may disagree. */
static bool is_same(const struct change *c, const struct xml_node *have, bool strict)
{
    unsigned equal = 0, different = 0;
    for (const char *const *key = c->s->keys; *key; key++) {
        const char *a = xml_get(have, *key), *b = xml_get(c->element, *key);
        if (a && b)
            *(equal_key(*key, a, b) ? &equal : &different) += 1;
        else if (b && strict)
            different++;
    }
    return equal && (!different || (c->s->any_key && !strict));
}

static void find_match(struct change *c, unsigned command)
{
    bool identity = command == MODIFY && c->s->any_key;
    FOREACH_NAMED (e, c->parent, c->s->element) {
        const char *key = xml_get(c->element, "@mac")  ? "@mac"
                          : xml_get(c->element, "@id") ? "@id"
                                                       : "@name";
        bool same = identity ? xml_get(e, key) &&
                                   equal_key(key, xml_get(e, key), xml_get_or(c->element, key, ""))
                             : is_same(c, e, command == DELETE);
        if (same && !c->matches++)
            c->match = e;
    }
}

/* ---- what ---- */

static char *describe(const struct change *c)
{
    GString *s = g_string_new(c->s->element);
    for (const char *const *key = c->s->keys; *key; key++)
        if (xml_get(c->element, *key))
            g_string_append_printf(s, " %s='%.128s'", *key + 1, xml_get(c->element, *key));
    return g_string_free(s, FALSE);
}

static struct xml_node *copy_in(const struct change *c)
{
    return xml_copy(c->element);
}

static void add(const struct change *c, bool first)
{
    struct xml_node *copy = copy_in(c), *other = xml_find(c->parent, c->s->element);
    if (first && other)
        xml_insert_before(other, copy);
    else
        xml_append(c->parent, copy);
}

static bool apply(struct change *c, unsigned command, GError **error)
{
    g_autofree char *what = describe(c);
    bool adds = command == ADD_FIRST || command == ADD_LAST;
    if (adds && c->match)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "network '%s': there is already an entry that matches %s", c->d->name,
                           what);
    if (!adds && !c->match)
        return ruche_error(error, RUCHE_ERR_STATE, "network '%s': no entry matches %s", c->d->name,
                           what);
    if (command == DELETE && c->matches > 1)
        return ruche_error(error, RUCHE_ERR_STATE, "network '%s': %u entries match %s", c->d->name,
                           c->matches, what);
    if (command == MODIFY && !c->s->modify)
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "network '%s': entries of section '%s' cannot be modified, only added and deleted",
            c->d->name, c->name);
    if (adds) {
        add(c, command == ADD_FIRST);
    } else if (command == MODIFY) {
        xml_replace(c->match, copy_in(c));
    } else {
        xml_free(c->match);
    }
    return true;
}

/* A forward@dev is its first interface's. */
static void settle(const struct change *c)
{
    if (!strcmp(c->s->element, "interface"))
        xml_remove(c->d->root, "forward@dev");
}

/* The changed tree is a new description: all that holds for one is checked again. */
static bool parse_again(struct network_def *d, GError **error)
{
    g_autofree char *text = network_def_format(d);
    struct network_def changed;
    if (!network_def_parse(&changed, text, NETWORK_DEF_LIVE, error))
        return false;
    network_def_done(d);
    *d = changed;
    return true;
}

bool network_def_update(struct network_def *d, unsigned command, unsigned section, int index,
                        const char *xml, GError **error)
{
    if (command < MODIFY || command > ADD_FIRST)
        return ruche_error(error, MANAGER_ERR_ARGUMENT,
                           "network '%s': there is no update command %u", d->name, command);
    if (section >= G_N_ELEMENTS(names))
        return ruche_error(error, MANAGER_ERR_ARGUMENT, "network '%s': there is no section %u",
                           d->name, section);
    struct change c = {.d = d, .s = &sections[section], .name = names[section]};
    if (section >= G_N_ELEMENTS(sections) || !c.s->element)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "network '%s': section '%s' cannot be updated; define the network anew",
                           d->name, names[section]);
    auto_xml *doc = xml_parse(xml, strlen(xml), c.s->element, error);
    if (!doc)
        return false;
    c.element = doc;
    if (!find_parent(&c, index, error))
        return false;
    find_match(&c, command);
    if (!apply(&c, command, error))
        return false;
    settle(&c);
    return parse_again(d, error);
}
