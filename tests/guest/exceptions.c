/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every exception that a program can provoke: vector, error code, saved RIP, and what delivery
 * itself can do wrong.
 *
 * Spec      Intel SDM volume 3, chapter 6.
 */
#include "lib/guest.h"

/* Each snippet marks with local label 1 the instruction that must be reported; its address goes to
 * fault_at. */
static uint64_t fault_at;
#define AT "lea 1f(%%rip), %%rax; mov %%rax, %0;"
#define SNIPPET(name, text)                                                                        \
    static void name(void *arg)                                                                    \
    {                                                                                              \
        __asm__ volatile(AT text : "=m"(fault_at) : "D"(arg) : "rax", "rcx", "rdx", "memory");     \
    }

SNIPPET(divide_by_zero, "xor %%ecx, %%ecx; xor %%edx, %%edx; mov $1, %%eax; 1: div %%ecx")
SNIPPET(divide_overflow, "mov $1, %%ecx; mov $1, %%edx; 1: div %%ecx")
SNIPPET(idiv_min, "mov $-1, %%ecx; mov $0x80000000, %%eax; cdq; 1: idiv %%ecx")
SNIPPET(breakpoint, "int3; 1: nop")
SNIPPET(breakpoint_two_bytes, ".byte 0xcd, 3; 1: nop")
SNIPPET(undefined, "1: ud2")
SNIPPET(undefined_lock, "1: .byte 0xf0, 0x90")
SNIPPET(undefined_long_mode, "1: .byte 0x06")
SNIPPET(bad_lock_register, "1: .byte 0xf0, 0x01, 0xc0")
SNIPPET(double_prefix_length,
        "1: .byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90")
SNIPPET(noncanonical_read, "mov $0x800000000000, %%rcx; 1: mov (%%rcx), %%eax")
SNIPPET(noncanonical_stack,
        "mov %%rsp, %%rdx; mov $0x800000000000, %%rcx; mov %%rcx, %%rsp; 1: pop %%rax")
SNIPPET(noncanonical_jump, "mov $0x800000000000, %%rcx; 1: jmp *%%rcx")
SNIPPET(null_selector_ss, "xor %%ecx, %%ecx; mov $3, %%ecx; 1: mov %%ecx, %%ss")
SNIPPET(bad_selector, "mov $0x7ff8, %%ecx; 1: mov %%ecx, %%ds")
SNIPPET(code_in_ss, "mov $8, %%ecx; 1: mov %%ecx, %%ss")
SNIPPET(segment_not_present, "mov $0x48, %%ecx; 1: mov %%ecx, %%ds")
SNIPPET(stack_not_present, "mov $0x48, %%ecx; 1: mov %%ecx, %%ss")
SNIPPET(ltr_busy, "mov $0x60, %%ecx; 1: ltr %%cx")
SNIPPET(ltr_data, "mov $0x10, %%ecx; 1: ltr %%cx")
SNIPPET(bad_msr, "mov $0x12345678, %%ecx; 1: rdmsr")
SNIPPET(efer_reserved, "mov $0xc0000080, %%ecx; mov $0xffffffff, %%eax; mov %%eax, %%edx; 1: wrmsr")
SNIPPET(fs_base_noncanonical,
        "mov $0xc0000100, %%ecx; xor %%eax, %%eax; mov $0x8000, %%edx; 1: wrmsr")
SNIPPET(cr0_pg_without_pe, "mov $0x80000000, %%ecx; 1: mov %%rcx, %%cr0")
SNIPPET(cr0_nw_without_cd,
        "mov %%cr0, %%rcx; or $0x20000000, %%rcx; and $~0x40000000, %%rcx; 1: mov %%rcx, %%cr0")
SNIPPET(cr4_reserved, "mov %%cr4, %%rcx; bts $40, %%rcx; 1: mov %%rcx, %%cr4")
SNIPPET(cr4_pae_off, "mov %%cr4, %%rcx; btr $5, %%rcx; 1: mov %%rcx, %%cr4")
SNIPPET(cr3_reserved, "mov %%cr3, %%rcx; bts $62, %%rcx; 1: mov %%rcx, %%cr3")
SNIPPET(cr8_reserved, "mov $16, %%ecx; 1: mov %%rcx, %%cr8")
SNIPPET(dr7_high, "mov $1, %%ecx; shl $33, %%rcx; 1: mov %%rcx, %%dr7")
SNIPPET(iret_bad_cs, "push $0x10; push %%rsp; pushf; push $0x7ff8; push %%rax; 1: iretq")
SNIPPET(lret_null, "push $0; push %%rax; 1: lretq")
SNIPPET(int_beyond_limit, "1: int $0x70")
SNIPPET(gate_not_present, "1: int $0x71")
SNIPPET(gate_not_a_gate, "1: int $0x72")
SNIPPET(gate_bad_selector, "1: int $0x73")
SNIPPET(sse_misaligned, "1: movaps 1(%%rsp), %%xmm0")
SNIPPET(fninit_divide, "fninit; fldcw (%%rdi); fldz; fld1; fdiv %%st(1); 1: fwait")
SNIPPET(simd_divide,
        "ldmxcsr (%%rdi); xorps %%xmm1, %%xmm1; mov $0x3f800000, %%ecx; movd %%ecx, %%xmm0; "
        "1: divss %%xmm1, %%xmm0")
