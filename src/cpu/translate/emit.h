/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From decoded guest instructions to host code: the contract between the block builder and the emitters.
 *
 * Registers. GS.base is struct cpu. RSP is the host's. RAX and RCX are scratch. Guest registers live in host
 * registers one to one, but for R11, R14 and R15, which live in cpu->gpr (`host_of`). While host code of a
 * block runs, cpu->gpr of the others, cpu->rip and (mostly) cpu->flags_ax are stale.
 *
 * Flags. Guest arithmetic flags are host flags from their producer on. The check of a memory access, among
 * others, destroys host flags; before it does, the flags must be *recoverable*, since a fault must show them:
 * they are in cpu->flags_ax, or their producer can be replayed from registers that still hold its operands
 * (`cmp`, `test`, an `add` whose result less its operand is what it was). The emitter of that instruction, not
 * liveness, decides; the replay stands in cold code or in front of a reader. struct flags is that knowledge,
 * at one point of one block, at translation time only.
 *
 * Memory. emit_mem() emits the TLB's check for one access. When it fails at run time, the whole instruction is run by
 * the interpreter's handler (cold code: flags to memory, c->rip set, thunk `interp`, back behind the
 * instruction with flags as the hot path leaves them), which faults precisely, walks the page tables, does
 * MMIO, notices writes to code. So an emitter writes no slow path, provided that nothing guest-visible
 * (mapped register, memory, flags) has changed before its last emit_mem().
 *
 * Instructions without an emitter, or whose emitter answers false, become a call of thunk `interp`.
 */
#pragma once

#include "cpu/translate/asm.h"
#include "cpu/translate/tb.h"

#include "base/linkset.h"

#define R_S0 R_AX /* scratch; the answer of emit_mem() */
#define R_S1 R_CX

/* Host register of a guest register, or R_NONE: it is in memory, at gpr_mem(). */
extern const uint8_t host_of[16];
#define gpr_mem(n) AS_GS(offsetof(struct cpu, gpr) + 8 * (n))

/* Where the guest's arithmetic flags are. At least one of the three holds at any point, or `unknown`: at the block's
 * entry, until somebody asks; what is asked first decides which entry the body assumes. */
struct flags {
    bool host;           /* in the host's flags */
    bool mem;            /* in cpu->flags_ax */
    bool unknown;
    uint8_t replay;      /* enum flags_replay: REPLAY_NONE, or how to make them again */
    uint8_t size;        /* of the replayed operation */
    uint8_t a, b;        /* guest registers (a low byte when size is 1), or FLAGS_SLOT(k); b R_NONE: imm */
    int32_t imm;
    bool from_entry;     /* `mem`, and nobody has looked since the block's entry */
    uint16_t changed;    /* then: guest registers that changed since, a bit each */
};
/* Operands whose registers have changed since: cpu->tx_slot[0 and 1]. */
#define FLAGS_SLOT(k) (16 + (k))
enum flags_replay {
    REPLAY_NONE,
    REPLAY_CMP,  /* cmp a, b|imm */
    REPLAY_TEST, /* test a, b|imm; and, or, xor with result a: test a, a */
    REPLAY_ADD,  /* a is the result of a + b|imm (b another register) */
    REPLAY_SUB,
    REPLAY_NEG,
    REPLAY_SHL,  /* a, before the shift, by imm */
    REPLAY_SHR,
    REPLAY_SAR,
};

struct tr;

