/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands on machines: what there is, and what they are told to do. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- list ---- */

static const struct cli_option list_options[] = {
    { "all", NULL, "those too that do not run", false },
    { "names", NULL, "only names, one a line", false },
    { 0 },
};

static void list_row(struct table *t, JsonObject *d)
{
    char id[24] = "-", cpus[24];
    if (json_object_has_member(d, "id"))
        g_snprintf(id, sizeof(id), "%" PRIi64, json_object_get_int_member(d, "id"));
    g_snprintf(cpus, sizeof(cpus), "%" PRIi64, json_object_get_int_member(d, "vcpus"));
    table_add(t, id, text_of(d, "name"), text_of(d, "state"), cpus, show_size(json_object_get_int_member(d, "memory")),
              json_object_get_boolean_member(d, "autostart") ? "yes" : "no");
}

static int run_list(struct cli *c)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/domains");
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    JsonArray *list = json_object_get_array_member(o, "domains");
    struct table t;
    table_init(&t, c, 6, "ID", "NAME", "STATE", "CPUS", "MEMORY", "AUTOSTART");
    for (unsigned i = 0; i < json_array_get_length(list); i++) {
        JsonObject *d = json_array_get_object_element(list, i);
        if (!cli_has(c, "all") && !json_object_has_member(d, "id"))
            continue;
        if (cli_has(c, "names"))
            puts(text_of(d, "name"));
        else
            list_row(&t, d);
    }
    if (cli_has(c, "names"))
        g_ptr_array_unref(t.cells);
    else
        table_print(&t);
    return 0;
}
CLI_COMMAND(list, .name = "list", .other_name = "ls", .summary = "Machines that run", .options = list_options, .run = run_list);

/* ---- info ---- */

static void print_members(JsonObject *o, const char *const *names)
{
    for (; *names; names++)
        if (text_of(o, *names))
            printf("%-12s %s\n", *names, text_of(o, *names));
}

static void print_devices(JsonObject *o, const char *kind, const char *const *columns)
{
    JsonArray *list = json_object_get_array_member(o, kind);
    for (unsigned i = 0; i < json_array_get_length(list); i++) {
        JsonObject *device = json_array_get_object_element(list, i);
        printf("%-12s", i ? "" : kind);
        for (const char *const *column = columns; *column; column++)
            if (text_of(device, *column))
                printf(" %s", text_of(device, *column));
        putchar('\n');
    }
}

static void print_info(JsonObject *o)
{
    static const char *const names[] = { "name", "uuid", "state", "title", NULL };
    static const char *const disk[] = { "target", "bus", "source", NULL };
    static const char *const nic[] = { "type", "source", "mac", "target", "model", NULL };
    print_members(o, names);
    printf("%-12s %" PRIi64 "\n", "cpus", json_object_get_int_member(o, "vcpus"));
    printf("%-12s %.1f s\n", "cpu time", json_object_get_double_member(o, "cpu_seconds"));
    printf("%-12s %s of %s\n", "memory", show_size(json_object_get_int_member(o, "memory")),
           show_size(json_object_get_int_member(o, "max_memory")));
    printf("%-12s %s\n", "autostart", json_object_get_boolean_member(o, "autostart") ? "yes" : "no");
    printf("%-12s %s\n", "defined", json_object_get_boolean_member(o, "persistent") ? "yes" : "no, it ends when it stops");
    print_devices(o, "disks", disk);
    print_devices(o, "interfaces", nic);
    if (json_object_has_member(o, "ssh")) {
        JsonObject *ssh = json_object_get_object_member(o, "ssh");
        printf("%-12s %s@%s port %" PRIi64 "\n", "ssh", text_of(ssh, "user"), text_of(ssh, "host"), json_object_get_int_member(ssh, "port"));
    }
}

