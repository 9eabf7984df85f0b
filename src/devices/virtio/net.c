/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `virtio-net-pci`: a network interface with several queue pairs over a network backend.
 *
 * What is offered to the guest is what the backend can do. Frames pass in net_frames.c, control
 * commands in net_ctrl.c; net_vhost.c lends the rings to a backend that can use them itself.
 *
 * Spec      VIRTIO 1.2, section 5.1.
 * Thread    Queues: the main loop, with the device's lock; the lock is let go around calls of the
 *           backend.
 */
#include "devices/virtio/net.h"
#include "machine/backends.h"

#include <string.h>

#define CONFIG(field) offsetof(struct virtio_net_config, field)

static struct vnet *vnet_of(struct virtio *v)
{
    return container_of(v, struct vnet, v);
}

/* Without VIRTIO_NET_F_MQ the control queue follows the first pair. */
static unsigned ctrl_queue(const struct vnet *s)
{
    return virtio_has(&s->v, VIRTIO_NET_F_MQ) ? 2 * s->max_pairs : 2;
}

static void vnet_handle(struct virtio *v, unsigned queue)
{
    struct vnet *s = vnet_of(v);
    if (virtio_has(v, VIRTIO_NET_F_CTRL_VQ) && queue == ctrl_queue(s))
        vnet_handle_ctrl(s, queue);
    else if (queue / 2 >= s->max_pairs)
        return;
    else if (s->vhost)
        vnet_vhost_changed(s); /* it is not lent yet */
    else if (queue % 2)
        vnet_handle_tx(s, queue);
    else
        vnet_handle_rx(s, queue / 2);
}

/* --- configuration --- */

static void vnet_apply(void *opaque)
{
    struct vnet *s = opaque;
    static const struct {
        unsigned feature, offload;
    } map[] = {
        { VIRTIO_NET_F_GUEST_CSUM, NETDEV_CSUM }, { VIRTIO_NET_F_GUEST_TSO4, NETDEV_TSO4 },
        { VIRTIO_NET_F_GUEST_TSO6, NETDEV_TSO6 }, { VIRTIO_NET_F_GUEST_ECN, NETDEV_ECN },
    };
    unsigned offloads = 0;
    pthread_mutex_lock(&s->pci.dev.lock);
    for (size_t i = 0; i < ARRAY_COUNT(map); i++)
        offloads |= s->guest_offloads & VIRTIO_F(map[i].feature) ? map[i].offload : 0;
    pthread_mutex_unlock(&s->pci.dev.lock);
    if (s->netdev && s->vnet_hdr)
        s->netdev->ops->set_offloads(s->netdev, offloads);
}

static void vnet_features_set(struct virtio *v)
{
    struct vnet *s = vnet_of(v);
    s->guest_offloads = v->accepted & VNET_GUEST_OFFLOADS;
    if (virtio_has(v, VIRTIO_NET_F_CTRL_VLAN))
        memset(s->filter.vlan, 0, sizeof(s->filter.vlan));
    loop_post(v->pci.dev.loop, &s->apply);
}

static bool link_is_up(const struct vnet *s)
{
    return s->netdev && s->netdev->link_up && (!s->vhost || vnet_vhost_ready(s));
}

static void set_link(struct vnet *s)
{
    bool up = link_is_up(s);
    VIRTIO_SET(&s->v, CONFIG(status), uint16_t, up ? VIRTIO_NET_S_LINK_UP : 0);
}

static void vnet_link_changed(void *opaque, bool up)
{
    struct vnet *s = opaque;
    pthread_mutex_lock(&s->pci.dev.lock);
    set_link(s);
    virtio_config_changed(&s->v);
    pthread_mutex_unlock(&s->pci.dev.lock);
    if (s->vhost)
        vnet_vhost_changed(s);
}

static void vnet_backend_changed(void *opaque)
{
    struct vnet *s = opaque;
    pthread_mutex_lock(&s->pci.dev.lock);
    vnet_vhost_offer(s);
    pthread_mutex_unlock(&s->pci.dev.lock);
    vnet_link_changed(s, vnet_vhost_ready(s));
}

