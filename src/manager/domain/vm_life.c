/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine's process: known, watched, told to go on or stand, ended. */
#include "manager/domain/vm_internal.h"
#include "manager/filter/filter.h"
#include "manager/network/network.h"

#include "base/fd.h"
#include "base/log.h"

#include <fcntl.h>
#include <glib-unix.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>

#define GRACE_MS 15000
#define KILL_MS  15000
#define LOG_S    60 /* its size is looked at this often */

/* ---- owner ---- */

struct vm *vm_new(struct domain *d)
{
    struct vm *v = g_new0(struct vm, 1);
    *v = (struct vm){.refs = 1, .d = d, .pidfd = -1, .told_fd = -1};
    v->plugged = (unsigned)(g_get_real_time() / G_USEC_PER_SEC);
    v->leaving = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    v->consoles = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, vm_console_free);
    v->name = g_strdup(domain_summary(d)->name);
    v->vcpus = g_array_new(FALSE, TRUE, sizeof(struct vm_thread));
    v->iothreads = g_array_new(FALSE, TRUE, sizeof(struct vm_thread));
    uuid_format(domain_summary(d)->uuid, v->uuid);
    v->dir = g_build_filename(manager.runtime_dir, "machines", v->uuid, NULL);
    v->run_state = g_strdup("prelaunch");
    return v;
}

struct vm *vm_ref(struct vm *v)
{
    v->refs++;
    return v;
}

void vm_unref(struct vm *v)
{
    if (!v || --v->refs)
        return;
    for (size_t i = 0; i < VM_QUESTIONS; i++) {
        g_clear_pointer(&v->answers[i].node, json_node_unref);
        g_clear_error(&v->answers[i].error);
    }
    fd_close_keep_errno(v->pidfd);
    g_hash_table_unref(v->consoles);
    g_hash_table_unref(v->leaving);
    cgroup_free(v->cgroup);
    g_array_unref(v->vcpus);
    g_array_unref(v->iothreads);
    g_free(v->run_state);
    g_free(v->lost_why);
    g_free(v->balloon);
    g_free(v->dir);
    g_free(v->name);
    g_free(v);
}

void vm_free(struct vm *v)
{
    if (!v)
        return;
    v->d = NULL;
    v->reporting = false;
    g_clear_handle_id(&v->pid_source, g_source_remove);
    g_clear_handle_id(&v->log_source, g_source_remove);
    g_clear_pointer(&v->qmp, qmp_client_free);
    g_hash_table_remove_all(v->consoles);
    if (v->ended)
        vm_clean_up(v);
    vm_unref(v);
}

/* ---- what the machine has of the host ---- */

/* Several managers can run side by side: each has groups of its own. */
const char *vm_cgroup_name(const struct vm *v)
{
    static char name[64];
    g_snprintf(name, sizeof(name), "%08x-%s", g_str_hash(manager.runtime_dir), v->uuid);
    return name;
}

void vm_note_link(const struct vm *v, const char *ifname)
{
    g_autofree char *path = g_build_filename(v->dir, "links", NULL);
    autofd fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    g_autofree char *line = g_strconcat(ifname, "\n", NULL);
    if (fd < 0 || write(fd, line, strlen(line)) < 0)
        log_warn("%s: %s", path, g_strerror(errno));
}

void vm_forget_link(const struct vm *v, const char *ifname)
{
    g_autofree char *path = g_build_filename(v->dir, "links", NULL), *text = NULL;
    g_autofree char *line = g_strconcat(ifname, "\n", NULL);
    g_autoptr(GString) rest = g_string_new(NULL);
    g_autoptr(GError) error = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL))
        return;
    for (const char *at = text, *end; *at && (end = strchr(at, '\n')); at = end + 1)
        if (strncmp(at, line, (size_t)(end + 1 - at)) != 0)
            g_string_append_len(rest, at, end + 1 - at);
    if (!g_file_set_contents(path, rest->str, (gssize)rest->len, &error))
        log_warn("%s", error->message);
}

static void delete_links(const struct vm *v)
{
    g_autofree char *path = g_build_filename(v->dir, "links", NULL), *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL))
        return;
    g_auto(GStrv) names = g_strsplit(text, "\n", -1);
    for (char **n = names; *n; n++)
        if (**n)
            vm_link_delete(*n);
}

