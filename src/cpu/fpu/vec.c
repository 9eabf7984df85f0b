/* SPDX-License-Identifier: GPL-2.0-or-later */
/* MMX, SSE and AVX instructions that one stub serves: registers by pointer, memory checked and redirected.
 *
 * Floating-point exceptions: stubs run with all exceptions masked. When the guest has all masked and default
 * control bits, its MXCSR is used in place and the sticky flags gather there. Otherwise the instruction
 * runs on cleared flags with a copy, and what it wrote is undone when a flag came up that the guest has
 * unmasked (#XM).
 *
 * Spec      Intel SDM volume 1, 11.5 and 11.6; volume 2, 2.4 (exception classes).
 * Thread    The vCPU's own.
 */
#include "cpu/exec/handlers.h"
#include "cpu/fpu/emit.h"
#include "cpu/fpu/fpu.h"
#include "cpu/fpu/stub.h"

/* insn->aux of a bound instruction. */
#define AUX_SIZE 7u          /* log2 of the memory operand's bytes */
#define AUX_ALIGN (1u << 3)  /* it must be aligned */
#define AUX_STORE (1u << 4)  /* the memory operand is written */
#define AUX_MMX (1u << 5)
#define AUX_GPR_IN (1u << 6)
#define AUX_GPR_REG (1u << 7) /* the answer goes to the register of ModRM.reg */
#define AUX_GPR_RM (1u << 8)  /* ... of ModRM.rm */
#define AUX_FLAGS (1u << 9)   /* the answer is flags */
#define AUX_FLOAT (1u << 10)
#define AUX_XMM0 (1u << 11)   /* the fourth pointer is XMM0's */
#define AUX_SLOT_SHIFT 12

_Static_assert(STUB_ARENA_BYTES / STUB_GRAIN <= 1u << (32 - AUX_SLOT_SHIFT), "slots fit in aux");

static inline stub_fn *stub_of(const struct insn *i)
{
    return stub_at(i->aux >> AUX_SLOT_SHIFT);
}

static inline unsigned mem_bytes(const struct insn *i)
{
    return 1u << (i->aux & AUX_SIZE);
}

/* Host address of the memory operand to read; the scratch area where it is not plain RAM. */
static inline int vec_source(struct cpu *c, const struct insn *i, uint8_t **ret)
{
    unsigned size = mem_bytes(i);
    uint64_t lin;

    if (unlikely(exec_linear(c, i, size, false, &lin)))
        return X_FAULT;
    if (unlikely((i->aux & AUX_ALIGN) && (lin & (size - 1))))
        return cpu_raise_error(c, EXC_GP, 0);
    if (unlikely(mmu_host(c, lin, size, ACCESS_READ, ret)))
        return X_FAULT;
    if (likely(*ret))
        return 0;
    *ret = c->scratch;
    if (mmu_read_slow(c, lin, size, c->scratch))
        return X_FAULT;
    return i->aux & AUX_MMX ? fpu_enter(c) : 0; /* a device may have parked us */
}

/* As vec_source() for a write: after the stub ran, vec_commit() brings the scratch area to its place. */
static inline int vec_target(struct cpu *c, const struct insn *i, uint8_t **ret, uint64_t *ret_lin)
{
    unsigned size = mem_bytes(i);

    if (unlikely(exec_linear(c, i, size, true, ret_lin)))
        return X_FAULT;
    if (unlikely((i->aux & AUX_ALIGN) && (*ret_lin & (size - 1))))
        return cpu_raise_error(c, EXC_GP, 0);
    if (unlikely(mmu_host(c, *ret_lin, size, ACCESS_WRITE, ret)))
        return X_FAULT;
    if (likely(*ret))
        return 0;
    *ret = c->scratch;
    return mmu_probe(c, *ret_lin, size, ACCESS_WRITE);
}

static inline int vec_commit(struct cpu *c, const struct insn *i, const uint8_t *to, uint64_t lin)
{
    if (likely(to != c->scratch))
        return 0;
    return mmu_write_slow(c, lin, mem_bytes(i), c->scratch);
}

