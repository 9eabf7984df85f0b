/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disks at the switch-over of a migration.
 *
 * Given up: every node that writes becomes a reader, which writes down what its format keeps in memory, and the locks
 * of files are dropped: another process may take the images. Taken: locks first, then the right to write.
 */
#include "base/log.h"
#include "image/file.h"
#include "image/graph.h"
#include "image/lock.h"
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
