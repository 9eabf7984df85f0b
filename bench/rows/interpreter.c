/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench rows: a bytecode interpreter, whose dispatch is one indirect jump an operation. */
#include "row.h"

enum op { OP_SET, OP_ADD, OP_SUB, OP_MUL, OP_HALF, OP_ODD, OP_JUMP, OP_JUMP_IF_ZERO, OP_JUMP_IF_LESS, OP_END };

struct bytecode {
    uint8_t op, to, a, b;
    int32_t value; /* SET: the number; jumps: the target */
};

/* The longest Collatz run of the numbers 1 to 149, and the number. */
static const struct bytecode program[] = {
    {OP_SET, 0, 0, 0, 1},          /*  0: n = 1 */
    {OP_SET, 1, 0, 0, 1},          /*  1: one = 1 */
    {OP_SET, 2, 0, 0, 150},        /*  2: limit */
    {OP_SET, 3, 0, 0, 3},          /*  3: three */
    {OP_SET, 8, 0, 0, 0},          /*  4: best = 0 */
    {OP_SET, 10, 0, 0, 0},         /*  5: zero */
    {OP_ADD, 4, 0, 10, 0},         /*  6: x = n */
    {OP_SET, 5, 0, 0, 0},          /*  7: length = 0 */
    {OP_SUB, 6, 4, 1, 0},          /*  8: t = x - 1 */
    {OP_JUMP_IF_ZERO, 0, 6, 0, 17}, /* 9: */
    {OP_ADD, 5, 5, 1, 0},          /* 10: length++ */
    {OP_ODD, 6, 4, 0, 0},          /* 11: */
    {OP_JUMP_IF_ZERO, 0, 6, 0, 15}, /* 12: */
    {OP_MUL, 4, 4, 3, 0},          /* 13: x = 3x + 1 ... */
    {OP_ADD, 4, 4, 1, 0},          /* 14: ... which is even, so halve it as well */
    {OP_HALF, 4, 4, 0, 0},         /* 15: */
    {OP_JUMP, 0, 0, 0, 8},         /* 16: */
    {OP_JUMP_IF_LESS, 0, 5, 8, 20}, /* 17: */
    {OP_ADD, 8, 5, 10, 0},         /* 18: best = length */
    {OP_ADD, 9, 0, 10, 0},         /* 19: whose */
    {OP_ADD, 0, 0, 1, 0},          /* 20: n++ */
    {OP_JUMP_IF_LESS, 0, 0, 2, 6}, /* 21: */
    {OP_END, 0, 0, 0, 0},
};

static NOINLINE uint64_t interpret(const struct bytecode *code)
{
    static const void *const labels[] = {&&set, &&add, &&sub, &&mul, &&half, &&odd, &&jump, &&if_zero, &&if_less, &&end};
    int64_t r[16] = {0};
    const struct bytecode *pc = code;
#define NEXT goto *labels[pc->op]
    NEXT;
set:
    r[pc->to] = pc->value;
    pc++;
    NEXT;
add:
    r[pc->to] = r[pc->a] + r[pc->b];
    pc++;
    NEXT;
sub:
    r[pc->to] = r[pc->a] - r[pc->b];
    pc++;
    NEXT;
mul:
    r[pc->to] = r[pc->a] * r[pc->b];
    pc++;
    NEXT;
half:
    r[pc->to] = r[pc->a] >> 1;
    pc++;
    NEXT;
odd:
    r[pc->to] = r[pc->a] & 1;
    pc++;
    NEXT;
jump:
    pc = code + pc->value;
    NEXT;
if_zero:
    pc = r[pc->a] == 0 ? code + pc->value : pc + 1;
    NEXT;
if_less:
    pc = r[pc->a] < r[pc->b] ? code + pc->value : pc + 1;
    NEXT;
end:
    return row_mix((uint64_t)r[8], (uint64_t)r[9]);
#undef NEXT
}

static uint64_t bytecode(void)
{
    const struct bytecode *code = program;
    __asm__("" : "+r"(code));
    return interpret(code);
}
ROW(bytecode, "bytecode", "integer", bytecode);
