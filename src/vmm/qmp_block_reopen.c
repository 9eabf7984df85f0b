/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: blockdev-reopen: options and children of open nodes change, of all nodes of the command or of none.
 *
 * What an option of the list below says holds from then on; left out, it has its default again. Children change when
 * they are named: by a node-name it is another node, by options (which must be those of the child that is there) the
 * child's own ones change with its parent's.
 */
#include "vmm/block.h"

#include "base/log.h"
#include "image/driver.h"

#include <errno.h>
#include <string.h>

#define REOPEN_MAX 256 /* nodes of one command */

/* What can be taken back of one node. */
struct reopened {
    struct node *node;          /* referenced */
    JsonObject *options;        /* borrowed from the command */
    const struct reopened *parent; /* of a child that is given by its options; NULL: its own row */
    /* as they were, from begin() on */
    bool begun, read_only, discard, no_flush;
    unsigned detect_zeroes;
    struct node *file, *backing; /* referenced; NULL: none */
};

struct reopen {
    struct vmm *vmm;
    struct reopened list[REOPEN_MAX];
    unsigned count;
    GError **error;
};

/* ---- what is asked for ---- */

static bool is_variable(const char *key)
{
    static const char *const keys[] = { "driver",  "node-name", "read-only",     "auto-read-only",
                                        "backing", "discard",   "detect-zeroes", "cache",
                                        "file",    NULL };
    return g_strv_contains(keys, key);
}

static bool same(JsonNode *a, JsonNode *b)
{
    return a && b ? json_node_equal(a, b) : a == b;
}

static bool check_options(struct node *n, JsonObject *options, GError **error)
{
    const char *driver = arg_string(options, "driver");
    if (driver && strcmp(driver, node_format(n)))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "node '%s' has driver '%s'; that cannot change", node_name(n),
                           node_format(n));
    g_autoptr(GList) keys = json_object_get_members(options);
    for (GList *k = keys; k; k = k->next)
        if (!is_variable(k->data) && !same(json_object_get_member(options, k->data),
                                           json_object_get_member(n->options, k->data)))
            return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                               "node '%s': '%s' cannot change while it is open", node_name(n),
                               (char *)k->data);
    return true;
}

static bool cache_word(JsonObject *options, const char *name, bool def)
{
    JsonNode *cache = json_object_get_member(options, "cache");
    return cache && JSON_NODE_HOLDS_OBJECT(cache) ? arg_bool(json_node_get_object(cache), name, def)
                                                  : def;
}

/* A job counts on the node as it is; a writer on its being writable. */
static bool check_users(struct node *n, bool read_only, GError **error)
{
    const char *why = node_blocked_by(node_skip_filters(n));
    if (why)
        return ruche_error(error, RUCHE_ERR_BUSY, "node '%s' is busy: %s", node_name(n), why);
    for (const struct node_user *u = n->users; read_only && u; u = u->next)
        if (u->perms & PERM_WRITE)
            return ruche_error(error, RUCHE_ERR_BUSY, "node '%s' cannot become read-only: %s writes to it",
                               node_name(n), u->who);
    for (struct node *p = NULL; read_only && (p = graph_next(node_graph(n), p));)
        for (unsigned k = 0; k < p->child_count; k++)
            if (p->children[k]->node == n && p->children[k]->perms & PERM_WRITE)
                return ruche_error(error, RUCHE_ERR_BUSY,
                                   "node '%s' cannot become read-only: node '%s' writes to it",
                                   node_name(n), node_name(p));
    return true;
}

static struct node *backing_child(const struct node *n)
{
    for (unsigned k = 0; k < n->child_count; k++)
        if (n->children[k]->role == CHILD_BACKING)
            return n->children[k]->node;
    return NULL;
}

static bool add(struct reopen *r, struct node *n, JsonObject *options, const struct reopened *parent);

