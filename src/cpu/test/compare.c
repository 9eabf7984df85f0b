/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compares the two sides, makes failures small, keeps them as text. */
#include "cpu/insn.h"
#include "cpu/test/oracle.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct report {
    char *text;
    size_t size, len;
    bool differs;
};

static void say(struct report *r, const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    if (r->len < r->size) {
        int n = vsnprintf(r->text + r->len, r->size - r->len, format, ap);
        r->len += n > 0 ? (size_t)n : 0;
    }
    va_end(ap);
    r->differs = true;
}

static void compare_u64(struct report *r, const char *name, uint64_t in, uint64_t native, uint64_t soft)
{
    if (native != soft)
        say(r, "  %-8s in %016" PRIx64 " native %016" PRIx64 " soft %016" PRIx64 "\n", name, in, native, soft);
}

static void compare_bytes(struct report *r, const char *name, unsigned n, const uint8_t *in,
                          const uint8_t *native, const uint8_t *soft)
{
    char label[16];

    for (unsigned k = 0; k < 2; k++) {
        uint64_t v[3];
        memcpy(&v[0], in + 8 * k, 8);
        memcpy(&v[1], native + 8 * k, 8);
        memcpy(&v[2], soft + 8 * k, 8);
        snprintf(label, sizeof(label), "%s%u.%u", name, n, k);
        compare_u64(r, label, v[0], v[1], v[2]);
    }
}

/* Empty x87 registers are compared like the others. The pointers to the last x87 instruction are compared when an
 * unmasked exception came up: some hosts note them only then. */
static void compare_xsave(struct report *r, const uint8_t *in, const uint8_t *a, const uint8_t *b)
{
    static const struct {
        const char *name;
        unsigned at, bytes;
    } words[] = { { "fcw", 0, 2 }, { "fsw", 2, 2 }, { "ftw", 4, 1 }, { "fop", 6, 2 }, { "fip", 8, 8 },
                  { "fdp", 16, 8 }, { "mxcsr", 24, 4 } };

    bool newly_pending = (a[2] & 0x80) && !(in[2] & 0x80);

    for (unsigned k = 0; k < ARRAY_COUNT(words); k++) {
        uint64_t v[3] = { 0 };
        if (words[k].at >= 6 && words[k].at < 24 && !newly_pending)
            continue;
        memcpy(&v[0], in + words[k].at, words[k].bytes);
        memcpy(&v[1], a + words[k].at, words[k].bytes);
        memcpy(&v[2], b + words[k].at, words[k].bytes);
        if (words[k].bytes == 8) /* pointers: some hosts keep no more than an address has */
            v[2] ^= (v[1] ^ v[2]) >> 48 << 48;
        compare_u64(r, words[k].name, v[0], v[1], v[2]);
    }
    for (unsigned n = 0; n < 8; n++)
        compare_bytes(r, "st", n, in + 32 + 16 * n, a + 32 + 16 * n, b + 32 + 16 * n);
    for (unsigned n = 0; n < 16; n++) {
        compare_bytes(r, "xmm", n, in + 160 + 16 * n, a + 160 + 16 * n, b + 160 + 16 * n);
        compare_bytes(r, "ymmh", n, in + 576 + 16 * n, a + 576 + 16 * n, b + 576 + 16 * n);
    }
}

static void compare_memory(struct report *r, const struct test_case *t, const uint8_t *native, const uint8_t *soft)
{
    static const uint32_t base[] = { T_DATA, T_DATA + T_PAGE, T_LOW, T_LOW + T_PAGE, T_RO };
    unsigned shown = 0;

    if (!memcmp(native, soft, MEM_BYTES))
        return;
    for (unsigned at = 0; at < MEM_BYTES && shown < 16; at++) {
        if (native[at] == soft[at] || (native[at] == 2 && soft[at] == 0 && at % 16 == 14))
            continue; /* MXCSR_MASK: the host may have the misaligned mode */
        say(r, "  [%x] native %02x soft %02x\n", base[at / T_PAGE] + at % T_PAGE, native[at], soft[at]);
        shown++;
    }
}

/* What the two sides may differ in: bits that the kernel's frames set, undefined flags. */
#define FLAGS_COMPARED (OSZAPC | FLAG_DF | FLAG_AC)

