/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `ich9-lpc`: the LPC bridge at 00:1f.0. It places the PM block, routes the PCI interrupts, holds
 * the chipset configuration (RCBA), and has the APM ports and the reset register.
 *
 * Spec      Intel ICH9 datasheet 316972, chapters 10 and 13.
 * Thread    Config space: under the bus lock, then the device's. Ports and chipset configuration:
 *           any vCPU. PIRQs: any thread.
 * Locks     pirq_lock guards the levels and routes; it stands after device locks and before
 *           interrupt controllers.
 */
#include "devices/misc/ich9.h"
#include "devices/misc/ich9_pm.h"
#include "machine/chipset.h"
#include "devices/pci/pci.h"

#define CFG_PMBASE 0x40
#define CFG_ACPI_CNTL 0x44
#define CFG_GPIOBASE 0x48
#define CFG_GPIO_CNTL 0x4c
#define GPIO_CNTL_ENABLE 0x10
#define GPIO_BYTES 64 /* registers of pins that lead nowhere: they hold what is written */
#define CFG_PIRQ_A 0x60 /* A to D, E to H from 0x68 */
#define CFG_PIRQ_E 0x68
#define CFG_LPC_IO 0x80 /* decode ranges up to 0x93; storage only, as the devices are where they are */
#define CFG_LPC_IO_END 0x94
#define CFG_GEN_PMCON 0xa0
#define CFG_BIOS_CNTL 0xdc
#define CFG_RCBA 0xf0
#define ACPI_CNTL_ENABLE 0x80
#define RCBA_BYTES 0x4000
#define RCBA_GCS 0x3410
#define GCS_NO_REBOOT 0x20
#define N_PIRQS 8
#define PIRQ_OFF 0x80

struct ich9_lpc {
    struct pci_device pci;
    struct ich9_pm pm;
    struct mem_region apm_ports, reset_port, rcba, gpio_ports;
    uint8_t gpio[GPIO_BYTES];
    uint8_t apm_cnt, apm_sts, rst_cnt;
    uint32_t gcs;
    pthread_mutex_t pirq_lock;
    uint8_t pirq_level;            /* bit n: PIRQ n is up */
    uint8_t pirq_rout[N_PIRQS];    /* copy of the routing registers */
    bool made;
    bool noreboot;                 /* the strap: GCS begins with NO_REBOOT */
    uint8_t disable_s3, disable_s4;
};

static struct ich9_lpc *lpc_of(struct device *d)
{
    return container_of(d, struct ich9_lpc, pci.dev);
}

static unsigned rout_offset(unsigned pirq)
{
    return pirq < 4 ? CFG_PIRQ_A + pirq : CFG_PIRQ_E + pirq - 4;
}

/* --- interrupts --- */

/* An ISA interrupt is up while any PIRQ that is routed to it is. */
static void update_isa_irq_locked(struct ich9_lpc *s, uint8_t irq)
{
    /* Reserved in the datasheet: the timer, the keyboard, the cascade, the RTC and the FPU have no
     * PCI there. */
    const unsigned reserved = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 8 | 1 << 13;
    if (irq > 15 || (reserved >> irq & 1))
        return;
    int level = 0;
    for (unsigned n = 0; n < N_PIRQS; n++)
        level |= s->pirq_rout[n] == irq && (s->pirq_level >> n & 1);
    irq_set(&s->pci.dev.machine->gsi[irq], level);
}

void ich9_pci_set_irq(struct device *lpc, unsigned pirq, int level)
{
    struct ich9_lpc *s = lpc_of(lpc);
    if (pirq >= N_PIRQS)
        return;
    pthread_mutex_lock(&s->pirq_lock);
    uint8_t bit = 1u << pirq;
    s->pirq_level = level ? s->pirq_level | bit : s->pirq_level & ~bit;
    irq_set(&lpc->machine->gsi[ICH9_PIRQ_GSI + pirq], level);
    update_isa_irq_locked(s, s->pirq_rout[pirq]);
    pthread_mutex_unlock(&s->pirq_lock);
}

uint8_t ich9_pirq_irq(struct device *lpc, unsigned pirq)
{
    uint8_t rout = pirq < N_PIRQS ? lpc_of(lpc)->pci.config[rout_offset(pirq)] : PIRQ_OFF;
    return rout & PIRQ_OFF ? 0 : rout & 0x0f;
}

