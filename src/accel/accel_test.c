/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Accelerators: the choice among them, and small guests in real and protected mode run by each that
 * is here. */
#include "accel/accel.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM_BYTES (2u << 20)
#define MMIO_GPA 0xd0000000u
#define CODE_GPA 0x1000u
#define PORT_DATA 0x10u /* bytes are collected */
#define PORT_DONE 0x14u /* the guest says that it is ready: the vCPU is kicked */
#define PORT_COUNT 0x18u

/* A machine of RAM, one MMIO register and a few ports. */
struct rig {
    const struct accel_ops *ops;
    struct accel *accel;
    struct accel_host host;
    struct cpu_model *model;
    struct vcpu *vcpu[2];
    uint8_t *ram;
    char bytes[256];
    unsigned byte_count;
    uint64_t mmio_value;
    uint32_t done;
    _Atomic unsigned counted;
};

static uint64_t rig_mmio_read(void *opaque, struct vcpu *v, uint64_t gpa, unsigned size)
{
    struct rig *r = opaque;
    return gpa == MMIO_GPA ? r->mmio_value : ~0ull;
}

static void rig_mmio_write(void *opaque, struct vcpu *v, uint64_t gpa, uint64_t val, unsigned size)
{
    struct rig *r = opaque;
    if (gpa == MMIO_GPA)
        r->mmio_value = val;
}

static uint64_t rig_io_read(void *opaque, struct vcpu *v, uint16_t port, unsigned size)
{
    struct rig *r = opaque;
    return port == PORT_DATA ? (uint64_t)('a' + r->byte_count++ % 26) : ~0ull;
}

static void rig_io_write(void *opaque, struct vcpu *v, uint16_t port, uint64_t val, unsigned size)
{
    struct rig *r = opaque;
    if (port == PORT_DATA && r->byte_count < sizeof(r->bytes))
        r->bytes[r->byte_count++] = (char)val;
    if (port == PORT_COUNT)
        r->counted++;
    if (port == PORT_DONE) {
        r->done = (uint32_t)val;
        v->accel->ops->vcpu_kick(v);
    }
}

static struct cpu_phys rig_translate(void *opaque, uint64_t gpa)
{
    struct rig *r = opaque;
    return gpa < RAM_BYTES ? (struct cpu_phys){ .hva = r->ram + gpa, .writable = true }
                           : (struct cpu_phys){ .hva = NULL };
}

static struct rig *rig_new(const char *name, unsigned vcpus)
{
    GError *error = NULL;
    g_autofree char *note = NULL;
    char *model_error = NULL;
    struct rig *r = g_new0(struct rig, 1);
    r->ops = accel_choose(name, &note, &error);
    g_assert_no_error(error);
    r->host = (struct accel_host){ .opaque = r, .config.translate = CPU_TRANSLATE_ON,
                                   .mmio_read = rig_mmio_read, .mmio_write = rig_mmio_write,
                                   .io_read = rig_io_read, .io_write = rig_io_write, .translate = rig_translate };
    r->model = cpu_model_parse("max", &model_error);
    g_assert_nonnull(r->model);
    r->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct cpu_topology topology = { 1, 1, vcpus, 1 };
    r->accel = r->ops->create(&r->host, r->model, &topology, RAM_BYTES, true, &error);
    g_assert_no_error(error);
    r->accel->ops = r->ops;
    struct accel_slot slot = { 0, RAM_BYTES, r->ram, false };
    r->ops->set_slots(r->accel, &slot, 1);
    for (unsigned i = 0; i < vcpus; i++) {
        r->vcpu[i] = r->ops->vcpu_new(r->accel, i, &error);
        g_assert_no_error(error);
        r->ops->vcpu_reset(r->vcpu[i]);
    }
    return r;
}

