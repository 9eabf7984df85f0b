/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the machine says, and what follows: changes of state, the actions of <on_poweroff>,
 * <on_reboot>, <on_crash>.
 *
 * Thread    The loop thread. Events come outside of tasks and change the state at once; what takes
 * time (to restart, to take away) is a task, which waits for the job lock as long as it takes.
 */
#include "manager/domain/domain_priv.h"

#include "base/log.h"

#include <string.h>

/* ---- the end ---- */

void domain_over(struct domain *d, int shutoff_reason, int stopped_detail)
{
    struct vm *v = d->vm;
    g_autoptr(GError) error = NULL;
    if (v && !vm_kill(v, false, &error)) /* gone or not: this also takes away what belonged to it */
        log_warn("domain '%s': %s", d->name, error->message);
    domain_set_vm(d, NULL);
    domain_remove_status(d);
    domain_set_id(d, -1);
    domain_drop_live(d);
    d->fake_reboot = d->agent = false;
    d->autodestroy = NULL;
    d->state = DOMAIN_SHUTOFF;
    d->reason = shutoff_reason;
    domain_emit(d, LIFE_STOPPED, stopped_detail);
    if (!d->persistent)
        domain_table_remove(d);
}

/* ---- what is to be done when the guest is off or has panicked ---- */

static bool wants(struct domain *d, const char *element, const char *action)
{
    struct xml_node *tree = domain_def_tree(d->live);
    bool yes = tree && xml_is(tree, element, action);
    domain_def_shrink(d->live);
    return yes;
}

#define REBOOT_QUIET_US 100000

/* Once for a reset that is heard of twice; and a guest that resets in a loop does not keep
 * everybody busy. */
static void tell_reboot(struct domain *d)
{
    int64_t now = g_get_monotonic_time();
    if (now - d->reboot_told_us < REBOOT_QUIET_US)
        return;
    d->reboot_told_us = now;
    domain_emit_id(d, DOMAIN_EVENT_REBOOT, 0, 0, NULL, 0);
}

/* The same process goes on from its reset; if it does not, another begins. */
static bool restart(struct domain *d, GError **error)
{
    d->fake_reboot = false;
    if (!vm_reset(d->vm, error))
        return false;
    d->state = DOMAIN_RUNNING; /* before its first instruction: see domain_life.c */
    d->reason = RUNNING_BOOTED;
    if (!vm_cont(d->vm, error))
        return false;
    domain_set_state(d, d->state, d->reason);
    tell_reboot(d);
    domain_emit(d, LIFE_RESUMED, RESUMED_UNPAUSED);
    return true;
}

static void powered_off(struct domain *d)
{
    g_autoptr(GError) error = NULL;
    if ((d->fake_reboot || wants(d, "on_poweroff", "restart")) && restart(d, &error))
        return;
    if (error)
        log_warn("domain '%s' could not be restarted: %s", d->name, error->message);
    domain_over(d, SHUTOFF_SHUTDOWN, STOPPED_SHUTDOWN);
}

static void panicked(struct domain *d)
{
    g_autoptr(GError) error = NULL;
    bool dump_restart = wants(d, "on_crash", "coredump-restart");
    if (wants(d, "on_crash", "preserve"))
        return;
    if ((dump_restart || wants(d, "on_crash", "coredump-destroy")) &&
        !domain_dump_crashed(d, &error))
        log_warn("domain '%s' could not be dumped: %s", d->name, error->message);
    g_clear_error(&error);
    if ((dump_restart || wants(d, "on_crash", "restart")) && restart(d, &error))
        return;
    if (error)
        log_warn("domain '%s' could not be restarted: %s", d->name, error->message);
    domain_over(d, SHUTOFF_CRASHED, STOPPED_CRASHED);
}

