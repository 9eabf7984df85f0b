/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-net's control queue: receive filters, number of queues, offloads.
 *
 * Spec      VIRTIO 1.2, section 5.1.6.5.
 * Thread    The home loop, with the device's lock.
 * Trust     Commands are the guest's: cut ones and unknown ones get an error for an answer.
 */
#include "base/cursor.h"
#include "devices/virtio/net.h"

#include <string.h>

#define COMMAND_MAX (2 + 2 * (4 + 6 * VNET_MAC_ENTRIES))

/* --- filter --- */

void vnet_filter_reset(struct vnet *s)
{
    struct vnet_filter *f = &s->filter;
    uint8_t mac[6];
    memcpy(mac, s->mac, 6);
    *f = (struct vnet_filter){ .promisc = 1 };
    memcpy(f->mac, mac, 6);
    memset(f->vlan, 0xff, sizeof(f->vlan));
    memcpy(s->v.config, mac, 6);
}

static bool in_table(const uint8_t table[][6], unsigned count, const uint8_t *mac)
{
    for (unsigned i = 0; i < count; i++) {
        if (!memcmp(table[i], mac, 6))
            return true;
    }
    return false;
}

bool vnet_filter_passes(const struct vnet *s, const uint8_t *frame, size_t len)
{
    static const uint8_t broadcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    const struct vnet_filter *f = &s->filter;
    if (len >= 16 && frame[12] == 0x81 && frame[13] == 0x00) {
        unsigned vid = (frame[14] << 8 | frame[15]) & (VNET_VLANS - 1);
        if (!(f->vlan[vid / 64] >> (vid % 64) & 1))
            return false;
    }
    if (f->promisc)
        return true;
    if (!memcmp(frame, broadcast, 6))
        return !f->nobcast;
    if (frame[0] & 1)
        return !f->nomulti &&
               (f->allmulti || f->multi_all || in_table(f->multi, f->multi_count, frame));
    return !f->nouni && (f->alluni || f->uni_all || !memcmp(frame, f->mac, 6) ||
                         in_table(f->uni, f->uni_count, frame));
}

/* --- commands: true when obeyed --- */

static bool set_rx_mode(struct vnet *s, uint8_t command, struct cur *c)
{
    struct vnet_filter *f = &s->filter;
    uint8_t *const mode[] = { &f->promisc, &f->allmulti, &f->alluni,
                              &f->nomulti, &f->nouni,    &f->nobcast };
    uint8_t on = cur_u8(c);
    unsigned feature = command < 2 ? VIRTIO_NET_F_CTRL_RX : VIRTIO_NET_F_CTRL_RX_EXTRA;
    if (c->bad || command >= ARRAY_COUNT(mode) || !virtio_has(&s->v, feature))
        return false;
    *mode[command] = on != 0;
    return true;
}

static bool load_table(struct cur *c, uint8_t table[][6], uint16_t *ret_count, uint8_t *ret_all)
{
    uint32_t count = cur_le32(c);
    if (c->bad)
        return false;
    if (count > VNET_MAC_ENTRIES) {
        *ret_count = 0;
        *ret_all = 1;
        return cur_take(c, min_u64(count * 6ULL, c->left)) != NULL;
    }
    for (uint32_t i = 0; i < count; i++)
        cur_copy(c, table[i], 6);
    *ret_count = (uint16_t)count;
    *ret_all = 0;
    return !c->bad;
}

static bool set_mac(struct vnet *s, uint8_t command, struct cur *c)
{
    struct vnet_filter f = s->filter;
    if (command == VIRTIO_NET_CTRL_MAC_ADDR_SET) {
        cur_copy(c, f.mac, 6);
        if (c->bad || c->left || !virtio_has(&s->v, VIRTIO_NET_F_CTRL_MAC_ADDR))
            return false;
        memcpy(s->v.config, f.mac, 6);
    } else if (command != VIRTIO_NET_CTRL_MAC_TABLE_SET ||
               !virtio_has(&s->v, VIRTIO_NET_F_CTRL_RX) ||
               !load_table(c, f.uni, &f.uni_count, &f.uni_all)) {
        return false;
    } else if (f.uni_all && c->left < 4) {
        f.multi_all = 1; /* the command was longer than we read */
    } else if (!load_table(c, f.multi, &f.multi_count, &f.multi_all)) {
        return false;
    }
    s->filter = f;
    return true;
}

