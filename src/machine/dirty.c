/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The log of written pages; see dirty.h. */
#include "machine/dirty.h"

#include "machine/machine_internal.h"

#include <errno.h>
#include <sys/mman.h>

#define PAGE_BYTES 4096u

struct machine_dirty {
    _Atomic uint64_t *bits; /* mapped: what is not touched costs nothing */
    uint64_t pages, words;
    _Atomic bool on;
};

uint64_t machine_dirty_pages(const struct machine *m)
{
    return (m->ram_above_4g ? 4 * GIB + m->ram_above_4g : m->ram_below_4g) / PAGE_BYTES;
}

static struct machine_dirty *make(struct machine *m)
{
    struct machine_dirty *d = g_new0(struct machine_dirty, 1);
    d->pages = machine_dirty_pages(m);
    d->words = (d->pages + 63) / 64;
    void *map = mmap(NULL, d->words * sizeof(uint64_t), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        g_free(d);
        return NULL;
    }
    d->bits = map;
    return d;
}

static void set_log(struct machine *m, bool on)
{
    struct machine_dirty *d = m->dirty;
    const struct accel_ops *ops = m->accel->ops;
    bool was_running = machine_is_running(m);
    machine_threads_stop(m);
    atomic_store(&d->on, on);
    if (ops->dirty_log)
        ops->dirty_log(m->accel, on ? d->bits : NULL, on ? d->pages : 0);
    if (was_running)
        machine_threads_run(m);
}

static bool log_devices(struct machine *m, bool on, GError **error)
{
    bool ok = true;
    for (struct device *d = m->devices; ok && d; d = d->next) {
        if (d->realized && d->type->log_writes)
            ok = d->type->log_writes(d, on, error);
    }
    return ok;
}

bool machine_dirty_start(struct machine *m, GError **error)
{
    if (!m->dirty) {
        struct machine_dirty *d = make(m);
        if (!d)
            return ruche_error_errno(error, errno, "no memory for the log of written pages");
        __atomic_store_n(&m->dirty, d, __ATOMIC_RELEASE);
    }
    for (uint64_t i = 0; i < m->dirty->words; i++)
        atomic_store_explicit(&m->dirty->bits[i], 0, memory_order_relaxed);
    set_log(m, true);
    if (!log_devices(m, true, error)) {
        machine_dirty_stop(m);
        return false;
    }
    return true;
}

void machine_dirty_stop(struct machine *m)
{
    if (!m->dirty || !m->dirty->on)
        return;
    log_devices(m, false, NULL);
    set_log(m, false);
}

uint64_t machine_dirty_harvest(struct machine *m, uint64_t *to)
{
    struct machine_dirty *d = m->dirty;
    uint64_t count = 0;
    bool was_running = machine_is_running(m);
    machine_threads_stop(m);
    if (m->accel->ops->dirty_sync)
        m->accel->ops->dirty_sync(m->accel);
    for (struct device *dev = m->devices; dev; dev = dev->next) {
        if (dev->realized && dev->type->log_harvest)
            dev->type->log_harvest(dev);
    }
    for (uint64_t i = 0; i < d->words; i++) {
        if (!atomic_load_explicit(&d->bits[i], memory_order_relaxed))
            continue;
        uint64_t bits = atomic_exchange(&d->bits[i], 0);
        count += (unsigned)__builtin_popcountll(bits);
        to[i] |= bits;
    }
    if (was_running)
        machine_threads_run(m);
    return count;
}

void machine_dirty_free(struct machine *m)
{
    if (m->dirty)
        munmap((void *)m->dirty->bits, m->dirty->words * sizeof(uint64_t));
    g_clear_pointer(&m->dirty, g_free);
}

void machine_dirty_written(struct machine *m, uint64_t gpa, uint64_t len)
{
    struct machine_dirty *d = __atomic_load_n(&m->dirty, __ATOMIC_ACQUIRE);
    if (!d || !atomic_load_explicit(&d->on, memory_order_relaxed) || !len)
        return;
    uint64_t first = gpa / PAGE_BYTES, last = (gpa + len - 1) / PAGE_BYTES;
    atomic_thread_fence(memory_order_seq_cst); /* the bytes before the mark */
    for (uint64_t page = first; page <= last && page < d->pages; page++)
        atomic_fetch_or_explicit(&d->bits[page / 64], 1ull << (page % 64), memory_order_release);
}
