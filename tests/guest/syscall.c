/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, FS and GS bases, compatibility mode.
 *
 * Spec      Intel SDM volume 2; AMD APM volume 2, 6.1 (SYSCALL in compatibility mode).
 */
#include "lib/guest.h"

static uint64_t kernel_rsp;
static volatile uint64_t got_rcx, got_r11, got_cs, got_ss, got_flags, got_rdi;

/* Entry of SYSCALL: on the user's stack; notes what the hardware left, and goes back. */
__attribute__((naked)) static void syscall_entry(void)
{
    __asm__("mov %%rsp, %%r15; mov %0, %%rsp\n"
            "mov %%rcx, %1; mov %%r11, %2; mov %%rdi, %6\n"
            "mov %%cs, %%eax; mov %%rax, %3; mov %%ss, %%eax; mov %%rax, %4\n"
            "pushf; pop %%rax; mov %%rax, %5\n"
            "mov %%r15, %%rsp; sysretq"
            : "+m"(kernel_rsp), "=m"(got_rcx), "=m"(got_r11), "=m"(got_cs), "=m"(got_ss),
              "=m"(got_flags), "=m"(got_rdi));
}

__attribute__((naked)) static void user_syscall(void *arg)
{
    __asm__("pushf; orl $0x401, (%rsp); popf\n" /* DF and CF */
            "lea 1f(%rip), %r14; mov $0x1234, %edi; syscall; 1:\n"
            "cld; mov %cs, %eax; mov %ss, %ebx; pushf; pop %rdx; mov %rcx, %rsi; hlt");
}

static void test_syscall(void)
{
    static uint8_t stack[4096] __attribute__((aligned(16)));
    kernel_rsp = (uint64_t)stack + sizeof(stack);
    wrmsr(MSR_STAR, (uint64_t)SEL_USER32 << 48 | (uint64_t)SEL_CODE << 32);
    wrmsr(MSR_LSTAR, (uint64_t)syscall_entry);
    wrmsr(MSR_SFMASK, FLAG_TF | FLAG_IF | 0x400 | FLAG_AC);
    check_eq(catch_user(user_syscall, NULL), 13, "the user code came to its end");
    struct frame *f = &this_cpu()->caught;
    check_eq(got_rcx, f->r14, "RCX in the kernel is the next RIP");
    check_eq(got_r11 & 0x401, 0x401, "R11 in the kernel has the flags");
    check_eq(got_flags & 0x400, 0, "SFMASK cleared DF");
    check_eq(got_flags & 1, 1, "and left CF");
    check_eq(got_cs, SEL_CODE, "CS in the kernel");
    check_eq(got_ss, SEL_DATA, "SS in the kernel");
    check_eq(got_rdi, 0x1234, "RDI in the kernel");
    check_eq(f->rax, SEL_USER64, "CS after SYSRET");
    check_eq(f->rbx, SEL_USER_DATA, "SS after SYSRET");
    check_eq(f->rdx & 0x401, 1, "flags after SYSRET: R11's CF, and CLD's DF");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~1ul);
    check_eq(catch_user(user_syscall, NULL), 6, "SYSCALL without EFER.SCE");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
}

__attribute__((naked)) static void sysenter_entry(void)
{
    __asm__("mov %%cs, %%eax; mov %%rax, %0; mov %%ss, %%eax; mov %%rax, %1; mov %%rsp, %2; pushf; "
            "pop %3\n"
            "sysexitq"
            : "=m"(got_cs), "=m"(got_ss), "=m"(got_rcx), "=m"(got_flags));
}

__attribute__((naked)) static void user_sysenter(void *arg)
{
    __asm__("mov %rsp, %rcx; lea 1f(%rip), %rdx; sysenter; 1: mov %cs, %eax; mov %ss, %ebx; hlt");
}

static bool is_amd(void)
{
    uint32_t r[4];
    cpuid(0, 0, r);
    return r[2] == 0x444d4163;
}

/* SYSEXIT wants its selectors 32 and 40 above SYSENTER_CS: a second code segment and its user half.
 */
