/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VDI: headers and block maps of any bytes. */
#include "fuzz_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_image("vdi", data, size);
}
