/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `pcie-root-port`: a PCI Express port with a bus of its own behind it, named after the device's
 * id, and a slot in which a device can come and go while the guest runs.
 *
 * Spec      PCI Express Base 3.0, 6.7 (hot plug), 7.5.1.2 and 7.8; PCI-to-PCI Bridge 1.2.
 * Hot plug  A device that comes shows as presence and a pressed attention button; the guest gives
 *           the slot power and finds it. A device that is to go presses the button; the guest
 *           stops its driver, takes the power away and puts the power indicator out: then the slot
 *           is emptied.
 * Thread    See pci.h. What must be done outside the bus lock is posted to the main loop.
 * Locks     The slot's registers and flags: the bus lock.
 * Trust     Windows, bus numbers and slot control are the guest's; a device behind is mapped only
 *           where all allow it.
 */
#include "devices/pci/pci_internal.h"

/* Offsets in the express capability. */
#define LINK_CAP        12
#define LINK_STATUS     18
#define SLOT_CAP        20
#define SLOT_CONTROL    24
#define SLOT_STATUS     26
#define FLAGS_SLOT      0x0100
#define LINK_CAP_ACTIVE 0x00100000u /* the port tells that the link is up */
#define LINK_TRAINED    0x0011
#define LINK_ACTIVE     0x2000

#define CAP_BUTTON        0x01u
#define CAP_POWER_CONTROL 0x02u
#define CAP_ATTENTION_LED 0x08u
#define CAP_POWER_LED     0x10u
#define CAP_HOTPLUG       0x40u
#define CAP_INTERLOCK     0x20000u
#define CAP_NUMBER_SHIFT  19

/* Status bits, and the same bits in slot control that let them interrupt. */
#define EVENT_BUTTON            0x0001
#define EVENT_PRESENCE          0x0008
#define EVENT_COMMAND           0x0010
#define EVENTS                  (EVENT_BUTTON | EVENT_PRESENCE | EVENT_COMMAND)
#define STATUS_PRESENT          0x0040
#define STATUS_LOCKED           0x0080
#define CONTROL_INTERRUPT       0x0020
#define CONTROL_ATTENTION_OFF   0x00c0
#define CONTROL_POWER_LED       0x0300
#define CONTROL_POWER_LED_ON    0x0100
#define CONTROL_POWER_LED_BLINK 0x0200
#define CONTROL_POWER_LED_OFF   0x0300
#define CONTROL_POWER_OFF       0x0400
#define CONTROL_LOCK            0x0800
#define CONTROL_OFF             (CONTROL_POWER_LED_OFF | CONTROL_POWER_OFF)
#define CONTROL_WRITABLE                                                                           \
    (EVENTS | CONTROL_INTERRUPT | CONTROL_ATTENTION_OFF | CONTROL_POWER_LED | CONTROL_POWER_OFF)

#define UNPLUG_AGAIN_MS 5000 /* a request that the guest has not answered may be made again */

struct root_port {
    struct pci_device pci;
    uint16_t chassis, slot;
    uint8_t port;
    bool hotplug;
    struct pci_bus *bus;
    uint16_t control;  /* slot control before the write that is looked at */
    bool event_shown;  /* an enabled event stands: the edge of it sends the MSI */
    bool eject, stale; /* for work(): the slot is to be emptied; what is in it lost its power */
    struct loop_task task;
};

/* --- slot: under the bus lock --- */

static uint16_t slot_get(const struct root_port *rp, unsigned reg)
{
    return pci_get16(&rp->pci, rp->pci.exp_cap + reg);
}

static void slot_set(struct root_port *rp, unsigned reg, uint16_t val)
{
    pci_set16(&rp->pci, rp->pci.exp_cap + reg, val);
}

static bool powered(const struct root_port *rp)
{
    return !(slot_get(rp, SLOT_CONTROL) & CONTROL_POWER_OFF);
}

static void update_interrupt(struct root_port *rp)
{
    uint16_t control = slot_get(rp, SLOT_CONTROL), status = slot_get(rp, SLOT_STATUS);
    bool show = (control & CONTROL_INTERRUPT) && (control & status & EVENTS);
    if (show == rp->event_shown)
        return;
    rp->event_shown = show;
    if (!pci_msi_enabled(&rp->pci))
        pci_irq_set(&rp->pci, show);
    else if (show)
        pci_msi_notify(&rp->pci, 0);
}

