/* SPDX-License-Identifier: GPL-2.0-or-later */
/* GET and PUT /pools/{pool}/volumes/{name}/data: what is in a volume, out and in.
 *
 * Spec      docs/rest.md. Query: offset, length (bytes).
 * Thread    The loop thread, a task for each; files are read and written on workers.
 * Flow      One piece of TRANSFER_BYTES at a time: the next is read when the peer has taken the
 *           last, and nothing more is read from a peer until what it sent is written.
 * Cancel    A peer that goes away ends it; what it had sent is in the volume.
 */
#include "web/internal.h"

#include "base/util.h"
#include "manager/storage/pool.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define TRANSFER_BYTES (512u << 10)
#define UPLOAD_KEY     "ruche-upload"

struct transfer {
    SoupServerMessage *msg; /* referenced */
    struct pool *pool;
    char *name;
    uint64_t offset, length, left; /* asked for; to go */
    bool force;
    int fd, err;
    struct task_event
        moved;     /* the peer has taken a piece, has sent one, has sent all, or is gone */
    GBytes *piece; /* of a peer's, not yet written */
    uint8_t *buf;  /* of the volume's */
    size_t count;
    bool all_sent, gone;
    gulong signals[3];
};

/* ---- on workers ---- */

static void read_piece(void *opaque)
{
    struct transfer *t = opaque;
    ssize_t n;
    do
        n = read(t->fd, t->buf, (size_t)MIN(t->left, TRANSFER_BYTES));
    while (n < 0 && errno == EINTR);
    t->err = n < 0 ? errno : 0;
    t->count = n > 0 ? (size_t)n : 0;
}

static void write_piece(void *opaque)
{
    struct transfer *t = opaque;
    size_t len;
    const uint8_t *data = g_bytes_get_data(t->piece, &len);
    for (size_t done = 0; done < len && !t->err;) {
        ssize_t n = write(t->fd, data + done, len - done);
        t->err = n < 0 && errno != EINTR ? errno : 0;
        done += n > 0 ? (size_t)n : 0;
    }
}

/* ---- both ways ---- */

static void wake(struct transfer *t)
{
    task_event_happen(&t->moved);
}

static void wait_for_peer(struct transfer *t)
{
    task_event_wait(&t->moved, -1);
    t->moved = (struct task_event){0};
}

static void on_finished(SoupServerMessage *msg, gpointer opaque)
{
    struct transfer *t = opaque;
    t->gone = true;
    wake(t);
}

static struct transfer *transfer_new(SoupServerMessage *msg, JsonObject *args, GError **error)
{
    struct pool *p = pool_find_name(json_object_get_string_member(args, "pool"), error);
    if (!p)
        return NULL;
    struct transfer *t = g_new0(struct transfer, 1);
    *t = (struct transfer){.msg = g_object_ref(msg),
                           .pool = p,
                           .name = g_strdup(json_object_get_string_member(args, "volume")),
                           .offset = (uint64_t)json_object_get_int_member_with_default(args, "offset", 0),
                           .length = (uint64_t)json_object_get_int_member_with_default(args, "length", 0),
                           .force = json_object_get_boolean_member_with_default(args, "force", FALSE),
                           .fd = -1};
    t->signals[0] = g_signal_connect(msg, "finished", G_CALLBACK(on_finished), t);
    return t;
}

static void transfer_free(struct transfer *t)
{
    for (size_t i = 0; i < G_N_ELEMENTS(t->signals); i++)
        if (t->signals[i])
            g_signal_handler_disconnect(t->msg, t->signals[i]);
    g_clear_pointer(&t->piece, g_bytes_unref);
    g_object_unref(t->msg);
    pool_unref(t->pool);
    g_free(t->name);
    g_free(t->buf);
    g_free(t);
}

static bool open_volume(struct transfer *t, bool write, GError **error)
{
    enum volume_access access = !write ? VOLUME_READ : t->force ? VOLUME_WRITE : VOLUME_WRITE_UNUSED;
    t->fd = volume_open(web_caller(t->msg), t->pool, t->name, access, t->offset, t->length, &t->left,
                        error);
    return t->fd >= 0;
}

/* ---- out ---- */

static void on_wrote(SoupServerMessage *msg, gpointer opaque)
{
    wake(opaque);
}

static void begin_answer(struct transfer *t)
{
    SoupMessageHeaders *h = soup_server_message_get_response_headers(t->msg);
    soup_server_message_set_status(t->msg, 200, NULL);
    soup_message_headers_set_content_type(h, "application/octet-stream", NULL);
    soup_message_headers_set_content_length(h, (goffset)t->left);
    soup_message_body_set_accumulate(soup_server_message_get_response_body(t->msg), FALSE);
    t->signals[1] = g_signal_connect(t->msg, "wrote-chunk", G_CALLBACK(on_wrote), t);
}

