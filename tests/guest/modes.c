/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The older modes: segments and their limits, call gates, ring 3, virtual-8086 mode, real mode,
 * tasks, paging without long mode, and the way into long mode and back. A 32-bit payload.
 *
 * Spec      Intel SDM volume 3, chapters 3, 5, 7 (tasks), 9.9 (mode switches), 20 (8086 emulation).
 */
#include "lib/guest32.h"

#define LOW 0x7000u /* 16-bit code goes here */

/* --- segments --- */

static uint8_t area[8192] __attribute__((aligned(4096)));

struct access {
    uint16_t selector;
    uint32_t offset;
    bool write;
};

static void touch(void *arg)
{
    const struct access *a = arg;
    if (a->write)
        __asm__ volatile("mov %0, %%fs; movb $7, %%fs:(%1)" ::"r"(a->selector), "r"(a->offset)
                         : "memory");
    else
        __asm__ volatile("mov %0, %%fs; movb %%fs:(%1), %%al" ::"r"(a->selector), "r"(a->offset)
                         : "eax", "memory");
}

static int at(uint16_t selector, uint32_t offset, bool write)
{
    struct access a = { selector, offset, write };
    return catch32(touch, &a);
}

static void test_segments(void)
{
    gdt32[S_SMALL / 8] = segment32((uint32_t)area, 99, 0x93, 4);
    check_eq(at(S_SMALL, 99, true), -1, "the last byte under the limit");
    check_eq(area[99], 7, "it is where base and offset say");
    check_eq(at(S_SMALL, 100, false), 13, "the first byte over the limit");
    check_eq(caught.error, 0, "its error code");
    gdt32[S_SMALL / 8] = segment32((uint32_t)area, 99, 0x91, 4);
    check_eq(at(S_SMALL, 0, true), 13, "a write to a read-only segment");
    check_eq(at(S_SMALL, 0, false), -1, "a read of it");
    gdt32[S_SMALL / 8] = segment32((uint32_t)area, 99, 0x99, 4);
    check_eq(at(S_SMALL, 0, false), 13, "execute-only code in FS");
    check_eq(caught.error, S_SMALL, "its error code is the selector");
    gdt32[S_DOWN / 8] = segment32((uint32_t)area, 0xfff, 0x97, 4);
    check_eq(at(S_DOWN, 0xfff, false), 13, "expand-down: at the limit");
    check_eq(at(S_DOWN, 0x1000, true), -1, "expand-down: above it");
    check_eq(area[0x1000], 7, "where it went");
    check_eq(at(0, 0, false), 13, "a null segment used");
    gdt32[S_SMALL / 8] = segment32((uint32_t)area, 0, 0x93, 0xc);
    check_eq(at(S_SMALL, 0xfff, false), -1, "a limit in pages: the last byte of page 0");
    check_eq(at(S_SMALL, 0x1000, false), 13, "the first of page 1");
}

/* --- ring 3, call gates --- */

static uint8_t user_stack[4096] __attribute__((aligned(16)));

__attribute__((naked)) static void user_code(void)
{
    __asm__("mov %cs, %eax; mov %ss, %ebx; mov %esp, %ecx; int $0x80");
}

__attribute__((naked)) static void user_call_gate(void)
{
    __asm__(
        "push $0x11; push $0x22; lcall $0x50 | 3, $0; mov %esp, %ecx; mov %cs, %edx; int $0x80");
}

/* On the inner stack: return address, CS, two parameters, outer ESP and SS. */
__attribute__((naked)) static void gate_target(void)
{
    __asm__("mov 8(%esp), %eax; mov %cs, %ebx; mov %ss, %esi; mov 16(%esp), %edi; lret $8");
}

static struct frame32 user_frame(void (*fn)(void))
{
    return (struct frame32){ .eip = (uint32_t)fn,
                             .cs = S_UCODE,
                             .eflags = 2,
                             .esp = (uint32_t)user_stack + sizeof(user_stack),
                             .ss = S_UDATA };
}

__attribute__((naked)) static void user_pop(void) { __asm__("pop %eax; int $0x80"); }

