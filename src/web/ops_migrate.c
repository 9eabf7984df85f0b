/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations that move machines to other managers: jobs, as they send all of a machine's memory. */
#include "web/op.h"

#include "manager/domain/domain_migrate.h"
#include "manager/job.h"

#include <string.h>

/* What a job needs; it takes it over. */
struct work {
    struct domain *domain;
    char *to;
    struct param_list params;
    unsigned flags;
    struct caller who;
};

static bool work(struct job *j, void *opaque, char **ret_result, GError **error)
{
    struct work *w = opaque;
    const struct migrate_call call = {.who = &w->who, .params = &w->params, .flags = w->flags};
    char *cookie = NULL;
    job_step(j, "moving '%s' to '%s'", w->domain->name, w->to);
    bool ok = domain_migrate_perform(&call, w->domain, w->to, j, &cookie, error);
    if (ok)
        *ret_result = g_steal_pointer(&w->to);
    domain_unref(w->domain);
    param_list_done(&w->params);
    g_free(cookie);
    g_free(w->to);
    g_free(w->who.name);
    g_free(w);
    return ok;
}

static const struct web_field fields[] = {
    {"to", WEB_STRING, true, 0, 0, "a host, reached by ssh, or a manager's URI"},
    {"live", WEB_BOOL, false, 0, 0, "the guest runs while its memory is sent"},
    {"persistent", WEB_BOOL, false, 0, 0, "it stays defined there"},
    {"undefine", WEB_BOOL, false, 0, 0, "it is no longer defined here"},
    {"offline", WEB_BOOL, false, 0, 0, "only its description"},
    {"paused", WEB_BOOL, false, 0, 0, "leave it standing there"},
    {"unsafe", WEB_BOOL, false, 0, 0, "although its disks may be written by both"},
    {"abort_on_error", WEB_BOOL, false, 0, 0, "give up when a disk has an error"},
    {"dest_name", WEB_STRING, false, 0, 0, "what it is called there"},
    {"migrate_uri", WEB_STRING, false, 0, 0, "where its state goes: tcp:HOST:PORT"},
    {"bandwidth", WEB_INT, false, 0, INT64_MAX >> 20, "MiB a second at most"},
    {0},
};
static const struct {
    const char *field;
    unsigned flag;
} flag_rows[] = {
    {"live", MIGRATE_LIVE},
    {"persistent", MIGRATE_PERSIST_DEST},
    {"undefine", MIGRATE_UNDEFINE_SOURCE},
    {"offline", MIGRATE_OFFLINE | MIGRATE_PERSIST_DEST},
    {"paused", MIGRATE_PAUSED},
    {"unsafe", MIGRATE_UNSAFE},
    {"abort_on_error", MIGRATE_ABORT_ON_ERROR},
};

static void read_params(const struct web_request *r, struct param_list *ret)
{
    static const struct {
        const char *field, *name;
    } texts[] = {{"dest_name", "destination_name"}, {"migrate_uri", "migrate_uri"}};
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++)
        if (web_text(r, texts[i].field))
            param_string(ret, texts[i].name, web_text(r, texts[i].field));
    if (web_int(r, "bandwidth", 0))
        param_ullong(ret, "bandwidth", (uint64_t)web_int(r, "bandwidth", 0));
}

/* A host's name stands for its manager of our kind, by ssh. */
static char *destination(const char *to)
{
    return strstr(to, "://") ? g_strdup(to)
                             : g_strdup_printf("qemu+ssh://%s/%s", to,
                                               manager.session ? "session" : "system");
}

static JsonNode *do_migrate(struct web_request *r, GError **error)
{
    struct domain *d = domain_find_name(web_text(r, "name"), error);
    if (!d)
        return NULL;
    struct work *w = g_new0(struct work, 1);
    *w = (struct work){.domain = d, .to = destination(web_text(r, "to")), .who = *r->who};
    w->who.name = g_strdup(r->who->name);
    w->flags = MIGRATE_PEER2PEER;
    for (unsigned i = 0; i < G_N_ELEMENTS(flag_rows); i++)
        w->flags |= web_bool(r, flag_rows[i].field) ? flag_rows[i].flag : 0;
    read_params(r, &w->params);
    g_autofree char *object = g_strdup_printf("domain '%s'", d->name);
    struct job *j = job_start(r->who, "migrate", object, work, w);
    JsonNode *node = web_job_node(j);
    job_unref(j);
    return node;
}
WEB_OP(domain_migrate, .method = "POST", .path = "/domains/{name}/migrate",
       .summary = "Moves it to another manager; answers the job", .fields = fields, .status = 202,
       .call = do_migrate);
