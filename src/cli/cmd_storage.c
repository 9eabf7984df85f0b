/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands on storage: `ruche pool VERB`, `ruche volume VERB`. A verb is one row. */
#include "cli/cli.h"
#include "cli/rest.h"
#include "cli/verb.h"

#include "base/fd.h"
#include "base/units.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void take_text(struct cli *c, JsonObject *body, const char *option, const char *member)
{
    if (cli_has(c, option))
        json_object_set_string_member(body, member, cli_value(c, option));
}

static void take_switch(struct cli *c, JsonObject *body, const char *option, const char *member)
{
    if (cli_has(c, option))
        json_object_set_boolean_member(body, member, TRUE);
}

/* A size without a unit is in GiB: nobody makes a volume of two bytes. */
static bool take_size(JsonObject *body, const char *member, const char *text, GError **error)
{
    uint64_t bytes;
    if (!units_parse_size(text, 1 << 30, &bytes) || bytes > INT64_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not a size; \"2\" means 2 GiB, or say 512M", text);
    json_object_set_int_member(body, member, (int64_t)bytes);
    return true;
}

static int64_t number(JsonObject *o, const char *name)
{
    return json_object_get_int_member_with_default(o, name, 0);
}

/* ---- pools ---- */

static void pool_row(struct table *t, JsonObject *p)
{
    bool runs = json_object_has_member(p, "capacity");
    table_add(t, text_of(p, "name"), text_of(p, "type"), text_of(p, "state"), yes_no(p, "autostart"),
              runs ? show_size(number(p, "capacity")) : "-", runs ? show_size(number(p, "allocation")) : "-",
              runs ? show_size(number(p, "available")) : "-");
}

static int pool_list(struct cli *c, char **args)
{
    static const struct cli_listing listing = { "pools", "NAME TYPE STATE AUTOSTART CAPACITY USED FREE", pool_row };
    return cli_list(c, &listing, "/pools", NULL);
}

static void line(const char *what, const char *text)
{
    if (text)
        printf("%-14s %s\n", what, text);
}

static void pool_show(JsonObject *o)
{
    static const char *const texts[] = { "name", "uuid", "type", "state", "target" };
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        line(texts[i], text_of(o, texts[i]));
    line("autostart", yes_no(o, "autostart"));
    if (!json_object_has_member(o, "capacity"))
        return;
    double capacity = (double)MAX(number(o, "capacity"), 1);
    line("capacity", show_size(number(o, "capacity")));
    printf("%-14s %s (%.0f %%)%s\n", "used", show_size(number(o, "allocation")), 100.0 * (double)number(o, "allocation") / capacity,
           json_object_get_boolean_member(o, "over_threshold") ? ", over its threshold" : "");
    line("free", show_size(number(o, "available")));
    printf("%-14s %s, %.2f times the capacity\n", "promised", show_size(number(o, "promised")),
           json_object_get_double_member_with_default(o, "overcommit", 0));
    if (number(o, "warn_percent"))
        printf("%-14s %" PRIi64 " %%\n", "warning at", number(o, "warn_percent"));
    printf("%-14s %" PRIi64 "\n", "volumes", number(o, "volumes"));
}

static int pool_info(struct cli *c, char **args)
{
    return cli_show(c, pool_show, "/pools/%s", args);
}

static const struct cli_option pool_options[] = {
    { "type", "TYPE", "create: dir, fs, netfs, logical, disk, iscsi, iscsi-direct, scsi, mpath, rbd, zfs", false },
    { "target", "FOLDER", "create: where its volumes are", false },
    { "host", "NAME", "create: the server", false },
    { "dir", "PATH", "create: what the server exports", false },
    { "device", "PATH", "create: a block device, or a target's name", true },
    { "source", "NAME", "create: a volume group, a pool of Ceph or ZFS", false },
    { "adapter", "NAME", "create: such as scsi_host3", false },
    { "initiator", "IQN", "create: our name towards the target", false },
    { "format", "FORMAT", "create: ext4, nfs, cifs, gpt ...", false },
    { "build", NULL, "create, start: make it, if nothing is there", false },
    { "overwrite", NULL, "create, start: make it, whatever is there", false },
    { "autostart", "yes|no", "create, set: start it with the host", false },
    { "warn", "PERCENT", "set: tell when so much of it is used; 0: never", false },
    { "storage", NULL, "delete: what it stands on, too", false },
    { 0 },
};

