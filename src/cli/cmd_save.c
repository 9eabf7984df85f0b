/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands that save machines, restore and dump them. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/table.h"

#include <stdio.h>

/* The command's options and file as a request, and its job to the end. */
static int follow(struct cli *c, const char *file, const char *path, const char *name, const char *done)
{
    GError *error = NULL;
    JsonObject *body = json_object_new();
    g_autofree char *whole = file ? g_canonicalize_filename(file, NULL) : NULL;
    if (whole)
        json_object_set_string_member(body, "file", whole);
    for (const struct cli_option *o = c->command->options; o && o->name; o++)
        if (cli_has(c, o->name))
            json_object_set_boolean_member(body, o->name, TRUE);
    JsonObject *job = name ? rest_call(c->rest, "POST", body, &error, "/domains/%s/%s", name, path)
                           : rest_call(c->rest, "POST", body, &error, "/%s", path);
    if (job)
        job = follow_job(c, job, &error);
    if (!job)
        return cli_fail(error);
    if (c->json)
        print_json(job);
    else
        printf("machine '%s' %s\n", text_of(job, "result"), done);
    json_object_unref(job);
    return 0;
}

static const struct cli_option paused_options[] = { { "paused", NULL, "it stands when it is restored", false }, { 0 } };
static const struct cli_option dump_options[] = {
    { "live", NULL, "let the guest run meanwhile", false },
    { "crash", NULL, "switch it off then", false },
    { "reset", NULL, "reset it then", false },
    { 0 },
};

static int run_save(struct cli *c)
{
    const char *file = c->arg_count > 1 ? c->args[1] : NULL;
    return follow(c, file, "save", c->args[0], file ? "is saved" : "is saved; 'ruche start' goes on from there");
}
CLI_COMMAND(save, .name = "save", .arguments = "NAME [FILE]", .summary = "Saves a machine's state and switches it off",
            .text = "Without a file the manager keeps it, and the next start goes on from there.", .options = paused_options,
            .min_args = 1, .max_args = 2, .complete = COMPLETE_MACHINE, .run = run_save);

static int run_restore(struct cli *c)
{
    return follow(c, c->args[0], "restore", NULL, "goes on");
}
CLI_COMMAND(restore, .name = "restore", .arguments = "FILE", .summary = "Goes on with a machine from the file that it was saved to",
            .options = paused_options, .min_args = 1, .max_args = 1, .complete = COMPLETE_FILE, .run = run_restore);

static int run_dump(struct cli *c)
{
    return follow(c, c->args[1], "dump", c->args[0], "is dumped");
}
CLI_COMMAND(dump, .name = "dump", .other_name = "dump-core", .arguments = "NAME FILE", .summary = "Writes a machine's memory to a core file",
            .options = dump_options, .min_args = 2, .max_args = 2, .complete = COMPLETE_MACHINE, .run = run_dump);
