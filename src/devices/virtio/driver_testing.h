/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A tiny driver for the unit tests of virtio devices: finds the registers as a real one does, sets
 * up split rings, offers buffers, waits.
 *
 * Owner     driver_start() ... driver_stop(), which frees the machine.
 */
#pragma once

#include "devices/testing.h"
#include "devices/virtio/virtio.h"
#include "devices/virtio/vq_internal.h"

#define DRIVER_QUEUES 8
#define DRIVER_QUEUE_SIZE 64
#define DRIVER_BAR 0xe0000000ULL
#define DRIVER_DATA 0x80000 /* guest memory that tests may use */

struct driver_queue {
    uint64_t base;
    uint16_t size, avail, used, next_desc, notify_off, kicked;
};

struct driver {
    struct test_machine *t;
    struct pci_bus *bus;
    struct virtio *v;
    /* offsets: in the BAR; window: in config space */
    unsigned common, isr, device, notify, notify_step, window;
    int intx;
    unsigned interrupts;
    bool event_idx;        /* negotiated: notify only when asked */
    struct driver_queue q[DRIVER_QUEUES];
};

struct driver_buf {
    uint64_t addr;
    uint32_t len;
    bool write;
};

/* A machine with a PCI bus; then devices and backends are made, then one of them is driven. */
struct driver *driver_new(void);
void driver_free_devices(struct driver *d); /* before their backends, which need the loop */
void driver_free(struct driver *d);
/* Maps the BARs, finds the capabilities, resets; does not negotiate. */
void driver_bring_up(struct driver *d, struct device *dev);
/* Accepts `features` (VERSION_1 and EVENT_IDX are added), sets up the first `queues` queues,
 * DRIVER_OK. */
void driver_start(struct driver *d, uint64_t features, unsigned queues);
uint64_t driver_features(struct driver *d);
uint8_t driver_status(struct driver *d);
void driver_setup_queue(struct driver *d, unsigned n, uint16_t size);

uint64_t driver_get(struct driver *d, unsigned off, unsigned size); /* common configuration */
void driver_set(struct driver *d, unsigned off, uint64_t val, unsigned size);
uint64_t driver_config(struct driver *d, unsigned off, unsigned size);
void driver_set_config(struct driver *d, unsigned off, uint64_t val, unsigned size);

/* Puts a chain into the ring; driver_kick() tells the device. Returns the head. */
uint16_t driver_offer(struct driver *d, unsigned n, const struct driver_buf *b, unsigned count);
void driver_kick(struct driver *d, unsigned n);
/* Turns the loop until a chain was used; false after a second. */
bool driver_wait(struct driver *d, unsigned n, uint16_t *ret_head, uint32_t *ret_len);
bool driver_poll(struct driver *d, unsigned n, uint16_t *ret_head, uint32_t *ret_len);
void driver_turn(struct driver *d, unsigned rounds);

static inline uint8_t *driver_mem(struct driver *d, uint64_t gpa)
{
    return d->t->ram + gpa;
}
