/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Chains of images in descriptions; see def_chain.h. */
#include "manager/domain/def_chain.h"

#include <glib.h>
#include <string.h>

static bool is_disk(const struct xml_node *image)
{
    return !strcmp(image->name, "disk");
}

struct xml_node *def_chain_disk(const struct xml_node *domain, const char *target)
{
    for (struct xml_node *d = xml_find(domain, "devices/disk"); d; d = xml_next(d))
        if (xml_is(d, "target@dev", target))
            return d;
    return NULL;
}

struct xml_node *def_chain_next(const struct xml_node *image)
{
    struct xml_node *below = xml_find(image, "backingStore");
    return below && xml_find(below, "source") ? below : NULL;
}

unsigned def_chain_number(const struct xml_node *image)
{
    bool inside = is_disk(image) || !strcmp(image->name, "mirror");
    return (unsigned)xml_get_u64(image, inside ? "source@index" : "@index", 0);
}

const char *def_chain_path(const struct xml_node *image)
{
    const char *file = xml_get(image, "source@file");
    return file ? file : xml_get(image, "source@dev");
}

const char *def_chain_format(const struct xml_node *image)
{
    return xml_get_or(image, is_disk(image) ? "driver@type" : "format@type", "raw");
}

struct xml_node *def_chain_at(struct xml_node *disk, unsigned number)
{
    struct xml_node *n = disk;
    for (unsigned depth = 0; n && depth < DEF_CHAIN_MAX; depth++, n = def_chain_next(n))
        if (def_chain_number(n) == number)
            return n;
    return NULL;
}

struct xml_node *def_chain_find(struct xml_node *disk, const char *name)
{
    const char *target = xml_get_or(disk, "target@dev", "");
    size_t len = strlen(target);
    if (!strncmp(name, target, len) && name[len] == '[')
        return def_chain_at(disk, (unsigned)g_ascii_strtoull(name + len + 1, NULL, 10));
    if (!strcmp(name, target))
        return disk;
    struct xml_node *n = disk;
    for (unsigned depth = 0; n && depth < DEF_CHAIN_MAX; depth++, n = def_chain_next(n))
        if (!g_strcmp0(def_chain_path(n), name))
            return n;
    return NULL;
}

struct xml_node *def_chain_above(struct xml_node *disk, const struct xml_node *image)
{
    struct xml_node *n = disk;
    for (unsigned depth = 0; n && depth < DEF_CHAIN_MAX; depth++, n = def_chain_next(n))
        if (def_chain_next(n) == image)
            return n;
    return NULL;
}

unsigned def_chain_new_number(struct xml_node *disk)
{
    struct xml_node *n = disk, *mirror = xml_find(disk, "mirror");
    unsigned most = mirror ? def_chain_number(mirror) : 0;
    for (unsigned depth = 0; n && depth < DEF_CHAIN_MAX; depth++, n = def_chain_next(n))
        most = MAX(most, MAX(def_chain_number(n), depth));
    return most + 1;
}

char *def_chain_node(const struct xml_node *disk, const struct xml_node *image)
{
    unsigned number = def_chain_number(image);
    const char *target = xml_get_or(disk, "target@dev", "");
    return number ? g_strdup_printf("disk-%s-%u", target, number)
                  : g_strconcat("disk-", target, NULL);
}

void def_chain_count(struct xml_node *disk)
{
    struct xml_node *n = def_chain_next(disk);
    for (unsigned depth = 1; n && depth < DEF_CHAIN_MAX; depth++, n = def_chain_next(n))
        xml_set_f(n, "@index", "%u", depth);
}

/* ---- changes ---- */

static void put(struct xml_node *image, struct xml_node *below)
{
    struct xml_node *old = xml_find(image, "backingStore");
    if (old != below)
        xml_free(old);
    xml_append(image, below);
}

void def_chain_cut(struct xml_node *image, struct xml_node *base)
{
    struct xml_node *end = base ? base : xml_new("backingStore");
    xml_unlink(end);
    put(image, end);
}

static void replace(struct xml_node *disk, const char *name, const struct xml_node *with)
{
    struct xml_node *old = xml_find(disk, name), *copy = with ? xml_copy(with) : NULL;
    if (old && copy)
        xml_replace(old, copy);
    else if (copy)
        xml_append(disk, copy);
    else
        xml_free(old);
}

void def_chain_become(struct xml_node *disk, struct xml_node *image, bool keep)
{
    unsigned number = def_chain_number(image);
    struct xml_node *copy = xml_copy(image); /* the disk's own children are replaced below */
    xml_set(disk, "@type", xml_get_or(copy, "@type", "file"));
    xml_set(disk, "driver@type", def_chain_format(copy));
    replace(disk, "source", xml_find(copy, "source"));
    xml_remove(disk, "source@index");
    if (number)
        xml_set_f(disk, "source@index", "%u", number);
    struct xml_node *below = xml_find(copy, "backingStore");
    if (!keep && below)
        replace(disk, "backingStore", below);
    else if (!keep)
        def_chain_cut(disk, NULL);
    xml_free(copy);
}
