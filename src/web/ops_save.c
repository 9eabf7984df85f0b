/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on saved machines: jobs, as they write and read all of a machine's memory. */
#include "web/op.h"

#include "manager/domain/domain.h"
#include "manager/job.h"

#include <string.h>

enum what { DO_SAVE, DO_RESTORE, DO_DUMP };

/* What a job needs; it takes it over. */
struct work {
    enum what what;
    struct domain *domain; /* NULL: of a restore */
    char *file;            /* NULL: the manager's own place */
    unsigned flags;
    struct caller who;
};

static bool save(struct work *w, struct job *j, GError **error)
{
    return w->file ? domain_save(&w->who, w->domain, w->file, NULL, w->flags, j, error)
                   : domain_managed_save(&w->who, w->domain, w->flags, j, error);
}

static bool restore(struct work *w, struct job *j, char **ret_result, GError **error)
{
    struct domain *d = domain_restore(&w->who, w->file, NULL, w->flags, j, error);
    if (d)
        *ret_result = g_strdup(d->name);
    domain_unref(d);
    return d != NULL;
}

static bool work(struct job *j, void *opaque, char **ret_result, GError **error)
{
    struct work *w = opaque;
    bool ok = w->what == DO_SAVE ? save(w, j, error)
              : w->what == DO_RESTORE
                  ? restore(w, j, ret_result, error)
                  : domain_dump(&w->who, w->domain, w->file, 0, w->flags, j, error);
    if (ok && w->domain)
        *ret_result = g_strdup(w->domain->name);
    domain_unref(w->domain);
    g_free(w->file);
    g_free(w->who.name);
    g_free(w);
    return ok;
}

static JsonNode *begin(struct web_request *r, enum what what, struct domain *d, unsigned flags)
{
    static const char *const words[] = {"save", "restore", "dump"};
    struct work *w = g_new0(struct work, 1);
    const char *file = web_text(r, "file");
    *w = (struct work){
        .what = what, .domain = d, .file = g_strdup(file), .flags = flags, .who = *r->who};
    w->who.name = g_strdup(r->who->name);
    g_autofree char *object =
        d ? g_strdup_printf("domain '%s'", d->name) : g_strdup_printf("file '%s'", file);
    struct job *j = job_start(r->who, words[what], object, work, w);
    JsonNode *node = web_job_node(j);
    job_unref(j);
    return node;
}

static unsigned state_flags(const struct web_request *r)
{
    return (web_bool(r, "paused") ? SAVE_AS_PAUSED : 0) |
           (web_bool(r, "bypass_cache") ? SAVE_BYPASS_CACHE : 0);
}

static const struct web_field save_fields[] = {
    {"file", WEB_STRING, false, 0, 0, "full path; without one the next start goes on from it"},
    {"paused", WEB_BOOL, false, 0, 0, "stand when it is restored"},
    {"bypass_cache", WEB_BOOL, false, 0, 0, "leave the page cache alone"},
    {0},
};

static JsonNode *do_save(struct web_request *r, GError **error)
{
    struct domain *d = domain_find_name(web_text(r, "name"), error);
    return d ? begin(r, DO_SAVE, d, state_flags(r)) : NULL;
}
WEB_OP(domain_save, .method = "POST", .path = "/domains/{name}/save",
       .summary = "Saves its state and switches it off; answers the job", .fields = save_fields,
       .status = 202, .call = do_save);

static JsonNode *do_save_remove(struct web_request *r, GError **error)
{
    struct domain *d = domain_find_name(web_text(r, "name"), error);
    if (d)
        domain_managed_save_remove(r->who, d, error);
    domain_unref(d);
    return NULL;
}
WEB_OP(domain_save_remove, .method = "DELETE", .path = "/domains/{name}/save",
       .summary = "Forgets the saved state: the next start boots", .call = do_save_remove);

static const struct web_field restore_fields[] = {
    {"file", WEB_STRING, true, 0, 0, "full path of a saved machine"},
    {"paused", WEB_BOOL, false, 0, 0, "leave it standing"},
    {0},
};

static JsonNode *do_restore(struct web_request *r, GError **error)
{
    return begin(r, DO_RESTORE, NULL, state_flags(r));
}
WEB_OP(domain_restore, .method = "POST", .path = "/restore",
       .summary = "Goes on with a machine from its file; answers the job", .fields = restore_fields,
       .status = 202, .call = do_restore);

static const struct web_field dump_fields[] = {
    {"file", WEB_STRING, true, 0, 0, "full path of the core file"},
    {"live", WEB_BOOL, false, 0, 0, "let the guest run meanwhile"},
    {"crash", WEB_BOOL, false, 0, 0, "switch it off then"},
    {"reset", WEB_BOOL, false, 0, 0, "reset it then"},
    {0},
};

static JsonNode *do_dump(struct web_request *r, GError **error)
{
    struct domain *d = domain_find_name(web_text(r, "name"), error);
    unsigned flags = DUMP_MEMORY_ONLY | (web_bool(r, "live") ? DUMP_LIVE : 0) |
                     (web_bool(r, "crash") ? DUMP_CRASH : 0) |
                     (web_bool(r, "reset") ? DUMP_RESET : 0);
    return d ? begin(r, DO_DUMP, d, flags) : NULL;
}
WEB_OP(domain_dump, .method = "POST", .path = "/domains/{name}/dump",
       .summary = "Writes its memory to a core file; answers the job", .fields = dump_fields,
       .status = 202, .call = do_dump);
