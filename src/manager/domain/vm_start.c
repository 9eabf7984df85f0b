/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From a description to a process whose guest stands before its first instruction.
 *
 * Cut off   The folder machines/UUID has a file "process" that the machine's process keeps locked
 * from before its first fork until its end, with its number in it, and a list of links to delete:
 * so whatever moment we are killed in, vm_clean() finds and ends what was begun.
 */
#include "manager/domain/vm_internal.h"

#include "base/fd.h"
#include "base/log.h"
#include "manager/domain/vm_args.h"
#include "manager/domain/vm_spawn.h"
#include "manager/node/node.h"
#include "manager/uuid.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define MAX_FILES 65536
#define PORTS     1000

/* ---- what the builder of the command line asks of the host ---- */

static int open_file(void *opaque, const char *path, int flags, GError **error)
{
    if (flags & O_CREAT) {
        g_autofree char *dir = g_path_get_dirname(path);
        g_mkdir_with_parents(dir, 0700);
    }
    int fd = open(path, flags | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0)
        ruche_error_errno(error, errno, "'%s' cannot be opened%s", path,
                          (flags & O_ACCMODE) == O_RDONLY ? "" : " for writing");
    return fd;
}

static int listen_at(void *opaque, const char *path, GError **error)
{
    return vm_listen(path, error);
}

static bool make_tap(void *opaque, struct xml_node *interface, unsigned queues, int *ret,
                     char **ret_name, GError **error)
{
    return vm_tap_make(opaque, interface, queues, ret, ret_name, error);
}

static bool port_is_free(unsigned port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_ANY)};
    int one = 1;
    autofd fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    return fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
}

static unsigned free_port(void *opaque, unsigned first, GError **error)
{
    for (unsigned port = first; port < first + PORTS; port++)
        if (port_is_free(port))
            return port;
    ruche_error(error, MANAGER_ERR_CONFIG, "all TCP ports from %u to %u are in use", first,
                first + PORTS - 1);
    return 0;
}

static int64_t now(void *opaque)
{
    return g_get_real_time() / G_USEC_PER_SEC;
}

static GBytes *find_secret(void *opaque, const struct xml_node *secret, enum secret_usage usage,
                           GError **error)
{
    g_autoptr(GBytes) value = secret_value_of(secret, usage, error);
    bool encoded = value && usage == SECRET_CEPH;
    return encoded ? secret_base64(value) : g_steal_pointer(&value);
}

const struct vm_args_ops vm_host_ops = {open_file, listen_at, make_tap,
                                        free_port, now,       find_secret};

/* ---- the process ---- */

struct launch {
    struct vm_spawn spawn;
    pid_t pid;
    GError *error;
};

static void launch_work(void *opaque)
{
    struct launch *l = opaque;
    l->pid = vm_spawn(&l->spawn, &l->error);
}

/* What programs of ours and QEMU look at, and nothing else of our environment. */
static char **environment(const struct vm *v)
{
    char **env = NULL;
    static const char *const kept[] = {"PATH",         "LANG",          "LD_LIBRARY_PATH",
                                       "ASAN_OPTIONS", "UBSAN_OPTIONS", "RUCHE_MODULES"};
    for (size_t i = 0; i < G_N_ELEMENTS(kept); i++)
        if (g_getenv(kept[i]))
            env = g_environ_setenv(env, kept[i], g_getenv(kept[i]), TRUE);
    env = g_environ_setenv(env, "HOME", v->dir, TRUE);
    return g_environ_setenv(env, "TMPDIR", "/tmp", TRUE);
}

static int64_t locked_bytes(const struct xml_node *domain)
{
    if (!xml_find(domain, "memoryBacking/locked"))
        return -1;
    uint64_t kib =
        xml_get_u64(domain, "memtune/hard_limit", xml_get_u64(domain, "memory", 0) + (1u << 20));
    return (int64_t)MIN(kib, G_MAXINT64 / 1024) * 1024;
}

