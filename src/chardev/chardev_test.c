/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Character backends as a front end and a peer see them. */
#include "base/scratch.h"
#include "chardev/chardev.h"

#include "base/sock.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct loop *loop;
static char *dir;

/* A front end that remembers. */
struct front {
    GString *got;
    size_t room;
    int opened, closed, sent, breaks, focused;
};

static size_t front_room(void *opaque)
{
    return ((struct front *)opaque)->room;
}

static void front_receive(void *opaque, const uint8_t *data, size_t len)
{
    struct front *f = opaque;
    g_assert_cmpuint(len, <=, f->room);
    g_string_append_len(f->got, (const char *)data, len);
}

static void front_opened(void *opaque, bool open)
{
    struct front *f = opaque;
    *(open ? &f->opened : &f->closed) += 1;
}

static void front_sent(void *opaque)
{
    ((struct front *)opaque)->sent++;
}

static void front_break(void *opaque)
{
    ((struct front *)opaque)->breaks++;
}

static void front_focus(void *opaque, bool in)
{
    ((struct front *)opaque)->focused += in ? 1 : -1;
}

static struct chardev_frontend front_init(struct front *f)
{
    *f = (struct front){ .got = g_string_new(NULL), .room = 4096 };
    return (struct chardev_frontend){ .can_receive = front_room, .receive = front_receive,
                                      .opened = front_opened, .sent = front_sent,
                                      .send_break = front_break, .focus = front_focus,
                                      .opaque = f };
}

static void front_done(struct front *f)
{
    g_string_free(f->got, TRUE);
}

static void turn(int rounds)
{
    for (int i = 0; i < rounds; i++)
        loop_once(loop, 0);
}

/* Turns the loop until *counter reaches `want`, two seconds at most. */
static void until(const int *counter, int want)
{
    for (int i = 0; i < 200 && *counter < want; i++)
        loop_once(loop, 10);
    g_assert_cmpint(*counter, >=, want);
}

static struct chardev *make(const char *text)
{
    g_autoptr(GError) error = NULL;
    bool monitor;
    struct chardev *c = chardev_parse(text, "c0", loop, &monitor, &error);
    g_assert_no_error(error);
    return c;
}

static void refuse(const char *text, const char *want)
{
    g_autoptr(GError) error = NULL;
    bool monitor;
    g_assert_null(chardev_parse(text, "c0", loop, &monitor, &error));
    g_assert_nonnull(error);
    g_assert_nonnull(strstr(error->message, want));
}

static char *in_dir(const char *format, const char *name)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    return g_strdup_printf(format, path);
}

static void test_refusals(void)
{
    refuse("stdoi", "'stdoi' is not a character device; did you mean 'stdio'?");
    refuse("tcp:host", "'host' is not HOST:PORT");
    refuse("unix:", "a path is missing");
    refuse("unix:/tmp/x,srever=on", "socket has no property 'srever'; did you mean 'server'?");
    refuse("unix:/tmp/x,server=maybe", "'server' must be on or off, not 'maybe'");
    refuse("unix:/nonexistent/x,server=on,wait=off",
           "cannot listen on '/nonexistent/x': No such file");
    refuse("unix:/nonexistent/x", "cannot connect to '/nonexistent/x'");
    refuse("file:/nonexistent/x", "'/nonexistent/x': No such file");
    refuse("unix:/tmp/x,wait=off", "'wait' is for servers");
    g_autofree char *long_path = g_strnfill(200, 'p'),
                    *spec = g_strdup_printf("unix:/%s,server=on", long_path);
    refuse(spec, "the system takes 107 at most");
    g_autoptr(GError) error = NULL;
    bool monitor;
    g_assert_null(chardev_parse("none", "c0", loop, &monitor, &error));
    g_assert_no_error(error);
}

static void test_file(void)
{
    g_autofree char *spec = in_dir("file:%s", "out"), *path = in_dir("%s", "out"), *text = NULL;
    struct chardev *c = make(spec);
    g_assert_cmpuint(chardev_write(c, "one\n", 4), ==, 4);
    g_assert_cmpuint(chardev_write(c, "two\n", 4), ==, 4);
    chardev_free(c);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "one\ntwo\n");
    unlink(path);
}

