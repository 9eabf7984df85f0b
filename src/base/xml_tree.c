/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Elements, texts, attributes and namespaces, and how they hang together. See xml.h.
 *
 * A namespace is counted by those that are in it, not held by the element that declares it: an
 * element taken out of its tree stays in its namespace, and a long URI stands once for all.
 *
 * Thread    Any, one tree at a time; the counts are atomic, since copies go to other threads.
 */
#include "base/xml_priv.h"

#include <string.h>

/* ---- namespaces ---- */

struct xml_ns *xml_ns_new(const char *prefix, const char *uri)
{
    size_t uri_size = strlen(uri) + 1, prefix_size = prefix ? strlen(prefix) + 1 : 0;
    struct xml_ns *ns = g_malloc(sizeof(*ns) + uri_size + prefix_size);
    g_atomic_ref_count_init(&ns->refs);
    memcpy(ns->uri, uri, uri_size);
    ns->prefix = prefix ? memcpy(ns->uri + uri_size, prefix, prefix_size) : NULL;
    return ns;
}

struct xml_ns *xml_ns_ref(struct xml_ns *ns)
{
    if (ns)
        g_atomic_ref_count_inc(&ns->refs);
    return ns;
}

void xml_ns_unref(struct xml_ns *ns)
{
    if (ns && g_atomic_ref_count_dec(&ns->refs))
        g_free(ns);
}

struct xml_decl *xml_decl_new(struct xml_ns *ns)
{
    struct xml_decl *d = g_new(struct xml_decl, 1);
    *d = (struct xml_decl){.ns = xml_ns_ref(ns)};
    return d;
}

void xml_free_declared(struct xml_decl *first)
{
    for (struct xml_decl *d = first, *next; d; d = next) {
        next = d->next;
        xml_ns_unref(d->ns);
        g_free(d);
    }
}

void xml_drop_declared(struct xml_node *n)
{
    xml_free_declared(n->declared);
    n->declared = NULL;
}

void xml_set_ns(struct xml_node *n, struct xml_ns *ns)
{
    struct xml_ns *old = n->ns;
    n->ns = xml_ns_ref(ns);
    xml_ns_unref(old);
}

static struct xml_decl **declared_end(struct xml_node *n)
{
    struct xml_decl **link = &n->declared;
    while (*link)
        link = &(*link)->next;
    return link;
}

static bool same_prefix(const struct xml_ns *a, const struct xml_ns *b)
{
    return a == b || !g_strcmp0(a->prefix, b->prefix);
}

struct xml_ns *xml_declare(struct xml_node *n, const char *prefix, const char *uri)
{
    for (struct xml_decl *d = n->declared; d; d = d->next)
        if (!g_strcmp0(d->ns->prefix, prefix))
            return NULL;
    struct xml_ns *ns = xml_ns_new(prefix, uri);
    *declared_end(n) = xml_decl_new(ns);
    xml_ns_unref(ns);
    return ns;
}

void xml_leave_ns(struct xml_node *n)
{
    for (struct xml_decl **link = &n->declared; n->ns && *link; link = &(*link)->next) {
        struct xml_decl *d = *link;
        if (!same_prefix(d->ns, n->ns))
            continue;
        *link = d->next;
        d->next = NULL;
        xml_free_declared(d);
        break;
    }
    xml_set_ns(n, NULL);
}

/* Between `n` and `top`. */
static bool is_declared(const struct xml_node *n, const struct xml_node *top,
                        const struct xml_ns *ns)
{
    for (;; n = n->parent) {
        for (const struct xml_decl *d = n->declared; d; d = d->next)
            if (same_prefix(d->ns, ns))
                return true;
        if (n == top)
            return !g_strcmp0(ns->prefix, "xml"); /* never needs it */
    }
}

static void declare_used(struct xml_node *n, struct xml_node *top)
{
    if (n->ns && !is_declared(n, top, n->ns))
        *declared_end(top) = xml_decl_new(n->ns);
    for (struct xml_attr *a = n->attrs; a; a = a->next)
        if (a->ns && !is_declared(n, top, a->ns))
            *declared_end(top) = xml_decl_new(a->ns);
    for (struct xml_node *c = n->children; c; c = c->next)
        declare_used(c, top);
}

void xml_declare_used(struct xml_node *n)
{
    declare_used(n, n);
}

/* ---- attributes ---- */

struct xml_attr *xml_new_attr(const char *name, size_t len, const char *value)
{
    size_t value_size = strlen(value) + 1;
    struct xml_attr *a = g_malloc(sizeof(*a) + len + 1 + value_size);
    *a = (struct xml_attr){.value = a->name + len + 1};
    memcpy(a->name, name, len);
    a->name[len] = 0;
    memcpy(a->name + len + 1, value, value_size);
    return a;
}

static void free_attr(struct xml_attr *a)
{
    xml_ns_unref(a->ns);
    g_free(a);
}

void xml_free_attrs(struct xml_attr *first)
{
    for (struct xml_attr *a = first, *next; a; a = next) {
        next = a->next;
        free_attr(a);
    }
}

