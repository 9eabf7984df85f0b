/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the network part share. Thread, lock and trust: network.h. */
#pragma once

#include "manager/domain/schema.h"
#include "manager/network/address.h"
#include "manager/network/network.h"

#define NETWORK_SUBNETS_MAX 64
#define NETWORK_IFNAME_MAX  15 /* IFNAMSIZ with its end */
#define NETWORK_STORED_MAX  (4u << 20)
#define NETWORK_LEASES_MAX  65536u /* of a network; dnsmasq is told */

#define FOREACH_NAMED(c, parent, name)                                                             \
    for (struct xml_node *c = xml_find((parent), (name)); c; c = xml_next(c))

extern const struct schema_row network_schema, network_port_schema;

/* ---- network_def.c: descriptions ---- */

/* A checked and completed description. A bridge's name that is not given is chosen by
 * network_def_name_bridge(). */
struct network_def {
    uint8_t uuid[16];
    bool has_uuid; /* it was given */
    char *name, *bridge;
    enum network_mode mode;
    struct xml_node *root;
    struct net_subnet subnets[NETWORK_SUBNETS_MAX];
    unsigned subnet_count;
};
enum network_def_flags { NETWORK_DEF_VALIDATE = 1, NETWORK_DEF_LIVE = 2 };
bool network_def_parse(struct network_def *d, const char *xml, unsigned flags, GError **error);
void network_def_done(struct network_def *d);
#define auto_network_def __attribute__((cleanup(network_def_done))) struct network_def
/* Gives the bridge of a network of ours its name: virbr0, virbr1 ...: the first that `taken` does
 * not know. False: the description needs none. */
bool network_def_name_bridge(struct network_def *d, bool (*taken)(const char *name));
char *network_def_format(const struct network_def *d);
bool network_mode_has_own_bridge(enum network_mode mode);
const char *network_mode_word(enum network_mode mode); /* "nat"; of an isolated one "none" */
/* An element's address (attribute `address`) and netmask or prefix. */
bool network_subnet_parse(const struct xml_node *n, struct net_subnet *ret, GError **error);
/* Is it Open vSwitch's? */
bool network_is_ovs(const struct xml_node *root);
/* A section of a description changed, and checked as a whole. */
bool network_def_update(struct network_def *d, unsigned command, unsigned section, int index,
                        const char *xml, GError **error);

