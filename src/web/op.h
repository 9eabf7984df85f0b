/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An operation of the REST interface is one WEB_OP() row in an ops_*.c: routing, checks of arguments, the
 * OpenAPI description and the help derive from it.
 *
 * Rule      An operation only translates: arguments to a call of the core, its result to JSON. It runs as a
 *           task and may wait.
 */
#pragma once

#include "base/linkset.h"
#include "manager/manager.h"

#include <json-glib/json-glib.h>
#include <stdbool.h>

enum web_kind {
    WEB_STRING, WEB_INT, WEB_BOOL,
    WEB_SIZE,    /* bytes: a number, or text with a unit: "2G" */
    WEB_STRINGS, /* an array of texts */
};
struct web_field {
    const char *name;
    enum web_kind kind;
    bool required;
    int64_t min, max;  /* of WEB_INT and WEB_SIZE; both 0: any that is not negative */
    const char *help;
};

struct web_request {
    const struct caller *who;
    JsonObject *args;        /* of path, query and body; checked against the row's fields */
    const char *text_type;   /* set with ret_text: its media type */
    char *ret_text;          /* an answer that is not JSON */
};

struct web_op {
    const char *id;          /* operationId: "domain_start" */
    const char *method;      /* "GET" */
    const char *path;        /* "/domains/{name}/start"; {x} becomes an argument */
    const char *summary;
    const struct web_field *fields; /* ends with a row without a name; NULL: only those of the path */
    unsigned status;         /* of success; 0: 200 */
    bool quick;              /* never waits: answered in place */
    enum web_flow { WEB_FLOW_NONE, WEB_FLOW_OUT, WEB_FLOW_IN } flow; /* the answer, or the request's body, is a volume's
                                                                        contents: transfer.c, not `call` */
    /* the answer (NULL without *error: {}), or r->ret_text */
    JsonNode *(*call)(struct web_request *r, GError **error);
};
LINKSET_DECLARE(web_ops);
#define WEB_OP(ident, ...)                                                                         \
    static const struct web_op web_op_##ident = { .id = #ident, __VA_ARGS__ };                     \
    LINKSET_ENTRY(web_ops, web_op_##ident)

/* Sorted by path and method, NULL-ended. */
const struct web_op *const *web_op_list(void);
/* The row for a request. NULL with *ret_status: 404, or 405 when only the method does not fit. `args` gains
 * what stands in the path. */
const struct web_op *web_route(const char *method, const char *path, JsonObject *args, unsigned *ret_status);
/* A body's members become arguments; what stands in the path stays. */
bool web_add_json(JsonObject *args, const char *text, size_t len, GError **error);
/* Is `args` what the row takes? Sizes become numbers. */
bool web_check_args(const struct web_op *op, JsonObject *args, GError **error);
JsonNode *web_openapi(void);
/* HTTP status of an error of ours, and the word in {"error": {"code": word, "message": ...}}. */
unsigned web_status(const GError *error, const char **ret_code);

/* Arguments that were checked: NULL, 0 and false when they were not given. */
const char *web_text(const struct web_request *r, const char *name);
int64_t web_int(const struct web_request *r, const char *name, int64_t otherwise);
bool web_bool(const struct web_request *r, const char *name);
bool web_given(const struct web_request *r, const char *name);
/* {"a": ...}: builders' shorthands */
JsonNode *web_node(JsonObject *object); /* takes it */
struct job;
JsonNode *web_job_node(struct job *j); /* ops_launch.c: what an operation answers that takes long */
