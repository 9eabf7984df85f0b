/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Address spaces: what stands at a guest-physical address or an I/O port, and access to it.
 *
 * A space holds regions (RAM, ROM, device registers) with priorities; the flat view is a sorted array without
 * overlaps. vCPUs, devices' DMA and the monitor go through it or take host pointers to RAM.
 *
 * Owner     Spaces belong to struct machine, regions to their devices (embedded). A region is removed before
 *           its owner dies; mem_region_remove() waits until no thread is inside its callbacks, so it is
 *           never called from them: a config write that moves or disables a BAR uses mem_region_move() and
 *           mem_region_hide(), which do not wait.
 * Thread    Lookups: any thread, a read lock for the time of a binary search. Changes: any thread, serialised.
 *           Device callbacks run with region->lock held (if not NULL): the device's own mutex.
 * Trust     Addresses and lengths are the guest's.
 * Errors    -EFAULT: nothing there, or not RAM where RAM is needed.
 */
#pragma once

#include "base/util.h"

#include <pthread.h>
#include <stdatomic.h>

struct mem_space;
struct mem_region;

struct mem_ops {
    /* `size` is 1, 2, 4 or 8, within [min_size, max_size]; off + size <= region size; values are little-endian
     * numbers. Wider or narrower guest accesses are split or widened by the dispatcher. */
    uint64_t (*read)(void *opaque, uint64_t off, unsigned size);
    void (*write)(void *opaque, uint64_t off, uint64_t val, unsigned size);
    /* 0 means 1 and 8. Reads narrower than min_size are cut from an aligned one; narrower writes are passed as
     * min_size with the other bytes zero. */
    uint8_t min_size, max_size;
};

enum mem_kind { MEM_IO, MEM_RAM, MEM_ROM };

#define MEM_MAX_EVENTFDS 1024 /* per region */

struct mem_eventfd {
    uint64_t off;
    uint64_t data;
    uint8_t size; /* 0: any width */
    bool match_data;
    int fd;       /* borrowed */
};

struct mem_region {
    const char *name;          /* for QMP and logs; borrowed */
    enum mem_kind kind;
    const struct mem_ops *ops; /* MEM_IO, and writes to MEM_ROM when not NULL */
    void *opaque;
    pthread_mutex_t *lock;     /* held around ops; NULL: ops are thread-safe by themselves */
    uint64_t size;
    uint8_t *hva;              /* MEM_RAM, MEM_ROM: host memory, `size` bytes */
    int fd;                    /* its memfd, or -1 */
    uint64_t fd_off;
    /* private */
    struct mem_space *space;
    uint64_t base;
    int priority;
    bool hidden;
    _Atomic unsigned users;
    struct mem_eventfd *eventfds;
    unsigned eventfd_count;
    struct mem_region *next;
};

/* A stretch of the flat view. */
struct mem_range {
    uint64_t base, size;
    struct mem_region *region;
    uint64_t off; /* in the region */
};

/* Told of every change of the flat view, on the changing thread, with the space's change lock held: used by
 * accelerators (KVM memory slots and ioeventfds; TLB flush of the software CPU). `ranges` is the new view. */
struct mem_listener {
    void (*commit)(void *opaque, const struct mem_range *ranges, size_t count);
    /* Eventfds of a mapped region changed. May be NULL. */
    void (*eventfds)(void *opaque, const struct mem_range *ranges, size_t count);
    /* Somebody wrote RAM other than through a vCPU (dirty log, decoded code). May be NULL. Any thread, with the view's
     * read lock held: looks nothing up, adds and removes no listener. */
    void (*written)(void *opaque, uint64_t addr, uint64_t len);
    void *opaque;
    struct mem_listener *next;
};

