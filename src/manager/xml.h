/* SPDX-License-Identifier: GPL-2.0-or-later */
/* XML from outside, and the way to values in it: libxml2's tree, parsed without network, entities and
 * document types.
 *
 * Trust     Texts are hostile: at most XML_MAX_BYTES, XML_MAX_DEPTH deep, 256 attributes an element; a
 *           document with a DTD is refused. Parsing takes time and memory in proportion to the text.
 * Paths     "name", "os/type", "source@file", "os/type@arch": elements by '/', an attribute by '@';
 *           of several the first. Returned strings belong to the tree, until it changes.
 */
#pragma once

#include "manager/error.h"

#include <libxml/tree.h>
#include <stdint.h>

#define XML_MAX_BYTES (4u << 20) /* REMOTE_STRING_MAX of libvirt's protocol */
#define XML_MAX_DEPTH 64

/* The document with root element `root` (NULL: any). Errors name line and column. */
xmlDoc *xml_parse(const char *text, size_t len, const char *root, GError **error);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlDoc, xmlFreeDoc)
/* Text of a subtree as libvirt prints it: two blanks a level, attributes in single quotes, no
 * declaration. `level` is the depth it starts at. */
char *xml_format(const xmlNode *n, unsigned level);

xmlNode *xml_find(const xmlNode *n, const char *path);                  /* NULL: not there */
xmlNode *xml_next(const xmlNode *n);                                    /* the next sibling of the same name */
const char *xml_get(const xmlNode *n, const char *path);                /* NULL: not there; "" if empty */
const char *xml_get_or(const xmlNode *n, const char *path, const char *otherwise);
bool xml_is(const xmlNode *n, const char *path, const char *value);     /* there, and equal */
uint64_t xml_get_u64(const xmlNode *n, const char *path, uint64_t otherwise); /* decimal or 0x; what was checked */
/* Makes what is missing of the path. */
void xml_set(xmlNode *n, const char *path, const char *value);
void xml_set_f(xmlNode *n, const char *path, const char *format, ...) G_GNUC_PRINTF(3, 4);
void xml_remove(xmlNode *n, const char *path);
/* for (xmlNode *d = xml_find(devices, "disk"); d; d = xml_next(d)) */
