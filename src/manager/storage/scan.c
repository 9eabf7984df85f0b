/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is in a pool's folder: its files and folders as volumes, and how much room there is.
 *
 * A worker reads the folder and the first bytes of each file, which tell all of raw and of qcow2.
 * Other images are then shown to ruche-img, IMG_AT_ONCE programs at a time; a file that has not
 * changed since the last look is not asked about again.
 *
 * Thread    Workers for files, the loop thread for the table.
 * Trust     Files are hostile. Only first bytes are read here; a program that fails, takes too
 *           long or says too much costs its file the details, nothing else.
 */
#include "base/fd.h"
#include "base/log.h"
#include "manager/storage/qcow2_head.h"
#include "manager/storage/storage_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <json-glib/json-glib.h>
#include <string.h>
#include <sys/statvfs.h>

struct magic_row {
    unsigned offset;
    const char *bytes;
    unsigned length;
    const char *format;
};
static const struct magic_row magics[] = {
    {0, "QFI\xfb", 4, "qcow2"},
    {0, "KDMV", 4, "vmdk"},
    {0, "# Disk DescriptorFile", 21, "vmdk"},
    {0, "conectix", 8, "vpc"},
    {0, "vhdxfile", 8, "vhdx"},
    {0, "LUKS\xba\xbe", 6, "luks"},
    {64, "\x7f\x10\xda\xbe", 4, "vdi"},
    {0x8001, "CD001", 5, "iso"},
};

struct folder_scan {
    const char *target;
    GPtrArray *found; /* struct volume; those to be asked about have no format yet */
    struct file_perms perms;
    uint64_t capacity, allocation, available;
    bool with_volumes, ok;
    GError *error;
};

static const char *format_by_magic(int fd)
{
    for (unsigned i = 0; i < ARRAY_COUNT(magics); i++) {
        char bytes[32];
        const struct magic_row *m = &magics[i];
        if (pread(fd, bytes, m->length, m->offset) == (ssize_t)m->length &&
            !memcmp(bytes, m->bytes, m->length))
            return m->format;
    }
    return "raw";
}

/* Names that XML cannot hold cannot be volumes. */
static bool name_can_be_told(const char *name)
{
    if (!g_utf8_validate(name, -1, NULL))
        return false;
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return false;
    return true;
}

/* A name relative to the image's folder becomes a path; a protocol's name ("nbd://...") is no path.
 */
static char *backing_path(const char *image, const char *name)
{
    const char *colon = strchr(name, ':'), *slash = strchr(name, '/');
    if (!name_can_be_told(name) || (colon && (!slash || colon < slash)))
        return NULL;
    g_autofree char *dir = g_path_get_dirname(image);
    return g_canonicalize_filename(name, dir);
}

static void read_qcow2(struct volume *v, int fd)
{
    uint8_t data[QCOW2_HEAD_BYTES];
    char name[QCOW2_BACKING_MAX + 1] = "";
    struct qcow2_head h;
    ssize_t n = pread(fd, data, sizeof(data), 0);
    if (n < 0 || qcow2_head_parse(data, (size_t)n, &h) < 0)
        return;
    v->capacity = h.capacity;
    v->cluster_size = h.cluster_size;
    v->compat = g_strdup(h.version == 2 ? "0.10" : "1.1");
    v->encrypted = h.encrypted;
    v->lazy_refcounts = h.lazy_refcounts;
    v->extended_l2 = h.extended_l2;
    if (!h.backing_bytes ||
        pread(fd, name, h.backing_bytes, (off_t)h.backing_offset) != (ssize_t)h.backing_bytes)
        return;
    v->backing = backing_path(v->path, name);
    if (v->backing && name_can_be_told(h.backing_format) && h.backing_format[0])
        v->backing_format = g_strdup(h.backing_format);
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
    v->type = is_dir ? 2 : 0;
    v->format = g_strdup(is_dir ? "dir" : format_by_magic(fd));
    v->perms = (struct file_perms){(int)(st.st_mode & 07777), st.st_uid, st.st_gid};
    v->atime = st.st_atim;
    v->mtime = st.st_mtim;
    v->ctime = st.st_ctim;
    v->device = st.st_dev;
    v->inode = st.st_ino;
    if (!is_dir) {
        v->capacity = v->physical = (uint64_t)st.st_size;
        v->allocation = (uint64_t)st.st_blocks * 512;
    }
    if (!strcmp(v->format, "qcow2"))
        read_qcow2(v, fd);
    return v;
}

