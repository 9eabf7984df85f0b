/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The disassembler: Intel syntax, from the rows and the operand table.
 *
 * Spec      Intel SDM volume 2, chapter 3 (notation).
 * Trust     Any decoded instruction; the text is cut at the buffer's end.
 */
#include "cpu/decode/operand.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct text {
    char *buf;
    size_t size, len;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *format, ...)
{
    va_list ap;

    if (t->len + 1 >= t->size)
        return;
    va_start(ap, format);
    int n = vsnprintf(t->buf + t->len, t->size - t->len, format, ap);
    va_end(ap);
    t->len += n > 0 ? (size_t)n : 0;
    if (t->len >= t->size)
        t->len = t->size - 1;
}

static const char *const seg_names[] = { "es", "cs", "ss", "ds", "fs", "gs", "?", "?" };

static const char *gpr_name(unsigned n, unsigned size, bool rex, char buf[8])
{
    static const char *const low[] = { "ax", "cx", "dx", "bx", "sp", "bp", "si", "di" };
    static const char *const byte[] = { "al", "cl", "dl", "bl", "ah", "ch", "dh", "bh" };

    if (n >= 8)
        snprintf(buf, 8, "r%u%s", n & 15, size == 1 ? "b" : size == 2 ? "w" : size == 4 ? "d" : "");
    else if (size == 1)
        snprintf(buf, 8, n >= 4 && rex ? "%sl" : "%s", n >= 4 && rex ? low[n] : byte[n]);
    else
        snprintf(buf, 8, "%s%s", size == 8 ? "r" : size == 4 ? "e" : "", low[n]);
    return buf;
}

static unsigned operand_size(const struct insn *i, uint8_t size)
{
    switch (size) {
    case SIZE_V:
        return i->opsize == 1 ? 4 : i->opsize;
    case SIZE_Z:
        return i->opsize == 8 ? 4 : i->opsize;
    case SIZE_Y:
        return i->rex_w && i->mode64 ? 8 : 4;
    case SIZE_X:
        return i->vl ? i->vl : 16;
    case SIZE_NONE:
        return 0;
    default:
        return size;
    }
}

static const char *size_name(unsigned size)
{
    switch (size) {
    case 1:
        return "byte ptr ";
    case 2:
        return "word ptr ";
    case 4:
        return "dword ptr ";
    case 8:
        return "qword ptr ";
    case 10:
        return "tbyte ptr ";
    case 16:
        return "xmmword ptr ";
    case 32:
        return "ymmword ptr ";
    default:
        return "";
    }
}

static void put_gpr(struct text *t, const struct insn *i, unsigned n, unsigned size)
{
    char name[8];
    put(t, "%s", gpr_name(n, size ? size : i->opsize, i->rex, name));
}

static void put_memory(struct text *t, const struct insn *i, unsigned size, uint64_t rip)
{
    bool stack = i->base == 4 || i->base == 5, vsib = false;
    const struct insn_row *r = &insn_rows[i->row];
    const char *sign = "";

    for (unsigned k = 0; k < 4; k++)
        vsib |= r->operand[k] == Mvs;
    put(t, "%s", size_name(size));
    if (i->seg != (stack ? SEG_SS : SEG_DS))
        put(t, "%s:", seg_names[i->seg & 7]);
    put(t, "[");
    if (i->base == BASE_RIP) {
        put(t, "0x%" PRIx64 "]", rip + i->len + (uint64_t)(int64_t)i->disp);
        return;
    }
    if (i->base != REG_NONE) {
        put_gpr(t, i, i->base, i->adsize);
        sign = "+";
    }
    if (i->index != REG_NONE) {
        put(t, "%s", sign);
        if (vsib)
            put(t, "%cmm%u", i->vl == 32 ? 'y' : 'x', i->index);
        else
            put_gpr(t, i, i->index, i->adsize);
        put(t, "*%u", 1u << i->scale);
        sign = "+";
    }
    if (!*sign)
        put(t, "0x%" PRIx64, (uint64_t)(int64_t)i->disp & ~(uint64_t)0 >> (64 - 8 * i->adsize));
    else if (i->disp)
        put(t, "%c0x%x", i->disp < 0 ? '-' : '+', i->disp < 0 ? -(uint32_t)i->disp : (uint32_t)i->disp);
    put(t, "]");
}

static void put_vector(struct text *t, const struct insn *i, unsigned n, unsigned size)
{
    put(t, "%cmm%u", size == 32 ? 'y' : 'x', n & 15);
}

static void put_fixed(struct text *t, const struct insn *i, uint8_t kind)
{
    switch (kind) {
    case rAL:
        put(t, "al");
        break;
    case rAXv:
        put_gpr(t, i, 0, i->opsize);
        break;
    case rCL:
        put(t, "cl");
        break;
    case rDX:
        put(t, "dx");
        break;
    case c1:
        put(t, "1");
        break;
    case XMM0r:
        put(t, "xmm0");
        break;
    default:
        if (kind >= sES && kind <= sGS)
            put(t, "%s", seg_names[kind - sES]);
    }
}