/* Code that is emitted behind the block: what `emit` needs stands in its fields. */
struct cold {
    void (*emit)(struct tr *t, struct cold *k);
    struct as_fix from[6];   /* jumps of the hot code that lead here */
    uint8_t n_from;
    bool slow;               /* a slow path: saves its flags by flags_cold_save() */
    uint8_t insn;            /* index of the guest instruction */
    uint8_t more;            /* instructions behind it that its slow path does as well */
    const uint8_t *start;    /* where it stands, once emitted (slow paths only) */
    const uint8_t *back;     /* executable address behind the instruction's hot code; NULL: it ends the block */
    struct flags before, after;
    uint8_t vec;             /* t->vec and t->x87 when it was made: emit_live_again() */
    bool x87;
    uint8_t x87_last, x87_memory; /* emit_x87.c: pointers to store before the handler runs */
    struct tb_exit *exit;
    struct cold *otherwise;  /* operand.c: where to, if a stack access of so many bytes is not at hand */
    uint8_t stack_bytes;
    bool stack_write;
    uint8_t cc;              /* flow.c: condition of the branch */
    int64_t target;          /* flow.c: where it goes, from the page's start */
};
#define TB_MAX_COLD 160

/* S0 holds the host address of checked memory around an address: hold.c. */
struct hold {
    struct cold *cold;       /* of the check; NULL: nothing is held */
    uint8_t base, index, scale; /* base: guest register or BASE_RIP; REG_NONE */
    unsigned align;          /* of lo */
    bool write, used;        /* used: by the instruction in hand, not being the first */
    unsigned first, last;    /* instructions that may rely on it */
    int64_t lo, hi;          /* displacements */
};

struct tr {
    struct as as;            /* hot code; later the cold code behind it */
    struct cpu *c;           /* its mode and model */
    struct tb *tb;
    const struct thunks *thunk;
    uint32_t mode;           /* tb->mode: constant conditions of the code */
    bool mode64;             /* else flat 32-bit */
    const struct insn *i;    /* the instruction in hand */
    unsigned n, count;       /* its index; instructions decoded (t->i[1] is the next if n + 1 < count) */
    uint16_t at, next;       /* its page offset, and that of the one behind it in memory (may be 4096) */
    bool ended;              /* the emitter ended the block: no fall-through */
    struct flags f;
    uint8_t vec;             /* enum vec_live: vector registers that are known to be live */
    bool x87;                /* fpu_live is known to hold */
    uint8_t x87_last, x87_memory; /* emit_x87.c: instructions (plus 1) whose pointers are not stored yet */
    struct cold *slow;       /* of this instruction's emit_mem(); NULL: none yet */
    struct cold cold[TB_MAX_COLD];
    unsigned n_cold;
    bool give_up;            /* no room: the builder cuts the block before this instruction */
    const uint8_t *body;     /* executable address of the first instruction's code */
    struct flags loop;       /* replay: what flags are at the start when the block's end leads there */
    bool no_loop;            /* somebody looks at the entry's flags */
    struct flags entry;      /* the body's assumption: only `host`, or only `mem`; unknown: none */
    struct hold hold;
    bool no_hold;            /* do without, in this block */
    bool in_copy;            /* in cold code that repeats instructions with a check for each */
    bool clobber_ahead[TB_MAX_INSNS + 1]; /* an access comes, from that instruction on, before all flags are written */
};

/* True: emitted. False: nothing was emitted, let the interpreter's handler do it. */
typedef bool emit_fn(struct tr *t, const struct insn *i);
struct emit_row {
    exec_fn *exec;           /* x_<exec> of the table's rows */
    emit_fn *emit;
};
/* EMIT_ROWS(name, rows): announces an array of struct emit_row. */
struct emit_rows {
    const struct emit_row *row;
    unsigned count;
};
#define EMIT_ROWS(name, array)                                                                     \
    static const struct emit_rows name = { (array), ARRAY_COUNT(array) };                           \
    LINKSET_ENTRY(emit_rows, name)

/* --- build.c --- */

/* Translates the code at physical address `gpa` (host: its page) for c->mode into `tb` and the writable memory of `hot`
 * (its `p` aligned to 16) and, for what is seldom run, `cold` (at a higher address). tb->mode is set, and tb->exit, insn and
 * insn_at point at room for the most of each, which 32-bit displacements of the executable code reach. Fills entry_mem,
 * entry_host, first, end, insns, exits, code, code_bytes, cold_bytes, granules and the arrays. 0; -EAGAIN:
 * nothing here can be translated (interpret it); -ENOSPC: not enough room, of which BUILD_HOT_ROOM and
 * BUILD_COLD_ROOM are always enough. Calls mmu_mark_code() before it reads. */
