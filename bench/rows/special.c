/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench rows: what is hard for a translator: code that changes, data that stands beside code, atomic operations. */
#include <string.h>
#include <sys/mman.h>

#include "row.h"

static uint8_t *code_page;

static const char *code_setup(void)
{
    code_page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return code_page == MAP_FAILED ? "no memory that can be written and executed" : NULL;
}

/* ---- patching: mov eax, imm32; ret; with a new number before each call ---- */

static uint64_t patch(void)
{
    static const uint8_t code[] = {0xb8, 0, 0, 0, 0, 0xc3};
    uint32_t (*call)(void) = (uint32_t (*)(void))(uintptr_t)code_page;
    uint64_t sum = 0;
    memcpy(code_page, code, sizeof(code));
    for (uint32_t i = 0; i < 100; i++) {
        memcpy(code_page + 1, &i, sizeof(i));
        row_clobber(code_page);
        sum += call();
    }
    return sum;
}
ROW(patch, "code-patching", "special", patch, .setup = code_setup);

/* ---- a loop that counts in memory of its own page, 2 KiB behind it ---- */

static uint64_t beside(void)
{
    /* mov ecx, 20000; again: add qword [rip + 2048 - 13], 3; dec ecx; jnz again; ret */
    static const uint8_t code[] = {0xb9, 0x20, 0x4e, 0, 0, 0x48, 0x83, 0x05, 0xf3, 7, 0, 0, 3, 0xff, 0xc9, 0x75, 0xf4, 0xc3};
    uint64_t count = 0;
    if (memcmp(code_page, code, sizeof(code)) != 0)
        memcpy(code_page, code, sizeof(code));
    memcpy(code_page + 2048, &count, sizeof(count));
    row_clobber(code_page);
    ((void (*)(void))(uintptr_t)code_page)();
    row_clobber(code_page);
    memcpy(&count, code_page + 2048, sizeof(count));
    return count;
}
ROW(beside, "store-beside-code", "special", beside, .setup = code_setup);

/* ---- atomic operations without contention ---- */

static uint64_t atomics(void)
{
    static uint64_t words[8];
    memset(words, 0, sizeof(words));
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t *w = &words[i & 7], old = i;
        __atomic_fetch_add(w, i, __ATOMIC_SEQ_CST);
        __atomic_fetch_or(w, 1, __ATOMIC_SEQ_CST);
        __atomic_compare_exchange_n(w, &old, old + 3, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        words[0] += __atomic_exchange_n(&words[7 - (i & 3)], old, __ATOMIC_SEQ_CST);
    }
    return row_mix(words[0], words[5]);
}
ROW(atomics, "atomics", "special", atomics);
