/* SPDX-License-Identifier: GPL-2.0-or-later */
/* key=value lists; see keyval.h. */
#include "vmm/keyval.h"

#include "base/json_frame.h"
#include "base/units.h"

#include <json-glib/json-glib.h>
#include <string.h>

#define JSON_MAX_DEPTH 16

void kv_list_free(struct kv_list *l)
{
    if (!l)
        return;
    for (size_t i = 0; i < l->count; i++) {
        g_free(l->pairs[i].key);
        g_free(l->pairs[i].value);
    }
    g_free(l->pairs);
    g_free(l);
}

/* Takes key and value over, also when it fails. */
static bool add_taken(struct kv_list *l, char *key, char *value, bool alone, GError **error)
{
    if (l->count == KV_MAX_PAIRS || strlen(key) > KV_MAX_KEY) {
        if (l->count == KV_MAX_PAIRS)
            ruche_error(error, RUCHE_ERR_INVALID, "more than %d properties in one option",
                        KV_MAX_PAIRS);
        else
            ruche_error(error, RUCHE_ERR_INVALID,
                        "property name '%.20s...' is longer than %d characters", key, KV_MAX_KEY);
        g_free(key);
        g_free(value);
        return false;
    }
    if (l->count == l->room) {
        l->room = l->room ? l->room * 2 : 8;
        l->pairs = g_renew(struct kv, l->pairs, l->room);
    }
    l->pairs[l->count++] = (struct kv){ .key = key, .value = value, .alone = alone };
    return true;
}

bool kv_add(struct kv_list *l, const char *key, const char *value, GError **error)
{
    return add_taken(l, g_strdup(key), g_strdup(value), false, error);
}

/* The value at *p up to a single comma; ",," stands for a comma. Leaves *p behind the comma or at
 * the end. */
static char *take_value(const char **p)
{
    GString *s = g_string_new(NULL);
    const char *c = *p;
    for (; *c; c++) {
        if (*c == ',') {
            if (c[1] != ',')
                break;
            c++;
        }
        g_string_append_c(s, *c);
    }
    *p = *c ? c + 1 : c;
    return g_string_free(s, FALSE);
}

/* A word that stands alone and is no implied value: a switch. */
static bool add_switch(struct kv_list *l, char *word, GError **error)
{
    if (g_str_has_prefix(word, "no") && (!strcmp(word, "nowait") || !strcmp(word, "nodelay"))) {
        bool delay = !strcmp(word, "nodelay");
        char *key = g_strdup(delay ? word : word + 2);
        g_free(word);
        return add_taken(l, key, g_strdup(delay ? "on" : "off"), true, error);
    }
    return add_taken(l, word, g_strdup("on"), true, error);
}

static bool parse_text(struct kv_list *l, const char *p, const char *implied, GError **error)
{
    for (bool first = true; *p; first = false) {
        size_t len = strcspn(p, "=,");
        bool doubled = p[len] == ',' && p[len + 1] == ',';
        if (p[len] == '=') {
            if (len == 0)
                return ruche_error(error, RUCHE_ERR_INVALID, "'%.40s' lacks a name before '='", p);
            char *key = g_strndup(p, len);
            p += len + 1;
            if (!add_taken(l, key, take_value(&p), false, error))
                return false;
            continue;
        }
        if (len == 0 && !doubled) { /* an empty item: ",," cannot be here, a stray comma can */
            if (!first || !implied)
                return ruche_error(error, RUCHE_ERR_INVALID, "empty property before '%.40s'", p);
        }
        char *word = take_value(&p);
        if (first && implied) {
            if (!add_taken(l, g_strdup(implied), word, true, error))
                return false;
        } else if (!add_switch(l, word, error)) {
            return false;
        }
    }
    return true;
}

static bool add_json(struct kv_list *l, const char *prefix, JsonNode *node, GError **error);

static bool add_json_member(struct kv_list *l, const char *prefix, const char *name, JsonNode *node,
                            GError **error)
{
    g_autofree char *key = *prefix ? g_strdup_printf("%s.%s", prefix, name) : g_strdup(name);
    return add_json(l, key, node, error);
}

static bool add_json_scalar(struct kv_list *l, const char *key, JsonNode *node, GError **error)
{
    switch (json_node_get_value_type(node)) {
    case G_TYPE_STRING:
        return kv_add(l, key, json_node_get_string(node), error);
    case G_TYPE_BOOLEAN:
        return kv_add(l, key, json_node_get_boolean(node) ? "on" : "off", error);
    case G_TYPE_INT64:
        return add_taken(l, g_strdup(key),
                         g_strdup_printf("%" G_GINT64_FORMAT, json_node_get_int(node)), false,
                         error);
    case G_TYPE_DOUBLE: {
        char buf[G_ASCII_DTOSTR_BUF_SIZE];
        return kv_add(l, key, g_ascii_dtostr(buf, sizeof(buf), json_node_get_double(node)), error);
    }
    default:
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "the value of '%s' is of no kind that options have", key);
    }
}

