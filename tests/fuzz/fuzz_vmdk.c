/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMDK: descriptors, sparse and compressed extents of any bytes. */
#include "fuzz_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_image("vmdk", data, size);
}
