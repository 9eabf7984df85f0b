/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tap interfaces of the host for machines: made, put on a bridge, opened; and their counters.
 *
 * Spec      Linux Documentation/networking/tuntap.rst; rtnetlink(7) for macvtap.
 * Rights    CAP_NET_ADMIN, which a session's manager does not have: only an interface that exists
 * and belongs to the user can be opened there.
 */
#include "manager/domain/vm_internal.h"
#include "manager/filter/filter.h"
#include "manager/network/bridge.h"
#include "manager/network/openvswitch.h"

#include "base/fd.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
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

/* The element's own word, else the network's. */
static uint64_t mtu_of(const struct xml_node *n, const struct network_plug *p)
{
    return xml_get_u64(n, "mtu@size", p->mtu);
}

/* Before the link is up. */
static bool filter(const struct vm *v, const struct xml_node *n, const char *name, GError **error)
{
    return filter_plug(name, v->d->uuid, v->name, xml_get(n, "mac@address"),
                       xml_find(n, "filterref"), error);
}

/* The strings are the plug's, the element's and the machine's. */
static struct ovs_port ovs_port_of(const struct vm *v, const struct xml_node *n,
                                   const struct network_plug *p, const char *name)
{
    return (struct ovs_port){
        .bridge = p->bridge,
        .ifname = name,
        .owner = v->uuid,
        .mac = xml_get_or(n, "mac@address", ""),
        .interface_id = p->openvswitch,
        .profile = p->profile,
        .isolated = p->isolated,
        .vlan = p->vlan,
        .bandwidth = p->bandwidth,
    };
}

static bool join(const struct vm *v, const struct xml_node *n, const struct network_plug *p,
                 const char *name, GError **error)
{
    struct ovs_port port = ovs_port_of(v, n, p, name);
    if (p->openvswitch)
        return ovs_plug(&port, error);
    int err = network_bridge_join(p->bridge, name, p, port.mac);
    return !err ||
           ruche_error_errno(error, err, "interface '%s' cannot be put on its bridge", name);
}

static bool check_bridge(const struct xml_node *n, const struct network_plug *p, GError **error)
{
    if (!check_name(p->bridge, "bridge", error))
        return false;
    if (p->openvswitch && xml_find(n, "filterref"))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "interface %s: filters do not see the frames of Open vSwitch",
                           xml_get_or(n, "mac@address", ""));
    if (p->openvswitch)
        return true;
    if (!if_nametoindex(p->bridge))
        return ruche_error(error, MANAGER_ERR_CONFIG, "there is no bridge '%s' on this host",
                           p->bridge);
    return !p->vlan ||
           ruche_error(error, MANAGER_ERR_CONFIG,
                       "bridge '%s' knows no <vlan>; that is for <virtualport type='openvswitch'>",
                       p->bridge);
}

/* The port of the bridge, what it lets pass, and how much; all may be there already. */
static bool connect_tap(const struct vm *v, const struct xml_node *n, const struct network_plug *p,
                        const char *name, GError **error)
{
    uint64_t mtu = mtu_of(n, p);
    int err = mtu ? set_mtu(name, (int)MIN(mtu, 65535)) : 0;
    if (err)
        return ruche_error_errno(error, err, "interface '%s' does not take its MTU", name);
    if (!join(v, n, p, name, error) || !filter(v, n, name, error))
        return false;
    if ((err = set_up(name, true)))
        return ruche_error_errno(error, err, "interface '%s' cannot be set up", name);
    return p->openvswitch || network_qos(name, p->bandwidth, false, error);
}

static bool bridge_tap(const struct vm *v, struct xml_node *n, const struct network_plug *p,
                       unsigned queues, int *ret, char name[IFNAMSIZ], GError **error)
{
    if (!check_bridge(n, p, error) || !open_queues(name, queues, ret, error))
        return false;
    set_mac(name, xml_get(n, "mac@address"));
    if (connect_tap(v, n, p, name, error))
        return true;
    close_all(ret, queues);
    return false;
}

