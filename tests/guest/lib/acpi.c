/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ACPI tables: the root pointer from the PVH start info or the BIOS area, then RSDT or XSDT. */
#include "guest.h"

extern uint32_t boot_magic, boot_info;

struct rsdp {
    char sig[8];
    uint8_t sum;
    char oem[6];
    uint8_t revision;
    uint32_t rsdt, length;
    uint64_t xsdt;
} __attribute__((packed));

static const struct rsdp *find_root(void)
{
    const uint32_t *info = (const uint32_t *)(uintptr_t)boot_info;
    if (boot_magic != 0x2badb002 && info && info[0] == 0x336ec578 && info[8])
        return (const struct rsdp *)(uintptr_t)info[8];
    for (uintptr_t p = 0xe0000; p < 0x100000; p += 16) {
        if (!memcmp((void *)p, "RSD PTR ", 8))
            return (const struct rsdp *)p;
    }
    return NULL;
}

const void *acpi_find(const char sig[4])
{
    const struct rsdp *r = find_root();
    if (!r)
        return NULL;
    bool wide = r->revision >= 2 && r->xsdt;
    const uint8_t *root = (const uint8_t *)(uintptr_t)(wide ? r->xsdt : r->rsdt);
    uint32_t len;
    memcpy(&len, root + 4, 4);
    for (uint32_t off = 36; off + (wide ? 8 : 4) <= len; off += wide ? 8 : 4) {
        uint64_t at = 0;
        memcpy(&at, root + off, wide ? 8 : 4);
        if (!memcmp((const void *)(uintptr_t)at, sig, 4))
            return (const void *)(uintptr_t)at;
    }
    return NULL;
}
