/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ioapic`: 24 interrupt pins, each turned into a message to the local APICs.
 *
 * Spec      Intel 82093AA, with the EOI register of version 0x20 (ICH9 datasheet, section 13.5).
 * Thread    Any; the device's lock. It stands after all devices' locks, and messages are sent under
 *           it.
 * Trust     Redirection entries are the guest's: every value is a legal message, or one that nobody
 *           takes.
 */
#include "devices/irqchip/irqchip.h"

#define VERSION (0x20u | (IOAPIC_PINS - 1) << 16)
#define REDIR_LOW_WRITABLE 0x1afffULL
#define REDIR_WRITABLE (0xff00000000000000ULL | REDIR_LOW_WRITABLE)

enum redir_bit { REDIR_LOGICAL = 1 << 11, REDIR_REMOTE_IRR = 1 << 14, REDIR_LEVEL = 1 << 15,
                 REDIR_MASKED = 1 << 16 };
enum { REG_SELECT = 0x00, REG_WINDOW = 0x10, REG_EOI = 0x40 };

struct ioapic {
    struct device dev;
    struct mem_region mmio;
    uint8_t select, id;
    uint32_t lines;               /* levels of the pins */
    uint64_t redir[IOAPIC_PINS];
    uint64_t delivered, masked, eois;
};

/* Sends what the pin asks for, unless it is masked or the last level interrupt is not finished. */
static void deliver_locked(struct ioapic *s, unsigned pin)
{
    uint64_t entry = s->redir[pin];
    if (entry & REDIR_MASKED) {
        s->masked++;
        return;
    }
    if ((entry & REDIR_LEVEL) && (entry & REDIR_REMOTE_IRR))
        return;
    unsigned mode = entry >> 8 & 7;
    if ((entry & REDIR_LEVEL) && mode <= 1)
        s->redir[pin] |= REDIR_REMOTE_IRR;
    s->delivered++;
    machine_msi(s->dev.machine,
                LAPIC_BASE | (entry >> 56) << 12 | (entry & REDIR_LOGICAL ? 1u << 2 : 0),
                (uint32_t)(entry & 0x7ff) | (entry & REDIR_LEVEL ? 3u << 14 : 0));
}

static void set_pin(void *opaque, int pin, int level)
{
    struct ioapic *s = opaque;
    if (pin < 0 || pin >= IOAPIC_PINS)
        return;
    uint32_t bit = 1u << pin;
    pthread_mutex_lock(&s->dev.lock);
    bool was = s->lines & bit;
    s->lines = level ? s->lines | bit : s->lines & ~bit;
    if (level && (!was || (s->redir[pin] & REDIR_LEVEL)))
        deliver_locked(s, (unsigned)pin);
    pthread_mutex_unlock(&s->dev.lock);
}

static void eoi_locked(struct ioapic *s, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t entry = s->redir[pin];
        if ((uint8_t)entry != vector || !(entry & REDIR_LEVEL) || !(entry & REDIR_REMOTE_IRR))
            continue;
        s->eois++;
        s->redir[pin] &= ~(uint64_t)REDIR_REMOTE_IRR;
        if (s->lines & 1u << pin)
            deliver_locked(s, pin);
    }
}

/* From the local APIC that finished a level-triggered interrupt. */
static void broadcast_eoi(void *opaque, uint8_t vector)
{
    struct ioapic *s = opaque;
    pthread_mutex_lock(&s->dev.lock);
    eoi_locked(s, vector);
    pthread_mutex_unlock(&s->dev.lock);
}

static uint32_t window_read(struct ioapic *s)
{
    switch (s->select) {
    case 0:
    case 2:
        return (uint32_t)s->id << 24;
    case 1:
        return VERSION;
    default:
        break;
    }
    unsigned pin = (s->select - 0x10u) / 2;
    if (s->select < 0x10 || pin >= IOAPIC_PINS)
        return 0;
    return (uint32_t)(s->redir[pin] >> (s->select & 1) * 32);
}

static void window_write(struct ioapic *s, uint32_t val)
{
    if (s->select == 0) {
        s->id = val >> 24 & 0xf;
        return;
    }
    unsigned pin = (s->select - 0x10u) / 2, shift = (s->select & 1) * 32;
    if (s->select < 0x10 || pin >= IOAPIC_PINS)
        return;
    uint64_t mask = REDIR_WRITABLE & (uint64_t)UINT32_MAX << shift;
    uint64_t entry = (s->redir[pin] & ~mask) | ((uint64_t)val << shift & mask);
    /* Turning to edge finishes a level interrupt: what kernels do where there is no EOI register. */
    if (!(entry & REDIR_LEVEL))
        entry &= ~(uint64_t)REDIR_REMOTE_IRR;
    s->redir[pin] = entry;
    if (!shift && (entry & REDIR_LEVEL) && (s->lines & 1u << pin))
        deliver_locked(s, pin);
}

static uint64_t mmio_read(void *opaque, uint64_t off, unsigned size)
{
    struct ioapic *s = opaque;
    switch (off) {
    case REG_SELECT:
        return s->select;
    case REG_WINDOW:
        return window_read(s);
    default:
        return 0;
    }
}

static void mmio_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct ioapic *s = opaque;
    switch (off) {
    case REG_SELECT:
        s->select = (uint8_t)val;
        break;
    case REG_WINDOW:
        window_write(s, (uint32_t)val);
        break;
    case REG_EOI:
        eoi_locked(s, (uint8_t)val);
        break;
    default:
        break;
    }
}

static const struct mem_ops mmio_ops = {
    .read = mmio_read, .write = mmio_write, .min_size = 4, .max_size = 4,
};

static void ioapic_reset(struct device *d)
{
    struct ioapic *s = container_of(d, struct ioapic, dev);
    pthread_mutex_lock(&d->lock);
    s->select = s->id = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        s->redir[pin] = REDIR_MASKED;
    pthread_mutex_unlock(&d->lock);
}

static bool ioapic_loaded(struct device *d, GError **error)
{
    struct ioapic *s = container_of(d, struct ioapic, dev);
    pthread_mutex_lock(&d->lock);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        s->redir[pin] &= REDIR_WRITABLE | REDIR_REMOTE_IRR;
    pthread_mutex_unlock(&d->lock);
    return true;
}

static bool ioapic_realize(struct device *d, GError **error)
{
    struct ioapic *s = container_of(d, struct ioapic, dev);
    ioapic_reset(d);
    mem_region_init_io(&s->mmio, "ioapic", &mmio_ops, s, 0x1000, &d->lock);
    int r = mem_region_add(d->machine->memory, &s->mmio, IOAPIC_BASE, 1);
    if (r < 0)
        return ruche_error_errno(error, -r, "ioapic: cannot map 0x%x", IOAPIC_BASE);
    lapic_connect_eoi(d->machine, broadcast_eoi, s);
    for (int gsi = 0; gsi < IOAPIC_PINS; gsi++) {
        if (gsi != 2)
            d->machine->gsi[gsi] = (struct irq_line){ .set = set_pin, .opaque = s, .n = gsi ? gsi : 2 };
    }
    return true;
}

static void ioapic_unrealize(struct device *d)
{
    struct ioapic *s = container_of(d, struct ioapic, dev);
    for (int gsi = 0; gsi < IOAPIC_PINS; gsi++) {
        if (d->machine->gsi[gsi].opaque == s)
            d->machine->gsi[gsi] = (struct irq_line){ 0 };
    }
    lapic_connect_eoi(d->machine, NULL, NULL);
    mem_region_remove(&s->mmio);
}

static const struct state_field ioapic_state[] = {
    STATE(struct ioapic, select),
    STATE(struct ioapic, id, .max = 15),
    STATE(struct ioapic, lines, .max = (1u << IOAPIC_PINS) - 1),
    STATE_ARRAY(struct ioapic, redir),
    { 0 },
};

static const struct device_counter ioapic_counters[] = {
    COUNTER(struct ioapic, delivered, "Messages sent"),
    COUNTER(struct ioapic, masked, "Requests of masked pins"),
    COUNTER(struct ioapic, eois, "Level-triggered interrupts finished"),
    { 0 },
};

static const struct device_type ioapic_type = {
    .name = "ioapic", .summary = "I/O APIC with 24 pins", .spec = "Intel 82093AA", .bus = BUS_SYSTEM,
    .internal = true, .size = sizeof(struct ioapic), .state = ioapic_state, .counters = ioapic_counters,
    .realize = ioapic_realize, .reset = ioapic_reset, .load_after = ioapic_loaded,
    .unrealize = ioapic_unrealize,
};
DEVICE_TYPE(ioapic_type);
