/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The assembler: encodings of host instructions.
 *
 * Spec      Intel SDM volume 2, chapter 2 and the opcode maps of appendix A.
 */
#include "cpu/translate/asm.h"

#include <string.h>

/* --- bytes --- */

static void put(struct as *a, const void *bytes, unsigned len)
{
    if (a->full || (size_t)(a->end - a->p) < len) {
        a->full = true;
        return;
    }
    memcpy(a->p, bytes, len);
    a->p += len;
}

static void put8(struct as *a, uint8_t v)
{
    put(a, &v, 1);
}

static void put32(struct as *a, uint32_t v)
{
    put(a, &v, 4);
}

static void put64(struct as *a, uint64_t v)
{
    put(a, &v, 8);
}

/* An instruction names the register, perhaps to write it. */
static void mention(struct as *a, unsigned reg)
{
    a->ax_used |= reg == R_AX;
}

void as_bytes(struct as *a, const void *bytes, unsigned len)
{
    a->ax_used = true;
    put(a, bytes, len);
}

void as_u8(struct as *a, uint8_t v)
{
    as_bytes(a, &v, 1);
}

void as_u32(struct as *a, uint32_t v)
{
    as_bytes(a, &v, 4);
}

void as_u64(struct as *a, uint64_t v)
{
    as_bytes(a, &v, 8);
}

static bool fits8(int64_t v)
{
    return v == (int8_t)v;
}

void as_imm(struct as *a, unsigned size, uint64_t imm)
{
    put(a, &imm, size > 4 ? 4 : size);
}

/* --- the general encodings --- */

#define REX   0x40
#define REX_W 8
#define REX_R 4
#define REX_X 2
#define REX_B 1

static unsigned high_bit(unsigned reg, unsigned rex)
{
    return reg != R_NONE && reg & 8 ? rex : 0;
}

/* SPL to DIL need a REX to be themselves. */
static bool byte_needs_rex(bool is_byte, unsigned reg)
{
    return is_byte && reg >= 4 && reg < 8;
}

static void put_prefixes(struct as *a, struct as_op op, unsigned rex, bool force_rex)
{
    if (op.lock)
        put8(a, 0xf0);
    if (op.size == 2 || op.pfx == 0x66)
        put8(a, 0x66);
    if (op.pfx && op.pfx != 0x66)
        put8(a, op.pfx);
    if (op.size == 8)
        rex |= REX_W;
    if (rex || force_rex)
        put8(a, (uint8_t)(REX | rex));
}

static void put_opcode(struct as *a, struct as_op op)
{
    static const uint8_t map[4][2] = { { 0 }, { 0 }, { 0x0f, 0x38 }, { 0x0f, 0x3a } };

    if (op.map == 1)
        put8(a, 0x0f);
    else if (op.map)
        put(a, map[op.map], 2);
    put8(a, op.opcode);
}

static void put_modrm(struct as *a, unsigned mod, unsigned reg, unsigned rm)
{
    put8(a, (uint8_t)(mod << 6 | (reg & 7) << 3 | (rm & 7)));
}

/* ModRM, SIB and displacement of a memory operand. */
static void put_mem(struct as *a, unsigned reg, struct as_mem m)
{
    bool sib = m.index != R_NONE || m.base == R_NONE || (m.base & 7) == 4;
    unsigned mod = m.base == R_NONE                   ? 0
                   : m.disp == 0 && (m.base & 7) != 5 ? 0
                   : fits8(m.disp)                    ? 1
                                                      : 2;
    put_modrm(a, mod, reg, sib ? 4 : m.base);
    if (sib)
        put8(a, (uint8_t)(m.scale << 6 | (m.index == R_NONE ? 4 : m.index & 7) << 3 |
                          (m.base == R_NONE ? 5 : m.base & 7)));
    if (mod == 1)
        put8(a, (uint8_t)m.disp);
    else if (mod == 2 || m.base == R_NONE)
        put32(a, (uint32_t)m.disp);
}

static unsigned mem_rex(unsigned reg, struct as_mem m)
{
    return high_bit(reg, REX_R) | high_bit(m.index, REX_X) | high_bit(m.base, REX_B);
}

void as_op_rr(struct as *a, struct as_op op, unsigned reg, unsigned rm)
{
    if (!op.ext)
        mention(a, reg);
    mention(a, rm);
    put_prefixes(a, op, high_bit(reg, REX_R) | high_bit(rm, REX_B),
                 byte_needs_rex(op.byte_reg, reg) || byte_needs_rex(op.byte_rm, rm));
    if (op.no_modrm)
        op.opcode |= rm & 7;
    put_opcode(a, op);
    if (!op.no_modrm)
        put_modrm(a, 3, reg, rm);
}

