/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Streams: life and messages, the same for all kinds. Thread: the loop thread. */
#include "libvirt/stream_priv.h"

#include "base/cursor.h"
#include "base/fd.h"

#include <string.h>

/* ---- life ---- */

struct rpc_stream *stream_new(struct rpc_call *c, const struct stream_kind *kind, int fd,
                              uint64_t length)
{
    struct rpc_stream *s = g_new0(struct rpc_stream, 1);
    s->refs = 1;
    s->kind = kind;
    s->client = client_ref(c->client);
    s->head = (struct frame){c->program,   PROGRAM_VERSION, c->procedure,
                             FRAME_STREAM, c->serial,       FRAME_CONTINUE};
    s->fd = fd;
    s->left = length;
    g_queue_init(&s->items);
    c->stream = s;
    return s;
}

void stream_ref(struct rpc_stream *s)
{
    s->refs++;
}

void stream_unref(struct rpc_stream *s)
{
    if (--s->refs)
        return;
    g_queue_clear_full(&s->items, g_free);
    g_clear_error(&s->error);
    fd_close_keep_errno(s->fd);
    g_free(s);
}

void stream_on_end(struct rpc_stream *s, void (*fn)(void *opaque, int fd, bool failed),
                   void *opaque)
{
    s->on_end = fn;
    s->on_end_opaque = opaque;
}

void stream_begin(struct rpc_stream *s)
{
    if (s->client->ended) {
        stream_over(s, NULL);
        return;
    }
    s->begun = true;
    g_queue_push_tail(&s->client->streams, s);
    s->kind->begin(s);
}

void stream_drop(struct rpc_stream *s)
{
    stream_over(s, NULL);
}

/* Tells the client how it ended, now that nothing of it is held any more. */
static void tell_end(struct rpc_stream *s)
{
    if (s->error)
        client_send_error(s->client, &s->head, FRAME_STREAM, s->error);
    else if (s->finished)
        stream_confirm(s);
    client_unref(g_steal_pointer(&s->client));
    stream_unref(s);
}

static void run_on_end(void *opaque)
{
    struct rpc_stream *s = opaque;
    s->on_end(s->on_end_opaque, fd_steal(&s->fd), s->error || s->aborted || !s->finished);
    tell_end(s);
}

static void settle(struct rpc_stream *s)
{
    if (s->on_end)
        task_start(run_on_end, s);
    else
        tell_end(s);
}

void stream_over(struct rpc_stream *s, GError *e)
{
    if (s->over) {
        g_clear_error(&e);
        return;
    }
    s->over = true;
    s->error = e;
    g_queue_remove(&s->client->streams, s);
    g_queue_clear_full(&s->items, g_free);
    s->item_bytes = 0;
    s->kind->end(s);
    if (!s->at_work)
        settle(s);
}

void stream_work(struct rpc_stream *s, void (*fn)(void *opaque), void *opaque)
{
    s->at_work = true;
    task_work(fn, opaque);
    s->at_work = false;
    if (s->over)
        settle(s);
}

void streams_end(struct client *c)
{
    struct rpc_stream *s;
    while ((s = g_queue_peek_head(&c->streams)))
        stream_over(s, NULL);
}

void stream_wait(struct rpc_stream *s)
{
    s->waiter = fiber_self();
    fiber_wait();
}

void stream_wake(struct rpc_stream *s)
{
    if (s->waiter)
        fiber_wake(g_steal_pointer(&s->waiter));
}

/* ---- to the client ---- */

void stream_send(struct rpc_stream *s, const void *data, size_t len)
{
    struct client *c = s->client;
    if (c->ended)
        return;
    guint begin = frame_begin(c->out, &s->head);
    g_byte_array_append(c->out, data, (guint)len);
    frame_end(c->out, begin);
    client_flush(c);
}

struct hole {
    int64_t length;
    uint32_t flags;
};
static const struct xdr_row hole_xdr[] = {XDR_F(HYPER, struct hole, length),
                                          XDR_F(UINT, struct hole, flags), XDR_DONE};