static bool ethernet_tap(const struct vm *v, struct xml_node *n, unsigned queues, int *ret,
                         char name[IFNAMSIZ], GError **error)
{
    bool managed = !xml_is(n, "target@managed", "no");
    uint64_t mtu = managed ? xml_get_u64(n, "mtu@size", 0) : 0;
    if (!open_queues(name, queues, ret, error))
        return false;
    if (!filter(v, n, name, error)) {
        close_all(ret, queues);
        return false;
    }
    int err = mtu ? set_mtu(name, (int)MIN(mtu, 65535)) : 0;
    if (err)
        return fail_step(name, ret, queues, err, "does not take its MTU", error);
    err = managed ? set_up(name, !xml_is(n, "link@state", "down")) : 0;
    if (err)
        return fail_step(name, ret, queues, err, "cannot be set up", error);
    const struct xml_node *rates = xml_find(n, "bandwidth");
    if (!rates || network_qos(name, rates, false, error))
        return true;
    close_all(ret, queues);
    return false;
}

/* What the interface says itself. */
static struct network_plug own_plug(const struct xml_node *n)
{
    bool ovs = xml_is(n, "virtualport@type", "openvswitch");
    return (struct network_plug){
        .bridge = xml_get_or(n, "source@bridge", ""),
        .dev = xml_get_or(n, "source@dev", ""),
        .macvtap = xml_get_or(n, "source@mode", "vepa"),
        .isolated = xml_is(n, "port@isolated", "yes"),
        .macs_by_us = xml_is(n, "source@macTableManager", "libvirt"),
        .openvswitch = ovs ? xml_get_or(n, "virtualport/parameters@interfaceid", "") : NULL,
        .profile = xml_get(n, "virtualport/parameters@profileid"),
        .bandwidth = xml_find(n, "bandwidth"),
        .vlan = xml_find(n, "vlan"),
    };
}

static void describe_element(struct xml_node *n, const char *name, const struct xml_node *chosen)
{
    xml_remove(n, name);
    if (chosen)
        xml_append(n, xml_copy(chosen));
}

/* The live description tells what the network chose. */
static void describe_plug(struct xml_node *n, const struct network_plug *p)
{
    xml_set(n, "source@portid", p->port);
    if (p->bridge) {
        xml_set(n, "source@bridge", p->bridge);
        if (p->mode == NETWORK_BRIDGE)
            xml_set(n, "@type", "bridge");
        if (p->openvswitch) {
            describe_element(n, "virtualport", p->virtualport);
            describe_element(n, "vlan", p->vlan);
            describe_element(n, "bandwidth", p->bandwidth);
        }
        return;
    }
    xml_set(n, "@type", "direct");
    xml_set(n, "source@dev", p->dev);
    xml_set(n, "source@mode", p->macvtap);
}

int vm_link_up(const char *name)
{
    return set_up(name, true);
}

static bool network_tap(const struct vm *v, struct xml_node *n, unsigned queues, int *ret,
                        char name[IFNAMSIZ], GError **error)
{
    const uint8_t *owner = v->d->uuid;
    auto_network_plug p = {0};
    if (!network_plug(owner, v->name, n, &p, error))
        return false;
    bool ok;
    if (!p.bridge && !p.dev)
        ok = ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                         "network '%s': functions of PCI devices (forward mode 'hostdev') cannot "
                         "be given to machines yet",
                         xml_get(n, "source@network"));
    else if (!p.bridge && xml_find(n, "filterref"))
        ok = ruche_error(error, MANAGER_ERR_CONFIG,
                         "network '%s' gives out macvtap interfaces, which no filter sees; leave "
                         "<filterref> out",
                         xml_get(n, "source@network"));
    else
        ok = p.bridge ? bridge_tap(v, n, &p, queues, ret, name, error)
                      : vm_macvtap(v, n, &p, queues, ret, name, error);
    if (!ok) {
        network_unplug(owner, xml_get(n, "mac@address"));
        return false;
    }
    network_plugged(p.port, name);
    describe_plug(n, &p);
    return true;
}

bool vm_tap_make(const struct vm *v, struct xml_node *n, unsigned queues, int *ret, char **ret_name,
                 GError **error)
{
    const char *type = xml_get_or(n, "@type", ""), *wanted = xml_get(n, "target@dev");
    const struct network_plug own = own_plug(n);
    char name[IFNAMSIZ] = "vnet%d";
    if (wanted && *wanted) {
        if (!check_name(wanted, "interface", error))
            return false;
        g_strlcpy(name, wanted, IFNAMSIZ);
    }
    bool ok;
    if (strcmp(type, "network") && xml_get(n, "bandwidth/inbound@floor"))
        return ruche_error(
            error, MANAGER_ERR_CONFIG,
            "interface %s: a floor is for type 'network', whose bandwidth it is taken from",
            xml_get_or(n, "mac@address", ""));
    if (!strcmp(type, "network"))
        ok = network_tap(v, n, queues, ret, name, error);
    else if (!strcmp(type, "direct"))
        ok = vm_macvtap(v, n, &own, queues, ret, name, error);
    else
        ok = !strcmp(type, "bridge") ? bridge_tap(v, n, &own, queues, ret, name, error)
                                     : ethernet_tap(v, n, queues, ret, name, error);
    if (ok) {
        *ret_name = g_strdup(name);
        return true;
    }
    filter_unplug(name);
    ovs_unplug(name);
    return false;
}

