/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a machine's port is in Open vSwitch's tables: operations at the end of a list.
 *
 * Spec      ovs-vswitchd.conf.db(5); libvirt 9's external_ids and rates.
 */
#pragma once

#include "manager/network/openvswitch.h"
#include "ovsdb/operation.h"

/* The _uuid of the row of that name; `owner`: of an Interface only if it is that machine's. */
void ovs_add_select(JsonArray *ops, const char *table, const char *name, const char *owner);
/* A port, with its interface, is taken off its bridge. */
void ovs_add_removal(JsonArray *ops, const char *port_uuid);
/* Rows of limits that we made for the port; `owner` NULL: whoever had a port of that name. */
void ovs_add_no_limits(JsonArray *ops, const char *ifname, const char *owner);
void ovs_add_port(JsonArray *ops, const struct ovs_port *p, const char *bridge_uuid);
/* The index of the operation whose count says whether the port was there; the last one's row is for
 * ovs_add_wait_change(). */
unsigned ovs_add_change(JsonArray *ops, const struct ovs_port *p);
/* Until the switch has done what it was told by then; false: `row` holds no number. */
bool ovs_add_wait_change(JsonArray *ops, JsonObject *row, int timeout_ms);
/* Two operations: until the switch has seen the interface; its error. */
void ovs_add_wait(JsonArray *ops, const char *ifname, int timeout_ms);
