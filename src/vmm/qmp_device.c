/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: devices and their kinds. */
#include "devices/pci/pci.h"
#include "netdev/netdev.h"
#include "vmm/qmp_util.h"

#include <string.h>

static JsonNode *qom_list_types(void *opaque, JsonObject *args, GError **error)
{
    const char *implements =
        json_object_get_string_member_with_default(args, "implements", "device");
    JsonArray *list = json_array_new();
    bool devices = !strcmp(implements, "device");
    for (const struct device_type *const *t = device_type_list(); devices && *t; t++) {
        JsonObject *o = json_object_new();
        json_object_set_string_member(o, "name", (*t)->name);
        json_object_set_string_member(o, "parent", "device");
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_arg qom_list_types_args[] = {
    { "implements", QMP_STRING, true, "Only 'device' has kinds" },
    { "abstract", QMP_BOOL, true, "Accepted; no kind is abstract" },
    { 0 },
};
static const struct qmp_command qom_list_types_cmd = {
    .name = "qom-list-types",
    .summary = "Kinds of devices",
    .args = qom_list_types_args,
    .call = qom_list_types,
};
QMP_COMMAND(qom_list_types_cmd);

static const char *const prop_types[] = {
    [PROP_KIND_BOOL] = "bool",   [PROP_KIND_U8] = "uint8",   [PROP_KIND_U16] = "uint16",
    [PROP_KIND_U32] = "uint32",  [PROP_KIND_U64] = "uint64", [PROP_KIND_I32] = "int32",
    [PROP_KIND_SIZE] = "size",   [PROP_KIND_STRING] = "str", [PROP_KIND_ENUM] = "enum",
    [PROP_KIND_MAC] = "str",     [PROP_KIND_ONOFFAUTO] = "OnOffAuto",
};

static JsonNode *device_list_properties(void *opaque, JsonObject *args, GError **error)
{
    const char *name = json_object_get_string_member(args, "typename");
    const struct device_type *t = device_type_find(name);
    if (!t) {
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no device '%s'%s", name,
                    device_type_suggest(name));
        return NULL;
    }
    JsonArray *list = json_array_new();
    for (const struct prop *p = t->props; p && p->name; p++) {
        JsonObject *o = json_object_new();
        json_object_set_string_member(o, "name", p->name);
        json_object_set_string_member(o, "type", prop_types[p->kind]);
        if (p->help)
            json_object_set_string_member(o, "description", p->help);
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_arg device_list_properties_args[] = {
    { "typename", QMP_STRING, false, "A device's kind" },
    { 0 },
};
static const struct qmp_command device_list_properties_cmd = {
    .name = "device-list-properties", .summary = "Properties of a kind of device",
    .args = device_list_properties_args, .call = device_list_properties,
};
QMP_COMMAND(device_list_properties_cmd);

static JsonNode *query_counters(void *opaque, JsonObject *args, GError **error)
{
    const struct machine *m = ((struct vmm *)opaque)->machine;
    JsonArray *list = json_array_new();
    for (const struct device *d = m->devices; d; d = d->next) {
        JsonObject *o = json_object_new(), *counters = json_object_new();
        for (const struct device_counter *c = d->type->counters; c && c->name; c++) {
            const uint64_t *n = (const uint64_t *)((const char *)d + c->offset);
            json_object_set_int_member(counters, c->name, __atomic_load_n(n, __ATOMIC_RELAXED));
        }
        json_object_set_string_member(o, "type", d->type->name);
        json_object_set_string_member(o, "path", d->path ? d->path : "");
        if (d->id)
            json_object_set_string_member(o, "id", d->id);
        json_object_set_boolean_member(o, "broken", d->broken);
        if (d->broken)
            json_object_set_string_member(o, "reason", d->broken_why);
        json_object_set_object_member(o, "counters", counters);
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_command query_counters_cmd = {
    .name = "x-ruche-query-counters", .summary = "What the devices counted", .call = query_counters,
};
QMP_COMMAND(query_counters_cmd);

static JsonNode *query_netdevs(void *opaque, JsonObject *args, GError **error)
{
    const struct vmm *v = opaque;
    JsonArray *list = json_array_new();
    for (guint i = 0; i < v->netdevs->len; i++) {
        const struct netdev *n = g_ptr_array_index(v->netdevs, i);
        g_autofree char *text = n->ops->describe ? n->ops->describe(n) : NULL;
        JsonObject *o = json_object_new();
        json_object_set_string_member(o, "id", n->id);
        json_object_set_string_member(o, "type", n->type->name);
        if (text)
            json_object_set_string_member(o, "info", text);
        json_object_set_boolean_member(o, "attached", n->attached);
        json_object_set_boolean_member(o, "link-up", n->link_up);
        json_object_set_int_member(o, "rx-frames", n->rx_frames);
        json_object_set_int_member(o, "rx-bytes", n->rx_bytes);
        json_object_set_int_member(o, "rx-dropped", n->rx_dropped);
        json_object_set_int_member(o, "tx-frames", n->tx_frames);
        json_object_set_int_member(o, "tx-bytes", n->tx_bytes);
        json_object_set_int_member(o, "tx-dropped", n->tx_dropped);
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_command query_netdevs_cmd = {
    .name = "x-ruche-query-netdevs",
    .summary = "Network backends and their counters",
    .call = query_netdevs,
};
QMP_COMMAND(query_netdevs_cmd);

/* ---- PCI ---- */

static JsonObject *describe_pci(const struct pci_device *p)
{
    JsonObject *o = json_object_new(), *id = json_object_new(), *class = json_object_new();
    JsonArray *regions = json_array_new();
    json_object_set_int_member(id, "vendor", pci_get16(p, 0x00));
    json_object_set_int_member(id, "device", pci_get16(p, 0x02));
    json_object_set_int_member(id, "subsystem-vendor", pci_get16(p, 0x2c));
    json_object_set_int_member(id, "subsystem", pci_get16(p, 0x2e));
    json_object_set_int_member(class, "class", pci_get16(p, 0x0a));
    json_object_set_string_member(class, "desc", p->dev.type->summary ? p->dev.type->summary : "");
    for (int i = 0; i < PCI_MAX_BARS; i++) {
        if (!p->bar[i].region)
            continue;
        JsonObject *r = json_object_new();
        json_object_set_int_member(r, "bar", i);
        json_object_set_string_member(r, "type", p->bar[i].kind == PCI_BAR_IO ? "io" : "memory");
        json_object_set_int_member(r, "address", (gint64)p->bar[i].addr);
        json_object_set_int_member(r, "size", p->bar[i].size);
        json_array_add_object_element(regions, r);
    }
    json_object_set_int_member(o, "bus", 0);
    json_object_set_int_member(o, "slot", p->devfn >> 3);
    json_object_set_int_member(o, "function", p->devfn & 7);
    json_object_set_object_member(o, "class_info", class);
    json_object_set_object_member(o, "id", id);
    json_object_set_int_member(o, "irq", p->config[0x3c]);
    json_object_set_int_member(o, "irq_pin", p->intx_pin);
    json_object_set_string_member(o, "qdev_id", p->dev.id ? p->dev.id : "");
    json_object_set_array_member(o, "regions", regions);
    return o;
}

static JsonNode *query_pci(void *opaque, JsonObject *args, GError **error)
{
    const struct machine *m = ((struct vmm *)opaque)->machine;
    JsonArray *buses = json_array_new(), *devices = json_array_new();
    JsonObject *bus = json_object_new();
    for (const struct device *d = m->devices; d; d = d->next)
        if (d->type->bus == BUS_PCI && d->realized) {
            const struct pci_device *p = container_of(d, struct pci_device, dev);
            if (p->bus == m->pci)
                json_array_add_object_element(devices, describe_pci(p));
        }
    json_object_set_int_member(bus, "bus", 0);
    json_object_set_array_member(bus, "devices", devices);
    json_array_add_object_element(buses, bus);
    return qmp_array(buses);
}
static const struct qmp_command query_pci_cmd = { .name = "query-pci",
                                                  .summary = "PCI devices of the root bus",
                                                  .call = query_pci };
QMP_COMMAND(query_pci_cmd);
