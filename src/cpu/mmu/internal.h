/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Private to mmu/: the page walker, the TLB's cold state, the queue of posted invalidations. */
#pragma once

#include "cpu/mmu/mmu.h"
#include "cpu/shared.h"

#define PHYS_SLOTS 64
#define PDE_SLOTS 64
#define POST_MAX 64
#define BLOOM_BITS 32768
#define LARGE_BITS 8192

/* Paging-structure bits. */
#define PTE_P (1ull << 0)
#define PTE_W (1ull << 1)
#define PTE_U (1ull << 2)
#define PTE_A (1ull << 5)
#define PTE_D (1ull << 6)
#define PTE_PS (1ull << 7)
#define PTE_G (1ull << 8)
#define PTE_NX (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull

/* #PF error code. */
#define PF_P 1u
#define PF_W 2u
#define PF_U 4u
#define PF_RSVD 8u
#define PF_I 16u

/* One question to another vCPU, asked by CPU_EV_FLUSH. */
struct mmu_post {
    uint64_t gpa, len;
    bool drop_write; /* drop fast write entries of gpa's page */
    bool rewritten;  /* the vCPU's own: the range has now been written; neither: drop blocks of the range */
};

/* Which positions of a bank may hold something. */
struct mmu_used {
    uint64_t bits[TLB_SIZE / 64];
};
_Static_assert(TLB_CODE_SIZE <= TLB_SIZE, "one kind of bitmap for both");

/* Where the last level of a walk begins: the paging-structure cache of SDM 4.10.3. */
struct mmu_pde {
    uint64_t region; /* linear address >> 21 */
    uint64_t epoch;  /* cpu->map_epoch when it was made: good for no other */
    uint64_t table;
    bool user, write, nx;
};

/* An address space that has banks. */
struct mmu_space {
    bool live;
    uint16_t pcid;
    uint64_t last; /* mmu_state.switches when it was last entered */
};

struct mmu_state {
    /* Under shared->lock. */
    struct mmu_post post[POST_MAX];
    unsigned n_posts;
    bool post_flush_map;  /* the address map changed: TLB and phys cache go */
    bool post_forbid_writes; /* the log of written pages begins anew */
    bool post_overflow;   /* too many posts: look at everything */

    /* The vCPU's own. */
    uint64_t pdpte[4];
    struct mmu_space space[N_TLB_SPACES];
    unsigned cur;                /* the current one: its number in space[] and among banks */
    uint64_t switches;
    struct mmu_used used[N_TLB_BANKS], code_used[N_TLB_CODE_BANKS];
    struct mmu_used local[TLB_BANK_USER], code_local; /* in the supervisor's banks: pages that are not global */
    uint32_t jc_mode[N_JC_TABLES];     /* mode word that a jump table belongs to */
    uint64_t jc_used[N_JC_TABLES];     /* bit per 64th of the table that may hold something */
    unsigned cold_writes;        /* slow writes to pages that hold no code any more */
    uint32_t large_shifts;                /* bit per page size (shift) met */
    uint64_t large[LARGE_BITS / 64];       /* hashed regions with entries of large pages */
    uint64_t write_bloom[BLOOM_BITS / 64]; /* hashed pages that may have a fast write entry */
    struct {
        uint64_t gpa, size;
        uint8_t *hva;
    } ram[2];                             /* stretches of RAM that translate() told of */
    struct {
        uint64_t key; /* gpa | 1 */
        struct cpu_phys phys;
    } phys[PHYS_SLOTS];                   /* pages elsewhere */
    struct mmu_pde pde[PDE_SLOTS];
};

/* The page of gpa is being written, or may be from now on. */
static inline void mmu_note_dirty(const struct cpu *c, uint64_t gpa)
{
    const struct cpu_shared *s = c->shared;
    uint64_t pfn = gpa >> PAGE_SHIFT;
    if (unlikely(s->dirty) && pfn < s->dirty_pages)
        atomic_fetch_or_explicit(&s->dirty[pfn / 64], 1ull << (pfn % 64), memory_order_relaxed);
}
/* No entry of the vCPU's TLB allows writes any more. */
void mmu_forbid_writes(struct cpu *c);

/* A finished translation. */
struct mmu_walk {
    uint64_t gpa;   /* of the 4 KiB page */
    uint8_t shift;  /* of the mapping: 12, 21, 22, 30; 12 without paging */
    bool user, write, nx, global, dirty;
};

enum walk_kind { WALK_DATA, WALK_FETCH, WALK_DEBUG /* no A/D bits, no rights */ };

