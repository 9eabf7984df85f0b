/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The run state's table, and what guests, monitors and signals make of it. */
#include "vmm/run.h"

#include "base/log.h"
#include "image/image.h"
#include "vmm/hotplug.h"
#include "vmm/migrate.h"

#include <string.h>

#define TO(state) ((state) + 1) /* 0 is an empty cell: not allowed */
#define STAY(state) TO(state)

static const uint8_t run_next[N_RUN_STATES][N_RUN_EVENTS] = {
    [RUN_PRELAUNCH] = { [EV_CONT] = TO(RUN_RUNNING), [EV_STOP] = STAY(RUN_PRELAUNCH),
                        [EV_RESET] = STAY(RUN_PRELAUNCH), [EV_FINISH_MIGRATE] = TO(RUN_FINISH_MIGRATE) },
    [RUN_RUNNING] = { [EV_CONT] = STAY(RUN_RUNNING), [EV_STOP] = TO(RUN_PAUSED),
                      [EV_RESET] = STAY(RUN_RUNNING), [EV_GUEST_OFF] = TO(RUN_SHUTDOWN),
                      [EV_PANIC] = TO(RUN_GUEST_PANICKED), [EV_IO_ERROR] = TO(RUN_IO_ERROR),
                      [EV_INTERNAL_ERROR] = TO(RUN_INTERNAL_ERROR),
                     [EV_FINISH_MIGRATE] = TO(RUN_FINISH_MIGRATE) },
    [RUN_PAUSED] = { [EV_CONT] = TO(RUN_RUNNING), [EV_STOP] = STAY(RUN_PAUSED),
                     [EV_RESET] = TO(RUN_PRELAUNCH), [EV_GUEST_OFF] = TO(RUN_SHUTDOWN),
                     [EV_PANIC] = TO(RUN_GUEST_PANICKED), [EV_IO_ERROR] = TO(RUN_IO_ERROR),
                     [EV_INTERNAL_ERROR] = TO(RUN_INTERNAL_ERROR),
                     [EV_FINISH_MIGRATE] = TO(RUN_FINISH_MIGRATE) },
    [RUN_SHUTDOWN] = { [EV_STOP] = STAY(RUN_SHUTDOWN), [EV_RESET] = TO(RUN_PRELAUNCH),
                     [EV_FINISH_MIGRATE] = TO(RUN_FINISH_MIGRATE) },
    [RUN_GUEST_PANICKED] = { [EV_CONT] = TO(RUN_RUNNING), [EV_STOP] = STAY(RUN_GUEST_PANICKED),
                             [EV_RESET] = TO(RUN_PRELAUNCH), [EV_GUEST_OFF] = TO(RUN_SHUTDOWN),
                     [EV_FINISH_MIGRATE] = TO(RUN_FINISH_MIGRATE) },
    [RUN_IO_ERROR] = { [EV_CONT] = TO(RUN_RUNNING), [EV_STOP] = STAY(RUN_IO_ERROR),
                       [EV_RESET] = TO(RUN_PRELAUNCH),
                     [EV_FINISH_MIGRATE] = TO(RUN_FINISH_MIGRATE) },
    [RUN_INTERNAL_ERROR] = { [EV_STOP] = STAY(RUN_INTERNAL_ERROR), [EV_RESET] = TO(RUN_PRELAUNCH),
                     [EV_FINISH_MIGRATE] = TO(RUN_FINISH_MIGRATE) },
    [RUN_INMIGRATE] = { [EV_CONT] = STAY(RUN_INMIGRATE), [EV_STOP] = STAY(RUN_INMIGRATE),
                        [EV_LOADED] = TO(RUN_PAUSED) },
    /* What the guest asked for in its last moments is answered before its state is saved. */
    [RUN_FINISH_MIGRATE] = { [EV_STOP] = STAY(RUN_FINISH_MIGRATE),
                             [EV_RESET] = STAY(RUN_FINISH_MIGRATE), [EV_GUEST_OFF] = TO(RUN_SHUTDOWN),
                             [EV_PANIC] = TO(RUN_GUEST_PANICKED), [EV_IO_ERROR] = TO(RUN_IO_ERROR),
                             [EV_INTERNAL_ERROR] = TO(RUN_INTERNAL_ERROR),
                             [EV_MIGRATED] = TO(RUN_POSTMIGRATE) },
    [RUN_POSTMIGRATE] = { [EV_CONT] = TO(RUN_RUNNING), [EV_STOP] = STAY(RUN_POSTMIGRATE),
                          [EV_RESET] = TO(RUN_PRELAUNCH), [EV_FINISH_MIGRATE] = TO(RUN_FINISH_MIGRATE) },
};

