/* SPDX-License-Identifier: GPL-2.0-or-later */
/* XML from outside and values in it. See xml.h.
 *
 * Parsing goes through libxml2's SAX interface so that a hostile text is left where it goes over a
 * limit, not when its tree is complete. Comments and processing instructions make no nodes: each
 * element's text is one node then, and a value can be handed out without a copy.
 *
 * Thread    Any, one document at a time.
 * Trust     The text is hostile; see the header.
 */
#include "manager/xml.h"

#include <libxml/SAX2.h>
#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <string.h>

/* Elements and attributes together: a node costs some hundred bytes, so this is what bounds memory.
 */
enum { MAX_NODES = 200000, MAX_ATTRIBUTES = 256, MAX_PATH_PART = 128 };

struct limits {
    unsigned depth, nodes;
    const char *broken; /* which rule, NULL: none */
};

static void give_up(xmlParserCtxt *ctxt, const char *why)
{
    struct limits *l = ctxt->_private;
    if (!l->broken)
        l->broken = why;
    xmlStopParser(ctxt);
}

static void on_start(void *opaque, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri,
                     int ns_count, const xmlChar **ns, int attr_count, int defaulted,
                     const xmlChar **attrs)
{
    xmlParserCtxt *ctxt = opaque;
    struct limits *l = ctxt->_private;
    l->nodes += 1 + (unsigned)attr_count + (unsigned)ns_count;
    if (++l->depth > XML_MAX_DEPTH)
        return give_up(ctxt, "elements are nested deeper than 64");
    if (l->nodes > MAX_NODES)
        return give_up(ctxt, "there are more than 200000 elements and attributes");
    xmlSAX2StartElementNs(ctxt, name, prefix, uri, ns_count, ns, attr_count, defaulted, attrs);
}

static void on_end(void *opaque, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri)
{
    xmlParserCtxt *ctxt = opaque;
    struct limits *l = ctxt->_private;
    l->depth--;
    xmlSAX2EndElementNs(ctxt, name, prefix, uri);
}

static void on_doctype(void *opaque, const xmlChar *name, const xmlChar *external,
                       const xmlChar *system)
{
    give_up(opaque, "a document type is not allowed");
}

static bool parse_failed(xmlParserCtxt *ctxt, const struct limits *l, GError **error)
{
    int line = ctxt->lastError.line, column = ctxt->lastError.int2;
    if (l->broken || ctxt->lastError.code == XML_ERR_OK) {
        line = xmlSAX2GetLineNumber(ctxt);
        column = xmlSAX2GetColumnNumber(ctxt);
    }
    g_autofree char *what =
        g_strdup(ctxt->lastError.message ? ctxt->lastError.message : "the text ends early");
    g_strdelimit(g_strchomp(what), "\n\r", ' ');
    g_autofree char *valid = g_utf8_make_valid(what, -1);
    return ruche_error(error, MANAGER_ERR_XML_SYNTAX,
                       "XML is not well-formed: line %d, column %d: %s", line, column,
                       l->broken ? l->broken : valid);
}

/* Behind `end`, which is looked for from `at` on; `to` where there is none. */
static const char *behind(const char *at, const char *to, const char *end)
{
    const char *found = memmem(at, (size_t)(to - at), end, strlen(end));
    return found ? found + strlen(end) : to;
}

/* From a start tag's '<' to behind its '>'. The parser compares each attribute with all before it: many
 * would hold it up for minutes. NULL: there are too many. */
static const char *skip_tag(const char *at, const char *to)
{
    unsigned attributes = 0;
    char quote = 0;
    for (; at < to; at++) {
        if (quote)
            quote = *at == quote ? 0 : quote;
        else if (*at == '>')
            return at + 1;
        else if (*at == '"' || *at == '\'')
            quote = *at;
        else if (*at == '=' && ++attributes > MAX_ATTRIBUTES)
            return NULL;
    }
    return to;
}

static bool starts(const char *at, const char *to, const char *with)
{
    return (size_t)(to - at) >= strlen(with) && !memcmp(at, with, strlen(with));
}

static bool check_tags(const char *text, size_t len, GError **error)
{
    const char *to = text + len;
    for (const char *at = text; at && (at = memchr(at, '<', (size_t)(to - at)));) {
        const char *tag = at;
        if (starts(at, to, "<!--"))
            at = behind(at + 4, to, "-->");
        else if (starts(at, to, "<![CDATA["))
            at = behind(at, to, "]]>");
        else if (starts(at, to, "<?"))
            at = behind(at, to, "?>");
        else
            at = skip_tag(at, to);
        if (!at)
            return ruche_error(error, MANAGER_ERR_XML_SYNTAX,
                               "XML has an element with more than %d attributes, at byte %zu",
                               MAX_ATTRIBUTES, (size_t)(tag - text));
    }
    return true;
}