static int print_host(struct cli *c)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/host");
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    printf("%-12s %s\n%-12s %s\n", "name", text_of(o, "name"), "arch", text_of(o, "arch"));
    printf("%-12s %" PRIi64 " (%" PRIi64 " MHz)\n", "cpus", json_object_get_int_member(o, "cpus"), json_object_get_int_member(o, "mhz"));
    printf("%-12s %s, %s free\n", "memory", show_size(json_object_get_int_member(o, "memory")),
           show_size(json_object_get_int_member(o, "memory_free")));
    printf("%-12s %" PRIi64 " run, %" PRIi64 " do not\n", "machines", json_object_get_int_member(o, "domains_active"),
           json_object_get_int_member(o, "domains_inactive"));
    printf("%-12s virsh -c '%s'\n", "libvirt", text_of(o, "uri"));
    return 0;
}

static int run_info(struct cli *c)
{
    GError *error = NULL;
    if (!c->arg_count)
        return print_host(c);
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/domains/%s", c->args[0]);
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    print_info(o);
    return 0;
}
CLI_COMMAND(info, .name = "info", .arguments = "[NAME]", .summary = "A machine, or the host", .max_args = 1, .complete = COMPLETE_MACHINE,
            .run = run_info);

static const struct cli_option host_options[] = { { "uri", NULL, "only where libvirt's clients connect", false }, { 0 } };

static int run_host(struct cli *c)
{
    GError *error = NULL;
    if (!cli_has(c, "uri"))
        return print_host(c);
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/host");
    if (!o)
        return cli_fail(error);
    puts(text_of(o, "uri"));
    return 0;
}
CLI_COMMAND(host, .name = "host", .summary = "The host: processors, memory, how many machines, where virsh connects",
            .options = host_options, .run = run_host);

/* ---- what a machine is told: a row each ---- */

static const struct cli_option start_options[] = {
    { "paused", NULL, "stop before the first instruction", false },
    { "console", NULL, "show its console at once", false },
    { 0 },
};
static const struct cli_option mode_options[] = { { "mode", "acpi|agent", "how the guest is asked", false }, { 0 } };
static const struct cli_option destroy_options[] = { { "graceful", NULL, "only if it ends when it is asked to", false }, { 0 } };

static JsonObject *body_of(const struct cli *c)
{
    JsonObject *body = json_object_new();
    for (const struct cli_option *o = c->command->options; o && o->name; o++)
        if (cli_has(c, o->name) && strcmp(o->name, "console") != 0) {
            if (o->argument)
                json_object_set_string_member(body, o->name, cli_value(c, o->name));
            else
                json_object_set_boolean_member(body, o->name, TRUE);
        }
    return body;
}

/* A machine that was saved did not boot, which a person should know. */
static void say_started(const struct cli *c, JsonObject *o, const char *name)
{
    enum { RUNNING_RESTORED = 3 };
    if (c->command->options == start_options &&
        json_object_get_int_member_with_default(o, "reason", 0) == RUNNING_RESTORED &&
        !g_strcmp0(json_object_get_string_member_with_default(o, "state", ""), "running"))
        printf("'%s' goes on from its saved state\n", name);
}

static int run_action(struct cli *c)
{
    int status = 0;
    for (unsigned i = 0; i < c->arg_count; i++) {
        GError *error = NULL;
        g_autoptr(JsonObject) o = rest_call(c->rest, "POST", body_of(c), &error, "/domains/%s/%s", c->args[i], c->command->name);
        if (!o)
            status = cli_fail(error);
        else if (c->json)
            print_json(o);
        else
            say_started(c, o, c->args[i]);
    }
    if (!status && c->command->options == start_options && cli_has(c, "console"))
        return cli_console(c, c->args[0], false);
    return status;
}

#define ACTION(word, text, ...)                                                                    \
    CLI_COMMAND(word, .name = #word, .arguments = "NAME...", .summary = text, .min_args = 1, .max_args = 1000,           \
                .complete = COMPLETE_MACHINE, .run = run_action, __VA_ARGS__)

ACTION(start, "Starts machines", .options = start_options);
ACTION(shutdown, "Asks guests to power off", .options = mode_options);
ACTION(reboot, "Asks guests to boot again", .options = mode_options);
ACTION(reset, "Resets machines, as their button does");
ACTION(destroy, "Switches machines off", .options = destroy_options);
ACTION(pause, "Stops machines where they are", .other_name = "suspend");
ACTION(resume, "Lets paused machines go on");

