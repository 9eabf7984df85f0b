/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The MP configuration table: processors, buses, the IOAPIC, who interrupts where. */
#include "machine/boot/mptable.h"

#include "machine/acpi/acpi.h"
#include "machine/chipset.h"

#define ENTRY_CPU 0
#define ENTRY_BUS 1
#define ENTRY_IOAPIC 2
#define ENTRY_IRQ 3
#define ENTRY_LINT 4
#define BUS_PCI 0
#define BUS_ISA 1
#define INT_NORMAL 0
#define INT_NMI 1
#define INT_EXT 3
#define LEVEL_HIGH 0xd /* active high, level-triggered */
#define APIC_VERSION 0x14
#define CPU_ENABLED 1
#define CPU_BOOT 2
#define CPU_SIGNATURE 0x600
#define CPU_FEATURES 0x201 /* FPU, APIC */
#define HEADER_SIZE 44
#define LAST_XAPIC_ID 254

struct builder {
    GByteArray *out;
    unsigned entries;
    uint8_t ioapic_id;
};

static void add(struct builder *b, const void *entry, size_t len)
{
    g_byte_array_append(b->out, entry, (guint)len);
    b->entries++;
}

static void add_irq(struct builder *b, uint8_t kind, uint8_t type, uint16_t flags, uint8_t bus, uint8_t source,
                    uint8_t to, uint8_t pin)
{
    struct {
        uint8_t kind, type;
        uint16_t flags;
        uint8_t bus, source, to, pin;
    } __attribute__((packed)) e = { kind, type, flags, bus, source, to, pin };
    add(b, &e, sizeof(e));
}

static void add_cpus(struct builder *b, const struct machine *m)
{
    for (unsigned i = 0; i < m->vcpu_count && m->vcpus[i]->apic_id <= LAST_XAPIC_ID; i++) {
        if (!m->vcpus[i]->present)
            continue;
        struct {
            uint8_t kind, id, version, flags;
            uint32_t signature, features, reserved[2];
        } __attribute__((packed)) e = {
            ENTRY_CPU, (uint8_t)m->vcpus[i]->apic_id, APIC_VERSION,
            CPU_ENABLED | (i ? 0 : CPU_BOOT), CPU_SIGNATURE, CPU_FEATURES, { 0 },
        };
        add(b, &e, sizeof(e));
        b->ioapic_id = (uint8_t)max_u64(b->ioapic_id, m->vcpus[i]->apic_id + 1);
    }
}

static void add_buses(struct builder *b)
{
    static const char names[2][7] = { [BUS_PCI] = "PCI   ", [BUS_ISA] = "ISA   " };
    for (uint8_t i = 0; i < ARRAY_COUNT(names); i++) {
        struct {
            uint8_t kind, id;
            char name[6];
        } __attribute__((packed)) e = { ENTRY_BUS, i, { 0 } };
        memcpy(e.name, names[i], sizeof(e.name));
        add(b, &e, sizeof(e));
    }
}

static void add_interrupts(struct builder *b, const struct machine *m, const struct boot_board *board)
{
    for (uint8_t irq = 0; irq < 16; irq++) {
        if (irq == 2)
            continue;
        bool level = irq == SCI_GSI;
        add_irq(b, ENTRY_IRQ, INT_NORMAL, level ? LEVEL_HIGH : 0, BUS_ISA, irq, b->ioapic_id, irq ? irq : 2);
    }
    for (uint8_t slot = 0; m->pci && slot < 32; slot++)
        for (uint8_t pin = 0; pin < 4; pin++)
            add_irq(b, ENTRY_IRQ, INT_NORMAL, LEVEL_HIGH, BUS_PCI, (uint8_t)(slot << 2 | pin), b->ioapic_id,
                    (uint8_t)(PCI_GSI_BASE + board->acpi->pci_line(slot, pin)));
    add_irq(b, ENTRY_LINT, INT_EXT, 0, BUS_ISA, 0, 0xff, 0);
    add_irq(b, ENTRY_LINT, INT_NMI, 0, BUS_ISA, 0, 0xff, 1);
}

static void fix_checksum(uint8_t *table, size_t len, unsigned at)
{
    uint8_t sum = 0;
    table[at] = 0;
    for (size_t i = 0; i < len; i++)
        sum += table[i];
    table[at] = (uint8_t)-sum;
}

static void put_header(struct builder *b, size_t at, size_t len)
{
    struct {
        char signature[4];
        uint16_t length;
        uint8_t revision, checksum;
        char oem[8], product[12];
        uint32_t oem_table;
        uint16_t oem_size, entries;
        uint32_t lapic;
        uint16_t extended_len;
        uint8_t extended_checksum, reserved;
    } __attribute__((packed)) h = { .length = (uint16_t)len, .revision = 4, .entries = (uint16_t)b->entries,
                                    .lapic = ACPI_LAPIC_BASE };
    memcpy(h.signature, "PCMP", 4);
    memcpy(h.oem, "RUCHE   ", 8);
    memcpy(h.product, "VM          ", 12);
    memcpy(b->out->data + at, &h, sizeof(h));
    fix_checksum(b->out->data + at, len, 7);
}

GByteArray *mptable_build(const struct machine *m, const struct boot_board *board, uint64_t base)
{
    struct builder b = { .out = g_byte_array_new() };
    struct {
        char signature[4];
        uint32_t table;
        uint8_t length, revision, checksum, features[5];
    } __attribute__((packed)) pointer = { .table = (uint32_t)base + sizeof(pointer), .length = 1, .revision = 4 };
    memcpy(pointer.signature, "_MP_", 4);
    fix_checksum((uint8_t *)&pointer, sizeof(pointer), 10);
    g_byte_array_append(b.out, (const guint8 *)&pointer, sizeof(pointer));
    g_byte_array_set_size(b.out, sizeof(pointer) + HEADER_SIZE);
    memset(b.out->data + sizeof(pointer), 0, HEADER_SIZE);
    add_cpus(&b, m);
    add_buses(&b);
    struct {
        uint8_t kind, id, version, enabled;
        uint32_t gpa;
    } __attribute__((packed)) ioapic = { ENTRY_IOAPIC, b.ioapic_id, 0x11, 1, ACPI_IOAPIC_BASE };
    add(&b, &ioapic, sizeof(ioapic));
    add_interrupts(&b, m, board);
    put_header(&b, sizeof(pointer), b.out->len - sizeof(pointer));
    return b.out;
}
