/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Starting a machine's process; see vm_spawn.h.
 *
 * Two forks: the first child starts the second, tells us its number and ends, so that init takes
 * the second over. Between fork and exec only system calls are made, as other threads of ours may
 * have held any lock. What fails there comes back over a pipe that exec closes.
 */
#include "manager/domain/vm_spawn.h"

#include "base/fd.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define MAX_GROUPS 64

enum stage {
    STAGE_PID,
    STAGE_FORK,
    STAGE_CGROUP,
    STAGE_FILES,
    STAGE_LIMITS,
    STAGE_USER,
    STAGE_EXEC
};
static const char *const stage_words[] = {
    [STAGE_FORK] = "a process cannot be made",
    [STAGE_CGROUP] = "its control group cannot be entered",
    [STAGE_FILES] = "descriptors cannot be passed",
    [STAGE_LIMITS] = "its limits cannot be set",
    [STAGE_USER] = "its user cannot be taken",
    [STAGE_EXEC] = "it cannot be executed",
};

/* What comes over the pipe: the process number first, then perhaps why it failed. */
struct report {
    enum stage stage;
    int value; /* number or errno */
};

struct identity {
    bool change;
    uid_t uid;
    gid_t gid;
    gid_t groups[MAX_GROUPS];
    int group_count;
};

static bool find_identity(const struct vm_spawn *s, struct identity *ret, GError **error)
{
    *ret = (struct identity){0};
    if (!s->user || geteuid() != 0)
        return true;
    char buf[16384];
    struct passwd pw, *user = NULL;
    struct group gr, *group = NULL;
    if (getpwnam_r(s->user, &pw, buf, sizeof(buf), &user) || !user)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "machines are to run as user '%s', whom this host does not know",
                           s->user);
    ret->uid = user->pw_uid;
    ret->gid = user->pw_gid;
    if (s->group && (getgrnam_r(s->group, &gr, buf, sizeof(buf), &group) || !group))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "machines are to run as group '%s', which this host does not have",
                           s->group);
    if (group)
        ret->gid = group->gr_gid;
    ret->change = ret->uid != 0;
    ret->group_count = MAX_GROUPS;
    if (getgrouplist(s->user, ret->gid, ret->groups, &ret->group_count) < 0)
        ret->group_count = MAX_GROUPS;
    return true;
}

/* ---- in the children: system calls only ---- */

static void G_GNUC_NORETURN give_up(int pipe_fd, enum stage stage)
{
    struct report r = {stage, errno};
    if (write(pipe_fd, &r, sizeof(r)) < 0)
        _exit(126);
    _exit(127);
}

static void plain_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Each to its number; first all go out of the way. */
static bool place_files(const struct vm_spawn *s, int *pipe_fd)
{
    int moved[VM_MAX_FDS + 1], count = (int)s->fd_count,
                               null = open("/dev/null", O_RDONLY | O_CLOEXEC),
                               above = VM_FIRST_FD + count + 1;
    int log = fcntl(s->log_fd, F_DUPFD_CLOEXEC, above), in = fcntl(null, F_DUPFD_CLOEXEC, above);
    *pipe_fd = fcntl(*pipe_fd, F_DUPFD_CLOEXEC, above);
    for (int i = 0; i <= count; i++)
        if ((moved[i] = fcntl(i < count ? s->fds[i] : s->lock_fd, F_DUPFD_CLOEXEC, above)) < 0)
            return false;
    for (int i = 0; i <= count; i++)
        if (dup2(moved[i], VM_FIRST_FD + i) < 0)
            return false;
    return dup2(in, 0) == 0 && dup2(log, 1) == 1 && dup2(log, 2) == 2 && *pipe_fd >= 0;
}

/* Our number as text: printf() may take locks. */
static bool write_number(int fd)
{
    char text[16];
    size_t at = sizeof(text);
    text[--at] = '\n';
    for (pid_t n = getpid(); n; n /= 10)
        text[--at] = (char)('0' + n % 10);
    return pwrite(fd, text + at, sizeof(text) - at, 0) == (ssize_t)(sizeof(text) - at);
}

