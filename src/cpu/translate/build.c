/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The block builder: decodes a run of instructions, has each emitted, lays hot and cold code out.
 *
 * Thread    Under translate.lock: the block is the builder's own until it is published.
 * Trust     Code is the guest's: a block has at most TB_MAX_INSNS instructions and what code fits the room.
 */
#include "cpu/exec/block.h"
#include "cpu/exec/handlers.h"
#include "cpu/shared.h"
#include "cpu/translate/emit.h"
#include "cpu/translate/lockstep.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

/* An unconditional jump forward within its page by at most this much is not the end of a block. */
#define FOLLOW_BYTES 1024
/* Room for an entry's conversion of flags in front of the body. */
#define ENTRY_BYTES 32

LINKSET_DECLARE(emit_rows);

/* --- emitters by row --- */

static emit_fn **emitters; /* [insn_row_count] */

static emit_fn *find_emitter(exec_fn *exec)
{
    LINKSET_FOREACH(emit_rows, struct emit_rows, rows)
        for (unsigned k = 0; k < rows->count; k++)
            if (rows->row[k].exec == exec)
                return rows->row[k].emit;
    return NULL;
}

static void index_emitters(void)
{
    emitters = calloc(insn_row_count, sizeof(*emitters));
    for (unsigned r = 0; emitters && r < insn_row_count; r++)
        emitters[r] = find_emitter(exec_row_handler(r));
}

/* The memory operand is one that emit_linear() can compute and the TLB check alone can judge. */
static bool common_operand(const struct tr *t, const struct insn *i)
{
    if (!i->mem || t->mode64)
        return true;
    return i->adsize == 4 && i->seg < SEG_FS && i->seg != SEG_CS;
}

/* In this mode it may raise an exception that is not of memory: the interpreter's. What build_native() approves of is
 * believed not to fault, and flags in front of it may be dead. */
static bool may_trap(const struct tr *t, const struct insn *i)
{
    uint32_t attr = insn_rows[i->row].attr;
    exec_fn *x = exec_row_handler(i->row);

    if (x == x_cli || x == x_sti || x == x_swapgs)
        return t->mode & MODE_USER;
    if (x == x_fwait)
        return t->mode & (MODE_FPU_NM | MODE_X87_TRAPS);
    return (attr & A_FLOAT && t->mode & MODE_SSE_TRAPS) || (attr & (A_X87 | A_MMX) && t->mode & MODE_X87_TRAPS);
}

static emit_fn *emitter_of(const struct tr *t, const struct insn *i)
{
    if (i->row == UINT16_MAX || !emitters || exec_bind_refused(i) || !common_operand(t, i) ||
        may_trap(t, i))
        return NULL;
    return emitters[i->row];
}

bool build_native(const struct tr *t, const struct insn *i)
{
    return emitter_of(t, i);
}

/* --- decoding --- */

struct decoded {
    struct insn insn[TB_MAX_INSNS];
    uint16_t at[TB_MAX_INSNS];
    unsigned count, branches;
    unsigned first, end;     /* page offsets of the bytes read */
    uint64_t granules, marked;
};

/* Before bytes are read, which may be up to `len`. */
static void mark(struct cpu *c, struct decoded *d, uint64_t page, unsigned off, unsigned len)
{
    uint64_t want = mmu_granules(off, len);

    if (want & ~d->marked)
        mmu_mark_code(c, page + off, len);
    d->marked |= want;
}

static bool is_jump(const struct insn *i, exec_fn *handler)
{
    return i->row != UINT16_MAX && exec_row_handler(i->row) == handler;
}

/* A direct jump whose target the block goes on with: returns its page offset, or 0. */
static unsigned followed(const struct insn *i, unsigned next)
{
    if (!is_jump(i, x_jmp_J) || i->opsize == 2 || (int64_t)i->imm < 0 || i->imm > FOLLOW_BYTES ||
        next + i->imm >= PAGE_SIZE)
        return 0;
    return next + (unsigned)i->imm;
}

/* Behind it comes nothing of this block. */
static bool is_last(const struct insn *i)
{
    if (i->row == UINT16_MAX)
        return true;
    return (insn_rows[i->row].attr & (A_END | A_MODE)) && !is_jump(i, x_jcc) && !is_jump(i, x_loop) &&
           !is_jump(i, x_jcxz) && !is_jump(i, x_sti);
}

