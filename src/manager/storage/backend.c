/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What backends share: finding them, their programs and the packages that bring those, work with a
 * deadline. */
#include "base/log.h"
#include "manager/storage/storage_priv.h"

#include <stdarg.h>
#include <string.h>

#define ANSWER_MAX (8u << 20)

const struct pool_backend *pool_backend_find(const char *type)
{
    LINKSET_FOREACH (pool_backends, struct pool_backend, b)
        if (!strcmp(b->type, type))
            return b;
    return NULL;
}

const xmlNode *pool_root(const struct pool *p)
{
    return xmlDocGetRootElement(p->def->doc);
}

const char *pool_get(const struct pool *p, const char *path)
{
    return xml_get(pool_root(p), path);
}

/* ---- programs and packages ---- */

/* Which package has a program, by the package manager of the distribution. */
static const struct {
    const char *program, *apt, *dnf, *pacman;
} packages[] = {
    {"blkid", "util-linux", "util-linux", "util-linux"},
    {"ceph", "ceph-common", "ceph-common", "ceph"},
    {"dmsetup", "dmsetup", "device-mapper", "device-mapper"},
    {"iscsi-ls", "libiscsi-bin", "libiscsi-utils", "libiscsi"},
    {"iscsiadm", "open-iscsi", "iscsi-initiator-utils", "open-iscsi"},
    {"lvcreate", "lvm2", "lvm2", "lvm2"},
    {"lvs", "lvm2", "lvm2", "lvm2"},
    {"mkfs.btrfs", "btrfs-progs", "btrfs-progs", "btrfs-progs"},
    {"mkfs.ext2", "e2fsprogs", "e2fsprogs", "e2fsprogs"},
    {"mkfs.ext3", "e2fsprogs", "e2fsprogs", "e2fsprogs"},
    {"mkfs.ext4", "e2fsprogs", "e2fsprogs", "e2fsprogs"},
    {"mkfs.gfs2", "gfs2-utils", "gfs2-utils", "gfs2-utils"},
    {"mkfs.ocfs2", "ocfs2-tools", "ocfs2-tools", "ocfs2-tools"},
    {"mkfs.vfat", "dosfstools", "dosfstools", "dosfstools"},
    {"mkfs.xfs", "xfsprogs", "xfsprogs", "xfsprogs"},
    {"mount.cifs", "cifs-utils", "cifs-utils", "cifs-utils"},
    {"mount.glusterfs", "glusterfs-client", "glusterfs-fuse", "glusterfs"},
    {"mount.nfs", "nfs-common", "nfs-utils", "nfs-utils"},
    {"partx", "util-linux", "util-linux", "util-linux"},
    {"pvcreate", "lvm2", "lvm2", "lvm2"},
    {"rbd", "ceph-common", "ceph-common", "ceph"},
    {"sfdisk", "fdisk", "util-linux", "util-linux"},
    {"showmount", "nfs-common", "nfs-utils", "nfs-utils"},
    {"vgcreate", "lvm2", "lvm2", "lvm2"},
    {"vgs", "lvm2", "lvm2", "lvm2"},
    {"wipefs", "util-linux", "util-linux", "util-linux"},
    {"zfs", "zfsutils-linux", "zfs", "zfs-utils"},
    {"zpool", "zfsutils-linux", "zfs", "zfs-utils"},
};

/* "apt install", "dnf install" or "pacman -S", by the distribution's ID and what it is like. */
static const char *installer(unsigned *ret_column)
{
    static const struct {
        const char *id, *command;
        unsigned column;
    } rows[] = {
        {"debian", "apt install", 0}, {"ubuntu", "apt install", 0}, {"fedora", "dnf install", 1},
        {"rhel", "dnf install", 1},   {"centos", "dnf install", 1}, {"arch", "pacman -S", 2},
    };
    g_autofree char *id = g_get_os_info(G_OS_INFO_KEY_ID), *like = g_get_os_info("ID_LIKE");
    g_autofree char *all = g_strdup_printf("%s %s", id ? id : "", like ? like : "");
    g_auto(GStrv) words = g_strsplit(all, " ", 8);
    for (char **w = words; *w; w++)
        for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
            if (!strcmp(*w, rows[i].id)) {
                *ret_column = rows[i].column;
                return rows[i].command;
            }
    return NULL;
}

