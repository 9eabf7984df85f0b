/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Our side: two machines of one processor and 256 KiB of memory, in long mode at CPL 3 from the start. One interprets,
 * the other translates every block at once.
 *
 * Every exception goes to a handler of its own, a HLT, on a stack of its own (IST 1): where the processor
 * halts says what happened, and the frame on that stack says the rest.
 */
#include "cpu/cpu.h"
#include "cpu/test/oracle.h"
#include "cpu/translate/translate.h"

#include <stdlib.h>
#include <string.h>

#define RAM_BYTES (256 * KIB)
#define K_BASE 0xffffffff80000000ull /* supervisor pages */
#define K_IDT (K_BASE + 0x0000)
#define K_GDT (K_BASE + 0x1000)
#define K_TSS (K_BASE + 0x1800)
#define K_HANDLERS (K_BASE + 0x2000)
#define K_STACK (K_BASE + 0x3000)
#define K_STACK_TOP (K_STACK + 0x1000)
#define K_PAGES 4

#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_U 4ull
#define PTE_NX (1ull << 63)

static struct machine {
    uint8_t *ram;
    uint64_t next_page; /* first unused physical page */
    uint64_t code_pa, mem_pa, k_pa;
    struct cpu_model *model;
    struct cpu_shared *shared;
    struct cpu *cpu;
    struct cpu_arch_state start;
} machines[2], *soft = machines; /* one interprets, one translates */

static struct cpu_phys soft_translate(void *opaque, uint64_t gpa)
{
    struct machine *m = opaque;

    if (gpa >= RAM_BYTES)
        return (struct cpu_phys){ 0 };
    return (struct cpu_phys){ .hva = m->ram + gpa, .writable = true };
}

static uint64_t all_ones(void *opaque, uint64_t gpa, unsigned size)
{
    return ~0ull;
}

static void ignore_write(void *opaque, uint64_t gpa, uint64_t val, unsigned size)
{
}

static uint64_t io_ones(void *opaque, uint16_t port, unsigned size)
{
    return ~0ull;
}

static void io_ignore(void *opaque, uint16_t port, uint64_t val, unsigned size)
{
}

static int no_irq(void *opaque)
{
    return -1;
}

static uint64_t no_tpr(void *opaque)
{
    return 0;
}

static void tpr_ignore(void *opaque, uint64_t cr8)
{
}

static int no_apic_read(void *opaque, uint32_t msr, uint64_t *ret_val)
{
    return -1;
}

static int no_apic_write(void *opaque, uint32_t msr, uint64_t val)
{
    return -1;
}

static const struct cpu_callbacks callbacks = {
    .translate = soft_translate, .mmio_read = all_ones, .mmio_write = ignore_write,
    .io_read = io_ones, .io_write = io_ignore, .irq_ack = no_irq, .tpr_read = no_tpr,
    .tpr_write = tpr_ignore, .apic_msr_read = no_apic_read, .apic_msr_write = no_apic_write,
};

static uint64_t page_alloc(unsigned count)
{
    uint64_t pa = soft->next_page;

    soft->next_page += (uint64_t)count * T_PAGE;
    return pa;
}

static void map_page(uint64_t lin, uint64_t pa, uint64_t flags)
{
    uint64_t table = 0x1000;

    for (unsigned shift = 39; shift > 12; shift -= 9) {
        uint64_t *e = (uint64_t *)(soft->ram + table) + (lin >> shift & 511);
        if (!*e)
            *e = page_alloc(1) | PTE_P | PTE_W | PTE_U;
        table = *e & 0xffffffffff000ull;
    }
    ((uint64_t *)(soft->ram + table))[lin >> 12 & 511] = pa | flags | PTE_P;
}

static void map_range(uint64_t lin, uint64_t pa, unsigned pages, uint64_t flags)
{
    for (unsigned k = 0; k < pages; k++)
        map_page(lin + k * T_PAGE, pa + k * T_PAGE, flags);
}

