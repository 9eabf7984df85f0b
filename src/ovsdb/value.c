/* SPDX-License-Identifier: GPL-2.0-or-later */
/* OVSDB's values; see value.h. */
#include "ovsdb/value.h"

#include <string.h>

/* ---- reading ---- */

static bool is_uuid(const char *s)
{
    if (strlen(s) != 36)
        return false;
    for (int i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? s[i] != '-' : !g_ascii_isxdigit(s[i]))
            return false;
    }
    return true;
}

bool ovsdb_is_id(const char *s)
{
    if (!g_ascii_isalpha(*s) && *s != '_')
        return false;
    for (; *s; s++)
        if (!g_ascii_isalnum(*s) && *s != '_')
            return false;
    return true;
}

static const char *string_of(JsonNode *n)
{
    return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_STRING
               ? json_node_get_string(n)
               : NULL;
}

/* A pair such as ["uuid", x]: its word; the array in *ret. */
static const char *word_of(JsonNode *n, JsonArray **ret)
{
    if (!JSON_NODE_HOLDS_ARRAY(n))
        return NULL;
    *ret = json_node_get_array(n);
    return json_array_get_length(*ret) == 2 ? string_of(json_array_get_element(*ret, 0)) : NULL;
}

static const char *read_reference(struct ovsdb_atom *a, JsonNode *n)
{
    JsonArray *pair;
    const char *word = word_of(n, &pair);
    bool uuid = !g_strcmp0(word, "uuid"), named = !g_strcmp0(word, "named-uuid");
    const char *text = uuid || named ? string_of(json_array_get_element(pair, 1)) : NULL;
    if (!text || !(uuid ? is_uuid(text) : ovsdb_is_id(text)))
        return "a value is neither an atom nor a UUID";
    *a = (struct ovsdb_atom){.type = uuid ? OVSDB_UUID : OVSDB_NAMED_UUID, .text = g_strdup(text)};
    return NULL;
}

static const char *read_atom(struct ovsdb_atom *a, JsonNode *n)
{
    if (!JSON_NODE_HOLDS_VALUE(n))
        return read_reference(a, n);
    GType type = json_node_get_value_type(n);
    if (type == G_TYPE_INT64)
        *a = (struct ovsdb_atom){.type = OVSDB_INTEGER, .integer = json_node_get_int(n)};
    else if (type == G_TYPE_DOUBLE)
        *a = (struct ovsdb_atom){.type = OVSDB_REAL, .real = json_node_get_double(n)};
    else if (type == G_TYPE_BOOLEAN)
        *a = (struct ovsdb_atom){.type = OVSDB_BOOLEAN, .boolean = json_node_get_boolean(n)};
    else if (type != G_TYPE_STRING || strlen(json_node_get_string(n)) > OVSDB_TEXT_MAX)
        return "a value is a string that is too long, or nothing";
    else
        *a = (struct ovsdb_atom){.type = OVSDB_STRING, .text = g_strdup(json_node_get_string(n))};
    return NULL;
}

static const char *read_pair(struct ovsdb_datum *d, JsonNode *n)
{
    JsonArray *pair = JSON_NODE_HOLDS_ARRAY(n) ? json_node_get_array(n) : NULL;
    if (!pair || json_array_get_length(pair) != 2)
        return "a map's element is not a pair";
    const char *why = read_atom(&d->values[d->count], json_array_get_element(pair, 1));
    if (why)
        return why;
    why = read_atom(&d->keys[d->count], json_array_get_element(pair, 0));
    d->count++; /* a key that was not read is the integer 0 */
    return why;
}

static const char *read_elements(struct ovsdb_datum *d, JsonArray *from)
{
    unsigned count = json_array_get_length(from);
    if (count > OVSDB_ELEMENTS_MAX)
        return "a set or map has too many elements";
    d->keys = g_new0(struct ovsdb_atom, count);
    d->values = d->kind == OVSDB_MAP ? g_new0(struct ovsdb_atom, count) : NULL;
    for (unsigned i = 0; i < count; i++) {
        JsonNode *n = json_array_get_element(from, i);
        const char *why = d->kind == OVSDB_MAP ? read_pair(d, n) : read_atom(&d->keys[d->count], n);
        if (why)
            return why;
        if (d->kind == OVSDB_SET)
            d->count++;
    }
    return NULL;
}

const char *ovsdb_datum_parse(struct ovsdb_datum *ret, JsonNode *node)
{
    JsonArray *pair;
    const char *word = word_of(node, &pair), *why;
    bool set = !g_strcmp0(word, "set"), map = !g_strcmp0(word, "map");
    struct ovsdb_datum d = {.kind = set ? OVSDB_SET : map ? OVSDB_MAP : OVSDB_ATOM};
    if (set || map) {
        JsonNode *n = json_array_get_element(pair, 1);
        why = JSON_NODE_HOLDS_ARRAY(n) ? read_elements(&d, json_node_get_array(n))
                                       : "a set or map is not an array";
    } else {
        d.keys = g_new0(struct ovsdb_atom, 1);
        why = read_atom(d.keys, node);
        d.count = !why;
    }
    if (why)
        ovsdb_datum_done(&d);
    *ret = d;
    return why;
}

