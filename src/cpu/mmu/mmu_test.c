/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Paging as instructions see it: modes, rights, error codes, A and D bits, address spaces, slow
 * accesses. */
#include "cpu/exec/testbed.h"
#include "cpu/mmu/internal.h"
#include "cpu/sys/regs.h"

#define TABLES 0x10000u /* page tables of these tests: zero until filled */
#define PAGE 0x400000ull /* a page that tests map: linear */
#define FRAME 0x500000ull
#define OK (-1)

static struct bed *bed;
static struct cpu *cpu;

static void poke32(uint64_t gpa, uint32_t v)
{
    memcpy(bed->ram + gpa, &v, 4);
}

static uint64_t peek64(uint64_t gpa)
{
    uint64_t v;
    memcpy(&v, bed->ram + gpa, 8);
    return v;
}

/* 4-level tables: TABLES, +1000 (PDPT), +2000 (PD), +3000 (PT) of the linear address PAGE. */
#define PML4E (TABLES)
#define PDPTE (TABLES + 0x1000u)
#define PDE (TABLES + 0x2000u + (PAGE >> 21) * 8)
#define PTE (TABLES + 0x3000u)

static void set_up(const char *model)
{
    bed = bed_new(model);
    cpu = bed->cpu;
    cpu->cr4 |= CR4_PGE | CR4_PSE;
    bed_poke64(bed, PML4E, PDPTE | 7);
    bed_poke64(bed, PDPTE, (PDE & ~0xfffull) | 7);
    bed_poke64(bed, PDE, PTE | 7);
    bed_poke64(bed, PTE, FRAME | 7);
    cpu->cr3 = TABLES;
    mmu_flush_all(cpu);
    cpu_update_mode(cpu);
}

static void tear_down(void)
{
    bed_free(bed);
}

static void be(unsigned cpl)
{
    cpu->cpl = (uint8_t)cpl;
    cpu_update_mode(cpu);
}

/* The error code of an access, or OK. */
static int64_t try_read(uint64_t lin)
{
    uint32_t v;
    if (mmu_read_u32(cpu, lin, &v) == 0)
        return OK;
    g_assert_cmpuint(cpu->fault.vector, ==, EXC_PF);
    g_assert_cmphex(cpu->fault.cr2, ==, lin);
    return cpu->fault.error;
}

static int64_t try_write(uint64_t lin)
{
    if (mmu_write_u32(cpu, lin, 0x12345678) == 0)
        return OK;
    g_assert_cmpuint(cpu->fault.vector, ==, EXC_PF);
    g_assert_cmphex(cpu->fault.cr2, ==, lin);
    return cpu->fault.error;
}

static int64_t try_fetch(uint64_t lin)
{
    uint64_t gpa;
    const uint8_t *host;
    if (mmu_fetch_page(cpu, lin, &gpa, &host) == 0)
        return OK;
    return cpu->fault.error;
}

static void set_pte(uint64_t v)
{
    bed_poke64(bed, PTE, v);
    mmu_flush_page(cpu, PAGE);
}

static void test_rights(void)
{
    set_up("max");
    g_assert_cmpint(try_write(PAGE + 8), ==, OK);
    g_assert_cmphex(*(uint32_t *)(bed->ram + FRAME + 8), ==, 0x12345678);
    set_pte(0);
    g_assert_cmpint(try_read(PAGE + 8), ==, 0);
    g_assert_cmpint(try_write(PAGE), ==, PF_W);
    g_assert_cmpint(try_fetch(PAGE), ==, PF_I);
    be(3);
    g_assert_cmpint(try_read(PAGE), ==, PF_U);
    set_pte(FRAME | 3); /* supervisor */
    g_assert_cmpint(try_read(PAGE), ==, PF_P | PF_U);
    g_assert_cmpint(try_write(PAGE), ==, PF_P | PF_U | PF_W);
    g_assert_cmpint(try_fetch(PAGE), ==, PF_P | PF_U | PF_I);
    set_pte(FRAME | 5); /* read-only */
    g_assert_cmpint(try_read(PAGE), ==, OK);
    g_assert_cmpint(try_write(PAGE), ==, PF_P | PF_U | PF_W);
    be(0);
    g_assert_cmpint(try_write(PAGE), ==, PF_P | PF_W);
    cpu->cr0 &= ~(uint64_t)CR0_WP;
    mmu_flush_all(cpu);
    g_assert_cmpint(try_write(PAGE), ==, OK);
    tear_down();
}

