/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Model-specific registers: one row a register or range, with how it is read and written.
 *
 * Spec      Intel SDM volume 4; AMD APM volume 2, appendix A; Linux
 *           Documentation/virt/kvm/x86/msr.rst.
 * Thread    The vCPU's own.
 * Errors    -1: no such register, or a value that it refuses: #GP.
 *
 * Besides the registers that work there are those that Linux, the BSDs and Windows look at while
 * they boot and that say "nothing here": constants, writes to which are dropped.
 */
#include "cpu/exec/handlers.h"
#include "cpu/fpu/fpu.h"
#include "cpu/sys/internal.h"
#include "cpu/sys/model.h"
#include "cpu/sys/operand.h"

#include <time.h>

#define APIC_BASE_X2APIC (1u << 10)
#define HWCR_MCSTATUS_WR_EN (1u << 18)

enum kind {
    M_CPU,    /* uint64_t member of struct cpu at `arg`, any value */
    M_CPU_CANON, /* the same; non-canonical values are refused */
    M_SYS,    /* uint64_t array member of struct sys_state at `arg`, `count` apart */
    M_CONST,  /* reads as `arg`, writes are dropped */
    M_RO,     /* reads as `arg`, writes are refused */
    M_FN,     /* functions */
};

struct msr_row {
    uint32_t first, last;
    enum kind kind;
    uint64_t arg;
    int (*read)(struct cpu *c, uint32_t msr, uint64_t *ret);
    int (*write)(struct cpu *c, uint32_t msr, uint64_t val);
};

/* --- bases and EFER --- */

static int base_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    *ret = c->seg[msr & 1 ? SEG_GS : SEG_FS].base;
    return 0;
}

static int base_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    if (exec_canonical(val) != val)
        return -1;
    set_seg_base(c, msr & 1 ? SEG_GS : SEG_FS, val);
    return 0;
}

static int efer_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    *ret = c->efer;
    return 0;
}

static int efer_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    uint64_t allowed = EFER_SCE | EFER_LME | EFER_LMA | (model_has(c->shared->model, W_81_EDX, 20) ? EFER_NXE : 0);
    uint64_t changed = val ^ c->efer;
    if (val & ~allowed || (changed & EFER_LME && c->cr0 & CR0_PG))
        return -1;
    c->efer = (val & ~(uint64_t)EFER_LMA) | (c->efer & EFER_LMA);
    if (changed & EFER_NXE)
        mmu_flush_all(c);
    cpu_update_mode(c);
    return 0;
}

static int pat_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    for (unsigned i = 0; i < 64; i += 8) {
        uint8_t t = (uint8_t)(val >> i);
        if (t > 7 || t == 2 || t == 3)
            return -1;
    }
    c->pat = val;
    return 0;
}

static int pat_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    *ret = c->pat;
    return 0;
}

/* --- APIC: registers of the local APIC, by its callbacks --- */

static int apic_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    fpu_park(c);
    return c->cb->apic_msr_read(c->opaque, msr, ret);
}

/* May send an IPI: what other vCPUs asked for comes first. */
static int apic_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    if (msr == 0x1b && val & APIC_BASE_X2APIC && !model_has(c->shared->model, W_1_ECX, 21))
        return -1;
    mmu_poll_flush(c);
    fpu_park(c);
    return c->cb->apic_msr_write(c->opaque, msr, val);
}

/* --- time --- */

static int tsc_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    *ret = cpu_tsc(c);
    return 0;
}

/* A write to the TSC shows in TSC_ADJUST too. */
static int tsc_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    int64_t before = c->tsc_offset;
    cpu_tsc_set(c, val);
    c->sys->tsc_adjust += (uint64_t)(c->tsc_offset - before);
    return 0;
}

static int tsc_adjust_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    *ret = c->sys->tsc_adjust;
    return 0;
}

static int tsc_adjust_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    c->tsc_offset += (int64_t)(val - c->sys->tsc_adjust);
    c->sys->tsc_adjust = val;
    return 0;
}

static int tsc_aux_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    if (val >> 32)
        return -1;
    c->tsc_aux = val;
    return 0;
}

static int tsc_aux_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    *ret = c->tsc_aux;
    return 0;
}

/* KVM's clock pages. Time is the TSC's: nanoseconds since the TSC was 0, TSC_ADJUST taken out. */
struct pv_clock {
    uint32_t version, pad0;
    uint64_t tsc_timestamp, system_time;
    uint32_t mul;
    int8_t shift;
    uint8_t flags, pad[2];
};

struct pv_wall {
    uint32_t version, sec, nsec;
};

#define PV_TSC_STABLE 1


