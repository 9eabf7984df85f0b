/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The items that fw_cfg offers to firmware and kernels: numbered keys and named files. The guest's ports and DMA
 * are devices/misc/fw_cfg.c; this is only the table.
 *
 * Spec      QEMU docs/specs/fw_cfg. Files get keys from 0x20 in name order.
 * Owner     struct machine. Data is copied in.
 */
#pragma once

#include "base/util.h"

#define FW_CFG_SIGNATURE 0x00
#define FW_CFG_ID 0x01
#define FW_CFG_UUID 0x02
#define FW_CFG_RAM_SIZE 0x03
#define FW_CFG_NOGRAPHIC 0x04
#define FW_CFG_NB_CPUS 0x05
#define FW_CFG_KERNEL_ADDR 0x07
#define FW_CFG_KERNEL_SIZE 0x08
#define FW_CFG_INITRD_ADDR 0x0a
#define FW_CFG_INITRD_SIZE 0x0b
#define FW_CFG_MAX_CPUS 0x0f
#define FW_CFG_KERNEL_DATA 0x11
#define FW_CFG_INITRD_DATA 0x12
#define FW_CFG_CMDLINE_ADDR 0x13
#define FW_CFG_CMDLINE_SIZE 0x14
#define FW_CFG_CMDLINE_DATA 0x15
#define FW_CFG_SETUP_ADDR 0x16
#define FW_CFG_SETUP_SIZE 0x17
#define FW_CFG_SETUP_DATA 0x18
#define FW_CFG_FILE_DIR 0x19
#define FW_CFG_FILE_FIRST 0x20
#define FW_CFG_MAX_FILES 64
#define FW_CFG_MAX_NAME 56 /* with the final zero */

struct fw_cfg;
struct fw_cfg_item {
    const uint8_t *data;
    uint32_t len;
};

struct fw_cfg *fw_cfg_new(void); /* NULL: out of memory */
void fw_cfg_free(struct fw_cfg *f);
/* Replaces an item of the same key or name. 0, -ENOMEM, -ENOSPC (too many files), -ENAMETOOLONG. */
int fw_cfg_set(struct fw_cfg *f, uint16_t key, const void *data, uint32_t len);
int fw_cfg_set_u16(struct fw_cfg *f, uint16_t key, uint16_t v);
int fw_cfg_set_u32(struct fw_cfg *f, uint16_t key, uint32_t v);
int fw_cfg_set_u64(struct fw_cfg *f, uint16_t key, uint64_t v);
int fw_cfg_set_file(struct fw_cfg *f, const char *name, const void *data, uint32_t len);
/* The item of a key; len 0 when there is none. The directory (0x19) is made from the files. */
struct fw_cfg_item fw_cfg_get(const struct fw_cfg *f, uint16_t key);
