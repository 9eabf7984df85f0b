/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The first C code of each vCPU; what the boot loader said. */
#include "guest.h"

extern uint32_t boot_magic, boot_info, ap_next;
void start_c(unsigned index);
void smp_ap_main(unsigned index);

#define MULTIBOOT_MAGIC 0x2badb002
#define PVH_MAGIC 0x336ec578

const char *cmdline(void)
{
    const uint32_t *info = (const uint32_t *)(uintptr_t)boot_info;
    if (boot_magic == MULTIBOOT_MAGIC)
        return info[0] & 4 ? (const char *)(uintptr_t)info[4] : "";
    if (info && info[0] == PVH_MAGIC && info[6])
        return (const char *)(uintptr_t)info[6];
    return "";
}

uint64_t cmdline_number(const char *name, uint64_t def)
{
    size_t len = strlen(name);
    for (const char *s = cmdline(); *s; s++) {
        if (memcmp(s, name, len) || s[len] != '=')
            continue;
        uint64_t v = 0;
        for (s += len + 1; *s >= '0' && *s <= '9'; s++)
            v = v * 10 + (uint64_t)(*s - '0');
        return v;
    }
    return def;
}

void start_c(unsigned index)
{
#ifdef __x86_64__
    cpu_tables_init(index);
    if (index)
        smp_ap_main(index);
#endif
    out8(0x21, 0xff); /* the PICs: nothing until a test wants it */
    out8(0xa1, 0xff);
    test_main();
    finish();
}
