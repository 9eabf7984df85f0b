/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `user`: a private network with DHCP, DNS and a way out, made of ordinary sockets by libslirp.
 *
 * libslirp says before each sleep which descriptors it wants watched and until when. We ask it again only after something
 * happened (a frame, an event, a timer), and change the loop's watches where its answer changed.
 *
 * Spec      libslirp 4.7, RFC 2131 and friends inside it.
 * Thread    The netdev's loop; libslirp is not thread-safe.
 * Trust     Frames from the guest go to libslirp, which is written to take anything; lengths are capped before.
 * Memory    Frames that the guest has no room for wait in a bounded queue, then are dropped.
 */
#include "netdev/internal.h"
#include "netdev/user.h"

#include <errno.h>
#include <string.h>

#define BACKLOG_BYTES (512u << 10)
#define FRAME_MIN 14

struct user;

/* A descriptor that libslirp wants watched. */
struct user_watch {
    struct user *user;
    struct loop_fd fd;
    uint32_t events; /* what happened */
    bool wanted;     /* in libslirp's latest answer */
};

struct user_timer {
    struct user *user;
    struct loop_timer host;
    SlirpTimerId id;
    void *opaque;
    int64_t expire_ns; /* INT64_MAX: not set */
    struct user_timer *next;
};

struct user {
    struct netdev n;
    Slirp *slirp;
    bool vnet_hdr;
    unsigned to_guest;          /* offloads that the guest takes */
    GPtrArray *watches;         /* struct user_watch *, never freed before the end: the loop may hold one */
    GArray *slots;              /* libslirp's index -> struct user_watch * */
    struct loop_timer timeout;
    struct loop_task refresh;   /* ask libslirp again */
    struct loop_task poll;      /* tell it what happened */
    struct user_timer *timers;
    uint8_t *frame;             /* the guest's frame in one piece */
    uint8_t *backlog;           /* frames for the guest: length (uint32_t), bytes; a ring */
    size_t backlog_head, backlog_used;
    bool peer_full;
};

/* --- descriptors and time --- */

static uint32_t to_epoll(int events)
{
    return (events & SLIRP_POLL_IN ? EPOLLIN : 0) | (events & SLIRP_POLL_OUT ? EPOLLOUT : 0) |
           (events & SLIRP_POLL_PRI ? EPOLLPRI : 0);
}

