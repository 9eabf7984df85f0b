/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Values of descriptions: what each kind takes, and the one form that it is written in. See
 * schema.h.
 *
 * Thread    Any.
 * Trust     Texts are hostile, of any length; what an error repeats of them is cut.
 */
#include "manager/domain/schema.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <string.h>

enum { MAX_CPU = 16384, MAX_SHOWN = 100 };

struct value {
    const struct schema_value *v;
    const char *text, *unit;
    size_t len; /* of the text without white space around it, which number and word kinds ignore */
};

static bool bad(GError **error, const struct value *t, const char *what)
{
    g_autofree char *shown = g_strndup(t->text, MAX_SHOWN);
    g_autofree char *valid = g_utf8_make_valid(shown, -1);
    return ruche_error(error, RUCHE_ERR_XML, "'%s'%s %s", valid,
                       strlen(t->text) > MAX_SHOWN ? "..." : "", what);
}

static bool check_text(const struct value *t, char **ret_new, GError **error)
{
    if (t->v->max && strlen(t->text) > t->v->max) {
        g_autofree char *what = g_strdup_printf("is longer than %" PRIu64 " bytes", t->v->max);
        return bad(error, t, what);
    }
    return true;
}

/* "a-z0-9_-": ranges, single characters; '-' for itself stands last. */
static bool in_class(const char *class, char c)
{
    for (; *class; class ++) {
        if (class[1] == '-' && class[2]) {
            if (c >= class[0] && c <= class[2])
                return true;
            class += 2;
        } else if (c == *class) {
            return true;
        }
    }
    return false;
}

static bool check_chars(const struct value *t, char **ret_new, GError **error)
{
    for (const char *p = t->text; *p; p++)
        if (!in_class(t->v->words, *p)) {
            g_autofree char *what =
                g_strdup_printf("has a character that is none of '%s'", t->v->words);
            return bad(error, t, what);
        }
    return *t->text ? check_text(t, ret_new, error) : bad(error, t, "is empty");
}

static bool check_word(const struct value *t, char **ret_new, GError **error)
{
    for (const char *p = t->v->words; p; p = strchr(p, '|')) {
        p += *p == '|';
        if (strcspn(p, "|") == t->len && !strncmp(p, t->text, t->len)) {
            if (t->text[t->len])
                *ret_new = g_strndup(t->text, t->len);
            return true;
        }
    }
    g_auto(GStrv) words = g_strsplit(t->v->words, "|", -1);
    g_autofree char *list = g_strjoinv(", ", words);
    g_autofree char *cut = g_strndup(t->text, MAX_SHOWN);
    g_autofree char *what = g_strdup_printf("is not known; it can be %s%s", list,
                                            suggest_phrase(cut, (const char *const *)words));
    return bad(error, t, what);
}

/* Digits of the base, all of them, without overflow. */
static bool digits(const char *p, size_t len, unsigned base, uint64_t *ret)
{
    uint64_t v = 0;
    for (size_t i = 0; i < len; i++) {
        int d = g_ascii_xdigit_value(p[i]);
        if (d < 0 || d >= (int)base || __builtin_mul_overflow(v, base, &v) ||
            __builtin_add_overflow(v, (uint64_t)d, &v))
            return false;
    }
    *ret = v;
    return len > 0;
}

static bool out_of_range(const struct value *t, int64_t low, uint64_t high, GError **error)
{
    g_autofree char *what =
        g_strdup_printf("is not a number of %" PRId64 " to %" PRIu64, low, high);
    return bad(error, t, what);
}

/* *ret_new, unless the text has this form already. */
static void settle(const struct value *t, const char *form, char **ret_new)
{
    if (strcmp(t->text, form) != 0)
        *ret_new = g_strdup(form);
}

G_GNUC_PRINTF(3, 4)
static void settle_f(const struct value *t, char **ret_new, const char *format, ...)
{
    char form[64];
    va_list ap;
    va_start(ap, format);
    g_vsnprintf(form, sizeof(form), format, ap);
    va_end(ap);
    settle(t, form, ret_new);
}

static bool check_uint(const struct value *t, char **ret_new, GError **error)
{
    uint64_t u, max = t->v->max ? t->v->max : UINT32_MAX;
    if (!digits(t->text, t->len, 10, &u) || u < t->v->min || u > max)
        return out_of_range(t, (int64_t)t->v->min, max, error);
    settle_f(t, ret_new, "%" PRIu64, u);
    return true;
}

