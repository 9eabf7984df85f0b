/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "image/job/world.h"

#include "image/driver.h"

#include <string.h>

static void on_status(struct job *j, void *opaque)
{
    struct world *w = opaque;
    struct job_info info;
    job_get_info(j, &info);
    g_string_append_printf(w->log, "%s:%s ", info.id, job_status_words[info.status]);
}

static void on_io_error(struct job *j, bool write, enum job_on_error action, void *opaque)
{
    ((struct world *)opaque)->io_errors++;
}

void world_init(struct world *w)
{
    *w = (struct world){ .loop = loop_new("test"), .log = g_string_new(NULL) };
    loop_once(w->loop, 0); /* this thread is its home */
    w->ctx = context_get(w->loop);
    w->graph = graph_new(w->ctx);
    const struct job_listener l = { .status = on_status, .io_error = on_io_error, .opaque = w };
    w->jobs = job_set_new(w->loop, &l);
}

void world_done(struct world *w)
{
    job_set_free(w->jobs);
    image_close(w->guest.image);
    graph_free(w->graph);
    context_put(w->ctx);
    loop_free(w->loop);
    g_string_free(w->log, TRUE);
    g_free(w->guest.shadow);
}

/* ---- the guest ---- */

static void slot_write(struct slot *s);

static void slot_done(struct image_request *r, int result)
{
    struct slot *s = r->opaque;
    s->guest->in_flight--;
    s->guest->worst = MIN(s->guest->worst, result);
    if (!s->guest->stop)
        slot_write(s);
}

static void slot_write(struct slot *s)
{
    struct guest *g = s->guest;
    uint64_t len = (1 + g_random_int_range(0, WRITE_MAX / 512)) * 512;
    uint64_t off = s->index * STRIPE + g_random_int_range(0, (STRIPE - len) / 512 + 1) * 512;
    uint8_t fill = (uint8_t)g_random_int();
    unsigned kind = g_random_int_range(0, 8);
    memset(s->buf, kind ? fill : 0, len);
    memcpy(g->shadow + off, s->buf, len);
    s->iov = (struct iovec){ s->buf, len };
    s->r = (struct image_request){ .op = kind ? IMAGE_WRITE : IMAGE_WRITE_ZEROES,
                                   .offset = off,
                                   .len = len,
                                   .iov = &s->iov,
                                   .iov_count = 1,
                                   .may_unmap = true,
                                   .done = slot_done,
                                   .opaque = s };
    g->in_flight++;
    g->writes++;
    image_submit(g->image, &s->r);
}

void guest_begin(struct guest *g)
{
    g->stop = false;
    for (unsigned i = 0; i < SLOTS; i++) {
        g->slot[i].guest = g;
        g->slot[i].index = i;
        slot_write(&g->slot[i]);
    }
}

void guest_end(struct world *w)
{
    w->guest.stop = true;
    PUMP_UNTIL(w, !w->guest.in_flight);
    g_assert_cmpint(w->guest.worst, ==, 0);
}

static int read_all(void *opaque)
{
    struct compare *c = opaque;
    g_autofree uint8_t *got = g_malloc(SIZE);
    g_assert_cmpint(node_pread(c->a, 0, got, SIZE), ==, 0);
    c->equal = !memcmp(got, c->bytes, SIZE);
    for (uint64_t i = 0; !c->equal && i < SIZE; i++)
        if (got[i] != c->bytes[i]) {
            g_test_message("%s differs at %#" G_GINT64_MODIFIER "x: %02x, not %02x",
                           node_name(c->a), i, got[i], c->bytes[i]);
            break;
        }
    return 0;
}

bool holds(struct world *w, struct node *n, const uint8_t *bytes)
{
    struct compare c = { .a = n, .bytes = bytes };
    context_run(node_context(n), read_all, &c);
    return c.equal;
}

int take_shadow(void *opaque)
{
    struct compare *c = opaque;
    return node_pread(c->a, 0, (void *)c->bytes, SIZE);
}

/* A guest on n, which knows its contents. */
static void guest_attach(struct world *w, struct node *n)
{
    g_autoptr(GError) error = NULL;
    w->guest.shadow = g_malloc(SIZE);
    struct compare c = { .a = n, .bytes = w->guest.shadow };
    context_run(w->ctx, take_shadow, &c);
    w->guest.image = image_new("disk", n, &error);
    g_assert_no_error(error);
    g_assert_cmpint(image_set_loop(w->guest.image, w->loop), ==, 0);
}

/* ---- chains ---- */

struct chain make_chain(struct world *w)
{
    struct chain c;
    c.base = layer_new(w->graph, "base", SIZE - 512, NULL, false);
    c.mid = layer_new(w->graph, "mid", SIZE, "base", false);
    c.top = layer_new(w->graph, "top", SIZE, "mid", true);
    layer_fill(c.base, 0, 4 * MIB, 1);
    layer_fill(c.mid, 2 * MIB, 3 * MIB, 50);
    layer_fill(c.top, 3 * MIB + 4096, MIB, 100);
    guest_attach(w, c.top);
    return c;
}

const struct job_common usual = { .id = "j0", .auto_finalize = true, .auto_dismiss = true };

bool has(struct world *w, const char *word)
{
    return strstr(w->log->str, word) != NULL;
}

void finish(struct world *w, const char *id)
{
    g_autofree char *gone = g_strdup_printf("%s:null", id);
    PUMP_UNTIL(w, has(w, gone));
}

void assert_sentence(GError *error, const char *part)
{
    g_assert_nonnull(error);
    if (!strstr(error->message, part))
        g_error("'%s' does not say '%s'", error->message, part);
    g_error_free(error);
}

struct job_copy copy_to(struct world *w, struct chain *c, enum sync_mode sync,
                        struct node **ret_target)
{
    *ret_target = layer_new(w->graph, "target", SIZE, NULL, true);
    return (
        struct job_copy){ .source = c->top, .target = *ret_target, .sync = sync, .unmap = true };
}
