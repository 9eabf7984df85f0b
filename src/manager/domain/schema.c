/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The engine over the tables of descriptions. See schema.h.
 *
 * Each element is walked once: attributes, text, then children, so that conditions on the parent
 * see attributes that were checked. Rows are remembered in the nodes' marks while an element is
 * put in order.
 */
#include "manager/domain/schema.h"
#include "manager/domain/def.h"

#include <string.h>

struct walk {
    unsigned flags;
    struct xml_node *root;
};

/* ---- names ---- */

static const char *ident(const struct xml_node *n)
{
    static const char *const paths[] = {"target@dev", "mac@address", "alias@name", "@index"};
    for (size_t i = 0; i < G_N_ELEMENTS(paths); i++) {
        const char *v = xml_get(n, paths[i]);
        if (v && *v && strlen(v) < 128)
            return v;
    }
    return NULL;
}

static bool is_element(const struct xml_node *n, const char *name)
{
    return n && xml_is_element(n) && !strcmp(n->name, name);
}

static unsigned place_of(const struct xml_node *n)
{
    unsigned place = 1;
    for (const struct xml_node *s = n->prev; s; s = s->prev)
        place += is_element(s, n->name);
    return place;
}

char *schema_where(const struct xml_node *n)
{
    GString *s = g_string_new(NULL);
    for (; n && xml_is_element(n); n = n->parent) {
        if (is_element(n, "devices") || is_element(n, "domain"))
            break;
        g_autofree char *name = g_strndup(n->name, 64);
        if (is_element(n->parent, "devices")) {
            const char *id = ident(n);
            g_autofree char *device =
                id ? g_strdup_printf("%s '%s'%s", name, id, s->len ? ": " : "")
                   : g_strdup_printf("%s %u%s", name, place_of(n), s->len ? ": " : "");
            g_string_prepend(s, device);
            break;
        }
        if (s->len)
            g_string_prepend_c(s, '/');
        g_string_prepend(s, name);
    }
    if (!s->len)
        g_string_append(s, "domain");
    return g_string_free(s, FALSE);
}

static bool refuse(const struct xml_node *n, GError **error, const char *format, ...)
    G_GNUC_PRINTF(3, 4);
static bool refuse(const struct xml_node *n, GError **error, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_autofree char *text = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_autofree char *where = schema_where(n);
    return ruche_error(error, RUCHE_ERR_XML, "%s: %s", where, text);
}

/* ---- rows ---- */

/* Most names differ in their first letter. */
static bool same(const char *a, const char *b)
{
    return *a == (char)*b && !strcmp(a, (const char *)b);
}

static bool word_in(const char *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *p = list; len; p++) {
        if (!strncmp(p, word, len) && (p[len] == '|' || !p[len]))
            return true;
        p = strchr(p, '|');
        if (!p)
            return false;
    }
    return false;
}

/* "path=a|b", "path!=a|b". A missing value is the empty word: it fits only "!=". */
static bool condition_holds(const char *when, const struct xml_node *n)
{
    if (!when)
        return true;
    const char *equals = strchr(when, '=');
    bool negated = equals > when && equals[-1] == '!';
    char path[48] = "@";
    size_t len = (size_t)(equals - when) - negated;
    bool plain = !memchr(when, '@', len);
    memcpy(path + plain, when, MIN(len, sizeof(path) - 2));
    path[MIN(len, sizeof(path) - 2) + plain] = 0;
    return word_in(equals + 1, xml_get_or(n, path, "")) != negated;
}

static bool ns_fits(const char *want, const struct xml_ns *have)
{
    return want ? have && !strcmp(want, have->uri) : !have;
}

const struct schema_row *schema_row_of(const struct schema_row *rows, const struct xml_node *n)
{
    for (const struct schema_row *r = rows; r && r->name; r++)
        if (same(r->name, n->name) && ns_fits(r->ns, n->ns) && condition_holds(r->when, n->parent))
            return r;
    return NULL;
}

/* ---- attributes ---- */

static bool check_value(struct xml_node *n, const char *attr, const struct schema_value *v,
                        const char *text, char **ret_new, GError **error)
{
    g_autofree char *where = NULL;
    g_autoptr(GError) inner = NULL;
    const char *unit = v->kind == S_SIZE ? xml_get(n, "@unit") : NULL;
    if (schema_value_check(v, text, unit, ret_new, &inner))
        return true;
    where = schema_where(n);
    return ruche_error(error, inner->code, "%s%s%s: %s", where, attr ? "@" : "", attr ? attr : "",
                       inner->message);
}

