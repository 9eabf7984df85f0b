/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `virtio-serial-pci`: the console device with its ports' queues and the control queue that
 * announces them.
 *
 * Spec      VIRTIO 1.2, section 5.3.
 * Thread    The main loop, with the device's lock.
 * Trust     Control messages and chains are the guest's; bytes from a backend are cut to what the
 *           guest has room for.
 * Memory    Control messages that the guest has no buffer for wait in a bounded queue.
 */
#include "devices/virtio/console.h"

#include "base/cursor.h"

#include <linux/virtio_console.h>
#include <string.h>

#define QUEUE_SIZE 128
#define ROOM 64
#define NAME_MAX_BYTES 64
#define PENDING_MAX 256
#define WRITE_CHUNK 4096

struct control {
    uint32_t port;
    uint16_t event, value;
};

struct console {
    VIRTIO_BASE;
    uint32_t max_ports;
    int32_t emergency_write;
    struct console_port *port[CONSOLE_MAX_PORTS];
    struct control pending[PENDING_MAX]; /* a ring */
    unsigned pending_head, pending_count;
    uint64_t control_in, control_out, control_lost;
};

/* Queues 0 and 1 are port 0's, 2 and 3 the control's, then the other ports'. */
static unsigned in_queue(unsigned port)
{
    return port ? 2 * port + 2 : 0;
}

static int port_of_queue(unsigned queue)
{
    return queue < 2 ? 0 : queue < 4 ? -1 : (int)(queue / 2) - 1;
}

static bool multiport(const struct console *c)
{
    return virtio_has(&c->v, VIRTIO_CONSOLE_F_MULTIPORT);
}

/* --- control messages to the guest --- */

static void send_pending(struct console *c)
{
    struct iovec iov[ROOM];
    uint64_t gpa[ROOM];
    struct vq_elem e = { .iov = iov, .gpa = gpa, .room = ROOM };
    struct vq *q = &c->v.queue[2];
    while (c->pending_count && virtio_running(&c->v) && virtio_pop(&c->v, 2, &e)) {
        const struct control *m = &c->pending[c->pending_head];
        uint8_t text[sizeof(*m) + NAME_MAX_BYTES];
        size_t len = sizeof(*m);
        memcpy(text, m, len);
        struct console_port *p = m->port < CONSOLE_MAX_PORTS ? c->port[m->port] : NULL;
        if (m->event == VIRTIO_CONSOLE_PORT_NAME && p && p->name) {
            size_t n = min_u64(strlen(p->name), NAME_MAX_BYTES);
            memcpy(text + len, p->name, n);
            len += n;
        }
        size_t written = vq_copy_in(&e, 0, text, len);
        vq_push(q, &e, (uint32_t)written);
        c->control_out++;
        c->pending_head = (c->pending_head + 1) % PENDING_MAX;
        c->pending_count--;
    }
    virtio_publish(&c->v, 2);
    if (c->pending_count)
        virtio_rearm(&c->v, 2);
}

static void tell(struct console *c, uint32_t port, uint16_t event, uint16_t value)
{
    if (!multiport(c) || !(c->v.status & VIRTIO_DRIVER_OK))
        return;
    if (c->pending_count == PENDING_MAX) {
        c->control_lost++;
        return;
    }
    c->pending[(c->pending_head + c->pending_count++) % PENDING_MAX] =
        (struct control){ port, event, value };
    send_pending(c);
}

/* --- control messages from the guest --- */