static bool add_json(struct kv_list *l, const char *prefix, JsonNode *node, GError **error)
{
    if (JSON_NODE_HOLDS_OBJECT(node)) {
        JsonObjectIter it;
        const char *name;
        JsonNode *child;
        json_object_iter_init_ordered(&it, json_node_get_object(node));
        while (json_object_iter_next_ordered(&it, &name, &child))
            if (!add_json_member(l, prefix, name, child, error))
                return false;
        return true;
    }
    if (JSON_NODE_HOLDS_ARRAY(node)) {
        JsonArray *a = json_node_get_array(node);
        for (guint i = 0; i < json_array_get_length(a); i++) {
            char name[16];
            g_snprintf(name, sizeof(name), "%u", i);
            if (!add_json_member(l, prefix, name, json_array_get_element(a, i), error))
                return false;
        }
        return true;
    }
    if (JSON_NODE_HOLDS_NULL(node))
        return true;
    return add_json_scalar(l, prefix, node, error);
}

static bool parse_json(struct kv_list *l, const char *text, GError **error)
{
    const char *why = frame_check(text, strlen(text), KV_MAX_TEXT, JSON_MAX_DEPTH);
    if (why)
        return ruche_error(error, RUCHE_ERR_INVALID, "bad JSON: %s", why);
    g_autoptr(GError) local = NULL;
    g_autoptr(JsonParser) parser = json_parser_new_immutable();
    if (!json_parser_load_from_data(parser, text, -1, &local))
        return ruche_error(error, RUCHE_ERR_INVALID, "bad JSON: %s", local->message);
    JsonNode *root = json_parser_get_root(parser);
    if (!root || !JSON_NODE_HOLDS_OBJECT(root))
        return ruche_error(error, RUCHE_ERR_INVALID, "the JSON text is not an object");
    return add_json(l, "", root, error);
}

struct kv_list *kv_parse(const char *text, const char *implied, GError **error)
{
    if (strlen(text) > KV_MAX_TEXT) {
        ruche_error(error, RUCHE_ERR_INVALID, "an option's text is longer than %u bytes",
                    KV_MAX_TEXT);
        return NULL;
    }
    struct kv_list *l = g_new0(struct kv_list, 1);
    if (text[0] == '{' ? parse_json(l, text, error) : parse_text(l, text, implied, error))
        return l;
    kv_list_free(l);
    return NULL;
}

const char *kv_get(const struct kv_list *l, const char *key)
{
    const char *value = NULL;
    for (size_t i = 0; i < l->count; i++) {
        if (!strcmp(l->pairs[i].key, key))
            value = l->pairs[i].value;
    }
    return value;
}

bool kv_has(const struct kv_list *l, const char *key)
{
    for (size_t i = 0; i < l->count; i++)
        if (!strcmp(l->pairs[i].key, key))
            return true;
    return false;
}

bool kv_wants_help(const struct kv_list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct kv *p = &l->pairs[i];
        if (!p->alone)
            continue;
        if (!strcmp(p->key, "help") || !strcmp(p->key, "?"))
            return true;
        if (i == 0 && (!strcmp(p->value, "help") || !strcmp(p->value, "?")))
            return true;
    }
    return false;
}

bool parse_on_off(const char *text, bool *ret)
{
    static const char *const words[][2] = {
        { "off", "on" }, { "no", "yes" }, { "false", "true" }, { "n", "y" },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        for (int v = 0; v < 2; v++)
            if (!strcmp(text, words[i][v])) {
                *ret = v;
                return true;
            }
    return false;
}

bool kv_get_bool(const struct kv_list *l, const char *key, bool *ret, GError **error)
{
    const char *text = kv_get(l, key);
    if (!text || parse_on_off(text, ret))
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID, "'%s' must be on or off, not '%s'", key, text);
}

bool kv_get_u64(const struct kv_list *l, const char *key, uint64_t min, uint64_t max, uint64_t *ret,
                GError **error)
{
    const char *text = kv_get(l, key);
    uint64_t v;
    if (!text)
        return true;
    if (!units_parse_u64(text, &v) || v < min || v > max)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s' must be a number from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT
                           ", not '%s'",
                           key, min, max, text);
    *ret = v;
    return true;
}

bool kv_get_size(const struct kv_list *l, const char *key, uint64_t unit, uint64_t *ret, GError **error)
{
    const char *text = kv_get(l, key);
    if (!text || units_parse_size(text, unit, ret))
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "'%s' is no size for '%s'; use a number with K, M, G or T", text, key);
}

bool kv_get_word(const struct kv_list *l, const char *key, const char *const *words, int *ret,
                 GError **error)
{
    const char *text = kv_get(l, key);
    if (!text)
        return true;
    for (int i = 0; words[i]; i++)
        if (!strcmp(text, words[i])) {
            *ret = i;
            return true;
        }
    g_autofree char *list = g_strjoinv(", ", (char **)words);
    return ruche_error(error, RUCHE_ERR_INVALID, "'%s' must be one of %s, not '%s'", key, list,
                       text);
}

bool kv_check_known(const struct kv_list *l, const char *const *known, GError **error)
{
    for (size_t i = 0; i < l->count; i++) {
        const char *key = l->pairs[i].key;
        if (!g_strv_contains(known, key))
            return ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown property '%s'%s", key,
                               suggest_phrase(key, known));
    }
    return true;
}

bool kv_check_id(const char *id, GError **error)
{
    bool ok = g_ascii_isalpha(id[0]);
    for (const char *p = id; *p && ok; p++)
        ok = g_ascii_isalnum(*p) || strchr("-._", *p);
    if (ok)
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "'%s' is not an id; use a letter, then letters, digits, '-', '.' and '_'",
                       id);
}