static int pool_create(struct cli *c, char **args)
{
    static const char *const texts[] = { "type", "target", "host", "dir", "source", "adapter", "initiator", "format" };
    GError *error = NULL;
    JsonObject *body = json_object_new();
    json_object_set_string_member(body, "name", args[0]);
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        take_text(c, body, texts[i], texts[i]);
    take_switch(c, body, "build", "build");
    take_switch(c, body, "overwrite", "overwrite");
    if (cli_has(c, "autostart"))
        json_object_set_boolean_member(body, "autostart", cli_yes(c, "autostart"));
    if (cli_has(c, "device")) {
        g_autofree char **devices = cli_values(c, "device");
        JsonArray *list = json_array_new();
        for (char **d = devices; *d; d++)
            json_array_add_string_element(list, *d);
        json_object_set_array_member(body, "devices", list);
    }
    JsonObject *o = rest_call(c->rest, "POST", body, &error, "/pools");
    return cli_finish(c, o, error);
}

static int pool_set(struct cli *c, char **args)
{
    GError *error = NULL;
    uint64_t percent;
    JsonObject *body = json_object_new();
    if (cli_has(c, "autostart"))
        json_object_set_boolean_member(body, "autostart", cli_yes(c, "autostart"));
    if (cli_has(c, "warn")) {
        if (!units_parse_u64(cli_value(c, "warn"), &percent) || percent > 100) {
            ruche_error(&error, RUCHE_ERR_INVALID, "'%s' is no percentage from 0 to 100", cli_value(c, "warn"));
            json_object_unref(body);
            return cli_fail(error);
        }
        json_object_set_int_member(body, "warn_percent", (int64_t)percent);
    }
    JsonObject *o = rest_call(c->rest, "PATCH", body, &error, "/pools/%s", args[0]);
    return cli_finish(c, o, error);
}

static int pool_delete(struct cli *c, char **args)
{
    GError *error = NULL;
    JsonObject *body = json_object_new();
    take_switch(c, body, "storage", "storage");
    JsonObject *o = rest_call(c->rest, "DELETE", body, &error, "/pools/%s", args[0]);
    return cli_finish(c, o, error);
}

/* start, stop, refresh: the verb is the request. */
static int pool_do(struct cli *c, char **args)
{
    GError *error = NULL;
    JsonObject *body = json_object_new();
    take_switch(c, body, "build", "build");
    take_switch(c, body, "overwrite", "overwrite");
    JsonObject *o = rest_call(c->rest, "POST", body, &error, "/pools/%s/%s", args[0], c->args[0]);
    return cli_finish(c, o, error);
}

static int pool_xml(struct cli *c, char **args)
{
    return cli_print_text(c, "/pools/%s/xml", args[0]);
}

static const struct cli_verb pool_verbs[] = {
    { "list", "", pool_list, NULL, NULL },
    { "info", "NAME", pool_info, NULL, NULL },
    { "create", "NAME", pool_create, NULL, NULL },
    { "set", "NAME", pool_set, NULL, NULL },
    { "start", "NAME", pool_do, NULL, NULL },
    { "stop", "NAME", pool_do, NULL, NULL },
    { "refresh", "NAME", pool_do, NULL, NULL },
    { "dumpxml", "NAME", pool_xml, NULL, NULL },
    { "delete", "NAME", pool_delete, NULL, NULL },
    { 0 },
};

static int run_pool(struct cli *c)
{
    return cli_run_verb(c, pool_verbs);
}
CLI_COMMAND(pool, .name = "pool", .arguments = "list|info|create|set|start|stop|refresh|dumpxml|delete [NAME]",
            .summary = "Storage pools: where volumes are", .options = pool_options, .min_args = 1, .max_args = 2, .run = run_pool);

/* ---- volumes ---- */

static const struct cli_option volume_options[] = {
    { "format", "FORMAT", "create, clone: raw, qcow2, vmdk, vdi, vpc, vhdx", false },
    { "allocation", "SIZE", "create: so much of it is there at once", false },
    { "backing", "VOLUME", "create: a thin clone of this one", false },
    { "preallocate", NULL, "create: lay out the tables of qcow2", false },
    { "subclusters", NULL, "create: qcow2 with 32 subclusters in each cluster", false },
    { "nocow", NULL, "create: on btrfs, write in place", false },
    { "thin", NULL, "clone: on top of the volume, in next to no space", false },
    { "reflink", NULL, "clone: share blocks, or fail", false },
    { "shrink", NULL, "resize: to less; what is behind is lost", false },
    { "allocate", NULL, "resize: all of what is new is there at once", false },
    { "algorithm", "NAME", "wipe: zero, nnsa, dod, bsi, gutmann, schneier, pfitzner7, pfitzner33, random, trim", false },
    { "wipe", NULL, "delete: write zeroes over it before", false },
    { "force", NULL, "delete, wipe, shrink, upload: though a machine, or a volume that stands on it, would miss it", false },
    { 0 },
};

