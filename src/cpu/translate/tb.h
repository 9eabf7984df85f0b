/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Translated blocks and the cache that holds them.
 *
 * A block (struct tb) is one entry and possibly several exits: a run of guest instructions of one page that goes on
 * behind conditional jumps not taken and unconditional jumps within the page. It is keyed by the
 * physical address of its first byte and the mode word, and does not know its linear address: cpu->rip_page is the
 * linear address of its page while it runs. So one translation serves all mappings and all vCPUs.
 *
 * Entries   Host code is entered with GS.base = struct cpu, guest registers mapped (emit.h), and the arithmetic flags
 *           either in cpu->flags_ax (`entry_mem`) or in the host's flags (`entry_host`).
 * Links     A near exit (target in the same page) ends in a patched `jmp rel32`; until it is linked it goes to its cold
 *           stub, which leaves to the dispatcher with the exit's address. Far exits, indirect jumps, calls to
 *           other pages and returns look the linear target up in the jump cache (state.h), tag = linear RIP.
 * Death     A dead block's entries are those of thunk `dead`, links to it are reset, it is out of the hash: all under
 *           the lock. Its memory stays until every vCPU has passed a safe point (dispatcher).
 */
#pragma once

#include "cpu/exec/exec.h"
#include "cpu/shared.h"
#include "cpu/translate/translate.h"

#define TB_MAX_INSNS 64
#define TB_MAX_EXITS 20

struct tb_exit {
    struct tb *from;
    struct tb *to;              /* linked; NULL: not */
    struct tb_exit *incoming_next; /* next exit that is linked to `to` */
    uint32_t rel32;             /* of the jump to patch, from the block's code; never across 8 aligned bytes */
    uint32_t stub;              /* the cold stub, from the block's code: where the jump goes when unlinked */
    uint16_t target;            /* page offset of the target */
    bool flags_mem;             /* enters by entry_mem, else by entry_host */
};

struct tb {
    const uint8_t *entry_mem;   /* first member: jumped through by jump-cache hits, RCX = the block */
    const uint8_t *entry_host;
    struct tb *hash_next;       /* bucket; read without the lock */
    struct tb *page_next;       /* the page's blocks; under the lock */
    struct tb *region_next;     /* blocks of the same piece of memory; under the lock */
    struct tb_exit *incoming;   /* exits that are linked to us; under the lock */
    uint64_t gpa;               /* of the first byte */
    uint32_t mode;
    uint16_t first, end;        /* page offsets of the bytes translated: the lowest, and behind the highest */
    uint32_t compared;          /* times that lockstep met it */
    uint16_t insns;             /* guest instructions */
    uint8_t exits;
    bool dead;
    uint8_t *code;              /* executable address */
    uint32_t code_bytes, cold_bytes;
    const uint8_t *cold;        /* executable address of what is off the straight way */
    uint64_t granules;          /* of the page, from which it was made: what a write must hit to kill it */
    struct tb_exit *exit;       /* array */
    struct insn *insn;          /* array: what handlers called from the block execute */
    uint16_t *insn_at;          /* page offset of each */
};

/* --- code.c: executable memory. Two mappings of one memfd, never writable and executable at one address. --- */

struct code_arena {
    uint8_t *rw, *rx;
    size_t size;
    uint8_t *data;     /* what belongs to the code, within reach of its 32-bit displacements; zero, never executable */
    size_t data_size;
};
/* `bytes` and `data_bytes` are page-aligned, together less than 2 GiB. 0 or negative errno. */
int code_arena_init(struct code_arena *a, size_t bytes, size_t data_bytes);
void code_arena_done(struct code_arena *a);
static inline const uint8_t *code_rx(const struct code_arena *a, const uint8_t *rw)
{
    return a->rx + (rw - a->rw);
}

/* --- thunk.c: code that is generated once --- */

/* What translated code calls or leaves to. All are executable addresses. */
struct thunks {
    /* C: uint64_t enter(struct cpu *c, const uint8_t *code). Saves the host's callee-saved registers, loads guest
     * registers, runs. The answer: TX_* in the low byte, or an exit's address (TX_LINK). */
    uint64_t (*enter)(struct cpu *c, const uint8_t *code);
    /* jmp: leave to the dispatcher; c->rip is the next instruction's address, guest registers are mapped, flags in
     * flags_ax. RAX: the answer. */
    const uint8_t *leave;
    /* jmp: RAX = linear target, flags in flags_ax. Jump-cache look-up; leaves when it misses or an event is due. */
    const uint8_t *jump;
    /* call: runs handler insn->fn for the struct insn at RAX, c->rip being its address. Guest registers are
     * written to c->gpr and read back; flags go and come in flags_ax. Vector registers are parked (vector.h) and stay
     * so, x87 registers may be. Returns when the handler answered X_NEXT and the block may go on; otherwise
     * leaves to the dispatcher. */
    const uint8_t *interp;
    /* call: the same, for instructions that have an emitter whose code did not do this time: counted apart. */
    const uint8_t *slow;
    /* call: RAX = linear address, RCX = bytes. Carry: the TLB does not serve the access. Else RAX = its host address; and if
     * its page may be read and written, cpu.stack_* tell of it. Destroys RCX and flags. */
    const uint8_t *stack_read, *stack_write;
    /* call: see vector.h. */
    const uint8_t *vec_park, *vec_load, *ymm_load, *x87_load;
    /* jmp: where a dead block's entry_mem leads: leaves with the block's address in c->rip. RCX is the block for
     * whoever jumps through entry_mem, rip_page its page; 0 from enter(), which leaves c->rip as it is. */
    const uint8_t *dead;
};

/* enter()'s answer: an address of a struct tb_exit to link, or one of these. */
enum {
    TX_LOOKUP = 1, /* find the block at c->rip */
    TX_EVENT = 2,  /* an event is due */
    TX_STATUS = 4, /* a handler answered c->tx_status (X_*), and c->rip is exact */
};
#define TX_IS_LINK(x) ((x) > 255)
