/* SPDX-License-Identifier: GPL-2.0-or-later */
/* New volumes: empty ones, ones on a backing store, and ones from another volume. They are made in
 * a folder that is no volume, and move to their name when all is well: a manager that is killed
 * leaves nothing that looks like a volume.
 *
 * Spec      libvirt's virStorageVolCreateXML, virStorageVolCreateXMLFrom.
 * Thread    The loop thread, in a task. The pool is not locked while the image is made: its volume
 *           is "building".
 */
#include "base/fd.h"
#include "manager/storage/volume_maker.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>

/* ---- on workers ---- */

static void set_nocow(int fd)
{
    int flags;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
        flags |= FS_NOCOW_FL;
        ioctl(fd, FS_IOC_SETFLAGS, &flags); /* only btrfs knows it */
    }
}

static bool copy_origin(struct maker *m, int fd)
{
    autofd dir = pool_fs_open_dir(m->from.target, &m->error);
    autofd from = dir < 0 ? -1 : pool_fs_open(dir, m->from.name, O_RDONLY);
    if (dir >= 0 && from < 0)
        ruche_error_errno(&m->error, errno, "cannot open volume '%s'", m->from.path);
    return from >= 0 && clone_raw(from, fd, m->flags & REFLINK, m->job, &m->error);
}

/* Asked for before it is begun: a disk that was filled up half way helps nobody. */
static bool allocate(struct maker *m, int fd, uint64_t bytes)
{
    struct statvfs f;
    bool fits = fstatvfs(fd, &f) < 0 || bytes <= (uint64_t)f.f_frsize * f.f_bfree;
    if (fits && (!bytes || fallocate(fd, 0, 0, (off_t)bytes) == 0))
        return true;
    if (fits && errno == EOPNOTSUPP && posix_fallocate(fd, 0, (off_t)bytes) == 0)
        return true;
    return ruche_error(&m->error, RUCHE_ERR_NO_SPACE,
                       "volume '%s': no room for %" PRIu64 " bytes in '%s'", m->def.name, bytes,
                       m->target);
}

/* An allocation that is not given is all of it, as with libvirt. */
static bool fill_file(struct maker *m, int fd)
{
    const struct volume_def *d = &m->def;
    if (m->from.pool && !copy_origin(m, fd))
        return false;
    if (strcmp(d->format, "raw") != 0 || d->encrypted)
        return true;
    struct stat st;
    if (fstat(fd, &st) < 0 ||
        (d->capacity > (uint64_t)st.st_size && ftruncate(fd, (off_t)d->capacity) < 0))
        return ruche_error_errno(&m->error, errno, "volume '%s': cannot have %" PRIu64 " bytes",
                                 d->name, d->capacity);
    return m->from.pool || allocate(m, fd, MIN(d->allocation, d->capacity));
}

static struct file_perms wanted_perms(const struct maker *m)
{
    struct file_perms perms = m->def.perms;
    if (perms.mode < 0)
        perms.mode = DEFAULT_MODE;
    return perms;
}

/* A plain file, in one go, where the file system has files without a name; else *ret_done stays
 * false. */
static bool make_at_once(struct maker *m, bool *ret_done)
{
    autofd dir = pool_fs_open_dir(m->target, &m->error);
    if (dir < 0)
        return false;
    struct file_perms perms = wanted_perms(m);
    autofd fd = nameless_open(dir, perms.mode & 0777);
    if (fd < 0)
        return true;
    *ret_done = true;
    if (m->def.nocow)
        set_nocow(fd);
    if (!fill_file(m, fd) || !pool_fs_apply(fd, m->def.name, &perms, &m->error) ||
        !nameless_publish(dir, fd, m->def.name, &m->error))
        return false;
    look_at_file(&m->look, dir, m->target, m->def.name);
    return true;
}