SNIPPET(fpu_not_available, "mov %%cr0, %%rcx; bts $3, %%rcx; mov %%rcx, %%cr0; 1: fld1")
SNIPPET(sse_not_available,
        "mov %%cr0, %%rcx; bts $3, %%rcx; mov %%rcx, %%cr0; 1: xorps %%xmm0, %%xmm0")
SNIPPET(wait_not_available,
        "mov %%cr0, %%rcx; bts $3, %%rcx; bts $1, %%rcx; mov %%rcx, %%cr0; 1: fwait")
SNIPPET(sse_off, "mov %%cr4, %%rcx; btr $9, %%rcx; mov %%rcx, %%cr4; 1: xorps %%xmm0, %%xmm0")
SNIPPET(icebp, ".byte 0xf1; 1: nop")
SNIPPET(io_in_ring0, "mov $0x84, %%edx; in %%dx, %%al; 1: ud2")

/* Set by the runner where /dev/kvm is a KVM in software, which is not right in these points. */
static bool soft_kvm;

static const uint16_t fpu_all_unmasked = 0x0340;
static const uint32_t sse_all_unmasked = 0;

static const struct {
    const char *name;
    void (*fn)(void *);
    const void *arg;
    int vector;
    uint64_t error;
} kernel_cases[] = {
    { "DIV by zero", divide_by_zero, NULL, 0, 0 },
    { "DIV overflow", divide_overflow, NULL, 0, 0 },
    { "IDIV of the smallest by -1", idiv_min, NULL, 0, 0 },
    { "ICEBP", icebp, NULL, 1, 0 },
    { "INT3", breakpoint, NULL, 3, 0 },
    { "INT 3 in two bytes", breakpoint_two_bytes, NULL, 3, 0 },
    { "UD2", undefined, NULL, 6, 0 },
    { "LOCK NOP", undefined_lock, NULL, 6, 0 },
    { "PUSH ES in 64-bit code", undefined_long_mode, NULL, 6, 0 },
    { "LOCK ADD to a register", bad_lock_register, NULL, 6, 0 },
    { "16 bytes of instruction", double_prefix_length, NULL, 13, 0 },
    { "non-canonical read", noncanonical_read, NULL, 13, 0 },
    { "non-canonical jump", noncanonical_jump, NULL, 13, 0 },
    { "null SS with RPL 3", null_selector_ss, NULL, 13, 0 },
    { "selector beyond the GDT", bad_selector, NULL, 13, 0x7ff8 },
    { "code segment in SS", code_in_ss, NULL, 13, 8 },
    { "DS not present", segment_not_present, NULL, 11, 0x48 },
    { "SS not present", stack_not_present, NULL, 12, 0x48 },
    { "LTR of a busy TSS", ltr_busy, NULL, 13, 0x60 },
    { "LTR of a data segment", ltr_data, NULL, 13, 0x10 },
    { "RDMSR of nothing", bad_msr, NULL, 13, 0 },
    { "reserved bits of EFER", efer_reserved, NULL, 13, 0 },
    { "non-canonical FS base", fs_base_noncanonical, NULL, 13, 0 },
    { "CR0.PG without PE", cr0_pg_without_pe, NULL, 13, 0 },
    { "CR0.NW without CD", cr0_nw_without_cd, NULL, 13, 0 },
    { "reserved bit of CR4", cr4_reserved, NULL, 13, 0 },
    { "PAE off in long mode", cr4_pae_off, NULL, 13, 0 },
    { "reserved bit of CR3", cr3_reserved, NULL, 13, 0 },
    { "reserved bit of CR8", cr8_reserved, NULL, 13, 0 },
    { "high half of DR7", dr7_high, NULL, 13, 0 },
    { "IRET to no segment", iret_bad_cs, NULL, 13, 0x7ff8 },
    { "RETF to null", lret_null, NULL, 13, 0 },
    { "INT beyond the IDT", int_beyond_limit, NULL, 13, 0x70 * 8 + 2 },
    { "INT by an absent gate", gate_not_present, NULL, 11, 0x71 * 8 + 2 },
    { "INT by something else", gate_not_a_gate, NULL, 13, 0x72 * 8 + 2 },
    { "INT to a data segment", gate_bad_selector, NULL, 13, 0x10 },
    { "MOVAPS not aligned", sse_misaligned, NULL, 13, 0 },
    { "x87 divide by zero", fninit_divide, &fpu_all_unmasked, 16, 0 },
    { "SSE divide by zero", simd_divide, &sse_all_unmasked, 19, 0 },
    { "x87 under TS", fpu_not_available, NULL, 7, 0 },
    { "SSE under TS", sse_not_available, NULL, 7, 0 },
    { "FWAIT under TS and MP", wait_not_available, NULL, 7, 0 },
    { "SSE without OSFXSR", sse_off, NULL, 6, 0 },
    { "port access in ring 0", io_in_ring0, NULL, 6, 0 },
};

