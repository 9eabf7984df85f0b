/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Emitters against handlers: short random runs of integer instructions, from the same state, leave
 * the same registers, flags, memory and fault.
 *
 * Usage     -m thorough draws more; CPU_EMIT_SEED=n starts elsewhere, CPU_EMIT_DUMP=file keeps the
 * code of the failure.
 */
#include "cpu/exec/run.h"
#include "cpu/exec/testbed.h"
#include "cpu/translate/cache.h"
#include "cpu/translate/emit.h"

#include <asm/prctl.h>
#include <inttypes.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DATA_BYTES (2 * PAGE_SIZE)
#define DATA_HOLE  (BED_DATA + DATA_BYTES) /* not mapped */
#define MOST_INSNS 8

static struct bed
    *bed; /* its page tables at 4000 and 5000 are for the first and the second 2 MiB */
static struct code_arena arena;
static struct thunks thunk;
static struct as hot, cold;
static uint64_t seed;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1dull;
}

static unsigned below(unsigned n)
{
    return (unsigned)((rnd() >> 33) % n);
}

/* --- cases --- */

struct drawn {
    uint8_t code[MOST_INSNS * 16 + 8];
    unsigned len;
    uint64_t gpr[16];
    uint16_t flags_ax;
    bool mode32;
    uint32_t undefined; /* flags at its end */
    uint32_t ever;      /* and anywhere: a fault may end it earlier */
    uint8_t data[DATA_BYTES];
};

static bool usable(unsigned row)
{
    const struct insn_row *r = &insn_rows[row];
    uint32_t no =
        A_PRIV | A_END | A_MODE | A_SHADOW | A_IO | A_MMX | A_X87 | A_SSE | A_AVX | A_STRING;

    return !(r->attr & no) && strcmp(r->mnemonic, "rdrand") && strcmp(r->mnemonic, "rdseed") &&
           strncmp(r->mnemonic, "rd", 2) && strncmp(r->mnemonic, "pushf", 5);
}

static uint64_t value(void)
{
    static const uint64_t odd[] = { 0,          1,          ~0ull,      0x80, 0x7f, 0x8000,
                                    0x80000000, 0x7fffffff, 1ull << 63, 0xff, 0x100 };

    switch (below(8)) {
    case 0:
        return odd[below(ARRAY_COUNT(odd))];
    case 1:
        return BED_DATA + PAGE_SIZE - 8 + below(16);
    case 2:
        return DATA_HOLE - 8 + below(12);
    case 3:
        return rnd();
    default:
        return BED_DATA + below(DATA_BYTES - 64);
    }
}

/* A random ModRM byte that the row can have. */
static uint8_t draw_modrm(const struct insn_row *r)
{
    uint8_t modrm = (uint8_t)rnd();

    if (r->reg != REG_ANY && !(r->reg & 0x40))
        modrm = (uint8_t)((modrm & 0xc7) | (r->reg & 7) << 3);
    else if (r->reg != REG_ANY)
        modrm = 0xc0 | (r->reg & 0x3f);
    if (below(3) == 0)
        modrm = (modrm & 0x3f) | 0x40;
    if (r->mod == MOD_REG || (r->mod != MOD_MEM && below(2)))
        modrm |= 0xc0;
    else if (modrm >= 0xc0)
        modrm &= 0x7f;
    return modrm;
}

static uint8_t *put_vex(const struct insn_row *r, bool mode32, uint8_t *p)
{
    static const uint8_t pp[] = { [PFX_66] = 1, [PFX_F3] = 2, [PFX_F2] = 3 };
    bool vvvv = r->operand[0] == By || r->operand[1] == By || r->operand[2] == By;
    unsigned last = vvvv ? (below(16) | (mode32 ? 8u : 0u)) << 3 : 0x78;

    *p++ = 0xc4;
    *p++ = (uint8_t)((mode32 ? 0xe0 : below(8) << 5) | r->map);
    *p++ = (uint8_t)(below(2) << 7 | last | pp[r->pfx]);
    return p;
}

