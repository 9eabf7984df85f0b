/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One terminal for several front ends: Ctrl-a and a letter switch, leave, send a break.
 *
 * Thread    The main loop.
 * Memory    What the focused front end has no room for waits in its queue, bounded; beyond that it
 *           is dropped, so that Ctrl-a x works however stuck the guest is.
 */
#include "chardev/chardev_priv.h"

#include <string.h>

#define ESCAPE 0x01 /* Ctrl-a */

static void say(struct chardev *c, const char *text)
{
    chardev_write(c, text, strlen(text));
}

static void print_help(struct chardev *c)
{
    static const char *const lines[] = {
        "\r\n",
        "Ctrl-a h    this help\r\n",
        "Ctrl-a x    leave: the machine is ended\r\n",
        "Ctrl-a c    switch between the console and the monitor\r\n",
        "Ctrl-a b    send a break (magic SysRq)\r\n",
        "Ctrl-a a    send Ctrl-a to the machine (Ctrl-a Ctrl-a too)\r\n",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++)
        say(c, lines[i]);
}

static void queue_byte(struct chardev *c, uint8_t byte)
{
    struct chardev_port *p = c->focus < 0 ? NULL : &c->port[c->focus];
    if (p && p->input->len < MUX_MAX_INPUT)
        g_byte_array_append(p->input, &byte, 1);
}

void mux_set_focus(struct chardev *c, int port)
{
    const struct chardev_frontend *old = c->focus < 0 ? NULL : &c->port[c->focus].fe;
    const struct chardev_frontend *now = &c->port[port].fe;
    c->focus = port;
    if (old && old->focus)
        old->focus(old->opaque, false);
    if (now->focus)
        now->focus(now->opaque, true);
}

static void next_focus(struct chardev *c)
{
    for (int step = 1; step <= CHARDEV_MAX_FRONTENDS; step++) {
        int i = (c->focus + step) % CHARDEV_MAX_FRONTENDS;
        if (c->port[i].used) {
            mux_set_focus(c, i);
            return;
        }
    }
}

static void send_break(struct chardev *c)
{
    const struct chardev_frontend *f = c->focus < 0 ? NULL : &c->port[c->focus].fe;
    if (f && f->send_break)
        f->send_break(f->opaque);
}

/* The letter behind Ctrl-a. */
static void command(struct chardev *c, uint8_t letter)
{
    switch (letter) {
    case 'h':
    case '?':
        print_help(c);
        break;
    case 'x':
        say(c, "\r\n");
        if (c->quit)
            c->quit(c->quit_opaque);
        break;
    case 'c':
        next_focus(c);
        break;
    case 'b':
        send_break(c);
        break;
    case 'a':
    case ESCAPE:
        queue_byte(c, ESCAPE);
        break;
    default:
        break;
    }
}

void mux_receive(struct chardev *c, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (c->mux_escape) {
            c->mux_escape = false;
            mux_drain(c); /* bytes before a switch belong to the old front end */
            command(c, data[i]);
        } else if (data[i] == ESCAPE) {
            c->mux_escape = true;
        } else {
            queue_byte(c, data[i]);
        }
    }
    mux_drain(c);
}

void mux_drain(struct chardev *c)
{
    for (int i = 0; i < CHARDEV_MAX_FRONTENDS; i++) {
        struct chardev_port *p = &c->port[i];
        while (p->used && p->input->len) {
            size_t n = MIN(p->input->len, p->fe.can_receive(p->fe.opaque));
            if (!n)
                break;
            uint8_t chunk[256];
            n = MIN(n, sizeof(chunk));
            memcpy(chunk, p->input->data, n);
            g_byte_array_remove_range(p->input, 0, n);
            p->fe.receive(p->fe.opaque, chunk, n);
        }
    }
}
