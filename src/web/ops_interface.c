/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on the host's interfaces. */
#include "web/op.h"

#include "manager/interface/interface.h"

static JsonObject *describe(const struct interface *i)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "name", i->name);
    json_object_set_string_member(o, "type", interface_type_word(i->type));
    json_object_set_string_member(o, "mac", i->mac);
    json_object_set_int_member(o, "mtu", i->mtu);
    json_object_set_boolean_member(o, "active", i->active);
    json_object_set_boolean_member(o, "defined", i->defined);
    json_object_set_boolean_member(o, "onboot", i->onboot);
    if (i->owner)
        json_object_set_string_member(o, "owner", i->owner);
    return o;
}

static JsonNode *do_list(struct web_request *r, GError **error)
{
    if (!access_check(r->who, RIGHT_READ, "list interfaces", error))
        return NULL;
    g_autoptr(GPtrArray) interfaces = interface_list(r->who, 0);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < interfaces->len; i++)
        json_array_add_object_element(list, describe(interfaces->pdata[i]));
    JsonObject *o = json_object_new();
    json_object_set_array_member(o, "interfaces", list);
    return web_node(o);
}
WEB_OP(interface_list, .method = "GET", .path = "/interfaces", .summary = "All interfaces of the host, but taps of machines", .quick = true,
       .call = do_list);

/* The interface as it is then; takes it. */
static JsonNode *answer(struct interface *i)
{
    JsonNode *node = i ? web_node(describe(i)) : NULL;
    interface_free(i);
    return node;
}

/* One operation on the interface that the path names; the interface as it is then, {} if it is gone. */
static JsonNode *on_interface(struct web_request *r, bool (*fn)(const struct caller *who, const char *name, GError **error),
                              GError **error)
{
    return fn(r->who, web_text(r, "name"), error) ? answer(interface_find(r->who, web_text(r, "name"), NULL)) : NULL;
}

static JsonNode *do_get(struct web_request *r, GError **error)
{
    if (!access_check(r->who, RIGHT_READ, "read an interface", error))
        return NULL;
    return answer(interface_find(r->who, web_text(r, "name"), error));
}
WEB_OP(interface_get, .method = "GET", .path = "/interfaces/{name}", .summary = "One interface of the host", .quick = true, .call = do_get);

#define INTERFACE_OP(ident, method_, path_, summary_, fn)                                          \
    static JsonNode *do_##ident(struct web_request *r, GError **error)                             \
    {                                                                                              \
        return on_interface(r, fn, error);                                                         \
    }                                                                                              \
    WEB_OP(ident, .method = method_, .path = path_, .summary = summary_, .call = do_##ident)
INTERFACE_OP(interface_start, "POST", "/interfaces/{name}/start",
             "Brings an interface up as it is defined; a bridge takes its ports' addresses over", interface_start);
INTERFACE_OP(interface_stop, "POST", "/interfaces/{name}/stop", "Brings an interface down; what was there before comes back", interface_stop);
INTERFACE_OP(interface_undefine, "DELETE", "/interfaces/{name}",
             "Takes an interface's definition away; one that is up goes on until it is stopped", interface_undefine);

static const struct web_field define_fields[] = {
    { "xml", WEB_STRING, true, 0, 0, "libvirt's interface XML; or as a body of type application/xml" },
    { "start", WEB_BOOL, false, 0, 0, "bring it up, too" },
    { 0 },
};

static JsonNode *do_define(struct web_request *r, GError **error)
{
    struct interface *i = interface_define(r->who, web_text(r, "xml"), 0, error);
    g_autofree char *name = i ? g_strdup(i->name) : NULL;
    interface_free(i);
    if (!name || (web_bool(r, "start") && !interface_start(r->who, name, error)))
        return NULL;
    return answer(interface_find(r->who, name, error));
}
WEB_OP(interface_define, .method = "POST", .path = "/interfaces", .summary = "Defines an interface, or changes its definition",
       .fields = define_fields, .status = 201, .call = do_define);

static const struct web_field xml_fields[] = { { "inactive", WEB_BOOL, false, 0, 0, "as it is defined" }, { 0 } };

static JsonNode *do_xml(struct web_request *r, GError **error)
{
    r->text_type = "application/xml";
    r->ret_text = interface_xml(r->who, web_text(r, "name"), web_bool(r, "inactive") ? INTERFACE_XML_INACTIVE : 0, error);
    return NULL;
}
WEB_OP(interface_xml, .method = "GET", .path = "/interfaces/{name}/xml", .summary = "An interface's description as libvirt's XML",
       .fields = xml_fields, .quick = true, .call = do_xml);

/* ---- changes that can be taken back ---- */

static JsonNode *change(void)
{
    unsigned left;
    JsonObject *o = json_object_new();
    json_object_set_boolean_member(o, "pending", interface_change_pending(&left));
    if (left)
        json_object_set_int_member(o, "seconds_left", left);
    return web_node(o);
}

static JsonNode *do_change(struct web_request *r, GError **error)
{
    return access_check(r->who, RIGHT_READ, "read the change of interfaces", error) ? change() : NULL;
}
WEB_OP(interface_change, .method = "GET", .path = "/interface-change", .summary = "Is a change of interfaces under way?", .quick = true,
       .call = do_change);

static const struct web_field begin_fields[] = {
    { "timeout", WEB_INT, false, 1, 86400, "seconds after which it is rolled back, unless it is committed" }, { 0 } };

static JsonNode *do_begin(struct web_request *r, GError **error)
{
    return interface_change_begin(r->who, (unsigned)web_int(r, "timeout", 0), error) ? change() : NULL;
}
WEB_OP(interface_begin, .method = "POST", .path = "/interface-change/begin",
       .summary = "From here on, changes of interfaces can be taken back together", .fields = begin_fields, .call = do_begin);

static JsonNode *do_commit(struct web_request *r, GError **error)
{
    return interface_change_commit(r->who, error) ? change() : NULL;
}
WEB_OP(interface_commit, .method = "POST", .path = "/interface-change/commit", .summary = "Keeps what was changed", .call = do_commit);

static JsonNode *do_rollback(struct web_request *r, GError **error)
{
    return interface_change_rollback(r->who, error) ? change() : NULL;
}
WEB_OP(interface_rollback, .method = "POST", .path = "/interface-change/rollback", .summary = "Makes all interfaces as they were",
       .call = do_rollback);
