/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 32-bit code in compatibility mode; see lib/code32.h. */
#include "lib/code32.h"

extern uint64_t call32_rsp;
uint64_t call32_rsp;

__attribute__((naked)) static uint32_t call_compat(uint32_t fn, uint32_t n, void *scratch)
{
    __asm__("push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
            "mov %rsp, call32_rsp\n"
            "sub $8, %rsp; mov %esi, (%rsp); mov %edx, 4(%rsp); mov %edi, %eax\n"
            "push $0x30; lea 1f(%rip), %rcx; push %rcx; lretq\n"
            ".code32\n"
            "1: mov $0x10, %ecx; mov %ecx, %ds; mov %ecx, %es; mov %ecx, %ss\n"
            "call *%eax\n"
            "ljmp $0x08, $2f\n"
            ".code64\n"
            "2: mov %eax, %eax\n"
            "mov call32_rsp, %rsp\n"
            "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret");
}

uint32_t call32(uint32_t fn, uint32_t n, void *scratch)
{
    return call_compat(fn, n, scratch);
}

static struct {
    uint32_t fn, n;
    void *scratch;
} job;

static void do_job(void *arg)
{
    call_compat(job.fn, job.n, job.scratch);
}

int catch_call32(uint32_t fn, uint32_t n, void *scratch)
{
    job.fn = fn, job.n = n, job.scratch = scratch;
    return catch_trap(do_job, NULL);
}

uint32_t caught_eip(void) { return (uint32_t)this_cpu()->caught.rip; }
uint32_t caught_ecx(void) { return (uint32_t)this_cpu()->caught.rcx; }
uint32_t caught_error(void) { return (uint32_t)this_cpu()->caught.error; }

uint16_t make_segment(uint32_t base, uint32_t limit, uint8_t access, uint8_t flags)
{
    gdt[SEL_SPARE / 8] = (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 |
                         (uint64_t)access << 40 | (uint64_t)(limit >> 16 & 15) << 48 |
                         (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;
    return SEL_SPARE;
}

uint8_t *code32_pages(void)
{
    static uint8_t *pages;
    if (!pages)
        pages = alloc_pages(3);
    return pages;
}

void test_main(void)
{
    __asm__ volatile("fninit");
    test_sums32((unsigned)cmdline_number("turns", 16));
    test_segments32();
}
