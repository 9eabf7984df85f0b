/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains: what they do and use. Thread: the loop thread.
 *
 * Trust     Counts that a client asks room for are capped before they are multiplied.
 */
#include "libvirt/object.h"
#include "manager/node/node.h"

enum { STRINGS_OKAY = 4 };

static bool must_run(const struct domain *d, GError **error)
{
    return domain_is_active(d) || ruche_error(error, RUCHE_ERR_STATE, "domain '%s' is not running",
                                              domain_summary(d)->name);
}

/* ---- info ---- */

struct info {
    uint32_t state;
    uint64_t max_memory, memory;
    uint32_t vcpus;
    uint64_t cpu_time;
};
static const struct xdr_row info_xdr[] = {
    XDR_F(UINT, struct info, state),      XDR_F(UHYPER, struct info, max_memory),
    XDR_F(UHYPER, struct info, memory),   XDR_F(UINT, struct info, vcpus),
    XDR_F(UHYPER, struct info, cpu_time), XDR_DONE};

static bool get_info(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct a_domain *a = args;
    struct domain_info i;
    auto_domain *d = object_domain(&a->dom, error);
    if (!d || !domain_info(c->who, d, &i, error))
        return false;
    *(struct info *)ret =
        (struct info){i.state, i.max_memory_kib, i.memory_kib, i.vcpus, i.cpu_time_ns};
    return true;
}
RPC_PROC(domain_get_info, .number = 16, .flags = OBJECT_QUERY, ARGS(a_domain), RET(info),
         .call = get_info);

struct control_info {
    uint32_t state, details;
    uint64_t since_ms;
};
static const struct xdr_row control_info_xdr[] = {
    XDR_F(UINT, struct control_info, state), XDR_F(UINT, struct control_info, details),
    XDR_F(UHYPER, struct control_info, since_ms), XDR_DONE};

static bool control_info(const struct domain *d, struct control_info *ret, GError **error)
{
    if (!must_run(d, error))
        return false;
    if (d->job_holder) /* somebody changes it: virDomainControlState 1 */
        *ret = (struct control_info){1, 0,
                                     (uint64_t)(g_get_monotonic_time() - d->job_since_us) / 1000};
    return true;
}
DOMAIN_PROC(domain_get_control_info, 229, OBJECT_QUERY, a_domain_flags, control_info(d, ret, error),
            RET(control_info));

/* What virsh and virt-manager ask before they undefine: there are no snapshots or checkpoints yet.
 */
DOMAIN_PROC(domain_has_current_snapshot, 190, OBJECT_QUERY, a_domain_flags, object_int(ret, 0),
            RET(r_int));
DOMAIN_PROC(domain_snapshot_num, 187, OBJECT_QUERY, a_domain_flags, object_int(ret, 0), RET(r_int));
DOMAIN_PROC(domain_snapshot_list_names, 188, OBJECT_QUERY, a_domain_int_flags, true, RET(r_names));
struct snapshots {
    struct xdr_array list;
    int32_t count;
};
static const struct xdr_row snapshots_xdr[] = {
    XDR_LIST(struct snapshots, list, wire_snapshot, LIMIT_OBJECTS),
    XDR_F(INT, struct snapshots, count), XDR_DONE};
DOMAIN_PROC(domain_list_all_snapshots, 274, OBJECT_QUERY, a_domain_int_flags, true, RET(snapshots));
DOMAIN_PROC(domain_list_all_checkpoints, 413, OBJECT_QUERY, a_domain_int_flags, true,
            RET(snapshots));
DOMAIN_PROC(domain_snapshot_lookup_by_name, 189, OBJECT_QUERY, a_domain_text_flags,
            ruche_error(error, MANAGER_ERR_NO_SNAPSHOT, "domain '%s' has no snapshot '%s'",
                        domain_summary(d)->name, a->text));
DOMAIN_PROC(domain_snapshot_current, 191, OBJECT_QUERY, a_domain_flags,
            ruche_error(error, MANAGER_ERR_NO_SNAPSHOT, "domain '%s' has no current snapshot",
                        domain_summary(d)->name));

/* ---- disks ---- */

