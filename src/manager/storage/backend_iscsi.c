/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Type 'iscsi': the units of a target, logged in to by the kernel's initiator while the pool runs.
 *
 * Spec      libvirt's formatstorage, "iSCSI pool"; iscsiadm(8).
 * Trust     iscsiadm's lines are read by their form; others are passed over.
 */
#include "base/fd.h"
#include "base/units.h"
#include "manager/markup.h"
#include "manager/node/sysfs.h"
#include "manager/storage/readers.h"
#include "manager/storage/scsi_luns.h"
#include "manager/storage/storage_priv.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static char *portal_of(const char *host, const char *port)
{
    return g_strdup_printf(strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port ? port : "3260");
}

static char *pool_portal(const struct pool *p)
{
    return portal_of(pool_get(p, "source/host@name"), pool_get(p, "source/host@port"));
}

/* ---- sessions ---- */

/* "tcp: [3] 127.0.0.1:3260,1 iqn.2026-01.org.example:x (non-flash)": the number in brackets of the
 * target's line. */
bool iscsi_find_session(const char *text, const char *target, unsigned *ret)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", 100000);
    for (char **l = lines; *l; l++) {
        g_auto(GStrv) words = g_strsplit(*l, " ", 6);
        uint64_t id;
        if (g_strv_length(words) < 4 || strcmp(words[3], target) != 0 || words[1][0] != '[')
            continue;
        words[1][strcspn(words[1], "]")] = 0;
        if (units_parse_u64(words[1] + 1, &id) && id <= INT32_MAX) {
            *ret = (unsigned)id;
            return true;
        }
    }
    return false;
}

/* iscsiadm fails when there are none: that is no session, not an error. */
static bool session_of(const struct pool *p, unsigned *ret)
{
    g_autofree char *said = NULL;
    return storage_run(&said, NULL, "iscsiadm", "--mode", "session", NULL) &&
           iscsi_find_session(said, pool_get(p, "source/device@path"), ret);
}

/* /sys/class/iscsi_session/sessionN/device is .../hostM/sessionN. */
static bool host_of(unsigned session, unsigned *ret)
{
    g_autofree char *name = g_strdup_printf("/sys/class/iscsi_session/session%u/device", session),
                    *path = sysfs_path(name);
    char *real = realpath(path, NULL);
    const char *at = real ? strstr(real, "/host") : NULL;
    bool ok = at && sscanf(at, "/host%u/", ret) == 1;
    free(real);
    return ok;
}

/* ---- life ---- */

/* An initiator's name of the pool's own is an interface record of open-iscsi, called after it. */
static char *interface_of(const struct pool *p)
{
    const char *iqn = pool_get(p, "source/initiator/iqn@name");
    return iqn ? g_strdup_printf("ruche-%08x", g_str_hash(iqn)) : g_strdup("default");
}

static bool make_interface(const struct pool *p, const char *name, GError **error)
{
    const char *iqn = pool_get(p, "source/initiator/iqn@name");
    if (!iqn)
        return true;
    if (storage_run(NULL, NULL, "iscsiadm", "--mode", "iface", "--interface", name, NULL))
        return true;
    return storage_run(NULL, error, "iscsiadm", "--mode", "iface", "--interface", name, "--op",
                       "new", NULL) &&
           storage_run(NULL, error, "iscsiadm", "--mode", "iface", "--interface", name, "--op",
                       "update", "--name", "iface.initiatorname", "--value", iqn, NULL);
}

/* ---- CHAP ---- */

/* open-iscsi keeps what it logs in by in a record, a file that only root reads:
 * node.session.auth.password stands there, as its program would take it from its command line only.
 */
struct record {
    char *target, *password; /* the line's end, with its newline */
    GError *error;
};

static bool add_line(struct record *r, const char *path)
{
    autofd fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
    g_autofree char *line = g_strconcat("node.session.auth.password = ", r->password, NULL);
    ssize_t len = (ssize_t)strlen(line);
    bool ok = fd >= 0 && fchmod(fd, 0600) == 0 && write(fd, line, (size_t)len) == len;
    explicit_bzero(line, (size_t)len);
    return ok || ruche_error_errno(&r->error, errno, "'%s', the record of an iSCSI target", path);
}

/* Records are NODES/TARGET/PORTAL,PORT,GROUP: a file, or a folder with a file for each interface.
 */
static bool add_below(struct record *r, const char *path, unsigned depth, unsigned *count)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    if (!dir)
        return true;
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *inner = g_build_filename(path, name, NULL);
        bool is_dir = g_file_test(inner, G_FILE_TEST_IS_DIR);
        if (is_dir && depth && !add_below(r, inner, depth - 1, count))
            return false;
        if (!is_dir && ++*count && !add_line(r, inner))
            return false;
    }
    return true;
}

static void write_record(void *opaque)
{
    static const char *const places[] = {"/etc/iscsi/nodes", "/var/lib/iscsi/nodes"};
    struct record *r = opaque;
    unsigned count = 0;
    for (size_t i = 0; i < G_N_ELEMENTS(places) && !r->error; i++) {
        g_autofree char *path = g_build_filename(places[i], r->target, NULL);
        add_below(r, path, 1, &count);
    }
    if (!count && !r->error)
        ruche_error(&r->error, RUCHE_ERR_NOT_FOUND, "iscsiadm keeps no record of target '%s'",
                    r->target);
}

