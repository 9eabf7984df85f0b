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

/* The \_S5_ package: the first two numbers are SLP_TYP for PM1a and PM1b. */
static int find_s5(const uint8_t *dsdt)
{
    uint32_t len;
    memcpy(&len, dsdt + 4, 4);
    for (uint32_t i = 36; i + 8 < len; i++) {
        if (memcmp(dsdt + i, "_S5_", 4) || dsdt[i + 4] != 0x12)
            continue;
        const uint8_t *p = dsdt + i + 5;
        p += (*p >> 6) + 1 + 1; /* the package's length and count */
        if (*p == 0x0a)
            p++;
        return *p;
    }
    return -1;
}

/* A field of 32 bits, or its wide successor where that is set. */
static uint64_t fadt_address(const uint8_t *fadt, unsigned narrow, unsigned wide)
{
    uint32_t size;
    uint64_t v = 0;
    memcpy(&size, fadt + 4, 4);
    if (size >= wide + 8)
        memcpy(&v, fadt + wide, 8);
    if (!v)
        memcpy(&v, fadt + narrow, 4);
    return v;
}

void acpi_off(void)
{
    const uint8_t *fadt = acpi_find("FACP");
    if (!fadt)
        fatal("there is no FADT");
    uint64_t dsdt = fadt_address(fadt, 40, 140), pm1a = fadt_address(fadt, 64, 172 + 4);
    int type = find_s5((const uint8_t *)(uintptr_t)dsdt);
    if (type < 0 || !pm1a)
        fatal("there is no _S5 or no PM1a control");
    print("power-off by port 0x%lx, type %d\n", pm1a, type);
    out16((uint16_t)pm1a, (uint16_t)(type << 10 | 1 << 13));
}