/* CMPXCHG of 32-bit registers that differ: whether the destination's upper half is cleared depends on
 * the vendor. */
static void forgive_upper_halves(const struct outcome *native, struct outcome *soft)
{
    for (unsigned k = 0; k < 16; k++)
        if ((uint32_t)native->out.gpr[k] == (uint32_t)soft->out.gpr[k])
            soft->out.gpr[k] = native->out.gpr[k];
}

/* The row of the instruction that ended the run. */
static const struct insn_row *last_row(const struct test_case *t, const struct outcome *o)
{
    uint64_t at = o->out.rip - t->in.rip;
    struct insn i;

    if (at >= t->code_len ||
        insn_decode(t->code + at, t->code_len - at, t->mode32 ? INSN_32 : INSN_64, false, &i))
        return &insn_rows[t->row];
    return &insn_rows[i.row];
}

/* An unmasked overflow or underflow: whether the result was inexact is known to the infinitely wide
 * exponent only. Dot products may stop after the multiplication. */
static void forgive_mxcsr(const struct test_case *t, const struct outcome *native, struct outcome *soft)
{
    uint8_t free = 0;

    if (native->vector != 19 || soft->vector != 19)
        return;
    if ((t->in.xsave[25] & 0x0c) != 0x0c)
        free |= 0x20;
    if (strstr(last_row(t, native)->mnemonic, "dpp"))
        free |= 0x3f;
    soft->out.xsave[24] = (uint8_t)((soft->out.xsave[24] & ~free) | (native->out.xsave[24] & free));
}

/* The host's process and kernel have memory of their own, where our side has none. */
static bool is_foreign(uint64_t at)
{
    return (at < T_LOW - T_PAGE || at >= T_LOW + 3 * T_PAGE) && (at < T_CODE - T_PAGE || at >= T_RO + 2 * T_PAGE);
}

/* Natively a fetch from this page is a system call, which Linux still emulates. */
#define VSYSCALL 0xffffffffff600000ull

static bool is_at(uint64_t at, uint64_t reg)
{
    return at - reg < 8 || at - (uint32_t)reg < 8 || at - (uint16_t)reg < 8;
}

/* Where both operands of a comparison fault, Intel's tell the one at rSI, as we do, and AMD's that at rDI. */
static bool is_other_operand(const struct insn_row *row, const struct outcome *native, const struct outcome *soft)
{
    uint64_t rdi = native->out.gpr[7];
    bool canonical = (uint64_t)((int64_t)(rdi << 16) >> 16) == rdi;
    bool at_rdi = (native->vector == 14 && is_at(native->cr2, rdi)) || (native->vector == 13 && !canonical) ||
                  native->vector == 17;

    return !strncmp(row->mnemonic, "cmps", 4) && row->attr & A_STRING && at_rdi &&
           (soft->vector == 12 || soft->vector == 13 || soft->vector == 17 ||
            (soft->vector == 14 && is_at(soft->cr2, native->out.gpr[6])));
}

