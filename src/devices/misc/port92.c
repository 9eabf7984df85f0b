/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `port92`: system control port A, which resets the processor and gates A20.
 *
 * Spec      IBM PS/2 Hardware Interface, "System Control Port A".
 * A20       The bit is kept for whoever reads it back; address line 20 always works, as with every
 *           machine whose firmware has left it on.
 */
#include "machine/machine.h"

#define PORT 0x92
#define FAST_RESET 0x01
#define A20_ON 0x02
#define WRITABLE 0xdb

struct port92 {
    struct device dev;
    struct mem_region port;
    uint8_t value;
};

static uint64_t port92_read(void *opaque, uint64_t off, unsigned size)
{
    return ((struct port92 *)opaque)->value;
}

/* The reset happens when the bit goes from 0 to 1. */
static void port92_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct port92 *s = opaque;
    uint8_t old = s->value;
    s->value = val & WRITABLE;
    if (~old & val & FAST_RESET)
        machine_request(s->dev.machine, MACHINE_REQ_RESET, 0);
}

static const struct mem_ops ops = { .read = port92_read, .write = port92_write, .min_size = 1, .max_size = 1 };

static bool port92_realize(struct device *d, GError **error)
{
    struct port92 *s = (struct port92 *)d;
    mem_region_init_io(&s->port, "port92", &ops, s, 1, &d->lock);
    int r = mem_region_add(d->machine->io, &s->port, PORT, 0);
    return !r || ruche_error_errno(error, -r, "port92: cannot map port 0x%x", PORT);
}

static void port92_reset(struct device *d)
{
    ((struct port92 *)d)->value = A20_ON;
}

static void port92_unrealize(struct device *d)
{
    mem_region_remove(&((struct port92 *)d)->port);
}

static const struct state_field port92_state[] = {
    STATE(struct port92, value),
    { 0 },
};

static const struct device_type port92_type = {
    .name = "port92", .summary = "System control port A", .spec = "IBM PS/2 Hardware Interface",
    .bus = BUS_ISA, .size = sizeof(struct port92), .state = port92_state, .internal = true,
    .realize = port92_realize, .reset = port92_reset, .unrealize = port92_unrealize,
};
DEVICE_TYPE(port92_type);
