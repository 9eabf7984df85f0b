/* SPDX-License-Identifier: GPL-2.0-or-later */
/* virtqueue: split and packed rings, the device's side.
 *
 * Spec      VIRTIO 1.2, sections 2.6 to 2.8.
 * Owner     The device embeds it; no memory of its own. Chains are popped into elements that the
 *           caller provides.
 * Thread    One at a time, under the device's lock.
 * Units     Addresses are guest-physical, lengths bytes, indexes ring slots.
 * Trust     Ring contents are hostile and may change while they are read: each field is read once,
 *           into a local.
 * Errors    -EBADMSG: the guest broke the ring, `why` says how; it stays broken until vq_reset().
 */
#pragma once

#include "base/cursor.h"
#include "machine/memory.h"

#include <glib.h>

#include <sys/uio.h>

#define VQ_MAX_SIZE 1024
#define VQ_NO_VECTOR 0xffff

struct vq {
    struct mem_space *mem;
    /* As the driver set them. */
    uint64_t desc_gpa, driver_gpa, device_gpa;
    uint16_t max_size, size, vector;
    bool enabled, packed, event_idx, indirect;
    /* Mapped by vq_enable(); guest memory. */
    void *desc, *driver, *device;
    uint16_t next_avail;  /* split: free-running; packed: slot */
    uint16_t next_used;
    bool avail_wrap, used_wrap;
    uint16_t in_flight;   /* slots popped and not pushed */
    uint16_t added;       /* used since the last vq_publish() */
    bool notify_off;      /* the driver need not notify */
    const char *why;      /* how it was broken, or NULL */
    uint32_t generation;  /* grows at every reset: tells requests of an earlier life */
    bool was_enabled, was_broken; /* of a saved state: between vq_save() or loading, and vq_restore() */
    uint32_t held;        /* chains with a device's asynchronous requests, of any life */
    uint64_t chains, interrupts, suppressed, kicks; /* counters */
};

/* A chain of buffers: readable ones first, then writable ones. */
struct vq_elem {
    uint16_t id;          /* what the driver knows it by */
    uint16_t slots;       /* of the ring */
    uint16_t out_count, in_count; /* entries of iov: what the device reads, what it writes */
    uint16_t room;        /* entries of iov and gpa */
    uint64_t out_bytes, in_bytes;
    /* the caller's; host pointers to guest memory, good for the machine's life */
    struct iovec *iov;
    uint64_t *gpa;        /* guest-physical address of each entry */
};

void vq_init(struct vq *q, struct mem_space *mem, uint16_t max_size);
void vq_reset(struct vq *q);
/* Checks and maps the ring that the driver described. 0, or -EBADMSG. */
int vq_enable(struct vq *q);

/* Before and after the fields are saved and loaded; nothing is unpublished. vq_restore() maps the ring as vq_enable()
 * does, and takes its place in it: 0, or -EBADMSG with `why`. */
void vq_save(struct vq *q);
int vq_restore(struct vq *q);

/* Where the device goes on in the ring, for somebody else who works on it meanwhile. Split: the next available index;
 * packed: also the next used one, in the upper half, each with its wrap counter as bit 15. */
uint32_t vq_place(const struct vq *q);
/* The ring comes back: at that place (an upper half that the ring contradicts, as that of DPDK, which is always 0, is
 * taken as equal to the lower one), or, `place` NULL, where the driver was last given something back; nothing is
 * unpublished. 0, or -EBADMSG: nobody knows the place in a packed ring, or it is none. */
int vq_set_place(struct vq *q, const uint32_t *place);

/* 1: a chain is in e; 0: nothing there; -EBADMSG. */
int vq_pop(struct vq *q, struct vq_elem *e);
/* Undoes the latest vq_pop(). */
void vq_unpop(struct vq *q, const struct vq_elem *e);
/* Gives the chain back with `len` bytes written. Seen by the driver at the latest after
 * vq_publish(). */
void vq_push(struct vq *q, const struct vq_elem *e, uint32_t len);
/* Makes pushes visible; true: the driver wants an interrupt. */
bool vq_publish(struct vq *q);
bool vq_has_avail(struct vq *q);
/* Notifications from the driver are not needed for now. */
void vq_notify_disable(struct vq *q);
/* They are needed again; true: something came meanwhile and no notification will follow. */
bool vq_notify_enable(struct vq *q);

/* A chain that was popped, as a saved state has it: `front` bytes were cut off each of its first `fronts` buffers and
 * `back` off its last one, which are there again. Loading: the chain is hostile and checked as a popped one is, but does not
 * come from the ring; 0, or -EBADMSG with `why`. */
void vq_elem_save(const struct vq_elem *e, const uint8_t *front, unsigned fronts, unsigned back, GByteArray *out);
int vq_elem_load(struct vq *q, struct vq_elem *e, struct cur *c);

static inline struct iovec *vq_in(const struct vq_elem *e)
{
    return e->iov + e->out_count;
}

/* Copies between the chain's readable (out) or writable (in) part and a buffer; returns how much
 * there was. */
size_t vq_copy_out(const struct vq_elem *e, size_t skip, void *to, size_t len);
size_t vq_copy_in(const struct vq_elem *e, size_t skip, const void *from, size_t len);
