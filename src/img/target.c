/* SPDX-License-Identifier: GPL-2.0-or-later */
/* New images under their temporary and final names. */
#include "img/target.h"

#include <string.h>
#include <unistd.h>

/* Does the image name further files inside? */
static bool must_be_in_place(const struct creation *c)
{
    const struct image_driver *d = c->driver;
    bool one_file = !(d->flags & DRIVER_MULTIFILE) || (d->makes_one_file && d->makes_one_file(c->options));
    return !one_file || json_object_has_member(c->options, "data_file");
}

static bool open_target(struct img *img, const struct creation *c, const char *path,
                        const char *cache, struct target *t, GError **error)
{
    if (!image_create(img->graph, c->driver, path, c->size_bytes, c->backing, c->backing_format,
                      c->options, error))
        return false;
    t->node = img_open_new(img, path, c->driver->name, c->options, cache, error);
    return t->node;
}

bool target_new(struct img *img, const struct creation *c, const char *cache, struct target *ret,
                GError **error)
{
    *ret = (struct target){.name = c->filename, .sync = strcmp(cache, "unsafe") != 0};
    const char *path = c->filename;
    if (!must_be_in_place(c)) {
        ret->file = image_target_new(c->filename, error);
        if (!ret->file)
            return false;
        path = image_target_path(ret->file);
    }
    if (open_target(img, c, path, cache, ret, error))
        return true;
    if (ret->file)
        image_target_abort(ret->file);
    return false;
}

bool target_finish(struct target *t, bool good, GError **error)
{
    int r = good && t->node ? node_flush(t->node) : 0;
    if (r < 0)
        good = ruche_error_errno(error, -r, "'%s': the last writes failed", t->name);
    node_unref(t->node);
    if (t->existed)
        return good;
    if (!t->file && !good)
        img_warn("'%s' is left incomplete", t->name);
    if (t->file && good)
        return image_target_commit(t->file, t->sync, error);
    if (t->file)
        image_target_abort(t->file);
    return good;
}
