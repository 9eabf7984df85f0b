/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ruche filter VERB`: which frames interfaces of machines may send and get. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct cli_option options[] = {
    { "names", NULL, "list: only names, one a line", false },
    { 0 },
};

static char *joined(JsonObject *o, const char *member)
{
    JsonArray *list = json_object_get_array_member(o, member);
    g_autoptr(GString) s = g_string_new(NULL);
    for (unsigned i = 0; i < json_array_get_length(list); i++)
        g_string_append_printf(s, "%s%s", i ? " " : "", json_array_get_string_element(list, i));
    return g_strdup(s->len ? s->str : "-");
}

static int run_list(struct cli *c)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/filters");
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    JsonArray *list = json_object_get_array_member(o, "filters");
    struct table t;
    table_init(&t, c, 5, "NAME", "CHAIN", "RULES", "INCLUDES", "INTERFACES");
    for (unsigned i = 0; i < json_array_get_length(list); i++) {
        JsonObject *f = json_array_get_object_element(list, i);
        char rules[24], includes[24];
        g_snprintf(rules, sizeof(rules), "%" PRIi64, json_object_get_int_member(f, "rules"));
        g_snprintf(includes, sizeof(includes), "%u", json_array_get_length(json_object_get_array_member(f, "includes")));
        g_autofree char *users = joined(f, "interfaces");
        if (cli_has(c, "names"))
            puts(text_of(f, "name"));
        else
            table_add(&t, text_of(f, "name"), text_of(f, "chain"), rules, includes, users);
    }
    if (cli_has(c, "names"))
        g_ptr_array_unref(t.cells);
    else
        table_print(&t);
    return 0;
}

static int run_info(struct cli *c)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/filters/%s", c->args[1]);
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    g_autofree char *includes = joined(o, "includes"), *users = joined(o, "interfaces");
    printf("%-12s %s\n%-12s %s\n", "name", text_of(o, "name"), "uuid", text_of(o, "uuid"));
    printf("%-12s %s, priority %" PRIi64 "\n", "chain", text_of(o, "chain"), json_object_get_int_member(o, "priority"));
    printf("%-12s %" PRIi64 "\n", "rules", json_object_get_int_member(o, "rules"));
    printf("%-12s %s\n%-12s %s\n", "includes", includes, "interfaces", users);
    return 0;
}

static int run_xml(struct cli *c)
{
    GError *error = NULL;
    g_autofree char *text = rest_text(c->rest, &error, "/filters/%s/xml", c->args[1]);
    if (!text)
        return cli_fail(error);
    fputs(text, stdout);
    return 0;
}

static int run_bindings(struct cli *c)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/filter-bindings");
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    JsonArray *list = json_object_get_array_member(o, "bindings");
    struct table t;
    table_init(&t, c, 5, "INTERFACE", "FILTER", "MACHINE", "MAC", "LEARNED");
    for (unsigned i = 0; i < json_array_get_length(list); i++) {
        JsonObject *b = json_array_get_object_element(list, i);
        g_autofree char *learned = joined(b, "learned");
        table_add(&t, text_of(b, "interface"), text_of(b, "filter"), text_of(b, "owner"), text_of(b, "mac"),
                  json_object_get_boolean_member(b, "waiting") ? "waiting" : learned);
    }
    table_print(&t);
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
    JsonObject *o = rest_call(c->rest, "POST", body, &error, "/filters");
    return finish(c, o, error);
}

static int run_define(struct cli *c)
{
    GError *error = NULL;
    g_autofree char *xml = cli_read_file(c->args[1], &error);
    return xml ? define(c, xml) : cli_fail(error);
}

static int run_edit(struct cli *c)
{
    GError *error = NULL;
    g_autofree char *xml = rest_text(c->rest, &error, "/filters/%s/xml", c->args[1]);
    return xml ? cli_edit(c, xml, define) : cli_fail(error);
}

static int run_delete(struct cli *c)
{
    GError *error = NULL;
    JsonObject *o = rest_call(c->rest, "DELETE", NULL, &error, "/filters/%s", c->args[1]);
    return finish(c, o, error);
}

/* ---- verbs ---- */

static const struct {
    const char *name, *argument; /* NULL: none */
    int (*run)(struct cli *c);
} verbs[] = {
    { "list", NULL, run_list },     { "info", "NAME", run_info },     { "define", "FILE", run_define }, { "edit", "NAME", run_edit },
    { "delete", "NAME", run_delete }, { "xml", "NAME", run_xml },     { "bindings", NULL, run_bindings },
};

static int run_filter(struct cli *c)
{
    const char *words[G_N_ELEMENTS(verbs) + 1] = { NULL };
    for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++) {
        words[i] = verbs[i].name;
        if (strcmp(verbs[i].name, c->args[0]) != 0)
            continue;
        if (c->arg_count == 1u + (verbs[i].argument != NULL))
            return verbs[i].run(c);
        fprintf(stderr, "ruche: usage: ruche filter %s%s%s\n", verbs[i].name, verbs[i].argument ? " " : "",
                verbs[i].argument ? verbs[i].argument : "");
        return 2;
    }
    fprintf(stderr, "ruche: filter has no '%s'%s\n", c->args[0], suggest_phrase(c->args[0], words));
    return 2;
}
CLI_COMMAND(filter, .name = "filter", .other_name = "nwfilter", .arguments = "list|info|define|edit|delete|xml|bindings [NAME|FILE]",
            .summary = "Filters: which frames a machine's interface may send and get",
            .text = "ruche filter define lab.xml takes libvirt's filter XML (-: standard input); a machine's interface has it by <filterref "
                    "filter='lab'/>. ruche filter bindings shows which interface has which, and the addresses that were learned for it.",
            .options = options, .min_args = 1, .max_args = 2, .complete = COMPLETE_FILTER, .run = run_filter);
