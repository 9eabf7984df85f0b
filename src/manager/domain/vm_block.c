/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disks and network interfaces of a machine: their counters, sizes, limits.
 *
 * Trust     Answers are read by type; what a machine does not say is -1, or an error.
 */
#include "manager/domain/vm_internal.h"

#include <string.h>

const struct def_disk *vm_find_disk(const struct vm *v, const char *name, GError **error)
{
    const struct domain_def *def = v->d ? v->d->live : NULL;
    for (unsigned i = 0; def && i < def->s.disk_count; i++) {
        const struct def_disk *d = &def->s.disks[i];
        if (!g_strcmp0(d->target, name) || !g_strcmp0(d->source, name) ||
            !g_strcmp0(d->alias, name))
            return d;
    }
    ruche_error(error, MANAGER_ERR_ARGUMENT, "machine '%s' has no disk '%s'", v->name, name);
    return NULL;
}

/* ---- counters ---- */

/* An answer of query-blockstats is this disk's by its node, or by the device's path. */
static bool is_of(JsonObject *o, const char *node, const char *alias)
{
    const char *name = vm_json_string(o, "node-name"), *qdev = vm_json_string(o, "qdev"),
               *device = vm_json_string(o, "device");
    g_autofree char *part = g_strdup_printf("/%s/", alias);
    return !g_strcmp0(name, node) || !g_strcmp0(device, node) || !g_strcmp0(qdev, alias) ||
           (qdev && strstr(qdev, part));
}

static JsonObject *find_stats(JsonNode *answer, const struct def_disk *disk)
{
    JsonArray *list = vm_json_array(answer);
    JsonObject *o;
    for (guint i = 0; (o = vm_json_at(list, i)); i++)
        if (is_of(o, disk->node, disk->alias ? disk->alias : ""))
            return vm_json_sub(o, "stats");
    return NULL;
}

static struct domain_block_stats read_stats(JsonObject *s)
{
    int64_t errors = 0;
    static const char *const failed[] = {"failed_rd_operations", "failed_wr_operations",
                                         "failed_flush_operations"};
    for (size_t i = 0; i < G_N_ELEMENTS(failed); i++)
        errors += MAX(vm_json_int(s, failed[i], 0), 0);
    return (struct domain_block_stats){
        .rd_req = vm_json_int(s, "rd_operations", -1),
        .rd_bytes = vm_json_int(s, "rd_bytes", -1),
        .rd_ns = vm_json_int(s, "rd_total_time_ns", -1),
        .wr_req = vm_json_int(s, "wr_operations", -1),
        .wr_bytes = vm_json_int(s, "wr_bytes", -1),
        .wr_ns = vm_json_int(s, "wr_total_time_ns", -1),
        .flush_req = vm_json_int(s, "flush_operations", -1),
        .flush_ns = vm_json_int(s, "flush_total_time_ns", -1),
        .errs = s ? errors : -1,
    };
}

static void add_up(int64_t *sum, int64_t more)
{
    *sum = *sum < 0 || more < 0 ? MAX(*sum, more) : *sum + more;
}

/* "" is the sum of all disks, as libvirt has it. */
static bool sum_stats(struct vm *v, struct domain_block_stats *ret, GError **error)
{
    JsonNode *answer = vm_ask(v, VM_ASK_BLOCKSTATS, error);
    if (!answer)
        return false;
    *ret = (struct domain_block_stats){-1, -1, -1, -1, -1, -1, -1, -1, -1};
    for (unsigned i = 0; v->d && v->d->live && i < v->d->live->s.disk_count; i++) {
        struct domain_block_stats one = read_stats(find_stats(answer, &v->d->live->s.disks[i]));
        int64_t *to = &ret->rd_req, *from = &one.rd_req;
        for (size_t k = 0; k < sizeof(one) / sizeof(int64_t); k++)
            add_up(&to[k], from[k]);
    }
    return true;
}

bool vm_block_stats(struct vm *v, const char *disk, struct domain_block_stats *ret, GError **error)
{
    auto_vm *keep = vm_ref(v);
    if (!*disk)
        return sum_stats(v, ret, error);
    if (!vm_find_disk(v, disk, error))
        return false;
    JsonNode *answer = vm_ask(keep, VM_ASK_BLOCKSTATS, error);
    const struct def_disk *d = answer ? vm_find_disk(v, disk, error) : NULL;
    if (!d)
        return false;
    *ret = read_stats(find_stats(answer, d));
    return true;
}

/* ---- sizes ---- */

static JsonObject *find_node(JsonNode *answer, const char *name)
{
    JsonArray *list = vm_json_array(answer);
    JsonObject *o;
    for (guint i = 0; (o = vm_json_at(list, i)); i++)
        if (!g_strcmp0(vm_json_string(o, "node-name"), name))
            return o;
    return NULL;
}

static bool read_info(JsonNode *nodes, const struct def_disk *d, struct domain_block_info *ret)
{
    g_autofree char *file = g_strconcat(d->node, "-file", NULL);
    JsonObject *image = vm_json_sub(find_node(nodes, d->node), "image"),
               *below = vm_json_sub(find_node(nodes, file), "image");
    int64_t size = vm_json_int(image, "virtual-size", -1),
            used = vm_json_int(below, "actual-size", -1);
    if (size < 0)
        return false;
    int64_t physical = vm_json_int(below, "virtual-size", size);
    *ret = (struct domain_block_info){.capacity = (uint64_t)size,
                                      .allocation = (uint64_t)(used >= 0 ? used : physical),
                                      .physical = (uint64_t)MAX(physical, 0)};
    return true;
}

