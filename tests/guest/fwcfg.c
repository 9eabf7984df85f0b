/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fw_cfg: signature, directory, items by ports, the same by DMA, and DMA that cannot be.
 *
 * Spec      QEMU docs/specs/fw_cfg.
 */
#include "lib/guest.h"

#define DMA_ERROR 1u
#define DMA_READ 2u
#define DMA_SKIP 4u
#define DMA_SELECT 8u

static struct {
    uint32_t control, length;
    uint64_t address;
} volatile dma __attribute__((aligned(16)));

/* The control field as the device leaves it. */
static uint32_t run_dma(uint32_t control, uint32_t len, uint64_t address)
{
    dma.control = __builtin_bswap32(control);
    dma.length = __builtin_bswap32(len);
    dma.address = __builtin_bswap64(address);
    uint64_t at = (uint64_t)&dma;
    out32(0x514, __builtin_bswap32((uint32_t)(at >> 32)));
    out32(0x518, __builtin_bswap32((uint32_t)at));
    uint64_t begin = rdtsc();
    while ((__builtin_bswap32(dma.control) & ~DMA_ERROR) && rdtsc() - begin < tsc_khz() * 5000)
        pause();
    return __builtin_bswap32(dma.control);
}

static void test_items(void)
{
    uint32_t id = 0;
    uint16_t cpus = 0;
    uint64_t ram = 0;
    fw_cfg_read(1, &id, 4);
    check_eq(id & 1, 1, "the traditional interface");
    check_eq(id & 2, 2, "the DMA interface");
    fw_cfg_read(5, &cpus, 2);
    check_eq(cpus, cmdline_number("cpus", 1), "the number of vCPUs");
    fw_cfg_read(3, &ram, 8);
    check_eq(ram, 64ul << 20, "the size of RAM");
    uint8_t past[8];
    fw_cfg_read(5, past, 8);
    check_eq(past[7], 0, "bytes behind an item");
    fw_cfg_read(0xbeef & 0x3fff, past, 4);
    check_eq(past[0], 0, "an item that is not there");
}

static void test_directory(void)
{
    uint32_t count = 0;
    fw_cfg_read(0x19, &count, 4);
    count = __builtin_bswap32(count);
    check(count < 256, "%u files", count);
    static struct {
        uint32_t size;
        uint16_t key, reserved;
        char name[56];
    } files[256], again[256];
    fw_cfg_read(0x19, &files, 4);
    for (unsigned i = 0; i < count * sizeof(files[0]); i++)
        ((uint8_t *)files)[i] = in8(0x511);
    for (unsigned i = 0; i < count; i++) {
        check(__builtin_bswap16(files[i].key) >= 0x20, "the key of file %u", i);
        check(files[i].name[55] == 0 && files[i].name[0], "the name of file %u", i);
    }
    check_eq(run_dma(0x19u << 16 | DMA_SELECT | DMA_READ, 4, (uint64_t)again), 0,
             "DMA of the file count");
    check_eq(__builtin_bswap32(*(uint32_t *)again), count, "the file count by DMA");
    check_eq(run_dma(DMA_READ, (uint32_t)(count * sizeof(files[0])), (uint64_t)again), 0,
             "DMA goes on where it was");
    check_eq(memcmp(files, again, count * sizeof(files[0])), 0, "the directory by DMA");
}

static void test_dma(void)
{
    static char text[16];
    check_eq(run_dma(0u << 16 | DMA_SELECT | DMA_READ, 4, (uint64_t)text), 0,
             "DMA of the signature");
    check_eq(memcmp(text, "QEMU", 4), 0, "the signature by DMA");
    check_eq(run_dma(0u << 16 | DMA_SELECT | DMA_SKIP, 2, 0), 0, "DMA that skips");
    check_eq(in8(0x511), 'M', "the byte after the skip");
    memset(text, 0x55, sizeof(text));
    check_eq(run_dma(0u << 16 | DMA_SELECT | DMA_READ, 8, (uint64_t)text), 0,
             "DMA beyond the item");
    check_eq(text[7], 0, "reads zeroes");
    check_eq(text[8], 0x55, "and no more than was asked for");
    check(run_dma(0u << 16 | DMA_SELECT | DMA_READ, 4, 1ull << 50) & DMA_ERROR,
          "DMA to nowhere is an error");
    check_eq(run_dma(0u << 16 | DMA_SELECT | DMA_READ, 4, (uint64_t)text), 0,
             "and the device goes on");
}

void test_main(void)
{
    if (!check(fw_cfg_present(), "fw_cfg is there"))
        return;
    test_items();
    test_directory();
    test_dma();
}
