/* SPDX-License-Identifier: GPL-2.0-or-later */
/* /console/NAME as a websocket: binary messages are the bytes of a machine's console. A text message from the
 * peer is a number: so many bytes has it taken.
 *
 * Spec      RFC 6455. Thread: the loop thread. Trust: neither end makes us larger: the guest is not read while
 *           CONSOLE_MAX_OUTPUT bytes have not been taken, and input that it does not read ends at
 *           CONSOLE_MAX_INPUT.
 */
#include "web/internal.h"

#include "base/fd.h"
#include "base/sock.h"
#include "base/units.h"
#include "base/util.h"
#include "manager/domain/domain.h"

#include <glib-unix.h>
#include <string.h>

#define CONSOLE_MAX_INPUT (64u << 10)
#define CONSOLE_MAX_OUTPUT (256u << 10)

struct console {
    SoupWebsocketConnection *socket;
    struct caller who;
    char *name;
    bool force, opening, closed;
    int fd; /* -1: not there yet, or gone */
    GByteArray *to_guest;
    uint64_t untaken; /* bytes sent and not taken by the peer */
    guint reader, writer;
};

static void console_free(struct console *c)
{
    if (c->reader)
        g_source_remove(c->reader);
    if (c->writer)
        g_source_remove(c->writer);
    fd_close_keep_errno(c->fd);
    g_byte_array_unref(c->to_guest);
    g_object_unref(c->socket);
    caller_done(&c->who);
    g_free(c->name);
    g_free(c);
}

static void console_end(struct console *c, unsigned short code, const char *why)
{
    if (soup_websocket_connection_get_state(c->socket) == SOUP_WEBSOCKET_STATE_OPEN)
        soup_websocket_connection_close(c->socket, code, why);
}

static gboolean on_guest(int fd, GIOCondition condition, gpointer opaque)
{
    struct console *c = opaque;
    uint8_t data[4096];
    ssize_t n = read(fd, data, sizeof(data));
    if (n > 0) {
        soup_websocket_connection_send_binary(c->socket, data, (size_t)n);
        c->untaken += (size_t)n;
        if (c->untaken < CONSOLE_MAX_OUTPUT)
            return G_SOURCE_CONTINUE;
        c->reader = 0;
        return G_SOURCE_REMOVE;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return G_SOURCE_CONTINUE;
    c->reader = 0;
    console_end(c, SOUP_WEBSOCKET_CLOSE_NORMAL, "the machine's console ended");
    return G_SOURCE_REMOVE;
}

static gboolean on_writable(int fd, GIOCondition condition, gpointer opaque)
{
    struct console *c = opaque;
    ssize_t n = write(fd, c->to_guest->data, c->to_guest->len);
    if (n > 0)
        g_byte_array_remove_range(c->to_guest, 0, (guint)n);
    if (c->to_guest->len && (n >= 0 || errno == EAGAIN || errno == EINTR))
        return G_SOURCE_CONTINUE;
    c->writer = 0;
    return G_SOURCE_REMOVE;
}

static void take_credit(struct console *c, const char *text)
{
    uint64_t taken;
    if (units_parse_u64(text, &taken))
        c->untaken -= MIN(c->untaken, taken);
    if (c->fd >= 0 && !c->reader && c->untaken < CONSOLE_MAX_OUTPUT)
        c->reader = g_unix_fd_add(c->fd, G_IO_IN | G_IO_HUP, on_guest, c);
}

static void on_message(SoupWebsocketConnection *socket, int type, GBytes *message, gpointer opaque)
{
    struct console *c = opaque;
    size_t len;
    const uint8_t *data = g_bytes_get_data(message, &len);
    if (type == SOUP_WEBSOCKET_DATA_TEXT) {
        take_credit(c, (const char *)data); /* libsoup ends every message with a NUL behind it */
        return;
    }
    if (c->to_guest->len + len > CONSOLE_MAX_INPUT) {
        console_end(c, SOUP_WEBSOCKET_CLOSE_TOO_BIG, "the machine does not read its console");
        return;
    }
    g_byte_array_append(c->to_guest, data, (guint)len);
    if (c->fd >= 0 && !c->writer && c->to_guest->len)
        c->writer = g_unix_fd_add(c->fd, G_IO_OUT, on_writable, c);
}

static void console_open(void *opaque)
{
    struct console *c = opaque;
    g_autoptr(GError) error = NULL;
    struct domain *d = domain_find_name(c->name, &error);
    int fd = d ? domain_open_console(&c->who, d, NULL, c->force, false, &error) : -1;
    domain_unref(d);
    c->opening = false;
    if (c->closed) {
        fd_close_keep_errno(fd);
        console_free(c);
        return;
    }
    if (fd < 0) {
        g_autofree char *why = g_strndup(error->message, 120);
        console_end(c, SOUP_WEBSOCKET_CLOSE_POLICY_VIOLATION, why);
        return;
    }
    sock_set_nonblock(fd, true);
    c->fd = fd;
    c->reader = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP, on_guest, c);
    if (c->to_guest->len)
        c->writer = g_unix_fd_add(fd, G_IO_OUT, on_writable, c);
}

static void on_closed(SoupWebsocketConnection *socket, gpointer opaque)
{
    struct console *c = opaque;
    c->closed = true;
    if (!c->opening)
        console_free(c);
}

void web_console(SoupServer *server, SoupServerMessage *msg, const char *path, SoupWebsocketConnection *socket,
                 gpointer opaque)
{
    const struct caller *who = web_caller(msg);
    if (!web_authenticate(msg, NULL)) {
        soup_websocket_connection_close(socket, SOUP_WEBSOCKET_CLOSE_POLICY_VIOLATION, "who you are was not shown");
        return;
    }
    struct console *c = g_new0(struct console, 1);
    *c = (struct console){ .socket = g_object_ref(socket), .fd = -1, 
                          .opening = true, .who = *who, .to_guest = g_byte_array_new() };
    c->who.name = g_strdup(who->name);
    c->name = g_uri_unescape_string(path + strlen("/console"), NULL);
    if (c->name && *c->name == '/')
        memmove(c->name, c->name + 1, strlen(c->name));
    const char *query = g_uri_get_query(soup_server_message_get_uri(msg));
    c->force = query && !strcmp(query, "force=true");
    soup_websocket_connection_set_max_incoming_payload_size(socket, CONSOLE_MAX_INPUT);
    g_signal_connect(socket, "message", G_CALLBACK(on_message), c);
    g_signal_connect(socket, "closed", G_CALLBACK(on_closed), c);
    task_start(console_open, c);
}
