/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Moves, extensions, lea, conditional moves and sets, byte swaps.
 *
 * Spec      Intel SDM volume 2. None of these writes flags.
 */
#include "cpu/shared.h"
#include "cpu/translate/place.h"

enum { RAX = 0, RDX = 2 };

/* The guest register whose value a write to operand `n` of `size` bytes changes. */
static unsigned changed(const struct insn *i, unsigned n, unsigned size)
{
    return is_high(i, n, size) ? n - 4 : n;
}

/* --- mov --- */

/* Guest register `n` = `size` bytes at `m`, which S0 reaches. */
static void load_to(struct tr *t, const struct insn *i, unsigned n, unsigned size, struct as_mem m)
{
    struct as_op part = { .opcode = size == 1 ? 0x8a : 0x8b,
                          .size = (uint8_t)size,
                          .byte_reg = size == 1 };

    if (host_of[n] != R_NONE && !is_high(i, n, size)) {
        as_op_rm(&t->as, part, host_of[n], m);
        return;
    }
    as_load(&t->as, size, R_S1, m);
    if (size >= 4)
        emit_reg_done(t, n, R_S1);
    else
        emit_put(t, i, n, size, R_S1, R_S0);
}

/* `size` bytes of guest register `n` to `m`. */
static void store_from(struct tr *t, const struct insn *i, unsigned n, unsigned size,
                       struct as_mem m)
{
    as_store(&t->as, size, m, size == 1 ? emit_byte(t, i, n, R_S1) : emit_reg(t, n, R_S1));
}

static void move_registers(struct tr *t, const struct insn *i, unsigned dst, unsigned src,
                           unsigned size)
{
    flags_reg_changes(t, changed(i, dst, size));
    if (host_of[dst] != R_NONE && host_of[src] == R_NONE && size >= 4) {
        as_load(&t->as, size, host_of[dst], gpr_mem(src));
        return;
    }
    unsigned v = size == 1 ? emit_byte(t, i, src, R_S1) : emit_reg(t, src, R_S1);
    if (is_high(i, dst, size) && v > R_BX) {
        as_mov32(&t->as, R_S1, v);
        v = R_S1;
    }
    emit_put(t, i, dst, size, v, R_S0);
}

static bool emit_mov_EG(struct tr *t, const struct insn *i)
{
    if (!i->mem) {
        move_registers(t, i, i->rm, i->reg, i->opsize);
        return true;
    }
    store_from(t, i, i->reg, i->opsize, emit_near_mem(t, i, i->opsize, true));
    return true;
}

static bool emit_mov_GE(struct tr *t, const struct insn *i)
{
    if (!i->mem) {
        move_registers(t, i, i->reg, i->rm, i->opsize);
        return true;
    }
    flags_reg_changes(t, changed(i, i->reg, i->opsize));
    load_to(t, i, i->reg, i->opsize, emit_near_mem(t, i, i->opsize, false));
    return true;
}

static void store_imm(struct tr *t, const struct insn *i, struct as_mem m)
{
    as_store_imm32(&t->as, i->opsize, m, (int32_t)i->imm);
}

static bool emit_mov_EI(struct tr *t, const struct insn *i)
{
    unsigned size = i->opsize;

    if (i->mem) {
        store_imm(t, i, emit_near_mem(t, i, size, true));
        return true;
    }
    flags_reg_changes(t, changed(i, i->rm, size));
    if (size >= 4 && host_of[i->rm] != R_NONE) {
        as_mov_imm(&t->as, host_of[i->rm], size == 4 ? (uint32_t)i->imm : i->imm);
        return true;
    }
    as_mov_imm(&t->as, R_S1, size == 8 ? i->imm : (uint32_t)i->imm);
    if (size >= 4)
        emit_reg_done(t, i->rm, R_S1);
    else
        emit_put(t, i, i->rm, size, R_S1, R_S0);
    return true;
}

/* --- moffs --- */

/* S0 = the linear address of the operand, checked then. */
static bool moffs(struct tr *t, const struct insn *i, bool write)
{
    flags_clobber(t);
    as_mov_imm(&t->as, R_S0, i->imm);
    if (i->seg >= SEG_FS) {
        as_load(&t->as, 8, R_S1, AS_GS(offsetof(struct cpu, seg_base) + 8 * i->seg));
        as_lea(&t->as, 8, R_S0, (struct as_mem){ .base = R_S0, .index = R_S1 });
    }
    emit_mem_s0(t, i->opsize, write, 1);
    return true;
}

static bool emit_mov_AO(struct tr *t, const struct insn *i)
{
    flags_reg_changes(t, RAX);
    moffs(t, i, false);
    load_to(t, i, RAX, i->opsize, AS_AT(R_S0, 0));
    return true;
}

