/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ACPI tables: checksums, lengths and addresses, and ACPICA's disassembler and compiler as the judge of the AML. */
#include "base/scratch.h"
#include "machine/acpi/acpi.h"
#include "machine/boot/mptable.h"
#include "machine/boot/smbios.h"
#include "machine/chipset.h"
#include "machine/testing.h"

#include <glib/gstdio.h>

#define BASE 0xe0000u

static bool fake_realize(struct device *d, GError **error)
{
    return true;
}

/* Stand-ins for the devices that the tables look for. */
#define FAKE(ident, n)                                                                             \
    static const struct device_type ident = { .name = n, .summary = "test", .size = sizeof(struct device), \
                                              .internal = true, .realize = fake_realize };         \
    DEVICE_TYPE(ident)
FAKE(fake_hpet, "hpet");
FAKE(fake_rtc, "mc146818rtc");
FAKE(fake_kbd, "i8042");
FAKE(fake_pit, "i8254");
FAKE(fake_fw_cfg, "fw_cfg");
FAKE(fake_pvpanic, "pvpanic");
FAKE(fake_serial, "isa-serial");
FAKE(fake_cpus, CPU_HOTPLUG_TYPE);

static const uint8_t line_irq[] = Q35_PIRQ_IRQS;
static const struct acpi_board q35 = {
    .line_irq = line_irq,
    .ecam_base = Q35_ECAM_BASE, .ecam_bytes = Q35_ECAM_BYTES, .mem_base = Q35_MEM_WINDOW_BASE,
    .mem_end = Q35_MEM_WINDOW_END, .pci_line = q35_pci_line,
};
static const struct acpi_board microvm = {
    .reduced = true, .ecam_base = MICROVM_ECAM_BASE, .ecam_bytes = MICROVM_ECAM_BYTES,
    .mem_base = MICROVM_MEM_WINDOW_BASE, .mem_end = MICROVM_MEM_WINDOW_END, .pci_line = microvm_pci_line,
    .sleep_type_s5 = MICROVM_SLEEP_TYPE_S5,
};

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;
    while (len--)
        s += *p++;
    return s;
}

static uint64_t get(const GByteArray *b, uint64_t off, unsigned size)
{
    uint64_t v = 0;
    g_assert_true(range_fits(off, size, b->len));
    memcpy(&v, b->data + off, size);
    return v;
}

/* iasl on one table: it must take it apart and, for AML, compile its own output again without a word. */
static void judge(const char *folder, const char *name, const uint8_t *table, uint32_t len)
{
    g_autofree char *path = g_strdup_printf("%s/%s.aml", folder, name);
    g_autofree char *source = g_strdup_printf("%s/%s.dsl", folder, name);
    g_autofree char *out = NULL;
    g_autofree char *err = NULL;
    int status;
    g_assert_true(g_file_set_contents(path, (const char *)table, len, NULL));
    const char *apart[] = { "iasl", "-d", path, NULL };
    g_assert_true(g_spawn_sync(NULL, (char **)apart, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status, NULL));
    if (status || strstr(err, "rror") || strstr(out, "rror"))
        g_test_message("%s: %s%s", name, out, err);
    g_assert_cmpint(status, ==, 0);
    g_assert_null(strstr(err, "rror"));
    g_autofree char *text = NULL;
    g_assert_true(g_file_get_contents(source, &text, NULL, NULL));
    g_assert_null(strstr(text, "**** "));
    if (!strcmp(name, "DSDT")) {
        const char *again[] = { "iasl", "-tc", "-p", folder, source, NULL };
        g_clear_pointer(&out, g_free);
        g_clear_pointer(&err, g_free);
        g_assert_true(
            g_spawn_sync(NULL, (char **)again, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status, NULL));
        if (!strstr(out, "0 Errors, 0 Warnings"))
            g_test_message("%s%s", out, err);
        g_assert_nonnull(strstr(out, "0 Errors, 0 Warnings"));
    }
    g_unlink(path);
    g_unlink(source);
}

