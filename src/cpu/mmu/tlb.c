/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The TLB: filling, flushing, address spaces; code fetch.
 *
 * Spec      Intel SDM volume 3, 4.10 (caching translation information, PCIDs, invalidation).
 * Thread    The vCPU's own.
 *
 * Entries carry their address space's generation in the tag (state.h). Flushing a space gives it a
 * new generation; 65,535 of them later the whole TLB is cleared. An entry of a global page whose
 * tag differs only in the generation is stamped with the current one when it is met: it lives until
 * a flush of everything.
 */
#include "cpu/mmu/internal.h"
#include "cpu/sys/regs.h"

#include <errno.h>
#include <stdlib.h>

int mmu_init(struct cpu *c)
{
    c->mmu = calloc(1, sizeof(*c->mmu));
    if (!c->mmu)
        return -ENOMEM;
    c->phys_mask = c->shared->phys_mask;
    mmu_clear_tlb(c);
    c->tlb_cur = c->tlb[TLB_SUPER];
    pthread_mutex_lock(&c->shared->lock);
    c->shared->cpus[c->index] = c;
    pthread_mutex_unlock(&c->shared->lock);
    return 0;
}

void mmu_done(struct cpu *c)
{
    if (!c->mmu)
        return;
    pthread_mutex_lock(&c->shared->lock);
    c->shared->cpus[c->index] = NULL;
    pthread_mutex_unlock(&c->shared->lock);
    free(c->mmu);
    c->mmu = NULL;
}

/* --- generations --- */

static unsigned current_pcid(const struct cpu *c)
{
    return c->cr4 & CR4_PCIDE ? c->cr3 & 0xfff : 0;
}

/* Makes the current address space's tag true, with a generation if it has none. */
static void enter_space(struct cpu *c)
{
    struct mmu_state *m = c->mmu;
    unsigned pcid = current_pcid(c);
    if (!m->pcid_gen[pcid]) {
        if (m->generation == UINT16_MAX) {
            memset(c->tlb, 0, sizeof(c->tlb[0]) * TLB_NONE);
            memset(c->tlb_code, 0, sizeof(c->tlb_code));
            memset(m->pcid_gen, 0, sizeof(m->pcid_gen));
            m->generation = 0;
        }
        m->pcid_gen[pcid] = ++m->generation;
    }
    c->tlb_tag = (uint64_t)m->pcid_gen[pcid] << TLB_GEN_SHIFT;
    c->map_epoch++;
}

/* Empties everything. TLB_NONE is never filled, so it needs no clearing. */
void mmu_clear_tlb(struct cpu *c)
{
    struct mmu_state *m = c->mmu;
    memset(c->tlb, 0, sizeof(c->tlb[0]) * TLB_NONE);
    memset(c->tlb_code, 0, sizeof(c->tlb_code));
    memset(m->pcid_gen, 0, sizeof(m->pcid_gen));
    memset(m->large, 0, sizeof(m->large));
    memset(m->write_bloom, 0, sizeof(m->write_bloom));
    m->large_shifts = 0;
    m->generation = 0;
    enter_space(c);
}

void mmu_flush_all(struct cpu *c)
{
    c->stats.tlb_flushes++;
    mmu_clear_tlb(c);
}

void mmu_flush_nonglobal(struct cpu *c)
{
    c->stats.tlb_flushes++;
    memset(c->mmu->pcid_gen, 0, sizeof(c->mmu->pcid_gen));
    enter_space(c);
}

void mmu_flush_pcid(struct cpu *c, unsigned pcid)
{
    c->stats.tlb_flushes++;
    c->mmu->pcid_gen[pcid & 0xfff] = 0;
    enter_space(c);
}

void mmu_set_cr3(struct cpu *c, uint64_t cr3, bool keep)
{
    c->cr3 = cr3;
    if (!keep) {
        c->stats.tlb_flushes++;
        c->mmu->pcid_gen[current_pcid(c)] = 0;
    }
    enter_space(c);
}

/* Tags identify canonical addresses only. */
static bool is_canonical(uint64_t lin)
{
    return (uint64_t)((int64_t)(lin << 16) >> 16) == lin;
}

static bool same_page(uint64_t tag, uint64_t page)
{
    return ((tag ^ page) & LIN48_MASK) == 0;
}

static void drop_page(struct cpu *c, uint64_t page)
{
    for (unsigned s = 0; s < TLB_NONE; s++) {
        struct tlb_entry *e = &c->tlb[s][(page >> PAGE_SHIFT) & (TLB_SIZE - 1)];
        if (same_page(e->read, page) || same_page(e->write, page))
            *e = (struct tlb_entry){ 0 };
    }
    for (unsigned s = 0; s < 2; s++) {
        struct tlb_code *e = &c->tlb_code[s][(page >> PAGE_SHIFT) & (TLB_CODE_SIZE - 1)];
        if (same_page(e->tag, page))
            *e = (struct tlb_code){ 0 };
    }
}

/* Large pages are cached by 4 KiB pieces, so that INVLPG must find all pieces. A filter of hashed
 * regions says where there may be any. */
