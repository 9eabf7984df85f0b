/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A node's life: options in, children, the driver's open, links, the end; and what re-opens it.
 *
 * Thread    The home thread of the node's context; graph-wide lists have their lock.
 * Trust     Options are checked here. Names out of images pass the policy; chains are bounded; what a probe
 *           found may not name further files.
 * Errors    Sentences; everything half-done is undone.
 */
#include "image/dirty.h"
#include "image/graph.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>

const char *const image_prealloc_words[] = { "off", "metadata", "falloc", "full", NULL };

/* ---- options that every node has ---- */

struct common {
    bool read_only, auto_read_only, force_share;
    bool direct, no_flush;
    int discard, detect_zeroes;
    char *node_name;
};

static const char *const discard_words[] = { "ignore", "off", "unmap", "on", NULL };
static const char *const detect_words[] = { "off", "on", "unmap", NULL };

static const struct image_option common_options[] = {
    OPT_STRING("node-name", struct common, node_name, "Name of the node"),
    OPT_BOOL("read-only", struct common, read_only, false, "Never write"),
    OPT_BOOL("auto-read-only", struct common, auto_read_only, false,
             "Open for reading where writing is not allowed"),
    OPT_BOOL("force-share", struct common, force_share, false,
             "Read although others may write; for read-only=on"),
    OPT_WORD("discard", struct common, discard, discard_words, 0, "Pass discards on, or ignore them"),
    OPT_WORD("detect-zeroes", struct common, detect_zeroes, detect_words, 0,
             "Turn writes of zeroes into zero requests"),
    { 0 },
};
static const struct image_option cache_options[] = {
    OPT_BOOL("direct", struct common, direct, false, "Past the host's page cache"),
    OPT_BOOL("no-flush", struct common, no_flush, false, "Never sync: a crash may lose all"),
    { 0 },
};

static bool parse_common(JsonObject *o, const char *what, struct common *c, GError **error)
{
    JsonObject *cache = NULL;
    if (json_object_has_member(o, "cache")) {
        JsonNode *v = json_object_get_member(o, "cache");
        if (!JSON_NODE_HOLDS_OBJECT(v))
            return ruche_error(error, RUCHE_ERR_INVALID, "%s: cache takes cache.direct and cache.no-flush", what);
        cache = json_object_ref(json_node_get_object(v));
        json_object_remove_member(o, "cache");
    } else {
        cache = json_object_new();
    }
    bool ok = option_parse(cache_options, cache, what, c, error) &&
              option_all_used(cache, cache_options, NULL, what, error) &&
              option_parse(common_options, o, what, c, error);
    json_object_unref(cache);
    return ok;
}

/* ---- children ---- */

static void put_default(JsonObject *to, const char *name, JsonNode *value)
{
    if (json_object_has_member(to, name))
        json_node_unref(value);
    else
        json_object_set_member(to, name, value);
}

/* A child works like its parent unless its options say otherwise. */
static void inherit(const struct node *n, JsonObject *child, enum child_role role)
{
    JsonObject *cache = json_object_new();
    JsonNode *v = json_node_new(JSON_NODE_OBJECT);
    json_object_set_boolean_member(cache, "direct", n->direct);
    json_object_set_boolean_member(cache, "no-flush", n->no_flush);
    json_node_take_object(v, cache);
    put_default(child, "cache", v);
    bool writes = role != CHILD_BACKING && (n->wanted_rw || n->inactive);
    put_default(child, "read-only", json_node_init_boolean(json_node_alloc(), !writes));
    if (role != CHILD_BACKING)
        put_default(child, "discard", json_node_init_string(json_node_alloc(), n->discard ? "unmap" : "ignore"));
    if (n->force_share)
        put_default(child, "force-share", json_node_init_boolean(json_node_alloc(), TRUE));
}

/* A format owns its file; what lies below an overlay must not change; filters only pass on. */
unsigned node_child_perms(const struct node *n, enum child_role role, unsigned *ret_shared)
{
    bool format = n->driver->kind == DRIVER_FORMAT;
    *ret_shared = n->driver->kind == DRIVER_FILTER || n->force_share ? PERM_ALL : PERM_READ;
    if (role == CHILD_BACKING || n->read_only)
        return PERM_READ;
    return PERM_READ | PERM_WRITE | (format ? PERM_RESIZE : 0);
}

