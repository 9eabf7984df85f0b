/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP, the manager's end: commands to a machine, answers to the tasks that wait, events to a listener.
 *
 * Spec      QEMU docs/interop/qmp-spec.
 * Owner     qmp_client_new() ... qmp_client_free(); free from anywhere on the loop, also while calls wait (they
 *           end in an error).
 * Thread    The loop thread (default GMainContext); calls in a fiber (base/fiber.h).
 * Trust     The peer is a machine that its guest may have taken over: a line has at most QMP_CLIENT_MAX_LINE
 *           bytes and QMP_MAX_DEPTH levels, answers without a question and more events than are read end
 *           the connection; nothing it sends makes us larger than that.
 */
#pragma once

#include "qmp/qmp.h"

#define QMP_CLIENT_MAX_LINE (16u << 20)

/* Errors of calls: the machine's own answers keep their class (errors.h has those of CommandNotFound and
 * DeviceNotActive, RUCHE_ERR_NOT_FOUND is DeviceNotFound). */
#define QMP_CLIENT_ERROR g_quark_from_static_string("qmp-client")
enum qmp_client_err {
    QMP_CLIENT_GENERIC, /* GenericError, and classes that we do not know */
    QMP_CLIENT_SILENT,  /* no answer in time; it is dropped when it comes */
    QMP_CLIENT_OVER,    /* the connection ended, or was freed */
    QMP_CLIENT_REFUSED, /* not sent: not a command, or too much is under way */
};

struct qmp_client;

struct qmp_client_ops {
    /* an event; `data` is borrowed, may be NULL */
    void (*event)(void *opaque, const char *name, JsonObject *data, int64_t seconds, int64_t microseconds);
    /* the connection is over, with why; once, outside of fibers; the client still wants to be freed */
    void (*closed)(void *opaque, const char *why);
};

/* Takes a connected stream socket, waits for the greeting, negotiates. In a fiber. NULL: *error; fd closed. */
struct qmp_client *qmp_client_new(int fd, const struct qmp_client_ops *ops, void *opaque, int timeout_ms, GError **error);
void qmp_client_free(struct qmp_client *c);
/* One command; several may be under way, the peer answers in order. `args` is taken, may be NULL. Returns the value of
 * "return" (free with json_node_unref()), or NULL: the machine's own error keeps its class in the code
 * (QMP_COMMAND_NOT_FOUND ...), silence is an error after timeout_ms. `fd` (-1: none) goes with it by SCM_RIGHTS;
 * the caller's stays open. */
JsonNode *qmp_client_call(struct qmp_client *c, const char *command, JsonObject *args, int fd, int timeout_ms, GError **error);
/* A text as it is (virDomainQemuMonitorCommand): the whole answer object as text. */
char *qmp_client_call_text(struct qmp_client *c, const char *json, int timeout_ms, GError **error);
/* Version of the peer, from the greeting: 7002019 for 7.2.19; package: "ruche ..." for ours. */
unsigned qmp_client_version(const struct qmp_client *c);
const char *qmp_client_package(const struct qmp_client *c);
