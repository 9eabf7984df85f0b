/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random programs, each run again and again while what lies under it changes: an empty TLB, another
 * linear address, a page that is mapped on demand, data that were executed, and all of it at both
 * privilege levels. Each end must be that of a run one instruction at a time.
 */
#include "lib/probe.h"

static uint64_t seed;
static unsigned bad;

static const struct piece *pick(enum piece_kind kind)
{
    struct piece_list list = pieces(kind);
    return list.at + next_random(&seed) % (uint64_t)(list.end - list.at);
}

static void map_on_demand(struct frame *f)
{
    if (read_cr2() >> 12 == HOLE >> 12 && !probe_hole_is_mapped()) {
        probe_map_hole(true);
        return;
    }
    trap_set(14, NULL);
    trap_dispatch(f);
}

/* Executes every RET in the data: their 64-byte neighbourhoods become code. */
static void execute_data(void)
{
    for (unsigned i = 0; i < 3 * PAGE; i++) {
        if (probe_data[i] == 0xc3)
            ((void (*)(void))(probe_data + i))();
    }
}

enum change { NOTHING, EMPTY_TLB, HOLE_OPEN, DATA_EXECUTED, N_CHANGES };
static const char *const change_names[] = { "nothing", "the TLB was empty", "the hole was open",
                                            "data were executed" };

static void change(enum change what)
{
    trap_set(14, map_on_demand);
    probe_map_hole(what != HOLE_OPEN);
    probe_prepare = what == DATA_EXECUTED ? execute_data : what == EMPTY_TLB ? flush_tlb : NULL;
}

static void test_program(const struct program *p, unsigned runs)
{
    static struct outcome want[2], got;
    unsigned cpl = next_random(&seed) & 1 ? 3 : 0;
    uint64_t off = (uint64_t)(p->at - probe_code);
    struct frame start[2] = { probe_start(CODE_AT + off, cpl), probe_start(CODE2_AT + off, cpl) };
    change(NOTHING);
    for (unsigned view = 0; view < 2; view++)
        probe_step(&start[view], NULL, &want[view]);
    for (unsigned i = 0; i < runs; i++) {
        unsigned view = i < runs / 4 ? 0 : i % 2;
        enum change what = i < runs / 2 ? NOTHING : (enum change)(next_random(&seed) % N_CHANGES);
        change(what);
        probe_run(&start[view], &got);
        uint64_t a, b;
        const char *where = probe_differ(&got, &want[view], &a, &b);
        if (where && bad++ < 5) {
            check(false, "run %u: %s is 0x%lx, not 0x%lx, after %s; CPL %u, at 0x%lx:", i, where, a,
                  b, change_names[what], cpl, start[view].rip);
            program_say(p);
            break;
        }
    }
}

static void build(struct program *p)
{
    uint64_t off = next_random(&seed) % (2 * PAGE - 2000);
    if (next_random(&seed) & 1)
        off = PAGE - next_random(&seed) % 400;
    *p = (struct program){ .at = probe_code + off, .next = probe_code + off };
    unsigned count = 2 + next_random(&seed) % 40;
    for (unsigned i = 0; i < count; i++)
        program_add(p, pick(next_random(&seed) % 3 ? PIECES_PLAIN : PIECES_FLAGS));
    if (next_random(&seed) & 1)
        program_add(p, pick(PIECES_FAULT));
    program_add(p, pick(PIECES_FLAGS));
    program_byte(p, 0xcc);
}

void test_main(void)
{
    unsigned programs = (unsigned)cmdline_number("programs", 150);
    unsigned only = (unsigned)cmdline_number("only", 0); /* 1: the first */
    seed = cmdline_number("seed", 5) * 0x9e3779b97f4a7c15;
    probe_init();
    for (unsigned i = 1; i <= programs; i++) {
        struct program p;
        build(&p);
        if (only && i != only)
            continue;
        test_program(&p, (unsigned)cmdline_number("runs", 40));
        if (bad == 5)
            break;
    }
    check_eq(bad, 0, "differences");
}
