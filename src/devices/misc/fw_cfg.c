/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `fw_cfg`: the ports and the DMA interface through which firmware and kernels read the items of
 * machine/fw_cfg.h.
 *
 * Spec      QEMU docs/specs/fw_cfg: selector 0x510, data 0x511, DMA address 0x514 (big-endian).
 * Thread    Any vCPU, with the device's lock. Items are set before the machine runs.
 * Trust     The DMA descriptor is the guest's: read once, its addresses only ever reach RAM, and
 *           its length costs no more than one pass over the item: past its end reads give zeros, at
 *           most MAX_PAST_END of them.
 */
#include "machine/fw_cfg.h"
#include "machine/machine.h"

#include <endian.h>
#include <string.h>

#define ITEM_MASK 0x3fff     /* bits 14 and 15: write, architecture-local */
#define DMA_SIGNATURE 0x51454d5520434647ULL /* "QEMU CFG" */
#define MAX_PAST_END (64 * KIB)

enum { SELECTOR = 0, DATA = 1, DMA_HIGH = 4, PORTS = 12 };
enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };

struct dma_access {
    uint32_t control_be, length_be;
    uint64_t address_be;
};

struct fw_cfg_device {
    struct device dev;
    struct mem_region ports;
    uint32_t iobase;
    uint16_t key;
    uint32_t offset;     /* in the selected item */
    uint64_t dma_addr;   /* high half written, low half starts */
    uint64_t bytes_read, dma_transfers, dma_errors;
};

static void select_item(struct fw_cfg_device *s, uint16_t key)
{
    s->key = key;
    s->offset = 0;
}

static struct fw_cfg_item item_of(const struct fw_cfg_device *s)
{
    const struct fw_cfg *f = s->dev.machine->fw_cfg;
    if (!f || (s->key & ~ITEM_MASK))
        return (struct fw_cfg_item){ 0 };
    return fw_cfg_get(f, s->key);
}

/* How much of the item is left. */
static uint32_t item_left(const struct fw_cfg_device *s, struct fw_cfg_item item)
{
    return s->offset < item.len ? item.len - s->offset : 0;
}

static void advance(struct fw_cfg_device *s, uint64_t len)
{
    s->offset = (uint32_t)min_u64(s->offset + len, UINT32_MAX);
}

/* --- DMA --- */

static bool dma_read(struct fw_cfg_device *s, uint64_t addr, uint32_t len)
{
    struct mem_space *memory = s->dev.machine->memory;
    struct fw_cfg_item item = item_of(s);
    uint32_t data = (uint32_t)min_u64(len, item_left(s, item)), past = len - data;
    if (past > MAX_PAST_END)
        return false;
    if (data && mem_write(memory, addr, item.data + s->offset, data))
        return false;
    static const uint8_t zeros[4096];
    for (uint32_t done = 0; done < past;) {
        uint32_t piece = (uint32_t)min_u64(past - done, sizeof(zeros));
        if (mem_write(memory, addr + data + done, zeros, piece))
            return false;
        done += piece;
    }
    s->bytes_read += data;
    return true;
}

/* One descriptor: select, then one of read, skip and write; nothing is writable. */
static bool dma_run(struct fw_cfg_device *s, const struct dma_access *a)
{
    uint32_t control = be32toh(a->control_be), len = be32toh(a->length_be);
    bool ok = true;
    if (control & DMA_SELECT)
        select_item(s, control >> 16);
    if (control & DMA_READ)
        ok = dma_read(s, be64toh(a->address_be), len);
    else if (control & DMA_WRITE)
        ok = !len;
    else if (!(control & DMA_SKIP))
        return true;
    if (ok)
        advance(s, len);
    return ok;
}

static void dma_start(struct fw_cfg_device *s)
{
    struct mem_space *memory = s->dev.machine->memory;
    uint64_t addr = s->dma_addr;
    struct dma_access a;
    s->dma_addr = 0;
    s->dma_transfers++;
    if (mem_read(memory, addr, &a, sizeof(a))) {
        s->dma_errors++;
        return;
    }
    bool ok = dma_run(s, &a);
    s->dma_errors += !ok;
    /* Guests poll for zero. */
    uint32_t result = htobe32(ok ? 0 : DMA_ERROR);
    mem_write(memory, addr, &result, sizeof(result));
}