static uint8_t *put_legacy(const struct insn_row *r, bool may_lock, bool may_adsize,
                           bool may_segment, uint8_t rex, uint8_t *p)
{
    static const uint8_t maps[4][2] = { { 0 }, { 0x0f }, { 0x0f, 0x38 }, { 0x0f, 0x3a } };
    static const uint8_t pfx[] = { [PFX_66] = 0x66, [PFX_F3] = 0xf3, [PFX_F2] = 0xf2 };

    if (may_lock && (r->attr & A_LOCK) && below(3) == 0)
        *p++ = 0xf0;
    if (r->pfx >= PFX_66)
        *p++ = pfx[r->pfx];
    if (r->pfx != PFX_66 && below(6) == 0)
        *p++ = 0x66;
    if (may_adsize && below(16) == 0)
        *p++ = 0x67;
    if (may_segment && below(24) == 0)
        *p++ = below(2) ? 0x64 : 0x65;
    if (rex)
        *p++ = rex;
    for (unsigned k = 0; k < 2 && maps[r->map][k]; k++)
        *p++ = maps[r->map][k];
    return p;
}

/* The row's encoding with random operands into `p`, memory ones at register `near` if that is one;
 * how much of it counts is the decoder's affair. */
static void encode(const struct insn_row *r, bool mode32, unsigned near, uint8_t *p)
{
    uint8_t rex = mode32 || below(3) == 0 ? 0 : 0x40 | below(16), modrm = draw_modrm(r);
    bool z = r->operand[0] == Zb || r->operand[0] == Zv || r->operand[1] == Zv;

    if (near < 16 && modrm < 0xc0) { /* [register + byte] */
        modrm = (uint8_t)((modrm & 0x38) | 0x40 | (near & 7));
        rex = (uint8_t)((rex & ~1u) | (near & 8 ? 0x41 : 0));
    }
    p = r->vex != LEGACY ? put_vex(r, mode32, p)
                         : put_legacy(r, modrm<0xc0, !mode32, near> 15, rex, p);
    *p++ = (uint8_t)(r->opcode + (z ? below(8) : 0));
    if (r->mod != MOD_NONE)
        *p++ = modrm;
    for (unsigned k = 0; k < 4; k++)
        *p++ = (uint8_t)(below(4) ? below(32) : rnd());
    for (unsigned k = 0; k < 8; k++)
        *p++ = (uint8_t)(below(2) ? 0 : rnd());
}

/* Passes flags through, rather than looks at them. */
static bool passes(const struct insn_row *r)
{
    return r->flags_r == OSZAPC && r->flags_w;
}

/* Its result shows what the processor leaves undefined: after a scan one vendor's clears CF, another's keeps it. */
static bool shows(const struct insn_row *r, uint32_t undefined)
{
    bool carry = !strcmp(r->mnemonic, "rcl") || !strcmp(r->mnemonic, "rcr");

    return (carry && (undefined & FLAG_CF)) || ((r->flags_r & undefined) && !passes(r));
}

static void draw(struct drawn *d)
{
    unsigned want = 1 + below(MOST_INSNS), near = below(2) ? 16 : below(d->mode32 ? 8 : 16);

    if (near == 4 || near == 12) /* a SIB byte */
        near = 3;
    /* Mostly instructions that access memory around one register, of those that hold.c knows. */
    static const char *const common[] = { "mov", "add", "cmp",  "movzx", "test", "lea",
                                          "inc", "shl", "sub",  "movsx", "setb", "cmovs",
                                          "and", "or",  "imul", "adc",   "rol" };

    d->len = 0;
    d->undefined = d->ever = 0;
    for (unsigned tries = 0; want && tries < 4000; tries++) {
        unsigned row = below(insn_row_count);
        const struct insn_row *r = &insn_rows[row];
        uint8_t bytes[48];
        struct insn i;
        if (!usable(row))
            continue;
        if (near < 16 && below(4) && strcmp(r->mnemonic, common[tries % ARRAY_COUNT(common)]) &&
            tries < 3000)
            continue;
        encode(r, d->mode32, near, bytes);
        if (insn_decode(bytes, 15, d->mode32 ? INSN_32 : INSN_64, false, &i) || !usable(i.row))
            continue;
        r = &insn_rows[i.row];
        if (shows(r, d->undefined))
            continue;
        memcpy(d->code + d->len, bytes, i.len);
        d->len += i.len;
        d->undefined = (d->undefined & ~(passes(r) ? 0u : (uint32_t)r->flags_w)) | r->flags_u;
        d->ever |= r->flags_u;
        want--;
    }
    d->code[d->len++] = 0xf4;
    for (unsigned n = 0; n < 16; n++)
        d->gpr[n] = d->mode32 ? (n < 8 ? (uint32_t)value() : 0) : value();
    d->flags_ax = (uint16_t)((rnd() & 0xd500) | (rnd() & 1));
    for (unsigned k = 0; k < DATA_BYTES; k += 8) {
        uint64_t v = below(3) ? rnd() : 0;
        memcpy(d->data + k, &v, 8);
    }
}

/* --- both engines --- */

