/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `tap`: a network interface of the host, opened by name or passed as descriptors; several queues,
 * offloads.
 *
 * Spec      Linux Documentation/networking/tuntap.rst, <linux/if_tun.h>.
 * Thread    The netdev's loop.
 * Trust     Frames from the host's network are hostile: they go to the device, which checks them
 *           against the guest's buffers; a vnet header from the kernel is passed on as it is.
 * Errors    Sentences at creation; -errno and counters afterwards.
 */
#include "base/fd.h"
#include "netdev/internal.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define TAP_MAX_QUEUES 64
#define TAP_MAX_IOVS 1024
#define TAP_BATCH 64 /* frames taken from the kernel before others get their turn */

struct tap_queue {
    struct tap *tap;
    unsigned index;
    int fd;
    struct loop_fd watch;
    uint8_t *frame;    /* the frame in hand */
    size_t frame_len;  /* 0: none */
    bool want_write;   /* a send found the kernel's queue full */
};

struct tap {
    struct netdev n;
    char ifname[IFNAMSIZ];
    bool kernel_hdr;   /* frames carry a vnet header on the descriptor */
    bool peer_hdr;     /* and to the device */
    unsigned kernel_offloads;
    struct tap_queue queue[TAP_MAX_QUEUES];
    struct iovec iov[TAP_MAX_IOVS];
};

/* --- frames --- */

static void update_watch(struct tap_queue *q)
{
    loop_fd_modify(&q->watch, (q->frame_len ? 0 : EPOLLIN) | (q->want_write ? EPOLLOUT : 0));
}

/* False: the device has no room; the frame stays in hand. */
static bool hand_over(struct tap_queue *q)
{
    struct tap *t = q->tap;
    size_t skip = t->kernel_hdr && !t->peer_hdr ? NETDEV_VNET_HDR_LEN : 0;
    struct iovec iov = { q->frame + skip, q->frame_len - skip };
    if (q->frame_len > skip && netdev_deliver(&t->n, q->index, &iov, 1) == 0)
        return false;
    q->frame_len = 0;
    return true;
}

static void receive(struct tap_queue *q)
{
    for (unsigned i = 0; i < TAP_BATCH; i++) {
        ssize_t n = read(q->fd, q->frame, NETDEV_MAX_FRAME);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        q->frame_len = n;
        if (!hand_over(q)) {
            update_watch(q);
            return;
        }
    }
}

static void tap_ready(void *opaque, uint32_t events)
{
    struct tap_queue *q = opaque;
    if (events & EPOLLOUT && q->want_write) {
        q->want_write = false;
        update_watch(q);
        if (q->tap->n.peer.send_ready)
            q->tap->n.peer.send_ready(q->tap->n.peer.opaque, q->index);
    }
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP) && !q->frame_len)
        receive(q);
}

static void tap_receive_ready(struct netdev *n, unsigned queue)
{
    struct tap *t = container_of(n, struct tap, n);
    struct tap_queue *q = &t->queue[queue % TAP_MAX_QUEUES];
    if (q->frame_len && hand_over(q))
        update_watch(q);
}

static ssize_t tap_send(struct netdev *n, unsigned queue, const struct iovec *iov,
                        unsigned iov_count)
{
    static const struct vnet_hdr no_hdr;
    struct tap *t = container_of(n, struct tap, n);
    struct tap_queue *q = &t->queue[queue < n->queues ? queue : 0];
    if (t->kernel_hdr && !t->peer_hdr) {
        if (iov_count >= TAP_MAX_IOVS)
            return -EMSGSIZE;
        t->iov[0] = (struct iovec){ (void *)(uintptr_t)&no_hdr, sizeof(no_hdr) };
        memcpy(t->iov + 1, iov, iov_count * sizeof(*iov));
        iov = t->iov;
        iov_count++;
    }
    ssize_t r;
    do
        r = writev(q->fd, iov, iov_count);
    while (r < 0 && errno == EINTR);
    if (r >= 0)
        return r;
    if (errno != EAGAIN)
        return -errno;
    q->want_write = true;
    update_watch(q);
    return 0;
}

/* --- the backend --- */

static unsigned tap_offloads(const struct netdev *n)
{
    return container_of(n, struct tap, n)->kernel_offloads;
}

static unsigned to_tun(unsigned offloads)
{
    return (offloads & NETDEV_CSUM ? TUN_F_CSUM : 0) | (offloads & NETDEV_TSO4 ? TUN_F_TSO4 : 0) |
           (offloads & NETDEV_TSO6 ? TUN_F_TSO6 : 0) | (offloads & NETDEV_ECN ? TUN_F_TSO_ECN : 0);
}

static int tap_set_offloads(struct netdev *n, unsigned to_guest)
{
    struct tap *t = container_of(n, struct tap, n);
    int err = 0;
    for (unsigned i = 0; i < n->queues; i++) {
        if (t->kernel_hdr && ioctl(t->queue[i].fd, TUNSETOFFLOAD, to_tun(to_guest)) < 0)
            err = -errno;
    }
    return err;
}