static bool check_text(const char *text, size_t len, GError **error)
{
    if (len > XML_MAX_BYTES)
        return ruche_error(error, MANAGER_ERR_XML_SYNTAX,
                           "XML of %zu bytes is too long; at most %u are taken", len,
                           XML_MAX_BYTES);
    if (memchr(text, 0, len))
        return ruche_error(error, MANAGER_ERR_XML_SYNTAX,
                           "XML is not well-formed: it has a zero byte");
    return check_tags(text, len, error);
}

/* Without a DTD there are only the five entities of XML, which texts and values are given with. */
enum {
    PARSE_OPTIONS = XML_PARSE_NONET | XML_PARSE_NOENT | XML_PARSE_NOCDATA | XML_PARSE_NOERROR |
                    XML_PARSE_NOWARNING
};

xmlDoc *xml_parse(const char *text, size_t len, const char *root, GError **error)
{
    if (!check_text(text, len, error))
        return NULL;
    xmlParserCtxt *ctxt = xmlNewParserCtxt();
    if (!ctxt) {
        ruche_error(error, RUCHE_ERR_NO_SPACE, "there is no memory to read XML of %zu bytes", len);
        return NULL;
    }
    struct limits l = {0};
    ctxt->_private = &l;
    ctxt->sax->startElementNs = on_start;
    ctxt->sax->endElementNs = on_end;
    ctxt->sax->internalSubset = on_doctype;
    ctxt->sax->comment = NULL;
    ctxt->sax->processingInstruction = NULL;
    xmlDoc *doc = xmlCtxtReadMemory(ctxt, text, (int)len, NULL, NULL, PARSE_OPTIONS);
    const xmlNode *top = doc ? xmlDocGetRootElement(doc) : NULL;
    bool ok = top && !l.broken && ctxt->nsWellFormed;
    if (!ok)
        parse_failed(ctxt, &l, error);
    else if (root && (strcmp((const char *)top->name, root) != 0 || top->ns))
        ok = ruche_error(error, MANAGER_ERR_XML, "the root element is <%s>; <%s> is expected",
                         (const char *)top->name, root);
    xmlFreeParserCtxt(ctxt);
    if (ok)
        return doc;
    xmlFreeDoc(doc);
    return NULL;
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
static bool same(const xmlChar *have, const char *want, size_t len)
{
    return have && *have == (xmlChar)*want && !strncmp((const char *)have, want, len) && !have[len];
}

static bool part_fits(const xmlNode *n, const struct part *p)
{
    if (n->type != XML_ELEMENT_NODE || !same(n->name, p->name, p->name_len))
        return false;
    return p->prefix ? n->ns && same(n->ns->prefix, p->prefix, p->prefix_len) : !n->ns;
}

/* The elements of a path, up to '@' or its end; create makes what is missing. */
static xmlNode *walk(const xmlNode *n, const char *path, bool create)
{
    while (n && *path && *path != '@') {
        struct part p = part_of(path);
        xmlNode *c = n->children;
        while (c && !part_fits(c, &p))
            c = c->next;
        if (!c && create && p.len < MAX_PATH_PART) {
            g_autofree char *name = g_strndup(path, p.len);
            c = xmlNewChild((xmlNode *)n, NULL, (const xmlChar *)name, NULL);
            xmlSetNs(c, NULL);
        }
        n = c;
        path += p.len;
        path += *path == '/';
    }
    return (xmlNode *)n;
}

static xmlAttr *find_attr(const xmlNode *n, const char *name)
{
    for (xmlAttr *a = n ? n->properties : NULL; a; a = a->next)
        if (!a->ns && *a->name == (xmlChar)*name && !strcmp((const char *)a->name, name))
            return a;
    return NULL;
}

xmlNode *xml_find(const xmlNode *n, const char *path)
{
    return walk(n, path, false);
}

xmlNode *xml_next(const xmlNode *n)
{
    for (xmlNode *s = n->next; s; s = s->next)
        if (s->type == XML_ELEMENT_NODE && !strcmp((const char *)s->name, (const char *)n->name) &&
            !s->ns == !n->ns)
            return s;
    return NULL;
}

static const char *content(const xmlNode *first)
{
    for (; first; first = first->next)
        if (first->type == XML_TEXT_NODE)
            return first->content ? (const char *)first->content : "";
    return "";
}

const char *xml_get(const xmlNode *n, const char *path)
{
    const char *at = strchr(path, '@');
    const xmlNode *e = walk(n, path, false);
    if (!e)
        return NULL;
    if (!at)
        return content(e->children);
    const xmlAttr *a = find_attr(e, at + 1);
    return a ? content(a->children) : NULL;
}

const char *xml_get_or(const xmlNode *n, const char *path, const char *otherwise)
{
    const char *v = xml_get(n, path);
    return v ? v : otherwise;
}

bool xml_is(const xmlNode *n, const char *path, const char *value)
{
    const char *v = xml_get(n, path);
    return v && !strcmp(v, value);
}

uint64_t xml_get_u64(const xmlNode *n, const char *path, uint64_t otherwise)
{
    const char *v = xml_get(n, path);
    if (!v || !*v)
        return otherwise;
    bool hex = v[0] == '0' && (v[1] | 32) == 'x';
    char *end;
    uint64_t u = g_ascii_strtoull(hex ? v + 2 : v, &end, hex ? 16 : 10);
    return *end ? otherwise : u;
}

static void set_text(xmlNode *e, const char *value)
{
    for (xmlNode *c = e->children, *next; c; c = next) {
        next = c->next;
        if (c->type != XML_ELEMENT_NODE) {
            xmlUnlinkNode(c);
            xmlFreeNode(c);
        }
    }
    xmlNode *text = xmlNewDocText(e->doc, (const xmlChar *)value);
    if (e->children)
        xmlAddPrevSibling(e->children, text);
    else
        xmlAddChild(e, text);
}

void xml_set(xmlNode *n, const char *path, const char *value)
{
    const char *at = strchr(path, '@');
    xmlNode *e = walk(n, path, true);
    if (!e)
        return;
    if (at)
        xmlSetNsProp(e, NULL, (const xmlChar *)at + 1, (const xmlChar *)value);
    else
        set_text(e, value);
}

void xml_set_f(xmlNode *n, const char *path, const char *format, ...)
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

void xml_remove(xmlNode *n, const char *path)
{
    const char *at = strchr(path, '@');
    xmlNode *e = walk(n, path, false);
    xmlAttr *a = at ? find_attr(e, at + 1) : NULL;
    if (a) {
        xmlRemoveProp(a);
    } else if (e && !at && e != n) {
        xmlUnlinkNode(e);
        xmlFreeNode(e);
    }
}

/* In attributes white space other than a blank is written by its number, or the next parser would
 * read a blank; in texts only what a parser changes (the carriage return). */
static void put_escaped(GString *s, const char *v, bool attr)
{
    for (; *v; v++) {
        size_t plain = strcspn(v, "<>&'\"\r\n\t");
        g_string_append_len(s, v, (gssize)plain);
        v += plain;
        if (!*v)
            return;
        switch (*v) {
        case '<':
            g_string_append(s, "&lt;");
            break;
        case '>':
            g_string_append(s, "&gt;");
            break;
        case '&':
            g_string_append(s, "&amp;");
            break;
        case '\'':
            g_string_append(s, "&apos;");
            break;
        case '"':
            g_string_append(s, "&quot;");
            break;
        default:
            if (attr || *v == '\r')
                g_string_append_printf(s, "&#%d;", *v);
            else
                g_string_append_c(s, *v);
        }
    }
}

static void put_name(GString *s, const xmlNs *ns, const xmlChar *name)
{
    if (ns && ns->prefix) {
        g_string_append(s, (const char *)ns->prefix);
        g_string_append_c(s, ':');
    }
    g_string_append(s, (const char *)name);
}

static void put_attributes(GString *s, const xmlNode *n)
{
    for (const xmlNs *ns = n->nsDef; ns; ns = ns->next) {
        g_string_append(s, ns->prefix ? " xmlns:" : " xmlns");
        g_string_append(s, ns->prefix ? (const char *)ns->prefix : "");
        g_string_append(s, "='");
        put_escaped(s, ns->href ? (const char *)ns->href : "", true);
        g_string_append_c(s, '\'');
    }
    for (const xmlAttr *a = n->properties; a; a = a->next) {
        g_string_append_c(s, ' ');
        put_name(s, a->ns, a->name);
        g_string_append(s, "='");
        put_escaped(s, content(a->children), true);
        g_string_append_c(s, '\'');
    }
}

static bool is_blank(const xmlNode *n)
{
    const char *v = n->content ? (const char *)n->content : "";
    return !v[strspn(v, " \t\r\n")];
}

/* Only elements and white space between them: may be indented anew. */
static bool is_structure(const xmlNode *n)
{
    bool elements = false;
    for (const xmlNode *c = n->children; c; c = c->next) {
        if (c->type == XML_ELEMENT_NODE)
            elements = true;
        else if (c->type != XML_TEXT_NODE || !is_blank(c))
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
static void put_element(GString *s, const xmlNode *n, int level)
{
    put_indent(s, level);
    g_string_append_c(s, '<');
    put_name(s, n->ns, n->name);
    put_attributes(s, n);
    if (n->children) {
        bool structure = level >= 0 && is_structure(n);
        g_string_append(s, structure ? ">\n" : ">");
        for (const xmlNode *c = n->children; c; c = c->next) {
            if (c->type == XML_ELEMENT_NODE)
                put_element(s, c, structure ? level + 1 : -1);
            else if (c->type == XML_TEXT_NODE && !structure && c->content)
                put_escaped(s, (const char *)c->content, false);
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

char *xml_format(const xmlNode *n, unsigned level)
{
    GString *s = g_string_sized_new(4096);
    put_element(s, n, (int)level);
    return g_string_free(s, FALSE);
}
