/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The fuzz targets' machine. */
#include "fuzz_machine.h"

#include <stdlib.h>

#define GDT 0x5000u
#define IDT 0x6000u
#define TSS 0x8000u
#define CODE 0x20000u
#define STACK 0x40000u

uint8_t *fuzz_ram;
struct cpu_shared *fuzz_shared;
struct cpu *fuzz_cpu;
uint32_t fuzz_noise;
int fuzz_irq;

void fuzz_require(bool ok)
{
    if (!ok)
        abort();
}

/* --- the machine --- */

static struct cpu_phys m_translate(void *opaque, uint64_t gpa)
{
    /* The last 64 KiB are ROM, shown below 4 GiB too. */
    if (gpa >= 0xffff0000 && gpa <= 0xffffffff)
        return (struct cpu_phys){ .hva = fuzz_ram + RAM_SIZE - 0x10000 + (gpa & 0xffff) };
    uint64_t writable = RAM_SIZE - 0x10000;
    if (gpa < writable)
        return (struct cpu_phys){ fuzz_ram + gpa, true, gpa, writable - gpa - 0x1000 };
    return (struct cpu_phys){ .hva = gpa < RAM_SIZE ? fuzz_ram + gpa : NULL };
}

static uint64_t random_value(void)
{
    fuzz_noise = fuzz_noise * 1664525 + 1013904223;
    return (uint64_t)fuzz_noise << 32 | fuzz_noise * 2654435761u;
}

static uint64_t m_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
    fuzz_require(size == 1 || size == 2 || size == 4 || size == 8);
    fuzz_require(!(gpa & (size - 1)));
    return random_value();
}

static void m_mmio_write(void *opaque, uint64_t gpa, uint64_t val, unsigned size)
{
    fuzz_require(size == 1 || size == 2 || size == 4 || size == 8);
}

static uint64_t m_io_read(void *opaque, uint16_t port, unsigned size)
{
    fuzz_require(size == 1 || size == 2 || size == 4);
    return random_value();
}

static void m_io_write(void *opaque, uint16_t port, uint64_t val, unsigned size)
{
    fuzz_require(size == 1 || size == 2 || size == 4);
}

static int m_irq_ack(void *opaque)
{
    int v = fuzz_irq;
    fuzz_irq = -1;
    return v;
}

static uint64_t m_tpr_read(void *opaque)
{
    return 0;
}

static void m_tpr_write(void *opaque, uint64_t cr8)
{
    fuzz_require(cr8 < 16);
}

static int m_apic_read(void *opaque, uint32_t msr, uint64_t *ret)
{
    *ret = 0xfee00900;
    return 0;
}

static int m_apic_write(void *opaque, uint32_t msr, uint64_t val)
{
    return 0;
}

static const struct cpu_callbacks callbacks = {
    .translate = m_translate, .mmio_read = m_mmio_read, .mmio_write = m_mmio_write, .io_read = m_io_read,
    .io_write = m_io_write, .irq_ack = m_irq_ack, .tpr_read = m_tpr_read, .tpr_write = m_tpr_write,
    .apic_msr_read = m_apic_read, .apic_msr_write = m_apic_write,
};

void fuzz_machine_init(enum cpu_translate how)
{
    static const struct cpu_topology one = { 1, 1, 1, 1 };

    fuzz_ram = aligned_alloc(4096, RAM_SIZE);
    fuzz_shared = cpu_shared_new(cpu_model_parse("max", NULL), &one, RAM_SIZE);
    fuzz_require(fuzz_ram && fuzz_shared && !cpu_shared_set_translate(fuzz_shared, how, 0));
    fuzz_cpu = cpu_new(fuzz_shared, 0, &callbacks, NULL);
    fuzz_require(fuzz_cpu);
}

/* --- a plausible guest --- */

static void poke(uint32_t gpa, uint64_t v)
{
    memcpy(fuzz_ram + gpa, &v, 8);
}

static uint64_t desc(unsigned access, unsigned flags)
{
    return 0xffff | (uint64_t)access << 40 | 0xfull << 48 | (uint64_t)flags << 52;
}

