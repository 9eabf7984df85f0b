/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Finding a machine again that went on without us: its process by number and start time, its
 * monitor by the folder's socket.
 *
 * A process that lives and does not answer is still the domain's machine: it is returned without a
 * monitor, to be ended.
 */
#include "manager/domain/vm_internal.h"

#include "base/log.h"

#include <string.h>

#define ATTACH_MS 10000

void vm_status(const struct vm *v, struct xml_node *status)
{
    xml_set_f(status, "machine@pid", "%d", (int)v->pid);
    xml_set_f(status, "machine@start", "%" G_GUINT64_FORMAT, v->start_ticks);
    xml_set(status, "machine@emulator", v->ours ? "ruche" : "qemu");
    xml_set_f(status, "machine@balloon", "%" G_GUINT64_FORMAT, v->balloon_kib);
}

static bool find_process(struct vm *v, const struct xml_node *status, GError **error)
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

/* ---- what went while nobody listened ---- */

/* Kinds whose devices the emulator knows by their aliases. */
static bool is_named_device(const struct xml_node *n)
{
    static const char *const kinds[] = {"disk", "interface", "rng", "channel", NULL};
    return xml_is_element(n) && xml_get(n, "alias@name") &&
           (g_strv_contains(kinds, n->name) ||
            (!strcmp(n->name, "controller") && xml_is(n, "@type", "virtio-serial")) ||
            (!strcmp(n->name, "memballoon") && !xml_is(n, "@model", "none")));
}

static bool is_listed(JsonArray *list, const char *name)
{
    JsonObject *o;
    for (guint i = 0; (o = vm_json_at(list, i)); i++)
        if (!g_strcmp0(vm_json_string(o, "name"), name))
            return true;
    return false;
}

/* Aliases that the live description has and the machine has not. */
static GPtrArray *find_lost(struct vm *v, JsonArray *list)
{
    GPtrArray *lost = g_ptr_array_new_with_free_func(g_free);
    const struct xml_node *devices = xml_find(domain_def_tree(v->d->live), "devices");
    for (const struct xml_node *n = devices ? devices->children : NULL; n; n = n->next)
        if (is_named_device(n) && !is_listed(list, xml_get(n, "alias@name")))
            g_ptr_array_add(lost, g_strdup(xml_get(n, "alias@name")));
    domain_def_shrink(v->d->live);
    return lost;
}

static void report_lost(struct vm *v, const char *alias)
{
    const char *const text[4] = {alias};
    vm_device_deleted(v, alias);
    vm_report(v, VM_EV_DEVICE_DELETED, 0, text, 0);
}

static bool is_disk_of(struct domain_def *def, const char *node)
{
    for (unsigned i = 0; i < def->s.disk_count; i++) {
        g_autofree char *own = g_strconcat("disk-", def->s.disks[i].target, NULL);
        size_t len = strlen(own);
        if (!strncmp(node, own, len) && (!node[len] || node[len] == '-'))
            return true;
    }
    return false;
}

/* Images of a disk that has left: who saw it go did not come to close them. */
static void close_orphans(struct vm *v)
{
    g_autoptr(JsonNode) all =
        vm_call(v, "query-named-block-nodes", vm_json("flat", 'b', TRUE, NULL), NULL);
    JsonObject *o;
    for (guint i = 0; (o = vm_json_at(vm_json_array(all), i)); i++) {
        const char *node = vm_json_string(o, "node-name");
        if (!node || !g_str_has_prefix(node, "disk-") || !v->d || !v->d->live ||
            is_disk_of(v->d->live, node))
            continue;
        g_autofree char *disk =
            g_strndup(node, strlen("disk-") + strcspn(node + strlen("disk-"), "-"));
        vm_delete_nodes(v, disk);
    }
}

void vm_catch_up(struct vm *v)
{
    __attribute__((unused)) auto_vm *keep = vm_ref(v);
    g_autoptr(JsonNode) answer =
        v->qmp ? vm_call(v, "qom-list", vm_json("path", 's', "/machine/peripheral", NULL), NULL)
               : NULL;
    JsonArray *list = vm_json_array(answer);
    unsigned vcpus = list ? vm_vcpu_count(v) : 0;
    if (!list || !v->d || !v->d->live)
        return;
    g_autoptr(GPtrArray) lost = find_lost(v, list);
    for (guint i = 0; i < lost->len; i++)
        report_lost(v, lost->pdata[i]);
    if (vcpus && vcpus != v->d->live->s.vcpus)
        vm_report(v, VM_EV_DEVICE_DELETED, 0, (const char *const[4]){"vcpu"}, 0);
    close_orphans(v);
}

struct vm *vm_attach(struct domain *d, const struct xml_node *status, GError **error)
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
