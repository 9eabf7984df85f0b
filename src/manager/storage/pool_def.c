/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A pool's description: from XML, checked and completed, and to XML with figures.
 *
 * Spec      libvirt's formatstorage, storagepool.rng at 9.0.0.
 * Trust     XML is hostile; manager/xml.h bounds it, pool_schema.c checks each value.
 */
#include "base/units.h"
#include "manager/domain/def.h"
#include "manager/domain/schema.h"
#include "manager/storage/storage_priv.h"
#include "manager/store.h"
#include "manager/uuid.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

bool children_check(const struct xml_node *n, const char *const *known, GError **error)
{
    for (const struct xml_node *c = n->children; c; c = c->next)
        if (xml_is_element(c) && !g_strv_contains(known, c->name))
            return ruche_error(error, RUCHE_ERR_XML, "element '%s' in '%s' is not known", c->name,
                               n->name);
    return true;
}

/* A user or group: a number, or -1. */
static bool parse_id(const struct xml_node *n, const char *path, int64_t *ret, GError **error)
{
    const char *text = xml_get(n, path);
    uint64_t v;
    if (!text || !strcmp(text, "-1"))
        return true;
    if (!units_parse_u64(text, &v) || v >= UINT32_MAX)
        return ruche_error(error, RUCHE_ERR_XML,
                           "target/permissions/%s: '%s' is not a number of a user or group", path,
                           text);
    *ret = (int64_t)v;
    return true;
}

