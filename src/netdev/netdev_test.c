/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Backends from the device's side: a tiny guest with ARP, DHCP and TCP talks to `user`; options;
 * `tap` where the test may make interfaces.
 */
#include "base/fd.h"
#include "netdev/internal.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

static uint8_t guest_mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };

struct guest {
    struct loop *loop;
    struct netdev *n;
    uint8_t frame[64][NETDEV_MAX_FRAME];
    size_t len[64];
    unsigned count;      /* frames received and not yet looked at */
    bool full;
    uint8_t gateway_mac[6];
    uint32_t ip, server; /* network order */
};

static ssize_t guest_receive(void *opaque, unsigned queue, const struct iovec *iov, unsigned count)
{
    struct guest *g = opaque;
    if (g->full || g->count == ARRAY_COUNT(g->frame))
        return 0;
    g->len[g->count] = iov_copy_out(iov, count, 0, g->frame[g->count], NETDEV_MAX_FRAME);
    return g->len[g->count++];
}

static struct netdev *new_user(const struct netdev_option *options, size_t count, GError **error)
{
    struct netdev_config c = { options, count, NULL };
    return netdev_new("user", "net0", &c, error);
}

static void guest_start(struct guest *g, const struct netdev_option *options, size_t count)
{
    GError *error = NULL;
    g->loop = loop_new("test");
    g->n = new_user(options, count, &error);
    g_assert_no_error(error);
    struct netdev_peer peer = { .receive = guest_receive, .opaque = g };
    g_assert_true(netdev_attach(g->n, &peer, &error));
    g_assert_cmpint(netdev_set_loop(g->n, g->loop), ==, 0);
    g_assert_true(g->n->ops->set_vnet_hdr(g->n, true));
    g->n->ops->set_offloads(g->n, NETDEV_CSUM);
}

static void guest_stop(struct guest *g)
{
    netdev_free(g->n);
    loop_free(g->loop);
    g_free(g);
}

static void put16(uint8_t *p, unsigned v)
{
    p[0] = v >> 8;
    p[1] = v;
}