static void gone(struct domain *d)
{
    bool off = d->state == DOMAIN_SHUTDOWN;
    if (!off)
        log_warn("domain '%s': its process ended without the guest's having shut down", d->name);
    domain_over(d, off ? SHUTOFF_SHUTDOWN : SHUTOFF_CRASHED,
                off ? STOPPED_SHUTDOWN : STOPPED_FAILED);
}

/* A task for one of the above: with the lock, if the machine is still the one that it was about. */
struct follow {
    struct domain *d;
    struct vm_use *use;
    void (*fn)(struct domain *d);
};

static void follow_task(void *opaque)
{
    struct follow f = *(struct follow *)opaque;
    auto_domain *d = domain_ref(f.d);
    if (domain_lock_within(d, "follow up on", -1, NULL)) {
        if (d->use == f.use)
            f.fn(d);
        domain_unlock(d);
    }
    domain_use_end(f.use);
}

static void follow(struct domain *d, void (*fn)(struct domain *d))
{
    struct follow f = {.d = d, .use = d->use, .fn = fn};
    d->use->refs++; /* so that its address is not another's meanwhile */
    task_start(follow_task, &f);
}

/* ---- events ---- */

/* By what made it run; virDomainEventResumedDetailType. */
static int resumed_detail(const struct domain *d)
{
    bool restored = d->job && d->job->operation == DOMAIN_JOB_RESTORE;
    return d->migration ? RESUMED_MIGRATED : restored ? RESUMED_FROM_SNAPSHOT : RESUMED_UNPAUSED;
}

static void on_resumed(struct domain *d, int detail, const char *const text[4], uint64_t number)
{
    d->resumes++;
    if (d->state != DOMAIN_PAUSED || d->reason == PAUSED_STARTING_UP)
        return;
    domain_set_state(d, DOMAIN_RUNNING, RUNNING_UNPAUSED);
    domain_emit(d, LIFE_RESUMED, resumed_detail(d));
}

static void pause_for(struct domain *d, int reason, int detail)
{
    if (d->state != DOMAIN_RUNNING)
        return;
    domain_set_state(d, DOMAIN_PAUSED, reason);
    domain_emit(d, LIFE_SUSPENDED, detail);
}

static void on_stopped(struct domain *d, int detail, const char *const text[4], uint64_t number)
{
    pause_for(d, d->pause_reason,
              d->pause_reason == PAUSED_MIGRATION ? SUSPENDED_MIGRATED : SUSPENDED_PAUSED);
}

static void on_io_error(struct domain *d, int detail, const char *const text[4], uint64_t number)
{
    bool stops = number == 1;
    int action = stops ? 1 : 2; /* virDomainEventIOErrorAction: pause, report */
    domain_emit_id(d, DOMAIN_EVENT_IO_ERROR, action, 0, text, 0);
    domain_emit_id(d, DOMAIN_EVENT_IO_ERROR_REASON, action, 0, text, 0);
    if (stops && d->state == DOMAIN_PAUSED &&
        d->reason == PAUSED_UNKNOWN) /* STOP came first, without its reason */
        domain_set_state(d, DOMAIN_PAUSED, PAUSED_IOERROR);
    if (stops)
        pause_for(d, PAUSED_IOERROR, SUSPENDED_IOERROR);
}

static void on_shutdown(struct domain *d, int detail, const char *const text[4], uint64_t number)
{
    if (d->state == DOMAIN_SHUTDOWN)
        return;
    domain_set_state(d, DOMAIN_SHUTDOWN, SHUTDOWN_UNKNOWN);
    domain_emit(d, LIFE_SHUTDOWN, detail ? SHUTDOWN_GUEST : SHUTDOWN_HOST);
    follow(d, powered_off);
}

static void on_reset(struct domain *d, int detail, const char *const text[4], uint64_t number)
{
    tell_reboot(d);
}