bool perms_parse(const struct xml_node *target, const char *what, struct file_perms *ret,
                 GError **error)
{
    *ret = NO_PERMS;
    const struct xml_node *p = target ? xml_find(target, "permissions") : NULL;
    if (!p)
        return true;
    const char *mode = xml_get(p, "mode");
    if (mode) {
        char *end;
        guint64 v = g_ascii_strtoull(mode, &end, 8);
        if (!g_ascii_isdigit(*mode) || *end || v > 07777)
            return ruche_error(error, RUCHE_ERR_XML,
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

/* ---- what a type needs ---- */

struct need {
    unsigned flag;
    const char *path, *what;
    const char *whose; /* which types it is for */
};
static const struct need needs[] = {
    {POOL_NEEDS_HOST, "source/host@name", "a source host",
     "shares of file servers (SMB, NFS) are for type 'netfs', iSCSI targets for 'iscsi' and "
     "'iscsi-direct', Ceph for 'rbd'"},
    {POOL_NEEDS_DEVICE, "source/device@path", "a source device",
     "block devices (of iSCSI, Fibre Channel, NVMe) are for types 'fs', 'logical', 'disk' and "
     "'zfs'"},
    {POOL_NEEDS_DIR, "source/dir@path", "a source directory",
     "shares of file servers (SMB, NFS) are for type 'netfs'"},
    {POOL_NEEDS_NAME, "source/name", "a source name",
     "names are for types 'logical', 'rbd' and 'zfs'"},
    {POOL_NEEDS_ADAPTER, "source/adapter", "a source adapter",
     "adapters (SCSI, Fibre Channel) are for type 'scsi'; their devices for 'fs', 'logical', "
     "'disk' and 'mpath'"},
    {POOL_NEEDS_INITIATOR, "source/initiator/iqn@name", "an initiator's name (iqn)",
     "initiators are for types 'iscsi' and 'iscsi-direct'"},
};

/* What a type cannot have is told before what it lacks: that is what its author wanted. */
static bool check_needs(const struct pool_def *d, const struct xml_node *root, GError **error)
{
    for (unsigned i = 0; i < ARRAY_COUNT(needs); i++) {
        const char *value = xml_get(root, needs[i].path);
        if (value && !((d->backend->needs | d->backend->may) & needs[i].flag))
            return ruche_error(
                error, MANAGER_ERR_CONFIG, "pool '%s': type '%s' is %s and takes no %s: %s",
                d->name, d->backend->type, d->backend->summary, needs[i].what + 2, needs[i].whose);
    }
    for (unsigned i = 0; i < ARRAY_COUNT(needs); i++) {
        const char *value = xml_get(root, needs[i].path);
        if (d->backend->needs & needs[i].flag &&
            (!value || (!*value && needs[i].flag != POOL_NEEDS_ADAPTER)))
            return ruche_error(error, RUCHE_ERR_XML, "pool '%s': type '%s' needs %s (%s)", d->name,
                               d->backend->type, needs[i].what, needs[i].path);
    }
    for (const struct xml_node *n = xml_find(root, "source/device"); n; n = xml_next(n))
        if (xml_get(n, "@path")[0] == '-')
            return ruche_error(error, RUCHE_ERR_XML, "pool '%s': source device '%.64s' is no path",
                               d->name, xml_get(n, "@path"));
    return true;
}

/* Names go on command lines and into paths; of LVM's, "@name" would be all groups that have the tag. */
static bool source_name_check(const struct pool_def *d, const char *name, GError **error)
{
    bool ok =
        !name || (!(name[0] && strchr("-/@", name[0])) && strcmp(name, ".") && strcmp(name, ".."));
    for (const char *c = name; ok && c && *c; c++)
        ok = g_ascii_isalnum(*c) || (unsigned char)*c >= 0x80 || strchr("._+-:@/", *c);
    return ok || ruche_error(error, RUCHE_ERR_XML, "pool '%s': '%.64s' cannot be a source's name",
                             d->name, name);
}

static bool complete_format(const struct pool_def *d, struct xml_node *root, GError **error)
{
    const char *const *known = d->backend->source_formats;
    const char *format = xml_get(root, "source/format@type");
    if (!known) {
        xml_remove(root, "source/format");
        return true;
    }
    if (!format) {
        xml_set(root, "source/format@type", known[0]);
        return true;
    }
    g_autofree char *list = g_strjoinv(", ", (char **)known);
    return g_strv_contains(known, format) ||
           ruche_error(error, MANAGER_ERR_CONFIG,
                       "pool '%s': format '%s' of type '%s' is not one of: %s", d->name, format,
                       d->backend->type, list);
}

/* ---- parts ---- */

static bool take_type(struct pool_def *d, const struct xml_node *root, GError **error)
{
    static const struct {
        const char *type, *why;
    } others[] = {
        {"sheepdog",
         "Sheepdog's last release was in 2018, and Linux distributions no longer have it"},
        {"gluster", "use type 'netfs' with format 'glusterfs', which mounts the volume"},
        {"vstorage", "Virtuozzo Storage has no client for other distributions"},
    };
    const char *type = xml_get(root, "@type");
    if (!type)
        return ruche_error(error, RUCHE_ERR_XML, "pool: attribute 'type' is missing");
    for (unsigned i = 0; i < ARRAY_COUNT(others); i++)
        if (!strcmp(type, others[i].type))
            return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "pool type '%s' is not supported: %s",
                               type, others[i].why);
    d->backend = pool_backend_find(type);
    return d->backend || ruche_error(error, RUCHE_ERR_XML, "pool type '%.32s' is not known", type);
}

static bool take_name(struct pool_def *d, struct xml_node *root, GError **error)
{
    bool by_source = d->backend->needs & POOL_NEEDS_NAME;
    const char *name = xml_get(root, "name"), *source = xml_get(root, "source/name");
    if ((!name || !*name) && by_source)
        name = source;
    if (!name)
        return ruche_error(error, RUCHE_ERR_XML, "pool: element 'name' is missing");
    d->name = g_strdup(name);
    if (!store_name_check("storage pool", d->name, error))
        return false;
    xml_set(root, "name", d->name);
    if (by_source && (!source || !*source) && !xml_find(root, "source/host"))
        xml_set(root, "source/name", d->name);
    return source_name_check(d, by_source ? xml_get(root, "source/name") : NULL, error);
}

static bool take_uuid(struct pool_def *d, struct xml_node *root, GError **error)
{
    char text[UUID_TEXT_BYTES];
    const char *given = xml_get(root, "uuid");
    d->has_uuid = given && *given;
    if (d->has_uuid && !uuid_parse(given, d->uuid))
        return ruche_error(error, RUCHE_ERR_XML, "pool '%s': '%.64s' is not a UUID", d->name,
                           given);
    if (!d->has_uuid)
        uuid_random(d->uuid);
    uuid_format(d->uuid, text);
    xml_set(root, "uuid", text);
    return true;
}

static bool take_target(struct pool_def *d, struct xml_node *root, GError **error)
{
    const struct pool_backend *b = d->backend;
    if (!(b->needs & POOL_NEEDS_TARGET) && !b->target) {
        xml_remove(root, "target");
        return true;
    }
    g_autofree char *usual = NULL;
    const char *path = xml_get(root, "target/path");
    if ((!path || !*path) && b->target) {
        const char *mark = strstr(b->target, "%s");
        usual = !mark ? g_strdup(b->target)
                      : g_strdup_printf("%.*s%s%s", (int)(mark - b->target), b->target,
                                        xml_get_or(root, "source/name", ""), mark + 2);
        path = usual;
    }
    if (!path || !*path)
        return ruche_error(error, RUCHE_ERR_XML, "pool '%s': target path is missing", d->name);
    if (path[0] != '/' || strlen(path) >= PATH_MAX)
        return ruche_error(error, RUCHE_ERR_XML,
                           "pool '%s': target path '%.*s' is not an absolute path", d->name, 256,
                           path);
    d->target = g_canonicalize_filename(path, "/");
    xml_set(root, "target/path", d->target);
    return perms_parse(xml_find(root, "target"), "pool", &d->perms, error);
}

static bool read_def(struct pool_def *d, struct xml_node *root, bool validate, GError **error)
{
    if (!take_type(d, root, error) ||
        !schema_apply(root, &schema_pool, validate ? DEF_VALIDATE : 0, error) ||
        !take_name(d, root, error) || !take_uuid(d, root, error) ||
        !complete_format(d, root, error) || !check_needs(d, root, error) ||
        (d->backend->check && !d->backend->check(root, error)) || !take_target(d, root, error) ||
        !schema_apply(root, &schema_pool, 0, error))
        return false;
    d->text = xml_format(root, 0);
    return true;
}

struct pool_def *pool_def_new(const char *xml, bool validate, GError **error)
{
    auto_xml *doc = xml_parse(xml, strlen(xml), "pool", error);
    if (!doc)
        return NULL;
    struct pool_def *d = g_new0(struct pool_def, 1);
    d->perms = NO_PERMS;
    if (read_def(d, doc, validate, error)) {
        d->doc = g_steal_pointer(&doc);
        return d;
    }
    pool_def_free(d);
    return NULL;
}

void pool_def_free(struct pool_def *d)
{
    if (!d)
        return;
    g_free(d->name);
    g_free(d->target);
    g_free(d->text);
    xml_free(d->doc);
    g_free(d);
}

/* What no two pools may use at a time; NULL: the target says it. */
static char *source_of(const struct pool_def *d)
{
    static const char *const paths[] = {"source/host@name",    "source/device@path",
                                        "source/dir@path",     "source/name",
                                        "source/adapter@name", "source/adapter@wwpn"};
    const struct xml_node *root = d->doc;
    GString *s = g_string_new(NULL);
    if (!(d->backend->needs & ~(unsigned)POOL_NEEDS_TARGET))
        return g_string_free(s, TRUE);
    for (unsigned i = 0; i < ARRAY_COUNT(paths); i++)
        if (xml_get(root, paths[i]))
            g_string_append_printf(s, "%s%s", s->len ? " " : "", xml_get(root, paths[i]));
    return g_string_free(s, FALSE);
}

char *pool_def_clash(const struct pool_def *a, const struct pool_def *b)
{
    bool folders = a->backend->can & b->backend->can & POOL_FILES;
    if (folders && !g_strcmp0(a->target, b->target))
        return g_strdup_printf("folder '%s'", a->target);
    if (a->backend != b->backend)
        return NULL;
    g_autofree char *of_a = source_of(a), *of_b = source_of(b);
    if (of_a && !g_strcmp0(of_a, of_b))
        return g_strdup_printf("source '%s'", of_a);
    return !of_a && !folders
               ? g_strdup_printf("this host's only source of type '%s'", a->backend->type)
               : NULL;
}

/* ---- to XML ---- */

static void set_permissions(struct xml_node *root, const struct file_perms *p)
{
    xml_remove(root, "target/permissions");
    if (p->mode >= 0)
        xml_set_f(root, "target/permissions/mode", "%04o", (unsigned)p->mode);
    if (p->owner >= 0)
        xml_set_f(root, "target/permissions/owner", "%" PRId64, p->owner);
    if (p->group >= 0)
        xml_set_f(root, "target/permissions/group", "%" PRId64, p->group);
}

static void set_size(struct xml_node *root, const char *name, uint64_t bytes)
{
    g_autofree char *unit = g_strconcat(name, "@unit", NULL);
    xml_set_f(root, name, "%" PRIu64, bytes);
    xml_set(root, unit, "bytes");
}

char *pool_format(const struct pool *p, bool inactive)
{
    bool running = pool_runs(p) && !inactive;
    const struct pool_def *d = inactive && p->stored ? p->stored : p->def;
    auto_xml *root = xml_copy(d->doc);
    if (running && d->target && p->real_perms.mode >= 0)
        set_permissions(root, &p->real_perms);
    if (!xml_find(root, "source")) /* clients look into it */
        xml_add(root, "source");
    set_size(root, "capacity", running ? p->capacity : 0);
    set_size(root, "allocation", running ? p->allocation : 0);
    set_size(root, "available", running ? p->available : 0);
    if (!schema_apply(root, &schema_pool, DEF_LIVE, NULL)) /* order; our own values always fit */
        return g_strdup(d->text);
    return xml_format(root, 0);
}