struct node_child *node_add_child(struct node *n, const char *name, enum child_role role,
                                  struct node *child)
{
    g_assert(n->child_count < NODE_CHILD_MAX);
    struct node_child *c = g_new0(struct node_child, 1);
    c->name = g_strdup(name);
    c->role = role;
    c->node = child;
    c->perms = node_child_perms(n, role, &c->shared);
    n->children[n->child_count++] = c;
    return c;
}

void node_remove_child(struct node *n, struct node_child *c)
{
    for (unsigned k = 0; k < n->child_count; k++) {
        if (n->children[k] != c)
            continue;
        memmove(&n->children[k], &n->children[k + 1], (n->child_count - k - 1) * sizeof(n->children[0]));
        n->child_count--;
        node_unref(c->node);
        g_free(c->name);
        g_free(c);
        return;
    }
}

/* A filter over a node that somebody writes to is opened as a reader: it writes once it has taken that one's place
 * (node_set_file()). */
static bool may_rest(struct node *n, enum child_role role, struct node *child)
{
    bool read_only = n->read_only;
    n->read_only = true;
    unsigned shared, perms = node_child_perms(n, role, &shared);
    n->read_only = read_only;
    return n->driver->kind == DRIVER_FILTER && role == CHILD_FILE && n->wanted_rw && child->ctx == n->ctx &&
           !child->read_only && node_perms_fit(child, perms, shared, n->driver->name, NULL, NULL, NULL);
}

/* Fits `child` (referenced; taken, also on failure) in, if who else uses it allows. */
static struct node *link_child(struct node *n, const char *name, enum child_role role,
                               struct node *child, GError **error)
{
    unsigned shared, perms = node_child_perms(n, role, &shared);
    bool ok = true;
    if (n->child_count >= NODE_CHILD_MAX)
        ok = ruche_error(error, RUCHE_ERR_INVALID, "image '%s' has more than %d files", n->filename, NODE_CHILD_MAX);
    else if (child->ctx != n->ctx)
        ok = ruche_error(error, RUCHE_ERR_BUSY, "node '%s' runs on another I/O thread", child->name);
    else if (perms & PERM_WRITE && child->read_only)
        ok = ruche_error(error, RUCHE_ERR_INVALID, "node '%s' is read-only: its user must be so too (read-only=on)",
                         child->name);
    else
        ok = node_perms_fit(child, perms, shared, n->driver->name, NULL, NULL, error);
    if (!ok && may_rest(n, role, child)) {
        g_clear_error(error);
        n->read_only = ok = true;
    }
    if (!ok) {
        node_unref(child);
        return NULL;
    }
    node_add_child(n, name, role, child);
    return child;
}

/* The flags that a child's open takes over. */
static unsigned child_flags(const struct node *n, enum child_role role)
{
    unsigned flags = n->open_flags & (NODE_NO_IO | NODE_NO_LOCK | NODE_INACTIVE);
    if (role != CHILD_BACKING && (n->wanted_rw || n->inactive))
        flags |= NODE_RW;
    return flags;
}

struct node *node_open_child(struct node *n, const char *name, enum child_role role, bool required,
                             GError **error)
{
    JsonNode *v = n->options ? json_object_get_member(n->options, name) : NULL;
    struct node *child = NULL;
    if (!v || JSON_NODE_HOLDS_NULL(v)) {
        if (required)
            ruche_error(error, RUCHE_ERR_INVALID, "driver %s needs '%s'", n->driver->name, name);
        return NULL;
    }
    if (JSON_NODE_HOLDS_OBJECT(v)) {
        JsonObject *o = options_copy(json_node_get_object(v));
        inherit(n, o, role);
        unsigned flags = child_flags(n, role) | (role == CHILD_BACKING ? NODE_PROBE : 0);
        child = node_open(n->graph, o, flags, error);
        json_object_unref(o);
    } else if (JSON_NODE_HOLDS_VALUE(v) && json_node_get_value_type(v) == G_TYPE_STRING) {
        child = graph_find(n->graph, json_node_get_string(v));
        if (!child)
            ruche_error(error, RUCHE_ERR_NOT_FOUND, "driver %s: there is no node '%s' for '%s'", n->driver->name,
                        json_node_get_string(v), name);
        else
            node_ref(child);
    } else {
        ruche_error(error, RUCHE_ERR_INVALID, "driver %s: '%s' takes options or a node-name", n->driver->name, name);
    }
    return child ? link_child(n, name, role, child, error) : NULL;
}