static void put_string(struct text *t, const struct insn *i, bool src, unsigned size)
{
    char name[8];
    put(t, "%s%s:[%s]", size_name(size), src ? seg_names[i->seg & 7] : "es",
        gpr_name(src ? 6 : 7, i->adsize, false, name));
}

static uint64_t branch_target(const struct insn *i, uint64_t rip)
{
    uint64_t to = rip + i->len + i->imm;
    return i->opsize == 8 ? to : to & ~(uint64_t)0 >> (64 - 8 * i->opsize);
}

static void put_operand(struct text *t, const struct insn *i, uint8_t kind, uint64_t rip)
{
    const struct operand_info *o = &operand_infos[kind];
    unsigned size = operand_size(i, o->size);

    switch (o->place) {
    case AT_RM:
        if (i->mem)
            put_memory(t, i, size, rip);
        else
            put_gpr(t, i, i->rm, size);
        break;
    case AT_REG: case AT_OPCODE:
        put_gpr(t, i, i->reg, size);
        break;
    case AT_VVVV:
        put_gpr(t, i, i->vvvv, size);
        break;
    case AT_IMM:
        put(t, "0x%" PRIx64, size && size < 8 ? i->imm & ~(uint64_t)0 >> (64 - 8 * size) : i->imm);
        break;
    case AT_IMM_REL:
        put(t, "0x%" PRIx64, branch_target(i, rip));
        break;
    case AT_IMM_FAR:
        put(t, "0x%x:0x%" PRIx64, i->sel, i->imm);
        break;
    case AT_MOFFS:
        put(t, "%s%s:[0x%" PRIx64 "]", size_name(size), seg_names[i->seg & 7], i->imm);
        break;
    case AT_STR_SRC: case AT_STR_DST:
        put_string(t, i, o->place == AT_STR_SRC, size);
        break;
    case AT_SREG:
        put(t, "%s", seg_names[i->reg & 7]);
        break;
    case AT_CREG: case AT_DREG:
        put(t, "%cr%u", o->place == AT_CREG ? 'c' : 'd', i->reg);
        break;
    case AT_FIXED:
        put_fixed(t, i, kind);
        break;
    case AT_MMX_REG:
        put(t, "mm%u", i->reg & 7);
        break;
    case AT_MMX_RM: case AT_VEC_RM:
        if (i->mem)
            put_memory(t, i, size, rip);
        else if (o->place == AT_MMX_RM)
            put(t, "mm%u", i->rm & 7);
        else
            put_vector(t, i, i->rm, size);
        break;
    case AT_VEC_REG:
        put_vector(t, i, i->reg, size);
        break;
    case AT_VEC_VVVV:
        put_vector(t, i, i->vvvv, size);
        break;
    case AT_VEC_IMM:
        put_vector(t, i, (unsigned)i->imm >> 4, size);
        break;
    case AT_ST0:
        put(t, "st");
        break;
    case AT_STI:
        put(t, "st(%u)", i->rm & 7);
        break;
    }
}

/* cbw and cwd have a name for each size; strings carry it as a letter. */
static const char *sized_name(const struct insn *i, const struct insn_row *r, char buf[24])
{
    static const char *const cbw[] = { "cbw", "cwde", "cdqe" }, *const cwd[] = { "cwd", "cdq", "cqo" };
    unsigned n = i->opsize == 8 ? 2 : i->opsize == 4 ? 1 : 0;

    if (!strcmp(r->mnemonic, "cbw"))
        return cbw[n];
    if (!strcmp(r->mnemonic, "cwd"))
        return cwd[n];
    if (!(r->attr & A_STRING) || i->opsize == 1)
        return r->mnemonic;
    snprintf(buf, 24, "%s%c", r->mnemonic, "wdq"[n]);
    return buf;
}

const char *insn_disassemble(const struct insn *i, uint64_t rip, char *buf, size_t size)
{
    struct text t = { buf, size, 0 };
    char name[24];

    if (size == 0)
        return buf;
    buf[0] = '\0';
    if (i->row >= insn_row_count) {
        put(&t, "(bad)");
        return buf;
    }
    const struct insn_row *r = &insn_rows[i->row];
    if (i->lock)
        put(&t, "lock ");
    if ((r->attr & A_REP) && (i->rep || i->repne))
        put(&t, i->rep ? "rep " : "repne ");
    put(&t, "%s", sized_name(i, r, name));
    for (unsigned k = 0; k < 4 && r->operand[k] != NONE; k++) {
        put(&t, k ? ", " : " ");
        put_operand(&t, i, r->operand[k], rip);
    }
    return buf;
}