struct block_stats {
    int64_t rd_req, rd_bytes, wr_req, wr_bytes, errs;
};
static const struct xdr_row block_stats_xdr[] = {
    XDR_F(HYPER, struct block_stats, rd_req), XDR_F(HYPER, struct block_stats, rd_bytes),
    XDR_F(HYPER, struct block_stats, wr_req), XDR_F(HYPER, struct block_stats, wr_bytes),
    XDR_F(HYPER, struct block_stats, errs),   XDR_DONE};

static bool block_stats(struct rpc_call *c, struct domain *d, const char *disk,
                        struct block_stats *ret, GError **error)
{
    struct domain_block_stats s;
    if (!domain_block_stats(c->who, d, disk, &s, error))
        return false;
    *ret = (struct block_stats){s.rd_req, s.rd_bytes, s.wr_req, s.wr_bytes, s.errs};
    return true;
}
DOMAIN_PROC(domain_block_stats, 64, RPC_READONLY, a_domain_text,
            block_stats(c, d, a->text, ret, error), RET(block_stats));

struct device_room {
    struct wire_domain dom;
    char *device;
    int32_t room;
    uint32_t flags;
};
static const struct xdr_row device_room_xdr[] = {
    XDR_SUB(struct device_room, dom, wire_domain_xdr), XDR_F(STRING, struct device_room, device),
    XDR_F(INT, struct device_room, room), XDR_F(UINT, struct device_room, flags), XDR_DONE};

static void param_known(struct param_list *l, const char *name, int64_t v)
{
    if (v >= 0)
        param_llong(l, name, v);
}

static bool block_stats_flags(struct rpc_call *c, struct domain *d, const struct device_room *a,
                              struct r_params_count *ret, GError **error)
{
    struct domain_block_stats s;
    struct param_list l = {0};
    if (!object_flags(a->flags, STRINGS_OKAY, "domain_block_stats_flags", error) ||
        !domain_block_stats(c->who, d, a->device, &s, error))
        return false;
    param_known(&l, "wr_bytes", s.wr_bytes);
    param_known(&l, "wr_operations", s.wr_req);
    param_known(&l, "rd_bytes", s.rd_bytes);
    param_known(&l, "rd_operations", s.rd_req);
    param_known(&l, "flush_operations", s.flush_req);
    param_known(&l, "wr_total_times", s.wr_ns);
    param_known(&l, "rd_total_times", s.rd_ns);
    param_known(&l, "flush_total_times", s.flush_ns);
    params_answer(&l, a->room, &ret->params, &ret->count);
    return true;
}
DOMAIN_PROC(domain_block_stats_flags, 243, RPC_READONLY, device_room,
            block_stats_flags(c, d, a, ret, error), RET(r_params_count));

struct block_info {
    uint64_t allocation, capacity, physical;
};
static const struct xdr_row block_info_xdr[] = {
    XDR_F(UHYPER, struct block_info, allocation), XDR_F(UHYPER, struct block_info, capacity),
    XDR_F(UHYPER, struct block_info, physical), XDR_DONE};

static bool block_info(struct rpc_call *c, struct domain *d, const struct a_domain_text_flags *a,
                       struct block_info *ret, GError **error)
{
    struct domain_block_info i;
    if (!object_flags(a->flags, 0, "domain_get_block_info", error) ||
        !domain_block_info(c->who, d, a->text, &i, error))
        return false;
    *ret = (struct block_info){i.allocation, i.capacity, i.physical};
    return true;
}
DOMAIN_PROC(domain_get_block_info, 194, RPC_READONLY, a_domain_text_flags,
            block_info(c, d, a, ret, error), RET(block_info));

struct block_resize {
    struct wire_domain dom;
    char *disk;
    uint64_t size;
    uint32_t flags;
};
static const struct xdr_row block_resize_xdr[] = {
    XDR_SUB(struct block_resize, dom, wire_domain_xdr), XDR_F(STRING, struct block_resize, disk),
    XDR_F(UHYPER, struct block_resize, size), XDR_F(UINT, struct block_resize, flags), XDR_DONE};

