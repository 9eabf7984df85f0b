/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ways out: ACPI power-off, reset by the keyboard controller and by port 0xcf9; and coming back
 * after a reset.
 *
 * Spec      ACPI 6.4, 4.8.3, 7.4.2; ICH9 data sheet, 13.7.
 * how=0     ACPI S5. 1: keyboard controller. 2: port 0xcf9. 3: ACPI reset register.
 * again=1   The first boot resets; the second says so and ends by isa-debug-exit.
 */
#include "lib/guest.h"

#define MARK_AT 0x3000000ul /* 48 MiB: RAM that no loader touches */
#define MARK 0x5ec0dd0b007eull

static void keyboard_reset(void)
{
    print("reset by the keyboard controller\n");
    out8(0x64, 0xfe);
}

static void cf9_reset(void)
{
    print("reset by port 0xcf9\n");
    out8(0xcf9, 0x02);
    out8(0xcf9, 0x06);
}

static void acpi_reset(void)
{
    const uint8_t *fadt = acpi_find("FACP");
    uint64_t at;
    if (!fadt || fadt[8] < 2 || fadt[116] != 1)
        fatal("there is no ACPI reset register among the ports");
    memcpy(&at, fadt + 120, 8);
    print("reset by ACPI's port 0x%lx\n", at);
    out8((uint16_t)at, fadt[128]);
}

static bool second_boot(void)
{
    volatile uint64_t *mark = (volatile uint64_t *)MARK_AT;
    bool again = *mark == MARK;
    *mark = again ? 0 : MARK;
    return again;
}

void test_main(void)
{
    static void (*const ways[])(void) = { acpi_off, keyboard_reset, cf9_reset, acpi_reset };
    if (cmdline_number("again", 0)) {
        if (second_boot()) {
            print("booted again\n");
            check_eq(rdmsr(MSR_LSTAR), 0, "LSTAR after reset");
            return;
        }
        wrmsr(MSR_LSTAR, 0x1234000);
    }
    ways[cmdline_number("how", 0) % ARRAY_COUNT(ways)]();
    delay_us(5000000);
    fatal("alive after power-off or reset");
}