static const char *const state_names[N_RUN_STATES] = {
    [RUN_PRELAUNCH] = "prelaunch",
    [RUN_RUNNING] = "running",
    [RUN_PAUSED] = "paused",
    [RUN_SHUTDOWN] = "shutdown",
    [RUN_GUEST_PANICKED] = "guest-panicked",
    [RUN_IO_ERROR] = "io-error",
    [RUN_INTERNAL_ERROR] = "internal-error",
    [RUN_INMIGRATE] = "inmigrate",
    [RUN_FINISH_MIGRATE] = "finish-migrate",
    [RUN_POSTMIGRATE] = "postmigrate",
};

static const char *const event_names[N_RUN_EVENTS] = {
    [EV_CONT] = "cont", [EV_STOP] = "stop", [EV_RESET] = "reset", [EV_GUEST_OFF] = "power-off",
    [EV_PANIC] = "panic", [EV_IO_ERROR] = "I/O error", [EV_INTERNAL_ERROR] = "internal error",
    [EV_FINISH_MIGRATE] = "migrate", [EV_MIGRATED] = "end of the migration", [EV_LOADED] = "load",
};

static const struct {
    const char *reason;
    bool guest;
} causes[N_SHUTDOWN_CAUSES] = {
    [CAUSE_GUEST_SHUTDOWN] = { "guest-shutdown", true },
    [CAUSE_GUEST_RESET] = { "guest-reset", true },
    [CAUSE_GUEST_PANIC] = { "guest-panic", true },
    [CAUSE_QMP_QUIT] = { "host-qmp-quit", false },
    [CAUSE_SIGNAL] = { "host-signal", false },
    [CAUSE_CONSOLE] = { "host-ui", false },
    [CAUSE_HOST_ERROR] = { "host-error", false },
};

int run_state_next(enum run_state s, enum run_event e)
{
    return (int)run_next[s][e] - 1;
}

const char *run_state_name(enum run_state s)
{
    return state_names[s];
}

const char *run_event_name(enum run_event e)
{
    return event_names[e];
}

/* The one place where the state changes: vCPUs follow, and QMP hears STOP and RESUME. */
static bool step(struct vmm *v, enum run_event e, GError **error)
{
    struct machine *m = v->machine;
    enum run_state from = m->state;
    int to = run_state_next(from, e);
    if (to < 0)
        return ruche_error(error, RUCHE_ERR_STATE, "'%s' is not possible in state '%s'%s",
                           event_names[e], state_names[from],
                           e != EV_CONT ? ""
                           : from == RUN_FINISH_MIGRATE ? ": Migration is not finalized yet"
                                                        : "; reset the machine first");
    if (from != RUN_RUNNING && to == RUN_RUNNING && !migrate_disks_take(v, error))
        return false;
    bool was_running = machine_is_running(m);
    if (was_running && to != RUN_RUNNING) {
        machine_stop(m);
        qmp_event(v->qmp, "STOP", NULL);
    }
    m->state = to;
    if (!was_running && to == RUN_RUNNING) {
        qmp_event(v->qmp, "RESUME", NULL);
        machine_run(m);
    }
    return true;
}

