/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Zones of firewalld, with a bus of the test's own and a service on it that stands for firewalld. TAP. */
#include "manager/network/network_priv.h"

#include <gio/gio.h>
#include <string.h>

static const char described[] =
    "<node><interface name='org.fedoraproject.FirewallD1.zone'>"
    "<method name='changeZoneOfInterface'><arg type='s' direction='in'/><arg type='s' "
    "direction='in'/><arg type='s' direction='out'/></method>"
    "<method name='getZoneOfInterface'><arg type='s' direction='in'/><arg type='s' "
    "direction='out'/></method>"
    "<method name='removeInterface'><arg type='s' direction='in'/><arg type='s' direction='in'/>"
    "<arg type='s' direction='out'/></method></interface></node>";

struct firewalld {
    GMainContext *context;
    GDBusConnection *bus;
    GThread *thread;
    char *zone; /* of br7 */
    int up, end;
    bool has_libvirt; /* the zone of that name, not libvirt-routed */
};

/* In the service's thread; calls come one at a time and the test waits for each. */
static void answer(GDBusConnection *bus, const char *sender, const char *path,
                   const char *interface, const char *method, GVariant *args,
                   GDBusMethodInvocation *call, gpointer opaque)
{
    struct firewalld *f = opaque;
    const char *zone, *bridge;
    if (!strcmp(method, "getZoneOfInterface")) {
        g_dbus_method_invocation_return_value(call, g_variant_new("(s)", f->zone ? f->zone : ""));
        return;
    }
    g_variant_get(args, "(&s&s)", &zone, &bridge);
    g_assert_cmpstr(bridge, ==, "br7");
    if (!strcmp(zone, "nowhere") || (!f->has_libvirt && g_str_has_prefix(zone, "libvirt")) ||
        !strcmp(zone, "libvirt-routed")) {
        g_dbus_method_invocation_return_dbus_error(call, "org.fedoraproject.FirewallD1.Exception",
                                                   "INVALID_ZONE: nowhere");
        return;
    }
    g_free(f->zone);
    f->zone = strcmp(method, "removeInterface") ? g_strdup(zone) : NULL;
    g_dbus_method_invocation_return_value(call, g_variant_new("(s)", zone));
}

static gpointer serve(gpointer opaque)
{
    struct firewalld *f = opaque;
    static const GDBusInterfaceVTable table = {.method_call = answer};
    g_autoptr(GDBusNodeInfo) info = g_dbus_node_info_new_for_xml(described, NULL);
    g_main_context_push_thread_default(f->context);
    g_assert_true(g_dbus_connection_register_object(f->bus, "/org/fedoraproject/FirewallD1",
                                                    info->interfaces[0], &table, f, NULL, NULL));
    g_autoptr(GVariant) named = g_dbus_connection_call_sync(
        f->bus, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus",
        "RequestName", g_variant_new("(su)", "org.fedoraproject.FirewallD1", 0), NULL,
        G_DBUS_CALL_FLAGS_NONE, -1, NULL, NULL);
    g_assert_nonnull(named);
    g_atomic_int_set(&f->up, 1);
    while (!g_atomic_int_get(&f->end))
        g_main_context_iteration(f->context, TRUE);
    g_main_context_pop_thread_default(f->context);
    return NULL;
}

static void check_refused(const char *zone, const char *why)
{
    g_autoptr(GError) error = NULL;
    g_assert_false(network_zone_set("br7", zone, &error));
    if (!strstr(error->message, why))
        g_error("'%s' is not in '%s'", why, error->message);
}

static void test_absent(void)
{
    g_setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus", TRUE);
    check_refused("home", "bridge 'br7': zone 'home' is one of firewalld, which does not run");
    network_zone_set_usual("br7", true);
    network_zone_leave("br7", true);
}

static unsigned came;

static void on_came(void)
{
    came++;
}

/* Told when it comes, and no more afterwards. */
static void check_watch(unsigned wanted)
{
    for (unsigned i = 0; i < 10000 && came < wanted; i++) {
        while (g_main_context_iteration(NULL, FALSE))
            ;
        g_usleep(1000);
    }
    g_assert_cmpuint(came, ==, wanted);
}

static void test_zones(void)
{
    struct firewalld f = {.context = g_main_context_new()};
    g_autofree char *daemon = g_find_program_in_path("dbus-daemon");
    if (!daemon) {
        g_test_skip("dbus-daemon is not installed");
        g_main_context_unref(f.context);
        return;
    }
    g_autoptr(GTestDBus) bus = g_test_dbus_new(G_TEST_DBUS_NONE);
    g_test_dbus_up(bus);
    g_setenv("DBUS_SYSTEM_BUS_ADDRESS", g_test_dbus_get_bus_address(bus), TRUE);
    check_refused("home", "firewalld, which does not run");
    network_zone_watch(on_came); /* ends before it has begun */
    network_zone_unwatch();
    network_zone_watch(on_came);
    network_zone_watch(on_came);
    f.bus =
        g_dbus_connection_new_for_address_sync(g_test_dbus_get_bus_address(bus),
                                               G_DBUS_CONNECTION_FLAGS_AUTHENTICATION_CLIENT |
                                                   G_DBUS_CONNECTION_FLAGS_MESSAGE_BUS_CONNECTION,
                                               NULL, NULL, NULL);
    f.thread = g_thread_new("firewalld", serve, &f);
    while (!g_atomic_int_get(&f.up))
        g_usleep(1000);
    check_watch(1);
    network_zone_unwatch();
    g_autoptr(GError) error = NULL;
    network_zone_set("br7", "home", &error);
    g_assert_no_error(error);
    g_assert_cmpstr(f.zone, ==, "home");
    check_refused("nowhere", "firewalld does not put it into zone 'nowhere': INVALID_ZONE");
    network_zone_leave("br7", false);
    g_assert_cmpstr(f.zone, ==, "home");
    network_zone_set_usual("br7", false); /* others have decided */
    g_assert_cmpstr(f.zone, ==, "home");
    network_zone_leave("br7", true);
    g_assert_null(f.zone);
    network_zone_set_usual("br7", false); /* there is none */
    g_assert_null(f.zone);
    f.has_libvirt = true;
    network_zone_set_usual("br7", true); /* the next best */
    g_assert_cmpstr(f.zone, ==, "libvirt");
    network_zone_leave("br7", false);
    g_assert_null(f.zone);
    g_atomic_int_set(&f.end, 1);
    g_main_context_wakeup(f.context);
    g_thread_join(f.thread);
    g_dbus_connection_close_sync(f.bus, NULL, NULL);
    g_object_unref(f.bus);
    g_main_context_unref(f.context);
    g_test_dbus_down(bus);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/network/zone/absent", test_absent);
    g_test_add_func("/network/zone/zones", test_zones);
    return g_test_run();
}
