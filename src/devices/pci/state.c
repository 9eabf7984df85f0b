/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The saved state of every PCI function: configuration space, MSI-X table, level of its interrupt
 * line.
 *
 * Thread    Main, the machine stopped.
 * Trust     What the guest cannot write must be as here; addresses, messages and bus numbers are as
 * the guest's own writes, and are checked where they are used.
 */
#include "devices/pci/pci_internal.h"

/* Registers of a port that tell what is behind it. */
#define LINK_STATUS 18
#define SLOT_STATUS 26

static uint8_t may_differ(const struct pci_device *p, unsigned i)
{
    unsigned at = i - p->exp_cap;
    bool port = p->secondary && p->exp_cap && i >= p->exp_cap &&
                (at / 2 == LINK_STATUS / 2 || at / 2 == SLOT_STATUS / 2);
    return port ? 0xff : p->writable[i] | p->w1c[i];
}

static bool check_config(const void *base, const uint8_t *from, const char *who, GError **error)
{
    const struct pci_device *p = base;
    for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
        if ((from[i] ^ p->config[i]) & ~may_differ(p, i))
            return ruche_error(
                error, RUCHE_ERR_INVALID,
                "state of %s: byte 0x%x of the PCI configuration is 0x%02x, but here it is 0x%02x",
                who, i, from[i], p->config[i]);
    return true;
}

static bool pci_loaded(struct device *d, GError **error)
{
    struct pci_device *p = container_of(d, struct pci_device, dev);
    pthread_mutex_t *lock = &p->bus->root->lock;
    pthread_mutex_lock(lock);
    pci_bars_update(p);
    if (p->secondary)
        pci_bars_update_behind(p->secondary);
    pthread_mutex_unlock(lock);
    pci_msix_loaded(p);
    pci_intx_update(p);
    return true;
}

static const struct state_field pci_state[] = {
    STATE_ARRAY(struct pci_device, config, .check = check_config),
    STATE(struct pci_device, intx_level),
    {.name = "msix.table", .size = 4, .at = pci_msix_saved_table},
    {.name = "msix.pending", .size = 8, .at = pci_msix_saved_pending},
    {0},
};

const struct device_base pci_device_base = {
    .name = "pci", .state = pci_state, .load_after = pci_loaded};
