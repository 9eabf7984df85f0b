/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Access to configuration space: ECAM and the CF8/CFC ports.
 *
 * Spec      PCI Express Base 3.0, 7.2.2; PCI Local Bus 3.0, 3.2.2.3.2.
 * Thread    Any vCPU.
 * Trust     Addresses are the guest's; the bus checks them.
 */
#include "devices/pci/host.h"

#define ADDRESS_ENABLE 0x80000000u
#define ECAM_PRIORITY (-1) /* behind RAM: some chipsets let the guest move it */

static uint64_t ecam_read(void *opaque, uint64_t off, unsigned size)
{
    struct pci_host *h = opaque;
    return pci_bus_config_read(h->bus, (uint8_t)(off >> 20), (uint8_t)(off >> 12), off & 0xfff, size);
}

static void ecam_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct pci_host *h = opaque;
    pci_bus_config_write(h->bus, (uint8_t)(off >> 20), (uint8_t)(off >> 12), off & 0xfff, size,
                         (uint32_t)val);
}

static uint64_t address_read(void *opaque, uint64_t off, unsigned size)
{
    struct pci_host *h = opaque;
    pthread_mutex_lock(&h->lock);
    uint32_t val = h->address;
    pthread_mutex_unlock(&h->lock);
    /* Only dwords reach the register; what is narrower belongs to nobody here. */
    return size == 4 ? val : UINT64_MAX;
}

static void address_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct pci_host *h = opaque;
    if (size != 4)
        return;
    pthread_mutex_lock(&h->lock);
    h->address = (uint32_t)val & ~0x7f000003u;
    pthread_mutex_unlock(&h->lock);
}

static bool selected(struct pci_host *h, uint64_t off, uint32_t *ret_address)
{
    pthread_mutex_lock(&h->lock);
    uint32_t address = h->address;
    pthread_mutex_unlock(&h->lock);
    *ret_address = (address & 0xfffffc) + (uint32_t)off;
    return address & ADDRESS_ENABLE;
}

static uint64_t data_read(void *opaque, uint64_t off, unsigned size)
{
    struct pci_host *h = opaque;
    uint32_t a;
    if (!selected(h, off, &a))
        return UINT64_MAX;
    return pci_bus_config_read(h->bus, (uint8_t)(a >> 16), (uint8_t)(a >> 8), a & 0xff, size);
}

static void data_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct pci_host *h = opaque;
    uint32_t a;
    if (selected(h, off, &a))
        pci_bus_config_write(h->bus, (uint8_t)(a >> 16), (uint8_t)(a >> 8), a & 0xff, size, (uint32_t)val);
}

static const struct mem_ops ecam_ops = { .read = ecam_read, .write = ecam_write, .min_size = 1, .max_size = 4 };
static const struct mem_ops address_ops = {
    .read = address_read, .write = address_write, .min_size = 1, .max_size = 4,
};
static const struct mem_ops data_ops = { .read = data_read, .write = data_write, .min_size = 1, .max_size = 4 };

void pci_host_init(struct pci_host *h, struct pci_bus *bus)
{
    h->bus = bus;
    pthread_mutex_init(&h->lock, NULL);
    h->ready = true;
}

int pci_host_add_ecam(struct pci_host *h, struct mem_space *memory, uint64_t size)
{
    mem_region_init_io(&h->ecam, "pcie-mmcfg", &ecam_ops, h, size, NULL);
    mem_space_begin(memory);
    int err = mem_region_add(memory, &h->ecam, 0, ECAM_PRIORITY);
    if (!err)
        mem_region_hide(&h->ecam);
    mem_space_end(memory);
    return err;
}

int pci_host_add_ports(struct pci_host *h, struct mem_space *io)
{
    mem_region_init_io(&h->address_port, "pci-config-address", &address_ops, h, 4, NULL);
    mem_region_init_io(&h->data_port, "pci-config-data", &data_ops, h, 4, NULL);
    int err = mem_region_add(io, &h->address_port, 0xcf8, 0);
    return err ? err : mem_region_add(io, &h->data_port, 0xcfc, 0);
}

void pci_host_reset(struct pci_host *h)
{
    pci_bus_reset(h->bus);
    pthread_mutex_lock(&h->lock);
    h->address = 0;
    pthread_mutex_unlock(&h->lock);
}

void pci_host_done(struct pci_host *h)
{
    if (!h->ready)
        return;
    mem_region_remove(&h->ecam);
    mem_region_remove(&h->address_port);
    mem_region_remove(&h->data_port);
    pthread_mutex_destroy(&h->lock);
    h->ready = false;
}
