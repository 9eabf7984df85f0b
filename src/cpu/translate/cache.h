/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Private to the translator's runtime (cache.c, thunk.c, run.c): the shared cache, each vCPU's part of it.
 *
 * Memory    Code and metadata are divided in the same number of regions, and these in chunks. A region's hot code lies
 *           together. A vCPU has a chunk at a time, where it builds without a lock. A region's blocks die together, oldest region first, one region
 *           ahead of need; its memory is used again when every vCPU has passed a safe point since (`epoch`).
 * Thread    Each field says.
 */
#pragma once

#include "base/fence.h"
#include "cpu/translate/asm.h"
#include "cpu/translate/tb.h"

#include <pthread.h>
#include <stdio.h>

#define TX_REGIONS 16
#define TX_CHUNK_HOT (24 * KIB)
#define TX_CHUNK_COLD (40 * KIB)
#define TX_CHUNK_CODE (TX_CHUNK_HOT + TX_CHUNK_COLD)
#define TX_CHUNK_META (64 * KIB)   /* blocks, their exits and tables */
#define TX_CHUNK_INSNS (192 * KIB)
#define TX_LINE 64                 /* blocks begin at cache lines: the first has all that look-ups read */
#define TX_ROOM_HOT (1 * KIB)      /* what most blocks need: if there is less, a new chunk is taken at once */
#define TX_ROOM_COLD (2 * KIB)
#define TX_DEFAULT_CODE (48 * MIB)
#define TX_MAX_CODE (320 * MIB)    /* displacements of 32 bits must reach from code to metadata */
#define TX_HASH (1u << 16)
#define TX_PAGES (1u << 14)
#define TX_PAGE_SEQS 1024u
#define TX_PATIENCE 5

struct tx_region {
    struct tb *blocks;      /* alive or dead */
    unsigned chunks;        /* handed out */
    bool used;              /* has ever held blocks */
    uint64_t dead_epoch;    /* its blocks died before this epoch began; 0: they have not */
    uint32_t generation;    /* changes when its blocks die: chunks of before are void. Atomic access */
};

/* Where a vCPU builds. The vCPU's own. */
struct tx_chunk {
    struct tx_region *region; /* NULL: none */
    uint32_t generation;
    uint8_t *hot, *hot_end, *cold, *cold_end; /* writable addresses */
    uint8_t *meta, *meta_end;
    struct insn *insn, *insn_end;
};

struct translate {
    enum cpu_translate how;
    _Atomic bool plain_locks; /* translate_plain_locks() */
    struct fence_relaxed relaxed;
    unsigned runs_before;   /* times that a block is interpreted first; constant while vCPUs run */
    struct code_arena code; /* its data: chunks of blocks, then chunks of insns */
    size_t chunks;          /* in all */
    unsigned region_chunks;
    struct thunks thunk;
    _Atomic uint64_t epoch; /* moves when a region dies */
    _Atomic uint32_t map_seq; /* moves when the address map changes */

    FILE *perf_map;         /* NULL: none. Written under the lock */

    pthread_mutex_t lock;   /* what follows; page_seq moves under it and is read without */
    struct cpu *cpus[CPU_MAX];
    struct tx_region region[TX_REGIONS];
    unsigned cur;           /* region that chunks come from */
    struct tb *hash[TX_HASH];  /* by address and mode; read without the lock */
    struct tb *page[TX_PAGES]; /* by physical page */
    _Atomic uint32_t page_seq[TX_PAGE_SEQS]; /* moves when code of such a page was overwritten */
    /* How often blocks there were overwritten, at most TX_PATIENCE: each time doubles the runs before the next is made.
     * By hash of the address. Read without the lock. */
    uint8_t patience[1u << 12];
};

/* What must not have changed between the look at guest memory and the block's insertion. */
struct tx_snapshot {
    uint32_t map_seq, page_seq;
};

/* cpu.tx */
struct translate_cpu {
    _Atomic uint64_t epoch; /* of the last safe point; TX_QUIET: outside translate_run() */
    uint64_t seen_epoch;    /* the jump cache holds nothing that died before it */
    struct tx_chunk chunk;
    uint32_t map_seq;       /* when this round of the dispatcher began, before it looked at events */
    uint8_t runs[1u << 14]; /* executions by the interpreter, by hash of address and mode */
    struct lockstep *lockstep; /* under CPU_TRANSLATE_LOCKSTEP */
    struct tx_row_stats *row; /* [insn_row_count + 1]; the last: undecodable */
};
#define TX_QUIET UINT64_MAX

/* Calls of interpreter's handlers from translated code, by opcode row. */
struct tx_row_stats {
    uint64_t no_emitter;    /* always done so */
    uint64_t slow;          /* TLB misses, MMIO, faults, rare operands, branches not in the jump cache */
};

/* --- cache.c --- */

static inline unsigned tx_hash(uint64_t gpa, uint32_t mode)
{
    uint64_t x = (gpa ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull;
    return (unsigned)(x >> 48);
}
_Static_assert(TX_HASH == 1u << 16, "tx_hash() answers 16 bits");

static inline _Atomic uint32_t *tx_page_seq(struct translate *t, uint64_t gpa)
{
    return &t->page_seq[(gpa >> PAGE_SHIFT) & (TX_PAGE_SEQS - 1)];
}

static inline uint8_t *tx_patience(struct translate *t, uint64_t gpa, uint32_t mode)
{
    return &t->patience[tx_hash(gpa, mode) % ARRAY_COUNT(t->patience)];
}

/* No lock. The block may die any moment; it stays until the caller's next safe point. */
struct tb *cache_find(struct translate *t, uint64_t gpa, uint32_t mode);
/* Room for a block in the vCPU's chunk, or in a new one if need be or if asked for. False: none now; interpret
 * meanwhile. */
bool cache_room(struct cpu *c, bool new);
/* Publishes a block of the vCPU's chunk. False: guest code changed meanwhile, or the region died; drop it. *ret: the
 * block to use, which is another's if that one came first. */
bool cache_insert(struct cpu *c, struct tb *tb, struct tx_snapshot at, struct tb **ret);
/* Makes the exit's jump lead to `to`, unless one of both is dead. */
void cache_link(struct translate *t, struct tb_exit *e, struct tb *to);
/* The vCPU holds no block. Must be called when t->epoch is not c->tx->epoch. */
void cache_safe_point(struct cpu *c);
void cache_quiet(struct cpu *c);

/* `interp`: the C function behind thunks interp and slow. NULL: *ret_err says why. */
typedef uint64_t tx_interp_fn(struct cpu *c, const struct insn *i, uint64_t slow);
struct translate *cache_new(uint64_t code_bytes, tx_interp_fn *interp, int *ret_err);
void cache_free(struct translate *t);

/* --- cross.c --- */

/* As build_block(), for an instruction that goes on in the next page, of which it must be c->rip's. */
int cross_build(struct cpu *c, struct tb *tb, uint64_t gpa, const uint8_t *page, const struct thunks *thunk,
                struct as room);

/* --- perfmap.c --- */

int perf_map_open(struct translate *t); /* 0 or negative errno */
void perf_map_add(struct translate *t, const struct tb *tb);
void perf_map_close(struct translate *t);

/* --- thunk.c --- */

/* Generates all at `a`. 0 or -ENOSPC. */
int thunks_make(struct as *a, struct thunks *th, tx_interp_fn *interp);
/* What tx_interp_fn answers: go on in the block; go to c->rip through the jump cache; or an answer of enter(). */
#define TX_GO_ON 0u
#define TX_GO_JUMP 255u
