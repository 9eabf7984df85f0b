/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Talking to a machine: commands, their errors in our words, answers kept for a second.
 *
 * Trust     Answers are data of a process that its guest may have taken over: read by type.
 */
#include "manager/domain/vm_internal.h"

#include "qmp/errors.h"

#include <stdarg.h>
#include <string.h>

#define ANSWER_US (900 * 1000)
#define ASK_MS    3000                  /* statistics do not wait longer for one machine */
#define SILENT_US (10 * G_USEC_PER_SEC) /* and do not ask it again so soon */

/* ---- JSON ---- */

static JsonNode *json_value(char type, va_list *ap)
{
    JsonNode *n = json_node_alloc();
    const char *s;
    switch (type) {
    case 's':
        s = va_arg(*ap, const char *);
        return s ? json_node_init_string(n, s) : (json_node_unref(n), NULL);
    case 'i':
        return json_node_init_int(n, va_arg(*ap, int64_t));
    case 'b':
        return json_node_init_boolean(n, va_arg(*ap, int));
    case 'o':
        json_node_init(n, JSON_NODE_OBJECT);
        json_node_take_object(n, va_arg(*ap, JsonObject *));
        return n;
    case 'a':
        json_node_init(n, JSON_NODE_ARRAY);
        json_node_take_array(n, va_arg(*ap, JsonArray *));
        return n;
    default:
        g_assert_not_reached();
    }
}

JsonObject *vm_json(const char *key, ...)
{
    JsonObject *o = json_object_new();
    va_list ap;
    va_start(ap, key);
    for (const char *k = key; k; k = va_arg(ap, const char *)) {
        char type = (char)va_arg(ap, int);
        JsonNode *n = json_value(type, &ap);
        if (n)
            json_object_set_member(o, k, n);
    }
    va_end(ap);
    return o;
}

JsonObject *vm_json_object(JsonNode *n)
{
    return n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
}

JsonArray *vm_json_array(JsonNode *n)
{
    return n && JSON_NODE_HOLDS_ARRAY(n) ? json_node_get_array(n) : NULL;
}

JsonObject *vm_json_at(JsonArray *a, guint i)
{
    return a && i < json_array_get_length(a) ? vm_json_object(json_array_get_element(a, i)) : NULL;
}

static JsonNode *member(JsonObject *o, const char *name)
{
    return o ? json_object_get_member(o, name) : NULL;
}

JsonObject *vm_json_sub(JsonObject *o, const char *name)
{
    return vm_json_object(member(o, name));
}

JsonArray *vm_json_list(JsonObject *o, const char *name)
{
    return vm_json_array(member(o, name));
}

static bool holds(JsonNode *n, GType type)
{
    return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == type;
}

const char *vm_json_string(JsonObject *o, const char *name)
{
    JsonNode *n = member(o, name);
    return holds(n, G_TYPE_STRING) ? json_node_get_string(n) : NULL;
}

int64_t vm_json_int(JsonObject *o, const char *name, int64_t otherwise)
{
    JsonNode *n = member(o, name);
    return holds(n, G_TYPE_INT64) ? json_node_get_int(n) : otherwise;
}

bool vm_json_bool(JsonObject *o, const char *name)
{
    JsonNode *n = member(o, name);
    return holds(n, G_TYPE_BOOLEAN) && json_node_get_boolean(n);
}

/* ---- commands ---- */

static bool no_monitor(const struct vm *v, GError **error)
{
    return ruche_error(error, MANAGER_ERR_MACHINE, "machine '%s' cannot be reached: %s", v->name,
                       v->lost_why ? v->lost_why : "it is not running");
}

/* The manager's codes for what the client says. */
static void translate(const struct vm *v, const char *command, int timeout_ms, const GError *from,
                      GError **error)
{
    if (g_error_matches(from, QMP_CLIENT_ERROR, QMP_CLIENT_SILENT))
        ruche_error(error, MANAGER_ERR_TIMEOUT, "machine '%s' did not answer '%s' in %d s", v->name,
                    command, timeout_ms / 1000);
    else if (from->domain == QMP_COMMAND_NOT_FOUND)
        ruche_error(error, MANAGER_ERR_CONFIG, "machine '%s': its emulator does not know '%s'",
                    v->name, command);
    else if (g_error_matches(from, RUCHE_ERROR, RUCHE_ERR_NOT_FOUND))
        ruche_error(error, MANAGER_ERR_ARGUMENT, "machine '%s': %s", v->name, from->message);
    else
        ruche_error(error, MANAGER_ERR_MACHINE, "machine '%s': %s: %s", v->name, command,
                    from->message);
}

static JsonNode *call_within(struct vm *v, const char *command, JsonObject *args, int fd,
                             int timeout_ms, GError **error)
{
    auto_vm *keep = vm_ref(v);
    g_autoptr(GError) local = NULL;
    if (!v->qmp) {
        g_clear_pointer(&args, json_object_unref);
        no_monitor(v, error);
        return NULL;
    }
    JsonNode *n = qmp_client_call(v->qmp, command, args, fd, timeout_ms, &local);
    if (!n)
        translate(keep, command, timeout_ms, local, error);
    return n;
}

JsonNode *vm_call(struct vm *v, const char *command, JsonObject *args, GError **error)
{
    int timeout_ms = strcmp(command, "blockdev-add") ? VM_CALL_MS : VM_OPEN_MS;
    return call_within(v, command, args, -1, timeout_ms, error);
}

