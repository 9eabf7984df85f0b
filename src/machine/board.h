/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the boards share: parts that every PC has, the VGA hole, the reset vector, fw_cfg's items.
 *
 * Owner     m->board_data is a struct board_data, from board_init() to board_destroy().
 * Thread    Main.
 */
#pragma once

#include "machine/machine.h"

struct board_data {
    struct mem_region vga_hole;
    struct mem_region reset_rom; /* only without a kernel: vCPU 0 halts there */
    uint8_t *reset_page;
};

/* A device that the board makes, when `wanted` says so. */
struct board_part {
    const char *type;
    const char *prop, *value; /* one property to set; NULL: none */
    bool (*wanted)(const struct machine *m); /* NULL: always */
};

/* Conditions for the rows above. */
bool board_wants_user_irqchip(const struct machine *m);
bool board_wants_user_pic(const struct machine *m);
bool board_wants_user_pit(const struct machine *m);
bool board_wants_rtc(const struct machine *m);
bool board_wants_cpu_hotplug(const struct machine *m);
bool board_wants_hpet(const struct machine *m);

bool board_init(struct machine *m, GError **error);
bool board_make_parts(struct machine *m, const struct board_part *parts, size_t count, GError **error);
bool board_map_vga_hole(struct machine *m, GError **error);
void board_destroy(struct machine *m);