/* In ring 3, so that the fault has another stack to go to. */
static void test_stack_limit(void)
{
    struct frame32 f = user_frame(user_pop);
    gdt32[S_SMALL / 8] = segment32((uint32_t)area, 99, 0xf3, 4);
    f.ss = S_SMALL | 3;
    f.esp = 97;
    check_eq(catch_outer(&f), 12, "POP over the stack's limit");
    check_eq(caught.error, 0, "its error code");
    check_eq(caught.esp, 97, "ESP stays");
    f.esp = 96;
    check_eq(catch_outer(&f), 0x80, "POP up to it");
}

static void test_user(void)
{
    struct frame32 f = user_frame(user_code);
    check_eq(catch_outer(&f), 0x80, "ring 3 comes back by INT 0x80");
    check_eq(caught.eax, S_UCODE, "CS in ring 3");
    check_eq(caught.ebx, S_UDATA, "SS in ring 3");
    check_eq(caught.ecx, f.esp, "ESP in ring 3");
    check_eq(caught.ss, S_UDATA, "the saved SS");
}

static void test_call_gate(void)
{
    uint32_t target = (uint32_t)gate_target;
    gdt32[S_GATE / 8] = (target & 0xffff) | (uint64_t)S_CODE << 16 | (uint64_t)2 << 32 |
                        (uint64_t)0xec << 40 | (uint64_t)(target >> 16) << 48;
    struct frame32 f = user_frame(user_call_gate);
    check_eq(catch_outer(&f), 0x80, "a call gate to ring 0 and back");
    check_eq(caught.eax, 0x22, "the last parameter");
    check_eq(caught.ebx, S_CODE, "CS inside");
    check_eq(caught.esi, S_DATA, "SS inside");
    check_eq(caught.edi, f.esp - 8, "the outer ESP on the inner stack");
    check_eq(caught.ecx, f.esp, "RETF 8 took the parameters from the outer stack");
    check_eq(caught.edx, S_UCODE, "CS after it");
    gdt32[S_GATE / 8] &= ~((uint64_t)0x60 << 40);
    check_eq(catch_outer(&f), 13, "a gate of DPL 0 from ring 3");
    check_eq(caught.error, S_GATE, "its error code");
}

/* --- virtual-8086 mode --- */

__asm__(".pushsection .rodata\n.code16\n.globl vm86_code, vm86_end\n"
        "vm86_code: mov $0x1234, %ax; mov %ax, %ds; movw $0xbeef, 0x10; mov %cs, %bx; mov %ds, "
        "%cx; pushf; pop %dx; hlt\n"
        "vm86_end:\n.code32\n.popsection");
extern uint8_t vm86_code[], vm86_end[];

static void test_vm86(void)
{
    memcpy((void *)LOW, vm86_code, (size_t)(vm86_end - vm86_code));
    struct frame32 f = { .eip = 0,
                         .cs = LOW >> 4,
                         .eflags = 1u << 17 | 2,
                         .esp = 0x800,
                         .ss = 0x600,
                         .vm_es = 0x111,
                         .vm_ds = 0x222,
                         .vm_fs = 0x333,
                         .vm_gs = 0x444 };
    check_eq(catch_outer(&f), 13, "PUSHF in virtual-8086 mode with IOPL 0");
    check_eq(caught.eip, 15, "its IP");
    f.eflags |= 3u << 12;
    check_eq(catch_outer(&f), 13, "HLT in virtual-8086 mode");
    check_eq(caught.eip, (uint32_t)(vm86_end - vm86_code) - 1, "its IP");
    check_eq(*(volatile uint16_t *)0x12350, 0xbeef, "segment times 16 plus offset");
    check_eq(caught.ebx & 0xffff, LOW >> 4, "CS inside");
    check_eq(caught.ecx & 0xffff, 0x1234, "DS inside");
    check_eq(caught.edx & 0x3000, 0x3000, "IOPL 3 in PUSHF");
    check_eq(caught.eflags >> 17 & 1, 1, "VM in the saved flags");
    check_eq(caught.vm_ds, 0x1234, "the saved DS");
    check_eq(caught.vm_es, 0x111, "the saved ES");
    check_eq(caught.vm_gs, 0x444, "the saved GS");
    check_eq(caught.ds, 0, "DS is null when the handler begins");
}