static bool emit_mov_OA(struct tr *t, const struct insn *i)
{
    moffs(t, i, true);
    store_from(t, i, RAX, i->opsize, AS_AT(R_S0, 0));
    return true;
}

/* --- movzx, movsx, movsxd --- */

static bool extend(struct tr *t, const struct insn *i, bool sign, unsigned from)
{
    struct as_op op = { .map = 1,
                        .opcode = (uint8_t)((sign ? 0xbe : 0xb6) + (from == 2)),
                        .size = i->opsize,
                        .byte_rm = from == 1 };
    struct place src;

    if (from == 4)
        op = (struct as_op){ .opcode = 0x63, .size = i->opsize };
    if (i->opsize == 2 && host_of[i->reg] == R_NONE)
        return false;
    flags_reg_changes(t, i->reg);
    if (!i->mem && is_high(i, i->rm, from))
        src = place_reg(emit_byte(t, i, i->rm, R_S0));
    else
        src = place_rm(t, i, from, false);
    unsigned dst = emit_reg_dst(t, i->reg, R_S1);
    place_op(t, op, dst, src);
    emit_reg_done(t, i->reg, dst);
    return true;
}

static bool emit_movzx_8(struct tr *t, const struct insn *i)
{
    return extend(t, i, false, 1);
}

static bool emit_movzx_16(struct tr *t, const struct insn *i)
{
    return extend(t, i, false, 2);
}

static bool emit_movsx_8(struct tr *t, const struct insn *i)
{
    return extend(t, i, true, 1);
}

static bool emit_movsx_16(struct tr *t, const struct insn *i)
{
    return extend(t, i, true, 2);
}

static bool emit_movsx_32(struct tr *t, const struct insn *i)
{
    return i->opsize != 2 && extend(t, i, true, 4);
}

/* --- lea, bswap, movbe, cbw, cwd --- */

static bool emit_lea(struct tr *t, const struct insn *i)
{
    unsigned dst = emit_reg_dst(t, i->reg, R_S0);

    flags_reg_changes(t, i->reg);
    if (i->opsize == 2) {
        emit_offset(t, i, R_S0);
        emit_put(t, i, i->reg, 2, R_S0, R_S1);
        return true;
    }
    emit_offset_sized(t, i, dst, i->opsize);
    emit_reg_done(t, i->reg, dst);
    return true;
}

static bool emit_bswap(struct tr *t, const struct insn *i)
{
    if (i->opsize == 2)
        return false;
    flags_reg_changes(t, i->reg);
    unsigned r = emit_reg(t, i->reg, R_S0);
    as_op_rr(&t->as,
             (struct as_op){ .map = 1, .opcode = 0xc8, .size = i->opsize, .no_modrm = true }, 0, r);
    emit_reg_done(t, i->reg, r);
    return true;
}

static bool emit_movbe_GM(struct tr *t, const struct insn *i)
{
    if (i->opsize == 2 && host_of[i->reg] == R_NONE)
        return false;
    flags_reg_changes(t, i->reg);
    emit_mem(t, i, i->opsize, false, 1);
    unsigned dst = emit_reg_dst(t, i->reg, R_S1);
    as_op_rm(&t->as, (struct as_op){ .map = 2, .opcode = 0xf0, .size = i->opsize }, dst,
             AS_AT(R_S0, 0));
    emit_reg_done(t, i->reg, dst);
    return true;
}

static bool emit_movbe_MG(struct tr *t, const struct insn *i)
{
    emit_mem(t, i, i->opsize, true, 1);
    as_op_rm(&t->as, (struct as_op){ .map = 2, .opcode = 0xf1, .size = i->opsize },
             emit_reg(t, i->reg, R_S1), AS_AT(R_S0, 0));
    return true;
}

/* cbw, cwde, cdqe */
static bool emit_cbw(struct tr *t, const struct insn *i)
{
    flags_reg_changes(t, RAX);
    as_extend(&t->as, true, i->opsize / 2, i->opsize, host_of[RAX], host_of[RAX]);
    return true;
}

/* cwd, cdq, cqo, with the host's RDX, which is the guest's. */
static bool emit_cwd(struct tr *t, const struct insn *i)
{
    flags_reg_changes(t, RDX);
    as_mov(&t->as, R_AX, host_of[RAX]);
    if (i->opsize != 4)
        as_u8(&t->as, i->opsize == 2 ? 0x66 : 0x48);
    as_u8(&t->as, 0x99);
    return true;
}

/* --- conditions --- */

static unsigned condition(const struct insn *i)
{
    return insn_rows[i->row].opcode & 15;
}

