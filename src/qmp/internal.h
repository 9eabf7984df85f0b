/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside qmp/: the server's parts. */
#pragma once

#include "qmp/errors.h"
#include "base/json_frame.h"
#include "qmp/qmp.h"

struct qmp_session {
    struct qmp_server *server;
    struct qmp_transport transport;
    struct frame frame;
    GString *out;       /* not yet taken by the transport */
    bool negotiated, dropped;
    bool busy;          /* inside a command: freed behind it */
    bool freed;
    int fds[QMP_MAX_FDS]; /* received, not yet taken; oldest first */
    unsigned fd_count;
    struct qmp_session *next;
};

struct qmp_server {
    void *opaque;
    struct qmp_session *sessions;
    unsigned session_count;
    struct qmp_session *current; /* whose command is in hand; NULL: nobody's */
    GPtrArray *listeners; /* struct listener, listen.c */
    GPtrArray *clients;   /* struct client, listen.c */
    GHashTable *limits;   /* key to struct limit, events.c */
    volatile bool stop_waiting;
};

/* dispatch.c */
const struct qmp_command *qmp_command_find(const char *name);

/* session.c: a line of output, without its end. A session that lets too much wait is dropped. */
void qmp_session_send(struct qmp_session *q, const char *text);

/* events.c */
void qmp_limits_free(struct qmp_server *s);

/* listen.c */
void qmp_listeners_free(struct qmp_server *s);