/* Rights of all levels count, not only the last. */
static void test_rights_upper(void)
{
    set_up("max");
    bed_poke64(bed, PDE, PTE | 5);
    g_assert_cmpint(try_write(PAGE), ==, PF_P | PF_W);
    bed_poke64(bed, PDE, PTE | 3);
    mmu_flush_all(cpu);
    be(3);
    g_assert_cmpint(try_read(PAGE), ==, PF_P | PF_U);
    bed_poke64(bed, PDE, PTE | 7 | PTE_NX);
    mmu_flush_all(cpu);
    g_assert_cmpint(try_read(PAGE), ==, OK);
    g_assert_cmpint(try_fetch(PAGE), ==, PF_P | PF_U | PF_I);
    tear_down();
}

static void test_nx_smep_smap(void)
{
    set_up("max");
    set_pte(FRAME | 7 | PTE_NX);
    g_assert_cmpint(try_fetch(PAGE), ==, PF_P | PF_I);
    cpu->efer &= ~(uint64_t)EFER_NXE; /* now bit 63 is reserved */
    mmu_flush_all(cpu);
    g_assert_cmpint(try_read(PAGE), ==, PF_P | PF_RSVD);
    g_assert_cmpint(try_fetch(PAGE), ==, PF_P | PF_RSVD);
    set_pte(FRAME | 7);
    g_assert_cmpint(try_fetch(PAGE), ==, OK);
    cpu->cr4 |= CR4_SMEP | CR4_SMAP;
    mmu_flush_all(cpu);
    be(0);
    g_assert_cmpint(try_fetch(PAGE), ==, PF_P | PF_I);
    g_assert_cmpint(try_read(PAGE), ==, PF_P);
    cpu->flags_sys |= FLAG_AC;
    be(0);
    g_assert_cmpint(try_write(PAGE), ==, OK);
    uint32_t v; /* implicit accesses do not care for AC */
    g_assert_cmpint(mmu_read_sys(cpu, PAGE, 4, &v), ==, X_FAULT);
    g_assert_cmphex(cpu->fault.error, ==, PF_P);
    cpu->flags_sys &= ~FLAG_AC;
    be(0);
    g_assert_cmpint(try_read(PAGE), ==, PF_P);
    be(3);
    g_assert_cmpint(try_read(PAGE), ==, OK);
    /* A user's implicit access to a supervisor page is the supervisor's. */
    set_pte(FRAME | 3);
    g_assert_cmpint(mmu_read_sys(cpu, PAGE, 4, &v), ==, 0);
    tear_down();
}

static void test_reserved(void)
{
    set_up("base");
    uint64_t high = 1ull << 45;
    set_pte(FRAME | 7 | high);
    g_assert_cmpint(try_read(PAGE), ==, PF_P | PF_RSVD);
    g_assert_cmpint(try_write(PAGE), ==, PF_P | PF_RSVD | PF_W);
    set_pte(FRAME | 6 | high); /* not present: nothing is reserved */
    g_assert_cmpint(try_read(PAGE), ==, 0);
    set_pte(FRAME | 7);
    bed_poke64(bed, PML4E, PDPTE | 7 | PTE_PS);
    mmu_flush_all(cpu);
    g_assert_cmpint(try_read(PAGE), ==, PF_P | PF_RSVD);
    bed_poke64(bed, PML4E, PDPTE | 7);
    bed_poke64(bed, PDPTE, 0x87); /* no 1 GiB pages in this model */
    mmu_flush_all(cpu);
    g_assert_cmpint(try_read(PAGE), ==, PF_P | PF_RSVD);
    bed_poke64(bed, PDPTE, (PDE & ~0xfffull) | 7);
    bed_poke64(bed, PDE, 0x600000 | 0x87 | 1u << 15);
    mmu_flush_all(cpu);
    g_assert_cmpint(try_read(PAGE), ==, PF_P | PF_RSVD);
    tear_down();
}

