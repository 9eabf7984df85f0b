/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sector ciphers and key derivation against published vectors, and the registry of secrets. */
#include "image/crypto.h"
#include "image/secret.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

static void from_hex(const char *hex, uint8_t *to)
{
    for (; hex[0] && hex[1]; hex += 2)
        *to++ = (uint8_t)(g_ascii_xdigit_value(hex[0]) << 4 | g_ascii_xdigit_value(hex[1]));
}

static void assert_hex(const uint8_t *p, const char *hex)
{
    uint8_t want[CRYPTO_KEY_MAX];
    from_hex(hex, want);
    g_assert_cmpmem(p, strlen(hex) / 2, want, strlen(hex) / 2);
}

struct vector {
    struct crypto_params p;
    const char *key;
    uint64_t sector;
    unsigned step; /* plain text: byte i is i * step */
    const char *head;
};
static const struct vector vectors[] = {
    /* IEEE 1619-2007, vectors 4 and 10 */
    {{CRYPTO_AES_128, CRYPTO_XTS, CRYPTO_PLAIN64, 0, 512},
     "2718281828459045235360287471352631415926535897932384626433832795",
     0,
     1,
     "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25"},
    {{CRYPTO_AES_256, CRYPTO_XTS, CRYPTO_PLAIN64, 0, 512},
     "271828182845904523536028747135266249775724709369995957496696762731415926535897932384626433832"
     "79502"
     "884197169399375105820974944592",
     0xff,
     1,
     "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357"},
    /* OpenSSL's CBC under vectors made by hand */
    {{CRYPTO_AES_192, CRYPTO_CBC, CRYPTO_PLAIN64, 0, 512},
     "000102030405060708090a0b0c0d0e0f1011121314151617",
     5,
     7,
     "a0ca126478a155e4"},
    {{CRYPTO_AES_256, CRYPTO_CBC, CRYPTO_ESSIV, CRYPTO_SHA256, 512},
     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
     5,
     7,
     "59b7c1887da49202"},
};

static void test_vectors(void)
{
    for (unsigned i = 0; i < ARRAY_COUNT(vectors); i++) {
        const struct vector *v = &vectors[i];
        uint8_t key[CRYPTO_KEY_MAX], buf[512], plain[512];
        from_hex(v->key, key);
        g_assert_cmpuint(crypto_key_bytes(&v->p), ==, strlen(v->key) / 2);
        for (unsigned k = 0; k < sizeof(buf); k++)
            plain[k] = (uint8_t)(k * v->step);
        memcpy(buf, plain, sizeof(buf));
        struct crypto *c = crypto_new(&v->p, key, NULL);
        g_assert_cmpint(crypto_encrypt(c, v->sector * 512, buf, sizeof(buf)), ==, 0);
        assert_hex(buf, v->head);
        g_assert_cmpint(crypto_decrypt(c, v->sector * 512, buf, sizeof(buf)), ==, 0);
        g_assert_cmpmem(buf, sizeof(buf), plain, sizeof(plain));
        crypto_free(c);
    }
}

/* Every cipher, mode and vector: sectors are independent, differ, and come back. */
static void test_sectors(void)
{
    uint8_t key[CRYPTO_KEY_MAX], plain[2048], whole[2048], part[2048];
    memset(key, 3, sizeof(key));
    key[40] = 9;
    memset(plain, 0x5a, sizeof(plain));
    for (unsigned i = 0; i < 18; i++) {
        struct crypto_params p = {i % 3, i / 3 % 2, i / 6, CRYPTO_SHA256, 512};
        struct crypto *c = crypto_new(&p, key, NULL);
        uint64_t off = (1ULL << 32) * 512 - 1024;
        memcpy(whole, plain, sizeof(whole));
        memcpy(part, plain, sizeof(part));
        g_assert_cmpint(crypto_encrypt(c, off, whole, sizeof(whole)), ==, 0);
        g_assert_cmpint(crypto_encrypt(c, off + 1024, part + 1024, 1024), ==, 0);
        g_assert_cmpint(crypto_encrypt(c, off, part, 1024), ==, 0);
        g_assert_cmpmem(whole, sizeof(whole), part, sizeof(part));
        g_assert_cmpint(memcmp(whole, whole + 512, 512), !=, 0);
        g_assert_cmpint(crypto_decrypt(c, off, whole, sizeof(whole)), ==, 0);
        g_assert_cmpmem(whole, sizeof(whole), plain, sizeof(plain));
        crypto_free(c);
    }
}

/* `plain` has 32 bits of sector number, `plain64` all of them. */
static void test_plain_wraps(void)
{
    uint8_t key[32] = {1}, a[512] = {0}, b[512] = {0};
    struct crypto_params p = {CRYPTO_AES_256, CRYPTO_CBC, CRYPTO_PLAIN, 0, 512};
    struct crypto *c = crypto_new(&p, key, NULL);
    crypto_encrypt(c, 512, a, sizeof(a));
    crypto_encrypt(c, ((1ULL << 32) + 1) * 512, b, sizeof(b));
    g_assert_cmpmem(a, sizeof(a), b, sizeof(b));
    crypto_free(c);
    p.ivgen = CRYPTO_PLAIN64;
    c = crypto_new(&p, key, NULL);
    memset(b, 0, sizeof(b));
    crypto_encrypt(c, ((1ULL << 32) + 1) * 512, b, sizeof(b));
    g_assert_cmpint(memcmp(a, b, sizeof(a)), !=, 0);
    crypto_free(c);
}

