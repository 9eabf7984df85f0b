/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Emptying the TLB and the jump cache; address spaces and their banks.
 *
 * Spec      Intel SDM volume 3, 4.10 (caching translation information, PCIDs, invalidation).
 * Thread    The vCPU's own.
 *
 * Bitmaps say which positions of a bank may hold something, so that emptying one costs what was put into it.
 * A space that is flushed gives up its banks; they are emptied when another takes them. What is not live is
 * looked at by nobody.
 */
#include "cpu/mmu/internal.h"
#include "cpu/sys/regs.h"

#define WORDS (TLB_SIZE / 64)
#define CODE_WORDS (TLB_CODE_SIZE / 64)

static void bit_set(struct mmu_used *m, unsigned at)
{
    m->bits[at / 64] |= 1ull << (at % 64);
}

static void bit_clear(struct mmu_used *m, unsigned at)
{
    m->bits[at / 64] &= ~(1ull << (at % 64));
}

static bool bit_has(const struct mmu_used *m, unsigned at)
{
    return m->bits[at / 64] >> (at % 64) & 1;
}

/* --- jump cache --- */

/* A table is emptied by 64 chunks. */
#define JC_CHUNK_BYTES (JC_SIZE * sizeof(struct jc_entry) / 64)

static uint64_t jc_chunk(uint64_t lin)
{
    return 1ull << ((lin << JC_SHIFT & JC_MASK) / JC_CHUNK_BYTES);
}

static void jc_clear_table(struct cpu *c, unsigned table)
{
    for (uint64_t used = c->mmu->jc_used[table]; used; used &= used - 1)
        memset((uint8_t *)c->jc[table] + (size_t)__builtin_ctzll(used) * JC_CHUNK_BYTES, 0, JC_CHUNK_BYTES);
    c->mmu->jc_used[table] = 0;
    c->jc[table][0].rip = JC_EMPTY;
}

void mmu_jc_put(struct cpu *c, uint64_t lin, struct tb *tb)
{
    struct tlb_code *e = tlb_code_at(c, lin);

    if (e->tag != (lin & PAGE_MASK))
        return;
    *mmu_jc_at(c, lin) = (struct jc_entry){ lin, tb };
    e->jumps |= 1ull << (lin >> 6 & 63);
    c->mmu->jc_used[c->jc_off / sizeof(c->jc[0])] |= jc_chunk(lin);
}

void mmu_jc_clear_all(struct cpu *c)
{
    for (unsigned t = 0; t < N_JC_TABLES; t++)
        jc_clear_table(c, t);
}

/* Entries of the page's pieces `jumps` go; those of other pages, which may be at the same places, stay. */
static void jc_clear_page(struct cpu *c, unsigned table, uint64_t page, uint64_t jumps)
{
    for (; jumps; jumps &= jumps - 1) {
        uint64_t lin = page + 64u * (unsigned)__builtin_ctzll(jumps);
        struct jc_entry *e = (struct jc_entry *)((uint8_t *)c->jc[table] + (lin << JC_SHIFT & JC_MASK));
        for (unsigned k = 0; k < (64u << JC_SHIFT) / sizeof(*e); k++) {
            if ((e[k].rip & PAGE_MASK) == page)
                e[k] = (struct jc_entry){ .rip = e + k == c->jc[table] ? JC_EMPTY : 0 };
        }
    }
}

/* The jumps to a code bank's page go. */
static void jc_clear_of_bank(struct cpu *c, unsigned bank, const struct tlb_code *e)
{
    if (bank != TLB_CODE_SUPER) {
        jc_clear_page(c, JC_USER + bank - TLB_CODE_USER, e->tag, e->jumps);
        return;
    }
    jc_clear_page(c, JC_SUPER, e->tag, e->jumps);
    jc_clear_page(c, JC_SUPER_AC, e->tag, e->jumps);
}

/* --- entries --- */

static void data_clear(struct cpu *c, unsigned bank, unsigned at)
{
    uint64_t empty = at ? 0 : TLB_EMPTY;
    mmu_stack_forget(c);
    c->tlb[bank][at] = (struct tlb_entry){ .read = empty, .write = empty };
}

