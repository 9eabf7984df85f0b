/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IP addresses as networks calculate with them. Thread: any. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct net_addr {
    bool v6;
    uint8_t b[16]; /* network order; the first 4 of IPv4 */
};
struct net_subnet {
    struct net_addr addr; /* of the host in it */
    unsigned prefix;
};

/* Either family. */
bool net_addr_parse(const char *text, struct net_addr *ret);
void net_addr_format(const struct net_addr *a, char ret[64]);
int net_addr_cmp(const struct net_addr *a, const struct net_addr *b); /* of one family */
unsigned net_addr_bits(const struct net_addr *a);                     /* 32, 128 */
/* Contiguous netmasks only. */
bool net_prefix_of_mask(const struct net_addr *mask, unsigned *ret);
/* The first and last address. */
struct net_addr net_subnet_first(const struct net_subnet *s);
struct net_addr net_subnet_last(const struct net_subnet *s);
struct net_addr net_prefix_mask(bool v6, unsigned prefix);
bool net_subnet_has(const struct net_subnet *s, const struct net_addr *a);
bool net_subnets_overlap(const struct net_subnet *a, const struct net_subnet *b);
/* "192.168.122.0/24" */
void net_subnet_format(const struct net_subnet *s, char ret[64]);
