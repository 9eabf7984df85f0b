/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a volume is to a machine: <source pool='' volume=''> of a disk gets the parts that a disk of type file, block
 * or network has.
 *
 * Spec      libvirt's formatdomain, "Hard drives", type 'volume' and mode, at 9.0.0; units of rbd, which it does not
 *           take there, besides.
 * Thread    The loop thread. Nothing is asked: the pool's table has it all.
 */
#include "manager/storage/storage_priv.h"

#include <string.h>

static void forget(struct xml_node *source)
{
    static const char *const parts[] = {"@file", "@dev",      "@protocol", "@name",
                                        "host",  "initiator", "auth"};
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++)
        while (parts[i][0] == '@' ? xml_get(source, parts[i]) != NULL
                                  : xml_find(source, parts[i]) != NULL)
            xml_remove(source, parts[i]);
}

static void add_hosts(const struct pool *p, struct xml_node *source)
{
    for (const struct xml_node *h = xml_find(pool_root(p), "source/host"); h; h = xml_next(h)) {
        struct xml_node *n = xml_add(source, "host");
        xml_set(n, "@name", xml_get_or(h, "@name", ""));
        if (xml_get(h, "@port"))
            xml_set(n, "@port", xml_get(h, "@port"));
    }
}

/* Who the pool is to its server; a disk's own <auth> goes before. */
static void add_auth(const struct pool *p, struct xml_node *source, const char *type)
{
    const struct xml_node *secret = xml_find(pool_root(p), "source/auth/secret");
    if (!secret || !pool_user(p))
        return;
    const char *uuid = xml_get(secret, "@uuid");
    xml_set(source, "auth@username", pool_user(p));
    xml_set(source, "auth/secret@type", type);
    xml_set(source, uuid ? "auth/secret@uuid" : "auth/secret@usage",
            uuid ? uuid : xml_get_or(secret, "@usage", ""));
}

/* Units are called unit:HOST:BUS:TARGET:LUN, or without the first. */
static void by_iscsi(const struct pool *p, const struct volume *v, struct xml_node *source)
{
    const char *lun = strrchr(v->name, ':'), *iqn = pool_get(p, "source/initiator/iqn@name");
    xml_set(source, "@protocol", "iscsi");
    xml_set_f(source, "@name", "%s/%s", pool_get(p, "source/device@path"), lun ? lun + 1 : "0");
    add_hosts(p, source);
    if (iqn)
        xml_set(source, "initiator/iqn@name", iqn);
    add_auth(p, source, "iscsi");
}

static void by_rbd(const struct pool *p, const struct volume *v, struct xml_node *source)
{
    xml_set(source, "@protocol", "rbd");
    xml_set_f(source, "@name", "%s/%s", pool_get(p, "source/name"), v->name);
    add_hosts(p, source);
    add_auth(p, source, "ceph");
}

static bool check_mode(const struct pool *p, const char *mode, GError **error)
{
    bool kernel = !strcmp(p->backend->type, "iscsi"),
         direct = !strcmp(p->backend->type, "iscsi-direct");
    if (!mode || kernel || (direct && !strcmp(mode, "direct")))
        return true;
    return ruche_error(error, MANAGER_ERR_CONFIG,
                       direct
                           ? "mode '%s': units of storage pool '%s' (%s) are reached directly only"
                           : "mode '%s' is for units of iSCSI pools, and storage pool '%s' is of "
                             "type '%s'",
                       mode, p->name, p->backend->type);
}

/* On this host: a file or a device. */
static bool by_path(const struct pool *p, const struct volume *v, struct xml_node *source,
                    GError **error)
{
    if (v->type != VOLUME_FILE && v->type != VOLUME_BLOCK)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "volume '%s' of storage pool '%s' is %s, which no disk can stand on",
                           v->name, p->name,
                           v->type == VOLUME_DIR ? "a folder" : "not on this host");
    if (v->type != VOLUME_FILE && xml_get(source, "@startupPolicy"))
        return ruche_error(error, RUCHE_ERR_XML,
                           "startupPolicy is for volumes that are files, and '%s' of storage pool "
                           "'%s' is not",
                           v->name, p->name);
    xml_set(source, v->type == VOLUME_FILE ? "@file" : "@dev", v->path);
    return true;
}

static bool describe(struct pool *p, struct xml_node *source, GError **error)
{
    const char *name = xml_get_or(source, "@volume", ""), *mode = xml_get(source, "@mode");
    if (!pool_runs(p))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "storage pool '%s', which has its volume '%s', is not active", p->name,
                           name);
    const struct volume *v = volume_find(p, name, error);
    if (!v || !check_mode(p, mode, error))
        return false;
    if (v->building)
        return ruche_error(error, RUCHE_ERR_STATE, "volume '%s' is still being made", v->name);
    bool iscsi = !strcmp(p->backend->type, "iscsi-direct") || !g_strcmp0(mode, "direct"),
         rbd = !strcmp(p->backend->type, "rbd");
    if (!iscsi && !rbd)
        return by_path(p, v, source, error);
    if (xml_get(source, "@startupPolicy"))
        return ruche_error(error, RUCHE_ERR_XML,
                           "startupPolicy is for volumes that are files, and '%s' of storage pool "
                           "'%s' is not",
                           v->name, p->name);
    (iscsi ? by_iscsi : by_rbd)(p, v, source);
    return true;
}

bool volume_describe(struct xml_node *source, GError **error)
{
    forget(source);
    struct pool *p = pool_find_name(xml_get_or(source, "@pool", ""), error);
    bool ok = p && describe(p, source, error);
    pool_unref(p);
    return ok;
}
