/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The testbed with an operating system's tables: GDT, IDT whose handlers are HLT, TSSs, in 32-bit
 * protected, 64-bit, real and virtual-8086 mode. Code is assembled by the compiler (BLOB). */
#pragma once

#include "cpu/exec/testbed.h"
#include "cpu/sys/internal.h"

#define SB_GDT 0x9000u
#define SB_IDT 0x6000u
#define SB_TSS 0x7000u
#define SB_TSS2 0x7800u
#define SB_LDT 0x8000u
#define SB_TSS16 0x8800u
#define SB_HANDLERS 0xa000u /* 16 bytes each: HLT */
#define SB_STACK0 0x20000u  /* the TSS's stack for ring 0 */
#define SB_STACK1 0x24000u
#define SB_IST1 0x28000u
#define SB_STACK3 0x30000u  /* where ring 3 starts */
#define SB_RUN0 0x2c000u    /* where ring 0 starts */
#define SB_CODE 0x40000u
#define SB_PAGES32 0x50000u

enum {
    CODE32 = 0x08, DATA0 = 0x10, CODE32_3 = 0x1b, DATA3 = 0x23, TSS = 0x28, LDT = 0x38, CODE64 = 0x48,
    CODE64_3 = 0x53, GATE = 0x58, TSS2 = 0x68, CONFORMING = 0x70, TASKGATE = 0x78, ABSENT = 0x80,
    CODE16 = 0x88, DATA16 = 0x90, READONLY = 0x9b, CODE32_1 = 0xa1, DATA1 = 0xa9, TSS16 = 0xb0,
    DATA3B = 0xbb, CODE32_3B = 0xc3, /* as SYSRET wants them */
    GDT_LIMIT = 0xff,
};

