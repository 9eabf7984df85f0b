/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruched: configuration, one instance per runtime folder, the core, its front doors, and the loop
 * until a signal.
 *
 * Thread    The main thread is the loop thread.
 * Exit      0 after SIGTERM or SIGINT (machines go on), 1 when something could not be started, 2
 * for wrong options.
 */
#include "base/log.h"
#include "manager/launch/launch.h"
#include "manager/manager.h"
#include "manager/network/network.h"
#include "ruched/config.h"

#include "libvirt/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define STOP_TIMEOUT_MS 5000

/* Before 2.76 GLib has an allocator of its own, which never gives back what it took once, and begins to use it before
 * main(): what is said here, before all libraries, it obeys. */
static void before_libraries(int argc, char **argv, char **environment)
{
    G_GNUC_BEGIN_IGNORE_DEPRECATIONS
    g_slice_set_config(G_SLICE_CONFIG_ALWAYS_MALLOC, true);
    G_GNUC_END_IGNORE_DEPRECATIONS
}
__attribute__((section(".preinit_array"),
               used)) static void (*const preinit)(int, char **, char **) = before_libraries;

/* ---- to the background ---- */

/* The parent stays until the child says that it is ready, and ends with its status. Returns the
 * child's end. */
static int go_background(void)
{
    int ready[2];
    char status = 1;
    if (pipe2(ready, O_CLOEXEC) < 0) {
        log_error("pipe: %s", strerror(errno));
        exit(1);
    }
    pid_t child = fork();
    if (child < 0) {
        log_error("fork: %s", strerror(errno));
        exit(1);
    }
    if (child) {
        close(ready[1]);
        if (read(ready[0], &status, 1) < 1)
            status = 1;
        _exit(status);
    }
    close(ready[0]);
    setsid();
    return ready[1];
}

/* From here on the log is a file, and nobody's terminal or pipe is held open. */
static void leave_terminal(int ready)
{
    g_autofree char *path = g_build_filename(manager.log_dir, "ruched.log", NULL);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC),
        log = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    const char status = 0;
    dup2(null, 0);
    dup2(null, 1);
    dup2(log >= 0 ? log : null, 2);
    if (null > 2)
        close(null);
    if (log > 2)
        close(log);
    log_set_timestamps(true);
    if (write(ready, &status, 1) < 0)
        log_warn("who started us is gone: %s", strerror(errno));
    close(ready);
}

/* systemd's: Type=notify. */
static void notify_ready(void)
{
    const char *path = g_getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;
    if (!len || len >= sizeof(to.sun_path))
        return;
    memcpy(to.sun_path, path, len);
    if (*path == '@')
        to.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sendto(fd, "READY=1", 7, 0, (struct sockaddr *)&to,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
        log_warn("%s: %s", path, strerror(errno));
    close(fd);
}

/* ---- one of us ---- */

/* The runtime folder's lock, held as long as we live; its file says who we are. */
static bool be_the_one(GError **error)
{
    g_autofree char *path = g_build_filename(manager.runtime_dir, "ruched.pid", NULL);
    if (g_mkdir_with_parents(manager.runtime_dir, manager_dir_mode()) < 0)
        return ruche_error_errno(error, errno, "folder %s", manager.runtime_dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return ruche_error_errno(error, errno, "%s", path);
    /* A lock of the process, which children that are on their way to another program do not share. */
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_SETLK, &lock) < 0) {
        close(fd);
        return ruche_error(error, RUCHE_ERR_BUSY, "another ruched looks after %s already; see %s",
                           manager.runtime_dir, path);
    }
    if (ftruncate(fd, 0) < 0 || dprintf(fd, "%d\n", (int)getpid()) < 0)
        return ruche_error_errno(error, errno, "%s", path);
    return true;
}

static void raise_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

/* ---- life ---- */

/* Somebody may have changed by hand what networks need of the host. */
static gboolean on_hangup(gpointer opaque)
{
    networks_refresh();
    return G_SOURCE_CONTINUE;
}

static gboolean on_signal(gpointer loop)
{
    g_main_loop_quit(loop);
    return G_SOURCE_CONTINUE;
}

static bool start(struct config *c, GError **error)
{
    peer_register(); /* a migration that was under way may ask its peer */
    if (!be_the_one(error) || !manager_start(error))
        return false;
    launch_clean();
    if (!web_start(&c->web, error)) {
        manager_stop(0);
        return false;
    }
    if (libvirt_server_start(&c->libvirt, error))
        return true;
    web_stop();
    manager_stop(0);
    return false;
}

static int run(struct config *c)
{
    g_autoptr(GError) error = NULL;
    int ready = c->daemon ? go_background() : -1;
    g_autoptr(GMainLoop) loop = g_main_loop_new(NULL, false);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    raise_limits();
    umask(0022);
    if (!start(c, &error)) {
        log_error("%s", error->message);
        return 1;
    }
    g_unix_signal_add(SIGHUP, on_hangup, NULL);
    g_unix_signal_add(SIGTERM, on_signal, loop);
    g_unix_signal_add(SIGINT, on_signal, loop);
    if (ready >= 0)
        leave_terminal(ready);
    notify_ready();
    g_main_loop_run(loop);
    libvirt_server_stop();
    web_stop();
    manager_stop(STOP_TIMEOUT_MS);
    return 0;
}

/* Options, settings, then the daemon; returns the exit status. */
static int configured_run(struct config *c, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    if (!config_options(c, argc, argv, &error)) {
        log_error("%s", error->message);
        return 2;
    }
    if (c->version) {
        printf("ruched %s\n", RUCHE_VERSION);
        return 0;
    }
    if (!config_read(c, &error)) {
        log_error("%s", error->message);
        return 2;
    }
    return run(c);
}

int main(int argc, char **argv)
{
    struct config c = {0};
    log_set_program("ruched");
    int status = configured_run(&c, argc, argv);
    config_done(&c);
    manager_config_done();
    return status;
}
