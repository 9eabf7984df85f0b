/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NBD server: one client's requests, from the end of its handshake until it goes.
 *
 * Spec      NBD protocol, "Transmission".
 * Thread    The export's. One fiber reads requests, each runs in a fiber of its own, answers leave
 *           in any order.
 * Trust     The client: a request's command, flags, range and length are checked before anything is
 *           done. Buffers are bounded by the server's max_bytes, requests by max_requests: when
 *           either is used up, nothing is read from the client until answers have left. What cannot
 *           be skipped or understood ends the connection.
 */
#include "image/nbd/server_priv.h"

#include <errno.h>

#define CACHE_PIECE (1 * MIB)

static int do_write(struct nbd_job *j);
static int do_flush(struct nbd_job *j);
static int do_trim(struct nbd_job *j);
static int do_cache(struct nbd_job *j);
static int do_zero(struct nbd_job *j);

/* buf_max: of the buffer that a request of that command needs. */
static const struct command_row {
    int (*fn)(struct nbd_job *j);
    uint16_t flags;
    bool writes, ranged;
    uint32_t buf_max;
} command_rows[NBD_COMMANDS] = {
    [NBD_CMD_READ] = { nbd_answer_read, NBD_CMD_DF, false, true, NBD_PAYLOAD_MAX },
    [NBD_CMD_WRITE] = { do_write, 0, true, true, NBD_PAYLOAD_MAX },
    [NBD_CMD_FLUSH] = { do_flush, 0, false, false, 0 },
    [NBD_CMD_TRIM] = { do_trim, 0, true, true, 0 },
    [NBD_CMD_CACHE] = { do_cache, 0, false, true, CACHE_PIECE },
    [NBD_CMD_WRITE_ZEROES] = { do_zero, NBD_CMD_NO_HOLE | NBD_CMD_FAST_ZERO, true, true, 0 },
    [NBD_CMD_BLOCK_STATUS] = { nbd_answer_status, NBD_CMD_REQ_ONE, false, true, NBD_STATUS_BYTES },
};

/* --- commands --- */

static struct node *node_of(const struct nbd_job *j)
{
    return nbd_export_enter(j->client->export);
}

/* There may be holes where data was: see read.c. */
static void forget_data(struct nbd_job *j)
{
    j->client->export->data_end = 0;
}

static int do_write(struct nbd_job *j)
{
    struct iovec iov;
    return node_write(node_of(j), j->request.offset, vec_flat(&iov, j->buf, j->request.len),
                      j->request.flags & NBD_CMD_FUA ? NODE_FUA : 0);
}

static int do_flush(struct nbd_job *j)
{
    return node_flush(node_of(j));
}

static int do_trim(struct nbd_job *j)
{
    int rc = node_discard(node_of(j), j->request.offset, j->request.len);
    forget_data(j);
    return rc == 0 && (j->request.flags & NBD_CMD_FUA) ? node_flush(node_of(j)) : rc;
}

static int do_zero(struct nbd_job *j)
{
    uint16_t f = j->request.flags;
    int rc =
        node_zero(node_of(j), j->request.offset, j->request.len,
                  (f & NBD_CMD_FUA ? NODE_FUA : 0) | (f & NBD_CMD_NO_HOLE ? 0 : NODE_MAY_UNMAP) |
                      (f & NBD_CMD_FAST_ZERO ? NODE_NO_FALLBACK : 0));
    forget_data(j);
    return rc;
}

static int do_cache(struct nbd_job *j)
{
    int rc = 0;
    for (uint64_t done = 0; done < j->request.len && rc == 0; done += CACHE_PIECE)
        rc = node_pread(node_of(j), j->request.offset + done, j->buf,
                        min_u64(j->request.len - done, CACHE_PIECE));
    return rc;
}

/* --- answers --- */

int nbd_send_chunk(struct nbd_client *c, const struct nbd_request *r, uint16_t flags, uint16_t type,
                   const void *head, uint32_t head_len, const void *body, uint32_t body_len)
{
    uint8_t chunk[NBD_CHUNK_BYTES];
    nbd_pack_chunk(chunk, flags, type, r->cookie, head_len + body_len);
    struct iovec iov[] = { { chunk, sizeof(chunk) },
                           { (void *)head, head_len },
                           { (void *)body, body_len } };
    return channel_send(&c->ch, iov, body_len ? 3 : head_len ? 2 : 1);
}

static void answer(struct nbd_client *c, const struct nbd_request *r, int result)
{
    uint32_t error = nbd_error_of_errno(result);
    if (c->structured && error &&
        (r->command == NBD_CMD_READ || r->command == NBD_CMD_BLOCK_STATUS)) {
        uint8_t body[6];
        nbd_put_be32(body, error);
        nbd_put_be16(body + 4, 0);
        nbd_send_chunk(c, r, NBD_CHUNK_DONE, NBD_CHUNK_ERROR, body, sizeof(body), NULL, 0);
        return;
    }
    uint8_t head[NBD_SIMPLE_BYTES];
    nbd_pack_simple(head, error, r->cookie);
    channel_send_flat(&c->ch, head, sizeof(head));
}

/* --- jobs --- */

static void end_job(struct nbd_job *j)
{
    struct nbd_client *c = j->client;
    nbd_buffer_put(c->export, j->buf, j->buf_len);
    j->buf = NULL;
    j->next = c->idle_jobs;
    c->idle_jobs = j;
    c->in_flight--;
    c->bytes_in_flight -= j->buf_len;
    fiber_queue_wake_one(&c->room);
}

