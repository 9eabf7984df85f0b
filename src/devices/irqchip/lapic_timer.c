/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The local APIC's timer: one-shot, periodic and TSC deadline, on the machine's clock.
 *
 * Spec      Intel SDM volume 3, section 11.5.4. The bus clock is 1 GHz, as KVM's, so that one
 *           undivided tick is one nanosecond.
 * Thread    Register writes: the vCPU. Expiry: the main loop. Both under the timer's leaf lock.
 * Trust     A periodic timer runs at MIN_PERIOD_NS at the fastest, and what was missed is not made
 *           up for.
 */
#include "devices/irqchip/lapic.h"

#define MIN_PERIOD_NS (100 * NS_PER_US)
#define MAX_DELAY_NS (INT64_MAX / 4)

enum { PERIODIC = 1, DEADLINE = 2 }; /* 0: one-shot */

static unsigned timer_mode(struct lapic *s, unsigned i)
{
    return s->reg[i][LAPIC_LVT_TIMER] >> 17 & 3;
}

static bool is_masked(struct lapic *s, unsigned i)
{
    return s->reg[i][LAPIC_LVT_TIMER] & LAPIC_LVT_MASKED;
}

/* Bits 0, 1 and 3 of the register: 0 is by 2, 6 by 128, 7 by 1. */
static unsigned divide_shift(uint32_t dcr)
{
    return (((dcr & 3) | (dcr >> 1 & 4)) + 1) & 7;
}

static int64_t period_ns(struct lapic *s, unsigned i)
{
    int64_t ns = (int64_t)s->reg[i][LAPIC_TICR] << divide_shift(s->reg[i][LAPIC_TDCR]);
    return ns < MIN_PERIOD_NS ? MIN_PERIOD_NS : ns;
}

/* Moves a periodic countdown that has ended to the one that runs now. */
static void catch_up_locked(struct lapic *s, unsigned i, int64_t now)
{
    if (s->next_ns[i] && s->next_ns[i] <= now && timer_mode(s, i) == PERIODIC) {
        int64_t period = period_ns(s, i);
        s->next_ns[i] += period * (1 + (now - s->next_ns[i]) / period);
    }
}

/* The host's timer runs only when its end would be seen. */
static void arm_locked(struct lapic *s, unsigned i)
{
    if (s->next_ns[i] && !is_masked(s, i))
        clock_timer_arm(&s->timer[i].timer, s->next_ns[i]);
    else
        clock_timer_cancel(&s->timer[i].timer);
}

/* Ends the countdown if it is due. Also called where a deadline is set that has already passed. */
static void expire(void *opaque)
{
    struct lapic_timer *t = opaque;
    struct lapic *s = t->apic;
    unsigned i = t->index;

    pthread_mutex_lock(&t->lock);
    int64_t now = clock_now_ns(&s->dev.machine->clock);
    bool due = s->next_ns[i] && s->next_ns[i] <= now && !is_masked(s, i);
    if (due) {
        if (timer_mode(s, i) == PERIODIC)
            catch_up_locked(s, i, now);
        else
            s->next_ns[i] = 0;
        s->tsc_deadline[i] = 0;
    }
    arm_locked(s, i);
    pthread_mutex_unlock(&t->lock);
    if (due) {
        lapic_count(&s->timer_fired);
        lapic_local(s, i, LAPIC_LVT_TIMER);
    }
}

bool lapic_timer_make(struct lapic *s, unsigned i)
{
    struct lapic_timer *t = &s->timer[i];
    t->apic = s;
    t->index = i;
    pthread_mutex_init(&t->lock, NULL);
    clock_timer_init(&s->dev.machine->clock, s->dev.loop, &t->timer, expire, t);
    t->made = true;
    return true;
}

/* A state is loaded with the clock at its time. */
bool lapic_timer_loaded(struct lapic *s, unsigned i, GError **error)
{
    if (s->next_ns[i] < 0 || s->next_ns[i] > CLOCK_MAX_NS + MAX_DELAY_NS)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "state of device 'lapic': the timer of vCPU %u ends at %" G_GINT64_FORMAT
                           " ns, and can end from 0 to %" G_GINT64_FORMAT, i, s->next_ns[i],
                           (int64_t)(CLOCK_MAX_NS + MAX_DELAY_NS));
    pthread_mutex_lock(&s->timer[i].lock);
    arm_locked(s, i);
    pthread_mutex_unlock(&s->timer[i].lock);
    return true;
}

void lapic_timer_unmake(struct lapic *s, unsigned i)
{
    struct lapic_timer *t = &s->timer[i];
    if (!t->made)
        return;
    clock_timer_done(&t->timer);
    pthread_mutex_destroy(&t->lock);
    t->made = false;
}

