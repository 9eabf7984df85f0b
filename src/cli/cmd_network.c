/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ruche network VERB`: what machines are connected by. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/table.h"

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

static int run_list(struct cli *c)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/networks");
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    JsonArray *list = json_object_get_array_member(o, "networks");
    struct table t;
    table_init(&t, c, 6, "NAME", "STATE", "MODE", "BRIDGE", "PORTS", "AUTOSTART");
    for (unsigned i = 0; i < json_array_get_length(list); i++) {
        JsonObject *n = json_array_get_object_element(list, i);
        char ports[24];
        g_snprintf(ports, sizeof(ports), "%" PRIi64, json_object_get_int_member(n, "ports"));
        if (cli_has(c, "names"))
            puts(text_of(n, "name"));
        else
            table_add(&t, text_of(n, "name"), json_object_get_boolean_member(n, "active") ? "active" : "inactive", text_of(n, "mode"),
                      text_of(n, "bridge") ? text_of(n, "bridge") : "-", ports, yes_no(n, "autostart"));
    }
    if (cli_has(c, "names"))
        g_ptr_array_unref(t.cells);
    else
        table_print(&t);
    return 0;
}

static int run_info(struct cli *c)
{
    static const char *const names[] = { "name", "uuid", "mode", "bridge" };
    static const char *const flags[] = { "active", "persistent", "autostart" };
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/networks/%s", c->args[1]);
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
        if (text_of(o, names[i]))
            printf("%-12s %s\n", names[i], text_of(o, names[i]));
    for (size_t i = 0; i < G_N_ELEMENTS(flags); i++)
        printf("%-12s %s\n", flags[i], yes_no(o, flags[i]));
    printf("%-12s %" PRIi64 "\n", "ports", json_object_get_int_member(o, "ports"));
    JsonArray *warnings = json_object_get_array_member(o, "warnings");
    for (unsigned i = 0; i < json_array_get_length(warnings); i++)
        printf("%-12s %s\n", i ? "" : "warning", json_array_get_string_element(warnings, i));
    return 0;
}

static void add_lease(struct table *t, JsonObject *l)
{
    char when[32] = "never";
    time_t expiry = (time_t)json_object_get_int_member(l, "expiry");
    struct tm tm;
    if (expiry && localtime_r(&expiry, &tm))
        strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
    table_add(t, text_of(l, "ip"), text_of(l, "mac") ? text_of(l, "mac") : "-", text_of(l, "hostname") ? text_of(l, "hostname") : "-",
              when);
}

static int run_leases(struct cli *c)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/networks/%s/leases", c->args[1]);
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    JsonArray *list = json_object_get_array_member(o, "leases");
    struct table t;
    table_init(&t, c, 4, "ADDRESS", "MAC", "HOSTNAME", "UNTIL");
    for (unsigned i = 0; i < json_array_get_length(list); i++)
        add_lease(&t, json_array_get_object_element(list, i));
    table_print(&t);
    return 0;
}

static int run_xml(struct cli *c)
{
    GError *error = NULL;
    g_autofree char *text = rest_text(c->rest, &error, "/networks/%s/xml", c->args[1]);
    if (!text)
        return cli_fail(error);
    fputs(text, stdout);
    return 0;
}

/* ---- changing ---- */

static int finish(struct cli *c, JsonObject *o, GError *error)
{
    if (!o)
        return cli_fail(error);
    int status = c->json ? print_json(o) : 0;
    json_object_unref(o);
    return status;
}

static int define(struct cli *c, const char *xml)
{
    GError *error = NULL;
    JsonObject *body = json_object_new();
    json_object_set_string_member(body, "xml", xml);
    JsonObject *o = rest_call(c->rest, "POST", body, &error, "/networks");
    return finish(c, o, error);
}

/* Half of the subnet's addresses behind the host's own, if it is a usual one, are for DHCP. */
static char *make_xml(const struct cli *c, GError **error)
{
    const char *mode = cli_value(c, "mode"), *subnet = cli_value(c, "subnet");
    GString *s = g_string_new("<network>");
    g_autofree char *name = g_markup_printf_escaped("<name>%s</name>", c->args[1]);
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

static int run_set(struct cli *c)
{
    const char *value = cli_value(c, "autostart");
    GError *error = NULL;
    if (!value) {
        fputs("ruche: give --autostart yes or no\n", stderr);
        return 2;
    }
    JsonObject *body = json_object_new();
    json_object_set_string_member(body, "autostart", !strcmp(value, "yes") ? "true" : !strcmp(value, "no") ? "false" : value);
    JsonObject *o = rest_call(c->rest, "PATCH", body, &error, "/networks/%s", c->args[1]);
    return finish(c, o, error);
}

static int run_create(struct cli *c)
{
    GError *error = NULL;
    const char *file = cli_value(c, "file");
    g_autofree char *xml = file ? cli_read_file(file, &error) : make_xml(c, &error);
    if (!xml)
        return cli_fail(error);
    int status = define(c, xml);
    return status || !cli_has(c, "autostart") ? status : run_set(c);
}

static int tell(struct cli *c, const char *method, const char *path)
{
    GError *error = NULL;
    JsonObject *o = rest_call(c->rest, method, NULL, &error, path, c->args[1]);
    return finish(c, o, error);
}

static int run_start(struct cli *c)
{
    return tell(c, "POST", "/networks/%s/start");
}

static int run_stop(struct cli *c)
{
    return tell(c, "POST", "/networks/%s/stop");
}

/* One that runs is stopped first, so that nothing of it stays. */
static int run_delete(struct cli *c)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/networks/%s", c->args[1]);
    if (!o)
        return cli_fail(error);
    bool persistent = json_object_get_boolean_member(o, "persistent");
    if (json_object_get_boolean_member(o, "active")) {
        int status = run_stop(c);
        if (status || !persistent)
            return status;
    }
    return tell(c, "DELETE", "/networks/%s");
}

static int run_edit(struct cli *c)
{
    GError *error = NULL;
    g_autofree char *xml = rest_text(c->rest, &error, "/networks/%s/xml?inactive=true", c->args[1]);
    return xml ? cli_edit(c, xml, define) : cli_fail(error);
}

/* ---- verbs ---- */

static const struct {
    const char *name;
    bool takes_name;
    int (*run)(struct cli *c);
} verbs[] = {
    { "list", false, run_list }, { "info", true, run_info },     { "create", true, run_create }, { "delete", true, run_delete },
    { "start", true, run_start }, { "stop", true, run_stop },    { "edit", true, run_edit },     { "set", true, run_set },
    { "leases", true, run_leases }, { "xml", true, run_xml },
};

static int run_network(struct cli *c)
{
    const char *words[G_N_ELEMENTS(verbs) + 1] = { NULL };
    for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++) {
        words[i] = verbs[i].name;
        if (strcmp(verbs[i].name, c->args[0]) != 0)
            continue;
        if (c->arg_count == 1u + verbs[i].takes_name)
            return verbs[i].run(c);
        fprintf(stderr, "ruche: usage: ruche network %s%s\n", verbs[i].name, verbs[i].takes_name ? " NAME" : "");
        return 2;
    }
    fprintf(stderr, "ruche: network has no '%s'%s\n", c->args[0], suggest_phrase(c->args[0], words));
    return 2;
}
CLI_COMMAND(network, .name = "network", .other_name = "net", .arguments = "list|info|create|delete|start|stop|edit|set|leases|xml [NAME]",
            .summary = "Networks that machines are connected by",
            .text = "ruche network create lab --subnet 10.7.0.1/24 makes a network behind NAT; ruche network start lab starts it; "
                    "ruche launch debian --network network:lab gives a machine its address.",
            .options = options, .min_args = 1, .max_args = 2, .complete = COMPLETE_NETWORK, .run = run_network);
