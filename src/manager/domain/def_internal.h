/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of a description's completion share. See def.h.
 *
 * Steps     schema_apply() has checked the tree; then def_complete(), def_devices(),
 * def_addresses(), def_aliases() (of a running machine) each fill in what is missing, and
 * def_check() looks at what is wrong only together. Afterwards the tree is put in order again.
 */
#pragma once

#include "manager/domain/def.h"
#include "manager/domain/schema.h"

#include <inttypes.h>
#include <string.h>

/* Children that are elements. */
static inline xmlNode *element_from(xmlNode *n)
{
    while (n && n->type != XML_ELEMENT_NODE)
        n = n->next;
    return n;
}
#define FOREACH_ELEMENT(c, parent)                                                                 \
    for (xmlNode *c = element_from((parent)->children), *next_;                                    \
         c && (next_ = element_from(c->next), true); c = next_)
#define FOREACH_NAMED(c, parent, name)                                                             \
    for (xmlNode *c = xml_find((parent), (name)); c; c = xml_next(c))

static inline bool is_named(const xmlNode *n, const char *name)
{
    return !strcmp((const char *)n->name, name);
}
/* A new last child. */
static inline xmlNode *add_element(xmlNode *parent, const char *name)
{
    xmlNode *n = xmlNewDocNode(parent->doc, NULL, (const xmlChar *)name, NULL);
    return xmlAddChild(parent, n);
}
static inline void set_missing(xmlNode *n, const char *path, const char *value)
{
    if (!xml_get(n, path))
        xml_set(n, path, value);
}
static inline xmlNode *devices_of(const xmlNode *domain)
{
    return xml_find(domain, "devices");
}

/* The kind of machine, as far as addresses and defaults go. */
enum def_board { BOARD_PCIE, BOARD_PCI, BOARD_FLAT_PCIE, BOARD_CCW, BOARD_NONE };
enum def_board def_board(const xmlNode *domain);
bool def_is_x86(const xmlNode *domain);

/* A disk's place by its name: "vdc" is 2; -1: not such a name. And back. */
int def_disk_index(const char *dev);
char *def_disk_name(const char *bus, unsigned index);
/* The source of a disk as one word: path, device, "pool/volume", "protocol:name"; NULL: empty. */
char *def_disk_source(const xmlNode *disk);

xmlNode *def_controller(const xmlNode *devices, const char *type, uint64_t index);
xmlNode *def_add_controller(xmlNode *devices, const char *type, uint64_t index);
bool def_is_usb(const xmlNode *n);

void def_strip(xmlNode *domain, unsigned def_flags);
bool def_complete(xmlNode *domain, unsigned def_flags, GError **error);
bool def_devices(xmlNode *domain, unsigned def_flags, GError **error);
bool def_controllers(xmlNode *domain, GError **error);
bool def_addresses(xmlNode *domain, GError **error);
void def_aliases(xmlNode *domain);
bool def_check(xmlNode *domain, GError **error);
bool def_check_name(const char *name, GError **error);
void def_summary(struct domain_summary *s, const xmlNode *domain);
void def_summary_done(struct domain_summary *s);