/* --- floating point under unusual MXCSR --- */

struct undo {
    uint8_t low[2][16], high[2][16];
};

static void undo_save(struct cpu *c, const struct insn *i, struct undo *u)
{
    const unsigned n[2] = { i->reg, i->mem ? i->reg : i->rm };

    for (unsigned k = 0; k < 2; k++) {
        memcpy(u->low[k], fpu_xmm(c, n[k] & 15), 16);
        memcpy(u->high[k], fpu_xmm(c, n[k] & 15) + XS_YMM - XS_XMM, 16);
    }
}

static void undo_restore(struct cpu *c, const struct insn *i, const struct undo *u)
{
    const unsigned n[2] = { i->reg, i->mem ? i->reg : i->rm };

    for (unsigned k = 0; k < 2; k++) {
        memcpy(fpu_xmm(c, n[k] & 15), u->low[k], 16);
        memcpy(fpu_xmm(c, n[k] & 15) + XS_YMM - XS_XMM, u->high[k], 16);
    }
}

/* Entering MMX state (top 0, all registers in use) stands even when the instruction faults: only the
 * destination gets its old value back. `before`: the legacy region as it was. */
static void undo_mmx(struct cpu *c, unsigned mm, const uint8_t *before)
{
    unsigned top = before[XS_FSW + 1] >> 3 & 7;

    fpu_park(c);
    memcpy(c->xsave + XS_ST + 16 * mm, before + XS_ST + 16 * ((mm - top) & 7), 16);
}

static void mxcsr_host_default(void)
{
    uint32_t host = MXCSR_DEFAULT;

    __asm__ volatile("ldmxcsr %0" : : "m"(host));
}

#define MXCSR_UE 0x0010u
#define MXCSR_UM 0x0800u
#define MXCSR_FZ 0x8000u
#define MXCSR_PRE 0x07u /* invalid, denormal, divide by zero: found before anything is computed */

/* VCVTPS2PH never flushes to zero. */
static bool is_to_half(const struct insn *i)
{
    const struct insn_row *row = &insn_rows[i->row];

    return row->attr >> 24 == F_F16C && row->map == M0F3A;
}

static bool has_tiny_half(const uint8_t *v, unsigned bytes)
{
    for (unsigned k = 0; k < bytes; k += 2)
        if (!(v[k + 1] & 0x7c) && (v[k] || (v[k + 1] & 3)))
            return true;
    return false;
}

/* Unmasked, underflow means a tiny result, exact or not, and nothing is flushed to zero; masked, it means
 * tiny and inexact. Flushing tells tiny results apart: it flags each. The registers written are garbage after. */
static uint32_t float_is_tiny(struct cpu *c, const struct insn *i, uint8_t *rm, uint64_t gpr, uint32_t run)
{
    uint8_t stored[32]; /* a memory destination is not to be touched; rm is scratch then */

    if (i->aux & AUX_STORE)
        rm = stored;
    run |= MXCSR_FZ;
    stub_of(i)(fpu_xmm(c, i->reg), rm, fpu_xmm(c, i->vvvv), c->scratch, gpr, &run);
    if (is_to_half(i) && has_tiny_half(rm, i->vl / 2))
        run |= MXCSR_UE;
    return run & MXCSR_UE;
}

/* Runs the stub with the guest's control bits on a copy. 0, or X_FAULT (#XM, or #UD without OSXMMEXCPT) with
 * registers as before. */
