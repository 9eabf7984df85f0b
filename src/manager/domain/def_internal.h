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
#include "manager/error.h"

#include <inttypes.h>
#include <string.h>

/* Children that are elements. */
static inline struct xml_node *element_from(struct xml_node *n)
{
    while (n && !xml_is_element(n))
        n = n->next;
    return n;
}
#define FOREACH_ELEMENT(c, parent)                                                                 \
    for (struct xml_node *c = element_from((parent)->children), *next_;                                    \
         c && (next_ = element_from(c->next), true); c = next_)
#define FOREACH_NAMED(c, parent, name)                                                             \
    for (struct xml_node *c = xml_find((parent), (name)); c; c = xml_next(c))

static inline bool is_named(const struct xml_node *n, const char *name)
{
    return !strcmp(n->name, name);
}
/* A new last child. */
static inline struct xml_node *add_element(struct xml_node *parent, const char *name)
{
    struct xml_node *n = xml_new(name);
    return xml_append(parent, n);
}
static inline void set_missing(struct xml_node *n, const char *path, const char *value)
{
    if (!xml_get(n, path))
        xml_set(n, path, value);
}
static inline struct xml_node *devices_of(const struct xml_node *domain)
{
    return xml_find(domain, "devices");
}

/* The kind of machine, as far as addresses and defaults go. */
enum def_board { BOARD_PCIE, BOARD_PCI, BOARD_FLAT_PCIE, BOARD_CCW, BOARD_NONE };
enum def_board def_board(const struct xml_node *domain);
bool def_is_x86(const struct xml_node *domain);

/* A disk's place by its name: "vdc" is 2; -1: not such a name. And back. */
int def_disk_index(const char *dev);
char *def_disk_name(const char *bus, unsigned index);
/* The source of a disk as one word: path, device, "pool/volume", "protocol:name"; NULL: empty. */
char *def_disk_source(const struct xml_node *disk);

struct xml_node *def_controller(const struct xml_node *devices, const char *type, uint64_t index);
struct xml_node *def_add_controller(struct xml_node *devices, const char *type, uint64_t index);
bool def_is_usb(const struct xml_node *n);

void def_strip(struct xml_node *domain, unsigned def_flags);
bool def_complete(struct xml_node *domain, unsigned def_flags, GError **error);
bool def_devices(struct xml_node *domain, unsigned def_flags, GError **error);
bool def_controllers(struct xml_node *domain, GError **error);
bool def_addresses(struct xml_node *domain, GError **error);
void def_aliases(struct xml_node *domain);
bool def_check(struct xml_node *domain, GError **error);
bool def_check_name(const char *name, GError **error);
void def_summary(struct domain_summary *s, const struct xml_node *domain);
void def_summary_done(struct domain_summary *s);
