/* SPDX-License-Identifier: GPL-2.0-or-later */
/* MSI-X: a table of messages with masks in a BAR, and the pending bits behind it.
 *
 * Spec      PCI Local Bus 3.0, 6.8.2.
 * Thread    The table: any vCPU, serialised by table_lock, which is also held around on_change. The entries and the
 *           pending bits are read by pci_msix_notify() on any thread under the function's intr_lock.
 * Trust     The whole table is the guest's; a message is only handed to the interrupt controllers.
 */
#include "devices/pci/pci_internal.h"

#include <errno.h>

#define MSIX_LEN 12
#define MSIX_CONTROL 2
#define MSIX_ENABLE 0x8000
#define MSIX_FUNCTION_MASK 0x4000
#define ENTRY_SIZE 16
#define ENTRY_MASKED 1u
#define PBA_ALIGN 4096

struct msix_entry {
    uint32_t addr, addr_high, data, control;
};

struct pci_msix {
    struct pci_device *owner;
    uint16_t cap;
    unsigned count;
    uint32_t table_size; /* bytes until the PBA */
    pthread_mutex_t table_lock;
    struct msix_entry *entry;
    uint64_t *pending; /* one bit a vector */
    uint64_t *live;    /* what on_change was told last */
    bool enabled, function_masked;
    void (*on_change)(struct pci_device *p, unsigned vector, bool live);
    struct mem_region region;
};

static inline bool bit_get(const uint64_t *map, unsigned n)
{
    return map[n / 64] >> (n % 64) & 1;
}

static inline void bit_put(uint64_t *map, unsigned n, bool on)
{
    uint64_t bit = 1ULL << (n % 64);
    map[n / 64] = on ? map[n / 64] | bit : map[n / 64] & ~bit;
}

static bool deliverable(const struct pci_msix *x, unsigned n)
{
    return x->enabled && !x->function_masked && !(x->entry[n].control & ENTRY_MASKED);
}

static void send(struct pci_msix *x, const struct msix_entry *e)
{
    if (pci_bus_master(x->owner))
        machine_msi(x->owner->dev.machine, e->addr | (uint64_t)e->addr_high << 32, e->data);
}

/* After a change that may concern vector n: sends what was pending, tells the owner. table_lock is held. */
static void vector_changed(struct pci_msix *x, unsigned n, bool message_changed)
{
    struct pci_device *p = x->owner;
    pthread_mutex_lock(&p->intr_lock);
    bool now = deliverable(x, n), before = bit_get(x->live, n);
    bool fire = now && bit_get(x->pending, n);
    struct msix_entry e = x->entry[n];
    if (fire)
        bit_put(x->pending, n, false);
    bit_put(x->live, n, now);
    pthread_mutex_unlock(&p->intr_lock);
    if (x->on_change && (now != before || (now && message_changed)))
        x->on_change(p, n, now);
    if (fire)
        send(x, &e);
}

static uint64_t table_read(void *opaque, uint64_t off, unsigned size)
{
    struct pci_msix *x = opaque;
    uint32_t val = 0;
    pthread_mutex_lock(&x->owner->intr_lock);
    if (off < x->count * ENTRY_SIZE) {
        memcpy(&val, (uint8_t *)x->entry + off, 4);
    } else if (off >= x->table_size) {
        unsigned word = (unsigned)(off - x->table_size) / 4;
        if (word < (x->count + 63) / 64 * 2)
            val = (uint32_t)(x->pending[word / 2] >> 32 * (word % 2));
    }
    pthread_mutex_unlock(&x->owner->intr_lock);
    return val;
}

static void table_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct pci_msix *x = opaque;
    if (off >= x->count * ENTRY_SIZE)
        return;
    unsigned n = (unsigned)off / ENTRY_SIZE, field = (unsigned)off % ENTRY_SIZE;
    uint32_t v = (uint32_t)val;
    if (field == offsetof(struct msix_entry, addr))
        v &= ~3u;
    else if (field == offsetof(struct msix_entry, control))
        v &= ENTRY_MASKED;
    pthread_mutex_lock(&x->table_lock);
    pthread_mutex_lock(&x->owner->intr_lock);
    memcpy((uint8_t *)&x->entry[n] + field, &v, 4);
    pthread_mutex_unlock(&x->owner->intr_lock);
    vector_changed(x, n, field != offsetof(struct msix_entry, control));
    pthread_mutex_unlock(&x->table_lock);
}

static const struct mem_ops table_ops = {
    .read = table_read, .write = table_write, .min_size = 4, .max_size = 4,
};

