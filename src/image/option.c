/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options from tables: typed JSON or text in, members of a struct out.
 *
 * Thread    Any.
 * Trust     Names and values are a user's or a QMP peer's: lengths and nesting of text are bounded.
 */
#include "image/option.h"

#include "base/units.h"

#include <string.h>

enum { KEY_PART_MAX = 127, KEY_DEPTH_MAX = 32 };

/* One value on its way into its row's member. */
struct setting {
    const struct image_option *row;
    const char *what; /* begins messages */
    void *member;
    JsonNode *value;
    const char *text; /* the value when it is a string, or NULL */
};

static bool refuse(const struct setting *s, GError **error, const char *expected)
{
    g_autofree char *shown = s->text ? g_strdup(s->text) : json_to_string(s->value, false);
    return ruche_error(error, RUCHE_ERR_INVALID, "%s: %s='%s' is not %s", s->what, s->row->name,
                       shown, expected);
}

static bool set_string(const struct setting *s, GError **error)
{
    if (!s->text)
        return refuse(s, error, "a string");
    char **member = s->member;
    g_free(*member);
    *member = g_strdup(s->text);
    return true;
}

static bool set_bool(const struct setting *s, GError **error)
{
    static const char *const words[] = {"off", "on", "no", "yes", "false", "true", "n", "y"};
    bool *member = s->member;
    if (json_node_get_value_type(s->value) == G_TYPE_BOOLEAN) {
        *member = json_node_get_boolean(s->value);
        return true;
    }
    for (unsigned i = 0; s->text && i < ARRAY_COUNT(words); i++) {
        if (!strcmp(s->text, words[i])) {
            *member = i & 1;
            return true;
        }
    }
    return refuse(s, error, "on or off");
}

static char *format_number(const struct image_option *row, uint64_t v)
{
    return row->kind == OPTION_SIZE ? g_strdup(units_format_size(v))
                                    : g_strdup_printf("%" G_GUINT64_FORMAT, v);
}

static bool set_number(const struct setting *s, GError **error)
{
    const struct image_option *row = s->row;
    uint64_t v;
    if (json_node_get_value_type(s->value) == G_TYPE_INT64) {
        if (json_node_get_int(s->value) < 0)
            return refuse(s, error, "a positive number");
        v = (uint64_t)json_node_get_int(s->value);
    } else if (row->kind == OPTION_SIZE) {
        if (!s->text || !units_parse_size(s->text, 1, &v))
            return refuse(s, error, "a size; use a number with k, M, G, T, P or E");
    } else if (!s->text || !units_parse_u64(s->text, &v)) {
        return refuse(s, error, "a number");
    }
    if (v < row->min || (row->max && v > row->max)) {
        g_autofree char *low = format_number(row, row->min), *high = format_number(row, row->max);
        g_autofree char *range = row->max ? g_strdup_printf("between %s and %s", low, high)
                                          : g_strdup_printf("at least %s", low);
        return refuse(s, error, range);
    }
    *(uint64_t *)s->member = v;
    return true;
}

static bool set_word(const struct setting *s, GError **error)
{
    const char *const *words = s->row->words;
    for (unsigned i = 0; s->text && words[i]; i++) {
        if (!strcmp(s->text, words[i])) {
            *(int *)s->member = (int)i;
            return true;
        }
    }
    g_autofree char *all = g_strjoinv(", ", (char **)words);
    g_autofree char *expected =
        g_strdup_printf("one of %s%s", all, s->text ? suggest_phrase(s->text, words) : "");
    return refuse(s, error, expected);
}

static bool set_json(const struct setting *s, GError **error)
{
    *(JsonNode **)s->member = json_node_copy(s->value);
    return true;
}

static void set_default(const struct image_option *row, void *member)
{
    switch (row->kind) {
    case OPTION_STRING:
        *(char **)member = NULL;
        break;
    case OPTION_JSON:
        *(JsonNode **)member = NULL;
        break;
    case OPTION_BOOL:
        *(bool *)member = row->def;
        break;
    case OPTION_U64:
    case OPTION_SIZE:
        *(uint64_t *)member = row->def;
        break;
    case OPTION_WORD:
        *(int *)member = (int)row->def;
        break;
    }
}

