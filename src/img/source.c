/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Snapshots of sources: from what -l says to the snapshot's id. */
#include "img/source.h"

#include <string.h>

static bool matches(const struct snapshot_info *s, const char *id, const char *name)
{
    return (!id || !strcmp(s->id, id)) && (!name || !strcmp(s->name, name));
}

/* The snapshot's id; an id is looked for before a name. Caller frees. */
static char *find_id(struct node *n, const char *id, const char *name, bool either)
{
    struct snapshot_info *list = NULL;
    unsigned count = 0;
    char *found = NULL;
    if (!n->driver->snapshot_list || n->driver->snapshot_list(n, &list, &count) < 0)
        return NULL;
    for (unsigned i = 0; i < count && !found; i++)
        found = matches(&list[i], id, either ? NULL : name) ? g_strdup(list[i].id) : NULL;
    for (unsigned i = 0; i < count && !found && either; i++)
        found = matches(&list[i], NULL, name) ? g_strdup(list[i].id) : NULL;
    img_free_snapshots(list, count);
    return found;
}

bool source_show_snapshot(struct node *n, const char *which, GError **error)
{
    g_autofree char *found = NULL;
    if (!n->driver->snapshot_show)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "'%s': images of format '%s' have no snapshots inside", node_filename(n),
                           node_format(n));
    if (strncmp(which, "snapshot.", 9)) {
        found = find_id(n, which, which, true);
    } else {
        g_autoptr(JsonObject) o = option_parse_text(which, NULL, error);
        if (!o)
            return false;
        JsonObject *s = json_object_get_object_member(o, "snapshot");
        found = s ? find_id(n, json_object_get_string_member_with_default(s, "id", NULL),
                            json_object_get_string_member_with_default(s, "name", NULL), false)
                  : NULL;
    }
    if (!found)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "'%s' has no snapshot '%s'",
                           node_filename(n), which);
    return n->driver->snapshot_show(n, found, error);
}
