/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The address map: regions with priorities in a list, and the flat view made from them.
 *
 * Two locks. `change` serialises everybody who edits the map (recursive, so that begin/end nest and a listener may
 * look at the map). `view_lock` guards the published array: readers hold it for a binary search, writers for a
 * pointer swap. A reader that found a device counts itself in region->users before it lets go, which is what
 * mem_region_remove() waits for.
 */
#include "machine/memory.h"
#include "base/fd.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

struct mem_space {
    const char *name;
    uint64_t limit;
    pthread_mutex_t change;
    unsigned depth;              /* of begin/end */
    bool dirty;
    struct mem_region *regions;  /* latest first: equal priorities resolve to the later one */
    size_t region_count;
    struct mem_listener *listeners;
    pthread_rwlock_t view_lock;
    struct mem_range *view;      /* sorted, no overlaps, adjacent pieces of one region merged */
    size_t view_count;
};

struct mem_space *mem_space_new(const char *name, uint64_t limit)
{
    struct mem_space *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->name = name;
    s->limit = limit;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&s->change, &attr);
    pthread_mutexattr_destroy(&attr);
    pthread_rwlock_init(&s->view_lock, NULL);
    return s;
}

void mem_space_free(struct mem_space *s)
{
    if (!s)
        return;
    for (struct mem_region *r = s->regions; r; r = r->next)
        r->space = NULL;
    pthread_rwlock_destroy(&s->view_lock);
    pthread_mutex_destroy(&s->change);
    free(s->view);
    free(s);
}

/* --- the flat view --- */

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static struct mem_region *winner_at(const struct mem_space *s, uint64_t addr)
{
    struct mem_region *best = NULL;
    for (struct mem_region *r = s->regions; r; r = r->next) {
        if (!r->hidden && addr >= r->base && addr - r->base < r->size &&
            (!best || r->priority > best->priority))
            best = r;
    }
    return best;
}

/* Every region edge starts a stretch; the best region at its first byte owns all of it. O(n^2) on a few dozen
 * regions, on map changes only. */
static int make_view(struct mem_space *s, struct mem_range **ret_view, size_t *ret_count)
{
    size_t edges = 0, count = 0, room = 2 * s->region_count + 1;
    uint64_t *edge = calloc(room, sizeof(*edge));
    struct mem_range *view = calloc(room, sizeof(*view));
    if (!edge || !view) {
        free(edge);
        free(view);
        return -ENOMEM;
    }
    for (struct mem_region *r = s->regions; r; r = r->next) {
        edge[edges++] = r->base;
        edge[edges++] = r->base + r->size;
    }
    qsort(edge, edges, sizeof(*edge), compare_u64);
    for (size_t i = 0; i + 1 < edges; i++) {
        if (edge[i] == edge[i + 1])
            continue;
        struct mem_region *r = winner_at(s, edge[i]);
        if (!r)
            continue;
        struct mem_range *last = count ? &view[count - 1] : NULL;
        if (last && last->region == r && last->base + last->size == edge[i])
            last->size = edge[i + 1] - last->base;
        else
            view[count++] = (struct mem_range){ edge[i], edge[i + 1] - edge[i], r, edge[i] - r->base };
    }
    free(edge);
    *ret_view = view;
    *ret_count = count;
    return 0;
}

/* Change lock held. Without memory for a new view the old one stays, and the change shows with the next. */
static int commit(struct mem_space *s)
{
    struct mem_range *view, *old = s->view;
    size_t count;
    if (s->depth) {
        s->dirty = true;
        return 0;
    }
    s->dirty = false;
    int err = make_view(s, &view, &count);
    if (err)
        return err;
    pthread_rwlock_wrlock(&s->view_lock);
    s->view = view;
    s->view_count = count;
    pthread_rwlock_unlock(&s->view_lock);
    for (struct mem_listener *l = s->listeners; l; l = l->next)
        l->commit(l->opaque, view, count);
    free(old);
    return 0;
}

void mem_space_begin(struct mem_space *s)
{
    pthread_mutex_lock(&s->change);
    s->depth++;
}

void mem_space_end(struct mem_space *s)
{
    if (--s->depth == 0 && s->dirty)
        commit(s);
    pthread_mutex_unlock(&s->change);
}

void mem_space_listen(struct mem_space *s, struct mem_listener *l)
{
    pthread_mutex_lock(&s->change);
    pthread_rwlock_wrlock(&s->view_lock);
    l->next = s->listeners;
    s->listeners = l;
    pthread_rwlock_unlock(&s->view_lock);
    l->commit(l->opaque, s->view, s->view_count);
    pthread_mutex_unlock(&s->change);
}

void mem_space_unlisten(struct mem_space *s, struct mem_listener *l)
{
    pthread_mutex_lock(&s->change);
    pthread_rwlock_wrlock(&s->view_lock); /* mem_written() walks the list without the change lock */
    for (struct mem_listener **p = &s->listeners; *p; p = &(*p)->next) {
        if (*p == l) {
            *p = l->next;
            break;
        }
    }
    pthread_rwlock_unlock(&s->view_lock);
    pthread_mutex_unlock(&s->change);
}

/* --- regions --- */

