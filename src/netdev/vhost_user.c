/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `vhost-user`: a switch in another process takes the card's rings and works on them in guest memory.
 *
 * The socket is a chardev's, which connects, listens and comes again. After each connection the two agree on features
 * without anybody waiting; then the device may hand its rings over. A back end that goes, or does not keep to the
 * protocol, is one that is not there: the link is down, the device has its rings back, and goes on with the next one.
 *
 * Spec      QEMU's vhost-user protocol, version 1; protocol features MQ, LOG_SHMFD, RARP, REPLY_ACK, MTU.
 * Thread    The netdev's loop, which is the chardev's: the main loop.
 * Trust     The back end has guest memory, all of it, and is otherwise not trusted: see vhost_user_wire.c. Where it is
 *           waited for (giving rings back), it is shunned for a while when it does not answer.
 * Errors    Sentences at creation; one in the log when a back end is sent away.
 */
#include "netdev/vhost_user.h"

#include "base/fence.h"
#include "base/log.h"
#include "base/units.h"
#include "chardev/chardev.h"

#define PROTOCOL                                                                                   \
    (1u << VU_PF_MQ | 1u << VU_PF_LOG_SHMFD | 1u << VU_PF_RARP | 1u << VU_PF_REPLY_ACK |           \
     1u << VU_PF_MTU)
#define FEATURE_VERSION_1 32
#define FEATURE_MTU       3
#define ADDR_LOG          1 /* flag of VU_SET_VRING_ADDR */

static struct vhost_user *of(const struct netdev *n)
{
    return container_of(n, struct vhost_user, n);
}

static bool has(const struct vhost_user *u, unsigned protocol_feature)
{
    return u->protocol >> protocol_feature & 1;
}

/* --- the connection --- */

static void tell(void *opaque)
{
    struct vhost_user *u = opaque;
    if (u->n.peer.vhost_changed)
        u->n.peer.vhost_changed(u->n.peer.opaque);
}

static void set_state(struct vhost_user *u, enum vu_state state)
{
    bool was = u->state == VU_READY;
    u->state = state;
    if (was != (state == VU_READY) && u->n.loop)
        loop_post(u->n.loop, &u->changed);
}

static void forget_connection(struct vhost_user *u)
{
    u->expected_count = 0;
    u->in_len = u->in_fds = 0;
    u->features = u->protocol = 0;
    if (u->timer_made)
        loop_timer_cancel(&u->timer);
    set_state(u, VU_AWAY);
}

void vu_fault(struct vhost_user *u, const char *why)
{
    if (u->state == VU_AWAY)
        return;
    int64_t now = loop_now_ns();
    u->faults += why != NULL;
    if (why &&
        now >= u->quiet_until_ns) { /* one that comes again and again does not fill the log */
        u->quiet_until_ns = now + VU_QUIET_NS;
        log_warn("netdev '%s': the back end at chardev '%s' %s; the link is down", u->n.id,
                 chardev_id(u->chardev), why);
    }
    forget_connection(u);
    chardev_hang_up(u->chardev);
}

/* The first question, once somebody is there and a device has us. */
static void agree(struct vhost_user *u)
{
    if (u->state >= VU_AGREEING || u->state == VU_AWAY || !u->n.loop)
        return;
    int64_t now = loop_now_ns();
    if (now < u->shunned_until_ns) {
        loop_timer_arm(&u->timer, u->shunned_until_ns);
        return;
    }
    set_state(u, VU_AGREEING);
    if (vu_send(u, VU_GET_FEATURES, false, NULL, 0, NULL, 0) == 0)
        vu_expect(u, VU_GET_FEATURES, 0);
}

static void timer_fired(void *opaque)
{
    struct vhost_user *u = opaque;
    if (u->state == VU_SHUNNED)
        agree(u);
    else if (u->expected_count)
        vu_fault(u, "does not answer");
}

static void opened(void *opaque, bool open)
{
    struct vhost_user *u = opaque;
    forget_connection(u);
    if (!open)
        return;
    u->connections++;
    set_state(u, VU_SHUNNED);
    agree(u);
}

static void readable(void *opaque, int fd)
{
    vu_receive(opaque);
}

/* --- agreeing --- */

static int agreed(struct vhost_user *u)
{
    if (vu_send(u, VU_SET_OWNER, false, NULL, 0, NULL, 0) < 0)
        return 0;
    set_state(u, VU_READY);
    return 0;
}

