/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What takes long on a machine and can be watched and ended: a save, a restore, a core dump. One at
 * a time: it is the holder of the job lock; who asks for figures or cancels needs no lock.
 *
 * Thread    The loop thread.
 * Killed    The status file says what was under way. domain_job_recover() undoes it, or, when the
 * file that was made is in its place already, says that it was done.
 */
#include "manager/domain/domain_priv.h"

#include "base/log.h"
#include "manager/domain/save_file.h"
#include "manager/job.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define POLL_FIRST_MS 5
#define POLL_MOST_MS  100
#define SPEED_UNIT    (UINT64_C(1) << 20)

static const char *const operation_words[] = {
    [DOMAIN_JOB_SAVE] = "save", [DOMAIN_JOB_RESTORE] = "restore", [DOMAIN_JOB_DUMP] = "dump",
    [DOMAIN_JOB_MIGRATION_IN] = "migration", [DOMAIN_JOB_MIGRATION_OUT] = "migration"};

struct domain_job *domain_job_begin(struct domain *d, enum domain_job_operation operation,
                                    struct job *shown)
{
    struct domain_job *j = g_new0(struct domain_job, 1);
    j->operation = operation;
    j->type = DOMAIN_JOB_UNBOUNDED;
    j->begin_us = g_get_monotonic_time();
    j->shown = shown ? job_ref(shown) : NULL;
    return d->job = j;
}

void domain_job_free(struct domain_job *j)
{
    if (!j)
        return;
    job_unref(j->shown);
    g_free(j->path);
    g_free(j->temporary);
    g_free(j->used);
    g_free(j->why);
    g_free(j);
}

/* ---- figures ---- */

static void fill(const struct domain_job *j, struct domain_job_info *ret)
{
    const struct vm_progress *p = &j->progress;
    int64_t end = j->end_us ? j->end_us : g_get_monotonic_time();
    *ret = (struct domain_job_info){.type = j->type,
                                    .operation = j->operation,
                                    .elapsed_ms = (uint64_t)(end - j->begin_us) / 1000,
                                    .total = p->total,
                                    .done = p->done,
                                    .remaining = p->remaining,
                                    .constant = p->constant,
                                    .normal = p->normal,
                                    .page_bytes = p->page_bytes,
                                    .bytes_s = p->bytes_s,
                                    .setup_ms = p->setup_ms};
    g_strlcpy(ret->why, j->why ? j->why : "", sizeof(ret->why));
}

bool domain_job_info(const struct caller *who, struct domain *d, bool ended, bool keep,
                     struct domain_job_info *ret, GError **error)
{
    *ret = (struct domain_job_info){0};
    if (!domain_allowed(who, d, RIGHT_READ, "read", error))
        return false;
    struct domain_job *j = ended ? d->ended_job : d->job;
    if (!ended && !j && !domain_may(d, OP_LIVE, error))
        return false;
    if (j)
        fill(j, ret);
    if (j && ended && !keep) {
        d->ended_job = NULL;
        domain_job_free(j);
    }
    return true;
}

void domain_job_params(const struct domain_job_info *i, struct param_list *ret)
{
    if (i->type == DOMAIN_JOB_NONE)
        return;
    param_int(ret, "operation", i->operation);
    param_ullong(ret, "time_elapsed", i->elapsed_ms);
    if (i->setup_ms)
        param_ullong(ret, "setup_time", i->setup_ms);
    param_ullong(ret, "data_total", i->total);
    param_ullong(ret, "data_processed", i->done);
    param_ullong(ret, "data_remaining", i->remaining);
    param_ullong(ret, "memory_total", i->total);
    param_ullong(ret, "memory_processed", i->done);
    param_ullong(ret, "memory_remaining", i->remaining);
    param_ullong(ret, "memory_bps", i->elapsed_ms ? i->done * 1000 / i->elapsed_ms : 0);
    if (i->operation != DOMAIN_JOB_DUMP) {
        param_ullong(ret, "memory_constant", i->constant);
        param_ullong(ret, "memory_normal", i->normal);
        param_ullong(ret, "memory_normal_bytes", i->normal * i->page_bytes);
        param_ullong(ret, "memory_page_size", i->page_bytes);
    }
    if (i->type >= DOMAIN_JOB_COMPLETED)
        param_bool(ret, "success", i->type == DOMAIN_JOB_COMPLETED);
    if (*i->why)
        param_string(ret, "errmsg", i->why);
}

