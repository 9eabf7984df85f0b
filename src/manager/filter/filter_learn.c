/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A packet socket on an interface of a machine. See filter_learn.h.
 *
 * It sees frames before the bridge and the rules of filters do: what they drop still tells an
 * address.
 */
#include "manager/filter/filter_learn.h"

#include <errno.h>
#include <glib-unix.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FRAMES_AT_ONCE = 64, PAUSE_MS = 50, FRAME_MAX = 1600, BUFFER_BYTES = 128 << 10 };

struct filter_learner {
    struct filter_learner_of of;
    int fd;
    guint source; /* the socket's, or the pause's */
    void (*seen)(const struct filter_sighting *s, void *opaque);
    void *opaque;
    bool *freed; /* set while `seen` runs */
};

/* ARP and IPv4; only DHCP by UDP, where nothing else is asked for. */
static const struct sock_filter any_code[] = {
    BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_ARP, 1, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, FRAME_MAX),
    BPF_STMT(BPF_RET | BPF_K, 0),
};
static const struct sock_filter dhcp_code[] = {
    BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 7),
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 23),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 17, 0, 5),
    BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 14),
    BPF_STMT(BPF_LD | BPF_H | BPF_IND, 16),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 67, 1, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 68, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, FRAME_MAX),
    BPF_STMT(BPF_RET | BPF_K, 0),
};

static gboolean on_readable(gint fd, GIOCondition condition, gpointer opaque);

static gboolean after_pause(gpointer opaque)
{
    struct filter_learner *l = opaque;
    l->source = g_unix_fd_add(l->fd, G_IO_IN, on_readable, l);
    return G_SOURCE_REMOVE;
}

/* False: nothing is there. */
static bool read_one(struct filter_learner *l)
{
    uint8_t frame[FRAME_MAX];
    struct sockaddr_ll from;
    socklen_t len = sizeof(from);
    ssize_t got =
        recvfrom(l->fd, frame, sizeof(frame), MSG_DONTWAIT, (struct sockaddr *)&from, &len);
    if (got < 0)
        return errno == EINTR;
    struct filter_sighting s =
        filter_sight(&l->of, frame, (size_t)got, from.sll_pkttype == PACKET_OUTGOING);
    if (s.kind)
        l->seen(&s, l->opaque);
    return true;
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer opaque)
{
    struct filter_learner *l = opaque;
    bool freed = false, more = true;
    l->freed = &freed;
    for (unsigned i = 0; i < FRAMES_AT_ONCE && more && !freed; i++)
        more = read_one(l);
    if (freed)
        return G_SOURCE_REMOVE;
    l->freed = NULL;
    if (!more && !(condition & (G_IO_ERR | G_IO_HUP)))
        return G_SOURCE_CONTINUE;
    l->source =
        g_timeout_add(PAUSE_MS, after_pause, l); /* a flood, or an interface that goes down */
    return G_SOURCE_REMOVE;
}

static bool listen_on(struct filter_learner *l, const char *ifname)
{
    bool any = l->of.how == FILTER_LEARN_ANY;
    int size = BUFFER_BYTES;
    struct sock_fprog code = {.len = any ? G_N_ELEMENTS(any_code) : G_N_ELEMENTS(dhcp_code),
                              .filter = (struct sock_filter *)(any ? any_code : dhcp_code)};
    struct sockaddr_ll at = {.sll_family = AF_PACKET,
                             .sll_protocol = g_htons(ETH_P_ALL),
                             .sll_ifindex = (int)if_nametoindex(ifname)};
    l->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
                   0); /* hears nothing before bind() */
    return l->fd >= 0 && at.sll_ifindex &&
           !setsockopt(l->fd, SOL_SOCKET, SO_ATTACH_FILTER, &code, sizeof(code)) &&
           !setsockopt(l->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) &&
           !bind(l->fd, (struct sockaddr *)&at, sizeof(at));
}

struct filter_learner *filter_learner_new(const char *ifname, const struct filter_learner_of *of,
                                          void (*seen)(const struct filter_sighting *s,
                                                       void *opaque),
                                          void *opaque, GError **error)
{
    struct filter_learner *l = g_new0(struct filter_learner, 1);
    *l = (struct filter_learner){.of = *of, .fd = -1, .seen = seen, .opaque = opaque};
    if (listen_on(l, ifname)) {
        l->source = g_unix_fd_add(l->fd, G_IO_IN, on_readable, l);
        return l;
    }
    ruche_error_errno(error, errno,
                      "interface '%s': its frames cannot be read to learn its address", ifname);
    filter_learner_free(l);
    return NULL;
}

void filter_learner_free(struct filter_learner *l)
{
    if (!l)
        return;
    if (l->freed)
        *l->freed = true; /* on_readable() returns to no source */
    else if (l->source)
        g_source_remove(l->source);
    if (l->fd >= 0)
        close(l->fd);
    g_free(l);
}
