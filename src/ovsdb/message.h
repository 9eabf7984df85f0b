/* SPDX-License-Identifier: GPL-2.0-or-later */
/* OVSDB's messages: JSON-RPC 1.0 in a stream, for client and server.
 *
 * Spec      RFC 7047, section 4. Texts are cut out of the stream by base/json_frame.h.
 * Thread    Any.
 * Trust     Texts are a peer's.
 */
#pragma once

#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stddef.h>

#define OVSDB_MESSAGE_MAX (16u << 20) /* bytes of one text */
#define OVSDB_DEPTH_MAX   64          /* brackets */

enum ovsdb_message_kind { OVSDB_REQUEST, OVSDB_NOTIFICATION, OVSDB_RESPONSE };
/* Parts belong to `root`. */
struct ovsdb_message {
    JsonNode *root;
    enum ovsdb_message_kind kind;
    const char *method; /* of a request or notification */
    JsonArray *params;  /* of the same */
    JsonNode *id;       /* of a request or response */
    JsonNode *result;   /* of a response: one of the two is NULL */
    JsonNode *error;
};
/* NULL, or what is wrong with the text. */
const char *ovsdb_message_parse(struct ovsdb_message *ret, const char *text, size_t len);
void ovsdb_message_done(struct ovsdb_message *m);

/* Texts to send. `params` is taken; id -1: a notification. */
char *ovsdb_request_text(const char *method, JsonArray *params, int64_t id);
/* `result` or `error` may be NULL; nothing is taken. */
char *ovsdb_response_text(JsonNode *id, JsonNode *result, JsonNode *error);
