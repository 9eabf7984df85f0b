/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `i8259`: the two cascaded interrupt controllers of the PC, with the edge/level registers of the
 * LPC bridge.
 *
 * Spec      Intel 8259A datasheet; ICH9 datasheet, section 13.4 (ELCR).
 * Thread    Any; the device's lock, which stands after all devices' locks. The output is LINT0 of
 *           the local APICs, which take no lock; they call ack() without holding one.
 * Trust     Ports are the guest's; every value is defined.
 */
#include "devices/irqchip/irqchip.h"

#define CASCADE 2

enum { MASTER, SLAVE };
enum { ICW1_NEEDS_ICW4 = 1, ICW1_SINGLE = 2, ICW1_LEVEL = 8, ICW1 = 0x10 };
enum { ICW4_AUTO_EOI = 2, ICW4_NESTED = 0x10 };
enum { OCW3 = 8, OCW3_POLL = 4 };

/* Operations of OCW2, bits 5 to 7. */
enum eoi_op { ROTATE_AUTO_CLEAR, EOI_ANY, EOI_NONE, EOI_LEVEL, ROTATE_AUTO_SET, EOI_ANY_ROTATE, SET_PRIORITY,
              EOI_LEVEL_ROTATE };

struct pic_chip {
    uint8_t irr, imr, isr;
    uint8_t lines;        /* levels of the inputs */
    uint8_t elcr;         /* 1: level-triggered */
    uint8_t lowest;       /* input with the lowest priority */
    uint8_t base;         /* vector of input 0 */
    uint8_t init_state;   /* the ICW that is expected next: 0, 2, 3, 4 */
    uint8_t needs_icw4, single, level_mode;
    uint8_t auto_eoi, rotate_auto, nested, special_mask;
    uint8_t poll, read_isr;
};

struct i8259 {
    struct device dev;
    struct pic_chip chip[2];
    struct irq_line next[16]; /* who was connected to the GSIs before: the IOAPIC */
    struct mem_region port[2], elcr_port;
    uint64_t acknowledged, spurious;
};

static const uint8_t elcr_writable[2] = { 0xf8, 0xde };

/* Distance of the foremost set bit from the highest priority, 8: none. */
static unsigned priority_of(const struct pic_chip *c, uint8_t bits)
{
    for (unsigned n = 0; n < 8; n++) {
        if (bits & 1u << ((c->lowest + 1 + n) & 7))
            return n;
    }
    return 8;
}

static bool is_level(const struct pic_chip *c, unsigned n)
{
    return c->level_mode || (c->elcr & 1u << n);
}

/* The input that should interrupt now, or -1. */
static int chip_pending(const struct pic_chip *c, bool is_master)
{
    unsigned request = priority_of(c, c->irr & ~c->imr);
    if (request == 8)
        return -1;
    uint8_t in_service = c->isr;
    if (c->special_mask)
        in_service &= ~c->imr;
    /* Fully nested, special: the slave may interrupt again while it is served. */
    if (is_master && c->nested)
        in_service &= ~(1u << CASCADE);
    if (request >= priority_of(c, in_service))
        return -1;
    return (c->lowest + 1 + request) & 7;
}

static void chip_set_line(struct pic_chip *c, unsigned n, bool level)
{
    uint8_t bit = 1u << n;
    if (is_level(c, n))
        c->irr = level ? c->irr | bit : c->irr & ~bit;
    else if (level && !(c->lines & bit))
        c->irr |= bit; /* stays, should the line fall before it is acknowledged */
    c->lines = level ? c->lines | bit : c->lines & ~bit;
}

/* The slave's output is the master's input 2: as a level, so that no request of it is lost or left
 * over. */
static void update_locked(struct i8259 *s)
{
    struct pic_chip *m = &s->chip[MASTER];
    bool slave_wants = chip_pending(&s->chip[SLAVE], false) >= 0;
    m->irr = slave_wants ? m->irr | 1u << CASCADE : m->irr & ~(1u << CASCADE);
    lapic_set_lint0(s->dev.machine, chip_pending(m, true) >= 0);
}

static void set_irq(void *opaque, int n, int level)
{
    struct i8259 *s = opaque;
    if (n != CASCADE) {
        pthread_mutex_lock(&s->dev.lock);
        chip_set_line(&s->chip[n >> 3], (unsigned)n & 7, level);
        update_locked(s);
        pthread_mutex_unlock(&s->dev.lock);
    }
    irq_set(&s->next[n], level);
}

static void chip_ack(struct pic_chip *c, unsigned n)
{
    if (!is_level(c, n))
        c->irr &= ~(1u << n);
    if (!c->auto_eoi)
        c->isr |= 1u << n;
    else if (c->rotate_auto)
        c->lowest = n;
}

