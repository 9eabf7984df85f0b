/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ports: interfaces of machines that are plugged into a network, and what they are joined to.
 *
 * A port is libvirt's <networkport>, kept as a file from before its tap is made until its machine
 * lets go: a manager that starts again knows who is connected.
 *
 * Spec      networkport.rng at 9.0.0.
 * Thread    The loop thread; files of a few hundred bytes in the runtime folder are written in
 * place.
 */
#include "base/log.h"
#include "manager/domain/def.h"
#include "manager/network/network_priv.h"
#include "manager/network/openvswitch.h"
#include "manager/store.h"
#include "manager/uuid.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <net/if.h>
#include <string.h>

struct network_port *network_port_ref(struct network_port *p)
{
    p->refs++;
    return p;
}

void network_port_unref(struct network_port *p)
{
    if (!p || --p->refs)
        return;
    g_free(p->owner_name);
    g_free(p->ifname);
    g_free(p->group);
    g_free(p->dev);
    xml_free(p->doc);
    g_free(p);
}

/* ---- files ---- */

static char *ports_dir(const struct network *n)
{
    return network_run_path(n->name, "ports");
}

static char *port_path(const struct network *n, const struct network_port *p)
{
    g_autofree char *dir = ports_dir(n);
    return g_strdup_printf("%s/%s.xml", dir, p->uuid);
}

bool network_port_save(const struct network *n, const struct network_port *p, GError **error)
{
    g_autofree char *dir = ports_dir(n), *path = port_path(n, p);
    g_autofree char *text = xml_format(p->doc, 0);
    if (!network_check_stored(n->name, "a port's description", text, error))
        return false;
    if (g_mkdir_with_parents(dir, 0700) < 0)
        return ruche_error_errno(error, errno, "cannot make folder '%s'", dir);
    return store_write_volatile(path, text, 0600, error);
}

/* Fields of a port from its document. */
static struct network_port *port_of_doc(struct xml_node *root)
{
    struct network_port *p = g_new0(struct network_port, 1);
    p->refs = 1;
    p->doc = root;
    g_strlcpy(p->uuid, xml_get_or(root, "uuid", ""), sizeof(p->uuid));
    g_strlcpy(p->owner, xml_get_or(root, "owner/uuid", ""), sizeof(p->owner));
    g_strlcpy(p->mac, xml_get_or(root, "mac@address", ""), sizeof(p->mac));
    p->owner_name = g_strdup(xml_get_or(root, "owner/name", ""));
    p->group = g_strdup(xml_get(root, "group"));
    p->dev = g_strdup(xml_get(root, "plug@dev"));
    p->ifname = g_strdup(xml_get(root, "ifname"));
    return p;
}

void network_ports_load(struct network *n)
{
    g_autofree char *path = ports_dir(n);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        g_autofree char *file = g_build_filename(path, name, NULL);
        g_autoptr(GError) error = NULL;
        g_autofree char *text = store_read(file, NETWORK_STORED_MAX, &error);
        struct xml_node *doc = text ? xml_parse(text, strlen(text), "networkport", &error) : NULL;
        struct network_port *p = doc ? port_of_doc(doc) : NULL;
        uint8_t uuid[16];
        if (p && uuid_parse(p->uuid, uuid)) {
            g_hash_table_insert(n->ports, p->uuid, p);
            continue;
        }
        log_warn("network '%s': port '%s' is left out: %s", n->name, file,
                 error ? error->message : "it has no UUID");
        network_port_unref(p);
    }
}

static void drop_port(struct network *n, struct network_port *p)
{
    g_autofree char *path = port_path(n, p), *dir = ports_dir(n);
    g_autoptr(GError) error = NULL;
    g_unlink(path);
    g_hash_table_steal(n->ports, p->uuid);
    g_rmdir(dir); /* if it was the last */
    if (!network_floors_follow(n, p, &error))
        log_warn("network '%s': %s", n->name, error ? error->message : "its limits are gone");
    network_port_unref(p);
}

void network_ports_drop(struct network *n)
{
    g_autoptr(GList) all = g_hash_table_get_values(n->ports);
    for (GList *l = all; l; l = l->next)
        drop_port(n, l->data);
}

/* ---- choosing ---- */

static const struct xml_node *portgroup(const struct xml_node *root, const char *wanted)
{
    FOREACH_NAMED (p, root, "portgroup")
        if (wanted ? xml_is(p, "@name", wanted) : xml_is(p, "@default", "yes"))
            return p;
    return NULL;
}

static unsigned users_of(const struct network *n, const char *dev)
{
    GHashTableIter it;
    struct network_port *p;
    unsigned count = 0;
    g_hash_table_iter_init(&it, n->ports);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&p))
        count += !g_strcmp0(p->dev, dev);
    return count;
}

