/* SPDX-License-Identifier: GPL-2.0-or-later */
/* XDR by tables, and headers: bytes as RFC 4506 has them, limits, lengths that lie. */
#include "libvirt/errors.h"
#include "libvirt/frame.h"
#include "libvirt/params.h"

#include <errno.h>
#include <string.h>

struct inner {
    int32_t a;
    char *s;
};
static const struct xdr_row inner_xdr[] = {XDR_F(INT, struct inner, a),
                                           XDR_F(STRING, struct inner, s, .max = 8), XDR_DONE};
struct all {
    int32_t i;
    uint32_t u;
    bool b;
    int64_t h;
    double d;
    char *s, *opt;
    uint8_t fixed[5];
    struct xdr_bytes bytes;
    struct inner in;
    struct inner *pointer;
    struct xdr_array list;
    struct wire_u32 pair[2];
    char word[4];
    int32_t tag;
    union {
        int32_t number;
        char *text;
    };
};
static const struct xdr_row arms[] = {XDR_F(INT, struct all, number, .tag = 1),
                                      XDR_F(STRING, struct all, text, .tag = 7), XDR_DONE};
static const struct xdr_row all_xdr[] = {
    XDR_F(INT, struct all, i),
    XDR_F(UINT, struct all, u),
    XDR_F(BOOL, struct all, b),
    XDR_F(HYPER, struct all, h),
    XDR_F(DOUBLE, struct all, d),
    XDR_F(STRING, struct all, s),
    XDR_F(STRING_OPT, struct all, opt),
    XDR_F(OPAQUE_FIXED, struct all, fixed, .max = 5),
    XDR_F(BYTES, struct all, bytes, .max = 16),
    XDR_SUB(struct all, in, inner_xdr),
    XDR_F(POINTER, struct all, pointer, .size = sizeof(struct inner), .rows = inner_xdr),
    XDR_LIST(struct all, list, inner, 4),
    XDR_F(ARRAY_FIXED, struct all, pair, .max = 2, .size = 4, .rows = wire_u32_xdr),
    XDR_F(CHARS, struct all, word, .max = 4),
    XDR_F(UNION, struct all, tag, .rows = arms),
    XDR_DONE};

static const char golden[] = "fffffffe"
                             "00000007"
                             "00000001"
                             "0000000100000002"
                             "3ff8000000000000"
                             "00000003"
                             "61626300"
                             "00000000"
                             "0102030405000000"
                             "00000002"
                             "aabb0000"
                             "00000005"
                             "00000001"
                             "78000000"
                             "00000001"
                             "00000006"
                             "00000000"
                             "00000002"
                             "00000001"
                             "00000000"
                             "00000002"
                             "00000002"
                             "79790000"
                             "0000000a"
                             "0000000b"
                             "00000078"
                             "00000036"
                             "00000034"
                             "00000000"
                             "00000007"
                             "00000002"
                             "686f0000";

static GByteArray *from_hex(const char *hex)
{
    GByteArray *a = g_byte_array_new();
    for (; *hex; hex += 2) {
        guint8 v = (guint8)(g_ascii_xdigit_value(hex[0]) << 4 | g_ascii_xdigit_value(hex[1]));
        g_byte_array_append(a, &v, 1);
    }
    return a;
}

static void test_golden(void)
{
    g_autoptr(GByteArray) bytes = from_hex(golden), out = g_byte_array_new();
    struct all x;
    size_t used = 0;
    g_assert_cmpint(xdr_read(all_xdr, &x, sizeof(x), bytes->data, bytes->len, &used), ==, 0);
    g_assert_cmpuint(used, ==, bytes->len);
    g_assert_cmpint(x.i, ==, -2);
    g_assert_true(x.b);
    g_assert_cmpint(x.h, ==, 0x100000002);
    g_assert_cmpfloat(x.d, ==, 1.5);
    g_assert_cmpstr(x.s, ==, "abc");
    g_assert_null(x.opt);
    g_assert_cmpmem(x.fixed, 5, "\1\2\3\4\5", 5);
    g_assert_cmpmem(x.bytes.data, x.bytes.len, "\xaa\xbb", 2);
    g_assert_cmpstr(x.in.s, ==, "x");
    g_assert_cmpint(x.pointer->a, ==, 6);
    g_assert_cmpstr(((struct inner *)x.list.items)[1].s, ==, "yy");
    g_assert_cmpuint(x.pair[1].v, ==, 11);
    g_assert_cmpmem(x.word, 4, "x64", 4);
    g_assert_cmpstr(x.text, ==, "ho");
    g_assert_cmpint(xdr_write(all_xdr, &x, out), ==, 0);
    g_assert_cmpmem(out->data, out->len, bytes->data, bytes->len);
    xdr_free(all_xdr, &x);
    xdr_free(all_xdr, &x); /* twice is fine */
}

