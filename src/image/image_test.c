/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Images as a device sees them: every operation, on io_uring and on threads; locks between
 * processes; full disks. */
#include "image/image.h"
#include "image/node.h"

#include "base/fd.h"
#include "base/fdset.h"
#include "base/refuse_testing.h"
#include "base/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define SIZE (4u << 20)

struct fixture {
    char *folder, *path;
    struct loop *loop;
    struct context *ctx;
    struct graph *graph;
    struct image *image;
};

struct test_options {
    const char *filename, *format;
    bool read_only, direct, discard, no_lock, force_share, writethrough;
};

/* From now on this process is one of those that may not have an io_uring. */
static void refuse_io_uring(void)
{
    refuse_call(SYS_io_uring_setup, EPERM);
    g_assert_cmpint(syscall(SYS_io_uring_setup, 1, NULL), <, 0);
    g_assert_cmpint(errno, ==, EPERM);
}

static void setup(struct fixture *f, gconstpointer data)
{
    f->folder = g_dir_make_tmp("ruche-image-XXXXXX", NULL);
    f->path = g_build_filename(f->folder, "disk.img", NULL);
    f->loop = loop_new("test");
    static bool refused;
    if (data && !refused) {
        refuse_io_uring();
        refused = true;
    }
    f->ctx = context_new(NULL);
    f->graph = graph_new(f->ctx);
    autofd fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    g_assert_cmpint(ftruncate(fd, SIZE), ==, 0);
}

static void teardown(struct fixture *f, gconstpointer data)
{
    image_close(f->image);
    graph_free(f->graph);
    context_free(f->ctx);
    loop_free(f->loop);
    g_unlink(f->path);
    g_rmdir(f->folder);
    g_free(f->path);
    g_free(f->folder);
}

static struct test_options options_of(const struct fixture *f)
{
    return (struct test_options){ .filename = f->path, .format = "raw" };
}

static struct image *try_open(struct fixture *f, const struct test_options *o, GError **error)
{
    g_autofree char *text = g_strdup_printf(
        "{\"cache\": {\"direct\": %s}, \"discard\": \"%s\", \"force-share\": %s}",
        o->direct ? "true" : "false", o->discard ? "unmap" : "ignore",
        o->force_share ? "true" : "false");
    g_autofree char *name = g_strdup_printf(
        "json:{\"driver\": \"file\", \"filename\": \"%s\", \"locking\": \"%s\"}", o->filename,
        o->no_lock ? "off" : "auto");
    g_autoptr(JsonNode) extra = json_from_string(text, NULL);
    struct node *n = node_open_name(f->graph, name, o->format, json_node_get_object(extra),
                                    o->read_only ? 0 : NODE_RW, error);
    struct image *i = n ? image_new("disk0", n, error) : NULL;
    node_unref(n);
    return i;
}

static void open_image(struct fixture *f, const struct test_options *o)
{
    GError *error = NULL;
    f->image = try_open(f, o, &error);
    g_assert_no_error(error);
    g_assert_cmpint(image_set_loop(f->image, f->loop), ==, 0);
}

struct wait {
    struct image_request r;
    int result;
    bool done;
};

static void wait_done(struct image_request *r, int result)
{
    struct wait *w = r->opaque;
    g_assert_false(w->done);
    w->done = true;
    w->result = result;
}

static void submit(struct fixture *f, struct wait *w)
{
    w->r.done = wait_done;
    w->r.opaque = w;
    w->done = false;
    image_submit(f->image, &w->r);
    g_assert_false(w->done); /* never from inside submit */
}

static int finish(struct fixture *f, struct wait *w)
{
    for (int n = 0; n < 1000 && !w->done; n++)
        loop_once(f->loop, 10);
    g_assert_true(w->done);
    return w->result;
}

static int run(struct fixture *f, enum image_op op, uint64_t off, uint64_t len,
               const struct iovec *iov, unsigned count)
{
    struct wait w = { .r = {
                          .op = op, .offset = off, .len = len, .iov = iov, .iov_count = count } };
    submit(f, &w);
    return finish(f, &w);
}

