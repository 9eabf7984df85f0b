/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Finding a machine again that went on without us: its process by number and start time, its
 * monitor by the folder's socket.
 *
 * A process that lives and does not answer is still the domain's machine: it is returned without a
 * monitor, to be ended.
 */
#include "manager/domain/vm_internal.h"

#include "base/log.h"

#define ATTACH_MS 10000

void vm_status(const struct vm *v, xmlNode *status)
{
    xml_set_f(status, "machine@pid", "%d", (int)v->pid);
    xml_set_f(status, "machine@start", "%" G_GUINT64_FORMAT, v->start_ticks);
    xml_set(status, "machine@emulator", v->ours ? "ruche" : "qemu");
    xml_set_f(status, "machine@balloon", "%" G_GUINT64_FORMAT, v->balloon_kib);
}

static bool find_process(struct vm *v, const xmlNode *status, GError **error)
{
    v->pid = (pid_t)MIN(xml_get_u64(status, "machine@pid", 0), G_MAXINT);
    v->start_ticks = xml_get_u64(status, "machine@start", 0);
    v->ours = xml_is(status, "machine@emulator", "ruche");
    v->balloon_kib = xml_get_u64(status, "machine@balloon", 0);
    if (v->pid <= 0 || vm_process_start(v->pid) != v->start_ticks || !v->start_ticks)
        return ruche_error(error, MANAGER_ERR_MACHINE, "its process %d is gone", (int)v->pid);
    return vm_watch(v, error);
}

/* What it was before is not known exactly; that it runs is the safest to say. */
static void go_without(struct vm *v, const GError *why)
{
    log_warn("%s", why->message);
    g_clear_pointer(&v->qmp, qmp_client_free);
    g_free(v->lost_why);
    v->lost_why = g_strdup(why->message);
    g_free(v->run_state);
    v->run_state = g_strdup("running");
}

static void read_balloon(struct vm *v)
{
    g_autoptr(JsonNode) n = vm_call(v, "query-balloon", NULL, NULL);
    int64_t bytes = vm_json_int(vm_json_object(n), "actual", 0);
    if (bytes > 0)
        v->balloon_kib = (uint64_t)bytes / 1024;
}

struct vm *vm_attach(struct domain *d, const xmlNode *status, GError **error)
{
    struct vm *v = vm_new(d);
    g_autoptr(GError) why = NULL;
    if (!find_process(v, status, error)) {
        vm_free(v);
        return NULL;
    }
    v->cgroup = cgroup_find(vm_cgroup_name(v));
    vm_know_balloon(v, domain_def_tree(d->live));
    if (!vm_connect_monitor(v, ATTACH_MS, &why) || !vm_read_state(v, &why) ||
        !vm_read_threads(v, &why))
        go_without(v, why);
    else
        read_balloon(v);
    vm_begin_reports(v);
    return v;
}
