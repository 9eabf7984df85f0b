/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a TLB must forget and when: many address spaces with and without PCIDs, global pages, all
 * kinds of INVPCID, accessed and dirty bits, rights that shrink and grow, and shoot-downs between
 * vCPUs under load.
 *
 * Spec      Intel SDM volume 3, 4.8 (accessed and dirty), 4.10.
 */
#include "lib/guest.h"

#define WINDOW 0x4000000000ul
#define GLOBAL_AT 0x4000200000ul
#define SPACES 24
#define V_SHOOT 0xe0
#define NO_FLUSH (1ul << 63)

static uint64_t home;
static uint64_t *data[SPACES]; /* each address space shows its own page at WINDOW */
static uint64_t roots[SPACES];
static volatile uint64_t *const window = (uint64_t *)WINDOW;

static bool has(uint32_t leaf, unsigned reg, unsigned bit)
{
    uint32_t r[4];
    cpuid(leaf, 0, r);
    return r[reg] >> bit & 1;
}

static void set_pte(unsigned space, const void *page, uint64_t bits)
{
    *find_pte(roots[space], WINDOW, NULL) = (uint64_t)page | bits;
}

static void make_spaces(void)
{
    home = read_cr3();
    for (unsigned i = 0; i < SPACES; i++) {
        data[i] = alloc_pages(1);
        data[i][0] = 100 + i;
        roots[i] = new_address_space();
        map_page(roots[i], WINDOW, (uint64_t)data[i], PTE_P | PTE_W | PTE_U, 1);
    }
}

/* Reads, writes and executes by the window, and looks at the page behind it. */
static void use_window(unsigned space, const char *when)
{
    check_eq(window[0], 100 + space, "the page of space %u, %s", space, when);
    window[1] = window[1] + 1;
    __asm__ volatile("lock incq %0" : "+m"(*(uint64_t *)(WINDOW + 16)));
}

static void test_many_spaces(bool pcids, const char *what)
{
    static uint64_t uses[SPACES];
    for (unsigned i = 0; i < SPACES; i++)
        data[i][1] = data[i][2] = uses[i] = 0;
    for (unsigned turn = 0; turn < 800; turn++) {
        unsigned i = turn < 200 ? turn % SPACES : turn * 7 / 5 % (turn & 64 ? 4 : SPACES);
        write_cr3(roots[i] | (pcids ? (i + 1) | (turn > SPACES ? NO_FLUSH : 0) : 0));
        use_window(i, what);
        uses[i]++;
    }
    write_cr3(home | (pcids ? 0x777 : 0));
    for (unsigned i = 0; i < SPACES; i++) {
        check_eq(data[i][1], uses[i], "plain writes in space %u, %s", i, what);
        check_eq(data[i][2], uses[i], "locked writes in space %u, %s", i, what);
    }
}

/* Without the no-flush bit a PCID's entries go, with it they may stay; either way the others' do. */
static void test_pcid_flush(void)
{
    for (unsigned turn = 0; turn < 60; turn++) {
        unsigned i = turn % 5, j = (turn + 1) % 5;
        write_cr3(roots[i] | (i + 1) | NO_FLUSH);
        check_eq(window[0], 100 + i, "before the change");
        write_cr3(roots[j] | (j + 1) | NO_FLUSH);
        check_eq(window[0], 100 + j, "another space before the change");
        set_pte(i, data[(i + 1) % 5], PTE_P | PTE_W | PTE_U);
        write_cr3(roots[i] | (i + 1));
        check_eq(window[0], 100 + (i + 1) % 5, "a changed page after a load of CR3 that flushes");
        set_pte(i, data[i], PTE_P | PTE_W | PTE_U);
        write_cr3(roots[i] | (i + 1));
    }
    write_cr3(home);
}

static void invpcid(uint64_t type, uint64_t pcid, uint64_t address)
{
    struct {
        uint64_t pcid, address;
    } d = { pcid, address };
    __asm__ volatile("invpcid %0, %1" ::"m"(d), "r"(type) : "memory");
}

static void bad_invpcid(void *arg)
{
    invpcid((uint64_t)arg, 0x1000, 0);
}

