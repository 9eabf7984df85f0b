/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The decoder: prefixes, opcode, row, ModRM and SIB, displacement, immediates.
 *
 * Spec      Intel SDM volume 2, chapter 2.
 * Trust     The bytes are the guest's. The first read past the end makes every later one fail, too.
 */
#include "cpu/decode/operand.h"

#include <errno.h>
#include <string.h>

struct decoder {
    const uint8_t *bytes;
    unsigned len, pos;
    int error;             /* of the first read that failed: -EAGAIN or -E2BIG */
    enum insn_mode mode;
    bool real;
    uint8_t rex;           /* WRXB, 0 without; VEX fills it as well */
    uint8_t pfx;           /* enum insn_pfx: the mandatory prefix, if a row asks for one */
    uint8_t seg;           /* override or REG_NONE */
    bool has_rex, adsize_pfx, vex, vex_l;
    uint8_t map, opcode, modrm;
};

#define REX_W 8
#define REX_R 4
#define REX_X 2
#define REX_B 1

static uint64_t get(struct decoder *d, unsigned n)
{
    uint64_t v = 0;

    if (unlikely(d->pos + n > d->len)) {
        if (!d->error)
            d->error = d->pos + n > INSN_MAX_LEN ? -E2BIG : -EAGAIN;
        return 0;
    }
    memcpy(&v, d->bytes + d->pos, n);
    d->pos += n;
    return v;
}

static uint64_t get_signed(struct decoder *d, unsigned n)
{
    unsigned shift = 64 - 8 * n;

    return (uint64_t)((int64_t)(get(d, n) << shift) >> shift);
}

static uint8_t peek(struct decoder *d)
{
    uint8_t v = (uint8_t)get(d, 1);

    if (!d->error)
        d->pos--;
    return v;
}

/* --- prefixes --- */

/* Takes one legacy prefix; false when `b` is none. */
static bool take_prefix(struct decoder *d, struct insn *i, uint8_t b)
{
    static const uint8_t segs[256] = { [0x26] = 1 + SEG_ES, [0x2e] = 1 + SEG_CS, [0x36] = 1 + SEG_SS,
                                       [0x3e] = 1 + SEG_DS, [0x64] = 1 + SEG_FS, [0x65] = 1 + SEG_GS };

    if (segs[b]) {
        if (d->mode != INSN_64 || b >= 0x64)
            d->seg = segs[b] - 1;
    } else if (b == 0x66) {
        i->opsize_pfx = 1;
    } else if (b == 0x67) {
        d->adsize_pfx = true;
    } else if (b == 0xf0) {
        i->lock = 1;
    } else if ((b & 0xfe) == 0xf2) {
        i->rep = b & 1;
        i->repne = !(b & 1);
    } else {
        return false;
    }
    return true;
}

/* Reads prefixes and returns the first opcode byte. A REX counts only right before the opcode. */
static uint8_t read_prefixes(struct decoder *d, struct insn *i)
{
    for (;;) {
        uint8_t b = (uint8_t)get(d, 1);
        if (d->error)
            return 0;
        if (d->mode == INSN_64 && (b & 0xf0) == 0x40) {
            d->rex = b & 15;
            d->has_rex = true;
        } else if (take_prefix(d, i, b)) {
            d->rex = 0;
            d->has_rex = false;
        } else {
            return b;
        }
    }
}

/* --- opcode --- */

static int read_vex(struct decoder *d, struct insn *i, uint8_t first)
{
    uint8_t b = (uint8_t)get(d, 1), last;

    if (i->lock || i->rep || i->repne || i->opsize_pfx || d->has_rex)
        return -EILSEQ;
    d->rex = b & 0x80 ? 0 : REX_R;
    d->map = M0F;
    last = b;
    if (first == 0xc4) {
        d->rex = (~b >> 5) & 7;
        if ((b & 31) < 1 || (b & 31) > 3)
            return d->error ? d->error : -EILSEQ;
        d->map = b & 31;
        last = (uint8_t)get(d, 1);
        if (last & 0x80)
            d->rex |= REX_W;
    }
    i->vvvv = (~last >> 3) & 15;
    if (d->mode != INSN_64) {
        d->rex &= REX_W;
        i->vvvv &= 7;
    }
    d->vex = true;
    d->vex_l = last & 4;
    d->pfx = (const uint8_t[]){ PFX_NP, PFX_66, PFX_F3, PFX_F2 }[last & 3];
    d->opcode = (uint8_t)get(d, 1);
    return d->error;
}

static int read_opcode(struct decoder *d, struct insn *i)
{
    uint8_t b = read_prefixes(d, i);

    if (d->error)
        return d->error;
    if ((b & 0xfe) == 0xc4) {
        uint8_t next = peek(d);
        if (d->error)
            return d->error;
        if (d->mode == INSN_64 || (next >= 0xc0 && !d->real))
            return read_vex(d, i, b);
    }
    d->map = M1;
    if (b == 0x0f) {
        b = (uint8_t)get(d, 1);
        d->map = M0F;
        if (b == 0x38 || b == 0x3a) {
            d->map = b == 0x38 ? M0F38 : M0F3A;
            b = (uint8_t)get(d, 1);
        }
    }
    d->opcode = b;
    d->pfx = i->rep ? PFX_F3 : i->repne ? PFX_F2 : i->opsize_pfx ? PFX_66 : PFX_NP;
    return d->error;
}

