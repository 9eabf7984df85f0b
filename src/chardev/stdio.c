/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The terminal that the program was started from.
 *
 * The terminal is raw while the program runs and gets its own settings back on every way out:
 * chardev_free(), exit(), and the fatal signals, whose handler calls chardev_terminal_restore().
 * The description of standard output is shared with other programs, so O_NONBLOCK is not set on
 * it: a second one is opened where the kernel allows that.
 */
#include "chardev/chardev_priv.h"

#include "base/fd.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <termios.h>

static struct termios original, raw;
static volatile sig_atomic_t terminal_changed;
static bool stdio_taken;
static int restore_flags = -1; /* of standard output, where no second description could be had */

static void set_terminal(const struct termios *t)
{
    /* A background process would be stopped for touching the terminal. */
    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &block, &old);
    tcsetattr(STDIN_FILENO, TCSANOW, t);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void chardev_terminal_restore(void)
{
    if (terminal_changed) {
        terminal_changed = 0;
        set_terminal(&original);
    }
}

void chardev_terminal_resume(void)
{
    if (stdio_taken && isatty(STDIN_FILENO)) {
        set_terminal(&raw);
        terminal_changed = 1;
    }
}

static void make_raw(bool allow_signals)
{
    static bool at_exit;
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &original) < 0)
        return;
    raw = original;
    raw.c_iflag &= ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_oflag |= OPOST;
    raw.c_lflag &= ~(ECHO | ECHONL | ICANON | IEXTEN);
    if (!allow_signals)
        raw.c_lflag &= ~ISIG;
    raw.c_cflag = (raw.c_cflag & ~(CSIZE | PARENB)) | CS8;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (!at_exit)
        atexit(chardev_terminal_restore);
    at_exit = true;
    set_terminal(&raw);
    terminal_changed = 1;
}

/* Standard output, never blocking. */
static int open_output(void)
{
    struct stat st;
    if (fstat(STDOUT_FILENO, &st) < 0)
        return -1;
    if (S_ISREG(st.st_mode))
        return fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    int fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    restore_flags = fcntl(STDOUT_FILENO, F_GETFL);
    fcntl(STDOUT_FILENO, F_SETFL, restore_flags | O_NONBLOCK);
    return fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
}

static bool stdio_open(struct chardev *c, const struct chardev_config *cfg, GError **error)
{
    bool allow_signals;
    if (!chardev_opt_bool(c, cfg, "signal", true, &allow_signals, error))
        return false;
    if (stdio_taken)
        return ruche_error(
            error, RUCHE_ERR_BUSY,
            "chardev '%s': the terminal is in use already; mux=on lets several share it", c->id);
    int in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3), out = open_output();
    if (in < 0 && out < 0)
        return ruche_error(error, RUCHE_ERR_IO,
                           "chardev '%s': standard input and output are closed", c->id);
    stdio_taken = true;
    c->priv = &stdio_taken; /* it is this one that must give the terminal back */
    make_raw(allow_signals);
    chardev_connected(c, in, out);
    return true;
}

static void stdio_close(struct chardev *c)
{
    if (!c->priv)
        return;
    c->priv = NULL;
    stdio_taken = false;
    chardev_terminal_restore();
    if (restore_flags >= 0)
        fcntl(STDOUT_FILENO, F_SETFL, restore_flags);
    restore_flags = -1;
}

static const struct chardev_option_help stdio_options[] = {
    { "signal", "on: Ctrl-C ends the program; off: the guest gets it" },
    { 0 },
};

static const struct chardev_type stdio_type = {
    .name = "stdio", .summary = "Standard input and output, the terminal in raw mode",
    .options = stdio_options, .open = stdio_open, .close = stdio_close,
};
CHARDEV_TYPE(stdio_type);
