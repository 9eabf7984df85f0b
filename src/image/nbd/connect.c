/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client's connections: made, spread over, lost and made again; see client.h.
 *
 * A lost connection is found by the requests on it. They, and those that come after, wait while one
 * of them connects again, up to reconnect-delay seconds from the loss; after that they fail, and
 * only one attempt a second is made. What the old connection did not answer is sent again: every
 * request may be done twice. Writes that a server answered and then forgot because it crashed
 * before a flush are lost, as with any disk that loses power.
 */
#include "image/nbd/client.h"

#include "base/log.h"
#include "base/sock.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#define RETRY_FIRST_NS (100 * NS_PER_MS)
#define RETRY_LATE_NS  NS_PER_SEC /* after the delay: one attempt in that time */
#define RETRY_MAX_NS   (2 * NS_PER_SEC)

static void timed_out(void *opaque)
{
    struct nbd_node *n = opaque;
    if (n->timed)
        channel_shutdown(n->timed);
}

struct dial {
    struct nbd_node *n;
    GError **error;
    int fd;
};

/* Resolving a name blocks: on a thread of the pool. */
static int dial(void *opaque)
{
    struct dial *d = opaque;
    const struct nbd_address *a = &d->n->server;
    d->fd = a->type == NBD_SERVER_UNIX ? sock_connect_unix(a->path, true, d->error)
                                       : sock_connect_tcp(a->host, a->port, true, d->error);
    return 0;
}

static bool connect_socket(struct nbd_node *n, struct nbd_link *l, GError **error)
{
    struct dial d = { .n = n, .error = error, .fd = -1 };
    n->reached = false;
    if (n->server.type == NBD_SERVER_UNIX)
        dial(&d);
    else
        context_offload(n->node.ctx, dial, &d);
    if (d.fd < 0)
        return false;
    channel_init(&l->ch, n->node.ctx, d.fd);
    n->timed = &l->ch;
    int rc = context_wait_fd(n->node.ctx, d.fd, POLLOUT);
    if (rc >= 0)
        rc = sock_connect_result(d.fd);
    n->reached = rc >= 0;
    return rc >= 0 || ruche_error_errno(error, -rc, "cannot connect to '%s'", n->where);
}

static bool same_export(const struct nbd_node *n, const struct nbd_offer *now, GError **error)
{
    const struct nbd_offer *was = &n->offer;
    if (!n->links[0] && !n->lost_ns)
        return true; /* the first one */
    const uint16_t needed =
        was->flags & ~(NBD_FLAG_READ_ONLY | NBD_FLAG_ROTATIONAL | NBD_FLAG_CAN_MULTI_CONN);
    if (now->size_bytes == was->size_bytes && (now->flags & needed) == needed &&
        now->min_block <= was->min_block && now->max_payload >= was->max_payload &&
        (now->has_context || !was->has_context) &&
        (!(now->flags & NBD_FLAG_READ_ONLY) || (was->flags & NBD_FLAG_READ_ONLY)))
        return true;
    return ruche_error(error, RUCHE_ERR_STATE,
                       "%s: export '%s' is not what it was: its size was %" G_GUINT64_FORMAT
                       " bytes and is %" G_GUINT64_FORMAT,
                       n->where, n->export ? n->export : "", was->size_bytes, now->size_bytes);
}

static bool negotiate(struct nbd_node *n, struct nbd_link *l, GError **error)
{
    struct nbd_ask ask = {
        .where = n->where,
        .export = n->export ? n->export : "",
        .creds = n->creds,
        .tls_host = n->tls_hostname                     ? n->tls_hostname
                    : n->server.type == NBD_SERVER_INET ? n->server.host
                                                        : NULL,
        .context = n->dirty_bitmap ? n->dirty_bitmap : NBD_CONTEXT_BASE,
        .need_context = n->dirty_bitmap != NULL,
    };
    return nbd_negotiate(&l->ch, &ask, &l->offer, error) && same_export(n, &l->offer, error);
}

struct nbd_link *nbd_connect(struct nbd_node *n, unsigned seconds, GError **error)
{
    struct nbd_link *l = nbd_link_new(n->where);
    int64_t limit_ns = seconds * NS_PER_SEC, begin_ns = loop_now_ns();
    loop_timer_init(context_loop(n->node.ctx), &n->timer, timed_out, n);
    loop_timer_arm(&n->timer, begin_ns + limit_ns);
    bool good = connect_socket(n, l, error) && negotiate(n, l, error);
    n->timed = NULL;
    loop_timer_done(&n->timer);
    if (good)
        return l;
    if (loop_now_ns() >= begin_ns + limit_ns)
        g_prefix_error(error, "%s did not answer in %d seconds: ", n->where, NBD_CONNECT_SECONDS);
    nbd_link_unref(l);
    return NULL;
}

/* --- after the loss of a connection --- */

static bool lives(const struct nbd_link *l)
{
    return l && !l->dead;
}

static void lost(struct nbd_node *n, unsigned i)
{
    if (!n->was_lost[i]) {
        n->was_lost[i] = true;
        n->lost_ns = loop_now_ns();
        n->retry_ns = n->lost_ns + RETRY_LATE_NS;
        log_warn("node '%s': the connection to %s is lost", node_name(&n->node), n->where);
    }
    nbd_link_unref(n->links[i]);
    n->links[i] = NULL;
}

/* One attempt; true when the connection is there. */
static bool try_again(struct nbd_node *n, unsigned i)
{
    g_autoptr(GError) error = NULL;
    struct nbd_link *l = nbd_connect(n, NBD_RETRY_SECONDS, &error);
    if (!l)
        return false;
    n->links[i] = l;
    n->was_lost[i] = false;
    log_info("node '%s': connected to %s again", node_name(&n->node), n->where);
    return true;
}

/* Until it is there or may not be waited for any longer. Others wait at the lock meanwhile. */
static void restore(struct nbd_node *n, unsigned i)
{
    fiber_mutex_lock(&n->connecting);
    if (!lives(n->links[i])) {
        lost(n, i);
        int64_t end_ns = n->lost_ns + (int64_t)n->reconnect_delay * NS_PER_SEC,
                pause_ns = RETRY_FIRST_NS;
        bool in_time = loop_now_ns() < end_ns;
        while (in_time && !try_again(n, i)) {
            int64_t now = loop_now_ns();
            in_time = now < end_ns;
            if (in_time)
                context_sleep_ns(n->node.ctx,
                                 (int64_t)min_u64((uint64_t)pause_ns, (uint64_t)(end_ns - now)));
            pause_ns = (int64_t)min_u64((uint64_t)pause_ns * 2, RETRY_MAX_NS);
        }
        if (!in_time && loop_now_ns() >= n->retry_ns) {
            try_again(n, i);
            n->retry_ns = loop_now_ns() + RETRY_LATE_NS;
        }
    }
    fiber_mutex_unlock(&n->connecting);
}

struct nbd_link *nbd_pick_link(struct nbd_node *n)
{
    unsigned best = 0;
    for (unsigned i = 1; i < n->link_count; i++) {
        if (lives(n->links[i]) &&
            (!lives(n->links[best]) || n->links[i]->in_flight < n->links[best]->in_flight))
            best = i;
    }
    if (!lives(n->links[best]))
        restore(n, best);
    struct nbd_link *l = n->links[best];
    if (!lives(l))
        return NULL;
    l->refs++;
    return l;
}
