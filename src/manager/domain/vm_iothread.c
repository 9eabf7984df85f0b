/* SPDX-License-Identifier: GPL-2.0-or-later */
/* I/O threads of a machine that runs: added, taken out, told how to poll.
 */
#include "manager/domain/vm_tune.h"

#include <string.h>

static char *object_id(unsigned id)
{
    return g_strdup_printf("iothread%u", id);
}

/* What holds for all of them holds for a new one: quotas of <cputune>, and where vCPUs may run. */
static bool tune(struct vm *v, unsigned id, GError **error)
{
    static const struct {
        const char *path, *name;
        bool is_signed;
    } rows[] = {{"cputune/iothread_period", "iothread_period", false},
                {"cputune/iothread_quota", "iothread_quota", true}};
    const struct xml_node *domain = v->d ? domain_def_tree(v->d->live) : NULL;
    struct param_list l = {0};
    for (size_t i = 0; domain && i < G_N_ELEMENTS(rows); i++) {
        const char *text = xml_get(domain, rows[i].path);
        if (text && rows[i].is_signed)
            param_llong(&l, rows[i].name, g_ascii_strtoll(text, NULL, 10));
        else if (text)
            param_ullong(&l, rows[i].name, g_ascii_strtoull(text, NULL, 10));
    }
    bool ok = (!l.count || vm_set_params(v, "scheduler", &l, error)) &&
              (!domain || vm_pin_iothread(v, domain, id, error));
    param_list_done(&l);
    return ok;
}

bool vm_iothread_add(struct vm *v, unsigned id, GError **error)
{
    auto_vm *keep = vm_ref(v);
    g_autofree char *name = object_id(id);
    if (!vm_do(v, "object-add", vm_json("qom-type", 's', "iothread", "id", 's', name, NULL), error))
        return false;
    if (vm_read_threads(keep, error) && tune(keep, id, error))
        return true;
    vm_do(keep, "object-del", vm_json("id", 's', name, NULL), NULL);
    vm_read_threads(keep, NULL);
    return false;
}

bool vm_iothread_del(struct vm *v, unsigned id, GError **error)
{
    auto_vm *keep = vm_ref(v);
    g_autofree char *name = object_id(id);
    return vm_do(v, "object-del", vm_json("id", 's', name, NULL), error) &&
           vm_read_threads(keep, error);
}

static bool set_one(struct vm *v, const char *path, const struct param *p, GError **error)
{
    g_autofree char *property = g_strdelimit(g_strdup(p->name), "_", '-');
    return vm_do(v, "qom-set",
                 vm_json("path", 's', path, "property", 's', property, "value", 'i',
                         p->type == PARAM_INT ? p->i : (int64_t)p->u, NULL),
                 error);
}

/* The lower bound is never to be above the upper one, not even between the two. */
static bool upper_first(struct vm *v, const char *path, const struct param_list *l)
{
    const struct param *min = param_find(l, "thread_pool_min");
    g_autoptr(JsonNode) n =
        min ? vm_call(v, "qom-get",
                      vm_json("path", 's', path, "property", 's', "thread-pool-max", NULL), NULL)
            : NULL;
    return n && JSON_NODE_HOLDS_VALUE(n) && min->i > json_node_get_int(n);
}

bool vm_iothread_set(struct vm *v, unsigned id, const struct param_list *l, GError **error)
{
    auto_vm *keep = vm_ref(v);
    g_autofree char *path = g_strdup_printf("/objects/iothread%u", id);
    const struct param *max = param_find(l, "thread_pool_max");
    bool max_first = max && upper_first(keep, path, l);
    if (max_first && !set_one(keep, path, max, error))
        return false;
    for (unsigned i = 0; i < l->count; i++) {
        const struct param *p = &l->rows[i];
        if ((p == max && max_first) || (p->type == PARAM_INT && p->i < 0))
            continue;
        if (!set_one(keep, path, p, error))
            return false;
    }
    return true;
}
