/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Direct boot: what firmware and a boot loader would do, done by the machine itself.
 *
 * Spec      Linux Documentation/arch/x86/boot.rst and zero-page.rst; Multiboot 0.6.96; the x86/HVM direct boot ABI
 *           (PVH); ELF; ACPI 6.4; SMBIOS 3.3; Intel MultiProcessor 1.4.
 * Thread    Main, vCPUs stopped: at power-on and at every reset, from the files as they then are.
 * Trust     Kernel, initrd and modules are hostile files: every field is checked against the file's and the RAM's
 *           size before it is used. Guest memory is only written.
 * Errors    One sentence with the file's name.
 */
#pragma once

#include "machine/boot/e820.h"
#include "machine/machine.h"

/* Low memory, as the loaders lay it out. All of it is RAM that the guest may reuse once it has read it. */
#define BOOT_GDT 0x500u         /* descriptors of the entry state */
#define BOOT_BDA_EBDA 0x40eu    /* BIOS data area: segment of the extended area */
#define BOOT_BDA_MEM 0x413u     /* KiB of base memory */
#define BOOT_PARAMS 0x7000u     /* Linux zero page, or the start info of PVH and multiboot */
#define BOOT_PAGE_TABLES 0x9000u /* PML4, PDPT, 4 page directories: 4 GiB mapped one to one */
#define BOOT_LISTS 0x10000u     /* memory maps, module lists, setup data; up to BOOT_CMDLINE */
#define BOOT_CMDLINE 0x20000u
#define BOOT_CMDLINE_MAX 0x10000u
#define BOOT_EBDA 0x9fc00u
#define BOOT_HIGH 0x100000u     /* images are loaded from here on */
#define BOOT_ACPI_BASE 0xe0000u /* RSDP, then all tables */
#define BOOT_ACPI_END 0xf0000u
#define BOOT_SMBIOS_BASE 0xf0000u
#define BOOT_RESET_VECTOR 0xffff0u /* where real-mode code jumps to restart the machine */
#define BOOT_SMBIOS_END 0xf8000u
#define BOOT_MPTABLE_BASE 0xf8000u
#define BOOT_MPTABLE_END 0xfff00u

/* Address ranges of a board that are neither RAM nor free. */
struct boot_reserved {
    uint64_t base, size;
};

struct boot_board {
    const struct boot_reserved *reserved; /* ends with size 0 */
    /* What the ACPI and MP tables say of the board; see acpi/acpi.h. */
    const struct acpi_board *acpi;
    uint16_t reset_port; /* writing reset_value there resets the machine */
    uint8_t reset_value;
};

/* Everything: tables, image, entry state. Without a kernel vCPU 0 is left at the reset vector. */
bool boot_machine(struct machine *m, const struct boot_board *board, GError **error);

/* --- files --- */

struct boot_file {
    const char *name; /* for messages; borrowed */
    int fd;
    uint64_t size;
};

/* False with a sentence when it is missing, a folder or empty. `what`: "-kernel". */
bool boot_file_open(struct boot_file *f, const char *what, const char *path, GError **error);
void boot_file_close(struct boot_file *f);
/* Exactly `len` bytes at `off`, or false with a sentence (truncated, unreadable). */
bool boot_file_read(const struct boot_file *f, uint64_t off, void *buf, uint64_t len, GError **error);
/* The same, into RAM at `gpa`; also false when that is not all RAM. */
bool boot_file_load(struct machine *m, const struct boot_file *f, uint64_t off, uint64_t gpa, uint64_t len,
                    GError **error);
/* Zeroes RAM; false when it is not all RAM. */
bool boot_clear(struct machine *m, uint64_t gpa, uint64_t len, const struct boot_file *f, GError **error);
/* Writes loader data to RAM below 1 MiB, which every machine has. */
bool boot_poke(struct machine *m, uint64_t gpa, const void *data, uint64_t len, GError **error);

/* --- image kinds --- */

/* What the image loaders need and fill in. */
struct boot_image {
    struct boot_file kernel;
    const char *append;  /* never NULL */
    const char *initrd;  /* path or multiboot module list; NULL: none */
    uint64_t rsdp_gpa;   /* 0: no ACPI */
    struct e820_map map;
    /* Entry state. */
    enum { BOOT_ENTRY_32, BOOT_ENTRY_64 } mode;
    uint64_t entry;
    uint64_t gpr[16];    /* encoding order */
};

enum boot_kind { BOOT_UNKNOWN, BOOT_BZIMAGE, BOOT_PVH, BOOT_MULTIBOOT };

/* The first bytes of the file, zero-padded. */
#define BOOT_PROBE_BYTES 8192
bool multiboot_probe(const uint8_t *probe);
bool bzimage_probe(const uint8_t *probe);
bool elf_probe(const uint8_t *probe);
bool multiboot_load(struct machine *m, struct boot_image *b, const uint8_t *probe, GError **error);
bool bzimage_load(struct machine *m, struct boot_image *b, GError **error);
bool pvh_load(struct machine *m, struct boot_image *b, GError **error);
/* Tells the kind and loads it. */
bool boot_image_load(struct machine *m, struct boot_image *b, GError **error);

/* Loads an initrd (b->initrd) as high as possible below `limit`, above `floor`. *ret_size 0: none. */
bool boot_load_initrd(struct machine *m, const struct boot_image *b, uint64_t floor, uint64_t limit,
                      uint64_t *ret_gpa, uint64_t *ret_size, GError **error);

/* Sets vCPU 0 to the image's entry state. */
bool boot_set_entry(struct machine *m, const struct boot_image *b, GError **error);