static void code_clear(struct cpu *c, unsigned bank, unsigned at)
{
    struct tlb_code *e = &c->tlb_code[bank][at];
    jc_clear_of_bank(c, bank, e);
    *e = (struct tlb_code){ .tag = at ? 0 : TLB_EMPTY };
}

void mmu_note_data(struct cpu *c, unsigned bank, unsigned at, bool global)
{
    bit_set(&c->mmu->used[bank], at);
    if (bank >= TLB_BANK_USER)
        return;
    if (global)
        bit_clear(&c->mmu->local[bank], at);
    else
        bit_set(&c->mmu->local[bank], at);
}

void mmu_note_code(struct cpu *c, unsigned bank, unsigned at, bool global)
{
    struct mmu_state *m = c->mmu;
    if (bit_has(&m->code_used[bank], at))
        code_clear(c, bank, at);
    bit_set(&m->code_used[bank], at);
    if (bank != TLB_CODE_SUPER)
        return;
    if (global)
        bit_clear(&m->code_local, at);
    else
        bit_set(&m->code_local, at);
}

/* Empties the positions of `which`, which is the bank's `used` or a part of it. */
static void data_clear_all(struct cpu *c, unsigned bank, struct mmu_used *which)
{
    struct mmu_used *used = &c->mmu->used[bank];
    for (unsigned w = 0; w < WORDS; w++) {
        for (uint64_t left = which->bits[w]; left; left &= left - 1)
            data_clear(c, bank, w * 64 + (unsigned)__builtin_ctzll(left));
        used->bits[w] &= ~which->bits[w];
        which->bits[w] = 0;
    }
}

static void code_clear_all(struct cpu *c, unsigned bank, struct mmu_used *which)
{
    struct mmu_used *used = &c->mmu->code_used[bank];
    for (unsigned w = 0; w < CODE_WORDS; w++) {
        for (uint64_t left = which->bits[w]; left; left &= left - 1)
            code_clear(c, bank, w * 64 + (unsigned)__builtin_ctzll(left));
        used->bits[w] &= ~which->bits[w];
        which->bits[w] = 0;
    }
}

/* --- address spaces --- */

static unsigned current_pcid(const struct cpu *c)
{
    return c->cr4 & CR4_PCIDE ? c->cr3 & 0xfff : 0;
}

static struct mmu_space *find_space(struct mmu_state *m, unsigned pcid)
{
    for (unsigned i = 0; i < N_TLB_SPACES; i++) {
        if (m->space[i].live && m->space[i].pcid == pcid)
            return &m->space[i];
    }
    return NULL;
}

/* Banks for a space that has none: the current ones if they are free, others that are, the longest unused. */
static struct mmu_space *take_space(struct cpu *c, unsigned pcid)
{
    struct mmu_state *m = c->mmu;
    struct mmu_space *s = &m->space[m->cur];
    for (unsigned i = 0; s->live && i < N_TLB_SPACES; i++) {
        if (!m->space[i].live || m->space[i].last < s->last)
            s = &m->space[i];
    }
    unsigned n = (unsigned)(s - m->space);
    data_clear_all(c, TLB_BANK_USER + n, &m->used[TLB_BANK_USER + n]);
    code_clear_all(c, TLB_CODE_USER + n, &m->code_used[TLB_CODE_USER + n]);
    s->live = true;
    s->pcid = (uint16_t)pcid;
    return s;
}

/* After a change of CR3 or a flush: makes the banks those of the current address space. */
static void enter_space(struct cpu *c)
{
    struct mmu_state *m = c->mmu;
    unsigned pcid = current_pcid(c);
    struct mmu_space *s = find_space(m, pcid);
    c->map_epoch++;
    if (s == &m->space[m->cur])
        return;
    data_clear_all(c, TLB_BANK_SUPER, &m->local[TLB_BANK_SUPER]);
    data_clear_all(c, TLB_BANK_AC, &m->local[TLB_BANK_AC]);
    code_clear_all(c, TLB_CODE_SUPER, &m->code_local);
    if (!s)
        s = take_space(c, pcid);
    s->last = ++m->switches;
    m->cur = (unsigned)(s - m->space);
    c->tlb_user_off = (TLB_BANK_USER + m->cur) * sizeof(c->tlb[0]);
    mmu_mode_changed(c);
}

