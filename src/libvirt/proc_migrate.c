/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Migration, version 3 of the protocol, with typed parameters and without; limits of migrations.
 * Thread: the loop thread. */
#include "libvirt/errors.h"
#include "libvirt/migrate.h"

#include <string.h>

/* A finish that took all away, as it was told to: clients show the error that they had before. */
enum { E_FINISH_OK = 93, FROM_QEMU = 10 };

/* ---- what goes between the wire and the core ---- */

static void take_cookie(char *cookie, struct xdr_bytes *ret)
{
    if (!cookie)
        return;
    *ret = (struct xdr_bytes){(uint32_t)strlen(cookie) + 1, (uint8_t *)cookie}; /* with its end */
}

/* 64 bits on the wire, as old clients have it. */
static bool narrow(uint64_t flags, unsigned *ret, GError **error)
{
    *ret = (unsigned)flags;
    return flags <= UINT32_MAX ||
           ruche_error(error, MANAGER_ERR_ARGUMENT,
                       "migration: flags 0x%" G_GINT64_MODIFIER "x are not known", flags);
}

static struct migrate_call call_of(const struct rpc_call *c, const struct param_list *l,
                                   unsigned flags, const struct xdr_bytes *cookie)
{
    struct migrate_call m = {.who = c->who, .params = l, .flags = flags};
    if (cookie)
        m.cookie = (struct migrate_cookie_in){(const char *)cookie->data, cookie->len};
    return m;
}

/* Each phase, of a list of parameters that is freed here. */

static bool begin(struct rpc_call *c, const struct wire_domain *dom, struct param_list *l,
                  unsigned flags, struct r_migrate_begin *ret, GError **error)
{
    auto_domain *d = object_domain(dom, error);
    const struct migrate_call m = call_of(c, l, flags, NULL);
    char *cookie = NULL;
    bool ok = d && domain_migrate_begin(&m, d, &cookie, &ret->xml, error);
    take_cookie(cookie, &ret->cookie);
    param_list_done(l);
    return ok;
}

static bool prepare(struct rpc_call *c, struct param_list *l, const struct xdr_bytes *in,
                    unsigned flags, struct r_migrate_prepare *ret, GError **error)
{
    const struct migrate_call m = call_of(c, l, flags, in);
    char *cookie = NULL;
    bool ok = domain_migrate_prepare(&m, &cookie, &ret->uri, error);
    take_cookie(cookie, &ret->cookie);
    param_list_done(l);
    return ok;
}

static bool perform(struct rpc_call *c, const struct wire_domain *dom, const char *peer,
                    struct param_list *l, const struct xdr_bytes *in, unsigned flags,
                    struct r_migrate_cookie *ret, GError **error)
{
    auto_domain *d = object_domain(dom, error);
    const struct migrate_call m = call_of(c, l, flags, in);
    char *cookie = NULL;
    bool ok = d && domain_migrate_perform(&m, d, peer, NULL, &cookie, error);
    take_cookie(cookie, &ret->cookie);
    param_list_done(l);
    return ok;
}

static bool finish(struct rpc_call *c, struct param_list *l, const struct xdr_bytes *in,
                   unsigned flags, bool cancelled, struct r_migrate_finish *ret, GError **error)
{
    const struct migrate_call m = call_of(c, l, flags, in);
    char *cookie = NULL;
    g_autoptr(GError) why = NULL;
    auto_domain *d = domain_migrate_finish(&m, cancelled, &cookie, &why);
    take_cookie(cookie, &ret->cookie);
    if (d)
        object_fill_domain(d, &ret->dom);
    else if (cancelled && g_error_matches(why, RUCHE_ERROR, MANAGER_ERR_ABORTED))
        wire_error(error, E_FINISH_OK, FROM_QEMU, "%s", why->message);
    else
        g_propagate_error(error, g_steal_pointer(&why));
    param_list_done(l);
    return d != NULL;
}

static bool confirm(struct rpc_call *c, const struct wire_domain *dom, struct param_list *l,
                    const struct xdr_bytes *in, unsigned flags, bool cancelled, GError **error)
{
    auto_domain *d = object_domain(dom, error);
    const struct migrate_call m = call_of(c, l, flags, in);
    bool ok = d && domain_migrate_confirm(&m, d, cancelled, error);
    param_list_done(l);
    return ok;
}

