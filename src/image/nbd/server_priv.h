/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NBD server: between its files.
 *
 * Thread    "Server" is the home thread of the server's context, "export" the one of the node's
 *           context.
 * Life      A client is born on the server's thread, shakes hands there (handshake.c), moves to its
 *           export's thread for its requests (serve.c), and comes back to be freed (server.c).
 */
#pragma once

#include "image/dirty.h"
#include "image/nbd/channel.h"
#include "image/nbd/proto.h"
#include "image/nbd/server.h"

#define NBD_BUFFER_MIN     (4 * KIB)
#define NBD_BUFFER_CLASSES 14         /* 4 KiB to 32 MiB, by powers of two */
#define NBD_BUFFERS_KEEP   (16 * MIB) /* idle bytes that an export may hold */

struct nbd_free_buffer {
    struct nbd_free_buffer *next;
};

struct nbd_export_bitmap {
    char *context; /* "qemu:dirty-bitmap:NAME" */
    struct dirty_bitmap *bitmap;
};

struct nbd_export {
    struct nbd_server *server;
    char *name, *description, *who;
    struct node_user user; /* of the node; export's thread */
    struct context *ctx;   /* the node's */
    uint64_t size_bytes;
    uint32_t preferred_block;
    bool writable, allocation_depth;
    struct nbd_export_bitmap *bitmaps;
    unsigned bitmap_count;
    unsigned paused;               /* who drains the node; export's thread */
    struct fiber_queue resume;     /* requests that wait for it */
    uint64_t data_begin, data_end; /* known to be data, or to have been; export's thread */
    struct nbd_free_buffer *buffers[NBD_BUFFER_CLASSES]; /* export's thread */
    uint64_t buffer_bytes;                               /* idle */
    unsigned clients;                                    /* server's thread */
    bool closing;                                        /* nobody may ask for it any more */
    struct nbd_export *next;
};

/* Which meta contexts a client asked for: ids on the wire are these, and CONTEXT_BITMAP + index. */
enum { CONTEXT_BASE, CONTEXT_DEPTH, CONTEXT_BITMAP };
struct nbd_contexts {
    struct nbd_export *export; /* for which they were asked; NULL: none */
    bool base, depth;
    uint64_t bitmaps; /* one bit each */
};

/* A request of a client, in flight. */
struct nbd_job {
    struct nbd_client *client;
    struct nbd_request request;
    uint8_t *buf; /* of nbd_buffer_get(buf_len); WRITE: its data */
    uint32_t buf_len;
    struct nbd_job *next; /* idle ones */
};

struct nbd_client {
    struct nbd_server *server;
    struct channel ch;
    struct nbd_client *next;
    /* handshake, server's thread */
    struct loop_timer deadline;
    bool no_zeroes, structured, tls_done;
    struct nbd_contexts contexts;
    uint8_t *option;             /* data of the option that is handled, NBD_OPTION_DATA_MAX */
    struct nbd_option_head head; /* its number and length */
    GByteArray *out;             /* replies to it, which leave together */
    struct nbd_export *export;   /* it counts among its clients; NULL: not let in yet */
    /* requests, export's thread */
    struct loop_task task; /* moves it between the threads */
    struct nbd_job *jobs, *idle_jobs;
    unsigned in_flight;
    uint64_t bytes_in_flight;
    struct fiber_queue room; /* the reader, while too much is in flight or at the end */
};

struct nbd_server {
    struct context *ctx;
    struct nbd_server_config config;
    struct tls_creds *tls;
    char *tls_authz; /* NULL: everybody is let in */
    int listen_fd;
    struct sock_path *path;
    char *where;
    bool stopping, accepting;
    struct nbd_export *exports;
    struct nbd_client *clients;
    unsigned client_count;
    struct fiber_queue room;  /* accept, while there are too many */
    struct fiber_queue ended; /* fibers that wait for a client to go, or for accept to end */
    struct loop_task idle_task;
};

/* handshake.c: server's fiber. True: the client is let into c->export. False: hang up. */
bool nbd_handshake(struct nbd_client *c);
/* For all who handle options: replies to the one in c->head. */
void nbd_reply_option(struct nbd_client *c, uint32_t type, const void *data, size_t len);
void nbd_refuse_option(struct nbd_client *c, uint32_t type, const char *text);
/* contexts.c: options LIST_META_CONTEXT and SET_META_CONTEXT. */
void nbd_handle_contexts(struct nbd_client *c);

/* serve.c: fiber on the export's thread, until the client goes. */
void nbd_serve(struct nbd_client *c);
int nbd_send_chunk(struct nbd_client *c, const struct nbd_request *r, uint16_t flags, uint16_t type,
                   const void *head, uint32_t head_len, const void *body, uint32_t body_len);
void nbd_serve_done(struct nbd_client *c); /* frees what nbd_serve() made */

/* The node, for one call of node_*(): waits while somebody drains it. */
struct node *nbd_export_enter(struct nbd_export *e);

/* read.c, status.c: the whole answer. 0, -errno to be answered in its place, or NBD_ANSWERED. */
int nbd_answer_read(struct nbd_job *j);
int nbd_answer_status(struct nbd_job *j);
#define NBD_ANSWERED     1
#define NBD_READ_PIECE   (1 * MIB)  /* of a read that is answered in several chunks */
#define NBD_STATUS_BYTES (64 * KIB) /* extents of one context */

/* buffers.c: of at least len bytes, aligned for direct I/O; NULL: no memory. */
uint8_t *nbd_buffer_get(struct nbd_export *e, uint32_t len);
void nbd_buffer_put(struct nbd_export *e, uint8_t *buf, uint32_t len);
void nbd_buffers_free(struct nbd_export *e);