/* mul and shift so that ns = (ticks << shift) * mul >> 32. */
static void pv_scale(uint64_t khz, uint32_t *ret_mul, int8_t *ret_shift)
{
    uint64_t hz = khz * 1000, ns = NS_PER_SEC;
    int shift = 0;
    while (hz > ns * 2 || hz >> 32) {
        hz >>= 1;
        shift--;
    }
    while (hz <= ns) {
        hz <<= 1;
        shift++;
    }
    *ret_mul = (uint32_t)(((unsigned __int128)ns << 32) / hz);
    *ret_shift = (int8_t)shift;
}

static int kvm_system_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    struct pv_clock p = { .version = 2, .tsc_timestamp = c->sys->tsc_adjust, .flags = PV_TSC_STABLE };
    c->sys->kvm_system_time = val;
    if (!(val & 1))
        return 0;
    pv_scale(c->shared->tsc_khz, &p.mul, &p.shift);
    return mmu_phys_write(c, val & ~1ull, &p, sizeof(p));
}

static int kvm_wall_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t ticks = cpu_tsc(c) - c->sys->tsc_adjust;
    int64_t up_ns = (int64_t)((unsigned __int128)ticks * 1000000 / c->shared->tsc_khz);
    int64_t start = now.tv_sec * NS_PER_SEC + now.tv_nsec - up_ns;
    struct pv_wall w = { .version = 2, .sec = (uint32_t)(start / NS_PER_SEC),
                         .nsec = (uint32_t)(start % NS_PER_SEC) };
    c->sys->kvm_wall_clock = val;
    return mmu_phys_write(c, val & ~3ull, &w, sizeof(w));
}

/* --- MTRRs: kept, never obeyed: host memory is what it is --- */

static bool mtrr_type_ok(unsigned t)
{
    return t < 2 || (t >= 4 && t <= 6);
}

static int mtrr_var_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    unsigned n = (msr - 0x200) / 2;
    *ret = msr & 1 ? c->sys->mtrr_mask[n] : c->sys->mtrr_base[n];
    return 0;
}

static int mtrr_var_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    unsigned n = (msr - 0x200) / 2;
    uint64_t reserved = ~c->shared->phys_mask | (msr & 1 ? 0x7ff : 0xf00);
    if (val & reserved || (!(msr & 1) && !mtrr_type_ok(val & 255)))
        return -1;
    *(msr & 1 ? &c->sys->mtrr_mask[n] : &c->sys->mtrr_base[n]) = val;
    return 0;
}

static unsigned mtrr_fixed_index(uint32_t msr)
{
    return msr == 0x250 ? 0 : msr >= 0x268 ? msr - 0x268 + 3 : msr - 0x258 + 1;
}

static int mtrr_fixed_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    *ret = c->sys->mtrr_fixed[mtrr_fixed_index(msr)];
    return 0;
}

static int mtrr_fixed_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    /* AMD keeps RdMem and WrMem in bits 3 and 4 of each byte. */
    for (unsigned i = 0; i < 64; i += 8)
        if (!mtrr_type_ok((val >> i & 255) & (c->shared->amd ? ~0x18u : ~0u)))
            return -1;
    c->sys->mtrr_fixed[mtrr_fixed_index(msr)] = val;
    return 0;
}

static int mtrr_def_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    *ret = c->mtrr_def_type;
    return 0;
}

static int mtrr_def_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    if (val & ~0xcffull || !mtrr_type_ok(val & 255))
        return -1;
    c->mtrr_def_type = val;
    return 0;
}

/* --- machine check --- */

static int mce_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    *ret = c->sys->mce[msr - 0x400];
    return 0;
}

/* Control: all or nothing (Linux leaves bit 0 or 10 clear on some AMD banks). Status: only cleared,
 * but for AMD's HWCR.McStatusWrEn. Address and miscellany hold anything. */
static int mce_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    if (msr % 4 == 0 && val && (val | 1 << 10 | 1) != UINT64_MAX)
        return -1;
    if (msr % 4 == 1 && val && !(c->shared->amd && c->sys->hwcr & HWCR_MCSTATUS_WR_EN))
        return -1;
    c->sys->mce[msr - 0x400] = val;
    return 0;
}

/* --- speculation: there is none, so controls are kept and commands do nothing --- */

static int spec_ctrl_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    if (!model_has(c->shared->model, W_7_EDX, 26) || val & ~7ull)
        return -1;
    c->sys->spec_ctrl = val;
    return 0;
}

static int spec_ctrl_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    *ret = c->sys->spec_ctrl;
    return model_has(c->shared->model, W_7_EDX, 26) ? 0 : -1;
}

static int no_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    return -1;
}

static int command_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    return val & ~1ull ? -1 : 0;
}

/* None of the known flaws: RDCL_NO IBRS_ALL SKIP_L1DFL SSB_NO MDS_NO PSCHANGE_MC_NO TAA_NO SBDR
 * FBSDP PSDP_NO BHI_NO PBRSB_NO GDS_NO RFDS_NO. */