static void test_ringbuf(void)
{
    const struct chardev_option options[] = { { "size", "8" } };
    g_autoptr(GError) error = NULL;
    struct chardev *c =
        chardev_new("ringbuf", "r", &(struct chardev_config){ options, 1 }, loop, &error);
    char buf[16];
    size_t len;
    g_assert_no_error(error);
    chardev_write(c, "abcdefghij", 10);
    g_assert_true(chardev_ringbuf_read(c, buf, 3, &len));
    g_assert_cmpmem(buf, len, "cde", 3);
    chardev_write(c, "k", 1);
    g_assert_true(chardev_ringbuf_read(c, buf, sizeof(buf), &len));
    g_assert_cmpmem(buf, len, "fghijk", 6);
    chardev_free(c);
    const struct chardev_option odd[] = { { "size", "9" } };
    g_assert_null(chardev_new("ringbuf", "r", &(struct chardev_config){ odd, 1 }, loop, &error));
    g_assert_cmpstr(error->message, ==, "chardev 'r': 'size' must be a power of two, not 9");
}

static void test_unix_server(void)
{
    g_autofree char *spec = in_dir("unix:%s,server=on,wait=off", "sock"),
                    *path = in_dir("%s", "sock");
    g_autoptr(GError) error = NULL;
    struct chardev *c = make(spec);
    struct front f;
    struct chardev_frontend fe = front_init(&f);
    g_assert_true(chardev_attach(c, &fe, &error));
    g_assert_false(chardev_attach(c, &fe, NULL));
    refuse(spec, "is in use: somebody listens there");
    /* Nobody there: output is dropped, all of it taken. */
    g_assert_cmpuint(chardev_write(c, "lost", 4), ==, 4);
    for (int round = 1; round <= 3; round++) { /* clients come and go */
        char buf[16];
        int peer = sock_connect_unix(path, false, &error);
        until(&f.opened, round);
        g_string_truncate(f.got, 0);
        g_assert_cmpint(write(peer, "hello", 5), ==, 5);
        turn(3);
        g_assert_cmpstr(f.got->str, ==, "hello");
        chardev_write(c, "answer", 6);
        turn(2);
        g_assert_cmpint(read(peer, buf, sizeof(buf)), ==, 6);
        close(peer);
        until(&f.closed, round);
    }
    chardev_free(c);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    front_done(&f);
}

/* The front end goes on with another backend, and another. */
static void test_replace(void)
{
    g_autofree char *spec = in_dir("unix:%s,server=on,wait=off", "old"), *path = in_dir("%s", "old"),
                    *next_spec = in_dir("unix:%s,server=on,wait=off", "new"), *next = in_dir("%s", "new");
    g_autoptr(GError) error = NULL;
    struct chardev *c = make(spec);
    struct front f;
    struct chardev_frontend fe = front_init(&f);
    fe.takes_another = true;
    g_assert_true(chardev_attach(c, &fe, &error));
    int peer = sock_connect_unix(path, false, &error);
    until(&f.opened, 1);

    /* Open, and so is the next: nothing to tell. */
    g_assert_true(chardev_replace(c, make("ringbuf"), &error));
    char buf[16];
    size_t len;
    g_assert_cmpint(read(peer, buf, sizeof(buf)), ==, 0);
    close(peer);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    g_assert_cmpuint(chardev_write(c, "kept", 4), ==, 4);
    g_assert_true(chardev_ringbuf_read(c, buf, sizeof(buf), &len));
    g_assert_cmpmem(buf, len, "kept", 4);
    g_assert_cmpint(f.opened, ==, 1);
    g_assert_cmpint(f.closed, ==, 0);

    g_assert_true(chardev_replace(c, make(next_spec), &error)); /* nobody is there yet */
    g_assert_cmpint(f.closed, ==, 1);
    g_assert_false(chardev_is_open(c));
    peer = sock_connect_unix(next, false, &error);
    until(&f.opened, 2);
    g_assert_true(chardev_in_use(c) && chardev_is_open(c));
    g_autofree char *where = chardev_describe(c);
    g_assert_nonnull(strstr(where, next));
    g_assert_cmpint(write(peer, "hello", 5), ==, 5);
    turn(3);
    g_assert_cmpstr(f.got->str, ==, "hello");
    g_assert_cmpuint(chardev_write(c, "answer", 6), ==, 6);
    turn(2);
    g_assert_cmpint(read(peer, buf, sizeof(buf)), ==, 6);
    close(peer);
    chardev_detach(c, fe.opaque);
    g_assert_false(chardev_in_use(c));
    chardev_free(c);
    g_assert_false(g_file_test(next, G_FILE_TEST_EXISTS));
    front_done(&f);
}

