/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client's transmission phase on one connection: many calls in flight, answered in any order.
 *
 * Spec      NBD protocol, "Transmission", simple and structured replies.
 * Owner     Counted: the node holds one reference; every call and the reader hold one while they
 *           run. The last one closes the socket.
 * Fiber     nbd_link_call() waits for the answer. The fiber that reads answers exists while calls
 *           are in flight, so that an idle connection holds on to nothing of its context.
 * Trust     The server is hostile: an answer must belong to a call in flight, stay inside what that
 *           call asked for, and a read is complete only when every byte of it came.
 */
#pragma once

#include "image/nbd/channel.h"
#include "image/nbd/negotiate.h"

#define NBD_CALLS_MAX 64 /* in flight on one connection */
#define NBD_SPANS_MAX 32 /* pieces of one read that are apart, when answers come out of order */

/* One request, on its fiber's stack. */
struct nbd_call {
    uint16_t command, flags;
    uint64_t offset;
    uint32_t len;
    struct vec data;                   /* READ: where to; WRITE: what */
    uint32_t extent_len, extent_flags; /* BLOCK_STATUS: the first extent */
    bool lost;                         /* no answer: the connection ended */
    /* private */
    int error;
    bool done;
    struct fiber *waiter;
    struct {
        uint64_t begin, end;
    } spans[NBD_SPANS_MAX]; /* READ: what came, in order, apart from one another */
    unsigned span_count;
};

struct nbd_link {
    struct channel ch;
    struct nbd_offer offer;
    char *where; /* for messages */
    unsigned refs;
    bool dead;
    bool reading; /* the reader's fiber lives */
    struct nbd_call *calls[NBD_CALLS_MAX];
    uint16_t turn[NBD_CALLS_MAX]; /* makes each use of a slot another cookie */
    unsigned in_flight;           /* slots taken */
    unsigned open;                /* calls that wait for an answer */
    struct fiber_queue room;      /* who waits for a slot */
};

/* After nbd_negotiate() on l->ch; see client.c. */
struct nbd_link *nbd_link_new(const char *where);
void nbd_link_unref(struct nbd_link *l); /* NULL is fine */
/* 0 or what the server answered, as negative errno; -EIO and call->lost when the connection ended
 * first. */
int nbd_link_call(struct nbd_link *l, struct nbd_call *call);
/* Says goodbye; no call in flight. */
void nbd_link_goodbye(struct nbd_link *l);
