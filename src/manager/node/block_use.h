/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the host does with a block device.
 *
 * Spec      proc(5): mountinfo, swaps; holders and partitions of block devices in sysfs.
 * Thread    Any; small files only.
 */
#pragma once

#include <glib.h>

/* "disk 'sda1', which is mounted on '/'" or "disk 'sda2' as swap": the device of this name of the kernel's, one of its
 * partitions, or what stands on either (LVM, RAID, encryption). The caller's; NULL: nothing of the like. */
char *block_device_use(const char *disk);
/* Something that stands on it: the kernel's name, the caller's; NULL: nothing. */
char *block_device_holder(const char *disk);