static void prepare(const struct drawn *d)
{
    struct cpu *c = bed->cpu;

    memcpy(c->gpr, d->gpr, sizeof(d->gpr));
    c->flags_ax = d->flags_ax;
    c->flags_sys = 2;
    c->rip = BED_CODE;
    c->rip_page = BED_CODE & PAGE_MASK;
    c->fault = (struct cpu_fault){ 0 };
    c->halted = false;
    c->seg[SEG_FS].base = BED_DATA + 8;
    c->seg[SEG_GS].base = BED_DATA + PAGE_SIZE;
    c->seg[SEG_CS].l = !d->mode32;
    c->seg[SEG_CS].db = d->mode32;
    cpu_update_mode(c);
    memcpy(bed->ram + BED_DATA, d->data, DATA_BYTES);
    memcpy(bed->ram + BED_CODE, d->code, d->len);
}

struct result {
    int status;
    uint64_t gpr[16], rip;
    uint16_t flags_ax;
    uint32_t flags_sys;
    struct cpu_fault fault;
    uint8_t data[DATA_BYTES];
};

static void take_result(struct result *r, int status)
{
    struct cpu *c = bed->cpu;

    memset(r, 0, sizeof(*r));
    r->status = status;
    memcpy(r->gpr, c->gpr, sizeof(r->gpr));
    r->rip = c->rip;
    r->flags_ax = c->flags_ax;
    r->flags_sys = c->flags_sys;
    r->fault.vector = c->fault.vector;
    r->fault.error = c->fault.error;
    r->fault.cr2 = c->fault.cr2;
    memcpy(r->data, bed->ram + BED_DATA, DATA_BYTES);
}

static int interpret_rest(void)
{
    int st;

    do
        st = exec_single(bed->cpu);
    while (st == X_JUMP);
    return st;
}

/* Stands for the runtime's. */
static uint64_t call_handler(struct cpu *c, const struct insn *i, uint64_t slow)
{
    int st = i->fn(c, i);

    if (st == X_NEXT)
        return TX_GO_ON;
    c->tx_status = (uint32_t)st;
    return st == X_JUMP ? TX_LOOKUP : TX_STATUS;
}

static struct tb_exit exits[TB_MAX_EXITS];

/* By the entry that wants the flags in the host's: enter() keeps them. */
uint64_t enter_with_flags(struct cpu *c, const uint8_t *code,
                          uint64_t (*enter)(struct cpu *, const uint8_t *), unsigned flags_ax);
__asm__(".text\n"
        "enter_with_flags:\n\t"
        "mov %ecx, %eax\n\t"
        "addb $127, %al\n\t"
        "sahf\n\t"
        "jmp *%rdx\n");

static uint64_t enter_host(struct cpu *c, const uint8_t *code)
{
    unsigned flags_ax = c->flags_ax;

    c->flags_ax = (uint16_t)~c->flags_ax; /* not to be looked at */
    return enter_with_flags(c, code, thunk.enter, flags_ax);
}

static int translate_and_run(const struct drawn *d, struct tb *tb)
{
    struct cpu *c = bed->cpu;
    uint8_t *p = arena.data;

    *tb = (struct tb){ .gpa = BED_CODE, .mode = c->mode, .exit = exits };
    tb->insn = (struct insn *)p;
    tb->insn_at = (uint16_t *)(p + TB_MAX_INSNS * sizeof(struct insn));
    int err = build_block(c, tb, BED_CODE, bed->ram + BED_CODE, &thunk, hot, cold);
    if (err == -EAGAIN)
        return interpret_rest();
    g_assert_cmpint(err, ==, 0);
    c->code_changed = false;
    uint64_t answer = below(2) ? thunk.enter(c, tb->entry_mem) : enter_host(c, tb->entry_host);
    return answer == TX_STATUS ? (int)c->tx_status : interpret_rest();
}

