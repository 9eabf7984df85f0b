/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ports of Open vSwitch; see openvswitch.h.
 *
 * Ports are made and taken away one at a time (`lock`). A name can be another machine's before the
 * port that had it last is gone: the table says whose it is, and the database's vm-id whose row.
 */
#include "manager/network/openvswitch.h"
#include "base/log.h"
#include "manager/manager.h"
#include "manager/network/openvswitch_row.h"
#include "manager/package.h"
#include "manager/store.h"
#include "ovsdb/client.h"
#include "ovsdb/tls.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <net/if.h>
#include <string.h>

#define DATABASE       "Open_vSwitch"
#define USUAL_ADDRESS  "unix:/run/openvswitch/db.sock"
#define TIMEOUT_MS     5000
#define NOTE_BYTES_MAX 4096

struct note {
    char *ifname, *owner, *mac;
};

static struct ovsdb_client *client;
static struct fiber_mutex lock;
static GHashTable *ours, *leaving; /* ifname to struct note; leaving: could not be taken away yet */

static void note_free(gpointer p)
{
    struct note *n = p;
    g_free(n->ifname);
    g_free(n->owner);
    g_free(n->mac);
    g_free(n);
}

static struct note *note_new(const char *ifname, const char *owner, const char *mac)
{
    struct note *n = g_new(struct note, 1);
    *n = (struct note){g_strdup(ifname), g_strdup(owner), g_strdup(mac)};
    return n;
}

static GHashTable *table(GHashTable **t)
{
    if (!*t)
        *t = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, note_free);
    return *t;
}

static char *note_path(const char *ifname)
{
    return g_build_filename(manager.runtime_dir, "openvswitch", ifname, NULL);
}

static bool note_write(const struct note *n, GError **error)
{
    g_autofree char *path = note_path(n->ifname), *dir = g_path_get_dirname(path);
    g_autofree char *text = g_strdup_printf("%s %s\n", n->owner, n->mac);
    if (g_mkdir_with_parents(dir, 0700) < 0)
        return ruche_error_errno(error, errno, "cannot make folder '%s'", dir);
    return store_write_volatile(path, text, 0600, error);
}

/* ---- the database ---- */

static const char *address(void)
{
    return manager.ovsdb ? manager.ovsdb : USUAL_ADDRESS;
}

/* Where nobody listens, the package may be missing. */
static bool explain(GError *why, GError **error)
{
    g_autoptr(GError) e = why;
    g_autofree char *advice = package_advice("ovs-vswitchd");
    if (!g_error_matches(e, OVSDB_CLIENT_ERROR, OVSDB_ERR_UNREACHABLE))
        return ruche_error(error,
                           e->domain == OVSDB_CLIENT_ERROR && e->code == OVSDB_ERR_SILENT
                               ? MANAGER_ERR_TIMEOUT
                               : MANAGER_ERR_CONFIG,
                           "Open vSwitch: %s", e->message);
    return ruche_error(
        error, RUCHE_ERR_UNSUPPORTED, "Open vSwitch's database does not answer at %s; %s",
        e->message,
        advice ? advice : "is it started? Another place is said by [network] ovsdb in ruched.conf");
}

/* (waits) */
static JsonArray *transact(JsonArray *ops, GError **error)
{
    GError *why = NULL;
    if (!client)
        client = ovsdb_client_new(address(), NULL, NULL, error);
    if (!client) {
        json_array_unref(ops);
        return NULL;
    }
    const struct ovsdb_tls_files files = {manager.ovsdb_key, manager.ovsdb_certificate,
                                          manager.ovsdb_ca};
    ovsdb_client_set_tls(client, &files);
    JsonArray *results = ovsdb_client_transact(client, DATABASE, ops, TIMEOUT_MS * 2, &why);
    if (!results)
        explain(why, error);
    return results;
}

/* The UUID of the first row of a select; NULL: there is none. */
static char *uuid_in(JsonArray *results, unsigned index)
{
    JsonObject *row = ovsdb_first_row(results, index);
    auto_ovsdb_datum d = {0};
    return row && !ovsdb_row_get(row, "_uuid", &d) ? g_strdup(ovsdb_datum_text(&d, OVSDB_UUID))
                                                   : NULL;
}