static bool block_resize(struct rpc_call *c, struct domain *d, const struct block_resize *a,
                         GError **error)
{
    enum { IN_BYTES = 1 };
    if (!object_flags(a->flags, IN_BYTES, "domain_block_resize", error))
        return false;
    if (!(a->flags & IN_BYTES) && a->size > UINT64_MAX / 1024)
        return ruche_error(error, MANAGER_ERR_OVERFLOW,
                           "disk '%s': %" G_GUINT64_FORMAT " KiB are more than can be counted",
                           a->disk, a->size);
    return domain_block_resize(c->who, d, a->disk, a->flags & IN_BYTES ? a->size : a->size * 1024,
                               error);
}
DOMAIN_PROC(domain_block_resize, 251, 0, block_resize, block_resize(c, d, a, error));

struct disk_error {
    char *disk;
    int32_t error;
};
static const struct xdr_row disk_error_xdr[] = {XDR_F(STRING, struct disk_error, disk),
                                                XDR_F(INT, struct disk_error, error), XDR_DONE};
struct disk_errors {
    struct xdr_array errors;
    int32_t count;
};
static const struct xdr_row disk_errors_xdr[] = {
    XDR_LIST(struct disk_errors, errors, disk_error, 256), XDR_F(INT, struct disk_errors, count),
    XDR_DONE};
DOMAIN_PROC(domain_get_disk_errors, 263, OBJECT_QUERY, a_domain_int_flags, must_run(d, error),
            RET(disk_errors));

/* ---- interfaces, memory, CPUs ---- */

struct interface_stats {
    int64_t v[8];
};
static const struct xdr_row interface_stats_xdr[] = {
    XDR_F(ARRAY_FIXED, struct interface_stats, v, .max = 8, .size = 8, .rows = wire_u64_xdr),
    XDR_DONE};

static bool interface_stats(struct rpc_call *c, struct domain *d, const char *device,
                            struct interface_stats *ret, GError **error)
{
    struct domain_interface_stats s;
    if (!domain_interface_stats(c->who, d, device, &s, error))
        return false;
    *ret = (struct interface_stats){{s.rx_bytes, s.rx_packets, s.rx_errs, s.rx_drop, s.tx_bytes,
                                     s.tx_packets, s.tx_errs, s.tx_drop}};
    return true;
}
DOMAIN_PROC(domain_interface_stats, 65, RPC_READONLY, a_domain_text,
            interface_stats(c, d, a->text, ret, error), RET(interface_stats));

struct memory_stat {
    int32_t tag;
    uint64_t value;
};
static const struct xdr_row memory_stat_xdr[] = {
    XDR_F(INT, struct memory_stat, tag), XDR_F(UHYPER, struct memory_stat, value), XDR_DONE};
struct memory_stats {
    struct xdr_array stats;
};
static const struct xdr_row memory_stats_xdr[] = {
    XDR_LIST(struct memory_stats, stats, memory_stat, LIMIT_STATS), XDR_DONE};

static bool memory_stats(struct rpc_call *c, struct domain *d, const struct a_domain_int_flags *a,
                         struct memory_stats *ret, GError **error)
{
    if (!object_flags(a->flags, 0, "domain_memory_stats", error) ||
        !object_room(a->v, LIMIT_STATS, "domain_memory_stats", error))
        return false;
    g_autofree struct domain_memory_stat *s = g_new0(struct domain_memory_stat, (gsize)a->v + 1);
    int n = domain_memory_stats(c->who, d, s, (unsigned)a->v, error);
    if (n < 0)
        return false;
    struct memory_stat *m = g_new0(struct memory_stat, (gsize)n + 1);
    for (int i = 0; i < n; i++)
        m[i] = (struct memory_stat){s[i].tag, s[i].value};
    ret->stats = (struct xdr_array){(uint32_t)n, m};
    return true;
}
DOMAIN_PROC(domain_memory_stats, 159, RPC_READONLY, a_domain_int_flags,
            memory_stats(c, d, a, ret, error), RET(memory_stats));

struct cpu_stats {
    struct wire_domain dom;
    uint32_t params;
    int32_t start;
    uint32_t count, flags;
};
static const struct xdr_row cpu_stats_xdr[] = {XDR_SUB(struct cpu_stats, dom, wire_domain_xdr),
                                               XDR_F(UINT, struct cpu_stats, params),
                                               XDR_F(INT, struct cpu_stats, start),
                                               XDR_F(UINT, struct cpu_stats, count),
                                               XDR_F(UINT, struct cpu_stats, flags),
                                               XDR_DONE};

