/* SPDX-License-Identifier: GPL-2.0-or-later */
/* x87 instructions as themselves. No exception is unmasked (MODE_X87_TRAPS), so none waits for one and none faults
 * but by its memory operand. FOP, FIP and FDP would name our own addresses in the host's unit: the guest's are in
 * cpu->xsave.
 *
 * Spec      Intel SDM volume 1, chapter 8; volume 2.
 */
#include "cpu/exec/handlers.h"
#include "cpu/fpu/emit.h"
#include "cpu/fpu/fpu.h"
#include "cpu/translate/vector.h"

#define XSAVE_AT(off) AS_GS(offsetof(struct cpu, xsave) + (off))

static bool runs_here(const struct tr *t, uint32_t attr)
{
    return !(t->mode & (MODE_FPU_NM | MODE_X87_TRAPS)) && cpu_has(t->c, attr >> 24);
}

/* --- pointers ---
 *
 * Of a run of x87 instructions with none between, only the last one's are stored, behind it; but before a slow path
 * within the run, which may fault, those of the instruction before. No x87 instruction changes the registers of an
 * address. */

/* FOP (insn.imm: x87_bind()) and FIP of instruction `last`, FDP of `memory`, both plus 1 and 0 for none. Destroys S0,
 * S1, no flags. */
static void put_pointers(struct tr *t, unsigned last, unsigned memory)
{
    uint16_t next = t->next;

    if (last) {
        as_store_imm32(&t->as, 2, XSAVE_AT(XS_FOP), (int16_t)t->tb->insn[last - 1].imm);
        emit_rip(t, R_S0, t->tb->insn_at[last - 1]);
        as_store(&t->as, 8, XSAVE_AT(XS_FIP), R_S0);
    }
    if (memory) {
        t->next = (uint16_t)(t->tb->insn_at[memory - 1] + t->tb->insn[memory - 1].len);
        emit_offset(t, &t->tb->insn[memory - 1], R_S0);
        as_store(&t->as, 8, XSAVE_AT(XS_FDP), R_S0);
        t->next = next;
    }
}

void emit_x87_cold(struct tr *t, const struct cold *k)
{
    put_pointers(t, k->x87_last, k->x87_memory);
}

static bool run_goes_on(const struct tr *t)
{
    return t->n + 1 < t->count && build_native(t, t->i + 1) && exec_row_handler(t->i[1].row) == x_x87;
}

static void note_pointers(struct tr *t, const struct insn *i)
{
    t->x87_last = (uint8_t)(t->n + 1);
    if (i->mem)
        t->x87_memory = (uint8_t)(t->n + 1);
    if (run_goes_on(t))
        return;
    put_pointers(t, t->x87_last, t->x87_memory);
    t->x87_last = t->x87_memory = 0;
}

static void put_opcode(struct tr *t, const struct insn *i)
{
    const struct insn_row *row = &insn_rows[i->row];
    bool fixed = row->reg & 0x40; /* REG_RM */
    unsigned reg = fixed ? row->reg >> 3 & 7 : row->reg & 7, rm = fixed ? row->reg & 7 : i->rm & 7;
    struct as_op op = { .opcode = row->opcode, .size = 4 };

    if (i->mem)
        as_op_rm(&t->as, op, reg, AS_AT(R_S0, 0));
    else
        as_op_rr(&t->as, op, reg, rm);
}

static bool emit_x87(struct tr *t, const struct insn *i)
{
    const struct insn_row *row = &insn_rows[i->row];

    if (!runs_here(t, row->attr))
        return false;
    emit_x87_live(t);
    if (i->mem)
        emit_mem(t, i, operand_mem_bytes(i), row->operand[0] != ST0, 1);
    if (t->slow) {
        t->slow->x87_last = t->x87_last;
        t->slow->x87_memory = t->x87_memory;
    }
    if (row->flags_r)
        flags_need(t);
    put_opcode(t, i);
    if (row->flags_w)
        flags_produced(t, (struct flags){ .host = true, .b = R_NONE });
    note_pointers(t, i);
    return true;
}

static bool emit_nothing(struct tr *t, const struct insn *i)
{
    return runs_here(t, insn_rows[i->row].attr);
}

/* FNSTCW, FNSTSW to memory. */
static bool emit_store_word(struct tr *t, const struct insn *i)
{
    if (!runs_here(t, insn_rows[i->row].attr))
        return false;
    emit_x87_live(t);
    emit_mem(t, i, 2, true, 1);
    put_opcode(t, i);
    return true;
}

static bool emit_fnstsw_ax(struct tr *t, const struct insn *i)
{
    if (!runs_here(t, insn_rows[i->row].attr))
        return false;
    flags_reg_changes(t, 0);
    emit_x87_live(t);
    as_bytes(&t->as, (const uint8_t[]){ 0xdf, 0xe0 }, 2);
    as_op_rr(&t->as, (struct as_op){ .opcode = 0x89, .size = 2 }, R_AX, host_of[0]);
    return true;
}

static bool emit_fnclex(struct tr *t, const struct insn *i)
{
    if (!runs_here(t, insn_rows[i->row].attr))
        return false;
    emit_x87_live(t);
    as_bytes(&t->as, (const uint8_t[]){ 0xdb, 0xe2 }, 2);
    return true;
}

/* A control word that masks all exceptions, like the one before; read once. As LDMXCSR. */
static bool emit_fldcw(struct tr *t, const struct insn *i)
{
    struct as_mem word = AS_GS(offsetof(struct cpu, scratch));

    if (!runs_here(t, insn_rows[i->row].attr))
        return false;
    emit_x87_live(t);
    emit_mem(t, i, 2, false, 1);
    as_load(&t->as, 2, R_S1, AS_AT(R_S0, 0));
    as_mov32(&t->as, R_S0, R_S1);
    as_alu_ri(&t->as, AS_AND, 4, R_S0, FPU_EXCEPTIONS);
    as_alu_ri(&t->as, AS_CMP, 4, R_S0, FPU_EXCEPTIONS);
    emit_slow_if(t, CC_NE);
    as_store(&t->as, 2, word, R_S1);
    as_op_rm(&t->as, (struct as_op){ .opcode = 0xd9, .size = 4 }, 5, word);
    emit_block_end(t);
    return true;
}

static const struct emit_row rows[] = {
    { x_x87, emit_x87 },
    { x_x87_nop, emit_nothing },
    { x_fwait, emit_nothing },
    { x_fnstcw, emit_store_word },
    { x_fnstsw, emit_store_word },
    { x_fnstsw_ax, emit_fnstsw_ax },
    { x_fnclex, emit_fnclex },
    { x_fldcw, emit_fldcw },
};
EMIT_ROWS(emit_rows_x87, rows);
