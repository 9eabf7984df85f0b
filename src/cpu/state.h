/* SPDX-License-Identifier: GPL-2.0-or-later */
/* struct cpu: the state of one vCPU, hot fields first, and the inline helpers that every handler uses.
 *
 * Private to src/cpu/. Thread: the vCPU's own, but for `events` (atomic).
 */
#pragma once

#include "cpu/cpu.h"
#include "cpu/insn.h"

#include <stdatomic.h>
#include <string.h>

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096u
#define PAGE_MASK (~(uint64_t)0xfff)

/* The mode word: all that changes how bytes decode or how accesses are checked. Part of a block's key.
 * Kept true by cpu_update_mode() after any change of CR0, CR4, EFER, CS, SS, DS, ES, CPL, AC. */
#define MODE_CODE64 (1u << 0)
#define MODE_CODE32 (1u << 1)  /* neither: 16-bit code */
#define MODE_REAL (1u << 2)    /* CR0.PE clear, or VM86: no descriptors */
#define MODE_VM86 (1u << 3)
#define MODE_LONG (1u << 4)    /* EFER.LMA */
#define MODE_PAGING (1u << 5)
#define MODE_SS32 (1u << 6)    /* stack address size, outside 64-bit mode */
#define MODE_FLAT (1u << 7)    /* DS ES SS CS: base 0, limit 4G, read/write: no segment check needed */
#define MODE_USER (1u << 8)    /* CPL 3 */
#define MODE_AC (1u << 9)      /* alignment checks are on (CR0.AM, AC, CPL 3) */
#define MODE_TF (1u << 10)     /* TF, or any breakpoint enabled in DR7: one instruction at a time, with
                                * cpu_debug_before() and cpu_debug_after() around it */
#define MODE_FPU_NM (1u << 11) /* CR0.TS or EM: x87 and SIMD take the slow, checking way */
#define MODE_SSE_OFF (1u << 12)
#define MODE_AVX_OFF (1u << 13)
#define MODE_SMAP_ON (1u << 14) /* supervisor data access to user pages faults (SMAP and not AC) */
/* Kept by fpu_mode_changed() too: matter to the translator alone. */
#define MODE_SSE_TRAPS (1u << 15) /* MXCSR lets some exception through */
#define MODE_X87_TRAPS (1u << 16) /* the x87 control word does, or an error is pending */

/* TLB: direct-mapped by bits 23:12 of the linear address, in banks (below). A tag is the page's whole linear
 * address, so nothing that is not canonical can match. TLB_* flags force the slow path: they are XORed into the
 * tag's index bits, which the position implies, so that a flagged tag is the address of no page that is looked
 * up there. An access hits if
 *     linear - tag <= 4096 - size        (unsigned, 64 bits)
 * and is then at host + (linear - tag); one that crosses pages never hits.
 * A zero tag is empty at every position but 0: emptying is storing zeroes and TLB_EMPTY at position 0, and
 * banks that are not used cost no memory. */
#define TLB_BITS 12
#define TLB_SIZE (1u << TLB_BITS)
#define TLB_INVALID (1u << 12) /* not allowed, or not known yet (first write: the dirty bit) */
#define TLB_MMIO (1u << 13)    /* no host memory; for writes: ROM too */
#define TLB_CODE (1u << 14)    /* write: the page holds decoded code */
#define TLB_WATCH (1u << 15)   /* a data breakpoint is on the page */
#define TLB_FLAGS (TLB_INVALID | TLB_MMIO | TLB_CODE | TLB_WATCH)
#define TLB_EMPTY 0x1000ull    /* tag of an empty entry at position 0 */

struct tlb_entry {
    uint64_t read, write; /* tags */
    uint8_t *host;        /* the page; meaningless for MMIO */
    uint64_t gpa;         /* page's guest-physical address, with TLBE_* bits; 0: empty */
};
#define TLBE_VALID 1u
#define TLBE_GLOBAL 2u

/* The same for code: tag and size as above, no flags. */
struct tlb_code {
    uint64_t tag;
    const uint8_t *host; /* the page; NULL: fetch by mmu_fetch_bytes() and cache nothing */
    uint64_t gpa;        /* without TLBE_* bits */
    uint64_t flags;      /* TLBE_* */
    uint64_t jumps;      /* bit per 64 bytes of the page that the jump cache may have entries for */
};
#define TLB_CODE_BITS 12
#define TLB_CODE_SIZE (1u << TLB_CODE_BITS)