/* A size was rewritten in its row's unit; the row "unit" of the same table keeps it. */
static void set_unit(struct xml_node *n, const struct schema_value *v)
{
    if (v->kind == S_SIZE)
        xml_set_attr(n, "unit", (v->scale == 1 ? "bytes" : "KiB"));
}

static bool apply_attr(struct walk *w, struct xml_node *n, const struct schema_attr *row,
                       GError **error)
{
    struct xml_attr *a = xml_attr(n, row->name);
    if (a && ((row->flags & F_LIVE && !(w->flags & DEF_LIVE)) ||
              (row->v.kind == S_PATH && !*a->value))) {
        xml_remove_attr(n, row->name);
        a = NULL;
    }
    if (!a && row->otherwise)
        a = xml_set_attr(n, row->name, row->otherwise);
    if (!a)
        return !(row->flags & F_NEED) || refuse(n, error, "attribute '%s' is missing", row->name);
    g_autofree char *changed = NULL;
    if (!check_value(n, row->name, &row->v, a->value, &changed, error))
        return false;
    if (changed)
        a = xml_set_attr(n, row->name, changed);
    set_unit(n, &row->v);
    a->mark = row;
    return true;
}

static bool known_attr(const struct schema_attr *rows, const struct xml_attr *a)
{
    for (; rows && rows->name && !a->ns; rows++)
        if (same(rows->name, a->name))
            return true;
    return false;
}

static bool apply_attrs(struct walk *w, struct xml_node *n, const struct schema_attr *rows,
                        GError **error)
{
    for (struct xml_attr *a = n->attrs; a; a = a->next) {
        if (w->flags & DEF_VALIDATE && !known_attr(rows, a))
            return refuse(n, error, "attribute '%.64s' is not known", a->name);
        a->mark = NULL;
    }
    for (const struct schema_attr *r = rows; r && r->name; r++) {
        const struct xml_attr *a = xml_attr(n, r->name);
        bool matters = a ? !a->mark : r->otherwise || r->flags & F_NEED;
        if (matters && condition_holds(r->when, n) && !apply_attr(w, n, r, error))
            return false;
    }
    return true;
}

static struct xml_attr *take_attr(struct xml_node *n, const struct schema_attr *row)
{
    struct xml_attr **link = &n->attrs;
    while (*link && (*link)->mark != row)
        link = &(*link)->next;
    struct xml_attr *a = *link;
    if (!a)
        return NULL;
    *link = a->next;
    a->mark = NULL;
    a->next = NULL;
    return a;
}

/* The attributes that have a row, in the rows' order; the others are freed. */
static void order_attrs(struct xml_node *n, const struct schema_attr *rows)
{
    struct xml_attr *first = NULL, **end = &first;
    for (const struct schema_attr *r = rows; r && r->name; r++) {
        struct xml_attr *a = take_attr(n, r);
        if (!a)
            continue;
        *end = a;
        end = &a->next;
    }
    xml_free_attrs(n->attrs);
    n->attrs = first;
}

/* ---- text ---- */

static void drop_texts(struct xml_node *n)
{
    for (struct xml_node *c = n->children, *next; c; c = next) {
        next = c->next;
        if (!xml_is_element(c))
            xml_free(c);
    }
}

static bool apply_text(struct xml_node *n, const struct schema_row *row, GError **error)
{
    g_autofree char *text = g_strdup(xml_get(n, ""));
    bool blank = !text[strspn(text, " \t\r\n")] && row->text.kind != S_TEXT;
    if (row->text.kind == S_NONE || !*text || blank) {
        drop_texts(n);
        return !(row->flags & F_TEXT) || refuse(n, error, "it is empty");
    }
    g_autofree char *changed = NULL;
    if (!check_value(n, NULL, &row->text, text, &changed, error))
        return false;
    if (changed)
        xml_set(n, "", changed);
    set_unit(n, &row->text);
    return true;
}

/* ---- elements ---- */

static bool says_nothing(const struct xml_node *n)
{
    return !n->attrs && !n->children;
}

static struct xml_ns *canonical_ns(struct walk *w, const struct schema_row *row)
{
    if (!row->ns)
        return NULL;
    for (struct xml_decl *d = w->root->declared; d; d = d->next)
        if (!strcmp(d->ns->uri, row->ns))
            return d->ns;
    const char *prefix = row->prefix ? row->prefix : "qemu";
    return xml_declare(w->root, prefix, row->ns);
}

