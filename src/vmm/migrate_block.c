/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disks at the switch-over of a migration.
 *
 * Given up: every node that writes becomes a reader, which writes down what its format keeps in memory, and the locks
 * of files are dropped: another process may take the images. Taken: locks first, then the right to write.
 *
 * Inactive: what the other side still has is opened to be looked at only (NODE_INACTIVE). It is closed and opened again
 * when the machine has come in, as all that a format keeps in memory may be another by then.
 */
#include "base/log.h"
#include "image/file.h"
#include "image/graph.h"
#include "base/image_lock.h"
#include "vmm/block.h"
#include "vmm/migrate_internal.h"

struct given_disk {
    struct node *node;          /* referenced */
    bool wrote;
};

struct change {
    struct node *node;
    bool read_only;
    GError **error;
};

static int change_call(void *opaque)
{
    struct change *c = opaque;
    return node_set_read_only(c->node, c->read_only, c->error) ? 0 : -EIO;
}

static bool set_read_only(struct node *n, bool read_only, GError **error)
{
    struct change c = { n, read_only, error };
    return block_run(n, change_call, &c) == 0;
}

static void given_free(gpointer p)
{
    struct given_disk *g = p;
    node_unref(g->node);
    g_free(g);
}

void migrate_disks_forget(struct vmm *v)
{
    g_clear_pointer(&v->migrate->disks, g_ptr_array_unref);
}

/* Parents before children: who writes stands above what it writes to. */
static void list_nodes(GPtrArray *list, struct node *n)
{
    for (guint i = 0; i < list->len; i++)
        if (((struct given_disk *)g_ptr_array_index(list, i))->node == n)
            return;
    struct given_disk *g = g_new0(struct given_disk, 1);
    g->node = node_ref(n);
    g->wrote = !node_is_read_only(n);
    g_ptr_array_add(list, g);
    for (unsigned k = 0; k < n->child_count; k++)
        list_nodes(list, n->children[k]->node);
}

static bool check_idle(const GPtrArray *list, GError **error)
{
    for (guint i = 0; i < list->len; i++) {
        const struct given_disk *g = g_ptr_array_index(list, i);
        const char *why = node_blocked_by(g->node);
        if (why)
            return ruche_error(error, RUCHE_ERR_BUSY, "node '%s' cannot be given up: %s", node_name(g->node), why);
    }
    return true;
}

static bool give_all(GPtrArray *list, GError **error)
{
    for (guint i = 0; i < list->len; i++) {
        const struct given_disk *g = g_ptr_array_index(list, i);
        if (g->wrote && !set_read_only(g->node, true, error)) {
            g_prefix_error(error, "node '%s' cannot be given up: ", node_name(g->node));
            return false;
        }
    }
    for (guint i = 0; i < list->len; i++) {
        int fd = file_descriptor(((struct given_disk *)g_ptr_array_index(list, i))->node);
        if (fd >= 0)
            image_unlock(fd);
    }
    return true;
}

bool migrate_disks_give(struct vmm *v, GError **error)
{
    struct migrate *all = v->migrate;
    if (all->disks)
        return true;
    GPtrArray *list = g_ptr_array_new_with_free_func(given_free);
    for (guint i = 0; i < v->drives->len; i++) {
        struct node *n = image_node(((struct vm_drive *)g_ptr_array_index(v->drives, i))->image);
        if (n)
            list_nodes(list, n);
    }
    if (!check_idle(list, error)) {
        g_ptr_array_unref(list);
        return false;
    }
    GPtrArray *drained = block_drain_all(v);
    all->disks = list; /* from here on all of them are taken back if one fails */
    bool ok = give_all(list, error);
    block_drain_all_end(drained);
    return ok;
}

/* Readers lock here; writers as they become writers. */
static bool lock_reader(const struct given_disk *g, GError **error)
{
    struct node *n = g->node;
    int fd = file_descriptor(n);
    return fd < 0 || g->wrote || image_lock(fd, node_filename(n), false, n->force_share, error);
}

static bool take_one(const struct given_disk *g, GError **error)
{
    if (lock_reader(g, error) && (!g->wrote || !node_is_read_only(g->node) || set_read_only(g->node, false, error)))
        return true;
    g_prefix_error(error, "node '%s' cannot be taken again: ", node_name(g->node));
    return false;
}

