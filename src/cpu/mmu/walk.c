/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Page walks: no paging, 32-bit, PAE, 4-level; rights, reserved bits, accessed and dirty bits.
 *
 * Spec      Intel SDM volume 3, chapter 4.
 * Thread    The vCPU's own. Paging structures are guest memory that other vCPUs change meanwhile:
 *           entries are read once, A and D bits are set by compare-and-swap, and a lost race walks
 *           again.
 */
#include "cpu/mmu/internal.h"
#include "cpu/sys/regs.h"

#define WALK_RETRIES 16 /* lost races before A/D bits are ORed in blindly */

struct cpu_phys mmu_phys_slow(struct cpu *c, uint64_t gpa)
{
    struct mmu_state *m = c->mmu;
    unsigned slot = (unsigned)(gpa >> PAGE_SHIFT) & (PHYS_SLOTS - 1);
    if (m->phys[slot].key == (gpa | 1))
        return m->phys[slot].phys;
    struct cpu_phys p = c->cb->translate(c->opaque, gpa);
    if (p.hva && p.writable && (p.before || p.after)) {
        unsigned which = gpa >= 4 * GIB;
        m->ram[which].gpa = gpa - p.before;
        m->ram[which].size = p.before + PAGE_SIZE + p.after;
        m->ram[which].hva = p.hva - p.before;
    } else {
        m->phys[slot].phys = p;
        m->phys[slot].key = gpa | 1;
    }
    return p;
}

void mmu_phys_flush(struct cpu *c)
{
    for (unsigned i = 0; i < PHYS_SLOTS; i++)
        c->mmu->phys[i].key = 0;
    for (unsigned i = 0; i < ARRAY_COUNT(c->mmu->ram); i++)
        c->mmu->ram[i].size = 0;
}

uint64_t mmu_phys_read(struct cpu *c, uint64_t gpa, unsigned size)
{
    gpa &= c->phys_mask;
    struct cpu_phys p = mmu_phys(c, gpa & PAGE_MASK);
    if (unlikely(!p.hva))
        return c->cb->mmio_read(c->opaque, gpa, size);
    const void *at = p.hva + (gpa & ~PAGE_MASK);
    return size == 8 ? __atomic_load_n((const uint64_t *)at, __ATOMIC_RELAXED)
                     : __atomic_load_n((const uint32_t *)at, __ATOMIC_RELAXED);
}

int mmu_phys_write(struct cpu *c, uint64_t gpa, const void *buf, unsigned len)
{
    gpa &= c->phys_mask;
    struct cpu_phys p = mmu_phys(c, gpa & PAGE_MASK);
    if (!p.hva || !p.writable || len > PAGE_SIZE - (gpa & ~PAGE_MASK))
        return -1;
    mmu_note_dirty(c, gpa);
    memcpy(p.hva + (gpa & ~PAGE_MASK), buf, len);
    mmu_code_written(c->shared, c, gpa, len);
    return 0;
}