static bool check_int(const struct value *t, char **ret_new, GError **error)
{
    uint64_t u, max = t->v->max ? t->v->max : INT32_MAX;
    size_t sign = t->text[0] == '-' || t->text[0] == '+';
    bool minus = t->text[0] == '-';
    if (t->len < sign || !digits(t->text + sign, t->len - sign, 10, &u) || u > INT64_MAX ||
        (!minus && u > max) || (minus ? -(int64_t)u : (int64_t)u) < t->v->low)
        return out_of_range(t, t->v->low, max, error);
    settle_f(t, ret_new, "%" PRId64, minus ? -(int64_t)u : (int64_t)u);
    return true;
}

static bool check_hex(const struct value *t, char **ret_new, GError **error)
{
    uint64_t u;
    bool hex = t->len > 2 && t->text[0] == '0' && (t->text[1] | 32) == 'x';
    if (!digits(t->text + 2 * hex, t->len - 2 * hex, hex ? 16 : 10, &u) || u > t->v->max)
        return out_of_range(t, 0, t->v->max, error);
    settle_f(t, ret_new, "0x%0*" PRIx64, (int)t->v->min, u);
    return true;
}

/* The factor of a unit: "b", "KB" (1000), "k", "KiB" (1024), up to E; 0: there is no such unit. */
static uint64_t unit_factor(const char *unit)
{
    static const char letters[] = "kmgtpe";
    if (!g_ascii_strcasecmp(unit, "b") || !g_ascii_strcasecmp(unit, "byte") ||
        !g_ascii_strcasecmp(unit, "bytes"))
        return 1;
    const char *at = *unit ? strchr(letters, g_ascii_tolower(*unit)) : NULL;
    if (!at || !*at)
        return 0;
    bool binary = !unit[1] || !g_ascii_strcasecmp(unit + 1, "ib");
    if (!binary && g_ascii_strcasecmp(unit + 1, "b") != 0)
        return 0;
    uint64_t factor = 1;
    for (const char *p = letters; p <= at; p++)
        factor *= binary ? 1024 : 1000;
    return factor;
}

static bool check_size(const struct value *t, char **ret_new, GError **error)
{
    uint64_t u, factor = t->unit && *t->unit ? unit_factor(t->unit) : t->v->scale;
    if (!factor)
        return ruche_error(error, RUCHE_ERR_XML,
                           "'%.20s' is not a unit; it can be b, KiB, MiB, GiB, TiB, KB, MB...",
                           t->unit);
    if (!digits(t->text, t->len, 10, &u) || __builtin_mul_overflow(u, factor, &u) || u > INT64_MAX)
        return bad(error, t, "is not a size, or larger than 2^63 bytes");
    settle_f(t, ret_new, "%" PRIu64, t->v->scale == 1 ? u : u / 1024 + !!(u % 1024));
    return true;
}

static bool check_uuid(const struct value *t, char **ret_new, GError **error)
{
    char form[37];
    unsigned n = 0, nibbles = 0;
    for (size_t i = 0; i < t->len; i++) {
        if (t->text[i] == '-' || t->text[i] == ' ')
            continue;
        if (!g_ascii_isxdigit(t->text[i]) || nibbles == 32)
            return bad(error, t, "is not a UUID");
        if (nibbles == 8 || nibbles == 12 || nibbles == 16 || nibbles == 20)
            form[n++] = '-';
        form[n++] = g_ascii_tolower(t->text[i]);
        nibbles++;
    }
    if (nibbles != 32)
        return bad(error, t, "is not a UUID");
    form[n] = 0;
    settle(t, form, ret_new);
    return true;
}

static bool check_mac(const struct value *t, char **ret_new, GError **error)
{
    uint64_t byte[6];
    const char *p = t->text, *end = t->text + t->len;
    for (int i = 0; i < 6; i++) {
        size_t len = 0;
        while (p + len < end && p[len] != ':')
            len++;
        if (len > 2 || !digits(p, len, 16, &byte[i]) || (i < 5) != (p + len < end))
            return bad(error, t, "is not a MAC address: six bytes in hex with ':' between them");
        p += len + 1;
    }
    if (byte[0] & 1)
        return bad(error, t, "is a multicast address; an interface has one of its own");
    settle_f(t, ret_new, "%02x:%02x:%02x:%02x:%02x:%02x", (unsigned)byte[0], (unsigned)byte[1],
             (unsigned)byte[2], (unsigned)byte[3], (unsigned)byte[4], (unsigned)byte[5]);
    return true;
}

