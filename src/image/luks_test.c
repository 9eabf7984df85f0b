/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Encrypted disks: sectors, keys added and erased, crashes meanwhile, broken headers. */
#include "image/luks.h"
#include "image/secret.h"
#include "image/vhd/testing.h"

#include <string.h>

static const struct format_case cases[] = {
    {"luks", "{\"key-secret\": \"one\", \"iter-time\": 1}", "{\"key-secret\": \"one\"}", 2 * MIB,
     false},
    {"luks",
     "{\"key-secret\": \"one\", \"iter-time\": 1, \"cipher-alg\": \"aes-192\", \"cipher-mode\": "
     "\"cbc\","
     " \"ivgen-alg\": \"essiv\", \"ivgen-hash-alg\": \"sha256\", \"hash-alg\": \"sha1\"}",
     "{\"key-secret\": \"one\"}", 2 * MIB, false},
};

static void test_model(void)
{
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++)
        format_test_model(&cases[i], 21 + i, 3000);
}

static void test_parallel(void)
{
    format_test_parallel(&cases[0], 5);
}

static struct node *open_with(struct format_bench *b, const char *secret, GError **error)
{
    g_autoptr(JsonObject) extra = json_object_new();
    if (secret)
        json_object_set_string_member(extra, "key-secret", secret);
    return node_open_name(b->graph, "memory://disk", "luks", extra, secret ? NODE_RW : NODE_NO_IO,
                          error);
}

/* What is on the file is not what was written, and comes back. */
static int write_secret_text(void *opaque)
{
    static const char text[512] = "the quick brown fox";
    return node_pwrite(opaque, 1024, text, sizeof(text), 0);
}

static void test_hides(void)
{
    struct format_bench b;
    bench_init(&b, &cases[0]);
    struct node *n = bench_open(&b, NODE_RW, NULL);
    g_assert_cmpint(bench_run(&b, write_secret_text, n), ==, 0);
    node_unref(n);
    uint64_t size = memory_file_size(b.disk);
    g_autofree char *all = g_malloc(size);
    memory_file_read(b.disk, 0, all, size);
    g_assert_null(memmem(all, size, "quick brown", 11));
    bench_done(&b);
}

static void test_wrong_key(void)
{
    struct format_bench b;
    bench_init(&b, &cases[0]);
    g_autoptr(GError) wrong = NULL, none = NULL;
    g_assert_null(open_with(&b, "two", &wrong));
    g_assert_nonnull(strstr(wrong->message, "invalid password"));
    g_assert_null(open_with(&b, "absent", &none));
    g_assert_nonnull(strstr(none->message, "no secret 'absent'"));
    bench_done(&b);
}

/* Without a key there is information, and no data. */
static int read_one(void *opaque)
{
    char c;
    return node_pread(opaque, 0, &c, 1);
}

static void test_info(void)
{
    struct format_bench b;
    bench_init(&b, &cases[1]);
    g_autoptr(GError) error = NULL;
    struct node *n = open_with(&b, NULL, &error);
    g_assert_no_error(error);
    g_autoptr(JsonObject) o = n->driver->describe(n);
    g_assert_cmpstr(json_object_get_string_member(o, "cipher-alg"), ==, "aes-192");
    g_assert_cmpstr(json_object_get_string_member(o, "cipher-mode"), ==, "cbc");
    g_assert_cmpstr(json_object_get_string_member(o, "ivgen-alg"), ==, "essiv");
    g_assert_cmpstr(json_object_get_string_member(o, "ivgen-hash-alg"), ==, "sha256");
    g_assert_cmpstr(json_object_get_string_member(o, "hash-alg"), ==, "sha1");
    JsonArray *slots = json_object_get_array_member(o, "slots");
    g_assert_cmpuint(json_array_get_length(slots), ==, LUKS_SLOTS);
    g_assert_true(
        json_object_get_boolean_member(json_array_get_object_element(slots, 0), "active"));
    g_assert_false(
        json_object_get_boolean_member(json_array_get_object_element(slots, 1), "active"));
    g_assert_cmpint(bench_run(&b, read_one, n), <, 0);
    node_unref(n);
    bench_done(&b);
}

