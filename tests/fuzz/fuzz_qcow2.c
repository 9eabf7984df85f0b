/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qcow2: headers, extensions, tables, snapshots, bitmaps and compressed clusters of any bytes. */
#include "fuzz_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_image("qcow2", data, size);
}
