/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Jobs on the disks of a running machine, as clients begin, end and look at them: pull, commit, copy.
 * What they make of the descriptions: domain_block_job_end.c.
 *
 * Thread    The loop thread; all here waits.
 */
#include "manager/domain/domain_block_job.h"

#include "manager/domain/def_chain.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define END_POLL_MS   50
#define END_ROUNDS    1200 /* a minute for a job to end that was told to */
#define IMAGE_TIME_MS 60000

/* ---- how operations begin and end ---- */

static bool begin(const struct caller *who, struct domain *d, const char *operation, GError **error)
{
    if (!domain_allowed(who, d, RIGHT_WRITE, operation, error) || !domain_may(d, OP_LIVE, error) ||
        !domain_lock(d, operation, error))
        return false;
    if (domain_machine(d, error))
        return true;
    domain_unlock(d);
    return false;
}

static bool end(const struct caller *who, struct domain *d, const char *operation, bool ok,
                GError **error)
{
    if (d->live)
        domain_def_shrink(d->live);
    domain_unlock(d);
    domain_audit(who, operation, d->name, ok, error);
    return ok;
}

/* The live <disk>, in a copy: whoever asks for the description meanwhile takes its tree away. With
 * *ret_job what is under way on it. False: no such disk, or the machine does not say. */
static bool find(struct domain *d, const char *name, struct xml_node **ret_doc,
                 struct xml_node **ret_disk, struct vm_block_job *ret_job, GError **error)
{
    g_autofree char *target = NULL;
    for (unsigned i = 0; d->live && i < d->live->s.disk_count && !target; i++)
        if (!g_strcmp0(d->live->s.disks[i].target, name) ||
            !g_strcmp0(d->live->s.disks[i].source, name))
            target = g_strdup(d->live->s.disks[i].target);
    if (!target)
        return ruche_error(error, RUCHE_ERR_INVALID, "domain '%s' has no disk '%s'", d->name, name);
    *ret_job = (struct vm_block_job){.kind = BLOCK_JOB_NONE};
    g_autoptr(GArray) jobs = vm_block_jobs(d->vm, error);
    for (guint i = 0; jobs && i < jobs->len; i++)
        if (!strcmp(g_array_index(jobs, struct vm_block_job, i).target, target))
            *ret_job = g_array_index(jobs, struct vm_block_job, i);
    *ret_doc = jobs && d->live ? xml_copy(domain_def_tree(d->live)) : NULL;
    *ret_disk = *ret_doc ? def_chain_disk(*ret_doc, target) : NULL;
    return *ret_disk ||
           (jobs && ruche_error(error, MANAGER_ERR_MACHINE, "machine '%s' has ended", d->name));
}

/* A disk that can be worked on: it has an image, and nothing is under way. */
static bool find_free(struct domain *d, const char *name, struct xml_node **ret_doc,
                      struct xml_node **ret_disk, struct vm_block_job *ret_new, GError **error)
{
    struct vm_block_job j;
    if (!find(d, name, ret_doc, ret_disk, &j, error))
        return false;
    if (j.kind || xml_find(*ret_disk, "mirror"))
        return ruche_error(error, RUCHE_ERR_BUSY, "disk '%s' already in active block job", name);
    if (!def_chain_path(*ret_disk))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "disk '%s' has no file or device of this host", name);
    *ret_new = (struct vm_block_job){.kind = BLOCK_JOB_NONE};
    if (g_strlcpy(ret_new->target, xml_get_or(*ret_disk, "target@dev", ""),
                  sizeof(ret_new->target)) < sizeof(ret_new->target) &&
        !strchr(ret_new->target, '-'))
        return true;
    return ruche_error(error, MANAGER_ERR_CONFIG, "disk '%s': its name cannot be a job's", name);
}

static struct xml_node *find_image(struct xml_node *disk, const char *name, GError **error)
{
    struct xml_node *image = def_chain_find(disk, name);
    if (!image)
        ruche_error(error, RUCHE_ERR_INVALID, "could not find image '%s' beneath disk '%s'", name,
                    xml_get_or(disk, "target@dev", ""));
    return image;
}