bool domain_abort_job(const struct caller *who, struct domain *d, GError **error)
{
    if (!domain_allowed(who, d, RIGHT_CONTROL, "abort the job of", error))
        return false;
    if (!d->job)
        return ruche_error(error, RUCHE_ERR_STATE, "no job is active on domain '%s'", d->name);
    if (d->job->finishing)
        return ruche_error(error, RUCHE_ERR_STATE, "the job of domain '%s' is as good as done",
                           d->name);
    d->job->cancel = true;
    domain_audit(who, "abort job", d->name, true, error);
    return true;
}

/* ---- speed ---- */

uint64_t domain_job_speed(const struct domain *d)
{
    return d->max_speed_mib && d->max_speed_mib <= INT64_MAX / SPEED_UNIT
               ? d->max_speed_mib * SPEED_UNIT
               : INT64_MAX;
}

bool domain_set_max_speed(const struct caller *who, struct domain *d, uint64_t mib_s,
                          GError **error)
{
    bool ok = true;
    if (!domain_allowed(who, d, RIGHT_CONTROL, "set the speed of", error))
        return false;
    if (mib_s > INT64_MAX / SPEED_UNIT)
        return ruche_error(error, MANAGER_ERR_OVERFLOW,
                           "domain '%s': a speed of %" G_GUINT64_FORMAT
                           " MiB/s is too much; %" G_GUINT64_FORMAT " are possible",
                           d->name, mib_s, (uint64_t)(INT64_MAX / SPEED_UNIT));
    d->max_speed_mib = mib_s;
    if (d->job && d->vm && (d->job->operation == DOMAIN_JOB_SAVE || d->job->operation == DOMAIN_JOB_MIGRATION_OUT)) {
        struct vm_use *u = domain_use(d, error);
        ok = u && vm_state_speed(u->vm, domain_job_speed(d), error);
        if (u)
            domain_use_end(u);
    }
    domain_audit(who, "set the speed of", d->name, ok, error);
    return ok;
}

/* ---- until it is over ---- */

struct trim {
    const struct save_file *file;
};

static void trim_work(void *opaque)
{
    save_file_trim(((const struct trim *)opaque)->file);
}

static void show(struct domain_job *j)
{
    if (!j->shown)
        return;
    atomic_store(&j->shown->total, j->progress.total);
    atomic_store(&j->shown->done,
                 j->progress.total - MIN(j->progress.remaining, j->progress.total));
    j->cancel |= atomic_load(&j->shown->cancelled);
}

/* A failure that was asked for. */
static bool broke_off(struct domain *d, GError **error)
{
    if (d->job->cancel) {
        g_clear_error(error);
        ruche_error(error, MANAGER_ERR_ABORTED, "%s of domain '%s' was cancelled",
                    operation_words[d->job->operation], d->name);
    }
    return false;
}

bool domain_job_stream(struct domain *d, const struct save_file *file, GError **error)
{
    struct domain_job *j = d->job;
    g_autoptr(GError) why = NULL, broken = NULL;
    bool asked = false;
    for (unsigned ms = POLL_FIRST_MS;; ms = MIN(ms * 2, POLL_MOST_MS)) {
        struct vm_progress p;
        if (!d->vm || !vm_state_poll(d->vm, &p, &why))
            break;
        j->progress = p;
        show(j);
        bool off = broken || j->cancel || (j->watch && !j->watch(d, &broken));
        if (off && !asked)
            asked = vm_state_cancel(d->vm, NULL);
        if (p.state == VM_STREAM_DONE && !off)
            return true;
        if (p.state == VM_STREAM_DONE)
            break;
        if (file && file->drop_cache) {
            struct trim t = {file};
            task_work_long(trim_work, &t);
        }
        task_sleep_ms(ms);
    }
    if (broken || why)
        g_propagate_error(error, broken ? g_steal_pointer(&broken) : g_steal_pointer(&why));
    return broke_off(d, error);
}

