/* SPDX-License-Identifier: GPL-2.0-or-later */
/* LVM's JSON reports: {"report": [{"lv": [{"lv_name": "x", ...}, ...]}]}.
 *
 * Trust     Read by type: what is not there or no text is "", a number that is none is 0; at most REPORT_MAX rows.
 * Owner     The caller, until report_free(); texts belong to it.
 */
#pragma once

#include "manager/error.h"

#include <json-glib/json-glib.h>
#include <stdint.h>

#define REPORT_MAX 200000

struct report_row {
    JsonObject *fields;
};
typedef struct report {
    JsonNode *root;
    struct report_row *rows;
    unsigned count;
} report;
/* `program` is named in errors; `list` is the array's name. */
report *report_read(const char *program, const char *text, const char *list, GError **error);
void report_free(report *r);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(report, report_free)
const char *report_text(const struct report_row *r, const char *field);
uint64_t report_number(const struct report_row *r, const char *field);
/* Members of any JSON object, by the same rules. */
const char *json_text(JsonObject *o, const char *field);
uint64_t json_number(JsonObject *o, const char *field);
/* The object at the root; NULL with *error. The node is the owner. */
JsonObject *json_root(const char *program, const char *text, JsonNode **ret_node, GError **error);
