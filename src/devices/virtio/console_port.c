/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `virtconsole` and `virtserialport`: ports of a virtio-serial-pci, each over a character backend.
 *
 * Spec      VIRTIO 1.2, section 5.3.
 * Thread    The main loop.
 */
#include "devices/virtio/console.h"
#include "machine/backends.h"

static bool port_realize(struct device *d, bool is_console, GError **error)
{
    struct console_port *p = container_of(d, struct console_port, dev);
    const char *who = d->id ? d->id : d->type->name;
    p->is_console = is_console;
    struct console *c = console_find(d->machine, d->bus_name, who, error);
    if (!c)
        return false;
    if (p->chardev_id) {
        p->backend = backend_find(d->machine, BACKEND_CHARDEV, who, p->chardev_id, error);
        if (!p->backend)
            return false;
    }
    p->host_open = !p->backend || chardev_is_open(p->backend);
    if (!console_add_port(c, p, error))
        return false;
    const struct chardev_frontend f = {
        .can_receive = console_port_can_receive,
        .receive = console_port_receive,
        .opened = console_port_opened,
        .sent = console_port_sent,
        .opaque = p,
        .takes_another = true,
    };
    if (p->backend && !chardev_attach(p->backend, &f, error))
        return false;
    p->attached = p->backend;
    return true;
}

static bool virtconsole_realize(struct device *d, GError **error)
{
    return port_realize(d, true, error);
}

static bool virtserialport_realize(struct device *d, GError **error)
{
    return port_realize(d, false, error);
}

/* The guest hears when the other end is not as it was told. */
static bool port_loaded(struct device *d, GError **error)
{
    struct console_port *p = container_of(d, struct console_port, dev);
    bool open = !p->backend || chardev_is_open(p->backend);
    if (open != p->host_open)
        console_port_opened(p, open);
    return true;
}

static void port_unrealize(struct device *d)
{
    console_remove_port(container_of(d, struct console_port, dev));
}

static const struct prop port_props[] = {
    PROP_STRING("chardev", struct console_port, chardev_id, .help = "Character backend by id"),
    PROP_STRING("name", struct console_port, name, .help = "Name that the guest sees"),
    PROP_U32("nr", struct console_port, nr, .def = UINT32_MAX, .min = 0, .max = UINT32_MAX,
             .help = "Port number; the next free one when missing"),
    { 0 },
};

static const struct state_field port_state[] = {
    STATE(struct console_port, guest_open, .max = 1),
    STATE(struct console_port, host_open, .max = 1),
    STATE(struct console_port, ready, .max = 1),
    STATE(struct console_port, output_done),
    { 0 },
};

static const struct device_counter port_counters[] = {
    COUNTER(struct console_port, bytes_in, "Bytes to the guest"),
    COUNTER(struct console_port, bytes_out, "Bytes from the guest"),
    COUNTER(struct console_port, dropped, "Bytes that nobody took"),
    { 0 },
};

static const struct device_type virtconsole_type = {
    .name = "virtconsole",
    .summary = "Console port: hvc0 and on",
    .spec = "VIRTIO 1.2, section 5.3",
    .bus = BUS_VIRTIO_SERIAL,
    .size = sizeof(struct console_port),
    .props = port_props,
    .state = port_state,
    .counters = port_counters,
    .realize = virtconsole_realize,
    .load_after = port_loaded,
    .unrealize = port_unrealize,
};
DEVICE_TYPE(virtconsole_type);

static const struct device_type virtserialport_type = {
    .name = "virtserialport",
    .summary = "Serial port with a name: /dev/virtio-ports/NAME",
    .spec = "VIRTIO 1.2, section 5.3",
    .bus = BUS_VIRTIO_SERIAL,
    .size = sizeof(struct console_port),
    .props = port_props,
    .state = port_state,
    .counters = port_counters,
    .realize = virtserialport_realize,
    .load_after = port_loaded,
    .unrealize = port_unrealize,
};
DEVICE_TYPE(virtserialport_type);
