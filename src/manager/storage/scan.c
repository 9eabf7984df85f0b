/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is in a pool: files and folders of its folder, or what its backend finds, as volumes; how much room
 * there is.
 *
 * A worker reads the folder and the first bytes of each file (volume_head.c), which tell all of raw and of qcow2.
 * Other images are then shown to ruche-img, IMG_AT_ONCE programs at a time; a file that has not
 * changed since the last look is not asked about again.
 *
 * Thread    Workers for files, the loop thread for the table.
 * Trust     Files are hostile. Only first bytes are read here; a program that fails, takes too
 *           long or says too much costs its file the details, nothing else.
 */
#include "base/fd.h"
#include "base/log.h"
#include "manager/image_info.h"
#include "manager/storage/storage_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>

struct folder_scan {
    char *target, *name; /* name: only this file */
    GPtrArray *found;    /* struct volume, owned until they are taken */
    GHashTable *known;   /* as the last look left them: figures only; NULL: look at all */
    struct pool_figures figures;
    bool with_volumes, ok;
    GError *error;
};

enum { SETTLED_S = 2 };

static void take_file(struct volume *v, const struct stat *st)
{
    v->capacity = v->physical = (uint64_t)st->st_size;
    v->allocation = (uint64_t)st->st_blocks * 512;
}

/* NULL: no file or folder, or one that cannot be opened inside of the pool. Worker. */
static struct volume *look_at(int dir, const char *target, const char *name)
{
    struct stat st;
    autofd fd = pool_fs_open(dir, name, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
        return NULL;
    bool is_dir = S_ISDIR(st.st_mode);
    struct volume *v = g_new0(struct volume, 1);
    v->name = g_strdup(name);
    v->path = g_build_filename(target, name, NULL);
    v->type = is_dir ? VOLUME_DIR : VOLUME_FILE;
    volume_take_stat(v, &st);
    if (is_dir)
        v->format = g_strdup("dir");
    else
        take_file(v, &st);
    if (!is_dir)
        volume_read_head(v, fd);
    return v;
}

/* Since it was looked at; what changed in the seconds before that may have changed again unnoticed.
 */
static bool is_unchanged(const struct volume *v, const struct volume *old)
{
    return old && old->ctime.tv_sec + SETTLED_S < old->looked_s && old->device == v->device &&
           old->inode == v->inode && old->physical == v->physical &&
           !memcmp(&old->mtime, &v->mtime, sizeof(v->mtime)) &&
           !memcmp(&old->ctime, &v->ctime, sizeof(v->ctime));
}

/* A file as the last look left it is not opened again: what it holds is copied later, without
 * format now. */
static struct volume *look_again(struct folder_scan *s, int fd, const char *name)
{
    const struct volume *old = s->known ? g_hash_table_lookup(s->known, name) : NULL;
    struct stat st;
    if (!old || fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
        return NULL;
    struct volume *v = g_new0(struct volume, 1);
    volume_take_stat(v, &st);
    take_file(v, &st);
    if (!is_unchanged(v, old)) {
        g_free(v);
        return NULL;
    }
    v->looked_s = old->looked_s;
    v->name = g_strdup(name);
    v->path = g_build_filename(s->target, name, NULL);
    return v;
}

static void read_entries(struct folder_scan *s, int fd)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *e;
    if (!dir) {
        s->ok = ruche_error_errno(&s->error, errno, "cannot read folder '%s'", s->target);
        fd_close_keep_errno(copy);
        return;
    }
    while (s->found->len < VOLUMES_MAX && (e = readdir(dir))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
            g_str_has_prefix(e->d_name, STAGE_PREFIX) || !volume_name_can_be_told(e->d_name))
            continue;
        struct volume *v = look_again(s, fd, e->d_name);
        if (!v)
            v = look_at(fd, s->target, e->d_name);
        if (v)
            g_ptr_array_add(s->found, v);
    }
    closedir(dir);
}

