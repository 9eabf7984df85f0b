/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The small backends: null, file, pipe, ringbuf. */
#include "chardev/chardev_priv.h"

#include "base/fd.h"
#include "base/fdset.h"

#include <fcntl.h>
#include <string.h>

/* ---- null ---- */

static bool null_open(struct chardev *c, const struct chardev_config *cfg, GError **error)
{
    c->open = true;
    return true;
}

static void null_put(struct chardev *c, const uint8_t *data, size_t len)
{
}

static const char *const null_aliases[] = { "vc", NULL };
static const struct chardev_type null_type = {
    .name = "null", .summary = "Nothing: output is dropped", .aliases = null_aliases,
    .open = null_open, .put = null_put,
};
CHARDEV_TYPE(null_type);

/* ---- file ---- */

static bool file_open(struct chardev *c, const struct chardev_config *cfg, GError **error)
{
    const char *path = chardev_opt_need(c, cfg, "path", error),
               *in_path = chardev_opt(cfg, "input-path");
    bool append;
    if (!path || !chardev_opt_bool(c, cfg, "append", false, &append, error))
        return false;
    autofd in = -1;
    if (in_path && (in = open(in_path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)) < 0)
        return ruche_error_errno(error, errno, "chardev '%s': '%s'", c->id, in_path);
    int out = fdset_open(path, O_WRONLY | O_CREAT | O_NONBLOCK | (append ? O_APPEND : O_TRUNC), 0666);
    if (out < 0)
        return ruche_error_errno(error, errno, "chardev '%s': '%s'", c->id, path);
    c->where = g_strdup_printf("file:%s", path);
    chardev_connected(c, fd_steal(&in), out);
    return true;
}

static const struct chardev_option_help file_options[] = {
    { "path", "the file that output goes to" },
    { "append", "on: the file keeps what it has" },
    { "input-path", "a file to read input from" },
    { 0 },
};
static const struct chardev_type file_type = {
    .name = "file", .summary = "Output into a file", .options = file_options, .open = file_open,
};
CHARDEV_TYPE(file_type);

/* ---- pipe ---- */

static bool pipe_open(struct chardev *c, const struct chardev_config *cfg, GError **error)
{
    const char *path = chardev_opt_need(c, cfg, "path", error);
    if (!path)
        return false;
    g_autofree char *in_path = g_strconcat(path, ".in", NULL),
                    *out_path = g_strconcat(path, ".out", NULL);
    /* Opened for both ways, so that neither opening nor reading waits for the other side. */
    int flags = O_RDWR | O_NONBLOCK | O_CLOEXEC;
    autofd in = open(in_path, flags), out = open(out_path, flags);
    if (in < 0 && out < 0) {
        in = open(path, flags);
        if (in < 0)
            return ruche_error_errno(error, errno, "chardev '%s': pipe '%s'", c->id, path);
        out = fcntl(in, F_DUPFD_CLOEXEC, 3);
    }
    if (in < 0 || out < 0)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND,
                           "chardev '%s': pipe '%s' needs both '%s' and '%s'", c->id, path, in_path,
                           out_path);
    c->where = g_strdup_printf("pipe:%s", path);
    chardev_connected(c, fd_steal(&in), fd_steal(&out));
    return true;
}

static const struct chardev_option_help pipe_options[] = {
    { "path", "PATH.in and PATH.out, or one PATH for both ways" },
    { 0 },
};
static const struct chardev_type pipe_type = {
    .name = "pipe", .summary = "Named pipes", .options = pipe_options, .open = pipe_open,
};
CHARDEV_TYPE(pipe_type);

/* ---- ringbuf ---- */

struct ring {
    uint8_t *data;
    size_t size, head, len; /* oldest byte at head */
};

static bool ringbuf_open(struct chardev *c, const struct chardev_config *cfg, GError **error)
{
    struct ring *r = c->priv;
    uint64_t size;
    if (!chardev_opt_u64(c, cfg, "size", 65536, 64u << 20, &size, error))
        return false;
    if (!size || (size & (size - 1)))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "chardev '%s': 'size' must be a power of two, not %" G_GUINT64_FORMAT,
                           c->id, size);
    r->data = g_try_malloc(size);
    if (!r->data)
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "chardev '%s': no memory for 'size'", c->id);
    r->size = size;
    c->open = true;
    return true;
}

static void ringbuf_close(struct chardev *c)
{
    struct ring *r = c->priv;
    g_clear_pointer(&r->data, g_free);
}

static void ringbuf_put(struct chardev *c, const uint8_t *data, size_t len)
{
    struct ring *r = c->priv;
    for (size_t i = 0; i < len; i++) {
        r->data[(r->head + r->len) & (r->size - 1)] = data[i];
        if (r->len < r->size)
            r->len++;
        else
            r->head = (r->head + 1) & (r->size - 1);
    }
}

static const struct chardev_option_help ringbuf_options[] = {
    { "size", "bytes that are kept, a power of two; 64K" },
    { 0 },
};
static const struct chardev_type ringbuf_type = {
    .name = "ringbuf", .summary = "The last bytes in memory, for QMP's ringbuf-read",
    .options = ringbuf_options, .priv_size = sizeof(struct ring),
    .open = ringbuf_open, .close = ringbuf_close, .put = ringbuf_put,
};
CHARDEV_TYPE(ringbuf_type);

bool chardev_ringbuf_read(struct chardev *c, void *buf, size_t len, size_t *ret_len)
{
    c = chardev_now(c);
    if (c->type != &ringbuf_type)
        return false;
    struct ring *r = c->priv;
    uint8_t *to = buf;
    pthread_mutex_lock(&c->lock);
    size_t n = MIN(len, r->len);
    for (size_t i = 0; i < n; i++)
        to[i] = r->data[(r->head + i) & (r->size - 1)];
    r->head = (r->head + n) & (r->size - 1);
    r->len -= n;
    pthread_mutex_unlock(&c->lock);
    *ret_len = n;
    return true;
}
