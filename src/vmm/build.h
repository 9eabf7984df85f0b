/* SPDX-License-Identifier: GPL-2.0-or-later */
/* struct vmm: the program's one machine with its backends, made from the options step by step.
 *
 * Owner     main() has it; vmm_build() ... vmm_done(). vmm_done() takes what is half built, and
 *           leaves no socket, file or terminal setting behind.
 * Order     chardevs, I/O threads, disks, networks, machine, devices, power, monitors (whose
 *           clients may ask for anything at once). Taken apart: the machine first.
 * Thread    The main thread.
 */
#pragma once

#include "machine/machine.h"
#include "qmp/qmp.h"
#include "vmm/options.h"
#include "vmm/run.h"

#define DEFAULT_BOARD "q35"

struct chardev;
struct context;
struct dump;
struct job_set;
struct nbd_server;
struct graph;
struct migrate;
struct image;
struct netdev;

/* A disk's backend as the command line named it. */
struct vm_drive {
    char *id;            /* drive id or node name */
    bool is_drive;       /* -drive rather than -blockdev */
    struct image *image;
    char *serial;        /* handed to the device, as -drive does */
};

/* What an I/O thread can be told, as QEMU's can. The values are kept and told; its loop sleeps in the kernel instead
 * of polling, and has no workers whose number could be bounded. */
enum { IOTHREAD_PROPS = 6 };
struct iothread_prop {
    const char *name;
    uint64_t otherwise, max;
    bool queried; /* query-iothreads tells it */
};
extern const struct iothread_prop iothread_props[IOTHREAD_PROPS];

struct vm_iothread {
    char *id;
    struct loop *loop;
    struct context *images;      /* a reference: nodes may be there without a device */
    uint64_t props[IOTHREAD_PROPS];
    int thread_id;
};

struct vmm {
    struct vm_options options;
    struct machine_config config;
    const struct board_type *board;
    struct global_prop *globals;
    struct smbios_field *smbios;
    char *accel_note;            /* which accelerator, and why */

    struct loop *loop;           /* the main loop, attached to GLib's */
    GMainLoop *glib_loop;
    struct qmp_server *qmp;
    struct migrate *migrate;     /* vmm/migrate.h */
    struct dump *dump;           /* vmm/dump.h: the last one; NULL: none yet */
    struct machine *machine;
    struct run run;
    int exit_status;

    GPtrArray *chardevs;         /* struct chardev, owned */
    struct context *image_context; /* of the main loop; referenced */
    struct graph *graph;         /* of image nodes */
    struct job_set *jobs;
    struct nbd_server *nbd;      /* nbd-server-start; NULL: none */
    GPtrArray *throttle_groups;  /* struct throttle_group, of -object */
    GPtrArray *drives;           /* struct vm_drive */
    GPtrArray *netdevs;          /* struct netdev */
    GPtrArray *iothreads;        /* struct vm_iothread */
    GPtrArray *monitors;         /* struct monitor: vmm/monitor.h */
    char **cpu_ids;              /* by index: what device_add called it; NULL: none yet, or none */
    GHashTable *rngs;            /* ids of rng-* objects that came at run time */
    GHashTable *named_fds;       /* name to descriptor, of getfd; NULL: none yet */
};

void vmm_init(struct vmm *v);
/* Everything up to a machine that could run; the options are parsed before. */
bool vmm_build(struct vmm *v, GError **error);
void vmm_done(struct vmm *v);

/* build_disk.c, build_net.c, build_chardev.c, build_object.c: one part of vmm_build() each. */
bool build_chardevs(struct vmm *v, GError **error);
bool build_serial_ports(struct vmm *v, GError **error);
bool build_objects(struct vmm *v, GError **error);
bool build_drives(struct vmm *v, GError **error);
bool build_drive_devices(struct vmm *v, GError **error);
bool build_netdevs(struct vmm *v, GError **error);
bool build_nic_devices(struct vmm *v, GError **error);
bool build_config(struct vmm *v, GError **error);
/* Makes one device from -device's list. NULL: *error is set and nothing has changed. */
struct device *build_device(struct vmm *v, struct kv_list *l, GError **error);
/* What the device asked for by drive= takes from its -drive. */
bool build_drive_defaults(struct vmm *v, struct device *d, const struct kv_list *given,
                          GError **error);
/* The drive that a device names (g_malloc'd), or NULL; and giving it back when its device has gone. */
char *build_drive_of(const struct device *d);
void build_forget_drive(struct vmm *v, const char *id);
/* -netdev's and -chardev's lists. NULL with *error. */
struct netdev *build_netdev(struct vmm *v, struct kv_list *l, GError **error);
struct chardev *build_chardev(struct vmm *v, struct kv_list *l, GError **error);
/* One that is not among v->chardevs: the caller's. */
struct chardev *build_chardev_alone(struct vmm *v, struct kv_list *l, GError **error);
void vm_drive_free(gpointer drive);
struct chardev *vmm_find_chardev(struct vmm *v, const char *id);
struct vm_drive *vmm_find_drive(struct vmm *v, const char *id);

/* -object kinds. */
struct object_type {
    const char *name, *summary;
    const char *const *props; /* NULL-ended; NULL: create() checks them */
    bool (*create)(struct vmm *v, struct kv_list *l, GError **error);
};
extern const struct object_type object_types[]; /* ends with a row without a name */
/* One -object or object-add; keeps what it needs of the list. */
bool build_object(struct vmm *v, struct kv_list *l, GError **error);

/* Sentences for unknown words, with the nearest known one. */
bool board_unknown(const char *name, GError **error);
bool netdev_unknown(const char *name, GError **error);
