/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `isa-debug-exit`: a write ends the program with status (value << 1) | 1, for bare-metal tests.
 *
 * Spec      QEMU.
 * Thread    Any vCPU.
 */
#include "machine/machine.h"

struct debug_exit {
    struct device dev;
    struct mem_region ports;
    uint32_t iobase, iosize;
};

static uint64_t debug_exit_read(void *opaque, uint64_t off, unsigned size)
{
    return 0;
}

static void debug_exit_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct debug_exit *s = opaque;
    machine_request(s->dev.machine, MACHINE_REQ_DEBUG_EXIT, (int)((uint32_t)val << 1 | 1));
}

static const struct mem_ops debug_exit_ops = {
    .read = debug_exit_read, .write = debug_exit_write, .min_size = 1, .max_size = 4,
};

static bool debug_exit_realize(struct device *d, GError **error)
{
    struct debug_exit *s = container_of(d, struct debug_exit, dev);
    mem_region_init_io(&s->ports, "isa-debug-exit", &debug_exit_ops, s, s->iosize, NULL);
    int r = mem_region_add(d->machine->io, &s->ports, s->iobase, 0);
    return !r || ruche_error_errno(error, -r, "isa-debug-exit: cannot map %u ports at 0x%x", s->iosize,
                                   s->iobase);
}

static void debug_exit_unrealize(struct device *d)
{
    mem_region_remove(&container_of(d, struct debug_exit, dev)->ports);
}

static const struct prop debug_exit_props[] = {
    PROP_U32("iobase", struct debug_exit, iobase, .def = 0x501, .min = 1, .max = 0xffff, .help = "First port"),
    PROP_U32("iosize", struct debug_exit, iosize, .def = 2, .min = 1, .max = 16, .help = "Ports"),
    { 0 },
};

static const struct device_type debug_exit_type = {
    .name = "isa-debug-exit", .summary = "Ends the program with the guest's exit status", .spec = "QEMU",
    .bus = BUS_ISA, .size = sizeof(struct debug_exit), .props = debug_exit_props,
    .realize = debug_exit_realize, .unrealize = debug_exit_unrealize,
};
DEVICE_TYPE(debug_exit_type);