static void put64(uint64_t k_linear, uint64_t v)
{
    memcpy(soft->ram + soft->k_pa + (k_linear - K_BASE), &v, 8);
}

static uint64_t get64(uint64_t k_linear)
{
    uint64_t v;

    memcpy(&v, soft->ram + soft->k_pa + (k_linear - K_BASE), 8);
    return v;
}

static void build_tables(void)
{
    for (unsigned v = 0; v < 256; v++) {
        uint64_t at = K_HANDLERS + 16ull * (v & 31);
        uint64_t dpl = v == 3 || v == 4 ? 3 : 0;
        put64(K_IDT + 16 * v, (at & 0xffff) | 0x10 << 16 | 1ull << 32 | (0x8e00ull | dpl << 13) << 32 |
                                  (at >> 16 & 0xffff) << 48);
        put64(K_IDT + 16 * v + 8, at >> 32);
    }
    for (unsigned v = 0; v < 32; v++)
        put64(K_HANDLERS + 16 * v, 0xf4f4f4f4f4f4f4f4ull); /* hlt */
    put64(K_GDT + 0x10, 0x00af9b000000ffffull);
    put64(K_GDT + 0x18, 0x00cf93000000ffffull);
    put64(K_GDT + 0x20, 0x00cffb000000ffffull);
    put64(K_GDT + 0x28, 0x00cff3000000ffffull);
    put64(K_GDT + 0x30, 0x00affb000000ffffull);
    put64(K_TSS + 4, K_STACK_TOP);  /* RSP0 */
    put64(K_TSS + 36, K_STACK_TOP); /* IST1 */
    put64(K_TSS + 96, 0x68ull << 48); /* no I/O bitmap */
}

static void build_state(struct cpu_arch_state *s)
{
    cpu_get_state(soft->cpu, s);
    s->cr0 = 0x80050033;
    s->cr3 = 0x1000;
    s->cr4 = 0x50620 | 0x80;
    s->efer = 0xd01;
    s->xcr0 = 7;
    s->gdtr = (struct cpu_dtable){ K_GDT, 0x4f };
    s->idtr = (struct cpu_dtable){ K_IDT, 0xfff };
    s->tr = (struct cpu_segment){ .base = K_TSS, .limit = 0x67, .selector = 0x40, .type = 11, .present = true };
    s->ldtr = (struct cpu_segment){ .type = 2, .unusable = true };
    for (unsigned k = 0; k < 6; k++)
        s->seg[k] = (struct cpu_segment){ .limit = ~0u, .selector = 0x2b, .type = 3, .dpl = 3, .s = true,
                                          .present = true, .db = true, .g = true };
    for (unsigned k = 4; k < 6; k++)
        s->seg[k] = (struct cpu_segment){ .unusable = true };
    s->seg[5].base = T_GS_BASE;
    s->seg[1].type = 11;
}

static bool machine_init(bool translate, char **ret_error)
{
    const struct cpu_topology one = { 1, 1, 1, 1 };

    soft->ram = aligned_alloc(T_PAGE, RAM_BYTES);
    if (!soft->ram)
        return false;
    memset(soft->ram, 0, RAM_BYTES);
    soft->next_page = 0x2000; /* the root is at 0x1000 */
    soft->code_pa = page_alloc(2);
    soft->mem_pa = page_alloc(MEM_BYTES / T_PAGE);
    soft->k_pa = page_alloc(K_PAGES);
    memset(soft->ram + soft->code_pa, 0xcc, 2 * T_PAGE);
    map_range(T_CODE, soft->code_pa, 2, PTE_W | PTE_U);
    map_range(T_DATA, soft->mem_pa + MEM_DATA, 2, PTE_W | PTE_U | PTE_NX);
    map_range(T_LOW, soft->mem_pa + MEM_LOW, 2, PTE_W | PTE_U | PTE_NX);
    map_range(T_RO, soft->mem_pa + MEM_RO, 1, PTE_U | PTE_NX);
    map_range(K_BASE, soft->k_pa, K_PAGES, PTE_W);
    build_tables();
    soft->model = cpu_model_parse("max", ret_error);
    if (!soft->model)
        return false;
    soft->shared = cpu_shared_new(soft->model, &one, RAM_BYTES);
    if (!soft->shared)
        return false;
    if (translate && cpu_shared_set_translate(soft->shared, CPU_TRANSLATE_ON, 0))
        return false;
    if (translate)
        translate_set_eager(soft->shared);
    soft->cpu = cpu_new(soft->shared, 0, &callbacks, soft);
    if (!soft->cpu)
        return false;
    build_state(&soft->start);
    return true;
}

