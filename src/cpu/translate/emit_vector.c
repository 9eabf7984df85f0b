/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SSE, AVX and MMX instructions as themselves: the same opcode with host registers, memory at [S0].
 *
 * Vector and MMX registers keep their numbers, general ones are the host's that hold them. One encoder serves
 * all rows of handler `vec`; it is told by their operand kinds what ModRM and VEX.vvvv name.
 *
 * Spec      Intel SDM volume 2, chapter 2.
 */
#include "cpu/exec/handlers.h"
#include "cpu/fpu/emit.h"
#include "cpu/fpu/fpu.h"
#include "cpu/translate/vector.h"

#define MXCSR AS_GS(offsetof(struct cpu, xsave) + XS_MXCSR)

/* Whether the binder let the row's own handler through, and the host may run it as the guest's MXCSR is. */
static bool runs_here(const struct tr *t, uint32_t attr)
{
    bool off = (attr & A_AVX && t->mode & MODE_AVX_OFF) || (attr & A_SSE && t->mode & MODE_SSE_OFF) ||
               t->mode & MODE_FPU_NM || !cpu_has(t->c, attr >> 24);

    return !off && !(attr & A_FLOAT && t->mode & MODE_SSE_TRAPS) &&
           !(attr & A_MMX && t->mode & MODE_X87_TRAPS);
}

static const struct operand_info *operand_in(const struct insn_row *row, enum operand_field field,
                                             unsigned *ret_place)
{
    for (unsigned k = 0; k < ARRAY_COUNT(row->operand); k++) {
        if (operand_info[row->operand[k]].field != field)
            continue;
        *ret_place = k;
        return &operand_info[row->operand[k]];
    }
    return NULL;
}

/* An instruction in the making: host register numbers. */
struct form {
    const struct insn_row *row;
    unsigned reg, rm, vvvv;
    bool vex, w, l, mem;
    bool store;         /* memory is written */
    unsigned gpr_out;   /* guest register written; R_NONE */
    unsigned gpr_host;  /* where the host writes it */
};

static void emit_live_for(struct tr *t, uint32_t attr)
{
    if (attr & A_MMX)
        emit_x87_live(t);
    if (attr & A_AVX)
        emit_vec_live(t, VEC_YMM);
    else if (attr & A_SSE)
        emit_vec_live(t, VEC_XMM);
}

/* ModRM.reg or a register in ModRM.rm. Scratch for guest registers that live in memory: S1, since S0 may be the
 * address. No instruction names two general registers. */
static unsigned form_reg(struct tr *t, struct form *f, enum operand_field field, unsigned guest)
{
    unsigned place;
    const struct operand_info *o = operand_in(f->row, field, &place);

    if (!o)
        return field == OF_REG && f->row->reg < 8 ? f->row->reg : 0;
    if (o->class == OC_XMM)
        return guest;
    if (o->class == OC_MM)
        return guest & 7;
    if (place > 0)
        return emit_reg(t, guest, R_S1);
    f->gpr_out = guest;
    f->gpr_host = emit_reg_dst(t, guest, R_S1);
    return f->gpr_host;
}

/* The guest register that the row writes, or R_NONE. */
static unsigned gpr_written(const struct insn *i)
{
    const struct operand_info *o = &operand_info[insn_rows[i->row].operand[0]];

    if (o->class != OC_GPR || (o->field == OF_RM && i->mem))
        return R_NONE;
    return o->field == OF_REG ? i->reg : i->rm;
}

bool vector_writes_memory(const struct insn *i)
{
    const struct insn_row *row = &insn_rows[i->row];

    return i->mem && operand_info[row->operand[0]].field == OF_RM && !row->flags_w;
}

static struct form form_of(struct tr *t, const struct insn *i)
{
    const struct insn_row *row = &insn_rows[i->row];
    unsigned place;
    struct form f = { .row = row, .vex = row->vex != LEGACY, .w = emit_wants_w(i), .l = emit_is_wide(i),
                      .mem = i->mem, .gpr_out = R_NONE };

