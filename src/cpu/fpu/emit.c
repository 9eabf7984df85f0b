/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stubs from rows. Contract in emit.h; the calling convention of stubs in stub.h. */
#include "cpu/fpu/emit.h"
#include "cpu/fpu/fpu.h"
#include "cpu/fpu/stub.h"

#define K(kind, f, c, n) [kind] = { OF_##f, OC_##c, n }
const struct operand_info operand_info[N_OPERANDS] = {
    K(Eb, RM, GPR, 1), K(Ew, RM, GPR, 2), K(Ed, RM, GPR, 4), K(Eq, RM, GPR, 8),
    K(Ey, RM, GPR, 4), K(Rd, RM, GPR, 4), K(Rq, RM, GPR, 8), K(Ry, RM, GPR, 4),
    K(Gd, REG, GPR, 4), K(Gq, REG, GPR, 8), K(Gy, REG, GPR, 4),
    K(Mb, RM, MEM, 1), K(Mw, RM, MEM, 2), K(Md, RM, MEM, 4), K(Mq, RM, MEM, 8), K(My, RM, MEM, 4),
    K(Mdq, RM, MEM, 16), K(Mqq, RM, MEM, 32), K(Mx, RM, MEM, 0), K(Mt, RM, MEM, 10),
    K(Ib, IMM, NONE, 1),
    K(Pq, REG, MM, 8), K(Qq, RM, MM, 8), K(Qd, RM, MM, 4), K(Nq, RM, MM, 8),
    K(Vx, REG, XMM, 0), K(Vdq, REG, XMM, 16), K(Vqq, REG, XMM, 32), K(Vq, REG, XMM, 8),
    K(Vd, REG, XMM, 4), K(Vss, REG, XMM, 4), K(Vsd, REG, XMM, 8), K(Vps, REG, XMM, 0),
    K(Vpd, REG, XMM, 0),
    K(Wx, RM, XMM, 0), K(Wdq, RM, XMM, 16), K(Wqq, RM, XMM, 32), K(Wq, RM, XMM, 8), K(Wd, RM, XMM, 4),
    K(Ww, RM, XMM, 2), K(Wb, RM, XMM, 1), K(Wss, RM, XMM, 4), K(Wsd, RM, XMM, 8), K(Wps, RM, XMM, 0),
    K(Wpd, RM, XMM, 0),
    K(Ux, RM, XMM, 0), K(Udq, RM, XMM, 16), K(Uq, RM, XMM, 8), K(Ups, RM, XMM, 0), K(Upd, RM, XMM, 0),
    K(Hx, VVVV, XMM, 0), K(Hdq, VVVV, XMM, 16), K(Hqq, VVVV, XMM, 32), K(Hq, VVVV, XMM, 8),
    K(Hd, VVVV, XMM, 4), K(Hss, VVVV, XMM, 4), K(Hsd, VVVV, XMM, 8), K(Hps, VVVV, XMM, 0),
    K(Hpd, VVVV, XMM, 0),
    K(Lx, IS4, XMM, 0), K(XMM0r, XMM0, XMM, 16),
};
#undef K

/* Host registers by encoding. */
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };
enum { X_XMM0, X_REG, X_RM, X_VVVV, X_IS4 };

struct emit {
    uint8_t code[STUB_MAX];
    unsigned len;
    const struct insn *insn;
    const struct insn_row *row;
    bool vex, wide; /* VEX-encoded; 256 bits */
};

static void put(struct emit *e, const uint8_t *bytes, unsigned n)
{
    memcpy(e->code + e->len, bytes, n);
    e->len += n;
}
#define PUT(e, ...) put(e, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

#define YMM_HIGH_DISP (XS_YMM - XS_XMM)
#define DISP32(v) (uint8_t)(v), (uint8_t)((v) >> 8), 0, 0

static uint8_t modrm(unsigned mod, unsigned reg, unsigned rm)
{
    return (uint8_t)(mod << 6 | (reg & 7) << 3 | (rm & 7));
}