/* Kinds of access. TLB_SUPER: supervisor, SMAP (if CR4 has it) enforced; also implicit accesses. TLB_SUPER_AC:
 * supervisor with SMAP off by AC. TLB_NONE stays empty: the current one while alignment checks are on. */
enum { TLB_SUPER, TLB_SUPER_AC, TLB_USER, TLB_NONE, N_TLB_SETS };

/* Banks: one each for TLB_SUPER and TLB_SUPER_AC, whose entries of pages that are not global go at a change of
 * address space, and one for each recently used address space (PCID) for TLB_USER. A space keeps its bank until it
 * is flushed or another needs the bank. Code has one for supervisor mode and one a space for user mode. */
#define N_TLB_SPACES 8u
enum {
    TLB_BANK_SUPER,
    TLB_BANK_AC,
    TLB_BANK_USER,
    TLB_BANK_NONE = TLB_BANK_USER + N_TLB_SPACES,
    N_TLB_BANKS
};
enum { TLB_CODE_SUPER, TLB_CODE_USER, N_TLB_CODE_BANKS = TLB_CODE_USER + N_TLB_SPACES };

/* Jump cache: translated blocks by linear address, for indirect jumps; index is bits 16:2 of the address (two
 * calls may return to the same 8 bytes). One table for supervisor mode, one for supervisor mode with SMAP off, one
 * a space for user mode; each belongs to one mode word and is emptied when another comes. An entry exists only
 * while the code TLB has its page, in the bank of the same mode and space. Empty: zero, and JC_EMPTY as the
 * address at position 0. */
struct tb;
struct jc_entry {
    uint64_t rip; /* linear */
    struct tb *tb;
};
#define JC_BITS 15
#define JC_SIZE (1u << JC_BITS)
#define JC_SHIFT 2      /* of an address, to the left, */
#define JC_MASK ((JC_SIZE - 1) * 16) /* then this: byte offset of its entry */
#define JC_EMPTY 0x10ull
enum { JC_SUPER, JC_SUPER_AC, JC_USER, N_JC_TABLES = JC_USER + N_TLB_SPACES };

/* What a handler wants delivered. */
struct cpu_fault {
    uint8_t vector;
    bool has_error;
    bool software;      /* INT n, INT3, INTO: gate DPL is checked, RIP is the next instruction's */
    bool external;      /* interrupt, NMI, ICEBP: sets EXT in error codes of nested faults */
    bool trap;          /* #DB after an instruction: the pushed RF is clear */
    uint32_t error;
    uint64_t cr2;       /* #PF */
    uint64_t dr6;       /* #DB: bits to set */
};

#define STACK_RUN 128u

