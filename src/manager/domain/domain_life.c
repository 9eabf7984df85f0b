/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on what runs: start, stop, pause, and between.
 *
 * Thread    The loop thread; all here waits.
 * Killed    A start writes its status file ("starting") before there is a process, so that whoever
 * comes after us knows that there may be one.
 */
#include "manager/domain/domain_priv.h"

#include "base/log.h"

#include <signal.h>
#include <string.h>

#define DESTROY_PATIENCE_MS 2000 /* how long destroy lets another operation end by itself */

/* How every operation here begins; true: the lock is held until end(). */
static bool begin(const struct caller *who, struct domain *d, enum domain_op op,
                  const char *operation, GError **error)
{
    if (!domain_allowed(who, d, RIGHT_CONTROL, operation, error) || !domain_may(d, op, error) ||
        !domain_lock(d, operation, error))
        return false;
    if (domain_may(d, op, error) && (op == OP_START || domain_machine(d, error)))
        return true;
    domain_unlock(d);
    return false;
}

static bool end(const struct caller *who, struct domain *d, const char *operation, bool ok,
                GError **error)
{
    domain_unlock(d);
    domain_audit(who, operation, d->name, ok, error);
    return ok;
}

/* ---- start ---- */

/* What domain_run() made, taken back. */
static void run_back(struct domain *d)
{
    struct vm *v = d->vm;
    g_autoptr(GError) error = NULL;
    if (v && !vm_kill(v, false, &error))
        log_warn("domain '%s': %s", d->name, error->message);
    domain_set_vm(d, NULL);
    domain_remove_status(d);
    domain_set_id(d, -1);
    domain_drop_live(d);
    domain_set_state(d, DOMAIN_SHUTOFF, SHUTOFF_FAILED);
}

/* `saved`: a descriptor with its state, or how it goes without. */
enum { BOOTS = -1, WAITS = -2 };

static bool run_process(struct domain *d, bool paused, int saved, GError **error)
{
    struct domain_def *live = NULL;
    if (!domain_write_status(d, true, error))
        return false;
    struct vm *v = vm_start(d, saved != BOOTS, &live, error);
    if (!v)
        return false;
    domain_set_vm(d, v);
    if (live) {
        domain_def_unref(d->live);
        d->live = live;
    }
    if (saved >= 0 && !(vm_state_receive(v, saved, error) && domain_job_stream(d, NULL, error)))
        return false;
    if (saved == WAITS) {
        domain_set_state(d, DOMAIN_PAUSED, PAUSED_MIGRATION);
        return true;
    }
    domain_ports_settle(d, AGENT_STARTED);
    /* From the first instruction on the guest may do anything: what it does is to change this, and
     * not the other way round. */
    d->state = paused ? DOMAIN_PAUSED : DOMAIN_RUNNING;
    d->reason = paused ? PAUSED_USER : RUNNING_BOOTED;
    if (!paused && !vm_cont(v, error))
        return false;
    domain_def_shrink(d->live);
    domain_set_state(d, d->state, d->reason);
    return true;
}

static bool run(struct domain *d, struct domain_def *def, bool paused, int saved, GError **error)
{
    d->live = domain_def_ref(def);
    d->fake_reboot = d->agent = false;
    d->pause_reason = PAUSED_UNKNOWN;
    domain_set_id(d, domain_next_id());
    domain_set_state(d, DOMAIN_PAUSED, PAUSED_STARTING_UP);
    bool ok = run_process(d, paused, saved, error);
    if (!ok)
        run_back(d);
    return ok;
}

bool domain_run_saved(struct domain *d, struct domain_def *def, int fd, GError **error)
{
    return run(d, def, true, fd, error);
}

bool domain_run_incoming(struct domain *d, struct domain_def *def, GError **error)
{
    return run(d, def, true, WAITS, error);
}

bool domain_run(struct domain *d, struct domain_def *def, bool paused, GError **error)
{
    if (!run(d, def, paused, BOOTS, error))
        return false;
    domain_emit(d, LIFE_STARTED, STARTED_BOOTED);
    if (paused)
        domain_emit(d, LIFE_SUSPENDED, SUSPENDED_PAUSED);
    return true;
}

bool domain_start(const struct caller *who, struct domain *d, unsigned start_flags, GError **error)
{
    const unsigned known = START_PAUSED | START_AUTODESTROY | START_BYPASS_CACHE |
                           START_FORCE_BOOT | START_RESET_NVRAM;
    if (!domain_flags(start_flags, known, "start", error) ||
        !begin(who, d, OP_START, "start", error))
        return false;
    bool ok = d->managed_save ? domain_managed_save_start(d, start_flags, error)
                              : domain_run(d, d->def, start_flags & START_PAUSED, error);
    if (ok && (start_flags & START_AUTODESTROY))
        d->autodestroy = who;
    return end(who, d, "start", ok, error);
}

/* ---- pause ---- */

bool domain_suspend(const struct caller *who, struct domain *d, GError **error)
{
    bool ok = true;
    if (!begin(who, d, OP_SUSPEND, "suspend", error))
        return false;
    if (d->state != DOMAIN_PAUSED) {
        d->pause_reason = PAUSED_USER;
        ok = vm_stop(d->vm, error);
        if (ok &&
            d->state == DOMAIN_RUNNING) /* its event is still to come, and will find this done */
            domain_vm_event(d, VM_EV_STOPPED, 0, NULL, 0);
        d->pause_reason = PAUSED_UNKNOWN;
    }
    return end(who, d, "suspend", ok, error);
}

