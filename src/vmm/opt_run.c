/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options about the process and its run: starting, ending, logging. */
#include "base/fdset.h"
#include "base/log.h"
#include "vmm/options.h"

#include <string.h>

static bool take_help(struct vm_options *o, const char *arg, GError **error)
{
    help_options();
    o->exit_now = true;
    return true;
}

static bool take_version(struct vm_options *o, const char *arg, GError **error)
{
    help_version();
    o->exit_now = true;
    return true;
}

static bool take_nothing(struct vm_options *o, const char *arg, GError **error)
{
    return true;
}

static bool take_nodefaults(struct vm_options *o, const char *arg, GError **error)
{
    o->nodefaults = true;
    return true;
}

static bool take_no_reboot(struct vm_options *o, const char *arg, GError **error)
{
    o->on_reboot = REBOOT_SHUTDOWN;
    return true;
}

static bool take_no_shutdown(struct vm_options *o, const char *arg, GError **error)
{
    o->on_shutdown = SHUTDOWN_PAUSE;
    return true;
}

bool options_set_action(struct vm_options *o, const char *arg, GError **error)
{
    static const char *const known[] = { "reboot", "shutdown", "panic", "watchdog", NULL };
    static const char *const reboots[] = { "reset", "shutdown", NULL };
    static const char *const shutdowns[] = { "poweroff", "pause", NULL };
    static const char *const panics[] = { "shutdown", "pause", "exit-failure", "none", NULL };
    static const char *const watchdogs[] = { "reset", "shutdown", "poweroff",   "pause",
                                             "debug", "none",     "inject-nmi", NULL };
    auto_kv *l = kv_parse(arg, NULL, error);
    int reboot = o->on_reboot, shutdown = o->on_shutdown, panic = o->on_panic, watchdog = 0;
    if (!l || !kv_check_known(l, known, error) ||
        !kv_get_word(l, "reboot", reboots, &reboot, error) ||
        !kv_get_word(l, "shutdown", shutdowns, &shutdown, error) ||
        !kv_get_word(l, "panic", panics, &panic, error) ||
        !kv_get_word(l, "watchdog", watchdogs, &watchdog, error))
        return false;
    o->on_reboot = reboot;
    o->on_shutdown = shutdown;
    o->on_panic = panic;
    return true;
}

static bool take_stopped(struct vm_options *o, const char *arg, GError **error)
{
    o->start_paused = true;
    return true;
}

static bool take_incoming(struct vm_options *o, const char *arg, GError **error)
{
    return option_set_string(&o->incoming, arg);
}

static bool take_pidfile(struct vm_options *o, const char *arg, GError **error)
{
    return option_set_string(&o->pidfile, arg);
}

static bool take_daemonize(struct vm_options *o, const char *arg, GError **error)
{
    o->daemonize = true;
    return true;
}

static bool take_msg(struct vm_options *o, const char *arg, GError **error)
{
    static const char *const known[] = { "timestamp", "guest-name", NULL };
    bool timestamps = false, names = false;
    auto_kv *l = kv_parse(arg, NULL, error);
    if (!l || !kv_check_known(l, known, error) ||
        !kv_get_bool(l, "timestamp", &timestamps, error) ||
        !kv_get_bool(l, "guest-name", &names, error))
        return false;
    log_set_timestamps(timestamps);
    return true;
}

static bool take_log_file(struct vm_options *o, const char *arg, GError **error)
{
    int err = log_set_file(arg);
    return err == 0 || ruche_error_errno(error, -err, "'%s'", arg);
}

static bool take_log_items(struct vm_options *o, const char *arg, GError **error)
{
    if (!strcmp(arg, "help") || !strcmp(arg, "?")) {
        help_log_items();
        o->exit_now = true;
        return true;
    }
    uint32_t items = 0;
    const char *unknown = log_parse_items(arg, &items);
    if (unknown) {
        const char *names[64];
        size_t n = 0;
        for (const struct log_item_name *i = log_item_names; i->name && n < G_N_ELEMENTS(names) - 1;
             i++)
            names[n++] = i->name;
        names[n] = NULL;
        return ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown item '%s'%s", unknown,
                           suggest_phrase(unknown, names));
    }
    log_items |= items;
    return true;
}

static bool take_trace(struct vm_options *o, const char *arg, GError **error)
{
    static const char *const known[] = { "enable", "events", "file", NULL };
    auto_kv *l = kv_parse(arg, "enable", error);
    if (!l || !kv_check_known(l, known, error))
        return false;
    if (kv_get(l, "events"))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "'events' files are not read; use enable=PATTERN");
    const char *file = kv_get(l, "file"), *pattern = kv_get(l, "enable");
    if (file && !take_log_file(o, file, error))
        return false;
    if (pattern)
        log_trace_enable(pattern);
    log_items |= LOG_TRACE;
    return true;
}