static void test_replace_refused(void)
{
    g_autoptr(GError) error = NULL;
    const struct chardev_option shared = { "mux", "on" };
    struct chardev *c = make("ringbuf"), *fresh = make("null"),
                   *mux = chardev_new("ringbuf", "m0", &(struct chardev_config){ &shared, 1 }, loop, NULL);
    struct front f;
    struct chardev_frontend fe = front_init(&f);
    g_assert_true(chardev_attach(c, &fe, NULL));
    g_assert_false(chardev_replace(c, fresh, &error));
    g_assert_nonnull(strstr(error->message, "Chardev 'c0' is busy"));
    g_clear_error(&error);
    chardev_detach(c, fe.opaque);
    fe.takes_another = true;
    g_assert_true(chardev_attach(c, &fe, NULL));
    g_assert_false(chardev_replace(c, mux, &error));
    g_assert_nonnull(strstr(error->message, "cannot become a mux"));
    g_clear_error(&error);
    g_assert_false(chardev_replace(mux, fresh, &error));
    g_assert_nonnull(strstr(error->message, "is a mux"));
    g_assert_true(chardev_in_use(c)); /* and is what it was */
    chardev_free(c);
    chardev_free(mux);
    chardev_free(fresh);
    front_done(&f);
}

struct writer {
    struct chardev *c;
    int end;
    size_t taken;
};

static gpointer write_on(gpointer opaque)
{
    struct writer *w = opaque;
    while (!g_atomic_int_get(&w->end))
        w->taken += chardev_write(w->c, "0123456789", 10);
    return NULL;
}

/* A vCPU writes meanwhile; and one whose output waited for a peer that never reads hears that it goes on. */
static void test_replace_under_writer(void)
{
    g_autofree char *spec = in_dir("unix:%s,server=on,wait=off", "stuck"), *path = in_dir("%s", "stuck");
    struct chardev *c = make(spec);
    struct front f;
    struct chardev_frontend fe = front_init(&f);
    fe.takes_another = true;
    g_assert_true(chardev_attach(c, &fe, NULL));
    int peer = sock_connect_unix(path, true, NULL);
    until(&f.opened, 1);
    g_autofree char *block = g_strnfill(1 << 20, 'x');
    while (chardev_write(c, block, 1 << 20) == 1 << 20)
        turn(1);
    g_assert_cmpint(f.sent, ==, 0);
    struct writer w = { .c = c };
    GThread *thread = g_thread_new("writer", write_on, &w);
    for (int i = 0; i < 200; i++) {
        g_assert_true(chardev_replace(c, make(i % 2 ? "ringbuf" : "null"), NULL));
        turn(1);
    }
    g_atomic_int_set(&w.end, 1);
    g_thread_join(thread);
    g_assert_cmpint(f.sent, >=, 1);
    close(peer);
    chardev_free(c);
    front_done(&f);
}

static void test_stale_socket(void)
{
    g_autofree char *spec = in_dir("unix:%s,server=on,wait=off", "stale"),
                    *path = in_dir("%s", "stale");
    int fd = sock_listen_unix(path, NULL, NULL);
    close(fd); /* the file stays, nobody listens */
    g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
    struct chardev *c = make(spec);
    chardev_free(c);
    g_assert_true(g_file_set_contents(path, "x", 1, NULL));
    refuse(spec, "exists and is not a socket");
    unlink(path);
}

/* Clients that come all at once wait for us; none is turned away. */
static void test_crowd(void)
{
    g_autofree char *path = in_dir("%s", "crowd");
    int fd = sock_listen_unix(path, NULL, NULL), crowd[100];
    for (unsigned i = 0; i < G_N_ELEMENTS(crowd); i++) {
        crowd[i] = sock_connect_unix(path, true, NULL);
        g_assert_cmpint(crowd[i], >=, 0);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(crowd); i++)
        close(crowd[i]);
    close(fd);
    unlink(path);
}

/* The front end's room holds input back; a slow peer holds output back, bounded, and sent() tells
 * when it is over. */
