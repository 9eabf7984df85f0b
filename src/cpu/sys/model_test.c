/* SPDX-License-Identifier: GPL-2.0-or-later */
/* -cpu's syntax, what the models show, CPUID's consistency. */
#include "cpu/cpu.h"
#include "cpu/sys/model.h"

#include <glib.h>

static const struct cpu_topology one = { 1, 1, 1, 1 };

static uint32_t *leaf(const struct cpu_model *m, uint32_t l, uint32_t sub)
{
    static uint32_t r[4];
    cpu_model_cpuid(m, &one, 0, l, sub, r);
    return r;
}

static struct cpu_model *parse(const char *text)
{
    char *error = NULL;
    struct cpu_model *m = cpu_model_parse(text, &error);
    g_assert_cmpstr(error, ==, NULL);
    g_assert_nonnull(m);
    return m;
}

static void test_names(void)
{
    for (const char *const *n = cpu_model_names(); *n; n++)
        cpu_model_free(parse(*n));
    struct cpu_model *m = parse("max,-avx,smep=on,tsc_deadline=off,tsc-frequency=2000000000,hv_relaxed,"
                                "kvm-pv-eoi=on,pmu=off");
    g_assert_false(leaf(m, 1, 0)[2] >> 28 & 1);
    g_assert_false(leaf(m, 1, 0)[2] >> 24 & 1);
    g_assert_false(leaf(m, 7, 0)[1] >> 5 & 1); /* AVX2 goes with AVX */
    g_assert_cmpuint(leaf(m, 0xd, 0)[0], ==, 3);
    g_assert_cmpuint(leaf(m, 0x40000010, 0)[0], ==, 2000000);
    cpu_model_free(m);
}

static void test_errors(void)
{
    static const struct {
        const char *text, *expect;
    } cases[] = {
        { "bas", "did you mean 'base'" },
        { "max,+smepp", "did you mean 'smep'" },
        { "max,tsc-frequency=fast", "tsc-frequency=fast" },
        { "max,vendor=Nobody", "12 characters" },
        { "max,smep=perhaps", "on or off" },
        { "max,enforce,+avx512f", "not implemented" },
        { "max,phys-bits=60", "phys-bits=60" },
        { "", "no model" },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        char *error = NULL;
        g_assert_null(cpu_model_parse(cases[i].text, &error));
        g_assert_nonnull(error);
        g_assert_nonnull(strstr(error, cases[i].expect));
        g_free(error);
    }
}

/* The base model is x86-64-v1 and no more. */
static void test_base(void)
{
    struct cpu_model *m = parse("base");
    uint32_t c = leaf(m, 1, 0)[2], d = leaf(m, 1, 0)[3];
    g_assert_cmphex(c & ~(1u << 21 | 1u << 24 | 1u << 31), ==, 0); /* x2APIC, TSC deadline, hypervisor */
    uint32_t v1 = 1u << 0 | 1u << 8 | 1u << 15 | 1u << 23 | 1u << 24 | 1u << 25 | 1u << 26;
    g_assert_cmphex(d & v1, ==, v1);
    g_assert_cmphex(leaf(m, 0x80000001, 0)[3] & (1u << 29 | 1u << 20 | 1u << 11), ==,
                    1u << 29 | 1u << 20 | 1u << 11);
    g_assert_cmphex(leaf(m, 0x80000007, 0)[3], ==, 1u << 8);
    g_assert_cmpuint(leaf(m, 0x80000008, 0)[0] & 255, ==, 40);
    g_assert_cmpuint(leaf(m, 0x12345678, 0)[0], ==, 0);
    g_assert_cmpmem(&leaf(m, 0x40000000, 0)[1], 12, "KVMKVMKVM\0\0\0", 12);
    cpu_model_free(m);
}

static void test_never_avx512(void)
{
    struct cpu_model *m = parse("max,+avx512f,+vmx,+svm");
    g_assert_cmphex(leaf(m, 7, 0)[1] & 0xdc230000, ==, 0);
    g_assert_cmphex(leaf(m, 1, 0)[2] & 1u << 5, ==, 0);
    g_assert_cmphex(leaf(m, 0xd, 0)[0] & ~7u, ==, 0);
    cpu_model_free(m);
}

/* All leaves that tell the TSC's frequency agree. */
static void test_tsc(void)
{
    struct cpu_model *m = parse("base");
    uint64_t khz = leaf(m, 0x40000010, 0)[0];
    g_assert_cmpuint(khz, ==, tsc_host_khz());
    g_assert_cmpuint(khz, >, 100000);
    g_assert_cmpuint(khz, <, 20000000);
    uint32_t *r = leaf(m, 0x15, 0);
    if (r[0])
        g_assert_cmpuint((uint64_t)r[2] * r[1] / r[0], ==, khz * 1000);
    cpu_model_free(m);
}

static void test_topology(void)
{
    const struct cpu_topology t = { 2, 1, 3, 2 };
    struct cpu_model *m = parse("max");
    uint32_t r[4];
    for (unsigned i = 0; i < 12; i++) {
        cpu_model_cpuid(m, &t, i, 0xb, 0, r);
        g_assert_cmpuint(r[0], ==, 1);
        g_assert_cmpuint(r[1], ==, 2);
        g_assert_cmphex(r[2], ==, 0x100);
        g_assert_cmpuint(r[3], ==, cpu_topology_apic_id(&t, i));
        cpu_model_cpuid(m, &t, i, 0xb, 1, r);
        g_assert_cmpuint(r[0], ==, 3);
        g_assert_cmpuint(r[1], ==, 6);
        g_assert_cmphex(r[2], ==, 0x201);
        cpu_model_cpuid(m, &t, i, 0xb, 2, r);
        g_assert_cmphex(r[2], ==, 2);
        cpu_model_cpuid(m, &t, i, 1, 0, r);
        g_assert_cmpuint(r[1] >> 24, ==, cpu_topology_apic_id(&t, i));
        g_assert_cmpuint(r[1] >> 16 & 255, ==, 6);
    }
    cpu_model_free(m);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/model/names", test_names);
    g_test_add_func("/model/errors", test_errors);
    g_test_add_func("/model/base", test_base);
    g_test_add_func("/model/never-avx512", test_never_avx512);
    g_test_add_func("/model/tsc", test_tsc);
    g_test_add_func("/model/topology", test_topology);
    return g_test_run();
}
