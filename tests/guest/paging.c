/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Page faults and rights: every bit of the error code, at every page size; A and D bits; TLB; PCID.
 *
 * Spec      Intel SDM volume 3, chapter 4.
 */
#include "lib/guest.h"

#define WINDOW 0x4000000000ul /* nothing is mapped there but by tests */
#define PF_P 1u
#define PF_W 2u
#define PF_U 4u
#define PF_RSVD 8u
#define PF_I 16u

static uint8_t *ram; /* 1 GiB aligned would not fit: 2 MiB aligned */

static void do_read(void *p)
{
    *(volatile uint64_t *)p;
}
static void do_write(void *p)
{
    *(volatile uint64_t *)p = 1;
}
static void do_exec(void *p)
{
    ((void (*)(void))p)();
}
__attribute__((naked)) static void user_read(void *p)
{
    __asm__("mov (%rdi), %rax; ret");
}
__attribute__((naked)) static void user_write(void *p)
{
    __asm__("mov %rdi, (%rdi); ret");
}
__attribute__((naked)) static void user_exec(void *p)
{
    __asm__("jmp *%rdi");
}

enum how { READ, WRITE, EXEC, U_READ, U_WRITE, U_EXEC };

/* -1: no fault; otherwise the error code. */
static int64_t access(enum how how, uint64_t at)
{
    static void (*const fns[])(void *) = { do_read,   do_write,   do_exec,
                                           user_read, user_write, user_exec };
    int v = how >= U_READ ? catch_user(fns[how], (void *)at) : catch_trap(fns[how], (void *)at);
    if (v == -1 || v == USER_DONE)
        return -1;
    if (v != 14) {
        check(false, "vector %d in place of a page fault", v);
        return -2;
    }
    check_eq(this_cpu()->caught_cr2, at, "CR2");
    return (int64_t)this_cpu()->caught.error;
}

static bool has_feature(uint32_t leaf, unsigned reg, unsigned bit)
{
    uint32_t r[4];
    cpuid(leaf & 0x80000000, 0, r);
    if (r[0] < leaf)
        return false;
    cpuid(leaf, 0, r);
    return r[reg] >> bit & 1;
}

static const struct {
    const char *name;
    uint64_t bits;
    int64_t want[6]; /* by enum how */
} rights[] = {
    { "absent", 0, { 0, PF_W, PF_I, PF_U, PF_U | PF_W, PF_U | PF_I } },
    { "kernel, read",
      PTE_P,
      { -1, PF_P | PF_W, -1, PF_P | PF_U, PF_P | PF_U | PF_W, PF_P | PF_U | PF_I } },
    { "kernel, write",
      PTE_P | PTE_W,
      { -1, -1, -1, PF_P | PF_U, PF_P | PF_U | PF_W, PF_P | PF_U | PF_I } },
    { "kernel, no execution",
      PTE_P | PTE_W | PTE_NX,
      { -1, -1, PF_P | PF_I, PF_P | PF_U, PF_P | PF_U | PF_W, PF_P | PF_U | PF_I } },
    { "user, read", PTE_P | PTE_U, { -1, PF_P | PF_W, -1, -1, PF_P | PF_U | PF_W, -1 } },
    { "user, write", PTE_P | PTE_U | PTE_W, { -1, -1, -1, -1, -1, -1 } },
    { "user, no execution",
      PTE_P | PTE_U | PTE_W | PTE_NX,
      { -1, -1, PF_P | PF_I, -1, -1, PF_P | PF_U | PF_I } },
};

static const char *const how_names[] = { "read",      "write",      "execute",
                                         "user read", "user write", "user execute" };

static void test_rights(int level)
{
    uint64_t physical = level == 3 ? 0 : (uint64_t)ram;
    uint64_t off = level == 3 ? (uint64_t)ram : 0; /* where ram shows in the window */
    for (size_t i = 0; i < ARRAY_COUNT(rights); i++) {
        map_page(0, WINDOW, physical, rights[i].bits, level);
        ram[0] = 0xc3; /* RET */
        for (enum how how = READ; how <= U_EXEC; how++) {
            flush_tlb();
            ram[0] = 0xc3;
            check_eq(access(how, WINDOW + off), rights[i].want[how], "level %d, %s: %s", level,
                     rights[i].name, how_names[how]);
        }
    }
    map_page(0, WINDOW, physical, PTE_P, level); /* WP off: the kernel writes where it may read */
    write_cr0(read_cr0() & ~CR0_WP);
    check_eq(access(WRITE, WINDOW + off), -1, "level %d: write to a read-only page without WP",
             level);
    write_cr0(read_cr0() | CR0_WP);
    check_eq(access(WRITE, WINDOW + off), PF_P | PF_W, "level %d: the same with WP", level);
}

