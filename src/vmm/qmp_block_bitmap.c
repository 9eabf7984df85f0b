/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: dirty bitmaps: what was written since a moment. All are actions of `transaction`, undone by
 * what the bitmap was before.
 */
#include "vmm/block.h"

#include "image/dirty.h"
#include "image/driver.h"

#include <errno.h>
#include <string.h>

struct bitmap_action {
    struct block_action action;
    struct node *node;           /* referenced */
    struct dirty_bitmap *bitmap; /* borrowed: the node's */
    struct dirty_bitmap *before; /* what it held, to undo */
    bool was_enabled, made;
};

struct bitmap_call {
    struct bitmap_action *b;
    JsonObject *data;
    bool (*fn)(struct bitmap_action *b, JsonObject *data, GError **error);
    GError **error;
};

static struct bitmap_action *of(struct block_action *a)
{
    return container_of(a, struct bitmap_action, action);
}

static int in_fiber(void *opaque)
{
    struct bitmap_call *c = opaque;
    return c->fn(c->b, c->data, c->error) ? 0 : -EINVAL;
}

/* Finds the node, and does the rest where it is served. */
static bool on_node(struct block_action *a, JsonObject *data, const char *name,
                    bool (*fn)(struct bitmap_action *b, JsonObject *data, GError **error),
                    unsigned need, GError **error)
{
    struct bitmap_action *b = of(a);
    struct node *n = block_node(a->vmm, arg_string(data, "node"), NULL, error);
    if (!n)
        return false;
    n = node_skip_filters(n);
    b->node = node_ref(n);
    if (name) {
        b->bitmap = dirty_find(n, name);
        if (!b->bitmap)
            return ruche_error(error, RUCHE_ERR_NOT_FOUND, "node '%s' has no bitmap '%s'",
                               node_name(n), name);
        if (!dirty_usable(b->bitmap, need, error))
            return false;
        b->was_enabled = b->bitmap->enabled;
    }
    struct bitmap_call c = { .b = b, .data = data, .fn = fn, .error = error };
    return block_run(n, in_fiber, &c) >= 0;
}

static void clean_bitmap(struct block_action *a)
{
    struct bitmap_action *b = of(a);
    dirty_free(b->before);
    node_unref(b->node);
}

/* ---- add ---- */

static bool do_add(struct bitmap_action *b, JsonObject *data, GError **error)
{
    const char *name = arg_string(data, "name");
    bool persistent = arg_bool(data, "persistent", false);
    const struct image_driver *d = b->node->driver;
    uint64_t granularity = 0;
    if (!arg_u64(data, "granularity", 1U << 31, &granularity, error))
        return false;
    if (persistent && !d->bitmap_can_store)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "node '%s': format '%s' keeps no bitmaps",
                           node_name(b->node), d->name);
    if (persistent && node_is_read_only(b->node))
        return ruche_error(error, RUCHE_ERR_STATE,
                           "node '%s' is read-only: a persistent bitmap cannot be kept in it",
                           node_name(b->node));
    b->bitmap = dirty_new(b->node, 0, name, (uint32_t)granularity, error);
    if (!b->bitmap)
        return false;
    b->made = true;
    if (persistent && !d->bitmap_can_store(b->node, name, b->bitmap->granularity, error))
        return false;
    b->bitmap->persistent = persistent;
    b->bitmap->enabled = !arg_bool(data, "disabled", false);
    return true;
}

static bool prepare_add(struct block_action *a, JsonObject *data, GError **error)
{
    return on_node(a, data, NULL, do_add, 0, error);
}

static void abort_add(struct block_action *a)
{
    if (of(a)->made)
        dirty_free(of(a)->bitmap);
}

/* ---- remove: at commit ---- */

static bool do_nothing(struct bitmap_action *b, JsonObject *data, GError **error)
{
    return true;
}

static bool prepare_remove(struct block_action *a, JsonObject *data, GError **error)
{
    if (!on_node(a, data, arg_string(data, "name"), do_nothing, DIRTY_NEED_IDLE, error))
        return false;
    of(a)->bitmap->busy = true; /* nobody else's from here on */
    return true;
}

