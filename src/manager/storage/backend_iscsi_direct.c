/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Type 'iscsi-direct': the units of a target without a kernel's part: machines and ruche-img speak
 * iSCSI themselves.
 *
 * Units are listed by libiscsi's own program iscsi-ls; their exact sizes are ruche-img's answers.
 *
 * Spec      libvirt's formatstorage, "iSCSI direct pool".
 * Trust     Lines are read by their form; a server is asked for at most UNITS_MAX units.
 */
#include "base/units.h"
#include "manager/image_info.h"
#include "manager/markup.h"
#include "manager/storage/readers.h"
#include "manager/storage/storage_priv.h"

#include <stdio.h>
#include <string.h>

enum { UNITS_MAX = 1024 };

static char *server_of(const struct pool *p)
{
    const char *host = pool_get(p, "source/host@name"), *port = pool_get(p, "source/host@port");
    return g_strdup_printf(strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port ? port : "3260");
}

/* "Target:iqn... Portal:127.0.0.1:3260,1", then its lines "Lun:1    Type:DIRECT_ACCESS (Size:10M)".
 */
GArray *iscsi_direct_units(const char *text, const char *target)
{
    GArray *units = g_array_new(FALSE, FALSE, sizeof(unsigned));
    g_auto(GStrv) lines = g_strsplit(text, "\n", 100000);
    bool ours = false;
    for (char **l = lines; *l && units->len < UNITS_MAX; l++) {
        unsigned lun;
        if (g_str_has_prefix(*l, "Target:")) {
            size_t length = strcspn(*l + 7, " \t");
            ours = length == strlen(target) && !strncmp(*l + 7, target, length);
        } else if (ours && strstr(*l, "DIRECT_ACCESS") && sscanf(*l, "Lun:%u", &lun) == 1 &&
                   lun <= 16383) {
            g_array_append_val(units, lun);
        }
    }
    return units;
}

static char *unit_locked(const struct pool *p, const char *server, const char *lun)
{
    JsonObject *file = json_object_new();
    json_object_set_string_member(file, "driver", "iscsi");
    json_object_set_string_member(file, "transport", "tcp");
    json_object_set_string_member(file, "portal", server);
    json_object_set_string_member(file, "target", pool_get(p, "source/device@path"));
    json_object_set_string_member(file, "initiator-name", pool_get(p, "source/initiator/iqn@name"));
    json_object_set_int_member(file, "lun", g_ascii_strtoll(lun, NULL, 10));
    return pool_image_name(p, file, "password-secret");
}

static char *unit_url(struct pool *p, const char *name)
{
    g_autofree char *server = server_of(p);
    const char *lun = strrchr(name, ':');
    if (pool_user(p))
        return unit_locked(p, server, lun ? lun + 1 : "0");
    return g_strdup_printf("iscsi://%s/%s/%s", server, pool_get(p, "source/device@path"),
                           lun ? lun + 1 : "0");
}

static bool add_unit(struct pool *p, unsigned lun, GHashTable *found, struct pool_figures *ret,
                     GError **error)
{
    g_autofree char *name = g_strdup_printf("unit:0:0:%u", lun), *server = server_of(p),
                    *url = unit_url(p, name);
    g_autofree char *path =
        g_strdup_printf("ip-%s-iscsi-%s-lun-%u", server, pool_get(p, "source/device@path"), lun);
    g_auto(image_info_list) image = NULL;
    auto_secret_file key = SECRET_FILE_NONE;
    if (!pool_secret_open(p, &key, error))
        return false;
    g_autofree char *object = pool_secret_object(p, &key);
    if (!image_info_ask_with(url, object ? NULL : "raw", object, IMG_INFO_MS, &image, error))
        return false;
    struct volume *v = device_volume_new(found, name, path);
    if (!v)
        return true;
    v->type = VOLUME_NETWORK;
    v->capacity = v->allocation = image->virtual_size;
    ret->capacity += v->capacity;
    ret->allocation += v->allocation;
    return true;
}

