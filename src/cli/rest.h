/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests to ruched. Blocks.
 *
 * Where     RUCHE_CONNECT or --connect: "system", "session", a socket's path, or an https URL (RUCHE_TOKEN, or RUCHE_CERT
 *           with certificate and key; RUCHE_CA if the manager's certificate is signed by nobody that the host knows); else root's is the system's, anybody else's his own, which is started when it does not run.
 * Errors    What the manager says is passed on word by word.
 */
#pragma once

#include "base/error.h"

#include <json-glib/json-glib.h>
#include <libsoup/soup.h>
#include <stdint.h>

struct rest;

struct rest *rest_new(const char *connect, GError **error);
void rest_free(struct rest *r);
/* path is a format whose strings are escaped: "/domains/%s/start". `body` (may be NULL) is taken. NULL: *error. */
JsonObject *rest_call(struct rest *r, const char *method, JsonObject *body, GError **error, const char *path, ...)
    G_GNUC_PRINTF(5, 6);
/* The same for an answer that is text. */
char *rest_text(struct rest *r, GError **error, const char *path, ...) G_GNUC_PRINTF(3, 4);
/* PUTs so many bytes of a stream; fn (may be NULL) is told how many have gone. */
bool rest_put(struct rest *r, GInputStream *in, uint64_t length, void (*fn)(uint64_t done, void *opaque), void *opaque, GError **error,
              const char *path, ...) G_GNUC_PRINTF(7, 8);
/* An answer that goes on: its bytes. */
GInputStream *rest_stream(struct rest *r, GError **error, const char *path, ...) G_GNUC_PRINTF(3, 4);
/* A member of an answer that is text; NULL: it has none. */
const char *text_of(JsonObject *o, const char *name);
const char *yes_no(JsonObject *o, const char *name); /* of a boolean */
/* Opens a websocket; runs the default main context until it is there or failed. */
SoupWebsocketConnection *rest_websocket(struct rest *r, GError **error, const char *path, ...) G_GNUC_PRINTF(3, 4);
