/* SPDX-License-Identifier: GPL-2.0-or-later */
/* convert --bitmaps: the source's persistent bitmaps go with it. */
#include "image/dirty.h"
#include "img/convert.h"

static bool copy_bitmap(const struct dirty_bitmap *from, struct node *to, GError **error)
{
    struct dirty_bitmap *b = dirty_new(to, node_size(to), from->name, from->granularity, error);
    if (!b)
        return false;
    if (!to->driver->bitmap_can_store(to, from->name, from->granularity, error) ||
        !dirty_merge(b, from, error)) {
        dirty_free(b);
        return false;
    }
    b->enabled = from->enabled;
    b->persistent = true;
    return true;
}

bool convert_bitmaps(struct node *from, struct node *to, bool skip_broken, GError **error)
{
    if (!to->driver->bitmap_can_store)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "images of format '%s' keep no bitmaps",
                           node_format(to));
    for (const struct dirty_bitmap *b = from->bitmaps; b; b = b->next) {
        if (!b->persistent)
            continue;
        if (b->inconsistent && skip_broken) {
            img_warn("bitmap '%s' is broken and is not copied", b->name);
            continue;
        }
        if (b->inconsistent)
            return ruche_error(
                error, RUCHE_ERR_STATE,
                "bitmap '%s' of '%s' is broken; --skip-broken-bitmaps passes it over", b->name,
                node_filename(from));
        if (!copy_bitmap(b, to, error)) {
            g_prefix_error(error, "bitmap '%s': ", b->name);
            return false;
        }
    }
    return true;
}