    f.reg = form_reg(t, &f, OF_REG, i->reg);
    if (!i->mem)
        f.rm = form_reg(t, &f, OF_RM, i->rm);
    if (operand_in(row, OF_VVVV, &place))
        f.vvvv = i->vvvv;
    return f;
}

static void put_form(struct as *a, const struct form *f, struct as_mem m)
{
    static const uint8_t prefix[] = { [PFX_66] = 0x66, [PFX_F3] = 0xf3, [PFX_F2] = 0xf2 };
    uint8_t pfx = f->row->pfx < ARRAY_COUNT(prefix) ? prefix[f->row->pfx] : 0;

    if (f->vex) {
        struct as_vex op = { .map = f->row->map, .opcode = f->row->opcode, .pfx = pfx, .w = f->w, .l = f->l };
        if (f->mem)
            as_vex_rm(a, op, f->reg, f->vvvv, m);
        else
            as_vex_rr(a, op, f->reg, f->vvvv, f->rm);
        return;
    }
    struct as_op op = { .map = f->row->map, .opcode = f->row->opcode, .pfx = pfx, .size = f->w ? 8 : 4 };
    if (f->mem)
        as_op_rm(a, op, f->reg, m);
    else
        as_op_rr(a, op, f->reg, f->rm);
}

/* Immediate bytes: imm8, the two of SSE4A, or a register in bits 7:4. */
static void put_immediates(struct as *a, const struct insn *i)
{
    const uint8_t *o = insn_rows[i->row].operand;

    for (unsigned k = 0, n = 0; k < ARRAY_COUNT(insn_rows->operand); k++) {
        if (o[k] == Ib)
            as_u8(a, n++ ? i->imm2 : (uint8_t)i->imm);
        else if (o[k] == Lx)
            as_u8(a, (uint8_t)(i->imm & 0xf0));
    }
}

unsigned vector_bytes(const struct insn *i)
{
    return operand_mem_bytes(i);
}

unsigned vector_align(const struct insn *i)
{
    return insn_rows[i->row].attr & A_ALIGN ? operand_mem_bytes(i) : 1;
}

static struct as_mem emit_operand(struct tr *t, const struct insn *i)
{
    return emit_near_aligned(t, i, vector_bytes(i), vector_writes_memory(i), vector_align(i));
}

static bool emit_vec(struct tr *t, const struct insn *i)
{
    const struct insn_row *row = &insn_rows[i->row];

    if (!runs_here(t, row->attr))
        return false;
    struct as_mem m = AS_AT(R_S0, 0);
    emit_live_for(t, row->attr);
    if (gpr_written(i) != R_NONE)
        flags_reg_changes(t, gpr_written(i));
    if (i->mem)
        m = emit_operand(t, i);
    struct form f = form_of(t, i);
    bool ax_used = t->as.ax_used; /* by this: never */
    put_form(&t->as, &f, m);
    put_immediates(&t->as, i);
    t->as.ax_used = ax_used;
    if (f.gpr_out != R_NONE)
        emit_reg_done(t, f.gpr_out, f.gpr_host);
    if (row->flags_w)
        flags_produced(t, (struct flags){ .host = true, .b = R_NONE });
    return true;
}

/* Lengths are in RAX and RDX, an index goes to RCX; a mask to XMM0, which is the guest's. */
static bool emit_pcmpstr(struct tr *t, const struct insn *i)
{
    const struct insn_row *row = &insn_rows[i->row];
    bool explicit = row->opcode <= 0x61, index = row->opcode & 1;

    if (!runs_here(t, row->attr))
        return false;
    emit_live_for(t, row->attr);
    if (i->mem)
        emit_mem(t, i, vector_bytes(i), false, 1);
    struct form f = form_of(t, i);
    f.w = explicit && i->rex_w && i->mode64;
    if (i->mem)
        as_mov(&t->as, R_S1, R_S0);
    if (explicit)
        as_mov(&t->as, R_AX, host_of[0]);
    put_form(&t->as, &f, AS_AT(R_S1, 0));
    as_u8(&t->as, (uint8_t)i->imm);
    if (index)
        as_mov(&t->as, host_of[1], R_CX);
    flags_produced(t, (struct flags){ .host = true, .b = R_NONE });
    return true;
}

