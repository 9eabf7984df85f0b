/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The dispatcher: finds the block at c->rip, has it made once it is worth it, runs it; interprets everything else.
 *
 * Thread    The vCPU's own.
 * Trust     Guest code decides how often what is translated: memory is bounded by the cache, time by the guest's own.
 */
#include "cpu/exec/run.h"
#include "cpu/exec/trace.h"
#include "cpu/translate/cache.h"
#include "cpu/translate/emit.h"
#include "cpu/translate/lockstep.h"

#include <asm/prctl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Interpreted runs of a block before it is translated. */
#define RUNS_BEFORE 3

#ifndef HWCAP2_FSGSBASE
#define HWCAP2_FSGSBASE (1 << 1)
#endif

/* --- GS --- */

/* The vCPU whose address this thread's GS.base holds. No other code here uses GS. */
static __thread struct cpu *gs_cpu;

static void set_gs(struct cpu *c)
{
    if (likely(gs_cpu == c))
        return;
    if (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE)
        __asm__ volatile("wrgsbase %0" : : "r"(c));
    else
        syscall(SYS_arch_prctl, ARCH_SET_GS, (unsigned long)c);
    gs_cpu = c;
}

/* --- modes --- */

bool translate_wanted(const struct cpu *c)
{
    uint32_t flat32 = MODE_CODE32 | MODE_SS32 | MODE_FLAT;

    if (c->mode & (MODE_TF | MODE_AC | MODE_REAL))
        return false;
    return c->mode & MODE_CODE64 || (c->mode & flat32) == flat32;
}

static bool event_due(struct cpu *c)
{
    return exec_events(c) || !atomic_load_explicit(&c->run_ok, memory_order_relaxed) || exec_irq_deliverable(c);
}

static bool epoch_moved(struct cpu *c)
{
    return atomic_load_explicit(&c->shared->translate->epoch, memory_order_relaxed) !=
           atomic_load_explicit(&c->tx->epoch, memory_order_relaxed);
}

/* --- calls out of translated code --- */

/* A handler has jumped. Sees to it that thunk jump finds the block, if there is one, without leaving. */
static uint64_t follow(struct cpu *c)
{
    struct translate *t = c->shared->translate;
    const struct tlb_code *e = tlb_code_at(c, c->rip);

    c->code_changed = false; /* the block that it was about is left */
    if (mmu_jc_at(c, c->rip)->rip == c->rip)
        return TX_GO_JUMP;
    if (e->tag != (c->rip & PAGE_MASK) || !e->host || t->how == CPU_TRANSLATE_LOCKSTEP || epoch_moved(c))
        return TX_LOOKUP;
    struct tb *tb = cache_find(t, e->gpa | (c->rip & (PAGE_SIZE - 1)), c->mode);
    if (!tb || !tb->code)
        return TX_LOOKUP;
    mmu_jc_put(c, c->rip, tb);
    return TX_GO_JUMP; /* and events are looked at there: cache.c, 3 */
}

static void count_call(struct cpu *c, const struct insn *i, uint64_t slow)
{
    struct tx_row_stats *row = &c->tx->row[i->row == UINT16_MAX ? insn_row_count : i->row];

    if (slow) {
        row->slow++;
        c->stats.tx_slow++;
    } else {
        row->no_emitter++;
        c->stats.tx_calls++;
    }
}

/* Behind thunks interp and slow: c->rip and all registers are in memory. */
static uint64_t call_handler(struct cpu *c, const struct insn *i, uint64_t slow)
{
    uint32_t mode = c->mode;
    uint64_t epoch = c->map_epoch;

    count_call(c, i, slow);
    int st = i->fn(c, i);
    if (st == X_NEXT) {
        if (likely(!c->int_shadow && !exec_irq_deliverable(c) && !c->code_changed && c->mode == mode &&
                   c->map_epoch == epoch))
            return TX_GO_ON;
        exec_advance_rip(c, i->len);
        st = X_JUMP;
    }
    if (st == X_JUMP)
        return !c->int_shadow && !exec_irq_deliverable(c) && translate_wanted(c) ? follow(c) : TX_EVENT;
    c->tx_status = (uint32_t)st;
    return TX_STATUS;
}

