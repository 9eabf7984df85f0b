/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interrupts through KVM's own chips: lines, messages, and eventfds that raise messages in the
 * kernel.
 *
 * Spec      Linux Documentation/virt/kvm/api.rst: KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_SIGNAL_MSI.
 * Thread    Any; `lock` guards the routing table.
 * Routes    GSIs 0 to 15 reach a PIC pin and an IOAPIC pin (0: pin 2), 16 to 23 the IOAPIC; a route
 * of kvm_irqfd_add() is GSI 24 + its number.
 */
#include "accel/kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define LINE_ROUTES 40 /* 16 to the PICs, 24 to the IOAPIC */

static struct kvm_irq_routing_entry chip_route(unsigned gsi, unsigned chip, unsigned pin)
{
    return (struct kvm_irq_routing_entry){
        .gsi = gsi,
        .type = KVM_IRQ_ROUTING_IRQCHIP,
        .u.irqchip = { .irqchip = chip, .pin = pin },
    };
}

static unsigned fill_line_routes(struct kvm_irq_routing_entry *e)
{
    unsigned n = 0;
    for (unsigned gsi = 0; gsi < KVM_FIRST_MSI_GSI; gsi++) {
        if (gsi < 16)
            e[n++] =
                chip_route(gsi, gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % 8);
        if (gsi != 2)
            e[n++] = chip_route(gsi, KVM_IRQCHIP_IOAPIC, gsi ? gsi : 2);
    }
    return n;
}

static int tell_routes_locked(struct kvm_accel *a)
{
    struct {
        struct kvm_irq_routing head;
        struct kvm_irq_routing_entry entries[LINE_ROUTES + KVM_MAX_ROUTES];
    } *table = calloc(1, sizeof(*table));
    if (!table)
        return -ENOMEM;
    unsigned n = fill_line_routes(table->entries);
    for (unsigned i = 0; i < KVM_MAX_ROUTES; i++) {
        if (a->routes[i].gsi)
            table->entries[n++] = a->routes[i];
    }
    table->head.nr = n;
    int err = ioctl(a->vm_fd, KVM_SET_GSI_ROUTING, table) < 0 ? -errno : 0;
    free(table);
    return err;
}

int kvm_irq_init(struct kvm_accel *a)
{
    for (unsigned i = 0; i < ARRAY_COUNT(a->power_on.chip); i++) {
        a->power_on.chip[i].chip_id = i;
        if (ioctl(a->vm_fd, KVM_GET_IRQCHIP, &a->power_on.chip[i]) < 0)
            return -errno;
    }
    if (a->pit && ioctl(a->vm_fd, KVM_GET_PIT2, &a->power_on.pit) < 0)
        return -errno;
    return tell_routes_locked(a);
}

void kvm_irq_reset(struct kvm_accel *a)
{
    for (unsigned i = 0; i < ARRAY_COUNT(a->power_on.chip); i++)
        ioctl(a->vm_fd, KVM_SET_IRQCHIP, &a->power_on.chip[i]);
    if (a->pit)
        ioctl(a->vm_fd, KVM_SET_PIT2, &a->power_on.pit);
}

void kvm_gsi(struct accel *accel, unsigned gsi, int level)
{
    struct kvm_irq_level line = { .irq = gsi, .level = (unsigned)level };
    if (gsi < KVM_FIRST_MSI_GSI)
        ioctl(to_kvm(accel)->vm_fd, KVM_IRQ_LINE, &line);
}

void kvm_msi(struct accel *accel, uint64_t addr, uint32_t data)
{
    struct kvm_msi msi = { .address_lo = (uint32_t)addr,
                           .address_hi = (uint32_t)(addr >> 32),
                           .data = data };
    ioctl(to_kvm(accel)->vm_fd, KVM_SIGNAL_MSI, &msi);
}

static struct kvm_irq_routing_entry msi_route(int route, uint64_t addr, uint32_t data)
{
    return (struct kvm_irq_routing_entry){
        .gsi = KVM_FIRST_MSI_GSI + (unsigned)route,
        .type = KVM_IRQ_ROUTING_MSI,
        .u.msi = { .address_lo = (uint32_t)addr,
                   .address_hi = (uint32_t)(addr >> 32),
                   .data = data },
    };
}

static int tell_irqfd(struct kvm_accel *a, int route, int fd, bool remove)
{
    struct kvm_irqfd request = { .fd = (unsigned)fd,
                                 .gsi = KVM_FIRST_MSI_GSI + (unsigned)route,
                                 .flags = remove ? KVM_IRQFD_FLAG_DEASSIGN : 0 };
    return ioctl(a->vm_fd, KVM_IRQFD, &request) < 0 ? -errno : 0;
}

static int free_route(const struct kvm_accel *a)
{
    for (int i = 0; i < KVM_MAX_ROUTES; i++) {
        if (!a->routes[i].gsi)
            return i;
    }
    return -ENOSPC;
}

int kvm_irqfd_add(struct accel *accel, uint64_t addr, uint32_t data, int fd)
{
    struct kvm_accel *a = to_kvm(accel);
    pthread_mutex_lock(&a->lock);
    int route = free_route(a);
    if (route >= 0) {
        a->routes[route] = msi_route(route, addr, data);
        int err = tell_routes_locked(a);
        if (!err)
            err = tell_irqfd(a, route, fd, false);
        if (err) {
            a->routes[route].gsi = 0;
            tell_routes_locked(a);
            route = err;
        }
    }
    pthread_mutex_unlock(&a->lock);
    return route;
}

static bool route_exists(const struct kvm_accel *a, int route)
{
    return route >= 0 && route < KVM_MAX_ROUTES && a->routes[route].gsi;
}

int kvm_irqfd_update(struct accel *accel, int route, uint64_t addr, uint32_t data)
{
    struct kvm_accel *a = to_kvm(accel);
    int err = -ENOENT;
    pthread_mutex_lock(&a->lock);
    if (route_exists(a, route)) {
        a->routes[route] = msi_route(route, addr, data);
        err = tell_routes_locked(a);
    }
    pthread_mutex_unlock(&a->lock);
    return err;
}

void kvm_irqfd_remove(struct accel *accel, int route, int fd)
{
    struct kvm_accel *a = to_kvm(accel);
    pthread_mutex_lock(&a->lock);
    if (route_exists(a, route)) {
        tell_irqfd(a, route, fd, true);
        a->routes[route].gsi = 0;
        tell_routes_locked(a);
    }
    pthread_mutex_unlock(&a->lock);
}