/* Those that are named, or the ones of a physical function's virtual functions. */
static GPtrArray *interfaces_of(const struct xml_node *root)
{
    const char *pf = xml_get(root, "forward/pf@dev");
    if (pf)
        return network_virtual_interfaces(pf);
    GPtrArray *all = g_ptr_array_new_with_free_func(g_free);
    FOREACH_NAMED (i, root, "forward/interface")
        g_ptr_array_add(all, g_strdup(xml_get(i, "@dev")));
    return all;
}

/* Used least; passthrough takes interfaces for oneself. */
static char *choose_dev(const struct network *n, const struct xml_node *root, GError **error)
{
    g_autoptr(GPtrArray) all = interfaces_of(root);
    const char *best = NULL;
    unsigned least = UINT_MAX;
    for (unsigned i = 0; i < all->len; i++) {
        unsigned users = users_of(n, all->pdata[i]);
        if (users < least && !(n->mode == NETWORK_PASSTHROUGH && users)) {
            best = all->pdata[i];
            least = users;
        }
    }
    if (!best && all->len)
        ruche_error(error, MANAGER_ERR_CONFIG,
                    "network '%s': all its %u interfaces are taken, each by one machine", n->name,
                    all->len);
    else if (!best)
        ruche_error(error, MANAGER_ERR_CONFIG, "network '%s' has no interface to forward to",
                    n->name);
    return g_strdup(best);
}

static struct xml_node *copy_into(struct xml_node *to, const struct xml_node *element)
{
    return element ? xml_append(to, xml_copy(element)) : NULL;
}

/* The first that has the element says it. */
static const struct xml_node *first_of(const char *element, const struct xml_node *a,
                                       const struct xml_node *b, const struct xml_node *c)
{
    const struct xml_node *all[] = {a, b, c};
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++)
        if (all[i] && xml_find(all[i], element))
            return xml_find(all[i], element);
    return NULL;
}

struct choice {
    const struct network *n;
    const struct xml_node *root, *interface, *group;
    const char *uuid; /* the port's, asked for; NULL: a new one */
};

static bool fill_plug(const struct choice *c, struct xml_node *port, GError **error)
{
    if (c->n->bridge) {
        bool bridged = c->n->mode == NETWORK_BRIDGE;
        xml_set(port, "plug@type", bridged ? "bridge" : "network");
        xml_set(port, "plug@bridge", c->n->bridge);
        if (xml_get(c->root, "bridge@macTableManager"))
            xml_set(port, "plug@macTableManager", xml_get(c->root, "bridge@macTableManager"));
        return true;
    }
    if (c->n->mode == NETWORK_HOSTDEV)
        return network_hostdev_choose(c->n, c->root, port, error);
    g_autofree char *dev = choose_dev(c->n, c->root, error);
    if (!dev)
        return false;
    xml_set(port, "plug@type", "direct");
    xml_set(port, "plug@dev", dev);
    xml_set(port, "plug@mode", network_mode_word(c->n->mode));
    return true;
}

/* The interface's parameters win over the portgroup's, those over the network's; they are of one
 * type. */
static bool put_virtualport(const struct choice *c, struct xml_node *port, GError **error)
{
    const struct xml_node *all[] = {c->root, c->group, c->interface};
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
        const struct xml_node *v = all[i] ? xml_find(all[i], "virtualport") : NULL;
        const struct xml_node *parameters = v ? xml_find(v, "parameters") : NULL;
        const char *type = v ? xml_get(v, "@type") : NULL, *had = xml_get(port, "virtualport@type");
        if (type && had && strcmp(type, had) != 0)
            return ruche_error(error, MANAGER_ERR_CONFIG,
                               "network '%s': its virtualports are of type '%s', not '%s'",
                               c->n->name, had, type);
        if (type)
            xml_set(port, "virtualport@type", type);
        for (const struct xml_attr *a = parameters ? parameters->attrs : NULL; a; a = a->next) {
            g_autofree char *path = g_strdup_printf("virtualport/parameters@%s", a->name);
            xml_set(port, path, a->value);
        }
    }
    if (network_is_ovs(port) && !xml_get(port, "virtualport/parameters@interfaceid")) {
        g_autofree char *id = g_uuid_string_random();
        xml_set(port, "virtualport/parameters@interfaceid", id);
    }
    return true;
}

