/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PCI functions: their place on a bus, configuration space with write masks, capabilities, reset.
 *
 * Spec      PCI Local Bus 3.0, chapter 6; PCI Express Base 3.0, 7.5 to 7.8.
 * Thread    See pci.h.
 * Trust     Config offsets (already in range) and values are the guest's.
 */
#include "devices/pci/pci_internal.h"

#include "base/units.h"

#include <errno.h>

#define COMMAND_WRITABLE                                                                           \
    (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |               \
     PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE)

/* "5", "05.1", "0x1f.2": slot and function in hexadecimal. */
static bool parse_addr(const char *text, unsigned *ret_devfn)
{
    char *end;
    if (!g_ascii_isxdigit(text[0]))
        return false;
    unsigned long slot = strtoul(text, &end, 16), func = 0;
    if (*end == '.') {
        if (!g_ascii_isdigit(end[1]))
            return false;
        func = strtoul(end + 1, &end, 10);
    }
    if (*end || slot > 31 || func > 7)
        return false;
    *ret_devfn = (unsigned)(slot << 3 | func);
    return true;
}

static bool choose_devfn(struct pci_device *p, GError **error)
{
    const char *name = p->dev.type->name;
    unsigned devfn;
    if (p->addr) {
        if (!parse_addr(p->addr, &devfn))
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "%s: addr '%s' is not a PCI slot from 0 to 1f, with .0 to .7 for a function",
                               name, p->addr);
    } else {
        for (devfn = 0; devfn < 256 && p->bus->dev[devfn]; devfn += 8)
            ;
        if (devfn >= (p->bus->bridge ? 8 : 256))
            return ruche_error(error, RUCHE_ERR_BUSY, "%s: no free slot on PCI bus '%s'", name,
                               p->bus->name);
    }
    if (p->bus->bridge && PCI_SLOT(devfn))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: addr %x.%x: a PCI Express port such as '%s' has slot 0 only", name,
                           PCI_SLOT(devfn), PCI_FUNC(devfn), p->bus->name);
    if (p->bus->dev[devfn])
        return ruche_error(error, RUCHE_ERR_BUSY, "%s: addr %x.%x on PCI bus '%s' is taken by %s", name,
                           PCI_SLOT(devfn), PCI_FUNC(devfn), p->bus->name,
                           p->bus->dev[devfn]->dev.type->name);
    struct pci_device *first = p->bus->dev[devfn & ~7u];
    if (PCI_FUNC(devfn) && first && !first->multifunction)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: addr %x.%x: function 0 of the slot, %s, lacks multifunction=on", name,
                           PCI_SLOT(devfn), PCI_FUNC(devfn), first->dev.type->name);
    p->devfn = (uint8_t)devfn;
    return true;
}

static void init_header(struct pci_device *p, const struct pci_ids *ids)
{
    pci_set16(p, PCI_VENDOR_ID, ids->vendor);
    pci_set16(p, PCI_DEVICE_ID, ids->device);
    p->config[PCI_REVISION] = ids->revision;
    p->config[PCI_PROG_IF] = ids->prog_if;
    p->config[PCI_SUBCLASS] = ids->subclass;
    p->config[PCI_CLASS] = ids->class_code;
    pci_set16(p, PCI_SUBSYSTEM_VENDOR, ids->subsystem_vendor);
    pci_set16(p, PCI_SUBSYSTEM, ids->subsystem);
    p->config[PCI_HEADER_TYPE] = p->multifunction ? PCI_HEADER_MULTIFUNCTION : 0;
    uint16_t command = COMMAND_WRITABLE, status = PCI_STATUS_W1C;
    memcpy(p->writable + PCI_COMMAND, &command, 2);
    memcpy(p->w1c + PCI_STATUS, &status, 2);
    p->writable[PCI_CACHE_LINE_SIZE] = 0xff;
    p->writable[PCI_INTERRUPT_LINE] = 0xff;
}

bool pci_device_init(struct pci_device *p, const struct pci_ids *ids, GError **error)
{
    struct machine *m = p->dev.machine;
    const char *name = p->dev.type->name;
    if (!m->pci)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "%s: this machine has no PCI bus", name);
    struct pci_bus *bus = m->pci;
    if (p->dev.bus_name && !(bus = pci_bus_find(m->pci, p->dev.bus_name)))
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s: no PCI bus is called '%s'", name,
                           p->dev.bus_name);
    p->bus = bus;
    p->dev.base = &pci_device_base;
    if (!choose_devfn(p, error)) {
        p->bus = NULL;
        return false;
    }
    pthread_mutex_init(&p->intr_lock, NULL);
    p->lock_ready = true;
    p->cap_next = 0x40;
    p->ext_cap_next = 0x100;
    for (unsigned i = 0; i < PCI_MAX_BARS; i++)
        p->bar[i].addr = PCI_UNMAPPED;
    init_header(p, ids);
    pthread_mutex_lock(&bus->root->lock);
    p->shut = m->powered_on;
    bus->dev[p->devfn] = p;
    pthread_mutex_unlock(&bus->root->lock);
    return true;
}

void pci_device_done(struct pci_device *p)
{
    if (p->bus) {
        pci_irq_set(p, 0);
        pthread_mutex_lock(&p->bus->root->lock);
        if (p->bus->dev[p->devfn] == p)
            p->bus->dev[p->devfn] = NULL;
        pthread_mutex_unlock(&p->bus->root->lock);
        for (unsigned i = 0; i < PCI_MAX_BARS; i++) {
            if (p->bar[i].region)
                mem_region_remove(p->bar[i].region);
            p->bar[i].region = NULL;
        }
        p->bus = NULL;
    }
    pci_msix_free(p);
    if (p->lock_ready)
        pthread_mutex_destroy(&p->intr_lock);
    p->lock_ready = false;
}

