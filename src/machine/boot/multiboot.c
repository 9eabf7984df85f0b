/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Multiboot 1: 32-bit ELF images, and others that say in their header where they belong.
 *
 * Spec      Multiboot Specification 0.6.96. Command lines and the module list as QEMU's command line has them: the
 *           kernel gets "path arguments", -initrd is "file arguments,file arguments".
 * Trust     The header is the file's: every address is checked before something is loaded there.
 */
#include "machine/boot/elf.h"

#include "base/cursor.h"

#include <inttypes.h>

#define HEADER_MAGIC 0x1badb002u
#define LOADER_MAGIC 0x2badb002u
#define HEADER_SIZE 48
#define FLAG_ADDRESSES 0x00010000u
#define FLAG_REQUIRED_UNKNOWN 0x0000fff8u
#define MAX_MODULES 64

#define INFO_MEMORY 0x001
#define INFO_BOOT_DEVICE 0x002
#define INFO_CMDLINE 0x004
#define INFO_MODULES 0x008
#define INFO_MAP 0x040
#define INFO_LOADER_NAME 0x200
#define BOOT_DEVICE_DISK 0x8000ffffu

struct header {
    uint64_t off; /* in the file */
    uint32_t flags, header_addr, load_addr, load_end, bss_end, entry;
};

struct info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, module_count, modules, syms[4], map_bytes, map,
        drives_bytes, drives, config, loader_name, apm, vbe[4], framebuffer[8];
} __attribute__((packed));

struct map_row {
    uint32_t size;
    uint64_t base, bytes;
    uint32_t type;
} __attribute__((packed));

struct module_row {
    uint32_t start, end, cmdline, reserved;
} __attribute__((packed));

#define MODULES_AT BOOT_LISTS
#define MAP_AT (BOOT_LISTS + 0x1000)

/* Strings are put one behind the other. */
struct strings {
    uint32_t used;
};

static bool find_header(const uint8_t *probe, struct header *ret)
{
    for (unsigned off = 0; off + HEADER_SIZE <= BOOT_PROBE_BYTES; off += 4) {
        struct cur c = cur_of(probe + off, HEADER_SIZE);
        if (cur_le32(&c) != HEADER_MAGIC)
            continue;
        struct header h = { .off = off, .flags = cur_le32(&c) };
        if (HEADER_MAGIC + h.flags + cur_le32(&c))
            continue;
        h.header_addr = cur_le32(&c);
        h.load_addr = cur_le32(&c);
        h.load_end = cur_le32(&c);
        h.bss_end = cur_le32(&c);
        h.entry = cur_le32(&c);
        *ret = h;
        return true;
    }
    return false;
}

bool multiboot_probe(const uint8_t *probe)
{
    struct header h;
    return find_header(probe, &h);
}

static bool bad_addresses(const struct boot_file *f, GError **error)
{
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "-kernel: the multiboot header of '%s' has load addresses that contradict each other", f->name);
}

/* The header's address fields place the image (the "a.out kludge"). */
static bool load_by_addresses(struct machine *m, const struct boot_file *f, const struct header *h,
                              uint64_t *ret_end, GError **error)
{
    uint64_t before = (uint64_t)h->header_addr - h->load_addr;
    if (h->load_addr > h->header_addr || before > h->off)
        return bad_addresses(f, error);
    uint64_t off = h->off - before, size = f->size - off;
    if (h->load_end) {
        if (h->load_end < h->load_addr)
            return bad_addresses(f, error);
        size = h->load_end - h->load_addr;
    }
    uint64_t end = h->load_addr + size;
    if (h->bss_end && h->bss_end < end)
        return bad_addresses(f, error);
    if (h->load_addr < BOOT_HIGH)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "-kernel: '%s' wants to be loaded at 0x%x; only addresses from 0x%x on are free", f->name,
                           h->load_addr, BOOT_HIGH);
    if (!boot_file_load(m, f, off, h->load_addr, size, error) ||
        (h->bss_end && !boot_clear(m, end, h->bss_end - end, f, error)))
        return false;
    *ret_end = max_u64(end, h->bss_end);
    return true;
}

static bool load_image(struct machine *m, struct boot_image *b, const struct header *h, uint64_t *ret_end,
                       GError **error)
{
    struct elf_image e;
    b->entry = h->entry;
    if (h->flags & FLAG_ADDRESSES)
        return load_by_addresses(m, &b->kernel, h, ret_end, error);
    if (!elf_parse(&b->kernel, &e, error))
        return false;
    if (e.is_64 || e.machine != ELF_MACHINE_386)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "-kernel: '%s' is a multiboot image for %s; multiboot starts 32-bit x86 images only",
                           b->kernel.name, e.machine == ELF_MACHINE_X86_64 ? "x86-64" : "another processor");
    b->entry = elf_entry_physical(&e);
    return elf_load(m, &b->kernel, &e, ret_end, error);
}

