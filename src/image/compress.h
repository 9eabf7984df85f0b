/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whole-buffer compression, as image formats use it.
 *
 * Thread    Any; call through context_offload() what is large.
 * Trust     Compressed bytes are hostile: output never exceeds the buffer, and a stream that does not fill it
 *           exactly as asked is -EIO.
 * Errors    -ENOSPC: the result would not fit; -EIO: broken stream; -ENOMEM: no working memory.
 */
#pragma once

#include "base/util.h"

#include <sys/types.h>

enum compression { COMPRESS_DEFLATE, /* raw; as qcow2 has it */ COMPRESS_ZLIB, COMPRESS_ZSTD };

/* Bytes written to `to`, or negative errno; level 0: the format's usual. */
ssize_t compress_buffer(enum compression how, int level, const void *from, size_t from_len, void *to,
                        size_t to_len);
/* Exactly to_len bytes come out, or it is broken; trailing input is fine. 0 or negative errno. */
int decompress_buffer(enum compression how, const void *from, size_t from_len, void *to, size_t to_len);