/* ---- with typed parameters ---- */

#define GIVES(shape) RET(shape), /* a result, if there is one */
#define PROC(ident, number_, args_, ret_, expression)                                              \
    static bool do_##ident(struct rpc_call *c, void *args, void *ret, GError **error)              \
    {                                                                                              \
        struct args_ *a = args;                                                                    \
        struct param_list l = {0};                                                                 \
        unsigned flags;                                                                            \
        return narrow(a->flags, &flags, error) && (expression);                                    \
    }                                                                                              \
    RPC_PROC(ident, .number = number_, ARGS(args_), ret_.call = do_##ident)

PROC(domain_migrate_begin3_params, 302, a_migrate_begin, GIVES(r_migrate_begin),
     params_from_wire(&a->params, &l, error) && begin(c, &a->dom, &l, flags, ret, error));
PROC(domain_migrate_prepare3_params, 303, a_migrate_prepare, GIVES(r_migrate_prepare),
     params_from_wire(&a->params, &l, error) && prepare(c, &l, &a->cookie, flags, ret, error));
PROC(domain_migrate_perform3_params, 305, a_migrate_perform, GIVES(r_migrate_cookie),
     params_from_wire(&a->params, &l, error) &&
         perform(c, &a->dom, a->peer, &l, &a->cookie, flags, ret, error));
PROC(domain_migrate_finish3_params, 306, a_migrate_finish, GIVES(r_migrate_finish),
     params_from_wire(&a->params, &l, error) &&
         finish(c, &l, &a->cookie, flags, a->cancelled, ret, error));
PROC(domain_migrate_confirm3_params, 307, a_migrate_confirm, ,
     params_from_wire(&a->params, &l, error) &&
         confirm(c, &a->dom, &l, &a->cookie, flags, a->cancelled, error));

/* ---- without ---- */

/* The fixed fields of old calls as a list. */
static struct param_list *fields(struct param_list *l, const char *uri, const char *name,
                                 const char *xml, uint64_t mib)
{
    const struct {
        const char *name, *text;
    } texts[] = {{"migrate_uri", uri}, {"destination_name", name}, {"destination_xml", xml}};
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++)
        if (texts[i].text && *texts[i].text)
            param_string(l, texts[i].name, texts[i].text);
    if (mib)
        param_ullong(l, "bandwidth", mib);
    return l;
}

struct begin3 {
    struct wire_domain dom;
    char *xml;
    uint64_t flags;
    char *name;
    uint64_t mib;
};
static const struct xdr_row begin3_xdr[] = {XDR_SUB(struct begin3, dom, wire_domain_xdr),
                                            XDR_F(STRING_OPT, struct begin3, xml),
                                            XDR_F(UHYPER, struct begin3, flags),
                                            XDR_F(STRING_OPT, struct begin3, name),
                                            XDR_F(UHYPER, struct begin3, mib),
                                            XDR_DONE};
PROC(domain_migrate_begin3, 213, begin3, GIVES(r_migrate_begin),
     begin(c, &a->dom, fields(&l, NULL, a->name, a->xml, a->mib), flags, ret, error));

struct prepare3 {
    struct xdr_bytes cookie;
    char *uri;
    uint64_t flags;
    char *name;
    uint64_t mib;
    char *xml;
};
static const struct xdr_row prepare3_xdr[] = {
    XDR_F(BYTES, struct prepare3, cookie, .max = MIGRATE_COOKIE_MAX),
    XDR_F(STRING_OPT, struct prepare3, uri),
    XDR_F(UHYPER, struct prepare3, flags),
    XDR_F(STRING_OPT, struct prepare3, name),
    XDR_F(UHYPER, struct prepare3, mib),
    XDR_F(STRING, struct prepare3, xml),
    XDR_DONE};
PROC(domain_migrate_prepare3, 214, prepare3, GIVES(r_migrate_prepare),
     prepare(c, fields(&l, a->uri, a->name, a->xml, a->mib), &a->cookie, flags, ret, error));

