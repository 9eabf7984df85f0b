/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What may be done in which state, who may change a domain now, and how changes of state are told.
 *
 * Thread    The loop thread.
 */
#include "manager/domain/domain_priv.h"

#include "base/log.h"

#include <string.h>

#define LOCK_TIMEOUT_MS 30000

/* ---- the state machine ---- */

static const char *const op_names[OPS] = {
    [OP_START] = "start",
    [OP_SUSPEND] = "suspend",
    [OP_RESUME] = "resume",
    [OP_SHUTDOWN] = "shut down",
    [OP_REBOOT] = "reboot",
    [OP_RESET] = "reset",
    [OP_DESTROY] = "destroy",
    [OP_NMI] = "send an NMI to",
    [OP_SAVE] = "save",
    [OP_DUMP] = "dump",
    [OP_MIGRATE] = "migrate",
    [OP_LIVE] = "ask or change the machine of",
};

/* Where each operation may begin; an empty cell is refused. Where it leads is said by the machine
 * (domain_machine.c). */
static const bool may[DOMAIN_STATES][OPS] = {
    [DOMAIN_SHUTOFF] = {[OP_START] = true},
    [DOMAIN_RUNNING] = {[OP_SUSPEND] = true,
                        [OP_SHUTDOWN] = true,
                        [OP_REBOOT] = true,
                        [OP_RESET] = true,
                        [OP_DESTROY] = true,
                        [OP_NMI] = true,
                        [OP_SAVE] = true,
                        [OP_MIGRATE] = true,
                        [OP_DUMP] = true,
                        [OP_LIVE] = true},
    [DOMAIN_BLOCKED] = {[OP_SUSPEND] = true,
                        [OP_SHUTDOWN] = true,
                        [OP_REBOOT] = true,
                        [OP_RESET] = true,
                        [OP_DESTROY] = true,
                        [OP_NMI] = true,
                        [OP_SAVE] = true,
                        [OP_MIGRATE] = true,
                        [OP_DUMP] = true,
                        [OP_LIVE] = true},
    [DOMAIN_PAUSED] = {[OP_SUSPEND] = true,
                       [OP_RESUME] = true,
                       [OP_SHUTDOWN] = true,
                       [OP_REBOOT] = true,
                       [OP_RESET] = true,
                       [OP_DESTROY] = true,
                       [OP_NMI] = true,
                       [OP_SAVE] = true,
                       [OP_MIGRATE] = true,
                       [OP_DUMP] = true,
                       [OP_LIVE] = true},
    [DOMAIN_SHUTDOWN] = {[OP_SHUTDOWN] = true, [OP_DESTROY] = true, [OP_LIVE] = true},
    [DOMAIN_CRASHED] = {[OP_RESUME] = true,
                        [OP_RESET] = true,
                        [OP_DESTROY] = true,
                        [OP_DUMP] = true,
                        [OP_LIVE] = true},
    [DOMAIN_PMSUSPENDED] =
        {[OP_SHUTDOWN] = true, [OP_RESET] = true, [OP_DESTROY] = true, [OP_LIVE] = true},
};

static const char *const state_names[DOMAIN_STATES] = {
    [DOMAIN_NOSTATE] = "in no known state", [DOMAIN_RUNNING] = "already running",
    [DOMAIN_BLOCKED] = "already running",   [DOMAIN_PAUSED] = "paused",
    [DOMAIN_SHUTDOWN] = "being shut down",  [DOMAIN_SHUTOFF] = "not running",
    [DOMAIN_CRASHED] = "crashed",           [DOMAIN_PMSUSPENDED] = "pmsuspended",
};

bool domain_may(const struct domain *d, enum domain_op op, GError **error)
{
    return may[d->state][op] || ruche_error(error, RUCHE_ERR_STATE, "cannot %s '%s': domain is %s",
                                            op_names[op], d->name, state_names[d->state]);
}

bool domain_allowed(const struct caller *who, const struct domain *d, enum right right,
                    const char *operation, GError **error)
{
    if (access_has(who, right))
        return true; /* without making the sentence that only a refusal needs: queries come by the
                        thousand */
    g_autofree char *what = g_strdup_printf("%s domain '%s'", operation, d->name);
    return access_check(who, right, what, error);
}

bool domain_flags(unsigned flags, unsigned known, const char *operation, GError **error)
{
    return !(flags & ~known) ||
           ruche_error(error, MANAGER_ERR_ARGUMENT, "unsupported flags (0x%x) in %s",
                       flags & ~known, operation);
}

bool domain_affect(const struct domain *d, unsigned flags, unsigned others, unsigned *ret_affect,
                   GError **error)
{
    unsigned affect = flags & (AFFECT_LIVE | AFFECT_CONFIG);
    if (!domain_flags(flags, AFFECT_LIVE | AFFECT_CONFIG | others, "affect", error))
        return false;
    if (!affect)
        affect = domain_is_active(d) ? AFFECT_LIVE : AFFECT_CONFIG;
    if ((affect & AFFECT_LIVE) && !domain_is_active(d))
        return ruche_error(error, RUCHE_ERR_STATE,
                           "cannot change what runs of '%s': domain is not running", d->name);
    if ((affect & AFFECT_CONFIG) && !d->persistent)
        return ruche_error(
            error, RUCHE_ERR_STATE,
            "transient domains do not have any persistent configuration: '%s' is one", d->name);
    *ret_affect = affect;
    return true;
}

