/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What one frame tells of a machine's address. See filter_learn.h. */
#include "base/cursor.h"
#include "manager/filter/filter_learn.h"

enum {
    ETH_IP = 0x0800,
    ETH_ARP_FRAMES = 0x0806,
    PROTO_UDP = 17,
    PORT_SERVER = 67,
    PORT_CLIENT = 68
};
enum {
    DHCP_MAGIC = 0x63825363,
    OPTION_LEASE = 51,
    OPTION_TYPE = 53,
    OPTION_SERVER = 54,
    OPTION_PAD = 0,
    OPTION_END = 255
};
enum { DHCP_DECLINE = 4, DHCP_ACK = 5, DHCP_RELEASE = 7 };

static const struct filter_sighting nothing;

/* One that a host can have. */
static bool is_address(const uint8_t ip[4])
{
    return ip[0] && ip[0] != 127 && ip[0] < 224;
}

static struct filter_sighting used(const uint8_t ip[4])
{
    struct filter_sighting s = {.kind = FILTER_SEEN_USED};
    memcpy(s.ip, ip, 4);
    return is_address(ip) ? s : nothing;
}

static struct filter_sighting sight_arp(const struct filter_learner_of *of, struct cur c)
{
    uint8_t mac[6], ip[4];
    bool ethernet = cur_be16(&c) == 1 && cur_be16(&c) == ETH_IP && cur_be16(&c) == 0x0604;
    cur_be16(&c);
    cur_copy(&c, mac, sizeof(mac));
    cur_copy(&c, ip, sizeof(ip));
    return ethernet && !c.bad && !memcmp(mac, of->mac, 6) ? used(ip) : nothing;
}

struct dhcp {
    uint8_t op, type, client[4], yours[4], mac[6], server[4];
    uint32_t seconds;
    bool has_seconds;
};

static void read_option(struct dhcp *d, uint8_t code, struct cur value)
{
    if (code == OPTION_TYPE)
        d->type = cur_u8(&value);
    else if (code == OPTION_SERVER)
        cur_copy(&value, d->server, 4);
    else if (code == OPTION_LEASE && value.left == 4) {
        d->seconds = cur_be32(&value);
        d->has_seconds = true;
    }
}

static bool read_dhcp(struct dhcp *d, struct cur c)
{
    *d = (struct dhcp){.op = cur_u8(&c)};
    bool ethernet = cur_be16(&c) == 0x0106;
    cur_take(&c, 9); /* hops, xid, secs, flags */
    cur_copy(&c, d->client, 4);
    cur_copy(&c, d->yours, 4);
    cur_take(&c, 8); /* siaddr, giaddr */
    cur_copy(&c, d->mac, 6);
    cur_take(&c, 10 + 64 + 128);
    if (cur_be32(&c) != DHCP_MAGIC || !ethernet)
        return false;
    while (!c.bad && c.left) {
        uint8_t code = cur_u8(&c);
        if (code == OPTION_END)
            break;
        if (code == OPTION_PAD)
            continue;
        uint8_t len = cur_u8(&c);
        const uint8_t *value = cur_take(&c, len);
        if (value)
            read_option(d, code, cur_of(value, len));
    }
    return !c.bad;
}

/* A server's answer has come to the machine; what a client says, from it. */
static struct filter_sighting sight_dhcp(const struct filter_learner_of *of, struct cur c,
                                         const uint8_t source[4], bool to)
{
    static const uint8_t any[4];
    struct dhcp d;
    struct filter_sighting s = {0};
    if (!read_dhcp(&d, c) || memcmp(d.mac, of->mac, 6) != 0 || d.op != (to ? 2 : 1))
        return nothing;
    if (to && d.type == DHCP_ACK && d.has_seconds &&
        is_address(d.yours)) { /* one without is of DHCPINFORM */
        if (memcmp(of->server, any, 4) != 0 && memcmp(of->server, source, 4) != 0)
            return nothing;
        s = (struct filter_sighting){.kind = FILTER_SEEN_LEASED, .seconds = d.seconds};
        memcpy(s.ip, d.yours, 4);
    } else if (!to && (d.type == DHCP_RELEASE || d.type == DHCP_DECLINE) && is_address(d.client)) {
        s.kind = FILTER_SEEN_RELEASED;
        memcpy(s.ip, d.client, 4);
    }
    return s;
}

static struct filter_sighting sight_ip(const struct filter_learner_of *of, struct cur c, bool to)
{
    uint8_t first = cur_u8(&c), source[4], head = (uint8_t)((first & 15) * 4);
    cur_u8(&c);
    uint16_t total = cur_be16(&c);
    cur_be16(&c);
    uint16_t fragment = cur_be16(&c);
    cur_u8(&c);
    uint8_t protocol = cur_u8(&c);
    cur_be16(&c);
    cur_copy(&c, source, 4);
    cur_take(&c, 4);
    if (c.bad || first >> 4 != 4 || head < 20 || total < head)
        return nothing;
    cur_take(&c, head - 20u);
    c.left = MIN(c.left, (size_t)total - head);
    struct cur udp = c;
    uint16_t from_port = cur_be16(&udp), to_port = cur_be16(&udp);
    cur_be32(&udp);
    if (!udp.bad && protocol == PROTO_UDP && !(fragment & 0x3fff) &&
        from_port == (to ? PORT_SERVER : PORT_CLIENT) &&
        to_port == (to ? PORT_CLIENT : PORT_SERVER)) {
        struct filter_sighting s = sight_dhcp(of, udp, source, to);
        if (s.kind)
            return s;
    }
    return c.bad || to || of->how != FILTER_LEARN_ANY ? nothing : used(source);
}

struct filter_sighting filter_sight(const struct filter_learner_of *of, const void *frame,
                                    size_t len, bool to)
{
    struct cur c = cur_of(frame, len);
    uint8_t dst[6], src[6];
    cur_copy(&c, dst, 6);
    cur_copy(&c, src, 6);
    uint16_t type = cur_be16(&c);
    if (c.bad || (!to && memcmp(src, of->mac, 6) != 0))
        return nothing;
    if (type == ETH_IP)
        return sight_ip(of, c, to);
    return type == ETH_ARP_FRAMES && !to && of->how == FILTER_LEARN_ANY ? sight_arp(of, c)
                                                                        : nothing;
}
