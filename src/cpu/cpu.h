/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The software x86-64 processor, seen from outside: create, run, interrupt, read and write its state.
 *
 * Spec      Intel SDM volumes 1 to 3, AMD APM volumes 1 to 3.
 * Owner     cpu_shared: one per machine, made first, freed last. cpu: one per vCPU.
 * Thread    A cpu belongs to the thread that calls cpu_run(); only cpu_raise_event(), cpu_shared_written()
 *           and cpu_tlb_flush_request() may be called from others.
 * Trust     Everything the guest can reach is hostile: no guest state may crash, hang or grow the host.
 * Knows     base/ and the callbacks below, no device and no machine.
 */
#pragma once

#include "base/util.h"

struct cpu;
struct cpu_shared;
struct cpu_model;

/* A stretch of guest-physical address space, as cpu_callbacks.translate() reports it. */
struct cpu_phys {
    uint8_t *hva;    /* host address of the page, or NULL: MMIO or nothing there */
    bool writable;   /* false: ROM; writes go to mmio_write() */
    uint64_t before, after; /* bytes around the page that hva goes on for, with the same rights; 0: not known */
};

/* What the processor needs from its surroundings. All are called on the vCPU's thread, no lock held. */
struct cpu_callbacks {
    /* The 4 KiB page at `gpa` (page aligned, already masked by A20 and MAXPHYADDR). */
    struct cpu_phys (*translate)(void *opaque, uint64_t gpa);
    uint64_t (*mmio_read)(void *opaque, uint64_t gpa, unsigned size);
    void (*mmio_write)(void *opaque, uint64_t gpa, uint64_t val, unsigned size);
    uint64_t (*io_read)(void *opaque, uint16_t port, unsigned size);
    void (*io_write)(void *opaque, uint16_t port, uint64_t val, unsigned size);
    /* Local APIC. irq_ack: the vector to deliver now, or -1 (spurious poll). It already respects TPR. */
    int (*irq_ack)(void *opaque);
    /* APIC registers that the processor reaches without memory: CR8, IA32_APIC_BASE (0x1b), TSC deadline
     * (0x6e0) and x2APIC MSRs (0x800-0x8ff). 0, or -1: #GP. */
    uint64_t (*tpr_read)(void *opaque);
    void (*tpr_write)(void *opaque, uint64_t cr8);
    int (*apic_msr_read)(void *opaque, uint32_t msr, uint64_t *ret_val);
    int (*apic_msr_write)(void *opaque, uint32_t msr, uint64_t val);
};

/* Asynchronous events, ORed into one word and tested between blocks. */
enum cpu_event {
    CPU_EV_INTR = 1u << 0,  /* the local APIC has something: call irq_ack() when IF allows */
    CPU_EV_NMI = 1u << 1,
    CPU_EV_SMI = 1u << 2,   /* counted and dropped: there is no SMM */
    CPU_EV_STOP = 1u << 3,  /* cpu_run() returns CPU_EXIT_STOP at the next block boundary */
    CPU_EV_FLUSH = 1u << 4, /* TLB or code invalidation asked by another vCPU */
};

/* Why cpu_run() returned. */
enum cpu_exit {
    CPU_EXIT_STOP,     /* CPU_EV_STOP was raised (it is cleared) */
    CPU_EXIT_HALT,     /* HLT, MWAIT with nothing pending: run again once an event is raised */
    CPU_EXIT_SHUTDOWN, /* triple fault */
    CPU_EXIT_DEBUG,    /* one instruction done under cpu_step() */
    CPU_EXIT_ERROR,    /* internal: cpu_run_error() has the sentence */
};

/* Descriptor cache, in VMX/KVM terms. */
struct cpu_segment {
    uint64_t base;
    uint32_t limit;   /* byte granular, already scaled */
    uint16_t selector;
    uint8_t type;     /* low four descriptor type bits */
    uint8_t dpl;
    bool s, present, avl, l, db, g, unusable;
};

struct cpu_dtable {
    uint64_t base;
    uint16_t limit;
};