static void report(const struct drawn *d, const struct tb *tb, const struct result *a,
                   const struct result *b)
{
    char text[128];
    unsigned off = 0;

    while (off < d->len) {
        struct insn i;
        insn_decode(d->code + off, d->len - off, d->mode32 ? INSN_32 : INSN_64, false, &i);
        GString *hex = g_string_new(NULL);
        for (unsigned k = 0; k < i.len; k++)
            g_string_append_printf(hex, "%02x", d->code[off + k]);
        g_test_message("  %-24s %s", hex->str,
                       insn_disassemble(&i, BED_CODE + off, text, sizeof(text)));
        g_string_free(hex, true);
        off += i.len;
    }
    for (unsigned n = 0; n < 16; n++)
        g_test_message("  r%-2u %016" PRIx64 "  handlers %016" PRIx64 "  emitted %016" PRIx64 "%s",
                       n, d->gpr[n], a->gpr[n], b->gpr[n], a->gpr[n] == b->gpr[n] ? "" : "  <<<");
    g_test_message("  flags %04x  handlers %04x  emitted %04x, undefined %x", d->flags_ax,
                   a->flags_ax, b->flags_ax, d->undefined);
    g_test_message("  status %d, %d; rip %" PRIx64 ", %" PRIx64 "; fault %u, %u; cr2 %" PRIx64
                   ", %" PRIx64,
                   a->status, b->status, a->rip, b->rip, a->fault.vector, b->fault.vector,
                   a->fault.cr2, b->fault.cr2);
    for (unsigned k = 0; k < DATA_BYTES; k++)
        if (a->data[k] != b->data[k])
            g_test_message("  memory at %x: %02x, %02x", k, a->data[k], b->data[k]);
    if (getenv("CPU_EMIT_DUMP"))
        g_file_set_contents(getenv("CPU_EMIT_DUMP"), (const char *)tb->code, tb->code_bytes, NULL);
}

static uint16_t defined_flags(uint32_t undefined)
{
    uint32_t f = OSZAPC & ~undefined;

    return (uint16_t)((f & ~FLAG_OF) << 8 | f >> 11);
}

static bool same(const struct drawn *d, struct result *a, struct result *b)
{
    uint16_t mask = defined_flags(a->status == X_FAULT ? d->ever : d->undefined);

    a->flags_ax &= mask;
    b->flags_ax &= mask;
    return memcmp(a, b, sizeof(*a)) == 0;
}

static void run_cases(bool mode32)
{
    static struct drawn d;
    static struct result a, b;
    unsigned count = g_test_thorough() ? 3000000 : 60000;
    struct tb tb;

    for (unsigned n = 0; n < count; n++) {
        uint64_t from = seed;
        d.mode32 = mode32;
        draw(&d);
        prepare(&d);
        if (below(2))
            mmu_flush_all(bed->cpu);
        take_result(&a, interpret_rest());
        prepare(&d);
        if (below(4) == 0)
            mmu_flush_all(bed->cpu);
        take_result(&b, translate_and_run(&d, &tb));
        if (!same(&d, &a, &b)) {
            g_test_message("seed %" PRIx64, from);
            report(&d, &tb, &a, &b);
            g_test_fail();
            return;
        }
    }
}

static void test_long_mode(void)
{
    run_cases(false);
}

static void test_compatibility_mode(void)
{
    run_cases(true);
}

/* The data, and the code to be read: whatever else is touched faults. */
static void map_little(void)
{
    for (unsigned k = 1; k < 512; k++)
        bed_poke64(bed, 0x3000 + 8 * k, 0);
    for (unsigned k = 0; k < 1024; k++)
        bed_poke64(bed, 0x4000 + 8 * k, 0);
    bed_poke64(bed, 0x3008, 0x5000 | 7);
    bed_map_page(bed, BED_CODE, BED_CODE | 5);
    bed_poke64(bed, 0x5000 + (BED_DATA >> 12 & 511) * 8, BED_DATA | 7);
    bed_poke64(bed, 0x5000 + ((BED_DATA >> 12 & 511) + 1) * 8, (BED_DATA + PAGE_SIZE) | 7);
    mmu_flush_all(bed->cpu);
}

static void start(void)
{
    struct as a;

    bed = bed_new("max");
    map_little();
    g_assert_cmpint(code_arena_init(&arena, MIB, MIB), ==, 0);
    a = (struct as){ .p = arena.rw, .end = arena.rw + arena.size, .to_rx = arena.rx - arena.rw };
    g_assert_cmpint(thunks_make(&a, &thunk, call_handler), ==, 0);
    hot = cold = a;
    hot.p = (uint8_t *)align_up((uintptr_t)a.p, 64);
    hot.end = cold.p = hot.p + BUILD_HOT_ROOM;
    syscall(SYS_arch_prctl, ARCH_SET_GS, (unsigned long)bed->cpu);
    seed = getenv("CPU_EMIT_SEED") ? strtoull(getenv("CPU_EMIT_SEED"), NULL, 0) : 0x1234567;
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    start();
    g_test_add_func("/translate/emit/long", test_long_mode);
    g_test_add_func("/translate/emit/compatibility", test_compatibility_mode);
    int ret = g_test_run();
    bed_free(bed);
    code_arena_done(&arena);
    return ret;
}
