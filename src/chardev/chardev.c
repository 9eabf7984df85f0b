/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Character backends: the core, which buffers, watches and hands bytes to front ends; see
 * chardev.h.
 *
 * Output goes through one bounded buffer under c->lock: written at once when the descriptor takes
 * it, else when the loop says so. Input is read only as far as the front end has room.
 */
#include "chardev/chardev_priv.h"

#include "base/fd.h"
#include "base/fdset.h"
#include "base/sock.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_CHUNK 4096

/* ---- output ---- */

static bool out_reserve(struct chardev *c, size_t len)
{
    if (c->out_head + c->out_len + len <= c->out_room)
        return true;
    if (c->out_len)
        memmove(c->out, c->out + c->out_head, c->out_len);
    c->out_head = 0;
    if (c->out_len + len <= c->out_room)
        return true;
    size_t room = c->out_room ? c->out_room : 4096;
    while (room < c->out_len + len)
        room *= 2;
    uint8_t *bigger = g_try_realloc(c->out, room);
    if (!bigger)
        return false;
    c->out = bigger;
    c->out_room = room;
    return true;
}

/* Puts bytes into the buffer; telnet needs its 0xff twice. Returns how many source bytes went
 * in. */
static size_t out_put(struct chardev *c, const uint8_t *data, size_t len)
{
    if (!c->double_iac) {
        size_t n = MIN(len, CHARDEV_MAX_OUTPUT - c->out_len);
        if (!n || !out_reserve(c, n))
            return 0;
        memcpy(c->out + c->out_head + c->out_len, data, n);
        c->out_len += n;
        return n;
    }
    size_t n = 0;
    for (; n < len; n++) {
        size_t need = data[n] == 0xff ? 2 : 1;
        if (c->out_len + need > CHARDEV_MAX_OUTPUT || !out_reserve(c, need))
            break;
        for (size_t i = 0; i < need; i++)
            c->out[c->out_head + c->out_len++] = data[n];
    }
    return n;
}

static void out_flush_locked(struct chardev *c)
{
    while (c->out_len && c->out_fd >= 0 && !c->broken) {
        ssize_t n = write(c->out_fd, c->out + c->out_head, c->out_len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            c->broken = true;
            c->out_len = 0;
            return;
        }
        c->out_head += n;
        c->out_len -= n;
    }
    c->out_head = c->out_len ? c->out_head : 0;
}