/* How many links up to the image that began the chain: kept in the flags that opens pass down. */
#define DEPTH_SHIFT 16
static unsigned chain_depth(const struct node *n)
{
    return n->open_flags >> DEPTH_SHIFT;
}

struct node *node_open_named_child(struct node *n, const char *name, enum child_role role,
                                   const char *filename, const char *format, GError **error)
{
    if (json_object_has_member(n->options, name))
        return node_open_child(n, name, role, true, error);
    unsigned depth = chain_depth(n) + 1;
    if (depth > IMAGE_CHAIN_MAX) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "image '%s': more than %d images below one another (does a backing file name itself?)", n->filename,
                    IMAGE_CHAIN_MAX);
        return NULL;
    }
    if (n->probed && n->open_flags & NODE_IMPLICIT) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "image '%s' names '%s', but its own format was only guessed: say it where it is named (rebase -u -F %s)",
                    n->filename, filename, n->driver->name);
        return NULL;
    }
    g_autofree char *resolved = node_resolve_name(n, filename);
    if (!resolved) {
        ruche_error(error, RUCHE_ERR_INVALID, "image '%s': '%s' is relative to a name that is no path", n->filename,
                    filename);
        return NULL;
    }
    if (n->open_flags & NODE_ALONE) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "image '%s' names '%s', but may bring in no further file", n->filename,
                    filename);
        return NULL;
    }
    if (!graph_allows(n, resolved, error))
        return NULL;
    g_autoptr(JsonObject) extra = json_object_new();
    inherit(n, extra, role);
    unsigned flags = child_flags(n, role) | NODE_IMPLICIT | depth << DEPTH_SHIFT | (format ? 0 : NODE_PROBE);
    struct node *child;
    if (role == CHILD_DATA && !format) { /* plain bytes: the protocol alone */
        g_autoptr(JsonObject) o = name_to_options(resolved, error);
        if (!o)
            return NULL;
        inherit(n, o, role);
        child = node_open(n->graph, o, flags & ~NODE_PROBE, error);
    } else {
        child = node_open_name(n->graph, resolved, format, extra, flags, error);
    }
    return child ? link_child(n, name, role, child, error) : NULL;
}

/* ---- opening ---- */

static struct node *node_alloc(struct graph *g, const struct image_driver *d, JsonObject *options,
                               unsigned flags)
{
    struct node *n = calloc(1, d->size);
    if (!n)
        return NULL;
    n->driver = d;
    n->ctx = g->ctx;
    n->graph = g;
    n->refs = 1;
    n->open_flags = flags;
    n->request_align = n->mem_align = 1;
    n->options = options_copy(options);
    n->filename = g_strdup("");
    return n;
}

/* Frees what was never (or is no longer) in the graph's list. */
static void node_destroy(struct node *n)
{
    if (n->driver->close)
        n->driver->close(n);
    while (n->bitmaps)
        dirty_free(n->bitmaps);
    while (n->child_count)
        node_remove_child(n, n->children[n->child_count - 1]);
    if (n->driver->open_options)
        option_clear(n->driver->open_options, n);
    g_clear_pointer(&n->options, json_object_unref);
    g_free(n->name);
    g_free(n->filename);
    g_free(n->backing_file);
    g_free(n->backing_format);
    free(n);
}

static void take_common(struct node *n, const struct common *c)
{
    n->wanted_rw = n->open_flags & NODE_RW && !c->read_only;
    n->inactive = n->wanted_rw && n->open_flags & NODE_INACTIVE;
    n->wanted_rw &= !n->inactive;
    n->read_only = !n->wanted_rw;
    n->auto_read_only = c->auto_read_only;
    n->direct = c->direct;
    n->no_flush = c->no_flush;
    n->discard = c->discard >= 2;
    n->detect_zeroes = (unsigned)c->detect_zeroes;
    n->force_share = c->force_share || n->open_flags & (NODE_NO_LOCK | NODE_INACTIVE);
}

static bool open_file_child(struct node *n, GError **error)
{
    const struct image_driver *d = n->driver;
    if (d->kind == DRIVER_PROTOCOL || d->flags & DRIVER_NO_FILE)
        return true;
    struct node *file = node_open_child(n, "file", CHILD_FILE, true, error);
    if (!file)
        return false;
    g_free(n->filename);
    n->filename = g_strdup(file->filename);
    if (n->wanted_rw && file->read_only && d->kind == DRIVER_FORMAT)
        n->read_only = true;
    return true;
}

