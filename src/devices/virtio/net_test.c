/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-net-pci from the driver's side, over a backend that the test plays. */
#include "devices/virtio/driver_testing.h"
#include "machine/backends.h"
#include "netdev/netdev.h"

#include <errno.h>
#include <linux/virtio_net.h>
#include <string.h>

#define HDR 12
#define RX_DATA DRIVER_DATA
#define TX_DATA (DRIVER_DATA + 0x40000)
#define CMD_DATA (DRIVER_DATA + 0x60000)

struct wire {
    struct netdev n;
    bool hdr_possible, hdr, full, echo;
    unsigned can, to_guest, sent, ready, sent_queue;
    uint8_t frame[NETDEV_MAX_FRAME];
    size_t len;
};

struct fixture {
    struct driver *d;
    struct device *dev;
    struct wire w;
};

static ssize_t wire_send(struct netdev *n, unsigned queue, const struct iovec *iov, unsigned count)
{
    struct wire *w = container_of(n, struct wire, n);
    if (w->full)
        return 0;
    w->len = 0;
    for (unsigned i = 0; i < count; i++) {
        memcpy(w->frame + w->len, iov[i].iov_base, iov[i].iov_len);
        w->len += iov[i].iov_len;
    }
    w->sent++;
    w->sent_queue = queue;
    if (w->echo) /* as libslirp answers ARP: from inside send */
        netdev_deliver(n, 0, &(struct iovec){ w->frame, w->len }, 1);
    return (ssize_t)w->len;
}

static void wire_ready(struct netdev *n, unsigned queue)
{
    container_of(n, struct wire, n)->ready++;
}

static unsigned wire_offloads(const struct netdev *n)
{
    return container_of(n, struct wire, n)->can;
}

static int wire_set_offloads(struct netdev *n, unsigned to_guest)
{
    container_of(n, struct wire, n)->to_guest = to_guest;
    return 0;
}

static bool wire_set_hdr(struct netdev *n, bool on)
{
    struct wire *w = container_of(n, struct wire, n);
    w->hdr = on && w->hdr_possible;
    return w->hdr == on;
}

static int wire_set_loop(struct netdev *n, struct loop *l)
{
    n->loop = l;
    return 0;
}

static void wire_destroy(struct netdev *n)
{
}

static const struct netdev_ops wire_ops = {
    .send = wire_send,
    .receive_ready = wire_ready,
    .offloads = wire_offloads,
    .set_offloads = wire_set_offloads,
    .set_vnet_hdr = wire_set_hdr,
    .set_loop = wire_set_loop,
    .destroy = wire_destroy,
};

static void setup_with(struct fixture *f, bool hdr, unsigned queues, const char *prop,
                       const char *value)
{
    f->w = (struct wire){
        .n = { .id = g_strdup("net0"), .ops = &wire_ops, .link_up = true, .queues = queues },
        .hdr_possible = hdr,
        .can = NETDEV_CSUM | NETDEV_TSO4 | NETDEV_TSO6 | NETDEV_ECN
    };
    f->d = driver_new();
    g_assert_true(backend_add(&f->d->t->m, BACKEND_NETDEV, "net0", &f->w.n));
    f->dev = test_device(f->d->t, "virtio-net-pci", "netdev", "net0", "mac", "52:54:00:01:02:03",
                         prop, value, NULL);
    driver_bring_up(f->d, f->dev);
}

static void setup(struct fixture *f, gconstpointer data)
{
    setup_with(f, data != NULL, 1, NULL, NULL);
}

static void teardown(struct fixture *f, gconstpointer data)
{
    driver_free(f->d);
    g_assert_false(f->w.n.attached);
    netdev_free(&f->w.n);
}

static void post_rx(struct fixture *f, unsigned queue, unsigned count, uint32_t len)
{
    for (unsigned i = 0; i < count; i++)
        driver_offer(f->d, queue, &(struct driver_buf){ RX_DATA + (uint64_t)i * len, len, true },
                     1);
    driver_kick(f->d, queue);
    driver_turn(f->d, 1);
}

