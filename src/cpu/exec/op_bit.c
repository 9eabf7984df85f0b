/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bit tests, scans and counts, BMI1, BMI2, ADX, CRC32.
 *
 * Spec      Intel SDM volume 2. A bit offset in a register reaches memory beyond the operand.
 */
#include "cpu/exec/alu.h"
#include "cpu/exec/handlers.h"
#include "cpu/exec/operand.h"
#include "cpu/shared.h"

/* --- bt, bts, btr, btc --- */

/* Linear address of the word that holds bit `bit` (signed) from the operand's. */
static int bit_linear(struct cpu *c, const struct insn *i, int64_t bit, bool write, uint64_t *ret)
{
    unsigned bits = 8 * i->opsize;
    int64_t word = bit >> __builtin_ctz(bits);
    uint64_t off = (exec_offset(c, i) + (uint64_t)word * i->opsize) & size_mask(i->adsize);

    return exec_linear_at(c, i->seg, off, i->opsize, write, ret);
}

static int bit_memory(struct cpu *c, const struct insn *i, alu_binary_fn *fn, uint64_t lin,
                      uint64_t bit)
{
    uint16_t flags;
    uint64_t v;
    struct rmw m;

    if (rmw_begin_at(c, i, lin, i->opsize, &m))
        return X_FAULT;
    do {
        flags = c->flags_ax;
        v = fn(i->opsize, m.old, bit, &flags);
    } while (!rmw_commit(c, i, &m, v));
    if (!m.status)
        c->flags_ax = flags;
    return m.status;
}

/* `imm`: the offset is taken modulo the operand's bits. */
static int bit_op(struct cpu *c, const struct insn *i, alu_binary_fn *fn, uint64_t bit, bool imm)
{
    bool write = fn != alu_bt;
    uint64_t lin, v;

    bit = imm ? bit & (8 * i->opsize - 1) : sign_extend(bit, i->opsize);
    if (!i->mem) {
        v = fn(i->opsize, c->gpr[i->rm], bit & (8 * i->opsize - 1), &c->flags_ax);
        if (write)
            reg_set(c, i->rm, i->opsize, v);
        return X_NEXT;
    }
    if (bit_linear(c, i, (int64_t)bit, write, &lin))
        return X_FAULT;
    bit &= 8 * i->opsize - 1;
    if (write)
        return bit_memory(c, i, fn, lin, bit);
    if (op_load(c, lin, i->opsize, &v))
        return X_FAULT;
    fn(i->opsize, v, bit, &c->flags_ax);
    return X_NEXT;
}

