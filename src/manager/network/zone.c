/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bridges in zones of firewalld, by its D-Bus interface.
 *
 * Spec      org.fedoraproject.FirewallD1(5).
 * Thread    Workers: each call waits for firewalld, at most CALL_MS.
 * Trust     What the bus says is a sentence of an error at most.
 */
#include "manager/network/network_priv.h"

#include <gio/gio.h>

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

bool network_zone_set(const char *bridge, const char *zone, GError **error)
{
    g_autoptr(GError) why = NULL;
    g_autoptr(GDBusConnection) bus = connect_bus(&why);
    g_autoptr(GVariant) answer =
        bus ? g_dbus_connection_call_sync(bus, SERVICE, OBJECT, SERVICE ".zone",
                                          zone ? "changeZoneOfInterface" : "removeInterface",
                                          g_variant_new("(ss)", zone ? zone : "", bridge), NULL,
                                          G_DBUS_CALL_FLAGS_NO_AUTO_START, CALL_MS, NULL, &why)
            : NULL;
    if (bus)
        g_dbus_connection_close_sync(bus, NULL, NULL);
    if (answer)
        return true;
    bool absent = !bus || g_error_matches(why, G_DBUS_ERROR, G_DBUS_ERROR_SERVICE_UNKNOWN) ||
                  g_error_matches(why, G_DBUS_ERROR, G_DBUS_ERROR_NAME_HAS_NO_OWNER);
    g_dbus_error_strip_remote_error(why);
    if (absent)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "bridge '%s': zone '%s' is one of firewalld, which does not run on this "
                           "host",
                           bridge, zone ? zone : "");
    return ruche_error(error, MANAGER_ERR_CONFIG,
                       "bridge '%s': firewalld does not put it into zone '%s': %.300s", bridge,
                       zone ? zone : "", why->message);
}