static void port_ready(struct console *c, struct console_port *p)
{
    p->ready = 1;
    if (p->is_console)
        tell(c, p->nr, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
    if (p->name)
        tell(c, p->nr, VIRTIO_CONSOLE_PORT_NAME, 1);
    if (p->host_open)
        tell(c, p->nr, VIRTIO_CONSOLE_PORT_OPEN, 1);
}

/* Whoever talks to a program in the guest by this port hears that it is there. */
static void set_guest_open(struct console *c, struct console_port *p, bool open)
{
    if (p->guest_open == open)
        return;
    const char *const pairs[] = { "id", p->dev.id ? p->dev.id : "", "open", open ? "true" : "false", NULL };
    p->guest_open = open;
    if (!p->is_console)
        machine_event(c->pci.dev.machine, "VSERPORT_CHANGE", pairs);
}

int console_guest_open(const struct machine *m, const struct chardev *backend)
{
    for (const struct device *d = m->devices; d; d = d->next) {
        const struct console_port *p = container_of(d, struct console_port, dev);
        if (!strcmp(d->type->name, "virtserialport") && p->backend == backend)
            return p->guest_open;
    }
    return -1;
}

static void handle_message(struct console *c, const struct control *m)
{
    struct console_port *p = m->port < CONSOLE_MAX_PORTS ? c->port[m->port] : NULL;
    c->control_in++;
    if (m->event == VIRTIO_CONSOLE_DEVICE_READY) {
        for (unsigned i = 0; m->value && i < CONSOLE_MAX_PORTS; i++) {
            if (c->port[i])
                tell(c, i, VIRTIO_CONSOLE_PORT_ADD, 1);
        }
        return;
    }
    if (!p)
        return;
    if (m->event == VIRTIO_CONSOLE_PORT_READY && m->value) {
        port_ready(c, p);
    } else if (m->event == VIRTIO_CONSOLE_PORT_OPEN) {
        set_guest_open(c, p, m->value != 0);
        if (p->guest_open && p->backend)
            chardev_accept_input(p->backend);
    }
}

static void handle_control(struct console *c)
{
    struct iovec iov[ROOM];
    uint64_t gpa[ROOM];
    struct vq_elem e = { .iov = iov, .gpa = gpa, .room = ROOM };
    struct vq *q = &c->v.queue[3];
    for (unsigned budget = q->size; budget && virtio_pop(&c->v, 3, &e); budget--) {
        struct control m;
        if (vq_copy_out(&e, 0, &m, sizeof(m)) == sizeof(m))
            handle_message(c, &m);
        vq_push(q, &e, 0);
    }
    virtio_publish(&c->v, 3);
    virtio_rearm(&c->v, 3);
}

/* --- bytes from the guest --- */

/* Writes what is left of the chain. False: the backend is full. A port that nobody listens to
 * drops. */
static bool write_chain(struct console_port *p, const struct vq_elem *e)
{
    while (p->output_done < e->out_bytes) {
        uint8_t chunk[WRITE_CHUNK];
        size_t n = vq_copy_out(e, p->output_done, chunk, sizeof(chunk));
        size_t taken = p->backend ? chardev_write(p->backend, chunk, n) : 0;
        if (taken < n && p->backend && chardev_is_open(p->backend)) {
            p->output_done += taken;
            p->bytes_out += taken;
            return false;
        }
        p->bytes_out += taken;
        p->dropped += n - taken;
        p->output_done += n;
    }
    p->output_done = 0;
    return true;
}

static void handle_output(struct console *c, struct console_port *p, unsigned queue)
{
    struct iovec iov[ROOM];
    uint64_t gpa[ROOM];
    struct vq_elem e = { .iov = iov, .gpa = gpa, .room = ROOM };
    struct vq *q = &c->v.queue[queue];
    unsigned budget = q->size;
    if (p && p->output_waits)
        return; /* console_port_sent() comes back */
    for (; budget && virtio_pop(&c->v, queue, &e); budget--) {
        if (p && !write_chain(p, &e)) {
            p->output_waits = true;
            vq_unpop(q, &e);
            break;
        }
        vq_push(q, &e, 0);
    }
    virtio_publish(&c->v, queue);
    if (!p || !p->output_waits)
        virtio_rearm(&c->v, queue);
}

void console_port_sent(void *opaque)
{
    struct console_port *p = opaque;
    struct console *c = p->console;
    pthread_mutex_lock(&c->pci.dev.lock);
    p->output_waits = false;
    virtio_kick(&c->v, in_queue(p->nr) + 1);
    pthread_mutex_unlock(&c->pci.dev.lock);
}

/* --- bytes to the guest --- */

static bool can_take(const struct console *c, const struct console_port *p)
{
    return virtio_running(&c->v) && c->v.queue[in_queue(p->nr)].enabled &&
           (!multiport(c) || p->guest_open);
}

size_t console_port_can_receive(void *opaque)
{
    struct console_port *p = opaque;
    struct console *c = p->console;
    struct iovec iov[ROOM];
    uint64_t gpa[ROOM];
    struct vq_elem e = { .iov = iov, .gpa = gpa, .room = ROOM };
    size_t room = 0;
    pthread_mutex_lock(&c->pci.dev.lock);
    unsigned queue = in_queue(p->nr);
    struct vq *q = &c->v.queue[queue];
    bool some = can_take(c, p) && virtio_pop(&c->v, queue, &e);
    if (!some && can_take(c, p) && vq_notify_enable(q))
        some = virtio_pop(&c->v, queue, &e);
    if (some) {
        room = e.in_bytes;
        vq_unpop(q, &e);
        if (!room)
            virtio_broken(&c->v, "a receive buffer without room");
    }
    pthread_mutex_unlock(&c->pci.dev.lock);
    return room;
}

void console_port_receive(void *opaque, const uint8_t *data, size_t len)
{
    struct console_port *p = opaque;
    struct console *c = p->console;
    struct iovec iov[ROOM];
    uint64_t gpa[ROOM];
    struct vq_elem e = { .iov = iov, .gpa = gpa, .room = ROOM };
    pthread_mutex_lock(&c->pci.dev.lock);
    unsigned queue = in_queue(p->nr);
    while (len && can_take(c, p) && virtio_pop(&c->v, queue, &e) && e.in_bytes) {
        size_t n = vq_copy_in(&e, 0, data, len);
        vq_push(&c->v.queue[queue], &e, (uint32_t)n);
        p->bytes_in += n;
        data += n;
        len -= n;
    }
    p->dropped += len;
    virtio_publish(&c->v, queue);
    pthread_mutex_unlock(&c->pci.dev.lock);
}

void console_port_opened(void *opaque, bool open)
{
    struct console_port *p = opaque;
    struct console *c = p->console;
    pthread_mutex_lock(&c->pci.dev.lock);
    p->host_open = open;
    if (p->ready)
        tell(c, p->nr, VIRTIO_CONSOLE_PORT_OPEN, open);
    if (!open && p->output_waits) { /* what it did not take is dropped now */
        p->output_waits = false;
        virtio_kick(&c->v, in_queue(p->nr) + 1);
    }
    pthread_mutex_unlock(&c->pci.dev.lock);
}

/* --- the device --- */

static void console_handle(struct virtio *v, unsigned queue)
{
    struct console *c = container_of(v, struct console, v);
    int n = port_of_queue(queue);
    struct console_port *p = n >= 0 && n < CONSOLE_MAX_PORTS ? c->port[n] : NULL;
    if (queue == 2)
        send_pending(c);
    else if (queue == 3)
        handle_control(c);
    else if (queue % 2)
        handle_output(c, p, queue);
    else if (p && p->backend)
        chardev_accept_input(p->backend);
}

static void console_queue_reset(struct virtio *v, unsigned queue)
{
    struct console *c = container_of(v, struct console, v);
    int n = port_of_queue(queue);
    if (n < 0 || n >= CONSOLE_MAX_PORTS || !c->port[n] || !(queue % 2))
        return;
    c->port[n]->output_waits = false;
    c->port[n]->output_done = 0;
}

static void console_reset(struct virtio *v)
{
    struct console *c = container_of(v, struct console, v);
    c->pending_count = 0;
    for (unsigned i = 0; i < CONSOLE_MAX_PORTS; i++) {
        if (!c->port[i])
            continue;
        c->port[i]->ready = 0;
        set_guest_open(c, c->port[i], false);
    }
}

static const struct virtio_ops console_ops = {
    .id = VIRTIO_ID_CONSOLE, .class_code = 0x07, .subclass = 0x80, .handle = console_handle,
    .queue_reset = console_queue_reset, .reset = console_reset,
};

static bool console_realize(struct device *d, GError **error)
{
    struct console *c = container_of(d, struct console, pci.dev);
    uint16_t sizes[VIRTIO_MAX_QUEUES] = { QUEUE_SIZE };
    VIRTIO_SET(&c->v, offsetof(struct virtio_console_config, max_nr_ports), uint32_t, c->max_ports);
    if (c->v.vectors == VIRTIO_AUTO_VECTORS)
        /* drivers share them: dozens for idle ports would be a waste */
        c->v.vectors = c->max_ports + 1;
    return virtio_init(&c->v, &console_ops, VIRTIO_F(VIRTIO_CONSOLE_F_MULTIPORT),
                       2 * (c->max_ports + 1), sizes, sizeof(struct virtio_console_config), error);
}

/* Ports are made after their console and freed before it; a machine that is torn down in another
 * order leaves none behind that points here. */
static void console_unrealize(struct device *d)
{
    struct console *c = container_of(d, struct console, pci.dev);
    for (unsigned i = 0; i < CONSOLE_MAX_PORTS; i++) {
        if (c->port[i])
            console_remove_port(c->port[i]);
    }
    virtio_done(&c->v);
}

static const struct prop console_props[] = {
    PROP_U32("max_ports", struct console, max_ports, .def = CONSOLE_MAX_PORTS, .min = 1,
             .max = CONSOLE_MAX_PORTS, .help = "Ports"),
    PROP_I32("emergency-write", struct console, emergency_write, .def = (uint64_t)-1,
             .help = "Accepted"),
    VIRTIO_PROPS(struct console),
    { 0 },
};

static const struct state_field console_state[] = {
    STATE_OF_EACH(struct console, pending, port),
    STATE_OF_EACH(struct console, pending, event),
    STATE_OF_EACH(struct console, pending, value),
    STATE(struct console, pending_head, .max = PENDING_MAX - 1),
    STATE(struct console, pending_count, .max = PENDING_MAX),
    { 0 },
};

static const struct device_counter console_counters[] = {
    COUNTER(struct console, control_in, "Control messages from the guest"),
    COUNTER(struct console, control_out, "Control messages to the guest"),
    COUNTER(struct console, control_lost, "Control messages that the guest left no room for"),
    VIRTIO_COUNTERS(struct console),
    { 0 },
};

static const char *const console_aliases[] = { "virtio-serial", NULL };

static const struct device_type console_type = {
    .name = "virtio-serial-pci",
    .aliases = console_aliases,
    .summary = "Console with ports",
    .spec = "VIRTIO 1.2, section 5.3",
    .bus = BUS_PCI,
    .size = sizeof(struct console),
    .props = console_props,
    .state = console_state,
    .counters = console_counters,
    .realize = console_realize,
    .reset = virtio_reset,
    .unrealize = console_unrealize,
};
DEVICE_TYPE(console_type);

/* --- ports plug in --- */

struct console *console_find(struct machine *m, const char *bus, const char *who, GError **error)
{
    struct console *last = NULL;
    for (struct device *d = m->devices; d; d = d->next) {
        if (d->type != &console_type || !d->realized)
            continue;
        struct console *c = container_of(d, struct console, pci.dev);
        size_t len = d->id ? strlen(d->id) : 0;
        if (bus && len && !strncmp(bus, d->id, len) && (!bus[len] || !strcmp(bus + len, ".0")))
            return c;
        last = c;
    }
    if (bus)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s: there is no virtio-serial-pci called '%s'",
                    who, bus);
    else if (!last)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s needs a virtio-serial-pci before it", who);
    return bus ? NULL : last;
}

