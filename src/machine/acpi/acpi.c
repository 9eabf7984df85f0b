/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The static tables, one behind the other in a byte array that will stand at a known address. */
#include "machine/acpi/acpi.h"

#include "machine/chipset.h"

#define HEADER_SIZE 36
#define CHECKSUM_AT 9
#define MAX_TABLES 8
#define FADT_SIZE 276
#define RSDP_SIZE 36
#define FACS_SIZE 64
#define LAST_XAPIC_ID 254

struct tables {
    GByteArray *out;
    uint64_t base;
    uint64_t gpa[MAX_TABLES]; /* of those that the XSDT names */
    unsigned count;
    uint64_t facs, dsdt;
};

static void put(struct tables *t, const void *data, size_t len)
{
    g_byte_array_append(t->out, data, (guint)len);
}

static void fix_checksum(uint8_t *p, size_t len, size_t at)
{
    uint8_t sum = 0;
    p[at] = 0;
    for (size_t i = 0; i < len; i++)
        sum += p[i];
    p[at] = (uint8_t)-sum;
}

static void align_to(struct tables *t, unsigned to)
{
    guint old = t->out->len, len = (guint)align_up(old, to);
    g_byte_array_set_size(t->out, len);
    memset(t->out->data + old, 0, len - old);
}

/* A table with the usual header; returns its address. */
static uint64_t put_table(struct tables *t, const char *signature, uint8_t revision, const void *body, size_t len)
{
    struct {
        char signature[4];
        uint32_t length;
        uint8_t revision, checksum;
        char oem[6], oem_table[8];
        uint32_t oem_revision;
        char creator[4];
        uint32_t creator_revision;
    } __attribute__((packed)) h = { .length = (uint32_t)(HEADER_SIZE + len), .revision = revision,
                                    .oem_revision = 1, .creator_revision = 1 };
    memcpy(h.signature, signature, 4);
    memcpy(h.oem, "RUCHE ", 6);
    memcpy(h.oem_table, "RUCHEVM ", 8);
    memcpy(h.creator, "RUCH", 4);
    align_to(t, 16);
    guint at = t->out->len;
    put(t, &h, sizeof(h));
    put(t, body, len);
    fix_checksum(t->out->data + at, HEADER_SIZE + len, CHECKSUM_AT);
    return t->base + at;
}

static void put_listed(struct tables *t, const char *signature, uint8_t revision, const void *body, size_t len)
{
    t->gpa[t->count++] = put_table(t, signature, revision, body, len);
}

static void put_facs(struct tables *t)
{
    uint8_t facs[FACS_SIZE] = { 'F', 'A', 'C', 'S', FACS_SIZE, [32] = 2 };
    align_to(t, 64);
    t->facs = t->base + t->out->len;
    put(t, facs, sizeof(facs));
}

const struct device *acpi_find_device(const struct machine *m, const char *type, unsigned n)
{
    for (const struct device *d = m->devices; d; d = d->next)
        if (!strcmp(d->type->name, type) && !n--)
            return d;
    return NULL;
}

/* --- FADT --- */

/* Offsets in the whole table, as in the specification. */
enum fadt {
    FADT_FACS = 36, FADT_DSDT = 40, FADT_PROFILE = 45, FADT_SCI = 46, FADT_SMI_CMD = 48, FADT_ENABLE = 52,
    FADT_DISABLE = 53, FADT_PM1_EVT = 56, FADT_PM1_CNT = 64, FADT_PM_TMR = 76, FADT_GPE0 = 80,
    FADT_PM1_EVT_LEN = 88, FADT_PM1_CNT_LEN = 89, FADT_PM_TMR_LEN = 91, FADT_GPE0_LEN = 92,
    FADT_C2_LATENCY = 96, FADT_C3_LATENCY = 98, FADT_CENTURY = 108, FADT_BOOT_ARCH = 109, FADT_FLAGS = 112,
    FADT_RESET_REG = 116, FADT_RESET_VALUE = 128, FADT_MINOR = 131, FADT_X_FACS = 132, FADT_X_DSDT = 140,
    FADT_X_PM1_EVT = 148, FADT_X_PM1_CNT = 172, FADT_X_PM_TMR = 208, FADT_X_GPE0 = 220,
    FADT_SLEEP_CONTROL = 244, FADT_SLEEP_STATUS = 256,
};
#define FLAG_WBINVD (1u << 0)
#define FLAG_PROC_C1 (1u << 2)
#define FLAG_PWR_BUTTON (1u << 4) /* not a fixed register */
#define FLAG_SLP_BUTTON (1u << 5)
#define FLAG_RTC_FIXED (1u << 6)
#define FLAG_RESET_REG (1u << 10)
#define FLAG_APIC_PHYSICAL (1u << 19)
#define FLAG_HW_REDUCED (1u << 20)
#define ARCH_LEGACY 0x01
#define ARCH_8042 0x02
#define ARCH_NO_VGA 0x04
#define ARCH_NO_RTC 0x20
#define RTC_CENTURY 0x32
#define XAPIC_LOGICAL_MAX 8

