/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Blocks: runs of decoded instructions, cached by physical address and mode word.
 *
 * A block never leaves its page, but for one of a single instruction that crosses into the next (`gpa2`). After its
 * last instruction stands a tail, which runs when the block falls through and keeps the links to the blocks that
 * followed last time; behind it the struct insn of those that have no threaded handler.
 *
 * Memory comes from one arena. A dead block (count 0) stays where it is, so that links to it may be followed
 * and found dead; all go at once when the arena is full, between blocks.
 *
 * Thread    The vCPU's own: nothing here is shared.
 */
#pragma once

#include "cpu/exec/op.h"

#define BLOCK_MAX_INSNS 48
#define BLOCK_NO_PAGE UINT64_MAX

struct exec_block {
    struct exec_block *hash_next;  /* same bucket of the cache */
    struct exec_block *page_next;  /* same bucket of pages: first page */
    struct exec_block *cross_next; /* same bucket of pages: second page */
    uint64_t gpa;                  /* of the first byte */
    uint64_t gpa2;                 /* page of the last byte, if another; else BLOCK_NO_PAGE */
    uint32_t mode;
    uint16_t bytes;
    uint16_t count;                /* instructions; 0: dead */
    struct exec_op ops[];          /* count, then the tail */
};

/* Where a block went last. `page`: a near link, whose target must lie on that physical page and is then entered
 * without a check; BLOCK_NO_PAGE: a far one, checked at each use. */
struct exec_link {
    struct exec_block *to; /* never NULL */
    uint64_t page;
};

struct exec_tail {
    exec_op_fn *run;       /* where struct exec_op has it */
    struct exec_link fall, taken;
    uint32_t bytes;        /* of the block */
};
_Static_assert(offsetof(struct exec_tail, run) == offsetof(struct exec_op, run), "a tail runs as an op");

#define BLOCK_MOST_BYTES                                                                           \
    (sizeof(struct exec_block) + sizeof(struct exec_tail) +                                        \
     BLOCK_MAX_INSNS * (sizeof(struct exec_op) + sizeof(struct insn)))

#define CACHE_BUCKETS 16384u
#define PAGE_BUCKETS 2048u
#define ARENA_BYTES (3 * MIB)

struct exec_cache {
    struct exec_link *want;       /* to point at the next block that is looked up; NULL: none */
    bool flush;                   /* empty all before the next block */
    uint8_t *arena;
    size_t used;
    struct insn decoded[BLOCK_MAX_INSNS]; /* of the block in the making */
    /* Lists that end in exec_no_block, last found first: threaded handlers look at the head only. */
    struct exec_block *bucket[CACHE_BUCKETS];
    struct exec_block *page[PAGE_BUCKETS];
    struct exec_block *cross[PAGE_BUCKETS];
};

extern struct exec_block exec_no_block; /* dead, and at no address */

static inline unsigned block_hash(uint64_t gpa, uint32_t mode)
{
    return (unsigned)(gpa ^ gpa >> 13 ^ mode * 0x9e5u);
}

static inline struct exec_block **block_bucket(struct exec_cache *x, uint64_t gpa, uint32_t mode)
{
    return &x->bucket[block_hash(gpa, mode) & (CACHE_BUCKETS - 1)];
}

/* Linear address of c->rip. */
static inline uint64_t exec_code_linear(const struct cpu *c)
{
    return c->mode & MODE_CODE64 ? c->rip : (uint32_t)(c->rip + c->seg_base[SEG_CS]);
}

/* The block at c->rip, found or made. 0; X_FAULT (fetch); or X_NEXT with *ret NULL: what is here must be
 * executed alone, uncached. */
int block_find(struct cpu *c, struct exec_block **ret);
void block_flush(struct exec_cache *x);

/* Decodes and binds one instruction from `len` bytes (15, or all up to the page's end). Undecodable ones get a
 * handler that raises the fault. 0 or -EAGAIN: more bytes are needed. */
int exec_decode_one(struct cpu *c, const uint8_t *bytes, unsigned len, struct insn *ret);

/* Makes the threaded form of an instruction at `off` of its block and `page_off` of its page. False: it has none,
 * and runs `i` from beside the block. */
bool hot_bind(struct cpu *c, const struct insn *i, unsigned off, unsigned page_off, struct exec_op *ret);
/* The tail, after the last op. */
void hot_bind_tail(struct cpu *c, struct exec_block *b);

static inline struct exec_tail *block_tail(struct exec_block *b)
{
    return (struct exec_tail *)&b->ops[b->count];
}
