/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `isa-serial`: a 16550A UART on the ISA bus.
 *
 * Spec      National Semiconductor PC16550D datasheet.
 * Thread    Registers: any vCPU. Input: the main loop. Both with the device's lock.
 * Trust     Registers are the guest's, received bytes the peer's.
 * Timing    Output leaves at once; the line's speed only matters to the character timeout. Output
 *           that the backend does not take waits in the transmit FIFO, and the guest sees it not
 *           empty.
 */
#include "chardev/chardev.h"
#include "machine/backends.h"
#include "machine/machine.h"

#include <string.h>

#define FIFO_SIZE 16
#define BAUD_BASE 115200

/* Offsets. The first two are the divisor while DLAB is set. */
enum { REG_DATA, REG_IER, REG_IIR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR, N_REGS };
enum { IER_RX = 1, IER_TX = 2, IER_LINE = 4, IER_MODEM = 8 };
enum { IIR_NONE = 1, IIR_MODEM = 0, IIR_TX = 2, IIR_RX = 4, IIR_LINE = 6, IIR_TIMEOUT = 12, IIR_FIFO = 0xc0 };
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4, FCR_KEPT = 0xc9 };
enum { LCR_BREAK = 0x40, LCR_DLAB = 0x80 };
enum { MCR_LOOP = 0x10 };
enum { LSR_READY = 1, LSR_OVERRUN = 2, LSR_BREAK = 0x10, LSR_TX_EMPTY = 0x20, LSR_IDLE = 0x40,
       LSR_FIFO_ERROR = 0x80, LSR_ERRORS = 0x1e };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80, MSR_LINES = 0xf0, MSR_DELTA_RI = 4 };

struct serial_fifo {
    uint8_t data[FIFO_SIZE];
    uint8_t head, count;
};

struct serial {
    struct device dev;
    struct mem_region ports;
    struct clock_timer timeout;
    struct chardev *backend;       /* borrowed; NULL: nothing is connected */
    char *chardev;
    int32_t index;
    uint32_t iobase, irq;
    struct serial_fifo rx, tx;
    uint8_t ier, fcr, lcr, mcr, lsr, msr, scr;
    uint16_t divisor;
    uint8_t tx_pending;            /* the transmitter-empty interrupt was not yet read from IIR */
    uint8_t timeout_pending;
    uint8_t rx_blocked;            /* the backend was told to wait */
    uint64_t bytes_out, bytes_in, overruns, dropped;
};

static const struct {
    uint16_t iobase;
    uint8_t irq;
} standard[] = { { 0x3f8, 4 }, { 0x2f8, 3 }, { 0x3e8, 4 }, { 0x2e8, 3 } };

static void fifo_put(struct serial_fifo *f, uint8_t byte)
{
    f->data[(f->head + f->count++) % FIFO_SIZE] = byte;
}

static uint8_t fifo_get(struct serial_fifo *f)
{
    uint8_t byte = f->data[f->head];
    f->head = (f->head + 1) % FIFO_SIZE;
    f->count--;
    return byte;
}

static bool fifo_on(const struct serial *s)
{
    return s->fcr & FCR_ENABLE;
}

static unsigned capacity(const struct serial *s)
{
    return fifo_on(s) ? FIFO_SIZE : 1;
}

static unsigned trigger_level(const struct serial *s)
{
    static const uint8_t level[4] = { 1, 4, 8, 14 };
    return fifo_on(s) ? level[s->fcr >> 6] : 1;
}

/* --- interrupts --- */

static uint8_t interrupt_id(const struct serial *s)
{
    if ((s->ier & IER_LINE) && (s->lsr & LSR_ERRORS))
        return IIR_LINE;
    if ((s->ier & IER_RX) && s->rx.count >= trigger_level(s))
        return IIR_RX;
    if ((s->ier & IER_RX) && s->timeout_pending)
        return IIR_TIMEOUT;
    if ((s->ier & IER_TX) && s->tx_pending)
        return IIR_TX;
    if ((s->ier & IER_MODEM) && (s->msr & 0x0f))
        return IIR_MODEM;
    return IIR_NONE;
}

static void update_irq(struct serial *s)
{
    irq_set(&s->dev.machine->gsi[s->irq], interrupt_id(s) != IIR_NONE);
}

/* Four characters of ten bits without news. */
static void arm_timeout(struct serial *s)
{
    s->timeout_pending = 0;
    if (!fifo_on(s) || !s->rx.count) {
        clock_timer_cancel(&s->timeout);
        return;
    }
    int64_t ns = 40 * NS_PER_SEC * (s->divisor ? s->divisor : 1) / BAUD_BASE;
    clock_timer_arm(&s->timeout, clock_now_ns(&s->dev.machine->clock) + ns);
}