/* Register `x` from or to the save area at [base]. */
static void put_load(struct emit *e, unsigned x, unsigned base)
{
    if (!e->vex) {
        PUT(e, 0x0f, 0x28, modrm(0, x, base)); /* movaps x, [base] */
        return;
    }
    PUT(e, 0xc5, 0xf8, 0x28, modrm(0, x, base)); /* vmovaps x, [base] */
    if (e->wide)                                 /* vinsertf128 x, x, [base + high], 1 */
        PUT(e, 0xc4, 0xe3, (uint8_t)((~x & 15) << 3 | 5), 0x18, modrm(2, x, base), DISP32(YMM_HIGH_DISP), 1);
}

static void put_store(struct emit *e, unsigned x, unsigned base)
{
    if (!e->vex) {
        PUT(e, 0x0f, 0x29, modrm(0, x, base)); /* movaps [base], x */
        return;
    }
    PUT(e, 0xc5, 0xf8, 0x29, modrm(0, x, base));
    /* vextractf128 [base + high], x, 1: zero after a 128-bit instruction, as the architecture wants */
    PUT(e, 0xc4, 0xe3, 0x7d, 0x19, modrm(2, x, base), DISP32(YMM_HIGH_DISP), 1);
}

static bool has_operand(const struct insn_row *row, enum operand_field field)
{
    for (unsigned k = 0; k < ARRAY_COUNT(row->operand); k++)
        if (operand_info[row->operand[k]].field == field)
            return true;
    return false;
}

const struct operand_info *operand_rm(const struct insn_row *row)
{
    for (unsigned k = 0; k < ARRAY_COUNT(row->operand); k++)
        if (operand_info[row->operand[k]].field == OF_RM)
            return &operand_info[row->operand[k]];
    return NULL;
}

static bool is_y(unsigned kind)
{
    return kind == Ey || kind == Gy || kind == Ry || kind == My;
}

unsigned operand_mem_bytes(const struct insn *i)
{
    const struct insn_row *row = &insn_rows[i->row];

    for (unsigned k = 0; k < ARRAY_COUNT(row->operand); k++) {
        const struct operand_info *o = &operand_info[row->operand[k]];
        if (o->field != OF_RM)
            continue;
        if (is_y(row->operand[k]))
            return i->rex_w && i->mode64 ? 8 : 4;
        return o->bytes ? o->bytes : i->vl ? i->vl : 16;
    }
    return 1;
}

/* Outside 64-bit mode W selects rows (FMA, permutes) but no 64-bit general registers. */
bool emit_wants_w(const struct insn *i)
{
    const struct insn_row *row = &insn_rows[i->row];

    if (!i->rex_w)
        return false;
    for (unsigned k = 0; k < ARRAY_COUNT(row->operand); k++)
        if (is_y(row->operand[k]))
            return i->mode64;
    return row->vex != LEGACY && (row->vex - VEX_LIG_WIG) % 3 == 2;
}

static bool is_lig(const struct insn_row *row)
{
    return row->vex >= VEX_LIG_WIG && row->vex <= VEX_LIG_W1;
}

bool emit_is_wide(const struct insn *i)
{
    return i->vl == 32 && !is_lig(&insn_rows[i->row]);
}

/* The first operand of a VEX instruction is only written, but for FMA's and masked stores' memory. */
static bool reads_first(const struct emit *e)
{
    return !e->vex || e->row->attr >> 24 == F_FMA;
}

static void put_loads(struct emit *e)
{
    for (unsigned k = 0; k < ARRAY_COUNT(e->row->operand); k++) {
        const struct operand_info *o = &operand_info[e->row->operand[k]];

        if (o->class == OC_GPR && o->field == OF_RM && k > 0 && !e->insn->mem)
            PUT(e, 0x4c, 0x89, 0xc0); /* mov rax, r8 */
        if (o->class != OC_XMM || (k == 0 && !reads_first(e) && !e->row->flags_w))
            continue;
        if (o->field == OF_REG)
            put_load(e, X_REG, RDI);
        else if (o->field == OF_RM && !e->insn->mem)
            put_load(e, X_RM, RSI);
        else if (o->field == OF_VVVV)
            put_load(e, X_VVVV, RDX);
        else if (o->field == OF_IS4)
            put_load(e, X_IS4, RCX);
        else if (o->field == OF_XMM0)
            put_load(e, X_XMM0, RCX);
    }
}

