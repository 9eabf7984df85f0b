/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Texts to trees, by expat. See xml.h.
 *
 * Expat reads the text, in time near linear, and calls the functions below; a text that goes over a
 * limit is left at that place. It gives a name in a namespace as "URI SEPARATOR name SEPARATOR
 * prefix", so URIs are short here: each name in one costs its length.
 *
 * Thread    Any, one document at a time.
 * Trust     The text is hostile.
 */
#include "base/xml_priv.h"

#include <expat.h>
#include <string.h>

/* Elements, attributes and declarations together cost some hundred bytes each, so MAX_NODES is what
 * bounds memory. Attributes of one element and namespaces in scope are looked through one by one. */
enum { MAX_NODES = 200000, MAX_ATTRIBUTES = 256, MAX_SCOPE = 256, MAX_URI = 1024 };
/* No text can hold it. */
enum { SEPARATOR = 1 };
#define XML_URI "http://www.w3.org/XML/1998/namespace"

struct reader {
    XML_Parser expat;
    struct xml_node *root, *at;                /* the whole, and the open element */
    GString *text;                             /* since the last tag */
    struct xml_ns *scope[MAX_SCOPE];           /* what is declared here, innermost last */
    struct xml_decl *declared, **declared_end; /* by the element that comes */
    unsigned depth, nodes, scope_count;
    bool is_utf8;     /* the declaration says "utf8", which expat does not know */
    char broken[128]; /* which rule; "": none */
};