bool domain_cont(struct domain *d, GError **error)
{
    unsigned before = d->resumes;
    if (!vm_cont(d->vm, error))
        return false;
    if (d->state == DOMAIN_PAUSED && d->resumes == before) /* it ran already */
        domain_vm_event(d, VM_EV_RESUMED, 0, NULL, 0);
    return true;
}

bool domain_resume(const struct caller *who, struct domain *d, GError **error)
{
    if (!begin(who, d, OP_RESUME, "resume", error))
        return false;
    return end(who, d, "resume", domain_cont(d, error), error);
}

/* ---- shutdown, reboot ---- */

enum { WAY_ACPI = 1, WAY_AGENT = 2 };

static bool ask_agent(struct domain *d, const char *mode, GError **error)
{
    g_autofree char *json =
        g_strdup_printf("{\"execute\":\"guest-shutdown\",\"arguments\":{\"mode\":\"%s\"}}", mode);
    return vm_agent_tell(d->vm, json, error);
}

static bool press_button(struct domain *d, bool reboot, GError **error)
{
    d->fake_reboot = reboot;
    bool ok = vm_powerdown(d->vm, error);
    if (!ok)
        d->fake_reboot = false;
    domain_set_state(d, d->state, d->reason); /* what the button means is to outlive us */
    return ok;
}

/* By the agent where that is asked for or (no flags) where it is there; then by the button, where
 * that may be. */
static bool turn_off(struct domain *d, unsigned flags, bool reboot, GError **error)
{
    bool by_agent = flags ? flags & WAY_AGENT : d->agent, by_button = !flags || (flags & WAY_ACPI);
    if (reboot && d->live->s.on_reboot_destroy)
        reboot = false;
    if (by_agent && ask_agent(d, reboot ? "reboot" : "powerdown", by_button ? NULL : error))
        return true;
    return by_button && press_button(d, reboot, error);
}

static bool turn(const struct caller *who, struct domain *d, unsigned flags, bool reboot,
                 GError **error)
{
    const char *operation = reboot ? "reboot" : "shutdown";
    if (!domain_flags(flags, WAY_ACPI | WAY_AGENT, operation, error) ||
        !begin(who, d, reboot ? OP_REBOOT : OP_SHUTDOWN, operation, error))
        return false;
    return end(who, d, operation, turn_off(d, flags, reboot, error), error);
}

bool domain_shutdown(const struct caller *who, struct domain *d, unsigned shutdown_flags,
                     GError **error)
{
    return turn(who, d, shutdown_flags, false, error);
}

bool domain_reboot(const struct caller *who, struct domain *d, unsigned reboot_flags,
                   GError **error)
{
    return turn(who, d, reboot_flags, true, error);
}

bool domain_reset(const struct caller *who, struct domain *d, GError **error)
{
    if (!begin(who, d, OP_RESET, "reset", error))
        return false;
    bool ok = vm_reset(d->vm, error);
    if (ok && d->state == DOMAIN_CRASHED)
        domain_set_state(d, DOMAIN_PAUSED, PAUSED_CRASHED);
    return end(who, d, "reset", ok, error);
}

bool domain_inject_nmi(const struct caller *who, struct domain *d, GError **error)
{
    if (!begin(who, d, OP_NMI, "inject-nmi", error))
        return false;
    return end(who, d, "inject-nmi", vm_nmi(d->vm, error), error);
}

/* ---- destroy ---- */

enum { DESTROY_GRACEFUL = 1, DESTROY_REMOVE_LOGS = 2 };

/* The lock; from an operation that does not end by itself, by taking its machine away. */
static bool lock_to_destroy(struct domain *d, bool graceful, GError **error)
{
    if (domain_lock_within(d, "destroy", DESTROY_PATIENCE_MS, NULL))
        return true;
    if (d->vm)
        vm_signal(d->vm, graceful ? SIGTERM : SIGKILL);
    return domain_lock(d, "destroy", error);
}

bool domain_destroy(const struct caller *who, struct domain *d, unsigned destroy_flags,
                    GError **error)
{
    bool graceful = destroy_flags & DESTROY_GRACEFUL, ok = true;
    if (!domain_flags(destroy_flags, DESTROY_GRACEFUL | DESTROY_REMOVE_LOGS, "destroy", error) ||
        !domain_allowed(who, d, RIGHT_CONTROL, "destroy", error) ||
        !domain_may(d, OP_DESTROY, error) || !lock_to_destroy(d, graceful, error))
        return false;
    if (!domain_may(d, OP_DESTROY, error)) {
        domain_unlock(d);
        return false;
    }
    if (d->vm)
        ok = vm_kill(d->vm, graceful, error);
    if (ok)
        domain_over(d, SHUTOFF_DESTROYED, STOPPED_DESTROYED);
    return end(who, d, "destroy", ok, error);
}

static void autodestroy_one(void *opaque)
{
    auto_domain *d = opaque;
    g_autoptr(GError) error = NULL;
    if (!domain_destroy(&caller_self, d, 0, &error))
        log_warn("domain '%s' should end with its connection: %s", d->name, error->message);
}

void domain_autodestroy(const struct caller *who)
{
    g_autoptr(GPtrArray) list = NULL;
    const GPtrArray *all = domain_table();
    domain_migrate_forget(who);
    for (unsigned i = 0; i < all->len; i++) {
        struct domain *d = all->pdata[i];
        if (d->autodestroy != who)
            continue;
        if (!list)
            list = g_ptr_array_new();
        d->autodestroy = NULL;
        g_ptr_array_add(list, domain_ref(d));
    }
    for (unsigned i = 0; list && i < list->len; i++) /* which may change the table */
        task_start(autodestroy_one, list->pdata[i]);
}
