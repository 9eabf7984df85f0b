/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files domain*.c share: the table's inside, the job lock, changes of state, files.
 *
 * Thread    The loop thread.
 */
#pragma once

#include "manager/domain/domain.h"
#include "manager/domain/save_file.h"
#include "manager/domain/vm.h"
#include "manager/store.h"

/* libvirt's numbers that are used here; reasons and details are of their state or event. */
enum { RUNNING_BOOTED = 1, RUNNING_MIGRATED = 2, RUNNING_RESTORED = 3, RUNNING_UNPAUSED = 5, RUNNING_MIGRATION_CANCELED = 6, RUNNING_SAVE_CANCELED = 7, RUNNING_WAKEUP = 8 };
enum { PAUSED_UNKNOWN = 0, PAUSED_USER = 1, PAUSED_MIGRATION = 2, PAUSED_SAVE = 3, PAUSED_DUMP = 4, PAUSED_IOERROR = 5, PAUSED_WATCHDOG = 6, PAUSED_CRASHED = 10, PAUSED_STARTING_UP = 11 };
enum { SHUTDOWN_UNKNOWN = 0, SHUTDOWN_USER = 1 };
enum { SHUTOFF_UNKNOWN = 0, SHUTOFF_SHUTDOWN = 1, SHUTOFF_DESTROYED = 2, SHUTOFF_CRASHED = 3, SHUTOFF_MIGRATED = 4, SHUTOFF_SAVED = 5, SHUTOFF_FAILED = 6 };
enum { CRASHED_PANICKED = 1 };
enum lifecycle {
    LIFE_DEFINED, LIFE_UNDEFINED, LIFE_STARTED, LIFE_SUSPENDED, LIFE_RESUMED, LIFE_STOPPED, LIFE_SHUTDOWN,
    LIFE_PMSUSPENDED, LIFE_CRASHED
};
enum { DEFINED_ADDED, DEFINED_UPDATED, DEFINED_RENAMED };
enum { UNDEFINED_REMOVED, UNDEFINED_RENAMED };
enum { STARTED_BOOTED, STARTED_MIGRATED = 1, STARTED_RESTORED = 2, STARTED_WAKEUP = 4 };
enum { SUSPENDED_PAUSED = 0, SUSPENDED_MIGRATED = 1, SUSPENDED_IOERROR = 2, SUSPENDED_WATCHDOG = 3, SUSPENDED_RESTORED = 4 };
enum { RESUMED_UNPAUSED, RESUMED_MIGRATED, RESUMED_FROM_SNAPSHOT };
enum { STOPPED_SHUTDOWN = 0, STOPPED_DESTROYED = 1, STOPPED_CRASHED = 2, STOPPED_MIGRATED = 3, STOPPED_SAVED = 4, STOPPED_FAILED = 5 };
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
    OP_START, OP_SUSPEND, OP_RESUME, OP_SHUTDOWN, OP_REBOOT, OP_RESET, OP_DESTROY, OP_NMI, OP_SAVE, OP_DUMP, OP_MIGRATE, OP_LIVE /* asks or changes the machine */, OPS
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
/* What was tuned of the machine that runs; frees the list. */
void domain_emit_tunable(struct domain *d, struct param_list *l);
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

/* ---- what runs has changed by itself: domain_change.c; with the lock ---- */
/* A device, or a vCPU ("vcpu3"), has left the machine. (waits) */
void domain_device_gone(struct domain *d, const char *alias);
void domain_tray_moved(struct domain *d, const char *alias, bool open); /* (waits) */

/* ---- channels of the guest: domain_guest.c ---- */
enum agent_reason { AGENT_STARTED = 1, AGENT_BY_CHANNEL = 2 }; /* virConnectDomainEventAgentLifecycleReason */
/* What the guest has open, as the machine says, goes into the description; clients hear of the agent. With the lock. (waits) */
void domain_ports_settle(struct domain *d, enum agent_reason why);
void domain_port_changed(struct domain *d, const char *alias, bool open); /* of one channel, as it was told */

/* ---- coming to be: domain_define.c ---- */
/* A text from outside that may be defined or run here: checked as define checks it. */
struct domain_def *domain_def_for_us(const char *xml, bool validate, GError **error);
/* Stored as the domain's description; tells. With the lock. */
bool domain_store_locked(struct domain *d, struct domain_def *def, GError **error); /* (waits) */
/* The domain of `def`, locked: the one that there is, or a new one, unborn. */
struct domain *domain_claim(struct domain_def *def, const char *operation, GError **error);
/* Gives the lock back; an unborn domain that did not come to life goes. */
void domain_release(struct domain *d);

