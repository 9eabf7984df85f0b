/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on the host's devices. */
#include "web/op.h"

#include "manager/node/device.h"

static JsonObject *describe(const struct node_device *d)
{
    JsonObject *o = json_object_new();
    JsonArray *caps = json_array_new();
    json_object_set_string_member(o, "name", d->name);
    if (d->parent)
        json_object_set_string_member(o, "parent", d->parent);
    if (d->path)
        json_object_set_string_member(o, "path", d->path);
    for (unsigned i = 0; i < DEVICE_CAPS; i++)
        if (d->caps >> i & 1)
            json_array_add_string_element(caps, node_device_cap_name(i));
    json_object_set_array_member(o, "capabilities", caps);
    g_autofree char *driver = d->path ? node_device_driver(d) : NULL;
    if (driver)
        json_object_set_string_member(o, "driver", driver);
    json_object_set_boolean_member(o, "active", d->active);
    json_object_set_boolean_member(o, "defined", d->text != NULL);
    json_object_set_boolean_member(o, "autostart", d->autostart);
    return o;
}

static const struct web_field list_fields[] = { { "capability", WEB_STRING, false, 0, 0, "only those with it: pci, usb, net, storage, mdev ..." }, { 0 } };

static JsonNode *do_list(struct web_request *r, GError **error)
{
    if (!access_check(r->who, RIGHT_READ, "list node devices", error))
        return NULL;
    const char *cap = web_text(r, "capability");
    g_autoptr(GPtrArray) devices = cap ? node_devices_of(r->who, cap, error) : node_devices(r->who, 0);
    if (!devices)
        return NULL;
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < devices->len; i++)
        json_array_add_object_element(list, describe(devices->pdata[i]));
    JsonObject *o = json_object_new();
    json_object_set_array_member(o, "devices", list);
    return web_node(o);
}
WEB_OP(device_list, .method = "GET", .path = "/devices", .summary = "The host's devices", .fields = list_fields, .quick = true,
       .call = do_list);

/* Takes it. */
static JsonNode *answer(struct node_device *d)
{
    JsonNode *node = d ? web_node(describe(d)) : NULL;
    node_device_free(d);
    return node;
}

static JsonNode *do_get(struct web_request *r, GError **error)
{
    if (!access_check(r->who, RIGHT_READ, "read a node device", error))
        return NULL;
    return answer(node_device_find(r->who, web_text(r, "name"), error));
}
WEB_OP(device_get, .method = "GET", .path = "/devices/{name}", .summary = "One of the host's devices", .quick = true, .call = do_get);

static JsonNode *do_xml(struct web_request *r, GError **error)
{
    struct node_device *d = NULL;
    if (access_check(r->who, RIGHT_READ, "read a node device", error))
        d = node_device_find(r->who, web_text(r, "name"), error);
    r->text_type = "application/xml";
    r->ret_text = d ? node_device_xml(d) : NULL;
    node_device_free(d);
    return NULL;
}
WEB_OP(device_xml, .method = "GET", .path = "/devices/{name}/xml", .summary = "A device's description as libvirt's XML", .quick = true,
       .call = do_xml);

static bool detach(const struct caller *who, const char *name, GError **error)
{
    return node_device_detach(who, name, NULL, error);
}

/* One operation on the device that the path names; the device as it is then, {} if it is gone. */
#define DEVICE_OP(ident, method_, path_, summary_, fn)                                             \
    static JsonNode *do_##ident(struct web_request *r, GError **error)                             \
    {                                                                                              \
        const char *name = web_text(r, "name");                                                    \
        return fn(r->who, name, error) ? answer(node_device_find(r->who, name, NULL)) : NULL;      \
    }                                                                                              \
    WEB_OP(ident, .method = method_, .path = path_, .summary = summary_, .call = do_##ident)
DEVICE_OP(device_detach, "POST", "/devices/{name}/detach", "Takes a PCI device from the host's driver and gives it to vfio-pci", detach);
DEVICE_OP(device_reattach, "POST", "/devices/{name}/reattach", "Gives a PCI device back to the host's driver", node_device_reattach);
DEVICE_OP(device_reset, "POST", "/devices/{name}/reset", "Resets a PCI device", node_device_reset);
DEVICE_OP(device_start, "POST", "/devices/{name}/start", "Makes a mediated device that is defined", node_device_start);
DEVICE_OP(device_stop, "POST", "/devices/{name}/stop", "Takes a mediated device away; its definition stays", node_device_destroy);
DEVICE_OP(device_undefine, "DELETE", "/devices/{name}", "Takes a mediated device's definition away", node_device_undefine);

static const struct web_field set_fields[] = { { "autostart", WEB_BOOL, true, 0, 0, "make it when the manager starts" }, { 0 } };

static JsonNode *do_set(struct web_request *r, GError **error)
{
    const char *name = web_text(r, "name");
    bool ok = node_device_set_autostart(r->who, name, web_bool(r, "autostart"), error);
    return ok ? answer(node_device_find(r->who, name, error)) : NULL;
}
WEB_OP(device_set, .method = "PATCH", .path = "/devices/{name}", .summary = "Changes whether a mediated device is made with the manager's start",
       .fields = set_fields, .call = do_set);

static const struct web_field define_fields[] = {
    { "xml", WEB_STRING, true, 0, 0, "libvirt's node device XML; or as a body of type application/xml" },
    { "transient", WEB_BOOL, false, 0, 0, "make it now, and do not keep its definition" },
    { 0 },
};

static JsonNode *do_define(struct web_request *r, GError **error)
{
    return answer(web_bool(r, "transient") ? node_device_create_xml(r->who, web_text(r, "xml"), error)
                                           : node_device_define(r->who, web_text(r, "xml"), error));
}
WEB_OP(device_define, .method = "POST", .path = "/devices", .summary = "Defines a mediated device", .fields = define_fields, .status = 201,
       .call = do_define);