/* A child that is given by its options is reopened with its parent. */
static bool add_child(struct reopen *r, const struct reopened *parent, const char *name,
                      struct node *child)
{
    JsonNode *v = json_object_get_member(parent->options, name);
    if (!v || !JSON_NODE_HOLDS_OBJECT(v))
        return true;
    if (!child)
        return ruche_error(r->error, RUCHE_ERR_NOT_FOUND, "node '%s' has no %s to reopen",
                           node_name(parent->node), name);
    return add(r, child, json_node_get_object(v), parent);
}

static bool add(struct reopen *r, struct node *n, JsonObject *options, const struct reopened *parent)
{
    if (r->count == REOPEN_MAX)
        return ruche_error(r->error, RUCHE_ERR_INVALID, "blockdev-reopen: more than %d nodes",
                           REOPEN_MAX);
    if (!check_options(n, options, r->error))
        return false;
    if (cache_word(options, "direct", n->direct) != n->direct)
        return ruche_error(r->error, RUCHE_ERR_UNSUPPORTED,
                           "node '%s': 'cache.direct' cannot change while it is open",
                           node_name(n));
    if (!parent && !check_users(n, arg_bool(options, "read-only", false), r->error))
        return false;
    struct reopened *o = &r->list[r->count++];
    *o = (struct reopened){ .node = node_ref(n), .options = options, .parent = parent };
    return add_child(r, o, "file", node_file(n)) && add_child(r, o, "backing", backing_child(n));
}

/* ---- changes, in a fiber of the node's context ---- */

static void begin(struct reopened *o)
{
    struct node *n = o->node, *file = node_file(n), *backing = backing_child(n);
    o->begun = true;
    o->read_only = node_is_read_only(n);
    o->discard = n->discard;
    o->no_flush = n->no_flush;
    o->detect_zeroes = n->detect_zeroes;
    o->file = file ? node_ref(file) : NULL;
    o->backing = backing ? node_ref(backing) : NULL;
}

/* The node that a child is to be: *ret NULL is none. False: nothing is said about it, or *error. */
static bool wanted_child(struct reopen *r, const struct reopened *o, const char *name, struct node **ret,
                         GError **error)
{
    JsonNode *v = json_object_get_member(o->options, name);
    *ret = NULL;
    if (!v || JSON_NODE_HOLDS_OBJECT(v))
        return false;
    if (JSON_NODE_HOLDS_NULL(v))
        return !strcmp(name, "backing") ||
               ruche_error(error, RUCHE_ERR_INVALID, "node '%s' cannot be without %s", node_name(o->node), name);
    const char *id = JSON_NODE_HOLDS_VALUE(v) ? json_node_get_string(v) : NULL;
    *ret = id ? graph_find(r->vmm->graph, id) : NULL;
    return *ret || ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s: there is no node '%s'", name, id ? id : "");
}

static bool set_backing(struct node *n, struct node *b, GError **error)
{
    if (b && node_context(b) != node_context(n))
        return ruche_error(error, RUCHE_ERR_BUSY, "backing: node '%s' runs on another I/O thread",
                           node_name(b));
    if (b && b != backing_child(n)) {
        struct node_user reader = { .who = node_name(n), .perms = PERM_READ, .shared = PERM_READ };
        if (!node_use(b, &reader, error)) /* somebody writes to it */
            return false;
        node_leave(&reader);
    }
    return node_set_backing(n, b, error);
}

static bool change_children(struct reopen *r, struct reopened *o)
{
    struct node *n = o->node, *child;
    GError *error = NULL;
    bool ok = true;
    if (wanted_child(r, o, "file", &child, &error))
        ok = node_set_file(n, child, &error);
    if (ok && !error && wanted_child(r, o, "backing", &child, &error))
        ok = set_backing(n, child, &error);
    if (!error)
        return ok;
    g_propagate_error(r->error, error);
    return false;
}