void as_op_rm(struct as *a, struct as_op op, unsigned reg, struct as_mem m)
{
    if (!op.ext)
        mention(a, reg);
    if (m.gs)
        put8(a, 0x65);
    put_prefixes(a, op, mem_rex(reg, m), byte_needs_rex(op.byte_reg, reg));
    put_opcode(a, op);
    put_mem(a, reg, m);
}

/* VEX inverts R, X, B and vvvv. The two-byte form holds map 0F, no W, no X, no B. */
static void put_vex(struct as *a, struct as_vex op, unsigned rex, unsigned vvvv)
{
    a->ax_used = true;
    unsigned pp = op.pfx == 0x66 ? 1 : op.pfx == 0xf3 ? 2 : op.pfx == 0xf2 ? 3 : 0;
    unsigned last = (~vvvv & 15) << 3 | (unsigned)op.l << 2 | pp;

    if (op.map == 1 && !op.w && !(rex & (REX_X | REX_B))) {
        put8(a, 0xc5);
        put8(a, (uint8_t)((rex & REX_R ? 0 : 0x80) | last));
    } else {
        put8(a, 0xc4);
        put8(a, (uint8_t)((~rex & 7) << 5 | op.map));
        put8(a, (uint8_t)((unsigned)op.w << 7 | last));
    }
    put8(a, op.opcode);
}

void as_vex_rr(struct as *a, struct as_vex op, unsigned reg, unsigned vvvv, unsigned rm)
{
    put_vex(a, op, high_bit(reg, REX_R) | high_bit(rm, REX_B), vvvv);
    put_modrm(a, 3, reg, rm);
}

void as_vex_rm(struct as *a, struct as_vex op, unsigned reg, unsigned vvvv, struct as_mem m)
{
    if (m.gs)
        put8(a, 0x65);
    put_vex(a, op, mem_rex(reg, m), vvvv);
    put_mem(a, reg, m);
}

/* --- moves --- */

void as_mov(struct as *a, unsigned dst, unsigned src)
{
    as_op_rr(a, (struct as_op){ .opcode = 0x89, .size = 8 }, src, dst);
}

void as_mov32(struct as *a, unsigned dst, unsigned src)
{
    as_op_rr(a, (struct as_op){ .opcode = 0x89, .size = 4 }, src, dst);
}

void as_mov_imm(struct as *a, unsigned dst, uint64_t imm)
{
    bool sign32 = (int64_t)imm == (int32_t)imm;

    mention(a, dst);
    if (imm >> 32 && sign32) {
        as_op_rr(a, (struct as_op){ .opcode = 0xc7, .size = 8, .ext = true }, 0, dst);
        put32(a, (uint32_t)imm);
        return;
    }
    unsigned rex = high_bit(dst, REX_B) | (imm >> 32 ? REX_W : 0);
    if (rex)
        put8(a, (uint8_t)(REX | rex));
    put8(a, (uint8_t)(0xb8 + (dst & 7)));
    if (imm >> 32)
        put64(a, imm);
    else
        put32(a, (uint32_t)imm);
}

void as_load(struct as *a, unsigned size, unsigned dst, struct as_mem m)
{
    struct as_op op = { .opcode = 0x8b, .size = (uint8_t)size };

    if (size < 4)
        op = (struct as_op){ .map = 1, .opcode = size == 1 ? 0xb6 : 0xb7, .size = 4 };
    as_op_rm(a, op, dst, m);
}

void as_store(struct as *a, unsigned size, struct as_mem m, unsigned src)
{
    as_op_rm(a,
             (struct as_op){
                 .opcode = size == 1 ? 0x88 : 0x89, .size = (uint8_t)size, .byte_reg = size == 1 },
             src, m);
}

void as_store_imm32(struct as *a, unsigned size, struct as_mem m, int32_t imm)
{
    as_op_rm(
        a, (struct as_op){ .opcode = size == 1 ? 0xc6 : 0xc7, .size = (uint8_t)size, .ext = true },
        0, m);
    as_imm(a, size, (uint32_t)imm);
}

void as_lea(struct as *a, unsigned size, unsigned dst, struct as_mem m)
{
    m.gs = false;
    as_op_rm(a, (struct as_op){ .opcode = 0x8d, .size = (uint8_t)size }, dst, m);
}