static int got_features(struct vhost_user *u, unsigned ring, struct cur *c)
{
    u->features = cur_le64(c);
    if (c->bad || c->left)
        return -EBADMSG;
    if (!(u->features >> FEATURE_VERSION_1 & 1)) {
        vu_fault(u, "does not know VIRTIO 1");
        return 0;
    }
    if (!(u->features >> VU_F_PROTOCOL_FEATURES & 1)) {
        if (u->asked_queues == 1)
            return agreed(u);
        vu_fault(u, "has one pair of queues, and more are asked for by queues=");
        return 0;
    }
    if (vu_send(u, VU_GET_PROTOCOL_FEATURES, false, NULL, 0, NULL, 0) == 0)
        vu_expect(u, VU_GET_PROTOCOL_FEATURES, 0);
    return 0;
}

static int got_protocol(struct vhost_user *u, unsigned ring, struct cur *c)
{
    u->protocol = cur_le64(c) & PROTOCOL;
    if (c->bad || c->left)
        return -EBADMSG;
    if (vu_send_u64(u, VU_SET_PROTOCOL_FEATURES, u->protocol) < 0)
        return 0;
    if (has(u, VU_PF_MQ)) {
        if (vu_send(u, VU_GET_QUEUE_NUM, false, NULL, 0, NULL, 0) == 0)
            vu_expect(u, VU_GET_QUEUE_NUM, 0);
        return 0;
    }
    if (u->asked_queues == 1)
        return agreed(u);
    vu_fault(u, "has one pair of queues, and more are asked for by queues=");
    return 0;
}

static int got_queues(struct vhost_user *u, unsigned ring, struct cur *c)
{
    uint64_t pairs = cur_le64(c);
    if (c->bad || c->left)
        return -EBADMSG;
    if (pairs >= u->asked_queues)
        return agreed(u);
    vu_fault(u, "has fewer pairs of queues than are asked for by queues=");
    return 0;
}

static int got_place(struct vhost_user *u, unsigned ring, struct cur *c)
{
    uint32_t index = cur_le32(c), place = cur_le32(c);
    if (c->bad || c->left || index != ring)
        return -EBADMSG;
    u->place[ring] = (struct vhost_place){.index = (uint16_t)ring, .known = true, .place = place};
    return 0;
}

static int got_ack(struct vhost_user *u, unsigned ring, struct cur *c)
{
    uint64_t v = cur_le64(c);
    if (c->bad || c->left)
        return -EBADMSG;
    if (v)
        vu_fault(u, "refuses the machine's memory or rings");
    return 0;
}

static int got_log(struct vhost_user *u, unsigned ring, struct cur *c)
{
    return 0; /* that it came is all */
}

int vu_replied(struct vhost_user *u, enum vu_request request, unsigned ring, struct cur *payload)
{
    static int (*const handlers[])(struct vhost_user * u, unsigned ring, struct cur *c) = {
        [VU_GET_FEATURES] = got_features, [VU_GET_PROTOCOL_FEATURES] = got_protocol,
        [VU_GET_QUEUE_NUM] = got_queues,  [VU_GET_VRING_BASE] = got_place,
        [VU_SET_MEM_TABLE] = got_ack,     [VU_SET_LOG_BASE] = got_log,
    };
    return handlers[request](u, ring, payload); /* only what was asked for is taken */
}

/* --- rings --- */

static bool ready(const struct netdev *n)
{
    return of(n)->state == VU_READY;
}

static uint64_t features(const struct netdev *n)
{
    return ready(n) ? of(n)->features : UINT64_MAX;
}

static bool can_log(const struct netdev *n)
{
    return ready(n) && (of(n)->features >> VU_F_LOG_ALL & 1) && has(of(n), VU_PF_LOG_SHMFD);
}

static int send_memory(struct vhost_user *u, const struct vhost_start *s)
{
    struct {
        uint32_t count, padding;
        struct {
            uint64_t gpa, bytes, address, offset;
        } region[VHOST_MAX_REGIONS];
    } table = {.count = s->region_count};
    int fds[VHOST_MAX_REGIONS];
    for (unsigned i = 0; i < s->region_count; i++) {
        const struct vhost_region *r = &s->regions[i];
        table.region[i].gpa = r->gpa;
        table.region[i].bytes = r->bytes;
        table.region[i].address = (uintptr_t)r->hva;
        table.region[i].offset = r->fd_off;
        fds[i] = r->fd;
    }
    bool ack = has(u, VU_PF_REPLY_ACK);
    int err = vu_send(u, VU_SET_MEM_TABLE, ack, &table,
                      8 + s->region_count * sizeof(table.region[0]), fds, s->region_count);
    return !err && ack ? vu_expect(u, VU_SET_MEM_TABLE, 0) : err;
}

