/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The graph: names, who may use what, draining, and changes of links.
 *
 * Thread    The home thread of the nodes in question; names are changed by the main thread only while
 *           other threads do not look them up.
 * Errors    Sentences that name both nodes.
 */
#include "image/graph.h"

#include <string.h>

#define NAME_MAX_LEN 63

struct graph *graph_new(struct context *c)
{
    struct graph *g = g_new0(struct graph, 1);
    g->ctx = c;
    g->drained = g_hash_table_new(NULL, NULL);
    pthread_mutex_init(&g->lock, NULL);
    return g;
}

void graph_free(struct graph *g)
{
    if (!g)
        return;
    for (struct node *n = g->first; n;) {
        if (n->user_ref) {
            n->user_ref = false;
            node_unref(n);
            n = g->first; /* its children may have gone with it */
        } else {
            n = n->next;
        }
    }
    g_assert(!g->first);
    g_hash_table_unref(g->drained);
    pthread_mutex_destroy(&g->lock);
    g_free(g);
}

struct context *graph_context(const struct graph *g)
{
    return g->ctx;
}

struct context *graph_set_context(struct graph *g, struct context *c)
{
    struct context *former = g->ctx;
    g->ctx = c;
    return former;
}

void graph_set_policy(struct graph *g, graph_policy_fn *fn, void *opaque)
{
    g->policy = fn;
    g->policy_opaque = opaque;
}

void graph_set_patience(struct graph *g, unsigned seconds)
{
    g->patience_sec = seconds;
}

unsigned graph_patience_sec(const struct graph *g)
{
    return g->patience_sec;
}

bool graph_allows(const struct node *parent, const char *filename, GError **error)
{
    const struct graph *g = parent->graph;
    return !g->policy || g->policy(parent, filename, g->policy_opaque, error);
}

void graph_time_requests(struct graph *g)
{
    __atomic_store_n(&g->timed, true, __ATOMIC_RELAXED);
}

struct node *graph_find(const struct graph *g, const char *name)
{
    struct node *n;
    pthread_mutex_lock((pthread_mutex_t *)&g->lock);
    for (n = g->first; n && strcmp(n->name, name); n = n->next)
        ;
    pthread_mutex_unlock((pthread_mutex_t *)&g->lock);
    return n;
}

struct node *graph_next(const struct graph *g, const struct node *after)
{
    return after ? after->next : g->first;
}

static bool name_is_valid(const char *name)
{
    size_t len = strlen(name);
    if (!len || len > NAME_MAX_LEN || !g_ascii_isalpha(name[0]))
        return false;
    return strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == len;
}

bool graph_add(struct graph *g, struct node *n, const char *name, GError **error)
{
    if (name && !name_is_valid(name))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "node-name '%s' is not valid: a letter, then letters, digits, '-', '.' and '_', "
                           "%d characters at most",
                           name, NAME_MAX_LEN);
    if (name && graph_find(g, name))
        return ruche_error(error, RUCHE_ERR_EXISTS, "the node-name '%s' is taken", name);
    pthread_mutex_lock(&g->lock);
    n->name = name ? g_strdup(name) : g_strdup_printf("#block%03u", g->next_auto++);
    n->prev = g->last;
    if (g->last)
        g->last->next = n;
    else
        g->first = n;
    g->last = n;
    pthread_mutex_unlock(&g->lock);
    return true;
}

void graph_remove(struct node *n)
{
    struct graph *g = n->graph;
    pthread_mutex_lock(&g->lock);
    if (n->prev)
        n->prev->next = n->next;
    else
        g->first = n->next;
    if (n->next)
        n->next->prev = n->prev;
    else
        g->last = n->prev;
    pthread_mutex_unlock(&g->lock);
}

bool node_reaches(const struct node *n, const struct node *below)
{
    if (n == below)
        return true;
    for (unsigned k = 0; k < n->child_count; k++) {
        if (node_reaches(n->children[k]->node, below))
            return true;
    }
    return false;
}

/* The nodes that c serves. Those go and change only on its home thread, where the caller is. */
static GPtrArray *nodes_of(struct graph *g, const struct context *c)
{
    GPtrArray *list = g_ptr_array_new();
    pthread_mutex_lock(&g->lock);
    for (struct node *p = g->first; p; p = p->next) {
        if (p->ctx == c)
            g_ptr_array_add(list, p);
    }
    pthread_mutex_unlock(&g->lock);
    return list;
}

/* ---- who may do what ---- */

static const char *perm_word(unsigned perms)
{
    return perms & PERM_WRITE ? "write to" : perms & PERM_RESIZE ? "resize" : "read";
}

static bool fits(const struct node *n, unsigned perms, unsigned shared, const char *who,
                 unsigned o_perms, unsigned o_shared, const char *other, GError **error)
{
    if (perms & ~o_shared)
        return ruche_error(error, RUCHE_ERR_BUSY, "%s cannot %s node '%s': it is used by %s", who,
                           perm_word(perms & ~o_shared), n->name, other);
    if (o_perms & ~shared)
        return ruche_error(error, RUCHE_ERR_BUSY, "%s cannot use node '%s': %s may %s it", who,
                           n->name, other, perm_word(o_perms & ~shared));
    return true;
}