static void fill_ram(bool wide)
{
    memset(fuzz_ram, 0, RAM_SIZE);
    memset(fuzz_ram + 0xa000, 0xcf, 0x1000); /* handlers: IRET */
    poke(0x1000, 0x2007);
    poke(0x2000, 0x3007);
    for (unsigned i = 0; i < 512; i++)
        poke(0x3000 + i * 8, (uint64_t)i << 21 | 0xe7);
    for (unsigned i = 0; i < 1024; i++) { /* 32-bit: 4 MiB pages */
        uint32_t e = i << 22 | 0xe7;
        memcpy(fuzz_ram + 0x9000 + i * 4, &e, 4);
    }
    poke(0x4000, 0x3001); /* PAE */
    static const uint8_t access[] = { 0, 0x9b, 0x93, 0xfb, 0xf3, 0x9b, 0xfb, 0x9e, 0x9b, 0x93 };
    static const uint8_t flags[] = { 0, 12, 12, 12, 12, 10, 10, 12, 0, 0 };
    for (unsigned i = 0; i < sizeof(access); i++)
        poke(GDT + i * 8, desc(access[i], flags[i]));
    poke(GDT + 0x50, (uint64_t)0x8b << 40 | (uint64_t)TSS << 16 | 0x1067);
    poke(GDT + 0x60, (uint64_t)0x89 << 40 | (uint64_t)(TSS + 0x100) << 16 | 0x67);
    poke(GDT + 0x70, (uint64_t)0xec << 40 | (uint64_t)(wide ? 0x28 : 8) << 16 | 0xa000);
    poke(GDT + 0x80, (uint64_t)0xe5 << 40 | 0x60ull << 16);
    for (unsigned v = 0; v < 256; v++) {
        uint64_t gate = 0xa000 | (uint64_t)(wide ? 0x28 : 8) << 16 | (uint64_t)0xee << 40;
        poke(IDT + v * (wide ? 16 : 8), gate);
    }
    poke(TSS + 4, wide ? STACK - 0x1000 : (uint64_t)0x10 << 32 | (STACK - 0x1000));
    poke(TSS + 0x64, 0x68ull << 16);
    for (unsigned v = 0; v < 256; v++)
        memcpy(fuzz_ram + v * 4, "\x00\xa0\x00\x00", 4);
}

static struct cpu_segment segment(unsigned sel)
{
    uint64_t raw;
    memcpy(&raw, fuzz_ram + GDT + (sel & ~7u), 8);
    return seg_from_desc((uint16_t)sel, raw);
}

enum preset { P_LONG, P_LONG_USER, P_COMPAT, P_32, P_32_PAGED, P_PAE, P_REAL, P_VM86, N_PRESETS };

static const struct {
    uint32_t cr0, cr3, cr4, efer, rflags;
    uint8_t cs, ds;
} presets[N_PRESETS] = {
    [P_LONG] = { 0x80010033, 0x1000, 0x6a0, 0xd01, 2, 0x28, 0x10 },
    [P_LONG_USER] = { 0x80050033, 0x1000, 0x106a0, 0xd01, 0x202, 0x33, 0x23 },
    [P_COMPAT] = { 0x80010033, 0x1000, 0x6a0, 0xd01, 0x3202, 0x1b, 0x23 },
    [P_32] = { 0x11, 0, 0x610, 0, 2, 0x08, 0x10 },
    [P_32_PAGED] = { 0x80010011, 0x9000, 0x610, 0, 0x202, 0x1b, 0x23 },
    [P_PAE] = { 0x80010011, 0x4000, 0x620, 0x800, 2, 0x08, 0x10 },
    [P_REAL] = { 0x10, 0, 0, 0, 2, 0, 0 },
    [P_VM86] = { 0x11, 0, 0, 0, 0x23202, 0, 0 },
};

