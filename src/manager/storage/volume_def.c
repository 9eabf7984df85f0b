/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A volume's description: from XML and to XML.
 *
 * Spec      libvirt's formatstorage, storagevol.rng at 9.0.0.
 * Trust     XML is hostile; manager/xml.h bounds it.
 */
#include "base/units.h"
#include "manager/markup.h"
#include "manager/storage/storage_priv.h"
#include "manager/store.h"

#include <inttypes.h>
#include <string.h>

bool volume_name_check(const char *name, GError **error)
{
    if (!store_name_check("volume", name, error))
        return false;
    return !g_str_has_prefix(name, STAGE_PREFIX) ||
           ruche_error(error, RUCHE_ERR_INVALID,
                       "volume name '%s' begins with '" STAGE_PREFIX "', which is kept for the "
                       "manager's own files",
                       name);
}

/* "10" with unit "GiB" (default bytes): K, M, ... and KiB are powers of 1024, KB of 1000. */
static bool scale(const char *number, const char *unit, uint64_t *ret)
{
    static const char letters[] = "KMGTPE";
    uint64_t v, factor = 1;
    if (!units_parse_u64(number, &v))
        return false;
    if (unit && *unit && g_ascii_strcasecmp(unit, "bytes") != 0 &&
        g_ascii_strcasecmp(unit, "byte") != 0 && g_ascii_strcasecmp(unit, "b") != 0) {
        const char *at = strchr(letters, g_ascii_toupper(*unit));
        bool binary = !unit[1] || !g_ascii_strcasecmp(unit + 1, "iB");
        if (!at || (!binary && g_ascii_strcasecmp(unit + 1, "B") != 0))
            return false;
        for (const char *l = letters; l <= at; l++)
            factor *= binary ? 1024 : 1000;
    }
    return !__builtin_mul_overflow(v, factor, ret) && *ret <= INT64_MAX;
}

static bool parse_size(const struct xml_node *root, const char *name, uint64_t *ret,
                       bool *ret_there, GError **error)
{
    const struct xml_node *n = xml_find(root, name);
    const char *text = n ? xml_get(root, name) : NULL;
    *ret_there = text;
    if (!text)
        return true;
    g_autofree char *number = g_strstrip(g_strdup(text));
    const char *unit = xml_get(n, "@unit");
    return scale(number, unit, ret) ||
           ruche_error(error, RUCHE_ERR_XML, "volume: %s '%.64s' of unit '%.16s' is not a size",
                       name, text, unit ? unit : "bytes");
}

static bool validate_volume(const struct xml_node *root, GError **error)
{
    static const char *const in_volume[] = {"name",     "key",          "source",
                                            "capacity", "allocation",   "physical",
                                            "target",   "backingStore", NULL};
    static const char *const in_target[] = {"path",       "format", "permissions", "timestamps",
                                            "encryption", "compat", "nocow",       "clusterSize",
                                            "features",   NULL};
    const struct xml_node *target = xml_find(root, "target");
    return children_check(root, in_volume, error) &&
           (!target || children_check(target, in_target, error));
}

/* Devices have no format of their own; what libvirt calls "none" is raw. */
static bool parse_format(struct volume_def *d, const struct pool_backend *b,
                         const struct xml_node *root, GError **error)
{
    const char *format = xml_get_or(root, "target/format@type", "raw");
    bool files = b->can & POOL_FILES;
    g_autofree char *list =
        b->volume_formats ? g_strjoinv(", ", (char **)b->volume_formats) : g_strdup("raw");
    if (!files && (!strcmp(format, "none") || !strcmp(format, "unknown")))
        format = "raw";
    if (strcmp(format, "raw") != 0 &&
        (!b->volume_formats || !g_strv_contains(b->volume_formats, format)))
        return ruche_error(
            error, MANAGER_ERR_CONFIG,
            "volume '%s': format '%.32s' cannot be made in a pool of type '%s'; it can be: %s",
            d->name, format, b->type, list);
    for (unsigned i = 0; !files && b->volume_formats && b->volume_formats[i]; i++)
        if (!strcmp(format, b->volume_formats[i]))
            d->partition = b->volume_formats[i];
    d->format = g_strdup(files ? format : "raw");
    return true;
}

static bool parse_backing(struct volume_def *d, const struct pool_backend *b,
                          const struct xml_node *root, GError **error)
{
    const char *path = xml_get(root, "backingStore/path");
    if (!path || !*path)
        return true;
    if (path[0] != '/' || strlen(path) >= PATH_MAX)
        return ruche_error(error, RUCHE_ERR_XML,
                           "volume '%s': path of backing store '%.256s' is not absolute", d->name,
                           path);
    const char *format = xml_get_or(root, "backingStore/format@type", "raw");
    if (!(b->can & (POOL_FILES | POOL_CAN_SNAPSHOT)))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "volume '%s': volumes of type '%s' have no backing store", d->name,
                           b->type);
    if (b->can & POOL_FILES && !strcmp(d->format, "raw"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "volume '%s': a raw volume has no backing store; use qcow2", d->name);
    if (b->can & POOL_FILES && !g_strv_contains(folder_volume_formats, format))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "volume '%s': format '%.32s' of the backing store is not known", d->name,
                           format);
    d->backing = g_strdup(path);
    d->backing_format = g_strdup(format);
    return true;
}

