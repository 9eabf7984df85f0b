/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Questions about a domain: from memory where that can be, else from its machine.
 *
 * Thread    The loop thread. What asks the machine waits without the job lock: it holds the
 * machine's struct (domain_use), not the domain.
 */
#include "manager/domain/def_chain.h"
#include "manager/domain/domain_priv.h"
#include "manager/image_info.h"
#include "manager/storage/pool.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool domain_info(const struct caller *who, struct domain *d, struct domain_info *ret,
                 GError **error)
{
    const struct domain_summary *s = domain_summary(d);
    if (!domain_allowed(who, d, RIGHT_READ, "read", error))
        return false;
    *ret = (struct domain_info){
        .state = d->state,
        .max_memory_kib = s->memory_kib,
        .memory_kib = d->vm ? vm_memory_kib(d->vm) : s->current_memory_kib,
        .cpu_time_ns = d->vm ? vm_cpu_time_ns(d->vm) : 0,
        .vcpus = s->vcpus,
    };
    return true;
}

int domain_vcpus(const struct caller *who, struct domain *d, struct domain_vcpu *ret, unsigned room,
                 GError **error)
{
    if (!domain_allowed(who, d, RIGHT_READ, "read", error) || !domain_machine(d, error))
        return -1;
    return vm_vcpus(d->vm, ret, room);
}

/* ---- statistics ---- */

enum {
    STATS_STATE = 1,
    STATS_BALLOON = 4,
    STATS_VCPU = 8,
    STATS_INTERFACE = 16,
    STATS_BLOCK = 32,
    STATS_ALL = 2047
};

/* What is known of a domain that does not run. */
static void stats_inactive(const struct domain_summary *s, unsigned stats, struct param_list *ret)
{
    if (stats & STATS_BALLOON) {
        param_ullong(ret, "balloon.current", s->current_memory_kib);
        param_ullong(ret, "balloon.maximum", s->memory_kib);
    }
    if (stats & STATS_VCPU) {
        param_uint(ret, "vcpu.current", s->vcpus);
        param_uint(ret, "vcpu.maximum", s->vcpus_max);
    }
    if (!(stats & STATS_BLOCK))
        return;
    param_uint(ret, "block.count", s->disk_count);
    for (unsigned i = 0; i < s->disk_count; i++) {
        param_string_at(ret, s->disks[i].target ? s->disks[i].target : "", "block.%u.name", i);
        if (s->disks[i].source)
            param_string_at(ret, s->disks[i].source, "block.%u.path", i);
    }
}

bool domain_stats(const struct caller *who, struct domain *d, unsigned stats, unsigned flags,
                  struct param_list *ret, GError **error)
{
    enum { ENFORCE = 1u << 31 };
    unsigned wanted = stats ? stats : STATS_ALL;
    if (!domain_allowed(who, d, RIGHT_READ, "read", error))
        return false;
    if ((flags & ENFORCE) && (stats & ~(unsigned)STATS_ALL))
        return ruche_error(error, MANAGER_ERR_ARGUMENT, "stats types 0x%x are not known",
                           stats & ~(unsigned)STATS_ALL);
    if (wanted & STATS_STATE) {
        param_int(ret, "state.state", d->state);
        param_int(ret, "state.reason", d->reason);
    }
    if (!(wanted & ~(unsigned)STATS_STATE))
        return true;
    struct vm_use *u = d->vm ? domain_use(d, NULL) : NULL;
    if (!u) {
        stats_inactive(domain_summary(d), wanted, ret);
        return true;
    }
    bool ok = vm_stats(u->vm, wanted & ~(unsigned)STATS_STATE, ret, error);
    domain_use_end(u);
    return ok;
}

bool domain_cpu_stats(const struct caller *who, struct domain *d, int cpu, struct param_list *ret,
                      GError **error)
{
    if (!domain_allowed(who, d, RIGHT_READ, "read", error) || !domain_machine(d, error))
        return false;
    return vm_cpu_stats(d->vm, cpu, ret, error);
}

/* ---- asking the machine ---- */

/* Right and machine of a question; NULL: neither. */
static struct vm_use *ask(const struct caller *who, struct domain *d, enum right right,
                          const char *operation, GError **error)
{
    return domain_allowed(who, d, right, operation, error) ? domain_use(d, error) : NULL;
}