static void test_accessed_dirty(void)
{
    set_up("max");
    g_assert_cmpint(try_read(PAGE), ==, OK);
    g_assert_cmphex(peek64(PTE), ==, FRAME | 7 | PTE_A);
    g_assert_cmphex(peek64(PML4E) & (PTE_A | PTE_D), ==, PTE_A);
    g_assert_cmpint(try_write(PAGE), ==, OK);
    g_assert_cmphex(peek64(PTE), ==, FRAME | 7 | PTE_A | PTE_D);
    g_assert_cmphex(peek64(PDE) & (PTE_A | PTE_D), ==, PTE_A);
    /* A write that may not happen sets nothing. */
    set_pte(FRAME | 5);
    g_assert_cmpint(try_write(PAGE), ==, PF_P | PF_W);
    g_assert_cmphex(peek64(PTE) & PTE_D, ==, 0);
    /* Debuggers leave no trace. */
    uint8_t b[8];
    set_pte(FRAME | 7);
    g_assert_cmpint(cpu_debug_read(cpu, PAGE, b, 8), ==, 0);
    g_assert_cmphex(peek64(PTE), ==, FRAME | 7);
    g_assert_cmpint(cpu_debug_read(cpu, 0x7f0000000000, b, 8), <, 0);
    tear_down();
}

static void test_large(void)
{
    set_up("max");
    cpu->shared->gib_pages = true;
    bed_poke64(bed, PDE, 0x600000 | 0x87);
    mmu_flush_all(cpu);
    g_assert_cmpint(try_write(PAGE + 0x12344), ==, OK);
    g_assert_cmphex(*(uint32_t *)(bed->ram + 0x612344), ==, 0x12345678);
    g_assert_cmphex(peek64(PDE) & PTE_D, ==, PTE_D);
    /* INVLPG of any address in a large page drops all of it. */
    bed_poke64(bed, PDE, 0);
    mmu_flush_page(cpu, PAGE + 0x100000);
    g_assert_cmpint(try_read(PAGE + 0x12344), ==, 0);
    bed_poke64(bed, PDPTE + 8, 0x87); /* 1 GiB at 1 GiB: frame 0 */
    g_assert_cmpint(try_write(0x40000000 + 0x700010), ==, OK);
    g_assert_cmphex(*(uint32_t *)(bed->ram + 0x700010), ==, 0x12345678);
    bed_poke64(bed, PDPTE + 8, 0);
    mmu_flush_page(cpu, 0x7fffffff);
    g_assert_cmpint(try_read(0x40000000 + 0x700010), ==, 0);
    tear_down();
}

static void legacy(uint64_t cr4, uint64_t efer)
{
    cpu->efer = efer;
    cpu->cr4 = cr4;
    for (unsigned i = 0; i < N_SEGS; i++) {
        cpu->seg[i].l = false;
        cpu->seg[i].db = true;
    }
    mmu_flush_all(cpu);
    cpu_update_mode(cpu);
}

static void test_32bit(void)
{
    set_up("max");
    uint32_t pde = TABLES + (PAGE >> 22) * 4;
    memset(bed->ram + TABLES, 0, 0x5000);
    poke32(pde, 0x11000 | 7);
    poke32(0x11000 + ((PAGE >> 12) & 0x3ff) * 4, FRAME | 5);
    legacy(CR4_PSE, 0);
    g_assert_cmpint(try_read(PAGE + 4), ==, OK);
    g_assert_cmpint(try_write(PAGE + 4), ==, PF_P | PF_W);
    g_assert_cmpint(try_fetch(PAGE), ==, OK);
    g_assert_cmphex(peek64(pde) & 0xffffffff, ==, 0x11000 | 7 | PTE_A);
    poke32(pde, 0x400000 | 0x87); /* 4 MiB */
    mmu_flush_page(cpu, PAGE);
    g_assert_cmpint(try_write(PAGE + 0x200000), ==, OK);
    g_assert_cmphex(*(uint32_t *)(bed->ram + 0x600000), ==, 0x12345678);
    poke32(pde, 0);
    mmu_flush_page(cpu, PAGE);
    g_assert_cmpint(try_read(PAGE + 0x200000), ==, 0);
    g_assert_cmpint(try_fetch(PAGE), ==, 0); /* no NX, no SMEP: no I bit */
    poke32(pde, 0x400000 | 0x87 | 1u << 21);
    g_assert_cmpint(try_read(PAGE), ==, PF_P | PF_RSVD);
    poke32(pde, 0x400000 | 0x87 | 1u << 13); /* PSE-36: bit 32 of the address; nothing there: MMIO */
    g_assert_cmpint(try_write(PAGE), ==, OK);
    g_assert_cmpuint(bed->mmio_writes, ==, 1);
    cpu->cr4 = 0; /* without PSE the bit means nothing */
    mmu_flush_all(cpu);
    poke32(pde, 0x11000 | 0x87);
    g_assert_cmpint(try_read(PAGE), ==, OK);
    tear_down();
}

