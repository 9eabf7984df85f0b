/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ruche interface VERB`: interfaces of the host. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/verb.h"

#include <inttypes.h>
#include <stdio.h>

static const struct cli_option options[] = {
    { "start", NULL, "define: bring it up, too", false },
    { "timeout", "SECONDS", "begin: roll back when nobody commits in time", false },
    { "names", NULL, "list: only names, one a line", false },
    { 0 },
};

/* ---- looking ---- */

static const char *keeper(JsonObject *i)
{
    return json_object_get_boolean_member(i, "defined") ? "here" : text_of(i, "owner") ? text_of(i, "owner") : "-";
}

static void row(struct table *t, JsonObject *one)
{
    table_add(t, text_of(one, "name"), json_object_get_boolean_member(one, "active") ? "active" : "inactive", text_of(one, "type"),
              text_of(one, "mac"), keeper(one), yes_no(one, "onboot"));
}

static int run_list(struct cli *c, char **args)
{
    static const struct cli_listing listing = { "interfaces", "NAME STATE TYPE MAC DEFINED ONBOOT", row };
    return cli_list(c, &listing, "/interfaces", NULL);
}

static void show(JsonObject *o)
{
    static const char *const names[] = { "name", "type", "mac", "owner", NULL };
    static const char *const flags[] = { "active", "defined", "onboot", NULL };
    info_texts(o, names);
    info_flags(o, flags);
    printf("%-12s %" PRIi64 "\n", "mtu", json_object_get_int_member(o, "mtu"));
}

static int run_info(struct cli *c, char **args)
{
    return cli_show(c, show, "/interfaces/%s", args);
}

static int run_xml(struct cli *c, char **args)
{
    return cli_print_text(c, "/interfaces/%s/xml", args[0]);
}

/* ---- changing ---- */

static int define(struct cli *c, const char *xml)
{
    JsonObject *members = json_object_new();
    json_object_set_boolean_member(members, "start", cli_has(c, "start"));
    return cli_send_xml(c, xml, members, "/interfaces");
}

static int run_define(struct cli *c, char **args)
{
    GError *error = NULL;
    g_autofree char *xml = cli_read_file(args[0], &error);
    return xml ? define(c, xml) : cli_fail(error);
}

static int run_edit(struct cli *c, char **args)
{
    GError *error = NULL;
    g_autofree char *xml = rest_text(c->rest, &error, "/interfaces/%s/xml?inactive=true", args[0]);
    return xml ? cli_edit(c, xml, define) : cli_fail(error);
}

static int run_begin(struct cli *c, char **args)
{
    GError *error = NULL;
    JsonObject *body = json_object_new();
    if (cli_has(c, "timeout"))
        json_object_set_string_member(body, "timeout", cli_value(c, "timeout"));
    JsonObject *o = rest_call(c->rest, "POST", body, &error, "/interface-change/begin");
    return cli_finish(c, o, error);
}

static void show_change(JsonObject *o)
{
    if (!json_object_get_boolean_member(o, "pending"))
        puts("no change is under way");
    else if (json_object_has_member(o, "seconds_left"))
        printf("a change is under way; it is rolled back in %" PRIi64 " s\n", json_object_get_int_member(o, "seconds_left"));
    else
        puts("a change is under way");
}

static int run_change(struct cli *c, char **args)
{
    return cli_show(c, show_change, "/interface-change", (char *[]){ NULL, NULL });
}

static const struct cli_verb verbs[] = {
    { "list", "", run_list, NULL, NULL },
    { "info", "NAME", run_info, NULL, NULL },
    { "define", "FILE", run_define, NULL, NULL },
    { "edit", "NAME", run_edit, NULL, NULL },
    { "start", "NAME", NULL, "POST", "/interfaces/%s/start" },
    { "stop", "NAME", NULL, "POST", "/interfaces/%s/stop" },
    { "delete", "NAME", NULL, "DELETE", "/interfaces/%s" },
    { "xml", "NAME", run_xml, NULL, NULL },
    { "begin", "", run_begin, NULL, NULL },
    { "commit", "", NULL, "POST", "/interface-change/commit" },
    { "rollback", "", NULL, "POST", "/interface-change/rollback" },
    { "change", "", run_change, NULL, NULL },
    { 0 },
};

static int run_interface(struct cli *c)
{
    return cli_run_verb(c, verbs);
}
CLI_COMMAND(interface, .name = "interface", .other_name = "iface",
            .arguments = "list|info|define|edit|start|stop|delete|xml|begin|commit|rollback|change [NAME|FILE]",
            .summary = "Interfaces of the host: bridges, bonds, VLANs, addresses",
            .text = "ruche interface begin --timeout 60, then define br0.xml and start br0: what the host was reached by comes back by itself, "
                    "unless ruche interface commit is said in time. Definitions are libvirt's interface XML (-: standard input).",
            .options = options, .min_args = 1, .max_args = 2, .run = run_interface);
