/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the TLB keeps and what it must forget: address spaces, global pages, INVLPG and INVPCID, large pages; the same
 * for code and the jump cache. A kept translation shows by the old value after the tables changed. */
#include "cpu/exec/testbed.h"
#include "cpu/mmu/internal.h"
#include "cpu/sys/regs.h"

#define SPACES 12u              /* more than there are banks */
#define PAGE 0x40000000ull      /* linear, beyond what the bed maps */
#define FRAME(n) (0x500000u + (n) * 0x1000u) /* holds its number n + 1 */
#define ROOT(n) (0x20000u + (n) * 0x4000u)   /* a space's PML4; PDPT, PD, PT follow */
#define PDE(n) (ROOT(n) + 0x2000u)
#define PTE(n) (ROOT(n) + 0x3000u)
#define FLAGS 7u

static struct bed *bed;
static struct cpu *cpu;

static void be(unsigned cpl)
{
    cpu->cpl = (uint8_t)cpl;
    cpu_update_mode(cpu);
}

/* Enters space n, PCID n + 1. */
static void enter(unsigned n, bool keep)
{
    mmu_set_cr3(cpu, ROOT(n) | (cpu->cr4 & CR4_PCIDE ? n + 1 : 0), keep);
}

static void map(unsigned space, unsigned frame, uint64_t flags)
{
    bed_poke64(bed, PTE(space), FRAME(frame) | flags);
}

/* Space n has frame n at PAGE. */
static void set_up(void)
{
    bed = bed_new("max");
    cpu = bed->cpu;
    for (unsigned i = 0; i < SPACES; i++) {
        bed_poke64(bed, ROOT(i), (ROOT(i) + 0x1000) | 7);
        bed_poke64(bed, ROOT(i) + 0x1000 + (PAGE >> 30) * 8, PDE(i) | 7);
        bed_poke64(bed, PDE(i), PTE(i) | 7);
        map(i, i, FLAGS);
        bed_poke64(bed, FRAME(i), i + 1);
    }
    cpu->cr4 |= CR4_PGE | CR4_PCIDE;
    mmu_flush_all(cpu);
    enter(0, false);
    be(3);
}

static void tear_down(void)
{
    bed_free(bed);
}

static uint32_t value(void)
{
    uint32_t v = 0;
    g_assert_cmpint(mmu_read_u32(cpu, PAGE, &v), ==, 0);
    return v;
}

/* Frame number + 1 of the page that code is fetched from. */
static uint64_t code(void)
{
    uint64_t gpa;
    const uint8_t *host;
    g_assert_cmpint(mmu_fetch_page(cpu, PAGE, &gpa, &host), ==, 0);
    g_assert_true(host == bed->ram + gpa);
    return (gpa - FRAME(0)) / 0x1000 + 1;
}

/* Every kind of access finds the page; the modes in which it is done. */
static void all_kinds(uint32_t want)
{
    be(3);
    g_assert_cmpuint(value(), ==, want);
    g_assert_cmpuint(code(), ==, want);
    be(0);
    g_assert_cmpuint(value(), ==, want);
    g_assert_cmpuint(code(), ==, want);
    cpu->cr4 |= CR4_SMAP; /* the set with AC; nothing is flushed, since CR4 is not written by an instruction */
    cpu->flags_sys |= FLAG_AC;
    be(0);
    g_assert_cmpuint(value(), ==, want);
    cpu->flags_sys &= ~FLAG_AC;
    cpu->cr4 &= ~(uint64_t)CR4_SMAP;
    be(3);
}

/* --- data and code --- */

static void test_banks(void)
{
    set_up();
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < SPACES; i++) {
            enter(i, true);
            all_kinds(i + 1);
        }
    }
    /* The eight entered last are cached for user mode, most recent first. */
    uint64_t walks = cpu->stats.page_walks;
    for (unsigned i = SPACES; i-- > SPACES - N_TLB_SPACES;) {
        enter(i, true);
        g_assert_cmpuint(value(), ==, i + 1);
        g_assert_cmpuint(code(), ==, i + 1);
    }
    g_assert_cmpuint(cpu->stats.page_walks, ==, walks);
    /* Space 0 has lost its bank to others; what they left there is gone. */
    map(0, 5, FLAGS);
    enter(0, true);
    all_kinds(6);
    /* That took the bank of the one that had waited longest: 11 was entered first above. */
    walks = cpu->stats.page_walks;
    enter(SPACES - N_TLB_SPACES, true);
    g_assert_cmpuint(value(), ==, SPACES - N_TLB_SPACES + 1);
    g_assert_cmpuint(cpu->stats.page_walks, ==, walks);
    enter(SPACES - 1, true);
    g_assert_cmpuint(value(), ==, SPACES);
    g_assert_cmpuint(cpu->stats.page_walks, ==, walks + 1);
    tear_down();
}