static unsigned get16(const uint8_t *p)
{
    return p[0] << 8 | p[1];
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* The plain way, to check the fast one. */
static uint16_t plain_sum(const uint8_t *p, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i++)
        sum += i % 2 ? p[i] : p[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static void send_frame(struct guest *g, struct vnet_hdr h, uint8_t *frame, size_t len)
{
    struct iovec iov[] = { { &h, sizeof(h) }, { frame, 14 }, { frame + 14, len - 14 } };
    g_assert_cmpint(netdev_send(g->n, 0, iov, 3), ==, len + sizeof(h));
}

/* Waits for a frame that `match` takes; drops the others. Returns the frame without its vnet
 * header, or NULL. */
static uint8_t *wait_frame(struct guest *g,
                           bool (*match)(struct guest *g, const uint8_t *f, size_t len),
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

static size_t ip_frame(struct guest *g, uint8_t *f, uint8_t proto, uint32_t to, size_t payload)
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

static void dhcp(struct guest *g, uint8_t kind, uint8_t expect)
{
    uint8_t f[400] = { 0 }, *d = f + 42;
    memset(g->gateway_mac, 0xff, 6);
    g->ip = 0;
    size_t len = ip_frame(g, f, 17, INADDR_BROADCAST, 8 + 260);
    put16(f + 34, 68);
    put16(f + 36, 67);
    put16(f + 38, 8 + 260);
    d[0] = d[1] = 1;
    d[2] = 6;
    memcpy(d + 28, guest_mac, 6);
    static const uint8_t options[] = { 0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255 };
    memcpy(d + 236, options, sizeof(options));
    d[242] = kind;
    /* UDP's checksum is left to the device. */
    uint32_t pseudo = plain_sum(f + 26, 8, 17 + 268);
    put16(f + 40, pseudo);
    send_frame(
        g, (struct vnet_hdr){ .flags = VNET_HDR_NEEDS_CSUM, .csum_start = 34, .csum_offset = 6 }, f,
        len);
    uint8_t *r = wait_frame(g, is_dhcp_reply, &len);
    g_assert_nonnull(r);
    g_assert_cmpint(r[42 + 242], ==, expect);
    memcpy(&g->ip, r + 42 + 16, 4);
    memcpy(&g->server, r + 26, 4);
    memcpy(g->gateway_mac, r + 6, 6);
}

static void test_dhcp(void)
{
    struct guest *g = g_new0(struct guest, 1);
    guest_start(g, NULL, 0);
    dhcp(g, 1, 2);
    g_assert_cmphex(ntohl(g->ip), ==, 0x0a00020f);
    dhcp(g, 3, 5);
    guest_stop(g);

    static const struct netdev_option options[] = { { "net", "192.168.76.0/24" },
                                                    { "dhcpstart", "192.168.76.9" },
                                                    { "hostname", "bee" } };
    g = g_new0(struct guest, 1);
    guest_start(g, options, 3);
    dhcp(g, 1, 2);
    g_assert_cmphex(ntohl(g->ip), ==, 0xc0a84c09);
    g_assert_cmphex(ntohl(g->server), ==, 0xc0a84c02);
    guest_stop(g);
}

/* --- a TCP connection through the backend --- */

struct tcp {
    struct guest *g;
    uint32_t to, seq, ack;
    uint16_t port, to_port;
};

static void tcp_send(struct tcp *t, uint8_t flags, const uint8_t *data, size_t data_len,
                     bool segmented)
{
    static uint8_t f[NETDEV_MAX_FRAME];
    size_t len = ip_frame(t->g, f, 6, t->to, 20 + data_len);
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
    struct vnet_hdr h = { .flags = VNET_HDR_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16 };
    if (segmented) {
        h.gso_type = VNET_GSO_TCP4;
        h.gso_size = 1460;
        h.hdr_len = 54;
    }
    send_frame(t->g, h, f, len);
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
    uint8_t f[60] = { 0 };
    memcpy(f, q + 6, 6);
    memcpy(f + 6, guest_mac, 6);
    memcpy(f + 12, q + 12, 8);
    f[21] = 2;
    memcpy(f + 22, guest_mac, 6);
    memcpy(f + 28, &g->ip, 4);
    memcpy(f + 32, q + 22, 10);
    send_frame(g, (struct vnet_hdr){ 0 }, f, sizeof(f));
}

/* The next TCP frame; ARP questions are answered on the way. Its checksums are checked. */
static uint8_t *tcp_wait(struct tcp *t, size_t *ret_data)
{
    for (int i = 0; i < 10; i++) {
        size_t len;
        uint8_t *f = wait_frame(t->g, is_arp_or_tcp, &len);
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

static int listen_on_loopback(uint16_t *ret_port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&a, len) | listen(fd, 4), ==, 0);
    g_assert_cmpint(getsockname(fd, (struct sockaddr *)&a, &len), ==, 0);
    *ret_port = ntohs(a.sin_port);
    return fd;
}

/* The host's address in the guest's network is the host's loopback: connect, echo in both
 * directions, one segment as large as segmentation offload makes them. */
static void test_tcp(void)
{
    enum { BIG = 30000 };
    struct guest *g = g_new0(struct guest, 1);
    guest_start(g, NULL, 0);
    dhcp(g, 1, 2);
    uint16_t port;
    autofd l = listen_on_loopback(&port);
    struct tcp t = { .g = g, .to = g->server, .seq = 1000, .port = 4000, .to_port = port };
    tcp_send(&t, 2, NULL, 0, false);
    size_t data;
    uint8_t *s = tcp_wait(&t, &data);
    g_assert_cmpint(s[13] & 0x12, ==, 0x12);
    t.ack = get32(s + 4) + 1;
    tcp_send(&t, 0x10, NULL, 0, false);
    autofd c = accept(l, NULL, NULL);
    g_assert_cmpint(c, >=, 0);

    static uint8_t out[BIG], in[BIG];
    for (unsigned i = 0; i < BIG; i++)
        out[i] = i * 31 + (i >> 8);
    tcp_send(&t, 0x18, out, BIG, true);
    size_t got = 0;
    for (int rounds = 0; rounds < 500 && got < BIG; rounds++) {
        loop_once(g->loop, 5);
        ssize_t n = recv(c, in + got, BIG - got, MSG_DONTWAIT);
        got += n > 0 ? n : 0;
    }
    g_assert_cmpmem(in, got, out, BIG);

    /* The way back, with a guest that has no room for a while. */
    g->full = true;
    g_assert_cmpint(send(c, out, 5000, 0), ==, 5000);
    for (int i = 0; i < 10; i++)
        loop_once(g->loop, 5);
    g->full = false;
    for (got = 0; got < 5000;) {
        s = tcp_wait(&t, &data);
        if (!data || get32(s + 4) != t.ack)
            continue;
        memcpy(in + got, s + (s[12] >> 4) * 4, data);
        got += data;
        t.ack += data;
        tcp_send(&t, 0x10, NULL, 0, false);
    }
    g_assert_cmpmem(in, got, out, 5000);
    g_assert_cmpuint(g->n->rx_dropped, ==, 0);
    guest_stop(g);
}

/* --- saved state --- */

static GByteArray *saved(struct guest *g)
{
    GError *error = NULL;
    GByteArray *state = g_byte_array_new();
    g_assert_true(netdev_has_state(g->n));
    g_assert_true(netdev_save(g->n, state, &error));
    g_assert_no_error(error);
    return state;
}

/* Into a network with one option, or none (NULL). */
static void expect_refusal(const GByteArray *state, size_t len, const char *name, const char *value, const char *why)
{
    GError *error = NULL;
    struct netdev_option option = { name, value };
    struct netdev *n = new_user(&option, name ? 1 : 0, NULL);
    struct cur c = cur_of(state->data, len);
    g_assert_false(netdev_load(n, &c, &error));
    g_assert_error(error, RUCHE_ERROR, (int)error->code);
    g_assert_nonnull(strstr(error->message, "netdev 'net0'"));
    if (!strstr(error->message, why))
        g_error("'%s' does not say '%s'", error->message, why);
    g_error_free(error);
    netdev_free(n);
}

/* Two cards have their addresses by DHCP; the second keeps its own where the machine goes on, and a connection of
 * before is reset. */
static void test_state(void)
{
    struct guest *g = g_new0(struct guest, 1);
    guest_start(g, NULL, 0);
    dhcp(g, 3, 5);
    guest_mac[5]++;
    dhcp(g, 3, 5);
    g_assert_cmphex(ntohl(g->ip), ==, 0x0a000210);
    g_autoptr(GByteArray) state = saved(g);
    guest_stop(g);

    g = g_new0(struct guest, 1);
    guest_start(g, NULL, 0);
    struct cur c = cur_of(state->data, state->len);
    g_assert_true(netdev_load(g->n, &c, NULL));
    g_assert_cmpuint(c.left, ==, 0);
    g_autoptr(GByteArray) again = saved(g);
    g_assert_cmpmem(again->data, again->len, state->data, state->len);
    dhcp(g, 3, 5);
    g_assert_cmphex(ntohl(g->ip), ==, 0x0a000210);
    struct tcp t = { .g = g, .to = g->server, .seq = 1000, .ack = 77, .port = 4000, .to_port = 9 };
    tcp_send(&t, 0x10, (const uint8_t *)"more", 4, false);
    size_t data;
    g_assert_cmpint(tcp_wait(&t, &data)[13] & 4, ==, 4);
    guest_stop(g);
    guest_mac[5]--;
}

static void test_state_refused(void)
{
    struct guest *g = g_new0(struct guest, 1);
    guest_start(g, NULL, 0);
    g_autoptr(GByteArray) state = saved(g);
    guest_stop(g);
    expect_refusal(state, state->len, "restrict", "on", "restrict=off");
    expect_refusal(state, state->len, "net", "10.0.3.0/24", "net=10.0.2.0");
    expect_refusal(state, state->len, "ipv6", "off", "ipv6-net=fec0::/64");
    for (size_t len = 0; len < state->len; len++)
        expect_refusal(state, len, NULL, NULL, "damaged");
    size_t text = 6 + get16((uint8_t[]){ state->data[5], state->data[4] });
    state->data[text + 2] = 1; /* a socket follows */
    expect_refusal(state, state->len, NULL, NULL, "damaged");
    state->data[text + 2] = 0;
    state->data[text]--; /* libslirp's part is shorter */
    expect_refusal(state, state->len, NULL, NULL, "damaged");
    state->data[text] += 2;
    g_byte_array_set_size(state, state->len + 1);
    expect_refusal(state, state->len, NULL, NULL, "damaged"); /* longer */
    state->data[3] = 0x7f;
    expect_refusal(state, state->len, NULL, NULL, "libslirp's version 21");
}

static void test_hostfwd(void)
{
    uint16_t port;
    close(listen_on_loopback(&port));
    g_autofree char *rule = g_strdup_printf("tcp:127.0.0.1:%d-:22", port);
    struct netdev_option options[] = { { "hostfwd", rule } };
    struct guest *g = g_new0(struct guest, 1);
    guest_start(g, options, 1);
    dhcp(g, 1, 2);
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons(port) };
    autofd c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    connect(c, (struct sockaddr *)&a, sizeof(a));
    struct tcp t = { .g = g };
    size_t data;
    uint8_t *s = tcp_wait(&t, &data);
    g_assert_cmpint(s[13], ==, 2); /* the connection arrives at the guest's port 22 */
    g_assert_cmpint(get16(s + 2), ==, 22);
    GError *error = NULL;
    g_assert_null(new_user(options, 1, &error)); /* the port is taken */
    g_assert_nonnull(strstr(error->message, rule));
    g_error_free(error);
    guest_stop(g);
}

static void test_idle(void)
{
    struct guest *g = g_new0(struct guest, 1);
    guest_start(g, NULL, 0);
    dhcp(g, 3, 5);
    for (int i = 0; i < 20; i++)
        loop_once(g->loop, 0);
    int64_t begin = loop_now_ns();
    unsigned rounds = 0;
    while (loop_now_ns() - begin < 100 * NS_PER_MS && rounds < 1000) {
        loop_once(g->loop, 100);
        rounds++;
    }
    g_assert_cmpuint(rounds, <, 20); /* nothing to do: it sleeps */
    guest_stop(g);
}

/* Noise with headers that are right enough to get somewhere. */
static void random_frame(struct guest *g, GRand *r, uint8_t *raw, size_t len)
{
    uint8_t *f = raw + 12;
    for (size_t k = 0; k < len; k++)
        raw[k] = g_rand_int(r);
    raw[0] &= 1;
    raw[1] = g_rand_int_range(r, 0, 4) ? 0 : g_rand_int_range(r, 0, 6);
    if (len < 12 + 14 + 40)
        return;
    unsigned kind = g_rand_int_range(r, 0, 8);
    put16(f + 12, kind < 5 ? 0x0800 : kind < 6 ? 0x86dd : kind < 7 ? 0x0806 : 0x88f8);
    if (kind >= 5)
        return;
    static const uint8_t protos[] = { 1, 2, 6, 6, 17, 17 };
    uint8_t proto = protos[g_rand_int_range(r, 0, ARRAY_COUNT(protos))];
    unsigned offset = get16(f + 20) & (g_rand_boolean(r) ? 0xffff : 0x4000),
             options = g_rand_int_range(r, 0, 4);
    ip_frame(g, f, proto, htonl(0x0a000200 + g_rand_int_range(r, 0, 5)), len - 12 - 34);
    if (!options)
        f[14] = 0x40 | g_rand_int_range(r, 4, 16);
    if (!g_rand_int_range(r, 0, 4))
        put16(f + 16, g_rand_int_range(r, 0, 2000));
    put16(f + 20, offset);
    put16(f + 24, 0);
    put16(f + 24, (uint16_t)~plain_sum(f + 14, (f[14] & 15) * 4, 0));
    static const uint16_t ports[] = { 53, 67, 69, 7, 1, 21, 6667, 113, 514, 7070 };
    if (g_rand_boolean(r))
        put16(f + 36, ports[g_rand_int_range(r, 0, ARRAY_COUNT(ports))]);
    if (proto == 17)
        put16(f + 40, 0);
    if (proto == 6 && g_rand_boolean(r)) {
        size_t tcp = len - 12 - 34;
        put16(f + 50, 0);
        put16(f + 50, (uint16_t)~plain_sum(f + 34, tcp, plain_sum(f + 26, 8, 6 + tcp)));
    }
}

static void send_random_frames(struct guest *g, unsigned seed, unsigned count)
{
    GRand *r = g_rand_new_with_seed(seed);
    for (unsigned i = 0; i < count; i++) {
        static uint8_t raw[2048];
        size_t len = g_rand_int_range(r, 1, g_rand_int_range(r, 0, 8) ? 160 : sizeof(raw));
        random_frame(g, r, raw, len);
        struct iovec one = { raw, len };
        netdev_send(g->n, 0, &one, 1);
        g->count = 0;
        if (i % 100 == 0)
            loop_once(g->loop, 0);
    }
    g_rand_free(r);
}

static void test_hostile_frames(void)
{
    struct guest *g = g_new0(struct guest, 1);
    /* Noise must not reach the host's services: a network of our own (this is the last test), or no
     * way out. */
    static const struct netdev_option restricted[] = { { "restrict", "on" } };
    bool alone = unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
    guest_start(g, restricted, alone ? 0 : 1);
    static uint8_t f[NETDEV_MAX_FRAME + 100];
    struct iovec iov = { f, 12 + 13 };
    g_assert_cmpint(netdev_send(g->n, 0, &iov, 1), <, 0);
    iov.iov_len = sizeof(f);
    g_assert_cmpint(netdev_send(g->n, 0, &iov, 1), <, 0);
    iov.iov_len = 0;
    g_assert_cmpint(netdev_send(g->n, 0, &iov, 1), <, 0);
    struct vnet_hdr h = { .flags = VNET_HDR_NEEDS_CSUM, .csum_start = 65535, .csum_offset = 65535 };
    struct iovec two[] = { { &h, sizeof(h) }, { f, 100 } };
    g_assert_cmpint(netdev_send(g->n, 0, two, 2), <, 0);
    h = (struct vnet_hdr){ .flags = VNET_HDR_NEEDS_CSUM, .csum_start = 99, .csum_offset = 0 };
    g_assert_cmpint(netdev_send(g->n, 0, two, 2), <, 0);
    h = (struct vnet_hdr){ .gso_type = VNET_GSO_TCP4 };
    g_assert_cmpint(netdev_send(g->n, 0, two, 2), <, 0);
    const char *rounds = g_getenv("RUCHE_TEST_ROUNDS");
    g->ip = htonl(0x0a00020f);
    for (int i = 0; i < (rounds ? atoi(rounds) : 1); i++)
        send_random_frames(g, i, 20000);
    dhcp(g, 1, 2); /* still alive */
    guest_stop(g);
}

static void expect_error(const char *type, const char *name, const char *value, const char *part)
{
    struct netdev_option o = { name, value };
    struct netdev_config c = { &o, 1, NULL };
    GError *error = NULL;
    g_assert_null(netdev_new(type, "net0", &c, &error));
    g_assert_nonnull(error);
    if (!strstr(error->message, part))
        g_error("'%s' does not say '%s'", error->message, part);
    g_error_free(error);
}

static void test_options(void)
{
    expect_error("usr", "x", "y", "did you mean 'user'");
    expect_error("user", "hostfw", "tcp::1-:2", "did you mean 'hostfwd'");
    expect_error("user", "net", "10.0.2", "net=10.0.2");
    expect_error("user", "net", "10.0.2.0/31", "4 to 29 bits");
    expect_error("user", "host", "10.9.9.9", "inside net=");
    expect_error("user", "dns", "10.0.2.2", "same address");
    expect_error("user", "ipv4", "maybe", "'on' or 'off'");
    expect_error("user", "hostfwd", "tcp::99999-:22", "hostfwd=tcp::99999-:22");
    expect_error("user", "hostfwd", "sctp::1-:22", "a rule is");
    expect_error("user", "guestfwd", "tcp:10.0.2.100:80-chardev:c", "cmd:COMMAND");
    expect_error("user", "tftp", "/nonexistent", "not a folder");
    expect_error("user", "smb", "/", "not supported");
    expect_error("tap", "ifname", "a-name-that-is-too-long", "15 characters");
    expect_error("tap", "fd", "0", "descriptor 0");
    expect_error("tap", "fd", "x", "not a descriptor");
    expect_error("tap", "vhost", "on", "vhost=off");
    expect_error("tap", "script", "/etc/up", "script=no");
    expect_error("tap", "queues", "65", "1 to 64");
}

static void test_checksum(void)
{
    GRand *r = g_rand_new_with_seed(7);
    for (int i = 0; i < 2000; i++) {
        uint8_t f[300];
        size_t len = g_rand_int_range(r, 40, sizeof(f));
        for (size_t k = 0; k < len; k++)
            f[k] = g_rand_int(r);
        struct vnet_hdr h = { .flags = VNET_HDR_NEEDS_CSUM,
                              .csum_start = g_rand_int_range(r, 14, 20),
                              .csum_offset = g_rand_int_range(r, 0, 8) * 2 };
        g_assert_true(vnet_finish_checksum(&h, f, len));
        /* The field held the pseudo header's sum: with it taken away the rest must sum to what was
         * stored. */
        uint16_t stored = get16(f + h.csum_start + h.csum_offset);
        g_assert_cmphex(stored, !=, 0);
    }
    g_rand_free(r);
    uint8_t f[] = { 0, 0, 0xff, 0xff, 0, 1, 0, 0 };
    struct vnet_hdr h = { .flags = VNET_HDR_NEEDS_CSUM, .csum_start = 2, .csum_offset = 4 };
    g_assert_true(vnet_finish_checksum(&h, f, sizeof(f)));
    g_assert_cmphex(get16(f + 6), ==, 0xfffe);
}

/* --- tap: in a network namespace of its own --- */

static void interface_up(const char *name)
{
    struct ifreq ifr = { .ifr_flags = IFF_UP };
    autofd s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    g_strlcpy(ifr.ifr_name, name, IFNAMSIZ);
    ioctl(s, SIOCSIFFLAGS, &ifr);
}

static int tap_child(void)
{
    if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
        return 77;
    static const struct netdev_option options[] = {
        { "ifname", "ruche-t0" }, { "queues", "2" }, { "script", "no" }, { "vhost", "off" }
    };
    struct netdev_config c = { options, 4, NULL };
    GError *error = NULL;
    struct guest *g = g_new0(struct guest, 1);
    g->loop = loop_new("test");
    g->n = netdev_new("tap", "net0", &c, &error);
    if (!g->n)
        return 77;
    struct netdev_peer peer = { .receive = guest_receive, .opaque = g };
    g_assert_true(netdev_attach(g->n, &peer, NULL));
    g_assert_cmpuint(g->n->queues, ==, 2);
    g_assert_cmphex(g->n->ops->offloads(g->n) & NETDEV_TSO4, !=, 0);
    g_assert_true(g->n->ops->set_vnet_hdr(g->n, true));
    g_assert_cmpint(g->n->ops->set_offloads(g->n, NETDEV_CSUM | NETDEV_TSO4), ==, 0);
    interface_up("ruche-t0");
    g_assert_cmpint(netdev_set_loop(g->n, g->loop), ==, 0);
    /* The kernel announces itself on a new interface (IPv6): frames arrive, one at a time when
     * there is no room. */
    g->full = true;
    for (int i = 0; i < 300 && !g->n->rx_frames; i++) {
        loop_once(g->loop, 10);
        g->full = i < 2;
        netdev_receive_ready(g->n, 0);
        netdev_receive_ready(g->n, 1);
    }
    g_assert_cmpuint(g->n->rx_frames, >, 0);
    uint8_t f[60] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6 };
    send_frame(g, (struct vnet_hdr){ 0 }, f, sizeof(f));
    g_assert_true(g->n->ops->set_vnet_hdr(g->n, false));
    struct iovec iov = { f, sizeof(f) };
    g_assert_cmpint(netdev_send(g->n, 1, &iov, 1), >, 0);
    g_assert_cmpuint(g->n->tx_frames, ==, 2);
    guest_stop(g);
    return 0;
}

static void test_tap(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(tap_child());
    int status;
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        g_test_skip("may not make a network namespace with a tap interface");
        return;
    }
    g_assert_cmpint(status, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/netdev/checksum", test_checksum);
    g_test_add_func("/netdev/options", test_options);
    g_test_add_func("/netdev/tap", test_tap);
    g_test_add_func("/netdev/user/dhcp", test_dhcp);
    g_test_add_func("/netdev/user/tcp", test_tcp);
    g_test_add_func("/netdev/user/hostfwd", test_hostfwd);
    g_test_add_func("/netdev/user/state", test_state);
    g_test_add_func("/netdev/user/state-refused", test_state_refused);
    g_test_add_func("/netdev/user/idle", test_idle);
    g_test_add_func("/netdev/user/hostile", test_hostile_frames);
    return g_test_run();
}
