/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest to be looked at: its text screen is blue with "RUCHE" in its corner; it says "key XX" for each
 * byte of the keyboard. */
#include "lib/guest.h"

enum { DATA = 0x60, STATUS = 0x64, FULL = 1, MOUSE = 0x20, BLUE = 0x1f00 };

void test_main(void)
{
    volatile uint16_t *text = (volatile uint16_t *)0xb8000;
    const char *word = "RUCHE";
    for (unsigned i = 0; i < 80 * 25; i++)
        text[i] = BLUE | (i < 5 ? (uint8_t)word[i] : ' ');
    print("ready\n");
    for (;;) {
        uint8_t status = in8(STATUS);
        if (!(status & FULL))
            continue;
        uint8_t byte = in8(DATA);
        if (!(status & MOUSE))
            print("key %x\n", byte);
    }
}
