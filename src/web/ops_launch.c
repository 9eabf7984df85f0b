/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Launching machines, and jobs: what takes long is asked for once and looked at later. */
#include "web/op.h"

#include "base/units.h"
#include "base/util.h"
#include "manager/launch/launch.h"
#include "manager/uuid.h"

#include <string.h>

static const struct web_field launch_fields[] = {
    { "image", WEB_STRING, true, 0, 0, "a name (GET /images), the path of a disk image, or its URL" },
    { "name", WEB_STRING, false, 0, 0, "of the machine; made from the image's if there is none" },
    { "cpus", WEB_INT, false, 1, 4096, "vCPUs; 1" },
    { "memory", WEB_SIZE, false, 16 << 20, INT64_MAX, "1 GiB" },
    { "disk", WEB_SIZE, false, 1 << 20, INT64_MAX, "size of its disk; the image's, at least 10 GiB for a named image" },
    { "network", WEB_STRING, false, 0, 0, "user, none, bridge:NAME or the name of a network" },
    { "user", WEB_STRING, false, 0, 0, "who may log in; ruche" },
    { "password", WEB_STRING, false, 0, 0, "his password; without one only keys open" },
    { "ssh_keys", WEB_STRINGS, false, 0, 0, "lines of authorized_keys" },
    { "user_data", WEB_STRING, false, 0, 0, "a cloud-config in place of what user, password and keys make" },
    { "kernel", WEB_STRING, false, 0, 0, "path, for an image that brings none" },
    { "initrd", WEB_STRING, false, 0, 0, "path, with kernel" },
    { "cmdline", WEB_STRING, false, 0, 0, "of the kernel" },
    { "autostart", WEB_BOOL, false, 0, 0, "start with the host" },
    { "no_start", WEB_BOOL, false, 0, 0, "only define it" },
    { 0 },
};

static char **strings(const struct web_request *r, const char *name)
{
    if (!web_given(r, name))
        return NULL;
    JsonArray *array = json_object_get_array_member(r->args, name);
    unsigned count = json_array_get_length(array);
    char **list = g_new0(char *, count + 1);
    for (unsigned i = 0; i < count; i++)
        list[i] = g_strdup(json_array_get_string_element(array, i));
    return list;
}

JsonNode *web_job_node(struct job *j)
{
    static const char *const states[] = {
        [JOB_RUNNING] = "running", [JOB_DONE] = "done", [JOB_FAILED] = "failed", [JOB_CANCELLED] = "cancelled",
    };
    JsonObject *o = json_object_new();
    json_object_set_int_member(o, "id", j->id);
    json_object_set_string_member(o, "operation", j->operation);
    json_object_set_string_member(o, "object", j->object);
    json_object_set_string_member(o, "state", states[j->state]);
    if (j->step)
        json_object_set_string_member(o, "step", j->step);
    json_object_set_int_member(o, "done", (int64_t)MIN(atomic_load(&j->done), INT64_MAX));
    json_object_set_int_member(o, "total", (int64_t)MIN(atomic_load(&j->total), INT64_MAX));
    if (j->result)
        json_object_set_string_member(o, "result", j->result);
    if (j->error)
        json_object_set_string_member(o, "message", j->error->message);
    return web_node(o);
}

static JsonNode *do_launch(struct web_request *r, GError **error)
{
    struct launch_request *l = g_new0(struct launch_request, 1);
    const struct {
        const char *name;
        char **to;
    } texts[] = {
        { "image", &l->image },         { "name", &l->name },     { "network", &l->network }, { "user", &l->user },
        { "password", &l->password },   { "kernel", &l->kernel }, { "initrd", &l->initrd },   { "cmdline", &l->cmdline },
        { "user_data", &l->user_data },
    };
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        *texts[i].to = g_strdup(web_text(r, texts[i].name));
    l->cpus = (unsigned)web_int(r, "cpus", 0);
    l->memory = (uint64_t)web_int(r, "memory", 0);
    l->disk = (uint64_t)web_int(r, "disk", 0);
    l->ssh_keys = strings(r, "ssh_keys");
    l->autostart = web_bool(r, "autostart");
    l->no_start = web_bool(r, "no_start");
    struct job *j = launch(r->who, l, error);
    JsonNode *node = j ? web_job_node(j) : NULL;
    job_unref(j);
    return node;
}
WEB_OP(launch, .method = "POST", .path = "/launch", .summary = "Makes a machine of an image and starts it; answers the job",
       .fields = launch_fields, .status = 202, .call = do_launch);