static void append(struct xdr_array *to, struct xdr_array *from)
{
    struct wire_param *all = g_renew(struct wire_param, to->items, to->count + from->count + 1);
    if (from->count)
        memcpy(all + to->count, from->items, from->count * sizeof(*all));
    to->items = all;
    to->count += from->count;
    g_free(from->items);
}

/* No room for parameters: how many a CPU has. No CPUs: how many there are. */
static bool cpu_stats(struct rpc_call *c, struct domain *d, const struct cpu_stats *a,
                      struct r_params_count *ret, GError **error)
{
    enum { CPUS = 128, PARAMS = 16 };
    int cpus = node_cpu_map(NULL, NULL);
    if (!object_flags(a->flags, STRINGS_OKAY, "domain_get_cpu_stats", error))
        return false;
    if (a->count > CPUS || a->params > PARAMS || a->start < -1 || a->start >= cpus ||
        (a->start == -1 && a->count > 1))
        return ruche_error(error, RUCHE_ERR_INVALID, "cpu stats: %u of %d CPUs from %d on",
                           a->count, cpus, a->start);
    ret->count = cpus;
    for (uint32_t i = 0; i < a->count && a->start + (int)i < cpus; i++) {
        struct param_list l = {0};
        struct r_params_count one = {0};
        if (!domain_cpu_stats(c->who, d, a->start < 0 ? -1 : a->start + (int)i, &l, error))
            return false;
        params_answer(&l, (int32_t)a->params, &one.params, &one.count);
        ret->count = one.count;
        append(&ret->params, &one.params);
    }
    return true;
}
DOMAIN_PROC(domain_get_cpu_stats, 262, RPC_READONLY, cpu_stats, cpu_stats(c, d, a, ret, error),
            RET(r_params_count));

/* ---- all of many ---- */

struct all_stats {
    struct xdr_array doms;
    uint32_t stats, flags;
};
static const struct xdr_row all_stats_xdr[] = {
    XDR_LIST(struct all_stats, doms, wire_domain, LIMIT_OBJECTS),
    XDR_F(UINT, struct all_stats, stats), XDR_F(UINT, struct all_stats, flags), XDR_DONE};
struct record {
    struct wire_domain dom;
    struct xdr_array params;
};
static const struct xdr_row record_xdr[] = {
    XDR_SUB(struct record, dom, wire_domain_xdr),
    XDR_LIST(struct record, params, wire_param, LIMIT_PARAMS), XDR_DONE};
struct records {
    struct xdr_array records;
};
static const struct xdr_row records_xdr[] = {
    XDR_LIST(struct records, records, record, LIMIT_OBJECTS), XDR_DONE};

static void unref_domain(gpointer d)
{
    domain_unref(d);
}

static GPtrArray *named(const struct xdr_array *doms, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(unref_domain);
    for (uint32_t i = 0; i < doms->count; i++) {
        struct domain *d = object_domain((struct wire_domain *)doms->items + i, error);
        if (!d)
            return NULL;
        g_ptr_array_add(list, d);
    }
    return g_steal_pointer(&list);
}

static bool get_all_stats(struct rpc_call *c, void *args, void *ret, GError **error)
{
    const struct all_stats *a = args;
    const uint32_t list_flags = a->flags & 0xffff;
    struct xdr_array *r = &((struct records *)ret)->records;
    g_autoptr(GPtrArray) list =
        a->doms.count ? named(&a->doms, error) : domain_list(c->who, list_flags);
    if (!list)
        return false;
    struct record *out = g_new0(struct record, list->len + 1);
    r->items = out;
    for (guint i = 0; i < list->len; i++) {
        struct domain *d = list->pdata[i];
        struct param_list l = {0};
        if (!domain_stats(c->who, d, a->stats, a->flags & ~list_flags, &l, error)) {
            param_list_done(&l);
            return false;
        }
        object_fill_domain(d, &out[r->count].dom);
        params_to_wire(&l, &out[r->count].params);
        r->count++;
    }
    return true;
}
RPC_PROC(connect_get_all_domain_stats, .number = 344, .flags = RPC_READONLY, ARGS(all_stats),
         RET(records), .call = get_all_stats);
