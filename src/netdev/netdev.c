/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Network backends: the table of kinds, attachment, counters, and the path of frames between device
 * and backend.
 *
 * Thread    See netdev.h.
 * Trust     Frame lengths are checked here for both directions.
 */
#include "netdev/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int compare_types(const void *a, const void *b)
{
    return strcmp((*(const struct netdev_type *const *)a)->name,
                  (*(const struct netdev_type *const *)b)->name);
}

const struct netdev_type *const *netdev_type_list(void)
{
    static const struct netdev_type **list;
    if (g_once_init_enter(&list)) {
        size_t count = 0;
        LINKSET_FOREACH(netdev_types, struct netdev_type, t)
            count++;
        const struct netdev_type **sorted = g_new0(const struct netdev_type *, count + 1);
        count = 0;
        LINKSET_FOREACH(netdev_types, struct netdev_type, t)
            sorted[count++] = t;
        qsort(sorted, count, sizeof(*sorted), compare_types);
        g_once_init_leave(&list, sorted);
    }
    return list;
}

static const struct netdev_type *find_type(const char *name, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    for (const struct netdev_type *const *t = netdev_type_list(); *t; t++) {
        if (!strcmp((*t)->name, name))
            return *t;
        g_ptr_array_add(names, (gpointer)(uintptr_t)(*t)->name);
    }
    g_ptr_array_add(names, NULL);
    ruche_error(error, RUCHE_ERR_UNKNOWN, "there is no network backend '%s'%s", name,
                suggest_phrase(name, (const char *const *)names->pdata));
    return NULL;
}

static bool check_names(const struct netdev_type *t, const char *id, const struct netdev_config *c,
                        GError **error)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct netdev_prop *p = t->props;
        while (p->name && strcmp(p->name, c->options[i].name))
            p++;
        if (p->name)
            continue;
        g_autoptr(GPtrArray) names = g_ptr_array_new();
        for (p = t->props; p->name; p++)
            g_ptr_array_add(names, (gpointer)(uintptr_t)p->name);
        g_ptr_array_add(names, NULL);
        return ruche_error(error, RUCHE_ERR_UNKNOWN,
                           "netdev '%s': backend '%s' has no option '%s'%s", id, t->name,
                           c->options[i].name,
                           suggest_phrase(c->options[i].name, (const char *const *)names->pdata));
    }
    return true;
}

struct netdev *netdev_new(const char *type, const char *id, const struct netdev_config *c,
                          GError **error)
{
    const struct netdev_type *t = find_type(type, error);
    if (!t || !check_names(t, id, c, error))
        return NULL;
    return t->create(id, c, error);
}

void netdev_init(struct netdev *n, const struct netdev_type *type, const struct netdev_ops *ops,
                 const char *id)
{
    n->id = g_strdup(id);
    n->type = type;
    n->ops = ops;
    n->link_up = true;
    n->queues = 1;
}

unsigned netdev_no_offloads(const struct netdev *n)
{
    return 0;
}

int netdev_keep_offloads(struct netdev *n, unsigned to_guest)
{
    return 0;
}

void netdev_free(struct netdev *n)
{
    if (!n)
        return;
    netdev_set_loop(n, NULL);
    char *id = n->id;
    n->ops->destroy(n);
    g_free(id);
}

int netdev_set_loop(struct netdev *n, struct loop *l)
{
    if (n->loop == l)
        return 0;
    return n->ops->set_loop(n, l);
}

bool netdev_attach(struct netdev *n, const struct netdev_peer *peer, GError **error)
{
    if (n->attached)
        return ruche_error(error, RUCHE_ERR_BUSY, "netdev '%s' already has a device", n->id);
    n->peer = *peer;
    n->attached = true;
    return true;
}

void netdev_detach(struct netdev *n)
{
    n->peer = (struct netdev_peer){ 0 };
    n->attached = false;
    if (n->ops->set_vnet_hdr)
        n->ops->set_vnet_hdr(n, false);
}

bool netdev_unplug(struct netdev *n)
{
    if (n->attached && n->peer.gone)
        n->peer.gone(n->peer.opaque);
    return !n->attached;
}

