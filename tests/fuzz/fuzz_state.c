/* SPDX-License-Identifier: GPL-2.0-or-later */
/* machine_state_load() of arbitrary bytes into a machine with virtio devices: an error, or a
 * machine that can be saved and reset. The first byte says how the rest is meant: as a whole state,
 * or as bytes put over a good one (a position in 16 bits each, and the byte), which gets behind the
 * head.
 */
#include "machine/state.h"

#include <stdlib.h>
#include <string.h>

static struct machine *machine;
static GByteArray *good;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void make(void)
{
    static const char *const devices[] = {"virtio-rng-pci",     "virtio-net-pci",
                                          "virtio-balloon-pci", "virtio-serial-pci",
                                          "virtconsole",        "isa-serial"};
    struct machine_config c;
    g_autofree char *note = NULL; /* why this accelerator */
    machine_config_init(&c);
    c.ram_bytes = 4 * MIB;
    machine = machine_new(board_type_find("q35"), &c, "soft", loop_new("fuzz"), &note, NULL);
    for (unsigned i = 0; machine && i < ARRAY_COUNT(devices); i++)
        device_make(machine, devices[i], NULL, NULL);
    if (!machine || !machine_power_on(machine, NULL))
        abort();
    good = machine_state_save(machine, NULL);
}

static void load(const uint8_t *data, size_t size)
{
    g_autoptr(GError) error = NULL;
    if (machine_state_load(machine, data, size, &error)) {
        GByteArray *again = machine_state_save(machine, NULL);
        if (again)
            g_byte_array_unref(again);
    } else if (!error) {
        abort();
    }
    loop_once(machine->main_loop, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cur c = cur_of(data, size);
    if (!machine)
        make();
    if (cur_u8(&c) & 1) {
        load(c.p, c.left);
        return 0;
    }
    g_autofree uint8_t *copy = g_memdup2(good->data, good->len);
    while (c.left >= 3) {
        uint32_t at = cur_le16(&c);
        copy[at % good->len] = cur_u8(&c);
    }
    load(copy, good->len);
    return 0;
}
