/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What stays of networks: descriptions, which start by themselves, which run. See network.h,
 * Stored.
 *
 * Thread    The loop thread.
 */
#include "base/log.h"
#include "manager/network/network_priv.h"
#include "manager/network/openvswitch.h"
#include "manager/store.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

static char *config_path(const char *name)
{
    return g_strdup_printf("%s/networks/%s.xml", manager.config_dir, name);
}

static char *autostart_path(const char *name)
{
    return g_strdup_printf("%s/networks/autostart/%s.xml", manager.config_dir, name);
}

char *network_run_path(const char *name, const char *suffix)
{
    return g_strdup_printf("%s/networks/%s.%s", manager.runtime_dir, name, suffix);
}

/* Others' programs look in the folder of what runs. */
static bool make_folder(const char *file, int mode, GError **error)
{
    g_autofree char *dir = g_path_get_dirname(file);
    return g_mkdir_with_parents(dir, mode) == 0 ||
           ruche_error_errno(error, errno, "cannot make folder '%s'", dir);
}

bool network_check_stored(const char *name, const char *what, const char *text, GError **error)
{
    size_t bytes = strlen(text);
    return bytes <= NETWORK_STORED_MAX ||
           ruche_error(error, RUCHE_ERR_XML,
                       "network '%s': %s has %zu bytes when it is written out; at most %u can be "
                       "read again",
                       name, what, bytes, NETWORK_STORED_MAX);
}

/* Of a description that is gone its link means nothing: a new one of that name takes it away. */
bool network_save(struct network *n, GError **error)
{
    g_autofree char *path = config_path(n->name), *link = autostart_path(n->name);
    g_autoptr(GError) inner = NULL;
    if (!n->persistent) {
        if (!store_remove(path, error))
            return false;
        if (!store_remove(link, &inner))
            log_warn("network '%s': %s", n->name, inner->message);
        return true;
    }
    if (!network_check_stored(n->name, "its description", n->text, error) ||
        !make_folder(link, 0700, error) || !store_write(path, n->text, 0600, error))
        return false;
    return n->autostart ? store_link(link, path, error) : store_remove(link, error);
}

bool network_save_state(struct network *n, bool runs, GError **error)
{
    g_autofree char *path = network_run_path(n->name, "xml"),
                    *leases = network_run_path(n->name, "leases");
    if (runs)
        return network_check_stored(n->name, "its description", network_text(n), error) &&
               make_folder(path, 0711, error) &&
               store_write_volatile(path, network_text(n), 0600, error);
    g_unlink(leases);
    return store_remove(path, error);
}

/* A file NAME.xml whose description has that name. NULL: it is not one, and a line of the log says
 * why. */
static struct network *load_file(const char *dir, const char *file)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);
    g_autoptr(GError) error = NULL;
    g_autofree char *text = store_read(path, NETWORK_STORED_MAX, &error);
    struct network_def d;
    if (!text || !network_def_parse(&d, text, NETWORK_DEF_LIVE, &error)) {
        log_warn("network '%s' is left out: %s", path, error->message);
        return NULL;
    }
    g_autofree char *wanted = g_strconcat(d.name, ".xml", NULL);
    struct network *n = strcmp(wanted, file) ? NULL : network_new(&d);
    if (!n)
        log_warn("network '%s' is left out: it describes '%s'", path, d.name);
    network_def_done(&d);
    return n;
}

static void load_folder(const char *dir, void (*fn)(struct network *n))
{
    g_autoptr(GDir) entries = g_dir_open(dir, 0, NULL);
    const char *name;
    while (entries && (name = g_dir_read_name(entries))) {
        struct network *n = g_str_has_suffix(name, ".xml") ? load_file(dir, name) : NULL;
        if (n)
            fn(n);
        network_unref(n);
    }
}

static void add_stored(struct network *n)
{
    g_autofree char *link = autostart_path(n->name);
    struct network *other = network_find_uuid(n->uuid, NULL);
    if (other) {
        log_warn("network '%s' is left out: its UUID is that of '%s'", n->name, other->name);
        network_unref(other);
        return;
    }
    n->persistent = true;
    n->autostart = g_file_test(link, G_FILE_TEST_IS_SYMLINK);
    network_insert(n);
}

/* It ran when the manager ended: that description is the live one. */
static void add_running(struct network *n)
{
    struct network *known = network_find_name(n->name, NULL);
    if (known && memcmp(known->uuid, n->uuid, sizeof(n->uuid)) != 0) {
        log_warn("network '%s': what runs has another UUID than what is stored", n->name);
    } else if (known) {
        known->live_text = g_strdup(n->text);
        g_free(known->bridge);
        known->bridge = g_strdup(n->bridge);
        known->mode = n->mode;
    } else {
        network_insert(n);
        known = network_ref(n);
        known->live_text = g_strdup(n->text);
    }
    known->active = true;
    network_unref(known);
}

bool networks_load(GError **error)
{
    g_autofree char *stored = g_strdup_printf("%s/networks", manager.config_dir);
    g_autofree char *running = g_strdup_printf("%s/networks", manager.runtime_dir);
    store_clean_dir(stored);
    store_clean_dir(running);
    ovs_load();
    bool first = !manager.session && !g_file_test(stored, G_FILE_TEST_IS_DIR);
    load_folder(stored, add_stored);
    load_folder(running, add_running);
    if (first)
        network_define_default();
    g_autoptr(GPtrArray) all = network_all();
    for (unsigned i = 0; i < all->len; i++) {
        network_ports_load(all->pdata[i]);
        network_resume(all->pdata[i]);
    }
    return true;
}