static bool tap_set_vnet_hdr(struct netdev *n, bool on)
{
    struct tap *t = container_of(n, struct tap, n);
    if (on && !t->kernel_hdr)
        return false;
    t->peer_hdr = on;
    if (!on)
        tap_set_offloads(n, 0);
    return true;
}

static int tap_set_loop(struct netdev *n, struct loop *l)
{
    struct tap *t = container_of(n, struct tap, n);
    int err = 0;
    for (unsigned i = 0; i < n->queues; i++)
        loop_fd_remove(&t->queue[i].watch);
    n->loop = l;
    for (unsigned i = 0; l && i < n->queues && !err; i++) {
        struct tap_queue *q = &t->queue[i];
        err = loop_fd_add(l, &q->watch, q->fd, q->frame_len ? 0 : EPOLLIN, tap_ready, q);
    }
    return err;
}

static void tap_destroy(struct netdev *n)
{
    struct tap *t = container_of(n, struct tap, n);
    for (unsigned i = 0; i < TAP_MAX_QUEUES; i++) {
        fd_close_keep_errno(t->queue[i].fd);
        g_free(t->queue[i].frame);
    }
    g_free(t);
}

static char *tap_describe(const struct netdev *n)
{
    const struct tap *t = container_of(n, struct tap, n);
    return g_strdup_printf("type=tap,ifname=%s,queues=%u,vnet_hdr=%s", t->ifname, n->queues,
                           t->kernel_hdr ? "on" : "off");
}

static const struct netdev_ops tap_ops = {
    .send = tap_send,
    .receive_ready = tap_receive_ready,
    .offloads = tap_offloads,
    .set_offloads = tap_set_offloads,
    .set_vnet_hdr = tap_set_vnet_hdr,
    .set_loop = tap_set_loop,
    .destroy = tap_destroy,
    .describe = tap_describe,
};

/* --- creation --- */

static bool open_by_name(struct tap *t, const char *ifname, bool hdr, unsigned queues,
                         GError **error)
{
    const char *id = t->n.id;
    if (ifname && strlen(ifname) >= IFNAMSIZ)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "netdev '%s': ifname=%s is longer than %d characters", id, ifname,
                           IFNAMSIZ - 1);
    struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | (hdr ? IFF_VNET_HDR : 0) |
                                      (queues > 1 ? IFF_MULTI_QUEUE : 0) };
    g_strlcpy(ifr.ifr_name, ifname ? ifname : "tap%d", IFNAMSIZ);
    for (unsigned i = 0; i < queues; i++) {
        int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
            return ruche_error_errno(error, errno, "netdev '%s': /dev/net/tun cannot be opened",
                                     id);
        t->queue[i].fd = fd;
        if (ioctl(fd, TUNSETIFF, &ifr) < 0)
            return ruche_error_errno(error, errno,
                                     "netdev '%s': interface '%s' cannot be opened with %u queue%s",
                                     id, ifr.ifr_name, queues, queues > 1 ? "s" : "");
    }
    t->n.queues = queues;
    return true;
}

static bool take_descriptor(struct tap *t, const char *text, GError **error)
{
    const char *id = t->n.id;
    char *end;
    long fd = strtol(text, &end, 10);
    if (!*text || *end || fd < 0 || fd > INT32_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "netdev '%s': '%s' is not a descriptor's number", id, text);
    if (t->n.queues >= TAP_MAX_QUEUES)
        return ruche_error(error, RUCHE_ERR_INVALID, "netdev '%s': more than %d descriptors", id,
                           TAP_MAX_QUEUES);
    int flags = fcntl((int)fd, F_GETFL);
    struct ifreq ifr = { 0 };
    if (flags < 0 || ioctl((int)fd, TUNGETIFF, &ifr) < 0)
        return ruche_error_errno(error, errno, "netdev '%s': descriptor %ld is not a tap interface",
                                 id, fd);
    if (!(ifr.ifr_flags & IFF_TAP) || !(ifr.ifr_flags & IFF_NO_PI))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "netdev '%s': descriptor %ld must be opened with IFF_TAP and IFF_NO_PI",
                           id, fd);
    bool hdr = ifr.ifr_flags & IFF_VNET_HDR;
    if (t->n.queues && hdr != t->kernel_hdr)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "netdev '%s': only some descriptors have a vnet header", id);
    fcntl((int)fd, F_SETFL, flags | O_NONBLOCK);
    fcntl((int)fd, F_SETFD, FD_CLOEXEC);
    t->queue[t->n.queues++].fd = (int)fd; /* ours from here */
    t->kernel_hdr = hdr;
    g_strlcpy(t->ifname, ifr.ifr_name, IFNAMSIZ);
    return true;
}

static bool take_descriptors(struct tap *t, const char *list, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(list, ":", TAP_MAX_QUEUES + 1);
    t->n.queues = 0;
    for (char **p = parts; *p; p++) {
        if (!take_descriptor(t, *p, error))
            return false;
    }
    return true;
}

