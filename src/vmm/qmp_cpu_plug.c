/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vCPUs that come and go while the machine runs: places, device_add and device_del of a CPU, what
 * the guest says of it.
 *
 * Spec      QEMU's QMP: query-hotpluggable-cpus, ACPI_DEVICE_OST.
 * Thread    The main thread.
 */
#include "devices/misc/cpu_hotplug.h"
#include "machine/acpi/acpi.h"
#include "vmm/hotplug.h"

#include <string.h>

#define CPU_SUFFIX "-x86_64-cpu"

bool hotplug_is_cpu(const char *driver)
{
    return g_str_has_suffix(driver, CPU_SUFFIX);
}

static char *cpu_type(const struct vmm *v)
{
    const char *model = v->options.cpu ? v->options.cpu : "max";
    return g_strdup_printf("%.*s" CPU_SUFFIX, (int)strcspn(model, ","), model);
}

/* ---- places ---- */

/* By the member's name; the last varies fastest. */
enum { SOCKET, DIE, CORE, THREAD, N_LEVELS };
static const char *const level_names[N_LEVELS] = {"socket-id", "die-id", "core-id", "thread-id"};

static void place_of(const struct cpu_topology *t, unsigned index, unsigned ret[N_LEVELS])
{
    ret[THREAD] = index % t->threads;
    ret[CORE] = index / t->threads % t->cores;
    ret[DIE] = index / t->threads / t->cores % t->dies;
    ret[SOCKET] = index / t->threads / t->cores / t->dies;
}

JsonObject *hotplug_cpu_props(const struct machine *m, unsigned index)
{
    JsonObject *props = json_object_new();
    unsigned at[N_LEVELS];
    place_of(&m->config.topology, index, at);
    for (int i = 0; i < N_LEVELS; i++)
        if (i != DIE || m->config.topology.dies > 1)
            json_object_set_int_member(props, level_names[i], at[i]);
    return props;
}

char *hotplug_cpu_path(const struct vmm *v, unsigned index)
{
    return v->cpu_ids[index] ? g_strdup_printf("/machine/peripheral/%s", v->cpu_ids[index])
                             : g_strdup_printf("/machine/unattached/cpu[%u]", index);
}