static void on_panic(struct domain *d, int detail, const char *const text[4], uint64_t number)
{
    if (d->state == DOMAIN_CRASHED)
        return;
    domain_set_state(d, DOMAIN_CRASHED, CRASHED_PANICKED);
    domain_emit(d, LIFE_CRASHED, 0);
    follow(d, panicked);
}

static void on_gone(struct domain *d, int detail, const char *const text[4], uint64_t number)
{
    follow(d, gone);
}

static void on_watchdog(struct domain *d, int detail, const char *const text[4], uint64_t number)
{
    enum { WATCHDOG_PAUSE = 1 };
    domain_emit_id(d, DOMAIN_EVENT_WATCHDOG, detail, 0, text, 0);
    if (detail == WATCHDOG_PAUSE)
        pause_for(d, PAUSED_WATCHDOG, SUSPENDED_WATCHDOG);
}

/* What befell a device, for a task that has the lock. */
struct device_news {
    struct domain *d;
    char *alias;
    bool open; /* its tray, or the guest's end of it */
};

#define NEWS_LOCK_MS (3600 * 1000) /* behind whatever holds the domain */

static void start_news(struct domain *d, const char *alias, bool open, void (*task)(void *opaque))
{
    struct device_news *n = g_new(struct device_news, 1);
    *n = (struct device_news){.d = domain_ref(d), .alias = g_strdup(alias), .open = open};
    task_start(task, n);
}

/* What runs is described without it before clients hear of it. */
static void device_gone_task(void *opaque)
{
    struct device_news n = *(struct device_news *)opaque;
    g_free(opaque);
    const char *const text[4] = {n.alias};
    if (domain_lock_within(n.d, "take a device out of", NEWS_LOCK_MS, NULL)) {
        domain_device_gone(n.d, n.alias);
        if (!g_str_has_prefix(n.alias, "vcpu"))
            domain_emit_id(n.d, DOMAIN_EVENT_DEVICE_REMOVED, 0, 0, text, 0);
        domain_unlock(n.d);
    }
    domain_unref(n.d);
    g_free(n.alias);
}

static void on_device_deleted(struct domain *d, int detail, const char *const text[4],
                              uint64_t number)
{
    start_news(d, text[0], false, device_gone_task);
}

static void tray_task(void *opaque)
{
    struct device_news n = *(struct device_news *)opaque;
    g_free(opaque);
    if (domain_lock_within(n.d, "note a tray of", NEWS_LOCK_MS, NULL)) {
        domain_tray_moved(n.d, n.alias, n.open);
        domain_unlock(n.d);
    }
    domain_unref(n.d);
    g_free(n.alias);
}

static void on_tray(struct domain *d, int detail, const char *const text[4], uint64_t number)
{
    domain_emit_id(d, DOMAIN_EVENT_TRAY_CHANGE, detail, 0, text, number);
    start_news(d, text[0], detail == 0, tray_task);
}

static void port_task(void *opaque)
{
    struct device_news n = *(struct device_news *)opaque;
    g_free(opaque);
    if (domain_lock_within(n.d, "note a channel of", NEWS_LOCK_MS, NULL)) {
        domain_port_changed(n.d, n.alias, n.open);
        domain_unlock(n.d);
    }
    domain_unref(n.d);
    g_free(n.alias);
}

static void on_port(struct domain *d, int detail, const char *const text[4], uint64_t number)
{
    start_news(d, text[0], detail, port_task);
}

static void on_migration_pass(struct domain *d, int detail, const char *const text[4],
                              uint64_t number)
{
    domain_emit_id(d, DOMAIN_EVENT_MIGRATION_ITERATION, detail, 0, NULL, 0);
}

static void on_sleep(struct domain *d, int detail, const char *const text[4], uint64_t number)
{
    domain_guest_sleeps(d, detail == 1);
}

static void on_wakeup(struct domain *d, int detail, const char *const text[4], uint64_t number)
{
    domain_guest_wakes(d);
}

static void on_block_job(struct domain *d, int detail, const char *const text[4], uint64_t number)
{
    follow(d, domain_block_jobs_settle);
}