static __attribute__((noinline)) int vec_float_slow(struct cpu *c, const struct insn *i, uint8_t *rm,
                                                    uint64_t gpr, uint64_t *ret_out)
{
    uint32_t guest = *fpu_mxcsr(c);
    uint32_t run = (guest & fpu_mxcsr_mask() & ~FPU_EXCEPTIONS) | MXCSR_MASKS;
    struct undo undo;

    undo_save(c, i, &undo);
    uint32_t tiny = 0;
    if (!(guest & MXCSR_UM) && !(i->aux & AUX_MMX)) {
        tiny = float_is_tiny(c, i, rm, gpr, run);
        undo_restore(c, i, &undo);
        run &= ~MXCSR_FZ;
    }
    if (i->aux & AUX_MMX)
        fpu_park(c);
    uint8_t mmx[XS_XMM];
    memcpy(mmx, c->xsave, sizeof(mmx));
    if (i->aux & AUX_MMX)
        fpu_load_slow(c);
    uint64_t out = stub_of(i)(fpu_xmm(c, i->reg), rm, fpu_xmm(c, i->vvvv), c->scratch, gpr, &run);
    mxcsr_host_default();
    uint32_t raised = (run & FPU_EXCEPTIONS) | tiny;
    uint32_t unmasked = raised & ~(guest >> 7);
    if (unmasked & MXCSR_PRE)
        raised &= MXCSR_PRE;
    *fpu_mxcsr(c) = guest | raised;
    if (!unmasked) {
        *ret_out = out;
        return 0;
    }
    undo_restore(c, i, &undo);
    if ((i->aux & AUX_MMX) && insn_rows[i->row].operand[0] == Pq)
        undo_mmx(c, i->reg & 7, mmx);
    return cpu_raise(c, c->cr4 & (1u << 10) ? EXC_XM : EXC_UD);
}

/* Flags and control bits that let the guest's MXCSR be loaded as it is and left to C code. */
static inline bool mxcsr_is_plain(struct cpu *c)
{
    return (*fpu_mxcsr(c) & ~FPU_EXCEPTIONS) == MXCSR_DEFAULT;
}

static inline int vec_stub(struct cpu *c, const struct insn *i, unsigned f, uint8_t *rm, uint64_t gpr,
                           uint64_t *ret_out)
{
    if ((f & AUX_FLOAT) && unlikely(!mxcsr_is_plain(c)))
        return vec_float_slow(c, i, rm, gpr, ret_out);
    unsigned fourth = f & AUX_XMM0 ? 0 : (unsigned)i->imm >> 4 & 15;
    *ret_out = stub_of(i)(fpu_xmm(c, i->reg), rm, fpu_xmm(c, i->vvvv), fpu_xmm(c, fourth), gpr,
                          fpu_mxcsr(c));
    return 0;
}

/* One body, instantiated for the common shapes with constant `f`. */
static inline __attribute__((always_inline)) int vec_run(struct cpu *c, const struct insn *i, unsigned f,
                                                         bool mem)
{
    uint8_t *rm = fpu_xmm(c, i->rm & 15);
    uint64_t lin = 0, out, gpr = 0;

    if ((f & AUX_MMX) && fpu_enter(c))
        return X_FAULT;
    if (mem && !(f & AUX_STORE) && vec_source(c, i, &rm))
        return X_FAULT;
    if (mem && (f & AUX_STORE)) {
        if (vec_target(c, i, &rm, &lin))
            return X_FAULT;
        if (f & AUX_FLOAT)
            rm = c->scratch + 64; /* nothing may be stored before exceptions are known */
    }
    if (f & AUX_GPR_IN)
        gpr = c->gpr[i->rm & 15];
    if (vec_stub(c, i, f, rm, gpr, &out))
        return X_FAULT;
    if (f & AUX_FLAGS)
        c->flags_ax = (uint16_t)out;
    if (f & AUX_GPR_REG)
        c->gpr[i->reg] = out;
    if (f & AUX_GPR_RM)
        c->gpr[i->rm] = out;
    if (!mem || !(f & AUX_STORE))
        return X_NEXT;
    return f & AUX_FLOAT ? mmu_write_slow(c, lin, mem_bytes(i), rm) : vec_commit(c, i, rm, lin);
}

static int vec_rr(struct cpu *c, const struct insn *i)
{
    return vec_run(c, i, 0, false);
}

static int vec_rm(struct cpu *c, const struct insn *i)
{
    return vec_run(c, i, 0, true);
}