static unsigned large_bit(uint64_t region, uint8_t shift)
{
    return (unsigned)((region >> shift << 6 | shift) * 0x9e3779b97f4a7c15ull >> 51) & (LARGE_BITS - 1);
}

static void note_large(struct mmu_state *m, uint64_t page, uint8_t shift)
{
    if (shift == PAGE_SHIFT)
        return;
    unsigned bit = large_bit(page, shift);
    m->large[bit / 64] |= 1ull << (bit % 64);
    m->large_shifts |= 1u << shift;
}

static bool maybe_large(const struct mmu_state *m, uint64_t page, uint8_t shift)
{
    unsigned bit = large_bit(page, shift);
    return m->large_shifts >> shift & 1 && m->large[bit / 64] >> (bit % 64) & 1;
}

void mmu_flush_page(struct cpu *c, uint64_t lin)
{
    struct mmu_state *m = c->mmu;
    uint64_t page = lin & PAGE_MASK;
    c->map_epoch++;
    if (maybe_large(m, page, 30) || maybe_large(m, page, 22)) {
        mmu_flush_all(c);
    } else if (maybe_large(m, page, 21)) {
        for (unsigned i = 0; i < 512; i++)
            drop_page(c, (page & ~0x1fffffull) + i * PAGE_SIZE);
    } else {
        drop_page(c, page);
    }
}

/* --- filling --- */

struct tlb_entry *mmu_current_set(struct cpu *c)
{
    if (c->mode & MODE_AC)
        return c->tlb[TLB_NONE];
    if (c->mode & MODE_USER)
        return c->tlb[TLB_USER];
    bool open = c->cr4 & CR4_SMAP && !(c->mode & MODE_SMAP_ON);
    return c->tlb[open ? TLB_SUPER_AC : TLB_SUPER];
}

/* TLB_WATCH when an enabled data breakpoint lies on the page. */
static uint64_t watch_flags(const struct cpu *c, uint64_t page, bool write)
{
    if (likely(!(c->dr[7] & 0xff)))
        return 0;
    for (unsigned i = 0; i < 4; i++) {
        unsigned type = c->dr[7] >> (16 + i * 4) & 3;
        bool enabled = c->dr[7] >> (i * 2) & 3;
        if (enabled && (type == 3 || (type == 1 && write)) && (c->dr[i] & PAGE_MASK) == page)
            return TLB_WATCH;
    }
    return 0;
}

static uint64_t write_flags(struct cpu *c, uint64_t page, uint64_t gpa, struct cpu_phys p)
{
    uint64_t flags = watch_flags(c, page, true);
    if (!p.hva || !p.writable)
        return flags | TLB_MMIO;
    uint64_t pfn = gpa >> PAGE_SHIFT;
    if (pfn < c->shared->code_pages && atomic_load(&c->shared->code[pfn]))
        return flags | TLB_CODE;
    unsigned bit = mmu_bloom_bit(gpa);
    c->mmu->write_bloom[bit / 64] |= 1ull << (bit % 64);
    return flags;
}

static struct tlb_entry *fill(struct cpu *c, unsigned set, uint64_t page, bool write)
{
    struct mmu_walk w;
    uint32_t error;
    c->stats.tlb_misses++;
    if (mmu_walk(c, page, set, write, WALK_DATA, &w, &error) < 0) {
        c->fault = (struct cpu_fault){ .vector = EXC_PF, .has_error = true, .error = error };
        return NULL;
    }
    struct cpu_phys p = mmu_phys(c, w.gpa);
    struct tlb_entry *e = &c->tlb[set][(page >> PAGE_SHIFT) & (TLB_SIZE - 1)];
    uint64_t tag = page ^ c->tlb_tag;
    bool may_write = w.dirty && (w.write || (set != TLB_USER && !(c->cr0 & CR0_WP)));
    e->gpa = w.gpa | (w.global ? TLBE_GLOBAL : 0);
    e->addend = p.hva ? (intptr_t)p.hva - (intptr_t)page : 0;
    e->read = tag | (p.hva ? 0 : TLB_MMIO) | watch_flags(c, page, false);
    e->write = tag | (may_write ? write_flags(c, page, w.gpa, p) : TLB_INVALID);
    note_large(c->mmu, page, w.shift);
    return e;
}

struct tlb_entry *mmu_entry(struct cpu *c, unsigned set, uint64_t lin, bool write)
{
    uint64_t page = lin & PAGE_MASK;
    struct tlb_entry *e = &c->tlb[set][(page >> PAGE_SHIFT) & (TLB_SIZE - 1)];
    uint64_t tag = write ? e->write : e->read;
    uint64_t want = page ^ c->tlb_tag;
    if ((tag & (PAGE_MASK | TLB_INVALID)) == want && likely(is_canonical(lin)))
        return e;
    if (e->gpa & TLBE_GLOBAL && same_page(tag, page) && !(tag & TLB_INVALID) &&
        is_canonical(lin)) {
        uint64_t low = (1ull << TLB_GEN_SHIFT) - 1;
        e->read = (e->read & low) | (want & ~low);
        e->write = (e->write & low) | (want & ~low);
        return e;
    }
    if (unlikely(!is_canonical(lin))) {
        cpu_raise_error(c, EXC_GP, 0);
        return NULL;
    }
    e = fill(c, set, page, write);
    if (unlikely(!e))
        c->fault.cr2 = lin;
    return e;
}

