/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A REST request up to its operation: method and path on the first line, then the body. */
#include "web/op.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static JsonNode *nothing(struct web_request *r, GError **error)
{
    return NULL;
}

static const struct web_field fields[] = {
    { "memory", WEB_SIZE, true, 1 << 20, INT64_MAX, "a size" }, { "cpus", WEB_INT, false, -8, 8, "a number" },
    { "on", WEB_BOOL, false, 0, 0, "a switch" },                { "keys", WEB_STRINGS, false, 0, 0, "texts" },
    { "title", WEB_STRING, false, 0, 0, "a text" },             { 0 },
};
WEB_OP(fuzz_list, .method = "GET", .path = "/a", .summary = "", .fields = fields, .call = nothing);
WEB_OP(fuzz_set, .method = "POST", .path = "/a/{name}/b/{part}", .summary = "", .fields = fields, .call = nothing);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = memchr(data, '\n', size);
    size_t line = end ? (size_t)(end - data) : size;
    g_autofree char *head = g_strndup((const char *)data, line);
    g_autoptr(JsonObject) args = json_object_new();
    unsigned status;
    char *path = strchr(head, ' ');
    if (!path)
        return 0;
    *path++ = 0;
    const struct web_op *op = web_route(head, path, args, &status);
    if (!op || (end && !web_add_json(args, (const char *)end + 1, size - line - 1, NULL)) || !web_check_args(op, args, NULL))
        return 0;
    struct web_request r = { .args = args };
    int64_t memory = web_int(&r, "memory", 0);
    if (memory < 1 << 20 || web_int(&r, "cpus", 0) > 8)
        __builtin_trap(); /* an argument outside its row's range came through */
    return 0;
}
