/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Message-signalled interrupts of the older kind: one address, up to 32 vectors, no masks.
 *
 * Spec      PCI Local Bus 3.0, 6.8.1.
 * Thread    pci_msi_notify(): any.
 * Trust     Address and data are the guest's; the interrupt controllers check them.
 */
#include "devices/pci/pci_internal.h"

#include <errno.h>

#define MSI_LEN 14 /* 64-bit address, no per-vector mask */
#define MSI_CONTROL 2
#define MSI_ENABLE 0x0001
#define MSI_64BIT 0x0080
#define MSI_ADDR 4
#define MSI_ADDR_HIGH 8
#define MSI_DATA 12

int pci_add_msi(struct pci_device *p, unsigned vectors)
{
    if (!is_power_of_2(vectors) || vectors > 32)
        return -EINVAL;
    int cap = pci_add_capability(p, PCI_CAP_MSI, MSI_LEN);
    if (cap < 0)
        return cap;
    p->msi_cap = (uint16_t)cap;
    unsigned log2 = (unsigned)__builtin_ctz(vectors);
    pci_set16(p, cap + MSI_CONTROL, (uint16_t)(MSI_64BIT | log2 << 1));
    p->writable[cap + MSI_CONTROL] = 0x71;
    memset(p->writable + cap + MSI_ADDR, 0xff, MSI_LEN - MSI_ADDR);
    p->writable[cap + MSI_ADDR] = 0xfc;
    return 0;
}

bool pci_msi_enabled(const struct pci_device *p)
{
    return p->msi_cap && (pci_get16(p, p->msi_cap + MSI_CONTROL) & MSI_ENABLE);
}

void pci_msi_notify(struct pci_device *p, unsigned vector)
{
    if (!p->msi_cap || !pci_bus_master(p))
        return;
    pthread_mutex_lock(&p->intr_lock);
    uint16_t control = pci_get16(p, p->msi_cap + MSI_CONTROL);
    uint64_t addr = pci_get32(p, p->msi_cap + MSI_ADDR) |
                    (uint64_t)pci_get32(p, p->msi_cap + MSI_ADDR_HIGH) << 32;
    uint32_t data = pci_get16(p, p->msi_cap + MSI_DATA);
    pthread_mutex_unlock(&p->intr_lock);
    if (!(control & MSI_ENABLE))
        return;
    unsigned log2 = min_u64((control >> 4) & 7, (control >> 1) & 7);
    uint32_t mask = (1u << log2) - 1;
    machine_msi(p->dev.machine, addr, (data & ~mask) | (vector & mask));
}
