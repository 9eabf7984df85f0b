/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where image I/O runs: one context per thread that has images, with one io_uring, one small pool of
 * threads for calls that block, and the fibers that wait for both.
 *
 * Spec      io_uring(7).
 * Owner     context_new() ... context_free(); every node of a graph borrows it.
 * Thread    Its home: the thread of the loop it was given, or the one that calls context_run().
 * Fiber     "Fiber" below: only in a fiber of the home thread; waits, and other fibers go on meanwhile.
 * Errors    Negative errno, as of the system call.
 */
#pragma once

#include "base/fiber.h"
#include "base/loop.h"
#include "image/vec.h"

#include <glib.h>

struct context;

struct context *context_new(GError **error);
void context_free(struct context *c); /* nothing in flight; NULL is fine */

/* From now on the context is served by `home` (NULL: only by context_run()), whose thread is its home.
 * On that thread, or while its loop is not running; nothing in flight. 0 or -errno. */
int context_set_home(struct context *c, struct loop *home);
struct loop *context_home(const struct context *c);
/* The context that serves `home`, made when first asked for; lives until the last context_put().
 * Any thread. NULL: no memory or descriptors. */
struct context *context_get(struct loop *home);
void context_put(struct context *c);

/* For drivers' sockets and timers: served at home, and during context_run(). */
struct loop *context_loop(struct context *c);

/* Home thread, outside of fibers: runs fn in a fiber and serves this context, and nothing else of the
 * thread's loop, until it has returned; its result. From another thread than home: has home do so, and
 * waits. In a fiber of this context: a plain call. */
int context_run(struct context *c, int (*fn)(void *opaque), void *opaque);
/* Home thread, outside of fibers: serves the context until *done. */
void context_wait(struct context *c, const bool *done);

/* Patient: its thread has nothing else to do than what its fibers wait for, as in a tool. Off in the beginning. */
void context_set_patient(struct context *c, bool on);
bool context_is_patient(const struct context *c);

/* Between them, I/O is handed to the kernel together. They nest. */
void context_plug(struct context *c);
void context_unplug(struct context *c);

/* Fiber. Bytes moved (may be short), 0 or -errno. `flags` are RWF_* and FALLOC_FL_*. */
ssize_t context_preadv(struct context *c, int fd, const struct iovec *iov, unsigned count,
                       uint64_t off);
ssize_t context_pwritev(struct context *c, int fd, const struct iovec *iov, unsigned count,
                        uint64_t off, int flags);
/* The same for files in the page cache, where I/O waits for memory and locks rather than for the disk: in a patient
 * context long copies are made by the pool, and short writes at once. reserve: bytes from off on
 * that the file system gives the file before; no error when it cannot. */
ssize_t context_preadv_cached(struct context *c, int fd, const struct iovec *iov, unsigned count,
                              uint64_t off);
ssize_t context_pwritev_cached(struct context *c, int fd, const struct iovec *iov, unsigned count,
                               uint64_t off, int flags, uint64_t reserve);
int context_fallocate(struct context *c, int fd, int flags, uint64_t off, uint64_t len);
int context_fdatasync(struct context *c, int fd);
/* Fiber: fn(opaque) on a thread of the pool; what it returned. For compression, ciphers, ioctl. */
int context_offload(struct context *c, int (*fn)(void *opaque), void *opaque);
/* Threads that context_offload() may use at a time: the processors, 16 at most. */
unsigned context_threads(const struct context *c);
/* Fiber. */
void context_sleep_ns(struct context *c, int64_t ns);
/* Fiber: until `fd` is ready for one of `events` (POLLIN, POLLOUT) or hung up; any number of waiters. To wake
 * them all, shutdown(2) the socket. Ready events, or -errno. */
int context_wait_fd(struct context *c, int fd, unsigned events);
