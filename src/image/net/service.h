/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A library that does its I/O on one descriptor when it is told to (libiscsi, libnfs), served by
 * the fibers that wait for its answers, in turn: nobody waits while nothing is in flight.
 *
 * Owner     The driver's node embeds it.
 * Thread    The node's home thread.
 */
#pragma once

#include "image/context.h"

struct service {
    struct context *ctx; /* borrowed; changes while nothing is in flight */
    void *library;       /* the library's context; NULL: it has failed for good */
    int (*fd)(void *library);
    int (*events)(void *library);              /* POLL*; 0: nothing now, ask again later */
    int (*handle)(void *library, int revents); /* < 0: it has failed for good */
    void (*give_up)(void *library); /* ends every call in flight, and frees the library's context */
    int64_t timeout_ns; /* without a word from the server: the connection is cut, for the library to
                           make anew */
    /* private */
    bool serving; /* a fiber is at it, for all */
    struct fiber_queue others;
};

/* After a call was started that sets *done when its answer comes. False: the library failed, and
 * the call with it. (f) */
bool service_wait(struct service *s, const bool *done);
