/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench rows: integer code, from register-heavy to call-heavy. */
#include <stdlib.h>
#include <string.h>

#include "row.h"

/* ---- sieve: byte stores with growing strides ---- */

static uint64_t sieve(void)
{
    enum { LIMIT = 1 << 16 };
    static uint8_t composite[LIMIT];
    uint64_t sum = 0;
    memset(composite, 0, sizeof(composite));
    for (unsigned i = 2; i < LIMIT; i++) {
        if (composite[i])
            continue;
        sum = sum * 3 + i;
        for (unsigned j = i * 2; j < LIMIT; j += i)
            composite[j] = 1;
    }
    return sum;
}
ROW(sieve, "sieve", "integer", sieve);

/* ---- qsort: glibc's, which calls back for each comparison ---- */

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint64_t sort(void)
{
    enum { COUNT = 2000 };
    static uint32_t values[COUNT];
    uint64_t state = 7, sum = 0;
    for (unsigned i = 0; i < COUNT; i++)
        values[i] = row_random(&state);
    qsort(values, COUNT, sizeof(values[0]), compare_u32);
    for (unsigned i = 0; i < COUNT; i += 50)
        sum = row_mix(sum, values[i]);
    return sum;
}
ROW(sort, "qsort", "integer", sort);

/* ---- recursive calls ---- */

static NOINLINE unsigned fibonacci(unsigned n)
{
    return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

/* Moves of a tower of `n` disks, and a mark of which ones. */
static NOINLINE uint64_t hanoi(unsigned n, unsigned from, unsigned to, unsigned via)
{
    if (n == 0)
        return 1;
    uint64_t left = hanoi(n - 1, from, via, to);
    return left * 3 + hanoi(n - 1, via, to, from) + from * 5 + to;
}

static uint64_t recursion(void)
{
    return fibonacci(20) + hanoi(13, 1, 2, 3);
}
ROW(recursion, "recursion", "integer", recursion);

/* ---- virtual calls: eight types behind one table pointer each ---- */

struct shape {
    const struct shape_ops *ops;
    uint32_t a, b;
};

struct shape_ops {
    uint32_t (*area)(const struct shape *shape);
    void (*grow)(struct shape *shape);
};

#define SHAPE(n, expression)                                                                       \
    static uint32_t area_##n(const struct shape *s)                                                \
    {                                                                                              \
        return expression;                                                                         \
    }                                                                                              \
    static void grow_##n(struct shape *s)                                                          \
    {                                                                                              \
        s->a += (n);                                                                               \
    }
SHAPE(0, s->a * s->b)
SHAPE(1, s->a * s->a * 3)
SHAPE(2, s->a + s->b)
SHAPE(3, s->a << (s->b & 7))
SHAPE(4, s->a ^ s->b)
SHAPE(5, s->b - s->a)
SHAPE(6, s->b * 7)
SHAPE(7, s->a | s->b)

#define OPS(n) {area_##n, grow_##n}
static const struct shape_ops shape_ops[] = {OPS(0), OPS(1), OPS(2), OPS(3),
                                             OPS(4), OPS(5), OPS(6), OPS(7)};

static uint64_t virtual_calls(void)
{
    enum { COUNT = 1024 };
    static struct shape shapes[COUNT];
    uint64_t state = 3, sum = 0;
    for (unsigned i = 0; i < COUNT; i++)
        shapes[i] = (struct shape){&shape_ops[row_random(&state) & 7], i, i * 3};
    row_clobber(shapes);
    for (unsigned turn = 0; turn < 8; turn++)
        for (unsigned i = 0; i < COUNT; i++) {
            shapes[i].ops->grow(&shapes[i]);
            sum += shapes[i].ops->area(&shapes[i]);
        }
    return sum;
}
ROW(virtual_calls, "virtual-calls", "integer", virtual_calls);

/* ---- crc32: a table, a byte at a time ---- */

static uint32_t crc_table[256];
static uint8_t crc_input[32768];

static const char *crc_setup(void)
{
    uint64_t state = 5;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
        crc_table[i] = c;
    }
    for (size_t i = 0; i < sizeof(crc_input); i++)
        crc_input[i] = (uint8_t)row_random(&state);
    return NULL;
}

static uint64_t crc(void)
{
    uint32_t c = ~0u;
    for (size_t i = 0; i < sizeof(crc_input); i++)
        c = c >> 8 ^ crc_table[(c ^ crc_input[i]) & 255];
    return ~c;
}
ROW(crc, "crc32", "integer", crc, .setup = crc_setup);

