/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Image locks that QEMU and its tools understand.
 *
 * Owner     The open file description: closing its last descriptor gives them back.
 * Thread    Any.
 */
#pragma once

#include "base/error.h"

/* Refuses when others use the file in a way that excludes us: the sentence says who. Files that cannot be locked pass. */
bool image_lock(int fd, const char *filename, bool write, bool force_share, GError **error);
/* The same to write, nobody else doing so; false: *ret_who (the caller's) names the other, "process 12 (qemu)". The
 * descriptor must be readable. */
bool image_lock_alone(int fd, char **ret_who);
void image_unlock(int fd);