/* iscsi-ls waits for a server that hangs, for ever. */
static bool ask(const char *const *argv, const char *stdin_text, char **ret_said, const char *url,
                GError **error)
{
    g_autoptr(GError) inner = NULL;
    if (storage_run_argv(argv, stdin_text, STORAGE_RUN_MS, ret_said, &inner))
        return true;
    if (inner->code == MANAGER_ERR_TIMEOUT)
        return ruche_error(error, MANAGER_ERR_TIMEOUT, "'%s' did not answer within %d s", url,
                           STORAGE_RUN_MS / 1000);
    g_propagate_error(error, g_steal_pointer(&inner));
    return false;
}

/* iscsi-ls takes a password from its environment alone, where nobody else reads it; a shell that
 * knows it from its standard input puts it there. */
static bool list_units(struct pool *p, const char *initiator, const char *url, char **ret_said,
                       GError **error)
{
    static const char script[] = "IFS= read -r LIBISCSI_CHAP_PASSWORD; LIBISCSI_CHAP_USERNAME=$1; "
                                 "shift; export LIBISCSI_CHAP_PASSWORD LIBISCSI_CHAP_USERNAME; "
                                 "exec iscsi-ls \"$@\"";
    const char *const argv[] = {"sh", "-c", script,    "sh", pool_user(p),
                                "-s", "-i", initiator, url,  NULL};
    const char *const open_to_all[] = {"iscsi-ls", "-s", "-i", initiator, url, NULL};
    if (!pool_user(p))
        return ask(open_to_all, NULL, ret_said, url, error);
    g_autoptr(GBytes) value = pool_password(p, error);
    char *line = value ? secret_line(value, error) : NULL;
    bool ok = line && ask(argv, line, ret_said, url, error);
    secret_text_free(line);
    return ok;
}

static bool direct_scan(struct pool *p, GHashTable *found, struct pool_figures *ret, GError **error)
{
    g_autofree char *server = server_of(p), *url = g_strdup_printf("iscsi://%s", server),
                    *said = NULL;
    const char *initiator = pool_get(p, "source/initiator/iqn@name"),
               *target = pool_get(p, "source/device@path");
    if (!list_units(p, initiator, url, &said, error))
        return false;
    g_autoptr(GArray) units = iscsi_direct_units(said, target);
    if (!strstr(said, target))
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "storage pool '%s': '%s' has no target '%s'",
                           p->name, server, target);
    for (unsigned i = 0; i < units->len; i++)
        if (!add_unit(p, g_array_index(units, unsigned, i), found, ret, error))
            return false;
    return true;
}

static void direct_find(const struct xml_node *spec, GString *into, GError **error)
{
    const char *host = spec ? xml_get(spec, "host@name") : NULL;
    const char *iqn =
        spec ? xml_get_or(spec, "initiator/iqn@name", "iqn.2026-01.org.ruche:search") : NULL;
    if (!host || !*host || host[0] == '-' || iqn[0] == '-') {
        ruche_error(error, RUCHE_ERR_XML,
                    "iSCSI targets are looked for on a host: say which (source/host@name)");
        return;
    }
    g_autofree char *url = g_strdup_printf("iscsi://%s:%s", host,
                                           xml_get_or(spec, "host@port", "3260")),
                    *own = g_strdup(host);
    const char *const argv[] = {"iscsi-ls", "-i", iqn, url, NULL};
    g_autofree char *said = NULL;
    if (!ask(argv, NULL, &said, url, error))
        return;
    g_auto(GStrv) lines = g_strsplit(said, "\n", 100000);
    for (char **l = lines; *l; l++) {
        if (!g_str_has_prefix(*l, "Target:") || !g_utf8_validate(*l, -1, NULL))
            continue;
        (*l)[7 + strcspn(*l + 7, " \t")] = 0;
        markup_add(into,
                   "  <source>\n    <host name='%s'/>\n    <device path='%s'/>\n  </source>\n", own,
                   *l + 7);
    }
}

static const char *const programs[] = {"iscsi-ls", NULL};

static const struct pool_backend direct_backend = {
    .type = "iscsi-direct",
    .summary = "an iSCSI target, whose units are made on its server",
    .list_flag = 1 << 19,
    .can = POOL_REMOTE,
    .needs = POOL_NEEDS_HOST | POOL_NEEDS_DEVICE | POOL_NEEDS_INITIATOR,
    .programs = programs,
    .check = iscsi_check,
    .find_sources = direct_find,
    .scan = direct_scan,
    .volume_url = unit_url,
};
POOL_BACKEND(direct_backend);