static void slot_event(struct root_port *rp, uint16_t events)
{
    slot_set(rp, SLOT_STATUS, slot_get(rp, SLOT_STATUS) | events);
    update_interrupt(rp);
}

static void set_present(struct root_port *rp, bool present)
{
    uint16_t status = slot_get(rp, SLOT_STATUS) & ~STATUS_PRESENT;
    slot_set(rp, SLOT_STATUS, status | (present ? STATUS_PRESENT : 0));
    slot_set(rp, LINK_STATUS, LINK_TRAINED | (present ? LINK_ACTIVE : 0));
}

/* Functions are reached when the slot has power, and what is in it has been reset since. */
static void apply_power(struct root_port *rp)
{
    bool open = powered(rp) && !rp->stale && rp->bus->dev[0];
    for (unsigned fn = 0; fn < 8; fn++) {
        struct pci_device *p = rp->bus->dev[fn];
        if (!p || p->shut == !open)
            continue;
        p->shut = !open;
        pci_bars_update(p);
    }
}

static void control_written(struct root_port *rp)
{
    uint16_t old = rp->control, now = slot_get(rp, SLOT_CONTROL);
    bool present = slot_get(rp, SLOT_STATUS) & STATUS_PRESENT;
    rp->control = now;
    if (present && (now & CONTROL_POWER_OFF) && !(old & CONTROL_POWER_OFF)) {
        rp->stale = true;
        loop_post(rp->pci.dev.machine->main_loop, &rp->task);
    }
    apply_power(rp);
    if (present && (now & CONTROL_OFF) == CONTROL_OFF && (old & CONTROL_OFF) != CONTROL_OFF) {
        rp->eject = true;
        loop_post(rp->pci.dev.machine->main_loop, &rp->task);
    }
    slot_event(rp, EVENT_COMMAND);
}

static void port_config_written(struct pci_device *p, unsigned off, unsigned len, uint32_t val)
{
    struct root_port *rp = container_of(p, struct root_port, pci);
    if (pci_overlaps(off, len, p->exp_cap + SLOT_CONTROL, 2))
        control_written(rp);
    if (pci_overlaps(off, len, p->exp_cap + SLOT_STATUS, 2))
        update_interrupt(rp);
}

/* --- what the main loop does for it --- */

static bool take(struct root_port *rp, bool *flag)
{
    pthread_mutex_lock(&rp->pci.bus->root->lock);
    bool set = *flag;
    pthread_mutex_unlock(&rp->pci.bus->root->lock);
    return set;
}

/* The guest has let go. Function 0 goes last: the others are nothing without it. */
static void empty_slot(struct root_port *rp)
{
    struct machine *m = rp->pci.dev.machine;
    pthread_mutex_t *lock = &rp->pci.bus->root->lock;
    for (unsigned fn = 8; fn-- > 0;) {
        struct pci_device *p = rp->bus->dev[fn];
        if (!p)
            continue;
        pci_device_isolate(p);
        if (m->observer.unplugged)
            m->observer.unplugged(m->observer.opaque, &p->dev);
    }
    pthread_mutex_lock(lock);
    rp->eject = rp->stale = false;
    set_present(rp, false);
    slot_event(rp, EVENT_PRESENCE);
    pthread_mutex_unlock(lock);
}

/* Power went and may be back: devices begin anew. */
static void reset_slot(struct root_port *rp)
{
    for (unsigned fn = 0; fn < 8; fn++) {
        struct pci_device *p = rp->bus->dev[fn];
        if (!p || !p->dev.realized)
            continue;
        pci_device_isolate(p);
        device_reset(&p->dev);
    }
    pthread_mutex_lock(&rp->pci.bus->root->lock);
    rp->stale = false;
    apply_power(rp);
    pthread_mutex_unlock(&rp->pci.bus->root->lock);
}

static void work(void *opaque)
{
    struct root_port *rp = opaque;
    if (take(rp, &rp->eject))
        empty_slot(rp);
    else if (take(rp, &rp->stale))
        reset_slot(rp);
}

/* --- plug and unplug --- */

static void slot_plug(struct pci_device *bridge, struct pci_device *p)
{
    struct root_port *rp = container_of(bridge, struct root_port, pci);
    pthread_mutex_lock(&bridge->bus->root->lock);
    if (rp->bus->dev[0]) { /* functions wait for the first one */
        set_present(rp, true);
        apply_power(rp);
        slot_event(rp, EVENT_PRESENCE | EVENT_BUTTON);
    }
    pthread_mutex_unlock(&bridge->bus->root->lock);
}

