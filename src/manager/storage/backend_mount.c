/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Types 'fs' and 'netfs': a file system of a block device, or of a file server (NFS, SMB/CIFS,
 * GlusterFS), mounted on the target folder while the pool runs.
 *
 * Spec      libvirt's formatstorage, "Filesystem pool", "Network filesystem pool"; proc(5),
 *           mountinfo.
 * Faults    Whether something is mounted is read from mountinfo, which asks no server. A server
 *           that has vanished makes umount wait: it is then forced and detached.
 */
#include "manager/markup.h"
#include "manager/storage/readers.h"
#include "manager/storage/storage_priv.h"

#include <string.h>

#define USUAL_OPTIONS "nodev,nosuid,noexec"

enum { UMOUNT_MS = 15000, SHOWMOUNT_MS = 20000 };

/* ---- what is mounted ---- */

/* "\040" of mountinfo. */
static char *unescape(const char *text)
{
    GString *s = g_string_new(NULL);
    for (; *text; text++) {
        bool octal = text[0] == '\\' && strspn(text + 1, "01234567") >= 3;
        g_string_append_c(
            s,
            octal ? (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0')) : *text);
        text += octal ? 3 : 0;
    }
    return g_string_free(s, FALSE);
}

char *mount_source(const char *mountinfo, const char *target)
{
    g_auto(GStrv) lines = g_strsplit(mountinfo, "\n", -1);
    char *found = NULL;
    for (char **l = lines; *l; l++) {
        const char *rest = strstr(*l, " - ");
        g_auto(GStrv) before = g_strsplit(*l, " ", 6),
                      after = g_strsplit(rest ? rest + 3 : "", " ", 4);
        if (g_strv_length(before) < 6 || g_strv_length(after) < 2)
            continue;
        g_autofree char *at = unescape(before[4]);
        if (strcmp(at, target) != 0)
            continue;
        g_free(found); /* the last one lies on top */
        found = unescape(after[1]);
    }
    return found;
}

static char *mounted(const struct pool *p)
{
    g_autofree char *text = NULL;
    return g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL)
               ? mount_source(text, p->def->target)
               : NULL;
}

/* ---- mount and umount ---- */

static char *source_name(const struct pool *p)
{
    const char *host = pool_get(p, "source/host@name"), *dir = pool_get(p, "source/dir@path");
    if (!host)
        return g_strdup(pool_get(p, "source/device@path"));
    if (!g_strcmp0(pool_get(p, "source/format@type"), "cifs"))
        return g_strdup_printf("//%s/%s", host, dir + strspn(dir, "/"));
    return g_strdup_printf(strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, dir);
}

static char *mount_options(const struct pool *p, const char *format)
{
    GString *o = g_string_new(USUAL_OPTIONS);
    const char *version = pool_get(p, "source/protocol@ver"),
               *port = pool_get(p, "source/host@port");
    if (!strcmp(format,
                "cifs")) /* its servers take the shared locks of images for a ban on writing */
        g_string_append(o, ",nobrl");
    if (!strcmp(format, "cifs") && !pool_user(p))
        g_string_append(o, ",guest");
    else if (!strcmp(format, "cifs"))
        g_string_append_printf(o, ",username=%s", pool_user(p));
    if (!strcmp(format, "glusterfs"))
        g_string_append(o, ",direct-io-mode=1");
    if (version)
        g_string_append_printf(o, ",nfsvers=%s", version);
    if (port)
        g_string_append_printf(o, ",port=%s", port);
    const struct xml_node *more = xml_find(pool_root(p), "mount_opts");
    for (const struct xml_node *n = more ? xml_find(more, "option") : NULL; n; n = xml_next(n))
        g_string_append_printf(o, ",%s", xml_get(n, "@name"));
    return g_string_free(o, FALSE);
}

static const char *mount_format(const struct pool *p)
{
    const char *format = pool_get(p, "source/format@type");
    bool net = pool_get(p, "source/host@name") != NULL;
    return net && !strcmp(format, "auto") ? "nfs" : format;
}

/* mount.cifs reads a password from the descriptor that its environment names. */
static bool run_mount(struct pool *p, const char *format, const char *options, const char *source,
                      GError **error)
{
    const char *const argv[] = {"env",   "PASSWD_FD=0", "mount", "-t",           format, "-o",
                                options, "--",          source,  p->def->target, NULL};
    if (!pool_user(p))
        return storage_run_argv(argv + 2, NULL, STORAGE_RUN_MS, NULL, error);
    g_autoptr(GBytes) value = pool_password(p, error);
    char *line = value ? secret_line(value, error) : NULL;
    if (line)
        line[strlen(line) - 1] = 0; /* all that it reads is the password, an end of the line too */
    bool ok = line && storage_run_argv(argv, line, STORAGE_RUN_MS, NULL, error);
    secret_text_free(line);
    return ok;
}

static bool mount_start(struct pool *p, GError **error)
{
    g_autofree char *source = source_name(p), *is = mounted(p);
    const char *format = mount_format(p);
    g_autofree char *helper = g_strconcat("mount.", format, NULL),
                    *options = mount_options(p, format);
    const char *const needed[] = {helper, NULL};
    if (is && !strcmp(is, source))
        return true;
    if (is)
        return ruche_error(error, RUCHE_ERR_BUSY,
                           "storage pool '%s': '%s' is already mounted on '%s'", p->name, is,
                           p->def->target);
    if (pool_get(p, "source/host@name") && !storage_programs(needed, error))
        return false;
    if (run_mount(p, format, options, source, error))
        return true;
    g_prefix_error(error, "storage pool '%s': '%s' cannot be mounted: ", p->name, source);
    return false;
}

static bool mount_stop(struct pool *p, GError **error)
{
    const char *const plain[] = {"umount", "--", p->def->target, NULL};
    const char *const forced[] = {"umount", "-f", "-l", "--", p->def->target, NULL};
    g_autofree char *is = mounted(p);
    g_autoptr(GError) why = NULL;
    if (!is ||
        (p->state != POOL_INACCESSIBLE && storage_run_argv(plain, NULL, UMOUNT_MS, NULL, &why)))
        return true;
    if (!why || g_error_matches(why, RUCHE_ERROR, MANAGER_ERR_TIMEOUT))
        return storage_run_argv(forced, NULL, UMOUNT_MS, NULL, error);
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

static bool mount_scan(struct pool *p, GHashTable *found, struct pool_figures *ret_figures,
                       GError **error)
{
    g_autofree char *is = mounted(p);
    if (!is)
        return ruche_error(error, RUCHE_ERR_STATE, "storage pool '%s': nothing is mounted on '%s'",
                           p->name, p->def->target);
    return folder_pool_scan(p, found, ret_figures, error);
}

/* ---- fs ---- */

bool device_is_empty(const char *device, GError **error)
{
    g_autofree char *said = NULL;
    if (!storage_run(&said, error, "wipefs", "--no-act", "--parsable", "--", device, NULL))
        return false;
    g_auto(GStrv) lines = g_strsplit(said, "\n", -1);
    for (char **l = lines; *l; l++) {
        const char *type = strrchr(*l, ',');
        if (**l && **l != '#')
            return ruche_error(error, RUCHE_ERR_EXISTS,
                               "'%s' already holds something (%s); say 'overwrite' to lose it",
                               device, type ? type + 1 : *l);
    }
    return true;
}

static bool make_fs(struct pool *p, GError **error)
{
    static const struct {
        const char *format, *options[3];
    } rows[] = {
        {"auto", {"-F", "-q", NULL}}, {"ext2", {"-F", "-q", NULL}}, {"ext3", {"-F", "-q", NULL}},
        {"ext4", {"-F", "-q", NULL}}, {"xfs", {"-f", "-q", NULL}},  {"vfat", {"-I", NULL}},
    };
    const char *format = pool_get(p, "source/format@type"),
               *device = pool_get(p, "source/device@path");
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
        if (strcmp(rows[i].format, format) != 0)
            continue;
        g_autofree char *program = g_strconcat("mkfs.", i ? format : "ext4", NULL);
        const char *argv[] = {program, rows[i].options[0],
                              rows[i].options[1] ? rows[i].options[1] : device,
                              rows[i].options[1] ? device : NULL, NULL};
        return storage_run_argv(argv, NULL, 10 * STORAGE_RUN_MS, NULL, error);
    }
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "storage pool '%s': file systems of format '%s' are not made here; make it "
                       "by its own program",
                       p->name, format);
}