static void test_pae(void)
{
    set_up("max");
    memset(bed->ram + TABLES, 0, 0x5000);
    bed_poke64(bed, TABLES, 0x11000 | 1);
    bed_poke64(bed, 0x11000 + (PAGE >> 21) * 8, 0x12000 | 7);
    bed_poke64(bed, 0x12000, FRAME | 7 | PTE_NX);
    legacy(CR4_PAE, EFER_NXE);
    g_assert_true(mmu_load_pdptes(cpu, TABLES, true));
    g_assert_cmpint(try_write(PAGE), ==, OK);
    g_assert_cmpint(try_fetch(PAGE), ==, PF_P | PF_I);
    /* The PDPTEs are registers: memory behind them may change. */
    bed_poke64(bed, TABLES, 0);
    mmu_flush_all(cpu);
    g_assert_cmpint(try_read(PAGE), ==, OK);
    g_assert_true(mmu_load_pdptes(cpu, TABLES, true));
    mmu_flush_all(cpu);
    g_assert_cmpint(try_read(PAGE), ==, 0);
    bed_poke64(bed, TABLES, 0x11000 | 3); /* reserved */
    g_assert_false(mmu_load_pdptes(cpu, TABLES, true));
    bed_poke64(bed, TABLES, 0x11000 | 1);
    bed_poke64(bed, 0x12000, FRAME | 7 | 1ull << 52);
    g_assert_true(mmu_load_pdptes(cpu, TABLES, true));
    g_assert_cmpint(try_read(PAGE), ==, PF_P | PF_RSVD);
    tear_down();
}

static void test_no_paging(void)
{
    set_up("base");
    cpu->cr0 &= ~(uint64_t)CR0_PG;
    legacy(0, 0);
    g_assert_cmpint(try_write(FRAME + 4), ==, OK);
    g_assert_cmphex(*(uint32_t *)(bed->ram + FRAME + 4), ==, 0x12345678);
    be(3);
    g_assert_cmpint(try_read(0), ==, OK);
    tear_down();
}

/* Upper levels may be remembered until an invalidation of anything; what they allow counts all the same. */
static void test_upper_levels(void)
{
    set_up("max");
    for (unsigned i = 0; i < 8; i++)
        bed_poke64(bed, PTE + i * 8, (FRAME + i * 0x1000) | 7);
    bed_poke64(bed, PDE, PTE | 5);
    /* A fault leaves no A bits, and the entry that it saw unmarked is marked by the next access. */
    g_assert_cmpint(try_write(PAGE), ==, PF_P | PF_W);
    g_assert_cmphex(peek64(PDE), ==, PTE | 5);
    g_assert_cmpint(try_read(PAGE + 0x1000), ==, OK);
    g_assert_cmphex(peek64(PDE), ==, PTE | 5 | PTE_A);
    g_assert_cmpint(try_read(PAGE + 0x2000), ==, OK);
    g_assert_cmpint(try_write(PAGE + 0x2000), ==, PF_P | PF_W);
    g_assert_cmphex(peek64(PTE + 16), ==, (FRAME + 0x2000) | 7 | PTE_A);
    /* Another table, told by INVLPG of an address elsewhere. */
    bed_poke64(bed, 0x14000 + 3 * 8, (FRAME + 0x7000) | 7);
    bed_poke64(bed, PDE, 0x14000 | 3 | PTE_NX);
    mmu_flush_page(cpu, PAGE + 0x40000000);
    g_assert_cmpint(try_write(PAGE + 0x3008), ==, OK);
    g_assert_cmphex(*(uint32_t *)(bed->ram + FRAME + 0x7008), ==, 0x12345678);
    g_assert_cmpint(try_read(PAGE + 0x4000), ==, 0);
    g_assert_cmpint(try_fetch(PAGE + 0x3000), ==, PF_P | PF_I);
    be(3);
    g_assert_cmpint(try_read(PAGE + 0x3000), ==, PF_P | PF_U);
    be(0);
    bed_poke64(bed, 0x14000 + 4 * 8, FRAME | 7 | 1ull << 51); /* reserved in the last level alone */
    int64_t rsvd = PF_P | PF_RSVD;
    g_assert_cmpint(try_read(PAGE + 0x4000), ==, cpu->shared->phys_mask >> 51 & 1 ? OK : rsvd);
    /* A region 128 MiB away, where a small cache might keep it too. */
    bed_poke64(bed, (PDE & ~0xfffull) + ((PAGE >> 21) + 64) * 8, PTE | 7);
    g_assert_cmpint(try_write(PAGE + 0x8000000 + 0x5000), ==, OK);
    g_assert_cmphex(*(uint32_t *)(bed->ram + FRAME + 0x5000), ==, 0x12345678);
    g_assert_cmpint(try_read(PAGE + 0x5000), ==, 0);
    /* Debuggers see the tables as they are. */
    uint8_t b[8];
    bed_poke64(bed, PDE, 0);
    g_assert_cmpint(cpu_debug_read(cpu, PAGE + 0x3000, b, 8), <, 0);
    tear_down();
}

