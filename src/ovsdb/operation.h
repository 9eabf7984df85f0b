/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations of a transaction, put together piece by piece.
 *
 * Spec      RFC 7047, section 5.2.
 * Owner     Operations belong to their list; values (ovsdb/value.h) are taken.
 */
#pragma once

#include "ovsdb/value.h"

/* "select", "insert", "update", "mutate", "delete", "wait" on a table, at the end of the list. */
JsonObject *ovsdb_op(JsonArray *list, const char *op, const char *table);
/* Which rows: "==", "!=", "includes", "excludes"; several conditions hold together; none: all rows.
 */
void ovsdb_op_where(JsonObject *op, const char *column, const char *function, JsonNode *value);
void ovsdb_op_columns(JsonObject *op,
                      const char *const *columns); /* of select and wait; NULL ends */
void ovsdb_op_set(JsonObject *op, const char *column, JsonNode *value); /* of insert and update */
void ovsdb_op_mutate(JsonObject *op, const char *column, const char *mutator, JsonNode *value);
void ovsdb_op_name(JsonObject *op, const char *name); /* of an inserted row, for ovsdb_named() */
/* wait: until the column of the chosen rows is not `value`. */
void ovsdb_op_until_not(JsonObject *op, const char *column, JsonNode *value, int timeout_ms);
/* wait: until no row is chosen. */
void ovsdb_op_until_none(JsonObject *op, int timeout_ms);

/* The rows of a select's result; NULL: there are none. `index` is the operation's. */
JsonArray *ovsdb_rows(JsonArray *results, unsigned index);
JsonObject *ovsdb_first_row(JsonArray *results, unsigned index); /* NULL: none */
int64_t ovsdb_count(JsonArray *results, unsigned index);         /* of update, mutate, delete */
