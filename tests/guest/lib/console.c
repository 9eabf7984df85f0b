/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A virtio console's ports; see console.h. */
#include "console.h"

#define F_MULTIPORT   (1ul << 1)
#define MESSAGE_BYTES 64
#define MESSAGES      16

static void expect(struct console *c, uint8_t *at)
{
    struct vbuf b = {at, MESSAGE_BYTES};
    int head = vq_add(&c->in, &b, 0, 1);
    if (head >= 0)
        c->at[head] = at;
}

bool console_find(struct console *c)
{
    return virtio_find(VIRTIO_ID_CONSOLE, 0, &c->dev) && virtio_begin(&c->dev, F_MULTIPORT) &&
           vq_init(&c->in, &c->dev, 2, 32) && vq_init(&c->out, &c->dev, 3, 32);
}

void console_begin(struct console *c)
{
    uint8_t *at = alloc_pages(1);
    for (unsigned i = 0; i < MESSAGES; i++)
        expect(c, at + i * MESSAGE_BYTES);
    virtio_ready(&c->dev);
    vq_kick(&c->in);
    console_tell(c, ~0u, PORT_DEVICE_READY, 1);
}

void console_tell(struct console *c, uint32_t port, uint16_t event, uint16_t value)
{
    static struct {
        uint32_t id;
        uint16_t event, value;
    } message;
    struct vbuf b = {&message, sizeof(message)};
    message.id = port;
    message.event = event;
    message.value = value;
    vq_add(&c->out, &b, 1, 0);
    vq_kick(&c->out);
    vq_wait(&c->out, NULL, 20000);
}

bool console_look(struct console *c, uint32_t *ret_port, uint16_t *ret_event)
{
    int head = vq_get(&c->in, NULL);
    if (head < 0)
        return false;
    uint8_t *at = c->at[head];
    *ret_port = *(volatile uint32_t *)at;
    *ret_event = *(volatile uint16_t *)(at + 4);
    expect(c, at);
    vq_kick(&c->in);
    return true;
}