int build_block(struct cpu *c, struct tb *tb, uint64_t gpa, const uint8_t *page, const struct thunks *thunk,
                struct as hot, struct as cold);
#define BUILD_HOT_ROOM (12 * KIB)
#define BUILD_COLD_ROOM (20 * KIB)
/* An emitter exists for the instruction, its binding has not refused it, and its operands are of the common kind (it
 * may still answer false). Such an instruction, without memory, stack or control flow, is no call of its handler. */
bool build_native(const struct tr *t, const struct insn *i);

/* Has instruction number t->n emitted. */
void build_emit(struct tr *t);

/* --- flags.c --- */

/* Host flags are about to be destroyed: makes the flags recoverable. May destroy S0. */
void flags_clobber(struct tr *t);
/* Guest flags in the host's flags (t->f.host), for a reader. May destroy S0. */
void flags_need(struct tr *t);
/* The same when S0 must survive: it holds the answer of emit_mem(). */
void flags_need_keep(struct tr *t);
/* Guest flags in cpu->flags_ax. May destroy S0 (and host flags stay right if they were). */
void flags_to_mem(struct tr *t);
/* The instruction in hand has written all arithmetic flags with the host's; `how` filled, or REPLAY_NONE. */
void flags_produced(struct tr *t, struct flags how);
/* Guest register `n` is about to change: what flags would have been replayed from is put aside. Called before the
 * first emit_mem() of an instruction that writes a register and keeps flags; those that write all flags need not call
 * it. May destroy S1, and no host flags. */
void flags_reg_changes(struct tr *t, unsigned n);
/* The flags that the instruction in hand leaves alone are written by a later one before anything can see them. */
bool flags_dead_behind(const struct tr *t);
/* The block's end leads to its start. True: the code may go straight to t->body, cpu->tx_looped set; no flags need be
 * saved on the way, since only slow paths ask for those of the start, and can replay what made them. */
bool flags_loop(struct tr *t);
/* To be called in cold code: from `before` (host flags lost) to cpu->flags_ax, destroying S0; from cpu->flags_ax to
 * `after`, likewise. */
void flags_cold_save(struct tr *t, const struct flags *before);
void flags_cold_restore(struct tr *t, const struct flags *after);

/* --- operand.c --- */

/* The host register that holds guest register `n`: its own, or `scratch` loaded from memory (full 64 bits). */
unsigned emit_reg(struct tr *t, unsigned n, unsigned scratch);
/* The same for a destination that is written in full or whose old value does not matter. */
unsigned emit_reg_dst(struct tr *t, unsigned n, unsigned scratch);
/* After writing the register that emit_reg*() answered: stores it if the guest register lives in memory. No flags. */
void emit_reg_done(struct tr *t, unsigned n, unsigned host);
/* dst = the linear address of the ModRM operand plus `plus` (segment base included, 32 bits outside 64-bit mode). No flags. Uses
 * dst and S1 only. emit_offset(): without segment base, in address size: lea; uses S0 too. _sized: its low `size` bytes,
 * 4 or 8, zero-extended. */
void emit_linear(struct tr *t, const struct insn *i, unsigned dst, int32_t plus);
void emit_offset(struct tr *t, const struct insn *i, unsigned dst);
void emit_offset_sized(struct tr *t, const struct insn *i, unsigned dst, unsigned size);

/* Check for `size` bytes at the ModRM operand / at guest register `n` + disp (stack) / at the linear address in S0.
 * Then S0 is the host address, S1 free, host flags destroyed (t->f says so). `align`: a power of two, 1 for none. */
void emit_mem(struct tr *t, const struct insn *i, unsigned size, bool write, unsigned align);
/* The same for integer and vector instructions: answers where the operand is, [S0 + something]. If instructions
 * ahead access memory near by, checks it all at once; then flags may not be destroyed, and S0 must be left
 * alone for as long as it is of use. hold.c has a table of who calls it. */