static void vnet_queue_reset(struct virtio *v, unsigned queue)
{
    if (queue % 2 == 0 && queue / 2 < VNET_MAX_PAIRS)
        vnet_of(v)->rx_waiting[queue / 2] = false;
    if (vnet_of(v)->vhost)
        vnet_vhost_changed(vnet_of(v));
}

static void vnet_rerouted(struct virtio *v)
{
    if (vnet_of(v)->vhost)
        vnet_vhost_changed(vnet_of(v));
}

static void vnet_reset(struct virtio *v)
{
    struct vnet *s = vnet_of(v);
    s->pairs = 1;
    s->guest_offloads = 0;
    vnet_filter_reset(s);
    set_link(s);
    if (s->vhost) {
        vnet_vhost_offer(s);
        vnet_vhost_changed(s);
    }
    loop_post(v->pci.dev.loop, &s->apply);
}

static const struct virtio_ops vnet_ops = {
    .id = VIRTIO_ID_NET, .class_code = 0x02, .subclass = 0x00, .handle = vnet_handle,
    .features_set = vnet_features_set, .queue_reset = vnet_queue_reset, .reset = vnet_reset,
    .drain = vnet_vhost_drain, .stopped = vnet_vhost_stopped, .rerouted = vnet_rerouted,
};

static uint64_t features(const struct vnet *s)
{
    unsigned can = s->vhost ? UINT_MAX : s->vnet_hdr ? s->netdev->ops->offloads(s->netdev) : 0;
    bool csum = can & NETDEV_CSUM;
    bool out = csum && s->csum, in = csum && s->guest_csum, ctrl = s->ctrl_vq;
    const struct {
        unsigned feature;
        bool on;
    } rows[] = {
        { VIRTIO_NET_F_MAC, true },
        { VIRTIO_NET_F_STATUS, s->status },
        { VIRTIO_NET_F_MRG_RXBUF, s->mrg_rxbuf },
        { VIRTIO_NET_F_CSUM, out },
        { VIRTIO_NET_F_HOST_TSO4, out && s->gso && s->host_tso4 && (can & NETDEV_TSO4) },
        { VIRTIO_NET_F_HOST_TSO6, out && s->gso && s->host_tso6 && (can & NETDEV_TSO6) },
        { VIRTIO_NET_F_HOST_ECN, out && s->gso && s->host_ecn && (can & NETDEV_ECN) },
        { VIRTIO_NET_F_GUEST_CSUM, in },
        { VIRTIO_NET_F_GUEST_TSO4, in && s->guest_tso4 && (can & NETDEV_TSO4) },
        { VIRTIO_NET_F_GUEST_TSO6, in && s->guest_tso6 && (can & NETDEV_TSO6) },
        { VIRTIO_NET_F_GUEST_ECN, in && s->guest_ecn && (can & NETDEV_ECN) },
        { VIRTIO_NET_F_CTRL_VQ, ctrl },
        { VIRTIO_NET_F_CTRL_RX, ctrl && s->ctrl_rx },
        { VIRTIO_NET_F_CTRL_RX_EXTRA, ctrl && s->ctrl_rx_extra },
        { VIRTIO_NET_F_CTRL_VLAN, ctrl && s->ctrl_vlan },
        { VIRTIO_NET_F_CTRL_MAC_ADDR, ctrl && s->ctrl_mac_addr },
        { VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, ctrl && in && s->ctrl_guest_offloads && !s->vhost },
        { VIRTIO_NET_F_GUEST_ANNOUNCE, ctrl && s->status && s->guest_announce },
        { VIRTIO_NET_F_MQ, ctrl && s->max_pairs > 1 },
        { VIRTIO_NET_F_MTU, s->host_mtu > 0 },
        { VIRTIO_NET_F_SPEED_DUPLEX, s->speed >= 0 || s->duplex },
    };
    uint64_t f = 0;
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++)
        f |= rows[i].on ? VIRTIO_F(rows[i].feature) : 0;
    return f;
}

/* --- life --- */

static void choose_mac(struct vnet *s)
{
    static unsigned made;
    static const uint8_t zero[6];
    if (memcmp(s->mac, zero, 6))
        return;
    const uint8_t mac[6] = { 0x52, 0x54, 0x00, 0x12, 0x34, (uint8_t)(0x56 + made++) };
    memcpy(s->mac, mac, 6);
}

