/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Internet checksums, for backends that cannot leave them to a kernel.
 *
 * Spec      RFC 1071; VIRTIO 1.2, section 5.1.6.2.
 * Thread    Any; no state.
 * Trust     Header offsets and lengths are the guest's.
 */
#include "netdev/internal.h"

#include <string.h>

/* One's complement sum of big-endian 16-bit words, not folded; `len` may be odd. The carries of a
 * 64-bit sum wrap around, so that the order of bytes does not matter until the end. */
static uint64_t sum_bytes(const uint8_t *p, size_t len, uint64_t sum)
{
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        sum += v;
        sum += sum < v;
    }
    uint64_t rest = 0;
    memcpy(&rest, p, len);
    sum += rest;
    return sum + (sum < rest);
}

static uint16_t fold(uint64_t sum)
{
    sum = (sum >> 32) + (uint32_t)sum;
    sum = (sum >> 32) + (uint32_t)sum;
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    return sum;
}

static void store(uint8_t *at, uint16_t v)
{
    memcpy(at, &v, 2); /* the sum was made in memory order */
}

static uint16_t load_be16(const uint8_t *p)
{
    return p[0] << 8 | p[1];
}

enum {
    ETH_LEN = 14,
    ETH_IPV4 = 0x0800,
    ETH_IPV6 = 0x86dd,
    ETH_VLAN = 0x8100,
    PROTO_TCP = 6,
    TCP_CSUM = 16
};

/* A segmentation frame's checksums from nothing: senders differ in what they leave in its fields.
 * The lengths in the IP header are set to the whole frame's, because it goes on as one packet. */
static bool finish_segmented(uint8_t *frame, size_t len)
{
    size_t l3 = ETH_LEN;
    if (len < ETH_LEN + 4)
        return false;
    if (load_be16(frame + 12) == ETH_VLAN)
        l3 += 4;
    uint16_t type = load_be16(frame + l3 - 2);
    size_t l4;
    uint64_t pseudo = 0;
    if (type == ETH_IPV4) {
        if (len < l3 + 20)
            return false;
        uint8_t *ip = frame + l3;
        size_t ip_len = (ip[0] & 15) * 4;
        l4 = l3 + ip_len;
        if (ip_len < 20 || len < l4 + 20 || len - l3 > UINT16_MAX || ip[9] != PROTO_TCP)
            return false;
        store(ip + 2, __builtin_bswap16(len - l3));
        store(ip + 10, 0);
        store(ip + 10, ~fold(sum_bytes(ip, ip_len, 0)));
        pseudo = sum_bytes(ip + 12, 8, 0);
    } else if (type == ETH_IPV6) {
        l4 = l3 + 40;
        if (len < l4 + 20 || len - l4 > UINT16_MAX || frame[l3 + 6] != PROTO_TCP)
            return false;
        store(frame + l3 + 4, __builtin_bswap16(len - l4));
        pseudo = sum_bytes(frame + l3 + 8, 32, 0);
    } else {
        return false;
    }
    uint8_t tail[4] = { 0, PROTO_TCP, (len - l4) >> 8, (len - l4) & 0xff };
    pseudo = sum_bytes(tail, 4, pseudo);
    store(frame + l4 + TCP_CSUM, 0);
    store(frame + l4 + TCP_CSUM, ~fold(sum_bytes(frame + l4, len - l4, pseudo)));
    return true;
}

bool vnet_finish_checksum(const struct vnet_hdr *h, uint8_t *frame, size_t len)
{
    if ((h->gso_type & ~VNET_GSO_ECN) != VNET_GSO_NONE)
        return finish_segmented(frame, len);
    if (!(h->flags & VNET_HDR_NEEDS_CSUM))
        return true;
    size_t at = (size_t)h->csum_start + h->csum_offset;
    if (h->csum_start >= len || at + 2 > len)
        return false;
    uint16_t sum = ~fold(sum_bytes(frame + h->csum_start, len - h->csum_start, 0));
    store(frame + at, sum ? sum : 0xffff); /* zero would mean "none" to UDP */
    return true;
}
