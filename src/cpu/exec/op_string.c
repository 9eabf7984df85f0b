/* SPDX-License-Identifier: GPL-2.0-or-later */
/* String instructions. A repeated one proceeds by runs of elements that lie in one page of plain RAM, or by
 * single elements; registers are exact after each run, so a fault or an interrupt finds them right.
 *
 * Spec      Intel SDM volume 1, 7.3.9; volume 2, REP.
 * Trust     The count is the guest's: events are looked at after every run.
 */
#include "cpu/exec/alu.h"
#include "cpu/exec/handlers.h"
#include "cpu/exec/operand.h"

enum { RAX = 0, RCX = 1, RSI = 6, RDI = 7 };

/* One string operation: does up to `n` (at least 1) elements and says how many. 0 or X_FAULT. */
typedef int string_fn(struct cpu *c, const struct insn *i, uint64_t n, uint64_t *ret_done, bool *ret_stop);

static uint64_t str_reg(const struct cpu *c, const struct insn *i, unsigned reg)
{
    return c->gpr[reg] & size_mask(i->adsize);
}

static void str_advance(struct cpu *c, const struct insn *i, unsigned reg, uint64_t n)
{
    uint64_t bytes = n * i->opsize;

    reg_set(c, reg, i->adsize, c->flags_sys & FLAG_DF ? c->gpr[reg] - bytes : c->gpr[reg] + bytes);
}

static int str_linear(struct cpu *c, const struct insn *i, unsigned reg, bool write, uint64_t *ret)
{
    return exec_linear_at(c, reg == RDI ? SEG_ES : i->seg, str_reg(c, i, reg), i->opsize, write, ret);
}

/* Host address of the lowest of `*n` elements from `reg` on in the current direction; *n shrinks to what
 * lies in the page. NULL: take a single element through read and write. 0 or X_FAULT. */
static int str_host(struct cpu *c, const struct insn *i, unsigned reg, enum mmu_access access,
                    uint64_t *n, uint8_t **ret_host)
{
    bool flat = c->mode & MODE_CODE64 ? i->adsize == 8
                                      : (c->mode & MODE_FLAT) && i->adsize == 4 &&
                                            (reg == RDI || i->seg < SEG_FS);
    bool down = c->flags_sys & FLAG_DF;
    uint64_t lin, off, room;

    *ret_host = NULL;
    if (!flat || *n < 2 || (c->mode & MODE_AC))
        return 0;
    if (str_linear(c, i, reg, access == ACCESS_WRITE, &lin))
        return X_FAULT;
    off = lin & (PAGE_SIZE - 1);
    if (off + i->opsize > PAGE_SIZE)
        return 0;
    room = down ? off / i->opsize + 1 : (PAGE_SIZE - off) / i->opsize;
    *n = min_u64(*n, room);
    if (down)
        lin -= (*n - 1) * i->opsize;
    if (mmu_host(c, lin, (unsigned)*n * i->opsize, access, ret_host))
        *ret_host = NULL; /* the single element faults, at its own address */
    return 0;
}

static int str_load(struct cpu *c, const struct insn *i, unsigned reg, uint64_t *ret)
{
    uint64_t lin;

    if (str_linear(c, i, reg, false, &lin))
        return X_FAULT;
    return op_load(c, lin, i->opsize, ret);
}

static int str_store(struct cpu *c, const struct insn *i, uint64_t v)
{
    uint64_t lin;

    if (str_linear(c, i, RDI, true, &lin))
        return X_FAULT;
    return op_store(c, lin, i->opsize, v);
}

/* Repeats `fn` as the prefix says, until it stops by itself (ZF) or the count is 0. */
static int str_run(struct cpu *c, const struct insn *i, string_fn *fn)
{
    uint64_t done = 0, count;
    bool stop = false;

    if (!i->rep && !i->repne)
        return fn(c, i, 1, &done, &stop);
    while ((count = str_reg(c, i, RCX)) != 0) {
        if (fn(c, i, c->mode & MODE_TF ? 1 : count, &done, &stop))
            return X_FAULT;
        count -= done;
        reg_set(c, RCX, i->adsize, count);
        if (stop)
            return X_NEXT;
        if (count && (c->mode & MODE_TF || atomic_load_explicit(&c->events, memory_order_relaxed)))
            return X_AGAIN;
    }
    return X_NEXT;
}

/* --- movs --- */

static void copy_elements(uint8_t *dst, const uint8_t *src, uint64_t n, unsigned size, bool down)
{
    int64_t step = down ? -(int64_t)size : (int64_t)size;

    if (down) {
        dst += (n - 1) * size;
        src += (n - 1) * size;
    }
    for (; n; n--, dst += step, src += step) {
        uint64_t v = 0;
        memcpy(&v, src, size);
        memcpy(dst, &v, size);
    }
}

/* Upward, `gap` bytes of whole elements ahead of the source: they repeat, so that what is there can be doubled. */
static void repeat_pattern(uint8_t *dst, const uint8_t *src, uint64_t len, uint64_t gap)
{
    for (uint64_t done = 0; done < len;) {
        uint64_t chunk = min_u64(len - done, gap + done);
        memcpy(dst + done, src, chunk);
        done += chunk;
    }
}

/* Like the processor: an overlap in the way of the copy repeats the source. */
static void copy_run(uint8_t *dst, const uint8_t *src, uint64_t n, unsigned size, bool down)
{
    uint64_t len = n * size, gap = (uint64_t)(dst - src);
    bool overlap = down ? dst < src && src < dst + len : src < dst && dst < src + len;

    if (!overlap)
        memmove(dst, src, len);
    else if (!down && gap % size == 0)
        repeat_pattern(dst, src, len, gap);
    else
        copy_elements(dst, src, n, size, down);
}

