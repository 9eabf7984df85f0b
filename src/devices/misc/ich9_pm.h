/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The power management block of the ICH9: PM1, PM timer, GPE0, SMI registers and TCO watchdog
 * behind PMBASE.
 *
 * Spec      ICH9 datasheet 316972, sections 13.8 (power management) and 13.9 (TCO); ACPI 6.4,
 *           section 4.8.
 * Owner     Embedded in ich9-lpc; the lock is that of the device.
 */
#pragma once

#include "machine/machine.h"

#define ICH9_PM_BYTES 128

struct ich9_tco {
    uint16_t sts1, sts2, cnt1, cnt2, reload;
    uint8_t data_in, data_out, message[2], wdcnt, sw_irq;
    uint8_t timed_out;      /* the first expiry is past */
    int64_t expires_ns;     /* 0: halted */
};

struct ich9_pm {
    struct device *dev;
    struct mem_region ports;
    struct clock_timer timer;      /* PM timer's overflow */
    struct clock_timer tco_timer;
    struct irq_line sci;
    uint16_t pm1_sts, pm1_en, pm1_cnt;
    uint64_t gpe_sts, gpe_en;
    uint32_t smi_en, smi_sts, proc_cnt;
    uint64_t overflow_tick;        /* when bit 23 of the PM timer changes next after TMR_STS was cleared */
    struct ich9_tco tco;
    bool no_reboot;                /* GCS: an expired watchdog does not reset */
    uint64_t sci_raised, watchdog_resets;
};

void ich9_pm_init(struct ich9_pm *pm, struct device *d);
void ich9_pm_done(struct ich9_pm *pm);
void ich9_pm_reset(struct ich9_pm *pm);
/* Its fields were loaded. */
bool ich9_pm_loaded(struct ich9_pm *pm, GError **error);
/* With the device's lock held. */
void ich9_pm_set_acpi(struct ich9_pm *pm, bool on);
void ich9_pm_power_button(struct ich9_pm *pm);
void ich9_pm_gpe(struct ich9_pm *pm, unsigned n); /* a general-purpose event */
void ich9_pm_update_sci(struct ich9_pm *pm);
/* ich9_tco.c: offsets from TCOBASE (PMBASE + 0x60), one byte at a time. */
uint8_t ich9_tco_read(struct ich9_pm *pm, unsigned off);
void ich9_tco_write(struct ich9_pm *pm, unsigned off, uint8_t val);
bool ich9_tco_loaded(struct ich9_pm *pm, GError **error);
void ich9_tco_fired(void *opaque);
void ich9_tco_reset(struct ich9_pm *pm);