static void reroute(struct ich9_lpc *s)
{
    pthread_mutex_lock(&s->pirq_lock);
    for (unsigned n = 0; n < N_PIRQS; n++) {
        uint8_t old = s->pirq_rout[n], rout = s->pci.config[rout_offset(n)];
        s->pirq_rout[n] = rout & PIRQ_OFF ? PIRQ_OFF : rout & 0x0f;
        if (old != s->pirq_rout[n]) {
            update_isa_irq_locked(s, old);
            update_isa_irq_locked(s, s->pirq_rout[n]);
        }
    }
    pthread_mutex_unlock(&s->pirq_lock);
}

/* --- configuration space --- */

static void place_pm(struct ich9_lpc *s)
{
    uint16_t base = pci_get16(&s->pci, CFG_PMBASE) & 0xff80;
    if (!(s->pci.config[CFG_ACPI_CNTL] & ACPI_CNTL_ENABLE) || mem_region_move(&s->pm.ports, base))
        mem_region_hide(&s->pm.ports);
}

static void place_gpio(struct ich9_lpc *s)
{
    uint16_t base = pci_get16(&s->pci, CFG_GPIOBASE) & 0xff80;
    if (!(s->pci.config[CFG_GPIO_CNTL] & GPIO_CNTL_ENABLE) || mem_region_move(&s->gpio_ports, base))
        mem_region_hide(&s->gpio_ports);
}

/* SCI: 0 to 2 are IRQ 9 to 11, 4 and 5 are IRQ 20 and 21. */
static struct irq_line sci_line(const struct ich9_lpc *s)
{
    static const uint8_t gsi[8] = { 9, 10, 11, 9, 20, 21, 9, 9 };
    return s->pci.dev.machine->gsi[gsi[s->pci.config[CFG_ACPI_CNTL] & 7]];
}

static void place_sci(struct ich9_lpc *s)
{
    struct device *d = &s->pci.dev;
    pthread_mutex_lock(&d->lock);
    irq_set(&s->pm.sci, 0);
    s->pm.sci = sci_line(s);
    ich9_pm_update_sci(&s->pm);
    pthread_mutex_unlock(&d->lock);
}

static void place_rcba(struct ich9_lpc *s)
{
    uint32_t rcba = pci_get32(&s->pci, CFG_RCBA);
    if (!(rcba & 1) || mem_region_move(&s->rcba, rcba & ~(RCBA_BYTES - 1)))
        mem_region_hide(&s->rcba);
}

static bool touches(unsigned off, unsigned len, unsigned reg, unsigned reg_len)
{
    return off < reg + reg_len && reg < off + len;
}

static void lpc_config_written(struct pci_device *p, unsigned off, unsigned len, uint32_t val)
{
    struct ich9_lpc *s = container_of(p, struct ich9_lpc, pci);
    if (touches(off, len, CFG_PMBASE, 5))
        place_pm(s);
    if (touches(off, len, CFG_ACPI_CNTL, 1))
        place_sci(s);
    if (touches(off, len, CFG_GPIOBASE, 5))
        place_gpio(s);
    if (touches(off, len, CFG_PIRQ_A, 4) || touches(off, len, CFG_PIRQ_E, 4))
        reroute(s);
    if (touches(off, len, CFG_RCBA, 4))
        place_rcba(s);
}

static void init_config(struct pci_device *p)
{
    static const struct {
        uint8_t off, len;
        uint32_t writable;
    } regs[] = {
        { CFG_PMBASE, 4, 0xff80 },       { CFG_ACPI_CNTL, 1, 0x87 },  { CFG_GPIOBASE, 4, 0xff80 },
        { CFG_GPIO_CNTL, 1, 0x10 },      { CFG_PIRQ_A, 4, 0x8f8f8f8f }, { CFG_PIRQ_E, 4, 0x8f8f8f8f },
        { CFG_GEN_PMCON, 4, 0xff3f0fff }, { CFG_GEN_PMCON + 4, 2, 0xffff }, { CFG_BIOS_CNTL, 1, 0x1f },
        { CFG_RCBA, 4, 0xffffc001 },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(regs); i++)
        memcpy(p->writable + regs[i].off, &regs[i].writable, regs[i].len);
    memset(p->writable + CFG_LPC_IO, 0xff, CFG_LPC_IO_END - CFG_LPC_IO);
}

