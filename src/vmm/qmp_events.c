/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The events that this program sends: rows for the schema. run.c and devices send them. */
#include "vmm/qmp_util.h"

static const struct qmp_arg cause_data[] = {
    { "guest", QMP_BOOL, false, "The guest did it" },
    { "reason", QMP_STRING, false, "guest-shutdown, guest-reset, host-qmp-quit, host-signal..." },
    { 0 },
};
static const struct qmp_arg action_data[] = {
    { "action", QMP_STRING, false, "pause, poweroff, run" },
    { 0 },
};
static const struct qmp_arg io_error_data[] = {
    { "device", QMP_STRING, false, "The drive" },
    { "node-name", QMP_STRING, true, "Its node" },
    { "operation", QMP_STRING, false, "read, write" },
    { "action", QMP_STRING, false, "report, ignore, stop" },
    { "nospace", QMP_BOOL, true, "The disk is full" },
    { "reason", QMP_STRING, false, "A sentence for people" },
    { 0 },
};
static const struct qmp_arg filter_data[] = {
    { "name", QMP_STRING, true, "The network device" },
    { "path", QMP_STRING, false, "Its path" },
    { 0 },
};
static const struct qmp_arg port_data[] = {
    { "id", QMP_STRING, false, "The port" },
    { "open", QMP_BOOL, false, "The guest has it open" },
    { 0 },
};
static const struct qmp_arg rtc_data[] = {
    { "offset", QMP_INT, false, "Seconds between the guest's clock and the host's" },
    { "qom-path", QMP_STRING, true, "The clock's path" },
    { 0 },
};
static const struct qmp_arg broken_data[] = {
    { "device", QMP_STRING, true, "Its id" },
    { "path", QMP_STRING, false, "Its path" },
    { "type", QMP_STRING, true, "Its kind" },
    { "reason", QMP_STRING, false, "What the guest did" },
    { 0 },
};

/* `...`: .limit_by, where a guest can send as many as it likes. */
#define EVENT(symbol, name_, summary_, data_, ...)                                                 \
    static const struct qmp_event_type symbol = { .name = name_,                                   \
                                                  .summary = summary_,                             \
                                                  .data = data_,                                   \
                                                  __VA_ARGS__ };                                   \
    QMP_EVENT(symbol)

EVENT(shutdown_event, "SHUTDOWN", "The machine ends", cause_data);
EVENT(reset_event, "RESET", "The machine was reset", cause_data);
EVENT(powerdown_event, "POWERDOWN", "The power button was pressed", NULL);
EVENT(stop_event, "STOP", "The machine stands", NULL);
EVENT(resume_event, "RESUME", "The machine runs", NULL);
EVENT(panicked_event, "GUEST_PANICKED", "The guest's kernel panicked", action_data,
      .limit_by = "action");
EVENT(crashloaded_event, "GUEST_CRASHLOADED", "The guest's crash kernel was loaded", action_data,
      .limit_by = "action");
EVENT(io_error_event, "BLOCK_IO_ERROR", "A disk request failed", io_error_data,
      .limit_by = "device");
EVENT(filter_event, "NIC_RX_FILTER_CHANGED", "The guest changed a receive filter", filter_data);
EVENT(port_event, "VSERPORT_CHANGE", "The guest opened or closed a console port", port_data,
      .limit_by = "id");
EVENT(rtc_event, "RTC_CHANGE", "The guest set its clock", rtc_data);
EVENT(broken_event, "X_RUCHE_DEVICE_BROKEN",
      "The guest broke a device's rules; it stands until reset", broken_data, .limit_by = "path");