struct gas {
    uint8_t space, bits, offset, access;
    uint64_t gpa;
} __attribute__((packed));

static void fadt_put(uint8_t *f, enum fadt at, uint64_t v, unsigned len)
{
    memcpy(f + at, &v, len);
}

static void fadt_io(uint8_t *f, enum fadt at, uint16_t port, uint8_t bits)
{
    struct gas g = { AML_SPACE_IO, bits, 0, (uint8_t)(bits <= 8 ? 1 : bits <= 16 ? 2 : 3), port };
    memcpy(f + at, &g, sizeof(g));
}

static void fadt_pm_block(uint8_t *f)
{
    fadt_put(f, FADT_SCI, SCI_GSI, 2);
    fadt_put(f, FADT_SMI_CMD, Q35_SMI_CMD, 4);
    fadt_put(f, FADT_ENABLE, Q35_ACPI_ENABLE, 1);
    fadt_put(f, FADT_DISABLE, Q35_ACPI_DISABLE, 1);
    fadt_put(f, FADT_PM1_EVT, Q35_PMBASE + Q35_PM1_EVT, 4);
    fadt_put(f, FADT_PM1_CNT, Q35_PMBASE + Q35_PM1_CNT, 4);
    fadt_put(f, FADT_PM_TMR, Q35_PMBASE + Q35_PM_TMR, 4);
    fadt_put(f, FADT_GPE0, Q35_PMBASE + Q35_GPE0, 4);
    fadt_put(f, FADT_PM1_EVT_LEN, 4, 1);
    fadt_put(f, FADT_PM1_CNT_LEN, 2, 1);
    fadt_put(f, FADT_PM_TMR_LEN, 4, 1);
    fadt_put(f, FADT_GPE0_LEN, Q35_GPE0_LEN, 1);
    fadt_io(f, FADT_X_PM1_EVT, Q35_PMBASE + Q35_PM1_EVT, 32);
    fadt_io(f, FADT_X_PM1_CNT, Q35_PMBASE + Q35_PM1_CNT, 16);
    fadt_io(f, FADT_X_PM_TMR, Q35_PMBASE + Q35_PM_TMR, 32);
    fadt_io(f, FADT_X_GPE0, Q35_PMBASE + Q35_GPE0, Q35_GPE0_LEN * 8);
    fadt_io(f, FADT_RESET_REG, Q35_RESET_PORT, 8);
    fadt_put(f, FADT_RESET_VALUE, Q35_RESET_VALUE, 1);
}

static void fadt_sleep_registers(uint8_t *f)
{
    fadt_io(f, FADT_SLEEP_CONTROL, MICROVM_SLEEP_BASE + MICROVM_SLEEP_CONTROL, 8);
    fadt_io(f, FADT_SLEEP_STATUS, MICROVM_SLEEP_BASE + MICROVM_SLEEP_STATUS, 8);
    fadt_io(f, FADT_RESET_REG, MICROVM_SLEEP_BASE + MICROVM_SLEEP_RESET, 8);
    fadt_put(f, FADT_RESET_VALUE, MICROVM_RESET_VALUE, 1);
}