void vm_clean_up(struct vm *v)
{
    uint8_t uuid[16];
    if (v->cgroup)
        cgroup_remove(v->cgroup);
    delete_links(v);
    if (uuid_parse(v->uuid, uuid)) {
        network_unplug(uuid, NULL);
        filter_unplug_owner(uuid);
    }
    g_autoptr(GDir) dir = g_dir_open(v->dir, 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        g_autofree char *path = g_build_filename(v->dir, name, NULL);
        g_unlink(path);
    }
    g_rmdir(v->dir);
}

/* ---- the process ---- */

/* Its state and the 22nd field, behind a name that may contain anything. */
uint64_t vm_process_start(pid_t pid)
{
    char path[64];
    g_autofree char *text = NULL;
    uint64_t ticks = 0;
    char state = 'Z';
    g_snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (!g_file_get_contents(path, &text, NULL, NULL))
        return 0;
    const char *p = strrchr(text, ')');
    if (!p || sscanf(p + 1, " %c", &state) != 1 || state == 'Z' || state == 'X')
        return 0;
    for (int i = 0; p && i < 20; i++)
        p = strchr(p + 1, ' ');
    return p && sscanf(p, "%" SCNu64, &ticks) == 1 ? ticks : 0;
}

pid_t vm_pid(const struct vm *v)
{
    return v->pid;
}

void vm_report_gone(struct vm *v)
{
    vm_report(v, VM_EV_GONE, v->guest_ended ? 0 : 1, NULL, 0);
}

/* What the monitor said last is still to be read: its end comes then. */
static gboolean process_ended(int fd, GIOCondition condition, gpointer opaque)
{
    struct vm *v = opaque;
    v->pid_source = 0;
    v->ended = true;
    if (!v->qmp)
        vm_report_gone(v);
    return G_SOURCE_REMOVE;
}

bool vm_watch(struct vm *v, GError **error)
{
    v->pidfd = pidfd_open(v->pid, 0);
    if (v->pidfd < 0)
        return ruche_error_errno(error, errno, "machine '%s': its process %d", v->name,
                                 (int)v->pid);
    if (v->start_ticks != vm_process_start(v->pid))
        return ruche_error(error, MANAGER_ERR_MACHINE, "machine '%s': process %d is another one",
                           v->name, (int)v->pid);
    return true;
}

static gboolean look_at_log(gpointer opaque)
{
    vm_log_bound(((const struct vm *)opaque)->name);
    return G_SOURCE_CONTINUE;
}

void vm_begin_reports(struct vm *v)
{
    v->reporting = true;
    if (!v->log_source)
        v->log_source = g_timeout_add_seconds(LOG_S, look_at_log, v);
    v->pid_source = g_unix_fd_add(v->pidfd, G_IO_IN, process_ended, v);
}

static bool wait_end(struct vm *v, int signal, int timeout_ms)
{
    if (pidfd_send_signal(v->pidfd, signal, NULL, 0) < 0 && errno == ESRCH)
        return true;
    return task_wait_fd(v->pidfd, G_IO_IN, timeout_ms);
}

bool vm_kill(struct vm *v, bool graceful, GError **error)
{
    auto_vm *keep = vm_ref(v);
    v->reporting = false;
    g_clear_handle_id(&v->pid_source, g_source_remove);
    bool ended = v->ended || v->pidfd < 0 || (graceful && wait_end(v, SIGTERM, GRACE_MS)) ||
                 wait_end(v, SIGKILL, KILL_MS);
    if (!ended) {
        if (keep->d)
            vm_begin_reports(keep);
        return ruche_error(error, MANAGER_ERR_TIMEOUT,
                           "machine '%s': process %d does not end, not even by SIGKILL", keep->name,
                           (int)keep->pid);
    }
    keep->ended = true;
    g_clear_pointer(&keep->qmp, qmp_client_free);
    vm_clean_up(keep);
    return true;
}

void vm_signal(struct vm *v, int signal)
{
    if (v->pidfd >= 0)
        pidfd_send_signal(v->pidfd, signal, NULL, 0);
}

/* ---- left over by a start that was cut off ---- */

/* The number that the process wrote into the file it keeps locked; 0: nobody keeps it. It is
 * written a moment after the lock is taken. */
static pid_t lock_holder(const char *path)
{
    for (int i = 0; i < 100; i++) {
        autofd fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        char text[32] = "";
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (pread(fd, text, sizeof(text) - 1, 0) > 0 && strchr(text, '\n'))
            return (pid_t)g_ascii_strtoll(text, NULL, 10);
        task_sleep_ms(10);
    }
    return 0;
}

