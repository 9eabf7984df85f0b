/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PCI Express core: buses, configuration space, BARs, INTx, MSI, MSI-X, capabilities.
 *
 * Spec      PCI Local Bus 3.0, PCI Express 3.0 base, PCI firmware 3.2 (ECAM).
 * Owner     A pci_device is a struct device whose struct begins with it; the bus does not own it.
 * Thread    Config space: under the bus lock, any vCPU. pci_irq_set(), pci_msix_notify(), pci_msi_notify(): any
 *           thread, with or without a device lock. The rest: realize and unrealize, main thread.
 * Locks     bus (config space) < MSI-X table < device < intr_lock, bus lines < interrupt controllers.
 * Trust     Config writes and the MSI-X table are the guest's.
 */
#pragma once

#include "machine/machine.h"

#include <string.h>

#define PCI_CONFIG_SIZE 4096
#define PCI_MAX_BARS 6
#define PCI_MSIX_MAX 2048

struct pci_bus;
struct pci_device;

enum pci_bar_kind { PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64, PCI_BAR_MEM64_PREFETCH };

struct pci_bar {
    struct mem_region *region; /* NULL: not implemented */
    enum pci_bar_kind kind;
    uint64_t size;             /* power of two */
    uint64_t addr;             /* where it is mapped now, or UINT64_MAX */
};

struct pci_ids {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint8_t revision, prog_if, subclass, class_code;
};

struct pci_msix; /* pci/msix.c */

struct pci_device {
    struct device dev;
    struct pci_bus *bus;
    char *addr;             /* PROP "addr": parsed by pci_device_init(); NULL: next free slot */
    uint8_t devfn;
    bool multifunction;
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t writable[PCI_CONFIG_SIZE]; /* bits that the guest may change */
    uint8_t w1c[PCI_CONFIG_SIZE];      /* bits that writing 1 clears */
    struct pci_bar bar[PCI_MAX_BARS];
    uint8_t intx_pin;       /* 1 to 4, 0: none */
    bool intx_level;
    uint8_t cap_next;       /* place for the next capability */
    uint16_t ext_cap_last, ext_cap_next;
    uint16_t exp_cap;       /* PCI Express capability; 0: none */
    uint16_t msi_cap;       /* 0: none */
    struct pci_msix *msix;  /* NULL: none */
    struct pci_bus *secondary; /* bridges: the bus behind; else NULL */
    bool intx_driven;       /* what the bus has been told: level and not disabled */
    bool shut;              /* no access reaches it: not plugged in yet, or without power. Bus lock */
    bool lock_ready;        /* intr_lock is initialised */
    pthread_mutex_t intr_lock; /* leaf: the MSI message, MSI-X table and pending bits */
    /* Called after the core has handled a config access; under the bus lock. May be NULL. */
    void (*config_written)(struct pci_device *p, unsigned off, unsigned len, uint32_t val);
    uint32_t (*config_read)(struct pci_device *p, unsigned off, unsigned len); /* replaces the core's */
};

/* To be listed in every PCI device's props table: "addr" (slot.function in hex), "multifunction". */
#define PCI_PROPS(type)                                                                            \
    PROP_ADDR_ROW(type), PROP_BOOL("multifunction", type, pci.multifunction,                       \
                                   .help = "Other functions share the slot")

/* The struct's pci_device member must be named `pci`. */
#define PROP_ADDR_ROW(type)                                                                        \
    PROP_STRING("addr", type, pci.addr,                                                            \
                .help = "Slot and function in hexadecimal, as 5 or 5.1; next free slot by default")

/* First call of a PCI device's realize: puts it on the bus named by dev.bus_name (default: the root), fills ids
 * and header. Undone by pci_device_done(), which unrealize calls last and which takes half-built devices. */
bool pci_device_init(struct pci_device *p, const struct pci_ids *ids, GError **error);
void pci_device_done(struct pci_device *p);

/* What config_read replaces, for those who only add to it. */
uint32_t pci_device_config_read(struct pci_device *p, unsigned off, unsigned len);

/* The region is borrowed, not yet added to a space. */
void pci_bar_register(struct pci_device *p, unsigned n, enum pci_bar_kind kind, struct mem_region *r);
/* Offset of a new capability of `len` bytes in the first 256 (its next pointer is linked), or -ENOSPC. */
int pci_add_capability(struct pci_device *p, uint8_t id, uint8_t len);
int pci_add_ext_capability(struct pci_device *p, uint16_t id, uint8_t version, uint16_t len);
/* PCI Express endpoint capability. 0 or negative errno. */
int pci_add_express(struct pci_device *p);
void pci_set_intx_pin(struct pci_device *p, uint8_t pin); /* 1 = INTA# */
int pci_add_msi(struct pci_device *p, unsigned vectors); /* 64-bit, no per-vector mask */
/* Table and PBA in BAR `bar`, which is made here (vectors * 16, page aligned, PBA behind). */
int pci_add_msix(struct pci_device *p, unsigned bar, unsigned vectors);
/* A vector goes from masked to deliverable or back, or its message changes: lets the owner attach an irqfd.
 * Called under the table's lock, which stands between the bus lock and device locks: fn may take its device's
 * lock, and config space and the table must not be accessed with a device lock held. */
