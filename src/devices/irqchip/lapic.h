/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The local APICs' inside, shared by lapic.c (registers), lapic_ipi.c (messages), lapic_msr.c and
 * lapic_timer.c.
 *
 * Spec      Intel SDM volume 3, chapter 11 (APIC, xAPIC, x2APIC).
 * Thread    Registers are atomics: the owning vCPU writes them, any thread reads them and ORs into
 *           IRR, TMR and the pending errors. An order of sequentially consistent operations makes
 *           posting safe without a lock: a poster sets IRR, then reads TPR and ISR; the vCPU lowers
 *           TPR or ISR, then reads IRR; so at least one of them sees that the interrupt has become
 *           deliverable and signals. Timers have a leaf lock.
 */
#pragma once

#include "devices/irqchip/irqchip.h"

#define LAPIC_MAX_CPUS 64

/* Register numbers: MMIO offset / 16, MSR - 0x800. */
enum lapic_reg {
    LAPIC_ID = 0x02, LAPIC_VERSION = 0x03, LAPIC_TPR = 0x08, LAPIC_APR = 0x09, LAPIC_PPR = 0x0a,
    LAPIC_EOI = 0x0b, LAPIC_LDR = 0x0d, LAPIC_DFR = 0x0e, LAPIC_SVR = 0x0f, LAPIC_ISR = 0x10,
    LAPIC_TMR = 0x18, LAPIC_IRR = 0x20, LAPIC_ESR = 0x28, LAPIC_ICR = 0x30, LAPIC_ICR2 = 0x31,
    LAPIC_LVT_TIMER = 0x32, LAPIC_LVT_THERMAL = 0x33, LAPIC_LVT_PERF = 0x34, LAPIC_LVT_LINT0 = 0x35,
    LAPIC_LVT_LINT1 = 0x36, LAPIC_LVT_ERROR = 0x37, LAPIC_TICR = 0x38, LAPIC_TCCR = 0x39,
    LAPIC_TDCR = 0x3e, LAPIC_SELF_IPI = 0x3f, LAPIC_REGS = 0x40,
};

#define LAPIC_SVR_ENABLE 0x100u
#define LAPIC_LVT_MASKED 0x10000u
#define LAPIC_BASE_BSP (1u << 8)
#define LAPIC_BASE_X2APIC (1u << 10)
#define LAPIC_BASE_ENABLE (1u << 11)
#define LAPIC_BASE_ADDR 0xffffffffff000ULL

enum lapic_mode { LAPIC_FIXED, LAPIC_LOWEST, LAPIC_SMI, LAPIC_RESERVED_MODE, LAPIC_NMI, LAPIC_INIT,
                  LAPIC_SIPI, LAPIC_EXTINT };

enum lapic_error { LAPIC_ERR_SEND_VECTOR = 1u << 5, LAPIC_ERR_RECV_VECTOR = 1u << 6,
                   LAPIC_ERR_REGISTER = 1u << 7 };

/* One vCPU's timer. */
struct lapic_timer {
    struct lapic *apic;
    unsigned index;
    pthread_mutex_t lock;      /* guards next_ns and tsc_deadline of this vCPU; leaf */
    struct clock_timer timer;
    bool made;
};

struct lapic {
    struct device dev;
    unsigned count;                                      /* vCPUs */
    uint64_t base_known;                                 /* bits of IA32_APIC_BASE that there are */
    _Atomic uint32_t reg[LAPIC_MAX_CPUS][LAPIC_REGS];    /* ID is the full x2APIC id */
    _Atomic uint64_t base[LAPIC_MAX_CPUS];               /* IA32_APIC_BASE */
    _Atomic uint32_t esr_pending[LAPIC_MAX_CPUS];        /* errors since the last write of ESR */
    _Atomic uint8_t extint[LAPIC_MAX_CPUS];              /* an ExtINT message waits */
    int64_t next_ns[LAPIC_MAX_CPUS];                     /* end of the running countdown; 0: none */
    uint64_t tsc_deadline[LAPIC_MAX_CPUS];               /* IA32_TSC_DEADLINE */
    struct lapic_timer timer[LAPIC_MAX_CPUS];
    _Atomic int lint0;                                   /* level of the PIC's output */
    _Atomic unsigned rotate;                             /* where the next lowest-priority search begins */
    struct mem_region mmio;
    struct mem_region moved;                             /* a page elsewhere; hidden while no vCPU has it */
    _Atomic uint64_t moved_base;                         /* where it is; 0: nowhere */
    struct accel_apic ops;
    int (*pic_ack)(void *opaque);
    void *pic;
    void (*eoi)(void *opaque, uint8_t vector);
    void *eoi_opaque;
    uint64_t posted, coalesced, ipis, eois, timer_fired, errors;
};

