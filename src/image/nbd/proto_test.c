/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The protocol's words: bytes on the wire are the ones of the specification, and what is malformed
 * is refused. */
#include "image/nbd/proto.h"

#include <errno.h>
#include <glib.h>

static void test_request(void)
{
    static const uint8_t wire[NBD_REQUEST_BYTES] = {
        0x25, 0x60, 0x95, 0x13, 0x00, 0x11, 0x00, 0x06, 1, 2, 3, 4, 5, 6,
        7,    8,    0,    0,    0x01, 0,    0,    0,    0, 0, 0, 1, 0, 0,
    };
    struct nbd_request r = { .flags = NBD_CMD_FUA | NBD_CMD_FAST_ZERO,
                             .command = NBD_CMD_WRITE_ZEROES,
                             .cookie = 0x0102030405060708,
                             .offset = 1ULL << 40,
                             .len = 65536 },
                       back;
    uint8_t buf[NBD_REQUEST_BYTES];
    nbd_pack_request(buf, &r);
    g_assert_cmpmem(buf, sizeof(buf), wire, sizeof(wire));
    g_assert_cmpint(nbd_parse_request(buf, &back), ==, 0);
    g_assert_cmpuint(back.flags, ==, r.flags);
    g_assert_cmpuint(back.command, ==, r.command);
    g_assert_cmpuint(back.cookie, ==, r.cookie);
    g_assert_cmpuint(back.offset, ==, r.offset);
    g_assert_cmpuint(back.len, ==, r.len);
    buf[3] ^= 1;
    g_assert_cmpint(nbd_parse_request(buf, &back), ==, -EBADMSG);
}

static void test_replies(void)
{
    static const uint8_t simple[] = { 0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 0, 0, 0, 0, 0, 0, 0, 9 };
    static const uint8_t chunk[] = { 0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 2, 0, 0,
                                     0,    0,    0,    0,    0, 9, 0, 0, 0, 12 };
    uint8_t buf[NBD_REPLY_BYTES_MAX];
    struct nbd_reply_head h;
    nbd_pack_simple(buf, nbd_error_of_errno(-ENOSPC), 9);
    g_assert_cmpmem(buf, NBD_SIMPLE_BYTES, simple, sizeof(simple));
    g_assert_cmpint(nbd_reply_head_bytes(buf), ==, NBD_SIMPLE_BYTES);
    g_assert_cmpint(nbd_parse_reply(buf, NBD_SIMPLE_BYTES, &h), ==, 0);
    g_assert_false(h.structured);
    g_assert_cmpuint(h.error, ==, 28);

    nbd_pack_chunk(buf, NBD_CHUNK_DONE, NBD_CHUNK_HOLE, 9, 12);
    g_assert_cmpmem(buf, NBD_CHUNK_BYTES, chunk, sizeof(chunk));
    g_assert_cmpint(nbd_reply_head_bytes(buf), ==, NBD_CHUNK_BYTES);
    g_assert_cmpint(nbd_parse_reply(buf, NBD_CHUNK_BYTES - 1, &h), ==, -EBADMSG);
    g_assert_cmpint(nbd_parse_reply(buf, NBD_CHUNK_BYTES, &h), ==, 0);
    g_assert_true(h.structured);
    g_assert_cmpuint(h.type, ==, NBD_CHUNK_HOLE);
    g_assert_cmpuint(h.flags, ==, NBD_CHUNK_DONE);
    g_assert_cmpuint(h.cookie, ==, 9);
    g_assert_cmpuint(h.len, ==, 12);
    buf[0] = 0;
    g_assert_cmpint(nbd_reply_head_bytes(buf), ==, -EBADMSG);
    g_assert_cmpint(nbd_parse_reply(buf, sizeof(buf), &h), ==, -EBADMSG);
}