static bool take_add_fd(struct vm_options *o, const char *arg, GError **error)
{
    static const char *const known[] = { "fd", "set", "opaque", NULL };
    uint64_t fd = 0, set = 0;
    auto_kv *l = kv_parse(arg, NULL, error);
    if (!l || !kv_check_known(l, known, error) || !kv_get_u64(l, "fd", 3, INT32_MAX, &fd, error) ||
        !kv_get_u64(l, "set", 0, INT32_MAX - 1, &set, error))
        return false;
    if (!kv_has(l, "fd") || !kv_has(l, "set"))
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s=' is missing", kv_has(l, "fd") ? "set" : "fd");
    int err = fdset_add((int)set, (int)fd);
    return err >= 0 || ruche_error_errno(error, -err, "descriptor %u", (unsigned)fd);
}

static bool take_sandbox(struct vm_options *o, const char *arg, GError **error)
{
    static const char *const known[] = { "enable", "obsolete",        "elevateprivileges",
                                         "spawn",  "resourcecontrol", NULL };
    bool on = false;
    auto_kv *l = kv_parse(arg, "enable", error);
    if (!l || !kv_check_known(l, known, error) || !kv_get_bool(l, "enable", &on, error))
        return false;
    if (on)
        log_warn("-sandbox: there is no system call filter yet: this process runs without one");
    return true;
}

static bool refuse_user(struct vm_options *o, const char *arg, GError **error)
{
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "changing the user is not here; start the program as '%s'", arg);
}

static bool refuse_config(struct vm_options *o, const char *arg, GError **error)
{
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "configuration files are not read; use options");
}

static bool take_overcommit(struct vm_options *o, const char *arg, GError **error)
{
    static const char *const known[] = { "mem-lock", "cpu-pm", "mlock", NULL };
    bool v = false;
    auto_kv *l = kv_parse(arg, NULL, error);
    if (!l || !kv_check_known(l, known, error))
        return false;
    for (int i = 0; known[i]; i++)
        if (!kv_get_bool(l, known[i], &v, error))
            return false;
    if (v)
        log_warn("-overcommit %s: without effect here", arg);
    return true;
}

const struct option_row run_option_rows[] = {
    { "S", NULL, "do not start the CPUs: 'cont' does", GROUP_RUN, take_stopped },
    { "incoming", "defer|fd:N|file:PATH|exec:COMMAND|unix:PATH|tcp:HOST:PORT",
      "wait for a machine that 'migrate' sends, or read one that it saved", GROUP_RUN, take_incoming },
    { "no-reboot", NULL, "a guest's reboot ends the program", GROUP_RUN, take_no_reboot },
    { "no-shutdown", NULL, "a guest's power-off only stops the machine", GROUP_RUN,
      take_no_shutdown },
    { "action", "reboot=reset|shutdown,shutdown=poweroff|pause,panic=...",
      "what the guest's reboot, power-off or panic does", GROUP_RUN, options_set_action },
    { "daemonize", NULL, "go to the background once the machine is up", GROUP_RUN, take_daemonize },
    { "pidfile", "FILE", "holds the process number while the program runs", GROUP_RUN,
      take_pidfile },
    { "nodefaults", NULL, "no serial port, network or monitor but those asked for", GROUP_RUN,
      take_nodefaults },
    { "no-user-config", NULL, NULL, GROUP_RUN, take_nothing },
    { "nodefconfig", NULL, NULL, GROUP_RUN, take_nothing },
    { "add-fd", "fd=N,set=M", "descriptor N is opened by the path /dev/fdset/M", GROUP_RUN, take_add_fd },
    { "sandbox", "on|off", "accepted; a system call filter is not here yet", GROUP_RUN,
      take_sandbox },
    { "overcommit", "mem-lock=on|off", NULL, GROUP_RUN, take_overcommit },
    { "realtime", "mlock=on|off", NULL, GROUP_RUN, take_overcommit },
    { "runas", "USER", NULL, GROUP_RUN, refuse_user },
    { "user", "USER", NULL, GROUP_RUN, refuse_user },
    { "run-with", "USER", NULL, GROUP_RUN, refuse_user },
    { "readconfig", "FILE", NULL, GROUP_RUN, refuse_config },
    { "d", "ITEM[,ITEM...]", "log these; '-d help' lists them", GROUP_DEBUG, take_log_items },
    { "D", "FILE", "the log goes to this file", GROUP_DEBUG, take_log_file },
    { "trace", "[enable=]PATTERN[,file=FILE]", "log events whose names match", GROUP_DEBUG,
      take_trace },
    { "msg", "timestamp=on|off", "messages carry the time", GROUP_DEBUG, take_msg },
    { "help", NULL, "this text", GROUP_OTHER, take_help },
    { "h", NULL, NULL, GROUP_OTHER, take_help },
    { "version", NULL, "the program's version", GROUP_OTHER, take_version },
    { 0 },
};
