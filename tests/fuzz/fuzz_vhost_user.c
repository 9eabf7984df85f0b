/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a vhost-user back end answers: the input is all that it ever says, in pieces as its first bytes cut it. The
 * machine's side is a netdev with rings that are lent whenever it thinks that it can.
 */
#include "base/fd.h"
#include "base/loop.h"
#include "chardev/chardev.h"
#include "netdev/netdev.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static uint8_t ring[3][4096];
static int event;

static void lend(struct netdev *n)
{
    const struct netdev_vhost_ops *v = n->ops->vhost;
    struct vhost_ring r[2];
    struct vhost_place back[2] = {{.index = 0}, {.index = 1}};
    for (unsigned i = 0; i < 2; i++)
        r[i] = (struct vhost_ring){.index = (uint16_t)i,
                                   .size = 64,
                                   .enabled = true,
                                   .desc = ring[0],
                                   .driver = ring[1],
                                   .device = ring[2],
                                   .kick_fd = event,
                                   .call_fd = event,
                                   .err_fd = event};
    const struct vhost_start how = {
        .features = v->features(n), .rings = r, .ring_count = 2, .log_fd = -1};
    if (v->ready(n) && v->start(n, &how) == 0)
        v->stop(n, back, 2);
}

static struct netdev *make(struct loop *l, int fd, struct chardev **ret_chardev)
{
    g_autofree char *number = g_strdup_printf("%d", fd);
    const struct chardev_option socket_options[] = {{"fd", number}};
    const struct netdev_option queues = {"queues", "2"};
    *ret_chardev = chardev_new("socket", "c", &(struct chardev_config){socket_options, 1}, l, NULL);
    struct netdev *n =
        netdev_new("vhost-user", "n", &(struct netdev_config){&queues, 1, *ret_chardev}, NULL);
    netdev_set_loop(n, l);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    int pair[2];
    uint8_t drain[4096];
    if (!event)
        event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct loop *l = loop_new("fuzz");
    if (len < 1 || !l || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        loop_free(l);
        return 0;
    }
    struct chardev *c;
    struct netdev *n = make(l, pair[0], &c);
    size_t piece = data[0] % 32 + 1;
    for (size_t at = 1; at < len; at += piece) {
        ssize_t sent = send(pair[1], data + at, MIN(piece, len - at), MSG_NOSIGNAL | MSG_DONTWAIT);
        loop_once(l, 0);
        if (at + piece >= len ||
            data[at] & 1) { /* what is waited for is there, or nothing will come */
            if (at + piece < len)
                sent =
                    send(pair[1], data + at + piece, len - at - piece, MSG_NOSIGNAL | MSG_DONTWAIT);
            shutdown(pair[1], SHUT_WR);
            lend(n);
            loop_once(l, 0);
            break;
        }
        while (sent > 0 && recv(pair[1], drain, sizeof(drain), MSG_DONTWAIT) > 0)
            continue;
    }
    netdev_free(n);
    chardev_free(c);
    close(pair[1]);
    loop_free(l);
    return 0;
}