bool run_cont(struct vmm *v, GError **error)
{
    if (!step(v, EV_CONT, error))
        return false;
    if (v->machine->state == RUN_INMIGRATE)
        v->options.start_paused = false;
    for (guint i = 0; i < v->drives->len; i++) /* requests that were kept when they failed */
        image_resume(((struct vm_drive *)g_ptr_array_index(v->drives, i))->image);
    return true;
}

bool run_stop(struct vmm *v, GError **error)
{
    if (v->machine->state == RUN_INMIGRATE)
        v->options.start_paused = true;
    return step(v, EV_STOP, error);
}

/* ---- migration ---- */

void run_expect_state(struct vmm *v)
{
    v->machine->state = RUN_INMIGRATE;
}

/* A state that cannot be gone on from by `cont` is kept; any other is a stopped machine. */
bool run_loaded(struct vmm *v, const char *state, GError **error)
{
    if (!step(v, EV_LOADED, error))
        return false;
    if (!strcmp(state, state_names[RUN_RUNNING]))
        return v->options.start_paused || run_cont(v, error);
    for (int s = RUN_PRELAUNCH; s < N_RUN_STATES; s++)
        if (!strcmp(state, state_names[s]) && s != RUN_RUNNING && s <= RUN_INTERNAL_ERROR)
            v->machine->state = (enum run_state)s;
    return true;
}

bool run_finish_migrate(struct vmm *v, enum run_state *ret_before, GError **error)
{
    *ret_before = v->machine->state;
    return step(v, EV_FINISH_MIGRATE, error);
}

void run_migrated(struct vmm *v)
{
    if (!step(v, EV_MIGRATED, NULL))
        v->machine->state = RUN_POSTMIGRATE; /* what the guest did last goes on elsewhere */
}

bool run_unmigrate(struct vmm *v, enum run_state before, GError **error)
{
    if (v->machine->state != RUN_FINISH_MIGRATE)
        return true;
    v->machine->state = before == RUN_RUNNING ? RUN_PAUSED : before;
    return before != RUN_RUNNING || run_cont(v, error);
}

static void cause_event(struct vmm *v, const char *name, bool guest, const char *reason)
{
    JsonObject *data = json_object_new();
    json_object_set_boolean_member(data, "guest", guest);
    json_object_set_string_member(data, "reason", reason);
    qmp_event(v->qmp, name, data);
}

static bool reset(struct vmm *v, bool guest, const char *reason, GError **error)
{
    if (!step(v, EV_RESET, error))
        return false;
    cause_event(v, "RESET", guest, reason);
    return machine_reset(v->machine, error);
}

bool run_reset(struct vmm *v, GError **error)
{
    return reset(v, false, "host-qmp-system-reset", error);
}

bool run_powerdown(struct vmm *v, GError **error)
{
    struct machine *m = v->machine;
    if (!m->power_button.set)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "board '%s' has no power button",
                           m->board->name);
    irq_pulse(&m->power_button);
    qmp_event(v->qmp, "POWERDOWN", NULL);
    return true;
}

void run_quit(struct vmm *v, enum shutdown_cause cause)
{
    if (v->run.ending)
        return;
    v->run.ending = true;
    if (v->machine && machine_is_running(v->machine))
        machine_stop(v->machine);
    bool began = !v->machine || v->machine->state != RUN_INMIGRATE || cause != CAUSE_HOST_ERROR;
    if (began) /* a guest whose state does not come was never on here */
        cause_event(v, "SHUTDOWN", causes[cause].guest, causes[cause].reason);
    g_main_loop_quit(v->glib_loop);
}

/* ---- what the guest asks for ---- */

static void guest_off(struct vmm *v, enum shutdown_cause cause)
{
    if (v->options.on_shutdown == SHUTDOWN_POWEROFF) {
        run_quit(v, cause);
        return;
    }
    if (v->machine->state == RUN_SHUTDOWN)
        return;
    cause_event(v, "SHUTDOWN", true, causes[cause].reason);
    step(v, EV_GUEST_OFF, NULL);
}