/* Nobody has it: it goes at once. */
static bool unseen(const struct root_port *rp, const struct pci_device *p)
{
    return (p->devfn && !rp->bus->dev[0]) ||
           (slot_get(rp, SLOT_CONTROL) & CONTROL_OFF) == CONTROL_OFF;
}

static bool slot_request_unplug(struct pci_device *bridge, struct pci_device *p, GError **error)
{
    struct root_port *rp = container_of(bridge, struct root_port, pci);
    int64_t now = g_get_monotonic_time() / 1000;
    bool ok = true;
    if (p->dev.unplug_asked_ms && now < p->dev.unplug_asked_ms + UNPLUG_AGAIN_MS)
        return ruche_error(error, RUCHE_ERR_STATE, "Device %s is already in the process of unplug",
                           p->dev.id ? p->dev.id : p->dev.path);
    pthread_mutex_lock(&bridge->bus->root->lock);
    if (unseen(rp, p)) {
        rp->eject = true;
        loop_post(p->dev.machine->main_loop, &rp->task);
    } else if ((slot_get(rp, SLOT_CONTROL) & CONTROL_POWER_LED) == CONTROL_POWER_LED_BLINK) {
        ok = ruche_error(error, RUCHE_ERR_STATE,
                         "Hot-unplug failed: guest is busy (power indicator blinking)");
    } else {
        slot_event(rp, EVENT_BUTTON);
    }
    pthread_mutex_unlock(&bridge->bus->root->lock);
    if (ok)
        p->dev.unplug_asked_ms = now ? now : 1;
    return ok;
}

static const struct pci_slot_ops slot_ops = {.plug = slot_plug,
                                             .request_unplug = slot_request_unplug};

/* --- life --- */

/* Writable bits of header type 1. */
static void init_bridge_header(struct pci_device *p)
{
    p->config[PCI_HEADER_TYPE] =
        (p->config[PCI_HEADER_TYPE] & PCI_HEADER_MULTIFUNCTION) | PCI_HEADER_BRIDGE;
    memset(p->config + PCI_SUBSYSTEM_VENDOR, 0, 4); /* upper prefetchable limit here */
    memset(p->writable + PCI_PRIMARY_BUS, 0xff, 3);
    p->writable[PCI_IO_BASE] = p->writable[PCI_IO_LIMIT] = 0xf0;
    static const uint16_t memory_bits = 0xfff0;
    for (unsigned reg = PCI_MEMORY_BASE; reg <= PCI_PREF_LIMIT; reg += 2)
        memcpy(p->writable + reg, &memory_bits, 2);
    memset(p->writable + PCI_PREF_BASE_HIGH, 0xff, 8);
    pci_set16(p, PCI_PREF_BASE, 1); /* 64-bit */
    pci_set16(p, PCI_PREF_LIMIT, 1);
    p->writable[PCI_BRIDGE_CONTROL] = 0x5b;
}

static void init_slot(struct root_port *rp)
{
    struct pci_device *p = &rp->pci;
    unsigned cap = p->exp_cap;
    uint32_t has = CAP_BUTTON | CAP_POWER_CONTROL | CAP_ATTENTION_LED | CAP_POWER_LED | CAP_HOTPLUG;
    pci_set16(p, cap + 2, pci_get16(p, cap + 2) | FLAGS_SLOT);
    pci_set32(p, cap + LINK_CAP, pci_get32(p, cap + LINK_CAP) | (uint32_t)rp->port << 24);
    pci_set32(p, cap + SLOT_CAP, (uint32_t)rp->slot << CAP_NUMBER_SHIFT | (rp->hotplug ? has : 0));
    if (!rp->hotplug)
        return;
    pci_set32(p, cap + LINK_CAP, pci_get32(p, cap + LINK_CAP) | LINK_CAP_ACTIVE);
    uint16_t control = CONTROL_WRITABLE, events = EVENTS;
    memcpy(p->writable + cap + SLOT_CONTROL, &control, 2);
    memcpy(p->w1c + cap + SLOT_STATUS, &events, 2);
    p->config_written = port_config_written;
    pci_bus_set_slot(rp->bus, &slot_ops);
}