static int run_buf(struct fixture *f, enum image_op op, uint64_t off, void *buf, uint64_t len)
{
    struct iovec iov = { buf, len };
    return run(f, op, off, len, &iov, 1);
}

static bool all_are(const uint8_t *p, size_t len, uint8_t v)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i] != v)
            return false;
    }
    return true;
}

static void test_read_write(struct fixture *f, gconstpointer data)
{
    struct test_options o = options_of(f);
    open_image(f, &o);
    struct image_info info;
    image_get_info(f->image, &info);
    g_assert_cmpuint(info.size_bytes, ==, SIZE);
    g_assert_cmpuint(info.block_bytes, ==, 512);
    uint8_t a[512], b[1024], c[3584], all[5120], back[5120];
    memset(a, 1, sizeof(a));
    memset(b, 2, sizeof(b));
    memset(c, 3, sizeof(c));
    struct iovec iov[] = { { a, sizeof(a) }, { b, sizeof(b) }, { c, sizeof(c) } };
    g_assert_cmpint(run(f, IMAGE_WRITE, 1024, 5120, iov, 3), ==, 0);
    g_assert_cmpint(run_buf(f, IMAGE_READ, 1024, back, sizeof(back)), ==, 0);
    memcpy(all, a, 512);
    memcpy(all + 512, b, 1024);
    memcpy(all + 1536, c, 3584);
    g_assert_cmpmem(back, sizeof(back), all, sizeof(all));
    g_assert_cmpint(run(f, IMAGE_FLUSH, 0, 0, NULL, 0), ==, 0);
    const struct image_stats *s = image_get_stats(f->image);
    g_assert_cmpuint(s->ops[IMAGE_WRITE], ==, 1);
    g_assert_cmpuint(s->bytes[IMAGE_READ], ==, 5120);
    g_assert_cmpuint(s->ops[IMAGE_FLUSH], ==, 1);
    g_assert_cmpuint(s->wr_highest_offset, ==, 6144);
    autofd fd = open(f->path, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(pread(fd, back, sizeof(back), 1024), ==, sizeof(back));
    g_assert_cmpmem(back, sizeof(back), all, sizeof(all));
}

static void test_many_vectors(struct fixture *f, gconstpointer data)
{
    struct test_options o = options_of(f);
    open_image(f, &o);
    enum { N = 2500 };
    g_autofree struct iovec *iov = g_new(struct iovec, N);
    g_autofree uint8_t *out = g_malloc(N * 512), *in = g_malloc0(N * 512);
    for (unsigned i = 0; i < N * 512; i++)
        out[i] = i * 7 + i / 512;
    for (unsigned i = 0; i < N; i++)
        iov[i] = (struct iovec){ out + i * 512, 512 };
    g_assert_cmpint(run(f, IMAGE_WRITE, 512, N * 512, iov, N), ==, 0);
    for (unsigned i = 0; i < N; i++)
        iov[i] = (struct iovec){ in + i * 512, 512 };
    g_assert_cmpint(run(f, IMAGE_READ, 512, N * 512, iov, N), ==, 0);
    g_assert_cmpmem(in, N * 512, out, N * 512);
}

static void test_many_requests(struct fixture *f, gconstpointer data)
{
    struct test_options o = options_of(f);
    open_image(f, &o);
    enum { N = 1000 };
    g_autofree struct wait *w = g_new0(struct wait, N);
    g_autofree struct iovec *iov = g_new0(struct iovec, N);
    g_autofree uint8_t *buf = g_malloc(N * 1024);
    memset(buf, 0x5a, N * 1024);
    image_plug(f->image);
    for (unsigned i = 0; i < N; i++) {
        iov[i] = (struct iovec){ buf + i * 1024, 1024 };
        w[i].r = (struct image_request){
            .op = IMAGE_WRITE, .offset = i * 1024, .len = 1024, .iov = &iov[i], .iov_count = 1
        };
        submit(f, &w[i]);
    }
    image_unplug(f->image);
    for (unsigned i = 0; i < N; i++)
        g_assert_cmpint(finish(f, &w[i]), ==, 0);
    memset(buf, 0, N * 1024);
    g_assert_cmpint(run_buf(f, IMAGE_READ, 0, buf, N * 1024), ==, 0);
    g_assert_true(all_are(buf, N * 1024, 0x5a));
}

static void test_refused(struct fixture *f, gconstpointer data)
{
    struct test_options o = options_of(f);
    open_image(f, &o);
    uint8_t buf[1024];
    g_assert_cmpint(run_buf(f, IMAGE_READ, SIZE, buf, 512), ==, -EINVAL);
    g_assert_cmpint(run_buf(f, IMAGE_READ, SIZE - 512, buf, 1024), ==, -EINVAL);
    g_assert_cmpint(run_buf(f, IMAGE_WRITE, UINT64_MAX - 511, buf, 1024), ==, -EINVAL);
    g_assert_cmpint(run_buf(f, IMAGE_WRITE, 100, buf, 512), ==, -EINVAL);
    g_assert_cmpint(run_buf(f, IMAGE_WRITE, 0, buf, 100), ==, -EINVAL);
    g_assert_cmpint(run(f, 77, 0, 512, NULL, 0), ==, -EINVAL);
    g_assert_cmpuint(image_get_stats(f->image)->invalid[IMAGE_WRITE], ==, 3);
    g_assert_cmpint(run_buf(f, IMAGE_READ, SIZE - 512, buf, 512), ==, 0);
    image_close(f->image);
    o.read_only = true;
    open_image(f, &o);
    g_assert_cmpint(run_buf(f, IMAGE_WRITE, 0, buf, 512), ==, -EROFS);
    g_assert_cmpint(run(f, IMAGE_FLUSH, 0, 0, NULL, 0), ==, 0);
}

static void test_zeroes_and_discard(struct fixture *f, gconstpointer data)
{
    struct test_options o = options_of(f);
    o.discard = true;
    open_image(f, &o);
    g_autofree uint8_t *buf = g_malloc(SIZE), *back = g_malloc(SIZE);
    memset(buf, 0xee, SIZE);
    g_assert_cmpint(run_buf(f, IMAGE_WRITE, 0, buf, SIZE), ==, 0);
    struct stat full, holes;
    g_assert_cmpint(run(f, IMAGE_FLUSH, 0, 0, NULL, 0), ==, 0);
    g_assert_cmpint(stat(f->path, &full), ==, 0);
    g_assert_cmpint(run(f, IMAGE_DISCARD, 1 << 20, 1 << 20, NULL, 0), ==, 0);
    g_assert_cmpint(run(f, IMAGE_WRITE_ZEROES, 512, 1024, NULL, 0), ==, 0);
    struct wait w = {
        .r = { .op = IMAGE_WRITE_ZEROES, .offset = 3 << 20, .len = 1 << 20, .may_unmap = true }
    };
    submit(f, &w);
    g_assert_cmpint(finish(f, &w), ==, 0);
    g_assert_cmpint(run(f, IMAGE_WRITE_ZEROES, 64 << 10, 600 << 10, NULL, 0), ==, 0);
    memset(buf + 512, 0, 1024);
    memset(buf + (1 << 20), 0, 1 << 20);
    memset(buf + (3 << 20), 0, 1 << 20);
    memset(buf + (64 << 10), 0, 600 << 10);
    g_assert_cmpint(run_buf(f, IMAGE_READ, 0, back, SIZE), ==, 0);
    g_assert_cmpmem(buf, SIZE, back, SIZE);
    g_assert_cmpint(stat(f->path, &holes), ==, 0);
    g_assert_cmpint(holes.st_size, ==, SIZE);
    if (full.st_blocks)
        g_assert_cmpint(holes.st_blocks, <, full.st_blocks);
}

static void test_tail(struct fixture *f, gconstpointer data)
{
    autofd fd = open(f->path, O_RDWR | O_CLOEXEC);
    g_assert_cmpint(ftruncate(fd, 1000), ==, 0);
    uint8_t ones[1000], buf[1024];
    memset(ones, 1, sizeof(ones));
    g_assert_cmpint(pwrite(fd, ones, 1000, 0), ==, 1000);
    struct test_options o = options_of(f);
    open_image(f, &o);
    struct image_info info;
    image_get_info(f->image, &info);
    g_assert_cmpuint(info.size_bytes, ==, 1024);
    memset(buf, 0xff, sizeof(buf));
    g_assert_cmpint(run_buf(f, IMAGE_READ, 0, buf, 1024), ==, 0);
    g_assert_true(all_are(buf, 1000, 1) && all_are(buf + 1000, 24, 0));
    memset(buf, 0xff, sizeof(buf));
    struct iovec iov[] = { { buf, 600 }, { buf + 600, 424 } };
    g_assert_cmpint(run(f, IMAGE_READ, 0, 1024, iov, 2), ==, 0);
    g_assert_true(all_are(buf, 1000, 1) && all_are(buf + 1000, 24, 0));
    memset(buf, 7, sizeof(buf));
    g_assert_cmpint(run_buf(f, IMAGE_WRITE, 512, buf, 512), ==, 0);
    memset(buf, 0, sizeof(buf));
    g_assert_cmpint(run_buf(f, IMAGE_READ, 512, buf, 512), ==, 0);
    g_assert_true(all_are(buf, 512, 7));
}

static void test_direct(struct fixture *f, gconstpointer data)
{
    struct test_options o = options_of(f);
    o.direct = true;
    GError *error = NULL;
    struct image *probe = try_open(f, &o, &error);
    if (!probe) {
        g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_UNSUPPORTED);
        g_error_free(error);
        g_test_skip("no direct I/O on the temporary folder's file system");
        return;
    }
    image_close(probe);
    open_image(f, &o);
    enum { LEN = 3 << 20 };
    g_autofree uint8_t *out = g_malloc(LEN + 8), *in = g_malloc0(LEN + 8);
    for (unsigned i = 0; i < LEN + 8; i++)
        out[i] = i * 11 + (i >> 9);
    /* Memory off alignment, in two pieces at an odd place: through the bounce buffer, two requests
     * at once. */
    struct iovec iov[] = { { out + 1, 777 }, { out + 778, LEN - 777 } };
    struct iovec iov2[] = { { in + 3, LEN - 33 }, { in + 3 + LEN - 33, 33 } };
    struct wait w = {
        .r = { .op = IMAGE_WRITE, .offset = 4096, .len = LEN, .iov = iov, .iov_count = 2 }
    };
    struct wait w2 = {
        .r = { .op = IMAGE_WRITE, .offset = 4096, .len = LEN, .iov = iov, .iov_count = 2 }
    };
    submit(f, &w);
    submit(f, &w2);
    g_assert_cmpint(finish(f, &w), ==, 0);
    g_assert_cmpint(finish(f, &w2), ==, 0);
    g_assert_cmpint(run(f, IMAGE_READ, 4096, LEN, iov2, 2), ==, 0);
    g_assert_cmpmem(in + 3, LEN, out + 1, LEN);
}