static bool check_ip(const struct value *t, char **ret_new, GError **error)
{
    struct in6_addr a;
    if (inet_pton(AF_INET, t->text, &a) == 1 ||
        (t->v->kind == S_IP && inet_pton(AF_INET6, t->text, &a) == 1))
        return true;
    return bad(error, t, t->v->kind == S_IP ? "is not an IP address" : "is not an IPv4 address");
}

static bool check_path(const struct value *t, char **ret_new, GError **error)
{
    if (strlen(t->text) >= 4096)
        return bad(error, t, "is longer than 4095 bytes");
    if (strpbrk(t->text, "\r\n"))
        return bad(error, t, "has a line feed in it");
    return t->text[0] == '/' || bad(error, t, "is not an absolute path");
}

/* One part of a CPU set: "3", "0-7", "^5". */
static bool cpu_range(const char *p, size_t len, uint8_t *set)
{
    bool without = len && p[0] == '^';
    const char *dash = without ? NULL : memchr(p, '-', len);
    uint64_t first, last;
    size_t head = dash ? (size_t)(dash - p) : len;
    if (!digits(p + without, head - without, 10, &first) || first >= MAX_CPU)
        return false;
    last = first;
    if (dash && (!digits(dash + 1, len - head - 1, 10, &last) || last >= MAX_CPU || last < first))
        return false;
    memset(set + first, !without, last - first + 1);
    return true;
}

static char *cpu_form(const uint8_t *set)
{
    GString *s = g_string_new(NULL);
    for (unsigned i = 0; i < MAX_CPU; i++) {
        unsigned first = i;
        if (!set[i])
            continue;
        while (i + 1 < MAX_CPU && set[i + 1])
            i++;
        g_string_append_printf(s, "%s%u", s->len ? "," : "", first);
        if (i > first)
            g_string_append_printf(s, "-%u", i);
    }
    return g_string_free(s, FALSE);
}

static bool check_cpuset(const struct value *t, char **ret_new, GError **error)
{
    g_autofree uint8_t *set = g_malloc0(MAX_CPU);
    if (t->len > 65536)
        return bad(error, t, "is too long for a CPU set");
    for (const char *p = t->text, *end = t->text + t->len; p <= end;) {
        size_t len = strcspn(p, ",");
        if (p + len > end)
            len = (size_t)(end - p);
        if (!cpu_range(p, len, set))
            return bad(error, t, "is not a CPU set: numbers, ranges and exclusions, as 0-3,^2,8");
        p += len + 1;
    }
    g_autofree char *form = cpu_form(set);
    if (!*form)
        return bad(error, t, "has no CPU in it");
    settle(t, form, ret_new);
    return true;
}

static bool (*const checks[])(const struct value *t, char **ret_new, GError **error) = {
    [S_TEXT] = check_text,     [S_CHARS] = check_chars, [S_WORD] = check_word,
    [S_UINT] = check_uint,     [S_INT] = check_int,     [S_HEX] = check_hex,
    [S_SIZE] = check_size,     [S_UUID] = check_uuid,   [S_MAC] = check_mac,
    [S_IP] = check_ip,         [S_IPV4] = check_ip,     [S_PATH] = check_path,
    [S_CPUSET] = check_cpuset,
};

bool schema_value_check(const struct schema_value *v, const char *text, const char *unit,
                        char **ret_new, GError **error)
{
    struct value t = {.v = v, .text = text, .unit = unit};
    if (!xml_can_hold(text)) /* a client's string; what was parsed is well */
        return bad(error, &t, "has a character that XML cannot hold");
    if (v->kind != S_TEXT && v->kind != S_PATH)
        t.text += strspn(t.text, " \t\r\n");
    t.len = strlen(t.text);
    while (t.len && strchr(" \t\r\n", t.text[t.len - 1]))
        t.len--;
    if (!checks[v->kind](&t, ret_new, error))
        return false;
    if (!*ret_new && t.text != text)
        *ret_new = g_strndup(t.text, t.len);
    return true;
}