static void test_backpressure(void)
{
    g_autofree char *spec = in_dir("unix:%s,server=on,wait=off", "slow"),
                    *path = in_dir("%s", "slow");
    g_autofree char *block = g_strnfill(1 << 20, 'x'), *sink = g_malloc(1 << 20);
    struct chardev *c = make(spec);
    struct front f;
    struct chardev_frontend fe = front_init(&f);
    g_assert_true(chardev_attach(c, &fe, NULL));
    int peer = sock_connect_unix(path, true, NULL);
    until(&f.opened, 1);
    f.room = 0;
    g_assert_cmpint(write(peer, "12345", 5), ==, 5);
    turn(3);
    g_assert_cmpuint(f.got->len, ==, 0);
    f.room = 2;
    chardev_accept_input(c);
    turn(6);
    g_assert_cmpstr(f.got->str, ==, "12345");

    size_t taken = 0, n;
    for (int i = 0; i < 8 && (n = chardev_write(c, block, 1 << 20)); i++)
        taken += n;
    g_assert_cmpuint(taken, <, 4 << 20);
    g_assert_cmpint(f.sent, ==, 0);
    size_t received = 0;
    for (int i = 0; i < 4000 && received < taken; i++) {
        ssize_t got = read(peer, sink, 1 << 20);
        received += got > 0 ? got : 0;
        turn(1);
    }
    g_assert_cmpuint(received, ==, taken);
    g_assert_cmpint(f.sent, >=, 1);
    close(peer);
    until(&f.closed, 1);
    chardev_free(c);
    front_done(&f);
}

static void test_telnet(void)
{
    g_autoptr(GError) error = NULL;
    struct chardev *c = make("telnet:127.0.0.1:0,server=on,wait=off");
    struct front f;
    struct chardev_frontend fe = front_init(&f);
    chardev_attach(c, &fe, NULL);
    g_autofree char *where = chardev_describe(c);
    g_auto(GStrv) parts = g_strsplit_set(where, ":,", 0);
    g_assert_cmpstr(parts[0], ==, "disconnected");
    int peer = sock_connect_tcp("127.0.0.1", parts[3], false, &error);
    g_assert_no_error(error);
    until(&f.opened, 1);
    uint8_t buf[64];
    g_assert_cmpint(read(peer, buf, sizeof(buf)), ==, 12);
    g_assert_cmpint(buf[0], ==, 255);
    /* DO ECHO, "a", escaped 0xff, a sub-negotiation, a break, "b": two bytes at a time. */
    const uint8_t in[] = {
        255, 253, 1, 'a', 255, 255, 255, 250, 31, 0, 80, 255, 240, 255, 243, 'b'
    };
    for (size_t i = 0; i < sizeof(in); i += 2) {
        g_assert_cmpint(write(peer, in + i, 2), ==, 2);
        turn(3);
    }
    until(&f.breaks, 1);
    g_assert_cmpstr(f.got->str, ==, "a\xff" "b");
    chardev_write(c, "x\xff", 2);
    turn(2);
    g_assert_cmpint(read(peer, buf, sizeof(buf)), ==, 3);
    g_assert_cmpint(buf[2], ==, 255);
    close(peer);
    chardev_free(c);
    front_done(&f);
}

static void test_reconnect(void)
{
    g_autofree char *path = in_dir("%s", "later"), *spec = in_dir("unix:%s,reconnect=1", "later");
    struct chardev *c = make(spec);
    struct front f;
    struct chardev_frontend fe = front_init(&f);
    chardev_attach(c, &fe, NULL);
    turn(3);
    g_assert_false(chardev_is_open(c));
    struct sock_path ours;
    int listener = sock_listen_unix(path, &ours, NULL);
    until(&f.opened, 1);
    int peer = sock_accept(listener);
    close(peer);
    until(&f.closed, 1);
    until(&f.opened, 2);
    sock_path_remove(&ours);
    close(listener);
    chardev_free(c);
    front_done(&f);
}

static void quit(void *opaque)
{
    ++*(int *)opaque;
}