/* --- ports --- */

static uint8_t data_read(struct fw_cfg_device *s)
{
    struct fw_cfg_item item = item_of(s);
    uint8_t byte = item_left(s, item) ? item.data[s->offset] : 0;
    s->bytes_read += item_left(s, item) > 0;
    advance(s, 1);
    return byte;
}

static uint64_t fw_cfg_read(void *opaque, uint64_t off, unsigned size)
{
    struct fw_cfg_device *s = opaque;
    if (off == SELECTOR && size == 2)
        return s->key;
    if (off == DATA && size == 1)
        return data_read(s);
    if (off >= DMA_HIGH && size == 4)
        return be32toh((uint32_t)(off == DMA_HIGH ? DMA_SIGNATURE >> 32 : DMA_SIGNATURE));
    return 0;
}

static void fw_cfg_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct fw_cfg_device *s = opaque;
    if (off == SELECTOR && size == 2) {
        select_item(s, (uint16_t)val);
    } else if (off == DMA_HIGH && size == 4) {
        s->dma_addr = (uint64_t)be32toh((uint32_t)val) << 32;
    } else if (off == DMA_HIGH + 4 && size == 4) {
        s->dma_addr |= be32toh((uint32_t)val);
        dma_start(s);
    }
}

static const struct mem_ops fw_cfg_ops = {
    .read = fw_cfg_read, .write = fw_cfg_write, .min_size = 1, .max_size = 4,
};

static void fw_cfg_reset(struct device *d)
{
    struct fw_cfg_device *s = container_of(d, struct fw_cfg_device, dev);
    pthread_mutex_lock(&d->lock);
    select_item(s, FW_CFG_SIGNATURE);
    s->dma_addr = 0;
    pthread_mutex_unlock(&d->lock);
}

static bool fw_cfg_realize(struct device *d, GError **error)
{
    struct fw_cfg_device *s = container_of(d, struct fw_cfg_device, dev);
    mem_region_init_io(&s->ports, "fw_cfg", &fw_cfg_ops, s, PORTS, &d->lock);
    int r = mem_region_add(d->machine->io, &s->ports, s->iobase, 0);
    if (r < 0)
        return ruche_error_errno(error, -r, "fw_cfg: cannot map ports 0x%x", s->iobase);
    return true;
}

static void fw_cfg_unrealize(struct device *d)
{
    mem_region_remove(&container_of(d, struct fw_cfg_device, dev)->ports);
}

static const struct prop fw_cfg_props[] = {
    PROP_U32("iobase", struct fw_cfg_device, iobase, .def = 0x510, .min = 1, .max = 0xfff4,
             .help = "First port"),
    { 0 },
};

static const struct state_field fw_cfg_state[] = {
    STATE(struct fw_cfg_device, key),
    STATE(struct fw_cfg_device, offset),
    STATE(struct fw_cfg_device, dma_addr),
    { 0 },
};

static const struct device_counter fw_cfg_counters[] = {
    COUNTER(struct fw_cfg_device, bytes_read, "Bytes of items read"),
    COUNTER(struct fw_cfg_device, dma_transfers, "DMA descriptors"),
    COUNTER(struct fw_cfg_device, dma_errors, "DMA descriptors that failed"),
    { 0 },
};

static const struct device_type fw_cfg_type = {
    .name = "fw_cfg", .summary = "Firmware configuration items", .spec = "QEMU fw_cfg", .bus = BUS_ISA,
    .internal = true, .size = sizeof(struct fw_cfg_device), .props = fw_cfg_props, .state = fw_cfg_state,
    .counters = fw_cfg_counters, .realize = fw_cfg_realize, .reset = fw_cfg_reset,
    .unrealize = fw_cfg_unrealize,
};
DEVICE_TYPE(fw_cfg_type);
