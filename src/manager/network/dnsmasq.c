/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dnsmasq of a network under our supervision.
 *
 * It puts itself into the background when everything that can fail is done, so that its complaint
 * is our error; then it is nobody's child and lives on when the manager ends. Its file of leases is
 * watched: what changes in it becomes an event.
 *
 * Thread    The loop thread; programs and files on workers.
 * Again     One that dies is started again, RESTARTS times in RESTART_WINDOW_S; then it stays away
 * until the network is refreshed or started.
 */
#include "base/fd.h"
#include "base/log.h"
#include "manager/network/network_priv.h"
#include "manager/store.h"

#include <errno.h>
#include <fcntl.h>
#include <gio/gio.h>
#include <glib-unix.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define START_MS         30000
#define END_MS           3000
#define RESTARTS         5
#define RESTART_WINDOW_S 60
#define ANSWER_MAX       65536

struct network_daemon {
    struct network *n; /* borrowed: it has us */
    pid_t pid;
    int pidfd; /* -1: it does not run */
    guint source, again;
    bool stopping;
    int64_t died_us[RESTARTS];
    unsigned deaths;
    GFileMonitor *monitor;
    GPtrArray *leases; /* as they were last told */
};

static int pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* Its user, after the start: one of its own, or nobody's. */
static const char *daemon_user(void)
{
    static const char *const users[] = {"dnsmasq", "nobody"};
    if (geteuid() != 0)
        return NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(users); i++)
        if (getpwnam(users[i]))
            return users[i];
    return NULL;
}

/* ---- leases ---- */

static guint hash_of(gconstpointer p)
{
    const struct network_lease *l = p;
    return g_str_hash(l->ip) * 31 + (l->mac ? g_str_hash(l->mac) : 0);
}

static gboolean are_equal(gconstpointer a, gconstpointer b)
{
    const struct network_lease *l = a, *o = b;
    return !strcmp(l->ip, o->ip) && !g_strcmp0(l->mac, o->mac);
}

enum { LEASE_ADDED, LEASE_GONE };

/* Those of the list that the other has not. */
static void tell_leases(const struct network *n, const GPtrArray *list, const GPtrArray *other,
                        int what)
{
    g_autoptr(GHashTable) others = g_hash_table_new(hash_of, are_equal);
    for (unsigned i = 0; i < other->len; i++)
        g_hash_table_add(others, other->pdata[i]);
    for (unsigned i = 0; i < list->len; i++) {
        const struct network_lease *l = list->pdata[i];
        if (g_hash_table_contains(others, l))
            continue;
        struct event e = {.class = EVENT_NETWORK,
                          .id = 1,
                          .name = n->name,
                          .uuid = n->uuid,
                          .object_id = -1,
                          .event = what,
                          .text = {l->ip, l->mac, l->hostname}};
        event_emit(&e);
    }
}

static void leases_changed(GFileMonitor *monitor, GFile *file, GFile *other,
                           GFileMonitorEvent event, gpointer opaque)
{
    struct network_daemon *m = opaque;
    g_autoptr(GPtrArray) before = m->leases, now = network_lease_list(m->n);
    m->leases = g_ptr_array_ref(now);
    if (now == before)
        return;
    tell_leases(m->n, before, now, LEASE_GONE);
    tell_leases(m->n, now, before, LEASE_ADDED);
}

static void watch_leases(struct network_daemon *m)
{
    g_autofree char *path = network_run_path(m->n->name, "leases");
    g_autoptr(GFile) file = g_file_new_for_path(path);
    m->leases = network_lease_list(m->n);
    m->monitor = g_file_monitor_file(file, G_FILE_MONITOR_NONE, NULL, NULL);
    if (m->monitor)
        g_signal_connect(m->monitor, "changed", G_CALLBACK(leases_changed), m);
}

/* ---- the process ---- */

/* Is that process a dnsmasq of this file? Names of processes come and go: the file is ours alone.
 */
static bool is_ours(pid_t pid, const char *conf)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/cmdline", (int)pid), *text = NULL;
    g_autofree char *wanted = g_strconcat("--conf-file=", conf, NULL);
    gsize len = 0;
    if (!g_file_get_contents(path, &text, &len, NULL))
        return false;
    for (gsize i = 0; i < len; i += strlen(text + i) + 1)
        if (!strcmp(text + i, wanted))
            return true;
    return false;
}