/* ---- plug ---- */

/* transact() of what waits for ovs-vswitchd. (waits) */
static JsonArray *await(JsonArray *ops, const struct ovs_port *p, GError **error)
{
    g_autoptr(GError) why = NULL;
    JsonArray *results = transact(ops, &why);
    if (!results && strstr(why->message, "timed out"))
        ruche_error(error, MANAGER_ERR_TIMEOUT,
                    "Open vSwitch did not take port '%s' within %d s: is ovs-vswitchd running?",
                    p->ifname, TIMEOUT_MS / 1000);
    else if (!results)
        g_propagate_error(error, g_steal_pointer(&why));
    return results;
}

/* ofport is there when the switch has looked at the row; -1 with a reason when it could not take
 * it. (waits) */
static bool wait_for_switch(const struct ovs_port *p, GError **error)
{
    JsonArray *ops = json_array_new();
    ovs_add_wait(ops, p->ifname, TIMEOUT_MS);
    g_autoptr(JsonArray) results = await(ops, p, error);
    if (!results)
        return false;
    JsonObject *row = ovsdb_first_row(results, 1);
    auto_ovsdb_datum d = {0};
    const char *text =
        row && !ovsdb_row_get(row, "error", &d) ? ovsdb_datum_text(&d, OVSDB_STRING) : NULL;
    return !text || ruche_error(error, MANAGER_ERR_CONFIG,
                                "Open vSwitch cannot take port '%s' on bridge '%s': %.200s",
                                p->ifname, p->bridge, text);
}

static bool add_port(const struct ovs_port *p, GError **error)
{
    JsonArray *ops = json_array_new();
    ovs_add_select(ops, "Bridge", p->bridge, NULL);
    ovs_add_select(ops, "Port", p->ifname, NULL);
    g_autoptr(JsonArray) found = transact(ops, error);
    if (!found)
        return false;
    g_autofree char *bridge = uuid_in(found, 0), *old = uuid_in(found, 1);
    if (!bridge)
        return ruche_error(
            error, MANAGER_ERR_CONFIG,
            "there is no bridge '%s' in Open vSwitch (%s); make it with: ovs-vsctl add-br %s",
            p->bridge, address(), p->bridge);
    ops = json_array_new();
    if (old)
        ovs_add_removal(ops, old);
    ovs_add_no_limits(ops, p->ifname, NULL); /* of the port that had the name before as well */
    ovs_add_port(ops, p, bridge);
    g_autoptr(JsonArray) done = transact(ops, error);
    return done && wait_for_switch(p, error);
}

bool ovs_plug(const struct ovs_port *p, GError **error)
{
    struct note *n = note_new(p->ifname, p->owner, p->mac);
    fiber_mutex_lock(&lock);
    bool ok = note_write(n, error);
    if (ok) {
        g_hash_table_remove(table(&leaving), n->ifname);
        g_hash_table_replace(table(&ours), n->ifname, n);
        ok = add_port(p, error);
    } else {
        note_free(n);
    }
    fiber_mutex_unlock(&lock);
    if (!ok)
        ovs_unplug(p->ifname);
    return ok;
}

/* The database has it, and the switch will: late is no failure. (waits) */
static void wait_for_change(const struct ovs_port *p, JsonObject *row)
{
    g_autoptr(JsonArray) ops = json_array_new();
    g_autoptr(GError) error = NULL;
    if (!ovs_add_wait_change(ops, row, TIMEOUT_MS))
        return;
    g_autoptr(JsonArray) results = await(g_steal_pointer(&ops), p, &error);
    if (!results)
        log_warn("port '%s' is changed in the database, not yet in the switch: %s", p->ifname,
                 error->message);
}

