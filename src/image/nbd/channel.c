/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One NBD connection as a stream of bytes; see channel.h.
 *
 * Reading fills a buffer, so that small messages cost less than one system call each; the body of a
 * large one goes straight to its place, and what follows it to the buffer, in the same call.
 * Writers queue: the first one sends for all that came while it waited.
 */
#include "image/nbd/channel.h"

#include "base/fd.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define SEND_ROOM_BYTES MIB        /* asked for; the system may give less */
#define DIRECT_BYTES    (16 * KIB) /* what is missing of a body, to be read without the buffer */

void channel_init(struct channel *ch, struct context *ctx, int fd)
{
    *ch = (struct channel){ .ctx = ctx, .fd = fd };
    ch->queue_tail = &ch->queue;
    ch->in = g_malloc(CHANNEL_IN_BYTES);
    int on = 1;
    ch->tcp = setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0;
    int room = SEND_ROOM_BYTES;
    if (ch->tcp)
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    else
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room)); /* TCP sees to it by itself */
}

void channel_done(struct channel *ch)
{
    tls_session_free(ch->tls);
    ch->tls = NULL;
    fd_close_keep_errno(ch->fd);
    ch->fd = -1;
    g_clear_pointer(&ch->in, g_free);
    g_clear_pointer(&ch->tls_out, g_free);
}

void channel_shutdown(struct channel *ch)
{
    ch->shut = true;
    shutdown(ch->fd, SHUT_RDWR);
}

bool channel_start_tls(struct channel *ch, struct tls_creds *creds, const char *host,
                       GError **error)
{
    if (channel_buffered(ch))
        return ruche_error(error, RUCHE_ERR_INVALID, "the peer sent data before TLS began");
    ch->tls = tls_session_new(creds, ch->fd, host, error);
    if (!ch->tls)
        return false;
    ch->tls_out = g_malloc(TLS_RECORD_BYTES);
    for (;;) {
        int rc = tls_session_handshake(ch->tls, error);
        if (rc)
            return rc > 0;
        rc = context_wait_fd(ch->ctx, ch->fd, tls_session_wants(ch->tls));
        if (rc < 0)
            return ruche_error_errno(error, -rc, "TLS handshake failed");
    }
}

/* --- reading --- */

static ssize_t recv_plain(struct channel *ch, const struct iovec *iov, unsigned count)
{
    struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = count };
    ssize_t n;
    do
        n = recvmsg(ch->fd, &m, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* At least one byte into iov, waiting for it; 0 at the end of the stream. */
static ssize_t recv_some(struct channel *ch, const struct iovec *iov, unsigned count)
{
    while (!ch->shut) {
        ssize_t n = ch->tls ? tls_session_recv(ch->tls, iov[0].iov_base, iov[0].iov_len)
                            : recv_plain(ch, iov, count);
        if (n != -EAGAIN)
            return n;
        int rc = context_wait_fd(ch->ctx, ch->fd, ch->tls ? tls_session_wants(ch->tls) : POLLIN);
        if (rc < 0)
            return rc;
    }
    return -ESHUTDOWN;
}

static size_t take_buffered(struct channel *ch, struct vec v)
{
    size_t n = min_u64(channel_buffered(ch), v.len);
    if (n) {
        vec_write(vec_slice(v, 0, n), ch->in + ch->in_pos);
        ch->in_pos += n;
    }
    return n;
}

/* Reads the beginning of v, and, when that filled it, what came behind it into the (empty) buffer.
 */
static ssize_t read_direct(struct channel *ch, struct vec v)
{
    struct iovec iov[CHANNEL_IOV_MAX];
    size_t len;
    unsigned count = vec_to_iov(v, iov, CHANNEL_IOV_MAX - 1, &len);
    iov[count] = (struct iovec){ ch->in, CHANNEL_IN_BYTES };
    ch->in_pos = ch->in_len = 0;
    ssize_t n = recv_some(ch, iov, len == v.len ? count + 1 : count);
    if (n > 0 && (size_t)n > len) {
        ch->in_len = (size_t)n - len;
        n = (ssize_t)len;
    }
    return n;
}

static ssize_t fill(struct channel *ch)
{
    ch->in_pos = ch->in_len = 0;
    struct iovec iov = { ch->in, CHANNEL_IN_BYTES };
    ssize_t n = recv_some(ch, &iov, 1);
    if (n > 0)
        ch->in_len = (size_t)n;
    return n;
}

int channel_read_vec(struct channel *ch, struct vec v)
{
    size_t done = take_buffered(ch, v);
    while (done < v.len) {
        struct vec rest = vec_slice(v, done, v.len - done);
        bool direct = rest.len >= DIRECT_BYTES;
        ssize_t n = direct ? read_direct(ch, rest) : fill(ch);
        if (n < 0)
            return (int)n;
        if (n == 0)
            return done ? -ECONNRESET : -ENODATA;
        done += direct ? (size_t)n : take_buffered(ch, rest);
    }
    return 0;
}

int channel_read(struct channel *ch, void *buf, size_t len)
{
    if (likely(channel_buffered(ch) >= len)) {
        memcpy(buf, ch->in + ch->in_pos, len);
        ch->in_pos += len;
        return 0;
    }
    struct iovec iov;
    return channel_read_vec(ch, vec_flat(&iov, buf, len));
}

int channel_skip(struct channel *ch, uint64_t len)
{
    for (;;) {
        size_t n = min_u64(channel_buffered(ch), len);
        ch->in_pos += n;
        len -= n;
        if (!len)
            return 0;
        ssize_t got = fill(ch);
        if (got <= 0)
            return got ? (int)got : -ECONNRESET;
    }
}

/* --- sending --- */

/* Gathers the queue's messages, from byte `skip` of the first one on. */
static unsigned gather(const struct channel *ch, size_t skip, struct iovec *iov)
{
    unsigned n = 0;
    for (const struct channel_message *m = ch->queue; m && n < CHANNEL_IOV_MAX; m = m->next) {
        for (unsigned i = 0; i < m->count && n < CHANNEL_IOV_MAX; i++) {
            if (skip >= m->iov[i].iov_len) {
                skip -= m->iov[i].iov_len;
                continue;
            }
            iov[n++] =
                (struct iovec){ (char *)m->iov[i].iov_base + skip, m->iov[i].iov_len - skip };
            skip = 0;
        }
    }
    return n;
}

static ssize_t send_plain(struct channel *ch, const struct iovec *iov, unsigned count)
{
    struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = count };
    for (;;) {
        ssize_t n = sendmsg(ch->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0)
            return n;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return -errno;
        int rc = context_wait_fd(ch->ctx, ch->fd, POLLOUT);
        if (rc < 0)
            return rc;
    }
}