/* ---- keys ---- */

struct amend_call {
    struct node *n;
    const char *options;
    GError *error;
};

static int amend_call(void *opaque)
{
    struct amend_call *k = opaque;
    g_autoptr(JsonNode) n = json_from_string(k->options, NULL);
    return !k->n->driver->amend(k->n, json_node_get_object(n), NULL, &k->error);
}

/* NULL, or what the sentence must say. */
static void amend(struct format_bench *b, const char *key, const char *options, const char *refusal)
{
    GError *error = NULL;
    struct amend_call k = {open_with(b, key, &error), options, NULL};
    g_assert_no_error(error);
    int r = bench_run(b, amend_call, &k);
    if (refusal) {
        g_assert_cmpint(r, !=, 0);
        g_assert_nonnull(strstr(k.error->message, refusal));
        g_error_free(k.error);
    } else {
        g_assert_no_error(k.error);
        g_assert_cmpint(r, ==, 0);
    }
    node_unref(k.n);
}

static bool opens(struct format_bench *b, const char *key)
{
    struct node *n = open_with(b, key, NULL);
    bool ok = n != NULL;
    node_unref(n);
    return ok;
}

#define ADD(slot) "{\"state\": \"active\", \"new-secret\": \"two\", \"iter-time\": 1" slot "}"
static void test_keys(void)
{
    struct format_bench b;
    bench_init(&b, &cases[0]);
    amend(&b, "one", ADD(", \"keyslot\": 0"), "slot 0 is active");
    amend(&b, "one", ADD(", \"keyslot\": 9"), "keyslot");
    amend(&b, "one", "{\"state\": \"active\"}", "new-secret");
    amend(&b, "one", "{\"new-secret\": \"two\"}", "'state' is needed");
    amend(&b, "one", "{\"state\": \"inactive\"}", "keyslot");
    amend(&b, "one", "{\"state\": \"inactive\", \"keyslot\": 0}", "only key");
    amend(&b, "one", "{\"state\": \"inactive\", \"old-secret\": \"one\"}", "every active slot");
    amend(&b, "one", "{\"state\": \"inactive\", \"keyslot\": 3}", "inactive already");
    amend(&b, "one", ADD(", \"keyslot\": 5"), NULL);
    g_assert_true(opens(&b, "one"));
    g_assert_true(opens(&b, "two"));
    amend(&b, "two", "{\"state\": \"inactive\", \"keyslot\": 0, \"old-secret\": \"two\"}",
          "does not open slot 0");
    amend(&b, "two", "{\"state\": \"inactive\", \"old-secret\": \"one\"}", NULL);
    g_assert_false(opens(&b, "one"));
    g_assert_true(opens(&b, "two"));
    amend(&b, "two", ADD(""), NULL);
    amend(&b, "two", "{\"state\": \"inactive\", \"keyslot\": 5, \"force\": true}", NULL);
    g_assert_true(opens(&b, "two"));
    amend(&b, "two", "{\"state\": \"inactive\", \"keyslot\": 0, \"force\": true}", NULL);
    g_assert_false(opens(&b, "two"));
    bench_done(&b);
}

