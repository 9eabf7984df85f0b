/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The backend `user` from the device's side. */
#include "base/fd.h"
#include "netdev/netdev_testing.h"

#include <arpa/inet.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static void test_dhcp(void)
{
    struct guest *g = g_new0(struct guest, 1);
    guest_start(g, NULL, 0);
    guest_dhcp(g, 1, 2);
    g_assert_cmphex(ntohl(g->ip), ==, 0x0a00020f);
    guest_dhcp(g, 3, 5);
    guest_stop(g);

    static const struct netdev_option options[] = {
        {"net", "192.168.76.0/24"}, {"dhcpstart", "192.168.76.9"}, {"hostname", "bee"}};
    g = g_new0(struct guest, 1);
    guest_start(g, options, 3);
    guest_dhcp(g, 1, 2);
    g_assert_cmphex(ntohl(g->ip), ==, 0xc0a84c09);
    g_assert_cmphex(ntohl(g->server), ==, 0xc0a84c02);
    guest_stop(g);
}

static int listen_on_loopback(uint16_t *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
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
    guest_dhcp(g, 1, 2);
    uint16_t port;
    autofd l = listen_on_loopback(&port);
    struct tcp t = {.g = g, .to = g->server, .seq = 1000, .port = 4000, .to_port = port};
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
static void expect_refusal(const GByteArray *state, size_t len, const char *name, const char *value,
                           const char *why)
{
    GError *error = NULL;
    struct netdev_option option = {name, value};
    struct netdev *n = user_new(&option, name ? 1 : 0, NULL);
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
    guest_dhcp(g, 3, 5);
    guest_mac[5]++;
    guest_dhcp(g, 3, 5);
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
    guest_dhcp(g, 3, 5);
    g_assert_cmphex(ntohl(g->ip), ==, 0x0a000210);
    struct tcp t = {.g = g, .to = g->server, .seq = 1000, .ack = 77, .port = 4000, .to_port = 9};
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
    size_t text = 6 + get16((uint8_t[]){state->data[5], state->data[4]});
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
    struct netdev_option options[] = {{"hostfwd", rule}};
    struct guest *g = g_new0(struct guest, 1);
    guest_start(g, options, 1);
    guest_dhcp(g, 1, 2);
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    autofd c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    connect(c, (struct sockaddr *)&a, sizeof(a));
    struct tcp t = {.g = g};
    size_t data;
    uint8_t *s = tcp_wait(&t, &data);
    g_assert_cmpint(s[13], ==, 2); /* the connection arrives at the guest's port 22 */
    g_assert_cmpint(get16(s + 2), ==, 22);
    GError *error = NULL;
    g_assert_null(user_new(options, 1, &error)); /* the port is taken */
    g_assert_nonnull(strstr(error->message, rule));
    g_error_free(error);
    guest_stop(g);
}

static void test_idle(void)
{
    struct guest *g = g_new0(struct guest, 1);
    guest_start(g, NULL, 0);
    guest_dhcp(g, 3, 5);
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
    static const uint8_t protos[] = {1, 2, 6, 6, 17, 17};
    uint8_t proto = protos[g_rand_int_range(r, 0, ARRAY_COUNT(protos))];
    unsigned offset = get16(f + 20) & (g_rand_boolean(r) ? 0xffff : 0x4000),
             options = g_rand_int_range(r, 0, 4);
    guest_ip_frame(g, f, proto, htonl(0x0a000200 + g_rand_int_range(r, 0, 5)), len - 12 - 34);
    if (!options)
        f[14] = 0x40 | g_rand_int_range(r, 4, 16);
    if (!g_rand_int_range(r, 0, 4))
        put16(f + 16, g_rand_int_range(r, 0, 2000));
    put16(f + 20, offset);
    put16(f + 24, 0);
    put16(f + 24, (uint16_t)~plain_sum(f + 14, (f[14] & 15) * 4, 0));
    static const uint16_t ports[] = {53, 67, 69, 7, 1, 21, 6667, 113, 514, 7070};
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
        struct iovec one = {raw, len};
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
    static const struct netdev_option restricted[] = {{"restrict", "on"}};
    bool alone = unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
    guest_start(g, restricted, alone ? 0 : 1);
    static uint8_t f[NETDEV_MAX_FRAME + 100];
    struct iovec iov = {f, 12 + 13};
    g_assert_cmpint(netdev_send(g->n, 0, &iov, 1), <, 0);
    iov.iov_len = sizeof(f);
    g_assert_cmpint(netdev_send(g->n, 0, &iov, 1), <, 0);
    iov.iov_len = 0;
    g_assert_cmpint(netdev_send(g->n, 0, &iov, 1), <, 0);
    struct vnet_hdr h = {.flags = VNET_HDR_NEEDS_CSUM, .csum_start = 65535, .csum_offset = 65535};
    struct iovec two[] = {{&h, sizeof(h)}, {f, 100}};
    g_assert_cmpint(netdev_send(g->n, 0, two, 2), <, 0);
    h = (struct vnet_hdr){.flags = VNET_HDR_NEEDS_CSUM, .csum_start = 99, .csum_offset = 0};
    g_assert_cmpint(netdev_send(g->n, 0, two, 2), <, 0);
    h = (struct vnet_hdr){.gso_type = VNET_GSO_TCP4};
    g_assert_cmpint(netdev_send(g->n, 0, two, 2), <, 0);
    const char *rounds = g_getenv("RUCHE_TEST_ROUNDS");
    g->ip = htonl(0x0a00020f);
    for (int i = 0; i < (rounds ? atoi(rounds) : 1); i++)
        send_random_frames(g, i, 20000);
    guest_dhcp(g, 1, 2); /* still alive */
    guest_stop(g);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/netdev/user/dhcp", test_dhcp);
    g_test_add_func("/netdev/user/tcp", test_tcp);
    g_test_add_func("/netdev/user/hostfwd", test_hostfwd);
    g_test_add_func("/netdev/user/state", test_state);
    g_test_add_func("/netdev/user/state-refused", test_state_refused);
    g_test_add_func("/netdev/user/idle", test_idle);
    g_test_add_func("/netdev/user/hostile", test_hostile_frames);
    return g_test_run();
}
