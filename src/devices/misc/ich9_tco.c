/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The TCO watchdog of the ICH9: counts ticks of 0.6 seconds, complains at the first end and resets
 * at the second.
 *
 * Spec      ICH9 datasheet 316972, section 13.9.
 * Thread    With the device's lock; expiry on the main loop.
 */
#include "devices/misc/ich9_pm.h"

#define TICK_NS (600 * NS_PER_MS)
#define TCO_BYTES 0x20

enum { RLD = 0x00, DAT_IN = 0x02, DAT_OUT = 0x03, STS1 = 0x04, STS2 = 0x06, CNT1 = 0x08, CNT2 = 0x0a,
       MESSAGE1 = 0x0c, MESSAGE2 = 0x0d, WDCNT = 0x0e, SW_IRQ = 0x10, TMR = 0x12 };
enum { STS1_TIMEOUT = 1 << 3, STS1_W1C = 0x170f, STS2_SECOND = 1 << 1, STS2_BOOT = 1 << 2, STS2_W1C = 7,
       CNT1_LOCK = 1 << 12, CNT1_HALT = 1 << 11, CNT1_BITS = 0x1b00, CNT2_BITS = 0x38 };

static void tco_start(struct ich9_pm *pm)
{
    struct ich9_tco *t = &pm->tco;
    if (t->cnt1 & CNT1_HALT) {
        t->expires_ns = 0;
        clock_timer_cancel(&pm->tco_timer);
        return;
    }
    /* A count below 4 is not taken by the hardware either. */
    int64_t ticks = t->reload < 4 ? 4 : t->reload;
    t->expires_ns = clock_now_ns(&pm->dev->machine->clock) + ticks * TICK_NS;
    clock_timer_arm(&pm->tco_timer, t->expires_ns);
}

void ich9_tco_fired(void *opaque)
{
    struct ich9_pm *pm = opaque;
    struct ich9_tco *t = &pm->tco;
    pthread_mutex_lock(&pm->dev->lock);
    bool due = t->expires_ns && t->expires_ns <= clock_now_ns(&pm->dev->machine->clock);
    if (due && t->timed_out) {
        t->sts2 |= STS2_SECOND | STS2_BOOT;
        t->timed_out = 0;
        if (!pm->no_reboot) {
            pm->watchdog_resets++;
            machine_request(pm->dev->machine, MACHINE_REQ_RESET, 0);
        }
    } else if (due) {
        t->sts1 |= STS1_TIMEOUT;
        t->timed_out = 1;
    }
    if (due)
        tco_start(pm);
    pthread_mutex_unlock(&pm->dev->lock);
}

void ich9_tco_reset(struct ich9_pm *pm)
{
    /* The reason of a reset outlives it. */
    uint16_t sts2 = pm->tco.sts2 & (STS2_SECOND | STS2_BOOT);
    pm->tco = (struct ich9_tco){ .sts2 = sts2, .cnt1 = CNT1_HALT, .cnt2 = 8, .sw_irq = 3, .reload = 4 };
    tco_start(pm);
}

bool ich9_tco_loaded(struct ich9_pm *pm, GError **error)
{
    struct ich9_tco *t = &pm->tco;
    int64_t last = clock_now_ns(&pm->dev->machine->clock) + 0x3ff * TICK_NS;
    if (t->expires_ns < 0 || t->expires_ns > last)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "state of device 'ich9-lpc': field 'pm.tco.expires_ns' is %" G_GINT64_FORMAT
                           ", and can be from 0 to %" G_GINT64_FORMAT, t->expires_ns, last);
    clock_timer_arm(&pm->tco_timer, t->expires_ns ? t->expires_ns : INT64_MAX);
    return true;
}

static uint16_t count_left(struct ich9_pm *pm)
{
    struct ich9_tco *t = &pm->tco;
    if (!t->expires_ns)
        return t->reload;
    int64_t left = t->expires_ns - clock_now_ns(&pm->dev->machine->clock);
    return left > 0 ? (uint16_t)(left / TICK_NS) & 0x3ff : 0;
}

uint8_t ich9_tco_read(struct ich9_pm *pm, unsigned off)
{
    const struct ich9_tco *t = &pm->tco;
    uint8_t reg[TCO_BYTES] = {
        [DAT_IN] = t->data_in, [DAT_OUT] = t->data_out, [STS1] = t->sts1 & 0xff, [STS1 + 1] = t->sts1 >> 8,
        [STS2] = t->sts2 & 0xff, [CNT1] = t->cnt1 & 0xff, [CNT1 + 1] = t->cnt1 >> 8, [CNT2] = t->cnt2 & 0xff,
        [MESSAGE1] = t->message[0], [MESSAGE2] = t->message[1], [WDCNT] = t->wdcnt, [SW_IRQ] = t->sw_irq,
        [TMR] = t->reload & 0xff, [TMR + 1] = t->reload >> 8,
    };
    if (off == RLD || off == RLD + 1)
        return (uint8_t)(count_left(pm) >> 8 * off);
    return off < TCO_BYTES ? reg[off] : 0;
}

static uint16_t with_byte(uint16_t reg, unsigned high, uint8_t val, uint16_t bits)
{
    uint16_t mask = (uint16_t)(0xff << 8 * high) & bits;
    return (reg & ~mask) | ((uint16_t)(val << 8 * high) & mask);
}

void ich9_tco_write(struct ich9_pm *pm, unsigned off, uint8_t val)
{
    struct ich9_tco *t = &pm->tco;
    switch (off) {
    case RLD:
        t->timed_out = 0;
        tco_start(pm);
        break;
    case DAT_IN:
        t->data_in = val;
        break;
    case DAT_OUT:
        t->data_out = val;
        break;
    case STS1:
    case STS1 + 1:
        t->sts1 &= ~((uint16_t)(val << 8 * (off - STS1)) & STS1_W1C);
        break;
    case STS2:
        t->sts2 &= ~(val & STS2_W1C);
        break;
    case CNT1:
    case CNT1 + 1: {
        /* Once locked, it stays locked and running. */
        uint16_t old = t->cnt1, bits = old & CNT1_LOCK ? CNT1_BITS & ~(CNT1_LOCK | CNT1_HALT) : CNT1_BITS;
        t->cnt1 = with_byte(old, off - CNT1, val, bits);
        if ((old ^ t->cnt1) & CNT1_HALT)
            tco_start(pm);
        break;
    }
    case CNT2:
        t->cnt2 = val & CNT2_BITS;
        break;
    case MESSAGE1:
    case MESSAGE2:
        t->message[off - MESSAGE1] = val;
        break;
    case WDCNT:
        t->wdcnt = val;
        break;
    case SW_IRQ:
        t->sw_irq = val & 3;
        break;
    case TMR:
    case TMR + 1:
        t->reload = with_byte(t->reload, off - TMR, val, 0x3ff);
        break;
    default:
        break;
    }
}
