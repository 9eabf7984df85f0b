/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client's transmission phase; see link.h. */
#include "image/nbd/link.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define CHUNK_TEXT_MAX (64 * KIB) /* of an error or a list of extents */

struct nbd_link *nbd_link_new(const char *where)
{
    struct nbd_link *l = g_new0(struct nbd_link, 1);
    l->where = g_strdup(where);
    l->refs = 1;
    l->ch.fd = -1;
    return l;
}

void nbd_link_unref(struct nbd_link *l)
{
    if (!l || --l->refs)
        return;
    channel_done(&l->ch);
    g_free(l->where);
    g_free(l);
}

static void finish(struct nbd_link *l, struct nbd_call *c, int error)
{
    if (c->done)
        return;
    c->done = true;
    c->error = error;
    l->open--;
    if (c->waiter)
        fiber_wake(c->waiter);
}

/* No answer is waited for any more. Not while the reader may still be putting data into a call's
 * buffer: it ends the calls when it sees that the link is dead. */
static void end_calls(struct nbd_link *l)
{
    for (unsigned i = 0; i < NBD_CALLS_MAX; i++) {
        if (l->calls[i] && !l->calls[i]->done) {
            l->calls[i]->lost = true;
            finish(l, l->calls[i], -EIO);
        }
    }
}

static void link_die(struct nbd_link *l, const char *why)
{
    if (l->dead)
        return;
    l->dead = true;
    if (why)
        log_warn("%s: the server breaks the protocol: %s; connection closed", l->where, why);
    channel_shutdown(&l->ch);
}

/* --- what came of a read --- */

/* False: outside of the call, or a byte that came before. */
static bool add_span(struct nbd_call *c, uint64_t off, uint64_t len)
{
    if (off < c->offset || !range_fits(off - c->offset, len, c->len))
        return false;
    uint64_t begin = off - c->offset, end = begin + len;
    unsigned at = 0;
    while (at < c->span_count && c->spans[at].end < begin)
        at++;
    bool joins_left = at < c->span_count && c->spans[at].end == begin;
    unsigned next = at + joins_left;
    if (next < c->span_count && c->spans[next].begin < end)
        return false;
    bool joins_right = next < c->span_count && c->spans[next].begin == end;
    if (joins_left && joins_right) {
        c->spans[at].end = c->spans[next].end;
        c->span_count--;
        memmove(&c->spans[next], &c->spans[next + 1], (c->span_count - next) * sizeof(c->spans[0]));
    } else if (joins_left) {
        c->spans[at].end = end;
    } else if (joins_right) {
        c->spans[next].begin = begin;
    } else {
        if (c->span_count == NBD_SPANS_MAX)
            return false;
        memmove(&c->spans[at + 1], &c->spans[at], (c->span_count - at) * sizeof(c->spans[0]));
        c->spans[at].begin = begin;
        c->spans[at].end = end;
        c->span_count++;
    }
    return true;
}

static bool read_is_complete(const struct nbd_call *c)
{
    return c->len == 0 ||
           (c->span_count == 1 && c->spans[0].begin == 0 && c->spans[0].end == c->len);
}

/* --- answers: 0, -errno of the connection, or -EBADMSG with *why --- */

static int bad(const char **why, const char *text)
{
    *why = text;
    return -EBADMSG;
}

static int take_simple(struct nbd_link *l, struct nbd_call *c, uint32_t error, const char **why)
{
    int rc = 0;
    if (!error && c->command == NBD_CMD_READ) {
        if (l->offer.structured)
            return bad(why, "a simple reply to a read, where structured ones were agreed on");
        rc = channel_read_vec(&l->ch, c->data);
    } else if (!error && c->command == NBD_CMD_BLOCK_STATUS) {
        return bad(why, "a simple reply to a question for block status");
    }
    if (rc == 0)
        finish(l, c, nbd_errno_of_error(error));
    return rc;
}

static int take_data(struct nbd_link *l, struct nbd_call *c, uint32_t len, const char **why)
{
    uint8_t head[8];
    if (c->command != NBD_CMD_READ || len <= sizeof(head))
        return bad(why, "data that nobody asked for");
    int rc = channel_read(&l->ch, head, sizeof(head));
    if (rc < 0)
        return rc;
    struct cur cur = cur_of(head, sizeof(head));
    uint64_t off = cur_be64(&cur);
    len -= sizeof(head);
    if (!add_span(c, off, len))
        return bad(why, "data outside of what was asked, or twice");
    return channel_read_vec(&l->ch, vec_slice(c->data, off - c->offset, len));
}