bool domain_block_stats(const struct caller *who, struct domain *d, const char *disk,
                        struct domain_block_stats *ret, GError **error)
{
    struct vm_use *u = ask(who, d, RIGHT_READ, "read", error);
    bool ok = u && vm_block_stats(u->vm, disk, ret, error);
    if (u)
        domain_use_end(u);
    return ok;
}

bool domain_interface_stats(const struct caller *who, struct domain *d, const char *device,
                            struct domain_interface_stats *ret, GError **error)
{
    struct vm_use *u = ask(who, d, RIGHT_READ, "read", error);
    bool ok = u && vm_interface_stats(u->vm, device, ret, error);
    if (u)
        domain_use_end(u);
    return ok;
}

int domain_memory_stats(const struct caller *who, struct domain *d, struct domain_memory_stat *ret,
                        unsigned room, GError **error)
{
    struct vm_use *u = ask(who, d, RIGHT_READ, "read", error);
    int n = u ? vm_memory_stats(u->vm, ret, room) : -1;
    if (u)
        domain_use_end(u);
    return n;
}

int domain_open_console(const struct caller *who, struct domain *d, const char *alias, bool force,
                        bool channel, GError **error)
{
    const char *operation = channel ? "open a channel of" : "open a console of";
    struct vm_use *u = ask(who, d, RIGHT_CONTROL, operation, error);
    int fd = u ? vm_open_console(u->vm, alias, force, channel, error) : -1;
    if (u)
        domain_use_end(u);
    domain_audit(who, operation, d->name, fd >= 0, error);
    return fd;
}

char *domain_agent_command(const struct caller *who, struct domain *d, const char *json,
                           int timeout_s, GError **error)
{
    struct vm_use *u = ask(who, d, RIGHT_WRITE, "command the agent of", error);
    if (timeout_s == AGENT_DEFAULT)
        timeout_s = d->agent_timeout;
    char *answer = u ? vm_agent_command(u->vm, json, timeout_s, error) : NULL;
    if (u)
        domain_use_end(u);
    domain_audit(who, "command the agent of", d->name, answer, error);
    return answer;
}

char *domain_monitor_command(const struct caller *who, struct domain *d, const char *text, bool hmp,
                             GError **error)
{
    struct vm_use *u = ask(who, d, RIGHT_WRITE, "command the monitor of", error);
    char *answer = u ? vm_monitor_command(u->vm, text, hmp, error) : NULL;
    if (u)
        domain_use_end(u);
    domain_audit(who, "command the monitor of", d->name, answer, error);
    return answer;
}

char *domain_monitor_command_fd(const struct caller *who, struct domain *d, const char *text,
                                int fd, GError **error)
{
    struct vm_use *u = ask(who, d, RIGHT_WRITE, "command the monitor of", error);
    char *answer = u ? vm_monitor_command_fd(u->vm, text, fd, error) : NULL;
    if (u)
        domain_use_end(u);
    domain_audit(who, "command the monitor of", d->name, answer, error);
    return answer;
}

/* ---- disks ---- */

/* The disk of this target name or source. */
static const struct def_disk *find_disk(struct domain *d, const char *disk, GError **error)
{
    const struct domain_summary *s = domain_summary(d);
    for (unsigned i = 0; i < s->disk_count; i++)
        if (g_strcmp0(s->disks[i].target, disk) == 0 ||
            (*disk && g_strcmp0(s->disks[i].source, disk) == 0))
            return &s->disks[i];
    ruche_error(error, RUCHE_ERR_INVALID, "invalid path '%s' not assigned to domain '%s'", disk,
                d->name);
    return NULL;
}

/* Where the image of a disk of a domain that does not run is: of a volume, its pool says. */
static char *find_image(struct domain *d, const char *target, const char *said, GError **error)
{
    const struct xml_node *disk = def_chain_disk(domain_def_tree(d->def), target),
                          *source = disk ? xml_find(disk, "source") : NULL;
    char *path = NULL;
    if (source && xml_is(disk, "@type", "volume")) {
        auto_xml *copy = xml_copy(source);
        const char *found = NULL;
        if (volume_describe(copy, error)) {
            found = xml_get(copy, "@file") ? xml_get(copy, "@file") : xml_get(copy, "@dev");
            if (!found)
                ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                            "disk '%s' of domain '%s' is not on this host: its figures are known "
                            "while the domain runs",
                            target, d->name);
        }
        path = g_strdup(found);
    } else if (said) {
        path = g_strdup(said);
    } else {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "disk '%s' of domain '%s' does not currently have a source assigned", target,
                    d->name);
    }
    domain_def_shrink(d->def);
    return path;
}