static bool finish_limits(struct node *n, GError **error)
{
    if (n->size_bytes > IMAGE_SIZE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "image '%s': a size of %" G_GUINT64_FORMAT " bytes is over the limit of "
                           "%llu", n->filename, n->size_bytes, IMAGE_SIZE_MAX);
    g_assert(is_power_of_2(n->request_align) && is_power_of_2(n->mem_align));
    return true;
}

/* Options with a driver, and the name to go by in messages. */
static struct node *open_with(struct graph *g, const struct image_driver *d, JsonObject *given,
                              unsigned flags, GError **error)
{
    struct common c = { 0 };
    struct node *n = node_alloc(g, d, given, flags);
    if (!n) {
        ruche_error(error, RUCHE_ERR_NO_SPACE, "no memory for a node of driver %s", d->name);
        return NULL;
    }
    const char *name = json_object_has_member(given, "node-name") ? json_object_get_string_member_with_default(given, "node-name", NULL) : NULL;
    g_autofree char *what = name ? g_strdup_printf("node '%s'", name) : g_strdup_printf("driver %s", d->name);
    g_autoptr(JsonObject) left = options_copy(given);
    json_object_remove_member(left, "driver");
    bool ok = parse_common(left, what, &c, error);
    if (ok) {
        take_common(n, &c);
        if (c.force_share && n->wanted_rw)
            ok = ruche_error(error, RUCHE_ERR_INVALID, "%s: force-share=on is only for read-only=on", what);
    }
    ok = ok && (!d->open_options || option_parse(d->open_options, left, what, n, error));
    ok = ok && open_file_child(n, error) && (!d->open || d->open(n, error)) && finish_limits(n, error);
    /* what is left are children that the driver knows, or mistakes */
    for (unsigned k = 0; ok && k < n->child_count; k++)
        json_object_remove_member(left, n->children[k]->name);
    if (ok && d->flags & DRIVER_BACKING && json_object_has_member(left, "backing"))
        json_object_remove_member(left, "backing");
    static const char *const names[] = { "driver", "file", "backing", "node-name", "read-only", "auto-read-only", "cache",
                                         "discard", "detect-zeroes", "force-share", NULL };
    ok = ok && option_all_used(left, d->open_options, names, what, error) &&
         graph_add(g, n, c.node_name, error);
    option_clear(common_options, &c);
    if (!ok) {
        node_destroy(n);
        return NULL;
    }
    graph_enter_drained(n);
    return n;
}

/* Opens the protocol alone, looks at the first bytes, and puts the format that they show on top. */
static struct node *open_probing(struct graph *g, JsonObject *options, unsigned flags, GError **error)
{
    uint8_t head[4096];
    g_autoptr(JsonObject) proto = NULL;
    if (json_object_has_member(options, "file")) {
        JsonNode *f = json_object_get_member(options, "file");
        if (!JSON_NODE_HOLDS_OBJECT(f)) {
            ruche_error(error, RUCHE_ERR_INVALID, "an image whose file is a node needs 'driver'");
            return NULL;
        }
        proto = options_copy(json_node_get_object(f));
    } else {
        ruche_error(error, RUCHE_ERR_INVALID, "an image needs 'driver', or 'file' to find it out");
        return NULL;
    }
    put_default(proto, "force-share", json_node_init_boolean(json_node_alloc(), TRUE));
    put_default(proto, "read-only", json_node_init_boolean(json_node_alloc(), TRUE));
    if (json_object_has_member(proto, "node-name"))
        json_object_remove_member(proto, "node-name");
    struct node *file = node_open(g, proto, flags & NODE_NO_IO, error);
    if (!file)
        return NULL;
    size_t len = min_u64(sizeof(head), file->size_bytes);
    int err = node_pread(file, 0, head, len);
    const struct image_driver *d = err ? NULL : driver_probe(head, len, file->filename);
    if (err)
        ruche_error_errno(error, -err, "image '%s' cannot be read", file->filename);
    node_unref(file);
    if (!d)
        return NULL;
    struct node *n = open_with(g, d, options, flags, error);
    if (n)
        n->probed = true;
    return n;
}

static void add_members(JsonObject *to, JsonObject *extra)
{
    g_autoptr(JsonObject) copy = options_copy(extra);
    g_autoptr(GList) names = json_object_get_members(copy);
    for (GList *l = names; l; l = l->next) {
        if (!json_object_has_member(to, l->data))
            json_object_set_member(to, l->data, json_object_dup_member(copy, l->data));
    }
}