static unsigned check_tables(struct machine *m, const struct acpi_board *board, bool with_iasl)
{
    g_autoptr(GByteArray) b = acpi_build(m, board, BASE);
    g_autofree char *folder = g_dir_make_tmp("ruche-acpi-XXXXXX", NULL);
    g_assert_cmpuint(b->len, <=, 0x10000);
    g_assert_true(!memcmp(b->data, "RSD PTR ", 8));
    g_assert_cmpuint(sum(b->data, 20), ==, 0);
    g_assert_cmpuint(sum(b->data, 36), ==, 0);
    uint64_t xsdt = get(b, 24, 8) - BASE, rsdt = get(b, 16, 4) - BASE;
    unsigned count = (unsigned)(get(b, xsdt + 4, 4) - 36) / 8;
    g_assert_cmpuint(count, ==, (get(b, rsdt + 4, 4) - 36) / 4);
    for (unsigned i = 0; i <= count; i++) {
        uint64_t at = i < count ? get(b, xsdt + 36 + 8 * i, 8) - BASE : xsdt;
        uint32_t len = (uint32_t)get(b, at + 4, 4);
        char name[5] = { 0 };
        memcpy(name, b->data + at, 4);
        g_assert_true(range_fits(at, len, b->len));
        g_assert_cmpuint(sum(b->data + at, len), ==, 0);
        if (with_iasl && strcmp(name, "XSDT"))
            judge(folder, name, b->data + at, len);
        if (!strcmp(name, "FACP")) {
            uint64_t dsdt = get(b, at + 140, 8) - BASE, facs = get(b, at + 36, 4) - BASE;
            g_assert_cmphex(dsdt + BASE, ==, get(b, at + 40, 4));
            g_assert_cmpuint(facs % 64, ==, 0);
            g_assert_true(!memcmp(b->data + facs, "FACS", 4));
            if (with_iasl)
                judge(folder, "DSDT", b->data + dsdt, (uint32_t)get(b, dsdt + 4, 4));
        }
    }
    g_rmdir(folder);
    return count;
}

static void add_fakes(struct machine *m)
{
    static const char *const names[] = { "hpet", "mc146818rtc", "i8042", "i8254", "fw_cfg", "pvpanic", "isa-serial",
                                         "isa-serial" };
    for (unsigned i = 0; i < ARRAY_COUNT(names); i++)
        g_assert_nonnull(device_make(m, names[i], NULL, NULL));
    m->pci = (struct pci_bus *)m; /* only that there is one is looked at */
}

static bool have_iasl(void)
{
    g_autofree char *path = g_find_program_in_path("iasl");
    return path;
}

static void test_tables(const struct acpi_board *board, bool fakes)
{
    static const unsigned vcpus[] = { 1, 2, 64 };
    for (unsigned i = 0; i < ARRAY_COUNT(vcpus); i++) {
        struct machine *m = test_machine(i ? 8 * GIB : 64 * MIB, vcpus[i]);
        if (fakes)
            add_fakes(m);
        g_assert_cmpuint(check_tables(m, board, have_iasl()), ==, fakes ? 5 : 3);
        m->pci = NULL;
        test_machine_free(m);
    }
    if (!have_iasl())
        g_test_skip("iasl is not installed: the AML was not disassembled");
}

static void test_q35(void)
{
    test_tables(&q35, true);
}

static void test_microvm(void)
{
    test_tables(&microvm, true);
}

static void test_bare(void)
{
    test_tables(&microvm, false);
}

/* vCPUs that may come: not enabled, but online capable; AML that ACPICA takes. */
static void test_cpu_hotplug(void)
{
    static const struct acpi_board *const boards[] = { &q35, &microvm };
    for (unsigned i = 0; i < ARRAY_COUNT(boards); i++) {
        struct machine *m = test_machine(64 * MIB, 4);
        m->vcpus[2]->present = m->vcpus[3]->present = false;
        m->vcpus[3]->apic_id = 300;
        g_assert_nonnull(device_make(m, CPU_HOTPLUG_TYPE, NULL, NULL));
        check_tables(m, boards[i], have_iasl());
        g_autoptr(GByteArray) b = acpi_build(m, boards[i], BASE);
        uint64_t xsdt = get(b, 24, 8) - BASE, madt = get(b, xsdt + 36 + 8, 8) - BASE;
        g_assert_cmpuint(get(b, madt + 44 + 8 + 4, 4), ==, 1);
        g_assert_cmpuint(get(b, madt + 44 + 16 + 4, 4), ==, 2);
        g_assert_cmpuint(get(b, madt + 44 + 24 + 8, 4), ==, 2); /* the x2APIC's */
        g_autoptr(GByteArray) body = acpi_dsdt_body(m, boards[i]);
        static const char *const names[] = { "CSCN", "_EJ0", "_MAT", "_OST" };
        for (unsigned n = 0; n < ARRAY_COUNT(names); n++)
            g_assert_nonnull(memmem(body->data, body->len, names[n], 4));
        g_assert_true(!!memmem(body->data, body->len, "_E02", 4) == !boards[i]->reduced);
        test_machine_free(m);
    }
}

