/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tap interfaces of the host for machines: made, put on a bridge, opened; and their counters.
 *
 * Spec      Linux Documentation/networking/tuntap.rst; rtnetlink(7) for macvtap.
 * Rights    CAP_NET_ADMIN, which a session's manager does not have: only an interface that exists
 * and belongs to the user can be opened there.
 */
#include "manager/domain/vm_internal.h"

#include "base/fd.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define TUN_DEVICE "/dev/net/tun"

static bool check_name(const char *name, const char *what, GError **error)
{
    if (strlen(name) < IFNAMSIZ && !strchr(name, '/') && *name)
        return true;
    return ruche_error(error, MANAGER_ERR_CONFIG, "%s '%s': names of interfaces have 1 to %d bytes",
                       what, name, IFNAMSIZ - 1);
}

/* One ioctl of an interface by name. 0 or a positive errno. */
static int if_ioctl(unsigned long request, struct ifreq *ifr)
{
    autofd fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd < 0 || ioctl(fd, request, ifr) < 0 ? errno : 0;
}

static int set_up(const char *name, bool up)
{
    struct ifreq ifr = {0};
    g_strlcpy(ifr.ifr_name, name, IFNAMSIZ);
    int err = if_ioctl(SIOCGIFFLAGS, &ifr);
    if (err)
        return err;
    ifr.ifr_flags = up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP;
    return if_ioctl(SIOCSIFFLAGS, &ifr);
}

static int set_mtu(const char *name, int mtu)
{
    struct ifreq ifr = {0};
    g_strlcpy(ifr.ifr_name, name, IFNAMSIZ);
    ifr.ifr_mtu = mtu;
    return if_ioctl(SIOCSIFMTU, &ifr);
}

/* Behind the bridge, its address must not be the lowest, which the bridge would take for its own.
 */
