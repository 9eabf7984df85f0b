/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The process: pid file, background, signals; see daemon.h. */
#include "vmm/daemon.h"

#include "base/fd.h"
#include "chardev/chardev.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- pid file ---- */

static char *pid_path;
static int pid_fd = -1;

/* The file may have been replaced between opening and locking it. */
static bool still_there(int fd, const char *path)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

bool pidfile_create(const char *path, GError **error)
{
    autofd fd = -1;
    for (int tries = 0; tries < 10; tries++) {
        fd_close_keep_errno(fd);
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0)
            return ruche_error_errno(error, errno, "-pidfile: '%s'", path);
        struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
            return ruche_error(error, RUCHE_ERR_BUSY,
                               "-pidfile: '%s' is held by another running process", path);
        if (still_there(fd, path))
            break;
    }
    g_autofree char *text = g_strdup_printf("%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
        int err = errno;
        unlink(path);
        return ruche_error_errno(error, err, "-pidfile: '%s'", path);
    }
    pid_path = g_canonicalize_filename(path, NULL);
    pid_fd = fd_steal(&fd);
    return true;
}

void pidfile_remove(void)
{
    if (pid_path && still_there(pid_fd, pid_path))
        unlink(pid_path);
    g_clear_pointer(&pid_path, g_free);
    fd_close_keep_errno(pid_fd);
    pid_fd = -1;
}

/* ---- background ---- */

static int ready_fd = -1;

/* The parent's end: its exit status is that of the start. */
static void wait_for_child(int fd, pid_t child)
{
    char ok = 0;
    ssize_t n;
    do
        n = read(fd, &ok, 1);
    while (n < 0 && errno == EINTR);
    if (n == 1 && ok == 'k')
        _exit(0);
    int status = 0;
    waitpid(child, &status, 0);
    _exit(WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 1);
}

bool daemon_start(GError **error)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return ruche_error_errno(error, errno, "-daemonize");
    pid_t child = fork();
    if (child < 0) {
        int err = errno;
        close(fds[0]);
        close(fds[1]);
        return ruche_error_errno(error, err, "-daemonize");
    }
    if (child > 0) {
        close(fds[1]);
        wait_for_child(fds[0], child);
    }
    close(fds[0]);
    ready_fd = fds[1];
    setsid();
    return true;
}

bool daemon_ready(GError **error)
{
    if (ready_fd < 0)
        return true;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || chdir("/") < 0)
        return ruche_error_errno(error, errno, "-daemonize");
    for (int fd = 0; fd <= 2; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
    if (write(ready_fd, "k", 1) != 1)
        return ruche_error_errno(error, errno, "-daemonize: the parent is gone");
    close(ready_fd);
    ready_fd = -1;
    return true;
}

/* ---- signals ---- */

static const int fatal_signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGQUIT };
static int signal_fd = -1;
static struct loop_fd signal_watch;
static void (*signal_fn)(void *opaque, int signal, int pid);

static void signals_ready(void *opaque, uint32_t events)
{
    struct signalfd_siginfo info;
    while (read(signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCONT)
            chardev_terminal_resume();
        else
            signal_fn(opaque, (int)info.ssi_signo, (int)info.ssi_pid);
    }
}

static void on_fatal(int signal)
{
    chardev_terminal_restore();
    raise(signal); /* SA_RESETHAND: the default action now */
}

bool signals_init(struct loop *l, void (*fn)(void *opaque, int signal, int pid), void *opaque,
                  GError **error)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCONT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk: -EFBIG */
    for (size_t i = 0; i < G_N_ELEMENTS(fatal_signals); i++) {
        struct sigaction old,
            new = { .sa_handler = on_fatal, .sa_flags = SA_RESETHAND | SA_NODEFER };
        if (sigaction(fatal_signals[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
            sigaction(fatal_signals[i], &new, NULL);
    }
    signal_fn = fn;
    signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    int err = signal_fd < 0
                  ? -errno
                  : loop_fd_add(l, &signal_watch, signal_fd, EPOLLIN, signals_ready, opaque);
    return err == 0 || ruche_error_errno(error, -err, "cannot watch signals");
}

void signals_done(void)
{
    loop_fd_remove(&signal_watch);
    fd_close_keep_errno(signal_fd);
    signal_fd = -1;
}