/* One record at most: several small pieces in one, and the same bytes again after each wait. */
static ssize_t send_tls(struct channel *ch, const struct iovec *iov, unsigned count)
{
    size_t len = 0;
    for (unsigned i = 0; i < count && len < TLS_RECORD_BYTES; i++) {
        size_t n = min_u64(iov[i].iov_len, TLS_RECORD_BYTES - len);
        memcpy(ch->tls_out + len, iov[i].iov_base, n);
        len += n;
    }
    for (;;) {
        ssize_t n = tls_session_send(ch->tls, ch->tls_out, len);
        if (n != -EAGAIN)
            return n;
        int rc = context_wait_fd(ch->ctx, ch->fd, tls_session_wants(ch->tls));
        if (rc < 0)
            return rc;
    }
}

static size_t message_bytes(const struct channel_message *m)
{
    size_t len = 0;
    for (unsigned i = 0; i < m->count; i++)
        len += m->iov[i].iov_len;
    return len;
}

/* `sent` bytes of the queue are gone: wakes the senders of whole messages; returns what went of the
 * first that is left. */
static size_t retire(struct channel *ch, size_t sent)
{
    while (ch->queue) {
        struct channel_message *m = ch->queue;
        size_t len = message_bytes(m);
        if (sent < len && !ch->send_error)
            break;
        sent -= min_u64(sent, len);
        ch->queue = m->next;
        if (!ch->queue)
            ch->queue_tail = &ch->queue;
        m->sent = true;
        if (m->waiter)
            fiber_wake(m->waiter);
    }
    return sent;
}

static void send_queue(struct channel *ch)
{
    struct iovec iov[CHANNEL_IOV_MAX];
    size_t skip = 0;
    while (ch->queue) {
        unsigned count = gather(ch, skip, iov);
        ssize_t n = count == 0 ? 0
                    : ch->tls  ? send_tls(ch, iov, count)
                               : send_plain(ch, iov, count);
        if (n < 0)
            ch->send_error = (int)n;
        skip = retire(ch, skip + (n > 0 ? (size_t)n : 0));
    }
}

int channel_send(struct channel *ch, const struct iovec *iov, unsigned count)
{
    if (ch->send_error)
        return ch->send_error;
    struct channel_message m = { .iov = iov, .count = count };
    *ch->queue_tail = &m;
    ch->queue_tail = &m.next;
    if (ch->sending) {
        m.waiter = fiber_self();
        fiber_wait();
    } else {
        ch->sending = true;
        send_queue(ch);
        ch->sending = false;
    }
    return ch->send_error;
}

int channel_send_flat(struct channel *ch, const void *buf, size_t len)
{
    struct iovec iov = { (void *)buf, len };
    return channel_send(ch, &iov, 1);
}