void lapic_timer_stop(struct lapic *s, unsigned i)
{
    pthread_mutex_lock(&s->timer[i].lock);
    s->next_ns[i] = 0;
    s->tsc_deadline[i] = 0;
    clock_timer_cancel(&s->timer[i].timer);
    pthread_mutex_unlock(&s->timer[i].lock);
}

void lapic_timer_set_count(struct lapic *s, unsigned i, uint32_t count)
{
    pthread_mutex_lock(&s->timer[i].lock);
    if (timer_mode(s, i) != DEADLINE) {
        s->reg[i][LAPIC_TICR] = count;
        int64_t ns = (int64_t)count << divide_shift(s->reg[i][LAPIC_TDCR]);
        if (timer_mode(s, i) == PERIODIC)
            ns = period_ns(s, i);
        s->next_ns[i] = count ? clock_now_ns(&s->dev.machine->clock) + ns : 0;
        arm_locked(s, i);
    }
    pthread_mutex_unlock(&s->timer[i].lock);
}

static uint32_t count_locked(struct lapic *s, unsigned i)
{
    int64_t now = clock_now_ns(&s->dev.machine->clock);
    catch_up_locked(s, i, now);
    if (!s->next_ns[i] || s->next_ns[i] <= now || timer_mode(s, i) == DEADLINE)
        return 0;
    uint64_t left = (uint64_t)(s->next_ns[i] - now) >> divide_shift(s->reg[i][LAPIC_TDCR]);
    return (uint32_t)min_u64(left, s->reg[i][LAPIC_TICR]);
}

uint32_t lapic_timer_count(struct lapic *s, unsigned i)
{
    pthread_mutex_lock(&s->timer[i].lock);
    uint32_t count = count_locked(s, i);
    pthread_mutex_unlock(&s->timer[i].lock);
    return count;
}

/* The count goes on from where it is, at the new rate. */
void lapic_timer_set_divide(struct lapic *s, unsigned i, uint32_t dcr)
{
    pthread_mutex_lock(&s->timer[i].lock);
    uint32_t left = count_locked(s, i);
    s->reg[i][LAPIC_TDCR] = dcr & 0xb;
    if (left && timer_mode(s, i) != DEADLINE) {
        s->next_ns[i] = clock_now_ns(&s->dev.machine->clock) + ((int64_t)left << divide_shift(dcr));
        arm_locked(s, i);
    }
    pthread_mutex_unlock(&s->timer[i].lock);
}

/* Going to or from the deadline mode disarms. A countdown that is due counts with the entry as it
 * was: unmasked it still interrupts, masked it is over, and neither unmasking nor periodic mode
 * brings it back. */
void lapic_timer_set_lvt(struct lapic *s, unsigned i, uint32_t lvt)
{
    expire(&s->timer[i]);
    pthread_mutex_lock(&s->timer[i].lock);
    int64_t now = clock_now_ns(&s->dev.machine->clock);
    catch_up_locked(s, i, now);
    bool was_deadline = timer_mode(s, i) == DEADLINE, over = is_masked(s, i) && s->next_ns[i] <= now;
    s->reg[i][LAPIC_LVT_TIMER] = lvt;
    if (over || was_deadline != (timer_mode(s, i) == DEADLINE)) {
        s->next_ns[i] = 0;
        s->tsc_deadline[i] = 0;
    }
    arm_locked(s, i);
    pthread_mutex_unlock(&s->timer[i].lock);
}

void lapic_timer_set_deadline(struct lapic *s, unsigned i, uint64_t tsc)
{
    struct machine *m = s->dev.machine;
    if (timer_mode(s, i) != DEADLINE || !m->accel->ops->vcpu_tsc)
        return;
    uint64_t khz = 0, now_tsc = m->accel->ops->vcpu_tsc(m->vcpus[i], &khz);
    int64_t delay_ns = 0;
    if (tsc > now_tsc && khz) {
        /* Rounded up: never before the guest's TSC says so. */
        unsigned __int128 ns = ((unsigned __int128)(tsc - now_tsc) * 1000000u + khz - 1) / khz;
        delay_ns = ns > MAX_DELAY_NS ? MAX_DELAY_NS : (int64_t)ns;
    }
    pthread_mutex_lock(&s->timer[i].lock);
    s->tsc_deadline[i] = tsc;
    s->next_ns[i] = tsc ? clock_now_ns(&m->clock) + delay_ns : 0;
    bool passed = tsc && !delay_ns;
    if (!passed)
        arm_locked(s, i);
    pthread_mutex_unlock(&s->timer[i].lock);
    if (passed)
        expire(&s->timer[i]);
}

uint64_t lapic_timer_deadline(struct lapic *s, unsigned i)
{
    pthread_mutex_lock(&s->timer[i].lock);
    uint64_t tsc = s->tsc_deadline[i];
    pthread_mutex_unlock(&s->timer[i].lock);
    return tsc;
}
