/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A tiny guest; see netdev_testing.h. */
#include "netdev/netdev_testing.h"

#include <netinet/in.h>
#include <string.h>

uint8_t guest_mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

ssize_t guest_receive(void *opaque, unsigned queue, const struct iovec *iov, unsigned count)
{
    struct guest *g = opaque;
    if (g->full || g->count == ARRAY_COUNT(g->frame))
        return 0;
    g->len[g->count] = iov_copy_out(iov, count, 0, g->frame[g->count], NETDEV_MAX_FRAME);
    return g->len[g->count++];
}

struct netdev *user_new(const struct netdev_option *options, size_t count, GError **error)
{
    struct netdev_config c = {options, count, NULL};
    return netdev_new("user", "net0", &c, error);
}

void guest_start(struct guest *g, const struct netdev_option *options, size_t count)
{
    GError *error = NULL;
    g->loop = loop_new("test");
    g->n = user_new(options, count, &error);
    g_assert_no_error(error);
    struct netdev_peer peer = {.receive = guest_receive, .opaque = g};
    g_assert_true(netdev_attach(g->n, &peer, &error));
    g_assert_cmpint(netdev_set_loop(g->n, g->loop), ==, 0);
    g_assert_true(g->n->ops->set_vnet_hdr(g->n, true));
    g->n->ops->set_offloads(g->n, NETDEV_CSUM);
}

void guest_stop(struct guest *g)
{
    netdev_free(g->n);
    loop_free(g->loop);
    g_free(g);
}

uint16_t plain_sum(const uint8_t *p, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i++)
        sum += i % 2 ? p[i] : p[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

void guest_send(struct guest *g, struct vnet_hdr h, uint8_t *frame, size_t len)
{
    struct iovec iov[] = {{&h, sizeof(h)}, {frame, 14}, {frame + 14, len - 14}};
    g_assert_cmpint(netdev_send(g->n, 0, iov, 3), ==, len + sizeof(h));
}

uint8_t *guest_wait(struct guest *g, bool (*match)(struct guest *g, const uint8_t *f, size_t len),
                    size_t *ret_len)
{
    static uint8_t found[NETDEV_MAX_FRAME];
    for (int rounds = 0; rounds < 400; rounds++) {
        for (unsigned i = 0; i < g->count; i++) {
            if (g->len[i] < 12 + 14 || !match(g, g->frame[i] + 12, g->len[i] - 12))
                continue;
            g_assert_cmpint(g->frame[i][0], ==, VNET_HDR_DATA_VALID);
            *ret_len = g->len[i] - 12;
            memcpy(found, g->frame[i] + 12, *ret_len);
            unsigned rest = g->count - i - 1;
            memmove(g->frame, g->frame[i + 1], rest * sizeof(g->frame[0]));
            memmove(g->len, g->len + i + 1, rest * sizeof(g->len[0]));
            g->count = rest;
            return found;
        }
        g->count = 0;
        netdev_receive_ready(g->n, 0);
        if (!g->count)
            loop_once(g->loop, 10);
    }
    return NULL;
}

size_t guest_ip_frame(struct guest *g, uint8_t *f, uint8_t proto, uint32_t to, size_t payload)
{
    memcpy(f, g->gateway_mac, 6);
    memcpy(f + 6, guest_mac, 6);
    put16(f + 12, 0x0800);
    uint8_t *ip = f + 14;
    memset(ip, 0, 20);
    ip[0] = 0x45;
    put16(ip + 2, 20 + payload);
    ip[8] = 64;
    ip[9] = proto;
    memcpy(ip + 12, &g->ip, 4);
    memcpy(ip + 16, &to, 4);
    put16(ip + 10, (uint16_t)~plain_sum(ip, 20, 0));
    return 34 + payload;
}

static bool is_dhcp_reply(struct guest *g, const uint8_t *f, size_t len)
{
    return len > 282 && get16(f + 12) == 0x0800 && f[23] == 17 && get16(f + 36) == 68;
}

void guest_dhcp(struct guest *g, uint8_t kind, uint8_t expect)
{
    uint8_t f[400] = {0}, *d = f + 42;
    memset(g->gateway_mac, 0xff, 6);
    g->ip = 0;
    size_t len = guest_ip_frame(g, f, 17, INADDR_BROADCAST, 8 + 260);
    put16(f + 34, 68);
    put16(f + 36, 67);
    put16(f + 38, 8 + 260);
    d[0] = d[1] = 1;
    d[2] = 6;
    memcpy(d + 28, guest_mac, 6);
    static const uint8_t options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255};
    memcpy(d + 236, options, sizeof(options));
    d[242] = kind;
    /* UDP's checksum is left to the device. */
    uint32_t pseudo = plain_sum(f + 26, 8, 17 + 268);
    put16(f + 40, pseudo);
    guest_send(g,
               (struct vnet_hdr){.flags = VNET_HDR_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6},
               f, len);
    uint8_t *r = guest_wait(g, is_dhcp_reply, &len);
    g_assert_nonnull(r);
    g_assert_cmpint(r[42 + 242], ==, expect);
    memcpy(&g->ip, r + 42 + 16, 4);
    memcpy(&g->server, r + 26, 4);
    memcpy(g->gateway_mac, r + 6, 6);
}

