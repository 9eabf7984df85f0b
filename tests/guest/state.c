/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Programs of the guest are taken to another machine in the middle, again and again, and must come
 * to their good end: each payload checks by itself what interrupts, timers and memory do.
 *
 * usage: state [-a ACCEL] PAYLOAD...: a payload is a path, and "@N" behind it the number of vCPUs
 */
#include "machine/state.h"

#include <stdlib.h>
#include <string.h>

#define RAM      (64 * MIB)
#define MOVES    6
#define LIMIT_S  100
#define GOOD_END 1

static const char *accel = "soft";

struct run {
    struct loop *loop;
    bool ended, failed;
    int code;
};

static void on_request(void *opaque, enum machine_request what, int code)
{
    struct run *r = opaque;
    r->ended = true;
    r->failed = what != MACHINE_REQ_DEBUG_EXIT;
    r->code = code;
}

static struct machine *make(struct run *r, const char *payload, unsigned vcpus)
{
    struct machine_config c;
    g_autofree char *note = NULL;
    g_autoptr(GError) error = NULL;
    machine_config_init(&c);
    c.ram_bytes = RAM;
    c.cpu_count = c.max_cpus = c.topology.cores = vcpus;
    c.kernel = payload;
    struct machine *m = machine_new(board_type_find("q35"), &c, accel, r->loop, &note, &error);
    g_assert_no_error(error);
    static const char *const devices[] = {"isa-serial", "virtio-rng-pci"};
    for (unsigned i = 0; i < ARRAY_COUNT(devices); i++)
        g_assert_nonnull(device_make(m, devices[i], &error, NULL));
    g_assert_nonnull(
        device_make(m, "isa-debug-exit", &error, "iobase", "0xf4", "iosize", "4", NULL));
    m->observer = (struct machine_observer){.request = on_request, .opaque = r};
    return m;
}

/* Until the guest ends, or so long of the machine's clock. */
static void run_for(struct run *r, struct machine *m, int64_t ns)
{
    int64_t until = clock_now_ns(&m->clock) + ns;
    machine_run(m);
    while (!r->ended && clock_now_ns(&m->clock) < until)
        loop_once(r->loop, 5);
    machine_stop(m);
}

static struct machine *move(struct run *r, struct machine *from, const char *payload,
                            unsigned vcpus)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GByteArray) state = machine_state_save(from, &error);
    g_assert_no_error(error);
    struct machine *to = make(r, payload, vcpus);
    memcpy(to->ram, from->ram, RAM);
    machine_free(from);
    machine_state_load(to, state->data, state->len, &error);
    g_assert_no_error(error);
    return to;
}

static void test_payload(const void *data)
{
    g_auto(GStrv) part = g_strsplit(data, "@", 2);
    unsigned vcpus = part[1] ? (unsigned)atoi(part[1]) : 1, moves = 0;
    struct run r = {.loop = loop_new("test")};
    g_autoptr(GError) error = NULL;
    g_autoptr(GRand) random = g_rand_new_with_seed(7);
    struct machine *m = make(&r, part[0], vcpus);
    machine_power_on(m, &error);
    g_assert_no_error(error);
    for (int64_t spent = 0; !r.ended && spent < LIMIT_S * NS_PER_SEC;) {
        int64_t ns = moves < MOVES ? g_rand_int_range(random, 1, 120) * NS_PER_MS : NS_PER_SEC;
        run_for(&r, m, ns);
        spent += ns;
        if (!r.ended && moves < MOVES) {
            m = move(&r, m, part[0], vcpus);
            moves++;
        }
    }
    machine_free(m);
    loop_free(r.loop);
    g_test_message("%s: moved %u times", part[0], moves);
    g_assert_true(r.ended && !r.failed);
    g_assert_cmpint(r.code, ==, GOOD_END);
    g_assert_cmpuint(moves, >, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-a") && i + 1 < argc) {
            accel = argv[++i];
            continue;
        }
        g_autofree char *name = g_path_get_basename(argv[i]);
        g_autofree char *path = g_strdup_printf("/state/guest/%s", name);
        g_test_add_data_func(path, argv[i], test_payload);
    }
    return g_test_run();
}