/* The upper levels' bits hold too. */
static void test_upper_rights(void)
{
    map_page(0, WINDOW, (uint64_t)ram, PTE_P | PTE_W | PTE_U, 1);
    uint64_t *pml4 = (uint64_t *)read_cr3(), *pdpt = (uint64_t *)(pml4[0] & ~0xffful);
    uint64_t *pdpte = &pdpt[WINDOW >> 30 & 511];
    *pdpte &= ~PTE_W;
    flush_tlb();
    check_eq(access(WRITE, WINDOW), PF_P | PF_W, "the PDPTE's W holds");
    *pdpte = (*pdpte | PTE_W) & ~PTE_U;
    flush_tlb();
    check_eq(access(U_READ, WINDOW), PF_P | PF_U, "the PDPTE's U holds");
    *pdpte |= PTE_U | PTE_NX;
    flush_tlb();
    ram[0] = 0xc3;
    check_eq(access(EXEC, WINDOW), PF_P | PF_I, "the PDPTE's NX holds");
    *pdpte &= ~(PTE_NX | PTE_P);
    flush_tlb();
    check_eq(access(READ, WINDOW), 0, "an absent PDPTE");
    *pdpte |= PTE_P;
    flush_tlb();
}

static void test_reserved(void)
{
    map_page(0, WINDOW, (uint64_t)ram, PTE_P | PTE_W | 1ul << 51, 1);
    check_eq(access(READ, WINDOW), PF_P | PF_RSVD, "a physical address beyond MAXPHYADDR");
    map_page(0, WINDOW, (uint64_t)ram, PTE_P | PTE_W | 1ul << 14, 2);
    check_eq(access(WRITE, WINDOW), PF_P | PF_RSVD | PF_W, "a reserved bit of a 2 MiB page");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(1ul << 11));
    map_page(0, WINDOW, (uint64_t)ram, PTE_P | PTE_W | PTE_NX, 1);
    flush_tlb();
    check_eq(access(READ, WINDOW), PF_P | PF_RSVD, "NX without EFER.NXE");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1ul << 11);
    map_page(0, WINDOW, (uint64_t)ram, PTE_P | PTE_W, 1);
    flush_tlb();
    check_eq(access(READ, WINDOW), -1, "and all is well again");
}

static void test_accessed_dirty(void)
{
    map_page(0, WINDOW, (uint64_t)ram, PTE_P | PTE_W, 1);
    volatile uint64_t *pte = find_pte(0, WINDOW, NULL);
    check_eq(*pte & (PTE_A | PTE_D), 0, "A and D of a fresh page");
    do_read((void *)WINDOW);
    check_eq(*pte & (PTE_A | PTE_D), PTE_A, "A after a read");
    do_write((void *)WINDOW);
    check_eq(*pte & (PTE_A | PTE_D), PTE_A | PTE_D, "D after a write");
    *pte &= ~(PTE_A | PTE_D);
    invlpg((void *)WINDOW);
    do_write((void *)WINDOW);
    check_eq(*pte & (PTE_A | PTE_D), PTE_A | PTE_D, "A and D by one write");
}

static void test_smep_smap(void)
{
    map_page(0, WINDOW, (uint64_t)ram, PTE_P | PTE_U | PTE_W, 1);
    ram[0] = 0xc3;
    user_pages(false); /* our own code must not be the user's */
    if (has_feature(7, 1, 7)) {
        write_cr4(read_cr4() | CR4_SMEP);
        check_eq(access(EXEC, WINDOW), PF_P | PF_I, "SMEP");
        check_eq(access(READ, WINDOW), -1, "SMEP leaves reads alone");
        write_cr4(read_cr4() & ~CR4_SMEP);
    } else {
        skip("SMEP", "not in CPUID");
    }
    if (has_feature(7, 1, 20)) {
        write_cr4(read_cr4() | CR4_SMAP);
        check_eq(access(READ, WINDOW), PF_P, "SMAP, read");
        check_eq(access(WRITE, WINDOW), PF_P | PF_W, "SMAP, write");
        __asm__ volatile("stac");
        check_eq(access(READ, WINDOW), -1, "SMAP under STAC");
        __asm__ volatile("clac");
        check_eq(access(READ, WINDOW), PF_P, "SMAP after CLAC");
        write_cr4(read_cr4() & ~CR4_SMAP);
    } else {
        skip("SMAP", "not in CPUID");
    }
    user_pages(true);
}

