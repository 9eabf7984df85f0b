/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One connection: bytes in, calls made, bytes out, all bounded.
 *
 * Spec      libvirt's RPC at 9.0.0.
 * Thread    The loop thread.
 * Owner     The server's list holds a reference until the connection ends; each call under way and
 *           each stream holds one. After client_end() nothing is sent and nothing is read: whoever
 *           still holds it only lets go.
 * Flow      One read may bring many messages; fast calls are answered in the same round with one
 *           write for all. While `max_calls` are under way, or `pause_output_bytes` wait to be
 *           written, nothing is read.
 * Trust     Bytes are the peer's. Before CONNECT_OPEN, and of read-only clients, only small
 *           messages are kept; of all clients together at most INPUT_TOTAL_BYTES.
 */
#pragma once

#include "libvirt/errors.h"
#include "libvirt/frame.h"
#include "libvirt/rpc.h"
#include "libvirt/sasl.h"
#include "libvirt/server.h"
#include "libvirt/tls.h"
#include "libvirt/transport.h"

#define INPUT_SMALL_BYTES (256u << 10)
#define INPUT_TOTAL_BYTES (512u << 20)

struct event_registration;

/* What epoll tells: embedded in whatever it watches. */
struct watch {
    void (*ready)(struct watch *w, uint32_t epoll_events);
};

enum client_kind { CLIENT_UNIX, CLIENT_UNIX_RO, CLIENT_TCP, CLIENT_TLS };

struct client {
    struct watch watch;
    unsigned refs;
    enum client_kind kind;
    struct transport io;
    struct tls *tls; /* to check the peer with; NULL: plain */
    struct caller who;
    enum libvirt_auth auth;
    GList link, half_open_link; /* in the server's lists */
    bool opened;                /* CONNECT_OPEN was answered */
    bool ended;                 /* nothing more in or out */
    bool end_when_sent;         /* after CONNECT_CLOSE's answer */
    bool in_round;              /* output is written at the end of the round */
    bool close_callback;        /* wants CONNECT_EVENT_CONNECTION_CLOSED */
    uint32_t interest;          /* what epoll watches for now */
    int64_t since_us;           /* when it came */

    GByteArray *in;         /* begin of a message that is not complete; may be NULL */
    uint32_t skip;          /* bytes of a message too big for now, thrown away */
    struct frame skipped;   /* whose it is */
    int fds[FRAME_MAX_FDS]; /* that came and were not yet claimed by a message */
    unsigned fd_count;
    unsigned calls; /* under way */

    GByteArray *out;
    guint out_at;         /* so much of `out` is written */
    uint64_t out_sent;    /* ever, with what out_at says */
    GQueue fds_out;       /* struct fd_out, in order */
    int64_t out_moved_us; /* when bytes were last taken, or began to wait */

    struct sasl_layer *sasl; /* the exchange, then the layer */
    bool sasl_busy;          /* a worker has it */
    uint64_t sasl_from;      /* protects from this byte of output on; 0: does not */

    bool knows_keepalive;
    unsigned pings; /* without an answer */
    int64_t heard_us, pinged_us;

    GQueue streams; /* struct rpc_stream */
    struct event_registration *registrations;
    int next_callback;
};

/* Takes the descriptor. The new one is in the server's list. */
struct client *client_new(int fd, enum client_kind kind, struct tls *tls, enum libvirt_auth auth);
struct client *client_ref(struct client *c);
void client_unref(struct client *c);
/* Ends the connection now; `why` (NULL: nothing to tell) is logged. Twice is fine. */
void client_end(struct client *c, const char *why);
/* Called about once a second: time limits and keepalive. */
void client_tick(struct client *c, int64_t now_us);
/* CONNECT_OPEN succeeded: the client is no longer half-open. */
void client_opened(struct client *c);
/* SASL is done: bytes behind what waits now are protected. */
void client_protect(struct client *c);

/* Output. Appending: frame_begin(c->out, ...) ... frame_end(); then client_flush(). */
static inline size_t client_waiting_bytes(const struct client *c)
{
    return c->out->len - c->out_at;
}
/* The descriptor (taken) goes behind what is in `out` now. */
void client_send_fd(struct client *c, int fd);
/* Writes what can be written, unless the round's end does. */
void client_flush(struct client *c);
/* Ready to take more output: below pause_output_bytes. */
bool client_has_room(const struct client *c);
/* Something that held reading back is gone. */
void client_resume(struct client *c);

/* Messages: call.c. fds came with it: taken ones become -1, the caller closes the rest. */
void client_message(struct client *c, const struct frame *f, const uint8_t *payload, size_t len,
                    int *fds, unsigned fd_count);
/* The error as the answer to `f`. */
void client_send_error(struct client *c, const struct frame *f, int type, const GError *e);
/* Sends rows of a struct as a message: events. False: too long. */
bool client_send_rows(struct client *c, const struct frame *f, const struct xdr_row *rows,
                      const void *obj);

/* The server's side of it (server.c). */
const struct libvirt_server_config *server_config(void);
struct libvirt_server_figures *server_figures(void);
extern size_t server_input_bytes; /* kept of all clients */
void server_watch(struct watch *w, int fd, uint32_t *interest, uint32_t wanted);
void server_unwatch(int fd);
void server_add(struct client *c);
void server_remove(struct client *c);
void server_opened(struct client *c);
/* Freed when no more events of this round can name it. */
void server_bury(struct client *c);
GList *server_clients(void);
