/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices and what they stand on, put in and taken out while the machine runs.
 *
 * Spec      QEMU's QMP: device_add, device_del, DEVICE_DELETED, netdev_add, chardev-add, add-fd,
 * getfd. Thread    The main thread. Errors    Sentences; QEMU's own where managers compare them.
 */
#pragma once

#include "vmm/qmp_util.h"

/* machine_observer.unplugged: frees the device, gives back what it stood on, tells QMP. */
void hotplug_unplugged(void *opaque, struct device *d);

/* A command's arguments as a list of pairs; nested ones have dotted names. NULL with *error. */
struct kv_list *hotplug_args(JsonObject *args, GError **error);
/* A descriptor that getfd has named, which is the caller's from here. -1 with *error. */
int hotplug_take_fd(struct vmm *v, const char *name, GError **error);