int pci_add_msix(struct pci_device *p, unsigned bar, unsigned vectors)
{
    if (!vectors || vectors > PCI_MSIX_MAX)
        return -EINVAL;
    struct pci_msix *x = g_try_new0(struct pci_msix, 1);
    if (!x)
        return -ENOMEM;
    p->msix = x;
    x->owner = p;
    x->count = vectors;
    x->table_size = (uint32_t)align_up(vectors * ENTRY_SIZE, PBA_ALIGN);
    x->entry = g_try_new0(struct msix_entry, vectors);
    x->pending = g_try_new0(uint64_t, (vectors + 63) / 64);
    x->live = g_try_new0(uint64_t, (vectors + 63) / 64);
    pthread_mutex_init(&x->table_lock, NULL);
    int cap = pci_add_capability(p, PCI_CAP_MSIX, MSIX_LEN);
    if (!x->entry || !x->pending || !x->live || cap < 0) {
        pci_msix_free(p);
        return cap < 0 ? cap : -ENOMEM;
    }
    x->cap = (uint16_t)cap;
    pci_set16(p, cap + MSIX_CONTROL, (uint16_t)(vectors - 1));
    p->writable[cap + MSIX_CONTROL + 1] = 0xc0;
    pci_set32(p, cap + 4, bar);
    pci_set32(p, cap + 8, x->table_size | bar);
    uint64_t size = 2 * PBA_ALIGN;
    while (size < x->table_size + PBA_ALIGN)
        size *= 2;
    mem_region_init_io(&x->region, "msix", &table_ops, x, size, NULL);
    pci_bar_register(p, bar, PCI_BAR_MEM32, &x->region);
    pci_msix_reset(p);
    return 0;
}

void pci_msix_free(struct pci_device *p)
{
    struct pci_msix *x = p->msix;
    if (!x)
        return;
    p->msix = NULL;
    pthread_mutex_destroy(&x->table_lock);
    g_free(x->entry);
    g_free(x->pending);
    g_free(x->live);
    g_free(x);
}

uint16_t pci_msix_cap(const struct pci_device *p)
{
    return p->msix->cap;
}

void pci_msix_on_change(struct pci_device *p, void (*fn)(struct pci_device *p, unsigned vector, bool live))
{
    if (p->msix)
        p->msix->on_change = fn;
}

static void refresh(struct pci_msix *x)
{
    struct pci_device *p = x->owner;
    pthread_mutex_lock(&x->table_lock);
    pthread_mutex_lock(&p->intr_lock);
    uint16_t control = pci_get16(p, x->cap + MSIX_CONTROL);
    x->enabled = control & MSIX_ENABLE;
    x->function_masked = control & MSIX_FUNCTION_MASK;
    pthread_mutex_unlock(&p->intr_lock);
    for (unsigned n = 0; n < x->count; n++)
        vector_changed(x, n, false);
    pthread_mutex_unlock(&x->table_lock);
}

void *pci_msix_saved_table(void *device, uint32_t *ret_count)
{
    struct pci_msix *x = ((struct pci_device *)device)->msix;
    *ret_count = x ? x->count * (uint32_t)(ENTRY_SIZE / sizeof(uint32_t)) : 0;
    return x ? x->entry : NULL;
}

void *pci_msix_saved_pending(void *device, uint32_t *ret_count)
{
    struct pci_msix *x = ((struct pci_device *)device)->msix;
    *ret_count = x ? (x->count + 63) / 64 : 0;
    return x ? x->pending : NULL;
}

/* Nothing is live yet: who follows the vectors hears of those that are. */
void pci_msix_loaded(struct pci_device *p)
{
    struct pci_msix *x = p->msix;
    if (!x)
        return;
    for (unsigned n = 0; n < x->count; n++) {
        x->entry[n].addr &= ~3u;
        x->entry[n].control &= ENTRY_MASKED;
    }
    refresh(x);
}

void pci_msix_control_written(struct pci_device *p)
{
    refresh(p->msix);
}

void pci_msix_reset(struct pci_device *p)
{
    struct pci_msix *x = p->msix;
    if (!x)
        return;
    pthread_mutex_lock(&p->intr_lock);
    for (unsigned n = 0; n < x->count; n++)
        x->entry[n] = (struct msix_entry){ .control = ENTRY_MASKED };
    memset(x->pending, 0, (x->count + 63) / 64 * sizeof(uint64_t));
    pthread_mutex_unlock(&p->intr_lock);
    refresh(x);
}

bool pci_msix_enabled(const struct pci_device *p)
{
    return p->msix && p->msix->enabled;
}

void pci_msix_notify(struct pci_device *p, unsigned vector)
{
    struct pci_msix *x = p->msix;
    if (!x || vector >= x->count)
        return;
    pthread_mutex_lock(&p->intr_lock);
    bool now = deliverable(x, vector);
    struct msix_entry e = x->entry[vector];
    if (!now && x->enabled)
        bit_put(x->pending, vector, true);
    pthread_mutex_unlock(&p->intr_lock);
    if (now)
        send(x, &e);
}

void pci_msix_message(struct pci_device *p, unsigned vector, uint64_t *ret_addr, uint32_t *ret_data)
{
    struct pci_msix *x = p->msix;
    if (!x || vector >= x->count)
        return;
    pthread_mutex_lock(&p->intr_lock);
    *ret_addr = x->entry[vector].addr | (uint64_t)x->entry[vector].addr_high << 32;
    *ret_data = x->entry[vector].data;
    pthread_mutex_unlock(&p->intr_lock);
}
