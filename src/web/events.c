/* SPDX-License-Identifier: GPL-2.0-or-later */
/* GET /events: what changes, as it changes, in one answer that does not end.
 *
 * Spec      Server-sent events (WHATWG HTML, section 9.2). Thread: the loop thread.
 * Trust     A reader that lets WEB_MAX_BACKLOG bytes wait is dropped.
 */
#include "web/internal.h"

#include "base/util.h"
#include "manager/uuid.h"

#include <string.h>

#define ALIVE_S 15

struct reader {
    SoupServerMessage *msg;
    struct event_listener listener;
    size_t waiting; /* bytes that the connection has not taken */
    guint timer, dropping;
    gulong signals[2];
};

static GPtrArray *readers;

static const char *const class_words[EVENT_CLASSES] = { "domain", "network", "pool", "node-device", "secret" };
static const char *const domain_words[DOMAIN_EVENT_IDS] = {
    "lifecycle", "reboot", "rtc-change", "watchdog", "io-error", "graphics", "io-error-reason", "control-error",
    "block-job", "disk-change", "tray-change", "pmwakeup", "pmsuspend", "balloon-change", "pmsuspend-disk",
    "device-removed", "block-job-2", "tunable", "agent-lifecycle", "device-added", "migration-iteration",
    "job-completed", "device-removal-failed", "metadata-change", "block-threshold", "memory-failure",
    "memory-device-size-change",
};
static const char *const object_words[] = { "lifecycle", "refresh", "threshold" }; /* of what is no machine */
static const char *const lifecycle_words[] = {
    "defined", "undefined", "started", "suspended", "resumed", "stopped", "shutdown", "pmsuspended", "crashed",
};

static void reader_send(struct reader *r, char *text)
{
    r->waiting += strlen(text);
    soup_message_body_append_take(soup_server_message_get_response_body(r->msg), (guchar *)text, strlen(text));
    soup_server_message_unpause(r->msg);
}

static void reader_free(gpointer opaque)
{
    struct reader *r = opaque;
    event_unlisten(&r->listener);
    g_source_remove(r->timer);
    if (r->dropping)
        g_source_remove(r->dropping);
    for (size_t i = 0; i < G_N_ELEMENTS(r->signals); i++)
        g_signal_handler_disconnect(r->msg, r->signals[i]);
    g_object_unref(r->msg);
    g_free(r);
}

static void on_written(SoupServerMessage *msg, unsigned bytes, gpointer opaque)
{
    struct reader *r = opaque;
    r->waiting -= MIN(r->waiting, bytes);
}

static void on_finished(SoupServerMessage *msg, gpointer opaque)
{
    g_ptr_array_remove_fast(readers, opaque);
}

static JsonObject *describe(const struct event *e)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "class", class_words[e->class]);
    bool domain = e->class == EVENT_DOMAIN;
    const char *word = domain ? domain_words[e->id] : object_words[MIN(e->id, 2)];
    if (e->id == 1 && (e->class == EVENT_SECRET || e->class == EVENT_NODE_DEVICE))
        word = e->class == EVENT_SECRET ? "value-changed" : "update";
    json_object_set_string_member(o, "event", word);
    json_object_set_string_member(o, "name", e->name);
    if (e->uuid) {
        char text[UUID_TEXT_BYTES];
        uuid_format(e->uuid, text);
        json_object_set_string_member(o, "uuid", text);
    }
    if (e->id == 0) {
        if (domain && (size_t)e->event < G_N_ELEMENTS(lifecycle_words))
            json_object_set_string_member(o, "what", lifecycle_words[e->event]);
        json_object_set_int_member(o, "number", e->event);
        json_object_set_int_member(o, "detail", e->detail);
    }
    JsonArray *texts = json_array_new();
    for (size_t i = 0; i < G_N_ELEMENTS(e->text) && e->text[i]; i++)
        json_array_add_string_element(texts, e->text[i]);
    json_object_set_array_member(o, "texts", texts);
    if (e->number)
        json_object_set_int_member(o, "value", (int64_t)e->number);
    return o;
}

/* The one that does not read ends: not from on_event(), where the emitter's list is walked. */
static gboolean drop(gpointer opaque)
{
    struct reader *r = opaque;
    r->dropping = 0;
    g_autoptr(SoupServerMessage) msg = g_object_ref(r->msg);
    g_ptr_array_remove_fast(readers, r);
    web_drop(msg);
    soup_server_message_unpause(msg);
    return G_SOURCE_REMOVE;
}

static void on_event(void *opaque, const struct event *e)
{
    struct reader *r = opaque;
    if (e->class == EVENT_MONITOR)
        return;
    if (r->waiting > WEB_MAX_BACKLOG) {
        if (!r->dropping)
            r->dropping = g_idle_add(drop, r);
        return;
    }
    g_autoptr(JsonNode) node = web_node(describe(e));
    g_autofree char *json = json_to_string(node, FALSE);
    reader_send(r, g_strdup_printf("event: %s\ndata: %s\n\n", class_words[e->class], json));
}

/* So that both ends notice when the other is gone. */
static gboolean on_timer(gpointer opaque)
{
    reader_send(opaque, g_strdup(": alive\n\n"));
    return G_SOURCE_CONTINUE;
}

void web_events(SoupServerMessage *msg)
{
    if (!readers)
        readers = g_ptr_array_new_with_free_func(reader_free);
    struct reader *r = g_new0(struct reader, 1);
    r->msg = g_object_ref(msg);
    SoupMessageHeaders *h = soup_server_message_get_response_headers(msg);
    soup_server_message_set_status(msg, 200, NULL);
    soup_message_headers_set_encoding(h, SOUP_ENCODING_CHUNKED);
    soup_message_headers_set_content_type(h, "text/event-stream", NULL);
    soup_message_headers_replace(h, "Cache-Control", "no-cache");
    soup_message_body_set_accumulate(soup_server_message_get_response_body(msg), FALSE);
    r->signals[0] = g_signal_connect(msg, "wrote-body-data", G_CALLBACK(on_written), r);
    r->signals[1] = g_signal_connect(msg, "finished", G_CALLBACK(on_finished), r);
    r->listener = (struct event_listener){ .fn = on_event, .opaque = r };
    event_listen(&r->listener);
    r->timer = g_timeout_add_seconds(ALIVE_S, on_timer, r);
    g_ptr_array_add(readers, r);
    soup_server_message_pause(msg);
    reader_send(r, g_strdup(": ruche\n\n"));
}

void web_events_stop(void)
{
    g_clear_pointer(&readers, g_ptr_array_unref);
}