/* Made by cpu_new() alone: zero pages that nobody touches cost nothing. Translated code reaches all of it by GS. */
struct cpu {
    /* Hot, within the first 4 KiB. While a block's threaded handlers run, `rip` is the address of the block's first instruction; a
     * handler called as exec_fn always sees its own instruction's. */
    union {
        struct {
            uint64_t gpr[16];
            uint64_t rip;
            uint64_t zero; /* always 0: the absent base or index */
        };
        uint64_t slot[18]; /* the same by number, for addresses */
    };
    /* Arithmetic flags in LAHF/SETO form: AH = SF ZF - AF - PF - CF, AL = OF (0 or 1). */
    uint16_t flags_ax;
    uint32_t flags_sys;  /* RFLAGS without OSZAPC, bit 1 set */
    uint32_t mode;       /* MODE_* */
    _Atomic uint32_t events;
    bool fpu_live;       /* x87 and MMX registers are in the host unit: fpu/fpu.h */
    bool fpu_unmasked;   /* while live: FCW lets some exception through */
    bool code_changed;   /* exec_invalidate() killed a block of this vCPU: leave the current one */
    uint64_t seg_base[N_SEGS]; /* copies of seg[].base; 0 for ES CS SS DS in 64-bit mode */
    struct tlb_entry *tlb_cur;     /* bank for data accesses of the current mode: mmu_mode_changed() */
    struct tlb_code *tlb_code_cur; /* bank for code of the current mode */
    uint64_t tlb_user_off;         /* byte offset from tlb[0] of the current space's bank for user mode */
    uint64_t tlb_ac_off;           /* and of the one for TLB_SUPER_AC */
    uint64_t jc_off;               /* byte offset from jc[0] of the current mode's and space's table */
    struct cpu *self;
    uint64_t rip_page;             /* translated code: linear address of the running block's page */
    uint64_t vec_parked;           /* 0: the guest's XMM registers and MXCSR are in the host's */
    uint64_t ymm_parked;           /* 0: so are the upper halves; translate/vector.h */
    _Atomic uint32_t run_ok;       /* 0: translated code leaves at its next back-edge: cpu_post_events() */
    /* The page that translated code found its stack in last, if it may be written: as a TLB entry, which it does not
     * outlive (mmu_stack_forget()). The offset in it must be below stack_room[] for accesses of up to 8 bytes, of up
     * to STACK_RUN bytes; 0: nothing is known. */
    uint64_t stack_tag, stack_room[2];
    uint8_t *stack_host;
    uint64_t tx_tmp;               /* translated code, within one instruction: an operand put aside */
    uint64_t tx_tb;                /* and a block: emit_branch_keep() */
    uint32_t tx_status;            /* X_* of the handler that made translated code leave (TX_STATUS) */
    uint8_t tx_looped;             /* translated code: the running block came from its own end (flags_loop()) */
    uint64_t tx_slot[3];           /* translated code: operands of lost flags (translate/flags.c), a scratch put aside */

    /* Warm. */
    struct cpu_fault fault;
    enum cpu_exit exit_reason;
    uint8_t cpl;
    uint8_t int_shadow;        /* 1: sti, 2: mov ss / pop ss; holds for the next instruction */
    bool halted, nmi_blocked;
    uint8_t nmi_pending;       /* taken from nmis; as hardware: one in service and one latched */
    _Atomic uint8_t nmis;      /* raised since, at most 2 */
    bool intr_pending;         /* CPU_EV_INTR was seen, and irq_ack() has not said that there is nothing */
    bool in_step;              /* under cpu_step() */
    bool tf_latched;           /* TF when the instruction began: cpu_debug_before() */
    uint8_t dr6_pending;       /* data and I/O breakpoints hit (B0-B3), for cpu_debug_after() */
    uint64_t map_epoch;        /* changes whenever a linear page may map elsewhere (flush, CR3, INVLPG) */
    struct cpu_shared *shared;
    const struct cpu_callbacks *cb;
    void *opaque;
    struct cpu_segment seg[N_SEGS], ldtr, tr;
    struct cpu_dtable gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, efer, xcr0;
    uint64_t dr[8];
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base, sysenter_cs, sysenter_esp, sysenter_eip, pat,
        tsc_aux, xss, misc_enable, mtrr_def_type;
    int64_t tsc_offset;
    uint64_t phys_mask;        /* MAXPHYADDR, and A20 */
    unsigned index;
    struct cpu_stats stats;
    struct exec_cache *blocks; /* decoded blocks: exec/ */
    struct translate_cpu *tx;  /* the vCPU's part of the translator: translate/ */
    uint32_t pauses;           /* PAUSE executed */
    struct sys_state *sys;     /* MTRRs and rare MSRs: sys/ */
    struct mmu_record *record; /* of accesses, under lockstep: mmu/record.h */
    struct mmu_state *mmu;     /* address spaces, pending flushes: mmu/ */
    char error[160];
    void *allocation;          /* what to free: the struct is in it, aligned */

    /* Vector and x87 state, XSAVE standard format: 512 legacy, 64 header, YMM_Hi128 at 576. The place of
     * truth between instructions, unless fpu/ documents otherwise. */
    uint8_t xsave[1024] __attribute__((aligned(64)));
    uint8_t scratch[128] __attribute__((aligned(64))); /* memory operands that cannot be used in place */

