/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whole-buffer compression with libdeflate and zstd.
 *
 * Spec      RFC 1950 (zlib), RFC 1951 (deflate), RFC 8878 (zstd).
 * Thread    Any; each keeps its own working memory, which goes with it.
 * Trust     See the header. A zstd window is never allocated: frames are decoded into the whole
 * output, so that what they say of sizes costs nothing.
 *
 * Distances: libdeflate looks back as far as 32 KiB. QEMU opens qcow2's streams with a window of 4
 * KiB, which bounds only what zlib keeps from one call to the next: QEMU has inflate() fill the
 * cluster in one call, where every distance inside the output is good. compress_test.c holds zlib
 * to that.
 */
#include "image/compress.h"

#include <errno.h>
#include <glib.h>
#include <libdeflate.h>
#include <zstd.h>

/* On 64 KiB clusters of programs and texts: 112 MB/s to 39.7 %, where zlib's usual level makes 36
 * MB/s to 40.9 % with a window of 4 KiB. Higher levels gain 1 % of size for half of the speed. */
enum { DEFLATE_LEVEL = 4, DEFLATE_LEVEL_MAX = 12 };

/* A thread's working memory; each part is made when first needed. */
struct workshop {
    struct libdeflate_compressor *deflate;
    int deflate_level; /* of `deflate` */
    struct libdeflate_decompressor *inflate;
    ZSTD_CCtx *zstd;
    ZSTD_DCtx *unzstd;
};

static void workshop_free(gpointer data)
{
    struct workshop *w = data;
    libdeflate_free_compressor(w->deflate);
    libdeflate_free_decompressor(w->inflate);
    ZSTD_freeCCtx(w->zstd);
    ZSTD_freeDCtx(w->unzstd);
    g_free(w);
}

static struct workshop *workshop(void)
{
    static GPrivate mine = G_PRIVATE_INIT(workshop_free);
    struct workshop *w = g_private_get(&mine);
    if (!w) {
        w = g_new0(struct workshop, 1);
        g_private_set(&mine, w);
    }
    return w;
}

static struct libdeflate_compressor *deflate_of_level(struct workshop *w, int level)
{
    level = level ? MIN(level, DEFLATE_LEVEL_MAX) : DEFLATE_LEVEL;
    if (!w->deflate || w->deflate_level != level) {
        libdeflate_free_compressor(w->deflate);
        w->deflate = libdeflate_alloc_compressor(level);
        w->deflate_level = level;
    }
    return w->deflate;
}

static ssize_t compress_zstd(struct workshop *w, int level, const void *from, size_t from_len,
                             void *to, size_t to_len)
{
    if (!w->zstd)
        w->zstd = ZSTD_createCCtx();
    if (!w->zstd)
        return -ENOMEM;
    size_t n = ZSTD_compressCCtx(w->zstd, to, to_len, from, from_len, level);
    return ZSTD_isError(n) ? -ENOSPC : (ssize_t)n;
}

ssize_t compress_buffer(enum compression how, int level, const void *from, size_t from_len,
                        void *to, size_t to_len)
{
    struct workshop *w = workshop();
    if (how == COMPRESS_ZSTD)
        return compress_zstd(w, level, from, from_len, to, to_len);
    struct libdeflate_compressor *c = deflate_of_level(w, level);
    if (!c)
        return -ENOMEM;
    size_t n = how == COMPRESS_ZLIB ? libdeflate_zlib_compress(c, from, from_len, to, to_len)
                                    : libdeflate_deflate_compress(c, from, from_len, to, to_len);
    return n ? (ssize_t)n : -ENOSPC;
}

/* The buffer may be the work of several frames, one behind the other. */
static int decompress_zstd(struct workshop *w, const uint8_t *from, size_t from_len, uint8_t *to,
                           size_t to_len)
{
    if (!w->unzstd)
        w->unzstd = ZSTD_createDCtx();
    if (!w->unzstd)
        return -ENOMEM;
    while (to_len) {
        size_t frame = ZSTD_findFrameCompressedSize(from, from_len);
        if (ZSTD_isError(frame) || !frame || frame > from_len)
            return -EIO;
        size_t n = ZSTD_decompressDCtx(w->unzstd, to, to_len, from, frame);
        if (ZSTD_isError(n))
            return -EIO;
        from += frame;
        from_len -= frame;
        to += n;
        to_len -= n;
    }
    return 0;
}

int decompress_buffer(enum compression how, const void *from, size_t from_len, void *to,
                      size_t to_len)
{
    struct workshop *w = workshop();
    if (how == COMPRESS_ZSTD)
        return decompress_zstd(w, from, from_len, to, to_len);
    if (!w->inflate)
        w->inflate = libdeflate_alloc_decompressor();
    if (!w->inflate)
        return -ENOMEM;
    enum libdeflate_result r =
        how == COMPRESS_ZLIB
            ? libdeflate_zlib_decompress(w->inflate, from, from_len, to, to_len, NULL)
            : libdeflate_deflate_decompress(w->inflate, from, from_len, to, to_len, NULL);
    return r == LIBDEFLATE_SUCCESS ? 0 : -EIO;
}
