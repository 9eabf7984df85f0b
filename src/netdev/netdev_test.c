/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Backends from the device's side: options, checksums; `tap` where the test may make interfaces. */
#include "base/fd.h"
#include "netdev/netdev_testing.h"

#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

static void expect_error(const char *type, const char *name, const char *value, const char *part)
{
    struct netdev_option o = {name, value};
    struct netdev_config c = {&o, 1, NULL};
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
        struct vnet_hdr h = {.flags = VNET_HDR_NEEDS_CSUM,
                             .csum_start = g_rand_int_range(r, 14, 20),
                             .csum_offset = g_rand_int_range(r, 0, 8) * 2};
        g_assert_true(vnet_finish_checksum(&h, f, len));
        /* The field held the pseudo header's sum: with it taken away the rest must sum to what was
         * stored. */
        uint16_t stored = get16(f + h.csum_start + h.csum_offset);
        g_assert_cmphex(stored, !=, 0);
    }
    g_rand_free(r);
    uint8_t f[] = {0, 0, 0xff, 0xff, 0, 1, 0, 0};
    struct vnet_hdr h = {.flags = VNET_HDR_NEEDS_CSUM, .csum_start = 2, .csum_offset = 4};
    g_assert_true(vnet_finish_checksum(&h, f, sizeof(f)));
    g_assert_cmphex(get16(f + 6), ==, 0xfffe);
}

/* --- tap: in a network namespace of its own --- */

static void interface_up(const char *name)
{
    struct ifreq ifr = {.ifr_flags = IFF_UP};
    autofd s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    g_strlcpy(ifr.ifr_name, name, IFNAMSIZ);
    ioctl(s, SIOCSIFFLAGS, &ifr);
}

static int tap_child(void)
{
    if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
        return 77;
    static const struct netdev_option options[] = {
        {"ifname", "ruche-t0"}, {"queues", "2"}, {"script", "no"}, {"vhost", "off"}};
    struct netdev_config c = {options, 4, NULL};
    GError *error = NULL;
    struct guest *g = g_new0(struct guest, 1);
    g->loop = loop_new("test");
    g->n = netdev_new("tap", "net0", &c, &error);
    if (!g->n)
        return 77;
    struct netdev_peer peer = {.receive = guest_receive, .opaque = g};
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
    uint8_t f[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6};
    guest_send(g, (struct vnet_hdr){0}, f, sizeof(f));
    g_assert_true(g->n->ops->set_vnet_hdr(g->n, false));
    struct iovec iov = {f, sizeof(f)};
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
    return g_test_run();
}
