/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine's life: sizes and their errors, run and stop without lost wake-ups, requests, resets. */
#include "machine/testing.h"

#include "base/units.h"
#include "machine/dirty.h"

static struct machine *try_new(struct machine_config *c, char **ret_message)
{
    g_autofree char *note = NULL;
    g_autoptr(GError) error = NULL;
    struct loop *l = loop_new("test");
    struct machine *m = machine_new(board_type_find("test"), c, "test", l, &note, &error);
    *ret_message = error ? g_strdup(error->message) : NULL;
    if (!m)
        loop_free(l);
    return m;
}

static void test_ram_split(void)
{
    static const struct {
        uint64_t ram, low;
    } rows[] = {
        { 64 * MIB, 64 * MIB }, { 2 * GIB, 2 * GIB },        { 2816 * MIB, 2816 * MIB },
        { 3 * GIB, 2 * GIB },   { 4 * GIB, 2 * GIB },        { 64 * GIB, 2 * GIB },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
        struct machine *m = test_machine(rows[i].ram, 1);
        g_assert_cmpuint(m->ram_below_4g, ==, rows[i].low);
        g_assert_cmpuint(m->ram_above_4g, ==, rows[i].ram - rows[i].low);
        uint64_t last = rows[i].ram == rows[i].low ? rows[i].low - 8 : 4 * GIB + m->ram_above_4g - 8, val = 0;
        g_assert_cmpint(mem_store_le64(m->memory, last, 0x1122334455667788), ==, 0);
        g_assert_cmpint(mem_load_le64(m->memory, last, &val), ==, 0);
        g_assert_cmphex(val, ==, 0x1122334455667788);
        g_assert_cmpint(mem_store_le64(m->memory, last + 8, 0), ==, -EFAULT);
        struct cpu_phys page = m->accel_host.translate(m, last & ~0xfffULL);
        g_assert_true(page.writable);
        g_assert_null(m->accel_host.translate(m, (last & ~0xfffULL) + 4096).hva);
        test_machine_free(m);
    }
}

static void test_bad_configs(void)
{
    struct machine_config c;
    g_autofree char *message = NULL;
    machine_config_init(&c);
    c.ram_bytes = 1ULL << 50;
    g_assert_null(try_new(&c, &message));
    g_assert_nonnull(strstr(message, "no room for RAM"));
    g_clear_pointer(&message, g_free);
    machine_config_init(&c);
    c.ram_bytes = 4096;
    g_assert_null(try_new(&c, &message));
    g_assert_nonnull(strstr(message, "-m"));
    g_clear_pointer(&message, g_free);
    machine_config_init(&c);
    c.cpu_count = c.topology.sockets = 65;
    g_assert_null(try_new(&c, &message));
    g_assert_nonnull(strstr(message, "65"));
    g_clear_pointer(&message, g_free);
    machine_config_init(&c);
    c.cpu_count = 3;
    g_assert_null(try_new(&c, &message));
    g_assert_nonnull(strstr(message, "-smp"));
    g_clear_pointer(&message, g_free);
    machine_config_init(&c);
    c.cpu_model = "nosuchcpu";
    g_assert_null(try_new(&c, &message));
    g_assert_nonnull(strstr(message, "nosuchcpu"));
}

static void test_run_stop(void)
{
    struct machine *m = test_machine(64 * MIB, 64);
    g_assert_false(machine_is_running(m));
    for (unsigned i = 0; i < 500; i++) {
        machine_run(m);
        g_assert_true(machine_is_running(m));
        machine_stop(m);
        g_assert_false(machine_is_running(m));
        int64_t now = clock_now_ns(&m->clock);
        g_assert_cmpint(now, ==, clock_now_ns(&m->clock));
    }
    test_machine_free(m);
}

/* A vCPU that leaves the guest all the time, as one that does nothing but I/O. */
static enum vcpu_exit run_shortly(struct vcpu *v)
{
    return VCPU_EXIT_KICK;
}

static void test_stop_busy(void)
{
    test_accel_run = run_shortly;
    struct machine *m = test_machine(64 * MIB, 4);
    for (unsigned i = 0; i < 200; i++) {
        machine_run(m);
        machine_stop(m);
        unsigned runs = test_vcpu_runs(m->vcpus[0]);
        g_assert_cmpuint(runs, ==, test_vcpu_runs(m->vcpus[0]));
    }
    test_machine_free(m);
    test_accel_run = NULL;
}

struct seen {
    struct machine *m;
    unsigned requests[8], events;
    int code;
    unsigned runs_at_request;
    bool reset;
};

static void on_request(void *opaque, enum machine_request what, int code)
{
    struct seen *s = opaque;
    s->requests[what]++;
    s->code = code;
    s->runs_at_request = test_vcpu_runs(s->m->vcpus[0]);
    if (s->reset)
        g_assert_true(machine_reset(s->m, NULL));
}

static void on_event(void *opaque, const char *name, const char *const *pairs)
{
    struct seen *s = opaque;
    g_assert_cmpstr(name, ==, "TEST");
    g_assert_cmpstr(pairs[1], ==, "value");
    s->events++;
}

static void wait_requests(struct seen *s, enum machine_request what, unsigned count)
{
    while (s->requests[what] < count)
        loop_once(s->m->main_loop, 1000);
}

static struct machine *request_from;
static enum vcpu_exit run_and_ask(struct vcpu *v)
{
    if (v->index == 0)
        machine_request(request_from, MACHINE_REQ_DEBUG_EXIT, 7);
    test_vcpu_wait_kick(v);
    return VCPU_EXIT_KICK;
}

