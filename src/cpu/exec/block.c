/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The block cache: look-up, decoding, invalidation.
 *
 * Spec      Intel SDM volume 3, 11.6 (self-modifying code), 8.1.3 (cross-modifying code).
 * Thread    The vCPU's own.
 * Trust     Code is the guest's: a block has at most BLOCK_MAX_INSNS instructions, the arena a fixed size.
 */
#include "cpu/exec/block.h"
#include "cpu/exec/handlers.h"
#include "cpu/exec/trace.h"
#include "cpu/shared.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

struct exec_block exec_no_block = { .gpa = UINT64_MAX, .gpa2 = BLOCK_NO_PAGE };

int exec_init(struct cpu *c)
{
    struct exec_cache *x = calloc(1, sizeof(*x));

    if (!x)
        return -ENOMEM;
    x->arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1, 0);
    if (x->arena == MAP_FAILED) {
        free(x);
        return -ENOMEM;
    }
    block_flush(x);
    c->blocks = x;
    return 0;
}

void exec_done(struct cpu *c)
{
    if (!c->blocks)
        return;
    munmap(c->blocks->arena, ARENA_BYTES);
    free(c->blocks);
    c->blocks = NULL;
}

void block_flush(struct exec_cache *x)
{
    x->want = NULL;
    x->flush = false;
    x->used = 0;
    for (unsigned k = 0; k < CACHE_BUCKETS; k++)
        x->bucket[k] = &exec_no_block;
    memset(x->page, 0, sizeof(x->page));
    memset(x->cross, 0, sizeof(x->cross));
}

/* --- invalidation --- */

static struct exec_block **page_bucket(struct exec_block **table, uint64_t page)
{
    uint64_t n = page >> PAGE_SHIFT;
    return &table[(n ^ n >> 13) & (PAGE_BUCKETS - 1)];
}

/* Takes the block out of the cache. It stays in its lists of pages, whose walkers drop dead ones. */
static void block_kill(struct cpu *c, struct exec_block *b)
{
    struct exec_block **at = block_bucket(c->blocks, b->gpa, b->mode);

    while (*at != b)
        at = &(*at)->hash_next;
    *at = b->hash_next;
    b->count = 0;
    c->code_changed = true;
    c->stats.smc_invalidations++;
}

static bool block_touches(const struct exec_block *b, uint64_t page, uint64_t from, uint64_t to)
{
    uint64_t first = b->gpa, end = b->gpa + b->bytes;

    if (b->gpa2 == page) { /* the part on the second page */
        end = page + (end & (PAGE_SIZE - 1));
        first = page;
    }
    return first < to && end > from;
}

static void invalidate_list(struct cpu *c, struct exec_block **at, size_t next, uint64_t page, uint64_t from,
                            uint64_t to)
{
    while (*at) {
        struct exec_block *b = *at;
        struct exec_block **b_next = (struct exec_block **)((char *)b + next);
        bool here = next == offsetof(struct exec_block, page_next) ? (b->gpa & PAGE_MASK) == page
                                                                   : b->gpa2 == page;
        if (here && b->count && block_touches(b, page, from, to))
            block_kill(c, b);
        if (b->count)
            at = b_next;
        else
            *at = *b_next;
    }
}

void exec_invalidate(struct cpu *c, uint64_t gpa, uint64_t len)
{
    struct exec_cache *x = c->blocks;
    uint64_t end = gpa + len;

    if (!x)
        return;
    for (uint64_t page = gpa & PAGE_MASK; page < end; page += PAGE_SIZE) {
        invalidate_list(c, page_bucket(x->page, page), offsetof(struct exec_block, page_next), page, gpa,
                        end);
        invalidate_list(c, page_bucket(x->cross, page), offsetof(struct exec_block, cross_next), page, gpa,
                        end);
    }
}

void exec_invalidate_all(struct cpu *c)
{
    if (!c->blocks)
        return;
    c->blocks->flush = true;
    c->code_changed = true;
}

/* --- decoding --- */

static int raise_gp0(struct cpu *c, const struct insn *i)
{
    return cpu_raise_error(c, EXC_GP, 0);
}