static bool root_port_realize(struct device *d, GError **error)
{
    struct root_port *rp = (struct root_port *)d;
    struct pci_device *p = &rp->pci;
    static const struct pci_ids ids = {
        .vendor = 0x1b36,
        .device = 0x000c,
        .subclass = 0x04,
        .class_code = 0x06,
    };
    rp->task = (struct loop_task){.fn = work, .opaque = rp};
    if (!d->id)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: needs an id=, which names the bus behind it", d->type->name);
    if (pci_bus_find(d->machine->pci, d->id))
        return ruche_error(error, RUCHE_ERR_EXISTS, "%s: a PCI bus is already called '%s'",
                           d->type->name, d->id);
    if (!pci_device_init(p, &ids, error))
        return false;
    if (p->bus->bridge)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s '%s': a root port stands on the root bus, not on '%s'",
                           d->type->name, d->id, p->bus->name);
    init_bridge_header(p);
    pci_set_intx_pin(p, 1);
    if (pci_add_msi(p, 1) || pci_add_express(p) || !(rp->bus = pci_bus_new_secondary(p, d->id)))
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "%s '%s': out of memory", d->type->name,
                           d->id);
    init_slot(rp);
    return true;
}

/* Whether something is plugged in is known only when the machine starts. What the guest was asked
 * to give back it does not use now: it goes. vCPUs stand still. */
static void root_port_reset(struct device *d)
{
    struct root_port *rp = (struct root_port *)d;
    struct pci_device *p = &rp->pci;
    pci_device_reset(p);
    struct pci_device *first = rp->bus->dev[0];
    bool leaves = rp->eject || (first && first->dev.unplug_asked_ms), present = first && !leaves;
    slot_set(rp, SLOT_STATUS, 0);
    set_present(rp, present);
    rp->event_shown = rp->stale = false;
    if (rp->hotplug)
        slot_set(rp, SLOT_CONTROL,
                 CONTROL_ATTENTION_OFF | (present ? CONTROL_POWER_LED_ON : CONTROL_OFF));
    rp->control = slot_get(rp, SLOT_CONTROL);
    pthread_mutex_lock(&p->bus->root->lock);
    apply_power(rp);
    pthread_mutex_unlock(&p->bus->root->lock);
    rp->eject = leaves;
    if (leaves)
        loop_post(d->machine->main_loop, &rp->task);
}

static bool root_port_loaded(struct device *d, GError **error)
{
    struct root_port *rp = (struct root_port *)d;
    bool present = slot_get(rp, SLOT_STATUS) & STATUS_PRESENT;
    if (present != (rp->bus->dev[0] != NULL))
        return ruche_error(error, RUCHE_ERR_INVALID, "state of device '%s' (%s): its slot is %s, but here it is %s",
                           d->type->name, d->id, present ? "taken" : "empty", present ? "empty" : "taken");
    pthread_mutex_lock(&rp->pci.bus->root->lock);
    apply_power(rp);
    pthread_mutex_unlock(&rp->pci.bus->root->lock);
    if (rp->eject || rp->stale)
        loop_post(d->machine->main_loop, &rp->task);
    return true;
}

static void root_port_unrealize(struct device *d)
{
    struct root_port *rp = (struct root_port *)d;
    loop_unpost(d->machine->main_loop, &rp->task);
    pci_bus_free(rp->bus);
    rp->bus = NULL;
    pci_device_done(&rp->pci);
}

static const struct prop root_port_props[] = {
    PCI_PROPS(struct root_port),
    PROP_U16("chassis", struct root_port, chassis,
             .help = "Chassis number; accepted, no register shows it"),
    PROP_U16("slot", struct root_port, slot, .max = 8191, .help = "Physical slot number"),
    PROP_U8("port", struct root_port, port, .help = "Port number"),
    PROP_BOOL("hotplug", struct root_port, hotplug, .def = true,
              .help = "Devices behind it may come and go while the machine runs"),
    {0},
};

static const struct state_field root_port_state[] = {
    STATE(struct root_port, control),
    STATE(struct root_port, event_shown),
    STATE(struct root_port, eject),
    STATE(struct root_port, stale),
    {0},
};

static const struct device_type root_port_type = {
    .name = "pcie-root-port",
    .summary = "PCI Express root port",
    .spec = "PCI Express Base 3.0",
    .bus = BUS_PCI,
    .size = sizeof(struct root_port),
    .props = root_port_props,
    .state = root_port_state,
    .realize = root_port_realize,
    .reset = root_port_reset,
    .load_after = root_port_loaded,
    .unrealize = root_port_unrealize,
};
DEVICE_TYPE(root_port_type);
