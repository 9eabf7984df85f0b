/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 32-bit code in protected mode, without paging and with; see lib/code32.h. */
#include "lib/code32.h"
#include "lib/guest32.h"

static uint8_t pages[3 * 4096] __attribute__((aligned(4096)));
static uint32_t directory[1024] __attribute__((aligned(4096)));

__attribute__((naked)) static uint32_t call_saved(uint32_t fn, uint32_t n, void *scratch)
{
    __asm__("push %ebx; push %ebp; push %esi; push %edi\n"
            "push 28(%esp); push 28(%esp); call *28(%esp); add $8, %esp\n"
            "pop %edi; pop %esi; pop %ebp; pop %ebx; ret");
}

uint32_t call32(uint32_t fn, uint32_t n, void *scratch)
{
    return call_saved(fn, n, scratch);
}

static struct {
    uint32_t fn, n;
    void *scratch;
} job;

static void do_job(void *arg)
{
    call_saved(job.fn, job.n, job.scratch);
}

int catch_call32(uint32_t fn, uint32_t n, void *scratch)
{
    job.fn = fn, job.n = n, job.scratch = scratch;
    return catch32(do_job, NULL);
}

uint32_t caught_eip(void) { return caught.eip; }
uint32_t caught_ecx(void) { return caught.ecx; }
uint32_t caught_error(void) { return caught.error; }

uint16_t make_segment(uint32_t base, uint32_t limit, uint8_t access, uint8_t flags)
{
    gdt32[S_SMALL / 8] = segment32(base, limit, access, flags);
    return S_SMALL;
}

uint8_t *code32_pages(void)
{
    return pages;
}

static void paging_on(void)
{
    for (uint32_t i = 0; i < 1024; i++)
        directory[i] = i << 22 | 0x83; /* 4 MiB, present, writable */
    write_cr4(read_cr4() | 0x10);
    write_cr3((uint32_t)directory);
    write_cr0(read_cr0() | 0x80010000);
}

void test_main(void)
{
    unsigned turns = (unsigned)cmdline_number("turns", 16);
    write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
    write_cr0((read_cr0() & ~0xcul) | 0x22); /* no EM, no TS; MP, NE */
    __asm__ volatile("fninit");
    test_sums32(turns);
    test_segments32();
    paging_on();
    test_sums32(turns);
    test_segments32();
}
