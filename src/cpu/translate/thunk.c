/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Code that is generated once: into and out of translated code, calls of handlers, the jump cache's look-up.
 *
 * Stack: enter() leaves RSP aligned to 16 bytes, so blocks run with an aligned stack, and a thunk that they call
 * begins like any C function. Blocks push nothing else.
 *
 * Spec      System V ABI, x86-64, 3.2 (registers, stack).
 */
#include "cpu/translate/cache.h"
#include "cpu/translate/vector.h"

#include <errno.h>

#define CPU_GS(field) AS_GS(offsetof(struct cpu, field))

static const uint8_t callee_saved[] = { R_BX, R_BP, R_12, R_13, R_14, R_15 };

static const uint8_t *here(struct as *a)
{
    as_nop(a, (unsigned)(-(uintptr_t)a->p & 15));
    return a->p + a->to_rx;
}

static void put_registers(struct as *a, bool store)
{
    for (unsigned n = 0; n < 16; n++) {
        if (host_of[n] == R_NONE)
            continue;
        if (store)
            as_store(a, 8, gpr_mem(n), host_of[n]);
        else
            as_load(a, 8, host_of[n], gpr_mem(n));
    }
}

static void make_enter(struct as *a, struct thunks *th)
{
    const uint8_t *at = here(a);

    memcpy(&th->enter, &at, sizeof(at));
    for (unsigned k = 0; k < ARRAY_COUNT(callee_saved); k++)
        as_push(a, callee_saved[k]);
    as_lea(a, 8, R_SP, AS_AT(R_SP, -8));
    as_mov(a, R_AX, R_SI);
    as_mov_imm(a, R_CX, 0);
    put_registers(a, false);
    as_bytes(a, (const uint8_t[]){ 0xff, 0xe0 }, 2); /* jmp rax */
}

/* Answers where registers are in memory already, and C has run last. */
static const uint8_t *make_leave(struct as *a, struct thunks *th)
{
    th->leave = here(a);
    put_registers(a, true);
    emit_park(a, th);
    const uint8_t *stored = a->p + a->to_rx;
    as_lea(a, 8, R_SP, AS_AT(R_SP, 8));
    for (unsigned k = ARRAY_COUNT(callee_saved); k-- > 0;)
        as_pop(a, callee_saved[k]);
    as_ret(a);
    return stored;
}

static void put_leave_with(struct as *a, struct thunks *th, uint64_t answer)
{
    as_mov_imm(a, R_AX, answer);
    as_jmp_to(a, th->leave);
}

/* RAX = linear target. */
static void make_jump(struct as *a, struct thunks *th)
{
    th->jump = here(a);
    as_store(a, 8, CPU_GS(rip), R_AX);
    as_lea(a, 4, R_CX, (struct as_mem){ .base = R_NONE, .index = R_AX, .scale = JC_SHIFT });
    as_alu_ri(a, AS_AND, 4, R_CX, JC_MASK);
    as_alu_rm(a, AS_ADD, 8, R_CX, CPU_GS(jc_off));
    as_alu_rm(a, AS_CMP, 8, R_AX, AS_GS_AT(R_CX, offsetof(struct cpu, jc[0][0].rip)));
    struct as_fix absent = as_jcc(a, CC_NE, false);
    as_alu_mi(a, AS_CMP, 4, CPU_GS(run_ok), 0);
    struct as_fix event = as_jcc(a, CC_E, false);
    as_load(a, 8, R_CX, AS_GS_AT(R_CX, offsetof(struct cpu, jc[0][0].tb)));
    as_alu_ri(a, AS_AND, 8, R_AX, -(int32_t)PAGE_SIZE);
    as_store(a, 8, CPU_GS(rip_page), R_AX);
    as_jmp_mem(a, AS_AT(R_CX, offsetof(struct tb, entry_mem)));
    as_fix_here(a, absent);
    put_leave_with(a, th, TX_LOOKUP);
    as_fix_here(a, event);
    put_leave_with(a, th, TX_EVENT);
}

/* RCX = the block, or 0 when it was enter() that came here. */
static void make_dead(struct as *a, struct thunks *th)
{
    th->dead = here(a);
    struct as_fix rip_known = as_jrcxz(a);
    as_load(a, 4, R_AX, AS_AT(R_CX, offsetof(struct tb, gpa)));
    as_alu_ri(a, AS_AND, 4, R_AX, PAGE_SIZE - 1);
    as_alu_rm(a, AS_ADD, 8, R_AX, CPU_GS(rip_page));
    as_store(a, 8, CPU_GS(rip), R_AX);
    as_fix_here(a, rip_known);
    put_leave_with(a, th, TX_LOOKUP);
}

