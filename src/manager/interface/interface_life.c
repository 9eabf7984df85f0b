/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interfaces are brought up and down; what was there before comes back.
 *
 * Order     What was before is noted first (<running whole='no'>), so that whatever moment the
 *           manager is killed in, the next one undoes it. A stop is the undoing of the start.
 * Thread    The loop thread, in a task, with the lock; what blocks on workers.
 */
#include "base/log.h"
#include "manager/interface/interface_priv.h"
#include "manager/netlink.h"

#include <net/if.h>
#include <string.h>

enum { GATEWAYS_MAX = 16, BEFORE_S = 3, AFTER_S = 10, RETRY_S = 60 };

static struct xml_node *running_def(const struct interface_entry *e)
{
    return e->running ? xml_find(e->running, "interface") : NULL;
}

/* ---- undoing ---- */

struct undo_work {
    const struct xml_node *snapshot;
    GPtrArray *names;
    const char *down; /* an Ethernet interface that is to be down in any case */
    GError *error;
};

static void undo_work(void *opaque)
{
    struct undo_work *w = opaque;
    snapshot_restore(w->snapshot, w->names, &w->error);
    if (w->down)
        interface_flush(w->down, true, w->error ? NULL : &w->error);
}

static bool undo(struct interface_entry *e, bool down, GError **error)
{
    const struct xml_node *def = running_def(e);
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    struct undo_work w = {.names = names};
    lease_client_stop(e->name);
    interface_names(def, false, names);
    w.snapshot = xml_find(e->running, "snapshot");
    w.down = down && interface_type_of(def) == INTERFACE_ETHERNET ? e->name : NULL;
    task_work_long(undo_work, &w);
    g_clear_pointer(&e->running, xml_free);
    interface_save_running(e, true, NULL);
    if (w.error)
        g_propagate_error(error, w.error);
    return !w.error;
}

void interface_undo(struct interface_entry *e)
{
    g_autoptr(GError) error = NULL;
    log_warn("interface '%s': what was done to it was cut off, and is undone", e->name);
    if (!undo(e, false, &error))
        log_warn("interface '%s': %s", e->name, error->message);
}

/* ---- start ---- */

struct start_work {
    const struct xml_node *root;
    const char *name;
    struct net_addr before[GATEWAYS_MAX];
    unsigned before_count;
    GError *error;
};

static void start_work(void *opaque)
{
    struct start_work *w = opaque;
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    for (const struct xml_node *p = interface_ports(w->root); p; p = xml_next(p))
        g_ptr_array_add(names, (char *)xml_get_or(p, "@name", ""));
    w->before_count = probe_gateways(names, BEFORE_S, w->before, GATEWAYS_MAX);
    interface_make(w->root, NULL, &w->error);
}

static void after_work(void *opaque)
{
    struct start_work *w = opaque;
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    struct net_addr after[GATEWAYS_MAX];
    char text[64];
    double delay = g_ascii_strtod(xml_get_or(w->root, "bridge@delay", "0"), NULL);
    bool stp = xml_is(w->root, "bridge@stp", "on");
    unsigned wait_s = AFTER_S + (unsigned)(2 * (stp ? CLAMP(delay, 2, 30) : MIN(delay, 30)));
    g_ptr_array_add(names, (char *)w->name);
    unsigned count = probe_gateways(names, wait_s, after, GATEWAYS_MAX);
    for (unsigned i = 0; i < w->before_count && !w->error; i++) {
        bool found = false;
        for (unsigned k = 0; k < count; k++)
            found |= after[k].v6 == w->before[i].v6;
        net_addr_format(&w->before[i], text);
        if (!found)
            ruche_error(&w->error, RUCHE_ERR_IO,
                        "interface '%s': with it the host lost its gateway %s; everything is put "
                        "back as it was",
                        w->name, text);
    }
}

static bool note(struct interface_entry *e, const struct xml_node *root, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    interface_names(root, false, names);
    auto_xml *snapshot = snapshot_take(names, root);
    e->running = xml_new("running");
    xml_append(e->running, xml_copy(root));
    xml_append(e->running, g_steal_pointer(&snapshot));
    return interface_save_running(e, false, error);
}

static bool bring_up(const struct interface_entry *e, GError **error)
{
    struct start_work w = {.root = running_def(e), .name = e->name};
    task_work_long(start_work, &w);
    if (!w.error)
        lease_client_start(e->name, w.root, &w.error);
    if (!w.error && w.before_count)
        task_work_long(after_work, &w);
    if (w.error)
        g_propagate_error(error, w.error);
    return !w.error;
}