/* Its address, or 0 with an error. */
static uint32_t put_string(struct machine *m, struct strings *s, const char *text, GError **error)
{
    size_t len = strlen(text) + 1;
    uint32_t gpa = BOOT_CMDLINE + s->used;
    if (!range_fits(s->used, len, BOOT_CMDLINE_MAX)) {
        ruche_error(error, RUCHE_ERR_INVALID, "-append and -initrd: more than %u bytes of arguments", BOOT_CMDLINE_MAX);
        return 0;
    }
    s->used += (uint32_t)len;
    return boot_poke(m, gpa, text, len, error) ? gpa : 0;
}

static bool load_module(struct machine *m, struct strings *s, const char *text, uint64_t *at,
                        struct module_row *ret, GError **error)
{
    g_autofree char *path = g_strndup(text, strcspn(text, " "));
    struct boot_file f;
    if (!boot_file_open(&f, "-initrd", path, error))
        return false;
    uint64_t start = align_up(*at, 4096), end = start + f.size;
    bool ok = end <= m->ram_below_4g ||
              ruche_error(error, RUCHE_ERR_NO_SPACE,
                          "-initrd: '%s' does not fit: %" PRIu64 " bytes behind address 0x%" PRIx64, path, f.size, start);
    ok = ok && boot_file_load(m, &f, 0, start, f.size, error);
    boot_file_close(&f);
    uint32_t cmdline = ok ? put_string(m, s, text, error) : 0;
    *ret = (struct module_row){ (uint32_t)start, (uint32_t)end, cmdline, 0 };
    *at = end;
    return ok && cmdline;
}

static bool load_modules(struct machine *m, const struct boot_image *b, struct strings *s, uint64_t at,
                         struct info *info, GError **error)
{
    struct module_row rows[MAX_MODULES];
    g_auto(GStrv) list = g_strsplit(b->initrd ? b->initrd : "", ",", -1);
    for (char **it = list; *it; it++) {
        g_strchug(*it);
        if (!**it)
            continue;
        if (info->module_count == MAX_MODULES)
            return ruche_error(error, RUCHE_ERR_INVALID, "-initrd: more than %u modules", MAX_MODULES);
        if (!load_module(m, s, *it, &at, &rows[info->module_count], error))
            return false;
        info->module_count++;
    }
    info->modules = MODULES_AT;
    return boot_poke(m, MODULES_AT, rows, info->module_count * sizeof(rows[0]), error);
}

static bool load_map(struct machine *m, const struct boot_image *b, struct info *info, GError **error)
{
    struct map_row rows[E820_MAX];
    for (unsigned i = 0; i < b->map.count; i++) {
        const struct e820_entry *e = &b->map.entry[i];
        rows[i] = (struct map_row){ sizeof(rows[i]) - 4, e->base, e->size, e->type };
    }
    info->map = MAP_AT;
    info->map_bytes = (uint32_t)(b->map.count * sizeof(rows[0]));
    info->mem_lower = BOOT_EBDA / KIB;
    info->mem_upper = (uint32_t)((m->ram_below_4g - MIB) / KIB);
    return boot_poke(m, MAP_AT, rows, info->map_bytes, error);
}

bool multiboot_load(struct machine *m, struct boot_image *b, const uint8_t *probe, GError **error)
{
    struct header h = { 0 };
    struct strings s = { 0 };
    uint64_t end;
    struct info info = {
        .flags = INFO_MEMORY | INFO_BOOT_DEVICE | INFO_CMDLINE | INFO_MODULES | INFO_MAP | INFO_LOADER_NAME,
        .boot_device = BOOT_DEVICE_DISK,
    };
    if (!find_header(probe, &h) || (h.flags & FLAG_REQUIRED_UNKNOWN))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "-kernel: '%s' needs multiboot features 0x%x that do not exist here", b->kernel.name,
                           h.flags & FLAG_REQUIRED_UNKNOWN);
    g_autofree char *cmdline = g_strdup_printf("%s %s", b->kernel.name, b->append);
    if (!load_image(m, b, &h, &end, error) || !(info.cmdline = put_string(m, &s, cmdline, error)) ||
        !(info.loader_name = put_string(m, &s, "ruche", error)) ||
        !load_modules(m, b, &s, end, &info, error) || !load_map(m, b, &info, error) ||
        !boot_poke(m, BOOT_PARAMS, &info, sizeof(info), error))
        return false;
    b->mode = BOOT_ENTRY_32;
    b->gpr[0] = LOADER_MAGIC; /* eax */
    b->gpr[3] = BOOT_PARAMS;  /* ebx */
    return true;
}