/* Translates the page of `lin` for set `set` (TLB_SUPER, TLB_SUPER_AC, TLB_USER), sets A and D
 * bits. 0, or -1 with the #PF error code. */
int mmu_walk(struct cpu *c, uint64_t lin, unsigned set, bool write, enum walk_kind kind,
             struct mmu_walk *ret, uint32_t *ret_error);

/* translate() through a cache. gpa is page aligned. Only hva and writable count. */
struct cpu_phys mmu_phys_slow(struct cpu *c, uint64_t gpa);
static inline struct cpu_phys mmu_phys(struct cpu *c, uint64_t gpa)
{
    const struct mmu_state *m = c->mmu;
    for (unsigned i = 0; i < ARRAY_COUNT(m->ram); i++) {
        uint64_t off = gpa - m->ram[i].gpa;
        if (likely(off < m->ram[i].size))
            return (struct cpu_phys){ .hva = m->ram[i].hva + off, .writable = true };
    }
    return mmu_phys_slow(c, gpa);
}
void mmu_phys_flush(struct cpu *c);
/* Naturally aligned 4 or 8 bytes of a paging structure. */
uint64_t mmu_phys_read(struct cpu *c, uint64_t gpa, unsigned size);

/* Entry of a data page for a kind of access, filled, with the right checked. NULL: c->fault is filled. */
struct tlb_entry *mmu_entry(struct cpu *c, unsigned set, uint64_t lin, bool write);
/* Drops fast write entries of the page; true when there was one. */
bool mmu_drop_write(struct cpu *c, uint64_t gpa);
/* For every fast write entry whose page holds code by now: that page counts as written. */
void mmu_rescan_writes(struct cpu *c);

/* flush.c */
void mmu_tlb_init(struct cpu *c);
/* Notes that a position holds something; a code entry that was there goes with its jumps. */
void mmu_note_data(struct cpu *c, unsigned bank, unsigned at, bool global);
void mmu_note_code(struct cpu *c, unsigned bank, unsigned at, bool global);
void mmu_note_large(struct mmu_state *m, uint64_t page, uint8_t shift);

static inline unsigned mmu_bank(const struct cpu *c, unsigned set)
{
    return set == TLB_USER ? TLB_BANK_USER + c->mmu->cur : set == TLB_SUPER_AC ? TLB_BANK_AC : TLB_BANK_SUPER;
}

/* Whether a bank belongs to somebody: what is in others does not count. */
static inline bool mmu_bank_live(const struct mmu_state *m, unsigned bank)
{
    return bank < TLB_BANK_USER || m->space[bank - TLB_BANK_USER].live;
}

/* Position of an address in a bank of data or code. */
static inline unsigned mmu_data_at(uint64_t lin)
{
    return (unsigned)(lin >> PAGE_SHIFT) & (TLB_SIZE - 1);
}

static inline unsigned mmu_code_at(uint64_t lin)
{
    return (unsigned)(lin >> PAGE_SHIFT) & (TLB_CODE_SIZE - 1);
}

/* The linear address of the page in an entry that is not empty. */
static inline uint64_t mmu_page_of(const struct tlb_entry *e, unsigned at)
{
    uint64_t index_bits = (uint64_t)(TLB_SIZE - 1) << PAGE_SHIFT;
    return (e->read & ~index_bits) | (uint64_t)at << PAGE_SHIFT;
}

static inline unsigned mmu_bloom_bit(uint64_t gpa)
{
    return (unsigned)((gpa >> PAGE_SHIFT) & (BLOOM_BITS - 1));
}

static inline void mmu_bloom_add(struct mmu_state *m, uint64_t gpa)
{
    unsigned bit = mmu_bloom_bit(gpa);
    m->write_bloom[bit / 64] |= 1ull << (bit % 64);
}

static inline bool mmu_bloom_has(const struct mmu_state *m, uint64_t gpa)
{
    unsigned bit = mmu_bloom_bit(gpa);
    return m->write_bloom[bit / 64] >> (bit % 64) & 1;
}

/* Bytes of [gpa, gpa + len) changed, already visible in memory: drops blocks decoded from there in
 * all vCPUs; in `self` (may be NULL) at once. Within one page. Returns the code mask that is left. */
uint64_t mmu_code_written(struct cpu_shared *s, struct cpu *self, uint64_t gpa, uint64_t len);
/* The same for a write that happens after this call (mmu_host): it is looked at again at the next
 * block boundary. */
void mmu_code_about_to_be_written(struct cpu *c, uint64_t gpa, uint64_t len);
