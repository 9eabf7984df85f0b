/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside chardev/: what a backend is, and what the core does for it.
 *
 * A backend gives the core two descriptors (or one twice) by chardev_connected(); the core
 * buffers, watches, reads and writes them, and tells the backend of a hangup. A backend with `put`
 * has no descriptors.
 *
 * Thread    open, close, hangup: the main loop. put: any thread, c->lock held.
 */
#pragma once

#include "chardev/chardev.h"

#include <pthread.h>
#include <sys/types.h>

#define CHARDEV_MAX_OUTPUT (1u << 20)
#define CHARDEV_MAX_FRONTENDS 4
#define MUX_MAX_INPUT (64u << 10)

struct chardev_option_help {
    const char *name, *help;
};

struct chardev_type {
    const char *name, *summary;
    const char *const *aliases;                 /* NULL-ended; may be NULL */
    /* ends with a row without a name; NULL: none of its own */
    const struct chardev_option_help *options;
    size_t priv_size;
    bool (*open)(struct chardev *c, const struct chardev_config *cfg, GError **error);
    void (*close)(struct chardev *c);           /* takes half-opened ones */
    /* the peer is gone; NULL: stop reading, go on writing */
    void (*hangup)(struct chardev *c);
    void (*put)(struct chardev *c, const uint8_t *data, size_t len);
    /* Takes protocol bytes out of input, in place; returns what is left. Loop thread. */
    size_t (*filter)(struct chardev *c, uint8_t *data, size_t len);
};
LINKSET_DECLARE(chardev_types);
#define CHARDEV_TYPE(t) LINKSET_ENTRY(chardev_types, t)

/* A front end behind a mux, or the only one. */
struct chardev_port {
    struct chardev_frontend fe; /* receive NULL: free */
    bool used;
    GByteArray *input;          /* mux: what the front end had no room for */
};

struct chardev {
    const struct chardev_type *type;
    char *id;
    char *where;              /* what describe() prints behind the type's name */
    struct loop *loop;
    void *priv;               /* the backend's */

    pthread_mutex_t lock;     /* output and descriptors */
    uint8_t *out;             /* pending output: out[head, head + len) */
    size_t out_room, out_head, out_len;
    bool starved;             /* a write was cut short: call sent() when there is room */
    bool broken;              /* writing failed: hang up on the loop */
    bool double_iac;          /* telnet: 0xff is written twice */
    int in_fd, out_fd;        /* -1: not connected; owned */
    bool open;

    struct loop_fd in_watch, out_watch;
    bool in_unpollable;       /* a regular file: read from a task */
    bool in_eof;
    struct loop_task out_task, in_task;

    struct chardev_port port[CHARDEV_MAX_FRONTENDS];
    bool mux, mux_escape;
    int focus;                /* index in port; -1: none */
    void (*quit)(void *opaque);
    void *quit_opaque;
    int log_fd;               /* logfile=, or -1 */
    struct chardev *instead;  /* has the backend and the front ends of this one; owned; replace.c */
};

/* options.c: by name or alias; NULL: there is none. */
const struct chardev_type *chardev_type_find(const char *name);
/* Does its kind know all that is given? */
bool chardev_check_options(const struct chardev *c, const struct chardev_config *cfg,
                           GError **error);
/* Value of an option, the last one given; NULL: not there. */
const char *chardev_opt(const struct chardev_config *cfg, const char *name);
bool chardev_opt_bool(const struct chardev *c, const struct chardev_config *cfg, const char *name,
                      bool def, bool *ret, GError **error);
bool chardev_opt_u64(const struct chardev *c, const struct chardev_config *cfg, const char *name,
                     uint64_t def, uint64_t max, uint64_t *ret, GError **error);
/* A required one: false with a sentence. */
const char *chardev_opt_need(const struct chardev *c, const struct chardev_config *cfg,
                             const char *name, GError **error);

/* Takes the descriptors over (in may be -1; in == out is one descriptor). Loop thread. */
void chardev_connected(struct chardev *c, int in_fd, int out_fd);
/* Closes them, drops pending output, tells the front ends. Loop thread. */
void chardev_disconnected(struct chardev *c);
void chardev_tell_opened(struct chardev *c, bool open);

/* Where the backend and the front ends of `c` are. Loop thread. */
static inline struct chardev *chardev_now(const struct chardev *c)
{
    return c->instead ? c->instead : (struct chardev *)(uintptr_t)c;
}
/* Flushes what can be written without waiting, and ends the backend. Loop thread. */
void chardev_backend_close(struct chardev *c);

/* mux.c: input through the escape character's state machine. */
void mux_receive(struct chardev *c, const uint8_t *data, size_t len);
void mux_drain(struct chardev *c);
void mux_set_focus(struct chardev *c, int port);
