/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The REST server as a module of ruched, loaded when the first client comes: door.c opens it, and `ruche_web` is what it
 * finds in it.
 *
 * Thread    The loop thread.
 */
#pragma once

#include "web/web.h"

struct web_module {
    /* The server, and HTTPS if that is configured; the configuration stays until stop(). */
    bool (*start)(const struct web_config *c, GError **error);
    /* Serves a Unix socket that listens; takes the descriptor. */
    bool (*serve_unix)(int fd, GError **error);
    void (*stop)(void);
};

extern const struct web_module ruche_web;
