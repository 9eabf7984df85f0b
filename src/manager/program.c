/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Running a program to its end from a task: a thread feeds it, collects its output and watches the
 * clock.
 *
 * Trust     Output is bounded; a program that says more, or does not end in time, is killed.
 */
#include "base/fd.h"
#include "manager/error.h"
#include "manager/task.h"

#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CANCEL_LOOK_MS 100       /* how often a cancellable program's flag is looked at */
#define END_WAIT_MS    3000      /* from SIGTERM to SIGKILL */
#define PIPE_BYTES     (1 << 20) /* what everybody may have */

enum { TO_STDIN, FROM_STDOUT, FROM_STDERR, PROCESS, FDS };

struct run {
    const char *const *argv;
    const char *in; /* what is left for its standard input */
    size_t in_left, max_bytes;
    int timeout_ms;
    const atomic_bool *cancelled; /* may be NULL */
    _Atomic uint64_t *progress;   /* may be NULL */
    GPid pid;
    struct pollfd fds[FDS];
    GString *out[2]; /* standard output, standard error */
    int status;
    GError *error;
    bool ok;
};

static void close_fd(struct pollfd *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
}

/* In the child: a program that nobody waits for any more ends with us. The thread that starts it
 * waits for it, so that the signal comes with the process's end and not before. */
static void child_setup(gpointer opaque)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    if (getppid() != *(const pid_t *)opaque)
        _exit(127);
}

/* QEMU that is told to quit loses what its pipe has no room for, and we need not be in time to read: where much may
 * come, there is room for much. */
static bool make_output(const struct run *r, int ret[2], GError **error)
{
    if (!g_unix_open_pipe(ret, FD_CLOEXEC, error))
        return false;
    if (r->max_bytes > PIPE_BYTES)
        fcntl(ret[0], F_SETPIPE_SZ, PIPE_BYTES);
    return true;
}

static bool spawn(struct run *r)
{
    pid_t us = getpid();
    int in = -1, out[2] = {-1, -1}, err = -1;
    g_autoptr(GError) e = NULL;
    GSpawnFlags flags = G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_SEARCH_PATH;
    if (!r->in)
        flags |= G_SPAWN_STDIN_FROM_DEV_NULL;
    bool ok = make_output(r, out, &e) &&
              g_spawn_async_with_pipes_and_fds(NULL, r->argv, NULL, flags, child_setup, &us, -1,
                                               out[1], -1, NULL, NULL, 0, &r->pid,
                                               r->in ? &in : NULL, NULL, &err, &e);
    fd_close_keep_errno(out[1]);
    r->fds[FROM_STDOUT] = (struct pollfd){.fd = out[0], .events = POLLIN};
    if (!ok) {
        close_fd(&r->fds[FROM_STDOUT]);
        return ruche_error(&r->error, RUCHE_ERR_NOT_FOUND, "%s could not be run: %s", r->argv[0],
                           e->message);
    }
    if (in >= 0)
        g_unix_set_fd_nonblocking(in, true, NULL);
    g_unix_set_fd_nonblocking(out[0], true, NULL);
    g_unix_set_fd_nonblocking(err, true, NULL);
    int process = syscall(SYS_pidfd_open, r->pid, 0);
    r->fds[TO_STDIN] = (struct pollfd){.fd = in, .events = POLLOUT};
    r->fds[FROM_STDERR] = (struct pollfd){.fd = err, .events = POLLIN};
    r->fds[PROCESS] = (struct pollfd){.fd = process, .events = POLLIN};
    return process >= 0 ||
           ruche_error_errno(&r->error, errno, "%s: no descriptor of the process", r->argv[0]);
}

static void feed(struct run *r)
{
    ssize_t n = write(r->fds[TO_STDIN].fd, r->in, r->in_left);
    if (n > 0) {
        r->in += n;
        r->in_left -= n;
    }
    if (!r->in_left || (n < 0 && errno != EAGAIN && errno != EINTR))
        close_fd(&r->fds[TO_STDIN]);
}

/* "    (12.34/100%)" and a carriage return, again and again: the last one counts, and no more is
 * kept. */
static void note_progress(struct run *r, GString *text)
{
    const char *open = strrchr(text->str, '(');
    double percent = open ? g_ascii_strtod(open + 1, NULL) : 0;
    if (!open || !strchr(open, ')'))
        return;
    if (percent > 0 && percent <= 100)
        atomic_store(r->progress, (uint64_t)(percent * 100));
    g_string_truncate(text, 0);
}

/* Reads what is there. False: more than it may say. */
static bool collect(struct run *r, int which)
{
    struct pollfd *p = &r->fds[which];
    GString *into = r->out[which - FROM_STDOUT];
    char buf[4096];
    while (p->fd >= 0) {
        ssize_t n = read(p->fd, buf, sizeof(buf));
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (n <= 0) {
            close_fd(p);
            return true;
        }
        if (into->len + n > r->max_bytes)
            return ruche_error(&r->error, RUCHE_ERR_NO_SPACE, "%s said more than %zu bytes",
                               r->argv[0], r->max_bytes);
        g_string_append_len(into, buf, n);
        if (r->progress && which == FROM_STDOUT)
            note_progress(r, into);
    }
    return true;
}