/* ---- pull ---- */

bool domain_block_pull(const struct caller *who, struct domain *d, const char *disk,
                       const char *base, uint64_t bytes_s, GError **error)
{
    auto_xml *doc = NULL;
    struct xml_node *node, *below = NULL;
    struct vm_block_job j;
    if (!begin(who, d, "pull a disk of", error))
        return false;
    bool ok = find_free(d, disk, &doc, &node, &j, error) &&
              (!base || (below = find_image(node, base, error)));
    if (ok && below == node)
        ok = ruche_error(error, RUCHE_ERR_INVALID, "disk '%s': '%s' is not beneath it", disk, base);
    if (ok) {
        j.kind = BLOCK_JOB_PULL;
        j.b = below ? def_chain_number(below) : 0;
        j.bytes_s = bytes_s;
        ok = vm_block_pull(d->vm, node, &j, error);
    }
    return end(who, d, "pull a disk of", ok, error);
}

/* ---- commit ---- */

static bool commit_ends(struct xml_node *disk, const char *base, const char *top, unsigned flags,
                        struct xml_node **ret_top, struct xml_node **ret_base, GError **error)
{
    struct xml_node *t = top ? find_image(disk, top, error) : disk;
    struct xml_node *b = !t ? NULL : base ? find_image(disk, base, error) : def_chain_next(t);
    if (!t || (base && !b))
        return false;
    while (!base && b && !(flags & COMMIT_SHALLOW) && def_chain_next(b))
        b = def_chain_next(b);
    struct xml_node *n = def_chain_next(t);
    while (n && n != b)
        n = def_chain_next(n);
    if (!b || !n)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "disk '%s': there is no image beneath the top to commit to",
                           xml_get_or(disk, "target@dev", ""));
    if (base && (flags & COMMIT_SHALLOW) && def_chain_next(t) != b)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "base '%s' is not immediately below the top of the chain", base);
    *ret_top = t;
    *ret_base = b;
    return true;
}

static bool commit_locked(struct domain *d, const char *disk, const char *base, const char *top,
                          unsigned flags, uint64_t bytes_s, GError **error)
{
    auto_xml *doc = NULL;
    struct xml_node *node, *t = NULL, *b = NULL;
    struct vm_block_job j;
    if (!find_free(d, disk, &doc, &node, &j, error) ||
        !commit_ends(node, base, top, flags, &t, &b, error))
        return false;
    bool active = t == node;
    if (active != !!(flags & COMMIT_ACTIVE))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           active ? "commit of '%s' active layer requires active flag"
                                  : "active commit requested but '%s' is not active",
                           disk);
    if (!def_chain_path(b) || xml_find(node, "readonly"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "disk '%s': nothing can be written to its base", disk);
    j.kind = active ? BLOCK_JOB_ACTIVE : BLOCK_JOB_COMMIT;
    j.a = def_chain_number(t);
    j.b = def_chain_number(b);
    j.bytes_s = bytes_s;
    g_autofree char *path = g_strdup(def_chain_path(b)), *format = g_strdup(def_chain_format(b));
    const struct domain_block_copy copy = {
        .path = path, .format = format, .device = xml_is(b, "@type", "block")};
    if (active && !domain_block_mirror(d, &j, &copy, NULL, error))
        return false;
    if (d->vm && vm_block_commit(d->vm, node, &j, error))
        return true;
    if (active && d->live && d->vm)
        domain_block_mirror(d, &j, NULL, NULL, NULL);
    return false;
}

bool domain_block_commit(const struct caller *who, struct domain *d, const char *disk,
                         const char *base, const char *top, unsigned commit_flags, uint64_t bytes_s,
                         GError **error)
{
    if (!domain_flags(commit_flags, COMMIT_SHALLOW | COMMIT_ACTIVE | COMMIT_RELATIVE, "blockcommit",
                      error) ||
        !begin(who, d, "commit a disk of", error))
        return false;
    return end(who, d, "commit a disk of",
               commit_locked(d, disk, base, top, commit_flags, bytes_s, error), error);
}

