/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A running machine as the manager sees it: a process (ruche-vmm or QEMU), its QMP socket, its cgroup
 * and its log. Knows how a description becomes a command line, and QMP's answers become ours.
 *
 * Spec      QEMU's options and QMP; ruche-vmm speaks both.
 * Thread    The loop thread; all but vm_free() in a task.
 * Owner     The domain has at most one vm. The process is not our child: it lives on without us, and is
 *           found again by its socket and pidfd.
 * Trust     Answers of the monitor are data: checked types, bounded sizes. A machine that does not answer
 *           in 30 s fails the call (MANAGER_ERR_TIMEOUT), nothing else.
 * Layers    domain.c decides and stores; vm*.c carries out and reports by domain_vm_event().
 */
#pragma once

#include "manager/domain/domain.h"

/* Starts the process of d->live and leaves the guest paused, before its first instruction; with `incoming`, before
 * vm_state_receive() has given it its state. The live definition is filled in as it goes (aliases, ptys, tap names):
 * through *ret_live, a new definition. On failure nothing is left of it. */
struct vm *vm_start(struct domain *d, bool incoming, struct domain_def **ret_live, GError **error);
/* Ends and takes away what a start of `d` that was cut off (by our own end) may have left: process, cgroup, taps, folder;
 * found by d->live's UUID. Nothing there is fine. In a task. */
void vm_clean(struct domain *d);
/* Finds the process of a status file again; `status` is the element vm_status() made. NULL: it is gone. */
struct vm *vm_attach(struct domain *d, const struct xml_node *status, GError **error);
/* What vm_attach() needs, added to a status element. */
void vm_status(const struct vm *v, struct xml_node *status);
/* Lets go of it; the process is not touched. */
void vm_free(struct vm *v);
/* Ends the process: graceful waits for SIGTERM's effect (15 s), else SIGKILL; returns when it is gone
 * and its cgroup, taps and sockets are taken away. */
bool vm_kill(struct vm *v, bool graceful, GError **error);

/* Returns after VM_EV_RESUMED, and whatever the guest did then. */
bool vm_cont(struct vm *v, GError **error);
bool vm_stop(struct vm *v, GError **error);
bool vm_powerdown(struct vm *v, GError **error); /* ACPI's button */
bool vm_reset(struct vm *v, GError **error);
bool vm_nmi(struct vm *v, GError **error);
/* device, head: of which video device (NULL: the first); into fd, as a portable pixmap. keys: QEMU's numbers. */
bool vm_screenshot(struct vm *v, const char *device, unsigned head, int fd, GError **error);
bool vm_send_keys(struct vm *v, const uint8_t *keys, unsigned count, unsigned hold_ms, GError **error);
bool vm_open_graphics(struct vm *v, const char *protocol, int fd, bool trusted, GError **error); /* lends fd */
bool vm_set_reboot(struct vm *v, bool destroy, GError **error); /* what a reset by the guest does */
bool vm_can_sleep(struct vm *v, GError **error);
bool vm_wakeup(struct vm *v, GError **error);
pid_t vm_pid(const struct vm *v);
/* By its pidfd; does not wait. For a machine whose operation hangs. */
void vm_signal(struct vm *v, int signal);
/* Its run state as the monitor last said it, QMP's word: "running", "paused", "io-error", "shutdown",
 * "guest-panicked", ... After vm_attach() it is fresh: so domain.c learns what it missed. Borrowed until the next wait. */
const char *vm_run_state(const struct vm *v);

/* Its state as a stream, to or from a descriptor (a copy goes to the machine): begun, then looked at until it is over. One
 * at a time. bytes_s: at most so many a second. */
enum vm_stream_state { VM_STREAM_NONE, VM_STREAM_RUNS, VM_STREAM_DONE, VM_STREAM_FAILED };
struct vm_progress {
    enum vm_stream_state state;
    uint64_t total, done, remaining;       /* bytes of memory */
    uint64_t constant, normal, page_bytes; /* pages */
    uint64_t bytes_s, setup_ms;
};
bool vm_state_send(struct vm *v, int fd, uint64_t bytes_s, GError **error);
bool vm_state_receive(struct vm *v, int fd, GError **error);
bool vm_state_speed(struct vm *v, uint64_t bytes_s, GError **error);
bool vm_state_poll(struct vm *v, struct vm_progress *ret, GError **error); /* of vm_dump_memory(), too; false: it failed */
bool vm_state_cancel(struct vm *v, GError **error);
/* Whatever stream is under way is cancelled, or (a core file) comes to its end; the guest can go on then. */
bool vm_state_settle(struct vm *v, GError **error);
/* Before a migration: what both sides can do more than write to a file. */
enum vm_migrate_flags { VM_MIGRATE_COMPRESSED = 1, VM_MIGRATE_AUTO_CONVERGE = 2 };
bool vm_migrate_prepare(struct vm *v, unsigned migrate_flags, GError **error);
/* The connection that carries the state, by "tcp:HOST:PORT" or "unix:///PATH": connected; -1 with *error. */
int vm_migrate_connect(const char *uri, GError **error);
/* Where the other side is to connect to: at `uri` (NULL: a port that is free). *ret_uri is what it is told; *ret_path a
 * Unix socket's, to be removed. */
