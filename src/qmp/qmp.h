/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: the JSON protocol between a machine and its manager. This folder has the wire (framing,
 * greeting, capabilities, ids, events, command dispatch) for the server (vmm) and, later, the
 * client (manager).
 *
 * Spec      QEMU docs/interop/qmp-spec.
 * Thread    The main loop.
 * Trust     Peers are hostile: a command's text is bounded by QMP_MAX_INPUT, nesting by
 *           QMP_MAX_DEPTH, clients by QMP_MAX_SESSIONS, the output queue by QMP_MAX_OUTPUT (a
 *           client that does not read is dropped).
 */
#pragma once

#include "base/error.h"
#include "base/linkset.h"

#include <json-glib/json-glib.h>

#define QMP_MAX_INPUT (4u << 20)
#define QMP_MAX_DEPTH 64
#define QMP_MAX_OUTPUT (16u << 20)
#define QMP_MAX_SESSIONS 64
#define QMP_EVENT_PERIOD_MS 1000
#define QMP_MAX_FDS 16 /* descriptors of a client that no command has taken; further ones are closed */

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
    /* Arguments are checked against `args` before. Returns the value of "return" (a new node; NULL
     * with no error set means {}), or NULL with *error. `opaque` is the server's. */
    JsonNode *(*call)(void *opaque, JsonObject *args, GError **error);
};
LINKSET_DECLARE(qmp_commands);
#define QMP_COMMAND(c) LINKSET_ENTRY(qmp_commands, c)

/* An event that may be sent; for the schema. */
struct qmp_event_type {
    const char *name, *summary;
    const struct qmp_arg *data; /* ends with a row without a name; NULL: none */
    /* A guest can provoke it at will: of those whose `data` has the same string here ("id", or
     * "info.id" of an object in it; "": all that have none), `limit_burst` (0: one) are sent at once
     * in each QMP_EVENT_PERIOD_MS, and the last of the others at its end. NULL: every one is. */
    const char *limit_by;
    unsigned limit_burst;
};
LINKSET_DECLARE(qmp_event_types);
#define QMP_EVENT(e) LINKSET_ENTRY(qmp_event_types, e)

struct qmp_server *qmp_server_new(void *opaque); /* opaque: handed to every command */
void qmp_server_free(struct qmp_server *s);
/* A session over a connected stream socket, which the server owns from here. */
void qmp_server_accept(struct qmp_server *s, int fd);
/* unix:PATH,server=on,wait=off | tcp:HOST:PORT,server=on,wait=off: any number of clients at a
 * time. With wait=on (the default) returns when the first one is there. */
bool qmp_server_listen(struct qmp_server *s, const char *spec, GError **error);
/* is it such a text, rather than some other chardev? */
bool qmp_server_can_listen(const char *spec);
void qmp_server_stop_waiting(struct qmp_server *s); /* makes a waiting qmp_server_listen() fail */
/* For a command that runs: the next descriptor that its client has sent along (SCM_RIGHTS), which is the caller's from
 * here. -1: none. */
int qmp_take_fd(struct qmp_server *s);
/* Sends an event to every session that has negotiated, perhaps later (limit_by); `data` is
 * consumed, may be NULL. */
void qmp_event(struct qmp_server *s, const char *name, JsonObject *data);
/* Runs one command as a session would (HMP, tests): result or error. `args` is borrowed, may be
 * NULL. */
JsonNode *qmp_execute(struct qmp_server *s, const char *command, JsonObject *args, GError **error);
/* Does `args` fit c->args? For commands within commands, too. */
bool qmp_check_args(const struct qmp_command *c, JsonObject *args, GError **error);
const struct qmp_command *const *qmp_command_list(void); /* sorted, NULL-ended */
const struct qmp_event_type *const *qmp_event_list(void); /* sorted, NULL-ended */
/* What query-qmp-schema returns: made from the two lists. */
JsonNode *qmp_schema(void);

/* A session over any other stream: bytes come by qmp_session_receive() and leave by `write`. */
struct qmp_transport {
    /* how many were taken; never blocks */
    size_t (*write)(void *opaque, const void *data, size_t len);
    /* the peer broke a limit: end the stream, later, not from here; may be NULL */
    void (*drop)(void *opaque);
    void *opaque;
};
/* Greets. NULL: too many sessions. */
struct qmp_session *qmp_session_new(struct qmp_server *s, const struct qmp_transport *t);
void qmp_session_free(struct qmp_session *q);
void qmp_session_receive(struct qmp_session *q, const void *data, size_t len);
/* A descriptor that came beside the bytes, before them; the session's from here. */
void qmp_session_receive_fd(struct qmp_session *q, int fd);
void qmp_session_writable(struct qmp_session *q); /* `write` will take more */
bool qmp_session_pending(const struct qmp_session *q); /* output waits */
