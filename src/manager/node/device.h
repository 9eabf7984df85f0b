/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's devices, as the kernel shows them.
 *
 * Spec      libvirt's virNodeDevice* and formatnode at 9.0.0; flags are its numbers.
 * Thread    The loop thread. Each query reads /sys, which does not wait for devices; what changes devices waits on a worker.
 * Stored    Mediated devices that are defined: config_dir/mdevs/UUID.xml, config_dir/mdevs/autostart/UUID.xml.
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
    char *path;   /* below /sys/devices, without links; NULL: the computer, or one that is not active */
    char *parent; /* its name; NULL: the computer has none */
    unsigned caps; /* bits by enum device_cap; the lowest is its kind */
    enum device_cap kind;
    bool active, autostart;
    char *text; /* its definition; NULL: it has none */
};
void node_device_free(struct node_device *d);

/* Those with any of the capabilities of list_flags, sorted by name; none given: all. Never NULL. */
enum { NODE_DEVICES_INACTIVE = 1 << 30 };
#define NODE_DEVICES_ACTIVE (1u << 31)
GPtrArray *node_devices(const struct caller *who, unsigned list_flags);
/* By a capability's name, "pci"; NULL: all. An unknown one is an error. */
GPtrArray *node_devices_of(const struct caller *who, const char *cap, GError **error);
struct node_device *node_device_find(const struct caller *who, const char *name, GError **error);
struct node_device *node_device_find_wwn(const struct caller *who, const char *wwnn, const char *wwpn, GError **error);
const char *node_device_cap_name(enum device_cap cap); /* NULL: no such number */
char *node_device_xml(const struct node_device *d);

char *node_device_driver(const struct node_device *d); /* NULL: none */
/* device_xml.c: what a minor of a graphics card is for; NULL: it is none. */
const char *node_device_drm_type(const char *entry);
/* device_xml.c: a file of a device's folder, its text fit for XML; NULL: it has none. */
char *node_device_text(const struct node_device *d, const char *file);

/* ---- device_use.c ---- */
/* False with *error: the host lives by it (mounted disks, swap, the way to its gateway). */
bool node_device_check_unused(const struct node_device *d, GError **error);

/* ---- device_pci.c: a PCI device is taken from its driver, for a machine, and given back. (waits) ---- */
/* driver NULL or "vfio": vfio-pci. */
bool node_device_detach(const struct caller *who, const char *name, const char *driver, GError **error);
bool node_device_reattach(const struct caller *who, const char *name, GError **error);
bool node_device_reset(const struct caller *who, const char *name, GError **error);

/* ---- device_mdev.c: mediated devices. (waits) ---- */
struct node_device *node_device_create_xml(const struct caller *who, const char *xml, GError **error);
struct node_device *node_device_define(const struct caller *who, const char *xml, GError **error);
bool node_device_destroy(const struct caller *who, const char *name, GError **error);
bool node_device_undefine(const struct caller *who, const char *name, GError **error);
bool node_device_start(const struct caller *who, const char *name, GError **error);
bool node_device_set_autostart(const struct caller *who, const char *name, bool on, GError **error);
/* Definitions into a list of what is there: those that are active learn that they are defined, the others are added. */
void node_device_add_defined(GPtrArray *all);

/* ---- device_watch.c: events of the kernel ---- */
enum { NODE_DEVICE_CREATED, NODE_DEVICE_DELETED, NODE_DEVICE_DEFINED, NODE_DEVICE_UNDEFINED }; /* lifecycle */
void node_device_emit(const char *name, int id, int event);
void node_device_rescan(void); /* tells what came and went since the last time */
bool node_device_watch(GError **error);
void node_device_unwatch(void);

/* ---- device_mdev.c ---- */
bool node_devices_load(GError **error);
void node_devices_autostart(void); /* in a task */
void node_devices_stop(void);
