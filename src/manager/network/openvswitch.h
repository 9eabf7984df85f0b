/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Machines' taps as ports of Open vSwitch's bridges, by its database.
 *
 * Spec      ovs-vswitchd.conf.db(5): Bridge, Port, Interface, QoS, Queue; external_ids as libvirt
 *           9 writes them.
 * Thread    The loop thread; what waits says so, and does not wait for ever.
 * Stored    runtime_dir/openvswitch/IFNAME: whose port it is, from before it is made until it is
 *           gone.
 * Trust     The database is another program's: types are checked.
 */
#pragma once

#include "base/xml.h"

struct ovs_port {
    const char *bridge, *ifname;
    const char *owner, *mac;            /* UUID's text and address: of the machine */
    const char *interface_id, *profile; /* profile may be NULL */
    bool isolated;
    const struct xml_node *vlan, *bandwidth; /* NULL: none */
};
/* A port of that name is replaced; returns when the switch has it. (waits) */
bool ovs_plug(const struct ovs_port *p, GError **error);
/* VLANs, limits and isolation of a port that is there, as they are to be; returns when the switch
 * has them, or has had five seconds. (waits) */
bool ovs_change(const struct ovs_port *p, GError **error);
/* Never fail; what cannot be reached is tried again at a refresh and at the next start. */
void ovs_unplug(const char *ifname);
void ovs_unplug_owner(const char *owner, const char *mac); /* mac NULL: all of its ports */

/* What a manager before us noted; ports whose interface is gone are taken away. */
void ovs_load(void);
void ovs_refresh(void); /* tries again what could not be taken away */
void ovs_stop(void);