/* --- real mode --- */

/* Protected mode of 16 bits, real mode, an interrupt through the vector table, and back. */
__asm__(".pushsection .rodata\n.code16\n.globl real_code, real_end\n"
        "real_code: mov $0x30, %ax; mov %ax, %ds; mov %ax, %es; mov %ax, %ss\n"
        "mov %cr0, %eax; and $~1, %eax; mov %eax, %cr0\n"
        "ljmp $0, $0x7000 + (1f - real_code)\n"
        "1: xor %ax, %ax; mov %ax, %ds; mov %ax, %ss; mov $0x6f00, %sp; lidtl 0x7000 + (6f - "
        "real_code)\n"
        "movw $0x7000 + (4f - real_code), 0x60 * 4; movw $0, 0x60 * 4 + 2\n"
        "mov $0x2345, %ax; mov %ax, %es; movw $0xcafe, %es:0x20\n"
        "xor %cx, %cx; int $0x60\n"
        "mov %cx, 0x6e00; mov $0xffff, %ax; mov %ax, %es; mov %es:0x10, %al; mov %al, 0x6e04\n"
        "pushfl; pop %eax; mov %eax, 0x6e08\n"
        "mov %cr0, %eax; or $1, %eax; mov %eax, %cr0\n"
        "ljmpl $8, $0x7000 + (5f - real_code)\n"
        "4: mov $0x77, %cx; iret\n"
        ".align 4; 6: .word 0x3ff; .long 0\n"
        ".code32; 5: mov $0x10, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss; mov 0x6e10, "
        "%esp; ret\n"
        "real_end:\n.popsection");
extern uint8_t real_code[], real_end[];

static void go_real(void)
{
    __asm__ volatile("pusha; call 1f; jmp 2f\n"
                     "1: mov %%esp, 0x6e10; ljmp $0x28, $0x7000\n"
                     "2: popa" ::
                         : "memory");
}

static void reload_idt(void)
{
    struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) i = { sizeof(idt32) - 1, (uint32_t)idt32 };
    __asm__ volatile("lidt %0" ::"m"(i));
}

static void test_real(void)
{
    memcpy((void *)LOW, real_code, (size_t)(real_end - real_code));
    *(volatile uint8_t *)0x100000 =
        *(volatile uint8_t *)0x100000; /* 1 MiB is ours: the multiboot header */
    go_real();
    reload_idt();
    check_eq(*(volatile uint16_t *)0x6e00, 0x77, "INT through the vector table");
    check_eq(*(volatile uint16_t *)0x23470, 0xcafe, "segment times 16 plus offset");
    check_eq(*(volatile uint8_t *)0x6e04, *(volatile uint8_t *)0x100000,
             "0xffff:0x10 is 1 MiB with A20 on");
    check_eq(*(volatile uint32_t *)0x6e08 & 1u << 17, 0, "no VM flag");
}

/* --- tasks --- */

static struct tss32 tss_other;
static uint8_t other_stack[4096] __attribute__((aligned(16)));

__attribute__((naked)) static void other_task(void)
{
    __asm__("1: mov %cr0, %eax; mov %eax, other_cr0_mirror; pushf; pop other_flags_mirror; incl "
            "other_ran_mirror\n"
            "clts; iret; jmp 1b");
}
extern uint32_t other_cr0_mirror, other_flags_mirror, other_ran_mirror;
uint32_t other_cr0_mirror, other_flags_mirror, other_ran_mirror;