bool migrate_disks_take(struct vmm *v, GError **error)
{
    GPtrArray *list = v->migrate->disks;
    if (!list)
        return true;
    GPtrArray *drained = block_drain_all(v);
    bool ok = true;
    for (guint i = list->len; i-- > 0 && ok;) /* children first */
        ok = take_one(g_ptr_array_index(list, i), error);
    if (!ok)
        give_all(list, NULL);
    block_drain_all_end(drained);
    if (ok)
        migrate_disks_forget(v);
    return ok;
}

/* ---- disks that the other side had ---- */

struct inactive_disk {
    struct node *node; /* borrowed from its owners: the user, the image */
    bool user_ref;
    struct image *image; /* borrowed; NULL: no disk, but a node that others name */
    struct loop *loop;   /* the image's; NULL: none */
    JsonObject *options;
    unsigned flags;
    int result;
};

static void inactive_free(gpointer p)
{
    struct inactive_disk *d = p;
    json_object_unref(d->options);
    g_free(d);
}

static struct image *image_on(struct vmm *v, const struct node *n)
{
    for (guint i = 0; i < v->drives->len; i++) {
        struct vm_drive *d = g_ptr_array_index(v->drives, i);
        if (image_node(d->image) == n)
            return d->image;
    }
    return NULL;
}

/* Those that somebody owns, oldest first: the others go with them. */
static GPtrArray *list_inactive(struct vmm *v)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(inactive_free);
    for (struct node *n = graph_next(v->graph, NULL); n; n = graph_next(v->graph, n)) {
        struct image *i = n->inactive ? image_on(v, n) : NULL;
        if (!n->inactive || (!n->user_ref && !i))
            continue;
        struct inactive_disk *d = g_new0(struct inactive_disk, 1);
        *d = (struct inactive_disk){.node = n,
                                    .user_ref = n->user_ref,
                                    .image = i,
                                    .loop = i ? image_loop(i) : NULL,
                                    .options = json_object_ref(n->options),
                                    .flags = n->open_flags & ~NODE_INACTIVE};
        g_ptr_array_add(list, d);
    }
    return list;
}

static void home_leave(void *opaque)
{
    struct inactive_disk *d = opaque;
    d->result = image_set_loop(d->image, NULL);
}

static void home_join(void *opaque)
{
    struct inactive_disk *d = opaque;
    d->result = image_set_loop(d->image, d->loop);
    if (!d->result)
        image_look_again(d->image);
}

static bool close_inactive(struct inactive_disk *d, GError **error)
{
    if (d->loop)
        loop_call(d->loop, home_leave, d);
    if (d->result)
        return ruche_error_errno(error, -d->result, "node '%s' cannot be moved",
                                 node_name(d->node));
    if (d->image)
        image_set_node(d->image, NULL, NULL);
    if (d->user_ref)
        node_unref(d->node);
    d->node = NULL;
    return true;
}

/* The user's reference, or one until the image has its own. */
static bool open_again(struct vmm *v, struct inactive_disk *d, GError **error)
{
    struct node *n = node_open(v->graph, d->options, d->flags, error);
    if (!n)
        return false;
    d->node = n;
    n->user_ref = d->user_ref;
    bool ok = !node_is_read_only(n) ||
              ruche_error(error, RUCHE_ERR_STATE, "image '%s' cannot be written to any more",
                          node_filename(n));
    ok = ok && (!d->image || image_set_node(d->image, n, error));
    if (!d->user_ref)
        node_unref(n);
    if (ok && d->loop)
        loop_call(d->loop, home_join, d);
    return ok && (!d->result ||
                  ruche_error_errno(error, -d->result, "node '%s' cannot be moved", node_name(n)));
}

/* Frees the locks of those that were opened, some of which no disk uses. */
static void give_opened(struct vmm *v, const GPtrArray *opened)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(given_free);
    for (guint i = 0; i < opened->len; i++) {
        struct inactive_disk *d = g_ptr_array_index(opened, i);
        struct node *n = d->user_ref ? d->node : d->image ? image_node(d->image) : NULL;
        if (n)
            list_nodes(list, n);
    }
    give_all(list, NULL);
    v->migrate->disks = list;
}

bool migrate_disks_activate(struct vmm *v, GError **error)
{
    g_autoptr(GPtrArray) list = list_inactive(v);
    bool ok = true;
    for (guint i = list->len; i-- > 0 && ok;)
        ok = close_inactive(g_ptr_array_index(list, i), error);
    for (guint i = 0; i < list->len && ok; i++)
        ok = open_again(v, g_ptr_array_index(list, i), error);
    if (!ok)
        give_opened(v, list);
    return ok;
}
