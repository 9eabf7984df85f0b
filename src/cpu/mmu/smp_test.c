/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two vCPUs on two threads: atomics, split locks, code that one writes and the other runs,
 * page-table A/D bits. */
#include "cpu/sys/sysbed.h"

#include <pthread.h>

#define ROUNDS 20000
#define FUNC 0x60000u
#define DONE 0x310000u /* where a vCPU leaves its verdict */

BLOB(locked, ".code64\n 1: lock incl 0x300000\n lock xadd %ebx, 0x300010\n dec %ecx\n jnz 1b\n hlt");
BLOB(split, ".code64\n 1: lock incl 0x300ffe\n dec %ecx\n jnz 1b\n hlt");

/* Writer: patches the immediate at FUNC + 1, raises the sequence number, waits for the answer. */
BLOB(patcher, ".code64\n"
              " mov $1, %ebx\n"
              "1: mov %ebx, 0x60001\n"
              " mov %ebx, 0x300000\n"
              "2: pause\n cmp %ebx, 0x300040\n jne 2b\n"
              " inc %ebx\n dec %ecx\n jnz 1b\n hlt");
/* Runner: waits for a new number, serialises, calls, compares. */
BLOB(runner, ".code64\n"
             " mov $1, %esi\n"
             "1: pause\n cmp %esi, 0x300000\n jne 1b\n"
             " push %rcx\n xor %eax, %eax\n cpuid\n pop %rcx\n"
             " mov $0x60000, %edi\n call *%rdi\n"
             " cmp %eax, %esi\n jne 3f\n"
             " mov %esi, 0x300040\n inc %esi\n dec %ecx\n jnz 1b\n"
             " movl $1, 0x310000\n hlt\n"
             "3: movl $2, 0x310000\n mov %esi, 0x300040\n hlt");

static struct cpu *second;

static void *run_thread(void *arg)
{
    enum cpu_exit why = cpu_run(arg);
    g_assert_cmpint(why, ==, CPU_EXIT_HALT);
    return NULL;
}

static void start(void)
{
    sb_start64("max");
    second = cpu_new(sb->shared, 1, &bed_callbacks, sb);
    bed_long_mode(sb, second);
    second->gpr[4] = BED_STACK + 0x8000;
}

static void run_both(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len, unsigned rounds)
{
    pthread_t t;
    memcpy(sb->ram + SB_CODE, a, a_len);
    memcpy(sb->ram + SB_CODE + 0x1000, b, b_len);
    cpu->rip = SB_CODE;
    second->rip = SB_CODE + 0x1000;
    cpu->gpr[1] = second->gpr[1] = rounds;
    g_assert_cmpint(pthread_create(&t, NULL, run_thread, second), ==, 0);
    run_thread(cpu);
    pthread_join(t, NULL);
}
#define RUN_BOTH(a, b, rounds) run_both(a, (size_t)(a##_end - a), b, (size_t)(b##_end - b), rounds)

static void finish(void)
{
    cpu_free(second);
    sb_free();
}

static void test_locked(void)
{
    start();
    cpu->gpr[3] = second->gpr[3] = 0;
    RUN_BOTH(locked, locked, ROUNDS);
    g_assert_cmpuint(sb_peek(0x300000, 4), ==, 2 * ROUNDS);
    finish();
}

static void test_split(void)
{
    start();
    RUN_BOTH(split, split, ROUNDS);
    g_assert_cmpuint(sb_peek(0x300ffe, 4), ==, 2 * ROUNDS);
    finish();
}

static void test_cross_modify(void)
{
    static const uint8_t func[] = { 0xb8, 0, 0, 0, 0, 0xc3 };
    start();
    memcpy(sb->ram + FUNC, func, sizeof(func));
    RUN_BOTH(patcher, runner, 3000);
    g_assert_cmpuint(sb_peek(DONE, 4), ==, 1);
    finish();
}

BLOB(caller, ".code64\n call *%rdi\n hlt");

static uint32_t call_second(uint32_t at)
{
    second->rip = SB_CODE + 0x1000;
    second->gpr[7] = at;
    second->halted = false;
    g_assert_cmpint(cpu_run(second), ==, CPU_EXIT_HALT);
    return (uint32_t)second->gpr[0];
}

/* A vCPU decodes what another is in the middle of a read-modify-write of: it sees the new bytes once both have come to
 * a boundary. Code elsewhere on the page makes the write one that is watched. */
static void test_decoded_before_write(void)
{
    static const uint8_t func[] = { 0xb8, 1, 0, 0, 0, 0xc3 };
    uint8_t *host;
    start();
    memcpy(sb->ram + SB_CODE + 0x1000, caller, (size_t)(caller_end - caller));
    memcpy(sb->ram + FUNC, func, sizeof(func));
    memcpy(sb->ram + FUNC + 0x800, func, sizeof(func));
    sb->ram[SB_CODE] = 0x90;
    cpu->rip = SB_CODE;
    g_assert_cmpuint(call_second(FUNC + 0x800), ==, 1);
    g_assert_cmpint(mmu_host(cpu, FUNC + 1, 4, ACCESS_WRITE, &host), ==, 0);
    g_assert_nonnull(host);
    g_assert_cmpuint(call_second(FUNC), ==, 1);
    *host = 2;
    cpu_step(cpu);
    g_assert_cmpuint(call_second(FUNC), ==, 2);
    finish();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/smp/locked", test_locked);
    g_test_add_func("/smp/split", test_split);
    g_test_add_func("/smp/cross-modify", test_cross_modify);
    g_test_add_func("/smp/decoded-before-write", test_decoded_before_write);
    return g_test_run();
}
