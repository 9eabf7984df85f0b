/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests of virtio-blk that failed, saved with their machine and made again in another one; and
 * states that lie about them. */
#include "base/scratch.h"
#include "devices/virtio/driver_testing.h"
#include "image/image.h"
#include "image/node.h"
#include "machine/backends.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/virtio_blk.h>
#include <string.h>
#include <unistd.h>

#define DISK       (1u << 20)
#define RAM        (1u << 20)
#define REQUESTS   3u
#define HEADER(i)  (DRIVER_DATA + 0x100 * (i))
#define STATUS(i)  (HEADER(i) + 0x80)
#define DATA(i)    (DRIVER_DATA + 0x1000 * (1 + (i)))
#define CHAIN_ROOM 44 /* queue, id, slots, counts; three buffers, less the last one's length */

struct side {
    struct context *ctx;
    struct graph *graph;
    struct image *image;
    struct driver *d;
    struct device *dev;
};

static unsigned errors;

static void on_error(const struct image *i, bool write, enum image_on_error policy, bool stop,
                     int err)
{
    g_assert_true(stop);
    errors++;
}

static const char failing[] =
    "{\"file\": {\"driver\": \"blkdebug\", \"image\": {\"driver\": \"file\", \"filename\": \"%s\"},"
    " \"inject-error\": [{\"event\": \"write_aio\", \"errno\": 5}]}, \"driver\": \"raw\"}";
static const char plain[] =
    "{\"file\": {\"driver\": \"file\", \"filename\": \"%s\"}, \"driver\": \"raw\"}";

static char *disk_new(void)
{
    char *path = g_build_filename(g_get_tmp_dir(), "ruche-kept-XXXXXX", NULL);
    int fd = g_mkstemp(path);
    g_assert_cmpint(ftruncate(fd, DISK), ==, 0);
    close(fd);
    return path;
}

static struct side *side_new(const char *path, bool fails)
{
    struct side *s = g_new0(struct side, 1);
    g_autoptr(GError) error = NULL;
    char text[512];
    g_snprintf(text, sizeof(text), fails ? failing : plain, path);
    g_autoptr(JsonNode) options = json_from_string(text, NULL);
    s->ctx = context_new(&error);
    s->graph = graph_new(s->ctx);
    struct node *n = node_open(s->graph, json_node_get_object(options), NODE_RW, &error);
    g_assert_no_error(error);
    s->image = image_new("disk0", n, &error);
    g_assert_no_error(error);
    node_unref(n);
    image_set_on_error(s->image, IMAGE_ERROR_STOP, IMAGE_ERROR_STOP);
    s->d = driver_new();
    g_assert_true(backend_add(&s->d->t->m, BACKEND_IMAGE, "disk0", s->image));
    s->dev = test_device(s->d->t, "virtio-blk-pci", "drive", "disk0", "num-queues", "2", NULL);
    driver_bring_up(s->d, s->dev);
    return s;
}

static void side_free(struct side *s)
{
    driver_free(s->d);
    image_close(s->image);
    graph_free(s->graph);
    context_free(s->ctx);
    g_free(s);
}

/* Writes that fail; each fills its own sectors with a letter of its own. */
static void fail_writes(struct side *s)
{
    driver_start(s->d, 0, 1);
    errors = 0;
    for (unsigned i = 0; i < REQUESTS; i++) {
        struct virtio_blk_outhdr h = {.type = VIRTIO_BLK_T_OUT, .sector = 8 * i};
        memcpy(driver_mem(s->d, HEADER(i)), &h, sizeof(h));
        *driver_mem(s->d, STATUS(i)) = 0xee;
        memset(driver_mem(s->d, DATA(i)), 'a' + (int)i, 0x1000);
        struct driver_buf b[] = {
            {HEADER(i), 16, false}, {DATA(i), 0x1000, false}, {STATUS(i), 1, true}};
        driver_offer(s->d, 0, b, 3);
    }
    driver_kick(s->d, 0);
    for (unsigned n = 0; n < 5000 && errors < REQUESTS; n++)
        loop_once(s->d->t->m.main_loop, 5);
    g_assert_cmpuint(errors, ==, REQUESTS);
    g_assert_false(driver_poll(s->d, 0, NULL, NULL));
}

static GByteArray *save(struct side *s)
{
    g_autoptr(GError) error = NULL;
    device_stopped(s->dev, true);
    g_assert_true(device_state_prepare(s->dev, &error));
    g_assert_no_error(error);
    return device_state_save(s->dev);
}

static bool load(struct side *s, const GByteArray *a, GError **error)
{
    device_stopped(s->dev, true);
    device_reset(s->dev);
    return device_state_load(s->dev, a->data, a->len, error) && device_state_loaded(s->dev, error);
}

static void check_done(struct side *s, const char *path)
{
    unsigned heads = 0;
    for (unsigned i = 0; i < REQUESTS; i++) {
        uint16_t head = 0;
        g_assert_true(driver_wait(s->d, 0, &head, NULL));
        heads |= 1u << head / 3;
    }
    g_assert_cmphex(heads, ==, 7);
    g_autofree char *text = NULL;
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    for (unsigned i = 0; i < REQUESTS; i++) {
        g_assert_cmpint(*driver_mem(s->d, STATUS(i)), ==, VIRTIO_BLK_S_OK);
        for (unsigned k = 0; k < 0x1000; k++)
            g_assert_cmpint(text[0x1000 * i + k], ==, 'a' + (int)i);
    }
    g_assert_cmpuint(s->d->v->queue[0].in_flight, ==, 0);
}