static void give_up(struct reader *r, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void give_up(struct reader *r, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    if (!*r->broken)
        g_vsnprintf(r->broken, sizeof(r->broken), format, ap);
    va_end(ap);
    XML_StopParser(r->expat, XML_FALSE);
}

/* ---- names ---- */

struct name {
    const char *local, *prefix; /* prefix NULL: none */
    size_t len;                 /* of local */
    bool in_ns;
};

static struct name split(const char *text)
{
    const char *local = strchr(text, SEPARATOR);
    if (!local)
        return (struct name){.local = text, .len = strlen(text)};
    size_t len = strcspn(++local, (const char[]){SEPARATOR, 0});
    return (struct name){
        .local = local, .len = len, .prefix = local[len] ? local + len + 1 : NULL, .in_ns = true};
}

/* With a reference; NULL: in none. */
static struct xml_ns *ns_of(const struct reader *r, const struct name *name)
{
    if (!name->in_ns)
        return NULL;
    for (unsigned i = r->scope_count; i--;)
        if (!g_strcmp0(r->scope[i]->prefix, name->prefix))
            return xml_ns_ref(r->scope[i]);
    return xml_ns_new(name->prefix, XML_URI); /* the one that needs no declaration */
}

static void on_declare(void *opaque, const char *prefix, const char *uri)
{
    struct reader *r = opaque;
    if (*r->broken)
        return;
    if (uri && strlen(uri) > MAX_URI)
        return give_up(r, "a namespace is longer than %d bytes", MAX_URI);
    if (r->scope_count == MAX_SCOPE)
        return give_up(r, "more than %d namespaces are declared at once", MAX_SCOPE);
    struct xml_ns *ns = r->scope[r->scope_count++] = xml_ns_new(prefix, uri ? uri : "");
    r->nodes++;
    if (!g_strcmp0(prefix, "xml"))
        return;
    *r->declared_end = xml_decl_new(ns);
    r->declared_end = &(*r->declared_end)->next;
}

static void on_undeclare(void *opaque, const char *prefix)
{
    struct reader *r = opaque;
    if (!*r->broken)
        xml_ns_unref(r->scope[--r->scope_count]);
}

/* ---- elements and texts ---- */

static void put_text(struct reader *r)
{
    if (r->text->len)
        xml_append(r->at, xml_new_text(r->text->str, r->text->len));
    g_string_truncate(r->text, 0);
}

static void put_attributes(struct reader *r, struct xml_node *n, const char **attrs)
{
    struct xml_attr **end = &n->attrs;
    for (; *attrs; attrs += 2, end = &(*end)->next) {
        struct name name = split(attrs[0]);
        *end = xml_new_attr(name.local, name.len, attrs[1]);
        (*end)->ns = ns_of(r, &name);
    }
}

static bool is_in_limits(struct reader *r, const char **attrs)
{
    unsigned count = 0;
    while (attrs[2 * count] && count <= MAX_ATTRIBUTES)
        count++;
    r->nodes += 1 + count;
    if (count > MAX_ATTRIBUTES)
        give_up(r, "an element has more than %d attributes", MAX_ATTRIBUTES);
    else if (r->nodes > MAX_NODES)
        give_up(r, "there are more than %d elements and attributes", MAX_NODES);
    else if (r->depth >= XML_MAX_DEPTH)
        give_up(r, "elements are nested deeper than %d", XML_MAX_DEPTH);
    return !*r->broken;
}

static void on_start(void *opaque, const char *text, const char **attrs)
{
    struct reader *r = opaque;
    if (*r->broken || !is_in_limits(r, attrs))
        return;
    struct name name = split(text);
    struct xml_node *n = xml_new_element(name.local, name.len);
    n->ns = ns_of(r, &name);
    n->declared = r->declared;
    r->declared = NULL;
    r->declared_end = &r->declared;
    put_attributes(r, n, attrs);
    if (r->at) {
        put_text(r);
        xml_append(r->at, n);
    } else {
        r->root = n;
    }
    r->at = n;
    r->depth++;
}

static void on_end(void *opaque, const char *name)
{
    struct reader *r = opaque;
    if (*r->broken)
        return;
    put_text(r);
    r->at = r->at->parent;
    r->depth--;
}

static void on_text(void *opaque, const char *text, int len)
{
    struct reader *r = opaque;
    if (!*r->broken)
        g_string_append_len(r->text, text, len);
}

/* ---- what is refused ---- */

static void on_doctype(void *opaque, const char *name, const char *system, const char *public,
                       int has_subset)
{
    give_up(opaque, "a document type is not allowed");
}

static int on_encoding(void *opaque, const char *name, XML_Encoding *encoding)
{
    struct reader *r = opaque;
    r->is_utf8 = !g_ascii_strcasecmp(name, "utf8");
    give_up(r, "its encoding '%.32s' is not known; UTF-8, UTF-16, ISO-8859-1 and US-ASCII are",
            name);
    return XML_STATUS_ERROR;
}

static bool refuse(const struct reader *r, GError **error)
{
    char inside[4 * 32 + 1] = "";
    if (r->at && !*r->broken)
        g_utf8_strncpy(inside, r->at->name, 32);
    return ruche_error(error, RUCHE_ERR_XML_SYNTAX,
                       "XML is not well-formed: line %lu, column %lu: %s%s%s%s",
                       XML_GetCurrentLineNumber(r->expat), XML_GetCurrentColumnNumber(r->expat) + 1,
                       *r->broken ? r->broken : XML_ErrorString(XML_GetErrorCode(r->expat)),
                       *inside ? ", inside <" : "", inside, *inside ? ">" : "");
}

static void prepare(struct reader *r, const char *encoding)
{
    *r = (struct reader){.expat = XML_ParserCreateNS(encoding, SEPARATOR)};
    r->declared_end = &r->declared;
    if (!r->expat)
        return;
    r->text = g_string_sized_new(256);
    XML_SetUserData(r->expat, r);
    XML_SetReturnNSTriplet(r->expat, 1);
    XML_SetNamespaceDeclHandler(r->expat, on_declare, on_undeclare);
    XML_SetElementHandler(r->expat, on_start, on_end);
    XML_SetCharacterDataHandler(r->expat, on_text);
    XML_SetStartDoctypeDeclHandler(r->expat, on_doctype);
    XML_SetUnknownEncodingHandler(r->expat, on_encoding, r);
}

static void clean(struct reader *r)
{
    while (r->scope_count)
        xml_ns_unref(r->scope[--r->scope_count]);
    xml_free_declared(r->declared);
    if (r->text)
        g_string_free(r->text, TRUE);
    XML_ParserFree(r->expat);
}

/* `encoding` NULL: what the text says. */
static struct xml_node *read_text(const char *text, size_t len, const char *encoding,
                                  GError **error)
{
    struct reader r;
    prepare(&r, encoding);
    bool again = false;
    if (!r.expat) {
        ruche_error(error, RUCHE_ERR_NO_SPACE, "there is no memory to read XML of %zu bytes", len);
    } else if (XML_Parse(r.expat, text, (int)len, 1) != XML_STATUS_OK) {
        again = r.is_utf8;
        if (!again)
            refuse(&r, error);
        xml_free(r.root);
        r.root = NULL;
    }
    clean(&r);
    return again ? read_text(text, len, "UTF-8", error) : r.root;
}

struct xml_node *xml_parse(const char *text, size_t len, const char *root, GError **error)
{
    if (len > XML_MAX_BYTES) {
        ruche_error(error, RUCHE_ERR_XML_SYNTAX,
                    "XML of %zu bytes is too long; at most %u are taken", len, XML_MAX_BYTES);
        return NULL;
    }
    struct xml_node *n = read_text(text, len, NULL, error);
    if (!n || !root || (!n->ns && !strcmp(n->name, root)))
        return n;
    ruche_error(error, RUCHE_ERR_XML, "the root element is <%s>; <%s> is expected", n->name, root);
    xml_free(n);
    return NULL;
}
