/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fw_cfg's table of items. Files are kept in name order, so that their keys and the directory are stable. */
#include "machine/fw_cfg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct stored {
    uint8_t *data;
    uint32_t len;
};

struct named {
    char name[FW_CFG_MAX_NAME];
    struct stored item;
};

/* The directory as the guest reads it: big-endian count, then 64-byte entries. */
struct dir_entry {
    uint32_t size_be;
    uint16_t select_be;
    uint16_t reserved;
    char name[FW_CFG_MAX_NAME];
} __attribute__((packed));

struct directory {
    uint32_t count_be;
    struct dir_entry entry[FW_CFG_MAX_FILES];
} __attribute__((packed));

struct fw_cfg {
    struct stored key[FW_CFG_FILE_FIRST];
    struct named file[FW_CFG_MAX_FILES];
    unsigned file_count;
    struct directory dir;
};

static void update_directory(struct fw_cfg *f)
{
    f->dir.count_be = __builtin_bswap32(f->file_count);
    for (unsigned i = 0; i < f->file_count; i++) {
        struct dir_entry *e = &f->dir.entry[i];
        e->size_be = __builtin_bswap32(f->file[i].item.len);
        e->select_be = __builtin_bswap16((uint16_t)(FW_CFG_FILE_FIRST + i));
        e->reserved = 0;
        memcpy(e->name, f->file[i].name, sizeof(e->name));
    }
}

struct fw_cfg *fw_cfg_new(void)
{
    struct fw_cfg *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    /* Feature bits: the traditional interface and DMA. */
    if (fw_cfg_set(f, FW_CFG_SIGNATURE, "QEMU", 4) || fw_cfg_set_u32(f, FW_CFG_ID, 3)) {
        fw_cfg_free(f);
        return NULL;
    }
    return f;
}

void fw_cfg_free(struct fw_cfg *f)
{
    if (!f)
        return;
    for (unsigned i = 0; i < FW_CFG_FILE_FIRST; i++)
        free(f->key[i].data);
    for (unsigned i = 0; i < f->file_count; i++)
        free(f->file[i].item.data);
    free(f);
}

static int store(struct stored *s, const void *data, uint32_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, data, len);
    free(s->data);
    *s = (struct stored){ copy, len };
    return 0;
}

int fw_cfg_set(struct fw_cfg *f, uint16_t key, const void *data, uint32_t len)
{
    return key < FW_CFG_FILE_FIRST ? store(&f->key[key], data, len) : -EINVAL;
}

int fw_cfg_set_u16(struct fw_cfg *f, uint16_t key, uint16_t v)
{
    return fw_cfg_set(f, key, &v, sizeof(v));
}

int fw_cfg_set_u32(struct fw_cfg *f, uint16_t key, uint32_t v)
{
    return fw_cfg_set(f, key, &v, sizeof(v));
}

int fw_cfg_set_u64(struct fw_cfg *f, uint16_t key, uint64_t v)
{
    return fw_cfg_set(f, key, &v, sizeof(v));
}

int fw_cfg_set_file(struct fw_cfg *f, const char *name, const void *data, uint32_t len)
{
    unsigned i = 0;
    if (strlen(name) >= FW_CFG_MAX_NAME)
        return -ENAMETOOLONG;
    while (i < f->file_count && strcmp(f->file[i].name, name) < 0)
        i++;
    bool replace = i < f->file_count && !strcmp(f->file[i].name, name);
    if (!replace && f->file_count == FW_CFG_MAX_FILES)
        return -ENOSPC;
    struct stored item = { 0 };
    int err = store(&item, data, len);
    if (err)
        return err;
    if (replace) {
        free(f->file[i].item.data);
    } else {
        memmove(&f->file[i + 1], &f->file[i], (f->file_count - i) * sizeof(f->file[0]));
        f->file_count++;
        memset(f->file[i].name, 0, FW_CFG_MAX_NAME);
        memcpy(f->file[i].name, name, strlen(name));
    }
    f->file[i].item = item;
    update_directory(f);
    return 0;
}

struct fw_cfg_item fw_cfg_get(const struct fw_cfg *f, uint16_t key)
{
    const struct stored *s = NULL;
    if (key == FW_CFG_FILE_DIR)
        return (struct fw_cfg_item){ (const uint8_t *)&f->dir,
                                     4 + f->file_count * (uint32_t)sizeof(struct dir_entry) };
    if (key < FW_CFG_FILE_FIRST)
        s = &f->key[key];
    else if (key - FW_CFG_FILE_FIRST < (int)f->file_count)
        s = &f->file[key - FW_CFG_FILE_FIRST].item;
    return s ? (struct fw_cfg_item){ s->data, s->len } : (struct fw_cfg_item){ 0 };
}
