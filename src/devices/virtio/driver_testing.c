/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The tiny driver of the virtio tests: see driver_testing.h. */
#include "devices/virtio/driver_testing.h"

#include "devices/pci/pci.h"

#include <string.h>

static unsigned one_line(unsigned slot, unsigned pin)
{
    return 0;
}

static void line_set(void *opaque, unsigned line, int level)
{
    struct driver *d = opaque;
    d->interrupts += level && !d->intx;
    d->intx = level;
}

struct driver *driver_new(void)
{
    struct driver *d = g_new0(struct driver, 1);
    const struct pci_bus_irq irq = { .map = one_line, .set = line_set, .opaque = d };
    d->t = test_machine_new(1);
    d->bus = pci_bus_new(&d->t->m, "pcie.0", &irq);
    d->t->m.pci = d->bus;
    return d;
}

void driver_free_devices(struct driver *d)
{
    struct machine *m = &d->t->m;
    while (m->devices) {
        struct device *last = m->devices;
        while (last->next)
            last = last->next;
        device_free(last);
    }
}

void driver_free(struct driver *d)
{
    driver_free_devices(d);
    pci_bus_free(d->bus);
    test_machine_free(d->t);
    g_free(d);
}

static uint32_t config_get(struct driver *d, unsigned off, unsigned len)
{
    return pci_bus_config_read(d->bus, 0, d->v->pci.devfn, off, len);
}

static void find_capabilities(struct driver *d)
{
    unsigned n = 0;
    for (unsigned cap = config_get(d, 0x34, 1); cap; cap = config_get(d, cap + 1, 1)) {
        g_assert_cmpuint(++n, <, 20);
        if (config_get(d, cap, 1) != 9)
            continue;
        uint32_t type = config_get(d, cap + 3, 1), off = config_get(d, cap + 8, 4);
        if (type != 5)
            g_assert_cmpuint(config_get(d, cap + 4, 1), ==, 4);
        if (type == 1)
            d->common = off;
        else if (type == 2) {
            d->notify = off;
            d->notify_step = config_get(d, cap + 16, 4);
        } else if (type == 3)
            d->isr = off;
        else if (type == 4)
            d->device = off;
        else if (type == 5)
            d->window = cap;
    }
    g_assert_cmpuint(d->notify, >, 0);
    g_assert_cmpuint(d->window, >, 0);
}

void driver_bring_up(struct driver *d, struct device *dev)
{
    d->v = virtio_of(dev);
    uint8_t devfn = d->v->pci.devfn;
    pci_bus_config_write(d->bus, 0, devfn, 0x20, 4, (uint32_t)DRIVER_BAR);
    pci_bus_config_write(d->bus, 0, devfn, 0x24, 4, 0);
    pci_bus_config_write(d->bus, 0, devfn, 0x04, 2, 6);
    find_capabilities(d);
    driver_set(d, 0x14, 0, 1);
    g_assert_cmpuint(driver_status(d), ==, 0);
}

uint64_t driver_get(struct driver *d, unsigned off, unsigned size)
{
    return mem_io_read(d->t->m.memory, DRIVER_BAR + d->common + off, size);
}

void driver_set(struct driver *d, unsigned off, uint64_t val, unsigned size)
{
    mem_io_write(d->t->m.memory, DRIVER_BAR + d->common + off, val, size);
}

uint64_t driver_config(struct driver *d, unsigned off, unsigned size)
{
    return mem_io_read(d->t->m.memory, DRIVER_BAR + d->device + off, size);
}

void driver_set_config(struct driver *d, unsigned off, uint64_t val, unsigned size)
{
    mem_io_write(d->t->m.memory, DRIVER_BAR + d->device + off, val, size);
}

uint8_t driver_status(struct driver *d)
{
    return (uint8_t)driver_get(d, 0x14, 1);
}

uint64_t driver_features(struct driver *d)
{
    uint64_t f = 0;
    for (unsigned i = 0; i < 2; i++) {
        driver_set(d, 0, i, 4);
        f |= driver_get(d, 4, 4) << (32 * i);
    }
    return f;
}

