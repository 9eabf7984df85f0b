/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Trees to texts, in the form that libvirt prints. See xml.h. Thread: any. */
#include "base/xml.h"

#include <string.h>

/* In attributes white space other than a blank is written by its number, or the next parser would
 * read a blank; in texts only what a parser changes (the carriage return). */
static void put_escaped(GString *s, const char *v, bool attr)
{
    static const char *const entities['>' + 1] = {
        ['<'] = "&lt;", ['>'] = "&gt;", ['&'] = "&amp;", ['\''] = "&apos;", ['"'] = "&quot;"};
    for (; *v; v++) {
        size_t plain = strcspn(v, "<>&'\"\r\n\t");
        g_string_append_len(s, v, (gssize)plain);
        v += plain;
        if (!*v)
            return;
        if (entities[(unsigned char)*v])
            g_string_append(s, entities[(unsigned char)*v]);
        else if (attr || *v == '\r')
            g_string_append_printf(s, "&#%d;", *v);
        else
            g_string_append_c(s, *v);
    }
}

static void put_name(GString *s, const struct xml_ns *ns, const char *name)
{
    if (ns && ns->prefix) {
        g_string_append(s, ns->prefix);
        g_string_append_c(s, ':');
    }
    g_string_append(s, name);
}

static void put_attributes(GString *s, const struct xml_node *n)
{
    for (const struct xml_decl *d = n->declared; d; d = d->next) {
        g_string_append(s, d->ns->prefix ? " xmlns:" : " xmlns");
        g_string_append(s, d->ns->prefix ? d->ns->prefix : "");
        g_string_append(s, "='");
        put_escaped(s, d->ns->uri, true);
        g_string_append_c(s, '\'');
    }
    for (const struct xml_attr *a = n->attrs; a; a = a->next) {
        g_string_append_c(s, ' ');
        put_name(s, a->ns, a->name);
        g_string_append(s, "='");
        put_escaped(s, a->value, true);
        g_string_append_c(s, '\'');
    }
}

/* Only elements and white space between them: may be indented anew. */
static bool is_structure(const struct xml_node *n)
{
    bool elements = false;
    for (const struct xml_node *c = n->children; c; c = c->next) {
        if (xml_is_element(c))
            elements = true;
        else if (c->text[strspn(c->text, " \t\r\n")])
            return false;
    }
    return elements;
}

static void put_indent(GString *s, int level)
{
    static const char blanks[] = "                                "; /* 16 levels */
    for (size_t want = level > 0 ? 2 * (size_t)level : 0, now; want; want -= now) {
        now = MIN(want, sizeof(blanks) - 1);
        g_string_append_len(s, blanks, (gssize)now);
    }
}

/* `level` -1: inside mixed content, nothing is added. */
static void put_element(GString *s, const struct xml_node *n, int level)
{
    put_indent(s, level);
    g_string_append_c(s, '<');
    put_name(s, n->ns, n->name);
    put_attributes(s, n);
    if (n->children) {
        bool structure = level >= 0 && is_structure(n);
        g_string_append(s, structure ? ">\n" : ">");
        for (const struct xml_node *c = n->children; c; c = c->next) {
            if (xml_is_element(c))
                put_element(s, c, structure ? level + 1 : -1);
            else if (!structure)
                put_escaped(s, c->text, false);
        }
        put_indent(s, structure ? level : 0);
        g_string_append(s, "</");
        put_name(s, n->ns, n->name);
        g_string_append_c(s, '>');
    } else {
        g_string_append(s, "/>");
    }
    if (level >= 0)
        g_string_append_c(s, '\n');
}

char *xml_format(const struct xml_node *n, unsigned level)
{
    GString *s = g_string_sized_new(4096);
    put_element(s, n, (int)level);
    return g_string_free(s, FALSE);
}