static bool emit_cmovcc(struct tr *t, const struct insn *i)
{
    struct as_op op = { .map = 1, .opcode = (uint8_t)(0x40 + condition(i)), .size = i->opsize };
    struct place src;

    flags_reg_changes(t, i->reg);
    if (i->mem) {
        as_load(&t->as, i->opsize, R_S1, emit_near_mem(t, i, i->opsize, false));
        src = place_reg(R_S1);
    } else {
        src = place_gpr(i->rm);
    }
    flags_need(t);
    unsigned dst = emit_reg(t, i->reg, R_S0);
    place_op(t, op, dst, src);
    emit_reg_done(t, i->reg, dst);
    return true;
}

static bool emit_setcc(struct tr *t, const struct insn *i)
{
    struct as_op op = {
        .map = 1, .opcode = (uint8_t)(0x90 + condition(i)), .byte_rm = true, .ext = true
    };

    if (i->mem) {
        struct as_mem m = emit_near_mem(t, i, 1, true);
        flags_need_keep(t);
        as_op_rm(&t->as, op, 0, m);
        return true;
    }
    flags_reg_changes(t, changed(i, i->rm, 1));
    flags_need(t);
    if (!is_high(i, i->rm, 1)) {
        place_op(t, op, 0, place_gpr(i->rm));
        return true;
    }
    as_setcc(&t->as, condition(i), R_S1);
    emit_put(t, i, i->rm, 1, R_S1, R_S0);
    return true;
}

/* --- flags --- */

static bool no_lahf(const struct tr *t)
{
    return t->mode64 && !cpu_has(t->c, F_LAHF64);
}

static bool emit_lahf(struct tr *t, const struct insn *i)
{
    if (no_lahf(t))
        return false;
    flags_reg_changes(t, RAX);
    flags_need(t);
    as_u8(&t->as, 0x9f);
    as_bytes(&t->as, "\x88\xe7", 2); /* mov bh, ah */
    return true;
}

static bool emit_sahf(struct tr *t, const struct insn *i)
{
    if (no_lahf(t))
        return false;
    flags_need(t);
    as_bytes(&t->as, "\x88\xfc\x9e", 3); /* mov ah, bh */
    flags_produced(t, (struct flags){ 0 });
    return true;
}

static bool carry(struct tr *t, uint8_t opcode)
{
    if (!flags_dead_behind(t))
        flags_need(t);
    as_u8(&t->as, opcode);
    flags_produced(t, (struct flags){ 0 });
    return true;
}

static bool emit_cmc(struct tr *t, const struct insn *i)
{
    return carry(t, 0xf5);
}

static bool emit_clc(struct tr *t, const struct insn *i)
{
    return carry(t, 0xf8);
}

static bool emit_stc(struct tr *t, const struct insn *i)
{
    return carry(t, 0xf9);
}

static bool emit_cld(struct tr *t, const struct insn *i)
{
    flags_clobber(t);
    as_alu_mi(&t->as, AS_AND, 4, AS_GS(offsetof(struct cpu, flags_sys)), ~(int32_t)FLAG_DF);
    return true;
}

static bool emit_std(struct tr *t, const struct insn *i)
{
    flags_clobber(t);
    as_alu_mi(&t->as, AS_OR, 4, AS_GS(offsetof(struct cpu, flags_sys)), (int32_t)FLAG_DF);
    return true;
}

/* --- nothing, or little --- */

static bool emit_nop(struct tr *t, const struct insn *i)
{
    return true;
}

static bool emit_fence(struct tr *t, const struct insn *i)
{
    const struct insn_row *r = &insn_rows[i->row];

    if (r->attr & A_END) /* serialize */
        return false;
    as_op_rr(&t->as, (struct as_op){ .map = 1, .opcode = 0xae }, r->reg, 0);
    return true;
}

static const struct emit_row rows[] = {
    { x_mov_EG, emit_mov_EG },     { x_mov_GE, emit_mov_GE },     { x_mov_EI, emit_mov_EI },
    { x_mov_AO, emit_mov_AO },     { x_mov_OA, emit_mov_OA },     { x_movzx_8, emit_movzx_8 },
    { x_movzx_16, emit_movzx_16 }, { x_movsx_8, emit_movsx_8 },   { x_movsx_16, emit_movsx_16 },
    { x_movsx_32, emit_movsx_32 }, { x_lea, emit_lea },           { x_bswap, emit_bswap },
    { x_movbe_GM, emit_movbe_GM }, { x_movbe_MG, emit_movbe_MG }, { x_cbw, emit_cbw },
    { x_cwd, emit_cwd },           { x_cmovcc, emit_cmovcc },     { x_setcc, emit_setcc },
    { x_lahf, emit_lahf },         { x_sahf, emit_sahf },         { x_cmc, emit_cmc },
    { x_clc, emit_clc },           { x_stc, emit_stc },           { x_cld, emit_cld },
    { x_std, emit_std },           { x_nop, emit_nop },           { x_fence, emit_fence },
};
EMIT_ROWS(mov_rows, rows);
