/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtio-blk's own: between blk.c, blk_request.c and blk_kept.c.
 *
 * Thread    See blk.c.
 */
#pragma once

#include "devices/virtio/virtio.h"
#include "image/image.h"

#include <linux/virtio_blk.h>

#define VBLK_SECTOR 512
#define VBLK_MAX_QUEUES 64
#define VBLK_SEG_MAX 254
#define VBLK_ROOM (VBLK_SEG_MAX + 8) /* header, status, and buffers that the host's memory map cuts */
#define VBLK_MAX_RANGES 32
#define VBLK_MAX_RANGE_SECTORS 0x3fffff
#define VBLK_KEPT_BYTES (16u << 20) /* of saved state */
#define VBLK_HEADER_BYTES 16

_Static_assert(sizeof(struct virtio_blk_outhdr) == VBLK_HEADER_BYTES, "the header is as it is known");

struct vblk;

struct vblk_request {
    struct image_request image;
    struct vblk *s;
    struct vblk_request *next; /* free, or kept */
    uint32_t generation;
    uint16_t queue;
    uint8_t *status;           /* guest memory */
    uint16_t range_count, range_at;
    struct virtio_blk_discard_write_zeroes range[VBLK_MAX_RANGES];
    struct vq_elem e;
    uint8_t cut[VBLK_HEADER_BYTES]; /* bytes of the header in front of each of the first buffers */
    struct iovec iov[VBLK_ROOM];
    uint64_t gpa[VBLK_ROOM];
};

struct vblk {
    VIRTIO_BASE;
    char *drive, *serial, *iothread;
    uint16_t num_queues, queue_size;
    uint32_t logical_block_size, physical_block_size, min_io_size, opt_io_size, discard_granularity;
    int32_t bootindex;
    bool discard, write_zeroes, config_wce, share_rw, attached;
    int write_cache;
    int rerror, werror;        /* what the image does; vmm/build_disk.c hands it over */
    struct image *image;       /* borrowed */
    struct image_info info;
    struct vblk_request *free_list;
    struct vblk_request *kept; /* of a loaded state: start when the machine goes on, in this order */
    GByteArray *kept_state;    /* owned; what a state says of kept requests: blk_kept.c */
    unsigned request_count, request_max;
    /* a bit for each queue: with unpublished chains; left for want of requests */
    uint64_t touched, hungry;
    uint64_t reads, writes, flushes, discards, others, errors, starved;
};

/* Chains of a queue that was kicked; one queue's worth at most. Home loop, lock held. */
void vblk_handle(struct virtio *v, unsigned queue);
/* Until no request is under way. Without the lock. */
void vblk_drain(struct virtio *v);
/* The image has told of all that ended: the driver hears of it. Home loop, without the lock. */
void vblk_batch_done(void *s);
struct vblk_request *vblk_request_get(struct vblk *s); /* NULL: no more for now */
void vblk_request_put(struct vblk *s, struct vblk_request *r);

/* Requests that failed and wait for the machine to go on are saved with it, and begin anew where it goes on. Main
 * thread, the machine stopped and its images drained, without the lock. */
bool vblk_kept_save(struct device *d, GError **error);
/* After the queues were restored. What the bytes say is hostile. */
bool vblk_kept_load(struct vblk *s, GError **error);
/* Those of a loaded state; of one queue, or of all: -1. Lock held. */
void vblk_kept_forget(struct vblk *s, int queue);
/* Home loop: those that the image holds will not be done, nor told to the driver. Without the lock. */
void vblk_held_forget(void *s);
