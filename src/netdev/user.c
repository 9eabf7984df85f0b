/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `user`: a private network with DHCP, DNS and a way out, made of ordinary sockets by libslirp.
 *
 * libslirp says before each sleep which descriptors it wants watched and until when. We ask it
 * again only after something happened (a frame, an event, a timer), and change the loop's watches
 * where its answer changed.
 *
 * Spec      libslirp 4.7, RFC 2131 and friends inside it.
 * Thread    The netdev's loop; libslirp is not thread-safe.
 * Trust     Frames from the guest go to libslirp, which is written to take anything; lengths are
 *           capped before.
 * Memory    Frames that the guest has no room for wait in a bounded queue, then are dropped.
 *           Sockets are bounded.
 */
#include "netdev/internal.h"
#include "netdev/user.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>

#define BACKLOG_BYTES (512u << 10)
#define FRAME_MIN 14
#define MAX_SOCKETS 4096 /* and at most half of what the process may open */

/* A descriptor that libslirp may want watched. */
struct user_watch {
    struct loop_fd fd;
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
    char *network;              /* user_network_text() */
    bool vnet_hdr;
    unsigned to_guest;          /* offloads that the guest takes */
    GPtrArray *watches;         /* by descriptor: struct user_watch *, kept to the end, or NULL */
    GArray *slots;              /* struct pollfd, in the order of libslirp's answer */
    struct loop_timer timeout;
    struct loop_task refresh;   /* ask libslirp again */
    struct loop_task poll;      /* tell it what happened */
    struct user_timer *timers;
    uint8_t *frame;             /* the guest's frame in one piece */
    uint8_t *backlog;           /* frames for the guest: length (uint32_t), bytes; a ring */
    size_t backlog_head, backlog_used;
    unsigned sockets, max_sockets;
};

/* --- descriptors and time --- */

static const struct {
    int slirp;
    short poll; /* epoll's bits are the same */
} event_map[] = {
    { SLIRP_POLL_IN, POLLIN },   { SLIRP_POLL_OUT, POLLOUT }, { SLIRP_POLL_PRI, POLLPRI },
    { SLIRP_POLL_ERR, POLLERR }, { SLIRP_POLL_HUP, POLLHUP },
};

static struct user_watch *watch_of(struct user *u, int fd)
{
    if ((guint)fd >= u->watches->len)
        g_ptr_array_set_size(u->watches, fd + 1);
    struct user_watch *w = g_ptr_array_index(u->watches, fd);
    if (!w) {
        w = g_new0(struct user_watch, 1);
        g_ptr_array_index(u->watches, fd) = w;
    }
    return w;
}

/* All that is ready in this round of the loop is told to libslirp together. */
static void watch_ready(void *opaque, uint32_t events)
{
    struct user *u = opaque;
    loop_post(u->n.loop, &u->poll);
}

static int add_poll(int fd, int events, void *opaque)
{
    struct user *u = opaque;
    struct user_watch *w = watch_of(u, fd);
    struct pollfd p = { .fd = fd };
    for (size_t i = 0; i < ARRAY_COUNT(event_map); i++)
        p.events |= events & event_map[i].slirp ? event_map[i].poll : 0;
    w->wanted = true;
    if (w->fd.loop)
        loop_fd_modify(&w->fd, p.events);
    else
        loop_fd_add(u->n.loop, &w->fd, fd, p.events, watch_ready, u);
    g_array_append_val(u->slots, p);
    return u->slots->len - 1;
}

static int get_revents(int index, void *opaque)
{
    struct user *u = opaque;
    if (index < 0 || (guint)index >= u->slots->len)
        return 0;
    short revents = g_array_index(u->slots, struct pollfd, index).revents;
    int events = 0;
    for (size_t i = 0; i < ARRAY_COUNT(event_map); i++)
        events |= revents & event_map[i].poll ? event_map[i].slirp : 0;
    return events;
}

static void refresh(void *opaque)
{
    struct user *u = opaque;
    uint32_t timeout_ms = UINT32_MAX;
    for (guint i = 0; i < u->slots->len; i++)
        watch_of(u, g_array_index(u->slots, struct pollfd, i).fd)->wanted = false;
    g_array_set_size(u->slots, 0);
    slirp_pollfds_fill(u->slirp, &timeout_ms, add_poll, u);
    for (guint i = 0; i < u->watches->len; i++) {
        struct user_watch *w = g_ptr_array_index(u->watches, i);
        if (w && !w->wanted)
            loop_fd_remove(&w->fd); /* not silenced: epoll reports a hang-up even then */
    }
    if (timeout_ms == UINT32_MAX)
        loop_timer_cancel(&u->timeout);
    else
        loop_timer_arm(&u->timeout, loop_now_ns() + timeout_ms * NS_PER_MS);
}

/* libslirp reads what it is told is readable, and what the loop saw may have been read since: look
 * again. */