/* One message on the bus between APICs. */
struct lapic_msg {
    uint32_t dest;
    bool logical, broadcast, level;
    enum lapic_mode mode;
    uint8_t vector;
};

static inline void lapic_count(uint64_t *counter)
{
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static inline bool lapic_is_x2(struct lapic *s, unsigned i)
{
    return s->base[i] & LAPIC_BASE_X2APIC;
}

/* Globally and software enabled: it takes interrupts. */
static inline bool lapic_is_on(struct lapic *s, unsigned i)
{
    return (s->base[i] & LAPIC_BASE_ENABLE) && (s->reg[i][LAPIC_SVR] & LAPIC_SVR_ENABLE);
}

/* lapic.c */
int lapic_highest(_Atomic uint32_t *words); /* highest vector of IRR or ISR, or -1 */
uint8_t lapic_ppr(struct lapic *s, unsigned i);
/* Sends VCPU_SIGNAL_INTR when something is deliverable now. */
void lapic_update(struct lapic *s, unsigned i);
/* An interrupt for this one APIC. Any thread. */
void lapic_post(struct lapic *s, unsigned i, uint8_t vector, bool level);
/* A local source fires: the LVT entry decides what happens. */
void lapic_local(struct lapic *s, unsigned i, enum lapic_reg lvt);
void lapic_error(struct lapic *s, unsigned i, uint32_t bits);
/* INIT: all but the id and the base. */
void lapic_init_regs(struct lapic *s, unsigned i);
void lapic_signal(struct lapic *s, unsigned i, enum vcpu_signal_kind kind, uint8_t vector);

/* False: there is no such register to read, to write. */
bool lapic_reg_read(struct lapic *s, unsigned i, unsigned reg, uint32_t *ret_val);
bool lapic_reg_write(struct lapic *s, unsigned i, unsigned reg, uint32_t val);
extern const uint32_t lapic_writable[LAPIC_REGS];

/* A vCPU's base address has changed: the page follows, one for all that have moved theirs. */
void lapic_place(struct lapic *s, unsigned i);

/* lapic_msr.c */
uint64_t lapic_known_base_bits(const struct machine *m);
int lapic_msr_read(void *opaque, unsigned i, uint32_t msr, uint64_t *ret_val);
int lapic_msr_write(void *opaque, unsigned i, uint32_t msr, uint64_t val);

/* lapic_ipi.c */
void lapic_send(struct lapic *s, const struct lapic_msg *msg);
void lapic_msi(void *opaque, uint64_t addr, uint32_t data);
void lapic_icr_written(struct lapic *s, unsigned i, uint32_t low, uint32_t dest);
void lapic_self_ipi(struct lapic *s, unsigned i, uint8_t vector);

/* lapic_timer.c */
bool lapic_timer_make(struct lapic *s, unsigned i);
bool lapic_timer_loaded(struct lapic *s, unsigned i, GError **error);
void lapic_timer_unmake(struct lapic *s, unsigned i);
void lapic_timer_stop(struct lapic *s, unsigned i);
void lapic_timer_set_count(struct lapic *s, unsigned i, uint32_t count);
void lapic_timer_set_divide(struct lapic *s, unsigned i, uint32_t dcr);
void lapic_timer_set_lvt(struct lapic *s, unsigned i, uint32_t lvt);
uint32_t lapic_timer_count(struct lapic *s, unsigned i);
void lapic_timer_set_deadline(struct lapic *s, unsigned i, uint64_t tsc);
uint64_t lapic_timer_deadline(struct lapic *s, unsigned i);