static unsigned reg_number(const struct emit *e, enum operand_field field)
{
    unsigned guest = field == OF_REG ? e->insn->reg : e->insn->rm;

    for (unsigned k = 0; k < ARRAY_COUNT(e->row->operand); k++) {
        const struct operand_info *o = &operand_info[e->row->operand[k]];
        if (o->field != field)
            continue;
        if (o->class == OC_MM)
            return guest & 7;
        if (o->class == OC_XMM)
            return field == OF_REG ? X_REG : X_RM;
        return RAX;
    }
    return field == OF_REG && e->row->reg < 8 ? e->row->reg : 0;
}

static void put_opcode(struct emit *e)
{
    static const uint8_t prefix[] = { [PFX_66] = 0x66, [PFX_F3] = 0xf3, [PFX_F2] = 0xf2 };
    static const uint8_t pp[] = { [PFX_66] = 1, [PFX_F3] = 2, [PFX_F2] = 3 };
    const struct insn_row *row = e->row;
    bool w = emit_wants_w(e->insn);

    if (e->vex) {
        unsigned v = has_operand(row, OF_VVVV) ? X_VVVV : 0;
        PUT(e, 0xc4, (uint8_t)(0xe0 | row->map),
            (uint8_t)(w << 7 | (~v & 15) << 3 | e->wide << 2 | pp[row->pfx]), row->opcode);
        return;
    }
    if (row->pfx >= PFX_66)
        PUT(e, prefix[row->pfx]);
    if (w)
        PUT(e, 0x48);
    if (row->map != M1)
        PUT(e, 0x0f);
    if (row->map == M0F38)
        PUT(e, 0x38);
    if (row->map == M0F3A)
        PUT(e, 0x3a);
    PUT(e, row->opcode);
}

static void put_insn(struct emit *e)
{
    const struct insn_row *row = e->row;
    bool imm2 = row->operand[1] == Ib && row->operand[2] == Ib;

    put_opcode(e);
    imm2 |= row->operand[2] == Ib && row->operand[3] == Ib;
    if (e->insn->mem)
        PUT(e, modrm(0, reg_number(e, OF_REG), RSI));
    else
        PUT(e, modrm(3, reg_number(e, OF_REG), reg_number(e, OF_RM)));
    if (has_operand(row, OF_IMM))
        PUT(e, (uint8_t)e->insn->imm);
    if (imm2)
        PUT(e, e->insn->imm2);
    if (has_operand(row, OF_IS4))
        PUT(e, X_IS4 << 4);
}

static void put_result(struct emit *e)
{
    const struct operand_info *dst = &operand_info[e->row->operand[0]];

    if (e->row->flags_w) {
        PUT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
        return;
    }
    if (dst->class != OC_XMM)
        return;
    if (dst->field == OF_REG)
        put_store(e, X_REG, RDI);
    else if (dst->field == OF_VVVV)
        put_store(e, X_VVVV, RDX);
    else if (!e->insn->mem)
        put_store(e, X_RM, RSI);
}

/* SSE4.2 string compares: RAX, RDX in; RCX and the flags or XMM0 out. r8 points at cpu->gpr, rcx at XMM0. */
static bool is_string_compare(const struct insn_row *row)
{
    return row->map == M0F3A && row->opcode >= 0x60 && row->opcode <= 0x63;
}

