/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a machine's monitor tells by itself, as the domain's events.
 *
 * Thread    The loop, outside of tasks.
 * Trust     Data of events is read by type; names of devices are looked up, never believed.
 */
#include "manager/domain/vm_internal.h"

#include <string.h>

static const char *const no_text[4] = {NULL};

void vm_report(struct vm *v, enum vm_event event, int detail, const char *const text[4],
               uint64_t number)
{
    if (v->reporting && v->d)
        domain_vm_event(v->d, event, detail, text ? text : no_text, number);
}

/* The event's name stands for QMP's state. */
static void note_state(struct vm *v, const char *word)
{
    g_free(v->run_state);
    v->run_state = g_strdup(word);
}

static void on_shutdown(struct vm *v, JsonObject *data)
{
    note_state(v, "shutdown");
    v->guest_ended = true;
    vm_agent_done(v);
    vm_report(v, VM_EV_SHUTDOWN, vm_json_bool(data, "guest"), NULL, 0);
}

static void on_reset(struct vm *v, JsonObject *data)
{
    vm_agent_done(v);
    vm_report(v, VM_EV_RESET, vm_json_bool(data, "guest"), NULL, 0);
}

static void on_stop(struct vm *v, JsonObject *data)
{
    note_state(v, "paused");
    vm_report(v, VM_EV_STOPPED, 0, NULL, 0);
}

static void on_resume(struct vm *v, JsonObject *data)
{
    note_state(v, "running");
    v->guest_ended = false;
    vm_report(v, VM_EV_RESUMED, 0, NULL, 0);
}

static void on_panic(struct vm *v, JsonObject *data)
{
    note_state(v, "guest-panicked");
    vm_report(v, VM_EV_PANIC, 0, NULL, 0);
}

/* A word's place in a list that ends with NULL; -1: not there. */
static int word_index(const char *word, const char *const *words)
{
    for (int i = 0; word && words[i]; i++)
        if (!strcmp(words[i], word))
            return i;
    return -1;
}

/* A disk by its device's name or its node's: "disk-vda", "disk-vda-file". */
static const struct def_disk *disk_of(const struct vm *v, const char *device, const char *node)
{
    const struct domain_def *def = v->d ? v->d->live : NULL;
    for (unsigned i = 0; def && i < def->s.disk_count; i++) {
        const struct def_disk *disk = &def->s.disks[i];
        g_autofree char *own = g_strconcat("disk-", disk->target, NULL);
        size_t len = strlen(own);
        if ((device && !g_strcmp0(device, disk->alias)) || (device && !strcmp(device, own)) ||
            (node && !strncmp(node, own, len) && (!node[len] || node[len] == '-')))
            return disk;
    }
    return NULL;
}

static void on_io_error(struct vm *v, JsonObject *data)
{
    static const char *const actions[] = {"ignore", "stop", "report",
                                          NULL}; /* virDomainEventIOErrorAction */
    const struct def_disk *disk =
        disk_of(v, vm_json_string(data, "device"), vm_json_string(data, "node-name"));
    const char *const text[4] = {disk ? disk->source : "", disk ? disk->alias : "",
                                 vm_json_bool(data, "nospace") ? "enospc" : ""};
    int action = word_index(vm_json_string(data, "action"), actions);
    vm_report(v, VM_EV_IO_ERROR, MAX(action, 0), text, action == 1);
}

static void on_watchdog(struct vm *v, JsonObject *data)
{
    static const char *const actions[] = {
        "none",     "pause", "reset",      "poweroff",
        "shutdown", "debug", "inject-nmi", NULL}; /* virDomainEventWatchdogAction */
    int action = word_index(vm_json_string(data, "action"), actions);
    vm_report(v, VM_EV_WATCHDOG, MAX(action, 0), NULL, 0);
}

static void on_balloon(struct vm *v, JsonObject *data)
{
    int64_t bytes = vm_json_int(data, "actual", -1);
    if (bytes < 0)
        return;
    v->balloon_kib = bytes / 1024;
    vm_report(v, VM_EV_BALLOON, 0, NULL, v->balloon_kib);
}

static void on_threshold(struct vm *v, JsonObject *data)
{
    const struct def_disk *disk = disk_of(v, NULL, vm_json_string(data, "node-name"));
    if (disk && v->reporting && v->d)
        domain_threshold_passed(v->d, disk->target, disk->source,
                                (uint64_t)MAX(vm_json_int(data, "write-threshold", 0), 0),
                                (uint64_t)MAX(vm_json_int(data, "amount-exceeded", 0), 0));
}

static void on_suspend(struct vm *v, JsonObject *data)
{
    note_state(v, "suspended");
    vm_agent_done(v);
    vm_report(v, VM_EV_SLEEP, 0, NULL, 0);
}

static void on_suspend_disk(struct vm *v, JsonObject *data)
{
    vm_agent_done(v);
    vm_report(v, VM_EV_SLEEP, 1, NULL, 0);
}

static void on_wakeup(struct vm *v, JsonObject *data)
{
    note_state(v, "running");
    vm_report(v, VM_EV_WAKEUP, 0, NULL, 0);
}