static void begin(void *opaque)
{
    struct maker *m = opaque;
    bool plain = maker_copies_bytes(m)
                     ? !strcmp(m->def.format, "raw")
                     : !m->from.pool && !m->def.encrypted && !strcmp(m->def.format, "raw");
    m->ok = !plain || make_at_once(m, &m->done);
    if (!m->ok || m->done)
        return;
    m->ok = stage_open(&m->stage, m->target, &m->error);
    if (!m->ok)
        return;
    if (m->def.nocow)
        set_nocow(m->stage.fd); /* what is made in it is as it is */
    m->path = g_strdup_printf("%s/%s/%s", m->target, m->stage.name, m->def.name);
    if (!maker_copies_bytes(m) &&
        (m->from.pool || m->def.encrypted || strcmp(m->def.format, "raw") != 0))
        return; /* ruche-img's turn */
    autofd fd = openat(m->stage.fd, m->def.name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                       DEFAULT_MODE);
    if (fd < 0) {
        m->ok = ruche_error_errno(&m->error, errno, "cannot make volume '%s'", m->def.name);
        return;
    }
    if (m->def.nocow)
        set_nocow(fd);
    m->ok = fill_file(m, fd);
}

static void publish(void *opaque)
{
    struct maker *m = opaque;
    struct file_perms perms = wanted_perms(m);
    autofd fd = openat(m->stage.fd, m->def.name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    m->ok = fd >= 0 ? pool_fs_apply(fd, m->def.name, &perms, &m->error)
                    : ruche_error_errno(&m->error, errno, "volume '%s' was not made", m->def.name);
    m->ok = m->ok && stage_publish(&m->stage, m->def.name, &m->error);
    if (m->ok)
        look_at_file(&m->look, m->stage.pool_fd, m->target, m->def.name);
    stage_close(&m->stage);
}

static void end(void *opaque)
{
    struct maker *m = opaque;
    stage_close(&m->stage);
}

static bool on_worker(struct maker *m, void (*fn)(void *opaque), GError **error)
{
    task_work_long(fn, m);
    if (m->error)
        g_propagate_error(error, g_steal_pointer(&m->error));
    return m->ok;
}

static bool make_image(struct maker *m, GError **error)
{
    bool ok = on_worker(m, begin, error);
    if (ok && m->done)
        return true;
    ok = ok && maker_run_tool(m, error) && on_worker(m, publish, error);
    if (m->stage.pool_fd >= 0)
        task_work(end, m);
    return ok;
}

/* ---- the operation ---- */

static void put_building(struct pool *p, const struct volume_def *d)
{
    struct volume *v = g_new0(struct volume, 1);
    v->name = g_strdup(d->name);
    v->path = g_build_filename(p->def->target ? p->def->target : p->name, d->name, NULL);
    v->format = g_strdup(d->format);
    v->capacity = d->capacity;
    v->perms = d->perms;
    v->building = true;
    g_hash_table_replace(p->volumes, v->name, v);
}

/* A header of LUKS on a device, where an encrypted volume is that; then the copy. Not locked. */
static bool fill_device(struct pool *p, struct maker *m, GError **error)
{
    if (m->def.encrypted) {
        g_autofree char *options = maker_format_options(m);
        m->def.has_capacity = true;
        if (!maker_run_create(m, options, error))
            return false;
        g_autofree char *device = m->path;
        m->path = encrypted_name(device, "raw", "key");
    } else if (p->backend->volume_url) {
        g_free(m->path);
        m->path = p->backend->volume_url(p, m->def.name);
    }
    return !m->from.pool || maker_run_convert(m, "", true, error);
}

/* The device is made while the pool is locked; what goes into it is not waited for by others. */
static bool make_device(struct pool *p, struct maker *m, GError **error)
{
    struct volume_def room = m->def;
    if (m->def.encrypted && room.capacity < UINT64_MAX - LUKS_ROOM) {
        room.capacity += LUKS_ROOM;
        room.allocation += room.allocation < room.capacity ? LUKS_ROOM : 0;
    }
    if (!p->backend->volume_create(p, &room, &m->path, error))
        return false;
    if (!m->from.pool && !m->def.encrypted)
        return true;
    g_autofree char *device = g_strdup(m->path);
    const struct volume *v = g_hash_table_lookup(p->volumes, m->def.name);
    const struct volume_extent extent = v ? v->extent : (struct volume_extent){0};
    fiber_mutex_unlock(&p->lock);
    bool ok = (p->backend->can & POOL_REMOTE ||
               device_check_free(p, "volume", device, &extent, error)) &&
              fill_device(p, m, error); /* old contents may have made somebody use it */
    fiber_mutex_lock(&p->lock);
    if (!ok && p->backend->volume_delete)
        p->backend->volume_delete(p, m->def.name, device, NULL);
    return ok;
}

static bool make_file(struct pool *p, struct maker *m, GError **error)
{
    m->target = g_strdup(p->def->target);
    fiber_mutex_unlock(&p->lock);
    bool ok = make_image(m, error);
    fiber_mutex_lock(&p->lock);
    return ok;
}

static bool do_create(struct pool *p, void *opaque, GError **error)
{
    struct maker *m = opaque;
    bool files = p->backend->can & POOL_FILES;
    if (!pool_check_active(p, error))
        return false;
    if (!files && !p->backend->volume_create)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "volumes of a pool of type '%s' cannot be created: %s", p->backend->type,
                           p->backend->summary);
    if (g_hash_table_contains(p->volumes, m->def.name))
        return ruche_error(error, RUCHE_ERR_EXISTS, "storage volume '%s' exists already",
                           m->def.name);
    put_building(p, &m->def);
    bool ok = files ? make_file(p, m, error) : make_device(p, m, error);
    g_hash_table_remove(p->volumes, m->def.name);
    if (!ok)
        return false;
    if (files ? !look_take(&m->look, p, m->def.name, error) : !pool_scan(p, error))
        return false;
    struct volume *v = volume_find(p, m->def.name, error);
    if (!v)
        return false;
    if (v->encrypted)
        v->secret = g_strdup(m->def.secret); /* looked at anew: it has none */
    return true;
}

