/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-vmm: one process, one virtual machine.
 *
 * Exit status: 0 when the guest powered off or somebody ended the machine, (code << 1) | 1 for
 * isa-debug-exit, 1 for an error, which is one sentence on standard error; then nothing is left
 * behind: no socket, pid file or terminal setting.
 */
#include "base/log.h"
#include "chardev/chardev.h"
#include "vmm/build.h"
#include "vmm/daemon.h"
#include "vmm/migrate.h"
#include "vmm/monitor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static void on_signal(void *opaque, int signal, int pid)
{
    struct vmm *v = opaque;
    if (!v->run.ending)
        log_info("ending on signal %d from process %d", signal, pid);
    chardev_stop_waiting();
    qmp_server_stop_waiting(v->qmp);
    run_quit(v, CAUSE_SIGNAL);
}

/* What -daemonize and the terminal cannot have together. */
static bool check_terminal(const struct vm_options *o, GError **error)
{
    if (!o->daemonize)
        return true;
    if (o->nographic && !o->serials->len && !o->nodefaults)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "-daemonize: -nographic needs the terminal; use -display none and -serial file:PATH");
    for (guint i = 0; i < o->serials->len; i++)
        if (strstr(g_ptr_array_index(o->serials, i), "stdio"))
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "-daemonize: -serial %s needs the terminal",
                               (char *)g_ptr_array_index(o->serials, i));
    for (guint i = 0; i < o->monitors->len; i++) {
        const struct monitor_text *m = g_ptr_array_index(o->monitors, i);
        if (strstr(m->spec, "stdio"))
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "-daemonize: a monitor on '%s' needs the terminal", m->spec);
    }
    for (guint i = 0; i < o->chardevs->len; i++)
        if (!g_strcmp0(kv_get(g_ptr_array_index(o->chardevs, i), "backend"), "stdio"))
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "-daemonize: -chardev stdio needs the terminal");
    return true;
}

static bool init_loop(struct vmm *v, GError **error)
{
    v->loop = loop_new("ruche-vmm");
    if (!v->loop)
        return ruche_error_errno(error, errno, "cannot make the main loop");
    loop_attach(v->loop);
    v->glib_loop = g_main_loop_new(NULL, FALSE);
    v->qmp = qmp_server_new(v);
    return signals_init(v->loop, on_signal, v, error);
}

static bool start(struct vmm *v, GError **error)
{
    const struct vm_options *o = &v->options;
    if (!check_terminal(o, error) || (o->daemonize && !daemon_start(error)))
        return false;
    if (o->process_name)
        prctl(PR_SET_NAME, o->process_name);
    if (!init_loop(v, error) || (o->pidfile && !pidfile_create(o->pidfile, error)) ||
        !vmm_build(v, error))
        return false;
    if (!o->display_named && !o->serials->len && !o->nodefaults)
        log_info("there is no display yet: -nographic shows the console on this terminal");
    return daemon_ready(error);
}

static void run(struct vmm *v)
{
    g_autoptr(GError) error = NULL;
    if (v->run.ending)
        return;
    const char *incoming = v->options.incoming;
    if (!(incoming ? migrate_incoming(v, incoming, &error) : v->options.start_paused || run_cont(v, &error))) {
        log_error("%s", error->message);
        v->exit_status = 1;
        return;
    }
    if (!v->run.ending)
        g_main_loop_run(v->glib_loop);
}

static void finish(struct vmm *v)
{
    struct loop *l = v->loop;
    vmm_done(v);
    signals_done();
    pidfile_remove();
    g_clear_pointer(&v->glib_loop, g_main_loop_unref);
    loop_free(l);
}

int main(int argc, char **argv)
{
    static struct vmm v;
    g_autoptr(GError) error = NULL;
    log_set_program("ruche-vmm");
    vmm_init(&v);
    bool ok = vm_options_parse(&v.options, argc, argv, &error);
    if (ok && v.options.exit_now) {
        vm_options_done(&v.options);
        return fflush(stdout) ? 1 : 0;
    }
    if (ok && start(&v, &error)) {
        run(&v);
    } else {
        v.exit_status = 1;
        if (!v.run.ending)
            log_error("%s", error ? error->message : "cannot start");
        else
            v.exit_status = 0;
    }
    int status = v.exit_status;
    finish(&v);
    return status;
}