/* CR3 written without bit 63 empties its space and no other. */
static void test_set_cr3(void)
{
    set_up();
    for (unsigned i = 0; i < 3; i++) {
        enter(i, false);
        all_kinds(i + 1);
        map(i, 9, FLAGS);
    }
    enter(0, true);
    be(3);
    g_assert_cmpuint(value(), ==, 1);
    g_assert_cmpuint(code(), ==, 1);
    enter(1, false);
    all_kinds(10);
    enter(0, true);
    g_assert_cmpuint(value(), ==, 1);
    be(0); /* supervisor entries that are not global went at the switch */
    g_assert_cmpuint(value(), ==, 10);
    be(3);
    enter(2, true);
    g_assert_cmpuint(value(), ==, 3);
    /* The same root under another PCID is another space. */
    mmu_set_cr3(cpu, ROOT(2) | 77, true);
    all_kinds(10);
    tear_down();
}

static void test_no_pcid(void)
{
    set_up();
    cpu->cr4 &= ~(uint64_t)CR4_PCIDE;
    mmu_flush_all(cpu);
    for (unsigned i = 0; i < 200; i++) {
        enter(i % SPACES, false);
        all_kinds(i % SPACES + 1);
    }
    tear_down();
}

/* Space 0 and 1 have the page global, with values of their own: what is kept shows which one. */
static void two_global(void)
{
    set_up();
    map(0, 0, FLAGS | PTE_G);
    map(1, 1, FLAGS | PTE_G);
    enter(0, false);
    be(3);
    g_assert_cmpuint(value(), ==, 1);
    enter(1, false);
    be(3);
    g_assert_cmpuint(value(), ==, 2);
    g_assert_cmpuint(code(), ==, 2);
    map(0, 8, FLAGS);
    map(1, 9, FLAGS);
    enter(0, true);
    g_assert_cmpuint(value(), ==, 1);
}

static void test_invlpg_global(void)
{
    two_global();
    enter(1, true);
    g_assert_cmpuint(value(), ==, 2);
    mmu_flush_page(cpu, PAGE + 0x123); /* in every space */
    g_assert_cmpuint(value(), ==, 10);
    g_assert_cmpuint(code(), ==, 10);
    enter(0, true);
    all_kinds(9);
    tear_down();
}

/* A supervisor's global entry outlives address spaces, until INVLPG from any of them. */
static void test_global_supervisor(void)
{
    set_up();
    map(0, 0, FLAGS | PTE_G);
    be(0);
    g_assert_cmpuint(value(), ==, 1);
    g_assert_cmpuint(code(), ==, 1);
    for (unsigned i = 0; i < SPACES; i++) {
        enter(i, false);
        g_assert_cmpuint(value(), ==, 1);
        g_assert_cmpuint(code(), ==, 1);
    }
    mmu_flush_nonglobal(cpu);
    g_assert_cmpuint(value(), ==, 1);
    mmu_flush_pcid(cpu, SPACES);
    g_assert_cmpuint(value(), ==, 1);
    enter(5, true);
    mmu_flush_page(cpu, PAGE);
    g_assert_cmpuint(value(), ==, 6);
    g_assert_cmpuint(code(), ==, 6);
    enter(0, true);
    g_assert_cmpuint(value(), ==, 1);
    map(0, 3, FLAGS);
    mmu_flush_all(cpu);
    g_assert_cmpuint(value(), ==, 4);
    g_assert_cmpuint(code(), ==, 4);
    tear_down();
}

/* Fills spaces 0 to 2, changes the tables, returns in space 0. */
static void three_stale(void)
{
    set_up();
    for (unsigned i = 3; i-- > 0;) {
        enter(i, true);
        be(3);
        g_assert_cmpuint(value(), ==, i + 1);
        g_assert_cmpuint(code(), ==, i + 1);
        map(i, 9, FLAGS);
    }
}

static void expect_user(unsigned space, uint32_t want)
{
    enter(space, true);
    be(3);
    g_assert_cmpuint(value(), ==, want);
    g_assert_cmpuint(code(), ==, want);
}

