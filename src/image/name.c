/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of images: a path, a URL, "json:{...}", "DRIVER:rest"; names relative to another image.
 *
 * Thread    Any.
 * Trust     Names may come out of images: what they may reach is the graph's policy.
 */
#include "image/graph.h"

#include <string.h>
#include <sys/stat.h>

static JsonNode *copy_node(JsonNode *from);

JsonObject *options_copy(JsonObject *from)
{
    JsonObject *to = json_object_new();
    if (!from)
        return to;
    JsonObjectIter it;
    const char *name;
    JsonNode *value;
    json_object_iter_init(&it, from);
    while (json_object_iter_next(&it, &name, &value))
        json_object_set_member(to, name, copy_node(value));
    return to;
}

static JsonNode *copy_node(JsonNode *from)
{
    if (JSON_NODE_HOLDS_OBJECT(from)) {
        JsonNode *n = json_node_new(JSON_NODE_OBJECT);
        json_node_take_object(n, options_copy(json_node_get_object(from)));
        return n;
    }
    if (JSON_NODE_HOLDS_ARRAY(from)) {
        JsonArray *a = json_array_new(), *old = json_node_get_array(from);
        for (guint k = 0; k < json_array_get_length(old); k++)
            json_array_add_element(a, copy_node(json_array_get_element(old, k)));
        JsonNode *n = json_node_new(JSON_NODE_ARRAY);
        json_node_take_array(n, a);
        return n;
    }
    return json_node_copy(from);
}

/* Names come out of images, and the parser takes a call a level of a fiber's small stack. All braces are counted,
 * whether they nest or not: what is a string or a comment only the parser knows. */
#define JSON_BRACES_MAX 256

static bool has_too_many_braces(const char *text)
{
    unsigned count = 0;
    for (; *text; text++)
        count += *text == '{' || *text == '[';
    return count > JSON_BRACES_MAX;
}

static JsonObject *parse_json_name(const char *text, GError **error)
{
    if (has_too_many_braces(text)) {
        ruche_error(error, RUCHE_ERR_INVALID, "json:%.40s... has more than %d braces", text, JSON_BRACES_MAX);
        return NULL;
    }
    g_autoptr(JsonParser) p = json_parser_new();
    g_autoptr(GError) why = NULL;
    if (!json_parser_load_from_data(p, text, -1, &why)) {
        ruche_error(error, RUCHE_ERR_INVALID, "json:%s is not valid JSON: %s", text, why->message);
        return NULL;
    }
    JsonNode *root = json_parser_get_root(p);
    if (!root || !JSON_NODE_HOLDS_OBJECT(root)) {
        ruche_error(error, RUCHE_ERR_INVALID, "json:%s is not an object", text);
        return NULL;
    }
    return options_copy(json_node_get_object(root));
}

static bool is_block_device(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

JsonObject *name_to_options(const char *filename, GError **error)
{
    if (!filename || !*filename) {
        ruche_error(error, RUCHE_ERR_INVALID, "an image needs a file name");
        return NULL;
    }
    if (g_str_has_prefix(filename, "json:"))
        return parse_json_name(filename + 5, error);
    const struct image_driver *d = NULL;
    if (!driver_of_scheme(filename, &d, error))
        return NULL;
    JsonObject *o = json_object_new();
    if (d && d->parse_name) {
        json_object_set_string_member(o, "driver", d->name);
        if (!d->parse_name(filename, o, error))
            g_clear_pointer(&o, json_object_unref);
        return o;
    }
    const char *path = g_str_has_prefix(filename, "file:") ? filename + 5 : filename;
    json_object_set_string_member(o, "driver", is_block_device(path) ? "host_device" : "file");
    json_object_set_string_member(o, "filename", path);
    return o;
}

static bool has_scheme(const char *filename)
{
    return g_str_has_prefix(filename, "json:") || driver_has_scheme(filename);
}

char *name_beside(const char *base, const char *filename)
{
    if (*filename == '/' || has_scheme(filename))
        return g_strdup(filename);
    if (!base || !*base || g_str_has_prefix(base, "json:"))
        return NULL;
    const char *slash = strrchr(base, '/');
    if (!slash)
        return g_strdup(filename);
    return g_strdup_printf("%.*s%s", (int)(slash - base) + 1, base, filename);
}

char *node_resolve_name(const struct node *n, const char *filename)
{
    return name_beside(n->filename, filename);
}