static void read_figures_of(struct pool_figures *ret, int fd)
{
    struct statvfs f;
    struct stat st;
    if (fstatvfs(fd, &f) == 0) {
        ret->capacity = (uint64_t)f.f_frsize * f.f_blocks;
        ret->allocation = ret->capacity - (uint64_t)f.f_frsize * f.f_bfree;
        ret->available = (uint64_t)f.f_frsize * (geteuid() == 0 ? f.f_bfree : f.f_bavail);
    }
    if (fstat(fd, &st) == 0)
        ret->perms = (struct file_perms){(int)(st.st_mode & 07777), st.st_uid, st.st_gid};
}

void look_at_folder(struct look *l, int dir)
{
    l->figures = (struct pool_figures){.perms = NO_PERMS};
    read_figures_of(&l->figures, dir);
    l->seen = true;
}

void look_at_file(struct look *l, int dir, const char *target, const char *name)
{
    look_at_folder(l, dir);
    l->volume = look_at(dir, target, name);
}

static void scan_folder(void *opaque)
{
    struct folder_scan *s = opaque;
    autofd fd = pool_fs_open_dir(s->target, &s->error);
    s->ok = fd >= 0;
    if (!s->ok)
        return;
    read_figures_of(&s->figures, fd);
    if (s->name) {
        struct volume *v = look_at(fd, s->target, s->name);
        if (v)
            g_ptr_array_add(s->found, v);
    } else if (s->with_volumes) {
        stage_clean(fd);
        read_entries(s, fd);
    }
}

/* ---- details of one image ---- */

static bool needs_asking(const struct volume *v)
{
    static const char *const known[] = {"raw", "iso", "dir", "qcow2", NULL};
    return !g_strv_contains(known, v->format);
}

static void take_details(struct volume *v, const struct volume *old)
{
    g_free(v->format);
    v->format = g_strdup(old->format);
    v->backing = g_strdup(old->backing);
    v->backing_format = g_strdup(old->backing_format);
    v->capacity = old->capacity;
    v->encrypted = old->encrypted;
    v->compat = g_strdup(old->compat);
    v->cluster_size = old->cluster_size;
    v->lazy_refcounts = old->lazy_refcounts;
    v->extended_l2 = old->extended_l2;
}

static void ask_about(struct volume *v)
{
    g_auto(image_info_list) list = NULL;
    g_autoptr(GError) error = NULL;
    if (!image_info_ask(v->path, NULL, 0, IMG_INFO_MS, &list, &error)) {
        log_info("volume '%s': %s", v->path, error->message);
        return;
    }
    const struct image_info *i = &list[0];
    if (volume_name_can_be_told(i->format) && strlen(i->format) < 32) {
        g_free(v->format);
        v->format = g_strdup(i->format);
    }
    v->capacity = i->virtual_size;
    v->encrypted = i->encrypted;
    if (!i->backing || i->backing[0] != '/' || strlen(i->backing) >= PATH_MAX ||
        !volume_name_can_be_told(i->backing))
        return;
    v->backing = g_strdup(i->backing);
    v->backing_format = g_strdup(
        i->backing_format && volume_name_can_be_told(i->backing_format) ? i->backing_format : NULL);
}

struct questions {
    GPtrArray *volumes; /* borrowed */
    unsigned next, tasks;
    struct task_event done;
};

static void asker(void *opaque)
{
    struct questions *q = opaque;
    while (q->next < q->volumes->len)
        ask_about(q->volumes->pdata[q->next++]);
    if (!--q->tasks)
        task_event_happen(&q->done);
}

static void ask_about_all(GPtrArray *volumes)
{
    struct questions q = {.volumes = volumes, .tasks = MIN(volumes->len, IMG_AT_ONCE)};
    if (!q.tasks)
        return;
    for (unsigned i = q.tasks; i > 0; i--)
        task_start(asker, &q);
    task_event_wait(&q.done, -1);
}

/* Those that are not known from the last look are asked about. */
static void complete_volumes(struct pool *p, GPtrArray *found)
{
    g_autoptr(GPtrArray) ask = g_ptr_array_new();
    for (unsigned i = 0; i < found->len; i++) {
        struct volume *v = found->pdata[i], *old = g_hash_table_lookup(p->volumes, v->name);
        if (!v->format && !old) { /* gone from the table since: looked at with the next refresh */
            v->format = g_strdup("raw");
            v->looked_s = 0;
        } else if (!v->format || (needs_asking(v) && is_unchanged(v, old))) {
            take_details(v, old);
        } else if (needs_asking(v))
            g_ptr_array_add(ask, v);
    }
    ask_about_all(ask);
}

