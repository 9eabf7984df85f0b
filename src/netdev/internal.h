/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside the network backends: options with checks, vnet headers, checksums.
 *
 * Trust     Frames are hostile: every offset is checked against the frame's length.
 */
#pragma once

#include "netdev/netdev.h"

/* VIRTIO 1.2, 5.1.6; little-endian. */
struct vnet_hdr {
    uint8_t flags, gso_type;
    uint16_t hdr_len, gso_size, csum_start, csum_offset, num_buffers;
};
_Static_assert(sizeof(struct vnet_hdr) == NETDEV_VNET_HDR_LEN, "a vnet header is 12 bytes");
enum { VNET_HDR_NEEDS_CSUM = 1, VNET_HDR_DATA_VALID = 2 };
enum { VNET_GSO_NONE = 0, VNET_GSO_TCP4 = 1, VNET_GSO_TCP6 = 4, VNET_GSO_ECN = 0x80 };

/* The base part of every backend. */
void netdev_init(struct netdev *n, const struct netdev_type *type, const struct netdev_ops *ops,
                 const char *id);

/* Operations of a backend whose frames are as they are on a wire, or are not its own. */
unsigned netdev_no_offloads(const struct netdev *n);
int netdev_keep_offloads(struct netdev *n, unsigned to_guest);

/* The last value of an option, or NULL. */
const char *netdev_option(const struct netdev_config *c, const char *name);
bool netdev_option_bool(const char *id, const struct netdev_config *c, const char *name, bool def,
                        bool *ret, GError **error);

size_t iov_bytes(const struct iovec *iov, unsigned count);
/* Copies out of the vectors from `skip` on; returns how much there was, at most `len`. */
size_t iov_copy_out(const struct iovec *iov, unsigned count, size_t skip, void *to, size_t len);

/* Fills the checksum that the sender left to us. False: the header or the frame makes no sense. */
bool vnet_finish_checksum(const struct vnet_hdr *h, uint8_t *frame, size_t len);
