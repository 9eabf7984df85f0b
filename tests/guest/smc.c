/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Code that changes: by itself, ahead of itself, beside itself, through an alias, by another vCPU,
 * by a REP store.
 *
 * Spec      Intel SDM volume 3, 12.6 (self-modifying code) and 9.1.3 (cross-modifying code).
 */
#include "lib/guest.h"

#define ALIAS 0x4000000000ul

typedef uint32_t code_fn(void);
static uint8_t *code; /* one page */

/* mov $value, %eax; ret */
static void put_return(uint8_t *at, uint32_t value)
{
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

static uint32_t run(const uint8_t *at)
{
    return ((code_fn *)at)();
}

static void test_rewrite(void)
{
    bool ok = true;
    for (uint32_t i = 0; i < 2000; i++) {
        put_return(code, i);
        ok &= run(code) == i;
    }
    check(ok, "a function rewritten before each call");
    ok = true;
    for (uint32_t i = 0; i < 2000; i++) {
        *(volatile uint32_t *)(code + 1) = i;
        ok &= run(code) == i;
    }
    check(ok, "its immediate rewritten");
    ok = true;
    for (uint32_t i = 0; i < 256; i++) {
        code[2] = (uint8_t)i;
        ok &= (run(code) >> 8 & 0xff) == i;
    }
    check(ok, "one byte of it rewritten");
}

/* Data right beside code, as compilers put it: both must go on working. */
static void test_beside(void)
{
    volatile uint64_t *data = (uint64_t *)(code + 512);
    put_return(code, 42);
    bool ok = true;
    for (uint64_t i = 0; i < 20000; i++) {
        *data = i;
        ok &= run(code) == 42 && *data == i;
    }
    check(ok, "data in the page of the code");
}

/* An instruction that changes the next one, in the same straight line. */
static void test_ahead(void)
{
    static const uint8_t text[] = {
        0xc6, 0x05, 0x01, 0x00, 0x00, 0x00, 0x2a, /* movb $42, 1(%rip): the immediate below */
        0xb8, 0x00, 0x00, 0x00, 0x00,             /* mov $0, %eax */
        0xc3,
    };
    bool ok = true;
    for (int i = 0; i < 100; i++) {
        memcpy(code, text, sizeof(text));
        ok &= run(code) == 42;
    }
    check(ok, "the next instruction rewritten");
}

static void test_alias(void)
{
    map_page(0, ALIAS, (uint64_t)code, PTE_P | PTE_W, 1);
    uint8_t *alias = (uint8_t *)ALIAS;
    bool ok = true;
    for (uint32_t i = 0; i < 1000; i++) {
        put_return(alias, i);
        ok &= run(code) == i;
        put_return(code, ~i);
        ok &= run(alias) == ~i;
    }
    check(ok, "written through another linear address");
}

static void test_remap(void)
{
    uint8_t *other = alloc_pages(1);
    put_return(code, 1);
    put_return(other, 2);
    bool ok = true;
    for (int i = 0; i < 200; i++) {
        map_page(0, ALIAS, (uint64_t)(i & 1 ? other : code), PTE_P | PTE_W, 1);
        ok &= run((uint8_t *)ALIAS) == (i & 1 ? 2u : 1u);
    }
    check(ok, "another page of code under the same address");
}

static void test_string_store(void)
{
    uint8_t image[64];
    bool ok = true;
    for (uint32_t i = 0; i < 500; i++) {
        put_return(image, i);
        memcpy(code + 100, image, 6);
        ok &= run(code + 100) == i;
    }
    check(ok, "written by REP MOVSB");
    memset(code, 0xc3, PAGE);
    for (unsigned i = 0; i < PAGE; i += 64)
        run(code + i);
    memset(code, 0x90, PAGE - 1);
    put_return(code + PAGE - 6, 77);
    check_eq(run(code), 77, "a page of RET becomes one of NOP by REP STOSB");
}

/* An instruction across two pages, of which only the second changes. */
static void test_page_crossing(void)
{
    uint8_t *two = alloc_pages(2);
    bool ok = true;
    for (uint32_t i = 0; i < 1000; i++) {
        put_return(two + PAGE - 3, i << 16);
        ok &= run(two + PAGE - 3) == i << 16;
        two[PAGE] = (uint8_t)i;
        ok &= (run(two + PAGE - 3) >> 16 & 0xff) == (uint8_t)i;
    }
    check(ok, "an instruction across two pages");
}

static void store_loop_body(void)
{
    static const uint8_t text[] = {
        0x31, 0xc0,                         /* xor %eax, %eax */
        0xb9, 0x64, 0x00, 0x00, 0x00,       /* mov $100, %ecx */
        0x83, 0xc0, 0x01,                   /* 1: add $1, %eax (its immediate grows) */
        0xfe, 0x05, 0xf9, 0xff, 0xff, 0xff, /* incb -7(%rip) */
        0xff, 0xc9,                         /* dec %ecx */
        0x75, 0xf3,                         /* jnz 1b */
        0xc3,
    };
    memcpy(code, text, sizeof(text));
}

static void test_loop_on_itself(void)
{
    store_loop_body();
    uint32_t want = 0;
    for (uint8_t n = 1; n <= 100; n++)
        want += (uint32_t)(int8_t)n;
    check_eq(run(code), want, "a loop whose body changes at each turn");
}

static volatile uint64_t ready, turn;

/* The other vCPU executes what this one writes, with the handshake that the manuals ask for. */
static void execute_turns(void *arg)
{
    uint64_t turns = (uint64_t)arg, bad = 0;
    for (uint64_t i = 1; i <= turns; i++) {
        while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) < i)
            pause();
        uint32_t r[4];
        cpuid(0, 0, r); /* serialises */
        bad += run(code + 256) != (uint32_t)i;
        __atomic_store_n(&ready, i, __ATOMIC_RELEASE);
    }
    check_eq(bad, 0, "stale code on the other vCPU");
}

static void test_cross(void)
{
    uint64_t turns = cmdline_number("turns", 500);
    smp_call(1, execute_turns, (void *)turns);
    for (uint64_t i = 1; i <= turns; i++) {
        put_return(code + 256, (uint32_t)i);
        __atomic_store_n(&turn, i, __ATOMIC_RELEASE);
        while (__atomic_load_n(&ready, __ATOMIC_ACQUIRE) < i)
            pause();
    }
    smp_wait(1);
}

void test_main(void)
{
    code = alloc_pages(1);
    test_rewrite();
    test_beside();
    test_ahead();
    test_alias();
    test_remap();
    test_string_store();
    test_page_crossing();
    test_loop_on_itself();
    if (cpu_count() > 1 && smp_start() > 1)
        test_cross();
}
