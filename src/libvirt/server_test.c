/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits that take a server with small ones: clients that do not open, do not read, flood or are
 * too many; and what they leave behind when they go. */
#include "base/fd.h"
#include "base/scratch.h"
#include "libvirt/client.h"
#include "libvirt/stream.h"
#include "manager/event.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct libvirt_server_config config;
static char *folder;
static const char *dirs[2];

static void start(void)
{
    g_autoptr(GError) error = NULL;
    libvirt_server_config_init(&config);
    folder = g_dir_make_tmp("wire-XXXXXX", NULL);
    dirs[0] = folder;
    config.socket_dirs = dirs;
    config.auth_unix_rw = LIBVIRT_AUTH_NONE;
    config.max_half_open = 4;
    config.max_clients = 8;
    config.half_open_s = 1;
    config.stalled_s = 1;
    config.max_output_bytes = 1 << 20;
    config.pause_output_bytes = 64 << 10;
    libvirt_server_start(&config, &error);
    g_assert_no_error(error);
}

static void stop(void)
{
    libvirt_server_stop();
    g_autofree char *path = g_build_filename(folder, "libvirt-sock", NULL);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    g_assert_cmpint(g_rmdir(folder), ==, 0);
    g_clear_pointer(&folder, g_free);
}

/* Lets the server work until there is nothing to do, or for some time. */
static void serve(int ms)
{
    int64_t end = g_get_monotonic_time() + ms * 1000;
    do {
        while (g_main_context_iteration(NULL, FALSE))
            ;
        if (ms)
            g_usleep(1000);
    } while (g_get_monotonic_time() < end);
}

static int dial(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    g_snprintf(a.sun_path, sizeof(a.sun_path), "%s/libvirt-sock", folder);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&a, sizeof(a)), ==, 0);
    serve(2);
    return fd;
}

static void say(int fd, uint32_t procedure, const void *body, size_t len)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    const struct frame f = {PROGRAM_REMOTE, PROGRAM_VERSION, procedure, FRAME_CALL, 1, FRAME_OK};
    guint begin = frame_begin(out, &f);
    g_byte_array_append(out, body, (guint)len);
    frame_end(out, begin);
    g_assert_cmpint(send(fd, out->data, out->len, MSG_NOSIGNAL), ==, out->len);
    serve(0);
}

/* Bytes that have come; -1: it is closed. */
static ssize_t heard(int fd)
{
    char buf[4096];
    ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
    return n < 0 && errno == EAGAIN ? 0 : n > 0 ? n : -1;
}

static int dial_open(void)
{
    int fd = dial();
    say(fd, 1, "\0\0\0\0\0\0\0", 8);
    serve(2);
    g_assert_cmpint(heard(fd), ==, 28);
    return fd;
}

static unsigned clients(void)
{
    struct libvirt_server_figures f;
    libvirt_server_figures(&f);
    return f.clients;
}

static void test_half_open(void)
{
    start();
    int fds[6], good = dial_open();
    for (unsigned i = 0; i < G_N_ELEMENTS(fds); i++)
        fds[i] = dial();
    g_assert_cmpuint(clients(), ==, 5); /* four half-open ones and the good one */
    g_assert_cmpint(heard(fds[0]), ==, -1);
    g_assert_cmpint(heard(fds[1]), ==, -1);
    g_assert_cmpint(heard(fds[5]), ==, 0);
    serve(3200); /* and these do not stay */
    g_assert_cmpuint(clients(), ==, 1);
    say(good, 157, NULL, 0);
    g_assert_cmpint(heard(good), ==, 36);
    for (unsigned i = 0; i < G_N_ELEMENTS(fds); i++)
        close(fds[i]);
    close(good);
    stop();
}

static void test_too_many(void)
{
    start();
    int fds[9];
    for (unsigned i = 0; i < 8; i++)
        fds[i] = dial_open();
    fds[8] = dial(); /* waits */
    say(fds[8], 1, "\0\0\0\0\0\0\0", 8);
    serve(5);
    g_assert_cmpuint(clients(), ==, 8);
    g_assert_cmpint(heard(fds[8]), ==, 0);
    close(fds[0]);
    serve(5);
    g_assert_cmpint(heard(fds[8]), ==, 28); /* its turn */
    for (unsigned i = 1; i < 9; i++)
        close(fds[i]);
    serve(5);
    g_assert_cmpuint(clients(), ==, 0);
    stop();
}

static void emit_many(unsigned count)
{
    const uint8_t uuid[16] = {1};
    const struct event e = {.class = EVENT_DOMAIN,
                            .id = DOMAIN_EVENT_LIFECYCLE,
                            .name = "flood",
                            .uuid = uuid,
                            .object_id = -1};
    for (unsigned i = 0; i < count; i++)
        event_emit(&e);
}