static bool set_chap(struct pool *p, const char *portal, const char *target, GError **error)
{
    if (!pool_user(p))
        return true;
    g_autoptr(GBytes) value = pool_password(p, error);
    struct record r = {.password = value ? secret_line(value, error) : NULL,
                       .target = g_strdup(target)};
    bool ok = r.password &&
              storage_run(NULL, error, "iscsiadm", "--mode", "node", "--portal", portal,
                          "--targetname", target, "--op", "update", "--name",
                          "node.session.auth.authmethod", "--value", "CHAP", NULL) &&
              storage_run(NULL, error, "iscsiadm", "--mode", "node", "--portal", portal,
                          "--targetname", target, "--op", "update", "--name",
                          "node.session.auth.username", "--value", pool_user(p), NULL);
    if (ok)
        task_work(write_record, &r);
    if (r.error)
        g_propagate_error(error, r.error);
    ok = ok && !r.error;
    secret_text_free(r.password);
    g_free(r.target);
    return ok;
}

static bool iscsi_start(struct pool *p, GError **error)
{
    unsigned session;
    g_autofree char *portal = pool_portal(p), *interface = interface_of(p);
    const char *target = pool_get(p, "source/device@path");
    if (session_of(p, &session))
        return true;
    return make_interface(p, interface, error) &&
           storage_run(NULL, error, "iscsiadm", "--mode", "discovery", "--type", "sendtargets",
                       "--portal", portal, "--interface", interface, NULL) &&
           storage_run(NULL, error, "iscsiadm", "--mode", "node", "--portal", portal,
                       "--targetname", target, "--interface", interface, "--op", "update", "--name",
                       "node.startup", "--value", "manual", NULL) &&
           set_chap(p, portal, target, error) &&
           storage_run(NULL, error, "iscsiadm", "--mode", "node", "--portal", portal,
                       "--targetname", target, "--interface", interface, "--login", NULL);
}

static bool iscsi_stop(struct pool *p, GError **error)
{
    unsigned session;
    g_autofree char *portal = pool_portal(p);
    return !session_of(p, &session) ||
           storage_run(NULL, error, "iscsiadm", "--mode", "node", "--portal", portal,
                       "--targetname", pool_get(p, "source/device@path"), "--logout", NULL);
}

static bool iscsi_scan(struct pool *p, GHashTable *found, struct pool_figures *ret, GError **error)
{
    unsigned session, host;
    if (!session_of(p, &session))
        return ruche_error(error, RUCHE_ERR_STATE,
                           "storage pool '%s': there is no session with target '%s'", p->name,
                           pool_get(p, "source/device@path"));
    g_autofree char *number = g_strdup_printf("%u", session);
    if (!storage_run(NULL, error, "iscsiadm", "--mode", "session", "--sid", number, "--rescan",
                     NULL))
        return false;
    if (!host_of(session, &host))
        return ruche_error(error, RUCHE_ERR_IO,
                           "storage pool '%s': the kernel does not say which host session %u has",
                           p->name, session);
    return scsi_luns_scan(p, host, false, found, ret, error);
}

bool iscsi_check(struct xml_node *root, GError **error)
{
    const char *target = xml_get(root, "source/device@path"), *name = xml_get_or(root, "name", "");
    const char *auth = xml_get(root, "source/auth@type"),
               *user = xml_get_or(root, "source/auth@username", "");
    if (auth && strcmp(auth, "chap") != 0)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "pool '%s': <auth type='%s'> is not for iSCSI, which has 'chap'", name,
                           auth);
    if (strpbrk(user, "\n%") || user[0] == '-')
        return ruche_error(error, RUCHE_ERR_XML, "pool '%s': '%.64s' is no user", name, user);
    if (g_str_has_prefix(target, "iqn.") || g_str_has_prefix(target, "eui.") ||
        g_str_has_prefix(target, "naa."))
        return true;
    return ruche_error(error, MANAGER_ERR_CONFIG,
                       "pool '%s': '%.128s' is no name of an iSCSI target%s", name, target,
                       g_str_has_prefix(target, "nqn.")
                           ? "; devices of NVMe over fabrics, once connected, are for types "
                             "'disk', 'fs', 'logical' and 'mpath'"
                           : " (iqn.YYYY-MM.DOMAIN:NAME)");
}

/* Lines "127.0.0.1:3260,1 iqn...". */
static void iscsi_find(const struct xml_node *spec, GString *into, GError **error)
{
    const char *host = spec ? xml_get(spec, "host@name") : NULL;
    if (!host || !*host || host[0] == '-') {
        ruche_error(error, RUCHE_ERR_XML,
                    "iSCSI targets are looked for on a host: say which (source/host@name)");
        return;
    }
    g_autofree char *portal = portal_of(host, xml_get(spec, "host@port")), *own = g_strdup(host),
                    *said = NULL;
    if (!storage_run(&said, error, "iscsiadm", "--mode", "discovery", "--type", "sendtargets",
                     "--portal", portal, NULL))
        return;
    g_auto(GStrv) lines = g_strsplit(said, "\n", VOLUMES_MAX);
    for (char **l = lines; *l; l++) {
        const char *target = strchr(*l, ' ');
        if (target && g_utf8_validate(target, -1, NULL))
            markup_add(into,
                       "  <source>\n    <host name='%s'/>\n    <device path='%s'/>\n  </source>\n",
                       own, target + 1);
    }
}

static const char *const programs[] = {"iscsiadm", NULL};

static const struct pool_backend iscsi_backend = {
    .type = "iscsi",
    .summary = "an iSCSI target, whose units are made on its server",
    .list_flag = 1 << 11,
    .needs = POOL_NEEDS_HOST | POOL_NEEDS_DEVICE,
    .may = POOL_NEEDS_INITIATOR,
    .target = "/dev/disk/by-path",
    .programs = programs,
    .check = iscsi_check,
    .find_sources = iscsi_find,
    .start = iscsi_start,
    .stop = iscsi_stop,
    .scan = iscsi_scan,
};
POOL_BACKEND(iscsi_backend);