JsonNode *vm_call_fd(struct vm *v, const char *command, JsonObject *args, int fd, GError **error)
{
    return call_within(v, command, args, fd, VM_CALL_MS, error);
}

bool vm_do(struct vm *v, const char *command, JsonObject *args, GError **error)
{
    g_autoptr(JsonNode) n = vm_call(v, command, args, error);
    return n != NULL;
}

bool vm_do_fd(struct vm *v, const char *command, JsonObject *args, int fd, GError **error)
{
    g_autoptr(JsonNode) n = call_within(v, command, args, fd, VM_CALL_MS, error);
    return n != NULL;
}

char *vm_monitor_command(struct vm *v, const char *text, bool hmp, GError **error)
{
    auto_vm *keep = vm_ref(v);
    g_autoptr(GError) local = NULL;
    if (hmp) {
        g_autoptr(JsonNode) n =
            vm_call(v, "human-monitor-command", vm_json("command-line", 's', text, NULL), error);
        return n ? g_strdup(holds(n, G_TYPE_STRING) ? json_node_get_string(n) : "") : NULL;
    }
    if (!v->qmp) {
        no_monitor(v, error);
        return NULL;
    }
    char *answer = qmp_client_call_text(v->qmp, text, VM_CALL_MS, &local);
    if (!answer)
        translate(keep, "command", VM_CALL_MS, local, error);
    return answer;
}

/* The answer as the monitor would write it; the command's own id is not said again. */
static char *answer_text(JsonNode *value)
{
    g_autoptr(JsonObject) o = json_object_new();
    json_object_set_member(o, "return", json_node_copy(value));
    g_autoptr(JsonNode) n = json_node_init_object(json_node_alloc(), o);
    return json_to_string(n, FALSE);
}

char *vm_monitor_command_fd(struct vm *v, const char *text, int fd, GError **error)
{
    g_autoptr(JsonNode) n = json_from_string(text, NULL);
    JsonObject *o = vm_json_object(n), *args = vm_json_sub(o, "arguments");
    const char *command = vm_json_string(o, "execute");
    if (!command) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "machine '%s': a command with a descriptor is JSON with 'execute'", v->name);
        return NULL;
    }
    g_autoptr(JsonNode) value =
        vm_call_fd(v, command, args ? json_object_ref(args) : NULL, fd, error);
    return value ? answer_text(value) : NULL;
}

/* ---- kept answers ---- */

static const struct {
    const char *command;
    bool ours_only;
} questions[VM_QUESTIONS] = {
    [VM_ASK_BLOCKSTATS] = {"query-blockstats", false},
    [VM_ASK_NODES] = {"query-named-block-nodes", false},
    [VM_ASK_NETDEVS] = {"x-ruche-query-netdevs", true},
    [VM_ASK_BALLOON_STATS] = {"qom-get", false},
    [VM_ASK_IOTHREADS] = {"query-iothreads", false},
};

static JsonObject *question_args(const struct vm *v, enum vm_question q)
{
    switch (q) {
    case VM_ASK_BALLOON_STATS:
        return vm_json("path", 's', v->balloon, "property", 's', "guest-stats", NULL);
    case VM_ASK_NODES:
        return vm_json("flat", 'b', TRUE, NULL);
    default:
        return NULL;
    }
}

JsonNode *vm_ask(struct vm *v, enum vm_question q, GError **error)
{
    auto_vm *keep = vm_ref(v);
    struct vm_answer *a = &v->answers[q];
    fiber_mutex_lock(&keep->asking); /* whoever comes meanwhile takes the same answer */
    if (g_get_monotonic_time() - a->at_us > ANSWER_US) {
        g_clear_pointer(&a->node, json_node_unref);
        g_clear_error(&a->error);
        if (questions[q].ours_only && !v->ours)
            ruche_error(&a->error, MANAGER_ERR_CONFIG, "machine '%s': QEMU does not count that",
                        v->name);
        else if (g_get_monotonic_time() < v->silent_until_us)
            ruche_error(&a->error, MANAGER_ERR_TIMEOUT, "machine '%s' does not answer", v->name);
        else
            a->node =
                call_within(v, questions[q].command, question_args(v, q), -1, ASK_MS, &a->error);
        a->at_us = g_get_monotonic_time();
        if (g_error_matches(a->error, RUCHE_ERROR, MANAGER_ERR_TIMEOUT))
            v->silent_until_us = MAX(v->silent_until_us, a->at_us + SILENT_US);
    }
    fiber_mutex_unlock(&keep->asking);
    if (!a->node && error)
        *error = g_error_copy(a->error);
    return a->node;
}

/* ---- connecting ---- */

bool vm_connect_monitor(struct vm *v, int timeout_ms, GError **error)
{
    auto_vm *keep = vm_ref(v);
    g_autoptr(GError) local = NULL;
    g_autofree char *path = vm_socket_path(v, "monitor");
    int fd = vm_connect(path, error);
    if (fd < 0)
        return false;
    struct qmp_client *c = qmp_client_new(fd, &vm_monitor_ops, v, timeout_ms, &local);
    if (c && !v->d) {
        qmp_client_free(c);
        return no_monitor(v, error);
    }
    if (!c) {
        ruche_error(error,
                    g_error_matches(local, QMP_CLIENT_ERROR, QMP_CLIENT_SILENT)
                        ? MANAGER_ERR_TIMEOUT
                        : MANAGER_ERR_MACHINE,
                    "machine '%s': its monitor: %s", keep->name, local->message);
        return false;
    }
    v->qmp = c;
    g_clear_pointer(&v->lost_why, g_free);
    return true;
}