static void test_wide_apic_ids(void)
{
    struct machine *m = test_machine(64 * MIB, 2);
    m->vcpus[1]->apic_id = 300;
    g_autoptr(GByteArray) b = acpi_build(m, &q35, BASE);
    uint64_t xsdt = get(b, 24, 8) - BASE, madt = get(b, xsdt + 36 + 8, 8) - BASE;
    g_assert_true(!memcmp(b->data + madt, "APIC", 4));
    g_assert_cmpuint(get(b, madt + 44, 1), ==, 0);
    g_assert_cmpuint(get(b, madt + 52, 1), ==, 9); /* x2APIC */
    g_assert_cmpuint(get(b, madt + 56, 4), ==, 300);
    test_machine_free(m);
}

/* Walks the structures as an operating system does. */
static void check_smbios(struct machine *m)
{
    g_autoptr(GByteArray) b = smbios_build(m, 0xf0000);
    unsigned seen[256] = { 0 };
    g_assert_true(!memcmp(b->data, "_SM3_", 5));
    g_assert_cmpuint(sum(b->data, b->data[6]), ==, 0);
    g_assert_cmphex(get(b, 16, 8), ==, 0xf0020);
    g_assert_cmpuint(b->len, <=, 0x8000);
    uint64_t at = 32;
    while (at + 4 <= b->len) {
        uint8_t type = b->data[at], len = b->data[at + 1];
        seen[type]++;
        at += len;
        while (get(b, at, 2))
            at++;
        at += 2;
    }
    g_assert_cmpuint(at, ==, b->len);
    static const uint8_t once[] = { 0, 1, 3, 16, 32, 127 };
    for (unsigned i = 0; i < sizeof(once); i++)
        g_assert_cmpuint(seen[once[i]], ==, 1);
    g_assert_cmpuint(seen[4], ==, m->config.topology.sockets);
    g_assert_cmpuint(seen[17], >=, 1);
    g_assert_cmpuint(seen[19], ==, m->ram_above_4g ? 2 : 1);
}

static void test_smbios(void)
{
    struct machine *m = test_machine(64 * MIB, 1);
    m->config.name = "hive";
    check_smbios(m);
    test_machine_free(m);
    m = test_machine(64 * GIB, 64);
    check_smbios(m);
    test_machine_free(m);
}

static void test_mptable(void)
{
    struct machine *m = test_machine(64 * MIB, 64);
    const struct boot_board board = { .acpi = &q35 };
    m->pci = (struct pci_bus *)m;
    g_autoptr(GByteArray) b = mptable_build(m, &board, BOOT_MPTABLE_BASE);
    m->pci = NULL;
    g_assert_cmpuint(sum(b->data, 16), ==, 0);
    uint64_t at = get(b, 4, 4) - BOOT_MPTABLE_BASE;
    g_assert_cmpuint(get(b, at + 4, 2), ==, b->len - at);
    g_assert_cmpuint(sum(b->data + at, b->len - at), ==, 0);
    g_assert_cmpuint(b->len, <=, BOOT_MPTABLE_END - BOOT_MPTABLE_BASE);
    unsigned entries = (unsigned)get(b, at + 34, 2), cpus = 0;
    at += 44;
    for (unsigned i = 0; i < entries; i++) {
        cpus += b->data[at] == 0;
        at += b->data[at] == 0 ? 20 : 8;
    }
    g_assert_cmpuint(cpus, ==, 64);
    g_assert_cmpuint(at, ==, b->len);
    test_machine_free(m);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-acpi");
    g_test_add_func("/acpi/q35", test_q35);
    g_test_add_func("/acpi/microvm", test_microvm);
    g_test_add_func("/acpi/no-devices", test_bare);
    g_test_add_func("/acpi/wide-apic-ids", test_wide_apic_ids);
    g_test_add_func("/acpi/cpu-hotplug", test_cpu_hotplug);
    g_test_add_func("/acpi/smbios", test_smbios);
    g_test_add_func("/acpi/mptable", test_mptable);
    return g_test_run();
}