int exec_decode_one(struct cpu *c, const uint8_t *bytes, unsigned len, struct insn *ret)
{
    enum insn_mode mode = c->mode & MODE_CODE64 ? INSN_64 : c->mode & MODE_CODE32 ? INSN_32 : INSN_16;
    int err = insn_decode(bytes, len, mode, c->mode & MODE_REAL, ret);

    if (err == -EAGAIN)
        return err;
    c->stats.decodes++;
    if (err) {
        ret->fn = err == -E2BIG ? raise_gp0 : x_ud;
        ret->row = UINT16_MAX;
        return 0;
    }
    exec_bind(c, ret, bytes);
    return 0;
}

/* An interrupt shadow covers one more instruction, which stays in the block unless control goes elsewhere. */
static bool ends_block(const struct insn *i, bool shadowed)
{
    if (i->row == UINT16_MAX || shadowed)
        return true;
    uint32_t attr = insn_rows[i->row].attr;
    return attr & A_SHADOW ? false : attr & (A_END | A_MODE);
}

static bool casts_shadow(const struct insn *i)
{
    return i->row != UINT16_MAX && (insn_rows[i->row].attr & A_SHADOW);
}

/* Tells the MMU which bytes the decoder is about to read; `*marked` is the page offset told so far. */
static void mark_ahead(struct cpu *c, uint64_t page, unsigned off, unsigned *marked)
{
    unsigned end = off + INSN_MAX_LEN;

    if (end <= *marked || *marked == PAGE_SIZE)
        return;
    end = (unsigned)min_u64(align_up(end, 1u << CODE_GRANULE_SHIFT), PAGE_SIZE);
    mmu_mark_code(c, page + *marked, end - *marked);
    *marked = end;
}

/* The single instruction at the end of the first page and the start of the second. 0, X_FAULT, or X_NEXT: the second
 * page cannot be cached. */
static int decode_crossing(struct cpu *c, struct exec_block *b, const uint8_t *host, unsigned off)
{
    unsigned here = PAGE_SIZE - off;
    uint8_t bytes[INSN_MAX_LEN];
    const uint8_t *host2;

    if (mmu_fetch_page(c, (exec_code_linear(c) & PAGE_MASK) + PAGE_SIZE, &b->gpa2, &host2))
        return X_FAULT;
    if (!host2)
        return X_NEXT;
    mmu_mark_code(c, b->gpa2, INSN_MAX_LEN);
    memcpy(bytes, host + off, here);
    memcpy(bytes + here, host2, INSN_MAX_LEN - here);
    exec_decode_one(c, bytes, INSN_MAX_LEN, &c->blocks->decoded[0]);
    b->count = 1;
    b->bytes = c->blocks->decoded[0].len;
    return 0;
}

/* Fills x->decoded, b->count and b->bytes. */
static int decode_block(struct cpu *c, struct exec_block *b, const uint8_t *host)
{
    unsigned start = b->gpa & (PAGE_SIZE - 1), off = start, marked = start;

    while (b->count < BLOCK_MAX_INSNS && off < PAGE_SIZE) {
        struct insn *i = &c->blocks->decoded[b->count];
        unsigned len = (unsigned)min_u64(PAGE_SIZE - off, INSN_MAX_LEN);
        uint8_t bytes[INSN_MAX_LEN];

        mark_ahead(c, b->gpa & PAGE_MASK, off, &marked);
        memcpy(bytes, host + off, len);
        if (exec_decode_one(c, bytes, len, i)) {
            if (b->count == 0)
                return decode_crossing(c, b, host, off);
            break;
        }
        off += i->len;
        b->count++;
        if (ends_block(i, b->count > 1 && casts_shadow(i - 1)))
            break;
    }
    b->bytes = (uint16_t)(off - start);
    return 0;
}

