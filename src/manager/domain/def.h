/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A domain's description: libvirt's domain XML, checked, completed and put in order.
 *
 * Spec      libvirt's formatdomain and its RNG schemas at 9.0.0.
 * Owner     A definition never changes once it is made: domain_def_*() that change one make a new one.
 *           Reference counted.
 * Memory    The text and the summary are kept; the tree is made when asked for, and dropped by
 *           domain_def_shrink().
 * Trust     Texts are hostile. Every element that is known is checked by its row in the schema's tables
 *           (schema_*.c): type, range, words, how often. Unknown ones are dropped as libvirt drops them,
 *           but for <metadata>, and refused with DEF_VALIDATE. What the emulator cannot do is
 *           MANAGER_ERR_CONFIG, with its path and value: "disk 'sda': bus 'scsi' is not there in
 *           ruche-vmm; use 'virtio'".
 * Complete  After parsing, nothing is left to guess: UUID, machine type, MACs, controllers, PCI addresses,
 *           target names, memory in KiB are written out, once, and stay.
 */
#pragma once

#include "base/xml.h"

struct def_disk {
    char *target, *source;      /* "vda"; the file, device or URI, NULL: empty */
    char *bus, *device, *alias; /* "virtio", "disk"; alias NULL while inactive unless ua-... */
    char *node;                 /* the emulator's: "disk-vda", or with its image's number (def_chain.h) */
    bool read_only;
};
struct def_interface {
    char mac[18];
    char *type, *source, *target, *model, *alias; /* "network", "default", "vnet0", "virtio" */
};
struct def_chardev {
    char *kind, *type, *target, *path, *alias; /* "console", "pty", channel's name or port, /dev/pts/3 */
};

/* What queries need without the tree. */
struct domain_summary {
    uint8_t uuid[16];
    char *name, *title, *os_type, *type, *emulator, *arch; /* "hvm", "kvm", path, "x86_64" */
    uint64_t memory_kib, current_memory_kib;
    unsigned vcpus_max, vcpus;
    struct def_disk *disks;
    struct def_interface *interfaces;
    struct def_chardev *chardevs;
    unsigned disk_count, interface_count, chardev_count, iothread_count;
    bool on_reboot_destroy, is_soft; /* type 'qemu' without KVM */
};

struct domain_def {
    struct domain_summary s;
    char *text;           /* canonical, with secrets, ends in a line feed */
    struct xml_node *doc; /* may be NULL: domain_def_tree() */
    unsigned refs;
};

enum def_flags {
    DEF_VALIDATE = 1u << 0,  /* refuse what the schema does not know */
    DEF_STORED = 1u << 1,    /* our own text from disk: what the emulator lacks is not refused */
    DEF_LIVE = 1u << 2,      /* aliases, ids, backing chains and runtime paths are kept */
};
/* Of virDomainXMLFlags, the same numbers. */
enum def_format_flags { DEF_FORMAT_SECURE = 1, DEF_FORMAT_INACTIVE = 2, DEF_FORMAT_UPDATE_CPU = 4, DEF_FORMAT_MIGRATABLE = 8 };

struct domain_def *domain_def_parse(const char *text, size_t len, unsigned def_flags, GError **error);
/* Of a text that is known to be a definition's own: not checked, not completed. */
struct domain_def *domain_def_own(const char *text, size_t len, GError **error);
struct domain_def *domain_def_ref(struct domain_def *d);
void domain_def_unref(struct domain_def *d); /* NULL is fine */
static inline void domain_def_auto_unref(struct domain_def **d)
{
    domain_def_unref(*d);
}
/* auto_domain_def *def = ...; */
#define auto_domain_def __attribute__((cleanup(domain_def_auto_unref))) struct domain_def
struct xml_node *domain_def_tree(struct domain_def *d); /* the <domain>; borrowed until shrink */
void domain_def_shrink(struct domain_def *d);
/* What dumpxml answers: without SECURE no password leaves. `id`: the running number, -1. */
char *domain_def_format(struct domain_def *d, unsigned format_flags, int id);
/* From a changed copy of the tree (xml_copy): checked and completed again. Takes it. */
struct domain_def *domain_def_from_doc(struct xml_node *doc, unsigned def_flags, GError **error);

/* The numbers of its I/O threads, in the order of the description: an array of unsigned, the caller's. */
GArray *domain_def_iothreads(const struct xml_node *domain);
bool domain_def_has_iothread(const struct xml_node *domain, unsigned id);
/* The first device whose driver runs on it; NULL: none. */
struct xml_node *domain_def_iothread_user(const struct xml_node *domain, unsigned id);

/* Devices of a definition: a device's XML is parsed, checked and completed within its domain.
 * Matching is libvirt's: disk by target, interface by MAC (and address), others by all that is given. */
enum def_device_action { DEF_ATTACH, DEF_DETACH, DEF_UPDATE };
/* A new definition with the device put in, taken out or replaced. *ret_device (may be NULL): the device's
 * element as it stands in the new definition (attach, update), or stood in the old (detach); borrowed from that
 * one's tree. */
struct domain_def *domain_def_device(struct domain_def *d, enum def_device_action action, const char *device_xml,
                                     unsigned def_flags, struct xml_node **ret_device, GError **error);

/* A direction of an interface's <bandwidth> without average and floor says nothing, and goes. */
void def_drop_empty_rates(struct xml_node *interface);

/* Would the guest that ran as `old` find the same machine in `new`? False names what differs. */
bool domain_def_same_guest(struct domain_def *old, struct domain_def *new, GError **error);

/* virDomainMetadataType: 0 description, 1 title, 2 element. `text` NULL takes it away. */
struct domain_def *domain_def_set_metadata(struct domain_def *d, int type, const char *text, const char *prefix,
                                           const char *uri, GError **error);
char *domain_def_get_metadata(struct domain_def *d, int type, const char *uri, GError **error);
/* The same description under another name and, unless NULL, UUID. */
struct domain_def *domain_def_rename(struct domain_def *d, const char *name, const uint8_t *uuid, GError **error);
