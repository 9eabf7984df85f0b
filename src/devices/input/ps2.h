/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A PS/2 keyboard and a PS/2 mouse, as seen from the wire: bytes in, bytes queued out.
 *
 * Spec      IBM PS/2 technical reference; Microsoft IntelliMouse and Explorer extensions (wheel,
 *           five buttons).
 * Owner     The keyboard controller embeds them; its lock guards them.
 * Trust     Commands are the guest's. Queues are bounded: input that nobody fetches is dropped.
 */
#pragma once

#include "base/util.h"

#define PS2_QUEUE 64
/* Room that input leaves for the answers to commands. */
#define PS2_RESERVED 16

struct ps2_queue {
    uint8_t data[PS2_QUEUE];
    uint8_t head, count;
};

struct ps2_keyboard {
    struct ps2_queue out;
    uint8_t command;      /* waits for its argument; 0: none */
    uint8_t enabled, leds, scancode_set, last;
};

struct ps2_mouse {
    struct ps2_queue out;
    uint8_t command;      /* as above */
    uint8_t enabled, remote, wrap, scaling, resolution, rate, id;
    uint8_t knock[2];     /* the last two sample rates: three in a row change the id */
    uint8_t buttons, last;
    int32_t dx, dy, dz;   /* not yet reported */
};

bool ps2_get(struct ps2_queue *q, uint8_t *ret_byte);
void ps2_keyboard_reset(struct ps2_keyboard *k);
void ps2_keyboard_command(struct ps2_keyboard *k, uint8_t byte);
/* The bytes of one key in scan code set 2. False: no room, or the keyboard is off. */
bool ps2_keyboard_key(struct ps2_keyboard *k, const uint8_t *codes, unsigned count);
void ps2_mouse_reset(struct ps2_mouse *m);
void ps2_mouse_command(struct ps2_mouse *m, uint8_t byte);
/* Movement to the right and up, wheel towards the user, buttons as bits left, right, middle, 4, 5. */
void ps2_mouse_move(struct ps2_mouse *m, int32_t dx, int32_t dy, int32_t dz, uint8_t buttons);
/* Scan code set 2 to set 1, as the controller translates. */
extern const uint8_t ps2_set1[256];