static bool set_up_headers(struct tap *t, GError **error)
{
    int len = NETDEV_VNET_HDR_LEN;
    unsigned all = NETDEV_CSUM | NETDEV_TSO4 | NETDEV_TSO6 | NETDEV_ECN;
    for (unsigned i = 0; i < t->n.queues && t->kernel_hdr; i++) {
        int fd = t->queue[i].fd;
        if (ioctl(fd, TUNSETVNETHDRSZ, &len) < 0)
            return ruche_error_errno(
                error, errno, "netdev '%s': vnet headers of %d bytes are refused", t->n.id, len);
        if (ioctl(fd, TUNSETOFFLOAD, to_tun(all)) < 0)
            all = 0;
        ioctl(fd, TUNSETOFFLOAD, 0);
    }
    t->kernel_offloads = t->kernel_hdr ? all : 0;
    return true;
}

static bool refuse_scripts(const char *id, const struct netdev_config *c, GError **error)
{
    static const char *const scripts[] = { "script", "downscript" };
    for (size_t i = 0; i < ARRAY_COUNT(scripts); i++) {
        const char *v = netdev_option(c, scripts[i]);
        if (v && *v && strcmp(v, "no"))
            return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                               "netdev '%s': %s=%s: scripts are not run; prepare the interface "
                               "before and say %s=no",
                               id, scripts[i], v, scripts[i]);
    }
    if (netdev_option(c, "helper") || netdev_option(c, "br"))
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "netdev '%s': helper= and br= are not supported; pass an opened interface as fd=", id);
    return true;
}

static bool parse_options(struct tap *t, const struct netdev_config *c, GError **error)
{
    const char *id = t->n.id, *ifname = netdev_option(c, "ifname"), *fd = netdev_option(c, "fd"),
               *fds = netdev_option(c, "fds"), *queues = netdev_option(c, "queues");
    bool vhost, hdr;
    if (!refuse_scripts(id, c, error) ||
        !netdev_option_bool(id, c, "vhost", false, &vhost, error) ||
        !netdev_option_bool(id, c, "vnet_hdr", true, &hdr, error))
        return false;
    if (vhost || netdev_option(c, "vhostfd") || netdev_option(c, "vhostfds"))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "netdev '%s': vhost is not supported; say vhost=off", id);
    if ((fd && fds) || ((fd || fds) && (ifname || queues || netdev_option(c, "vnet_hdr"))))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "netdev '%s': %s excludes fd, fds, ifname, queues and vnet_hdr", id,
                           fds ? "fds" : "fd");
    unsigned long count = 1;
    if (queues) {
        char *end;
        count = strtoul(queues, &end, 10);
        if (*end || !*queues || count < 1 || count > TAP_MAX_QUEUES)
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "netdev '%s': queues=%s: 1 to %d are possible", id, queues,
                               TAP_MAX_QUEUES);
    }
    if (fd || fds)
        return take_descriptors(t, fd ? fd : fds, error);
    t->kernel_hdr = hdr;
    if (!open_by_name(t, ifname, hdr, count, error))
        return false;
    struct ifreq ifr = { 0 };
    ioctl(t->queue[0].fd, TUNGETIFF, &ifr);
    g_strlcpy(t->ifname, ifr.ifr_name, IFNAMSIZ);
    return true;
}

static const struct netdev_type tap_type;

static struct netdev *tap_create(const char *id, const struct netdev_config *c, GError **error)
{
    struct tap *t = g_new0(struct tap, 1);
    netdev_init(&t->n, &tap_type, &tap_ops, id);
    for (unsigned i = 0; i < TAP_MAX_QUEUES; i++)
        t->queue[i] = (struct tap_queue){ .tap = t, .index = i, .fd = -1 };
    if (!parse_options(t, c, error) || !set_up_headers(t, error)) {
        netdev_free(&t->n);
        return NULL;
    }
    for (unsigned i = 0; i < t->n.queues; i++)
        t->queue[i].frame = g_malloc(NETDEV_MAX_FRAME);
    return &t->n;
}

static const struct netdev_prop tap_props[] = {
    { "ifname", "The interface's name; made when missing (tap%d)" },
    { "fd", "An opened tap interface" },
    { "fds", "One descriptor a queue, as 3:4:5" },
    { "queues", "Queues to open (1)" },
    { "vnet_hdr", "Checksum and segmentation offload (on)" },
    { "script", "Only 'no'" },
    { "downscript", "Only 'no'" },
    { "sndbuf", "Accepted" },
    { "poll-us", "Accepted" },
    { "vhost", "Only 'off'" },
    { "vhostfd", "Not supported" },
    { "vhostfds", "Not supported" },
    { "helper", "Not supported" },
    { "br", "Not supported" },
    { NULL, NULL },
};

static const struct netdev_type tap_type = {
    .name = "tap",
    .summary = "A tap interface of the host, by name or by descriptor",
    .props = tap_props,
    .create = tap_create,
};
NETDEV_TYPE(tap_type);
