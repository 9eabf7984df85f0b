/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img bench: times a sequence of requests on an image.
 *
 * One fiber per request in flight; each takes the next place when its own request is done.
 */
#include "img/img.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench_options {
    struct img_common common;
    uint64_t count, depth, offset, pattern, buffer, step, flush_interval;
    int aio;
    bool native, no_drain, write;
};

static const char *const aio_words[] = {"threads", "native", "io_uring", NULL};

struct bench {
    struct node *node;
    uint64_t image_size, offset, step, left, since_flush, flush_interval;
    size_t buffer_size;
    unsigned in_flight, write_flags;
    bool write, drain, flushing;
    uint8_t *buffer; /* of every request: all write the same, and what is read is not looked at */
    int result;
    struct fiber_queue idle, flushed;
};

static void next_place(struct bench *b)
{
    b->offset += b->step;
    b->offset = b->image_size > b->buffer_size ? b->offset % b->image_size : 0;
    if (b->offset + b->buffer_size > b->image_size)
        b->offset = 0;
}

/* Every flush_interval writes; unless told not to, what is in flight ends before. */
static int flush_in_turn(struct bench *b)
{
    b->since_flush = 0;
    b->flushing = b->drain;
    while (b->drain && b->in_flight)
        fiber_queue_wait(&b->idle);
    int r = node_flush(b->node);
    b->flushing = false;
    fiber_queue_wake_all(&b->flushed);
    return r;
}

static int one_request(struct bench *b)
{
    struct iovec iov;
    uint64_t at = b->offset;
    b->left--;
    b->in_flight++;
    next_place(b);
    struct vec v = vec_flat(&iov, b->buffer, b->buffer_size);
    int r = b->write ? node_write(b->node, at, v, b->write_flags) : node_read(b->node, at, v, 0);
    if (!--b->in_flight)
        fiber_queue_wake_all(&b->idle);
    return r;
}

static void worker(void *opaque)
{
    struct bench *b = opaque;
    while (b->left && b->result >= 0) {
        while (b->flushing)
            fiber_queue_wait(&b->flushed);
        if (!b->left)
            break;
        int r = one_request(b);
        if (r >= 0 && b->flush_interval && ++b->since_flush >= b->flush_interval)
            r = flush_in_turn(b);
        if (r < 0)
            b->result = r;
    }
}

static void print_plan(const struct bench_options *o, uint64_t step)
{
    if (o->common.quiet)
        return;
    printf("Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %" PRIu64
           " in parallel (starting at offset %" PRIu64 ", step size %" PRIu64 ")\n",
           o->count, o->write ? "write" : "read", o->buffer, o->depth, o->offset, step);
    if (o->flush_interval)
        printf("Sending flush every %" PRIu64 " requests\n", o->flush_interval);
}

static bool bench_node(struct node *n, const struct bench_options *o, unsigned write_flags,
                       GError **error)
{
    struct bench b = {
        .node = n,
        .image_size = node_size(n),
        .offset = o->offset,
        .step = o->step ? o->step : o->buffer,
        .left = o->count,
        .flush_interval = o->flush_interval,
        .buffer_size = o->buffer,
        .write_flags = write_flags,
        .write = o->write,
        .drain = !o->no_drain,
    };
    if (!range_fits(b.offset, b.buffer_size, b.image_size))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "a request of %zu bytes at byte %" PRIu64
                           " is beyond the image's %" PRIu64 " bytes",
                           b.buffer_size, b.offset, b.image_size);
    if (posix_memalign((void **)&b.buffer, 4096, b.buffer_size))
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "no memory for a buffer of %zu bytes",
                           b.buffer_size);
    memset(b.buffer, (int)o->pattern, b.buffer_size);
    print_plan(o, b.step);
    int64_t begin_ns = loop_now_ns();
    img_parallel((unsigned)o->depth, worker, &b);
    double seconds = (double)(loop_now_ns() - begin_ns) / NS_PER_SEC;
    free(b.buffer);
    if (b.result < 0)
        return ruche_error_errno(error, -b.result, "'%s': a request failed", node_filename(n));
    if (!o->common.quiet)
        printf("Run completed in %3.3f seconds.\n", seconds);
    return true;
}

