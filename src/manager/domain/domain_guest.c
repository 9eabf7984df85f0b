/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the guest does with its own power, and how long its agent has.
 *
 * Spec      virDomainPMSuspendForDuration, virDomainPMWakeup, virDomainAgentSetResponseTimeout at
 *           9.0.0.
 * Thread    The loop thread; what asks the guest waits.
 */
#include "manager/domain/domain_priv.h"

/* By virNodeSuspendTarget. */
static const struct {
    const char *command;
    bool wakes; /* the machine must be able to sleep */
} ways[] = {
    {"guest-suspend-ram", true}, {"guest-suspend-disk", false}, {"guest-suspend-hybrid", true}};

static bool sleep_locked(struct domain *d, unsigned target, GError **error)
{
    struct vm *v = domain_machine(d, error);
    if (!v)
        return false;
    if (d->state != DOMAIN_RUNNING)
        return ruche_error(error, RUCHE_ERR_STATE, "domain '%s' is not running", d->name);
    if (ways[target].wakes && !vm_can_sleep(v, error))
        return false;
    g_autofree char *json = g_strdup_printf("{\"execute\":\"%s\"}", ways[target].command);
    return vm_agent_tell(v, json, error);
}

bool domain_pm_suspend(const struct caller *who, struct domain *d, unsigned target,
                       uint64_t duration_s, GError **error)
{
    if (target >= G_N_ELEMENTS(ways))
        return ruche_error(error, RUCHE_ERR_INVALID, "%u is no way to sleep", target);
    if (duration_s)
        return ruche_error(error, MANAGER_ERR_ARGUMENT,
                           "a guest cannot be told to sleep for %" G_GUINT64_FORMAT
                           " s, only until it is woken",
                           duration_s);
    if (!domain_allowed(who, d, RIGHT_CONTROL, "put to sleep", error) ||
        !domain_may(d, OP_LIVE, error) || !domain_lock(d, "put to sleep", error))
        return false;
    bool ok = sleep_locked(d, target, error);
    domain_unlock(d);
    domain_audit(who, "put to sleep", d->name, ok, error);
    return ok;
}

bool domain_pm_wakeup(const struct caller *who, struct domain *d, GError **error)
{
    if (!domain_allowed(who, d, RIGHT_CONTROL, "wake", error) || !domain_may(d, OP_LIVE, error) ||
        !domain_lock(d, "wake", error))
        return false;
    struct vm *v = domain_machine(d, error);
    bool ok = v && (d->state == DOMAIN_PMSUSPENDED ||
                    ruche_error(error, RUCHE_ERR_STATE, "domain '%s' does not sleep", d->name));
    ok = ok && vm_wakeup(v, error);
    domain_unlock(d);
    domain_audit(who, "wake", d->name, ok, error);
    return ok;
}

bool domain_set_agent_timeout(const struct caller *who, struct domain *d, int seconds,
                              GError **error)
{
    if (seconds < AGENT_BLOCK)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "a time of %d s for the guest agent is not from %d", seconds,
                           AGENT_BLOCK);
    if (!domain_allowed(who, d, RIGHT_WRITE, "set the agent's time of", error))
        return false;
    d->agent_timeout = seconds;
    domain_set_state(d, d->state, d->reason); /* it is to outlive us */
    return true;
}

/* ---- what it tells ---- */

void domain_guest_sleeps(struct domain *d, bool to_disk)
{
    if (d->state != DOMAIN_RUNNING)
        return;
    domain_set_state(d, DOMAIN_PMSUSPENDED, 0);
    domain_emit(d, LIFE_PMSUSPENDED, to_disk);
    domain_emit_id(d, to_disk ? DOMAIN_EVENT_PMSUSPEND_DISK : DOMAIN_EVENT_PMSUSPEND, 0, 0, NULL,
                   0);
}

void domain_guest_wakes(struct domain *d)
{
    if (d->state != DOMAIN_PMSUSPENDED)
        return;
    domain_set_state(d, DOMAIN_RUNNING, RUNNING_WAKEUP);
    domain_emit(d, LIFE_STARTED, STARTED_WAKEUP);
    domain_emit_id(d, DOMAIN_EVENT_PMWAKEUP, 0, 0, NULL, 0);
}