static bool spawn(struct vm *v, struct vm_args *a, int log_fd, int lock_fd, GError **error)
{
    int groups[CGROUP_CONTROLLERS];
    g_auto(GStrv) env = environment(v);
    struct launch l = {
        .spawn = {.argv = (const char *const *)a->argv->pdata,
                  .env = (const char *const *)env,
                  .fds = (const int *)(void *)a->fds->data,
                  .fd_count = a->fds->len,
                  .log_fd = log_fd,
                  .lock_fd = lock_fd,
                  .cgroup_fds = groups,
                  .cgroup_count = cgroup_open_procs(v->cgroup, groups, G_N_ELEMENTS(groups)),
                  .user = manager.user,
                  .group = manager.group,
                  .max_files = MAX_FILES,
                  .locked_bytes = locked_bytes(a->domain)}};
    task_work(launch_work, &l);
    for (unsigned i = 0; i < l.spawn.cgroup_count; i++)
        close(groups[i]);
    if (l.error)
        g_propagate_error(error, l.error);
    v->pid = l.pid;
    v->start_ticks = l.pid ? vm_process_start(l.pid) : 0;
    return l.pid != 0 && vm_watch(v, error);
}

/* ---- the folder ---- */

static bool make_folder(struct vm *v, int *ret_lock, GError **error)
{
    g_autofree char *path = g_build_filename(v->dir, "process", NULL);
    if (g_mkdir_with_parents(v->dir, 0700) < 0)
        return ruche_error_errno(error, errno, "folder '%s'", v->dir);
    *ret_lock = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*ret_lock < 0 || flock(*ret_lock, LOCK_EX | LOCK_NB) < 0)
        return ruche_error_errno(error, errno, "machine '%s': '%s'", v->name, path);
    return true;
}

static void write_header(int log_fd, const struct vm_args *a)
{
    g_autoptr(GDateTime) t = g_date_time_new_now_utc();
    g_autofree char *when = g_date_time_format(t, "%Y-%m-%d %H:%M:%S+0000");
    g_autofree char *line = g_strjoinv(" ", (char **)a->argv->pdata);
    g_autofree char *text = g_strdup_printf("%s: starting %s\n", when, line);
    if (write(log_fd, text, strlen(text)) < 0)
        log_warn("the log of '%s' cannot be written: %s", a->name, g_strerror(errno));
}

/* ---- after the process is there ---- */

/* A machine that ended at once has said why in its log. */
static void explain(struct vm *v, off_t log_from, GError **error)
{
    g_autofree char *tail = vm_log_tail(v->name, log_from);
    g_prefix_error(error, "machine '%s' could not be started: %s%s", v->name, tail ? tail : "",
                   tail ? ": " : "");
}

/* The elements of consoles, serial ports and channels whose backend has this id. */
static void set_pty(struct xml_node *devices, const char *id, const char *path)
{
    static const char *const elements[] = {"serial", "console", "channel", "parallel"};
    for (size_t i = 0; i < G_N_ELEMENTS(elements); i++)
        for (struct xml_node *n = xml_find(devices, elements[i]); n; n = xml_next(n)) {
            g_autofree char *own = g_strconcat("char", xml_get_or(n, "alias@name", ""), NULL);
            if (strcmp(own, id) || !xml_is(n, "@type", "pty"))
                continue;
            xml_set(n, "source@path", path);
            if (!strcmp(elements[i], "console"))
                xml_set(n, "@tty", path);
        }
}

static bool read_ptys(struct vm *v, struct xml_node *domain, GError **error)
{
    g_autoptr(JsonNode) n = vm_call(v, "query-chardev", NULL, error);
    JsonObject *o;
    for (guint i = 0; n && (o = vm_json_at(vm_json_array(n), i)); i++) {
        const char *id = vm_json_string(o, "label"), *where = vm_json_string(o, "filename");
        const char *path =
            where ? strstr(where, "pty:/dev/pts/") : NULL; /* "disconnected:" may stand before */
        if (id && path)
            set_pty(xml_find(domain, "devices"), id, path + strlen("pty:"));
    }
    return n != NULL;
}

