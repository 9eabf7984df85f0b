/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random hostile guests for a while: the fuzz target fuzz_cpu fed by a generator that prefers
 * system instructions and edge values. Argument or RUCHE_SEED: the seed; RUCHE_SECONDS: how long. */
#include <glib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_SEED 1u /* a test that fails by chance tells nobody anything */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const openings[] = {
    "\xcf", "\xcb", "\xca", "\xcd", "\xcc", "\xce", "\xf1", "\x9a", "\xea", "\xff", "\x8e", "\x8c", "\x07", "\x17",
    "\x1f", "\xc4", "\xc5", "\x0f\x00", "\x0f\x01", "\x0f\x02", "\x0f\x03", "\x0f\x05", "\x0f\x06", "\x0f\x07",
    "\x0f\x20", "\x0f\x21", "\x0f\x22", "\x0f\x23", "\x0f\x30", "\x0f\x32", "\x0f\x34", "\x0f\x35", "\x0f\xa1",
    "\x0f\xa9", "\x0f\xb2", "\x0f\xc7", "\x0f\xae", "\xf3\x0f\xae", "\x0f\xa2", "\x63", "\xf4", "\xfa", "\xfb",
    "\x9c", "\x9d", "\x6c", "\xf3\x6d", "\xf3\x6f", "\xf3\xa4", "\xf3\xa5", "\xf2\xae", "\xe4", "\xef", "\x66\x0f",
    "\x48\x0f", "\xc4\xe2", "\xc5\xf8", "\xd9", "\xdd", "\xdf", "\x0f\x38", "\x66\x0f\x38\x82", "\xf0\x0f",
    "\x48\xcf", "\x66\xcf", "\x48\xcb", "\x0f\x0b", "\xe8", "\xeb", "\xc3", "\xc8", "\xc9", "\x60", "\x61", "\x62",
};

static uint64_t edge(GRand *r)
{
    static const uint64_t values[] = {
        0, 1, 7, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffff000, 0xfff, 0x7fffffffffff,
        0x800000000000, 0xffff800000000000, 0xffffffffffffffff, 0xfffffffffffffffe, 0x1000, 0x20000, 0x1ffff,
        0xfffff, 0x100000, 0xfee00000, 0x80010033, 0x60000011, 0x6a0, 0x3006b0, 0xd01, 0x23202, 0x700, 0x40202,
        0xc0000080, 0x277, 0x1b, 0x4b564d01, 0x5000, 0x6000, 0x8000,
    };
    if (g_rand_boolean(r))
        return values[g_rand_int_range(r, 0, G_N_ELEMENTS(values))];
    return (uint64_t)g_rand_int(r) << 32 | g_rand_int(r);
}

static void put(GByteArray *a, const void *p, guint n)
{
    g_byte_array_append(a, p, n);
}

static void make_input(GRand *r, GByteArray *a)
{
    uint8_t head[4] = { (uint8_t)g_rand_int(r), (uint8_t)g_rand_int_range(r, 0, 6),
                        (uint8_t)g_rand_int_range(r, 0, 6),
                        (uint8_t)(g_rand_boolean(r) ? g_rand_int(r) : 0u) };
    unsigned patches = head[1];
    if (g_rand_boolean(r))
        head[1] |= 0x80;
    g_byte_array_set_size(a, 0);
    put(a, head, 4);
    for (unsigned i = 0; i < patches; i++) {
        uint16_t off = (uint16_t)(g_rand_int_range(r, 0, 100) * 8);
        uint64_t v = edge(r);
        put(a, &off, 2);
        put(a, &v, 8);
    }
    for (unsigned i = 0; i < head[2]; i++) {
        static const uint32_t places[] = { 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000, 0x8000, 0x9000, 0xa000 };
        uint32_t at = places[g_rand_int_range(r, 0, G_N_ELEMENTS(places))] +
                      (uint32_t)g_rand_int_range(r, 0, 0x20) * 8;
        uint64_t v = edge(r);
        put(a, &at, 4);
        put(a, &v, 8);
    }
    for (int n = g_rand_int_range(r, 1, 40); n > 0; n--) {
        const char *op = openings[g_rand_int_range(r, 0, G_N_ELEMENTS(openings))];
        uint64_t tail = edge(r);
        if (g_rand_int_range(r, 0, 4))
            put(a, op, op[0] ? (guint)strlen(op) : 2);
        if (op[0] == 0x0f && !op[1])
            put(a, "", 1);
        put(a, &tail, (guint)g_rand_int_range(r, 0, 7));
    }
}

static void test_hostile(void)
{
    const char *seconds = g_getenv("RUCHE_SECONDS"), *seed_text = g_getenv("RUCHE_SEED");
    guint32 seed = seed_text ? (guint32)strtoul(seed_text, NULL, 0) : DEFAULT_SEED;
    gint64 end = g_get_monotonic_time() + (seconds ? atoi(seconds) : 10) * (gint64)G_USEC_PER_SEC;
    GByteArray *a = g_byte_array_new();
    unsigned n = 0;
    do {
        GRand *r = g_rand_new_with_seed(seed + n);
        make_input(r, a);
        g_rand_free(r);
        const char *dump = g_getenv("RUCHE_DUMP");
        if (dump)
            g_file_set_contents(dump, (const char *)a->data, a->len, NULL);
        LLVMFuzzerTestOneInput(a->data, a->len);
        n++;
    } while (g_get_monotonic_time() < end);
    g_test_message("%u guests from seed %u", n, seed);
    g_byte_array_unref(a);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hostile/guests", test_hostile);
    return g_test_run();
}
