/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Machines to files and back.
 *
 * Order     The guest stands; its state goes to a file that has no name; the file is synced; the
 * status file says "finishing"; the file gets its name; the machine ends. Whatever fails before the
 * name is undone and the guest goes on; whatever comes after is the end of a machine that is saved.
 * Thread    The loop thread; all here waits. Files are written and synced on workers.
 */
#include "manager/domain/domain_priv.h"

#include "base/fd.h"
#include "base/log.h"
#include "manager/domain/save_file.h"

#include <string.h>
#include <unistd.h>

/* ---- files, on a worker ---- */

struct file_work {
    const char *path, *xml;
    struct save_file *file;
    struct save_head head;
    enum save_state state;
    char *text;
    int fd;
    bool ok;
    GError *error;
};

static bool on_worker(void (*fn)(void *opaque), struct file_work *w, GError **error)
{
    task_work_long(fn, w);
    if (w->error)
        g_propagate_error(error, w->error);
    return w->ok;
}

static void create_work(void *opaque)
{
    struct file_work *w = opaque;
    bool drop = w->file->drop_cache;
    w->ok = save_file_new(w->path, w->file, &w->error);
    w->file->drop_cache = drop;
    if (w->ok && w->xml)
        w->ok = save_file_begin(w->file, w->xml, w->state, &w->error);
}

static void commit_work(void *opaque)
{
    struct file_work *w = opaque;
    w->ok = save_file_commit(w->file, &w->error);
}

static void open_work(void *opaque)
{
    struct file_work *w = opaque;
    w->fd = save_file_open(w->path, &w->head, &w->text, &w->error);
    w->ok = w->fd >= 0;
}

static void define_work(void *opaque)
{
    struct file_work *w = opaque;
    w->ok = save_file_set_xml(w->path, w->xml, w->state, &w->error);
}

/* ---- flags ---- */

static bool check_flags(unsigned flags, unsigned known, const char *operation, GError **error)
{
    if (!domain_flags(flags, known, operation, error))
        return false;
    return (flags & (SAVE_AS_RUNNING | SAVE_AS_PAUSED)) != (SAVE_AS_RUNNING | SAVE_AS_PAUSED) ||
           ruche_error(error, RUCHE_ERR_INVALID, "%s: 'running' and 'paused' exclude each other",
                       operation);
}

static bool runs_then(unsigned flags, bool otherwise)
{
    return flags & SAVE_AS_RUNNING ? true : flags & SAVE_AS_PAUSED ? false : otherwise;
}

/* ---- the guest stands, and goes on ---- */

bool domain_stand(struct domain *d, int pause_reason, GError **error)
{
    if (d->state != DOMAIN_RUNNING)
        return true;
    d->pause_reason = pause_reason;
    bool ok = vm_stop(d->vm, error);
    if (ok && d->state == DOMAIN_RUNNING)
        domain_vm_event(d, VM_EV_STOPPED, 0, NULL, 0);
    d->pause_reason = PAUSED_UNKNOWN;
    return ok;
}

bool domain_go_on(struct domain *d, int running_reason, GError **error)
{
    if (!domain_cont(d, error))
        return false;
    if (d->state == DOMAIN_RUNNING)
        domain_set_state(d, DOMAIN_RUNNING, running_reason);
    return true;
}

/* ---- save ---- */

char *domain_state_xml(struct domain *d, const char *xml, GError **error)
{
    char *own = domain_def_format(
        d->live, DEF_FORMAT_SECURE | DEF_FORMAT_INACTIVE | DEF_FORMAT_MIGRATABLE, -1);
    if (!xml)
        return own;
    auto_domain_def *old = domain_def_parse(own, strlen(own), DEF_STORED, error);
    g_free(own);
    auto_domain_def *new = old ? domain_def_parse(xml, strlen(xml), 0, error) : NULL;
    return new &&domain_def_same_guest(old, new, error) ? g_strdup(new->text) : NULL;
}

bool domain_file_make(struct domain *d, const char *path, const char *xml, enum save_state state,
                      struct save_file *file, GError **error)
{
    struct file_work w = {.path = path, .xml = xml, .state = state, .file = file};
    if (!on_worker(create_work, &w, error))
        return false;
    d->job->path = g_strdup(path);
    d->job->temporary = g_strdup(file->temporary);
    d->job->inode = file->inode;
    return domain_write_status(d, false, error);
}

