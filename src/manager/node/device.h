/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's devices, as the kernel shows them.
 *
 * Spec      libvirt's virNodeDevice* and formatnode at 9.0.0; flags are its numbers.
 * Thread    The loop thread. Each query reads /sys, which does not wait for devices: there is nothing to keep up to date.
 * Root      NODE_SYSFS of the environment stands in front of /sys: for tests.
 * Trust     Texts of devices are what their makers wrote: only what XML can hold is passed on.
 */
#pragma once

#include "manager/manager.h"

/* Bits of virConnectListAllNodeDeviceFlags. */
enum device_cap {
    DEVICE_SYSTEM, DEVICE_PCI, DEVICE_USB, DEVICE_USB_INTERFACE, DEVICE_NET, DEVICE_SCSI_HOST, DEVICE_SCSI_TARGET, DEVICE_SCSI,
    DEVICE_STORAGE, DEVICE_FC_HOST, DEVICE_VPORTS, DEVICE_SCSI_GENERIC, DEVICE_DRM, DEVICE_MDEV_TYPES, DEVICE_MDEV, DEVICE_CAPS
};

struct node_device {
    char *name;   /* "pci_0000_00_02_0" */
    char *path;   /* below /sys/devices, without links; NULL: the computer */
    char *parent; /* its name; NULL: the computer has none */
    unsigned caps; /* bits by enum device_cap; the lowest is its kind */
    enum device_cap kind;
};
void node_device_free(struct node_device *d);

/* Those with any of the capabilities of list_flags, sorted by name; 0: all. Never NULL. */
GPtrArray *node_devices(const struct caller *who, unsigned list_flags);
/* By a capability's name, "pci"; NULL: all. An unknown one is an error. */
GPtrArray *node_devices_of(const struct caller *who, const char *cap, GError **error);
struct node_device *node_device_find(const struct caller *who, const char *name, GError **error);
struct node_device *node_device_find_wwn(const struct caller *who, const char *wwnn, const char *wwpn, GError **error);
const char *node_device_cap_name(enum device_cap cap); /* NULL: no such number */
char *node_device_xml(const struct node_device *d);

/* device_xml.c: a file of a device's folder, its text fit for XML; NULL: it has none. */
char *node_device_text(const struct node_device *d, const char *file);
