/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VHDX: headers, regions, logs, metadata and block tables of any bytes, under checksums that are
 * right. */
#include "fuzz_image.h"

#include "image/memory.h"
#include "image/vhdx/vhdx.h"

#include <endian.h>
#include <string.h>

enum { SUM_AT = 4, TABLE_BYTES = 64 * 1024, LOG_SECTOR = 4096, LOG_ENTRIES = 64 };

static void fix_sum(struct memory_file *f, uint64_t off, uint32_t len)
{
    static uint8_t bytes[TABLE_BYTES];
    if (len < SUM_AT + 4 || len > sizeof(bytes) || off + len > memory_file_size(f))
        return;
    memory_file_read(f, off, bytes, len);
    uint32_t sum = htole32(vhdx_checksum(bytes, len, SUM_AT));
    memory_file_write(f, off + SUM_AT, &sum, 4);
}

/* The entries of the log that a header names. */
static void fix_log(struct memory_file *f, uint64_t header)
{
    uint32_t len, entry[3];
    uint64_t off;
    memory_file_read(f, header + 68, &len, sizeof(len));
    memory_file_read(f, header + 72, &off, sizeof(off));
    off = le64toh(off);
    for (unsigned i = 0; i < LOG_ENTRIES && i < le32toh(len) / LOG_SECTOR; i++, off += LOG_SECTOR) {
        if (off >= memory_file_size(f))
            return;
        memory_file_read(f, off, entry, sizeof(entry));
        if (!memcmp(entry, "loge", 4))
            fix_sum(f, off, le32toh(entry[2]));
    }
}

static void fix_sums(struct memory_file *f)
{
    for (uint64_t header = TABLE_BYTES; header <= 2 * TABLE_BYTES; header += TABLE_BYTES) {
        fix_sum(f, header, 4096);
        fix_log(f, header);
    }
    fix_sum(f, 3 * TABLE_BYTES, TABLE_BYTES);
    fix_sum(f, 4 * TABLE_BYTES, TABLE_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_image_pieces("vhdx", data, size, fix_sums);
}