static int take_hole(struct nbd_link *l, struct nbd_call *c, uint32_t len, const char **why)
{
    uint8_t body[12];
    if (c->command != NBD_CMD_READ || len != sizeof(body))
        return bad(why, "a hole that nobody asked for");
    int rc = channel_read(&l->ch, body, sizeof(body));
    if (rc < 0)
        return rc;
    struct cur cur = cur_of(body, sizeof(body));
    uint64_t off = cur_be64(&cur);
    uint32_t hole = cur_be32(&cur);
    if (!hole || !add_span(c, off, hole))
        return bad(why, "a hole outside of what was asked, or twice");
    vec_fill(vec_slice(c->data, off - c->offset, hole), 0);
    return 0;
}

/* Of several extents the first one is enough. */
static int take_status(struct nbd_link *l, struct nbd_call *c, uint32_t len, const char **why)
{
    uint8_t body[4 + NBD_EXTENT_BYTES];
    if (c->command != NBD_CMD_BLOCK_STATUS || len < sizeof(body) || len % NBD_EXTENT_BYTES != 4 ||
        len > CHUNK_TEXT_MAX || c->extent_len)
        return bad(why, "block status that nobody asked for");
    int rc = channel_read(&l->ch, body, sizeof(body));
    if (rc < 0)
        return rc;
    struct cur cur = cur_of(body, sizeof(body));
    uint32_t id = cur_be32(&cur);
    c->extent_len = cur_be32(&cur);
    c->extent_flags = cur_be32(&cur);
    if (!l->offer.has_context || id != l->offer.context_id || !c->extent_len)
        return bad(why, "block status of another context, or of no length");
    c->extent_len = (uint32_t)min_u64(c->extent_len, c->len);
    return channel_skip(&l->ch, len - sizeof(body));
}

static int take_error(struct nbd_link *l, struct nbd_call *c, uint32_t len, const char **why)
{
    uint8_t body[6];
    if (len < sizeof(body) || len > CHUNK_TEXT_MAX)
        return bad(why, "an error of impossible length");
    int rc = channel_read(&l->ch, body, sizeof(body));
    if (rc < 0)
        return rc;
    struct cur cur = cur_of(body, sizeof(body));
    uint32_t error = cur_be32(&cur);
    uint16_t text = cur_be16(&cur);
    if (!error || text > len - sizeof(body))
        return bad(why, "an error without a number, or with a text of impossible length");
    if (!c->error)
        c->error = nbd_errno_of_error(error);
    return channel_skip(&l->ch, len - sizeof(body));
}

static int take_chunk(struct nbd_link *l, struct nbd_call *c, const struct nbd_reply_head *h,
                      const char **why)
{
    int rc;
    if (h->type == NBD_CHUNK_DATA)
        rc = take_data(l, c, h->len, why);
    else if (h->type == NBD_CHUNK_HOLE)
        rc = take_hole(l, c, h->len, why);
    else if (h->type == NBD_CHUNK_BLOCK_STATUS)
        rc = take_status(l, c, h->len, why);
    else if (h->type & NBD_CHUNK_IS_ERROR)
        rc = take_error(l, c, h->len, why);
    else if (h->type == NBD_CHUNK_NONE && h->len == 0 && (h->flags & NBD_CHUNK_DONE))
        rc = 0;
    else
        rc = bad(why, "a chunk of unknown type");
    if (rc < 0 || !(h->flags & NBD_CHUNK_DONE))
        return rc;
    if (!c->error && c->command == NBD_CMD_READ && !read_is_complete(c))
        return bad(why, "a read that ends before all of it came");
    if (!c->error && c->command == NBD_CMD_BLOCK_STATUS && !c->extent_len)
        return bad(why, "no block status where it was asked for");
    finish(l, c, c->error);
    return 0;
}

static struct nbd_call *call_of(const struct nbd_link *l, uint64_t cookie)
{
    uint64_t i = cookie & 0xffff;
    if (i >= NBD_CALLS_MAX || cookie >> 16 != l->turn[i] || !l->calls[i] || l->calls[i]->done)
        return NULL;
    return l->calls[i];
}

