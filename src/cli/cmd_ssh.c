/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Getting into launched machines.
 *
 * A guest that boots for the first time answers SSH before it lets people in, and its first configuration starts its
 * server again. So ssh is run as often as the connection breaks off before the log-in; never again after one.
 */
#include "cli/cli.h"
#include "cli/rest.h"

#include "base/fd.h"
#include "base/sock.h"
#include "base/util.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_S   180
#define SPEAK_MS 5000
#define LOOK_US  250000
#define TRIES    6    /* with pauses of 0.5, 1, 2, 4 and 8 s between them: 15.5 s for a server that starts again */
#define PAUSE_US 500000
#define FAILED   255  /* ssh's own status, where it is not the command's */
#define SAID_MAX 4096 /* bytes of what ssh complains of */

char *cli_own_key(void)
{
    return g_build_filename(g_get_user_data_dir(), "ruche", "id_ed25519", NULL);
}

/* ---- a guest that boots ---- */

/* Does a server of SSH speak there? The way through the machine's network opens before its guest listens. */
static bool ssh_speaks(const char *host, const char *port)
{
    autofd fd = sock_connect_tcp(host, port, false, NULL);
    struct pollfd p = { .fd = fd, .events = POLLIN };
    char word[4];
    return fd >= 0 && poll(&p, 1, SPEAK_MS) == 1 && recv(fd, word, sizeof(word), MSG_WAITALL) == sizeof(word) &&
           !memcmp(word, "SSH-", sizeof(word));
}

static bool is_running(struct cli *c, GError **error)
{
    g_autoptr(JsonObject) d = rest_call(c->rest, "GET", NULL, error, "/domains/%s", c->args[0]);
    if (!d || !strcmp(text_of(d, "state"), "running"))
        return d != NULL;
    return ruche_error(error, RUCHE_ERR_STATE, "machine '%s' is %s", c->args[0], text_of(d, "state"));
}

static gint64 wait_until(struct cli *c)
{
    double wait_s = cli_has(c, "wait") ? g_ascii_strtod(cli_value(c, "wait"), NULL) : WAIT_S;
    return g_get_monotonic_time() + (gint64)(CLAMP(wait_s, 0, 86400) * 1e6);
}

static bool wait_for_ssh(struct cli *c, const char *host, const char *port, gint64 until_us, GError **error)
{
    bool said = !isatty(2);
    while (is_running(c, error)) {
        if (ssh_speaks(host, port))
            return true;
        if (g_get_monotonic_time() >= until_us)
            return ruche_error(error, RUCHE_ERR_IO, "machine '%s' does not answer SSH yet; 'ruche console %s' shows what it does",
                               c->args[0], c->args[0]);
        if (!said)
            fprintf(stderr, "waiting for '%s' to boot ...\n", c->args[0]);
        said = true;
        g_usleep(LOOK_US); /* nothing outside a guest tells when its server begins to listen */
    }
    return false;
}

/* ---- one run of ssh ---- */

/* Files in memory. ssh closes what it inherits, so it opens them by the names they have as ours. */
struct notes {
    int said; /* what ssh itself complains of; the other side's words go to standard error at once */
    int in;   /* a word, when we have been let in */
};

static bool notes_init(struct notes *n, GError **error)
{
    n->said = memfd_create("ssh-said", MFD_CLOEXEC);
    n->in = memfd_create("ssh-in", MFD_CLOEXEC);
    return (n->said >= 0 && n->in >= 0) || ruche_error_errno(error, errno, "no memory for what ssh says");
}

static void notes_done(struct notes *n)
{
    fd_auto_cleanup(&n->said);
    fd_auto_cleanup(&n->in);
}

/* The host's key is kept by the machine's UUID: another machine of the same name is another host. */
static GPtrArray *ssh_words(struct cli *c, JsonObject *o, const char *port, const struct notes *n)
{
    GPtrArray *argv = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *key = cli_own_key();
    const char *const first[] = { "ssh", "-p", port, "-l", text_of(o, "user"), "-oStrictHostKeyChecking=accept-new", "-oLogLevel=ERROR",
                                  "-oPermitLocalCommand=yes" };
    for (size_t i = 0; i < G_N_ELEMENTS(first); i++)
        g_ptr_array_add(argv, g_strdup(first[i]));
    g_ptr_array_add(argv, g_strdup_printf("-oHostKeyAlias=%s", text_of(o, "uuid")));
    g_ptr_array_add(argv, g_strdup_printf("-oUserKnownHostsFile=\"%s/ruche/known_hosts\"", g_get_user_data_dir()));
    g_ptr_array_add(argv, g_strdup_printf("-oLocalCommand=echo in >/proc/%d/fd/%d", (int)getpid(), n->in));
    g_ptr_array_add(argv, g_strdup_printf("-E/proc/%d/fd/%d", (int)getpid(), n->said));
    if (g_file_test(key, G_FILE_TEST_EXISTS))
        g_ptr_array_add(argv, g_strconcat("-i", key, NULL));
    g_ptr_array_add(argv, g_strdup(text_of(o, "host")));
    for (unsigned i = 1; i < c->arg_count; i++)
        g_ptr_array_add(argv, g_strdup(c->args[i]));
    g_ptr_array_add(argv, NULL);
    return argv;
}