/* The figures of a file that no machine has open: what the host says of it, and ruche-img of what
 * is in it. */
static bool image_figures(const char *path, struct domain_block_info *ret, GError **error)
{
    g_auto(image_info_list) image = NULL;
    if (!image_info_ask(path, NULL, 0, 30000, &image, error))
        return false;
    ret->capacity = image->virtual_size;
    ret->allocation = image->actual_size;
    struct stat st;
    ret->physical =
        stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : ret->allocation;
    return true;
}

bool domain_block_info(const struct caller *who, struct domain *d, const char *disk,
                       struct domain_block_info *ret, GError **error)
{
    if (!domain_allowed(who, d, RIGHT_READ, "read", error))
        return false;
    const struct def_disk *row = find_disk(d, disk, error);
    if (!row)
        return false;
    g_autofree char *target = g_strdup(row->target), *source = g_strdup(row->source);
    struct vm_use *u = d->vm ? domain_use(d, NULL) : NULL;
    if (u) {
        bool ok = vm_block_info(u->vm, target, ret, error);
        domain_use_end(u);
        return ok;
    }
    g_autofree char *image = find_image(d, target, source, error);
    return image && image_figures(image, ret, error);
}

/* What is done to one disk of what runs. */
static bool do_disk(const struct caller *who, struct domain *d, const char *operation,
                    const char *disk, uint64_t bytes,
                    bool (*fn)(struct vm *v, const char *disk, uint64_t bytes, GError **error),
                    GError **error)
{
    if (!domain_allowed(who, d, RIGHT_WRITE, operation, error) || !domain_lock(d, operation, error))
        return false;
    struct vm *v = domain_machine(d, error);
    const struct def_disk *row = v ? find_disk(d, disk, error) : NULL;
    g_autofree char *target = row ? g_strdup(row->target) : NULL;
    bool ok = target && fn(v, target, bytes, error);
    domain_unlock(d);
    domain_audit(who, operation, d->name, ok, error);
    return ok;
}

bool domain_block_resize(const struct caller *who, struct domain *d, const char *disk,
                         uint64_t bytes, GError **error)
{
    return do_disk(who, d, "resize a disk of", disk, bytes, vm_block_resize, error);
}

bool domain_block_threshold(const struct caller *who, struct domain *d, const char *disk,
                            uint64_t bytes, GError **error)
{
    return do_disk(who, d, "set a threshold of a disk of", disk, bytes, vm_block_threshold, error);
}

/* ---- the guest's own words ---- */

#define DMESG_BYTES (64 << 10)

/* The file's end, from the beginning of a line. */
static char *read_tail(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1;
    g_autofree char *text = g_malloc0(DMESG_BYTES + 1);
    off_t from = size > DMESG_BYTES ? size - DMESG_BYTES : 0;
    ssize_t n = fd >= 0 ? pread(fd, text, DMESG_BYTES, from) : -1;
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return NULL;
    const char *begin = from ? memchr(text, '\n', (size_t)n) : NULL;
    begin = begin ? begin + 1 : text;
    return g_strndup(begin, (size_t)(text + n - begin));
}

/* What a guest writes could steer a terminal: only text and its lines are left. */
static void make_printable(char *text)
{
    char *to = text;
    for (const char *p = text; *p; p++)
        if (*p == '\n' || *p == '\t' || (unsigned char)*p >= ' ')
            *to++ = *p == 0x7f ? '?' : *p;
    *to = 0;
}

/* The end of one of its logs; `missing` is what is not there. */
static char *log_text(const struct caller *who, struct domain *d, const char *path,
                      const char *missing, GError **error)
{
    if (!domain_allowed(who, d, RIGHT_READ, "read the log of", error))
        return NULL;
    g_autofree char *text = read_tail(path);
    if (!text) {
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "domain '%s' has %s", d->name, missing);
        return NULL;
    }
    make_printable(text);
    return g_utf8_make_valid(text, -1);
}

char *domain_dmesg(const struct caller *who, struct domain *d, GError **error)
{
    g_autofree char *path = vm_console_log_path(d->name);
    return log_text(who, d, path, "written nothing to a console that is logged", error);
}

char *domain_log(const struct caller *who, struct domain *d, GError **error)
{
    g_autofree char *path = vm_log_path(d->name);
    return log_text(who, d, path, "no log: it has not run yet", error);
}
