/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Linux bzImage: setup header, zero page, command line, initrd, entry at 64 or 32 bits.
 *
 * Spec      Linux Documentation/arch/x86/boot.rst and zero-page.rst, protocol 2.02 to 2.15.
 * Trust     The setup header is the file's: read once into `struct setup`, checked, then used.
 */
#include "machine/boot/boot.h"

#include "base/cursor.h"

#include <inttypes.h>
#include <sys/random.h>

/* Offsets in the file's first sector, and the same in the zero page. */
#define HDR_SETUP_SECTS 0x1f1
#define HDR_BOOT_FLAG 0x1fe
#define HDR_JUMP_LEN 0x201
#define HDR_MAGIC 0x202
#define HDR_VERSION 0x206
#define HDR_TYPE_OF_LOADER 0x210
#define HDR_LOADFLAGS 0x211
#define HDR_CODE32_START 0x214
#define HDR_RAMDISK_IMAGE 0x218
#define HDR_RAMDISK_SIZE 0x21c
#define HDR_HEAP_END 0x224
#define HDR_CMD_LINE_PTR 0x228
#define HDR_INITRD_ADDR_MAX 0x22c
#define HDR_XLOADFLAGS 0x236
#define HDR_CMDLINE_SIZE 0x238
#define HDR_SETUP_DATA 0x250
#define HDR_PREF_ADDRESS 0x258
#define HDR_INIT_SIZE 0x260
#define HDR_END_MAX 0x290

#define ZP_EXT_MEM_K 0x002
#define ZP_ACPI_RSDP 0x070
#define ZP_ALT_MEM_K 0x1e0
#define ZP_E820_ENTRIES 0x1e8
#define ZP_E820_TABLE 0x2d0

#define BOOT_FLAG 0xaa55
#define MAGIC 0x53726448u /* "HdrS" */
#define LOADED_HIGH 0x01
#define CAN_USE_HEAP 0x80
#define XLF_KERNEL_64 0x0001
#define LOADER_UNDEFINED 0xff
#define SETUP_RNG_SEED 9
#define SETUP_SECTS_DEFAULT 4
#define CMDLINE_SIZE_OLD 255
#define INITRD_MAX_OLD 0x37ffffffu
#define ENTRY_64 0x200

struct setup {
    uint16_t version, xloadflags;
    uint8_t loadflags;
    uint32_t initrd_addr_max, cmdline_size;
    uint64_t kernel_off; /* of the protected-mode part in the file */
    uint64_t ram_needed; /* the kernel unpacks itself up to here at least; 0: not known */
    unsigned header_end;
    uint8_t raw[HDR_END_MAX];
};

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) | (uint32_t)get16(p + 2) << 16;
}

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}

bool bzimage_probe(const uint8_t *probe)
{
    return get16(probe + HDR_BOOT_FLAG) == BOOT_FLAG && get32(probe + HDR_MAGIC) == MAGIC;
}

static bool parse_setup(const struct boot_file *f, struct setup *s, GError **error)
{
    memset(s, 0, sizeof(*s));
    if (!boot_file_read(f, 0, s->raw, sizeof(s->raw), error))
        return false;
    s->version = get16(s->raw + HDR_VERSION);
    s->loadflags = s->raw[HDR_LOADFLAGS];
    if (s->version < 0x0202 || !(s->loadflags & LOADED_HIGH))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "-kernel: '%s' is a Linux image of boot protocol %u.%02u; bzImage of 2.02 or later "
                           "is needed",
                           f->name, s->version >> 8, s->version & 0xff);
    s->header_end = (unsigned)min_u64(HDR_MAGIC + s->raw[HDR_JUMP_LEN], HDR_END_MAX);
    if (s->header_end < HDR_CMD_LINE_PTR + 4)
        return ruche_error(error, RUCHE_ERR_INVALID, "-kernel: '%s' has a setup header of only %u bytes", f->name,
                           s->header_end - HDR_SETUP_SECTS);
    /* What lies behind the header is code, whatever it looks like. */
    memset(s->raw + s->header_end, 0, sizeof(s->raw) - s->header_end);
    unsigned sects = s->raw[HDR_SETUP_SECTS] ? s->raw[HDR_SETUP_SECTS] : SETUP_SECTS_DEFAULT;
    s->kernel_off = (uint64_t)(sects + 1) * 512;
    if (s->kernel_off + ENTRY_64 >= f->size)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "-kernel: '%s' is truncated: %" PRIu64 " bytes, and %" PRIu64 " belong to its setup code",
                           f->name, f->size, s->kernel_off);
    s->initrd_addr_max = s->version >= 0x0203 ? get32(s->raw + HDR_INITRD_ADDR_MAX) : INITRD_MAX_OLD;
    s->cmdline_size = s->version >= 0x0206 ? get32(s->raw + HDR_CMDLINE_SIZE) : CMDLINE_SIZE_OLD;
    if (s->version >= 0x020a)
        s->ram_needed = min_u64(get32(s->raw + HDR_PREF_ADDRESS), GIB) + get32(s->raw + HDR_INIT_SIZE);
    s->xloadflags = s->version >= 0x020c ? get16(s->raw + HDR_XLOADFLAGS) : 0;
    return true;
}