/* A second address space at 0x20000 whose PAGE is another frame. */
static void second_space(uint64_t pte)
{
    bed_poke64(bed, 0x20000, 0x21000 | 7);
    bed_poke64(bed, 0x21000, 0x22000 | 7);
    bed_poke64(bed, 0x22000 + (PAGE >> 21) * 8, 0x23000 | 7);
    bed_poke64(bed, 0x23000, pte);
    poke32(FRAME, 1);
    poke32(FRAME + 0x1000, 2);
}

static uint32_t value(void)
{
    uint32_t v = 0;
    g_assert_cmpint(mmu_read_u32(cpu, PAGE, &v), ==, 0);
    return v;
}

static void test_global(void)
{
    set_up("base");
    second_space((FRAME + 0x1000) | 7);
    set_pte(FRAME | 7 | PTE_G);
    g_assert_cmpuint(value(), ==, 1);
    mmu_set_cr3(cpu, 0x20000, false);
    g_assert_cmpuint(value(), ==, 1); /* global: stays */
    mmu_flush_page(cpu, PAGE);
    g_assert_cmpuint(value(), ==, 2);
    mmu_set_cr3(cpu, TABLES, false);
    g_assert_cmpuint(value(), ==, 1);
    mmu_flush_nonglobal(cpu);
    bed_poke64(bed, PTE, (FRAME + 0x1000) | 7);
    g_assert_cmpuint(value(), ==, 1);
    mmu_flush_all(cpu);
    g_assert_cmpuint(value(), ==, 2);
    /* Without CR4.PGE the bit says nothing. */
    cpu->cr4 &= ~(uint64_t)CR4_PGE;
    set_pte(FRAME | 7 | PTE_G);
    mmu_flush_all(cpu);
    g_assert_cmpuint(value(), ==, 1);
    mmu_set_cr3(cpu, 0x20000, false);
    g_assert_cmpuint(value(), ==, 2);
    tear_down();
}

static void test_pcid(void)
{
    set_up("max");
    second_space((FRAME + 0x1000) | 7);
    cpu->cr4 |= CR4_PCIDE;
    mmu_flush_all(cpu);
    mmu_set_cr3(cpu, TABLES | 1, false);
    g_assert_cmpuint(value(), ==, 1);
    mmu_set_cr3(cpu, 0x20000 | 2, false);
    g_assert_cmpuint(value(), ==, 2);
    /* Kept: the change in memory is not seen. */
    bed_poke64(bed, PTE, (FRAME + 0x1000) | 7);
    mmu_set_cr3(cpu, TABLES | 1, true);
    uint64_t misses = cpu->stats.tlb_misses;
    (void)misses;
    mmu_set_cr3(cpu, TABLES | 1, false);
    g_assert_cmpuint(value(), ==, 2);
    mmu_set_cr3(cpu, 0x20000 | 2, true);
    bed_poke64(bed, 0x23000, FRAME | 7);
    mmu_flush_pcid(cpu, 1);
    mmu_flush_pcid(cpu, 2);
    g_assert_cmpuint(value(), ==, 1);
    tear_down();
}