static bool is_active(const char *name)
{
    auto_host *h = host_read();
    const struct host_link *l = host_find(h, name);
    return l && host_is_up(l);
}

bool interface_do_start(struct interface_entry *e, GError **error)
{
    auto_interface_def d = {0};
    if (is_active(e->name))
        return ruche_error(error, RUCHE_ERR_STATE, "interface '%s' is already active", e->name);
    if (!interface_def_parse(&d, e->text, 0, error))
        return false;
    g_clear_pointer(&e->running, xml_free); /* somebody set it down by hand */
    if (note(e, d.root, error) && bring_up(e, error) && interface_save_running(e, true, error))
        return true;
    undo(e, false, NULL);
    return false;
}

/* ---- stop ---- */

/* A bridge on which machines are is not taken away below them. */
static bool check_machines(const char *name, GError **error)
{
    auto_host *h = host_read();
    const struct host_link *l = host_find(h, name);
    FOREACH_OF(host_link, p, h->links)
    if (l && p->master == l->index && host_is_tap(p) && host_type(l) == INTERFACE_BRIDGE)
        return ruche_error(error, RUCHE_ERR_BUSY,
                           "interface '%s': a machine is connected to it by '%s'", name, p->name);
    return true;
}

static void delete_work(void *opaque)
{
    struct undo_work *w = opaque;
    if (!w->down)
        netlink_delete(w->names->pdata[0]);
    else
        interface_flush(w->down, true, &w->error);
}

/* It was brought up by somebody else, and by our definition it is ours. */
static bool stop_other(struct interface_entry *e, GError **error)
{
    auto_interface_def d = {0};
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    if (!interface_def_parse(&d, e->text, 0, error))
        return false;
    interface_names(d.root, false, names);
    struct undo_work w = {.names = names, .down = d.type == INTERFACE_ETHERNET ? e->name : NULL};
    task_work_long(delete_work, &w);
    if (w.error)
        g_propagate_error(error, w.error);
    return !w.error;
}

bool interface_do_stop(struct interface_entry *e, GError **error)
{
    if (!is_active(e->name) && !e->running)
        return ruche_error(error, RUCHE_ERR_STATE, "interface '%s' is not active", e->name);
    if (!check_machines(e->name, error))
        return false;
    if (!e->running)
        return stop_other(e, error);
    return interface_save_running(e, false, error) && undo(e, true, error);
}

/* ---- with the manager ---- */

void interface_sync_client(struct interface_entry *e)
{
    const struct xml_node *def = running_def(e);
    g_autoptr(GError) error = NULL;
    if (!def || !interface_wants_dhcp(def))
        return;
    if (!lease_client_start(e->name, def, &error))
        log_warn("%s", error->message);
}

static guint retry;

static bool starts_with_host(const struct interface_entry *e)
{
    auto_interface_def d = {0};
    return e->text && interface_def_parse(&d, e->text, 0, NULL) && xml_get(d.root, "start@mode") &&
           !xml_is(d.root, "start@mode", "none") && !is_active(e->name);
}

static bool do_start(const char *name, void *opaque, GError **error)
{
    struct interface_entry *e = interface_entry(name, false);
    return !e || !starts_with_host(e) || interface_do_start(e, error);
}

static gboolean try_again(gpointer opaque)
{
    retry = 0;
    interfaces_autostart();
    return G_SOURCE_REMOVE;
}

/* What is missing now (a server, a cable, a card) may come later. */
static void start_task(void *opaque)
{
    g_autofree char *name = opaque;
    g_autoptr(GError) error = NULL;
    if (interface_operation(&caller_self, name, "autostart", do_start, NULL, &error))
        return;
    log_warn("interface '%s' is not started, and is tried again in %d s: %s", name, RETRY_S,
             error->message);
    if (!retry)
        retry = g_timeout_add_seconds(RETRY_S, try_again, NULL);
}

/* Who waits for a server of addresses does so beside the others. */
void interfaces_autostart(void)
{
    GHashTableIter it;
    struct interface_entry *e;
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_hash_table_iter_init(&it, interface_entries());
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&e))
        if (starts_with_host(e))
            g_ptr_array_add(names, g_strdup(e->name));
    for (unsigned i = 0; i < names->len; i++) {
        e = interface_entry(names->pdata[i], false);
        if (!fiber_self() || (e && e->text && strstr(e->text, "<dhcp")))
            task_start(start_task, g_strdup(names->pdata[i]));
        else
            start_task(g_strdup(names->pdata[i]));
    }
}

void interface_autostart_forget(void)
{
    g_clear_handle_id(&retry, g_source_remove);
}
