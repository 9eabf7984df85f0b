/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Launching machines; versions, jobs, images. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct cli_option launch_options[] = {
    { "name", "NAME", "of the machine", false },
    { "cpus", "COUNT", "vCPUs; 1", false },
    { "memory", "SIZE", "1G", false },
    { "disk", "SIZE", "of its disk; the image's, at least 10G for a named image", false },
    { "network", "WHICH", "user, none, bridge:NAME, or the name of a network", false },
    { "user", "NAME", "who may log in; ruche", false },
    { "password", "TEXT", "his password; without one only keys open", false },
    { "ssh-key", "FILE", "a public key that opens; yours, if none is given", true },
    { "cloud-init", "FILE", "a cloud-config in place of what user, password and keys make", false },
    { "kernel", "FILE", "for an image that brings none", false },
    { "initrd", "FILE", "with --kernel", false },
    { "cmdline", "TEXT", "of the kernel", false },
    { "autostart", NULL, "start it with the host", false },
    { "no-start", NULL, "only define it", false },
    { 0 },
};

/* ---- keys ---- */

static bool add_key(JsonArray *keys, const char *path, GError **error)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, error))
        return false;
    g_auto(GStrv) lines = g_strsplit(text, "\n", 1000);
    for (char **line = lines; *line; line++)
        if (*g_strstrip(*line) && **line != '#')
            json_array_add_string_element(keys, *line);
    return true;
}

/* Those in ~/.ssh. */
static void add_user_keys(JsonArray *keys)
{
    g_autofree char *folder = g_build_filename(g_get_home_dir(), ".ssh", NULL);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir)))
        if (g_str_has_prefix(name, "id_") && g_str_has_suffix(name, ".pub")) {
            g_autofree char *path = g_build_filename(folder, name, NULL);
            add_key(keys, path, NULL);
        }
}

/* A person without a key gets one that only `ruche ssh` uses. */
static bool add_own_key(JsonArray *keys, GError **error)
{
    g_autofree char *path = cli_own_key(), *public = g_strconcat(path, ".pub", NULL), *folder = g_path_get_dirname(path);
    if (!g_file_test(public, G_FILE_TEST_EXISTS)) {
        char *argv[] = { (char *)"ssh-keygen", (char *)"-q", (char *)"-t", (char *)"ed25519", (char *)"-N", (char *)"",
                         (char *)"-C", (char *)"ruche", (char *)"-f", path, NULL };
        int status = 0;
        g_mkdir_with_parents(folder, 0700);
        if (!g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, error) ||
            !g_spawn_check_wait_status(status, error))
            return false;
    }
    return add_key(keys, public, error);
}

static bool add_keys(struct cli *c, JsonObject *body, GError **error)
{
    g_autoptr(JsonArray) keys = json_array_new();
    g_autofree char **given = cli_values(c, "ssh-key");
    bool good = true;
    for (char **key = given; good && *key; key++)
        good = add_key(keys, *key, error);
    if (good && !*given)
        add_user_keys(keys);
    if (good && !json_array_get_length(keys) && !cli_has(c, "password"))
        good = add_own_key(keys, error);
    if (good)
        json_object_set_array_member(body, "ssh_keys", json_array_ref(keys));
    return good;
}

/* ---- launch ---- */

/* A name, a URL, or a file, which the manager wants by its whole path. */
static char *image_of(const char *image)
{
    bool url = g_str_has_prefix(image, "http://") || g_str_has_prefix(image, "https://");
    if (!url && (strchr(image, '/') || (strchr(image, '.') && g_file_test(image, G_FILE_TEST_EXISTS))))
        return g_canonicalize_filename(image, NULL);
    return g_strdup(image);
}

static void add_texts(struct cli *c, JsonObject *body)
{
    static const char *const names[] = { "name", "cpus", "memory", "disk", "network", "user", "password", "cmdline" };
    static const char *const paths[] = { "kernel", "initrd" };
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
        if (cli_has(c, names[i]))
            json_object_set_string_member(body, names[i], cli_value(c, names[i]));
    for (size_t i = 0; i < G_N_ELEMENTS(paths); i++)
        if (cli_has(c, paths[i])) {
            g_autofree char *path = g_canonicalize_filename(cli_value(c, paths[i]), NULL);
            json_object_set_string_member(body, paths[i], path);
        }
    json_object_set_boolean_member(body, "autostart", cli_has(c, "autostart"));
    json_object_set_boolean_member(body, "no_start", cli_has(c, "no-start"));
}

