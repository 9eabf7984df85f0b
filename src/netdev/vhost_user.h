/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside `vhost-user`: one connection to a back end, its messages.
 *
 * Spec      QEMU's vhost-user protocol, version 1 (docs/interop/vhost-user.rst).
 * Trust     See vhost_user.c.
 */
#pragma once

#include "netdev/internal.h"

#define VU_HEADER       12
#define VU_MAX_REPLY    16 /* payload of the longest reply that we ask for */
#define VU_MAX_EXPECTED (2 * VHOST_MAX_RINGS + 8)
#define VU_WAIT_NS      (5 * NS_PER_SEC)  /* where we stand still for it */
#define VU_PATIENCE_NS  (60 * NS_PER_SEC) /* where we do not */
#define VU_SHUN_NS      (20 * NS_PER_SEC) /* before one that kept us waiting is spoken to again */
#define VU_QUIET_NS     (10 * NS_PER_SEC) /* between two complaints */

enum vu_request {
    VU_GET_FEATURES = 1,
    VU_SET_FEATURES = 2,
    VU_SET_OWNER = 3,
    VU_SET_MEM_TABLE = 5,
    VU_SET_LOG_BASE = 6,
    VU_SET_VRING_NUM = 8,
    VU_SET_VRING_ADDR = 9,
    VU_SET_VRING_BASE = 10,
    VU_GET_VRING_BASE = 11,
    VU_SET_VRING_KICK = 12,
    VU_SET_VRING_CALL = 13,
    VU_SET_VRING_ERR = 14,
    VU_GET_PROTOCOL_FEATURES = 15,
    VU_SET_PROTOCOL_FEATURES = 16,
    VU_GET_QUEUE_NUM = 17,
    VU_SET_VRING_ENABLE = 18,
    VU_SEND_RARP = 19,
    VU_NET_SET_MTU = 20,
};
enum { VU_FLAG_VERSION = 1, VU_FLAG_VERSION_MASK = 3, VU_FLAG_REPLY = 4, VU_FLAG_NEED_REPLY = 8 };
enum { VU_PF_MQ = 0, VU_PF_LOG_SHMFD = 1, VU_PF_RARP = 2, VU_PF_REPLY_ACK = 3, VU_PF_MTU = 4 };
#define VU_F_LOG_ALL           26 /* feature bits of the transport */
#define VU_F_PROTOCOL_FEATURES 30

enum vu_state {
    VU_AWAY,    /* nobody is connected */
    VU_SHUNNED, /* connected, not spoken to yet */
    VU_AGREEING,
    VU_READY
};

struct vhost_user {
    struct netdev n;
    struct chardev *chardev; /* borrowed */
    enum vu_state state;
    uint64_t features, protocol; /* the back end's; agreed */
    unsigned asked_queues;       /* queues= */
    bool started;
    bool in_stop;            /* the loop is not turned: a fault is told by a task */
    struct loop_timer timer; /* patience, or the end of shunning */
    bool timer_made;
    struct loop_task changed;
    int64_t shunned_until_ns, quiet_until_ns;
    uint64_t connections, faults;
    /* Replies that are to come, in order. */
    struct {
        uint8_t request;
        uint16_t ring;
    } expected[VU_MAX_EXPECTED];
    unsigned expected_count;
    uint8_t in[VU_HEADER + VU_MAX_REPLY];
    size_t in_len;
    unsigned in_fds;                           /* that came with bytes, closed */
    struct vhost_place place[VHOST_MAX_RINGS]; /* by ring */
};

/* vhost_user_wire.c. They end the connection by vu_fault() where they fail, with 0 or -errno. */
int vu_send(struct vhost_user *u, enum vu_request request, bool need_reply, const void *payload,
            size_t len, const int *fds, unsigned fd_count);
int vu_send_u64(struct vhost_user *u, enum vu_request request, uint64_t v);
int vu_send_ring(struct vhost_user *u, enum vu_request request, unsigned ring, uint32_t v);
/* fd -1: none */
int vu_send_ring_fd(struct vhost_user *u, enum vu_request request, unsigned ring, int fd);
int vu_expect(struct vhost_user *u, enum vu_request request, unsigned ring);
/* Takes what has come; each whole reply goes to vu_replied(). */
void vu_receive(struct vhost_user *u);
/* Until nothing is expected any more; a bounded time. */
int vu_wait(struct vhost_user *u);

/* vhost_user.c */
void vu_fault(struct vhost_user *u, const char *why);
/* 0 or -errno: not what was asked for */
int vu_replied(struct vhost_user *u, enum vu_request request, unsigned ring, struct cur *payload);