bool console_add_port(struct console *c, struct console_port *p, GError **error)
{
    const char *who = p->dev.type->name;
    if (p->nr == UINT32_MAX) {
        /* Port 0 is for consoles: drivers without multiport take it for one. */
        for (p->nr = p->is_console ? 0 : 1; p->nr < c->max_ports && c->port[p->nr]; p->nr++)
            ;
    }
    if (p->nr >= c->max_ports)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: port %u: the console has ports 0 to %u",
                           who, p->nr, c->max_ports - 1);
    if (!p->nr && !p->is_console)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: port 0 is for virtconsole", who);
    if (c->port[p->nr])
        return ruche_error(error, RUCHE_ERR_EXISTS, "%s: port %u of the console is taken", who,
                           p->nr);
    for (unsigned i = 0; p->name && i < c->max_ports; i++) {
        if (c->port[i] && c->port[i]->name && !strcmp(c->port[i]->name, p->name))
            return ruche_error(error, RUCHE_ERR_EXISTS, "%s: a port named '%s' is there", who,
                               p->name);
    }
    pthread_mutex_lock(&c->pci.dev.lock);
    p->console = c;
    c->port[p->nr] = p;
    tell(c, p->nr, VIRTIO_CONSOLE_PORT_ADD, 1);
    pthread_mutex_unlock(&c->pci.dev.lock);
    return true;
}

void console_remove_port(struct console_port *p)
{
    struct console *c = p->console;
    if (!c)
        return;
    if (p->attached)
        chardev_detach(p->backend, p);
    p->attached = false;
    pthread_mutex_lock(&c->pci.dev.lock);
    c->port[p->nr] = NULL;
    tell(c, p->nr, VIRTIO_CONSOLE_PORT_REMOVE, 1);
    if (p->output_waits) /* what its backend did not take is dropped */
        virtio_kick(&c->v, in_queue(p->nr) + 1);
    p->console = NULL;
    pthread_mutex_unlock(&c->pci.dev.lock);
}
