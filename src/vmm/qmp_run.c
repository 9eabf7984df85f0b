/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: the machine's run and the program itself. */
#include "vmm/monitor.h"
#include "vmm/qmp_util.h"

#include <stdlib.h>

static JsonNode *query_status(void *opaque, JsonObject *args, GError **error)
{
    const struct vmm *v = opaque;
    JsonObject *o = json_object_new();
    json_object_set_boolean_member(o, "running", v->machine->state == RUN_RUNNING);
    json_object_set_boolean_member(o, "singlestep", FALSE);
    json_object_set_string_member(o, "status", run_state_name(v->machine->state));
    return qmp_object(o);
}
static const struct qmp_command query_status_cmd = {
    .name = "query-status", .summary = "Run state", .call = query_status,
};
QMP_COMMAND(query_status_cmd);

static JsonNode *cont(void *opaque, JsonObject *args, GError **error)
{
    run_cont(opaque, error);
    return NULL;
}
static const struct qmp_command cont_cmd = { .name = "cont",
                                             .summary = "Let the machine run",
                                             .call = cont };
QMP_COMMAND(cont_cmd);

static JsonNode *stop(void *opaque, JsonObject *args, GError **error)
{
    run_stop(opaque, error);
    return NULL;
}
static const struct qmp_command stop_cmd = { .name = "stop",
                                             .summary = "Stop the machine",
                                             .call = stop };
QMP_COMMAND(stop_cmd);

static JsonNode *system_reset(void *opaque, JsonObject *args, GError **error)
{
    run_reset(opaque, error);
    return NULL;
}
static const struct qmp_command system_reset_cmd = {
    .name = "system_reset", .summary = "The reset button", .call = system_reset,
};
QMP_COMMAND(system_reset_cmd);

static JsonNode *system_powerdown(void *opaque, JsonObject *args, GError **error)
{
    run_powerdown(opaque, error);
    return NULL;
}
static const struct qmp_command system_powerdown_cmd = {
    .name = "system_powerdown", .summary = "The power button", .call = system_powerdown,
};
QMP_COMMAND(system_powerdown_cmd);

static JsonNode *system_wakeup(void *opaque, JsonObject *args, GError **error)
{
    ruche_error(error, RUCHE_ERR_UNSUPPORTED, "a guest cannot sleep here, so it cannot be woken");
    return NULL;
}
static const struct qmp_command system_wakeup_cmd = {
    .name = "system_wakeup", .summary = "Wake a sleeping guest (refused)", .call = system_wakeup,
};
QMP_COMMAND(system_wakeup_cmd);

static gboolean quit_later(gpointer opaque)
{
    run_quit(opaque, CAUSE_QMP_QUIT);
    return G_SOURCE_REMOVE;
}

/* The answer goes out before the machine ends. */
static JsonNode *quit(void *opaque, JsonObject *args, GError **error)
{
    g_idle_add(quit_later, opaque);
    return NULL;
}
static const struct qmp_command quit_cmd = { .name = "quit",
                                             .summary = "End the machine and the program",
                                             .call = quit };
QMP_COMMAND(quit_cmd);