static int movs_some(struct cpu *c, const struct insn *i, uint64_t n, uint64_t *ret_done, bool *ret_stop)
{
    uint8_t *src, *dst = NULL;
    uint64_t v, dst_n;

    if (str_host(c, i, RSI, ACCESS_READ, &n, &src))
        return X_FAULT;
    dst_n = n;
    if (src && str_host(c, i, RDI, ACCESS_WRITE, &dst_n, &dst))
        return X_FAULT;
    if (dst) {
        /* Fewer elements fit there: going down, the source's run then starts later. */
        if (c->flags_sys & FLAG_DF)
            src += (n - dst_n) * i->opsize;
        n = dst_n;
        copy_run(dst, src, n, i->opsize, c->flags_sys & FLAG_DF);
    } else {
        n = 1;
        if (str_load(c, i, RSI, &v) || str_store(c, i, v))
            return X_FAULT;
    }
    str_advance(c, i, RSI, n);
    str_advance(c, i, RDI, n);
    *ret_done = n;
    return X_NEXT;
}

int x_movs(struct cpu *c, const struct insn *i)
{
    return str_run(c, i, movs_some);
}

/* --- stos --- */

static void fill_run(uint8_t *dst, uint64_t v, uint64_t n, unsigned size)
{
    switch (size) {
    case 1:
        memset(dst, (uint8_t)v, n);
        break;
    case 2:
        __asm__ volatile("rep stosw" : "+D"(dst), "+c"(n) : "a"(v) : "memory");
        break;
    case 4:
        __asm__ volatile("rep stosl" : "+D"(dst), "+c"(n) : "a"(v) : "memory");
        break;
    default:
        __asm__ volatile("rep stosq" : "+D"(dst), "+c"(n) : "a"(v) : "memory");
    }
}

static int stos_some(struct cpu *c, const struct insn *i, uint64_t n, uint64_t *ret_done, bool *ret_stop)
{
    uint8_t *dst;

    if (str_host(c, i, RDI, ACCESS_WRITE, &n, &dst))
        return X_FAULT;
    if (dst) {
        fill_run(dst, c->gpr[RAX], n, i->opsize);
    } else {
        n = 1;
        if (str_store(c, i, c->gpr[RAX] & size_mask(i->opsize)))
            return X_FAULT;
    }
    str_advance(c, i, RDI, n);
    *ret_done = n;
    return X_NEXT;
}

int x_stos(struct cpu *c, const struct insn *i)
{
    return str_run(c, i, stos_some);
}

/* --- lods --- */

static int lods_some(struct cpu *c, const struct insn *i, uint64_t n, uint64_t *ret_done, bool *ret_stop)
{
    uint64_t v;

    if (str_load(c, i, RSI, &v))
        return X_FAULT;
    op_reg_set(c, i, RAX, i->opsize, v);
    str_advance(c, i, RSI, 1);
    *ret_done = 1;
    return X_NEXT;
}

int x_lods(struct cpu *c, const struct insn *i)
{
    return str_run(c, i, lods_some);
}

/* --- scas, cmps --- */

static uint64_t element(const uint8_t *run, uint64_t n, uint64_t k, unsigned size, bool down)
{
    uint64_t v = 0;

    memcpy(&v, run + (down ? n - 1 - k : k) * size, size);
    return v;
}

/* Flags of the last comparison; whether the prefix ends the repetition there. */
static bool compare_done(struct cpu *c, const struct insn *i, uint64_t a, uint64_t b)
{
    alu_cmp(i->opsize, a, b, &c->flags_ax);
    return i->rep ? a != b : a == b;
}

static int scas_some(struct cpu *c, const struct insn *i, uint64_t n, uint64_t *ret_done, bool *ret_stop)
{
    uint64_t a = c->gpr[RAX] & size_mask(i->opsize), b, k = 0;
    bool down = c->flags_sys & FLAG_DF;
    uint8_t *run;

    if (str_host(c, i, RDI, ACCESS_READ, &n, &run))
        return X_FAULT;
    if (run) {
        do
            b = element(run, n, k++, i->opsize, down);
        while (k < n && (i->rep ? a == b : a != b));
    } else {
        k = 1;
        if (str_load(c, i, RDI, &b))
            return X_FAULT;
    }
    *ret_stop = compare_done(c, i, a, b);
    str_advance(c, i, RDI, k);
    *ret_done = k;
    return X_NEXT;
}

int x_scas(struct cpu *c, const struct insn *i)
{
    return str_run(c, i, scas_some);
}

static int cmps_some(struct cpu *c, const struct insn *i, uint64_t n, uint64_t *ret_done, bool *ret_stop)
{
    bool down = c->flags_sys & FLAG_DF;
    uint64_t a, b, k = 0, n2;
    uint8_t *src, *dst = NULL;

    if (str_host(c, i, RSI, ACCESS_READ, &n, &src))
        return X_FAULT;
    n2 = n;
    if (src && str_host(c, i, RDI, ACCESS_READ, &n2, &dst))
        return X_FAULT;
    if (dst) {
        do {
            a = element(src, n, k, i->opsize, down);
            b = element(dst, n2, k++, i->opsize, down);
        } while (k < n2 && (i->rep ? a == b : a != b));
    } else {
        k = 1;
        if (str_load(c, i, RSI, &a) || str_load(c, i, RDI, &b))
            return X_FAULT;
    }
    *ret_stop = compare_done(c, i, a, b);
    str_advance(c, i, RSI, k);
    str_advance(c, i, RDI, k);
    *ret_done = k;
    return X_NEXT;
}

int x_cmps(struct cpu *c, const struct insn *i)
{
    return str_run(c, i, cmps_some);
}
