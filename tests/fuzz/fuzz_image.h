/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Images as hostile bytes: opened to be checked, then as a guest's disk; mapped, read, written,
 * repaired.
 *
 * A target is one call:  return fuzz_image("vdi", data, size);
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* `data` is the file. Always 0. */
int fuzz_image(const char *format, const uint8_t *data, size_t size);
/* `data` is a list of pieces: le32 offset in units of 512 bytes, le16 length, that many bytes. For
 * formats whose structures lie megabytes apart. `fix` (or NULL) may mend the file first, checksums
 * for one. */
struct memory_file;
int fuzz_image_pieces(const char *format, const uint8_t *data, size_t size,
                      void (*fix)(struct memory_file *f));