/* What a guest says does not fill the host's disk: a log that is full begins anew. */
static void log_output(struct chardev *c, const void *data, size_t len)
{
    struct stat st;
    bool full = fstat(c->log_fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= (off_t)CHARDEV_LOG_MAX;
    if ((full && (ftruncate(c->log_fd, 0) < 0 || lseek(c->log_fd, 0, SEEK_SET) < 0)) || write(c->log_fd, data, len) < 0)
        fd_close_keep_errno(c->log_fd), c->log_fd = -1;
}

size_t chardev_write(struct chardev *c, const void *data, size_t len)
{
    size_t taken = len;
    bool watch = false;
    pthread_mutex_lock(&c->lock);
    if (c->instead) {
        taken = chardev_write(c->instead, data, len);
        pthread_mutex_unlock(&c->lock);
        return taken;
    }
    if (c->log_fd >= 0)
        log_output(c, data, len);
    if (c->type->put) {
        c->type->put(c, data, len);
    } else if (c->out_fd >= 0 && !c->broken) {
        bool was_empty = c->out_len == 0;
        taken = out_put(c, data, len);
        if (was_empty)
            out_flush_locked(c);
        if (taken < len)
            c->starved = true;
        watch = c->broken || (was_empty && c->out_len);
    }
    pthread_mutex_unlock(&c->lock);
    if (watch)
        loop_post(c->loop, &c->out_task);
    return taken;
}

static void out_ready(void *opaque, uint32_t events);

static void close_out_locked(struct chardev *c)
{
    fd_close_keep_errno(c->out_fd);
    c->out_fd = -1;
    c->broken = false;
    c->out_head = c->out_len = 0;
}

/* Loop thread: pushes pending output, then tells front ends that were cut short. */
static void out_run(void *opaque)
{
    struct chardev *c = opaque;
    pthread_mutex_lock(&c->lock);
    out_flush_locked(c);
    bool broken = c->broken, more = c->out_len > 0;
    bool tell = c->starved && c->out_len < CHARDEV_MAX_OUTPUT / 2;
    if (tell)
        c->starved = false;
    int fd = c->out_fd;
    pthread_mutex_unlock(&c->lock);
    if (broken || !more)
        loop_fd_remove(&c->out_watch);
    else if (!c->out_watch.loop)
        loop_fd_add(c->loop, &c->out_watch, fd, EPOLLOUT, out_ready, c);
    if (broken && c->type->hangup) {
        c->type->hangup(c);
    } else if (broken) { /* nobody to hang up on: output is dropped from now on */
        pthread_mutex_lock(&c->lock);
        close_out_locked(c);
        pthread_mutex_unlock(&c->lock);
    }
    for (int i = 0; tell && i < CHARDEV_MAX_FRONTENDS; i++)
        if (c->port[i].used && c->port[i].fe.sent)
            c->port[i].fe.sent(c->port[i].fe.opaque);
}

static void out_ready(void *opaque, uint32_t events)
{
    out_run(opaque);
}

/* ---- input ---- */

static size_t in_room(struct chardev *c)
{
    if (c->mux)
        return c->focus < 0 ? 0 : INPUT_CHUNK; /* the escape key must always get through */
    const struct chardev_port *p = &c->port[0];
    return !p->used ? 0 : p->fe.readable ? INPUT_CHUNK : p->fe.can_receive(p->fe.opaque);
}

static void in_ready(void *opaque, uint32_t events);

/* Watches the descriptor exactly while somebody has room: a hangup that nobody can take would spin
 * the loop. */
static void in_update(struct chardev *c)
{
    bool want = c->in_fd >= 0 && !c->in_eof && in_room(c) > 0;
    if (!want) {
        loop_fd_remove(&c->in_watch);
        return;
    }
    if (c->in_unpollable) {
        loop_post(c->loop, &c->in_task);
        return;
    }
    if (c->in_watch.loop)
        return;
    if (loop_fd_add(c->loop, &c->in_watch, c->in_fd, EPOLLIN, in_ready, c) == -EPERM) {
        c->in_unpollable = true;
        loop_post(c->loop, &c->in_task);
    }
}

static void in_end(struct chardev *c)
{
    loop_fd_remove(&c->in_watch);
    c->in_eof = true;
    if (c->type->hangup)
        c->type->hangup(c);
}

static bool fd_is_socket(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

static void in_read(struct chardev *c)
{
    uint8_t buf[INPUT_CHUNK];
    size_t room = MIN(in_room(c), sizeof(buf));
    if (!room || c->in_fd < 0 || c->in_eof)
        return;
    const struct chardev_frontend *fe = &c->port[0].fe;
    if (!c->mux && fe->readable) {
        fe->readable(fe->opaque, c->in_fd);
        return;
    }
    ssize_t n = !c->mux && c->port[0].used && fe->receive_fd && fd_is_socket(c->in_fd)
                    ? sock_receive(c->in_fd, buf, room, fe->receive_fd, fe->opaque)
                    : read(c->in_fd, buf, room);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        in_end(c);
        return;
    }
    size_t len = c->type->filter ? c->type->filter(c, buf, n) : (size_t)n;
    if (!len)
        return;
    if (c->mux)
        mux_receive(c, buf, len);
    else
        c->port[0].fe.receive(c->port[0].fe.opaque, buf, len);
}

static void in_ready(void *opaque, uint32_t events)
{
    struct chardev *c = opaque;
    in_read(c);
    in_update(c);
}

/* Posted by chardev_accept_input(), and by itself for files that cannot be polled. */
static void in_run(void *opaque)
{
    struct chardev *c = chardev_now(opaque);
    if (c->mux)
        mux_drain(c);
    if (c->in_unpollable)
        in_read(c);
    in_update(c);
}

void chardev_accept_input(struct chardev *c)
{
    loop_post(c->loop, &c->in_task);
}

/* ---- connection ---- */

void chardev_tell_opened(struct chardev *c, bool open)
{
    for (int i = 0; i < CHARDEV_MAX_FRONTENDS; i++)
        if (c->port[i].used && c->port[i].fe.opened)
            c->port[i].fe.opened(c->port[i].fe.opaque, open);
}

void chardev_connected(struct chardev *c, int in_fd, int out_fd)
{
    /* One epoll set takes a descriptor once: reading and writing each get their own. */
    if (in_fd == out_fd && in_fd >= 0)
        out_fd = fcntl(in_fd, F_DUPFD_CLOEXEC, 3);
    pthread_mutex_lock(&c->lock);
    c->in_fd = in_fd;
    c->out_fd = out_fd;
    c->in_eof = c->in_unpollable = c->broken = false;
    c->open = true;
    pthread_mutex_unlock(&c->lock);
    chardev_tell_opened(c, true);
    in_update(c);
}

void chardev_disconnected(struct chardev *c)
{
    bool was_open = c->open;
    loop_fd_remove(&c->in_watch);
    loop_fd_remove(&c->out_watch);
    pthread_mutex_lock(&c->lock);
    close_out_locked(c);
    fd_close_keep_errno(c->in_fd);
    c->in_fd = -1;
    c->open = false;
    pthread_mutex_unlock(&c->lock);
    if (was_open)
        chardev_tell_opened(c, false);
}

bool chardev_is_open(const struct chardev *c)
{
    return chardev_now(c)->open;
}

int chardev_fd(const struct chardev *c)
{
    return chardev_now(c)->in_fd;
}

void chardev_hang_up(struct chardev *c)
{
    c = chardev_now(c);
    if (c->open && c->type->hangup)
        c->type->hangup(c);
}

/* ---- front ends ---- */

bool chardev_attach(struct chardev *c, const struct chardev_frontend *f, GError **error)
{
    c = chardev_now(c);
    int max = c->mux ? CHARDEV_MAX_FRONTENDS : 1, i = 0;
    while (i < max && c->port[i].used)
        i++;
    if (i == max) {
        if (c->mux)
            return ruche_error(error, RUCHE_ERR_BUSY, "chardev '%s' has %d users already", c->id,
                               max);
        return ruche_error(error, RUCHE_ERR_BUSY,
                           "chardev '%s' is in use already; mux=on lets several share it", c->id);
    }
    c->port[i] = (struct chardev_port){ .fe = *f, .used = true };
    if (c->mux)
        c->port[i].input = g_byte_array_new();
    if (c->open && f->opened)
        f->opened(f->opaque, true);
    if (c->focus < 0)
        mux_set_focus(c, i);
    chardev_accept_input(c);
    return true;
}

void chardev_detach(struct chardev *c, void *frontend_opaque)
{
    c = chardev_now(c);
    for (int i = 0; i < CHARDEV_MAX_FRONTENDS; i++) {
        struct chardev_port *p = &c->port[i];
        if (!p->used || p->fe.opaque != frontend_opaque)
            continue;
        if (p->input)
            g_byte_array_unref(p->input);
        *p = (struct chardev_port){ 0 };
        if (c->focus == i)
            c->focus = -1;
        in_update(c);
        return;
    }
}

bool chardev_in_use(const struct chardev *c)
{
    c = chardev_now(c);
    for (int i = 0; i < CHARDEV_MAX_FRONTENDS; i++)
        if (c->port[i].used)
            return true;
    return false;
}

bool chardev_is_mux(const struct chardev *c)
{
    return chardev_now(c)->mux;
}

void chardev_on_quit(struct chardev *c, void (*fn)(void *opaque), void *opaque)
{
    c->quit = fn;
    c->quit_opaque = opaque;
}

const char *chardev_id(const struct chardev *c)
{
    return c->id;
}

char *chardev_describe(const struct chardev *c)
{
    c = chardev_now(c);
    if (!c->where)
        return g_strdup(c->type->name);
    return g_strdup_printf("%s%s", c->open ? "" : "disconnected:", c->where);
}

/* ---- life ---- */

static bool open_log(struct chardev *c, const struct chardev_config *cfg, GError **error)
{
    const char *path = chardev_opt(cfg, "logfile");
    bool append;
    if (!chardev_opt_bool(c, cfg, "logappend", false, &append, error))
        return false;
    if (!path)
        return true;
    c->log_fd = fdset_open(path, O_WRONLY | O_CREAT | (append ? O_APPEND : O_TRUNC), 0644);
    if (c->log_fd < 0)
        return ruche_error_errno(error, errno, "chardev '%s': logfile '%s'", c->id, path);
    return true;
}

struct chardev *chardev_new(const char *backend, const char *id, const struct chardev_config *cfg,
                            struct loop *loop, GError **error)
{
    const struct chardev_type *type = chardev_type_find(backend);
    if (!type) {
        ruche_error(error, RUCHE_ERR_UNKNOWN, "chardev '%s': unknown backend '%s'%s", id, backend,
                    suggest_phrase(backend, chardev_backends()));
        return NULL;
    }
    struct chardev *c = g_new0(struct chardev, 1);
    c->type = type;
    c->id = g_strdup(id);
    c->loop = loop;
    c->in_fd = c->out_fd = c->log_fd = c->focus = -1;
    c->out_task = (struct loop_task){ .fn = out_run, .opaque = c };
    c->in_task = (struct loop_task){ .fn = in_run, .opaque = c };
    c->priv = type->priv_size ? g_malloc0(type->priv_size) : NULL;
    pthread_mutex_init(&c->lock, NULL);
    if (chardev_check_options(c, cfg, error) &&
        chardev_opt_bool(c, cfg, "mux", false, &c->mux, error) && open_log(c, cfg, error) &&
        type->open(c, cfg, error))
        return c;
    chardev_free(c);
    return NULL;
}

void chardev_backend_close(struct chardev *c)
{
    pthread_mutex_lock(&c->lock);
    out_flush_locked(c);
    pthread_mutex_unlock(&c->lock);
    if (c->type->close)
        c->type->close(c);
    chardev_disconnected(c);
    loop_unpost(c->loop, &c->out_task);
    loop_unpost(c->loop, &c->in_task);
    fd_close_keep_errno(c->log_fd);
    c->log_fd = -1;
    g_clear_pointer(&c->priv, g_free);
    g_clear_pointer(&c->out, g_free);
    c->out_room = 0;
    g_clear_pointer(&c->where, g_free);
}

void chardev_free(struct chardev *c)
{
    if (!c)
        return;
    chardev_free(c->instead);
    for (int i = 0; i < CHARDEV_MAX_FRONTENDS; i++)
        if (c->port[i].input)
            g_byte_array_unref(c->port[i].input);
    memset(c->port, 0, sizeof(c->port));
    c->focus = -1;
    chardev_backend_close(c);
    pthread_mutex_destroy(&c->lock);
    g_free(c->id);
    g_free(c);
}
