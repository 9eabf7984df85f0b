/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The address map: regions with priorities in a list, and the flat view made from them. Who looks something up in
 * the view is in memory_access.c.
 */
#include "machine/memory_internal.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

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
