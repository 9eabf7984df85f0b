/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages between APICs: who is meant, and what arrives. IPIs, MSIs and the IOAPIC's interrupts
 * all pass here.
 *
 * Spec      Intel SDM volume 3, sections 11.6 (IPIs), 11.11 (MSI) and 11.12.10 (x2APIC
 *           destinations).
 * Thread    Any, no lock.
 */
#include "devices/irqchip/lapic.h"

enum shorthand { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS };

static bool logical_match(struct lapic *s, unsigned i, uint32_t dest)
{
    uint32_t ldr = s->reg[i][LAPIC_LDR];
    if (lapic_is_x2(s, i))
        return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
    ldr >>= 24;
    if (s->reg[i][LAPIC_DFR] >> 28 == 0xf)
        return ldr & dest & 0xff;
    return ldr >> 4 == (dest >> 4 & 0xf) && (ldr & dest & 0xf);
}

static bool is_target(struct lapic *s, unsigned i, const struct lapic_msg *msg)
{
    if (!(s->base[i] & LAPIC_BASE_ENABLE))
        return false;
    if (msg->broadcast)
        return true;
    return msg->logical ? logical_match(s, i, msg->dest) : s->reg[i][LAPIC_ID] == msg->dest;
}

static void accept(struct lapic *s, unsigned i, const struct lapic_msg *msg)
{
    switch (msg->mode) {
    case LAPIC_FIXED:
    case LAPIC_LOWEST:
        lapic_post(s, i, msg->vector, msg->level);
        break;
    case LAPIC_SMI:
        lapic_signal(s, i, VCPU_SIGNAL_SMI, 0);
        break;
    case LAPIC_NMI:
        lapic_signal(s, i, VCPU_SIGNAL_NMI, 0);
        break;
    case LAPIC_INIT:
        lapic_init_regs(s, i);
        lapic_signal(s, i, VCPU_SIGNAL_INIT, 0);
        break;
    case LAPIC_SIPI:
        lapic_signal(s, i, VCPU_SIGNAL_SIPI, msg->vector);
        break;
    case LAPIC_EXTINT:
        s->extint[i] = 1;
        lapic_signal(s, i, VCPU_SIGNAL_INTR, 0);
        break;
    case LAPIC_RESERVED_MODE:
        break;
    }
}

/* Among those meant, the one with the lowest processor priority; equals take turns. */
static void send_lowest(struct lapic *s, const struct lapic_msg *msg)
{
    unsigned first = s->rotate++ % s->count;
    int best = -1;
    uint8_t best_ppr = 0;
    for (unsigned n = 0; n < s->count; n++) {
        unsigned i = (first + n) % s->count;
        if (!is_target(s, i, msg) || !lapic_is_on(s, i))
            continue;
        uint8_t ppr = lapic_ppr(s, i) >> 4;
        if (best < 0 || ppr < best_ppr) {
            best = (int)i;
            best_ppr = ppr;
        }
    }
    if (best >= 0)
        accept(s, (unsigned)best, msg);
}

void lapic_send(struct lapic *s, const struct lapic_msg *msg)
{
    if (msg->mode == LAPIC_LOWEST) {
        send_lowest(s, msg);
        return;
    }
    for (unsigned i = 0; i < s->count; i++) {
        if (is_target(s, i, msg))
            accept(s, i, msg);
    }
}

void lapic_msi(void *opaque, uint64_t addr, uint32_t data)
{
    struct lapic_msg msg = {
        .dest = addr >> 12 & 0xff,
        .logical = addr & 1u << 2,
        .mode = data >> 8 & 7,
        .vector = (uint8_t)data,
        .level = data & 1u << 15,
    };
    if ((addr & ~0xfffffULL) != LAPIC_BASE)
        return;
    msg.broadcast = msg.dest == 0xff;
    lapic_send(opaque, &msg);
}

void lapic_self_ipi(struct lapic *s, unsigned i, uint8_t vector)
{
    lapic_count(&s->ipis);
    if (vector < 16)
        lapic_error(s, i, LAPIC_ERR_SEND_VECTOR);
    else
        lapic_post(s, i, vector, false);
}

/* `dest` is the destination field as a number: 8 bits from an xAPIC, 32 from an x2APIC. */
void lapic_icr_written(struct lapic *s, unsigned i, uint32_t low, uint32_t dest)
{
    struct lapic_msg msg = {
        .dest = dest,
        .logical = low & 1u << 11,
        .mode = low >> 8 & 7,
        .vector = (uint8_t)low,
        .broadcast = dest == (lapic_is_x2(s, i) ? UINT32_MAX : 0xff),
    };
    bool level = low & 1u << 15, assert = low & 1u << 14;
    enum shorthand shorthand = low >> 18 & 3;

    lapic_count(&s->ipis);
    /* INIT level de-assert only reset the arbitration ids of the APIC's own bus. */
    if (msg.mode == LAPIC_INIT && level && !assert)
        return;
    if (msg.mode <= LAPIC_LOWEST && msg.vector < 16) {
        lapic_error(s, i, LAPIC_ERR_SEND_VECTOR);
        return;
    }
    switch (shorthand) {
    case TO_DEST:
        lapic_send(s, &msg);
        break;
    case TO_SELF:
        /* INIT and start-up to oneself cannot be. */
        if (msg.mode != LAPIC_INIT && msg.mode != LAPIC_SIPI)
            accept(s, i, &msg);
        break;
    case TO_ALL:
        msg.broadcast = true;
        lapic_send(s, &msg);
        break;
    case TO_OTHERS:
        for (unsigned n = 0; n < s->count; n++) {
            if (n != i && (s->base[n] & LAPIC_BASE_ENABLE))
                accept(s, n, &msg);
        }
        break;
    }
}
