/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `i8042`: the keyboard controller with a PS/2 keyboard and mouse; also resets the machine.
 *
 * Spec      IBM PS/2 technical reference, keyboard and auxiliary device controller.
 * Thread    Ports: any vCPU. Input: any. All with the device's lock.
 * Trust     Ports are the guest's. The A20 gate is always open: its bit only reads back.
 */
#include "devices/input/i8042.h"
#include "devices/input/ps2.h"
#include "machine/machine.h"

#define IRQ_KEYBOARD 1
#define IRQ_MOUSE 12

enum { STATUS_FULL = 0x01, STATUS_SYSTEM = 0x04, STATUS_COMMAND = 0x08, STATUS_UNLOCKED = 0x10,
       STATUS_MOUSE = 0x20 };
enum { CTR_KEYBOARD_IRQ = 0x01, CTR_MOUSE_IRQ = 0x02, CTR_SYSTEM = 0x04, CTR_KEYBOARD_OFF = 0x10,
       CTR_MOUSE_OFF = 0x20, CTR_TRANSLATE = 0x40 };
enum { CMD_READ_RAM = 0x20, CMD_WRITE_RAM = 0x60, CMD_MOUSE_OFF = 0xa7, CMD_MOUSE_ON = 0xa8,
       CMD_TEST_MOUSE = 0xa9, CMD_SELF_TEST = 0xaa, CMD_TEST_KEYBOARD = 0xab, CMD_KEYBOARD_OFF = 0xad,
       CMD_KEYBOARD_ON = 0xae, CMD_READ_INPUT = 0xc0, CMD_READ_OUTPUT = 0xd0, CMD_WRITE_OUTPUT = 0xd1,
       CMD_KEYBOARD_LOOP = 0xd2, CMD_MOUSE_LOOP = 0xd3, CMD_TO_MOUSE = 0xd4, CMD_PULSE = 0xf0 };
enum { OUTPUT_NO_RESET = 1, OUTPUT_A20 = 2 };

struct i8042 {
    struct device dev;
    struct mem_region data_port, command_port;
    struct ps2_keyboard keyboard;
    struct ps2_mouse mouse;
    uint8_t ram[32];        /* byte 0: the control register */
    uint8_t status, data;
    uint8_t command;        /* waits for its data byte; 0: none */
    uint8_t output;         /* output port's bits 0 and 1 */
    uint8_t reply, reply_from_mouse, has_reply; /* of the controller itself, or looped back */
    uint8_t release;        /* translation saw the set 2 release prefix */
    uint64_t bytes_keyboard, bytes_mouse;
};

static void set_irqs(struct i8042 *s)
{
    struct irq_line *gsi = s->dev.machine->gsi;
    bool full = s->status & STATUS_FULL, mouse = s->status & STATUS_MOUSE;
    irq_set(&gsi[IRQ_KEYBOARD], full && !mouse && (s->ram[0] & CTR_KEYBOARD_IRQ));
    irq_set(&gsi[IRQ_MOUSE], full && mouse && (s->ram[0] & CTR_MOUSE_IRQ));
}

static void fill(struct i8042 *s, uint8_t byte, bool mouse)
{
    s->data = byte;
    s->status = (s->status & ~STATUS_MOUSE) | STATUS_FULL | (mouse ? STATUS_MOUSE : 0);
}

/* Set 2 to set 1: the release prefix becomes the top bit. */
static bool translate(struct i8042 *s, uint8_t *byte)
{
    if (!(s->ram[0] & CTR_TRANSLATE))
        return true;
    if (*byte == 0xf0) {
        s->release = 0x80;
        return false;
    }
    *byte = ps2_set1[*byte] | s->release;
    s->release = 0;
    return true;
}

/* Moves the next byte to the empty buffer: the controller's own first, then the keyboard's, then
 * the mouse's. */
static void update(struct i8042 *s)
{
    uint8_t byte;
    if (!(s->status & STATUS_FULL) && s->has_reply) {
        s->has_reply = 0;
        fill(s, s->reply, s->reply_from_mouse);
    }
    while (!(s->status & STATUS_FULL) && !(s->ram[0] & CTR_KEYBOARD_OFF) &&
           ps2_get(&s->keyboard.out, &byte)) {
        s->bytes_keyboard++;
        if (translate(s, &byte))
            fill(s, byte, false);
    }
    if (!(s->status & STATUS_FULL) && !(s->ram[0] & CTR_MOUSE_OFF) && ps2_get(&s->mouse.out, &byte)) {
        s->bytes_mouse++;
        fill(s, byte, true);
    }
    set_irqs(s);
}

static void reply(struct i8042 *s, uint8_t byte, bool from_mouse)
{
    s->reply = byte;
    s->reply_from_mouse = from_mouse;
    s->has_reply = 1;
}

