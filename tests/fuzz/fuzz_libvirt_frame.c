/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A libvirt client's bytes, cut in two by the first one, to a server that knows the procedures
 * before CONNECT_OPEN and a few more: connections are of a socket pair, and each is let go of after
 * its bytes. */
#include "libvirt/client.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void give(int fd, struct client *c, const uint8_t *data, size_t size)
{
    while (size && !c->ended) {
        ssize_t n = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
        c->watch.ready(&c->watch, EPOLLIN);
        char answers[65536];
        while (recv(fd, answers, sizeof(answers), MSG_DONTWAIT) > 0)
            ;
        c->watch.ready(&c->watch, EPOLLIN | EPOLLOUT);
        if (n < 0 && !(c->interest & EPOLLIN))
            break; /* it takes no more for now */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct libvirt_server_config config;
    int ends[2];
    if (!config.max_clients) {
        libvirt_server_config_init(&config);
        if (!libvirt_server_start(&config, NULL))
            abort();
    }
    if (size < 2 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
        return 0;
    struct client *c = client_new(ends[0], CLIENT_UNIX, NULL, LIBVIRT_AUTH_NONE);
    client_ref(c);
    c->who.authenticated = data[0] & 1;
    c->who.read_only = true; /* what changes something is not the wire's to test */
    size_t first = 1 + data[1] % (size - 1);
    give(ends[1], c, data + 1, first - 1 < size - 1 ? first - 1 : size - 1);
    give(ends[1], c, data + first, size - first);
    close(ends[1]);
    client_end(c, NULL);
    while (c->calls && g_main_context_iteration(NULL, FALSE))
        ;
    client_unref(c);
    while (g_main_context_iteration(NULL, FALSE))
        ;
    return 0;
}