void mem_region_init_io(struct mem_region *r, const char *name, const struct mem_ops *ops, void *opaque,
                        uint64_t size, pthread_mutex_t *lock)
{
    *r = (struct mem_region){ .name = name, .kind = MEM_IO, .ops = ops, .opaque = opaque, .lock = lock,
                              .size = size, .fd = -1 };
}

void mem_region_init_ram(struct mem_region *r, const char *name, enum mem_kind kind, uint8_t *hva,
                         uint64_t size, int fd, uint64_t fd_off)
{
    *r = (struct mem_region){ .name = name, .kind = kind, .size = size, .hva = hva, .fd = fd,
                              .fd_off = fd_off };
}

int mem_region_add(struct mem_space *s, struct mem_region *r, uint64_t base, int priority)
{
    if (!r->size || !range_fits(base, r->size, s->limit))
        return -ERANGE;
    pthread_mutex_lock(&s->change);
    r->space = s;
    r->base = base;
    r->priority = priority;
    r->hidden = false;
    r->next = s->regions;
    s->regions = r;
    s->region_count++;
    int err = commit(s);
    pthread_mutex_unlock(&s->change);
    return err;
}

int mem_region_move(struct mem_region *r, uint64_t base)
{
    struct mem_space *s = r->space;
    if (!s || !range_fits(base, r->size, s->limit))
        return -ERANGE;
    pthread_mutex_lock(&s->change);
    int err = 0;
    if (r->hidden || r->base != base) {
        r->base = base;
        r->hidden = false;
        err = commit(s);
    }
    pthread_mutex_unlock(&s->change);
    return err;
}

void mem_region_hide(struct mem_region *r)
{
    struct mem_space *s = r->space;
    if (!s)
        return;
    pthread_mutex_lock(&s->change);
    if (!r->hidden) {
        r->hidden = true;
        commit(s);
    }
    pthread_mutex_unlock(&s->change);
}

void mem_region_drain(struct mem_region *r)
{
    while (atomic_load_explicit(&r->users, memory_order_acquire))
        sched_yield();
}

void mem_region_remove(struct mem_region *r)
{
    struct mem_space *s = r->space;
    if (s) {
        pthread_mutex_lock(&s->change);
        for (struct mem_region **p = &s->regions; *p; p = &(*p)->next) {
            if (*p == r) {
                *p = r->next;
                s->region_count--;
                break;
            }
        }
        commit(s);
        r->space = NULL;
        pthread_mutex_unlock(&s->change);
        mem_region_drain(r);
    }
    free(r->eventfds);
    r->eventfds = NULL;
    r->eventfd_count = 0;
}

/* --- eventfds --- */

static bool same_eventfd(const struct mem_eventfd *a, const struct mem_eventfd *b)
{
    return a->off == b->off && a->size == b->size && a->match_data == b->match_data && a->data == b->data;
}

static void eventfds_changed(struct mem_space *s)
{
    for (struct mem_listener *l = s->listeners; l; l = l->next) {
        if (l->eventfds)
            l->eventfds(l->opaque, s->view, s->view_count);
    }
}

/* The write path reads the array under view_lock: it is replaced, or edited with the lock held. */
int mem_eventfd_add(struct mem_region *r, uint64_t off, unsigned size, bool match_data, uint64_t data, int fd)
{
    struct mem_eventfd e = { off, data, (uint8_t)size, match_data, fd };
    struct mem_space *s = r->space;
    if (!s || !range_fits(off, size, r->size))
        return -ERANGE;
    pthread_mutex_lock(&s->change);
    int err = r->eventfd_count >= MEM_MAX_EVENTFDS ? -ENOSPC : 0;
    for (unsigned i = 0; i < r->eventfd_count && !err; i++)
        err = same_eventfd(&r->eventfds[i], &e) ? -EEXIST : 0;
    struct mem_eventfd *bigger = err ? NULL : calloc(r->eventfd_count + 1, sizeof(e));
    if (bigger) {
        if (r->eventfd_count)
            memcpy(bigger, r->eventfds, r->eventfd_count * sizeof(e));
        bigger[r->eventfd_count] = e;
        pthread_rwlock_wrlock(&s->view_lock);
        free(r->eventfds);
        r->eventfds = bigger;
        r->eventfd_count++;
        pthread_rwlock_unlock(&s->view_lock);
        eventfds_changed(s);
    } else if (!err) {
        err = -ENOMEM;
    }
    pthread_mutex_unlock(&s->change);
    return err;
}

void mem_eventfd_remove(struct mem_region *r, uint64_t off, unsigned size, bool match_data, uint64_t data,
                        int fd)
{
    struct mem_eventfd e = { off, data, (uint8_t)size, match_data, fd };
    struct mem_space *s = r->space;
    if (!s)
        return;
    pthread_mutex_lock(&s->change);
    for (unsigned i = 0; i < r->eventfd_count; i++) {
        if (!same_eventfd(&r->eventfds[i], &e))
            continue;
        pthread_rwlock_wrlock(&s->view_lock);
        r->eventfds[i] = r->eventfds[--r->eventfd_count];
        pthread_rwlock_unlock(&s->view_lock);
        eventfds_changed(s);
        break;
    }
    pthread_mutex_unlock(&s->change);
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
