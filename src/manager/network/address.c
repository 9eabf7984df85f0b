/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IP addresses as networks calculate with them. */
#include "manager/network/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

unsigned net_addr_bits(const struct net_addr *a)
{
    return a->v6 ? 128 : 32;
}

bool net_addr_parse(const char *text, struct net_addr *ret)
{
    struct net_addr a = {0};
    if (inet_pton(AF_INET, text, a.b) != 1) {
        a.v6 = true;
        if (inet_pton(AF_INET6, text, a.b) != 1)
            return false;
    }
    *ret = a;
    return true;
}

void net_addr_format(const struct net_addr *a, char ret[64])
{
    inet_ntop(a->v6 ? AF_INET6 : AF_INET, a->b, ret, 64);
}

int net_addr_cmp(const struct net_addr *a, const struct net_addr *b)
{
    return memcmp(a->b, b->b, net_addr_bits(a) / 8);
}

struct net_addr net_prefix_mask(bool v6, unsigned prefix)
{
    struct net_addr m = {.v6 = v6};
    for (unsigned i = 0; i < prefix; i++)
        m.b[i / 8] |= (uint8_t)(0x80 >> i % 8);
    return m;
}

bool net_prefix_of_mask(const struct net_addr *mask, unsigned *ret)
{
    unsigned prefix = 0, bits = net_addr_bits(mask);
    while (prefix < bits && mask->b[prefix / 8] & 0x80 >> prefix % 8)
        prefix++;
    struct net_addr again = net_prefix_mask(mask->v6, prefix);
    if (net_addr_cmp(mask, &again) != 0)
        return false;
    *ret = prefix;
    return true;
}

static struct net_addr with_host_bits(const struct net_subnet *s, uint8_t ones)
{
    struct net_addr a = s->addr, m = net_prefix_mask(a.v6, s->prefix);
    for (unsigned i = 0; i < net_addr_bits(&a) / 8; i++)
        a.b[i] = (uint8_t)((a.b[i] & m.b[i]) | (ones & ~m.b[i]));
    return a;
}

struct net_addr net_subnet_first(const struct net_subnet *s)
{
    return with_host_bits(s, 0);
}

struct net_addr net_subnet_last(const struct net_subnet *s)
{
    return with_host_bits(s, 0xff);
}

bool net_subnet_has(const struct net_subnet *s, const struct net_addr *a)
{
    struct net_subnet other = {*a, s->prefix};
    struct net_addr first = net_subnet_first(s), its = net_subnet_first(&other);
    return s->addr.v6 == a->v6 && net_addr_cmp(&first, &its) == 0;
}

bool net_subnets_overlap(const struct net_subnet *a, const struct net_subnet *b)
{
    return a->prefix <= b->prefix ? net_subnet_has(a, &b->addr) : net_subnet_has(b, &a->addr);
}

void net_subnet_format(const struct net_subnet *s, char ret[64])
{
    struct net_addr first = net_subnet_first(s);
    net_addr_format(&first, ret);
    size_t len = strlen(ret);
    snprintf(ret + len, 64 - len, "/%u", s->prefix);
}
