/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Streams from and to files: a task each, which has blocks read and written by a worker. */
#include "libvirt/stream_priv.h"

#include "base/zeroes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- download ---- */

/* What the worker gets and gives: it does not see the stream. */
struct block_read {
    int fd;
    bool sparse;
    size_t want;
    uint64_t hole; /* so much nothing comes first; then `n` bytes of data */
    ssize_t n;     /* negative errno */
    uint8_t data[];
};

static uint64_t hole_at(int fd, uint64_t at)
{
    off_t data = lseek(fd, (off_t)at, SEEK_DATA);
    struct stat st;
    if (data >= 0)
        return (uint64_t)data - at;
    return errno == ENXIO && !fstat(fd, &st) && (uint64_t)st.st_size > at
               ? (uint64_t)st.st_size - at
               : 0;
}

static void read_block(void *opaque)
{
    struct block_read *b = opaque;
    off_t at = lseek(b->fd, 0, SEEK_CUR);
    b->hole = 0;
    if (b->sparse && at >= 0) {
        b->hole = hole_at(b->fd, (uint64_t)at);
        lseek(b->fd, at + (off_t)b->hole, SEEK_SET);
        off_t end = b->hole ? -1 : lseek(b->fd, at, SEEK_HOLE);
        lseek(b->fd, at + (off_t)b->hole, SEEK_SET);
        if (end > at)
            b->want = MIN(b->want, (size_t)(end - at));
    }
    b->n = 0;
    if (b->hole)
        return;
    do
        b->n = read(b->fd, b->data, b->want);
    while (b->n < 0 && errno == EINTR);
    if (b->n < 0)
        b->n = -errno;
}

static bool send_block(struct rpc_stream *s, struct block_read *b)
{
    if (b->n < 0) {
        GError *e = NULL;
        ruche_error_errno(&e, (int)-b->n, "reading for the stream of call %u", s->head.serial);
        stream_over(s, e);
        return false;
    }
    uint64_t hole = MIN(b->hole, s->left);
    if (hole)
        stream_send_hole(s, hole);
    else if (b->n)
        stream_send(s, b->data, (size_t)b->n);
    s->left -= hole + (uint64_t)b->n;
    return hole || b->n;
}

static void download(void *opaque)
{
    struct rpc_stream *s = opaque;
    struct block_read *b = g_malloc(sizeof(*b) + FRAME_CHUNK_BYTES);
    bool more = true;
    while (more && !s->over && s->left) {
        if (!client_has_room(s->client)) {
            stream_wait(s);
            continue;
        }
        b->fd = s->fd;
        b->sparse = s->sparse;
        b->want = (size_t)MIN(s->left, FRAME_CHUNK_BYTES);
        stream_work(s, read_block, b);
        more = !s->over && send_block(s, b);
    }
    if (!s->over)
        stream_send(s, NULL, 0);
    g_free(b);
    stream_unref(s);
}

static void download_begin(struct rpc_stream *s)
{
    stream_ref(s);
    task_start(download, s);
}

static const struct stream_kind download_kind = {
    .begin = download_begin, .room = stream_wake, .end = stream_wake};

struct rpc_stream *stream_new_download(struct rpc_call *c, int fd, uint64_t length, bool sparse)
{
    struct rpc_stream *s = stream_new(c, &download_kind, fd, length);
    s->sparse = sparse;
    return s;
}

/* ---- upload ---- */

struct block_write {
    int fd, result; /* 0 or errno */
    struct stream_item *item;
};

/* Of a hole, at once: an end of the stream waits for no more. */
#define HOLE_BYTES (64u << 20)

/* A hole: the place moves on, what is there becomes nothing, and a file reaches so far. */
static int write_hole(int fd, uint64_t len)
{
    struct stat st;
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (at < 0 || len > (uint64_t)INT64_MAX - (uint64_t)at)
        return EFBIG;
    off_t end = at + (off_t)len;
    if (fstat(fd, &st) < 0)
        return errno;
    off_t there = S_ISBLK(st.st_mode) ? end : MIN(st.st_size, end);
    int err = there > at ? -zeroes_write(fd, (uint64_t)at, (uint64_t)(there - at)) : 0;
    if (!err && there < end && ftruncate(fd, end) < 0)
        err = errno;
    return err ? err : lseek(fd, end, SEEK_SET) < 0 ? errno : 0;
}

static void write_block(void *opaque)
{
    struct block_write *b = opaque;
    struct stream_item *i = b->item;
    if (i->hole) {
        uint64_t len = MIN(i->len - i->at, HOLE_BYTES);
        b->result = write_hole(b->fd, len);
        i->at += len;
        return;
    }
    b->result = 0;
    while (i->at < i->len && !b->result) {
        ssize_t n = write(b->fd, i->data + i->at, i->len - i->at);
        if (n > 0)
            i->at += (uint64_t)n;
        else if (n == 0 || errno != EINTR)
            b->result = n ? errno : EIO;
    }
}

/* Takes the item out, so that an end of the stream meanwhile does not free it. */
static bool write_item(struct rpc_stream *s)
{
    struct stream_item *i = g_queue_pop_head(&s->items);
    struct block_write b = {.fd = s->fd, .item = i};
    GError *e = NULL;
    if (i->len > s->left)
        ruche_error(&e, RUCHE_ERR_INVALID, "stream of call %u: more was sent than its length",
                    s->head.serial);
    while (!e && !b.result && i->at < i->len && !s->over)
        stream_work(s, write_block, &b);
    s->left -= e ? 0 : i->len;
    if (b.result)
        ruche_error_errno(&e, b.result, "writing for the stream of call %u", s->head.serial);
    if (!s->over)
        s->item_bytes -= sizeof(*i) + (i->hole ? 0 : i->len);
    g_free(i);
    if (e)
        stream_over(s, e);
    return !s->over;
}

static void upload(void *opaque)
{
    struct rpc_stream *s = opaque;
    struct client *c = client_ref(s->client);
    while (!s->over) {
        if (!g_queue_is_empty(&s->items)) {
            if (write_item(s))
                client_resume(c);
        } else if (s->finished) {
            stream_over(s, NULL);
        } else {
            stream_wait(s);
        }
    }
    client_resume(c);
    client_unref(c);
    stream_unref(s);
}

static void upload_begin(struct rpc_stream *s)
{
    stream_ref(s);
    task_start(upload, s);
}

static const struct stream_kind upload_kind = {
    .begin = upload_begin, .input = stream_wake, .end = stream_wake, .waits = true};

struct rpc_stream *stream_new_upload(struct rpc_call *c, int fd, uint64_t length)
{
    return stream_new(c, &upload_kind, fd, length);
}