/* A frame from the wire, `len` bytes behind the header. */
static ssize_t arrive(struct fixture *f, unsigned queue, const uint8_t *dest, size_t len)
{
    static uint8_t frame[NETDEV_MAX_FRAME];
    size_t skip = f->w.hdr ? HDR : 0;
    memset(frame, 0, HDR);
    memcpy(frame + skip, dest, 6);
    for (size_t i = 6; i < len; i++)
        frame[skip + i] = (uint8_t)(i * 3);
    struct iovec iov[] = { { frame, skip }, { frame + skip, len } };
    return skip ? netdev_deliver(&f->w.n, queue, iov, 2)
                : netdev_deliver(&f->w.n, queue, iov + 1, 1);
}

static const uint8_t own[6] = { 0x52, 0x54, 0, 1, 2, 3 }, other[6] = { 0x52, 0x54, 0, 9, 9, 9 },
                     bcast[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
                     mcast[6] = { 1, 0, 0x5e, 0, 0, 1 };

static void test_features(struct fixture *f, gconstpointer data)
{
    uint64_t features = driver_features(f->d);
    bool hdr = data != NULL;
    static const unsigned offloads[] = { VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM,
                                         VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO6 };
    for (unsigned i = 0; i < ARRAY_COUNT(offloads); i++)
        /* only what the backend can do */
        g_assert_cmpint(!!(features & VIRTIO_F(offloads[i])), ==, hdr);
    g_assert_true(features & VIRTIO_F(VIRTIO_NET_F_MRG_RXBUF));
    g_assert_false(features & VIRTIO_F(VIRTIO_NET_F_MQ));
    uint8_t mac[6];
    for (unsigned i = 0; i < 6; i++)
        mac[i] = (uint8_t)driver_config(f->d, i, 1);
    g_assert_cmpmem(mac, 6, own, 6);
    g_assert_cmpuint(driver_config(f->d, 6, 2), ==, VIRTIO_NET_S_LINK_UP);
    driver_start(f->d,
                 features & (VIRTIO_F(VIRTIO_NET_F_GUEST_CSUM) | VIRTIO_F(VIRTIO_NET_F_GUEST_TSO4)),
                 2);
    driver_turn(f->d, 2);
    g_assert_cmphex(f->w.to_guest, ==, hdr ? NETDEV_CSUM | NETDEV_TSO4 : 0);
    driver_set(f->d, 0x14, 0, 1);
    driver_turn(f->d, 2);
    g_assert_cmphex(f->w.to_guest, ==, 0);
}

static void test_transmit(struct fixture *f, gconstpointer data)
{
    bool hdr = data != NULL;
    driver_start(f->d, 0, 2);
    uint8_t *mem = driver_mem(f->d, TX_DATA);
    memset(mem, 0, HDR);
    mem[0] = hdr ? 1 : 0;
    for (unsigned i = 0; i < 1000; i++)
        mem[HDR + i] = (uint8_t)i;
    static const uint32_t cuts[] = { 1, 5, HDR, HDR + 1, 500 };
    for (unsigned i = 0; i < ARRAY_COUNT(cuts); i++) {
        driver_offer(f->d, 1,
                     (struct driver_buf[]){ { TX_DATA, cuts[i], false },
                                            { TX_DATA + cuts[i], HDR + 1000 - cuts[i], false } },
                     2);
        driver_kick(f->d, 1);
        g_assert_true(driver_wait(f->d, 1, NULL, NULL));
        g_assert_cmpuint(f->w.sent, ==, i + 1);
        if (hdr)
            g_assert_cmpmem(f->w.frame, f->w.len, mem, HDR + 1000);
        else
            g_assert_cmpmem(f->w.frame, f->w.len, mem + HDR, 1000);
    }
    /* Too short, and without a header: dropped, given back. */
    driver_offer(f->d, 1, &(struct driver_buf){ TX_DATA, HDR + 13, false }, 1);
    driver_offer(f->d, 1, &(struct driver_buf){ TX_DATA, 4, false }, 1);
    driver_kick(f->d, 1);
    g_assert_true(driver_wait(f->d, 1, NULL, NULL));
    g_assert_true(driver_wait(f->d, 1, NULL, NULL));
    g_assert_cmpuint(f->w.sent, ==, ARRAY_COUNT(cuts));
    g_assert_false(f->dev->broken);
}

static void test_backend_full(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, 0, 2);
    f->w.full = true;
    for (unsigned i = 0; i < 5; i++)
        driver_offer(f->d, 1, &(struct driver_buf){ TX_DATA, 100, false }, 1);
    driver_kick(f->d, 1);
    driver_turn(f->d, 5);
    g_assert_false(driver_poll(f->d, 1, NULL, NULL));
    f->w.full = false;
    f->w.n.peer.send_ready(f->w.n.peer.opaque, 0);
    for (unsigned i = 0; i < 5; i++)
        g_assert_true(driver_wait(f->d, 1, NULL, NULL));
    g_assert_cmpuint(f->w.sent, ==, 5);
    f->w.full = true; /* a reset with a frame that waits */
    driver_offer(f->d, 1, &(struct driver_buf){ TX_DATA, 100, false }, 1);
    driver_kick(f->d, 1);
    driver_turn(f->d, 2);
    driver_start(f->d, 0, 2);
    f->w.full = false;
    f->w.n.peer.send_ready(f->w.n.peer.opaque, 0);
    driver_turn(f->d, 2);
    g_assert_cmpuint(f->w.sent, ==, 5);
}