/* The words of -action's. */
static JsonNode *set_action(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    static const char *const names[] = { "reboot", "shutdown", "panic", "watchdog" };
    g_autoptr(GString) text = g_string_new(NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
        if (json_object_has_member(args, names[i]))
            g_string_append_printf(text, "%s%s=%s", text->len ? "," : "", names[i],
                                   json_object_get_string_member(args, names[i]));
    options_set_action(&v->options, text->str, error);
    return NULL;
}
static const struct qmp_arg set_action_args[] = {
    { "reboot", QMP_STRING, true, "reset, shutdown" },
    { "shutdown", QMP_STRING, true, "poweroff, pause" },
    { "panic", QMP_STRING, true, "pause, shutdown, exit-failure, none" },
    { "watchdog", QMP_STRING, true, "reset, shutdown, poweroff, pause, debug, none, inject-nmi" },
    { 0 },
};
static const struct qmp_command set_action_cmd = {
    .name = "set-action", .summary = "What the guest's reboot, power-off or panic does from now on",
    .args = set_action_args, .call = set_action,
};
QMP_COMMAND(set_action_cmd);

static JsonNode *inject_nmi(void *opaque, JsonObject *args, GError **error)
{
    const struct vmm *v = opaque;
    for (unsigned i = 0; i < v->machine->vcpu_count; i++)
        if (v->machine->vcpus[i]->present)
            v->machine->accel->ops->vcpu_signal(v->machine->vcpus[i], VCPU_SIGNAL_NMI, 0);
    return NULL;
}
static const struct qmp_command inject_nmi_cmd = {
    .name = "inject-nmi", .summary = "A non-maskable interrupt to every CPU", .call = inject_nmi,
};
QMP_COMMAND(inject_nmi_cmd);

static JsonNode *query_version(void *opaque, JsonObject *args, GError **error)
{
    JsonObject *o = json_object_new(), *numbers = json_object_new();
    char *end;
    json_object_set_int_member(numbers, "major", strtol(RUCHE_VERSION, &end, 10));
    json_object_set_int_member(numbers, "minor", *end ? strtol(end + 1, &end, 10) : 0);
    json_object_set_int_member(numbers, "micro", *end ? strtol(end + 1, &end, 10) : 0);
    json_object_set_object_member(o, "qemu", numbers);
    json_object_set_string_member(o, "package", "ruche-vmm " RUCHE_VERSION);
    return qmp_object(o);
}
static const struct qmp_command query_version_cmd = {
    .name = "query-version", .summary = "The program's version", .call = query_version,
};
QMP_COMMAND(query_version_cmd);

static JsonNode *query_name(void *opaque, JsonObject *args, GError **error)
{
    const struct vmm *v = opaque;
    JsonObject *o = json_object_new();
    if (v->options.name)
        json_object_set_string_member(o, "name", v->options.name);
    return qmp_object(o);
}
static const struct qmp_command query_name_cmd = { .name = "query-name",
                                                   .summary = "The machine's name",
                                                   .call = query_name };
QMP_COMMAND(query_name_cmd);

static JsonNode *query_uuid(void *opaque, JsonObject *args, GError **error)
{
    const uint8_t *u = ((struct vmm *)opaque)->config.uuid;
    JsonObject *o = json_object_new();
    g_autofree char *text = g_strdup_printf(
        "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2],
        u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
    json_object_set_string_member(o, "UUID", text);
    return qmp_object(o);
}
static const struct qmp_command query_uuid_cmd = { .name = "query-uuid",
                                                   .summary = "The machine's UUID",
                                                   .call = query_uuid };
QMP_COMMAND(query_uuid_cmd);

static JsonNode *human_monitor_command(void *opaque, JsonObject *args, GError **error)
{
    g_autofree char *text = hmp_run(opaque, json_object_get_string_member(args, "command-line"));
    JsonNode *node = json_node_new(JSON_NODE_VALUE);
    json_node_set_string(node, text);
    return node;
}
static const struct qmp_arg hmp_args[] = {
    { "command-line", QMP_STRING, false, "What a person would type" },
    { "cpu-index", QMP_INT, true, "Accepted; no command here looks at one CPU" },
    { 0 },
};
static const struct qmp_command human_monitor_command_cmd = {
    .name = "human-monitor-command", .summary = "A line of the human monitor", .args = hmp_args,
    .call = human_monitor_command,
};
QMP_COMMAND(human_monitor_command_cmd);

static JsonNode *add_client(void *opaque, JsonObject *args, GError **error)
{
    ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                "there is no display server that could take a client");
    return NULL;
}
static const struct qmp_arg add_client_args[] = {
    { "protocol", QMP_STRING, false, "vnc, spice" },
    { "fdname", QMP_STRING, false, "Name of a descriptor" },
    { "skipauth", QMP_BOOL, true, "No authentication" },
    { "tls", QMP_BOOL, true, "With TLS" },
    { 0 },
};
static const struct qmp_command add_client_cmd = {
    .name = "add_client",
    .summary = "Hand a client to a display server (refused)",
    .args = add_client_args,
    .call = add_client,
};
QMP_COMMAND(add_client_cmd);