/* However many address spaces later, nothing old shows. */
static void test_many_switches(void)
{
    set_up("base");
    second_space((FRAME + 0x1000) | 7);
    for (unsigned i = 0; i < 70000; i++) {
        mmu_set_cr3(cpu, i & 1 ? 0x20000 : TABLES, false);
        g_assert_cmpuint(value(), ==, i & 1 ? 2 : 1);
    }
    tear_down();
}

static void test_crossing(void)
{
    set_up("max");
    uint64_t v = 0x1122334455667788, got = 0;
    bed_poke64(bed, PTE + 8, (FRAME + 0x3000) | 7);
    g_assert_cmpint(mmu_write_u64(cpu, PAGE + 0xffd, v), ==, 0);
    g_assert_cmpint(mmu_read_u64(cpu, PAGE + 0xffd, &got), ==, 0);
    g_assert_cmphex(got, ==, v);
    g_assert_cmphex(bed->ram[FRAME + 0xfff], ==, 0x66);
    g_assert_cmphex(bed->ram[FRAME + 0x3000], ==, 0x55);
    /* The second page faults: nothing is written to the first. */
    bed_poke64(bed, PTE + 8, (FRAME + 0x3000) | 5);
    mmu_flush_page(cpu, PAGE + 0x1000);
    g_assert_cmpint(mmu_write_u64(cpu, PAGE + 0xffd, 0), ==, X_FAULT);
    g_assert_cmphex(cpu->fault.cr2, ==, PAGE + 0x1000);
    g_assert_cmphex(cpu->fault.error, ==, PF_P | PF_W);
    g_assert_cmphex(bed->ram[FRAME + 0xfff], ==, 0x66);
    uint8_t *host = (uint8_t *)1;
    g_assert_cmpint(mmu_host(cpu, PAGE + 0xffd, 8, ACCESS_READ, &host), ==, 0);
    g_assert_null(host);
    g_assert_cmpint(mmu_host(cpu, PAGE + 8, 8, ACCESS_WRITE, &host), ==, 0);
    g_assert_true(host == bed->ram + FRAME + 8);
    tear_down();
}

static void test_canonical(void)
{
    set_up("max");
    uint32_t v;
    g_assert_cmpint(mmu_read_slow(cpu, 1ull << 47, 4, &v), ==, X_FAULT);
    g_assert_cmpuint(cpu->fault.vector, ==, EXC_GP);
    /* An address that differs from a cached page only above bit 47 finds nothing. */
    g_assert_cmpint(try_read(PAGE), ==, OK);
    for (uint64_t high = 1; high < 0xffff; high++) {
        g_assert_cmpint(mmu_read_slow(cpu, PAGE | high << 48, 4, &v), ==, X_FAULT);
        g_assert_cmpint(try_fetch(PAGE | high << 48), !=, OK);
    }
    tear_down();
}

static void test_mmio(void)
{
    set_up("max");
    uint64_t v = 0;
    uint8_t wide[32] = { 0 };
    set_pte(0x80000000 | 7);
    g_assert_cmpint(mmu_read_u32(cpu, PAGE + 0x20, (uint32_t *)&v), ==, 0);
    g_assert_cmphex(v, ==, 0x80000020);
    g_assert_cmpint(mmu_write_slow(cpu, PAGE + 8, 32, wide), ==, 0);
    g_assert_cmpuint(bed->mmio_writes, ==, 4);
    g_assert_cmpint(mmu_write_u32(cpu, PAGE + 1, 0), ==, 0); /* 1, 2, 1 */
    g_assert_cmpuint(bed->mmio_writes, ==, 7);
    uint8_t *host = (uint8_t *)1;
    g_assert_cmpint(mmu_host(cpu, PAGE, 4, ACCESS_READ, &host), ==, 0);
    g_assert_null(host);
    tear_down();
}

