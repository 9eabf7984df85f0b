/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Network backends as network devices see them: `user` (libslirp), `tap`, ... behind one interface.
 *
 * Owner     netdev_new() ... netdev_free(); one device is attached to it as its peer.
 * Thread    The backend runs on one loop (netdev_set_loop()); send and receive happen there.
 *           netdev_send() and netdev_receive_ready() are called on that loop. The rest: main
 *           thread, before the loop runs frames.
 * Trust     Frames from the guest and from the wire are hostile; length is capped at
 *           NETDEV_MAX_FRAME.
 */
#pragma once

#include "base/cursor.h"
#include "base/error.h"
#include "base/linkset.h"
#include "base/loop.h"
#include "netdev/vhost.h"

#include <sys/uio.h>

#define NETDEV_MAX_FRAME (64 * 1024 + 64) /* with the largest segmentation offload */

struct chardev;
struct netdev;

/* virtio-net header that travels with frames when both ends speak offloads; 12 bytes,
 * little-endian. */
#define NETDEV_VNET_HDR_LEN 12

enum netdev_offload {
    NETDEV_CSUM = 1,
    NETDEV_TSO4 = 2,
    NETDEV_TSO6 = 4,
    NETDEV_ECN = 8,
    NETDEV_UFO = 16,
    NETDEV_USO = 32
};

/* The device's side. */
struct netdev_peer {
    /* A frame for the guest: `iov` begins with a vnet header when netdev_vnet_hdr() is true.
     * Returns the frame's length, 0: no room now (the backend holds further frames until
     * netdev_receive_ready()), or -errno: dropped. */
    ssize_t (*receive)(void *opaque, unsigned queue, const struct iovec *iov, unsigned iov_count);
    /* after a send that returned 0; may be NULL */
    void (*send_ready)(void *opaque, unsigned queue);
    void (*link_changed)(void *opaque, bool up);
    /* The backend is about to go: the peer lets go of it, as before netdev_free(). Main thread; may be NULL */
    void (*gone)(void *opaque);
    /* ops->vhost: a back end has come, or gone; may be NULL */
    void (*vhost_changed)(void *opaque);
    void *opaque;
};

/* What -netdev/-nic say: name=value pairs in order, repeated names allowed (hostfwd). */
struct netdev_option {
    const char *name, *value;
};
struct netdev_config {
    const struct netdev_option *options;
    size_t count;
    struct chardev *chardev; /* what chardev= names; borrowed; NULL: none */
};
struct netdev_prop {
    const char *name, *help;
};

/* A backend kind; a row of a linker set, netdev/ *.c. */
struct netdev_type {
    const char *name, *summary;
    const struct netdev_prop *props; /* struct prop look-alike: name and help, for -netdev help */
    struct netdev *(*create)(const char *id, const struct netdev_config *c, GError **error);
};

/* Every backend's struct begins with this. */
struct netdev {
    char *id;
    const struct netdev_type *type;
    const struct netdev_ops *ops;
    struct netdev_peer peer;   /* receive NULL: nobody attached; frames are dropped */
    bool attached, link_up;
    unsigned queues;
    struct loop *loop;
    uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes, rx_dropped, tx_dropped;
};

struct netdev_ops {
    /* One frame from the guest, with a vnet header in front when enabled. Returns its length, 0: no
     * room (the peer keeps it and is called by send_ready), or -errno: dropped. Never blocks. */
    ssize_t (*send)(struct netdev *n, unsigned queue, const struct iovec *iov, unsigned iov_count);
    void (*receive_ready)(struct netdev *n, unsigned queue); /* the peer has room again */
    /* what it can take from the guest and give */
    unsigned (*offloads)(const struct netdev *n);
    int (*set_offloads)(struct netdev *n, unsigned to_guest);
    bool (*set_vnet_hdr)(struct netdev *n, bool on);         /* false: not possible */
    int (*set_loop)(struct netdev *n, struct loop *l);       /* 0 or -errno */
    void (*destroy)(struct netdev *n);
    char *(*describe)(const struct netdev *n);               /* g_malloc'd, one line */
    /* What a saved machine takes along, appended; and back, into one made with the same options.
     * On its loop, the machine stopped; the bytes are hostile. NULL: nothing. */
    bool (*save)(struct netdev *n, GByteArray *out, GError **error);
    bool (*load)(struct netdev *n, struct cur *c, GError **error);
    const struct netdev_vhost_ops *vhost; /* NULL: frames pass by send and receive */
};

LINKSET_DECLARE(netdev_types);
#define NETDEV_TYPE(t) LINKSET_ENTRY(netdev_types, t)

struct netdev *netdev_new(const char *type, const char *id, const struct netdev_config *c,
                          GError **error);
void netdev_free(struct netdev *n);
const struct netdev_type *const *netdev_type_list(void); /* sorted, NULL-ended */
/* NULL: leaves its loop. 0 or -errno. */
int netdev_set_loop(struct netdev *n, struct loop *l);
bool netdev_attach(struct netdev *n, const struct netdev_peer *peer, GError **error);
void netdev_detach(struct netdev *n);
/* Takes the cable out of the device that has it. False: it does not let go. Main thread. */
bool netdev_unplug(struct netdev *n);
/* Counts, drops when the link is down or nobody is there. Same results as ops->send. */
ssize_t netdev_send(struct netdev *n, unsigned queue, const struct iovec *iov, unsigned iov_count);
/* For backends: hands a frame to the peer, counts. */
ssize_t netdev_deliver(struct netdev *n, unsigned queue, const struct iovec *iov,
                       unsigned iov_count);
/* For devices: the peer has room again, after its receive returned 0. Home loop. */
void netdev_receive_ready(struct netdev *n, unsigned queue);
/* ops->save and ops->load from the main thread. Only for one that has state. */
bool netdev_has_state(const struct netdev *n);
bool netdev_save(struct netdev *n, GByteArray *out, GError **error);
bool netdev_load(struct netdev *n, struct cur *c, GError **error);
/* Tells the peer. Home loop. */
void netdev_set_link(struct netdev *n, bool up);