/* Without flags only the folder that it is mounted on is made, as with libvirt. */
static bool fs_build(struct pool *p, unsigned flags, GError **error)
{
    if (!folder_pool_build(p, 0, error))
        return false;
    if (flags & POOL_BUILD_NO_OVERWRITE &&
        !device_is_empty(pool_get(p, "source/device@path"), error))
        return false;
    return !flags || make_fs(p, error);
}

static bool fs_check(struct xml_node *root, GError **error)
{
    const char *device = xml_get(root, "source/device@path");
    if (device[0] == '/' && device[1] != '/')
        return true;
    return ruche_error(error, MANAGER_ERR_CONFIG,
                       "pool '%s': type 'fs' mounts a block device of this host, and '%.128s' is "
                       "none; SMB and NFS shares are for "
                       "type 'netfs'",
                       xml_get_or(root, "name", ""), device);
}

static const char *const fs_formats[] = {"auto",    "ext2", "ext3",  "ext4", "ufs",
                                         "iso9660", "udf",  "gfs",   "gfs2", "vfat",
                                         "hfs+",    "xfs",  "ocfs2", "vmfs", NULL};
static const char *const fs_programs[] = {"mount", "umount", "wipefs", NULL};

static const struct pool_backend fs_backend = {
    .type = "fs",
    .summary = "a file system on a block device",
    .list_flag = 1 << 7,
    .can = POOL_CAN_BUILD | POOL_CAN_OVERWRITE | POOL_CAN_DELETE | POOL_CAN_RESIZE | POOL_FILES,
    .needs = POOL_NEEDS_TARGET | POOL_NEEDS_DEVICE,
    .source_formats = fs_formats,
    .volume_formats = folder_volume_formats,
    .programs = fs_programs,
    .check = fs_check,
    .build = fs_build,
    .start = mount_start,
    .stop = mount_stop,
    .remove = folder_pool_remove,
    .scan = mount_scan,
};
POOL_BACKEND(fs_backend);

