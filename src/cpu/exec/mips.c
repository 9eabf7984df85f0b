/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest millions of instructions a second of the interpreter on an integer loop.
 *
 *     mips [MILLIONS]
 */
#include "cpu/exec/testbed.h"

#include <stdio.h>
#include <time.h>

/* A mix of what compilers emit: loads, stores, arithmetic, a taken and an untaken branch, a call. */
static const uint8_t loop_code[] = {
    0x48, 0x8d, 0x1d, 0xf9, 0xff, 0x0f, 0x00, /* lea rbx, [rip + ...] */
    0x48, 0xc7, 0xc3, 0x00, 0x00, 0x30, 0x00, /* mov rbx, BED_DATA */
    /* 14: */
    0x8b, 0x04, 0x8b,                         /* mov eax, [rbx + rcx * 4] */
    0x83, 0xc0, 0x03,                         /* add eax, 3 */
    0x89, 0xc2,                               /* mov edx, eax */
    0xc1, 0xea, 0x04,                         /* shr edx, 4 */
    0x31, 0xd0,                               /* xor eax, edx */
    0x89, 0x04, 0x8b,                         /* mov [rbx + rcx * 4], eax */
    0x48, 0xff, 0xc1,                         /* inc rcx */
    0x81, 0xe1, 0xff, 0x03, 0x00, 0x00,       /* and ecx, 1023 */
    0x85, 0xc0,                               /* test eax, eax */
    0x78, 0x05,                               /* js +5 */
    0xe8, 0x06, 0x00, 0x00, 0x00,             /* call f */
    0x48, 0xff, 0xce,                         /* dec rsi */
    0x75, 0xd5,                               /* jne 14 */
    0xf4,                                     /* hlt */
    /* f: */
    0x55,                                     /* push rbp */
    0x48, 0x89, 0xe5,                         /* mov rbp, rsp */
    0x01, 0xc7,                               /* add edi, eax */
    0x5d,                                     /* pop rbp */
    0xc3,                                     /* ret */
};

/* Time this thread had a core: others may share the machine. */
static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    uint64_t rounds = (argc > 1 ? strtoull(argv[1], NULL, 10) : 200) * 1000000 / 18;
    struct bed *b = bed_new("max");
    double start;

    bed_code(b, loop_code, sizeof(loop_code));
    b->cpu->gpr[6] = rounds;
    start = cpu_seconds();
    enum cpu_exit why = cpu_run(b->cpu);
    double seconds = cpu_seconds() - start;
    uint64_t n = b->cpu->stats.instructions;
    printf("exit %d, rip %#lx, %lu instructions in %.3f s: %.0f MIPS\n", (int)why,
           (unsigned long)b->cpu->rip, (unsigned long)n, seconds, (double)n / seconds / 1e6);
    bed_free(b);
    return why == CPU_EXIT_HALT ? 0 : 1;
}
