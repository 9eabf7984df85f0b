/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Character backends: where a serial port's or a console's bytes go (stdio, pty, file, socket,
 * null, ringbuf...).
 *
 * Owner     chardev_new() ... chardev_free(); one front end at a time, or several behind mux=on.
 * Thread    The main loop. chardev_write() may be called from any thread: it buffers and never
 *           blocks.
 * Memory    Output that nobody takes is bounded (1 MiB): then chardev_write() accepts less and the
 *           front end is told when there is room again; a serial port with nobody at the other end
 *           drops.
 */
#pragma once

#include "base/error.h"
#include "base/linkset.h"
#include "base/loop.h"

#define CHARDEV_LOG_MAX (8u << 20) /* bytes of a logfile= */

struct chardev;

struct chardev_frontend {
    /* How many bytes the front end can take now (0: the backend stops reading). */
    size_t (*can_receive)(void *opaque);
    void (*receive)(void *opaque, const uint8_t *data, size_t len); /* len <= can_receive() */
    /* A descriptor that came with the bytes that follow, the front end's from here. NULL: none are taken. Not behind
     * a mux. */
    void (*receive_fd)(void *opaque, int fd);
    /* In place of the three: the front end reads the descriptor itself, and calls chardev_hang_up() at its end. */
    void (*readable)(void *opaque, int fd);
    void (*opened)(void *opaque, bool open); /* peer connected, gone; may be NULL */
    /* room again after a short chardev_write(); may be NULL */
    void (*sent)(void *opaque);
    void (*send_break)(void *opaque);        /* may be NULL */
    /* behind a mux: the keyboard comes, goes; may be NULL */
    void (*focus)(void *opaque, bool in);
    void *opaque;
    bool takes_another; /* chardev_replace() may put another backend under it */
};

/* Name=value pairs as -chardev says them; QEMU's short forms ("stdio", "mon:stdio", "file:PATH",
 * "unix:PATH,server=on", "pty", "null", "tcp:host:port", "telnet:...", "vc", "none") are parsed by
 * chardev_parse(). */
struct chardev_option {
    const char *name, *value;
};
struct chardev_config {
    const struct chardev_option *options;
    size_t count;
};

struct chardev *chardev_new(const char *backend, const char *id, const struct chardev_config *c,
                            struct loop *loop, GError **error);
/* "mon:stdio" and friends for -serial; *ret_monitor says that a monitor shares it. NULL without an
 * error: "none". */
struct chardev *chardev_parse(const char *text, const char *id, struct loop *loop,
                              bool *ret_monitor, GError **error);
/* flushes what can be written without waiting; restores the terminal */
void chardev_free(struct chardev *c);
const char *chardev_id(const struct chardev *c);
/* "pty:/dev/pts/3", for query-chardev; g_malloc'd. */
char *chardev_describe(const struct chardev *c);
const char *const *chardev_backends(void); /* names, NULL-ended */
/* For -chardev help: one line each; *ret_option/help until false. */
const char *chardev_backend_summary(const char *backend);
bool chardev_backend_option(const char *backend, size_t n, const char **ret_name,
                            const char **ret_help);

bool chardev_attach(struct chardev *c, const struct chardev_frontend *f, GError **error);
void chardev_detach(struct chardev *c, void *frontend_opaque);
bool chardev_in_use(const struct chardev *c);
/* Puts the backend of `fresh`, which nobody uses, in the place of c's; its front end notices only where the one was
 * open and the other is not. Output that the old one does not take at once is lost. `fresh` is c's from then on. False:
 * nothing changed. */
bool chardev_replace(struct chardev *c, struct chardev *fresh, GError **error);
/* False, with a sentence: chardev_replace() would refuse any other. */
bool chardev_replaceable(const struct chardev *c, GError **error);
bool chardev_is_mux(const struct chardev *c);
/* Returns how many bytes were taken. */
size_t chardev_write(struct chardev *c, const void *data, size_t len);
/* The front end's can_receive() went up: read again. Any thread. */
void chardev_accept_input(struct chardev *c);
bool chardev_is_open(const struct chardev *c);
/* For front ends with `readable`, on the loop: the connection's descriptor (borrowed, non-blocking), or -1; ends the
 * connection, as a peer that goes does; can descriptors be passed to the peer? */
int chardev_fd(const struct chardev *c);
void chardev_hang_up(struct chardev *c);
bool chardev_passes_fds(const struct chardev *c);
/* The bytes behind a mux's "Ctrl-a x" call fn, on the main loop. */
void chardev_on_quit(struct chardev *c, void (*fn)(void *opaque), void *opaque);

/* ringbuf only: false when it is none. Reading takes at most `len` bytes out. */
bool chardev_ringbuf_read(struct chardev *c, void *buf, size_t len, size_t *ret_len);

/* A server with wait=on holds up chardev_new() until a client comes: this makes it fail at once.
 * Signal-safe. */
void chardev_stop_waiting(void);
/* Gives the terminal its own settings back; signal-safe, and nothing happens when they were not
 * changed. */
void chardev_terminal_restore(void);
/* After SIGCONT: the terminal is raw again. */
void chardev_terminal_resume(void);
