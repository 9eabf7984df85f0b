/* SPDX-License-Identifier: GPL-2.0-or-later */
/* GDT, IDT, TSS, and what becomes of a trap: a test's handler, a catch, or the end. */
#include "guest.h"

struct this_cpu cpus[MAX_CPUS];
uint64_t gdt[SEL_TSS / 8 + 2 * MAX_CPUS] __attribute__((aligned(16))) = {
    [SEL_CODE / 8] = 0x00af9b000000ffff,   [SEL_DATA / 8] = 0x00cf93000000ffff,
    [SEL_USER32 / 8] = 0x00cffb000000ffff, [SEL_USER_DATA / 8] = 0x00cff3000000ffff,
    [SEL_USER64 / 8] = 0x00affb000000ffff, [SEL_CODE32 / 8] = 0x00cf9b000000ffff,
    [SEL_CODE16 / 8] = 0x00009b000000ffff, [SEL_DATA16 / 8] = 0x000093000000ffff,
};
struct gate idt[256] __attribute__((aligned(16)));
static trap_fn *handlers[256];
static uint8_t ist_stacks[MAX_CPUS][2][8192] __attribute__((aligned(16)));
static uint8_t user_stacks[MAX_CPUS][8192] __attribute__((aligned(4096)));
static uint8_t ring0_stacks[MAX_CPUS][8192] __attribute__((aligned(16)));

extern uint8_t trap_stubs[256][16];
extern uint8_t catch_resume[], user_return[];
int catch_call(void (*fn)(void *), void *arg, uint64_t *ret_rsp);
void user_enter(const void *start);

struct user_start {
    uint64_t rip, cs, flags, rsp, ss, rdi;
};

struct this_cpu *this_cpu(void)
{
    uint64_t tr = 0;
    __asm__("str %0" : "=r"(tr));
    return &cpus[(tr - SEL_TSS) / 16];
}

void gate_set(unsigned vector, uint64_t target, unsigned dpl, unsigned ist)
{
    idt[vector] = (struct gate){
        .off0 = (uint16_t)target,
        .sel = SEL_CODE,
        .ist = (uint8_t)ist,
        .type = (uint8_t)(0x8e | dpl << 5),
        .off1 = (uint16_t)(target >> 16),
        .off2 = (uint32_t)(target >> 32),
    };
}

static void load_tables(unsigned index)
{
    struct tss *tss = &cpus[index].tss;
    uint64_t base = (uint64_t)tss, limit = sizeof(*tss) - 1;
    gdt[SEL_TSS / 8 + 2 * index] =
        (limit & 0xffff) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[SEL_TSS / 8 + 2 * index + 1] = base >> 32;
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) g = { sizeof(gdt) - 1, (uint64_t)gdt },
                              i = { sizeof(idt) - 1, (uint64_t)idt };
    __asm__ volatile("lgdt %0; lidt %1" ::"m"(g), "m"(i) : "memory");
    __asm__ volatile("ltr %w0" ::"r"(SEL_TSS + 16 * index));
}

void cpu_tables_init(unsigned index)
{
    struct tss *tss = &cpus[index].tss;
    cpus[index].index = index;
    tss->rsp[0] = (uint64_t)ring0_stacks[index] + sizeof(ring0_stacks[0]);
    tss->ist[0] = (uint64_t)ist_stacks[index][0] + sizeof(ist_stacks[0][0]);
    tss->ist[1] = (uint64_t)ist_stacks[index][1] + sizeof(ist_stacks[0][0]);
    tss->iomap = sizeof(*tss);
    if (index == 0) {
        for (unsigned v = 0; v < 256; v++) {
            bool user = v == 3 || v == 4 || (v >= 0x80 && v < 0x90);
            gate_set(v, (uint64_t)trap_stubs[v], user ? 3 : 0, v == 8 ? 1 : 0);
        }
    }
    load_tables(index);
}

void trap_set(unsigned vector, trap_fn *fn)
{
    __atomic_store_n(&handlers[vector], fn, __ATOMIC_RELEASE);
}

static void die(const struct frame *f)
{
    print("FAILED unexpected vector %lu error 0x%lx at 0x%lx cs 0x%lx flags 0x%lx rsp 0x%lx cr2 "
          "0x%lx "
          "rax 0x%lx on vCPU %u\n",
          f->vector, f->error, f->rip, f->cs, f->flags, f->rsp, read_cr2(), f->rax,
          this_cpu()->index);
    exit_machine(1);
}

void trap_dispatch(struct frame *f)
{
    trap_fn *fn = __atomic_load_n(&handlers[f->vector & 0xff], __ATOMIC_ACQUIRE);
    if (fn) {
        fn(f);
        return;
    }
    struct this_cpu *c = this_cpu();
    if (!c->catch_rsp)
        die(f);
    if (f->vector == 13 && f->rip == (uint64_t)user_return)
        f->vector = USER_DONE;
    c->caught = *f;
    c->caught_cr2 = read_cr2();
    f->rip = (uint64_t)catch_resume;
    f->cs = SEL_CODE;
    f->ss = SEL_DATA;
    f->flags = c->catch_flags;
    f->rsp = c->catch_rsp;
    c->catch_rsp = 0;
}

int catch_trap(void (*fn)(void *arg), void *arg)
{
    struct this_cpu *c = this_cpu();
    c->catch_flags = read_flags();
    if (catch_call(fn, arg, &c->catch_rsp))
        return (int)c->caught.vector;
    c->catch_rsp = 0;
    return -1;
}

static void enter(void *start)
{
    user_enter(start);
}

int catch_user_at(uint64_t rip, uint64_t rsp, uint16_t cs, uint64_t flags, uint64_t rdi)
{
    struct user_start s = { rip, cs, flags, rsp, SEL_USER_DATA, rdi };
    return catch_trap(enter, &s);
}

int catch_user(void (*fn)(void *arg), void *arg)
{
    uint64_t *top = (uint64_t *)(user_stacks[this_cpu()->index] + sizeof(user_stacks[0])) - 1;
    *top = (uint64_t)user_return;
    return catch_user_at((uint64_t)fn, (uint64_t)top, SEL_USER64, 2, (uint64_t)arg);
}