/* ---- what takes long: domain_job.c; with the lock ---- */
struct domain_job {
    enum domain_job_operation operation;
    enum domain_job_type type;
    int64_t begin_us, end_us;
    struct vm_progress progress;
    bool cancel;
    /* Looked at while the stream goes; false: it is to be broken off, and why. May be NULL. */
    bool (*watch)(struct domain *d, GError **error);
    char *why;         /* it failed */
    struct job *shown; /* may be NULL */
    /* What the status file says of it: whoever comes after us undoes or ends it. */
    bool resume;              /* the guest ran before, or is to run after */
    bool finishing;           /* the file is complete and gets its name now */
    char *path, *temporary;   /* the file that is being made */
    uint64_t inode;
    char *used;               /* the managed state that is being restored */
};
struct domain_job *domain_job_begin(struct domain *d, enum domain_job_operation operation, struct job *shown);
/* Tells of what was saved, dumped, sent; `error` says why it failed. Returns ok. */
bool domain_job_end(struct domain *d, bool ok, GError *const *error);
/* Until the machine's stream is over. `file` (may be NULL) is what it goes to. */
bool domain_job_stream(struct domain *d, const struct save_file *file, GError **error);
uint64_t domain_job_speed(const struct domain *d); /* bytes a second */
void domain_job_free(struct domain_job *j);
void domain_job_status(const struct domain *d, struct xml_node *status);
/* After the daemon's start. True: a file was complete, and the machine is to be over, as saved. */
bool domain_job_recover(struct domain *d, const struct xml_node *status);

/* ---- migration: domain_migrate.c ---- */
/* The connection of `who` has ended: so do its migrations. Does not wait. */
void domain_migrate_forget(const struct caller *who);
void domain_migrate_status(const struct domain *d, struct xml_node *status);
/* After the daemon's start, with the lock, and (d->vm) the machine if it is still there: what was under way is
 * undone, or brought to its end. False: there was no migration. True: the lock was given back. */
bool domain_migrate_recover(struct domain *d, const struct xml_node *status);

/* ---- saved states: domain_save.c, domain_save_managed.c; with the lock ---- */
bool domain_stand(struct domain *d, int pause_reason, GError **error); /* the guest stops */
bool domain_go_on(struct domain *d, int running_reason, GError **error);
/* The machine goes on, and the domain with it: what the machine does from then on, be it to stop at once, stands. */
bool domain_cont(struct domain *d, GError **error);
/* A file for d->job, with a head if there is an `xml`; then complete and in its place. On workers. */
bool domain_file_make(struct domain *d, const char *path, const char *xml, enum save_state state, struct save_file *file, GError **error);
bool domain_file_finish(struct domain *d, struct save_file *file, GError **error);
/* The description that goes with the machine's state: given, if its guest is the same, or what runs. */
char *domain_state_xml(struct domain *d, const char *xml, GError **error);
/* The lock is held; the core file of a guest that has panicked, in state_dir/dump. */
bool domain_dump_crashed(struct domain *d, GError **error);
bool domain_restore_run(struct domain *d, struct domain_def *def, int fd, bool paused, const char *used, struct job *shown, GError **error);
bool domain_save_locked(struct domain *d, const char *path, const char *xml, unsigned flags, struct job *shown, GError **error);
/* A file, opened on a worker. `def`: what it describes. -1 with *error. */
int domain_save_open(const char *path, struct domain_def **ret_def, bool *ret_runs, GError **error);
void domain_managed_save_load(void);
char *domain_managed_save_path(const char *name);
bool domain_managed_save_start(struct domain *d, unsigned start_flags, GError **error);
bool domain_managed_save_drop(struct domain *d, GError **error);

/* ---- texts of our own: domain_known.c ---- */
void domain_known_load(void);
bool domain_known(const char *text, size_t len);
void domain_known_save(void); /* those of the table, for the next start */

/* ---- what follows the guest's end: domain_lifecycle.c ---- */
bool domain_check_lifecycle(struct domain_def *def, GError **error);

/* ---- the guest's own power: domain_guest.c ---- */
void domain_guest_sleeps(struct domain *d, bool to_disk);
void domain_guest_wakes(struct domain *d);

/* ---- jobs on disks: domain_block_job_end.c ---- */
/* What the machine says of them is made true: ready, done, failed. With the lock. */
void domain_block_jobs_settle(struct domain *d);

/* ---- starting and ending: domain_life.c, domain_machine.c; with the lock ---- */
/* Takes no reference of def. `state` of the domain is untouched when it fails. */
bool domain_run(struct domain *d, struct domain_def *def, bool paused, GError **error);
/* With the state that `fd` holds (d->job is the restore); the guest stands. Tells nobody yet. */
bool domain_run_saved(struct domain *d, struct domain_def *def, int fd, GError **error);
/* A process that waits for vm_state_receive(). Tells nobody yet. */
bool domain_run_incoming(struct domain *d, struct domain_def *def, GError **error);
/* The machine is gone, or is made to go: all of it is taken away, a transient domain with it. */
void domain_over(struct domain *d, int shutoff_reason, int stopped_detail);
/* After the daemon's start: what the machine's run state says that we missed. */
void domain_catch_up(struct domain *d);

/* ---- changes: domain_change.c ---- */
/* A change of a description by its tree, and (live; NULL: the description only) of the machine that runs. */
struct domain_edit {
    bool (*fn)(struct xml_node *domain, void *opaque, GError **error);
    bool (*live)(struct vm *v, void *opaque, GError **error);
    void *opaque;
};
/* The description of what runs (live) or the stored one, by its tree; with the lock, and without a word to the machine. */
bool domain_edit(struct domain *d, bool live, bool (*fn)(struct xml_node *domain, void *opaque, GError **error), void *opaque, GError **error); /* (waits) */
bool domain_change(const struct caller *who, struct domain *d, const char *operation, unsigned affect, unsigned others,
                   const struct domain_edit *edit, GError **error); /* (waits) */
