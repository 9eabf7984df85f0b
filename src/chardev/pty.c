/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A pseudo terminal. While nobody has its other side open, output is dropped and a slow timer
 * looks for somebody: the kernel tells of a hangup, not of an arrival.
 */
#include "chardev/chardev_priv.h"

#include "base/fd.h"
#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <termios.h>

#define LOOK_AGAIN_NS (500 * NS_PER_MS)

struct pty {
    int master;
    struct loop_timer look;
};

static void look(void *opaque)
{
    struct chardev *c = opaque;
    struct pty *p = c->priv;
    struct pollfd pfd = { .fd = p->master, .events = POLLOUT };
    if (poll(&pfd, 1, 0) >= 0 && !(pfd.revents & POLLHUP)) {
        int in = fcntl(p->master, F_DUPFD_CLOEXEC, 3);
        chardev_connected(c, in, in);
        return;
    }
    loop_timer_arm(&p->look, loop_now_ns() + LOOK_AGAIN_NS);
}

static void pty_hangup(struct chardev *c)
{
    struct pty *p = c->priv;
    chardev_disconnected(c);
    loop_timer_arm(&p->look, loop_now_ns() + LOOK_AGAIN_NS);
}

/* Opening and closing the other side once makes the kernel report that nobody is there. */
static void prepare_slave(const char *name)
{
    autofd slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios t;
    if (slave < 0 || tcgetattr(slave, &t) < 0)
        return;
    cfmakeraw(&t);
    tcsetattr(slave, TCSANOW, &t);
}

static bool pty_open(struct chardev *c, const struct chardev_config *cfg, GError **error)
{
    struct pty *p = c->priv;
    char name[64];
    loop_timer_init(c->loop, &p->look, look, c);
    p->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (p->master < 0 || grantpt(p->master) < 0 || unlockpt(p->master) < 0 ||
        ptsname_r(p->master, name, sizeof(name)))
        return ruche_error_errno(error, errno, "chardev '%s': cannot make a pseudo terminal",
                                 c->id);
    prepare_slave(name);
    c->where = g_strdup_printf("pty:%s", name);
    log_info("char device redirected to %s (label %s)", name, c->id);
    look(c);
    return true;
}

static void pty_close(struct chardev *c)
{
    struct pty *p = c->priv;
    loop_timer_done(&p->look);
    if (p->master > 0)
        fd_close_keep_errno(p->master);
    p->master = -1;
}

static const struct chardev_type pty_type = {
    .name = "pty",
    .summary = "A pseudo terminal, whose name is printed",
    .priv_size = sizeof(struct pty),
    .open = pty_open,
    .close = pty_close,
    .hangup = pty_hangup,
};
CHARDEV_TYPE(pty_type);