/* --- making blocks --- */

static void lay_out(struct cpu *c, struct tb *tb, uint64_t gpa)
{
    struct tx_chunk *k = &c->tx->chunk;

    *tb = (struct tb){ .gpa = gpa, .mode = c->mode, .entry_mem = c->shared->translate->thunk.dead };
    tb->entry_host = tb->entry_mem;
    tb->exit = (struct tb_exit *)(tb + 1);
    tb->insn_at = (uint16_t *)(tb->exit + TB_MAX_EXITS);
    tb->insn = k->insn;
}

/* Has the block at gpa built in the vCPU's chunk. 0 or build_block()'s error. */
static int build(struct cpu *c, uint64_t gpa, const uint8_t *page, struct tb **ret)
{
    struct translate *t = c->shared->translate;
    int err = -ENOSPC;

    for (unsigned attempt = 0; attempt < 2 && err == -ENOSPC; attempt++) {
        if (!cache_room(c, attempt > 0))
            return -ENOMEM;
        struct tx_chunk *k = &c->tx->chunk;
        struct as hot = { .p = k->hot, .end = k->hot_end, .to_rx = t->code.rx - t->code.rw };
        struct as cold = { .p = k->cold, .end = k->cold_end, .to_rx = hot.to_rx };
        *ret = (struct tb *)k->meta;
        lay_out(c, *ret, gpa);
        (*ret)->cold = code_rx(&t->code, k->cold);
        err = build_block(c, *ret, gpa, page, &t->thunk, hot, cold);
        if (err == -EAGAIN && t->how == CPU_TRANSLATE_ON) {
            lay_out(c, *ret, gpa);
            err = cross_build(c, *ret, gpa, page, &t->thunk, hot);
        }
    }
    return err;
}

/* A block that says: interpret what is here. It has no code, and dies like others when the guest's changes. */
static void make_hollow(struct cpu *c, struct tb *tb, uint64_t gpa)
{
    uint64_t off = gpa & (PAGE_SIZE - 1), len = min_u64(PAGE_SIZE - off, INSN_MAX_LEN);

    lay_out(c, tb, gpa);
    tb->granules = mmu_granules(off, len);
    tb->first = (uint16_t)off;
    tb->end = (uint16_t)(off + len);
    mmu_mark_code(c, gpa, (unsigned)len);
}

static void trace_translated(const struct cpu *c, const struct tb *tb)
{
    log_debug("%u: translated %u instructions at %" PRIx64 ", physical %" PRIx64 ", mode %x: %u bytes", c->index,
              tb->insns, c->rip, tb->gpa, tb->mode, tb->code_bytes);
}

static void count_made(struct cpu *c, const struct tb *tb)
{
    if (!tb->code) {
        c->stats.tx_hollow++;
        return;
    }
    c->stats.tx_blocks++;
    c->stats.tx_instructions += tb->insns;
    c->stats.tx_code_bytes += tb->code_bytes;
    c->stats.tx_cold_bytes += tb->cold_bytes;
}

/* Code that is overwritten again and again is not worth much work. */
static unsigned runs_needed(struct translate *t, uint64_t gpa, uint32_t mode)
{
    unsigned patience = __atomic_load_n(tx_patience(t, gpa, mode), __ATOMIC_RELAXED);
    return (unsigned)min_u64((uint64_t)t->runs_before << patience, UINT8_MAX);
}

/* Makes the block at gpa if it has been interpreted often enough. NULL: interpret. */
static struct tb *make(struct cpu *c, uint64_t gpa, const uint8_t *page)
{
    struct translate *t = c->shared->translate;
    struct translate_cpu *x = c->tx;
    uint8_t *runs = &x->runs[tx_hash(gpa, c->mode) % ARRAY_COUNT(x->runs)];
    struct tx_snapshot at = { .map_seq = x->map_seq, .page_seq = atomic_load(tx_page_seq(t, gpa)) };
    struct tb *tb, *ret;