static void volume_row(struct table *t, JsonObject *v)
{
    table_add(t, text_of(v, "name"), text_of(v, "format"), show_size(number(v, "capacity")), show_size(number(v, "allocation")),
              text_of(v, "path"));
}

static int volume_list(struct cli *c, char **args)
{
    static const struct cli_listing listing = { "volumes", "NAME FORMAT CAPACITY USED PATH", volume_row };
    return cli_list(c, &listing, "/pools/%s/volumes", args[0]);
}

static void volume_show(JsonObject *o)
{
    static const char *const texts[] = { "name", "path", "type", "format", "backing" };
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        line(texts[i], text_of(o, texts[i]));
    line("capacity", show_size(number(o, "capacity")));
    line("used", show_size(number(o, "allocation")));
    JsonArray *users = json_object_get_array_member(o, "users");
    for (unsigned i = 0; i < json_array_get_length(users); i++)
        line(i ? "" : "used by", json_array_get_string_element(users, i));
}

static int volume_info(struct cli *c, char **args)
{
    return cli_show(c, volume_show, "/pools/%s/volumes/%s", args);
}

/* Follows a job to its end, with its progress. */
static int finish(struct cli *c, JsonObject *job, GError *error)
{
    if (job)
        job = follow_job(c, job, &error);
    return cli_finish(c, job, error);
}

static int send_create(struct cli *c, const char *pool, JsonObject *body)
{
    GError *error = NULL;
    take_text(c, body, "format", "format");
    take_text(c, body, "backing", "backing");
    take_switch(c, body, "preallocate", "preallocate");
    take_switch(c, body, "subclusters", "subclusters");
    take_switch(c, body, "nocow", "nocow");
    take_switch(c, body, "reflink", "reflink");
    if (cli_has(c, "allocation") && !take_size(body, "allocation", cli_value(c, "allocation"), &error)) {
        json_object_unref(body);
        return cli_fail(error);
    }
    JsonObject *job = rest_call(c->rest, "POST", body, &error, "/pools/%s/volumes", pool);
    return finish(c, job, error);
}

static int volume_create(struct cli *c, char **args)
{
    GError *error = NULL;
    JsonObject *body = json_object_new();
    json_object_set_string_member(body, "name", args[1]);
    if (args[2] && !take_size(body, "size", args[2], &error)) {
        json_object_unref(body);
        return cli_fail(error);
    }
    return send_create(c, args[0], body);
}

static int volume_clone(struct cli *c, char **args)
{
    JsonObject *body = json_object_new();
    json_object_set_string_member(body, "name", args[2]);
    json_object_set_string_member(body, cli_has(c, "thin") ? "backing" : "from", args[1]);
    return send_create(c, args[0], body);
}

static int volume_resize(struct cli *c, char **args)
{
    GError *error = NULL;
    JsonObject *body = json_object_new(), *o = NULL;
    take_switch(c, body, "shrink", "shrink");
    take_switch(c, body, "force", "force");
    take_switch(c, body, "allocate", "allocate");
    if (take_size(body, "size", args[2], &error))
        o = rest_call(c->rest, "POST", body, &error, "/pools/%s/volumes/%s/resize", args[0], args[1]);
    else
        json_object_unref(body);
    return cli_finish(c, o, error);
}

static int volume_wipe(struct cli *c, char **args)
{
    GError *error = NULL;
    JsonObject *body = json_object_new();
    take_text(c, body, "algorithm", "algorithm");
    take_switch(c, body, "force", "force");
    JsonObject *job = rest_call(c->rest, "POST", body, &error, "/pools/%s/volumes/%s/wipe", args[0], args[1]);
    return finish(c, job, error);
}

static int volume_delete(struct cli *c, char **args)
{
    int status = 0;
    for (char **name = args + 1; *name && !status; name++) {
        GError *error = NULL;
        JsonObject *body = json_object_new();
        take_switch(c, body, "wipe", "wipe");
        take_switch(c, body, "force", "force");
        JsonObject *o = rest_call(c->rest, "DELETE", body, &error, "/pools/%s/volumes/%s", args[0], *name);
        status = cli_finish(c, o, error);
    }
    return status;
}

/* ---- contents ---- */

/* How far it is, on a terminal. */
struct progress {
    uint64_t total; /* 0: not known */
    int64_t shown_us;
    bool on;
};

static void show_progress(uint64_t count, void *opaque)
{
    struct progress *p = opaque;
    int64_t now = g_get_monotonic_time();
    if (!p->on || (now - p->shown_us < 200000 && count != p->total))
        return;
    p->shown_us = now;
    if (p->total)
        fprintf(stderr, "\r%5.1f%% of %s", 100.0 * (double)count / (double)p->total, show_size((int64_t)p->total));
    else
        fprintf(stderr, "\r%s", show_size((int64_t)count));
    if (count == p->total)
        fputc('\n', stderr);
}