static void test_receive(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, VIRTIO_F(VIRTIO_NET_F_MRG_RXBUF), 2);
    g_assert_cmpint(arrive(f, 0, own, 100), ==, 0); /* no buffers: later */
    post_rx(f, 0, 8, 1526);
    g_assert_cmpuint(f->w.ready, ==, 1);
    size_t hdr = f->w.hdr ? HDR : 0;
    g_assert_cmpint(arrive(f, 0, own, 1514), ==, 1514 + hdr);
    uint32_t len;
    g_assert_true(driver_poll(f->d, 0, NULL, &len));
    g_assert_cmpuint(len, ==, 1514 + HDR);
    const uint8_t *mem = driver_mem(f->d, RX_DATA);
    g_assert_cmpuint(mem[10] | mem[11] << 8, ==, 1);
    g_assert_cmpmem(mem + HDR, 6, own, 6);
    g_assert_cmphex(mem[HDR + 1513], ==, (uint8_t)(1513 * 3));
    /* One over three buffers. */
    g_assert_cmpint(arrive(f, 0, own, 4000), ==, 4000 + hdr);
    uint32_t total = 0;
    for (unsigned i = 0; i < 3; i++) {
        g_assert_true(driver_poll(f->d, 0, NULL, &len));
        total += len;
    }
    g_assert_cmpuint(total, ==, 4000 + HDR);
    mem += 1526;
    g_assert_cmpuint(mem[10] | mem[11] << 8, ==, 3);
    g_assert_cmphex(mem[HDR + 3999], ==, (uint8_t)(3999 * 3));
    /* Four are left: a frame that needs five waits, and takes none of them. */
    g_assert_cmpint(arrive(f, 0, own, 7000), ==, 0);
    g_assert_cmpint(arrive(f, 0, own, 5000), ==, 5000 + hdr);
}

static void test_receive_small(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, 0, 2);
    post_rx(f, 0, 2, 1526);
    g_assert_cmpint(arrive(f, 0, own, 4000), ==, -EMSGSIZE); /* no merging without the feature */
    g_assert_cmpint(arrive(f, 0, own, 1000), >, 0);
    driver_start(f->d, VIRTIO_F(VIRTIO_NET_F_MRG_RXBUF), 2);
    post_rx(f, 0, 4, HDR - 1);
    g_assert_cmpint(arrive(f, 0, own, 100), <, 0);
    g_assert_true(f->dev->broken);
    driver_start(f->d, VIRTIO_F(VIRTIO_NET_F_MRG_RXBUF), 2);
    g_assert_false(f->dev->broken);
    /* a readable receive buffer */
    driver_offer(f->d, 0, &(struct driver_buf){ RX_DATA, 1526, false }, 1);
    g_assert_cmpint(arrive(f, 0, own, 100), <, 0);
    g_assert_true(f->dev->broken);
    driver_set(f->d, 0x14, 0, 1);
    g_assert_cmpint(arrive(f, 0, own, 100), <, 0); /* nobody there */
}

static void test_echo(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, VIRTIO_F(VIRTIO_NET_F_MRG_RXBUF), 2);
    post_rx(f, 0, 4, 1526);
    f->w.echo = true;
    for (unsigned i = 0; i < 3; i++)
        driver_offer(f->d, 1, &(struct driver_buf){ TX_DATA, 100, false }, 1);
    driver_kick(f->d, 1);
    for (unsigned i = 0; i < 3; i++) {
        g_assert_true(driver_wait(f->d, 1, NULL, NULL));
        g_assert_true(driver_wait(f->d, 0, NULL, NULL));
    }
}

