/* SPDX-License-Identifier: GPL-2.0-or-later */
/* New files that appear together: each is written under a temporary name beside its final one, and
 * moved when all of them are whole.
 *
 * Order     An image that is to be replaced by one of several files goes out of sight first, then
 *           the files that the new one names are moved, then the one that names them. So what
 * stands under the image's name never is a mixture. Former files are kept until all is done. Thread
 * The one that makes the image; plain system calls, between two of which no other fiber runs.
 * Errors    Sentences; a failure leaves what was there.
 */
#include "image/graph.h"
#include "base/image_lock.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct new_file {
    char *name;  /* as the user, or an image, says it */
    char *final; /* the same with symbolic links resolved */
    char *path;  /* where it is written; the same as final: in place */
    bool in_place;
    bool replaces; /* there is a file of that name */
    bool swapped;  /* what was there is at `path` now */
};

struct image_files {
    GPtrArray *files; /* struct new_file; the first one names the others */
    char *aside;      /* where a former image is while files are moved, or NULL */
    struct image_files *next;
};
/* What an interrupted program has to remove. */
static struct image_files *live;
static pthread_mutex_t live_lock =
    PTHREAD_MUTEX_INITIALIZER; /* a leaf; jobs make images on I/O threads */

static void file_free(void *opaque)
{
    struct new_file *f = opaque;
    g_free(f->name);
    g_free(f->final);
    g_free(f->path);
    g_free(f);
}

struct image_files *image_files_new(void)
{
    struct image_files *s = g_new0(struct image_files, 1);
    s->files = g_ptr_array_new_with_free_func(file_free);
    pthread_mutex_lock(&live_lock);
    s->next = live;
    live = s;
    pthread_mutex_unlock(&live_lock);
    return s;
}

static void files_free(struct image_files *s)
{
    pthread_mutex_lock(&live_lock);
    struct image_files **at = &live;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    pthread_mutex_unlock(&live_lock);
    g_ptr_array_unref(s->files);
    g_free(s->aside);
    g_free(s);
}

static struct new_file *file_at(const struct image_files *s, unsigned i)
{
    return s->files->pdata[i];
}

/* ---- one more ---- */

/* Who has the file open would go on with the old one: refused. */
static bool not_in_use(const char *path, GError **error)
{
    autofd fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ||
               ruche_error_errno(error, errno, "'%s' cannot be overwritten", path);
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
    return g_strdup_printf("%.*s.%.200s.%d.%08x.part", folder, final, final + folder, getpid(),
                           g_random_int());
}

static bool is_local(const char *filename, const char **ret_path)
{
    *ret_path = g_str_has_prefix(filename, "file:") ? filename + 5 : filename;
    return !g_str_has_prefix(filename, "json:") &&
           (*ret_path != filename || !driver_has_scheme(filename));
}

/* An empty file at f->path, with the owner and the rights of the one that it replaces. */
static bool make_file(struct new_file *f, const struct stat *old, GError **error)
{
    autofd fd = open(f->path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC,
                     f->replaces ? old->st_mode & 0777 : 0644);
    if (fd < 0 && f->replaces && (errno == EACCES || errno == EROFS || errno == EPERM)) {
        /* a file that we may write, in a folder that we may not */
        f->in_place = true;
        g_free(f->path);
        f->path = g_strdup(f->final);
        return true;
    }
    if (fd < 0)
        return ruche_error_errno(error, errno, "'%s' cannot be created", f->name);
    if (f->replaces && fchown(fd, old->st_uid, old->st_gid) < 0 && geteuid() == 0) {
        unlink(f->path);
        return ruche_error_errno(error, errno, "'%s': its owner cannot be kept", f->name);
    }
    return true;
}

static bool prepare(struct new_file *f, const char *filename, bool ours, GError **error)
{
    struct stat st;
    const char *path;
    bool local = is_local(filename, &path);
    f->name = g_strdup(path);
    f->final = local ? resolve_links(path) : g_strdup(filename);
    bool exists = local && stat(f->final, &st) == 0;
    if (exists && S_ISDIR(st.st_mode))
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is a directory", path);
    f->in_place = !local || (exists && !S_ISREG(st.st_mode));
    f->replaces = exists && !f->in_place;
    f->path = f->in_place ? g_strdup(f->final) : temporary_name(f->final);
    return f->in_place ||
           ((!exists || ours || not_in_use(f->final, error)) && make_file(f, &st, error));
}