/* ---- the job lock ---- */

struct domain_waiter {
    struct task_event turn;
    const char *operation;
    struct domain_waiter *next;
};

static void hold(struct domain *d, const char *operation)
{
    d->job_holder = operation;
    d->job_since_us = g_get_monotonic_time();
}

static bool wait_turn(struct domain *d, const char *operation, int timeout_ms, GError **error)
{
    struct domain_waiter self = {.operation = operation}, **end = &d->job_queue;
    while (*end)
        end = &(*end)->next;
    *end = &self;
    if (task_event_wait(&self.turn, timeout_ms))
        return true; /* domain_unlock() took us out and made us the holder */
    for (end = &d->job_queue; *end != &self; end = &(*end)->next)
        ;
    *end = self.next;
    return ruche_error(error, MANAGER_ERR_LOCK_TIMEOUT,
                       "cannot %s domain '%s' now: '%s' has held it for %lld s", operation, d->name,
                       d->job_holder ? d->job_holder : "?",
                       (long long)(g_get_monotonic_time() - d->job_since_us) / G_USEC_PER_SEC);
}

bool domain_lock_within(struct domain *d, const char *operation, int timeout_ms, GError **error)
{
    if (d->job_holder && !wait_turn(d, operation, timeout_ms, error))
        return false;
    hold(d, operation);
    if (!d->removed)
        return true;
    domain_unlock(d);
    return ruche_error(error, MANAGER_ERR_NO_DOMAIN, "no domain with matching name '%s'", d->name);
}

bool domain_lock(struct domain *d, const char *operation, GError **error)
{
    return domain_lock_within(d, operation, LOCK_TIMEOUT_MS, error);
}

void domain_unlock(struct domain *d)
{
    struct domain_waiter *next = d->job_queue;
    d->job_holder = NULL;
    if (!next)
        return;
    d->job_queue = next->next;
    hold(d, next->operation); /* before it runs: nobody comes between */
    task_event_happen(&next->turn);
}

/* ---- the machine in use ---- */

static void use_unref(struct vm_use *u)
{
    if (--u->refs)
        return;
    vm_free(u->vm);
    g_free(u);
}

struct vm *domain_machine(struct domain *d, GError **error)
{
    if (!domain_may(d, OP_LIVE, error))
        return NULL;
    if (!d->vm)
        ruche_error(error, RUCHE_ERR_STATE, "the machine of '%s' is being started or found",
                    d->name);
    return d->vm;
}

struct vm_use *domain_use(struct domain *d, GError **error)
{
    if (!domain_machine(d, error))
        return NULL;
    d->use->refs++;
    return d->use;
}

void domain_use_end(struct vm_use *u)
{
    use_unref(u);
}

void domain_set_vm(struct domain *d, struct vm *v)
{
    g_clear_pointer(&d->use, use_unref);
    d->vm = v;
    if (!v)
        return;
    d->use = g_new0(struct vm_use, 1);
    d->use->vm = v;
    d->use->refs = 1;
}

void domain_drop_live(struct domain *d)
{
    if (!d->def)
        d->def = g_steal_pointer(&d->live);
    g_clear_pointer(&d->live, domain_def_unref);
}

/* ---- telling ---- */

void domain_audit(const struct caller *who, const char *operation, const char *name, bool ok,
                  GError *const *error)
{
    const GError unknown = {
        .domain = RUCHE_ERROR, .code = RUCHE_ERR_INTERNAL, .message = (char *)"not said"};
    g_autofree char *object = g_strdup_printf("domain '%s'", name);
    audit(who, operation, object, ok ? NULL : error && *error ? *error : &unknown);
}

void domain_emit_id(struct domain *d, int id, int event, int detail, const char *const text[4],
                    uint64_t number)
{
    struct event e = {
        .class = EVENT_DOMAIN,
        .id = id,
        .name = d->name,
        .uuid = d->uuid,
        .object_id = d->id,
        .event = event,
        .detail = detail,
        .number = number,
    };
    if (text)
        memcpy(e.text, text, sizeof(e.text));
    event_emit(&e);
}

void domain_emit_tunable(struct domain *d, struct param_list *l)
{
    event_emit(&(struct event){.class = EVENT_DOMAIN,
                               .id = DOMAIN_EVENT_TUNABLE,
                               .name = d->name,
                               .uuid = d->uuid,
                               .object_id = d->id,
                               .params = l});
    param_list_done(l);
}

void domain_emit(struct domain *d, enum lifecycle event, int detail)
{
    domain_emit_id(d, DOMAIN_EVENT_LIFECYCLE, event, detail, NULL, 0);
}

void domain_set_state(struct domain *d, enum domain_state state, int reason)
{
    g_autoptr(GError) error = NULL;
    d->state = state;
    d->reason = reason;
    if (d->vm && !domain_write_status(d, false, &error))
        log_warn("domain '%s': its state could not be written: %s", d->name, error->message);
}
