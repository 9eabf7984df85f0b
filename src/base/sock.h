/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stream sockets by name: listen on and connect to Unix paths and TCP ports, with sentences for
 * what fails.
 *
 * Owner     The caller closes descriptors; sock_path_remove() takes away the path that
 *           sock_listen_unix() made.
 * Thread    Any; blocks for name resolution, and in connect unless `nonblock`.
 * Errors    -1 with a GError. All descriptors are close-on-exec; listeners are non-blocking.
 */
#pragma once

#include "base/error.h"

#include <sys/stat.h>
#include <sys/types.h>

/* The file of a listening Unix socket: remembered, so that only our own is removed. */
struct sock_path {
    char *path;
    dev_t dev;
    ino_t ino;
};

/* A path that somebody listens on is refused; a dead socket's path is taken over; any other file
 * is refused. A leading '@' means the abstract name space. */
int sock_listen_unix(const char *path, struct sock_path *ret_path, GError **error);
void sock_path_remove(struct sock_path *p); /* twice is fine */
/* host NULL or "": loopback. *ret_where: g_malloc'd "127.0.0.1:4444" with the real port. */
int sock_listen_tcp(const char *host, const char *port, char **ret_where, GError **error);
/* nonblock: the connection may still be under way when the descriptor is returned: wait for
 * POLLOUT, then ask sock_connect_result(). */
int sock_connect_unix(const char *path, bool nonblock, GError **error);
int sock_connect_tcp(const char *host, const char *port, bool nonblock, GError **error);
int sock_connect_result(int fd); /* 0 or negative errno */
int sock_accept(int listen_fd);  /* non-blocking, close-on-exec; negative errno */
int sock_set_nonblock(int fd, bool on);
/* recv(2), and `got` for each descriptor that came with the bytes: its owner from then on. */
ssize_t sock_receive(int fd, void *buf, size_t len, void (*got)(void *opaque, int fd), void *opaque);
