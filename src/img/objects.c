/* SPDX-License-Identifier: GPL-2.0-or-later */
/* --object: what images need beside themselves. Secrets are the ones that the tool knows.
 *
 * Trust     The user's words.
 */
#include "image/secret.h"
#include "img/img.h"

#include <string.h>

static bool add_object(const char *text, GError **error)
{
    g_autoptr(JsonObject) o = option_parse_text(text, "qom-type", error);
    if (!o)
        return false;
    const char *type = json_object_get_string_member_with_default(o, "qom-type", "");
    const char *id = json_object_get_string_member_with_default(o, "id", "");
    static const char *const types[] = {"secret", NULL};
    if (strcmp(type, "secret"))
        return ruche_error(error, RUCHE_ERR_UNKNOWN, "--object: unknown kind of object '%s'%s",
                           type, suggest_phrase(type, types));
    if (!*id)
        return ruche_error(error, RUCHE_ERR_INVALID, "--object %s: an id is needed: id=NAME", type);
    return secret_add(id, o, error);
}

bool img_add_objects(GPtrArray *objects, GError **error)
{
    for (guint i = 0; objects && i < objects->len; i++) {
        if (!add_object(objects->pdata[i], error))
            return false;
    }
    return true;
}