static bool change_options(struct reopen *r, struct reopened *o)
{
    static const char *const discard_words[] = { "ignore", "off", "unmap", "on", NULL };
    static const char *const detect_words[] = { "off", "on", "unmap", NULL };
    struct node *n = o->node;
    const struct node *above = o->parent ? o->parent->node : NULL;
    int discard = above && above->discard ? 2 : 0, detect = 0;
    if (!arg_word(o->options, "discard", discard_words, &discard, r->error) ||
        !arg_word(o->options, "detect-zeroes", detect_words, &detect, r->error))
        return false;
    n->discard = discard >= 2;
    n->detect_zeroes = (unsigned)detect;
    n->no_flush = cache_word(o->options, "no-flush", above && above->no_flush);
    return o->parent || node_set_read_only(n, arg_bool(o->options, "read-only", false), r->error);
}

struct step {
    struct reopen *r;
    struct reopened *o;
};

static int reopen_one(void *opaque)
{
    struct step *s = opaque;
    node_drain_begin(s->o->node);
    begin(s->o);
    bool ok = change_children(s->r, s->o) && change_options(s->r, s->o);
    node_drain_end(s->o->node);
    return ok ? 0 : -EINVAL;
}

static int take_back(void *opaque)
{
    struct reopened *o = opaque;
    struct node *n = o->node;
    g_autoptr(GError) error = NULL;
    node_drain_begin(n);
    bool ok = o->parent || node_set_read_only(n, o->read_only, &error);
    ok = ok && node_set_backing(n, o->backing, &error);
    ok = ok && (!o->file || node_set_file(n, o->file, &error));
    if (!ok)
        log_warn("blockdev-reopen: node '%s': %s", node_name(n), error->message);
    n->discard = o->discard;
    n->no_flush = o->no_flush;
    n->detect_zeroes = o->detect_zeroes;
    node_drain_end(n);
    return 0;
}

static int forget(void *opaque)
{
    struct reopened *o = opaque;
    node_unref(o->file);
    node_unref(o->backing);
    node_unref(o->node);
    return 0;
}

/* ---- the command ---- */

static bool add_all(struct reopen *r, JsonArray *list)
{
    for (guint i = 0; i < json_array_get_length(list); i++) {
        JsonNode *item = json_array_get_element(list, i);
        if (!JSON_NODE_HOLDS_OBJECT(item))
            return ruche_error(r->error, RUCHE_ERR_INVALID,
                               "blockdev-reopen: 'options' is a list of objects");
        JsonObject *options = json_node_get_object(item);
        struct node *n = block_node(r->vmm, NULL, arg_string(options, "node-name"), r->error);
        if (!n || !add(r, n, options, NULL))
            return false;
    }
    return true;
}

static JsonNode *blockdev_reopen(void *opaque, JsonObject *args, GError **error)
{
    g_autofree struct reopen *r = g_new0(struct reopen, 1);
    r->vmm = opaque;
    r->error = error;
    bool ok = add_all(r, json_object_get_array_member(args, "options"));
    for (unsigned i = 0; ok && i < r->count; i++) {
        struct step s = { r, &r->list[i] };
        ok = block_run(s.o->node, reopen_one, &s) >= 0;
    }
    for (unsigned i = r->count; !ok && i--;)
        if (r->list[i].begun)
            block_run(r->list[i].node, take_back, &r->list[i]);
    for (unsigned i = 0; i < r->count; i++) {
        struct node *n = r->list[i].node;
        context_run(node_context(n), forget, &r->list[i]);
    }
    return NULL;
}
static const struct qmp_arg blockdev_reopen_args[] = {
    { "options", QMP_ARRAY, false, "As for blockdev-add, each with its node-name" },
    { 0 },
};
static const struct qmp_command blockdev_reopen_cmd = {
    .name = "blockdev-reopen",
    .summary = "Change options and children of nodes",
    .args = blockdev_reopen_args,
    .call = blockdev_reopen,
};
QMP_COMMAND(blockdev_reopen_cmd);