/* ---- changes ---- */

static bool is_macvtap(const struct xml_node *n)
{
    return xml_is(n, "@type", "direct");
}

bool vm_tap_rates(const struct vm *v, const struct xml_node *n, const struct xml_node *bandwidth,
                  GError **error)
{
    const char *name = xml_get(n, "target@dev");
    struct network_plug p = own_plug(n);
    if (!name)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "machine '%s': rates of an interface of type '%s' cannot be limited",
                           v->name, xml_get_or(n, "@type", ""));
    if (!p.openvswitch)
        return network_qos(name, bandwidth, is_macvtap(n), error);
    p.bandwidth = bandwidth;
    struct ovs_port port = ovs_port_of(v, n, &p, name);
    return ovs_change(&port, error);
}

bool vm_tap_is_ovs(const struct xml_node *before, struct xml_node *after)
{
    static const char *const chosen[] = {"vlan", "bandwidth"};
    if (!xml_is(before, "virtualport@type", "openvswitch"))
        return false;
    describe_element(after, "virtualport", xml_find(before, "virtualport"));
    for (size_t i = 0; xml_get(before, "source@network") && i < G_N_ELEMENTS(chosen); i++)
        if (!xml_find(after, chosen[i]))
            describe_element(after, chosen[i], xml_find(before, chosen[i]));
    return true;
}

static bool change_ovs(const struct vm *v, const struct xml_node *n, const char *name,
                       GError **error)
{
    struct network_plug p = own_plug(n);
    struct ovs_port port = ovs_port_of(v, n, &p, name);
    return check_bridge(n, &p, error) && ovs_change(&port, error);
}

static bool check_move(const struct xml_node *n, const struct network_plug *p, const char *name,
                       GError **error)
{
    if (p->bridge && !p->openvswitch)
        return check_bridge(n, p, error);
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "interface '%s' cannot go to network '%s' while the machine runs: that is "
                       "no Linux bridge",
                       name, xml_get_or(n, "source@network", ""));
}

/* Its place on a Linux bridge; a port of a network is taken anew. */
static bool change_bridged(const struct vm *v, struct xml_node *n, const char *name, GError **error)
{
    auto_network_plug p = own_plug(n);
    const uint8_t *owner = v->d->uuid;
    const char *mac = xml_get(n, "mac@address");
    bool of_network = xml_get(n, "source@network");
    network_unplug(owner, mac);
    if (of_network && !network_plug(owner, v->name, n, &p, error))
        return false;
    bool ok = check_move(n, &p, name, error) && connect_tap(v, n, &p, name, error);
    if (of_network && ok) {
        network_plugged(p.port, name);
        describe_plug(n, &p);
    } else if (of_network) {
        network_unplug(owner, mac);
    }
    return ok;
}

static bool change(const struct vm *v, struct xml_node *n, const char *name, GError **error)
{
    bool bridged = xml_is(n, "@type", "bridge") || xml_is(n, "@type", "network");
    bool ok = xml_is(n, "virtualport@type", "openvswitch") ? change_ovs(v, n, name, error)
              : bridged                                    ? change_bridged(v, n, name, error)
                                                           : filter(v, n, name, error) &&
                              vm_tap_rates(v, n, xml_find(n, "bandwidth"), error);
    if (ok && !xml_find(n, "filterref"))
        filter_unplug(name);
    return ok;
}

bool vm_tap_change(const struct vm *v, const struct xml_node *before, struct xml_node *after,
                   bool elsewhere, GError **error)
{
    const char *name = xml_get(before, "target@dev");
    if (!name)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "machine '%s': an interface of type '%s' has no rates, filter or port "
                           "that can change while it runs",
                           v->name, xml_get_or(before, "@type", ""));
    if (elsewhere && (xml_find(before, "virtualport") || xml_find(after, "virtualport")))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "machine '%s': interface '%s' cannot go from or to Open vSwitch while "
                           "it runs",
                           v->name, name);
    if (change(v, after, name, error))
        return true;
    auto_xml *old = xml_copy(before);
    change(v, old, name, NULL);
    return false;
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
