/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The unit tests' machine: see testing.h. */
#include "devices/testing.h"

#include <stdlib.h>
#include <string.h>

#define TEST_RAM (1 * MIB)

__thread struct vcpu *current_vcpu;

static struct test_machine *test_of(struct machine *m)
{
    return container_of(m, struct test_machine, m);
}

void machine_request(struct machine *m, enum machine_request what, int code)
{
    struct test_machine *t = test_of(m);
    t->request = (int)what;
    t->request_code = code;
    t->requests++;
}

void machine_event(struct machine *m, const char *name, const char *const *pairs)
{
    struct test_machine *t = test_of(m);
    t->event = name;
    t->events++;
}

/* No test has a processor model. */
void cpu_model_cpuid(const struct cpu_model *m, const struct cpu_topology *t, unsigned index, uint32_t leaf,
                     uint32_t subleaf, uint32_t ret[4])
{
    g_assert_not_reached();
}

static void test_signal(struct vcpu *v, enum vcpu_signal_kind kind, uint8_t vector)
{
    struct test_machine *t = container_of(v->accel, struct test_machine, accel);
    __atomic_fetch_add(&t->signals[v->index][kind], 1, __ATOMIC_SEQ_CST);
    if (kind == VCPU_SIGNAL_SIPI)
        t->sipi_vector[v->index] = vector;
}

/* The guest's TSC goes with the test's clock. */
static uint64_t test_tsc(struct vcpu *v, uint64_t *ret_khz)
{
    struct test_machine *t = container_of(v->accel, struct test_machine, accel);
    *ret_khz = t->tsc_khz;
    return (uint64_t)clock_now_ns(&t->m.clock) * t->tsc_khz / 1000000;
}

static const struct accel_ops test_ops = {
    .name = "test", .summary = "Keeps what it is told", .vcpu_signal = test_signal, .vcpu_tsc = test_tsc,
};

static void gsi_recorded(void *opaque, int n, int level)
{
    struct test_machine *t = opaque;
    t->gsi_rises[n] += level && !t->gsi_level[n];
    t->gsi_level[n] = level;
}

struct test_machine *test_machine_new(unsigned vcpus)
{
    struct test_machine *t = g_new0(struct test_machine, 1);
    struct machine *m = &t->m;
    t->request = -1;
    t->tsc_khz = 2000000;
    t->accel.ops = &test_ops;
    m->accel = &t->accel;
    m->config.topology = (struct cpu_topology){ 1, 1, vcpus, 1 };
    m->config.cpu_count = m->config.max_cpus = m->vcpu_count = vcpus;
    m->vcpus = t->vcpus;
    for (unsigned i = 0; i < vcpus; i++) {
        t->vcpu[i] = (struct vcpu){ .accel = &t->accel, .index = i, .present = true };
        t->vcpus[i] = &t->vcpu[i];
    }
    m->memory = mem_space_new("memory", 1ULL << 52);
    m->io = mem_space_new("io", 1 << 16);
    m->main_loop = loop_new("test");
    clock_init(&m->clock);
    m->fw_cfg = fw_cfg_new();
    t->ram = aligned_alloc(4096, TEST_RAM); /* whole pages can be given back */
    g_assert_nonnull(t->ram);
    memset(t->ram, 0, TEST_RAM);
    m->ram = t->ram;
    m->ram_below_4g = m->config.ram_bytes = TEST_RAM;
    mem_region_init_ram(&t->ram_region, "ram", MEM_RAM, t->ram, TEST_RAM, -1, 0);
    g_assert_cmpint(mem_region_add(m->memory, &t->ram_region, 0, 0), ==, 0);
    for (int n = 0; n < TEST_GSIS; n++)
        m->gsi[n] = (struct irq_line){ .set = gsi_recorded, .opaque = t, .n = n };
    return t;
}

void test_machine_free(struct test_machine *t)
{
    struct machine *m = &t->m;
    while (m->devices) {
        struct device *last = m->devices;
        while (last->next)
            last = last->next;
        device_free(last);
    }
    mem_region_remove(&t->ram_region);
    mem_space_free(m->memory);
    mem_space_free(m->io);
    fw_cfg_free(m->fw_cfg);
    clock_done(&m->clock);
    loop_free(m->main_loop);
    current_vcpu = NULL;
    free(t->ram);
    g_free(t);
}

struct device *test_device(struct test_machine *t, const char *type, ...)
{
    g_autoptr(GError) error = NULL;
    struct device *d = device_new(&t->m, type, &error);
    g_assert_no_error(error);
    va_list ap;
    va_start(ap, type);
    for (const char *prop; (prop = va_arg(ap, const char *));) {
        device_set(d, prop, va_arg(ap, const char *), &error);
        g_assert_no_error(error);
    }
    va_end(ap);
    device_realize(d, &error);
    g_assert_no_error(error);
    device_reset(d);
    return d;
}

void test_advance_ns(struct test_machine *t, int64_t ns)
{
    struct clock *c = &t->m.clock;
    int64_t end = c->stopped_ns + ns;
    for (;;) {
        struct clock_timer *first = NULL;
        for (struct clock_timer *timer = c->timers; timer; timer = timer->next) {
            if (timer->deadline_ns <= end && (!first || timer->deadline_ns < first->deadline_ns))
                first = timer;
        }
        if (!first)
            break;
        if (first->deadline_ns > c->stopped_ns)
            c->stopped_ns = first->deadline_ns;
        first->deadline_ns = INT64_MAX;
        first->fn(first->opaque);
    }
    c->stopped_ns = end;
}

void test_use_vcpu(struct test_machine *t, int index)
{
    current_vcpu = index < 0 ? NULL : &t->vcpu[index];
}