static bool add_cloud_init(struct cli *c, JsonObject *body, GError **error)
{
    g_autofree char *text = NULL;
    if (!cli_has(c, "cloud-init"))
        return true;
    if (!g_file_get_contents(cli_value(c, "cloud-init"), &text, NULL, error))
        return false;
    json_object_set_string_member(body, "user_data", text);
    return true;
}

static int run_launch(struct cli *c)
{
    GError *error = NULL;
    g_autofree char *image = image_of(c->args[0]);
    JsonObject *body = json_object_new();
    json_object_set_string_member(body, "image", image);
    add_texts(c, body);
    if (!add_cloud_init(c, body, &error) || !add_keys(c, body, &error)) {
        json_object_unref(body);
        return cli_fail(error);
    }
    JsonObject *job = rest_call(c->rest, "POST", body, &error, "/launch");
    if (job)
        job = follow_job(c, job, &error);
    if (!job)
        return cli_fail(error);
    const char *name = text_of(job, "result");
    if (c->json)
        print_json(job);
    else if (cli_has(c, "no-start"))
        printf("machine '%s' is defined; 'ruche start %s' starts it\n", name, name);
    else
        printf("machine '%s' runs\n  ruche ssh %s        log in, when it has booted\n  ruche console %s    its console; Ctrl-] leaves\n"
               "  ruche delete --force %s\n", name, name, name, name);
    json_object_unref(job);
    return 0;
}
CLI_COMMAND(launch, .name = "launch", .arguments = "IMAGE", .summary = "Makes a machine of an image and starts it",
            .text = "IMAGE is a name ('ruche images'), the file of a disk, or its URL. Named images are built once, from this host's own package\n"
                    "sources; a machine's disk is a thin clone.",
            .options = launch_options, .min_args = 1, .max_args = 1, .complete = COMPLETE_IMAGE, .run = run_launch);

static int run_images(struct cli *c)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/images");
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    JsonArray *list = json_object_get_array_member(o, "images");
    for (unsigned i = 0; i < json_array_get_length(list); i++)
        puts(json_array_get_string_element(list, i));
    return 0;
}
CLI_COMMAND(images, .name = "images", .summary = "Names that 'launch' takes", .run = run_images);

/* ---- jobs, version ---- */

static const struct cli_option job_options[] = { { "cancel", NULL, "ask it to end", false }, { 0 } };

static int one_job(struct cli *c)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, cli_has(c, "cancel") ? "DELETE" : "GET", NULL, &error, "/jobs/%s", c->args[0]);
    return o ? print_json(o) : cli_fail(error);
}

static int run_jobs(struct cli *c)
{
    GError *error = NULL;
    if (c->arg_count)
        return one_job(c);
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/jobs");
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    struct table t;
    table_init(&t, c, 5, "ID", "OPERATION", "OBJECT", "STATE", "STEP");
    JsonArray *list = json_object_get_array_member(o, "jobs");
    for (unsigned i = 0; i < json_array_get_length(list); i++) {
        JsonObject *j = json_array_get_object_element(list, i);
        char id[24];
        g_snprintf(id, sizeof(id), "%" PRIi64, json_object_get_int_member(j, "id"));
        table_add(&t, id, text_of(j, "operation"), text_of(j, "object"), text_of(j, "state"),
                  text_of(j, "message") ? text_of(j, "message") : text_of(j, "step"));
    }
    table_print(&t);
    return 0;
}
CLI_COMMAND(jobs, .name = "jobs", .arguments = "[ID]", .summary = "What the manager works on, and what just ended", .options = job_options, .max_args = 1,
            .run = run_jobs);

static int run_version(struct cli *c)
{
    GError *error = NULL;
    if (!c->json)
        printf("ruche %s\n", RUCHE_VERSION);
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/version");
    if (!o)
        return cli_fail(error);
    if (c->json)
        return print_json(o);
    printf("ruched %s (%s), speaks libvirt %s\n", text_of(o, "version"), text_of(o, "mode"), text_of(o, "libvirt"));
    return 0;
}
CLI_COMMAND(version, .name = "version", .summary = "Versions of this program and of the manager", .run = run_version);
