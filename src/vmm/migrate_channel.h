/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a migration's bytes go to or come from: a descriptor by any of its names.
 *
 *   fd:NAME             one that getfd took, or that -add-fd's number says (fd:N)
 *   file:PATH[,offset=N] a file; what stands before the offset stays
 *   exec:COMMAND        the standard input (out) or output (in) of a shell command
 *   unix:PATH, tcp:HOST:PORT   connected to (out), or listened at for one peer (in)
 *
 * Owner     The caller: migrate_channel_done() closes, and ends a command that still runs.
 * Thread    Open: main. Connect and moving bytes: a migration's own, which migrate_channel_cancel() (any thread) makes
 *           fail. The rest: main.
 * Errors    Sentences.
 */
#pragma once

#include "base/error.h"
#include "base/sock.h"
#include "base/util.h"

struct vmm;

enum migrate_scheme { MIGRATE_TO_FD, MIGRATE_TO_FILE, MIGRATE_TO_EXEC, MIGRATE_TO_UNIX, MIGRATE_TO_TCP };

struct migrate_channel {
    enum migrate_scheme scheme;
    char *where, *port;         /* behind the scheme */
    uint64_t offset;            /* of a file */
    int fd;                     /* -1: not yet */
    int cancel_fd;              /* readable: give up */
    int listen_fd;              /* in: -1 where nothing is listened at */
    struct sock_path path;
    int pid;                    /* of a command; 0: none */
    bool out, socket;
};

/* For writing (out) or reading: all that does not wait. Sockets are connected later, or listened at. */
bool migrate_channel_open(struct migrate_channel *c, struct vmm *v, const char *uri, bool out, GError **error);
bool migrate_channel_connect(struct migrate_channel *c, GError **error); /* out; may wait */
/* migrate_move_fn: `opaque` is the channel. */
bool migrate_channel_write(void *opaque, void *buf, size_t len, GError **error);
bool migrate_channel_read(void *opaque, void *buf, size_t len, GError **error);
/* All is written: the command, if there is one, must end well. */
bool migrate_channel_finish(struct migrate_channel *c, GError **error);
/* Waits so long, or until cancelled (false). */
bool migrate_channel_sleep(struct migrate_channel *c, int64_t ns);
/* Tells the other side that nothing more comes, and waits for its end (bounded), also when cancelled. A socket's. */
void migrate_channel_hang_up(struct migrate_channel *c);
void migrate_channel_cancel(struct migrate_channel *c);
void migrate_channel_done(struct migrate_channel *c);