static JsonNode *do_images(struct web_request *r, GError **error)
{
    g_auto(GStrv) names = launch_images();
    JsonArray *list = json_array_new();
    for (char **name = names; *name; name++)
        json_array_add_string_element(list, *name);
    JsonObject *o = json_object_new();
    json_object_set_array_member(o, "images", list);
    return web_node(o);
}
WEB_OP(image_list, .method = "GET", .path = "/images", .summary = "Names that 'launch' takes", .quick = true, .call = do_images);

static JsonNode *do_ssh(struct web_request *r, GError **error)
{
    g_autofree char *host = NULL, *user = NULL;
    unsigned port = 0;
    struct domain *d = domain_find_name(web_text(r, "name"), error);
    bool good = d && launch_ssh(r->who, d, &host, &port, &user, error);
    char uuid[UUID_TEXT_BYTES];
    if (good)
        uuid_format(domain_summary(d)->uuid, uuid);
    domain_unref(d);
    if (!good)
        return NULL;
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "uuid", uuid);
    json_object_set_string_member(o, "host", host);
    json_object_set_int_member(o, "port", port);
    json_object_set_string_member(o, "user", user);
    return web_node(o);
}
WEB_OP(domain_ssh, .method = "GET", .path = "/domains/{name}/ssh", .summary = "Where a launched machine listens for SSH", .quick = true,
       .call = do_ssh);

static JsonNode *do_remove_files(struct web_request *r, GError **error)
{
    struct domain *d = domain_find_name(web_text(r, "name"), NULL);
    bool there = d != NULL;
    domain_unref(d);
    if (there)
        ruche_error(error, RUCHE_ERR_STATE, "machine '%s' is still there: take it away first", web_text(r, "name"));
    else
        launch_remove_files(r->who, web_text(r, "name"), error);
    return NULL;
}
WEB_OP(launch_files_remove, .method = "DELETE", .path = "/launched/{name}",
       .summary = "Takes away the files of a launched machine that is undefined", .call = do_remove_files);

static struct job *find_job(const struct web_request *r, GError **error)
{
    uint64_t id;
    const char *text = web_text(r, "id");
    if (!units_parse_u64(text, &id) || id > UINT32_MAX) {
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no job '%s'", text);
        return NULL;
    }
    return job_find((unsigned)id, error);
}

static const struct web_field wait_fields[] = {
    { "wait", WEB_INT, false, 0, 60000, "milliseconds to wait for its end" },
    { 0 },
};

static JsonNode *do_job(struct web_request *r, GError **error)
{
    struct job *j = find_job(r, error);
    if (j)
        job_wait(j, (int)web_int(r, "wait", 0));
    JsonNode *node = j ? web_job_node(j) : NULL;
    job_unref(j);
    return node;
}
WEB_OP(job_get, .method = "GET", .path = "/jobs/{id}", .summary = "A job: how far it is, how it ended", .fields = wait_fields,
       .call = do_job);

static JsonNode *do_job_cancel(struct web_request *r, GError **error)
{
    struct job *j = find_job(r, error);
    if (j)
        job_cancel(r->who, j, error);
    job_unref(j);
    return NULL;
}
WEB_OP(job_cancel, .method = "DELETE", .path = "/jobs/{id}", .summary = "Asks a job to end", .call = do_job_cancel);

static JsonNode *do_jobs(struct web_request *r, GError **error)
{
    g_autoptr(GPtrArray) jobs = job_list(r->who);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < jobs->len; i++)
        json_array_add_element(list, web_job_node(jobs->pdata[i]));
    JsonObject *o = json_object_new();
    json_object_set_array_member(o, "jobs", list);
    return web_node(o);
}
WEB_OP(job_list, .method = "GET", .path = "/jobs", .summary = "Jobs that run, or ended in the last minutes", .quick = true,
       .call = do_jobs);