/* ---- names and definitions ---- */

static int run_rename(struct cli *c)
{
    GError *error = NULL;
    JsonObject *body = json_object_new();
    json_object_set_string_member(body, "new_name", c->args[1]);
    g_autoptr(JsonObject) o = rest_call(c->rest, "POST", body, &error, "/domains/%s/rename", c->args[0]);
    return o ? 0 : cli_fail(error);
}
CLI_COMMAND(rename, .name = "rename", .arguments = "NAME NEW-NAME", .summary = "Gives a machine another name", .min_args = 2, .max_args = 2,
            .complete = COMPLETE_MACHINE, .run = run_rename);

static const struct cli_option delete_options[] = {
    { "force", NULL, "switch it off first, if it runs", false },
    { "keep-files", NULL, "leave the files that 'launch' made for it", false },
    { 0 },
};

static int delete_one(struct cli *c, const char *name)
{
    GError *error = NULL;
    g_autoptr(JsonObject) before = rest_call(c->rest, "GET", NULL, &error, "/domains/%s", name);
    if (!before)
        return cli_fail(error);
    if (json_object_has_member(before, "id")) {
        if (!cli_has(c, "force") && !ruche_error(&error, RUCHE_ERR_STATE, "machine '%s' runs: shut it down first, or give --force", name))
            return cli_fail(error);
        g_autoptr(JsonObject) off = rest_call(c->rest, "POST", NULL, &error, "/domains/%s/destroy", name);
        if (!off)
            return cli_fail(error);
    }
    if (json_object_get_boolean_member(before, "persistent")) {
        g_autoptr(JsonObject) gone = rest_call(c->rest, "DELETE", NULL, &error, "/domains/%s", name);
        if (!gone)
            return cli_fail(error);
    }
    if (cli_has(c, "keep-files"))
        return 0;
    g_autoptr(JsonObject) files = rest_call(c->rest, "DELETE", NULL, &error, "/launched/%s", name);
    return files ? 0 : cli_fail(error);
}

static int run_delete(struct cli *c)
{
    int status = 0;
    for (unsigned i = 0; i < c->arg_count; i++)
        status |= delete_one(c, c->args[i]);
    return status;
}
CLI_COMMAND(delete, .name = "delete", .other_name = "rm", .arguments = "NAME...", .summary = "Takes machines away, with the files that 'launch' made",
            .text = "Disks that were attached by hand stay.", .options = delete_options, .min_args = 1, .max_args = 1000,
            .complete = COMPLETE_MACHINE, .run = run_delete);

static int define_text(struct cli *c, const char *xml, bool start)
{
    GError *error = NULL;
    JsonObject *body = json_object_new();
    json_object_set_string_member(body, "xml", xml);
    json_object_set_boolean_member(body, "start", start);
    g_autoptr(JsonObject) o = rest_call(c->rest, "POST", body, &error, "/domains");
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    printf("machine '%s' %s\n", text_of(o, "name"), start ? "runs" : "is defined");
    return 0;
}

static int define_file(struct cli *c, bool start)
{
    GError *error = NULL;
    g_autofree char *xml = cli_read_file(c->args[0], &error);
    return xml ? define_text(c, xml, start) : cli_fail(error);
}

static int run_define(struct cli *c)
{
    return define_file(c, false);
}
CLI_COMMAND(define, .name = "define", .arguments = "FILE|-", .summary = "Defines a machine by libvirt's XML, or changes its definition", .min_args = 1,
            .max_args = 1, .complete = COMPLETE_FILE, .run = run_define);

static int run_create(struct cli *c)
{
    return define_file(c, true);
}
CLI_COMMAND(create, .name = "create", .arguments = "FILE|-", .summary = "Defines a machine by libvirt's XML and starts it", .min_args = 1,
            .max_args = 1, .complete = COMPLETE_FILE, .run = run_create);

static const struct cli_option dumpxml_options[] = {
    { "inactive", NULL, "as it will be started next", false },
    { "secure", NULL, "with passwords", false },
    { 0 },
};