static bool check_props(struct vnet *s, GError **error)
{
    if (!is_power_of_2(s->rx_queue_size) || !is_power_of_2(s->tx_queue_size))
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "virtio-net-pci: rx_queue_size=%u and tx_queue_size=%u must be powers of two",
            s->rx_queue_size, s->tx_queue_size);
    if (s->mac[0] & 1)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "virtio-net-pci: mac=%02x:%02x:...: a multicast address", s->mac[0],
                           s->mac[1]);
    if (s->duplex && strcmp(s->duplex, "full") && strcmp(s->duplex, "half"))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "virtio-net-pci: duplex is 'full' or 'half', not '%s'", s->duplex);
    if (s->host_mtu && s->host_mtu < 68)
        return ruche_error(error, RUCHE_ERR_INVALID, "virtio-net-pci: host_mtu=%u is below 68",
                           s->host_mtu);
    return true;
}

static void home_attach(void *opaque)
{
    struct vnet *s = opaque;
    s->on_loop = netdev_set_loop(s->netdev, s->pci.dev.loop) == 0;
}

static void home_detach(void *opaque)
{
    struct vnet *s = opaque;
    loop_unpost(s->pci.dev.loop, &s->apply);
    if (!s->netdev)
        return;
    netdev_set_loop(s->netdev, NULL);
    netdev_detach(s->netdev);
}

/* Frames stay in their rings, or are dropped; the guest sees the link go. */
static void home_unplug(void *opaque)
{
    struct vnet *s = opaque;
    vnet_vhost_drain(&s->v);
    netdev_set_loop(s->netdev, NULL);
    netdev_detach(s->netdev);
    pthread_mutex_lock(&s->pci.dev.lock);
    s->netdev = NULL;
    memset(s->rx_waiting, 0, sizeof(s->rx_waiting));
    pthread_mutex_unlock(&s->pci.dev.lock);
    vnet_link_changed(s, false);
}

static void vnet_netdev_gone(void *opaque)
{
    struct vnet *s = opaque;
    loop_call(s->pci.dev.loop, home_unplug, s);
    g_clear_pointer(&s->netdev_id, g_free);
}

static bool connect_netdev(struct vnet *s, GError **error)
{
    struct device *d = &s->pci.dev;
    const char *who = d->id ? d->id : "virtio-net-pci";
    if (!s->netdev_id)
        return true; /* a card without a cable */
    struct netdev *n = backend_find(d->machine, BACKEND_NETDEV, who, s->netdev_id, error);
    const struct netdev_peer peer = { .receive = vnet_receive, .send_ready = vnet_send_ready,
                                      .link_changed = vnet_link_changed, .gone = vnet_netdev_gone,
                                      .vhost_changed = vnet_backend_changed,
                                      .opaque = s };
    if (!n || !netdev_attach(n, &peer, error))
        return false;
    s->netdev = n;
    if (n->ops->vhost && !vnet_vhost_new(s, error))
        return false;
    loop_call(d->loop, home_attach, s);
    if (!s->on_loop)
        return ruche_error(error, RUCHE_ERR_STATE, "%s: netdev '%s' cannot run on this loop", who,
                           s->netdev_id);
    s->vnet_hdr = n->ops->set_vnet_hdr && n->ops->set_vnet_hdr(n, true);
    return true;
}

