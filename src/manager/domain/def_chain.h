/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A disk's chain of images in its description: <disk>, its <backingStore>, that one's, ...
 *
 * Each image has a number ("vda[3]" is what clients call it): of the disk's own <source index=>, 0 if there is none;
 * of a <backingStore index=>. The emulator's nodes are named by it: "disk-vda", "disk-vda-3".
 * Thread: any. Pointers are into the tree.
 */
#pragma once

#include "base/xml.h"

#define DEF_CHAIN_MAX 200 /* images, as libvirt's */

struct xml_node *def_chain_disk(const struct xml_node *domain, const char *target); /* NULL: there is none */
struct xml_node *def_chain_next(const struct xml_node *image);                      /* what it stands on; NULL: nothing */
/* By its path or "vda[3]"; NULL: not in the chain. */
struct xml_node *def_chain_find(struct xml_node *disk, const char *name);
struct xml_node *def_chain_at(struct xml_node *disk, unsigned number);
struct xml_node *def_chain_above(struct xml_node *disk, const struct xml_node *image); /* which stands on it; NULL: it is the disk */
unsigned def_chain_number(const struct xml_node *image);
unsigned def_chain_new_number(struct xml_node *disk); /* that none has, nor <mirror> */
char *def_chain_node(const struct xml_node *disk, const struct xml_node *image);
const char *def_chain_path(const struct xml_node *image);   /* file or device; NULL: neither */
const char *def_chain_format(const struct xml_node *image);
/* Numbers for a chain that has none: how deep they are. */
void def_chain_count(struct xml_node *disk);
/* From now on `image` stands on `base`, which is below it (NULL: on nothing). */
void def_chain_cut(struct xml_node *image, struct xml_node *base);
/* From now on the disk is `image`, of its chain or its <mirror>; with `keep` it stands on what the disk stood on. */
void def_chain_become(struct xml_node *disk, struct xml_node *image, bool keep);
