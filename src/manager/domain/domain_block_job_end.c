/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What jobs on disks make of a machine's descriptions: <mirror> while they run, the chain at their end.
 *
 * Thread    The loop thread; all here waits.
 * Killed    The machine has the jobs, and keeps them until they are dismissed; <mirror> in the live
 *           description has the rest. domain_block_jobs_settle() looks at both after the daemon's
 *           start, as it does when one is told to be over.
 */
#include "manager/domain/domain_block_job.h"

#include "base/log.h"
#include "manager/domain/def_chain.h"

#include <string.h>

enum {
    JOB_COMPLETED,
    JOB_FAILED,
    JOB_CANCELED,
    JOB_READY
}; /* virConnectDomainEventBlockJobStatus */

/* ---- changes of descriptions ---- */

struct change {
    const struct vm_block_job *job;
    const struct domain_block_copy *copy; /* <mirror> is set */
    const char *ready;                    /* its state is */
    const char *was; /* the disk's file before; a stored description that has it changes, too */
    bool pivot, live;
};

static void set_mirror(struct xml_node *disk, const struct change *c)
{
    bool active = c->job->kind == BLOCK_JOB_ACTIVE;
    const char *path = c->copy->path, *type = c->copy->device ? "block" : "file";
    /* In its place among the disk's elements when the description is put in order. */
    struct xml_node *m = xml_add(disk, "mirror");
    xml_set(m, "@type", type);
    if (!c->copy->device)
        xml_set(m, "@file", path);
    if (!c->copy->device)
        xml_set(m, "@format", c->copy->format);
    xml_set(m, "@job", active ? "active-commit" : "copy");
    xml_set(m, "format@type", c->copy->format);
    xml_set(m, c->copy->device ? "source@dev" : "source@file", path);
    xml_set_f(m, "source@index", "%u", c->job->b);
}

static bool edit_mirror(struct xml_node *domain, void *opaque, GError **error)
{
    const struct change *c = opaque;
    struct xml_node *disk = def_chain_disk(domain, c->job->target),
                    *mirror = disk ? xml_find(disk, "mirror") : NULL;
    if (c->copy && disk)
        set_mirror(disk, c);
    else if (c->ready && mirror)
        xml_set(mirror, "@ready", c->ready);
    else if (mirror)
        xml_remove(disk, "mirror");
    return true;
}

bool domain_block_mirror(struct domain *d, const struct vm_block_job *j,
                         const struct domain_block_copy *copy, const char *ready, GError **error)
{
    struct change c = {.job = j, .copy = copy, .ready = ready, .live = true};
    return domain_edit(d, true, edit_mirror, &c, error);
}

/* What a job that is done has made of the chain. */
static bool edit_done(struct xml_node *domain, void *opaque, GError **error)
{
    const struct change *c = opaque;
    struct xml_node *disk = def_chain_disk(domain, c->job->target),
                    *m = disk ? xml_find(disk, "mirror") : NULL;
    if (!disk)
        return true;
    struct xml_node *base = c->job->b ? def_chain_at(disk, c->job->b) : NULL,
                    *top = def_chain_at(disk, c->job->a);
    struct xml_node *above = top ? def_chain_above(disk, top) : NULL;
    if (c->job->kind == BLOCK_JOB_PULL)
        def_chain_cut(disk, base);
    else if (c->job->kind == BLOCK_JOB_COMMIT && above && base)
        def_chain_cut(above, base);
    else if (c->job->kind == BLOCK_JOB_ACTIVE && c->pivot && base)
        def_chain_become(disk, base, false);
    else if (c->job->kind == BLOCK_JOB_COPY && c->pivot && m)
        def_chain_become(disk, m, c->job->a != 0);
    xml_remove(disk, "mirror");
    return true;
}

/* The stored one has the new file where it had the old. */
static bool edit_config(struct xml_node *domain, void *opaque, GError **error)
{
    const struct change *c = opaque;
    struct xml_node *disk = def_chain_disk(domain, c->job->target);
    if (!disk || g_strcmp0(def_chain_path(disk), c->was))
        return true;
    xml_remove(disk, "source");
    xml_set(disk, "@type", c->copy->device ? "block" : "file");
    xml_set(disk, c->copy->device ? "source@dev" : "source@file", c->copy->path);
    xml_set(disk, "driver@type", c->copy->format);
    while (xml_find(disk, "backingStore"))
        xml_remove(disk, "backingStore");
    return true;
}

/* ---- the end of a job ---- */

static void tell(struct domain *d, const struct vm_block_job *j, const char *source, int status)
{
    const char *const old_way[4] = {source ? source : ""}, *const by_target[4] = {j->target};
    domain_emit_id(d, DOMAIN_EVENT_BLOCK_JOB, (int)j->kind, status, old_way, 0);
    domain_emit_id(d, DOMAIN_EVENT_BLOCK_JOB_2, (int)j->kind, status, by_target, 0);
}

/* The numbers of the disk's images. */
static GArray *numbers(struct domain *d, const char *target)
{
    GArray *list = g_array_new(FALSE, FALSE, sizeof(unsigned));
    struct xml_node *n = d->live ? def_chain_disk(domain_def_tree(d->live), target) : NULL;
    for (; n && list->len < DEF_CHAIN_MAX; n = def_chain_next(n)) {
        unsigned number = def_chain_number(n);
        g_array_append_val(list, number);
    }
    return list;
}