static bool set_vlan(struct vnet *s, uint8_t command, struct cur *c)
{
    uint16_t vid = cur_le16(c);
    if (c->bad || vid >= VNET_VLANS || command > VIRTIO_NET_CTRL_VLAN_DEL ||
        !virtio_has(&s->v, VIRTIO_NET_F_CTRL_VLAN))
        return false;
    uint64_t bit = 1ULL << (vid % 64), *word = &s->filter.vlan[vid / 64];
    *word = command == VIRTIO_NET_CTRL_VLAN_ADD ? *word | bit : *word & ~bit;
    return true;
}

static bool announce(struct vnet *s, uint8_t command, struct cur *c)
{
    if (command != VIRTIO_NET_CTRL_ANNOUNCE_ACK || !virtio_has(&s->v, VIRTIO_NET_F_GUEST_ANNOUNCE))
        return false;
    s->v.config[offsetof(struct virtio_net_config, status)] &= ~VIRTIO_NET_S_ANNOUNCE;
    return true;
}

static bool set_pairs(struct vnet *s, uint8_t command, struct cur *c)
{
    uint16_t pairs = cur_le16(c);
    if (c->bad || command != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || !pairs || pairs > s->max_pairs ||
        !virtio_has(&s->v, VIRTIO_NET_F_MQ))
        return false;
    s->pairs = pairs;
    for (unsigned i = 0; i < pairs; i++)
        virtio_kick(&s->v, 2 * i + 1);
    if (s->vhost)
        vnet_vhost_changed(s);
    return true;
}

static bool set_offloads(struct vnet *s, uint8_t command, struct cur *c)
{
    uint64_t offloads = cur_le64(c);
    if (c->bad || command != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
        !virtio_has(&s->v, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ||
        (offloads & ~(s->v.accepted & VNET_GUEST_OFFLOADS)))
        return false;
    s->guest_offloads = offloads;
    loop_post(s->v.pci.dev.loop, &s->apply);
    return true;
}

static bool (*const classes[])(struct vnet *s, uint8_t command, struct cur *c) = {
    [VIRTIO_NET_CTRL_RX] = set_rx_mode,       [VIRTIO_NET_CTRL_MAC] = set_mac,
    [VIRTIO_NET_CTRL_VLAN] = set_vlan,        [VIRTIO_NET_CTRL_ANNOUNCE] = announce,
    [VIRTIO_NET_CTRL_MQ] = set_pairs,         [VIRTIO_NET_CTRL_GUEST_OFFLOADS] = set_offloads,
};

void vnet_handle_ctrl(struct vnet *s, unsigned queue)
{
    struct vq *q = &s->v.queue[queue];
    struct vq_elem e = { .iov = s->iov, .gpa = s->gpa, .room = VNET_IOVS };
    for (unsigned budget = q->size; budget && virtio_pop(&s->v, queue, &e); budget--) {
        uint8_t text[COMMAND_MAX];
        size_t len = vq_copy_out(&e, 0, text, sizeof(text));
        struct cur c = cur_of(text, len);
        uint8_t class = cur_u8(&c), command = cur_u8(&c);
        bool ok = !c.bad && class < ARRAY_COUNT(classes) && classes[class](s, command, &c);
        s->commands++;
        s->bad_commands += !ok;
        uint8_t ack = ok ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
        if (!e.in_bytes) {
            virtio_broken(&s->v, "a network command without room for its answer");
            return;
        }
        vq_copy_in(&e, 0, &ack, 1);
        vq_push(q, &e, 1);
    }
    virtio_publish(&s->v, queue);
    virtio_rearm(&s->v, queue);
}