/* Until the process has ended; what others hold its pipes open for is not waited for. */
static bool attend(struct run *r)
{
    gint64 deadline = g_get_monotonic_time() + r->timeout_ms * G_GINT64_CONSTANT(1000);
    for (;;) {
        gint64 left_ms = r->timeout_ms < 0 ? -1 : (deadline - g_get_monotonic_time() + 999) / 1000;
        if (r->cancelled && atomic_load(r->cancelled))
            return ruche_error(&r->error, MANAGER_ERR_ABORTED, "%s was ended, as it was asked for",
                               r->argv[0]);
        if (r->timeout_ms >= 0 && left_ms <= 0)
            return ruche_error(&r->error, MANAGER_ERR_TIMEOUT, "%s did not end within %d ms",
                               r->argv[0], r->timeout_ms);
        if (r->cancelled && (left_ms < 0 || left_ms > CANCEL_LOOK_MS))
            left_ms = CANCEL_LOOK_MS;
        if (poll(r->fds, FDS, (int)left_ms) < 0 && errno != EINTR)
            return ruche_error_errno(&r->error, errno, "%s: poll", r->argv[0]);
        if (r->fds[TO_STDIN].fd >= 0 && r->fds[TO_STDIN].revents)
            feed(r);
        if (!collect(r, FROM_STDOUT) || !collect(r, FROM_STDERR))
            return false;
        if (r->fds[PROCESS].revents)
            return collect(r, FROM_STDOUT) && collect(r, FROM_STDERR);
    }
}

/* The program and those that it started: asked first, so that they take away what is half made. */
static void end_group(struct run *r)
{
    gint64 deadline = g_get_monotonic_time() + END_WAIT_MS * G_GINT64_CONSTANT(1000);
    struct pollfd process = {.fd = r->fds[PROCESS].fd, .events = POLLIN};
    kill(-r->pid, SIGTERM);
    while (process.fd >= 0 && g_get_monotonic_time() < deadline &&
           poll(&process, 1, END_WAIT_MS / 10) == 0)
        ;
    kill(-r->pid, SIGKILL);
    kill(r->pid, SIGKILL);
}

static void work(void *opaque)
{
    struct run *r = opaque;
    if (!spawn(r) && !r->pid)
        return;
    r->ok = !r->error && attend(r);
    if (!r->ok)
        end_group(r);
    while (waitpid(r->pid, &r->status, 0) < 0 && errno == EINTR)
        ;
    for (int i = 0; i < FDS; i++)
        close_fd(&r->fds[i]);
}

/* The last line that is not empty. */
static const char *last_line(GString *text)
{
    while (text->len && g_ascii_isspace(text->str[text->len - 1]))
        g_string_truncate(text, text->len - 1);
    char *nl = strrchr(text->str, '\n');
    if (nl && g_str_has_prefix(nl + 1, "Refer to ")) { /* mount.cifs: why stands before */
        g_string_truncate(text, (gsize)(nl - text->str));
        nl = strrchr(text->str, '\n');
    }
    return nl ? nl + 1 : text->str;
}

/* Its sentence begins with its name, as those of ruche-img do: it says all that there is to say. */
static bool names_itself(const char *program, const char *said)
{
    g_autofree char *name = g_path_get_basename(program);
    return g_str_has_prefix(said, name) && said[strlen(name)] == ':';
}

static bool judge(struct run *r, GError **error)
{
    const char *said = last_line(r->out[1]);
    if (!r->ok) {
        g_propagate_error(error, g_steal_pointer(&r->error));
        return false;
    }
    if (WIFSIGNALED(r->status))
        return ruche_error(error, RUCHE_ERR_IO, "%s was ended by signal %d%s%s", r->argv[0],
                           WTERMSIG(r->status), *said ? ": " : "", said);
    if (WEXITSTATUS(r->status) && names_itself(r->argv[0], said))
        return ruche_error(error, RUCHE_ERR_IO, "%s", said);
    if (WEXITSTATUS(r->status))
        return ruche_error(error, RUCHE_ERR_IO, "%s failed with status %d%s%s", r->argv[0],
                           WEXITSTATUS(r->status), *said ? ": " : "", said);
    return true;
}

bool task_run_program(const char *const *argv, const char *stdin_text, size_t max_bytes,
                      int timeout_ms, char **ret_out, GError **error)
{
    return task_run_program_until(NULL, argv, stdin_text, max_bytes, timeout_ms, ret_out, error);
}

static bool run(struct run *r, char **ret_out, GError **error)
{
    r->out[0] = g_string_new(NULL);
    r->out[1] = g_string_new(NULL);
    for (int i = 0; i < FDS; i++)
        r->fds[i].fd = -1;
    task_work_long(work, r);
    bool ok = judge(r, error);
    if (ok && ret_out)
        *ret_out = g_string_free(g_steal_pointer(&r->out[0]), false);
    else
        g_string_free(r->out[0], true);
    g_string_free(r->out[1], true);
    return ok;
}

bool task_run_program_until(const atomic_bool *cancelled, const char *const *argv,
                            const char *stdin_text, size_t max_bytes, int timeout_ms,
                            char **ret_out, GError **error)
{
    struct run r = {
        .argv = argv,
        .in = stdin_text,
        .in_left = stdin_text ? strlen(stdin_text) : 0,
        .max_bytes = max_bytes,
        .timeout_ms = timeout_ms,
        .cancelled = cancelled,
    };
    return run(&r, ret_out, error);
}

bool task_run_program_watched(const atomic_bool *cancelled, _Atomic uint64_t *progress,
                              const char *const *argv, size_t max_bytes, GError **error)
{
    struct run r = {.argv = argv,
                    .max_bytes = max_bytes,
                    .timeout_ms = -1,
                    .cancelled = cancelled,
                    .progress = progress};
    return run(&r, NULL, error);
}
