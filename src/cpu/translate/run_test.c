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

static struct cpu *second(struct bed *b)
{
    struct cpu *c = cpu_new(b->shared, 1, &bed_callbacks, b);

    g_assert_nonnull(c);
    bed_long_mode(b, c);
    return c;
}

/* What one vCPU translated, another runs. */
static void test_shared(void)
{
    struct bed *b = translated(0);
    struct cpu *c = second(b);

    BED_CODE_BYTES(b, 0xb9, 100, 0, 0, 0, /* mov ecx, 100 */
                   0xff, 0xc0,            /* 5: inc eax */
                   0xff, 0xc9,            /* dec ecx */
                   0x75, 0xfa,            /* jne 5 */
                   0xf4);
    run_to_halt(b);
    g_assert_cmpuint(b->cpu->stats.tx_blocks, >, 0);
    g_assert_cmpint(cpu_run(c), ==, CPU_EXIT_HALT);
    g_assert_cmpuint(c->gpr[0], ==, 100);
    g_assert_cmpuint(c->stats.tx_blocks, ==, 0);
    g_assert_cmpuint(c->stats.tx_entries, >, 0);
    cpu_free(c);
    bed_free(b);
}

/* Code that a device overwrites, then code whose page turns into another by a change of the address map: neither
 * runs once more. */
static void test_rewritten(void)
{
    struct bed *b = translated(0);
    uint64_t made;

    BED_CODE_BYTES(b, 0xb8, 1, 0, 0, 0, /* mov eax, 1 */
                   0xf4);
    for (unsigned k = 0; k < 8; k++)
        run_to_halt(b);
    g_assert_cmpuint(b->cpu->gpr[0], ==, 1);
    made = b->cpu->stats.tx_blocks;
    b->ram[BED_CODE + 1] = 2;
    cpu_shared_written(b->shared, BED_CODE + 1, 1);
    run_to_halt(b);
    g_assert_cmpuint(b->cpu->gpr[0], ==, 2);
    for (unsigned k = 0; k < 8; k++)
        run_to_halt(b);
    g_assert_cmpuint(b->cpu->stats.tx_blocks, >, made);
    b->ram[BED_CODE + 1] = 3; /* nobody tells */
    run_to_halt(b);
    g_assert_cmpuint(b->cpu->gpr[0], ==, 2);
    cpu_shared_flush_all(b->shared);
    run_to_halt(b);
    g_assert_cmpuint(b->cpu->gpr[0], ==, 3);
    bed_free(b);
}

/* --- a cache that is much too small --- */

#define MANY_CODE 0x400000u
#define MANY 40000u
#define MANY_STEP 64u
#define ROUNDS 5u

/* MANY pieces that count and jump to the next by register, so that each is a block; ROUNDS times, rsi left. */
static void put_many(struct bed *b)
{
    static const uint8_t piece[] = { 0x48, 0xff, 0xc0,                   /* inc rax */
                                     0x48, 0x8d, 0x15, 54, 0, 0, 0,      /* lea rdx, [rip + 54]: the next */
                                     0xff, 0xe2 };                       /* jmp rdx */
    static const uint8_t last[] = { 0x48, 0xff, 0xce,                    /* dec rsi */
                                    0xba, 0x00, 0x00, 0x40, 0x00,        /* mov edx, MANY_CODE */
                                    0x74, 0x02, 0xff, 0xe2, 0xf4 };      /* je +2; jmp rdx; hlt */

    for (unsigned k = 0; k < MANY; k++)
        memcpy(b->ram + MANY_CODE + k * MANY_STEP, piece, sizeof(piece));
    memcpy(b->ram + MANY_CODE + MANY * MANY_STEP, last, sizeof(last));
}

static void *run_many(void *cpu)
{
    struct cpu *c = cpu;

    c->rip = MANY_CODE;
    c->gpr[6] = ROUNDS;
    return GINT_TO_POINTER(cpu_run(c) == CPU_EXIT_HALT && c->gpr[0] == (uint64_t)MANY * ROUNDS);
}

static void test_eviction(void)
{
    struct bed *b = translated(MIB);

    put_many(b);
    g_assert_true(run_many(b->cpu));
    g_assert_cmpuint(b->cpu->stats.tx_blocks, >, MANY);
    g_assert_cmpuint(atomic_load(&b->shared->translate->epoch), >, 2 * TX_REGIONS);
    bed_free(b);
}