static void write_output(struct i8042 *s, uint8_t val)
{
    s->output = val & (OUTPUT_NO_RESET | OUTPUT_A20);
    if (!(val & OUTPUT_NO_RESET))
        machine_request(s->dev.machine, MACHINE_REQ_RESET, 0);
}

static void self_test(struct i8042 *s)
{
    s->status |= STATUS_SYSTEM;
    s->ram[0] = (s->ram[0] | CTR_SYSTEM | CTR_KEYBOARD_OFF | CTR_MOUSE_OFF) &
                ~(CTR_KEYBOARD_IRQ | CTR_MOUSE_IRQ);
    s->release = 0;
    reply(s, 0x55, false);
}

static void command_written(struct i8042 *s, uint8_t val)
{
    s->status |= STATUS_COMMAND;
    s->command = 0;
    switch (val) {
    case CMD_READ_RAM ... CMD_READ_RAM + 31:
        reply(s, s->ram[val & 31], false);
        break;
    case CMD_WRITE_RAM ... CMD_WRITE_RAM + 31:
    case CMD_WRITE_OUTPUT ... CMD_TO_MOUSE:
        s->command = val;
        break;
    case CMD_MOUSE_OFF:
        s->ram[0] |= CTR_MOUSE_OFF;
        break;
    case CMD_MOUSE_ON:
        s->ram[0] &= ~CTR_MOUSE_OFF;
        break;
    case CMD_KEYBOARD_OFF:
        s->ram[0] |= CTR_KEYBOARD_OFF;
        break;
    case CMD_KEYBOARD_ON:
        s->ram[0] &= ~CTR_KEYBOARD_OFF;
        break;
    case CMD_TEST_MOUSE:
    case CMD_TEST_KEYBOARD:
        reply(s, 0, false);
        break;
    case CMD_SELF_TEST:
        self_test(s);
        break;
    case CMD_READ_INPUT:
        reply(s, 0x80, false); /* not locked */
        break;
    case CMD_READ_OUTPUT:
        reply(s, s->output | (s->status & STATUS_FULL ? 0x10 : 0), false);
        break;
    case CMD_PULSE ... CMD_PULSE + 15:
        if (!(val & OUTPUT_NO_RESET))
            machine_request(s->dev.machine, MACHINE_REQ_RESET, 0);
        break;
    default:
        break;
    }
}

static void data_written(struct i8042 *s, uint8_t val)
{
    uint8_t command = s->command;
    s->command = 0;
    s->status &= ~STATUS_COMMAND;
    switch (command) {
    case 0:
        /* A byte to the keyboard turns its line on. */
        s->ram[0] &= ~CTR_KEYBOARD_OFF;
        ps2_keyboard_command(&s->keyboard, val);
        break;
    case CMD_WRITE_RAM ... CMD_WRITE_RAM + 31:
        s->ram[command & 31] = val;
        break;
    case CMD_WRITE_OUTPUT:
        write_output(s, val);
        break;
    case CMD_KEYBOARD_LOOP:
        reply(s, val, false);
        break;
    case CMD_MOUSE_LOOP:
        reply(s, val, true);
        break;
    default:
        s->ram[0] &= ~CTR_MOUSE_OFF;
        ps2_mouse_command(&s->mouse, val);
        break;
    }
}

/* --- ports --- */

static uint64_t data_read(void *opaque, uint64_t off, unsigned size)
{
    struct i8042 *s = opaque;
    uint8_t val = s->data;
    if (s->status & STATUS_FULL) {
        s->status &= ~STATUS_FULL;
        set_irqs(s); /* down, so that the next byte is an edge */
        update(s);
    }
    return val;
}

static void data_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    data_written(opaque, (uint8_t)val);
    update(opaque);
}

static uint64_t command_read(void *opaque, uint64_t off, unsigned size)
{
    struct i8042 *s = opaque;
    return s->status | STATUS_UNLOCKED;
}

static void command_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    command_written(opaque, (uint8_t)val);
    update(opaque);
}

static const struct mem_ops data_ops = { .read = data_read, .write = data_write, .min_size = 1, .max_size = 1 };
static const struct mem_ops command_ops = {
    .read = command_read, .write = command_write, .min_size = 1, .max_size = 1,
};

/* --- input --- */

bool i8042_key(struct device *i8042, const uint8_t *codes, unsigned count)
{
    struct i8042 *s = container_of(i8042, struct i8042, dev);
    pthread_mutex_lock(&i8042->lock);
    bool taken = ps2_keyboard_key(&s->keyboard, codes, count);
    update(s);
    pthread_mutex_unlock(&i8042->lock);
    return taken;
}