/* ---- pointer chasing: one cycle through 1 MiB ---- */

struct node {
    struct node *next;
    uint64_t value;
    uint8_t pad[48];
};

enum { NODES = 16384 };
static struct node *nodes;

static const char *chase_setup(void)
{
    static uint32_t order[NODES];
    uint64_t state = 11;
    nodes = malloc(NODES * sizeof(*nodes));
    if (!nodes)
        return "no memory";
    for (uint32_t i = 0; i < NODES; i++)
        order[i] = i;
    for (uint32_t i = NODES - 1; i > 0; i--) {
        uint32_t j = row_random(&state) % (i + 1), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (uint32_t i = 0; i < NODES; i++) {
        nodes[order[i]].next = &nodes[order[(i + 1) % NODES]];
        nodes[order[i]].value = i;
    }
    return NULL;
}

static uint64_t chase(void)
{
    uint64_t sum = 0;
    const struct node *n = nodes;
    do {
        sum = sum * 5 + n->value;
        n = n->next;
    } while (n != nodes);
    return sum;
}
ROW(chase, "pointer-chase", "integer", chase, .setup = chase_setup);

/* ---- hashing: a table with open addressing ---- */

static uint64_t hashing(void)
{
    enum { SLOTS = 4096, KEYS = 2500 };
    static uint64_t slots[SLOTS];
    uint64_t found = 0;
    memset(slots, 0, sizeof(slots));
    for (uint64_t pass = 0; pass < 2; pass++)
        for (uint64_t k = 1; k <= KEYS; k++) {
            uint64_t key = k * 0xd6e8feb86659fd93u | 1;
            uint64_t at = key;
            at = (at ^ at >> 32) * 0x9e3779b97f4a7c15u;
            at = (at ^ at >> 29) & (SLOTS - 1);
            while (slots[at] && slots[at] != key)
                at = (at + 1) & (SLOTS - 1);
            found += slots[at] ? at : 0;
            slots[at] = key;
        }
    return found;
}
ROW(hashing, "hashing", "integer", hashing);

/* ---- byte copy: one load and one store a byte, left alone by the vectoriser ---- */

__attribute__((noinline, optimize("no-tree-vectorize,no-tree-loop-distribute-patterns"))) static void
copy_bytes(uint8_t *to, const uint8_t *from, size_t size)
{
    for (size_t i = 0; i < size; i++)
        to[i] = from[i];
}

static uint64_t byte_copy(void)
{
    enum { SIZE = 16384 };
    static uint8_t from[SIZE], to[SIZE];
    for (unsigned i = 0; i < SIZE; i += 64)
        from[i] = (uint8_t)(i >> 6);
    for (unsigned turn = 0; turn < 4; turn++) {
        copy_bytes(to, from, SIZE);
        row_clobber(to);
    }
    return to[640] + to[SIZE - 64] * 256u;
}
ROW(byte_copy, "byte-copy", "integer", byte_copy);

/* ---- bignum: schoolbook products and sums of 64-bit limbs ---- */

enum { LIMBS = 32 };

static void big_multiply(uint64_t *ret, const uint64_t *a, const uint64_t *b)
{
    memset(ret, 0, 2 * LIMBS * sizeof(*ret));
    for (unsigned i = 0; i < LIMBS; i++) {
        uint64_t carry = 0;
        for (unsigned j = 0; j < LIMBS; j++) {
            unsigned __int128 t = (unsigned __int128)a[i] * b[j] + ret[i + j] + carry;
            ret[i + j] = (uint64_t)t;
            carry = (uint64_t)(t >> 64);
        }
        ret[i + LIMBS] = carry;
    }
}

static uint64_t bignum(void)
{
    uint64_t a[LIMBS], b[LIMBS], product[2 * LIMBS], state = 13;
    for (unsigned i = 0; i < LIMBS; i++) {
        a[i] = (uint64_t)row_random(&state) << 32 | row_random(&state);
        b[i] = (uint64_t)row_random(&state) << 32 | row_random(&state);
    }
    for (unsigned turn = 0; turn < 20; turn++) {
        uint64_t carry = 0;
        big_multiply(product, a, b);
        for (unsigned i = 0; i < LIMBS; i++) { /* the next a: the product's halves, added */
            unsigned __int128 t = (unsigned __int128)product[i] + product[i + LIMBS] + carry;
            a[i] = (uint64_t)t;
            carry = (uint64_t)(t >> 64);
        }
    }
    return row_mix(a[0], a[LIMBS - 1]);
}
ROW(bignum, "bignum", "integer", bignum);