/* The interrupt shadow of a stack switch is the interpreter's business, with the instruction that it covers. */
static bool is_shadow(const struct insn *i)
{
    return i->row != UINT16_MAX && (insn_rows[i->row].attr & A_SHADOW) && !is_jump(i, x_sti);
}

/* Decodes from page offset `off` on, at most `limit` instructions. */
static void decode(struct cpu *c, struct decoded *d, uint64_t page_gpa, const uint8_t *page, unsigned off,
                   unsigned limit)
{
    d->first = d->end = off;
    while (d->count < limit && off < PAGE_SIZE && d->branches < TB_MAX_EXITS - 2) {
        struct insn *i = &d->insn[d->count];
        unsigned len = (unsigned)min_u64(PAGE_SIZE - off, INSN_MAX_LEN);
        uint8_t bytes[INSN_MAX_LEN];

        mark(c, d, page_gpa, off, len);
        memcpy(bytes, page + off, len);
        if (exec_decode_one(c, bytes, len, i) || is_shadow(i) || off + i->len > PAGE_SIZE)
            return;
        if (translate_plain_locks(c))
            i->lock = 0;
        bool alone = lockstep_alone(translate_how(c), i);
        if (alone && d->count)
            return;
        d->granules |= mmu_granules(off, i->len);
        d->at[d->count++] = (uint16_t)off;
        off += i->len;
        d->end = off;
        unsigned to = followed(i, off);
        if (to)
            off = to;
        else if (is_last(i) || alone)
            return;
        d->branches += i->row != UINT16_MAX && (insn_rows[i->row].attr & A_END);
    }
}

/* --- laying out --- */

/* Whether host flags are lost at this instruction. A guess will do. */
static bool clobbers(const struct tr *t, const struct insn *i)
{
    exec_fn *x;

    if (!emitter_of(t, i))
        return true;
    x = exec_row_handler(i->row);
    if (insn_rows[i->row].attr & A_D64) /* the stack */
        return true;
    return i->mem && x != x_lea && x != x_nop;
}

static void look_ahead(struct tr *t)
{
    t->clobber_ahead[t->count] = false;
    for (unsigned k = t->count; k-- > 0;) {
        const struct insn *i = &t->tb->insn[k];
        bool all = i->row != UINT16_MAX && insn_rows[i->row].flags_w == OSZAPC && !insn_rows[i->row].flags_r;
        t->clobber_ahead[k] = clobbers(t, i) || (!all && t->clobber_ahead[k + 1]);
    }
}

void build_emit(struct tr *t)
{
    const struct insn *i = &t->tb->insn[t->n];
    emit_fn *emit = emitter_of(t, i);

    t->i = i;
    t->at = t->tb->insn_at[t->n];
    t->next = (uint16_t)(t->at + i->len);
    t->slow = NULL;
    if (!emit || !emit(t, i))
        emit_interp(t, i);
    if (t->slow) {
        t->slow->back = t->ended ? NULL : emit_here(t);
        t->slow->after = t->f;
    }
    hold_next(t);
}

/* Falls out of the block at page offset t->next. */
static void emit_end(struct tr *t)
{
    if (t->next < PAGE_SIZE)
        emit_exit(t, CC_NONE, t->next);
    else
        emit_exit_far(t, t->next);
}

static void emit_hot(struct tr *t)
{
    for (t->n = 0; t->n < t->count && !t->ended && !t->as.full && !t->give_up; t->n++) {
        t->i = &t->tb->insn[t->n];
        t->at = t->tb->insn_at[t->n];
        t->next = (uint16_t)(t->at + t->i->len);
        t->tb->insns++;
        unsigned to = followed(t->i, t->next);
        if (to && build_native(t, t->i))
            t->next = (uint16_t)to;
        else
            build_emit(t);
    }
    if (!t->ended)
        emit_end(t);
}

static void emit_colds(struct tr *t)
{
    for (unsigned k = 0; k < t->n_cold && !t->as.full; k++)
        t->cold[k].emit(t, &t->cold[k]);
}