static void set_idt_limit(uint16_t limit)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) i = { limit, (uint64_t)idt };
    __asm__ volatile("lidt %0" ::"m"(i));
}

static void test_kernel_cases(void)
{
    uint64_t cr0 = read_cr0() | 1u << 5, cr4 = read_cr4();
    write_cr0(cr0);
    gdt[SEL_SPARE / 8] = 0x00cf13000000ffff; /* data, not present */
    idt[0x71].type &= 0x7f;
    idt[0x72].type = 0x80;
    idt[0x73].sel = SEL_DATA;
    for (size_t i = 0; i < ARRAY_COUNT(kernel_cases); i++) {
        if (soft_kvm && kernel_cases[i].fn == cr4_reserved)
            continue;
        set_idt_limit(kernel_cases[i].fn == int_beyond_limit ? 0x70 * 16 - 1 : sizeof(idt) - 1);
        int vector = catch_trap(kernel_cases[i].fn, (void *)kernel_cases[i].arg);
        write_cr0(cr0);
        write_cr4(cr4);
        __asm__ volatile("fninit");
        check_eq(vector, kernel_cases[i].vector, "the vector of %s", kernel_cases[i].name);
        struct frame *f = &this_cpu()->caught;
        check_eq(f->error, kernel_cases[i].error, "the error code of %s", kernel_cases[i].name);
        if (kernel_cases[i].fn != noncanonical_jump) /* AMD's processors report the target */
            check_eq(f->rip, fault_at, "the RIP of %s", kernel_cases[i].name);
        check_eq(f->cs, SEL_CODE, "the CS of %s", kernel_cases[i].name);
    }
    set_idt_limit(sizeof(idt) - 1);
}

/* #SS has its own path: the stack must be given back by hand. */
static void test_stack_fault(void)
{
    extern uint8_t trap_stubs[256][16];
    gate_set(12, (uint64_t)trap_stubs[12], 0, 2);
    int vector = catch_trap(noncanonical_stack, NULL);
    check_eq(vector, 12, "the vector of a non-canonical stack");
    check_eq(this_cpu()->caught.error, 0, "the error code of a non-canonical stack");
    gate_set(12, (uint64_t)trap_stubs[12], 0, 0);
}

/* --- at CPL 3 --- */

#define USER(name, text)                                                                           \
    __attribute__((naked)) static void name(void *arg)                                             \
    {                                                                                              \
        __asm__(text "; ret");                                                                     \
    }
USER(user_nothing, "nop")
USER(user_hlt, "hlt")
USER(user_cli, "cli")
USER(user_in, "in $0x84, %al")
USER(user_rdmsr, "mov $0x10, %ecx; rdmsr")
USER(user_cr0, "mov %cr0, %rax")
USER(user_lgdt, "lgdt -16(%rsp)")
USER(user_invlpg, "invlpg (%rsp)")
USER(user_clts, "clts")
USER(user_wbinvd, "wbinvd")
USER(user_int_kernel, "int $0x20")
USER(user_int_user, "int $0x82")
USER(user_int3, "int3")
USER(user_sysret, "sysretq")
USER(user_swapgs, "swapgs")
USER(user_kernel_segment, "mov $0x10, %eax; mov %eax, %ds")
USER(user_rdtsc, "rdtsc")
USER(user_unaligned, "pushf; orl $0x40000, (%rsp); popf; movl 1(%rsp), %eax")
USER(user_popf_iopl, "pushf; orl $0x3000, (%rsp); popf; cli")
USER(user_far_kernel, "push $8; push $0; lretq")

