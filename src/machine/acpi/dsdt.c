/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The definition block: the host bridge, what hangs off the legacy bus, processors, buttons, sleep. */
#include "machine/acpi/acpi.h"

#include "machine/chipset.h"

#include <stdio.h>

#define STA_PRESENT 0x0f
#define STA_HIDDEN 0x0b /* works, but is not for the user */

/* --- host bridge --- */

/* One row for each slot and pin: where the line behind it ends, at the IOAPIC or (by_pic) at the i8259. */
static void routing_table(struct aml *a, const struct acpi_board *board, const char *name, bool by_pic)
{
    aml_name(a, name);
    aml_package(a, 128);
    for (unsigned slot = 0; slot < 32; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            unsigned line = board->pci_line(slot, pin);
            aml_package(a, 4);
            aml_int(a, slot << 16 | 0xffff);
            aml_int(a, pin);
            aml_int(a, 0);
            aml_int(a, by_pic ? board->line_irq[line] : PCI_GSI_BASE + line);
            aml_end(a);
        }
    }
    aml_end(a);
}

/* The operating system tells by \_PIC which controllers it uses. */
static void pci_routing(struct aml *a, const struct acpi_board *board)
{
    if (!board->line_irq) {
        routing_table(a, board, "_PRT", false);
        return;
    }
    routing_table(a, board, "PRTA", false);
    routing_table(a, board, "PRTP", true);
    aml_method(a, "_PRT", 0);
    aml_if(a);
    aml_path(a, "\\PICF");
    aml_op(a, AML_RETURN);
    aml_path(a, "PRTA");
    aml_end(a);
    aml_op(a, AML_RETURN);
    aml_path(a, "PRTP");
    aml_end(a);
}

static void interrupt_model(struct aml *a)
{
    aml_name_int(a, "\\PICF", 0);
    aml_method(a, "\\_PIC", 1);
    aml_op(a, AML_STORE);
    aml_arg(a, 0);
    aml_path(a, "\\PICF");
    aml_end(a);
}

static void pci_windows(struct aml *a, const struct machine *m, const struct acpi_board *board)
{
    uint64_t high = pci_mem64_window_base(m->ram_above_4g);
    aml_resources(a, "_CRS");
    aml_res_bus_window(a, 0, (uint16_t)(board->ecam_bytes / MIB - 1));
    aml_res_io(a, 0xcf8, 8);
    aml_res_io_window(a, 0, 0xcf8);
    aml_res_io_window(a, 0xd00, 0x10000);
    aml_res_mem_window(a, VGA_HOLE_BASE, VGA_HOLE_END);
    aml_res_mem_window(a, board->mem_base, board->mem_end);
    aml_res_mem64_window(a, high, high + PCI_MEM64_WINDOW_BYTES);
    aml_end(a);
}

static void host_bridge(struct aml *a, const struct machine *m, const struct acpi_board *board)
{
    aml_device(a, "PCI0");
    aml_name_eisa(a, "_HID", "PNP0A08");
    aml_name_eisa(a, "_CID", "PNP0A03");
    aml_name_int(a, "_SEG", 0);
    aml_name_int(a, "_BBN", 0);
    aml_name_int(a, "_UID", 0);
    aml_name_int(a, "_CCA", 1);
    pci_windows(a, m, board);
    pci_routing(a, board);
    /* The operating system may control all it asks for: nothing else does. */
    aml_method(a, "_OSC", 4);
    aml_op(a, AML_RETURN);
    aml_arg(a, 3);
    aml_end(a);
    aml_end(a);
    /* The configuration window is no memory to be given away. */
    aml_device(a, "ECAM");
    aml_name_eisa(a, "_HID", "PNP0C02");
    aml_name_int(a, "_UID", 1);
    aml_resources(a, "_CRS");
    aml_res_memory(a, (uint32_t)board->ecam_base, (uint32_t)board->ecam_bytes);
    aml_end(a);
    aml_end(a);
}

/* --- devices at fixed ports --- */