static int take_reply(struct nbd_link *l, const char **why)
{
    uint8_t head[NBD_REPLY_BYTES_MAX];
    int rc = channel_read(&l->ch, head, 4);
    if (rc < 0)
        return rc;
    int len = nbd_reply_head_bytes(head);
    if (len < 0)
        return bad(why, "what it sent is no reply");
    rc = channel_read(&l->ch, head + 4, (size_t)len - 4);
    if (rc < 0)
        return rc;
    struct nbd_reply_head h;
    if (nbd_parse_reply(head, (size_t)len, &h) < 0)
        return bad(why, "what it sent is no reply");
    struct nbd_call *c = call_of(l, h.cookie);
    if (!c)
        return bad(why, "a reply to no request of ours");
    if (!h.structured)
        return take_simple(l, c, h.error, why);
    if (!l->offer.structured)
        return bad(why, "a structured reply, which was not agreed on");
    return take_chunk(l, c, &h, why);
}

static void reader(void *opaque)
{
    struct nbd_link *l = opaque;
    const char *why = NULL;
    int rc = 0;
    while (rc == 0 && !l->dead && l->open)
        rc = take_reply(l, &why);
    l->reading = false;
    if (rc < 0)
        link_die(l, why);
    if (l->dead)
        end_calls(l);
    nbd_link_unref(l);
}

/* --- calls --- */

static unsigned take_slot(struct nbd_link *l, struct nbd_call *c)
{
    while (l->in_flight == NBD_CALLS_MAX)
        fiber_queue_wait(&l->room);
    unsigned i = 0;
    while (l->calls[i])
        i++;
    l->calls[i] = c;
    l->turn[i]++;
    l->in_flight++;
    return i;
}

static int send_call(struct nbd_link *l, struct nbd_call *c, unsigned slot)
{
    uint8_t head[NBD_REQUEST_BYTES];
    struct nbd_request r = {
        .flags = c->flags,
        .command = c->command,
        .cookie = (uint64_t)l->turn[slot] << 16 | slot,
        .offset = c->offset,
        .len = c->len,
    };
    nbd_pack_request(head, &r);
    struct iovec iov[CHANNEL_IOV_MAX] = { { head, sizeof(head) } };
    size_t len;
    unsigned count = 1;
    if (c->command == NBD_CMD_WRITE)
        count += vec_to_iov(c->data, iov + 1, CHANNEL_IOV_MAX - 1, &len);
    return channel_send(&l->ch, iov, count);
}

/* More vectors than one message takes. */
static bool needs_flat(const struct nbd_call *c)
{
    struct iovec iov[CHANNEL_IOV_MAX - 1];
    size_t len;
    if (c->command != NBD_CMD_WRITE)
        return false;
    vec_to_iov(c->data, iov, ARRAY_COUNT(iov), &len);
    return len < c->data.len;
}

static int call_in_slot(struct nbd_link *l, struct nbd_call *c, unsigned slot)
{
    l->open++;
    if (send_call(l, c, slot) < 0)
        link_die(l, NULL);
    if (l->dead && !l->reading)
        end_calls(l);
    if (!l->reading && !c->done) {
        l->reading = true;
        l->refs++;
        fiber_start(reader, l);
    }
    if (!c->done) {
        c->waiter = fiber_self();
        fiber_wait();
    }
    return c->error;
}

int nbd_link_call(struct nbd_link *l, struct nbd_call *c)
{
    l->refs++;
    struct iovec flat;
    g_autofree uint8_t *copy = NULL;
    unsigned slot = take_slot(l, c);
    if (l->dead) {
        c->lost = true;
        c->error = -EIO;
    } else if (needs_flat(c) && !(copy = g_try_malloc(c->data.len))) {
        c->error = -ENOMEM;
    } else {
        if (copy) {
            vec_read(c->data, copy);
            c->data = vec_flat(&flat, copy, c->data.len);
        }
        call_in_slot(l, c, slot);
    }
    l->calls[slot] = NULL;
    l->in_flight--;
    fiber_queue_wake_one(&l->room);
    int rc = c->error;
    nbd_link_unref(l);
    return rc;
}

void nbd_link_goodbye(struct nbd_link *l)
{
    if (l->dead)
        return;
    l->dead = true;
    uint8_t head[NBD_REQUEST_BYTES];
    struct nbd_request r = { .command = NBD_CMD_DISC };
    nbd_pack_request(head, &r);
    if (channel_send_flat(&l->ch, head, sizeof(head)) == 0 && l->ch.tls)
        tls_session_bye(l->ch.tls);
    shutdown(l->ch.fd, SHUT_WR);
}