static int bench_run(struct img *img, void *options, char **operands, unsigned count)
{
    struct bench_options *o = options;
    GError *error = NULL;
    unsigned write_flags;
    o->count = o->count ? o->count : 75000;
    o->depth = o->depth ? o->depth : 64;
    o->buffer = o->buffer ? o->buffer : 4096;
    if (o->flush_interval && !o->write)
        ruche_error(&error, RUCHE_ERR_INVALID, "bench: --flush-interval is only for writes (-w)");
    else if (o->flush_interval && o->flush_interval < o->depth)
        ruche_error(&error, RUCHE_ERR_INVALID,
                    "bench: --flush-interval %" PRIu64 " is less than the depth of %" PRIu64,
                    o->flush_interval, o->depth);
    if (error || !img_cache_flags(o->common.cache, &write_flags, &error))
        return img_fail(error, 1);
    struct node *n = img_open(img, &o->common, operands[0], o->common.format, o->common.cache,
                              o->write ? NODE_RW : 0, &error);
    if (!n)
        return img_fail(error, 1);
    bool good = bench_node(n, o, write_flags, &error);
    node_unref(n);
    return good ? 0 : img_fail(error, 1);
}

#define NUMBER(l, n, m, k, member, lo, hi, text)                                                   \
    {                                                                                              \
        .letter = l, .name = n, .metavar = m, .kind = k, .min = lo, .max = hi, .help = text,       \
        .offset = offsetof(struct bench_options, member)                                           \
    }
static const struct arg bench_args[] = {
    NUMBER('c', "count", "N", ARG_NUMBER, count, 1, INT32_MAX, "Requests in all (75000)"),
    NUMBER('d', "depth", "N", ARG_NUMBER, depth, 1, 4096, "Requests in flight (64)"),
    NUMBER('s', "buffer-size", "BYTES", ARG_SIZE, buffer, 1, 64 * MIB, "Bytes of a request (4096)"),
    NUMBER('S', "step-size", "BYTES", ARG_SIZE, step, 1, INT32_MAX,
           "From one request to the next (as -s)"),
    NUMBER('o', "offset", "BYTES", ARG_SIZE, offset, 0, 0, "Where the first request is"),
    NUMBER(0, "pattern", "BYTE", ARG_NUMBER, pattern, 0, 255, "What is written"),
    NUMBER(0, "flush-interval", "N", ARG_NUMBER, flush_interval, 1, INT32_MAX,
           "Flush after every so many writes"),
    ARG_ROW(0, "no-drain", NULL, ARG_FLAG, struct bench_options, no_drain,
            "Flush while requests are in flight"),
    ARG_ROW('w', NULL, NULL, ARG_FLAG, struct bench_options, write, "Write instead of reading"),
    {.letter = 'i',
     .name = "aio",
     .metavar = "HOW",
     .kind = ARG_WORD,
     .words = aio_words,
     .offset = offsetof(struct bench_options, aio),
     .help = "threads, native or io_uring; accepted for compatibility: it is always io_uring"},
    ARG_ROW('n', "native", NULL, ARG_FLAG, struct bench_options, native, "The same"),
    ARG_FORMAT,
    ARG_CACHE,
    ARG_QUIET,
    ARG_SHARE,
    ARG_IMAGE_OPTS,
    ARG_OBJECT,
    {0},
};

static const struct verb bench_verb = {
    .name = "bench",
    .summary = "Time requests on an image",
    .operands = "FILE",
    .args = bench_args,
    .size = sizeof(struct bench_options),
    .min_operands = 1,
    .max_operands = 1,
    .run = bench_run,
};
IMG_VERB(bench_verb);