/* All processes of that file; a start that was cut off may not have written its number yet. */
static void find_processes(const char *conf, GArray *ret)
{
    g_autoptr(GDir) dir = g_dir_open("/proc", 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        pid_t pid = (pid_t)g_ascii_strtoll(name, NULL, 10);
        if (pid > 0 && is_ours(pid, conf))
            g_array_append_val(ret, pid);
    }
}

static void wait_end(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    if (pidfd >= 0 && poll(&p, 1, END_MS) == 0) {
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        poll(&p, 1, END_MS);
    }
}

static void kill_all(void *opaque)
{
    const char *conf = opaque;
    g_autoptr(GArray) pids = g_array_new(FALSE, FALSE, sizeof(pid_t));
    find_processes(conf, pids);
    for (unsigned i = 0; i < pids->len; i++)
        kill(g_array_index(pids, pid_t, i), SIGTERM);
    for (unsigned i = 0; i < pids->len; i++) {
        autofd fd = pidfd(g_array_index(pids, pid_t, i));
        wait_end(fd);
    }
}

/* The one that we watch. Takes the descriptor of the process. */
static void end_one(void *opaque)
{
    const int *fd = opaque;
    syscall(SYS_pidfd_send_signal, *fd, SIGTERM, NULL, 0);
    wait_end(*fd);
    close(*fd);
}

static void restart_task(void *opaque);

static gboolean restart(gpointer opaque)
{
    struct network_daemon *m = opaque;
    m->again = 0;
    task_start(restart_task, network_ref(m->n));
    return G_SOURCE_REMOVE;
}

/* May it be started once more? */
static bool count_death(struct network_daemon *m)
{
    int64_t now = g_get_monotonic_time(), *oldest = &m->died_us[m->deaths++ % RESTARTS];
    bool often = m->deaths > RESTARTS && now - *oldest < RESTART_WINDOW_S * G_USEC_PER_SEC;
    *oldest = now;
    return !often;
}

static gboolean ended(int fd, GIOCondition condition, gpointer opaque)
{
    struct network_daemon *m = opaque;
    m->source = 0;
    fd_close_keep_errno(m->pidfd);
    m->pidfd = -1;
    if (m->stopping)
        return G_SOURCE_REMOVE;
    bool again = count_death(m);
    log_warn("network '%s': dnsmasq (process %d) ended by itself; %s", m->n->name, (int)m->pid,
             again
                 ? "it is started again"
                 : "it did so too often and stays away until the network is refreshed or started");
    if (again)
        m->again = g_timeout_add(100, restart, m);
    return G_SOURCE_REMOVE;
}

static bool watch(struct network_daemon *m, pid_t pid)
{
    int fd = pidfd(pid);
    if (fd < 0)
        return false;
    m->pid = pid;
    m->pidfd = fd;
    m->source = g_unix_fd_add(fd, G_IO_IN, ended, m);
    return true;
}

static pid_t read_pid(const struct network *n)
{
    g_autofree char *path = network_run_path(n->name, "pid"),
                    *conf = network_run_path(n->name, "conf");
    g_autofree char *text = store_read(path, 64, NULL);
    pid_t pid = text ? (pid_t)g_ascii_strtoll(text, NULL, 10) : 0;
    return pid > 0 && is_ours(pid, conf) ? pid : 0;
}

static bool launch(struct network_daemon *m, GError **error)
{
    g_autofree char *conf = network_run_path(m->n->name, "conf"),
                    *option = g_strconcat("--conf-file=", conf, NULL);
    g_autofree char *path = g_find_program_in_path("dnsmasq");
    const char *argv[] = {path ? path : "/usr/sbin/dnsmasq", option, NULL};
    g_autoptr(GError) inner = NULL;
    if (!task_run_program(argv, NULL, ANSWER_MAX, START_MS, NULL, &inner)) {
        bool missing = !path && access(argv[0], X_OK) < 0;
        task_work(kill_all, conf);
        return missing ? ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                                     "network '%s': dnsmasq is not installed (Debian: apt install "
                                     "dnsmasq-base; Fedora, Arch: "
                                     "dnsmasq)",
                                     m->n->name)
                       : ruche_error(error, inner->code, "network '%s': %s", m->n->name,
                                     inner->message);
    }
    pid_t pid = read_pid(m->n);
    return (pid && watch(m, pid)) ||
           ruche_error(error, RUCHE_ERR_IO, "network '%s': dnsmasq was started but does not run",
                       m->n->name);
}

