/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sessions on consoles and channels. We stand between: a machine's end takes one user at a time,
 * and a session must end when another takes it by force, whatever the first one does.
 *
 * Thread    The loop.
 * Memory    One buffer each way; who does not read stops the other side.
 */
#include "manager/domain/vm_internal.h"

#include "base/fd.h"
#include "base/sock.h"

#include <fcntl.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>

#define BUFFER 16384

/* From one end to the other. */
struct way {
    struct console *console;
    int from, to;
    guint source;
    bool writing; /* the source waits for `to` */
    size_t len, at;
    char data[BUFFER];
};

struct console {
    struct vm *v; /* whose table has us */
    char *alias;
    int user, machine;
    struct way ways[2];
};

void vm_console_free(gpointer p)
{
    struct console *c = p;
    for (int i = 0; i < 2; i++)
        g_clear_handle_id(&c->ways[i].source, g_source_remove);
    fd_close_keep_errno(c->user);
    fd_close_keep_errno(c->machine);
    g_free(c->alias);
    g_free(c);
}

static gboolean pump(int fd, GIOCondition condition, gpointer opaque);

static void watch(struct way *w)
{
    w->writing = w->len > 0;
    w->source = g_unix_fd_add(w->writing ? w->to : w->from,
                              (w->writing ? G_IO_OUT : G_IO_IN) | G_IO_HUP | G_IO_ERR, pump, w);
}

/* False: the session is over. */
static bool step(struct way *w)
{
    ssize_t n;
    if (!w->len) {
        n = read(w->from, w->data, sizeof(w->data));
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return false;
        w->len = n > 0 ? (size_t)n : 0;
        w->at = 0;
    }
    while (w->len) {
        n = write(w->to, w->data + w->at, w->len);
        if (n < 0 && errno != EINTR)
            return errno == EAGAIN;
        w->at += n > 0 ? (size_t)n : 0;
        w->len -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

static gboolean pump(int fd, GIOCondition condition, gpointer opaque)
{
    struct way *w = opaque;
    if (!step(w)) {
        w->source = 0;
        g_hash_table_remove(w->console->v->consoles, w->console->alias); /* frees it */
        return G_SOURCE_REMOVE;
    }
    if (w->writing == (w->len > 0))
        return G_SOURCE_CONTINUE;
    watch(w);
    return G_SOURCE_REMOVE;
}

/* ---- opening ---- */

static int open_pty(const char *path, GError **error)
{
    struct termios t;
    int fd = g_str_has_prefix(path, "/dev/pts/")
                 ? open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)
                 : (errno = EINVAL, -1);
    if (fd < 0)
        ruche_error_errno(error, errno, "console '%s'", path);
    else if (tcgetattr(fd, &t) == 0) {
        cfmakeraw(&t);
        tcsetattr(fd, TCSANOW, &t);
    }
    return fd;
}

static int open_socket(const char *path, GError **error)
{
    int fd = vm_connect(path, error);
    if (fd >= 0)
        sock_set_nonblock(fd, true);
    return fd;
}

static const struct def_chardev *find_chardev(const struct vm *v, const char *alias, bool channel,
                                              GError **error)
{
    const struct domain_def *def = v->d ? v->d->live : NULL;
    for (unsigned i = 0; def && i < def->s.chardev_count; i++) {
        const struct def_chardev *c = &def->s.chardevs[i];
        bool is_channel = !g_strcmp0(c->kind, "channel");
        if (is_channel == channel &&
            (alias ? !g_strcmp0(c->alias, alias) || (channel && !g_strcmp0(c->target, alias))
                   : true))
            return c;
    }
    ruche_error(error, RUCHE_ERR_INVALID,
                alias ? "machine '%s' has no %s '%s'" : "machine '%s' has no %s", v->name,
                channel ? "channel" : "character device", alias);
    return NULL;
}

static int open_end(const struct vm *v, const struct def_chardev *c, GError **error)
{
    if (!g_strcmp0(c->type, "pty") && c->path)
        return open_pty(c->path, error);
    if (!g_strcmp0(c->type, "unix") && c->path)
        return open_socket(c->path, error);
    ruche_error(error, RUCHE_ERR_INVALID,
                "machine '%s': '%s' of type '%s' cannot be opened: only 'pty' and 'unix' can",
                v->name, c->alias ? c->alias : c->kind, c->type ? c->type : "");
    return -1;
}

int vm_open_console(struct vm *v, const char *alias, bool force, bool channel, GError **error)
{
    const struct def_chardev *c = find_chardev(v, alias, channel, error);
    if (!c)
        return -1;
    const char *key = c->alias ? c->alias : "";
    if (g_hash_table_contains(v->consoles, key) && !force) {
        ruche_error(error, RUCHE_ERR_STATE, "Active console session exists for this domain");
        return -1;
    }
    g_hash_table_remove(v->consoles, key);
    int ends[2];
    autofd machine = open_end(v, c, error);
    if (machine < 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        ruche_error_errno(error, errno, "console of machine '%s'", v->name);
        return -1;
    }
    struct console *s = g_new0(struct console, 1);
    *s = (struct console){
        .v = v, .alias = g_strdup(key), .user = ends[0], .machine = fd_steal(&machine)};
    sock_set_nonblock(s->user, true);
    for (int i = 0; i < 2; i++) {
        s->ways[i].console = s;
        s->ways[i].from = i ? s->machine : s->user;
        s->ways[i].to = i ? s->user : s->machine;
        watch(&s->ways[i]);
    }
    g_hash_table_insert(v->consoles, g_strdup(key), s);
    return ends[1];
}