/* Lays the decoded instructions out. Returns the block's bytes. */
static size_t thread_block(struct cpu *c, struct exec_block *b)
{
    unsigned off = 0, page_off = b->gpa & (PAGE_SIZE - 1);
    uint8_t *end = (uint8_t *)(block_tail(b) + 1);

    for (unsigned k = 0; k < b->count; k++) {
        const struct insn *i = &c->blocks->decoded[k];
        struct exec_op *op = &b->ops[k];

        if (!hot_bind(c, i, off, page_off + off, op)) {
            memcpy(end, i, sizeof(*i));
            op->full = (uint32_t)(end - (uint8_t *)op);
            end += sizeof(*i);
        }
        op->left = (uint8_t)(b->count - k);
        off += i->len;
    }
    hot_bind_tail(c, b);
    return align_up((uint64_t)(end - (uint8_t *)b), 16);
}

static void block_insert(struct cpu *c, struct exec_block *b)
{
    struct exec_cache *x = c->blocks;
    struct exec_block **at = block_bucket(x, b->gpa, b->mode);

    b->hash_next = *at;
    *at = b;
    at = page_bucket(x->page, b->gpa & PAGE_MASK);
    b->page_next = *at;
    *at = b;
    if (b->gpa2 != BLOCK_NO_PAGE) {
        at = page_bucket(x->cross, b->gpa2);
        b->cross_next = *at;
        *at = b;
    }
}

static int block_make(struct cpu *c, uint64_t gpa, const uint8_t *host, struct exec_block **ret)
{
    struct exec_cache *x = c->blocks;
    struct exec_block *b;
    int st;

    if (x->used + BLOCK_MOST_BYTES > ARENA_BYTES)
        block_flush(x);
    b = (struct exec_block *)(x->arena + x->used);
    *b = (struct exec_block){ .gpa = gpa, .gpa2 = BLOCK_NO_PAGE, .mode = c->mode };
    *ret = NULL;
    st = decode_block(c, b, host);
    if (st || !b->count)
        return st;
    x->used += thread_block(c, b);
    block_insert(c, b);
    c->stats.block_misses++;
    c->stats.blocks++;
    if (log_on(LOG_IN_ASM))
        trace_decoded(c, b);
    *ret = b;
    return 0;
}

/* --- look-up --- */

/* The second page must still be the one that was decoded. 1: it is; 0: not; X_FAULT. */
static int crossing_holds(struct cpu *c, const struct exec_block *b, bool *ret)
{
    const uint8_t *host;
    uint64_t gpa;

    if (mmu_fetch_page(c, (exec_code_linear(c) & PAGE_MASK) + PAGE_SIZE, &gpa, &host))
        return X_FAULT;
    *ret = gpa == b->gpa2;
    return 0;
}

/* The block at gpa, moved to the front of its list; NULL if there is none. */
static struct exec_block *cache_get(struct cpu *c, uint64_t gpa)
{
    struct exec_block **head = block_bucket(c->blocks, gpa, c->mode), **at = head, *b;

    for (b = *at; b != &exec_no_block; at = &b->hash_next, b = *at) {
        if (b->gpa != gpa || b->mode != c->mode)
            continue;
        *at = b->hash_next;
        b->hash_next = *head;
        *head = b;
        return b;
    }
    return NULL;
}

int block_find(struct cpu *c, struct exec_block **ret)
{
    uint64_t lin = exec_code_linear(c), gpa;
    const uint8_t *host;
    struct exec_block *b;
    bool holds;

    *ret = NULL;
    if (unlikely(exec_canonical(lin) != lin && (c->mode & MODE_CODE64)))
        return cpu_raise_error(c, EXC_GP, 0);
    if (mmu_fetch_page(c, lin, &gpa, &host))
        return X_FAULT;
    if (unlikely(!host))
        return X_NEXT;
    gpa |= lin & (PAGE_SIZE - 1);
    b = cache_get(c, gpa);
    if (b && unlikely(b->gpa2 != BLOCK_NO_PAGE)) {
        if (crossing_holds(c, b, &holds))
            return X_FAULT;
        if (!holds) {
            block_kill(c, b);
            b = NULL;
        }
    }
    if (!b) {
        int st = block_make(c, gpa, host, &b);
        if (st || !b)
            return st;
    }
    /* Outside flat segments the whole block must lie below CS's limit. */
    if (unlikely(!(c->mode & (MODE_CODE64 | MODE_FLAT))) &&
        c->rip + b->bytes - 1 > c->seg[SEG_CS].limit)
        return X_NEXT;
    *ret = b;
    return 0;
}
