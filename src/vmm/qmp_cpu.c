/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: CPUs and the accelerator under them. */
#include "vmm/hotplug.h"

static JsonNode *query_kvm(void *opaque, JsonObject *args, GError **error)
{
    const struct vmm *v = opaque;
    JsonObject *o = json_object_new();
    json_object_set_boolean_member(o, "enabled", !g_strcmp0(v->machine->accel->ops->name, "kvm"));
    json_object_set_boolean_member(o, "present", TRUE);
    return qmp_object(o);
}
static const struct qmp_command query_kvm_cmd = { .name = "query-kvm", .summary = "Is KVM in use?",
                                                  .call = query_kvm };
QMP_COMMAND(query_kvm_cmd);

static JsonNode *query_cpus_fast(void *opaque, JsonObject *args, GError **error)
{
    const struct machine *m = ((struct vmm *)opaque)->machine;
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        if (!m->vcpus[i]->present)
            continue;
        JsonObject *o = json_object_new(), *props = hotplug_cpu_props(m, i);
        g_autofree char *path = hotplug_cpu_path(opaque, i);
        json_object_set_int_member(o, "cpu-index", i);
        json_object_set_string_member(o, "qom-path", path);
        json_object_set_int_member(o, "thread-id", m->vcpus[i]->thread_id);
        json_object_set_object_member(o, "props", props);
        json_object_set_string_member(o, "target", "x86_64");
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_command query_cpus_fast_cmd = {
    .name = "query-cpus-fast", .summary = "CPUs and their threads", .call = query_cpus_fast,
};
QMP_COMMAND(query_cpus_fast_cmd);

static JsonNode *query_accel(void *opaque, JsonObject *args, GError **error)
{
    const struct vmm *v = opaque;
    const struct accel *a = v->machine->accel;
    JsonObject *o = json_object_new();
    JsonArray *emulated = json_array_new();
    for (unsigned i = 0; i < v->machine->vcpu_count; i++)
        if (v->machine->vcpus[i]->present)
            json_array_add_int_element(emulated, v->machine->vcpus[i]->emulated);
    json_object_set_string_member(o, "name", a->ops->name);
    json_object_set_string_member(o, "why", v->accel_note ? v->accel_note : "");
    json_object_set_int_member(o, "emulated", a->stats.emulated);
    json_object_set_array_member(o, "emulated-per-cpu", emulated);
    json_object_set_int_member(o, "exits", a->stats.exits);
    json_object_set_int_member(o, "mmio", a->stats.mmio);
    json_object_set_int_member(o, "pio", a->stats.pio);
    json_object_set_int_member(o, "halts", a->stats.halts);
    return qmp_object(o);
}
static const struct qmp_command query_accel_cmd = {
    .name = "x-ruche-query-accel", .summary = "The accelerator, why it was taken, and what it did",
    .call = query_accel,
};
QMP_COMMAND(query_accel_cmd);

#define CPU_STAT(field)                                                                            \
    {                                                                                              \
        #field, offsetof(struct cpu_stats, field)                                                  \
    }
static const struct {
    const char *name;
    size_t offset;
} cpu_stats[] = {
    CPU_STAT(instructions), CPU_STAT(blocks),      CPU_STAT(block_misses), CPU_STAT(tlb_misses),
    CPU_STAT(tlb_flushes),  CPU_STAT(page_walks),  CPU_STAT(exceptions),   CPU_STAT(interrupts),
    CPU_STAT(smc_invalidations), CPU_STAT(mmio),   CPU_STAT(pio),          CPU_STAT(decodes),
    CPU_STAT(tx_blocks),    CPU_STAT(tx_instructions), CPU_STAT(tx_code_bytes), CPU_STAT(tx_cold_bytes), CPU_STAT(tx_hollow),
    CPU_STAT(tx_links),     CPU_STAT(tx_written),  CPU_STAT(tx_entries),   CPU_STAT(tx_lookups),
    CPU_STAT(tx_exits),     CPU_STAT(tx_events),   CPU_STAT(tx_statuses),  CPU_STAT(tx_interpreted),
    CPU_STAT(tx_calls),     CPU_STAT(tx_slow),
};

static void add_to_member(JsonObject *o, const char *name, uint64_t n)
{
    if (n)
        json_object_set_int_member(o, name, (json_object_has_member(o, name) ? json_object_get_int_member(o, name) : 0) +
                                                (gint64)n);
}

/* Handlers that translated code called, by mnemonic. */
static void add_calls(JsonObject *o, const struct machine *m, struct vcpu *v)
{
    JsonObject *no_emitter = json_object_new(), *slow = json_object_new();
    struct cpu_calls c;
    for (unsigned k = 0; m->accel->ops->vcpu_calls && m->accel->ops->vcpu_calls(v, k, &c); k++) {
        add_to_member(no_emitter, c.mnemonic, c.no_emitter);
        add_to_member(slow, c.mnemonic, c.slow);
    }
    json_object_set_object_member(o, "tx_calls_by_mnemonic", no_emitter);
    json_object_set_object_member(o, "tx_slow_by_mnemonic", slow);
}

static JsonNode *query_cpu_stats(void *opaque, JsonObject *args, GError **error)
{
    const struct machine *m = ((struct vmm *)opaque)->machine;
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        if (!m->vcpus[i]->present)
            continue;
        JsonObject *o = json_object_new();
        const struct cpu_stats *s =
            m->accel->ops->vcpu_stats ? m->accel->ops->vcpu_stats(m->vcpus[i]) : NULL;
        json_object_set_int_member(o, "cpu-index", i);
        json_object_set_boolean_member(o, "halted", m->vcpus[i]->halted);
        json_object_set_int_member(o, "emulated", m->vcpus[i]->emulated);
        for (size_t k = 0; s && k < G_N_ELEMENTS(cpu_stats); k++) {
            uint64_t n = *(const uint64_t *)((const char *)s + cpu_stats[k].offset);
            json_object_set_int_member(o, cpu_stats[k].name, n);
        }
        add_calls(o, m, m->vcpus[i]);
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_command query_cpu_stats_cmd = {
    .name = "x-ruche-query-cpu-stats", .summary = "What the software CPU counted, per CPU",
    .call = query_cpu_stats,
};
QMP_COMMAND(query_cpu_stats_cmd);

static JsonNode *query_cpu_definitions(void *opaque, JsonObject *args, GError **error)
{
    JsonArray *list = json_array_new();
    for (const char *const *n = cpu_model_names(); *n; n++) {
        JsonObject *o = json_object_new();
        g_autofree char *type = g_strdup_printf("%s-x86_64-cpu", *n);
        json_object_set_string_member(o, "name", *n);
        json_object_set_string_member(o, "typename", type);
        json_object_set_boolean_member(o, "static", FALSE);
        json_object_set_boolean_member(o, "migration-safe", FALSE);
        json_object_set_boolean_member(o, "deprecated", FALSE);
        json_object_set_array_member(o, "unavailable-features", json_array_new());
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_command query_cpu_definitions_cmd = {
    .name = "query-cpu-definitions", .summary = "Processor models", .call = query_cpu_definitions,
};
QMP_COMMAND(query_cpu_definitions_cmd);

static JsonNode *query_target(void *opaque, JsonObject *args, GError **error)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "arch", "x86_64");
    return qmp_object(o);
}
static const struct qmp_command query_target_cmd = { .name = "query-target",
                                                     .summary = "The guest's architecture",
                                                     .call = query_target };
QMP_COMMAND(query_target_cmd);
