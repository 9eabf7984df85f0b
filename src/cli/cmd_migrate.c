/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Machines to other hosts. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/table.h"

#include <stdio.h>
#include <string.h>

static const struct cli_option migrate_options[] = {
    {"live", NULL, "let the guest run while its memory is sent", false},
    {"persistent", NULL, "it stays defined there", false},
    {"undefine", NULL, "it is no longer defined here", false},
    {"offline", NULL, "only its description, of a machine that is off", false},
    {"paused", NULL, "leave it standing there", false},
    {"unsafe", NULL, "although its disks may be written by both", false},
    {"abort-on-error", NULL, "give up when a disk has an error", false},
    {"name", "NAME", "what it is called there", false},
    {"bandwidth", "MIB", "at most so many MiB a second", false},
    {"uri", "URI", "where its state goes: tcp:HOST:PORT", false},
    {0},
};

static void add_options(struct cli *c, JsonObject *body)
{
    static const struct {
        const char *option, *field;
    } texts[] = {{"name", "dest_name"}, {"uri", "migrate_uri"}};
    for (const struct cli_option *o = migrate_options; o->name; o++)
        if (!o->argument && cli_has(c, o->name)) {
            g_autofree char *field = g_strdelimit(g_strdup(o->name), "-", '_');
            json_object_set_boolean_member(body, field, TRUE);
        }
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++)
        if (cli_value(c, texts[i].option))
            json_object_set_string_member(body, texts[i].field, cli_value(c, texts[i].option));
}

static bool add_bandwidth(struct cli *c, JsonObject *body, GError **error)
{
    const char *text = cli_value(c, "bandwidth");
    guint64 mib = 0;
    if (!text)
        return true;
    if (!g_ascii_string_to_unsigned(text, 10, 1, G_MAXINT64 >> 20, &mib, NULL))
        return ruche_error(error, RUCHE_ERR_INVALID, "--bandwidth: '%s' is no number of MiB", text);
    json_object_set_int_member(body, "bandwidth", (gint64)mib);
    return true;
}

static int run_migrate(struct cli *c)
{
    GError *error = NULL;
    JsonObject *body = json_object_new();
    json_object_set_string_member(body, "to", c->args[1]);
    add_options(c, body);
    if (!add_bandwidth(c, body, &error)) {
        json_object_unref(body);
        return cli_fail(error);
    }
    JsonObject *job =
        rest_call(c->rest, "POST", body, &error, "/domains/%s/migrate", c->args[0]);
    if (job)
        job = follow_job(c, job, &error);
    if (!job)
        return cli_fail(error);
    if (c->json)
        print_json(job);
    else
        printf("machine '%s' is at '%s' now\n", c->args[0], text_of(job, "result"));
    json_object_unref(job);
    return 0;
}
CLI_COMMAND(migrate, .name = "migrate", .arguments = "NAME DEST", .summary = "Moves a machine to another host",
            .text = "DEST is a host, whose manager is reached by ssh, or a URI as libvirt has it: qemu+tls://HOST/system.",
            .options = migrate_options, .min_args = 2, .max_args = 2, .complete = COMPLETE_MACHINE, .run = run_migrate);
