/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The driver "nbd": between its files.
 *
 * Spec      QEMU's names and options: nbd://, nbds://, nbd+tcp://, nbd+unix://, nbds+unix://,
 *           nbd:HOST:PORT and nbd:unix:PATH.
 */
#pragma once

#include "image/driver.h"
#include "image/nbd/link.h"

#define NBD_LINKS_MAX 16

enum nbd_server_type { NBD_SERVER_NONE, NBD_SERVER_INET, NBD_SERVER_UNIX };
extern const char *const nbd_server_type_words[];

/* What the options say. */
struct nbd_address {
    int type; /* enum nbd_server_type */
    char *host, *port, *path;
};

struct nbd_node {
    struct node node;
    struct nbd_address server, flat; /* "server.host" and the older "host" */
    char *export, *tls_creds, *tls_hostname, *dirty_bitmap;
    uint64_t reconnect_delay, open_timeout; /* seconds */
    uint64_t link_count;                    /* connections wanted */

    char *where; /* "nbd://host:port", for messages */
    struct tls_creds *creds;
    struct nbd_offer offer; /* of the first connection */
    struct nbd_link *links[NBD_LINKS_MAX];
    bool reached; /* the last attempt found a server there: what it refuses, it will refuse again */
    bool was_lost[NBD_LINKS_MAX]; /* said so */
    int64_t lost_ns,
        retry_ns; /* when the last connection went; when to try again after the delay */
    struct fiber_mutex connecting;
    /* open() with a deadline, and closing: no connection is waited for beyond it */
    struct loop_timer timer;
    struct channel *timed; /* shut down when the timer fires */
};

/* Puts a name's parts into options: "server" and "export"; "tls-creds" cannot be said in a name. */
bool nbd_parse_name(const char *filename, JsonObject *options, GError **error);
/* The one address that the options give; false: none, or both forms. */
bool nbd_address_check(struct nbd_node *n, GError **error);
char *nbd_address_name(const struct nbd_address *a, bool tls); /* "nbd://host:port" */
char *nbd_export_name(const struct nbd_node *n); /* the same with the export: node_filename() */

/* Connects and negotiates, in so much time at most. NULL with *error. (f) */
struct nbd_link *nbd_connect(struct nbd_node *n, unsigned seconds, GError **error);
/* A living connection for the next request: one of several, made anew when it was lost, as long as
 * reconnect-delay lets us wait. NULL: none. The caller gets a reference. (f) */
struct nbd_link *nbd_pick_link(struct nbd_node *n);
#define NBD_CONNECT_SECONDS 30 /* opening */
#define NBD_RETRY_SECONDS   5  /* while requests wait */
