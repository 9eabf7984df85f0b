/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside of reading OVA archives: members of a tar file, and what an OVF description says of disks.
 *
 * Owner     Arrays are the caller's, freed by their *_free().
 * Trust     Archives are hostile: the limits below, sizes checked against the file.
 * Errors    Sentences that begin with the archive's name.
 */
#pragma once

#include "image/node.h"
#include "image/ova/ova.h"

#define OVA_MEMBERS_MAX     1024
#define OVA_NAME_MAX        4096
#define OVA_DESCRIPTION_MAX (4 * MIB)
#define OVA_MANIFEST_MAX    (1 * MIB)
#define OVA_DISKS_MAX       256

struct tar_member {
    char *name;
    uint64_t offset, size;
};

/* Regular files in order; of struct tar_member, which the array frees. NULL with *error. (f) */
GArray *tar_list(struct node *file, const char *archive, GError **error);
const struct tar_member *tar_find(const GArray *members, const char *name);

/* A disk as the description has it. */
struct ovf_disk {
    char *disk_id, *href, *format_uri, *compression, *parent;
    uint64_t capacity_bytes;
    bool chunked;
};

/* Disks that have a file; of struct ovf_disk, which the array frees. NULL with *error. */
GArray *ovf_parse(const char *xml, size_t len, const char *archive, GError **error);
