/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changes that can be taken back: definitions and the kernel's state from before, in a file until
 * the commit.
 *
 * Stored    config_dir/interfaces.change: <change><definition name=''>XML</definition><running
 *           name=''>XML</running> <snapshot/></change>. As long as it is there, the next start of
 *           the manager goes back to it.
 * Thread    The loop thread, in a task, with the lock; what blocks on workers.
 */
#include "base/log.h"
#include "manager/interface/interface_priv.h"
#include "manager/store.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>

static bool pending;
static guint timer;
static int64_t deadline_us;

static char *change_path(void)
{
    return g_strdup_printf("%s/interfaces.change", manager.config_dir);
}

/* ---- begin, commit ---- */

static void add_text(struct xml_node *root, const char *what, const char *name, const char *text)
{
    struct xml_node *n = xml_add(root, what);
    xml_set(n, "@name", name);
    xml_set(n, "", text);
}

static char *describe(void)
{
    auto_xml *doc = snapshot_take(NULL, NULL);
    auto_xml *root = xml_new("change");
    GHashTableIter it;
    struct interface_entry *e;
    g_hash_table_iter_init(&it, interface_entries());
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&e)) {
        g_autofree char *running = e->running ? xml_format(e->running, 0) : NULL;
        const char *const texts[] = {e->text, running};
        for (int i = 0; i < 2; i++)
            if (texts[i])
                add_text(root, i ? "running" : "definition", e->name, texts[i]);
    }
    xml_append(root, g_steal_pointer(&doc));
    return xml_format(root, 0);
}

static void forget_timer(void)
{
    g_clear_handle_id(&timer, g_source_remove);
    deadline_us = 0;
}

static void late_task(void *opaque)
{
    g_autoptr(GError) error = NULL;
    log_warn("the change of interfaces was not confirmed in time, and is rolled back");
    if (pending && !interface_change_rollback(&caller_self, &error))
        log_warn("%s", error->message);
}

static gboolean late(gpointer opaque)
{
    timer = 0;
    task_start(late_task, NULL);
    return G_SOURCE_REMOVE;
}

static bool do_begin(const char *name, void *opaque, GError **error)
{
    unsigned timeout_s = *(unsigned *)opaque;
    g_autofree char *path = change_path(), *text = NULL;
    if (pending)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "a change of interfaces is under way: commit it or roll it back first");
    text = describe();
    if (!interface_check_note("the state of this host's interfaces", text, "change", error) ||
        !store_write(path, text, 0600, error))
        return false;
    pending = true;
    if (timeout_s) {
        deadline_us = g_get_monotonic_time() + (int64_t)timeout_s * G_USEC_PER_SEC;
        timer = g_timeout_add_seconds(timeout_s, late, NULL);
    }
    return true;
}

bool interface_change_begin(const struct caller *who, unsigned timeout_s, GError **error)
{
    return interface_operation(who, NULL, "begin a change of", do_begin, &timeout_s, error);
}

static bool check_pending(GError **error)
{
    return pending || ruche_error(error, RUCHE_ERR_STATE, "no change of interfaces is under way");
}

static bool do_commit(const char *name, void *opaque, GError **error)
{
    g_autofree char *path = change_path();
    if (!check_pending(error) || !store_remove(path, error))
        return false;
    pending = false;
    forget_timer();
    return true;
}

bool interface_change_commit(const struct caller *who, GError **error)
{
    return interface_operation(who, NULL, "commit a change of", do_commit, NULL, error);
}

bool interface_change_pending(unsigned *ret_left_s)
{
    int64_t left = deadline_us ? deadline_us - g_get_monotonic_time() : 0;
    *ret_left_s = deadline_us ? (unsigned)MAX(1, left / G_USEC_PER_SEC) : 0;
    return pending;
}

/* ---- rollback ---- */

static const char *text_of(const struct xml_node *root, const char *what, const char *name)
{
    struct xml_node *n = xml_find(root, what);
    while (n && !xml_is(n, "@name", name))
        n = xml_next(n);
    return n ? xml_get(n, "") : NULL;
}

static void add_names(GPtrArray *names, const char *text)
{
    auto_interface_def d = {0};
    g_autoptr(GPtrArray) found = g_ptr_array_new();
    if (!text || !interface_def_parse(&d, text, 0, NULL))
        return;
    interface_names(d.root, true, found);
    for (unsigned i = 0; i < found->len; i++)
        g_ptr_array_add(names, g_strdup(found->pdata[i]));
}

static void add_running(GPtrArray *names, const struct xml_node *running)
{
    struct xml_node *def = running ? xml_find(running, "interface") : NULL;
    g_autofree char *text = def ? xml_format(def, 0) : NULL;
    add_names(names, text);
}

static struct xml_node *parse_running(const char *text)
{
    return text ? xml_parse(text, strlen(text), "running", NULL) : NULL;
}

/* All that the change may have touched: what is described now and what was. */
static GPtrArray *touched(const struct xml_node *root)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    GHashTableIter it;
    struct interface_entry *e;
    g_hash_table_iter_init(&it, interface_entries());
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&e)) {
        add_names(names, e->text);
        add_running(names, e->running);
    }
    for (struct xml_node *n = xml_find(root, "definition"); n; n = xml_next(n))
        add_names(names, xml_get(n, ""));
    for (struct xml_node *n = xml_find(root, "running"); n; n = xml_next(n)) {
        auto_xml *doc = parse_running(xml_get(n, ""));
        add_running(names, doc);
    }
    return names;
}

struct restore_work {
    const struct xml_node *snapshot;
    GPtrArray *names, *running; /* of trees */
    GError *error;
};