static void test_options(void)
{
    static const uint8_t hello[] = { 'N', 'B', 'D', 'M', 'A', 'G', 'I', 'C', 'I',
                                     'H', 'A', 'V', 'E', 'O', 'P', 'T', 0,   3 };
    static const uint8_t option[] = {
        'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 0, 0, 7, 0, 0, 0, 5
    };
    static const uint8_t reply[] = { 0x00, 0x03, 0xe8, 0x89, 0x04, 0x55, 0x65, 0xa9, 0, 0,
                                     0,    7,    0x80, 0,    0,    6,    0,    0,    0, 2 };
    uint8_t buf[NBD_OPTION_REPLY_BYTES];
    nbd_pack_hello(buf, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    g_assert_cmpmem(buf, NBD_HELLO_BYTES, hello, sizeof(hello));

    struct nbd_option_head o;
    nbd_pack_option(buf, NBD_OPT_GO, 5);
    g_assert_cmpmem(buf, NBD_OPTION_BYTES, option, sizeof(option));
    g_assert_cmpint(nbd_parse_option(buf, &o), ==, 0);
    g_assert_cmpuint(o.option, ==, NBD_OPT_GO);
    g_assert_cmpuint(o.len, ==, 5);
    buf[0]++;
    g_assert_cmpint(nbd_parse_option(buf, &o), ==, -EBADMSG);

    struct nbd_option_reply_head r;
    nbd_pack_option_reply(buf, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, 2);
    g_assert_cmpmem(buf, NBD_OPTION_REPLY_BYTES, reply, sizeof(reply));
    g_assert_cmpint(nbd_parse_option_reply(buf, &r), ==, 0);
    g_assert_cmpuint(r.type, ==, NBD_REP_ERR_UNKNOWN);
    buf[7]++;
    g_assert_cmpint(nbd_parse_option_reply(buf, &r), ==, -EBADMSG);
}

static void test_text(void)
{
    static const uint8_t bytes[] = "disk\0\xff\xfe";
    char *text = NULL;
    struct cur c = cur_of(bytes, 4);
    g_assert_cmpint(nbd_take_text(&c, 4, &text), ==, 0);
    g_assert_cmpstr(text, ==, "disk");
    g_free(text);
    g_assert_false(c.bad);
    c = cur_of(bytes, 4);
    g_assert_cmpint(nbd_take_text(&c, 5, &text), ==, -EBADMSG); /* longer than what is there */
    c = cur_of(bytes, 5);
    g_assert_cmpint(nbd_take_text(&c, 5, &text), ==, -EBADMSG); /* a zero byte */
    c = cur_of(bytes + 5, 2);
    g_assert_cmpint(nbd_take_text(&c, 2, &text), ==, -EBADMSG); /* not UTF-8 */
    g_autofree uint8_t *large = g_malloc0(NBD_NAME_MAX + 1);
    memset(large, 'x', NBD_NAME_MAX + 1);
    c = cur_of(large, NBD_NAME_MAX + 1);
    g_assert_cmpint(nbd_take_text(&c, NBD_NAME_MAX + 1, &text), ==, -EBADMSG);
    g_assert_true(c.bad);
}

static void test_queries(void)
{
    static const struct {
        const char *asked, *context;
        bool listing, matches;
    } cases[] = {
        { "base:allocation", "base:allocation", false, true },
        { "base:", "base:allocation", false, false },
        { "base:", "base:allocation", true, true },
        { "base:alloc", "base:allocation", true, false },
        { "qemu:dirty-bitmap:", "qemu:dirty-bitmap:b0", true, true },
        { "qemu:dirty-bitmap:b", "qemu:dirty-bitmap:b0", true, false },
        { "qemu:", "qemu:allocation-depth", true, true },
        { "qemu:", "base:allocation", true, false },
        { "", "base:allocation", true, false },
        { "base:allocation:", "base:allocation", true, false },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        bool got = nbd_query_matches((const uint8_t *)cases[i].asked, strlen(cases[i].asked),
                                     cases[i].context, cases[i].listing);
        if (got != cases[i].matches)
            g_test_message("query '%s' for '%s'", cases[i].asked, cases[i].context);
        g_assert_cmpint(got, ==, cases[i].matches);
    }
}

static void test_errors(void)
{
    static const int both[] = { EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN };
    for (unsigned i = 0; i < ARRAY_COUNT(both); i++)
        g_assert_cmpint(nbd_errno_of_error(nbd_error_of_errno(-both[i])), ==, -both[i]);
    g_assert_cmpuint(nbd_error_of_errno(0), ==, 0);
    g_assert_cmpint(nbd_errno_of_error(0), ==, 0);
    g_assert_cmpuint(nbd_error_of_errno(-EROFS), ==, 1);
    g_assert_cmpuint(nbd_error_of_errno(-EXDEV), ==, 5);
    g_assert_cmpint(nbd_errno_of_error(0xffffffff), ==, -EINVAL);
    g_assert_nonnull(nbd_option_error_word(0));
    g_assert_nonnull(nbd_option_error_word(0xffffffff));
    g_assert_cmpstr(nbd_option_word(NBD_OPT_GO), ==, "NBD_OPT_GO");
    g_assert_cmpstr(nbd_option_word(4), ==, nbd_option_word(0xffffffff));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/nbd/proto/request", test_request);
    g_test_add_func("/nbd/proto/replies", test_replies);
    g_test_add_func("/nbd/proto/options", test_options);
    g_test_add_func("/nbd/proto/text", test_text);
    g_test_add_func("/nbd/proto/queries", test_queries);
    g_test_add_func("/nbd/proto/errors", test_errors);
    return g_test_run();
}
