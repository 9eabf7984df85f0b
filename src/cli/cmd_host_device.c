/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ruche device VERB`: devices of the host. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/table.h"
#include "cli/verb.h"

#include <stdio.h>
#include <string.h>

static const struct cli_option options[] = {
    { "capability", "WORD", "list: only pci, usb, net, storage, scsi, mdev ...", false },
    { "transient", NULL, "define: make it now, and do not keep its definition", false },
    { "autostart", "yes|no", "set: make it when the manager starts", false },
    { "names", NULL, "list: only names, one a line", false },
    { 0 },
};

static char *capabilities(JsonObject *d)
{
    JsonArray *list = json_object_get_array_member(d, "capabilities");
    g_autoptr(GString) s = g_string_new(NULL);
    for (unsigned i = 0; i < json_array_get_length(list); i++)
        g_string_append_printf(s, "%s%s", i ? " " : "", json_array_get_string_element(list, i));
    return g_strdup(s->str);
}

static const char *or_none(JsonObject *d, const char *name)
{
    return text_of(d, name) ? text_of(d, name) : "-";
}

static int run_list(struct cli *c)
{
    GError *error = NULL;
    const char *cap = cli_value(c, "capability");
    g_autoptr(JsonObject) o = cap ? rest_call(c->rest, "GET", NULL, &error, "/devices?capability=%s", cap)
                                  : rest_call(c->rest, "GET", NULL, &error, "/devices");
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    JsonArray *list = json_object_get_array_member(o, "devices");
    struct table t;
    table_init(&t, c, 5, "NAME", "STATE", "CAPABILITIES", "DRIVER", "PARENT");
    for (unsigned i = 0; i < json_array_get_length(list); i++) {
        JsonObject *d = json_array_get_object_element(list, i);
        g_autofree char *caps = capabilities(d);
        if (cli_has(c, "names"))
            puts(text_of(d, "name"));
        else
            table_add(&t, text_of(d, "name"), json_object_get_boolean_member(d, "active") ? "active" : "inactive", caps, or_none(d, "driver"),
                      or_none(d, "parent"));
    }
    if (cli_has(c, "names"))
        g_ptr_array_unref(t.cells);
    else
        table_print(&t);
    return 0;
}

static int run_info(struct cli *c)
{
    static const char *const names[] = { "name", "parent", "path", "driver" };
    static const char *const flags[] = { "active", "defined", "autostart" };
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/devices/%s", c->args[1]);
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    g_autofree char *caps = capabilities(o);
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
        printf("%-12s %s\n", names[i], or_none(o, names[i]));
    printf("%-12s %s\n", "capabilities", caps);
    for (size_t i = 0; i < G_N_ELEMENTS(flags); i++)
        printf("%-12s %s\n", flags[i], yes_no(o, flags[i]));
    return 0;
}

static int run_xml(struct cli *c)
{
    return cli_print_text(c, "/devices/%s/xml");
}

static int run_define(struct cli *c)
{
    GError *error = NULL;
    g_autofree char *xml = cli_read_file(c->args[1], &error);
    if (!xml)
        return cli_fail(error);
    JsonObject *body = json_object_new();
    json_object_set_string_member(body, "xml", xml);
    json_object_set_boolean_member(body, "transient", cli_has(c, "transient"));
    JsonObject *o = rest_call(c->rest, "POST", body, &error, "/devices");
    return cli_finish(c, o, error);
}

static int run_set(struct cli *c)
{
    const char *value = cli_value(c, "autostart");
    GError *error = NULL;
    if (!value || (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)) {
        fputs("ruche: give --autostart yes or no\n", stderr);
        return 2;
    }
    JsonObject *body = json_object_new();
    json_object_set_boolean_member(body, "autostart", !strcmp(value, "yes"));
    JsonObject *o = rest_call(c->rest, "PATCH", body, &error, "/devices/%s", c->args[1]);
    return cli_finish(c, o, error);
}

static const struct cli_verb verbs[] = {
    { "list", NULL, run_list, NULL, NULL },
    { "info", "NAME", run_info, NULL, NULL },
    { "xml", "NAME", run_xml, NULL, NULL },
    { "detach", "NAME", NULL, "POST", "/devices/%s/detach" },
    { "reattach", "NAME", NULL, "POST", "/devices/%s/reattach" },
    { "reset", "NAME", NULL, "POST", "/devices/%s/reset" },
    { "define", "FILE", run_define, NULL, NULL },
    { "start", "NAME", NULL, "POST", "/devices/%s/start" },
    { "stop", "NAME", NULL, "POST", "/devices/%s/stop" },
    { "set", "NAME", run_set, NULL, NULL },
    { "delete", "NAME", NULL, "DELETE", "/devices/%s" },
    { 0 },
};

static int run_device(struct cli *c)
{
    return cli_run_verb(c, verbs);
}
CLI_COMMAND(host_device, .name = "device", .other_name = "nodedev",
            .arguments = "list|info|xml|detach|reattach|reset|define|start|stop|set|delete [NAME|FILE]", .summary = "Devices of the host",
            .text = "ruche device detach pci_0000_01_00_0 takes a PCI device from the host's driver, so that a machine can have it; reattach gives "
                    "it back. What the host lives by (mounted disks, the way to its gateway) is refused. define takes the XML of a mediated device.",
            .options = options, .min_args = 1, .max_args = 2, .run = run_device);
