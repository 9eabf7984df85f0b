/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Operations on secrets. Values come in and never go out: whoever needs one back has libvirt's protocol. */
#include "web/op.h"

#include "manager/secret/secret.h"
#include "manager/uuid.h"

#include <string.h>

static JsonObject *describe(const struct secret *s)
{
    char uuid[UUID_TEXT_BYTES];
    JsonObject *o = json_object_new();
    g_autofree char *description = secret_description(s);
    uuid_format(s->uuid, uuid);
    json_object_set_string_member(o, "uuid", uuid);
    json_object_set_string_member(o, "type", secret_usage_word(s->usage));
    json_object_set_string_member(o, "usage", s->id);
    json_object_set_boolean_member(o, "ephemeral", s->ephemeral);
    json_object_set_boolean_member(o, "private", s->confined);
    json_object_set_boolean_member(o, "has_value", s->value != NULL);
    if (description)
        json_object_set_string_member(o, "description", description);
    return o;
}

static JsonNode *do_list(struct web_request *r, GError **error)
{
    if (!access_check(r->who, RIGHT_READ, "list secrets", error))
        return NULL;
    g_autoptr(GPtrArray) secrets = secret_list(r->who, 0);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < secrets->len; i++)
        json_array_add_object_element(list, describe(secrets->pdata[i]));
    JsonObject *o = json_object_new();
    json_object_set_array_member(o, "secrets", list);
    return web_node(o);
}
WEB_OP(secret_list, .method = "GET", .path = "/secrets", .summary = "All secrets, without their values", .quick = true,
       .call = do_list);

static struct secret *find(struct web_request *r, GError **error)
{
    const char *text = web_text(r, "uuid");
    uint8_t uuid[16];
    if (uuid_parse(text, uuid))
        return secret_find_uuid(uuid, error);
    ruche_error(error, RUCHE_ERR_INVALID, "'%.64s' is not the UUID of a secret", text);
    return NULL;
}

static JsonNode *do_get(struct web_request *r, GError **error)
{
    if (!access_check(r->who, RIGHT_READ, "read a secret's description", error))
        return NULL;
    struct secret *s = find(r, error);
    JsonNode *node = s ? web_node(describe(s)) : NULL;
    secret_unref(s);
    return node;
}
WEB_OP(secret_get, .method = "GET", .path = "/secrets/{uuid}", .summary = "One secret, without its value", .quick = true,
       .call = do_get);

static JsonNode *do_xml(struct web_request *r, GError **error)
{
    struct secret *s = find(r, error);
    r->text_type = "application/xml";
    r->ret_text = s ? secret_xml(r->who, s, 0, error) : NULL;
    secret_unref(s);
    return NULL;
}
WEB_OP(secret_xml, .method = "GET", .path = "/secrets/{uuid}/xml", .summary = "A secret's description as libvirt's XML",
       .call = do_xml);

static const struct web_field define_fields[] = {
    { "xml", WEB_STRING, true, 0, 0, "libvirt's secret XML; or as a body of type application/xml" }, { 0 } };

static JsonNode *do_define(struct web_request *r, GError **error)
{
    struct secret *s = secret_define(r->who, web_text(r, "xml"), 0, error);
    JsonNode *node = s ? web_node(describe(s)) : NULL;
    secret_unref(s);
    return node;
}
WEB_OP(secret_define, .method = "POST", .path = "/secrets", .summary = "Defines a secret, or changes its definition",
       .fields = define_fields, .status = 201, .call = do_define);

static JsonNode *do_undefine(struct web_request *r, GError **error)
{
    struct secret *s = find(r, error);
    JsonNode *node = s && secret_undefine(r->who, s, error) ? web_node(describe(s)) : NULL;
    secret_unref(s);
    return node;
}
WEB_OP(secret_undefine, .method = "DELETE", .path = "/secrets/{uuid}", .summary = "Takes a secret and its value away",
       .call = do_undefine);

static const struct web_field value_fields[] = { { "base64", WEB_STRING, true, 0, 0, "the bytes, in base64; at most 64 KiB" }, { 0 } };

/* What is not base64 would be left out in silence. */
static guchar *decode(const char *text, gsize *ret_len, GError **error)
{
    size_t len = strlen(text), end = len;
    while (end && len - end < 2 && text[end - 1] == '=')
        end--;
    bool clean = len % 4 == 0;
    for (size_t i = 0; i < end; i++)
        clean = clean && (g_ascii_isalnum(text[i]) || text[i] == '+' || text[i] == '/');
    if (clean)
        return g_base64_decode(text, ret_len);
    ruche_error(error, RUCHE_ERR_INVALID, "the value is not base64");
    return NULL;
}

static JsonNode *do_value(struct web_request *r, GError **error)
{
    gsize len = 0;
    struct secret *s = find(r, error);
    guchar *data = s ? decode(web_text(r, "base64"), &len, error) : NULL;
    JsonNode *node = data && secret_set_value(r->who, s, data, len, error) ? web_node(describe(s)) : NULL;
    if (data)
        explicit_bzero(data, len);
    g_free(data);
    secret_unref(s);
    return node;
}
WEB_OP(secret_set_value, .method = "PUT", .path = "/secrets/{uuid}/value", .summary = "Gives a secret its value",
       .fields = value_fields, .call = do_value);