static void put_fadt(struct tables *t, const struct machine *m, const struct acpi_board *board)
{
    uint8_t f[FADT_SIZE] = { 0 };
    bool rtc = acpi_find_device(m, "mc146818rtc", 0);
    uint32_t flags = FLAG_WBINVD | FLAG_PROC_C1 | FLAG_SLP_BUTTON | FLAG_RESET_REG;
    uint16_t arch = ARCH_NO_VGA | (rtc ? 0 : ARCH_NO_RTC);
    if (acpi_find_device(m, "i8042", 0))
        arch |= ARCH_8042;
    if (board->reduced) {
        flags |= FLAG_HW_REDUCED | FLAG_PWR_BUTTON;
        fadt_sleep_registers(f);
    } else {
        arch |= ARCH_LEGACY;
        fadt_pm_block(f);
    }
    if (!rtc)
        flags |= FLAG_RTC_FIXED;
    else
        fadt_put(f, FADT_CENTURY, RTC_CENTURY, 1);
    if (m->vcpu_count > XAPIC_LOGICAL_MAX)
        flags |= FLAG_APIC_PHYSICAL;
    fadt_put(f, FADT_FACS, t->facs, 4);
    fadt_put(f, FADT_X_DSDT, t->dsdt, 8);
    fadt_put(f, FADT_DSDT, t->dsdt, 4);
    fadt_put(f, FADT_C2_LATENCY, 0xfff, 2);
    fadt_put(f, FADT_C3_LATENCY, 0xfff, 2);
    fadt_put(f, FADT_BOOT_ARCH, arch, 2);
    fadt_put(f, FADT_FLAGS, flags, 4);
    fadt_put(f, FADT_MINOR, 3, 1);
    put_listed(t, "FACP", 6, f + HEADER_SIZE, sizeof(f) - HEADER_SIZE);
}

/* --- MADT --- */

#define MADT_LAPIC 0
#define MADT_IOAPIC 1
#define MADT_OVERRIDE 2
#define MADT_LAPIC_NMI 4
#define MADT_X2APIC 9
#define MADT_X2APIC_NMI 10
#define MADT_PCAT 1
#define MADT_ENABLED 1
#define MADT_ONLINE_CAPABLE 2 /* may come later */
#define INT_LEVEL_HIGH 0xd

void acpi_madt_cpu(GByteArray *b, uint32_t apic_id, uint32_t uid, bool present)
{
    uint32_t flags = present ? MADT_ENABLED : MADT_ONLINE_CAPABLE;
    struct {
        uint8_t type, len, uid, id;
        uint32_t flags;
    } __attribute__((packed)) lapic = { MADT_LAPIC, sizeof(lapic), (uint8_t)uid, (uint8_t)apic_id, flags };
    struct {
        uint8_t type, len;
        uint16_t reserved;
        uint32_t id, flags, uid;
    } __attribute__((packed)) x2apic = { MADT_X2APIC, sizeof(x2apic), 0, apic_id, flags, uid };
    if (apic_id <= LAST_XAPIC_ID)
        g_byte_array_append(b, (const guint8 *)&lapic, sizeof(lapic));
    else
        g_byte_array_append(b, (const guint8 *)&x2apic, sizeof(x2apic));
}

static void madt_override(GByteArray *b, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    struct {
        uint8_t type, len, bus, irq;
        uint32_t gsi;
        uint16_t flags;
    } __attribute__((packed)) e = { MADT_OVERRIDE, sizeof(e), 0, irq, gsi, flags };
    g_byte_array_append(b, (const guint8 *)&e, sizeof(e));
}