static JsonNode *query_hotpluggable_cpus(void *opaque, JsonObject *args, GError **error)
{
    const struct vmm *v = opaque;
    const struct machine *m = v->machine;
    JsonArray *list = json_array_new();
    g_autofree char *type = cpu_type(v);
    for (unsigned i = m->vcpu_count; i-- > 0;) {
        JsonObject *o = json_object_new();
        json_object_set_object_member(o, "props", hotplug_cpu_props(m, i));
        json_object_set_int_member(o, "vcpus-count", 1);
        json_object_set_string_member(o, "type", type);
        g_autofree char *path = hotplug_cpu_path(v, i);
        if (m->vcpus[i]->present)
            json_object_set_string_member(o, "qom-path", path);
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_command query_hotpluggable_cpus_cmd = {
    .name = "query-hotpluggable-cpus",
    .summary = "Places of CPUs, taken (qom-path) and free",
    .call = query_hotpluggable_cpus,
};
QMP_COMMAND(query_hotpluggable_cpus_cmd);

/* ---- in ---- */

static bool read_place(const struct vmm *v, const struct kv_list *l, unsigned *ret_index,
                       GError **error)
{
    const struct cpu_topology *t = &v->machine->config.topology;
    const unsigned counts[N_LEVELS] = {t->sockets, t->dies, t->cores, t->threads};
    static const char *const known[] = {"driver",  "id",        "socket-id", "die-id",
                                        "core-id", "thread-id", "node-id",   NULL};
    unsigned index = 0;
    if (!kv_check_known(l, known, error))
        return false;
    for (int i = 0; i < N_LEVELS; i++) {
        uint64_t at = 0;
        if (!kv_has(l, level_names[i]) && i != DIE)
            return ruche_error(error, RUCHE_ERR_INVALID, "CPU %s is not set", level_names[i]);
        if (!kv_get_u64(l, level_names[i], 0, counts[i] - 1, &at, error))
            return false;
        index = index * counts[i] + (unsigned)at;
    }
    *ret_index = index;
    return true;
}

static bool check_cpu(struct vmm *v, const struct kv_list *l, unsigned *ret_index, GError **error)
{
    const char *driver = kv_get(l, "driver"), *id = kv_get(l, "id");
    g_autofree char *type = cpu_type(v);
    if (strcmp(driver, type))
        return ruche_error(error, RUCHE_ERR_INVALID, "Invalid CPU type '%s': the machine's is '%s'",
                           driver, type);
    if (!acpi_has_cpu_hotplug(v->machine))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "CPU hot plug needs ACPI and a 'maxcpus' above 'cpus' in -smp");
    if (id && !kv_check_id(id, error))
        return false;
    if (id && (machine_find_device(v->machine, id) || hotplug_find_cpu(v, id) >= 0))
        return ruche_error(error, RUCHE_ERR_EXISTS, "device id '%s' is taken", id);
    if (!read_place(v, l, ret_index, error))
        return false;
    return !v->machine->vcpus[*ret_index]->present ||
           ruche_error(error, RUCHE_ERR_EXISTS, "CPU[%u] with this place exists", *ret_index);
}

bool hotplug_cpu_add(struct vmm *v, struct kv_list *l, GError **error)
{
    unsigned index = 0;
    if (!check_cpu(v, l, &index, error) || !machine_vcpu_plug(v->machine, index, error))
        return false;
    v->cpu_ids[index] = g_strdup(kv_get(l, "id"));
    if (v->machine->powered_on)
        cpu_hotplug_inserted(v->machine, index);
    return true;
}

/* ---- out ---- */

int hotplug_find_cpu(const struct vmm *v, const char *id)
{
    for (unsigned i = 0; v->machine && i < v->machine->vcpu_count; i++) {
        g_autofree char *path = hotplug_cpu_path(v, i);
        if (v->machine->vcpus[i]->present && (!g_strcmp0(v->cpu_ids[i], id) || !strcmp(path, id)))
            return (int)i;
    }
    return -1;
}

bool hotplug_cpu_del(struct vmm *v, unsigned index, GError **error)
{
    if (!acpi_has_cpu_hotplug(v->machine))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "this machine has no CPU hot plug");
    if (!index)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "Boot CPU is unpluggable");
    cpu_hotplug_request(v->machine, index);
    return true;
}

void hotplug_cpu_ejected(void *opaque, unsigned index)
{
    struct vmm *v = opaque;
    if (!index || index >= v->machine->vcpu_count || !v->machine->vcpus[index]->present)
        return;
    g_autofree char *path = hotplug_cpu_path(v, index), *id = g_steal_pointer(&v->cpu_ids[index]);
    machine_vcpu_unplug(v->machine, index);
    hotplug_deleted_event(v, id, path);
}

void hotplug_done(struct vmm *v)
{
    for (unsigned i = 0; v->machine && v->cpu_ids && i < v->machine->vcpu_count; i++)
        g_free(v->cpu_ids[i]);
    g_clear_pointer(&v->cpu_ids, g_free);
}

/* ---- what the guest reports ---- */

void hotplug_cpu_reported(void *opaque, unsigned index, uint32_t event, uint32_t status)
{
    struct vmm *v = opaque;
    JsonObject *data = json_object_new(), *info = json_object_new();
    g_autofree char *slot = g_strdup_printf("%u", index);
    if (v->cpu_ids[index])
        json_object_set_string_member(info, "device", v->cpu_ids[index]);
    json_object_set_string_member(info, "slot", slot);
    json_object_set_string_member(info, "slot-type", "CPU");
    json_object_set_int_member(info, "source", event);
    json_object_set_int_member(info, "status", status);
    json_object_set_object_member(data, "info", info);
    qmp_event(v->qmp, "ACPI_DEVICE_OST", data);
}

static const struct qmp_arg ost_data[] = {
    {"info", QMP_OBJECT, false, "device, slot, slot-type, source (the event), status (0: done)"},
    {0},
};
/* That a removal has begun and how it ended come close together, and somebody waits for them: so none
 * is held back, of a guest that means no harm. */
static const struct qmp_event_type ost_type = {.name = "ACPI_DEVICE_OST",
                                               .summary =
                                                   "The guest reports on plugging a CPU in or out",
                                               .data = ost_data,
                                               .limit_by = "info.slot",
                                               .limit_burst = 8};
QMP_EVENT(ost_type);