/* Who asks for the end executes nothing more until the main thread has heard it. */
static void test_request_holds(void)
{
    test_accel_run = run_and_ask;
    struct machine *m = request_from = test_machine(64 * MIB, 2);
    struct seen s = { .m = m };
    m->observer = (struct machine_observer){ .request = on_request, .opaque = &s };
    machine_run(m);
    g_usleep(20000);
    g_assert_cmpuint(test_vcpu_runs(m->vcpus[0]), ==, 1);
    wait_requests(&s, MACHINE_REQ_DEBUG_EXIT, 1);
    g_assert_cmpint(s.code, ==, 7);
    g_assert_cmpuint(s.runs_at_request, ==, 1);
    wait_requests(&s, MACHINE_REQ_DEBUG_EXIT, 2); /* answered: it ran on, and asked again */
    machine_stop(m);
    test_machine_free(m);
    test_accel_run = NULL;
}

static enum vcpu_exit run_to_shutdown(struct vcpu *v)
{
    if (v->index == 0)
        return VCPU_EXIT_SHUTDOWN;
    test_vcpu_wait_kick(v);
    return VCPU_EXIT_KICK;
}

static void test_triple_fault_resets(void)
{
    test_accel_run = run_to_shutdown;
    struct machine *m = test_machine(64 * MIB, 2);
    struct seen s = { .m = m, .reset = true };
    m->observer = (struct machine_observer){ .request = on_request, .opaque = &s };
    machine_run(m);
    wait_requests(&s, MACHINE_REQ_RESET, 20);
    g_assert_true(machine_is_running(m));
    test_machine_free(m);
    test_accel_run = NULL;
}

static enum vcpu_exit run_to_error(struct vcpu *v)
{
    return VCPU_EXIT_ERROR;
}

/* An internal error is told once, and the vCPU stays out of the guest until a reset. */
static void test_internal_error(void)
{
    test_accel_run = run_to_error;
    struct machine *m = test_machine(64 * MIB, 1);
    struct seen s = { .m = m };
    m->observer = (struct machine_observer){ .request = on_request, .opaque = &s };
    machine_run(m);
    wait_requests(&s, MACHINE_REQ_INTERNAL_ERROR, 1);
    g_usleep(10000);
    g_assert_cmpuint(test_vcpu_runs(m->vcpus[0]), ==, 1);
    g_assert_true(machine_reset(m, NULL));
    wait_requests(&s, MACHINE_REQ_INTERNAL_ERROR, 2);
    test_machine_free(m);
    test_accel_run = NULL;
}

/* A guest may cause events without end; only so many wait. */
static void test_event_flood(void)
{
    struct machine *m = test_machine(64 * MIB, 1);
    struct seen s = { .m = m };
    static const char *const pairs[] = { "key", "value", NULL };
    m->observer = (struct machine_observer){ .event = on_event, .opaque = &s };
    for (unsigned i = 0; i < 10000; i++)
        machine_event(m, "TEST", pairs);
    loop_once(m->main_loop, 0);
    g_assert_cmpuint(s.events, >, 0);
    g_assert_cmpuint(s.events, <=, 64);
    for (unsigned i = 0; i < 10000; i++)
        machine_request(m, MACHINE_REQ_POWEROFF, 0);
    test_machine_free(m);
}

/* What devices write, at the ends of both parts of RAM and across pages; nothing before the start, nothing twice. */
static void test_dirty(void)
{
    struct machine *m = test_machine(3 * GIB, 1);
    g_autofree uint64_t *got = g_new0(uint64_t, machine_dirty_pages(m) / 64);
    g_autoptr(GError) error = NULL;
    g_assert_cmpuint(machine_dirty_pages(m), ==, 5 * GIB / 4096);
    mem_store_le64(m->memory, 0x1000, 1);
    g_assert_true(machine_dirty_start(m, &error));
    g_assert_cmpuint(machine_dirty_harvest(m, got), ==, 0);
    mem_store_le64(m->memory, 0, 1);
    mem_store_le64(m->memory, 0x4ffc, 1);
    mem_store_le64(m->memory, 2 * GIB - 8, 1);
    mem_store_le64(m->memory, 4 * GIB, 1);
    mem_store_le64(m->memory, 5 * GIB - 8, 1);
    mem_written(m->memory, UINT64_MAX - 8, 8);
    g_assert_cmpuint(machine_dirty_harvest(m, got), ==, 6);
    g_assert_cmphex(got[0], ==, 1 << 0 | 1 << 4 | 1 << 5);
    g_assert_cmphex(got[2 * GIB / 4096 / 64 - 1], ==, 1ull << 63);
    g_assert_cmphex(got[4 * GIB / 4096 / 64], ==, 1);
    g_assert_cmphex(got[5 * GIB / 4096 / 64 - 1], ==, 1ull << 63);
    g_assert_cmpuint(machine_dirty_harvest(m, got), ==, 0);
    machine_dirty_stop(m);
    mem_store_le64(m->memory, 0, 1);
    g_assert_true(machine_dirty_start(m, &error));
    g_assert_cmpuint(machine_dirty_harvest(m, got), ==, 0);
    test_machine_free(m);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/machine/ram-split", test_ram_split);
    g_test_add_func("/machine/bad-configs", test_bad_configs);
    g_test_add_func("/machine/run-stop", test_run_stop);
    g_test_add_func("/machine/stop-busy", test_stop_busy);
    g_test_add_func("/machine/request-holds", test_request_holds);
    g_test_add_func("/machine/triple-fault", test_triple_fault_resets);
    g_test_add_func("/machine/internal-error", test_internal_error);
    g_test_add_func("/machine/event-flood", test_event_flood);
    g_test_add_func("/machine/dirty", test_dirty);
    return g_test_run();
}