int vm_migrate_listen(const char *uri, const char *address, char **ret_uri, char **ret_path, GError **error);
bool vm_migrate_set_downtime(struct vm *v, uint64_t ms, GError **error);
bool vm_migrate_get_downtime(struct vm *v, uint64_t *ret, GError **error);
bool vm_migrate_set_cache(struct vm *v, uint64_t bytes, GError **error);
bool vm_migrate_get_cache(struct vm *v, uint64_t *ret, GError **error);
/* format: QMP's, "elf", "kdump-zlib", ... */
bool vm_dump_memory(struct vm *v, int fd, const char *format, GError **error);
bool vm_peek_memory(struct vm *v, bool physical, uint64_t from, uint8_t *ret, size_t len, GError **error);

/* What the machine is asked by domain_*(): the same contracts, carried out. */
bool vm_set_memory(struct vm *v, uint64_t kib, GError **error);
bool vm_set_stats_period(struct vm *v, const struct xml_node *balloon, uint64_t seconds, GError **error); /* 0: none */
bool vm_block_threshold(struct vm *v, const char *disk, uint64_t bytes, GError **error);
bool vm_block_resize(struct vm *v, const char *disk, uint64_t bytes, GError **error);
bool vm_set_params(struct vm *v, const char *which, const struct param_list *l, GError **error);
bool vm_get_params(struct vm *v, const char *which, struct param_list *ret, GError **error);
enum domain_pin { PIN_VCPU, PIN_EMULATOR, PIN_IOTHREAD };
bool vm_pin(struct vm *v, enum domain_pin kind, unsigned number, const uint8_t *cpumap, unsigned len, GError **error);
bool vm_iothread_add(struct vm *v, unsigned id, GError **error);
bool vm_iothread_del(struct vm *v, unsigned id, GError **error);
bool vm_iothread_set(struct vm *v, unsigned id, const struct param_list *l, GError **error);
uint64_t vm_cpu_time_ns(struct vm *v);   /* does not wait: cgroup, else /proc */
uint64_t vm_memory_kib(const struct vm *v); /* does not wait: the balloon's last word */
int vm_vcpus(struct vm *v, struct domain_vcpu *ret, unsigned room);
bool vm_stats(struct vm *v, unsigned stats, struct param_list *ret, GError **error);
bool vm_cpu_stats(struct vm *v, int cpu, struct param_list *ret, GError **error); /* does not wait */
bool vm_block_stats(struct vm *v, const char *disk, struct domain_block_stats *ret, GError **error);
bool vm_block_info(struct vm *v, const char *disk, struct domain_block_info *ret, GError **error);
bool vm_interface_stats(struct vm *v, const char *device, struct domain_interface_stats *ret, GError **error);
int vm_memory_stats(struct vm *v, struct domain_memory_stat *ret, unsigned room);
int vm_open_console(struct vm *v, const char *alias, bool force, bool channel, GError **error);
char *vm_agent_command(struct vm *v, const char *json, int timeout_s, GError **error);
/* For commands that a guest which obeys does not answer. */
bool vm_agent_tell(struct vm *v, const char *json, GError **error);
/* Which channels the guest has open: alias to true or false, where the emulator says. (waits) */
GHashTable *vm_ports(struct vm *v);
/* Where its first console is logged; there is a file once it has run. The caller's. */
char *vm_console_log_path(const char *domain_name);
/* Where its process writes what it has to say. The caller's. */
char *vm_log_path(const char *domain_name);
char *vm_monitor_command(struct vm *v, const char *text, bool hmp, GError **error);
char *vm_monitor_command_fd(struct vm *v, const char *text, int fd, GError **error);
/* The command line of a description, which is of no machine. */
char *vm_native(struct domain_def *def, GError **error);
/* Live attach and update: MANAGER_ERR_CONFIG or RUCHE_ERR_UNSUPPORTED with the reason where the machine cannot. */
struct vm_change {
    struct xml_node *device;       /* as it is to be, in the new live definition; what the host chooses is written into it */
    const struct xml_node *before; /* as it is, in the present one; NULL: it is new */
    bool force;            /* a medium that the guest has locked in */
    /* A new one: all is chosen, and nothing of it is in the machine yet. `device` is not used afterwards. */
    bool (*made)(void *opaque, GError **error);
    void *opaque;
};
bool vm_device(struct vm *v, struct vm_change *c, GError **error);
/* After the daemon's start: devices and vCPUs of the live definition that the machine does not have (any more) are
 * reported as deleted. (waits) */