static int forget(void *opaque)
{
    struct bitmap_action *b = opaque;
    const struct image_driver *d = b->node->driver;
    b->bitmap->busy = false;
    if (b->bitmap->persistent && d->bitmap_forget && !node_is_read_only(b->node))
        d->bitmap_forget(b->node, b->bitmap->name, NULL);
    dirty_free(b->bitmap);
    return 0;
}

static void commit_remove(struct block_action *a)
{
    block_run(of(a)->node, forget, of(a));
}

static void abort_remove(struct block_action *a)
{
    if (of(a)->bitmap)
        of(a)->bitmap->busy = false;
}

/* ---- clear, merge: undone by a copy ---- */

static bool remember(struct bitmap_action *b, GError **error)
{
    b->before = dirty_new(NULL, b->bitmap->size_bytes, NULL, b->bitmap->granularity, error);
    return b->before && dirty_merge(b->before, b->bitmap, error);
}

static bool do_clear(struct bitmap_action *b, JsonObject *data, GError **error)
{
    if (!remember(b, error))
        return false;
    dirty_clear(b->bitmap);
    return true;
}

static bool prepare_clear(struct block_action *a, JsonObject *data, GError **error)
{
    return on_node(a, data, arg_string(data, "name"), do_clear,
                   DIRTY_NEED_IDLE | DIRTY_NEED_WRITABLE | DIRTY_NEED_CONSISTENT, error);
}

static int put_back(void *opaque)
{
    struct bitmap_action *b = opaque;
    dirty_swap(b->bitmap, b->before);
    return 0;
}

static void abort_contents(struct block_action *a)
{
    if (of(a)->before)
        block_run(of(a)->node, put_back, of(a));
}

/* "name", or {"node": ..., "name": ...}. */
static struct dirty_bitmap *find_source(struct bitmap_action *b, JsonNode *n, GError **error)
{
    JsonObject *o = JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
    const char *name = o                          ? arg_string(o, "name")
                       : JSON_NODE_HOLDS_VALUE(n) ? json_node_get_string(n)
                                                  : NULL;
    const char *node = o ? arg_string(o, "node") : NULL;
    struct node *owner = o && node ? block_node(b->action.vmm, node, NULL, error) : b->node;
    if (!owner)
        return NULL;
    owner = node_skip_filters(owner);
    struct dirty_bitmap *found = name ? dirty_find(owner, name) : NULL;
    if (!found)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "node '%s' has no bitmap '%s'", node_name(owner),
                    name ? name : "");
    return found && dirty_usable(found, DIRTY_NEED_CONSISTENT, error) ? found : NULL;
}

static bool do_merge(struct bitmap_action *b, JsonObject *data, GError **error)
{
    JsonArray *list = json_object_get_array_member(data, "bitmaps");
    if (!remember(b, error))
        return false;
    for (guint i = 0; i < json_array_get_length(list); i++) {
        struct dirty_bitmap *source = find_source(b, json_array_get_element(list, i), error);
        if (!source || !dirty_merge(b->bitmap, source, error))
            return false;
    }
    return true;
}

static bool prepare_merge(struct block_action *a, JsonObject *data, GError **error)
{
    return on_node(a, data, arg_string(data, "target"), do_merge,
                   DIRTY_NEED_IDLE | DIRTY_NEED_WRITABLE | DIRTY_NEED_CONSISTENT, error);
}

/* ---- enable, disable ---- */

static bool do_enable(struct bitmap_action *b, JsonObject *data, GError **error)
{
    b->bitmap->enabled = true;
    return true;
}

static bool do_disable(struct bitmap_action *b, JsonObject *data, GError **error)
{
    b->bitmap->enabled = false;
    return true;
}

static bool prepare_enable(struct block_action *a, JsonObject *data, GError **error)
{
    return on_node(a, data, arg_string(data, "name"), do_enable,
                   DIRTY_NEED_IDLE | DIRTY_NEED_CONSISTENT, error);
}

static bool prepare_disable(struct block_action *a, JsonObject *data, GError **error)
{
    return on_node(a, data, arg_string(data, "name"), do_disable,
                   DIRTY_NEED_IDLE | DIRTY_NEED_CONSISTENT, error);
}

static void abort_enabled(struct block_action *a)
{
    if (of(a)->bitmap)
        of(a)->bitmap->enabled = of(a)->was_enabled;
}

/* ---- the commands ---- */