/* Two vCPUs evict each other's blocks while they run them. */
static void test_eviction_smp(void)
{
    struct bed *b = translated(MIB);
    struct cpu *c = second(b);

    put_many(b);
    GThread *other = g_thread_new("vcpu", run_many, c);
    g_assert_true(run_many(b->cpu));
    g_assert_true(g_thread_join(other));
    /* How many depends on how much of the other's work each finds: 25 have been seen. */
    g_assert_cmpuint(atomic_load(&b->shared->translate->epoch), >, TX_REGIONS / 2);
    cpu_free(c);
    bed_free(b);
}

/* --- code that changes under a vCPU that runs it --- */

static void *run_until_stopped(void *cpu)
{
    return GINT_TO_POINTER(cpu_run(cpu) == CPU_EXIT_HALT);
}

/* True when the guest has seen it within ten seconds. */
static bool seen(const uint32_t *at, uint32_t value)
{
    for (unsigned k = 0; k < 100000; k++) {
        if (__atomic_load_n(at, __ATOMIC_SEQ_CST) == value)
            return true;
        g_usleep(100);
    }
    return false;
}

static void test_rewritten_smp(void)
{
    struct bed *b = translated(0);
    uint32_t *imm = (uint32_t *)(b->ram + BED_CODE + 4), *stop = (uint32_t *)(b->ram + BED_DATA);
    bool all = true;

    BED_CODE_BYTES(b, 0x0f, 0x1f, 0x00,                             /* nop */
                   0xb8, 0, 0, 0, 0,                                /* mov eax, imm */
                   0x89, 0x04, 0x25, 0x08, 0x00, 0x30, 0x00,        /* mov [BED_DATA + 8], eax */
                   0x83, 0x3c, 0x25, 0x00, 0x00, 0x30, 0x00, 0x00,  /* cmp dword [BED_DATA], 0 */
                   0x74, 0xe7,                                      /* je to the start */
                   0xf4);
    b->cpu->rip = BED_CODE;
    GThread *vcpu = g_thread_new("vcpu", run_until_stopped, b->cpu);
    for (uint32_t k = 1; k <= 300 && all; k++) {
        __atomic_store_n(imm, k, __ATOMIC_SEQ_CST);
        cpu_shared_written(b->shared, BED_CODE + 4, 4);
        all = seen(stop + 2, k);
    }
    __atomic_store_n(stop, 1, __ATOMIC_SEQ_CST);
    g_assert_true(g_thread_join(vcpu));
    g_assert_true(all);
    g_assert_cmpuint(b->cpu->stats.tx_blocks, >, 0);
    bed_free(b);
}

/* --- another process on guest memory --- */

enum { COUNTS = 2000000 };

static void *run_whole(void *bed)
{
    run_to_halt(bed);
    return NULL;
}

/* A counter that the guest and others add to: none of their steps is lost, from fence_guest_keep() on. */
static void test_locks_kept(void)
{
    struct bed *b = translated(0);
    uint32_t *turns = (uint32_t *)(b->ram + BED_DATA + 64), *count = (uint32_t *)(b->ram + BED_DATA);

    BED_CODE_BYTES(b, 0x8b, 0x0c, 0x25, 0x40, 0x00, 0x30, 0x00,       /* mov ecx, [BED_DATA + 64] */
                   0xf0, 0xff, 0x04, 0x25, 0x00, 0x00, 0x30, 0x00,    /* 7: lock inc dword [BED_DATA] */
                   0xff, 0xc9,                                        /* dec ecx */
                   0x75, 0xf4,                                        /* jne 7 */
                   0xf4);
    *turns = 1000;
    run_to_halt(b);
    g_assert_cmpuint(*count, ==, 1000);
    fence_guest_keep();
    g_assert_false(translate_plain_locks(b->cpu));
    *turns = COUNTS;
    GThread *vcpu = g_thread_new("vcpu", run_whole, b);
    for (unsigned k = 0; k < COUNTS; k++)
        __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
    g_thread_join(vcpu);
    g_assert_cmpuint(*count, ==, 1000 + 2 * COUNTS);
    bed_free(b);
    b = translated(0);
    g_assert_false(translate_plain_locks(b->cpu));
    bed_free(b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/translate/loop", test_loop);
    g_test_add_func("/translate/crossing", test_crossing);
    g_test_add_func("/translate/shared", test_shared);
    g_test_add_func("/translate/rewritten", test_rewritten);
    g_test_add_func("/translate/eviction", test_eviction);
    g_test_add_func("/translate/eviction-smp", test_eviction_smp);
    g_test_add_func("/translate/rewritten-smp", test_rewritten_smp);
    g_test_add_func("/translate/locks-kept", test_locks_kept); /* for the rest of the process */
    return g_test_run();
}
