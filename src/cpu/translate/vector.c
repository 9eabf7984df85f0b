/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a block knows of live vector and x87 registers. Contract in vector.h.
 *
 * Thread    The one that builds the block.
 */
#include "cpu/translate/vector.h"

#define PARKED AS_GS(offsetof(struct cpu, vec_parked))
#define YMM_HIGH_PARKED AS_GS(offsetof(struct cpu, ymm_parked))

static const uint8_t *load_thunk(const struct tr *t, enum vec_live level)
{
    return level == VEC_YMM ? t->thunk->ymm_load : t->thunk->vec_load;
}

/* Host flags that nobody needs from here on, or that are found elsewhere. */
static bool flags_are_spare(const struct tr *t)
{
    return !t->f.host || t->f.mem || t->f.replay != REPLAY_NONE;
}

static struct cold *cold_new(struct tr *t, void (*emit)(struct tr *t, struct cold *k))
{
    if (t->n_cold == TB_MAX_COLD) {
        t->give_up = true;
        return NULL;
    }
    struct cold *k = &t->cold[t->n_cold++];
    *k = (struct cold){ .emit = emit, .insn = (uint8_t)t->n, .vec = t->vec, .x87 = t->x87 };
    return k;
}

static void cold_from(struct cold *k, struct as_fix f)
{
    k->from[k->n_from++] = f;
}

static void arrive(struct tr *t, struct cold *k)
{
    for (unsigned n = 0; n < k->n_from; n++)
        as_fix_here(&t->as, k->from[n]);
}

/* vec: the level to load; x87: as it was known before. */
static void emit_cold_vec_load(struct tr *t, struct cold *k)
{
    arrive(t, k);
    as_call_to(&t->as, load_thunk(t, k->vec));
    as_jmp_to(&t->as, k->back);
}

void emit_vec_live(struct tr *t, enum vec_live level)
{
    struct as_mem m = level == VEC_YMM ? YMM_HIGH_PARKED : PARKED;

    if (t->vec >= level)
        return;
    if (flags_are_spare(t)) {
        flags_clobber(t);
        as_alu_mi(&t->as, AS_CMP, 8, m, 0);
        struct cold *k = cold_new(t, emit_cold_vec_load);
        if (!k)
            return;
        cold_from(k, as_jcc(&t->as, CC_NE, true));
        k->vec = (uint8_t)level;
        k->back = t->as.p + t->as.to_rx;
    } else {
        as_load(&t->as, 8, R_S1, m);
        struct as_fix live = as_jrcxz(&t->as);
        bool ax_used = t->as.ax_used; /* the thunk keeps it */
        as_call_to(&t->as, load_thunk(t, level));
        t->as.ax_used = ax_used;
        as_fix_here(&t->as, live);
    }
    t->vec = (uint8_t)level;
}

static void emit_cold_x87_load(struct tr *t, struct cold *k)
{
    arrive(t, k);
    as_call_to(&t->as, t->thunk->x87_load);
    if (k->vec)
        as_call_to(&t->as, load_thunk(t, k->vec));
    as_jmp_to(&t->as, k->back);
}

void emit_x87_live(struct tr *t)
{
    if (t->x87)
        return;
    flags_clobber(t);
    as_alu_mi(&t->as, AS_CMP, 1, AS_GS(offsetof(struct cpu, fpu_live)), 0);
    struct cold *k = cold_new(t, emit_cold_x87_load);
    if (!k)
        return;
    cold_from(k, as_jcc(&t->as, CC_E, true));
    k->back = t->as.p + t->as.to_rx;
    t->x87 = true;
}

void emit_live_again(struct tr *t, const struct cold *k)
{
    if (k->x87)
        as_call_to(&t->as, t->thunk->x87_load);
    if (k->vec)
        as_call_to(&t->as, load_thunk(t, k->vec));
}

void emit_block_end(struct tr *t)
{
    if (t->next < PAGE_SIZE)
        emit_exit(t, CC_NONE, t->next);
    else
        emit_exit_far(t, t->next);
    t->ended = true;
}
