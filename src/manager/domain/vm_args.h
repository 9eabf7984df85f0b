/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From a domain's completed tree to the command line of ruche-vmm or QEMU. What both have is made
 * by the same code; vm_differs() rows and `ours` say where they part.
 *
 * Spec      QEMU's manual; docs/vmm.md for what ruche-vmm leaves out. What an emulator lacks was
 *           refused by vm_check_def() before.
 * Owner     The caller: vm_args_init() ... vm_args_done().
 * Files     What the machine uses is opened by us and passed; numbers of descriptors are
 *           VM_FIRST_FD and on, in the order in which they are asked for, so that the command line
 *           is always the same.
 * Changes   Names that are made on the way (taps, sockets, ports) are written into the tree.
 */
#pragma once

#include "manager/secret/secret.h"
#include "base/xml.h"

#include <glib.h>

#define VM_MAX_QUEUES 32 /* of an interface */

struct vm_args {
    struct xml_node *domain, *devices; /* borrowed, changed as above */
    bool ours;                 /* ruche-vmm, else QEMU */
    bool incoming;             /* its state comes from elsewhere */
    bool by_path;              /* to be read, not run: files by their names */
    bool live;                 /* for a machine that runs: its monitor takes the words */
    const char *name;          /* of the domain */
    const char *dir;           /* for sockets */
    const char *tls_dir;       /* certificates for disks of servers; NULL: VM_TLS_DIR */
    const char *tls_secret;    /* of the key among them; NULL: it is not locked */
    const char *console_log;   /* where the first console is logged */
    GPtrArray *argv;           /* strings; NULL at its end after vm_args_build() */
    GArray *fds;               /* int, owned */
    unsigned fdsets, boot_next;
    const struct vm_args_ops *ops;
    void *opaque;
};

/* What touches the host; tests have others. Descriptors are the builder's. -1 with *error. */
struct vm_args_ops {
    int (*open)(void *opaque, const char *path, int flags, GError **error);
    int (*listen)(void *opaque, const char *path, GError **error);
    /* An interface's tap with `queues` descriptors; *ret_name is its name, g_malloc()ed. */
    bool (*tap)(void *opaque, struct xml_node *interface, unsigned queues, int *ret, char **ret_name,
                GError **error);
    /* A free TCP port from `first` on. 0 with *error. */
    unsigned (*free_port)(void *opaque, unsigned first, GError **error);
    int64_t (*now)(void *opaque); /* seconds, for clocks that begin at a date */
    /* What <secret> means; a reference. NULL with *error. */
    GBytes *(*secret)(void *opaque, const struct xml_node *secret, enum secret_usage usage, GError **error);
};
/* This host's (vm_start.c); `opaque` is the struct vm. */
extern const struct vm_args_ops vm_host_ops;

void vm_args_init(struct vm_args *a, struct xml_node *domain, bool ours);
void vm_args_done(struct vm_args *a);
bool vm_args_build(struct vm_args *a, const char *program, GError **error);

/* For vm_args_*.c. An option's value: "first,key=value,...", commas doubled. */
GString *opt_new(const char *first);
void opt_add(GString *s, const char *key, const char *value); /* NULL: left out */
void opt_addf(GString *s, const char *key, const char *format, ...) G_GNUC_PRINTF(3, 4);
void opt_on_off(GString *s, const char *key, const struct xml_node *n,
                const char *path); /* an attribute of on or off */
void args_add(struct vm_args *a, const char *option,
              const char *value); /* NULL: the option alone */
void args_take(struct vm_args *a, const char *option, GString *value);
void args_take_device(struct vm_args *a, GString *value);
/* bus= and addr= of a PCI device. */
void args_address(struct vm_args *a, GString *s, const struct xml_node *device);
void args_boot_index(struct vm_args *a, GString *s, const struct xml_node *device);
unsigned args_boot_place(const struct vm_args *a, const struct xml_node *device); /* 0: not booted from */
const char *args_root_bus(const struct vm_args *a);
const char *args_alias(const struct xml_node *device); /* never NULL */
/* The number that a descriptor will have; takes it over. */
unsigned args_pass(struct vm_args *a, int fd);
/* "/dev/fdset/N" of a file that we open. NULL with *error. */
char *args_file(struct vm_args *a, const char *path, bool write, bool create, bool direct,
                GError **error);
bool args_word_error(const struct xml_node *device, const char *what, const char *value, GError **error);

/* Steps, one kind of element each. */
bool args_cpu(struct vm_args *a, GError **error);
bool args_numa(struct vm_args *a, GError **error);
bool args_disks(struct vm_args *a, GError **error);
bool args_interfaces(struct vm_args *a, GError **error);
bool args_chardevs(struct vm_args *a, GError **error);
bool args_controllers(struct vm_args *a, GError **error);
bool args_displays(struct vm_args *a, GError **error);
bool args_small_devices(struct vm_args *a, GError **error);
bool args_smbios(struct vm_args *a, GError **error);
bool args_clock(struct vm_args *a, GError **error);

/* vm_secret.c: the value that <secret> means, as an object of that name: its id. NULL with *error, which names disk
 * and secret. */
char *args_secret(struct vm_args *a, const struct xml_node *disk, const char *name, const struct xml_node *secret,
                  enum secret_usage usage, GError **error);
/* Certificates to speak TLS with a server by: the object's id. NULL with *error. */
#define VM_TLS_DIR "/etc/pki/qemu" /* libvirt's default_tls_x509_cert_dir */
char *args_tls(struct vm_args *a, const struct xml_node *disk, const char *node, GError **error);
/* A machine has said that a key does not fit: which secrets its disks have is added to that. */
void vm_explain_secrets(const struct xml_node *domain, GError **error);

/* The node that a disk's device uses, by its target: "disk-vda". */
char *vm_disk_node(const struct xml_node *disk);