static void set_config(struct pci_device *p, unsigned off, unsigned len, uint32_t val)
{
    pci_bus_config_write(p->bus, 0, p->devfn, off, len, val);
}

void ich9_setup(struct device *lpc)
{
    struct ich9_lpc *s = lpc_of(lpc);
    struct mem_space *io = lpc->machine->io;
    static const uint8_t irq[N_PIRQS] = Q35_PIRQ_IRQS;
    set_config(&s->pci, CFG_PMBASE, 4, ICH9_PMBASE);
    set_config(&s->pci, CFG_ACPI_CNTL, 1, ACPI_CNTL_ENABLE);
    set_config(&s->pci, CFG_GPIOBASE, 4, ICH9_GPIOBASE);
    set_config(&s->pci, CFG_GPIO_CNTL, 1, GPIO_CNTL_ENABLE);
    set_config(&s->pci, CFG_RCBA, 4, ICH9_RCBA | 1);
    for (unsigned n = 0; n < N_PIRQS; n++)
        set_config(&s->pci, rout_offset(n), 1, irq[n]);
    /* IRQ 9, 10 and 11 are level-triggered. */
    mem_io_write(io, 0x4d1, mem_io_read(io, 0x4d1, 1) | 0x0e, 1);
}

/* --- ports and chipset configuration --- */

static uint64_t apm_read(void *opaque, uint64_t off, unsigned size)
{
    struct ich9_lpc *s = opaque;
    return off ? s->apm_sts : s->apm_cnt;
}

static void apm_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct ich9_lpc *s = opaque;
    if (off) {
        s->apm_sts = (uint8_t)val;
        return;
    }
    s->apm_cnt = (uint8_t)val;
    if (val == ICH9_ACPI_ENABLE || val == ICH9_ACPI_DISABLE)
        ich9_pm_set_acpi(&s->pm, val == ICH9_ACPI_ENABLE);
}

static uint64_t reset_read(void *opaque, uint64_t off, unsigned size)
{
    struct ich9_lpc *s = opaque;
    return s->rst_cnt;
}

static void reset_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct ich9_lpc *s = opaque;
    if (val & 4)
        machine_request(s->pci.dev.machine, MACHINE_REQ_RESET, 0);
    s->rst_cnt = val & 0x0a;
}

static uint64_t rcba_read(void *opaque, uint64_t off, unsigned size)
{
    struct ich9_lpc *s = opaque;
    switch (off) {
    case 0x3140 ... 0x3150: /* interrupt routes of the chipset's own devices: pins A to D are PIRQ A to D */
        return 0x32103210;
    case 0x3404: /* HPET decode: on, at 0xfed00000 */
        return 0x80;
    case RCBA_GCS:
        return s->gcs;
    default:
        return 0;
    }
}

static void rcba_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    struct ich9_lpc *s = opaque;
    if (off != RCBA_GCS)
        return;
    s->gcs = val & GCS_NO_REBOOT;
    s->pm.no_reboot = s->gcs & GCS_NO_REBOOT;
}

static uint64_t gpio_read(void *opaque, uint64_t off, unsigned size)
{
    uint32_t val = 0;
    memcpy(&val, ((struct ich9_lpc *)opaque)->gpio + off, size);
    return val;
}

static void gpio_write(void *opaque, uint64_t off, uint64_t val, unsigned size)
{
    memcpy(((struct ich9_lpc *)opaque)->gpio + off, &val, size);
}

static const struct mem_ops gpio_ops = { .read = gpio_read, .write = gpio_write, .min_size = 1, .max_size = 4 };
static const struct mem_ops apm_ops = { .read = apm_read, .write = apm_write, .min_size = 1, .max_size = 1 };
static const struct mem_ops reset_ops = { .read = reset_read, .write = reset_write, .min_size = 1, .max_size = 1 };
static const struct mem_ops rcba_ops = { .read = rcba_read, .write = rcba_write, .min_size = 4, .max_size = 4 };

