/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fw_cfg as a hostile guest uses it: a program of port accesses and descriptors in guest memory.
 *
 * Input     Steps of 16 bytes: operation, port offset, width, spare; 4 bytes value; 8 bytes
 *           address. RAM is 1 MiB at 0.
 */
#include "base/cursor.h"
#include "devices/testing.h"

#include <endian.h>

#define DESCRIPTOR 0x800u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OP_OUT, OP_IN, OP_POKE, OP_DMA, N_OPS };

static struct test_machine *machine(void)
{
    static struct test_machine *t;
    if (!t) {
        t = test_machine_new(1);
        fw_cfg_set_file(t->m.fw_cfg, "opt/a", "0123456789", 10);
        fw_cfg_set_file(t->m.fw_cfg, "opt/empty", "", 0);
        fw_cfg_set(t->m.fw_cfg, FW_CFG_KERNEL_DATA, t->ram, 70000);
        test_device(t, "fw_cfg", NULL);
    }
    device_reset(t->m.devices);
    return t;
}

/* A descriptor like a driver's: control and length from the value, target from the address. */
static void run_dma(struct test_machine *t, uint32_t val, uint64_t addr)
{
    uint32_t head[2] = { htobe32((val & 0x1f) | (val >> 5 & 0x3f) << 16), htobe32(val >> 11) };
    uint64_t target = htobe64(addr);
    memcpy(t->ram + DESCRIPTOR, head, sizeof(head));
    memcpy(t->ram + DESCRIPTOR + 8, &target, sizeof(target));
    test_out(t, 0x514, 0, 4);
    test_out(t, 0x518, htobe32(DESCRIPTOR), 4);
}

static void step(struct test_machine *t, struct cur *c)
{
    uint8_t op = cur_u8(c), off = cur_u8(c), width = cur_u8(c);
    cur_u8(c);
    uint32_t val = cur_le32(c);
    uint64_t addr = cur_le64(c);
    switch (op % N_OPS) {
    case OP_OUT:
        test_out(t, 0x510 + off % 12, val, 1u << width % 3);
        break;
    case OP_IN:
        test_in(t, 0x510 + off % 12, 1u << width % 3);
        break;
    case OP_POKE:
        memcpy(t->ram + addr % (64 * KIB), &val, sizeof(val));
        break;
    default:
        run_dma(t, val, addr);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct test_machine *t = machine();
    struct cur c = cur_of(data, size < 16 * 256 ? size : 16 * 256);
    while (c.left >= 16)
        step(t, &c);
    return 0;
}
