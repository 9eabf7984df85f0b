/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What host bridges share: the ECAM window and the CF8/CFC ports onto a root bus.
 *
 * Owner     The host bridge embeds it and calls the init functions in realize, pci_host_done() in unrealize.
 * Thread    Any vCPU; the ports' address register has its own lock.
 */
#pragma once

#include "devices/pci/pci.h"

struct pci_host {
    struct pci_bus *bus;
    struct mem_region ecam, address_port, data_port;
    uint32_t address;           /* CF8 */
    pthread_mutex_t lock;       /* guards address */
    bool ready;
};

void pci_host_init(struct pci_host *h, struct pci_bus *bus);
/* 1 MiB for each bus; hidden until mem_region_move(). 0 or -errno. */
int pci_host_add_ecam(struct pci_host *h, struct mem_space *memory, uint64_t size);
int pci_host_add_ports(struct pci_host *h, struct mem_space *io);
/* Everything on the bus, and the ports' address register. Bus and ports exist. */
void pci_host_reset(struct pci_host *h);
void pci_host_done(struct pci_host *h);
