/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Authorization objects; see authz.h. */
#include "image/authz.h"

#include "base/log.h"

#include <fnmatch.h>
#include <string.h>

struct rule {
    char *match;
    bool glob, allow;
};

struct rules {
    struct rule *of;
    unsigned count;
    bool allow; /* whom no rule names */
};

struct authz {
    char *id;
    char *identity;     /* authz-simple */
    char *path;         /* authz-list-file that is read again at each use; NULL: rules are in `rules` */
    struct rules rules;
    struct authz *next; /* of the registry */
};

static GMutex registry_lock;
static struct authz *registry;

/* ---- properties: "rules.0.match" and the like, whichever way they were nested ---- */

#define DEPTH_MAX 4

static void flatten(GHashTable *flat, const char *prefix, JsonNode *n, unsigned depth)
{
    if (depth > DEPTH_MAX)
        return;
    if (JSON_NODE_HOLDS_OBJECT(n)) {
        JsonObjectIter it;
        const char *name;
        JsonNode *child;
        json_object_iter_init(&it, json_node_get_object(n));
        while (json_object_iter_next(&it, &name, &child)) {
            g_autofree char *key = *prefix ? g_strdup_printf("%s.%s", prefix, name) : g_strdup(name);
            flatten(flat, key, child, depth + 1);
        }
    } else if (JSON_NODE_HOLDS_ARRAY(n)) {
        JsonArray *a = json_node_get_array(n);
        for (guint i = 0; i < json_array_get_length(a) && i <= AUTHZ_RULES_MAX; i++) {
            g_autofree char *key = g_strdup_printf("%s.%u", prefix, i);
            flatten(flat, key, json_array_get_element(a, i), depth + 1);
        }
    } else if (JSON_NODE_HOLDS_VALUE(n)) {
        const char *text = json_node_get_string(n);
        g_hash_table_insert(flat, g_strdup(prefix),
                            g_strdup(text ? text : json_node_get_boolean(n) ? "on" : "off"));
    }
}

static GHashTable *flat_props(JsonObject *props)
{
    GHashTable *flat = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_autoptr(JsonNode) n = json_node_init_object(json_node_alloc(), props);
    flatten(flat, "", n, 0);
    return flat;
}

/* Takes a property out; NULL: it is not there. */
static char *take(GHashTable *flat, const char *key)
{
    char *stolen_key = NULL, *value = NULL;
    g_hash_table_steal_extended(flat, key, (gpointer *)&stolen_key, (gpointer *)&value);
    g_free(stolen_key);
    return value;
}

/* One of two words, the second of which means yes. */
static bool take_word(GHashTable *flat, const char *key, const char *no, const char *yes, bool *ret,
                      const char *what, GError **error)
{
    g_autofree char *value = take(flat, key);
    if (value && strcmp(value, no) && strcmp(value, yes))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: '%s' is '%s', not '%s' or '%s'", what, key, value, no,
                           yes);
    if (value)
        *ret = !strcmp(value, yes);
    return true;
}

static bool take_rule(GHashTable *flat, unsigned index, struct rule *r, const char *what, GError **error)
{
    g_autofree char *policy = g_strdup_printf("rules.%u.policy", index),
                    *format = g_strdup_printf("rules.%u.format", index);
    if (!g_hash_table_contains(flat, policy))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: '%s' is missing", what, policy);
    return take_word(flat, policy, "deny", "allow", &r->allow, what, error) &&
           take_word(flat, format, "exact", "glob", &r->glob, what, error);
}

static bool take_rules(GHashTable *flat, struct rules *r, const char *what, GError **error)
{
    if (!take_word(flat, "policy", "deny", "allow", &r->allow, what, error))
        return false;
    r->of = g_new0(struct rule, AUTHZ_RULES_MAX);
    for (;; r->count++) {
        g_autofree char *key = g_strdup_printf("rules.%u.match", r->count);
        char *match = take(flat, key);
        if (!match)
            return true;
        if (r->count == AUTHZ_RULES_MAX) {
            g_free(match);
            return ruche_error(error, RUCHE_ERR_INVALID, "%s: more than %d rules", what, AUTHZ_RULES_MAX);
        }
        r->of[r->count].match = match;
        if (!take_rule(flat, r->count, &r->of[r->count], what, error)) {
            r->count++;
            return false;
        }
    }
}

static bool all_taken(GHashTable *flat, const char *what, GError **error)
{
    GHashTableIter it;
    gpointer key;
    g_hash_table_iter_init(&it, flat);
    return !g_hash_table_iter_next(&it, &key, NULL) ||
           ruche_error(error, RUCHE_ERR_UNKNOWN, "%s: there is no property '%s'", what, (char *)key);
}

static void rules_clear(struct rules *r)
{
    for (unsigned i = 0; i < r->count; i++)
        g_free(r->of[i].match);
    g_free(r->of);
    *r = (struct rules){ 0 };
}

/* ---- files ---- */

