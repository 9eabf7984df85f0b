/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A virtio console with many ports, by its control queues. The first two queues of port n > 0 are
 * 2 + 2n and 3 + 2n; who uses them sets them up between console_find() and console_begin().
 *
 * Spec      VIRTIO 1.2, 5.3.
 */
#pragma once

#include "virtio.h"

enum { PORT_DEVICE_READY, PORT_ADD, PORT_REMOVE, PORT_READY, PORT_CONSOLE, PORT_RESIZE, PORT_OPEN };

struct console {
    struct virtio dev;
    struct vq in, out;   /* control */
    uint8_t *at[VQ_MAX]; /* messages to come, by the chain's head */
};

/* False: there is none that agrees on many ports. */
bool console_find(struct console *c);
/* The device may talk from now on. */
void console_begin(struct console *c);
void console_tell(struct console *c, uint32_t port, uint16_t event, uint16_t value);
/* What was told, if anything. */
bool console_look(struct console *c, uint32_t *ret_port, uint16_t *ret_event);
