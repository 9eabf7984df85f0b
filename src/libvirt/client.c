/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connections: reading, cutting into messages, writing, time limits. Thread: the loop thread. */
#include "libvirt/client.h"

#include "base/fd.h"
#include "base/log.h"
#include "libvirt/events.h"
#include "libvirt/stream.h"
#include "manager/awake.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum {
    READ_BYTES = 256 << 10,
    READS_A_ROUND = 4,
    KEEP_OUTPUT_BYTES = 64 << 10,
    SECOND_US = 1000000
};

struct fd_out {
    uint64_t at; /* goes with the byte at this place of all output */
    int fd;
};

static const char *const transports[] = {"unix", "unix", "tcp", "tls"};

static void client_ready(struct watch *w, uint32_t events);

/* ---- life ---- */

static void know_peer(struct client *c)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    c->who = (struct caller){.transport = transports[c->kind], .uid = (uid_t)-1, .gid = (gid_t)-1};
    c->who.read_only = c->kind == CLIENT_UNIX_RO;
    if (c->kind > CLIENT_UNIX_RO || getsockopt(c->io.fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return;
    c->who.uid = cred.uid;
    c->who.gid = cred.gid;
    c->who.pid = cred.pid;
}

struct client *client_new(int fd, enum client_kind kind, struct tls *tls, enum libvirt_auth auth)
{
    gnutls_session_t session = tls ? tls_session_new(tls) : NULL;
    if (tls && !session) {
        close(fd);
        return NULL;
    }
    struct client *c = g_new0(struct client, 1);
    c->watch.ready = client_ready;
    c->refs = 1;
    c->kind = kind;
    c->tls = tls;
    c->auth = auth;
    c->link.data = c->half_open_link.data = c;
    c->out = g_byte_array_new();
    c->since_us = c->heard_us = c->out_moved_us = g_get_monotonic_time();
    c->next_callback = 1;
    g_queue_init(&c->fds_out);
    g_queue_init(&c->streams);
    transport_init(&c->io, fd, session);
    know_peer(c);
    server_add(c);
    server_watch(&c->watch, fd, &c->interest, EPOLLIN);
    return c;
}

struct client *client_ref(struct client *c)
{
    c->refs++;
    return c;
}

void client_unref(struct client *c)
{
    if (--c->refs)
        return;
    g_byte_array_unref(c->out);
    sasl_layer_free(c->sasl);
    caller_done(&c->who);
    server_bury(c);
}

static void drop_input(struct client *c)
{
    if (!c->in)
        return;
    server_input_bytes -= c->in->len;
    g_byte_array_unref(c->in);
    c->in = NULL;
}

static void close_fd_out(gpointer p)
{
    struct fd_out *f = p;
    close(f->fd);
    g_free(f);
}

void client_end(struct client *c, const char *why)
{
    if (c->ended)
        return;
    c->ended = true;
    if (why) {
        server_figures()->dropped++;
        if (log_on(LOG_TRACE))
            log_trace("libvirt_client_end", "by %s, process %d: %s", c->who.transport,
                      (int)c->who.pid, why);
    }
    server_unwatch(c->io.fd);
    transport_done(&c->io);
    drop_input(c);
    for (unsigned i = 0; i < c->fd_count; i++)
        close(c->fds[i]);
    c->fd_count = 0;
    g_queue_clear_full(&c->fds_out, close_fd_out);
    events_forget(c);
    streams_end(c);
    server_remove(c);
    client_unref(c);
}

void client_opened(struct client *c)
{
    if (!c->opened)
        server_opened(c);
    c->opened = true;
}

/* ---- output ---- */

bool client_has_room(const struct client *c)
{
    return client_waiting_bytes(c) < server_config()->pause_output_bytes;
}

void client_send_fd(struct client *c, int fd)
{
    struct fd_out *f = g_new(struct fd_out, 1);
    *f = (struct fd_out){.at = c->out_sent + client_waiting_bytes(c), .fd = fd};
    g_queue_push_tail(&c->fds_out, f);
    g_byte_array_append(c->out, (const guint8 *)"", 1);
}

void client_protect(struct client *c)
{
    c->sasl_from = c->out_sent + client_waiting_bytes(c);
    if (!client_waiting_bytes(c))
        c->io.layer = c->sasl;
}

/* How much may go out in one piece: up to the next descriptor or the begin of protection. */
static size_t piece(struct client *c, int *ret_fd)
{
    size_t len = client_waiting_bytes(c);
    struct fd_out *f = g_queue_peek_head(&c->fds_out);
    *ret_fd = f && f->at == c->out_sent ? f->fd : -1;
    if (f && f->at > c->out_sent)
        len = MIN(len, f->at - c->out_sent);
    if (c->sasl_from > c->out_sent)
        len = MIN(len, c->sasl_from - c->out_sent);
    return len;
}

static void sent(struct client *c, size_t n, int fd)
{
    c->out_at += (guint)n;
    c->out_sent += n;
    c->out_moved_us = g_get_monotonic_time();
    if (fd >= 0)
        close_fd_out(g_queue_pop_head(&c->fds_out));
    if (c->sasl_from && c->sasl_from == c->out_sent)
        c->io.layer = c->sasl;
}

static void trim_output(struct client *c)
{
    if (c->out_at == c->out->len) {
        if (c->out->len > KEEP_OUTPUT_BYTES) {
            g_byte_array_unref(c->out);
            c->out = g_byte_array_new();
        }
        g_byte_array_set_size(c->out, 0);
        c->out_at = 0;
    } else if (c->out_at > c->out->len / 2) {
        g_byte_array_remove_range(c->out, 0, c->out_at);
        c->out_at = 0;
    }
}

/* What epoll is to tell: input while we may take some, output while some waits. */
static bool may_read(const struct client *c)
{
    return !c->end_when_sent && c->calls < server_config()->max_calls && client_has_room(c) &&
           !streams_are_full(c);
}

static void update_interest(struct client *c)
{
    uint32_t wanted = 0;
    if (!c->io.shaken)
        wanted = transport_wants_write(&c->io) ? EPOLLOUT : EPOLLIN;
    else
        wanted = (may_read(c) ? EPOLLIN : 0) | (client_waiting_bytes(c) ? EPOLLOUT : 0);
    server_watch(&c->watch, c->io.fd, &c->interest, wanted);
}

static void write_out(struct client *c)
{
    while (!c->ended && client_waiting_bytes(c)) {
        int fd;
        size_t len = piece(c, &fd);
        ssize_t n = transport_write(&c->io, c->out->data + c->out_at, len, fd);
        if (n == -EAGAIN)
            break;
        if (n < 0) {
            client_end(c, "it does not take our answers");
            return;
        }
        sent(c, (size_t)n, fd);
    }
    trim_output(c);
    if (c->end_when_sent && !client_waiting_bytes(c))
        client_end(c, NULL);
}

static void use_kept(struct client *c);

void client_flush(struct client *c)
{
    if (c->ended || c->in_round || !c->io.shaken)
        return;
    bool had_room = client_has_room(c);
    write_out(c);
    if (!c->ended && !had_room && client_has_room(c)) {
        streams_room(c);
        c->in_round = true; /* answers to what was kept go out with the next round's */
        use_kept(c);
        c->in_round = false;
    }
    if (!c->ended)
        update_interest(c);
}

/* ---- input ---- */

/* Is one more message kept, or is it one that this client may not send yet? */
static bool too_big_now(const struct client *c, uint32_t bytes)
{
    return bytes > INPUT_SMALL_BYTES &&
           (!c->opened || (c->who.read_only && bytes > XDR_STRING_MAX + INPUT_SMALL_BYTES));
}

/* Descriptors of the message of `bytes` at `data`: how many; -1: bad. */
static int fds_wanted(const struct frame *f, const uint8_t *data, uint32_t bytes)
{
    if (f->type != FRAME_CALL_FDS && f->type != FRAME_REPLY_FDS)
        return 0;
    uint32_t be;
    if (bytes < FRAME_HEADER_BYTES + 4)
        return -1;
    memcpy(&be, data + FRAME_HEADER_BYTES, 4);
    uint32_t n = GUINT32_FROM_BE(be);
    return n <= FRAME_MAX_FDS ? (int)n : -1;
}

static void take_message(struct client *c, const struct frame *f, const uint8_t *data,
                         uint32_t bytes, unsigned fd_count)
{
    int fds[FRAME_MAX_FDS];
    size_t skip =
        FRAME_HEADER_BYTES + (f->type == FRAME_CALL_FDS || f->type == FRAME_REPLY_FDS ? 4 : 0);
    if (fd_count) {
        memcpy(fds, c->fds, fd_count * sizeof(int));
        c->fd_count -= fd_count;
        memmove(c->fds, c->fds + fd_count, c->fd_count * sizeof(int));
    }
    client_message(c, f, data + skip, bytes - skip, fds, fd_count);
    for (unsigned i = 0; i < fd_count; i++)
        fd_close_keep_errno(fds[i]);
}

/* Cuts off one message of data. Returns bytes used; 0: there is no whole one. */
static size_t cut_message(struct client *c, const uint8_t *data, size_t len)
{
    struct frame f;
    uint32_t bytes;
    if (frame_read(data, len, &f, &bytes) < 0) {
        client_end(c, "a message has an impossible length");
        return 0;
    }
    if (len < FRAME_HEADER_BYTES)
        return 0;
    if (too_big_now(c, bytes)) {
        c->skip = bytes - FRAME_HEADER_BYTES;
        c->skipped = f;
        return FRAME_HEADER_BYTES;
    }
    if (len < bytes)
        return 0;
    int fds = fds_wanted(&f, data, bytes);
    if (fds < 0) {
        client_end(c, "a message has an impossible number of descriptors");
        return 0;
    }
    if (len < (size_t)bytes + (unsigned)fds)
        return 0;
    if ((unsigned)fds > c->fd_count) {
        client_end(c, "a message announces descriptors that did not come");
        return 0;
    }
    take_message(c, &f, data, bytes, (unsigned)fds);
    return (size_t)bytes + (unsigned)fds;
}

/* Throws away what belongs to a message that was too big; answers when all of it has come. */
static size_t skip_input(struct client *c, size_t len)
{
    size_t n = MIN(len, c->skip);
    c->skip -= (uint32_t)n;
    if (c->skip)
        return n;
    g_autoptr(GError) e = NULL;
    wire_error(&e, LIBVIRT_ERROR_RPC, LIBVIRT_FROM_RPC,
               "a message of this client may have %u bytes, not more",
               c->opened ? XDR_STRING_MAX + INPUT_SMALL_BYTES : INPUT_SMALL_BYTES);
    client_send_error(c, &c->skipped, FRAME_REPLY, e);
    return n;
}

static size_t use_input(struct client *c, const uint8_t *data, size_t len)
{
    size_t at = 0;
    while (at < len && !c->ended && may_read(c)) {
        size_t n = c->skip ? skip_input(c, len - at) : cut_message(c, data + at, len - at);
        if (!n)
            break;
        at += n;
    }
    return at;
}

static void keep_rest(struct client *c, const uint8_t *data, size_t len)
{
    if (!len || c->ended)
        return;
    if (server_input_bytes + len > INPUT_TOTAL_BYTES) {
        client_end(c, "too much input of all clients is waiting");
        return;
    }
    if (!c->in)
        c->in = g_byte_array_new();
    g_byte_array_append(c->in, data, (guint)len);
    server_input_bytes += len;
}

static void use_kept(struct client *c)
{
    if (!c->in)
        return;
    size_t n = use_input(c, c->in->data, c->in->len);
    if (!c->in || !n)
        return;
    if (n == c->in->len) {
        drop_input(c);
        return;
    }
    server_input_bytes -= n;
    g_byte_array_remove_range(c->in, 0, (guint)n);
}

static void use_fresh(struct client *c, const uint8_t *data, size_t len)
{
    if (c->in) {
        keep_rest(c, data, len);
        use_kept(c);
        return;
    }
    size_t n = use_input(c, data, len);
    keep_rest(c, data + n, len - n);
}

static void keep_fds(struct client *c, const int *fds, unsigned count)
{
    unsigned room = c->opened ? FRAME_MAX_FDS : 0; /* nobody half-open makes us hold descriptors */
    for (unsigned i = 0; i < count; i++) {
        if (c->fd_count < room)
            c->fds[c->fd_count++] = fds[i];
        else
            close(fds[i]);
    }
}

static bool read_once(struct client *c)
{
    static uint8_t scratch[READ_BYTES];
    int fds[8];
    unsigned fd_count;
    ssize_t n = transport_read(&c->io, scratch, sizeof(scratch), fds, G_N_ELEMENTS(fds), &fd_count);
    if (n == -EAGAIN)
        return false;
    if (n <= 0) {
        client_end(c, NULL);
        return false;
    }
    keep_fds(c, fds, fd_count);
    c->heard_us = g_get_monotonic_time();
    c->pings = 0;
    use_fresh(c, scratch, (size_t)n);
    return n == sizeof(scratch) || transport_has_more(&c->io);
}

/* ---- rounds ---- */

void client_resume(struct client *c)
{
    if (c->ended || c->in_round)
        return;
    c->in_round = true;
    use_kept(c);
    c->in_round = false;
    client_flush(c);
}

static void handshake(struct client *c)
{
    g_autoptr(GError) e = NULL;
    int r = transport_handshake(&c->io);
    if (!r && !c->who.name && !tls_check_peer(c->tls, c->io.tls, &c->who.name, &e)) {
        log_warn("libvirt: %s", e->message);
        client_end(c, e->message);
        return;
    }
    if (!r)
        r = transport_welcome(&c->io);
    if (r && r != -EAGAIN)
        client_end(c, "the TLS handshake failed");
}

static void read_round(struct client *c, uint32_t events)
{
    bool readable = may_read(c);
    for (unsigned i = 0; i < READS_A_ROUND && !c->ended && may_read(c); i++)
        if (!read_once(c))
            break;
    if (!c->ended && (events & EPOLLERR || (events & EPOLLHUP && !readable)))
        client_end(c, NULL);
}

static void client_ready(struct watch *w, uint32_t events)
{
    struct client *c = (struct client *)w; /* its first member */
    if (c->ended)
        return; /* earlier in this round */
    client_ref(c);
    c->in_round = true;
    int64_t answered_us = c->out_moved_us, heard_us = c->heard_us;
    if (!c->io.shaken)
        handshake(c);
    if (!c->ended && c->io.shaken)
        read_round(c, events);
    c->in_round = false;
    client_flush(c);
    if (!c->ended && !c->io.shaken)
        update_interest(c);
    if (c->heard_us != heard_us && c->kind <= CLIENT_UNIX_RO)
        awake_called(c->heard_us - answered_us, c->heard_us);
    client_unref(c);
}

static void ping(struct client *c, int64_t now_us)
{
    const struct frame f = {
        .program = PROGRAM_KEEPALIVE, .version = 1, .procedure = 1, .type = FRAME_MESSAGE};
    frame_end(c->out, frame_begin(c->out, &f));
    c->pings++;
    c->pinged_us = now_us;
    client_flush(c);
}

void client_tick(struct client *c, int64_t now_us)
{
    const struct libvirt_server_config *config = server_config();
    int64_t pause_us = (int64_t)config->keepalive_s * SECOND_US;
    if (!c->opened && now_us - c->since_us > (int64_t)config->half_open_s * SECOND_US)
        client_end(c, "it did not open the connection in time");
    else if (client_waiting_bytes(c) &&
             now_us - c->out_moved_us > (int64_t)config->stalled_s * SECOND_US)
        client_end(c, "it does not read our answers");
    else if (!c->knows_keepalive || config->keepalive_s <= 0 || !may_read(c))
        c->heard_us = MAX(c->heard_us, c->pinged_us);
    else if (now_us - MAX(c->heard_us, c->pinged_us) < pause_us)
        return;
    else if (c->pings >= config->keepalive_count)
        client_end(c, "it does not answer pings");
    else
        ping(c, now_us);
}