static bool load_cmdline(struct machine *m, const struct boot_image *b, const struct setup *s, GError **error)
{
    size_t len = strlen(b->append);
    uint64_t max = min_u64(s->cmdline_size, BOOT_CMDLINE_MAX - 1);
    if (len > max)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "-append: %zu bytes, and this kernel takes a command line of %" PRIu64, len, max);
    return boot_poke(m, BOOT_CMDLINE, b->append, len + 1, error);
}

/* A list with one element: fresh entropy for the guest's random number generator. */
static bool load_setup_data(struct machine *m, GError **error)
{
    struct {
        uint64_t next;
        uint32_t type, len;
        uint8_t seed[32];
    } __attribute__((packed)) data = { .type = SETUP_RNG_SEED, .len = sizeof(data.seed) };
    if (getrandom(data.seed, sizeof(data.seed), 0) != sizeof(data.seed))
        memset(data.seed, 0, sizeof(data.seed));
    return boot_poke(m, BOOT_LISTS, &data, sizeof(data), error);
}

static void fill_zero_page(uint8_t *zp, const struct machine *m, const struct boot_image *b, const struct setup *s,
                           uint64_t initrd_gpa, uint64_t initrd_size)
{
    uint32_t above_1m_kib = (uint32_t)((m->ram_below_4g - MIB) / KIB);
    uint16_t ext = (uint16_t)min_u64(above_1m_kib, 0xffff);
    memcpy(zp + HDR_SETUP_SECTS, s->raw + HDR_SETUP_SECTS, s->header_end - HDR_SETUP_SECTS);
    memcpy(zp + ZP_EXT_MEM_K, &ext, 2);
    put32(zp + ZP_ALT_MEM_K, above_1m_kib);
    memcpy(zp + ZP_ACPI_RSDP, &b->rsdp_gpa, 8);
    zp[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    zp[HDR_LOADFLAGS] |= CAN_USE_HEAP;
    zp[HDR_HEAP_END] = 0;
    zp[HDR_HEAP_END + 1] = 0xfe;
    put32(zp + HDR_CODE32_START, BOOT_HIGH);
    put32(zp + HDR_RAMDISK_IMAGE, (uint32_t)initrd_gpa);
    put32(zp + HDR_RAMDISK_SIZE, (uint32_t)initrd_size);
    put32(zp + HDR_CMD_LINE_PTR, BOOT_CMDLINE);
    if (s->version >= 0x0209 && s->header_end >= HDR_SETUP_DATA + 8)
        put32(zp + HDR_SETUP_DATA, BOOT_LISTS);
    zp[ZP_E820_ENTRIES] = (uint8_t)b->map.count;
    memcpy(zp + ZP_E820_TABLE, b->map.entry, b->map.count * sizeof(b->map.entry[0]));
}

bool bzimage_load(struct machine *m, struct boot_image *b, GError **error)
{
    struct setup s;
    uint8_t zp[4096] = { 0 };
    uint64_t initrd_gpa, initrd_size;
    if (!parse_setup(&b->kernel, &s, error))
        return false;
    uint64_t kernel_size = b->kernel.size - s.kernel_off;
    uint64_t end = align_up(BOOT_HIGH + kernel_size, 4096);
    if (s.ram_needed > m->ram_below_4g)
        return ruche_error(error, RUCHE_ERR_NO_SPACE,
                           "-kernel: '%s' unpacks itself up to %" PRIu64 " MiB; the machine has %" PRIu64 " MiB of RAM",
                           b->kernel.name, (uint64_t)((s.ram_needed + MIB - 1) / MIB), (uint64_t)(m->config.ram_bytes / MIB));
    if (!boot_file_load(m, &b->kernel, s.kernel_off, BOOT_HIGH, kernel_size, error) ||
        !load_cmdline(m, b, &s, error) || !load_setup_data(m, error) ||
        !boot_load_initrd(m, b, end, (uint64_t)s.initrd_addr_max + 1, &initrd_gpa, &initrd_size, error))
        return false;
    fill_zero_page(zp, m, b, &s, initrd_gpa, initrd_size);
    if (!boot_poke(m, BOOT_PARAMS, zp, sizeof(zp), error))
        return false;
    b->mode = s.xloadflags & XLF_KERNEL_64 ? BOOT_ENTRY_64 : BOOT_ENTRY_32;
    b->entry = BOOT_HIGH + (b->mode == BOOT_ENTRY_64 ? ENTRY_64 : 0);
    b->gpr[6] = BOOT_PARAMS; /* rsi */
    return true;
}