static bool check_maker(struct maker *m, GError **error)
{
    struct volume_def *d = &m->def;
    bool qcow2 = !strcmp(d->format, "qcow2");
    if (!d->has_capacity && !m->from.pool && !d->backing)
        return ruche_error(error, RUCHE_ERR_XML, "volume '%s': element 'capacity' is missing",
                           d->name);
    if (m->flags & PREALLOC_METADATA && !qcow2)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "volume '%s': metadata is preallocated in format qcow2 only, not %s",
                           d->name, d->format);
    if (m->flags & REFLINK && !maker_copies_bytes(m))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "volume '%s': blocks are shared with a volume of the same format only",
                           d->name);
    if (m->from.pool && d->capacity < m->from.capacity)
        d->capacity = m->from.capacity; /* as libvirt: never smaller than what is copied */
    return true;
}

static bool find_origin(struct origin *o, const char *path, GError **error)
{
    if (!path)
        return true;
    struct volume *v = volume_find_path(path, &o->pool, error);
    if (!v)
        return false;
    if (v->type == VOLUME_DIR || v->type == VOLUME_NETDIR || v->building)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "volume '%s' is no image that could be copied now", v->path);
    v->in_use++;
    o->name = g_strdup(v->name);
    o->path = o->pool->backend->volume_url ? o->pool->backend->volume_url(o->pool, v->name)
                                           : g_strdup(v->path);
    o->format = g_strdup(!strcmp(v->format, "iso") ? "raw" : v->format);
    o->target = g_strdup(o->pool->def->target);
    o->is_file = v->type == VOLUME_FILE;
    o->capacity = v->capacity;
    o->encrypted = v->encrypted;
    o->key = v->encrypted ? volume_key(v, error) : NULL;
    return !v->encrypted || o->key;
}

static void drop_origin(struct origin *o)
{
    struct volume *v = o->pool && o->name ? g_hash_table_lookup(o->pool->volumes, o->name) : NULL;
    if (v && v->in_use)
        v->in_use--;
    pool_unref(o->pool);
    g_free(o->name);
    g_free(o->path);
    g_free(o->format);
    g_free(o->target);
    g_clear_pointer(&o->key, g_bytes_unref);
}

/* Pools of servers that want a password. */
static bool open_pool_keys(struct maker *m, struct pool *p, GError **error)
{
    struct pool *from = m->from.pool;
    if (p->backend->volume_url && !pool_secret_open(p, &m->pool_key, error))
        return false;
    m->pool_object = pool_secret_object(p, &m->pool_key);
    if (!from || from == p || !from->backend->volume_url)
        return true;
    if (!pool_secret_open(from, &m->from_pool_key, error))
        return false;
    m->from_pool_object = pool_secret_object(from, &m->from_pool_key);
    return true;
}

