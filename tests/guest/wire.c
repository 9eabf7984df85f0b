/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest that is a wire: lines go to and fro between port 1 of its console and its second serial
 * port. Who sits there may play a guest's agent, and says with bytes of his own when the port opens
 * (1) and closes (2), and when the guest shuts down (3).
 *
 * Spec      VIRTIO 1.2, 5.3.
 */
#include "lib/console.h"

#define SERIAL  0x2f8
#define LINE    4096
#define PORT    1
#define BUFFERS 4
#define PIECE   1024

static struct console console;
static struct vq in, out;
static uint8_t *pieces[VQ_MAX]; /* by the chain's head */

static void expect(uint8_t *piece)
{
    struct vbuf b = {piece, PIECE};
    int head = vq_add(&in, &b, 0, 1);
    if (head >= 0)
        pieces[head] = piece;
}

static void look_at_port(void)
{
    uint32_t len = 0;
    int head = vq_get(&in, &len);
    if (head < 0)
        return;
    uint8_t *piece = pieces[head];
    for (uint32_t i = 0; i < len; i++) {
        while (!(in8(SERIAL + 5) & 0x20))
            pause();
        out8(SERIAL, piece[i]);
    }
    expect(piece);
    vq_kick(&in);
}

static void send(uint8_t *line, uint32_t len)
{
    struct vbuf b = {line, len};
    vq_add(&out, &b, 1, 0);
    vq_kick(&out);
    vq_wait(&out, NULL, 20000);
}

static void look_at_serial(uint8_t *line)
{
    static uint32_t len;
    if (!(in8(SERIAL + 5) & 1))
        return;
    uint8_t byte = in8(SERIAL);
    if (byte == 1 || byte == 2) {
        console_tell(&console, PORT, PORT_OPEN, byte == 1);
    } else if (byte == 3) {
        acpi_off();
    } else {
        line[len++] = byte;
        if (byte == '\n' || len == LINE) {
            send(line, len);
            len = 0;
        }
    }
}

void test_main(void)
{
    uint8_t *line = alloc_pages(1), *room = alloc_pages(1);
    uint32_t port;
    uint16_t event;
    if (!check(console_find(&console) && vq_init(&in, &console.dev, 2 + 2 * PORT, 16) &&
                   vq_init(&out, &console.dev, 3 + 2 * PORT, 16),
               "the console has port %d", PORT))
        finish();
    for (unsigned i = 0; i < BUFFERS; i++)
        expect(room + i * PIECE);
    console_begin(&console);
    vq_kick(&in);
    for (;;) {
        if (console_look(&console, &port, &event) && event == PORT_ADD)
            console_tell(&console, port, PORT_READY, 1);
        look_at_port();
        look_at_serial(line);
    }
}