/* ---- its end ---- */

bool domain_job_end(struct domain *d, bool ok, GError *const *error)
{
    struct domain_job *j = d->job;
    struct domain_job_info info;
    struct param_list params = {0};
    j->end_us = g_get_monotonic_time();
    j->type = ok ? DOMAIN_JOB_COMPLETED : j->cancel ? DOMAIN_JOB_CANCELLED : DOMAIN_JOB_FAILED;
    if (!ok)
        j->why = g_strdup(error && *error ? (*error)->message : "not said");
    g_clear_pointer(&j->shown, job_unref);
    domain_job_free(d->ended_job);
    d->ended_job = j;
    d->job = NULL;
    if (!ok || j->operation == DOMAIN_JOB_RESTORE || j->operation == DOMAIN_JOB_MIGRATION_IN)
        return ok; /* as libvirt: of these, only the domain's life tells */
    fill(j, &info);
    domain_job_params(&info, &params);
    event_emit(&(struct event){.class = EVENT_DOMAIN,
                               .id = DOMAIN_EVENT_JOB_COMPLETED,
                               .name = d->name,
                               .uuid = d->uuid,
                               .object_id = d->id,
                               .params = &params});
    param_list_done(&params);
    return ok;
}

/* ---- the status file ---- */

void domain_job_status(const struct domain *d, struct xml_node *status)
{
    const struct domain_job *j = d->job;
    if (!j)
        return;
    xml_set_f(status, "job@operation", "%d", j->operation);
    xml_set(status, "job@resume", j->resume ? "yes" : "no");
    if (j->finishing)
        xml_set(status, "job@finishing", "yes");
    if (j->path)
        xml_set(status, "job@path", j->path);
    if (j->temporary)
        xml_set(status, "job@temporary", j->temporary);
    if (j->used)
        xml_set(status, "job@used", j->used);
    xml_set_f(status, "job@inode", "%" G_GUINT64_FORMAT, j->inode);
}

static bool is_in_place(const struct xml_node *status)
{
    struct stat st;
    const char *path = xml_get(status, "job@path");
    return xml_is(status, "job@finishing", "yes") && path && stat(path, &st) == 0 &&
           st.st_ino == xml_get_u64(status, "job@inode", 0);
}

/* The machine stands, or writes to a file that will never have a name. */
static void undo(struct domain *d, const struct xml_node *status)
{
    g_autoptr(GError) error = NULL;
    bool restored = xml_get_u64(status, "job@operation", 0) == DOMAIN_JOB_RESTORE;
    const char *used = xml_get(status, "job@used");
    if (!restored && !vm_state_settle(d->vm, &error))
        log_warn("%s", error->message);
    g_clear_error(&error);
    if (restored && used && !store_remove(used, &error))
        log_warn("%s", error->message);
    else if (xml_is(status, "job@resume", "yes") &&
             !domain_go_on(d, restored ? RUNNING_RESTORED : RUNNING_SAVE_CANCELED, &error))
        log_warn("domain '%s' stands, and should run: %s", d->name, error->message);
    if (restored && used && access(used, F_OK) < 0)
        d->managed_save = false;
}

bool domain_job_recover(struct domain *d, const struct xml_node *status)
{
    const char *temporary = xml_get(status, "job@temporary"),
               *operation = xml_get(status, "job@operation");
    if (!operation)
        return false;
    bool save = xml_get_u64(status, "job@operation", 0) == DOMAIN_JOB_SAVE;
    bool done = is_in_place(status);
    if (temporary && unlink(temporary) < 0 && errno != ENOENT)
        log_warn("%s: left over, and cannot be removed: %s", temporary, g_strerror(errno));
    if (d->vm && !(save && done))
        undo(d, status);
    return save && done;
}
