/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files domain*.c share: the table's inside, the job lock, changes of state, files.
 *
 * Thread    The loop thread.
 */
#pragma once

#include "manager/domain/domain.h"
#include "manager/domain/vm.h"
#include "manager/store.h"

/* libvirt's numbers that are used here; reasons and details are of their state or event. */
enum { RUNNING_BOOTED = 1, RUNNING_UNPAUSED = 5 };
enum { PAUSED_UNKNOWN = 0, PAUSED_USER = 1, PAUSED_IOERROR = 5, PAUSED_WATCHDOG = 6, PAUSED_CRASHED = 10, PAUSED_STARTING_UP = 11 };
enum { SHUTDOWN_UNKNOWN = 0, SHUTDOWN_USER = 1 };
enum { SHUTOFF_UNKNOWN = 0, SHUTOFF_SHUTDOWN = 1, SHUTOFF_DESTROYED = 2, SHUTOFF_CRASHED = 3, SHUTOFF_FAILED = 6 };
enum { CRASHED_PANICKED = 1 };
enum lifecycle {
    LIFE_DEFINED, LIFE_UNDEFINED, LIFE_STARTED, LIFE_SUSPENDED, LIFE_RESUMED, LIFE_STOPPED, LIFE_SHUTDOWN,
    LIFE_PMSUSPENDED, LIFE_CRASHED
};
enum { DEFINED_ADDED, DEFINED_UPDATED, DEFINED_RENAMED };
enum { UNDEFINED_REMOVED, UNDEFINED_RENAMED };
enum { STARTED_BOOTED };
enum { SUSPENDED_PAUSED = 0, SUSPENDED_IOERROR = 2, SUSPENDED_WATCHDOG = 3 };
enum { RESUMED_UNPAUSED };
enum { STOPPED_SHUTDOWN = 0, STOPPED_DESTROYED = 1, STOPPED_CRASHED = 2, STOPPED_FAILED = 5 };
enum { SHUTDOWN_GUEST = 1, SHUTDOWN_HOST = 2 };
enum { AFFECT_LIVE = 1, AFFECT_CONFIG = 2 };
enum { START_PAUSED = 1, START_AUTODESTROY = 2, START_BYPASS_CACHE = 4, START_FORCE_BOOT = 8, START_VALIDATE = 16, START_RESET_NVRAM = 32 };

/* ---- the table: domain_table.c ---- */
struct domain *domain_new(const char *name, const uint8_t uuid[16]);
bool domain_table_add(struct domain *d); /* false: name or UUID is taken */
void domain_table_remove(struct domain *d);
void domain_table_rename(struct domain *d, const char *name);
void domain_set_id(struct domain *d, int id); /* -1: none */
int domain_next_id(void);
struct domain *domain_peek_name(const char *name); /* also unborn ones; borrowed */
struct domain *domain_peek_uuid(const uint8_t uuid[16]);
const GPtrArray *domain_table(void); /* sorted by name; borrowed until the next wait */

static inline void domain_auto_unref(struct domain **d)
{
    domain_unref(*d);
}
#define auto_domain __attribute__((cleanup(domain_auto_unref))) struct domain

/* ---- operations, the job lock, states: domain_state.c ---- */
enum domain_op {
    OP_START, OP_SUSPEND, OP_RESUME, OP_SHUTDOWN, OP_REBOOT, OP_RESET, OP_DESTROY, OP_NMI, OP_LIVE /* asks or changes the machine */, OPS
};
/* May this be done in the state it is in? Else RUCHE_ERR_STATE, with both names. */
bool domain_may(const struct domain *d, enum domain_op op, GError **error);
/* Right, then nothing else: "start domain 'web'" is what a refusal names. */
bool domain_allowed(const struct caller *who, const struct domain *d, enum right right, const char *operation, GError **error);
bool domain_flags(unsigned flags, unsigned known, const char *operation, GError **error);
/* The job lock; fails when it is held too long, or the domain was removed meanwhile. */
bool domain_lock(struct domain *d, const char *operation, GError **error);
bool domain_lock_within(struct domain *d, const char *operation, int timeout_ms, GError **error);
void domain_unlock(struct domain *d);
/* Into the audit log; *error says why not. */
void domain_audit(const struct caller *who, const char *operation, const char *name, bool ok, GError *const *error);
/* What ran is forgotten; of a transient domain it stays as its description, for those who still hold it. */
void domain_drop_live(struct domain *d);
/* State in memory and in the status file. */
void domain_set_state(struct domain *d, enum domain_state state, int reason);
void domain_emit(struct domain *d, enum lifecycle event, int detail);
void domain_emit_id(struct domain *d, int id, int event, int detail, const char *const text[4], uint64_t number);
/* 0 becomes AFFECT_LIVE or AFFECT_CONFIG; what cannot be affected is refused. Allows flags in `others`. */
bool domain_affect(const struct domain *d, unsigned flags, unsigned others, unsigned *ret_affect, GError **error);

/* ---- the machine in use: domain_state.c ---- */
/* A call of d->vm that waits without the job lock is between these: the machine's struct stays. NULL: OP_LIVE's refusal. */
struct vm_use {
    struct vm *vm;
    unsigned refs;
};
/* With the job lock, d->vm; NULL: OP_LIVE's refusal. */
struct vm *domain_machine(struct domain *d, GError **error);
struct vm_use *domain_use(struct domain *d, GError **error);
void domain_use_end(struct vm_use *u);
void domain_set_vm(struct domain *d, struct vm *v); /* NULL: lets go of the one there is */

/* ---- files: domain_store.c ---- */
bool domain_store_def(const char *name, struct domain_def *def, GError **error); /* (waits) */
bool domain_forget_def(const char *name, GError **error);                         /* (waits) */
bool domain_store_autostart(const char *name, bool on, GError **error);           /* (waits) */
/* starting: the process may be there, what is known of it may not. */
bool domain_write_status(struct domain *d, bool starting, GError **error);
void domain_remove_status(const struct domain *d);

/* ---- starting and ending: domain_life.c, domain_machine.c; with the lock ---- */
/* Takes no reference of def. `state` of the domain is untouched when it fails. */
bool domain_run(struct domain *d, struct domain_def *def, bool paused, GError **error);
/* The machine is gone, or is made to go: all of it is taken away, a transient domain with it. */
void domain_over(struct domain *d, int shutoff_reason, int stopped_detail);
/* After the daemon's start: what the machine's run state says that we missed. */
void domain_catch_up(struct domain *d);

/* ---- changes: domain_change.c ---- */
/* A change of a description by its tree, and (live; NULL: the description only) of the machine that runs. */
struct domain_edit {
    bool (*fn)(xmlNode *domain, void *opaque, GError **error);
    bool (*live)(struct vm *v, void *opaque, GError **error);
    void *opaque;
};
bool domain_change(const struct caller *who, struct domain *d, const char *operation, unsigned affect, unsigned others,
                   const struct domain_edit *edit, GError **error); /* (waits) */
