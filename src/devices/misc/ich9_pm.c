/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ACPI registers of the ICH9: PM1 event and control, PM timer, GPE0, SMI enable.
 *
 * Spec      See ich9_pm.h.
 * Thread    Registers: any vCPU. Timer: the main loop. All with the device's lock.
 * Trust     Registers are the guest's. The PM timer wakes the host at most every 2.3 seconds, and
 *           only if asked to.
 * SMM       There is none: no SMI is ever sent, and SMI_EN says that the APM port is taken care of,
 *           which keeps firmware from setting up its own handler.
 */
#include "devices/misc/ich9_pm.h"
#include "devices/misc/ich9.h"

#define PM_TIMER_HZ 3579545
#define OVERFLOW_TICKS (1u << 23)
#define TCO_BASE 0x60
#define SMI_STS 0x34
#define PROC_CNT 0x10

enum { PM1_TMR = 1 << 0, PM1_GBL = 1 << 5, PM1_PWRBTN = 1 << 8, PM1_RTC = 1 << 10, PM1_WAK = 1 << 15,
       PM1_STS_W1C = 0xcf31, PM1_EN_BITS = 0x4521 };
enum { CNT_SCI_EN = 1, CNT_BM_RLD = 2, CNT_SLP_TYP = 0x1c00, CNT_SLP_EN = 1 << 13 };
#define SMI_EN_APMC 0x20u
#define SMI_EN_BITS 0x6203fu

static uint64_t ticks_now(struct ich9_pm *pm)
{
    int64_t now = clock_now_ns(&pm->dev->machine->clock);
    return (uint64_t)((unsigned __int128)now * PM_TIMER_HZ / NS_PER_SEC);
}

static int64_t tick_time_ns(uint64_t tick)
{
    return (int64_t)(((unsigned __int128)tick * NS_PER_SEC + PM_TIMER_HZ - 1) / PM_TIMER_HZ);
}

static void next_overflow(struct ich9_pm *pm)
{
    pm->overflow_tick = (ticks_now(pm) + OVERFLOW_TICKS) & ~(uint64_t)(OVERFLOW_TICKS - 1);
}

/* The timer's status appears by itself; the host's timer is only needed for its interrupt. */
static void latch_overflow(struct ich9_pm *pm)
{
    if (ticks_now(pm) >= pm->overflow_tick)
        pm->pm1_sts |= PM1_TMR;
}

void ich9_pm_update_sci(struct ich9_pm *pm)
{
    latch_overflow(pm);
    bool wanted = (pm->pm1_sts & pm->pm1_en & PM1_EN_BITS) || (pm->gpe_sts & pm->gpe_en);
    bool level = wanted && (pm->pm1_cnt & CNT_SCI_EN);
    pm->sci_raised += level;
    irq_set(&pm->sci, level);
    if ((pm->pm1_en & PM1_TMR) && !(pm->pm1_sts & PM1_TMR))
        clock_timer_arm(&pm->timer, tick_time_ns(pm->overflow_tick));
    else
        clock_timer_cancel(&pm->timer);
}

static void overflow_fired(void *opaque)
{
    struct ich9_pm *pm = opaque;
    pthread_mutex_lock(&pm->dev->lock);
    ich9_pm_update_sci(pm);
    pthread_mutex_unlock(&pm->dev->lock);
}

void ich9_pm_set_acpi(struct ich9_pm *pm, bool on)
{
    pm->pm1_cnt = on ? pm->pm1_cnt | CNT_SCI_EN : pm->pm1_cnt & ~CNT_SCI_EN;
    ich9_pm_update_sci(pm);
}

void ich9_pm_gpe(struct ich9_pm *pm, unsigned n)
{
    pm->gpe_sts |= 1ULL << n;
    ich9_pm_update_sci(pm);
}

void ich9_pm_power_button(struct ich9_pm *pm)
{
    pm->pm1_sts |= PM1_PWRBTN;
    ich9_pm_update_sci(pm);
}

/* --- registers, as aligned dwords with a mask of the bytes that are written --- */

static void event_written(struct ich9_pm *pm, uint32_t val, uint32_t mask)
{
    uint16_t clear = val & mask & PM1_STS_W1C;
    latch_overflow(pm);
    pm->pm1_sts &= ~clear;
    if (clear & PM1_TMR)
        next_overflow(pm);
    pm->pm1_en = ((pm->pm1_en & ~(mask >> 16)) | (val & mask) >> 16) & PM1_EN_BITS;
}

static void control_written(struct ich9_pm *pm, uint32_t val, uint32_t mask)
{
    pm->pm1_cnt = ((pm->pm1_cnt & ~mask) | (val & mask)) & (CNT_SCI_EN | CNT_BM_RLD | CNT_SLP_TYP);
    if (!(val & mask & CNT_SLP_EN))
        return;
    if ((pm->pm1_cnt & CNT_SLP_TYP) >> 10 == ICH9_SLP_TYP_S5)
        machine_request(pm->dev->machine, MACHINE_REQ_POWEROFF, 0);
    else /* no sleeping state but off: as if woken at once */
        pm->pm1_sts |= PM1_WAK;
}

static void merge32(uint32_t *reg, uint32_t val, uint32_t mask)
{
    *reg = (*reg & ~mask) | (val & mask);
}