static int from_epoll(uint32_t events)
{
    return (events & EPOLLIN ? SLIRP_POLL_IN : 0) | (events & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
           (events & EPOLLPRI ? SLIRP_POLL_PRI : 0) | (events & EPOLLERR ? SLIRP_POLL_ERR : 0) |
           (events & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

static struct user_watch *watch_of(struct user *u, int fd)
{
    struct user_watch *idle = NULL;
    for (guint i = 0; i < u->watches->len; i++) {
        struct user_watch *w = g_ptr_array_index(u->watches, i);
        if (w->fd.loop && w->fd.fd == fd)
            return w;
        if (!w->fd.loop && !w->wanted)
            idle = w;
    }
    if (!idle) {
        idle = g_new0(struct user_watch, 1);
        idle->user = u;
        g_ptr_array_add(u->watches, idle);
    }
    return idle;
}

/* All that is ready in this round of the loop is told to libslirp together. */
static void watch_ready(void *opaque, uint32_t events)
{
    struct user_watch *w = opaque;
    w->events |= events;
    loop_post(w->user->n.loop, &w->user->poll);
}

static int add_poll(int fd, int events, void *opaque)
{
    struct user *u = opaque;
    struct user_watch *w = watch_of(u, fd);
    w->wanted = true;
    if (w->fd.loop)
        loop_fd_modify(&w->fd, to_epoll(events));
    else if (loop_fd_add(u->n.loop, &w->fd, fd, to_epoll(events), watch_ready, w) < 0)
        w->events = EPOLLERR; /* libslirp finds out when it uses it */
    else
        w->events = 0;
    g_array_append_val(u->slots, w);
    return u->slots->len - 1;
}

static int get_revents(int index, void *opaque)
{
    struct user *u = opaque;
    if (index < 0 || (guint)index >= u->slots->len)
        return 0;
    return from_epoll(g_array_index(u->slots, struct user_watch *, index)->events);
}

static void refresh(void *opaque)
{
    struct user *u = opaque;
    uint32_t timeout_ms = UINT32_MAX;
    for (guint i = 0; i < u->watches->len; i++)
        ((struct user_watch *)g_ptr_array_index(u->watches, i))->wanted = false;
    g_array_set_size(u->slots, 0);
    slirp_pollfds_fill(u->slirp, &timeout_ms, add_poll, u);
    for (guint i = 0; i < u->watches->len; i++) {
        struct user_watch *w = g_ptr_array_index(u->watches, i);
        if (!w->wanted)
            loop_fd_remove(&w->fd); /* not silenced: epoll reports a hang-up even then */
    }
    if (timeout_ms == UINT32_MAX)
        loop_timer_cancel(&u->timeout);
    else
        loop_timer_arm(&u->timeout, loop_now_ns() + timeout_ms * NS_PER_MS);
}

static void poll_slirp(void *opaque)
{
    struct user *u = opaque;
    slirp_pollfds_poll(u->slirp, 0, get_revents, u);
    for (guint i = 0; i < u->watches->len; i++)
        ((struct user_watch *)g_ptr_array_index(u->watches, i))->events = 0;
    refresh(u);
}

static void timed_out(void *opaque)
{
    poll_slirp(opaque);
}

static void ask_again(struct user *u)
{
    if (u->n.loop)
        loop_post(u->n.loop, &u->refresh);
}

/* --- libslirp's callbacks --- */

static int64_t cb_clock(void *opaque)
{
    return loop_now_ns();
}

static void timer_fired(void *opaque)
{
    struct user_timer *t = opaque;
    t->expire_ns = INT64_MAX;
    slirp_handle_timer(t->user->slirp, t->id, t->opaque);
    ask_again(t->user);
}

static void *cb_timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
    struct user *u = opaque;
    struct user_timer *t = g_new0(struct user_timer, 1);
    *t = (struct user_timer){ .user = u, .id = id, .opaque = cb_opaque, .expire_ns = INT64_MAX, .next = u->timers };
    u->timers = t;
    if (u->n.loop)
        loop_timer_init(u->n.loop, &t->host, timer_fired, t);
    return t;
}

static void cb_timer_free(void *timer, void *opaque)
{
    struct user *u = opaque;
    struct user_timer *t = timer;
    for (struct user_timer **at = &u->timers; *at; at = &(*at)->next) {
        if (*at == t) {
            *at = t->next;
            break;
        }
    }
    loop_timer_done(&t->host);
    g_free(t);
}

static void cb_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    struct user_timer *t = timer;
    t->expire_ns = expire_ms * NS_PER_MS;
    if (t->host.loop)
        loop_timer_arm(&t->host, t->expire_ns);
}

static void cb_register_fd(int fd, void *opaque)
{
}

static void cb_unregister_fd(int fd, void *opaque)
{
    struct user *u = opaque;
    for (guint i = 0; i < u->watches->len; i++) {
        struct user_watch *w = g_ptr_array_index(u->watches, i);
        if (w->fd.loop && w->fd.fd == fd) {
            loop_fd_remove(&w->fd);
            w->events = 0;
        }
    }
}

static void cb_notify(void *opaque)
{
    ask_again(opaque);
}

static void cb_guest_error(const char *message, void *opaque)
{
    struct user *u = opaque;
    u->n.tx_dropped++;
}

/* --- frames to the guest --- */

static void ring_copy_in(struct user *u, const void *from, size_t len)
{
    size_t at = (u->backlog_head + u->backlog_used) % BACKLOG_BYTES;
    size_t first = min_u64(len, BACKLOG_BYTES - at);
    memcpy(u->backlog + at, from, first);
    memcpy(u->backlog, (const uint8_t *)from + first, len - first);
    u->backlog_used += len;
}

static bool backlog_put(struct user *u, const void *frame, uint32_t len)
{
    if (!u->backlog)
        u->backlog = g_malloc(BACKLOG_BYTES);
    if (u->backlog_used + sizeof(len) + len > BACKLOG_BYTES)
        return false;
    ring_copy_in(u, &len, sizeof(len));
    ring_copy_in(u, frame, len);
    return true;
}

/* libslirp computes all checksums: a guest that takes our word for it need not check again. */
static ssize_t deliver(struct user *u, struct iovec *iov, unsigned count)
{
    struct vnet_hdr h = { .flags = u->to_guest & NETDEV_CSUM ? VNET_HDR_DATA_VALID : 0 };
    iov[0] = (struct iovec){ &h, sizeof(h) };
    return u->vnet_hdr ? netdev_deliver(&u->n, 0, iov, count + 1) : netdev_deliver(&u->n, 0, iov + 1, count);
}

static ssize_t cb_send_packet(const void *buf, size_t len, void *opaque)
{
    struct user *u = opaque;
    if (len > NETDEV_MAX_FRAME - NETDEV_VNET_HDR_LEN)
        return -1;
    if (!u->backlog_used) {
        struct iovec iov[2] = { [1] = { (void *)(uintptr_t)buf, len } };
        if (deliver(u, iov, 1) != 0)
            return len;
        u->peer_full = true;
    }
    if (!backlog_put(u, buf, len))
        u->n.rx_dropped++;
    return len;
}

static void user_receive_ready(struct netdev *n, unsigned queue)
{
    struct user *u = container_of(n, struct user, n);
    u->peer_full = false;
    while (u->backlog_used) {
        uint8_t head[4];
        uint32_t len;
        for (int i = 0; i < 4; i++)
            head[i] = u->backlog[(u->backlog_head + i) % BACKLOG_BYTES];
        memcpy(&len, head, 4);
        size_t at = (u->backlog_head + 4) % BACKLOG_BYTES;
        size_t first = min_u64(len, BACKLOG_BYTES - at);
        struct iovec iov[3] = { [1] = { u->backlog + at, first }, [2] = { u->backlog, len - first } };
        if (deliver(u, iov, len > first ? 2 : 1) == 0) {
            u->peer_full = true;
            return;
        }
        u->backlog_head = (u->backlog_head + 4 + len) % BACKLOG_BYTES;
        u->backlog_used -= 4 + len;
    }
}

/* --- frames from the guest --- */

/* IPv4 fragments. libslirp 4.7 keeps their list inside the packets and follows it wherever a hostile guest's headers
 * lead: they do not get that far. */
static bool is_fragment(const uint8_t *frame, size_t len)
{
    return len >= 14 + 8 && frame[12] == 0x08 && frame[13] == 0x00 && ((frame[20] & 0x3f) || frame[21]);
}

static ssize_t user_send(struct netdev *n, unsigned queue, const struct iovec *iov, unsigned iov_count)
{
    struct user *u = container_of(n, struct user, n);
    struct vnet_hdr h = { 0 };
    size_t skip = u->vnet_hdr ? sizeof(h) : 0;
    size_t total = iov_bytes(iov, iov_count);
    if (total < skip + FRAME_MIN)
        return -EINVAL;
    if (!u->frame)
        u->frame = g_malloc(NETDEV_MAX_FRAME);
    iov_copy_out(iov, iov_count, 0, &h, skip);
    size_t len = iov_copy_out(iov, iov_count, skip, u->frame, NETDEV_MAX_FRAME);
    if (!vnet_finish_checksum(&h, u->frame, len) || is_fragment(u->frame, len))
        return -EINVAL;
    slirp_input(u->slirp, u->frame, len);
    ask_again(u);
    return total;
}

/* --- the backend --- */

static unsigned user_offloads(const struct netdev *n)
{
    return NETDEV_CSUM | NETDEV_TSO4 | NETDEV_TSO6 | NETDEV_ECN;
}

static int user_set_offloads(struct netdev *n, unsigned to_guest)
{
    container_of(n, struct user, n)->to_guest = to_guest;
    return 0;
}

static bool user_set_vnet_hdr(struct netdev *n, bool on)
{
    container_of(n, struct user, n)->vnet_hdr = on;
    return true;
}

static void leave_loop(struct user *u)
{
    for (guint i = 0; i < u->watches->len; i++)
        loop_fd_remove(&((struct user_watch *)g_ptr_array_index(u->watches, i))->fd);
    for (struct user_timer *t = u->timers; t; t = t->next)
        loop_timer_done(&t->host);
    loop_timer_done(&u->timeout);
    loop_unpost(u->n.loop, &u->refresh);
    loop_unpost(u->n.loop, &u->poll);
    u->n.loop = NULL;
}

static int user_set_loop(struct netdev *n, struct loop *l)
{
    struct user *u = container_of(n, struct user, n);
    if (u->n.loop)
        leave_loop(u);
    if (!l)
        return 0;
    u->n.loop = l;
    loop_timer_init(l, &u->timeout, timed_out, u);
    for (struct user_timer *t = u->timers; t; t = t->next) {
        loop_timer_init(l, &t->host, timer_fired, t);
        if (t->expire_ns != INT64_MAX)
            loop_timer_arm(&t->host, t->expire_ns);
    }
    ask_again(u);
    return 0;
}

static void user_destroy(struct netdev *n)
{
    struct user *u = container_of(n, struct user, n);
    if (u->slirp)
        slirp_cleanup(u->slirp);
    while (u->timers)
        cb_timer_free(u->timers, u);
    g_ptr_array_free(u->watches, TRUE);
    g_array_free(u->slots, TRUE);
    g_free(u->frame);
    g_free(u->backlog);
    g_free(u);
}

static char *user_describe(const struct netdev *n)
{
    return g_strdup_printf("type=user,slirp=%s", slirp_version_string());
}

static const struct netdev_ops user_ops = {
    .send = user_send,
    .receive_ready = user_receive_ready,
    .offloads = user_offloads,
    .set_offloads = user_set_offloads,
    .set_vnet_hdr = user_set_vnet_hdr,
    .set_loop = user_set_loop,
    .destroy = user_destroy,
    .describe = user_describe,
};

static const SlirpCb slirp_callbacks = {
    .send_packet = cb_send_packet,
    .guest_error = cb_guest_error,
    .clock_get_ns = cb_clock,
    .timer_new_opaque = cb_timer_new,
    .timer_free = cb_timer_free,
    .timer_mod = cb_timer_mod,
    .register_poll_fd = cb_register_fd,
    .unregister_poll_fd = cb_unregister_fd,
    .notify = cb_notify,
};

static Slirp *slirp_of(const struct user_settings *s, struct user *u)
{
    SlirpConfig c = {
        .version = 4,
        .restricted = s->restricted,
        .in_enabled = s->ipv4,
        .vnetwork = s->net,
        .vnetmask = s->mask,
        .vhost = s->host,
        .in6_enabled = s->ipv6,
        .vprefix_addr6 = s->net6,
        .vprefix_len = s->prefix6,
        .vhost6 = s->host6,
        .vhostname = s->hostname,
        .tftp_server_name = s->tftp_server_name,
        .tftp_path = s->tftp,
        .bootfile = s->bootfile,
        .vdhcp_start = s->dhcp_start,
        .vnameserver = s->dns,
        .vnameserver6 = s->dns6,
        .vdnssearch = s->search ? (const char **)s->search->pdata : NULL,
        .vdomainname = s->domainname,
    };
    return slirp_new(&c, &slirp_callbacks, u);
}

static const struct netdev_type user_type;

static struct netdev *user_create(const char *id, const struct netdev_config *c, GError **error)
{
    struct user_settings s;
    if (!user_settings_parse(id, c, &s, error))
        return NULL;
    struct user *u = g_new0(struct user, 1);
    netdev_init(&u->n, &user_type, &user_ops, id);
    u->watches = g_ptr_array_new_with_free_func(g_free);
    u->slots = g_array_new(FALSE, FALSE, sizeof(struct user_watch *));
    u->refresh = (struct loop_task){ .fn = refresh, .opaque = u };
    u->poll = (struct loop_task){ .fn = poll_slirp, .opaque = u };
    u->slirp = slirp_of(&s, u);
    user_settings_done(&s);
    if (!u->slirp)
        ruche_error(error, RUCHE_ERR_INVALID, "netdev '%s': libslirp refuses these settings", id);
    if (!u->slirp || !user_forwards_add(id, c, u->slirp, error)) {
        netdev_free(&u->n);
        return NULL;
    }
    return &u->n;
}

static const struct netdev_prop user_props[] = {
    { "ipv4", "Offer IPv4 (on)" },
    { "ipv6", "Offer IPv6 (on)" },
    { "net", "IPv4 network (10.0.2.0/24)" },
    { "host", "The host as the guest sees it (x.x.x.2)" },
    { "dhcpstart", "First address that DHCP gives (x.x.x.15)" },
    { "dns", "The name server as the guest sees it (x.x.x.3)" },
    { "ipv6-net", "IPv6 network (fec0::/64)" },
    { "ipv6-host", "The host's IPv6 address (xxxx::2)" },
    { "ipv6-dns", "The name server's IPv6 address (xxxx::3)" },
    { "dnssearch", "A domain for the guest's search list; may be repeated" },
    { "hostname", "The guest's name, given by DHCP" },
    { "domainname", "The guest's domain, given by DHCP" },
    { "restrict", "No way out but the forwarded ports (off)" },
    { "tftp", "Folder served over TFTP" },
    { "tftp-server-name", "TFTP server's name, given by DHCP" },
    { "bootfile", "Boot file's name, given by DHCP" },
    { "hostfwd", "[tcp|udp]:[host address]:port-[guest address]:port; may be repeated" },
    { "guestfwd", "tcp:address:port-cmd:command; may be repeated" },
    { "smb", "Not supported" },
    { "smbserver", "Not supported" },
    { NULL, NULL },
};

static const struct netdev_type user_type = {
    .name = "user",
    .summary = "A private network with DHCP and a way out, without privileges (libslirp)",
    .props = user_props,
    .create = user_create,
};
NETDEV_TYPE(user_type);