static void timeout_fired(void *opaque)
{
    struct serial *s = opaque;
    pthread_mutex_lock(&s->dev.lock);
    if (s->rx.count && fifo_on(s)) {
        s->timeout_pending = 1;
        update_irq(s);
    }
    pthread_mutex_unlock(&s->dev.lock);
}

/* --- the two directions --- */

static void receive_byte(struct serial *s, uint8_t byte)
{
    if (s->rx.count >= capacity(s)) {
        s->lsr |= LSR_OVERRUN;
        s->overruns++;
        return;
    }
    fifo_put(&s->rx, byte);
    s->lsr |= LSR_READY;
}

static void set_tx_state(struct serial *s)
{
    if (s->tx.count) {
        s->lsr &= ~(LSR_TX_EMPTY | LSR_IDLE);
    } else if (!(s->lsr & LSR_TX_EMPTY)) {
        s->lsr |= LSR_TX_EMPTY | LSR_IDLE;
        s->tx_pending = 1;
    }
}

/* What waits goes out as far as the backend takes it. */
static void flush_tx(struct serial *s)
{
    while (s->tx.count) {
        unsigned run = FIFO_SIZE - s->tx.head;
        run = run < s->tx.count ? run : s->tx.count;
        size_t taken = s->backend ? chardev_write(s->backend, s->tx.data + s->tx.head, run) : run;
        s->tx.head = (s->tx.head + taken) % FIFO_SIZE;
        s->tx.count -= taken;
        s->bytes_out += taken;
        if (taken < run)
            break;
    }
    set_tx_state(s);
}

static void data_written(struct serial *s, uint8_t byte)
{
    s->tx_pending = 0;
    if (s->mcr & MCR_LOOP) {
        receive_byte(s, byte);
        arm_timeout(s);
        s->tx_pending = 1;
        return;
    }
    if (s->tx.count >= capacity(s)) {
        s->dropped++;
        return;
    }
    fifo_put(&s->tx, byte);
    s->lsr &= ~(LSR_TX_EMPTY | LSR_IDLE);
    flush_tx(s);
}

static uint8_t data_read(struct serial *s)
{
    uint8_t byte = s->rx.count ? fifo_get(&s->rx) : 0;
    if (!s->rx.count)
        s->lsr &= ~(LSR_READY | LSR_BREAK | LSR_FIFO_ERROR);
    arm_timeout(s);
    if (s->rx_blocked && s->rx.count <= capacity(s) / 2) {
        s->rx_blocked = 0;
        if (s->backend)
            chardev_accept_input(s->backend);
    }
    return byte;
}

/* --- front end of the backend, on the main loop --- */

static size_t serial_can_receive(void *opaque)
{
    struct serial *s = opaque;
    pthread_mutex_lock(&s->dev.lock);
    size_t room = s->mcr & MCR_LOOP ? 0 : capacity(s) - min_u64(s->rx.count, capacity(s));
    if (!room)
        s->rx_blocked = 1;
    pthread_mutex_unlock(&s->dev.lock);
    return room;
}

static void serial_receive(void *opaque, const uint8_t *data, size_t len)
{
    struct serial *s = opaque;
    pthread_mutex_lock(&s->dev.lock);
    s->bytes_in += len;
    for (size_t i = 0; i < len; i++)
        receive_byte(s, data[i]);
    arm_timeout(s);
    update_irq(s);
    pthread_mutex_unlock(&s->dev.lock);
}

static void serial_sent(void *opaque)
{
    struct serial *s = opaque;
    pthread_mutex_lock(&s->dev.lock);
    flush_tx(s);
    update_irq(s);
    pthread_mutex_unlock(&s->dev.lock);
}

static void serial_break(void *opaque)
{
    struct serial *s = opaque;
    pthread_mutex_lock(&s->dev.lock);
    receive_byte(s, 0);
    s->lsr |= LSR_BREAK;
    arm_timeout(s);
    update_irq(s);
    pthread_mutex_unlock(&s->dev.lock);
}

/* --- registers --- */

static void ier_written(struct serial *s, uint8_t val)
{
    /* Enabling the transmitter's interrupt while it is empty raises it. */
    if ((val & ~s->ier & IER_TX) && (s->lsr & LSR_TX_EMPTY))
        s->tx_pending = 1;
    s->ier = val & 0x0f;
}

static void fcr_written(struct serial *s, uint8_t val)
{
    bool toggled = (val ^ s->fcr) & FCR_ENABLE;
    if (toggled || (val & FCR_CLEAR_RX)) {
        s->rx = (struct serial_fifo){ 0 };
        s->lsr &= ~(LSR_READY | LSR_BREAK | LSR_FIFO_ERROR);
    }
    if (toggled || (val & FCR_CLEAR_TX)) {
        s->tx = (struct serial_fifo){ 0 };
        set_tx_state(s);
    }
    s->fcr = val & FCR_ENABLE ? val & FCR_KEPT : 0;
    arm_timeout(s);
    if (s->rx_blocked && s->backend) {
        s->rx_blocked = 0;
        chardev_accept_input(s->backend);
    }
}

