/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Streams: data that flows behind a call, either way: consoles, volumes, pictures.
 *
 * Spec      libvirt's RPC at 9.0.0: messages with the call's procedure and serial; data has status
 *           CONTINUE, an empty one is the end, then OK each way; ERROR ends it early; holes are
 *           messages of their own.
 * Thread    The loop thread; files are read and written on workers.
 * Owner     A procedure makes one and puts it in its rpc_call; from then on it is the client's,
 *           and ends with either side or with the connection. It takes the descriptor.
 * Flow      Nothing is read from the source while the client does not take it. Of what a client
 *           sends, STREAM_INPUT_BYTES are kept; then nothing more is read from it (a file), or the
 *           stream ends in an error (a console).
 */
#pragma once

#include "libvirt/client.h"

#define STREAM_INPUT_BYTES (1u << 20)

struct rpc_stream;

/* Both ways, byte by byte: a pty or socket, non-blocking. */
struct rpc_stream *stream_new_duplex(struct rpc_call *c, int fd);
/* From a file, at its place: `length` bytes (UINT64_MAX: to its end), holes as such if `sparse`. */
struct rpc_stream *stream_new_download(struct rpc_call *c, int fd, uint64_t length, bool sparse);
/* To a file, at its place: `length` bytes at most. */
struct rpc_stream *stream_new_upload(struct rpc_call *c, int fd, uint64_t length);
/* fn is called in a task when it is over and no worker uses the descriptor any more, once, and takes the descriptor; an
 * upload that was finished is confirmed to the client after fn. */
void stream_on_end(struct rpc_stream *s, void (*fn)(void *opaque, int fd, bool failed),
                   void *opaque);

/* The call was answered: data may flow. Or it failed: the stream is not to be. */
void stream_begin(struct rpc_stream *s);
void stream_drop(struct rpc_stream *s);

/* The client's side. */
void stream_message(struct client *c, const struct frame *f, const uint8_t *payload, size_t len);
bool streams_are_full(const struct client *c); /* too much that was sent is not yet written */
void streams_room(struct client *c);           /* output can be taken again */
void streams_end(struct client *c);
