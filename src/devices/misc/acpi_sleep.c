/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `acpi-sleep`: see acpi_sleep.h.
 *
 * Thread    Registers: any vCPU. Power button: the main loop. Both with the device's lock.
 */
#include "devices/misc/acpi_sleep.h"
#include "machine/machine.h"

#define SLP_EN 0x20
#define WAK_STS 0x80

struct acpi_sleep {
    struct device dev;
    struct mem_region ports;
    uint32_t iobase, irq;
    uint8_t status, events;
};

static void update_irq(struct acpi_sleep *s)
{
    irq_set(&s->dev.machine->gsi[s->irq], s->events != 0);
}

static uint64_t sleep_read(void *opaque, uint64_t off, unsigned size)
{
    struct acpi_sleep *s = opaque;
    uint8_t val = 0;
    if (off == ACPI_SLEEP_STS) {
        val = s->status;
    } else if (off == ACPI_SLEEP_EVT) {
        val = s->events;
        s->events = 0;
        update_irq(s);
    }
    return val;
}

static void sleep_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct acpi_sleep *s = opaque;
    switch (off) {
    case ACPI_SLEEP_CTL:
        if (!(val & SLP_EN))
            break;
        if ((val >> 2 & 7) == ACPI_SLEEP_TYP_S5)
            machine_request(s->dev.machine, MACHINE_REQ_POWEROFF, 0);
        else /* no sleeping state but off: as if woken at once */
            s->status |= WAK_STS;
        break;
    case ACPI_SLEEP_STS:
        s->status &= ~(val & WAK_STS);
        break;
    case ACPI_SLEEP_RESET:
        if (val == ACPI_SLEEP_RESET_VALUE)
            machine_request(s->dev.machine, MACHINE_REQ_RESET, 0);
        break;
    default:
        break;
    }
}

static const struct mem_ops sleep_ops = { .read = sleep_read, .write = sleep_write, .min_size = 1, .max_size = 1 };

static void power_button(void *opaque, int n, int level)
{
    struct acpi_sleep *s = opaque;
    if (!level)
        return;
    pthread_mutex_lock(&s->dev.lock);
    s->events |= ACPI_SLEEP_EVT_POWER_BUTTON;
    update_irq(s);
    pthread_mutex_unlock(&s->dev.lock);
}

static void cpu_event(void *opaque, int n, int level)
{
    struct acpi_sleep *s = opaque;
    if (!level)
        return;
    pthread_mutex_lock(&s->dev.lock);
    s->events |= ACPI_SLEEP_EVT_CPU;
    update_irq(s);
    pthread_mutex_unlock(&s->dev.lock);
}

static void sleep_reset(struct device *d)
{
    struct acpi_sleep *s = container_of(d, struct acpi_sleep, dev);
    pthread_mutex_lock(&d->lock);
    s->status = s->events = 0;
    update_irq(s);
    pthread_mutex_unlock(&d->lock);
}

static bool sleep_loaded(struct device *d, GError **error)
{
    struct acpi_sleep *s = container_of(d, struct acpi_sleep, dev);
    if (s->events)
        update_irq(s);
    return true;
}

static bool sleep_realize(struct device *d, GError **error)
{
    struct acpi_sleep *s = container_of(d, struct acpi_sleep, dev);
    mem_region_init_io(&s->ports, "acpi-sleep", &sleep_ops, s, ACPI_SLEEP_SIZE, &d->lock);
    int r = mem_region_add(d->machine->io, &s->ports, s->iobase, 0);
    if (r < 0)
        return ruche_error_errno(error, -r, "acpi-sleep: cannot map ports 0x%x", s->iobase);
    d->machine->power_button = (struct irq_line){ .set = power_button, .opaque = s };
    d->machine->cpu_event = (struct irq_line){ .set = cpu_event, .opaque = s };
    return true;
}

static void sleep_unrealize(struct device *d)
{
    struct acpi_sleep *s = container_of(d, struct acpi_sleep, dev);
    if (d->machine->power_button.opaque == s)
        d->machine->power_button = d->machine->cpu_event = (struct irq_line){ 0 };
    mem_region_remove(&s->ports);
}

static const struct prop sleep_props[] = {
    PROP_U32("iobase", struct acpi_sleep, iobase, .def = ACPI_SLEEP_IOBASE, .min = 1, .max = 0xfffc,
             .help = "First port"),
    PROP_U32("irq", struct acpi_sleep, irq, .def = ACPI_SLEEP_GSI, .min = 0, .max = 23,
             .help = "GSI of the generic event device"),
    { 0 },
};

static const struct state_field sleep_state[] = {
    STATE(struct acpi_sleep, status),
    STATE(struct acpi_sleep, events),
    { 0 },
};

static const struct device_type sleep_type = {
    .name = "acpi-sleep", .summary = "Power-off, reset and power button of hardware-reduced ACPI",
    .spec = "ACPI 6.4", .bus = BUS_SYSTEM, .internal = true, .size = sizeof(struct acpi_sleep),
    .props = sleep_props, .state = sleep_state, .realize = sleep_realize, .reset = sleep_reset, .load_after = sleep_loaded,
    .unrealize = sleep_unrealize,
};
DEVICE_TYPE(sleep_type);