static void restart_task(void *opaque)
{
    struct network *n = opaque;
    g_autoptr(GError) error = NULL;
    fiber_mutex_lock(&n->lock);
    struct network_daemon *m = n->daemon;
    if (m && n->active && m->pidfd < 0 && !m->stopping && !launch(m, &error)) {
        log_warn("%s", error->message);
        if (count_death(m))
            m->again = g_timeout_add_seconds(1, restart, m);
    }
    fiber_mutex_unlock(&n->lock);
    network_unref(n);
}

/* ---- of a network ---- */

static void unwatch(struct network_daemon *m)
{
    g_clear_handle_id(&m->source, g_source_remove);
    g_clear_handle_id(&m->again, g_source_remove);
    if (m->pidfd >= 0)
        close(m->pidfd);
    m->pidfd = -1;
}

void network_daemon_forget(struct network *n)
{
    struct network_daemon *m = n->daemon;
    if (!m)
        return;
    n->daemon = NULL;
    unwatch(m);
    if (m->monitor) {
        g_signal_handlers_disconnect_by_data(m->monitor, m);
        g_object_unref(m->monitor);
    }
    g_clear_pointer(&m->leases, g_ptr_array_unref);
    g_free(m);
}

static bool write_conf(const struct network *n, const struct network_def *d, GError **error)
{
    g_autofree char *conf = network_run_path(n->name, "conf"),
                    *pid = network_run_path(n->name, "pid"),
                    *leases = network_run_path(n->name, "leases");
    g_autofree char *text = network_dnsmasq_conf(d, pid, leases, daemon_user());
    return store_write_volatile(conf, text, 0644, error);
}

static struct network_daemon *daemon_of(struct network *n)
{
    if (!n->daemon) {
        n->daemon = g_new0(struct network_daemon, 1);
        n->daemon->n = n;
        n->daemon->pidfd = -1;
    }
    return n->daemon;
}

bool network_daemon_start(struct network *n, const struct network_def *d, GError **error)
{
    network_daemon_stop(n);
    if (!network_dnsmasq_needed(d))
        return true;
    struct network_daemon *m = daemon_of(n);
    if (!write_conf(n, d, error) || !launch(m, error)) {
        network_daemon_forget(n);
        return false;
    }
    watch_leases(m);
    return true;
}

void network_daemon_stop(struct network *n)
{
    g_autofree char *conf = network_run_path(n->name, "conf"),
                    *pid = network_run_path(n->name, "pid");
    if (n->daemon)
        n->daemon->stopping = true;
    int fd = n->daemon && n->daemon->pidfd >= 0 ? fcntl(n->daemon->pidfd, F_DUPFD_CLOEXEC, 3) : -1;
    if (fd >= 0)
        task_work(end_one, &fd);
    else if (access(conf, F_OK) == 0) /* without its file there is none */
        task_work(kill_all, conf);
    network_daemon_forget(n);
    g_unlink(conf);
    g_unlink(pid);
}

bool network_daemon_find(struct network *n, const struct network_def *d, GError **error)
{
    g_autofree char *conf = network_run_path(n->name, "conf");
    g_autofree char *pid_path = network_run_path(n->name, "pid"),
                    *leases = network_run_path(n->name, "leases");
    g_autofree char *wanted = network_dnsmasq_conf(d, pid_path, leases, daemon_user());
    g_autofree char *have = store_read(conf, NETWORK_STORED_MAX, NULL);
    if (n->daemon && n->daemon->pidfd >= 0 && !g_strcmp0(have, wanted))
        return true;
    pid_t pid = !g_strcmp0(have, wanted) ? read_pid(n) : 0;
    if (!pid)
        return network_daemon_start(n, d, error);
    network_daemon_forget(n);
    struct network_daemon *m = daemon_of(n);
    if (!watch(m, pid))
        return network_daemon_start(n, d, error);
    watch_leases(m);
    return true;
}
