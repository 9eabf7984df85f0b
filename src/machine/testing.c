/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The test accelerator, board and machine. */
#include "machine/testing.h"

#include "machine/chipset.h"

#include <stdlib.h>
#include <unistd.h>

struct test_vcpu {
    struct vcpu base;
    struct cpu_arch_state state;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool kicked;
    _Atomic unsigned runs;
};

enum vcpu_exit (*test_accel_run)(struct vcpu *v);

static struct test_vcpu *to_test(const struct vcpu *v)
{
    return container_of((struct vcpu *)(uintptr_t)v, struct test_vcpu, base);
}

static bool test_probe(bool by_name, char **ret_why)
{
    return true;
}

static struct accel *test_create(const struct accel_host *host, const struct cpu_model *model,
                                 const struct cpu_topology *topology, uint64_t ram_bytes, bool pit, GError **error)
{
    struct accel *a = g_new0(struct accel, 1);
    a->host = host;
    return a;
}

static void test_destroy(struct accel *a)
{
    g_free(a);
}

static void test_set_slots(struct accel *a, const struct accel_slot *slots, size_t count)
{
}

static struct vcpu *test_vcpu_new(struct accel *a, unsigned index, GError **error)
{
    struct test_vcpu *v = g_aligned_alloc0(1, sizeof(*v), 64);
    v->base.accel = a;
    v->base.index = index;
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->cond, NULL);
    return &v->base;
}

static void test_vcpu_free(struct vcpu *vcpu)
{
    g_aligned_free(to_test(vcpu));
}

void test_vcpu_wait_kick(struct vcpu *vcpu)
{
    struct test_vcpu *v = to_test(vcpu);
    pthread_mutex_lock(&v->lock);
    while (!v->kicked)
        pthread_cond_wait(&v->cond, &v->lock);
    v->kicked = false;
    pthread_mutex_unlock(&v->lock);
}

static enum vcpu_exit test_vcpu_run(struct vcpu *vcpu)
{
    to_test(vcpu)->runs++;
    if (test_accel_run)
        return test_accel_run(vcpu);
    test_vcpu_wait_kick(vcpu);
    return VCPU_EXIT_KICK;
}

static void test_vcpu_kick(struct vcpu *vcpu)
{
    struct test_vcpu *v = to_test(vcpu);
    pthread_mutex_lock(&v->lock);
    v->kicked = true;
    pthread_cond_signal(&v->cond);
    pthread_mutex_unlock(&v->lock);
}

static void test_vcpu_signal(struct vcpu *v, enum vcpu_signal_kind kind, uint8_t vector)
{
}

static void test_vcpu_reset(struct vcpu *v)
{
    memset(&to_test(v)->state, 0, sizeof(struct cpu_arch_state));
}

static bool test_vcpu_get_state(struct vcpu *v, struct cpu_arch_state *ret)
{
    *ret = to_test(v)->state;
    return true;
}

static bool test_vcpu_set_state(struct vcpu *v, const struct cpu_arch_state *s)
{
    to_test(v)->state = *s;
    return true;
}

static const char *test_vcpu_error(struct vcpu *v)
{
    return "as the test wanted";
}

static const struct accel_ops test_accel = {
    .name = "test", .summary = "No processor at all", .probe = test_probe, .create = test_create,
    .destroy = test_destroy, .set_slots = test_set_slots, .vcpu_new = test_vcpu_new, .vcpu_free = test_vcpu_free,
    .vcpu_run = test_vcpu_run, .vcpu_kick = test_vcpu_kick, .vcpu_signal = test_vcpu_signal,
    .vcpu_reset = test_vcpu_reset, .vcpu_get_state = test_vcpu_get_state, .vcpu_set_state = test_vcpu_set_state,
    .vcpu_error = test_vcpu_error,
};
ACCEL_TYPE(test_accel);

const struct cpu_arch_state *test_vcpu_state(const struct vcpu *v)
{
    return &to_test(v)->state;
}

unsigned test_vcpu_runs(const struct vcpu *v)
{
    return to_test(v)->runs;
}

static bool test_build(struct machine *m, GError **error)
{
    return true;
}

static const struct board_type test_board = {
    .name = "test", .summary = "Board without devices", .max_cpus = 64, .ram_low_max = Q35_RAM_LOW_MAX,
    .ram_low_split = Q35_RAM_LOW_SPLIT, .build = test_build, .boot = test_build,
};
BOARD_TYPE(test_board);

struct machine *test_machine(uint64_t ram_bytes, unsigned vcpus)
{
    struct machine_config c;
    g_autofree char *note = NULL;
    g_autoptr(GError) error = NULL;
    machine_config_init(&c);
    c.ram_bytes = ram_bytes;
    c.cpu_count = c.max_cpus = c.topology.sockets = vcpus;
    struct machine *m = machine_new(&test_board, &c, "test", loop_new("test"), &note, &error);
    g_assert_no_error(error);
    return m;
}

void test_machine_free(struct machine *m)
{
    struct loop *l = m->main_loop;
    machine_free(m);
    loop_free(l);
}

static char paths[8][64];

static void remove_files(void)
{
    for (unsigned i = 0; i < ARRAY_COUNT(paths); i++)
        if (paths[i][0])
            unlink(paths[i]);
}

const char *test_file(unsigned slot, const void *data, size_t len)
{
    static bool registered;
    if (!registered)
        atexit(remove_files);
    registered = true;
    char *path = paths[slot];
    if (!path[0]) {
        g_snprintf(path, sizeof(paths[0]), "%s/ruche-test-XXXXXX", g_get_tmp_dir());
        int fd = mkstemp(path);
        g_assert_cmpint(fd, >=, 0);
        close(fd);
    }
    g_assert_true(g_file_set_contents(path, data, (gssize)len, NULL));
    return path;
}