static void (*const handlers[])(struct domain *d, int detail, const char *const text[4],
                                uint64_t number) = {
    [VM_EV_RESUMED] = on_resumed,     [VM_EV_STOPPED] = on_stopped,
    [VM_EV_IO_ERROR] = on_io_error,   [VM_EV_SHUTDOWN] = on_shutdown,
    [VM_EV_RESET] = on_reset,         [VM_EV_PANIC] = on_panic,
    [VM_EV_GONE] = on_gone,           [VM_EV_WATCHDOG] = on_watchdog,
    [VM_EV_PORT] = on_port,           [VM_EV_DEVICE_DELETED] = on_device_deleted,
    [VM_EV_BLOCK_JOB] = on_block_job, [VM_EV_MIGRATION_PASS] = on_migration_pass,
    [VM_EV_SLEEP] = on_sleep,         [VM_EV_WAKEUP] = on_wakeup,
    [VM_EV_TRAY] = on_tray,
};
/* Those that change nothing here are only told. */
static const int told_as[] = {
    [VM_EV_BALLOON] = DOMAIN_EVENT_BALLOON_CHANGE,
    [VM_EV_RTC] = DOMAIN_EVENT_RTC_CHANGE,
    [VM_EV_REMOVAL_FAILED] = DOMAIN_EVENT_DEVICE_REMOVAL_FAILED,
};

void domain_vm_event(struct domain *d, enum vm_event event, int detail, const char *const text[4],
                     uint64_t number)
{
    if (!d->vm || d->removed)
        return;
    if (event < G_N_ELEMENTS(handlers) && handlers[event])
        handlers[event](d, detail, text, number);
    else if (event < G_N_ELEMENTS(told_as) && told_as[event])
        domain_emit_id(d, told_as[event], 0, detail, text, number);
}

void domain_monitor_event(struct domain *d, const char *name, struct _JsonObject *data,
                          int64_t at_us)
{
    event_emit(&(struct event){.class = EVENT_MONITOR,
                               .name = d->name,
                               .uuid = d->uuid,
                               .object_id = d->id,
                               .text = {name},
                               .number = (uint64_t)MAX(at_us, 0),
                               .data = data});
}

void domain_threshold_passed(struct domain *d, const char *disk, const char *path,
                             uint64_t threshold, uint64_t excess)
{
    event_emit(&(struct event){.class = EVENT_DOMAIN,
                               .id = DOMAIN_EVENT_BLOCK_THRESHOLD,
                               .name = d->name,
                               .uuid = d->uuid,
                               .object_id = d->id,
                               .text = {disk, path},
                               .number = threshold,
                               .excess = excess});
}

/* ---- after the daemon's start ---- */

void domain_catch_up(struct domain *d)
{
    static const struct {
        const char *run_state;
        enum vm_event event;
        uint64_t number;
    } rows[] = {
        {"running", VM_EV_RESUMED, 0},      {"paused", VM_EV_STOPPED, 0},
        {"io-error", VM_EV_IO_ERROR, 1},    {"shutdown", VM_EV_SHUTDOWN, 0},
        {"guest-panicked", VM_EV_PANIC, 0}, {"watchdog", VM_EV_WATCHDOG, 0},
        {"suspended", VM_EV_SLEEP, 0},
    };
    const char *run_state = vm_run_state(d->vm);
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++)
        if (g_strcmp0(run_state, rows[i].run_state) == 0) {
            if (rows[i].event == VM_EV_SHUTDOWN || rows[i].event == VM_EV_PANIC)
                d->state = DOMAIN_RUNNING; /* the status file may say it already; its follow-up
                                              ended with us */
            domain_vm_event(d, rows[i].event, rows[i].event == VM_EV_WATCHDOG, NULL,
                            rows[i].number);
        }
    domain_set_state(d, d->state, d->reason);
}