static int run_dumpxml(struct cli *c)
{
    GError *error = NULL;
    g_autofree char *xml = rest_text(c->rest, &error,
                                     cli_has(c, "inactive") ? cli_has(c, "secure") ? "/domains/%s/xml?inactive=true&secure=true"
                                                                                   : "/domains/%s/xml?inactive=true"
                                     : cli_has(c, "secure") ? "/domains/%s/xml?secure=true"
                                                            : "/domains/%s/xml",
                                     c->args[0]);
    if (!xml)
        return cli_fail(error);
    fputs(xml, stdout);
    return 0;
}
CLI_COMMAND(dumpxml, .name = "dumpxml", .arguments = "NAME", .summary = "Prints a machine's description as libvirt's XML", .options = dumpxml_options,
            .min_args = 1, .max_args = 1, .complete = COMPLETE_MACHINE, .run = run_dumpxml);

/* The editor's file is kept when what it holds is refused. */
static int edit_file(struct cli *c, const char *path, const char *before, int (*define)(struct cli *c, const char *xml))
{
    GError *error = NULL;
    const char *editor = g_getenv("VISUAL") ? g_getenv("VISUAL") : g_getenv("EDITOR") ? g_getenv("EDITOR") : "vi";
    g_autofree char *quoted = g_shell_quote(path), *command = g_strdup_printf("%s %s", editor, quoted);
    char *argv[] = { (char *)"/bin/sh", (char *)"-c", command, NULL };
    int status = 0;
    if (!g_spawn_sync(NULL, argv, NULL, G_SPAWN_CHILD_INHERITS_STDIN, NULL, NULL, NULL, NULL, &status, &error) ||
        !g_spawn_check_wait_status(status, &error))
        return cli_fail(error);
    g_autofree char *after = cli_read_file(path, &error);
    if (!after)
        return cli_fail(error);
    if (!strcmp(before, after)) {
        puts("nothing was changed");
        return 0;
    }
    return define(c, after);
}

int cli_edit(struct cli *c, const char *xml, int (*define)(struct cli *c, const char *xml))
{
    GError *error = NULL;
    g_autofree char *path = NULL;
    int fd = g_file_open_tmp("ruche-XXXXXX.xml", &path, &error);
    if (fd < 0)
        return cli_fail(error);
    close(fd);
    if (!g_file_set_contents(path, xml, -1, &error))
        return cli_fail(error);
    int result = edit_file(c, path, xml, define);
    if (result)
        fprintf(stderr, "ruche: what you wrote is kept in %s\n", path);
    else
        remove(path);
    return result;
}

static int define_again(struct cli *c, const char *xml)
{
    return define_text(c, xml, false);
}

static int run_edit(struct cli *c)
{
    GError *error = NULL;
    g_autofree char *xml = rest_text(c->rest, &error, "/domains/%s/xml?inactive=true&secure=true", c->args[0]);
    return xml ? cli_edit(c, xml, define_again) : cli_fail(error);
}
CLI_COMMAND(edit, .name = "edit", .arguments = "NAME", .summary = "Changes a machine's description in your editor", .min_args = 1, .max_args = 1,
            .complete = COMPLETE_MACHINE, .run = run_edit);

/* ---- texts ---- */

static int print_text(struct cli *c, const char *path)
{
    GError *error = NULL;
    g_autofree char *text = rest_text(c->rest, &error, path, c->args[0]);
    if (!text)
        return cli_fail(error);
    fputs(text, stdout);
    return 0;
}

static int run_dmesg(struct cli *c)
{
    return print_text(c, "/domains/%s/dmesg");
}
CLI_COMMAND(dmesg, .name = "dmesg", .arguments = "NAME", .summary = "What the guest wrote to its console last", .min_args = 1, .max_args = 1,
            .complete = COMPLETE_MACHINE, .run = run_dmesg);

static int run_log(struct cli *c)
{
    return print_text(c, "/domains/%s/log");
}
CLI_COMMAND(log, .name = "log", .arguments = "NAME", .summary = "What the machine's program said", .min_args = 1, .max_args = 1,
            .complete = COMPLETE_MACHINE, .run = run_log);
