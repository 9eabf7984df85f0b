/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A comparison and the conditional jump behind it, run as one: the host's comparison decides at once. Only jumps within
 * the page; flags are kept as ever, since who comes next may read them.
 *
 * Thread    The vCPU's own.
 */
#include "cpu/exec/hot_words.h"

/* Flags and one condition of `dst TEXT src`. */
#define COMPARE(text, suffix, condition, dst, src)                                                 \
    __asm__(text suffix " %[s], %[d]" ALU_FLAGS_OUT                                                \
            : "=a"(ax), "=@cc" condition(yes) : [d] "r"(dst), [s] "r"(src))

/* After it: `i` + 1 is the jump, behind it the tail. */
#define BRANCH()                                                                                   \
    do {                                                                                           \
        struct exec_tail *t = exec_tail_of(i + 1);                                                 \
        c->flags_ax = ax;                                                                          \
        if (yes) {                                                                                 \
            c->rip += (uint64_t)(int64_t)(i + 1)->disp;                                            \
            EXEC_CHAIN_NEAR(c, &t->taken);                                                         \
        }                                                                                          \
        EXEC_TAIL_CALL t->run(c, (const struct exec_op *)t);                                       \
    } while (0)

#define FUSED_REGISTERS(name, bits, suffix, n, condition)                                          \
    HOT(name##_rr_##bits##_##n)                                                                    \
    {                                                                                              \
        uint16_t ax;                                                                               \
        bool yes;                                                                                  \
        COMPARE(#name, suffix, condition, GET_##bits(rm), GET_##bits(reg));                        \
        BRANCH();                                                                                  \
    }                                                                                              \
    HOT(name##_ri_##bits##_##n)                                                                    \
    {                                                                                              \
        uint16_t ax;                                                                               \
        bool yes;                                                                                  \
        COMPARE(#name, suffix, condition, GET_##bits(rm), (uint##bits##_t)(int64_t)i->imm);        \
        BRANCH();                                                                                  \
    }
#define FUSED_MEMORY(name, bits, suffix, n, condition, form)                                       \
    HOT(name##_mi_##bits##_##form##_##n)                                                           \
    {                                                                                              \
        HOST_AT(LINEAR_##form(), bits, read);                                                      \
        uint##bits##_t v = LOAD(bits);                                                             \
        uint16_t ax;                                                                               \
        bool yes;                                                                                  \
        COMPARE(#name, suffix, condition, v, (uint##bits##_t)(int64_t)i->imm);                     \
        BRANCH();                                                                                  \
    }
#define FUSED_SIZE(name, bits, suffix, n, condition)                                               \
    FUSED_REGISTERS(name, bits, suffix, n, condition)                                              \
    FUSED_MEMORY(name, bits, suffix, n, condition, B)                                              \
    FUSED_MEMORY(name, bits, suffix, n, condition, X)
#define FUSED(n, condition)                                                                        \
    FUSED_SIZE(cmp, 8, "b", n, condition)                                                          \
    FUSED_SIZE(cmp, 32, "l", n, condition)                                                         \
    FUSED_SIZE(cmp, 64, "q", n, condition)                                                         \
    FUSED_SIZE(test, 8, "b", n, condition)                                                         \
    FUSED_SIZE(test, 32, "l", n, condition)                                                        \
    FUSED_SIZE(test, 64, "q", n, condition)

/* The conditions that compilers use after a comparison. */
#define FOR_FUSED_CONDITIONS(m)                                                                    \
    m(2, "b") m(3, "ae") m(4, "e") m(5, "ne") m(6, "be") m(7, "a") m(8, "s") m(9, "ns") m(12, "l") \
    m(13, "ge") m(14, "le") m(15, "g")
FOR_FUSED_CONDITIONS(FUSED)

/* What stands for which plain handler. */
struct fusion {
    exec_op_fn *fused[16]; /* by condition; NULL: none */
};

#define FUSION(name, form)                                                                         \
    { { [2] = hot_##name##_##form##_2, [3] = hot_##name##_##form##_3, [4] = hot_##name##_##form##_4, \
        [5] = hot_##name##_##form##_5, [6] = hot_##name##_##form##_6, [7] = hot_##name##_##form##_7, \
        [8] = hot_##name##_##form##_8, [9] = hot_##name##_##form##_9, [12] = hot_##name##_##form##_12, \
        [13] = hot_##name##_##form##_13, [14] = hot_##name##_##form##_14,                          \
        [15] = hot_##name##_##form##_15 } }

/* [name: cmp, test][form: rr, ri, mi B, mi X][size] */
#define SIZES(name, form, tail)                                                                    \
    { FUSION(name, form##_8##tail), { { NULL } }, FUSION(name, form##_32##tail), FUSION(name, form##_64##tail) }
#define FORMS(name) { SIZES(name, rr, ), SIZES(name, ri, ), SIZES(name, mi, _B), SIZES(name, mi, _X) }
static const struct fusion fusions[2][4][4] = { FORMS(cmp), FORMS(test) };

/* The form of a plain comparison, or -1. */
static int form_of(const struct hot_binary *h, const struct exec_op *i, unsigned size)
{
    if (i->run == h->rr[size])
        return 0;
    if (i->run == h->ri[size])
        return 1;
    if (i->run == h->mi[0][size])
        return 2;
    return i->run == h->mi[1][size] ? 3 : -1;
}

void hot_fuse(struct exec_op *i)
{
    unsigned size, cc;

    if (i->run == exec_generic || i->run == exec_generic_mode || !hot_is_near_jcc(i + 1, &cc))
        return;
    size = i->sizes & 15; /* only threaded ops have it */
    for (unsigned k = 0; k < 2; k++) {
        int form = form_of(&hot_binaries[k ? HOT_TEST : HOT_CMP], i, size);
        if (form >= 0 && fusions[k][form][size].fused[cc])
            i->run = fusions[k][form][size].fused[cc];
    }
}
