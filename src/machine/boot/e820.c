/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory map: a small sorted array. */
#include "machine/boot/e820.h"

#include <string.h>

static void insert(struct e820_map *map, uint64_t base, uint64_t size, uint32_t type)
{
    unsigned i = 0;
    if (!size || map->count == E820_MAX)
        return;
    while (i < map->count && map->entry[i].base < base)
        i++;
    memmove(&map->entry[i + 1], &map->entry[i], (map->count - i) * sizeof(map->entry[0]));
    map->entry[i] = (struct e820_entry){ base, size, type };
    map->count++;
}

void e820_add(struct e820_map *map, uint64_t base, uint64_t size, enum e820_type type)
{
    uint64_t end = base + size;
    for (unsigned i = 0; i < map->count; i++) {
        struct e820_entry *e = &map->entry[i];
        uint64_t e_base = e->base, e_end = e->base + e->size;
        if (e_end <= base || e_base >= end)
            continue;
        /* Keep what is left of the cut; what is right of it becomes an entry of its own. */
        uint32_t e_type = e->type;
        if (e_base < base) {
            e->size = base - e_base;
        } else {
            memmove(e, e + 1, (map->count - i - 1) * sizeof(*e));
            map->count--;
            i--;
        }
        if (e_end > end) {
            insert(map, end, e_end - end, e_type);
            break;
        }
    }
    insert(map, base, size, type);
}

bool e820_is_ram(const struct e820_map *map, uint64_t base, uint64_t size)
{
    for (unsigned i = 0; i < map->count; i++) {
        const struct e820_entry *e = &map->entry[i];
        if (e->type == E820_RAM && base >= e->base && range_fits(base - e->base, size, e->size))
            return true;
    }
    return false;
}