/* ---- copy ---- */

/* A new image as large as the disk. */
static bool make_image(struct domain *d, const struct domain_block_copy *c, struct xml_node *disk,
                       GError **error)
{
    struct domain_block_info info;
    struct xml_node *below = c->shallow ? def_chain_next(disk) : NULL;
    g_autofree char *back = below ? g_strdup(def_chain_path(below)) : NULL,
                    *back_format = below ? g_strdup(def_chain_format(below)) : NULL;
    if (!vm_block_info(d->vm, xml_get_or(disk, "target@dev", ""), &info, error))
        return false;
    g_autofree char *bytes = g_strdup_printf("%" G_GUINT64_FORMAT, info.capacity);
    const char *const plain[] = {manager.img, "create", "-q",  "-f",
                                 c->format,   c->path,  bytes, NULL};
    const char *const over[] = {manager.img, "create", "-q", "-f",    c->format, "-F",
                                back_format, "-b",     back, c->path, bytes,     NULL};
    return task_run_program(below ? over : plain, NULL, 65536, IMAGE_TIME_MS, NULL, error);
}

static bool check_target(const struct domain_block_copy *c, GError **error)
{
    struct stat st;
    bool there = stat(c->path, &st) == 0;
    if (!g_path_is_absolute(c->path))
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not the full path of a file",
                           c->path);
    if ((c->reuse || c->device) && !there)
        return ruche_error_errno(error, errno, "'%s'", c->path);
    if (!c->reuse && !c->device && there && st.st_size)
        return ruche_error(error, RUCHE_ERR_EXISTS,
                           "external destination file for disk '%s' already exists", c->path);
    return !c->shallow || strcmp(c->format, "raw") ||
           ruche_error(error, MANAGER_ERR_CONFIG, "a shallow copy as raw is not possible: '%s'",
                       c->path);
}

static bool copy_locked(struct domain *d, const char *disk, const struct domain_block_copy *request,
                        GError **error)
{
    struct domain_block_copy c = *request;
    auto_xml *doc = NULL;
    struct xml_node *node;
    struct vm_block_job j;
    if (!find_free(d, disk, &doc, &node, &j, error))
        return false;
    g_autofree char *format = g_strdup(c.format ? c.format : def_chain_format(node));
    c.format = format;
    c.shallow = c.shallow && def_chain_next(node);
    if (!check_target(&c, error))
        return false;
    j.kind = BLOCK_JOB_COPY;
    j.a = c.shallow;
    j.b = def_chain_new_number(node);
    j.bytes_s = c.bytes_s;
    bool made = !c.reuse && !c.device;
    if (made && !make_image(d, &c, node, error))
        return false;
    bool ok = d->vm && d->live && domain_block_mirror(d, &j, &c, NULL, error);
    const struct vm_block_copy how = {.path = c.path,
                                      .format = c.format,
                                      .device = c.device,
                                      .shallow = c.shallow,
                                      .write_blocking = c.write_blocking,
                                      .granularity = c.granularity,
                                      .buf_size = c.buf_size};
    ok = ok && vm_block_copy(d->vm, node, &j, &how, error);
    if (ok)
        return true;
    if (made)
        unlink(c.path);
    if (d->vm && d->live)
        domain_block_mirror(d, &j, NULL, NULL, NULL);
    return false;
}

bool domain_block_copy(const struct caller *who, struct domain *d, const char *disk,
                       const struct domain_block_copy *c, GError **error)
{
    if (!begin(who, d, "copy a disk of", error))
        return false;
    return end(who, d, "copy a disk of", copy_locked(d, disk, c, error), error);
}

/* ---- abort, pivot ---- */