/* Differences that say nothing. True: stop comparing. */
static bool forgive(const struct test_case *t, const struct outcome *native, struct outcome *soft)
{
    const struct insn_row *row = &insn_rows[t->row];
    bool wide = row->attr & A_STRING || row->operand[0] == M_ || !strcmp(row->mnemonic, "pusha") ||
                !strncmp(row->mnemonic, "maskmov", 7);
    bool ac = t->in.rflags & FLAG_AC;

    if (native->vector == 14 && soft->vector == 14 && is_foreign(native->cr2))
        soft->error |= native->error & 1;
    /* microcode touches the bytes of large operands in an order of its own */
    if (wide && native->vector == 14 && native->cr2 + 4096 - soft->cr2 < 8192) {
        soft->error = (soft->error & ~1u) | (native->error & 1);
        soft->cr2 = native->cr2;
    }
    if (!strcmp(row->mnemonic, "popa") && native->vector == 14)
        memcpy(soft->out.gpr, native->out.gpr, sizeof(soft->out.gpr));
    if (!strcmp(row->mnemonic, "cmpxchg") && native->vector == 3)
        forgive_upper_halves(native, soft);
    forgive_mxcsr(t, native, soft);
    /* which of two faults comes first, or where vendors ask for alignment */
    return (soft->vector == 14 && native->vector != 14 && is_foreign(soft->cr2)) ||
           (soft->vector == 14 && (soft->cr2 & ~4095ull) == VSYSCALL) ||
           (ac && native->vector == 17 && (soft->vector == 14 || soft->vector == 13)) ||
           (ac && native->vector == 14 && soft->vector == 17) ||
           (ac && native->vector == 17 && (strstr(row->mnemonic, "maskmov") || !strcmp(row->mnemonic, "enter"))) ||
           (strstr(row->mnemonic, "maskmov") && native->vector == 14 && soft->vector == 13) ||
           (((row->attr & A_ALIGN) || row->operand[0] == M_) && native->vector == 13 && soft->vector == 12) ||
           is_other_operand(row, native, soft) ||
           (!strcmp(row->mnemonic, "call") && native->vector != 3 && soft->vector == 13) ||
           (!strncmp(row->mnemonic, "cvtpi", 5) && soft->vector == 16) ||
           /* AMD's misaligned mode of SSE, which no model of ours offers */
           (strstr(row->mnemonic, "ldmxcsr") && native->out.xsave[26] & 2 && soft->vector == 13) ||
           (row->attr >> 24 == F_SHA && soft->vector == 13);
}

static void compare(struct report *r, const struct test_case *t, const struct outcome *native,
                    const struct outcome *soft)
{
    static const char *const names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                           "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15" };
    uint64_t flags = FLAGS_COMPARED & ~(uint64_t)t->undefined;

    if (native->vector != soft->vector || native->error != soft->error)
        say(r, "  vector native %d (%x) soft %d (%x)\n", native->vector, native->error, soft->vector, soft->error);
    if (native->vector == 3)
        flags &= ~(uint64_t)case_undefined_flags(t);
    compare_u64(r, "cr2", 0, native->cr2, soft->cr2);
    compare_u64(r, "rip", t->in.rip, native->out.rip, soft->out.rip);
    compare_u64(r, "rflags", t->in.rflags, native->out.rflags & flags, soft->out.rflags & flags);
    for (unsigned k = 0; k < 16; k++)
        compare_u64(r, names[k], t->in.gpr[k], native->out.gpr[k], soft->out.gpr[k]);
    compare_xsave(r, t->in.xsave, native->out.xsave, soft->out.xsave);
}

static void describe(struct report *r, const struct test_case *t)
{
    struct insn i;
    char text[128];

    r->len = 0;
    for (unsigned at = 0; at < t->code_len; at += i.len) {
        if (insn_decode(t->code + at, t->code_len - at, t->mode32 ? INSN_32 : INSN_64, false, &i))
            break;
        say(r, "%s %s |", t->mode32 ? "32:" : "64:", insn_disassemble(&i, t->in.rip + at, text, sizeof(text)));
        for (unsigned k = 0; k < i.len; k++)
            say(r, " %02x", t->code[at + k]);
        say(r, "\n");
    }
}

bool case_agrees(const struct test_case *t, enum soft_how how, char *text, size_t size)
{
    static uint8_t native_mem[MEM_BYTES], soft_mem[MEM_BYTES];
    struct outcome native = { 0 }, soft = { 0 };
    struct report r = { .text = text, .size = size };

    native_run(t, &native, native_mem);
    if (native.vector == VECTOR_ENDLESS)
        return true;
    soft_run(t, how, &soft, soft_mem);
    describe(&r, t);
    if (forgive(t, &native, &soft))
        return true;
    r.differs = false;
    compare(&r, t, &native, &soft);
    compare_memory(&r, t, native_mem, soft_mem);
    return !r.differs;
}

/* --- making failures small --- */

static bool still_fails(const struct test_case *t, enum soft_how how)
{
    char text[64];

    return !case_agrees(t, how, text, sizeof(text));
}

static void try_zero(struct test_case *t, enum soft_how how, void *field, size_t bytes)
{
    uint8_t old[64];

    memcpy(old, field, bytes);
    memset(field, 0, bytes);
    if (!still_fails(t, how))
        memcpy(field, old, bytes);
}

