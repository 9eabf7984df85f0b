/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside virtio-net-pci: the device, and what its control queue sets. */
#pragma once

#include "devices/virtio/virtio.h"
#include "netdev/netdev.h"

#include <linux/virtio_net.h>

#define VNET_MAX_PAIRS 32
#define VNET_MAC_ENTRIES 64
#define VNET_VLANS 4096
#define VNET_BUFFERS 256 /* of one received frame */
#define VNET_IOVS 1024

/* Which frames the guest wants. */
struct vnet_filter {
    uint8_t mac[6];
    uint8_t promisc, allmulti, alluni, nomulti, nouni, nobcast;
    uint8_t uni_all, multi_all;          /* the driver's table did not fit: all pass */
    uint16_t uni_count, multi_count;
    uint8_t uni[VNET_MAC_ENTRIES][6], multi[VNET_MAC_ENTRIES][6];
    uint64_t vlan[VNET_VLANS / 64];      /* a bit for each that passes */
};

struct vnet {
    VIRTIO_BASE;
    char *netdev_id, *tx_mode, *duplex;
    uint8_t mac[6];                      /* of the property; zero: made up */
    uint16_t rx_queue_size, tx_queue_size, host_mtu;
    int32_t bootindex, speed;
    bool mq, mrg_rxbuf, csum, guest_csum, gso, host_tso4, host_tso6, host_ecn, guest_tso4,
        guest_tso6, guest_ecn, status, ctrl_vq, ctrl_rx, ctrl_rx_extra, ctrl_vlan, ctrl_mac_addr,
        ctrl_guest_offloads, guest_announce;
    struct netdev *netdev;               /* borrowed; NULL: nothing is connected */
    struct vnet_vhost *vhost;            /* NULL: frames pass through this process */
    bool vnet_hdr;                       /* frames carry the header to the backend */
    bool on_loop;
    unsigned max_pairs;
    /* What the guest sees. */
    uint16_t pairs;                      /* in use */
    uint64_t guest_offloads;             /* feature bits in force */
    struct vnet_filter filter;
    /* Run time. */
    struct loop_task apply;              /* the backend is told of guest_offloads on its loop */
    bool rx_waiting[VNET_MAX_PAIRS];     /* a frame found no buffers */
    struct vq_elem elem[VNET_BUFFERS];   /* chains in hand, sharing the pool */
    struct iovec iov[VNET_IOVS];
    uint64_t gpa[VNET_IOVS];
    uint64_t rx_frames, rx_bytes, rx_filtered, rx_no_buffers, rx_too_long, tx_frames, tx_bytes,
        tx_dropped;
    uint64_t tx_full, commands, bad_commands, vhost_starts, vhost_lost, vhost_errors;
};

/* net_vhost.c: the rings of frames lent to the backend. */
bool vnet_vhost_new(struct vnet *s, GError **error); /* after netdev is set */
void vnet_vhost_begin(struct vnet *s); /* all is offered that could be */
void vnet_vhost_free(struct vnet *s);
/* Something changed that decides whether, or how, the rings are lent. Any thread. */
void vnet_vhost_changed(struct vnet *s);
void vnet_vhost_drain(struct virtio *v);
void vnet_vhost_stopped(struct virtio *v, bool stopped);
/* What can be offered by what is at the other end. Lock held. */
void vnet_vhost_offer(struct vnet *s);
bool vnet_vhost_ready(const struct vnet *s);
void vnet_vhost_announce(struct vnet *s); /* the guest is at another place of the network now */
bool vnet_vhost_log(struct device *d, bool on, GError **error);
void vnet_vhost_harvest(struct device *d);

/* net_frames.c: the backend's calls, and kicks of a pair's or a queue of frames (lock held). */
ssize_t vnet_receive(void *opaque, unsigned pair, const struct iovec *iov, unsigned iov_count);
void vnet_send_ready(void *opaque, unsigned pair);
void vnet_handle_rx(struct vnet *s, unsigned pair);
void vnet_handle_tx(struct vnet *s, unsigned queue);

/* net_ctrl.c */
void vnet_filter_reset(struct vnet *s);
bool vnet_filter_passes(const struct vnet *s, const uint8_t *frame, size_t len);
void vnet_handle_ctrl(struct vnet *s, unsigned queue);
#define VNET_GUEST_OFFLOADS                                                                        \
    (VIRTIO_F(VIRTIO_NET_F_GUEST_CSUM) | VIRTIO_F(VIRTIO_NET_F_GUEST_TSO4) |                       \
     VIRTIO_F(VIRTIO_NET_F_GUEST_TSO6) | VIRTIO_F(VIRTIO_NET_F_GUEST_ECN))