/* Until the job is gone, its end being made here: the lock is ours. */
static bool wait_gone(struct domain *d, const char *target, GError **error)
{
    for (int i = 0; i < END_ROUNDS && d->vm && d->live; i++) {
        domain_block_jobs_settle(d);
        bool there = false;
        g_autoptr(GArray) jobs = d->vm ? vm_block_jobs(d->vm, error) : NULL;
        for (guint k = 0; jobs && k < jobs->len; k++)
            there |= !strcmp(g_array_index(jobs, struct vm_block_job, k).target, target);
        if (!jobs || !there)
            return jobs != NULL;
        task_sleep_ms(END_POLL_MS);
    }
    return ruche_error(error, MANAGER_ERR_TIMEOUT, "domain '%s': the job on disk '%s' does not end",
                       d->name, target);
}

static bool abort_locked(struct domain *d, const char *name, unsigned flags, GError **error)
{
    auto_xml *doc = NULL;
    struct xml_node *disk;
    struct vm_block_job j;
    bool pivot = flags & ABORT_PIVOT;
    if (!find(d, name, &doc, &disk, &j, error))
        return false;
    if (!j.kind)
        return ruche_error(error, RUCHE_ERR_STATE, "disk %s does not have an active block job",
                           name);
    bool two_steps = j.kind == BLOCK_JOB_COPY || j.kind == BLOCK_JOB_ACTIVE;
    if (pivot && !two_steps)
        return ruche_error(error, RUCHE_ERR_STATE, "pivot of disk '%s' requires an active copy job",
                           name);
    if (pivot && !j.ready)
        return ruche_error(error, RUCHE_ERR_BUSY,
                           "block copy still active: disk '%s' not ready for pivot yet", name);
    if (two_steps && !j.over && !domain_block_mirror(d, &j, NULL, pivot ? "pivot" : "abort", error))
        return false;
    if (!j.over &&
        !vm_block_job_do(d->vm, &j, pivot ? BLOCK_JOB_COMPLETE : BLOCK_JOB_CANCEL, 0, error)) {
        if (two_steps && d->live)
            domain_block_mirror(d, &j, NULL, "yes", NULL);
        return false;
    }
    return (flags & ABORT_ASYNC) || wait_gone(d, j.target, error);
}

bool domain_block_job_abort(const struct caller *who, struct domain *d, const char *disk,
                            unsigned abort_flags, GError **error)
{
    if (!domain_flags(abort_flags, ABORT_ASYNC | ABORT_PIVOT, "blockjob abort", error) ||
        !begin(who, d, "end a block job of", error))
        return false;
    return end(who, d, "end a block job of", abort_locked(d, disk, abort_flags, error), error);
}

/* ---- speed and figures ---- */

bool domain_block_job_speed(const struct caller *who, struct domain *d, const char *disk,
                            uint64_t bytes_s, GError **error)
{
    auto_xml *doc = NULL;
    struct xml_node *node;
    struct vm_block_job j;
    if (!begin(who, d, "set the speed of a block job of", error))
        return false;
    bool ok = find(d, disk, &doc, &node, &j, error) &&
              (j.kind || ruche_error(error, RUCHE_ERR_STATE,
                                     "disk %s does not have an active block job", disk)) &&
              vm_block_job_do(d->vm, &j, BLOCK_JOB_SPEED, bytes_s, error);
    return end(who, d, "set the speed of a block job of", ok, error);
}

bool domain_block_job_info(const struct caller *who, struct domain *d, const char *disk,
                           struct domain_block_job_info *ret, GError **error)
{
    auto_xml *doc = NULL;
    struct xml_node *node;
    struct vm_block_job j;
    struct vm_use *u =
        domain_allowed(who, d, RIGHT_READ, "read", error) ? domain_use(d, error) : NULL;
    if (!u)
        return false;
    bool ok = find(d, disk, &doc, &node, &j, error);
    domain_use_end(u);
    *ret = (struct domain_block_job_info){
        .kind = j.kind, .done = j.done, .total = j.total, .bytes_s = j.bytes_s, .ready = j.ready};
    if (ok && j.kind && !j.ready &&
        j.done == j.total) { /* all that was known; clients take equal figures for "ready" */
        ret->total = MAX(j.total, 1);
        ret->done = ret->total - 1;
    }
    if (ok && d->live && !d->job_holder)
        domain_def_shrink(d->live);
    return ok;
}
