/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rows of the shared structures. */
#include "libvirt/types.h"

/* A table of one row for each field, in the order of the wire. */
#define TABLE(shape, ...)       const struct xdr_row shape##_xdr[] = {__VA_ARGS__, XDR_DONE}
#define UUID(type, field)       XDR_F(OPAQUE_FIXED, type, field, .max = 16)
#define OBJECT(type, field, of) XDR_SUB(type, field, wire_##of##_xdr)

TABLE(wire_domain, XDR_F(STRING, struct wire_domain, name), UUID(struct wire_domain, uuid),
      XDR_F(INT, struct wire_domain, id));
TABLE(wire_named, XDR_F(STRING, struct wire_named, name), UUID(struct wire_named, uuid));
TABLE(wire_interface, XDR_F(STRING, struct wire_interface, name),
      XDR_F(STRING, struct wire_interface, mac));
TABLE(wire_volume, XDR_F(STRING, struct wire_volume, pool), XDR_F(STRING, struct wire_volume, name),
      XDR_F(STRING, struct wire_volume, key));
TABLE(wire_device, XDR_F(STRING, struct wire_device, name));
TABLE(wire_secret, UUID(struct wire_secret, uuid), XDR_F(INT, struct wire_secret, usage_type),
      XDR_F(STRING, struct wire_secret, usage));
TABLE(wire_snapshot, XDR_F(STRING, struct wire_snapshot, name),
      OBJECT(struct wire_snapshot, dom, domain));
TABLE(wire_string, XDR_F(STRING, struct wire_string, s));
TABLE(wire_u32, XDR_F(UINT, struct wire_u32, v));
TABLE(wire_u64, XDR_F(UHYPER, struct wire_u64, v));
TABLE(wire_error, XDR_F(INT, struct wire_error, code), XDR_F(INT, struct wire_error, domain),
      XDR_F(STRING_OPT, struct wire_error, message), XDR_F(INT, struct wire_error, level),
      XDR_F(POINTER, struct wire_error, dom, .size = sizeof(struct wire_domain),
            .rows = wire_domain_xdr),
      XDR_F(STRING_OPT, struct wire_error, format), XDR_F(STRING_OPT, struct wire_error, argument),
      XDR_F(STRING_OPT, struct wire_error, third), XDR_F(INT, struct wire_error, int1),
      XDR_F(INT, struct wire_error, int2),
      XDR_F(POINTER, struct wire_error, net, .size = sizeof(struct wire_named),
            .rows = wire_named_xdr));
static const struct xdr_row param_arms[] = {
    XDR_F(INT, struct wire_param, i, .tag = 1),    XDR_F(UINT, struct wire_param, u, .tag = 2),
    XDR_F(HYPER, struct wire_param, l, .tag = 3),  XDR_F(UHYPER, struct wire_param, ul, .tag = 4),
    XDR_F(DOUBLE, struct wire_param, d, .tag = 5), XDR_F(BOOL, struct wire_param, b, .tag = 6),
    XDR_F(STRING, struct wire_param, s, .tag = 7), XDR_DONE};
TABLE(wire_param, XDR_F(STRING, struct wire_param, field),
      XDR_F(UNION, struct wire_param, type, .rows = param_arms));

TABLE(a_flags, XDR_F(UINT, struct a_flags, flags));
TABLE(a_name, XDR_F(STRING, struct a_name, name));
TABLE(a_name_flags, XDR_F(STRING, struct a_name_flags, name),
      XDR_F(UINT, struct a_name_flags, flags));
TABLE(a_uuid, UUID(struct a_uuid, uuid));
TABLE(a_int, XDR_F(INT, struct a_int, v));
TABLE(a_two_ints, XDR_F(INT, struct a_two_ints, v), XDR_F(INT, struct a_two_ints, w));
TABLE(a_all, XDR_F(INT, struct a_all, need_results), XDR_F(UINT, struct a_all, flags));
TABLE(a_domain, OBJECT(struct a_domain, dom, domain));
TABLE(a_domain_flags, OBJECT(struct a_domain_flags, dom, domain),
      XDR_F(UINT, struct a_domain_flags, flags));