/* Everything architectural, for KVM hand-over, QMP, tests and (later) migration. Plain values only. */
struct cpu_arch_state {
    uint64_t gpr[16]; /* encoding order: rax rcx rdx rbx rsp rbp rsi rdi r8..r15 */
    uint64_t rip, rflags;
    struct cpu_segment seg[6]; /* ES CS SS DS FS GS */
    struct cpu_segment ldtr, tr;
    struct cpu_dtable gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, cr8, xcr0, efer, apic_base;
    uint64_t dr[8];
    /* MSRs that are state of the processor; others go through cpu_msr_read/write. */
    uint64_t star, lstar, cstar, sfmask, kernel_gs_base, sysenter_cs, sysenter_esp, sysenter_eip, pat,
        tsc_aux, tsc, xss, misc_enable, mtrr_def_type;
    bool nmi_blocked, sti_shadow, movss_shadow, halted;
    /* XSAVE area in the standard (non-compacted) format: legacy region, header, YMM_Hi128 at 576. */
    uint8_t xsave[1024] __attribute__((aligned(64)));
};

/* What cpu_arch_state leaves out because KVM's hand-over does not need it: MSRs that nothing but RDMSR and WRMSR looks
 * at, and events in the middle. For saved states. */
struct cpu_rare_state {
    uint64_t mtrr_base[8], mtrr_mask[8], mtrr_fixed[11];
    uint64_t mcg_status, mcg_ctl, mce[40];
    uint64_t tsc_adjust, debugctl, spec_ctrl, syscfg, hwcr, kvm_system_time, kvm_wall_clock;
    uint8_t nmis;        /* to be delivered: at most 2 */
    uint8_t dr6_pending; /* breakpoints hit, B0 to B3 */
};

/* Counters, read by QMP (x-ruche-query-cpu-stats) without a lock: approximate while running. */
struct cpu_stats {
    /* `instructions`: interpreted ones. Counting translated ones would cost more than some of them take. */
    uint64_t instructions, blocks, block_misses, tlb_misses, tlb_flushes, page_walks, exceptions,
        interrupts, smc_invalidations, mmio, pio, decodes;
    /* Translated: blocks made, their guest instructions and bytes of host code, on the straight way and off it; blocks
     * that cannot be translated; jumps linked; blocks lost to writes. */
    uint64_t tx_blocks, tx_instructions, tx_code_bytes, tx_cold_bytes, tx_hollow, tx_links, tx_written;
    /* Entries from the dispatcher, and why it was come to: targets not in the jump cache, exits to link, events,
     * handlers' faults and exits; blocks it interpreted instead. */
    uint64_t tx_entries, tx_lookups, tx_exits, tx_events, tx_statuses, tx_interpreted;
    /* Handlers called: instructions without an emitter, slow paths. By instruction: cpu_get_calls(). */
    uint64_t tx_calls, tx_slow;
};

/* How often translated code called the interpreter's handler of an instruction form. */
struct cpu_calls {
    const char *mnemonic;
    uint64_t no_emitter; /* it is always done so */
    uint64_t slow;       /* TLB misses, MMIO, faults, rare operands, branches that the jump cache does not know */
};

/* CPU models. "base": x86-64-v1; "qemu64", "max"/"host": all that the interpreter implements and the host
 * has. `features` is QEMU's -cpu list after the name ("+avx,-smap,tsc-frequency=..."). NULL and GError-free:
 * on failure *ret_error is a g_malloc'd sentence. */
struct cpu_model *cpu_model_parse(const char *text, char **ret_error);
void cpu_model_free(struct cpu_model *m);
/* CPUID of vCPU `index` in a topology; also used to fill KVM's table. `xcr0`, `cr4` shape leaves 1, 0xd. */
struct cpu_topology { unsigned sockets, dies, cores, threads; };

static inline unsigned cpu_topology_bits(unsigned count)
{
    return count > 1 ? 32 - (unsigned)__builtin_clz(count - 1) : 0;
}

/* The x2APIC id of vCPU `index`: what CPUID 0xb, the local APIC and the MADT all say. Each level takes as many bits
 * as its count needs. */
static inline uint32_t cpu_topology_apic_id(const struct cpu_topology *t, unsigned index)
{
    unsigned threads = t->threads ? t->threads : 1, cores = t->cores ? t->cores : 1,
             dies = t->dies ? t->dies : 1;
    uint32_t id = index / threads / cores / dies;
    id = id << cpu_topology_bits(dies) | index / threads / cores % dies;
    id = id << cpu_topology_bits(cores) | index / threads % cores;
    return id << cpu_topology_bits(threads) | index % threads;
}
void cpu_model_cpuid(const struct cpu_model *m, const struct cpu_topology *t, unsigned index,
                     uint32_t leaf, uint32_t subleaf, uint32_t ret[4]);
/* Names for -cpu help; NULL ends. */
const char *const *cpu_model_names(void);