void pci_device_isolate(struct pci_device *p)
{
    if (!p->bus)
        return;
    pthread_mutex_lock(&p->bus->root->lock);
    p->shut = true;
    pci_bars_update(p);
    pthread_mutex_unlock(&p->bus->root->lock);
    for (unsigned i = 0; i < PCI_MAX_BARS; i++)
        if (p->bar[i].region)
            mem_region_drain(p->bar[i].region);
}

bool pci_bus_master(const struct pci_device *p)
{
    return pci_get16(p, PCI_COMMAND) & PCI_COMMAND_MASTER;
}

/* --- configuration accesses --- */

uint32_t pci_device_config_read(struct pci_device *p, unsigned off, unsigned len)
{
    uint32_t val = 0;
    memcpy(&val, p->config + off, len);
    if (pci_overlaps(off, len, PCI_STATUS, 1) && p->intx_level)
        val |= (uint32_t)PCI_STATUS_INTERRUPT << 8 * (PCI_STATUS - off);
    return val;
}

static void after_write(struct pci_device *p, unsigned off, unsigned len)
{
    if (pci_overlaps(off, len, PCI_COMMAND, 2)) {
        pci_bars_update(p);
        pci_intx_update(p);
    }
    if (p->secondary && (pci_overlaps(off, len, PCI_COMMAND, 2) || pci_overlaps(off, len, PCI_IO_BASE, 24)))
        pci_bars_update_behind(p->secondary);
    if (pci_overlaps(off, len, PCI_BAR0, 4 * PCI_MAX_BARS))
        pci_bars_update(p);
    if (p->msix && pci_overlaps(off, len, pci_msix_cap(p) + 2, 2))
        pci_msix_control_written(p);
}

void pci_device_config_write(struct pci_device *p, unsigned off, unsigned len, uint32_t val)
{
    pthread_mutex_lock(&p->intr_lock);
    for (unsigned i = 0; i < len; i++) {
        uint8_t byte = (uint8_t)(val >> 8 * i), *c = &p->config[off + i];
        uint8_t mask = p->writable[off + i];
        *c = (*c & ~mask) | (byte & mask);
        *c &= ~(byte & p->w1c[off + i]);
    }
    pthread_mutex_unlock(&p->intr_lock);
    after_write(p, off, len);
    if (p->config_written)
        p->config_written(p, off, len, val);
}

void pci_device_reset(struct pci_device *p)
{
    if (!p->bus)
        return;
    pci_irq_set(p, 0);
    pthread_mutex_lock(&p->bus->root->lock);
    pthread_mutex_lock(&p->intr_lock);
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        p->config[i] &= ~(p->writable[i] | p->w1c[i]);
    pthread_mutex_unlock(&p->intr_lock);
    pci_bars_update(p);
    if (p->secondary)
        pci_bars_update_behind(p->secondary);
    pthread_mutex_unlock(&p->bus->root->lock);
    pci_msix_reset(p);
}

/* --- capabilities --- */

int pci_add_capability(struct pci_device *p, uint8_t id, uint8_t len)
{
    unsigned off = (unsigned)align_up(p->cap_next, 4);
    if (off + len > 0x100)
        return -ENOSPC;
    p->config[off] = id;
    p->config[off + 1] = p->config[PCI_CAPABILITIES];
    p->config[PCI_CAPABILITIES] = (uint8_t)off;
    p->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    p->cap_next = off + len;
    return (int)off;
}

int pci_add_ext_capability(struct pci_device *p, uint16_t id, uint8_t version, uint16_t len)
{
    unsigned off = (unsigned)align_up(p->ext_cap_next, 4);
    if (off + len > PCI_CONFIG_SIZE)
        return -ENOSPC;
    pci_set32(p, off, id | (uint32_t)version << 16);
    if (p->ext_cap_last)
        pci_set32(p, p->ext_cap_last, pci_get32(p, p->ext_cap_last) | (uint32_t)off << 20);
    p->ext_cap_last = (uint16_t)off;
    p->ext_cap_next = (uint16_t)(off + len);
    return (int)off;
}

#define EXP_TYPE_ENDPOINT 0x0
#define EXP_TYPE_ROOT_PORT 0x4
#define EXP_TYPE_INTEGRATED 0x9 /* root complex integrated endpoint: has no link */
#define EXP_LEN 60

int pci_add_express(struct pci_device *p)
{
    int cap = pci_add_capability(p, PCI_CAP_EXPRESS, EXP_LEN);
    if (cap < 0)
        return cap;
    unsigned type = p->bus->bridge ? EXP_TYPE_ENDPOINT : EXP_TYPE_INTEGRATED;
    if (p->config[PCI_HEADER_TYPE] & PCI_HEADER_BRIDGE)
        type = EXP_TYPE_ROOT_PORT;
    p->exp_cap = (uint16_t)cap;
    pci_set16(p, cap + 2, (uint16_t)(2 | type << 4)); /* version 2 */
    pci_set32(p, cap + 4, 0x8000);                     /* role-based error reporting */
    uint16_t control = 0x700f | 0x0810; /* error enables, relaxed ordering, no snoop, read request size */
    memcpy(p->writable + cap + 8, &control, 2);
    p->w1c[cap + 10] = 0x0f;
    if (type != EXP_TYPE_INTEGRATED) {
        pci_set32(p, cap + 12, 0x11); /* 2.5 GT/s, one lane */
        p->writable[cap + 16] = 0xc3; /* ASPM, common clock, extended synch */
        pci_set16(p, cap + 18, 0x11);
    }
    return 0;
}

void pci_set_intx_pin(struct pci_device *p, uint8_t pin)
{
    p->intx_pin = pin;
    p->config[PCI_INTERRUPT_PIN] = pin;
}