void case_minimise(struct test_case *t, enum soft_how how)
{
    static const uint8_t plain[32] = { [0] = 0x7f, [1] = 3, [24] = 0x80, [25] = 0x1f };
    uint8_t old[32];

    for (unsigned k = 0; k < 16; k++)
        try_zero(t, how, &t->in.gpr[k], 8);
    for (unsigned at = 32; at < 416; at += 16)
        try_zero(t, how, t->in.xsave + at, 16);
    for (unsigned at = 576; at < T_XSAVE; at += 16)
        try_zero(t, how, t->in.xsave + at, 16);
    memcpy(old, t->in.xsave, 32);
    memcpy(t->in.xsave, plain, 32);
    if (!still_fails(t, how))
        memcpy(t->in.xsave, old, 32);
    for (uint64_t bit = 1; bit <= FLAG_AC; bit <<= 1) {
        if (!(t->in.rflags & bit & FLAGS_COMPARED))
            continue;
        t->in.rflags ^= bit;
        if (!still_fails(t, how))
            t->in.rflags ^= bit;
    }
}

/* --- text files --- */

bool case_write(const struct test_case *t, const char *path)
{
    FILE *f = fopen(path, "w");
    static const uint8_t zero[16];

    if (!f)
        return false;
    fprintf(f, "mode %d\nrip %" PRIx64 "\nrflags %" PRIx64 "\nmemory %" PRIx64 "\ncode", t->mode32 ? 32 : 64,
            t->in.rip, t->in.rflags, t->mem_seed);
    for (unsigned k = 0; k < t->code_len; k++)
        fprintf(f, " %02x", t->code[k]);
    fprintf(f, "\n");
    for (unsigned k = 0; k < 16; k++)
        if (t->in.gpr[k])
            fprintf(f, "gpr %u %" PRIx64 "\n", k, t->in.gpr[k]);
    for (unsigned at = 0; at < T_XSAVE; at += 16) {
        if (!memcmp(t->in.xsave + at, zero, 16))
            continue;
        fprintf(f, "xsave %u", at);
        for (unsigned k = 0; k < 16; k++)
            fprintf(f, " %02x", t->in.xsave[at + k]);
        fprintf(f, "\n");
    }
    return fclose(f) == 0;
}

static unsigned read_bytes(const char *text, uint8_t *to, unsigned max)
{
    unsigned n = 0, v;
    int used;

    while (n < max && sscanf(text, " %2x%n", &v, &used) == 1) {
        to[n++] = (uint8_t)v;
        text += used;
    }
    return n;
}

static void read_line(struct test_case *t, const char *line)
{
    unsigned n, mode;
    uint64_t v;
    int used;

    if (sscanf(line, "mode %u", &mode) == 1)
        t->mode32 = mode == 32;
    else if (sscanf(line, "rip %" SCNx64, &v) == 1)
        t->in.rip = v;
    else if (sscanf(line, "rflags %" SCNx64, &v) == 1)
        t->in.rflags = v;
    else if (sscanf(line, "memory %" SCNx64, &v) == 1)
        t->mem_seed = v;
    else if (!strncmp(line, "code ", 5))
        t->code_len = read_bytes(line + 5, t->code, T_CODE_MAX);
    else if (sscanf(line, "gpr %u %" SCNx64, &n, &v) == 2 && n < 16)
        t->in.gpr[n] = v;
    else if (sscanf(line, "xsave %u%n", &n, &used) == 1 && n <= T_XSAVE - 16)
        read_bytes(line + used, t->in.xsave + n, 16);
}

bool case_read(struct test_case *ret, const char *path)
{
    FILE *f = fopen(path, "r");
    char line[1024];
    struct insn i;

    if (!f)
        return false;
    memset(ret, 0, sizeof(*ret));
    while (fgets(line, sizeof(line), f))
        read_line(ret, line);
    fclose(f);
    if (!ret->code_len || ret->in.rip < T_CODE || ret->in.rip + ret->code_len > T_CODE + 2 * T_PAGE)
        return false;
    if (!insn_decode(ret->code, ret->code_len, ret->mode32 ? INSN_32 : INSN_64, false, &i))
        ret->row = i.row;
    return true;
}
