/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interrupts between instructions: whenever one comes, RIP, registers and flags must be those
 * between two instructions, as a run one instruction at a time shows them.
 *
 * Random programs are stepped once, and each state's hash kept. Then they run straight while
 * interrupts arrive from a timer whose deadline sweeps over them, and from another vCPU if there is
 * one. After each the program's end must be the same, too.
 *
 * Spec      Intel SDM volume 3, 6.6 (interrupts come at instruction boundaries).
 */
#include "lib/probe.h"

#define V_TIMER 0x61
#define V_POKE 0x62
#define MAX_STATES 8192

static uint64_t states[MAX_STATES]; /* open hash table of the states between instructions */
static unsigned state_count;
static uint64_t taken, wrong, seed = 0x5eed;
static struct frame first_wrong;

static void keep_hash(uint64_t h)
{
    h |= 1;
    for (unsigned i = (unsigned)(h >> 32) % MAX_STATES;; i = (i + 1) % MAX_STATES) {
        if (states[i] == h)
            return;
        if (!states[i]) {
            states[i] = h;
            state_count++;
            return;
        }
    }
}

static bool is_kept(uint64_t h)
{
    h |= 1;
    for (unsigned i = (unsigned)(h >> 32) % MAX_STATES; states[i]; i = (i + 1) % MAX_STATES) {
        if (states[i] == h)
            return true;
    }
    return false;
}

static void keep_state(const struct frame *f)
{
    if (state_count < MAX_STATES / 2)
        keep_hash(probe_hash(f));
}

static void on_interrupt(struct frame *f)
{
    apic_eoi();
    if (f->rip < CODE_AT || f->rip >= CODE_END)
        return;
    taken++;
    if (!is_kept(probe_hash(f)) && !wrong++)
        first_wrong = *f;
}

static const struct piece *pick(enum piece_kind kind)
{
    struct piece_list list = pieces(kind);
    return list.at + next_random(&seed) % (uint64_t)(list.end - list.at);
}

static void build(struct program *p, uint64_t off)
{
    *p = (struct program){ .at = probe_code + off, .next = probe_code + off };
    unsigned count = 10 + next_random(&seed) % 40;
    for (unsigned i = 0; i < count; i++)
        program_add(p, pick(next_random(&seed) % 3 ? PIECES_PLAIN : PIECES_FLAGS));
    program_byte(p, 0xcc);
}

static void arm(uint64_t ticks)
{
    wrmsr(0x6e0, rdtsc() + ticks);
}

static void test_program(const struct program *p, unsigned runs)
{
    static struct outcome want, got;
    struct frame start = probe_start(CODE_AT + (uint64_t)(p->at - probe_code),
                                     next_random(&seed) & 1 ? 3 : 0);
    start.flags |= FLAG_IF;
    memset(states, 0, sizeof(states));
    state_count = 0;
    keep_state(&start);
    probe_step(&start, keep_state, &want);
    uint64_t begin = rdtsc();
    probe_run(&start, &got);
    uint64_t span = rdtsc() - begin;
    for (unsigned i = 0; i < runs; i++) {
        uint64_t a, b;
        arm(span * i / runs + next_random(&seed) % 64);
        wrong = 0;
        probe_run(&start, &got);
        const char *what = probe_differ(&got, &want, &a, &b);
        if (check(!what && !wrong, "%s 0x%lx, not 0x%lx; %lu states of none, the first at 0x%lx, rax 0x%lx rcx 0x%lx rdx 0x%lx flags 0x%lx",
                  what ? what : "ends right:", a, b, wrong, first_wrong.rip, first_wrong.rax,
                  first_wrong.rcx, first_wrong.rdx, first_wrong.flags))
            continue;
        program_say(p);
        break;
    }
}

/* An interrupt at the same boundary as a single-step trap: the trap comes first, and none is lost. */
static void test_steps(const struct program *p)
{
    static struct outcome first, got;
    struct frame start = probe_start(CODE_AT + (uint64_t)(p->at - probe_code), 0);
    probe_step(&start, NULL, &first);
    start.flags |= FLAG_IF;
    for (unsigned i = 0; i < 10; i++) {
        arm(next_random(&seed) % 100000);
        probe_step(&start, NULL, &got);
        check_eq(got.steps, first.steps, "steps of a program under interrupts");
    }
}

static volatile bool stop_poking;
static void poke(void *arg)
{
    uint64_t gap = 1;
    while (!stop_poking) {
        smp_ipi(0, V_POKE);
        for (uint64_t i = 0; i < gap; i++)
            pause();
        gap = gap * 5 % 509;
    }
}

void test_main(void)
{
    unsigned programs = (unsigned)cmdline_number("programs", 40);
    apic_enable();
    bool two = cpu_count() > 1 && smp_start() > 1;
    probe_init();
    probe_map_hole(true);
    trap_set(V_TIMER, on_interrupt);
    trap_set(V_POKE, on_interrupt);
    apic_write(APIC_LVT_TIMER, 0x40000 | V_TIMER);
    if (two)
        smp_call(1, poke, NULL);
    for (unsigned i = 0; i < programs; i++) {
        struct program p;
        build(&p, next_random(&seed) % (2 * PAGE - 1500));
        test_steps(&p);
        test_program(&p, (unsigned)cmdline_number("runs", 60));
    }
    stop_poking = true;
    if (two)
        smp_wait(1);
    check(taken > programs, "%lu interrupts came within programs", taken);
    print("interrupts within programs: %lu\n", taken);
}