/* In loopback the outputs DTR, RTS, OUT1, OUT2 are the inputs DSR, CTS, RI, DCD. */
static void update_modem_lines(struct serial *s)
{
    uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD;
    if (s->mcr & MCR_LOOP)
        lines = (s->mcr & 1) << 5 | (s->mcr & 2) << 3 | (s->mcr & 4) << 4 | (s->mcr & 8) << 4;
    uint8_t changed = (s->msr ^ lines) & MSR_LINES;
    /* The ring indicator counts when it ends. */
    if (lines & MSR_RI)
        changed &= ~MSR_RI;
    s->msr = lines | (s->msr & 0x0f) | changed >> 4;
}

static void mcr_written(struct serial *s, uint8_t val)
{
    bool left_loop = (s->mcr & MCR_LOOP) && !(val & MCR_LOOP);
    s->mcr = val & 0x1f;
    update_modem_lines(s);
    if (left_loop && s->rx_blocked && s->backend) {
        s->rx_blocked = 0;
        chardev_accept_input(s->backend);
    }
}

static void serial_write(void *opaque, uint64_t off, uint64_t val64, unsigned size)
{
    struct serial *s = opaque;
    uint8_t val = (uint8_t)val64;
    bool dlab = s->lcr & LCR_DLAB;
    switch (off) {
    case REG_DATA:
        if (dlab)
            s->divisor = (s->divisor & 0xff00) | val;
        else
            data_written(s, val);
        break;
    case REG_IER:
        if (dlab)
            s->divisor = (s->divisor & 0xff) | (uint16_t)val << 8;
        else
            ier_written(s, val);
        break;
    case REG_IIR:
        fcr_written(s, val);
        break;
    case REG_LCR:
        s->lcr = val;
        break;
    case REG_MCR:
        mcr_written(s, val);
        break;
    case REG_SCR:
        s->scr = val;
        break;
    default: /* the status registers are read-only */
        break;
    }
    update_irq(s);
}

static uint64_t serial_read(void *opaque, uint64_t off, unsigned size)
{
    struct serial *s = opaque;
    bool dlab = s->lcr & LCR_DLAB;
    uint8_t val = 0;
    switch (off) {
    case REG_DATA:
        val = dlab ? s->divisor & 0xff : data_read(s);
        break;
    case REG_IER:
        val = dlab ? s->divisor >> 8 : s->ier;
        break;
    case REG_IIR:
        val = interrupt_id(s);
        if (val == IIR_TX)
            s->tx_pending = 0;
        val |= fifo_on(s) ? IIR_FIFO : 0;
        break;
    case REG_LCR:
        val = s->lcr;
        break;
    case REG_MCR:
        val = s->mcr;
        break;
    case REG_LSR:
        val = s->lsr;
        if (!(val & LSR_ERRORS))
            return val;
        s->lsr &= ~LSR_ERRORS;
        break;
    case REG_MSR:
        val = s->msr;
        s->msr &= MSR_LINES;
        break;
    default:
        val = s->scr;
        break;
    }
    update_irq(s);
    return val;
}

static const struct mem_ops serial_ops = {
    .read = serial_read, .write = serial_write, .min_size = 1, .max_size = 1,
};

/* --- life --- */

static void serial_reset(struct device *d)
{
    struct serial *s = container_of(d, struct serial, dev);
    pthread_mutex_lock(&d->lock);
    s->rx = s->tx = (struct serial_fifo){ 0 };
    s->ier = s->fcr = s->lcr = s->mcr = s->scr = 0;
    s->lsr = LSR_TX_EMPTY | LSR_IDLE;
    s->msr = MSR_CTS | MSR_DSR | MSR_DCD;
    s->divisor = 12;
    s->tx_pending = s->timeout_pending = s->rx_blocked = 0;
    clock_timer_cancel(&s->timeout);
    update_irq(s);
    pthread_mutex_unlock(&d->lock);
    if (s->backend)
        chardev_accept_input(s->backend);
}

static bool serial_loaded(struct device *d, GError **error)
{
    struct serial *s = container_of(d, struct serial, dev);
    pthread_mutex_lock(&d->lock);
    clock_timer_loaded(&s->timeout);
    if (s->tx.count)
        flush_tx(s);
    if (interrupt_id(s) != IIR_NONE)
        update_irq(s);
    pthread_mutex_unlock(&d->lock);
    if (s->backend)
        chardev_accept_input(s->backend);
    return true;
}

