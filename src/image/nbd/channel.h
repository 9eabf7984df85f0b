/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One NBD connection as a stream of bytes, plain or by TLS, for fibers that read and write exactly
 * so much.
 *
 * Owner     The client's connection or the server's client embeds it; channel_done() closes the
 *           socket.
 * Thread    The home thread of `ctx`; channel_shutdown() from any thread while the channel lives.
 * Fiber     Everything that moves bytes. One fiber reads at a time; any number send: each message
 *           leaves whole, and those that wait leave together.
 * Errors    0 or negative errno: -ECONNRESET at the end of the stream in the middle of what was
 *           asked, -ENODATA at its end before the first byte. After an error the channel is of no
 *           use.
 */
#pragma once

#include "image/context.h"
#include "image/nbd/tls.h"

#define CHANNEL_IN_BYTES (64 * KIB) /* read ahead of what was asked */
#define CHANNEL_IOV_MAX  64         /* of one system call */

struct channel {
    struct context *ctx; /* borrowed; changes while nobody waits */
    int fd;
    struct tls_session *tls; /* NULL: plain */
    bool tcp;
    _Atomic bool shut; /* channel_shutdown(): what the peer has sent already is not read any more */
    uint8_t *in;       /* CHANNEL_IN_BYTES */
    size_t in_pos, in_len; /* unread bytes are [in_pos, in_len) */
    int send_error;        /* the first one: nothing is sent any more */
    bool sending;          /* a fiber is at it, for all in the queue */
    struct channel_message *queue, **queue_tail;
    uint8_t *tls_out; /* TLS_RECORD_BYTES */
};

/* A message on its way, on its sender's stack. */
struct channel_message {
    const struct iovec *iov;
    unsigned count;
    bool sent;
    struct fiber *waiter;
    struct channel_message *next;
};

/* Takes fd: connected or connecting, non-blocking. */
void channel_init(struct channel *ch, struct context *ctx, int fd);
void channel_done(struct channel *ch); /* nobody waits; twice is fine */
void channel_shutdown(struct channel *ch);

/* TLS from now on; no byte may be read ahead. host: see tls_session_new(). */
bool channel_start_tls(struct channel *ch, struct tls_creds *creds, const char *host,
                       GError **error);
int channel_read(struct channel *ch, void *buf, size_t len);
int channel_read_vec(struct channel *ch, struct vec v);
int channel_skip(struct channel *ch, uint64_t len);
/* Bytes that channel_read() gives without waiting. */
static inline size_t channel_buffered(const struct channel *ch)
{
    return ch->in_len - ch->in_pos;
}
/* All of iov[0 .. count), which is left alone. */
int channel_send(struct channel *ch, const struct iovec *iov, unsigned count);
int channel_send_flat(struct channel *ch, const void *buf, size_t len);
