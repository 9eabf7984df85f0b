/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The TLB: filling; fast writes to pages that come to hold code; code fetch.
 *
 * Spec      Intel SDM volume 3, 4.10 (caching translation information).
 * Thread    The vCPU's own.
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
    mmu_tlb_init(c);
    pthread_mutex_lock(&c->shared->lock);
    c->shared->cpus[c->index] = c;
    atomic_fetch_add(&c->shared->cpu_count, 1);
    pthread_mutex_unlock(&c->shared->lock);
    return 0;
}

void mmu_done(struct cpu *c)
{
    if (!c->mmu)
        return;
    pthread_mutex_lock(&c->shared->lock);
    c->shared->cpus[c->index] = NULL;
    atomic_fetch_sub(&c->shared->cpu_count, 1);
    pthread_mutex_unlock(&c->shared->lock);
    free(c->mmu);
    c->mmu = NULL;
}

/* --- filling --- */

static bool is_canonical(uint64_t lin)
{
    return (uint64_t)((int64_t)(lin << 16) >> 16) == lin;
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
    mmu_bloom_add(c->mmu, gpa);
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
    unsigned bank = mmu_bank(c, set), at = mmu_data_at(page);
    struct tlb_entry *e = &c->tlb[bank][at];
    /* While writes are logged an entry allows them only from the first one on. */
    bool may_write = w.dirty && (write || !c->shared->dirty) && (w.write || (set != TLB_USER && !(c->cr0 & CR0_WP)));
    if (may_write)
        mmu_note_dirty(c, w.gpa);
    mmu_stack_forget(c);
    mmu_note_data(c, bank, at, w.global);
    e->gpa = w.gpa | TLBE_VALID | (w.global ? TLBE_GLOBAL : 0);
    e->host = p.hva;
    e->read = page ^ ((p.hva ? 0 : TLB_MMIO) | watch_flags(c, page, false));
    e->write = page ^ (may_write ? write_flags(c, page, w.gpa, p) : TLB_INVALID);
    mmu_note_large(c->mmu, page, w.shift);
    return e;
}

struct tlb_entry *mmu_entry(struct cpu *c, unsigned set, uint64_t lin, bool write)
{
    uint64_t page = lin & PAGE_MASK;
    struct tlb_entry *e = &c->tlb[mmu_bank(c, set)][mmu_data_at(page)];
    uint64_t other = (write ? e->write : e->read) ^ page;
    if (e->gpa & TLBE_VALID && !(other & ~(uint64_t)(TLB_FLAGS & ~TLB_INVALID)))
        return e;
    if (unlikely(!is_canonical(lin))) {
        cpu_raise_error(c, EXC_GP, 0);
        return NULL;
    }
    e = fill(c, set, page, write);
    if (unlikely(!e))
        c->fault.cr2 = lin;
    return e;
}

/* --- fast write entries --- */

/* Calls `look` with each fast write entry. */
static void for_fast_writes(struct cpu *c, void (*look)(struct cpu *c, struct tlb_entry *e, void *arg),
                            void *arg)
{
    struct mmu_state *m = c->mmu;
    for (unsigned bank = 0; bank < TLB_BANK_NONE; bank++) {
        for (unsigned w = 0; w < TLB_SIZE / 64 && mmu_bank_live(m, bank); w++) {
            for (uint64_t left = m->used[bank].bits[w]; left; left &= left - 1) {
                unsigned at = w * 64 + (unsigned)__builtin_ctzll(left);
                struct tlb_entry *e = &c->tlb[bank][at];
                if (e->gpa & TLBE_VALID && mmu_data_at(e->write) == at)
                    look(c, e, arg);
            }
        }
    }
}

struct drop {
    uint64_t gpa;
    bool found;
};

static void look_to_drop(struct cpu *c, struct tlb_entry *e, void *arg)
{
    struct drop *d = arg;
    if ((e->gpa & PAGE_MASK) == d->gpa) {
        mmu_stack_forget(c);
        e->write ^= TLB_CODE;
        d->found = true;
    } else {
        mmu_bloom_add(c->mmu, e->gpa);
    }
}

bool mmu_drop_write(struct cpu *c, uint64_t gpa)
{
    struct drop d = { .gpa = gpa };
    if (!mmu_bloom_has(c->mmu, gpa))
        return false;
    memset(c->mmu->write_bloom, 0, sizeof(c->mmu->write_bloom));
    for_fast_writes(c, look_to_drop, &d);
    return d.found;
}

static void look_for_code(struct cpu *c, struct tlb_entry *e, void *arg)
{
    uint64_t pfn = e->gpa >> PAGE_SHIFT;
    if (pfn < c->shared->code_pages && atomic_load(&c->shared->code[pfn])) {
        mmu_stack_forget(c);
        e->write ^= TLB_CODE;
        mmu_code_written(c->shared, c, pfn << PAGE_SHIFT, PAGE_SIZE);
    }
}

void mmu_rescan_writes(struct cpu *c)
{
    for_fast_writes(c, look_for_code, NULL);
}

void mmu_forbid_writes(struct cpu *c)
{
    struct mmu_state *m = c->mmu;
    mmu_stack_forget(c);
    for (unsigned bank = 0; bank < TLB_BANK_NONE; bank++) {
        for (unsigned w = 0; w < TLB_SIZE / 64; w++) {
            for (uint64_t left = m->used[bank].bits[w]; left; left &= left - 1) {
                unsigned at = w * 64 + (unsigned)__builtin_ctzll(left);
                struct tlb_entry *e = &c->tlb[bank][at];
                uint64_t page = mmu_page_of(e, at);
                if (e->gpa & TLBE_VALID && !(tlb_flags(e->write, page) & (TLB_INVALID | TLB_MMIO)))
                    e->write ^= TLB_INVALID;
            }
        }
    }
    memset(m->write_bloom, 0, sizeof(m->write_bloom));
}

/* --- instruction fetch --- */

static int fetch_page(struct cpu *c, uint64_t lin, struct tlb_code **ret)
{
    bool user = c->mode & MODE_USER;
    uint64_t page = lin & PAGE_MASK;
    struct tlb_code *e = tlb_code_at(c, lin);
    *ret = e;
    if (e->tag == page)
        return 0;
    if (unlikely(!is_canonical(lin)))
        return cpu_raise_error(c, EXC_GP, 0);
    struct mmu_walk w;
    uint32_t error;
    c->stats.tlb_misses++;
    if (mmu_walk(c, page, user ? TLB_USER : TLB_SUPER, false, WALK_FETCH, &w, &error) < 0) {
        c->fault = (struct cpu_fault){ .vector = EXC_PF, .has_error = true, .error = error,
                                       .cr2 = lin };
        return X_FAULT;
    }
    struct cpu_phys p = mmu_phys(c, w.gpa);
    mmu_note_code(c, user ? TLB_CODE_USER + c->mmu->cur : TLB_CODE_SUPER, mmu_code_at(page), w.global);
    e->host = w.gpa >> PAGE_SHIFT < c->shared->code_pages ? p.hva : NULL;
    e->gpa = w.gpa;
    e->flags = TLBE_VALID | (w.global ? TLBE_GLOBAL : 0);
    e->tag = page;
    mmu_note_large(c->mmu, page, w.shift);
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
