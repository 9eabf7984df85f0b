/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the driver "rbd" share. */
#pragma once

#include "image/driver.h"

#include <rados/librados.h>
#include <rbd/librbd.h>

struct rbd_node {
    struct node node;
    char *pool, *name_space, *image, *snapshot, *conf, *user, *key_secret;
    JsonNode *values; /* more of ceph.conf: an object of strings */
    uint64_t timeout_sec;

    rados_t cluster;
    rados_ioctx_t pool_io;
    rbd_image_t handle;
    uint64_t image_bytes; /* its size in the cluster, at least the node's */
    bool gave_up;           /* a request found the cluster gone */
    bool fast_diff;       /* the cluster knows which objects there are */
    struct fiber_mutex grow_lock;
};

static inline struct rbd_node *rbd_of(struct node *n)
{
    return container_of(n, struct rbd_node, node);
}

/* ---- rbd_io.c (f) ---- */

int rbd_node_read(struct node *node, uint64_t off, struct vec v, unsigned flags);
int rbd_node_write(struct node *node, uint64_t off, struct vec v, unsigned flags);
int rbd_node_flush(struct node *node);
int rbd_node_discard(struct node *node, uint64_t off, uint64_t len);
int rbd_node_zero(struct node *node, uint64_t off, uint64_t len, unsigned flags);
int rbd_node_map(struct node *node, uint64_t off, uint64_t len, struct image_extent *ret);
/* Gives the image that size: 0 or negative errno. */
int rbd_node_set_size(struct rbd_node *n, uint64_t size);
