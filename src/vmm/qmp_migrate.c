/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: migration, with QEMU's names. */
#include "vmm/migrate_internal.h"
#include "vmm/block.h"

#include <string.h>

#define DOWNTIME_MAX_MS 2000000

/* ---- beginning, ending ---- */

static JsonNode *migrate(void *opaque, JsonObject *args, GError **error)
{
    static const char *const refused[] = { "blk", "inc", "resume" };
    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++)
        if (arg_bool(args, refused[i], false)) {
            ruche_error(error, RUCHE_ERR_UNSUPPORTED, "Parameter '%s' is not possible here", refused[i]);
            return NULL;
        }
    migrate_start(opaque, arg_string(args, "uri"), error);
    return NULL;
}
static const struct qmp_arg migrate_args[] = {
    { "uri", QMP_STRING, false, "fd:NAME, file:PATH[,offset=N], exec:COMMAND, unix:PATH, tcp:HOST:PORT" },
    { "blk", QMP_BOOL, true, "Disks, too (refused: mirror them)" },
    { "inc", QMP_BOOL, true, "What differs of disks (refused)" },
    { "detach", QMP_BOOL, true, "Accepted; it always goes on by itself" },
    { "resume", QMP_BOOL, true, "A post-copy that was broken off (refused)" },
    { 0 },
};
static const struct qmp_command migrate_cmd = {
    .name = "migrate", .summary = "Send the machine, running or not", .args = migrate_args, .call = migrate,
};
QMP_COMMAND(migrate_cmd);

static JsonNode *incoming(void *opaque, JsonObject *args, GError **error)
{
    migrate_incoming(opaque, arg_string(args, "uri"), error);
    return NULL;
}
static const struct qmp_arg incoming_args[] = {
    { "uri", QMP_STRING, false, "Where the machine comes from, as -incoming has it" },
    { 0 },
};
static const struct qmp_command incoming_cmd = {
    .name = "migrate-incoming", .summary = "Take a machine, after -incoming defer", .args = incoming_args, .call = incoming,
};
QMP_COMMAND(incoming_cmd);

static JsonNode *cancel(void *opaque, JsonObject *args, GError **error)
{
    migrate_cancel(opaque);
    return NULL;
}
static const struct qmp_command cancel_cmd = {
    .name = "migrate_cancel", .summary = "Break the migration off; the machine goes on here", .call = cancel,
};
QMP_COMMAND(cancel_cmd);

static JsonNode *go_on(void *opaque, JsonObject *args, GError **error)
{
    const char *state = arg_string(args, "state");
    if (strcmp(state, migrate_status_names[MIGRATE_PRE_SWITCHOVER]))
        ruche_error(error, RUCHE_ERR_STATE, "Migration not in expected state: %s", state);
    else
        migrate_continue(opaque, error);
    return NULL;
}
static const struct qmp_arg go_on_args[] = {
    { "state", QMP_STRING, false, "In which it waits: pre-switchover" },
    { 0 },
};
static const struct qmp_command go_on_cmd = {
    .name = "migrate-continue", .summary = "Go on from pre-switchover", .args = go_on_args, .call = go_on,
};
QMP_COMMAND(go_on_cmd);

/* ---- progress ---- */

static JsonObject *describe_ram(const struct migrate_stats *s)
{
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        { "transferred", s->transferred_bytes }, { "remaining", s->remaining_bytes },
        { "total", s->total_bytes },             { "duplicate", s->zero_pages },
        { "skipped", 0 },                        { "normal", s->normal_pages },
        { "normal-bytes", s->normal_pages * 4096 }, { "dirty-pages-rate", s->dirty_rate_pages },
        { "dirty-sync-count", s->rounds },       { "page-size", 4096 },
        { "pages-per-second", s->pages_per_second }, { "precopy-bytes", s->precopy_bytes },
        { "downtime-bytes", s->downtime_bytes }, { "postcopy-bytes", 0 },
        { "postcopy-requests", 0 },              { "multifd-bytes", 0 },
        { "dirty-sync-missed-zero-copy", 0 },
    };
    JsonObject *o = json_object_new();
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        json_object_set_int_member(o, rows[i].name, (gint64)rows[i].value);
    json_object_set_double_member(o, "mbps", s->mbps);
    return o;
}