static bool set_limits(const struct vm_spawn *s)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return false;
    files.rlim_cur = files.rlim_max == RLIM_INFINITY || files.rlim_max >= s->max_files
                         ? s->max_files
                         : files.rlim_max;
    struct rlimit locked = {.rlim_cur = (rlim_t)s->locked_bytes,
                            .rlim_max = (rlim_t)s->locked_bytes};
    return setrlimit(RLIMIT_NOFILE, &files) == 0 &&
           (s->locked_bytes < 0 || setrlimit(RLIMIT_MEMLOCK, &locked) == 0 || errno == EPERM);
}

static bool take_identity(const struct identity *id)
{
    if (!id->change)
        return true;
    return setgroups(id->group_count, id->groups) == 0 &&
           setresgid(id->gid, id->gid, id->gid) == 0 && setresuid(id->uid, id->uid, id->uid) == 0 &&
           prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

static void G_GNUC_NORETURN become(const struct vm_spawn *s, const struct identity *id, int pipe_fd)
{
    plain_signals();
    if (!write_number(s->lock_fd))
        give_up(pipe_fd, STAGE_FILES);
    for (unsigned i = 0; i < s->cgroup_count; i++)
        if (write(s->cgroup_fds[i], "0", 1) < 0)
            give_up(pipe_fd, STAGE_CGROUP);
    if (!place_files(s, &pipe_fd))
        give_up(pipe_fd, STAGE_FILES);
    if (!set_limits(s))
        give_up(pipe_fd, STAGE_LIMITS);
    umask(077);
    if (chdir("/") < 0 || !take_identity(id))
        give_up(pipe_fd, STAGE_USER);
    execve(s->argv[0], (char *const *)s->argv, (char *const *)s->env);
    give_up(pipe_fd, STAGE_EXEC);
}

static void G_GNUC_NORETURN first_child(const struct vm_spawn *s, const struct identity *id,
                                        int pipe_fd)
{
    setsid();
    pid_t pid = fork();
    if (pid == 0)
        become(s, id, pipe_fd);
    if (pid < 0)
        give_up(pipe_fd, STAGE_FORK);
    struct report r = {STAGE_PID, pid};
    _exit(write(pipe_fd, &r, sizeof(r)) == sizeof(r) ? 0 : 1);
}

/* ---- in the manager ---- */

static bool read_report(int fd, struct report *ret)
{
    ssize_t n;
    do
        n = read(fd, ret, sizeof(*ret));
    while (n < 0 && errno == EINTR);
    return n == sizeof(*ret);
}

/* Two reports may come in either order; the pipe's end says that exec took place. */
static pid_t read_outcome(const struct vm_spawn *s, int fd, GError **error)
{
    struct report r;
    pid_t pid = 0;
    while (read_report(fd, &r)) {
        if (r.stage == STAGE_PID) {
            pid = r.value;
            continue;
        }
        ruche_error_errno(error, r.value, "'%s': %s", s->argv[0], stage_words[r.stage]);
        return 0;
    }
    if (!pid)
        ruche_error(error, RUCHE_ERR_IO, "'%s': its process ended before it began", s->argv[0]);
    return pid;
}

pid_t vm_spawn(const struct vm_spawn *s, GError **error)
{
    struct identity id;
    int fds[2];
    g_assert(s->fd_count <= VM_MAX_FDS);
    if (!find_identity(s, &id, error))
        return 0;
    if (pipe2(fds, O_CLOEXEC) < 0) {
        ruche_error_errno(error, errno, "'%s': a pipe", s->argv[0]);
        return 0;
    }
    pid_t first = fork();
    if (first == 0)
        first_child(s, &id, fds[1]);
    int err = errno;
    close(fds[1]);
    pid_t pid = 0;
    if (first < 0) {
        ruche_error_errno(error, err, "'%s': %s", s->argv[0], stage_words[STAGE_FORK]);
    } else {
        pid = read_outcome(s, fds[0], error);
        while (waitpid(first, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    close(fds[0]);
    return pid;
}