    if (++*runs < runs_needed(t, gpa, c->mode))
        return NULL;
    *runs = 0;
    int err = build(c, gpa, page, &tb);
    if (err == -ENOMEM)
        return NULL;
    if (err)
        make_hollow(c, tb, gpa);
    if (!cache_insert(c, tb, at, &ret))
        return NULL;
    count_made(c, ret);
    if (log_on(LOG_IN_ASM) && !err)
        trace_translated(c, ret);
    return ret;
}

/* --- running --- */

/* The block at c->rip. 0; X_FAULT (fetch); *ret NULL: interpret. */
static int find(struct cpu *c, struct tb **ret)
{
    const uint8_t *page;
    uint64_t gpa;

    *ret = NULL;
    if (unlikely(exec_canonical(c->rip) != c->rip))
        return cpu_raise_error(c, EXC_GP, 0);
    if (mmu_fetch_page(c, c->rip, &gpa, &page))
        return X_FAULT;
    if (unlikely(!page))
        return 0;
    gpa |= c->rip & (PAGE_SIZE - 1);
    *ret = cache_find(c->shared->translate, gpa, c->mode);
    if (!*ret)
        *ret = make(c, gpa, page);
    if (*ret && !(*ret)->code)
        *ret = NULL;
    return 0;
}

static uint64_t enter(struct cpu *c, const struct tb *tb)
{
    c->rip_page = c->rip & PAGE_MASK;
    c->code_changed = false;
    return c->shared->translate->thunk.enter(c, __atomic_load_n(&tb->entry_mem, __ATOMIC_ACQUIRE));
}

/* X_JUMP, or how it ended. */
static int enter_in_lockstep(struct cpu *c, struct tb *tb)
{
    struct lockstep *l = c->tx->lockstep;
    bool compare = lockstep_before(c, l, tb);

    if (compare && event_due(c)) /* it took its time */
        return X_AGAIN;
    uint64_t answer = enter(c, tb);
    if (compare && !lockstep_after(c, l, tb, answer)) {
        c->exit_reason = CPU_EXIT_ERROR;
        return X_EXIT;
    }
    return answer == TX_STATUS ? (int)c->tx_status : X_JUMP;
}

static void count_answer(struct cpu *c, uint64_t answer)
{
    c->stats.tx_entries++;
    if (TX_IS_LINK(answer))
        c->stats.tx_exits++;
    else if (answer == TX_LOOKUP)
        c->stats.tx_lookups++;
    else if (answer == TX_EVENT)
        c->stats.tx_events++;
    else
        c->stats.tx_statuses++;
}

/* Into the block; `*want`: an exit that led here, then the one that leads on. X_JUMP, or how it ended. */
static int enter_block(struct cpu *c, struct tb *tb, struct tb_exit **want)
{
    struct translate *t = c->shared->translate;

    if (unlikely(t->how == CPU_TRANSLATE_LOCKSTEP))
        return enter_in_lockstep(c, tb);
    if (*want) {
        cache_link(t, *want, tb);
        c->stats.tx_links++;
    } else {
        mmu_jc_put(c, c->rip, tb);
    }
    if (unlikely(event_due(c))) /* cache.c, 3 */
        return X_AGAIN;
    uint64_t answer = enter(c, tb);
    count_answer(c, answer);
    *want = TX_IS_LINK(answer) ? (struct tb_exit *)(uintptr_t)answer : NULL;
    return answer == TX_STATUS ? (int)c->tx_status : X_JUMP;
}

/* `once`: returns after the first block, X_JUMP then. */
static int dispatch(struct cpu *c, bool once)
{
    struct translate *t = c->shared->translate;
    struct tb_exit *want = NULL; /* to be linked to the block that is looked up next */
    struct tb *tb;
    int st;

    do {
        if (unlikely(epoch_moved(c))) {
            cache_safe_point(c);
            want = NULL;
        }
        c->tx->map_seq = atomic_load(&t->map_seq);
        if (unlikely(event_due(c) || c->int_shadow || !translate_wanted(c)))
            return X_AGAIN;
        st = find(c, &tb);
        if (unlikely(st))
            return st;
        if (tb) {
            st = enter_block(c, tb, &want);
        } else {
            c->stats.tx_interpreted++;
            st = exec_one_block(c);
            want = NULL;
        }
    } while (st == X_JUMP && !once);
    return st;
}