void tcp_send(struct tcp *t, uint8_t flags, const uint8_t *data, size_t data_len, bool segmented)
{
    static uint8_t f[NETDEV_MAX_FRAME];
    size_t len = guest_ip_frame(t->g, f, 6, t->to, 20 + data_len);
    uint8_t *tcp = f + 34;
    memset(tcp, 0, 20);
    put16(tcp, t->port);
    put16(tcp + 2, t->to_port);
    put32(tcp + 4, t->seq);
    put32(tcp + 8, t->ack);
    tcp[12] = 0x50;
    tcp[13] = flags;
    put16(tcp + 14, 65535);
    if (data_len)
        memcpy(tcp + 20, data, data_len);
    put16(tcp + 16, plain_sum(f + 26, 8, 6 + 20 + data_len));
    struct vnet_hdr h = {.flags = VNET_HDR_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};
    if (segmented) {
        h.gso_type = VNET_GSO_TCP4;
        h.gso_size = 1460;
        h.hdr_len = 54;
    }
    guest_send(t->g, h, f, len);
    t->seq += data_len + (flags & 3 ? 1 : 0);
}

static bool is_tcp(struct guest *g, const uint8_t *f, size_t len)
{
    return len >= 54 && get16(f + 12) == 0x0800 && f[23] == 6;
}

static bool is_arp_request(struct guest *g, const uint8_t *f, size_t len)
{
    return len >= 42 && get16(f + 12) == 0x0806 && f[21] == 1;
}

static bool is_arp_or_tcp(struct guest *g, const uint8_t *f, size_t len)
{
    return is_tcp(g, f, len) || is_arp_request(g, f, len);
}

static void answer_arp(struct guest *g, const uint8_t *q)
{
    uint8_t f[60] = {0};
    memcpy(f, q + 6, 6);
    memcpy(f + 6, guest_mac, 6);
    memcpy(f + 12, q + 12, 8);
    f[21] = 2;
    memcpy(f + 22, guest_mac, 6);
    memcpy(f + 28, &g->ip, 4);
    memcpy(f + 32, q + 22, 10);
    guest_send(g, (struct vnet_hdr){0}, f, sizeof(f));
}

uint8_t *tcp_wait(struct tcp *t, size_t *ret_data)
{
    for (int i = 0; i < 10; i++) {
        size_t len;
        uint8_t *f = guest_wait(t->g, is_arp_or_tcp, &len);
        g_assert_nonnull(f);
        if (!is_tcp(t->g, f, len)) {
            answer_arp(t->g, f);
            continue;
        }
        size_t total = get16(f + 16);
        g_assert_cmpuint(total + 14, <=, len);
        g_assert_cmphex(plain_sum(f + 14, 20, 0), ==, 0xffff);
        g_assert_cmphex(plain_sum(f + 34, total - 20, plain_sum(f + 26, 8, 6 + total - 20)), ==,
                        0xffff);
        *ret_data = total - 20 - (f[46] >> 4) * 4;
        return f + 34;
    }
    g_assert_not_reached();
}