static void test_moved(void)
{
    g_autofree char *path = disk_new();
    struct side *from = side_new(path, true);
    fail_writes(from);
    g_autoptr(GByteArray) saved = save(from);
    struct driver before = *from->d;
    g_autofree uint8_t *ram = g_memdup2(from->d->t->ram, RAM);
    side_free(from);
    struct side *to = side_new(path, false);
    memcpy(to->d->t->ram, ram, RAM);
    memcpy(to->d->q, before.q, sizeof(before.q));
    to->d->event_idx = before.event_idx;
    g_autoptr(GError) error = NULL;
    g_assert_true(load(to, saved, &error));
    g_assert_no_error(error);
    g_autoptr(GByteArray) again = save(to); /* not gone on yet: still all of it */
    g_assert_cmpmem(again->data, again->len, saved->data, saved->len);
    device_stopped(to->dev, false);
    check_done(to, path);
    g_autoptr(GByteArray) after = save(to);
    g_assert_cmpuint(after->len, <, saved->len); /* nothing kept, no row */
    side_free(to);
    g_unlink(path);
}

/* The one that was saved goes on itself: the save took nothing away. */
static void test_stays(void)
{
    g_autofree char *path = disk_new();
    struct side *s = side_new(path, true);
    fail_writes(s);
    for (unsigned i = 0; i < 2; i++) {
        g_autoptr(GByteArray) saved = save(s);
        g_assert_cmpuint(saved->len, >, REQUESTS * CHAIN_ROOM);
    }
    device_stopped(s->dev, false);
    image_resume(s->image);
    for (unsigned n = 0; n < 5000 && errors < 2 * REQUESTS; n++)
        loop_once(s->d->t->m.main_loop, 5);
    g_assert_cmpuint(errors, ==, 2 * REQUESTS); /* made again, failed again */
    side_free(s);
    g_unlink(path);
}

/* After a reset of the machine nothing of them is left, here or there. */
static void test_reset(void)
{
    g_autofree char *path = disk_new();
    struct side *s = side_new(path, true);
    fail_writes(s);
    g_autoptr(GByteArray) saved = save(s);
    device_reset(s->dev);
    g_assert_cmpuint(s->d->v->queue[0].held, ==, 0);
    g_autoptr(GError) error = NULL;
    g_assert_true(load(s, saved, &error));
    g_assert_no_error(error);
    device_reset(s->dev);
    device_stopped(s->dev, false);
    driver_turn(s->d, 20);
    g_assert_cmpuint(errors, ==, REQUESTS);
    g_assert_false(driver_poll(s->d, 0, NULL, NULL));
    side_free(s);
    g_unlink(path);
}

/* Where the bytes of the kept chains begin. */
static guint kept_at(const GByteArray *a)
{
    static const char name[] = "kept_state";
    for (guint at = 0; at + sizeof(name) + 7 < a->len; at++)
        if (!memcmp(a->data + at, name, sizeof(name) - 1))
            return at + (guint)sizeof(name) - 1 + 8;
    g_assert_not_reached();
}

static void test_lies(void)
{
    static const struct {
        unsigned at, bytes;
        uint64_t value;
        const char *says;
    } rows[] = {
        {0, 2, 2, "queue that is not there"},
        {0, 2, 1, "queue that is not in use"},
        {2, 2, DRIVER_QUEUE_SIZE, "head is out of range"},
        {2, 2, 3, "kept twice"},
        {4, 2, 0, "number of slots"},
        {4, 2, 2, "number of slots"},
        {6, 4, 0, "no buffers or too many"},
        {6, 2, 0xffff, "no buffers or too many"},
        {10, 8, 1ULL << 40, "not in RAM"},
        {10, 8, UINT64_MAX - 3, "wraps around"},
        {18, 4, 0, "length zero"},
        {18, 4, UINT32_MAX, "not in RAM"},
    };
    g_autofree char *path = disk_new();
    struct side *s = side_new(path, true);
    fail_writes(s);
    g_autoptr(GByteArray) good = save(s);
    guint at = kept_at(good);
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(GByteArray) bad = g_byte_array_new();
        g_byte_array_append(bad, good->data, good->len);
        memcpy(bad->data + at + rows[i].at, &rows[i].value, rows[i].bytes);
        g_assert_false(load(s, bad, &error));
        if (!strstr(error->message, rows[i].says))
            g_error("row %u: '%s' does not say '%s'", i, error->message, rows[i].says);
    }
    /* cut anywhere, with the length that fits: refused or whole chains, never more */
    uint32_t len = good->len - at;
    for (uint32_t n = 0; n < len; n++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(GByteArray) bad = g_byte_array_new();
        g_byte_array_append(bad, good->data, at + n);
        memcpy(bad->data + at - 4, &n, sizeof(n));
        g_assert_cmpint(load(s, bad, &error), ==, n % (len / REQUESTS) == 0);
    }
    uint32_t huge = UINT32_MAX;
    memcpy(good->data + at - 4, &huge, sizeof(huge));
    g_autoptr(GError) error = NULL;
    g_assert_false(load(s, good, &error));
    g_assert_nonnull(strstr(error->message, "can have at most"));
    side_free(s);
    g_unlink(path);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    scratch_folder("ruche-kept");
    image_on_error_event(on_error);
    g_test_add_func("/virtio/blk/kept/moved", test_moved);
    g_test_add_func("/virtio/blk/kept/stays", test_stays);
    g_test_add_func("/virtio/blk/kept/reset", test_reset);
    g_test_add_func("/virtio/blk/kept/lies", test_lies);
    return g_test_run();
}