static int send_log(struct vhost_user *u, const struct vhost_start *s)
{
    const uint64_t log[2] = {s->log_bytes, 0};
    int err = vu_send(u, VU_SET_LOG_BASE, false, log, sizeof(log), &s->log_fd, 1);
    return err ? err : vu_expect(u, VU_SET_LOG_BASE, 0);
}

static int send_ring(struct vhost_user *u, const struct vhost_ring *r, bool log)
{
    const struct {
        uint32_t index, flags;
        uint64_t desc, used, avail, log;
    } addr = {
        .index = r->index,
        .flags = log ? ADDR_LOG : 0,
        .desc = (uintptr_t)r->desc,
        .used = (uintptr_t)r->device,
        .avail = (uintptr_t)r->driver,
        .log = r->device_gpa,
    };
    int err = vu_send_ring(u, VU_SET_VRING_NUM, r->index, r->size);
    err = err ? err : vu_send_ring(u, VU_SET_VRING_BASE, r->index, r->place);
    err = err ? err : vu_send(u, VU_SET_VRING_ADDR, false, &addr, sizeof(addr), NULL, 0);
    err = err ? err : vu_send_ring_fd(u, VU_SET_VRING_ERR, r->index, r->err_fd);
    err = err ? err : vu_send_ring_fd(u, VU_SET_VRING_CALL, r->index, r->call_fd);
    return err ? err : vu_send_ring_fd(u, VU_SET_VRING_KICK, r->index, r->kick_fd);
}

static bool speaks_protocol(const struct vhost_user *u)
{
    return u->features >> VU_F_PROTOCOL_FEATURES & 1;
}

static void vu_enable(struct netdev *n, unsigned ring, bool on)
{
    struct vhost_user *u = of(n);
    if (u->started && speaks_protocol(u))
        vu_send_ring(u, VU_SET_VRING_ENABLE, ring, on);
}

static int send_extras(struct vhost_user *u, const struct vhost_start *s)
{
    int err = 0;
    if (s->mtu && has(u, VU_PF_MTU) && (u->features >> FEATURE_MTU & 1))
        err = vu_send_u64(u, VU_NET_SET_MTU, s->mtu);
    if (!err && s->announce && has(u, VU_PF_RARP)) {
        uint64_t mac = 0;
        memcpy(&mac, s->announce, 6);
        err = vu_send_u64(u, VU_SEND_RARP, mac);
    }
    return err;
}

static int vu_start(struct netdev *n, const struct vhost_start *s)
{
    struct vhost_user *u = of(n);
    uint64_t own = 1ULL << VU_F_PROTOCOL_FEATURES | (s->log_fd >= 0 ? 1ULL << VU_F_LOG_ALL : 0);
    if (!ready(n) || s->ring_count > VHOST_MAX_RINGS || s->region_count > VHOST_MAX_REGIONS)
        return -ENOTCONN;
    int err = vu_send_u64(u, VU_SET_FEATURES, (s->features | own) & u->features);
    err = err ? err : send_memory(u, s);
    if (!err && s->log_fd >= 0)
        err = send_log(u, s);
    for (unsigned i = 0; !err && i < s->ring_count; i++)
        err = send_ring(u, &s->rings[i], s->log_fd >= 0);
    u->started = !err;
    for (unsigned i = 0; !err && i < s->ring_count; i++)
        vu_enable(n, s->rings[i].index, s->rings[i].enabled);
    return err ? err : send_extras(u, s);
}

static void vu_set_call(struct netdev *n, unsigned ring, int fd)
{
    if (of(n)->started)
        vu_send_ring_fd(of(n), VU_SET_VRING_CALL, ring, fd);
}

static void vu_stop(struct netdev *n, struct vhost_place *ret, unsigned count)
{
    struct vhost_user *u = of(n);
    int err = u->started && ready(n) ? 0 : -ENOTCONN;
    u->in_stop = true;
    for (unsigned i = 0; i < count; i++)
        u->place[ret[i].index].known = false;
    for (unsigned i = 0; !err && i < count; i++)
        vu_enable(n, ret[i].index, false);
    for (unsigned i = 0; !err && i < count; i++) {
        err = vu_send_ring(u, VU_GET_VRING_BASE, ret[i].index, 0);
        err = err ? err : vu_expect(u, VU_GET_VRING_BASE, ret[i].index);
    }
    if (!err)
        vu_wait(u);
    for (unsigned i = 0; i < count; i++) {
        const struct vhost_place *p = &u->place[ret[i].index];
        ret[i].known = p->known;
        ret[i].place = p->place;
    }
    u->in_stop = u->started = false;
}

