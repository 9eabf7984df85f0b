/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The reader of the store's log: any bytes, with and without a right check; what it takes is within
 * them and below the folder. */
#include "manager/store_record.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void take_all(const uint8_t *bytes, size_t len)
{
    struct cur c = cur_of(bytes, len);
    uint64_t epoch = store_record_epoch(c);
    struct store_record r;
    for (uint64_t number = 0; store_record_take(&c, epoch, number, &r); number++) {
        size_t path_len = strlen(r.path), text_len = strlen(r.text);
        assert((const uint8_t *)r.path >= bytes &&
               (const uint8_t *)r.text + text_len < bytes + len);
        assert(path_len && *r.path != '/' && strcmp(r.path, "..") != 0 &&
               strncmp(r.path, "../", 3) != 0 && !strstr(r.path, "/../"));
        assert(c.p > bytes && (c.p - bytes) % STORE_SECTOR == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t whole = size / STORE_SECTOR * STORE_SECTOR;
    uint8_t *copy = malloc(size + 1); /* its own: reading beyond the end is seen */
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    take_all(copy, size);
    if (whole)
        store_record_seal(copy, whole);
    take_all(copy, size);
    free(copy);
    return 0;
}
