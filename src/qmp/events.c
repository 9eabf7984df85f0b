/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Events to all sessions. What a guest can provoke at will is limited, lest it fills the output of a client that is
 * slow to read: the first (`limit_burst` of them) is sent at once; of those that follow within QMP_EVENT_PERIOD_MS only
 * the last is, at the end of the period, which then begins anew.
 *
 * Owner     The server's table of limits; a row lives until a period has passed without an event.
 * Thread    The main loop.
 * Bounds    One row, with at most one event, for each value of the member `limit_by`; the values are ours (paths, ids).
 */
#include "qmp/internal.h"

#include <string.h>

struct limit {
    struct qmp_server *server; /* borrowed */
    char *key;                 /* its own key in the table */
    char *waiting;             /* the text of the event held back; NULL: none */
    unsigned sent;             /* in this period */
    guint timer;
};

static void limit_free(gpointer p)
{
    struct limit *l = p;
    g_source_remove(l->timer);
    g_free(l->waiting);
    g_free(l->key);
    g_free(l);
}

static void send_to_all(struct qmp_server *s, const char *text)
{
    for (struct qmp_session *q = s->sessions; q; q = q->next)
        if (q->negotiated)
            qmp_session_send(q, text);
}

static gboolean period_ended(gpointer opaque)
{
    struct limit *l = opaque;
    g_autofree char *text = g_steal_pointer(&l->waiting);
    if (!text) {
        g_hash_table_remove(l->server->limits, l->key); /* frees it, and this timer */
        return G_SOURCE_CONTINUE;
    }
    l->sent = 1;
    send_to_all(l->server, text);
    return G_SOURCE_CONTINUE;
}

static const struct qmp_event_type *type_of(const char *name)
{
    for (const struct qmp_event_type *const *t = qmp_event_list(); *t; t++)
        if (!strcmp((*t)->name, name))
            return *t;
    return NULL;
}

/* The string at "member" or "object.member"; "": there is none. */
static const char *string_at(JsonObject *data, const char *path)
{
    const char *dot = strchr(path, '.');
    g_autofree char *outer = dot ? g_strndup(path, (size_t)(dot - path)) : NULL;
    JsonNode *node = outer && data ? json_object_get_member(data, outer) : NULL;
    JsonObject *o = !outer ? data : node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
    const char *value = o ? json_object_get_string_member_with_default(o, dot ? dot + 1 : path, "") : "";
    return value ? value : "";
}

/* The text of the event is taken over and NULL left when it has to wait. */
static void hold_back(struct qmp_server *s, const struct qmp_event_type *t, JsonObject *data, char **text)
{
    g_autofree char *key = g_strdup_printf("%s %s", t->name, string_at(data, t->limit_by));
    if (!s->limits)
        s->limits = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, limit_free);
    struct limit *l = g_hash_table_lookup(s->limits, key);
    if (l && l->sent < t->limit_burst) {
        l->sent++;
        return;
    }
    if (l) {
        g_free(l->waiting);
        l->waiting = g_steal_pointer(text);
        return;
    }
    l = g_new0(struct limit, 1);
    l->server = s;
    l->sent = 1;
    l->key = g_steal_pointer(&key);
    l->timer = g_timeout_add(QMP_EVENT_PERIOD_MS, period_ended, l);
    g_hash_table_insert(s->limits, l->key, l);
}

void qmp_event(struct qmp_server *s, const char *name, JsonObject *data)
{
    gint64 now = g_get_real_time();
    JsonObject *event = json_object_new(), *stamp = json_object_new();
    json_object_set_int_member(stamp, "seconds", now / G_USEC_PER_SEC);
    json_object_set_int_member(stamp, "microseconds", now % G_USEC_PER_SEC);
    json_object_set_object_member(event, "timestamp", stamp);
    json_object_set_string_member(event, "event", name);
    if (data)
        json_object_set_object_member(event, "data", data);
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, event);
    g_autofree char *text = json_to_string(node, FALSE);
    const struct qmp_event_type *t = type_of(name);
    if (s && t && t->limit_by)
        hold_back(s, t, data, &text);
    if (s && text)
        send_to_all(s, text);
}

void qmp_limits_free(struct qmp_server *s)
{
    g_clear_pointer(&s->limits, g_hash_table_unref);
}
