/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains: saved to files and restored, managed saves, and what is told of such jobs. Thread: the
 * loop thread. */
#include "libvirt/object.h"

#include <string.h>

/* ---- save ---- */

struct save_args {
    struct wire_domain dom;
    char *path, *xml;
    uint32_t flags;
};
static const struct xdr_row save_args_xdr[] = {
    XDR_SUB(struct save_args, dom, wire_domain_xdr), XDR_F(STRING, struct save_args, path),
    XDR_F(STRING_OPT, struct save_args, xml), XDR_F(UINT, struct save_args, flags), XDR_DONE};
DOMAIN_PROC(domain_save, 55, 0, a_domain_text,
            domain_save(c->who, d, a->text, NULL, 0, NULL, error));
DOMAIN_PROC(domain_save_flags, 232, 0, save_args,
            domain_save(c->who, d, a->path, a->xml, a->flags, NULL, error));

/* The texts of a list of parameters: "file", "dxml". */
static bool texts(const struct xdr_array *params, const char **ret_file, const char **ret_xml,
                  struct param_list *ret, GError **error)
{
    static const struct param_rule rules[] = {{"file", PARAM_STRING}, {"dxml", PARAM_STRING}, {0}};
    if (!params_from_wire(params, ret, error) || !param_check(ret, rules, error))
        return false;
    const struct param *file = param_find(ret, "file"), *xml = param_find(ret, "dxml");
    *ret_file = file ? file->s : NULL;
    *ret_xml = xml ? xml->s : NULL;
    return true;
}

static bool save_params(struct rpc_call *c, struct domain *d, const struct a_domain_params_flags *a,
                        GError **error)
{
    struct param_list l = {0};
    const char *file, *xml;
    bool ok =
        texts(&a->params, &file, &xml, &l, error) &&
        (file  ? domain_save(c->who, d, file, xml, a->flags, NULL, error)
         : xml ? ruche_error(error, MANAGER_ERR_ARGUMENT, "a managed save takes no description")
               : domain_managed_save(c->who, d, a->flags, NULL, error));
    param_list_done(&l);
    return ok;
}
DOMAIN_PROC(domain_save_params, 440, 0, a_domain_params_flags, save_params(c, d, a, error));

/* ---- restore ---- */

struct restore_args {
    char *path, *xml;
    uint32_t flags;
};
static const struct xdr_row restore_args_xdr[] = {
    XDR_F(STRING, struct restore_args, path), XDR_F(STRING_OPT, struct restore_args, xml),
    XDR_F(UINT, struct restore_args, flags), XDR_DONE};

static bool restored(struct domain *d)
{
    domain_unref(d);
    return d != NULL;
}

static bool restore(struct rpc_call *c, void *args, void *ret, GError **error)
{
    return restored(domain_restore(c->who, ((struct a_name *)args)->name, NULL, 0, NULL, error));
}
RPC_PROC(domain_restore, .number = 54, ARGS(a_name), .call = restore);

static bool restore_flags(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct restore_args *a = args;
    return restored(domain_restore(c->who, a->path, a->xml, a->flags, NULL, error));
}
RPC_PROC(domain_restore_flags, .number = 233, ARGS(restore_args), .call = restore_flags);

struct restore_list {
    struct xdr_array params;
    uint32_t flags;
};
static const struct xdr_row restore_list_xdr[] = {
    XDR_LIST(struct restore_list, params, wire_param, 64), XDR_F(UINT, struct restore_list, flags),
    XDR_DONE};

static bool restore_params(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct restore_list *a = args;
    struct param_list l = {0};
    const char *file, *xml;
    bool ok =
        texts(&a->params, &file, &xml, &l, error) &&
        (file ? restored(domain_restore(c->who, file, xml, a->flags, NULL, error))
              : ruche_error(error, RUCHE_ERR_INVALID, "domain_restore_params: 'file' is missing"));
    param_list_done(&l);
    return ok;
}
RPC_PROC(domain_restore_params, .number = 441, ARGS(restore_list), .call = restore_params);

/* ---- what a file describes ---- */

static bool image_xml(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_name_flags *a = args;
    return object_text(ret, domain_save_xml(c->who, a->name, a->flags, error));
}
RPC_PROC(domain_save_image_get_xml_desc, .number = 235, ARGS(a_name_flags), RET(r_text),
         .call = image_xml);

struct image_define {
    char *path, *xml;
    uint32_t flags;
};
static const struct xdr_row image_define_xdr[] = {
    XDR_F(STRING, struct image_define, path), XDR_F(STRING, struct image_define, xml),
    XDR_F(UINT, struct image_define, flags), XDR_DONE};

static bool define_image(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct image_define *a = args;
    return domain_save_define(c->who, a->path, a->xml, a->flags, error);
}
RPC_PROC(domain_save_image_define_xml, .number = 236, ARGS(image_define), .call = define_image);

/* ---- managed saves ---- */