/* RAX = struct insn. Pushes `slow`, which aligns the stack. */
static void make_interp(struct as *a, struct thunks *th, tx_interp_fn *fn, const uint8_t *stored)
{
    th->slow = here(a);
    as_bytes(a, (const uint8_t[]){ 0x6a, 1 }, 2); /* push 1 */
    struct as_fix common = as_jmp(a, false);
    th->interp = here(a);
    as_bytes(a, (const uint8_t[]){ 0x6a, 0 }, 2);
    as_fix_here(a, common);
    put_registers(a, true);
    emit_park(a, th);
    as_load(a, 8, R_DI, CPU_GS(self));
    as_mov(a, R_SI, R_AX);
    as_pop(a, R_DX);
    as_push(a, R_DX);
    as_mov_imm(a, R_AX, (uint64_t)(uintptr_t)fn);
    as_bytes(a, (const uint8_t[]){ 0xff, 0xd0 }, 2); /* call rax */
    as_test_rr(a, 8, R_AX, R_AX);
    struct as_fix leaves = as_jcc(a, CC_NE, true);
    put_registers(a, false);
    as_lea(a, 8, R_SP, AS_AT(R_SP, 8));
    as_ret(a);

    as_fix_here(a, leaves);
    as_lea(a, 8, R_SP, AS_AT(R_SP, 16)); /* with the return address */
    as_alu_ri(a, AS_CMP, 4, R_AX, TX_GO_JUMP);
    as_jcc_to(a, CC_NE, stored);
    put_registers(a, false);
    as_load(a, 8, R_AX, CPU_GS(rip));
    as_jmp_to(a, th->jump);
}

/* The current page of the stack. RDX is the TLB's entry. */
static const uint8_t *make_stack(struct as *a, bool write)
{
    const uint8_t *at = here(a);
    unsigned tag = write ? offsetof(struct tlb_entry, write) : offsetof(struct tlb_entry, read);

    as_push(a, R_DX);
    as_mov32(a, R_DX, R_AX);
    as_shift_ri(a, 5, 4, R_DX, PAGE_SHIFT - 5);
    as_alu_ri(a, AS_AND, 4, R_DX, (TLB_SIZE - 1) << 5);
    as_alu_rm(a, AS_ADD, 8, R_DX, CPU_GS(tlb_cur));
    as_alu_rm(a, AS_SUB, 8, R_AX, AS_AT(R_DX, tag));
    as_lea(a, 8, R_CX, AS_AT(R_CX, -(int32_t)PAGE_SIZE));
    as_op_rr(a, (struct as_op){ .opcode = 0xf7, .size = 8, .ext = true }, 3, R_CX); /* neg */
    as_alu_rr(a, AS_CMP, 8, R_CX, R_AX);
    struct as_fix absent = as_jcc(a, CC_B, true);
    as_load(a, 8, R_CX, AS_AT(R_DX, offsetof(struct tlb_entry, read)));
    as_alu_rm(a, AS_CMP, 8, R_CX, AS_AT(R_DX, offsetof(struct tlb_entry, write)));
    struct as_fix one_way = as_jcc(a, CC_NE, true);
    as_store(a, 8, CPU_GS(stack_tag), R_CX);
    as_load(a, 8, R_CX, AS_AT(R_DX, offsetof(struct tlb_entry, host)));
    as_store(a, 8, CPU_GS(stack_host), R_CX);
    as_store_imm32(a, 8, CPU_GS(stack_room[0]), PAGE_SIZE - 8 + 1);
    as_store_imm32(a, 8, CPU_GS(stack_room[1]), PAGE_SIZE - STACK_RUN + 1);
    as_fix_here(a, one_way);
    as_alu_rm(a, AS_ADD, 8, R_AX, AS_AT(R_DX, offsetof(struct tlb_entry, host))); /* no carry out of an address */
    as_fix_here(a, absent);
    as_pop(a, R_DX);
    as_ret(a);
    return at;
}

int thunks_make(struct as *a, struct thunks *th, tx_interp_fn *interp)
{
    vector_make_thunks(a, th);
    make_enter(a, th);
    const uint8_t *stored = make_leave(a, th);
    make_jump(a, th);
    make_dead(a, th);
    th->stack_read = make_stack(a, false);
    th->stack_write = make_stack(a, true);
    make_interp(a, th, interp, stored);
    return a->full ? -ENOSPC : 0;
}