static void test_alignment(void)
{
    set_up("max");
    uint32_t v;
    cpu->cr0 |= CR0_AM;
    cpu->flags_sys |= FLAG_AC;
    be(3);
    g_assert_cmpint(mmu_read_u32(cpu, PAGE + 4, &v), ==, 0);
    g_assert_cmpint(mmu_read_u32(cpu, PAGE + 2, &v), ==, X_FAULT);
    g_assert_cmpuint(cpu->fault.vector, ==, EXC_AC);
    g_assert_cmpuint(cpu->fault.error, ==, 0);
    g_assert_cmpint(mmu_write_u32(cpu, PAGE + 0xffe, 0), ==, X_FAULT); /* the page fault comes first */
    g_assert_cmpuint(cpu->fault.vector, ==, EXC_PF);
    be(0);
    g_assert_cmpint(mmu_read_u32(cpu, PAGE + 2, &v), ==, 0);
    tear_down();
}

static void test_watch(void)
{
    set_up("max");
    uint32_t v;
    g_assert_cmpint(try_write(PAGE + 0x100), ==, OK);
    cpu->dr[0] = PAGE + 0x104;
    cpu->dr[1] = PAGE + 0x200;
    cpu->dr[7] = DR7_FIXED | 1 | 1 << 16 | 3u << 18 | 4 | 3u << 20 | 0u << 22; /* write 4; any 1 */
    mmu_flush_all(cpu);
    g_assert_cmpint(mmu_read_u32(cpu, PAGE + 0x104, &v), ==, 0);
    g_assert_cmphex(cpu->dr6_pending, ==, 0);
    g_assert_cmpint(mmu_write_u16(cpu, PAGE + 0x103, 0), ==, 0);
    g_assert_cmphex(cpu->dr6_pending, ==, 1);
    g_assert_cmpint(mmu_write_u8(cpu, PAGE + 0x108, 0), ==, 0);
    g_assert_cmphex(cpu->dr6_pending, ==, 1);
    g_assert_cmpint(mmu_read_u32(cpu, PAGE + 0x1fd, &v), ==, 0);
    g_assert_cmphex(cpu->dr6_pending, ==, 3);
    tear_down();
}

/* Code pages: the first mark makes fast writes slow; a write clears what it hits, in this vCPU and
 * by post. */
static void test_code_pages(void)
{
    set_up("max");
    struct cpu *other = cpu_new(bed->shared, 1, &bed_callbacks, bed);
    bed_long_mode(bed, other);
    mmu_set_cr3(other, TABLES, false);
    g_assert_cmpint(mmu_write_u32(other, PAGE, 1), ==, 0); /* a fast write entry over there */
    g_assert_cmpint(try_write(PAGE), ==, OK);
    mmu_mark_code(cpu, FRAME + 0x100, 16);
    g_assert_cmphex(atomic_load(&bed->shared->code[FRAME >> 12]), ==, 1 << 4);
    g_assert_cmpint(mmu_write_u8(cpu, PAGE + 0x140, 1), ==, 0); /* beside it */
    g_assert_cmphex(atomic_load(&bed->shared->code[FRAME >> 12]), ==, 1 << 4);
    /* The other vCPU still writes fast, is told, and its entry counts as a write to the page. */
    g_assert_cmpint(mmu_write_u8(other, PAGE + 0x100, 1), ==, 0);
    g_assert_cmphex(atomic_load(&bed->shared->code[FRAME >> 12]), ==, 1 << 4);
    g_assert_cmphex(cpu_pending_events(other) & CPU_EV_FLUSH, ==, CPU_EV_FLUSH);
    mmu_handle_flush(other);
    g_assert_cmphex(atomic_load(&bed->shared->code[FRAME >> 12]), ==, 0);
    g_assert_cmphex(cpu_pending_events(cpu) & CPU_EV_FLUSH, ==, CPU_EV_FLUSH);
    /* Both are slow from now on: a write is seen at once. */
    mmu_mark_code(cpu, FRAME + 0x100, 16);
    g_assert_cmpint(mmu_write_u8(other, PAGE + 0x10f, 1), ==, 0);
    g_assert_cmphex(atomic_load(&bed->shared->code[FRAME >> 12]), ==, 0);
    /* A device's write. */
    mmu_mark_code(cpu, FRAME + 0xfc0, 64);
    cpu_shared_written(bed->shared, FRAME - 0x1000, 0x1fc1);
    g_assert_cmphex(atomic_load(&bed->shared->code[FRAME >> 12]), ==, 0);
    cpu_shared_written(bed->shared, UINT64_MAX - 5, UINT64_MAX);
    /* More posts than the queue holds. */
    for (unsigned i = 0; i < 4 * POST_MAX; i++)
        mmu_mark_code(cpu, 0x600000 + i * 0x1000, 16);
    mmu_handle_flush(other);
    cpu_free(other);
    tear_down();
}

