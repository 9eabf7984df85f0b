/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Values by their paths. See xml.h. Thread: any, one tree at a time. */
#include "base/xml_priv.h"

#include <string.h>

enum { MAX_PATH_PART = 128 };

bool xml_can_hold(const char *text)
{
    for (const char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' && !strchr("\t\n\r", *c))
            return false;
    return g_utf8_validate(text, -1, NULL) && !strstr(text, "\ufffe") && !strstr(text, "\uffff");
}

/* One part of a path: "os", "qemu:arg". */
struct part {
    const char *prefix, *name; /* prefix NULL: no namespace */
    size_t prefix_len, name_len, len;
};

/* The first one. */
static struct part part_of(const char *path)
{
    struct part p = {.name = path};
    const char *c = path;
    for (; *c && *c != '/' && *c != '@'; c++)
        if (*c == ':' && !p.prefix) {
            p.prefix = path;
            p.prefix_len = (size_t)(c - path);
            p.name = c + 1;
        }
    p.name_len = (size_t)(c - p.name);
    p.len = (size_t)(c - path);
    return p;
}

/* Most names differ in their first letter. */
static bool same(const char *have, const char *want, size_t len)
{
    return *have == *want && !strncmp(have, want, len) && !have[len];
}

static bool part_fits(const struct xml_node *n, const struct part *p)
{
    if (n->text || !same(n->name, p->name, p->name_len))
        return false;
    if (!p->prefix)
        return !n->ns;
    return n->ns && n->ns->prefix && same(n->ns->prefix, p->prefix, p->prefix_len);
}

/* The elements of a path, up to '@' or its end; create makes what is missing. */
static struct xml_node *walk(const struct xml_node *n, const char *path, bool create)
{
    while (n && *path && *path != '@') {
        struct part p = part_of(path);
        struct xml_node *c = n->children;
        while (c && !part_fits(c, &p))
            c = c->next;
        if (!c && create && p.len < MAX_PATH_PART) {
            g_autofree char *name = g_strndup(path, p.len);
            c = xml_add((struct xml_node *)n, name);
        }
        n = c;
        path += p.len;
        path += *path == '/';
    }
    return (struct xml_node *)n;
}

struct xml_node *xml_find(const struct xml_node *n, const char *path)
{
    return walk(n, path, false);
}

struct xml_node *xml_next(const struct xml_node *n)
{
    for (struct xml_node *s = n->next; s; s = s->next)
        if (!s->text && !strcmp(s->name, n->name) && !s->ns == !n->ns)
            return s;
    return NULL;
}

/* Of an element: its first text. */
static const char *text_of(const struct xml_node *n)
{
    for (const struct xml_node *c = n->children; c; c = c->next)
        if (c->text)
            return c->text;
    return "";
}

const char *xml_get(const struct xml_node *n, const char *path)
{
    const char *at = strchr(path, '@');
    const struct xml_node *e = walk(n, path, false);
    if (!e)
        return NULL;
    if (!at)
        return text_of(e);
    const struct xml_attr *a = xml_attr(e, at + 1);
    return a ? a->value : NULL;
}

const char *xml_get_or(const struct xml_node *n, const char *path, const char *otherwise)
{
    const char *v = xml_get(n, path);
    return v ? v : otherwise;
}

bool xml_is(const struct xml_node *n, const char *path, const char *value)
{
    const char *v = xml_get(n, path);
    return v && !strcmp(v, value);
}

uint64_t xml_get_u64(const struct xml_node *n, const char *path, uint64_t otherwise)
{
    const char *v = xml_get(n, path);
    if (!v || !*v)
        return otherwise;
    bool hex = v[0] == '0' && (v[1] | 32) == 'x';
    char *end;
    uint64_t u = g_ascii_strtoull(hex ? v + 2 : v, &end, hex ? 16 : 10);
    return *end ? otherwise : u;
}

static void set_text(struct xml_node *e, const char *value)
{
    struct xml_node *text = xml_new_text(value, strlen(value)); /* which may be in the old one */
    for (struct xml_node *c = e->children, *next; c; c = next) {
        next = c->next;
        if (c->text)
            xml_free(c);
    }
    if (e->children)
        xml_insert_before(e->children, text);
    else
        xml_append(e, text);
}

void xml_set(struct xml_node *n, const char *path, const char *value)
{
    const char *at = strchr(path, '@');
    struct xml_node *e = walk(n, path, true);
    if (!e)
        return;
    if (at)
        xml_set_attr(e, at + 1, value);
    else
        set_text(e, value);
}

void xml_set_f(struct xml_node *n, const char *path, const char *format, ...)
{
    va_list ap, again;
    char brief[64];
    g_autofree char *longer = NULL;
    va_start(ap, format);
    va_copy(again, ap);
    if (g_vsnprintf(brief, sizeof(brief), format, ap) >= (int)sizeof(brief))
        longer = g_strdup_vprintf(format, again);
    va_end(again);
    va_end(ap);
    xml_set(n, path, longer ? longer : brief);
}

void xml_remove(struct xml_node *n, const char *path)
{
    const char *at = strchr(path, '@');
    struct xml_node *e = walk(n, path, false);
    if (e && at)
        xml_remove_attr(e, at + 1);
    else if (e != n)
        xml_free(e);
}
