/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Processors in the definition block. Where vCPUs can come and go, each has the methods by which
 * the operating system learns whether it is there, gives it back and reports; they use the
 * registers of devices/misc/cpu_hotplug.c.
 *
 * Names     CPHP: the registers. CSTA (n): is n there? CEJ0 (n): eject. COST (n, event, status):
 * report. CSCN: look for those that came or are to go, and notify.
 */
#include "machine/acpi/acpi.h"
#include "machine/chipset.h"

#include <stdio.h>

#define FLAG_PRESENT        1
#define FLAG_INSERT         2
#define FLAG_REMOVE         4
#define FLAG_EJECT          8
#define COMMAND_OST_EVENT   1
#define COMMAND_OST_STATUS  2
#define NOTIFY_DEVICE_CHECK 1
#define NOTIFY_EJECT        3

#define NAME_BYTES 8

static const char *cpu_name(char *name, unsigned i)
{
    snprintf(name, NAME_BYTES, "C%03X", i & 0xfff);
    return name;
}

bool acpi_has_cpu_hotplug(const struct machine *m)
{
    return acpi_find_device(m, CPU_HOTPLUG_TYPE, 0);
}

static void store_int(struct aml *a, uint64_t v, const char *field)
{
    aml_op(a, AML_STORE);
    aml_int(a, v);
    aml_path(a, field);
}

static void store_arg(struct aml *a, unsigned arg, const char *field)
{
    aml_op(a, AML_STORE);
    aml_arg(a, arg);
    aml_path(a, field);
}

static void registers(struct aml *a)
{
    aml_region(a, "CPHP", AML_SPACE_IO, CPU_HOTPLUG_BASE, CPU_HOTPLUG_PORTS);
    aml_field(a, "CPHP", 3);
    aml_field_unit(a, "CSEL", 32);
    aml_field_unit(a, NULL, 32);
    aml_field_unit(a, "CDAT", 32);
    aml_end(a);
    aml_field(a, "CPHP", 1);
    aml_field_unit(a, NULL, 32);
    aml_field_unit(a, "CFLG", 8);
    aml_field_unit(a, "CCMD", 8);
    aml_end(a);
}

static void common_methods(struct aml *a)
{
    aml_method(a, "CSTA", 1);
    store_arg(a, 0, "CSEL");
    aml_if(a);
    aml_op(a, AML_AND);
    aml_path(a, "CFLG");
    aml_int(a, FLAG_PRESENT);
    aml_op(a, AML_NULL);
    aml_op(a, AML_RETURN);
    aml_int(a, 0x0f);
    aml_end(a);
    aml_op(a, AML_RETURN);
    aml_int(a, 0);
    aml_end(a);
    aml_method(a, "CEJ0", 1);
    store_arg(a, 0, "CSEL");
    store_int(a, FLAG_EJECT, "CFLG");
    aml_end(a);
    aml_method(a, "COST", 3);
    store_arg(a, 0, "CSEL");
    store_int(a, COMMAND_OST_EVENT, "CCMD");
    store_arg(a, 1, "CDAT");
    store_int(a, COMMAND_OST_STATUS, "CCMD");
    store_arg(a, 2, "CDAT");
    aml_end(a);
}

/* If (Local0 has the flag) { clear it; Notify }. */
static void notify_if(struct aml *a, unsigned flag, const char *cpu, unsigned what)
{
    aml_if(a);
    aml_op(a, AML_AND);
    aml_local(a, 0);
    aml_int(a, flag);
    aml_op(a, AML_NULL);
    store_int(a, flag, "CFLG");
    aml_op(a, AML_NOTIFY);
    aml_path(a, cpu);
    aml_int(a, what);
    aml_end(a);
}

static void scan_method(struct aml *a, const struct machine *m)
{
    aml_method(a, "CSCN", 0);
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        char name[NAME_BYTES];
        store_int(a, i, "CSEL");
        aml_op(a, AML_STORE);
        aml_path(a, "CFLG");
        aml_local(a, 0);
        notify_if(a, FLAG_INSERT, cpu_name(name, i), NOTIFY_DEVICE_CHECK);
        notify_if(a, FLAG_REMOVE, name, NOTIFY_EJECT);
    }
    aml_end(a);
}

static void cpu_methods(struct aml *a, const struct machine *m, unsigned i)
{
    g_autoptr(GByteArray) entry = g_byte_array_new();
    acpi_madt_cpu(entry, m->vcpus[i]->apic_id, i, true);
    aml_method(a, "_STA", 0);
    aml_op(a, AML_RETURN);
    aml_path(a, "CSTA");
    aml_int(a, i);
    aml_end(a);
    aml_name(a, "_MAT");
    aml_buffer(a, entry->data, entry->len);
    if (i) {
        aml_method(a, "_EJ0", 1);
        aml_path(a, "CEJ0");
        aml_int(a, i);
        aml_end(a);
    }
    aml_method(a, "_OST", 3);
    aml_path(a, "COST");
    aml_int(a, i);
    aml_arg(a, 0);
    aml_arg(a, 1);
    aml_end(a);
}

void acpi_processors(struct aml *a, const struct machine *m)
{
    bool hotplug = acpi_has_cpu_hotplug(m);
    if (hotplug) {
        registers(a);
        common_methods(a);
    }
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        char name[NAME_BYTES];
        aml_device(a, cpu_name(name, i));
        aml_name_string(a, "_HID", "ACPI0007");
        aml_name_int(a, "_UID", i);
        if (hotplug)
            cpu_methods(a, m, i);
        aml_end(a);
    }
    if (hotplug)
        scan_method(a, m);
}

/* General-purpose event 2 of boards with a PM block. */
void acpi_cpu_event(struct aml *a)
{
    aml_scope(a, "\\_GPE");
    aml_method(a, "_E02", 0);
    aml_path(a, "\\_SB.CSCN");
    aml_end(a);
    aml_end(a);
}
