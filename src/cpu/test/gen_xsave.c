/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cases for the XSAVE family: save, disturb registers and image, restore.
 *
 * The image lies in the data page, 64-byte aligned (mostly). Components hold values unlike their initial ones, since
 * whether an initial one counts as in use is the processor's choice. What is written into the header sets no bit of
 * a component that the host may have and we have not.
 *
 * Spec      Intel SDM volume 1, chapter 13.
 */
#include "cpu/test/oracle.h"

#include <string.h>

#define AREA (T_DATA + 0x400u)

struct code {
    struct rng *r;
    struct test_case *t;
    uint32_t area;
};

static void put(struct code *c, uint64_t v, unsigned n)
{
    for (; n; n--, v >>= 8)
        c->t->code[c->t->code_len++] = (uint8_t)v;
}

/* ModRM and displacement of [at]; 64-bit code needs a SIB byte for that. */
static void put_address(struct code *c, unsigned reg, uint32_t at)
{
    if (c->t->mode32) {
        put(c, 5 | reg << 3, 1);
    } else {
        put(c, 4 | reg << 3, 1);
        put(c, 0x25, 1);
    }
    put(c, at, 4);
}

static void put_components(struct code *c)
{
    put(c, 0xb8, 1); /* mov eax, n */
    put(c, rng_one_in(c->r, 2) ? 7 : rng_below(c->r, 8), 4);
    put(c, 0xd231, 2); /* xor edx, edx */
}

/* After a restore XSAVEOPT may leave out what has not changed since: processors differ, so it is only used first. */
static void put_save(struct code *c, bool first)
{
    static const uint8_t how[][2] = { { 0xae, 4 }, { 0xae, 6 }, { 0xc7, 4 } }; /* xsave, xsaveopt, xsavec */
    unsigned k = first ? rng_below(c->r, 3) : 2 * rng_below(c->r, 2);

    put_components(c);
    if (!c->t->mode32 && rng_one_in(c->r, 2))
        put(c, 0x48, 1);
    put(c, 0x0f, 1);
    put(c, how[k][0], 1);
    put_address(c, how[k][1], c->area);
}

static void put_restore(struct code *c)
{
    put_components(c);
    if (!c->t->mode32 && rng_one_in(c->r, 2))
        put(c, 0x48, 1);
    put(c, 0xae0f, 2);
    put_address(c, 5, c->area);
}

static void put_byte_store(struct code *c, uint32_t at, uint8_t v)
{
    put(c, 0xc6, 1);
    put_address(c, 0, at);
    put(c, v, 1);
}

static void put_disturbance(struct code *c)
{
    static const uint8_t plausible[] = { 0, 1, 2, 3, 4, 5, 6, 7, 0x10, 0x17 };
    unsigned k = rng_below(c->r, 8);

    if (rng_one_in(c->r, 2))
        put(c, 0x77fcc5, 3); /* vzeroall */
    if (rng_one_in(c->r, 2))
        put(c, 0xe3db, 2); /* fninit */
    if (k == 0)
        put_byte_store(c, c->area + 512, plausible[rng_below(c->r, ARRAY_COUNT(plausible))]);
    else if (k == 1)
        put_byte_store(c, c->area + 520, plausible[rng_below(c->r, ARRAY_COUNT(plausible))]);
    else if (k == 2)
        put_byte_store(c, c->area + 527, rng_one_in(c->r, 2) ? 0x80 : 0);
    else if (k == 3)
        put_byte_store(c, c->area + 528 + rng_below(c->r, 48), 1);
    else if (k == 4)
        put_byte_store(c, c->area + 24 + rng_below(c->r, 4), (uint8_t)rng_next(c->r) & 0xfd);
    else if (k == 5)
        put_byte_store(c, c->area + rng_below(c->r, 6), (uint8_t)rng_next(c->r));
}

void gen_xsave(struct rng *r, struct test_case *t)
{
    struct code c = { .r = r, .t = t, .area = AREA };
    struct rng values = { rng_next(r) | 1 };

    t->code_len = 0;
    t->row = 0;
    t->in.rip = T_CODE + 0x400;
    t->in.rflags = 0x202;
    if (rng_one_in(r, 16))
        c.area += 16;
    for (unsigned n = 0; n < (t->mode32 ? 8 : 16); n++)
        for (unsigned at = 0; at < 16; at += 8) {
            uint64_t v = rng_next(&values) | 1;
            memcpy(t->in.xsave + 160 + 16 * n + at, &v, 8);
            memcpy(t->in.xsave + 576 + 16 * n + at, &v, 8);
        }
    put_save(&c, true);
    put_disturbance(&c);
    put_restore(&c);
    if (rng_one_in(r, 2))
        put_save(&c, false);
}
