/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What jobs do to the graph: filters over a node and away again, links, moves between contexts.
 *
 * Fiber     All but node_move() in a fiber of the context, while the main thread waits.
 */
#include "image/job/mirror.h"

#include "base/log.h"
#include "image/graph.h"

#include <errno.h>

/* ---- filters ---- */

void filter_inherit(struct node *n)
{
    const struct node *child = node_file(n);
    n->size_bytes = child->size_bytes;
    n->request_align = child->request_align;
    n->mem_align = child->mem_align;
    n->zero_align = child->zero_align;
    n->discard_align = child->discard_align;
    n->cluster_bytes = child->cluster_bytes;
    n->block_bytes = child->block_bytes;
    n->physical_block_bytes = child->physical_block_bytes;
    n->write_flags = NODE_FUA;
    n->zero_flags = NODE_FUA | NODE_MAY_UNMAP | NODE_NO_FALLBACK;
    n->encrypted = child->encrypted;
    n->discard = true; /* the child decides */
}

int filter_forward(struct node *to, const struct filter_op *o)
{
    switch (o->kind) {
    case FILTER_WRITE:
        return node_write(to, o->off, o->v, o->flags);
    case FILTER_ZERO:
        return node_zero(to, o->off, o->len, o->flags);
    case FILTER_DISCARD:
        return node_discard(to, o->off, o->len);
    }
    return -EINVAL;
}

/* A filter is opened as if nobody wrote, since the parents still do, and takes over from them
 * afterwards. */
static void start_writing(struct node *f)
{
    f->read_only = false;
    f->wanted_rw = true;
    for (unsigned i = 0; i < f->child_count; i++)
        f->children[i]->perms = node_child_perms(f, f->children[i]->role, &f->children[i]->shared);
}

struct node *filter_insert(struct node *n, const char *driver, const char *name, JsonObject *more,
                           GError **error)
{
    struct graph *g = node_graph(n);
    g_autoptr(JsonObject) options = more ? json_object_ref(more) : json_object_new();
    json_object_set_string_member(options, "driver", driver);
    json_object_set_string_member(options, "file", node_name(n));
    if (name)
        json_object_set_string_member(options, "node-name", name);
    struct context *former = graph_set_context(g, node_context(n));
    struct node *f = node_open(g, options, 0, error);
    graph_set_context(g, former);
    if (!f)
        return NULL;
    node_drain_begin(n);
    bool ok = node_replace(n, f, error);
    if (ok && !node_is_read_only(n))
        start_writing(f);
    node_drain_end(n);
    if (ok)
        return f;
    node_unref(f);
    return NULL;
}

void filter_remove(struct node *filter)
{
    g_autoptr(GError) error = NULL;
    if (!filter)
        return;
    struct node *n = node_file(filter);
    node_drain_begin(n);
    for (unsigned i = 0; i < filter->child_count; i++)
        filter->children[i]->perms = PERM_READ;
    if (!node_replace(filter, n, &error)) /* the same links as before it came */
        log_error("%s", error->message);
    node_drain_end(n);
    node_unref(filter);
}

/* ---- links ---- */

/* The graph is about to change, or has: the work starts nothing meanwhile. */
static void on_drained(struct node_user *u, bool begin)
{
    struct job *j = u->opaque;
    j->quiet += begin ? 1 : -1;
    if (!j->quiet)
        fiber_queue_wake_all(&j->wake);
}

bool job_use_node(struct job *j, struct node_user *u, struct node *n, unsigned perms,
                  unsigned shared, GError **error)
{
    *u = (struct node_user){ .who = j->who,
                             .perms = perms,
                             .shared = shared,
                             .stays = true,
                             .drained = on_drained,
                             .opaque = j };
    return node_use(n, u, error);
}

/* ---- backing files ---- */

bool backing_change(struct backing_change *c, struct node *n, struct node *backing, const char *file,
                    GError **error)
{
    struct node *former = node_backing(n);
    const char *format = backing ? node_format(node_skip_filters(backing)) : NULL;
    g_autofree char *former_file = g_strdup(n->backing_file),
                    *former_format = g_strdup(n->backing_format);
    node_drain_begin(n);
    bool ok = node_change_backing(n, file, format, error);
    if (ok) {
        c->node = n;
        c->former = former ? node_ref(former) : NULL;
        c->former_file = g_steal_pointer(&former_file);
        c->former_format = g_steal_pointer(&former_format);
        ok = c->linked = node_set_backing(n, backing, error);
    }
    node_drain_end(n);
    return ok;
}

/* The node reads the same with either: a header that cannot be written again may stay as it is. */
void backing_restore(struct backing_change *c)
{
    g_autoptr(GError) error = NULL;
    if (!c->node)
        return;
    node_drain_begin(c->node);
    bool ok = !c->linked || node_set_backing(c->node, c->former, &error);
    ok = ok && node_change_backing(c->node, c->former_file, c->former_format, &error);
    if (!ok)
        log_warn("image '%s': its former backing file could not be put back: %s",
                 node_filename(c->node), error->message);
    node_drain_end(c->node);
    backing_settle(c);
}

void backing_settle(struct backing_change *c)
{
    node_unref(c->former);
    g_free(c->former_file);
    g_free(c->former_format);
    *c = (struct backing_change){ 0 };
}

bool node_is_below(struct node *n, const struct node *below)
{
    for (struct node *b = node_backing(n); b; b = node_backing(b))
        if (b == below || node_skip_filters(b) == below)
            return true;
    return false;
}

struct node *node_overlay_of(struct node *n, const struct node *below)
{
    for (struct node *o = node_skip_filters(n), *b; o; o = b) {
        b = node_backing(o);
        if (b && (b == below || node_skip_filters(b) == below))
            return o;
        b = b ? node_skip_filters(b) : NULL;
    }
    return NULL;
}

void backing_allow_write(struct node *top, struct node *below, bool allow)
{
    struct node *overlay = node_overlay_of(top, below);
    for (unsigned i = 0; overlay && i < overlay->child_count; i++) {
        struct node_child *c = overlay->children[i];
        if (c->role == CHILD_BACKING)
            c->shared = allow ? PERM_ALL : PERM_READ;
    }
}

/* ---- contexts ---- */

struct move {
    struct node *node;
    struct context *to;
    int result;
};

static void move_node(void *opaque)
{
    struct move *m = opaque;
    m->result = node_set_context(m->node, m->to);
}

/* On the thread of `loop`, which is the home of one of the two contexts; the other's does not run: it is that of
 * the caller, who waits. */
static int move_on(struct loop *loop, struct node *n, struct context *to)
{
    struct move m = { .node = n, .to = to };
    if (loop && loop_has_home(loop))
        loop_call(loop, move_node, &m);
    else
        move_node(&m);
    return m.result;
}

bool node_move(struct node *n, struct context *c, GError **error)
{
    struct context *main = graph_context(node_graph(n));
    if (node_context(n) == c)
        return true;
    const struct node_user *keeper = node_kept_by(n);
    if (keeper)
        return ruche_error(error, RUCHE_ERR_BUSY,
                           "node '%s' cannot go to another I/O thread: %s uses it", node_name(n),
                           keeper->who);
    int err = 0;
    if (node_context(n) != main)
        err = move_on(context_home(node_context(n)), n, main);
    if (!err)
        err = move_on(context_home(c), n, c);
    return !err ||
           ruche_error_errno(error, -err,
                             "node '%s' is served by another I/O thread and cannot move",
                             node_name(n));
}