static void expect_open_error(struct fixture *f, const struct test_options *o, int code, const char *part)
{
    GError *error = NULL;
    struct image *i = try_open(f, o, &error);
    g_assert_null(i);
    g_assert_error(error, RUCHE_ERROR, code);
    if (!strstr(error->message, part))
        g_error("'%s' does not say '%s'", error->message, part);
    g_error_free(error);
}

static void test_open_errors(struct fixture *f, gconstpointer data)
{
    struct test_options o = options_of(f);
    o.filename = "/nonexistent/disk.img";
    expect_open_error(f, &o, RUCHE_ERR_NOT_FOUND, "'/nonexistent/disk.img' does not exist");
    o.filename = f->folder;
    expect_open_error(f, &o, RUCHE_ERR_INVALID, "is a directory");
    o.read_only = true;
    expect_open_error(f, &o, RUCHE_ERR_INVALID, "is a directory");
    o.filename = "/dev/null";
    expect_open_error(f, &o, RUCHE_ERR_INVALID, "neither a file nor a block device");
    o = options_of(f);
    o.format = "qcow3";
    expect_open_error(f, &o, RUCHE_ERR_UNKNOWN, "'qcow3'");
    autofd fd = open(f->path, O_RDWR | O_CLOEXEC);
    if (geteuid()) {
        g_assert_cmpint(fchmod(fd, 0), ==, 0);
        expect_open_error(f, &o, RUCHE_ERR_IO, "cannot be opened");
    }
}

