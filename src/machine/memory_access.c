/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Accesses by the flat view: lookups, a vCPU's reads and writes split to what a device takes, DMA. The map itself is
 * made in memory.c; nothing here changes it.
 *
 * Thread    Any; view_lock is held for reading during a search, and let go before a device is called.
 * Trust     Addresses, lengths and values are the guest's.
 */
#include "machine/memory_internal.h"
#include "base/fd.h"

#include <errno.h>
#include <string.h>

/* --- lookups --- */

static const struct mem_range *find_locked(const struct mem_space *s, uint64_t addr)
{
    size_t low = 0, high = s->view_count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (s->view[mid].base > addr)
            high = mid;
        else
            low = mid + 1;
    }
    if (!low)
        return NULL;
    const struct mem_range *r = &s->view[low - 1];
    return addr - r->base < r->size ? r : NULL;
}

bool mem_find(struct mem_space *s, uint64_t addr, struct mem_range *ret)
{
    pthread_rwlock_rdlock(&s->view_lock);
    const struct mem_range *r = find_locked(s, addr);
    if (r) {
        *ret = *r;
        atomic_fetch_add_explicit(&r->region->users, 1, memory_order_acquire);
    }
    pthread_rwlock_unlock(&s->view_lock);
    return r;
}

/* --- a vCPU's accesses --- */

static uint64_t ones(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (1ULL << (8 * size)) - 1;
}

static unsigned limit_min(const struct mem_ops *o)
{
    return o->min_size ? o->min_size : 1;
}

static unsigned limit_max(const struct mem_ops *o)
{
    return o->max_size ? o->max_size : 8;
}

/* The widest power of two that the device takes, is aligned at `off`, and fits into `left`. */
static unsigned piece_size(const struct mem_ops *o, uint64_t off, unsigned left)
{
    unsigned size = limit_max(o);
    while (size > 1 && (size > left || (off & (size - 1)) != 0))
        size /= 2;
    return size;
}

/* One piece, no larger than max_size. Narrower than min_size: part of the aligned wider register. */
static uint64_t region_read_piece(struct mem_region *r, uint64_t off, unsigned size)
{
    unsigned min = limit_min(r->ops);
    if (size >= min)
        return r->ops->read(r->opaque, off, size) & ones(size);
    uint64_t base = align_down(off, min);
    if (!range_fits(base, min, r->size))
        return ones(size);
    return (r->ops->read(r->opaque, base, min) >> (8 * (off - base))) & ones(size);
}

static void region_write_piece(struct mem_region *r, uint64_t off, uint64_t val, unsigned size)
{
    unsigned min = limit_min(r->ops);
    val &= ones(size);
    if (size >= min) {
        r->ops->write(r->opaque, off, val, size);
        return;
    }
    uint64_t base = align_down(off, min);
    if (range_fits(base, min, r->size))
        r->ops->write(r->opaque, base, val << (8 * (off - base)), min);
}

/* An access that a device accepts as it is goes in one piece even when unaligned; others are split. */
static unsigned next_piece(const struct mem_ops *o, uint64_t off, unsigned left)
{
    bool whole = is_power_of_2(left) && left <= limit_max(o);
    return whole ? left : piece_size(o, off, left);
}

static uint64_t region_read(struct mem_region *r, uint64_t off, unsigned size)
{
    if (r->kind != MEM_IO) {
        uint64_t v = 0;
        memcpy(&v, r->hva + off, size);
        return v;
    }
    uint64_t v = 0;
    if (r->lock)
        pthread_mutex_lock(r->lock);
    for (unsigned done = 0; done < size;) {
        unsigned piece = next_piece(r->ops, off + done, size - done);
        v |= region_read_piece(r, off + done, piece) << (8 * done);
        done += piece;
    }
    if (r->lock)
        pthread_mutex_unlock(r->lock);
    return v;
}

static void region_write(struct mem_region *r, uint64_t off, uint64_t val, unsigned size)
{
    if (r->kind == MEM_RAM) {
        memcpy(r->hva + off, &val, size);
        return;
    }
    if (!r->ops)
        return; /* ROM: the write goes nowhere */
    if (r->lock)
        pthread_mutex_lock(r->lock);
    for (unsigned done = 0; done < size;) {
        unsigned piece = next_piece(r->ops, off + done, size - done);
        region_write_piece(r, off + done, val >> (8 * done), piece);
        done += piece;
    }
    if (r->lock)
        pthread_mutex_unlock(r->lock);
}

/* How many bytes from addr one access may take of the region. Registers answer in full width by the address alone, even
 * where another region hides the bytes behind: CF9 is another device's than the dword at CF8. */
