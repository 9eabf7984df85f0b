/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compression: round trips, zlib as the peer in QEMU's way of calling it, and broken streams. */
#include "image/compress.h"

#include <errno.h>
#include <glib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

enum { CLUSTER = 64 * 1024, ROOM = 2 * CLUSTER };
static const enum compression all[] = {COMPRESS_DEFLATE, COMPRESS_ZLIB, COMPRESS_ZSTD};

/* Words that come back from near and far, so that every distance up to the whole buffer occurs. */
static void fill_text(uint8_t *to, size_t len, guint32 seed)
{
    GRand *r = g_rand_new_with_seed(seed);
    for (size_t at = 0; at < len;) {
        size_t n = (size_t)g_rand_int_range(r, 3, 60);
        n = MIN(n, len - at);
        if (at > 100 && g_rand_boolean(r)) {
            size_t from = (size_t)g_rand_int_range(r, 0, (gint32)at);
            n = MIN(n, at - from);
            memcpy(to + at, to + from, n);
        } else {
            for (size_t i = 0; i < n; i++)
                to[at + i] = (uint8_t)g_rand_int_range(r, 'a', 'z');
        }
        at += n;
    }
    g_rand_free(r);
}

static void test_round_trip(void)
{
    static const size_t sizes[] = {1, 511, 4096, CLUSTER, 2 * 1024 * 1024};
    for (unsigned i = 0; i < ARRAY_COUNT(all); i++) {
        for (unsigned s = 0; s < ARRAY_COUNT(sizes); s++) {
            size_t len = sizes[s], room = len * 2 + 100;
            g_autofree uint8_t *in = g_malloc(len), *packed = g_malloc(room),
                               *out = g_malloc(len + 1);
            for (int level = 0; level <= 14; level += 7) {
                fill_text(in, len, (guint32)s);
                ssize_t n = compress_buffer(all[i], level, in, len, packed, room);
                g_assert_cmpint(n, >, 0);
                if (len >= 4096)
                    g_assert_cmpint(n, <, (ssize_t)len);
                out[len] = 0x5a;
                memset(packed + n, 0xff, room - (size_t)n); /* what follows does not matter */
                g_assert_cmpint(decompress_buffer(all[i], packed, room, out, len), ==, 0);
                g_assert_cmpmem(out, len, in, len);
                g_assert_cmphex(out[len], ==, 0x5a);
            }
        }
    }
}

static void test_no_room(void)
{
    g_autofree uint8_t *in = g_malloc(CLUSTER), *to = g_malloc(ROOM);
    GRand *r = g_rand_new_with_seed(1);
    for (size_t i = 0; i < CLUSTER; i++)
        in[i] = (uint8_t)g_rand_int(r);
    g_rand_free(r);
    for (unsigned i = 0; i < ARRAY_COUNT(all); i++) {
        g_assert_cmpint(compress_buffer(all[i], 0, in, CLUSTER, to, CLUSTER - 1), ==, -ENOSPC);
        g_assert_cmpint(compress_buffer(all[i], 0, in, CLUSTER, to, 0), ==, -ENOSPC);
    }
}

/* As QEMU reads a cluster of qcow2: a window of 4 KiB, one call, all of the output. */
static void test_qemu_reads(void)
{
    enum { LARGEST = 2 * 1024 * 1024 };
    g_autofree uint8_t *in = g_malloc(LARGEST), *out = g_malloc(LARGEST);
    g_autofree uint8_t *packed = g_malloc(2 * LARGEST);
    for (guint32 seed = 0; seed < 8; seed++) {
        for (size_t len = 512; len <= LARGEST; len *= 8) {
            fill_text(in, len, seed);
            ssize_t n = compress_buffer(COMPRESS_DEFLATE, 0, in, len, packed, len * 2);
            z_stream z = {.next_in = packed,
                          .avail_in = (uInt)n + 300,
                          .next_out = out,
                          .avail_out = (uInt)len};
            g_assert_cmpint(inflateInit2(&z, -12), ==, Z_OK);
            g_assert_cmpint(inflate(&z, Z_FINISH), ==, Z_STREAM_END);
            inflateEnd(&z);
            g_assert_cmpmem(out, len, in, len);
        }
    }
}

