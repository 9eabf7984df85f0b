/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Secrets. A value is wiped where it lay in arguments and results. Thread: the loop thread. */
#include "libvirt/object.h"
#include "manager/secret/secret.h"
#include "manager/uuid.h"

static void secret_auto_unref(struct secret **s)
{
    secret_unref(*s);
}
#define auto_secret __attribute__((cleanup(secret_auto_unref))) struct secret

static void fill(const struct secret *s, struct wire_secret *ret)
{
    memcpy(ret->uuid, s->uuid, sizeof(ret->uuid));
    ret->usage_type = s->usage;
    ret->usage = g_strdup(s->id);
}

struct r_secret {
    struct wire_secret obj;
};
static const struct xdr_row r_secret_xdr[] = {XDR_SUB(struct r_secret, obj, wire_secret_xdr),
                                              XDR_DONE};

static bool answer(struct secret *s, void *ret)
{
    if (s)
        fill(s, &((struct r_secret *)ret)->obj);
    secret_unref(s);
    return s != NULL;
}

/* ---- finding and listing ---- */

static bool by_uuid(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return answer(secret_find_uuid(((struct a_uuid *)args)->uuid, error), ret);
}
RPC_PROC(secret_lookup_by_uuid, .number = 141, .flags = OBJECT_QUERY, ARGS(a_uuid), RET(r_secret),
         .call = by_uuid);

struct a_usage {
    int32_t type;
    char *usage;
};
static const struct xdr_row a_usage_xdr[] = {XDR_F(INT, struct a_usage, type),
                                             XDR_F(STRING, struct a_usage, usage), XDR_DONE};

static bool by_usage(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_usage *a = args;
    return answer(secret_find_usage(a->type, a->usage, error), ret);
}
RPC_PROC(secret_lookup_by_usage, .number = 147, .flags = OBJECT_QUERY, ARGS(a_usage), RET(r_secret),
         .call = by_usage);

struct r_secrets {
    struct xdr_array secrets;
    uint32_t count;
};
static const struct xdr_row r_secrets_xdr[] = {
    XDR_LIST(struct r_secrets, secrets, wire_secret, LIMIT_OBJECTS),
    XDR_F(UINT, struct r_secrets, count), XDR_DONE};

static bool list_all(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_all *a = args;
    struct r_secrets *r = ret;
    if (!object_flags(a->flags, 15, "connect_list_all_secrets", error))
        return false;
    g_autoptr(GPtrArray) list = secret_list(c->who, a->flags);
    r->count = list->len;
    if (!a->need_results)
        return true;
    r->secrets.items = g_new0(struct wire_secret, list->len + 1);
    for (; r->secrets.count < list->len; r->secrets.count++)
        fill(list->pdata[r->secrets.count],
             (struct wire_secret *)r->secrets.items + r->secrets.count);
    return true;
}
RPC_PROC(connect_list_all_secrets, .number = 287, .flags = OBJECT_QUERY, ARGS(a_all),
         RET(r_secrets), .call = list_all);

static bool list_uuids(struct rpc_call *c, void *args, void *ret, GError **error)
{
    int32_t room = ((struct a_int *)args)->v;
    struct r_names *r = ret;
    char text[UUID_TEXT_BYTES];
    if (!object_room(room, LIMIT_OBJECTS, "list of secrets", error))
        return false;
    g_autoptr(GPtrArray) list = secret_list(c->who, 0);
    struct wire_string *w = g_new0(struct wire_string, list->len + 1);
    for (; r->names.count < MIN(list->len, (guint)room); r->names.count++) {
        uuid_format(((struct secret *)list->pdata[r->names.count])->uuid, text);
        w[r->names.count].s = g_strdup(text);
    }
    r->names.items = w;
    return true;
}
RPC_PROC(connect_list_secrets, .number = 140, .flags = OBJECT_QUERY, ARGS(a_int), RET(r_names),
         .call = list_uuids);

static bool count(struct rpc_call *c, void *args, void *ret, GError **error)
{
    g_autoptr(GPtrArray) list = secret_list(c->who, 0);
    return object_int(ret, (int32_t)list->len);
}
RPC_PROC(connect_num_of_secrets, .number = 139, .flags = OBJECT_QUERY, RET(r_int), .call = count);

/* ---- one secret ---- */

#define SECRET_PROC(ident, number_, flags_, shape, expression, ...)                                \
    static bool do_##ident(struct rpc_call *c, void *args, void *ret, GError **error)              \
    {                                                                                              \
        struct shape *a = args;                                                                    \
        auto_secret *s = secret_find_uuid(a->obj.uuid, error);                                     \
        return s && (expression);                                                                  \
    }                                                                                              \
    RPC_PROC(ident, .number = number_, .flags = flags_, ARGS(shape), .call = do_##ident,           \
             ##__VA_ARGS__)

struct a_secret {
    struct wire_secret obj;
};
static const struct xdr_row a_secret_xdr[] = {XDR_SUB(struct a_secret, obj, wire_secret_xdr),
                                              XDR_DONE};
struct a_secret_flags {
    struct wire_secret obj;
    uint32_t flags;
};
static const struct xdr_row a_secret_flags_xdr[] = {
    XDR_SUB(struct a_secret_flags, obj, wire_secret_xdr), XDR_F(UINT, struct a_secret_flags, flags),
    XDR_DONE};
struct a_value {
    struct wire_secret obj;
    struct xdr_bytes value;
    uint32_t flags;
};
static const struct xdr_row a_value_xdr[] = {
    XDR_SUB(struct a_value, obj, wire_secret_xdr),
    XDR_F(BYTES, struct a_value, value, .max = SECRET_VALUE_MAX),
    XDR_F(UINT, struct a_value, flags), XDR_DONE};
struct r_value {
    struct xdr_bytes value;
};
static const struct xdr_row r_value_xdr[] = {
    XDR_F(BYTES, struct r_value, value, .max = SECRET_VALUE_MAX), XDR_DONE};

static bool define(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_name_flags *a = args;
    return answer(secret_define(c->who, a->name, a->flags, error), ret);
}
RPC_PROC(secret_define_xml, .number = 142, ARGS(a_name_flags), RET(r_secret), .call = define);

SECRET_PROC(secret_get_xml_desc, 143, OBJECT_QUERY, a_secret_flags,
            object_text(ret, secret_xml(c->who, s, a->flags, error)), RET(r_text));
SECRET_PROC(secret_undefine, 146, 0, a_secret, secret_undefine(c->who, s, error));
SECRET_PROC(secret_set_value, 144, 0, a_value,
            object_flags(a->flags, 0, "secret_set_value", error) &&
                secret_set_value(c->who, s, a->value.data, a->value.len, error));

static bool give_value(struct rpc_call *c, struct secret *s, uint32_t flags, struct r_value *ret,
                       GError **error)
{
    if (!object_flags(flags, 0, "secret_get_value", error))
        return false;
    g_autoptr(GBytes) value = secret_get_value(c->who, s, error);
    gsize len = 0;
    const void *data = value ? g_bytes_get_data(value, &len) : NULL;
    ret->value = (struct xdr_bytes){(uint32_t)len, g_memdup2(data, len)};
    return value != NULL;
}
SECRET_PROC(secret_get_value, 145, RPC_FAST, a_secret_flags, give_value(c, s, a->flags, ret, error),
            RET(r_value));