static void describe_progress(JsonObject *o, const struct migrate_stats *s)
{
    json_object_set_int_member(o, "total-time", (gint64)s->total_ms);
    json_object_set_int_member(o, "setup-time", (gint64)s->setup_ms);
    if (s->status == MIGRATE_COMPLETED)
        json_object_set_int_member(o, "downtime", (gint64)s->downtime_ms);
    else
        json_object_set_int_member(o, "expected-downtime", (gint64)s->expected_downtime_ms);
    json_object_set_object_member(o, "ram", describe_ram(s));
}

static JsonNode *query_migrate(void *opaque, JsonObject *args, GError **error)
{
    struct migrate_stats s;
    JsonObject *o = json_object_new();
    if (!migrate_get_stats(opaque, &s) || s.status == MIGRATE_NONE)
        return qmp_object(o);
    json_object_set_string_member(o, "status", migrate_status_names[s.status]);
    if (s.error)
        json_object_set_string_member(o, "error-desc", s.error);
    bool shows = s.status == MIGRATE_ACTIVE || s.status == MIGRATE_PRE_SWITCHOVER || s.status == MIGRATE_DEVICE ||
                 s.status == MIGRATE_CANCELLING || s.status == MIGRATE_COMPLETED;
    if (shows && s.total_bytes)
        describe_progress(o, &s);
    return qmp_object(o);
}
static const struct qmp_command query_migrate_cmd = {
    .name = "query-migrate", .summary = "How the last migration goes or went", .call = query_migrate,
};
QMP_COMMAND(query_migrate_cmd);

/* ---- parameters ---- */

static JsonNode *set_parameters(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    struct migrate_parameters p = v->migrate->parameters;
    if (!arg_u64(args, "max-bandwidth", INT64_MAX, &p.max_bandwidth_bytes, error) ||
        !arg_u64(args, "downtime-limit", DOWNTIME_MAX_MS, &p.downtime_limit_ms, error))
        return NULL;
    v->migrate->parameters = p;
    migrate_apply_parameters(v);
    return NULL;
}
static const struct qmp_arg parameter_args[] = {
    { "max-bandwidth", QMP_INT, true, "Bytes a second while the machine runs; 0: no limit" },
    { "downtime-limit", QMP_INT, true, "Milliseconds that the machine may stand" },
    { 0 },
};
static const struct qmp_command set_parameters_cmd = {
    .name = "migrate-set-parameters", .summary = "Limits of migrations", .args = parameter_args, .call = set_parameters,
};
QMP_COMMAND(set_parameters_cmd);

static JsonNode *query_parameters(void *opaque, JsonObject *args, GError **error)
{
    const struct migrate_parameters *p = &((struct vmm *)opaque)->migrate->parameters;
    JsonObject *o = json_object_new();
    json_object_set_int_member(o, "max-bandwidth", (gint64)p->max_bandwidth_bytes);
    json_object_set_int_member(o, "downtime-limit", (gint64)p->downtime_limit_ms);
    return qmp_object(o);
}
static const struct qmp_command query_parameters_cmd = {
    .name = "query-migrate-parameters", .summary = "Limits of migrations", .call = query_parameters,
};
QMP_COMMAND(query_parameters_cmd);

/* ---- capabilities ---- */

static const struct {
    const char *name;
    size_t offset;
} capabilities[] = {
    { "events", offsetof(struct migrate_capabilities, events) },
    { "pause-before-switchover", offsetof(struct migrate_capabilities, pause_before_switchover) },
    { "return-path", offsetof(struct migrate_capabilities, return_path) },
};