static void on_reset(struct vmm *v, int code)
{
    g_autoptr(GError) error = NULL;
    if (v->options.on_reboot == REBOOT_SHUTDOWN) {
        guest_off(v, CAUSE_GUEST_RESET);
        return;
    }
    if (reset(v, true, "guest-reset", &error))
        return;
    log_error("the machine cannot be reset: %s", error->message);
    v->exit_status = 1;
    run_quit(v, CAUSE_HOST_ERROR);
}

static void on_poweroff(struct vmm *v, int code)
{
    guest_off(v, CAUSE_GUEST_SHUTDOWN);
}

static void panic_event(struct vmm *v, const char *name, const char *action)
{
    JsonObject *data = json_object_new();
    json_object_set_string_member(data, "action", action);
    qmp_event(v->qmp, name, data);
}

static void on_panic(struct vmm *v, int code)
{
    enum action_panic what = v->options.on_panic;
    if (what == PANIC_SHUTDOWN && v->options.on_shutdown == SHUTDOWN_PAUSE)
        what = PANIC_PAUSE;
    if (what == PANIC_NONE) {
        panic_event(v, "GUEST_PANICKED", "run");
        return;
    }
    panic_event(v, "GUEST_PANICKED", what == PANIC_PAUSE ? "pause" : "poweroff");
    step(v, EV_PANIC, NULL);
    if (what == PANIC_PAUSE)
        return;
    if (what == PANIC_EXIT_FAILURE)
        v->exit_status = 1;
    run_quit(v, CAUSE_GUEST_PANIC);
}

static void on_debug_exit(struct vmm *v, int code)
{
    v->exit_status = code;
    run_quit(v, CAUSE_GUEST_SHUTDOWN);
}

static void on_internal_error(struct vmm *v, int code)
{
    step(v, EV_INTERNAL_ERROR, NULL);
}

static void on_io_error(struct vmm *v, int code)
{
    step(v, EV_IO_ERROR, NULL);
}

static void on_crash_loaded(struct vmm *v, int code)
{
    panic_event(v, "GUEST_CRASHLOADED", "run");
}

static void on_request(void *opaque, enum machine_request what, int code)
{
    static void (*const handlers[])(struct vmm *v, int code) = {
        [MACHINE_REQ_RESET] = on_reset,
        [MACHINE_REQ_POWEROFF] = on_poweroff,
        [MACHINE_REQ_PANIC] = on_panic,
        [MACHINE_REQ_DEBUG_EXIT] = on_debug_exit,
        [MACHINE_REQ_INTERNAL_ERROR] = on_internal_error,
        [MACHINE_REQ_IO_ERROR] = on_io_error,
        [MACHINE_REQ_CRASH_LOADED] = on_crash_loaded,
    };
    struct vmm *v = opaque;
    if (!v->run.ending && what < G_N_ELEMENTS(handlers))
        handlers[what](v, code);
}

/* Text pairs become JSON: numbers and booleans are told from texts by their form. */
static void on_event(void *opaque, const char *name, const char *const *pairs)
{
    struct vmm *v = opaque;
    JsonObject *data = NULL;
    for (; pairs && pairs[0] && pairs[1]; pairs += 2) {
        const char *value = pairs[1];
        char *end;
        if (!data)
            data = json_object_new();
        gint64 number = g_ascii_strtoll(value, &end, 10);
        if (!g_strcmp0(value, "true") || !g_strcmp0(value, "false"))
            json_object_set_boolean_member(data, pairs[0], value[0] == 't');
        else if (*value && !*end)
            json_object_set_int_member(data, pairs[0], number);
        else
            json_object_set_string_member(data, pairs[0], value);
    }
    qmp_event(v->qmp, name, data);
}

const struct machine_observer run_observer = { .request = on_request, .event = on_event, .unplugged = hotplug_unplugged,
                                               .cpu_ejected = hotplug_cpu_ejected, .cpu_reported = hotplug_cpu_reported };