static void test_invpcid(void)
{
    for (unsigned turn = 0; turn < 80; turn++) {
        unsigned type = turn % 4, i = turn % 3;
        write_cr3(roots[i] | (i + 1) | NO_FLUSH);
        (void)window[0];
        window[3] = 1;
        write_cr3(home | 0x777 | NO_FLUSH);
        set_pte(i, data[i + 4], PTE_P | PTE_W | PTE_U);
        invpcid(type, i + 1, WINDOW);
        write_cr3(roots[i] | (i + 1) | NO_FLUSH);
        check_eq(window[0], 100 + i + 4, "a changed page after INVPCID of type %u", type);
        write_cr3(home | 0x777 | NO_FLUSH);
        set_pte(i, data[i], PTE_P | PTE_W | PTE_U);
        invpcid(type, i + 1, WINDOW);
        write_cr3(roots[i] | (i + 1) | NO_FLUSH);
        check_eq(window[0], 100 + i, "and back");
    }
    check_eq(catch_trap(bad_invpcid, (void *)0), 13, "INVPCID of a reserved PCID");
    check_eq(catch_trap(bad_invpcid, (void *)4), 13, "INVPCID of an unknown type");
    write_cr3(home);
}

/* INVLPG takes a page from the current space, and global ones from all. */
static void test_global(bool pcids)
{
    uint64_t *a = alloc_pages(1), *b = alloc_pages(1);
    volatile uint64_t *g = (uint64_t *)GLOBAL_AT;
    *a = 0xa, *b = 0xb;
    write_cr4(read_cr4() | CR4_PGE);
    for (unsigned i = 0; i < 4; i++)
        map_page(roots[i], GLOBAL_AT, (uint64_t)a, PTE_P | PTE_W | PTE_G, 1);
    for (unsigned turn = 0; turn < 100; turn++) {
        unsigned i = turn % 4, j = (turn / 4 + i + 1) % 4;
        uint64_t *page = turn & 1 ? a : b;
        for (unsigned k = 0; k < 4; k++) {
            write_cr3(roots[k] | (pcids ? k + 1 : 0));
            (void)*g;
            *find_pte(roots[k], GLOBAL_AT, NULL) = (uint64_t)page | PTE_P | PTE_W | PTE_G;
        }
        write_cr3(roots[i] | (pcids ? i + 1 : 0));
        invlpg((void *)g);
        check_eq(*g, page == a ? 0xa : 0xb, "a global page after INVLPG");
        write_cr3(roots[j] | (pcids ? (j + 1) | NO_FLUSH : 0));
        check_eq(*g, page == a ? 0xa : 0xb, "a global page in another space after INVLPG");
    }
    write_cr3(home);
    write_cr4(read_cr4() & ~CR4_PGE);
}

/* Two sizes of page at one place, one after the other. */
static void test_sizes(void)
{
    uint8_t *big = alloc_aligned(0x200000, 0x200000);
    uint64_t at = 0x4040000000, *small = alloc_pages(1);
    for (unsigned off = 0; off < 0x200000; off += PAGE)
        *(uint64_t *)(big + off) = off;
    *small = 0x5555;
    for (unsigned turn = 0; turn < 30; turn++) {
        map_page(0, at, (uint64_t)big, PTE_P | PTE_W, 2);
        for (unsigned off = 0; off < 0x200000; off += 17 * PAGE)
            check_eq(*(volatile uint64_t *)(at + off), off, "a 2 MiB page");
        map_page(0, at + 34 * PAGE, (uint64_t)small, PTE_P | PTE_W, 1); /* splits it */
        invlpg((void *)at);
        flush_tlb();
        check_eq(*(volatile uint64_t *)(at + 34 * PAGE), 0x5555, "4 KiB within it");
        check_eq(*(volatile uint64_t *)(at + 51 * PAGE), 51 * PAGE, "its neighbour");
        *find_pte(0, at, NULL) = 0;
        uint64_t *pml4 = (uint64_t *)(home & ~0xffful);
        uint64_t *pdpt = (uint64_t *)(pml4[at >> 39] & ~0xffful & ~PTE_NX);
        uint64_t *pd = (uint64_t *)(pdpt[at >> 30 & 511] & ~0xffful & ~PTE_NX);
        pd[at >> 21 & 511] = (uint64_t)big | PTE_P | PTE_W | PTE_PS;
        invlpg((void *)(at + 100)); /* one INVLPG for all of it */
        check_eq(*(volatile uint64_t *)(at + 17 * PAGE), 17 * PAGE, "and a 2 MiB page again");
    }
}