bool netdev_has_state(const struct netdev *n)
{
    return n->ops->save;
}

struct state_call {
    struct netdev *n;
    GByteArray *out; /* NULL: load */
    struct cur *from;
    GError **error;
    bool ok;
};

static void call_state(void *opaque)
{
    struct state_call *c = opaque;
    c->ok = c->out ? c->n->ops->save(c->n, c->out, c->error) : c->n->ops->load(c->n, c->from, c->error);
}

static bool on_its_loop(struct state_call c)
{
    if (c.n->loop)
        loop_call(c.n->loop, call_state, &c);
    else
        call_state(&c);
    return c.ok;
}

bool netdev_save(struct netdev *n, GByteArray *out, GError **error)
{
    return on_its_loop((struct state_call){ .n = n, .out = out, .error = error });
}

bool netdev_load(struct netdev *n, struct cur *from, GError **error)
{
    return on_its_loop((struct state_call){ .n = n, .from = from, .error = error });
}

size_t iov_bytes(const struct iovec *iov, unsigned count)
{
    size_t n = 0;
    for (unsigned i = 0; i < count; i++)
        n += iov[i].iov_len;
    return n;
}

size_t iov_copy_out(const struct iovec *iov, unsigned count, size_t skip, void *to, size_t len)
{
    size_t done = 0;
    for (unsigned i = 0; i < count && done < len; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t n = min_u64(len - done, iov[i].iov_len - skip);
        memcpy((uint8_t *)to + done, (const uint8_t *)iov[i].iov_base + skip, n);
        done += n;
        skip = 0;
    }
    return done;
}

ssize_t netdev_send(struct netdev *n, unsigned queue, const struct iovec *iov, unsigned iov_count)
{
    size_t len = iov_bytes(iov, iov_count);
    ssize_t r = -EINVAL;
    if (!n->link_up || !n->loop)
        r = -ENETDOWN;
    else if (len && len <= NETDEV_MAX_FRAME)
        r = n->ops->send(n, queue, iov, iov_count);
    if (r > 0) {
        n->tx_frames++;
        n->tx_bytes += r;
    } else if (r < 0) {
        n->tx_dropped++;
    }
    return r;
}

ssize_t netdev_deliver(struct netdev *n, unsigned queue, const struct iovec *iov,
                       unsigned iov_count)
{
    ssize_t r = -ENETDOWN;
    if (n->link_up && n->peer.receive)
        r = n->peer.receive(n->peer.opaque, queue, iov, iov_count);
    if (r > 0) {
        n->rx_frames++;
        n->rx_bytes += r;
    } else if (r < 0) {
        n->rx_dropped++;
    }
    return r;
}

void netdev_receive_ready(struct netdev *n, unsigned queue)
{
    if (n->ops->receive_ready)
        n->ops->receive_ready(n, queue);
}

void netdev_set_link(struct netdev *n, bool up)
{
    if (n->link_up == up)
        return;
    n->link_up = up;
    if (n->peer.link_changed)
        n->peer.link_changed(n->peer.opaque, up);
}

/* --- options --- */

const char *netdev_option(const struct netdev_config *c, const char *name)
{
    const char *value = NULL;
    for (size_t i = 0; i < c->count; i++) {
        if (!strcmp(c->options[i].name, name))
            value = c->options[i].value;
    }
    return value;
}

bool netdev_option_bool(const char *id, const struct netdev_config *c, const char *name, bool def,
                        bool *ret, GError **error)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = { { "on", true },   { "yes", true }, { "true", true },   { "y", true },
                  { "off", false }, { "no", false }, { "false", false }, { "n", false } };
    const char *text = netdev_option(c, name);
    if (!text) {
        *ret = def;
        return true;
    }
    for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
        if (!strcmp(words[i].word, text)) {
            *ret = words[i].value;
            return true;
        }
    }
    return ruche_error(error, RUCHE_ERR_INVALID, "netdev '%s': %s is 'on' or 'off', not '%s'", id,
                       name, text);
}
