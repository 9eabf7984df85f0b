/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interfaces of the host: what the kernel has, what is defined here, and changes that can be taken back.
 *
 * Spec      libvirt's virInterface* and formatinterface (interface.rng) at 9.0.0; flags are its numbers. docs/interface.md.
 * Thread    The loop thread. Lists and descriptions ask the kernel, which answers at once; what changes it waits on a worker.
 * Lock      One for all: changes are made one after the other.
 * Stored    config_dir/interfaces/NAME.xml; interfaces.change: what a change that was begun goes back to.
 * Trust     XML is hostile. Names from the kernel may hold anything that a name of an interface may.
 * Others'   What ifupdown, NetworkManager or systemd-networkd configures is listed and described, and refused to be changed;
 *           only a bridge of ours may take it as a port, and then takes its addresses and routes over.
 */
#pragma once

#include "manager/manager.h"

enum interface_type { INTERFACE_ETHERNET, INTERFACE_BRIDGE, INTERFACE_BOND, INTERFACE_VLAN };
const char *interface_type_word(enum interface_type type); /* "ethernet" */

struct interface {
    char *name, *mac;      /* mac: "" if it has none */
    enum interface_type type;
    bool there;            /* the kernel has it */
    bool active;           /* and it is up */
    bool defined, onboot;  /* by us; and starts with the manager */
    char *owner;           /* who else configures it: "NetworkManager"; NULL: nobody that we know */
    unsigned mtu;
};
void interface_free(struct interface *i);

enum { INTERFACE_LIST_INACTIVE = 1, INTERFACE_LIST_ACTIVE = 2 }; /* virConnectListAllInterfacesFlags */
GPtrArray *interface_list(const struct caller *who, unsigned list_flags); /* sorted by name; taps of machines are left out */
struct interface *interface_find(const struct caller *who, const char *name, GError **error);
struct interface *interface_find_mac(const struct caller *who, const char *mac, GError **error); /* several: an error */
enum { INTERFACE_XML_INACTIVE = 1 };
char *interface_xml(const struct caller *who, const char *name, unsigned flags, GError **error);

/* All below (waits). */
enum { INTERFACE_DEFINE_VALIDATE = 1 };
struct interface *interface_define(const struct caller *who, const char *xml, unsigned flags, GError **error);
bool interface_undefine(const struct caller *who, const char *name, GError **error);
/* Up as it is defined. A bridge that takes a port with addresses: they move; a default gateway that answered before and does
 * not afterwards puts everything back, and is the error. */
bool interface_start(const struct caller *who, const char *name, GError **error);
bool interface_stop(const struct caller *who, const char *name, GError **error);

/* From begin on, definitions and the kernel's state are remembered; rollback restores both; so does the manager's next start
 * (definitions only, when the host has been started anew) and the end of timeout_s (0: never). */
bool interface_change_begin(const struct caller *who, unsigned timeout_s, GError **error);
bool interface_change_commit(const struct caller *who, GError **error);
bool interface_change_rollback(const struct caller *who, GError **error);
/* Is there one? *ret_left_s: until it is rolled back; 0: never. */
bool interface_change_pending(unsigned *ret_left_s);

bool interfaces_load(GError **error);
void interfaces_autostart(void);
void interfaces_stop(void);
