/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `pc-testdev`: ports and memory that bare-metal tests (kvm-unit-tests) poke at.
 *
 * Spec      QEMU: interrupt lines at ports 0x2000 to 0x2017, a register at 0xe0 to 0xe3 and at
 *           0xe8, a page flush at 0xe4, and 64 KiB of memory at 0xff000000 whose accesses all leave
 *           the guest.
 * Thread    Any vCPU, with the device's lock.
 */
#include "machine/machine.h"

#include <string.h>

#define IRQ_PORTS 0x2000
#define IRQ_LINES 24
#define ECHO_PORT 0xe0
#define FLUSH_PORT 0xe4
#define MEMORY_BASE 0xff000000u
#define MEMORY_BYTES 0x10000

struct pc_testdev {
    struct device dev;
    struct mem_region echo, echo2, flush, irqs, memory;
    uint32_t value;
    uint8_t ram[MEMORY_BYTES];
};

static uint32_t mask_of(uint64_t off, unsigned size)
{
    return (uint32_t)((1ULL << 8 * size) - 1) << 8 * off;
}

static uint64_t echo_read(void *opaque, uint64_t off, unsigned size)
{
    struct pc_testdev *s = opaque;
    return (s->value & mask_of(off, size)) >> 8 * off;
}

static void echo_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct pc_testdev *s = opaque;
    uint32_t mask = mask_of(off, size);
    s->value = (s->value & ~mask) | ((uint32_t)val << 8 * off & mask);
}

/* The host's page was unmapped and mapped again: to the guest, nothing. */
static uint64_t flush_read(void *opaque, uint64_t off, unsigned size)
{
    return 0;
}

static void flush_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
}

static void irqs_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct pc_testdev *s = opaque;
    irq_set(&s->dev.machine->gsi[off], val != 0);
}

static uint64_t memory_read(void *opaque, uint64_t off, unsigned size)
{
    uint64_t val = 0;
    memcpy(&val, ((struct pc_testdev *)opaque)->ram + off, size);
    return val;
}

static void memory_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    memcpy(((struct pc_testdev *)opaque)->ram + off, &val, size);
}

static const struct mem_ops echo_ops = { .read = echo_read, .write = echo_write, .min_size = 1, .max_size = 4 };
static const struct mem_ops flush_ops = {
    .read = flush_read, .write = flush_write, .min_size = 1, .max_size = 4,
};
static const struct mem_ops irqs_ops = { .read = flush_read, .write = irqs_write, .min_size = 1, .max_size = 1 };
static const struct mem_ops memory_ops = {
    .read = memory_read, .write = memory_write, .min_size = 1, .max_size = 8,
};

static bool testdev_realize(struct device *d, GError **error)
{
    struct pc_testdev *s = container_of(d, struct pc_testdev, dev);
    struct mem_space *io = d->machine->io;
    mem_region_init_io(&s->echo, "pc-testdev-ioport", &echo_ops, s, 4, &d->lock);
    mem_region_init_io(&s->echo2, "pc-testdev-ioport-byte", &echo_ops, s, 1, &d->lock);
    mem_region_init_io(&s->flush, "pc-testdev-flush", &flush_ops, s, 4, &d->lock);
    mem_region_init_io(&s->irqs, "pc-testdev-irq-line", &irqs_ops, s, IRQ_LINES, &d->lock);
    mem_region_init_io(&s->memory, "pc-testdev-iomem", &memory_ops, s, MEMORY_BYTES, &d->lock);
    int r = mem_region_add(io, &s->echo, ECHO_PORT, 0);
    r = r ? r : mem_region_add(io, &s->flush, FLUSH_PORT, 0);
    r = r ? r : mem_region_add(io, &s->echo2, ECHO_PORT + 8, 0);
    r = r ? r : mem_region_add(io, &s->irqs, IRQ_PORTS, 0);
    r = r ? r : mem_region_add(d->machine->memory, &s->memory, MEMORY_BASE, 0);
    return !r || ruche_error_errno(error, -r, "pc-testdev: cannot map its ports and memory");
}

static void testdev_unrealize(struct device *d)
{
    struct pc_testdev *s = container_of(d, struct pc_testdev, dev);
    struct mem_region *const all[] = { &s->echo, &s->echo2, &s->flush, &s->irqs, &s->memory };
    for (unsigned i = 0; i < ARRAY_COUNT(all); i++)
        mem_region_remove(all[i]);
}

static const struct state_field testdev_state[] = {
    STATE(struct pc_testdev, value),
    STATE_ARRAY(struct pc_testdev, ram),
    { 0 },
};

static const struct device_type testdev_type = {
    .name = "pc-testdev", .summary = "Ports and memory for bare-metal tests", .spec = "QEMU", .bus = BUS_ISA,
    .size = sizeof(struct pc_testdev), .state = testdev_state, .realize = testdev_realize,
    .unrealize = testdev_unrealize,
};
DEVICE_TYPE(testdev_type);