static void put_string_compare(struct emit *e)
{
    put_loads(e);
    if (!(e->row->opcode & 1))
        PUT(e, 0x49, 0x89, 0xc9);                     /* mov r9, rcx */
    PUT(e, 0x49, 0x8b, 0x00, 0x49, 0x8b, 0x50, 0x10); /* mov rax, [r8]; mov rdx, [r8 + 16] */
    bool w = e->insn->rex_w && e->insn->mode64;
    if (w && !e->vex) {                  /* lengths are 64-bit ones: REX.W follows 66 */
        PUT(e, 0x66, 0x48, 0x0f, 0x3a, e->row->opcode);
        PUT(e, e->insn->mem ? modrm(0, X_REG, RSI) : modrm(3, X_REG, X_RM), (uint8_t)e->insn->imm);
    } else if (w) {
        PUT(e, 0xc4, 0xe3, 0xf9, e->row->opcode);
        PUT(e, e->insn->mem ? modrm(0, X_REG, RSI) : modrm(3, X_REG, X_RM), (uint8_t)e->insn->imm);
    } else {
        put_insn(e);
    }
    if (e->row->opcode & 1) {
        PUT(e, 0x49, 0x89, 0x48, 0x08); /* mov [r8 + 8], rcx */
    } else if (!e->vex) {
        PUT(e, 0x41, 0x0f, 0x29, 0x01); /* movaps [r9], xmm0 */
    } else {
        PUT(e, 0xc4, 0xc1, 0x78, 0x29, 0x01);
        PUT(e, 0xc4, 0xc3, 0x7d, 0x19, 0x81, DISP32(YMM_HIGH_DISP), 1);
    }
    PUT(e, 0x9f, 0x0f, 0x90, 0xc0);
}

static void put_vector(struct emit *e)
{
    bool is_float = e->row->attr & A_FLOAT;

    put_loads(e);
    if (is_float)
        PUT(e, 0x41, 0x0f, 0xae, 0x11); /* ldmxcsr [r9] */
    put_insn(e);
    if (is_float)
        PUT(e, 0x41, 0x0f, 0xae, 0x19); /* stmxcsr [r9] */
    put_result(e);
}

static void put_x87(struct emit *e)
{
    unsigned rm = e->row->reg != REG_ANY && (e->row->reg & 0x40) ? e->row->reg & 7 : e->insn->rm & 7;
    unsigned reg = e->row->reg & 0x40 ? e->row->reg >> 3 & 7 : e->row->reg & 7;

    if (e->row->flags_r || e->row->flags_w)           /* an unmasked exception leaves flags as they were */
        PUT(e, 0x4c, 0x89, 0xc0, 0x04, 0x7f, 0x9e); /* mov rax, r8; add al, 7f; sahf */
    PUT(e, e->row->opcode, e->insn->mem ? modrm(0, reg, RSI) : modrm(3, reg, rm));
    if (e->row->flags_w)
        PUT(e, 0x9f, 0x0f, 0x90, 0xc0);
}

static bool names_mmx(const struct insn_row *row, enum operand_field field)
{
    for (unsigned k = 0; k < ARRAY_COUNT(row->operand); k++)
        if (operand_info[row->operand[k]].field == field && operand_info[row->operand[k]].class == OC_MM)
            return true;
    return false;
}

static uint64_t key_of(const struct insn *i)
{
    const struct insn_row *row = &insn_rows[i->row];
    bool w = emit_wants_w(i) || (i->rex_w && i->mode64 && is_string_compare(row));
    uint64_t key = (uint64_t)i->row << 32 | 1ull << 63 | (uint64_t)i->mem << 48 | (uint64_t)w << 49;

    if (emit_is_wide(i))
        key |= 1ull << 50;
    if (has_operand(row, OF_IMM))
        key |= (uint64_t)(uint8_t)i->imm << 8 | i->imm2;
    if (names_mmx(row, OF_REG))
        key |= (uint64_t)(i->reg & 7) << 16;
    if (names_mmx(row, OF_RM) && !i->mem)
        key |= (uint64_t)(i->rm & 7) << 19;
    if (row->attr & A_X87)
        key |= (uint64_t)(i->mem ? 0 : i->rm & 7) << 19;
    return key;
}

uint32_t emit_stub(const struct insn *i)
{
    struct emit e = { .insn = i, .row = &insn_rows[i->row] };
    uint64_t key = key_of(i);
    uint32_t slot = stub_find(key);

    if (slot)
        return slot;
    e.vex = e.row->vex != LEGACY;
    e.wide = emit_is_wide(i);
    if (e.row->attr & A_X87)
        put_x87(&e);
    else if (is_string_compare(e.row))
        put_string_compare(&e);
    else
        put_vector(&e);
    if (e.wide)
        PUT(&e, 0xc5, 0xf8, 0x77); /* vzeroupper */
    PUT(&e, 0xc3);
    return stub_add(key, e.code, e.len);
}