static const struct {
    const char *name;
    void (*fn)(void *);
    int vector;
    uint64_t error;
} user_cases[] = {
    { "nothing", user_nothing, USER_DONE, 0 },
    { "HLT", user_hlt, 13, 0 },
    { "CLI", user_cli, 13, 0 },
    { "IN", user_in, 13, 0 },
    { "RDMSR", user_rdmsr, 13, 0 },
    { "MOV from CR0", user_cr0, 13, 0 },
    { "LGDT", user_lgdt, 13, 0 },
    { "INVLPG", user_invlpg, 13, 0 },
    { "CLTS", user_clts, 13, 0 },
    { "WBINVD", user_wbinvd, 13, 0 },
    { "INT by a kernel gate", user_int_kernel, 13, 0x20 * 8 + 2 },
    { "INT by a user gate", user_int_user, 0x82, 0 },
    { "INT3", user_int3, 3, 0 },
    { "SYSRET", user_sysret, 13, 0 },
    { "SWAPGS", user_swapgs, 13, 0 },
    { "kernel data in DS", user_kernel_segment, 13, 0x10 },
    { "RDTSC", user_rdtsc, USER_DONE, 0 },
    { "alignment check", user_unaligned, 17, 0 },
    { "POPF leaves IOPL", user_popf_iopl, 13, 0 },
    { "RETF to the kernel", user_far_kernel, 13, 8 },
};

static void test_user_cases(void)
{
    user_pages(true);
    write_cr0(read_cr0() | 1u << 18); /* AM */
    for (size_t i = 0; i < ARRAY_COUNT(user_cases); i++) {
        if (soft_kvm && (user_cases[i].fn == user_int_kernel || user_cases[i].fn == user_int_user))
            continue;
        int vector = catch_user(user_cases[i].fn, NULL);
        check_eq(vector, user_cases[i].vector, "user: the vector of %s", user_cases[i].name);
        check_eq(this_cpu()->caught.error, user_cases[i].error, "user: the error of %s",
                 user_cases[i].name);
        check_eq(this_cpu()->caught.cs, SEL_USER64, "user: the CS of %s", user_cases[i].name);
    }
    write_cr4(read_cr4() | 4); /* TSD */
    if (!soft_kvm)
        check_eq(catch_user(user_rdtsc, NULL), 13, "user: RDTSC under CR4.TSD");
    write_cr4(read_cr4() & ~4ul);
    struct tss *tss = &this_cpu()->tss;
    tss->iomap = offsetof(struct tss, io_bits);
    memset(tss->io_bits, 0xff, sizeof(tss->io_bits));
    check_eq(catch_user(user_in, NULL), 13, "user: IN of a port that the bitmap denies");
    tss->io_bits[0x84 / 8] = 0xff & ~(1u << (0x84 % 8));
    check_eq(catch_user(user_in, NULL), USER_DONE, "user: IN of a port that the bitmap allows");
    tss->iomap = sizeof(*tss);
    user_pages(false);
}

/* --- faults in delivery --- */

static void touch_stack(void *arg)
{
    __asm__ volatile("mov %0, %%rsp; push %%rax" ::"r"(0x700000000000ul) : "memory");
}

/* #PF on a stack that is not there cannot be delivered on it: #DF, on its IST stack. */
static void test_double_fault(void)
{
    check_eq(catch_trap(touch_stack, NULL), 8, "a page fault whose stack faults is a double fault");
    check_eq(this_cpu()->caught.error, 0, "the error code of a double fault");
    struct gate old = idt[13];
    idt[13].type &= 0x7f;
    check_eq(catch_trap(noncanonical_read, NULL), 8, "#GP whose gate is absent is a double fault");
    check_eq(this_cpu()->caught.error, 0, "its error code");
    idt[13] = old;
    if (soft_kvm)
        return;
    old = idt[6];
    idt[6].type &= 0x7f;
    check_eq(catch_trap(undefined, NULL), 11, "#UD whose gate is absent is #NP");
    check_eq(this_cpu()->caught.error, 6 * 8 + 3, "with EXT and IDT in its error code");
    idt[6] = old;
}

void test_main(void)
{
    soft_kvm = cmdline_number("softkvm", 0);
    test_kernel_cases();
    test_stack_fault();
    test_user_cases();
    test_double_fault();
}