/* What zlib and zstd in pieces have written is read. */
static void test_peers(void)
{
    g_autofree uint8_t *in = g_malloc(CLUSTER), *packed = g_malloc(ROOM), *out = g_malloc(CLUSTER);
    fill_text(in, CLUSTER, 3);
    z_stream z = {.next_in = in, .avail_in = CLUSTER, .next_out = packed, .avail_out = ROOM};
    g_assert_cmpint(deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY),
                    ==, Z_OK);
    g_assert_cmpint(deflate(&z, Z_FINISH), ==, Z_STREAM_END);
    g_assert_cmpint(decompress_buffer(COMPRESS_DEFLATE, packed, z.total_out, out, CLUSTER), ==, 0);
    g_assert_cmpmem(out, CLUSTER, in, CLUSTER);
    deflateEnd(&z);

    uLongf n = ROOM;
    g_assert_cmpint(compress(packed, &n, in, CLUSTER), ==, Z_OK);
    memset(out, 0, CLUSTER);
    g_assert_cmpint(decompress_buffer(COMPRESS_ZLIB, packed, n, out, CLUSTER), ==, 0);
    g_assert_cmpmem(out, CLUSTER, in, CLUSTER);

    size_t first = ZSTD_compress(packed, ROOM, in, 1000, 3);
    size_t second = ZSTD_compress(packed + first, ROOM - first, in + 1000, CLUSTER - 1000, 3);
    memset(out, 0, CLUSTER);
    g_assert_cmpint(decompress_buffer(COMPRESS_ZSTD, packed, first + second, out, CLUSTER), ==, 0);
    g_assert_cmpmem(out, CLUSTER, in, CLUSTER);
}

/* Too short, too long, cut off and damaged streams end in -EIO and write nothing behind the buffer.
 */
static void test_broken(void)
{
    g_autofree uint8_t *in = g_malloc(CLUSTER), *packed = g_malloc(ROOM),
                       *out = g_malloc(CLUSTER + 1);
    GRand *r = g_rand_new_with_seed(5);
    fill_text(in, CLUSTER, 4);
    for (unsigned i = 0; i < ARRAY_COUNT(all); i++) {
        ssize_t n = compress_buffer(all[i], 0, in, CLUSTER, packed, ROOM);
        g_assert_cmpint(decompress_buffer(all[i], packed, (size_t)n, out, CLUSTER + 1), ==, -EIO);
        g_assert_cmpint(decompress_buffer(all[i], packed, (size_t)n, out, CLUSTER - 1), ==, -EIO);
        g_assert_cmpint(decompress_buffer(all[i], packed, 0, out, CLUSTER), ==, -EIO);
        for (unsigned cut = 1; cut < (unsigned)n; cut += 997)
            g_assert_cmpint(decompress_buffer(all[i], packed, (size_t)n - cut, out, CLUSTER), ==,
                            -EIO);
        out[CLUSTER] = 0x5a;
        for (unsigned round = 0; round < 500; round++) {
            size_t at = (size_t)g_rand_int_range(r, 0, (gint32)n);
            uint8_t was = packed[at];
            packed[at] ^= (uint8_t)g_rand_int_range(r, 1, 256);
            int ret = decompress_buffer(all[i], packed, (size_t)n, out, CLUSTER);
            g_assert_true(ret == 0 || ret == -EIO);
            g_assert_cmphex(out[CLUSTER], ==, 0x5a);
            packed[at] = was;
        }
    }
    g_rand_free(r);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/compress/round-trip", test_round_trip);
    g_test_add_func("/compress/no-room", test_no_room);
    g_test_add_func("/compress/qemu-reads", test_qemu_reads);
    g_test_add_func("/compress/peers", test_peers);
    g_test_add_func("/compress/broken", test_broken);
    return g_test_run();
}