/* One chip's half of the acknowledge cycle: its input, 7 for a request that has gone away. */
static unsigned chip_acknowledge(struct i8259 *s, unsigned chip)
{
    int n = chip_pending(&s->chip[chip], chip == MASTER);
    if (n < 0) {
        s->spurious++;
        return 7;
    }
    chip_ack(&s->chip[chip], (unsigned)n);
    return (unsigned)n;
}

static int acknowledge(void *opaque)
{
    struct i8259 *s = opaque;
    pthread_mutex_lock(&s->dev.lock);
    s->acknowledged++;
    int slave_wants = chip_pending(&s->chip[MASTER], true) == CASCADE;
    unsigned n = chip_acknowledge(s, MASTER);
    int vector = s->chip[MASTER].base + (int)n;
    if (slave_wants)
        vector = s->chip[SLAVE].base + (int)chip_acknowledge(s, SLAVE);
    /* The output goes low with the cycle, so that the next request is an edge. */
    lapic_set_lint0(s->dev.machine, 0);
    update_locked(s);
    pthread_mutex_unlock(&s->dev.lock);
    return vector;
}

/* --- ports --- */

static void end_of_interrupt(struct pic_chip *c, uint8_t val)
{
    enum eoi_op op = val >> 5;
    unsigned n = val & 7;
    switch (op) {
    case ROTATE_AUTO_CLEAR:
    case ROTATE_AUTO_SET:
        c->rotate_auto = op == ROTATE_AUTO_SET;
        break;
    case EOI_ANY:
    case EOI_ANY_ROTATE: {
        unsigned first = priority_of(c, c->special_mask ? c->isr & ~c->imr : c->isr);
        if (first == 8)
            break;
        n = (c->lowest + 1 + first) & 7;
        c->isr &= ~(1u << n);
        if (op == EOI_ANY_ROTATE)
            c->lowest = n;
        break;
    }
    case EOI_LEVEL:
    case EOI_LEVEL_ROTATE:
        c->isr &= ~(1u << n);
        if (op == EOI_LEVEL_ROTATE)
            c->lowest = n;
        break;
    case SET_PRIORITY:
        c->lowest = n;
        break;
    case EOI_NONE:
        break;
    }
}

/* ICW1 forgets everything but the lines, their triggers, and what a level line still asks for. */
static void begin_init(struct pic_chip *c, uint8_t val)
{
    *c = (struct pic_chip){
        .lines = c->lines, .elcr = c->elcr, .lowest = 7, .init_state = 2,
        .needs_icw4 = val & ICW1_NEEDS_ICW4, .single = val & ICW1_SINGLE, .level_mode = val & ICW1_LEVEL,
    };
    for (unsigned n = 0; n < 8; n++) {
        if (is_level(c, n) && (c->lines & 1u << n))
            c->irr |= 1u << n;
    }
}

static void command_written(struct pic_chip *c, uint8_t val)
{
    if (val & ICW1) {
        begin_init(c, val);
    } else if (val & OCW3) {
        c->poll = !!(val & OCW3_POLL);
        if (val & 2)
            c->read_isr = val & 1;
        if (val & 0x40)
            c->special_mask = val >> 5 & 1;
    } else {
        end_of_interrupt(c, val);
    }
}

static void data_written(struct pic_chip *c, uint8_t val)
{
    switch (c->init_state) {
    case 2:
        c->base = val & 0xf8;
        c->init_state = !c->single ? 3 : c->needs_icw4 ? 4 : 0;
        break;
    case 3: /* the wiring of the cascade is fixed */
        c->init_state = c->needs_icw4 ? 4 : 0;
        break;
    case 4:
        c->auto_eoi = !!(val & ICW4_AUTO_EOI);
        c->nested = !!(val & ICW4_NESTED);
        c->init_state = 0;
        break;
    default:
        c->imr = val;
        break;
    }
}

static void port_write(struct i8259 *s, unsigned chip, uint64_t off, uint8_t val)
{
    if (off == 0)
        command_written(&s->chip[chip], val);
    else
        data_written(&s->chip[chip], val);
    update_locked(s);
}

static uint8_t port_read(struct i8259 *s, unsigned chip, uint64_t off)
{
    struct pic_chip *c = &s->chip[chip];
    if (c->poll) {
        c->poll = 0;
        int n = chip_pending(c, chip == MASTER);
        if (n >= 0)
            chip_ack(c, (unsigned)n);
        update_locked(s);
        return n >= 0 ? 0x80 | n : 0;
    }
    if (off)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static uint64_t master_read(void *opaque, uint64_t off, unsigned size)
{
    return port_read(opaque, MASTER, off);
}

static void master_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    port_write(opaque, MASTER, off, (uint8_t)val);
}

static uint64_t slave_read(void *opaque, uint64_t off, unsigned size)
{
    return port_read(opaque, SLAVE, off);
}

