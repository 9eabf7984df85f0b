/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A disk's chain of images in its description: <disk>, its <backingStore>, that one's, ...
 *
 * Each image has a number ("vda[3]" is what clients call it): of the disk's own <source index=>, 0 if there is none;
 * of a <backingStore index=>. The emulator's nodes are named by it: "disk-vda", "disk-vda-3".
 * Thread: any. Pointers are into the tree.
 */
#pragma once

#include "manager/xml.h"

#define DEF_CHAIN_MAX 200 /* images, as libvirt's */

xmlNode *def_chain_disk(const xmlNode *domain, const char *target); /* NULL: there is none */
xmlNode *def_chain_next(const xmlNode *image);                      /* what it stands on; NULL: nothing */
/* By its path or "vda[3]"; NULL: not in the chain. */
xmlNode *def_chain_find(xmlNode *disk, const char *name);
xmlNode *def_chain_at(xmlNode *disk, unsigned number);
xmlNode *def_chain_above(xmlNode *disk, const xmlNode *image); /* which stands on it; NULL: it is the disk */
unsigned def_chain_number(const xmlNode *image);
unsigned def_chain_new_number(xmlNode *disk); /* that none has, nor <mirror> */
char *def_chain_node(const xmlNode *disk, const xmlNode *image);
const char *def_chain_path(const xmlNode *image);   /* file or device; NULL: neither */
const char *def_chain_format(const xmlNode *image);
/* Numbers for a chain that has none: how deep they are. */
void def_chain_count(xmlNode *disk);
/* From now on `image` stands on `base`, which is below it (NULL: on nothing). */
void def_chain_cut(xmlNode *image, xmlNode *base);
/* From now on the disk is `image`, of its chain or its <mirror>; with `keep` it stands on what the disk stood on. */
void def_chain_become(xmlNode *disk, xmlNode *image, bool keep);
