/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Faults in the middle of blocks: every addressing form and kind of access, at page ends, with
 * registers and flags as an instruction-by-instruction run leaves them; and the restart after them.
 *
 * Each program is a piece that sets flags, one that may fault, and one that clobbers flags. It runs
 * with the hole mapped (so that engines learn it as code that does not fault), then with the hole
 * open, then with a handler that closes it.
 *
 * Spec      Intel SDM volume 3, 6.5 (faults are restartable), 6.15.
 */
#include "lib/probe.h"

static unsigned bad, runs;
static uint64_t demand_maps;

static void map_on_demand(struct frame *f)
{
    if (read_cr2() >> 12 == HOLE >> 12 && !probe_hole_is_mapped()) {
        probe_map_hole(true);
        demand_maps++;
        return;
    }
    trap_set(14, NULL);
    trap_dispatch(f); /* not ours: caught */
}

enum hole { MAPPED, OPEN, ON_DEMAND, N_HOLES };
static const char *const hole_names[] = { "mapped", "open", "mapped on demand" };

static void run_with(enum hole hole, const struct frame *start, bool stepped, struct outcome *ret)
{
    probe_map_hole(hole == MAPPED);
    trap_set(14, hole == ON_DEMAND ? map_on_demand : NULL);
    if (stepped)
        probe_step(start, NULL, ret);
    else
        probe_run(start, ret);
    trap_set(14, NULL);
    runs++;
}

static void complain(const struct program *p, enum hole hole, const char *what, uint64_t got,
                     uint64_t want, const struct frame *start)
{
    if (bad++ < 20) {
        check(false, "%s is 0x%lx, not 0x%lx; hole %s, CPL %lu, flags 0x%lx, at 0x%lx:", what, got,
              want, hole_names[hole], start->cs & 3, start->flags, start->rip);
        program_say(p);
    }
}

static void test_program(const struct program *p, const struct frame *start, unsigned warm)
{
    static struct outcome want[N_HOLES], got;
    if (cmdline_number("say", 0)) {
        print("flags 0x%lx CPL %lu at 0x%lx\n", start->flags, start->cs & 3, start->rip);
        program_say(p);
    }
    for (enum hole hole = MAPPED; hole < N_HOLES; hole++)
        run_with(hole, start, true, &want[hole]);
    for (enum hole hole = MAPPED; hole < N_HOLES; hole++) {
        for (unsigned i = 0; i < (hole == MAPPED ? warm : warm / 2); i++) {
            uint64_t a, b;
            run_with(hole, start, false, &got);
            const char *what = probe_differ(&got, &want[hole], &a, &b);
            if (what)
                complain(p, hole, what, a, b, start);
        }
    }
}

static uint64_t seed = 0x9876543;

static const struct piece *pick(struct piece_list list)
{
    return list.at + next_random(&seed) % (uint64_t)(list.end - list.at);
}

/* In the two pages of code: CROSSING, some byte of the program begins the second page. */
enum place { AT_START, CROSSING, AT_END, N_PLACES };

static void test_piece(const struct piece *piece, const struct piece *before,
                       const struct piece *after, enum place place, unsigned cpl, bool ac,
                       unsigned warm)
{
    static uint64_t turn;
    uint64_t bytes = before->len + piece->len + after->len + 1, off = 0;
    if (place == CROSSING)
        off = PAGE - 1 - turn++ % (bytes - 1);
    else if (place == AT_END)
        off = 2 * PAGE - bytes;
    struct program p = { .at = probe_code + off, .next = probe_code + off };
    program_add(&p, before);
    program_add(&p, piece);
    program_add(&p, after);
    program_byte(&p, 0xcc);
    struct frame start = probe_start(CODE_AT + off, cpl);
    if (ac)
        start.flags |= FLAG_AC;
    test_program(&p, &start, warm);
}

static void test_pieces(unsigned turns, unsigned warm)
{
    struct piece_list faults = pieces(PIECES_FAULT), flags = pieces(PIECES_FLAGS);
    for (unsigned turn = 0; turn < turns; turn++) {
        for (const struct piece *piece = faults.at; piece < faults.end; piece++) {
            unsigned way = (unsigned)next_random(&seed) >> 8;
            test_piece(piece, pick(flags), pick(flags), (enum place)(way % N_PLACES), way >> 4 & 1,
                       way >> 5 & 1, warm);
        }
    }
    check_eq(bad, 0, "differences between stepped and straight runs (%u runs)", runs);
    check(demand_maps > 50, "%lu restarts after a page was mapped", demand_maps);
}

/* --- some with the answers written down --- */

struct known_code {
    struct piece piece;
    uint64_t fault_at; /* from the program's start */
};
#define KNOWN(before, fault, after)                                                                \
    ".pushsection .data.code\n11: " before "\n14: " fault "\n" after "\nint3\n12:\n.popsection\n"   \
    ".quad 11b, 12b - 11b, 13f, 14b - 11b\n"                                                       \
    ".pushsection .data.names\n13: .asciz \"" before "; " fault "\"\n.popsection\n"