static uint8_t command(struct fixture *f, unsigned queue, uint8_t class, uint8_t cmd,
                       const void *data, uint32_t len)
{
    uint8_t *mem = driver_mem(f->d, CMD_DATA);
    mem[0] = class;
    mem[1] = cmd;
    memcpy(mem + 16, data, len);
    mem[8] = 0xee;
    driver_offer(f->d, queue,
                 (struct driver_buf[]){ { CMD_DATA, 2, false },
                                        { CMD_DATA + 16, len, false },
                                        { CMD_DATA + 8, 1, true } },
                 3);
    driver_kick(f->d, queue);
    g_assert_true(driver_wait(f->d, queue, NULL, NULL));
    return mem[8];
}

#define CTRL                                                                                       \
    (VIRTIO_F(VIRTIO_NET_F_CTRL_VQ) | VIRTIO_F(VIRTIO_NET_F_CTRL_RX) |                             \
     VIRTIO_F(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_F(VIRTIO_NET_F_CTRL_MAC_ADDR) |                     \
     VIRTIO_F(VIRTIO_NET_F_CTRL_RX_EXTRA))

static bool gets(struct fixture *f, const uint8_t *dest)
{
    g_assert_cmpint(arrive(f, 0, dest, 100), >, 0);
    return driver_poll(f->d, 0, NULL, NULL);
}

static void test_filter(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, CTRL, 3);
    post_rx(f, 0, 32, 1526);
    static const uint8_t off = 0, on = 1;
    g_assert_true(gets(f, other)); /* promiscuous at first */
    g_assert_cmpint(command(f, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1), ==,
                    VIRTIO_NET_OK);
    g_assert_true(gets(f, own) && gets(f, bcast) && !gets(f, other) && !gets(f, mcast));
    uint8_t table[4 + 6 + 4 + 6] = { [0] = 1, [10] = 1 };
    memcpy(table + 4, other, 6);
    memcpy(table + 14, mcast, 6);
    g_assert_cmpint(
        command(f, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table, sizeof(table)), ==,
        VIRTIO_NET_OK);
    g_assert_true(gets(f, other) && gets(f, mcast));
    static const uint8_t empty[8];
    g_assert_cmpint(command(f, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, empty, 8), ==,
                    VIRTIO_NET_OK);
    g_assert_true(!gets(f, other) && !gets(f, mcast));
    g_assert_cmpint(command(f, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_ALLMULTI, &on, 1), ==,
                    VIRTIO_NET_OK);
    g_assert_cmpint(command(f, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_NOBCAST, &on, 1), ==,
                    VIRTIO_NET_OK);
    g_assert_true(gets(f, mcast) && !gets(f, bcast));
    g_assert_cmpint(command(f, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 6), ==,
                    VIRTIO_NET_OK);
    g_assert_true(gets(f, other) && !gets(f, own));
    g_assert_cmphex(driver_config(f->d, 3, 1), ==, 9);
    /* Bad ones. */
    g_assert_cmpint(command(f, 2, 77, 0, &on, 1), ==, VIRTIO_NET_ERR);
    g_assert_cmpint(command(f, 2, VIRTIO_NET_CTRL_RX, 6, &on, 1), ==, VIRTIO_NET_ERR);
    g_assert_cmpint(command(f, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 5), ==,
                    VIRTIO_NET_ERR);
    table[0] = 5;
    g_assert_cmpint(
        command(f, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table, sizeof(table)), ==,
        VIRTIO_NET_ERR);
    g_assert_cmpint(command(f, 2, VIRTIO_NET_CTRL_VLAN, 0, &on, 1), ==, VIRTIO_NET_ERR);
    g_assert_cmpint(command(f, 2, VIRTIO_NET_CTRL_MQ, 0, "\1\0", 2), ==, VIRTIO_NET_ERR);
    memset(table, 0xff, 4); /* more than fit: all unicast passes */
    g_assert_cmpint(
        command(f, 2, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, table, sizeof(table)), ==,
        VIRTIO_NET_OK);
    g_assert_true(gets(f, own));
    /* no room for an answer */
    driver_offer(f->d, 2, &(struct driver_buf){ CMD_DATA, 3, false }, 1);
    driver_kick(f->d, 2);
    driver_turn(f->d, 3);
    g_assert_true(f->dev->broken);
}