#define ARCH_CAPABILITIES 0x0d10e17bull

static int arch_cap_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    *ret = ARCH_CAPABILITIES;
    return model_has(c->shared->model, W_7_EDX, 29) ? 0 : -1;
}

static int no_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    return -1;
}

static int platform_info_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    uint64_t ratio = c->shared->tsc_khz / 100000 & 255;
    *ret = ratio << 40 | ratio << 8;
    return 0;
}

static int feature_control_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    *ret = c->sys->feature_control;
    return 0;
}

static int xss_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    return val || !model_has(c->shared->model, W_D1_EAX, 3) ? -1 : 0;
}

static int xss_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    *ret = 0;
    return model_has(c->shared->model, W_D1_EAX, 3) ? 0 : -1;
}

#define CPU(n, member) { n, n, M_CPU, offsetof(struct cpu, member), NULL, NULL }
#define CANON(n, member) { n, n, M_CPU_CANON, offsetof(struct cpu, member), NULL, NULL }
#define SYSM(n, member) { n, n, M_SYS, offsetof(struct sys_state, member), NULL, NULL }
#define CONST(first, last, v) { first, last, M_CONST, v, NULL, NULL }
#define RO(first, last, v) { first, last, M_RO, v, NULL, NULL }
#define FN(first, last, r, w) { first, last, M_FN, 0, r, w }

/* Hot ones first: the search is from the top. */
static const struct msr_row rows[] = {
    FN(0xc0000100, 0xc0000101, base_read, base_write),
    CANON(0xc0000102, kernel_gs_base),
    FN(0x6e0, 0x6e0, apic_read, apic_write), /* TSC deadline */
    FN(0x800, 0x8ff, apic_read, apic_write), /* x2APIC */
    FN(0x48, 0x48, spec_ctrl_read, spec_ctrl_write),
    FN(0x10, 0x10, tsc_read, tsc_write),
    FN(0xc0000080, 0xc0000080, efer_read, efer_write),
    CPU(0xc0000081, star),
    CANON(0xc0000082, lstar),
    CANON(0xc0000083, cstar),
    CPU(0xc0000084, sfmask),
    FN(0xc0000103, 0xc0000103, tsc_aux_read, tsc_aux_write),
    CPU(0x174, sysenter_cs),
    CANON(0x175, sysenter_esp),
    CANON(0x176, sysenter_eip),
    FN(0x1b, 0x1b, apic_read, apic_write),
    FN(0x277, 0x277, pat_read, pat_write),
    FN(0x3b, 0x3b, tsc_adjust_read, tsc_adjust_write),
    FN(0x49, 0x49, no_read, command_write),
    FN(0x10a, 0x10a, arch_cap_read, no_write),
    CPU(0x1a0, misc_enable),
    FN(0xda0, 0xda0, xss_read, xss_write),
    /* MTRRs. */
    RO(0xfe, 0xfe, 0x500 | N_MTRR_VAR),
    FN(0x200, 0x200 + 2 * N_MTRR_VAR - 1, mtrr_var_read, mtrr_var_write),
    FN(0x250, 0x250, mtrr_fixed_read, mtrr_fixed_write),
    FN(0x258, 0x259, mtrr_fixed_read, mtrr_fixed_write),
    FN(0x268, 0x26f, mtrr_fixed_read, mtrr_fixed_write),
    FN(0x2ff, 0x2ff, mtrr_def_read, mtrr_def_write),
    /* Machine check. */
    CONST(0x0, 0x1, 0),
    RO(0x179, 0x179, 0x100 | N_MCE_BANKS),
    SYSM(0x17a, mcg_status),
    SYSM(0x17b, mcg_ctl),
    FN(0x400, 0x400 + 4 * N_MCE_BANKS - 1, mce_read, mce_write),
    CONST(0x280, 0x280 + N_MCE_BANKS - 1, 0), /* CMCI */
    /* KVM's clock: new numbers and old. */
    FN(0x4b564d01, 0x4b564d01, NULL, kvm_system_write),
    FN(0x4b564d00, 0x4b564d00, NULL, kvm_wall_write),
    /* Identification, power, thermal: nothing to tell. */
    RO(0x17, 0x17, 0),
    SYSM(0x8b, microcode),
    CONST(0x79, 0x79, 0),
    CONST(0x2a, 0x2a, 0),        /* EBL_CR_POWERON */
    CONST(0x2c, 0x2c, 0),        /* EBC_FREQUENCY_ID, family 15 */
    FN(0x3a, 0x3a, feature_control_read, no_write), /* locked, VMX off */
    CONST(0x9b, 0x9b, 0),
    CONST(0xc1, 0xc8, 0),        /* PMCs */
    CONST(0xcd, 0xcd, 3),        /* FSB: 166 MHz by table */
    FN(0xce, 0xce, platform_info_read, no_write),
    CONST(0xe2, 0xe2, 0),
    CONST(0xe7, 0xe8, 0),        /* MPERF, APERF */
    CONST(0x11e, 0x11e, 0xbe702111),
    CONST(0x140, 0x140, 0),      /* MISC_FEATURES_ENABLES */
    CONST(0x186, 0x18d, 0),      /* PERFEVTSEL */
    CONST(0x198, 0x198, 0x400000004000),
    CONST(0x199, 0x19b, 0),
    CONST(0x19c, 0x19c, 0),
    CONST(0x1a2, 0x1a2, 100 << 16),
    CONST(0x1a4, 0x1a4, 0),
    CONST(0x1aa, 0x1ad, 0),
    CONST(0x1b0, 0x1b2, 0),
    CONST(0x1c8, 0x1c9, 0),
    SYSM(0x1d9, debugctl),
    CONST(0x1db, 0x1de, 0),
    CONST(0x1fc, 0x1fc, 0),
    CONST(0x309, 0x30b, 0),      /* fixed counters */
    RO(0x345, 0x345, 0),
    CONST(0x38d, 0x390, 0),
    CONST(0x601, 0x641, 0),      /* RAPL */
    CONST(0x64e, 0x64f, 0),
    /* AMD. */
    CONST(0xc0010000, 0xc0010007, 0),
    SYSM(0xc0010010, syscfg),
    SYSM(0xc0010015, hwcr),
    CONST(0xc0010016, 0xc001001d, 0),
    CONST(0xc001001f, 0xc001001f, 0),
    CONST(0xc0010020, 0xc0010020, 0), /* PATCH_LOADER */
    CONST(0xc0010044, 0xc0010058, 0),
    CONST(0xc0010061, 0xc0010063, 0),
    CONST(0xc0010064, 0xc001006b, 0),
    CONST(0xc0010111, 0xc0010113, 0),
    RO(0xc0010114, 0xc0010114, 0x10), /* VM_CR: SVM off */
    CONST(0xc0010115, 0xc0010117, 0),
    CONST(0xc0010140, 0xc0010141, 0),
    CONST(0xc0010200, 0xc001020b, 0),
    CONST(0xc0011020, 0xc0011028, 0),
    CONST(0xc0011029, 0xc0011029, 2), /* DE_CFG: LFENCE serialises */
    CONST(0xc001102a, 0xc001102d, 0),
};

