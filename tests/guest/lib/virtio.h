/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A small virtio 1 driver over PCI: split and packed rings, polled or by interrupts.
 *
 * Spec      VIRTIO 1.2, 2.7, 2.8, 4.1.
 */
#pragma once

#include "guest.h"

#define VIRTIO_VENDOR 0x1af4
#define VIRTIO_ID_NET 1
#define VIRTIO_ID_BLK 2
#define VIRTIO_ID_CONSOLE 3
#define VIRTIO_ID_RNG 4

#define F_INDIRECT (1ul << 28)
#define F_EVENT_IDX (1ul << 29)
#define F_VERSION_1 (1ul << 32)
#define F_PACKED (1ul << 34)

#define STATUS_ACK 1
#define STATUS_DRIVER 2
#define STATUS_DRIVER_OK 4
#define STATUS_FEATURES_OK 8
#define STATUS_NEEDS_RESET 0x40
#define STATUS_FAILED 0x80

/* Common configuration, by offset. */
enum {
    VC_DEVICE_FEATURE_SELECT = 0,
    VC_DEVICE_FEATURE = 4,
    VC_DRIVER_FEATURE_SELECT = 8,
    VC_DRIVER_FEATURE = 12,
    VC_MSIX = 16,
    VC_NUM_QUEUES = 18,
    VC_STATUS = 20,
    VC_GENERATION = 21,
    VC_QUEUE_SELECT = 22,
    VC_QUEUE_SIZE = 24,
    VC_QUEUE_MSIX = 26,
    VC_QUEUE_ENABLE = 28,
    VC_QUEUE_NOTIFY_OFF = 30,
    VC_QUEUE_DESC = 32,
    VC_QUEUE_DRIVER = 40,
    VC_QUEUE_DEVICE = 48,
    VC_QUEUE_RESET = 58,
};

struct vdesc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next; /* packed: id, flags */
};
#define VD_NEXT 1
#define VD_WRITE 2
#define VD_INDIRECT 4
#define VD_AVAIL (1u << 7)
#define VD_USED (1u << 15)

struct vbuf {
    void *p;
    uint32_t len;
};

struct virtio;
#define VQ_MAX 256

struct vq {
    struct virtio *dev;
    uint16_t index, size;
    bool packed;
    struct vdesc *desc;
    volatile uint16_t *avail; /* split: flags, idx, ring[]; packed: the driver's event structure */
    volatile uint16_t *used;  /* split: flags, idx, {id, len}[]; packed: the device's */
    uint16_t avail_idx, used_idx, free_head, free_count;
    bool avail_wrap, used_wrap;
    uint16_t chain_len[VQ_MAX];
    volatile uint16_t *notify;
};

struct virtio {
    struct pci pci;
    unsigned id;
    volatile uint8_t *common, *isr, *config, *notify_base;
    uint32_t notify_multiplier;
    uint64_t features; /* agreed */
};

uint32_t vc_read(struct virtio *d, unsigned off, unsigned size);
void vc_write(struct virtio *d, unsigned off, unsigned size, uint64_t v);

/* The nth device of a kind. False: none. */
bool virtio_find(unsigned id, unsigned nth, struct virtio *ret);
/* A device whose `id` and `pci`, with addresses in its BARs, the caller has filled in. */
bool virtio_open(struct virtio *d);
void virtio_reset(struct virtio *d);
uint64_t virtio_offered(struct virtio *d);
/* Reset, acknowledge, agree on offered & wanted (VERSION_1 always). False: the device refused. */
bool virtio_begin(struct virtio *d, uint64_t wanted);
void virtio_ready(struct virtio *d);
bool vq_init(struct vq *q, struct virtio *d, uint16_t index, uint16_t size);
/* Queues one chain of `out` readable buffers, then `in` writable ones. Its head, or -1: full. */
int vq_add(struct vq *q, const struct vbuf *bufs, unsigned out, unsigned in);
int vq_add_indirect(struct vq *q, struct vdesc *table, const struct vbuf *bufs, unsigned out,
                    unsigned in);
void vq_kick(struct vq *q);
/* A finished chain: its head, *ret_len what the device wrote. -1: none. */
int vq_get(struct vq *q, uint32_t *ret_len);
int vq_wait(struct vq *q, uint32_t *ret_len, unsigned ms);
