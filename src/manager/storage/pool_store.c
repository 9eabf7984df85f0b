/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What stays of pools: descriptions, which start by themselves, which run, settings.
 *
 * Stored    config_dir/storage/NAME.xml, config_dir/storage/autostart/NAME.xml (a link to it),
 *           config_dir/storage/settings/NAME ("warn_percent=90"), and runtime_dir/storage/NAME.xml
 *           while it runs: a host that boots begins with none.
 * Thread    The loop thread.
 */
#include "base/log.h"
#include "base/units.h"
#include "manager/storage/storage_priv.h"
#include "manager/store.h"

#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>

enum { STORED_MAX = 1 << 20 };

static char *config_path(const char *name)
{
    return g_strdup_printf("%s/storage/%s.xml", manager.config_dir, name);
}

static char *autostart_path(const char *name)
{
    return g_strdup_printf("%s/storage/autostart/%s.xml", manager.config_dir, name);
}

static char *settings_path(const char *name)
{
    return g_strdup_printf("%s/storage/settings/%s", manager.config_dir, name);
}

static char *state_path(const char *name)
{
    return g_strdup_printf("%s/storage/%s.xml", manager.runtime_dir, name);
}

static bool make_folder(const char *file, GError **error)
{
    g_autofree char *dir = g_path_get_dirname(file);
    return g_mkdir_with_parents(dir, 0700) == 0 ||
           ruche_error_errno(error, errno, "cannot make folder '%s'", dir);
}

bool pool_save(struct pool *p, GError **error)
{
    g_autofree char *path = config_path(p->name), *link = autostart_path(p->name);
    const struct pool_def *d = p->stored ? p->stored : p->def;
    if (!p->persistent)
        return store_remove(link, error) && store_remove(path, error);
    if (!make_folder(link, error) || !store_write(path, d->text, 0600, error))
        return false;
    return p->autostart ? store_link(link, path, error) : store_remove(link, error);
}

bool pool_save_state(struct pool *p, GError **error)
{
    g_autofree char *path = state_path(p->name);
    if (!pool_runs(p))
        return store_remove(path, error);
    return make_folder(path, error) && store_write_volatile(path, p->def->text, 0600, error);
}

bool pool_save_settings(struct pool *p, GError **error)
{
    g_autofree char *path = settings_path(p->name);
    if (!p->persistent || !p->warn_percent)
        return store_remove(path, error);
    g_autofree char *text = g_strdup_printf("warn_percent=%u\n", p->warn_percent);
    return make_folder(path, error) && store_write(path, text, 0600, error);
}

static void load_settings(struct pool *p)
{
    g_autofree char *path = settings_path(p->name);
    g_autofree char *text = store_read(path, 4096, NULL);
    uint64_t v;
    if (!text || !g_str_has_prefix(text, "warn_percent="))
        return;
    g_strstrip(text);
    if (units_parse_u64(text + strlen("warn_percent="), &v) && v <= 100)
        p->warn_percent = (unsigned)v;
}

/* A file NAME.xml whose description has that name. NULL: it is not one, and a line of the log says
 * why. */
static struct pool *load_file(const char *dir, const char *file)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);
    g_autoptr(GError) error = NULL;
    g_autofree char *text = store_read(path, STORED_MAX, &error);
    struct pool_def *d = text ? pool_def_new(text, false, &error) : NULL;
    if (!d) {
        log_warn("storage pool '%s' is left out: %s", path, error->message);
        return NULL;
    }
    g_autofree char *wanted = g_strconcat(d->name, ".xml", NULL);
    if (!strcmp(wanted, file))
        return pool_new(d);
    log_warn("storage pool '%s' is left out: it describes '%s'", path, d->name);
    pool_def_free(d);
    return NULL;
}

static void load_folder(const char *dir, void (*fn)(struct pool *p))
{
    g_autoptr(GDir) entries = g_dir_open(dir, 0, NULL);
    const char *name;
    while (entries && (name = g_dir_read_name(entries))) {
        struct pool *p = g_str_has_suffix(name, ".xml") ? load_file(dir, name) : NULL;
        if (p)
            fn(p);
        pool_unref(p);
    }
}

static void add_stored(struct pool *p)
{
    g_autofree char *link = autostart_path(p->name);
    g_autoptr(GPtrArray) all = pool_all();
    for (unsigned i = 0; i < all->len; i++)
        if (!memcmp(((struct pool *)all->pdata[i])->uuid, p->uuid, sizeof(p->uuid))) {
            log_warn("storage pool '%s' is left out: its UUID is another's", p->name);
            return;
        }
    p->persistent = true;
    p->autostart = g_file_test(link, G_FILE_TEST_IS_SYMLINK);
    load_settings(p);
    pool_insert(p);
}

/* It ran when the manager ended. */
static void add_running(struct pool *p)
{
    struct pool *known = pool_find_name(p->name, NULL);
    if (!known) {
        pool_insert(p);
        known = pool_ref(p);
    } else if (known->backend == p->backend && strcmp(known->def->text, p->def->text) != 0) {
        known->stored = known->def; /* it runs by another description than the stored one */
        known->def = g_steal_pointer(&p->def);
    }
    known->state = POOL_RUNNING;
    pool_resume(known);
    pool_unref(known);
}

bool pools_load(GError **error)
{
    g_autofree char *stored = g_strdup_printf("%s/storage", manager.config_dir);
    g_autofree char *running = g_strdup_printf("%s/storage", manager.runtime_dir);
    store_clean_dir(stored);
    store_clean_dir(running);
    load_folder(stored, add_stored);
    load_folder(running, add_running);
    return true;
}
