/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the interface part share. Thread, lock and trust: interface.h. */
#pragma once

#include "manager/domain/schema.h"
#include "manager/interface/interface.h"
#include "manager/network/address.h"

#define INTERFACE_NAME_MAX   15 /* IFNAMSIZ with its end */
#define INTERFACE_STORED_MAX (4u << 20)
/* In the kernel's order. */
#define INTERFACE_BOND_MODES                                                                       \
    "balance-rr|active-backup|balance-xor|broadcast|802.3ad|balance-tlb|balance-alb"

extern const struct schema_row interface_schema;

/* ---- interface_def.c: descriptions ---- */

struct interface_def {
    struct xml_node *root;
    const char *name;
    enum interface_type type;
};
bool interface_def_parse(struct interface_def *d, const char *xml, unsigned flags, GError **error);
void interface_def_done(struct interface_def *d);
#define auto_interface_def __attribute__((cleanup(interface_def_done))) struct interface_def
char *interface_def_format(const struct interface_def *d);
enum interface_type interface_type_of(const struct xml_node *n);
/* The <protocol> of a family; NULL: none. */
struct xml_node *interface_protocol(const struct xml_node *root, bool v6);
bool interface_wants_dhcp(const struct xml_node *root);
/* Names that an element is made of, itself first; `lowers`: and those that VLANs stand on, which only go up for it. */
void interface_names(const struct xml_node *n, bool lowers, GPtrArray *ret);
/* Its first port; xml_next() gives the others. */
struct xml_node *interface_ports(const struct xml_node *n);

/* ---- host.c: what the kernel has; any thread ---- */

struct host_link {
    int index, master, lower;
    char name[16], kind[16], mac[18];
    unsigned flags, mtu, state; /* IFF_*, bytes, IF_OPER_* */
    GBytes *data;               /* attributes of its kind; NULL: none */
};
struct host_address {
    int index;
    struct net_subnet s;
    unsigned scope;
    GBytes *raw; /* payload of the kernel's message */
};
struct host_path {
    int index;
    struct net_subnet to;
    struct net_addr gateway;
    bool has_gateway;
    bool shared; /* one of several next hops; `raw` is of all of them */
    unsigned protocol;
    GBytes *raw;
};
struct host {
    GArray *links, *addresses, *paths;
};
struct host *host_read(void);
void host_free(struct host *h);
#define auto_host __attribute__((cleanup(host_auto_free))) struct host
static inline void host_auto_free(struct host **h)
{
    host_free(*h);
}
const struct host_link *host_find(const struct host *h, const char *name);
const struct host_link *host_at(const struct host *h, int index);
#define FOREACH_OF(type, x, array)                                                                 \
    for (const struct type *x = (const void *)(array)->data;                                       \
         x < (const struct type *)(const void *)(array)->data + (array)->len; x++)
/* A link of machines: their taps. */
bool host_is_tap(const struct host_link *l);
bool host_is_up(const struct host_link *l);
bool host_same_address(const struct host_address *a, const struct host_address *b);
enum interface_type host_type(const struct host_link *l);
/* As libvirt's XML; `start`: its start mode, NULL: not known. */
char *host_xml(const struct host *h, const struct host_link *l, const char *start);

/* ---- owner.c ---- */
/* Who else configures it; NULL: nobody that we know. */
char *interface_owner(const char *name, int index);

/* ---- make.c: worker threads; block ---- */
/* What the element describes is there and up; `indexes` (may be NULL): numbers by name that new
 * links get. Takes ports' addresses and routes over. */
bool interface_make(const struct xml_node *root, GHashTable *indexes, GError **error);
bool interface_flush(const char *name, bool down, GError **error); /* its addresses */
/* A message of the kernel again, for interface `to`; of several next hops those by the `count`
 * interfaces of `from` are its, others stay. Type RTM_NEWADDR, RTM_NEWROUTE or their RTM_DEL*.
 * Errno. */
int interface_replay(int type, GBytes *raw, const int *from, unsigned count, int to);

/* ---- snapshot.c ---- */
/* The kernel's state as an element <snapshot>. `names`: only of these links; NULL: all but taps.
 * `def`: and the default routes of others that this description's replace; NULL: none. Any thread. */
struct xml_node *snapshot_take(GPtrArray *names, const struct xml_node *def);
/* `made`: names of links that go where the snapshot does not know them; `wanted`: names of links to
 * restore. Worker threads. */
bool snapshot_restore(const struct xml_node *root, GPtrArray *wanted, GError **error);
char *snapshot_boot(void);

/* ---- probe.c: worker threads; block ---- */
/* Default gateways by any of the interfaces that answer. At most `max`; the count. */
unsigned probe_gateways(GPtrArray *names, unsigned wait_s, struct net_addr *ret, unsigned max);

/* ---- lease_client.c ---- */
bool lease_client_start(const char *name, const struct xml_node *root, GError **error);
void lease_client_stop(const char *name);
void lease_client_forget_all(void); /* they live on */

/* ---- interface_table.c ---- */
struct interface_entry {
    char *name, *text; /* text: the definition; NULL: none */
    struct xml_node *running; /* <running>: by what it was brought up, and what was before; NULL: it was not */
};
GHashTable *interface_entries(void); /* by name */
struct interface_entry *interface_entry(const char *name, bool make);
/* Text that is to be gone back to must be one that is read again: `what` cannot be noted, else. */
bool interface_check_note(const char *what, const char *text, const char *root, GError **error);
bool interface_save(struct interface_entry *e, GError **error);
/* What a manager after us looks for; `whole`: all of it is done. */
bool interface_save_running(struct interface_entry *e, bool whole, GError **error);
void interface_drop_empty(struct interface_entry *e);
char *interface_run_path(const char *name, const char *suffix);

/* ---- interface_life.c: tasks, with the lock ---- */
bool interface_do_start(struct interface_entry *e, GError **error);
bool interface_do_stop(struct interface_entry *e, GError **error);
/* A start or stop that was cut off is undone. */
void interface_undo(struct interface_entry *e);
/* Who asks for its addresses runs as it is to. */
void interface_sync_client(struct interface_entry *e);
void interface_autostart_forget(void);

/* ---- interface_change.c ---- */
/* What a manager before us left half done, or did not commit. A task. */
void interface_settle(void);
void interface_change_forget(void);

/* ---- interface_ops.c ---- */
typedef bool interface_fn(const char *name, void *opaque, GError **error);
bool interface_operation(const struct caller *who, const char *name, const char *operation,
                         interface_fn *fn, void *opaque, GError **error);
