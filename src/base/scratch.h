/* SPDX-License-Identifier: GPL-2.0-or-later */
/* For tests: a folder of the program's own, which goes when the program ends: also by an assertion
 * that failed, by SIGTERM (a time limit) or by SIGINT. It becomes TMPDIR, so that what asks GLib for
 * a temporary file or folder later finds its place in there.
 *
 * Owner     The program; a child that it forked removes nothing.
 * Thread    The test's, before there are others: it changes the environment.
 */
#pragma once

#include <glib.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static char *scratch_path;
static pid_t scratch_owner;

/* Also a signal's handler, so without the heap and its locks. */
static inline void scratch_remove(void)
{
    if (getpid() != scratch_owner)
        return;
    pid_t pid = vfork();
    if (!pid) {
        execl("/bin/rm", "rm", "-rf", "--one-file-system", scratch_path, (char *)NULL);
        _exit(127);
    }
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

static inline void scratch_end(int sig)
{
    scratch_remove();
    signal(sig, SIG_DFL);
    raise(sig);
}

/* The folder; NAME is the start of its name. Once a program, before it asks for a temporary file. */
static inline char *scratch_folder(const char *name)
{
    const char *parent = g_getenv("TMPDIR");
    g_autofree char *path = g_strdup_printf("%s/%s-XXXXXX", parent ? parent : "/tmp", name);
    g_assert_nonnull(g_mkdtemp(path));
    scratch_path = g_steal_pointer(&path);
    scratch_owner = getpid();
    g_setenv("TMPDIR", scratch_path, TRUE);
    atexit(scratch_remove);
    signal(SIGABRT, scratch_end);
    signal(SIGTERM, scratch_end);
    signal(SIGINT, scratch_end);
    return scratch_path;
}