void vm_catch_up(struct vm *v);
/* Asks the guest for the device; with `wait`, gives it 5 s. *ret_gone false: VM_EV_DEVICE_DELETED will tell. */
bool vm_detach(struct vm *v, struct xml_node *device, bool wait, bool *ret_gone, GError **error);
/* So many vCPUs; those of the map in, or out. What was done before a failure stays: vm_vcpu_count(). */
bool vm_set_vcpus(struct vm *v, unsigned count, GError **error);
bool vm_set_vcpu(struct vm *v, const uint8_t *map, unsigned len, bool on, GError **error);
unsigned vm_vcpu_count(struct vm *v); /* 0: it does not say */

/* Jobs on disks. `disk` is the live description's <disk>, in a copy of its tree that is the caller's; images by their numbers (def_chain.h). */
#define BLOCK_JOBS_MAX 1024
struct vm_block_job {
    enum domain_block_job_kind kind;
    char target[64];   /* of the disk */
    unsigned a, b;     /* pull: -, base (0: none); commit: top, base; copy: -, the copy */
    uint64_t done, total, bytes_s;
    bool ready, over;  /* over: it waits to be dismissed */
    char why[256];     /* it failed; else "" */
};
struct vm_block_copy {
    const char *path, *format;
    bool device, shallow, write_blocking;
    uint64_t granularity, buf_size;
};
enum vm_block_job_verb { BLOCK_JOB_CANCEL, BLOCK_JOB_COMPLETE, BLOCK_JOB_DISMISS, BLOCK_JOB_SPEED };
GArray *vm_block_jobs(struct vm *v, GError **error); /* of struct vm_block_job: ours */
bool vm_block_job_do(struct vm *v, const struct vm_block_job *j, enum vm_block_job_verb verb, uint64_t bytes_s, GError **error);
bool vm_block_pull(struct vm *v, struct xml_node *disk, const struct vm_block_job *j, GError **error);
bool vm_block_commit(struct vm *v, struct xml_node *disk, const struct vm_block_job *j, GError **error);
bool vm_block_copy(struct vm *v, struct xml_node *disk, const struct vm_block_job *j, const struct vm_block_copy *c, GError **error);
/* What a job has written to an image is on the disk. */
void vm_block_flush(struct vm *v, const char *target, unsigned image);
/* An image that no disk stands on any more is closed. */
void vm_block_forget(struct vm *v, const char *target, unsigned image);

/* The machine says that something happened; domain.c decides (state, on_reboot, event, status file). */
/* SHUTDOWN: the guest is off, and its process waits (-no-shutdown) for vm_kill(), or for vm_reset() and vm_cont() if it is
 * to go on; detail is 1 if the guest wanted it, else 0. With s.on_reboot_destroy a reset by the guest comes as SHUTDOWN.
 * IO_ERROR: text is source path, alias, reason; number is 1 if the guest was stopped by it. */
enum vm_event {
    VM_EV_RESUMED, VM_EV_STOPPED, VM_EV_IO_ERROR, VM_EV_SHUTDOWN /* by the guest, or asked for */, VM_EV_RESET,
    VM_EV_PANIC, VM_EV_GONE /* the process ended: detail is 0 if it was after VM_EV_SHUTDOWN */, VM_EV_WATCHDOG,
    VM_EV_BALLOON, VM_EV_RTC, VM_EV_PORT /* of a channel: text is the alias; 1: the guest has opened it */, VM_EV_DEVICE_DELETED, VM_EV_BLOCK_JOB, VM_EV_TRAY,
    VM_EV_MIGRATION_PASS /* detail is the round */,
    VM_EV_SLEEP /* detail is 1 if to disk */, VM_EV_WAKEUP,
    VM_EV_REMOVAL_FAILED /* text is the alias; so it is for DEVICE_DELETED */
};
/* text[] and number as struct event's. Defined in domain.c; called on the loop, outside of tasks. */
void domain_vm_event(struct domain *d, enum vm_event event, int detail, const char *const text[4], uint64_t number);

/* Whatever its monitor tells by itself, as it tells it. Defined and called in the same way; `data` may be NULL. */
void domain_monitor_event(struct domain *d, const char *name, struct _JsonObject *data, int64_t at_us);

/* A disk's writes have gone behind its threshold. Defined and called in the same way. */
void domain_threshold_passed(struct domain *d, const char *disk, const char *path, uint64_t threshold, uint64_t excess);

/* The same definition, or one without what clients write for every machine, which this emulator has not and nothing
 * hangs on: an empty USB controller becomes one of model 'none'. A reference. (waits, the first time) */
struct domain_def *vm_fit_def(struct domain_def *d, GError **error);
/* May this definition run here? Asked at define time: devices, buses, models, types that the emulator does
 * not have are MANAGER_ERR_CONFIG by name. Does not wait (what an emulator can do is asked once and kept). */
bool vm_check_def(struct domain_def *d, GError **error);