static void test_sysenter(void)
{
    if (is_amd()) {
        check_eq(catch_user(user_sysenter, NULL), 6, "SYSENTER in long mode on AMD");
        return;
    }
    static uint8_t stack[4096] __attribute__((aligned(16)));
    wrmsr(0x174, SEL_CODE);
    wrmsr(0x175, (uint64_t)stack + sizeof(stack));
    wrmsr(0x176, (uint64_t)sysenter_entry);
    check_eq(catch_user(user_sysenter, NULL), 13, "SYSENTER and SYSEXIT came to the end");
    check_eq(got_cs, SEL_CODE, "CS after SYSENTER");
    check_eq(got_ss, SEL_DATA, "SS after SYSENTER");
    check_eq(got_rcx, (uint64_t)stack + sizeof(stack), "RSP after SYSENTER");
    check_eq(got_flags & FLAG_IF, 0, "IF after SYSENTER");
    check_eq(this_cpu()->caught.rax, SEL_CODE + 32 + 3, "CS after SYSEXIT");
    check_eq(this_cpu()->caught.rbx, SEL_CODE + 40 + 3, "SS after SYSEXIT");
    wrmsr(0x174, 0);
    check_eq(catch_user(user_sysenter, NULL), 13, "SYSENTER with a null CS");
}

static void test_bases(void)
{
    static uint64_t a = 0xaaaa, b = 0xbbbb;
    uint64_t v;
    wrmsr(MSR_GS_BASE, (uint64_t)&a);
    wrmsr(MSR_KERNEL_GS_BASE, (uint64_t)&b);
    __asm__ volatile("mov %%gs:0, %0" : "=r"(v));
    check_eq(v, 0xaaaa, "the GS base");
    __asm__ volatile("swapgs; mov %%gs:0, %0" : "=r"(v));
    check_eq(v, 0xbbbb, "the GS base after SWAPGS");
    check_eq(rdmsr(MSR_KERNEL_GS_BASE), (uint64_t)&a, "the other half after SWAPGS");
    wrmsr(MSR_FS_BASE, (uint64_t)&b - 8);
    __asm__ volatile("mov %%fs:8, %0" : "=r"(v));
    check_eq(v, 0xbbbb, "the FS base");
    uint32_t r[4];
    cpuid(7, 0, r);
    if (!(r[1] & 1)) {
        skip("FSGSBASE", "not in CPUID");
        return;
    }
    write_cr4(read_cr4() | CR4_FSGSBASE);
    __asm__ volatile("wrfsbase %0" ::"r"(&a));
    __asm__ volatile("rdfsbase %0" : "=r"(v));
    check_eq(v, (uint64_t)&a, "WRFSBASE and RDFSBASE");
    check_eq(rdmsr(MSR_FS_BASE), (uint64_t)&a, "the MSR follows");
    write_cr4(read_cr4() & ~CR4_FSGSBASE);
}

/* 32-bit user code under a 64-bit kernel: 0x40-0x4f are INC and DEC again, and addresses wrap. */
__attribute__((naked)) static void compat_code(void)
{
    __asm__(".code32\n"
            "mov $7, %eax; .byte 0x40\n" /* inc %eax */
            "push $0x11223344; pop %ebx; mov %esp, %ecx; mov %cs, %edx; hlt\n"
            ".code64");
}

static void test_compatibility(void)
{
    static uint8_t stack[4096] __attribute__((aligned(16)));
    uint64_t rsp = (uint64_t)stack + sizeof(stack);
    check_eq(catch_user_at((uint64_t)compat_code, rsp, SEL_USER32, 2, 0), 13,
             "32-bit user code came to its end");
    struct frame *f = &this_cpu()->caught;
    check_eq(f->rax, 8, "0x40 is INC EAX");
    check_eq(f->rbx, 0x11223344, "PUSH and POP of 4 bytes");
    check_eq(f->rcx, rsp, "ESP is back");
    check_eq(f->rdx, SEL_USER32, "CS");
    check_eq(f->cs, SEL_USER32, "the saved CS");
}

void test_main(void)
{
    user_pages(true);
    test_syscall();
    test_sysenter();
    test_bases();
    test_compatibility();
}
