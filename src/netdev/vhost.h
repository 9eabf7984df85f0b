/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Network backends that work on a device's rings themselves, in guest memory, while the guest runs: the device hands
 * the rings over and takes them back.
 *
 * Owner     netdev_ops.vhost; descriptors and memory in what is passed are the device's, and stay open and mapped
 *           until stop() has returned.
 * Thread    The netdev's loop. netdev_peer.vhost_changed is called there too, never from inside these calls.
 * Trust     The back end is another process: what it answers may be wrong, late, or never come. stop() waits for it,
 *           a bounded time; nothing else does.
 */
#pragma once

#include "base/util.h"

struct netdev;

#define VHOST_MAX_REGIONS 8
#define VHOST_MAX_RINGS   64

/* A stretch of guest RAM. */
struct vhost_region {
    uint64_t gpa, bytes, fd_off;
    uint8_t *hva;
    int fd;
};

struct vhost_ring {
    uint16_t index, size;
    uint32_t place; /* where to go on: vq_place() */
    bool enabled;   /* frames are to pass */
    void *desc, *driver, *device;
    uint64_t device_gpa;
    int kick_fd, call_fd, err_fd;
};

struct vhost_start {
    uint64_t features; /* that the driver took */
    const struct vhost_region *regions;
    unsigned region_count;
    const struct vhost_ring *rings;
    unsigned ring_count;
    uint16_t mtu;            /* 0: not told */
    const uint8_t *announce; /* an address to announce to the network; NULL: no need */
    int log_fd; /* where it notes the pages that it writes, a bit each; -1: it does not */
    uint64_t log_bytes;
};

/* What came back of a ring. */
struct vhost_place {
    uint16_t index;
    bool known; /* false: the back end did not tell */
    uint32_t place;
};

struct netdev_vhost_ops {
    /* There is a back end, and what it is was agreed on. */
    bool (*ready)(const struct netdev *n);
    /* Its feature bits, virtio's; all of them while it is not ready. */
    uint64_t (*features)(const struct netdev *n);
    bool (*can_log)(const struct netdev *n);
    /* 0, or -errno: it has gone, and stop() need not be called. What it thinks of it comes later: it goes. */
    int (*start)(struct netdev *n, const struct vhost_start *s);
    /* Of a ring that it has. */
    void (*enable)(struct netdev *n, unsigned ring, bool on);
    void (*set_call)(struct netdev *n, unsigned ring, int fd);
    /* Takes all rings back, in the order of start(). */
    void (*stop)(struct netdev *n, struct vhost_place *ret, unsigned count);
};
