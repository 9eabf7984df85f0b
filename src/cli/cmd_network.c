/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ruche network VERB`: what machines are connected by. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/verb.h"

#include "base/units.h"

#include <gio/gio.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const struct cli_option options[] = {
    { "mode", "nat|route|open|none", "create: how it reaches others; nat", false },
    { "subnet", "SUBNET", "create: the host's address and prefix: 10.1.0.1/24; DHCP gives half of the others", false },
    { "file", "FILE", "create: libvirt's network XML in place of the other options; -: standard input", false },
    { "autostart", "yes|no", "create, set: start it with the host", false },
    { "start", NULL, "create: start it, too", false },
    { "names", NULL, "list: only names, one a line", false },
    { 0 },
};

/* ---- looking ---- */

static void row(struct table *t, JsonObject *n)
{
    char ports[24];
    g_snprintf(ports, sizeof(ports), "%" PRIi64, json_object_get_int_member(n, "ports"));
    table_add(t, text_of(n, "name"), json_object_get_boolean_member(n, "active") ? "active" : "inactive", text_of(n, "mode"),
              text_of(n, "bridge"), ports, yes_no(n, "autostart"));
}

static int run_list(struct cli *c, char **args)
{
    static const struct cli_listing listing = { "networks", "NAME STATE MODE BRIDGE PORTS AUTOSTART", row };
    return cli_list(c, &listing, "/networks", NULL);
}

static void show_subnets(JsonArray *subnets)
{
    for (unsigned i = 0; i < json_array_get_length(subnets); i++) {
        JsonObject *s = json_array_get_object_element(subnets, i);
        JsonArray *ranges = json_object_get_array_member(s, "ranges");
        printf("%-12s %s", i ? "" : "subnet", text_of(s, "address"));
        for (unsigned k = 0; k < json_array_get_length(ranges); k++) {
            JsonObject *r = json_array_get_object_element(ranges, k);
            printf("%s %s to %s", k ? "," : ", DHCP", text_of(r, "start"), text_of(r, "end"));
        }
        putchar('\n');
    }
}

static void show(JsonObject *o)
{
    static const char *const names[] = { "name", "uuid", "mode", "bridge", NULL };
    static const char *const flags[] = { "active", "persistent", "autostart", NULL };
    info_texts(o, names);
    info_flags(o, flags);
    printf("%-12s %" PRIi64 "\n", "ports", json_object_get_int_member(o, "ports"));
    show_subnets(json_object_get_array_member(o, "subnets"));
    JsonArray *warnings = json_object_get_array_member(o, "warnings");
    for (unsigned i = 0; i < json_array_get_length(warnings); i++)
        printf("%-12s %s\n", i ? "" : "warning", json_array_get_string_element(warnings, i));
}

static int run_info(struct cli *c, char **args)
{
    return cli_show(c, show, "/networks/%s", args);
}

static void lease_row(struct table *t, JsonObject *l)
{
    char when[32] = "never";
    time_t expiry = (time_t)json_object_get_int_member(l, "expiry");
    struct tm tm;
    if (expiry && localtime_r(&expiry, &tm))
        strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
    table_add(t, text_of(l, "ip"), text_of(l, "mac"), text_of(l, "hostname"), when);
}

static int run_leases(struct cli *c, char **args)
{
    static const struct cli_listing listing = { "leases", "ADDRESS MAC HOSTNAME UNTIL", lease_row };
    return cli_list(c, &listing, "/networks/%s/leases", args[0]);
}

static int run_xml(struct cli *c, char **args)
{
    return cli_print_text(c, "/networks/%s/xml", args[0]);
}

/* ---- changing ---- */

static int define(struct cli *c, const char *xml)
{
    return cli_send_xml(c, xml, NULL, "/networks");
}

/* ---- a network of few words ---- */

/* "10.7.0.1/24": the host's address in it; of "10.7.0.0/24" the first one is. */
struct subnet {
    GInetAddress *host;
    unsigned prefix;
};

static bool parse_subnet(struct subnet *s, const char *text, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(text, "/", 2);
    g_autoptr(GInetAddressMask) whole = g_inet_address_mask_new_from_string(text, NULL);
    uint64_t prefix;
    s->host = parts[0] ? g_inet_address_new_from_string(parts[0]) : NULL;
    if (!s->host || !parts[1] || !units_parse_u64(parts[1], &prefix) || prefix > 8 * g_inet_address_get_native_size(s->host)) {
        g_clear_object(&s->host);
        return ruche_error(error, RUCHE_ERR_INVALID, "--subnet: '%s' is not an address and a prefix, as 10.1.0.1/24", text);
    }
    s->prefix = (unsigned)prefix;
    size_t size = g_inet_address_get_native_size(s->host);
    if (whole && prefix <= 8 * size - 2) {
        uint8_t bytes[16];
        memcpy(bytes, g_inet_address_to_bytes(s->host), size);
        bytes[size - 1] |= 1;
        g_autoptr(GInetAddress) first = s->host;
        s->host = g_inet_address_new_from_bytes(bytes, g_inet_address_get_family(first));
    }
    return true;
}

/* For DHCP: the half of the subnet's addresses where the host's own is not, at most so many. */
#define RANGE_MAX 4096
static void add_range(GString *xml, const struct subnet *s)
{
    if (g_inet_address_get_family(s->host) != G_SOCKET_FAMILY_IPV4 || s->prefix > 29)
        return;
    uint32_t host, mask = (uint32_t)(~0ull << (32 - s->prefix)), half = (~mask >> 1) + 1;
    memcpy(&host, g_inet_address_to_bytes(s->host), 4);
    host = GUINT32_FROM_BE(host);
    bool upper = !(host & half);
    uint32_t first = (host & mask) + (upper ? half : 1), last = first + MIN(half - 1, RANGE_MAX) - 1;
    g_string_append_printf(xml, "<dhcp><range start='%u.%u.%u.%u' end='%u.%u.%u.%u'/></dhcp>", first >> 24, first >> 16 & 255,
                           first >> 8 & 255, first & 255, last >> 24, last >> 16 & 255, last >> 8 & 255, last & 255);
}

static bool add_subnet(GString *xml, const char *text, GError **error)
{
    struct subnet s = { 0 };
    if (!parse_subnet(&s, text, error))
        return false;
    g_autofree char *address = g_inet_address_to_string(s.host);
    g_string_append_printf(xml, "<ip family='%s' address='%s' prefix='%u'>", strchr(address, ':') ? "ipv6" : "ipv4", address, s.prefix);
    add_range(xml, &s);
    g_string_append(xml, "</ip>");
    g_object_unref(s.host);
    return true;
}

static char *make_xml(const struct cli *c, const char *network, GError **error)
{
    const char *mode = cli_value(c, "mode"), *subnet = cli_value(c, "subnet");
    g_autofree char *name = g_markup_printf_escaped("<network><name>%s</name>", network);
    g_autoptr(GString) s = g_string_new(name);
    if (g_strcmp0(mode, "none") != 0)
        g_string_append_printf(s, "<forward mode='%s'/>", mode ? mode : "nat");
    if (subnet && !add_subnet(s, subnet, error))
        return NULL;
    g_string_append(s, "</network>");
    return g_strdup(s->str);
}

static int run_set(struct cli *c, char **args)
{
    return cli_set_autostart(c, "/networks/%s", args[0]);
}

static int run_create(struct cli *c, char **args)
{
    GError *error = NULL;
    const char *file = cli_value(c, "file");
    g_autofree char *xml = file ? cli_read_file(file, &error) : make_xml(c, args[0], &error);
    if (!xml)
        return cli_fail(error);
    JsonObject *members = json_object_new();
    json_object_set_boolean_member(members, "start", cli_has(c, "start"));
    int status = cli_send_xml(c, xml, members, "/networks");
    return status || !cli_has(c, "autostart") ? status : run_set(c, args);
}

/* One that runs is stopped first, so that nothing of it stays. */
static int run_delete(struct cli *c, char **args)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/networks/%s", args[0]), stopped = NULL;
    if (o && json_object_get_boolean_member(o, "active")) {
        stopped = rest_call(c->rest, "POST", NULL, &error, "/networks/%s/stop", args[0]);
        if (stopped && !json_object_get_boolean_member(o, "persistent"))
            return cli_finish(c, g_steal_pointer(&stopped), NULL);
    }
    if (error)
        return cli_fail(error);
    JsonObject *done = rest_call(c->rest, "DELETE", NULL, &error, "/networks/%s", args[0]);
    return cli_finish(c, done, error);
}

static int run_edit(struct cli *c, char **args)
{
    GError *error = NULL;
    g_autofree char *xml = rest_text(c->rest, &error, "/networks/%s/xml?inactive=true", args[0]);
    return xml ? cli_edit(c, xml, define) : cli_fail(error);
}

static const struct cli_verb verbs[] = {
    { "list", "", run_list, NULL, NULL },
    { "info", "NAME", run_info, NULL, NULL },
    { "create", "NAME", run_create, NULL, NULL },
    { "delete", "NAME", run_delete, NULL, NULL },
    { "start", "NAME", NULL, "POST", "/networks/%s/start" },
    { "stop", "NAME", NULL, "POST", "/networks/%s/stop" },
    { "edit", "NAME", run_edit, NULL, NULL },
    { "set", "NAME", run_set, NULL, NULL },
    { "leases", "NAME", run_leases, NULL, NULL },
    { "xml", "NAME", run_xml, NULL, NULL },
    { 0 },
};

static int run_network(struct cli *c)
{
    return cli_run_verb(c, verbs);
}
CLI_COMMAND(network, .name = "network", .other_name = "net", .arguments = "list|info|create|delete|start|stop|edit|set|leases|xml [NAME]",
            .summary = "Networks that machines are connected by",
            .text = "ruche network create lab --subnet 10.7.0.1/24 --start makes a network behind NAT and starts it; "
                    "ruche launch debian --network network:lab gives a machine its address.",
            .options = options, .min_args = 1, .max_args = 2, .complete = COMPLETE_NETWORK, .run = run_network);
