/* SPDX-License-Identifier: GPL-2.0-or-later */
/* device_add, device_del: devices that come and go while the machine runs; see hotplug.h. */
#include "vmm/hotplug.h"

#include "devices/pci/pci.h"
#include "machine/backends.h"
#include "vmm/block.h"
#include "vmm/migrate.h"

#include <string.h>

struct kv_list *hotplug_args(JsonObject *args, GError **error)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    json_node_set_object(node, args);
    g_autofree char *text = json_to_string(node, FALSE);
    return kv_parse(text, NULL, error);
}

/* The other side was made with the devices that were here when it began. */
static bool may_change(struct vmm *v, const char *command, GError **error)
{
    return !migrate_is_under_way(v) ||
           ruche_error(error, RUCHE_ERR_STATE, "%s not allowed while migrating", command);
}

/* ---- in ---- */

/* Which kinds of buses take devices at run time. */
static bool check_place(struct vmm *v, const char *driver, const char *bus, GError **error)
{
    const struct device_type *t = device_type_find(driver);
    if (!t)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is not a valid device model name%s",
                           driver, device_type_suggest(driver));
    if (t->bus == BUS_PCI)
        return pci_check_hotplug(v->machine, bus, error);
    if (t->bus == BUS_VIRTIO_SERIAL)
        return true;
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "Bus '%s' does not support hotplugging",
                       t->bus == BUS_ISA ? "isa.0" : "main-system-bus");
}

static bool plug(struct vmm *v, struct kv_list *l, GError **error)
{
    const char *id = kv_get(l, "id");
    if ((id && !kv_check_id(id, error)) ||
        !check_place(v, kv_get(l, "driver"), kv_get(l, "bus"), error))
        return false;
    struct device *d = build_device(v, l, error);
    if (!d)
        return false;
    device_reset(d);
    if (d->type->bus == BUS_PCI)
        pci_plug(container_of(d, struct pci_device, dev));
    return true;
}

static JsonNode *device_add(void *opaque, JsonObject *args, GError **error)
{
    auto_kv *l = may_change(opaque, "device_add", error) ? hotplug_args(args, error) : NULL;
    if (l && hotplug_is_cpu(kv_get(l, "driver")))
        hotplug_cpu_add(opaque, l, error);
    else if (l)
        plug(opaque, l, error);
    return NULL;
}
static const struct qmp_arg device_add_args[] = {
    {"driver", QMP_STRING, false, "The device's kind"},
    {"id", QMP_STRING, true, "Its id"},
    {"bus", QMP_STRING, true, "Its bus: the id of a pcie-root-port"},
    {"*", QMP_ANY, true, "Its properties"},
    {0},
};
static const struct qmp_command device_add_cmd = {
    .name = "device_add",
    .summary = "Plug a device in",
    .args = device_add_args,
    .call = device_add,
};
QMP_COMMAND(device_add_cmd);

/* ---- out ---- */

void hotplug_deleted_event(struct vmm *v, const char *id, const char *path)
{
    JsonObject *data = json_object_new();
    if (id)
        json_object_set_string_member(data, "device", id);
    json_object_set_string_member(data, "path", path);
    qmp_event(v->qmp, "DEVICE_DELETED", data);
}

static void take_out(struct vmm *v, struct device *d)
{
    g_autofree char *id = g_strdup(d->id), *path = g_strdup(d->path), *drive = build_drive_of(d);
    device_free(d);
    if (drive)
        build_forget_drive(v, drive);
    hotplug_deleted_event(v, id, path);
}

void hotplug_unplugged(void *opaque, struct device *d)
{
    take_out(opaque, d);
}

static struct device *find_device(struct vmm *v, const char *id)
{
    for (struct device *d = v->machine->devices; d; d = d->next)
        if ((d->id && !strcmp(d->id, id)) || (d->path && id[0] == '/' && !strcmp(d->path, id)))
            return d;
    return NULL;
}

static JsonNode *device_del(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    const char *id = json_object_get_string_member(args, "id");
    if (!may_change(v, "device_del", error))
        return NULL;
    struct device *d = find_device(v, id);
    int cpu = hotplug_find_cpu(v, id);
    if (cpu >= 0)
        hotplug_cpu_del(v, (unsigned)cpu, error);
    else if (!d)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "Device '%s' not found", id);
    else if (d->type->bus == BUS_PCI)
        pci_request_unplug(container_of(d, struct pci_device, dev), error);
    else if (d->type->bus == BUS_VIRTIO_SERIAL)
        take_out(v, d); /* the guest is told, not asked */
    else
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "Bus '%s' does not support hotplugging",
                    d->type->bus == BUS_ISA ? "isa.0" : "main-system-bus");
    return NULL;
}
static const struct qmp_arg device_del_args[] = {
    {"id", QMP_STRING, false, "The device's id, or its path"},
    {0},
};
static const struct qmp_command device_del_cmd = {
    .name = "device_del",
    .summary = "Ask the guest to let go of a device; DEVICE_DELETED tells when it has",
    .args = device_del_args,
    .call = device_del,
};
QMP_COMMAND(device_del_cmd);

static const struct qmp_arg deleted_data[] = {
    {"device", QMP_STRING, true, "Its id"},
    {"path", QMP_STRING, false, "Its path"},
    {0},
};
static const struct qmp_event_type deleted_type = {
    .name = "DEVICE_DELETED", .summary = "A device has been taken out", .data = deleted_data};
QMP_EVENT(deleted_type);