static void prepare_task(void)
{
    memset(&tss_other, 0, sizeof(tss_other));
    tss_other.eip = (uint32_t)other_task;
    tss_other.eflags = 2;
    tss_other.esp = (uint32_t)other_stack + sizeof(other_stack);
    tss_other.cs = S_CODE;
    tss_other.ss = tss_other.ds = tss_other.es = tss_other.fs = tss_other.gs = S_DATA;
    tss_other.ebx = 0x5555;
    tss_other.cr3 = read_cr3();
    tss_main.cr3 = read_cr3();
    tss_other.iomap = sizeof(tss_other);
    gdt32[S_TSS2 / 8] = segment32((uint32_t)&tss_other, sizeof(tss_other) - 1, 0x89, 0);
}

static bool busy(unsigned selector) { return gdt32[selector / 8] >> 41 & 1; }

static void call_task(void)
{
    uint32_t ebx = 0x1234, edi = 0x4321;
    __asm__ volatile("lcall %2, $0"
                     : "+b"(ebx), "+D"(edi)
                     : "i"(S_TSS2)
                     : "memory", "eax", "ecx", "edx", "esi");
    check_eq(ebx, 0x1234, "EBX comes back");
    check_eq(edi, 0x4321, "EDI comes back");
}

static void test_tasks(void)
{
    prepare_task();
    call_task();
    check_eq(other_ran_mirror, 1, "a far CALL to a TSS runs the task");
    check_eq(tss_other.link & 0xffff, S_TSS, "the back link");
    check_eq(other_flags_mirror & 1u << 14, 1u << 14, "NT in the task");
    check_eq(other_cr0_mirror & 8, 8, "CR0.TS after the switch");
    check_eq(tss_other.ebx, 0x5555, "the other task's EBX is saved");
    check_eq(tss_main.cs, S_CODE, "our CS was saved");
    check(busy(S_TSS) && !busy(S_TSS2), "the busy bits after IRET");
    call_task();
    check_eq(other_ran_mirror, 2, "the second time it goes on behind its IRET");
    /* A task gate in the IDT. */
    struct gate32 old = idt32[0x40];
    idt32[0x40] = (struct gate32){ 0, S_TSS2, 0, 0x85, 0 };
    __asm__ volatile("int $0x40" ::: "memory");
    check_eq(other_ran_mirror, 3, "an INT through a task gate");
    idt32[0x40] = old;
    gdt32[S_TSS2 / 8] |= 2ull << 40;
    int v = catch32((void (*)(void *))call_task, NULL);
    check_eq(v, 13, "a CALL to a busy TSS");
    check_eq(caught.error, S_TSS2, "its error code");
    write_cr0(read_cr0() & ~8ul);
}

/* --- paging of 32 bits --- */

static uint32_t directory[1024] __attribute__((aligned(4096)));
static uint32_t table[1024] __attribute__((aligned(4096)));
static uint64_t pdpt[4] __attribute__((aligned(4096)));
static uint64_t pae_dirs[4][512] __attribute__((aligned(4096)));
static uint64_t pml4[512] __attribute__((aligned(4096)));
static uint64_t long_pdpt[512] __attribute__((aligned(4096)));

static void read_at(void *p) { *(volatile uint32_t *)p; }

static void write_at(void *p) { *(volatile uint32_t *)p = 1; }

static void test_paging32(void)
{
    for (uint32_t i = 0; i < 1024; i++) {
        directory[i] = i << 22 | 0x83;
        table[i] = (uint32_t)area | 3;
    }
    directory[0x3ff] = (uint32_t)table | 3; /* the last 4 MiB: the same page a thousand times */
    table[5] = 0;
    table[6] = (uint32_t)area | 1;
    write_cr4(read_cr4() | 0x10); /* PSE */
    write_cr3((uint32_t)directory);
    write_cr0(read_cr0() | 0x80010000);
    area[0] = 0x42;
    check_eq(*(volatile uint8_t *)0xffc00000, 0x42, "a 4 KiB page");
    check_eq(*(volatile uint8_t *)0xfffff000, 0x42, "its alias");
    check_eq(catch32(read_at, (void *)0xffc05000), 14, "an absent page");
    check_eq(caught.error, 0, "its error code");
    check_eq(caught_cr2, 0xffc05000, "CR2");
    check_eq(catch32(write_at, (void *)0xffc06000), 14, "a read-only page written");
    check_eq(caught.error, 3, "its error code");
    check(table[0] & 0x20, "the accessed bit");
    write_cr0(read_cr0() & ~0x80000000ul);
}

