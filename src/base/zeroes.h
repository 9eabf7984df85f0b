/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ranges of zeroes in files and on block devices, by what the file system or device does best. */
#pragma once

#include <stdint.h>

/* `len` bytes from `at`, none of them behind the end, read as zero afterwards; their room is given back where that can
 * be. Blocks, as long as writing all of them takes. 0 or negative errno. */
int zeroes_write(int fd, uint64_t at, uint64_t len);
