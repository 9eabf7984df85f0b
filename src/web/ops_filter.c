/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on filters of interfaces, and on which interface has which. */
#include "web/op.h"

#include "manager/filter/filter.h"
#include "manager/uuid.h"

static JsonObject *describe(const struct filter *f)
{
    char uuid[UUID_TEXT_BYTES];
    struct filter_info info;
    JsonObject *o = json_object_new();
    JsonArray *includes = json_array_new(), *users = json_array_new();
    uuid_format(f->uuid, uuid);
    filter_info(f, &info);
    json_object_set_string_member(o, "name", f->name);
    json_object_set_string_member(o, "uuid", uuid);
    json_object_set_string_member(o, "chain", info.chain);
    json_object_set_int_member(o, "priority", info.priority);
    json_object_set_int_member(o, "rules", info.rules);
    for (unsigned i = 0; i < info.includes->len; i++)
        json_array_add_string_element(includes, info.includes->pdata[i]);
    json_object_set_array_member(o, "includes", includes);
    g_autoptr(GPtrArray) bindings = filter_binding_list(&caller_self);
    for (unsigned i = 0; i < bindings->len; i++) {
        const struct filter_binding *b = bindings->pdata[i];
        if (!g_strcmp0(b->filter, f->name))
            json_array_add_string_element(users, b->ifname);
    }
    json_object_set_array_member(o, "interfaces", users);
    g_ptr_array_unref(info.includes);
    return o;
}

static JsonNode *do_list(struct web_request *r, GError **error)
{
    if (!access_check(r->who, RIGHT_READ, "list filters", error))
        return NULL;
    g_autoptr(GPtrArray) filters = filter_list(r->who);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < filters->len; i++)
        json_array_add_object_element(list, describe(filters->pdata[i]));
    JsonObject *o = json_object_new();
    json_object_set_array_member(o, "filters", list);
    return web_node(o);
}
WEB_OP(filter_list, .method = "GET", .path = "/filters", .summary = "All filters of interfaces", .quick = true, .call = do_list);

static JsonNode *do_get(struct web_request *r, GError **error)
{
    if (!access_check(r->who, RIGHT_READ, "read a filter", error))
        return NULL;
    struct filter *f = filter_find_name(web_text(r, "name"), error);
    JsonNode *node = f ? web_node(describe(f)) : NULL;
    filter_unref(f);
    return node;
}
WEB_OP(filter_get, .method = "GET", .path = "/filters/{name}", .summary = "One filter, and the interfaces that have it", .quick = true,
       .call = do_get);

static JsonNode *do_xml(struct web_request *r, GError **error)
{
    struct filter *f = filter_find_name(web_text(r, "name"), error);
    r->text_type = "application/xml";
    r->ret_text = f ? filter_xml(r->who, f, 0, error) : NULL;
    filter_unref(f);
    return NULL;
}
WEB_OP(filter_xml, .method = "GET", .path = "/filters/{name}/xml", .summary = "A filter's description as libvirt's XML", .call = do_xml);

static const struct web_field define_fields[] = {
    { "xml", WEB_STRING, true, 0, 0, "libvirt's filter XML; or as a body of type application/xml" }, { 0 } };

static JsonNode *do_define(struct web_request *r, GError **error)
{
    struct filter *f = filter_define(r->who, web_text(r, "xml"), 0, error);
    JsonNode *node = f ? web_node(describe(f)) : NULL;
    filter_unref(f);
    return node;
}
WEB_OP(filter_define, .method = "POST", .path = "/filters", .summary = "Defines a filter, or changes it; interfaces that use it follow at once",
       .fields = define_fields, .status = 201, .call = do_define);

static JsonNode *do_undefine(struct web_request *r, GError **error)
{
    struct filter *f = filter_find_name(web_text(r, "name"), error);
    if (f)
        filter_undefine(r->who, f, error);
    filter_unref(f);
    return NULL;
}
WEB_OP(filter_undefine, .method = "DELETE", .path = "/filters/{name}", .summary = "Takes a filter away that no interface uses",
       .call = do_undefine);

/* ---- bindings ---- */

static JsonObject *describe_binding(const struct filter_binding *b)
{
    JsonObject *o = json_object_new();
    JsonArray *learned = json_array_new();
    g_auto(GStrv) addresses = g_strsplit(b->learned ? b->learned : "", " ", -1);
    for (char **a = addresses; *a; a++)
        json_array_add_string_element(learned, *a);
    json_object_set_string_member(o, "interface", b->ifname);
    json_object_set_string_member(o, "filter", b->filter);
    json_object_set_string_member(o, "mac", b->mac);
    json_object_set_string_member(o, "owner", b->owner_name);
    json_object_set_string_member(o, "owner_uuid", b->owner);
    json_object_set_boolean_member(o, "waiting", b->waiting);
    json_object_set_array_member(o, "learned", learned);
    return o;
}

static JsonNode *do_bindings(struct web_request *r, GError **error)
{
    if (!access_check(r->who, RIGHT_READ, "list filter bindings", error))
        return NULL;
    g_autoptr(GPtrArray) bindings = filter_binding_list(r->who);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < bindings->len; i++)
        json_array_add_object_element(list, describe_binding(bindings->pdata[i]));
    JsonObject *o = json_object_new();
    json_object_set_array_member(o, "bindings", list);
    return web_node(o);
}
WEB_OP(filter_binding_list, .method = "GET", .path = "/filter-bindings", .summary = "Which interface has which filter, and the addresses learned for it",
       .quick = true, .call = do_bindings);

static JsonNode *do_binding_xml(struct web_request *r, GError **error)
{
    struct filter_binding *b = filter_binding_find(web_text(r, "interface"), error);
    r->text_type = "application/xml";
    r->ret_text = b ? filter_binding_xml(r->who, b, 0, error) : NULL;
    filter_binding_unref(b);
    return NULL;
}
WEB_OP(filter_binding_xml, .method = "GET", .path = "/filter-bindings/{interface}/xml",
       .summary = "An interface's filter and its parameters as libvirt's XML", .call = do_binding_xml);

static const struct web_field binding_fields[] = {
    { "xml", WEB_STRING, true, 0, 0, "libvirt's filterbinding XML; or as a body of type application/xml" }, { 0 } };

static JsonNode *do_bind(struct web_request *r, GError **error)
{
    struct filter_binding *b = filter_binding_create(r->who, web_text(r, "xml"), 0, error);
    JsonNode *node = b ? web_node(describe_binding(b)) : NULL;
    filter_binding_unref(b);
    return node;
}
WEB_OP(filter_binding_create, .method = "POST", .path = "/filter-bindings", .summary = "Gives an interface of this host a filter",
       .fields = binding_fields, .status = 201, .call = do_bind);

static JsonNode *do_unbind(struct web_request *r, GError **error)
{
    filter_binding_delete(r->who, web_text(r, "interface"), error);
    return NULL;
}
WEB_OP(filter_binding_delete, .method = "DELETE", .path = "/filter-bindings/{interface}", .summary = "Takes an interface's filter away",
       .call = do_unbind);
