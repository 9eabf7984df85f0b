/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains: descriptions, metadata and devices. Thread: the loop thread. */
#include "libvirt/object.h"

enum { LIVE = 1, AFFECT = 3 };

DOMAIN_PROC(domain_get_xml_desc, 14, OBJECT_QUERY, a_domain_flags,
            object_text(ret, domain_xml(c->who, d, a->flags, error)), RET(r_text));
DOMAIN_PROC(domain_get_os_type, 19, OBJECT_QUERY, a_domain,
            object_text(ret, g_strdup(domain_summary(d)->os_type)), RET(r_text));

struct set_metadata {
    struct wire_domain dom;
    int32_t type;
    char *text, *key, *uri;
    uint32_t flags;
};
static const struct xdr_row set_metadata_xdr[] = {
    XDR_SUB(struct set_metadata, dom, wire_domain_xdr),
    XDR_F(INT, struct set_metadata, type),
    XDR_F(STRING_OPT, struct set_metadata, text),
    XDR_F(STRING_OPT, struct set_metadata, key),
    XDR_F(STRING_OPT, struct set_metadata, uri),
    XDR_F(UINT, struct set_metadata, flags),
    XDR_DONE};
DOMAIN_PROC(domain_set_metadata, 264, 0, set_metadata,
            object_flags(a->flags, AFFECT, "domain_set_metadata", error) &&
                domain_set_metadata(c->who, d, a->type, a->text, a->key, a->uri, a->flags, error));

struct get_metadata {
    struct wire_domain dom;
    int32_t type;
    char *uri;
    uint32_t flags;
};
static const struct xdr_row get_metadata_xdr[] = {
    XDR_SUB(struct get_metadata, dom, wire_domain_xdr), XDR_F(INT, struct get_metadata, type),
    XDR_F(STRING_OPT, struct get_metadata, uri), XDR_F(UINT, struct get_metadata, flags), XDR_DONE};
DOMAIN_PROC(domain_get_metadata, 265, OBJECT_QUERY, get_metadata,
            object_flags(a->flags, AFFECT, "domain_get_metadata", error) &&
                object_text(ret, domain_get_metadata(c->who, d, a->type, a->uri, a->flags, error)),
            RET(r_text));

DOMAIN_PROC(domain_attach_device, 8, 0, a_domain_text,
            domain_device(c->who, d, DEF_ATTACH, a->text, LIVE, error));
DOMAIN_PROC(domain_detach_device, 13, 0, a_domain_text,
            domain_device(c->who, d, DEF_DETACH, a->text, LIVE, error));
DOMAIN_PROC(domain_attach_device_flags, 160, 0, a_domain_text_flags,
            object_flags(a->flags, AFFECT, "domain_attach_device", error) &&
                domain_device(c->who, d, DEF_ATTACH, a->text, a->flags, error));
DOMAIN_PROC(domain_detach_device_flags, 161, 0, a_domain_text_flags,
            object_flags(a->flags, AFFECT, "domain_detach_device", error) &&
                domain_device(c->who, d, DEF_DETACH, a->text, a->flags, error));
DOMAIN_PROC(domain_update_device_flags, 174, 0, a_domain_text_flags,
            object_flags(a->flags, AFFECT | 4 /* FORCE: even an open tray */,
                         "domain_update_device", error) &&
                domain_device(c->who, d, DEF_UPDATE, a->text, a->flags &AFFECT, error));

DOMAIN_PROC(domain_detach_device_alias, 392, 0, a_domain_text_flags,
            object_flags(a->flags, AFFECT, "domain_detach_device_alias", error) &&
                domain_detach_alias(c->who, d, a->text, a->flags, error));

struct native {
    char *format, *xml;
    uint32_t flags;
};
static const struct xdr_row native_xdr[] = {XDR_F(STRING, struct native, format),
                                            XDR_F(STRING, struct native, xml),
                                            XDR_F(UINT, struct native, flags), XDR_DONE};

static bool to_native(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct native *a = args;
    return object_flags(a->flags, 0, "connect_domain_xml_to_native", error) &&
           object_text(ret, domain_native(c->who, a->format, a->xml, error));
}
RPC_PROC(connect_domain_xml_to_native, .number = 136, ARGS(native), RET(r_text), .call = to_native);

/* ---- what a machine's security driver would say: there is none ---- */

struct label {
    struct xdr_array text;
    int32_t enforcing;
};
static const struct xdr_row label_xdr[] = {XDR_LIST(struct label, text, wire_u32, 4097),
                                           XDR_F(INT, struct label, enforcing), XDR_DONE};

static bool no_label(struct label *ret)
{
    ret->text = object_chars("");
    return true;
}
DOMAIN_PROC(domain_get_security_label, 121, OBJECT_QUERY, a_domain, no_label(ret), RET(label));

struct labels {
    struct xdr_array labels;
    int32_t count;
};
static const struct xdr_row labels_xdr[] = {XDR_LIST(struct labels, labels, label, 64),
                                            XDR_F(INT, struct labels, count), XDR_DONE};
DOMAIN_PROC(domain_get_security_label_list, 278, OBJECT_QUERY, a_domain, true, RET(labels));
DOMAIN_PROC(domain_get_messages, 426, OBJECT_QUERY, a_domain_flags, true, RET(r_names));
/* No machine here has an encrypted launch. */
DOMAIN_PROC(domain_get_launch_security_info, 396, OBJECT_QUERY, a_domain_flags, true, RET(r_params));