static int set_mac(const char *name, const char *mac)
{
    struct ifreq ifr = {0};
    unsigned b[6];
    g_strlcpy(ifr.ifr_name, name, IFNAMSIZ);
    if (!mac || sscanf(mac, "%x:%x:%x:%x:%x:%x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) != 6)
        return EINVAL;
    ifr.ifr_hwaddr.sa_family = 1; /* ARPHRD_ETHER */
    ifr.ifr_hwaddr.sa_data[0] = (char)0xfe;
    for (int i = 1; i < 6; i++)
        ifr.ifr_hwaddr.sa_data[i] = (char)b[i];
    return if_ioctl(SIOCSIFHWADDR, &ifr);
}

static int join_bridge(const char *bridge, const char *name)
{
    struct ifreq ifr = {0};
    g_strlcpy(ifr.ifr_name, bridge, IFNAMSIZ);
    ifr.ifr_ifindex = (int)if_nametoindex(name);
    return if_ioctl(SIOCBRADDIF, &ifr);
}

static void close_all(int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        fd_close_keep_errno(fds[i]);
}

/* `name` is a pattern ("vnet%d") or a name; the real one comes back in it. */
static bool open_queues(char name[IFNAMSIZ], unsigned queues, int *ret, GError **error)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    if (queues > 1)
        ifr.ifr_flags |= IFF_MULTI_QUEUE;
    g_strlcpy(ifr.ifr_name, name, IFNAMSIZ);
    for (unsigned i = 0; i < queues; i++) {
        ret[i] = open(TUN_DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
        if (ret[i] >= 0 && ioctl(ret[i], TUNSETIFF, &ifr) == 0)
            continue;
        int err = errno;
        close_all(ret, i + 1);
        return ruche_error_errno(error, err,
                                 ret[i] < 0 ? TUN_DEVICE "%s" : "interface '%s' cannot be made",
                                 ret[i] < 0 ? "" : name);
    }
    g_strlcpy(name, ifr.ifr_name, IFNAMSIZ);
    return true;
}

static bool fail_step(const char *name, int *fds, unsigned queues, int err, const char *what,
                      GError **error)
{
    close_all(fds, queues);
    return ruche_error_errno(error, err, "interface '%s' %s", name, what);
}

static bool bridge_tap(xmlNode *n, unsigned queues, int *ret, char name[IFNAMSIZ], GError **error)
{
    const char *bridge = xml_get_or(n, "source@bridge", "");
    if (!check_name(bridge, "bridge", error))
        return false;
    if (!if_nametoindex(bridge))
        return ruche_error(error, MANAGER_ERR_CONFIG, "there is no bridge '%s' on this host",
                           bridge);
    if (!open_queues(name, queues, ret, error))
        return false;
    set_mac(name, xml_get(n, "mac@address"));
    uint64_t mtu = xml_get_u64(n, "mtu@size", 0);
    int err = mtu ? set_mtu(name, (int)MIN(mtu, 65535)) : 0;
    if (err)
        return fail_step(name, ret, queues, err, "does not take its MTU", error);
    if ((err = join_bridge(bridge, name)))
        return fail_step(name, ret, queues, err, "cannot be put on its bridge", error);
    if ((err = set_up(name, true)))
        return fail_step(name, ret, queues, err, "cannot be set up", error);
    return true;
}

static bool ethernet_tap(xmlNode *n, unsigned queues, int *ret, char name[IFNAMSIZ], GError **error)
{
    bool managed = !xml_is(n, "target@managed", "no");
    if (!open_queues(name, queues, ret, error))
        return false;
    int err = managed ? set_up(name, !xml_is(n, "link@state", "down")) : 0;
    return !err || fail_step(name, ret, queues, err, "cannot be set up", error);
}

static bool macvtap(xmlNode *n, unsigned queues, int *ret, char name[IFNAMSIZ], GError **error)
{
    const char *lower = xml_get_or(n, "source@dev", "");
    if (!check_name(lower, "interface", error))
        return false;
    if (!if_nametoindex(lower))
        return ruche_error(error, MANAGER_ERR_CONFIG, "there is no interface '%s' on this host",
                           lower);
    for (unsigned i = 0; i < 1000 && strchr(name, '%'); i++) {
        char candidate[IFNAMSIZ];
        g_snprintf(candidate, sizeof(candidate), "macvtap%u", i);
        if (!if_nametoindex(candidate))
            g_strlcpy(name, candidate, IFNAMSIZ);
    }
    int err = vm_macvtap_make(name, if_nametoindex(lower), xml_get_or(n, "source@mode", "vepa"),
                              xml_get(n, "mac@address"));
    if (err)
        return ruche_error_errno(error, err, "macvtap '%s' on '%s' cannot be made", name, lower);
    g_autofree char *path = g_strdup_printf("/dev/tap%u", if_nametoindex(name));
    err = set_up(name, true);
    for (unsigned i = 0; !err && i < queues; i++) {
        ret[i] = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
        err = ret[i] < 0 ? errno : 0;
        if (err)
            close_all(ret, i);
    }
    if (!err)
        return true;
    vm_link_delete(name);
    return ruche_error_errno(error, err, "macvtap '%s' cannot be opened", name);
}

bool vm_tap_make(xmlNode *n, unsigned queues, int *ret, char **ret_name, GError **error)
{
    const char *type = xml_get_or(n, "@type", ""), *wanted = xml_get(n, "target@dev");
    char name[IFNAMSIZ] = "vnet%d";
    if (wanted && *wanted) {
        if (!check_name(wanted, "interface", error))
            return false;
        g_strlcpy(name, wanted, IFNAMSIZ);
    }
    bool ok;
    if (!strcmp(type, "network"))
        ok = ruche_error(error, MANAGER_ERR_NO_NETWORK,
                         "no network with matching name '%s'; use <interface type='%s'>",
                         xml_get_or(n, "source@network", ""), manager.session ? "user" : "bridge");
    else if (!strcmp(type, "direct"))
        ok = macvtap(n, queues, ret, name, error);
    else
        ok = !strcmp(type, "bridge") ? bridge_tap(n, queues, ret, name, error)
                                     : ethernet_tap(n, queues, ret, name, error);
    if (ok)
        *ret_name = g_strdup(name);
    return ok;
}

/* ---- counters ---- */

static int64_t counter(const char *ifname, const char *name)
{
    g_autofree char *path = g_strdup_printf("/sys/class/net/%s/statistics/%s", ifname, name),
                    *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL) ? g_ascii_strtoll(text, NULL, 10) : -1;
}

/* What the host sends the guest receives. */
bool vm_tap_stats(const char *ifname, struct domain_interface_stats *ret)
{
    if (!*ifname || strchr(ifname, '/') || !if_nametoindex(ifname))
        return false;
    *ret = (struct domain_interface_stats){
        .rx_bytes = counter(ifname, "tx_bytes"),
        .rx_packets = counter(ifname, "tx_packets"),
        .rx_errs = counter(ifname, "tx_errors"),
        .rx_drop = counter(ifname, "tx_dropped"),
        .tx_bytes = counter(ifname, "rx_bytes"),
        .tx_packets = counter(ifname, "rx_packets"),
        .tx_errs = counter(ifname, "rx_errors"),
        .tx_drop = counter(ifname, "rx_dropped"),
    };
    return true;
}
