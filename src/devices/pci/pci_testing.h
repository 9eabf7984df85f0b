/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What tests of PCI share: a machine with a host bridge, whose messages are written down, and a
 * device `test-fn` with BARs, INTx, MSI and MSI-X.
 *
 * Thread    The test's.
 */
#pragma once

#include "devices/pci/pci_internal.h"
#include "devices/testing.h"
#include "machine/chipset.h"

#define ECAM     MICROVM_ECAM_BASE
#define BAR_SIZE 0x4000
#define VECTORS  70
#define MSI_ADDR 0xfee00000u

struct test_fn {
    struct pci_device pci;
    struct mem_region mem, io, big;
    uint64_t wide_bar; /* property: size of a prefetchable 64-bit BAR */
    bool msi;          /* property: it has MSI, too */
    uint32_t reads;    /* of its BARs */
};

struct msi_log {
    unsigned count;
    uint64_t addr;
    uint32_t data;
};

struct pci_bed {
    struct test_machine *t;
    struct msi_log msi; /* the last message */
    struct accel_apic apic;
    struct device *host;
};

struct pci_bed *pci_bed_new(void);
void pci_bed_free(struct pci_bed *f); /* with all devices */

/* Where a register of configuration space is in memory. */
static inline uint64_t cfg(unsigned bus, unsigned slot, unsigned off)
{
    return ECAM + (bus << 20 | slot << 15 | off);
}

/* On bus 0. */
uint32_t read_cfg(struct pci_bed *f, unsigned slot, unsigned off);
void write_cfg(struct pci_bed *f, unsigned slot, unsigned off, uint32_t val);
unsigned find_cap(struct pci_bed *f, unsigned slot, uint8_t id); /* 0: there is none */
struct test_fn *add_fn(struct pci_bed *f, const char *addr);
bool mapped(struct pci_bed *f, uint64_t addr); /* one of the test's BARs is there */