static void test_essiv_hash(void)
{
    uint8_t key[32] = {1};
    struct crypto_params p = {CRYPTO_AES_256, CRYPTO_CBC, CRYPTO_ESSIV, CRYPTO_SHA1, 512};
    g_autoptr(GError) error = NULL;
    g_assert_null(crypto_new(&p, key, &error));
    g_assert_nonnull(strstr(error->message, "sha1"));
}

static void test_pbkdf2(void)
{
    uint8_t out[20];
    g_assert_cmpint(crypto_pbkdf2(CRYPTO_SHA1, "password", 8, "salt", 4, 4096, out, 20), ==, 0);
    assert_hex(out, "4b007901b765489abead49d926f721d065a429c1"); /* RFC 6070 */
    g_assert_cmpint(crypto_pbkdf2(CRYPTO_SHA256, "password", 8, "salt", 4, 4096, out, 20), ==, 0);
    assert_hex(out, "c5e478d59288c841aa530db6845c4c8d962893a0");
    g_assert_cmpint(crypto_pbkdf2(CRYPTO_SHA512, "password", 8, "salt", 4, 4096, out, 8), ==, 0);
    assert_hex(out, "d197b1b33db0143e");
    g_assert_cmpint(crypto_pbkdf2(CRYPTO_SHA1, "p", 1, "s", 1, 0, out, 8), <, 0);
    g_assert_cmpuint(crypto_pbkdf2_iterations(CRYPTO_SHA256, 32, 100), >, 1000);
}

static bool add(const char *id, const char *options, GError **error)
{
    g_autoptr(JsonNode) n = json_from_string(options, NULL);
    return secret_add(id, json_node_get_object(n), error);
}

static void assert_text(const char *id, const char *want)
{
    char *text = secret_get_text(id, NULL);
    g_assert_cmpstr(text, ==, want);
    secret_free(text, strlen(text));
}

static void test_secrets(void)
{
    g_assert_true(
        add("a", "{\"data\": \"hunter2\", \"qom-type\": \"secret\", \"id\": \"a\"}", NULL));
    g_assert_true(add("b", "{\"data\": \"aHVudGVyMw==\\n\", \"format\": \"base64\"}", NULL));
    assert_text("a", "hunter2");
    assert_text("b", "hunter3");
    g_autofree char *path = g_build_filename(g_get_tmp_dir(), "ruche-secret-XXXXXX", NULL);
    close(g_mkstemp(path));
    g_autofree char *options = g_strdup_printf("{\"file\": \"%s\"}", path);
    g_assert_true(g_file_set_contents(path, "in a file\n", -1, NULL));
    g_assert_true(add("c", options, NULL));
    unlink(path);
    assert_text("c", "in a file\n");
    g_assert_false(add("a", "{\"data\": \"again\"}", NULL));
    g_assert_true(secret_remove("a", NULL));
    g_assert_false(secret_exists("a"));
    g_assert_false(secret_remove("a", NULL));
    g_assert_null(secret_get_text("a", NULL));
}

/* As `openssl enc -aes-256-cbc -K 000102... -iv 000102... -a` encrypts. */
static void test_encrypted_secret(void)
{
    static const char key[] =
        "{\"data\": \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\", \"format\": \"base64\"}";
    g_assert_true(add("key", key, NULL));
    g_assert_true(
        add("e",
            "{\"data\": \"ZAETodKTx4svTYAmaIyeXg==\", \"format\": \"base64\", \"keyid\": \"key\", "
            "\"iv\": \"AAECAwQFBgcICQoLDA0ODw==\"}",
            NULL));
    assert_text("e", "123456");
}

static void test_bad_secrets(void)
{
    static const char *const bad[][2] = {
        {"{}", "data"},
        {"{\"data\": \"x\", \"file\": \"y\"}", "data"},
        {"{\"data\": 1}", "text"},
        {"{\"data\": \"x\", \"format\": \"hex\"}", "hex"},
        {"{\"data\": \"x\", \"fromat\": \"raw\"}", "did you mean 'format'"},
        {"{\"data\": \"?x\", \"format\": \"base64\"}", "base64"},
        {"{\"file\": \"/nonexistent/secret\"}", "/nonexistent/secret"},
        {"{\"data\": \"x\", \"keyid\": \"none\", \"iv\": \"x\"}", "multiple of 16"},
        {"{\"data\": \"0123456789abcdef\", \"keyid\": \"none\", \"iv\": \"x\"}",
         "no secret 'none'"},
        {"{\"data\": \"0123456789abcdef\", \"keyid\": \"key\", \"iv\": \"AAAA\"}", "16 are needed"},
        {"{\"data\": \"0123456789abcdef\", \"keyid\": \"key\", \"iv\": "
         "\"AAECAwQFBgcICQoLDA0ODw==\"}",
         "wrong"},
    };
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_false(add("bad", bad[i][0], &error));
        g_assert_nonnull(strstr(error->message, bad[i][1]));
        g_assert_nonnull(strstr(error->message, "'bad'") ?: strstr(error->message, "'none'"));
        g_assert_false(secret_exists("bad"));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/crypto/vectors", test_vectors);
    g_test_add_func("/crypto/sectors", test_sectors);
    g_test_add_func("/crypto/plain-wraps", test_plain_wraps);
    g_test_add_func("/crypto/essiv-hash", test_essiv_hash);
    g_test_add_func("/crypto/pbkdf2", test_pbkdf2);
    g_test_add_func("/secret/forms", test_secrets);
    g_test_add_func("/secret/encrypted", test_encrypted_secret);
    g_test_add_func("/secret/bad", test_bad_secrets);
    return g_test_run();
}