static void test_invlpg_local(void)
{
    three_stale();
    mmu_flush_page(cpu, PAGE + 0x1000);
    g_assert_cmpuint(value(), ==, 1);
    mmu_flush_page(cpu, PAGE + ((uint64_t)TLB_SIZE << PAGE_SHIFT)); /* the same position, another page */
    g_assert_cmpuint(value(), ==, 1);
    mmu_flush_page(cpu, PAGE);
    all_kinds(10);
    expect_user(1, 2);
    expect_user(2, 3);
    tear_down();
}

static void test_invpcid_page(void)
{
    three_stale();
    mmu_flush_pcid_page(cpu, 2, PAGE);
    mmu_flush_pcid_page(cpu, 99, PAGE);
    g_assert_cmpuint(value(), ==, 1);
    expect_user(1, 10);
    expect_user(2, 3);
    mmu_flush_pcid_page(cpu, 3, PAGE); /* the current one */
    all_kinds(10);
    expect_user(0, 1);
    tear_down();
}

static void test_invpcid_space(void)
{
    three_stale();
    mmu_flush_pcid(cpu, 2);
    mmu_flush_pcid(cpu, 99);
    g_assert_cmpuint(value(), ==, 1);
    expect_user(1, 10);
    expect_user(2, 3);
    mmu_flush_pcid(cpu, 3);
    all_kinds(10);
    expect_user(0, 1);
    tear_down();
}

static void test_invpcid_all(void)
{
    three_stale();
    mmu_flush_nonglobal(cpu);
    for (unsigned i = 0; i < 3; i++)
        expect_user(i, 10);
    tear_down();
    three_stale();
    mmu_flush_all(cpu);
    for (unsigned i = 0; i < 3; i++)
        expect_user(i, 10);
    tear_down();
    two_global();
    mmu_flush_all(cpu);
    expect_user(0, 9);
    expect_user(1, 10);
    tear_down();
}

/* INVLPG anywhere in a large page drops all its pieces, and no other page. */
static void test_large(void)
{
    uint32_t v;
    set_up();
    bed_poke64(bed, PDE(0), 0x400000 | 0x87);
    bed_poke64(bed, PDE(0) + 8, 0x600000 | 0x87);
    bed_poke64(bed, FRAME(0) - 0x100000, 21); /* offset 0 of the page */
    bed_poke64(bed, 0x5ff000, 22);
    bed_poke64(bed, 0x600000, 23);
    for (unsigned i = 0; i < 512; i++)
        g_assert_cmpint(mmu_read_u32(cpu, PAGE + i * 0x1000, &v), ==, 0);
    g_assert_cmpuint(value(), ==, 21);
    g_assert_cmpint(mmu_read_u32(cpu, PAGE + 0x200000, &v), ==, 0);
    g_assert_cmpuint(v, ==, 23);
    bed_poke64(bed, PDE(0), PTE(0) | 7);
    bed_poke64(bed, PDE(0) + 8, 0);
    for (unsigned i = 0; i < 512; i++)
        bed_poke64(bed, PTE(0) + i * 8, FRAME(3) | 7);
    mmu_flush_page(cpu, PAGE + 0x3f0000); /* the second */
    g_assert_cmpuint(value(), ==, 21);
    g_assert_cmpint(mmu_read_u32(cpu, PAGE + 0x200000, &v), ==, X_FAULT);
    mmu_flush_page(cpu, PAGE + 0x1ff000);
    for (unsigned i = 0; i < 512; i++) {
        g_assert_cmpint(mmu_read_u32(cpu, PAGE + i * 0x1000, &v), ==, 0);
        g_assert_cmpuint(v, ==, 4);
    }
    tear_down();
}

/* --- tags --- */

