/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside web/: connections, and the answers that go on (events, consoles). */
#pragma once

#include "web/module.h"
#include "web/op.h"

#include <libsoup/soup.h>

/* listen.c: sockets, who is behind them, and how many. */
bool web_listen(SoupServer *server, const struct web_config *c, GError **error); /* HTTPS, if configured */
bool web_listen_unix(SoupServer *server, int fd, GError **error);                /* takes the descriptor */
void web_listen_stop(void);
/* Who sent this message; valid while the message is. */
const struct caller *web_caller(SoupServerMessage *msg);
/* HTTPS without a certificate: the bearer's token decides. False: not shown. */
bool web_authenticate(SoupServerMessage *msg, GError **error);

/* Ends the connection that a message came by, whatever waits in it. */
void web_drop(SoupServerMessage *msg);

/* server.c */
void web_answer_error(SoupServerMessage *msg, const GError *error);
void web_answer_empty(SoupServerMessage *msg);
/* The body that still comes is not kept; a peer that does not stop is cut off. */
void web_refuse_body(SoupServerMessage *msg);

/* transfer.c: operations with a flow. An upload begins before its body is read; false: this is the end of no upload. */
void web_download(SoupServerMessage *msg, JsonObject *args);
void web_upload_begin(SoupServerMessage *msg, JsonObject *args);
bool web_upload_end(SoupServerMessage *msg);

/* events.c: the rest of this answer is events, until the reader goes. */
void web_events(SoupServerMessage *msg);
void web_events_stop(void);

/* console.c: a websocket is a machine's console. */
void web_console(SoupServer *server, SoupServerMessage *msg, const char *path, SoupWebsocketConnection *socket,
                 gpointer opaque);
