/* SPDX-License-Identifier: GPL-2.0-or-later */
/* KVM's memory slots and ioeventfds, kept equal to the machine's address map by differences.
 *
 * Spec      Linux Documentation/virt/kvm/api.rst: KVM_SET_USER_MEMORY_REGION, KVM_IOEVENTFD.
 * Thread    Any that changes the map; `lock` serialises them.
 * Note      What KVM refuses stays out of its map: accesses there leave the guest and go through
 * the machine's own map, slower and right.
 */
#include "accel/kvm/kvm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#define GUEST_PAGE 4096u

static bool same_slot(const struct accel_slot *a, const struct accel_slot *b)
{
    return a->gpa == b->gpa && a->size == b->size && a->hva == b->hva && a->readonly == b->readonly;
}

static bool usable(const struct kvm_accel *a, const struct accel_slot *s)
{
    return s->size && !(s->gpa % GUEST_PAGE) && !(s->size % GUEST_PAGE) &&
           !((uintptr_t)s->hva % GUEST_PAGE) && (!s->readonly || a->readonly_memory);
}

static bool listed(const struct accel_slot *slots, size_t count, const struct accel_slot *s)
{
    for (size_t i = 0; i < count; i++) {
        if (same_slot(&slots[i], s))
            return true;
    }
    return false;
}

static bool tell_slot(struct kvm_accel *a, unsigned number, const struct accel_slot *s,
                      uint64_t size)
{
    struct kvm_userspace_memory_region region = {
        .slot = number,
        .flags = s->readonly ? KVM_MEM_READONLY : size && a->dirty_bits ? KVM_MEM_LOG_DIRTY_PAGES : 0,
        .guest_phys_addr = s->gpa,
        .memory_size = size,
        .userspace_addr = (uintptr_t)s->hva,
    };
    return ioctl(a->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) == 0;
}

/* Moves a slot's log to the machine's. Without memory for it all of the slot counts as written. */
static void fetch_log(struct kvm_accel *a, unsigned number)
{
    const struct accel_slot *s = &a->slots[number].map;
    uint64_t pages = s->size / GUEST_PAGE, first = s->gpa / GUEST_PAGE;
    g_autofree uint64_t *log = s->readonly ? NULL : g_try_malloc0((pages + 63) / 64 * 8);
    struct kvm_dirty_log request = { .slot = number, .dirty_bitmap = log };
    bool known = log && ioctl(a->vm_fd, KVM_GET_DIRTY_LOG, &request) == 0;
    for (uint64_t i = 0; i < pages && !s->readonly && first + i < a->dirty_pages; i++) {
        if (known && !log[i / 64]) {
            i |= 63;
            continue;
        }
        uint64_t page = first + i;
        if (!known || log[i / 64] >> (i % 64) & 1)
            atomic_fetch_or_explicit(&a->dirty_bits[page / 64], 1ull << (page % 64), memory_order_relaxed);
    }
}

void kvm_dirty_sync(struct accel *accel)
{
    struct kvm_accel *a = to_kvm(accel);
    pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < KVM_MAX_SLOTS && a->dirty_bits; i++) {
        if (a->slots[i].map.size)
            fetch_log(a, i);
    }
    if (a->shared)
        cpu_shared_dirty_anew(a->shared);
    pthread_mutex_unlock(&a->lock);
}

void kvm_dirty_log(struct accel *accel, _Atomic uint64_t *bits, uint64_t pages)
{
    struct kvm_accel *a = to_kvm(accel);
    pthread_mutex_lock(&a->lock);
    a->dirty_bits = bits;
    a->dirty_pages = pages;
    for (unsigned i = 0; i < KVM_MAX_SLOTS; i++) {
        if (a->slots[i].map.size)
            tell_slot(a, i, &a->slots[i].map, a->slots[i].map.size);
    }
    if (a->shared)
        cpu_shared_set_dirty(a->shared, bits, pages);
    pthread_mutex_unlock(&a->lock);
}

