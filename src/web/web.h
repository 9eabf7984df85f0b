/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The REST front door of `ruched`: JSON over a Unix socket and HTTPS.
 *
 * Loading   The server is a module (module.h), loaded for the first connection, or at once for HTTPS.
 * Spec      docs/rest.md; GET /openapi.json, made from the operations' table (op.h).
 * Thread    The loop thread.
 * Trust     Requests are hostile: at most WEB_MAX_CONNECTIONS by Unix socket, and as many by HTTPS;
 *           bodies of WEB_MAX_BODY bytes, JSON of WEB_MAX_DEPTH levels; a reader of events that does not read
 *           is dropped at WEB_MAX_BACKLOG bytes; a silent connection after WEB_IDLE_S.
 */
#pragma once

#include "manager/error.h"

#define WEB_MAX_CONNECTIONS 1000
#define WEB_MAX_BODY (4u << 20)
#define WEB_MAX_DEPTH 32
#define WEB_MAX_BACKLOG (1u << 20)
#define WEB_IDLE_S 75

struct web_config {
    const char *unix_path;       /* NULL: none */
    const char *unix_group;      /* may connect beside the owner; NULL: none */
    const char *listen;          /* "HOST:PORT" for HTTPS; NULL: none */
    const char *cert, *key, *ca; /* PEM files; with `ca` clients show a certificate it signed */
    const char *token_file;      /* lines "NAME SHA256-of-token"; for clients without a certificate */
};
/* The configuration is the caller's, and stays until web_stop(). */
bool web_start(const struct web_config *c, GError **error);
void web_stop(void);
