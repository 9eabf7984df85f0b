/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the two sides tell each other in the phases' cookies.
 *
 * Format    libvirt's: <qemu-migration> with name, UUID, host name and host UUID; a <feature> for
 * what the other side must understand; for 'persistent' a <domain>. What else stands there are
 * offers that nobody has to take up. Thread: any. Trust: a cookie is the other side's.
 */
#include "manager/domain/domain_migrate_priv.h"
#include "manager/node/node.h"
#include "manager/uuid.h"

#include <string.h>

static void add_text(struct xml_node *root, const char *name, const char *text)
{
    xml_set(xml_add(root, name), "", text);
}

static void add_persistent(struct xml_node *root, struct domain_def *def)
{
    struct xml_node *feature = xml_add(root, "feature");
    xml_set_attr(feature, "name", "persistent");
    g_autofree char *text =
        domain_def_format(def, DEF_FORMAT_SECURE | DEF_FORMAT_INACTIVE | DEF_FORMAT_MIGRATABLE, -1);
    auto_xml *doc = xml_parse(text, strlen(text), "domain", NULL);
    if (doc)
        xml_append(root, xml_copy(doc));
}

char *migrate_cookie_write(const char *name, const uint8_t uuid[16], struct domain_def *persistent)
{
    char text[UUID_TEXT_BYTES];
    g_autofree char *host = node_hostname();
    struct xml_node *root = xml_new("qemu-migration");
    add_text(root, "name", name);
    uuid_format(uuid, text);
    add_text(root, "uuid", text);
    add_text(root, "hostname", host);
    uuid_format(manager.host_uuid, text);
    add_text(root, "hostuuid", text);
    if (persistent)
        add_persistent(root, persistent);
    char *cookie = xml_format(root, 0);
    xml_free(root);
    return cookie;
}

void migrate_cookie_done(struct migrate_cookie *c)
{
    g_clear_pointer(&c->persistent, g_free);
}

/* ---- reading ---- */

/* What the other side may insist on. Of plugged memory and vCPUs descriptions tell, too; locks of
 * a lock manager are looked at below. */
static const char *const features[] = {"persistent", "memory-hotplug", "cpu-hotplug", "lockstate",
                                       NULL};

static bool check_features(const struct xml_node *root, GError **error)
{
    for (struct xml_node *n = xml_find(root, "feature"); n; n = xml_next(n)) {
        const char *name = xml_get_or(n, "@name", "");
        if (!g_strv_contains(features, name))
            return ruche_error(
                error, RUCHE_ERR_UNSUPPORTED,
                "migration: the other side asks for '%s', which is not possible here", name);
    }
    const char *locks = xml_get_or(root, "lockstate@driver", "nop");
    return !strcmp(locks, "nop") ||
           ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "migration: the other side's disks are locked by '%s', which is not "
                       "possible here",
                       locks);
}

static bool check_who(const struct xml_node *root, const char *name, const uint8_t uuid[16],
                      GError **error)
{
    uint8_t theirs[16];
    const char *their_name = xml_get_or(root, "name", "");
    if (name && strcmp(name, their_name))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "migration: the cookie is of domain '%s', not of '%s'", their_name,
                           name);
    if (!uuid_parse(xml_get_or(root, "uuid", ""), theirs) || memcmp(theirs, uuid, 16))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "migration: the cookie is of a domain with another UUID");
    if (!uuid_parse(xml_get_or(root, "hostuuid", ""), theirs))
        return ruche_error(error, RUCHE_ERR_INVALID, "migration: the cookie names no host");
    return memcmp(theirs, manager.host_uuid, 16) ||
           ruche_error(
               error, RUCHE_ERR_INVALID,
               "attempt to migrate a guest to the same host: both managers say that theirs is '%s'",
               xml_get(root, "hostuuid"));
}

bool migrate_cookie_read(const struct migrate_cookie_in *in, const char *name,
                         const uint8_t uuid[16], struct migrate_cookie *ret, GError **error)
{
    size_t len = in->len && !in->data[in->len - 1] ? in->len - 1 : in->len;
    if (!len)
        return true;
    auto_xml *root = xml_parse(in->data, len, "qemu-migration", error);
    if (!root || !check_features(root, error) || !check_who(root, name, uuid, error))
        return false;
    const struct xml_node *domain = xml_find(root, "domain");
    if (domain)
        ret->persistent = xml_format(domain, 0);
    return true;
}