static void rig_free(struct rig *r)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(r->vcpu); i++)
        r->ops->vcpu_free(r->vcpu[i]);
    r->ops->destroy(r->accel);
    cpu_model_free(r->model);
    munmap(r->ram, RAM_BYTES);
    g_free(r);
}

/* Puts code at CODE_GPA and the first vCPU there, in real mode. */
static void rig_load(struct rig *r, const void *code, size_t len)
{
    struct cpu_arch_state s;
    memcpy(r->ram + CODE_GPA, code, len);
    g_assert_true(r->ops->vcpu_get_state(r->vcpu[0], &s));
    s.seg[1].selector = 0;
    s.seg[1].base = 0;
    s.rip = CODE_GPA;
    s.gpr[4] = 0x800;
    g_assert_true(r->ops->vcpu_set_state(r->vcpu[0], &s));
}

#define GUEST_CODE(name, text)                                                                     \
    extern const uint8_t name[], name##_end[];                                                     \
    __asm__(".pushsection .rodata\n.globl " #name ", " #name "_end\n" #name ":\n.code16\n" text    \
            "\n.code64\n" #name "_end:\n.popsection\n")
#define LOAD(r, name) rig_load(r, name, (size_t)(name##_end - name))

GUEST_CODE(code_ports, "mov $'h', %al; out %al, $0x10; mov $'i', %al; out %al, $0x10\n"
                       "mov $0x12345678, %eax; out %eax, $0x14; hlt");
GUEST_CODE(code_strings, "cld; mov $4, %cx; mov $0x10, %dx; mov $0x2000, %di; rep insb\n"
                         "mov $3, %cx; mov $0x2001, %si; rep outsb\n"
                         "mov $1, %al; out %al, $0x14; hlt");
/* Protected mode with flat segments; the GDT stands at 0x500. MMIO; then INT3 through the IDT at
 * 0x600. */
#define TO_PROTECTED                                                                               \
    "cli; lgdtl 0x4f0; lidtl 0x5f0; mov %cr0, %eax; or $1, %al; mov %eax, %cr0; ljmpl $8, "        \
    "$0x1100\n"                                                                                    \
    ".fill 0x100 - (. - 0b), 1, 0x90; .code32; mov $16, %eax; mov %eax, %ds; mov %eax, %ss; mov "  \
    "$0x8000, %esp\n"
GUEST_CODE(code_mmio, "0:" TO_PROTECTED "mov 0xd0000000, %eax; inc %eax; mov %eax, 0xd0000000\n"
                      "mov 0xd0000000, %eax; out %eax, $0x14; hlt");
GUEST_CODE(code_int3, "0:" TO_PROTECTED
                      "mov $0x77, %ebx; int3; add $1, %ebx; mov %ebx, %eax; out %eax, $0x14; hlt\n"
                      ".fill 0x180 - (. - 0b), 1, 0x90; shl $8, %ebx; iret");
GUEST_CODE(code_triple, "0:" TO_PROTECTED "lidt 0x700; ud2");
GUEST_CODE(code_loop, "1: out %al, $0x18; jmp 1b");
GUEST_CODE(code_halt, "sti; 1: hlt; jmp 1b");
GUEST_CODE(code_ap,
           "mov $0x55aa, %ax; mov %ax, %ds:0x40; mov %cs, %ax; mov %ax, %ds:0x42; mov $7, %al\n"
           "out %al, $0x14; 1: hlt; jmp 1b");

static void put_tables(struct rig *r)
{
    static const uint64_t gdt[] = { 0, 0x00cf9b000000ffff, 0x00cf93000000ffff };
    static const uint16_t gate3[] = { 0x1180, 8, 0x8e00, 0 };
    memcpy(r->ram + 0x500, gdt, sizeof(gdt));
    memcpy(r->ram + 0x600 + 3 * 8, gate3, sizeof(gate3));
    memcpy(r->ram + 0x4f0, &(uint16_t){ sizeof(gdt) - 1 }, 2);
    memcpy(r->ram + 0x4f2, &(uint32_t){ 0x500 }, 4);
    memcpy(r->ram + 0x5f0, &(uint16_t){ 0x7f }, 2);
    memcpy(r->ram + 0x5f2, &(uint32_t){ 0x600 }, 4);
}

/* --- tests of each accelerator: the argument is its name --- */

static void test_ports(const void *name)
{
    struct rig *r = rig_new(name, 1);
    LOAD(r, code_ports);
    g_assert_cmpint(r->ops->vcpu_run(r->vcpu[0]), ==, VCPU_EXIT_KICK);
    g_assert_cmpstr(r->bytes, ==, "hi");
    g_assert_cmphex(r->done, ==, 0x12345678);
    g_assert_cmpuint(r->accel->stats.pio, >=, 3);
    rig_free(r);
}

static void test_string_ports(const void *name)
{
    struct rig *r = rig_new(name, 1);
    LOAD(r, code_strings);
    g_assert_cmpint(r->ops->vcpu_run(r->vcpu[0]), ==, VCPU_EXIT_KICK);
    g_assert_cmpmem(r->ram + 0x2000, 4, "abcd", 4);
    g_assert_cmpmem(r->bytes + 4, 3, "bcd", 3);
    rig_free(r);
}

static void test_mmio(const void *name)
{
    struct rig *r = rig_new(name, 1);
    put_tables(r);
    r->mmio_value = 0x1000;
    LOAD(r, code_mmio);
    g_assert_cmpint(r->ops->vcpu_run(r->vcpu[0]), ==, VCPU_EXIT_KICK);
    g_assert_cmphex(r->done, ==, 0x1001);
    g_assert_cmphex(r->mmio_value, ==, 0x1001);
    rig_free(r);
}

/* On a KVM in software this goes by the hand-over; the result is the same everywhere. */
static void test_int3(const void *name)
{
    struct rig *r = rig_new(name, 1);
    put_tables(r);
    LOAD(r, code_int3);
    enum vcpu_exit how = r->ops->vcpu_run(r->vcpu[0]);
    if (how == VCPU_EXIT_ERROR)
        g_test_message("%s", r->ops->vcpu_error(r->vcpu[0]));
    g_assert_cmpint(how, ==, VCPU_EXIT_KICK);
    g_assert_cmphex(r->done, ==, 0x7701);
    g_assert_cmpuint(r->accel->stats.emulated, ==, r->vcpu[0]->emulated);
    g_test_message("%s: %u instructions by hand-over", (const char *)name,
                   (unsigned)r->vcpu[0]->emulated);
    rig_free(r);
}

static void test_shutdown(const void *name)
{
    struct rig *r = rig_new(name, 1);
    put_tables(r);
    LOAD(r, code_triple);
    g_assert_cmpint(r->ops->vcpu_run(r->vcpu[0]), ==, VCPU_EXIT_SHUTDOWN);
    rig_free(r);
}

static void test_state(const void *name)
{
    struct rig *r = rig_new(name, 1);
    struct cpu_arch_state a, b;
    g_assert_true(r->ops->vcpu_get_state(r->vcpu[0], &a));
    g_assert_cmphex(a.rip, ==, 0xfff0);
    g_assert_cmphex(a.seg[1].base, ==, 0xffff0000);
    for (unsigned i = 0; i < 16; i++)
        a.gpr[i] = 0x1111111111111111ull * i;
    a.gpr[4] = 0x7000;
    a.dr[1] = 0x1234;
    a.cr2 = 0xabcd000;
    a.lstar = 0xffffffff81000000;
    a.nmi_blocked = true;
    memset(a.xsave + 160, 0x5a, 16); /* XMM0 */
    g_assert_true(r->ops->vcpu_set_state(r->vcpu[0], &a));
    g_assert_true(r->ops->vcpu_get_state(r->vcpu[0], &b));
    g_assert_cmpmem(a.gpr, sizeof(a.gpr), b.gpr, sizeof(b.gpr));
    g_assert_cmpmem(a.seg, sizeof(a.seg), b.seg, sizeof(b.seg));
    g_assert_cmpmem(a.dr, 32, b.dr, 32);
    g_assert_cmphex(a.cr2, ==, b.cr2);
    g_assert_cmphex(a.lstar, ==, b.lstar);
    g_assert_true(b.nmi_blocked);
    g_assert_cmpmem(a.xsave + 160, 256, b.xsave + 160, 256);
    r->ops->vcpu_reset(r->vcpu[0]);
    g_assert_true(r->ops->vcpu_get_state(r->vcpu[0], &b));
    g_assert_cmphex(b.rip, ==, 0xfff0);
    g_assert_cmphex(b.gpr[3], ==, 0);
    g_assert_cmphex(b.lstar, ==, 0);
    g_assert_false(b.nmi_blocked);
    rig_free(r);
}

struct runner {
    struct vcpu *vcpu;
    _Atomic unsigned kicks;
    _Atomic bool stop;
    enum vcpu_exit last;
};

static void *run_until_stopped(void *opaque)
{
    struct runner *t = opaque;
    while (!t->stop) {
        t->last = t->vcpu->accel->ops->vcpu_run(t->vcpu);
        if (t->last != VCPU_EXIT_KICK)
            break;
        t->kicks++;
    }
    return NULL;
}

static void wait_until_not_less(_Atomic unsigned *what, unsigned value)
{
    for (int i = 0; i < 20000 && *what < value; i++)
        g_usleep(500);
    g_assert_cmpuint(*what, >=, value);
}

/* Each kick is answered, whether the vCPU runs or sleeps. */
static void kick_many(struct rig *r, unsigned times)
{
    struct runner t = { .vcpu = r->vcpu[0] };
    pthread_t thread;
    pthread_create(&thread, NULL, run_until_stopped, &t);
    for (unsigned i = 1; i <= times; i++) {
        r->ops->vcpu_kick(r->vcpu[0]);
        wait_until_not_less(&t.kicks, i);
    }
    t.stop = true;
    r->ops->vcpu_kick(r->vcpu[0]);
    pthread_join(thread, NULL);
    g_assert_cmpint(t.last, ==, VCPU_EXIT_KICK);
}

static void test_kick_running(const void *name)
{
    struct rig *r = rig_new(name, 1);
    LOAD(r, code_loop);
    kick_many(r, 50);
    g_assert_cmpuint(r->counted, >, 0);
    rig_free(r);
}

static void test_kick_halted(const void *name)
{
    struct rig *r = rig_new(name, 1);
    LOAD(r, code_halt);
    kick_many(r, 50);
    rig_free(r);
}

static void test_kick_before_run(const void *name)
{
    struct rig *r = rig_new(name, 1);
    LOAD(r, code_loop);
    r->ops->vcpu_kick(r->vcpu[0]);
    g_assert_cmpint(r->ops->vcpu_run(r->vcpu[0]), ==, VCPU_EXIT_KICK);
    rig_free(r);
}

static void test_startup_ipi(const void *name)
{
    struct rig *r = rig_new(name, 2);
    memcpy(r->ram + 0x3000, code_ap, (size_t)(code_ap_end - code_ap));
    struct runner t = { .vcpu = r->vcpu[1] };
    pthread_t thread;
    pthread_create(&thread, NULL, run_until_stopped, &t);
    g_usleep(2000);
    g_assert_cmpuint(t.kicks, ==, 0);
    r->ops->vcpu_signal(r->vcpu[1], VCPU_SIGNAL_INIT, 0);
    g_usleep(2000);
    r->ops->vcpu_signal(r->vcpu[1], VCPU_SIGNAL_SIPI, 3);
    wait_until_not_less(&t.kicks, 1);
    g_assert_cmphex(r->done, ==, 7);
    g_assert_cmpmem(r->ram + 0x40, 4, "\xaa\x55\x00\x03", 4);
    t.stop = true;
    r->ops->vcpu_kick(r->vcpu[1]);
    pthread_join(thread, NULL);
    rig_free(r);
}

static uint64_t tsc_of(struct rig *r)
{
    struct cpu_arch_state s;
    g_assert_true(r->ops->vcpu_get_state(r->vcpu[0], &s));
    return s.tsc;
}

static bool is_default(const char *name)
{
    g_autofree char *note = NULL;
    const struct accel_ops *ops = accel_choose(NULL, &note, NULL);
    return ops && !strcmp(ops->name, name);
}

/* 200 ms of pause are not seen in the guest's TSC. */
static void test_clock_stopped(const void *name)
{
    if (!strcmp(name, "kvm") && !is_default(name)) {
        g_test_skip("a KVM in software cannot offset the guest's TSC");
        return;
    }
    struct rig *r = rig_new(name, 1);
    uint64_t begin = tsc_of(r);
    g_usleep(50000);
    uint64_t per_50ms = tsc_of(r) - begin;
    g_assert_cmpuint(per_50ms, >, 0);
    r->ops->clock_stopped(r->accel, true);
    uint64_t before = tsc_of(r);
    g_usleep(200000);
    r->ops->clock_stopped(r->accel, false);
    g_assert_cmpuint(tsc_of(r) - before, <, 2 * per_50ms);
    rig_free(r);
}

/* --- the choice --- */

static void test_choose(void)
{
    GError *error = NULL;
    char *note = NULL;
    g_assert_cmpstr(accel_choose("soft", &note, &error)->name, ==, "soft");
    g_assert_nonnull(strstr(note, "soft"));
    g_free(note);
    g_assert_cmpstr(accel_choose("tcg", &note, &error)->name, ==, "soft");
    g_free(note);
    const struct accel_ops *ops = accel_choose(NULL, &note, &error);
    g_assert_nonnull(ops);
    g_test_message("%s", note);
    if (!strcmp(ops->name, "soft"))
        g_assert_nonnull(strstr(note, "kvm was not taken"));
    g_free(note);
    g_assert_no_error(error);
}

static void test_choose_unknown(void)
{
    GError *error = NULL;
    char *note = NULL;
    g_assert_null(accel_choose("kvm:sotf", &note, &error));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_UNKNOWN);
    g_assert_nonnull(strstr(error->message, "'sotf'"));
    g_assert_nonnull(strstr(error->message, "'soft'"));
    g_clear_error(&error);
    g_assert_null(accel_choose("", &note, &error));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_INVALID);
    g_clear_error(&error);
}

static const struct {
    const char *name;
    GTestDataFunc fn;
} accel_tests[] = {
    { "ports", test_ports },
    { "string-ports", test_string_ports },
    { "mmio", test_mmio },
    { "int3", test_int3 },
    { "shutdown", test_shutdown },
    { "state", test_state },
    { "kick-running", test_kick_running },
    { "kick-halted", test_kick_halted },
    { "kick-before-run", test_kick_before_run },
    { "startup-ipi", test_startup_ipi },
    { "clock-stopped", test_clock_stopped },
};

static void add_tests_of(const char *accel)
{
    for (size_t i = 0; i < G_N_ELEMENTS(accel_tests); i++) {
        g_autofree char *path = g_strdup_printf("/accel/%s/%s", accel, accel_tests[i].name);
        g_test_add_data_func(path, accel, accel_tests[i].fn);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/accel/choose", test_choose);
    g_test_add_func("/accel/choose-unknown", test_choose_unknown);
    add_tests_of("soft");
    if (access("/dev/kvm", R_OK | W_OK) == 0)
        add_tests_of("kvm");
    return g_test_run();
}
