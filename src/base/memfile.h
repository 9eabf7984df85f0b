/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files without a name, in memory: what another program is to read and nobody else is to find.
 *
 * Spec      memfd_create(2), fcntl(2) on seals.
 * Thread    Any.
 * Errors    Negative errno.
 */
#pragma once

#include <stddef.h>

/* A descriptor of a file that holds `data` and can only be read from now on; close-on-exec, at its beginning. */
int memfile_sealed(const char *name, const void *data, size_t len);