/* Before the peer has all of it, so that the volume is nobody's when it goes on. */
static void end_reading(struct transfer *t)
{
    if (t->fd >= 0)
        volume_close(t->pool, t->name, t->fd, false);
    t->fd = -1;
}

/* A volume that ends early, or cannot be read: the answer is cut off, which its length tells. */
static void send_all(struct transfer *t)
{
    SoupMessageBody *body = soup_server_message_get_response_body(t->msg);
    while (t->left && !t->gone) {
        task_work_long(read_piece, t);
        if (t->gone)
            return;
        if (!t->count) {
            web_drop(t->msg);
            return;
        }
        t->left -= t->count;
        if (!t->left)
            end_reading(t);
        soup_message_body_append_take(body, g_memdup2(t->buf, t->count), t->count);
        soup_server_message_unpause(t->msg);
        wait_for_peer(t);
    }
    if (!t->gone)
        soup_message_body_complete(body);
}

static void download_task(void *opaque)
{
    struct transfer *t = opaque;
    g_autoptr(GError) error = NULL;
    if (open_volume(t, false, &error)) {
        t->buf = g_malloc(TRANSFER_BYTES);
        begin_answer(t);
        send_all(t);
        end_reading(t);
    } else {
        web_answer_error(t->msg, error);
    }
    if (!t->gone)
        soup_server_message_unpause(t->msg);
    transfer_free(t);
}

void web_download(SoupServerMessage *msg, JsonObject *args)
{
    g_autoptr(GError) error = NULL;
    struct transfer *t = transfer_new(msg, args, &error);
    if (!t) {
        web_answer_error(msg, error);
        return;
    }
    soup_server_message_pause(msg);
    task_start(download_task, t);
}

/* ---- in ---- */

static void on_chunk(SoupServerMessage *msg, GBytes *chunk, gpointer opaque)
{
    struct transfer *t = opaque;
    t->piece = g_bytes_ref(chunk);
    soup_server_message_pause(msg);
    wake(t);
}

static bool fits(struct transfer *t, GError **error)
{
    uint64_t length = (uint64_t)soup_message_headers_get_content_length(
        soup_server_message_get_request_headers(t->msg));
    return length <= t->left || ruche_error(error, RUCHE_ERR_NO_SPACE,
                                            "volume '%s': %" G_GUINT64_FORMAT
                                            " bytes do not fit; %" G_GUINT64_FORMAT " do",
                                            t->name, length, t->left);
}

static bool receive_all(struct transfer *t, GError **error)
{
    soup_server_message_unpause(t->msg);
    while (!t->all_sent && !t->gone && !t->err) {
        wait_for_peer(t);
        if (t->piece)
            task_work_long(write_piece, t);
        if (t->piece && !t->gone && !t->err)
            soup_server_message_unpause(t->msg);
        g_clear_pointer(&t->piece, g_bytes_unref);
    }
    return !t->err || ruche_error_errno(error, t->err, "volume '%s' cannot be written", t->name);
}

/* What is refused is said at once; what the peer still sends is not read. */
static void refuse(struct transfer *t, const GError *error)
{
    web_answer_error(t->msg, error);
    soup_message_headers_replace(soup_server_message_get_response_headers(t->msg), "Connection",
                                 "close");
    if (!t->all_sent)
        web_refuse_body(t->msg);
}

static void upload_task(void *opaque)
{
    struct transfer *t = opaque;
    g_autoptr(GError) error = NULL;
    bool opened = open_volume(t, true, &error);
    bool ok = opened && fits(t, &error) && !t->gone && receive_all(t, &error);
    if (t->signals[1]) {
        g_signal_handler_disconnect(t->msg, t->signals[1]);
        t->signals[1] = 0;
    }
    if (opened)
        volume_close(t->pool, t->name, t->fd, true);
    g_object_set_data(G_OBJECT(t->msg), UPLOAD_KEY, NULL);
    if (!ok && error && !t->gone)
        refuse(t, error);
    else if (!t->gone)
        web_answer_empty(t->msg);
    if (!t->gone)
        soup_server_message_unpause(t->msg);
    transfer_free(t);
}

void web_upload_begin(SoupServerMessage *msg, JsonObject *args)
{
    g_autoptr(GError) error = NULL;
    soup_message_body_set_accumulate(soup_server_message_get_request_body(msg), FALSE);
    struct transfer *t = transfer_new(msg, args, &error);
    if (!t) {
        web_answer_error(msg, error);
        web_refuse_body(msg);
        return;
    }
    t->signals[1] = g_signal_connect(msg, "got-chunk", G_CALLBACK(on_chunk), t);
    g_object_set_data(G_OBJECT(msg), UPLOAD_KEY, t);
    soup_server_message_pause(msg);
    task_start(upload_task, t);
}

bool web_upload_end(SoupServerMessage *msg)
{
    struct transfer *t = g_object_get_data(G_OBJECT(msg), UPLOAD_KEY);
    if (!t)
        return false;
    t->all_sent = true;
    soup_server_message_pause(msg);
    wake(t);
    return true;
}
