/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The saved state of the `user` backend: who got which address by DHCP, and the number of the next IP packet.
 *
 * Format    u32 libslirp's version of its state; u16 length and text of the network; u16 length and
 *           bytes of slirp_state_save(). Little-endian.
 * Thread    The netdev's loop.
 * Trust     The bytes come from a file or a peer. libslirp's sockets of guestfwd= are the only part of its state
 *           with lengths inside; guestfwd=cmd: has none, so a state that begins with one never reaches libslirp's
 *           loader. What follows are fields of fixed width, which take any value.
 */
#include "netdev/user.h"

#include <arpa/inet.h>
#include <string.h>

#define MAX_BYTES 4096 /* of libslirp's part; version 4 has 131 */
#define MAX_TEXT  512
#define NO_SOCKET 0 /* libslirp: a socket follows, or not */

struct sink {
    uint8_t data[MAX_BYTES];
    uint16_t used;
    bool full;
};

static ssize_t sink_write(const void *buf, size_t len, void *opaque)
{
    struct sink *s = opaque;
    s->full |= len > sizeof(s->data) - s->used;
    if (s->full)
        return -1;
    memcpy(s->data + s->used, buf, len);
    s->used += (uint16_t)len;
    return (ssize_t)len;
}

static ssize_t cursor_read(void *buf, size_t len, void *opaque)
{
    struct cur *c = opaque;
    cur_copy(c, buf, len); /* zeroes behind the end */
    return c->bad ? -1 : (ssize_t)len;
}

static void add_address(GString *s, const char *name, int family, const void *address)
{
    char text[INET6_ADDRSTRLEN];
    g_string_append_printf(s, " %s=%s", name, inet_ntop(family, address, text, sizeof(text)));
}

char *user_network_text(const struct user_settings *n)
{
    GString *s = g_string_new(n->restricted ? "restrict=on" : "restrict=off");
    if (n->ipv4) {
        add_address(s, "net", AF_INET, &n->net);
        add_address(s, "mask", AF_INET, &n->mask);
        add_address(s, "host", AF_INET, &n->host);
        add_address(s, "dhcpstart", AF_INET, &n->dhcp_start);
        add_address(s, "dns", AF_INET, &n->dns);
    }
    if (n->ipv6) {
        add_address(s, "ipv6-net", AF_INET6, &n->net6);
        g_string_append_printf(s, "/%u", n->prefix6);
        add_address(s, "ipv6-host", AF_INET6, &n->host6);
        add_address(s, "ipv6-dns", AF_INET6, &n->dns6);
    }
    return g_string_free(s, FALSE);
}

static void put_bytes(GByteArray *out, const void *data, uint16_t len)
{
    g_byte_array_append(out, (const uint8_t *)&len, sizeof(len));
    g_byte_array_append(out, data, len);
}

bool user_state_save(const char *id, Slirp *slirp, const char *network, GByteArray *out,
                     GError **error)
{
    struct sink s = {.used = 0};
    uint32_t version = (uint32_t)slirp_state_version();
    slirp_state_save(slirp, sink_write, &s);
    if (s.full || !s.used || s.data[0] != NO_SOCKET)
        return ruche_error(
            error, RUCHE_ERR_INTERNAL,
            "netdev '%s': libslirp's state is not one of at most %u bytes without sockets", id,
            MAX_BYTES);
    g_byte_array_append(out, (const uint8_t *)&version, sizeof(version));
    put_bytes(out, network, (uint16_t)strlen(network));
    put_bytes(out, s.data, s.used);
    return true;
}

static bool broken(const char *id, GError **error)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "netdev '%s': its saved state is damaged", id);
}

/* The head says of which network this is. */
static bool check_head(const char *id, const char *network, struct cur *c, uint32_t *ret_version,
                       GError **error)
{
    uint32_t version = cur_le32(c), known = (uint32_t)slirp_state_version();
    uint16_t len = cur_le16(c);
    const uint8_t *text = len <= MAX_TEXT ? cur_take(c, len) : NULL;
    if (!text || !g_utf8_validate((const char *)text, len, NULL))
        return broken(id, error);
    if (version > known)
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "netdev '%s': its state has libslirp's version %u, and the libslirp here knows %u", id,
            version, known);
    if (len != strlen(network) || memcmp(text, network, len))
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "netdev '%s': the state is of a network with '%.*s', and this one has '%s'", id,
            (int)len, (const char *)text, network);
    *ret_version = version;
    return true;
}

bool user_state_load(const char *id, Slirp *slirp, const char *network, struct cur *c,
                     GError **error)
{
    uint32_t version = 0;
    if (!check_head(id, network, c, &version, error))
        return false;
    uint16_t len = cur_le16(c);
    const uint8_t *bytes = len && len <= MAX_BYTES ? cur_take(c, len) : NULL;
    struct cur in = cur_of(bytes, bytes ? len : 0);
    if (!bytes || bytes[0] != NO_SOCKET ||
        slirp_state_load(slirp, (int)version, cursor_read, &in) || in.bad || in.left)
        return broken(id, error);
    return true;
}