/* How guest code is run: interpreted only; translated where possible; or translated, with the interpreter checking
 * every block (slow). */
enum cpu_translate { CPU_TRANSLATE_OFF, CPU_TRANSLATE_ON, CPU_TRANSLATE_LOCKSTEP };

struct cpu_shared *cpu_shared_new(const struct cpu_model *model, const struct cpu_topology *t,
                                  uint64_t ram_size); /* NULL: out of memory */
void cpu_shared_free(struct cpu_shared *s);
/* Before the first cpu_new(); off until then. `code_bytes`: host code kept at most, 0: a default. 0 or negative errno:
 * executable memory cannot be had. */
int cpu_shared_set_translate(struct cpu_shared *s, enum cpu_translate how, uint64_t code_bytes);
/* After it: tells perf(1) in /tmp/perf-PID.map what translated code was made from. 0 or negative errno. */
int cpu_shared_set_perf_map(struct cpu_shared *s);
/* Somebody else than a vCPU (DMA, the loader) wrote guest memory: drop code decoded from there. Cheap when
 * there is none. Any thread. */
void cpu_shared_written(struct cpu_shared *s, uint64_t gpa, uint64_t len);
/* Pages that vCPUs write get their bit from now on, by guest-physical number below `pages`: when a TLB entry becomes
 * writable. NULL: no more. No vCPU runs. */
void cpu_shared_set_dirty(struct cpu_shared *s, _Atomic uint64_t *bits, uint64_t pages);
/* Takes the right to write from every TLB entry, so that the next write to each page sets its bit anew. No vCPU runs. */
void cpu_shared_dirty_anew(struct cpu_shared *s);
/* The address map changed: every vCPU drops its TLB before it touches memory again. Any thread. */
void cpu_shared_flush_all(struct cpu_shared *s);

/* State is that of power-on reset. NULL: out of memory. `cb` and `opaque` are borrowed for its life. */
struct cpu *cpu_new(struct cpu_shared *s, unsigned index, const struct cpu_callbacks *cb, void *opaque);
void cpu_free(struct cpu *c);
/* init: INIT# (keeps caches, FPU and most MSRs) rather than power-on. */
void cpu_reset(struct cpu *c, bool init);
/* Start-up IPI: real mode at vector << 12. */
void cpu_sipi(struct cpu *c, uint8_t vector);

/* Runs until something must be handled outside. */
enum cpu_exit cpu_run(struct cpu *c);
/* Executes exactly one instruction (or delivers one exception); interrupts are not taken. */
enum cpu_exit cpu_step(struct cpu *c);
const char *cpu_run_error(const struct cpu *c);

/* Any thread. The caller wakes a halted vCPU itself. */
void cpu_raise_event(struct cpu *c, uint32_t events);
uint32_t cpu_pending_events(const struct cpu *c);
/* True when a halted vCPU has a reason to run (interrupt with IF, NMI, flush, stop). */
bool cpu_has_work(const struct cpu *c);

void cpu_get_state(struct cpu *c, struct cpu_arch_state *ret);
/* Values are taken as they are, invalid combinations included (the next instruction faults). TLB dropped. */
void cpu_set_state(struct cpu *c, const struct cpu_arch_state *s);
void cpu_get_rare_state(struct cpu *c, struct cpu_rare_state *ret);
void cpu_set_rare_state(struct cpu *c, const struct cpu_rare_state *s); /* after cpu_set_state() */
int cpu_msr_read(struct cpu *c, uint32_t msr, uint64_t *ret_val); /* 0, or -1: #GP */
int cpu_msr_write(struct cpu *c, uint32_t msr, uint64_t val);
/* Guest-linear memory for debuggers and QMP memsave: 0 or -EFAULT; no fault, no A/D bits. */
int cpu_debug_read(struct cpu *c, uint64_t linear, void *buf, size_t len);
const struct cpu_stats *cpu_get_stats(const struct cpu *c);
/* Of instruction form `index`, from 0. False: there are no more, or nothing is translated. */
bool cpu_get_calls(const struct cpu *c, unsigned index, struct cpu_calls *ret);
uint64_t cpu_tsc_khz(const struct cpu_shared *s);
/* The guest's TSC now: the host's at the model's rate, plus the offset. Any thread. */
uint64_t cpu_tsc(const struct cpu *c);
/* Setting the offset is not the guest's WRMSR: TSC_ADJUST stays. vCPU not running. */
int64_t cpu_tsc_offset(const struct cpu *c);
void cpu_set_tsc_offset(struct cpu *c, int64_t offset);
