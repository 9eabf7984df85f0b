/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the kinds of streams share. */
#pragma once

#include "libvirt/stream.h"

/* One message of the client, not yet worked off. */
struct stream_item {
    bool hole;        /* `len` bytes of nothing */
    uint64_t len, at; /* `at`: so much of it is done */
    uint8_t data[];
};

struct stream_kind {
    void (*begin)(struct rpc_stream *s); /* data may flow */
    void (*input)(
        struct rpc_stream *s); /* there is an item, or the client has finished; NULL: takes none */
    void (*room)(struct rpc_stream *s); /* output is taken again; NULL: sends none */
    void (*end)(struct rpc_stream *s);  /* let go of sources and wake tasks */
    bool waits;                         /* input beyond the limit waits, does not end the stream */
};

struct rpc_stream {
    unsigned refs;
    const struct stream_kind *kind;
    struct client *client; /* a reference, until it is over */
    struct frame head;     /* of its messages */
    int fd;
    uint64_t left; /* bytes that may still pass */
    bool sparse;
    bool begun, over;
    bool at_work;  /* a worker has the descriptor */
    bool finished; /* the client has said OK, or ... */
    bool aborted;  /* ... that it gives up */
    GError *error; /* why we end it */
    GQueue items;
    size_t item_bytes;
    struct fiber *waiter;        /* the task of a file, while it waits for input or room */
    guint in_source, out_source; /* of a duplex one */
    void (*on_end)(void *opaque, int fd, bool failed);
    void *on_end_opaque;
};

struct rpc_stream *stream_new(struct rpc_call *c, const struct stream_kind *kind, int fd,
                              uint64_t length);
void stream_ref(struct rpc_stream *s);
void stream_unref(struct rpc_stream *s);
/* Data (or, of no bytes, the end) to the client. */
void stream_send(struct rpc_stream *s, const void *data, size_t len);
void stream_send_hole(struct rpc_stream *s, uint64_t len);
/* OK to the client. */
void stream_confirm(struct rpc_stream *s);
/* Takes it out of the client's list and calls on_end, once no worker has its descriptor any more. `e` (may be NULL,
 * taken) goes to the client first. */
void stream_over(struct rpc_stream *s, GError *e);
/* In a task that holds a reference: fn(opaque) on a worker, which may use the stream's descriptor. An end meanwhile
 * waits for it, so that nobody takes the source for free while it is still read or written. */
void stream_work(struct rpc_stream *s, void (*fn)(void *opaque), void *opaque);
void stream_item_done(struct rpc_stream *s);
/* In a task: until somebody calls stream_wake(). */
void stream_wait(struct rpc_stream *s);
void stream_wake(struct rpc_stream *s);
