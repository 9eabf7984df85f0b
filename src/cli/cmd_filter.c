/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ruche filter VERB`: which frames interfaces of machines may send and get. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/verb.h"

#include <inttypes.h>
#include <stdio.h>

static const struct cli_option options[] = {
    { "names", NULL, "list: only names, one a line", false },
    { 0 },
};

static void row(struct table *t, JsonObject *f)
{
    char rules[24], includes[24];
    g_snprintf(rules, sizeof(rules), "%" PRIi64, json_object_get_int_member(f, "rules"));
    g_snprintf(includes, sizeof(includes), "%u", json_array_get_length(json_object_get_array_member(f, "includes")));
    g_autofree char *users = texts_joined(f, "interfaces");
    table_add(t, text_of(f, "name"), text_of(f, "chain"), rules, includes, users);
}

static int run_list(struct cli *c, char **args)
{
    static const struct cli_listing listing = { "filters", "NAME CHAIN RULES INCLUDES INTERFACES", row };
    return cli_list(c, &listing, "/filters", NULL);
}

static void show(JsonObject *o)
{
    static const char *const names[] = { "name", "uuid", NULL };
    g_autofree char *includes = texts_joined(o, "includes"), *users = texts_joined(o, "interfaces");
    info_texts(o, names);
    printf("%-12s %s, priority %" PRIi64 "\n", "chain", text_of(o, "chain"), json_object_get_int_member(o, "priority"));
    printf("%-12s %" PRIi64 "\n", "rules", json_object_get_int_member(o, "rules"));
    printf("%-12s %s\n%-12s %s\n", "includes", includes, "interfaces", users);
}

static int run_info(struct cli *c, char **args)
{
    return cli_show(c, show, "/filters/%s", args);
}

static int run_xml(struct cli *c, char **args)
{
    return cli_print_text(c, "/filters/%s/xml", args[0]);
}

static void binding_row(struct table *t, JsonObject *b)
{
    g_autofree char *learned = texts_joined(b, "learned");
    table_add(t, text_of(b, "interface"), text_of(b, "filter"), text_of(b, "owner"), text_of(b, "mac"),
              json_object_get_boolean_member(b, "waiting") ? "waiting" : learned);
}

static int run_bindings(struct cli *c, char **args)
{
    static const struct cli_listing listing = { "bindings", "INTERFACE FILTER MACHINE MAC LEARNED", binding_row };
    return cli_list(c, &listing, "/filter-bindings", NULL);
}

/* ---- changing ---- */

static int define(struct cli *c, const char *xml)
{
    return cli_send_xml(c, xml, NULL, "/filters");
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
    g_autofree char *xml = rest_text(c->rest, &error, "/filters/%s/xml", args[0]);
    return xml ? cli_edit(c, xml, define) : cli_fail(error);
}

static const struct cli_verb verbs[] = {
    { "list", "", run_list, NULL, NULL },
    { "info", "NAME", run_info, NULL, NULL },
    { "define", "FILE", run_define, NULL, NULL },
    { "edit", "NAME", run_edit, NULL, NULL },
    { "delete", "NAME", NULL, "DELETE", "/filters/%s" },
    { "xml", "NAME", run_xml, NULL, NULL },
    { "bindings", "", run_bindings, NULL, NULL },
    { 0 },
};

static int run_filter(struct cli *c)
{
    return cli_run_verb(c, verbs);
}
CLI_COMMAND(filter, .name = "filter", .other_name = "nwfilter", .arguments = "list|info|define|edit|delete|xml|bindings [NAME|FILE]",
            .summary = "Filters: which frames a machine's interface may send and get",
            .text = "ruche filter define lab.xml takes libvirt's filter XML (-: standard input); a machine's interface has it by <filterref "
                    "filter='lab'/>. ruche filter bindings shows which interface has which, and the addresses that were learned for it.",
            .options = options, .min_args = 1, .max_args = 2, .complete = COMPLETE_FILTER, .run = run_filter);