struct perform3 {
    struct wire_domain dom;
    char *xml;
    struct xdr_bytes cookie;
    char *peer, *uri;
    uint64_t flags;
    char *name;
    uint64_t mib;
};
static const struct xdr_row perform3_xdr[] = {
    XDR_SUB(struct perform3, dom, wire_domain_xdr),
    XDR_F(STRING_OPT, struct perform3, xml),
    XDR_F(BYTES, struct perform3, cookie, .max = MIGRATE_COOKIE_MAX),
    XDR_F(STRING_OPT, struct perform3, peer),
    XDR_F(STRING_OPT, struct perform3, uri),
    XDR_F(UHYPER, struct perform3, flags),
    XDR_F(STRING_OPT, struct perform3, name),
    XDR_F(UHYPER, struct perform3, mib),
    XDR_DONE};
PROC(domain_migrate_perform3, 216, perform3, GIVES(r_migrate_cookie),
     perform(c, &a->dom, a->peer, fields(&l, a->uri, a->name, a->xml, a->mib), &a->cookie, flags,
             ret, error));

struct finish3 {
    char *name;
    struct xdr_bytes cookie;
    char *peer, *uri;
    uint64_t flags;
    int32_t cancelled;
};
static const struct xdr_row finish3_xdr[] = {
    XDR_F(STRING, struct finish3, name),
    XDR_F(BYTES, struct finish3, cookie, .max = MIGRATE_COOKIE_MAX),
    XDR_F(STRING_OPT, struct finish3, peer),
    XDR_F(STRING_OPT, struct finish3, uri),
    XDR_F(UHYPER, struct finish3, flags),
    XDR_F(INT, struct finish3, cancelled),
    XDR_DONE};
PROC(domain_migrate_finish3, 217, finish3, GIVES(r_migrate_finish),
     finish(c, fields(&l, NULL, a->name, NULL, 0), &a->cookie, flags, a->cancelled, ret, error));

struct confirm3 {
    struct wire_domain dom;
    struct xdr_bytes cookie;
    uint64_t flags;
    int32_t cancelled;
};
static const struct xdr_row confirm3_xdr[] = {
    XDR_SUB(struct confirm3, dom, wire_domain_xdr),
    XDR_F(BYTES, struct confirm3, cookie, .max = MIGRATE_COOKIE_MAX),
    XDR_F(UHYPER, struct confirm3, flags), XDR_F(INT, struct confirm3, cancelled), XDR_DONE};
PROC(domain_migrate_confirm3, 218, confirm3, ,
     confirm(c, &a->dom, &l, &a->cookie, flags, a->cancelled, error));

/* ---- limits ---- */

DOMAIN_PROC(domain_migrate_set_max_downtime, 166, 0, a_domain_u64_flags,
            object_flags(a->flags, 0, "domain_migrate_set_max_downtime", error) &&
                domain_migrate_set_downtime(c->who, d, a->v, error));
DOMAIN_PROC(domain_migrate_get_max_downtime, 387, 0, a_domain_flags,
            object_flags(a->flags, 0, "domain_migrate_get_max_downtime", error) &&
                domain_migrate_get_downtime(c->who, d, &((struct r_u64 *)ret)->v, error),
            RET(r_u64));
DOMAIN_PROC(domain_migrate_get_compression_cache, 299, 0, a_domain_flags,
            object_flags(a->flags, 0, "domain_migrate_get_compression_cache", error) &&
                domain_migrate_get_cache(c->who, d, &((struct r_u64 *)ret)->v, error),
            RET(r_u64));
DOMAIN_PROC(domain_migrate_set_compression_cache, 300, 0, a_domain_u64_flags,
            object_flags(a->flags, 0, "domain_migrate_set_compression_cache", error) &&
                domain_migrate_set_cache(c->who, d, a->v, error));

static bool no_postcopy(GError **error)
{
    return ruche_error(error, MANAGER_ERR_ARGUMENT, "migration: 'postcopy' is not possible here");
}
DOMAIN_PROC(domain_migrate_start_post_copy, 364, 0, a_domain_flags, no_postcopy(error));
