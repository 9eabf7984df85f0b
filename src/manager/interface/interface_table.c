/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is known of interfaces beside what the kernel says: definitions, and what was brought up by
 * us. See interface.h, Stored.
 *
 * Thread    The loop thread.
 */
#include "base/log.h"
#include "manager/interface/interface_priv.h"
#include "manager/store.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <net/if.h>
#include <string.h>

static GHashTable *entries;

static void entry_free(void *opaque)
{
    struct interface_entry *e = opaque;
    g_free(e->name);
    g_free(e->text);
    g_clear_pointer(&e->running, xml_free);
    g_free(e);
}

GHashTable *interface_entries(void)
{
    if (!entries)
        entries = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, entry_free);
    return entries;
}

struct interface_entry *interface_entry(const char *name, bool make)
{
    struct interface_entry *e = g_hash_table_lookup(interface_entries(), name);
    if (e || !make)
        return e;
    e = g_new0(struct interface_entry, 1);
    e->name = g_strdup(name);
    g_hash_table_insert(entries, e->name, e);
    return e;
}

void interface_drop_empty(struct interface_entry *e)
{
    if (!e->text && !e->running)
        g_hash_table_remove(entries, e->name);
}

/* ---- files ---- */

static char *config_path(const char *name)
{
    return g_strdup_printf("%s/interfaces/%s.xml", manager.config_dir, name);
}

char *interface_run_path(const char *name, const char *suffix)
{
    return g_strdup_printf("%s/interfaces/%s.%s", manager.runtime_dir, name, suffix);
}

static bool make_folder(const char *file, GError **error)
{
    g_autofree char *dir = g_path_get_dirname(file);
    return g_mkdir_with_parents(dir, 0700) == 0 ||
           ruche_error_errno(error, errno, "cannot make folder '%s'", dir);
}

bool interface_check_note(const char *what, const char *text, const char *root, GError **error)
{
    g_autoptr(GError) inner = NULL;
    auto_xml *again = xml_parse(text, strlen(text), root, &inner);
    return again || ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                                "%s cannot be noted, to be gone back to: %s", what, inner->message);
}

bool interface_save(struct interface_entry *e, GError **error)
{
    g_autofree char *path = config_path(e->name);
    if (!e->text)
        return store_remove(path, error);
    return make_folder(path, error) && store_write(path, e->text, 0600, error);
}

bool interface_save_running(struct interface_entry *e, bool whole, GError **error)
{
    g_autofree char *path = interface_run_path(e->name, "xml"), *text = NULL;
    if (!e->running) {
        g_unlink(path);
        return true;
    }
    xml_set(e->running, "@whole", whole ? "yes" : "no");
    text = xml_format(e->running, 0);
    g_autofree char *what = g_strdup_printf("interface '%s': what was before it", e->name);
    return interface_check_note(what, text, "running", error) && make_folder(path, error) &&
           store_write_volatile(path, text, 0600, error);
}

/* ---- reading ---- */

static void load_definition(const char *path, const char *name)
{
    auto_interface_def d = {0};
    g_autoptr(GError) error = NULL;
    g_autofree char *text = store_read(path, INTERFACE_STORED_MAX, &error);
    if (!text || !interface_def_parse(&d, text, 0, &error))
        log_warn("interface '%s' is left out: %s", path, error->message);
    else if (strcmp(d.name, name) != 0)
        log_warn("interface '%s' is left out: it describes '%s'", path, d.name);
    else
        interface_entry(name, true)->text = interface_def_format(&d);
}

/* Of a boot before this one, or of an interface that somebody took away: it does not run any more.
 */
static void load_running(const char *path, const char *name)
{
    g_autofree char *text = store_read(path, INTERFACE_STORED_MAX, NULL), *boot = snapshot_boot();
    auto_xml *root = text ? xml_parse(text, strlen(text), "running", NULL) : NULL;
    bool whole = root && xml_is(root, "@whole", "yes");
    if (!root || !xml_is(root, "snapshot@boot", boot) || !xml_find(root, "interface") ||
        (whole && !if_nametoindex(name)))
        g_unlink(path);
    else
        interface_entry(name, true)->running = g_steal_pointer(&root);
}

static void load_folder(const char *dir, void (*fn)(const char *path, const char *name))
{
    g_autoptr(GDir) files = g_dir_open(dir, 0, NULL);
    for (const char *file; files && (file = g_dir_read_name(files));) {
        g_autofree char *path = g_build_filename(dir, file, NULL);
        g_autofree char *name =
            g_str_has_suffix(file, ".xml") ? g_strndup(file, strlen(file) - 4) : NULL;
        if (name && strlen(name) <= INTERFACE_NAME_MAX)
            fn(path, name);
    }
}

static void settle(void *opaque)
{
    interface_settle();
}

bool interfaces_load(GError **error)
{
    g_autofree char *stored = g_strdup_printf("%s/interfaces", manager.config_dir);
    g_autofree char *running = g_strdup_printf("%s/interfaces", manager.runtime_dir);
    store_clean_dir(stored);
    store_clean_dir(running);
    load_folder(stored, load_definition);
    load_folder(running, load_running);
    task_start(settle, NULL);
    return true;
}

void interfaces_stop(void)
{
    interface_change_forget();
    lease_client_forget_all();
    interface_autostart_forget();
    g_clear_pointer(&entries, g_hash_table_unref);
}