/* ---- folders ---- */

static void folder_scan_free(void *opaque)
{
    struct folder_scan *s = opaque;
    g_ptr_array_set_free_func(s->found, (GDestroyNotify)volume_free);
    g_ptr_array_unref(s->found);
    g_clear_pointer(&s->known, g_hash_table_unref);
    g_free(s->target);
    g_free(s->name);
    g_clear_error(&s->error);
    g_free(s);
}

/* What a worker may know of the volumes. */
static GHashTable *known_volumes(const struct pool *p)
{
    GHashTable *known = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    GHashTableIter it;
    const struct volume *v;
    g_hash_table_iter_init(&it, p->volumes);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&v)) {
        struct volume *copy = g_new0(struct volume, 1);
        if (v->type != VOLUME_FILE || v->building || !v->format) {
            g_free(copy);
            continue;
        }
        copy->device = v->device;
        copy->inode = v->inode;
        copy->physical = v->physical;
        copy->mtime = v->mtime;
        copy->ctime = v->ctime;
        copy->looked_s = v->looked_s;
        g_hash_table_replace(known, g_strdup(v->name), copy);
    }
    return known;
}

/* NULL with *error. A server that does not answer costs REACH_MS and a thread that waits for it. */
static struct folder_scan *run_scan(struct pool *p, const char *name, bool with_volumes,
                                    GError **error)
{
    struct folder_scan *s = g_new0(struct folder_scan, 1);
    s->target = g_strdup(p->def->target);
    s->name = g_strdup(name);
    s->found = g_ptr_array_new();
    s->with_volumes = with_volumes;
    s->known = with_volumes ? known_volumes(p) : NULL;
    s->figures.perms = NO_PERMS;
    g_autofree char *what =
        g_strdup_printf("folder '%s' of storage pool '%s'", p->def->target, p->name);
    if (!storage_work(p, scan_folder, s, folder_scan_free, REACH_MS * (with_volumes ? 3 : 1), what,
                      error))
        return NULL;
    if (s->ok)
        return s;
    g_propagate_error(error, g_steal_pointer(&s->error));
    folder_scan_free(s);
    return NULL;
}

static void put_all(GHashTable *volumes, GPtrArray *found)
{
    for (unsigned i = 0; i < found->len; i++) {
        struct volume *v = found->pdata[i];
        g_hash_table_replace(volumes, v->name, v);
    }
    g_ptr_array_set_size(found, 0);
}

bool folder_pool_scan(struct pool *p, GHashTable *found, struct pool_figures *ret_figures,
                      GError **error)
{
    bool remote = p->backend->needs & POOL_NEEDS_HOST; /* does it answer at all? */
    struct folder_scan *s = run_scan(p, NULL, found && !remote, error);
    if (s && found && remote) {
        folder_scan_free(s);
        s = run_scan(p, NULL, true, error);
    }
    if (!s)
        return false;
    *ret_figures = s->figures;
    if (found)
        put_all(found, s->found);
    folder_scan_free(s);
    return true;
}

/* ---- the pool ---- */

static void take_figures(struct pool *p, const struct pool_figures *f)
{
    p->capacity = f->capacity;
    p->allocation = f->allocation;
    p->available = f->available;
    p->real_perms = f->perms;
    if (pool_runs(p))
        pool_watch(p);
}

static GHashTable *volume_table(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)volume_free);
}

bool pool_scan_figures(struct pool *p, GError **error)
{
    struct pool_figures f = {.perms = NO_PERMS};
    bool files = p->backend->can & POOL_FILES;
    g_autoptr(GHashTable) found = files ? NULL : volume_table();
    if (!p->backend->scan(p, found, &f, error))
        return false;
    take_figures(p, &f);
    return true;
}