void vm_clean(struct domain *d)
{
    struct vm *v = vm_new(d);
    g_autofree char *path = g_build_filename(v->dir, "process", NULL);
    g_autoptr(GError) error = NULL;
    v->cgroup = cgroup_find(vm_cgroup_name(v));
    v->pid = lock_holder(path);
    v->start_ticks = v->pid ? vm_process_start(v->pid) : 0;
    if (v->pid > 0 && v->start_ticks && vm_watch(v, &error) && lock_holder(path) == v->pid &&
        !vm_kill(v, false, &error))
        log_warn("%s", error->message);
    vm_clean_up(v);
    vm_free(v);
}

/* ---- its run ---- */

const char *vm_run_state(const struct vm *v)
{
    return v->run_state;
}

bool vm_read_state(struct vm *v, GError **error)
{
    g_autoptr(JsonNode) n = vm_call(v, "query-status", NULL, error);
    const char *word = vm_json_string(vm_json_object(n), "status");
    if (n && !word)
        return ruche_error(error, MANAGER_ERR_MACHINE, "machine '%s' does not say its state",
                           v->name);
    if (n) {
        g_free(v->run_state);
        v->run_state = g_strdup(word);
    }
    return n != NULL;
}

bool vm_cont(struct vm *v, GError **error)
{
    return vm_do(v, "cont", NULL, error);
}

bool vm_stop(struct vm *v, GError **error)
{
    return vm_do(v, "stop", NULL, error);
}

bool vm_powerdown(struct vm *v, GError **error)
{
    return vm_do(v, "system_powerdown", NULL, error);
}

bool vm_reset(struct vm *v, GError **error)
{
    return vm_do(v, "system_reset", NULL, error);
}

bool vm_nmi(struct vm *v, GError **error)
{
    return vm_do(v, "inject-nmi", NULL, error);
}

bool vm_set_reboot(struct vm *v, bool destroy, GError **error)
{
    return vm_do(v, "set-action", vm_json("reboot", 's', destroy ? "shutdown" : "reset", NULL),
                 error);
}

bool vm_can_sleep(struct vm *v, GError **error)
{
    auto_vm *keep = vm_ref(v);
    g_autoptr(JsonNode) n = vm_call(v, "query-current-machine", NULL, NULL);
    return vm_json_bool(vm_json_object(n), "wakeup-suspend-support") ||
           ruche_error(error, MANAGER_ERR_CONFIG, "machine '%s' could not be woken from sleep",
                       keep->name);
}

bool vm_wakeup(struct vm *v, GError **error)
{
    return vm_do(v, "system_wakeup", NULL, error);
}

/* Threads are pinned and put into groups with our rights: only the machine's own. */
static bool is_thread_of(const struct vm *v, int64_t tid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task/%" PRId64, (int)v->pid, tid);
    return tid > 0 && tid <= G_MAXINT && g_file_test(path, G_FILE_TEST_IS_DIR);
}

static void add_thread(const struct vm *v, GArray *list, int64_t number, int64_t tid)
{
    if (number >= 0 && number < VM_MAX_VCPUS && is_thread_of(v, tid))
        g_array_append_val(list,
                           ((struct vm_thread){.number = (unsigned)number, .tid = (pid_t)tid}));
}

bool vm_read_threads(struct vm *v, GError **error)
{
    g_autoptr(JsonNode) cpus = vm_call(v, "query-cpus-fast", NULL, error);
    if (!cpus)
        return false;
    g_autoptr(JsonNode) io = vm_call(v, "query-iothreads", NULL, error);
    if (!io)
        return false;
    g_array_set_size(v->vcpus, 0);
    g_array_set_size(v->iothreads, 0);
    JsonObject *o;
    for (guint i = 0; i < VM_MAX_VCPUS && (o = vm_json_at(vm_json_array(cpus), i)); i++)
        add_thread(v, v->vcpus, vm_json_int(o, "cpu-index", -1), vm_json_int(o, "thread-id", 0));
    for (guint i = 0; i < VM_MAX_VCPUS && (o = vm_json_at(vm_json_array(io), i)); i++) {
        const char *id = vm_json_string(o, "id"); /* "iothread3" */
        int64_t number =
            id && g_str_has_prefix(id, "iothread") ? g_ascii_strtoll(id + 8, NULL, 10) : -1;
        add_thread(v, v->iothreads, number, vm_json_int(o, "thread-id", 0));
    }
    return true;
}