static void read_figures(struct folder_scan *s, int fd)
{
    struct statvfs f;
    struct stat st;
    if (fstatvfs(fd, &f) == 0) {
        s->capacity = (uint64_t)f.f_frsize * f.f_blocks;
        s->allocation = s->capacity - (uint64_t)f.f_frsize * f.f_bfree;
        s->available = (uint64_t)f.f_frsize * (geteuid() == 0 ? f.f_bfree : f.f_bavail);
    }
    if (fstat(fd, &st) == 0)
        s->perms = (struct file_perms){(int)(st.st_mode & 07777), st.st_uid, st.st_gid};
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
            g_str_has_prefix(e->d_name, STAGE_PREFIX) || !name_can_be_told(e->d_name))
            continue;
        struct volume *v = look_at(fd, s->target, e->d_name);
        if (v)
            g_ptr_array_add(s->found, v);
    }
    closedir(dir);
}

static void scan_folder(void *opaque)
{
    struct folder_scan *s = opaque;
    autofd fd = pool_fs_open_dir(s->target, &s->error);
    s->ok = fd >= 0;
    if (!s->ok)
        return;
    read_figures(s, fd);
    if (s->with_volumes) {
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

static bool is_unchanged(const struct volume *v, const struct volume *old)
{
    return old && old->device == v->device && old->inode == v->inode &&
           old->physical == v->physical && !memcmp(&old->mtime, &v->mtime, sizeof(v->mtime)) &&
           !memcmp(&old->ctime, &v->ctime, sizeof(v->ctime));
}

static void take_details(struct volume *v, const struct volume *old)
{
    g_free(v->format);
    v->format = g_strdup(old->format);
    v->backing = g_strdup(old->backing);
    v->backing_format = g_strdup(old->backing_format);
    v->capacity = old->capacity;
    v->encrypted = old->encrypted;
}

static const char *text_of(JsonObject *o, const char *name)
{
    JsonNode *n = json_object_get_member(o, name);
    return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_STRING
               ? json_node_get_string(n)
               : NULL;
}

static uint64_t number_of(JsonObject *o, const char *name)
{
    JsonNode *n = json_object_get_member(o, name);
    gint64 v = n && JSON_NODE_HOLDS_VALUE(n) ? json_node_get_int(n) : 0;
    return v > 0 ? (uint64_t)v : 0;
}

static bool flag_of(JsonObject *o, const char *name)
{
    JsonNode *n = json_object_get_member(o, name);
    return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_boolean(n);
}

static void read_backing(struct volume *v, JsonObject *o)
{
    const char *path = text_of(o, "full-backing-filename");
    if (!path)
        path = text_of(o, "backing-filename");
    if (!path || path[0] != '/' || strlen(path) >= PATH_MAX || !name_can_be_told(path))
        return;
    v->backing = g_strdup(path);
    const char *format = text_of(o, "backing-filename-format");
    v->backing_format = g_strdup(format && name_can_be_told(format) ? format : NULL);
}

static void read_details(struct volume *v, JsonObject *o)
{
    const char *format = text_of(o, "format");
    if (format && name_can_be_told(format) && strlen(format) < 32) {
        g_free(v->format);
        v->format = g_strdup(format);
    }
    if (json_object_has_member(o, "virtual-size"))
        v->capacity = number_of(o, "virtual-size");
    v->encrypted = flag_of(o, "encrypted");
    read_backing(v, o);
}

static void ask_about(struct volume *v)
{
    const char *argv[] = {manager.img, "info", "-U", "--output=json", v->path, NULL};
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonParser) parser = json_parser_new();
    if (!task_run_program(argv, NULL, IMG_ANSWER_MAX, IMG_INFO_MS, &text, &error)) {
        log_info("volume '%s': %s", v->path, error->message);
        return;
    }
    if (!json_parser_load_from_data(parser, text, -1, NULL))
        return;
    JsonNode *root = json_parser_get_root(parser);
    if (root && JSON_NODE_HOLDS_OBJECT(root))
        read_details(v, json_node_get_object(root));
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

/* ---- the pool ---- */

static void take_figures(struct pool *p, const struct folder_scan *s)
{
    p->capacity = s->capacity;
    p->allocation = s->allocation;
    p->available = s->available;
    p->real_perms = s->perms;
}

static bool run_scan(struct pool *p, struct folder_scan *s, GError **error)
{
    g_autofree char *target = g_strdup(p->target);
    s->target = target;
    s->perms = NO_PERMS;
    task_work(scan_folder, s);
    s->target = NULL;
    if (s->error)
        g_propagate_error(error, g_steal_pointer(&s->error));
    if (s->ok)
        take_figures(p, s);
    return s->ok;
}

bool pool_scan_figures(struct pool *p, GError **error)
{
    struct folder_scan s = {0};
    return run_scan(p, &s, error);
}

static void put_volume(GHashTable *volumes, struct volume *v)
{
    g_hash_table_replace(volumes, v->name, v);
}

bool pool_scan(struct pool *p, GError **error)
{
    g_autoptr(GPtrArray) found = g_ptr_array_new(), ask = g_ptr_array_new();
    struct folder_scan s = {.found = found, .with_volumes = true};
    if (!run_scan(p, &s, error)) {
        g_ptr_array_set_free_func(found, (GDestroyNotify)volume_free);
        return false;
    }
    for (unsigned i = 0; i < found->len; i++) {
        struct volume *v = found->pdata[i], *old = g_hash_table_lookup(p->volumes, v->name);
        if (needs_asking(v) && is_unchanged(v, old))
            take_details(v, old);
        else if (needs_asking(v))
            g_ptr_array_add(ask, v);
    }
    ask_about_all(ask);
    g_hash_table_remove_all(p->volumes);
    for (unsigned i = 0; i < found->len; i++)
        put_volume(p->volumes, found->pdata[i]);
    return true;
}

struct file_look {
    const char *target, *name;
    struct volume *v;
};

static void look_at_file(void *opaque)
{
    struct file_look *l = opaque;
    autofd fd = pool_fs_open_dir(l->target, NULL);
    l->v = fd < 0 ? NULL : look_at(fd, l->target, l->name);
}

bool volume_scan(struct pool *p, const char *name, GError **error)
{
    g_autofree char *target = g_strdup(p->target), *own = g_strdup(name);
    struct file_look l = {.target = target, .name = own};
    task_work(look_at_file, &l);
    struct volume *old = g_hash_table_lookup(p->volumes, own);
    if (!l.v) {
        if (old && !old->in_use && !old->building)
            g_hash_table_remove(p->volumes, own);
        return ruche_error(error, MANAGER_ERR_NO_VOLUME, "no storage vol with matching name '%s'",
                           own);
    }
    if (needs_asking(l.v) && is_unchanged(l.v, old))
        take_details(l.v, old);
    else if (needs_asking(l.v))
        ask_about(l.v);
    if (p->state == POOL_INACTIVE) { /* we have waited */
        volume_free(l.v);
        return pool_check_active(p, error);
    }
    old = g_hash_table_lookup(p->volumes, own);
    if (old) {
        l.v->in_use = old->in_use;
        l.v->building = old->building;
    }
    put_volume(p->volumes, l.v);
    return true;
}