/* --- accessed and dirty --- */

static void test_accessed_dirty(void)
{
    static const struct {
        const char *name;
        uint64_t want;
    } kinds[] = { { "a read", PTE_A }, { "a write", PTE_A | PTE_D }, { "a locked operation", PTE_A | PTE_D },
                  { "PUSH", PTE_A | PTE_D }, { "REP STOSB", PTE_A | PTE_D }, { "a vector store", PTE_A | PTE_D },
                  { "execution", PTE_A }, { "CMPXCHG that fails", PTE_A | PTE_D } };
    uint64_t *page = alloc_pages(1);
    map_page(0, WINDOW, (uint64_t)page, PTE_P | PTE_W, 1);
    volatile uint64_t *pte = find_pte(0, WINDOW, NULL);
    *(uint8_t *)(page + 8) = 0xc3;
    for (unsigned turn = 0; turn < 40; turn++) {
        for (unsigned kind = 0; kind < ARRAY_COUNT(kinds); kind++) {
            if (turn % 3 == 2)
                (void)window[5]; /* a clean entry is there already */
            *pte &= ~(PTE_A | PTE_D);
            invlpg((void *)WINDOW);
            if (turn % 3 == 1) {
                (void)window[5];
                *(volatile uint8_t *)pte &= (uint8_t)~0x60;
                invlpg((void *)WINDOW);
            }
            uint64_t rdi = WINDOW + 256, rcx = 7, rax = 1;
            switch (kind) {
            case 0: (void)window[4]; break;
            case 1: window[4] = turn; break;
            case 2: __asm__ volatile("lock incl %0" : "+m"(window[4])); break;
            case 3: __asm__ volatile("mov %%rsp, %%rcx; mov %0, %%rsp; push %%rax; mov %%rcx, %%rsp" ::"r"(WINDOW + 1024) : "rcx", "memory"); break;
            case 4: __asm__ volatile("rep stosb" : "+D"(rdi), "+c"(rcx) : "a"(0) : "memory"); break;
            case 5: __asm__ volatile("movups %%xmm0, %0" : "=m"(window[20])); break;
            case 6: ((void (*)(void))(WINDOW + 64))(); break;
            default: __asm__ volatile("cmpxchg %2, %1" : "+a"(rax), "+m"(window[4]) : "r"(5ul)); break;
            }
            check_eq(*pte & (PTE_A | PTE_D), kinds[kind].want, "A and D after %s, turn %u", kinds[kind].name, turn);
        }
    }
}

/* --- rights --- */

static void do_read(void *p) { (void)*(volatile uint64_t *)p; }
static void do_write(void *p) { *(volatile uint64_t *)p = 1; }
static void do_call(void *p) { ((void (*)(void))p)(); }

/* A right that is taken away holds after INVLPG; one that is given needs none. */
static void test_rights(void)
{
    static void (*const uses[])(void *) = { do_read, do_write, do_call };
    static const uint64_t all = PTE_P | PTE_W, less[] = { 0, PTE_P, PTE_P | PTE_W | PTE_NX };
    uint64_t *page = alloc_pages(1);
    map_page(0, WINDOW, (uint64_t)page, all, 1);
    volatile uint64_t *pte = find_pte(0, WINDOW, NULL);
    for (unsigned turn = 0; turn < 90; turn++) {
        unsigned how = turn % 3;
        *(volatile uint8_t *)page = 0xc3;
        for (unsigned i = 0; i < 4; i++)
            check_eq(catch_trap(uses[how], (void *)WINDOW), -1, "use %u of a page with all rights", how);
        *pte = (uint64_t)page | less[how];
        invlpg((void *)WINDOW);
        check_eq(catch_trap(uses[how], (void *)WINDOW), 14, "use %u of a page with fewer", how);
        *(volatile uint8_t *)page = 0xc3;
        *pte = (uint64_t)page | all; /* no INVLPG: a fault flushes its own entry */
        check_eq(catch_trap(uses[how], (void *)WINDOW), -1, "use %u after the right came back", how);
        write_cr0(read_cr0() & ~CR0_WP);
        *pte = (uint64_t)page | PTE_P;
        invlpg((void *)WINDOW);
        if (how == 1)
            check_eq(catch_trap(do_write, (void *)WINDOW), -1, "a write without WP");
        write_cr0(read_cr0() | CR0_WP);
        if (how == 1)
            check_eq(catch_trap(do_write, (void *)WINDOW), 14, "a write with WP again");
        *pte = (uint64_t)page | all;
        invlpg((void *)WINDOW);
    }
}

