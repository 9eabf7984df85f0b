/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: the guest's memory as a core, with QEMU's names. */
#include "vmm/block.h"
#include "vmm/dump.h"

#include <string.h>

static JsonNode *dump_guest_memory(void *opaque, JsonObject *args, GError **error)
{
    uint64_t begin = 0, length = 0;
    const char *format = arg_string(args, "format");
    bool has_begin = json_object_has_member(args, "begin"), has_length = json_object_has_member(args, "length");
    if (has_begin != has_length)
        ruche_error(error, RUCHE_ERR_INVALID, "Parameter '%s' is missing", has_begin ? "length" : "begin");
    else if (arg_bool(args, "paging", false))
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "'paging' is not possible here: cores are by physical address");
    else if (format && strcmp(format, "elf"))
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "format '%s' is not possible here; only 'elf' is", format);
    else if (!arg_u64(args, "begin", INT64_MAX, &begin, error) || !arg_u64(args, "length", INT64_MAX, &length, error))
        return NULL;
    else if (has_length && !length)
        ruche_error(error, RUCHE_ERR_INVALID, "'length' is 0");
    else
        dump_start(opaque, arg_string(args, "protocol"), begin, length, arg_bool(args, "detach", false), error);
    return NULL;
}
static const struct qmp_arg dump_args[] = {
    { "paging", QMP_BOOL, false, "By virtual address (refused)" },
    { "protocol", QMP_STRING, false, "file:PATH or fd:NAME" },
    { "detach", QMP_BOOL, true, "Answer at once; DUMP_COMPLETED tells the end" },
    { "begin", QMP_INT, true, "First physical address" },
    { "length", QMP_INT, true, "Bytes from there" },
    { "format", QMP_STRING, true, "elf" },
    { 0 },
};
static const struct qmp_command dump_cmd = {
    .name = "dump-guest-memory", .summary = "The guest's memory as an ELF core", .args = dump_args,
    .call = dump_guest_memory,
};
QMP_COMMAND(dump_cmd);

static JsonNode *query_dump(void *opaque, JsonObject *args, GError **error)
{
    uint64_t done, total;
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "status", dump_progress(opaque, &done, &total));
    json_object_set_int_member(o, "completed", (gint64)done);
    json_object_set_int_member(o, "total", (gint64)total);
    return qmp_object(o);
}
static const struct qmp_command query_dump_cmd = {
    .name = "query-dump", .summary = "How the last dump goes or went", .call = query_dump,
};
QMP_COMMAND(query_dump_cmd);

static JsonNode *query_capability(void *opaque, JsonObject *args, GError **error)
{
    JsonObject *o = json_object_new();
    JsonArray *formats = json_array_new();
    json_array_add_string_element(formats, "elf");
    json_object_set_array_member(o, "formats", formats);
    return qmp_object(o);
}
static const struct qmp_command query_capability_cmd = {
    .name = "query-dump-guest-memory-capability", .summary = "Formats of cores", .call = query_capability,
};
QMP_COMMAND(query_capability_cmd);

static const struct qmp_arg completed_data[] = {
    { "result", QMP_OBJECT, false, "As query-dump has it" },
    { "error", QMP_STRING, true, "Why it failed" },
    { 0 },
};
static const struct qmp_event_type completed_event = {
    .name = "DUMP_COMPLETED", .summary = "A detached dump is over", .data = completed_data,
};
QMP_EVENT(completed_event);
