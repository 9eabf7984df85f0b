/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Direct boot: the memory map, the tables in low memory, the image, the entry. */
#include "machine/boot/boot.h"

#include "machine/acpi/acpi.h"
#include "machine/boot/mptable.h"
#include "machine/boot/smbios.h"

static void make_map(const struct machine *m, const struct boot_board *board, struct e820_map *map)
{
    *map = (struct e820_map){ 0 };
    e820_add(map, 0, m->ram_below_4g, E820_RAM);
    if (m->ram_above_4g)
        e820_add(map, 4 * GIB, m->ram_above_4g, E820_RAM);
    e820_add(map, BOOT_EBDA, MIB - BOOT_EBDA, E820_RESERVED);
    for (const struct boot_reserved *r = board->reserved; r->size; r++)
        e820_add(map, r->base, r->size, E820_RESERVED);
}

/* What guests of before ACPI read: how much base memory there is, and where the extended BIOS data area begins. */
static bool write_bios_data(struct machine *m, GError **error)
{
    uint16_t ebda_segment = BOOT_EBDA >> 4, base_kib = BOOT_EBDA / KIB;
    uint8_t ebda_kib = (0xa0000 - BOOT_EBDA) / KIB;
    return boot_poke(m, BOOT_BDA_EBDA, &ebda_segment, 2, error) && boot_poke(m, BOOT_BDA_MEM, &base_kib, 2, error) &&
           boot_poke(m, BOOT_EBDA, &ebda_kib, 1, error);
}

/* What stands where a PC's firmware begins: the last thing that a kernel tries when it wants to restart. */
static bool write_reset_vector(struct machine *m, const struct boot_board *board, GError **error)
{
    const uint8_t code[] = {
        0xba, board->reset_port & 0xff, board->reset_port >> 8, /* mov dx, port */
        0xb0, board->reset_value,                               /* mov al, value */
        0xee, 0xf4, 0xeb, 0xfd,                                 /* out dx, al; hlt; jmp to the hlt */
    };
    return boot_poke(m, BOOT_RESET_VECTOR, code, sizeof(code), error);
}

static bool write_blob(struct machine *m, const char *what, GByteArray *blob, uint64_t base, uint64_t end,
                       GError **error)
{
    bool ok = blob->len <= end - base ||
              ruche_error(error, RUCHE_ERR_INTERNAL, "the %s tables have %u bytes, and there is room for %u", what,
                          blob->len, (unsigned)(end - base));
    ok = ok && boot_poke(m, base, blob->data, blob->len, error);
    g_byte_array_unref(blob);
    return ok;
}

static bool write_tables(struct machine *m, const struct boot_board *board, uint64_t *ret_rsdp, GError **error)
{
    *ret_rsdp = 0;
    if (m->config.acpi) {
        if (!write_blob(m, "ACPI", acpi_build(m, board->acpi, BOOT_ACPI_BASE), BOOT_ACPI_BASE, BOOT_ACPI_END, error))
            return false;
        *ret_rsdp = BOOT_ACPI_BASE;
    }
    if (m->config.smbios &&
        !write_blob(m, "SMBIOS", smbios_build(m, BOOT_SMBIOS_BASE), BOOT_SMBIOS_BASE, BOOT_SMBIOS_END, error))
        return false;
    return write_blob(m, "MP", mptable_build(m, board, BOOT_MPTABLE_BASE), BOOT_MPTABLE_BASE, BOOT_MPTABLE_END, error);
}

bool boot_image_load(struct machine *m, struct boot_image *b, GError **error)
{
    g_autofree uint8_t *probe = g_malloc0(BOOT_PROBE_BYTES);
    if (!boot_file_read(&b->kernel, 0, probe, min_u64(BOOT_PROBE_BYTES, b->kernel.size), error))
        return false;
    if (multiboot_probe(probe))
        return multiboot_load(m, b, probe, error);
    if (elf_probe(probe))
        return pvh_load(m, b, error);
    if (bzimage_probe(probe))
        return bzimage_load(m, b, error);
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "-kernel: '%s' is not a kernel: neither a Linux bzImage, nor an ELF image with a PVH entry, nor "
                       "a multiboot image",
                       b->kernel.name);
}

bool boot_machine(struct machine *m, const struct boot_board *board, GError **error)
{
    struct boot_image b = { .append = m->config.append ? m->config.append : "", .initrd = m->config.initrd };
    if (m->pci_setup)
        m->pci_setup(m);
    make_map(m, board, &b.map);
    if (!write_bios_data(m, error) || !write_reset_vector(m, board, error) || !write_tables(m, board, &b.rsdp_gpa, error))
        return false;
    if (!m->config.kernel)
        return true;
    if (!boot_file_open(&b.kernel, "-kernel", m->config.kernel, error))
        return false;
    bool ok = boot_image_load(m, &b, error) && boot_set_entry(m, &b, error);
    boot_file_close(&b.kernel);
    return ok;
}