static void test_locks(struct fixture *f, gconstpointer data)
{
    int ready[2], go[2];
    char c = 0;
    g_assert_cmpint(pipe(ready) | pipe(go), ==, 0);
    pid_t child = fork();
    if (child == 0) {
        struct test_options o = options_of(f);
        close(go[1]);
        struct image *i = try_open(f, &o, NULL);
        if (write(ready[1], "x", 1) != 1 || read(go[0], &c, 1) < 0)
            _exit(1);
        image_close(i);
        _exit(i ? 0 : 2);
    }
    close(go[0]);
    g_assert_cmpint(read(ready[0], &c, 1), ==, 1);
    struct test_options o = options_of(f);
    g_autofree char *who = g_strdup_printf("in use by process %d (", child);
    expect_open_error(f, &o, RUCHE_ERR_BUSY, who);
    o.read_only = true;
    expect_open_error(f, &o, RUCHE_ERR_BUSY, who);
    o.force_share = true;
    struct image *i = try_open(f, &o, NULL);
    g_assert_nonnull(i);
    image_close(i);
    o = options_of(f);
    o.no_lock = true;
    i = try_open(f, &o, NULL);
    g_assert_nonnull(i);
    image_close(i);
    close(go[1]);
    int status;
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    g_assert_cmpint(status, ==, 0);
    /* Two readers are friends; the process's own second writer is not. */
    o = options_of(f);
    o.read_only = true;
    i = try_open(f, &o, NULL);
    GError *error = NULL;
    struct image *j = try_open(f, &o, &error);
    g_assert_no_error(error);
    g_assert_nonnull(i);
    g_assert_nonnull(j);
    o.read_only = false;
    expect_open_error(f, &o, RUCHE_ERR_BUSY, "in use");
    image_close(i);
    image_close(j);
    i = try_open(f, &o, NULL);
    g_assert_nonnull(i);
    image_close(i);
    close(ready[0]);
    close(ready[1]);
}

