/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Input for the guest's PS/2 keyboard and mouse, for displays and monitors. Any thread; `i8042` is
 * the device. */
#pragma once

#include "machine/device.h"

/* The bytes of one key press or release in scan code set 2. False: the guest does not fetch them;
 * try later. */
bool i8042_key(struct device *i8042, const uint8_t *codes, unsigned count);
/* Movement to the right and up, wheel towards the user, buttons as bits left, right, middle, 4, 5. */
void i8042_move(struct device *i8042, int32_t dx, int32_t dy, int32_t dz, uint8_t buttons);
