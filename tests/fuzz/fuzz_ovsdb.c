/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an OVSDB server or client sends: the first byte is how many bytes come at a time. Every
 * value in a message that is taken comes out again as it came in.
 */
#include "base/json_frame.h"
#include "ovsdb/message.h"
#include "ovsdb/value.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_value(JsonNode *n)
{
    auto_ovsdb_datum d = {0}, again = {0};
    if (ovsdb_datum_parse(&d, n))
        return;
    g_autoptr(JsonNode) out = ovsdb_datum_format(&d);
    if (ovsdb_datum_parse(&again, out) || again.kind != d.kind || again.count != d.count)
        __builtin_trap();
}

/* The frame bounds the depth. */
static void walk(JsonNode *n)
{
    try_value(n);
    g_autoptr(GList) inner = NULL;
    if (JSON_NODE_HOLDS_ARRAY(n))
        inner = json_array_get_elements(json_node_get_array(n));
    else if (JSON_NODE_HOLDS_OBJECT(n))
        inner = json_object_get_values(json_node_get_object(n));
    for (GList *l = inner; l; l = l->next)
        walk(l->data);
}

static void take(const GString *text)
{
    struct ovsdb_message m, again;
    if (ovsdb_message_parse(&m, text->str, text->len))
        return;
    g_autofree char *answer =
        m.kind == OVSDB_NOTIFICATION ? NULL : ovsdb_response_text(m.id, m.result, m.error);
    if (answer && ovsdb_message_parse(&again, answer, strlen(answer)))
        __builtin_trap();
    if (answer)
        ovsdb_message_done(&again);
    walk(m.root);
    ovsdb_message_done(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame f;
    if (size < 2 || size > 1 << 16)
        return 0;
    size_t chunk = data[0] ? data[0] : size;
    frame_init(&f, 1 << 15, OVSDB_DEPTH_MAX);
    for (size_t at = 1; at < size; at += chunk) {
        const char *p = (const char *)data + at, *why;
        size_t len = MIN(chunk, size - at);
        while (len)
            if (frame_feed(&f, &p, &len, &why) == FRAME_TEXT)
                take(f.text);
    }
    frame_done(&f);
    return 0;
}