static const char *add(struct image_files *s, const char *filename, bool ours, GError **error)
{
    struct new_file *f = g_new0(struct new_file, 1);
    if (!prepare(f, filename, ours, error)) {
        file_free(f);
        return NULL;
    }
    for (unsigned i = 0; i < s->files->len; i++) {
        if (strcmp(file_at(s, i)->final, f->final))
            continue;
        ruche_error(error, RUCHE_ERR_INVALID, "'%s' would be two files of the same image", f->name);
        if (!f->in_place)
            unlink(f->path);
        file_free(f);
        return NULL;
    }
    g_ptr_array_add(s->files, f);
    return f->path;
}

const char *image_files_add(struct image_files *s, const char *filename, GError **error)
{
    return add(s, filename, false, error);
}

const char *image_files_replace(struct image_files *s, const char *filename, GError **error)
{
    return add(s, filename, true, error);
}

static bool is_same_name(const char *a, const char *b)
{
    g_autofree char *one = g_canonicalize_filename(a, NULL),
                    *two = g_canonicalize_filename(b, NULL);
    return !strcmp(one, two);
}

const char *graph_place(const struct graph *g, const char *path)
{
    for (unsigned i = 0; g->files && i < g->files->files->len; i++) {
        const struct new_file *f = file_at(g->files, i);
        if (is_same_name(f->name, path) || is_same_name(f->final, path))
            return f->path;
    }
    return path;
}

void graph_set_files(struct graph *g, struct image_files *files)
{
    g->files = files;
}

/* ---- the end ---- */

static void sync_folder_of(const char *path)
{
    g_autofree char *folder = g_path_get_dirname(path);
    autofd fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        fsync(fd);
}

/* `keep`: what is there stays at hand. */
static bool move_file(struct new_file *f, bool keep, GError **error)
{
    if (f->in_place)
        return true;
    if (keep && f->replaces)
        f->swapped = renameat2(AT_FDCWD, f->path, AT_FDCWD, f->final, RENAME_EXCHANGE) == 0;
    if (f->swapped || rename(f->path, f->final) == 0)
        return true;
    return ruche_error_errno(error, errno, "'%s' cannot be put in place", f->final);
}

/* The files 1 to `end` - 1 go back to where they were; the first one is not moved yet. */
static void move_back(struct image_files *s, unsigned end)
{
    for (unsigned i = 1; i < end; i++) {
        struct new_file *f = file_at(s, i);
        if (f->swapped)
            renameat2(AT_FDCWD, f->path, AT_FDCWD, f->final, RENAME_EXCHANGE);
        else if (!f->in_place)
            unlink(f->final);
    }
    if (s->aside)
        rename(s->aside, file_at(s, 0)->final);
}

/* An image whose files are about to be replaced. */
static bool put_aside(struct image_files *s, GError **error)
{
    const struct new_file *first = file_at(s, 0);
    bool replaces = false;
    for (unsigned i = 1; i < s->files->len; i++)
        replaces = replaces || file_at(s, i)->replaces;
    if (!replaces || !first->replaces || first->in_place)
        return true;
    char *aside = temporary_name(first->final);
    if (rename(first->final, aside) == 0) {
        s->aside = aside;
        return true;
    }
    g_free(aside);
    return ruche_error_errno(error, errno, "'%s' cannot be replaced", first->final);
}

static bool move_all(struct image_files *s, bool sync, GError **error)
{
    unsigned count = s->files->len;
    if (!count)
        return true;
    if (!put_aside(s, error))
        return false;
    for (unsigned i = 1; i < count; i++) {
        if (!move_file(file_at(s, i), true, error)) {
            move_back(s, i);
            return false;
        }
    }
    if (count > 1)
        sync_folder_of(file_at(s, 1)->final);
    if (!move_file(file_at(s, 0), false, error)) {
        move_back(s, count);
        return false;
    }
    if (sync)
        sync_folder_of(file_at(s, 0)->final);
    return true;
}

static void remove_former(const struct image_files *s)
{
    for (unsigned i = 0; i < s->files->len; i++) {
        if (file_at(s, i)->swapped)
            unlink(file_at(s, i)->path);
    }
    if (s->aside)
        unlink(s->aside);
}

bool image_files_commit(struct image_files *s, bool sync, GError **error)
{
    if (!move_all(s, sync, error)) {
        image_files_abort(s);
        return false;
    }
    remove_former(s);
    files_free(s);
    return true;
}

bool image_files_abort(struct image_files *s)
{
    bool clean = true;
    for (unsigned i = 0; i < s->files->len; i++) {
        const struct new_file *f = file_at(s, i);
        if (f->in_place)
            clean = false;
        else
            unlink(f->path);
    }
    files_free(s);
    return clean;
}

void image_files_abort_all(void)
{
    while (live)
        image_files_abort(live);
}
