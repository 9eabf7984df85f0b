/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A QMP session: the first byte is how many bytes come at a time, the rest is what the peer sends.
 * Whatever comes back must be whole lines of JSON.
 */
#include "qmp/qmp.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static JsonNode *echo(void *opaque, JsonObject *args, GError **error)
{
    JsonNode *n = json_node_new(JSON_NODE_OBJECT);
    json_node_set_object(n, args);
    return n;
}
static const struct qmp_arg echo_args[] = {
    { "s", QMP_STRING, true, "" }, { "i", QMP_INT, true, "" },   { "b", QMP_BOOL, true, "" },
    { "n", QMP_NUMBER, true, "" }, { "o", QMP_OBJECT, true, "" }, { "a", QMP_ARRAY, true, "" },
    { 0 },
};
static const struct qmp_command echo_cmd = { .name = "e", .args = echo_args, .call = echo };
QMP_COMMAND(echo_cmd);

static size_t take(void *opaque, const void *data, size_t len)
{
    g_string_append_len(opaque, data, len);
    return len;
}

static void check_lines(GString *out)
{
    g_auto(GStrv) lines = g_strsplit(out->str, "\r\n", -1);
    if (out->len && !g_str_has_suffix(out->str, "\r\n"))
        __builtin_trap();
    for (char **l = lines; *l && **l; l++) {
        g_autoptr(JsonParser) p = json_parser_new();
        if (!json_parser_load_from_data(p, *l, -1, NULL))
            __builtin_trap();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 1 << 16)
        return 0;
    size_t chunk = data[0] ? data[0] : size;
    g_autoptr(GString) out = g_string_new(NULL);
    struct qmp_server *s = qmp_server_new(NULL);
    const struct qmp_transport t = { .write = take, .opaque = out };
    struct qmp_session *q = qmp_session_new(s, &t);
    qmp_session_receive(q, "{\"execute\":\"qmp_capabilities\"}", 30);
    for (size_t at = 1; at < size; at += chunk)
        qmp_session_receive(q, data + at, MIN(chunk, size - at));
    qmp_event(s, "TEST", NULL);
    check_lines(out);
    qmp_session_free(q);
    qmp_server_free(s);
    return 0;
}