static bool vnet_realize(struct device *d, GError **error)
{
    struct vnet *s = container_of(d, struct vnet, pci.dev);
    s->apply = (struct loop_task){ .fn = vnet_apply, .opaque = s };
    choose_mac(s);
    if (!check_props(s, error) || !connect_netdev(s, error))
        return false;
    s->max_pairs =
        s->netdev && s->mq && s->ctrl_vq ? (unsigned)min_u64(s->netdev->queues, VNET_MAX_PAIRS) : 1;
    uint16_t sizes[VIRTIO_MAX_QUEUES];
    for (unsigned i = 0; i < 2 * s->max_pairs; i++)
        sizes[i] = i % 2 ? s->tx_queue_size : s->rx_queue_size;
    sizes[2 * s->max_pairs] = 64;
    VIRTIO_SET(&s->v, CONFIG(max_virtqueue_pairs), uint16_t, s->max_pairs);
    VIRTIO_SET(&s->v, CONFIG(mtu), uint16_t, s->host_mtu);
    VIRTIO_SET(&s->v, CONFIG(speed), uint32_t, (uint32_t)s->speed);
    VIRTIO_SET(&s->v, CONFIG(duplex), uint8_t, !s->duplex ? 0xff : s->duplex[0] == 'f');
    memcpy(s->v.config, s->mac, 6);
    if (!virtio_init(&s->v, &vnet_ops, features(s), 2 * s->max_pairs + (s->ctrl_vq ? 1 : 0), sizes,
                     CONFIG(duplex) + 1, error))
        return false;
    if (s->vhost)
        vnet_vhost_begin(s);
    return true;
}

/* The link is that of the backend here; what it may leave to the guest is told it anew. */
static bool vnet_loaded(struct device *d, GError **error)
{
    struct vnet *s = container_of(d, struct vnet, pci.dev);
    if (!s->pairs || s->pairs > s->max_pairs)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "state of device 'virtio-net-pci' (%s): field 'pairs' is %u, and can be from 1 to %u",
                           d->id ? d->id : d->path, s->pairs, s->max_pairs);
    pthread_mutex_lock(&d->lock);
    s->guest_offloads &= s->v.accepted & VNET_GUEST_OFFLOADS;
    uint16_t told;
    memcpy(&told, s->v.config + CONFIG(status), sizeof(told));
    bool up = link_is_up(s);
    if (up != (told & VIRTIO_NET_S_LINK_UP)) {
        set_link(s);
        virtio_config_changed(&s->v);
    }
    pthread_mutex_unlock(&d->lock);
    loop_post(d->loop, &s->apply);
    if (s->vhost)
        vnet_vhost_announce(s);
    return true;
}

static void vnet_unrealize(struct device *d)
{
    struct vnet *s = container_of(d, struct vnet, pci.dev);
    virtio_done(&s->v);
    loop_call(d->loop, home_detach, s);
    s->netdev = NULL;
    vnet_vhost_free(s);
}

#define OFFER(prop, field, what)                                                                   \
    PROP_BOOL(prop, struct vnet, field, .def = true, .help = "Offer " what)

static const struct prop vnet_props[] = {
    PROP_STRING("netdev", struct vnet, netdev_id, .help = "Network backend by id"),
    PROP_MAC("mac", struct vnet, mac,
             .help = "Address, as 52:54:00:12:34:56; made up when missing"),
    PROP_BOOL("mq", struct vnet, mq, .help = "As many queue pairs as the backend has"),
    PROP_U16("rx_queue_size", struct vnet, rx_queue_size, .def = 256, .min = 64, .max = VQ_MAX_SIZE,
             .help = "Descriptors in a receive queue, a power of two"),
    PROP_U16("tx_queue_size", struct vnet, tx_queue_size, .def = 256, .min = 64, .max = VQ_MAX_SIZE,
             .help = "Descriptors in a transmit queue, a power of two"),
    PROP_U16("host_mtu", struct vnet, host_mtu, .help = "MTU to advise; 0: none"),
    PROP_I32("speed", struct vnet, speed, .def = (uint64_t)-1,
             .help = "Link speed in Mbit/s; -1: unknown"),
    PROP_STRING("duplex", struct vnet, duplex, .help = "'full' or 'half'"),
    PROP_STRING("tx", struct vnet, tx_mode, .help = "Accepted"),
    PROP_I32("bootindex", struct vnet, bootindex, .def = (uint64_t)-1,
             .help = "Place in the boot order"),
    OFFER("mrg_rxbuf", mrg_rxbuf, "mergeable receive buffers"),
    OFFER("csum", csum, "to finish checksums of sent frames"),
    OFFER("gso", gso, "to take large segments at all"),
    OFFER("host_tso4", host_tso4, "to take large TCP segments over IPv4"),
    OFFER("host_tso6", host_tso6, "to take large TCP segments over IPv6"),
    OFFER("host_ecn", host_ecn, "to take large TCP segments with ECN"),
    OFFER("guest_csum", guest_csum, "to leave checksums of received frames out"),
    OFFER("guest_tso4", guest_tso4, "large received TCP segments over IPv4"),
    OFFER("guest_tso6", guest_tso6, "large received TCP segments over IPv6"),
    OFFER("guest_ecn", guest_ecn, "large received TCP segments with ECN"),
    OFFER("status", status, "the link's state"),
    OFFER("ctrl_vq", ctrl_vq, "the control queue"),
    OFFER("ctrl_rx", ctrl_rx, "receive modes"),
    OFFER("ctrl_rx_extra", ctrl_rx_extra, "further receive modes"),
    OFFER("ctrl_vlan", ctrl_vlan, "the VLAN filter"),
    OFFER("ctrl_mac_addr", ctrl_mac_addr, "to set the address"),
    OFFER("ctrl_guest_offloads", ctrl_guest_offloads, "to change offloads at run time"),
    OFFER("guest_announce", guest_announce, "to ask the guest to announce itself"),
    VIRTIO_PROPS(struct vnet),
    { 0 },
};

