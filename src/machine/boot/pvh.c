/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PVH: an ELF kernel (vmlinux) entered in 32-bit protected mode with a start info structure.
 *
 * Spec      Xen, docs/misc/pvh: x86/HVM direct boot ABI; include/public/arch-x86/hvm/start_info.h.
 */
#include "machine/boot/elf.h"

#include <inttypes.h>

#define START_MAGIC 0x336ec578u

struct start_info {
    uint32_t magic, version, flags, module_count;
    uint64_t modules, cmdline, rsdp, map;
    uint32_t map_count, reserved;
} __attribute__((packed));

struct start_module {
    uint64_t gpa, size, cmdline, reserved;
} __attribute__((packed));

struct start_map {
    uint64_t base, size;
    uint32_t type, reserved;
} __attribute__((packed));

#define MODULE_AT BOOT_LISTS
#define MAP_AT (BOOT_LISTS + 0x1000)

static bool load_lists(struct machine *m, const struct boot_image *b, const struct start_module *module,
                       GError **error)
{
    struct start_map rows[E820_MAX];
    for (unsigned i = 0; i < b->map.count; i++)
        rows[i] = (struct start_map){ b->map.entry[i].base, b->map.entry[i].size, b->map.entry[i].type, 0 };
    size_t len = strlen(b->append);
    if (len >= BOOT_CMDLINE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "-append: %zu bytes; %u at most can be passed on", len,
                           BOOT_CMDLINE_MAX - 1);
    return boot_poke(m, MAP_AT, rows, b->map.count * sizeof(rows[0]), error) &&
           boot_poke(m, MODULE_AT, module, sizeof(*module), error) &&
           boot_poke(m, BOOT_CMDLINE, b->append, len + 1, error);
}

bool pvh_load(struct machine *m, struct boot_image *b, GError **error)
{
    struct elf_image e;
    uint32_t entry;
    uint64_t end, initrd, size;
    if (!elf_parse(&b->kernel, &e, error) || !elf_pvh_entry(&b->kernel, &e, &entry, error) ||
        !elf_load(m, &b->kernel, &e, &end, error) ||
        !boot_load_initrd(m, b, align_up(end, 4096), 4 * GIB, &initrd, &size, error))
        return false;
    struct start_module module = { .gpa = initrd, .size = size };
    if (!load_lists(m, b, &module, error))
        return false;
    struct start_info info = {
        .magic = START_MAGIC, .version = 1, .module_count = size ? 1 : 0,
        .modules = size ? MODULE_AT : 0, .cmdline = BOOT_CMDLINE, .rsdp = b->rsdp_gpa,
        .map = MAP_AT, .map_count = b->map.count,
    };
    if (!boot_poke(m, BOOT_PARAMS, &info, sizeof(info), error))
        return false;
    b->mode = BOOT_ENTRY_32;
    b->entry = entry;
    b->gpr[3] = BOOT_PARAMS; /* ebx */
    return true;
}
