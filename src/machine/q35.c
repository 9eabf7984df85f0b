/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `q35`: a PCI Express PC with the chipset that stock firmware and kernels know.
 *
 * Spec      Intel Q35 (316966) and ICH9 (316972); ids and registers as guests expect them.
 * Map       RAM, all below 0xb0000000 or 2 GiB of it; ECAM at 0xb0000000; PCI memory 0xc0000000 to 0xfec00000;
 *           IOAPIC, HPET, LAPIC, firmware; the rest of the RAM from 4 GiB on; the 64-bit PCI window behind it.
 */
#include "machine/acpi/acpi.h"
#include "machine/board.h"
#include "machine/boot/boot.h"
#include "machine/chipset.h"

static const uint8_t line_irq[] = Q35_PIRQ_IRQS;

static const struct acpi_board acpi = {
    .line_irq = line_irq,
    .ecam_base = Q35_ECAM_BASE,
    .ecam_bytes = Q35_ECAM_BYTES,
    .mem_base = Q35_MEM_WINDOW_BASE,
    .mem_end = Q35_MEM_WINDOW_END,
    .pci_line = q35_pci_line,
    .sleep_type_s5 = Q35_SLEEP_TYPE_S5,
};

static const struct boot_reserved reserved[] = {
    { Q35_ECAM_BASE, Q35_ECAM_BYTES },
    { Q35_RCBA, Q35_RCBA_BYTES },
    { KVM_PAGES_BASE, KVM_PAGES_BYTES },
    { FIRMWARE_BASE, 4 * GIB - FIRMWARE_BASE },
    { 0 },
};

static const struct boot_board boot = { .reserved = reserved, .acpi = &acpi,
                                        .reset_port = Q35_RESET_PORT, .reset_value = Q35_RESET_VALUE };

/* In the order in which they must exist: who delivers interrupts before who raises them. */
static const struct board_part parts[] = {
    { .type = "lapic", .wanted = board_wants_user_irqchip },
    { .type = "ioapic", .wanted = board_wants_user_irqchip },
    { .type = "i8259", .wanted = board_wants_user_pic },
    { .type = "hpet", .wanted = board_wants_hpet },
    { .type = "i8254", .wanted = board_wants_user_pit },
    { .type = "mc146818rtc", .wanted = board_wants_rtc },
    { .type = "q35-pcihost" },
    { .type = "ich9-lpc", .prop = "addr", .value = "1f.0" },
    { .type = "i8042" },
    { .type = "port92" },
    { .type = "fw_cfg" },
    { .type = CPU_HOTPLUG_TYPE, .wanted = board_wants_cpu_hotplug },
};

static bool q35_build(struct machine *m, GError **error)
{
    return board_init(m, error) && board_map_vga_hole(m, error) &&
           board_make_parts(m, parts, ARRAY_COUNT(parts), error);
}

static bool q35_boot(struct machine *m, GError **error)
{
    return boot_machine(m, &boot, error);
}

static const struct prop q35_props[] = {
    PROP_BOOL("acpi", struct machine_config, acpi, .def = true, .help = "ACPI tables"),
    PROP_BOOL("smbios", struct machine_config, smbios, .def = true, .help = "SMBIOS tables"),
    PROP_BOOL("hpet", struct machine_config, hpet, .def = true, .help = "High precision event timer"),
    PROP_BOOL("graphics", struct machine_config, graphics, .def = true, .help = "Firmware may use a display"),
    PROP_BOOL("pit", struct machine_config, pit, .def = true, .help = "Interval timer i8254"),
    PROP_BOOL("pic", struct machine_config, pic, .def = true, .help = "Interrupt controllers i8259"),
    { 0 },
};

static const char *const q35_aliases[] = { "pc-q35-7.2", "pc", NULL };

static const struct board_type q35_type = {
    .name = "q35", .aliases = q35_aliases, .summary = "PC (Q35 and ICH9)", .props = q35_props,
    .max_cpus = 64, .ram_low_max = Q35_RAM_LOW_MAX, .ram_low_split = Q35_RAM_LOW_SPLIT,
    .build = q35_build, .boot = q35_boot, .destroy = board_destroy,
};
BOARD_TYPE(q35_type);
