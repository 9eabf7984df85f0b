/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The grammar of descriptions: tables of rows, and the engine that applies them.
 *
 * An element or attribute is one row: what it is called, what values it takes, when it is there, and (by its
 * place in the table) where it stands in the printed text. schema_apply() checks a tree against its row, takes
 * away what is not known, writes values in their one form and puts everything in order.
 *
 * Spec      libvirt's formatdomain and RNG schemas at 9.0.0.
 * Thread    Any, one tree at a time. Tables are constant.
 * Trust     The tree is hostile: any names, any values; its depth and size were bounded by xml_parse().
 * Errors    RUCHE_ERR_XML: missing or unknown parts and words, values out of their range.
 */
#pragma once

#include "base/xml.h"

enum schema_kind {
    S_NONE,   /* an element without text */
    S_TEXT,   /* anything; at most `max` bytes, if given */
    S_CHARS,  /* characters of the class `words` ("a-z0-9_"), not empty, at most `max` */
    S_WORD,   /* one of `words`: "file|block" */
    S_UINT,   /* decimal, of [min, max]; max 0: 2^32 - 1 */
    S_INT,    /* decimal with sign, of [low, max] */
    S_HEX,    /* decimal or 0x, up to max; written as 0x with `min` digits */
    S_SIZE,   /* a number with the attribute "unit", `scale` bytes if it has none; written in KiB, or
                 in bytes where scale is 1 */
    S_UUID, S_MAC /* of one station */, S_IP, S_IPV4, S_PATH /* absolute */, S_CPUSET,
};

struct schema_value {
    enum schema_kind kind;
    const char *words;
    uint64_t min, max;
    int64_t low;
    unsigned scale;
};

enum schema_flags {
    F_NEED = 1u << 0,   /* must be there; an element's text: must not be empty */
    F_MANY = 1u << 1,   /* any number of them; else the first counts */
    F_LIVE = 1u << 2,   /* of a running machine: taken away unless DEF_LIVE */
    F_SECRET = 1u << 3, /* left out of texts without DEF_FORMAT_SECURE */
    F_ANY = 1u << 4,    /* the subtree is somebody else's: kept as it is */
    F_PRUNE = 1u << 5,  /* an element that says nothing is taken away */
    F_TEXT = 1u << 6,   /* needs its text */
    F_FOUND = 1u << 7,  /* with F_LIVE: what we found out for a running machine; left out of every text that leaves */
};

struct schema_attr {
    const char *name;
    struct schema_value v;
    unsigned flags;
    const char *when;      /* a condition on the element: "type=file|block"; "device!=lun"; NULL: always */
    const char *otherwise; /* written where it is missing */
};

struct schema_row {
    const char *name;
    struct schema_value text;
    const struct schema_attr *attrs;    /* end without a name; NULL: none */
    const struct schema_row *children;  /* the same */
    unsigned flags;
    const char *when; /* a condition on the parent */
    const char *ns;   /* URI; NULL: none */
    const char *prefix; /* of the namespace; NULL: "qemu" */
};

extern const struct schema_row schema_domain;    /* <domain> */
extern const struct schema_row schema_devices[]; /* every device */

/* def_flags: enum def_flags of def.h. */
bool schema_apply(struct xml_node *n, const struct schema_row *row, unsigned def_flags, GError **error);
/* The row of an element among rows, by name and `when`; NULL: none. */
const struct schema_row *schema_row_of(const struct schema_row *rows, const struct xml_node *n);
/* Takes away what has one of these flags. */
void schema_drop(struct xml_node *n, const struct schema_row *row, unsigned flags);

/* One value: *ret_new gets its one form, or stays if it has it already. `unit` is that of a S_SIZE, or NULL. */
bool schema_value_check(const struct schema_value *v, const char *text, const char *unit, char **ret_new,
                        GError **error);
/* What an error calls an element: "disk 'vda': driver". */
char *schema_where(const struct xml_node *n);
