/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Procedures of libvirt's remote protocol: each is one RPC_PROC() row in its own proc_*.c.
 *
 * Spec      libvirt's RPC at 9.0.0: programs remote 0x20008086, qemu 0x20008087, keepalive
 *           0x6b656570.
 * Thread    The loop thread. RPC_FAST calls are made in place, others as a task each: they may
 *           wait, and are answered when they are done, in any order.
 * Rule      A procedure only translates: arguments to an operation of the core, its result to the
 *           wire.
 */
#pragma once

#include "base/linkset.h"
#include "libvirt/xdr.h"
#include "manager/manager.h"

struct client;     /* one connection: client.h */
struct rpc_stream; /* stream.h */

struct rpc_call {
    struct client *client;
    const struct caller *who;
    uint32_t serial, program, procedure;
    int *fds; /* that came with it; taken ones become -1, the rest is closed */
    unsigned fd_count;
    int ret_fd;                /* goes with the reply (taken); -1 */
    struct rpc_stream *stream; /* a procedure with RPC_STREAM sets it up */
};

enum rpc_flags {
    RPC_READONLY = 1u << 0, /* read-only connections may call it */
    RPC_FAST = 1u << 1,     /* never waits */
    RPC_NO_OPEN = 1u << 2,  /* before CONNECT_OPEN too */
    RPC_NO_AUTH = 1u << 3,  /* before authentication too */
    RPC_STREAM = 1u << 4,   /* a stream follows the reply */
};

struct rpc_proc {
    const char *name;         /* "domain_lookup_by_name": in traces */
    uint32_t program, number; /* program 0: remote */
    unsigned flags;
    const struct xdr_row *args, *ret; /* NULL: none */
    size_t args_size, ret_size;
    /* false with *error: the error goes out, ret is freed */
    bool (*call)(struct rpc_call *c, void *args, void *ret, GError **error);
};
LINKSET_DECLARE(rpc_procs);
#define RPC_PROC(ident, ...)                                                                       \
    static const struct rpc_proc rpc_proc_##ident = {.name = #ident, __VA_ARGS__};                 \
    LINKSET_ENTRY(rpc_procs, rpc_proc_##ident)

/* By its number; NULL: none of ours ("unsupported", code 3, if the number is libvirt's). */
const struct rpc_proc *rpc_find(uint32_t program, uint32_t number);