static void restore_work(void *opaque)
{
    struct restore_work *w = opaque;
    g_autoptr(GHashTable) indexes = g_hash_table_new(g_str_hash, g_str_equal);
    for (struct xml_node *l = xml_find(w->snapshot, "link"); l; l = xml_next(l))
        g_hash_table_insert(indexes, (gpointer)xml_get_or(l, "@name", ""),
                            GUINT_TO_POINTER((unsigned)xml_get_u64(l, "@index", 0)));
    snapshot_restore(w->snapshot, w->names, NULL); /* ports are free again */
    for (unsigned i = 0; i < w->running->len; i++) {
        struct xml_node *def = xml_find(w->running->pdata[i], "interface");
        GError **error = w->error ? NULL : &w->error;
        if (def && !if_nametoindex(xml_get_or(def, "@name", "")))
            interface_make(def, indexes, error);
    }
    snapshot_restore(w->snapshot, w->names, w->error ? NULL : &w->error);
}

static void restore_kernel(const struct xml_node *root, GPtrArray *names, GError **error)
{
    g_autofree char *boot = snapshot_boot();
    g_autoptr(GPtrArray) running = g_ptr_array_new_with_free_func((GDestroyNotify)xml_free);
    struct restore_work w = {xml_find(root, "snapshot"), names, running, NULL};
    if (!w.snapshot || !xml_is(w.snapshot, "@boot", boot))
        return; /* the host was started anew: nothing is there that could be put back */
    for (struct xml_node *n = xml_find(root, "running"); n; n = xml_next(n)) {
        struct xml_node *doc = parse_running(xml_get(n, ""));
        if (doc)
            g_ptr_array_add(running, doc);
    }
    task_work_long(restore_work, &w);
    if (w.error)
        g_propagate_error(error, w.error);
}

static bool restore_entry(const struct xml_node *root, const char *name, GError **error)
{
    struct interface_entry *e = interface_entry(name, true);
    const char *text = text_of(root, "definition", name), *running = text_of(root, "running", name);
    g_autofree char *now = e->running ? xml_format(e->running, 0) : NULL;
    g_autofree char *boot = snapshot_boot();
    bool same = g_strcmp0(text, e->text) == 0;
    if (g_strcmp0(now, running) != 0) {
        lease_client_stop(name);
        g_clear_pointer(&e->running, xml_free);
        e->running = xml_is(root, "snapshot@boot", boot) ? parse_running(running) : NULL;
        interface_save_running(e, true, NULL);
    }
    if (!same) {
        g_free(e->text);
        e->text = g_strdup(text);
    }
    bool ok = same || interface_save(e, error);
    interface_drop_empty(e);
    return ok;
}

static bool restore_entries(const struct xml_node *root, GError **error)
{
    g_autoptr(GHashTable) names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    static const char *const kinds[] = {"definition", "running"};
    GHashTableIter it;
    const char *name;
    g_hash_table_iter_init(&it, interface_entries());
    while (g_hash_table_iter_next(&it, (gpointer *)&name, NULL))
        g_hash_table_add(names, g_strdup(name));
    for (int i = 0; i < 2; i++)
        for (struct xml_node *n = xml_find(root, kinds[i]); n; n = xml_next(n))
            g_hash_table_add(names, g_strdup(xml_get_or(n, "@name", "")));
    bool ok = true;
    g_hash_table_iter_init(&it, names);
    while (ok && g_hash_table_iter_next(&it, (gpointer *)&name, NULL))
        ok = restore_entry(root, name, error);
    return ok;
}

static bool roll_back(GError **error)
{
    g_autofree char *path = change_path();
    g_autofree char *text = store_read(path, INTERFACE_STORED_MAX, error);
    auto_xml *root = text ? xml_parse(text, strlen(text), "change", error) : NULL;
    g_autoptr(GError) inner = NULL;
    if (!root)
        return false;
    g_autoptr(GPtrArray) names = touched(root);
    if (!restore_entries(root, error))
        return false;
    restore_kernel(root, names, &inner);
    if (!store_remove(path, error))
        return false;
    pending = false;
    forget_timer();
    GHashTableIter it;
    struct interface_entry *e;
    g_hash_table_iter_init(&it, interface_entries());
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&e))
        interface_sync_client(e);
    if (inner)
        g_propagate_error(error, g_steal_pointer(&inner));
    return !inner;
}

static bool do_rollback(const char *name, void *opaque, GError **error)
{
    return check_pending(error) && roll_back(error);
}

bool interface_change_rollback(const struct caller *who, GError **error)
{
    return interface_operation(who, NULL, "roll back a change of", do_rollback, NULL, error);
}

/* ---- a manager that starts ---- */

static bool do_settle(const char *name, void *opaque, GError **error)
{
    g_autofree char *path = change_path();
    g_autoptr(GList) all = g_hash_table_get_values(interface_entries());
    for (GList *l = all; l; l = l->next) {
        struct interface_entry *e = l->data;
        if (e->running && !xml_is(e->running, "@whole", "yes"))
            interface_undo(e);
        else
            interface_sync_client(e);
        interface_drop_empty(e);
    }
    pending = g_file_test(path, G_FILE_TEST_EXISTS);
    if (!pending)
        return true;
    log_warn("a change of interfaces was not committed, and is rolled back");
    return roll_back(error);
}

void interface_settle(void)
{
    g_autoptr(GError) error = NULL;
    if (!interface_operation(&caller_self, NULL, "settle", do_settle, NULL, &error))
        log_warn("interfaces: %s", error->message);
}

void interface_change_forget(void)
{
    pending = false;
    forget_timer();
}