bool vm_block_info(struct vm *v, const char *disk, struct domain_block_info *ret, GError **error)
{
    auto_vm *keep = vm_ref(v);
    if (!vm_find_disk(v, disk, error))
        return false;
    JsonNode *nodes = vm_ask(keep, VM_ASK_NODES, error);
    const struct def_disk *d = nodes ? vm_find_disk(v, disk, error) : NULL;
    return d && (read_info(nodes, d, ret) ||
                 ruche_error(error, MANAGER_ERR_MACHINE, "machine '%s': disk '%s' has no medium",
                             v->name, disk));
}

bool vm_block_resize(struct vm *v, const char *disk, uint64_t bytes, GError **error)
{
    auto_vm *keep = vm_ref(v);
    const struct def_disk *d = vm_find_disk(v, disk, error);
    if (!d)
        return false;
    if (bytes > G_MAXINT64)
        return ruche_error(error, MANAGER_ERR_OVERFLOW,
                           "disk '%s': %" G_GUINT64_FORMAT " bytes are too much", disk, bytes);
    bool ok = vm_do(v, "block_resize",
                    vm_json("node-name", 's', d->node, "size", 'i', (int64_t)bytes, NULL), error);
    keep->answers[VM_ASK_NODES].at_us = 0;
    return ok;
}

bool vm_block_threshold(struct vm *v, const char *disk, uint64_t bytes, GError **error)
{
    auto_vm *keep = vm_ref(v);
    const struct def_disk *d = vm_find_disk(v, disk, error);
    if (!d)
        return false;
    if (bytes > G_MAXINT64)
        return ruche_error(error, MANAGER_ERR_OVERFLOW,
                           "disk '%s': %" G_GUINT64_FORMAT " bytes are too much", disk, bytes);
    g_autofree char *file = g_strconcat(d->node, "-file", NULL);
    bool ok =
        vm_do(v, "block-set-write-threshold",
              vm_json("node-name", 's', file, "write-threshold", 'i', (int64_t)bytes, NULL), error);
    keep->answers[VM_ASK_NODES].at_us = 0;
    return ok;
}

/* ---- bulk statistics ---- */

static void add_count(struct param_list *l, unsigned i, const char *name, int64_t v)
{
    if (v >= 0)
        param_ullong_at(l, (uint64_t)v, "block.%u.%s", i, name);
}

/* Of the file, whose writes it counts; 0: none. */
static void add_threshold(struct param_list *l, unsigned i, const struct def_disk *d,
                          JsonNode *nodes)
{
    g_autofree char *file = g_strconcat(d->node, "-file", NULL);
    int64_t bytes = vm_json_int(find_node(nodes, file), "write_threshold", 0);
    add_count(l, i, "threshold", bytes > 0 ? bytes : -1);
}

static void add_disk(struct param_list *l, unsigned i, const struct def_disk *d, JsonNode *stats,
                     JsonNode *nodes)
{
    struct domain_block_stats s = read_stats(stats ? find_stats(stats, d) : NULL);
    struct domain_block_info info;
    param_string_at(l, d->target, "block.%u.name", i);
    if (d->source)
        param_string_at(l, d->source, "block.%u.path", i);
    add_count(l, i, "rd.reqs", s.rd_req);
    add_count(l, i, "rd.bytes", s.rd_bytes);
    add_count(l, i, "rd.times", s.rd_ns);
    add_count(l, i, "wr.reqs", s.wr_req);
    add_count(l, i, "wr.bytes", s.wr_bytes);
    add_count(l, i, "wr.times", s.wr_ns);
    add_count(l, i, "fl.reqs", s.flush_req);
    add_count(l, i, "fl.times", s.flush_ns);
    add_count(l, i, "errors", s.errs > 0 ? s.errs : -1);
    if (nodes && read_info(nodes, d, &info)) {
        add_count(l, i, "allocation", (int64_t)info.allocation);
        add_count(l, i, "capacity", (int64_t)info.capacity);
        add_count(l, i, "physical", (int64_t)info.physical);
        add_threshold(l, i, d, nodes);
    }
}

void vm_disk_stats(struct vm *v, struct param_list *ret)
{
    JsonNode *stats = NULL, *nodes = NULL;
    if (!v->d || !v->d->live)
        return;
    if (v->d->live->s.disk_count && vm_ask(v, VM_ASK_BLOCKSTATS, NULL)) {
        nodes = vm_ask(v, VM_ASK_NODES,
                       NULL); /* asked last, so that neither is replaced before it is read */
        stats = v->answers[VM_ASK_BLOCKSTATS].node;
    }
    const struct domain_def *def = v->d ? v->d->live : NULL;
    param_uint(ret, "block.count", def ? def->s.disk_count : 0);
    for (unsigned i = 0; def && i < def->s.disk_count; i++)
        add_disk(ret, i, &def->s.disks[i], stats, nodes);
}
