/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fw_cfg by its ports. */
#include "guest.h"

bool fw_cfg_present(void)
{
    char sig[4];
    fw_cfg_read(0, sig, sizeof(sig));
    return !memcmp(sig, "QEMU", 4);
}

void fw_cfg_read(uint16_t key, void *buf, uint32_t len)
{
    uint8_t *p = buf;
    out16(0x510, key);
    for (uint32_t i = 0; i < len; i++)
        p[i] = in8(0x511);
}

bool fw_cfg_find(const char *name, uint16_t *ret_key, uint32_t *ret_len)
{
    struct {
        uint32_t size;
        uint16_t key, reserved;
        char name[56];
    } file;
    uint32_t count;
    fw_cfg_read(0x19, &count, sizeof(count));
    count = __builtin_bswap32(count);
    for (uint32_t i = 0; i < count && i < 256; i++) {
        uint8_t *p = (uint8_t *)&file;
        for (unsigned j = 0; j < sizeof(file); j++)
            p[j] = in8(0x511);
        if (memcmp(file.name, name, strlen(name) + 1))
            continue;
        *ret_key = __builtin_bswap16(file.key);
        *ret_len = __builtin_bswap32(file.size);
        return true;
    }
    return false;
}