/* Assembles `text` into bytes name[] up to name_end[]. */
#define BLOB(name, text)                                                                           \
    extern const uint8_t name[], name##_end[];                                                     \
    __asm__(".pushsection .rodata\n" #name ":\n" text "\n" #name "_end:\n.code64\n.popsection\n")
#define RUN_BLOB(name) sb_code(name, (size_t)(name##_end - name))

static struct bed *sb;
static struct cpu *cpu;

static inline void sb_poke(uint64_t gpa, unsigned size, uint64_t v)
{
    memcpy(sb->ram + gpa, &v, size);
}

static inline uint64_t sb_peek(uint64_t gpa, unsigned size)
{
    uint64_t v = 0;
    memcpy(&v, sb->ram + gpa, size);
    return v;
}

static inline void sb_desc(unsigned sel, uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
    uint64_t d = (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
                 (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;
    sb_poke(SB_GDT + (sel & ~7u), 8, d);
}

/* type with DPL and P, e.g. 0x8e. */
static inline void sb_gate(unsigned vector, unsigned sel, uint64_t off, unsigned access, unsigned ist)
{
    bool wide = cpu->mode & MODE_LONG;
    uint64_t at = SB_IDT + vector * (wide ? 16 : 8);
    sb_poke(at, 8, (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)ist << 32 | (uint64_t)access << 40 |
                       (off >> 16 & 0xffff) << 48);
    if (wide)
        sb_poke(at + 8, 8, off >> 32);
}

static inline void sb_tables(void)
{
    sb_desc(CODE32, 0, 0xfffff, 0x9b, 12);
    sb_desc(DATA0, 0, 0xfffff, 0x93, 12);
    sb_desc(CODE32_3, 0, 0xfffff, 0xfb, 12);
    sb_desc(DATA3, 0, 0xfffff, 0xf3, 12);
    sb_desc(TSS, SB_TSS, 0x67 + 32 + 1, 0x89, 0);
    sb_desc(LDT, SB_LDT, 0x1f, 0x82, 0);
    sb_desc(CODE64, 0, 0xfffff, 0x9b, 10);
    sb_desc(CODE64_3, 0, 0xfffff, 0xfb, 10);
    sb_desc(TSS2, SB_TSS2, 0x67, 0x89, 0);
    sb_desc(CONFORMING, 0, 0xfffff, 0x9e, 12);
    sb_desc(TASKGATE, TSS2, 0, 0xe5, 0); /* selector in bits 31:16 */
    sb_poke(SB_GDT + TASKGATE, 8, (uint64_t)TSS2 << 16 | 0xe500ull << 32);
    sb_desc(ABSENT, 0, 0xfffff, 0x13, 12);
    sb_desc(CODE16, 0, 0xffff, 0x9b, 0);
    sb_desc(DATA16, 0, 0xffff, 0x93, 0);
    sb_desc(READONLY, 0, 0xfffff, 0xf1, 12);
    sb_desc(CODE32_1, 0, 0xfffff, 0xbb, 12);
    sb_desc(DATA1, 0, 0xfffff, 0xb3, 12);
    sb_desc(TSS16, SB_TSS16, 0x2b, 0x81, 0);
    sb_desc(DATA3B, 0, 0xfffff, 0xf3, 12);
    sb_desc(CODE32_3B, 0, 0xfffff, 0xfb, 12);
    memset(sb->ram + SB_HANDLERS, 0xf4, 4096);
    memset(sb->ram + SB_TSS, 0, 0x1800);
}

static inline struct cpu_segment sb_segment(unsigned sel)
{
    struct cpu_segment s = seg_from_desc((uint16_t)sel, sb_peek(SB_GDT + (sel & ~7u), 8));
    return s;
}

/* The state of `sel`'s privilege and mode: 32- or 64-bit code with data segments to match. */
static inline void sb_enter(unsigned code, unsigned data)
{
    for (unsigned i = 0; i < N_SEGS; i++)
        cpu->seg[i] = sb_segment(i == SEG_CS ? code : data);
    cpu->cpl = code & 3;
    cpu->rip = SB_CODE;
    cpu->gpr[4] = cpu->cpl == 3 ? SB_STACK3 : SB_RUN0;
    cpu_update_mode(cpu);
}

static inline void sb_common(void)
{
    cpu->gdtr = (struct cpu_dtable){ SB_GDT, GDT_LIMIT };
    cpu->idtr = (struct cpu_dtable){ SB_IDT, 0xfff };
    cpu->tr = sb_segment(TSS);
    cpu->tr.type |= 2;
    sb_desc(TSS, SB_TSS, 0x67 + 32 + 1, 0x8b, 0);
    cpu->ldtr = seg_null(0);
}

static inline void sb_new(const char *model)
{
    sb = bed_new(model);
    cpu = sb->cpu;
    sb_tables();
    sb_common();
}

static inline void sb_free(void)
{
    bed_free(sb);
}

/* Protected mode, 32 bits, no paging; interrupt gates to the HLTs. */
static inline void sb_start32(const char *model)
{
    sb_new(model);
    cpu->cr0 = CR0_PE | CR0_ET | CR0_NE;
    cpu->cr4 = 0;
    cpu->efer = 0;
    cpu->cr3 = 0;
    mmu_flush_all(cpu);
    sb_enter(CODE32, DATA0);
    for (unsigned v = 0; v < 256; v++)
        sb_gate(v, CODE32, SB_HANDLERS + v * 16, 0x8e, 0);
    sb_poke(SB_TSS + 4, 4, SB_STACK0);
    sb_poke(SB_TSS + 8, 2, DATA0);
    sb_poke(SB_TSS + 12, 4, SB_STACK1);
    sb_poke(SB_TSS + 16, 2, DATA1);
    sb_poke(SB_TSS + 0x66, 2, 0x68);
}

/* Long mode on the testbed's tables. */
static inline void sb_start64(const char *model)
{
    sb_new(model);
    cpu->cr4 |= CR4_PGE;
    mmu_flush_all(cpu);
    sb_enter(CODE64, DATA0);
    for (unsigned v = 0; v < 256; v++)
        sb_gate(v, CODE64, SB_HANDLERS + v * 16, 0x8e, 0);
    sb_poke(SB_TSS + 4, 8, SB_STACK0);
    sb_poke(SB_TSS + 36, 8, SB_IST1);
}

static inline void sb_real(const char *model)
{
    sb_new(model);
    cpu_reset(cpu, false);
    cpu->idtr = (struct cpu_dtable){ 0, 0x3ff };
    for (unsigned v = 0; v < 256; v++)
        sb_poke(v * 4, 4, SB_HANDLERS >> 4 << 16 | v * 16);
    cpu->seg[SEG_CS].selector = SB_CODE >> 4;
    cpu->seg[SEG_CS].base = SB_CODE;
    cpu->rip = 0;
    cpu->gpr[4] = 0x8000;
    cpu->seg[SEG_SS].selector = 0x1000;
    cpu->seg[SEG_SS].base = 0x10000;
    cpu_update_mode(cpu);
}

static inline void sb_code(const uint8_t *code, size_t len)
{
    memcpy(sb->ram + SB_CODE, code, len);
    exec_invalidate_all(cpu);
}

/* Runs to a HLT; the vector of the handler that it stands in, or 256 when it is elsewhere, 257 on
 * shutdown. */
static inline unsigned sb_run(void)
{
    cpu->halted = false;
    enum cpu_exit why = cpu_run(cpu);
    if (why == CPU_EXIT_SHUTDOWN)
        return 257;
    g_assert_cmpint(why, ==, CPU_EXIT_HALT);
    uint64_t lin = cpu->rip + cpu->seg[SEG_CS].base - 1;
    return lin - SB_HANDLERS < 4096 ? (unsigned)(lin - SB_HANDLERS) / 16 : 256;
}

/* The nth item of the current stack. */
static inline uint64_t sb_stack(unsigned n, unsigned size)
{
    uint64_t sp = cpu->gpr[4];
    if (!(cpu->mode & MODE_CODE64))
        sp = cpu->seg[SEG_SS].base + (cpu->mode & MODE_SS32 ? (uint32_t)sp : (uint16_t)sp);
    return sb_peek(sp + n * size, size);
}
