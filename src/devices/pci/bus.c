/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PCI buses: who is where, routing of configuration accesses, shared interrupt lines.
 *
 * Spec      PCI Local Bus 3.0, 3.2.2.3 (configuration) and 2.2.6 (interrupts); PCI-to-PCI Bridge 1.2, 9.1.
 * Thread    See pci.h.
 * Trust     Bus numbers, offsets and values are the guest's.
 */
#include "devices/pci/pci_internal.h"

static struct pci_bus *bus_new(struct machine *m, const char *name)
{
    struct pci_bus *b = g_try_new0(struct pci_bus, 1);
    if (!b)
        return NULL;
    b->machine = m;
    b->name = g_strdup(name);
    b->root = b;
    pthread_mutex_init(&b->lock, NULL);
    pthread_mutex_init(&b->line_lock, NULL);
    return b;
}

struct pci_bus *pci_bus_new(struct machine *m, const char *name, const struct pci_bus_irq *irq)
{
    struct pci_bus *b = bus_new(m, name);
    if (b)
        b->irq = *irq;
    return b;
}

struct pci_bus *pci_bus_new_secondary(struct pci_device *bridge, const char *name)
{
    struct pci_bus *b = bus_new(bridge->dev.machine, name);
    if (b) {
        b->bridge = bridge;
        b->root = bridge->bus->root;
        bridge->secondary = b;
    }
    return b;
}

void pci_bus_free(struct pci_bus *b)
{
    if (!b)
        return;
    if (b->bridge)
        b->bridge->secondary = NULL;
    pthread_mutex_destroy(&b->lock);
    pthread_mutex_destroy(&b->line_lock);
    g_free(b->name);
    g_free(b);
}

void pci_bus_foreach(struct pci_bus *b, void (*fn)(struct pci_device *p, void *opaque), void *opaque)
{
    for (unsigned i = 0; i < ARRAY_COUNT(b->dev); i++) {
        struct pci_device *p = b->dev[i];
        if (!p)
            continue;
        fn(p, opaque);
        if (p->secondary)
            pci_bus_foreach(p->secondary, fn, opaque);
    }
}

static void reset_one(struct pci_device *p, void *opaque)
{
    pci_device_reset(p);
}

void pci_bus_reset(struct pci_bus *b)
{
    pci_bus_foreach(b, reset_one, NULL);
}

struct pci_bus *pci_bus_find(struct pci_bus *b, const char *name)
{
    if (!strcmp(b->name, name))
        return b;
    for (unsigned i = 0; i < ARRAY_COUNT(b->dev); i++) {
        struct pci_bus *found = NULL;
        if (b->dev[i] && b->dev[i]->secondary)
            found = pci_bus_find(b->dev[i]->secondary, name);
        if (found)
            return found;
    }
    return NULL;
}

/* The bus that the guest has given number `num` behind b, or NULL. Each step goes one bridge down. */
static struct pci_bus *bus_numbered(struct pci_bus *b, uint8_t num)
{
    for (unsigned i = 0; i < ARRAY_COUNT(b->dev); i++) {
        struct pci_device *p = b->dev[i];
        if (!p || !p->secondary)
            continue;
        uint8_t secondary = p->config[PCI_SECONDARY_BUS];
        if (!secondary || num < secondary || num > p->config[PCI_SUBORDINATE_BUS])
            continue;
        return num == secondary ? p->secondary : bus_numbered(p->secondary, num);
    }
    return NULL;
}

static struct pci_device *find_function(struct pci_bus *b, uint8_t bus, uint8_t devfn)
{
    struct pci_bus *target = bus ? bus_numbered(b, bus) : b;
    struct pci_device *p = target ? target->dev[devfn] : NULL;
    return p && !p->shut ? p : NULL;
}

static bool access_fits(unsigned off, unsigned len)
{
    return (len == 1 || len == 2 || len == 4) && range_fits(off, len, PCI_CONFIG_SIZE);
}

uint32_t pci_bus_config_read(struct pci_bus *b, uint8_t bus, uint8_t devfn, unsigned off, unsigned len)
{
    uint32_t val = UINT32_MAX;
    if (!access_fits(off, len))
        return val;
    pthread_mutex_lock(&b->lock);
    struct pci_device *p = find_function(b, bus, devfn);
    if (p)
        val = p->config_read ? p->config_read(p, off, len) : pci_device_config_read(p, off, len);
    pthread_mutex_unlock(&b->lock);
    return len == 4 ? val : val & ((1u << 8 * len) - 1);
}

void pci_bus_config_write(struct pci_bus *b, uint8_t bus, uint8_t devfn, unsigned off, unsigned len,
                          uint32_t val)
{
    if (!access_fits(off, len))
        return;
    pthread_mutex_lock(&b->lock);
    struct pci_device *p = find_function(b, bus, devfn);
    if (p)
        pci_device_config_write(p, off, len, val);
    pthread_mutex_unlock(&b->lock);
}

/* Which line of the root bus a function's pin drives. */
static unsigned line_of(const struct pci_device *p)
{
    unsigned pin = p->intx_pin - 1;
    const struct pci_device *at = p;
    while (at->bus->bridge) {
        pin = (pin + PCI_SLOT(at->devfn)) % 4;
        at = at->bus->bridge;
    }
    return at->bus->irq.map(PCI_SLOT(at->devfn), pin) % PCI_BUS_LINES;
}

void pci_intx_update(struct pci_device *p)
{
    if (!p->intx_pin || !p->bus)
        return;
    struct pci_bus *root = p->bus->root;
    pthread_mutex_lock(&root->line_lock);
    bool on = p->intx_level && !(pci_get16(p, PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE);
    if (on != p->intx_driven) {
        unsigned line = line_of(p);
        p->intx_driven = on;
        bool was = root->line_count[line] > 0;
        root->line_count[line] += on ? 1 : -1;
        bool is = root->line_count[line] > 0;
        if (was != is)
            root->irq.set(root->irq.opaque, line, is);
    }
    pthread_mutex_unlock(&root->line_lock);
}

void pci_irq_set(struct pci_device *p, int level)
{
    if (!p->bus)
        return;
    struct pci_bus *root = p->bus->root;
    pthread_mutex_lock(&root->line_lock);
    p->intx_level = level != 0;
    pthread_mutex_unlock(&root->line_lock);
    pci_intx_update(p);
}
