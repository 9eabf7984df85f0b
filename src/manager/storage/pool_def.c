/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A pool's description: from XML and to XML.
 *
 * Spec      libvirt's formatstorage, storagepool.rng at 9.0.0.
 * Trust     XML is hostile; manager/xml.h bounds it.
 */
#include "manager/markup.h"
#include "manager/storage/storage_priv.h"
#include "manager/store.h"
#include "manager/uuid.h"

#include "base/units.h"

#include <inttypes.h>
#include <string.h>

static const char *const other_types[] = {
    "fs",    "netfs", "logical",  "disk",    "iscsi", "iscsi-direct", "scsi",
    "mpath", "rbd",   "sheepdog", "gluster", "zfs",   "vstorage",     NULL,
};

bool children_check(const xmlNode *n, const char *const *known, GError **error)
{
    for (const xmlNode *c = n->children; c; c = c->next)
        if (c->type == XML_ELEMENT_NODE && !g_strv_contains(known, (const char *)c->name))
            return ruche_error(error, MANAGER_ERR_XML, "element '%s' in '%s' is not known",
                               (const char *)c->name, (const char *)n->name);
    return true;
}

static bool validate_pool(const xmlNode *root, GError **error)
{
    static const char *const in_pool[] = {"name",       "uuid",      "capacity",
                                          "allocation", "available", "features",
                                          "source",     "target",    NULL};
    static const char *const in_target[] = {"path", "permissions", NULL};
    static const char *const in_perms[] = {"mode", "owner", "group", "label", NULL};
    const xmlNode *target = xml_find(root, "target"), *perms = xml_find(root, "target/permissions");
    return children_check(root, in_pool, error) &&
           (!target || children_check(target, in_target, error)) &&
           (!perms || children_check(perms, in_perms, error));
}

/* A user or group: a number, or -1. */
static bool parse_id(const xmlNode *n, const char *path, int64_t *ret, GError **error)
{
    const char *text = xml_get(n, path);
    uint64_t v;
    if (!text || !strcmp(text, "-1"))
        return true;
    if (!units_parse_u64(text, &v) || v >= UINT32_MAX)
        return ruche_error(error, MANAGER_ERR_XML,
                           "target/permissions/%s: '%s' is not a number of a user or group", path,
                           text);
    *ret = (int64_t)v;
    return true;
}

bool perms_parse(const xmlNode *target, const char *what, struct file_perms *ret, GError **error)
{
    *ret = NO_PERMS;
    const xmlNode *p = target ? xml_find(target, "permissions") : NULL;
    if (!p)
        return true;
    const char *mode = xml_get(p, "mode");
    if (mode) {
        char *end;
        guint64 v = g_ascii_strtoull(mode, &end, 8);
        if (!g_ascii_isdigit(*mode) || *end || v > 07777)
            return ruche_error(error, MANAGER_ERR_XML,
                               "%s: permissions: mode '%s' is not octal from 0 to 7777", what,
                               mode);
        ret->mode = (int)v;
    }
    return parse_id(p, "owner", &ret->owner, error) && parse_id(p, "group", &ret->group, error);
}

void perms_format(GString *b, const char *indent, const struct file_perms *p)
{
    if (p->mode < 0 && p->owner < 0 && p->group < 0)
        return;
    g_string_append_printf(b, "%s<permissions>\n", indent);
    if (p->mode >= 0)
        g_string_append_printf(b, "%s  <mode>%04o</mode>\n", indent, (unsigned)p->mode);
    if (p->owner >= 0)
        g_string_append_printf(b, "%s  <owner>%" PRId64 "</owner>\n", indent, p->owner);
    if (p->group >= 0)
        g_string_append_printf(b, "%s  <group>%" PRId64 "</group>\n", indent, p->group);
    g_string_append_printf(b, "%s</permissions>\n", indent);
}

static bool parse_type(struct pool_def *d, const xmlNode *root, GError **error)
{
    const char *type = xml_get(root, "@type");
    if (!type)
        return ruche_error(error, MANAGER_ERR_XML, "pool: attribute 'type' is missing");
    if (g_strv_contains(other_types, type))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "pool type '%s' is not supported yet; use 'dir'", type);
    if (strcmp(type, "dir") != 0)
        return ruche_error(error, MANAGER_ERR_XML, "pool type '%s' is not known; use 'dir'", type);
    d->type = g_strdup(type);
    return true;
}

static bool parse_target(struct pool_def *d, const xmlNode *root, GError **error)
{
    const char *path = xml_get(root, "target/path");
    if (!path || !*path)
        return ruche_error(error, MANAGER_ERR_XML, "pool '%s': target path is missing", d->name);
    if (path[0] != '/' || strlen(path) >= PATH_MAX)
        return ruche_error(error, MANAGER_ERR_XML,
                           "pool '%s': target path '%.*s' is not an absolute path", d->name, 256,
                           path);
    d->target = g_canonicalize_filename(path, "/");
    return perms_parse(xml_find(root, "target"), "pool", &d->perms, error);
}

static bool parse_uuid(struct pool_def *d, const xmlNode *root, GError **error)
{
    const char *text = xml_get(root, "uuid");
    d->has_uuid = text && *text;
    if (d->has_uuid && !uuid_parse(text, d->uuid))
        return ruche_error(error, MANAGER_ERR_XML, "pool '%s': '%.64s' is not a UUID", d->name,
                           text);
    if (!d->has_uuid)
        uuid_random(d->uuid);
    return true;
}

bool pool_def_parse(struct pool_def *d, const char *xml, bool validate, GError **error)
{
    *d = (struct pool_def){.perms = NO_PERMS};
    g_autoptr(xmlDoc) doc = xml_parse(xml, strlen(xml), "pool", error);
    if (!doc)
        return false;
    const xmlNode *root = xmlDocGetRootElement(doc);
    const char *name = xml_get(root, "name");
    if (!name)
        return ruche_error(error, MANAGER_ERR_XML, "pool: element 'name' is missing");
    d->name = g_strdup(name);
    bool ok = parse_type(d, root, error) && store_name_check("storage pool", name, error) &&
              parse_uuid(d, root, error) && parse_target(d, root, error) &&
              (!validate || validate_pool(root, error));
    if (!ok)
        pool_def_done(d);
    return ok;
}

void pool_def_done(struct pool_def *d)
{
    g_clear_pointer(&d->name, g_free);
    g_clear_pointer(&d->type, g_free);
    g_clear_pointer(&d->target, g_free);
}

char *pool_format(const struct pool *p, bool figures, bool inactive)
{
    char uuid[UUID_TEXT_BYTES];
    bool running = p->state == POOL_RUNNING && !inactive;
    GString *b = g_string_new(NULL);
    uuid_format(p->uuid, uuid);
    markup_add(b, "<pool type='%s'>\n  <name>%s</name>\n  <uuid>%s</uuid>\n", p->type, p->name,
               uuid);
    if (figures)
        g_string_append_printf(b,
                               "  <capacity unit='bytes'>%" PRIu64 "</capacity>\n"
                               "  <allocation unit='bytes'>%" PRIu64 "</allocation>\n"
                               "  <available unit='bytes'>%" PRIu64 "</available>\n",
                               running ? p->capacity : 0, running ? p->allocation : 0,
                               running ? p->available : 0);
    markup_add(b, "  <source>\n  </source>\n  <target>\n    <path>%s</path>\n", p->target);
    perms_format(b, "    ", running && figures ? &p->real_perms : &p->perms);
    g_string_append(b, "  </target>\n</pool>\n");
    return g_string_free(b, FALSE);
}
