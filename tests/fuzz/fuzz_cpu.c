/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The software CPU on any state and any code: the host neither crashes nor hangs, the state that
 * comes out goes in again unchanged, and taking it out and in at every instruction changes nothing.
 *
 * Input     A byte: mode preset. A byte: number of patches to the state (offset 2, value 8 bytes
 *           each); bit 7 asks for the last of the checks above. A byte: number of patches to memory
 *           (address 4, value 8). A byte: interrupt vector, or 0. Then code.
 */
#include "cpu/cpu.h"
#include "cpu/sys/internal.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM_SIZE 0x100000u
#define GDT 0x5000u
#define IDT 0x6000u
#define TSS 0x8000u
#define CODE 0x20000u
#define STACK 0x40000u
#define STEPS 64
#define RUN_US 300

static uint8_t *ram;
static struct cpu_shared *shared;
static struct cpu *cpu;
static uint32_t noise;
static int irq;
static sem_t watch_start, watch_done;

static void require(bool ok)
{
    if (!ok)
        abort();
}

/* Set by the check, whose inputs come out the same each time: leave out what time decides. */
static bool repeatable(void)
{
    static int set = -1;
    if (set < 0)
        set = getenv("RUCHE_FUZZ_REPEATABLE") != NULL;
    return set;
}

/* --- the machine --- */

static struct cpu_phys m_translate(void *opaque, uint64_t gpa)
{
    /* The last 64 KiB are ROM, shown below 4 GiB too. */
    if (gpa >= 0xffff0000 && gpa <= 0xffffffff)
        return (struct cpu_phys){ .hva = ram + RAM_SIZE - 0x10000 + (gpa & 0xffff) };
    uint64_t writable = RAM_SIZE - 0x10000;
    if (gpa < writable)
        return (struct cpu_phys){ ram + gpa, true, gpa, writable - gpa - 0x1000 };
    return (struct cpu_phys){ .hva = gpa < RAM_SIZE ? ram + gpa : NULL };
}

static uint64_t random_value(void)
{
    noise = noise * 1664525 + 1013904223;
    return (uint64_t)noise << 32 | noise * 2654435761u;
}

static uint64_t m_mmio_read(void *opaque, uint64_t gpa, unsigned size)
{
    require(size == 1 || size == 2 || size == 4 || size == 8);
    require(!(gpa & (size - 1)));
    return random_value();
}

static void m_mmio_write(void *opaque, uint64_t gpa, uint64_t val, unsigned size)
{
    require(size == 1 || size == 2 || size == 4 || size == 8);
}

static uint64_t m_io_read(void *opaque, uint16_t port, unsigned size)
{
    require(size == 1 || size == 2 || size == 4);
    return random_value();
}

static void m_io_write(void *opaque, uint16_t port, uint64_t val, unsigned size)
{
    require(size == 1 || size == 2 || size == 4);
}

static int m_irq_ack(void *opaque)
{
    int v = irq;
    irq = -1;
    return v;
}

static uint64_t m_tpr_read(void *opaque)
{
    return 0;
}