/* --- shoot-downs --- */

static volatile uint64_t acks, generation, bad_reads, bad_writes, stop;
static uint64_t *pages[2];
typedef uint64_t code_check(void);

static void shoot(struct frame *f)
{
    invlpg((void *)WINDOW);
    __atomic_fetch_add(&acks, 1, __ATOMIC_SEQ_CST);
    apic_eoi();
}

/* generation is odd while a change is under way; within an even one only its page may show. */
static void load_window(void *arg)
{
    uint64_t mine = this_cpu()->index;
    sti();
    while (!stop) {
        for (unsigned i = 0; i < 200; i++) {
            uint64_t g = __atomic_load_n(&generation, __ATOMIC_ACQUIRE);
            uint64_t v = window[0], c = ((code_check *)(WINDOW + 512))();
            window[8 + mine] = g;
            __asm__ volatile("lock incq %0" : "+m"(*(uint64_t *)(WINDOW + 256 + 8 * mine)));
            uint64_t now = __atomic_load_n(&generation, __ATOMIC_ACQUIRE);
            if (g == now && !(g & 1) && (v != (g >> 1 & 1) || c != v))
                __atomic_fetch_add(&bad_reads, 1, __ATOMIC_SEQ_CST);
            if (g == now && !(g & 1) && pages[g >> 1 & 1][8 + mine] != g)
                __atomic_fetch_add(&bad_writes, 1, __ATOMIC_SEQ_CST);
        }
    }
    cli();
}

static void test_shoot_down(unsigned count, unsigned turns)
{
    for (unsigned i = 0; i < 2; i++) {
        static const uint8_t text[] = { 0xb8, 0, 0, 0, 0, 0xc3 };
        pages[i] = alloc_pages(1);
        pages[i][0] = i;
        memcpy((uint8_t *)pages[i] + 512, text, sizeof(text));
        ((uint8_t *)pages[i])[513] = (uint8_t)i;
    }
    map_page(0, WINDOW, (uint64_t)pages[0], PTE_P | PTE_W, 1);
    volatile uint64_t *pte = find_pte(0, WINDOW, NULL);
    trap_set(V_SHOOT, shoot);
    for (unsigned i = 1; i < count; i++)
        smp_call(i, load_window, NULL);
    for (uint64_t n = 1; n <= turns; n++) {
        generation = 2 * n - 1;
        acks = 0;
        *pte = (uint64_t)pages[n & 1] | PTE_P | PTE_W;
        invlpg((void *)WINDOW);
        apic_icr(0, 0xc4000 | V_SHOOT);
        if (!check(wait_for(&acks, count - 1, 20000), "all answer shoot-down %lu", n))
            break;
        generation = 2 * n;
        for (unsigned i = 0; i < 100 * (n % 7); i++)
            pause();
    }
    stop = 1;
    for (unsigned i = 1; i < count; i++)
        smp_wait(i);
    check_eq(bad_reads, 0, "reads and calls of the old page after a shoot-down");
    check_eq(bad_writes, 0, "writes to the old page after a shoot-down");
}

void test_main(void)
{
    unsigned count = cpu_count() > 1 ? smp_start() : 1;
    make_spaces();
    test_many_spaces(false, "CR3 alone");
    test_sizes();
    test_accessed_dirty();
    test_rights();
    test_global(false);
    if (has(1, 2, 17)) {
        write_cr4(read_cr4() | CR4_PCIDE);
        test_many_spaces(true, "PCIDs");
        test_pcid_flush();
        test_global(true);
        if (has(7, 1, 10))
            test_invpcid();
        else
            skip("INVPCID", "not in CPUID");
        write_cr3(home);
        write_cr4(read_cr4() & ~CR4_PCIDE);
    } else {
        skip("PCID", "not in CPUID");
    }
    if (count > 1)
        test_shoot_down(count, (unsigned)cmdline_number("turns", 300));
}