/* --- row --- */

static bool vex_fits(const struct decoder *d, uint8_t vex)
{
    if (vex == LEGACY)
        return true;
    unsigned l = (vex - VEX_LIG_WIG) / 3, w = (vex - VEX_LIG_WIG) % 3;
    if (l == 1 || l == 2) /* L0, L1 */
        if (d->vex_l != (l == 2))
            return false;
    return w == 0 || (w == 2) == !!(d->rex & REX_W);
}

static bool reg_fits(const struct decoder *d, const struct insn_row *r)
{
    if (r->reg == REG_ANY)
        return true;
    if (r->mod == MOD_NONE)
        return ((d->opcode & 7) | (d->rex & REX_B) << 3) == r->reg;
    if (r->reg & 0x40)
        return d->modrm >= 0xc0 && (d->modrm & 0x3f) == (r->reg & 0x3f);
    return ((d->modrm >> 3) & 7) == r->reg;
}

static bool row_fits(const struct decoder *d, const struct insn_row *r)
{
    if (r->pfx != PFX_ANY && r->pfx != d->pfx)
        return false;
    if ((r->mod == MOD_MEM && d->modrm >= 0xc0) || (r->mod == MOD_REG && d->modrm < 0xc0))
        return false;
    if (r->attr & (A_NO64 | A_ONLY64 | A_NOREAL)) {
        if ((r->attr & (d->mode == INSN_64 ? A_NO64 : A_ONLY64)) || ((r->attr & A_NOREAL) && d->real))
            return false;
    }
    return reg_fits(d, r) && vex_fits(d, r->vex);
}

static int find_row(struct decoder *d, struct insn *i)
{
    const struct insn_slot *s = insn_slot_of(d->vex, d->map, d->opcode);
    const uint16_t *rows = insn_slot_rows(s);

    if (s->modrm)
        d->modrm = peek(d);
    if (d->error)
        return d->error;
    for (unsigned k = 0; k < s->count; k++) {
        if (row_fits(d, &insn_rows[rows[k]])) {
            i->row = rows[k];
            return 0;
        }
    }
    return -EILSEQ;
}

/* --- sizes --- */

static uint8_t size_v(const struct decoder *d, const struct insn *i, const struct insn_row *r)
{
    bool pfx = i->opsize_pfx && r->pfx != PFX_66;

    if (d->mode == INSN_64) {
        if ((d->rex & REX_W) || (r->attr & A_F64))
            return 8;
        if (pfx)
            return 2;
        return r->attr & A_D64 ? 8 : 4;
    }
    return (d->mode == INSN_32) != pfx ? 4 : 2;
}

/* By the first operand that has a size of its own. */
static void set_opsize(const struct decoder *d, struct insn *i, const struct insn_row *r)
{
    uint8_t v = size_v(d, i, r);

    i->opsize = v;
    for (unsigned k = 0; k < 4 && r->operand[k] != NONE; k++) {
        const struct operand_info *o = &operand_infos[r->operand[k]];
        if (o->place >= AT_IMM && o->place <= AT_IMM_FAR)
            continue;
        switch (o->size) {
        case SIZE_V:
            return;
        case SIZE_Z:
            i->opsize = v == 8 ? 4 : v;
            return;
        case SIZE_Y:
            i->opsize = d->mode == INSN_64 && (d->rex & REX_W) ? 8 : 4;
            return;
        case 1: case 4: case 8:
            i->opsize = o->size;
            return;
        }
    }
}

static uint8_t address_size(const struct decoder *d)
{
    if (d->mode == INSN_64)
        return d->adsize_pfx ? 4 : 8;
    return (d->mode == INSN_32) != d->adsize_pfx ? 4 : 2;
}

/* --- ModRM --- */

static void read_disp(struct decoder *d, struct insn *i, unsigned size)
{
    if (size)
        i->disp = (int32_t)get_signed(d, size);
}

static void memory_16(struct decoder *d, struct insn *i)
{
    enum { BX = 3, BP = 5, SI = 6, DI = 7 };
    static const uint8_t bases[8] = { BX, BX, BP, BP, SI, DI, BP, BX };
    static const uint8_t indexes[4] = { SI, DI, SI, DI };
    unsigned mod = d->modrm >> 6, rm = d->modrm & 7;

    if (mod == 0 && rm == 6) {
        read_disp(d, i, 2);
        return;
    }
    i->base = bases[rm];
    if (rm < 4)
        i->index = indexes[rm];
    if (i->base == BP)
        i->seg = SEG_SS;
    read_disp(d, i, mod);
}

