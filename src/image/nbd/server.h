/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NBD server: nodes as exports for many clients, on one Unix or TCP socket. `ruche-img serve` and
 * the machine's nbd-server-start, -add, -remove and -stop are made of it.
 *
 * Spec      NBD protocol, fixed newstyle; meta contexts base:allocation, qemu:dirty-bitmap:NAME,
 *           qemu:allocation-depth.
 * Owner     nbd_server_new() ... nbd_server_free(). An export holds its node, and its bitmaps busy.
 * Thread    Everything here: the home thread of the server's context. Handshakes run there; a
 *           client's requests run on the context of the node that it asked for, which stays the
 *           same while the export has clients.
 *           While that is another thread, exports are added and removed outside of fibers.
 * Trust     Clients are hostile: each has bounds on requests and bytes in flight, on the time of
 *           its handshake, and on what one request may ask; one that does not read holds up itself
 *           alone. Idle clients are fine.
 * Errors    Sentences.
 */
#pragma once

#include "image/nbd/tls.h"
#include "image/node.h"

struct nbd_server;
struct nbd_export;

struct nbd_server_config {
    const char *unix_path; /* either this, */
    const char *host,
        *port;     /* or these (host NULL: loopback, port NULL: 10809; "0": any free one), */
    int listen_fd; /* or a listening socket, which is taken; -1: none */
    struct tls_creds *tls; /* NULL: plain; otherwise clients must use TLS. A reference is taken */
    const char *tls_authz; /* id of the object that says who is let in (image/authz.h); NULL: all. Copied */
    /* 0: the default */
    unsigned max_connections; /* 100; further ones wait to be accepted */
    unsigned handshake_ms;    /* 10000 */
    unsigned max_requests;    /* in flight for one client: 64 */
    uint64_t max_bytes;       /* of their buffers: 32 MiB, which is also the least */
    /* After the last client has gone. Home thread, outside of fibers. May be NULL */
    void (*idle)(void *opaque);
    void *opaque;
};
#define NBD_SERVER_CONFIG_INIT                                                                     \
    {                                                                                              \
        .listen_fd = -1                                                                            \
    }

struct nbd_server *nbd_server_new(struct context *c, const struct nbd_server_config *config,
                                  GError **error);
/* Nobody is accepted any more, every client is disconnected; returns when their requests have ended
 * and the exports are gone. In a fiber of the server's context, or outside of fibers. NULL is fine.
 */
void nbd_server_free(struct nbd_server *s);
/* "nbd://127.0.0.1:10809", "nbd+unix://?socket=/run/x": with the real port. */
const char *nbd_server_where(const struct nbd_server *s);
unsigned nbd_server_client_count(const struct nbd_server *s);

struct nbd_export_config {
    const char *name;        /* NULL: the node's name; "" is the default export */
    const char *description; /* NULL: none */
    struct node *node;
    bool writable;
    const char *const *bitmaps; /* names, NULL-terminated; sought from the node down its backing
                                   chain. NULL: none */
    bool allocation_depth;
};
#define NBD_EXPORT_BITMAPS_MAX 64

struct nbd_export *nbd_server_add(struct nbd_server *s, const struct nbd_export_config *config,
                                  GError **error);
struct nbd_export *nbd_server_find(const struct nbd_server *s,
                                   const char *name); /* borrowed, or NULL */
/* In order of addition; start with NULL. */
struct nbd_export *nbd_server_next(const struct nbd_server *s, const struct nbd_export *after);
/* force: its clients are disconnected; otherwise it is refused while there are any. Returns when it
 * is gone. */
bool nbd_server_remove(struct nbd_server *s, const char *name, bool force, GError **error);

const char *nbd_export_get_name(const struct nbd_export *e);
struct node *nbd_export_node(const struct nbd_export *e);
bool nbd_export_is_writable(const struct nbd_export *e);
unsigned nbd_export_client_count(const struct nbd_export *e);