static void job_fiber(void *opaque)
{
    struct nbd_job *j = opaque;
    int rc = command_rows[j->request.command].fn(j);
    if (rc != NBD_ANSWERED)
        answer(j->client, &j->request, rc);
    end_job(j);
}

/* Bytes of the buffer that a good request needs. */
static uint32_t buffer_len(const struct nbd_client *c, const struct nbd_request *r)
{
    uint32_t max = command_rows[r->command].buf_max;
    if (r->command == NBD_CMD_BLOCK_STATUS)
        return max;
    if (r->command == NBD_CMD_READ && c->structured && !(r->flags & NBD_CMD_DF))
        max = NBD_READ_PIECE;
    return (uint32_t)min_u64(r->len, max);
}

/* 0, or what is answered instead of doing it. */
static int check(const struct nbd_client *c, const struct nbd_request *r)
{
    const struct command_row *row = r->command < NBD_COMMANDS ? &command_rows[r->command] : NULL;
    if (!row || !row->fn || (r->flags & ~(row->flags | NBD_CMD_FUA)) ||
        ((r->flags & NBD_CMD_DF) && !c->structured))
        return -EINVAL;
    if (row->writes && !c->export->writable)
        return -EPERM;
    if (row->ranged && !range_fits(r->offset, r->len, c->export->size_bytes))
        return row->writes && r->command != NBD_CMD_TRIM ? -ENOSPC : -EINVAL;
    if (r->command == NBD_CMD_READ && r->len > NBD_PAYLOAD_MAX)
        return -EINVAL;
    return 0;
}

/* The reader's place in batches: what it starts goes to the kernel together. */
struct batch {
    struct context *ctx;
    bool open;
};

static void batch_begin(struct batch *b)
{
    if (!b->open)
        context_plug(b->ctx);
    b->open = true;
}

static void batch_end(struct batch *b)
{
    if (b->open)
        context_unplug(b->ctx);
    b->open = false;
}

static void wait_for_room(struct nbd_client *c, uint32_t bytes, struct batch *b)
{
    const struct nbd_server_config *limit = &c->server->config;
    while (c->in_flight >= limit->max_requests ||
           (c->bytes_in_flight && c->bytes_in_flight + bytes > limit->max_bytes)) {
        batch_end(b);
        fiber_queue_wait(&c->room);
    }
}

static struct nbd_job *take_job(struct nbd_client *c, const struct nbd_request *r, uint32_t bytes)
{
    struct nbd_job *j = c->idle_jobs;
    c->idle_jobs = j->next;
    c->in_flight++;
    c->bytes_in_flight += bytes;
    j->client = c;
    j->request = *r;
    j->buf_len = bytes;
    j->buf = bytes ? nbd_buffer_get(c->export, bytes) : NULL;
    return j;
}

/* Takes what a request brings along and starts it. -errno: the connection is of no use any more. */
static int begin_job(struct nbd_client *c, const struct nbd_request *r, struct batch *b)
{
    int result = check(c, r), rc = 0;
    uint32_t bytes = result == 0 ? buffer_len(c, r) : 0;
    wait_for_room(c, bytes, b);
    struct nbd_job *j = take_job(c, r, bytes);
    if (bytes && !j->buf)
        result = -ENOMEM;
    if (r->command == NBD_CMD_WRITE) {
        if (channel_buffered(&c->ch) < r->len)
            batch_end(b);
        rc = result ? channel_skip(&c->ch, r->len) : channel_read(&c->ch, j->buf, r->len);
    }
    if (rc == 0 && result == 0) {
        batch_begin(b);
        fiber_start(job_fiber, j);
        return 0;
    }
    end_job(j);
    if (rc == 0)
        answer(c, r, result);
    return rc;
}

/* -errno: it went, or does not speak the protocol. */
static int next_request(struct nbd_client *c, struct batch *b)
{
    uint8_t head[NBD_REQUEST_BYTES];
    struct nbd_request r;
    if (c->ch.shut || c->ch.send_error)
        return -ESHUTDOWN;
    if (channel_buffered(&c->ch) < sizeof(head))
        batch_end(b);
    int rc = channel_read(&c->ch, head, sizeof(head));
    if (rc < 0 || (rc = nbd_parse_request(head, &r)) < 0)
        return rc;
    if (r.command == NBD_CMD_DISC)
        return -ESHUTDOWN;
    if (r.command == NBD_CMD_WRITE && r.len > NBD_PAYLOAD_MAX)
        return -EMSGSIZE;
    return begin_job(c, &r, b);
}

void nbd_serve(struct nbd_client *c)
{
    unsigned count = c->server->config.max_requests;
    c->jobs = g_new0(struct nbd_job, count);
    for (unsigned i = 0; i < count; i++) {
        c->jobs[i].next = c->idle_jobs;
        c->idle_jobs = &c->jobs[i];
    }
    struct batch b = { .ctx = c->export->ctx };
    while (next_request(c, &b) == 0)
        ;
    batch_end(&b);
    while (c->in_flight)
        fiber_queue_wait(&c->room);
    if (c->ch.tls)
        tls_session_bye(c->ch.tls);
}

void nbd_serve_done(struct nbd_client *c)
{
    g_clear_pointer(&c->jobs, g_free);
}
