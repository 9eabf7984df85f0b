/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The server of libvirt's protocol: where it listens, whom it lets in, how much one client may
 * take.
 *
 * Spec      libvirt's RPC at 9.0.0 over Unix sockets, TCP and TLS; SASL (RFC 4422).
 * Thread    The loop thread.
 * Owner     Strings of the configuration are the caller's and stay until libvirt_server_stop().
 * Errors    libvirt_server_start() listens everywhere or nowhere.
 */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

enum libvirt_auth {
    LIBVIRT_AUTH_NONE,  /* whoever reaches the socket; over TLS: whoever has a certificate */
    LIBVIRT_AUTH_LOCAL, /* Unix sockets: root, our own user and members of `group`; the read-only
                           one: all, unless `own_only` */
    LIBVIRT_AUTH_SASL,  /* name and password; root on a Unix socket needs none */
};

struct libvirt_server_config {
    /* libvirt-sock and libvirt-sock-ro are made in each of these folders (made, too), NULL-ended;
     * NULL: none.
     */
    const char *const *socket_dirs;
    const char *group; /* of LIBVIRT_AUTH_LOCAL, and the sockets' group; NULL: none */
    bool own_only;     /* a person's own manager: Unix sockets are for him and root alone */
    enum libvirt_auth auth_unix_rw, auth_unix_ro, auth_tcp, auth_tls;

    const char *tcp_host,
        *tcp_port; /* port NULL: no TCP; host NULL: loopback; "*": every address */
    const char *tls_host, *tls_port;                   /* port NULL: no TLS */
    const char *tls_ca, *tls_cert, *tls_key, *tls_crl; /* PEM files; crl may be NULL */
    bool tls_any_client; /* certificates of clients are not asked for */
    const char *const
        *tls_names; /* patterns of distinguished names let in; NULL: all that the CA signed */
    const char *const *sasl_names; /* patterns of user names let in; NULL: all */

    unsigned max_clients;      /* connections, all sockets together */
    unsigned max_half_open;    /* of them, before CONNECT_OPEN: the oldest gives way */
    unsigned half_open_s;      /* how long one may stay so */
    unsigned max_calls;        /* under way, of one client: the next is read when one is answered */
    size_t max_output_bytes;   /* waiting for one client: events beyond end the connection */
    size_t pause_output_bytes; /* waiting for one client: beyond, nothing more is read from it */
    unsigned stalled_s;        /* output is not read for so long: the connection ends */
    int keepalive_s;           /* ping a silent client that knows keepalive; <= 0: never */
    unsigned keepalive_count;  /* pings without an answer that end the connection */
    bool stay_awake; /* for local clients that call in quick succession (manager/awake.h) */
};

/* Defaults: no sockets, local authentication, 5000 clients, 1000 half-open for 60 s, 64 calls, 5 s
 * keepalive. */
void libvirt_server_config_init(struct libvirt_server_config *config);
bool libvirt_server_start(const struct libvirt_server_config *config, GError **error);
/* Tells clients that asked for it that the connection closes, ends them all and removes sockets. */
void libvirt_server_stop(void);
/* Ports that were chosen for port "0", for tests; 0: not listening. */
unsigned libvirt_server_tcp_port(void);
unsigned libvirt_server_tls_port(void);
/* For metrics. */
struct libvirt_server_figures {
    unsigned clients, half_open;
    uint64_t accepted, dropped, calls, errors, events;
};
void libvirt_server_figures(struct libvirt_server_figures *ret);