static void test_flush_all_vcpus(void)
{
    set_up("max");
    g_assert_cmpint(try_read(PAGE), ==, OK);
    bed_poke64(bed, PTE, 0);
    cpu_shared_flush_all(bed->shared);
    mmu_handle_flush(cpu);
    g_assert_cmpint(try_read(PAGE), ==, 0);
    tear_down();
}

static bool was_written(_Atomic uint64_t *bits, uint64_t gpa)
{
    uint64_t page = gpa >> PAGE_SHIFT, bit = 1ull << (page % 64);
    return atomic_fetch_and(&bits[page / 64], ~bit) & bit;
}

/* The log of written pages: reads leave none, the first write to a page one, after a harvest the next write again. */
static void test_dirty(void)
{
    set_up("max");
    _Atomic uint64_t *bits = g_new0(_Atomic uint64_t, 64);
    g_assert_cmpint(try_write(PAGE), ==, OK); /* a fast entry from before, and the dirty bit */
    cpu_shared_set_dirty(bed->shared, bits, 4096);
    mmu_handle_flush(cpu);
    g_assert_cmpint(try_read(PAGE + 8), ==, OK);
    g_assert_false(was_written(bits, FRAME));
    g_assert_cmpint(try_write(PAGE), ==, OK);
    g_assert_true(was_written(bits, FRAME));
    g_assert_cmpint(try_write(PAGE + 64), ==, OK); /* fast: nobody harvested */
    g_assert_false(was_written(bits, FRAME));
    cpu_shared_dirty_anew(bed->shared);
    mmu_handle_flush(cpu);
    g_assert_cmpint(try_read(PAGE), ==, OK);
    g_assert_false(was_written(bits, FRAME));
    g_assert_cmpint(try_write(PAGE + 64), ==, OK);
    g_assert_true(was_written(bits, FRAME));
    /* Pages of code are written by the slow path, and logged all the same. */
    mmu_mark_code(cpu, FRAME + 0x100, 16);
    cpu_shared_dirty_anew(bed->shared);
    mmu_handle_flush(cpu);
    g_assert_cmpint(try_write(PAGE + 0x200), ==, OK);
    g_assert_true(was_written(bits, FRAME));
    /* So are the processor's own marks in page tables. */
    bed_poke64(bed, PTE, FRAME | 7);
    mmu_flush_all(cpu);
    was_written(bits, PTE);
    g_assert_cmpint(try_read(PAGE), ==, OK);
    g_assert_true(was_written(bits, PTE));
    cpu_shared_set_dirty(bed->shared, NULL, 0);
    g_assert_cmpint(try_write(PAGE), ==, OK);
    g_assert_false(was_written(bits, FRAME));
    tear_down();
    g_free(bits);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mmu/rights", test_rights);
    g_test_add_func("/mmu/rights-upper", test_rights_upper);
    g_test_add_func("/mmu/upper-levels", test_upper_levels);
    g_test_add_func("/mmu/nx-smep-smap", test_nx_smep_smap);
    g_test_add_func("/mmu/reserved", test_reserved);
    g_test_add_func("/mmu/accessed-dirty", test_accessed_dirty);
    g_test_add_func("/mmu/large", test_large);
    g_test_add_func("/mmu/32bit", test_32bit);
    g_test_add_func("/mmu/pae", test_pae);
    g_test_add_func("/mmu/no-paging", test_no_paging);
    g_test_add_func("/mmu/global", test_global);
    g_test_add_func("/mmu/pcid", test_pcid);
    g_test_add_func("/mmu/many-switches", test_many_switches);
    g_test_add_func("/mmu/crossing", test_crossing);
    g_test_add_func("/mmu/canonical", test_canonical);
    g_test_add_func("/mmu/mmio", test_mmio);
    g_test_add_func("/mmu/alignment", test_alignment);
    g_test_add_func("/mmu/watch", test_watch);
    g_test_add_func("/mmu/code-pages", test_code_pages);
    g_test_add_func("/mmu/dirty", test_dirty);
    g_test_add_func("/mmu/flush-all", test_flush_all_vcpus);
    return g_test_run();
}
