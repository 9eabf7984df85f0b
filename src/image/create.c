/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making images: under temporary names (files.c), synced, then moved over the final ones.
 *
 * Fiber     All of it.
 * Errors    Sentences; a failure leaves what was there.
 */
#include "image/graph.h"
#include "base/image_lock.h"

#include "base/fd.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A local file is made, and what an old one held is gone. */
static bool make_empty_file(const char *path, GError **error)
{
    struct stat st;
    if (stat(path, &st) == 0 && S_ISBLK(st.st_mode))
        return true;
    autofd fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (fd < 0)
        return ruche_error_errno(error, errno, "'%s' cannot be created", path);
    if (!image_lock(fd, path, true, false, error))
        return false;
    if (ftruncate(fd, 0) < 0)
        return ruche_error_errno(error, errno, "'%s' cannot be emptied", path);
    return true;
}

struct node *image_create_file(struct graph *g, const char *filename, uint64_t size, GError **error)
{
    g_autoptr(JsonObject) o = name_to_options(filename, error);
    if (!o)
        return NULL;
    const char *driver = json_object_get_string_member_with_default(o, "driver", "");
    const struct image_driver *d = *driver ? driver_find(driver, error) : NULL;
    if (*driver && !d)
        return NULL;
    g_autoptr(JsonObject) copy = options_copy(o); /* parsing takes things out */
    if ((d && d->make_file && !d->make_file(g, copy, size, error)) ||
        (!strcmp(driver, "file") &&
         !make_empty_file(json_object_get_string_member(o, "filename"), error)))
        return NULL;
    json_object_set_string_member(o, "discard", "unmap");
    struct node *n = node_open(g, o, NODE_RW, error);
    if (n && size && n->size_bytes < size && !node_resize(n, size, PREALLOC_OFF, error)) {
        node_unref(n);
        return NULL;
    }
    return n;
}

static bool format(struct image_create *c, const char *path, GError **error)
{
    bool own_files = c->driver->flags & DRIVER_MULTIFILE || c->driver->kind == DRIVER_PROTOCOL;
    if (!own_files) {
        c->file = image_create_file(c->graph, path, 0, error);
        if (!c->file)
            return false;
    }
    bool ok = c->driver->create(c, error);
    if (ok && c->file && c->only_holes)
        c->file->flushed = c->file->writes; /* a length: file systems keep it in order with the name */
    if (ok && c->file && !c->only_holes) {
        int err = node_flush(c->file);
        ok = !err || ruche_error_errno(error, -err, "'%s' cannot be synced", c->filename);
    }
    node_unref(c->file);
    c->file = NULL;
    return ok;
}

bool image_create(struct graph *g, const struct image_driver *d, const char *filename,
                  uint64_t size_bytes, const char *backing_file, const char *backing_format,
                  JsonObject *options, GError **error)
{
    if (!d->create)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "images of format %s cannot be created",
                           d->name);
    if (size_bytes > IMAGE_SIZE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s': %" G_GUINT64_FORMAT " bytes is over the limit of %llu", filename,
                           size_bytes, IMAGE_SIZE_MAX);
    g_autoptr(JsonObject) left = options_copy(options);
    g_autofree void *parsed = g_malloc0(d->create_size + 1);
    struct image_create c = {.driver = d,
                             .graph = g,
                             .filename = filename,
                             .size_bytes = size_bytes,
                             .backing_file = backing_file,
                             .backing_format = backing_format,
                             .options = parsed};
    struct image_files *own =
        g->files ? NULL : image_files_new(); /* or whoever set the graph's moves them */
    c.files = own ? own : g->files;
    bool makes_files = d->flags & DRIVER_MULTIFILE || d->kind == DRIVER_PROTOCOL;
    const char *path = filename;
    bool ok = option_parse(d->create_options, left, d->name, parsed, error) &&
              option_all_used(left, d->create_options, NULL, d->name, error) &&
              (makes_files || (path = image_files_add(c.files, filename, error))) &&
              format(&c, path, error);
    option_clear(d->create_options, parsed);
    if (own && ok)
        return image_files_commit(own, false, error); /* format() has synced what it wrote */
    if (own)
        image_files_abort(own);
    return ok;
}
