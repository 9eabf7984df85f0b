/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Type 'iscsi': the units of a target, logged in to by the kernel's initiator while the pool runs.
 *
 * Spec      libvirt's formatstorage, "iSCSI pool"; iscsiadm(8).
 * Trust     iscsiadm's lines are read by their form; others are passed over.
 */
#include "base/units.h"
#include "manager/markup.h"
#include "manager/node/sysfs.h"
#include "manager/storage/readers.h"
#include "manager/storage/scsi_luns.h"
#include "manager/storage/storage_priv.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

bool iscsi_check(xmlNode *root, GError **error)
{
    const char *target = xml_get(root, "source/device@path"), *name = xml_get_or(root, "name", "");
    if (xml_find(root, "source/auth"))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "pool '%s': CHAP needs a secret, and secrets are not supported yet",
                           name);
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
static void iscsi_find(const xmlNode *spec, GString *into, GError **error)
{
    const char *host = spec ? xml_get(spec, "host@name") : NULL;
    if (!host || !*host || host[0] == '-') {
        ruche_error(error, MANAGER_ERR_XML,
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