static bool (*const setters[])(const struct setting *s, GError **error) = {
    [OPTION_STRING] = set_string, [OPTION_BOOL] = set_bool, [OPTION_U64] = set_number,
    [OPTION_SIZE] = set_number,   [OPTION_WORD] = set_word, [OPTION_JSON] = set_json,
};

/* The member that a row names: "a.b" may be typed flat, or be member b of object a. NULL: not
 * given. */
static JsonNode *find_member(JsonObject *from, const char *name)
{
    JsonNode *value = json_object_get_member(from, name);
    const char *dot = strchr(name, '.');
    if (value || !dot)
        return value;
    g_autofree char *part = g_strndup(name, (size_t)(dot - name));
    JsonNode *inner = json_object_get_member(from, part);
    return inner && JSON_NODE_HOLDS_OBJECT(inner)
               ? find_member(json_node_get_object(inner), dot + 1)
               : NULL;
}

/* Removes it, and the objects that held nothing else. */
static void remove_member(JsonObject *from, const char *name)
{
    const char *dot = strchr(name, '.');
    if (json_object_has_member(from, name) || !dot) {
        json_object_remove_member(from, name);
        return;
    }
    g_autofree char *part = g_strndup(name, (size_t)(dot - name));
    JsonObject *inner = json_object_get_object_member(from, part);
    remove_member(inner, dot + 1);
    if (!json_object_get_size(inner))
        json_object_remove_member(from, part);
}

bool option_parse(const struct image_option *rows, JsonObject *from, const char *what, void *target,
                  GError **error)
{
    for (const struct image_option *row = rows; row && row->name; row++)
        set_default(row, (char *)target + row->offset);
    for (const struct image_option *row = rows; row && row->name; row++) {
        JsonNode *value = from ? find_member(from, row->name) : NULL;
        if (!value)
            continue;
        struct setting s = {
            .row = row, .what = what, .member = (char *)target + row->offset, .value = value};
        if (JSON_NODE_HOLDS_VALUE(value))
            s.text = json_node_get_string(value); /* NULL when it is no string */
        if (!setters[row->kind](&s, error)) {
            option_clear(rows, target);
            return false;
        }
        remove_member(from, row->name);
    }
    return true;
}

void option_clear(const struct image_option *rows, void *target)
{
    for (const struct image_option *row = rows; row && row->name; row++) {
        void *member = (char *)target + row->offset;
        if (row->kind == OPTION_STRING)
            g_clear_pointer((char **)member, g_free);
        else if (row->kind == OPTION_JSON)
            g_clear_pointer((JsonNode **)member, json_node_unref);
    }
}

bool option_all_used(JsonObject *left, const struct image_option *rows, const char *const *extra,
                     const char *what, GError **error)
{
    if (!left || !json_object_get_size(left))
        return true;
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    for (const struct image_option *row = rows; row && row->name; row++)
        g_ptr_array_add(names, (void *)row->name);
    for (; extra && *extra; extra++)
        g_ptr_array_add(names, (void *)*extra);
    g_ptr_array_add(names, NULL);
    g_autoptr(GList) members = json_object_get_members(left);
    const char *unknown = members->data;
    return ruche_error(error, RUCHE_ERR_UNKNOWN, "%s: unknown option '%s'%s", what, unknown,
                       suggest_phrase(unknown, (const char *const *)names->pdata));
}

/* ---- "a=1,b.c=2" ---- */

/* The text up to the next single comma, with double ones halved; *at moves behind it. Caller frees.
 */
static char *take_value(const char **at)
{
    GString *value = g_string_new(NULL);
    const char *p = *at;
    while (*p && (p[0] != ',' || p[1] == ',')) {
        p += *p == ',';
        g_string_append_c(value, *p++);
    }
    *at = p + (*p == ',');
    return g_string_free(value, FALSE);
}

static bool bad_key(const char *key, size_t len, GError **error)
{
    return ruche_error(
        error, RUCHE_ERR_INVALID,
        "'%.*s' is not the name of an option; use letters, digits, '-', '_' and single dots",
        (int)MIN(len, 200), key);
}

