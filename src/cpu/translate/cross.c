/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Blocks of one instruction that lies across two pages: its handler, called from translated code. Such an instruction
 * stands in one hot loop out of some hundred.
 *
 * A block belongs to one physical page. What the next page holds is not known when the block is entered: another page
 * may be mapped there, or it was written. So the rest's bytes are compared each time, which needs no mark and no list.
 *
 * Thread    The vCPU's own.
 */
#include "cpu/exec/run.h"
#include "cpu/translate/cache.h"
#include "cpu/translate/emit.h"

#include <errno.h>

/* Stands where a block has its instructions. */
struct crossing {
    struct insn call;    /* what thunk interp is given: the instruction with run_crossing() for a handler */
    struct insn real;
    uint8_t here;        /* bytes on the first page */
    uint8_t bytes[INSN_MAX_LEN];
};
_Static_assert(sizeof(struct crossing) <= TB_MAX_INSNS * sizeof(struct insn), "takes the place of instructions");
#define CROSSING_INSNS ((sizeof(struct crossing) + sizeof(struct insn) - 1) / sizeof(struct insn))

#define CPU_GS(field) AS_GS(offsetof(struct cpu, field))

static int run_crossing(struct cpu *c, const struct insn *i)
{
    const struct crossing *x = (const struct crossing *)i;
    const uint8_t *host;
    uint64_t gpa;

    if (mmu_fetch_page(c, (c->rip & PAGE_MASK) + PAGE_SIZE, &gpa, &host))
        return X_FAULT;
    if (likely(host && !memcmp(host, x->bytes + x->here, x->real.len - x->here)))
        return x->real.fn(c, &x->real);
    return exec_single(c);
}

/* Reads and decodes it. False: it is none that a block can be made of. */
static bool decode(struct cpu *c, struct crossing *x, uint64_t gpa, const uint8_t *page)
{
    unsigned off = gpa & (PAGE_SIZE - 1);
    const uint8_t *next;
    uint64_t next_gpa;

    x->here = (uint8_t)(PAGE_SIZE - off);
    if (!(c->mode & MODE_CODE64) && (c->rip >> PAGE_SHIFT) == UINT32_MAX >> PAGE_SHIFT)
        return false;
    if (mmu_fetch_page(c, (c->rip & PAGE_MASK) + PAGE_SIZE, &next_gpa, &next) || !next)
        return false;
    mmu_mark_code(c, gpa, x->here);
    memcpy(x->bytes, page + off, x->here);
    memcpy(x->bytes + x->here, next, INSN_MAX_LEN - x->here);
    if (exec_decode_one(c, x->bytes, INSN_MAX_LEN, &x->real) || x->real.len <= x->here)
        return false;
    return x->real.row != UINT16_MAX && !(insn_rows[x->real.row].attr & A_SHADOW);
}

/* RAX = rip_page + off. */
static void put_rip(struct as *a, const struct tb *tb, int32_t off)
{
    as_load(a, 8, R_AX, CPU_GS(rip_page));
    as_lea(a, tb->mode & MODE_CODE64 ? 8 : 4, R_AX, AS_AT(R_AX, off));
}

static void emit(struct as *a, struct tb *tb, const struct crossing *x, const struct thunks *thunk)
{
    tb->entry_host = a->p + a->to_rx;
    as_lahf_seto(a);
    as_store(a, 2, CPU_GS(flags_ax), R_AX);
    tb->entry_mem = a->p + a->to_rx;
    put_rip(a, tb, tb->first);
    as_store(a, 8, CPU_GS(rip), R_AX);
    as_mov_imm(a, R_AX, (uintptr_t)&x->call);
    as_call_to(a, thunk->interp);
    put_rip(a, tb, tb->first + x->real.len);
    as_jmp_to(a, thunk->jump);
}

int cross_build(struct cpu *c, struct tb *tb, uint64_t gpa, const uint8_t *page, const struct thunks *thunk,
                struct as room)
{
    struct crossing *x = (struct crossing *)tb->insn;
    uint8_t *start = room.p;

    if (PAGE_SIZE - (gpa & (PAGE_SIZE - 1)) >= INSN_MAX_LEN || !decode(c, x, gpa, page))
        return -EAGAIN;
    x->call = x->real;
    x->call.fn = run_crossing;
    tb->first = (uint16_t)(gpa & (PAGE_SIZE - 1));
    tb->end = PAGE_SIZE;
    tb->granules = 1ull << 63;
    tb->exits = 0;
    tb->insns = CROSSING_INSNS;
    memset(tb->insn_at, 0, CROSSING_INSNS * sizeof(tb->insn_at[0]));
    tb->insn_at[0] = tb->first;
    tb->code = start + room.to_rx;
    emit(&room, tb, x, thunk);
    tb->code_bytes = (uint32_t)(room.p - start);
    return room.full ? -ENOSPC : 0;
}