/* Where it hangs, or where a new one goes. */
static struct xml_attr **attr_link(struct xml_node *n, const char *name)
{
    struct xml_attr **link = &n->attrs;
    while (*link && ((*link)->ns || strcmp((*link)->name, name) != 0))
        link = &(*link)->next;
    return link;
}

struct xml_attr *xml_attr(const struct xml_node *n, const char *name)
{
    for (struct xml_attr *a = n->attrs; a; a = a->next)
        if (*a->name == *name && !a->ns && !strcmp(a->name, name))
            return a;
    return NULL;
}

struct xml_attr *xml_set_attr(struct xml_node *n, const char *name, const char *value)
{
    struct xml_attr **link = attr_link(n, name), *old = *link;
    struct xml_attr *a = xml_new_attr(name, strlen(name), value); /* which may be in the old one */
    *link = a;
    if (old) {
        a->next = old->next;
        a->mark = old->mark;
        free_attr(old);
    }
    return a;
}

void xml_remove_attr(struct xml_node *n, const char *name)
{
    struct xml_attr **link = attr_link(n, name), *a = *link;
    if (!a)
        return;
    *link = a->next;
    free_attr(a);
}

/* ---- elements and texts ---- */

static struct xml_node *new_node(const char *own, size_t len)
{
    struct xml_node *n = g_malloc(sizeof(*n) + len + 1);
    *n = (struct xml_node){.name = n->own};
    memcpy(n->own, own, len);
    n->own[len] = 0;
    return n;
}

struct xml_node *xml_new_element(const char *name, size_t len)
{
    return new_node(name, len);
}

struct xml_node *xml_new_text(const char *text, size_t len)
{
    struct xml_node *n = new_node(text, len);
    n->name = "";
    n->text = n->own;
    return n;
}

struct xml_node *xml_new(const char *name)
{
    return xml_new_element(name, strlen(name));
}

struct xml_node *xml_add(struct xml_node *parent, const char *name)
{
    return xml_append(parent, xml_new(name));
}

static void free_tree(struct xml_node *n)
{
    for (struct xml_node *c = n->children, *next; c; c = next) {
        next = c->next;
        free_tree(c);
    }
    xml_free_attrs(n->attrs);
    xml_free_declared(n->declared);
    xml_ns_unref(n->ns);
    g_free(n);
}

void xml_free(struct xml_node *n)
{
    if (!n)
        return;
    xml_unlink(n);
    free_tree(n);
}

static struct xml_node *copy_tree(const struct xml_node *n, const char *name)
{
    if (n->text)
        return xml_new_text(n->text, strlen(n->text));
    struct xml_node *copy = xml_new(name);
    copy->ns = xml_ns_ref(n->ns);
    struct xml_decl **decl = &copy->declared;
    for (const struct xml_decl *d = n->declared; d; d = d->next, decl = &(*decl)->next)
        *decl = xml_decl_new(d->ns);
    struct xml_attr **attr = &copy->attrs;
    for (const struct xml_attr *a = n->attrs; a; a = a->next, attr = &(*attr)->next) {
        *attr = xml_new_attr(a->name, strlen(a->name), a->value);
        (*attr)->ns = xml_ns_ref(a->ns);
    }
    for (const struct xml_node *c = n->children; c; c = c->next)
        xml_append(copy, copy_tree(c, c->name));
    return copy;
}

struct xml_node *xml_copy_as(const struct xml_node *n, const char *name)
{
    struct xml_node *copy = copy_tree(n, name);
    xml_declare_used(copy);
    return copy;
}

struct xml_node *xml_copy(const struct xml_node *n)
{
    return xml_copy_as(n, n->name);
}

void xml_unlink(struct xml_node *n)
{
    struct xml_node *parent = n->parent;
    if (!parent)
        return;
    *(n->prev ? &n->prev->next : &parent->children) = n->next;
    *(n->next ? &n->next->prev : &parent->last) = n->prev;
    n->parent = n->prev = n->next = NULL;
}

/* Before `next`, a child of `parent`; NULL: last. */
static struct xml_node *put(struct xml_node *parent, struct xml_node *next, struct xml_node *n)
{
    xml_unlink(n);
    n->parent = parent;
    n->next = next;
    n->prev = next ? next->prev : parent->last;
    *(n->prev ? &n->prev->next : &parent->children) = n;
    *(next ? &next->prev : &parent->last) = n;
    return n;
}

struct xml_node *xml_append(struct xml_node *parent, struct xml_node *n)
{
    return put(parent, NULL, n);
}

struct xml_node *xml_insert_before(struct xml_node *at, struct xml_node *n)
{
    return at == n ? n : put(at->parent, at, n);
}

struct xml_node *xml_insert_after(struct xml_node *at, struct xml_node *n)
{
    return at == n ? n : put(at->parent, at->next == n ? n->next : at->next, n);
}

void xml_replace(struct xml_node *old, struct xml_node *with)
{
    xml_insert_before(old, with);
    xml_free(old);
}