bool soft_init(char **ret_error)
{
    for (unsigned k = 0; k < 2; k++) {
        soft = &machines[k];
        if (!machine_init(k == 1, ret_error))
            return false;
    }
    return true;
}

void soft_done(void)
{
    for (soft = machines; soft < machines + 2; soft++) {
        cpu_free(soft->cpu);
        cpu_shared_free(soft->shared);
        cpu_model_free(soft->model);
        free(soft->ram);
    }
}

static void put_code(const struct test_case *t)
{
    memset(soft->ram + soft->code_pa, 0xcc, 2 * T_PAGE);
    memcpy(soft->ram + soft->code_pa + (t->in.rip - T_CODE), t->code, t->code_len);
    cpu_shared_written(soft->shared, soft->code_pa, 2 * T_PAGE);
}

static void load(const struct test_case *t)
{
    struct cpu_arch_state *s = &soft->start;

    memcpy(s->gpr, t->in.gpr, sizeof(s->gpr));
    s->rip = t->in.rip;
    s->rflags = t->in.rflags;
    s->seg[1].selector = t->mode32 ? 0x23 : 0x33;
    s->seg[1].l = !t->mode32;
    s->seg[1].db = t->mode32;
    memcpy(s->xsave, t->in.xsave, T_XSAVE);
    cpu_set_state(soft->cpu, s);
}

/* The frame on the handler's stack: [error] rip cs rflags rsp ss. */
static void fetch(struct outcome *ret)
{
    struct cpu_arch_state s;

    cpu_get_state(soft->cpu, &s);
    uint64_t frame = s.gpr[4];
    if (s.rip < K_HANDLERS || s.rip >= K_HANDLERS + 512 || frame < K_STACK || frame > K_STACK_TOP - 40) {
        ret->vector = VECTOR_NONE;
        return;
    }
    ret->vector = (int)((s.rip - K_HANDLERS) / 16);
    ret->error = 0;
    if (K_STACK_TOP - frame == 48) {
        ret->error = (uint32_t)get64(frame);
        frame += 8;
    }
    memcpy(ret->out.gpr, s.gpr, sizeof(s.gpr));
    ret->out.rip = get64(frame);
    ret->out.rflags = get64(frame + 16);
    ret->out.gpr[4] = get64(frame + 24);
    ret->cr2 = ret->vector == 14 ? s.cr2 : 0;
    memcpy(ret->out.xsave, s.xsave, T_XSAVE);
}

static bool in_handler(void)
{
    struct cpu_arch_state s;

    cpu_get_state(soft->cpu, &s);
    return s.rip >= K_HANDLERS && s.rip < K_HANDLERS + 512;
}

void soft_run(const struct test_case *t, enum soft_how how, struct outcome *ret, uint8_t mem[MEM_BYTES])
{
    soft = &machines[how == SOFT_TRANSLATE];
    memory_fill(t->mem_seed, soft->ram + soft->mem_pa);
    put_code(t);
    load(t);
    ret->vector = VECTOR_NONE;
    if (how == SOFT_STEP) {
        for (unsigned n = 0; n < 2000 && !in_handler(); n++)
            if (cpu_step(soft->cpu) != CPU_EXIT_DEBUG)
                break;
        if (in_handler())
            fetch(ret);
    } else if (cpu_run(soft->cpu) == CPU_EXIT_HALT) {
        fetch(ret);
    }
    memcpy(mem, soft->ram + soft->mem_pa, MEM_BYTES);
}