static void forget_space(struct mmu_state *m, unsigned pcid)
{
    struct mmu_space *s = find_space(m, pcid);
    if (s)
        s->live = false;
}

static void forget_spaces(struct mmu_state *m)
{
    for (unsigned i = 0; i < N_TLB_SPACES; i++)
        m->space[i].live = false;
}

void mmu_mode_changed(struct cpu *c)
{
    struct mmu_state *m = c->mmu;
    bool user = c->mode & MODE_USER;
    mmu_stack_forget(c);
    bool open = !user && c->cr4 & CR4_SMAP && !(c->mode & MODE_SMAP_ON);
    uint64_t off = user ? c->tlb_user_off : open ? c->tlb_ac_off : 0;
    unsigned table = user ? JC_USER + m->cur : open ? JC_SUPER_AC : JC_SUPER;
    if (unlikely(c->mode & MODE_AC))
        off = TLB_BANK_NONE * sizeof(c->tlb[0]);
    c->tlb_cur = (struct tlb_entry *)((uint8_t *)c->tlb + off);
    c->tlb_code_cur = c->tlb_code[user ? TLB_CODE_USER + m->cur : TLB_CODE_SUPER];
    c->jc_off = table * sizeof(c->jc[0]);
    if (unlikely(m->jc_mode[table] != c->mode)) {
        jc_clear_table(c, table);
        m->jc_mode[table] = c->mode;
    }
}

void mmu_tlb_init(struct cpu *c)
{
    for (unsigned i = 0; i < N_TLB_BANKS; i++)
        data_clear(c, i, 0);
    for (unsigned i = 0; i < N_TLB_CODE_BANKS; i++)
        c->tlb_code[i][0].tag = TLB_EMPTY;
    for (unsigned i = 0; i < N_JC_TABLES; i++)
        c->jc[i][0].rip = JC_EMPTY;
    c->tlb_ac_off = TLB_BANK_AC * sizeof(c->tlb[0]);
    enter_space(c);
}

/* --- flushes --- */

void mmu_flush_all(struct cpu *c)
{
    struct mmu_state *m = c->mmu;
    c->stats.tlb_flushes++;
    forget_spaces(m);
    data_clear_all(c, TLB_BANK_SUPER, &m->used[TLB_BANK_SUPER]);
    data_clear_all(c, TLB_BANK_AC, &m->used[TLB_BANK_AC]);
    code_clear_all(c, TLB_CODE_SUPER, &m->code_used[TLB_CODE_SUPER]);
    memset(m->local, 0, sizeof(m->local));
    memset(&m->code_local, 0, sizeof(m->code_local));
    memset(m->large, 0, sizeof(m->large));
    memset(m->write_bloom, 0, sizeof(m->write_bloom));
    m->large_shifts = 0;
    enter_space(c);
}

void mmu_flush_nonglobal(struct cpu *c)
{
    c->stats.tlb_flushes++;
    forget_spaces(c->mmu);
    enter_space(c);
}

void mmu_flush_pcid(struct cpu *c, unsigned pcid)
{
    c->stats.tlb_flushes++;
    forget_space(c->mmu, pcid & 0xfff);
    enter_space(c);
}

void mmu_set_cr3(struct cpu *c, uint64_t cr3, bool keep)
{
    c->cr3 = cr3;
    if (!keep) {
        c->stats.tlb_flushes++;
        forget_space(c->mmu, current_pcid(c));
    }
    enter_space(c);
}

/* --- single pages --- */

/* Large pages are cached by 4 KiB pieces, so that INVLPG must find all pieces. A filter of hashed
 * regions says where there may be any. */
static unsigned large_bit(uint64_t region, uint8_t shift)
{
    return (unsigned)((region >> shift << 6 | shift) * 0x9e3779b97f4a7c15ull >> 51) & (LARGE_BITS - 1);
}

void mmu_note_large(struct mmu_state *m, uint64_t page, uint8_t shift)
{
    if (shift == PAGE_SHIFT)
        return;
    unsigned bit = large_bit(page, shift);
    m->large[bit / 64] |= 1ull << (bit % 64);
    m->large_shifts |= 1u << shift;
}