bool ovs_change(const struct ovs_port *p, GError **error)
{
    JsonArray *ops = json_array_new();
    fiber_mutex_lock(&lock);
    ovs_add_no_limits(ops, p->ifname, p->owner);
    unsigned index = ovs_add_change(ops, p), last = json_array_get_length(ops) - 1;
    g_autoptr(JsonArray) done = transact(ops, error);
    fiber_mutex_unlock(&lock);
    if (!done)
        return false;
    if (ovsdb_count(done, index) != 1)
        return ruche_error(error, MANAGER_ERR_CONFIG, "Open vSwitch has no port '%s'", p->ifname);
    wait_for_change(p, ovsdb_first_row(done, last));
    return true;
}

/* ---- unplug ---- */

/* (waits) */
static bool remove_port(const struct note *n, GError **error)
{
    JsonArray *ops = json_array_new();
    ovs_add_select(ops, "Interface", n->ifname, n->owner);
    ovs_add_select(ops, "Port", n->ifname, NULL);
    g_autoptr(JsonArray) found = transact(ops, error);
    if (!found)
        return false;
    g_autofree char *interface = uuid_in(found, 0), *port = uuid_in(found, 1);
    ops = json_array_new();
    ovs_add_no_limits(ops, n->ifname, n->owner);
    if (interface && port) /* else it is gone, or another's */
        ovs_add_removal(ops, port);
    g_autoptr(JsonArray) done = transact(ops, error);
    return done != NULL;
}

static void unplug_task(void *opaque)
{
    g_autofree char *ifname = opaque;
    g_autoptr(GError) error = NULL;
    g_autofree char *path = note_path(ifname);
    fiber_mutex_lock(&lock);
    struct note *n = g_hash_table_lookup(table(&leaving), ifname);
    if (n && remove_port(n, &error)) {
        g_hash_table_remove(leaving, ifname);
        g_unlink(path);
    } else if (n) {
        log_warn("port '%s' of Open vSwitch stays until it can be taken away: %s", ifname,
                 error->message);
    }
    fiber_mutex_unlock(&lock);
}

void ovs_unplug(const char *ifname)
{
    struct note *n;
    if (!g_hash_table_steal_extended(table(&ours), ifname, NULL, (gpointer *)&n))
        return;
    g_hash_table_replace(table(&leaving), n->ifname, n);
    task_start(unplug_task, g_strdup(n->ifname));
}

void ovs_unplug_owner(const char *owner, const char *mac)
{
    g_autoptr(GList) notes = g_hash_table_get_values(table(&ours));
    for (GList *l = notes; l; l = l->next) {
        const struct note *n = l->data;
        if (!g_ascii_strcasecmp(n->owner, owner) && (!mac || !g_ascii_strcasecmp(n->mac, mac)))
            ovs_unplug(n->ifname);
    }
}

/* ---- life ---- */

static void load_note(const char *ifname)
{
    g_autofree char *path = note_path(ifname), *text = store_read(path, NOTE_BYTES_MAX, NULL);
    char owner[37], mac[18];
    if (!text || strlen(ifname) >= IFNAMSIZ || sscanf(text, "%36s %17s", owner, mac) != 2)
        return;
    struct note *n = note_new(ifname, owner, mac);
    g_hash_table_replace(table(&ours), n->ifname, n);
    if (!if_nametoindex(ifname))
        ovs_unplug(ifname);
}

void ovs_load(void)
{
    g_autofree char *dir = g_build_filename(manager.runtime_dir, "openvswitch", NULL);
    store_clean_dir(dir);
    g_autoptr(GDir) entries = g_dir_open(dir, 0, NULL);
    for (const char *name; entries && (name = g_dir_read_name(entries));)
        load_note(name);
}

void ovs_refresh(void)
{
    g_autoptr(GList) names = g_hash_table_get_keys(table(&leaving));
    for (GList *l = names; l; l = l->next)
        task_start(unplug_task, g_strdup(l->data));
}

void ovs_stop(void)
{
    g_clear_pointer(&client, ovsdb_client_free);
    g_clear_pointer(&ours, g_hash_table_unref);
    g_clear_pointer(&leaving, g_hash_table_unref);
}
