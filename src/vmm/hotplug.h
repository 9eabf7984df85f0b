/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices and what they stand on, put in and taken out while the machine runs.
 *
 * Spec      QEMU's QMP: device_add, device_del, DEVICE_DELETED, netdev_add, chardev-add, add-fd,
 *           getfd.
 * Thread    The main thread.
 * Errors    Sentences; QEMU's own where managers compare them.
 */
#pragma once

#include "vmm/qmp_util.h"

/* machine_observer.unplugged: frees the device, gives back what it stood on, tells QMP. */
void hotplug_unplugged(void *opaque, struct device *d);

/* vCPUs (qmp_cpu_plug.c). "driver" names one: MODEL-x86_64-cpu. */
bool hotplug_is_cpu(const char *driver);
/* Before power-on, too. */
bool hotplug_cpu_add(struct vmm *v, struct kv_list *l, GError **error);
/* The vCPU called `id`, or -1; asking the guest for it. */
int hotplug_find_cpu(const struct vmm *v, const char *id);
bool hotplug_cpu_del(struct vmm *v, unsigned index, GError **error);
void hotplug_cpu_ejected(void *opaque, unsigned index);
void hotplug_cpu_reported(void *opaque, unsigned index, uint32_t event, uint32_t status);
JsonObject *hotplug_cpu_props(const struct machine *m, unsigned index);
char *hotplug_cpu_path(const struct vmm *v, unsigned index);
void hotplug_done(struct vmm *v);

void hotplug_deleted_event(struct vmm *v, const char *id, const char *path);
/* A command's arguments as a list of pairs; nested ones have dotted names. NULL with *error. */
struct kv_list *hotplug_args(JsonObject *args, GError **error);
/* A descriptor that getfd has named, which is the caller's from here. -1 with *error. */
int hotplug_take_fd(struct vmm *v, const char *name, GError **error);