/* {"filename": ...} without a driver: the protocol that the name says. */
static struct node *open_by_filename(struct graph *g, JsonObject *options, unsigned flags, GError **error)
{
    const char *name = json_object_get_string_member_with_default(options, "filename", "");
    g_autoptr(JsonObject) o = name_to_options(name, error);
    g_autoptr(JsonObject) rest = options_copy(options);
    if (!o)
        return NULL;
    json_object_remove_member(rest, "filename");
    add_members(o, rest);
    return node_open(g, o, flags & ~NODE_PROBE, error);
}

struct open_call {
    struct graph *g;
    JsonObject *options;
    unsigned flags;
    GError **error;
    struct node *ret;
    bool done;
    struct fiber *waiter; /* of a call on a stack of its own */
};

static int open_call(void *opaque)
{
    struct open_call *c = opaque;
    const char *driver = json_object_get_string_member_with_default(c->options, "driver", NULL);
    if (!driver && json_object_has_member(c->options, "filename")) {
        c->ret = open_by_filename(c->g, c->options, c->flags, c->error);
        return 0;
    }
    if (!driver && c->flags & NODE_PROBE) {
        c->ret = open_probing(c->g, c->options, c->flags, c->error);
        return 0;
    }
    if (!driver) {
        ruche_error(c->error, RUCHE_ERR_INVALID, "an image needs 'driver'");
        return 0;
    }
    const struct image_driver *d = driver_find(driver, c->error);
    if (d)
        c->ret = open_with(c->g, d, c->options, c->flags, c->error);
    return 0;
}

/* Images below images open one another: each on a stack of its own, or a long chain would overflow one. */
static void open_fiber(void *opaque)
{
    struct open_call *c = opaque;
    open_call(c);
    c->done = true;
    if (c->waiter)
        fiber_wake(c->waiter);
}

struct node *node_open(struct graph *g, JsonObject *options, unsigned flags, GError **error)
{
    struct open_call c = { .g = g, .options = options, .flags = flags, .error = error };
    if (fiber_self() && flags & NODE_IMPLICIT) {
        fiber_start(open_fiber, &c);
        if (!c.done) {
            c.waiter = fiber_self();
            fiber_wait();
        }
    } else {
        context_run(g->ctx, open_call, &c);
    }
    return c.ret;
}

struct node *node_open_name(struct graph *g, const char *filename, const char *format,
                            JsonObject *extra, unsigned flags, GError **error)
{
    g_autoptr(JsonObject) file = name_to_options(filename, error);
    if (!file)
        return NULL;
    const char *driver = json_object_get_string_member_with_default(file, "driver", NULL);
    const struct image_driver *d = driver ? driver_find(driver, NULL) : NULL;
    if (!format && d && d->kind != DRIVER_PROTOCOL) { /* json: with a format says it all */
        if (extra)
            add_members(file, extra);
        return node_open(g, file, flags, error);
    }
    g_autoptr(JsonObject) o = json_object_new();
    if (format)
        json_object_set_string_member(o, "driver", format);
    json_object_set_object_member(o, "file", json_object_ref(file));
    if (extra)
        add_members(o, extra);
    const struct image_driver *f = format ? driver_find(format, error) : NULL;
    if (format && !f)
        return NULL;
    if (f && f->kind == DRIVER_PROTOCOL) { /* "-f file", "-f nbd": the protocol itself */
        if (extra)
            add_members(file, extra);
        return node_open(g, file, flags, error);
    }
    return node_open(g, o, flags | (format ? 0 : NODE_PROBE), error);
}

/* ---- the end ---- */

struct node *node_ref(struct node *n)
{
    n->refs++;
    return n;
}

static int close_call(void *opaque)
{
    struct node *n = opaque;
    if (!n->read_only || n->writes != n->flushed) {
        int err = node_flush(n);
        if (err < 0)
            log_warn("image '%s': what was written last may be lost: %s", n->filename, strerror(-err));
    }
    while (n->in_flight)
        fiber_queue_wait(&n->idle_waiters);
    graph_remove(n);
    node_destroy(n);
    return 0;
}

void node_unref(struct node *n)
{
    if (!n || --n->refs)
        return;
    context_run(n->ctx, close_call, n);
}