void as_extend(struct as *a, bool sign, unsigned from, unsigned size, unsigned dst, unsigned src)
{
    struct as_op op = { .map = 1, .size = (uint8_t)size, .byte_rm = from == 1 };

    if (from == 4) {
        op.map = 0;
        op.opcode = 0x63;
    } else {
        op.opcode = (uint8_t)((sign ? 0xbe : 0xb6) + (from == 2));
    }
    as_op_rr(a, op, dst, src);
}

/* --- arithmetic --- */

void as_alu_rr(struct as *a, unsigned alu, unsigned size, unsigned dst, unsigned src)
{
    as_op_rr(a,
             (struct as_op){ .opcode = (uint8_t)(alu * 8 + (size > 1)),
                             .size = (uint8_t)size,
                             .byte_reg = size == 1,
                             .byte_rm = size == 1 },
             src, dst);
}

/* Opcode 80, 81 or 83. */
static struct as_op alu_imm_op(unsigned size, int32_t imm)
{
    return (struct as_op){ .opcode = size == 1    ? 0x80
                                     : fits8(imm) ? 0x83
                                                  : 0x81,
                           .size = (uint8_t)size,
                           .byte_rm = size == 1,
                           .ext = true };
}

void as_alu_ri(struct as *a, unsigned alu, unsigned size, unsigned dst, int32_t imm)
{
    if (size == 2)
        imm = (int16_t)imm;
    struct as_op op = alu_imm_op(size, imm);

    mention(a, dst);
    if (dst == R_AX && op.opcode != 0x83) {
        put_prefixes(a, op, 0, false);
        put8(a, (uint8_t)(alu * 8 + 4 + (size > 1)));
    } else {
        as_op_rr(a, op, alu, dst);
    }
    as_imm(a, op.opcode == 0x83 ? 1 : size, (uint32_t)imm);
}

void as_alu_rm(struct as *a, unsigned alu, unsigned size, unsigned dst, struct as_mem m)
{
    as_op_rm(a,
             (struct as_op){ .opcode = (uint8_t)(alu * 8 + 2 + (size > 1)),
                             .size = (uint8_t)size,
                             .byte_reg = size == 1 },
             dst, m);
}

void as_alu_mr(struct as *a, unsigned alu, unsigned size, struct as_mem m, unsigned src)
{
    as_op_rm(a,
             (struct as_op){ .opcode = (uint8_t)(alu * 8 + (size > 1)),
                             .size = (uint8_t)size,
                             .byte_reg = size == 1 },
             src, m);
}

void as_alu_mi(struct as *a, unsigned alu, unsigned size, struct as_mem m, int32_t imm)
{
    if (size == 2)
        imm = (int16_t)imm;
    struct as_op op = alu_imm_op(size, imm);

    as_op_rm(a, op, alu, m);
    as_imm(a, op.opcode == 0x83 ? 1 : size, (uint32_t)imm);
}

void as_test_rr(struct as *a, unsigned size, unsigned r1, unsigned r2)
{
    as_op_rr(a,
             (struct as_op){ .opcode = size == 1 ? 0x84 : 0x85,
                             .size = (uint8_t)size,
                             .byte_reg = size == 1,
                             .byte_rm = size == 1 },
             r2, r1);
}

void as_test_ri(struct as *a, unsigned size, unsigned reg, int32_t imm)
{
    struct as_op op = {
        .opcode = size == 1 ? 0xf6 : 0xf7, .size = (uint8_t)size, .byte_rm = size == 1, .ext = true
    };

    mention(a, reg);
    if (reg == R_AX) {
        put_prefixes(a, op, 0, false);
        put8(a, size == 1 ? 0xa8 : 0xa9);
    } else {
        as_op_rr(a, op, 0, reg);
    }
    as_imm(a, size, (uint32_t)imm);
}

void as_shift_ri(struct as *a, unsigned ext, unsigned size, unsigned dst, unsigned count)
{
    uint8_t opcode = (uint8_t)((count == 1 ? 0xd0 : 0xc0) + (size > 1));

    as_op_rr(a,
             (struct as_op){
                 .opcode = opcode, .size = (uint8_t)size, .byte_rm = size == 1, .ext = true },
             ext, dst);
    if (count != 1)
        put8(a, (uint8_t)count);
}

/* --- flags --- */

void as_push(struct as *a, unsigned reg)
{
    if (reg >= 8)
        as_u8(a, 0x41);
    as_u8(a, (uint8_t)(0x50 | (reg & 7)));
}

void as_pop(struct as *a, unsigned reg)
{
    if (reg >= 8)
        as_u8(a, 0x41);
    as_u8(a, (uint8_t)(0x58 | (reg & 7)));
}

void as_ret(struct as *a)
{
    as_u8(a, 0xc3);
}