static void put_madt(struct tables *t, const struct machine *m, const struct acpi_board *board)
{
    g_autoptr(GByteArray) b = g_byte_array_new();
    const uint32_t head[2] = { ACPI_LAPIC_BASE, m->config.pic ? MADT_PCAT : 0 };
    g_byte_array_append(b, (const guint8 *)head, sizeof(head));
    bool wide = false;
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        acpi_madt_cpu(b, m->vcpus[i]->apic_id, i, m->vcpus[i]->present);
        wide |= m->vcpus[i]->apic_id > LAST_XAPIC_ID;
    }
    struct {
        uint8_t type, len, id, reserved;
        uint32_t gpa, gsi_base;
    } __attribute__((packed)) ioapic = { MADT_IOAPIC, sizeof(ioapic), 0, 0, ACPI_IOAPIC_BASE, 0 };
    g_byte_array_append(b, (const guint8 *)&ioapic, sizeof(ioapic));
    madt_override(b, 0, 2, 0);
    if (!board->reduced)
        madt_override(b, SCI_GSI, SCI_GSI, INT_LEVEL_HIGH);
    static const uint8_t nmi[6] = { MADT_LAPIC_NMI, 6, 0xff, 0, 0, 1 };
    static const uint8_t nmi_wide[12] = { MADT_X2APIC_NMI, 12, 0, 0, 0xff, 0xff, 0xff, 0xff, 1 };
    g_byte_array_append(b, nmi, sizeof(nmi));
    if (wide)
        g_byte_array_append(b, nmi_wide, sizeof(nmi_wide));
    put_listed(t, "APIC", 5, b->data, b->len);
}

/* --- small ones --- */

static void put_mcfg(struct tables *t, const struct acpi_board *board)
{
    struct {
        uint64_t reserved, ecam;
        uint16_t segment;
        uint8_t first, last;
        uint32_t reserved2;
    } __attribute__((packed)) body = { .ecam = board->ecam_base, .last = (uint8_t)(board->ecam_bytes / MIB - 1) };
    put_listed(t, "MCFG", 1, &body, sizeof(body));
}

static void put_hpet(struct tables *t)
{
    struct {
        uint32_t id;
        struct gas gas;
        uint8_t number;
        uint16_t min_tick;
        uint8_t protection;
    } __attribute__((packed)) body = { .id = HPET_BLOCK_ID, .gas = { AML_SPACE_MEMORY, 0, 0, 0, HPET_BASE },
                                       .min_tick = HPET_MIN_TICK };
    put_listed(t, "HPET", 1, &body, sizeof(body));
}

/* Windows: the PM timer needs no second read. */
static void put_waet(struct tables *t)
{
    static const uint32_t flags = 2;
    put_listed(t, "WAET", 1, &flags, sizeof(flags));
}

/* RSDT and XSDT name the tables; the RSDP, which stands first, names these two. */
static void put_roots(struct tables *t)
{
    uint32_t narrow[MAX_TABLES];
    for (unsigned i = 0; i < t->count; i++)
        narrow[i] = (uint32_t)t->gpa[i];
    uint64_t rsdt = put_table(t, "RSDT", 1, narrow, t->count * sizeof(narrow[0]));
    uint64_t xsdt = put_table(t, "XSDT", 1, t->gpa, t->count * sizeof(t->gpa[0]));
    struct {
        char signature[8];
        uint8_t checksum;
        char oem[6];
        uint8_t revision;
        uint32_t rsdt, length;
        uint64_t xsdt;
        uint8_t checksum_all, reserved[3];
    } __attribute__((packed)) r = { .revision = 2, .rsdt = (uint32_t)rsdt, .length = RSDP_SIZE, .xsdt = xsdt };
    memcpy(r.signature, "RSD PTR ", 8);
    memcpy(r.oem, "RUCHE ", 6);
    fix_checksum((uint8_t *)&r, 20, 8);
    fix_checksum((uint8_t *)&r, sizeof(r), 32);
    memcpy(t->out->data, &r, sizeof(r));
}

GByteArray *acpi_build(struct machine *m, const struct acpi_board *board, uint64_t base)
{
    struct tables t = { .out = g_byte_array_new(), .base = base };
    g_byte_array_set_size(t.out, RSDP_SIZE);
    put_facs(&t);
    g_autoptr(GByteArray) dsdt = acpi_dsdt_body(m, board);
    t.dsdt = put_table(&t, "DSDT", 2, dsdt->data, dsdt->len);
    put_fadt(&t, m, board);
    put_madt(&t, m, board);
    if (m->pci)
        put_mcfg(&t, board);
    if (acpi_find_device(m, "hpet", 0))
        put_hpet(&t);
    put_waet(&t);
    put_roots(&t);
    return t.out;
}