/* What only we know of volumes; copies from them may have begun while the pool was looked through. */
static void keep_own(GHashTable *before, GHashTable *now)
{
    GHashTableIter it;
    struct volume *v;
    g_hash_table_iter_init(&it, before);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&v)) {
        struct volume *same = g_hash_table_lookup(now, v->name);
        if (!same && (v->in_use || v->building)) { /* whoever is at it takes it away */
            g_hash_table_iter_steal(&it);
            g_hash_table_insert(now, v->name, v);
        }
        if (!same)
            continue;
        same->building = v->building;
        same->in_use = v->in_use;
        if (same->encrypted)
            same->secret = g_steal_pointer(&v->secret);
    }
}

bool pool_scan(struct pool *p, GError **error)
{
    struct pool_figures f = {.perms = NO_PERMS};
    g_autoptr(GHashTable) found = volume_table();
    if (!p->backend->scan(p, found, &f, error))
        return false;
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    GHashTableIter it;
    gpointer v;
    g_hash_table_iter_init(&it, found);
    while (g_hash_table_iter_next(&it, NULL, &v))
        g_ptr_array_add(all, v);
    if (!(p->backend->can & POOL_REMOTE))
        complete_volumes(p, all);
    take_figures(p, &f);
    keep_own(p->volumes, found);
    g_hash_table_unref(p->volumes);
    p->volumes = g_steal_pointer(&found);
    return true;
}

/* The volume as it is now; NULL: not there, or *error. Who looks for a device sees the pool's figures, too. */
static struct volume *look_for(struct pool *p, const char *name, GError **error)
{
    struct volume *v = NULL;
    if (p->backend->can & POOL_FILES) {
        struct folder_scan *s = run_scan(p, name, false, error);
        if (s && s->found->len)
            v = g_ptr_array_steal_index(s->found, 0);
        if (s)
            folder_scan_free(s);
        return v;
    }
    struct pool_figures f = {.perms = NO_PERMS};
    g_autoptr(GHashTable) found = volume_table();
    if (!p->backend->scan(p, found, &f, error))
        return NULL;
    g_hash_table_steal_extended(found, name, NULL, (gpointer *)&v);
    take_figures(p, &f);
    return v;
}

/* `known`: it was in the table when the look began; one that is not any more was deleted meanwhile. */
static bool take_volume(struct pool *p, const char *own, struct volume *v, bool known,
                        GError **error)
{
    struct volume *old = g_hash_table_lookup(p->volumes, own);
    if (!v) {
        if (old && !old->in_use && !old->building)
            g_hash_table_remove(p->volumes, own);
        return ruche_error(error, MANAGER_ERR_NO_VOLUME, "no storage vol with matching name '%s'",
                           own);
    }
    g_autoptr(GPtrArray) one = g_ptr_array_new();
    g_ptr_array_add(one, v);
    if (!(p->backend->can & POOL_REMOTE))
        complete_volumes(p, one);
    if (!pool_runs(p)) { /* we have waited */
        volume_free(v);
        return pool_check_active(p, error);
    }
    old = g_hash_table_lookup(p->volumes, own);
    if (known && !old) {
        volume_free(v);
        return ruche_error(error, MANAGER_ERR_NO_VOLUME, "no storage vol with matching name '%s'",
                           own);
    }
    if (old) {
        v->in_use = old->in_use;
        v->secret = v->encrypted ? g_steal_pointer(&old->secret) : NULL;
        v->building = old->building;
    }
    g_hash_table_replace(p->volumes, v->name, v);
    return true;
}

bool volume_scan(struct pool *p, const char *name, GError **error)
{
    g_autofree char *own = g_strdup(name);
    GError *why = NULL;
    bool known = g_hash_table_contains(p->volumes, own);
    struct volume *v = look_for(p, own, &why);
    if (!v && why) {
        g_propagate_error(error, why);
        return false;
    }
    return take_volume(p, own, v, known, error);
}

bool look_take_figures(struct look *l, struct pool *p)
{
    if (!l->seen)
        return false;
    take_figures(p, &l->figures);
    return true;
}

bool look_take(struct look *l, struct pool *p, const char *name, GError **error)
{
    if (!look_take_figures(l, p))
        return volume_scan(p, name, error);
    return take_volume(p, name, g_steal_pointer(&l->volume), false, error);
}
