/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The dispatcher and the cache: what a guest sees when its code is translated, shared, overwritten and evicted. */
#include "cpu/exec/testbed.h"
#include "cpu/translate/cache.h"

static struct bed *translated(uint64_t code_bytes)
{
    struct bed *b = bed_new("max");

    cpu_free(b->cpu);
    g_assert_cmpint(cpu_shared_set_translate(b->shared, CPU_TRANSLATE_ON, code_bytes), ==, 0);
    b->cpu = cpu_new(b->shared, 0, &bed_callbacks, b);
    g_assert_nonnull(b->cpu);
    bed_long_mode(b, b->cpu);
    return b;
}

static void run_to_halt(struct bed *b)
{
    b->cpu->rip = BED_CODE;
    b->cpu->halted = false;
    g_assert_cmpint(cpu_run(b->cpu), ==, CPU_EXIT_HALT);
}

/* A loop with a load, a store, a call and a return; its sum is right and it was not interpreted throughout. */
static void test_loop(void)
{
    struct bed *b = translated(0);

    BED_CODE_BYTES(b, 0xb9, 0xe8, 0x03, 0, 0,       /* mov ecx, 1000 */
                   0x31, 0xc0,                      /* xor eax, eax */
                   0xbb, 0, 0, 0x30, 0,             /* mov ebx, BED_DATA */
                   0x01, 0xc8,                      /* 12: add eax, ecx */
                   0x89, 0x03,                      /* mov [rbx], eax */
                   0x8b, 0x13,                      /* mov edx, [rbx] */
                   0xe8, 0x05, 0, 0, 0,             /* call 28 */
                   0xff, 0xc9,                      /* dec ecx */
                   0x75, 0xf1,                      /* jne 12 */
                   0xf4,                            /* 27: hlt */
                   0x48, 0xff, 0xc6,                /* 28: inc rsi */
                   0xc3);                           /* ret */
    run_to_halt(b);
    g_assert_cmpuint(b->cpu->gpr[0], ==, 500500);
    g_assert_cmpuint(b->cpu->gpr[2], ==, 500500);
    g_assert_cmpuint(b->cpu->gpr[6], ==, 1000);
    g_assert_cmpuint(b->cpu->gpr[4], ==, BED_STACK);
    g_assert_cmpuint(b->cpu->stats.instructions, <, 500);
    bed_free(b);
}

/* The same linear address in two places: a loop whose middle instruction lies across pages, of which the second is
 * exchanged and then overwritten between runs. */
static void test_crossing(void)
{
    struct bed *b = translated(0);
    uint8_t *code = b->ram + BED_CODE + PAGE_SIZE - 7;
    static const uint64_t sums[] = { 100, 200, 100, 300 };
    uint64_t other = BED_CODE + 4 * PAGE_SIZE;

    memcpy(code, (uint8_t[]){ 0xb9, 100, 0, 0, 0,   /* mov ecx, 100 */
                              0x81, 0xc0 }, 7);     /* 5: add eax, ... */
    memcpy(code + 7, (uint8_t[]){ 1, 0, 0, 0,       /* ... 1 */
                                  0xff, 0xc9,       /* dec ecx */
                                  0x75, 0xf6,       /* jne 5 */
                                  0xf4 }, 9);
    memcpy(b->ram + other, code + 7, 16);
    b->ram[other] = 2;
    for (unsigned round = 0; round < 4; round++) {
        b->cpu->gpr[0] = 0;
        b->cpu->rip = BED_CODE + PAGE_SIZE - 7;
        b->cpu->halted = false;
        g_assert_cmpint(cpu_run(b->cpu), ==, CPU_EXIT_HALT);
        g_assert_cmpuint(b->cpu->gpr[0], ==, sums[round]);
        bed_map_page(b, BED_CODE + PAGE_SIZE, (round == 0 ? other : BED_CODE + PAGE_SIZE) | 7);
        mmu_flush_page(b->cpu, BED_CODE + PAGE_SIZE);
        if (round == 2) {
            b->ram[BED_CODE + PAGE_SIZE] = 3;
            cpu_shared_written(b->shared, BED_CODE + PAGE_SIZE, 1);
        }
    }
    g_assert_cmpuint(b->cpu->stats.tx_interpreted, <, 80);
    bed_free(b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/translate/loop", test_loop);
    g_test_add_func("/translate/crossing", test_crossing);
    return g_test_run();
}
