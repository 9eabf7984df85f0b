/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bridges in zones of firewalld, by its D-Bus interface.
 *
 * Spec      org.fedoraproject.FirewallD1(5).
 * Thread    Workers: each call waits for firewalld, at most CALL_MS. The watch: the loop thread.
 * Trust     What the bus says is a sentence of an error at most.
 */
#include "manager/network/network_priv.h"

#include <gio/gio.h>
#include <string.h>

#define SERVICE "org.fedoraproject.FirewallD1"
#define OBJECT  "/org/fedoraproject/FirewallD1"
#define CALL_MS 10000

/* A connection of our own: a bus that ends must not end us. */
static GDBusConnection *connect_bus(GError **error)
{
    g_autofree char *address = g_dbus_address_get_for_bus_sync(G_BUS_TYPE_SYSTEM, NULL, error);
    return address ? g_dbus_connection_new_for_address_sync(
                         address,
                         G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT |
                             G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
                         NULL, NULL, error)
                   : NULL;
}

static GVariant *call(GDBusConnection *bus, const char *method, GVariant *args, GError **error)
{
    return g_dbus_connection_call_sync(bus, SERVICE, OBJECT, SERVICE ".zone", method, args, NULL,
                                       G_DBUS_CALL_FLAGS_NO_AUTO_START, CALL_MS, NULL, error);
}

static bool change(GDBusConnection *bus, const char *bridge, const char *zone, GError **error)
{
    g_autoptr(GVariant) answer =
        call(bus, "changeZoneOfInterface", g_variant_new("(ss)", zone, bridge), error);
    return answer != NULL;
}

static void disconnect(GDBusConnection *bus)
{
    g_dbus_connection_close_sync(bus, NULL, NULL);
    g_object_unref(bus);
}

bool network_zone_set(const char *bridge, const char *zone, GError **error)
{
    g_autoptr(GError) why = NULL;
    GDBusConnection *bus = connect_bus(&why);
    bool ok = bus && change(bus, bridge, zone, &why);
    bool absent = !bus || g_error_matches(why, G_DBUS_ERROR, G_DBUS_ERROR_SERVICE_UNKNOWN) ||
                  g_error_matches(why, G_DBUS_ERROR, G_DBUS_ERROR_NAME_HAS_NO_OWNER);
    if (bus)
        disconnect(bus);
    if (ok)
        return true;
    g_dbus_error_strip_remote_error(why);
    if (absent)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "bridge '%s': zone '%s' is one of firewalld, which does not run on this "
                           "host",
                           bridge, zone);
    return ruche_error(error, MANAGER_ERR_CONFIG,
                       "bridge '%s': firewalld does not put it into zone '%s': %.300s", bridge,
                       zone, why->message);
}

/* "": in none; NULL: firewalld does not run. */
static char *zone_of(GDBusConnection *bus, const char *bridge)
{
    g_autoptr(GVariant) answer =
        call(bus, "getZoneOfInterface", g_variant_new("(s)", bridge), NULL);
    char *zone = NULL;
    if (answer && g_variant_is_of_type(answer, G_VARIANT_TYPE("(s)")))
        g_variant_get(answer, "(s)", &zone);
    return zone;
}

static const char *const usual[] = {"libvirt-routed", "libvirt"};

void network_zone_set_usual(const char *bridge, bool routed)
{
    GDBusConnection *bus = connect_bus(NULL);
    g_autofree char *now = bus ? zone_of(bus, bridge) : NULL;
    if (now && !*now)
        for (unsigned i = !routed; i < G_N_ELEMENTS(usual); i++)
            if (change(bus, bridge, usual[i], NULL))
                break;
    if (bus)
        disconnect(bus);
}

void network_zone_leave(const char *bridge, bool any)
{
    GDBusConnection *bus = connect_bus(NULL);
    g_autofree char *now = bus ? zone_of(bus, bridge) : NULL;
    bool ours = now && *now && (any || !strcmp(now, usual[0]) || !strcmp(now, usual[1]));
    GVariant *answer =
        ours ? call(bus, "removeInterface", g_variant_new("(ss)", now, bridge), NULL) : NULL;
    g_clear_pointer(&answer, g_variant_unref);
    if (bus)
        disconnect(bus);
}

/* ---- a firewalld that comes anew knows no bridges ---- */

static struct {
    void (*came)(void);
    GCancellable *connecting;
    GDBusConnection *bus;
    guint id;
} watch;

static void on_name(GDBusConnection *bus, const char *name, const char *owner, gpointer opaque)
{
    watch.came();
}

static void on_connected(GObject *source, GAsyncResult *result, gpointer opaque)
{
    g_autoptr(GError) error = NULL;
    GDBusConnection *bus = g_dbus_connection_new_for_address_finish(result, &error);
    if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
        return; /* and another may have begun */
    g_clear_object(&watch.connecting);
    watch.bus = bus;
    if (bus)
        watch.id = g_bus_watch_name_on_connection(bus, SERVICE, G_BUS_NAME_WATCHER_FLAGS_NONE,
                                                  on_name, NULL, NULL, NULL);
}

void network_zone_watch(void (*came)(void))
{
    if (watch.bus && g_dbus_connection_is_closed(watch.bus))
        network_zone_unwatch();
    if (watch.connecting || watch.bus)
        return;
    g_autofree char *address = g_dbus_address_get_for_bus_sync(G_BUS_TYPE_SYSTEM, NULL, NULL);
    if (!address)
        return;
    watch.came = came;
    watch.connecting = g_cancellable_new();
    g_dbus_connection_new_for_address(address,
                                      G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT |
                                          G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
                                      NULL, watch.connecting, on_connected, NULL);
}

void network_zone_unwatch(void)
{
    if (watch.connecting)
        g_cancellable_cancel(watch.connecting);
    g_clear_object(&watch.connecting);
    if (watch.id)
        g_bus_unwatch_name(watch.id);
    watch.id = 0;
    g_clear_object(&watch.bus);
}
