/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between virtio-serial-pci and the ports that plug into it. */
#pragma once

#include "chardev/chardev.h"
#include "devices/virtio/virtio.h"

#define CONSOLE_MAX_PORTS 31

struct console;

/* A port: virtconsole or virtserialport. Lives between console_add_port() and
 * console_remove_port(). */
struct console_port {
    struct device dev;
    char *chardev_id, *name;
    uint32_t nr;                /* UINT32_MAX: next free */
    bool is_console;            /* for tty layers: hvc0, ... */
    struct console *console;    /* NULL: not plugged in */
    struct chardev *backend;    /* borrowed; NULL: nothing is connected */
    bool attached;
    /* Under the console's lock. */
    uint8_t host_open, guest_open, ready;
    bool output_waits;          /* the backend took less than there was */
    size_t output_done;         /* bytes of the chain at the queue's head that it took */
    uint64_t bytes_in, bytes_out, dropped;
};

/* The console named `bus` (id, or id.0), or the only one. NULL with a sentence. */
struct console *console_find(struct machine *m, const char *bus, const char *who, GError **error);
bool console_add_port(struct console *c, struct console_port *p, GError **error);
void console_remove_port(struct console_port *p);
/* Has the guest opened the serial port over this backend? -1: there is none. */
int console_guest_open(const struct machine *m, const struct chardev *backend);
/* For the port's backend; main loop. */
size_t console_port_can_receive(void *port);
void console_port_receive(void *port, const uint8_t *data, size_t len);
void console_port_opened(void *port, bool open);
void console_port_sent(void *port);
