/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lockstep of interpreter and translated blocks. Contract in lockstep.h.
 *
 * Thread    The vCPU's own.
 */
#include "cpu/translate/lockstep.h"
#include "base/log.h"
#include "cpu/exec/run.h"
#include "cpu/fpu/fpu.h"
#include "cpu/mmu/record.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* What an instruction that is not alone may change. */
struct lockstep_state {
    uint64_t gpr[16], rip, cr2;
    uint16_t flags_ax;
    uint32_t flags_sys;
    struct cpu_fault fault;
    uint8_t int_shadow, dr6_pending;
    uint8_t xsave[1024];
};

struct lockstep {
    struct lockstep_state before, after; /* the interpreter's */
    int status;          /* X_JUMP, X_FAULT: how its run ended */
    unsigned ran;        /* instructions that it ran, the faulting one included */
    uint32_t undefined;  /* flags that they leave undefined */
    struct mmu_record record;
};

struct lockstep *lockstep_new(void)
{
    return calloc(1, sizeof(struct lockstep));
}

void lockstep_free(struct lockstep *l)
{
    free(l);
}

/* --- what is compared --- */

static bool reads_outside(const char *mnemonic)
{
    static const char *const names[] = { "rdtsc", "rdtscp", "rdrand", "rdseed", "rdpmc", "cpuid", "vmcall", "mwait",
                                         "monitor", "pause" };

    for (unsigned k = 0; k < ARRAY_COUNT(names); k++)
        if (!strcmp(mnemonic, names[k]))
            return true;
    return false;
}

bool lockstep_alone(enum cpu_translate how, const struct insn *i)
{
    if (how != CPU_TRANSLATE_LOCKSTEP || i->row == UINT16_MAX)
        return false;
    const struct insn_row *row = &insn_rows[i->row];
    return row->attr & (A_IO | A_PRIV | A_MODE) || reads_outside(row->mnemonic);
}

/* A branch to the instruction behind it: which way it went does not show. */
static bool is_ambiguous(const struct tb *tb)
{
    for (unsigned k = 0; k < tb->insns; k++)
        if (tb->insn[k].row != UINT16_MAX && insn_rows[tb->insn[k].row].attr & A_END && !tb->insn[k].imm)
            return true;
    return false;
}

static bool is_due(struct tb *tb)
{
    uint32_t n = tb->compared++;

    if (n >= LOCKSTEP_FIRST && n % LOCKSTEP_THEN)
        return false;
    return !lockstep_alone(CPU_TRANSLATE_LOCKSTEP, &tb->insn[0]);
}

/* --- state --- */

static void state_save(struct cpu *c, struct lockstep_state *s)
{
    fpu_park(c);
    memcpy(s->gpr, c->gpr, sizeof(s->gpr));
    memcpy(s->xsave, c->xsave, sizeof(s->xsave));
    s->rip = c->rip;
    s->cr2 = c->cr2;
    s->flags_ax = c->flags_ax;
    s->flags_sys = c->flags_sys;
    s->fault = c->fault;
    s->int_shadow = c->int_shadow;
    s->dr6_pending = c->dr6_pending;
}

static void state_restore(struct cpu *c, const struct lockstep_state *s)
{
    fpu_park(c);
    memcpy(c->gpr, s->gpr, sizeof(s->gpr));
    memcpy(c->xsave, s->xsave, sizeof(s->xsave));
    c->rip = s->rip;
    c->cr2 = s->cr2;
    c->flags_ax = s->flags_ax;
    c->flags_sys = s->flags_sys;
    c->fault = s->fault;
    c->int_shadow = s->int_shadow;
    c->dr6_pending = s->dr6_pending;
    cpu_update_mode(c);
}

/* --- the interpreter's run --- */

static void interpret(struct cpu *c, struct lockstep *l, const struct tb *tb)
{
    uint64_t page = c->rip & PAGE_MASK;

    l->status = X_JUMP;
    while (l->ran < tb->insns && c->rip == page + tb->insn_at[l->ran] && l->status == X_JUMP) {
        const struct insn *i = &tb->insn[l->ran++];
        c->tlb_cur = c->tlb[TLB_BANK_NONE];
        l->status = exec_single(c);
        if (i->row != UINT16_MAX)
            l->undefined |= insn_rows[i->row].flags_u;
    }
}

bool lockstep_before(struct cpu *c, struct lockstep *l, struct tb *tb)
{
    if (!is_due(tb) || is_ambiguous(tb))
        return false;
    state_save(c, &l->before);
    l->record.count = l->record.used = 0;
    l->undefined = l->ran = 0;
    c->record = &l->record;
    bool refused = setjmp(l->record.out);
    if (!refused)
        interpret(c, l, tb);
    c->record = NULL;
    state_save(c, &l->after);
    mmu_record_undo(&l->record);
    state_restore(c, &l->before);
    return !refused && (l->status == X_JUMP || l->status == X_FAULT);
}

