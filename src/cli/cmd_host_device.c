/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ruche device VERB`: devices of the host. */
#include "cli/cli.h"
#include "cli/rest.h"
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

static void row(struct table *t, JsonObject *d)
{
    g_autofree char *caps = texts_joined(d, "capabilities");
    table_add(t, text_of(d, "name"), json_object_get_boolean_member(d, "active") ? "active" : "inactive", caps, text_of(d, "driver"),
              text_of(d, "parent"));
}

static int run_list(struct cli *c, char **args)
{
    static const struct cli_listing listing = { "devices", "NAME STATE CAPABILITIES DRIVER PARENT", row };
    const char *cap = cli_value(c, "capability");
    return cli_list(c, &listing, cap ? "/devices?capability=%s" : "/devices", cap);
}

static void show(JsonObject *o)
{
    static const char *const names[] = { "name", "parent", "path", "driver" };
    static const char *const flags[] = { "active", "defined", "autostart", NULL };
    g_autofree char *caps = texts_joined(o, "capabilities");
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
        printf("%-12s %s\n", names[i], text_or_dash(o, names[i]));
    printf("%-12s %s\n", "capabilities", caps);
    info_flags(o, flags);
}

static int run_info(struct cli *c, char **args)
{
    return cli_show(c, show, "/devices/%s", args);
}

static int run_xml(struct cli *c, char **args)
{
    return cli_print_text(c, "/devices/%s/xml", args[0]);
}

static int run_define(struct cli *c, char **args)
{
    GError *error = NULL;
    g_autofree char *xml = cli_read_file(args[0], &error);
    if (!xml)
        return cli_fail(error);
    JsonObject *members = json_object_new();
    json_object_set_boolean_member(members, "transient", cli_has(c, "transient"));
    return cli_send_xml(c, xml, members, "/devices");
}

static int run_set(struct cli *c, char **args)
{
    return cli_set_autostart(c, "/devices/%s", args[0]);
}

static const struct cli_verb verbs[] = {
    { "list", "", run_list, NULL, NULL },
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
