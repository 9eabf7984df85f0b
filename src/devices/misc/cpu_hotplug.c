/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `acpi-cpu-hotplug`: see cpu_hotplug.h.
 *
 * Locks     The device's lock guards everything here. What the main thread must do is posted.
 * Trust     Selector, command and data are the guest's: a selector of no vCPU reads as absent.
 */
#include "devices/misc/cpu_hotplug.h"
#include "machine/chipset.h"

#include <string.h>

#define MAX_CPUS     64
#define FLAG_PRESENT 0x01
#define FLAG_INSERT  0x02
#define FLAG_REMOVE  0x04
#define FLAG_EJECT   0x08 /* written */

enum { REG_SELECTOR = 0, REG_FLAGS = 4, REG_COMMAND = 5, REG_DATA = 8 };
enum { COMMAND_NEXT_EVENT = 0, COMMAND_OST_EVENT = 1, COMMAND_OST_STATUS = 2, COMMAND_ARCH_ID = 3 };

struct cpu_hotplug {
    struct device dev;
    struct mem_region ports;
    uint32_t iobase;
    uint32_t selector;
    uint8_t command;
    uint8_t events[MAX_CPUS]; /* FLAG_INSERT, FLAG_REMOVE */
    uint32_t ost_event[MAX_CPUS], ost_status[MAX_CPUS];
    uint64_t ejected, reported; /* for work(): a bit for each vCPU */
    struct loop_task task;
};

static unsigned cpu_count(const struct cpu_hotplug *s)
{
    return (unsigned)min_u64(s->dev.machine->vcpu_count, MAX_CPUS);
}

static bool selected(const struct cpu_hotplug *s)
{
    return s->selector < cpu_count(s);
}

/* Round from the selected one on. */
static void select_event(struct cpu_hotplug *s)
{
    unsigned count = cpu_count(s), from = selected(s) ? s->selector : 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned n = (from + i) % count;
        if (!s->events[n])
            continue;
        s->selector = n;
        return;
    }
}

static uint32_t read_data(const struct cpu_hotplug *s)
{
    if (s->command == COMMAND_NEXT_EVENT)
        return s->selector;
    return s->command == COMMAND_ARCH_ID && selected(s)
               ? s->dev.machine->vcpus[s->selector]->apic_id
               : 0;
}

static uint64_t hotplug_read(void *opaque, uint64_t off, unsigned size)
{
    const struct cpu_hotplug *s = opaque;
    if (off == REG_FLAGS && selected(s))
        return s->events[s->selector] |
               (s->dev.machine->vcpus[s->selector]->present ? FLAG_PRESENT : 0);
    if (off >= REG_DATA)
        return read_data(s) >> 8 * (off - REG_DATA);
    return 0;
}

static void write_flags(struct cpu_hotplug *s, uint8_t val)
{
    if (!selected(s))
        return;
    s->events[s->selector] &= ~(val & (FLAG_INSERT | FLAG_REMOVE));
    if (!(val & FLAG_EJECT) || !s->selector) /* the first vCPU stays */
        return;
    s->ejected |= 1ULL << s->selector;
    loop_post(s->dev.machine->main_loop, &s->task);
}

static void write_data(struct cpu_hotplug *s, uint32_t val)
{
    if (!selected(s))
        return;
    if (s->command == COMMAND_OST_EVENT) {
        s->ost_event[s->selector] = val;
    } else if (s->command == COMMAND_OST_STATUS) {
        s->ost_status[s->selector] = val;
        s->reported |= 1ULL << s->selector;
        loop_post(s->dev.machine->main_loop, &s->task);
    }
}

static void hotplug_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct cpu_hotplug *s = opaque;
    if (off == REG_SELECTOR && size == 4) {
        s->selector = (uint32_t)val;
    } else if (off == REG_FLAGS) {
        write_flags(s, (uint8_t)val);
    } else if (off == REG_COMMAND) {
        s->command = (uint8_t)val;
        if (s->command == COMMAND_NEXT_EVENT)
            select_event(s);
    } else if (off == REG_DATA && size == 4) {
        write_data(s, (uint32_t)val);
    }
}

static const struct mem_ops hotplug_ops = {
    .read = hotplug_read, .write = hotplug_write, .min_size = 1, .max_size = 4};