/* Wherever the power goes while a key is added and another erased, one of them opens. */
static void test_key_power_cut(void)
{
    struct format_bench b;
    bench_init(&b, &cases[0]);
    struct memory_file *start = memory_file_new("start", 0), *record = b.disk;
    memory_file_assign(start, b.disk);
    memory_file_record(b.disk, true);
    amend(&b, "one", ADD(""), NULL);
    unsigned added = memory_file_event_count(b.disk);
    amend(&b, "two", "{\"state\": \"inactive\", \"old-secret\": \"one\"}", NULL);
    unsigned events = memory_file_event_count(record);
    b.disk = memory_file_new("disk", 0);
    GRand *chance = g_rand_new_with_seed(1);
    for (unsigned i = 0; i <= events; i++) {
        memory_file_assign(b.disk, start);
        for (unsigned k = 0; k < i; k++)
            memory_event_apply(b.disk, memory_file_event(record, k));
        if (i < events) /* half of the next one, too */
            memory_event_apply_torn(b.disk, memory_file_event(record, i), chance);
        g_assert_true(i < added ? opens(&b, "one") : opens(&b, "two"));
    }
    g_rand_free(chance);
    memory_file_free(record);
    memory_file_free(start);
    bench_done(&b);
}

/* ---- broken headers ---- */

static void test_bad_headers(void)
{
    static const struct {
        unsigned at;
        uint8_t bytes[8];
        unsigned len;
        const char *says;
    } bad[] = {
        {0, "X", 1, "no LUKS header"},
        {7, "\2", 1, "version 2"},
        {8, "serpent", 8, "cipher 'serpent'"},
        {40, "xts", 4, "cipher mode 'xts'"},
        {40, "ctr-pla", 8, "cipher mode 'ctr-pla'"},
        {72, "md\1", 4, "hash 'md\\001'"},
        {108, "\0\0\0\1", 4, "key of 1 bytes"},
        {108, "\xff\xff\xff\xff", 4, "key of 4294967295 bytes"},
        {104, "\x7f\xff\xff\xff", 4, "behind the end"},
        {164, "\xff\xff\xff\xff", 4, "iterations"},
        {164, "\0\0\0\0", 4, "iterations"},
        {208, "abcd", 4, "neither active nor inactive"},
        {212, "\xff\xff\xff\xff", 4, "slot 0 asks for 4294967295 iterations"},
        {248, "\0\0\0\0", 4, "slot 0"},
        {248, "\xff\xff\xff\xff", 4, "slot 0"},
        {252, "\0\0\0\0", 4, "0 stripes"},
        {252, "\xff\xff\xff\xff", 4, "4294967295 stripes"},
        {296, "\0\0\0\x8", 4, "slots 0 and 1 overlap"},
    };
    struct format_bench b;
    bench_init(&b, &cases[0]);
    uint8_t good[592];
    memory_file_read(b.disk, 0, good, sizeof(good));
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        g_autoptr(GError) error = NULL;
        memory_file_write(b.disk, bad[i].at, bad[i].bytes, bad[i].len);
        g_assert_null(bench_open(&b, 0, &error));
        if (!strstr(error->message, bad[i].says))
            g_error("'%s' does not say '%s'", error->message, bad[i].says);
        memory_file_write(b.disk, 0, good, sizeof(good));
    }
    g_assert_true(opens(&b, "one"));
    bench_done(&b);
}

static void test_probe(void)
{
    uint8_t head[16] = "LUKS\xba\xbe\0\1";
    g_assert_cmpint(luks_probe(head, sizeof(head)), ==, 100);
    head[7] = 2;
    g_assert_cmpint(luks_probe(head, sizeof(head)), ==, 0);
    g_assert_cmpint(luks_probe(head, 4), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < 2; i++) {
        g_autoptr(JsonObject) o = json_object_new();
        json_object_set_string_member(o, "data", i ? "zwei" : "eins");
        secret_add(i ? "two" : "one", o, NULL);
    }
    g_test_add_func("/luks/model", test_model);
    g_test_add_func("/luks/parallel", test_parallel);
    g_test_add_func("/luks/hides", test_hides);
    g_test_add_func("/luks/wrong-key", test_wrong_key);
    g_test_add_func("/luks/info", test_info);
    g_test_add_func("/luks/keys", test_keys);
    g_test_add_func("/luks/key-power-cut", test_key_power_cut);
    g_test_add_func("/luks/bad-headers", test_bad_headers);
    g_test_add_func("/luks/probe", test_probe);
    return g_test_run();
}