static void fill_pae(void)
{
    for (unsigned i = 0; i < 4; i++) {
        pdpt[i] = (uint32_t)pae_dirs[i] | 1;
        for (unsigned j = 0; j < 512; j++)
            pae_dirs[i][j] = ((uint64_t)(i * 512 + j) << 21) | 0x83;
    }
}

static void test_pae(void)
{
    fill_pae();
    pae_dirs[3][511] = (uint32_t)area & ~0x1fffffu ? ((uint32_t)area & ~0x1fffffu) | 0x83 : 0x83;
    write_cr4(read_cr4() | 0x20);
    write_cr3((uint32_t)pdpt);
    write_cr0(read_cr0() | 0x80010000);
    area[1] = 0x43;
    check_eq(*(volatile uint8_t *)(0xffe00000 + ((uint32_t)&area[1] & 0x1fffff)), 0x43,
             "a 2 MiB page of PAE");
    write_cr0(read_cr0() & ~0x80000000ul);
    write_cr4(read_cr4() & ~0x20ul);
}

/* --- long mode and back --- */

/* Into long mode, a 64-bit sum, compatibility mode, paging off, 32 bits again. */
__asm__(".text\n.code32\n.globl through_long\nthrough_long:\n"
        "pusha\n"
        "mov %cr4, %eax; or $0x20, %eax; mov %eax, %cr4\n"
        "mov $pml4_mirror, %eax; mov (%eax), %eax; mov %eax, %cr3\n"
        "mov $0xc0000080, %ecx; rdmsr; or $0x100, %eax; wrmsr\n"
        "mov %cr0, %eax; or $0x80000000, %eax; mov %eax, %cr0\n"
        "ljmp $0x38, $1f\n"
        ".code64\n"
        "1: mov $0x123456789abcdef0, %rax; mov $0x1111111111111111, %r9; add %r9, %rax\n"
        "mov $long_result, %ebx; mov %rax, (%rbx)\n"
        "mov $0xc0000080, %ecx; rdmsr; mov $long_efer, %ebx; mov %eax, (%rbx)\n"
        "mov $long_back, %ebx; ljmp *(%rbx)\n"
        ".code32\n"
        "2: mov %cr0, %eax; and $0x7fffffff, %eax; mov %eax, %cr0\n"
        "mov $0xc0000080, %ecx; rdmsr; and $~0x100, %eax; wrmsr\n"
        "mov %cr4, %eax; and $~0x20, %eax; mov %eax, %cr4\n"
        "mov $0x10, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss\n"
        "popa; ret\n"
        ".data\n.align 8\nlong_back: .long 2b\n.word 0x08\n.previous\n");
void through_long(void);
extern uint64_t long_result;
extern uint32_t long_efer, pml4_mirror;
uint64_t long_result;
uint32_t long_efer, pml4_mirror;

static void test_long(void)
{
    uint32_t r[4];
    cpuid(0x80000000, 0, r);
    if (r[0] < 0x80000001) {
        skip("long mode", "not in CPUID");
        return;
    }
    fill_pae();
    for (unsigned i = 0; i < 4; i++)
        long_pdpt[i] = (uint32_t)pae_dirs[i] | 3;
    pml4[0] = (uint32_t)long_pdpt | 3;
    pml4_mirror = (uint32_t)pml4;
    for (int i = 0; i < 3; i++) {
        long_result = 0;
        through_long();
        check_eq(long_result, 0x23456789abcdf001, "a sum of 64 bits");
        check_eq(long_efer & 0x500, 0x500, "EFER.LME and LMA inside");
        check_eq(rdmsr(MSR_EFER) & 0x500, 0, "and after");
    }
}

void test_main(void)
{
    test_segments();
    test_user();
    test_stack_limit();
    test_call_gate();
    test_vm86();
    test_real();
    test_paging32();
    test_pae();
    test_long();
    test_tasks();
}