DOMAIN_PROC(domain_managed_save, 182, 0, a_domain_flags,
            domain_managed_save(c->who, d, a->flags, NULL, error));
DOMAIN_PROC(domain_has_managed_save_image, 183, OBJECT_QUERY, a_domain_flags,
            object_flags(a->flags, 0, "domain_has_managed_save_image", error) &&
                object_int(ret, d->managed_save),
            RET(r_int));
DOMAIN_PROC(domain_managed_save_remove, 184, 0, a_domain_flags,
            object_flags(a->flags, 0, "domain_managed_save_remove", error) &&
                domain_managed_save_remove(c->who, d, error));
DOMAIN_PROC(domain_managed_save_get_xml_desc, 388, RPC_READONLY, a_domain_flags,
            object_text(ret, domain_managed_save_xml(c->who, d, a->flags, error)), RET(r_text));

static bool define_managed(struct rpc_call *c, struct domain *d,
                           const struct a_domain_word_flags *a, GError **error)
{
    if (!a->text)
        return ruche_error(error, RUCHE_ERR_INVALID, "domain '%s': a description is missing",
                           domain_summary(d)->name);
    return domain_managed_save_define(c->who, d, a->text, a->flags, error);
}
DOMAIN_PROC(domain_managed_save_define_xml, 389, 0, a_domain_word_flags,
            define_managed(c, d, a, error));

/* ---- what takes long ---- */

enum { JOB_ENDED = 1, JOB_KEEP = 2, SPEED_POSTCOPY = 1 };

struct job_info {
    int32_t type;
    uint64_t elapsed, left;
    uint64_t data[3], memory[3], files[3]; /* total, processed, remaining */
};
static const struct xdr_row job_info_xdr[] = {
    XDR_F(INT, struct job_info, type),
    XDR_F(ARRAY_FIXED, struct job_info, elapsed, .max = 11, .size = 8, .rows = wire_u64_xdr),
    XDR_DONE};

static bool job_info(struct rpc_call *c, struct domain *d, struct job_info *ret, GError **error)
{
    struct domain_job_info i;
    if (!domain_job_info(c->who, d, false, true, &i, error))
        return false;
    *ret = (struct job_info){.type = (int32_t)i.type,
                             .elapsed = i.elapsed_ms,
                             .left = i.remaining_ms,
                             .data = {i.total, i.done, i.remaining},
                             .memory = {i.total, i.done, i.remaining}};
    return true;
}
DOMAIN_PROC(domain_get_job_info, 163, OBJECT_QUERY, a_domain, job_info(c, d, ret, error),
            RET(job_info));

struct job_stats {
    int32_t type;
    struct xdr_array params;
};
static const struct xdr_row job_stats_xdr[] = {XDR_F(INT, struct job_stats, type),
                                               XDR_LIST(struct job_stats, params, wire_param, 64),
                                               XDR_DONE};

static bool job_stats(struct rpc_call *c, struct domain *d, uint32_t flags, struct job_stats *ret,
                      GError **error)
{
    struct domain_job_info i;
    struct param_list l = {0};
    if (!object_flags(flags, JOB_ENDED | JOB_KEEP, "domain_get_job_stats", error))
        return false;
    if ((flags & JOB_KEEP) && !(flags & JOB_ENDED))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "domain_get_job_stats: only an ended job can be kept");
    if (!domain_job_info(c->who, d, flags & JOB_ENDED, flags & JOB_KEEP, &i, error))
        return false;
    domain_job_params(&i, &l);
    ret->type = (int32_t)i.type;
    params_to_wire(&l, &ret->params);
    return true;
}
DOMAIN_PROC(domain_get_job_stats, 298, OBJECT_QUERY, a_domain_flags,
            job_stats(c, d, a->flags, ret, error), RET(job_stats));

DOMAIN_PROC(domain_abort_job, 164, 0, a_domain, domain_abort_job(c->who, d, error));
DOMAIN_PROC(domain_abort_job_flags, 442, 0, a_domain_flags,
            object_flags(a->flags, 0, "domain_abort_job_flags", error) &&
                domain_abort_job(c->who, d, error));

DOMAIN_PROC(domain_migrate_set_max_speed, 207, 0, a_domain_u64_flags,
            object_flags(a->flags, 0, "domain_migrate_set_max_speed", error) &&
                domain_set_max_speed(c->who, d, a->v, error));

/* What has no limit has the largest. */
static bool max_speed(const struct domain *d, void *ret)
{
    const uint64_t most = INT64_MAX >> 20;
    return object_u64(ret, d->max_speed_mib ? d->max_speed_mib : most);
}
DOMAIN_PROC(domain_migrate_get_max_speed, 242, OBJECT_QUERY, a_domain_flags,
            object_flags(a->flags, SPEED_POSTCOPY, "domain_migrate_get_max_speed", error) &&
                max_speed(d, ret),
            RET(r_u64));
