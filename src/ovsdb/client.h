/* SPDX-License-Identifier: GPL-2.0-or-later */
/* OVSDB, the client's end: calls that wait in fibers, on one connection that is made when it is
 * needed, and again when it broke.
 *
 * Spec      RFC 7047, section 4.
 * Owner     ovsdb_client_new(), then ovsdb_client_free(), also with calls under way: they end with
 *           an error.
 * Thread    The thread of the default GMainContext; calls in a fiber.
 * Trust     The server is not trusted to be sane: what it sends is bounded, checked, and ends the
 *           connection when it is wrong; what it does not answer ends at the deadline.
 *           With TLS nothing is said before its certificate is of the CA that is asked for.
 * Errors    Sentences that name the address. OVSDB_ERR_*.
 */
#pragma once

#include "base/error.h"

#include <json-glib/json-glib.h>

#define OVSDB_CLIENT_ERROR (ovsdb_client_error_quark())
GQuark ovsdb_client_error_quark(void);
enum ovsdb_client_err {
    OVSDB_ERR_UNREACHABLE, /* nobody listens there */
    OVSDB_ERR_BROKEN,      /* the connection ended, or the server sent what cannot be */
    OVSDB_ERR_SILENT,      /* no answer in time */
    OVSDB_ERR_REFUSED,     /* the server's own error */
};

struct ovsdb_client;
struct ovsdb_client_ops {
    /* "update" of a monitor and the like: `params` until it returns. May be NULL. */
    void (*notify)(void *opaque, const char *method, JsonArray *params);
    /* A connection that had been there is over: monitors are gone. The next call connects anew. May
     * be NULL. */
    void (*closed)(void *opaque, const char *why);
};
/* `address`: "unix:PATH", "tcp:IP:PORT" ("tcp:[::1]:6640") or "ssl:IP:PORT". */
struct ovsdb_client *ovsdb_client_new(const char *address, const struct ovsdb_client_ops *ops,
                                      void *opaque, GError **error);
void ovsdb_client_free(struct ovsdb_client *c);
/* By which files ssl: connects, from the next connection on; each reads them anew. */
struct ovsdb_tls_files;
void ovsdb_client_set_tls(struct ovsdb_client *c, const struct ovsdb_tls_files *f);

/* Any method; `params` is taken; the answer's result (NULL only on failure; JSON's null is a node).
 * Such as "list_dbs", "get_schema" [db], "monitor" [db, id, requests], "monitor_cancel" [id]. */
JsonNode *ovsdb_client_call(struct ovsdb_client *c, const char *method, JsonArray *params,
                            int timeout_ms, GError **error);
/* A transaction: `operations` (taken) are objects; the results, one for each. An operation that
 * failed is the error. */
JsonArray *ovsdb_client_transact(struct ovsdb_client *c, const char *db, JsonArray *operations,
                                 int timeout_ms, GError **error);
