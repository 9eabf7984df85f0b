/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Chains of images in descriptions; see def_chain.h. */
#include "manager/domain/def_chain.h"

#include <glib.h>
#include <string.h>

static bool is_disk(const xmlNode *image)
{
    return !xmlStrcmp(image->name, BAD_CAST "disk");
}

xmlNode *def_chain_disk(const xmlNode *domain, const char *target)
{
    for (xmlNode *d = xml_find(domain, "devices/disk"); d; d = xml_next(d))
        if (xml_is(d, "target@dev", target))
            return d;
    return NULL;
}

xmlNode *def_chain_next(const xmlNode *image)
{
    xmlNode *below = xml_find(image, "backingStore");
    return below && xml_find(below, "source") ? below : NULL;
}

unsigned def_chain_number(const xmlNode *image)
{
    bool inside = is_disk(image) || !xmlStrcmp(image->name, BAD_CAST "mirror");
    return (unsigned)xml_get_u64(image, inside ? "source@index" : "@index", 0);
}

const char *def_chain_path(const xmlNode *image)
{
    const char *file = xml_get(image, "source@file");
    return file ? file : xml_get(image, "source@dev");
}

const char *def_chain_format(const xmlNode *image)
{
    return xml_get_or(image, is_disk(image) ? "driver@type" : "format@type", "raw");
}

xmlNode *def_chain_at(xmlNode *disk, unsigned number)
{
    xmlNode *n = disk;
    for (unsigned depth = 0; n && depth < DEF_CHAIN_MAX; depth++, n = def_chain_next(n))
        if (def_chain_number(n) == number)
            return n;
    return NULL;
}

xmlNode *def_chain_find(xmlNode *disk, const char *name)
{
    const char *target = xml_get_or(disk, "target@dev", "");
    size_t len = strlen(target);
    if (!strncmp(name, target, len) && name[len] == '[')
        return def_chain_at(disk, (unsigned)g_ascii_strtoull(name + len + 1, NULL, 10));
    if (!strcmp(name, target))
        return disk;
    xmlNode *n = disk;
    for (unsigned depth = 0; n && depth < DEF_CHAIN_MAX; depth++, n = def_chain_next(n))
        if (!g_strcmp0(def_chain_path(n), name))
            return n;
    return NULL;
}

xmlNode *def_chain_above(xmlNode *disk, const xmlNode *image)
{
    xmlNode *n = disk;
    for (unsigned depth = 0; n && depth < DEF_CHAIN_MAX; depth++, n = def_chain_next(n))
        if (def_chain_next(n) == image)
            return n;
    return NULL;
}

unsigned def_chain_new_number(xmlNode *disk)
{
    xmlNode *n = disk, *mirror = xml_find(disk, "mirror");
    unsigned most = mirror ? def_chain_number(mirror) : 0;
    for (unsigned depth = 0; n && depth < DEF_CHAIN_MAX; depth++, n = def_chain_next(n))
        most = MAX(most, MAX(def_chain_number(n), depth));
    return most + 1;
}

char *def_chain_node(const xmlNode *disk, const xmlNode *image)
{
    unsigned number = def_chain_number(image);
    const char *target = xml_get_or(disk, "target@dev", "");
    return number ? g_strdup_printf("disk-%s-%u", target, number)
                  : g_strconcat("disk-", target, NULL);
}

void def_chain_count(xmlNode *disk)
{
    xmlNode *n = def_chain_next(disk);
    for (unsigned depth = 1; n && depth < DEF_CHAIN_MAX; depth++, n = def_chain_next(n))
        xml_set_f(n, "@index", "%u", depth);
}

/* ---- changes ---- */

static void put(xmlNode *image, xmlNode *below)
{
    xmlNode *old = xml_find(image, "backingStore");
    if (old && old != below) {
        xmlUnlinkNode(old);
        xmlFreeNode(old);
    }
    xmlAddChild(image, below);
}

void def_chain_cut(xmlNode *image, xmlNode *base)
{
    xmlNode *end = base ? base : xmlNewDocNode(image->doc, NULL, BAD_CAST "backingStore", NULL);
    xmlUnlinkNode(end);
    put(image, end);
}

static void replace(xmlNode *disk, const char *name, const xmlNode *with)
{
    xmlNode *old = xml_find(disk, name),
            *copy = with ? xmlDocCopyNode((xmlNode *)with, disk->doc, 1) : NULL;
    if (old && copy)
        xmlReplaceNode(old, copy);
    else if (copy)
        xmlAddChild(disk, copy);
    else if (old)
        xmlUnlinkNode(old);
    if (old)
        xmlFreeNode(old);
}

void def_chain_become(xmlNode *disk, xmlNode *image, bool keep)
{
    unsigned number = def_chain_number(image);
    xmlNode *copy =
        xmlDocCopyNode(image, disk->doc, 1); /* the disk's own children are replaced below */
    xml_set(disk, "@type", xml_get_or(copy, "@type", "file"));
    xml_set(disk, "driver@type", def_chain_format(copy));
    replace(disk, "source", xml_find(copy, "source"));
    xml_remove(disk, "source@index");
    if (number)
        xml_set_f(disk, "source@index", "%u", number);
    xmlNode *below = xml_find(copy, "backingStore");
    if (!keep && below)
        replace(disk, "backingStore", below);
    else if (!keep)
        def_chain_cut(disk, NULL);
    xmlFreeNode(copy);
}