static bool missing(const char *program, GError **error)
{
    unsigned column = 0;
    const char *command = installer(&column);
    for (unsigned i = 0; i < ARRAY_COUNT(packages); i++) {
        const char *const names[] = {packages[i].apt, packages[i].dnf, packages[i].pacman};
        if (strcmp(packages[i].program, program) != 0)
            continue;
        if (command)
            return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                               "program '%s' is missing; install it with: %s %s", program, command,
                               names[column]);
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "program '%s' is missing; it is in package %s (Debian), %s (Fedora), %s (Arch)",
            program, names[0], names[1], names[2]);
    }
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "program '%s' is missing", program);
}

/* A daemon's PATH may lack the folders of administrators' programs. */
static char *find_program(const char *name)
{
    static const char *const folders[] = {"/usr/sbin", "/sbin", "/usr/local/sbin"};
    char *path = g_find_program_in_path(name);
    for (unsigned i = 0; !path && i < ARRAY_COUNT(folders); i++) {
        g_autofree char *full = g_build_filename(folders[i], name, NULL);
        if (g_file_test(full, G_FILE_TEST_IS_EXECUTABLE))
            path = g_steal_pointer(&full);
    }
    return path;
}

bool storage_programs(const char *const *programs, GError **error)
{
    for (; programs && *programs; programs++) {
        g_autofree char *path = find_program(*programs);
        if (!path)
            return missing(*programs, error);
    }
    return true;
}

bool storage_run_argv(const char *const *argv, const char *stdin_text, int timeout_ms,
                      char **ret_out, GError **error)
{
    g_autofree char *path = find_program(argv[0]);
    if (!path)
        return missing(argv[0], error);
    g_autofree const char **own = g_new0(const char *, g_strv_length((char **)argv) + 1);
    own[0] = path;
    for (unsigned i = 1; argv[i]; i++)
        own[i] = argv[i];
    return task_run_program(own, stdin_text, ANSWER_MAX, timeout_ms, ret_out, error);
}

bool storage_run(char **ret_out, GError **error, const char *program, ...)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    va_list ap;
    va_start(ap, program);
    for (const char *a = program; a; a = va_arg(ap, const char *))
        g_ptr_array_add(argv, (void *)a);
    va_end(ap);
    g_ptr_array_add(argv, NULL);
    return storage_run_argv((const char *const *)argv->pdata, NULL, STORAGE_RUN_MS, ret_out, error);
}

/* ---- work with a deadline ---- */

/* Shared by the task that waits and the thread: whoever is last frees it. */
struct errand {
    void (*fn)(void *opaque), (*free_fn)(void *opaque);
    void *opaque;
    struct task_event *done; /* NULL: nobody waits any more; loop thread */
};

static gboolean errand_done(gpointer opaque)
{
    struct errand *e = opaque;
    if (e->done)
        task_event_happen(e->done);
    else if (e->free_fn)
        e->free_fn(e->opaque);
    g_free(e);
    return G_SOURCE_REMOVE;
}

static gpointer errand_thread(gpointer opaque)
{
    struct errand *e = opaque;
    e->fn(e->opaque);
    g_idle_add_full(G_PRIORITY_DEFAULT, errand_done, e, NULL);
    return NULL;
}

bool storage_work(void (*fn)(void *opaque), void *opaque, void (*free_fn)(void *opaque),
                  int timeout_ms, const char *what, GError **error)
{
    struct task_event done = {0};
    struct errand *e = g_new(struct errand, 1);
    *e = (struct errand){fn, free_fn, opaque, &done};
    GThread *thread = g_thread_try_new("storage", errand_thread, e, NULL);
    if (!thread) {
        g_free(e);
        if (free_fn)
            free_fn(opaque);
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "%s: no thread for it", what);
    }
    g_thread_unref(thread);
    if (task_event_wait(&done, timeout_ms))
        return true;
    e->done = NULL;
    return ruche_error(error, MANAGER_ERR_TIMEOUT, "%s did not answer within %d s", what,
                       timeout_ms / 1000);
}
