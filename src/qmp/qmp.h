/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: the JSON protocol between a machine and its manager. This folder has the wire (framing, greeting,
 * capabilities, ids, events, command dispatch) for the server (vmm) and, later, the client (manager).
 *
 * Spec      QEMU docs/interop/qmp-spec.
 * Thread    The main loop.
 * Trust     Peers are hostile: input line 64 MiB at most... bounded by QMP_MAX_INPUT, nesting by QMP_MAX_DEPTH, output
 *           queue by QMP_MAX_OUTPUT (a client that does not read is dropped).
 */
#pragma once

#include "base/error.h"
#include "base/linkset.h"

#include <json-glib/json-glib.h>

#define QMP_MAX_INPUT (4u << 20)
#define QMP_MAX_DEPTH 64
#define QMP_MAX_OUTPUT (16u << 20)

struct qmp_server;
struct qmp_session;
struct machine;

/* An argument of a command: the schema, the checks and the help derive from it. */
enum qmp_arg_kind { QMP_STRING, QMP_INT, QMP_BOOL, QMP_NUMBER, QMP_OBJECT, QMP_ARRAY, QMP_ANY };
struct qmp_arg {
    const char *name;
    enum qmp_arg_kind kind;
    bool optional;
    const char *help;
};

struct qmp_command {
    const char *name;
    const char *summary;
    const struct qmp_arg *args; /* ends with a row without a name; NULL: none */
    bool allow_preconfig, oob;
    /* Arguments are checked against `args` before. Returns the value of "return" (a new node; NULL with no error
     * set means {}), or NULL with *error. `opaque` is the server's. */
    JsonNode *(*call)(void *opaque, JsonObject *args, GError **error);
};
LINKSET_DECLARE(qmp_commands);
#define QMP_COMMAND(c) LINKSET_ENTRY(qmp_commands, c)

struct qmp_server *qmp_server_new(void *opaque); /* opaque: handed to every command */
void qmp_server_free(struct qmp_server *s);
/* A session over a connected stream; the server owns it from here. */
void qmp_server_accept(struct qmp_server *s, int fd);
/* -qmp unix:PATH,server=on,wait=off | tcp:HOST:PORT,server=on,wait=off | stdio, or a chardev's listening fd. */
bool qmp_server_listen(struct qmp_server *s, const char *spec, GError **error);
/* Sends an event to every session that has negotiated; `data` is consumed, may be NULL. */
void qmp_event(struct qmp_server *s, const char *name, JsonObject *data);
/* Runs one command as a session would (HMP, tests): result or error. */
JsonNode *qmp_execute(struct qmp_server *s, const char *command, JsonObject *args, GError **error);
const struct qmp_command *const *qmp_command_list(void); /* sorted, NULL-ended */