/* The document of a port; elements in the order of their schema. */
static struct xml_node *make_doc(const struct choice *c, const char *owner, const char *owner_name,
                                 GError **error)
{
    struct xml_node *port = xml_new("networkport");
    uint8_t random[16];
    char uuid[UUID_TEXT_BYTES];
    uuid_random(random);
    uuid_format(random, uuid);
    xml_set(port, "uuid", c->uuid ? c->uuid : uuid);
    xml_set(port, "owner/name", owner_name);
    xml_set(port, "owner/uuid", owner);
    if (xml_get(c->interface, "source@portgroup"))
        xml_set(port, "group", xml_get(c->interface, "source@portgroup"));
    xml_set(port, "mac@address", xml_get_or(c->interface, "mac@address", ""));
    bool own = network_mode_has_own_bridge(c->n->mode);
    bool ok = put_virtualport(c, port, error);
    copy_into(port, first_of("bandwidth", c->interface, c->group, own ? NULL : c->root));
    copy_into(port, first_of("vlan", c->interface, c->group, c->root));
    copy_into(port, first_of("port", c->interface, NULL, c->root));
    if (ok && fill_plug(c, port, error))
        return port;
    xml_free(port);
    return NULL;
}

void network_plug_done(struct network_plug *p)
{
    g_clear_pointer(&p->doc, xml_free);
}

bool network_port_plug(const struct network *n, const struct network_port *p,
                       struct network_plug *ret)
{
    struct xml_node *root = xml_copy(p->doc);
    *ret = (struct network_plug){
        .doc = root,
        .mode = n->mode,
        .bridge = xml_get(root, "plug@bridge"),
        .dev = xml_get(root, "plug@dev"),
        .macvtap = xml_get(root, "plug@mode"),
        .openvswitch =
            network_is_ovs(root) ? xml_get(root, "virtualport/parameters@interfaceid") : NULL,
        .profile = xml_get(root, "virtualport/parameters@profileid"),
        .isolated = xml_is(root, "port@isolated", "yes"),
        .macs_by_us = xml_is(root, "plug@macTableManager", "libvirt"),
        .bandwidth = xml_find(root, "bandwidth"),
        .vlan = xml_find(root, "vlan"),
        .virtualport = xml_find(root, "virtualport"),
    };
    g_strlcpy(ret->port, p->uuid, sizeof(ret->port));
    return ret->bridge || ret->dev;
}

static bool check_interface(const struct network *n, const struct xml_node *root,
                            const struct xml_node *interface, GError **error)
{
    const char *group = xml_get(interface, "source@portgroup");
    if (!network_check_active(n, error))
        return false;
    if (group && !portgroup(root, group))
        return ruche_error(error, MANAGER_ERR_CONFIG, "network '%s' has no portgroup '%s'", n->name,
                           group);
    if (xml_find(interface, "vlan") && !network_is_ovs(root) && !network_is_ovs(interface))
        return ruche_error(error, MANAGER_ERR_CONFIG, "network '%s': its bridge knows no <vlan>",
                           n->name);
    return network_floor_check(n, root, interface, NULL, error);
}

/* `uuid`: of the port; NULL: a new one. */
static bool plug(struct network *n, const char *uuid, const char *owner, const char *owner_name,
                 const struct xml_node *interface, struct network_plug *ret, GError **error)
{
    auto_network_def d = {0};
    if (!network_def_parse(&d, network_text(n), NETWORK_DEF_LIVE, error) ||
        !check_interface(n, d.root, interface, error))
        return false;
    struct choice c = {n, d.root, interface,
                       portgroup(d.root, xml_get(interface, "source@portgroup")), uuid};
    struct xml_node *doc = make_doc(&c, owner, owner_name, error);
    struct network_port *p = doc ? port_of_doc(doc) : NULL;
    if (!p || !network_port_save(n, p, error)) {
        network_port_unref(p);
        return false;
    }
    g_hash_table_insert(n->ports, p->uuid, p);
    if (!network_floors_follow(n, p, error)) {
        drop_port(n, p);
        return false;
    }
    network_port_plug(n, p, ret);
    ret->mtu = (unsigned)xml_get_u64(d.root, "mtu@size", 0);
    ret->filterref = xml_find(interface, "filterref");
    return true;
}

bool network_plug(const uint8_t *owner, const char *owner_name, const struct xml_node *interface,
                  struct network_plug *ret, GError **error)
{
    char uuid[UUID_TEXT_BYTES];
    struct network *n = network_find_name(xml_get_or(interface, "source@network", ""), error);
    if (!n)
        return false;
    uuid_format(owner, uuid);
    bool ok = plug(n, NULL, uuid, owner_name, interface, ret, error);
    network_unref(n);
    return ok;
}

/* ---- afterwards ---- */