bool domain_file_finish(struct domain *d, struct save_file *file, GError **error)
{
    struct file_work w = {.file = file};
    d->job->finishing = true;
    return domain_write_status(d, false, error) && on_worker(commit_work, &w, error);
}

static bool stream_to_file(struct domain *d, struct save_file *file, GError **error)
{
    return vm_state_send(d->vm, file->fd, domain_job_speed(d), error) &&
           domain_job_stream(d, file, error) && domain_file_finish(d, file, error);
}

/* What it was before is what it is after. */
static void undo_save(struct domain *d)
{
    g_autoptr(GError) error = NULL;
    d->job->finishing = false;
    if (!vm_state_settle(d->vm, &error) ||
        (d->job->resume && !domain_go_on(d, RUNNING_SAVE_CANCELED, &error)))
        log_warn("domain '%s' was not saved, and does not go on: %s", d->name, error->message);
}

bool domain_save_locked(struct domain *d, const char *path, const char *xml, unsigned flags,
                        struct job *shown, GError **error)
{
    struct save_file file = {.fd = -1, .drop_cache = flags & SAVE_BYPASS_CACHE};
    g_autofree char *text = domain_state_xml(d, xml, error);
    domain_def_shrink(d->live);
    if (!text)
        return false;
    struct domain_job *j = domain_job_begin(d, DOMAIN_JOB_SAVE, shown);
    j->resume = d->state == DOMAIN_RUNNING;
    enum save_state state = runs_then(flags, j->resume) ? SAVE_RUNNING : SAVE_PAUSED;
    bool ok = domain_file_make(d, path, text, state, &file, error) &&
              domain_stand(d, PAUSED_SAVE, error) && stream_to_file(d, &file, error);
    save_file_done(&file);
    if (!ok)
        undo_save(d);
    domain_job_end(d, ok, error);
    if (ok)
        domain_over(d, SHUTOFF_SAVED, STOPPED_SAVED);
    else if (d->vm)
        domain_set_state(d, d->state, d->reason); /* without the job */
    return ok;
}

bool domain_save(const struct caller *who, struct domain *d, const char *path, const char *xml,
                 unsigned save_flags, struct job *shown, GError **error)
{
    if (!check_flags(save_flags, SAVE_BYPASS_CACHE | SAVE_AS_RUNNING | SAVE_AS_PAUSED, "save",
                     error) ||
        !domain_allowed(who, d, RIGHT_WRITE, "save", error) || !domain_may(d, OP_SAVE, error) ||
        !domain_lock(d, "save", error))
        return false;
    bool ok = domain_may(d, OP_SAVE, error) && domain_machine(d, error) &&
              domain_save_locked(d, path, xml, save_flags, shown, error);
    domain_unlock(d);
    domain_audit(who, "save", d->name, ok, error);
    return ok;
}

/* ---- restore ---- */

int domain_save_open(const char *path, struct domain_def **ret_def, bool *ret_runs, GError **error)
{
    struct file_work w = {.path = path, .fd = -1};
    if (!on_worker(open_work, &w, error))
        return -1;
    autofd fd = w.fd;
    g_autofree char *text = w.text;
    *ret_runs = w.head.state == SAVE_RUNNING;
    *ret_def = domain_def_parse(text, strlen(text), DEF_STORED, error);
    return *ret_def ? fd_steal(&fd) : -1;
}

bool domain_restore_run(struct domain *d, struct domain_def *def, int fd, bool paused,
                        const char *used, struct job *shown, GError **error)
{
    struct domain_job *j = domain_job_begin(d, DOMAIN_JOB_RESTORE, shown);
    j->resume = !paused;
    j->used = g_strdup(used);
    bool ok = domain_run_saved(d, def, fd, error);
    /* From here on the guest's disks change: the state that it was in is used up before it goes on.
     */
    if (ok && used && !domain_managed_save_drop(d, error)) {
        vm_kill(d->vm, false, NULL);
        domain_over(d, SHUTOFF_FAILED, STOPPED_FAILED);
        ok = false;
    }
    if (!ok)
        return domain_job_end(d, false, error);
    domain_emit(d, LIFE_STARTED, STARTED_RESTORED);
    if (paused)
        domain_emit(d, LIFE_SUSPENDED, SUSPENDED_RESTORED);
    else
        ok = domain_go_on(d, RUNNING_RESTORED, error);
    domain_job_end(d, ok, error);
    domain_set_state(d, d->state, d->reason);
    return ok;
}