static void test_event_flood(void)
{
    start();
    int deaf = dial_open(), other = dial_open();
    say(deaf, 316, "\0\0\0\0\0\0\0", 8);
    g_assert_cmpint(heard(deaf), ==, 32);
    emit_many(1000);
    serve(2);
    g_assert_cmpuint(clients(), ==, 2);
    emit_many(40000); /* 3 MB and more */
    serve(2);
    g_assert_cmpuint(clients(), ==, 1);
    say(other, 157, NULL, 0);
    g_assert_cmpint(heard(other), ==, 36);
    close(deaf);
    close(other);
    stop();
}

/* Answers that are not read hold back reading, and end the connection after a while. */
static void test_stalled(void)
{
    start();
    int deaf = dial_open();
    g_autoptr(GByteArray) calls = g_byte_array_new();
    for (unsigned i = 0; i < 10000; i++) {
        const struct frame f = {PROGRAM_REMOTE, PROGRAM_VERSION, 157, FRAME_CALL, i, FRAME_OK};
        frame_end(calls, frame_begin(calls, &f));
    }
    ssize_t n = 1;
    for (unsigned round = 0; round < 200 && n > 0; round++) {
        n = send(deaf, calls->data, calls->len, MSG_NOSIGNAL | MSG_DONTWAIT);
        serve(0);
    }
    g_assert_cmpint(n, <, 0); /* nothing more is taken */
    g_assert_cmpuint(server_input_bytes, <, 1 << 20);
    serve(3200);
    g_assert_cmpuint(clients(), ==, 0);
    g_assert_cmpuint(server_input_bytes, ==, 0);
    close(deaf);
    stop();
}

/* ---- a stream whose client goes while a worker writes ---- */

enum { PROC_UPLOAD = 500 }; /* nobody's */
static int sink[2]; /* a pipe: its writer waits when it is full */
static unsigned uploads_over;

static void upload_over(void *opaque, int fd, bool failed)
{
    g_assert_true(failed);
    close(fd);
    uploads_over++;
}

static bool upload_to_sink(struct rpc_call *c, void *args, void *ret, GError **error)
{
    stream_on_end(stream_new_upload(c, fd_steal(&sink[1]), UINT64_MAX), upload_over, NULL);
    return true;
}
RPC_PROC(test_upload, .number = PROC_UPLOAD, .flags = RPC_STREAM, .call = upload_to_sink);

static void send_data(int fd, size_t len)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_autofree uint8_t *data = g_malloc0(len);
    const struct frame f = {PROGRAM_REMOTE, PROGRAM_VERSION, PROC_UPLOAD,
                            FRAME_STREAM,   1,               FRAME_CONTINUE};
    guint begin = frame_begin(out, &f);
    g_byte_array_append(out, data, (guint)len);
    frame_end(out, begin);
    g_assert_cmpint(send(fd, out->data, out->len, MSG_NOSIGNAL), ==, out->len);
}

static size_t drain(void)
{
    g_autofree uint8_t *data = g_malloc(128 << 10);
    size_t sum = 0;
    for (ssize_t n; (n = read(sink[0], data, 128 << 10)) > 0;)
        sum += (size_t)n;
    return sum;
}

/* Its source is free when the last block is written, not before: who opens it next is alone. */
static void test_upload_cut(void)
{
    enum { BLOCK = 100000 }; /* more than a pipe holds */
    start();
    g_assert_cmpint(pipe2(sink, O_CLOEXEC), ==, 0);
    int fd = dial_open();
    say(fd, PROC_UPLOAD, NULL, 0);
    g_assert_cmpint(heard(fd), ==, 28);
    send_data(fd, BLOCK);
    serve(50);
    close(fd);
    serve(50);
    g_assert_cmpuint(clients(), ==, 0);
    g_assert_cmpuint(uploads_over, ==, 0);
    size_t sum = 0;
    g_assert_cmpint(fcntl(sink[0], F_SETFL, O_NONBLOCK), ==, 0);
    for (unsigned i = 0; i < 1000 && !uploads_over; i++) {
        sum += drain();
        serve(10);
    }
    g_assert_cmpuint(uploads_over, ==, 1);
    g_assert_cmpuint(sum + drain(), ==, BLOCK);
    char c;
    g_assert_cmpint(read(sink[0], &c, 1), ==, 0); /* nobody writes any more */
    close(sink[0]);
    stop();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("wire");
    g_test_add_func("/server/half-open", test_half_open);
    g_test_add_func("/server/too many", test_too_many);
    g_test_add_func("/server/event flood", test_event_flood);
    g_test_add_func("/server/stalled", test_stalled);
    g_test_add_func("/server/upload cut", test_upload_cut);
    return g_test_run();
}