void network_plugged(const char *port, const char *ifname)
{
    g_autoptr(GPtrArray) all = network_all();
    for (unsigned i = 0; i < all->len; i++) {
        struct network *n = all->pdata[i];
        struct network_port *p = g_hash_table_lookup(n->ports, port);
        g_autoptr(GError) error = NULL;
        if (!p)
            continue;
        g_free(p->ifname);
        p->ifname = g_strdup(ifname);
        xml_set(p->doc, "ifname", ifname);
        if (!network_port_save(n, p, &error))
            log_warn("network '%s': %s", n->name, error->message);
    }
}

void network_unplug(const uint8_t *owner, const char *mac)
{
    char uuid[UUID_TEXT_BYTES];
    g_autoptr(GPtrArray) all = network_all();
    uuid_format(owner, uuid);
    ovs_unplug_owner(uuid, mac);
    for (unsigned i = 0; i < all->len; i++) {
        struct network *n = all->pdata[i];
        g_autoptr(GList) ports = g_hash_table_get_values(n->ports);
        for (GList *l = ports; l; l = l->next) {
            struct network_port *p = l->data;
            if (!g_ascii_strcasecmp(p->owner, uuid) && (!mac || !g_ascii_strcasecmp(p->mac, mac)))
                drop_port(n, p);
        }
    }
}

void network_count_connections(const struct network *n, struct xml_node *root)
{
    unsigned all = g_hash_table_size(n->ports);
    if (all)
        xml_set_f(root, "@connections", "%u", all);
    FOREACH_NAMED (i, root, "forward/interface") {
        unsigned users = users_of(n, xml_get(i, "@dev"));
        if (users)
            xml_set_f(i, "@connections", "%u", users);
    }
    network_hostdev_count(n, root);
    schema_apply(root, &network_schema, DEF_LIVE, NULL);
}

/* ---- as clients see them ---- */

GPtrArray *network_port_list(const struct caller *who, struct network *n)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GList) keys = g_hash_table_get_keys(n->ports);
    for (GList *l = access_check(who, RIGHT_READ, "list ports", NULL) ? keys : NULL; l; l = l->next)
        g_ptr_array_add(list, g_strdup(l->data));
    return list;
}

struct network_port *network_port_find(struct network *n, const char *port, GError **error)
{
    struct network_port *p = g_hash_table_lookup(n->ports, port);
    if (!p)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "network '%s' has no port '%s'", n->name, port);
    return p;
}

char *network_port_xml(const struct caller *who, struct network *n, const char *port,
                       GError **error)
{
    struct network_port *p = network_port_find(n, port, error);
    if (!p || !access_check(who, RIGHT_READ, "read a port's description", error))
        return NULL;
    auto_xml *root = xml_copy(p->doc);
    xml_remove(root, "ifname");
    return xml_format(root, 0);
}

enum { PORT_VALIDATE = 2 }; /* virNetworkPortCreateFlags */

char *network_port_create(const struct caller *who, struct network *n, const char *xml,
                          unsigned flags, GError **error)
{
    if (!access_check(who, RIGHT_HOST, "create a port", error))
        return NULL;
    auto_xml *root = xml_parse(xml, strlen(xml), "networkport", error);
    auto_network_plug plugged = {0};
    if (!root ||
        !schema_apply(root, &network_port_schema, flags & PORT_VALIDATE ? DEF_VALIDATE : 0, error))
        return NULL;
    const char *uuid = xml_get(root, "uuid");
    if (flags & ~(unsigned)PORT_VALIDATE || xml_find(root, "plug")) {
        ruche_error(error, MANAGER_ERR_ARGUMENT,
                    "network '%s': a port's plug is chosen by the network and cannot be reclaimed",
                    n->name);
        return NULL;
    }
    if (uuid && g_hash_table_contains(n->ports, uuid)) {
        ruche_error(error, RUCHE_ERR_EXISTS, "network '%s' already has port '%s'", n->name, uuid);
        return NULL;
    }
    auto_xml *interface = xml_new("interface");
    xml_set(interface, "source@network", n->name);
    if (xml_get(root, "group"))
        xml_set(interface, "source@portgroup", xml_get(root, "group"));
    xml_set(interface, "mac@address", xml_get(root, "mac@address"));
    static const char *const kept[] = {"virtualport", "bandwidth", "vlan", "port"};
    for (unsigned i = 0; i < G_N_ELEMENTS(kept); i++)
        copy_into(interface, xml_find(root, kept[i]));
    if (!plug(n, uuid, xml_get(root, "owner/uuid"), xml_get(root, "owner/name"), interface,
              &plugged, error))
        return NULL;
    return g_strdup(plugged.port);
}

bool network_port_delete(const struct caller *who, struct network *n, const char *port,
                         GError **error)
{
    struct network_port *p = network_port_find(n, port, error);
    if (!p || !access_check(who, RIGHT_HOST, "delete a port", error))
        return false;
    drop_port(n, p);
    return true;
}
