/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manager/uuid.h"

#include <glib.h>
#include <string.h>
#include <sys/random.h>

bool uuid_parse(const char *text, uint8_t ret[16])
{
    uint8_t bytes[16] = {0};
    unsigned digits = 0;
    for (; *text; text++) {
        int v = g_ascii_xdigit_value(*text);
        if (*text == '-' || *text == ' ')
            continue;
        if (v < 0 || digits == 32)
            return false;
        bytes[digits / 2] = (uint8_t)(bytes[digits / 2] << 4 | v);
        digits++;
    }
    if (digits != 32)
        return false;
    memcpy(ret, bytes, 16);
    return true;
}

void uuid_format(const uint8_t u[16], char ret[UUID_TEXT_BYTES])
{
    static const char digit[] = "0123456789abcdef";
    for (unsigned i = 0; i < 16; i++) {
        *ret++ = digit[u[i] >> 4];
        *ret++ = digit[u[i] & 15];
        if (i == 3 || i == 5 || i == 7 || i == 9)
            *ret++ = '-';
    }
    *ret = 0;
}

void uuid_random(uint8_t ret[16])
{
    for (size_t have = 0; have < 16;) {
        ssize_t n = getrandom(ret + have, 16 - have, 0);
        have += n > 0 ? (size_t)n : 0;
    }
    ret[6] = (ret[6] & 0x0f) | 0x40;
    ret[8] = (ret[8] & 0x3f) | 0x80;
}

bool uuid_is_valid(const uint8_t u[16])
{
    for (unsigned i = 1; i < 16; i++)
        if (u[i] != u[0])
            return true;
    return false;
}

unsigned uuid_hash(const void *uuid)
{
    const uint8_t *u = uuid;
    unsigned h = 2166136261u;
    for (unsigned i = 0; i < 16; i++)
        h = (h ^ u[i]) * 16777619u;
    return h;
}

int uuid_equal(const void *a, const void *b)
{
    return memcmp(a, b, 16) == 0;
}