/* limit: size of the space in bytes (1 << 52 for memory, 1 << 16 for ports). NULL: out of memory. */
struct mem_space *mem_space_new(const char *name, uint64_t limit);
void mem_space_free(struct mem_space *s);
void mem_space_listen(struct mem_space *s, struct mem_listener *l); /* calls commit once at once */
void mem_space_unlisten(struct mem_space *s, struct mem_listener *l);
/* Several changes, one commit: between begin and end the view keeps its old form. Nestable, same thread. */
void mem_space_begin(struct mem_space *s);
void mem_space_end(struct mem_space *s);

void mem_region_init_io(struct mem_region *r, const char *name, const struct mem_ops *ops, void *opaque,
                        uint64_t size, pthread_mutex_t *lock);
/* RAM or ROM over memory that the caller keeps. */
void mem_region_init_ram(struct mem_region *r, const char *name, enum mem_kind kind, uint8_t *hva,
                         uint64_t size, int fd, uint64_t fd_off);
/* Higher priority hides lower; among equals the later hides the earlier. 0, -ENOMEM or -ERANGE. */
int mem_region_add(struct mem_space *s, struct mem_region *r, uint64_t base, int priority);
int mem_region_move(struct mem_region *r, uint64_t base); /* also shows a hidden one; 0 or -ERANGE */
void mem_region_hide(struct mem_region *r);
/* Returns when nobody is inside the callbacks of a hidden region; the callbacks themselves must not call it. */
void mem_region_drain(struct mem_region *r);
void mem_region_remove(struct mem_region *r); /* removing one that is not added is fine */

/* Writes of `size` (0: any) at `off` [with value `data`] signal `fd` instead of calling the device, without
 * leaving KVM where it can. 0, -ENOSPC, -EEXIST. */
int mem_eventfd_add(struct mem_region *r, uint64_t off, unsigned size, bool match_data, uint64_t data, int fd);
void mem_eventfd_remove(struct mem_region *r, uint64_t off, unsigned size, bool match_data, uint64_t data,
                        int fd);

/* What stands at addr: *ret is cut so that it begins at or before addr; takes a reference on the region,
 * dropped by mem_unref(). False: nothing there. */
bool mem_find(struct mem_space *s, uint64_t addr, struct mem_range *ret);
static inline void mem_unref(struct mem_range *r)
{
    atomic_fetch_sub_explicit(&r->region->users, 1, memory_order_release);
}

/* One access as a vCPU makes it (size 1 to 8). Reads of nothing give all ones; writes to nothing are dropped. */
uint64_t mem_io_read(struct mem_space *s, uint64_t addr, unsigned size);
void mem_io_write(struct mem_space *s, uint64_t addr, uint64_t val, unsigned size);

/* DMA: copies between guest memory and host. Only RAM (and ROM for reads): -EFAULT when any byte is elsewhere,
 * and then nothing was written. Writes tell the listeners. */
int mem_read(struct mem_space *s, uint64_t addr, void *buf, uint64_t len);
int mem_write(struct mem_space *s, uint64_t addr, const void *buf, uint64_t len);
/* Host pointer to RAM at addr; *ret_len <= len is how far it is contiguous. NULL: not RAM (for write: ROM too).
 * RAM is never unmapped while the machine lives, so the pointer stays good. After writing through it,
 * call mem_written(). */
void *mem_ram(struct mem_space *s, uint64_t addr, uint64_t len, bool write, uint64_t *ret_len);
void mem_written(struct mem_space *s, uint64_t addr, uint64_t len);

#define MEM_DEFINE_LOAD(name, type)                                                                \
    static inline int mem_load_##name(struct mem_space *s, uint64_t addr, type *ret)               \
    {                                                                                              \
        return mem_read(s, addr, ret, sizeof(*ret));                                               \
    }                                                                                              \
    static inline int mem_store_##name(struct mem_space *s, uint64_t addr, type val)               \
    {                                                                                              \
        return mem_write(s, addr, &val, sizeof(val));                                              \
    }
MEM_DEFINE_LOAD(le16, uint16_t)
MEM_DEFINE_LOAD(le32, uint32_t)
MEM_DEFINE_LOAD(le64, uint64_t)
