/* SPDX-License-Identifier: GPL-2.0-or-later */
/* --object: what images need beside themselves: secrets, TLS credentials, who may connect.
 *
 * Trust     The user's words.
 */
#include "image/authz.h"
#include "image/nbd/tls.h"
#include "image/secret.h"
#include "img/img.h"

#include <string.h>

static bool add_creds(const char *type, const char *id, JsonObject *o, GError **error)
{
    json_object_remove_member(o, "qom-type");
    json_object_remove_member(o, "id");
    struct tls_creds *c = tls_creds_new(type, id, o, error);
    bool good = c && tls_creds_add(c, error);
    tls_creds_unref(c);
    return good;
}

static bool add_object(const char *text, GError **error)
{
    static const char *const types[] = {"secret", "tls-creds-x509", "tls-creds-psk",
                                        "tls-creds-anon", "authz-simple", "authz-list",
                                        "authz-list-file", NULL};
    g_autoptr(JsonObject) o = option_parse_text(text, "qom-type", error);
    if (!o)
        return false;
    g_autofree char *type = g_strdup(json_object_get_string_member_with_default(o, "qom-type", ""));
    g_autofree char *id = g_strdup(json_object_get_string_member_with_default(o, "id", ""));
    bool creds = tls_creds_is_kind(type);
    if (!creds && !authz_is_kind(type) && strcmp(type, "secret"))
        return ruche_error(error, RUCHE_ERR_UNKNOWN, "--object: unknown kind of object '%s'%s",
                           type, suggest_phrase(type, types));
    if (!*id)
        return ruche_error(error, RUCHE_ERR_INVALID, "--object %s: an id is needed: id=NAME", type);
    if (authz_is_kind(type)) {
        json_object_remove_member(o, "qom-type");
        json_object_remove_member(o, "id");
        return authz_add(type, id, o, error);
    }
    return creds ? add_creds(type, id, o, error) : secret_add(id, o, error);
}

bool img_add_objects(GPtrArray *objects, GError **error)
{
    for (guint i = 0; objects && i < objects->len; i++) {
        if (!add_object(objects->pdata[i], error))
            return false;
    }
    return true;
}
