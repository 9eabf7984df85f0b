/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options of the `user` backend: addresses, and the rules that forward ports.
 *
 * Spec      QEMU's -netdev user.
 * Thread    Main thread.
 */
#include "netdev/internal.h"
#include "netdev/user.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool bad_value(const char *id, const char *name, const char *value, const char *want,
                      GError **error)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "netdev '%s': %s=%s: %s", id, name, value, want);
}

static bool parse_families(const char *id, const struct netdev_config *c, struct user_settings *s,
                           GError **error)
{
    bool has4 = netdev_option(c, "ipv4"), has6 = netdev_option(c, "ipv6");
    if (!netdev_option_bool(id, c, "ipv4", true, &s->ipv4, error) ||
        !netdev_option_bool(id, c, "ipv6", true, &s->ipv6, error))
        return false;
    /* Naming only one family means only that one. */
    if (has6 && s->ipv6 && !has4)
        s->ipv4 = false;
    if (has4 && s->ipv4 && !has6)
        s->ipv6 = false;
    if (!s->ipv4 && !s->ipv6)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "netdev '%s': ipv4 and ipv6 cannot both be off", id);
    return true;
}

/* addr, addr/bits or addr/mask. */
static bool parse_net4(const char *id, const char *text, struct user_settings *s, GError **error)
{
    const char *want = "a network is ADDRESS, ADDRESS/BITS or ADDRESS/MASK, as 10.0.2.0/24";
    g_auto(GStrv) part = g_strsplit(text, "/", 2);
    if (!part[0] || inet_pton(AF_INET, part[0], &s->net) != 1)
        return bad_value(id, "net", text, want, error);
    uint32_t mask = 0;
    if (!part[1]) {
        uint8_t first = ntohl(s->net.s_addr) >> 24;
        mask = first < 128 ? 0xff000000 : first < 192 ? 0xffff0000 : 0xffffff00;
    } else if (strchr(part[1], '.')) {
        struct in_addr m;
        if (inet_pton(AF_INET, part[1], &m) != 1 || (~ntohl(m.s_addr) & (~ntohl(m.s_addr) + 1)))
            return bad_value(id, "net", text, want, error);
        mask = ntohl(m.s_addr);
    } else {
        char *end;
        unsigned long bits = strtoul(part[1], &end, 10);
        if (*end || !*part[1] || bits < 4 || bits > 29)
            return bad_value(id, "net", text, "the prefix has 4 to 29 bits", error);
        mask = ~0u << (32 - bits);
    }
    if (~mask < 7)
        return bad_value(id, "net", text, "the network must have room for at least 6 hosts", error);
    s->mask.s_addr = htonl(mask);
    s->net.s_addr &= s->mask.s_addr;
    return true;
}

static bool parse_host4(const char *id, const struct netdev_config *c, const char *name,
                        uint32_t def, const struct user_settings *s, bool inside,
                        struct in_addr *ret, GError **error)
{
    const char *text = netdev_option(c, name);
    ret->s_addr = s->net.s_addr | htonl(def);
    if (!text)
        return true;
    if (inet_pton(AF_INET, text, ret) != 1)
        return bad_value(id, name, text, "that is not an IPv4 address", error);
    if (inside && (ret->s_addr & s->mask.s_addr) != s->net.s_addr)
        return bad_value(id, name, text, "the address must lie inside net=", error);
    return true;
}

static bool parse_ipv4(const char *id, const struct netdev_config *c, struct user_settings *s,
                       GError **error)
{
    const char *net = netdev_option(c, "net");
    if (!parse_net4(id, net ? net : "10.0.2.0/24", s, error))
        return false;
    uint32_t last = ~ntohl(s->mask.s_addr);
    if (!parse_host4(id, c, "host", 2, s, true, &s->host, error) ||
        !parse_host4(id, c, "dhcpstart", last < 32 ? 4 : 15, s, true, &s->dhcp_start, error) ||
        !parse_host4(id, c, "dns", 3, s, true, &s->dns, error))
        return false;
    if (s->host.s_addr == s->dns.s_addr)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "netdev '%s': host= and dns= are the same address", id);
    uint32_t start = ntohl(s->dhcp_start.s_addr);
    if (start == ntohl(s->host.s_addr) || start == ntohl(s->dns.s_addr))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "netdev '%s': dhcpstart= is the address of host= or dns=", id);
    return true;
}

static bool parse_ipv6(const char *id, const struct netdev_config *c, struct user_settings *s,
                       GError **error)
{
    const char *net = netdev_option(c, "ipv6-net");
    const char *text = net ? net : "fec0::/64";
    g_auto(GStrv) part = g_strsplit(text, "/", 2);
    s->prefix6 = 64;
    if (!part[0] || inet_pton(AF_INET6, part[0], &s->net6) != 1)
        return bad_value(id, "ipv6-net", text, "that is not an IPv6 network, as fec0::/64", error);
    if (part[1]) {
        char *end;
        unsigned long bits = strtoul(part[1], &end, 10);
        if (*end || !*part[1] || bits < 8 || bits > 126)
            return bad_value(id, "ipv6-net", text, "the prefix has 8 to 126 bits", error);
        s->prefix6 = bits;
    }
    s->host6 = s->dns6 = s->net6;
    s->host6.s6_addr[15] |= 2;
    s->dns6.s6_addr[15] |= 3;
    const char *host = netdev_option(c, "ipv6-host"), *dns = netdev_option(c, "ipv6-dns");
    if (host && inet_pton(AF_INET6, host, &s->host6) != 1)
        return bad_value(id, "ipv6-host", host, "that is not an IPv6 address", error);
    if (dns && inet_pton(AF_INET6, dns, &s->dns6) != 1)
        return bad_value(id, "ipv6-dns", dns, "that is not an IPv6 address", error);
    return true;
}