static void slave_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    port_write(opaque, SLAVE, off, (uint8_t)val);
}

static uint64_t elcr_read(void *opaque, uint64_t off, unsigned size)
{
    struct i8259 *s = opaque;
    return s->chip[off].elcr;
}

static void elcr_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct i8259 *s = opaque;
    s->chip[off].elcr = (uint8_t)val & elcr_writable[off];
    for (unsigned n = 0; n < 8; n++)
        chip_set_line(&s->chip[off], n, s->chip[off].lines & 1u << n);
    update_locked(s);
}

static const struct mem_ops port_ops[2] = {
    { .read = master_read, .write = master_write, .min_size = 1, .max_size = 1 },
    { .read = slave_read, .write = slave_write, .min_size = 1, .max_size = 1 },
};
static const struct mem_ops elcr_ops = {
    .read = elcr_read, .write = elcr_write, .min_size = 1, .max_size = 1,
};

static void i8259_reset(struct device *d)
{
    struct i8259 *s = container_of(d, struct i8259, dev);
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < 2; i++)
        s->chip[i] = (struct pic_chip){ .lines = s->chip[i].lines, .lowest = 7 };
    update_locked(s);
    pthread_mutex_unlock(&d->lock);
}

static bool i8259_loaded(struct device *d, GError **error)
{
    struct i8259 *s = container_of(d, struct i8259, dev);
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < 2; i++) {
        s->chip[i].base &= 0xf8;
        s->chip[i].elcr &= elcr_writable[i];
    }
    update_locked(s);
    pthread_mutex_unlock(&d->lock);
    return true;
}

static bool i8259_realize(struct device *d, GError **error)
{
    struct i8259 *s = container_of(d, struct i8259, dev);
    static const uint16_t base[2] = { 0x20, 0xa0 };
    lapic_connect_pic(d->machine, acknowledge, s);
    i8259_reset(d);
    int r = 0;
    for (unsigned i = 0; i < 2 && !r; i++) {
        mem_region_init_io(&s->port[i], "i8259", &port_ops[i], s, 2, &d->lock);
        r = mem_region_add(d->machine->io, &s->port[i], base[i], 0);
    }
    mem_region_init_io(&s->elcr_port, "i8259-elcr", &elcr_ops, s, 2, &d->lock);
    if (!r)
        r = mem_region_add(d->machine->io, &s->elcr_port, 0x4d0, 0);
    if (r < 0)
        return ruche_error_errno(error, -r, "i8259: cannot map its ports");
    for (int n = 0; n < 16; n++) {
        s->next[n] = d->machine->gsi[n];
        d->machine->gsi[n] = (struct irq_line){ .set = set_irq, .opaque = s, .n = n };
    }
    return true;
}

static void i8259_unrealize(struct device *d)
{
    struct i8259 *s = container_of(d, struct i8259, dev);
    for (int n = 0; n < 16; n++) {
        if (d->machine->gsi[n].opaque == s)
            d->machine->gsi[n] = s->next[n];
    }
    lapic_connect_pic(d->machine, NULL, NULL);
    mem_region_remove(&s->port[MASTER]);
    mem_region_remove(&s->port[SLAVE]);
    mem_region_remove(&s->elcr_port);
}

#define CHIPS(member, ...) STATE_OF_EACH(struct i8259, chip, member, __VA_ARGS__)

static const struct state_field i8259_state[] = {
    CHIPS(irr),
    CHIPS(imr),
    CHIPS(isr),
    CHIPS(lines),
    CHIPS(elcr),
    CHIPS(lowest, .max = 7),
    CHIPS(base, .max = 0xf8),
    CHIPS(init_state, .max = 4),
    CHIPS(needs_icw4, .max = 1),
    CHIPS(single),
    CHIPS(level_mode),
    CHIPS(auto_eoi, .max = 1),
    CHIPS(rotate_auto, .max = 1),
    CHIPS(nested, .max = 1),
    CHIPS(special_mask, .max = 1),
    CHIPS(poll, .max = 1),
    CHIPS(read_isr, .max = 1),
    { 0 },
};

static const struct device_counter i8259_counters[] = {
    COUNTER(struct i8259, acknowledged, "Acknowledge cycles"),
    COUNTER(struct i8259, spurious, "Cycles without a request"),
    { 0 },
};

static const struct device_type i8259_type = {
    .name = "i8259", .summary = "Two cascaded interrupt controllers", .spec = "Intel 8259A", .bus = BUS_ISA,
    .internal = true, .size = sizeof(struct i8259), .state = i8259_state, .counters = i8259_counters,
    .realize = i8259_realize, .reset = i8259_reset, .load_after = i8259_loaded,
    .unrealize = i8259_unrealize,
};
DEVICE_TYPE(i8259_type);