static bool index_taken(const struct serial *self, int32_t index)
{
    for (struct device *d = self->dev.machine->devices; d; d = d->next) {
        if (d != &self->dev && d->type == self->dev.type && d->realized &&
            ((struct serial *)d)->index == index)
            return true;
    }
    return false;
}

static bool choose_place(struct serial *s, GError **error)
{
    if (s->index < 0) {
        s->index = 0;
        while (index_taken(s, s->index))
            s->index++;
    } else if (index_taken(s, s->index)) {
        return ruche_error(error, RUCHE_ERR_EXISTS, "isa-serial: index %d is taken", s->index);
    }
    bool known = s->index < (int)ARRAY_COUNT(standard);
    if (!known && (!s->iobase || !s->irq))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "isa-serial: index %d has no standard ports; give iobase and irq, or an index "
                           "below %zu", s->index, ARRAY_COUNT(standard));
    if (!s->iobase)
        s->iobase = standard[s->index].iobase;
    if (!s->irq)
        s->irq = standard[s->index].irq;
    return true;
}

static bool serial_realize(struct device *d, GError **error)
{
    struct serial *s = container_of(d, struct serial, dev);
    if (!choose_place(s, error))
        return false;
    struct chardev *backend = NULL;
    if (s->chardev) {
        backend = backend_find(d->machine, BACKEND_CHARDEV, "isa-serial", s->chardev, error);
        if (!backend)
            return false;
    }
    clock_timer_init(&d->machine->clock, d->loop, &s->timeout, timeout_fired, s);
    serial_reset(d);
    mem_region_init_io(&s->ports, "isa-serial", &serial_ops, s, N_REGS, &d->lock);
    int r = mem_region_add(d->machine->io, &s->ports, s->iobase, 0);
    if (r < 0)
        return ruche_error_errno(error, -r, "isa-serial: cannot map ports 0x%x", s->iobase);
    const struct chardev_frontend frontend = {
        .can_receive = serial_can_receive, .receive = serial_receive, .sent = serial_sent,
        .send_break = serial_break, .opaque = s, .takes_another = true,
    };
    if (backend && !chardev_attach(backend, &frontend, error))
        return false;
    s->backend = backend;
    return true;
}

static void serial_unrealize(struct device *d)
{
    struct serial *s = container_of(d, struct serial, dev);
    if (s->backend)
        chardev_detach(s->backend, s);
    mem_region_remove(&s->ports);
    clock_timer_done(&s->timeout);
}

static const struct prop serial_props[] = {
    PROP_STRING("chardev", struct serial, chardev, .help = "Character backend by id"),
    PROP_I32("index", struct serial, index, .def = (uint64_t)-1,
             .help = "0 to 3: COM1 to COM4; -1: the next free one"),
    PROP_U32("iobase", struct serial, iobase, .min = 0, .max = 0xfff8, .help = "First port; 0: by index"),
    PROP_U32("irq", struct serial, irq, .min = 0, .max = 15, .help = "ISA interrupt; 0: by index"),
    { 0 },
};

static const struct state_field serial_state[] = {
    STATE_ARRAY(struct serial, rx.data),
    STATE(struct serial, rx.head, .max = FIFO_SIZE - 1),
    STATE(struct serial, rx.count, .max = FIFO_SIZE),
    STATE_ARRAY(struct serial, tx.data),
    STATE(struct serial, tx.head, .max = FIFO_SIZE - 1),
    STATE(struct serial, tx.count, .max = FIFO_SIZE),
    STATE(struct serial, ier),
    STATE(struct serial, fcr),
    STATE(struct serial, lcr),
    STATE(struct serial, mcr),
    STATE(struct serial, lsr),
    STATE(struct serial, msr),
    STATE(struct serial, scr),
    STATE(struct serial, divisor),
    STATE(struct serial, tx_pending),
    STATE(struct serial, timeout_pending),
    STATE(struct serial, timeout.deadline_ns),
    { 0 },
};

static const struct device_counter serial_counters[] = {
    COUNTER(struct serial, bytes_out, "Bytes sent"),
    COUNTER(struct serial, bytes_in, "Bytes received"),
    COUNTER(struct serial, overruns, "Received bytes that found the FIFO full"),
    COUNTER(struct serial, dropped, "Bytes written to a full transmitter"),
    { 0 },
};

static const struct device_type serial_type = {
    .name = "isa-serial", .summary = "16550A serial port", .spec = "PC16550D", .bus = BUS_ISA,
    .size = sizeof(struct serial), .props = serial_props, .state = serial_state,
    .counters = serial_counters, .realize = serial_realize, .reset = serial_reset, .load_after = serial_loaded,
   
    .unrealize = serial_unrealize,
};
DEVICE_TYPE(serial_type);