/* Every message that is cut off is refused, and leaves nothing behind (the sanitizer looks). */
static void test_short(void)
{
    g_autoptr(GByteArray) bytes = from_hex(golden);
    for (guint len = 0; len < bytes->len; len++) {
        struct all x;
        g_assert_cmpint(xdr_read(all_xdr, &x, sizeof(x), bytes->data, len, NULL), ==, -EBADMSG);
        xdr_free(all_xdr, &x);
    }
}

struct refused {
    const char *hex;
    const struct xdr_row *rows;
    size_t size;
    int result;
};

static void test_refused(void)
{
    const struct refused cases[] = {
        {"00000005"
         "7800780000000000",
         wire_string_xdr, sizeof(struct wire_string), -EBADMSG}, /* NUL inside */
        {"00400001"
         "00000000",
         wire_string_xdr, sizeof(struct wire_string), -EMSGSIZE},
        {"ffffffff"
         "00000000",
         wire_string_xdr, sizeof(struct wire_string), -EMSGSIZE},
        {"00003fff"
         "00000000",
         wire_string_xdr, sizeof(struct wire_string), -EBADMSG},
        {"00000001"
         "00000008"
         "00000001",
         wire_param_xdr, sizeof(struct wire_param), -EBADMSG}, /* no such type */
        {"00001001", r_params_xdr, sizeof(struct r_params), -EMSGSIZE},
        {"00001000"
         "00000000",
         r_params_xdr, sizeof(struct r_params), -EBADMSG},
        {"00000801"
         "00000000",
         a_domain_cpus_xdr, sizeof(struct a_domain_cpus), -EBADMSG},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GByteArray) bytes = from_hex(cases[i].hex);
        g_autofree void *obj = g_malloc(cases[i].size);
        g_assert_cmpint(xdr_read(cases[i].rows, obj, cases[i].size, bytes->data, bytes->len, NULL),
                        ==, cases[i].result);
        xdr_free(cases[i].rows, obj);
    }
}

static void test_trailing(void)
{
    g_autoptr(GByteArray) bytes = from_hex("00000001"
                                           "61000000"
                                           "deadbeef");
    struct wire_string s;
    size_t used = 0;
    g_assert_cmpint(xdr_read(wire_string_xdr, &s, sizeof(s), bytes->data, bytes->len, &used), ==,
                    0);
    g_assert_cmpuint(used, ==, 8);
    xdr_free(wire_string_xdr, &s);
}

static void test_too_long_to_write(void)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_assert_cmpint(xdr_write(inner_xdr, &(struct inner){.s = (char *)"123456789"}, out), ==,
                    -EMSGSIZE);
    g_byte_array_set_size(out, 0);
    g_assert_cmpint(xdr_write(inner_xdr, &(struct inner){.s = NULL}, out), ==, 0);
    g_assert_cmpmem(out->data, out->len, "\0\0\0\0\0\0\0\0", 8);
}

