/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What tests of backends share: a tiny guest with ARP, DHCP and TCP.
 *
 * Thread    The test's. What is not as it must be ends the test.
 */
#pragma once

#include "netdev/internal.h"

extern uint8_t guest_mac[6];

struct guest {
    struct loop *loop;
    struct netdev *n;
    uint8_t frame[64][NETDEV_MAX_FRAME];
    size_t len[64];
    unsigned count; /* frames received and not yet looked at */
    bool full;
    uint8_t gateway_mac[6];
    uint32_t ip, server; /* network order */
};

static inline void put16(uint8_t *p, unsigned v)
{
    p[0] = v >> 8;
    p[1] = v;
}

static inline unsigned get16(const uint8_t *p)
{
    return p[0] << 8 | p[1];
}

static inline void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}

static inline uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

struct netdev *user_new(const struct netdev_option *options, size_t count, GError **error);
/* On the network of a backend `user` of its own. */
void guest_start(struct guest *g, const struct netdev_option *options, size_t count);
void guest_stop(struct guest *g); /* frees it */
/* The operation `receive` of a guest. */
ssize_t guest_receive(void *opaque, unsigned queue, const struct iovec *iov, unsigned count);
void guest_send(struct guest *g, struct vnet_hdr h, uint8_t *frame, size_t len);
/* Waits for a frame that `match` takes; drops the others. Returns the frame without its vnet
 * header, or NULL. */
uint8_t *guest_wait(struct guest *g, bool (*match)(struct guest *g, const uint8_t *f, size_t len),
                    size_t *ret_len);
/* The sum of the Internet, the plain way, to check the fast one. */
uint16_t plain_sum(const uint8_t *p, size_t len, uint32_t sum);
/* Headers of a frame of IPv4; its length. */
size_t guest_ip_frame(struct guest *g, uint8_t *f, uint8_t proto, uint32_t to, size_t payload);
/* Asks with `kind`, and wants an answer of the kind `expect`. */
void guest_dhcp(struct guest *g, uint8_t kind, uint8_t expect);

struct tcp {
    struct guest *g;
    uint32_t to, seq, ack;
    uint16_t port, to_port;
};

void tcp_send(struct tcp *t, uint8_t flags, const uint8_t *data, size_t data_len, bool segmented);
/* The next TCP frame; ARP questions are answered on the way. Its checksums are checked. */
uint8_t *tcp_wait(struct tcp *t, size_t *ret_data);