bool user_settings_parse(const char *id, const struct netdev_config *c, struct user_settings *ret,
                         GError **error)
{
    struct user_settings s = { 0 };
    if (!parse_families(id, c, &s, error) || !parse_ipv4(id, c, &s, error) ||
        !parse_ipv6(id, c, &s, error) ||
        !netdev_option_bool(id, c, "restrict", false, &s.restricted, error))
        return false;
    if (netdev_option(c, "smb") || netdev_option(c, "smbserver"))
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "netdev '%s': smb= is not supported; share a folder over tftp= or a forwarded port",
            id);
    s.hostname = netdev_option(c, "hostname");
    s.tftp = netdev_option(c, "tftp");
    s.tftp_server_name = netdev_option(c, "tftp-server-name");
    s.bootfile = netdev_option(c, "bootfile");
    s.domainname = netdev_option(c, "domainname");
    if (s.tftp && !g_file_test(s.tftp, G_FILE_TEST_IS_DIR))
        return bad_value(id, "tftp", s.tftp, "that is not a folder", error);
    for (size_t i = 0; i < c->count; i++) {
        if (strcmp(c->options[i].name, "dnssearch"))
            continue;
        if (!s.search)
            s.search = g_ptr_array_new();
        g_ptr_array_add(s.search, (gpointer)(uintptr_t)c->options[i].value);
    }
    if (s.search)
        g_ptr_array_add(s.search, NULL);
    *ret = s;
    return true;
}

void user_settings_done(struct user_settings *s)
{
    if (s->search)
        g_ptr_array_free(s->search, TRUE);
    s->search = NULL;
}

/* --- forwarding rules --- */

static bool parse_port(const char *text, size_t len, int min, int *ret)
{
    int v = 0;
    if (!len || len > 5)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!g_ascii_isdigit(text[i]))
            return false;
        v = v * 10 + text[i] - '0';
    }
    if (v < min || v > 65535)
        return false;
    *ret = v;
    return true;
}

/* "[address]:port" up to `end`; an empty address leaves *ret_addr alone. */
static bool parse_endpoint(const char *text, const char *end, int min_port,
                           struct in_addr *ret_addr, int *ret_port)
{
    const char *colon = memchr(text, ':', end - text);
    if (!colon || !parse_port(colon + 1, end - colon - 1, min_port, ret_port))
        return false;
    if (colon == text)
        return true;
    g_autofree char *addr = g_strndup(text, colon - text);
    return inet_pton(AF_INET, addr, ret_addr) == 1;
}

bool user_hostfwd_add(const char *id, Slirp *slirp, const char *rule, GError **error)
{
    const char *want =
        "a rule is [tcp|udp]:[HOST-ADDRESS]:PORT-[GUEST-ADDRESS]:PORT, as tcp::2222-:22";
    const char *at = strchr(rule, ':');
    bool udp = at && at - rule == 3 && !strncmp(rule, "udp", 3);
    if (!at || !(udp || at == rule || (at - rule == 3 && !strncmp(rule, "tcp", 3))))
        return bad_value(id, "hostfwd", rule, want, error);
    const char *dash = strchr(++at, '-');
    struct in_addr host = { INADDR_ANY }, guest = { 0 };
    int host_port, guest_port;
    if (!dash || !parse_endpoint(at, dash, 0, &host, &host_port) ||
        !parse_endpoint(dash + 1, dash + strlen(dash), 1, &guest, &guest_port))
        return bad_value(id, "hostfwd", rule, want, error);
    errno = 0;
    if (slirp_add_hostfwd(slirp, udp, host, host_port, guest, guest_port) < 0) {
        int err = errno ? errno : EINVAL;
        return ruche_error_errno(error, err,
                                 "netdev '%s': hostfwd=%s: %s port %d of the host cannot be taken",
                                 id, rule, udp ? "UDP" : "TCP", host_port);
    }
    return true;
}

static bool guestfwd_add(const char *id, Slirp *slirp, const char *rule, GError **error)
{
    const char *want = "a rule is tcp:ADDRESS:PORT-cmd:COMMAND";
    const char *at = g_str_has_prefix(rule, "tcp:") ? rule + 4 : *rule == ':' ? rule + 1 : NULL;
    const char *dash = at ? strchr(at, '-') : NULL;
    struct in_addr addr = { 0 };
    int port;
    if (!dash || !parse_endpoint(at, dash, 1, &addr, &port) || !dash[1])
        return bad_value(id, "guestfwd", rule, want, error);
    if (!g_str_has_prefix(dash + 1, "cmd:"))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "netdev '%s': guestfwd=%s: a character device as target is not "
                           "supported; use cmd:COMMAND",
                           id, rule);
    if (slirp_add_exec(slirp, dash + 5, &addr, port) < 0)
        return bad_value(id, "guestfwd", rule,
                         "the address must lie inside net= and not be host= or dns=", error);
    return true;
}

bool user_forwards_add(const char *id, const struct netdev_config *c, Slirp *slirp, GError **error)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct netdev_option *o = &c->options[i];
        if (!strcmp(o->name, "hostfwd") && !user_hostfwd_add(id, slirp, o->value, error))
            return false;
        if (!strcmp(o->name, "guestfwd") && !guestfwd_add(id, slirp, o->value, error))
            return false;
    }
    return true;
}