#define BIT_HANDLERS(name)                                                                         \
    int x_##name##_EG(struct cpu *c, const struct insn *i)                                          \
    {                                                                                              \
        return bit_op(c, i, alu_##name, c->gpr[i->reg], false);                                    \
    }                                                                                              \
    int x_##name##_EI(struct cpu *c, const struct insn *i)                                          \
    {                                                                                              \
        return bit_op(c, i, alu_##name, i->imm, true);                                             \
    }
BIT_HANDLERS(bt)
BIT_HANDLERS(bts)
BIT_HANDLERS(btr)
BIT_HANDLERS(btc)

/* --- scans and counts --- */

static int bit_scan(struct cpu *c, const struct insn *i, alu_binary_fn *fn)
{
    uint64_t v, r;

    if (op_rm(c, i, i->opsize, &v))
        return X_FAULT;
    r = fn(i->opsize, c->gpr[i->reg], v, &c->flags_ax);
    c->gpr[i->reg] = r;
    return X_NEXT;
}

int x_bsf(struct cpu *c, const struct insn *i)
{
    return bit_scan(c, i, alu_bsf);
}

int x_bsr(struct cpu *c, const struct insn *i)
{
    return bit_scan(c, i, alu_bsr);
}

/* Result `n` of a source with `bits` bits; ZF: the result is 0; CF: the source was. */
static int count_result(struct cpu *c, const struct insn *i, uint64_t n, bool zero)
{
    reg_set(c, i->reg, i->opsize, n);
    c->flags_ax = (uint16_t)((n == 0 ? FLAG_ZF << 8 : 0) | (zero ? FLAG_CF << 8 : 0));
    return X_NEXT;
}

int x_tzcnt(struct cpu *c, const struct insn *i)
{
    uint64_t v;

    if (!cpu_has(c, F_BMI1))
        return x_bsf(c, i);
    if (op_rm(c, i, i->opsize, &v))
        return X_FAULT;
    return count_result(c, i, v ? (unsigned)__builtin_ctzll(v) : 8u * i->opsize, v == 0);
}

int x_lzcnt(struct cpu *c, const struct insn *i)
{
    uint64_t v;

    if (!cpu_has(c, F_LZCNT))
        return x_bsr(c, i);
    if (op_rm(c, i, i->opsize, &v))
        return X_FAULT;
    unsigned n = v ? (unsigned)__builtin_clzll(v) - (64 - 8u * i->opsize) : 8u * i->opsize;
    return count_result(c, i, n, v == 0);
}

int x_popcnt(struct cpu *c, const struct insn *i)
{
    uint64_t v;

    if (op_rm(c, i, i->opsize, &v))
        return X_FAULT;
    return count_result(c, i, (unsigned)__builtin_popcountll(v), false);
}

/* --- CRC32C --- */

static uint32_t crc32c_byte(uint32_t crc, uint8_t byte)
{
    crc ^= byte;
    for (unsigned k = 0; k < 8; k++)
        crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    return crc;
}

static int crc32c(struct cpu *c, const struct insn *i, unsigned size)
{
    uint32_t crc = (uint32_t)c->gpr[i->reg];
    uint64_t v;

    if (op_rm(c, i, size, &v))
        return X_FAULT;
    for (unsigned k = 0; k < size; k++)
        crc = crc32c_byte(crc, (uint8_t)(v >> (8 * k)));
    c->gpr[i->reg] = crc;
    return X_NEXT;
}

int x_crc32_8(struct cpu *c, const struct insn *i)
{
    return crc32c(c, i, 1);
}

int x_crc32_v(struct cpu *c, const struct insn *i)
{
    return crc32c(c, i, i->rex_w ? 8 : i->opsize_pfx != !(c->mode & (MODE_CODE64 | MODE_CODE32)) ? 2 : 4);
}

/* --- ADX --- */

static int add_carry(struct cpu *c, const struct insn *i, uint16_t flag)
{
    uint64_t b, a = c->gpr[i->reg] & size_mask(i->opsize);

    if (op_rm(c, i, i->opsize, &b))
        return X_FAULT;
    unsigned __int128 sum = (unsigned __int128)a + b + !!(c->flags_ax & flag);
    reg_set(c, i->reg, i->opsize, (uint64_t)sum);
    c->flags_ax = (uint16_t)((c->flags_ax & ~flag) | (sum >> (8 * i->opsize) ? flag : 0));
    return X_NEXT;
}

int x_adcx(struct cpu *c, const struct insn *i)
{
    return add_carry(c, i, FLAG_CF << 8);
}

int x_adox(struct cpu *c, const struct insn *i)
{
    return add_carry(c, i, 1);
}

/* --- BMI1, BMI2 --- */

/* ZF and SF of the result, CF as given, OF clear; AF and PF undefined: as the host's AND leaves them. */
static void bmi_flags(struct cpu *c, const struct insn *i, uint64_t r, bool cf)
{
    uint16_t flags = 0;

    alu_test(i->opsize, r, r, &flags);
    c->flags_ax = (uint16_t)((flags & ~((FLAG_CF | FLAG_AF | FLAG_PF) << 8)) | (cf ? FLAG_CF << 8 : 0));
}

int x_andn(struct cpu *c, const struct insn *i)
{
    uint64_t b;

    if (op_rm(c, i, i->opsize, &b))
        return X_FAULT;
    uint64_t r = ~c->gpr[i->vvvv] & b;
    reg_set(c, i->reg, i->opsize, r);
    bmi_flags(c, i, r, false);
    return X_NEXT;
}

enum lowest { LOWEST_RESET, LOWEST_MASK, LOWEST_ISOLATE };

static int lowest_bit(struct cpu *c, const struct insn *i, enum lowest what)
{
    uint64_t v, r;

    if (op_rm(c, i, i->opsize, &v))
        return X_FAULT;
    r = what == LOWEST_RESET ? v & (v - 1) : what == LOWEST_MASK ? v ^ (v - 1) : v & -v;
    reg_set(c, i->vvvv, i->opsize, r);
    bmi_flags(c, i, r, what == LOWEST_ISOLATE ? v != 0 : v == 0);
    return X_NEXT;
}

int x_blsr(struct cpu *c, const struct insn *i)
{
    return lowest_bit(c, i, LOWEST_RESET);
}

int x_blsmsk(struct cpu *c, const struct insn *i)
{
    return lowest_bit(c, i, LOWEST_MASK);
}

int x_blsi(struct cpu *c, const struct insn *i)
{
    return lowest_bit(c, i, LOWEST_ISOLATE);
}

static uint64_t low_bits(unsigned n)
{
    return n >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1;
}

int x_bextr(struct cpu *c, const struct insn *i)
{
    uint8_t start = (uint8_t)c->gpr[i->vvvv], len = (uint8_t)(c->gpr[i->vvvv] >> 8);
    uint64_t v;

    if (op_rm(c, i, i->opsize, &v))
        return X_FAULT;
    v = start < 64 ? (v >> start) & low_bits(len) : 0;
    reg_set(c, i->reg, i->opsize, v);
    bmi_flags(c, i, v, false);
    return X_NEXT;
}

int x_bzhi(struct cpu *c, const struct insn *i)
{
    uint8_t n = (uint8_t)c->gpr[i->vvvv];
    uint64_t v;

    if (op_rm(c, i, i->opsize, &v))
        return X_FAULT;
    v &= low_bits(n);
    reg_set(c, i->reg, i->opsize, v);
    bmi_flags(c, i, v, n >= 8 * i->opsize);
    return X_NEXT;
}

int x_pdep(struct cpu *c, const struct insn *i)
{
    uint64_t src = c->gpr[i->vvvv], mask, r = 0;

    if (op_rm(c, i, i->opsize, &mask))
        return X_FAULT;
    for (; mask; mask &= mask - 1, src >>= 1)
        if (src & 1)
            r |= mask & -mask;
    reg_set(c, i->reg, i->opsize, r);
    return X_NEXT;
}

int x_pext(struct cpu *c, const struct insn *i)
{
    uint64_t src = c->gpr[i->vvvv], mask, r = 0, bit = 1;

    if (op_rm(c, i, i->opsize, &mask))
        return X_FAULT;
    for (; mask; mask &= mask - 1, bit <<= 1)
        if (src & mask & -mask)
            r |= bit;
    reg_set(c, i->reg, i->opsize, r);
    return X_NEXT;
}

int x_mulx(struct cpu *c, const struct insn *i)
{
    uint64_t b;

    if (op_rm(c, i, i->opsize, &b))
        return X_FAULT;
    unsigned __int128 r = (unsigned __int128)(c->gpr[2] & size_mask(i->opsize)) * b;
    reg_set(c, i->vvvv, i->opsize, (uint64_t)r);
    reg_set(c, i->reg, i->opsize, (uint64_t)(r >> (8 * i->opsize)));
    return X_NEXT;
}

int x_rorx(struct cpu *c, const struct insn *i)
{
    unsigned bits = 8 * i->opsize, n = i->imm & (bits - 1);
    uint64_t v;

    if (op_rm(c, i, i->opsize, &v))
        return X_FAULT;
    reg_set(c, i->reg, i->opsize, n ? v >> n | v << (bits - n) : v);
    return X_NEXT;
}

/* shlx, shrx, sarx: no flags, count in VEX.vvvv. */
static int shift_by_reg(struct cpu *c, const struct insn *i, alu_binary_fn *fn)
{
    uint16_t ignored = 0;
    uint64_t v;

    if (op_rm(c, i, i->opsize, &v))
        return X_FAULT;
    reg_set(c, i->reg, i->opsize, fn(i->opsize, v, (uint8_t)c->gpr[i->vvvv], &ignored));
    return X_NEXT;
}

int x_sarx(struct cpu *c, const struct insn *i)
{
    return shift_by_reg(c, i, alu_sar);
}

int x_shlx(struct cpu *c, const struct insn *i)
{
    return shift_by_reg(c, i, alu_shl);
}

int x_shrx(struct cpu *c, const struct insn *i)
{
    return shift_by_reg(c, i, alu_shr);
}