/* In front of the body, up to it: the entry for flags that are where the body does not want them. */
static void emit_entries(struct tr *t, uint8_t *body)
{
    uint8_t other[ENTRY_BYTES];
    struct as a = { .p = other, .end = other + sizeof(other) };
    struct as_mem flags_ax = AS_GS(offsetof(struct cpu, flags_ax));
    size_t converts = 0, both = 0; /* bytes of the conversion, of what both entries do */

    if (t->entry.mem) {
        as_lahf_seto(&a);
        as_store(&a, 2, flags_ax, R_AX);
    } else if (t->entry.host) {
        as_load(&a, 2, R_AX, flags_ax);
        as_sahf_from_ax(&a);
    }
    converts = (size_t)(a.p - other);
    if (t->loop.replay)
        as_store_imm32(&a, 1, AS_GS(offsetof(struct cpu, tx_looped)), 0);
    both = (size_t)(a.p - other) - converts;
    memcpy(body - converts - both, other, converts + both);
    t->tb->entry_mem = t->tb->entry_host = body - both + t->as.to_rx;
    *(t->entry.mem ? &t->tb->entry_host : &t->tb->entry_mem) -= converts;
}

/* Cold code has its own place, so that the caches of the host hold hot code only. */
static void go_on_at(struct tr *t, const struct as *where)
{
    t->as.p = where->p;
    t->as.end = where->end;
}

static bool emit_all(struct tr *t, const struct as *cold)
{
    uint8_t *start = t->as.p;

    t->tb->code = start + t->as.to_rx;
    as_nop(&t->as, ENTRY_BYTES);
    uint8_t *body = t->as.p;
    t->body = emit_here(t);
    look_ahead(t);
    emit_hot(t);
    t->tb->code_bytes = (uint32_t)(t->as.p - start);
    go_on_at(t, cold);
    emit_colds(t);
    t->tb->cold_bytes = (uint32_t)(t->as.p - cold->p);
    if (t->as.full || t->give_up)
        return false;
    emit_entries(t, body);
    return true;
}

static void describe(struct tb *tb, const struct decoded *d, unsigned count)
{
    tb->first = (uint16_t)d->first;
    tb->end = (uint16_t)d->end;
    tb->granules = d->granules;
    tb->exits = 0;
    tb->insns = 0;
    memcpy(tb->insn, d->insn, count * sizeof(*tb->insn));
    memcpy(tb->insn_at, d->at, count * sizeof(*tb->insn_at));
}

/* `count` instructions of those decoded. 0; -ENOSPC: not enough room; -E2BIG: too much of something else; -EINVAL: not
 * with holds. */
static int try_build(struct cpu *c, struct tb *tb, const struct decoded *d, unsigned count, const struct thunks *thunk,
                     struct as hot, const struct as *cold, bool no_hold)
{
    struct tr *t = calloc(1, sizeof(*t));
    int err = 0;

    if (!t)
        return -ENOSPC;
    describe(tb, d, count);
    t->no_hold = no_hold;
    t->no_loop = translate_how(c) == CPU_TRANSLATE_LOCKSTEP;
    t->as = hot;
    t->c = c;
    t->tb = tb;
    t->thunk = thunk;
    t->mode = tb->mode;
    t->mode64 = tb->mode & MODE_CODE64;
    t->count = count;
    t->f = t->entry = (struct flags){ .unknown = true };
    if (!emit_all(t, cold))
        err = t->no_hold && !no_hold ? -EINVAL : t->give_up ? -E2BIG : -ENOSPC;
    free(t);
    return err;
}

int build_block(struct cpu *c, struct tb *tb, uint64_t gpa, const uint8_t *page, const struct thunks *thunk,
                struct as hot, struct as cold)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct decoded *d = calloc(1, sizeof(*d));
    bool roomy = hot.end - hot.p >= (ptrdiff_t)BUILD_HOT_ROOM && cold.end - cold.p >= (ptrdiff_t)BUILD_COLD_ROOM;
    int err;

    pthread_once(&once, index_emitters);
    if (!d)
        return -ENOSPC;
    decode(c, d, gpa & PAGE_MASK, page, gpa & (PAGE_SIZE - 1), TB_MAX_INSNS);
    err = d->count ? -E2BIG : -EAGAIN;
    /* What is too much is cut: `granules` may then name more than was used, which is harmless. */
    for (unsigned count = d->count; count > 0 && err && (err == -E2BIG || roomy); count /= 2) {
        err = try_build(c, tb, d, count, thunk, hot, &cold, false);
        if (err == -EINVAL)
            err = try_build(c, tb, d, count, thunk, hot, &cold, true);
    }
    free(d);
    return err == -E2BIG ? -ENOSPC : err;
}