static bool parse_details(struct volume_def *d, const struct xml_node *root, GError **error)
{
    const char *compat = xml_get(root, "target/compat");
    bool there;
    d->lazy_refcounts = xml_find(root, "target/features/lazy_refcounts");
    d->extended_l2 = xml_find(root, "target/features/extended_l2");
    d->nocow = xml_find(root, "target/nocow");
    const struct xml_node *target = xml_find(root, "target");
    if (target && !parse_size(target, "clusterSize", &d->cluster_size, &there, error))
        return false;
    if (compat && strcmp(compat, "0.10") != 0 && strcmp(compat, "1.1") != 0)
        return ruche_error(error, RUCHE_ERR_XML,
                           "volume '%s': compat '%.16s' is not one of 0.10, 1.1", d->name, compat);
    if ((compat || d->lazy_refcounts || d->extended_l2 || d->cluster_size) &&
        strcmp(d->format, "qcow2") != 0)
        return ruche_error(
            error, MANAGER_ERR_CONFIG,
            "volume '%s': compat, features and clusterSize belong to format qcow2, not %s", d->name,
            d->format);
    d->compat = g_strdup(compat);
    return perms_parse(target, "volume", &d->perms, error);
}

static bool parse_root(struct volume_def *d, const struct pool_backend *b,
                       const struct xml_node *root, GError **error)
{
    const char *type = xml_get_or(root, "@type", "file"),
               *own = b->can & POOL_FILES ? "file" : "block";
    bool has_allocation;
    if (strcmp(type, "file") != 0 && strcmp(type, own) != 0 && !(b->can & POOL_REMOTE))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "volume '%s': type '%.16s' cannot be made in a pool of type '%s'",
                           d->name, type, b->type);
    if (!volume_name_check(d->name, error) ||
        !parse_size(root, "capacity", &d->capacity, &d->has_capacity, error) ||
        !parse_size(root, "allocation", &d->allocation, &has_allocation, error))
        return false;
    if (!has_allocation)
        d->allocation = UINT64_MAX;
    return parse_format(d, b, root, error) && parse_backing(d, b, root, error) &&
           parse_details(d, root, error) && volume_encryption_parse(d, b, root, error);
}

bool volume_def_parse(struct volume_def *d, const struct pool_backend *b, const char *xml,
                      bool validate, GError **error)
{
    *d = (struct volume_def){.perms = NO_PERMS};
    auto_xml *root = xml_parse(xml, strlen(xml), "volume", error);
    if (!root)
        return false;
    const char *name = xml_get(root, "name");
    if (!name)
        return ruche_error(error, RUCHE_ERR_XML, "volume: element 'name' is missing");
    d->name = g_strdup(name);
    bool ok = parse_root(d, b, root, error) && (!validate || validate_volume(root, error));
    if (!ok)
        volume_def_done(d);
    return ok;
}

void volume_def_done(struct volume_def *d)
{
    g_clear_pointer(&d->name, g_free);
    g_clear_pointer(&d->format, g_free);
    g_clear_pointer(&d->backing, g_free);
    g_clear_pointer(&d->backing_format, g_free);
    g_clear_pointer(&d->compat, g_free);
    g_clear_pointer(&d->key, g_bytes_unref);
    g_clear_pointer(&d->secret, g_free);
    g_clear_pointer(&d->ciphers, g_free);
}

static void add_time(GString *b, const char *name, const struct timespec *t)
{
    g_string_append_printf(b, "      <%s>%" PRId64 ".%09ld</%s>\n", name, (int64_t)t->tv_sec,
                           t->tv_nsec, name);
}

static void add_target(GString *b, const struct volume *v)
{
    markup_add(b, "  <target>\n    <path>%s</path>\n    <format type='%s'/>\n", v->path, v->format);
    perms_format(b, "    ", &v->perms);
    if (v->mtime.tv_sec) {
        g_string_append(b, "    <timestamps>\n");
        add_time(b, "atime", &v->atime);
        add_time(b, "mtime", &v->mtime);
        add_time(b, "ctime", &v->ctime);
        g_string_append(b, "    </timestamps>\n");
    }
    volume_encryption_format(b, v);
    if (v->compat)
        markup_add(b, "    <compat>%s</compat>\n", v->compat);
    if (v->cluster_size)
        g_string_append_printf(b, "    <clusterSize unit='B'>%" PRIu64 "</clusterSize>\n",
                               v->cluster_size);
    if (v->compat && (v->lazy_refcounts || v->extended_l2))
        g_string_append_printf(b, "    <features>\n%s%s    </features>\n",
                               v->lazy_refcounts ? "      <lazy_refcounts/>\n" : "",
                               v->extended_l2 ? "      <extended_l2/>\n" : "");
    else if (v->compat)
        g_string_append(b, "    <features/>\n");
    g_string_append(b, "  </target>\n");
}

char *volume_format(const struct volume *v)
{
    static const char *const types[] = {"file", "block", "dir", "network", "netdir"};
    GString *b = g_string_new(NULL);
    markup_add(b, "<volume type='%s'>\n  <name>%s</name>\n  <key>%s</key>\n", types[v->type],
               v->name, v->key ? v->key : v->path);
    if (v->source)
        g_string_append_printf(b, "  <source>\n%s  </source>\n", v->source);
    g_string_append_printf(b,
                           "  <capacity unit='bytes'>%" PRIu64 "</capacity>\n"
                           "  <allocation unit='bytes'>%" PRIu64 "</allocation>\n",
                           v->capacity, v->allocation);
    if (v->type == VOLUME_FILE || v->type == VOLUME_BLOCK)
        g_string_append_printf(b, "  <physical unit='bytes'>%" PRIu64 "</physical>\n", v->physical);
    add_target(b, v);
    if (v->backing) {
        markup_add(b, "  <backingStore>\n    <path>%s</path>\n", v->backing);
        if (v->backing_format)
            markup_add(b, "    <format type='%s'/>\n", v->backing_format);
        g_string_append(b, "  </backingStore>\n");
    }
    g_string_append(b, "</volume>\n");
    return g_string_free(b, FALSE);
}
