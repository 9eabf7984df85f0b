/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is in a machine, to be looked at: core files, pieces of memory and of disks.
 *
 * Thread    The loop thread; all here waits. Files are written, and disks read, on workers.
 */
#include "manager/domain/domain_priv.h"

#include "base/fd.h"
#include "base/log.h"
#include "manager/domain/save_file.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* virDomainCoreDumpFormat as QMP's words */
static const char *const formats[] = {"elf", "kdump-zlib", "kdump-lzo", "kdump-snappy", "win-dmp"};

/* ---- core files ---- */

static bool check_flags(unsigned format, unsigned flags, GError **error)
{
    const unsigned known =
        DUMP_CRASH | DUMP_LIVE | DUMP_BYPASS_CACHE | DUMP_RESET | DUMP_MEMORY_ONLY;
    const unsigned after = flags & (DUMP_CRASH | DUMP_LIVE | DUMP_RESET);
    if (!domain_flags(flags, known, "dump", error))
        return false;
    if (after & (after - 1))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "dump: 'crash', 'live' and 'reset' exclude each other");
    if (format >= G_N_ELEMENTS(formats))
        return ruche_error(error, RUCHE_ERR_INVALID, "dump: there is no format %u", format);
    return !format || (flags & DUMP_MEMORY_ONLY) ||
           ruche_error(error, MANAGER_ERR_CONFIG,
                       "dump: format '%s' is for memory alone (--memory-only)", formats[format]);
}

static bool write_core(struct domain *d, unsigned format, unsigned flags, struct save_file *file,
                       GError **error)
{
    if (!(flags & DUMP_LIVE) && !domain_stand(d, PAUSED_DUMP, error))
        return false;
    d->pause_reason = PAUSED_DUMP; /* the stream's end stops a guest that runs */
    bool ok = flags & DUMP_MEMORY_ONLY ? vm_dump_memory(d->vm, file->fd, formats[format], error)
                                       : vm_state_send(d->vm, file->fd, domain_job_speed(d), error);
    ok = ok && domain_job_stream(d, file, error);
    d->pause_reason = PAUSED_UNKNOWN;
    return ok && domain_file_finish(d, file, error);
}

/* Done or not, the guest goes on if it ran. */
static bool go_on(struct domain *d, bool ok, unsigned flags, GError **error)
{
    g_autoptr(GError) why = NULL;
    d->job->finishing = false;
    if ((ok || vm_state_settle(d->vm, &why)) &&
        (!ok || !(flags & DUMP_RESET) || vm_reset(d->vm, &why)) &&
        (!d->job->resume || domain_go_on(d, RUNNING_UNPAUSED, &why)))
        return ok;
    if (!ok) {
        log_warn("domain '%s' was not dumped, and does not go on: %s", d->name, why->message);
        return false;
    }
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

static bool dump_locked(struct domain *d, const char *path, unsigned format, unsigned flags,
                        struct job *shown, GError **error)
{
    struct save_file file = {.fd = -1, .drop_cache = flags & DUMP_BYPASS_CACHE};
    struct domain_job *j = domain_job_begin(d, DOMAIN_JOB_DUMP, shown);
    j->resume = d->state == DOMAIN_RUNNING;
    bool ok = domain_file_make(d, path, NULL, SAVE_PAUSED, &file, error) &&
              write_core(d, format, flags, &file, error);
    save_file_done(&file);
    bool over = ok && (flags & DUMP_CRASH);
    if (!over)
        ok = go_on(d, ok, flags, error);
    domain_job_end(d, ok, error);
    if (over)
        domain_over(d, SHUTOFF_CRASHED, STOPPED_CRASHED);
    else if (d->vm)
        domain_set_state(d, d->state, d->reason); /* without the job */
    return ok;
}

bool domain_dump(const struct caller *who, struct domain *d, const char *path, unsigned format,
                 unsigned dump_flags, struct job *shown, GError **error)
{
    if (!check_flags(format, dump_flags, error) ||
        !domain_allowed(who, d, RIGHT_WRITE, "dump", error) || !domain_may(d, OP_DUMP, error) ||
        !domain_lock(d, "dump", error))
        return false;
    bool ok = domain_may(d, OP_DUMP, error) && domain_machine(d, error) &&
              dump_locked(d, path, format, dump_flags, shown, error);
    domain_unlock(d);
    domain_audit(who, "dump", d->name, ok, error);
    return ok;
}

bool domain_dump_crashed(struct domain *d, GError **error)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_local();
    g_autofree char *when = g_date_time_format(now, "%Y-%m-%d-%H%M%S"),
                    *dir = g_build_filename(manager.state_dir, "dump", NULL),
                    *path = g_strdup_printf("%s/%s-%s", dir, d->name, when);
    if (g_mkdir_with_parents(dir, 0700) < 0)
        return ruche_error_errno(error, errno, "folder '%s'", dir);
    bool ok = dump_locked(d, path, 0, DUMP_MEMORY_ONLY, NULL, error);
    domain_audit(&caller_self, "dump", d->name, ok, error);
    return ok;
}

