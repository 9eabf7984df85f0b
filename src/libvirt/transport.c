/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sockets, GnuTLS and SASL's layer behind one pair of functions. Thread: the loop thread. */
#include "libvirt/transport.h"

#include "base/fd.h"
#include "base/library_gnutls.h"
#include "libvirt/frame.h"
#include "libvirt/sasl.h"

#include <string.h>
#include <sys/socket.h>

enum { FDS_AT_ONCE = 4 };

void transport_init(struct transport *t, int fd, gnutls_session_t tls)
{
    *t = (struct transport){.fd = fd, .tls = tls, .shaken = !tls};
    if (tls)
        gnutls.transport_set_int2(tls, fd, fd);
}

void transport_done(struct transport *t)
{
    if (t->tls) {
        if (t->shaken)
            gnutls.bye(t->tls, GNUTLS_SHUT_WR);
        gnutls.deinit(t->tls);
        t->tls = NULL;
    }
    fd_close_keep_errno(fd_steal(&t->fd));
}

static ssize_t tls_result(ssize_t n)
{
    if (n >= 0)
        return n;
    if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
        return -EAGAIN;
    if (n == GNUTLS_E_PREMATURE_TERMINATION)
        return 0;
    return gnutls.error_is_fatal((int)n) ? -EPROTO : -EAGAIN;
}

int transport_handshake(struct transport *t)
{
    if (t->agreed || t->shaken)
        return 0;
    ssize_t r = tls_result(gnutls.handshake(t->tls));
    t->agreed = r == 0;
    return r && r != -EAGAIN ? -EPROTO : (int)r;
}

int transport_welcome(struct transport *t)
{
    if (t->shaken)
        return 0;
    ssize_t n = tls_result(gnutls.record_send(t->tls, "\1", 1));
    if (n < 0)
        return (int)n;
    t->shaken = true;
    return 0;
}

bool transport_wants_write(const struct transport *t)
{
    return t->tls && gnutls.record_get_direction(t->tls);
}

bool transport_has_more(const struct transport *t)
{
    return t->tls && gnutls.record_check_pending(t->tls);
}

/* ---- reading ---- */

static void take_fds(struct msghdr *m, int *fds, unsigned room, unsigned *count)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
            if (*count < room)
                fds[(*count)++] = fd;
            else
                close(fd);
        }
    }
}

static ssize_t plain_read(int fd, void *buf, size_t len, int *fds, unsigned room,
                          unsigned *fd_count)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(FDS_AT_ONCE * sizeof(int))];
    } control;
    struct iovec v = {buf, len};
    struct msghdr m = {
        .msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t n;
    do
        n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    if (m.msg_controllen)
        take_fds(&m, fds, room, fd_count);
    return n;
}

static ssize_t raw_read(struct transport *t, void *buf, size_t len, int *fds, unsigned room,
                        unsigned *fd_count)
{
    *fd_count = 0;
    if (t->tls)
        return tls_result(gnutls.record_recv(t->tls, buf, len));
    return plain_read(t->fd, buf, len, fds, room, fd_count);
}

ssize_t transport_read(struct transport *t, void *buf, size_t len, int *fds, unsigned room,
                       unsigned *fd_count)
{
    if (!t->layer)
        return raw_read(t, buf, len, fds, room, fd_count);
    ssize_t n = sasl_layer_pending(t->layer, buf, len);
    while (!n) { /* a packet of the layer may come in many parts */
        char raw[4096];
        n = raw_read(t, raw, sizeof(raw), fds, room, fd_count);
        if (n <= 0)
            return n;
        n = sasl_layer_decode(t->layer, raw, (size_t)n);
        if (!n)
            n = sasl_layer_pending(t->layer, buf, len);
    }
    return n;
}

/* ---- writing ---- */

static ssize_t plain_write(int to, const void *buf, size_t len, int fd)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec v = {(void *)buf, fd >= 0 ? 1 : len};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof(control);
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        *h = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(h), &fd, sizeof(fd));
    }
    ssize_t n;
    do
        n = sendmsg(to, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static ssize_t raw_write(struct transport *t, const void *buf, size_t len, int fd)
{
    if (!t->tls)
        return plain_write(t->fd, buf, len, fd);
    return fd >= 0 ? -EPROTO : tls_result(gnutls.record_send(t->tls, buf, len));
}

ssize_t transport_write(struct transport *t, const void *buf, size_t len, int fd)
{
    if (!t->layer)
        return raw_write(t, buf, len, fd);
    if (!t->encoded_left) {
        t->encoded_plain = len;
        int r = sasl_layer_encode(t->layer, buf, &t->encoded_plain, &t->encoded, &t->encoded_left);
        if (r < 0)
            return r;
    }
    while (t->encoded_left) {
        ssize_t n = raw_write(t, t->encoded, t->encoded_left, -1);
        if (n < 0)
            return n;
        t->encoded += n;
        t->encoded_left -= (unsigned)n;
    }
    return (ssize_t)t->encoded_plain;
}