static const struct netdev_vhost_ops vhost_ops = {
    .ready = ready,
    .features = features,
    .can_log = can_log,
    .start = vu_start,
    .enable = vu_enable,
    .set_call = vu_set_call,
    .stop = vu_stop,
};

/* --- the backend --- */

static ssize_t vu_drop(struct netdev *n, unsigned queue, const struct iovec *iov,
                       unsigned iov_count)
{
    return -ENETDOWN; /* frames are in the rings */
}

static int vu_set_loop(struct netdev *n, struct loop *l)
{
    struct vhost_user *u = of(n);
    if (u->timer_made) {
        loop_timer_done(&u->timer);
        loop_unpost(n->loop, &u->changed);
    }
    n->loop = l;
    u->timer_made = l != NULL;
    if (!l)
        return 0;
    loop_timer_init(l, &u->timer, timer_fired, u);
    if (u->expected_count)
        loop_timer_arm(&u->timer, loop_now_ns() + VU_PATIENCE_NS);
    agree(u);
    return 0;
}

static void vu_destroy(struct netdev *n)
{
    struct vhost_user *u = of(n);
    if (u->chardev)
        chardev_detach(u->chardev, u);
    g_free(u);
}

static char *vu_describe(const struct netdev *n)
{
    const struct vhost_user *u = of(n);
    static const char *const words[] = {"not connected", "connected", "connected", "agreed"};
    return g_strdup_printf(
        "type=vhost-user,chardev=%s,queues=%u,%s%s,connections=%" G_GUINT64_FORMAT
        ",faults=%" G_GUINT64_FORMAT,
        chardev_id(u->chardev), n->queues, words[u->state], u->started ? ",running" : "",
        u->connections, u->faults);
}

static const struct netdev_ops vu_ops = {
    .send = vu_drop,
    .offloads = netdev_no_offloads,
    .set_offloads = netdev_keep_offloads,
    .set_loop = vu_set_loop,
    .destroy = vu_destroy,
    .describe = vu_describe,
    .vhost = &vhost_ops,
};

/* --- creation --- */

static bool parse_options(struct vhost_user *u, const struct netdev_config *c, GError **error)
{
    const char *id = u->n.id, *queues = netdev_option(c, "queues");
    uint64_t count = 1;
    bool force;
    if (!netdev_option_bool(id, c, "vhostforce", true, &force, error))
        return false;
    if (queues && (!units_parse_size(queues, 1, &count) || !count || count > VHOST_MAX_RINGS / 2))
        return ruche_error(error, RUCHE_ERR_INVALID, "netdev '%s': queues=%s: 1 to %d are possible",
                           id, queues, VHOST_MAX_RINGS / 2);
    if (!c->chardev)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "netdev '%s': vhost-user needs chardev=, a socket's id", id);
    if (!chardev_passes_fds(c->chardev))
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "netdev '%s': chardev '%s' is no Unix socket, which vhost-user needs to pass memory",
            id, chardev_id(c->chardev));
    u->n.queues = u->asked_queues = (unsigned)count;
    return true;
}

static const struct netdev_type vu_type;

static struct netdev *vu_create(const char *id, const struct netdev_config *c, GError **error)
{
    struct vhost_user *u = g_new0(struct vhost_user, 1);
    netdev_init(&u->n, &vu_type, &vu_ops, id);
    u->changed = (struct loop_task){.fn = tell, .opaque = u};
    const struct chardev_frontend f = {.readable = readable, .opened = opened, .opaque = u};
    if (!parse_options(u, c, error) || !chardev_attach(c->chardev, &f, error)) {
        netdev_free(&u->n);
        return NULL;
    }
    u->chardev = c->chardev;
    fence_guest_keep();
    return &u->n;
}

static const struct netdev_prop vu_props[] = {
    {"chardev",
     "A Unix socket's id: -chardev socket,id=...,path=...[,server=on,wait=off][,reconnect=N]"},
    {"queues", "Pairs of queues that the back end must have (1)"},
    {"vhostforce", "Accepted"},
    {NULL, NULL},
};

static const struct netdev_type vu_type = {
    .name = "vhost-user",
    .summary = "A switch in another process, which has the rings and the guest's memory",
    .props = vu_props,
    .create = vu_create,
};
NETDEV_TYPE(vu_type);