/* Log2 of the largest page that may have been cached with this address in it. */
static unsigned largest_at(const struct mmu_state *m, uint64_t lin)
{
    static const uint8_t shifts[] = { 30, 22, 21 };
    for (unsigned i = 0; i < ARRAY_COUNT(shifts); i++) {
        unsigned bit = large_bit(lin, shifts[i]);
        if (m->large_shifts >> shifts[i] & 1 && m->large[bit / 64] >> (bit % 64) & 1)
            return shifts[i];
    }
    return PAGE_SHIFT;
}

/* An aligned stretch of linear addresses. */
struct stretch {
    uint64_t lin;
    unsigned shift;
    bool only_global; /* leave other pages alone */
};

/* Where its positions are in a bitmap. */
struct span {
    unsigned first, last; /* words */
    uint64_t mask;        /* within each */
};

static struct span span_of(const struct stretch *s, unsigned bank_size)
{
    unsigned at = (unsigned)(s->lin >> PAGE_SHIFT) & (bank_size - 1);
    if (s->shift == PAGE_SHIFT)
        return (struct span){ at / 64, at / 64, 1ull << (at % 64) };
    unsigned positions = (unsigned)min_u64(bank_size, 1ull << (s->shift - PAGE_SHIFT));
    at &= ~(positions - 1);
    return (struct span){ at / 64, (at + positions - 1) / 64, ~0ull };
}

static bool goes(const struct stretch *s, uint64_t page, bool global)
{
    return !((page ^ s->lin) >> s->shift) && (global || !s->only_global);
}

static void data_drop(struct cpu *c, unsigned bank, const struct stretch *s)
{
    struct mmu_used *used = &c->mmu->used[bank];
    struct span in = span_of(s, TLB_SIZE);
    for (unsigned w = in.first; w <= in.last; w++) {
        for (uint64_t left = used->bits[w] & in.mask; left; left &= left - 1) {
            unsigned at = w * 64 + (unsigned)__builtin_ctzll(left);
            struct tlb_entry *e = &c->tlb[bank][at];
            if (!goes(s, mmu_page_of(e, at), e->gpa & TLBE_GLOBAL))
                continue;
            data_clear(c, bank, at);
            bit_clear(used, at);
        }
    }
}

static void code_drop(struct cpu *c, unsigned bank, const struct stretch *s)
{
    struct mmu_used *used = &c->mmu->code_used[bank];
    struct span in = span_of(s, TLB_CODE_SIZE);
    for (unsigned w = in.first; w <= in.last; w++) {
        for (uint64_t left = used->bits[w] & in.mask; left; left &= left - 1) {
            unsigned at = w * 64 + (unsigned)__builtin_ctzll(left);
            struct tlb_code *e = &c->tlb_code[bank][at];
            if (!goes(s, e->tag, e->flags & TLBE_GLOBAL))
                continue;
            code_clear(c, bank, at);
            bit_clear(used, at);
        }
    }
}

/* Drops the stretch from a space's own banks. */
static void space_drop(struct cpu *c, unsigned space, const struct stretch *s)
{
    data_drop(c, TLB_BANK_USER + space, s);
    code_drop(c, TLB_CODE_USER + space, s);
}

static void drop_here(struct cpu *c, const struct stretch *s)
{
    c->map_epoch++;
    data_drop(c, TLB_BANK_SUPER, s);
    data_drop(c, TLB_BANK_AC, s);
    code_drop(c, TLB_CODE_SUPER, s);
    space_drop(c, c->mmu->cur, s);
}

void mmu_flush_page(struct cpu *c, uint64_t lin)
{
    struct mmu_state *m = c->mmu;
    struct stretch s = { .lin = lin, .shift = largest_at(m, lin) };
    drop_here(c, &s);
    s.only_global = true;
    for (unsigned i = 0; i < N_TLB_SPACES; i++) {
        if (m->space[i].live && i != m->cur)
            space_drop(c, i, &s);
    }
}

void mmu_flush_pcid_page(struct cpu *c, unsigned pcid, uint64_t lin)
{
    struct mmu_state *m = c->mmu;
    struct stretch s = { .lin = lin, .shift = largest_at(m, lin) };
    struct mmu_space *space = find_space(m, pcid & 0xfff);
    if (space == &m->space[m->cur])
        drop_here(c, &s);
    else if (space)
        space_drop(c, (unsigned)(space - m->space), &s);
}
