/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The software CPU on any state and any code: the host neither crashes nor hangs, the state that
 * comes out goes in again unchanged, and taking it out and in at every instruction changes nothing.
 *
 * Input     As fuzz_machine.h has it; bit 7 of the second byte asks for the last of these checks.
 */
#include "fuzz_machine.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STEPS 64
#define RUN_US 300

static sem_t watch_start, watch_done;

/* Set by the check, whose inputs come out the same each time: leave out what time decides. */
static bool repeatable(void)
{
    static int set = -1;
    if (set < 0)
        set = getenv("RUCHE_FUZZ_REPEATABLE") != NULL;
    return set;
}

/* Stops each cpu_run() after a while. */
static void *watchdog(void *arg)
{
    for (;;) {
        while (sem_wait(&watch_start))
            ;
        usleep(RUN_US);
        cpu_raise_event(fuzz_cpu, CPU_EV_STOP);
        sem_post(&watch_done);
    }
    return NULL;
}

static void set_up(void)
{
    pthread_t t;

    fuzz_machine_init(CPU_TRANSLATE_OFF);
    fuzz_require(!sem_init(&watch_start, 0, 0) && !sem_init(&watch_done, 0, 0));
    fuzz_require(!pthread_create(&t, NULL, watchdog, NULL));
}

/* KVM's hand-over: out, in and out again is the same. */
static void check_exchange(void)
{
    static struct cpu_arch_state a, b;
    cpu_get_state(fuzz_cpu, &a);
    cpu_set_state(fuzz_cpu, &a);
    cpu_get_state(fuzz_cpu, &b);
    a.tsc = b.tsc = 0;
    fuzz_require(!memcmp(&a, &b, sizeof(a)));
}

static void run(void)
{
    /* A pending event makes long string instructions give way. */
    cpu_raise_event(fuzz_cpu, CPU_EV_STOP);
    for (unsigned i = 0; i < STEPS; i++)
        if (cpu_step(fuzz_cpu) == CPU_EXIT_SHUTDOWN)
            return;
    check_exchange();
    fuzz_require(cpu_run(fuzz_cpu) == CPU_EXIT_STOP);
    if (repeatable())
        return;
    sem_post(&watch_start);
    while (cpu_run(fuzz_cpu) != CPU_EXIT_STOP)
        usleep(20);
    while (sem_wait(&watch_done))
        ;
    check_exchange();
}

/* An exchange of the state drops the TLB and reads PAE's PDPTEs anew: guests can tell, so the plain
 * run does, too. */
static void forget_translations(void)
{
    mmu_flush_all(fuzz_cpu);
    if (fuzz_cpu->cr0 & CR0_PG && fuzz_cpu->cr4 & CR4_PAE && !(fuzz_cpu->efer & EFER_LMA))
        mmu_load_pdptes(fuzz_cpu, fuzz_cpu->cr3, false);
}

/* STEPS instructions from `from`; with `relay` the state leaves and comes back before each. */
static void walk(const struct cpu_arch_state *from, bool relay, struct cpu_arch_state *ret)
{
    static struct cpu_arch_state blank, s;
    fuzz_noise = 1;
    cpu_reset(fuzz_cpu, false);
    cpu_shared_written(fuzz_shared, 0, RAM_SIZE);
    cpu_set_state(fuzz_cpu, from);
    for (unsigned i = 0; i < STEPS; i++) {
        if (relay) {
            cpu_get_state(fuzz_cpu, &s);
            cpu_set_state(fuzz_cpu, &blank);
            cpu_set_state(fuzz_cpu, &s);
        } else {
            forget_translations();
        }
        if (cpu_step(fuzz_cpu) == CPU_EXIT_SHUTDOWN)
            break;
    }
    cpu_get_state(fuzz_cpu, ret);
    ret->tsc = 0;
}

/* A walk from memory as it was `before`: whether it ends as the first one did. */
static bool walk_again(const struct cpu_arch_state *from, bool relay, const uint8_t *before,
                       const uint8_t *after, const struct cpu_arch_state *want)
{
    static struct cpu_arch_state got;

    memcpy(fuzz_ram, before, RAM_SIZE);
    walk(from, relay, &got);
    return !memcmp(&got, want, sizeof(got)) && !memcmp(fuzz_ram, after, RAM_SIZE);
}

/* What KVM's hand-over relies on. Guests that look at clocks or random numbers differ from run to
 * run: a plain run before and one after tell them. (The clock's high half moves once a second:
 * so the one after must come after.) */
static void check_relay(const struct cpu_arch_state *from)
{
    static uint8_t before[RAM_SIZE], after[RAM_SIZE];
    static struct cpu_arch_state first;

    memcpy(before, fuzz_ram, RAM_SIZE);
    cpu_raise_event(fuzz_cpu, CPU_EV_STOP);
    walk(from, false, &first);
    memcpy(after, fuzz_ram, RAM_SIZE);
    bool relayed = walk_again(from, true, before, after, &first);
    bool plain = walk_again(from, false, before, after, &first);
    fuzz_require(relayed || !plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_guest guest;

    if (!fuzz_cpu)
        set_up();
    fuzz_guest_make(data, size, &guest);
    if (guest.state_patches & 0x80) {
        check_relay(&guest.state);
        return 0;
    }
    cpu_reset(fuzz_cpu, false);
    cpu_shared_written(fuzz_shared, 0, RAM_SIZE);
    cpu_set_state(fuzz_cpu, &guest.state);
    fuzz_irq = guest.vector ? (int)guest.vector : -1;
    if (guest.vector)
        cpu_raise_event(fuzz_cpu, CPU_EV_INTR);
    run();
    return 0;
}