static int volume_upload(struct cli *c, char **args)
{
    g_autoptr(GFile) file = g_file_new_for_commandline_arg(args[2]);
    GError *error = NULL;
    g_autoptr(GFileInputStream) in = g_file_read(file, NULL, &error);
    g_autoptr(GFileInfo) info = in ? g_file_input_stream_query_info(in, "standard::size", NULL, &error) : NULL;
    g_autoptr(JsonObject) o = info ? rest_call(c->rest, "GET", NULL, &error, "/pools/%s/volumes/%s", args[0], args[1]) : NULL;
    if (!o)
        return cli_fail(error);
    struct progress p = { .total = (uint64_t)g_file_info_get_size(info), .on = isatty(STDERR_FILENO) };
    if (!g_strcmp0(text_of(o, "format"), "raw") && p.total > (uint64_t)number(o, "physical") && p.total > (uint64_t)number(o, "capacity")) {
        g_set_error(&error, G_FILE_ERROR, G_FILE_ERROR_NOSPC, "'%s' has %" PRIu64 " bytes, and volume '%s' %" PRIi64, args[2], p.total,
                    args[1], number(o, "capacity"));
        return cli_fail(error);
    }
    return rest_put(c->rest, G_INPUT_STREAM(in), p.total, show_progress, &p, &error,
                    cli_has(c, "force") ? "/pools/%s/volumes/%s/data?force=true" : "/pools/%s/volumes/%s/data", args[0], args[1])
               ? 0
               : cli_fail(error);
}

/* Pieces of zeroes become holes. */
static bool write_sparse(int fd, const char *data, size_t len, uint64_t at)
{
    static const char zeroes[64 << 10];
    bool empty = len <= sizeof(zeroes) && !memcmp(data, zeroes, len);
    for (size_t gone = 0; !empty && gone < len;) {
        ssize_t n = pwrite(fd, data + gone, len - gone, (off_t)(at + gone));
        if (n < 0 && errno != EINTR)
            return false;
        gone += n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool save_stream(GInputStream *in, int fd, struct progress *p, GError **error)
{
    g_autofree char *buf = g_malloc(64 << 10);
    uint64_t at = 0;
    gsize n;
    do {
        if (!g_input_stream_read_all(in, buf, 64 << 10, &n, NULL, error))
            return false;
        if (!write_sparse(fd, buf, n, at))
            return ruche_error_errno(error, errno, "the file cannot be written");
        at += n;
        show_progress(at, p);
    } while (n == 64 << 10);
    p->total = at;
    show_progress(at, p);
    return ftruncate(fd, (off_t)at) == 0 || ruche_error_errno(error, errno, "the file cannot be written");
}

static int volume_download(struct cli *c, char **args)
{
    GError *error = NULL;
    struct progress p = { .on = isatty(STDERR_FILENO) };
    g_autoptr(GInputStream) in = rest_stream(c->rest, &error, "/pools/%s/volumes/%s/data", args[0], args[1]);
    if (!in)
        return cli_fail(error);
    autofd fd = open(args[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        ruche_error_errno(&error, errno, "'%s'", args[2]);
    return fd >= 0 && save_stream(in, fd, &p, &error) ? 0 : cli_fail(error);
}

static const struct cli_verb volume_verbs[] = {
    { "list", "POOL", volume_list, NULL, NULL },
    { "info", "POOL VOLUME", volume_info, NULL, NULL },
    { "create", "POOL VOLUME [SIZE]", volume_create, NULL, NULL },
    { "clone", "POOL VOLUME NEW", volume_clone, NULL, NULL },
    { "resize", "POOL VOLUME SIZE", volume_resize, NULL, NULL },
    { "wipe", "POOL VOLUME", volume_wipe, NULL, NULL },
    { "delete", "POOL VOLUME ...", volume_delete, NULL, NULL },
    { "upload", "POOL VOLUME FILE", volume_upload, NULL, NULL },
    { "download", "POOL VOLUME FILE", volume_download, NULL, NULL },
    { 0 },
};

static int run_volume(struct cli *c)
{
    return cli_run_verb(c, volume_verbs);
}
CLI_COMMAND(volume, .name = "volume", .other_name = "vol", .arguments = "list|info|create|clone|resize|wipe|delete|upload|download POOL [VOLUME ...]",
            .summary = "Volumes of storage pools: disks of machines", .text = "A size without a unit is in GiB: \"2\" means 2 GiB.",
            .options = volume_options, .min_args = 1, .max_args = 1000, .run = run_volume);