static void atoms_free(struct ovsdb_atom *atoms, unsigned count)
{
    for (unsigned i = 0; atoms && i < count; i++)
        if (atoms[i].type >= OVSDB_STRING)
            g_free(atoms[i].text);
    g_free(atoms);
}

void ovsdb_datum_done(struct ovsdb_datum *d)
{
    atoms_free(d->keys, d->count);
    atoms_free(d->values, d->count);
    *d = (struct ovsdb_datum){0};
}

const char *ovsdb_datum_text(const struct ovsdb_datum *d, enum ovsdb_atom_type type)
{
    bool one = d->kind != OVSDB_MAP && d->count == 1 && d->keys[0].type == type;
    return one && type >= OVSDB_STRING ? d->keys[0].text : NULL;
}

const char *ovsdb_datum_get(const struct ovsdb_datum *d, const char *key)
{
    for (unsigned i = 0; d->kind == OVSDB_MAP && i < d->count; i++)
        if (d->keys[i].type == OVSDB_STRING && d->values[i].type == OVSDB_STRING &&
            !strcmp(d->keys[i].text, key))
            return d->values[i].text;
    return NULL;
}

const char *ovsdb_row_get(JsonObject *row, const char *column, struct ovsdb_datum *ret)
{
    JsonNode *n = json_object_get_member(row, column);
    *ret = (struct ovsdb_datum){0};
    return n ? ovsdb_datum_parse(ret, n) : "a row lacks a column";
}

/* ---- writing ---- */

static JsonNode *array_node(JsonArray *a)
{
    JsonNode *n = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(n, a);
    return n;
}

static JsonNode *pair_of(JsonNode *first, JsonNode *second)
{
    JsonArray *pair = json_array_sized_new(2);
    json_array_add_element(pair, first);
    json_array_add_element(pair, second);
    return array_node(pair);
}

JsonNode *ovsdb_text(const char *text)
{
    return json_node_init_string(json_node_alloc(), text);
}

static JsonNode *wrapped(const char *word, JsonNode *value)
{
    return pair_of(ovsdb_text(word), value);
}

static JsonNode *atom_node(const struct ovsdb_atom *a)
{
    JsonNode *n = json_node_alloc();
    switch (a->type) {
    case OVSDB_INTEGER:
        return json_node_init_int(n, a->integer);
    case OVSDB_REAL:
        return json_node_init_double(n, a->real);
    case OVSDB_BOOLEAN:
        return json_node_init_boolean(n, a->boolean);
    case OVSDB_STRING:
        return json_node_init_string(n, a->text);
    case OVSDB_UUID:
        return wrapped("uuid", json_node_init_string(n, a->text));
    case OVSDB_NAMED_UUID:
        return wrapped("named-uuid", json_node_init_string(n, a->text));
    }
    return n;
}

JsonNode *ovsdb_datum_format(const struct ovsdb_datum *d)
{
    if (d->kind == OVSDB_ATOM)
        return atom_node(d->keys);
    JsonArray *all = json_array_sized_new(d->count);
    for (unsigned i = 0; i < d->count; i++) {
        JsonNode *key = atom_node(&d->keys[i]);
        json_array_add_element(all,
                               d->kind == OVSDB_MAP ? pair_of(key, atom_node(&d->values[i])) : key);
    }
    return wrapped(d->kind == OVSDB_MAP ? "map" : "set", array_node(all));
}

JsonNode *ovsdb_uuid(const char *uuid)
{
    return wrapped("uuid", ovsdb_text(uuid));
}

JsonNode *ovsdb_named(const char *name)
{
    return wrapped("named-uuid", ovsdb_text(name));
}

JsonNode *ovsdb_set(JsonNode *const *atoms, unsigned count)
{
    JsonArray *all = json_array_sized_new(count);
    for (unsigned i = 0; i < count; i++)
        json_array_add_element(all, atoms[i]);
    return wrapped("set", array_node(all));
}

JsonNode *ovsdb_integers(const int64_t *numbers, unsigned count)
{
    JsonArray *all = json_array_sized_new(count);
    for (unsigned i = 0; i < count; i++)
        json_array_add_int_element(all, numbers[i]);
    return wrapped("set", array_node(all));
}

JsonNode *ovsdb_map(const char *const *pairs)
{
    JsonArray *all = json_array_new();
    for (; *pairs; pairs += 2)
        if (*pairs[1])
            json_array_add_element(all, pair_of(ovsdb_text(pairs[0]), ovsdb_text(pairs[1])));
    return wrapped("map", array_node(all));
}
