/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parents of differencing disks. See the header. */
#include "image/vhd/parent.h"

bool parent_open(struct node *n, const char *format, struct node **ret_named, GError **error)
{
    g_autoptr(GError) e = NULL;
    *ret_named = NULL;
    n->backing_format = g_strdup(format);
    if (json_object_has_member(n->options, "backing")) { /* the user knows better */
        n->backing_overridden = true;
        node_open_child(n, "backing", CHILD_BACKING, false, &e);
        if (e)
            g_propagate_error(error, g_error_copy(e));
        return !e;
    }
    if (n->open_flags & NODE_NO_BACKING)
        return true;
    if (!n->backing_file)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s': it is a differencing disk without its parent's name",
                           n->filename);
    struct node *parent =
        node_open_named_child(n, "backing", CHILD_BACKING, n->backing_file, format, error);
    if (!(n->open_flags & NODE_CHECK))
        *ret_named = parent;
    return parent;
}

struct node *parent_look_at(struct node *n, const char *name, const char *format, GError **error)
{
    g_autofree char *path = node_resolve_name(n, name);
    if (path)
        return node_open_name(n->graph, path, format, NULL, NODE_NO_BACKING | NODE_NO_LOCK, error);
    ruche_error(error, RUCHE_ERR_INVALID, "'%s' is relative to a name that is no path", name);
    return NULL;
}