/* Its exit status. When it stops (its key ~^Z), we do, so that the shell hears of it. */
static int end_of(pid_t pid)
{
    int status = 0;
    for (;;) {
        pid_t told = waitpid(pid, &status, WUNTRACED);
        if (told < 0 && errno == EINTR)
            continue;
        if (told < 0)
            return 1;
        if (!WIFSTOPPED(status))
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        raise(SIGTSTP);
        kill(pid, SIGCONT);
    }
}

/* Keys that interrupt are ssh's. It ends with us. */
static int run_words(char **argv)
{
    void (*on_int)(int) = signal(SIGINT, SIG_IGN), (*on_quit)(int) = signal(SIGQUIT, SIG_IGN);
    pid_t self = getpid(), pid = fork();
    if (!pid) {
        signal(SIGINT, on_int);
        signal(SIGQUIT, on_quit);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() == self)
            execvp("ssh", argv);
        fprintf(stderr, "ruche: ssh could not be run: %s\n", strerror(errno));
        _exit(1);
    }
    int status = pid > 0 ? end_of(pid) : cli_fail(g_error_new(RUCHE_ERROR, RUCHE_ERR_IO, "ssh could not be run: %s", strerror(errno)));
    signal(SIGINT, on_int);
    signal(SIGQUIT, on_quit);
    return status;
}

/* The connection, which a server had just answered, was lost before the log-in. */
static bool broke_off(const struct notes *n, const char *said)
{
    static const char *const words[] = { "kex_exchange_identification", "banner exchange",      "Connection refused", "Connection reset",
                                         "Connection closed",           "Connection timed out", "Broken pipe" };
    bool is = false;
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        is |= strstr(said, words[i]) != NULL;
    return is && !lseek(n->in, 0, SEEK_END);
}

/* False: it is to be tried again, with what it said in *ret_said. */
static bool ssh_once(struct cli *c, JsonObject *o, const char *port, int *ret_status, char **ret_said)
{
    GError *error = NULL;
    struct notes n;
    bool over = true;
    if (!notes_init(&n, &error)) {
        *ret_status = cli_fail(error);
        *ret_said = g_strdup("");
    } else {
        g_autoptr(GPtrArray) argv = ssh_words(c, o, port, &n);
        *ret_status = run_words((char **)argv->pdata);
        *ret_said = g_malloc0(SAID_MAX + 1);
        over = pread(n.said, *ret_said, SAID_MAX, 0) <= 0 || *ret_status != FAILED || !broke_off(&n, *ret_said);
    }
    notes_done(&n);
    return over;
}

static const struct cli_option ssh_options[] = { { "wait", "SECONDS", "for a guest that boots; 180", false }, { 0 } };

static int run_ssh(struct cli *c)
{
    GError *error = NULL;
    g_autoptr(JsonObject) o = rest_call(c->rest, "GET", NULL, &error, "/domains/%s/ssh", c->args[0]);
    g_autofree char *port = o ? g_strdup_printf("%" PRIi64, json_object_get_int_member(o, "port")) : NULL;
    g_autofree char *folder = g_build_filename(g_get_user_data_dir(), "ruche", NULL);
    gint64 until_us = wait_until(c);
    if (!o)
        return cli_fail(error);
    g_mkdir_with_parents(folder, 0755);
    for (unsigned tries = 1;; tries++) {
        g_autofree char *said = NULL;
        int status;
        if (!wait_for_ssh(c, text_of(o, "host"), port, until_us, &error))
            return cli_fail(error);
        if (ssh_once(c, o, port, &status, &said) || tries == TRIES) {
            fputs(said, stderr);
            return status;
        }
        g_usleep((gulong)PAUSE_US << (tries - 1)); /* the server is given time, and fewer lines in its log */
    }
}
CLI_COMMAND(ssh, .name = "ssh", .arguments = "NAME [COMMAND...]", .summary = "Logs in to a launched machine",
            .text = "Waits for a guest that still boots.", .options = ssh_options, .min_args = 1, .max_args = 1, .raw_args = true,
            .complete = COMPLETE_MACHINE, .run = run_ssh);