bool node_perms_fit(struct node *n, unsigned perms, unsigned shared, const char *who,
                    const struct node_child *self_link, const struct node_user *self_user,
                    GError **error)
{
    for (const struct node_user *u = n->users; u; u = u->next) {
        if (u != self_user && !fits(n, perms, shared, who, u->perms, u->shared, u->who, error))
            return false;
    }
    g_autoptr(GPtrArray) list = nodes_of(n->graph, n->ctx);
    for (guint i = 0; i < list->len; i++) {
        const struct node *p = g_ptr_array_index(list, i);
        for (unsigned k = 0; k < p->child_count; k++) {
            const struct node_child *c = p->children[k];
            if (c->node != n || c == self_link)
                continue;
            g_autofree char *other = g_strdup_printf("node '%s' as %s", p->name, c->name);
            if (!fits(n, perms, shared, who, c->perms, c->shared, other, error))
                return false;
        }
    }
    return true;
}

bool node_block(struct node *n, const char *why, GError **error)
{
    if (why && n->blocked_by)
        return ruche_error(error, RUCHE_ERR_BUSY, "node '%s' is busy: %s", n->name, n->blocked_by);
    n->blocked_by = why;
    return true;
}

const char *node_blocked_by(const struct node *n)
{
    return n->blocked_by;
}

/* ---- draining ---- */

static unsigned drain_depth(struct graph *g, const struct context *c, int change)
{
    pthread_mutex_lock(&g->lock);
    unsigned depth = GPOINTER_TO_UINT(g_hash_table_lookup(g->drained, c)) + (unsigned)change;
    if (change && depth)
        g_hash_table_insert(g->drained, (void *)c, GUINT_TO_POINTER(depth));
    else if (change)
        g_hash_table_remove(g->drained, c);
    pthread_mutex_unlock(&g->lock);
    return depth;
}

unsigned graph_drain_depth(struct graph *g, const struct context *c)
{
    return drain_depth(g, c, 0);
}

/* Everybody on the context: links may change meanwhile, and who was told to pause must be told to go on. */
static void tell_all(struct graph *g, const struct context *c, bool begin)
{
    g_autoptr(GPtrArray) list = nodes_of(g, c);
    for (guint k = 0; k < list->len; k++) {
        struct node *n = g_ptr_array_index(list, k);
        for (struct node_user *u = n->users, *next; u; u = next) {
            next = u->next;
            if (u->drained)
                u->drained(u, begin);
        }
        if (n->driver->drain)
            n->driver->drain(n, begin);
    }
}

void graph_enter_drained(struct node *n)
{
    unsigned depth = drain_depth(n->graph, n->ctx, 0);
    while (n->driver->drain && depth--)
        n->driver->drain(n, true);
}

static struct node *in_flight_above(const struct node *n)
{
    g_autoptr(GPtrArray) list = nodes_of(n->graph, n->ctx);
    for (guint k = 0; k < list->len; k++) {
        struct node *p = g_ptr_array_index(list, k);
        if (p->in_flight && node_reaches(p, n))
            return p;
    }
    return NULL;
}

void node_drain_begin(struct node *n)
{
    drain_depth(n->graph, n->ctx, 1);
    tell_all(n->graph, n->ctx, true);
    for (struct node *busy; (busy = in_flight_above(n));)
        fiber_queue_wait(&busy->idle_waiters);
}

void node_drain_end(struct node *n)
{
    drain_depth(n->graph, n->ctx, -1);
    tell_all(n->graph, n->ctx, false);
}

/* ---- users ---- */

bool node_use(struct node *n, struct node_user *u, GError **error)
{
    if (u->perms & (PERM_WRITE | PERM_RESIZE) && n->read_only)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s wants to write, and node '%s' is read-only", u->who,
                           n->name);
    if (!node_perms_fit(n, u->perms, u->shared, u->who, NULL, u, error))
        return false;
    u->node = node_ref(n);
    u->next = n->users;
    n->users = u;
    for (unsigned depth = drain_depth(n->graph, n->ctx, 0); u->drained && depth; depth--)
        u->drained(u, true);
    return true;
}

void node_leave(struct node_user *u)
{
    struct node *n = u->node;
    if (!n)
        return;
    for (struct node_user **at = &n->users; *at; at = &(*at)->next) {
        if (*at == u) {
            *at = u->next;
            break;
        }
    }
    u->node = NULL;
    node_unref(n);
}

/* ---- links ---- */

