/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A small machine for the tests of the processor's parts: RAM from 0, nothing else. 64-bit mode, the first GiB
 * mapped to itself, supervisor. */
#pragma once

#include "cpu/cpu.h"
#include "cpu/exec/exec.h"
#include "cpu/shared.h"

#include <glib.h>
#include <stdlib.h>

#define BED_RAM (8 * MIB)
#define BED_CODE 0x100000u
#define BED_STACK 0x200000u
#define BED_DATA 0x300000u

struct bed {
    struct cpu_model *model;
    struct cpu_shared *shared;
    struct cpu *cpu;       /* the first */
    uint8_t *ram;          /* shared by all beds made with bed_join() */
    bool owner;
    unsigned mmio_writes;
    int irq;               /* vector to deliver, or -1 */
    uint64_t event_page;   /* translating this page raises CPU_EV_INTR; 0: none. Set before it is known */
};

static inline struct cpu_phys bed_translate(void *opaque, uint64_t gpa)
{
    struct bed *b = opaque;

    if (b->event_page && gpa == b->event_page)
        cpu_raise_event(b->cpu, CPU_EV_INTR);
    if (gpa >= BED_RAM)
        return (struct cpu_phys){ .hva = NULL };
    if (b->event_page)
        return (struct cpu_phys){ .hva = b->ram + gpa, .writable = true };
    return (struct cpu_phys){ b->ram + gpa, true, gpa, BED_RAM - gpa - PAGE_SIZE };
}

static inline uint64_t bed_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
    return gpa & 0xffffffff;
}

static inline void bed_mmio_write(void *opaque, uint64_t gpa, uint64_t val, unsigned size)
{
    ((struct bed *)opaque)->mmio_writes++;
}

static inline uint64_t bed_io_read(void *opaque, uint16_t port, unsigned size)
{
    return 0;
}

static inline void bed_io_write(void *opaque, uint16_t port, uint64_t val, unsigned size)
{
}

static inline int bed_irq_ack(void *opaque)
{
    struct bed *b = opaque;
    int v = b->irq;
    b->irq = -1;
    return v;
}

static inline uint64_t bed_tpr_read(void *opaque)
{
    return 0;
}

static inline void bed_tpr_write(void *opaque, uint64_t cr8)
{
}

static inline int bed_apic_msr_read(void *opaque, uint32_t msr, uint64_t *ret)
{
    *ret = 0;
    return 0;
}

static inline int bed_apic_msr_write(void *opaque, uint32_t msr, uint64_t val)
{
    return 0;
}

static const struct cpu_callbacks bed_callbacks = {
    .translate = bed_translate, .mmio_read = bed_mmio_read, .mmio_write = bed_mmio_write,
    .io_read = bed_io_read, .io_write = bed_io_write, .irq_ack = bed_irq_ack, .tpr_read = bed_tpr_read,
    .tpr_write = bed_tpr_write, .apic_msr_read = bed_apic_msr_read, .apic_msr_write = bed_apic_msr_write,
};

static inline void bed_poke64(struct bed *b, uint64_t gpa, uint64_t v)
{
    memcpy(b->ram + gpa, &v, 8);
}

/* The first GiB onto itself, by 4 KiB pages below 4 MiB. */
static inline void bed_map(struct bed *b)
{
    bed_poke64(b, 0x1000, 0x2000 | 7);
    bed_poke64(b, 0x2000, 0x3000 | 7);
    for (unsigned k = 2; k < 512; k++)
        bed_poke64(b, 0x3000 + 8 * k, (uint64_t)k << 21 | 0x87);
    bed_poke64(b, 0x3000, 0x4000 | 7);
    bed_poke64(b, 0x3008, 0x5000 | 7);
    for (unsigned k = 0; k < 1024; k++)
        bed_poke64(b, 0x4000 + 8 * k, (uint64_t)k << 12 | 7);
}

/* Page table entry of an address below 4 MiB. */
static inline void bed_map_page(struct bed *b, uint64_t lin, uint64_t pte)
{
    bed_poke64(b, 0x4000 + (lin >> 12) * 8, pte);
}

/* GDT: 8 code, 10h data. IDT: vector v halts at BED_HANDLER + 16 v; rip is then one more. */
#define BED_HANDLER 0x8000u
static inline void bed_tables(struct bed *b, struct cpu *c)
{
    bed_poke64(b, 0x6008, 0x00af9b000000ffff);
    bed_poke64(b, 0x6010, 0x00cf93000000ffff);
    c->gdtr = (struct cpu_dtable){ 0x6000, 0x17 };
    c->idtr = (struct cpu_dtable){ 0x7000, 64 * 16 - 1 };
    for (unsigned v = 0; v < 64; v++) {
        uint64_t to = BED_HANDLER + 16 * v;
        bed_poke64(b, 0x7000 + 16 * v, (to & 0xffff) | 8 << 16 | 0x8eull << 40);
        bed_poke64(b, 0x7008 + 16 * v, 0);
        b->ram[to] = 0xf4;
    }
}

static inline void bed_long_mode(struct bed *b, struct cpu *c)
{
    struct cpu_segment data = { .limit = UINT32_MAX, .selector = 0x10, .type = 3, .s = true,
                                .present = true, .db = true, .g = true };
    for (unsigned k = 0; k < N_SEGS; k++)
        c->seg[k] = data;
    c->seg[SEG_CS].selector = 8;
    c->seg[SEG_CS].type = 11;
    c->seg[SEG_CS].l = true;
    c->seg[SEG_CS].db = false;
    c->cr0 = 0x80010033;
    c->cr4 = 0x620; /* PAE, OSFXSR, OSXMMEXCPT */
    c->efer = 0xd00; /* LME, LMA, NXE */
    c->cr3 = 0x1000;
    c->cpl = 0;
    c->rip = BED_CODE;
    c->gpr[4] = BED_STACK;
    c->flags_sys = 2;
    c->flags_ax = 0;
    mmu_set_cr3(c, 0x1000, false);
    mmu_flush_all(c);
    cpu_update_mode(c);
}

static inline struct bed *bed_new(const char *model)
{
    struct bed *b = g_new0(struct bed, 1);
    char *error = NULL;
    struct cpu_topology t = { 1, 1, 4, 1 };

    b->model = cpu_model_parse(model, &error);
    g_assert_nonnull(b->model);
    b->shared = cpu_shared_new(b->model, &t, BED_RAM);
    b->ram = g_malloc0(BED_RAM);
    b->owner = true;
    b->irq = -1;
    b->cpu = cpu_new(b->shared, 0, &bed_callbacks, b);
    g_assert_nonnull(b->cpu);
    bed_map(b);
    bed_tables(b, b->cpu);
    bed_long_mode(b, b->cpu);
    return b;
}

static inline void bed_free(struct bed *b)
{
    cpu_free(b->cpu);
    cpu_shared_free(b->shared);
    cpu_model_free(b->model);
    g_free(b->ram);
    g_free(b);
}

/* Code at BED_CODE; HLT ends a run. */
static inline void bed_code(struct bed *b, const void *code, size_t len)
{
    memcpy(b->ram + BED_CODE, code, len);
}
#define BED_CODE_BYTES(b, ...)                                                                     \
    bed_code(b, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))