static void memory_32(struct decoder *d, struct insn *i, bool vsib)
{
    unsigned mod = d->modrm >> 6, rm = d->modrm & 7;
    unsigned disp = mod == 1 ? 1 : mod == 2 ? 4 : 0;

    if (rm == 4) {
        uint8_t sib = (uint8_t)get(d, 1);
        unsigned index = ((sib >> 3) & 7) | (d->rex & REX_X) << 2;
        i->scale = sib >> 6;
        if (index != 4 || vsib)
            i->index = (uint8_t)index;
        rm = sib & 7;
        if (rm == 5 && mod == 0) {
            read_disp(d, i, 4);
            return;
        }
    } else if (rm == 5 && mod == 0) {
        if (d->mode == INSN_64)
            i->base = BASE_RIP;
        read_disp(d, i, 4);
        return;
    }
    i->base = (uint8_t)(rm | (d->rex & REX_B) << 3);
    if (i->base == 4 || i->base == 5)
        i->seg = SEG_SS;
    read_disp(d, i, disp);
}

static void read_modrm(struct decoder *d, struct insn *i, const struct insn_row *r)
{
    bool special = r->operand[0] == Cy || r->operand[0] == Dy || r->operand[1] == Cy || r->operand[1] == Dy;

    get(d, 1);
    i->reg = ((d->modrm >> 3) & 7) | (d->rex & REX_R) << 1;
    i->rm = (d->modrm & 7) | (d->rex & REX_B) << 3;
    if (d->modrm >= 0xc0 || special)
        return;
    i->mem = 1;
    if (i->adsize == 2)
        memory_16(d, i);
    else
        memory_32(d, i, r->operand[0] == Mvs || r->operand[1] == Mvs || r->operand[2] == Mvs);
}

/* --- immediates --- */

static void read_operand(struct decoder *d, struct insn *i, uint8_t kind, unsigned *imms)
{
    unsigned z = i->opsize == 2 ? 2 : 4;

    switch (kind) {
    case Ib: case Lx:
        if ((*imms)++)
            i->imm2 = (uint8_t)get(d, 1);
        else
            i->imm = get(d, 1);
        break;
    case Ibs: case Jb:
        i->imm = get_signed(d, 1);
        break;
    case Iw:
        i->imm = get(d, 2);
        (*imms)++;
        break;
    case Id:
        i->imm = get_signed(d, 4);
        break;
    case Iz: case Jz:
        i->imm = get_signed(d, z);
        break;
    case Iv:
        i->imm = get_signed(d, i->opsize);
        break;
    case Ap:
        i->imm = get(d, z);
        i->sel = (uint16_t)get(d, 2);
        break;
    case Ob: case Ov:
        i->imm = get(d, i->adsize);
        i->disp = (int32_t)i->imm;
        i->mem = 1;
        break;
    case Zb: case Zv:
        i->reg = i->rm = (d->opcode & 7) | (d->rex & REX_B) << 3;
        break;
    }
}

/* A row whose operands do not name VEX.vvvv wants it unused. */
static bool vvvv_fits(const struct insn *i, const struct insn_row *r)
{
    for (unsigned k = 0; k < 4; k++) {
        uint8_t place = operand_infos[r->operand[k]].place;
        if (place == AT_VEC_VVVV || place == AT_VVVV)
            return true;
    }
    return i->vvvv == 0; /* stored inverted: 1111b */
}

static int decode_operands(struct decoder *d, struct insn *i)
{
    const struct insn_row *r = &insn_rows[i->row];
    unsigned imms = 0;

    set_opsize(d, i, r);
    i->adsize = address_size(d);
    i->rex = d->has_rex;
    i->rex_w = !!(d->rex & REX_W);
    if (d->vex)
        i->vl = d->vex_l ? 32 : 16;
    if (r->mod != MOD_NONE)
        read_modrm(d, i, r);
    for (unsigned k = 0; k < 4 && r->operand[k] != NONE; k++)
        read_operand(d, i, r->operand[k], &imms);
    if (d->seg != REG_NONE)
        i->seg = d->seg;
    if (d->error)
        return d->error;
    if (i->lock && !((r->attr & A_LOCK) && i->mem))
        return -EILSEQ;
    if (d->vex && !vvvv_fits(i, r))
        return -EILSEQ;
    return 0;
}

int insn_decode(const uint8_t *bytes, size_t len, enum insn_mode mode, bool real, struct insn *ret)
{
    struct decoder d = {
        .bytes = bytes, .len = len > INSN_MAX_LEN ? INSN_MAX_LEN : (unsigned)len,
        .mode = mode, .real = real, .seg = REG_NONE,
    };

    *ret = (struct insn){ .base = REG_NONE, .index = REG_NONE, .seg = SEG_DS, .mode64 = mode == INSN_64 };
    int err = read_opcode(&d, ret);
    if (!err)
        err = find_row(&d, ret);
    if (!err)
        err = decode_operands(&d, ret);
    ret->len = (uint8_t)d.pos;
    return err;
}