void pci_msix_on_change(struct pci_device *p, void (*fn)(struct pci_device *p, unsigned vector, bool live));
bool pci_msix_enabled(const struct pci_device *p);
bool pci_msi_enabled(const struct pci_device *p);
void pci_msix_notify(struct pci_device *p, unsigned vector); /* sets the pending bit when masked */
void pci_msi_notify(struct pci_device *p, unsigned vector);
/* Message of a vector, for irqfd routes. */
void pci_msix_message(struct pci_device *p, unsigned vector, uint64_t *ret_addr, uint32_t *ret_data);
void pci_irq_set(struct pci_device *p, int level); /* INTx; honours the interrupt-disable bit */
/* Writable config bits to 0, BARs unmapped, MSI off, INTx down. The first call of a PCI device's reset, which then
 * sets registers whose power-on value is not 0. */
void pci_device_reset(struct pci_device *p);
/* Bus mastering is on: DMA is allowed. */
bool pci_bus_master(const struct pci_device *p);
/* Shuts the function and returns when no vCPU is inside its registers: what comes before a reset or unrealize while
 * the machine runs. Main thread. */
void pci_device_isolate(struct pci_device *p);

static inline void pci_set8(struct pci_device *p, unsigned off, uint8_t v)
{
    p->config[off] = v;
}

static inline void pci_set16(struct pci_device *p, unsigned off, uint16_t v)
{
    memcpy(p->config + off, &v, 2);
}

static inline void pci_set32(struct pci_device *p, unsigned off, uint32_t v)
{
    memcpy(p->config + off, &v, 4);
}

static inline uint16_t pci_get16(const struct pci_device *p, unsigned off)
{
    uint16_t v;
    memcpy(&v, p->config + off, 2);
    return v;
}

static inline uint32_t pci_get32(const struct pci_device *p, unsigned off)
{
    uint32_t v;
    memcpy(&v, p->config + off, 4);
    return v;
}

/* Buses: the root bus belongs to its host bridge, a secondary bus to its root port.
 *
 * The root bus has up to 8 interrupt lines. map() says which of them INTA# to INTD# (0-3) of a slot drives;
 * set() gets a line's level, ORed over all functions that share it. Behind bridges pins are swizzled. */
#define PCI_BUS_LINES 8
struct pci_bus_irq {
    unsigned (*map)(unsigned slot, unsigned pin);
    void (*set)(void *opaque, unsigned line, int level);
    void *opaque;
};
struct pci_bus *pci_bus_new(struct machine *m, const char *name, const struct pci_bus_irq *irq);
/* A bus behind `bridge` (a header type 1 function), found by `name` for bus=. */
struct pci_bus *pci_bus_new_secondary(struct pci_device *bridge, const char *name);
void pci_bus_free(struct pci_bus *b); /* no device is left on it; NULL is fine */
void pci_bus_reset(struct pci_bus *b); /* pci_device_reset() of every function on it and behind it */
/* Hot plug: what the bridge of a bus does for devices that come and go at run time. Main thread.
 *
 * A function that is realized after power-on stays shut until pci_plug(). An unplug request waits for the guest: when
 * it has let go, machine_observer.unplugged is called for each function of the slot, isolated. */
struct pci_slot_ops {
    void (*plug)(struct pci_device *bridge, struct pci_device *p);
    bool (*request_unplug)(struct pci_device *bridge, struct pci_device *p, GError **error);
};
/* Devices behind may come and go: NULL (the default) is never. */
void pci_bus_set_slot(struct pci_bus *b, const struct pci_slot_ops *ops);
/* False with a sentence: the bus of that name (NULL: the root) has no hot plug. */
bool pci_check_hotplug(struct machine *m, const char *bus_name, GError **error);
/* The device was realized and reset: the guest may see it. */
void pci_plug(struct pci_device *p);
bool pci_request_unplug(struct pci_device *p, GError **error);
/* `len` is 1, 2 or 4; nothing there, or out of range, reads all ones. */
uint32_t pci_bus_config_read(struct pci_bus *b, uint8_t bus, uint8_t devfn, unsigned off, unsigned len);
void pci_bus_config_write(struct pci_bus *b, uint8_t bus, uint8_t devfn, unsigned off, unsigned len,
                          uint32_t val);
/* What every PCI function's saved state begins with; for a base above it. */
extern const struct device_base pci_device_base;
/* Calls fn for each function of the root bus and behind, in order of bus and devfn. */
void pci_bus_foreach(struct pci_bus *b, void (*fn)(struct pci_device *p, void *opaque), void *opaque);

/* What firmware does: bus numbers, BARs and bridge windows from the given ranges (ends are exclusive), bus
 * mastering and decoding on, interrupt line registers from the line's IRQ. False: something did not fit and was
 * left unmapped. */
struct pci_windows {
    uint64_t mem_base, mem_end;     /* below 4 GiB */
    uint64_t mem64_base, mem64_end; /* taken for prefetchable 64-bit BARs that find no place below */
    uint32_t io_base, io_end;
    uint8_t line_irq[PCI_BUS_LINES];
};
bool pci_bus_assign(struct pci_bus *b, const struct pci_windows *w);