static int vec_mr(struct cpu *c, const struct insn *i)
{
    return vec_run(c, i, AUX_STORE, true);
}

static int vec_float_rr(struct cpu *c, const struct insn *i)
{
    return vec_run(c, i, AUX_FLOAT, false);
}

static int vec_float_rm(struct cpu *c, const struct insn *i)
{
    return vec_run(c, i, AUX_FLOAT, true);
}

static int vec_float_flags_rr(struct cpu *c, const struct insn *i)
{
    return vec_run(c, i, AUX_FLOAT | AUX_FLAGS, false);
}

static int vec_to_gpr(struct cpu *c, const struct insn *i)
{
    return vec_run(c, i, AUX_GPR_REG, false);
}

static int vec_mmx_rr(struct cpu *c, const struct insn *i)
{
    return vec_run(c, i, AUX_MMX, false);
}

static int vec_mmx_rm(struct cpu *c, const struct insn *i)
{
    return vec_run(c, i, AUX_MMX, true);
}

static int vec_any(struct cpu *c, const struct insn *i)
{
    return vec_run(c, i, i->aux, i->mem);
}

static const struct {
    uint32_t shape;
    bool mem;
    exec_fn *fn;
} vec_shapes[] = {
    { 0, false, vec_rr },
    { 0, true, vec_rm },
    { AUX_STORE, true, vec_mr },
    { AUX_FLOAT, false, vec_float_rr },
    { AUX_FLOAT, true, vec_float_rm },
    { AUX_FLOAT | AUX_FLAGS, false, vec_float_flags_rr },
    { AUX_GPR_REG, false, vec_to_gpr },
    { AUX_MMX, false, vec_mmx_rr },
    { AUX_MMX, true, vec_mmx_rm },
};

#define AUX_SHAPE                                                                                  \
    (AUX_STORE | AUX_MMX | AUX_GPR_IN | AUX_GPR_REG | AUX_GPR_RM | AUX_FLAGS | AUX_FLOAT | AUX_XMM0)

static uint32_t shape_of(const struct insn *i)
{
    const struct insn_row *row = &insn_rows[i->row];
    uint32_t aux = 0;

    aux |= row->attr & A_MMX ? AUX_MMX : 0;
    aux |= row->attr & A_FLOAT ? AUX_FLOAT : 0;
    aux |= i->mem && (row->attr & A_ALIGN) ? AUX_ALIGN : 0;
    aux |= row->flags_w ? AUX_FLAGS : 0;
    for (unsigned k = 0; k < ARRAY_COUNT(row->operand); k++) {
        const struct operand_info *o = &operand_info[row->operand[k]];

        if (o->field == OF_XMM0)
            aux |= AUX_XMM0;
        if (o->field == OF_RM && i->mem)
            aux |= k == 0 && !row->flags_w ? AUX_STORE : 0;
        else if (o->class == OC_GPR)
            aux |= k > 0 ? AUX_GPR_IN : o->field == OF_REG ? AUX_GPR_REG : AUX_GPR_RM;
    }
    return aux;
}

static unsigned log2_of(unsigned bytes)
{
    return 31 - (unsigned)__builtin_clz(bytes);
}

void vec_bind(struct cpu *c, struct insn *i)
{
    if (insn_rows[i->row].attr >> 24 == F_SSE4A) { /* bit field length and index: six bits count */
        i->imm &= 0x3f;
        i->imm2 &= 0x3f;
    }
    uint32_t slot = emit_stub(i);
    if (!slot) {
        i->fn = x_vec;
        return;
    }
    i->aux = shape_of(i) | slot << AUX_SLOT_SHIFT;
    if (!i->mode64 && insn_rows[i->row].operand[3] == Lx) /* a register number of three bits there */
        i->imm &= 0x7f;
    if (i->mem)
        i->aux |= log2_of(operand_mem_bytes(i));
    if (i->fn != x_vec)
        return;
    i->fn = vec_any;
    for (unsigned k = 0; k < ARRAY_COUNT(vec_shapes); k++)
        if (vec_shapes[k].shape == (i->aux & AUX_SHAPE) && vec_shapes[k].mem == i->mem)
            i->fn = vec_shapes[k].fn;
}