/* ORs `bits` into the entry, if it still is `old` (or `blindly`). False: it changed. */
static bool phys_set_bits(struct cpu *c, uint64_t gpa, unsigned size, uint64_t old, uint64_t bits,
                          bool blindly)
{
    gpa &= c->phys_mask;
    struct cpu_phys p = mmu_phys(c, gpa & PAGE_MASK);
    if (!p.hva) {
        c->cb->mmio_write(c->opaque, gpa, old | bits, size);
        return true;
    }
    if (!p.writable)
        return true;
    mmu_note_dirty(c, gpa);
    void *at = p.hva + (gpa & ~PAGE_MASK);
    bool done = true;
    if (blindly && size == 8) {
        __atomic_fetch_or((uint64_t *)at, bits, __ATOMIC_SEQ_CST);
    } else if (blindly) {
        __atomic_fetch_or((uint32_t *)at, (uint32_t)bits, __ATOMIC_SEQ_CST);
    } else if (size == 8) {
        done = __atomic_compare_exchange_n((uint64_t *)at, &old, old | bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    } else {
        uint32_t old32 = (uint32_t)old;
        done = __atomic_compare_exchange_n((uint32_t *)at, &old32, (uint32_t)(old | bits), false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    }
    if (done)
        mmu_code_written(c->shared, c, gpa, size);
    return done;
}

/* What one walk has seen. */
struct path {
    struct {
        uint64_t gpa, val;
    } step[4];
    unsigned n, size; /* entries, bytes of one */
    uint32_t error;   /* PF_P and PF_RSVD on failure */
    struct mmu_pde pde; /* what the walk may leave behind; epoch 0: nothing */
};

static bool path_read(struct cpu *c, struct path *p, uint64_t gpa, uint64_t rsvd)
{
    uint64_t v = mmu_phys_read(c, gpa, p->size);
    p->step[p->n].gpa = gpa;
    p->step[p->n].val = v;
    p->n++;
    if (!(v & PTE_P)) {
        p->error = 0;
        return false;
    }
    if (v & rsvd) {
        p->error = PF_P | PF_RSVD;
        return false;
    }
    return true;
}

/* Address bits above MAXPHYADDR, and NX without EFER.NXE; in PAE paging bits 62:52. */
static uint64_t reserved_bits(const struct cpu *c)
{
    return (PTE_ADDR & ~c->shared->phys_mask) | (c->efer & EFER_NXE ? 0 : PTE_NX) |
           (c->efer & EFER_LMA ? 0 : 0x7ff0000000000000ull);
}

static void rights_and(struct mmu_walk *w, uint64_t v)
{
    w->user &= !!(v & PTE_U);
    w->write &= !!(v & PTE_W);
    w->nx |= !!(v & PTE_NX);
}

static bool leaf(struct mmu_walk *w, uint64_t v, uint64_t base, uint64_t lin, uint8_t shift)
{
    w->gpa = base | (lin & ((1ull << shift) - 1) & PAGE_MASK);
    w->shift = shift;
    w->dirty = v & PTE_D;
    w->global = v & PTE_G;
    return true;
}

/* The last level of PAE and 4-level paging. */
static bool walk_pte(struct cpu *c, uint64_t lin, uint64_t table, uint64_t rsvd, struct path *p,
                     struct mmu_walk *w)
{
    if (!path_read(c, p, table + (lin >> 12 & 0x1ff) * 8, rsvd))
        return false;
    uint64_t v = p->step[p->n - 1].val;
    rights_and(w, v);
    return leaf(w, v, v & PTE_ADDR, lin, 12);
}

/* The last two levels; `table` is the page directory. */
static bool walk_pae_tail(struct cpu *c, uint64_t lin, uint64_t table, uint64_t rsvd, struct path *p,
                          struct mmu_walk *w)
{
    if (!path_read(c, p, table + (lin >> 21 & 0x1ff) * 8, rsvd))
        return false;
    uint64_t v = p->step[p->n - 1].val;
    rights_and(w, v);
    if (v & PTE_PS) {
        if (v & 0x1fe000) {
            p->error = PF_P | PF_RSVD;
            return false;
        }
        return leaf(w, v, v & PTE_ADDR & ~0x1fffffull, lin, 21);
    }
    p->pde = (struct mmu_pde){ lin >> 21, c->map_epoch, v & PTE_ADDR, w->user, w->write, w->nx };
    return walk_pte(c, lin, v & PTE_ADDR, rsvd, p, w);
}

static bool walk_4level(struct cpu *c, uint64_t lin, struct path *p, struct mmu_walk *w)
{
    uint64_t rsvd = reserved_bits(c);
    if (!path_read(c, p, (c->cr3 & PTE_ADDR) + (lin >> 39 & 0x1ff) * 8, rsvd | PTE_PS))
        return false;
    uint64_t v = p->step[0].val;
    rights_and(w, v);
    bool gib = c->shared->gib_pages;
    if (!path_read(c, p, (v & PTE_ADDR) + (lin >> 30 & 0x1ff) * 8, rsvd | (gib ? 0 : PTE_PS)))
        return false;
    v = p->step[1].val;
    rights_and(w, v);
    if (v & PTE_PS) {
        if (v & 0x3fffe000) {
            p->error = PF_P | PF_RSVD;
            return false;
        }
        return leaf(w, v, v & PTE_ADDR & ~0x3fffffffull, lin, 30);
    }
    return walk_pae_tail(c, lin, v & PTE_ADDR, rsvd, p, w);
}

static bool walk_pae(struct cpu *c, uint64_t lin, struct path *p, struct mmu_walk *w)
{
    uint64_t pdpte = c->mmu->pdpte[lin >> 30 & 3];
    if (!(pdpte & PTE_P)) {
        p->error = 0;
        return false;
    }
    return walk_pae_tail(c, lin, pdpte & PTE_ADDR, reserved_bits(c), p, w);
}

static bool walk_32(struct cpu *c, uint64_t lin, struct path *p, struct mmu_walk *w)
{
    p->size = 4;
    if (!path_read(c, p, (c->cr3 & 0xfffff000) + (lin >> 22 & 0x3ff) * 4, 0))
        return false;
    uint64_t v = p->step[0].val;
    rights_and(w, v);
    if (v & PTE_PS && c->cr4 & CR4_PSE) {
        uint64_t base = (v & 0xffc00000) | (v & 0x1fe000) << 19; /* PSE-36 */
        if (v & 1u << 21 || base & ~c->shared->phys_mask) {
            p->error = PF_P | PF_RSVD;
            return false;
        }
        return leaf(w, v, base, lin, 22);
    }
    if (!path_read(c, p, (v & 0xfffff000) + (lin >> 12 & 0x3ff) * 4, 0))
        return false;
    v = p->step[1].val;
    rights_and(w, v);
    return leaf(w, v, v & 0xfffff000, lin, 12);
}

/* May the access use the page? The rules of SDM 4.6. */
static bool allowed(const struct cpu *c, const struct mmu_walk *w, unsigned set, bool write, bool fetch)
{
    if (set == TLB_USER)
        return w->user && (!write || w->write) && !(fetch && w->nx);
    if (fetch)
        return !w->nx && !(w->user && c->cr4 & CR4_SMEP);
    if (w->user && set == TLB_SUPER && c->cr4 & CR4_SMAP)
        return false;
    return !write || w->write || !(c->cr0 & CR0_WP);
}

static bool set_accessed(struct cpu *c, const struct path *p, bool dirty, bool blindly)
{
    for (unsigned i = 0; i < p->n; i++) {
        uint64_t v = p->step[i].val;
        uint64_t bits = PTE_A | (dirty && i == p->n - 1 ? PTE_D : 0);
        if ((v & bits) != bits && !phys_set_bits(c, p->step[i].gpa, p->size, v, bits, blindly))
            return false;
    }
    return true;
}

static struct mmu_pde *pde_slot(struct cpu *c, uint64_t lin)
{
    return &c->mmu->pde[lin >> 21 & (PDE_SLOTS - 1)];
}

static bool walk_once(struct cpu *c, uint64_t lin, struct path *p, struct mmu_walk *w, bool cached)
{
    const struct mmu_pde *e = pde_slot(c, lin);
    bool ok;
    p->n = 0;
    p->size = 8;
    p->pde.epoch = 0;
    *w = (struct mmu_walk){ .user = true, .write = true };
    if (cached && e->region == lin >> 21 && e->epoch == c->map_epoch) {
        w->user = e->user;
        w->write = e->write;
        w->nx = e->nx;
        ok = walk_pte(c, lin, e->table, reserved_bits(c), p, w);
    } else if (c->efer & EFER_LMA) {
        ok = walk_4level(c, lin, p, w);
    } else {
        ok = c->cr4 & CR4_PAE ? walk_pae(c, lin, p, w) : walk_32(c, lin, p, w);
    }
    if (!(c->efer & EFER_NXE) || (p->size == 4))
        w->nx = false;
    if (!(c->cr4 & CR4_PGE))
        w->global = false;
    return ok;
}

int mmu_walk(struct cpu *c, uint64_t lin, unsigned set, bool write, enum walk_kind kind,
             struct mmu_walk *w, uint32_t *ret_error)
{
    c->stats.page_walks++;
    if (!(c->cr0 & CR0_PG)) {
        *w = (struct mmu_walk){ .gpa = lin & 0xfffff000 & c->phys_mask, .shift = 12, .user = true,
                                .write = true, .dirty = true };
        return 0;
    }
    struct path p = { 0 };
    bool fetch = kind == WALK_FETCH;
    for (unsigned tries = 0;; tries++) {
        bool ok = walk_once(c, lin, &p, w, kind != WALK_DEBUG);
        if (kind == WALK_DEBUG) {
            w->gpa &= c->phys_mask;
            return ok ? 0 : -1;
        }
        if (!ok || !allowed(c, w, set, write, fetch)) {
            *ret_error = (ok ? PF_P : p.error) | (write ? PF_W : 0) | (set == TLB_USER ? PF_U : 0);
            bool nx = c->cr4 & CR4_PAE && c->efer & EFER_NXE;
            if (fetch && (nx || c->cr4 & CR4_SMEP))
                *ret_error |= PF_I;
            return -1;
        }
        if (set_accessed(c, &p, write, tries >= WALK_RETRIES))
            break;
    }
    /* Only now do all entries above have A set, as one that is cached must. */
    if (p.pde.epoch)
        *pde_slot(c, lin) = p.pde;
    w->dirty |= write;
    w->gpa &= c->phys_mask;
    return 0;
}

bool mmu_load_pdptes(struct cpu *c, uint64_t cr3, bool check)
{
    uint64_t v[4];
    uint64_t rsvd = (PTE_ADDR & ~c->shared->phys_mask) | 0xfff0000000000000ull | 0x1e6;
    for (unsigned i = 0; i < 4; i++) {
        v[i] = mmu_phys_read(c, (cr3 & 0xffffffe0) + i * 8, 8);
        if (check && v[i] & PTE_P && v[i] & rsvd)
            return false;
    }
    memcpy(c->mmu->pdpte, v, sizeof(v));
    return true;
}