static void dword_write(struct ich9_pm *pm, unsigned off, uint32_t val, uint32_t mask)
{
    switch (off) {
    case ICH9_PM1_EVT:
        event_written(pm, val, mask);
        break;
    case ICH9_PM1_CNT:
        control_written(pm, val, mask);
        break;
    case PROC_CNT:
        merge32(&pm->proc_cnt, val, mask & 0x3f);
        break;
    case ICH9_GPE0:
        pm->gpe_sts &= ~(uint64_t)(val & mask);
        break;
    case ICH9_GPE0 + 4:
        pm->gpe_sts &= ~((uint64_t)(val & mask) << 32);
        break;
    case ICH9_GPE0 + 8:
        pm->gpe_en = (pm->gpe_en & ~(uint64_t)mask) | (val & mask);
        break;
    case ICH9_GPE0 + 12:
        pm->gpe_en = (pm->gpe_en & ~((uint64_t)mask << 32)) | (uint64_t)(val & mask) << 32;
        break;
    case ICH9_SMI_EN:
        merge32(&pm->smi_en, val, mask & SMI_EN_BITS & ~SMI_EN_APMC);
        break;
    case SMI_STS:
        pm->smi_sts &= ~(val & mask);
        break;
    default: /* the PM timer is read-only, the rest not there */
        break;
    }
    ich9_pm_update_sci(pm);
}

static uint32_t dword_read(struct ich9_pm *pm, unsigned off)
{
    switch (off) {
    case ICH9_PM1_EVT:
        latch_overflow(pm);
        return pm->pm1_sts | (uint32_t)pm->pm1_en << 16;
    case ICH9_PM1_CNT:
        return pm->pm1_cnt;
    case ICH9_PM_TMR:
        return ticks_now(pm) & 0xffffff;
    case PROC_CNT:
        return pm->proc_cnt;
    case ICH9_GPE0:
        return (uint32_t)pm->gpe_sts;
    case ICH9_GPE0 + 4:
        return pm->gpe_sts >> 32;
    case ICH9_GPE0 + 8:
        return (uint32_t)pm->gpe_en;
    case ICH9_GPE0 + 12:
        return pm->gpe_en >> 32;
    case ICH9_SMI_EN:
        return pm->smi_en;
    case SMI_STS:
        return pm->smi_sts;
    default:
        return 0;
    }
}

static uint64_t pm_read(void *opaque, uint64_t off, unsigned size)
{
    struct ich9_pm *pm = opaque;
    if (off == ICH9_PM_TMR) /* read very often */
        return ticks_now(pm) & 0xffffff;
    uint64_t val = 0;
    for (unsigned i = 0; i < size; i++) {
        unsigned at = (unsigned)off + i;
        uint8_t byte = at >= TCO_BASE ? ich9_tco_read(pm, at - TCO_BASE)
                                      : (uint8_t)(dword_read(pm, at & ~3u) >> 8 * (at & 3));
        val |= (uint64_t)byte << 8 * i;
    }
    return val;
}

static void pm_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct ich9_pm *pm = opaque;
    for (unsigned i = 0; i < size;) {
        unsigned at = (unsigned)off + i;
        if (at >= TCO_BASE) {
            ich9_tco_write(pm, at - TCO_BASE, (uint8_t)(val >> 8 * i++));
            continue;
        }
        /* What of the access lies in this dword. */
        unsigned shift = 8 * (at & 3), bytes = (unsigned)min_u64(size - i, 4 - (at & 3));
        uint32_t mask = (uint32_t)((1ULL << 8 * bytes) - 1) << shift;
        dword_write(pm, at & ~3u, (uint32_t)(val >> 8 * i) << shift, mask);
        i += bytes;
    }
}

static const struct mem_ops pm_ops = { .read = pm_read, .write = pm_write, .min_size = 1, .max_size = 4 };

/* --- life --- */

void ich9_pm_init(struct ich9_pm *pm, struct device *d)
{
    pm->dev = d;
    mem_region_init_io(&pm->ports, "ich9-pm", &pm_ops, pm, ICH9_PM_BYTES, &d->lock);
    clock_timer_init(&d->machine->clock, d->loop, &pm->timer, overflow_fired, pm);
    clock_timer_init(&d->machine->clock, d->loop, &pm->tco_timer, ich9_tco_fired, pm);
}

void ich9_pm_done(struct ich9_pm *pm)
{
    if (!pm->dev)
        return;
    mem_region_remove(&pm->ports);
    clock_timer_done(&pm->timer);
    clock_timer_done(&pm->tco_timer);
}

void ich9_pm_reset(struct ich9_pm *pm)
{
    pm->pm1_sts = pm->pm1_en = pm->pm1_cnt = 0;
    pm->gpe_sts = pm->gpe_en = 0;
    pm->smi_en = SMI_EN_APMC;
    pm->smi_sts = pm->proc_cnt = 0;
    next_overflow(pm);
    ich9_tco_reset(pm);
    ich9_pm_update_sci(pm);
}

bool ich9_pm_loaded(struct ich9_pm *pm, GError **error)
{
    uint64_t limit = ticks_now(pm) + 2 * OVERFLOW_TICKS;
    if (pm->overflow_tick > limit)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "state of device 'ich9-lpc': field 'pm.overflow_tick' is 0x%" G_GINT64_MODIFIER
                           "x, and can be at most 0x%" G_GINT64_MODIFIER "x", pm->overflow_tick, limit);
    return ich9_tco_loaded(pm, error);
}
