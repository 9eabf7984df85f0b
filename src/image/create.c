/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Making images: under a temporary name, synced, then moved over the final one.
 *
 * Fiber     image_create(), image_create_file(); the target's functions are plain system calls.
 * Errors    Sentences; a failure leaves what was there.
 */
#include "image/graph.h"
#include "image/lock.h"

#include "base/fd.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct image_target {
    char *final;    /* symbolic links resolved */
    char *path;     /* where it is written; the same as final: in place */
    bool in_place;
    struct image_target *next; /* of those that are written now */
};
/* What an interrupted program has to remove. Home thread. */
static struct image_target *live_targets;

/* Who has the file open would go on with the old one: refused. */
static bool not_in_use(const char *path, GError **error)
{
    autofd fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || ruche_error_errno(error, errno, "'%s' cannot be overwritten", path);
    return image_lock(fd, path, true, false, error);
}

static char *resolve_links(const char *path)
{
    char *real = realpath(path, NULL);
    char *copy = real ? g_strdup(real) : g_strdup(path);
    free(real);
    return copy;
}

static char *temporary_name(const char *final)
{
    const char *slash = strrchr(final, '/');
    int folder = slash ? (int)(slash - final) + 1 : 0;
    return g_strdup_printf("%.*s.%s.%d.%08x.part", folder, final, final + folder, getpid(), g_random_int());
}

struct image_target *image_target_new(const char *filename, GError **error)
{
    struct stat st;
    const char *path = g_str_has_prefix(filename, "file:") ? filename + 5 : filename;
    bool local = !g_str_has_prefix(filename, "json:") && (path != filename || !driver_of_scheme(filename));
    bool on_its_way = image_target_final(path) != path; /* a target's own file: it gets no second name */
    struct image_target *t = g_new0(struct image_target, 1);
    t->final = local ? resolve_links(path) : g_strdup(filename);
    bool exists = local && stat(t->final, &st) == 0;
    t->in_place = !local || on_its_way || (exists && !S_ISREG(st.st_mode));
    if (local && exists && S_ISDIR(st.st_mode)) {
        ruche_error(error, RUCHE_ERR_INVALID, "'%s' is a directory", path);
        image_target_abort(t);
        return NULL;
    }
    if (!t->in_place && exists && !not_in_use(t->final, error)) {
        t->in_place = true;
        t->path = g_strdup(t->final);
        image_target_abort(t);
        return NULL;
    }
    t->path = t->in_place ? g_strdup(t->final) : temporary_name(t->final);
    if (t->in_place)
        return t;
    int fd = open(t->path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, exists ? st.st_mode & 0777 : 0644);
    if (fd < 0 && exists && (errno == EACCES || errno == EROFS || errno == EPERM)) {
        /* a file that we may write, in a folder that we may not */
        t->in_place = true;
        g_free(t->path);
        t->path = g_strdup(t->final);
        return t;
    }
    if (fd < 0) {
        ruche_error_errno(error, errno, "'%s' cannot be created", path);
        t->in_place = true;
        image_target_abort(t);
        return NULL;
    }
    if (exists && fchown(fd, st.st_uid, st.st_gid) < 0 && geteuid() == 0) {
        ruche_error_errno(error, errno, "'%s': its owner cannot be kept", path);
        close(fd);
        image_target_abort(t);
        return NULL;
    }
    close(fd);
    t->next = live_targets;
    live_targets = t;
    return t;
}

const char *image_target_path(const struct image_target *t)
{
    return t->path;
}

const char *image_target_final(const char *path)
{
    for (const struct image_target *t = live_targets; t; t = t->next) {
        if (!strcmp(t->path, path))
            return t->final;
    }
    return path;
}

static void target_free(struct image_target *t)
{
    for (struct image_target **at = &live_targets; *at; at = &(*at)->next) {
        if (*at == t) {
            *at = t->next;
            break;
        }
    }
    g_free(t->final);
    g_free(t->path);
    g_free(t);
}

static void sync_folder(const char *path)
{
    autofd fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        fsync(fd);
}

bool image_target_commit(struct image_target *t, bool sync, GError **error)
{
    if (!t->in_place) {
        g_autofree char *folder = g_path_get_dirname(t->final);
        if (rename(t->path, t->final) < 0) {
            ruche_error_errno(error, errno, "'%s' cannot be put in place", t->final);
            image_target_abort(t);
            return false;
        }
        if (sync)
            sync_folder(folder);
    }
    target_free(t);
    return true;
}

void image_target_abort(struct image_target *t)
{
    if (!t)
        return;
    if (!t->in_place && t->path)
        unlink(t->path);
    target_free(t);
}

void image_target_abort_all(void)
{
    while (live_targets)
        image_target_abort(live_targets);
}

/* ---- files and images ---- */

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
    if (!strcmp(driver, "file") &&
        !make_empty_file(json_object_get_string_member(o, "filename"), error))
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
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "images of format %s cannot be created", d->name);
    if (size_bytes > IMAGE_SIZE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s': %" G_GUINT64_FORMAT " bytes is over the limit of %llu",
                           filename, size_bytes, IMAGE_SIZE_MAX);
    g_autoptr(JsonObject) left = options_copy(options);
    g_autofree void *parsed = g_malloc0(d->create_size + 1);
    struct image_create c = { .driver = d, .graph = g, .filename = filename, .size_bytes = size_bytes,
                              .backing_file = backing_file, .backing_format = backing_format,
                              .options = parsed };
    bool whole = !(d->flags & DRIVER_MULTIFILE) && d->kind != DRIVER_PROTOCOL;
    struct image_target *t = NULL;
    bool ok = option_parse(d->create_options, left, d->name, parsed, error) &&
              option_all_used(left, d->create_options, NULL, d->name, error);
    if (ok && whole)
        ok = (t = image_target_new(filename, error)) != NULL;
    ok = ok && format(&c, t ? image_target_path(t) : filename, error);
    option_clear(d->create_options, parsed);
    if (t && ok)
        return image_target_commit(t, false, error); /* format() has synced what it wrote */
    image_target_abort(t);
    return ok;
}
