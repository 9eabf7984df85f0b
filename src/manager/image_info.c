/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ruche-img info --output=json` and what it answers. See image_info.h. */
#include "manager/image_info.h"

#include "manager/manager.h"

#include <json-glib/json-glib.h>

#define ANSWER_MAX (8u << 20)

static char *text_of(JsonObject *o, const char *name)
{
    JsonNode *n = json_object_get_member(o, name);
    return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_STRING
               ? g_strdup(json_node_get_string(n))
               : NULL;
}

static uint64_t number_of(JsonObject *o, const char *name)
{
    JsonNode *n = json_object_get_member(o, name);
    gint64 v = n && JSON_NODE_HOLDS_VALUE(n) ? json_node_get_int(n) : 0;
    return v > 0 ? (uint64_t)v : 0;
}

static bool flag_of(JsonObject *o, const char *name)
{
    JsonNode *n = json_object_get_member(o, name);
    return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_boolean(n);
}

static bool read_image(JsonNode *n, struct image_info *i)
{
    JsonObject *o = n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
    if (!o || !(i->format = text_of(o, "format")))
        return false;
    i->filename = text_of(o, "filename");
    i->backing = text_of(o, "full-backing-filename");
    if (!i->backing)
        i->backing = text_of(o, "backing-filename");
    i->backing_format = text_of(o, "backing-filename-format");
    i->virtual_size = number_of(o, "virtual-size");
    i->actual_size = number_of(o, "actual-size");
    i->encrypted = flag_of(o, "encrypted");
    return true;
}

static bool read_answer(const char *path, const char *text, struct image_info **ret, GError **error)
{
    g_autoptr(JsonNode) root = json_from_string(text, NULL);
    JsonArray *list = root && JSON_NODE_HOLDS_ARRAY(root) ? json_node_get_array(root) : NULL;
    unsigned count = list ? json_array_get_length(list) : 1;
    if (!count || count > IMAGE_CHAIN_MAX)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "'%s': its backing chain has %u images; 1 to %d are possible", path,
                           count, IMAGE_CHAIN_MAX);
    g_auto(image_info_list) images = g_new0(struct image_info, count + 1);
    for (unsigned i = 0; i < count; i++)
        if (!read_image(list ? json_array_get_element(list, i) : root, &images[i]))
            return ruche_error(error, RUCHE_ERR_IO, "'%s': ruche-img does not say what it is",
                               path);
    *ret = g_steal_pointer(&images);
    return true;
}

static bool ask(const atomic_bool *cancelled, const char *path, const char *format,
                const char *object, unsigned flags, int timeout_ms, struct image_info **ret_list,
                GError **error)
{
    const char *argv[11] = {manager.img, "info", "-U", "--output=json"};
    unsigned n = 4;
    g_autofree char *answer = NULL;
    if (flags & IMAGE_INFO_CHAIN)
        argv[n++] = "--backing-chain";
    if (format) {
        argv[n++] = "-f";
        argv[n++] = format;
    }
    if (object) {
        argv[n++] = "--object";
        argv[n++] = object;
    }
    argv[n++] = path;
    return task_run_program_until(cancelled, argv, NULL, ANSWER_MAX, timeout_ms, &answer, error) &&
           read_answer(path, answer, ret_list, error);
}

bool image_info_ask(const char *path, const char *format, unsigned flags, int timeout_ms,
                    struct image_info **ret_list, GError **error)
{
    return ask(NULL, path, format, NULL, flags, timeout_ms, ret_list, error);
}

bool image_info_ask_with(const char *path, const char *format, const char *object, int timeout_ms,
                         struct image_info **ret_list, GError **error)
{
    return ask(NULL, path, format, object, 0, timeout_ms, ret_list, error);
}

bool image_info_ask_job(struct job *j, const char *path, struct image_info **ret_list,
                        GError **error)
{
    return ask(&j->cancelled, path, NULL, NULL, 0, -1, ret_list, error);
}

void image_info_free(struct image_info *list)
{
    for (struct image_info *i = list; i && (i->format || i->filename); i++) {
        g_free(i->filename);
        g_free(i->format);
        g_free(i->backing);
        g_free(i->backing_format);
    }
    g_free(list);
}