/* The check that emitted code does: no address may hit a flagged or an empty entry, none across a page's end. */
static void test_no_false_hit(void)
{
    static const unsigned positions[] = { 0, 1, 2, 7, 14, 15, 16, 17, 511, 1008, 1022, 1023 };
    static const uint64_t upper[] = { 0,          1ull << 22,  0x7fffffc00000, 0x800000000000,
                                      1ull << 63, 0xffff8000ull << 32, 0xffffffffffc00000 };
    for (unsigned p = 0; p < ARRAY_COUNT(positions); p++) {
        for (unsigned u = 0; u < ARRAY_COUNT(upper); u++) {
            uint64_t page = upper[u] | (uint64_t)positions[p] << PAGE_SHIFT, off;
            for (uint64_t flags = TLB_INVALID; flags <= TLB_FLAGS; flags += TLB_INVALID) {
                g_assert_cmphex(tlb_flags(page ^ flags, page + 77), ==, flags);
                for (unsigned v = 0; v < ARRAY_COUNT(upper); v++) {
                    uint64_t other = upper[v] | (uint64_t)positions[p] << PAGE_SHIFT;
                    for (unsigned at = 0; at < PAGE_SIZE; at += 5)
                        g_assert_false(tlb_hit(page ^ flags, other + at, 1 + at % 64, &off));
                    g_assert_false(tlb_hit(page ^ flags, other + 4095, 8, &off));
                }
            }
            uint64_t empty = positions[p] ? 0 : TLB_EMPTY;
            g_assert_false(tlb_hit(empty, page, 1, &off));
            g_assert_false(tlb_hit(empty, page + 4095, 8, &off));
            g_assert_true(tlb_hit(page, page + 4088, 8, &off) && off == 4088);
            g_assert_false(tlb_hit(page, page + 4089, 8, &off));
        }
    }
}

/* Addresses that differ from a cached page above bit 47 only, whatever the entry's flags. */
static void test_aliases(void)
{
    uint64_t ptes[] = { FRAME(0) | FLAGS, FRAME(0) | 5, 0x80000000 | FLAGS };
    const uint8_t *host;
    uint64_t gpa;
    uint32_t v;
    set_up();
    for (unsigned k = 0; k < ARRAY_COUNT(ptes); k++) {
        bed_poke64(bed, PTE(0), ptes[k]);
        mmu_flush_page(cpu, PAGE);
        g_assert_cmpint(mmu_read_u32(cpu, PAGE, &v), ==, 0);
        mmu_write_u32(cpu, PAGE, 1);
        g_assert_cmpint(mmu_fetch_page(cpu, PAGE, &gpa, &host), ==, 0);
        for (uint64_t high = 1; high < 0xffff; high += 13) {
            uint64_t lin = PAGE | high << 48;
            g_assert_cmpint(mmu_read_u32(cpu, lin, &v), ==, X_FAULT);
            g_assert_cmpuint(cpu->fault.vector, ==, EXC_GP);
            g_assert_cmpint(mmu_write_u32(cpu, lin, 1), ==, X_FAULT);
            g_assert_cmpuint(cpu->fault.vector, ==, EXC_GP);
            g_assert_cmpint(mmu_fetch_page(cpu, lin, &gpa, &host), ==, X_FAULT);
        }
    }
    tear_down();
}

/* Low pages are where empty entries have their zero tags. */
static void test_low_pages(void)
{
    uint32_t v;
    set_up();
    mmu_set_cr3(cpu, 0x1000, false);
    for (unsigned i = 0; i < 64; i++) {
        bed_map_page(bed, i * 0x1000, 0);
        be(i & 1 ? 3 : 0);
        g_assert_cmpint(mmu_read_u32(cpu, i * 0x1000, &v), ==, X_FAULT);
        g_assert_cmpuint(cpu->fault.vector, ==, EXC_PF);
        g_assert_cmpint(mmu_write_u32(cpu, i * 0x1000 + 0xffe, 1), ==, X_FAULT);
    }
    tear_down();
}

/* --- jump cache --- */

static struct tb *const block = (struct tb *)0x1234;

static bool cached(uint64_t lin)
{
    const struct jc_entry *e = mmu_jc_at(cpu, lin);
    return e->rip == lin && e->tb == block;
}

static void put(uint64_t lin)
{
    (void)code();
    mmu_jc_put(cpu, lin, block);
}

static void test_jumps(void)
{
    set_up();
    for (uint64_t lin = PAGE; lin < PAGE + PAGE_SIZE; lin += 8)
        g_assert_false(cached(lin) || mmu_jc_at(cpu, lin)->rip == lin);
    g_assert_cmphex(mmu_jc_at(cpu, 0x10000)->rip, !=, 0x10000);
    mmu_jc_put(cpu, PAGE, block); /* the code TLB does not know the page */
    g_assert_false(cached(PAGE));
    put(PAGE);
    put(PAGE + 0xffb);
    g_assert_true(cached(PAGE) && cached(PAGE + 0xffb));
    mmu_flush_page(cpu, PAGE + 0x1000);
    g_assert_true(cached(PAGE));
    mmu_flush_page(cpu, PAGE);
    g_assert_false(cached(PAGE) || cached(PAGE + 0xffb));
    g_assert_cmphex(mmu_jc_at(cpu, 0)->rip, !=, 0);
    /* Another page at the same position of the code TLB. */
    put(PAGE + 8);
    bed_poke64(bed, PDE(0) + TLB_CODE_SIZE / 512 * 8, PTE(0) | 7);
    uint64_t gpa;
    const uint8_t *host;
    g_assert_cmpint(mmu_fetch_page(cpu, PAGE + ((uint64_t)TLB_CODE_SIZE << PAGE_SHIFT), &gpa, &host), ==, 0);
    g_assert_false(cached(PAGE + 8));
    put(PAGE + 8);
    mmu_flush_page(cpu, PAGE + 0x10000); /* uses the same entries */
    g_assert_true(cached(PAGE + 8));
    mmu_jc_clear_all(cpu);
    g_assert_false(cached(PAGE + 8));
    tear_down();
}