static void m_tpr_write(void *opaque, uint64_t cr8)
{
    require(cr8 < 16);
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

/* Stops each cpu_run() after a while. */
static void *watchdog(void *arg)
{
    for (;;) {
        while (sem_wait(&watch_start))
            ;
        usleep(RUN_US);
        cpu_raise_event(cpu, CPU_EV_STOP);
        sem_post(&watch_done);
    }
    return NULL;
}

static void set_up(void)
{
    static const struct cpu_topology one = { 1, 1, 1, 1 };
    pthread_t t;
    ram = aligned_alloc(4096, RAM_SIZE);
    shared = cpu_shared_new(cpu_model_parse("max", NULL), &one, RAM_SIZE);
    require(ram && shared);
    cpu = cpu_new(shared, 0, &callbacks, NULL);
    require(cpu && !sem_init(&watch_start, 0, 0) && !sem_init(&watch_done, 0, 0));
    require(!pthread_create(&t, NULL, watchdog, NULL));
}

/* --- a plausible guest --- */

static void poke(uint32_t gpa, uint64_t v)
{
    memcpy(ram + gpa, &v, 8);
}

static uint64_t desc(unsigned access, unsigned flags)
{
    return 0xffff | (uint64_t)access << 40 | 0xfull << 48 | (uint64_t)flags << 52;
}

static void fill_ram(bool wide)
{
    memset(ram, 0, RAM_SIZE);
    memset(ram + 0xa000, 0xcf, 0x1000); /* handlers: IRET */
    poke(0x1000, 0x2007);
    poke(0x2000, 0x3007);
    for (unsigned i = 0; i < 512; i++)
        poke(0x3000 + i * 8, (uint64_t)i << 21 | 0xe7);
    for (unsigned i = 0; i < 1024; i++) { /* 32-bit: 4 MiB pages */
        uint32_t e = i << 22 | 0xe7;
        memcpy(ram + 0x9000 + i * 4, &e, 4);
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
        memcpy(ram + v * 4, "\x00\xa0\x00\x00", 4);
}

static struct cpu_segment segment(unsigned sel)
{
    uint64_t raw;
    memcpy(&raw, ram + GDT + (sel & ~7u), 8);
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

/* KVM's hand-over: out, in and out again is the same. */
static void check_exchange(void)
{
    static struct cpu_arch_state a, b;
    cpu_get_state(cpu, &a);
    cpu_set_state(cpu, &a);
    cpu_get_state(cpu, &b);
    a.tsc = b.tsc = 0;
    require(!memcmp(&a, &b, sizeof(a)));
}

static void run(void)
{
    /* A pending event makes long string instructions give way. */
    cpu_raise_event(cpu, CPU_EV_STOP);
    for (unsigned i = 0; i < STEPS; i++)
        if (cpu_step(cpu) == CPU_EXIT_SHUTDOWN)
            return;
    check_exchange();
    require(cpu_run(cpu) == CPU_EXIT_STOP);
    if (repeatable())
        return;
    sem_post(&watch_start);
    while (cpu_run(cpu) != CPU_EXIT_STOP)
        usleep(20);
    while (sem_wait(&watch_done))
        ;
    check_exchange();
}

/* An exchange of the state drops the TLB and reads PAE's PDPTEs anew: guests can tell, so the plain
 * run does, too. */
static void forget_translations(void)
{
    mmu_flush_all(cpu);
    if (cpu->cr0 & CR0_PG && cpu->cr4 & CR4_PAE && !(cpu->efer & EFER_LMA))
        mmu_load_pdptes(cpu, cpu->cr3, false);
}

/* STEPS instructions from `from`; with `relay` the state leaves and comes back before each. */
static void walk(const struct cpu_arch_state *from, bool relay, struct cpu_arch_state *ret)
{
    static struct cpu_arch_state blank, s;
    noise = 1;
    cpu_reset(cpu, false);
    cpu_shared_written(shared, 0, RAM_SIZE);
    cpu_set_state(cpu, from);
    for (unsigned i = 0; i < STEPS; i++) {
        if (relay) {
            cpu_get_state(cpu, &s);
            cpu_set_state(cpu, &blank);
            cpu_set_state(cpu, &s);
        } else {
            forget_translations();
        }
        if (cpu_step(cpu) == CPU_EXIT_SHUTDOWN)
            break;
    }
    cpu_get_state(cpu, ret);
    ret->tsc = 0;
}

/* What KVM's hand-over relies on. Guests that look at clocks or random numbers differ from run to
 * run: a first pair of plain runs finds them. */
static void check_relay(const struct cpu_arch_state *from)
{
    static uint8_t before[RAM_SIZE], after[RAM_SIZE];
    static struct cpu_arch_state a, b;
    memcpy(before, ram, RAM_SIZE);
    cpu_raise_event(cpu, CPU_EV_STOP);
    walk(from, false, &a);
    memcpy(after, ram, RAM_SIZE);
    memcpy(ram, before, RAM_SIZE);
    walk(from, false, &b);
    bool same = !memcmp(&a, &b, sizeof(a)) && !memcmp(ram, after, RAM_SIZE);
    memcpy(ram, before, RAM_SIZE);
    walk(from, true, &b);
    if (same)
        require(!memcmp(&a, &b, sizeof(a)) && !memcmp(ram, after, RAM_SIZE));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cpu_arch_state state;
    struct input in = { data, size };
    if (!cpu)
        set_up();
    enum preset preset = take(&in, 1) % N_PRESETS;
    unsigned state_patches = take(&in, 1), ram_patches = take(&in, 1) & 31;
    unsigned vector = take(&in, 1) & 255;
    noise = (uint32_t)size;
    fill_ram(preset <= P_COMPAT);
    fill_state(&state, preset);
    patch_state(&state, &in, state_patches & 15);
    for (unsigned i = 0; i < ram_patches; i++) {
        uint32_t at = (uint32_t)take(&in, 4) % (RAM_SIZE - 8);
        poke(at, take(&in, 8));
    }
    size_t n = in.left < 0x1000 ? in.left : 0x1000;
    memcpy(ram + CODE, in.at, n);
    if (state_patches & 0x80) {
        check_relay(&state);
        return 0;
    }
    cpu_reset(cpu, false);
    cpu_shared_written(shared, 0, RAM_SIZE);
    cpu_set_state(cpu, &state);
    irq = vector ? (int)vector : -1;
    if (vector)
        cpu_raise_event(cpu, CPU_EV_INTR);
    run();
    return 0;
}