/* Not bound: the store of stubs is full. */
int x_vec(struct cpu *c, const struct insn *i)
{
    return fpu_no_stub(c);
}

/* --- SSE4.2 string compares --- */

int x_pcmpstr(struct cpu *c, const struct insn *i)
{
    uint8_t *rm = fpu_xmm(c, i->rm & 15);

    if (i->mem && vec_source(c, i, &rm))
        return X_FAULT;
    c->flags_ax = (uint16_t)stub_of(i)(fpu_xmm(c, i->reg), rm, NULL, fpu_xmm(c, 0),
                                       (uint64_t)(uintptr_t)c->gpr, NULL);
    return X_NEXT;
}

/* --- AVX masked moves: masked-out elements are not accessed and do not fault --- */

static unsigned mask_element(const struct insn *i)
{
    const struct insn_row *row = &insn_rows[i->row];

    if (row->opcode >= 0x8c)
        return i->rex_w ? 8 : 4;
    return row->opcode & 1 ? 8 : 4;
}

/* A bit per element whose sign is set in vector register n. */
static unsigned mask_bits(struct cpu *c, unsigned n, unsigned element, unsigned count)
{
    unsigned bits = 0;

    for (unsigned k = 0; k < count; k++) {
        unsigned last = (k + 1) * element - 1;
        const uint8_t *half = fpu_xmm(c, n) + (last >= 16 ? XS_YMM - XS_XMM : 0);
        bits |= (unsigned)(half[last & 15] >> 7) << k;
    }
    return bits;
}

static int masked_linear(struct cpu *c, const struct insn *i, unsigned k, bool write, uint64_t *ret_lin)
{
    unsigned element = mask_element(i);
    uint64_t off = exec_offset(c, i) + k * element;

    /* In a segment with a limit the offset wraps; in 64-bit mode the elements follow the first one's
     * linear address, whatever the address size. */
    if (!(c->mode & MODE_CODE64))
        off = i->adsize == 2 ? (uint16_t)off : (uint32_t)off;
    return seg_linear(c, i->seg, off, element, write, ret_lin);
}

int x_vmaskload(struct cpu *c, const struct insn *i)
{
    unsigned element = mask_element(i), count = i->vl / element;
    unsigned bits = mask_bits(c, i->vvvv, element, count);

    memset(c->scratch, 0, 32);
    for (unsigned k = 0; k < count; k++) {
        uint64_t lin;
        if (!(bits >> k & 1))
            continue;
        if (masked_linear(c, i, k, false, &lin) ||
            fpu_read_element(c, lin, element, c->scratch + k * element))
            return X_FAULT;
    }
    stub_of(i)(fpu_xmm(c, i->reg), c->scratch, fpu_xmm(c, i->vvvv), NULL, 0, NULL);
    return X_NEXT;
}

int x_vmaskstore(struct cpu *c, const struct insn *i)
{
    unsigned element = mask_element(i), count = i->vl / element;
    unsigned bits = mask_bits(c, i->vvvv, element, count);
    uint64_t lin[8];

    for (unsigned k = 0; k < count; k++)
        if ((bits >> k & 1) && (masked_linear(c, i, k, true, &lin[k]) ||
                                mmu_probe_cpl(c, c->cpl, lin[k], element, ACCESS_WRITE)))
            return X_FAULT;
    for (unsigned k = 0; k < count; k++) {
        unsigned at = k * element;
        const uint8_t *half = fpu_xmm(c, i->reg) + (at >= 16 ? XS_YMM - XS_XMM : 0);
        if ((bits >> k & 1) && mmu_write_cpl(c, c->cpl, lin[k], element, half + (at & 15)))
            return X_FAULT;
    }
    return X_NEXT;
}