struct as_mem emit_near_mem(struct tr *t, const struct insn *i, unsigned size, bool write);
struct as_mem emit_near_aligned(struct tr *t, const struct insn *i, unsigned size, bool write, unsigned align);
/* The instruction in hand is emitted. */
void hold_next(struct tr *t);
void emit_mem_at(struct tr *t, unsigned n, int32_t disp, unsigned size, bool write);
void emit_mem_s0(struct tr *t, unsigned size, bool write, unsigned align);
/* The same for an address that comes from the stack pointer. */
void emit_stack_s0(struct tr *t, unsigned size, bool write);
/* A jump, under condition cc, to this instruction's slow path: the interpreter does it. For operands that the emitted
 * code does not handle (a divisor of zero). Host flags: destroyed already. */
void emit_slow_if(struct tr *t, unsigned cc);
/* Runs the handler now (hot code). Afterwards flags are in memory only, t->vec and t->x87 say nothing. Ends the block
 * if the row may change the mode, the mapping or control flow. */
void emit_interp(struct tr *t, const struct insn *i);
/* c->rip = rip_page + off. Destroys S0, no flags. */
void emit_set_rip(struct tr *t, int64_t off);
/* Cold code: has the handler of instruction number `n` execute it. Flags are in memory. */
void emit_call_slow(struct tr *t, unsigned n);
/* A cold piece of the instruction in hand, `emit` to be filled by the caller; NULL and t->give_up when there is no room. */
struct cold *emit_cold(struct tr *t);
/* Where hot or cold code goes on now, as an executable address. */
static inline const uint8_t *emit_here(const struct tr *t)
{
    return t->as.p + t->as.to_rx;
}

/* --- flow.c: ends of blocks --- */

/* A near exit to `target` (page offset): a linkable jump; `cc` CC_NONE: unconditional. Tests for events if it goes
 * backwards. Flags pass as they are: in host or in memory. */
#define CC_NONE 0xff
void emit_exit(struct tr *t, unsigned cc, uint32_t target);
/* To rip_page + target, outside the page (page offset 4096 and beyond, or below 0). Fetching there faults, not what came
 * before: for falling out of the page. */
void emit_exit_far(struct tr *t, int64_t target);
/* To the linear address in S0, likewise. Flags are in memory. */
void emit_jump(struct tr *t);

/* The same for branch instructions, which fault themselves if their target must: what the jump cache does not hold is
 * the slow path's. So find() comes before anything visible changes. Flags are in memory. */
void emit_branch_far(struct tr *t, unsigned cc, int64_t target);
void emit_branch_find(struct tr *t);    /* S0 = linear target: S1 becomes its entry's offset */
void emit_branch_go(struct tr *t);      /* S0, S1 as find() left them */
void emit_branch_keep(struct tr *t);    /* puts the block aside: S0 and S1 are free */
void emit_branch_go_kept(struct tr *t, int64_t off); /* the target is rip_page + off */
void emit_branch_go_kept_ind(struct tr *t);          /* the target is in tx_tmp */

/* dst = rip_page + off: the linear address (64-bit) or EIP (32-bit) of a place in or near the block's page. */
void emit_rip(struct tr *t, unsigned dst, int64_t off);

/* --- emit_stack.c --- */

/* Whether the stack pointer is all of RSP or ESP. */
bool emit_stack_plain(const struct tr *t);
/* RSP or ESP += by. No flags. */
void emit_stack_move(struct tr *t, int32_t by);

/* --- vector.c: vector.h --- */

/* In cold code that returns behind the instruction, after thunk interp returned and before flags are restored: what
 * was known to be live at the time is so again. S0, S1 and host flags destroyed. */
void emit_live_again(struct tr *t, const struct cold *k);
/* Before the handler: x87 pointers that the run of instructions in hand has not stored yet. Destroys S0, S1; no flags. */
void emit_x87_cold(struct tr *t, const struct cold *k);