/* Keys are tried one after the other before a machine answers. */
static int start_ms(const struct xml_node *domain)
{
    unsigned keys = 0;
    for (const struct xml_node *d = xml_find(domain, "devices/disk"); d; d = xml_next(d))
        keys += xml_find(d, "encryption") || xml_find(d, "source/encryption");
    return VM_START_MS + (int)MIN(keys, 100) * VM_KEY_MS;
}

/* QEMU listens before it has read its options: an early end shows when its socket closes. */
static bool after_start(struct vm *v, struct xml_node *domain, GError **error)
{
    return vm_connect_monitor(v, start_ms(domain), error) && read_ptys(v, domain, error) &&
           vm_read_threads(v, error) && vm_tune_at_start(v, domain, error) &&
           vm_read_state(v, error);
}

/* ---- all of it ---- */

static bool start_process(struct vm *v, struct xml_node *domain, const char *program,
                          GError **error)
{
    struct vm_args a;
    autofd log_fd = -1, lock_fd = -1;
    struct stat st = {0};
    g_autofree char *console_log = vm_console_log_path(v->name);
    vm_args_init(&a, domain, v->ours);
    a.dir = v->dir;
    a.incoming = v->incoming;
    a.tls_dir = manager.tls_dir;
    a.tls_secret = manager.tls_secret;
    a.console_log = console_log;
    a.ops = &vm_host_ops;
    a.opaque = v;
    bool ok = make_folder(v, &lock_fd, error) && (log_fd = vm_log_open(v->name, error)) >= 0 &&
              vm_find_volumes(domain, error) && vm_find_chains(domain, error) &&
              vm_args_build(&a, program, error);
    if (ok) {
        write_header(log_fd, &a);
        fstat(log_fd, &st);
        ok = spawn(v, &a, log_fd, lock_fd, error);
    }
    vm_args_done(
        &a); /* our copies of what is passed: the machine's end is seen only without them */
    fd_close_keep_errno(fd_steal(&lock_fd));
    if (ok && !after_start(v, domain, error)) {
        explain(v, st.st_size, error);
        vm_explain_secrets(domain, error);
        return false;
    }
    return ok;
}

/* The tree of a running machine: all devices have names. */
static struct xml_node *named_copy(struct domain_def *def, GError **error)
{
    struct xml_node *copy = xml_copy(domain_def_tree(def));
    domain_def_shrink(def);
    auto_domain_def *named = domain_def_from_doc(copy, DEF_LIVE | DEF_STORED, error);
    return named ? xml_copy(domain_def_tree(named)) : NULL;
}

struct vm *vm_start(struct domain *d, bool incoming, struct domain_def **ret_live, GError **error)
{
    const struct domain_summary *s = &d->live->s;
    const struct emulator *e = node_emulator(s->emulator, s->arch, error);
    if (!e)
        return NULL;
    struct vm *v = vm_new(d);
    v->ours = e->ours;
    v->incoming = incoming;
    g_autofree char *program = g_strdup(e->path);
    auto_xml *domain = named_copy(d->live, error);
    v->cgroup = cgroup_new(vm_cgroup_name(v));
    if (!domain || !start_process(v, domain, program, error)) {
        vm_kill(v, false, NULL);
        vm_free(v);
        return NULL;
    }
    *ret_live = domain_def_from_doc(g_steal_pointer(&domain), DEF_LIVE | DEF_STORED, error);
    if (!*ret_live) {
        vm_kill(v, false, NULL);
        vm_free(v);
        return NULL;
    }
    vm_begin_reports(v);
    return v;
}