struct fixed_device {
    const char *type;  /* in the machine */
    const char *name, *hid;
    uint16_t port[2];
    uint8_t port_len[2];
    int irq;           /* -1: none */
    uint8_t sta;
};

static const struct fixed_device fixed_devices[] = {
    { "mc146818rtc", "RTC", "PNP0B00", { 0x70 }, { 8 }, 8, STA_PRESENT },
    { "i8042", "KBD", "PNP0303", { 0x60, 0x64 }, { 1, 1 }, 1, STA_PRESENT },
    { "i8042", "MOU", "PNP0F13", { 0 }, { 0 }, 12, STA_PRESENT },
    { "i8254", "TIMR", "PNP0100", { 0x40 }, { 4 }, -1, STA_PRESENT },
};

static void put_fixed_device(struct aml *a, const struct fixed_device *f)
{
    aml_device(a, f->name);
    aml_name_eisa(a, "_HID", f->hid);
    aml_name_int(a, "_STA", f->sta);
    aml_resources(a, "_CRS");
    for (unsigned i = 0; i < 2; i++)
        if (f->port_len[i])
            aml_res_io(a, f->port[i], f->port_len[i]);
    if (f->irq >= 0)
        aml_res_irq(a, (uint8_t)f->irq);
    aml_end(a);
    aml_end(a);
}

static unsigned number_prop(const struct device *d, const char *prop, unsigned otherwise)
{
    g_autofree char *text = device_get(d, prop);
    return text ? (unsigned)g_ascii_strtoull(text, NULL, 0) : otherwise;
}

static void serial_ports(struct aml *a, const struct machine *m)
{
    const struct device *d;
    for (unsigned n = 0; n < 4 && (d = acpi_find_device(m, "isa-serial", n)); n++) {
        char name[8];
        snprintf(name, sizeof(name), "COM%u", n + 1);
        unsigned port = number_prop(d, "iobase", 0x3f8), irq = number_prop(d, "irq", 4);
        aml_device(a, name);
        aml_name_eisa(a, "_HID", "PNP0501");
        aml_name_int(a, "_UID", n + 1);
        aml_name_int(a, "_STA", STA_PRESENT);
        aml_resources(a, "_CRS");
        aml_res_io(a, (uint16_t)port, 8);
        aml_res_irq(a, irq & 15);
        aml_end(a);
        aml_end(a);
    }
}

static void hpet(struct aml *a)
{
    aml_device(a, "HPET");
    aml_name_eisa(a, "_HID", "PNP0103");
    aml_name_int(a, "_UID", 0);
    aml_resources(a, "_CRS");
    aml_res_memory(a, HPET_BASE, 0x400);
    aml_end(a);
    aml_end(a);
}

/* Guests write 1 (panic) or 2 (crash kernel loaded) to the port, or ask by RDPT what it knows. */
static void pvpanic(struct aml *a, const struct device *d)
{
    unsigned port = number_prop(d, "ioport", 0x505);
    aml_device(a, "PEVT");
    aml_name_string(a, "_HID", "QEMU0001");
    aml_name_int(a, "_STA", STA_PRESENT);
    aml_resources(a, "_CRS");
    aml_res_io(a, (uint16_t)port, 1);
    aml_end(a);
    aml_region(a, "PEOR", AML_SPACE_IO, port, 1);
    aml_field(a, "PEOR", 1);
    aml_field_unit(a, "PEPT", 8);
    aml_end(a);
    aml_method(a, "RDPT", 0);
    aml_op(a, AML_RETURN);
    aml_path(a, "PEPT");
    aml_end(a);
    aml_method(a, "WRPT", 1);
    aml_op(a, AML_STORE);
    aml_arg(a, 0);
    aml_path(a, "PEPT");
    aml_end(a);
    aml_end(a);
}

static void fw_cfg(struct aml *a)
{
    aml_device(a, "FWCF");
    aml_name_string(a, "_HID", "QEMU0002");
    aml_name_int(a, "_STA", STA_HIDDEN);
    aml_resources(a, "_CRS");
    aml_res_io(a, 0x510, 12);
    aml_end(a);
    aml_end(a);
}