/* Main loop: what the guest said, without the lock. It reports that it has begun, and then ejects. */
static void work(void *opaque)
{
    struct cpu_hotplug *s = opaque;
    const struct machine_observer *o = &s->dev.machine->observer;
    uint32_t event[MAX_CPUS], status[MAX_CPUS];
    pthread_mutex_lock(&s->dev.lock);
    uint64_t ejected = s->ejected, reported = s->reported;
    s->ejected = s->reported = 0;
    memcpy(event, s->ost_event, sizeof(event));
    memcpy(status, s->ost_status, sizeof(status));
    pthread_mutex_unlock(&s->dev.lock);
    for (unsigned n = 0; n < cpu_count(s); n++) {
        if ((reported >> n & 1) && o->cpu_reported)
            o->cpu_reported(o->opaque, n, event[n], status[n]);
        if ((ejected >> n & 1) && o->cpu_ejected)
            o->cpu_ejected(o->opaque, n);
    }
}

/* --- the machine's side --- */

static struct cpu_hotplug *controller(struct machine *m)
{
    struct device *d = m->devices;
    while (d && strcmp(d->type->name, CPU_HOTPLUG_TYPE))
        d = d->next;
    return d ? container_of(d, struct cpu_hotplug, dev) : NULL;
}

static void tell(struct machine *m, unsigned index, uint8_t event)
{
    struct cpu_hotplug *s = controller(m);
    if (!s || index >= cpu_count(s))
        return;
    pthread_mutex_lock(&s->dev.lock);
    s->events[index] |= event;
    pthread_mutex_unlock(&s->dev.lock);
    irq_pulse(&m->cpu_event);
}

void cpu_hotplug_inserted(struct machine *m, unsigned index)
{
    tell(m, index, FLAG_INSERT);
}

void cpu_hotplug_request(struct machine *m, unsigned index)
{
    tell(m, index, FLAG_REMOVE);
}

/* --- life --- */

static bool hotplug_realize(struct device *d, GError **error)
{
    struct cpu_hotplug *s = container_of(d, struct cpu_hotplug, dev);
    s->task = (struct loop_task){.fn = work, .opaque = s};
    mem_region_init_io(&s->ports, CPU_HOTPLUG_TYPE, &hotplug_ops, s, CPU_HOTPLUG_PORTS, &d->lock);
    int err = mem_region_add(d->machine->io, &s->ports, s->iobase, 0);
    return !err ||
           ruche_error_errno(error, -err, "%s: cannot map ports 0x%x", d->type->name, s->iobase);
}

static void hotplug_reset(struct device *d)
{
    struct cpu_hotplug *s = container_of(d, struct cpu_hotplug, dev);
    pthread_mutex_lock(&d->lock);
    memset(s->events, 0, sizeof(s->events));
    s->selector = s->command = 0;
    pthread_mutex_unlock(&d->lock);
}

/* What the main thread had not yet been told. */
static bool hotplug_loaded(struct device *d, GError **error)
{
    struct cpu_hotplug *s = container_of(d, struct cpu_hotplug, dev);
    s->ejected &= ~1ULL;
    if (s->ejected || s->reported)
        loop_post(d->machine->main_loop, &s->task);
    return true;
}

static void hotplug_unrealize(struct device *d)
{
    struct cpu_hotplug *s = container_of(d, struct cpu_hotplug, dev);
    mem_region_remove(&s->ports);
    loop_unpost(d->machine->main_loop, &s->task);
}

static const struct prop hotplug_props[] = {
    PROP_U32("iobase", struct cpu_hotplug, iobase, .def = CPU_HOTPLUG_BASE, .min = 1, .max = 0xfff0,
             .help = "First port"),
    {0},
};

static const struct state_field hotplug_state[] = {
    STATE(struct cpu_hotplug, selector),         STATE(struct cpu_hotplug, command),
    STATE_ARRAY(struct cpu_hotplug, events),     STATE_ARRAY(struct cpu_hotplug, ost_event),
    STATE_ARRAY(struct cpu_hotplug, ost_status),
    STATE(struct cpu_hotplug, ejected),          STATE(struct cpu_hotplug, reported),
    {0},
};

static const struct device_type hotplug_type = {
    .name = CPU_HOTPLUG_TYPE,
    .summary = "Plug and unplug of vCPUs by ACPI",
    .spec = "ACPI 6.4",
    .bus = BUS_SYSTEM,
    .internal = true,
    .size = sizeof(struct cpu_hotplug),
    .props = hotplug_props,
    .state = hotplug_state,
    .realize = hotplug_realize,
    .reset = hotplug_reset,
    .load_after = hotplug_loaded,
    .unrealize = hotplug_unrealize,
};
DEVICE_TYPE(hotplug_type);
