/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Virtual networks: a bridge of ours with addresses, DHCP, DNS and firewall, or a way to something that the host has.
 *
 * Spec      libvirt's network API and formatnetwork at 9.0.0; flags are its numbers. docs/network.md.
 * Thread    The loop thread; what touches the kernel or runs programs waits on a worker.
 * Lock      A network's own, like a domain's job lock.
 * Stored    config_dir/networks/NAME.xml, config_dir/networks/autostart/NAME.xml; what runs: runtime_dir/networks/:
 *           NAME.xml, NAME.ports/UUID.xml, NAME.conf and NAME.pid of dnsmasq, NAME.leases.
 * Trust     XML is hostile. Files of dnsmasq hold what guests said (names): every field is checked.
 */
#pragma once

#include "manager/manager.h"
#include "manager/param.h"
#include "base/xml.h"

enum network_mode {
    NETWORK_NAT, NETWORK_ROUTE, NETWORK_OPEN, NETWORK_ISOLATED, /* a bridge of ours */
    NETWORK_BRIDGE,                                             /* one that the host has, or Open vSwitch's */
    NETWORK_PRIVATE, NETWORK_VEPA, NETWORK_PASSTHROUGH,         /* macvtap on interfaces of the host; also NETWORK_DIRECT */
    NETWORK_DIRECT,                                             /* mode bridge without a bridge: macvtap in its mode bridge */
    NETWORK_HOSTDEV,
};
struct network_port;   /* network_priv.h */
struct network_daemon; /* dnsmasq.c */
struct network_lease_book;
struct network {
    unsigned refs;
    uint8_t uuid[16];
    char *name;
    char *bridge;           /* NULL: the mode has none */
    enum network_mode mode;
    char *text, *live_text; /* canonical XML: stored; by which it runs (NULL: it does not) */
    bool active, persistent, autostart, removed;
    GHashTable *ports;      /* UUID's text to struct network_port */
    struct network_daemon *daemon;
    struct network_lease_book *leases; /* lease_book.c; NULL: nobody has looked */
    GPtrArray *warnings;    /* texts: what of this host stands in its way, found at the last start or refresh */
    struct fiber_mutex lock;
};
struct network *network_ref(struct network *n);
void network_unref(struct network *n);

struct network *network_find_name(const char *name, GError **error);
struct network *network_find_uuid(const uint8_t *uuid, GError **error);
GPtrArray *network_list(const struct caller *who, unsigned list_flags); /* virConnectListAllNetworksFlags */

/* All below (waits), but for network_xml() and what it is said of. */
enum { NETWORK_DEFINE_VALIDATE = 1 };
struct network *network_define(const struct caller *who, const char *xml, unsigned flags, GError **error);
struct network *network_create_xml(const struct caller *who, const char *xml, unsigned flags, GError **error);
bool network_start(const struct caller *who, struct network *n, GError **error);
bool network_destroy(const struct caller *who, struct network *n, GError **error);
bool network_undefine(const struct caller *who, struct network *n, GError **error);
bool network_set_autostart(const struct caller *who, struct network *n, bool on, GError **error);
/* virNetworkUpdateCommand, virNetworkUpdateSection, virNetworkUpdateFlags. */
bool network_update(const struct caller *who, struct network *n, unsigned command, unsigned section, int index,
                    const char *xml, unsigned flags, GError **error);
/* Rules, bridge and dnsmasq as they should be, whatever was done to them by hand; of all networks that run. */
void networks_refresh(void);
char *network_xml(const struct caller *who, struct network *n, unsigned flags, GError **error); /* flag 1: inactive */
char *network_bridge_name(const struct caller *who, struct network *n, GError **error);         /* never waits */

/* What the host is in its subnets, and what DHCP gives there, by the description that it runs by, else the stored one.
 * Never waits. */