bool mmu_drop_write(struct cpu *c, uint64_t gpa)
{
    struct mmu_state *m = c->mmu;
    unsigned bit = mmu_bloom_bit(gpa);
    if (!(m->write_bloom[bit / 64] >> (bit % 64) & 1))
        return false;
    bool found = false;
    memset(m->write_bloom, 0, sizeof(m->write_bloom));
    for (struct tlb_entry *e = c->tlb[0]; e < c->tlb[TLB_NONE]; e++) {
        if (e->write == 0 || e->write & (TLB_INVALID | TLB_MMIO | TLB_CODE))
            continue;
        if ((e->gpa & PAGE_MASK) == gpa) {
            e->write |= TLB_CODE;
            found = true;
        } else {
            bit = mmu_bloom_bit(e->gpa);
            m->write_bloom[bit / 64] |= 1ull << (bit % 64);
        }
    }
    return found;
}

void mmu_rescan_writes(struct cpu *c)
{
    for (struct tlb_entry *e = c->tlb[0]; e < c->tlb[TLB_NONE]; e++) {
        if (e->write == 0 || e->write & (TLB_INVALID | TLB_MMIO | TLB_CODE))
            continue;
        uint64_t pfn = e->gpa >> PAGE_SHIFT;
        if (pfn < c->shared->code_pages && atomic_load(&c->shared->code[pfn])) {
            e->write |= TLB_CODE;
            mmu_code_written(c->shared, c, pfn << PAGE_SHIFT, PAGE_SIZE);
        }
    }
}

/* --- instruction fetch --- */

static int fetch_page(struct cpu *c, uint64_t lin, struct tlb_code **ret)
{
    unsigned user = !!(c->mode & MODE_USER);
    uint64_t page = lin & PAGE_MASK, want = page ^ c->tlb_tag;
    struct tlb_code *e = &c->tlb_code[user][(page >> PAGE_SHIFT) & (TLB_CODE_SIZE - 1)];
    *ret = e;
    if (unlikely(!is_canonical(lin)))
        return cpu_raise_error(c, EXC_GP, 0);
    if (e->tag == want)
        return 0;
    if (e->flags & TLBE_GLOBAL && same_page(e->tag, page)) {
        e->tag = want;
        return 0;
    }
    struct mmu_walk w;
    uint32_t error;
    c->stats.tlb_misses++;
    if (mmu_walk(c, page, user ? TLB_USER : TLB_SUPER, false, WALK_FETCH, &w, &error) < 0) {
        c->fault = (struct cpu_fault){ .vector = EXC_PF, .has_error = true, .error = error,
                                       .cr2 = lin };
        return X_FAULT;
    }
    struct cpu_phys p = mmu_phys(c, w.gpa);
    e->host = w.gpa >> PAGE_SHIFT < c->shared->code_pages ? p.hva : NULL;
    e->gpa = w.gpa;
    e->flags = w.global ? TLBE_GLOBAL : 0;
    e->tag = want;
    note_large(c->mmu, page, w.shift);
    return 0;
}

int mmu_fetch_page_slow(struct cpu *c, uint64_t lin, uint64_t *ret_gpa, const uint8_t **ret_host)
{
    struct tlb_code *e;
    int r = fetch_page(c, lin, &e);
    if (r)
        return r;
    *ret_gpa = e->gpa;
    *ret_host = e->host;
    return 0;
}

static void copy_page(struct cpu *c, uint64_t gpa, uint8_t *buf, unsigned len)
{
    struct cpu_phys p = mmu_phys(c, gpa & PAGE_MASK);
    if (p.hva) {
        memcpy(buf, p.hva + (gpa & ~PAGE_MASK), len);
        return;
    }
    for (unsigned i = 0; i < len; i++)
        buf[i] = (uint8_t)c->cb->mmio_read(c->opaque, gpa + i, 1);
}

int mmu_fetch_bytes(struct cpu *c, uint64_t lin, uint8_t *buf, unsigned len, unsigned *ret_got)
{
    unsigned got = 0;
    while (got < len) {
        uint64_t at = lin + got;
        if (!(c->mode & MODE_CODE64))
            at = (uint32_t)at;
        struct tlb_code *e;
        int r = fetch_page(c, at, &e);
        if (r && !got)
            return r;
        if (r)
            break;
        unsigned n = (unsigned)min_u64(len - got, PAGE_SIZE - (at & ~PAGE_MASK));
        copy_page(c, e->gpa | (at & ~PAGE_MASK), buf + got, n);
        got += n;
    }
    *ret_got = got;
    return 0;
}
