/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the filter part share. Thread, lock and trust: filter.h. */
#pragma once

#include "manager/filter/filter.h"

#define FILTER_TEXT_MAX   (1u << 20) /* bytes of one description */
#define FILTER_NODES_MAX  4096       /* rules and includes of one filter */
#define FILTER_ATTRS_MAX  32         /* attributes of one protocol */
#define FILTER_DEPTH_MAX  16         /* includes in includes */
#define FILTER_VISITS_MAX 512        /* filters that one interface takes in, each time counted */
#define FILTER_RULES_MAX  8192       /* rules that one interface may need */

/* ---- filter_proto.c: the language ---- */

enum filter_kind {
    FK_NONE,
    FK_MAC,
    FK_IPV4,
    FK_IPV6,
    FK_MASK4,
    FK_MASK6,
    FK_U8,
    FK_U16,
    FK_U32,
    FK_ETHERTYPE,
    FK_IPPROTO,
    FK_DSCP,
    FK_VLAN,
    FK_OPCODE,
    FK_BOOL,
    FK_TCPFLAGS,
    FK_STATE,
    FK_CONNLIMIT,
    FK_IPSET,
    FK_IPSETFLAGS,
    FK_COMMENT,
};
/* What a second attribute means for the first. */
enum filter_partner { FP_NONE, FP_MASK, FP_END };
struct filter_attr {
    const char *name;
    enum filter_kind kind;
    const char *expr; /* nft's words for the field; NULL: it is another's partner, or has words of
                         its own */
    const char *swapped; /* of the other end; NULL: the same */
    const char *partner; /* the attribute that goes with it */
    enum filter_partner how;
};
struct filter_proto {
    const char *name, *match;        /* nft's words for the protocol; "" for every frame */
    bool stateful;                   /* connections: libvirt's iptables half */
    const struct filter_attr *attrs; /* end without a name */
};
const struct filter_proto *filter_proto_find(const char *name);
int filter_attr_index(const struct filter_proto *p, const char *name); /* -1: none */

/* ---- filter_value.c ---- */

struct filter_var {
    char name[64];
    unsigned iterator;
    int index; /* one element of the list; -1: one after the other, by the iterator */
};
/* "$IP", "$IP[@1]", "$IP[2]". False: it is no variable. */
bool filter_var_parse(const char *text, struct filter_var *ret);
/* A value in its one form; NULL with *error. Variables are for the caller to tell apart. */
char *filter_value_check(enum filter_kind kind, const char *text, GError **error);
bool filter_mac_parse(const char *text, uint8_t ret[6]);
/* nft's match of one attribute (values in their one form, `partner` may be NULL), with a blank in
 * front. */
void filter_match(GString *s, const struct filter_attr *a, bool swapped, bool negate,
                  const char *value, const char *partner);

/* ---- filter_def.c ---- */

enum filter_action { FILTER_DROP, FILTER_ACCEPT, FILTER_REJECT, FILTER_RETURN, FILTER_CONTINUE };
enum filter_direction { FILTER_IN, FILTER_OUT, FILTER_INOUT };
struct filter_rule {
    enum filter_action action;
    enum filter_direction direction;
    int priority;
    bool stateless, negate;
    const struct filter_proto *proto; /* NULL: everything in its chain */
    char *values[FILTER_ATTRS_MAX];   /* by the protocol's rows */
};
struct filter_node {
    char *ref;          /* an include; NULL: a rule */
    GHashTable *params; /* of the include: filter_params_new() */
    struct filter_rule rule;
};
struct filter_def {
    char *name, *chain;
    int priority; /* of the chain */
    bool has_priority, has_uuid;
    uint8_t uuid[16];
    GPtrArray *nodes; /* struct filter_node */
};
struct filter_def *filter_def_parse(const char *xml, GError **error);
void filter_def_free(struct filter_def *d);
char *filter_def_format(const struct filter_def *d);
bool filter_name_check(const char *name, GError **error);
/* Names to lists (GPtrArray) of texts. */
GHashTable *filter_params_new(void);
void filter_params_add(GHashTable *params, const char *name, const char *value);
/* The <parameter>s of a <filterref>. */
bool filter_params_parse(GHashTable *params, const struct xml_node *ref, GError **error);

/* ---- filter_compile.c ---- */

struct filter_program {
    char *text;        /* nft's commands: the whole table */
    bool needs_ct;     /* connection tracking on bridges */
    bool rejects;      /* it answers what it refuses */
    bool waits_for_ip; /* IP is asked for and not known: only DHCP passes */
    GHashTable *used;  /* names of the filters in it */
    char *learned;     /* addresses that the caller found for it */
};
struct filter_target {
    const char *ifname, *filter, *mac, *bridge; /* bridge: NULL: none, or not known */
    GHashTable *params;                         /* MAC is added */
    const struct filter_def *(*find)(const char *name, void *opaque);
    void *opaque;
};
bool filter_compile(const struct filter_target *t, struct filter_program *ret, GError **error);
void filter_program_done(struct filter_program *p);
char *filter_table_name(const char *ifname);

/* ---- filter_builtin.c ---- */
extern const char *const filter_builtin[]; /* texts; ends with NULL */

/* ---- filter_table.c ---- */
const struct filter_def *filter_def_of(const char *name); /* NULL: there is none */
/* One change of filters or of rules at a time. */
void filter_lock(void);
void filter_unlock(void);

/* ---- filter_binding.c ---- */
void filter_bindings_load(void);
void filter_bindings_refresh(void); /* makes the rules of all that are bound anew */
void filter_bindings_stop(void);
void filter_bindings_look(void); /* soon, whether addresses are others */
/* With the lock: applies all that use `d`, with it in the place of the one of its name. */
bool filter_bindings_follow(const struct filter_def *d, GError **error);
/* The interface that uses it; NULL: none. */
char *filter_bindings_user(const char *name);

/* ---- filter_binding_xml.c ---- */
struct filter_binding *filter_binding_parse(const char *xml, GError **error);
char *filter_bindings_folder(void); /* notes of what is bound, for the next manager */
bool filter_binding_note(const struct filter_binding *b, GError **error);
void filter_binding_forget(const char *ifname);

/* ---- filter_address.c ---- */
/* Those known now, with ' ' between them; NULL: none. */
char *filter_addresses(const struct filter_binding *b);
/* Learns from frames for as long as its rules wait for an address, or those may change. */
void filter_addresses_listen(struct filter_binding *b);
void filter_addresses_load(struct filter_binding *b); /* what the manager before knew */
void filter_addresses_forget(const char *ifname);     /* what is noted of it */
void filter_addresses_free(struct filter_addresses *a);
