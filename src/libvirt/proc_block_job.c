/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains: jobs on the disks of running machines. Thread: the loop thread. */
#include "base/xml.h"
#include "libvirt/object.h"

#include <string.h>

/* Of virDomainBlockRebase; of the others where they have them. */
enum {
    SHALLOW = 1,
    REUSE = 2,
    COPY_RAW = 4,
    COPY = 8,
    RELATIVE = 16,
    COPY_DEV = 32,
    REBASE_BYTES = 64
};
enum { COPY_TRANSIENT = 4, COPY_SYNCHRONOUS = 8 };
enum { COMMIT_BYTES = 16, SPEED_BYTES = 1, INFO_BYTES = 1, COPY_PARAMS = 16 };
#define UNIT (UINT64_C(1) << 20) /* speeds are in MiB/s, unless a flag says bytes */

static bool speed(uint64_t v, bool bytes, uint64_t *ret, GError **error)
{
    const uint64_t most = INT64_MAX / (bytes ? 1 : UNIT);
    if (v > most)
        return ruche_error(error, MANAGER_ERR_OVERFLOW, "bandwidth must be less than %llu",
                           (unsigned long long)most);
    *ret = bytes ? v : v * UNIT;
    return true;
}

/* ---- pull, rebase ---- */

struct disk_speed {
    struct wire_domain dom;
    char *disk;
    uint64_t speed;
    uint32_t flags;
};
static const struct xdr_row disk_speed_xdr[] = {
    XDR_SUB(struct disk_speed, dom, wire_domain_xdr), XDR_F(STRING, struct disk_speed, disk),
    XDR_F(UHYPER, struct disk_speed, speed), XDR_F(UINT, struct disk_speed, flags), XDR_DONE};

static bool pull(struct rpc_call *c, struct domain *d, const struct disk_speed *a, GError **error)
{
    uint64_t bytes = 0;
    return object_flags(a->flags, REBASE_BYTES, "domain_block_pull", error) &&
           speed(a->speed, a->flags & REBASE_BYTES, &bytes, error) &&
           domain_block_pull(c->who, d, a->disk, NULL, bytes, error);
}
DOMAIN_PROC(domain_block_pull, 240, 0, disk_speed, pull(c, d, a, error));

struct rebase_args {
    struct wire_domain dom;
    char *disk, *base;
    uint64_t speed;
    uint32_t flags;
};
static const struct xdr_row rebase_args_xdr[] = {XDR_SUB(struct rebase_args, dom, wire_domain_xdr),
                                                 XDR_F(STRING, struct rebase_args, disk),
                                                 XDR_F(STRING_OPT, struct rebase_args, base),
                                                 XDR_F(UHYPER, struct rebase_args, speed),
                                                 XDR_F(UINT, struct rebase_args, flags),
                                                 XDR_DONE};

/* One call is two: with COPY it is a copy to `base`. */
static bool rebase(struct rpc_call *c, struct domain *d, const struct rebase_args *a,
                   GError **error)
{
    const unsigned of_copy = SHALLOW | REUSE | COPY_RAW | COPY | COPY_DEV;
    struct domain_block_copy copy = {.path = a->base,
                                     .format = a->flags & COPY_RAW ? "raw" : NULL,
                                     .device = a->flags & COPY_DEV,
                                     .shallow = a->flags & SHALLOW,
                                     .reuse = a->flags & REUSE};
    if (!object_flags(a->flags, of_copy | RELATIVE | REBASE_BYTES, "domain_block_rebase", error) ||
        !speed(a->speed, a->flags & REBASE_BYTES, &copy.bytes_s, error))
        return false;
    if (a->flags & COPY)
        return copy.path ? domain_block_copy(c->who, d, a->disk, &copy, error)
                         : ruche_error(error, RUCHE_ERR_INVALID,
                                       "domain_block_rebase: the copy's path is missing");
    if (a->flags & of_copy)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "domain_block_rebase: flags 0x%x are of a copy", a->flags & of_copy);
    return domain_block_pull(c->who, d, a->disk, a->base, copy.bytes_s, error);
}
DOMAIN_PROC(domain_block_rebase, 266, 0, rebase_args, rebase(c, d, a, error));

/* ---- commit ---- */

struct commit_args {
    struct wire_domain dom;
    char *disk, *base, *top;
    uint64_t speed;
    uint32_t flags;
};
static const struct xdr_row commit_args_xdr[] = {XDR_SUB(struct commit_args, dom, wire_domain_xdr),
                                                 XDR_F(STRING, struct commit_args, disk),
                                                 XDR_F(STRING_OPT, struct commit_args, base),
                                                 XDR_F(STRING_OPT, struct commit_args, top),
                                                 XDR_F(UHYPER, struct commit_args, speed),
                                                 XDR_F(UINT, struct commit_args, flags),
                                                 XDR_DONE};

static bool commit(struct rpc_call *c, struct domain *d, const struct commit_args *a,
                   GError **error)
{
    uint64_t bytes = 0;
    return speed(a->speed, a->flags & COMMIT_BYTES, &bytes, error) &&
           domain_block_commit(c->who, d, a->disk, a->base, a->top,
                               a->flags & ~(unsigned)COMMIT_BYTES, bytes, error);
}
DOMAIN_PROC(domain_block_commit, 290, 0, commit_args, commit(c, d, a, error));

