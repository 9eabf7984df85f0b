/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Private to sys/: descriptors, stacks of other privilege levels, event delivery, tasks.
 *
 * Spec      Intel SDM volume 3, chapters 3, 5, 6 and 7; AMD APM volume 2, chapters 4, 8 and 12.
 * Thread    The vCPU's own.
 */
#pragma once

#include "cpu/exec/exec.h"
#include "cpu/mmu/mmu.h"
#include "cpu/shared.h"
#include "cpu/sys/regs.h"

/* MSRs and MTRRs that nothing but RDMSR/WRMSR looks at. */
#define N_MTRR_VAR 8
#define N_MTRR_FIXED 11
#define N_MCE_BANKS 10
struct sys_state {
    bool ext;               /* an event is being delivered: EXT in error codes of nested faults */
    uint64_t mtrr_base[N_MTRR_VAR], mtrr_mask[N_MTRR_VAR], mtrr_fixed[N_MTRR_FIXED];
    uint64_t mcg_status, mcg_ctl, mce[4 * N_MCE_BANKS];
    uint64_t tsc_adjust, debugctl, spec_ctrl, feature_control, syscfg, hwcr, microcode;
    uint64_t kvm_system_time, kvm_wall_clock;
};

/* --- descriptors (desc.c) --- */

/* Types of system descriptors. */
enum {
    SYS_TSS16 = 1, SYS_LDT = 2, SYS_TSS16_BUSY = 3, SYS_CALL16 = 4, SYS_TASK_GATE = 5, SYS_INT16 = 6,
    SYS_TRAP16 = 7, SYS_TSS = 9, SYS_TSS_BUSY = 11, SYS_CALL = 12, SYS_INT = 14, SYS_TRAP = 15,
};
#define SEG_ACCESSED 1u
#define SEG_WRITE_READ 2u /* data: writable; code: readable */
#define SEG_DOWN_CONF 4u  /* data: expand-down; code: conforming */
#define SEG_CODE 8u

static inline bool seg_is_code(const struct cpu_segment *s)
{
    return s->s && s->type & SEG_CODE;
}

static inline bool seg_is_conforming(const struct cpu_segment *s)
{
    return (s->type & (SEG_CODE | SEG_DOWN_CONF)) == (SEG_CODE | SEG_DOWN_CONF);
}

static inline bool seg_is_writable_data(const struct cpu_segment *s)
{
    return s->s && (s->type & (SEG_CODE | SEG_WRITE_READ)) == SEG_WRITE_READ;
}

static inline bool sel_is_null(uint16_t sel)
{
    return !(sel & ~3u);
}

/* #vector with a selector error code; EXT as the delivery in progress says. */
int fault_sel(struct cpu *c, uint8_t vector, uint16_t sel);
/* Reads the descriptor that a selector names. Out of the table: #vector(sel). */
int desc_read(struct cpu *c, uint16_t sel, uint8_t vector, uint64_t *ret_raw);
/* The upper half of a 16-byte system descriptor. */
int desc_read_high(struct cpu *c, uint16_t sel, uint8_t vector, uint64_t *ret_raw);
struct cpu_segment seg_from_desc(uint16_t sel, uint64_t raw);
struct cpu_segment seg_null(uint16_t sel);
/* Sets the accessed bit in memory and in `s`. */
int desc_set_accessed(struct cpu *c, struct cpu_segment *s);
/* Sets or clears the busy bit of a TSS descriptor in the GDT. */
int desc_set_busy(struct cpu *c, uint16_t sel, bool busy);
/* A stack segment for privilege `cpl`: its checks raise #vector(sel), not present #SS(sel).
 * Accessed is set. */