/* --- life --- */

static void power_button(void *opaque, int n, int level)
{
    struct ich9_lpc *s = opaque;
    if (!level)
        return;
    pthread_mutex_lock(&s->pci.dev.lock);
    ich9_pm_power_button(&s->pm);
    pthread_mutex_unlock(&s->pci.dev.lock);
}

static void cpu_event(void *opaque, int n, int level)
{
    struct ich9_lpc *s = opaque;
    if (!level)
        return;
    pthread_mutex_lock(&s->pci.dev.lock);
    ich9_pm_gpe(&s->pm, ICH9_CPU_GPE);
    pthread_mutex_unlock(&s->pci.dev.lock);
}

static void lpc_reset(struct device *d)
{
    struct ich9_lpc *s = lpc_of(d);
    pci_device_reset(&s->pci);
    pci_set16(&s->pci, CFG_PMBASE, 1); /* an I/O range */
    pci_set16(&s->pci, CFG_GPIOBASE, 1);
    for (unsigned n = 0; n < N_PIRQS; n++)
        s->pci.config[rout_offset(n)] = PIRQ_OFF;
    reroute(s);
    place_pm(s);
    place_rcba(s);
    place_gpio(s);
    place_sci(s);
    pthread_mutex_lock(&d->lock);
    memset(s->gpio, 0, sizeof(s->gpio));
    s->apm_cnt = s->apm_sts = s->rst_cnt = 0;
    s->gcs = s->noreboot ? GCS_NO_REBOOT : 0;
    s->pm.no_reboot = s->noreboot;
    ich9_pm_reset(&s->pm);
    pthread_mutex_unlock(&d->lock);
}

/* Levels of PCI lines come from the functions themselves; those that are up already reach the routes as loaded. */
static bool lpc_loaded(struct device *d, GError **error)
{
    struct ich9_lpc *s = lpc_of(d);
    if (!ich9_pm_loaded(&s->pm, error))
        return false;
    s->pm.no_reboot = s->gcs & GCS_NO_REBOOT;
    reroute(s);
    place_pm(s);
    place_rcba(s);
    place_gpio(s);
    pthread_mutex_lock(&d->lock);
    s->pm.sci = sci_line(s);
    ich9_pm_update_sci(&s->pm);
    pthread_mutex_unlock(&d->lock);
    return true;
}

static int map_regions(struct ich9_lpc *s)
{
    struct device *d = &s->pci.dev;
    struct mem_space *io = d->machine->io, *memory = d->machine->memory;
    mem_region_init_io(&s->apm_ports, "ich9-apm", &apm_ops, s, 2, &d->lock);
    mem_region_init_io(&s->reset_port, "ich9-reset", &reset_ops, s, 1, &d->lock);
    mem_region_init_io(&s->rcba, "ich9-rcba", &rcba_ops, s, RCBA_BYTES, &d->lock);
    mem_region_init_io(&s->gpio_ports, "ich9-gpio", &gpio_ops, s, GPIO_BYTES, &d->lock);
    int r = mem_region_add(io, &s->apm_ports, ICH9_APM_CNT, 0);
    r = r ? r : mem_region_add(io, &s->reset_port, ICH9_RST_CNT, 1); /* over the middle of CF8 */
    r = r ? r : mem_region_add(io, &s->pm.ports, ICH9_PMBASE, 0);
    r = r ? r : mem_region_add(io, &s->gpio_ports, ICH9_GPIOBASE, 0);
    r = r ? r : mem_region_add(memory, &s->rcba, ICH9_RCBA, 0);
    return r;
}

