/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptions of secrets.
 *
 * Spec      libvirt's formatsecret and secret.rng at 9.0.0.
 * Thread    Any.
 */
#include "manager/secret/secret_def.h"

#include "manager/domain/def.h"
#include "manager/domain/schema_table.h"
#include "manager/uuid.h"

#include <string.h>

/* clang-format off */
#define WHAT TEXT_MAX(4095)
static const struct schema_row usage_rows[] = {
    { "volume", WHAT, .when = "type=volume", .flags = F_NEED | F_TEXT },
    { "target", WHAT, .when = "type=iscsi", .flags = F_NEED | F_TEXT },
    { "name", WHAT, .when = "type=ceph|tls|vtpm", .flags = F_NEED | F_TEXT },
    { 0 },
};
static const struct schema_row secret_rows[] = {
    { "uuid", UUID },
    { "description", TEXT_MAX(65536) },
    { "usage", ATTRS({ "type", WORD("none|volume|ceph|iscsi|tls|vtpm"), F_NEED }), .children = usage_rows },
    { 0 },
};
static const struct schema_row secret_schema = { "secret", .children = secret_rows, ATTRS(
    { "ephemeral", YES_NO, .otherwise = "no" }, { "private", YES_NO, .otherwise = "no" }) };

static const struct {
    const char *word, *path; /* of the element that names what it is for */
} usages[SECRET_USAGES] = {
    [SECRET_NONE] = { "none", NULL },            [SECRET_VOLUME] = { "volume", "usage/volume" },
    [SECRET_CEPH] = { "ceph", "usage/name" },    [SECRET_ISCSI] = { "iscsi", "usage/target" },
    [SECRET_TLS] = { "tls", "usage/name" },      [SECRET_VTPM] = { "vtpm", "usage/name" },
};
/* clang-format on */

const char *secret_usage_word(enum secret_usage usage)
{
    return usages[usage].word;
}

static bool read_tree(struct secret_def *d, struct xml_node *root, GError **error)
{
    char text[UUID_TEXT_BYTES];
    const char *uuid = xml_get(root, "uuid"), *type = xml_get_or(root, "usage@type", "none");
    d->has_uuid = uuid && *uuid;
    if (d->has_uuid && !uuid_parse(uuid, d->uuid))
        return ruche_error(error, RUCHE_ERR_XML, "secret: '%.64s' is not a UUID", uuid);
    if (!d->has_uuid)
        uuid_random(d->uuid);
    uuid_format(d->uuid, text);
    xml_set(root, "uuid", text);
    while (d->usage < SECRET_USAGES - 1 && strcmp(usages[d->usage].word, type) != 0)
        d->usage++;
    if (d->usage == SECRET_NONE)
        xml_remove(root, "usage"); /* as libvirt prints it, who knows no such word in its schema */
    d->id = g_strdup(usages[d->usage].path ? xml_get_or(root, usages[d->usage].path, "") : "");
    d->ephemeral = xml_is(root, "@ephemeral", "yes");
    d->confined = xml_is(root, "@private", "yes");
    return true;
}

bool secret_def_parse(struct secret_def *d, const char *xml, unsigned flags, GError **error)
{
    unsigned rows = flags & SECRET_DEFINE_VALIDATE ? DEF_VALIDATE : 0;
    auto_xml *root = xml_parse(xml, strlen(xml), "secret", error);
    *d = (struct secret_def){0};
    if (!root || !schema_apply(root, &secret_schema, rows, error) || !read_tree(d, root, error) ||
        !schema_apply(root, &secret_schema, rows, error)) {
        secret_def_done(d);
        return false;
    }
    d->text = xml_format(root, 0);
    return true;
}

void secret_def_done(struct secret_def *d)
{
    g_clear_pointer(&d->id, g_free);
    g_clear_pointer(&d->text, g_free);
}