TABLE(a_domain_int, OBJECT(struct a_domain_int, dom, domain), XDR_F(INT, struct a_domain_int, v));
TABLE(a_domain_int_flags, OBJECT(struct a_domain_int_flags, dom, domain),
      XDR_F(INT, struct a_domain_int_flags, v), XDR_F(UINT, struct a_domain_int_flags, flags));
TABLE(a_domain_u64, OBJECT(struct a_domain_u64, dom, domain),
      XDR_F(UHYPER, struct a_domain_u64, v));
TABLE(a_domain_u64_flags, OBJECT(struct a_domain_u64_flags, dom, domain),
      XDR_F(UHYPER, struct a_domain_u64_flags, v), XDR_F(UINT, struct a_domain_u64_flags, flags));
TABLE(a_domain_text, OBJECT(struct a_domain_text, dom, domain),
      XDR_F(STRING, struct a_domain_text, text));
TABLE(a_domain_text_flags, OBJECT(struct a_domain_text_flags, dom, domain),
      XDR_F(STRING, struct a_domain_text_flags, text),
      XDR_F(UINT, struct a_domain_text_flags, flags));
TABLE(a_domain_word_flags, OBJECT(struct a_domain_word_flags, dom, domain),
      XDR_F(STRING_OPT, struct a_domain_word_flags, text),
      XDR_F(UINT, struct a_domain_word_flags, flags));
TABLE(a_domain_params_flags, OBJECT(struct a_domain_params_flags, dom, domain),
      XDR_LIST(struct a_domain_params_flags, params, wire_param, LIMIT_FEW_PARAMS),
      XDR_F(UINT, struct a_domain_params_flags, flags));
TABLE(a_domain_cpus, OBJECT(struct a_domain_cpus, dom, domain),
      XDR_F(UINT, struct a_domain_cpus, cpu),
      XDR_F(BYTES, struct a_domain_cpus, map, .max = LIMIT_CPUMAP));
TABLE(a_domain_cpus_flags, OBJECT(struct a_domain_cpus_flags, dom, domain),
      XDR_F(UINT, struct a_domain_cpus_flags, cpu),
      XDR_F(BYTES, struct a_domain_cpus_flags, map, .max = LIMIT_CPUMAP),
      XDR_F(UINT, struct a_domain_cpus_flags, flags));
TABLE(a_named, OBJECT(struct a_named, obj, named));
TABLE(a_named_flags, OBJECT(struct a_named_flags, obj, named),
      XDR_F(UINT, struct a_named_flags, flags));
TABLE(a_named_int, OBJECT(struct a_named_int, obj, named), XDR_F(INT, struct a_named_int, v));
TABLE(a_volume, OBJECT(struct a_volume, vol, volume));
TABLE(a_volume_flags, OBJECT(struct a_volume_flags, vol, volume),
      XDR_F(UINT, struct a_volume_flags, flags));

TABLE(r_domain, OBJECT(struct r_domain, dom, domain));
TABLE(r_named, OBJECT(struct r_named, obj, named));
TABLE(r_volume, OBJECT(struct r_volume, vol, volume));
TABLE(r_int, XDR_F(INT, struct r_int, v));
TABLE(r_u64, XDR_F(UHYPER, struct r_u64, v));
TABLE(r_text, XDR_F(STRING, struct r_text, text));
TABLE(r_names, XDR_LIST(struct r_names, names, wire_string, LIMIT_OBJECTS));
TABLE(r_params, XDR_LIST(struct r_params, params, wire_param, LIMIT_PARAMS));
TABLE(r_params_count, XDR_LIST(struct r_params_count, params, wire_param, LIMIT_PARAMS),
      XDR_F(INT, struct r_params_count, count));
TABLE(r_bytes_int, XDR_F(BYTES, struct r_bytes_int, bytes, .max = LIMIT_CPUMAPS),
      XDR_F(INT, struct r_bytes_int, v));

struct xdr_array wire_chars(const char *bytes, size_t len)
{
    struct wire_u32 *w = g_new(struct wire_u32, len + 1);
    for (size_t i = 0; i < len; i++)
        w[i].v = (unsigned char)bytes[i];
    return (struct xdr_array){(uint32_t)len, w};
}
