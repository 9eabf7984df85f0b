/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The two PS/2 devices: see ps2.h. */
#include "devices/input/ps2.h"

enum { ACK = 0xfa, RESEND = 0xfe, SELF_TEST_PASSED = 0xaa };
enum { CMD_SET_LEDS = 0xed, CMD_ECHO = 0xee, CMD_SCANCODE_SET = 0xf0, CMD_IDENTIFY = 0xf2, CMD_RATE = 0xf3,
       CMD_ENABLE = 0xf4, CMD_DISABLE = 0xf5, CMD_DEFAULTS = 0xf6, CMD_RESEND = 0xfe, CMD_RESET = 0xff };
enum { MOUSE_SCALE_1 = 0xe6, MOUSE_SCALE_2 = 0xe7, MOUSE_RESOLUTION = 0xe8, MOUSE_STATUS = 0xe9,
       MOUSE_STREAM = 0xea, MOUSE_READ = 0xeb, MOUSE_END_WRAP = 0xec, MOUSE_WRAP = 0xee,
       MOUSE_REMOTE = 0xf0 };
enum { ID_PLAIN = 0, ID_WHEEL = 3, ID_FIVE_BUTTONS = 4 };

static unsigned room(const struct ps2_queue *q)
{
    return PS2_QUEUE - q->count;
}

static void put(struct ps2_queue *q, uint8_t byte)
{
    if (room(q))
        q->data[(q->head + q->count++) % PS2_QUEUE] = byte;
}

bool ps2_get(struct ps2_queue *q, uint8_t *ret_byte)
{
    if (!q->count)
        return false;
    *ret_byte = q->data[q->head];
    q->head = (q->head + 1) % PS2_QUEUE;
    q->count--;
    return true;
}

/* --- keyboard --- */

static void keyboard_answer(struct ps2_keyboard *k, uint8_t byte)
{
    k->last = byte;
    put(&k->out, byte);
}

static void keyboard_defaults(struct ps2_keyboard *k)
{
    k->leds = 0;
    k->scancode_set = 2;
    k->command = 0;
}

void ps2_keyboard_reset(struct ps2_keyboard *k)
{
    *k = (struct ps2_keyboard){ .enabled = 1 };
    keyboard_defaults(k);
}

static void keyboard_argument(struct ps2_keyboard *k, uint8_t byte)
{
    uint8_t command = k->command;
    k->command = 0;
    keyboard_answer(k, ACK);
    switch (command) {
    case CMD_SET_LEDS:
        k->leds = byte & 7;
        break;
    case CMD_SCANCODE_SET:
        if (!byte)
            keyboard_answer(k, k->scancode_set);
        else if (byte <= 3)
            k->scancode_set = byte;
        break;
    default: /* the typematic rate is the display's business */
        break;
    }
}

void ps2_keyboard_command(struct ps2_keyboard *k, uint8_t byte)
{
    if (k->command && byte < CMD_SET_LEDS) {
        keyboard_argument(k, byte);
        return;
    }
    k->command = 0;
    switch (byte) {
    case CMD_ECHO:
        keyboard_answer(k, CMD_ECHO);
        return;
    case CMD_RESEND:
        put(&k->out, k->last);
        return;
    case CMD_SET_LEDS:
    case CMD_SCANCODE_SET:
    case CMD_RATE:
        k->command = byte;
        keyboard_answer(k, ACK);
        return;
    case CMD_IDENTIFY:
        keyboard_answer(k, ACK);
        keyboard_answer(k, 0xab);
        keyboard_answer(k, 0x83);
        return;
    case CMD_ENABLE:
        k->enabled = 1;
        keyboard_answer(k, ACK);
        return;
    case CMD_DISABLE:
    case CMD_DEFAULTS:
        keyboard_defaults(k);
        k->enabled = byte == CMD_DEFAULTS;
        keyboard_answer(k, ACK);
        return;
    case CMD_RESET:
        ps2_keyboard_reset(k);
        keyboard_answer(k, ACK);
        keyboard_answer(k, SELF_TEST_PASSED);
        return;
    default:
        keyboard_answer(k, RESEND);
        return;
    }
}

bool ps2_keyboard_key(struct ps2_keyboard *k, const uint8_t *codes, unsigned count)
{
    if (!k->enabled || room(&k->out) < PS2_RESERVED + count)
        return false;
    for (unsigned i = 0; i < count; i++)
        put(&k->out, codes[i]);
    return true;
}

/* --- mouse --- */

static void mouse_answer(struct ps2_mouse *m, uint8_t byte)
{
    m->last = byte;
    put(&m->out, byte);
}

static void mouse_defaults(struct ps2_mouse *m)
{
    m->enabled = m->remote = m->wrap = m->scaling = m->command = 0;
    m->resolution = 2;
    m->rate = 100;
    m->dx = m->dy = m->dz = 0;
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
    *m = (struct ps2_mouse){ 0 };
    mouse_defaults(m);
}

static int32_t take(int32_t *value, int32_t limit)
{
    int32_t part = *value > limit ? limit : *value < -limit ? -limit : *value;
    *value -= part;
    return part;
}

