/* SPDX-License-Identifier: GPL-2.0-or-later */
/* OVA archives: a tar file with a machine's description (OVF) and its disks.
 *
 * Spec      DSP0243 (OVF 1.1 and 2.1); POSIX.1 ustar and pax, GNU tar's sizes and long names.
 * Owner     ova_open() ... ova_close(); the archive's node is referenced.
 * Thread    Home thread of the graph. (f) only in a fiber of its context; the rest anywhere there.
 * Units     Bytes.
 * Trust     Archives are hostile: bounded in files, names and size of the description; XML without
 * network and without entities; a disk never reaches outside of its place in the archive. Errors A
 * sentence with the archive, the member and the value.
 */
#pragma once

#include "image/node.h"

struct ova;

struct ova_disk {
    const char *name;    /* the member, as the description says: "vm-disk1.vmdk" */
    const char *disk_id; /* "vmdisk1" */
    const char
        *format; /* our driver's name: "vmdk", "vdi", "vhd", ...; NULL: not one that we know */
    const char *format_uri;      /* what the description says, "" when nothing */
    uint64_t capacity_bytes;     /* of the disk, as the description says; 0: it does not */
    uint64_t offset, size_bytes; /* the place in the archive */
    const char *digest_name;     /* "SHA256"; NULL: the manifest does not list it */
    const char *digest;          /* lower-case hexadecimal */
};

struct ova_progress {
    bool (*fn)(uint64_t done, uint64_t total, void *opaque); /* false: stop */
    void *opaque;
};

/* Reads the table of contents, the description and the manifest. NULL with *error. In a fiber or
 * not. */
struct ova *ova_open(struct graph *g, const char *filename, GError **error);
void ova_close(struct ova *o); /* NULL is fine; nodes of its disks may live on */
/* Is it a tar archive whose first member is a description? From its first bytes. */
bool ova_probe(const uint8_t *head, size_t len);
const char *ova_description_name(const struct ova *o); /* "vm.ovf" */
const struct ova_disk *ova_disks(const struct ova *o, unsigned *ret_count);
/* Index of the disk of that member name, disk id, or number from 0; -1 with *error. */
int ova_find_disk(const struct ova *o, const char *which, GError **error);
/* Compares the disk, or with index -1 the description, with the manifest. A file that the manifest
 * does not list passes. False: the sentence names both digests. In a fiber or not. */
bool ova_verify(struct ova *o, int index, const struct ova_progress *p, GError **error);
/* The disk as an image, read-only; the caller gets a reference. `format` NULL: what the description
 * says. */
struct node *ova_open_disk(struct ova *o, unsigned index, const char *format, GError **error);
