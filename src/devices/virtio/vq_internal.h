/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between virtqueue.c and the two ring formats: layouts, single reads of guest memory. */
#pragma once

#include "devices/virtio/virtqueue.h"

#include <errno.h>

struct vq_desc { /* split, and indirect tables of both */
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next; /* packed: id, flags */
};

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };

/* Guest memory may change at any time: one load, one store each, never torn. */
#define guest_load(p) __atomic_load_n(p, __ATOMIC_RELAXED)
#define guest_load_acquire(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define guest_store(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)
#define guest_store_release(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)

/* Section 2.7.10: did [old, new) pass `event`? */
static inline bool vq_passed(uint16_t event, uint16_t new, uint16_t old)
{
    return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

int vq_fail(struct vq *q, const char *why);
void *vq_map_whole(struct vq *q, uint64_t gpa, uint64_t len, bool write);
int vq_add_buffer(struct vq *q, struct vq_elem *e, uint64_t gpa, uint32_t len, bool write);

int vq_split_pop(struct vq *q, struct vq_elem *e);
void vq_split_push(struct vq *q, const struct vq_elem *e, uint32_t len);
bool vq_split_publish(struct vq *q);
bool vq_split_has_avail(struct vq *q);
void vq_split_notify(struct vq *q, bool on);
uint16_t vq_split_used(const struct vq *q); /* what the driver sees */

uint32_t vq_packed_place(const struct vq *q);
int vq_packed_set_place(struct vq *q, uint32_t place);
int vq_packed_pop(struct vq *q, struct vq_elem *e);
void vq_packed_push(struct vq *q, const struct vq_elem *e, uint32_t len);
bool vq_packed_publish(struct vq *q);
bool vq_packed_has_avail(struct vq *q);
void vq_packed_notify(struct vq *q, bool on);