int ss_load(struct cpu *c, uint16_t sel, unsigned cpl, uint8_t vector, struct cpu_segment *ret);
/* A data segment; its checks raise #vector(sel), not present #NP(sel). Null is fine. */
int data_load(struct cpu *c, uint16_t sel, uint8_t vector, struct cpu_segment *ret);
/* MOV, POP, LxS: ES SS DS FS GS in the current mode. */
int seg_load(struct cpu *c, unsigned seg, uint16_t sel);
/* Commits a segment register. The caller calls cpu_update_mode() when done. */
void seg_set(struct cpu *c, unsigned seg, const struct cpu_segment *s);
struct cpu_segment seg_real(const struct cpu *c, unsigned seg, uint16_t sel);
/* After a return to an outer level: data segments that it may not use become null. */
void seg_drop_inner(struct cpu *c, unsigned cpl);

/* --- stacks (stack.c) --- */

/* A stack being pushed to or popped from; the register changes only when the caller commits `sp`. */
struct stack {
    struct cpu_segment ss;
    uint64_t sp;
    unsigned cpl;
    bool flat64;     /* 64-bit: no segment */
    uint16_t sel;    /* error code of #SS */
};

struct stack stack_current(const struct cpu *c);
int stack_push(struct cpu *c, struct stack *s, unsigned size, uint64_t val);
int stack_pop(struct cpu *c, struct stack *s, unsigned size, uint64_t *ret);
void stack_commit(struct cpu *c, const struct stack *s); /* RSP by the stack's address size */

/* SS:RSP for privilege `cpl` from the TSS (not IST). */
int tss_stack(struct cpu *c, unsigned cpl, struct stack *ret);
/* 64-bit mode stack pointer: RSPn, or ISTn when ist. */
int tss_stack64(struct cpu *c, unsigned cpl, unsigned ist, struct stack *ret);

/* --- code segments and transfers --- */

/* Commits CS, RIP and CPL. In protected mode the selector's RPL must already be `cpl`. */
void cs_set(struct cpu *c, const struct cpu_segment *cs, uint64_t rip, unsigned cpl);
/* Is `rip` inside cs (canonical in 64-bit code)? 0 or #GP(0). */
int cs_check_rip(struct cpu *c, const struct cpu_segment *cs, uint64_t rip);

/* CS and SS that RETF and IRET pop. */
int return_cs(struct cpu *c, uint16_t sel, struct cpu_segment *ret);
int return_ss(struct cpu *c, uint16_t sel, const struct cpu_segment *cs, struct cpu_segment *ret);

/* Flags that a task or IRET may load at this CPL and IOPL. */
uint32_t flags_mask(const struct cpu *c, unsigned opsize);

enum event_kind { EVENT_EXCEPTION, EVENT_SOFTWARE, EVENT_EXTERNAL, EVENT_ICEBP };
struct event {
    uint8_t vector;
    enum event_kind kind;
    bool has_error, set_rf;
    uint32_t error;
    uint64_t rip; /* to return to */
};
/* Delivers one event; 0 with everything committed, or X_FAULT with c->fault (nothing committed). */
int event_deliver(struct cpu *c, const struct event *e);

enum task_why { TASK_JMP, TASK_CALL, TASK_IRET, TASK_GATE };
/* Hardware task switch to the TSS `sel`; `rip` is what the old task resumes at. 0, or X_FAULT: in
 * the old task with nothing changed, or in the new one with everything changed. */
int task_switch(struct cpu *c, uint16_t sel, enum task_why why, uint64_t rip, bool has_error,
                uint32_t error);

/* Sets FS or GS base. */
void set_seg_base(struct cpu *c, unsigned seg, uint64_t base);
/* Sets a debug register, reserved bits made right; 4 and 5 do not exist. */
void debug_set(struct cpu *c, unsigned n, uint64_t v);
/* Notes I/O breakpoints. */
void debug_io(struct cpu *c, uint16_t port, unsigned size);

/* What the model lets the guest set. */
uint64_t cr4_allowed(const struct cpu_model *m);
uint64_t xcr0_allowed(const struct cpu_model *m);
/* Bytes of the standard XSAVE format for these components. */
uint32_t xsave_size(uint64_t xcr0);

/* I/O permission: IOPL, then the TSS bitmap. 0 or #GP(0). */
int io_check(struct cpu *c, uint16_t port, unsigned size);
