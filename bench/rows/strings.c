/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench rows: glibc's string functions, which pick SSE2 or AVX2 forms by CPUID. */
#include <string.h>

#include "row.h"

enum { TEXTS = 64, ROOM = 256 };
static char texts[TEXTS][ROOM];

static const char *strings_setup(void)
{
    uint64_t state = 23;
    for (unsigned i = 0; i < TEXTS; i++) {
        unsigned length = 4 + row_random(&state) % (ROOM - 8);
        for (unsigned k = 0; k < length; k++)
            texts[i][k] = (char)('a' + row_random(&state) % 25);
    }
    return NULL;
}

static uint64_t strings(void)
{
    char copy[ROOM];
    uint64_t sum = 0;
    for (unsigned i = 0; i < TEXTS; i++) {
        const char *text = texts[i];
        size_t length = strlen(text);
        const char *found;
        row_clobber(text);
        strcpy(copy, text);
        row_clobber(copy);
        sum += length + (strcmp(copy, text) == 0) + (memcmp(copy, text, length) == 0);
        found = strchr(text, 'q');
        sum += found ? (size_t)(found - text) : 1000;
        found = strrchr(copy, 'c');
        sum += found ? (size_t)(found - copy) : 1000;
        sum += memchr(text, 'z', length) == NULL;
        found = strstr(text, "xy");
        sum += found ? (size_t)(found - text) : 3000;
    }
    return sum;
}
ROW(strings, "strings", "integer", strings, .setup = strings_setup);
