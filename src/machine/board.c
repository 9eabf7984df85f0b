/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the boards share. */
#include "machine/board.h"

#include "machine/chipset.h"
#include "machine/fw_cfg.h"

#include <sys/mman.h>

#define RESET_PAGE 0xfffff000u
#define PAGE_BYTES 4096

bool board_wants_user_irqchip(const struct machine *m)
{
    return !m->accel->ops->kernel_irqchip;
}

bool board_wants_user_pic(const struct machine *m)
{
    return board_wants_user_irqchip(m) && m->config.pic;
}

bool board_wants_user_pit(const struct machine *m)
{
    return board_wants_user_irqchip(m) && m->config.pit;
}

bool board_wants_rtc(const struct machine *m)
{
    return m->config.rtc;
}

bool board_wants_hpet(const struct machine *m)
{
    return m->config.hpet;
}

/* Nothing answers between 640 and 768 KiB unless a display adapter stands there. */
static uint64_t hole_read(void *opaque, uint64_t off, unsigned size)
{
    return UINT64_MAX;
}

static void hole_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
}

static const struct mem_ops hole_ops = { .read = hole_read, .write = hole_write };

bool board_map_vga_hole(struct machine *m, GError **error)
{
    struct board_data *b = m->board_data;
    mem_region_init_io(&b->vga_hole, "vga-hole", &hole_ops, NULL, VGA_HOLE_END - VGA_HOLE_BASE, NULL);
    int err = mem_region_add(m->memory, &b->vga_hole, VGA_HOLE_BASE, 1);
    return !err || ruche_error_errno(error, -err, "the address map cannot be made");
}

/* Without a kernel there is nothing to execute: cli; hlt; jump back. */
static bool map_reset_rom(struct machine *m, GError **error)
{
    static const uint8_t code[] = { 0xfa, 0xf4, 0xeb, 0xfc };
    struct board_data *b = m->board_data;
    void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "no memory for the reset vector");
    b->reset_page = page;
    memset(page, 0xf4, PAGE_BYTES);
    memcpy(b->reset_page + 0xff0, code, sizeof(code));
    mem_region_init_ram(&b->reset_rom, "reset-vector", MEM_ROM, page, PAGE_BYTES, -1, 0);
    int err = mem_region_add(m->memory, &b->reset_rom, RESET_PAGE, 0);
    return !err || ruche_error_errno(error, -err, "the address map cannot be made");
}

static bool fill_fw_cfg(struct machine *m, GError **error)
{
    struct fw_cfg *f = m->fw_cfg = fw_cfg_new();
    uint16_t cpus = (uint16_t)m->config.cpu_count, max = (uint16_t)max_u64(m->config.max_cpus, cpus);
    if (!f || fw_cfg_set(f, FW_CFG_UUID, m->config.uuid, sizeof(m->config.uuid)) ||
        fw_cfg_set_u64(f, FW_CFG_RAM_SIZE, m->config.ram_bytes) ||
        fw_cfg_set_u16(f, FW_CFG_NOGRAPHIC, m->config.graphics ? 0 : 1) ||
        fw_cfg_set_u16(f, FW_CFG_NB_CPUS, cpus) || fw_cfg_set_u16(f, FW_CFG_MAX_CPUS, max))
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "no memory for the fw_cfg items");
    return true;
}

bool board_init(struct machine *m, GError **error)
{
    m->board_data = g_new0(struct board_data, 1);
    if (m->config.firmware)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "-bios %s: only direct boot with -kernel works so far",
                           m->config.firmware);
    return (m->config.kernel || map_reset_rom(m, error)) && fill_fw_cfg(m, error);
}

bool board_wants_cpu_hotplug(const struct machine *m)
{
    return m->config.acpi && m->config.max_cpus > m->config.cpu_count;
}

bool board_make_parts(struct machine *m, const struct board_part *parts, size_t count, GError **error)
{
    for (size_t i = 0; i < count; i++) {
        const struct board_part *p = &parts[i];
        if (p->wanted && !p->wanted(m))
            continue;
        if (!device_make(m, p->type, error, p->prop, p->value, NULL))
            return false;
    }
    return true;
}

void board_destroy(struct machine *m)
{
    struct board_data *b = m->board_data;
    if (!b)
        return;
    mem_region_remove(&b->vga_hole);
    mem_region_remove(&b->reset_rom);
    if (b->reset_page)
        munmap(b->reset_page, PAGE_BYTES);
    fw_cfg_free(m->fw_cfg);
    m->fw_cfg = NULL;
    g_free(b);
    m->board_data = NULL;
}