static const struct qmp_arg add_args[] = {
    { "node", QMP_STRING, false, "Disk or node" },
    { "name", QMP_STRING, false, "The bitmap's name" },
    { "granularity", QMP_INT, true, "Bytes a bit, a power of two" },
    { "persistent", QMP_BOOL, true, "Kept in the image" },
    { "disabled", QMP_BOOL, true, "Records nothing until it is enabled" },
    { 0 },
};
static const struct qmp_arg named_args[] = {
    { "node", QMP_STRING, false, "Disk or node" },
    { "name", QMP_STRING, false, "The bitmap's name" },
    { 0 },
};
static const struct qmp_arg merge_args[] = {
    { "node", QMP_STRING, false, "Disk or node" },
    { "target", QMP_STRING, false, "The bitmap to merge into" },
    { "bitmaps", QMP_ARRAY, false, "Names, or {node, name}" },
    { 0 },
};

#define BITMAP_ACTION(symbol, args_, help, commit_, abort_)                                        \
    static const struct block_action_type symbol##_action = {                                      \
        .name = "block-dirty-bitmap-" #symbol,                                                     \
        .size = sizeof(struct bitmap_action),                                                      \
        .args = args_,                                                                             \
        .prepare = prepare_##symbol,                                                               \
        .commit = commit_,                                                                         \
        .abort = abort_,                                                                           \
        .clean = clean_bitmap,                                                                     \
    };                                                                                             \
    BLOCK_ACTION(symbol##_action);                                                                 \
    static JsonNode *call_##symbol(void *opaque, JsonObject *args, GError **error)                 \
    {                                                                                              \
        return block_action_run(opaque, &symbol##_action, args, error);                            \
    }                                                                                              \
    static const struct qmp_command symbol##_cmd = { .name = "block-dirty-bitmap-" #symbol,        \
                                                     .summary = help,                              \
                                                     .args = args_,                                \
                                                     .call = call_##symbol };                      \
    QMP_COMMAND(symbol##_cmd)

BITMAP_ACTION(add, add_args, "Begin to record what is written", NULL, abort_add);
BITMAP_ACTION(remove, named_args, "Drop a bitmap", commit_remove, abort_remove);
BITMAP_ACTION(clear, named_args, "Begin anew", NULL, abort_contents);
BITMAP_ACTION(merge, merge_args, "Add what others recorded", NULL, abort_contents);
BITMAP_ACTION(enable, named_args, "Let it record", NULL, abort_enabled);
BITMAP_ACTION(disable, named_args, "Let it stand", NULL, abort_enabled);

/* ---- for tests ---- */

struct sum_call {
    const struct dirty_bitmap *bitmap;
    GChecksum *sum;
};

static int sum_bits(void *opaque)
{
    struct sum_call *c = opaque;
    uint8_t bytes[4096];
    for (uint64_t g = 0; g < c->bitmap->grain_count; g += sizeof(bytes) * 8) {
        uint64_t count = MIN(c->bitmap->grain_count - g, sizeof(bytes) * 8);
        memset(bytes, 0, sizeof(bytes));
        dirty_store(c->bitmap, g, count, bytes);
        g_checksum_update(c->sum, bytes, (count + 7) / 8);
    }
    return 0;
}

static JsonNode *bitmap_sha256(void *opaque, JsonObject *args, GError **error)
{
    const char *name = arg_string(args, "name");
    struct node *n = block_node(opaque, arg_string(args, "node"), NULL, error);
    if (!n)
        return NULL;
    n = node_skip_filters(n);
    struct sum_call c = { .bitmap = dirty_find(n, name) };
    if (!c.bitmap) {
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "node '%s' has no bitmap '%s'", node_name(n), name);
        return NULL;
    }
    c.sum = g_checksum_new(G_CHECKSUM_SHA256);
    block_run(n, sum_bits, &c);
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "sha256", g_checksum_get_string(c.sum));
    g_checksum_free(c.sum);
    return qmp_object(o);
}
static const struct qmp_command bitmap_sha256_cmd = {
    .name = "x-debug-block-dirty-bitmap-sha256",
    .summary = "A checksum of a bitmap's bits",
    .args = named_args,
    .call = bitmap_sha256,
};
QMP_COMMAND(bitmap_sha256_cmd);