/* Who passed a file keeps it open; the locks go with the last node that stands on it all the same. */
static void test_passed(struct fixture *f, gconstpointer data)
{
    int set = fdset_add(-1, open(f->path, O_RDWR | O_CLOEXEC));
    g_autofree char *path = g_strdup_printf("/dev/fdset/%d", set);
    struct test_options named = options_of(f), passed = named;
    passed.filename = path;
    struct image *i = try_open(f, &passed, NULL), *j = try_open(f, &passed, NULL);
    g_assert_nonnull(i);
    g_assert_nonnull(j);
    expect_open_error(f, &named, RUCHE_ERR_BUSY, "in use");
    image_close(i);
    expect_open_error(f, &named, RUCHE_ERR_BUSY, "in use");
    image_close(j);
    i = try_open(f, &named, NULL);
    g_assert_nonnull(i);
    expect_open_error(f, &passed, RUCHE_ERR_BUSY, "in use");
    image_close(i);
    g_assert_cmpint(fdset_remove(set, -1), ==, 0);
}

static void test_attach(struct fixture *f, gconstpointer data)
{
    struct test_options o = options_of(f);
    open_image(f, &o);
    GError *error = NULL;
    g_assert_true(image_attach(f->image, "disk0", NULL));
    g_assert_false(image_attach(f->image, "disk1", &error));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_BUSY);
    g_assert_nonnull(strstr(error->message, "disk0"));
    g_error_free(error);
    image_detach(f->image);
    g_assert_true(image_attach(f->image, "disk1", NULL));
    uint8_t buf[512] = { 9 };
    g_assert_cmpint(image_set_loop(f->image, NULL), ==, 0);
    g_assert_cmpint(image_read_sync(f->image, 0, buf, 512), ==, 0);
    g_assert_true(all_are(buf, 512, 0));
    g_assert_cmpint(image_read_sync(f->image, SIZE, buf, 512), ==, -EINVAL);
}

