/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Threaded handlers of the stack and of control flow.
 *
 * Spec      Intel SDM volume 2; volume 1, 6.2 to 6.4.
 * Thread    The vCPU's own.
 */
#include "cpu/exec/hot_words.h"

/* --- stack, 64-bit mode --- */

enum { RSP = 4 };

HOT(push_64)
{
    HOST_AT(c->gpr[RSP] - 8, 64, write);
    STORE(64, GET_64(rm));
    c->gpr[RSP] = lin;
    DONE;
}

HOT(push_imm_64)
{
    HOST_AT(c->gpr[RSP] - 8, 64, write);
    STORE(64, (uint64_t)(int64_t)i->imm);
    c->gpr[RSP] = lin;
    DONE;
}

HOT(pop_64)
{
    HOST_AT(c->gpr[RSP], 64, read);
    uint64_t v = LOAD(64);
    c->gpr[RSP] = lin + 8;
    PUT_64(rm, v);
    DONE;
}

HOT(leave_64)
{
    HOST_AT(c->gpr[5], 64, read);
    c->gpr[5] = LOAD(64);
    c->gpr[RSP] = lin + 8;
    DONE;
}

/* --- control flow --- */

/* A target on another page; one that is not canonical faults at the branch. */
#define FAR_TARGET(name)                                                                           \
    uint64_t name = c->rip + (uint64_t)(int64_t)i->disp;                                           \
    if (unlikely(exec_canonical(name) != name))                                                    \
        EXEC_TAIL_CALL exec_complete(c, i)

#define JCC(n)                                                                                     \
    HOT(jcc_near_##n)                                                                              \
    {                                                                                              \
        struct exec_tail *t = exec_tail_of(i);                                                     \
        if (COND_##n) {                                                                            \
            c->rip += (uint64_t)(int64_t)i->disp;                                                 \
            EXEC_CHAIN_NEAR(c, &t->taken);                                                         \
        }                                                                                          \
        DONE;                                                                                      \
    }                                                                                              \
    HOT(jcc_far_##n)                                                                               \
    {                                                                                              \
        struct exec_tail *t = exec_tail_of(i);                                                     \
        if (COND_##n) {                                                                            \
            FAR_TARGET(target);                                                                    \
            c->rip = target;                                                                       \
            EXEC_CHAIN_FAR(c, &t->taken);                                                          \
        }                                                                                          \
        DONE;                                                                                      \
    }
FOR_ALL_CONDITIONS(JCC)

HOT(jmp_near)
{
    c->rip += (uint64_t)(int64_t)i->disp;
    EXEC_CHAIN_NEAR(c, &exec_tail_of(i)->taken);
}

HOT(jmp_far)
{
    FAR_TARGET(target);
    c->rip = target;
    EXEC_CHAIN_FAR(c, &exec_tail_of(i)->taken);
}

HOT(call_near)
{
    HOST_AT(c->gpr[RSP] - 8, 64, write);
    STORE(64, c->rip + i->off + i->len);
    c->gpr[RSP] = lin;
    c->rip += (uint64_t)(int64_t)i->disp;
    EXEC_CHAIN_NEAR(c, &exec_tail_of(i)->taken);
}

HOT(call_far)
{
    FAR_TARGET(target);
    HOST_AT(c->gpr[RSP] - 8, 64, write);
    STORE(64, c->rip + i->off + i->len);
    c->gpr[RSP] = lin;
    c->rip = target;
    EXEC_CHAIN_FAR(c, &exec_tail_of(i)->taken);
}

/* The block at a computed target, if it is at hand. Dead otherwise. */
static inline struct exec_block *indirect_target(struct cpu *c, uint64_t target)
{
    struct tlb_code *e = tlb_code_at(c, target);

    if (e->tag != (target & PAGE_MASK))
        return &exec_no_block;
    uint64_t gpa = e->gpa | (target & (PAGE_SIZE - 1));
    struct exec_block *b = *block_bucket(c->blocks, gpa, c->mode);
    bool same = b->gpa == gpa && b->mode == c->mode && b->gpa2 == BLOCK_NO_PAGE;
    return same ? b : &exec_no_block;
}

#define INDIRECT(target, commit)                                                                   \
    do {                                                                                           \
        struct exec_block *to = indirect_target(c, target);                                        \
        unsigned count = to->count;                                                                \
        if (!EXEC_CHAINS || unlikely(!count || exec_events(c)))                                    \
            EXEC_TAIL_CALL exec_complete(c, i);                                                     \
        commit;                                                                                    \
        c->rip = target;                                                                           \
        c->stats.instructions += count;                                                            \
        EXEC_TAIL_CALL to->ops[0].run(c, to->ops);                                             \
    } while (0)

HOT(ret)
{
    HOST_AT(c->gpr[RSP], 64, read);
    uint64_t target = LOAD(64);
    INDIRECT(target, c->gpr[RSP] = lin + 8);
}

HOT(jmp_reg)
{
    uint64_t target = GET_64(rm);
    INDIRECT(target, (void)0);
}

HOT(jmp_mem)
{
    HOST_AT(LINEAR_X(), 64, read);
    uint64_t target = LOAD(64);
    INDIRECT(target, (void)0);
}

HOT(call_reg)
{
    uint64_t target = GET_64(rm);
    HOST_AT(c->gpr[RSP] - 8, 64, write);
    INDIRECT(target, (STORE(64, c->rip + i->off + i->len), c->gpr[RSP] = lin));
}

/* Falling out of a block: `i` is the tail. */
int hot_tail_near(struct cpu *c, const struct exec_op *i)
{
    struct exec_tail *t = (struct exec_tail *)i;

    c->rip += t->bytes;
    EXEC_CHAIN_NEAR(c, &t->fall);
}

int hot_tail_far(struct cpu *c, const struct exec_op *i)
{
    struct exec_tail *t = (struct exec_tail *)i;

    c->rip += t->bytes;
    EXEC_CHAIN_FAR(c, &t->fall);
}

/* Outside flat code: the dispatcher checks limits. */
int hot_tail_leave(struct cpu *c, const struct exec_op *i)
{
    struct exec_tail *t = (struct exec_tail *)i;

    c->rip = c->mode & MODE_CODE64 ? c->rip + t->bytes : (uint32_t)(c->rip + t->bytes);
    return X_JUMP;
}

/* --- tables: what hot_bind.c chooses from --- */

#define ROW_JCC(n)  { hot_jcc_near_##n, hot_jcc_far_##n },
exec_op_fn *const hot_jcc[16][2] = { FOR_ALL_CONDITIONS(ROW_JCC) };
exec_op_fn *const hot_jmp[2] = { hot_jmp_near, hot_jmp_far };
exec_op_fn *const hot_call[2] = { hot_call_near, hot_call_far };

const struct hot_flow hot_flow = {
    .push = hot_push_64, .push_imm = hot_push_imm_64, .pop = hot_pop_64, .leave = hot_leave_64,
    .ret = hot_ret, .jmp_reg = hot_jmp_reg, .jmp_mem = hot_jmp_mem, .call_reg = hot_call_reg,
};

bool hot_is_near_jcc(const struct exec_op *i, unsigned *ret_condition)
{
    for (unsigned cc = 0; cc < 16; cc++) {
        if (i->run != hot_jcc[cc][0])
            continue;
        *ret_condition = cc;
        return true;
    }
    return false;
}
