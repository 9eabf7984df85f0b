/* SPDX-License-Identifier: GPL-2.0-or-later */
/* XML: texts from outside become a small tree, the way to values in it, and text again.
 *
 * Spec      XML 1.0 and Namespaces in XML 1.0, without document types; read by expat in UTF-8, UTF-16,
 *           ISO-8859-1 or US-ASCII. Strings of a tree are UTF-8.
 * Owner     A tree is its root: xml_free() of an element frees what is below it, xml_unlink() makes it
 *           a tree of its own. Each element, attribute and text is one allocation, gone when it is
 *           replaced: a tree that is changed for months does not grow.
 * Thread    Any, one tree at a time. A copy shares nothing that changes with its model.
 * Trust     Texts are hostile: at most XML_MAX_BYTES, XML_MAX_DEPTH deep, 200,000 elements and attributes,
 *           256 attributes an element, 256 namespaces in scope of 1,024 bytes each; a document with a DTD
 *           is refused. Parsing takes time and memory in proportion to the text.
 * Paths     "name", "os/type", "source@file", "os/type@arch", "x:o/x:arg": elements by '/', an attribute
 *           by '@'; of several the first. Returned strings belong to the tree, until it changes.
 * Errors    RUCHE_ERR_XML_SYNTAX: not well-formed, or over a limit; RUCHE_ERR_XML: another root element.
 */
#pragma once

#include "base/error.h"

#include <stdint.h>

#define XML_MAX_BYTES (4u << 20) /* REMOTE_STRING_MAX of libvirt's protocol */
#define XML_MAX_DEPTH 64

/* Shared by all that is in it, never changed. */
struct xml_ns {
    gatomicrefcount refs;
    const char *prefix; /* NULL: the default namespace; stands behind uri */
    char uri[];         /* "": xmlns='', which takes the default one away */
};

/* A namespace that is declared at an element. */
struct xml_decl {
    struct xml_decl *next;
    struct xml_ns *ns;
};

struct xml_attr {
    struct xml_attr *next;
    struct xml_ns *ns; /* NULL: none */
    const void *mark;  /* the caller's; NULL in a new one */
    const char *value; /* stands behind name */
    char name[];       /* without prefix */
};

/* An element or a text. There are no comments and processing instructions: a text ends only at a tag. */
struct xml_node {
    struct xml_node *parent, *prev, *next; /* NULL: none */
    struct xml_node *children, *last;      /* the first and the last */
    struct xml_attr *attrs;                /* in their order */
    struct xml_ns *ns;                     /* NULL: none */
    struct xml_decl *declared;             /* in their order */
    const void *mark;                      /* the caller's; NULL in a new one */
    const char *name;                      /* without prefix; of a text "" */
    const char *text;                      /* NULL: an element */
    char own[];                            /* name or text */
};

/* The document with root element `root` (NULL: any). Errors name line and column. */
struct xml_node *xml_parse(const char *text, size_t len, const char *root, GError **error);
/* A subtree, taken out of its tree first. */
void xml_free(struct xml_node *n);
/* For locals: auto_xml *doc = xml_parse(...); */
static inline void xml_auto_free(struct xml_node **n)
{
    xml_free(*n);
}
#define auto_xml __attribute__((cleanup(xml_auto_free))) struct xml_node
/* Text of a subtree as libvirt prints it: two blanks a level, attributes in single quotes, no
 * declaration. `level` is the depth it starts at. */
char *xml_format(const struct xml_node *n, unsigned level);

/* Could it be read again? UTF-8 without control characters other than white space (XML 1.0, 2.2). */
bool xml_can_hold(const char *text);

/* ---- values ---- */

struct xml_node *xml_find(const struct xml_node *n, const char *path);    /* NULL: not there */
struct xml_node *xml_next(const struct xml_node *n);                      /* the next sibling of the same name */
const char *xml_get(const struct xml_node *n, const char *path);          /* NULL: not there; "" if empty */
const char *xml_get_or(const struct xml_node *n, const char *path, const char *otherwise);
bool xml_is(const struct xml_node *n, const char *path, const char *value); /* there, and equal */
uint64_t xml_get_u64(const struct xml_node *n, const char *path, uint64_t otherwise); /* decimal or 0x; what was checked */
/* Makes what is missing of the path. */
void xml_set(struct xml_node *n, const char *path, const char *value);
void xml_set_f(struct xml_node *n, const char *path, const char *format, ...) G_GNUC_PRINTF(3, 4);
void xml_remove(struct xml_node *n, const char *path);
/* for (struct xml_node *d = xml_find(devices, "disk"); d; d = xml_next(d)) */

/* ---- the tree ---- */

static inline bool xml_is_element(const struct xml_node *n)
{
    return !n->text;
}
/* An element in no namespace: a tree of its own, or the new last child. */
struct xml_node *xml_new(const char *name);
struct xml_node *xml_add(struct xml_node *parent, const char *name);
/* A tree of its own, with the declarations that it uses from above `n`; xml_copy_as() under another name. */
struct xml_node *xml_copy(const struct xml_node *n);
struct xml_node *xml_copy_as(const struct xml_node *n, const char *name);
/* `n`, taken out of its tree, becomes the last child, or stands beside `at`. Returns it. */
struct xml_node *xml_append(struct xml_node *parent, struct xml_node *n);
struct xml_node *xml_insert_before(struct xml_node *at, struct xml_node *n);
struct xml_node *xml_insert_after(struct xml_node *at, struct xml_node *n);
/* `with`, taken out of its tree, stands where `old` was, which is freed. */
void xml_replace(struct xml_node *old, struct xml_node *with);
void xml_unlink(struct xml_node *n);

/* Attributes in no namespace. One that is set keeps its place and mark; a new one is the last. */
struct xml_attr *xml_attr(const struct xml_node *n, const char *name); /* NULL: not there */
struct xml_attr *xml_set_attr(struct xml_node *n, const char *name, const char *value);
void xml_remove_attr(struct xml_node *n, const char *name);
void xml_free_attrs(struct xml_attr *first); /* and all behind it */

/* ---- namespaces ---- */

/* Declares it last. NULL: the prefix is declared at `n` already. The node keeps it. */
struct xml_ns *xml_declare(struct xml_node *n, const char *prefix, const char *uri);
void xml_set_ns(struct xml_node *n, struct xml_ns *ns); /* NULL: none */
void xml_drop_declared(struct xml_node *n);             /* all; what is in them stays so */
/* Into no namespace; the declaration of the one it was in goes from `n`, too. */
void xml_leave_ns(struct xml_node *n);
/* Declares at `n` what its subtree uses from further up. */
void xml_declare_used(struct xml_node *n);