static void poll_slirp(void *opaque)
{
    struct user *u = opaque;
    int n = poll((struct pollfd *)(void *)u->slots->data, u->slots->len, 0);
    slirp_pollfds_poll(u->slirp, n < 0, get_revents, u);
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
    *t = (struct user_timer){
        .user = u, .id = id, .opaque = cb_opaque, .expire_ns = INT64_MAX, .next = u->timers
    };
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
    struct user *u = opaque;
    u->sockets++;
    /* Readable may still turn out to be a datagram with a bad checksum: nothing may wait for the
     * next one. */
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static void cb_unregister_fd(int fd, void *opaque)
{
    struct user *u = opaque;
    u->sockets -= u->sockets > 0;
    if (fd < 0 || (guint)fd >= u->watches->len || !g_ptr_array_index(u->watches, fd))
        return;
    struct user_watch *w = g_ptr_array_index(u->watches, fd);
    loop_fd_remove(&w->fd);
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
    return u->vnet_hdr ? netdev_deliver(&u->n, 0, iov, count + 1)
                       : netdev_deliver(&u->n, 0, iov + 1, count);
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
    }
    if (!backlog_put(u, buf, len))
        u->n.rx_dropped++;
    return len;
}

static void user_receive_ready(struct netdev *n, unsigned queue)
{
    struct user *u = container_of(n, struct user, n);
    while (u->backlog_used) {
        uint8_t head[4];
        uint32_t len;
        for (int i = 0; i < 4; i++)
            head[i] = u->backlog[(u->backlog_head + i) % BACKLOG_BYTES];
        memcpy(&len, head, 4);
        size_t at = (u->backlog_head + 4) % BACKLOG_BYTES;
        size_t first = min_u64(len, BACKLOG_BYTES - at);
        struct iovec iov[3] = {
            [1] = { u->backlog + at, first }, [2] = { u->backlog, len - first }
        };
        if (deliver(u, iov, len > first ? 2 : 1) == 0)
            return;
        u->backlog_head = (u->backlog_head + 4 + len) % BACKLOG_BYTES;
        u->backlog_used -= 4 + len;
    }
}

/* --- frames from the guest --- */

/* IPv4 fragments. libslirp 4.7 keeps their list inside the packets and follows it wherever a
 * hostile guest's headers lead: they do not get that far. */
static bool is_fragment(const uint8_t *frame, size_t len)
{
    return len >= 14 + 8 && frame[12] == 0x08 && frame[13] == 0x00 &&
           ((frame[20] & 0x3f) || frame[21]);
}

enum { IP_PROTO_AT = 14 + 9, IP6_PROTO_AT = 14 + 6, PROTO_TCP = 6, TCP_SYN = 2 };

/* Could this frame make libslirp open a socket? All but TCP without SYN, and what is not IP. */
static bool opens_socket(const uint8_t *f, size_t len)
{
    if (len < 14 + 40)
        return len >= 14 + 20 && (f[12] == 0x08 || f[12] == 0x86) && f[13] != 0x06;
    if (f[12] == 0x08 && f[13] == 0x00) {
        size_t flags = 14 + (f[14] & 15) * 4 + 13;
        return f[IP_PROTO_AT] != PROTO_TCP || flags >= len || (f[flags] & TCP_SYN);
    }
    if (f[12] == 0x86 && f[13] == 0xdd)
        return f[IP6_PROTO_AT] != PROTO_TCP || len <= 14 + 40 + 13 || (f[14 + 40 + 13] & TCP_SYN);
    return false;
}

/* What libslirp may see: a guest must not crash it, nor use up the process's descriptors. */
static bool may_pass(const struct user *u, const uint8_t *frame, size_t len)
{
    return !is_fragment(frame, len) && (u->sockets < u->max_sockets || !opens_socket(frame, len));
}

static ssize_t user_send(struct netdev *n, unsigned queue, const struct iovec *iov,
                         unsigned iov_count)
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
    if (!vnet_finish_checksum(&h, u->frame, len) || !may_pass(u, u->frame, len))
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
    for (guint i = 0; i < u->watches->len; i++) {
        struct user_watch *w = g_ptr_array_index(u->watches, i);
        if (w)
            loop_fd_remove(&w->fd);
    }
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
    g_free(u->network);
    g_free(u);
}

static char *user_describe(const struct netdev *n)
{
    return g_strdup_printf("type=user,slirp=%s", slirp_version_string());
}

static bool user_save(struct netdev *n, GByteArray *out, GError **error)
{
    struct user *u = container_of(n, struct user, n);
    return user_state_save(n->id, u->slirp, u->network, out, error);
}

static bool user_load(struct netdev *n, struct cur *c, GError **error)
{
    struct user *u = container_of(n, struct user, n);
    return user_state_load(n->id, u->slirp, u->network, c, error);
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
    .save = user_save,
    .load = user_load,
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
    u->slots = g_array_new(FALSE, FALSE, sizeof(struct pollfd));
    u->refresh = (struct loop_task){ .fn = refresh, .opaque = u };
    u->poll = (struct loop_task){ .fn = poll_slirp, .opaque = u };
    struct rlimit limit = { 0 };
    getrlimit(RLIMIT_NOFILE, &limit);
    u->max_sockets = limit.rlim_cur / 2 < MAX_SOCKETS ? limit.rlim_cur / 2 : MAX_SOCKETS;
    u->network = user_network_text(&s);
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