int translate_run(struct cpu *c)
{
    set_gs(c);
    int st = dispatch(c, false);
    cache_quiet(c);
    return st;
}

int translate_one(struct cpu *c)
{
    set_gs(c);
    int st = dispatch(c, true);
    cache_quiet(c);
    return st;
}

/* --- life --- */

/* Blocks without locks die. */
static void restore_locks(void *opaque)
{
    struct cpu_shared *s = opaque;

    atomic_store(&s->translate->plain_locks, false);
    cpu_shared_flush_all(s);
}

/* One vCPU: between its instructions nothing runs, and devices of this process use no atomics on guest memory. */
static bool is_alone(const struct cpu_topology *t)
{
    return t->sockets * t->dies * t->cores * t->threads == 1;
}

int translate_shared_init(struct cpu_shared *s, enum cpu_translate how, uint64_t code_bytes)
{
    int err = 0;

    if (how == CPU_TRANSLATE_OFF)
        return 0;
    s->translate = cache_new(code_bytes, call_handler, &err);
    if (s->translate) {
        s->translate->how = how;
        s->translate->runs_before = RUNS_BEFORE;
        s->translate->relaxed = (struct fence_relaxed){ .restore = restore_locks, .opaque = s };
        s->translate->plain_locks = is_alone(&s->topology);
        if (s->translate->plain_locks && !fence_guest_relax(&s->translate->relaxed))
            s->translate->plain_locks = false;
    }
    return err;
}

bool translate_plain_locks(const struct cpu *c)
{
    return c->shared->translate && c->shared->translate->plain_locks;
}

enum cpu_translate translate_how(const struct cpu *c)
{
    return c->shared->translate ? c->shared->translate->how : CPU_TRANSLATE_OFF;
}

void translate_set_eager(struct cpu_shared *s)
{
    s->translate->runs_before = 0;
}

int cpu_shared_set_perf_map(struct cpu_shared *s)
{
    return s->translate ? perf_map_open(s->translate) : 0;
}

void translate_shared_done(struct cpu_shared *s)
{
    if (s->translate)
        fence_guest_unrelax(&s->translate->relaxed);
    cache_free(s->translate);
    s->translate = NULL;
}

int translate_init(struct cpu *c)
{
    struct translate *t = c->shared->translate;
    struct translate_cpu *x;

    if (!t)
        return 0;
    x = calloc(1, sizeof(*x));
    if (!x || !(x->row = calloc(insn_row_count + 1, sizeof(*x->row)))) {
        free(x);
        return -ENOMEM;
    }
    if (t->how == CPU_TRANSLATE_LOCKSTEP && !(x->lockstep = lockstep_new())) {
        free(x->row);
        free(x);
        return -ENOMEM;
    }
    atomic_store(&x->epoch, TX_QUIET);
    c->tx = x;
    pthread_mutex_lock(&t->lock);
    t->cpus[c->index] = c;
    pthread_mutex_unlock(&t->lock);
    return 0;
}

void translate_done(struct cpu *c)
{
    struct translate *t = c->shared->translate;

    if (!c->tx)
        return;
    pthread_mutex_lock(&t->lock);
    t->cpus[c->index] = NULL;
    pthread_mutex_unlock(&t->lock);
    lockstep_free(c->tx->lockstep);
    free(c->tx->row);
    free(c->tx);
    c->tx = NULL;
}

bool cpu_get_calls(const struct cpu *c, unsigned index, struct cpu_calls *ret)
{
    if (!c->tx || index > insn_row_count)
        return false;
    const struct tx_row_stats *row = &c->tx->row[index];
    *ret = (struct cpu_calls){ .mnemonic = index == insn_row_count ? "(bad)" : insn_rows[index].mnemonic,
                               .no_emitter = row->no_emitter, .slow = row->slow };
    return true;
}