/* Those parents of `from` that are to get `to` are the ones that `to` does not reach. */
static bool replaceable(struct node *from, struct node *to, GError **error)
{
    if (from->graph != to->graph || from->ctx != to->ctx)
        return ruche_error(error, RUCHE_ERR_INVALID, "node '%s' cannot take the place of '%s': they run on different "
                           "I/O threads", to->name, from->name);
    g_autoptr(GPtrArray) list = nodes_of(from->graph, from->ctx);
    for (guint i = 0; i < list->len; i++) {
        struct node *p = g_ptr_array_index(list, i);
        for (unsigned k = 0; k < p->child_count; k++) {
            struct node_child *c = p->children[k];
            if (c->node != from || node_reaches(to, p))
                continue;
            if (c->perms & PERM_WRITE && to->read_only)
                return ruche_error(error, RUCHE_ERR_INVALID,
                                   "node '%s' cannot take the place of '%s': it is read-only, and node '%s' writes",
                                   to->name, from->name, p->name);
            if (!node_perms_fit(to, c->perms, c->shared, p->name, c, NULL, error))
                return false;
        }
    }
    return true;
}

static void move_users(struct node *from, struct node *to)
{
    for (struct node_user **at = &from->users, *u; (u = *at);) {
        if (u->stays) {
            at = &u->next;
            continue;
        }
        *at = u->next;
        u->node = node_ref(to);
        u->next = to->users;
        to->users = u;
        node_unref(from); /* the caller holds another */
        if (u->moved)
            u->moved(u);
    }
}

bool node_replace(struct node *from, struct node *to, GError **error)
{
    if (!replaceable(from, to, error))
        return false;
    node_ref(from);
    g_autoptr(GPtrArray) list = nodes_of(from->graph, from->ctx);
    for (guint i = 0; i < list->len; i++) {
        struct node *p = g_ptr_array_index(list, i);
        for (unsigned k = 0; k < p->child_count; k++) {
            struct node_child *c = p->children[k];
            if (c->node != from || node_reaches(to, p))
                continue;
            c->node = node_ref(to);
            node_unref(from);
        }
    }
    move_users(from, to);
    node_unref(from);
    return true;
}

static struct node_child *child_of_role(const struct node *n, enum child_role role)
{
    for (unsigned k = 0; k < n->child_count; k++) {
        if (n->children[k]->role == role)
            return n->children[k];
    }
    return NULL;
}

bool node_set_backing(struct node *n, struct node *backing, GError **error)
{
    struct node_child *c = child_of_role(n, CHILD_BACKING);
    if (backing && !(n->driver->flags & DRIVER_BACKING) && n->driver->kind != DRIVER_FILTER)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "node '%s': format %s has no backing files", n->name,
                           n->driver->name);
    if (backing && node_reaches(backing, n))
        return ruche_error(error, RUCHE_ERR_INVALID, "node '%s' cannot be the backing file of '%s': it stands above it",
                           backing->name, n->name);
    if (c && c->node == backing)
        return true;
    if (c)
        node_remove_child(n, c);
    if (backing)
        node_add_child(n, "backing", CHILD_BACKING, node_ref(backing));
    n->backing_overridden = true;
    return true;
}

bool node_change_backing(struct node *n, const char *file, const char *format, GError **error)
{
    if (!n->driver->change_backing)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "image '%s': format %s has no backing files", n->filename,
                           n->driver->name);
    if (!n->driver->change_backing(n, file, format, error))
        return false;
    g_free(n->backing_file);
    g_free(n->backing_format);
    n->backing_file = g_strdup(file);
    n->backing_format = g_strdup(format);
    n->backing_overridden = false;
    return true;
}

/* ---- asking ---- */

const char *node_name(const struct node *n)
{
    return n->name;
}

const char *node_filename(const struct node *n)
{
    return n->filename;
}

const char *node_format(const struct node *n)
{
    return n->driver->name;
}

uint64_t node_size(const struct node *n)
{
    return n->size_bytes;
}

const struct image_stats *node_get_stats(const struct node *n)
{
    return &n->stats;
}

bool node_is_read_only(const struct node *n)
{
    return n->read_only;
}

struct context *node_context(const struct node *n)
{
    return n->ctx;
}

struct graph *node_graph(const struct node *n)
{
    return n->graph;
}

struct node *node_file(const struct node *n)
{
    const struct node_child *c = child_of_role(n, CHILD_FILE);
    return c ? c->node : NULL;
}

struct node *node_skip_filters(struct node *n)
{
    while (n && n->driver->kind == DRIVER_FILTER) {
        struct node *below = node_file(n);
        if (!below) {
            const struct node_child *c = child_of_role(n, CHILD_BACKING);
            below = c ? c->node : NULL;
        }
        if (!below)
            break;
        n = below;
    }
    return n;
}

struct node *node_backing(const struct node *n)
{
    const struct node *real = node_skip_filters((struct node *)n);
    const struct node_child *c = child_of_role(real, CHILD_BACKING);
    return c ? c->node : NULL;
}

int64_t node_allocated_bytes(struct node *n)
{
    if (n->driver->allocated_bytes)
        return n->driver->allocated_bytes(n);
    int64_t sum = 0;
    bool any = false;
    for (unsigned k = 0; k < n->child_count; k++) {
        if (n->children[k]->role == CHILD_BACKING)
            continue;
        int64_t part = node_allocated_bytes(n->children[k]->node);
        if (part < 0)
            return part;
        sum += part;
        any = true;
    }
    return any ? sum : -ENOTSUP;
}