static const struct msr_row *find(uint32_t msr)
{
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
        if (msr >= rows[i].first && msr <= rows[i].last)
            return &rows[i];
    return NULL;
}

static uint64_t *member(struct cpu *c, const struct msr_row *m)
{
    char *base = m->kind == M_SYS ? (char *)c->sys : (char *)c;
    return (uint64_t *)(base + m->arg);
}

/* KVM's registers are written, and read back what was written. */
static int kvm_read(struct cpu *c, uint32_t msr, uint64_t *ret)
{
    *ret = msr & 1 ? c->sys->kvm_system_time : c->sys->kvm_wall_clock;
    return 0;
}

static bool hidden(const struct cpu *c, uint32_t msr)
{
    return msr >> 8 == 0x4b564d && !c->shared->model->hypervisor_leaves;
}

int cpu_msr_read(struct cpu *c, uint32_t msr, uint64_t *ret_val)
{
    const struct msr_row *m = find(msr);
    if (!m || hidden(c, msr))
        return -1;
    if (m->kind == M_FN)
        return m->read ? m->read(c, msr, ret_val) : kvm_read(c, msr, ret_val);
    *ret_val = m->kind <= M_SYS ? *member(c, m) : m->arg;
    return 0;
}

int cpu_msr_write(struct cpu *c, uint32_t msr, uint64_t val)
{
    const struct msr_row *m = find(msr);
    if (!m || hidden(c, msr) || m->kind == M_RO)
        return -1;
    if (m->kind == M_FN)
        return m->write(c, msr, val);
    if (m->kind == M_CPU_CANON && exec_canonical(val) != val)
        return -1;
    if (m->kind != M_CONST)
        *member(c, m) = val;
    return 0;
}

int x_rdmsr(struct cpu *c, const struct insn *i)
{
    uint64_t v;
    if (cpu_msr_read(c, (uint32_t)c->gpr[1], &v))
        return cpu_raise_error(c, EXC_GP, 0);
    c->gpr[0] = (uint32_t)v;
    c->gpr[2] = v >> 32;
    return next_anew(c, i);
}

int x_wrmsr(struct cpu *c, const struct insn *i)
{
    uint64_t v = (uint32_t)c->gpr[0] | c->gpr[2] << 32;
    if (cpu_msr_write(c, (uint32_t)c->gpr[1], v))
        return cpu_raise_error(c, EXC_GP, 0);
    return next_anew(c, i);
}