static void test_jumps_spaces(void)
{
    set_up();
    put(PAGE);
    enter(1, true);
    g_assert_false(cached(PAGE));
    enter(0, true);
    g_assert_true(cached(PAGE));
    mmu_flush_pcid(cpu, 2);
    g_assert_true(cached(PAGE));
    mmu_flush_pcid(cpu, 1);
    g_assert_false(cached(PAGE));
    put(PAGE);
    for (unsigned i = 1; i < SPACES; i++)
        enter(i, true);
    for (unsigned i = 0; i < SPACES; i++) { /* no bank shows what space 0 left */
        enter(i, true);
        g_assert_false(cached(PAGE));
    }
    /* Supervisor: what is not global goes with the space. */
    be(0);
    put(PAGE);
    enter(3, true);
    g_assert_false(cached(PAGE));
    map(3, 3, FLAGS | PTE_G);
    put(PAGE);
    enter(4, false);
    g_assert_true(cached(PAGE));
    mmu_flush_nonglobal(cpu);
    g_assert_true(cached(PAGE));
    mmu_flush_all(cpu);
    g_assert_false(cached(PAGE));
    tear_down();
}

static void test_jumps_modes(void)
{
    set_up();
    put(PAGE);
    be(0);
    g_assert_false(cached(PAGE));
    put(PAGE + 4);
    be(3);
    g_assert_true(cached(PAGE));
    be(0);
    g_assert_true(cached(PAGE + 4));
    /* SMAP with AC has a table of its own; coming back finds the other as it was. */
    cpu->cr4 |= CR4_SMAP;
    be(0);
    put(PAGE + 4);
    cpu->flags_sys |= FLAG_AC;
    be(0);
    g_assert_false(cached(PAGE + 4));
    put(PAGE + 8);
    cpu->flags_sys &= ~FLAG_AC;
    be(0);
    g_assert_true(cached(PAGE + 4));
    mmu_flush_page(cpu, PAGE); /* both tables */
    cpu->flags_sys |= FLAG_AC;
    be(0);
    g_assert_false(cached(PAGE + 8));
    cpu->flags_sys &= ~FLAG_AC;
    cpu->cr4 &= ~(uint64_t)CR4_SMAP;
    /* Another mode word takes the table over, empty; so does the first when it comes back. */
    be(3);
    put(PAGE);
    cpu->cr0 |= CR0_TS;
    be(3);
    g_assert_false(cached(PAGE));
    put(PAGE);
    cpu->cr0 &= ~(uint64_t)CR0_TS;
    be(3);
    g_assert_false(cached(PAGE));
    tear_down();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/space/banks", test_banks);
    g_test_add_func("/space/set-cr3", test_set_cr3);
    g_test_add_func("/space/no-pcid", test_no_pcid);
    g_test_add_func("/space/invlpg-global", test_invlpg_global);
    g_test_add_func("/space/invlpg-local", test_invlpg_local);
    g_test_add_func("/space/global-supervisor", test_global_supervisor);
    g_test_add_func("/space/invpcid-page", test_invpcid_page);
    g_test_add_func("/space/invpcid-space", test_invpcid_space);
    g_test_add_func("/space/invpcid-all", test_invpcid_all);
    g_test_add_func("/space/large", test_large);
    g_test_add_func("/tags/no-false-hit", test_no_false_hit);
    g_test_add_func("/tags/aliases", test_aliases);
    g_test_add_func("/tags/low-pages", test_low_pages);
    g_test_add_func("/jumps/pages", test_jumps);
    g_test_add_func("/jumps/spaces", test_jumps_spaces);
    g_test_add_func("/jumps/modes", test_jumps_modes);
    return g_test_run();
}