/* A changed PTE shows after INVLPG; a global one survives a CR3 write, and falls with CR4.PGE. */
static void test_tlb(void)
{
    uint64_t *a = (uint64_t *)ram, *b = (uint64_t *)(ram + PAGE);
    *a = 0xa;
    *b = 0xb;
    map_page(0, WINDOW, (uint64_t)a, PTE_P | PTE_W, 1);
    check_eq(*(volatile uint64_t *)WINDOW, 0xa, "the first page");
    map_page(0, WINDOW, (uint64_t)b, PTE_P | PTE_W, 1);
    check_eq(*(volatile uint64_t *)WINDOW, 0xb, "the second, after INVLPG");
    *find_pte(0, WINDOW, NULL) = (uint64_t)a | PTE_P | PTE_W;
    write_cr3(read_cr3());
    check_eq(*(volatile uint64_t *)WINDOW, 0xa, "the first, after a CR3 write");
    write_cr4(read_cr4() | CR4_PGE);
    map_page(0, WINDOW, (uint64_t)a, PTE_P | PTE_W | PTE_G, 1);
    do_read((void *)WINDOW);
    *find_pte(0, WINDOW, NULL) = (uint64_t)b | PTE_P | PTE_W | PTE_G;
    flush_tlb();
    check_eq(*(volatile uint64_t *)WINDOW, 0xb, "a global page, after a write of CR4.PGE");
    write_cr4(read_cr4() & ~CR4_PGE);
}

static void test_pcid(void)
{
    if (!has_feature(1, 2, 17)) {
        skip("PCID", "not in CPUID");
        return;
    }
    uint64_t *a = (uint64_t *)ram, *b = (uint64_t *)(ram + PAGE);
    uint64_t root1 = read_cr3(), root2 = new_address_space();
    *a = 0xa;
    *b = 0xb;
    map_page(root1, WINDOW, (uint64_t)a, PTE_P | PTE_W, 1);
    map_page(root2, WINDOW, (uint64_t)b, PTE_P | PTE_W, 1);
    write_cr4(read_cr4() | CR4_PCIDE);
    for (int i = 0; i < 4; i++) {
        write_cr3(root1 | 1 | (i ? 1ul << 63 : 0));
        check_eq(*(volatile uint64_t *)WINDOW, 0xa, "the page of PCID 1");
        write_cr3(root2 | 2 | (i ? 1ul << 63 : 0));
        check_eq(*(volatile uint64_t *)WINDOW, 0xb, "the page of PCID 2");
    }
    if (has_feature(7, 1, 10)) {
        struct {
            uint64_t pcid, address;
        } d = { 1, WINDOW };
        *find_pte(root1, WINDOW, NULL) = (uint64_t)b | PTE_P | PTE_W;
        __asm__ volatile("invpcid %0, %1" ::"m"(d), "r"(0ul) : "memory");
        write_cr3(root1 | 1 | 1ul << 63);
        check_eq(*(volatile uint64_t *)WINDOW, 0xb, "INVPCID of one address");
    }
    write_cr3(root1);
    write_cr4(read_cr4() & ~CR4_PCIDE);
}

void test_main(void)
{
    ram = alloc_aligned(0x200000, 0x200000);
    user_pages(true);
    test_rights(1);
    test_rights(2);
    if (has_feature(0x80000001, 3, 26))
        test_rights(3);
    else
        skip("1 GiB pages", "not in CPUID");
    map_page(0, WINDOW, 0, 0, 3);
    *((uint64_t *)((*(uint64_t *)read_cr3()) & ~0xffful) + (WINDOW >> 30 & 511)) = 0;
    flush_tlb();
    test_upper_rights();
    test_accessed_dirty();
    test_smep_smap();
    test_tlb();
    test_pcid();
    test_reserved();
}