static bool lpc_realize(struct device *d, GError **error)
{
    struct ich9_lpc *s = lpc_of(d);
    static const struct pci_ids ids = {
        .vendor = 0x8086, .device = 0x2918, .subsystem_vendor = 0x1af4, .subsystem = 0x1100,
        .revision = 2, .subclass = 0x01, .class_code = 0x06,
    };
    pthread_mutex_init(&s->pirq_lock, NULL);
    memset(s->pirq_rout, PIRQ_OFF, sizeof(s->pirq_rout));
    s->made = true;
    ich9_pm_init(&s->pm, d);
    if (!pci_device_init(&s->pci, &ids, error))
        return false;
    s->pci.config_written = lpc_config_written;
    init_config(&s->pci);
    mem_space_begin(d->machine->io);
    mem_space_begin(d->machine->memory);
    int r = map_regions(s);
    if (!r)
        lpc_reset(d);
    mem_space_end(d->machine->memory);
    mem_space_end(d->machine->io);
    if (r)
        return ruche_error_errno(error, -r, "ich9-lpc: cannot map its registers");
    d->machine->power_button = (struct irq_line){ .set = power_button, .opaque = s };
    d->machine->cpu_event = (struct irq_line){ .set = cpu_event, .opaque = s };
    return true;
}

static void lpc_unrealize(struct device *d)
{
    struct ich9_lpc *s = lpc_of(d);
    if (!s->made)
        return;
    if (d->machine->power_button.opaque == s)
        d->machine->power_button = d->machine->cpu_event = (struct irq_line){ 0 };
    mem_region_remove(&s->apm_ports);
    mem_region_remove(&s->reset_port);
    mem_region_remove(&s->rcba);
    mem_region_remove(&s->gpio_ports);
    ich9_pm_done(&s->pm);
    pci_device_done(&s->pci);
    pthread_mutex_destroy(&s->pirq_lock);
}

static const struct prop lpc_props[] = {
    PCI_PROPS(struct ich9_lpc),
    PROP_BOOL("noreboot", struct ich9_lpc, noreboot, .def = true,
              .help = "The watchdog does not reset until the guest clears NO_REBOOT"),
    PROP_U8("disable_s3", struct ich9_lpc, disable_s3, .def = 1, .help = "S3 is never offered"),
    PROP_U8("disable_s4", struct ich9_lpc, disable_s4, .def = 1, .help = "S4 is never offered"),
    { 0 },
};

#define PM_STATE(field, ...) STATE(struct ich9_lpc, pm.field, __VA_ARGS__)

static const struct state_field lpc_state[] = {
    PM_STATE(pm1_sts),
    PM_STATE(pm1_en),
    PM_STATE(pm1_cnt),
    PM_STATE(gpe_sts),
    PM_STATE(gpe_en),
    PM_STATE(smi_en),
    PM_STATE(smi_sts),
    PM_STATE(proc_cnt),
    PM_STATE(overflow_tick),
    PM_STATE(tco.sts1),
    PM_STATE(tco.sts2),
    PM_STATE(tco.cnt1),
    PM_STATE(tco.cnt2),
    PM_STATE(tco.reload, .max = 0x3ff),
    PM_STATE(tco.data_in),
    PM_STATE(tco.data_out),
    STATE_ARRAY(struct ich9_lpc, pm.tco.message),
    PM_STATE(tco.wdcnt),
    PM_STATE(tco.sw_irq, .max = 3),
    PM_STATE(tco.timed_out, .max = 1),
    PM_STATE(tco.expires_ns),
    STATE(struct ich9_lpc, apm_cnt),
    STATE(struct ich9_lpc, apm_sts),
    STATE(struct ich9_lpc, rst_cnt),
    STATE(struct ich9_lpc, gcs),
    STATE_ARRAY(struct ich9_lpc, gpio),
    STATE(struct ich9_lpc, pirq_level),
    { 0 },
};

static const struct device_counter lpc_counters[] = {
    { "sci_raised", offsetof(struct ich9_lpc, pm.sci_raised), "Times the SCI was found or made active" },
    { "watchdog_resets", offsetof(struct ich9_lpc, pm.watchdog_resets), "Resets by the TCO watchdog" },
    { 0 },
};

static const struct device_type lpc_type = {
    .name = "ich9-lpc", .aliases = (const char *const[]){ "ICH9-LPC", NULL },
    .summary = "LPC bridge with ACPI power management",
    .spec = "Intel ICH9 datasheet", .bus = BUS_PCI, .internal = true, .size = sizeof(struct ich9_lpc),
    .props = lpc_props, .state = lpc_state, .counters = lpc_counters, .realize = lpc_realize,
    .reset = lpc_reset, .load_after = lpc_loaded, .unrealize = lpc_unrealize,
};
DEVICE_TYPE(lpc_type);
