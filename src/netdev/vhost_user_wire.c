/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vhost-user's messages: requests with descriptors out, replies in.
 *
 * Spec      QEMU's vhost-user protocol, "Message Specification".
 * Thread    The netdev's loop.
 * Trust     Replies come in the order of what was asked; any other message, size or descriptor ends the connection.
 */
#include "base/fd.h"
#include "base/sock.h"
#include "chardev/chardev.h"
#include "netdev/vhost_user.h"

#include <poll.h>
#include <sys/socket.h>

#define MAX_PAYLOAD 512

/* Ready for `events` before the deadline? Not turning the loop. */
static bool wait_fd(int fd, short events, int64_t deadline_ns)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = events};
        int64_t left = deadline_ns - loop_now_ns();
        int r = left > 0 ? poll(&p, 1, (int)(left / (NS_PER_SEC / 1000)) + 1) : 0;
        if (r > 0)
            return true;
        if (r == 0 || errno != EINTR)
            return false;
    }
}

static ssize_t send_part(int fd, const uint8_t *data, size_t len, const int *fds, unsigned fd_count)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(VHOST_MAX_REGIONS * sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)data, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd_count) {
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
    }
    return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

int vu_send(struct vhost_user *u, enum vu_request request, bool need_reply, const void *payload,
            size_t len, const int *fds, unsigned fd_count)
{
    uint8_t buf[VU_HEADER + MAX_PAYLOAD];
    const uint32_t head[3] = {request, VU_FLAG_VERSION | (need_reply ? VU_FLAG_NEED_REPLY : 0),
                              (uint32_t)len};
    int64_t deadline = loop_now_ns() + VU_WAIT_NS;
    int fd = chardev_fd(u->chardev);
    if (fd < 0 || u->state < VU_AGREEING || len > MAX_PAYLOAD || fd_count > VHOST_MAX_REGIONS)
        return -ENOTCONN;
    memcpy(buf, head, sizeof(head));
    if (len)
        memcpy(buf + VU_HEADER, payload, len);
    for (size_t done = 0; done < VU_HEADER + len;) {
        ssize_t n = send_part(fd, buf + done, VU_HEADER + len - done, fds, done ? 0 : fd_count);
        if (n > 0) {
            done += (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            if (!wait_fd(fd, POLLOUT, deadline)) {
                u->shunned_until_ns = loop_now_ns() + VU_SHUN_NS;
                vu_fault(u, "does not read what it is sent");
                return -ETIMEDOUT;
            }
        } else if (n == 0 || errno != EINTR) {
            vu_fault(u, "has gone");
            return -EPIPE;
        }
    }
    return 0;
}

int vu_send_u64(struct vhost_user *u, enum vu_request request, uint64_t v)
{
    return vu_send(u, request, false, &v, sizeof(v), NULL, 0);
}

int vu_send_ring(struct vhost_user *u, enum vu_request request, unsigned ring, uint32_t v)
{
    const uint32_t state[2] = {ring, v};
    return vu_send(u, request, false, state, sizeof(state), NULL, 0);
}

int vu_send_ring_fd(struct vhost_user *u, enum vu_request request, unsigned ring, int fd)
{
    uint64_t v = ring | (fd < 0 ? 0x100 : 0);
    return vu_send(u, request, false, &v, sizeof(v), &fd, fd >= 0);
}

int vu_expect(struct vhost_user *u, enum vu_request request, unsigned ring)
{
    if (u->expected_count == VU_MAX_EXPECTED) {
        vu_fault(u, "owes too many answers");
        return -ENOSPC;
    }
    u->expected[u->expected_count].request = (uint8_t)request;
    u->expected[u->expected_count++].ring = (uint16_t)ring;
    if (!u->in_stop)
        loop_timer_arm(&u->timer, loop_now_ns() + VU_PATIENCE_NS);
    return 0;
}

/* --- replies --- */

static void drop_fd(void *opaque, int fd)
{
    struct vhost_user *u = opaque;
    u->in_fds++;
    fd_close_keep_errno(fd);
}

/* One whole message at the front of in[]? 1, 0: not yet, -errno. */
static int take_message(struct vhost_user *u)
{
    struct cur c = cur_of(u->in, u->in_len);
    uint32_t request = cur_le32(&c), flags = cur_le32(&c), size = cur_le32(&c);
    if (c.bad)
        return 0;
    if (size > VU_MAX_REPLY || (flags & VU_FLAG_VERSION_MASK) != VU_FLAG_VERSION ||
        !(flags & VU_FLAG_REPLY) || !u->expected_count || u->expected[0].request != request)
        return -EBADMSG;
    struct cur payload = cur_of(cur_take(&c, size), size);
    if (c.bad)
        return 0;
    unsigned ring = u->expected[0].ring;
    memmove(u->expected, u->expected + 1, --u->expected_count * sizeof(u->expected[0]));
    if (!u->expected_count)
        loop_timer_cancel(&u->timer);
    int err = vu_replied(u, request, ring, &payload);
    if (err < 0 || u->in_len < VU_HEADER + size) /* or the connection ended meanwhile */
        return err;
    u->in_len -= VU_HEADER + size;
    memmove(u->in, u->in + VU_HEADER + size, u->in_len);
    return 1;
}

void vu_receive(struct vhost_user *u)
{
    int fd = chardev_fd(u->chardev);
    if (fd < 0)
        return;
    ssize_t n = sock_receive(fd, u->in + u->in_len, sizeof(u->in) - u->in_len, drop_fd, u);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        vu_fault(u, NULL);
        return;
    }
    u->in_len += (size_t)n;
    int r = u->in_fds ? -EBADMSG : 1;
    while (r > 0)
        r = take_message(u);
    if (r < 0)
        vu_fault(u,
                 u->in_fds ? "sent a descriptor that nobody asked for" : "sent what is no answer");
}

int vu_wait(struct vhost_user *u)
{
    int64_t deadline = loop_now_ns() + VU_WAIT_NS;
    while (u->expected_count) {
        int fd = chardev_fd(u->chardev);
        if (fd < 0)
            return -EPIPE;
        if (!wait_fd(fd, POLLIN, deadline)) {
            u->shunned_until_ns = loop_now_ns() + VU_SHUN_NS;
            vu_fault(u, "did not give its rings back in time");
            return -ETIMEDOUT;
        }
        vu_receive(u);
    }
    return u->state == VU_AWAY ? -EPIPE : 0;
}