/* ---- copy ---- */

struct copy_args {
    struct wire_domain dom;
    char *disk, *xml;
    struct xdr_array params;
    uint32_t flags;
};
static const struct xdr_row copy_args_xdr[] = {
    XDR_SUB(struct copy_args, dom, wire_domain_xdr),
    XDR_F(STRING, struct copy_args, disk),
    XDR_F(STRING, struct copy_args, xml),
    XDR_LIST(struct copy_args, params, wire_param, COPY_PARAMS),
    XDR_F(UINT, struct copy_args, flags),
    XDR_DONE};

static uint64_t figure(const struct param_list *l, const char *name)
{
    const struct param *p = param_find(l, name);
    return p ? p->u : 0;
}

/* Where the copy is to be, from its <disk>. */
static bool target(const struct xml_node *disk, struct domain_block_copy *ret, GError **error)
{
    const char *type = xml_get_or(disk, "@type", "file");
    if (strcmp(type, "file") && strcmp(type, "block"))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "a copy to a disk of type '%s' is not possible", type);
    ret->device = !strcmp(type, "block");
    ret->path = xml_get(disk, ret->device ? "source@dev" : "source@file");
    ret->format = xml_get(disk, "driver@type");
    return ret->path || ruche_error(error, RUCHE_ERR_XML, "the copy has no <source>");
}

static bool copy(struct rpc_call *c, struct domain *d, const struct copy_args *a, GError **error)
{
    static const struct param_rule rules[] = {
        {"bandwidth", PARAM_ULLONG}, {"granularity", PARAM_UINT}, {"buf-size", PARAM_ULLONG}, {0}};
    struct param_list l = {0};
    auto_xml *doc = xml_parse(a->xml, strlen(a->xml), "disk", error);
    struct domain_block_copy how = {.shallow = a->flags & SHALLOW,
                                    .reuse = a->flags & REUSE,
                                    .write_blocking = a->flags & COPY_SYNCHRONOUS};
    bool ok = doc &&
              object_flags(a->flags, SHALLOW | REUSE | COPY_TRANSIENT | COPY_SYNCHRONOUS,
                           "domain_block_copy", error) &&
              params_from_wire(&a->params, &l, error) && param_check(&l, rules, error) &&
              target(doc, &how, error);
    how.granularity = figure(&l, "granularity");
    how.buf_size = figure(&l, "buf-size");
    ok = ok && speed(figure(&l, "bandwidth"), true, &how.bytes_s, error) &&
         domain_block_copy(c->who, d, a->disk, &how, error);
    param_list_done(&l);
    return ok;
}
DOMAIN_PROC(domain_block_copy, 345, 0, copy_args, copy(c, d, a, error));

/* ---- while it goes on ---- */

DOMAIN_PROC(domain_block_job_abort, 237, 0, a_domain_text_flags,
            domain_block_job_abort(c->who, d, a->text, a->flags, error));

static bool set_speed(struct rpc_call *c, struct domain *d, const struct disk_speed *a,
                      GError **error)
{
    uint64_t bytes = 0;
    return object_flags(a->flags, SPEED_BYTES, "domain_block_job_set_speed", error) &&
           speed(a->speed, a->flags & SPEED_BYTES, &bytes, error) &&
           domain_block_job_speed(c->who, d, a->disk, bytes, error);
}
DOMAIN_PROC(domain_block_job_set_speed, 239, 0, disk_speed, set_speed(c, d, a, error));

struct block_job {
    int32_t found, type;
    uint64_t bandwidth, now, end;
};
static const struct xdr_row block_job_xdr[] = {
    XDR_F(INT, struct block_job, found),        XDR_F(INT, struct block_job, type),
    XDR_F(UHYPER, struct block_job, bandwidth), XDR_F(UHYPER, struct block_job, now),
    XDR_F(UHYPER, struct block_job, end),       XDR_DONE};

static bool info(struct rpc_call *c, struct domain *d, const struct a_domain_text_flags *a,
                 struct block_job *ret, GError **error)
{
    struct domain_block_job_info i;
    if (!object_flags(a->flags, INFO_BYTES, "domain_get_block_job_info", error) ||
        !domain_block_job_info(c->who, d, a->text, &i, error))
        return false;
    if (i.kind)
        *ret = (struct block_job){
            .found = 1,
            .type = (int32_t)i.kind,
            .bandwidth = a->flags & INFO_BYTES ? i.bytes_s : (i.bytes_s + UNIT - 1) / UNIT,
            .now = i.done,
            .end = i.total};
    return true;
}
DOMAIN_PROC(domain_get_block_job_info, 238, RPC_READONLY, a_domain_text_flags,
            info(c, d, a, ret, error), RET(block_job));

struct threshold {
    struct wire_domain dom;
    char *disk;
    uint64_t bytes;
    uint32_t flags;
};
static const struct xdr_row threshold_xdr[] = {
    XDR_SUB(struct threshold, dom, wire_domain_xdr), XDR_F(STRING, struct threshold, disk),
    XDR_F(UHYPER, struct threshold, bytes), XDR_F(UINT, struct threshold, flags), XDR_DONE};
DOMAIN_PROC(domain_set_block_threshold, 386, 0, threshold,
            object_flags(a->flags, 0, "domain_set_block_threshold", error) &&
                domain_block_threshold(c->who, d, a->disk, a->bytes, error));