static void close_keys(struct maker *m)
{
    struct secret_file *files[] = {&m->key, &m->from_key, &m->pool_key, &m->from_pool_key};
    for (unsigned i = 0; i < G_N_ELEMENTS(files); i++)
        secret_file_close(files[i]);
    g_free(m->pool_object);
    g_free(m->from_pool_object);
}

static bool open_keys(struct maker *m, GError **error)
{
    return (!m->def.key || secret_file_open(&m->key, m->def.key, error)) &&
           (!m->from.key || secret_file_open(&m->from_key, m->from.key, error));
}

static bool check_flags(unsigned flags, bool clone, GError **error)
{
    return flags_check("create storage volume", flags,
                       PREALLOC_METADATA | VALIDATE | (clone ? REFLINK : 0), error);
}

static bool create(const struct caller *who, struct pool *p, const char *xml,
                   const char *clone_of_path, unsigned flags, struct job *j, char **ret_name,
                   GError **error)
{
    struct maker m = {.flags = flags,
                      .job = j,
                      .stage = {.pool_fd = -1, .fd = -1},
                      .key = SECRET_FILE_NONE,
                      .from_key = SECRET_FILE_NONE,
                      .pool_key = SECRET_FILE_NONE,
                      .from_pool_key = SECRET_FILE_NONE};
    if (!volume_def_parse(&m.def, p->backend, xml, flags & VALIDATE, error))
        return false;
    g_autofree char *operation = g_strdup_printf("create volume '%s' in", m.def.name);
    bool ok = find_origin(&m.from, clone_of_path, error) && check_maker(&m, error) &&
              open_keys(&m, error) && open_pool_keys(&m, p, error);
    if (ok && j && m.from.pool)
        job_step(j, "copying volume '%s' to '%s'", m.from.name, m.def.name);
    ok = ok && pool_operation(who, p, RIGHT_WRITE, operation, do_create, &m, error);
    drop_origin(&m.from);
    close_keys(&m);
    if (ok && ret_name)
        *ret_name = g_strdup(m.def.name);
    volume_def_done(&m.def);
    volume_free(m.look.volume);
    g_free(m.target);
    g_free(m.path);
    return ok;
}

/* ---- copies are jobs ---- */

struct create_call {
    struct pool *pool;
    struct caller who;
    char *xml, *from;
    unsigned flags;
};

static bool create_job(struct job *j, void *opaque, char **ret_result, GError **error)
{
    struct create_call *c = opaque;
    bool ok = create(&c->who, c->pool, c->xml, c->from, c->flags, j, ret_result, error);
    pool_unref(c->pool);
    g_free(c->who.name);
    g_free(c->xml);
    g_free(c->from);
    g_free(c);
    return ok;
}

struct job *volume_create_job(const struct caller *who, struct pool *p, const char *xml,
                              const char *clone_of_path, unsigned flags, GError **error)
{
    struct volume_def d;
    if (!access_check(who, RIGHT_WRITE, "create a storage volume", error) ||
        !check_flags(flags, clone_of_path, error) ||
        !volume_def_parse(&d, p->backend, xml, flags & VALIDATE, error))
        return NULL;
    g_autofree char *object = g_strdup_printf("volume '%s'", d.name);
    volume_def_done(&d);
    struct create_call *c = g_new(struct create_call, 1);
    *c = (struct create_call){pool_ref(p), *who, g_strdup(xml), g_strdup(clone_of_path), flags};
    c->who.name = g_strdup(who->name);
    return job_start(who, clone_of_path ? "clone" : "create", object, create_job, c);
}

bool volume_create_xml(const struct caller *who, struct pool *p, const char *xml,
                       const char *clone_of_path, unsigned flags, char **ret_name, GError **error)
{
    if (clone_of_path)
        return storage_wait(volume_create_job(who, p, xml, clone_of_path, flags, error), ret_name,
                            error);
    return access_check(who, RIGHT_WRITE, "create a storage volume", error) &&
           check_flags(flags, false, error) &&
           create(who, p, xml, NULL, flags, NULL, ret_name, error);
}
