/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bulk statistics of a machine, and those of its network interfaces.
 *
 * Spec      virConnectGetAllDomainStats() at 9.0.0: names and kinds of rows.
 */
#include "manager/domain/vm_internal.h"

#include <string.h>

enum {
    STATS_CPU = 1 << 1,
    STATS_BALLOON = 1 << 2,
    STATS_VCPU = 1 << 3,
    STATS_INTERFACE = 1 << 4,
    STATS_BLOCK = 1 << 5,
    STATS_IOTHREAD = 1 << 7
};

/* ---- interfaces ---- */

static const struct def_interface *find_interface(const struct vm *v, const char *name,
                                                  GError **error)
{
    const struct domain_def *def = v->d ? v->d->live : NULL;
    for (unsigned i = 0; def && i < def->s.interface_count; i++) {
        const struct def_interface *n = &def->s.interfaces[i];
        if (!g_strcmp0(n->target, name) || !g_ascii_strcasecmp(n->mac, name) ||
            !g_strcmp0(n->alias, name))
            return n;
    }
    ruche_error(error, MANAGER_ERR_ARGUMENT, "machine '%s' has no interface '%s'", v->name, name);
    return NULL;
}

static bool has_link(const struct def_interface *n)
{
    return n->target && strcmp(n->type, "user");
}

/* Of a backend inside of the machine: frames it delivered to the guest are received ones. */
static bool backend_stats(JsonNode *answer, const char *alias, struct domain_interface_stats *ret)
{
    g_autofree char *id = g_strconcat("host", alias, NULL);
    JsonArray *list = vm_json_array(answer);
    JsonObject *o;
    for (guint i = 0; (o = vm_json_at(list, i)); i++) {
        if (g_strcmp0(vm_json_string(o, "id"), id))
            continue;
        *ret = (struct domain_interface_stats){
            .rx_bytes = vm_json_int(o, "rx-bytes", -1),
            .rx_packets = vm_json_int(o, "rx-frames", -1),
            .rx_drop = vm_json_int(o, "rx-dropped", -1),
            .tx_bytes = vm_json_int(o, "tx-bytes", -1),
            .tx_packets = vm_json_int(o, "tx-frames", -1),
            .tx_drop = vm_json_int(o, "tx-dropped", -1),
        };
        return true;
    }
    return false;
}

bool vm_interface_stats(struct vm *v, const char *device, struct domain_interface_stats *ret,
                        GError **error)
{
    auto_vm *keep = vm_ref(v);
    const struct def_interface *n = find_interface(v, device, error);
    if (!n)
        return false;
    if (has_link(n))
        return vm_tap_stats(n->target, ret) ||
               ruche_error(error, MANAGER_ERR_MACHINE,
                           "machine '%s': the host has no interface '%s'", v->name, n->target);
    g_autofree char *alias = g_strdup(n->alias);
    JsonNode *answer = vm_ask(keep, VM_ASK_NETDEVS, error);
    return answer && (backend_stats(answer, alias, ret) ||
                      ruche_error(error, MANAGER_ERR_MACHINE,
                                  "machine '%s' does not count interface '%s'", v->name, device));
}

static void add_interface(struct param_list *l, unsigned i, const struct def_interface *n,
                          JsonNode *answer)
{
    struct domain_interface_stats s;
    param_string_at(l, n->target ? n->target : n->alias ? n->alias : n->mac, "net.%u.name", i);
    if (!(has_link(n) ? vm_tap_stats(n->target, &s) : backend_stats(answer, n->alias, &s)))
        return;
    const struct {
        const char *name;
        int64_t v;
    } rows[] = {{"rx.bytes", s.rx_bytes}, {"rx.pkts", s.rx_packets}, {"rx.errs", s.rx_errs},
                {"rx.drop", s.rx_drop},   {"tx.bytes", s.tx_bytes},  {"tx.pkts", s.tx_packets},
                {"tx.errs", s.tx_errs},   {"tx.drop", s.tx_drop}};
    for (size_t k = 0; k < G_N_ELEMENTS(rows); k++)
        if (rows[k].v >= 0)
            param_ullong_at(l, (uint64_t)rows[k].v, "net.%u.%s", i, rows[k].name);
}

static void interface_stats(struct vm *v, struct param_list *ret)
{
    bool inside = false;
    for (unsigned i = 0; v->d && i < v->d->live->s.interface_count; i++)
        inside |= !has_link(&v->d->live->s.interfaces[i]);
    JsonNode *answer = inside && v->ours ? vm_ask(v, VM_ASK_NETDEVS, NULL) : NULL;
    const struct domain_def *def = v->d ? v->d->live : NULL;
    param_uint(ret, "net.count", def ? def->s.interface_count : 0);
    for (unsigned i = 0; def && i < def->s.interface_count; i++)
        add_interface(ret, i, &def->s.interfaces[i], answer);
}

/* ---- I/O threads ---- */

static void iothread_stats(struct vm *v, struct param_list *ret)
{
    JsonArray *list = v->iothreads->len ? vm_json_array(vm_ask(v, VM_ASK_IOTHREADS, NULL)) : NULL;
    static const char *const names[] = {"poll-max-ns", "poll-grow", "poll-shrink"};
    JsonObject *o;
    param_uint(ret, "iothread.count", v->iothreads->len);
    for (guint i = 0; (o = vm_json_at(list, i)); i++) {
        const char *id = vm_json_string(o, "id");
        if (!id || !g_str_has_prefix(id, "iothread"))
            continue;
        unsigned number = (unsigned)g_ascii_strtoull(id + strlen("iothread"), NULL, 10);
        for (size_t k = 0; k < G_N_ELEMENTS(names); k++)
            param_ullong_at(ret, (uint64_t)MAX(vm_json_int(o, names[k], 0), 0), "iothread.%u.%s",
                            number, names[k]);
    }
}

static const struct {
    unsigned bit;
    void (*fn)(struct vm *v, struct param_list *ret);
} rows[] = {
    {STATS_CPU, vm_cpu_total_stats}, {STATS_BALLOON, vm_balloon_stats},
    {STATS_VCPU, vm_vcpu_stats},     {STATS_INTERFACE, interface_stats},
    {STATS_BLOCK, vm_disk_stats},    {STATS_IOTHREAD, iothread_stats},
};

bool vm_stats(struct vm *v, unsigned stats, struct param_list *ret, GError **error)
{
    auto_vm *keep = vm_ref(v);
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        if (stats & rows[i].bit)
            rows[i].fn(keep, ret);
    return true;
}