static void test_frame(void)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    const struct frame f = {PROGRAM_REMOTE, 1, 16, FRAME_CALL, 9, FRAME_OK};
    guint begin = frame_begin(out, &f);
    g_byte_array_append(out, (const guint8 *)"body", 4);
    g_assert_true(frame_end(out, begin));
    g_autoptr(GByteArray) want = from_hex("00000020"
                                          "20008086"
                                          "00000001"
                                          "00000010"
                                          "00000000"
                                          "00000009"
                                          "00000000"
                                          "626f6479");
    g_assert_cmpmem(out->data, out->len, want->data, want->len);
    struct frame back;
    uint32_t bytes;
    g_assert_cmpint(frame_read(out->data, out->len, &back, &bytes), ==, 0);
    g_assert_cmpuint(bytes, ==, 32);
    g_assert_cmpmem(&back, sizeof(back), &f, sizeof(f));
    g_assert_cmpint(frame_read(out->data, 3, &back, &bytes), ==, 0);
    g_assert_cmpuint(bytes, ==, 0);
    static const uint32_t lengths[] = {0, 4, 27, 33554437, 0x7fffffff, 0xffffffff};
    for (unsigned i = 0; i < G_N_ELEMENTS(lengths); i++) {
        const uint32_t be = GUINT32_TO_BE(lengths[i]);
        g_assert_cmpint(frame_read((const uint8_t *)&be, 4, &back, &bytes), ==, -EBADMSG);
    }
    const uint32_t largest = GUINT32_TO_BE(33554436);
    g_assert_cmpint(frame_read((const uint8_t *)&largest, 4, &back, &bytes), ==, 0);
    g_assert_cmpuint(bytes, ==, 33554436);
}

static void test_errors(void)
{
    static const struct {
        int ours, code, domain;
        const char *message, *format;
    } rows[] = {
        {MANAGER_ERR_NO_DOMAIN, 42, 10, "Domain not found: x", "Domain not found: %s"},
        {MANAGER_ERR_READ_ONLY, 29, 20, "x", "%s"},
        {MANAGER_ERR_NO_POOL, 49, 18, "Storage pool not found: x", "Storage pool not found: %s"},
        {RUCHE_ERR_STATE, 55, 10, "x", "%s"},
        {MANAGER_ERR_AUTH, 45, 46, "Authentication failed: x", "Authentication failed: %s"},
        {4711, 1, 0, "x", "%s"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GError) e = NULL;
        struct wire_error w;
        ruche_error(&e, rows[i].ours, "x");
        wire_error_fill(e, &w);
        g_assert_cmpint(w.code, ==, rows[i].code);
        g_assert_cmpint(w.domain, ==, rows[i].domain);
        g_assert_cmpstr(w.message, ==, rows[i].message);
        g_assert_cmpstr(w.format, ==, rows[i].format);
        g_assert_cmpstr(w.argument, ==, "x");
        g_assert_cmpint(w.int1, ==, -1);
        g_free(w.message);
    }
}

static void test_params(void)
{
    struct param_list l = {0}, back = {0};
    struct xdr_array a = {0};
    param_int(&l, "int", -3);
    param_double(&l, "double", 0.5);
    param_bool(&l, "bool", true);
    param_ullong(&l, "ullong", UINT64_MAX);
    param_string(&l, "string", "text");
    params_to_wire(&l, &a);
    g_assert_cmpuint(l.count, ==, 0);
    g_assert_true(params_from_wire(&a, &back, NULL));
    g_assert_cmpint(param_find(&back, "int")->i, ==, -3);
    g_assert_cmpfloat(param_find(&back, "double")->d, ==, 0.5);
    g_assert_cmpuint(param_find(&back, "bool")->u, ==, 1);
    g_assert_cmpuint(param_find(&back, "ullong")->u, ==, UINT64_MAX);
    g_assert_cmpstr(param_find(&back, "string")->s, ==, "text");
    struct r_params_count r = {.params = a};
    xdr_free(r_params_count_xdr, &r);
    params_answer(&back, 0, &r.params, &r.count); /* the first of two calls: how many? */
    g_assert_cmpint(r.count, ==, 5);
    g_assert_cmpuint(r.params.count, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/xdr/golden", test_golden);
    g_test_add_func("/xdr/short", test_short);
    g_test_add_func("/xdr/refused", test_refused);
    g_test_add_func("/xdr/trailing bytes", test_trailing);
    g_test_add_func("/xdr/too long to write", test_too_long_to_write);
    g_test_add_func("/frame/headers", test_frame);
    g_test_add_func("/errors/table", test_errors);
    g_test_add_func("/params/there and back", test_params);
    return g_test_run();
}
