/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `isa-debugcon`: a port whose written bytes go to a character backend; firmware and bare-metal
 * programs log there.
 *
 * Spec      Bochs' and QEMU's debug console: port 0xe9 reads back 0xe9, which tells that it is
 *           there.
 * Thread    Any vCPU; chardev_write() takes no lock of ours.
 */
#include "chardev/chardev.h"
#include "machine/backends.h"
#include "machine/machine.h"

struct debugcon {
    struct device dev;
    struct mem_region port;
    struct chardev *backend; /* borrowed; NULL: nothing is connected */
    char *chardev;
    uint32_t iobase, readback;
    uint64_t bytes_out, dropped;
};

static uint64_t debugcon_read(void *opaque, uint64_t off, unsigned size)
{
    struct debugcon *s = opaque;
    return s->readback;
}

static void debugcon_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct debugcon *s = opaque;
    uint8_t byte = (uint8_t)val;
    bool taken = !s->backend || chardev_write(s->backend, &byte, 1);
    __atomic_fetch_add(taken ? &s->bytes_out : &s->dropped, 1, __ATOMIC_RELAXED);
}

/* It has no input. */
static size_t debugcon_can_receive(void *opaque)
{
    return 0;
}

static const struct mem_ops debugcon_ops = {
    .read = debugcon_read, .write = debugcon_write, .min_size = 1, .max_size = 1,
};

static bool debugcon_realize(struct device *d, GError **error)
{
    struct debugcon *s = container_of(d, struct debugcon, dev);
    struct chardev *backend = NULL;
    if (s->chardev) {
        backend = backend_find(d->machine, BACKEND_CHARDEV, "isa-debugcon", s->chardev, error);
        if (!backend)
            return false;
    }
    mem_region_init_io(&s->port, "isa-debugcon", &debugcon_ops, s, 1, NULL);
    int r = mem_region_add(d->machine->io, &s->port, s->iobase, 0);
    if (r < 0)
        return ruche_error_errno(error, -r, "isa-debugcon: cannot map port 0x%x", s->iobase);
    const struct chardev_frontend frontend = {
        .can_receive = debugcon_can_receive, .opaque = s, .takes_another = true
    };
    if (backend && !chardev_attach(backend, &frontend, error))
        return false;
    s->backend = backend;
    return true;
}

static void debugcon_unrealize(struct device *d)
{
    struct debugcon *s = container_of(d, struct debugcon, dev);
    if (s->backend)
        chardev_detach(s->backend, s);
    mem_region_remove(&s->port);
}

static const struct prop debugcon_props[] = {
    PROP_STRING("chardev", struct debugcon, chardev, .help = "Character backend by id"),
    PROP_U32("iobase", struct debugcon, iobase, .def = 0xe9, .min = 1, .max = 0xffff, .help = "Port"),
    PROP_U32("readback", struct debugcon, readback, .def = 0xe9, .min = 0, .max = 0xff,
             .help = "What the port reads"),
    { 0 },
};

static const struct device_counter debugcon_counters[] = {
    COUNTER(struct debugcon, bytes_out, "Bytes sent"),
    COUNTER(struct debugcon, dropped, "Bytes that the backend had no room for"),
    { 0 },
};

static const struct device_type debugcon_type = {
    .name = "isa-debugcon", .summary = "Debug console on a port", .spec = "QEMU", .bus = BUS_ISA,
    .size = sizeof(struct debugcon), .props = debugcon_props, .counters = debugcon_counters,
    .realize = debugcon_realize, .unrealize = debugcon_unrealize,
};
DEVICE_TYPE(debugcon_type);