void driver_setup_queue(struct driver *d, unsigned n, uint16_t size)
{
    uint64_t base = 0x10000 + 0x4000ULL * n;
    d->q[n] = (struct driver_queue){ .base = base, .size = size };
    memset(d->t->ram + base, 0, 0x4000);
    driver_set(d, 0x16, n, 2);
    g_assert_cmpuint(driver_get(d, 0x18, 2), >=, size);
    driver_set(d, 0x18, size, 2);
    driver_set(d, 0x20, base, 4);
    driver_set(d, 0x24, 0, 4);
    driver_set(d, 0x28, base + 0x1000, 8);
    driver_set(d, 0x30, base + 0x2000, 8);
    d->q[n].notify_off = (uint16_t)driver_get(d, 0x1e, 2);
    driver_set(d, 0x1c, 1, 2);
    g_assert_cmpuint(driver_get(d, 0x1c, 2), ==, 1);
}

void driver_start(struct driver *d, uint64_t features, unsigned queues)
{
    driver_set(d, 0x14, 0, 1);
    driver_set(d, 0x14, VIRTIO_ACKNOWLEDGE, 1);
    driver_set(d, 0x14, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER, 1);
    features |= VIRTIO_F(VIRTIO_F_VERSION_1) | VIRTIO_F(VIRTIO_F_EVENT_IDX);
    d->event_idx = true;
    for (unsigned i = 0; i < 2; i++) {
        driver_set(d, 8, i, 4);
        driver_set(d, 12, (uint32_t)(features >> (32 * i)), 4);
    }
    uint8_t status = VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK;
    driver_set(d, 0x14, status, 1);
    g_assert_cmpuint(driver_status(d), ==, status);
    for (unsigned n = 0; n < queues; n++)
        driver_setup_queue(d, n, (uint16_t)min_u64(DRIVER_QUEUE_SIZE, d->v->queue[n].max_size));
    driver_set(d, 0x14, status | VIRTIO_DRIVER_OK, 1);
    g_assert_cmpuint(driver_status(d), ==, status | VIRTIO_DRIVER_OK);
}

uint16_t driver_offer(struct driver *d, unsigned n, const struct driver_buf *b, unsigned count)
{
    struct driver_queue *q = &d->q[n];
    struct vq_desc *table = (struct vq_desc *)(void *)(d->t->ram + q->base);
    uint16_t *avail = (uint16_t *)(void *)(d->t->ram + q->base + 0x1000);
    uint16_t head = q->next_desc % q->size;
    for (unsigned i = 0; i < count; i++) {
        uint16_t at = q->next_desc++ % q->size;
        table[at] =
            (struct vq_desc){ b[i].addr, b[i].len,
                              (b[i].write ? DESC_WRITE : 0) | (i + 1 < count ? DESC_NEXT : 0),
                              q->next_desc % q->size };
    }
    avail[2 + q->avail % q->size] = head;
    __atomic_store_n(&avail[1], ++q->avail, __ATOMIC_RELEASE);
    return head;
}

/* As section 2.7.10 has it: a device that forgets to ask for the next notification does not get
 * one. */
void driver_kick(struct driver *d, unsigned n)
{
    struct driver_queue *q = &d->q[n];
    uint16_t event = *(uint16_t *)(void *)(d->t->ram + q->base + 0x2004 + 8 * q->size),
             old = q->kicked;
    q->kicked = q->avail;
    if (d->event_idx && !vq_passed(event, q->avail, old))
        return;
    mem_io_write(d->t->m.memory, DRIVER_BAR + d->notify + d->q[n].notify_off * d->notify_step, n,
                 2);
}

bool driver_poll(struct driver *d, unsigned n, uint16_t *ret_head, uint32_t *ret_len)
{
    struct driver_queue *q = &d->q[n];
    uint16_t *used = (uint16_t *)(void *)(d->t->ram + q->base + 0x2000);
    if (__atomic_load_n(&used[1], __ATOMIC_ACQUIRE) == q->used)
        return false;
    const uint32_t *entry =
        (const uint32_t *)(void *)(d->t->ram + q->base + 0x2004) + 2 * (q->used++ % q->size);
    if (ret_head)
        *ret_head = (uint16_t)entry[0];
    if (ret_len)
        *ret_len = entry[1];
    *(uint16_t *)(void *)(d->t->ram + q->base + 0x1004 + 2 * q->size) = q->used;
    return true;
}

bool driver_wait(struct driver *d, unsigned n, uint16_t *ret_head, uint32_t *ret_len)
{
    for (unsigned i = 0; i < 200; i++) {
        if (driver_poll(d, n, ret_head, ret_len))
            return true;
        loop_once(d->t->m.main_loop, 5);
    }
    return false;
}

void driver_turn(struct driver *d, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++)
        loop_once(d->t->m.main_loop, 1);
}