static void fill_state(struct cpu_arch_state *s, enum preset p)
{
    memset(s, 0, sizeof(*s));
    s->cr0 = presets[p].cr0;
    s->cr3 = presets[p].cr3;
    s->cr4 = presets[p].cr4;
    s->efer = presets[p].efer;
    s->rflags = presets[p].rflags;
    s->xcr0 = 7;
    s->dr[6] = 0xffff0ff0;
    s->dr[7] = 0x400;
    for (unsigned i = 0; i < 6; i++) {
        if (p == P_REAL || p == P_VM86)
            s->seg[i] = (struct cpu_segment){ .base = i == 1 ? CODE : 0, .selector = i == 1 ? CODE >> 4 : 0,
                                              .limit = 0xffff, .type = 3, .s = true, .present = true,
                                              .dpl = p == P_VM86 ? 3 : 0 };
        else
            s->seg[i] = segment(i == 1 ? presets[p].cs : presets[p].ds);
    }
    s->tr = segment(0x50);
    s->ldtr = seg_null(0);
    s->gdtr = (struct cpu_dtable){ GDT, 0x8f };
    s->idtr = (struct cpu_dtable){ p == P_REAL ? 0 : IDT, 0xfff };
    s->rip = s->seg[1].base ? 0 : CODE;
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = 0x30000 + i * 0x100;
    s->gpr[4] = STACK;
    if (s->seg[1].base)
        s->gpr[4] = 0xf000;
    s->star = 0x0023000800000000 | 0x20000;
    s->lstar = s->cstar = 0xa000;
    s->sysenter_cs = 8;
    s->sysenter_eip = 0xa000;
    memcpy(s->xsave, &(uint16_t){ 0x37f }, 2);
    memcpy(s->xsave + 24, &(uint32_t){ 0x1f80 }, 4);
}

/* --- input --- */

struct input {
    const uint8_t *at;
    size_t left;
};

static uint64_t take(struct input *in, unsigned n)
{
    uint64_t v = 0;
    if (in->left < n) {
        in->left = 0;
        return 0;
    }
    memcpy(&v, in->at, n);
    in->at += n;
    in->left -= n;
    return v;
}

/* Members of type bool hold a bool, whatever was patched over them. */
static void mend_bool(bool *b)
{
    *(uint8_t *)b &= 1;
}

static void mend_segment(struct cpu_segment *s)
{
    bool *b[] = { &s->s, &s->present, &s->avl, &s->l, &s->db, &s->g, &s->unusable };
    for (unsigned i = 0; i < sizeof(b) / sizeof(b[0]); i++)
        mend_bool(b[i]);
}

static void patch_state(struct cpu_arch_state *s, struct input *in, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        size_t off = take(in, 2) % (sizeof(*s) - 7);
        uint64_t v = take(in, 8);
        memcpy((uint8_t *)s + off, &v, 8);
    }
    for (unsigned i = 0; i < 6; i++)
        mend_segment(&s->seg[i]);
    mend_segment(&s->ldtr);
    mend_segment(&s->tr);
    mend_bool(&s->nmi_blocked);
    mend_bool(&s->sti_shadow);
    mend_bool(&s->movss_shadow);
    mend_bool(&s->halted);
}

void fuzz_guest_make(const uint8_t *data, size_t size, struct fuzz_guest *ret)
{
    struct input in = { data, size };
    enum preset preset = take(&in, 1) % N_PRESETS;
    unsigned ram_patches;

    ret->state_patches = take(&in, 1);
    ram_patches = take(&in, 1) & 31;
    ret->vector = take(&in, 1) & 255;
    fuzz_noise = (uint32_t)size;
    fill_ram(preset <= P_COMPAT);
    fill_state(&ret->state, preset);
    patch_state(&ret->state, &in, ret->state_patches & 15);
    for (unsigned i = 0; i < ram_patches; i++) {
        uint32_t at = (uint32_t)take(&in, 4) % (RAM_SIZE - 8);
        poke(at, take(&in, 8));
    }
    size_t n = in.left < 0x1000 ? in.left : 0x1000;
    if (n)
        memcpy(fuzz_ram + CODE, in.at, n);
}
