/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `pvpanic`: the guest says that it has panicked, or that it has loaded a crash kernel.
 *
 * Spec      QEMU docs/specs/pvpanic: one port; reading gives the events that it knows.
 * Thread    Any vCPU.
 */
#include "machine/machine.h"

enum { PANICKED = 1, CRASH_LOADED = 2, KNOWN = PANICKED | CRASH_LOADED };

struct pvpanic {
    struct device dev;
    struct mem_region port;
    uint32_t iobase;
    uint8_t events;
    uint64_t panics;
};

static uint64_t pvpanic_read(void *opaque, uint64_t off, unsigned size)
{
    return ((struct pvpanic *)opaque)->events & KNOWN;
}

static void pvpanic_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct pvpanic *s = opaque;
    if (val & PANICKED & s->events) {
        s->panics++;
        machine_request(s->dev.machine, MACHINE_REQ_PANIC, 0);
    } else if (val & CRASH_LOADED & s->events) {
        machine_request(s->dev.machine, MACHINE_REQ_CRASH_LOADED, 0);
    }
}

static const struct mem_ops pvpanic_ops = {
    .read = pvpanic_read, .write = pvpanic_write, .min_size = 1, .max_size = 1,
};

static bool pvpanic_realize(struct device *d, GError **error)
{
    struct pvpanic *s = container_of(d, struct pvpanic, dev);
    mem_region_init_io(&s->port, "pvpanic", &pvpanic_ops, s, 1, &d->lock);
    int r = mem_region_add(d->machine->io, &s->port, s->iobase, 0);
    return !r || ruche_error_errno(error, -r, "pvpanic: cannot map port 0x%x", s->iobase);
}

static void pvpanic_unrealize(struct device *d)
{
    mem_region_remove(&container_of(d, struct pvpanic, dev)->port);
}

static const struct prop pvpanic_props[] = {
    PROP_U32("ioport", struct pvpanic, iobase, .def = 0x505, .min = 1, .max = 0xffff, .help = "Port"),
    PROP_U8("events", struct pvpanic, events, .def = KNOWN, .help = "Bit 0: panics, bit 1: crash kernels"),
    { 0 },
};

static const struct device_counter pvpanic_counters[] = {
    COUNTER(struct pvpanic, panics, "Panics told"),
    { 0 },
};

static const struct device_type pvpanic_type = {
    .name = "pvpanic", .summary = "Tells when the guest panics", .spec = "QEMU pvpanic", .bus = BUS_ISA,
    .size = sizeof(struct pvpanic), .props = pvpanic_props, .counters = pvpanic_counters,
    .realize = pvpanic_realize, .unrealize = pvpanic_unrealize,
};
DEVICE_TYPE(pvpanic_type);