static void test_mux(void)
{
    g_autofree char *spec = in_dir("unix:%s,server=on,wait=off,mux=on", "mux"),
                    *path = in_dir("%s", "mux");
    struct chardev *c = make(spec);
    struct front a, b;
    struct chardev_frontend fa = front_init(&a), fb = front_init(&b);
    int quits = 0;
    chardev_on_quit(c, quit, &quits);
    g_assert_true(chardev_attach(c, &fa, NULL) && chardev_attach(c, &fb, NULL));
    int peer = sock_connect_unix(path, false, NULL);
    until(&a.opened, 1);
    g_assert_cmpint(a.focused, ==, 1);
    g_assert_cmpint(write(peer, "one\x01" "ctwo\x01\x01\x01" "bx", 13), ==, 13);
    turn(4);
    g_assert_cmpstr(a.got->str, ==, "one");
    g_assert_cmpstr(b.got->str, ==, "two\x01x");
    g_assert_cmpint(b.breaks, ==, 1);
    g_assert_cmpint(b.focused, ==, 1);
    g_assert_cmpint(a.focused, ==, 0);
    /* A stuck front end does not lock the door. */
    b.room = 0;
    g_autofree char *flood = g_strnfill(200000, 'f');
    for (size_t sent = 0; sent < 200000;) {
        ssize_t n = send(peer, flood + sent, 200000 - sent, MSG_DONTWAIT);
        sent += n > 0 ? n : 0;
        turn(1);
    }
    g_assert_cmpint(write(peer, "\x01", 1), ==, 1);
    turn(3);
    g_assert_cmpint(write(peer, "x", 1), ==, 1);
    until(&quits, 1);
    close(peer);
    chardev_free(c);
    front_done(&a);
    front_done(&b);
}

static void test_pty(void)
{
    struct chardev *c = make("pty");
    struct front f;
    struct chardev_frontend fe = front_init(&f);
    chardev_attach(c, &fe, NULL);
    g_autofree char *where = chardev_describe(c);
    g_assert_true(g_str_has_prefix(where, "disconnected:pty:/dev/pts/"));
    g_assert_cmpuint(chardev_write(c, "lost", 4), ==, 4);
    for (int round = 1; round <= 2; round++) {
        char buf[16];
        int peer = open(where + strlen("disconnected:pty:"), O_RDWR | O_NOCTTY);
        g_assert_cmpint(peer, >=, 0);
        until(&f.opened, round);
        chardev_write(c, "hi\n", 3);
        g_assert_cmpint(read(peer, buf, sizeof(buf)), ==, 3);
        g_assert_cmpint(write(peer, "yo", 2), ==, 2);
        for (int i = 0; i < 100 && f.got->len < 2u * round; i++)
            loop_once(loop, 10);
        g_assert_cmpuint(f.got->len, ==, 2u * round);
        close(peer);
        until(&f.closed, round);
    }
    chardev_free(c);
    front_done(&f);
}

static void test_pipe_and_log(void)
{
    g_autofree char *path = in_dir("%s", "fifo"), *log = in_dir("%s", "log");
    g_autofree char *spec = g_strdup_printf("pipe:%s,logfile=%s", path, log), *text = NULL;
    g_assert_cmpint(mkfifo(path, 0600), ==, 0);
    struct chardev *c = make(spec);
    chardev_write(c, "logged", 6);
    chardev_free(c);
    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "logged");
    unlink(path);
    unlink(log);
}

static void test_help(void)
{
    const char *name, *help;
    for (const char *const *n = chardev_backends(); *n; n++) {
        g_assert_nonnull(chardev_backend_summary(*n));
        for (size_t i = 0; chardev_backend_option(*n, i, &name, &help); i++)
            g_assert_true(name && help);
    }
    g_assert_true(g_strv_contains(chardev_backends(), "socket"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    loop = loop_new("test");
    dir = scratch_folder("ruche-chardev");
    g_test_add_func("/chardev/refusals", test_refusals);
    g_test_add_func("/chardev/file", test_file);
    g_test_add_func("/chardev/ringbuf", test_ringbuf);
    g_test_add_func("/chardev/unix-server", test_unix_server);
    g_test_add_func("/chardev/replace", test_replace);
    g_test_add_func("/chardev/replace-refused", test_replace_refused);
    g_test_add_func("/chardev/replace-under-writer", test_replace_under_writer);
    g_test_add_func("/chardev/stale-socket", test_stale_socket);
    g_test_add_func("/chardev/crowd", test_crowd);
    g_test_add_func("/chardev/backpressure", test_backpressure);
    g_test_add_func("/chardev/telnet", test_telnet);
    g_test_add_func("/chardev/reconnect", test_reconnect);
    g_test_add_func("/chardev/mux", test_mux);
    g_test_add_func("/chardev/pty", test_pty);
    g_test_add_func("/chardev/pipe-and-log", test_pipe_and_log);
    g_test_add_func("/chardev/help", test_help);
    int status = g_test_run();
    loop_free(loop);
    return status;
}