static uint64_t reach(const struct mem_range *r, uint64_t addr, uint64_t off)
{
    return r->region->kind == MEM_IO ? r->region->size - off : r->size - (addr - r->base);
}

uint64_t mem_io_read(struct mem_space *s, uint64_t addr, unsigned size)
{
    struct mem_range r;
    if (!mem_find(s, addr, &r))
        return size == 1 ? 0xff : ones(1) | mem_io_read(s, addr + 1, size - 1) << 8;
    uint64_t off = r.off + (addr - r.base);
    unsigned here = (unsigned)min_u64(size, reach(&r, addr, off));
    uint64_t v = region_read(r.region, off, here);
    mem_unref(&r);
    if (here < size)
        v |= mem_io_read(s, addr + here, size - here) << (8 * here);
    return v;
}

/* view_lock held for reading: the eventfd that this write hits, or -1. */
static int eventfd_hit(const struct mem_region *r, uint64_t off, uint64_t val, unsigned size)
{
    for (unsigned i = 0; i < r->eventfd_count; i++) {
        const struct mem_eventfd *e = &r->eventfds[i];
        if (e->off == off && (!e->size || e->size == size) && (!e->match_data || e->data == val))
            return e->fd;
    }
    return -1;
}

void mem_io_write(struct mem_space *s, uint64_t addr, uint64_t val, unsigned size)
{
    pthread_rwlock_rdlock(&s->view_lock);
    const struct mem_range *found = find_locked(s, addr);
    if (!found) {
        pthread_rwlock_unlock(&s->view_lock);
        if (size > 1)
            mem_io_write(s, addr + 1, val >> 8, size - 1);
        return;
    }
    struct mem_range r = *found;
    uint64_t off = r.off + (addr - r.base);
    unsigned here = (unsigned)min_u64(size, reach(&r, addr, off));
    int fd = r.region->eventfd_count ? eventfd_hit(r.region, off, val & ones(here), here) : -1;
    if (fd >= 0)
        eventfd_signal(fd);
    else
        atomic_fetch_add_explicit(&r.region->users, 1, memory_order_acquire);
    pthread_rwlock_unlock(&s->view_lock);
    if (fd < 0) {
        region_write(r.region, off, val, here);
        if (r.region->kind == MEM_RAM)
            mem_written(s, addr, here);
        mem_unref(&r);
    }
    if (here < size)
        mem_io_write(s, addr + here, val >> (8 * here), size - here);
}

/* --- DMA --- */

void *mem_ram(struct mem_space *s, uint64_t addr, uint64_t len, bool write, uint64_t *ret_len)
{
    void *p = NULL;
    pthread_rwlock_rdlock(&s->view_lock);
    const struct mem_range *r = find_locked(s, addr);
    if (r && (r->region->kind == MEM_RAM || (r->region->kind == MEM_ROM && !write))) {
        uint64_t skip = addr - r->base;
        p = r->region->hva + r->off + skip;
        *ret_len = min_u64(len, r->size - skip);
    }
    pthread_rwlock_unlock(&s->view_lock);
    return p;
}

/* All of [addr, addr + len) is RAM (or readable ROM). */
static bool all_ram(struct mem_space *s, uint64_t addr, uint64_t len, bool write)
{
    if (!range_fits(addr, len, s->limit))
        return false;
    while (len) {
        uint64_t here;
        if (!mem_ram(s, addr, len, write, &here))
            return false;
        addr += here;
        len -= here;
    }
    return true;
}

int mem_read(struct mem_space *s, uint64_t addr, void *buf, uint64_t len)
{
    uint8_t *to = buf;
    while (len) {
        uint64_t here;
        const void *p = mem_ram(s, addr, len, false, &here);
        if (!p)
            return -EFAULT;
        memcpy(to, p, here);
        to += here;
        addr += here;
        len -= here;
    }
    return 0;
}

int mem_write(struct mem_space *s, uint64_t addr, const void *buf, uint64_t len)
{
    const uint8_t *from = buf;
    if (!all_ram(s, addr, len, true))
        return -EFAULT;
    while (len) {
        uint64_t here;
        void *p = mem_ram(s, addr, len, true, &here);
        if (!p)
            return -EFAULT; /* the guest moved its map in between */
        memcpy(p, from, here);
        mem_written(s, addr, here);
        from += here;
        addr += here;
        len -= here;
    }
    return 0;
}

void mem_written(struct mem_space *s, uint64_t addr, uint64_t len)
{
    pthread_rwlock_rdlock(&s->view_lock);
    for (struct mem_listener *l = s->listeners; l; l = l->next) {
        if (l->written)
            l->written(l->opaque, addr, len);
    }
    pthread_rwlock_unlock(&s->view_lock);
}