static void legacy_devices(struct aml *a, const struct machine *m)
{
    for (unsigned i = 0; i < ARRAY_COUNT(fixed_devices); i++)
        if (acpi_find_device(m, fixed_devices[i].type, 0))
            put_fixed_device(a, &fixed_devices[i]);
    serial_ports(a, m);
    if (acpi_find_device(m, "hpet", 0))
        hpet(a);
    const struct device *d = acpi_find_device(m, "pvpanic", 0);
    if (d)
        pvpanic(a, d);
    if (acpi_find_device(m, "fw_cfg", 0))
        fw_cfg(a);
}

/* --- power --- */

/* The PM block's ports belong to nobody else. */
static void chipset_ports(struct aml *a)
{
    aml_device(a, "CHIP");
    aml_name_eisa(a, "_HID", "PNP0C02");
    aml_name_int(a, "_UID", 2);
    aml_resources(a, "_CRS");
    aml_res_io(a, Q35_PMBASE, Q35_PM_BYTES);
    aml_res_io(a, 0x80, 1);
    aml_res_io(a, 0x92, 1);
    aml_res_io(a, Q35_SMI_CMD, 2);
    aml_end(a);
    aml_end(a);
}

/* Hardware-reduced: the button is a device, and an interrupt with a register tells that it was pressed. */
static void event_device(struct aml *a, bool cpus)
{
    aml_device(a, "PWRB");
    aml_name_eisa(a, "_HID", "PNP0C0C");
    aml_name_int(a, "_UID", 0);
    aml_end(a);
    aml_device(a, "GED");
    aml_name_string(a, "_HID", "ACPI0013");
    aml_name_int(a, "_UID", 0);
    aml_resources(a, "_CRS");
    aml_res_gsi(a, SCI_GSI, true, false);
    aml_end(a);
    aml_region(a, "EREG", AML_SPACE_IO, MICROVM_SLEEP_BASE + MICROVM_SLEEP_EVENTS, 1);
    aml_field(a, "EREG", 1);
    aml_field_unit(a, "EVTS", 8);
    aml_end(a);
    aml_method(a, "_EVT", 1);
    aml_op(a, AML_STORE);
    aml_path(a, "EVTS");
    aml_local(a, 0);
    aml_if(a);
    aml_op(a, AML_AND);
    aml_local(a, 0);
    aml_int(a, MICROVM_EVENT_POWER_BUTTON);
    aml_op(a, AML_NULL);
    aml_op(a, AML_NOTIFY);
    aml_path(a, "PWRB");
    aml_int(a, 0x80);
    aml_end(a);
    if (cpus) {
        aml_if(a);
        aml_op(a, AML_AND);
        aml_local(a, 0);
        aml_int(a, MICROVM_EVENT_CPU);
        aml_op(a, AML_NULL);
        aml_path(a, "\\_SB.CSCN");
        aml_end(a);
    }
    aml_end(a);
    aml_end(a);
}

static void sleep_states(struct aml *a, const struct acpi_board *board)
{
    aml_name(a, "\\_S5");
    aml_package(a, 4);
    aml_int(a, board->sleep_type_s5);
    aml_int(a, board->sleep_type_s5);
    aml_int(a, 0);
    aml_int(a, 0);
    aml_end(a);
}

GByteArray *acpi_dsdt_body(struct machine *m, const struct acpi_board *board)
{
    struct aml a;
    aml_init(&a);
    sleep_states(&a, board); /* first, for those who look for its bytes rather than run AML */
    interrupt_model(&a);
    aml_scope(&a, "\\_SB");
    if (m->pci)
        host_bridge(&a, m, board);
    legacy_devices(&a, m);
    acpi_processors(&a, m);
    if (board->reduced)
        event_device(&a, acpi_has_cpu_hotplug(m));
    else
        chipset_ports(&a);
    aml_end(&a);
    if (acpi_has_cpu_hotplug(m) && !board->reduced)
        acpi_cpu_event(&a);
    return aml_take(&a);
}