void as_lahf_seto(struct as *a)
{
    mention(a, R_AX);
    put(a, "\x9f\x0f\x90\xc0", 4);
}

void as_sahf_from_ax(struct as *a)
{
    mention(a, R_AX);
    put(a, "\x04\x7f\x9e", 3);
}

void as_setcc(struct as *a, unsigned cc, unsigned dst)
{
    as_op_rr(
        a, (struct as_op){ .map = 1, .opcode = (uint8_t)(0x90 + cc), .byte_rm = true, .ext = true },
        0, dst);
}

void as_cmov(struct as *a, unsigned cc, unsigned size, unsigned dst, unsigned src)
{
    as_op_rr(a, (struct as_op){ .map = 1, .opcode = (uint8_t)(0x40 + cc), .size = (uint8_t)size },
             dst, src);
}

/* --- jumps --- */

/* The displacement of `n` bytes that follows, to be filled by as_fix_here(). */
static struct as_fix put_fix(struct as *a, unsigned n)
{
    struct as_fix f = { .at = a->p, .near = n == 4 };

    put(a, "\0\0\0", n);
    return f;
}

struct as_fix as_jcc(struct as *a, unsigned cc, bool near)
{
    if (near)
        put8(a, 0x0f);
    put8(a, (uint8_t)((near ? 0x80 : 0x70) + cc));
    return put_fix(a, near ? 4 : 1);
}

struct as_fix as_jmp(struct as *a, bool near)
{
    put8(a, near ? 0xe9 : 0xeb);
    return put_fix(a, near ? 4 : 1);
}

struct as_fix as_jrcxz(struct as *a)
{
    put8(a, 0xe3);
    return put_fix(a, 1);
}

void as_fix_here(struct as *a, struct as_fix f)
{
    if (a->full)
        return;
    ptrdiff_t rel = a->p - (f.at + (f.near ? 4 : 1));
    if (!f.near && !fits8(rel)) {
        a->full = true;
        return;
    }
    int32_t v = (int32_t)rel;
    memcpy(f.at, &v, f.near ? 4 : 1);
}

/* Distance from behind an instruction of `len` bytes at a->p to `rx`. */
static int64_t distance(const struct as *a, const uint8_t *rx, unsigned len)
{
    return (int64_t)((uintptr_t)rx - ((uintptr_t)a->p + (uintptr_t)a->to_rx + len));
}

static void put_rel32(struct as *a, const uint8_t *rx)
{
    int64_t rel = distance(a, rx, 4);

    if (rel != (int32_t)rel)
        a->full = true;
    put32(a, (uint32_t)rel);
}

void as_jcc_to(struct as *a, unsigned cc, const uint8_t *rx)
{
    int64_t rel = distance(a, rx, 2);

    if (fits8(rel)) {
        put8(a, (uint8_t)(0x70 + cc));
        put8(a, (uint8_t)rel);
        return;
    }
    put8(a, 0x0f);
    put8(a, (uint8_t)(0x80 + cc));
    put_rel32(a, rx);
}

void as_jmp_to(struct as *a, const uint8_t *rx)
{
    int64_t rel = distance(a, rx, 2);

    if (fits8(rel)) {
        put8(a, 0xeb);
        put8(a, (uint8_t)rel);
        return;
    }
    put8(a, 0xe9);
    put_rel32(a, rx);
}

void as_call_to(struct as *a, const uint8_t *rx)
{
    a->ax_used = true;
    put8(a, 0xe8);
    put_rel32(a, rx);
}

void as_jmp_mem(struct as *a, struct as_mem m)
{
    as_op_rm(a, (struct as_op){ .opcode = 0xff, .ext = true }, 4, m);
}

void as_call_mem(struct as *a, struct as_mem m)
{
    a->ax_used = true;
    as_op_rm(a, (struct as_op){ .opcode = 0xff, .ext = true }, 2, m);
}

void as_nop(struct as *a, unsigned bytes)
{
    static const char nops[9][10] = {
        "\x90",
        "\x66\x90",
        "\x0f\x1f\x00",
        "\x0f\x1f\x40\x00",
        "\x0f\x1f\x44\x00\x00",
        "\x66\x0f\x1f\x44\x00\x00",
        "\x0f\x1f\x80\x00\x00\x00\x00",
        "\x0f\x1f\x84\x00\x00\x00\x00\x00",
        "\x66\x0f\x1f\x84\x00\x00\x00\x00\x00",
    };

    while (bytes) {
        unsigned n = bytes > 9 ? 9 : bytes;
        put(a, nops[n - 1], n);
        bytes -= n;
    }
}
