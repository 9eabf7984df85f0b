/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Filters: which frames an interface of a machine may send and get, in libvirt's language, done by
 * nftables.
 *
 * Spec      libvirt's formatnwfilter and virNWFilter* at 9.0.0; flags are its numbers.
 *           docs/network.md.
 * Thread    The loop thread; functions marked (waits) need a task.
 * Owner     The table owns filters; find and list return references. Their fields are constant: a
 *           filter that is defined anew is another object in the same place.
 * Stored    config_dir/nwfilters/NAME.xml; what is bound: runtime_dir/nwfilters/INTERFACE.xml,
 *           written before its rules are made, and taken away after them.
 * Rules     A table "bridge ruche_nwf_INTERFACE" for each bound interface, replaced as one
 *           transaction.
 * Trust     XML is hostile: includes, lists and rules are bounded.
 */
#pragma once

#include "manager/manager.h"
#include "base/xml.h"

struct filter_def; /* filter_priv.h */
struct filter {
    unsigned refs;
    struct filter_def *def;
    uint8_t uuid[16];
    char *name, *text; /* text: canonical XML */
};
void filter_unref(struct filter *f);
struct filter *filter_find_name(const char *name, GError **error);
struct filter *filter_find_uuid(const uint8_t *uuid, GError **error);
GPtrArray *filter_list(const struct caller *who); /* sorted by name */
char *filter_xml(const struct caller *who, const struct filter *f, unsigned flags, GError **error);

struct filter_info {
    const char *chain; /* the filter's */
    int priority;      /* of the chain */
    unsigned rules;
    GPtrArray *includes; /* names, the filter's; the caller's array */
};
void filter_info(const struct filter *f, struct filter_info *ret);

/* (waits) Interfaces that use the filter follow, all of them or none: else it is refused and
 * everything stays as it was. */
enum { FILTER_DEFINE_VALIDATE = 1 };
struct filter *filter_define(const struct caller *who, const char *xml, unsigned flags,
                             GError **error);
/* (waits) Not while an interface uses it, by itself or by an include. */
bool filter_undefine(const struct caller *who, struct filter *f, GError **error);

/* ---- bindings: which filter an interface has ---- */
struct filter_binding {
    unsigned refs;
    char *ifname, *filter, *mac, *owner_name, owner[37];
    struct xml_node *doc; /* <filterbinding> */
    char *learned;        /* the IPv4 addresses found for it, with ' ' between them; NULL: none, or not
                             asked for */
    struct filter_addresses *addresses; /* filter_address.c */
    bool waiting;                       /* for an address: only DHCP passes */
};
void filter_binding_unref(struct filter_binding *b);
struct filter_binding *filter_binding_find(const char *ifname, GError **error);
GPtrArray *filter_binding_list(const struct caller *who);
char *filter_binding_xml(const struct caller *who, const struct filter_binding *b, unsigned flags,
                         GError **error);
/* (waits) */
struct filter_binding *filter_binding_create(const struct caller *who, const char *xml,
                                             unsigned flags, GError **error);
bool filter_binding_delete(const struct caller *who, const char *ifname, GError **error);

/* (waits) `ref` is the <filterref> of the machine's interface; NULL: it has none, which is fine.
 * Call it before the link is up. Kept across restarts of the manager for as long as the interface
 * is there. */
bool filter_plug(const char *ifname, const uint8_t *owner, const char *owner_name, const char *mac,
                 const struct xml_node *ref, GError **error);
/* Begins a task that takes the rules away; one that is not bound is fine. */
void filter_unplug(const char *ifname);
void filter_unplug_owner(const uint8_t *owner); /* all of them */

bool filters_load(GError **error);
void filters_autostart(void);
void filters_stop(void);