static void test_vlan(struct fixture *f, gconstpointer data)
{
    uint8_t tagged[18] = { 0x52, 0x54, 0, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0x81, 0, 0, 42 };
    driver_start(f->d, CTRL | VIRTIO_F(VIRTIO_NET_F_CTRL_VLAN), 3);
    post_rx(f, 0, 8, 1526);
    static const uint8_t hdr[HDR];
    struct iovec iov[] = { { (void *)(uintptr_t)hdr, HDR }, { tagged, sizeof(tagged) } };
    netdev_deliver(&f->w.n, 0, f->w.hdr ? iov : iov + 1, f->w.hdr ? 2 : 1);
    g_assert_false(driver_poll(f->d, 0, NULL, NULL));
    g_assert_cmpint(command(f, 2, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, "\x2a\0", 2), ==,
                    VIRTIO_NET_OK);
    netdev_deliver(&f->w.n, 0, f->w.hdr ? iov : iov + 1, f->w.hdr ? 2 : 1);
    g_assert_true(driver_poll(f->d, 0, NULL, NULL));
    g_assert_cmpint(command(f, 2, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_DEL, "\x2a\0", 2), ==,
                    VIRTIO_NET_OK);
    netdev_deliver(&f->w.n, 0, f->w.hdr ? iov : iov + 1, f->w.hdr ? 2 : 1);
    g_assert_false(driver_poll(f->d, 0, NULL, NULL));
    g_assert_cmpint(command(f, 2, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, "\xff\xff", 2),
                    ==, VIRTIO_NET_ERR);
}

static void test_link(struct fixture *f, gconstpointer data)
{
    driver_start(f->d, VIRTIO_F(VIRTIO_NET_F_STATUS), 2);
    unsigned before = f->d->interrupts;
    netdev_set_link(&f->w.n, false);
    g_assert_cmpuint(driver_config(f->d, 6, 2), ==, 0);
    g_assert_cmpuint(f->d->interrupts, ==, before + 1);
    g_assert_cmphex(mem_io_read(f->d->t->m.memory, DRIVER_BAR + f->d->isr, 1), ==, 2);
    netdev_set_link(&f->w.n, true);
    g_assert_cmpuint(driver_config(f->d, 6, 2), ==, VIRTIO_NET_S_LINK_UP);
}

static void test_multiqueue(void)
{
    struct fixture f = { 0 };
    setup_with(&f, true, 3, "mq", "on");
    g_assert_cmpuint(driver_config(f.d, 8, 2), ==, 3);
    driver_start(f.d, CTRL | VIRTIO_F(VIRTIO_NET_F_MQ), 7);
    g_assert_cmpint(command(&f, 6, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, "\4\0", 2),
                    ==, VIRTIO_NET_ERR);
    g_assert_cmpint(command(&f, 6, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, "\0\0", 2),
                    ==, VIRTIO_NET_ERR);
    g_assert_cmpint(command(&f, 6, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, "\3\0", 2),
                    ==, VIRTIO_NET_OK);
    post_rx(&f, 4, 2, 1526);
    g_assert_cmpint(arrive(&f, 2, own, 100), >, 0);
    g_assert_true(driver_poll(f.d, 4, NULL, NULL));
    driver_offer(f.d, 5, &(struct driver_buf){ TX_DATA, 100, false }, 1);
    driver_kick(f.d, 5);
    g_assert_true(driver_wait(f.d, 5, NULL, NULL));
    g_assert_cmpuint(f.w.sent_queue, ==, 2);
    /* Without the feature the control queue is the third. */
    driver_start(f.d, CTRL, 3);
    static const uint8_t on = 1;
    g_assert_cmpint(command(&f, 2, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &on, 1), ==,
                    VIRTIO_NET_OK);
    teardown(&f, NULL);
}

#define ADD(name, fn)                                                                              \
    do {                                                                                           \
        g_test_add("/virtio/net/plain/" name, struct fixture, NULL, setup, fn, teardown);          \
        g_test_add("/virtio/net/header/" name, struct fixture, "hdr", setup, fn, teardown);        \
    } while (0)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("features", test_features);
    ADD("transmit", test_transmit);
    ADD("backend-full", test_backend_full);
    ADD("receive", test_receive);
    ADD("receive-small", test_receive_small);
    ADD("echo", test_echo);
    ADD("filter", test_filter);
    ADD("vlan", test_vlan);
    ADD("link", test_link);
    g_test_add_func("/virtio/net/multiqueue", test_multiqueue);
    return g_test_run();
}
