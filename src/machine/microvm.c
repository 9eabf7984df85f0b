/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `microvm`: the few devices that a Linux guest needs, for the shortest way to its first instruction.
 *
 * Spec      ACPI 6.4, section 4.1 (hardware-reduced); PCI Express.
 * Map       RAM up to 3 GiB; PCI memory 0xc0000000 to 0xe0000000; ECAM at 0xe0000000; interrupt controllers; the rest
 *           of the RAM from 4 GiB on; the 64-bit PCI window behind it.
 */
#include "machine/acpi/acpi.h"
#include "machine/board.h"
#include "machine/boot/boot.h"
#include "machine/chipset.h"

static const struct acpi_board acpi = {
    .reduced = true,
    .ecam_base = MICROVM_ECAM_BASE,
    .ecam_bytes = MICROVM_ECAM_BYTES,
    .mem_base = MICROVM_MEM_WINDOW_BASE,
    .mem_end = MICROVM_MEM_WINDOW_END,
    .pci_line = microvm_pci_line,
    .sleep_type_s5 = MICROVM_SLEEP_TYPE_S5,
};

static const struct boot_reserved reserved[] = {
    { MICROVM_ECAM_BASE, MICROVM_ECAM_BYTES },
    { KVM_PAGES_BASE, KVM_PAGES_BYTES },
    { 0 },
};

static const struct boot_board boot = { .reserved = reserved, .acpi = &acpi,
                                        .reset_port = MICROVM_SLEEP_BASE + MICROVM_SLEEP_RESET,
                                        .reset_value = MICROVM_RESET_VALUE };

static const struct board_part parts[] = {
    { .type = "lapic", .wanted = board_wants_user_irqchip },
    { .type = "ioapic", .wanted = board_wants_user_irqchip },
    { .type = "i8259", .wanted = board_wants_user_pic },
    { .type = "i8254", .wanted = board_wants_user_pit },
    { .type = "mc146818rtc", .wanted = board_wants_rtc },
    { .type = "pcie-ecam-host" },
    { .type = "acpi-sleep" },
    { .type = "fw_cfg" },
    { .type = CPU_HOTPLUG_TYPE, .wanted = board_wants_cpu_hotplug },
};

static bool microvm_build(struct machine *m, GError **error)
{
    return board_init(m, error) && board_make_parts(m, parts, ARRAY_COUNT(parts), error);
}

static bool microvm_boot(struct machine *m, GError **error)
{
    return boot_machine(m, &boot, error);
}

static const struct prop microvm_props[] = {
    PROP_BOOL("acpi", struct machine_config, acpi, .def = true, .help = "ACPI tables; without them an MP table"),
    PROP_BOOL("smbios", struct machine_config, smbios, .def = true, .help = "SMBIOS tables"),
    PROP_BOOL("pit", struct machine_config, pit, .def = true, .help = "Interval timer i8254"),
    PROP_BOOL("pic", struct machine_config, pic, .def = true, .help = "Interrupt controllers i8259"),
    PROP_BOOL("rtc", struct machine_config, rtc, .def = true, .help = "Clock mc146818rtc"),
    PROP_BOOL("isa-serial", struct machine_config, isa_serial, .def = true, .help = "First serial port"),
    { 0 },
};

static const struct board_type microvm_type = {
    .name = "microvm", .summary = "Small PCI Express machine for Linux", .props = microvm_props,
    .max_cpus = 64, .ram_low_max = MICROVM_RAM_LOW_MAX, .ram_low_split = MICROVM_RAM_LOW_MAX,
    .build = microvm_build, .boot = microvm_boot, .destroy = board_destroy,
};
BOARD_TYPE(microvm_type);