/* ---- network_check.c, network_check_mode.c: what is wrong only together ---- */
bool network_check(struct network_def *d, GError **error);
bool network_check_mode(const struct network_def *d, GError **error);
/* All errors begin with the network's name. */
#define NETWORK_REFUSE(d, error, format, ...)                                                      \
    ruche_error(error, RUCHE_ERR_XML, "network '%s': " format, (d)->name, ##__VA_ARGS__)

/* ---- network_table.c ---- */
struct network *network_new(const struct network_def *d);
void network_insert(struct network *n);
void network_remove(struct network *n);
GPtrArray *network_all(void); /* references */
void network_emit(const struct network *n, int event);
enum {
    NETWORK_EVENT_DEFINED,
    NETWORK_EVENT_UNDEFINED,
    NETWORK_EVENT_STARTED,
    NETWORK_EVENT_STOPPED
};
typedef bool network_fn(struct network *n, void *opaque, GError **error);
bool network_operation(const struct caller *who, struct network *n, enum right right,
                       const char *operation, network_fn *fn, void *opaque, GError **error);
bool network_check_active(const struct network *n, GError **error);
/* The text that its users get: live where it runs. */
static inline const char *network_text(const struct network *n)
{
    return n->live_text ? n->live_text : n->text;
}

/* ---- network_store.c ---- */
char *network_run_path(const char *name, const char *suffix); /* runtime_dir/networks/NAME.suffix */
/* What is written must be what is read. */
bool network_check_stored(const char *name, const char *what, const char *text, GError **error);
bool network_save(struct network *n, GError **error);
/* It is about to run, or runs no longer: what a manager after us looks for. */
bool network_save_state(struct network *n, bool runs, GError **error);
/* On the first start of a system's manager: what every client expects. Begins a task. */
void network_define_default(void);
/* One that ran before us is looked at, in a task of its own. */
void network_resume(struct network *n);

/* ---- bridge.c: worker threads; block ---- */
/* Everything that the kernel has of a network that is to run, or runs already. */
bool network_kernel_start(const struct network_def *d, GError **error);

/* Subnets that the host has routes to, but for those by interface `but`. At most `max`; the count.
 */
struct host_route {
    struct net_subnet to;
    char ifname[16];
};
unsigned network_host_routes(const char *but, struct host_route *ret, unsigned max);

/* ---- zone.c: worker threads; waits for firewalld ---- */
/* Puts the bridge into a zone of firewalld. */
bool network_zone_set(const char *bridge, const char *zone, GError **error);
/* One whose description names no zone: into libvirt's, where firewalld runs and has that, and the
 * bridge is in none. */
void network_zone_set_usual(const char *bridge, bool routed);
/* Out of libvirt's, or out of any: one that others put it into is theirs. */
void network_zone_leave(const char *bridge, bool any);
/* Loop thread: came() is called there whenever firewalld has started, or runs already. Once is
 * enough; where there was no bus yet, it is tried again. */
void network_zone_watch(void (*came)(void));
void network_zone_unwatch(void);

/* ---- rules.c ---- */
/* nft's commands; NULL: none are needed. `fresh`: they are refused where the table is there; else
 * they replace it. */
char *network_rules(const struct network_def *d, bool fresh);
char *network_rules_table(const char *bridge);

/* ---- obstacles.c ---- */
/* What of others' tables stands in the network's way, and what to do: sentences. `ruleset`: nft's
 * words. `bridge_filter`: their rules are asked about packets that only cross a bridge, too. */
GPtrArray *network_obstacles(const char *ruleset, const struct network_def *d, bool bridge_filter);
/* Tables of others that filter what comes to the host or passes it ("ip filter"), of what `list
 * chains` prints. */
GPtrArray *network_foreign_tables(const char *chains);
/* What `iptables-legacy -S` prints, in nft's words. */
char *network_legacy_table(const char *rules);

/* ---- surroundings.c: worker threads ---- */
char *network_surroundings(bool *ret_bridge_filter); /* what network_obstacles() wants */

/* ---- dnsmasq_conf.c, dnsmasq.c ---- */
bool network_dnsmasq_needed(const struct network_def *d);
/* NULL with *error: something in it cannot be said to dnsmasq. */
char *network_dnsmasq_conf(const struct network_def *d, const char *pid_path,
                           const char *lease_path, const char *user);
bool network_daemon_start(struct network *n, const struct network_def *d, GError **error);
void network_daemon_stop(struct network *n);
/* One of a manager before us is watched again; else a new one is started. */
bool network_daemon_find(struct network *n, const struct network_def *d, GError **error);
void network_daemon_forget(struct network *n); /* it lives on */

/* ---- leases.c, lease_book.c ---- */
/* Not more than NETWORK_LEASES_MAX. */
GPtrArray *network_leases_parse(const char *text, int64_t now);
/* As the file has them now: a reference of what does not change. Where it cannot be read, as it had
 * them before. */
GPtrArray *network_lease_list(struct network *n);
void network_lease_book_free(struct network_lease_book *b);

/* ---- plug.c ---- */
/* The network's table has one reference; who waits with a port holds one, and looks whether it is
 * still there. */
struct network_port {
    unsigned refs;
    char uuid[37], owner[37], *owner_name, mac[18];
    char *ifname, *group;
    char *dev;   /* of a pool */
    struct xml_node *doc; /* <networkport> */
};
struct network_port *network_port_ref(struct network_port *p);
void network_port_unref(struct network_port *p);
bool network_port_save(const struct network *n, const struct network_port *p, GError **error);
struct network_port *network_port_find(struct network *n, const char *port, GError **error);
/* What a port is joined to, for network_plug_done(). False: it is of another kind. */
bool network_port_plug(const struct network *n, const struct network_port *p,
                       struct network_plug *ret);
void network_ports_load(struct network *n);
void network_ports_drop(struct network *n);
/* Live counters into the tree of a description. */
void network_count_connections(const struct network *n, struct xml_node *root);

/* ---- hostdev.c: pools of PCI functions ---- */
/* One that no port has, into the port's <plug>. */
bool network_hostdev_choose(const struct network *n, const struct xml_node *root, struct xml_node *port,
                            GError **error);
/* Interfaces that the host has of a physical function's virtual ones: names; never NULL. */
GPtrArray *network_virtual_interfaces(const char *pf);
void network_hostdev_count(const struct network *n, struct xml_node *root);

/* ---- floor.c, qos.c: what interfaces are promised of a network's inbound rate ---- */
struct network_floor {
    uint64_t kib; /* KiB/s */
    const char *mac;
};
/* May an interface (or port) with its <bandwidth> be added to those that are there, or take the
 * place of `instead` (may be NULL)? */
bool network_floor_check(const struct network *n, const struct xml_node *root, const struct xml_node *interface,
                         const struct network_port *instead, GError **error);
/* The bridge's limits, and a class for each port that has a floor. */
bool network_floors_apply(const struct network *n, const struct xml_node *bandwidth, GError **error);
/* The same where the port, which came or has gone, has one. */
bool network_floors_follow(const struct network *n, const struct network_port *p, GError **error);
/* Does the interface of the host have limits already? Says whose kind: NULL: none. */
char *network_qos_there(const char *ifname);
bool network_qos_floors(const char *bridge, const struct xml_node *bandwidth,
                        const struct network_floor *floors, unsigned count, GError **error);