static void on_rtc(struct vm *v, JsonObject *data)
{
    vm_report(v, VM_EV_RTC, 0, NULL, (uint64_t)vm_json_int(data, "offset", 0));
}

static void on_port(struct vm *v, JsonObject *data)
{
    const char *const text[4] = {vm_json_string(data, "id")};
    if (text[0])
        vm_report(v, VM_EV_PORT, vm_json_bool(data, "open"), text, 0);
}

static void on_device_deleted(struct vm *v, JsonObject *data)
{
    const char *const text[4] = {vm_json_string(data, "device")};
    if (!text[0])
        return;
    vm_device_deleted(v, text[0]);
    vm_report(v, VM_EV_DEVICE_DELETED, 0, text, 0);
}

/* QEMU names the device, or (of memory) gives a sentence too. */
static void on_unplug_error(struct vm *v, JsonObject *data)
{
    const char *const text[4] = {vm_json_string(data, "device")};
    if (!text[0])
        return;
    vm_unplug_refused(v, text[0]);
    vm_report(v, VM_EV_REMOVAL_FAILED, 0, text, 0);
}

/* What a guest says of a request to give a processor or memory back: ACPI 6.4, 6.3.5. */
static void on_ost(struct vm *v, JsonObject *data)
{
    enum { OST_EJECT_REQUEST = 3, OST_EJECT_PROCESSING = 0x103, OST_DONE = 0, OST_PENDING = 0x84 };
    JsonObject *info = vm_json_sub(data, "info");
    const char *const text[4] = {info ? vm_json_string(info, "device") : NULL};
    int64_t source = info ? vm_json_int(info, "source", 0) : 0;
    int64_t status = info ? vm_json_int(info, "status", OST_DONE) : OST_DONE;
    if (!text[0] || (source != OST_EJECT_REQUEST && source != OST_EJECT_PROCESSING) ||
        status == OST_DONE || status == OST_PENDING)
        return;
    vm_unplug_refused(v, text[0]);
    vm_report(v, VM_EV_REMOVAL_FAILED, 0, text, 0);
}

static void on_tray(struct vm *v, JsonObject *data)
{
    const char *const text[4] = {vm_json_string(data, "id")};
    if (text[0])
        vm_report(v, VM_EV_TRAY, vm_json_bool(data, "tray-open") ? 0 : 1, text, 0);
}

/* What became of it is asked for. */
static void on_job(struct vm *v, JsonObject *data)
{
    const char *status = vm_json_string(data, "status"), *id = vm_json_string(data, "id");
    if (id && g_str_has_prefix(id, "ruche-") &&
        (!g_strcmp0(status, "ready") || !g_strcmp0(status, "concluded")))
        vm_report(v, VM_EV_BLOCK_JOB, 0, NULL, 0);
}

static void on_pass(struct vm *v, JsonObject *data)
{
    vm_report(v, VM_EV_MIGRATION_PASS, (int)vm_json_int(data, "pass", 0), NULL, 0);
}

static const struct {
    const char *name;
    void (*fn)(struct vm *v, JsonObject *data);
} rows[] = {
    {"JOB_STATUS_CHANGE", on_job},
    {"MIGRATION_PASS", on_pass},
    {"BLOCK_WRITE_THRESHOLD", on_threshold},
    {"SUSPEND", on_suspend},
    {"SUSPEND_DISK", on_suspend_disk},
    {"WAKEUP", on_wakeup},
    {"SHUTDOWN", on_shutdown},
    {"RESET", on_reset},
    {"STOP", on_stop},
    {"RESUME", on_resume},
    {"GUEST_PANICKED", on_panic},
    {"BLOCK_IO_ERROR", on_io_error},
    {"WATCHDOG", on_watchdog},
    {"BALLOON_CHANGE", on_balloon},
    {"RTC_CHANGE", on_rtc},
    {"VSERPORT_CHANGE", on_port},
    {"DEVICE_DELETED", on_device_deleted},
    {"DEVICE_UNPLUG_GUEST_ERROR", on_unplug_error},
    {"MEM_UNPLUG_ERROR", on_unplug_error},
    {"ACPI_DEVICE_OST", on_ost},
    {"DEVICE_TRAY_MOVED", on_tray},
};

static void on_event(void *opaque, const char *name, JsonObject *data, int64_t seconds,
                     int64_t microseconds)
{
    struct vm *v = opaque;
    if (v->reporting && v->d)
        domain_monitor_event(v->d, name, data, seconds * G_USEC_PER_SEC + microseconds);
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        if (!strcmp(rows[i].name, name)) {
            rows[i].fn(v, data);
            return;
        }
}

/* Mostly the process has ended, which its descriptor tells; else it runs on without a monitor, and
 * can be ended. */
static void on_closed(void *opaque, const char *why)
{
    struct vm *v = opaque;
    g_free(v->lost_why);
    v->lost_why = g_strdup(why);
    g_clear_pointer(&v->qmp, qmp_client_free);
    if (v->ended)
        vm_report_gone(v);
}

const struct qmp_client_ops vm_monitor_ops = {.event = on_event, .closed = on_closed};