struct network_subnet {
    char *address; /* "10.7.0.1/24" */
    char **ranges; /* "10.7.0.128", "10.7.0.254", and so on: first and last of each; NULL ends */
};
GPtrArray *network_subnets(const struct network *n);

/* Leases that have not run out; `mac` NULL: all. */
struct network_lease {
    char *ip, *mac, *hostname, *client_id, *iaid; /* hostname and client_id NULL: not told; iaid of IPv6 only */
    int64_t expiry; /* seconds since 1970; 0: never */
    bool v6;
    unsigned prefix;
};
struct network_lease *network_lease_copy(const struct network_lease *l);
void network_lease_free(struct network_lease *l);
GPtrArray *network_leases(const struct caller *who, struct network *n, const char *mac, GError **error);
/* The same for who knows only the interface: <interface>'s network is `name`. Empty if none; those that were there last, where
 * they cannot be read now. Never waits. */
GPtrArray *network_leases_of(const char *name, const char *mac);

/* ---- ports: what is plugged into a network ---- */

/* What an interface is to be joined to. Strings are of `doc`, or whose who filled it in. */
struct network_plug {
    char port[37];                    /* its UUID: <source portid=''> */
    struct xml_node *doc;             /* its own copy of the port's: who joins it waits; NULL: none */
    enum network_mode mode;
    const char *bridge;               /* bridge to join; NULL: macvtap or hostdev */
    const char *dev;                  /* macvtap: the interface below it ... */
    const char *macvtap;              /* ... and its mode: "vepa", "bridge", "private", "passthrough" */
    const char *pci;                  /* hostdev: "0000:05:10.1" */
    const char *openvswitch;          /* interface id, where the bridge is Open vSwitch's; else NULL */
    const char *profile;              /* of that port; may be NULL */
    unsigned mtu;                     /* 0: the default */
    bool isolated, macs_by_us;        /* <port isolated>, macTableManager='libvirt' */
    /* Elements, of `doc`; NULL: none. The interface's own win over the portgroup's, those over the network's. filterref is
     * the interface's own. */
    const struct xml_node *bandwidth, *vlan, *virtualport, *filterref;
};
void network_plug_done(struct network_plug *p);
#define auto_network_plug __attribute__((cleanup(network_plug_done))) struct network_plug
/* `interface` is the <interface type='network'> of the machine `owner`. Kept across restarts of the manager, until it is
 * unplugged. Writes nothing into the element. */
bool network_plug(const uint8_t *owner, const char *owner_name, const struct xml_node *interface, struct network_plug *ret, GError **error);
/* The tap that was made for the port. */
void network_plugged(const char *port, const char *ifname);
/* By owner and MAC address; `mac` NULL: all of the owner's. Never fails: what is not there is gone. */
void network_unplug(const uint8_t *owner, const char *mac);
/* tc on a tap or bridge by a <bandwidth> element (NULL: takes ours away). `reversed`: a macvtap, which stands on the
 * machine's side. Blocks for microseconds. */
bool network_qos(const char *ifname, const struct xml_node *bandwidth, bool reversed, GError **error);

GPtrArray *network_port_list(const struct caller *who, struct network *n);  /* UUIDs' texts */
char *network_port_xml(const struct caller *who, struct network *n, const char *port, GError **error);
char *network_port_create(const struct caller *who, struct network *n, const char *xml, unsigned flags, GError **error); /* UUID's text */
/* Limits: "inbound.average" ..., KiB/s and KiB. Set: what is named changes, also of a machine that runs. (waits) */
bool network_port_get_params(const struct caller *who, struct network *n, const char *port, struct param_list *ret, GError **error);
bool network_port_set_params(const struct caller *who, struct network *n, const char *port, const struct param_list *l, GError **error);
bool network_port_delete(const struct caller *who, struct network *n, const char *port, GError **error);

/* Begins tasks for those that run. */
bool networks_load(GError **error);
void networks_autostart(void);
void networks_stop(void);