/* QEMU's others: they are off, and asking for that is fine. */
static const char *const others[] = {
    "xbzrle", "rdma-pin-all", "auto-converge", "zero-blocks", "compress", "postcopy-ram", "x-colo", "release-ram", "block",
    "multifd", "dirty-bitmaps", "postcopy-blocktime", "late-block-activate", "x-ignore-shared", "validate-uuid",
    "background-snapshot", "zero-copy-send", "postcopy-preempt", NULL,
};

static bool set_one(struct migrate_capabilities *c, JsonNode *n, GError **error)
{
    JsonObject *o = JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
    const char *name = o ? arg_string(o, "capability") : NULL;
    JsonNode *state = o ? json_object_get_member(o, "state") : NULL;
    if (!name || !state || !JSON_NODE_HOLDS_VALUE(state) || json_node_get_value_type(state) != G_TYPE_BOOLEAN)
        return ruche_error(error, RUCHE_ERR_INVALID, "'capabilities' must be objects with 'capability' and 'state'");
    bool on = json_node_get_boolean(state);
    for (size_t i = 0; i < G_N_ELEMENTS(capabilities); i++)
        if (!strcmp(name, capabilities[i].name)) {
            *(bool *)((char *)c + capabilities[i].offset) = on;
            return true;
        }
    if (!g_strv_contains(others, name))
        return ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown capability '%s'%s", name, suggest_phrase(name, others));
    return !on || ruche_error(error, RUCHE_ERR_UNSUPPORTED, "capability '%s' is not possible here", name);
}

static JsonNode *set_capabilities(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    struct migrate_capabilities c = v->migrate->capabilities;
    JsonArray *list = json_object_get_array_member(args, "capabilities");
    if (migrate_is_under_way(v)) {
        ruche_error(error, RUCHE_ERR_BUSY, "There's a migration process in progress");
        return NULL;
    }
    for (guint i = 0; i < json_array_get_length(list); i++)
        if (!set_one(&c, json_array_get_element(list, i), error))
            return NULL;
    v->migrate->capabilities = c;
    return NULL;
}
static const struct qmp_arg capability_args[] = {
    { "capabilities", QMP_ARRAY, false, "Objects with 'capability' and 'state'" },
    { 0 },
};
static const struct qmp_command set_capabilities_cmd = {
    .name = "migrate-set-capabilities", .summary = "What migrations do", .args = capability_args, .call = set_capabilities,
};
QMP_COMMAND(set_capabilities_cmd);

static void add_capability(JsonArray *list, const char *name, bool on)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "capability", name);
    json_object_set_boolean_member(o, "state", on);
    json_array_add_object_element(list, o);
}

static JsonNode *query_capabilities(void *opaque, JsonObject *args, GError **error)
{
    const struct migrate_capabilities *c = &((struct vmm *)opaque)->migrate->capabilities;
    JsonArray *list = json_array_new();
    for (size_t i = 0; i < G_N_ELEMENTS(capabilities); i++)
        add_capability(list, capabilities[i].name, *(const bool *)((const char *)c + capabilities[i].offset));
    return qmp_array(list);
}
static const struct qmp_command query_capabilities_cmd = {
    .name = "query-migrate-capabilities", .summary = "What migrations do", .call = query_capabilities,
};
QMP_COMMAND(query_capabilities_cmd);

/* ---- events ---- */

static const struct qmp_arg migration_data[] = {
    { "status", QMP_STRING, false, "As query-migrate has it" },
    { 0 },
};
static const struct qmp_event_type migration_event = {
    .name = "MIGRATION", .summary = "The migration's status (capability events)", .data = migration_data,
};
QMP_EVENT(migration_event);
static const struct qmp_arg pass_data[] = {
    { "pass", QMP_INT, false, "The round that begins" },
    { 0 },
};
static const struct qmp_event_type pass_event = {
    .name = "MIGRATION_PASS", .summary = "A round of RAM (capability events)", .data = pass_data,
};
QMP_EVENT(pass_event);
