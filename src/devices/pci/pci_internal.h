/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the PCI core share. Thread, trust: see pci.h. */
#pragma once

#include "devices/pci/pci.h"

/* Standard header. */
#define PCI_VENDOR_ID 0x00
#define PCI_DEVICE_ID 0x02
#define PCI_COMMAND 0x04
#define PCI_COMMAND_IO 0x0001
#define PCI_COMMAND_MEMORY 0x0002
#define PCI_COMMAND_MASTER 0x0004
#define PCI_COMMAND_PARITY 0x0040
#define PCI_COMMAND_SERR 0x0100
#define PCI_COMMAND_INTX_DISABLE 0x0400
#define PCI_STATUS 0x06
#define PCI_STATUS_INTERRUPT 0x08
#define PCI_STATUS_CAP_LIST 0x10
#define PCI_STATUS_W1C 0xf900
#define PCI_REVISION 0x08
#define PCI_PROG_IF 0x09
#define PCI_SUBCLASS 0x0a
#define PCI_CLASS 0x0b
#define PCI_CACHE_LINE_SIZE 0x0c
#define PCI_HEADER_TYPE 0x0e
#define PCI_HEADER_BRIDGE 0x01
#define PCI_HEADER_MULTIFUNCTION 0x80
#define PCI_BAR0 0x10
#define PCI_SUBSYSTEM_VENDOR 0x2c
#define PCI_SUBSYSTEM 0x2e
#define PCI_CAPABILITIES 0x34
#define PCI_INTERRUPT_LINE 0x3c
#define PCI_INTERRUPT_PIN 0x3d

/* Header type 1. */
#define PCI_PRIMARY_BUS 0x18
#define PCI_SECONDARY_BUS 0x19
#define PCI_SUBORDINATE_BUS 0x1a
#define PCI_IO_BASE 0x1c
#define PCI_IO_LIMIT 0x1d
#define PCI_MEMORY_BASE 0x20
#define PCI_MEMORY_LIMIT 0x22
#define PCI_PREF_BASE 0x24
#define PCI_PREF_LIMIT 0x26
#define PCI_PREF_BASE_HIGH 0x28
#define PCI_PREF_LIMIT_HIGH 0x2c
#define PCI_IO_BASE_HIGH 0x30
#define PCI_IO_LIMIT_HIGH 0x32
#define PCI_BRIDGE_CONTROL 0x3e

#define PCI_CAP_MSI 0x05
#define PCI_CAP_EXPRESS 0x10
#define PCI_CAP_MSIX 0x11

#define PCI_UNMAPPED UINT64_MAX
/* BARs stand behind RAM, the board's devices and the ECAM, whatever the guest writes to them. */
#define PCI_BAR_PRIORITY (-2)

#define PCI_SLOT(devfn) ((devfn) >> 3)
#define PCI_FUNC(devfn) ((devfn) & 7)

struct pci_bus {
    struct machine *machine;
    char *name;
    struct pci_device *bridge;    /* the function that it is behind; NULL: root */
    struct pci_bus *root;         /* itself when root */
    struct pci_device *dev[256];  /* by devfn */
    const struct pci_slot_ops *slot; /* NULL: no hot plug behind the bridge */
    struct pci_bus_irq irq;       /* root only, like the following */
    pthread_mutex_t lock;         /* config space of all functions */
    pthread_mutex_t line_lock;    /* line_count, and the levels that were sent */
    unsigned line_count[PCI_BUS_LINES];
};

static inline bool pci_overlaps(unsigned off, unsigned len, unsigned reg, unsigned reg_len)
{
    return off < reg + reg_len && reg < off + len;
}

/* The bus called `name` at or behind b, or NULL. */
struct pci_bus *pci_bus_find(struct pci_bus *b, const char *name);
/* Drives the function's interrupt line as its level and the disable bit say. */
void pci_intx_update(struct pci_device *p);
/* Maps the BARs where config space says. Bus lock. */
void pci_bars_update(struct pci_device *p);
/* The same for all behind a bridge whose windows changed. Bus lock. */
void pci_bars_update_behind(struct pci_bus *b);
/* BAR n's value as an address, ignoring whether decoding is on; PCI_UNMAPPED when it can't be one. */
uint64_t pci_bar_address(const struct pci_device *p, unsigned n);
static inline unsigned pci_bar_offset(unsigned n)
{
    return PCI_BAR0 + 4 * n;
}
static inline bool pci_bar_is_64(enum pci_bar_kind kind)
{
    return kind == PCI_BAR_MEM64 || kind == PCI_BAR_MEM64_PREFETCH;
}
/* Config accesses on one function. Bus lock. */
void pci_device_config_write(struct pci_device *p, unsigned off, unsigned len, uint32_t val);
/* The bridges above pass accesses to [addr, addr + size) on. */
bool pci_bridge_forwards(const struct pci_bus *b, enum pci_bar_kind kind, uint64_t addr, uint64_t size);

void pci_msix_control_written(struct pci_device *p);
void pci_msix_reset(struct pci_device *p);
void pci_msix_free(struct pci_device *p);
/* state.c: rows of the saved state, and what follows it. */
void *pci_msix_saved_table(void *device, uint32_t *ret_count);
void *pci_msix_saved_pending(void *device, uint32_t *ret_count);
void pci_msix_loaded(struct pci_device *p);
uint16_t pci_msix_cap(const struct pci_device *p);
