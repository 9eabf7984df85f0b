/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench rows: the mix that embedded benchmarks use: a linked list, a small integer matrix, a state machine that reads
 * numbers, and a CRC-16 over what they gave. */
#include <string.h>

#include "row.h"

static uint16_t crc16(uint16_t crc, uint32_t value)
{
    for (int i = 0; i < 32; i++) {
        unsigned bit = (crc ^ value) & 1;
        crc >>= 1;
        value >>= 1;
        if (bit)
            crc ^= 0xa001;
    }
    return crc;
}

/* ---- list ---- */

struct item {
    struct item *next;
    int16_t key, value;
};

enum { ITEMS = 100 };

static struct item *list_make(struct item *pool, uint64_t seed)
{
    struct item *head = NULL;
    for (int i = 0; i < ITEMS; i++) {
        pool[i] = (struct item){head, (int16_t)row_random(&seed), (int16_t)i};
        head = &pool[i];
    }
    return head;
}

static struct item *list_reverse(struct item *head)
{
    struct item *done = NULL;
    while (head) {
        struct item *next = head->next;
        head->next = done;
        done = head;
        head = next;
    }
    return done;
}

static struct item *list_find(struct item *head, int16_t key)
{
    while (head && head->key != key)
        head = head->next;
    return head;
}

static struct item *list_merge(struct item *a, struct item *b)
{
    struct item *head = NULL, **end = &head;
    while (a && b) {
        struct item **less = a->key <= b->key ? &a : &b;
        *end = *less;
        *less = (*less)->next;
        end = &(*end)->next;
    }
    *end = a ? a : b;
    return head;
}

static NOINLINE struct item *list_sort(struct item *head)
{
    struct item *slow = head, *fast = head ? head->next : NULL;
    if (!fast)
        return head;
    while (fast && fast->next) {
        slow = slow->next;
        fast = fast->next->next;
    }
    struct item *half = slow->next;
    slow->next = NULL;
    return list_merge(list_sort(head), list_sort(half));
}

static uint16_t list_part(uint16_t crc)
{
    struct item pool[ITEMS];
    struct item *head = list_make(pool, 17);
    for (int i = 0; i < 20; i++) {
        struct item *found = list_find(head, pool[i * 5].key);
        if (found)
            crc = crc16(crc, (uint32_t)found->value);
        head = list_reverse(head);
    }
    head = list_sort(head);
    for (int i = 0; head; head = head->next, i++)
        if (i % 10 == 0)
            crc = crc16(crc, (uint32_t)head->key);
    return crc;
}

/* ---- matrix ---- */

enum { SIDE = 20 };

static uint16_t matrix_part(uint16_t crc)
{
    static int16_t a[SIDE][SIDE], b[SIDE][SIDE];
    static int32_t c[SIDE][SIDE];
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            a[i][j] = (int16_t)(i * 7 + j);
            b[i][j] = (int16_t)(i - j * 3);
        }
    row_clobber(a);
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            int32_t sum = 0;
            for (int k = 0; k < SIDE; k++)
                sum += a[i][k] * b[k][j];
            c[i][j] = sum;
        }
    for (int i = 0; i < SIDE; i++)
        crc = crc16(crc, (uint32_t)(c[i][i] + (c[i][SIDE - 1 - i] >> 2)));
    return crc;
}

/* ---- state machine: integers, decimals, exponents, junk ---- */

enum state { START, SIGN, DIGITS, FRACTION, EXPONENT_SIGN, EXPONENT, INVALID, N_STATES };

static enum state state_next(enum state state, char c)
{
    int digit = c >= '0' && c <= '9';
    switch (state) {
    case START:
        return digit ? DIGITS : c == '+' || c == '-' ? SIGN : c == '.' ? FRACTION : INVALID;
    case SIGN:
        return digit ? DIGITS : c == '.' ? FRACTION : INVALID;
    case DIGITS:
        return digit ? DIGITS : c == '.' ? FRACTION : c == 'e' ? EXPONENT_SIGN : INVALID;
    case FRACTION:
        return digit ? FRACTION : c == 'e' ? EXPONENT_SIGN : INVALID;
    case EXPONENT_SIGN:
        return digit || c == '-' || c == '+' ? EXPONENT : INVALID;
    case EXPONENT:
        return digit ? EXPONENT : INVALID;
    default:
        return INVALID;
    }
}

static uint16_t state_part(uint16_t crc)
{
    static const char text[] = "5012,1874,-874,+122,35.54400,.1234500,-110.700,+0.64400,5.500e+3,-.123e-2,-87e+832,"
                               "+0.6e-12,T0.3e-1F,-T.T++Tq,1T3.4e4z,34.0e-T^,99999999,-1,1.1,0,7e7,12345678901234567890,";
    unsigned visits[N_STATES] = {0}, ends[N_STATES] = {0};
    for (int turn = 0; turn < 4; turn++) {
        enum state state = START;
        for (const char *p = text; *p; p++) {
            if (*p == ',') {
                ends[state]++;
                state = START;
                continue;
            }
            state = state_next(state, *p);
            visits[state]++;
        }
    }
    for (int i = 0; i < N_STATES; i++)
        crc = crc16(crc, visits[i] << 8 | ends[i]);
    return crc;
}

static uint64_t coremark(void)
{
    uint16_t crc = 0xffff;
    for (int turn = 0; turn < 4; turn++)
        crc = state_part(matrix_part(list_part(crc)));
    return crc;
}
ROW(coremark, "coremark-like", "integer", coremark);
