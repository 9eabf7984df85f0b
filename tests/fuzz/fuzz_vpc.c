/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VHD: footers, headers, block tables and sector bitmaps of any bytes, under checksums that are
 * right. */
#include "fuzz_image.h"

#include "image/memory.h"

#include <endian.h>
#include <string.h>

enum {
    FOOTER_BYTES = 512,
    HEADER_BYTES = 1024,
    FOOTER_SUM_AT = 64,
    HEADER_SUM_AT = 36,
    HEADER_OFFSET_AT = 16
};

static void fix_sum(struct memory_file *f, uint64_t off, size_t len, size_t sum_at)
{
    uint8_t bytes[HEADER_BYTES];
    uint32_t sum = 0;
    memory_file_read(f, off, bytes, len);
    memset(bytes + sum_at, 0, 4);
    for (size_t i = 0; i < len; i++)
        sum += bytes[i];
    sum = htobe32(~sum);
    memory_file_write(f, off + sum_at, &sum, 4);
}

static void fix_sums(struct memory_file *f)
{
    uint64_t size = memory_file_size(f), header;
    if (size < FOOTER_BYTES)
        return;
    fix_sum(f, size - FOOTER_BYTES, FOOTER_BYTES, FOOTER_SUM_AT);
    if (size < 3 * FOOTER_BYTES)
        return;
    fix_sum(f, 0, FOOTER_BYTES, FOOTER_SUM_AT);
    memory_file_read(f, size - FOOTER_BYTES + HEADER_OFFSET_AT, &header, sizeof(header));
    header = be64toh(header);
    if (header < size && HEADER_BYTES <= size - header)
        fix_sum(f, header, HEADER_BYTES, HEADER_SUM_AT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_image_pieces("vpc", data, size, fix_sums);
}