/* --- comparing --- */

/* The pointers to the last x87 instruction and the header are not compared: some hosts keep them only with an exception
 * pending. */
static bool same_vectors(const uint8_t *a, const uint8_t *b)
{
    return !memcmp(a, b, XS_FOP) && !memcmp(a + XS_MXCSR, b + XS_MXCSR, 4) &&
           !memcmp(a + XS_ST, b + XS_ST, XS_XMM + 256 - XS_ST) && !memcmp(a + XS_YMM, b + XS_YMM, 256);
}

static bool same_fault(const struct cpu_fault *a, const struct cpu_fault *b)
{
    return a->vector == b->vector && a->has_error == b->has_error && (!a->has_error || a->error == b->error) &&
           (a->vector != EXC_PF || a->cr2 == b->cr2);
}

static const char *difference(const struct lockstep *l, const struct lockstep_state *now, int status)
{
    const struct lockstep_state *want = &l->after;
    uint32_t defined = OSZAPC & ~l->undefined;
    uint16_t mask = (uint16_t)((defined & ~FLAG_OF) << 8 | (defined & FLAG_OF) >> 11); /* as in cpu->flags_ax */

    if (status != l->status)
        return "how it ended";
    if (status == X_FAULT && !same_fault(&now->fault, &want->fault))
        return "the exception";
    if (now->rip != want->rip)
        return "RIP";
    if (memcmp(now->gpr, want->gpr, sizeof(now->gpr)))
        return "a general register";
    if ((now->flags_ax ^ want->flags_ax) & mask || now->flags_sys != want->flags_sys)
        return "the flags";
    if (!same_vectors(now->xsave, want->xsave))
        return "vector or x87 state";
    return mmu_record_differs(&l->record) ? "memory" : NULL;
}

static void log_state(const char *who, const struct lockstep_state *s, int status)
{
    log_error("%s: rip %016" PRIx64 " flags %04x %08x status %d vector %u error %x cr2 %" PRIx64, who, s->rip, s->flags_ax,
              s->flags_sys, status, s->fault.vector, s->fault.error, s->fault.cr2);
    for (unsigned k = 0; k < 16; k += 4)
        log_error("  r%-2u %016" PRIx64 " %016" PRIx64 " %016" PRIx64 " %016" PRIx64, k, s->gpr[k], s->gpr[k + 1],
                  s->gpr[k + 2], s->gpr[k + 3]);
    for (unsigned k = 0; k < 16; k++) {
        uint64_t v[4];
        memcpy(v, s->xsave + XS_XMM + 16 * k, 16);
        memcpy(v + 2, s->xsave + XS_YMM + 16 * k, 16);
        if (v[0] | v[1] | v[2] | v[3])
            log_error("  ymm%-2u %016" PRIx64 " %016" PRIx64 " %016" PRIx64 " %016" PRIx64, k, v[3], v[2], v[1], v[0]);
    }
}

static void report(struct cpu *c, const struct lockstep *l, const struct tb *tb, const struct lockstep_state *now,
                   int status, const char *what)
{
    uint64_t page = l->before.rip & PAGE_MASK;
    char text[128];

    snprintf(c->error, sizeof(c->error), "lockstep: the block at %" PRIx64 " (physical %" PRIx64 ") differs in %s",
             l->before.rip, tb->gpa, what);
    log_error("%s; mode %x, %u of %u instructions interpreted", c->error, tb->mode, l->ran, tb->insns);
    for (unsigned k = 0; k < tb->insns; k++)
        log_error("  %016" PRIx64 ": %s", page + tb->insn_at[k],
                  insn_disassemble(&tb->insn[k], page + tb->insn_at[k], text, sizeof(text)));
    log_state("before", &l->before, 0);
    log_state("interpreted", &l->after, l->status);
    log_state("translated", now, status);
}

/* A handler's call may end a translated run at an instruction inside the block, for an event or since the mapping
 * changed; the interpreter went on. */
static bool left_early(const struct lockstep *l, const struct tb *tb, const struct lockstep_state *now)
{
    uint64_t page = l->before.rip & PAGE_MASK;

    for (unsigned k = 1; k < tb->insns; k++)
        if (now->rip == page + tb->insn_at[k])
            return now->rip != l->after.rip;
    return false;
}

bool lockstep_after(struct cpu *c, struct lockstep *l, const struct tb *tb, uint64_t answer)
{
    int status = answer == TX_STATUS ? (int)c->tx_status : X_JUMP;
    struct lockstep_state now;

    if (status != X_JUMP && status != X_FAULT)
        return true;
    state_save(c, &now);
    if ((answer == TX_EVENT || answer == TX_LOOKUP) && left_early(l, tb, &now))
        return true;
    const char *what = difference(l, &now, status);
    if (!what || mmu_record_stale(&l->record))
        return true;
    report(c, l, tb, &now, status, what);
    return false;
}