static bool has(const GArray *list, unsigned number)
{
    for (guint i = 0; i < list->len; i++)
        if (g_array_index(list, unsigned, i) == number)
            return true;
    return false;
}

/* Images that the disk stood on, and does not any more. */
static void forget_images(struct domain *d, const struct vm_block_job *j, const GArray *before)
{
    g_autoptr(GArray) after = numbers(d, j->target);
    for (guint i = 0; i < before->len && d->vm; i++)
        if (!has(after, g_array_index(before, unsigned, i)))
            vm_block_forget(d->vm, j->target, g_array_index(before, unsigned, i));
    if (j->kind == BLOCK_JOB_COPY && d->vm && !has(after, j->b))
        vm_block_forget(d->vm, j->target, j->b);
}

static void store_pivot(struct domain *d, const struct vm_block_job *j, const char *was,
                        GError **error)
{
    struct xml_node *disk = def_chain_disk(domain_def_tree(d->live), j->target);
    if (!disk || !d->persistent || !d->def)
        return;
    g_autofree char *path = g_strdup(def_chain_path(disk)),
                    *format = g_strdup(def_chain_format(disk));
    const struct domain_block_copy now = {
        .path = path, .format = format, .device = xml_is(disk, "@type", "block")};
    struct change c = {.job = j, .copy = &now, .was = was};
    if (path)
        domain_edit(d, false, edit_config, &c, error);
}

static void over(struct domain *d, const struct vm_block_job *j)
{
    g_autoptr(GError) error = NULL;
    struct xml_node *disk = def_chain_disk(domain_def_tree(d->live), j->target),
                    *m = disk ? xml_find(disk, "mirror") : NULL;
    bool two_steps = j->kind == BLOCK_JOB_COPY || j->kind == BLOCK_JOB_ACTIVE;
    bool pivot = m && xml_is(m, "@ready", "pivot") && !*j->why;
    g_autofree char *was = disk ? g_strdup(def_chain_path(disk)) : NULL;
    g_autoptr(GArray) before = numbers(d, j->target);
    struct change c = {.job = j, .pivot = pivot, .live = true};
    bool ok = two_steps ? pivot : !*j->why;
    unsigned own = disk ? def_chain_number(disk) : 0;
    if (ok)
        vm_block_flush(d->vm, j->target, j->kind == BLOCK_JOB_PULL ? own : j->b);
    if (!d->vm || !d->live)
        return;
    if (!domain_edit(d, true, ok ? edit_done : edit_mirror, &c, &error))
        log_warn("domain '%s': %s", d->name, error->message);
    g_clear_error(&error);
    if (pivot && d->live)
        store_pivot(d, j, was, &error);
    if (error)
        log_warn("domain '%s': %s", d->name, error->message);
    if (d->vm)
        vm_block_job_do(d->vm, j, BLOCK_JOB_DISMISS, 0, NULL);
    forget_images(d, j, before);
    bool cancelled = (two_steps && !pivot && !*j->why) || strstr(j->why, "cancelled") ||
                     strstr(j->why, "Operation canceled");
    if (!ok && !cancelled)
        log_warn("domain '%s': the job on disk '%s' failed: %s", d->name, j->target, j->why);
    tell(d, j, was, ok ? JOB_COMPLETED : cancelled ? JOB_CANCELED : JOB_FAILED);
}

static void became_ready(struct domain *d, const struct vm_block_job *j)
{
    struct xml_node *disk = def_chain_disk(domain_def_tree(d->live), j->target),
                    *m = disk ? xml_find(disk, "mirror") : NULL;
    if (!m || xml_get(m, "@ready"))
        return;
    g_autofree char *source = g_strdup(def_chain_path(disk));
    if (domain_block_mirror(d, j, NULL, "yes", NULL))
        tell(d, j, source, JOB_READY);
}

/* A <mirror> whose job was never begun: it was written first. */
static void drop_lonely(struct domain *d, const GArray *jobs)
{
    for (unsigned i = 0; d->live && i < d->live->s.disk_count; i++) {
        struct vm_block_job j = {.kind = BLOCK_JOB_NONE};
        g_strlcpy(j.target, d->live->s.disks[i].target, sizeof(j.target));
        struct xml_node *disk = def_chain_disk(domain_def_tree(d->live), j.target);
        struct xml_node *m = disk ? xml_find(disk, "mirror") : NULL;
        bool known = !m;
        for (guint k = 0; k < jobs->len; k++)
            known |= !strcmp(g_array_index(jobs, struct vm_block_job, k).target, j.target);
        if (known)
            continue;
        unsigned number = def_chain_number(m);
        bool copy = xml_is(m, "@job", "copy");
        if (domain_block_mirror(d, &j, NULL, NULL, NULL) && copy)
            vm_block_forget(d->vm, j.target, number);
    }
}

void domain_block_jobs_settle(struct domain *d)
{
    g_autoptr(GArray) jobs = d->vm && d->live ? vm_block_jobs(d->vm, NULL) : NULL;
    for (guint i = 0; jobs && i < jobs->len; i++) {
        const struct vm_block_job *j = &g_array_index(jobs, struct vm_block_job, i);
        if (!d->vm || !d->live)
            return;
        if (j->over)
            over(d, j);
        else if (j->ready)
            became_ready(d, j);
    }
    if (jobs && d->vm)
        drop_lonely(d, jobs);
    if (d->live)
        domain_def_shrink(d->live);
}
