/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Streams of a pty or socket: consoles and channels. Thread: the loop thread; the descriptor does
 * not block. */
#include "libvirt/stream_priv.h"

#include <errno.h>
#include <glib-unix.h>
#include <unistd.h>

enum { CONSOLE_BYTES = 16384 };

/* False: not now, or no more. */
static bool read_some(struct rpc_stream *s, int fd)
{
    char buf[CONSOLE_BYTES];
    if (!client_has_room(s->client))
        return false; /* until there is */
    ssize_t n = read(fd, buf, sizeof(buf));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    stream_send(s, buf, n > 0 ? (size_t)n : 0);
    if (n <= 0)
        s->left = 0; /* the other side is gone: that was the end */
    return n > 0 && !s->over;
}

static gboolean readable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct rpc_stream *s = opaque;
    stream_ref(s);
    bool go_on = read_some(s, fd);
    if (!go_on)
        s->in_source = 0;
    stream_unref(s);
    return go_on ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void listen(struct rpc_stream *s)
{
    if (!s->in_source && s->left)
        s->in_source = g_unix_fd_add(s->fd, G_IO_IN | G_IO_HUP | G_IO_ERR, readable, s);
}

/* True: all is written. */
static bool write_items(struct rpc_stream *s)
{
    struct stream_item *i;
    while ((i = g_queue_peek_head(&s->items))) {
        ssize_t n = i->hole ? (ssize_t)i->len : write(s->fd, i->data + i->at, i->len - i->at);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return false;
        if (n < 0) {
            GError *e = NULL;
            ruche_error_errno(&e, errno, "writing for the stream of call %u", s->head.serial);
            stream_over(s, e);
            return true;
        }
        i->at += (uint64_t)n;
        if (i->at >= i->len)
            stream_item_done(s);
    }
    return true;
}

static gboolean writable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct rpc_stream *s = opaque;
    stream_ref(s);
    bool done = write_items(s);
    bool go_on = !done && !s->over;
    if (!go_on && !s->over)
        s->out_source = 0;
    stream_unref(s);
    return go_on ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
}

static void input(struct rpc_stream *s)
{
    stream_ref(s);
    if (!s->out_source && !write_items(s) && !s->over)
        s->out_source = g_unix_fd_add(s->fd, G_IO_OUT | G_IO_HUP | G_IO_ERR, writable, s);
    stream_unref(s);
}

static void end(struct rpc_stream *s)
{
    if (s->in_source)
        g_source_remove(s->in_source);
    if (s->out_source)
        g_source_remove(s->out_source);
    s->in_source = s->out_source = 0;
}

static const struct stream_kind duplex_kind = {
    .begin = listen, .input = input, .room = listen, .end = end};

struct rpc_stream *stream_new_duplex(struct rpc_call *c, int fd)
{
    return stream_new(c, &duplex_kind, fd, UINT64_MAX);
}