static const struct state_field vnet_state[] = {
    STATE(struct vnet, pairs),
    STATE(struct vnet, guest_offloads),
    STATE_ARRAY(struct vnet, filter.mac),
    STATE(struct vnet, filter.promisc),
    STATE(struct vnet, filter.allmulti),
    STATE(struct vnet, filter.alluni),
    STATE(struct vnet, filter.nomulti),
    STATE(struct vnet, filter.nouni),
    STATE(struct vnet, filter.nobcast),
    STATE(struct vnet, filter.uni_all),
    STATE(struct vnet, filter.multi_all),
    STATE(struct vnet, filter.uni_count, .max = VNET_MAC_ENTRIES),
    STATE(struct vnet, filter.multi_count, .max = VNET_MAC_ENTRIES),
    STATE_ARRAY(struct vnet, filter.uni),
    STATE_ARRAY(struct vnet, filter.multi),
    STATE_ARRAY(struct vnet, filter.vlan),
    { 0 },
};

static const struct device_counter vnet_counters[] = {
    COUNTER(struct vnet, rx_frames, "Frames given to the guest"),
    COUNTER(struct vnet, rx_bytes, "Their bytes"),
    COUNTER(struct vnet, rx_filtered, "Frames that the guest did not want"),
    COUNTER(struct vnet, rx_no_buffers, "Times a frame had to wait for buffers"),
    COUNTER(struct vnet, rx_too_long, "Frames longer than the guest's buffers, dropped"),
    COUNTER(struct vnet, tx_frames, "Frames from the guest"),
    COUNTER(struct vnet, tx_bytes, "Their bytes"),
    COUNTER(struct vnet, tx_dropped, "Frames from the guest that were dropped"),
    COUNTER(struct vnet, tx_full, "Times the backend had no room"),
    COUNTER(struct vnet, commands, "Control commands"),
    COUNTER(struct vnet, bad_commands, "Control commands refused"),
    COUNTER(struct vnet, vhost_starts, "Times the backend was lent the rings"),
    COUNTER(struct vnet, vhost_lost, "Times it did not give them back itself"),
    COUNTER(struct vnet, vhost_errors, "Errors of a ring that it reported"),
    VIRTIO_COUNTERS(struct vnet),
    { 0 },
};

static const char *const vnet_aliases[] = { "virtio-net", NULL };

static const struct device_type vnet_type = {
    .name = "virtio-net-pci",
    .aliases = vnet_aliases,
    .summary = "Network interface",
    .spec = "VIRTIO 1.2, section 5.1",
    .bus = BUS_PCI,
    .size = sizeof(struct vnet),
    .props = vnet_props,
    .state = vnet_state,
    .counters = vnet_counters,
    .realize = vnet_realize,
    .reset = virtio_reset,
    .load_after = vnet_loaded,
    .log_writes = vnet_vhost_log,
    .log_harvest = vnet_vhost_harvest,
    .unrealize = vnet_unrealize,
};
DEVICE_TYPE(vnet_type);