/* Puts value under the dotted key, making the objects in between. */
static bool add_dotted(JsonObject *to, const char *key, size_t key_len, const char *value,
                       GError **error)
{
    const char *end = key + key_len;
    for (unsigned depth = 0;; depth++) {
        const char *dot = memchr(key, '.', (size_t)(end - key));
        size_t len = (size_t)((dot ? dot : end) - key);
        if (!len || len > KEY_PART_MAX || depth >= KEY_DEPTH_MAX)
            return bad_key(end - key_len, key_len, error);
        g_autofree char *part = g_strndup(key, len);
        JsonNode *there = json_object_get_member(to, part);
        if (there && JSON_NODE_HOLDS_OBJECT(there) != (dot != NULL))
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "option '%.*s' cannot have a value and members at once",
                               (int)MIN((size_t)(key + len - (end - key_len)), 200), end - key_len);
        if (!dot) {
            json_object_set_string_member(to, part, value);
            return true;
        }
        if (!there)
            json_object_set_object_member(to, part, json_object_new());
        to = json_object_get_object_member(to, part);
        key = dot + 1;
    }
}

JsonObject *option_parse_text(const char *text, const char *first_key, GError **error)
{
    g_autoptr(JsonObject) all = json_object_new();
    for (const char *at = text; *at; first_key = NULL) {
        size_t len =
            strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
        const char *key = at;
        if (at[len] == '=') {
            at += len + 1;
        } else if (first_key) {
            key = first_key;
            len = strlen(first_key);
        } else {
            g_autofree char *word = take_value(&at);
            ruche_error(error, RUCHE_ERR_INVALID, "'%s' lacks a value; write name=value", word);
            return NULL;
        }
        g_autofree char *value = take_value(&at);
        if (!add_dotted(all, key, len, value, error))
            return NULL;
    }
    return g_steal_pointer(&all);
}

/* ---- help ---- */

static char *describe_values(const struct image_option *row)
{
    static const char *const kinds[] = {
        [OPTION_STRING] = "str", [OPTION_BOOL] = "on|off", [OPTION_U64] = "num",
        [OPTION_SIZE] = "size",  [OPTION_JSON] = "json",
    };
    bool unset = row->kind == OPTION_WORD && !*row->words[0]; /* a first word that nobody types */
    return row->kind == OPTION_WORD ? g_strjoinv("|", (char **)row->words + unset)
                                    : g_strdup(kinds[row->kind]);
}

/* " (default 64 KiB)", or "" where it would tell nothing. */
static char *describe_default(const struct image_option *row)
{
    g_autofree char *shown = NULL;
    if (row->kind == OPTION_BOOL)
        shown = g_strdup(row->def ? "on" : "off");
    else if (row->kind == OPTION_WORD)
        shown = g_strdup(row->words[row->def]);
    else if (row->def)
        shown = format_number(row, row->def);
    return shown && *shown ? g_strdup_printf(" (default %s)", shown) : g_strdup("");
}

static gint compare_lines(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void add_lines(GPtrArray *lines, const struct image_option *rows, const char *const *names,
                      const char *prefix)
{
    for (const struct image_option *row = rows; row && row->name; row++) {
        if (names && !g_strv_contains(names, row->name))
            continue;
        g_autofree char *values = describe_values(row), *def = describe_default(row);
        g_autofree char *usage = g_strdup_printf("%s%s=<%s>", prefix, row->name, values);
        g_ptr_array_add(lines, g_strdup_printf("  %-24s - %s%s\n", usage, row->help, def));
    }
}

char *option_help_some(const struct image_option *rows, const char *const *names,
                       const struct image_option *more, const char *prefix)
{
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
    add_lines(lines, rows, names, "");
    add_lines(lines, more, NULL, prefix ? prefix : "");
    g_ptr_array_sort(lines, compare_lines);
    g_ptr_array_add(lines, NULL);
    return g_strjoinv("", (char **)lines->pdata);
}

char *option_help(const struct image_option *rows)
{
    return option_help_some(rows, NULL, NULL, NULL);
}