    /* Big. */
    struct tlb_entry tlb[N_TLB_BANKS][TLB_SIZE] __attribute__((aligned(PAGE_SIZE)));
    struct tlb_code tlb_code[N_TLB_CODE_BANKS][TLB_CODE_SIZE];
    struct jc_entry jc[N_JC_TABLES][JC_SIZE];
};

/* --- events --- */

/* Any thread. Whoever takes events stores 1 to run_ok first, so that none of them can be missed. */
static inline void cpu_post_events(struct cpu *c, uint32_t events)
{
    atomic_fetch_or(&c->events, events);
    atomic_store(&c->run_ok, 0);
}

static inline uint32_t cpu_take_events(struct cpu *c)
{
    atomic_store(&c->run_ok, 1);
    return atomic_exchange(&c->events, 0);
}

/* --- flags --- */

static inline uint32_t cpu_flags(const struct cpu *c)
{
    uint32_t ax = c->flags_ax;
    return c->flags_sys | ((ax >> 8) & (OSZAPC & ~FLAG_OF)) | ((ax & 1) << 11);
}

/* Sets the bits of `mask` from `val`; the caller calls cpu_update_mode() if TF, AC, VM or IOPL may change. */
static inline void cpu_set_flags(struct cpu *c, uint32_t val, uint32_t mask)
{
    uint32_t f = (cpu_flags(c) & ~mask) | (val & mask);
    c->flags_sys = (f & ~OSZAPC) | 2;
    c->flags_ax = (uint16_t)((f & (OSZAPC & ~FLAG_OF)) << 8 | ((f >> 11) & 1));
}

/* --- faults --- */

/* Each returns X_FAULT, so that handlers say `return cpu_raise(...)`. */
static inline int cpu_raise(struct cpu *c, uint8_t vector)
{
    c->fault = (struct cpu_fault){ .vector = vector };
    return X_FAULT;
}

static inline int cpu_raise_error(struct cpu *c, uint8_t vector, uint32_t error)
{
    c->fault = (struct cpu_fault){ .vector = vector, .has_error = true, .error = error };
    return X_FAULT;
}

enum {
    EXC_DE = 0, EXC_DB = 1, EXC_NMI = 2, EXC_BP = 3, EXC_OF = 4, EXC_BR = 5, EXC_UD = 6, EXC_NM = 7,
    EXC_DF = 8, EXC_TS = 10, EXC_NP = 11, EXC_SS = 12, EXC_GP = 13, EXC_PF = 14, EXC_MF = 16,
    EXC_AC = 17, EXC_MC = 18, EXC_XM = 19,
};

/* --- sys/ : modes, segments, delivery --- */

/* Recomputes `mode` and `seg_base` from the registers. */
void cpu_update_mode(struct cpu *c);
/* Delivers c->fault at c->rip (for software: the return address is c->rip already advanced). Handles
 * double and triple fault; X_JUMP, or X_EXIT with CPU_EXIT_SHUTDOWN. */
int cpu_deliver_fault(struct cpu *c);
/* Delivers an external interrupt or NMI (vector 2). */
int cpu_deliver_interrupt(struct cpu *c, uint8_t vector, bool nmi);
/* Linear address of seg:offset for an access of `size` bytes; checks canonical form or limit and type
 * (write: the segment must be writable). 0, or X_FAULT (#GP/#SS). Slow path of mem_linear(). */
int seg_linear(struct cpu *c, unsigned seg, uint64_t offset, unsigned size, bool write, uint64_t *ret_linear);
/* Under MODE_TF. Before an instruction: code breakpoint at rip (unless RF, which it clears), notes TF.
 * X_NEXT, or X_FAULT (#DB). */
int cpu_debug_before(struct cpu *c);
/* Under MODE_TF, after an instruction that did not fault, with c->rip at the next one and the interrupt
 * shadow of the instruction before it cleared: TF, data and I/O breakpoints hit. X_NEXT, or
 * X_FAULT (#DB, a trap). A mov ss just executed (int_shadow 2) holds it back. */
int cpu_debug_after(struct cpu *c);

/* --- parts that cpu_new() and cpu_free() call, in this order and backwards: mmu_init, sys_init, exec_init --- */

int sys_init(struct cpu *c); /* 0 or -ENOMEM */
void sys_done(struct cpu *c);
void cpu_tsc_set(struct cpu *c, uint64_t tsc);
