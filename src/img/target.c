/* SPDX-License-Identifier: GPL-2.0-or-later */
/* New images under their temporary and final names. */
#include "img/target.h"

#include <string.h>

bool target_new(struct img *img, const struct creation *c, const char *cache, struct target *ret,
                GError **error)
{
    *ret = (struct target){
        .name = c->filename,
        .graph = img->graph,
        .files = image_files_new(),
        .sync = strcmp(cache, "unsafe") != 0,
    };
    graph_set_files(img->graph, ret->files);
    if (image_create(img->graph, c->driver, c->filename, c->size_bytes, c->backing,
                     c->backing_format, c->options, error))
        ret->node = img_open_new(img, c->filename, c->driver->name, c->options, cache, error);
    return ret->node || target_finish(ret, false, NULL);
}

bool target_finish(struct target *t, bool good, GError **error)
{
    int r = good && t->node ? node_flush(t->node) : 0;
    if (r < 0)
        good = ruche_error_errno(error, -r, "'%s': the last writes failed", t->name);
    bool opened = t->node;
    node_unref(t->node);
    if (!t->files)
        return good;
    graph_set_files(t->graph, NULL);
    if (good)
        return image_files_commit(t->files, t->sync, error);
    if (!image_files_abort(t->files) && opened)
        img_warn("'%s' is left incomplete", t->name);
    return false;
}