/* The description to restore with: the file's, or one of the same guest. */
static struct domain_def *restored_def(struct domain_def *saved, const char *xml, GError **error)
{
    if (!xml)
        return domain_def_ref(saved);
    auto_domain_def *new = domain_def_parse(xml, strlen(xml), 0, error);
    return new &&domain_def_same_guest(saved, new, error) ? g_steal_pointer(&new) : NULL;
}

static bool restore_claimed(struct domain *d, struct domain_def *def, int fd, bool paused,
                            struct job *shown, GError **error)
{
    if (domain_is_active(d))
        return ruche_error(error, RUCHE_ERR_STATE, "domain is already active as '%s'", d->name);
    d->unborn = false;
    bool ok = domain_restore_run(d, def, fd, paused, NULL, shown, error);
    if (!ok && !d->persistent && !domain_is_active(d))
        d->unborn = true; /* domain_release() takes it away */
    return ok;
}

struct domain *domain_restore(const struct caller *who, const char *path, const char *xml,
                              unsigned save_flags, struct job *shown, GError **error)
{
    auto_domain_def *saved = NULL;
    bool runs = false;
    if (!check_flags(save_flags,
                     SAVE_BYPASS_CACHE | SAVE_AS_RUNNING | SAVE_AS_PAUSED | SAVE_RESET_NVRAM,
                     "restore", error) ||
        !access_check(who, RIGHT_WRITE, "restore a domain", error))
        return NULL;
    g_autoptr(GError) why = NULL;
    autofd fd = domain_save_open(path, &saved, &runs, &why);
    auto_domain_def *def = fd >= 0 ? restored_def(saved, xml, &why) : NULL;
    if (def && !vm_check_def(def, &why))
        g_clear_pointer(&def, domain_def_unref);
    auto_domain *d = def ? domain_claim(def, "restore", &why) : NULL;
    bool ok = d && restore_claimed(d, def, fd, !runs_then(save_flags, runs), shown, &why);
    if (d)
        domain_release(d);
    domain_audit(who, "restore", saved ? saved->s.name : "?", ok, &why);
    if (!ok)
        g_propagate_error(error, g_steal_pointer(&why));
    return ok ? g_steal_pointer(&d) : NULL;
}

/* ---- what a file describes ---- */

char *domain_save_xml(const struct caller *who, const char *path, unsigned format_flags,
                      GError **error)
{
    auto_domain_def *def = NULL;
    bool runs;
    if (!domain_flags(format_flags, DEF_FORMAT_SECURE, "read a saved domain", error) ||
        !access_check(who, RIGHT_WRITE, "read a saved domain", error))
        return NULL;
    autofd fd = domain_save_open(path, &def, &runs, error);
    return fd >= 0 ? domain_def_format(def, format_flags | DEF_FORMAT_INACTIVE, -1) : NULL;
}

static bool define_file(const char *path, const char *xml, unsigned flags, GError **error)
{
    auto_domain_def *old = NULL;
    bool runs = false;
    int fd = domain_save_open(path, &old, &runs, error);
    if (fd < 0)
        return false;
    fd_close_keep_errno(fd); /* its lock is taken again */
    auto_domain_def *new = restored_def(old, xml, error);
    if (!new)
        return false;
    struct file_work w = {.path = path,
                          .xml = new->text,
                          .state = runs_then(flags, runs) ? SAVE_RUNNING : SAVE_PAUSED};
    return on_worker(define_work, &w, error);
}

bool domain_save_define(const struct caller *who, const char *path, const char *xml,
                        unsigned save_flags, GError **error)
{
    if (!check_flags(save_flags, SAVE_AS_RUNNING | SAVE_AS_PAUSED, "redefine a saved domain",
                     error) ||
        !access_check(who, RIGHT_WRITE, "redefine a saved domain", error))
        return false;
    bool ok = define_file(path, xml, save_flags, error);
    domain_audit(who, "redefine saved", path, ok, error);
    return ok;
}
