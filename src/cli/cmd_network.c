/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ruche network VERB`: what machines are connected by. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/verb.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const struct cli_option options[] = {
    { "mode", "MODE", "create: nat (default), route, open, none", false },
    { "subnet", "SUBNET", "create: the host's address and prefix: 10.1.0.1/24", false },
    { "file", "FILE", "create: libvirt's network XML in place of the other options; -: standard input", false },
    { "autostart", "yes|no", "create, set: start it with the host", false },
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

static void show(JsonObject *o)
{
    static const char *const names[] = { "name", "uuid", "mode", "bridge", NULL };
    static const char *const flags[] = { "active", "persistent", "autostart", NULL };
    info_texts(o, names);
    info_flags(o, flags);
    printf("%-12s %" PRIi64 "\n", "ports", json_object_get_int_member(o, "ports"));
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

/* Half of the subnet's addresses behind the host's own, if it is a usual one, are for DHCP. */
static char *make_xml(const struct cli *c, const char *network, GError **error)
{
    const char *mode = cli_value(c, "mode"), *subnet = cli_value(c, "subnet");
    GString *s = g_string_new("<network>");
    g_autofree char *name = g_markup_printf_escaped("<name>%s</name>", network);
    g_string_append(s, name);
    if (!mode || strcmp(mode, "none") != 0) {
        g_autofree char *forward = g_markup_printf_escaped("<forward mode='%s'/>", mode ? mode : "nat");
        g_string_append(s, forward);
    }
    g_auto(GStrv) parts = subnet ? g_strsplit(subnet, "/", 2) : NULL;
    unsigned b[4];
    char rest;
    if (subnet && (!parts[0] || !parts[1])) {
        ruche_error(error, RUCHE_ERR_INVALID, "--subnet: '%s' is not an address and a prefix, as 10.1.0.1/24", subnet);
        g_string_free(s, TRUE);
        return NULL;
    }
    if (subnet) {
        bool six = strchr(parts[0], ':') != NULL, usual = !strcmp(parts[1], "24");
        g_autofree char *ip = g_markup_printf_escaped("<ip family='%s' address='%s' prefix='%s'>", six ? "ipv6" : "ipv4", parts[0], parts[1]);
        g_string_append(s, ip);
        if (usual && sscanf(parts[0], "%u.%u.%u.%u%c", &b[0], &b[1], &b[2], &b[3], &rest) == 4 && b[3] < 128)
            g_string_append_printf(s, "<dhcp><range start='%u.%u.%u.128' end='%u.%u.%u.254'/></dhcp>", b[0], b[1], b[2], b[0], b[1], b[2]);
        g_string_append(s, "</ip>");
    }
    g_string_append(s, "</network>");
    return g_string_free(s, FALSE);
}

static int run_set(struct cli *c, char **args)
{
    const char *value = cli_value(c, "autostart");
    GError *error = NULL;
    if (!value) {
        fputs("ruche: give --autostart yes or no\n", stderr);
        return 2;
    }
    JsonObject *body = json_object_new();
    json_object_set_string_member(body, "autostart", !strcmp(value, "yes") ? "true" : !strcmp(value, "no") ? "false" : value);
    JsonObject *o = rest_call(c->rest, "PATCH", body, &error, "/networks/%s", args[0]);
    return cli_finish(c, o, error);
}

static int run_create(struct cli *c, char **args)
{
    GError *error = NULL;
    const char *file = cli_value(c, "file");
    g_autofree char *xml = file ? cli_read_file(file, &error) : make_xml(c, args[0], &error);
    if (!xml)
        return cli_fail(error);
    int status = define(c, xml);
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
            .text = "ruche network create lab --subnet 10.7.0.1/24 makes a network behind NAT; ruche network start lab starts it; "
                    "ruche launch debian --network network:lab gives a machine its address.",
            .options = options, .min_args = 1, .max_args = 2, .complete = COMPLETE_NETWORK, .run = run_network);
