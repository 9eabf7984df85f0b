/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A triple fault resets the machine: with -no-reboot it ends with status 0. Never comes back. */
#include "lib/guest.h"

void test_main(void)
{
    struct { uint16_t limit; uint64_t base; } __attribute__((packed)) none = { 0, 0 };
    print("triple fault\n");
    __asm__ volatile("lidt %0; ud2" ::"m"(none));
    fatal("alive after a triple fault");
}