/* The whole range is checked, also what the mask leaves out: where that fails, the interpreter looks at each
 * element. */
static bool emit_vmaskmov(struct tr *t, const struct insn *i)
{
    const struct insn_row *row = &insn_rows[i->row];

    if (!runs_here(t, row->attr))
        return false;
    emit_live_for(t, row->attr);
    emit_mem(t, i, vector_bytes(i), vector_writes_memory(i), 1);
    struct form f = form_of(t, i);
    put_form(&t->as, &f, AS_AT(R_S0, 0));
    return true;
}

/* Outside 64-bit mode the upper eight registers stay. */
static bool emit_vzero(struct tr *t, const struct insn *i)
{
    if (!t->mode64 || !runs_here(t, insn_rows[i->row].attr))
        return false;
    emit_vec_live(t, VEC_YMM);
    as_bytes(&t->as, (const uint8_t[]){ 0xc5, i->vl == 32 ? 0xfc : 0xf8, 0x77 }, 3);
    return true;
}

static bool emit_stmxcsr(struct tr *t, const struct insn *i)
{
    if (!runs_here(t, insn_rows[i->row].attr))
        return false;
    emit_vec_live(t, VEC_XMM);
    emit_mem(t, i, 4, true, 1);
    as_op_rm(&t->as, (struct as_op){ .map = 1, .opcode = 0xae, .size = 4 }, 3, AS_AT(R_S0, 0));
    return true;
}

/* With all exceptions masked still: the mode holds on. Reserved bits and others are the interpreter's, behind which
 * another mode may hold: so the block ends here. */
static bool emit_ldmxcsr(struct tr *t, const struct insn *i)
{
    if (!runs_here(t, insn_rows[i->row].attr) || t->mode & MODE_SSE_TRAPS)
        return false;
    emit_vec_live(t, VEC_XMM);
    emit_mem(t, i, 4, false, 1);
    as_load(&t->as, 4, R_S1, AS_AT(R_S0, 0));
    as_mov32(&t->as, R_S0, R_S1);
    as_alu_ri(&t->as, AS_AND, 4, R_S0, (int32_t)(~fpu_mxcsr_mask() | MXCSR_MASKS));
    as_alu_ri(&t->as, AS_CMP, 4, R_S0, MXCSR_MASKS);
    emit_slow_if(t, CC_NE);
    as_store(&t->as, 4, MXCSR, R_S1);
    as_op_rm(&t->as, (struct as_op){ .map = 1, .opcode = 0xae, .size = 4 }, 2, MXCSR);
    emit_block_end(t);
    return true;
}

static bool emit_emms(struct tr *t, const struct insn *i)
{
    if (!runs_here(t, insn_rows[i->row].attr))
        return false;
    emit_x87_live(t);
    as_bytes(&t->as, (const uint8_t[]){ 0x0f, 0x77 }, 2);
    return true;
}

static const struct emit_row rows[] = {
    { x_vec, emit_vec },
    { x_pcmpstr, emit_pcmpstr },
    { x_vmaskload, emit_vmaskmov },
    { x_vmaskstore, emit_vmaskmov },
    { x_vzero, emit_vzero },
    { x_stmxcsr, emit_stmxcsr },
    { x_ldmxcsr, emit_ldmxcsr },
    { x_emms, emit_emms },
};
EMIT_ROWS(emit_rows_vector, rows);