static void drop_old_slots(struct kvm_accel *a, const struct accel_slot *slots, size_t count)
{
    for (unsigned i = 0; i < KVM_MAX_SLOTS; i++) {
        struct accel_slot *s = &a->slots[i].map;
        if (s->size && !listed(slots, count, s)) {
            if (a->dirty_bits)
                fetch_log(a, i);
            tell_slot(a, i, s, 0);
            s->size = 0;
        }
    }
}

static bool has_slot(const struct kvm_accel *a, const struct accel_slot *s)
{
    for (unsigned i = 0; i < KVM_MAX_SLOTS; i++) {
        if (a->slots[i].map.size && same_slot(&a->slots[i].map, s))
            return true;
    }
    return false;
}

static void add_slot(struct kvm_accel *a, const struct accel_slot *s)
{
    for (unsigned i = 0; i < KVM_MAX_SLOTS; i++) {
        if (a->slots[i].map.size)
            continue;
        if (tell_slot(a, i, s, s->size))
            a->slots[i].map = *s;
        return;
    }
}

void kvm_set_slots(struct accel *accel, const struct accel_slot *slots, size_t count)
{
    struct kvm_accel *a = to_kvm(accel);
    pthread_mutex_lock(&a->lock);
    drop_old_slots(a, slots, count);
    for (size_t i = 0; i < count; i++) {
        if (usable(a, &slots[i]) && !has_slot(a, &slots[i]))
            add_slot(a, &slots[i]);
    }
    if (a->shared)
        cpu_shared_flush_all(a->shared);
    pthread_mutex_unlock(&a->lock);
}

static bool same_eventfd(const struct accel_eventfd *a, const struct accel_eventfd *b)
{
    return a->addr == b->addr && a->size == b->size && a->fd == b->fd &&
           a->match_data == b->match_data && (!a->match_data || a->data == b->data);
}

static bool eventfd_listed(const struct accel_eventfd *fds, size_t count,
                           const struct accel_eventfd *e)
{
    for (size_t i = 0; i < count; i++) {
        if (same_eventfd(&fds[i], e))
            return true;
    }
    return false;
}

/* Kernels without any-length eventfds take the access by an exit; the machine's map then signals
 * the eventfd. */
static bool tell_eventfd(struct kvm_accel *a, bool io, const struct accel_eventfd *e, bool remove)
{
    if (!e->size && !a->any_length_eventfds)
        return false;
    struct kvm_ioeventfd request = {
        .datamatch = e->data,
        .addr = e->addr,
        .len = e->size,
        .fd = e->fd,
        .flags = (io ? KVM_IOEVENTFD_FLAG_PIO : 0) |
                 (e->match_data ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) |
                 (remove ? KVM_IOEVENTFD_FLAG_DEASSIGN : 0),
    };
    return ioctl(a->vm_fd, KVM_IOEVENTFD, &request) == 0;
}

void kvm_set_eventfds(struct accel *accel, bool io, const struct accel_eventfd *fds, size_t count)
{
    struct kvm_accel *a = to_kvm(accel);
    pthread_mutex_lock(&a->lock);
    struct kvm_eventfds *known = io ? &a->port_fds : &a->memory_fds;
    size_t kept = 0;
    for (size_t i = 0; i < known->count; i++) {
        if (eventfd_listed(fds, count, &known->fds[i]))
            known->fds[kept++] = known->fds[i];
        else
            tell_eventfd(a, io, &known->fds[i], true);
    }
    known->count = kept;
    for (size_t i = 0; i < count && known->count < KVM_MAX_EVENTFDS; i++) {
        if (!eventfd_listed(known->fds, kept, &fds[i]) && tell_eventfd(a, io, &fds[i], false))
            known->fds[known->count++] = fds[i];
    }
    pthread_mutex_unlock(&a->lock);
}