/* One report of three bytes, or four with a wheel. */
static void mouse_report(struct ps2_mouse *m)
{
    int32_t dx = take(&m->dx, 255), dy = take(&m->dy, 255), dz = take(&m->dz, 7);
    put(&m->out, 0x08 | (m->buttons & 7) | (dx < 0) << 4 | (dy < 0) << 5);
    put(&m->out, (uint8_t)dx);
    put(&m->out, (uint8_t)dy);
    if (m->id == ID_WHEEL)
        put(&m->out, (uint8_t)dz);
    else if (m->id == ID_FIVE_BUTTONS)
        put(&m->out, (dz & 0x0f) | (m->buttons & 0x18) << 1);
}

/* 200, 100, 80 asks for the wheel; 200, 200, 80 then for two more buttons. */
static void mouse_rate(struct ps2_mouse *m, uint8_t rate)
{
    if (m->knock[0] == 200 && rate == 80) {
        if (m->knock[1] == 100)
            m->id = ID_WHEEL;
        else if (m->knock[1] == 200)
            m->id = ID_FIVE_BUTTONS;
    }
    m->knock[0] = m->knock[1];
    m->knock[1] = rate;
    m->rate = rate;
}

static void mouse_argument(struct ps2_mouse *m, uint8_t byte)
{
    if (m->command == CMD_RATE)
        mouse_rate(m, byte);
    else
        m->resolution = byte & 3;
    m->command = 0;
    mouse_answer(m, ACK);
}

static void mouse_status(struct ps2_mouse *m)
{
    mouse_answer(m, ACK);
    mouse_answer(m, m->remote << 6 | m->enabled << 5 | m->scaling << 4 | (m->buttons & 1) << 2 |
                        (m->buttons & 4) >> 1 | (m->buttons & 2) >> 1);
    mouse_answer(m, m->resolution);
    mouse_answer(m, m->rate);
}

/* Commands that only set something: which field, to what. */
static bool mouse_setting(struct ps2_mouse *m, uint8_t byte)
{
    switch (byte) {
    case MOUSE_SCALE_1:
    case MOUSE_SCALE_2:
        m->scaling = byte == MOUSE_SCALE_2;
        return true;
    case MOUSE_STREAM:
    case MOUSE_REMOTE:
        m->remote = byte == MOUSE_REMOTE;
        return true;
    case MOUSE_WRAP:
        m->wrap = 1;
        return true;
    case MOUSE_END_WRAP:
        return true;
    case MOUSE_RESOLUTION:
    case CMD_RATE:
        m->command = byte;
        return true;
    case CMD_ENABLE:
    case CMD_DISABLE:
        m->enabled = byte == CMD_ENABLE;
        return true;
    case CMD_DEFAULTS:
        mouse_defaults(m);
        return true;
    default:
        return false;
    }
}

void ps2_mouse_command(struct ps2_mouse *m, uint8_t byte)
{
    if (m->wrap && byte != MOUSE_END_WRAP && byte != CMD_RESET) {
        mouse_answer(m, byte);
        return;
    }
    m->wrap = 0;
    if (m->command) {
        mouse_argument(m, byte);
    } else if (mouse_setting(m, byte)) {
        mouse_answer(m, ACK);
    } else if (byte == MOUSE_STATUS) {
        mouse_status(m);
    } else if (byte == MOUSE_READ) {
        mouse_answer(m, ACK);
        mouse_report(m);
    } else if (byte == CMD_IDENTIFY) {
        mouse_answer(m, ACK);
        mouse_answer(m, m->id);
    } else if (byte == CMD_RESET) {
        ps2_mouse_reset(m);
        mouse_answer(m, ACK);
        mouse_answer(m, SELF_TEST_PASSED);
        mouse_answer(m, ID_PLAIN);
    } else if (byte == CMD_RESEND) {
        put(&m->out, m->last);
    } else {
        mouse_answer(m, RESEND);
    }
}

static int32_t add_clamped(int32_t a, int32_t b)
{
    int64_t sum = (int64_t)a + b;
    return sum > 10000 ? 10000 : sum < -10000 ? -10000 : (int32_t)sum;
}

void ps2_mouse_move(struct ps2_mouse *m, int32_t dx, int32_t dy, int32_t dz, uint8_t buttons)
{
    m->dx = add_clamped(m->dx, dx);
    m->dy = add_clamped(m->dy, dy);
    m->dz = add_clamped(m->dz, dz);
    bool clicked = m->buttons != buttons;
    m->buttons = buttons;
    if (!m->enabled || m->remote)
        return;
    while ((m->dx || m->dy || m->dz || clicked) && room(&m->out) >= PS2_RESERVED + 4) {
        mouse_report(m);
        clicked = false;
    }
}

const uint8_t ps2_set1[256] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, /* 00 */
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, /* 10 */
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, /* 20 */
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, /* 30 */
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, /* 40 */
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, /* 50 */
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, /* 60 */
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, /* 70 */
    0x80, 0x81, 0x82, 0x41, 0x54, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f, /* 80 */
    0x90, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, /* 90 */
    0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, /* a0 */
    0xb0, 0xb1, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xbb, 0xbc, 0xbd, 0xbe, 0xbf, /* b0 */
    0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf, /* c0 */
    0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, /* d0 */
    0xe0, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xeb, 0xec, 0xed, 0xee, 0xef, /* e0 */
    0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff, /* f0 */
};
