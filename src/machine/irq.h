/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interrupt lines: a wire with a level, and who listens at its end.
 *
 * Thread    irq_set() from any thread, with or without the device's lock: receivers take only locks that
 *           stand later in docs/locking.md (device < pci bus < ioapic/pic; the local APIC takes none).
 */
#pragma once

#include "base/util.h"

struct irq_line {
    void (*set)(void *opaque, int n, int level); /* NULL: not connected */
    void *opaque;
    int n;
};

static inline void irq_set(const struct irq_line *l, int level)
{
    if (l->set)
        l->set(l->opaque, l->n, level);
}

static inline void irq_pulse(const struct irq_line *l)
{
    irq_set(l, 1);
    irq_set(l, 0);
}