/* ---- netfs ---- */

static bool netfs_check(struct xml_node *root, GError **error)
{
    const char *dir = xml_get(root, "source/dir@path"), *host = xml_get(root, "source/host@name");
    const char *format = xml_get_or(root, "source/format@type", "auto");
    bool path = !strcmp(format, "auto") || !strcmp(format, "nfs");
    const char *user = xml_get(root, "source/auth@username");
    if (user && (strcmp(format, "cifs") != 0 || strpbrk(user, ",\n")))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "pool '%s': user '%.64s' of <auth> cannot be used; format 'cifs' has "
                           "users, whose names are without commas",
                           xml_get_or(root, "name", ""), user);
    if (path ? dir[0] != '/' : dir[0] == '-')
        return ruche_error(error, RUCHE_ERR_XML,
                           "pool '%s': source directory '%.128s' is no absolute path",
                           xml_get_or(root, "name", ""), dir);
    return host[0] != '-' || ruche_error(error, RUCHE_ERR_XML, "pool '%s': '%.128s' is no host",
                                         xml_get_or(root, "name", ""), host);
}

static void netfs_find(const struct xml_node *spec, GString *into, GError **error)
{
    const char *host = spec ? xml_get(spec, "host@name") : NULL;
    g_autofree char *said = NULL;
    if (!host || !*host || host[0] == '-') {
        ruche_error(
            error, RUCHE_ERR_XML,
            "sources of type 'netfs' are looked for on a host: say which (source/host@name)");
        return;
    }
    const char *const argv[] = {"showmount", "--no-headers", "--exports", "--", host, NULL};
    if (!storage_run_argv(argv, NULL, SHOWMOUNT_MS, &said, error))
        return;
    g_auto(GStrv) lines = g_strsplit(said, "\n", VOLUMES_MAX);
    for (char **l = lines; *l; l++) {
        char *end = *l + strcspn(*l, " \t");
        *end = 0;
        if (**l == '/' && g_utf8_validate(*l, -1, NULL))
            markup_add(into,
                       "  <source>\n    <host name='%s'/>\n    <dir path='%s'/>\n    <format "
                       "type='nfs'/>\n  </source>\n",
                       host, *l);
    }
}

static const char *const netfs_formats[] = {"auto", "nfs", "glusterfs", "cifs", NULL};
static const char *const netfs_programs[] = {"mount", "umount", NULL};

static const struct pool_backend netfs_backend = {
    .type = "netfs",
    .summary = "a directory of a file server",
    .list_flag = 1 << 8,
    .can = POOL_CAN_BUILD | POOL_CAN_DELETE | POOL_CAN_RESIZE | POOL_FILES,
    .needs = POOL_NEEDS_TARGET | POOL_NEEDS_HOST | POOL_NEEDS_DIR,
    .source_formats = netfs_formats,
    .volume_formats = folder_volume_formats,
    .programs = netfs_programs,
    .check = netfs_check,
    .find_sources = netfs_find,
    .build = folder_pool_build,
    .start = mount_start,
    .stop = mount_stop,
    .remove = folder_pool_remove,
    .scan = mount_scan,
};
POOL_BACKEND(netfs_backend);