/* ---- pieces ---- */

static bool check_size(const struct domain *d, uint64_t from, size_t len, GError **error)
{
    if (len > DOMAIN_PEEK_MAX)
        return ruche_error(error, MANAGER_ERR_OVERFLOW,
                           "domain '%s': %zu bytes at a time are too many; %u are possible",
                           d->name, len, DOMAIN_PEEK_MAX);
    return from <= INT64_MAX - len ||
           ruche_error(error, RUCHE_ERR_INVALID, "domain '%s': nothing is at %" G_GUINT64_FORMAT,
                       d->name, from);
}

bool domain_memory_peek(const struct caller *who, struct domain *d, uint64_t from, uint8_t *ret,
                        size_t len, unsigned peek_flags, GError **error)
{
    if (!domain_allowed(who, d, RIGHT_READ_SECURE, "read memory of", error) ||
        !check_size(d, from, len, error))
        return false;
    if (peek_flags != PEEK_VIRTUAL && peek_flags != PEEK_PHYSICAL)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "flags parameter must be VIR_MEMORY_VIRTUAL or VIR_MEMORY_PHYSICAL");
    struct vm_use *u = domain_use(d, error);
    if (!u)
        return false;
    bool ok = !len || vm_peek_memory(u->vm, peek_flags == PEEK_PHYSICAL, from, ret, len, error);
    domain_use_end(u);
    return ok;
}

struct peek {
    const char *path;
    uint64_t from;
    uint8_t *to;
    size_t len;
    ssize_t result; /* bytes, or -errno */
};

static void peek_work(void *opaque)
{
    struct peek *p = opaque;
    autofd fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    p->result = fd < 0 ? -errno : pread(fd, p->to, p->len, (off_t)p->from);
    if (fd >= 0 && p->result < 0)
        p->result = -errno;
}

/* The path of a raw disk, by its target or path. */
static char *raw_disk(struct domain *d, const char *name, GError **error)
{
    struct domain_def *def = d->live ? d->live : d->def;
    char *path = NULL;
    for (struct xml_node *n = xml_find(domain_def_tree(def), "devices/disk"); n; n = xml_next(n)) {
        const char *source = xml_get(n, "source@file");
        source = source ? source : xml_get(n, "source@dev");
        if (g_strcmp0(source, name) && !xml_is(n, "target@dev", name))
            continue;
        if (!xml_is(n, "driver@type", "raw"))
            ruche_error(error, MANAGER_ERR_CONFIG,
                        "disk '%s': only raw disks can be looked into, this is %s", name,
                        xml_get_or(n, "driver@type", "?"));
        else if (!source)
            ruche_error(error, MANAGER_ERR_CONFIG, "disk '%s' is not a file or device of this host",
                        name);
        else
            path = g_strdup(source);
        domain_def_shrink(def);
        return path;
    }
    domain_def_shrink(def);
    ruche_error(error, MANAGER_ERR_ARGUMENT, "domain '%s' has no disk '%s'", d->name, name);
    return NULL;
}

bool domain_block_peek(const struct caller *who, struct domain *d, const char *disk, uint64_t from,
                       uint8_t *ret, size_t len, GError **error)
{
    if (!domain_allowed(who, d, RIGHT_READ_SECURE, "read a disk of", error) ||
        !check_size(d, from, len, error))
        return false;
    g_autofree char *path = raw_disk(d, disk, error);
    if (!path)
        return false;
    struct peek p = {.path = path, .from = from, .to = ret, .len = len};
    task_work(peek_work, &p);
    if (p.result < 0)
        return ruche_error_errno(error, (int)-p.result, "'%s' cannot be read", path);
    return p.result == (ssize_t)len ||
           ruche_error(error, RUCHE_ERR_INVALID, "'%s' ends before %" G_GUINT64_FORMAT, path,
                       from + len);
}
