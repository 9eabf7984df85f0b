/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages and page tables. Everything is identity mapped, so tables are plain pointers. */
#include "guest.h"

extern uint8_t payload_end[];
static uintptr_t next_free;
static volatile int alloc_lock;

void *alloc_aligned(size_t bytes, size_t align)
{
    while (__atomic_exchange_n(&alloc_lock, 1, __ATOMIC_ACQUIRE))
        pause();
    if (!next_free)
        next_free = (uintptr_t)payload_end;
    uintptr_t p = (next_free + align - 1) & ~(align - 1);
    next_free = p + bytes;
    __atomic_store_n(&alloc_lock, 0, __ATOMIC_RELEASE);
    memset((void *)p, 0, bytes);
    return (void *)p;
}

void *alloc_pages(size_t count)
{
    return alloc_aligned(count * PAGE, PAGE);
}

#ifdef __x86_64__
#define ADDR 0x000ffffffffff000ul

/* A large page in the way becomes a table of smaller ones with the same rights. */
static void split(uint64_t *e, int level)
{
    uint64_t *table = alloc_pages(1);
    uint64_t step = 1ul << (12 + 9 * (level - 2));
    for (unsigned i = 0; i < 512; i++)
        table[i] = ((*e & ~(level == 2 ? PTE_PS : 0)) + i * step);
    *e = (uint64_t)table | PTE_P | PTE_W | PTE_U;
}

void map_page(uint64_t root, uint64_t linear, uint64_t physical, uint64_t bits, int level)
{
    uint64_t *table = (uint64_t *)((root ? root : read_cr3()) & ADDR);
    for (int l = 4; l > level; l--) {
        uint64_t *e = &table[linear >> (12 + 9 * (l - 1)) & 511];
        if (!(*e & PTE_P))
            *e = (uint64_t)alloc_pages(1) | PTE_P | PTE_W | PTE_U;
        else if (l < 4 && (*e & PTE_PS))
            split(e, l);
        table = (uint64_t *)(*e & ADDR);
    }
    table[linear >> (12 + 9 * (level - 1)) & 511] = physical | bits | (level > 1 ? PTE_PS : 0);
    invlpg((void *)linear);
}

volatile uint64_t *find_pte(uint64_t root, uint64_t linear, int *ret_level)
{
    uint64_t *table = (uint64_t *)((root ? root : read_cr3()) & ADDR);
    for (int l = 4;; l--) {
        volatile uint64_t *e = &table[linear >> (12 + 9 * (l - 1)) & 511];
        if (!(*e & PTE_P))
            return NULL;
        if (l == 1 || (l < 4 && (*e & PTE_PS))) {
            if (ret_level)
                *ret_level = l;
            return e;
        }
        table = (uint64_t *)(*e & ADDR);
    }
}

static uint64_t copy_table(const uint64_t *from, int level)
{
    uint64_t *to = alloc_pages(1);
    for (unsigned i = 0; i < 512; i++) {
        bool table = level > 1 && (from[i] & PTE_P) && (level == 4 || !(from[i] & PTE_PS));
        to[i] = table
                    ? copy_table((const uint64_t *)(from[i] & ADDR), level - 1) | (from[i] & ~ADDR)
                    : from[i];
    }
    return (uint64_t)to;
}

uint64_t new_address_space(void)
{
    extern uint64_t boot_pml4[];
    return copy_table(boot_pml4, 4);
}

void *map_mmio(uint64_t physical, uint64_t bytes)
{
    for (uint64_t at = physical & ~0x1ffffful; at < physical + bytes; at += 0x200000) {
        if (!find_pte(0, at, NULL))
            map_page(0, at, at, PTE_P | PTE_W, 2);
    }
    return (void *)physical;
}

void user_pages(bool on)
{
    extern uint64_t boot_pd[];
    for (unsigned i = 0; i < 2048; i++)
        boot_pd[i] = on ? boot_pd[i] | PTE_U : boot_pd[i] & ~PTE_U;
    flush_tlb();
}

void flush_tlb(void)
{
    uint64_t cr4 = read_cr4();
    write_cr4(cr4 ^ CR4_PGE);
    write_cr4(cr4);
}
#endif
