/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sizes and numbers as text. Thread: any. Trust: the text is a user's. */
#include "base/units.h"
#include "base/util.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char unit_letters[] = "KMGTPE";

bool units_parse_u64(const char *text, uint64_t *ret)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, hex ? 16 : 10);
    if (errno || *end || end == text)
        return false;
    *ret = v;
    return true;
}

/* "K", "KB", "KiB" and small letters; "B" is bytes; nothing is `unit`. 0: not a suffix. */
static uint64_t parse_suffix(const char *s, uint64_t unit)
{
    if (!*s)
        return unit;
    const char *letter = strchr(unit_letters, toupper((unsigned char)*s));
    if (!letter)
        return (*s == 'B' || *s == 'b') && !s[1] ? 1 : 0;
    s++;
    if (*s == 'i')
        s++;
    if (*s == 'B' || *s == 'b')
        s++;
    return *s ? 0 : 1ULL << (10 * (unsigned)(letter - unit_letters + 1));
}

bool units_parse_size(const char *text, uint64_t unit, uint64_t *ret_bytes)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    char *end;
    errno = 0;
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    unsigned long long whole = strtoull(text, &end, hex ? 16 : 10);
    if (errno)
        return false;
    /* The fraction in parts of 10^9: enough for any size that a person types. */
    uint64_t fraction = 0, scale = 1;
    if (*end == '.' && !hex) {
        for (end++; isdigit((unsigned char)*end); end++) {
            if (scale < 1000000000) {
                fraction = fraction * 10 + (uint64_t)(*end - '0');
                scale *= 10;
            }
        }
    }
    uint64_t multiple = parse_suffix(end, unit);
    __uint128_t bytes = (__uint128_t)whole * multiple + (__uint128_t)fraction * multiple / scale;
    if (!multiple || bytes > INT64_MAX)
        return false;
    *ret_bytes = (uint64_t)bytes;
    return true;
}

const char *units_format_size(uint64_t bytes)
{
    static __thread char buf[32];
    unsigned power = 0;
    while (power < 6 && bytes >> (10 * (power + 1)))
        power++;
    if (!power)
        snprintf(buf, sizeof(buf), "%llu B", (unsigned long long)bytes);
    else if (bytes & ((1ULL << (10 * power)) - 1))
        snprintf(buf, sizeof(buf), "%.1f %ciB", (double)bytes / (double)(1ULL << (10 * power)),
                 unit_letters[power - 1]);
    else
        snprintf(buf, sizeof(buf), "%llu %ciB", (unsigned long long)(bytes >> (10 * power)),
                 unit_letters[power - 1]);
    return buf;
}