/* The child may not make files longer than 1 MiB: the kernel's way to say that there is no room. */
static void no_space_child(struct fixture *f, gconstpointer data)
{
    struct rlimit limit = { 1 << 20, 1 << 20 };
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &limit))
        _exit(9);
    struct test_options o = options_of(f);
    open_image(f, &o);
    image_set_on_error(f->image, IMAGE_ERROR_REPORT, IMAGE_ERROR_REPORT);
    g_autofree uint8_t *buf = g_malloc0(2 << 20);
    int whole = run_buf(f, IMAGE_WRITE, 0, buf, 1 << 20);
    int over = run_buf(f, IMAGE_WRITE, 512 << 10, buf, 1 << 20);
    _exit(whole == 0 && over == -ENOSPC && image_get_stats(f->image)->failed[IMAGE_WRITE] == 1 ? 0
                                                                                               : 8);
}

static void test_no_space(struct fixture *f, gconstpointer data)
{
    pid_t child = fork();
    if (child == 0)
        no_space_child(f, data);
    int status;
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    g_assert_cmpint(status, ==, 0);
}

static void test_thread(struct fixture *f, gconstpointer data)
{
    struct test_options o = options_of(f);
    open_image(f, &o);
    uint8_t buf[512];
    g_assert_cmpint(image_set_loop(f->image, NULL), ==, 0);
    struct loop *l = loop_new("io"), *old = f->loop;
    g_assert_cmpint(image_set_loop(f->image, l), ==, 0);
    f->loop = l;
    g_assert_cmpint(run_buf(f, IMAGE_READ, 0, buf, 512), ==, 0);
    loop_free(old);
}

/* ThreadSanitizer loses track of fibers in the child of a fork. */
#ifdef __SANITIZE_THREAD__
#define CAN_FORK false
#else
#define CAN_FORK true
#endif

#define ADD(name, fn)                                                                              \
    do {                                                                                           \
        g_test_add("/image/ring/" name, struct fixture, NULL, setup, fn, teardown);                \
        g_test_add("/image/threads/" name, struct fixture, "pool", setup, fn, teardown);           \
    } while (0)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-image");
    ADD("read-write", test_read_write);
    ADD("many-vectors", test_many_vectors);
    ADD("many-requests", test_many_requests);
    ADD("refused", test_refused);
    ADD("zeroes-discard", test_zeroes_and_discard);
    ADD("tail", test_tail);
    ADD("direct", test_direct);
    if (CAN_FORK)
        ADD("no-space", test_no_space);
    ADD("change-loop", test_thread);
    g_test_add("/image/open-errors", struct fixture, NULL, setup, test_open_errors, teardown);
    if (CAN_FORK)
        g_test_add("/image/locks", struct fixture, NULL, setup, test_locks, teardown);
    g_test_add("/image/passed", struct fixture, NULL, setup, test_passed, teardown);
    g_test_add("/image/attach", struct fixture, NULL, setup, test_attach, teardown);
    return g_test_run();
}