/* Declarations of known elements go; what is somebody else's takes its own along. */
static void adopt(struct walk *w, struct xml_node *n, const struct schema_row *row)
{
    xml_drop_declared(n);
    xml_set_ns(n, canonical_ns(w, row));
}

static bool apply_element(struct walk *w, struct xml_node *n, const struct schema_row *row,
                          GError **error);

/* False with no error: the element is to go. */
static bool admit(struct walk *w, const struct xml_node *n, const struct schema_row *row,
                  bool twice, GError **error)
{
    const char *why = !row ? "is not known here" : twice ? "is there twice" : NULL;
    if (why && w->flags & DEF_VALIDATE)
        return refuse(n->parent, error, "element <%.64s> %s", n->name, why);
    return !why && (!(row->flags & F_LIVE) || w->flags & DEF_LIVE);
}

static bool apply_children(struct walk *w, struct xml_node *n, const struct schema_row *rows,
                           GError **error)
{
    uint64_t seen[2] = {0}; /* rows; a table has at most 128 */
    for (struct xml_node *c = n->children, *next; c; c = next) {
        next = c->next;
        if (!xml_is_element(c))
            continue;
        const struct schema_row *row = schema_row_of(rows, c);
        GError *inner = NULL;
        size_t index = row ? (size_t)(row - rows) % 128 : 0;
        bool twice = row && !(row->flags & F_MANY) && seen[index / 64] >> index % 64 & 1;
        if (!admit(w, c, row, twice, &inner)) {
            if (inner) {
                g_propagate_error(error, inner);
                return false;
            }
            xml_free(c);
            continue;
        }
        if (!apply_element(w, c, row, error))
            return false;
        c->mark = row;
        seen[index / 64] |= 1ULL << index % 64;
        if (row->flags & F_PRUNE && says_nothing(c))
            xml_free(c);
    }
    return true;
}

/* Children in the order of their rows; those of one row as they stood. */
static void order_children(struct xml_node *n, const struct schema_row *rows)
{
    const struct xml_node *moved =
        NULL; /* the first that was; the element's text stays before it */
    for (const struct schema_row *r = rows; r && r->name; r++) {
        for (struct xml_node *c = n->children, *next; c && c != moved; c = next) {
            next = c->next;
            if (c->mark != r)
                continue;
            c->mark = NULL;
            xml_append(n, c);
            moved = moved ? moved : c;
        }
    }
}

static bool check_needed(const struct xml_node *n, const struct schema_row *rows, GError **error)
{
    for (const struct schema_row *r = rows; r && r->name; r++)
        if (r->flags & F_NEED && condition_holds(r->when, n) && !xml_find(n, r->name))
            return refuse(n, error, "element <%s> is missing", r->name);
    return true;
}

/* Somebody else's: each of its elements is of a namespace, of which there is one each; declarations
 * that it uses from further up come down to it. */
static void own_subtree(struct xml_node *n)
{
    drop_texts(n);
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    for (struct xml_node *c = n->children, *next; c; c = next) {
        next = c->next;
        if (!c->ns || g_hash_table_contains(seen, c->ns->uri)) {
            xml_free(c);
            continue;
        }
        xml_declare_used(c);
        g_hash_table_add(seen, c->ns->uri);
    }
}

static bool apply_element(struct walk *w, struct xml_node *n, const struct schema_row *row,
                          GError **error)
{
    adopt(w, n, row);
    if (row->flags & F_ANY) {
        own_subtree(n);
        return true;
    }
    if (!apply_attrs(w, n, row->attrs, error) || !apply_text(n, row, error) ||
        !apply_children(w, n, row->children, error) || !check_needed(n, row->children, error))
        return false;
    order_attrs(n, row->attrs);
    order_children(n, row->children);
    return true;
}

bool schema_apply(struct xml_node *n, const struct schema_row *row, unsigned def_flags,
                  GError **error)
{
    struct walk w = {.flags = def_flags, .root = n};
    return apply_element(&w, n, row, error);
}

void schema_drop(struct xml_node *n, const struct schema_row *row, unsigned flags)
{
    for (const struct schema_attr *a = row->attrs; a && a->name; a++)
        if (a->flags & flags && condition_holds(a->when, n))
            xml_remove_attr(n, a->name);
    for (struct xml_node *c = n->children, *next; c; c = next) {
        next = c->next;
        const struct schema_row *r = xml_is_element(c) ? schema_row_of(row->children, c) : NULL;
        if (r && r->flags & flags)
            xml_free(c);
        else if (r)
            schema_drop(c, r, flags);
    }
}