void i8042_move(struct device *i8042, int32_t dx, int32_t dy, int32_t dz, uint8_t buttons)
{
    struct i8042 *s = container_of(i8042, struct i8042, dev);
    pthread_mutex_lock(&i8042->lock);
    ps2_mouse_move(&s->mouse, dx, dy, dz, buttons);
    update(s);
    pthread_mutex_unlock(&i8042->lock);
}

/* --- life --- */

static void i8042_reset(struct device *d)
{
    struct i8042 *s = container_of(d, struct i8042, dev);
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < sizeof(s->ram); i++)
        s->ram[i] = 0;
    /* As firmware leaves it, for kernels that are started without one: tested, translating. */
    s->ram[0] = CTR_KEYBOARD_IRQ | CTR_MOUSE_IRQ | CTR_SYSTEM | CTR_TRANSLATE;
    s->status = STATUS_SYSTEM;
    s->data = s->command = s->has_reply = s->release = 0;
    s->output = OUTPUT_NO_RESET | OUTPUT_A20;
    ps2_keyboard_reset(&s->keyboard);
    ps2_mouse_reset(&s->mouse);
    update(s);
    pthread_mutex_unlock(&d->lock);
}

static bool i8042_loaded(struct device *d, GError **error)
{
    struct i8042 *s = container_of(d, struct i8042, dev);
    pthread_mutex_lock(&d->lock);
    if (s->status & STATUS_FULL)
        set_irqs(s);
    pthread_mutex_unlock(&d->lock);
    return true;
}

static bool i8042_realize(struct device *d, GError **error)
{
    struct i8042 *s = container_of(d, struct i8042, dev);
    i8042_reset(d);
    mem_region_init_io(&s->data_port, "i8042-data", &data_ops, s, 1, &d->lock);
    mem_region_init_io(&s->command_port, "i8042-command", &command_ops, s, 1, &d->lock);
    int r = mem_region_add(d->machine->io, &s->data_port, 0x60, 0);
    r = r ? r : mem_region_add(d->machine->io, &s->command_port, 0x64, 0);
    return !r || ruche_error_errno(error, -r, "i8042: cannot map its ports");
}

static void i8042_unrealize(struct device *d)
{
    struct i8042 *s = container_of(d, struct i8042, dev);
    mem_region_remove(&s->data_port);
    mem_region_remove(&s->command_port);
}

static const struct state_field i8042_state[] = {
    STATE_ARRAY(struct i8042, ram),
    STATE(struct i8042, status),
    STATE(struct i8042, data),
    STATE(struct i8042, command),
    STATE(struct i8042, output),
    STATE(struct i8042, reply),
    STATE(struct i8042, reply_from_mouse),
    STATE(struct i8042, has_reply),
    STATE(struct i8042, release),
    STATE_ARRAY(struct i8042, keyboard.out.data),
    STATE(struct i8042, keyboard.out.head, .max = PS2_QUEUE - 1),
    STATE(struct i8042, keyboard.out.count, .max = PS2_QUEUE),
    STATE(struct i8042, keyboard.command),
    STATE(struct i8042, keyboard.enabled),
    STATE(struct i8042, keyboard.leds),
    STATE(struct i8042, keyboard.scancode_set),
    STATE(struct i8042, keyboard.last),
    STATE_ARRAY(struct i8042, mouse.out.data),
    STATE(struct i8042, mouse.out.head, .max = PS2_QUEUE - 1),
    STATE(struct i8042, mouse.out.count, .max = PS2_QUEUE),
    STATE(struct i8042, mouse.command),
    STATE(struct i8042, mouse.enabled),
    STATE(struct i8042, mouse.remote),
    STATE(struct i8042, mouse.wrap),
    STATE(struct i8042, mouse.scaling),
    STATE(struct i8042, mouse.resolution),
    STATE(struct i8042, mouse.rate),
    STATE(struct i8042, mouse.id),
    STATE(struct i8042, mouse.buttons),
    STATE_ARRAY(struct i8042, mouse.knock),
    STATE(struct i8042, mouse.last),
    STATE(struct i8042, mouse.dx),
    STATE(struct i8042, mouse.dy),
    STATE(struct i8042, mouse.dz),
    { 0 },
};

static const struct device_counter i8042_counters[] = {
    COUNTER(struct i8042, bytes_keyboard, "Bytes from the keyboard"),
    COUNTER(struct i8042, bytes_mouse, "Bytes from the mouse"),
    { 0 },
};

static const struct device_type i8042_type = {
    .name = "i8042", .summary = "Keyboard controller with keyboard and mouse", .spec = "IBM PS/2",
    .bus = BUS_ISA, .internal = true, .size = sizeof(struct i8042), .state = i8042_state,
    .counters = i8042_counters, .realize = i8042_realize, .reset = i8042_reset, .load_after = i8042_loaded,
    .unrealize = i8042_unrealize,
};
DEVICE_TYPE(i8042_type);