__asm__(".pushsection .data\n.balign 8\nknown_codes:\n"
        KNOWN("neg %rax", "mov (%rbx), %rcx", "xor %edx, %edx")
        KNOWN("cmp %rax, %rax", "mov %rcx, (%rbx)", "add %rcx, %rcx")
        KNOWN("mov %r10, %rsp; dec %ecx; sub $5, %ecx", "push %rax", "test %eax, %eax")
        KNOWN("mov %r10, %rsp", "call 1f", "1: nop")
        KNOWN("stc; lea -400(%rbx), %rsi; lea -2048(%rbx), %rdi; mov $1000, %ecx", "rep movsb", "clc")
        KNOWN("std; mov %rbx, %rdi", "rep stosq", "cld")
        KNOWN("mov %r9, %rsp", "pop %rax", "")
        KNOWN("movabs $0xabcd004000000000, %rdx", "mov (%rdx), %rax", "")
        KNOWN("mov %r11, %rsp", "pop %rax", "")
        KNOWN("xor %ecx, %ecx; mov %al, %al", "div %rcx", "")
        KNOWN("inc %edx", "mov %rax, (%r10)", "")
        KNOWN("rol $1, %rax; mov $0x4000, %eax; mov $2, %cl", "idiv %cl", "")
        KNOWN("mov $0x4000, %eax; mov $2, %cl", "idiv %cl", "")
        ".popsection");

static const struct {
    int vector;
    uint64_t error, cr2, rcx, rsi, rdi, rsp, flags;
} known_ends[] = {
#define START_RSI (HOLE - 3)
#define START_RDI (HOLE - 16)
#define START_RSP (DATA_AT + PAGE / 2)
    { 14, 0, HOLE, 5, START_RSI, START_RDI, START_RSP, 0x91 },
    { 14, 2, HOLE, 5, START_RSI, START_RDI, START_RSP, 0x44 },
    { 14, 2, HOLE + PAGE - 8, 0xffffffff, START_RSI, START_RDI, HOLE + PAGE, 0x95 },
    { 14, 2, HOLE + PAGE - 8, 5, START_RSI, START_RDI, HOLE + PAGE, 0 },
    { 14, 0, HOLE, 600, HOLE, HOLE - 1648, START_RSP, 1 },
    { 14, 2, HOLE, 5, START_RSI, HOLE, START_RSP, 0x400 },
    { 14, 0, HOLE, 5, START_RSI, START_RDI, HOLE - 4, 0 },
    { 13, 0, 0, 5, START_RSI, START_RDI, START_RSP, 0 },
    { 12, 0, 0, 5, START_RSI, START_RDI, 0x0000800000001000, 0 },
    { 0, 0, 0, 0, START_RSI, START_RDI, START_RSP, 0x44 },
    { 14, 3, HOLE + PAGE, 5, START_RSI, START_RDI, START_RSP, 0x80 },
    { 0, 0, 0, 2, START_RSI, START_RDI, START_RSP, 0 },
    { 0, 0, 0, 2, START_RSI, START_RDI, START_RSP, 0 },
};

static void test_known(void)
{
    extern const struct known_code known_codes[];
    probe_map_hole(false);
    for (size_t i = 0; i < ARRAY_COUNT(known_ends); i++) {
        const struct piece *piece = &known_codes[i].piece;
        struct program p = { .at = probe_code, .next = probe_code };
        program_add(&p, piece);
        struct frame start = probe_start(CODE_AT, 0);
        struct outcome o;
        for (unsigned warm = 0; warm < 10; warm++)
            probe_run(&start, &o);
        check_eq(o.vector, known_ends[i].vector, "the vector of: %s", piece->text);
        check_eq(o.frame.error, known_ends[i].error, "the error code of: %s", piece->text);
        check_eq(o.cr2, known_ends[i].cr2, "CR2 of: %s", piece->text);
        check_eq(o.frame.rip, CODE_AT + known_codes[i].fault_at, "RIP of: %s", piece->text);
        check_eq(o.frame.rcx, known_ends[i].rcx, "RCX of: %s", piece->text);
        check_eq(o.frame.rsi, known_ends[i].rsi, "RSI of: %s", piece->text);
        check_eq(o.frame.rdi, known_ends[i].rdi, "RDI of: %s", piece->text);
        check_eq(o.frame.rsp, known_ends[i].rsp, "RSP of: %s", piece->text);
        check_eq(o.frame.flags & (FLAGS_ARITH | 0x400), known_ends[i].flags, "flags of: %s",
                 piece->text);
    }
}

void test_main(void)
{
    probe_init();
    test_known();
    test_pieces((unsigned)cmdline_number("turns", 2), (unsigned)cmdline_number("warm", 8));
}