void stream_send_hole(struct rpc_stream *s, uint64_t len)
{
    struct frame f = s->head;
    f.type = FRAME_HOLE;
    client_send_rows(s->client, &f, hole_xdr, &(struct hole){.length = (int64_t)len});
    client_flush(s->client);
}

void stream_confirm(struct rpc_stream *s)
{
    struct frame f = s->head;
    f.status = FRAME_OK;
    client_send_rows(s->client, &f, NULL, NULL);
    client_flush(s->client);
}

/* ---- from the client ---- */

bool streams_are_full(const struct client *c)
{
    for (const GList *l = c->streams.head; l; l = l->next)
        if (((const struct rpc_stream *)l->data)->item_bytes > STREAM_INPUT_BYTES)
            return true;
    return false;
}

void streams_room(struct client *c)
{
    for (GList *l = c->streams.head, *next; l; l = next) {
        struct rpc_stream *s = l->data;
        next = l->next;
        if (s->kind->room)
            s->kind->room(s);
    }
}

static struct rpc_stream *find(struct client *c, const struct frame *f)
{
    for (GList *l = c->streams.head; l; l = l->next) {
        struct rpc_stream *s = l->data;
        if (s->head.serial == f->serial && s->head.procedure == f->procedure &&
            s->head.program == f->program)
            return s;
    }
    return NULL;
}

static void fail(struct rpc_stream *s, const char *why)
{
    GError *e = NULL;
    wire_error(&e, LIBVIRT_ERROR_RPC, LIBVIRT_FROM_RPC, "stream of call %u: %s", s->head.serial,
               why);
    stream_over(s, e);
}

static void add_item(struct rpc_stream *s, const uint8_t *data, size_t len, uint64_t hole)
{
    struct stream_item *i = g_try_malloc(sizeof(*i) + len);
    if (!i) {
        fail(s, "no memory for what was sent");
        return;
    }
    *i = (struct stream_item){.hole = hole > 0, .len = hole ? hole : len};
    if (len)
        memcpy(i->data, data, len);
    g_queue_push_tail(&s->items, i);
    s->item_bytes += sizeof(*i) + len;
    if (s->item_bytes > STREAM_INPUT_BYTES && !s->kind->waits)
        fail(s, "what was sent is not taken");
    else
        s->kind->input(s);
}

void stream_item_done(struct rpc_stream *s)
{
    struct stream_item *i = g_queue_pop_head(&s->items);
    s->item_bytes -= sizeof(*i) + (i->hole ? 0 : i->len);
    g_free(i);
}

static void hole_message(struct rpc_stream *s, const uint8_t *payload, size_t len)
{
    struct hole h;
    if (xdr_read(hole_xdr, &h, sizeof(h), payload, len, NULL) < 0 || h.length < 0 || h.flags)
        fail(s, "a hole that cannot be");
    else if (h.length)
        add_item(s, NULL, 0, (uint64_t)h.length);
}

static void finish(struct rpc_stream *s)
{
    s->finished = true;
    if (s->kind->waits && s->kind->input)
        s->kind->input(s); /* when all is written */
    else
        stream_over(s, NULL);
}

/* Ended early, by the client's will: that is not an error of ours. */
static void abort_stream(struct rpc_stream *s)
{
    s->aborted = s->finished = true;
    stream_over(s, NULL);
}

void stream_message(struct client *c, const struct frame *f, const uint8_t *payload, size_t len)
{
    struct rpc_stream *s = find(c, f);
    if (!s || s->finished)
        return; /* sent before our end of it had arrived there */
    if (f->status == FRAME_OK)
        finish(s);
    else if (f->status == FRAME_ERROR)
        abort_stream(s);
    else if (f->status != FRAME_CONTINUE)
        fail(s, "a status that does not exist");
    else if (!s->kind->input)
        fail(s, "it takes no data");
    else if (f->type == FRAME_HOLE)
        hole_message(s, payload, len);
    else if (len)
        add_item(s, payload, len, 0);
}