static bool read_rules(const char *path, struct rules *r, GError **error)
{
    g_autofree char *text = NULL;
    gsize len = 0;
    if (!g_file_get_contents(path, &text, &len, error))
        return false;
    if (len > AUTHZ_FILE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is longer than %d bytes", path, AUTHZ_FILE_MAX);
    g_autoptr(GError) bad = NULL;
    g_autoptr(JsonNode) n = json_from_string(text, &bad);
    if (bad)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s': %s", path, bad->message);
    if (!n || !JSON_NODE_HOLDS_OBJECT(n))
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' holds no JSON object", path);
    g_autoptr(GHashTable) flat = flat_props(json_node_get_object(n));
    return take_rules(flat, r, path, error) && all_taken(flat, path, error);
}

/* ---- kinds ---- */

static bool fill_simple(struct authz *a, GHashTable *flat, const char *what, GError **error)
{
    a->identity = take(flat, "identity");
    return a->identity || ruche_error(error, RUCHE_ERR_INVALID, "%s: 'identity' is missing", what);
}

static bool fill_list(struct authz *a, GHashTable *flat, const char *what, GError **error)
{
    return take_rules(flat, &a->rules, what, error);
}

static bool fill_file(struct authz *a, GHashTable *flat, const char *what, GError **error)
{
    bool refresh = true;
    g_autofree char *path = take(flat, "filename");
    if (!path)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: 'filename' is missing", what);
    if (!take_word(flat, "refresh", "off", "on", &refresh, what, error) || !read_rules(path, &a->rules, error))
        return false;
    if (refresh)
        a->path = g_steal_pointer(&path);
    return true;
}

static const struct kind {
    const char *name;
    bool (*fill)(struct authz *a, GHashTable *flat, const char *what, GError **error);
} kinds[] = {
    { "authz-simple", fill_simple },
    { "authz-list", fill_list },
    { "authz-list-file", fill_file },
    { "authz-listfile", fill_file },
};

static const struct kind *find_kind(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++)
        if (!strcmp(kinds[i].name, name))
            return &kinds[i];
    return NULL;
}

bool authz_is_kind(const char *name)
{
    return find_kind(name) != NULL;
}

/* ---- the registry ---- */

static void authz_free(struct authz *a)
{
    g_free(a->id);
    g_free(a->identity);
    g_free(a->path);
    rules_clear(&a->rules);
    g_free(a);
}

static struct authz **slot(const char *id)
{
    struct authz **at = &registry;
    while (*at && strcmp((*at)->id, id))
        at = &(*at)->next;
    return at;
}

static bool put(struct authz *a, GError **error)
{
    g_autoptr(GMutexLocker) lock G_GNUC_UNUSED = g_mutex_locker_new(&registry_lock);
    struct authz **at = slot(a->id);
    if (*at)
        return ruche_error(error, RUCHE_ERR_EXISTS, "an object '%s' exists already", a->id);
    *at = a;
    return true;
}

bool authz_add(const char *kind, const char *id, JsonObject *props, GError **error)
{
    const struct kind *k = find_kind(kind);
    if (!k)
        return ruche_error(error, RUCHE_ERR_UNKNOWN, "'%s' is no kind of authorization", kind);
    g_autofree char *what = g_strdup_printf("%s '%s'", kind, id);
    g_autoptr(GHashTable) flat = flat_props(props);
    struct authz *a = g_new0(struct authz, 1);
    a->id = g_strdup(id);
    if (k->fill(a, flat, what, error) && all_taken(flat, what, error) && put(a, error))
        return true;
    authz_free(a);
    return false;
}

bool authz_remove(const char *id)
{
    g_autoptr(GMutexLocker) lock G_GNUC_UNUSED = g_mutex_locker_new(&registry_lock);
    struct authz **at = slot(id), *a = *at;
    if (!a)
        return false;
    *at = a->next;
    authz_free(a);
    return true;
}

/* ---- the question ---- */

static bool rules_allow(const struct rules *r, const char *name)
{
    for (unsigned i = 0; i < r->count; i++) {
        const struct rule *rule = &r->of[i];
        if (rule->glob ? !fnmatch(rule->match, name, 0) : !strcmp(rule->match, name))
            return rule->allow;
    }
    return r->allow;
}

static bool file_allows(const char *path, const char *name)
{
    g_autoptr(GError) error = NULL;
    struct rules r = { 0 };
    bool good = read_rules(path, &r, &error);
    if (!good)
        log_warn("authorization: %s: nobody is let in", error->message);
    bool allowed = good && rules_allow(&r, name);
    rules_clear(&r);
    return allowed;
}

bool authz_allows(const char *id, const char *name)
{
    g_autoptr(GMutexLocker) lock G_GNUC_UNUSED = g_mutex_locker_new(&registry_lock);
    const struct authz *a = *slot(id);
    if (!a || !name)
        return false;
    if (a->identity)
        return !strcmp(a->identity, name);
    return a->path ? file_allows(a->path, name) : rules_allow(&a->rules, name);
}
